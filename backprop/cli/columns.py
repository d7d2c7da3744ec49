"""What a column is: numbers in the notation that was told, dates as days, names; or the refusal, with the option that helps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backprop.cli.dates import days, is_words
from backprop.cli.group import option, quoted, refusal, short

if TYPE_CHECKING:
    from backprop.cli.data import Reading

SPACES = " \u00a0\u202f"  # between thousands they look alike, and so do the marks
MARKS = "'’"
LONG = 20  # characters of what may still stand for a hole


@dataclass(frozen=True)
class Notation:
    """How numbers are written: the decimal point, and what stands between thousands, if anything."""

    decimal: str = "."
    thousands: str | None = None

    def numbers(self, column: Any) -> Any:
        """Such words as numbers, whole ones where all are."""
        import pyarrow as pa
        import pyarrow.compute as pc

        plain = pc.utf8_trim_whitespace(column)
        if self._between:
            plain = pc.replace_substring_regex(plain, self._between, "")
        plain = pc.replace_substring(pc.utf8_ltrim(plain, "+"), self.decimal, ".")
        try:
            return plain.cast(pa.int64())
        except pa.ArrowInvalid:
            return plain.cast(pa.float64())

    def fits(self, column: Any) -> Any:
        """Where words are such numbers, or holes."""
        import pyarrow.compute as pc

        point = re.escape(self.decimal)
        whole = rf"(?:[0-9]{{1,3}}(?:{self._between}[0-9]{{3}})+|[0-9]+)" if self._between else "[0-9]+"
        shape = rf"^(?i:[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?inf(?:inity)?|nan)$"
        return pc.fill_null(pc.match_substring_regex(pc.utf8_trim_whitespace(column), shape), True)

    @property
    def _between(self) -> str:
        marks = next((group for group in (SPACES, MARKS) if self.thousands and self.thousands in group), self.thousands)
        return f"[{re.escape(marks)}]" if marks else ""

    def __str__(self) -> str:
        given = {"--decimal": self.decimal if self.decimal != "." else None, "--thousands": self.thousands}
        return " ".join(f"{name} {quoted(mark)}" for name, mark in given.items() if mark)


NOTATIONS = (Notation(","), *(Notation(point, mark) for point in ".," for mark in ",.' " if mark != point))


@dataclass(frozen=True)
class Column:
    """A column by name, how it is read, and what is known of it.

    `typed`: the file itself has kinds, so that numbers among its words are names. `learnt`: a model has learnt it as numbers or
    booleans. `target`: it cannot be left out.
    """

    name: str
    how: Reading
    typed: bool = False
    learnt: bool = False
    target: bool = False

    def understood(self, values: Any) -> Any:
        """The values, an array of Arrow, as numbers, booleans or names.

        Raises ValueError for dates without --dates, and for words that are numbers but for some cells.
        """
        from pyarrow import types

        from backprop.tables.words import disguise

        if values.null_count == len(values):
            return values
        if self.name in self.how.dates:
            return days(self.name, values, self.how.dates[self.name])
        if types.is_temporal(values.type):
            raise self._dated(values, values.is_valid().index(True).as_py())
        if not is_words(values):
            return values
        if self.typed and not self.learnt and disguise(counts(values)) is None:
            return values
        values = _with_holes(values, self.how.dialect.holes)
        fits = self.how.notation.fits(values)
        odd, there = fits.index(False).as_py(), len(values) - values.null_count
        if odd < 0:
            return self.how.notation.numbers(values)
        if 2 * (fits.true_count - values.null_count) >= there:
            raise self._refused(values, "numbers", odd)
        self._require_names(values)
        if self.learnt:
            raise self._refused(values, "numbers", odd)
        return values

    def _require_names(self, values: Any) -> None:
        """Refuse words that are really numbers or dates, or no text."""
        import pyarrow.compute as pc

        from backprop.tables.words import disguise

        found = disguise(counts(values))
        if found is not None:
            row = values.index(found.cell).as_py()
            raise self._dated(values, row) if found.what == "dates" else self._refused(values, found.what, row)
        broken = pc.match_substring(values, "\0")
        if pc.any(broken).as_py():
            raise self._refused(values, "text", broken.index(True).as_py())

    def _refused(self, values: Any, what: str, row: int) -> ValueError:
        """The refusal of a cell that is not what its column is, with the options that help."""
        import pyarrow.compute as pc

        from backprop.tables.words import form

        cell = values[row].as_py()
        fits = self.how.notation.fits(values)
        alike = counts(values.filter(pc.equal(fits, fits[row])))
        n = sum(often for other, often in alike.items() if form(other) == form(cell))
        got = f"{short(cell)} at row {row}" + (f" (the first of {n} such rows)" if n > 1 else "")
        ways = [_advice(cell.strip(), values, self.name, self.how.na or ())]
        if not self.learnt:
            ways.append(f"{option('--categories', self.name)} if the values are names.")
        return refusal(f"column {self.name!r}", what, got, " ".join([*filter(None, ways), *self._without()]))

    def _dated(self, values: Any, row: int) -> ValueError:
        """The refusal of dates that nobody has made numbers of."""
        got = f"the date {short(str(values[row].as_py()))} at row {row}"
        ways = [f"{option('--dates', self.name)} makes numbers of dates and times, days since 1970.", *self._without()]
        return refusal(f"column {self.name!r}", "numbers or names", got, " ".join(ways))

    def _without(self) -> list[str]:
        return [] if self.learnt or self.target else [f"{option('--drop', self.name)} leaves the column out."]


def is_numeric(column: Any) -> bool:
    """Whether a column is numbers, or true and false."""
    from pyarrow import types

    kind = column.type
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _with_holes(column: Any, holes: Sequence[str]) -> Any:
    """Cells that are holes but for spaces around them as holes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.is_in(pc.utf8_trim_whitespace(column), value_set=pa.array(holes, column.type))
    return pc.if_else(gone, pa.scalar(None, column.type), column)


def counts(column: Any) -> dict[str, int]:
    """How often each value occurs that is there, in the order of appearance."""
    found = column.drop_null().value_counts()
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


def _advice(cell: str, column: Any, name: str, na: Sequence[str]) -> str:
    """What to do about a cell that is no number."""
    if cell.lower() == name.lower():
        return "Remove the line with the names that is there again."
    if notation := _notation(cell, column):
        return f"{notation} reads such numbers."
    if "\0" in cell:
        return "Remove the zero byte."
    if re.search("[\u2212\u2013]", cell):
        return "Write minus as -."
    if re.search(r"\d", cell):
        return "Write numbers alone, without signs, units or words."
    if re.fullmatch(r"(total|sum|summe|gesamt|average|mean|mittelwert|count)\w*:?", cell, re.IGNORECASE):
        return "Remove the line, if it sums up the others."
    return f"{option('--na', *na, cell)} if it stands for a hole." if len(cell) < LONG else ""


def _notation(cell: str, column: Any) -> str:
    """The options with which such a number is read, as most others of its column then are; of two meanings both."""
    import pyarrow as pa

    one = pa.array([cell])
    fitting = [notation for notation in NOTATIONS if notation.fits(one)[0].as_py()]
    counts = {notation: notation.fits(column).true_count for notation in fitting}
    best = [notation for notation in fitting if counts[notation] == max(counts.values())]
    return " or ".join({notation.numbers(one)[0].as_py(): str(notation) for notation in reversed(best)}.values())
