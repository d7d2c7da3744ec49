"""What a layer is. All keep this contract (h and f hold one example per column):

    f = layer.forward(h)                       training pass; keeps what backward needs
    dL_dh, gradients = layer.backward(dL_df)   gradients: a dict like layer.parameters, {} if there are none
    f = layer.infer(h)                         inference; keeps nothing
    layer.parameters                           name -> array, beta before omega

A layer's own code is the equations, on columns (D, N); what each call needs is in `around.boundary`, its arrays in `around.held`.
Gradients are return values: nothing is stored on the layer, so `backward` twice gives the same answer twice.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np

from backprop import notation
from backprop.around import boundary
from backprop.around.held import Holder, release
from backprop.checks import Array

Gradients = dict[str, Array]


class Layer(Holder):
    """A differentiable function of h with parameters. Subclass it with `forward` and `backward`, on columns (D, N).

    Parameters go into `self.parameters`; `self.omega` is then `self.parameters["omega"]`, and likewise for `self.buffers`, state
    that is not trained. A network moves the parameters into its φ; from then on, assigning one copies into φ.

    >>> import numpy as np, backprop as bp
    >>> class Scale(bp.Layer):
    ...     def __init__(self, features):
    ...         self.parameters["omega"] = np.ones((features, 1))
    ...     def forward(self, h):
    ...         self.h = h
    ...         return self.omega * h
    ...     def backward(self, dL_df):
    ...         dL_domega = (dL_df * self.h).sum(axis=1, keepdims=True)
    ...         return self.omega * dL_df, {"omega": dL_domega}
    >>> net = bp.Sequential(bp.Linear(2, 3), Scale(3), bp.ReLU())
    >>> list(net.parameters)
    ['0.beta', '0.omega', '1.omega']
    """

    in_features: int | None = None
    out_features: int | None = None
    keeps_width: ClassVar[bool] = False  # f has as many rows as h, whatever that number is
    couples_examples: ClassVar[bool] = False  # f of one column depends on the other columns
    equations: ClassVar[tuple[str, ...]] = ("f = layer[h]",)  # of the docstring's table; shown by `explain`

    def __init__(self) -> None:
        """Take no arguments; a layer that takes some says so."""

    @abstractmethod
    def forward(self, h: Array) -> Array:
        """Return f (D_out,) or (D_out, N) of h (D_in,) or (D_in, N); keeps what `backward` needs."""

    @abstractmethod
    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """(dL_dh, gradients) of the last `forward`, from dL_df in the shape of f."""

    @boundary.around_infer
    def infer(self, h: Array) -> Array:
        """Like `forward`, but keeps nothing and moves nothing: a pending backward is not disturbed."""
        return boundary.forward(boundary.beside(self), h)

    @property
    def children(self) -> dict[str, Layer]:
        """The layers inside this one; {} for most."""
        return {}

    @property
    def size(self) -> int:
        """Number of parameters.

        >>> import backprop as bp
        >>> bp.Linear(784, 128).size
        100480
        """
        return sum(array.size for array in self.parameters.values())

    @property
    def label(self) -> str:
        """Name of this layer in errors, on one line."""
        return repr(self)

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw the parameters anew, in place."""
        for child in self.children.values():
            child.initialize(generator)

    def copy(self) -> Self:
        """An independent layer or network with the same values.

        >>> import backprop as bp
        >>> a = bp.Linear(2, 2)
        >>> b = a.copy()
        >>> b.parameters["beta"] += 1
        >>> float(a.parameters["beta"][0])
        0.0
        """
        twin = copy.deepcopy(self)
        release(twin)
        return twin

    def __repr__(self) -> str:
        if self.in_features is None or self.out_features is None:
            return notation.call(self)
        return f"{type(self).__name__}({self.in_features} → {self.out_features})"
