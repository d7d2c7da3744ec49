"""What each example says about φ: a gradient of its own, or the norm of it alone.

A backward pass adds the examples up in one place only, the last operation of each gradient: ∂L/∂Ω = Σ_n ∂ℓ_n/∂f_n h_nᵀ is a sum
because the product of the two matrices is, ∂L/∂β because it says so. Read off the list of operations before that last one, the
same numbers are each example's own:

    G_n    ∂ℓ_n/∂f_n h_nᵀ                        row n of a matrix (N, P)
    norms  |∂ℓ_n/∂f_n h_nᵀ|² = |∂ℓ_n/∂f_n|² |h_n|²      no gradient is formed

So the layers that run are the ones that train. With a layer of one's own, whose gradients are sums already, each example is a
batch of one.
Source: Goodfellow (2015), "Efficient per-example gradient computations", arXiv:1510.01799.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.nesting import draws, inside, leaves, reseed, views
from backprop.checks import Array
from backprop.engine.operations import Op, base
from backprop.engine.plan import ALIGNMENT, Plan, make, needed, summed
from backprop.engine.planning import remembered
from backprop.engine.play import Bound, part_at
from backprop.engine.threads import playing
from backprop.engine.twins import trace_step
from backprop.gradients.problem import Problem
from backprop.layers import Gradients, Layer
from backprop.losses import Loss
from backprop.prediction import rows_per_block
from backprop.sequential import Sequential

# Entries from which on a call of BLAS per example writes 1.5 times faster than one multiplication of them all.
LARGE = 8192
# What a subclass may have without computing anything else.
HARMLESS = {"__init__", "__repr__", "_abc_impl", "initialize", "label"}


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
    problem = Problem("per_example_gradients", net, loss, X, y, lent=True)
    G = np.empty((problem.n, problem.net.size), problem.dtype)
    for block, factors in blocks(problem):
        for name, rows in views(problem.net, G[block]).items():
            factors[name].write(rows)
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
    problem = Problem("per_example_gradient_norms", net, loss, X, y, lent=True)
    squares = np.zeros(problem.n, problem.dtype)
    for block, factors in blocks(problem):
        for factor in factors.values():
            squares[block] += factor.squares()
    return np.sqrt(squares, out=squares)


@dataclass(frozen=True, eq=False)
class Factors:
    """The gradient of one parameter before the examples are added up: the factors of a product, A (D_out, N) and B (N, D_in), or
    the terms of a sum, A (D, N). What members share has k columns for each example, A (D_out, k N) and B (k N, D_in).
    """

    A: Array
    B: Array | None = None
    n: int = 0  # examples

    def write(self, rows: Array) -> None:
        """Write the gradient of each example to rows (N, *shape)."""
        if self.B is None:
            rows[...] = self.A.T.reshape(rows.shape)
            return
        if self.A.shape[1] > self.n:
            A, B = self._members()
            np.matmul(A, B, out=rows)
            return
        # Examples side by side in memory: the inner loop then runs along h_n and along G_n, 3 times faster.
        dL_df, h = np.ascontiguousarray(self.A.T, rows.dtype), np.ascontiguousarray(self.B, rows.dtype)
        if rows[0].size < LARGE:
            np.multiply(dL_df[:, :, None], h[:, None, :], out=rows)
        else:
            for dL_df_n, h_n, row in zip(dL_df[:, :, None], h[:, None, :], rows, strict=True):
                np.dot(dL_df_n, h_n, out=row)

    def squares(self) -> Array:
        """The squared norm of each example's gradient (N,)."""
        if self.B is not None and self.A.shape[1] > self.n:
            A, B = self._members()  # |A B|² = Σ (AᵀA) ⊙ (B Bᵀ)
            return np.einsum("nij,nij->n", A.swapaxes(1, 2) @ A, B @ B.swapaxes(1, 2))
        of_A = np.einsum("dn,dn->n", self.A, self.A)
        return of_A if self.B is None else of_A * np.einsum("nd,nd->n", self.B, self.B)

    def _members(self) -> tuple[Array, Array]:
        """The factors of each example: A (N, D_out, k) and B (N, k, D_in)."""
        A, B = self.A.reshape(len(self.A), -1, self.n), self.B.reshape(-1, self.n, self.B.shape[1])  # type: ignore[union-attr]
        return A.transpose(2, 0, 1), B.transpose(1, 0, 2)

    def total(self) -> Array:
        """The sum over examples."""
        return self.A.sum(axis=1) if self.B is None else self.A @ self.B


