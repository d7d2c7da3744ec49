"""Columns of a table as inputs: some rows of h chosen, categories embedded, numbers cut into pieces, each kind in its own way.

FanOut(Sequential(Select([0, 1]), PiecewiseLinear(edges)), Sequential(Select([2]), Embedding([12], [4])))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.functions import column, within
from backprop.initializers import Initializer, Normal
from backprop.layers.base import Gradients, Layer


class Select(Layer):
    """Some rows of h, each at most once, in any order.

        f      = h[rows]               (R, N) of h (D, N)
        ∂L/∂h  = 0, ∂L/∂h[rows] = ∂L/∂f

    `in_features` is D, if it is to be known. Raises TypeError or ValueError for rows that are not different whole numbers ≥ 0,
    and for an h without them.

    >>> import numpy as np, backprop as bp
    >>> bp.Select([2, 0]).forward(np.array([1.0, 2.0, 3.0]))
    array([3., 1.])
    """

    _for_good: ClassVar[tuple[str, ...]] = ("rows",)

    def __init__(self, rows: Sequence[int], *, in_features: int | None = None) -> None:
        self.rows = _integers("Select", "rows", rows, least=0)
        if len(set(self.rows)) < len(self.rows):
            raise ValueError(checks.message("Select", "different rows", repr(list(self.rows))))
        self.in_features = None if in_features is None else checks.integer("Select", "in_features", in_features)
        self.out_features = len(self.rows)
        self.chain(self.in_features)

    def chain(self, width: int | None) -> int:
        """The number of rows that are chosen, which h must have."""
        if width is not None and self.in_features not in (None, width):
            raise ValueError(checks.message(self.label, f"{self.in_features} input features", f"{width}"))
        if width is not None and max(self.rows) >= width:
            expected = f"at least {max(self.rows) + 1} input features"
            raise ValueError(checks.message(self.label, expected, f"{width}", "Rows are counted from 0."))
        return len(self.rows)

    def forward(self, h: Array) -> Array:
        self.D = len(h)
        return self.infer(h)

    def infer(self, h: Array) -> Array:
        self.chain(len(h))
        return h[list(self.rows)]

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        # Each row of h takes the row of ∂L/∂f that came of it, or the zeros below them.
        R, zeros = len(self.rows), np.zeros((1, dL_df.shape[1]), dL_df.dtype)
        came = np.full(self.D, R)
        came[list(self.rows)] = np.arange(R)
        return np.concatenate([dL_df, zeros])[came], {}


class InputScale(Layer):
    """A factor for each input, which is learned `pace` times as fast as a weight of that size.

        f      = pace γ ⊙ h             (D, N); γ starts from 1/pace, and f from h
        ∂L/∂h  = pace γ ⊙ ∂L/∂f
        ∂L/∂γ  = Σₙ pace h ⊙ ∂L/∂f      (D,)

    By steps of a given length, as Adam's, a factor 1 would hardly move: with a pace of 10 it moves ten times as far. So a
    network can turn down columns that say nothing. Raises TypeError or ValueError for a width that is not a whole number ≥ 1,
    and a pace ≤ 0.
    Source: Holzmüller, Grinsztajn and Steinwart (2024), "Better by default", on the scaling layer.

    >>> import numpy as np, backprop as bp
    >>> bp.InputScale(2, pace=10).forward(np.array([3.0, 4.0]))
    array([3., 4.])
    """

    keeps_width = True

    def __init__(self, features: int, *, pace: float = 1.0) -> None:
        self.in_features = self.out_features = checks.integer("InputScale", "features", features)
        self.pace = checks.number("InputScale", "pace", pace, above=0)
        self.parameters["gamma"] = np.full(self.in_features, 1 / self.pace)

    def initialize(self, generator: np.random.Generator) -> None:
        """Set γ to 1/pace."""
        self.gamma[...] = 1 / self.pace

    def forward(self, h: Array) -> Array:
        self.h = h
        return self.infer(h)

    def infer(self, h: Array) -> Array:
        return column(self.pace * self.gamma) * h

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        return column(self.pace * self.gamma) * dL_df, {"gamma": (self.pace * self.h * dL_df).sum(axis=1)}


class Embedding(Layer):
    """For each category of a column a vector of numbers, which is learned; the vectors of all columns one under another.

        f       = Ω_j 1[c = h_j] of each column j     (w_1 + w_2 + …, N) of codes h (D, N); the 1 is in the row of the code c
        ∂L/∂h   = 0                                   a code has no slope
        ∂L/∂Ω_j = ∂L/∂f_j 1[c = h_j]ᵀ                 (w_j, C_j), parameters omega_0, omega_1, …

    The codes of column j are 0 … C_j − 1 (`cardinalities`), its vectors have w_j numbers (`widths`). Code 0 is what was missing
    or not there in training: its vector starts from 0, and what is no code, up to a quarter, counts as 0. The others start
    from `initializer` (default normal with variance 1). Raises TypeError or ValueError for lists that are not of whole
    numbers ≥ 1, as many of each.
    Source: Guo and Berkhahn (2016), "Entity embeddings of categorical variables", arXiv:1604.06737.

    >>> import numpy as np, backprop as bp
    >>> layer = bp.Embedding([3], [2])
    >>> layer.omega_0 = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])
    >>> layer.forward(np.array([[2.0, 9.0]]))
    array([[2., 0.],
           [4., 0.]])
    """

    _for_good: ClassVar[tuple[str, ...]] = ("cardinalities", "widths")

    def __init__(
        self,
        cardinalities: Sequence[int],
        widths: Sequence[int],
        *,
        initializer: Initializer | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.cardinalities = _integers("Embedding", "cardinalities", cardinalities)
        self.widths = _integers("Embedding", "widths", widths)
        if len(self.widths) != len(self.cardinalities):
            expected = f"{len(self.cardinalities)} widths, one for each column"
            raise ValueError(checks.message("Embedding", expected, f"{len(self.widths)}"))
        self.initializer = Normal(1.0) if initializer is None else initializer
        checks.instance("Embedding", "initializer", self.initializer, Initializer)
        self.in_features, self.out_features = len(self.widths), sum(self.widths)
        for j, shape in enumerate(zip(self.widths, self.cardinalities, strict=True)):
            self.parameters[f"omega_{j}"] = np.empty(shape, np.float32)
        self.initialize(checks.generator("Embedding", seed))

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw each Ω_j anew, with 0 for code 0."""
        for omega in self.parameters.values():
            omega[...] = self.initializer(omega.shape, generator)
            omega[:, 0] = 0

    def forward(self, h: Array) -> Array:
        self.one_hot = self.codes(h)
        return self.embedded(self.one_hot)

    def infer(self, h: Array) -> Array:
        return self.embedded(self.codes(h))

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        gradients, start = Gradients(), 0
        for j, (width, one_hot) in enumerate(zip(self.widths, self.one_hot, strict=True)):
            gradients[f"omega_{j}"] = dL_df[start : start + width] @ one_hot.T
            start += width
        return np.zeros((len(self.widths), dL_df.shape[1]), dL_df.dtype), gradients

    def codes(self, h: Array) -> list[Array]:
        """1[c = h_j] (C_j, N) of each column."""
        top = column(np.array(self.cardinalities, h.real.dtype))
        h = np.clip(h.real, -1, top)
        code = np.rint(h)
        code = code * ((code > 0) & (code < top) & (np.abs(h - code) < 0.25))
        each = enumerate(self.cardinalities)
        return [(column(np.arange(C, dtype=h.dtype)) == code[j : j + 1]).astype(h.dtype) for j, C in each]

    def embedded(self, one_hot: list[Array]) -> Array:
        """The vectors of all columns."""
        return np.concatenate([self.parameters[f"omega_{j}"] @ of_one for j, of_one in enumerate(one_hot)])


