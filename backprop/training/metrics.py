"""Metrics by name: the loss's own measures, else scikit-learn's, computed on the kind of prediction that each of them takes.

loss                  labels                 probabilities
CrossEntropy          argmax_k f_k           softmax(f)
BinaryCrossEntropy    f > 0, that is p > ½   σ(f); for several outputs one column each (multi-label)

regression losses     predicted is f itself; eᶠ for Poisson, the mean μ for GaussianNLL, the median for Pinball
"""

from __future__ import annotations

import copy
import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from backprop import checks
from backprop.around.boundary import is_traced
from backprop.checks import Array
from backprop.engine.team import ALONE, Team
from backprop.functions import sigmoid
from backprop.losses import BinaryCrossEntropy, CrossEntropy, GaussianNLL, Loss, Pinball, Poisson
from backprop.losses.base import share, total
from backprop.sequential import Sequential
from backprop.training.data import Examples

Metric = Callable[[Array, Array], float]
Metrics = Sequence[str | Metric]
CLASSIFICATION = (CrossEntropy, BinaryCrossEntropy)  # the losses that have a softmax or a sigmoid inside


def check_metrics(who: str, net: Sequential, loss: Loss, metrics: Metrics, *data: Examples | None) -> None:
    """Refuse what is neither a function nor a known name, and names that cannot be computed for these examples.

    Raises TypeError, ValueError, or ImportError for one of scikit-learn's names without scikit-learn.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise TypeError(checks.message(who, "metrics as a list", repr(metrics), f"Pass [{metrics!r}]."))
    for metric in metrics:
        if callable(metric) or metric in loss.measures:
            continue
        check_name(
            who, loss, metric if isinstance(metric, str) else checks.choice(who, "metric", metric, loss.measures)
        )
        for examples in filter(None, data):
            try_out(who, net, loss, metric, examples.whole())


def check_name(who: str, loss: Loss, name: str) -> None:
    """Refuse a name that scikit-learn does not have, or has for another kind of target."""
    own = f"metric one of {loss!r}'s own {list(loss.measures)}"
    try:
        from sklearn.metrics import get_scorer, get_scorer_names
    except ImportError as error:
        needs = 'scikit-learn\'s metrics need scikit-learn: pip install "backprop-mlp[sklearn]"'
        raise ImportError(checks.message(who, own, repr(name), needs)) from error
    names = get_scorer_names()
    if name not in names:
        close = difflib.get_close_matches(name, {*loss.measures, *names}, n=3, cutoff=0.7)
        advice = f"Close to it: {', '.join(close)}." if close else "sklearn.metrics.get_scorer_names() lists them."
        raise ValueError(checks.message(who, f"{own}, or one of scikit-learn's", repr(name), advice))
    of_regression = get_scorer(name)._score_func.__module__.endswith("_regression")
    if of_regression == isinstance(loss, CLASSIFICATION):
        is_for, wanted = ("regression", "classification")[:: 1 if of_regression else -1]
        got = f"{name!r}, for {is_for}"
        raise ValueError(checks.message(who, f"{own}, or one of scikit-learn's for {wanted}", got))


def try_out(who: str, net: Sequential, loss: Loss, name: str, examples: Examples) -> None:
    """Compute a metric of scikit-learn's once before training, where it can still be refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score(loss, name, examples.predictions(net), examples.y.T, examples.w)
    except ValueError as error:
        expected = f"a metric that suits {loss!r} and these targets"
        raise ValueError(checks.message(who, expected, repr(name), f"It says: {str(error).rstrip('.')}.")) from error


def measure(
    net: Sequential, loss: Loss, examples: Examples, metrics: Metrics, *, own: bool = True, team: Team = ALONE
) -> dict[str, float]:
    """The loss and measures of some examples; without `own`, only those that are asked for. A team predicts by turns."""
    f = examples.predictions(net, team)
    y, w = examples.y.T, examples.w
    if not is_traced(loss):
        y = np.array(y)  # a loss of one's own may write to it
    # The loss is that of a copy, so that its pending backward is not disturbed.
    measured = {"loss": float(total(copy.copy(loss), f, y, share(loss, f, w)))} if own else {}
    measured |= {k: v for k, v in loss.metrics(f, y, w).items() if own or k in metrics}
    for metric in metrics:
        if not isinstance(metric, str):
            measured[getattr(metric, "__name__", type(metric).__name__)] = float(metric(f.T, y.T))
        elif metric not in loss.measures:
            measured[metric] = score(loss, metric, f, y, w)
    return measured


def score(loss: Loss, name: str, f: Array, y: Array, w: Array | None) -> float:
    """One of scikit-learn's metrics for outputs f (K, N) and targets y in columns, weighted where the metric takes weights."""
    from sklearn.metrics import get_scorer

    scorer, weights = get_scorer(name), {}
    if w is not None:
        there = w > 0  # an example of weight 0 is absent, also for a metric without weights
        f, y = f[:, there], y[..., there]
        if "sample_weight" in inspect.signature(scorer._score_func).parameters:
            weights["sample_weight"] = w[there]
    classifier, regressor = answering()
    if isinstance(loss, CLASSIFICATION):
        target, labels, p, classes = classification(loss, f.astype(np.float64), y)
        return float(scorer(classifier(classes), (labels, p), target, **weights))
    return float(scorer(regressor(), rows(point(loss, f)), rows(y), **weights))


def classification(loss: Loss, f: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Target, predicted labels, probabilities and classes as scikit-learn has them, from columns f (K, N) and y."""
    K = len(f)
    if isinstance(loss, CrossEntropy):
        p = np.exp(f - f.max(axis=0))
        return y if y.ndim == 1 else y.argmax(axis=0), f.argmax(axis=0), (p / p.sum(axis=0)).T, np.arange(K)
    p = sigmoid(f)
    target, labels = rows((y > 0.5).astype(int)), rows((f > 0).astype(int))
    if K == 1:
        return target, labels, np.concatenate([1 - p, p]).T, np.arange(2)
    return target, labels, p.T, np.tile([0, 1], (K, 1))  # a pair of classes for each label


def point(loss: Loss, f: Array) -> Array:
    """The one number per target (K, N) that a regression loss predicts. Raises ValueError for quantiles without the median."""
    if isinstance(loss, Poisson):
        return np.exp(f)
    if isinstance(loss, GaussianNLL):
        return f[: len(f) // 2]
    if isinstance(loss, Pinball):
        if 0.5 not in loss.quantiles:
            raise ValueError(f"{loss!r} predicts no single number; with the quantile 0.5 it would be the median")
        targets = len(f) // len(loss.quantiles)
        first = loss.quantiles.index(0.5) * targets
        return f[first : first + targets]
    return f


def rows(columns: Array) -> Array:
    """(N, K), or (N,) for K = 1."""
    return columns[0] if len(columns) == 1 else columns.T


@cache
def answering() -> tuple[Any, Any]:
    """Classes of estimators whose X is what they predict, for scikit-learn's scorers to ask."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        def predict(self, predicted: Array) -> Array:
            return predicted

    class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def __init__(self, classes: Array) -> None:
            self.classes_ = classes

        def predict(self, predicted: tuple[Array, Array]) -> Array:
            return predicted[0]

        def predict_proba(self, predicted: tuple[Array, Array]) -> Array:
            return predicted[1]

    return Classifier, Regressor
