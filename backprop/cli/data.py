"""Data in: how files are to be read. Predictions out: CSV, JSON lines, .npy."""

from __future__ import annotations

import csv
import errno
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backprop.cli.columns import Notation
from backprop.cli.group import plain, refusal, short, tell
from backprop.cli.reading import Known, Read, read, source
from backprop.cli.reading import as_categories as as_categories
from backprop.cli.source import is_encoding
from backprop.cli.text import Dialect

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.tables import Table


@dataclass(frozen=True)
class Reading:
    """How to read: the options of `options.reading`, and the columns that are categories whatever they look like."""

    delimiter: str | None = None
    no_header: bool = False
    drop: Sequence[str] = ()
    categories: Sequence[str] = ()
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    na: Sequence[str] | None = None
    dates: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table | None) -> Reading:
        """How the data of a model were read. Raises ValueError for notes that do not say so."""
        stored = {} if table is None else table.notes.get("reading", {})
        if not isinstance(stored, dict) or not all(_is_choice(name, value) for name, value in stored.items()):
            raise refusal("the model", "notes of how its data were read", short(stored))
        return Reading(**stored)

    def choices(self) -> dict[str, Any]:
        """All that was chosen, as JSON has it."""
        values = {each.name: getattr(self, each.name) for each in fields(Reading)}
        made = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in made.items() if value or (name == "na" and value is not None)}

    @property
    def notation(self) -> Notation:
        """How numbers are written. Raises click.UsageError for one mark of two meanings."""
        point = self.decimal or "."
        if point == self.thousands:
            other = "--thousands" if self.decimal else "--decimal"
            raise click.UsageError(f"'{point}' cannot be both --decimal and --thousands: say {other}, too.")
        return Notation(point, self.thousands)

    @property
    def dialect(self) -> Dialect:
        """How a text is cut into cells, and which of them are holes."""
        return Dialect(self.delimiter, self.notation.decimal, self.encoding, self.na, self.no_header)

    def frame(self, path: Path, table: Table | None = None, *, target: bool = True) -> Any:
        """The Arrow table of a file, read as that of `table` was, with the kinds of columns that it has learnt.

        What was given here wins over what the model says, and is told. Without `target` its column may be anything. Raises
        click.BadParameter for another suffix, OSError for a file that cannot be read, ValueError for one that is not what its
        suffix says, has not the columns to drop, or has a cell that is not what its column is, ImportError without the extra.
        """
        return self.found(path, table, target=target).frame

    def found(
        self,
        path: Path,
        table: Table | None = None,
        *,
        target: bool = True,
        first: Callable[[Any], None] = lambda frame: None,
    ) -> Read:
        """The same with what was left out, and how it was read. Errors as those of `frame`, after `first` has seen the table."""
        before = Reading.of(table)
        known = self.wanted() if table is None else Known.of(table, target)
        found = read(path, self._after(before), known, new=self)
        first(found.frame)
        used(found, self._differences(before, path))
        return found

    def wanted(self) -> Known:
        """What is known of columns without a model."""
        return Known()

    def _after(self, before: Reading) -> Reading:
        """How to read, with what is not said here as it was before; decimal point and thousands go together."""
        given = {
            name: getattr(self, name) for name in ("delimiter", "encoding", "na") if getattr(self, name) is not None
        }
        if self.decimal or self.thousands:
            given |= {"decimal": self.decimal, "thousands": self.thousands}
        for name in ("drop", "categories"):
            given[name] = tuple(dict.fromkeys([*getattr(before, name), *getattr(self, name)]))
        given |= {"dates": {**before.dates, **self.dates}, "no_header": before.no_header or self.no_header}
        return replace(before, **given)

    def _differences(self, before: Reading, path: Path) -> list[str]:
        """What is to be told of options that differ from those of fit."""
        names = ("delimiter", "decimal", "thousands", "encoding", "na")
        both = {name: (getattr(self, name), getattr(before, name)) for name in names}
        return [
            f"{source(path)} is read with --{name} {short(now)}, as given here; fit had {short(then)}."
            for name, (now, then) in both.items()
            if now is not None and then is not None and list(now) != list(then)
        ]


def _is_choice(name: str, value: Any) -> bool:
    """Whether a field of Reading may have this value, which comes from a file."""
    if name == "no_header":
        return isinstance(value, bool)
    if name == "dates":
        return isinstance(value, dict) and all(isinstance(form, str | None) for form in value.values())
    if name in ("drop", "categories", "na"):
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    if name == "encoding":
        return isinstance(value, str) and is_encoding(value)
    return name in ("delimiter", "decimal", "thousands") and isinstance(value, str) and len(value) == 1


def used(found: Read, told: Iterable[str] = ()) -> Any:
    """The table of what was read, with what is to be told told. Raises the refusal of the first column that has one."""
    for note in [*told, *found.notes]:
        tell(note)
    for error in found.refused.values():
        raise error
    return found.frame


def out_format(out: Path | None, given: str | None) -> str:
    """The format of the predictions: as asked for, else by the suffix, else CSV. Raises click.BadParameter."""
    kind = f".{given}" if given else out.suffix if out else ".csv"
    if kind not in WRITERS:
        raise click.BadParameter(f"'{out}' should end in one of {', '.join(WRITERS)}.", param_hint="'--out'")
    return kind


def write(columns: Mapping[str, Array], out: Path | None, kind: str) -> None:
    """Predictions by column to a file, whole or not at all, or to standard output."""
    data = WRITERS[kind](columns)
    if out is not None:
        from backprop.files.atomic import write_atomically

        write_atomically(out, data)
        return
    if sys.stdout is None:
        raise OSError(errno.EBADF, "Standard output is closed")
    left = memoryview(data)
    while left:  # without a buffer, as by python -u, a write may take a part
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()


def _rows(columns: Mapping[str, Array]) -> Iterable[tuple[Any, ...]]:
    return zip(*(values.tolist() for values in columns.values()), strict=True)


def _to_csv(columns: Mapping[str, Array]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(_rows(columns))
    return text.getvalue().encode()


def _to_json_lines(columns: Mapping[str, Array]) -> bytes:
    rows = (dict(zip(columns, row, strict=True)) for row in _rows(columns))
    return "".join(f"{json.dumps(plain(row), ensure_ascii=False)}\n" for row in rows).encode()


def _to_npy(columns: Mapping[str, Array]) -> bytes:
    """One column as (N,), several as (N, K)."""
    import numpy as np

    arrays = list(columns.values())
    file = io.BytesIO()
    np.save(file, arrays[0] if len(arrays) == 1 else np.column_stack(arrays), allow_pickle=False)
    return file.getvalue()


WRITERS = {".csv": _to_csv, ".jsonl": _to_json_lines, ".npy": _to_npy}
