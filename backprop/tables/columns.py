"""What is learnt of a column, and how it becomes features."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.tables.frame import BOOLEANS, CATEGORIES, DATES, NOTHING, NUMBERS, TEXT, Values, listing
from backprop.tables.words import disguise

STATE = "Table.from_state"  # its name in errors
TYPES = {TEXT: (str,), CATEGORIES[NUMBERS]: (int, float), CATEGORIES[BOOLEANS]: (bool,), BOOLEANS: (bool,)}
UNDERLYING = {category: kind for kind, category in CATEGORIES.items()}
FEW = 100  # so many categories may be in any column, however few its rows
LONGEST = 1000  # characters of a category; what is longer is a text
MOST_RARE = 10  # and so many classes in a target of which most occur once


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, or of booleans as 0 and 1: one feature, and with `indicator` a second one.

        x ↦ (x − shift) · factor        missing x: mean
            1 where x is missing, else 0

    With scaling, shift is the mean and factor 1 / σ (0 for a constant column) of the values that are there; else 0 and 1.
    """

    name: str
    kind: str
    mean: float
    shift: float
    factor: float
    indicator: bool = False

    def __post_init__(self) -> None:
        checks.choice(STATE, "kind", self.kind, [NUMBERS, BOOLEANS])
        checks.boolean(STATE, "indicator", self.indicator)
        for name in ("mean", "shift", "factor"):
            checks.number(STATE, name, getattr(self, name))

    @classmethod
    def learn(cls, values: Values, scale: bool, indicate: bool = False) -> Numbers:
        """From the values that are there; it indicates missing ones if asked to, and if there are some."""
        mean, sigma = moments(values.data[~values.missing])
        shift, factor = (mean, 1 / sigma if sigma else 0.0) if scale else (0.0, 1.0)
        return cls(values.name, values.kind, mean, shift, factor, indicate and bool(values.missing.any()))

    @property
    def feature_names(self) -> list[str]:
        """The column's own."""
        return [self.name, *([f"{self.name} is missing"] if self.indicator else [])]

    def encode(self, values: Values, X: Array, ignore_unknown: bool) -> None:
        """Write the features into X (N, 1 or 2)."""
        X[:, 1:] = values.missing[:, None]
        x = np.where(values.missing, self.mean, as_numbers(values))
        with np.errstate(over="ignore"):
            X[:, 0] = (x - self.shift) * self.factor
        infinite = ~np.isfinite(X[:, 0])
        if infinite.any():
            raise values.refuse(f"numbers within the range of {X.dtype}", infinite, advice="Scale or clip the column.")


@dataclass(frozen=True)
class Dates:
    """A column of dates or moments: a number, and where each stands in the week, in the year, and in the day if it has a clock.

        d ↦ (d − shift) · factor                      of days d since 1970-01-01
            cos 2πd/p, sin 2πd/p                      p = 7, 365.2425, and 1 where moments in `fit` had a time of day
            1 where d is missing, else 0              with `indicator`

    A missing d is the mean, and stands nowhere: its cosines and sines are 0.
    """

    name: str
    mean: float
    shift: float
    factor: float
    clock: bool
    indicator: bool = False
    kind: str = DATES

    def __post_init__(self) -> None:
        checks.choice(STATE, "kind", self.kind, [DATES])
        for name in ("clock", "indicator"):
            checks.boolean(STATE, name, getattr(self, name))
        for name in ("mean", "shift", "factor"):
            checks.number(STATE, name, getattr(self, name))

    @classmethod
    def learn(cls, values: Values, scale: bool, indicate: bool = False) -> Dates:
        """From the dates that are there."""
        of_numbers, d = Numbers.learn(replace(values, kind=NUMBERS), scale, indicate), values.data[~values.missing]
        learnt = of_numbers.mean, of_numbers.shift, of_numbers.factor
        return cls(values.name, *learnt, bool((d != np.floor(d)).any()), of_numbers.indicator)

    @property
    def periods(self) -> dict[str, float]:
        """Days after which it begins again."""
        return {"week": 7.0, "year": 365.2425} | ({"day": 1.0} if self.clock else {})

    @property
    def feature_names(self) -> list[str]:
        """The column's own, its cycles, and the indicator."""
        cycles = [f"{self.name} in the {period}, {of}" for period in self.periods for of in ("cos", "sin")]
        return [self.name, *cycles, *([f"{self.name} is missing"] if self.indicator else [])]

    def encode(self, values: Values, X: Array, ignore_unknown: bool) -> None:
        """Write the features into X (N, K)."""
        d = np.where(values.missing, self.mean, as_numbers(values))
        X[:, -1] = values.missing
        X[:, 0] = (d - self.shift) * self.factor
        for k, period in enumerate(self.periods.values()):
            angle = 2 * np.pi * (d % period) / period
            X[:, 2 * k + 1] = np.where(values.missing, 0, np.cos(angle))
            X[:, 2 * k + 2] = np.where(values.missing, 0, np.sin(angle))


