"""The losses of the regressor, and its intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("sklearn", "1.7")

from estimating import COUNTS, N, X, assert_same_weights, line
from helpers import LogCosh
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import backprop as bp
from backprop.estimators import MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class TestLosses:
    @pytest.mark.parametrize("K", [1, 3])
    @pytest.mark.parametrize("scale_targets", [False, True])
    @pytest.mark.parametrize(
        "loss", ["squared_error", "absolute_error", "huber", "quantile", "gaussian", bp.Huber(0.5), LogCosh()], ids=repr
    )
    def test_learns(self, loss, K, scale_targets):
        y = line if K == 1 else np.column_stack([line, -line, X[:, 0]])
        model = MLPRegressor(
            loss, (16,), learning_rate_init=0.02, max_iter=300, random_state=0, scale_targets=scale_targets, tol=0
        )
        model.fit(X, y)
        assert model.predict(X).shape == y.shape
        assert model.score(X, y) > 0.9
        assert model.out_activation_ == "identity"
        assert model.n_layers_ == 3

    def test_poisson_learns_counts(self):
        model = MLPRegressor("poisson", (), solver="lbfgs").fit(X, COUNTS)
        assert (model.predict(X) > 0).all()
        assert_allclose(model.predict(X).mean(), COUNTS.mean(), rtol=1e-4)

    def test_absolute_and_huber_bear_outliers(self):
        y = line.copy()
        y[::10] += 100

        def miss(loss, **parameters):
            model = MLPRegressor(loss, (), max_iter=400, learning_rate_init=0.05, tol=0, random_state=0, **parameters)
            return np.abs(model.fit(X, y).predict(X) - line).mean()

        squares = miss("squared_error")
        assert miss("absolute_error") < squares / 4
        assert miss("huber", delta=0.5) < squares / 4

    def test_delta_is_that_of_huber(self):
        a, b = (
            MLPRegressor(loss, max_iter=5, random_state=0, **p)
            for loss, p in (("huber", {"delta": 0.3}), (bp.Huber(0.3), {}))
        )
        assert_same_weights(a.fit(X, line), b.fit(X, line))

    def test_own_loss_is_not_shared(self):
        loss = bp.Huber(0.5)
        model = MLPRegressor(loss, max_iter=2)
        assert clone(model).fit(X, line).loss is not loss
        assert model.fit(X, line).loss is loss


noisy = np.random.default_rng(5)
U = noisy.uniform(-1, 1, size=(1500, 1))
V = U[:, 0] + (0.2 + 0.5 * (U[:, 0] > 0)) * noisy.normal(size=1500)


def covered(model, coverage):
    low, high = model.predict_interval(U[1000:], coverage)
    assert low.shape == high.shape == (500,)
    return np.mean((low <= V[1000:]) & (V[1000:] <= high))


class TestIntervals:
    """On examples that were not trained on; the tolerance is four standard deviations of a share of 500."""

    @pytest.mark.parametrize("scale_targets", [False, True])
    def test_gaussian_covers_what_it_says(self, scale_targets):
        model = MLPRegressor("gaussian", (8,), "tanh", solver="lbfgs", random_state=0, scale_targets=scale_targets)
        model.set_params(max_iter=300).fit(U[:1000], V[:1000])
        for coverage in (0.5, 0.8, 0.95):
            tolerance = 4 * np.sqrt(coverage * (1 - coverage) / 500) + 0.02
            assert_allclose(covered(model, coverage), coverage, atol=tolerance)
        low, high = model.predict_interval(np.array([[-0.5], [0.5]]), 0.8)
        assert (high - low)[1] > 2 * (high - low)[0]
        assert_allclose((low + high) / 2, model.predict([[-0.5], [0.5]]), rtol=1e-10)

    @pytest.mark.parametrize("scale_targets", [False, True])
    def test_quantiles_cover_what_they_say(self, scale_targets):
        model = MLPRegressor(
            "quantile", (8,), quantiles=(0.1, 0.25, 0.5, 0.75, 0.9), learning_rate_init=0.02, max_iter=60, tol=0
        )
        model.set_params(random_state=0, scale_targets=scale_targets).fit(U[:1000], V[:1000])
        for coverage in (0.5, 0.8):
            assert_allclose(covered(model, coverage), coverage, atol=4 * np.sqrt(coverage * (1 - coverage) / 500))
        assert_allclose(np.mean(V[1000:] < model.predict(U[1000:])), 0.5, atol=0.09)

    @pytest.mark.parametrize("loss", ["gaussian", "quantile"])
    def test_several_targets_have_an_interval_each(self, loss):
        Y = np.column_stack([line, 10 * line + 100])
        model = MLPRegressor(loss, (8,), scale_targets=True, max_iter=200, learning_rate_init=0.02, random_state=0)
        low, high = model.fit(X, Y).predict_interval(X)
        assert low.shape == high.shape == (N, 2)
        for k in range(2):
            assert np.abs(low[:, k] - Y[:, k]).mean() < 3 * Y[:, k].std()

    def test_asks_for_what_was_trained(self):
        model = MLPRegressor("quantile", max_iter=2).fit(X, line)
        with pytest.raises(ValueError, match=r"trained with the quantile 0\.25"):
            model.predict_interval(X, 0.5)
        with pytest.raises(ValueError, match="'quantile' or 'gaussian'"):
            MLPRegressor(max_iter=2).fit(X, line).predict_interval(X)
        with pytest.raises(NotFittedError):
            MLPRegressor("gaussian").predict_interval(X)
        with pytest.raises(ValueError, match="coverage"):
            model.predict_interval(X, 1.5)
