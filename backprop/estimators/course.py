"""Where the training of a model stands, and how a fit that fails leaves it."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.estimators.build import widths
from backprop.estimators.hooks import Method
from backprop.optimizers import Optimizer

GROWING = ("_course", "loss_curve_", "validation_loss_curve_", "validation_scores_")  # what a fit adds to
BUILT = (
    *("hidden_layer_sizes", "activation", "dropout", "dtype", "scale_inputs", "scale_targets"),
    *("loss", "quantiles", "delta"),
)


@dataclass
class Course:
    """Where the training of a model stands, so that the next `fit` or `partial_fit` goes on from there.

    `made_by` are the parameters by which the network, its loss and its scaling were made, whatever is set later; `rate` is what
    the learning rate was, as text. `dtype` is what descent computes in. `best` is φ at the best score so far, by the examples of
    which `judges` is the hash; `last` is φ where early stopping left it for the best.
    """

    seed: int
    split: Any = field(repr=False)  # the generator's state; each fit that goes on holds out the same examples by it
    made_by: dict[str, Any] = field(default_factory=dict)
    rate: str = ""
    dtype: np.dtype[Any] | None = None
    optimizer: Optimizer | None = None
    alpha: float = 0.0  # of the last epoch
    epochs: int = 0
    waited: int = 0
    judges: str = ""
    best: Array | None = None
    last: Array | None = None


def unchanged_if_refused(method: Method) -> Method:
    """A fit after whose error the model has the attributes that it had before, and these the numbers.

    The network is the same one, so that `coefs_` that were taken from it before are still its own.
    """

    @functools.wraps(method)
    def fitted(model: Any, *arguments: Any, **named: Any) -> Any:
        before = dict(vars(model))
        goes_on = model.warm_start or method.__name__ == "partial_fit"
        grown = copy.deepcopy({name: before[name] for name in GROWING if name in before and goes_on})
        numbers = {name: array.copy() for name, array in _numbers(before).items()} if goes_on else {}
        try:
            return method(model, *arguments, **named)
        except BaseException:  # Ctrl-C too, where there is nothing trained yet that could be kept
            vars(model).clear()
            vars(model).update(before | grown)
            for name, array in numbers.items():
                _numbers(before)[name][...] = array
            raise

    return cast(Method, fitted)


def _numbers(attributes: dict[str, Any]) -> dict[str, Array]:
    net = attributes.get("network_")
    return {} if net is None else {"phi": net.phi, **net.buffers}


def built(model: Any) -> dict[str, Any]:
    """The parameters that a network, its loss and its scaling are made by, as they are now."""
    return {name: copy.deepcopy(getattr(model, name)) for name in BUILT if hasattr(model, name)}


def require_same(model: Any) -> None:
    """Refuse to go on with a network that was made by other parameters than these."""
    for name, value in built(model).items():
        now, before = _text(name, value), _text(name, model._course.made_by.get(name, value))
        if now != before:
            expected = f"{name} {before}, as when training began"
            advice = "A fit without warm_start begins anew with it."
            raise ValueError(checks.message(type(model).__name__, expected, now, advice))


def _text(name: str, value: Any) -> str:
    return repr(widths(value) if name == "hidden_layer_sizes" else value)
