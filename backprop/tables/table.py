"""From a frame to arrays: columns by name, numbers scaled, categories encoded, missing values refused or filled."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from backprop import checks, notation
from backprop.checks import Array
from backprop.files import container
from backprop.files.atomic import PathLike
from backprop.tables.columns import (
    STATE,
    Categories,
    Column,
    Dates,
    Numbers,
    Target,
    constant,
    learn,
    plain,
    require_kind,
)
from backprop.tables.frame import Frame, Values, inspect, listing, narwhals, read, require_names


class Table:
    """Learns from a frame (pandas, polars, pyarrow) how to turn its columns into X (N, D), and does so with later frames.

        numbers, booleans    one feature     (x − mean) / σ; with scale=False x
        text, categories     one feature for each category, sorted: 1 where it is the value, else 0
        dates, moments       with dates="cycles" days since 1970-01-01 as numbers are, and cosine and sine of their places in
                             the week, in the year, and, where there are times of day in `fit`, in the day; else refused
        target               numbers as they are, (y − mean) / σ with scale_target; anything else becomes labels 0 … K − 1

    Columns are matched by name, in any order; the target may be absent from later frames. `missing` is "refuse", or "impute"
    (the mean of numbers, the most frequent category, as they were in `fit`), or "indicate": as "impute", and a column in
    which values were missing in `fit` has one more feature, 1 where the value is missing; of categories it is the only one
    that is 1 there. `unknown` says what to do with a category that was not in `fit`: "refuse", or "ignore" (zeros). With
    `most_categories` a column that has more keeps those that are most frequent, and one more feature stands for all others,
    those of later frames among them. A column that holds one value only is scaled to 0, with a warning.

    After `fit`: `columns` and `feature_names` (lists of text), `places` and `categories` (column → list), `classes` (array, or
    None for numbers). `notes` is a dict for plain data of your own, which `state` and files keep. Text that is numbers but for
    an odd cell, and dates as text, are refused; a categorical says that they are names. What an Arrow table keeps of a pandas
    index is no column. Errors name column and row, rows counted from 0 whatever the frame's index: TypeError for the kind of a
    column, ValueError for names and values, ImportError without narwhals. A call that fails changes nothing.

    >>> import pandas as pd, backprop as bp
    >>> table = bp.Table(target="price")
    >>> X, y = table.fit(pd.DataFrame({"size": [40, 60], "town": ["Bonn", "Ulm"], "price": [9.0, 7.0]}))
    >>> table.transform(pd.DataFrame({"town": ["Ulm"], "size": [50]}))
    array([[0., 0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        missing: str = "refuse",
        unknown: str = "refuse",
        most_categories: int | None = None,
        dates: str = "refuse",
        scale: bool = True,
        scale_target: bool = False,
        dtype: Any = "float32",
    ) -> None:
        if not isinstance(target, str | None):
            raise TypeError(checks.message("Table", "target: the name of a column, or None", repr(target)))
        self.target = target
        self.missing = checks.choice("Table", "missing", missing, ["refuse", "impute", "indicate"])
        self.unknown = checks.choice("Table", "unknown", unknown, ["refuse", "ignore"])
        self.most_categories = most_categories
        if most_categories is not None:
            self.most_categories = checks.integer("Table", "most_categories", most_categories)
        self.dates = checks.choice("Table", "dates", dates, ["refuse", "cycles"])
        self.scale = checks.boolean("Table", "scale", scale)
        self.scale_target = checks.boolean("Table", "scale_target", scale_target)
        self.dtype = checks.dtype("Table", dtype)
        self.notes: dict[str, Any] = {}
        self._columns: tuple[Column, ...] = ()
        self._target: Target | None = None

    def fit(self, frame: Any, y: Any = None) -> tuple[Array, Any]:
        """Learn the columns of a frame; returns X (N, D) and y (N,), None where there is no target.

        The target is the column of that name, or handed in as `y`: a series, an array or a list with one value per row.
        """
        who = "Table.fit"
        rows = Frame(who, frame, wanted=[self.target])
        answers = None if self.target is y is None else self._answers(who, rows, y)
        target = Target.learn(answers, self.scale_target) if answers else None
        names = [name for name in rows.names if name != self.target]
        if not names:
            raise ValueError(checks.message(who, "columns beside the target", listing(rows.names)))
        values = [rows.column(name) for name in names]
        how = {"indicate": self.missing == "indicate", "dates": self.dates == "cycles"}
        columns = tuple(learn(column, self.scale, self.most_categories, **how) for column in values)
        X = self._encode(columns, values)
        encoded = target.encode(answers, self.dtype) if target and answers else None
        same = [column.name for column in values if constant(column)]
        if same:
            warnings.warn(f"Table.fit: columns {listing(same)} hold one value only. Leave them out.", stacklevel=2)
        self._columns, self._target = columns, target
        return X, encoded

    def transform(self, frame: Any) -> Array:
        """X (N, D) of a frame with the columns that `fit` has seen, in any order, with or without the target.

        Raises ValueError for columns that are absent or were not there in `fit`, for missing values and
        unknown categories that are to be refused, TypeError for columns of another kind, RuntimeError before `fit`.
        """
        return self._transform("Table.transform", frame)

    def targets(self, y: Any) -> Array:
        """Targets (N,) of a frame that has their column, or of a `y` by itself: numbers, or labels 0 … K − 1.

        Raises ValueError for missing values and for classes that `fit` has not seen, RuntimeError before a `fit` with a target.
        """
        who = "Table.targets"
        if self._target is None:
            raise RuntimeError(checks.message(who, "fit to have run with a target", "no target"))
        rows = None if self.target is None else Frame(who, y, wanted=[self.target])
        return self._target.encode(self._answers(who, rows, None if rows else y), self.dtype)

    def labels(self, predictions: Any) -> Array:
        """The classes (N,) that predictions (N, K) stand for: that of the largest output; of one output, the second class if > 0.

        Raises TypeError or ValueError for predictions that do not fit, RuntimeError where the target is not classes.
        """
        who = "Table.labels"
        if self.classes is None:
            raise RuntimeError(checks.message(who, "fit to have run with classes as target", "no classes"))
        f = checks.numeric(who, "predictions", predictions)
        K = len(self.classes)
        if f.ndim != 2 or not (f.shape[1] == K or (f.shape[1] == 1 and K == 2)):
            expected = f"predictions with shape (N, {K}){' or (N, 1)' * (K == 2)}"
            raise ValueError(checks.message(who, expected, f"shape {f.shape}"))
        checks.finite(who, "predictions", f)
        return self.classes[f.argmax(axis=1) if f.shape[1] == K else (f[:, 0] > 0).astype(np.intp)]

    def values(self, predictions: Any) -> Array:
        """The numbers in units of the target that predictions stand for: mean + σ f, (N,) from (N, 1); (N, K) keep their shape.

        Raises TypeError or ValueError for predictions that do not fit, RuntimeError where the target is not numbers.
        """
        who = "Table.values"
        if self._target is None or self._target.classes:
            raise RuntimeError(checks.message(who, "fit to have run with numbers as target", "no such target"))
        f = checks.numeric(who, "predictions", predictions)
        if f.ndim != 2:
            raise ValueError(checks.message(who, "predictions with shape (N, K)", f"shape {f.shape}"))
        checks.finite(who, "predictions", f)
        y = self._target.mean + self._target.sigma * f.astype(np.float64)  # float32 has too few digits far from zero
        return y[:, 0] if y.shape[1] == 1 else y

    @property
    def columns(self) -> list[str]:
        """Names of the columns that become features, in the order of the features."""
        return [column.name for column in self._columns]

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns of X: "size" for numbers, "town=Ulm" for a category."""
        return [name for column in self._columns for name in column.feature_names]

    @property
    def places(self) -> dict[str, list[int]]:
        """The places in X of the features that each column makes."""
        every = iter(range(len(self.feature_names)))
        return {column.name: [next(every) for _ in column.feature_names] for column in self._columns}

    @property
    def categories(self) -> dict[str, list[Any]]:
        """The categories of each column that has them, sorted."""
        return {column.name: list(column.categories) for column in self._columns if isinstance(column, Categories)}

    @property
    def classes(self) -> Array | None:
        """The classes (K,) that the labels 0 … K − 1 stand for, sorted; None without a target or for one of numbers."""
        return np.array(self._target.classes) if self._target and self._target.classes else None

    def state(self) -> dict[str, Any]:
        """All that was set and learnt, as JSON has it: dicts, lists, text, numbers. RuntimeError before `fit`.

        >>> import json, pandas as pd, backprop as bp
        >>> table = bp.Table()
        >>> X, _ = table.fit(pd.DataFrame({"town": ["Bonn", "Ulm"]}))
        >>> bp.Table.from_state(json.loads(json.dumps(table.state()))).feature_names
        ['town=Bonn', 'town=Ulm']
        """
        self._require_fit("Table.state")
        settings = {name: getattr(self, name) for name in ("target", "missing", "unknown", "scale", "scale_target")}
        columns, answers = [plain(column) for column in self._columns], plain(self._target) if self._target else None
        notes: dict[str, Any] = {"notes": copy.deepcopy(self.notes)} if self.notes else {}
        settings |= {} if self.most_categories is None else {"most_categories": self.most_categories}
        settings |= {} if self.dates == "refuse" else {"dates": self.dates}
        return settings | {"dtype": self.dtype.name, "columns": columns, "answers": answers} | notes

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The table whose `state` this is. Raises ValueError for anything else."""
        try:
            settings = dict(state)
            columns, answers, notes = settings.pop("columns"), settings.pop("answers"), settings.pop("notes", {})
            learnt = [_column(entry) for entry in columns]
            target = Target(**answers | {"classes": tuple(answers["classes"])}) if answers else None
            table = cls.of(learnt, target, **settings)
            table.notes = copy.deepcopy(dict(notes))
            return table
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(checks.message(STATE, "what Table.state returned", f"something else ({error})")) from None

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """The table that was saved with a network, `net.save(path, table=table)`.

        Raises FileFormatError for a file that is damaged, altered, of a newer version, or holds no table, OSError for one that
        cannot be read.
        """
        state = container.read(path, "network")[0].get("table")
        if state is None:
            container.refuse(path, "a network with its table", "one alone", "Save it with net.save(path, table=table).")
        try:
            return cls.from_state(state)
        except ValueError as error:
            raise container.refusal(path, "a table", error) from error

    @classmethod
    def of(cls, columns: Sequence[Column], answers: Target | None = None, **settings: Any) -> Self:
        """A table with columns that are already known."""
        names = [column.name for column in columns]
        if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(checks.message("Table", "names of columns without duplicates", listing(names)))
        table = cls(**settings)
        table._columns, table._target = tuple(columns), answers
        return table

    def __repr__(self) -> str:
        return notation.call(self, dtype=self.dtype.name)

    def _require_fit(self, who: str) -> None:
        if not self._columns:
            raise RuntimeError(checks.message(who, "fit to have run before", "a table that has learnt nothing"))

    def _transform(self, who: str, frame: Any, first_row: int = 0) -> Array:
        self._require_fit(who)
        rows = Frame(who, frame, first_row, wanted=self.columns)
        require_names(who, self.columns, rows.names)
        added = [name for name in rows.names if name not in self.columns and name != self.target]
        if added:
            expected = f"columns {listing(self.columns)}, as in fit"
            raise ValueError(checks.message(who, expected, f"also {listing(added)}", "Leave them out."))
        return self._encode(self._columns, [rows.column(name) for name in self.columns])

    def _encode(self, columns: tuple[Column, ...], values: list[Values]) -> Array:
        widths = [len(column.feature_names) for column in columns]
        X = _room(values, widths, self.dtype)
        for column, of_column, part in zip(columns, values, np.split(X, np.cumsum(widths)[:-1], axis=1), strict=True):
            require_kind(column, of_column)
            if self.missing == "refuse":
                of_column.require("Remove such rows, or fill them with missing='impute'.")
            column.encode(of_column, part, self.unknown == "ignore")
        return X

    def _answers(self, who: str, rows: Frame | None, y: Any) -> Values:
        """The target's values: the column of that name, or y."""
        if self.target is not None and rows is not None:
            if y is not None:
                raise ValueError(checks.message(who, f"either target {self.target!r} or y", "both"))
            return rows.column(self.target)
        nw = narwhals()
        series = nw.from_native(y, series_only=True, pass_through=True)
        if isinstance(series, nw.Series):
            answers = read(who, "y", series)
        elif np.ndim(y) == 1:  # not of a dict or a set
            values = y.tolist() if hasattr(y, "tolist") else list(y)
            answers = inspect(who, "y", values, [False] * len(values))
        else:
            raise TypeError(checks.message(who, "y: one value for each row", f"a {type(y).__name__}"))
        n = rows.n if rows else len(answers.missing)
        if len(answers.missing) != n or n == 0:
            raise ValueError(checks.message(who, f"y with {n} values, one for each row", f"{len(answers.missing)}"))
        return answers


def _room(values: list[Values], widths: list[int], dtype: Any) -> Array:
    """An array for the features. Raises MemoryError that names the column which makes the most of them."""
    n, most = len(values[0].missing), values[int(np.argmax(widths))]
    try:
        return np.empty((n, sum(widths)), dtype)
    except MemoryError:
        got = f"{n:,} rows of {sum(widths):,} features, {max(widths):,} of them from column {most.name!r}"
        expected = "features that fit into memory"
        raise MemoryError(
            checks.message(most.who, expected, got, "Leave the column out, or group its values.")
        ) from None


def _column(entry: dict[str, Any]) -> Column:
    if "categories" in entry:
        return Categories(**entry | {"categories": tuple(entry["categories"])})
    return Dates(**entry) if "clock" in entry else Numbers(**entry)
