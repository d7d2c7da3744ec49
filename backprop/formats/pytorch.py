"""Networks to PyTorch and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

from backprop import checks
from backprop.architecture import TORCH_NAMES
from backprop.checks import Array
from backprop.formats.plan import Plan, unknown
from backprop.formats.verify import compare
from backprop.layers import (
    ELU,
    GELU,
    BatchNorm,
    Cos,
    Dropout,
    Exp,
    FanOut,
    Identity,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Sin,
    Softplus,
    Tanh,
)
from backprop.layers.nesting import frozen
from backprop.layers.normalization import FrozenBatchNorm
from backprop.sequential import Sequential


def to_torch(net: Sequential, *, X: Any = None) -> Any:
    """The network as a `torch.nn.Sequential` in its dtype, in evaluation mode; its `state_dict` has the keys of `save_weights`.

    Before it is returned it is compared with `net.predict`, on generated rows and those of `X`: `module.largest_difference` is
    what was found. `Dropout` and `BatchNorm` are there, so that `module.train()` goes on training; the weights are copies.
    `Residual`, `FanOut`, `Sin`, `Cos` and `Exp` become small modules of this library: save their `state_dict`, not themselves.

    Raises ImportError without the extra `torch`, else the errors of `to_numpy`.
    """
    _torch("to_torch")
    plan = Plan("to_torch", net, X, None)
    module = _module(net, "").eval()
    module.largest_difference = compare(plan, _run(module, net), "module", "torch").largest_difference
    return module


def from_torch(module: Any) -> Sequential:
    """A network from a module of PyTorch: Linear, activations, Dropout, BatchNorm1d, LayerNorm, in a Sequential or nested ones.

    Also what `to_torch` returns. The weights are copies, the dtype is theirs. The network's `predict` is compared with the
    module in evaluation mode, so that a hook or a parametrization is not left out in silence.

    Raises ImportError without the extra `torch`; TypeError for any other module, and for settings without a counterpart here,
    naming it; ValueError for parameters that are not finite, or not all float32 or all float64; RuntimeError if the outputs
    differ.
    """
    torch = _torch("from_torch")
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


def _torch(who: str = "torch") -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f'{who} needs torch: pip install "backprop-mlp[torch]"') from error
    return torch


def _run(module: Any, net: Sequential) -> Callable[[Array], Array]:
    """What runs the module on rows, in evaluation mode, and leaves its mode as it was."""
    torch = _torch()
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
def _modules() -> SimpleNamespace:
    """The modules PyTorch does not have; made on first use, because their base class is PyTorch's."""
    import torch

    class Sin(torch.nn.Module):
        def forward(self, h: Any) -> Any:
            return torch.sin(h)

    class Cos(torch.nn.Module):
        def forward(self, h: Any) -> Any:
            return torch.cos(h)

    class Exp(torch.nn.Module):
        def forward(self, h: Any) -> Any:
            return torch.exp(h)

    class Residual(torch.nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, h: Any) -> Any:
            return h + self.layer(h)

    class FanOut(torch.nn.ModuleList):
        def __init__(self, branches: list[Any], join: str) -> None:
            super().__init__(branches)
            self.join = join

        def forward(self, h: Any) -> Any:
            outputs = [branch(h) for branch in self]
            return torch.cat(outputs, dim=-1) if self.join == "concatenate" else sum(outputs)

    return SimpleNamespace(Sin=Sin, Cos=Cos, Exp=Exp, Residual=Residual, FanOut=FanOut)


@cache
def _pairs() -> dict[type[Layer], type[Any]]:
    """Layers without settings that have the same counterpart in both directions."""
    nn, own = _torch().nn, _modules()
    return {
        **{Identity: nn.Identity, ReLU: nn.ReLU, SiLU: nn.SiLU, Sigmoid: nn.Sigmoid, Tanh: nn.Tanh},
        **{Sin: own.Sin, Cos: own.Cos, Exp: own.Exp},
    }


def _module(layer: Layer, key: str) -> Any:
    """The module of one layer, with its weights."""
    nn, kind = _torch().nn, type(layer)
    if kind is Sequential or kind is FanOut or kind is Residual:
        children = [_module(child, f"{key}.{name}".lstrip(".")) for name, child in layer.children.items()]
        if isinstance(layer, FanOut):
            return _modules().FanOut(children, layer.join)
        return (nn.Sequential if kind is Sequential else _modules().Residual)(*children)
    module = _leaf(layer)
    if module is None and type(still := frozen(layer)) is not kind:  # a layer of one's own that says what it computes
        return _module(still, key)
    if module is None:
        raise unknown("to_torch", layer, key)
    if arrays := _arrays(layer):
        from_numpy = _torch().from_numpy
        module.to(from_numpy(next(iter(arrays.values()))[:0].copy()).dtype)
        module.load_state_dict({name: from_numpy(array.copy()) for name, array in arrays.items()})
    return module


