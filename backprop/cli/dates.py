"""Dates and times that are to be numbers: days since 1970-01-01."""

from __future__ import annotations

import re
from typing import Any

from backprop.cli.group import option, refusal, short

DAY = 86_400_000_000  # microseconds
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", *(f"%d{mark}%m{mark}%{year}" for mark in "./-" for year in "Yy"))
DATES += (
    *(f"%m{mark}%d{mark}%{year}" for mark in "/-" for year in "Yy"),
    "%d %b %Y",
    "%d-%b-%Y",
    "%d%b%Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
CLOCKS = ("%H:%M", "%H:%M:%S")
FORMATS = (*DATES, *(f"{day}{mark}{clock}" for day in DATES for mark in (" ", "T") for clock in CLOCKS), *CLOCKS)
SHAPES = {"%Y": r"\d{4}", "%b": "[A-Za-z]{3}", "%B": "[A-Za-z]{3,}"}  # what a code stands for; else one or two digits


def days(name: str, values: Any, format: str | None) -> Any:
    """Dates and times as days since 1970-01-01, times of day and durations as parts of a day.

    Words are read as `format` says. Raises ValueError for what is not a date, by row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_large_string(kind) or (pa.types.is_integer(kind) and format):
        values, kind = values.cast(pa.string()), pa.string()
    if pa.types.is_string(kind):
        given = values
        values = _parsed(values, format or date_format(name, values))
        _require_dates(name, given, values, format)
    elif not pa.types.is_temporal(kind):
        advice = f"If they are dates, say of which form: {option('--dates', f'{name}=%Y%m%d')}."
        raise refusal(f"column {name!r}, --dates", "dates", f"{short(values.drop_null()[0].as_py())}", advice)
    time, duration = pa.types.is_time(kind), pa.types.is_duration(kind)
    unit = pa.time64("us") if time else pa.duration("us") if duration else pa.timestamp("us")
    return pc.divide(values.cast(unit, safe=False).cast(pa.int64()).cast(pa.float64()), float(DAY))


def date_format(name: str, values: Any) -> str:
    """The format of dates that are words. Raises ValueError for an odd cell, and where day and month cannot be told apart."""
    import pyarrow.compute as pc

    found = {format: _parsed(values, format) for format in FORMATS}
    count = {format: len(dates) - dates.null_count for format, dates in found.items()}
    best = max(count, key=count.__getitem__)
    if count[best] < len(values) - values.null_count:
        _require_dates(name, values, found[best], best if count[best] else None)
    equal = [format for format in FORMATS if count[format] == count[best] and not found[format].equals(found[best])]
    if not equal:
        return best
    ways = " or ".join(option("--dates", f"{name}={format}") for format in (best, *equal))
    cell = next(cell for cell in pc.unique(values.drop_null()).to_pylist())
    raise refusal(f"column {name!r}, --dates", "dates of one meaning", short(cell), f"Which is it: {ways}?")


def _parsed(values: Any, format: str) -> Any:
    """Words as times, null where they have another form."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape = re.sub(r"%[A-Za-z]", lambda code: SHAPES.get(code[0], r"\d{1,2}"), re.escape(format).replace("\\%", "%"))
    usual = format in FORMATS  # else it is as somebody gave it
    fits = pc.match_substring_regex(values, f"^{shape}$") if usual else pc.is_valid(values)
    return pc.strptime(
        pc.if_else(fits, values, pa.scalar(None, values.type)), format=format, unit="s", error_is_null=True
    )


def _require_dates(name: str, words: Any, dates: Any, format: str | None) -> None:
    """Refuse the first of the words of which no date was made."""
    import pyarrow.compute as pc

    odd = pc.and_(dates.is_null(), words.is_valid())
    if not pc.any(odd).as_py():
        return
    row = odd.index(True).as_py()
    expected = f"dates such as {format}" if format else "dates"
    advice = f"Say their form: {option('--dates', f'{name}=%d.%m.%Y')} and the like."
    raise refusal(f"column {name!r}, --dates", expected, f"{short(words[row].as_py())} at row {row}", advice)
