"""Weights as safetensors, under the names PyTorch gives them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.formats.files import write_atomically
from backprop.sequential import Sequential

TORCH_NAMES = {"omega": "weight", "gamma": "weight", "beta": "bias", "running_variance": "running_var"}


def tensors(net: Sequential) -> dict[str, Array]:
    """Parameters and running statistics by PyTorch's names: "0.weight", "0.bias", ….

    >>> import backprop as bp
    >>> list(tensors(bp.Sequential(bp.Linear(2, 1))))
    ['0.bias', '0.weight']
    """
    named = {}
    for name, array in {**net.parameters, **net.buffers}.items():
        layer, _, own = name.rpartition(".")
        named[f"{layer}.{TORCH_NAMES.get(own, own)}"] = array
    return named


def save_weights(net: Sequential, path: str | os.PathLike[str]) -> None:
    """Save the weights as a safetensors file that `load_state_dict` of the same PyTorch network takes.

    The file is written whole or not at all. Raises OSError where it cannot be written.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors(net).items()}
    write_atomically(path, save(arrays, metadata={"format": "pt"}))


def load_weights(net: Sequential, path: str | os.PathLike[str]) -> None:
    """Load weights into a network of the same shape, in place.

    Raises OSError for a file that cannot be read, ValueError for one that does not hold exactly this network's tensors, finite
    and in its shapes; the network is then unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(checks.message(f"load_weights({str(path)!r})", "a safetensors file", str(error))) from None
    expected, who = tensors(net), f"load_weights({str(path)!r})"
    if found.keys() != expected.keys():
        raise ValueError(checks.message(who, f"tensors {sorted(expected)}", f"{sorted(found)}"))
    for name, array in expected.items():
        if found[name].shape != array.shape or found[name].dtype.kind != "f":
            got = f"shape {found[name].shape} of {found[name].dtype}"
            raise ValueError(checks.message(who, f"{name} with shape {array.shape} of floats", got))
        if not checks.all_finite(found[name]):
            raise ValueError(checks.message(who, f"finite numbers in {name}", "nan or inf"))
    for name, array in expected.items():
        array[...] = found[name]
