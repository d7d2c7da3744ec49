"""Weights as safetensors, under the names PyTorch gives them."""

from __future__ import annotations

import os

import numpy as np

from backprop import checks
from backprop.architecture import tensors
from backprop.files.atomic import write_atomically
from backprop.files.container import FileFormatError, contents
from backprop.sequential import Sequential


def save_weights(net: Sequential, path: str | os.PathLike[str]) -> None:
    """Save the weights as a safetensors file that `load_state_dict` of the same PyTorch network takes.

    The file is written whole or not at all. Raises OSError where it cannot be written.
    """
    from safetensors.numpy import save

    checks.instance("save_weights", "net", net, Sequential)
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors(net).items()}
    write_atomically(path, save(arrays, metadata={"format": "pt"}))


def load_weights(net: Sequential, path: str | os.PathLike[str]) -> None:
    """Load weights into a network of the same shape, in place.

    Raises OSError for a file that cannot be read, FileFormatError for one that does not hold exactly this network's tensors,
    finite and in its shapes; the network is then unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    checks.instance("load_weights", "net", net, Sequential)
    who, expected = f"load_weights({str(path)!r})", tensors(net)
    try:
        found = load(contents(path))
    except SafetensorError as error:
        raise FileFormatError(checks.message(who, "a safetensors file", str(error))) from None
    except KeyError as kind:
        raise FileFormatError(checks.message(who, "tensors of float16, float32 or float64", str(kind))) from None
    found = {name: array for name, array in found.items() if not name.endswith(".num_batches_tracked")}
    if found.keys() != expected.keys():
        raise FileFormatError(checks.message(who, f"tensors {sorted(expected)}", f"{sorted(found)}"))
    for name, array in expected.items():
        if found[name].shape != array.shape or found[name].dtype.kind != "f":
            got = f"shape {found[name].shape} of {found[name].dtype}"
            raise FileFormatError(checks.message(who, f"{name} with shape {array.shape} of floats", got))
        with np.errstate(over="ignore"):
            found[name] = found[name].astype(array.dtype)
        if not checks.all_finite(found[name]):
            raise FileFormatError(checks.message(who, f"finite numbers in {name}", "nan or inf"))
    for name, array in expected.items():
        array[...] = found[name]
