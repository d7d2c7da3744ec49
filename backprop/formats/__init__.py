"""Files in and out: data only, written whole or not at all."""

from backprop.formats.weights import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
