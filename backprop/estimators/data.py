"""What comes into an estimator: frames with words and holes, labels of any kind, sparse matrices, numbers on any scale."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import _safe_indexing

from backprop import arrays, checks
from backprop.checks import Array
from backprop.tables.frame import listing, narwhals, no_frame, read, require_names
from backprop.training.data import sha256

# Columns whose names say that they name things, of which each has several rows.
THINGS = re.compile(
    r"(^|[^a-z])(id|uuid|group|patient|subject|person|user|customer|client|household|session|device|sensor)s?($|[^a-z])"
)
FEWEST = 8  # fewer are rather kinds than things
SINGLE = 1e18  # numbers up to here can be squared and added up in float32


class Examples(NamedTuple):
    """Rows X (N, D) of numbers, y, the targets that it is encoded as, and weights (N,) or None.

    `given` is X as the caller has it, of which these are `rows`, or all where that is None.
    """

    X: Any
    y: Array
    targets: Array
    w: Array | None
    given: Any
    rows: Array | None = None

    def at(self, rows: Array) -> Examples:
        """Those of these rows."""
        w = None if self.w is None else self.w[rows]
        return Examples(self.X[rows], self.y[rows], self.targets[rows], w, self.given, rows)

    @property
    def original(self) -> Any:
        """The rows as the caller has them: a frame of his library, else X."""
        frame = frame_of(self.given)
        if frame is None:
            return self.X
        return self.given if self.rows is None else frame[self.rows].to_native()


class SparseRows:
    """A SciPy sparse matrix as rows to train on: a batch is made dense, the whole never is."""

    def __init__(self, matrix: Any, dtype: Any) -> None:
        self.matrix, self.shape, self.dtype = matrix.tocsr(), matrix.shape, np.dtype(dtype)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Array:
        return np.asarray(self.matrix[rows].toarray(), self.dtype)


class Standardization(NamedTuple):
    """Columns shifted to mean 0 and divided by their standard deviation.

    An input of one value has scale inf and becomes 0; a target of one value may have scale 0 and is answered by its mean.
    """

    mean: Any
    scale: Any

    @property
    def unit(self) -> Any:
        """What rows are divided by: for scale 0 the size of the mean, at least 1, which no other target is lost in."""
        return np.where(np.equal(self.scale, 0), np.maximum(np.abs(self.mean), 1), self.scale)

    def forth(self, rows: Array) -> Array:
        """(rows − mean) / unit."""
        with np.errstate(over="ignore"):  # what leaves float64 is looked for afterwards
            return (rows - self.mean) / self.unit

    def back(self, rows: Array) -> Array:
        """Rows · scale + mean."""
        return rows * self.scale + self.mean


def standardization(rows: Array, w: Array | None) -> Standardization:
    """That of rows (N, D) or (N,) with weights w, the same in whatever order they lie in memory."""
    rows = np.ascontiguousarray(rows, np.float64)
    # Squares of rows / unit neither overflow nor vanish, and a power of two changes no digit.
    unit = np.ldexp(1.0, np.frexp(np.abs(rows).max(axis=0))[1] - 1)
    rows = rows / unit
    # Sums of what is beyond one of the rows are exact for rows that are alike, and nearly so for rows that hardly differ.
    origin = rows[0 if w is None else np.argmax(w)]
    rows = rows - origin
    beyond = np.average(rows, axis=0, weights=w)
    deviation = np.sqrt(np.average((rows - beyond) ** 2, axis=0, weights=w))
    rounding = 16 * np.finfo(np.float64).eps * np.abs(origin)  # by which sums and the like of equal numbers differ
    varies = (deviation > rounding) & (deviation * unit > np.finfo(np.float64).tiny)
    return Standardization((origin + beyond) * unit, np.where(varies, deviation * unit, np.inf))


def fits_single(*arrays: Any) -> bool:
    """Whether these numbers can be trained on in float32.

    >>> fits_single(np.array([1e3, -1e5])), fits_single(np.array([1e30]))
    (True, False)
    """
    dense = [array.matrix.data if isinstance(array, SparseRows) else array for array in arrays]
    return all(a.size == 0 or max(a.max(), -a.min()) < SINGLE for a in dense if a.dtype.kind == "f")


def mark(examples: Examples) -> str:
    """What tells these examples from others: the SHA-256 of all their numbers."""
    X = examples.X
    parts = [X.data, X.indices, X.indptr] if hasattr(X, "tocsr") else [X]
    parts += [examples.targets] if examples.w is None else [examples.targets, examples.w]
    return " ".join(sha256(part, 1 << 16) for part in parts)


def at_rows(held: Any, rows: Array) -> Any:
    """These rows of a frame, a series, an array or a list; a name, and None, are as they were."""
    if held is None or isinstance(held, str):
        return held
    frame = frame_of(held)
    frame = series_of(held) if frame is None else frame
    return _safe_indexing(held, rows) if frame is None else frame[rows].to_native()


def is_mapped(X: Any) -> bool:
    """Whether X is a memory map, which is read piece by piece and never copied whole."""
    return isinstance(X, np.memmap) or isinstance(getattr(X, "base", None), np.memmap)


def frame_of(X: Any) -> Any:
    """X as an eager frame of narwhals, whatever its library; None where it is none, or narwhals is not installed."""
    if not (hasattr(type(X), "columns") or hasattr(type(X), "schema")):  # asking a lazy frame itself is dear
        return None
    try:
        nw = narwhals()
    except ImportError:
        return None
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def series_of(y: Any) -> Any:
    """Y as a series of narwhals; None where it is none, or narwhals is not installed."""
    if isinstance(y, np.ndarray | np.generic):
        return None
    try:
        nw = narwhals()
    except ImportError:
        return None
    if hasattr(type(y), "dictionary_encode") and not hasattr(type(y), "chunks"):  # of Arrow, in one piece
        y = sys.modules["pyarrow"].chunked_array([y])
    series = nw.from_native(y, series_only=True, pass_through=True)
    return series if isinstance(series, nw.Series) else None


def in_memory(who: str, X: Any, wanted: Iterable[str] = ()) -> Any:
    """X as it can be worked with: no index of pandas in a table of Arrow, nothing lazy, no column twice, no ragged rows.

    Columns that are wanted, such as those of the fit, stay even if they are that index.
    Raises TypeError or ValueError.
    """
    if X is None:
        raise TypeError(checks.message(who, "X: an array or a frame, one example per row", "None"))
    _refuse_no_rows(who, "X: an array or a frame, one example per row", X)
    if arrays.loader(X):
        raise no_frame(who, X)
    if isinstance(X, list | tuple):
        checks.made(who, "X", X, arrays.rectangular)
    X = arrays.without_index(X, wanted)
    if hasattr(type(X), "columns"):
        names = Counter(getattr(X, "column_names", X.columns))
        twice = [name for name, n in names.items() if n > 1]
        if twice:
            advice = "Rename them, or leave one of each out."
            raise ValueError(
                checks.message(who, "columns with different names", f"{listing(twice)} more than once", advice)
            )
    return X


def _refuse_no_rows(who: str, expected: str, held: Any) -> None:
    """Refuse what NumPy would take for one thing, or what is no number each: a dict, a set, a text, an iterator, records."""
    if hasattr(held, "toarray"):  # a sparse matrix may be a dict
        return
    first = next(iter(held), None) if isinstance(held, list | tuple) else None
    if isinstance(held, Mapping | Set | str | bytes | Iterator) or isinstance(first, Mapping):
        kind = f"a {type(held).__name__}" + (f" of {type(first).__name__}s" if isinstance(first, Mapping) else "")
        tables = isinstance(held, Mapping) or isinstance(first, Mapping)
        advice = "Make a frame of it: pd.DataFrame(…) takes it." if tables else ""
        raise TypeError(checks.message(who, expected, kind, advice))


def needs_table(X: Any, y: Any, missing: str) -> bool:
    """Whether a frame has more to it than numbers: words, categories, holes, or the target among its columns."""
    frame = frame_of(X)
    if frame is None or isinstance(y, str):
        return isinstance(y, str)
    numbers = all(dtype.is_numeric() or dtype == narwhals().Boolean for dtype in frame.schema.values())
    fills = missing != "refuse" and all(isinstance(name, str) for name in frame.columns)  # as a table's are
    return not numbers or fills or any(column.null_count() for column in frame.iter_columns())


def repeated_things(X: Any) -> tuple[str, int] | None:
    """The column of a frame that names things which come again, and how many there are; None without one."""
    frame = frame_of(X)
    for name in [] if frame is None else frame.columns:
        if THINGS.search(str(name).lower()) and FEWEST <= (found := frame[name].n_unique()) <= len(frame) // 2:
            return name, found
    return None


def refuse_holes(who: str, X: Any, missing: str) -> None:
    """Raise ValueError for the first missing or infinite value by column and row, if there is one and X says where."""
    if (frame := frame_of(X)) is not None:
        for column in frame.iter_columns():
            read(who, str(column.name), column).require("Fill it, or train with missing='impute'.")
    elif missing != "refuse" and isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f":
        rows, columns = np.nonzero(np.isnan(X))
        if len(rows):
            got = f"NaN at row {rows[0]}, column {columns[0]}"
            advice = (
                f"missing={missing!r} fills the holes of frames: pass pd.DataFrame(X), or fill them by SimpleImputer."
            )
            raise ValueError(checks.message(who, "X without NaN", got, advice))


def answers(who: str, X: Any, y: Any, what: str = "y") -> Any:
    """The targets as an array of NumPy whose values are those that were given: y, or the column of X that y names.

    Whole numbers stay whole, booleans booleans, decimals decimals. Raises TypeError where X is no frame that has such a column,
    ValueError for a missing value, which it names by its row.
    """
    if isinstance(y, str):
        frame = frame_of(X)
        if frame is None:
            advice = "Pass the targets themselves as y."
            raise TypeError(checks.message(who, f"a frame with the target {y!r}", f"a {type(X).__name__}", advice))
        require_names(who, [y], list(frame.columns))
        return _of_series(who, f"column {y!r}", frame[y])
    if y is None or hasattr(y, "toarray"):
        return y if y is None else y.toarray()
    checks.made(who, what, y, arrays.in_memory)
    _refuse_no_rows(who, f"{what} as an array, a series or a list, one value for each row", y)
    if isinstance(y, list | tuple):
        if len(y) == 1 and isinstance(y[0], str) and y[0] in getattr(frame_of(X), "columns", []):
            advice = f"For the column of that name pass {y[0]!r} itself, without the list."
            raise ValueError(checks.message(who, "y with one target for each row", f"{y!r}", advice))
        y = checks.made(who, what, y, arrays.rectangular)
    if (series := series_of(y)) is not None:
        return _of_series(who, what, series)
    if (frame := frame_of(y)) is not None:
        columns = [(f"column {column.name!r} of {what}", column) for column in frame.iter_columns()]
        return np.column_stack([_of_series(who, name, column) for name, column in columns])
    array = np.asarray(y)
    return _of_objects(who, what, array) if array.dtype == object and array.ndim == 1 else array


def _of_series(who: str, name: str, series: Any) -> Array:
    nw = narwhals()
    _refuse_missing(who, name, series.is_null().to_numpy())
    dtype = series.dtype  # decimals, and dates of libraries with types of their own, stay what they are, as objects
    moments = dtype.is_temporal() and series.implementation.is_pandas_like()
    if (dtype.is_numeric() and dtype != nw.Decimal) or dtype == nw.Boolean or moments:
        return np.asarray(series.to_numpy())
    found = np.empty(len(series), object)
    found[:] = series.to_list()
    return _of_objects(who, name, found)


def _of_objects(who: str, name: str, y: Array) -> Array:
    """Objects (N,) as what they all are: booleans, whole numbers, numbers; others stay objects."""
    _refuse_missing(who, name, np.array([_is_missing(value) for value in y], bool))
    kinds = {type(value) for value in y}
    if kinds <= {bool, np.bool_}:
        return y.astype(bool)
    if kinds & {bool, np.bool_}:
        boolean = np.array([isinstance(value, bool | np.bool_) for value in y])
        places = int(boolean.argmax()), int(boolean.argmin())
        got = " and ".join(f"{y[row]!r} at row {row}" for row in sorted(places))
        raise ValueError(checks.message(who, f"{name} with values of one kind", got))
    if all(issubclass(kind, int | np.integer) for kind in kinds):
        for dtype in (np.int64, np.uint64):
            if all(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max for value in y):
                return y.astype(dtype)
    elif all(issubclass(kind, int | float | np.integer | np.floating) for kind in kinds):
        return y.astype(np.float64)
    return y


def digest(array: Any) -> str:
    """What says that two arrays, also sparse ones, are the same."""
    if array is None:
        return "none"
    parts = [array.data, array.indices, array.indptr] if hasattr(array, "indptr") else [np.asarray(array)]
    found = hashlib.sha256(str(array.shape).encode())
    for part in parts:
        found.update(repr(part.tolist()).encode() if part.dtype == object else np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, NaT or pandas' NA."""
    nan = isinstance(value, float | np.floating) and math.isnan(value)
    return nan or value is None or type(value).__name__ in ("NAType", "NaTType")


def _refuse_missing(who: str, name: str, missing: Array) -> None:
    if missing.any():
        n, row = int(np.count_nonzero(missing)), int(np.argmax(missing))
        got = f"a missing one (None, NaN, NA) at row {row}" + (f", the first of {n}" if n > 1 else "")
        advice = "Remove such rows: what is not known cannot be made up."
        raise ValueError(checks.message(who, f"{name} with a value in each row", got, advice))