class _Pieces(Layer):
    """Numbers cut into pieces, at edges that are buffers: T pieces of all rows, one row after another."""

    _for_good: ClassVar[tuple[str, ...]] = ("edges",)

    def _cut(self, edges: Sequence[Any]) -> None:
        known = _increasing(type(self).__name__, edges)
        self.pieces = tuple(len(each) - 1 for each in known)
        self.buffers["low"] = np.concatenate([each[:-1] for each in known])
        self.buffers["high"] = np.concatenate([each[1:] for each in known])
        self.in_features = len(known)

    @property
    def edges(self) -> list[list[float]]:
        """The edges of each row. Raises ValueError where `low` and `high` have been set to what is none."""
        lows, highs = self._by_row(self.low), self._by_row(self.high)
        known = [[*low, high[-1]] for low, high in zip(lows, highs, strict=True)]
        if any((low[1:] != high[:-1]).any() for low, high in zip(lows, highs, strict=True)):
            expected = "each piece to begin where the one before it ends"
            raise ValueError(checks.message(self.label, expected, "a low that is not the high before it"))
        return [each.tolist() for each in _increasing(self.label, known)]

    def inside(self, h: Array) -> tuple[Array, Array]:
        """How much of each piece lies below h, from 0 to 1 (T, N), and its slope."""
        rows, real = np.repeat(np.arange(len(self.pieces)), self.pieces), h.real.dtype
        width = column((self.high - self.low).astype(real))
        f = within((h[rows] - column(self.low.astype(real))) / width, 0, 1)
        return f, ((f.real > 0) & (f.real < 1)) / width

    def added(self, x: Array) -> Array:
        """The sum of x (T, N) over the pieces of each row."""
        ends = np.cumsum(self.pieces)
        alike = [[j for j, n in enumerate(self.pieces) if n == each] for each in sorted(set(self.pieces))]
        sums = []
        for rows in alike:  # those of as many pieces at a time: few operations, however many rows there are
            n = self.pieces[rows[0]]
            own = x if len(alike) == 1 else x[np.concatenate([np.arange(ends[j] - n, ends[j]) for j in rows])]
            sums.append(own if n == 1 else own.reshape(len(rows), n, *x.shape[1:]).sum(axis=1))
        return sums[0] if len(alike) == 1 else np.concatenate(sums)[np.argsort(np.concatenate(alike))]

    def _by_row(self, x: Array) -> list[Array]:
        ends = np.cumsum(self.pieces).tolist()
        return [x[end - n : end] for n, end in zip(self.pieces, ends, strict=True)]


