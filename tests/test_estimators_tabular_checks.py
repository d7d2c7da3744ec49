"""Scikit-learn's own checks of the estimators for tables, and a table of very many columns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.utils.estimator_checks import parametrize_with_checks

from backprop.estimators import TabularClassifier, TabularRegressor

pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")

# As of scikit-learn's own forests and boosting: parts and batches are drawn by rows, so that a row of weight 2 is in one part
# of them, and two equal rows may be in two.
NOT_SO = {
    "check_sample_weight_equivalence_on_dense_data": "weights count in the loss, repeated rows are also drawn apart"
}


@parametrize_with_checks(
    [TabularClassifier(members=2), TabularRegressor(members=2)], expected_failed_checks=lambda estimator: NOT_SO
)
def test_is_an_estimator(estimator, check):
    check(estimator)


def test_5_000_columns_of_20_rows_get_an_answer_in_bounded_memory():
    """The member and what stands before it grow with the columns, and with nothing else."""
    X = np.random.default_rng(0).normal(size=(20, 5000))
    model = TabularRegressor(members=1).fit(X, X[:, 0])
    assert np.isfinite(model.predict(X)).all()
    assert model.network_.size < 2 * (5000 * 128 + 50_000)  # a member that learned fast, and one gently


def test_few_columns_that_count_are_found_among_many():
    """Beside a ridge regression whose penalty is chosen by all rows, on 1,000 columns of which four count."""
    from sklearn.linear_model import RidgeCV

    draw = np.random.default_rng(0)
    X = draw.normal(size=(700, 1000))
    y = X[:, :4].sum(axis=1) + 0.5 * draw.normal(size=700)
    ridge = RidgeCV(np.logspace(-2, 4, 7)).fit(X[:300], y[:300]).score(X[300:], y[300:])
    assert TabularRegressor(members=1).fit(X[:300], y[:300]).score(X[300:], y[300:]) > ridge + 0.1
