"""`backprop predict` and `backprop evaluate`: what a saved model says of new rows, and how right it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backprop.cli import options
from backprop.cli.data import out_format, write
from backprop.cli.group import Command, answer, tell
from backprop.cli.models import (
    SEEN,
    Model,
    Rows,
    by_part,
    fingerprint,
    load,
    load_with_targets,
    measures,
    seen_before,
    shown,
    task,
    tell_one_answer,
    tell_unknown,
)

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.tables import Table


@click.command(cls=Command, short_help="Predict the target for the rows of a file.")
@options.model
@click.argument("data", type=options.DATA)
@options.out("File to write, ending in .csv, .jsonl or .npy; without it, standard output.")
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl", "npy"]), help="[by the suffix of --out, else csv]")
@click.option("--probabilities", is_flag=True, help="Of classes: also a column with the probability of each.")
@options.reading
@options.as_json
def predict(
    model: Path,
    data: Path,
    layers: tuple[str, ...],
    out: Path | None,
    kind: str | None,
    probabilities: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Predict the target for each row of DATA, in the order of the rows, with the MODEL that backprop fit has saved.

    Columns are found by name, whatever their order; the target may be there or not. DATA is a file as for backprop fit, or -.
    CSV is written in UTF-8, with commas between columns and decimal points, however DATA is written.

    \b
    Examples:
      backprop predict rent.safetensors new.csv
      backprop predict species.safetensors irises.csv --probabilities --out predictions.jsonl
      cat new.csv | backprop predict rent.safetensors - > predictions.csv
    """
    out = None if str(out) == "-" else out
    options.outputs(out, given=(data, model))
    kind = out_format(out, kind)
    loaded = load(model, layers)
    rows = loaded.rows(data, how, answers=False)
    tell_unknown(loaded.table, rows.features)
    f = loaded.net.predict(rows.X)
    columns = predictions(loaded.table, f, probabilities)
    if kind == ".npy" and probabilities and len(columns) > 1:
        del columns[next(iter(columns))]  # an array holds numbers or words
    if as_json and out is None:
        answer(columns, as_json)
        return
    write(columns, out, kind)
    if out is not None:
        tell(f"{len(f):,} predictions saved to {out}.")
        answer({"out": str(out), "rows": len(f), "columns": list(columns)}, as_json)


def probabilities(f: Array) -> Array:
    """The probability of each class (N, K) from outputs f (N, K), or (N, 1) for two classes."""
    import numpy as np
    from scipy.special import softmax

    f = np.concatenate([np.zeros_like(f), f], axis=1) if f.shape[1] == 1 else f
    return np.asarray(softmax(f.astype(np.float64), axis=1))


def predictions(table: Table | None, f: Array, with_probabilities: bool) -> dict[str, Array]:
    """The columns to write, from outputs f (N, K). Raises ValueError for probabilities of what has no classes."""
    name = (table and table.target) or "prediction"
    if table is not None and table.classes is not None:
        columns = {name: table.labels(f)}
        if with_probabilities:
            p = probabilities(f)
            columns |= {f"{name}={label}": p[:, k] for k, label in enumerate(table.classes)}
        return columns
    if with_probabilities:
        raise ValueError("--probabilities needs a model of classes, and this one predicts numbers.")
    if table is None or table.state()["answers"] is None:
        return {f"f{k}": f[:, k] for k in range(f.shape[1])}
    values = table.values(f).reshape(f.shape)
    return {name if f.shape[1] == 1 else f"{name} {k}": values[:, k] for k in range(f.shape[1])}


@click.command(cls=Command, short_help="Measure a model on a file with the answers.")
@options.model
@click.argument("data", type=options.DATA)
@options.target
@options.reading
@options.as_json
def evaluate(model: Path, data: Path, target: str | None, as_json: bool, **how: Any) -> None:
    """Measure how well MODEL predicts the target of DATA, a file like that of fit, or -.

    Of classes: the accuracy, and beside it the share of the most frequent class, which is what always answering that would give;
    the cross-entropy; and of two classes the ROC AUC and the average precision, where scikit-learn is there.
    Of numbers: R², the root mean squared and the mean absolute error, in units of the target. Where DATA are those that fit was
    given, the rows that it held out are measured by themselves, too.

    \b
    Examples:
      backprop evaluate rent.safetensors later.csv
      backprop evaluate species.safetensors irises.csv --json
    """
    loaded, table, rows = load_with_targets(model, data, target, **how)
    f = loaded.net.predict(rows.X)
    numbers = measures(table, f, rows.y)
    tell(f"{len(f):,} rows, {task(table)} of {rows.target!r}.")
    tell_one_answer(table, f, rows.y)
    result: dict[str, Any] = {"task": task(table), "rows": len(f), **numbers}
    text = shown(numbers)
    held = held_out(loaded, table, rows)
    if held is not None:
        but = f", but for the {len(held):,} rows that were held out" if len(held) else ""
        tell(f"The model was trained on these data{but}.")
        if len(held) and seen_before(loaded.notes):
            tell(SEEN)
    elif seen_earlier(loaded, table, rows):
        tell("The model goes on from one that was trained on these data: what is measured on them flatters it.")
    if held is not None and len(held):
        apart = measures(table, loaded.net.predict(rows.X[held]), rows.y[held])
        result["held_out"] = {"rows": len(held), **apart}
        text = by_part({"all rows": numbers, "held out": apart})
    answer(result, as_json, text)


def held_out(model: Model, table: Table, rows: Rows) -> Array | None:
    """The places of the rows that fit held out, if these are the data that it was given; else None."""
    held, seen = _trained_on(model, table, rows)
    return held if seen is not None and seen == model.notes.get("data") else None


def seen_earlier(model: Model, table: Table, rows: Rows) -> bool:
    """Whether these are data that a model before this one was trained on, held out in the same way."""
    return bool(model.notes.get("earlier")) and _trained_on(model, table, rows)[1] in model.notes["earlier"]


def _trained_on(model: Model, table: Table, rows: Rows) -> tuple[Any, dict[str, Any] | None]:
    """Which of these rows the plan of a model holds out, and the fingerprint of those that it trains on; None where it cannot."""
    import numpy as np

    plan = model.plan()
    if plan is None or not isinstance(model.notes.get("data"), dict):
        return None, None
    try:
        found = plan.hold_out(rows.read)
    except ValueError:  # later data may lack the column
        return None, None
    at = np.full(len(rows.read), -1)
    at[slice(None) if rows.places is None else rows.places] = np.arange(len(rows.X))
    training, held = (at[part][at[part] >= 0] for part in (found.training, found.held))
    return held, fingerprint(model.net, table, rows.X[training], rows.y[training])