@dataclass(frozen=True)
class Categories:
    """A column of categories: one feature for each of them, 1 where the value is that category and 0 elsewhere.

    The categories are sorted; a missing value is filled with the most frequent one, of equals the first. With `other` one more
    feature stands for all categories that are not listed, with `indicator` a last one for missing values.
    """

    name: str
    kind: str
    categories: tuple[Any, ...]
    most_frequent: Any
    other: bool = False
    indicator: bool = False

    def __post_init__(self) -> None:
        checks.boolean(STATE, "other", self.other)
        checks.boolean(STATE, "indicator", self.indicator)
        check_categories("categories", self.kind, self.categories)
        if self.most_frequent not in self.categories:
            expected = f"most_frequent one of {listing(self.categories)}"
            raise ValueError(checks.message(STATE, expected, repr(self.most_frequent)))

    @classmethod
    def learn(cls, values: Values, most: int | None = None, indicate: bool = False) -> Categories:
        """From the values that are there, and those that the dtype announces: all, or the `most` frequent ones.

        Raises ValueError for a column that names its rows, since most names would be new later, and for numbers and dates that
        are words, unless the frame itself calls them categories.
        """
        counts = Counter(value for value in values.data if value is not None)
        require_names_of_categories(values, counts)
        if most is None and len(counts) > max(FEW, counts.total() // 2):
            expected = f"categories that repeat in column {values.name!r}"
            got = f"{len(counts)} different ones in {counts.total()} rows"
            advice = "Leave the column out, or keep the most frequent ones: Table(most_categories=50)."
            raise ValueError(checks.message(values.who, expected, got, advice))
        long = next((category for category in counts if isinstance(category, str) and len(category) > LONGEST), None)
        if long is not None:
            wrong = np.array([value == long for value in values.data])
            raise values.refuse(
                "names of categories", wrong, f"a text of {len(long):,} characters", "Leave the column out."
            )
        known = sorted({*counts, *values.levels})
        kept = (
            known if most is None else sorted(known, key=counts.__getitem__, reverse=True)[:most]
        )  # of equals the first
        most_frequent, categories = max(known, key=counts.__getitem__), tuple(sorted(kept))
        indicates = indicate and bool(values.missing.any())
        return cls(values.name, values.kind, categories, most_frequent, len(kept) < len(known), indicates)

    @property
    def feature_names(self) -> list[str]:
        """column=category."""
        named = [f"{self.name}={category}" for category in self.categories]
        others = {"other": self.other, "missing": self.indicator}
        return named + [f"{self.name} is {word}" for word, there in others.items() if there]

    def encode(self, values: Values, X: Array, ignore_unknown: bool) -> None:
        """Write the features into X (N, K)."""
        there = zip(values.data, values.missing, strict=True)
        codes = code(self.categories, (self.most_frequent if missing else value for value, missing in there))
        if self.other:
            codes[codes < 0] = len(self.categories)
        if self.indicator:
            codes[values.missing] = X.shape[1] - 1
        known = codes >= 0
        if not (ignore_unknown or known.all()):
            advice = "unknown='ignore' encodes such values as zeros."
            raise values.refuse(f"one of {listing(self.categories)}", ~known, advice=advice)
        X[...] = 0
        X[np.flatnonzero(known), codes[known]] = 1


@dataclass(frozen=True)
class Target:
    """The column to be predicted: numbers, or classes with the labels 0 … K − 1 in sorted order.

    x ↦ (x − mean) / sigma        of numbers; 0 and 1 where they are not scaled
    """

    name: str
    kind: str
    classes: tuple[Any, ...] = ()
    mean: float = 0.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        checks.number(STATE, "mean", self.mean)
        checks.number(STATE, "sigma", self.sigma, above=0)
        if self.kind != NUMBERS or self.classes:
            check_categories("classes", self.kind, self.classes)

    @classmethod
    def learn(cls, values: Values, scale: bool) -> Target:
        """From all values: none may be missing; classes are at least two, and fewer than the rows."""
        values.require("Remove such rows: a target cannot be made up.")
        if values.kind == DATES:
            raise refused(values, "numbers or classes", "Make numbers of it: days since a date.")
        if values.kind == NUMBERS:
            mean, sigma = moments(values.data) if scale else (0.0, 1.0)
            return cls(values.name, NUMBERS, mean=mean, sigma=sigma or 1.0)
        counts = Counter(map(bool, values.data) if values.kind == BOOLEANS else values.data)
        require_names_of_categories(values, counts)
        classes = tuple(sorted(counts))
        if len(classes) < 2:
            expected = f"at least two classes in column {values.name!r}"
            raise ValueError(checks.message(values.who, expected, f"only {classes[0]!r}", "There is nothing to learn."))
        if len(classes) > max(counts.total() // 2, min(counts.total() - 1, MOST_RARE)):
            got = f"{len(classes)} in {counts.total()} rows"
            advice = "There is nothing to learn of a class that occurs once."
            raise ValueError(checks.message(values.who, f"classes that repeat in column {values.name!r}", got, advice))
        return cls(values.name, values.kind, classes)

    def encode(self, values: Values, dtype: Any) -> Array:
        """The targets (N,): numbers of that dtype, or labels."""
        values.require("Remove such rows: a target cannot be made up.")
        require_kind(self, values)
        if self.kind == NUMBERS:
            with np.errstate(over="ignore"):
                y = ((np.asarray(values.data) - self.mean) / self.sigma).astype(dtype)
            if not checks.all_finite(y):
                raise values.refuse(f"numbers within the range of {dtype}", ~np.isfinite(y), advice="Scale the target.")
            return y
        codes = code(self.classes, values.data)  # to a dict 1.0 is True
        if (codes < 0).any():
            raise values.refuse(f"one of the classes {listing(self.classes)}", codes < 0)
        return codes


Column = Numbers | Dates | Categories


def learn(values: Values, scale: bool, most: int | None = None, indicate: bool = False, dates: bool = False) -> Column:
    """What is to be known of a column. Raises ValueError if no value is there, TypeError for dates without `dates`."""
    if values.kind == NOTHING:
        expected = f"values in column {values.name!r}"
        raise ValueError(checks.message(values.who, expected, NOTHING, "Leave the column out."))
    if values.kind == DATES:
        if not dates:
            advice = (
                "Make numbers of it: days since a date. Table(dates='cycles') does, and adds places in week, year, day."
            )
            raise refused(values, "numbers, text or categories", advice)
        return Dates.learn(values, scale, indicate)
    if values.kind in (NUMBERS, BOOLEANS):
        return Numbers.learn(values, scale, indicate)
    return Categories.learn(values, most, indicate)


def refused(values: Values, expected: str, advice: str) -> TypeError:
    """The error for a column of a kind that cannot be used."""
    return TypeError(checks.message(values.who, f"{expected} in column {values.name!r}", values.kind, advice))


def require_names_of_categories(values: Values, counts: Mapping[Any, int]) -> None:
    """Refuse text that is numbers with an odd cell among them, numbers in another notation, or dates."""
    found = disguise(counts) if values.kind == TEXT and not values.declared else None
    if found is not None:
        wrong = np.array([value == found.cell for value in values.data])
        advice = f"Make {found.what} of the column, or a categorical if they are names."
        raise values.refuse("names of categories" if found.what == "dates" else found.what, wrong, advice=advice)


def moments(x: Array) -> tuple[float, float]:
    """Mean and σ of numbers; σ is 0 where they are all the same, or differ by less than can be divided by."""
    # Sums of x / unit cannot overflow, and a power of two changes no digit.
    unit = math.ldexp(1.0, math.frexp(float(np.abs(x).max()))[1] - 1)
    mean, sigma = float((x / unit).mean()) * unit, float((x / unit).std()) * unit
    varies = x.min() < x.max() and sigma > np.finfo(float).tiny
    return mean, sigma if varies else 0.0


def constant(values: Values) -> bool:
    """Whether the values that are there are all the same, and no others are announced."""
    if isinstance(values.data, list):
        return len({value for value in values.data if value is not None} | set(values.levels)) == 1
    x = values.data[~values.missing]
    return bool(x.min() == x.max())


def require_kind(learnt: Column | Target, values: Values) -> None:
    """Refuse a column of another kind than the one learnt; one without values is of every kind.

    Numbers and booleans are the same whether a library calls them categories or not: JSON and polars cannot.
    """
    if UNDERLYING.get(values.kind, values.kind) not in (UNDERLYING.get(learnt.kind, learnt.kind), NOTHING):
        expected = f"{learnt.kind} in column {learnt.name!r}, as in fit"
        advice = "Make numbers of it: days since a date." if values.kind == DATES else "Convert the column first."
        raise TypeError(checks.message(values.who, expected, values.kind, advice))


def as_numbers(values: Values) -> Array:
    """Numbers, also of categories that are numbers, as float64; NaN where one is missing."""
    if isinstance(values.data, list):
        return np.array([math.nan if value is None else float(value) for value in values.data])
    return np.asarray(values.data, float)


def code(categories: tuple[Any, ...], values: Iterable[Any]) -> Array:
    """The place of each value among the categories, −1 for those that are not there."""
    place = {category: i for i, category in enumerate(categories)}
    return np.array([place.get(value, -1) for value in values], dtype=np.intp)


def check_categories(name: str, kind: str, categories: Any) -> None:
    """Refuse what is no sorted tuple of categories of that kind."""
    types = TYPES.get(kind, ())
    if not (
        isinstance(categories, tuple)
        and categories
        and all(isinstance(c, types) and isinstance(c, bool) == (types == (bool,)) for c in categories)
        and list(categories) == sorted(set(categories))
    ):
        raise ValueError(checks.message(STATE, f"{name}: sorted {kind} without duplicates", f"{categories!r}"))


def plain(thing: Column | Target) -> dict[str, Any]:
    """Its fields as JSON has them, without those of later versions that say nothing."""
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(thing).items()}
    return {name: value for name, value in found.items() if value or name not in ("indicator", "other")}
