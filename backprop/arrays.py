"""What NumPy makes of what people hand in, and what it must make nothing of; no library of frames is imported for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Unfit(Exception):
    """What is no array: the kind of error, what was expected, what came instead, and what to do."""

    def __init__(self, kind: type[Exception], expected: str, got: str, advice: str) -> None:
        super().__init__(expected, got, advice)
        self.kind, self.expected, self.got, self.advice = kind, expected, got, advice


def array(values: Any) -> Array:
    """An array of what is none yet. Raises Unfit for what would become objects, or something else than it is."""
    plain(values)
    in_memory(values)
    if values is None:
        raise Unfit(TypeError, "an array of numbers", "None", "")
    if hasattr(values, "toarray"):
        advice = "Pass .toarray(), or use the estimators, which take sparse X."
        raise Unfit(TypeError, "a dense array", f"a sparse one ({type(values).__name__})", advice)
    found = rectangular(without_index(values))
    return numbers_of_frame(values) if found.dtype == object and hasattr(values, "dtypes") else found


def plain(values: Any) -> None:
    """Refuse a masked array, whose masks NumPy's functions and scikit-learn's leave out without a word."""
    if isinstance(values, np.ma.MaskedArray):
        raise Unfit(TypeError, "a plain array", "a masked array", "Fill it first, for example with .filled(0).")


def in_memory(values: Any) -> None:
    """Refuse a lazy frame, with the method that brings it into memory."""
    if load := loader(values):
        raise Unfit(TypeError, "in memory", f"a lazy one ({type(values).__name__})", f"Pass .{load}().")


def rectangular(values: Any) -> Array:
    """An array of what NumPy takes for one; ragged lists are refused."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise Unfit(ValueError, "a rectangular array", "rows of unequal length", str(error)) from None


def loader(values: Any) -> str:
    """The method that brings a lazy frame into memory, "" for what is there already."""
    kind = type(values)
    if hasattr(kind, "collect"):
        return "collect"
    return "compute" if hasattr(kind, "compute") and hasattr(kind, "partitions") else ""  # a frame of dask's


def without_index(table: Any, wanted: Iterable[str] = ()) -> Any:
    """A table of Arrow without the columns in which pandas has kept its index, but those wanted; anything else as it is."""
    if not hasattr(type(table), "drop_columns"):  # asking a lazy frame for its schema is dear
        return table
    metadata = getattr(table.schema, "pandas_metadata", None)
    kept = [name for name in (metadata or {}).get("index_columns", ()) if isinstance(name, str)]
    kept = [name for name in kept if name in table.column_names and name not in wanted]
    return table.drop_columns(kept) if kept else table


def numbers_of_frame(frame: Any) -> Array:
    """A frame of pandas, of numbers and booleans or with numbers that may be absent, as float64; others stay objects."""
    if all(getattr(dtype, "kind", "O") in "fiub" for dtype in frame.dtypes):
        return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(frame)
