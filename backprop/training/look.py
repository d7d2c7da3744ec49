"""A look at a network from beside its training: one pass over a sample of the examples, on a twin.

The twin shares φ and nothing else that a pass writes to: caches, running statistics and generators are its own. So training has
the same bits whether somebody looks or not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from backprop.around import boundary
from backprop.checks import Array
from backprop.engine.threads import blas_threads
from backprop.functions import norm
from backprop.layers import Layer, ReLU
from backprop.losses import Loss
from backprop.losses.base import share, slope, total
from backprop.sequential import Sequential
from backprop.training.data import Examples
from backprop.training.metrics import CLASSIFICATION

MOST = 256  # examples in the sample …
LEAST = 16
SHARE = 100  # … at most one in so many, so that a pass costs this part of an epoch, but at least LEAST …
FREE = 2_000_000  # … or as many as make this many products: a fraction of a millisecond


@dataclass
class Passed:
    """What a layer without children did in one pass."""

    name: str  # its keys, as in the names of parameters
    label: str
    kind: type[Layer]
    size: float = 0.0  # root mean square of f
    units: int = 0
    dead: int = 0  # units that are ≤ 0 for each example
    slope: float = 0.0  # length of ∂L/∂f

    def __str__(self) -> str:
        return f"layer {self.name}, {self.label}"


@dataclass
class Look:
    """The outputs f (K, N), the loss, that of outputs 0, and what each layer did, in the order of the pass."""

    f: Array = field(default_factory=lambda: np.empty((0, 0)))
    loss: float = math.nan
    of_zeros: float = math.nan
    gradient: float = math.nan  # length of ∂L/∂φ
    layers: list[Passed] = field(default_factory=list)

    @property
    def baseline(self) -> float:
        """What a network that knows nothing may lose."""
        return float(np.maximum(self.loss, self.of_zeros))


def sample(examples: Examples, net: Sequential) -> tuple[Array, Array, Array | None]:
    """X (m, D), y and the weights of some examples, copied, X in the network's type; none of weight 0.

    They are spread as `Examples.some` says.
    """
    X, y, w = examples.some(min(MOST, max(LEAST, examples.n // SHARE, FREE // (net.size + 1))))
    there = slice(None) if w is None else w > 0
    return np.array(X[there], examples.dtype), y[there], None if w is None else w[there]


def may_look(net: Sequential, loss: Loss) -> bool:
    """Whether all that a pass would run is the library's. A layer of one's own may count its passes, print or draw numbers, and
    is left alone; but the last one is looked at where it may be a softmax.
    """
    *layers, last = (layer for _, layer in inside(net))
    probabilities = isinstance(loss, CLASSIFICATION) and not last.parameters
    return all(map(known, [loss, *layers])) and (known(last) or probabilities)


def known(part: object) -> bool:
    """Whether the class of a layer or loss is one of the library's."""
    return type(part).__module__.partition(".")[0] == "backprop"


def look(net: Sequential, loss: Loss, h: Array, y: Array, w: Array | None, *, backward: bool) -> Look:
    """A training pass over columns h (D, N) and their targets, with the mean of the loss; what is not known stays NaN.

    What cannot be run on such a batch is no reason to stop training: what it raises is dropped.
    """
    found, twin, own = Look(), boundary.beside(net), copy.copy(loss)
    own.reduction = "mean"
    for name, layer in inside(twin):
        if not layer.children:
            watch(layer, Passed(name, layer.label, type(layer)), found.layers)
    with np.errstate(all="ignore"), blas_threads(1), suppress(Exception):
        found.f = boundary.forward(twin, h)
        shares = share(own, found.f, w)
        found.of_zeros = float(total(own, np.zeros_like(found.f), y, shares))
        found.loss = float(total(own, found.f, y, shares))
        if backward and math.isfinite(found.loss):
            _, gradients = boundary.backward(twin, slope(own))
            found.gradient = math.sqrt(sum(norm(gradient.ravel()) ** 2 for gradient in gradients.values()))
    return found


def inside(layer: Layer, name: str = "") -> Iterator[tuple[str, Layer]]:
    """A layer and all that are inside it, with their names."""
    yield name, layer
    for key, child in layer.children.items():
        yield from inside(child, f"{name}.{key}" if name else key)


def watch(layer: Layer, note: Passed, passed: list[Passed]) -> None:
    """Let the two passes of this layer, inside a network, write down what they return and get."""
    kind = type(layer)

    def forward(h: Array) -> Array:
        f: Array = kind.forward.plain(layer, h)  # type: ignore[attr-defined]
        note.size, note.units = norm(f.ravel()) / math.sqrt(f.size), len(f)
        if issubclass(kind, ReLU):
            note.dead = int(np.count_nonzero((f <= 0).all(axis=1)))
        passed.append(note)
        return f

    def backward(dL_df: Array) -> tuple[Array, dict[str, Array]]:
        note.slope = norm(dL_df.ravel())
        return kind.backward.plain(layer, dL_df)  # type: ignore[attr-defined]

    vars(layer).update(forward=forward, backward=backward)
