"""Every check of what a person hands in, and the text of its error.

An error has four parts: who noticed, what was expected, what came instead, and what to do if one cause is likely.
`ValueError` is for shape and range, `TypeError` for kind, `RuntimeError` for the order of calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from backprop import arrays, signs
from backprop.arrays import Array as Array

signs.let_all_print()  # whatever prints a network, a report or an error has come by here


class StandIn:
    """What the engine passes through plain code in the place of an array, to see what is computed."""

    shape: Any
    dtype: Any


class Door:
    """The method that was called, by its name in errors, which is made when there is one."""

    def __init__(self, part: Any, method: str) -> None:
        self.part, self.method = part, method

    def __str__(self) -> str:
        return f"{self.part.label}.{self.method}"


@contextmanager
def naming(part: object, method: str, **shapes: tuple[int, ...]) -> Iterator[None]:
    """Have an error inside somebody's own code say where it was, and for which shapes."""
    try:
        yield
    except Exception as error:
        if not type(part).__module__.startswith("backprop."):
            given = " and ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
            error.add_note(f"In {getattr(part, 'label', part)!s}.{method}, for {given}.")
        raise


def message(who: object, expected: str, got: str, advice: str = "") -> str:
    """Text of a four-part error.

    >>> message("SGD", "learning_rate > 0", "-1", "Try 0.1.")
    'SGD: expected learning_rate > 0, got -1. Try 0.1.'
    """
    return f"{who}: expected {expected}, got {got}." + (f" {advice}" if advice else "")


