"""The layers: one class each, all with the contract of `Layer`."""

from backprop.layers.activations import (
    ELU,
    GELU,
    Activation,
    Cos,
    Exp,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Sin,
    Softplus,
    Tanh,
)
from backprop.layers.base import Gradients, Layer
from backprop.layers.composition import Composite, FanOut, Residual
from backprop.layers.dropout import Dropout
from backprop.layers.elementwise import Elementwise
from backprop.layers.linear import Linear
from backprop.layers.normalization import BatchNorm, LayerNorm

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "BatchNorm",
    "Composite",
    "Cos",
    "Dropout",
    "Elementwise",
    "Exp",
    "FanOut",
    "Gradients",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "ReLU",
    "Residual",
    "SiLU",
    "Sigmoid",
    "Sin",
    "Softplus",
    "Tanh",
]
