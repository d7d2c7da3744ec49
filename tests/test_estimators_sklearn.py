"""Scikit-learn's own checks of what an estimator must do, all of them."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.utils.estimator_checks import parametrize_with_checks

from backprop.estimators import MLPClassifier, MLPRegressor

# With L-BFGS and less of a penalty, probabilities of separable classes come to be exactly 1, which one check does not want.
ESTIMATORS = [
    MLPClassifier(),
    MLPClassifier(solver="lbfgs", alpha=0.1),
    MLPRegressor(),
    MLPRegressor(solver="lbfgs"),
]

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice"),  # some checks fit unscaled columns, around 100
]


@parametrize_with_checks(ESTIMATORS)
def test_is_an_estimator(estimator, check):
    check(estimator)
