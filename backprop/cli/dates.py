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

    Words are read as `format` says, and so are whole numbers. Raises ValueError for what is not a date, by row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_integer(kind) and format:
        values = pc.utf8_lpad(values.cast(pa.string()), _width(format), "0")
    if is_words(values):
        return _as_days(_of_words(name, values.cast(pa.string()), format))
    if not pa.types.is_temporal(kind):
        advice = f"If they are dates, say of which form: {option('--dates', f'{name}=%Y%m%d')}."
        raise refusal(f"column {name!r}, --dates", "dates", f"{short(values.drop_null()[0].as_py())}", advice)
    return _as_days(values)


def is_words(column: Any) -> bool:
    """Whether a column is text, which is of one kind in all that was read."""
    from pyarrow import types

    return bool(types.is_string(column.type))


def decoded(column: Any) -> Any:
    """The values themselves of a column that a file calls categories."""
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def date_format(name: str, values: Any) -> str | None:
    """The format of dates that are words, None of those that say it themselves, as 2024-12-31 and 23:59 do.

    Raises ValueError for an odd cell, and where day and month cannot be told apart.
    """
    found = None if _iso(values) is not None else _guessed(name, values)
    return None if found in CLOCKS else found


def _as_days(values: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    time, duration = pa.types.is_time(values.type), pa.types.is_duration(values.type)
    unit = pa.time64("us") if time else pa.duration("us") if duration else pa.timestamp("us")
    parts = values.cast(unit, safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)  # 9999 is in the last digits
    return pc.divide(parts, float(DAY))


def _of_words(name: str, words: Any, format: str | None) -> Any:
    """Words as moments, or as times of day. Raises ValueError for an odd cell."""
    import pyarrow as pa

    if format is None and (found := _iso(words)) is not None:
        return found
    format = format or _guessed(name, words)
    found = _parsed(words, format)
    _require_dates(name, words, found, format)
    is_clock = set(re.findall("%(.)", format)) <= set("HMSIp")
    return found.cast(pa.time32("s")) if is_clock else found  # else they would be of the year 1900


def _iso(words: Any) -> Any:
    """The moments of words such as 2024-12-31 and 2024-12-31T23:59:59.5Z; None where one is no such word."""
    import pyarrow as pa

    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return words.cast(kind)
        except pa.ArrowInvalid:
            pass
    return None


def _guessed(name: str, values: Any) -> str:
    """The one of FORMATS that words are in. Raises ValueError for an odd cell, and for two meanings."""
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


def _width(format: str) -> int:
    """How many digits a date of such a format has, if it is digits alone; else 0."""
    codes = re.fullmatch("(?:%[YmdHMSyj])+", format)
    return sum({"Y": 4, "j": 3}.get(code, 2) for code in format[1::2]) if codes else 0


def _parsed(values: Any, format: str) -> Any:
    """Words as times, null where they have another form, or there is no such day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape = re.sub(r"%[A-Za-z]", lambda code: SHAPES.get(code[0], r"\d{1,2}"), re.escape(format).replace("\\%", "%"))
    usual = format in FORMATS  # else it is as somebody gave it
    fits = pc.match_substring_regex(values, f"^{shape}$") if usual else pc.is_valid(values)
    words = pc.if_else(fits, values, pa.scalar(None, values.type))
    times = pc.strptime(words, format=format, unit="s", error_is_null=True)
    return pc.if_else(_there_is(words, times, format), times, pa.scalar(None, times.type))


def _there_is(words: Any, times: Any, format: str) -> Any:
    """Where times are what the words say: the 31st of February is read as a day of March, and a week as none."""
    import pyarrow.compute as pc

    if "%z" in format:  # that of the words is not that of the times
        without = pc.replace_substring_regex(words, r"\s*(Z|[+-][0-9]{2}:?[0-9]{2})\s*$", "")
        return pc.is_valid(_parsed(without, format.replace("%z", "").rstrip()))
    if "%s" in format:
        return pc.is_valid(times)
    return pc.fill_null(pc.equal(_spelled(words), _spelled(pc.strftime(times, format=format))), False)


def _spelled(words: Any) -> Any:
    """Without zeros before numbers, capitals, and spaces that do not count."""
    import pyarrow.compute as pc

    words = pc.replace_substring_regex(pc.utf8_lower(words), r"(^|[^0-9])0+([0-9])", r"\1\2")
    return pc.replace_substring_regex(words, r"\s+", "")


def _require_dates(name: str, words: Any, dates: Any, format: str | None) -> None:
    """Refuse the first of the words of which no date was made."""
    import pyarrow.compute as pc

    odd = pc.and_(dates.is_null(), words.is_valid())
    if not pc.any(odd).as_py():
        return
    row = odd.index(True).as_py()
    expected = f"dates such as {format}" if format else "dates"
    cell = words[row].as_py()
    form = "%Y%m%d" if str(cell).isdigit() else "%d.%m.%Y"
    advice = f"If there is such a day, say the form: {option('--dates', f'{name}={form}')} and the like."
    raise refusal(f"column {name!r}, --dates", expected, f"{short(cell)} at row {row}", advice)