class PiecewiseLinear(_Pieces):
    """Each number as how far it has come through each of its pieces: 1 for those below it, 0 for those above.

        f_t    = (h_j − low_t) / (high_t − low_t), cut to [0, 1]     (T, N) of h (D, N), for each piece t of each row j
        ∂L/∂h  = Σ_t ∂L/∂f_t / (high_t − low_t)                      over the piece that h_j lies in; 0 beyond the edges

    A linear layer behind it makes any function of h_j that is straight between `edges`, so that a step in one column need not be
    bent out of all of them. `edges` are increasing numbers, two or more for each row; as buffers they are `low` and `high` (T,).
    `quantile_edges` finds some. Beyond the first and the last one f stays as it is.

    Raises TypeError or ValueError for edges that are not finite and increasing.
    Source: Gorishniy, Rubachev and Babenko (2022), "On embeddings for numerical features in tabular deep learning".

    >>> import numpy as np, backprop as bp
    >>> bp.PiecewiseLinear([[0, 1, 3]]).forward(np.array([[-1.0, 0.5, 2.0]]))
    array([[0. , 0.5, 1. ],
           [0. , 0. , 0.5]])
    """

    def __init__(self, edges: Sequence[Any]) -> None:
        self._cut(edges)
        self.out_features = sum(self.pieces)

    def forward(self, h: Array) -> Array:
        f, self.slope = self.inside(h)
        return f

    def infer(self, h: Array) -> Array:
        return self.inside(h)[0]

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        return self.added(self.slope * dL_df), {}


