"""Early stopping: what is held out, what it goes by, and which weights are left."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

import sklearn.metrics
import sklearn.model_selection
from estimating import KINDS, ONE_BATCH, N, X, assert_same_weights, line, ours, theirs
from sklearn import neural_network
from sklearn.base import clone

from backprop.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class TestEarlyStopping:
    @pytest.mark.parametrize("kind", ["three classes", "one number"])
    def test_restores_the_weights_of_the_best_epoch(self, kind):
        y, held = KINDS[kind][1].copy(), slice(40, None)
        model = ours(kind, early_stopping=True, max_iter=60, learning_rate_init=0.1, n_iter_no_change=8, tol=0)
        model.fit(X[:40], y[:40], validation_data=(X[held], y[held]))
        assert model.score(X[held], y[held]) == model.best_validation_score_ == max(model.validation_scores_)
        assert model.n_iter_ == len(model.validation_scores_) == len(model.validation_loss_curve_)

    def test_classes_too_rare_to_be_held_out_in_their_shares(self):
        """Scikit-learn does not stratify several classes, and two it cannot split either."""
        rare = np.r_[2, np.arange(N - 1) % 2]
        for y in (rare, np.arange(N) % 20):  # one example of a class; more classes than are held out
            a, b = (
                kind((5,), early_stopping=True, max_iter=3, random_state=0)
                for kind in (MLPClassifier, neural_network.MLPClassifier)
            )
            assert_array_equal(a.fit(X, y).classes_, b.fit(X, y).classes_)
            assert len(a.validation_scores_) == 3

    def test_says_what_scikit_learn_says(self, capsys):
        said = []
        for model in (ours, theirs):
            for parameters in (
                {"early_stopping": True},
                {"learning_rate": "adaptive", "n_iter_no_change": 1},
                {"learning_rate_init": 1e-4},
            ):
                settings = {**ONE_BATCH, "solver": "sgd", "n_iter_no_change": 3, "max_iter": 20, "batch_size": "auto"}
                model("one number", **{**settings, "tol": 1e-2, **parameters}, verbose=True).fit(X, line)
            said.append(capsys.readouterr().out.splitlines())
        digits = re.compile(r"(?<=\d\.\d{4})\d+")  # to four, as the mean of a loss is summed in another order
        assert [digits.sub("", text) for text in said[0]] == [digits.sub("", text) for text in said[1]]
        assert {line.split()[0] for line in said[0]} == {"Iteration", "Validation", "Training"}

    def test_stops(self):
        y = np.random.default_rng(0).normal(size=N)
        model = ours("one number", early_stopping=True, max_iter=500, learning_rate_init=0.05, n_iter_no_change=5)
        assert model.fit(X, y).n_iter_ < 500

    def test_validation_data_is_watched_without_stopping(self):
        model = ours("one number", max_iter=7, tol=0).fit(X[:40], line[:40], validation_data=(X[40:], line[40:]))
        assert len(model.validation_loss_curve_) == 7
        plain = ours("one number", max_iter=7, tol=0).fit(X[:40], line[:40])
        assert_same_weights(model, plain)

    def test_partial_fit_stops_early(self):
        y = np.random.default_rng(0).normal(size=N)
        model = ours("one number", early_stopping=True, learning_rate_init=0.05, n_iter_no_change=5, batch_size=10)
        model.partial_fit(X, y, X_val=X[50:], y_val=y[50:], epochs=500)
        assert model.n_iter_ < 500
        assert model.best_validation_score_ == max(model.validation_scores_)

    def test_validation_loss_is_that_of_the_data(self):
        held = X[40:], line[40:]
        model = ours("one number", max_iter=3, tol=0, alpha=0.0).fit(X[:40], line[:40], validation_data=held)
        halves = 0.5 * np.mean((model.predict(held[0]) - held[1]) ** 2)
        assert_allclose(model.validation_loss_curve_[-1], halves, rtol=1e-10)

    def test_partial_fit_goes_on_past_its_best_part(self):
        """What a part is judged by is its own: one that was easy must not keep the weights where they are."""
        model = MLPRegressor(
            hidden_layer_sizes=(5,),
            early_stopping=True,
            random_state=0,
            n_iter_no_change=np.inf,
            learning_rate_init=0.01,
        )
        judges = {"X_val": X[50:], "y_val": line[50:]}
        model.partial_fit(X[:30], np.zeros(30), epochs=30, **judges)
        model.best_validation_score_ = 2.0  # beyond what any score can be
        before = model.network_.phi.copy()
        model.partial_fit(X, line, epochs=30, **judges)
        assert not np.array_equal(model.network_.phi, before)
        assert model.n_iter_ == 30

    def test_partial_fit_takes_the_best_when_patience_is_over(self):
        model = MLPRegressor(
            hidden_layer_sizes=(5,), early_stopping=True, random_state=0, n_iter_no_change=2, learning_rate_init=0.05
        )
        model.partial_fit(X[:40], line[:40], X_val=X[40:], y_val=line[40:], epochs=500)
        assert model.n_iter_ < 500
        assert_allclose(model.score(X[40:], line[40:]), model.best_validation_score_, rtol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_by_the_loss(self, kind):
        """Stopped by the validation loss, the weights are those of the epoch with the least one."""
        y, held = KINDS[kind][1], slice(40, None)
        model = ours(kind, early_stopping=True, monitor="loss", max_iter=30, learning_rate_init=0.05)
        model.fit(X[:40], y[:40], validation_data=(X[held], y[held]))
        assert_allclose(model.validation_scores_, [-loss for loss in model.validation_loss_curve_])
        again = clone(model).set_params(max_iter=1 + int(np.argmin(model.validation_loss_curve_)), early_stopping=False)
        assert_same_weights(model, again.fit(X[:40], y[:40]))

    @pytest.mark.parametrize(
        ("kind", "monitor"),
        [
            ("two classes", "roc_auc"),
            ("three classes", "f1_macro"),
            ("three classes", "neg_log_loss"),
            ("one number", "neg_mean_absolute_error"),
            ("three numbers", lambda model, X, y: float(-np.abs(model.predict(X) - y).max())),
        ],
    )
    def test_by_a_scorer(self, kind, monitor):
        frame = pd.DataFrame(X, columns=list("abcd"))  # whose names must not make the scorer warn
        y, held = KINDS[kind][1], slice(40, None)
        model = ours(kind, early_stopping=True, monitor=monitor, max_iter=20, learning_rate_init=0.03)
        model.fit(frame[:40], y[:40], validation_data=(frame[held], y[held]))
        assert len(model.validation_scores_) == model.n_iter_
        score = sklearn.metrics.get_scorer(monitor) if isinstance(monitor, str) else monitor
        assert_allclose(score(model, frame[held], y[held]), max(model.validation_scores_), rtol=1e-12)

    def test_weights_of_the_validation_data_count(self):
        w = np.r_[np.zeros(10), np.ones(10)]
        model = ours("one number", early_stopping=True, max_iter=10)
        weighted = clone(model).fit(X[:40], line[:40], validation_data=(X[40:], line[40:], w))
        only = clone(model).fit(X[:40], line[:40], validation_data=(X[50:], line[50:]))
        assert_allclose(weighted.validation_scores_, only.validation_scores_, rtol=1e-12)
        assert_allclose(weighted.validation_loss_curve_, only.validation_loss_curve_, rtol=1e-6)
