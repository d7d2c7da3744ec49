"""Where the training of a model stands, and how a fit that fails leaves it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.optimizers import Optimizer

GROWING = ("network_", "_course", "loss_curve_", "validation_loss_curve_", "validation_scores_")  # what a fit adds to


@dataclass
class Course:
    """Where the training of a model stands, so that the next `fit` or `partial_fit` goes on from there.

    `dtype` is what descent computes in. `best` is φ at the best score so far, `last` φ where early stopping left it for the best.
    """

    seed: int
    split: Any = field(
        repr=False
    )  # the state of the generator by which each fit that goes on holds out the same examples
    dtype: np.dtype[Any] | None = None
    optimizer: Optimizer | None = None
    epochs: int = 0
    waited: int = 0
    best: Array | None = None
    last: Array | None = None


def unchanged_if_refused(method: Callable[..., Any]) -> Callable[..., Any]:
    """A fit after whose error the model has the attributes that it had before, and these the numbers."""

    @functools.wraps(method)
    def fitted(model: Any, *arguments: Any, **named: Any) -> Any:
        before = dict(vars(model))
        goes_on = model.warm_start or method.__name__ == "partial_fit"
        grown = copy.deepcopy({name: before[name] for name in GROWING if name in before and goes_on})
        try:
            return method(model, *arguments, **named)
        except Exception:
            vars(model).clear()
            vars(model).update(before | grown)
            raise

    return fitted
