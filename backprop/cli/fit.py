"""`backprop fit`: from a file of examples to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.group import Command
from backprop.cli.training import (
    ACTIVATIONS,
    LOSSES,
    RATES,
    Plan,
    finish,
    loss_of,
    network,
    optimizer_of,
    prepare,
    train,
)

if TYPE_CHECKING:
    from backprop.training import Callback


@click.command(cls=Command, short_help="Train a network on a file and save it.")
@click.argument("data", type=options.DATA)
@click.option("--target", required=True, help="The column to predict.")
@options.out("Model file to write, ending in .safetensors.", required=True, callback=options.safetensors)
@click.option(
    "--task",
    type=click.Choice(["auto", "classification", "regression"]),
    default="auto",
    show_default=True,
    help="auto: words are classes, numbers are numbers.",
)
@click.option(
    "--hidden",
    type=options.numbers,
    metavar="N,…",
    default=(64, 64),
    help="Widths of the hidden layers, or none. [64,64]",
)
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), default="relu", show_default=True)
@click.option("--loss", type=click.Choice(list(LOSSES)), help="[cross-entropy for classes, least-squares for numbers]")
@click.option("--optimizer", type=click.Choice(list(RATES)), default="adam", show_default=True)
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), help="[0.003 for adam; one for each optimizer]"
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=100, show_default=True, help="Most passes over the data.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of the rows held out to watch training.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Stop after so many epochs without a better validation loss, and keep the best weights. 0: never stop.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, shuffling and held-out rows."
)
@click.option(
    "--missing",
    type=click.Choice(["refuse", "impute"]),
    default="refuse",
    show_default=True,
    help="Holes in the data; impute: the mean, the most frequent category.",
)
@click.option(
    "--unknown",
    type=click.Choice(["refuse", "ignore"]),
    default="refuse",
    show_default=True,
    help="Categories in later data that are not in these.",
)
@click.option(
    "--categories",
    type=options.names,
    metavar="NAME,…",
    default=(),
    help="Columns of numbers that are names, such as post codes.",
)
@options.reading
@click.option("--log", type=options.FILE, help="Write a line per epoch, as .csv or .jsonl.")
@click.option(
    "--checkpoint", type=options.FILE, callback=options.safetensors, help="Write what backprop resume goes on from."
)
@options.as_json
def fit(data: Path, out: Path, log: Path | None, checkpoint: Path | None, as_json: bool, **settings: Any) -> int | None:
    """Train a network on DATA and save it, with all that later data need, in one file.

    DATA is a .csv, .parquet, .npy or .npz file (arrays X and y), or - for a CSV on standard input. Columns of numbers are scaled,
    words become categories, and a target of words makes classes.

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
    problem = prepare(plan, data)
    loss = loss_of(plan, problem.table)
    net = network(plan, problem)
    trainer = bp.Trainer(net, loss, optimizer_of(plan), batch_size=plan.batch_size, seed=plan.seed)
    if checkpoint is not None:
        trainer.notes["fit"] = plan.state()
        callbacks.append(bp.Checkpoints(checkpoint))
    history = train(trainer, problem, plan.epochs, plan.patience, callbacks)
    return finish(trainer, problem, history, out, as_json)


def logger(path: Path | None, **how: bool) -> list[Callback]:
    """The logger of a path, by its suffix. Raises click.BadParameter for another one."""
    if path is None:
        return []
    if path.suffix not in (".csv", ".jsonl"):
        raise click.BadParameter(f"'{path}' should end in .csv or .jsonl.", param_hint="'--log'")
    return [bp.CSVLogger(path, **how) if path.suffix == ".csv" else bp.JSONLLogger(path, **how)]