def number(
    who: object,
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """A finite real number in the given range, as a float; bool and text are refused.

    >>> number("SGD", "momentum", 0.9, least=0, below=1)
    0.9
    """
    limits = zip(">≥<≤", (above, least, below, most), strict=True)
    ranges = [f"{name} {sign} {limit:g}" for sign, limit in limits if math.isfinite(limit)]
    expected = " and ".join(ranges) or f"{name} a finite number"
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(message(who, f"a number, {expected}", f"{value!r} ({type(value).__name__})"))
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not (math.isfinite(result) and above < result < below and least <= result <= most):
        raise ValueError(message(who, expected, repr(value)))
    return result


def integer(who: object, name: str, value: object, *, least: int = 1) -> int:
    """A whole number of at least `least`; bool, text and 2.5 are refused.

    >>> integer("Trainer", "batch_size", 32)
    32
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(message(who, f"a whole number {name} ≥ {least}", f"{value!r} ({type(value).__name__})"))
    if value < least:
        raise ValueError(message(who, f"{name} ≥ {least}", repr(value)))
    return int(value)


def generator(who: object, seed: object) -> np.random.Generator:
    """A generator of what was given: None, a whole number ≥ 0, or a generator."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(None if seed is None else integer(who, "seed", seed, least=0))


def integer_or(who: object, name: str, value: object, word: str) -> int | str:
    """A whole number ≥ 1, or the one word that stands for something else.

    >>> integer_or("Trainer", "threads", "auto", "auto")
    'auto'
    """
    if isinstance(value, str):
        return choice(who, f"{name} a whole number ≥ 1 or", value, [word])
    return integer(who, name, value)


def boolean(who: object, name: str, value: object) -> bool:
    """True or False and nothing else."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(message(who, f"{name} True or False", f"{value!r} ({type(value).__name__})"))
    return bool(value)


def choice(who: object, name: str, value: object, options: Iterable[str]) -> str:
    """One of the listed words; the error lists them all.

    >>> choice("Mean", "reduction", "mean", ["mean", "sum"])
    'mean'
    """
    options = list(options)
    if not isinstance(value, str):
        raise TypeError(message(who, f"{name} one of {options}", f"{value!r} ({type(value).__name__})"))
    if value not in options:
        raise ValueError(message(who, f"{name} one of {options}", repr(value)))
    return value


def numeric(who: object, name: str, values: object) -> Array:
    """An array of real numbers at the door. Text, objects, complex and masked arrays are refused; nothing is copied.

    Raises TypeError for the kind, ValueError for ragged or empty data.
    """
    array = values if type(values) is np.ndarray else made(who, name, values)
    if (kind := array.dtype.kind) not in "fiub":
        if kind == "c":
            raise TypeError(message(who, f"{name} real numbers", f"complex numbers ({array.dtype})"))
        advice = "Encode text and categories as numbers first." if kind in "OSUT" else "Convert it first."
        raise TypeError(message(who, f"{name} numbers", f"an array of dtype {array.dtype}", advice))
    if not array.size:
        raise ValueError(message(who, f"{name} with at least one example", f"shape {array.shape}"))
    return array


def made(who: object, name: str, values: object, make: Callable[[Any], Any] = arrays.array) -> Any:
    """What a function of `arrays` makes of the values; its refusals get a name."""
    try:
        return make(values)
    except arrays.Unfit as error:
        raise error.kind(message(who, f"{name} {error.expected}", error.got, error.advice)) from None


def finite(who: object, name: str, array: Array, first_row: int = 0, dtype: Any = None) -> None:
    """Refuse NaN and inf, also those that only appear as `dtype`, naming the row and column of the first one.

    `first_row` is the row of the whole data set at which this block starts.
    """
    if array.dtype.kind == "f" and not all_finite(stored := _stored(array, dtype)):
        raise _not_finite(who, name, array, stored, first_row)


def _stored(array: Array, dtype: Any) -> Array:
    if dtype is None or array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _not_finite(who: object, name: str, array: Array, stored: Array, first_row: int) -> ValueError:
    where = tuple(np.argwhere(~np.isfinite(stored))[0])
    place = f"row {where[0] + first_row}" + (f", column {where[1]}" if array.ndim > 1 else "")
    advice = "Remove or impute such rows first."
    if np.isfinite(array[where]):
        advice = f"It is too large for {stored.dtype}: scale the data, or use dtype='float64'."
    return ValueError(message(who, f"finite values in {name}", f"{array[where]} at {place}", advice))


def all_finite(array: Array) -> bool:
    """Whether every entry is finite; counting is the quickest way to ask a mask, for one row and for millions."""
    return int(np.count_nonzero(np.isfinite(array))) == array.size


def sliceable(X: Any) -> bool:
    """Whether X is not an array but has a shape, a numeric dtype and slices, such as an HDF5 data set; it is not read whole."""
    if isinstance(X, np.ndarray | np.generic) or not hasattr(X, "__getitem__") or hasattr(X, "iloc"):
        return False
    if hasattr(X, "toarray"):  # a sparse matrix, which slices into sparse ones
        return False
    dtype, shape = getattr(X, "dtype", None), getattr(X, "shape", ())
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub" and len(shape) == 2 and min(shape) > 0


def rows(who: object, X: Any, in_features: int | None) -> Any:
    """Inputs at the door: shape (N, D), one example per row.

    Raises TypeError or ValueError; a matrix that fits when transposed is named as such.
    """
    X = X if sliceable(X) else numeric(who, "X", X)
    if len(X.shape) != 2:
        advice = "Use X.reshape(1, -1) for a single example, X.reshape(-1, 1) for a single feature."
        advice = advice if len(X.shape) == 1 else ""
        raise ValueError(message(who, "X with shape (N, D), one example per row", f"shape {X.shape}", advice))
    if in_features is not None and X.shape[1] != in_features:
        advice = "It fits when transposed: pass X.T." if X.shape[0] == in_features else ""
        expected = f"X with {in_features} columns (one example per row)"
        raise ValueError(message(who, expected, f"shape {X.shape}", advice))
    return X


def floating(who: object, name: str, value: object) -> Array:
    """An array of a floating or complex type; whole numbers become float64. Raises TypeError for anything else."""
    array = value if type(value) is np.ndarray else made(who, name, value)
    if array.dtype.kind not in "fciub":
        raise TypeError(message(who, f"{name} of real numbers", f"an array of dtype {array.dtype}"))
    return array.astype(np.float64) if array.dtype.kind in "iub" else array


def weights(who: object, sample_weight: object, n: int) -> Array:
    """Sample weights: n finite numbers ≥ 0 that are not all 0. Raises TypeError or ValueError."""
    w = numeric(who, "sample_weight", sample_weight)
    if w.shape != (n,):
        raise ValueError(message(who, f"sample_weight with shape ({n},), one per example", f"shape {w.shape}"))
    finite(who, "sample_weight", w)
    if (w < 0).any():
        row = int(np.argmax(w < 0))
        raise ValueError(message(who, "sample_weight ≥ 0", f"{w[row]} at row {row}"))
    if not w.any():
        raise ValueError(message(who, "at least one sample_weight > 0", "only zeros"))
    with np.errstate(over="ignore"):
        if not np.isfinite(w.sum(dtype=float)):
            raise ValueError(message(who, "a finite sum of sample_weight", "inf", "Divide them by their largest."))
    return w if w.dtype.kind == "f" else w.astype(np.float64)


def too_early(layer: Any) -> RuntimeError:
    """The error of a `backward` that comes before its `forward`."""
    expected, got = "forward to have run before backward", "no forward pass yet"
    return RuntimeError(message(Door(layer, "backward"), expected, got))


def instance(who: object, name: str, value: Any, kind: type) -> Any:
    """The value, an instance of a class; the class itself given by mistake is told to add parentheses."""
    if not isinstance(value, kind):
        raise TypeError(message(who, f"{name}: a {kind.__name__}", repr(value), _call_it(value)))
    return value


def _call_it(value: object) -> str:
    return f"Write {value.__name__}(…)." if isinstance(value, type) else ""


def layer(who: object, value: object, kind: type) -> Any:
    """A layer instance, as one of several."""
    if isinstance(value, list | tuple):
        raise TypeError(message(who, "layers", repr(value), f"Pass them one by one: {who}(*layers)."))
    if not isinstance(value, kind):
        raise TypeError(message(who, "layers", repr(value), _call_it(value)))
    return value


def dtype(who: object, value: object) -> np.dtype[Any]:
    """float32 or float64."""
    kinds = {np.dtype(kind).name: np.dtype(kind) for kind in (np.float32, np.float64)}
    name = getattr(value, "name", getattr(value, "__name__", value))
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(message(who, "dtype 'float32' or 'float64'", repr(value)))
    return kinds[name]


def labels(who: object, y: Array, K: int) -> Array:
    """Class labels (N,): whole numbers 0 … K−1, as integers. Raises ValueError naming the first row that is not."""
    finite(who, "y", y)
    wrong = (y < 0) | (y > K - 1)
    if y.dtype.kind == "f":
        wrong |= y != np.floor(y)
    if wrong.any():
        row = int(np.argmax(wrong))
        advice = f"Number the classes from 0; {K} outputs make {K} classes."
        raise ValueError(message(who, f"labels 0 … {K - 1}", f"{y[row]} at row {row}", advice))
    return y.astype(np.intp)


def values_between(who: object, name: str, array: Array, low: float, high: float) -> None:
    """Refuse values outside [low, high], naming the first one by its example."""
    wrong = (array < low) | (array > high)
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0])
        expected = f"{low:g} ≤ {name}" + (f" ≤ {high:g}" if math.isfinite(high) else "")
        raise ValueError(message(who, expected, f"{array[where]} for example {where[-1]}"))


def numbers(who: object, name: str, array: Any, kinds: str) -> None:
    """Refuse what a part of one's own returns if it is no array of numbers of these kinds."""
    if getattr(array, "dtype", None) is None or array.dtype.kind not in kinds:
        got = f"one of {array.dtype}" if hasattr(array, "dtype") else f"a {type(array).__name__}"
        raise TypeError(message(who, f"{name} an array of real numbers", got))
