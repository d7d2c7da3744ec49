"""What stands before a network and behind it, for exporters: from columns as they are to its inputs, from outputs to units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.sequential import Sequential

BOOLEANS = "booleans"
UNKNOWN = "none of these"
ROWS = 100


@dataclass(frozen=True)
class Column:
    """One column of a table. A number x becomes (x − shift) · factor; one of `categories` becomes K features, 1 at its place.

    With `other` one more feature stands for all other categories, with `indicator` a last one for a missing value. `fill` stands
    for a missing value; where it is None, a missing value is refused.
    """

    name: str
    kind: str
    fill: Any
    shift: float = 0.0
    factor: float = 1.0
    categories: tuple[Any, ...] = ()
    other: bool = False
    indicator: bool = False

    @property
    def is_word(self) -> bool:
        """Whether its values are text; all others are handed over as numbers, true and false as 1 and 0."""
        return bool(self.categories) and isinstance(self.categories[0], str)

    @property
    def width(self) -> int:
        """How many features it makes."""
        return (len(self.categories) or 1) + self.other + self.indicator

    @property
    def missing_at(self) -> int | None:
        """Of categories the place of the 1 for a missing value, None where one is refused."""
        if self.fill is None:
            return None
        return self.width - 1 if self.indicator else self.categories.index(self.fill)

    @property
    def other_at(self) -> int | None:
        """The place of the 1 for a category that is not listed, None where there is none."""
        return len(self.categories) if self.other else None


class Preparation:
    """A fitted table as plain numbers: `columns` before the network, `mean` + `sigma` · f behind it, or `classes`.

    `ignores` says whether an unknown category becomes zeros; else there is no prediction for its row.
    """

    def __init__(self, who: str, table: Any, net: Sequential) -> None:
        if not callable(getattr(table, "state", None)) or not hasattr(table, "transform"):
            raise TypeError(checks.message(who, "table: a Table", repr(table)))
        self.table, state = table, table.state()
        self.dtype, self.ignores = np.dtype(state["dtype"]), state["unknown"] == "ignore"
        fills = state["missing"] != "refuse"
        self.columns = [_column(entry, fills) for entry in state["columns"]]
        answers = state["answers"] or {}
        self.target: str | None = answers.get("name")
        self.classes: list[Any] = list(answers.get("classes") or [])
        self.mean, self.sigma = float(answers.get("mean", 0.0)), float(answers.get("sigma", 1.0))
        self.numbers = [column for column in self.columns if not column.is_word]
        self.words = [column for column in self.columns if column.is_word]
        features = sum(column.width for column in self.columns)
        if net.in_features not in (None, features):
            expected = f"a table that makes {net.in_features} features"
            raise ValueError(checks.message(who, expected, f"one that makes {features}"))

    @property
    def scales(self) -> bool:
        """Whether outputs are numbers, to be turned into the units of the target."""
        return not self.classes

    def in_units(self, f: Array) -> Array:
        """Outputs f (N, K) in units of the target, in float64; scores of classes as they are."""
        return self.mean + self.sigma * f.astype(np.float64) if self.scales else f

    def generated(self) -> list[Array]:
        """To compare on: numbers (100, n), and words (100, w) if there are any, some missing or unknown where they may be."""
        generator = np.random.default_rng(0)
        spread = generator.choice([0.1, 1, 3], ROWS)
        numbers = np.empty((ROWS, len(self.numbers)))
        words = np.empty((ROWS, len(self.words)), object)
        for columns, values in ((self.numbers, numbers), (self.words, words)):
            for j, column in enumerate(columns):
                values[:, j] = _values(column, generator, spread, self.ignores)
                if (
                    column.fill is not None and "" not in column.categories
                ):  # else no format tells it from a missing one
                    values[generator.random(ROWS) < 0.05, j] = None if column.is_word else np.nan
        return [numbers, words] if self.words else [numbers]

    def at_knots(self, inputs: list[Array], knots: Mapping[int, Array]) -> list[Array]:
        """More of such rows, whose numbers are those that make the features `knots`."""
        more = [values[np.arange(max(map(len, knots.values()))) % len(values)] for values in inputs]
        at = 0
        for column in self.columns:
            if at in knots and not column.categories and column.factor:
                own = column.shift + np.resize(knots[at], len(more[0])) / column.factor
                more[0][:, self.numbers.index(column)] = own
            at += column.width
        return more

    def given(self, X: Any) -> list[Array]:
        """The same of a frame of the caller's."""
        import narwhals as nw

        frame = nw.from_native(X, eager_only=True)
        self.table.transform(X)  # which refuses what does not fit, by column and row
        numbers = [
            [math.nan if v is None else float(v) for v in frame[column.name].to_list()] for column in self.numbers
        ]
        arrays = [np.array(numbers, float).reshape(len(self.numbers), len(frame)).T]
        if self.words:
            words = np.empty((len(frame), len(self.words)), object)
            for j, column in enumerate(self.words):
                words[:, j] = frame[column.name].to_list()
            arrays.append(words)
        return arrays

    def unscaled(self, X: Array, numbers: Array) -> Array:
        """Inputs (N, D) with numbers as they are, the fill where one is missing, and the 0 and 1 of categories."""
        raw, at = X.astype(np.float64), 0
        for column in self.columns:
            if not column.categories:
                x = numbers[:, self.numbers.index(column)]
                raw[:, at] = x if column.fill is None else np.where(np.isnan(x), column.fill, x)
            at += column.width
        return raw

    def features(self, who: str, numbers: Array, words: Any = None) -> Array:
        """The network's inputs for rows of numbers and words, by the table itself."""
        try:
            import pyarrow as pa
        except ImportError as error:
            raise ImportError(f'{who} with a table needs pyarrow: pip install "backprop-mlp[tables]"') from error
        arrays = {}
        for columns, values in ((self.numbers, numbers), (self.words, words)):
            for j, column in enumerate(columns):
                arrays[column.name] = _arrow(pa, column, values[:, j])
        return np.asarray(self.table.transform(pa.table({column.name: arrays[column.name] for column in self.columns})))


