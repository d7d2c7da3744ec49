"""Layers made of layers: what they have in common, around one, and side by side. (One after another is `Sequential`.)"""

from __future__ import annotations

from typing import Self

import numpy as np

from backprop import checks
from backprop.around.boundary import backward, forward, infer
from backprop.around.held import Arrays
from backprop.around.nesting import chain, frozen
from backprop.checks import Array
from backprop.functions import named
from backprop.layers.base import Gradients, Layer


class Composite(Layer):
    """A layer made of layers. Subclasses fill `self.layers`, a dict of key -> layer in the order of φ.

    In one of one's own: `self.layers[key].forward(h)`, and `self.backward_child(key, dL_df)`, which names the gradients.
    """

    layers: dict[str, Layer]

    @property
    def children(self) -> dict[str, Layer]:
        """The layers inside this one, by key."""
        return self.layers

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]
        """Parameters of all children, named "key.name"."""
        return Arrays(named({key: child.parameters for key, child in self.layers.items()}), placed=True)

    @property
    def buffers(self) -> dict[str, Array]:  # type: ignore[override]
        """Buffers of all children, named "key.name"."""
        return Arrays(named({key: child.buffers for key, child in self.layers.items()}), placed=True)

    @property
    def couples_examples(self) -> bool:  # type: ignore[override]
        """Whether a layer inside couples the examples of a batch."""
        return any(child.couples_examples for child in self.layers.values())

    def backward_child(self, key: str, dL_df: Array) -> tuple[Array, Gradients]:
        """∂L/∂h of one child, and its gradients, named "key.name"."""
        dL_dh, gradients = backward(self.layers[key], dL_df)
        return dL_dh, named({key: gradients})

    def frozen(self) -> Self:
        """A copy with frozen children."""
        twin = self.copy()
        vars(twin)["layers"] = type(self.layers)({key: frozen(child) for key, child in self.layers.items()})
        return twin


class Residual(Composite):
    """Adds a layer's output to its input.

        f      = h + g[h]
        ∂L/∂h  = ∂L/∂f + (∂g/∂h)ᵀ ∂L/∂f

    Raises ValueError if g changes the width.
    Source: He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition".

    >>> import numpy as np, backprop as bp
    >>> bp.Residual(bp.Identity()).forward(np.array([1.0, 2.0]))
    array([2., 4.])
    """

    keeps_width = True

    def __init__(self, layer: Layer) -> None:
        self.layers = {"layer": checks.layer("Residual", layer, Layer)}
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.chain(self.in_features)

    def chain(self, width: int | None) -> int | None:
        """The width of h, which g must keep."""
        out = chain(self.layers["layer"], width)
        if width is not None and out is not None and out != width:
            expected, advice = f"a layer that returns {width} features", "h + g[h] needs it."
            raise ValueError(checks.message(self.label, expected, f"{out}", advice))
        return width if width is not None else out

    def forward(self, h: Array) -> Array:
        return self.add(h, forward(self.layers["layer"], h))

    def infer(self, h: Array) -> Array:
        return self.add(h, infer(self.layers["layer"], h))

    def add(self, h: Array, g: Array) -> Array:
        """H + g[h]; nothing is broadcast."""
        if h.shape != g.shape:
            raise ValueError(checks.message(self.label, f"g[h] with shape {h.shape}", f"shape {g.shape}"))
        return h + g

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        through, gradients = self.backward_child("layer", dL_df)
        return dL_df + through, gradients

    def __repr__(self) -> str:
        return f"Residual({self.layers['layer'].label})"


class FanOut(Composite):
    """Runs several branches on the same h and joins what they return.

        f      = join of f_b[h] over branches b       [f_1; f_2; …] for "concatenate", f_1 + f_2 + … for "sum"
        ∂L/∂h  = Σ_b (∂f_b/∂h)ᵀ ∂L/∂f_b

    h reaches the loss along every branch, so its gradient is the sum over branches.

    >>> import numpy as np, backprop as bp
    >>> bp.FanOut(bp.Identity(), bp.Exp()).forward(np.array([0.0]))
    array([0., 1.])
    """

    def __init__(self, *branches: Layer, join: str = "concatenate") -> None:
        if not branches:
            raise ValueError(checks.message("FanOut", "at least one branch", "none"))
        self.layers = {str(i): checks.layer("FanOut", branch, Layer) for i, branch in enumerate(branches)}
        self.join = checks.choice("FanOut", "join", join, ["concatenate", "sum"])
        self.in_features = next((b.in_features for b in branches if b.in_features is not None), None)
        self.out_features = self.chain(self.in_features)

    @property
    def keeps_width(self) -> bool:  # type: ignore[override]
        """Whether the branches do, and are summed."""
        return self.join == "sum" and all(branch.keeps_width for branch in self.layers.values())

    def chain(self, width: int | None) -> int | None:
        """Width of the joined output."""
        widths = [chain(branch, width) for branch in self.layers.values()]
        known = [w for w in widths if w is not None]
        if self.join == "concatenate":
            return sum(known) if len(known) == len(widths) else None
        if len(set(known)) > 1:
            raise ValueError(checks.message(self.label, "branches of equal width to sum", str(widths)))
        return known[0] if known else None

    def forward(self, h: Array) -> Array:
        outputs = [forward(branch, h) for branch in self.layers.values()]
        self.rows = tuple(len(output) for output in outputs)
        return self.joined(outputs)

    def infer(self, h: Array) -> Array:
        return self.joined([infer(branch, h) for branch in self.layers.values()])

    def joined(self, outputs: list[Array]) -> Array:
        """[f_1; f_2; …] or their sum; nothing is broadcast."""
        if self.join == "concatenate":
            return np.concatenate(outputs)
        total = outputs[0]
        for output in outputs[1:]:
            if output.shape != total.shape:
                raise ValueError(checks.message(self.label, f"branches of shape {total.shape}", f"{output.shape}"))
            total = total + output
        return total

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        total, gradients, start = None, Gradients(), 0
        for key, rows in zip(self.layers, self.rows, strict=True):
            part = dL_df[start : start + rows] if self.join == "concatenate" else dL_df
            start += rows
            through, own = self.backward_child(key, part)
            total = through if total is None else total + through
            gradients |= own
        return total, gradients  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"FanOut({', '.join(branch.label for branch in self.layers.values())}, join={self.join!r})"
