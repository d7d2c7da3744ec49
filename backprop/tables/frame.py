"""Frames of any library as plain columns, through narwhals."""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

import numpy as np

from backprop import arrays, checks
from backprop.checks import Array

NUMBERS, BOOLEANS, TEXT, DATES, NOTHING = "numbers", "booleans", "text", "dates", "nothing but missing values"
DAY = 86_400_000_000  # microseconds
CATEGORIES = {NUMBERS: "categories that are numbers", BOOLEANS: "categories that are booleans"}


def narwhals() -> Any:
    """The module that speaks to every frame library, imported on first use. Raises ImportError that names the extra."""
    try:
        import narwhals
    except ImportError as error:
        raise ImportError('tables need narwhals: pip install "backprop-mlp[tables]"') from error
    return narwhals


@dataclass(frozen=True)
class Values:
    """One column as it was read.

    `kind` says what the values are, `data` holds them: float64 with nan where missing for numbers, booleans, and dates, which are
    days since 1970-01-01, else a list with None where missing. `first_row` is the row of the whole data set at which this piece
    of it starts; `declared` says that the frame itself calls the values categories, `levels` which ones its dtype lists, whether
    they are there or not.
    """

    who: str
    name: str
    kind: str
    data: Any
    missing: Array
    first_row: int = 0
    declared: bool = False
    levels: tuple[Any, ...] = ()

    def refuse(self, expected: str, wrong: Array, got: str = "", advice: str = "") -> ValueError:
        """The error for the rows where `wrong` is true: names the first and counts the others."""
        row, n = int(np.argmax(wrong)), int(np.count_nonzero(wrong))
        got = f"{got or repr(_plain(self.data[row]))} at row {row + self.first_row}"
        got += f" (the first of {n} such rows)" if n > 1 else ""
        return ValueError(checks.message(self.who, f"{expected} in column {self.name!r}", got, advice))

    def require(self, advice: str) -> None:
        """Refuse missing values."""
        if self.missing.any():
            raise self.refuse("no missing values", self.missing, "a missing value", advice)


class Frame:
    """A frame of any library: the names of its columns, and each of them as `Values`.

    What an Arrow table from pandas keeps of the index is no column, unless `wanted` names it. Raises TypeError for what is no
    eager frame or has names that are not text, ValueError for duplicate names and empty frames.
    """

    def __init__(self, who: str, frame: Any, first_row: int = 0, wanted: Collection[str | None] = ()) -> None:
        nw = narwhals()
        self.who, self.first_row = who, first_row
        try:
            self._frame = nw.from_native(frame, eager_only=True)
            names = list(self._frame.columns)
        except ValueError as error:  # of narwhals, for duplicates
            got = " ".join(str(error).partition("got:")[2].split())
            raise ValueError(checks.message(who, "column names without duplicates", got or str(error))) from None
        except TypeError:
            raise no_frame(who, frame) from None
        for name in names:
            if not isinstance(name, str):
                advice = "Name the columns with text: frame.columns = [...]."
                raise TypeError(checks.message(who, "column names that are text", repr(name), advice))
        index = set(index_names(getattr(frame, "schema", None))) - {*wanted}
        self.names: list[str] = [name for name in names if name not in index]
        self.n = len(self._frame)
        if self.n == 0 or not self.names:
            raise ValueError(checks.message(who, "a frame with rows and columns", f"shape {self._frame.shape}"))

    def column(self, name: str) -> Values:
        """One column.

        Raises ValueError for infinite numbers and for a name that is not there, TypeError for what cannot be used.
        """
        require_names(self.who, [name], self.names)
        return read(self.who, name, self._frame[name], self.first_row)


def index_names(schema: Any) -> list[str]:
    """The columns of an Arrow schema that were the index of a pandas frame: numbers or names of its rows, no data."""
    metadata = getattr(schema, "pandas_metadata", None)
    if not isinstance(metadata, dict):
        return []
    return [name for name in metadata.get("index_columns") or () if isinstance(name, str)]


def no_frame(who: str, frame: Any) -> TypeError:
    """The error of what is no frame in memory."""
    nw = narwhals()
    if (load := arrays.loader(frame)) or isinstance(nw.from_native(frame, pass_through=True), nw.LazyFrame):
        got, advice = "a lazy frame", f"Pass frame.{load or 'collect'}()."
    else:
        got, advice = f"a {type(frame).__name__}", "An array of numbers needs no Table: pass it to the trainer itself."
    return TypeError(checks.message(who, "a frame of pandas, polars or pyarrow", got, advice))


def require_names(who: str, names: list[str], found: list[str]) -> None:
    """Refuse names that are not among those found, with names that are close."""
    absent = [name for name in names if name not in found]
    if absent:
        advice = close_to(absent[0], [name for name in found if name not in names])
        raise ValueError(checks.message(who, f"columns {listing(absent)}", f"columns {listing(found)}", advice))


