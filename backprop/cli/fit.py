"""`backprop fit`: from a file of examples to a model file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli import options, tabular
from backprop.cli.group import Command, refusal, tell
from backprop.cli.kind import PLAIN, TABULAR, chosen
from backprop.cli.models import Model, load, measures
from backprop.cli.training import (
    ACTIVATIONS,
    LOSSES,
    OPTIMIZERS,
    Plan,
    advise,
    finish,
    network_of,
    prepare,
    save,
    train,
    trainer_of,
)

if TYPE_CHECKING:
    from backprop.cli.training import Parts
    from backprop.tables import Table
    from backprop.training import Callback, Trainer

SHAPES = {"hidden", "activation", "missing", "categories", "task"}  # what a model has settled for those who train it on
SHARE = click.FloatRange(0, 1, max_open=True)
MODEL = "[tabular; plain where an option of the plain network is given]"
MISSING = (
    "Holes; impute: mean, most frequent category; indicate: and that there was one. [tabular: indicate; plain: refuse]"
)
UNKNOWN = "Categories in later data that are not in these. [tabular: ignore; plain: refuse]"
HOLES = {TABULAR: {"missing": "indicate", "unknown": "ignore"}, PLAIN: {"missing": "refuse", "unknown": "refuse"}}
MAX_TIME = "Of the tabular network: the best after so long; another machine then gives another model."
PATIENCE = "Stop after so many epochs without a better validation loss, and keep the best weights. 0: never stop."


@click.command(cls=Command, short_help="Train a network on a file and save it.")
@click.argument("data", type=options.DATA)
@click.option("--target", help="The column to predict; needed unless --from names a model.")
@options.out("Model file to write, ending in .safetensors.", options.MODEL, required=True)
@options.choice("--task", ["auto", "classification", "regression"], "auto: words are classes, numbers are numbers.")
@click.option("--model", type=click.Choice([TABULAR, PLAIN]), help=MODEL)
@options.numbers(
    "--hidden", "64,64", "Of the plain network, as all from here to --patience: widths of the hidden layers, or none."
)
@options.choice("--activation", ACTIVATIONS)
@click.option("--loss", type=click.Choice(list(LOSSES)), help="[cross-entropy for classes, least-squares for numbers]")
@options.choice("--optimizer", OPTIMIZERS)
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), help="[0.003 for adam; one for each optimizer]"
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.0)
@options.whole("--batch-size", 32)
@options.whole("--epochs", 100, "Most passes over the data.")
@options.whole("--patience", 10, PATIENCE, least=0)
@options.whole("--members", 8, "Of the tabular network: how many, which answer as one.")
@click.option("--max-time", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help=MAX_TIME)
@click.option(
    "--validation",
    type=SHARE,
    default=0.2,
    help="Share of the rows held out to measure on; the plain network stops by it.",
)
@click.option("--group", metavar="COLUMN", help="Hold out whole groups, such as patients; the column is no feature.")
@click.option("--time", metavar="COLUMN", help="Hold out the latest rows by this column, which is no feature.")
@options.whole("--seed", 0, "Of weights, shuffling and held-out rows.", least=0)
@click.option("--missing", type=click.Choice(["refuse", "impute", "indicate"]), help=MISSING)
@click.option("--unknown", type=click.Choice(["refuse", "ignore"]), help=UNKNOWN)
@options.columns("--categories", "Columns of numbers that are names, such as post codes.")
@options.reading
@click.option(
    "--from", "start", type=options.FILE, help="Train this plain model on with DATA; what is not said is as in its fit."
)
@click.option("--log", type=options.LOG, help="Of the plain network: a line per epoch, as .csv or .jsonl.")
@click.option("--checkpoint", type=options.MODEL, help="A file that backprop resume goes on from.")
@options.as_json
@click.pass_context
def fit(
    context: click.Context,
    /,
    data: Path,
    out: Path,
    start: Path | None,
    log: Path | None,
    checkpoint: Path | None,
    as_json: bool,
    **settings: Any,
) -> int | None:
    """Train a network on DATA and save it, with all that later data need, in one file.

    DATA is a .csv, .parquet, .npy or .npz file (arrays X and y), a folder of .parquet files, or - for a CSV on standard input.
    Columns of numbers are scaled, words become categories, and a target of words makes classes.

    The network is the tabular one: eight members without a setting, each stopped by rows of its own, which answer as one. Its
    training goes on from its --checkpoint where it was stopped, and is over when it ends. Who gives --hidden, or another
    option of the plain network, gets that: one stack of layers, of which all can be set, and which alone has a --log and can
    be trained on by --from. All other commands take both.

    \b
    Examples:
      backprop fit flats.csv --target rent --out rent.safetensors
      backprop fit irises.csv --target species --members 2 -o species.safetensors
      backprop fit irises.csv --target species --missing impute --hidden 32 --epochs 20 -o species.safetensors
      cat flats.csv | backprop fit - --target rent -o rent.safetensors --json
      backprop fit visits.csv --target pain --group patient -o pain.safetensors
      backprop fit flats.csv --target rent --model plain -o plain.safetensors
      backprop fit later.csv --from plain.safetensors -o later.safetensors

    Ctrl-C ends training after the step at hand and saves the model (exit code 130). Files that are there are replaced, each in
    one move. The results are measured on the rows held out too; better still, evaluate on a file that fit has not seen.
    """
    options.outputs(out, log, checkpoint, given=(data, start))
    given = {name for name in settings if _given(context, name)}
    beside = {"start": start, "log": log}
    kind, words = chosen(settings["model"], given | {name for name, value in beside.items() if value is not None})
    settings |= {"model": kind} | {name: settings[name] or usual for name, usual in HOLES[kind].items()}
    if kind == TABULAR:
        with options.kept(checkpoint):
            return tabular.fit(_plan(settings, given, None), data, out, checkpoint, as_json)
    before_it = None if start is None else load(start)
    plan = _plan(settings, given, before_it)
    known = before_it.table if before_it else None
    found = plan.found(data, known, first=lambda frame: advise(plan, frame, data))
    table, parts = prepare(plan, found, data, known)
    if words:
        tell(words)
    trainer = trainer_of(plan, before_it.net if before_it else network_of(plan, table), table)
    before = before_it and Before(trainer, table, parts)
    if before_it:
        trainer.notes["earlier"] = [*before_it.notes.get("earlier", []), before_it.notes.get("data")]
    with logging(log) as callbacks, options.kept(checkpoint):
        if checkpoint is not None:
            callbacks.append(bp.Checkpoints(checkpoint))
        history = train(trainer, parts, plan.epochs, plan.patience, callbacks)
        if before and plan.patience:
            before.keep_the_better(trainer, parts)
        save(trainer, table, out)
    # Behind it: who does not get the result has the model, and with it its checkpoint and its log.
    return finish(trainer, table, parts, history, out, as_json, before and before.worth)


def _given(context: click.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _plan(settings: dict[str, Any], given: set[str], model: Model | None) -> Plan:
    """The plan of the options; with a model, that by which it was trained, but for the options given.

    Raises click.UsageError for options that do not go together, or with a model.
    """
    if settings["group"] is not None and settings["time"] is not None:
        raise click.UsageError("--group and --time exclude each other: choose what new rows will be.")
    if not settings["validation"] and not given.isdisjoint({"group", "time"}):
        raise click.UsageError("--group and --time say what is held out, and --validation 0 holds nothing out.")
    beside = (settings["group"], settings["time"])  # no features anyway
    settings |= {"drop": tuple(name for name in settings["drop"] if name not in beside)}
    if model is None:
        if settings["target"] is None:
            raise click.UsageError("Missing option '--target': the column to predict.")
        plan = Plan(**settings)
    else:
        if fixed := sorted(given & SHAPES):
            raise click.UsageError(f"--{fixed[0]} is as in the model that --from names; leave it out.")
        plan = _of_model(settings, given, model)
    if plan.target in (plan.group, plan.time):
        raise click.UsageError(f"{plan.target!r} is the target and cannot say what is held out.")
    return plan


def _of_model(settings: dict[str, Any], given: set[str], model: Model) -> Plan:
    """The plan that goes on with a model. Raises ValueError for a model that cannot be trained on."""
    table = model.table
    if model.estimator:
        got, advice = (
            f"a {model.estimator}",
            "In Python its class loads it, and partial_fit or warm_start trains it on.",
        )
        if model.tabular:
            got, advice = (
                "a tabular one",
                "Its members have ended at their best epochs: fit anew, with the new rows and the old ones.",
            )
        raise refusal(model.path, "a model of backprop fit --model plain", got, advice)
    if table is None or table.target is None:
        raise refusal(model.path, "a model that knows its target, as of backprop fit", "another one")
    if settings["target"] not in (None, table.target):
        raise refusal("--target", f"{table.target!r}, that of {model.path}", repr(settings["target"]))
    for name in given & {"group", "time", "drop"}:
        for column in [settings[name]] if isinstance(settings[name], str) else settings[name] or ():
            if column in table.columns:
                text = f"the model that --from names takes {column!r} as an input; a new fit can leave it out."
                raise click.UsageError(f"--{name} {column}: {text}")
    plan = model.plan() or Plan(**settings)
    changes = {name: settings[name] for name in given} | {"target": table.target}
    if given & {"group", "time"}:
        changes |= {"group": settings["group"], "time": settings["time"]}
    return replace(plan, **changes)


class Before:
    """What a model was, and was worth, before it is trained on: on the rows that are held out, if there are any."""

    def __init__(self, trainer: Trainer, table: Table, parts: Parts) -> None:
        from backprop.training.callbacks import live

        X, y = parts.get("validation", parts["training"])
        self.worth = measures(table, trainer.net.predict(X), y)
        self.loss = trainer.evaluate(X, y)["loss"]
        self.weights = {name: array.copy() for name, array in live(trainer.net).items()}

    def keep_the_better(self, trainer: Trainer, parts: Parts) -> None:
        """Take the model as it was where no epoch was better on the rows that are held out."""
        from backprop.training.callbacks import put

        if "validation" in parts and trainer.evaluate(*parts["validation"])["loss"] >= self.loss:
            put(trainer.net, self.weights)
            tell("No epoch was better on the rows held out than the model as it came, which is saved as it was.")


@contextmanager
def logging(path: Path | None, append: bool = False) -> Iterator[list[Callback]]:
    """The logger of a path, by its suffix. A log that is there stays until all has gone well: the new one grows beside it."""
    if path is None:
        yield []
        return
    target = Path(os.path.realpath(path))
    beside = target.exists() and not append
    place = target.with_name(f".{target.stem}.{os.getpid()}.new{target.suffix}") if beside else target
    kind = bp.CSVLogger if path.suffix == ".csv" else bp.JSONLLogger
    try:
        yield [kind(place, append=append, overwrite=not append)]
        if beside:
            os.replace(place, target)
    finally:
        if beside:
            place.unlink(missing_ok=True)
