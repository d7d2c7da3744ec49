"""backprop: multilayer perceptrons on a CPU.

Code that reads like the chalkboard, gradients that are proven, training that is fast. Start with `Sequential`, `Linear`, a loss,
an optimizer and `Trainer`; `check_gradients` proves a network, `explain` shows its forward and backward pass.

Names are imported on first use, so that `import backprop` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backprop import autodiff as autodiff
    from backprop import datasets as datasets
    from backprop import estimators as estimators
    from backprop import formats as formats
    from backprop import gradients as gradients
    from backprop import layers as layers
    from backprop import losses as losses
    from backprop import optimizers as optimizers
    from backprop import plots as plots
    from backprop import testing as testing
    from backprop import training as training
    from backprop.autodiff import Value as Value
    from backprop.constraints import *  # noqa: F403
    from backprop.datasets import load_digits as load_digits
    from backprop.files import FileFormatError as FileFormatError
    from backprop.formats import *  # noqa: F403
    from backprop.gradients import *  # noqa: F403
    from backprop.initializers import *  # noqa: F403
    from backprop.layers import *  # noqa: F403
    from backprop.losses import *  # noqa: F403
    from backprop.optimizers import *  # noqa: F403
    from backprop.predictor import Predictor as Predictor
    from backprop.schedules import *  # noqa: F403
    from backprop.sequential import Sequential as Sequential
    from backprop.tables import *  # noqa: F403
    from backprop.training import *  # noqa: F403

__version__ = "0.2.0"

_HOMES = {
    "layers": [
        *("Layer", "Activation", "Composite", "Linear", "ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus"),
        *("Sigmoid", "Tanh", "Sin", "Cos", "Exp", "Identity", "Dropout", "BatchNorm", "LayerNorm"),
        *("Residual", "FanOut", "Elementwise"),
        *("Select", "InputScale", "Embedding", "PiecewiseLinear", "Quantiles", "quantile_edges"),
        *("MembersLinear", "SeparateLinear", "MembersMean"),
    ],
    "sequential": ["Sequential"],
    "files": ["FileFormatError"],
    "losses": [
        *("Loss", "LeastSquares", "CrossEntropy", "BinaryCrossEntropy", "Huber", "AbsoluteError", "Poisson"),
        *("GaussianNLL", "Pinball", "PerMember"),
    ],
    "initializers": [
        *("Initializer", "HeNormal", "HeUniform", "GlorotNormal", "GlorotUniform", "LeCunNormal", "LeCunUniform"),
        *("Normal", "Orthogonal", "Constant"),
    ],
    "constraints": ["Constraint", "MaxNorm", "NonNegative"],
    "optimizers": ["Optimizer", "SGD", "RMSProp", "Adagrad", "Adam", "AdamW"],
    "schedules": [
        *("Schedule", "ConstantRate", "StepDecay", "ExponentialDecay", "CosineDecay", "WarmUp", "OneCycle"),
        "ReduceOnPlateau",
    ],
    "training": [
        *("Trainer", "History", "Epoch", "Callback", "BestWeights", "EarlyStopping", "Checkpoints"),
        *("minimize", "CSVLogger", "JSONLLogger", "TensorBoardLogger", "MLflowLogger"),
        *("learning_rate_range_test", "LearningRateReport"),
        *("suggest_batch_size", "BatchSizeReport", "TrainingAdvice", "WeightAverage"),
    ],
    "gradients": [
        *("check_gradients", "check_function", "GradientReport", "explain"),
        *("per_example_gradients", "per_example_gradient_norms", "input_gradient", "jacobian"),
        *("gradient_noise_scale", "NoiseScale"),
        *("Curvature", "hessian_product", "gauss_newton_product", "fisher_product", "hessian_eigenvalues"),
        "learning_rate_ceiling",
    ],
    "autodiff": ["Value"],
    "datasets": ["load_digits"],
    "estimators": [],  # not at the top: they bring scikit-learn
    "formats": [
        *("load_weights", "save_weights", "to_torch", "from_torch", "to_onnx", "to_numpy", "to_c"),
        "ExportReport",
    ],
    "tables": ["ParquetRows", "Table"],
    "predictor": ["Predictor"],
    "plots": [],  # its names stay there, bp.plots.weights: they bring matplotlib
    "distributed": [],  # its names stay there: a team is of more than one process
    "testing": [],  # its names stay there: inputs and losses mean something else here
}
# What other libraries have and this one has elsewhere.
_INSIDE = {
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "softmax"), "The softmax is inside CrossEntropy: leave it out of the net."
    ),
    **dict.fromkeys(("NLLLoss", "CrossEntropyLoss"), "It is CrossEntropy, with the softmax inside."),
    **dict.fromkeys(("MSELoss", "MSE"), "It is LeastSquares."),
    **dict.fromkeys(("BCELoss", "BCEWithLogitsLoss"), "It is BinaryCrossEntropy, with the sigmoid inside."),
    **{
        name: f"Write from backprop.estimators import {name}."
        for name in ("MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor")
    },
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return import_module(f"backprop.{name}")
    if name not in _HOME:
        advice = f" {_INSIDE[name]}" if name in _INSIDE else ""
        raise AttributeError(f"module 'backprop' has no attribute {name!r}.{advice} It has: {', '.join(__all__)}.")
    value = globals()[name] = getattr(import_module(f"backprop.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