def taken(who: str, net: Any, table: Any) -> tuple[Any, Any]:
    """The network and table that are meant: those of a fitted estimator, or as they are."""
    if not hasattr(net, "as_network"):
        return net, table
    if table is not None:
        raise ValueError(checks.message(who, "an estimator without table=", "both", "It has its own."))
    return net.as_network()


def _column(entry: dict[str, Any], fills: bool) -> Column:
    name, kind = entry["name"], entry["kind"]
    if "clock" in entry:
        advice = "Make numbers of the dates before the table, days since one of them: Table() refuses dates."
        raise ValueError(checks.message("export", "a table without dates", f"dates in column {name!r}", advice))
    more: dict[str, Any] = {each: bool(entry.get(each, False)) for each in ("other", "indicator")}
    if "categories" in entry:
        fill = entry["most_frequent"] if fills else None
        return Column(name, kind, fill, categories=tuple(entry["categories"]), **more)
    fill = float(entry["mean"]) if fills else None
    return Column(name, kind, fill, float(entry["shift"]), float(entry["factor"]), **more)


def _values(column: Column, generator: np.random.Generator, spread: Array, ignores: bool) -> Any:
    """Values (100,) of a column, around those that it was fitted to."""
    if column.kind == BOOLEANS and not column.categories:
        return generator.integers(0, 2, ROWS)
    if not column.categories:
        center = column.shift if column.fill is None or column.shift else column.fill
        return center + generator.standard_normal(ROWS) * spread / (column.factor or 1.0)
    known = list(column.categories)
    if (ignores or column.other) and isinstance(known[0], bool):
        known = [False, True]
    elif ignores or column.other:
        known.append(UNKNOWN if column.is_word else max(map(float, known)) + 1)
    return [known[k] for k in generator.integers(0, len(known), ROWS)]


def _arrow(pa: Any, column: Column, values: Array) -> Any:
    """A column of Arrow's with the kind that the table has learnt."""
    given = [None if v is None or v != v else v for v in values.tolist()]
    if column.kind == BOOLEANS or (column.categories and isinstance(column.categories[0], bool)):
        flags = pa.array([None if v is None else bool(v) for v in given], pa.bool_())
        return flags.dictionary_encode() if column.categories else flags
    if column.is_word:
        return pa.array(given, pa.string())
    if column.categories:
        whole = all(type(each) is int for each in column.categories)
        return pa.array([v if v is None or not whole else int(v) for v in given]).dictionary_encode()
    return pa.array(given, pa.float64())
