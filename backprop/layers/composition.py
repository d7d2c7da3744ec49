"""Layers around layers: a residual connection, and a fan-out to several branches."""

from __future__ import annotations

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers.base import Composite, Gradients, Layer


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

    replays = True
    keeps_width = True
    reuses_output = False
    equations = ("f = h + g[h]", "∂L/∂h = ∂L/∂f + (∂g/∂h)ᵀ ∂L/∂f")

    def __init__(self, layer: Layer) -> None:
        self.layers = {"layer": checks.layer("Residual", layer, Layer)}
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.chain(self.in_features)
        self._shape: tuple[int, ...] | None = None

    def chain(self, width: int | None) -> int | None:
        """The width of h, which g must keep."""
        out = self.layers["layer"].chain(width)
        if width is not None and out is not None and out != width:
            raise ValueError(
                checks.message(self.label, f"a layer that returns {width} features", f"{out}", "h + g[h] needs it.")
            )
        return width if width is not None else out

    def forward(self, h: Array) -> Array:
        """Return h + g[h]."""
        h = checks.columns(self, "forward", h)
        f = self._add(h, self.layers["layer"].forward(h))
        self._shape = f.shape
        return f

    def infer(self, h: Array) -> Array:
        """Return h + g[h], without a cache."""
        h = checks.columns(self, "infer", h)
        return self._add(h, self.layers["layer"].infer(h))

    def _add(self, h: Array, g: Array) -> Array:
        if np.shape(h) != g.shape:
            raise ValueError(checks.message(f"{self.label}", f"g[h] with shape {np.shape(h)}", f"shape {g.shape}"))
        return np.add(h, g, out=self.empty("f", g.shape, np.result_type(h, g)))

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_df + the layer's dL_dh, and the layer's gradients."""
        dL_df = checks.gradient(self, dL_df, self._shape)
        through, gradients = self.backward_child("layer", dL_df)
        out = self.empty("dL_dh", through.shape, np.result_type(through, dL_df))
        return np.add(dL_df, through, out=out), gradients

    def __repr__(self) -> str:
        return f"Residual({self.layers['layer'].label})"


class FanOut(Composite):
    """Runs several branches on the same h and joins what they return.

        f      = [f_1; f_2; …] (join="concatenate")    or    f_1 + f_2 + … (join="sum")
        ∂L/∂h  = Σ_branches (∂f_b/∂h)ᵀ ∂L/∂f_b

    h reaches the loss along every branch, so its gradient is the sum over branches.

    >>> import numpy as np, backprop as bp
    >>> bp.FanOut(bp.Identity(), bp.Exp()).forward(np.array([0.0]))
    array([0., 1.])
    """

    replays = True
    equations = ("f = join of f_b[h] over branches b", "∂L/∂h = Σ_b (∂f_b/∂h)ᵀ ∂L/∂f_b")

    def __init__(self, *branches: Layer, join: str = "concatenate") -> None:
        if not branches:
            raise ValueError(checks.message("FanOut", "at least one branch", "none"))
        self.layers = {str(i): checks.layer("FanOut", branch, Layer) for i, branch in enumerate(branches)}
        self.join = checks.choice("FanOut", "join", join, ["concatenate", "sum"])
        self.in_features = next((b.in_features for b in branches if b.in_features is not None), None)
        self.out_features = self.chain(self.in_features)
        self._rows: list[int] = []
        self._shape: tuple[int, ...] | None = None

    @property
    def keeps_width(self) -> bool:  # type: ignore[override]
        """Whether the branches do, and are summed."""
        return self.join == "sum" and all(branch.keeps_width for branch in self.layers.values())

    def chain(self, width: int | None) -> int | None:
        """Width of the joined output."""
        widths = [branch.chain(width) for branch in self.layers.values()]
        known = [w for w in widths if w is not None]
        if self.join == "concatenate":
            return sum(known) if len(known) == len(widths) else None
        if len(set(known)) > 1:
            raise ValueError(checks.message(self.label, "branches of equal width to sum", str(widths)))
        return known[0] if known else None

    def forward(self, h: Array) -> Array:
        """Return the joined outputs of all branches."""
        h = checks.columns(self, "forward", h)
        outputs = [branch.forward(h) for branch in self.layers.values()]
        f = self._joined(outputs)
        self._rows, self._shape = [len(output) for output in outputs], f.shape
        return f

    def infer(self, h: Array) -> Array:
        """Return the joined outputs, without a cache."""
        h = checks.columns(self, "infer", h)
        return self._joined([branch.infer(h) for branch in self.layers.values()])

    def _joined(self, outputs: list[Array]) -> Array:
        if self.join == "concatenate":
            return np.concatenate(outputs)
        total = outputs[0]
        for output in outputs[1:]:
            if output.shape != total.shape:
                raise ValueError(checks.message(f"{self.label}", f"branches of shape {total.shape}", f"{output.shape}"))
            total = total + output
        return total

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return the sum of the branches' dL_dh, and all gradients."""
        dL_df = checks.gradient(self, dL_df, self._shape)
        dL_dh: Array | None = None
        gradients: Gradients = {}
        start = 0
        for key, own in zip(self.layers, self._rows, strict=True):
            through, of_branch = self.backward_child(key, dL_df[start : start + own])
            start += own if self.join == "concatenate" else 0
            dL_dh = through if dL_dh is None else dL_dh + through
            gradients |= of_branch
        return dL_dh, gradients  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"FanOut({', '.join(branch.label for branch in self.layers.values())}, join={self.join!r})"
