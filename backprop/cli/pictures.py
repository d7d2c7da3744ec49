"""`backprop plot`: logs, networks and models as pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backprop.cli import options
from backprop.cli.group import Command, answer, refusal, tell
from backprop.cli.models import load, load_with_targets, require_column
from backprop.cli.source import require_regular
from backprop.cli.view import View

if TYPE_CHECKING:
    from backprop.training import History

ALONE = ("network", "weights")  # of a model without data
OF_NUMBERS = ("predictions", "residuals")
OF_CLASSES = ("confusion",)
KINDS = (*ALONE, *OF_NUMBERS, *OF_CLASSES, "importance", "dependence", "boundary", "loss")


@click.command(cls=Command, short_help="Draw a log, a network or its results.")
@click.argument("source", type=options.FILE)
@click.argument("data", type=options.DATA, required=False)
@options.out("Picture to write: .png, .svg or .pdf.", options.PICTURE, required=True)
@click.option("--kind", type=click.Choice(KINDS), help="Of a model: what to draw. [the network; with DATA its results]")
@click.option("--column", metavar="COLUMN", help="Of dependence: the column. [the most important one]")
@click.option("--metric", help="Of a log: the column to draw. [loss]")
@options.own_layers
@options.target
@options.reading
@options.as_json
def plot(
    source: Path,
    data: Path | None,
    out: Path,
    kind: str | None,
    column: str | None,
    metric: str | None,
    target: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Draw SOURCE: the learning curves of a log that fit --log has written, a model, or what a model makes of DATA.

    \b
    Of a model:  network      its layers with shapes
                 weights      its matrices
    With DATA:   predictions  numbers predicted against true ones
                 residuals    what is left of them
                 confusion    classes against those predicted
                 importance   how much the error grows when a column is shuffled
                 dependence   what is predicted as one column changes, and the others stay
                 boundary     the plane of two columns of numbers, with DATA on it
                 loss         the loss over a plane through the weights
    \b
    Examples:
      backprop fit flats.csv --target rent -o rent.safetensors --log log.csv
      backprop plot log.csv --out curves.png
      backprop plot rent.safetensors later.csv --out results.png
      backprop plot rent.safetensors later.csv --column size --out size.png
      backprop plot rent.safetensors --kind weights --out weights.svg
      backprop plot species.safetensors irises.csv --kind confusion --out confusion.png

    With DATA and without --kind, the pictures that suit the target are drawn beside each other. Where DATA are those that fit was
    given, results are those of the rows that it held out.
    """
    options.outputs(out, given=(source, data))
    from backprop import plots

    if source.suffix in options.LOG.suffixes:
        _refuse("a log", DATA=data, kind=kind, column=column, target=target)
        axes: Any = plots.learning_curves(history(source), metric or "loss")
    elif data is None:
        _refuse("a model", metric=metric)
        _refuse("a model without DATA", column=column, target=target)
        if kind not in (None, *ALONE):
            raise click.UsageError(f"--kind {kind} needs DATA with the target.")
        net = load(source, how["layers"]).net
        axes = plots.weights(net) if kind == "weights" else plots.network_diagram(net)
    else:
        _refuse("a model", metric=metric)
        axes = _results(source, data, kind, column, target, **how)
    save_picture(axes, out)
    answer({"out": str(out)}, as_json)


def _refuse(source: str, **given: object) -> None:
    """Refuse options that say nothing of what is drawn."""
    for name, value in given.items():
        if value is not None:
            option = name if name.isupper() else f"--{name}"
            raise click.UsageError(f"{option} does not apply to the picture of {source}.")


def _results(source: Path, data: Path, kind: str | None, column: str | None, target: str | None, **how: Any) -> Any:
    """The axes of one picture, or of those that suit the target."""
    if kind in ALONE:
        raise click.UsageError(f"--kind {kind} draws the model alone, without DATA.")
    if column is not None and kind not in (None, "dependence"):
        raise click.UsageError(f"--column goes with --kind dependence, not {kind}.")
    model, table, rows = load_with_targets(source, data, target, **how)
    if column is not None:
        require_column("--column", column, rows.features)
    view = View(model, table, rows, column)
    if view.held_out:
        tell(f"Drawn from the {len(view.y):,} rows that fit held out of these data.")
    kind = "dependence" if column is not None else kind
    if kind is not None:
        if kind in (OF_NUMBERS if table.classes is not None else OF_CLASSES):
            needs, predicts = ("numbers", "classes") if kind in OF_NUMBERS else ("classes", "numbers")
            raise ValueError(f"--kind {kind} needs a model of {needs}, and this one predicts {predicts}.")
        return view.draw(kind, None)
    kinds = [*(OF_NUMBERS if table.classes is None else OF_CLASSES), "importance", "dependence"]
    if table.classes is not None and len(table.columns) == len(table.feature_names) == 2:
        kinds.insert(1, "boundary")
    axes = _panels(len(kinds))
    for each, ax in zip(kinds, axes, strict=True):
        view.draw(each, ax)
    return axes[0]


def _panels(n: int) -> list[Any]:
    """Axes for so many pictures, two or three beside each other."""
    from backprop import pictures

    down, across = (2, 2) if n == 4 else (1, n)
    figure = pictures.axes(None, 5.6 * across, 4.6 * down).figure
    figure.clear()
    return [figure.add_subplot(down, across, k + 1) for k in range(n)]


def history(path: Path) -> History:
    """The records of a log, a CSV or JSON lines as the loggers write them. Raises ValueError for another file."""
    from dataclasses import fields

    from backprop.training import Epoch, History

    require_regular(path)
    text = path.read_text(encoding="utf-8")
    own = [field.name for field in fields(Epoch) if field.name not in ("epoch", "metrics", "validation")]
    records = []
    try:
        lines: Any = csv.DictReader(io.StringIO(text)) if path.suffix == ".csv" else map(json.loads, text.splitlines())
        for line in lines:
            numbers = {name: float("nan" if value in (None, "") else value) for name, value in line.items()}
            epoch = int(numbers.pop("epoch"))
            of_epoch: dict[str, Any] = {name: numbers.pop(name) for name in own}
            held = {name: numbers.pop(name) for name in list(numbers) if name.startswith("validation_")}
            validation = {name.removeprefix("validation_"): value for name, value in held.items()}
            records.append(Epoch(epoch, **of_epoch, metrics=numbers, validation=validation))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        got = f"something else ({type(error).__name__}: {error})"
        raise refusal(path, "a log of fit --log, CSVLogger or JSONLLogger", got) from None
    if not records:
        raise refusal(path, "a log with epochs", "none")
    return History(records)


def save_picture(axes: Any, out: Path) -> None:
    """Write the figure of axes to a file, whole or not at all, and say so."""
    from backprop.files.atomic import write_atomically

    first = axes if hasattr(axes, "figure") else axes.flat[0]
    file = io.BytesIO()
    first.figure.savefig(file, format=out.suffix[1:], dpi=150)
    write_atomically(out, file.getvalue())
    tell(f"Picture saved to {out}.")
