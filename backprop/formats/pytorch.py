"""Networks to PyTorch and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from backprop import checks, layers
from backprop.architecture import TORCH_NAMES
from backprop.around.nesting import frozen
from backprop.checks import Array
from backprop.formats.folding import folded
from backprop.formats.lowering import SEVERAL
from backprop.formats.plan import Plan, extra, unknown
from backprop.formats.preparation import taken
from backprop.formats.verify import compare
from backprop.layers import Layer
from backprop.layers.normalization import FrozenBatchNorm
from backprop.sequential import Sequential

# Without settings, and of the same name in both libraries.
ALIKE = ("Identity", "ReLU", "SiLU", "GELU", "Softplus", "Sigmoid", "Tanh")
KNOWN = (
    "These are Sequential, Linear, BatchNorm1d (affine, with running statistics and momentum), LayerNorm (over one axis, with "
    "weight and bias), Dropout, Identity, ReLU, LeakyReLU, ELU, SiLU, GELU (not approximate), Softplus (beta 1), Sigmoid, Tanh."
)


def to_torch(net: Any, *, table: Any = None, X: Any = None) -> Any:
    """The network as a `torch.nn.Sequential` in its dtype, in evaluation mode; its `state_dict` has the keys of `save_weights`.

    Before it is returned it is compared with `net.predict`, on generated rows and those of `X`: `module.largest_difference` is
    what was found. `Dropout` and `BatchNorm` are there, so that `module.train()` goes on training; the weights are copies.
    `Residual`, `FanOut`, `Sin`, `Cos` and `Exp` become small modules of this library: save their `state_dict`, not themselves.

    With the `table` that makes the network's inputs, its scaling is worked into the first and the last Linear: the module takes
    numbers as they are, and 0 or 1 for each category, in the order of `table.feature_names`, and gives units of the target. A
    fitted estimator in the place of the network brings its own scaling and table. X are then such rows.

    Raises ImportError without the extra `torch`, ValueError for scaling that cannot be worked in, else the errors of `to_numpy`.
    """
    extra("to_torch", "torch")
    net, table = taken("to_torch", net, table)
    rounding = 0.0
    if table is not None:
        net, rounding = folded("to_torch", net, table)
    plan = Plan("to_torch", net, X, None)
    module = _module(net, "").eval()
    module.largest_difference = rounding + compare(plan, _run(module, net), "module", "torch").largest_difference
    return module


def from_torch(module: Any) -> Sequential:
    """A network from a module of PyTorch: Linear, activations, Dropout, BatchNorm1d, LayerNorm, in a Sequential or nested ones.

    Also what `to_torch` returns. The weights are copies, the dtype is theirs. The network's `predict` is compared with the
    module in evaluation mode, so that a hook or a parametrization is not left out in silence.

    Raises ImportError without the extra `torch`; TypeError for any other module, and for settings without a counterpart here,
    naming it; ValueError for parameters that are not finite, or not all float32 or all float64; RuntimeError if the outputs
    differ.
    """
    torch = extra("from_torch", "torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(checks.message("from_torch", "a torch.nn.Module", f"{module!r} ({type(module).__name__})"))
    dtype = _dtype(module)
    filled: list[tuple[Layer, Any]] = []
    parts = module._modules if type(module) is torch.nn.Sequential else {"": module}
    net = Sequential(*(_layer(part, name, filled) for name, part in parts.items()), dtype=dtype)
    for own, theirs in filled:
        for name, array in _arrays(own).items():
            array[...] = getattr(theirs, name).detach().cpu().numpy()
    if net.in_features is not None:
        advice = "The module computes something its layers do not show: look for hooks and parametrizations."
        compare(Plan("from_torch", net, None, None), _run(module, net), "module", "torch", advice)
    return net


def _run(module: Any, net: Sequential) -> Callable[[Array], Array]:
    """What runs the module on rows, in evaluation mode, and leaves its mode as it was."""
    import torch

    modes = {part: part.training for part in module.modules()}
    place = next((parameter.device for parameter in module.parameters()), "cpu")

    def run(X: Array) -> Array:
        try:
            with torch.no_grad():
                return module.eval()(torch.tensor(X.astype(net.phi.dtype), device=place)).cpu().numpy()
        finally:
            for part, training in modes.items():
                part.training = training

    return run


def _arrays(layer: Layer) -> dict[str, Array]:
    """Parameters and running statistics of one layer by PyTorch's names."""
    return {TORCH_NAMES.get(name, name): array for name, array in {**layer.parameters, **layer.buffers}.items()}


@cache
def _modules() -> dict[str, type[Any]]:
    """The modules PyTorch does not have, by name; made on first use, because their base class is PyTorch's."""
    import torch

    def entrywise(name: str, function: Callable[[Any], Any]) -> type[Any]:
        return type(name, (torch.nn.Module,), {"forward": lambda self, h: function(h)})

    class Residual(torch.nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, h: Any) -> Any:
            return h + self.layer(h)

    class FanOut(torch.nn.ModuleList):
        def __init__(self, *branches: Any, join: str) -> None:
            super().__init__(branches)
            self.join = join

        def forward(self, h: Any) -> Any:
            outputs = [branch(h) for branch in self]
            return torch.cat(outputs, dim=-1) if self.join == "concatenate" else sum(outputs)

    own = {name: entrywise(name, getattr(torch, name.lower())) for name in ("Sin", "Cos", "Exp")}
    return {**own, "Residual": Residual, "FanOut": FanOut}


