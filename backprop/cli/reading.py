"""From a file to a table of columns that are what they say: what is left out, which columns are refused, what is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backprop.cli.columns import Column, is_numeric
from backprop.cli.dates import date_format, decoded, is_words
from backprop.cli.formats import columns_of
from backprop.cli.group import option, refusal, short
from backprop.cli.text import Columns

if TYPE_CHECKING:
    from backprop.cli.data import Reading
    from backprop.tables import Table

ROW_NAMES = "no name, and another value in every row: it names the rows"


def source(path: Path) -> str:
    """What a path is called."""
    return "standard input" if str(path) == "-" else str(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of what is in a file say which."""
    try:
        yield
    except (TypeError, ValueError, EOFError, MemoryError) as error:
        if str(error).startswith(f"{source(path)}: "):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{source(path)}: {error}") from error


@dataclass(frozen=True)
class Known:
    """What a model knows of the columns: their names, and which are categories that are words or numbers.

    In fit there is no model (`table` is None), and `names` are those that are not left out whatever they look like.
    """

    names: Collection[str] = ()
    texts: Collection[str] = ()
    codes: Collection[str] = ()
    learnt: bool = False
    aside: Collection[str | None] = ()  # columns that are no features, and stay as they are

    @classmethod
    def of(cls, table: Table | None, target: bool = True) -> Known:
        """The columns of a table, with its target or without."""
        if table is None:
            return cls()
        categories = dict(table.categories)
        if table.target is not None and table.classes is not None and target:
            categories[table.target] = table.classes.tolist()
        texts = {name for name, values in categories.items() if isinstance(values[0], str)}
        codes = {name for name, values in categories.items() if type(values[0]) in (int, float)}
        answers = [table.target] if table.target is not None and target else []
        return cls({*table.columns, *answers}, texts, codes, learnt=True)


@dataclass
class Read:
    """What was read: the table, how, what was left out of it and why, what is to be told, which columns are refused."""

    frame: Any
    reading: Reading
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: dict[str, ValueError] = field(default_factory=dict)

    def leave_out(self, names: Collection[str], why: str) -> None:
        """Take columns out of the table, and remember why."""
        there = [name for name in names if name in self.frame.column_names]
        self.frame = self.frame.drop_columns(there)
        self.left_out |= dict.fromkeys(there, why)


def read(path: Path, how: Reading, known: Known, new: Reading) -> Read:
    """What is in a file; refusals of single columns are part of it. Columns that `new` names are there, or refused.

    Raises click.BadParameter for another suffix, OSError for a file that cannot be read, ValueError for one that is not what its
    suffix says, has a name twice, or nothing left, ImportError without the extra.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError('files of data need pyarrow: pip install "backprop-mlp[tables]"') from error
    with naming(path):
        try:
            columns = columns_of(path, how.dialect, [*known.texts, *how.categories, *how.dates])
        except pa.ArrowException as error:
            raise ValueError(short(str(error), 300)) from error
        return found_in(columns, path, how, known, new)


def found_in(columns: Columns, path: Path, how: Reading, known: Known, new: Reading) -> Read:
    """What is in columns that were read from a path. Errors as of `read`."""
    found = Read(columns.frame, how, notes=columns.notes)
    _drop(found, columns, new.drop)
    _leave_out(found, columns, known)
    _require_single_names(found, columns)
    for name, of in (("--categories", new.categories), ("--dates", new.dates)):
        if absent := [each for each in of if each not in found.frame.column_names]:
            raise _absent(name, absent, found.frame.column_names)
    if not known.learnt:
        found.notes += [
            f"Column {short(name)} has numbers that begin with 0, such as {cell}: {option('--categories', name)}, "
            "if they are codes."
            for name, cell in columns.zeros.items()
            if name in found.frame.column_names and name not in how.categories
        ]
    _understand(found, path, known, columns.typed)
    return found


def _drop(found: Read, columns: Columns, strictly: Sequence[str]) -> None:
    """Leave out what is to be dropped; in a later file the place of what has a name there means nothing."""
    for each in found.reading.drop:
        places = columns.places(each) if each in {*strictly, *columns.names, *columns.called} else []
        if not places and each in strictly:
            raise _absent("--drop", [each], columns.called)
        found.leave_out(places, "--drop")
    found.reading = replace(found.reading, drop=tuple(map(columns.lasting, found.reading.drop)))


def _absent(option: str, names: Sequence[str], found: Sequence[str]) -> ValueError:
    """The refusal of names that an option was given and no column has."""
    from backprop.tables.frame import close_to

    return refusal(option, f"columns {short(names)}", f"columns {short(found, 300)}", close_to(names[0], found))


def _leave_out(found: Read, columns: Columns, known: Known) -> None:
    """Leave out what is no column of anybody's: an index, names of rows, what has neither a name nor values."""
    found.leave_out([name for name in columns.index if name not in known.names], "the index of a data frame")
    for j, name in columns.unnamed.items():
        if name in known.names or name not in found.frame.column_names:
            continue
        column = found.frame[name]
        if column.null_count == len(column):
            found.leave_out([name], "neither a name nor values")
        elif j == 0 and (known.learnt or _tells_rows_apart(column)):
            found.leave_out([name], ROW_NAMES)
        else:
            found.notes.append(f"Column {j + 1} has no name: it is called {name}.")


