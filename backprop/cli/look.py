"""`backprop look`: what each column of a file is, what becomes of it, and what looks wrong. `fit` tells the same shortly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backprop.cli import options
from backprop.cli.data import Reading
from backprop.cli.group import Command, answer, option, quoted, refusal, short, tell
from backprop.cli.holdout import moment
from backprop.cli.reading import Known, Read, as_categories, naming, read, source
from backprop.cli.remarks import ONE_VALUE, REMARKS, Seen, repeated
from backprop.cli.words import spoken

if TYPE_CHECKING:
    from backprop.tables import Table

MOST_STORED = 1000  # columns whose lines a model keeps


@dataclass(frozen=True)
class Line:
    """What there is to say of a column. `remarks` are what looks wrong, each with what helps."""

    column: str
    kind: str
    holes: int = 0
    different: int = 0
    range: str = ""
    becomes: str = ""
    remarks: tuple[str, ...] = ()


@click.command(cls=Command, short_help="Show what a file's columns are, and what looks wrong.")
@click.argument("data", type=options.DATA)
@click.option("--target", help="The column to predict.")
@options.columns("--categories", "Columns of numbers that are names, such as post codes.")
@options.reading
@options.as_json
def look(data: Path, target: str | None, as_json: bool, **how: Any) -> None:
    """Show a line for each column of DATA: what it is, holes, different values, range, what becomes of it, what looks wrong.

    DATA is a file as for backprop fit, or -; or a model, which tells of the columns that it was trained on, how they were read,
    and which rows were held out.

    \b
    Examples:
      backprop look flats.csv --target rent
      backprop look irises.csv --json
      backprop look rent.safetensors
    """
    rows, left_out = None, {}
    history: dict[str, Any] = {}
    if data.suffix == ".safetensors":
        lines, history = stored(data)
        for line in told(history):
            tell(line)
    else:
        found = read(data, reading := Reading(**how), Known([target] if target else ()), new=reading)
        for note in found.notes:
            tell(note)
        with naming(data):
            lines = [*look_at(found, target)]
        rows, left_out = len(found.frame), found.left_out
        tell(f"{source(data)}: {rows:,} rows, {len(lines)} columns{outside(left_out)}.")
    result = {"rows": rows, "left_out": left_out, **history, "columns": [asdict(line) for line in lines]}
    answer(result, as_json, table_of(lines))


def outside(left_out: Mapping[str, str]) -> str:
    """What was left out and why, as the end of a sentence."""
    parts = [f"{short(name)} ({why})" for name, why in left_out.items()]
    return f"; left out: {', '.join(parts[:8])}{', …' if len(parts) > 8 else ''}" if parts else ""


def label(name: str) -> str:
    """A name of a column on one line, cut where it is long."""
    return short(name, 40)[1:-1]


def table_of(lines: Sequence[Line]) -> str:
    """The lines below each other."""
    cells = [("column", "kind", "holes", "different", "range", "becomes", "looks wrong")]
    cells += [
        (
            label(line.column),
            line.kind,
            str(line.holes),
            str(line.different),
            line.range,
            line.becomes,
            "; ".join(line.remarks),
        )
        for line in lines
    ]
    widths = [min(40, max(len(row[k]) for row in cells)) for k in range(6)]
    return "\n".join("  ".join([*(row[k].ljust(widths[k]) for k in range(6)), row[6]]).rstrip() for row in cells)


def shortly(inputs: Sequence[Line], lines: Sequence[Line]) -> Iterator[str]:
    """Which of the inputs became what, a line for each kind, and what looks wrong, also of the target."""
    groups: dict[str, list[str]] = {}
    for line in inputs:
        words = line.kind.startswith(("words", "categories"))
        groups.setdefault(line.kind, []).append(label(line.column) + f" ({line.different})" * words)
    for kind, names in groups.items():
        yield f"  {kind}: {', '.join(names[:12])}{f' and {len(names) - 12} more' if len(names) > 12 else ''}"
    # The table that fit makes warns of columns of one value itself.
    every = [(line.column, remark) for line in lines for remark in line.remarks if not remark.startswith(ONE_VALUE)]
    remarks = [f"Column {short(column)} {remark}" for column, remark in every]
    yield from (f"note: {remark}." for remark in remarks[:8])
    if len(remarks) > 8:
        yield f"note: {len(remarks) - 8} more columns look wrong; backprop look shows them."


def stored(path: Path) -> tuple[list[Line], dict[str, Any]]:
    """The lines that a model keeps of the columns it was trained on; and how they were read, and rows held out, if it knows."""
    from backprop.cli.models import load

    model = load(path)
    table, plan = model.table, model.plan()
    history = (
        {}
        if plan is None
        else {"read": Reading.of(table).choices(), "held_out": plan.held_out() | {"share": plan.validation}}
    )
    return _lines(table, path), history


def told(history: Mapping[str, Any]) -> Iterator[str]:
    """How a model's data were read, and rows held out, in words."""
    if not history:
        return
    choices = {name: value for name, value in history["read"].items() if value is not True}
    given = [f"--{name.replace('_', '-')}" for name, value in history["read"].items() if value is True]
    given += [
        f"--{name} {quoted(value)}" if isinstance(value, str) else option(f"--{name}", *_words(value))
        for name, value in choices.items()
    ]
    yield f"Data are read with {' '.join(given)}." if given else "Data are read without options."
    held = history["held_out"]
    share = f"{100 * held['share']:.3g} % of the rows"
    ways = {"chance": "by chance", "group": f"in whole groups of {held.get('column')!r}"}
    ways["time"] = f"the latest by {held.get('column')!r}"
    yield f"Held out: {share}, {ways[held['by']]}." if held["share"] else "Held out: nothing."


