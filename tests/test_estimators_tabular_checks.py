"""Scikit-learn's own checks of the estimators for tables, and a table of very many columns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.utils.estimator_checks import parametrize_with_checks

from backprop.estimators import TabularClassifier, TabularRegressor

pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")

# The check wants a row of weight 2 to be as two equal rows, to the last digit. What is learned of an array's columns obeys that
# (test_columns_are_learned_by_weight), so do the loss, what is held against rows that were not trained on, calibration and
# intervals. It cannot hold for what goes by the number of rows: which part a row is in (two equal rows may be in two parts, one
# of weight 2 is in one), which batches it comes in, how many rows a batch has, how many steps and epochs there are, and the
# decay. Nor for what a `Table` learns of a frame before, whose rows count alike. scikit-learn's forests declare the same.
NOT_SO = {
    "check_sample_weight_equivalence_on_dense_data": "parts and batches are drawn by rows, and as many as there are"
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
