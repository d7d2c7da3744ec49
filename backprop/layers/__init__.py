"""The layers: one class each, all with the contract of `Layer`."""

from backprop.layers.activations import (
    ELU,
    GELU,
    Activation,
    Cos,
    Elementwise,
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
from backprop.layers.columns import Embedding, InputScale, PiecewiseLinear, Quantiles, Select, quantile_edges
from backprop.layers.composition import Composite, FanOut, Residual
from backprop.layers.dropout import Dropout
from backprop.layers.linear import Linear
from backprop.layers.members import MembersLinear, MembersMean, SeparateLinear
from backprop.layers.normalization import BatchNorm, LayerNorm

__all__ = ["ELU", "GELU", "Activation", "Cos", "Elementwise", "Exp", "Identity", "LeakyReLU", "ReLU"]
__all__ += ["SiLU", "Sigmoid", "Sin", "Softplus", "Tanh"]
__all__ += ["BatchNorm", "Composite", "Dropout", "FanOut", "Gradients", "Layer", "LayerNorm", "Linear", "Residual"]
__all__ += ["MembersLinear", "MembersMean", "SeparateLinear"]
__all__ += ["Embedding", "InputScale", "PiecewiseLinear", "Quantiles", "Select", "quantile_edges"]