def _words(value: Any) -> list[str]:
    """What an option was given."""
    if isinstance(value, Mapping):
        return [name if form is None else f"{name}={form}" for name, form in value.items()]
    return list(value)


def _lines(table: Table | None, model: Path) -> list[Line]:
    kept = None if table is None else table.notes.get("columns")
    try:
        return [Line(**line | {"remarks": tuple(line["remarks"])}) for line in kept or ()] or _learnt(table, model)
    except (AttributeError, KeyError, TypeError):
        raise refusal(model, "notes of the columns it was trained on", short(kept)) from None


def _learnt(table: Table | None, model: Path) -> list[Line]:
    """What a table that was not made by fit knows of its columns."""
    if table is None:
        raise refusal(model, "a model that knows its columns", "one of numbers alone")
    of = {name: len(values) for name, values in table.categories.items()}
    return [
        Line(name, "words" if name in of else "numbers", different=of.get(name, 0), becomes=features(of.get(name, 1)))
        for name in table.columns
    ]


def features(n: int) -> str:
    """So many features."""
    return "1 feature" if n == 1 else f"{n} features"


def look_at(
    found: Read, target: str | None, task: str = "auto", *, most: int | None = None, by_chance: bool = True
) -> Iterator[Line]:
    """A line for each column of what was read; `most` categories of a column are kept, and rows are held out `by_chance` or not.

    Raises ValueError for a target that is not there and for no rows.
    """
    from backprop.tables.frame import Frame, require_names

    frame = as_categories(found.frame, codes=[target] if target and task == "classification" else ())
    rows = Frame("look", frame)
    if target is not None:
        require_names("look", [target], rows.names)
    values: dict[str, Any] = {name: found.refused.get(name) or _values(rows, name) for name in rows.names}
    dates = found.reading.dates
    answers = None if target is None or isinstance(values[target], Exception) else Seen(values[target], target=True)
    for name, of in values.items():
        if isinstance(of, Exception):
            text = spoken(str(of)).partition(f"column {name!r}: ")
            yield Line(name, "?", frame[name].null_count, becomes="refused", remarks=(text[2] or text[0],))
        else:
            yield _line(Seen(of, name in dates, name == target), answers, most, by_chance)


def _values(rows: Any, name: str) -> Any:
    """The values of a column, or the refusal of it."""
    try:
        return rows.column(name)
    except (TypeError, ValueError) as error:
        return error


def _line(column: Seen, answers: Seen | None, most: int | None, by_chance: bool) -> Line:
    """What a column is; what becomes of it is what a table learns of it."""
    import numpy as np

    from backprop.tables.columns import Target, learn

    values = column.values
    kind = "dates" if column.dates else {"text": "words", "booleans": "true or false"}.get(values.kind, values.kind)
    with np.errstate(all="ignore"):  # of the largest numbers there are
        checks = (*REMARKS, repeated) if by_chance else REMARKS
        remarks = [remark for check in checks if column.different and (remark := check(column, answers))]
    try:
        if column.target:
            classes = Target.learn(values, scale=True).classes
            becomes = f"target: {len(classes)} classes" if classes else "target"
        else:
            becomes = features(len(learn(values, scale=True, most=most).feature_names))
    except (TypeError, ValueError) as error:
        becomes, remarks = "refused", [*remarks, spoken(str(error)).removeprefix("look: ")]
    return Line(column.name, kind, int(values.missing.sum()), column.different, _range(column), becomes, tuple(remarks))


def _range(column: Seen) -> str:
    """From the least number to the greatest; or the first categories."""
    if not column.different:
        return ""
    if not column.words:
        ends = column.there.min(), column.there.max()
        if column.dates:
            return " … ".join(moment(day // 1) for day in ends)
        return f"{ends[0]:.6g} … {ends[1]:.6g}" if column.numeric else ("true, false" if column.different > 1 else "")
    shown = ", ".join(str(value)[:20] for value in sorted(column.words)[:4])
    return label(f"{shown[:36]}{', …' if column.different > 4 or len(shown) > 36 else ''}")
