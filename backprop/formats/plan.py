"""A network as a list of plain steps: what `predict` computes, without classes and nesting. Every exporter starts here."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from backprop import checks, layers
from backprop.checks import Array
from backprop.formats.lowering import PIECES, SEVERAL
from backprop.formats.preparation import Preparation, taken
from backprop.layers import Layer
from backprop.layers.normalization import FrozenBatchNorm
from backprop.sequential import Sequential

# Layers that are one step, and the setting that is the step's number, if there is one.
WITHOUT = ("Linear", "ReLU", "SiLU", "GELU", "Softplus", "Sigmoid", "Tanh", "Sin", "Cos", "Exp")
NUMBERS: dict[type[Layer], str | None] = {
    **{getattr(layers, name): None for name in WITHOUT},
    **{layers.LeakyReLU: "negative_slope", layers.ELU: "alpha", layers.LayerNorm: "eps", FrozenBatchNorm: None},
}


@dataclass(frozen=True)
class Step:
    """One value made from earlier ones. Value 0 is the input, value k + 1 that of step k; the last one is the output.

    Linear          β + Ω h                       arrays omega (D_out, D_in), and beta (D_out,) unless without bias
    BatchNorm       β + scale ⊙ (h − mean)        arrays mean, scale = γ / √(variance + eps), beta, each (D,)
    LayerNorm       β + γ ⊙ z                     arrays gamma, beta (D,); number: eps
    Add             sum of the inputs
    Concatenate     the inputs one below the other
    Identity        h
    Select          h[rows]
    Cut             h cut to [0, 1]
    Codes           1 at the code of h, one row, among as many as its width; of what is no code, at 0
    MembersLinear   β + s ⊙ Ω (r ⊙ h) of members  arrays r (D_in, k), omega (D_out, D_in), s, beta (D_out, k)
    MeanOfSoftmax   log mean of the softmax of `number` members, MeanOfSigmoid the logarithm of the odds of their mean σ
    an activation   by the name of its class; number: negative_slope of LeakyReLU, alpha of ELU. LeakyReLU(0) is a ReLU
    """

    kind: str
    inputs: tuple[int, ...]
    width: int
    key: str  # the layer's place, as in the names of parameters: "2", "1.layer.0"
    text: str  # what a reader calls it: the layer's repr
    arrays: dict[str, Array] = field(default_factory=dict)
    number: float = 0.0
    rows: tuple[int, ...] = ()


class Plan:
    """The steps of a network, its arrays converted to `dtype`, and the `preparation` of its table if there is one.

    `net` may also be a fitted estimator, which has both; X is a frame where there is a table. A layer outside the library counts
    as what its `frozen()` returns. Raises TypeError for what is no network and for a layer no exporter knows; ValueError for a
    network of unknown width without `X`, for an X or a table that does not fit, and for numbers that are not finite in `dtype`.

    >>> import backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 3), bp.Residual(bp.Tanh()), bp.Dropout())
    >>> [(step.kind, step.inputs, step.width) for step in Plan("export", net, None, "float32").steps]
    [('Linear', (0,), 3), ('Tanh', (1,), 3), ('Add', (1, 2), 3)]
    """

    def __init__(self, who: str, net: Any, X: Any, dtype: str | None, table: Any = None) -> None:
        net, table = taken(who, net, table)
        checks.instance(who, "net", net, Sequential)
        self.who, self.net = who, net
        self.dtype = np.dtype(dtype or net.phi.dtype)
        self.preparation = None if table is None else Preparation(who, table, net)
        self.inputs_given: list[Array] = []  # rows of the caller's, to compare on
        if self.preparation is not None and X is not None:
            self.inputs_given, X = self.preparation.given(X), self.preparation.table.transform(X)
        self.X = X = X if X is None else checks.rows(who, X, net.in_features)
        if net.in_features is None and X is None:
            advice = "Pass X, some rows of the data; or begin with a layer that knows, such as Linear."
            raise ValueError(checks.message(who, "a network that knows its number of inputs", "one of any", advice))
        self.inputs = net.in_features or int(X.shape[1])
        self.widths, self.steps = [self.inputs], list[Step]()
        if self._lower(net.frozen(), 0, "") == 0:
            self.add("Identity", (0,), self.inputs, "", "Identity()")
        self.outputs = self.widths[-1]

    def add(
        self, kind: str, inputs: tuple[int, ...], width: int, key: str, text: str, arrays: Any = None, **rest: Any
    ) -> int:
        """Append a step; return the index of its value."""
        with np.errstate(over="ignore"):
            known = {name: np.ascontiguousarray(array, self.dtype) for name, array in (arrays or {}).items()}
        for name, array in known.items():
            if not checks.all_finite(array):
                where = np.argwhere(~np.isfinite(array))[0].tolist()
                expected = f"finite numbers in {key}.{name}, as {self.dtype}"
                raise ValueError(checks.message(self.who, expected, f"{array[tuple(where)]} at {where}"))
        self.steps.append(Step(kind, inputs, width, key, text, known, **rest))
        self.widths.append(width)
        return len(self.steps)

    def knots(self) -> dict[int, Array]:
        """By input the edges of the pieces that it is cut into, and the middles between them: where a network may be steep."""
        comes_from, found = {0: tuple(range(self.inputs))}, dict[int, list[Array]]()
        for k, step in enumerate(self.steps, start=1):
            own = comes_from.get(step.inputs[0])
            if own is None:
                continue
            if step.kind == "Select":
                comes_from[k] = tuple(own[row] for row in step.rows)
            elif step.text == PIECES:
                low, width = step.arrays["mean"].astype(float), 1 / step.arrays["scale"].astype(float)
                for j in {*own}:
                    cut = np.array(own) == j
                    found.setdefault(j, []).extend(low[cut] + share * width[cut] for share in (0, 0.5, 1))
        return {j: np.unique(np.concatenate(several)) for j, several in found.items()}

    def _lower(self, layer: Layer, h: int, key: str) -> int:
        """Append the steps of a layer that takes value h; return the index of its own value."""
        kind = type(layer)
        if kind is layers.Identity:
            return h
        if kind is Sequential:
            for name, child in layer.children.items():
                h = self._lower(child, h, f"{key}.{name}".lstrip("."))
            return h
        if kind is layers.Residual or kind is layers.FanOut:
            values = [self._lower(child, h, f"{key}.{name}") for name, child in layer.children.items()]
            return self._join(layer, [h, *values] if kind is layers.Residual else values, key)
        if kind in SEVERAL:
            return SEVERAL[kind](self, layer, h, key)
        if kind not in NUMBERS:
            raise unknown(self.who, layer, key)
        setting = NUMBERS[kind]
        number = float(getattr(layer, setting)) if setting else 0.0
        name = "ReLU" if kind is layers.LeakyReLU and number == 0 else kind.__name__  # 0 · −∞ is no number
        width, text = layer.out_features or self.widths[h], layer.label.removeprefix("Frozen")
        return self.add(name.removeprefix("Frozen"), (h,), width, key, text, _arrays(layer), number=number)

    def _join(self, layer: Layer, values: list[int], key: str) -> int:
        if len(values) == 1:
            return values[0]
        if isinstance(layer, layers.FanOut) and layer.join == "concatenate":
            return self.add("Concatenate", tuple(values), sum(self.widths[v] for v in values), key, "Concatenate")
        return self.add("Add", tuple(values), self.widths[values[-1]], key, "Add")


def _arrays(layer: Layer) -> dict[str, Array]:
    """The arrays of a layer that is one step."""
    if not isinstance(layer, FrozenBatchNorm):
        return dict(layer.parameters)
    own, mean, variance = layer.parameters, layer.buffers["running_mean"], layer.buffers["running_variance"]
    # Not folded into β: where the mean is large beside σ, scale·h − scale·mean would lose the digits.
    return {"mean": mean, "scale": own["gamma"] / np.sqrt(variance + layer.eps), "beta": own["beta"]}


def unknown(who: str, layer: Layer, key: str) -> TypeError:
    """The error of a layer that has no counterpart elsewhere."""
    advice = "Put layers in its place that compute the same; for a layer of your own, `frozen()` may return them."
    expected = "layers of the library other than Elementwise"
    return TypeError(checks.message(who, expected, f"{layer.label} at {key}", advice))


def extra(who: str, name: str) -> Any:
    """The package of that name, which the extra of that name installs. Raises ImportError where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'{who} needs {name}: pip install "backprop-mlp[{name}]"') from error
