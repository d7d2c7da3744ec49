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
from backprop.cli.models import default_loss, load, load_with_targets

if TYPE_CHECKING:
    from backprop.training import History

KINDS = ("network", "weights", "confusion", "boundary", "loss")
WITH_DATA = KINDS[2:]


@click.command(cls=Command, short_help="Draw a log, a network or its results.")
@click.argument("source", type=options.FILE)
@click.argument("data", type=options.DATA, required=False)
@options.out("Picture to write: .png, .svg or .pdf.", options.PICTURE, required=True)
@options.choice("--kind", KINDS, "Of a model: what to draw.")
@click.option("--metric", default="loss", help="Of a log: the column to draw.")
@options.own_layers
@options.reading
@options.as_json
def plot(source: Path, data: Path | None, out: Path, kind: str, metric: str, as_json: bool, **how: Any) -> None:
    """Draw SOURCE: the learning curves of a log that fit --log has written, or a model.

    \b
    Of a model:  network     its layers with shapes
                 weights     its matrices
                 confusion   DATA's classes against those predicted
                 boundary    the plane of two columns of numbers, with DATA on it
                 loss        the loss on DATA over a plane through the weights
    \b
    Examples:
      backprop fit flats.csv --target rent -o rent.safetensors --log log.csv
      backprop plot log.csv --out curves.png
      backprop plot rent.safetensors --kind weights --out weights.svg
      backprop plot species.safetensors irises.csv --kind confusion --out confusion.png
    """
    options.outputs(out, given=(source, data))
    from backprop import plots

    if source.suffix in options.LOG.suffixes:
        axes = plots.learning_curves(history(source), metric)
    else:
        if kind in WITH_DATA and data is None:
            raise click.UsageError(f"--kind {kind} needs DATA with the target.")
        axes = _draw(source, data, kind, **how)
    save_picture(axes, out)
    answer({"out": str(out)}, as_json)


def _draw(model: Path, data: Path | None, kind: str, **how: Any) -> Any:
    """The axes of a picture of a model."""
    from backprop import plots

    if data is None or kind not in WITH_DATA:
        net = load(model, how["layers"]).net
        return plots.network_diagram(net) if kind == "network" else plots.weights(net)
    loaded, table, rows = load_with_targets(model, data, **how)
    net, X, y = loaded.net, rows.X, rows.y
    if kind == "loss":
        return plots.loss_surface(net, default_loss(table, net.out_features), X, y)
    classes = None if table.classes is None else table.classes.tolist()
    if kind == "boundary":
        axes = plots.decision_boundary(net, X, y, classes)
        axes.set(**dict(zip(("xlabel", "ylabel"), (f"{name}, scaled" for name in table.feature_names), strict=True)))
        return axes
    if classes is None:
        raise ValueError("--kind confusion needs a model of classes, and this one predicts numbers.")
    return plots.confusion_matrix([classes[k] for k in y], table.labels(net.predict(X)).tolist(), classes)


def history(path: Path) -> History:
    """The records of a log, a CSV or JSON lines as the loggers write them. Raises ValueError for another file."""
    from dataclasses import fields

    from backprop.training import Epoch, History

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
