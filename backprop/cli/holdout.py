"""The rows that are held out, to choose by and to measure on: by chance, whole groups, or the latest ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backprop.cli.dates import decoded, is_words
from backprop.cli.group import refusal, short

if TYPE_CHECKING:
    from backprop.checks import Array

# Dates that words are in; words that begin with the year and are all as long as each other are in order as they are.
FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%Y", "%m/%d/%Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S")
IN_ORDER = r"^\d{4}[-./ ]?[QWM]?\d{1,2}$"

# Advice: names that things have which come again, or that time has; and how much of a column such things decide.
THINGS = re.compile(
    r"(^|[^a-z])(id|uuid|group|patient|subject|person|user|customer|client|household|session|device|sensor)s?($|[^a-z])"
)
TIMES = re.compile(r"(^|[^a-z])(date|datetime|timestamp|year)($|[^a-z])")
FEW, MOST = 8, 0.9
MOST_ROWS, MOST_COLUMNS, ENOUGH = 100_000, 30, 1000  # so many are looked at


class HoldOut:
    """Which rows of a frame are held out: (training, held) are their places, `words` what to tell of them.

    Every row belongs to a unit: itself, its group, its moment. Units are put in an order, by chance or by time, and the last ones
    are held out, whole, as many as come nearest to the share. The same frame and settings give the same rows. `days` says that
    the times are days since 1970, which were made of dates.
    """

    def __init__(
        self,
        frame: Any,
        share: float,
        seed: int,
        group: str | None = None,
        time: str | None = None,
        *,
        days: bool = False,
    ) -> None:
        import numpy as np

        n, self.words = len(frame), ""
        name = time if group is None else group
        codes = np.arange(n) if name is None else units(frame, name, "--group" if time is None else "--time")
        generator, count = np.random.default_rng(seed), int(codes.max(initial=-1)) + 1
        order = np.arange(count) if time is not None else generator.permutation(count)
        place = np.empty(count, np.intp)
        place[order] = np.arange(count)
        rows = np.argsort(place[codes], kind="stable")
        # Rows in the last 1, 2, … units; at least one unit is trained on, and one held out unless there is next to nothing.
        sizes = np.bincount(codes, minlength=count)[order][:0:-1].cumsum()
        wanted = int(n * share)
        k = int(np.abs(sizes - wanted).argmin()) + 1 if wanted and len(sizes) else 0
        held = int(sizes[k - 1]) if k else 0
        self.training, self.held = rows[: n - held], rows[n - held :]
        if held and group is not None:
            self.words = f"Held out: {k:,} of {count:,} groups of {group!r}, {held:,} rows."
        if held and time is not None:
            first = frame[time][int(self.held[0])].as_py()
            first = moment(first) if days else first
            self.words = f"Held out: the latest {held:,} rows, from {first} in {time!r} on."


def moment(days: float) -> str:
    """Days since 1970 as the date, or the date and the time, that they were made of."""
    import numpy as np

    seconds = np.datetime64(round(days * 86_400), "s")
    return str(seconds.astype("M8[D]") if days == days // 1 else seconds)


def units(frame: Any, name: str, option: str) -> Array:
    """Of each row (N,) the place of its group or moment among the different ones, in order.

    Raises ValueError for a column that is not there, has holes or one value only, or has no order in time.
    """
    import pyarrow as pa
    import pyarrow.compute as compute

    who = f"{option} {name}"
    if frame.column_names.count(name) != 1:
        raise refusal(option, f"one of the columns {frame.column_names}", repr(name))
    column = decoded(frame[name])
    if pa.types.is_nested(column.type):
        raise refusal(who, "names, numbers or dates", f"{short(column[0].as_py())} of kind {column.type}")
    row = compute.index(compute.is_null(column, nan_is_null=True), True).as_py()
    if row >= 0:
        raise refusal(who, "a value in each row", f"none at row {row}", "Remove such rows.")
    if is_words(column) and option == "--time":
        column = moments(who, column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    codes = compute.rank(column, sort_keys="ascending", tiebreaker="dense").to_numpy() - 1
    if codes.max() == 0:
        raise refusal(who, "at least two different values", repr(column[0].as_py()))
    return codes.astype("intp")


def moments(who: str, column: Any) -> Any:
    """A column of words as moments that can be put in order. Raises ValueError for words that are none, or more than one."""
    import pyarrow.compute as compute

    found = list(parsed(column))
    if len(found) == 2:
        got = f"{column[0].as_py()!r}, which may be the day or the month first"
        raise refusal(who, "dates that can be read in one way", got, "Write them as 2024-12-31.")
    if found:
        return found[0]
    lengths = compute.utf8_length(column)
    alike = compute.all(compute.match_substring_regex(column, IN_ORDER)).as_py()
    if alike and compute.min(lengths) == compute.max(lengths):
        return column
    advice = "Write dates as 2024-12-31, or pass a column of numbers that grow with time."
    raise refusal(who, "dates or numbers", repr(column[0].as_py()), advice)


def parsed(column: Any) -> Iterator[Any]:
    """The column in each of the formats that all of its words are in and that put them in different orders."""
    import pyarrow.compute as compute

    orders = []
    for form in (day + clock for day in FORMATS for clock in CLOCKS):
        moments = compute.strptime(column, format=form, unit="s", error_is_null=True)
        if moments.null_count == 0:
            order = compute.rank(moments, sort_keys="ascending", tiebreaker="dense")
            if order not in orders:
                orders.append(order)
                yield moments


def advice(frame: Any, target: str) -> Iterator[str]:
    """What to tell of columns whose values come again, or are dates, before rows are held out by chance."""
    import pyarrow as pa

    others = [name for name in frame.column_names if name != target and frame.column_names.count(name) == 1]
    frame = pa.table({name: decoded(frame[name]) for name in others})
    for name in others:
        if _is_time(name, frame[name]):
            yield (
                f"Column {name!r} holds dates. If the model is for later rows, a hold-out by chance flatters it: "
                f"--time {shown(name)} holds out the latest rows and leaves the column out."
            )
            break
    if name := _group(frame.slice(0, MOST_ROWS), others):
        count = len(frame[name].unique())
        yield (
            f"Column {name!r} repeats: {count:,} values in {len(frame):,} rows. If the model is for new ones, a hold-out by "
            f"chance flatters it: --group {shown(name)} holds out whole ones and leaves the column out."
        )


def shown(name: str) -> str:
    """A name as a shell takes it."""
    import shlex

    return shlex.quote(name)


def _is_time(name: str, column: Any) -> bool:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return True
    if is_words(column):
        there = column.drop_null().slice(0, ENOUGH)
        return len(there) > 0 and next(parsed(there), None) is not None
    return bool(pa.types.is_integer(kind) and TIMES.search(name.lower()))


def _group(frame: Any, others: list[str]) -> str | None:
    """The column that is most like a name of things that come again."""
    import pyarrow.compute as compute

    numbers = {name: codes for name in others if (codes := _numbers(frame[name])) is not None}
    best, found = (False, 0.49), None  # a name that says so, or most of the other columns decided
    for name in [name for name in numbers if _may_name(frame[name])][:MOST_COLUMNS]:
        codes = compute.rank(frame[name].combine_chunks(), tiebreaker="dense").to_numpy().astype("intp") - 1
        count = int(codes.max()) + 1
        rest = [other for own, other in numbers.items() if own != name][:MOST_COLUMNS]
        if not (FEW <= count <= len(codes) / 2 and rest):
            continue
        decided = sum(_decides(codes, other, _is_number(frame[name])) for other in rest) / len(rest)
        rank = (bool(THINGS.search(name.lower())), decided)
        if rank > best:
            best, found = rank, name
    return found


def _is_number(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def _may_name(column: Any) -> bool:
    """Whether these are words or whole numbers, without holes."""
    import pyarrow as pa

    return not column.null_count and (is_words(column) or bool(pa.types.is_integer(column.type)))


def _numbers(column: Any) -> Array | None:
    """Numbers that differ where the values of a column do; None for one that cannot be looked at."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as compute

    if column.null_count:
        return None
    if _is_number(column) or pa.types.is_boolean(column.type):
        x = np.asarray(column.to_numpy(), float)
    elif is_words(column):
        x = compute.rank(column.combine_chunks(), tiebreaker="dense").to_numpy().astype(float)
    else:
        return None
    return x if np.isfinite(x).all() and x.min() < x.max() else None


def _decides(codes: Array, x: Array, ordered: bool) -> bool:
    """Whether x (N,) is nearly the same in all rows of a group, and groups that are numbers do not just lie along it."""
    import numpy as np

    counts = np.bincount(codes)
    x = (x - x.mean()) / np.abs(x - x.mean()).max()
    means = np.bincount(codes, x) / counts
    within = float(((x - means[codes]) ** 2).sum()) / (len(x) - len(counts))
    along = float((np.diff(means) ** 2).mean() / (2 * means.var())) if means.var() else 0.0
    return within < (1 - MOST) * x.var(ddof=1) and not (ordered and along < 0.5)