def blocks(problem: Problem) -> Iterator[tuple[slice, dict[str, Factors]]]:
    """Stretches of examples whose activations stay in cache, and the factors of their gradients by name."""
    passes, size = Apart(problem.who, problem.net, problem.loss), rows_per_block(problem.net)
    for start in range(0, problem.n, size):
        block = slice(start, min(start + size, problem.n))
        bound, forms = passes.bind(problem.h[:, block].T, problem.y[..., block])
        bound.generators.key = (start,)  # the first block has the mask of Problem.forward
        with playing(problem.net.size, block.stop - start):
            for call in bound.first + bound.rest:
                call()
        yield block, factors(bound, forms)


class Apart:
    """Both passes over blocks of examples up to where they are added up, played once for each block.

    Without `loss`, y is ∂L/∂f, from which the way back begins. With `data` ∂L/∂X is asked for, and not the gradients. Raises
    ValueError if the network couples examples.
    """

    def __init__(self, who: str, net: Sequential, loss: Loss | None, *, data: bool = False) -> None:
        if net.couples_examples:
            layer = next((leaf for leaf in leaves(net) if leaf.couples_examples), net)
            expected = "layers that treat each example on its own"
            advice = "Pass net.frozen(), which computes what predict does."
            raise ValueError(checks.message(who, expected, layer.label, advice))
        self.who, self.net, self.loss, self.data = who, taken_for_ours(net), loss, data
        self.arena = np.empty(0, np.uint8)
        self.part = cache(self._made)  # each part of one's own, by path, is made once

    def bind(self, X: Array, y: Array) -> tuple[Bound, dict[str, int]]:
        """The passes over rows X (n, D) and columns y, in memory that the next ones use again.

        Results are the factors of each gradient, so many for each parameter, or ∂L/∂h.
        """
        plan, forms = self._plan(X, y)
        arrays = {"X": X, "y": y, "share": np.ones((), X.dtype)} | self.net.parameters | self.net.buffers
        arrays |= kept_arrays(plan, self.net, self.loss)
        if self.arena.nbytes < plan.nbytes + ALIGNMENT:
            self.arena = np.empty(plan.nbytes + ALIGNMENT, np.uint8)
        return Bound(plan, arrays, part=self.part, arena=self.arena), forms

    def _made(self, path: str) -> Any:
        """What is played for a part of one's own. Passes of the library's that have no gradients do not mix examples."""
        part = part_at(self.net, self.loss, path)
        if not isinstance(part, Layer):
            return part
        if is_library(part) and not part.parameters and not draws(part):
            return boundary.beside(part)
        return OneByOne(part, self.who, [] if self.data else list(part.parameters))

    def _plan(self, X: Array, y: Array) -> Any:
        """The plan, kept with others of the same structure, and how many factors each gradient has."""
        n, D, targets = *X.shape, (y.shape, y.dtype)

        def planned() -> Any:
            step = trace_step(self.net, self.loss, D, n, targets, False, X.dtype, apart=True)
            gradients = {} if self.data else step.gradients
            parts = {name: summed(op) for name, op in gradients.items()}
            roots = [x for name, op in gradients.items() for x in parts[name] or (op,)] + [step.dL_dX] * self.data
            calls = [op for op in step.trace.ops if op.kind == "call" and op.function[0] != "gradient"]
            # Without a loss the way back may be played several times, and must find what it reads.
            first = step.f if self.loss is None else None
            ahead = needed([step.f, *(op for op in calls if op.number < step.turn)])
            kept = _read_after(set(ahead), roots) if self.loss is None else []
            plan = make(first, [], {}, effects=calls, turn=step.turn, results=[*roots, *kept])
            plan.generators, plan.settings = step.trace.places, step.trace.settings
            forms = {name: len(part or ()) for name, part in parts.items()}
            return (plan, forms), plan.settings, not all(map(is_ours, (self.loss, *inside(self.net))))

        return remembered(("apart", X.shape, X.dtype, targets, self.data), self.net, self.loss, None, planned)