class Quantiles(_Pieces):
    """Each number as the score of its quantile: straight between (edge, score), `scores` rising with `edges`.

        f_j    = score_0 + Σ_t rise_t (h_j − low_t) / (high_t − low_t), each quotient cut to [0, 1]
        ∂L/∂h  = ∂L/∂f_j rise_t / (high_t − low_t)       of the piece t that h_j lies in; 0 beyond the edges

    With the scores of `learned` the data becomes standard normal, whatever its distribution was. As buffers they are `low`,
    `high` and `rise` (T,), and `start` (D,), the first score. Beyond the first and the last edge f stays as it is.

    Raises TypeError or ValueError for edges that are not finite and increasing, and for scores that fall, or are not as many.
    Source: Conover (1999), "Practical nonparametric statistics", section 5.10, on normal scores.

    >>> import numpy as np, backprop as bp
    >>> bp.Quantiles([[0, 1, 3]], [[-1, 0, 1]]).forward(np.array([[-9.0, 0.5, 2.0]]))
    array([[-1. , -0.5,  0.5]])
    """

    _for_good: ClassVar[tuple[str, ...]] = ("edges", "scores")

    def __init__(self, edges: Sequence[Any], scores: Sequence[Any]) -> None:
        self._cut(edges)
        known = _numbers("Quantiles", "scores", scores)
        if [len(each) - 1 for each in known] != [*self.pieces]:
            expected = f"as many scores as edges, {[n + 1 for n in self.pieces]}"
            raise ValueError(checks.message("Quantiles", expected, f"{[len(each) for each in known]}"))
        if any((np.diff(each) < 0).any() for each in known):
            raise ValueError(checks.message("Quantiles", "scores that do not fall", repr(scores)))
        self.buffers["start"] = np.array([each[0] for each in known])
        self.buffers["rise"] = np.concatenate([np.diff(each) for each in known])
        self.out_features = self.in_features

    @classmethod
    def learned(cls, X: Any, knots: int = 64) -> Self:
        """Normal scores of the rows X (N, D), straight between at most so many values of each column; NaN is left out.

            score = Φ⁻¹((number of values below + ½ number of equal ones) / N), cut to ±4

        A column of one value has the score 0. Raises TypeError or ValueError for an X that is no table of numbers, or has inf.

        >>> import numpy as np, backprop as bp
        >>> layer = bp.Quantiles.learned(np.array([[0.0], [1.0], [9.0]]))
        >>> [round(score, 3) for score in layer.scores[0]]
        [-0.967, 0.0, 0.967]
        """
        knots = checks.integer("Quantiles.learned", "knots", knots, least=2)
        each = [own[~np.isnan(own)] for own in _table("Quantiles.learned", X).T]
        edges = [_edges(own, _spread(len(own), knots)) for own in each]
        return cls(edges, [_normal_scores(own, at) for own, at in zip(each, edges, strict=True)])

    @property
    def scores(self) -> list[list[float]]:
        """The scores of each row."""
        starts = self.start.tolist()
        return [
            [start, *(start + np.cumsum(rise)).tolist()]
            for start, rise in zip(starts, self._by_row(self.rise), strict=True)
        ]

    def forward(self, h: Array) -> Array:
        f, slope = self.inside(h)
        rise = column(self.rise.astype(h.real.dtype))
        self.slope = self.added(rise * slope)
        return column(self.start.astype(h.real.dtype)) + self.added(rise * f)

    def infer(self, h: Array) -> Array:
        rise = column(self.rise.astype(h.real.dtype))
        return column(self.start.astype(h.real.dtype)) + self.added(rise * self.inside(h)[0])

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        return self.slope * dL_df, {}


