"""The parameters that both estimators share, checked when a fit begins, as scikit-learn's habit is."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer_names

from backprop import checks
from backprop.training.watch import check_callbacks


def check(model: Any) -> None:
    """Refuse parameters of a wrong kind or out of range; the network, its loss and its optimizer check theirs."""
    who = type(model).__name__
    check_callbacks(who, model.callbacks or ())
    checks.choice(who, "solver", model.solver, ("lbfgs", "sgd", "adam"))
    checks.choice(who, "learning_rate", model.learning_rate, ("constant", "invscaling", "adaptive"))
    for name in ("max_iter", "max_fun"):
        checks.integer(who, name, getattr(model, name))
    for name in ("alpha", "tol", "power_t"):
        checks.number(who, name, getattr(model, name), least=0)
    checks.number(who, "validation_fraction", model.validation_fraction, least=0, below=1)
    for name in ("scale_inputs", "scale_targets", "shuffle", "warm_start", "early_stopping"):
        checks.boolean(who, name, getattr(model, name, False))
    checks.integer_or(who, "batch_size", model.batch_size, "auto")
    if model.n_iter_no_change != np.inf:
        checks.integer(who, "n_iter_no_change", model.n_iter_no_change)
    if model.early_stopping:
        check_monitor(who, model.monitor)


def check_monitor(who: str, monitor: Any) -> None:
    """Refuse what is neither None, "loss", the name of a scorer, nor a function (model, X, y) → score."""
    if monitor is None or monitor == "loss" or callable(monitor):
        return
    expected = 'monitor None, "loss", the name of a scorer of scikit-learn, or a function of (model, X, y)'
    if not isinstance(monitor, str):
        raise TypeError(checks.message(who, expected, repr(monitor)))
    if monitor not in get_scorer_names():
        close = difflib.get_close_matches(monitor, get_scorer_names())
        raise ValueError(checks.message(who, expected, repr(monitor), f"Close to it: {close}." if close else ""))