def close_to(absent: str, found: Sequence[str]) -> str:
    """Advice with the names that one which is not among those found may stand for.

    >>> close_to("Size", ["size", "floor"])
    "Close to it: 'size'."
    """
    same = [name for name in found if name.strip().casefold() == absent.strip().casefold()]
    close = same or get_close_matches(absent, found)
    return f"Close to it: {', '.join(map(repr, close))}." if close else ""


def listing(values: Any, most: int = 20) -> str:
    """A list as text, shortened."""
    values = list(values)
    return f"[{', '.join(map(repr, values[:most]))}{', …' if len(values) > most else ''}]"


def read(who: str, name: str, series: Any, first_row: int = 0) -> Values:
    """A narwhals series as `Values`."""
    nw, dtype = narwhals(), series.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        # Arrow refuses to make floats of whole numbers beyond 2^53; NumPy rounds them.
        data = np.asarray((series if dtype in (nw.Int64, nw.UInt64) else series.cast(nw.Float64)).to_numpy(), float)
        return _numbers(who, name, BOOLEANS if dtype == nw.Boolean else NUMBERS, data, first_row)
    levels = listed(series.to_native()) if isinstance(dtype, nw.Categorical | nw.Enum) else None
    # The dtype of a pandas column of objects is a guess from its first rows, so that every value is looked at.
    return inspect(who, name, series.to_list(), series.is_null().to_list(), levels, first_row)


def listed(series: Any) -> list[Any]:
    """The categories that the dtype of a series lists: of pandas' Categorical, polars' Enum, Arrow's dictionary.

    Polars' Categorical lists none: it shares one set among all columns.
    """
    if hasattr(series, "chunks"):
        return list(dict.fromkeys(value for chunk in series.chunks for value in chunk.dictionary.to_pylist()))
    categories = getattr(series.dtype, "categories", None)
    to_list = getattr(categories, "to_list", list)
    return list(to_list())


def inspect(
    who: str, name: str, data: list[Any], null: list[bool], levels: list[Any] | None = None, first_row: int = 0
) -> Values:
    """Python objects as `Values`; all of one kind, or TypeError. With `levels`, a list, they are categories."""
    data = [None if gone else _plain(value) for value, gone in zip(data, null, strict=True)]
    known = tuple(value for value in map(_plain, levels or ()) if value is not None)
    kinds = {_kind(who, name, of) for of in dict.fromkeys(map(type, (*data, *known)))} - {NOTHING}
    if len(kinds) > 1:
        rows = [row for row, value in enumerate(data) if value is not None]
        first = {_kind(who, name, type(data[row])): row for row in reversed(rows)}
        got = " and ".join(f"{data[row]!r} at row {row + first_row}" for row in sorted(first.values()))
        advice = "Convert the column first."
        raise TypeError(checks.message(who, f"values of one kind in column {name!r}", got or "several", advice))
    kind = next(iter(kinds), NOTHING)
    if kind == DATES:
        return _numbers(who, name, kind, _days(data), first_row)
    if kind in (NUMBERS, BOOLEANS):
        numbers = _numbers(who, name, kind, np.array([math.nan if v is None else _float(v) for v in data]), first_row)
        if levels is None:
            return numbers
    missing = np.array([value is None for value in data], dtype=bool)
    return Values(who, name, CATEGORIES.get(kind, kind), data, missing, first_row, levels is not None, known)


def _numbers(who: str, name: str, kind: str, data: Array, first_row: int) -> Values:
    missing = np.isnan(data)
    values = Values(who, name, NOTHING if missing.all() else kind, data, missing, first_row)
    infinite = np.isinf(data)
    if infinite.any():
        raise values.refuse("finite numbers", infinite, advice="Remove such rows, or make the value a missing one.")
    return values


def _plain(value: Any) -> Any:
    """Numbers of NumPy and decimals as those of Python, NaN as None."""
    if type(value) is str:
        return value
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _days(data: list[Any]) -> Array:
    """Dates and moments, these by the clock of their place, as days since 1970-01-01; NaN where one is missing."""
    moments = [None if v is None else v.replace(tzinfo=None) if hasattr(v, "tzinfo") else v for v in data]
    exact = np.array(moments, "datetime64[us]")
    return np.where(np.isnat(exact), np.nan, exact.astype(np.int64) / DAY)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _kind(who: str, name: str, of: type) -> str:
    """The kind of a Python type. Raises TypeError for what is neither number nor category."""
    known = ((NOTHING, type(None)), (TEXT, str), (BOOLEANS, bool), (NUMBERS, (int, float)), (DATES, datetime.date))
    for kind, types in known:
        if issubclass(of, types):
            return kind
    advice = "Leave the column out, or make numbers or text of it."
    if issubclass(of, datetime.time | datetime.timedelta):
        advice = "Make numbers of it: days since a date, or columns for the month, the weekday, the hour."
    raise TypeError(checks.message(who, f"numbers, text or categories in column {name!r}", f"a {of.__name__}", advice))
