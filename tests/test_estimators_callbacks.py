"""Callbacks of both kinds around a fit, and warnings that it gives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("sklearn", "1.7")

from estimating import N, X, line, thirds
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Recorder(bp.Callback):
    """Notes what it is told, and may stop."""

    def __init__(self, stop_after=None):
        self.stop_after, self.told = stop_after, []

    def start(self, trainer):
        self.told.append("start")

    def epoch(self, trainer, record):
        self.told.append("epoch")
        return len(self.told) - 1 == self.stop_after

    def end(self, trainer):
        self.told.append("end")


class TestCallbacks:
    @pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
    def test_are_told_of_the_fit_and_of_each_epoch(self, solver):
        recorder = Recorder()
        model = MLPRegressor(solver=solver, callbacks=[recorder], max_iter=4, tol=0).fit(X, line)
        assert model.callbacks == [recorder]
        assert recorder.told == ["start", *["epoch"] * 4, "end"]

    @pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
    def test_stop_training(self, solver):
        model = MLPRegressor(solver=solver, callbacks=[Recorder(stop_after=3)], max_iter=10, tol=0).fit(X, line)
        assert model.n_iter_ == 3

    def test_partial_fit_tells_them(self):
        recorder = Recorder()
        MLPRegressor(callbacks=[recorder]).partial_fit(X, line, epochs=2)
        assert recorder.told == ["start", "epoch", "epoch", "end"]

    def test_early_stopping_of_the_library(self):
        stopper = bp.EarlyStopping(patience=3)
        model = MLPRegressor(callbacks=[stopper], max_iter=300, learning_rate_init=0.1, random_state=0, tol=0)
        model.fit(X[:40], line[:40], validation_data=(X[40:], line[40:]))
        assert model.n_iter_ < 300
        halves = 0.5 * np.mean((model.predict(X[40:]) - line[40:]) ** 2)
        assert_allclose(halves, min(model.validation_loss_curve_), rtol=1e-9)


class TheirRecorder:
    """A callback as scikit-learn's protocol has it."""

    def __init__(self, stop_after=None):
        self.stop_after, self.told, self.scores = stop_after, [], []

    def setup(self, estimator, context):
        self.told.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        assert len(X) == len(y)
        self.told.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.told.append(f"end {context.task_name}")
        self.scores.append(fitted_estimator.score(X, y))
        return context.task_name != "fit" and context.task_id + 1 == self.stop_after

    def teardown(self, estimator, context):
        self.told.append("teardown")


class TestScikitLearnsCallbacks:
    @pytest.fixture(autouse=True)
    def has_them(self):
        pytest.importorskip("sklearn.callback", reason="public since scikit-learn 1.9")

    def test_order(self):
        recorder = TheirRecorder()
        model = MLPRegressor(max_iter=3, tol=0).set_callbacks(recorder).fit(X, line)
        assert recorder.told == ["setup", "begin fit", *["begin epoch", "end epoch"] * 3, "end fit", "teardown"]
        assert recorder.scores[-1] == model.score(X, line)
        assert len(set(recorder.scores)) == 3

    def test_stop(self):
        recorder = TheirRecorder(stop_after=2)
        model = MLPClassifier(max_iter=9, tol=0).set_callbacks(recorder).fit(X, thirds)
        assert model.n_iter_ == 2
        assert recorder.told[-2:] == ["end fit", "teardown"]

    def test_a_second_fit_and_no_more_callbacks(self):
        recorder = TheirRecorder()
        model = MLPRegressor(max_iter=2, tol=0, warm_start=True).set_callbacks(recorder).fit(X, line)
        once = list(recorder.told)
        model.fit(X, line)
        assert recorder.told == once * 2
        model.set_callbacks().fit(X, line)
        assert recorder.told == once * 2
        assert not [name for name in vars(model) if "callback" in name and name != "callbacks"]

    def test_l_bfgs_is_a_fit_too(self):
        recorder = TheirRecorder()
        MLPRegressor(solver="lbfgs", max_iter=3).set_callbacks(recorder).fit(X, line)
        assert recorder.told[:2] == ["setup", "begin fit"]
        assert recorder.told[-2:] == ["end fit", "teardown"]

    def test_partial_fit_is_one_too(self):
        recorder = TheirRecorder()
        model = MLPRegressor().set_callbacks(recorder).partial_fit(X, line, epochs=2)
        model.partial_fit(X, line)
        fit = ["setup", "begin fit", "begin epoch", "end epoch"]
        assert recorder.told == [*fit, *fit[2:], "end fit", "teardown", *fit, "end fit", "teardown"]

    def test_are_torn_down_after_an_error(self):
        recorder = TheirRecorder()
        model = MLPRegressor().set_callbacks(recorder)
        with pytest.raises(ValueError, match="NaN"):
            model.fit(X * np.nan, line)
        assert recorder.told in ([], ["setup", "teardown"])

    def test_in_a_pipeline(self):
        recorder = TheirRecorder()
        make_pipeline(StandardScaler(), MLPRegressor(max_iter=2, tol=0).set_callbacks(recorder)).fit(X, line)
        assert recorder.told.count("end epoch") == 2


class TestWarnings:
    """They point at the line of whoever called, and are silenced by filters for scikit-learn's."""

    @pytest.mark.parametrize("parameters", [{"solver": "lbfgs"}, {"solver": "adam"}, {"solver": "lbfgs", "max_fun": 3}])
    @pytest.mark.parametrize("inside", [False, True])
    def test_not_converged(self, parameters, inside):
        model = MLPRegressor(hidden_layer_sizes=(5,), random_state=0, **{"max_iter": 2, **parameters})
        if "max_fun" in parameters:
            model.set_params(max_iter=200)
        with warnings.catch_warnings(record=True, action="always") as caught:
            (make_pipeline(StandardScaler(), model) if inside else model).fit(X, line)
        assert [(each.category, each.filename) for each in caught] == [(ConvergenceWarning, __file__)]
        assert "max_fun=3" in str(caught[0].message) or "max_fun" not in parameters
        with warnings.catch_warnings(action="error"):
            warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
            model.fit(X, line)

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_advice(self, solver):
        model = MLPRegressor(hidden_layer_sizes=(5,), solver=solver, max_iter=2, random_state=0)
        with pytest.warns(bp.TrainingAdvice, match="inputs are not scaled") as caught:
            model.fit(1e4 + X, line)
        assert {each.filename for each in caught} == {__file__}

    def test_advice_is_given_once_to_a_stream(self):
        model = MLPRegressor(hidden_layer_sizes=(5,), random_state=0)
        with warnings.catch_warnings(record=True, action="always") as caught:
            for start in range(0, N, 10):
                model.partial_fit(1e4 + X[start : start + 10], line[start : start + 10])
        assert [each.category for each in caught] == [bp.TrainingAdvice]
