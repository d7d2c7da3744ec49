"""Files in and out: data only, written whole or not at all."""

from backprop.formats.c_header import to_c
from backprop.formats.numpy_file import to_numpy
from backprop.formats.onnx_file import to_onnx
from backprop.formats.pytorch import from_torch, to_torch
from backprop.formats.verify import ExportReport
from backprop.formats.weights import load_weights, save_weights

__all__ = ["ExportReport", "from_torch", "load_weights", "save_weights", "to_c", "to_numpy", "to_onnx", "to_torch"]
