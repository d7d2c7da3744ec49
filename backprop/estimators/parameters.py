"""The parameters that both estimators share, checked when a fit begins, as scikit-learn's habit is."""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop import checks
from backprop.estimators import scoring
from backprop.training.watch import check_callbacks

SOLVERS = ("lbfgs", "sgd", "adam")
LEARNING_RATES = ("constant", "invscaling", "adaptive")


def check(model: Any) -> None:
    """Refuse parameters of a wrong kind or out of range; the network, its loss and its optimizer check theirs."""
    who = type(model).__name__
    check_callbacks(who, model.callbacks or ())
    checks.choice(who, "solver", model.solver, SOLVERS)
    checks.choice(who, "learning_rate", model.learning_rate, LEARNING_RATES)
    checks.integer(who, "max_iter", model.max_iter)
    checks.number(who, "alpha", model.alpha, least=0)
    checks.number(who, "tol", model.tol, least=0)
    checks.number(who, "power_t", model.power_t, least=0)
    checks.integer(who, "max_fun", model.max_fun)
    for name in ("scale_inputs", "scale_targets"):
        checks.boolean(who, name, getattr(model, name, False))
    checks.number(who, "validation_fraction", model.validation_fraction, least=0, below=1)
    for name in ("shuffle", "warm_start", "early_stopping"):
        checks.boolean(who, name, getattr(model, name))
    if model.early_stopping:
        scoring.check(who, model.monitor)
    if model.batch_size != "auto":
        checks.integer_or(who, "batch_size", model.batch_size, "auto")
    if model.n_iter_no_change != np.inf:
        checks.integer(who, "n_iter_no_change", model.n_iter_no_change)