def _tells_rows_apart(column: Any) -> bool:
    """Whether each row has a value of its own: a whole number, or words."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = column.type
    return (types.is_integer(kind) or is_words(column)) and pc.count_distinct(column, mode="all").as_py() == len(column)


def _require_single_names(found: Read, columns: Columns) -> None:
    """Refuse names that stand more than once; one of which the others were dropped has its name again."""
    for name, places in columns.repeated.items():
        left = [place for place in places if place in found.frame.column_names]
        if len(left) > 1:
            got = f"{name!r} as columns {' and '.join(place[1:] for place in left)}"
            advice = f"Rename them, or {option('--drop', *left[1:])}."
            raise refusal("the names of the columns", "each once", got, advice)
        found.frame = found.frame.rename_columns([name if each in left else each for each in found.frame.column_names])
    if not found.frame.column_names:
        raise refusal("the file", "columns", f"none but those left out, {short(list(found.left_out))}")


def _understand(found: Read, path: Path, known: Known, typed: bool) -> None:
    """Make of each column what it is, or note its refusal; those a model does not know are its to refuse."""
    how, dates = found.reading, dict(found.reading.dates)
    found.frame = as_categories(found.frame, [*known.texts, *how.categories], known.codes, how.categories)
    for j, name in enumerate(found.frame.column_names):
        if name in (*known.texts, *known.codes, *how.categories) or (known.learnt and name not in known.names):
            continue
        if (is_numeric(found.frame[name]) or name in known.aside) and name not in dates:
            continue
        values = found.frame[name].combine_chunks()
        values = decoded(values) if name in dates else values
        try:
            with naming(path):
                if name in dates and is_words(values) and values.null_count < len(values):
                    dates[name] = dates[name] or date_format(name, values)
                column = Column(name, replace(how, dates=dates), typed, known.learnt, target=name in known.names)
                values = column.understood(values)
        except ValueError as error:
            found.refused[name] = error
        found.frame = found.frame.set_column(j, name, values)
    found.reading = replace(how, dates=dates)


def as_categories(
    frame: Any, texts: Collection[str] = (), codes: Collection[str] = (), declared: Collection[str] = ()
) -> Any:
    """Columns of numbers as the categories they stand for; those that are declared say that they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for j, name in enumerate(frame.column_names):
        kind = frame.schema.field(j).type
        if pa.types.is_nested(kind) and name in {*texts, *declared}:
            raise refusal(f"column {name!r}", "numbers or words", f"{short(frame[name][0].as_py())} of kind {kind}")
        if pa.types.is_floating(kind) and name in {*texts, *codes, *declared}:
            there = pc.invert(pc.is_nan(frame[name]))  # what is not a number is a hole, whoever wrote it
            frame = frame.set_column(j, name, pc.if_else(there, frame[name], pa.scalar(None, kind)))
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if name in texts and (number or pa.types.is_temporal(kind)):
            frame = frame.set_column(j, name, frame[name].cast(pa.string()))
        if (number and name in codes) or (name in declared and not pa.types.is_dictionary(kind)):
            frame = frame.set_column(j, name, frame[name].dictionary_encode())
    return frame
