"""`backprop fit`: from a file of examples to a model file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.group import Command
from backprop.cli.training import ACTIVATIONS, LOSSES, OPTIMIZERS, Plan, finish, prepare, train, trainer_of

if TYPE_CHECKING:
    from backprop.training import Callback

SHARE = click.FloatRange(0, 1, max_open=True)
PATIENCE = "Stop after so many epochs without a better validation loss, and keep the best weights. 0: never stop."


@click.command(cls=Command, short_help="Train a network on a file and save it.")
@click.argument("data", type=options.DATA)
@click.option("--target", required=True, help="The column to predict.")
@options.out("Model file to write, ending in .safetensors.", options.MODEL, required=True)
@options.choice("--task", ["auto", "classification", "regression"], "auto: words are classes, numbers are numbers.")
@options.numbers("--hidden", "64,64", "Widths of the hidden layers, or none.")
@options.choice("--activation", ACTIVATIONS)
@click.option("--loss", type=click.Choice(list(LOSSES)), help="[cross-entropy for classes, least-squares for numbers]")
@options.choice("--optimizer", OPTIMIZERS)
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), help="[0.003 for adam; one for each optimizer]"
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.0)
@options.whole("--batch-size", 32)
@options.whole("--epochs", 100, "Most passes over the data.")
@click.option("--validation", type=SHARE, default=0.2, help="Share of the rows held out to watch training.")
@options.whole("--patience", 10, PATIENCE, least=0)
@options.whole("--seed", 0, "Of weights, shuffling and held-out rows.", least=0)
@options.choice("--missing", ["refuse", "impute"], "Holes in the data; impute: the mean, the most frequent category.")
@options.choice("--unknown", ["refuse", "ignore"], "Categories in later data that are not in these.")
@options.columns("--categories", "Columns of numbers that are names, such as post codes.")
@options.reading
@click.option("--log", type=options.LOG, help="Write a line per epoch, as .csv or .jsonl.")
@click.option("--checkpoint", type=options.MODEL, help="Write what backprop resume goes on from.")
@options.as_json
def fit(data: Path, out: Path, log: Path | None, checkpoint: Path | None, as_json: bool, **settings: Any) -> int | None:
    """Train a network on DATA and save it, with all that later data need, in one file.

    DATA is a .csv, .parquet, .npy or .npz file (arrays X and y), a folder of .parquet files, or - for a CSV on standard input.
    Columns of numbers are scaled, words become categories, and a target of words makes classes.

    \b
    Examples:
      backprop fit flats.csv --target rent --out rent.safetensors
      backprop fit irises.csv --target species --missing impute --epochs 20 -o species.safetensors
      cat flats.csv | backprop fit - --target rent -o rent.safetensors --json

    Ctrl-C ends training after the step at hand and saves the model (exit code 130). Files that are there are replaced, each in
    one move. The results are measured on the rows held out too; better still, evaluate on a file that fit has not seen.
    """
    options.outputs(out, log, checkpoint, given=(data,))
    callbacks = logger(log, overwrite=True)
    plan = Plan(**settings)
    table, parts = prepare(plan, data)
    trainer = trainer_of(plan, table)
    if checkpoint is not None:
        trainer.notes["fit"] = asdict(plan)
        callbacks.append(bp.Checkpoints(checkpoint))
    history = train(trainer, parts, plan.epochs, plan.patience, callbacks)
    return finish(trainer, table, parts, history, out, as_json)


def logger(path: Path | None, **how: bool) -> list[Callback]:
    """The logger of a path, by its suffix."""
    if path is None:
        return []
    return [bp.CSVLogger(path, **how) if path.suffix == ".csv" else bp.JSONLLogger(path, **how)]