def _leaf(layer: Layer) -> Any:
    """A module that computes what this kind of layer does, its weights to come; None if there is none."""
    nn = _torch().nn
    makers: dict[type[Layer], Callable[[Any], Any]] = {
        LeakyReLU: lambda a: nn.LeakyReLU(a.negative_slope),
        ELU: lambda a: nn.ELU(a.alpha),
        GELU: lambda a: nn.GELU(),
        Softplus: lambda a: nn.Softplus(threshold=40),  # beyond it h itself, right to the last bit of float64
        Dropout: lambda a: nn.Dropout(a.rate),
        # skip_init: random weights nobody needs would move the caller's generator on.
        Linear: lambda a: nn.utils.skip_init(nn.Linear, a.in_features, a.out_features, bias=a.bias),
        LayerNorm: lambda a: nn.LayerNorm(a.in_features, a.eps),
        BatchNorm: lambda a: nn.BatchNorm1d(a.in_features, a.eps, a.momentum),
    }
    makers |= {FrozenBatchNorm: makers[BatchNorm]}
    makers |= {own: lambda a: _pairs()[type(a)]() for own in _pairs()}
    make = makers.get(type(layer))
    return make(layer) if make else None


def _layer(module: Any, key: str, filled: list[tuple[Layer, Any]]) -> Layer:
    """The layer of one module; (layer, module) joins `filled`, for the weights to be copied."""
    own, kind = _modules(), type(module)
    if kind in (_torch().nn.Sequential, own.Residual, own.FanOut):
        children = [_layer(child, f"{key}.{name}".lstrip("."), filled) for name, child in module._modules.items()]
        if kind is own.FanOut:
            return FanOut(*children, join=module.join)
        return (Residual if kind is own.Residual else Sequential)(*children)
    make = _makers().get(kind)
    layer = make(module) if make else None
    if layer is None:
        got = f"{kind.__name__ if module._modules else repr(module)} at {key!r}"
        raise TypeError(checks.message("from_torch", "modules the library has layers for", got, KNOWN))
    filled.append((layer, module))
    return layer


KNOWN = (
    "These are Sequential, Linear, BatchNorm1d (affine, with running statistics and momentum), LayerNorm (over one axis, with "
    "weight and bias), Dropout, Identity, ReLU, LeakyReLU, ELU, SiLU, GELU (not approximate), Softplus (beta 1), Sigmoid, Tanh."
)


@cache
def _makers() -> dict[type[Any], Callable[[Any], Layer | None]]:
    """Layers by the class of a module; None for settings without a counterpart."""
    nn = _torch().nn
    return {theirs: lambda m, own=own: own() for own, theirs in _pairs().items()} | {
        nn.LeakyReLU: lambda m: LeakyReLU(m.negative_slope),
        nn.ELU: lambda m: ELU(m.alpha),
        nn.GELU: lambda m: GELU() if m.approximate == "none" else None,
        nn.Softplus: lambda m: Softplus() if m.beta == 1 and m.threshold >= 20 else None,
        nn.Dropout: lambda m: Dropout(m.p),
        nn.Linear: lambda m: Linear(m.in_features, m.out_features, bias=m.bias is not None),
        nn.LayerNorm: lambda m: (
            LayerNorm(m.normalized_shape[0], eps=m.eps)
            if len(m.normalized_shape) == 1 and m.weight is not None and m.bias is not None
            else None
        ),
        nn.BatchNorm1d: lambda m: (
            BatchNorm(m.num_features, momentum=m.momentum, eps=m.eps)
            if m.affine and m.running_mean is not None and m.momentum is not None
            else None
        ),
    }


def _dtype(module: Any) -> str:
    """float32 or float64, that of all parameters; float32 if there are none."""
    found = {str(parameter.dtype).removeprefix("torch.") for parameter in module.parameters()}
    if len(found) > 1 or not found <= {"float32", "float64"}:
        advice = "Convert it first: module.float()."
        raise ValueError(
            checks.message("from_torch", "parameters all float32 or all float64", ", ".join(sorted(found)), advice)
        )
    return found.pop() if found else "float32"