def quantile_edges(X: Any, pieces: int) -> list[list[float]]:
    """Edges that cut each column of the rows X (N, D) into at most so many pieces, with as many of its values in each.

    Values that come again and again make fewer pieces, of two values one; NaN is left out. A column with only one value c has the
    edges c ± max(1, |c|) / 2. Edges are numbers of float32, so that both types tell them apart. Raises TypeError or ValueError
    for an X that is no table of numbers, or has inf, and for less than one piece.

    >>> import numpy as np, backprop as bp
    >>> bp.quantile_edges(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [9.0, np.nan]]), pieces=2)
    [[0.0, 1.5, 9.0], [2.5, 7.5]]
    """
    shares = np.linspace(0, 1, checks.integer("quantile_edges", "pieces", pieces) + 1)
    return [_edges(own[~np.isnan(own)], shares).tolist() for own in _table("quantile_edges", X).T]


def _table(who: str, X: Any) -> Array:
    """Rows X (N, D) of numbers, NaN among them."""
    X = np.asarray(checks.rows(who, X, None), float)
    checks.finite(who, "X", np.where(np.isnan(X), 0, X), 0, np.float32)
    return X


def _edges(values: Array, shares: Array) -> Array:
    """The values below which there are these shares of all, or all there are, if they are no more; those too near are one."""
    different = np.unique(values.astype(np.float32)).astype(float)
    if len(different) > len(shares):
        different = np.unique(np.quantile(values, shares).astype(np.float32)).astype(float)
    apart = np.diff(different) >= np.finfo(np.float32).tiny  # else a slope is infinite
    if apart.any():
        return different[np.r_[True, apart]]
    c = different[0] if len(different) else 0.0
    return np.array([c - max(1.0, abs(c)) / 2, c + max(1.0, abs(c)) / 2])


def _spread(n: int, knots: int) -> Array:
    """Shares at which a normal distribution is cut evenly, from the first of n values to the last one."""
    from scipy.special import ndtr, ndtri

    end = float(ndtri(1 - 0.5 / max(n, 2)))
    return np.r_[0, ndtr(np.linspace(-end, end, knots)[1:-1]), 1]


def _normal_scores(values: Array, edges: Array) -> Array:
    """Φ⁻¹ of the share of values below each edge, half of the equal ones among them."""
    from scipy.special import ndtri

    values = np.sort(values.astype(np.float32))
    if not len(values) or values[0] == values[-1]:
        return np.zeros(len(edges))
    at = edges.astype(np.float32)
    below = (np.searchsorted(values, at, "left") + np.searchsorted(values, at, "right")) / 2
    return np.clip(ndtri(below / len(values)), -4, 4)


def _integers(who: str, name: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """A list of whole numbers, as a tuple."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
        raise TypeError(checks.message(who, f"{name}: a list of whole numbers", repr(values)))
    return tuple(checks.integer(who, f"{name}[{i}]", value, least=least) for i, value in enumerate(values))


def _numbers(who: str, name: str, rows: Any) -> list[Array]:
    """Finite numbers for each row, two or more."""
    if isinstance(rows, str) or not isinstance(rows, Sequence | np.ndarray) or not len(rows):
        raise TypeError(checks.message(who, f"{name}: a list with a list of numbers for each row", repr(rows)))
    known = [checks.numeric(who, f"{name}[{j}]", each).astype(float) for j, each in enumerate(rows)]
    for j, each in enumerate(known):
        if each.ndim != 1 or len(each) < 2 or not np.isfinite(each).all():
            raise ValueError(checks.message(who, f"{name}[{j}]: two or more finite numbers", repr(rows[j])))
    return known


def _increasing(who: str, edges: Any) -> list[Array]:
    known = _numbers(who, "edges", edges)
    for j, each in enumerate(known):
        if not (np.diff(each) > 0).all():
            raise ValueError(checks.message(who, f"edges[{j}] that increase", repr(each.tolist())))
    return known
