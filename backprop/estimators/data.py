"""What comes into an estimator: frames with words and holes, sparse matrices, numbers on any scale."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.tables.frame import Frame, narwhals, no_frame, require_names

SINGLE = 1e18  # numbers up to here can be squared and added up in float32
HOLD_OUT = "Change validation_fraction, or give validation_data."


class Examples(NamedTuple):
    """Rows X (N, D) of numbers, y as it came, the targets that it is encoded as, and weights (N,) or None."""

    X: Any
    y: Array
    targets: Array
    w: Array | None

    def at(self, rows: Array) -> Examples:
        """Those of these rows."""
        return Examples(self.X[rows], self.y[rows], self.targets[rows], None if self.w is None else self.w[rows])


class SparseRows:
    """A SciPy sparse matrix as rows to train on: a batch is made dense, the whole never is."""

    def __init__(self, matrix: Any, dtype: Any) -> None:
        self.matrix, self.shape, self.dtype = matrix.tocsr(), matrix.shape, np.dtype(dtype)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Array:
        return np.asarray(self.matrix[rows].toarray(), self.dtype)


class Standardization(NamedTuple):
    """Columns shifted to mean 0 and divided by their standard deviation; constant columns are only shifted."""

    mean: Any
    scale: Any

    def forth(self, rows: Array) -> Array:
        """(rows − mean) / scale."""
        return (rows - self.mean) / self.scale

    def back(self, rows: Array) -> Array:
        """Rows · scale + mean."""
        return rows * self.scale + self.mean


def standardization(rows: Array, w: Array | None) -> Standardization:
    """That of rows (N, D) or (N,) with weights w."""
    rows = np.asarray(rows, np.float64)
    mean = np.average(rows, axis=0, weights=w)
    deviation = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=w))
    rounding = len(rows) * np.finfo(np.float64).eps * np.abs(mean)  # what the mean of equal numbers may be off by
    return Standardization(mean, np.where(deviation > rounding, deviation, 1.0))


def fits_single(*arrays: Any) -> bool:
    """Whether these numbers can be trained on in float32.

    >>> fits_single(np.array([1e3, -1e5])), fits_single(np.array([1e30]))
    (True, False)
    """
    dense = [array.matrix.data if isinstance(array, SparseRows) else array for array in arrays]
    return all(a.size == 0 or max(a.max(), -a.min()) < SINGLE for a in dense if a.dtype.kind == "f")


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


def needs_table(X: Any, y: Any, missing: str) -> bool:
    """Whether a frame has more to it than numbers: words, categories, holes, or the target among its columns."""
    frame = frame_of(X)
    if frame is None or isinstance(y, str):
        return isinstance(y, str)
    numbers = all(dtype.is_numeric() or dtype == narwhals().Boolean for dtype in frame.schema.values())
    return not numbers or missing == "impute" or any(column.null_count() for column in frame.iter_columns())


def refuse_holes(who: str, X: Any) -> None:
    """Raise ValueError for the first missing or infinite value of a frame, by column and row."""
    if frame_of(X) is not None:
        frame = Frame(who, X)
        for name in frame.names:
            frame.column(name).require("Fill it, or train with missing='impute'.")


def take_out(who: str, X: Any, y: Any) -> Any:
    """The values of column `y` of frame X where y is a name, else y itself.

    Raises TypeError where X is no frame or a lazy one, ValueError where it has no such column.
    """
    if hasattr(type(X), "collect"):
        raise no_frame(who, X)
    if not isinstance(y, str):
        return y
    nw = narwhals()
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        advice = "Pass the targets themselves as y."
        raise TypeError(checks.message(who, f"a frame with the target {y!r}", f"a {type(X).__name__}", advice))
    require_names(who, [y], list(frame.columns))
    return frame[y].to_numpy()
