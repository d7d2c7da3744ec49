"""What looks wrong about a column: an index, a copy of the target, outliers, words for holes, … each with what helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from backprop.cli.group import option, short

if TYPE_CHECKING:
    from backprop.tables.frame import Values

ENOUGH = 10  # rows, below which nothing looks wrong that may be chance
ONE_VALUE = "has one value only"
FAR = 10  # times the distance of the quartiles, beyond which a number is an outlier; a normal one is not in 1e40
FEW_OF_MANY = 0.05  # so many may be outliers; more are how the column is
HOLES = {"?", "-", "--", ".", "n.a.", "n/a", "na", "k.a.", "#n/v", "none", "null", "nan", "nil"}
HOLES |= {"missing", "unknown", "unbekannt"}
WHO = "id|user|patient|customer|client|subject|person|group|household|kunde"
NAMES_SOMEBODY = re.compile(rf"(^|[^a-z])({WHO})([^a-z]|id|$)", re.IGNORECASE)


class Seen:
    """A column as it is looked at: the values that are there, and how often each occurs."""

    def __init__(self, values: Values, dates: bool = False, target: bool = False) -> None:
        import numpy as np

        self.values, self.name = values, values.name
        self.dates, self.target = dates, target  # whether dates were made numbers; whether it is to be predicted
        self.numeric = values.kind == "numbers"  # which mean amounts
        self.words: Counter[Any] = Counter()  # the categories, in the order of appearance
        if isinstance(values.data, list):
            self.there: Any = [value for value in values.data if value is not None]
            self.words = Counter(self.there)
            self.often = list(self.words.values())
        else:
            self.there = values.data[~values.missing]
            self.often = np.unique(self.there, return_counts=True)[1].tolist()
        self.different = len(self.often)
        self.full = len(self.there) >= ENOUGH and not values.missing.any()  # enough to look at, without holes

    @cached_property
    def whole(self) -> bool:
        """Whether it is whole numbers."""
        return self.numeric and bool((self.there % 1 == 0).all())

    @cached_property
    def numbers_rows(self) -> bool:
        """Whether it is the numbers of the rows, in any order."""
        each_once = self.full and self.different == len(self.there) and self.whole and not self.dates
        return each_once and bool(self.there.max() - self.there.min() == len(self.there) - 1)


def _constant(column: Seen, answers: Seen | None) -> str:
    one = column.different == 1 < len(column.there)
    return f"{ONE_VALUE}: {option('--drop', column.name)}" if one else ""


def _index(column: Seen, answers: Seen | None) -> str:
    return f"numbers the rows: {option('--drop', column.name)}" if column.numbers_rows and not column.target else ""


def _copy(column: Seen, answers: Seen | None) -> str:
    """A column that gives the target away."""
    import numpy as np

    if (
        column.target
        or answers is None
        or not (column.full and answers.full)
        or 1 in (column.different, answers.different)
    ):
        return ""
    if column.numeric and answers.numeric:
        x, y = ((each.there - each.there.mean()) / each.there.std() for each in (column, answers))
        same = abs(float(np.mean(x * y))) > 1 - 1e-6
    elif column.different != answers.different or column.different == len(column.there):
        return ""
    else:
        same = len(set(zip(column.values.data, answers.values.data, strict=True))) == column.different
    return f"says the same as the target {answers.name!r}: {option('--drop', column.name)}" if same else ""


def _sorted(column: Seen, answers: Seen | None) -> str:
    two_are_enough = column.target
    if not column.full or column.different < (2 if two_are_enough else 3) or column.numbers_rows:
        return ""
    if column.words:
        ordered = any(all(pairs) for pairs in _directions(column.there))
    else:
        before, after = column.there[:-1], column.there[1:]
        ordered = bool((before <= after).all() or (before >= after).all())
    return "is what the rows are sorted by" if ordered else ""


def _directions(there: list[Any]) -> tuple[Any, Any]:
    return (a <= b for a, b in pairwise(there)), (a >= b for a, b in pairwise(there))


def repeated(column: Seen, answers: Seen | None) -> str:
    """Rows that come in groups, where those that are held out are drawn by chance."""
    n, k = len(column.there), column.different
    even = k >= 2 * ENOUGH and len(set(column.often)) == 1 and column.whole
    named = k >= ENOUGH and NAMES_SOMEBODY.search(column.name) and (column.words or column.whole)
    if column.target or not 2 * k <= n or not (even or named):
        return ""
    return (
        f"repeats {k} values {n / k:.0f} times each: rows of one may be in both parts, new ones are in neither: "
        f"{option('--group', column.name)} holds out whole ones"
    )


def _outliers(column: Seen, answers: Seen | None) -> str:
    import numpy as np

    if not column.numeric or len(column.there) < 2 * ENOUGH:
        return ""
    low, high = np.percentile(column.there, [25, 75])
    reach = FAR * (high - low)
    far = column.there[(column.there < low - reach) | (column.there > high + reach)]
    if reach == 0 or not 0 < len(far) <= FEW_OF_MANY * len(column.there):
        return ""
    worst = far[np.abs(far - (low + high) / 2).argmax()]
    helps = "--loss huber makes less of them" if column.target else "clip them, if they are mistakes"
    return f"has {len(far)} values far from the others, such as {worst:.6g}: {helps}"


def _dates(column: Seen, answers: Seen | None) -> str:
    there = column.there
    if column.target or not (column.full and column.whole and there.min() >= 19_000_101 and there.max() <= 21_001_231):
        return ""
    month, day = there // 100 % 100, there % 100
    fit = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    return f"looks like dates: {option('--dates', f'{column.name}=%Y%m%d')}" if fit.all() else ""


def _spelling(column: Seen, answers: Seen | None) -> str:
    """Words that may stand for a hole, and those that differ by capitals or spaces only."""
    if column.values.kind != "text":
        return ""
    holes = [word for word in column.words if word.strip().lower() in HOLES]
    if holes:
        return f"has {short(holes[0])}, which may stand for a hole: {option('--na', *holes)}"
    same: dict[str, str] = {}
    for word in column.words:
        other = same.setdefault(" ".join(word.casefold().split()), word)
        if other != word:
            return f"has {short(other)} and {short(word)}, which may be the same"
    if len(column.there) >= ENOUGH and 2 * column.different > len(column.there):
        return f"has words of which most occur once: {option('--drop', column.name)}"
    return ""


def _measured(column: Seen, answers: Seen | None) -> str:
    """Few words that are numbers with a unit or a sign throughout, and may be names: "5 kg" and "10 kg" of packets."""
    from backprop.tables.words import form

    if column.values.kind != "text" or column.values.declared or column.target:
        return ""
    forms = {word: form(word) for word in column.words}
    if "unit" not in forms.values() or not {*forms.values()} <= {"unit", "number", "another"}:
        return ""
    word = next(word for word in forms if forms[word] == "unit")
    return (
        f"has numbers with a unit or a sign, such as {short(word)}, which are taken for names: write the numbers alone, "
        f"or {option('--categories', column.name)} if they are names"
    )


REMARKS: tuple[Callable[[Seen, Seen | None], str], ...] = (
    *(_constant, _index, _copy, _sorted, _outliers, _dates, _spelling, _measured),
)
