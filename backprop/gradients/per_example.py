"""What each example says about φ: a gradient of its own, or the norm of it alone.

A backward pass adds the examples up in one place only: where a gradient lands. ∂L/∂Ω = Σ_n ∂ℓ_n/∂f_n h_nᵀ is a sum because the
product of the two matrices is, and a layer hands both of them to its landing. The landings of this file do not add:

    PerExample      G_n ← ∂ℓ_n/∂f_n h_nᵀ                         into row n of a matrix (N, P)
    SquaredNorms    |∂ℓ_n/∂f_n h_nᵀ|² = |∂ℓ_n/∂f_n|² |h_n|²      no gradient is formed
    Unasked         nothing

So the layers that run are the ones that train. A layer of one's own returns gradients that are already sums; it is run on one
example at a time.
Source: Goodfellow (2015), "Efficient per-example gradient computations", arXiv:1510.01799.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backprop import checks
from backprop.blas import Landing
from backprop.checks import Array
from backprop.gradients.problem import Problem
from backprop.layers import Composite, Gradients, Layer
from backprop.losses import Loss
from backprop.sequential import Sequential

# Entries from which on a call of BLAS per example writes 1.5 times faster than one multiplication of them all.
LARGE = 8192


def per_example_gradients(net: Layer, loss: Loss, X: Any, y: Any) -> Array:
    """The gradient of each example's own loss, row by row, from one backward pass over all of them.

        G_n    = ∂ℓ_n/∂φ                      (N, P), in the order of net.phi
        ∂L/∂φ  = 1/N Σ_n G_n                  of the mean over the examples

    Rows X (N, D), targets y (N,) or (N, K); ℓ_n is without weights and reduction. `net.views(G)` shows G as one array (N, *shape)
    per parameter. Memory is that of G, N · P numbers in the dtype of the network; writing them is most of the time. The network
    is not changed. Dropout is that of a training pass, with one mask that is the same at each call; `net.frozen()` is without.

    Raises TypeError or ValueError for data that does not fit, and ValueError where ℓ_n is not a function of example n alone:
    with BatchNorm (pass `net.frozen()`), or a layer of one's own that is random or couples the examples.
    Source: Goodfellow (2015), arXiv:1510.01799.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 1), seed=0)
    >>> G = per_example_gradients(net, bp.LeastSquares(), np.eye(2), np.zeros(2))
    >>> G.shape, [array.shape for array in net.views(G).values()]
    ((2, 3), [(2, 1), (2, 1, 2)])
    """
    problem = Problem("per_example_gradients", net, loss, X, y, shared=True)
    G = np.empty((problem.n, problem.net.size), problem.dtype)
    run = Apart(problem.who, problem.net)
    for block in run.blocks(problem.n):
        rows = run.net.views(G[block])
        run.backward(problem, block, {name: PerExample(view) for name, view in rows.items()})
    return G


def per_example_gradient_norms(net: Layer, loss: Loss, X: Any, y: Any) -> Array:
    """The length of each example's gradient, for less than an ordinary backward pass and without forming a gradient.

        |G_n|²  = Σ_layers |∂ℓ_n/∂f_n|² (|h_n|² + 1)        h, f: what enters and leaves a `Linear`
        returns |∂ℓ_n/∂φ|                                   (N,)

    The sum holds because the gradient of Ω is an outer product, whose entries have the squared sum |∂ℓ_n/∂f_n|² |h_n|²; the 1 is
    β. The examples pass through in blocks, so memory grows with N by X and y alone. Arguments, Dropout and errors are those of
    `per_example_gradients`.
    Source: Goodfellow (2015), arXiv:1510.01799.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 1, initializer=bp.Constant(1)))
    >>> per_example_gradient_norms(net, bp.LeastSquares(), np.array([[3.0, 4.0], [0.0, 0.0]]), np.zeros(2)).round(2)
    array([71.39,  0.  ], dtype=float32)
    """
    problem = Problem("per_example_gradient_norms", net, loss, X, y, shared=True)
    squares = np.zeros(problem.n, problem.dtype)
    run = Apart(problem.who, problem.net)
    unasked = {name: Unasked(parameter) for name, parameter in run.net.parameters.items()}
    for block in run.blocks(problem.n):
        run.backward(problem, block, {k: SquaredNorms(squares=squares[block], then=to) for k, to in unasked.items()})
    return np.sqrt(squares, out=squares)


class Unasked(Landing):
    """A gradient that nobody asks for. The target, an array of the parameter's shape, is only handed back."""

    def outer(self, dL_df: Array, h: Array) -> Array:
        """Leave the product out."""
        return self.target  # type: ignore[return-value]

    def sum(self, dL_df: Array) -> Array:
        """Leave the sum out."""
        return self.target  # type: ignore[return-value]

    def add(self, gradient: Array) -> Array:
        """Take what `outer` and `sum` handed back."""
        return gradient

    def add_one(self, n: int, gradient: Array) -> None:
        """Take the finished gradient of example n, from a layer of one's own."""


class PerExample(Unasked):
    """The gradients of all examples, next to each other: the target is (N, *shape)."""

    def outer(self, dL_df: Array, h: Array) -> Array:
        """Write ∂ℓ_n/∂f_n h_nᵀ for each n."""
        rows: Array = self.target  # type: ignore[assignment]
        # Examples side by side in memory: the inner loop then runs along h_n and along G_n, 3 times faster.
        dL_df, h = (np.ascontiguousarray(columns.T, rows.dtype) for columns in (dL_df, h))
        if rows[0].size < LARGE:
            np.multiply(dL_df[:, :, None], h[:, None, :], out=rows)
        else:
            for dL_df_n, h_n, row in zip(dL_df[:, :, None], h[:, None, :], rows, strict=True):
                np.dot(dL_df_n, h_n, out=row)
        return rows[0]

    def sum(self, dL_df: Array) -> Array:
        """Write each column of dL_df (D, N)."""
        rows: Array = self.target  # type: ignore[assignment]
        rows[...] = dL_df.T
        return rows[0]

    def add_one(self, n: int, gradient: Array) -> None:
        """Write the gradient of example n."""
        self.target[n] = gradient  # type: ignore[index]