def factors(bound: Bound, forms: dict[str, int]) -> dict[str, Factors]:
    """What the last play found, by parameter. A layer of one's own gives the gradients themselves, (N, *shape)."""
    results, found = iter(bound.results), {}
    for name, count in forms.items():
        A, *rest = itertools.islice(results, count or 1)
        B = rest[0] if rest else None
        found[name] = Factors(A if count else A.reshape(len(A), -1).T, B, len(bound.sources["X"]))
    return found


def _read_after(ahead: set[Op], roots: list[Op]) -> list[Op]:
    """What is computed on the way to f and read by the rest, in which may be more of `forward` than f needs."""
    read = {base(x) for op in needed(roots) if op not in ahead for x in op.ops}
    return sorted(read & ahead, key=lambda op: op.number)


def is_ours(part: object) -> bool:
    """Whether the class is the library's; so is no loss at all."""
    return part is None or type(part).__module__.startswith("backprop.")


def is_library(part: object) -> bool:
    """Whether the passes of a layer are the library's, in which examples are added up last."""
    passes = (type(part).forward, type(part).backward)  # type: ignore[attr-defined]
    return all(method.__module__.partition(".")[0] == __name__.partition(".")[0] for method in passes)


def taken_for_ours(layer: Any) -> Any:
    """The layer with the library's class in the place of each subclass that changes nothing of the passes."""
    kind: Any = _inherited(type(layer))
    children = {key: taken_for_ours(child) for key, child in layer.children.items()} if kind.traced else {}
    if kind is type(layer) and all(child is layer.children[key] for key, child in children.items()):
        return layer
    made: Any = object.__new__(kind)
    vars(made).update(vars(layer))
    if children:
        vars(made)["layers"] = children
    return made


def _inherited(kind: type) -> type:
    ours = next(base for base in kind.__mro__ if base.__module__.startswith("backprop."))
    added = [item for base in kind.__mro__[: kind.__mro__.index(ours)] for item in vars(base).items()]
    # Of the names that every class has, such as __doc__, only methods compute anything.
    known = {name for name, value in added if hasattr(ours, name) and (callable(value) or not name.startswith("__"))}
    return kind if known - HARMLESS or not vars(ours).get("traced") else ours


def kept_arrays(plan: Plan, net: Layer, loss: Loss | None) -> dict[str, Array]:
    """Arrays that layers keep as attributes, by the name they have in a plan, "path:attribute"."""
    names = [(name, *name.rpartition(":")) for name in plan.inputs if ":" in name]
    return {name: getattr(part_at(net, loss, path), attribute) for name, path, _, attribute in names}


class OneByOne:
    """A layer of one's own, run forward on the whole batch and then, to have its gradients apart, on each column.

    Both must give the same f, or the gradients of single examples would not be those of the batch.
    """

    traced = True  # its results are not those of a layer, and their parts are checked already

    def __init__(self, layer: Layer, who: str, names: list[str]) -> None:
        self.layer, self.who, self.names, self.label = layer.copy(), who, names, layer.label
        self.singles: list[Layer] = []

    def forward(self, h: Array) -> Array:
        """Return the layer's f of the whole batch; keeps a twin with the caches of each column."""
        reseed(self.layer, 0)
        f = boundary.forward(boundary.beside(self.layer), h)
        self.singles = [boundary.beside(self.layer) for _ in range(h.shape[1])]
        alone = [boundary.forward(single, h[:, n : n + 1]) for n, single in enumerate(self.singles)]
        tolerance, shape = np.sqrt(np.finfo(f.dtype).eps), f[:, :1].shape
        same = np.array([f_n.shape == shape for f_n in alone])
        if same.all():
            same = np.isclose(np.concatenate(alone, axis=1), f, tolerance, tolerance, equal_nan=True).all(axis=0)
        if not same.all():
            expected = "layers that treat each example on its own"
            got = f"{self.layer.label}, which gives example {np.argmin(same)} another output in the batch than alone"
            advice = (
                "If it draws at random or couples examples in training only, give it `frozen` and pass net.frozen()."
            )
            raise ValueError(checks.message(self.who, expected, got, advice))
        return f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh, and the gradients that are asked for of all columns, each (N, *shape)."""
        found = [boundary.backward(single, dL_df[:, n : n + 1]) for n, single in enumerate(self.singles)]
        gradients = {name: np.stack([own[name] for _, own in found]) for name in self.names}
        return np.concatenate([dL_dh for dL_dh, _ in found], axis=1), gradients
