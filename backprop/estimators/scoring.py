"""What early stopping goes by: scikit-learn's scorers by name, or one of your own."""

from __future__ import annotations

import difflib
from typing import Any

from sklearn.metrics import get_scorer, get_scorer_names

from backprop import checks
from backprop.checks import Array


def check(who: str, monitor: Any) -> None:
    """Refuse what is neither None, "loss", the name of a scorer, nor a function (model, X, y) → score."""
    if monitor is None or monitor == "loss" or callable(monitor):
        return
    expected = 'monitor None, "loss", the name of a scorer of scikit-learn, or a function of (model, X, y)'
    if not isinstance(monitor, str):
        raise TypeError(checks.message(who, expected, repr(monitor)))
    if monitor not in get_scorer_names():
        close = difflib.get_close_matches(monitor, get_scorer_names())
        raise ValueError(checks.message(who, expected, repr(monitor), f"Close to it: {close}." if close else ""))


def score(monitor: Any, model: Any, X: Any, y: Array, w: Array | None = None) -> float:
    """The score of a model on rows X (N, D) and targets y, the more the better."""
    scorer = get_scorer(monitor) if isinstance(monitor, str) else monitor
    return float(scorer(model, X, y) if w is None else scorer(model, X, y, sample_weight=w))