@dataclass(eq=False)
class SquaredNorms(Landing):
    """Adds the squared norm of each example's gradient to `squares` (N,); their sum goes on to the landing `then`."""

    squares: Array = field(kw_only=True)
    then: Landing = field(kw_only=True)

    def outer(self, dL_df: Array, h: Array) -> Array:
        """Add |∂ℓ_n/∂f_n|² |h_n|²."""
        self.squares += _squares(dL_df) * _squares(h)
        return self.then.outer(dL_df, h)

    def sum(self, dL_df: Array) -> Array:
        """Add the squared length of each column."""
        self.squares += _squares(dL_df)
        return self.then.sum(dL_df)

    def add(self, gradient: Array) -> Array:
        """Take what `outer` and `sum` handed back."""
        return gradient

    def add_one(self, n: int, gradient: Array) -> None:
        """Add the squared norm of the gradient of example n."""
        self.squares[n] += np.vdot(gradient, gradient)
        self.then.add(gradient)


def _squares(columns: Array) -> Array:
    """|column|² of each column (D, N); no array of squares on the way."""
    return np.einsum("dn,dn->n", columns, columns)


class Apart:
    """A replica of a network for landings that see each example apart; without `data`, ∂L/∂X is left out.

    Raises ValueError if the network couples examples.
    """

    def __init__(self, who: str, net: Sequential, *, data: bool = False) -> None:
        if net.couples_examples:
            layer = next((leaf for leaf in net.leaves() if leaf.couples_examples), net)
            expected = "layers that treat each example on its own"
            advice = "Pass net.frozen(), which computes what predict does."
            raise ValueError(checks.message(who, expected, layer.label, advice))
        replica, self._rows = net.replica(), net._rows_per_block
        if not data:
            replica.leave_out_the_data()
        self.net = _replaced(replica, net, who)

    def blocks(self, n: int) -> Iterator[slice]:
        """Stretches of n examples whose activations stay in cache."""
        return (slice(start, min(start + self._rows, n)) for start in range(0, n, self._rows))

    def backward(self, problem: Problem, block: slice, landings: dict[str, Any]) -> None:
        """Both passes over a block of examples, from ∂ℓ_n/∂f_n without weights and reduction."""
        self.net.land_in(landings)
        self.net.reseed(block.start)  # the first block has the mask of Problem.forward
        f = self.net.forward(problem.h[:, block])
        problem.loss.ell(f, problem.y[..., block])
        self.net.backward(problem.loss.dell_df())


def foreign(layer: Layer) -> bool:
    """Whether the passes of a layer, not counting those inside it, are somebody else's: ours land what they return."""
    passes = (type(layer).forward, type(layer).backward)
    return any(method.__module__.partition(".")[0] != __name__.partition(".")[0] for method in passes)


def _replaced(replica: Layer, original: Layer, who: str) -> Layer:
    """The replica with `OneByOne` in the place of each foreign layer."""
    if foreign(original):
        return OneByOne(original, who)
    if isinstance(replica, Composite):
        replica.layers = {key: _replaced(child, original.children[key], who) for key, child in replica.layers.items()}
    return replica


class OneByOne(Layer):
    """A layer of one's own, run forward on the whole batch and then, to have its gradients apart, on each column.

    Both must give the same f, or the gradients of single examples would not be those of the batch.
    """

    def __init__(self, layer: Layer, who: str) -> None:
        self.layer, self.who = layer.copy(), who
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._singles: list[Layer] = []

    @property
    def parameters(self) -> Gradients:  # type: ignore[override]
        """Those of the layer."""
        return self.layer.parameters

    def reseed(self, *key: int) -> None:
        """Hand the key on."""
        self.layer.reseed(*key)

    def forward(self, h: Array) -> Array:
        """Return the layer's f of the whole batch; keeps a twin with the caches of each column."""
        f = np.asarray(self.layer.snapshot().forward(h))
        self._singles = [self.layer.snapshot() for _ in range(h.shape[1])]
        tolerance = np.sqrt(np.finfo(f.dtype).eps)
        for n, single in enumerate(self._singles):
            f_n = np.asarray(single.forward(h[:, n : n + 1]))
            column = f[:, n : n + 1]
            if f_n.shape != column.shape or not np.allclose(f_n, column, tolerance, tolerance, equal_nan=True):
                expected = "layers that treat each example on its own"
                got = f"{self.layer.label}, which gives example {n} another output in the batch than alone"
                advice = "If it draws at random or couples examples in training only, give it `frozen` and pass net.frozen()."
                raise ValueError(checks.message(self.who, expected, got, advice))
        return f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh; the gradients of each column have gone to the landings."""
        columns = []
        for n, single in enumerate(self._singles):
            dL_dh, gradients = checks.backward_result(single, single.backward(dL_df[:, n : n + 1]))
            columns.append(dL_dh)
            for name, gradient in single.take(gradients).items():
                self._landings[name].add_one(n, gradient)  # type: ignore[attr-defined]
        return np.concatenate(columns, axis=1), {}

    def take(self, gradients: Gradients) -> Gradients:
        """Nothing is left to land."""
        return gradients