@cache
def _pairs() -> list[tuple[Any, Any, dict[str, str]]]:
    """Each layer with its module, and with the module's names for the arguments they have in common."""
    from torch import nn

    own = _modules()
    of_batch = {"features": "num_features", "eps": "eps", "momentum": "momentum"}
    return [
        *((getattr(layers, name), getattr(nn, name), {}) for name in ALIKE),
        *((getattr(layers, name), own[name], {}) for name in ("Sin", "Cos", "Exp", "Residual")),
        (layers.FanOut, own["FanOut"], {"join": "join"}),
        (Sequential, nn.Sequential, {}),
        (layers.LeakyReLU, nn.LeakyReLU, {"negative_slope": "negative_slope"}),
        (layers.ELU, nn.ELU, {"alpha": "alpha"}),
        (layers.Dropout, nn.Dropout, {"rate": "p"}),
        (layers.Linear, nn.Linear, {name: name for name in ("in_features", "out_features", "bias")}),
        (layers.LayerNorm, nn.LayerNorm, {"features": "normalized_shape", "eps": "eps"}),
        (layers.BatchNorm, nn.BatchNorm1d, of_batch),
        (FrozenBatchNorm, nn.BatchNorm1d, of_batch),
    ]


def _module(layer: Layer, key: str) -> Any:
    """The module of one layer, with its weights."""
    import torch

    kind = type(layer)
    pair = next((pair for pair in _pairs() if pair[0] is kind), None)
    if pair is None and type(still := frozen(layer)) is not kind:  # a layer of one's own that says what it computes
        return _module(still, key)
    if pair is None and kind in SEVERAL:
        advice = "to_onnx, to_numpy and to_c know it."
        raise TypeError(checks.message("to_torch", "layers that PyTorch has, too", f"{layer.label} at {key}", advice))
    if pair is None:
        raise unknown("to_torch", layer, key)
    _, make, names = pair
    children = [_module(child, f"{key}.{name}".lstrip(".")) for name, child in layer.children.items()]
    # What a normalization takes as `features` it keeps as `in_features`.
    settings = {theirs: getattr(layer, own, layer.in_features) for own, theirs in names.items()}
    if kind is layers.Linear:  # random weights nobody needs would move the caller's generator on
        make = partial(torch.nn.utils.skip_init, make)
    if kind is layers.Softplus:
        settings["threshold"] = 40  # beyond it h itself, right to the last bit of float64
    module = make(*children, **settings)
    if not children and (arrays := _arrays(layer)):
        module.to(getattr(torch, next(iter(arrays.values())).dtype.name))
        module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return module


def _layer(module: Any, key: str, filled: list[tuple[Layer, Any]]) -> Layer:
    """The layer of one module; (layer, module) joins `filled`, for the weights to be copied."""
    kind = type(module)
    pair = next((pair for pair in _pairs() if pair[1] is kind), None)
    if pair is None or not _suits(module):
        got = f"{kind.__name__ if module._modules else repr(module)} at {key!r}"
        raise TypeError(checks.message("from_torch", "modules the library has layers for", got, KNOWN))
    make, _, names = pair
    parts = module._modules if issubclass(make, layers.Composite) else {}
    children = [_layer(child, f"{key}.{name}".lstrip("."), filled) for name, child in parts.items()]
    layer = make(*children, **{own: _setting(module, theirs) for own, theirs in names.items()})
    if not children:
        filled.append((layer, module))
    return layer


def _suits(module: Any) -> bool:
    """Whether those settings of a module that its layer does not have are what the layer does."""
    from torch import nn

    tests: dict[type[Any], Callable[[Any], bool]] = {
        nn.GELU: lambda m: m.approximate == "none",
        nn.Softplus: lambda m: m.beta == 1 and m.threshold >= 20,
        nn.LayerNorm: lambda m: len(m.normalized_shape) == 1 and m.weight is not None and m.bias is not None,
        nn.BatchNorm1d: lambda m: m.affine and m.running_mean is not None and m.momentum is not None,
    }
    return type(module) not in tests or tests[type(module)](module)


def _setting(module: Any, name: str) -> Any:
    """An argument of a module, as its layer takes it."""
    value = getattr(module, name)
    if name == "bias":
        return value is not None
    return value[0] if name == "normalized_shape" else value


def _dtype(module: Any) -> str:
    """float32 or float64, that of all parameters; float32 if there are none."""
    found = {str(parameter.dtype).removeprefix("torch.") for parameter in module.parameters()}
    if len(found) > 1 or not found <= {"float32", "float64"}:
        advice = "Convert it first: module.float()."
        expected = "parameters all float32 or all float64"
        raise ValueError(checks.message("from_torch", expected, ", ".join(sorted(found)), advice))
    return found.pop() if found else "float32"
