"""Estimators beside scikit-learn's on the same data, what they add, and where they must fit in."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")  # the first whose MLP knows sample weights and the Poisson loss

import scipy.sparse
import sklearn.metrics
import sklearn.model_selection
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import AdaBoostRegressor, BaggingClassifier
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor, from_sklearn, to_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D = 60, 4
generator = np.random.default_rng(0)
X = generator.normal(size=(N, D))
line = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3
thirds = np.digitize(line, np.quantile(line, [1 / 3, 2 / 3]))

# Targets of every kind: the estimators of both sides, and y.
KINDS = {
    "two classes": (MLPClassifier, line > 0),
    "three classes": (MLPClassifier, thirds),
    "three yes-no questions": (MLPClassifier, (X[:, :3] > 0).astype(int)),
    "one number": (MLPRegressor, line),
    "three numbers": (MLPRegressor, X[:, :3] ** 2),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
regressors = pytest.mark.parametrize("kind", ["one number", "three numbers"])
classifiers = pytest.mark.parametrize("kind", [kind for kind in KINDS if "number" not in kind])


def ours(kind, **parameters):
    return KINDS[kind][0](**{"hidden_layer_sizes": (5,), "random_state": 0, **parameters})


def theirs(kind, **parameters):
    return getattr(neural_network, KINDS[kind][0].__name__)(
        **{"hidden_layer_sizes": (5,), "random_state": 0, **parameters}
    )


def both(kind, **parameters):
    y = KINDS[kind][1]
    return ours(kind, **parameters).fit(X, y), theirs(kind, **parameters).fit(X, y)


def assert_same_weights(a, b, tolerance=0.0):
    for name in ("coefs_", "intercepts_"):
        for one, other in zip(getattr(a, name), getattr(b, name), strict=True):
            assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def outputs(model, X=X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


# All examples in one batch, no stopping: what both sides then do is the same to the last digits.
ONE_BATCH = {"batch_size": N, "tol": 0.0, "n_iter_no_change": 1000}


class TestBesideScikitLearn:
    """The same parameters, the same random_state, the same data."""

    @pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
    def test_has_its_parameters_with_its_defaults(self, model):
        of_theirs = getattr(neural_network, model.__name__)().get_params()
        of_ours = model().get_params()
        assert {name: of_ours[name] for name in of_theirs} == of_theirs

    @pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
    def test_takes_by_position_what_it_takes(self, model):
        def by_position(kind):
            parameters = inspect.signature(kind).parameters.values()
            return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

        assert by_position(model) == by_position(getattr(neural_network, model.__name__))

    @every_kind
    @pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
    def test_starts_from_the_same_weights_and_makes_the_same_steps(self, kind, activation):
        parameters = {
            **ONE_BATCH,
            "activation": activation,
            "solver": "sgd",
            "alpha": 0.1,
            "learning_rate_init": 0.05,
            "momentum": 0.0,
        }
        for epochs in (1, 4):
            assert_same_weights(*both(kind, max_iter=epochs, **parameters), tolerance=1e-12)

    @every_kind
    @pytest.mark.parametrize(
        "rule",
        [
            {"momentum": 0.9, "nesterovs_momentum": True},
            {"momentum": 0.9, "nesterovs_momentum": False},
            {"momentum": 0.0, "learning_rate": "invscaling", "power_t": 0.3},
            {"momentum": 0.0, "learning_rate": "adaptive"},
            {"momentum": 0.9, "learning_rate": "invscaling", "power_t": 0.3},
            {"momentum": 0.9, "nesterovs_momentum": False, "learning_rate": "invscaling"},
            {"momentum": 0.9, "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1, "max_iter": 12},
            {"hidden_layer_sizes": 7},
            {"hidden_layer_sizes": [6, 5]},
            {"hidden_layer_sizes": ()},
        ],
        ids=str,
    )
    def test_goes_by_the_same_rule(self, kind, rule):
        parameters = {**ONE_BATCH, "solver": "sgd", "learning_rate_init": 0.05, "max_iter": 5}
        assert_same_weights(*both(kind, **{**parameters, **rule}), tolerance=1e-10)

    @every_kind
    def test_adam_differs_by_the_place_of_its_epsilon_alone(self, kind):
        parameters = {**ONE_BATCH, "solver": "adam", "max_iter": 20, "epsilon": 1e-14}
        assert_same_weights(*both(kind, **parameters), tolerance=1e-7)

    def test_poisson_makes_the_same_steps(self):
        y = np.random.default_rng(1).poisson(np.exp(line / 3))
        parameters = {**ONE_BATCH, "solver": "sgd", "loss": "poisson", "max_iter": 5, "random_state": 0}
        a, b = MLPRegressor(**parameters).fit(X, y), neural_network.MLPRegressor(**parameters).fit(X, y)
        assert_same_weights(a, b, tolerance=1e-12)
        assert a.out_activation_ == b.out_activation_ == "exp"

    @every_kind
    def test_sample_weights_weigh_the_same(self, kind):
        w = np.random.default_rng(1).uniform(0.5, 2, N)
        parameters = {**ONE_BATCH, "solver": "sgd", "alpha": 0.1, "max_iter": 3, "learning_rate_init": 0.05}
        a = ours(kind, **parameters).fit(X, KINDS[kind][1], sample_weight=w)
        b = theirs(kind, **parameters).fit(X, KINDS[kind][1], sample_weight=w)
        assert_same_weights(a, b, tolerance=1e-12)

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "three numbers"])
    def test_losses_are_the_same(self, kind):
        a, b = both(kind, **ONE_BATCH, solver="sgd", max_iter=4, alpha=0.1, learning_rate_init=0.05)
        assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-12)
        assert_allclose([a.loss_, a.best_loss_], [b.loss_, b.best_loss_], rtol=1e-12)

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "three numbers"])
    def test_l_bfgs_finds_the_same_minimum(self, kind):
        parameters = {"solver": "lbfgs", "alpha": 1.0, "tol": 1e-7, "max_iter": 2000, "hidden_layer_sizes": ()}
        a, b = both(kind, **parameters)
        assert_allclose(a.loss_, b.loss_, rtol=1e-6)
        assert_allclose(outputs(a), outputs(b), atol=1e-3)

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "three numbers"])
    def test_l_bfgs_with_a_hidden_layer_fits_as_well(self, kind):
        a, b = both(kind, solver="lbfgs", alpha=0.1, activation="tanh", tol=1e-6, max_iter=500)
        assert a.loss_ <= b.loss_ * 1.05

    @every_kind
    @pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
    def test_fitted_attributes_have_the_same_form(self, kind, solver):
        a, b = both(kind, solver=solver, max_iter=3)
        for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "n_iter_"):
            assert getattr(a, name) == getattr(b, name), name
        for name in ("coefs_", "intercepts_"):
            assert [p.shape for p in getattr(a, name)] == [p.shape for p in getattr(b, name)]
        assert not hasattr(a, "feature_names_in_")
        if solver != "lbfgs":
            assert a.t_ == b.t_ == 3 * N
            assert len(a.loss_curve_) == len(b.loss_curve_) == 3
            assert a.validation_scores_ is b.validation_scores_ is None
            assert a.best_validation_score_ is b.best_validation_score_ is None

    @every_kind
    def test_early_stopping_has_the_same_attributes(self, kind):
        a, b = both(kind, early_stopping=True, max_iter=4, validation_fraction=0.2, batch_size=10)
        assert len(a.validation_scores_) == len(b.validation_scores_) == 4
        assert a.best_loss_ is b.best_loss_ is None
        assert a.best_validation_score_ == max(a.validation_scores_)
        assert a.t_ == b.t_ == 4 * N * 0.8

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "three classes"])  # which we stratify
    def test_early_stopping_holds_the_same_examples_out(self, kind):
        parameters = {**ONE_BATCH, "solver": "sgd", "early_stopping": True, "validation_fraction": 0.2}
        a, b = both(kind, **{**parameters, "batch_size": 48}, max_iter=3)
        assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-9)

    def test_early_stopping_weighs_what_it_holds_out(self):
        w = np.random.default_rng(1).uniform(0.01, 5, N)
        parameters = {**ONE_BATCH, "solver": "sgd", "early_stopping": True, "validation_fraction": 0.2, "max_iter": 3}
        for kind in ("two classes", "one number"):
            a, b = (
                model(kind, **{**parameters, "batch_size": 48}).fit(X, KINDS[kind][1], sample_weight=w)
                for model in (ours, theirs)
            )
            assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-9)

    @classifiers
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_answers_have_the_same_form(self, kind, dtype):
        Z = X.astype(dtype)
        y = KINDS[kind][1]
        a, b = ours(kind, max_iter=3).fit(Z, y), theirs(kind, max_iter=3).fit(Z, y)
        for method in ("predict", "predict_proba", "predict_log_proba"):
            one, other = getattr(a, method)(Z), getattr(b, method)(Z)
            assert (one.shape, one.dtype) == (other.shape, other.dtype), method
        assert_array_equal(a.classes_, b.classes_)
        assert_allclose(np.exp(a.predict_log_proba(Z)), a.predict_proba(Z), rtol=1e-5)
        assert a.coefs_[0].dtype == dtype

    @regressors
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_numbers_have_the_same_form(self, kind, dtype):
        Z, y = X.astype(dtype), KINDS[kind][1]
        a, b = ours(kind, max_iter=3).fit(Z, y), theirs(kind, max_iter=3).fit(Z, y)
        assert (a.predict(Z).shape, a.predict(Z).dtype) == (b.predict(Z).shape, b.predict(Z).dtype)
        assert isinstance(a.score(Z, y), float)

    @pytest.mark.parametrize(
        "names", [["no", "yes"], [False, True], [-7, -2], ["a", "b", "c"], [-1, 5, 12], [1.0, 2.0, 3.0]], ids=str
    )
    def test_classes_come_back_as_they_were(self, names):
        y = np.array(names)[thirds % len(names)]
        parameters = {"hidden_layer_sizes": (10,), "solver": "lbfgs", "random_state": 0, "max_iter": 300}
        a, b = MLPClassifier(**parameters).fit(X, y), neural_network.MLPClassifier(**parameters).fit(X, y)
        assert_array_equal(a.classes_, b.classes_)
        assert a.predict(X).dtype == b.predict(X).dtype
        assert a.score(X, y) > 0.9

    def test_lists_of_labels_are_labels(self):
        y = ["low", "middle", "high"]
        model = MLPClassifier(max_iter=2).fit(X.tolist(), [y[k] for k in thirds])
        assert set(model.predict(X)) <= set(y)

    def test_a_column_of_targets_is_taken_with_a_warning(self):
        for kind, y in ((MLPRegressor, line), (MLPClassifier, thirds)):
            with pytest.warns(DataConversionWarning):
                model = kind(max_iter=2).fit(X, y[:, None])
            assert model.predict(X).shape == (N,)

    def test_too_few_iterations_are_told(self):
        for solver in ("sgd", "adam", "lbfgs"):
            with pytest.warns(ConvergenceWarning, match="max_iter"):
                MLPRegressor(solver=solver, max_iter=2, tol=0).fit(X, line)

    def test_stops_where_the_loss_no_longer_falls(self):
        parameters = {**ONE_BATCH, "tol": 1e-2, "n_iter_no_change": 3, "max_iter": 500}
        a, b = both("one number", **parameters, solver="sgd", learning_rate_init=0.05)
        assert a.n_iter_ == b.n_iter_ < 500

    def test_adaptive_rate_is_divided_before_it_stops(self):
        parameters = {**ONE_BATCH, "tol": 1e-2, "n_iter_no_change": 2, "max_iter": 500}
        a, b = both(
            "one number", **parameters, solver="sgd", momentum=0.0, learning_rate="adaptive", learning_rate_init=0.05
        )
        assert a.n_iter_ == b.n_iter_
        assert_same_weights(a, b, tolerance=1e-8)

    def test_infinite_patience(self):
        model = ours("one number", n_iter_no_change=np.inf, tol=1e3, max_iter=15).fit(X, line)
        assert model.n_iter_ == 15

    def test_verbose_writes_a_line_for_each_epoch(self, capsys):
        ours("one number", max_iter=2, verbose=True).fit(X, line)
        captured = capsys.readouterr()
        assert len(re.findall(r"Iteration \d+, loss = \d", captured.out + captured.err)) == 2

    def test_without_shuffling_batches_are_in_order(self):
        parameters = {"batch_size": 10, "shuffle": False, "solver": "sgd", "max_iter": 3, "tol": 0.0, "momentum": 0.9}
        model = ours("one number", dtype="float64", **parameters).fit(X, line)
        assert_same_weights(model, theirs("one number", **parameters).fit(X, line), tolerance=1e-10)

    def test_a_random_state_of_ones_own_is_used_and_not_kept_in_parameters(self):
        a, b = (MLPRegressor(random_state=np.random.RandomState(0), max_iter=2) for _ in range(2))
        assert_same_weights(a.fit(X, line), b.fit(X, line))
        assert_same_weights(a, MLPRegressor(random_state=0, max_iter=2).fit(X, line))

    def test_differs_from_run_to_run_without_a_seed(self):
        a, b = (MLPRegressor(max_iter=2).fit(X, line) for _ in range(2))
        assert not np.array_equal(a.coefs_[0], b.coefs_[0])


class TestMultiOutputLBFGS:
    """Where scikit-learn's gradient is not that of its objective."""

    @pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
    def test_without_a_hidden_layer_it_is_ridge_regression(self, alpha):
        Y = np.column_stack([X**2, line])
        model = MLPRegressor(hidden_layer_sizes=(), solver="lbfgs", alpha=alpha, tol=1e-9, max_iter=1000).fit(X, Y)
        ridge = Ridge(alpha=alpha).fit(X, Y)
        assert_allclose(model.coefs_[0], ridge.coef_.T, atol=1e-4)
        assert_allclose(model.intercepts_[0], ridge.intercept_, atol=1e-4)

    def test_poisson_regression(self):
        y = np.random.default_rng(1).poisson(np.exp(line / 3))
        parameters = {"hidden_layer_sizes": (), "loss": "poisson", "solver": "lbfgs", "tol": 1e-9, "alpha": 6.0}
        model = MLPRegressor(**parameters).fit(X, y)
        reference = PoissonRegressor(alpha=6.0 / N, tol=1e-9).fit(X, y)
        assert_allclose(model.coefs_[0][:, 0], reference.coef_, atol=1e-4)
        assert_allclose(model.predict(X), reference.predict(X), rtol=1e-4)

    def test_the_penalty_counts_once_whatever_the_number_of_outputs(self):
        alone = ours("one number", hidden_layer_sizes=(), solver="lbfgs", alpha=5.0, tol=1e-9).fit(X, line)
        Y = np.column_stack([line, line, line])
        together = ours("one number", hidden_layer_sizes=(), solver="lbfgs", alpha=5.0, tol=1e-9).fit(X, Y)
        assert_allclose(together.coefs_[0], np.tile(alone.coefs_[0], 3), atol=1e-4)


def continued(model, y, first, second):
    """A copy fitted for `first` epochs, then with warm start for `second` more."""
    model = clone(model).set_params(warm_start=True, max_iter=first, tol=0)
    return model.fit(X, y).set_params(max_iter=second).fit(X, y)


class TestWarmStart:
    @every_kind
    @pytest.mark.parametrize(
        "parameters",
        [
            {"solver": "adam"},
            {"solver": "sgd", "momentum": 0.9, "batch_size": 7},
            {"solver": "sgd", "momentum": 0.0},
            {"solver": "sgd", "learning_rate": "invscaling", "batch_size": 20},
            {"dropout": 0.4, "batch_size": 16},
            {"dropout": 0.4, "solver": "sgd", "hidden_layer_sizes": (5, 4)},
            {"learning_rate_init": bp.CosineDecay(0.01, steps=50)},
            {"scale_inputs": True, "dtype": "float32"},
            {"early_stopping": True, "validation_fraction": 0.2},
        ],
        ids=lambda parameters: ", ".join(f"{name}={value}" for name, value in parameters.items()),
    )
    def test_four_and_six_epochs_are_ten(self, kind, parameters):
        y = KINDS[kind][1]
        model = ours(kind, **{"batch_size": 15, "n_iter_no_change": 100, "max_iter": 10, "tol": 0, **parameters})
        at_once, in_two = clone(model).fit(X, y), continued(model, y, 4, 6)
        assert_same_weights(at_once, in_two)
        assert at_once.validation_scores_ == in_two.validation_scores_
        assert at_once.loss_curve_ == in_two.loss_curve_
        assert at_once.t_ == in_two.t_
        assert in_two.n_iter_ == 6

    def test_early_stopping_holds_out_the_same_examples_again(self):
        """Else the second fit trains on what the first was judged by."""
        seen = []

        class Spy(MLPRegressor):
            def _score_held_out(self, held_out):
                seen.append(held_out[0])
                return super()._score_held_out(held_out)

        model = Spy(early_stopping=True, warm_start=True, max_iter=2, random_state=0)
        model.fit(X, line).fit(X, line)
        assert_array_equal(seen[0], seen[-1])

    def test_partial_fit_is_an_epoch_of_fit(self):
        for kind in ("three classes", "one number"):
            model, y = ours(kind, batch_size=15, tol=0, dropout=0.2), KINDS[kind][1]
            at_once = clone(model).set_params(max_iter=5).fit(X, y)
            classes = {"classes": [0, 1, 2]} if kind == "three classes" else {}
            one_by_one = clone(model).partial_fit(X, y, **classes)
            for _ in range(2):
                one_by_one.partial_fit(X, y)
            assert_same_weights(at_once, one_by_one.partial_fit(X, y, epochs=2))
            assert_same_weights(at_once, clone(model).partial_fit(X, y, **classes, epochs=5))

    @classifiers
    def test_partial_fit_begins_like_scikit_learns(self, kind):
        y = KINDS[kind][1]
        classes = np.arange(3) if y.ndim == 2 else np.unique(y)
        parameters = {**ONE_BATCH, "solver": "sgd"}
        a, b = (model(kind, **parameters).partial_fit(X, y, classes=classes) for model in (ours, theirs))
        assert_same_weights(a, b, tolerance=1e-12)
        assert_array_equal(a.partial_fit(X, y).predict(X), b.partial_fit(X, y).predict(X))

    def test_partial_fit_knows_classes_that_come_later(self):
        model = MLPClassifier((8,), learning_rate_init=0.1, random_state=0).partial_fit(
            X[thirds < 2], thirds[thirds < 2], classes=[0, 1, 2, 7]
        )
        assert model.predict_proba(X).shape == (N, 4)
        assert model.partial_fit(X, thirds, epochs=50).score(X, thirds) > 0.8

    def test_fit_after_partial_fit_has_classes_of_its_own(self):
        model = MLPClassifier(max_iter=2).partial_fit(X, thirds, classes=[0, 1, 2, 3])
        assert_array_equal(model.fit(X, np.array(["a", "b", "c"])[thirds]).classes_, ["a", "b", "c"])

    def test_partial_fit_after_fit_goes_on(self):
        model = ours("one number", max_iter=3, tol=0).fit(X, line)
        before = model.t_
        model.partial_fit(X, line, epochs=2)
        assert model.t_ == before + 2 * N
        assert len(model.loss_curve_) == 5

    @pytest.mark.parametrize(
        "parameters",
        [
            {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05},
            {"solver": "sgd", "momentum": 0.9, "learning_rate_init": 0.01},
            {"solver": "sgd", "momentum": 0.0, "learning_rate": "invscaling", "learning_rate_init": 0.5},
        ],
        ids=str,
    )
    def test_parts_of_all_sizes_are_learned_as_by_scikit_learn(self, parameters):
        """The penalty is shared by the examples of the part at hand, and "invscaling" counts examples."""
        a, b = (model("one number", **{**ONE_BATCH, **parameters, "alpha": 1.0}) for model in (ours, theirs))
        for start, stop in ((0, 2), (2, 30), (30, 35), (35, N), (0, 2)):
            for model in (a, b):
                model.set_params(batch_size="auto").partial_fit(X[start:stop], line[start:stop])
        assert_same_weights(a, b, tolerance=1e-12)
        assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-12)

    @pytest.mark.parametrize(
        ("parameters", "still"),
        [
            ({"learning_rate_init": 1e-300}, True),
            ({"learning_rate_init": bp.StepDecay(1e-300, every=1)}, True),
            ({"solver": "sgd", "learning_rate_init": 1e-300}, True),
            ({"tol": 1e-9}, False),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_parameters_set_on_the_way_count(self, parameters, still, method):
        model = ours("one number", warm_start=True, max_iter=3).fit(X, line)
        before = model.network_.phi.copy()
        getattr(model.set_params(**parameters), method)(X, line)
        assert np.array_equal(model.network_.phi, before) == still

    def test_a_rate_set_on_the_way_keeps_the_momentum(self):
        one, other = (ours("one number", solver="sgd", warm_start=True, max_iter=5).fit(X, line) for _ in range(2))
        one.set_params(learning_rate_init=2e-3).fit(X, line)
        velocity, gone = one._course.optimizer.state["velocity"], other._course.optimizer
        gone.schedule = bp.schedules.ConstantRate(2e-3)
        assert_allclose(velocity, other.fit(X, line)._course.optimizer.state["velocity"], rtol=1e-6)

    def test_a_decayed_rate_stays_unless_it_is_set(self):
        model = ours("one number", solver="sgd", learning_rate="adaptive", learning_rate_init=0.1, n_iter_no_change=1)
        model.set_params(warm_start=True, tol=1.0, max_iter=5).fit(X, line)
        low = model._course.optimizer.learning_rate
        assert low < 0.1
        model.set_params(max_iter=1).fit(X, line)
        assert model._course.optimizer.learning_rate == low
        model.set_params(learning_rate_init=0.2, n_iter_no_change=100).fit(X, line)
        assert model._course.optimizer.learning_rate == 0.2

    def test_a_schedule_of_the_user_is_left_alone(self):
        rate = bp.ReduceOnPlateau(0.1, patience=0)
        model = MLPRegressor(hidden_layer_sizes=(5,), learning_rate_init=rate, max_iter=20, random_state=0)
        first = model.fit(X, line).network_.phi.copy()
        assert rate(0) == 0.1
        assert_array_equal(model.fit(X, line).network_.phi, first)

    @pytest.mark.parametrize(
        "parameters",
        [
            {"hidden_layer_sizes": (5, 5)},
            {"activation": "tanh"},
            {"dropout": 0.5},
            {"dtype": "float32"},
            {"scale_targets": True},
            {"loss": "huber"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    @pytest.mark.parametrize("loaded", [False, True])
    def test_another_network_on_the_way_is_refused(self, parameters, method, loaded, tmp_path):
        model = MLPRegressor(hidden_layer_sizes=(5,), warm_start=True, max_iter=2, random_state=0).fit(X, line)
        if loaded:
            model.save(tmp_path / "model")
            model = MLPRegressor.load(tmp_path / "model")
        before = state(model.set_params(**parameters))
        with pytest.raises(ValueError, match=f"{next(iter(parameters))} .* as when training began"):
            getattr(model, method)(X, line)
        assert state(model) == before
        model.set_params(warm_start=False).fit(X, line)

    def test_the_same_widths_in_other_words_go_on(self):
        model = MLPRegressor(hidden_layer_sizes=(5,), warm_start=True, max_iter=2, random_state=0).fit(X, line)
        for same in (5, [5], np.array([5])):
            model.set_params(hidden_layer_sizes=same).fit(X, line)
        assert model.t_ == 8 * N

    def test_l_bfgs_goes_on_from_its_weights(self):
        model = ours("one number", solver="lbfgs", warm_start=True, max_iter=5, activation="tanh").fit(X, line)
        first = model.loss_
        assert model.fit(X, line).loss_ < first

    def test_without_warm_start_fit_starts_anew(self):
        model = ours("one number", max_iter=3)
        once = copy.deepcopy(model.fit(X, line))
        assert_same_weights(once, model.fit(X, line))
        model.fit(X[:, :2], KINDS["three numbers"][1])
        assert (model.n_features_in_, model.n_outputs_) == (2, 3)

    def test_a_copy_by_pickle_predicts_and_goes_on_the_same(self):
        for kind, (_, y) in KINDS.items():
            for solver in ("adam", "sgd", "lbfgs"):
                dropout = 0.0 if solver == "lbfgs" else 0.3
                model = ours(
                    kind, solver=solver, warm_start=True, max_iter=3, dropout=dropout, scale_inputs=True, batch_size=16
                )
                twin = pickle.loads(pickle.dumps(model.fit(X, y)))
                assert_array_equal(outputs(model), outputs(twin))
                assert_same_weights(model.fit(X, y), twin.fit(X, y))
                assert model.loss_curve_ == twin.loss_curve_


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
        model.partial_fit(X, y, epochs=500)
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
        model.partial_fit(X[:30], np.zeros(30), epochs=30)
        model.best_validation_score_ = 2.0  # beyond what any score can be
        before = model.network_.phi.copy()
        model.partial_fit(X, line, epochs=30)
        assert not np.array_equal(model.network_.phi, before)
        assert model.n_iter_ == 30

    def test_partial_fit_takes_the_best_when_patience_is_over(self):
        model = MLPRegressor(
            hidden_layer_sizes=(5,), early_stopping=True, random_state=0, n_iter_no_change=2, learning_rate_init=0.05
        )
        model.partial_fit(X, line, epochs=500)
        assert model.n_iter_ < 500
        held = bp_held_out(model, N)
        assert_allclose(model.score(X[held], line[held]), model.best_validation_score_, rtol=1e-12)

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


def bp_held_out(model, n, stratify=None):
    """The rows that early stopping held out of n."""
    split = sklearn.utils.check_random_state(0)
    split.set_state(model._course.split)
    parts = sklearn.model_selection.train_test_split(np.arange(n), test_size=0.1, random_state=split, stratify=stratify)
    return parts[1]


def held_out_alone(model, y):
    """Weights of which only those are not 0 that early stopping holds out."""
    w = np.zeros(N)
    w[bp_held_out(clone(model).fit(X, y), N, y)] = 1
    return w


class TestPrecision:
    """With dtype="auto" the model is as precise as X, and minibatches are computed in float32."""

    @every_kind
    def test_minibatches_differ_by_rounding_alone(self, kind):
        parameters = {"batch_size": 10, "max_iter": 5, "learning_rate_init": 0.01, "activation": "tanh"}
        y = KINDS[kind][1]
        auto, double = (ours(kind, **parameters, dtype=dtype).fit(X, y) for dtype in ("auto", "float64"))
        assert auto.network_.phi.dtype == outputs(auto).dtype == np.float64
        assert np.array_equal(auto.network_.phi, auto.network_.phi.astype(np.float32))
        assert not np.array_equal(double.network_.phi, double.network_.phi.astype(np.float32))
        assert_same_weights(auto, double, tolerance=2e-5)
        assert_allclose(auto.loss_curve_, double.loss_curve_, rtol=1e-5)

    def test_a_batch_of_everything_is_computed_in_the_dtype_of_x(self):
        auto, double = (
            ours("one number", batch_size=N, max_iter=5, dtype=dtype).fit(X, line) for dtype in ("auto", "float64")
        )
        assert_same_weights(auto, double)

    def test_numbers_that_are_too_large_for_it_are_computed_in_float64(self):
        model = MLPRegressor(
            hidden_layer_sizes=(5,), batch_size=10, max_iter=2, random_state=0, scale_targets=True, scale_inputs=True
        )
        model.fit(X * 1e100, line * 1e100)
        assert np.isfinite(model.predict(X * 1e100)).all()

    def test_predictions_are_precise(self):
        """Row by row or all at once: rounding in float32 would show."""
        model = ours("one number", batch_size=10, max_iter=3).fit(X, line)
        assert_allclose(np.concatenate([model.predict(row[None]) for row in X]), model.predict(X), rtol=1e-12)

    def test_a_memory_map_is_not_copied(self, tmp_path):
        np.save(tmp_path / "X.npy", X)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        parameters = {"batch_size": 10, "max_iter": 3}
        assert_same_weights(
            ours("one number", **parameters).fit(mapped, line), ours("one number", **parameters).fit(X, line)
        )


FLATS = pd.DataFrame(
    {
        "size": generator.uniform(20, 120, 90).round(),
        "town": generator.choice(["Bonn", "Köln", "Ulm"], 90),
        "lift": generator.random(90) < 0.5,
    }
)
FLATS["rent"] = FLATS["size"] * 10 + 200.0 * (FLATS["town"] == "Köln")
FLATS["let"] = np.where(FLATS["rent"] < 800, "quickly", "slowly")
FEATURES = ["size", "town", "lift"]
FRAMES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}
every_library = pytest.mark.parametrize("library", FRAMES)


def fitted_flats(**parameters):
    model = MLPRegressor(
        hidden_layer_sizes=(16,), solver="lbfgs", scale_inputs=True, scale_targets=True, random_state=0, **parameters
    )
    return model.set_params(max_iter=300, tol=1e-3).fit(FLATS.drop(columns="let"), "rent")


class TestFrames:
    @every_library
    def test_the_target_by_name(self, library):
        frame = FRAMES[library](FLATS.drop(columns="let"))
        model = MLPRegressor(
            hidden_layer_sizes=(16,), solver="lbfgs", scale_inputs=True, scale_targets=True, random_state=0
        )
        model.set_params(max_iter=300, tol=1e-3).fit(frame, "rent")
        assert model.score(frame, "rent") > 0.99
        assert_array_equal(model.feature_names_in_, FEATURES)
        assert model.n_features_in_ == 3
        assert_same_weights(model, fitted_flats())

    @every_library
    def test_classes_by_name(self, library):
        frame = FRAMES[library](FLATS.drop(columns="rent"))
        model = MLPClassifier((8,), solver="lbfgs", scale_inputs=True, random_state=0, max_iter=300, alpha=0.1)
        model.set_params(tol=1e-3).fit(frame, "let")
        assert set(model.predict(frame)) == {"quickly", "slowly"}
        assert model.score(frame, "let") > 0.95

    def test_classes_that_are_numbers_by_name(self):
        frame = FLATS[FEATURES].assign(rooms=(FLATS["size"] // 61).astype(int))
        model = MLPClassifier((8,), solver="lbfgs", scale_inputs=True, random_state=0, max_iter=300).fit(frame, "rooms")
        assert_array_equal(model.classes_, [0, 1])
        assert model.score(frame, "rooms") > 0.95

    def test_is_the_table_and_the_arrays(self):
        """The differential: what comes out is what a Table by hand and its array give."""
        table = bp.Table(scale=True, dtype="float64")
        rows = table.fit(FLATS[FEATURES])[0]
        model = MLPRegressor(hidden_layer_sizes=(4,), random_state=0, max_iter=3, scale_inputs=True).fit(
            FLATS[FEATURES], FLATS["rent"]
        )
        by_hand = MLPRegressor(hidden_layer_sizes=(4,), random_state=0, max_iter=3).fit(rows, FLATS["rent"])
        assert_same_weights(model, by_hand)
        assert_array_equal(model.predict(FLATS[FEATURES]), by_hand.predict(rows))

    @every_library
    def test_columns_are_matched_by_name(self, library):
        model = fitted_flats()
        mixed = FRAMES[library](FLATS[["lift", "rent", "size", "town"]])  # another order, and the target among them
        assert_allclose(model.predict(mixed), model.predict(FLATS[FEATURES]), rtol=1e-12)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda f: f.drop(columns="size"), "'size'"),
            (lambda f: f.assign(rooms=1), "also.*'rooms'"),
            (lambda f: f.rename(columns={"size": "Size"}), "'Size'"),
            (lambda f: f.assign(town="Rom"), "'town'.*'Rom' at row 0"),
            (lambda f: f.assign(size=f["size"].where(f.index != 5)), "'size'.*row 5"),
            (lambda f: f.assign(size="large"), "numbers in column 'size'.*text"),
            (lambda f: f.to_numpy(), "a frame"),
        ],
    )
    def test_later_frames_that_do_not_fit(self, change, words):
        model = fitted_flats()
        before = state(model)
        with pytest.raises((TypeError, ValueError), match=words):
            model.predict(change(FLATS[FEATURES]))
        assert state(model) == before

    @pytest.mark.parametrize(
        ("model", "frame", "y", "words"),
        [
            (MLPRegressor(), FLATS, "price", "'price'"),
            (MLPRegressor(), X, "price", "a frame with the target 'price'"),
            (MLPRegressor(), FLATS[[*FEATURES, "let"]], "let", "y: numbers.*at row 0"),
            (MLPClassifier(), FLATS[FEATURES].assign(one="a"), "one", "two classes in column 'one'"),
            (MLPRegressor(), FLATS[FEATURES].assign(size=np.nan), FLATS["rent"], "'size'.*missing"),
            (MLPRegressor(), FLATS[["size", "lift"]].where(FLATS["size"] > 50), FLATS["rent"], "'size'.*at row"),
            (MLPRegressor(), FLATS[FEATURES].assign(town=[1, "a"] * 45), FLATS["rent"], "'town'"),
            (MLPRegressor(), FLATS.assign(rent=FLATS["rent"].where(FLATS.index != 3)), "rent", "'rent'.*row 3"),
            (MLPRegressor(missing="drop"), FLATS[FEATURES], FLATS["rent"], "missing"),
            (MLPRegressor(unknown="drop"), FLATS[FEATURES], FLATS["rent"], "unknown"),
        ],
        ids=range(10),
    )
    def test_refused(self, model, frame, y, words):
        with pytest.raises((TypeError, ValueError), match=words):
            model.fit(frame, y)
        assert not hasattr(model, "network_")

    def test_holes_are_filled_and_new_categories_ignored_where_asked(self):
        holes = FLATS[FEATURES].assign(size=FLATS["size"].where(FLATS.index % 7 != 0))
        model = MLPRegressor(
            hidden_layer_sizes=(4,), missing="impute", unknown="ignore", random_state=0, max_iter=3, scale_inputs=True
        )
        model.fit(holes, FLATS["rent"])
        assert np.isfinite(model.predict(holes.assign(town="Rom"))).all()

    def test_validation_data_and_partial_fit(self):
        train, later = FLATS.drop(columns="let")[:60], FLATS.drop(columns="let")[60:]
        model = MLPRegressor(
            hidden_layer_sizes=(4,), scale_inputs=True, scale_targets=True, random_state=0, early_stopping=True
        )
        model.set_params(monitor="neg_mean_absolute_error", max_iter=4).fit(
            train, "rent", validation_data=(later, "rent")
        )
        assert_allclose(
            sklearn.metrics.get_scorer(model.monitor)(model, later, later["rent"]), max(model.validation_scores_)
        )
        stream = MLPClassifier((4,), random_state=0).partial_fit(
            FLATS.drop(columns="rent")[:60], "let", classes=["quickly", "slowly"]
        )
        assert_array_equal(stream.partial_fit(FLATS.drop(columns="rent")[60:], "let").classes_, ["quickly", "slowly"])

    def test_numbers_alone_need_no_table(self):
        frame = pd.DataFrame(X, columns=list("abcd"))
        model = MLPRegressor(hidden_layer_sizes=(4,), random_state=0, max_iter=2).fit(frame, line)
        assert model.table_ is None
        assert_same_weights(model, MLPRegressor(hidden_layer_sizes=(4,), random_state=0, max_iter=2).fit(X, line))

    def test_a_hole_in_a_later_frame_of_numbers(self):
        frame = pd.DataFrame(X, columns=list("abcd"))
        model = MLPRegressor(hidden_layer_sizes=(4,), random_state=0, max_iter=2).fit(frame, line)
        for hole in (np.nan, np.inf):
            with pytest.raises(ValueError, match=r"'c'.*at row 5"):
                model.predict(frame.assign(c=np.where(np.arange(N) == 5, hole, X[:, 2])))

    def test_survives_a_copy_and_a_clone(self):
        model = fitted_flats()
        again = pickle.loads(pickle.dumps(model))
        assert_array_equal(again.predict(FLATS[FEATURES]), model.predict(FLATS[FEATURES]))
        assert clone(model).table_ is None

    def test_scikit_learns_cannot_encode(self):
        with pytest.raises(ValueError, match=r"numbers.*'town'|columns of numbers"):
            to_sklearn(fitted_flats())


class TestWeights:
    @pytest.mark.parametrize("kind", ["two classes", "three classes"])
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_class_weights_are_sample_weights(self, kind, solver):
        y = KINDS[kind][1]
        weight = {label: 1.0 + 2 * k for k, label in enumerate(np.unique(y))}
        w = np.array([weight[label] for label in y])
        by_class = ours(kind, solver=solver, class_weight=weight, max_iter=20).fit(X, y)
        assert_same_weights(by_class, ours(kind, solver=solver, max_iter=20).fit(X, y, sample_weight=w))
        twice = ours(kind, solver=solver, class_weight=weight, max_iter=20).fit(X, y, sample_weight=w)
        assert_same_weights(twice, ours(kind, solver=solver, max_iter=20).fit(X, y, sample_weight=w * w))

    def test_balanced_classes_help_the_rare_one(self):
        y = np.repeat([0, 1], [50, 10])
        Z = y[:, None] + np.random.default_rng(0).normal(size=(60, 1))
        plain, balanced = (MLPClassifier((), solver="lbfgs", class_weight=w).fit(Z, y) for w in (None, "balanced"))
        assert balanced.predict(Z)[y == 1].mean() > plain.predict(Z)[y == 1].mean() + 0.2

    @every_kind
    @pytest.mark.parametrize("parameters", [{"solver": "lbfgs", "tol": 1e-10}, {"solver": "sgd", "batch_size": 10**6}])
    def test_weight_two_is_twice_and_weight_zero_is_absent(self, kind, parameters):
        y = KINDS[kind][1]
        w = np.random.default_rng(1).integers(0, 4, N)
        rows = np.repeat(np.arange(N), w)
        parameters = {"alpha": 0.5, "max_iter": 30, "activation": "tanh", "hidden_layer_sizes": (), **parameters}
        weighted = ours(kind, **parameters).fit(X, y, sample_weight=w)
        repeated = ours(kind, **parameters).fit(X[rows], y[rows])
        assert_same_weights(weighted, repeated, tolerance=1e-5 if parameters["solver"] == "lbfgs" else 1e-10)


COUNTS = np.random.default_rng(2).poisson(np.exp(line / 3)).astype(float)


class LogCosh(bp.Loss):
    """ℓ = Σₖ log cosh (f − y), as a user writes it."""

    def ell(self, f, y):
        self.d = f - y
        return np.log(np.cosh(self.d)).sum(axis=0)

    def dell_df(self):
        return np.tanh(self.d)


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


class TestNetworks:
    @pytest.mark.parametrize(
        "activation",
        [
            *("identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "sin", "cos"),
            *(bp.LeakyReLU(0.2), bp.Elementwise(lambda v: v * v.sigmoid())),
            *(["tanh", "relu"], ["sin", bp.ELU(0.5)], ("silu", "silu")),
        ],
        ids=repr,
    )
    def test_every_activation(self, activation):
        parameters = {"activation": activation, "learning_rate_init": 0.02, "max_iter": 150, "random_state": 0}
        model = MLPRegressor(hidden_layer_sizes=(8, 8), **parameters, batch_size=20)
        assert clone(model).fit(X, line).score(X, line) > 0.8
        kinds = [type(layer) for layer in model.set_params(max_iter=1).fit(X, line).network_]
        assert kinds[0] is kinds[2] is kinds[4] is bp.Linear

    def test_layers_are_copied(self):
        layer = bp.LeakyReLU(0.2)
        model = MLPRegressor(activation=layer, hidden_layer_sizes=(3, 3), max_iter=1)
        model.fit(X, line).fit(X, line)
        assert model.activation is layer
        assert layer not in list(model.network_)

    @pytest.mark.parametrize(("dropout", "rates"), [(0.2, [0.2, 0.2]), ([0.0, 0.5], [0.5]), ((0.1, 0.3), [0.1, 0.3])])
    def test_dropout(self, dropout, rates):
        model = MLPRegressor(hidden_layer_sizes=(6, 6), dropout=dropout, max_iter=2, random_state=0).fit(X, line)
        assert [layer.rate for layer in model.network_ if isinstance(layer, bp.Dropout)] == rates
        assert_array_equal(model.predict(X), model.predict(X))

    def test_dropout_draws_by_the_seed(self):
        a, b, c = (MLPRegressor(dropout=0.5, max_iter=3, random_state=s).fit(X, line) for s in (0, 0, 1))
        assert_same_weights(a, b)
        assert not np.array_equal(a.predict(X), c.predict(X))

    @pytest.mark.parametrize(
        "schedule", [bp.StepDecay(0.1, every=4, factor=0.5), bp.CosineDecay(0.1, steps=20)], ids=repr
    )
    def test_schedules(self, schedule):
        seen = []

        class Rates(bp.Callback):
            def epoch(self, trainer, record):
                seen.append(record.learning_rate)

        parameters = {**ONE_BATCH, "solver": "sgd", "callbacks": [Rates()], "max_iter": 6}
        MLPRegressor(learning_rate_init=schedule, **parameters).fit(X, line)
        assert_allclose(seen, [schedule(t) for t in range(6)])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_dtype(self, dtype):
        model = MLPClassifier(dtype=dtype, max_iter=2).fit(X, thirds)
        assert model.coefs_[0].dtype == dtype
        assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)

    def test_threads_do_not_matter(self):
        a, b = (MLPRegressor(threads=threads, max_iter=3, random_state=0).fit(X, line) for threads in (1, 2))
        assert_same_weights(a, b, tolerance=1e-12)


class TestScaling:
    def test_weight_two_is_twice_here_too(self):
        w = np.random.default_rng(1).integers(0, 4, N)
        rows = np.repeat(np.arange(N), w)
        model = ours("one number", scale_inputs=True, scale_targets=True, solver="sgd", batch_size=10**6, max_iter=5)
        weighted = clone(model).fit(5 + X, 100 * line, sample_weight=w)
        repeated = clone(model).fit(5 + X[rows], 100 * line[rows])
        assert_allclose(weighted.predict(5 + X), repeated.predict(5 + X), rtol=1e-9)

    def test_inputs_of_any_size(self):
        scales = 10.0 ** np.array([-8, 0, 4, 8])
        Z = X * scales + 5 * scales
        plain = ours("one number", solver="lbfgs").fit((Z - Z.mean(axis=0)) / Z.std(axis=0), line)
        scaled = ours("one number", solver="lbfgs", scale_inputs=True).fit(Z, line)
        assert_allclose(scaled.predict(Z), plain.predict((Z - Z.mean(axis=0)) / Z.std(axis=0)), rtol=1e-6)

    def test_scaling_is_that_of_the_training_data(self):
        model = ours("one number", scale_inputs=True, scale_targets=True, max_iter=200, learning_rate_init=0.02)
        y = 1000 + 50 * line
        model.fit(X, y)
        assert model.score(X, y) > 0.9
        assert_allclose(model.predict(X[:1]), model.predict(X)[:1], rtol=1e-10)

    @pytest.mark.parametrize("constant", [0.0, 0.1, 1e9, -7.7])
    def test_a_constant_column_says_nothing(self, constant):
        Z = X.copy()
        Z[:, 1] = constant
        model = ours("one number", scale_inputs=True, max_iter=5).fit(Z, line)
        Z[:, 1] += 1e-3
        predicted = model.predict(Z)
        assert np.isfinite(predicted).all()
        assert np.abs(predicted).max() < 1e3

    def test_constant_targets(self):
        model = ours("one number", scale_targets=True, max_iter=5).fit(X, np.full(N, 0.1))
        assert_allclose(model.predict(X), 0.1, atol=2.0)

    def test_early_stopping_judges_in_the_units_of_y(self):
        y = 1000 + 50 * line
        model = ours("one number", scale_targets=True, early_stopping=True, max_iter=20, learning_rate_init=0.02)
        model.fit(X[:40], y[:40], validation_data=(X[40:], y[40:]))
        assert_allclose(model.best_validation_score_, model.score(X[40:], y[40:]), rtol=1e-12)


SPARSE = scipy.sparse.random(N, 8, 0.3, random_state=0, format="csr")


class TestSparse:
    @pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "csc_matrix", "coo_array"])
    @pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
    @pytest.mark.parametrize("kind", ["three classes", "one number"])
    def test_sparse_is_dense(self, form, solver, kind):
        S, y = getattr(scipy.sparse, form)(SPARSE), KINDS[kind][1]
        model = ours(kind, solver=solver, max_iter=10, batch_size=N)
        dense, sparse = clone(model).fit(SPARSE.toarray(), y), clone(model).fit(S, y)
        assert_same_weights(dense, sparse, tolerance=1e-9)
        assert_allclose(outputs(dense, SPARSE.toarray()), outputs(sparse, S), rtol=1e-9, atol=1e-9)

    def test_early_stopping_partial_fit_and_validation_data(self):
        model = ours("one number", early_stopping=True, max_iter=3)
        model.fit(SPARSE, line).partial_fit(SPARSE, line, epochs=2)
        model.fit(SPARSE[:40], line[:40], validation_data=(SPARSE[40:], line[40:]))
        assert len(model.validation_scores_) == 3

    def test_shifting_would_fill_it(self):
        with pytest.raises(ValueError, match="scale_inputs=False"):
            ours("one number", scale_inputs=True).fit(SPARSE, line)


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


def test_a_lazy_frame_is_told_to_collect():
    frame = pl.LazyFrame({"a": [1.0, 2.0], "b": [0.0, 1.0]})
    for y in ("b", [1.0, 2.0]):
        with pytest.raises(TypeError, match=r"MLPRegressor: .*got a lazy frame. Pass frame.collect\(\)"):
            MLPRegressor(max_iter=2).fit(frame, y)


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


class TestConversion:
    """From scikit-learn and back; predictions are equal up to the last digits."""

    @pytest.mark.parametrize("parameters", [{"early_stopping": True}, {"solver": "lbfgs"}, {}], ids=str)
    def test_theirs_goes_on(self, parameters):
        """Also where it does not improve."""
        theirs = to_sklearn(MLPClassifier((5,), max_iter=3, random_state=0, **parameters).fit(X, thirds))
        if "early_stopping" in parameters:
            theirs.best_validation_score_ = 1.0
        theirs.best_loss_ = None if "early_stopping" in parameters else 0.0
        before = theirs.t_
        assert theirs.set_params(solver="adam", warm_start=True).fit(X, thirds).t_ > before

    @every_kind
    @pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
    def test_both_ways(self, kind, activation):
        a, b = both(kind, activation=activation, max_iter=5, hidden_layer_sizes=(5, 4))
        for model, converted in ((a, to_sklearn(a)), (b, from_sklearn(b))):
            assert type(converted).__module__.partition(".")[0] != type(model).__module__.partition(".")[0]
            assert_allclose(outputs(converted), outputs(model), rtol=1e-10)
            assert_array_equal(converted.predict(X) == model.predict(X), True) if "number" not in kind else None
            assert_same_weights(converted, model)
            for name in ("n_layers_", "n_outputs_", "out_activation_", "n_iter_", "t_", "loss_", "best_loss_"):
                assert getattr(converted, name) == getattr(model, name), name
            shared = converted.get_params().keys() & model.get_params().keys()
            assert all(converted.get_params()[name] == model.get_params()[name] for name in shared)

    @every_kind
    def test_there_and_back(self, kind):
        model = ours(kind, max_iter=5).fit(X, KINDS[kind][1])
        assert_array_equal(outputs(from_sklearn(to_sklearn(model))), outputs(model))

    @pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
    def test_what_comes_out_can_be_trained_on(self, solver):
        for kind in ("three classes", "one number"):
            y = KINDS[kind][1]
            a, b = both(kind, solver=solver, max_iter=2, warm_start=True)
            for converted in (to_sklearn(a), from_sklearn(b)):
                before = converted.loss_
                assert converted.set_params(max_iter=30).fit(X, y).loss_ < before
                assert clone(converted).fit(X, y).n_iter_ > 0
                if solver != "lbfgs":
                    converted.partial_fit(X, y)

    def test_a_converted_model_shares_nothing(self):
        a, b = both("one number", max_iter=2, warm_start=True, random_state=np.random.RandomState(0))
        for model, converted in ((a, to_sklearn(a)), (b, from_sklearn(b))):
            before, losses = model.predict(X), list(model.loss_curve_)
            converted.fit(X, line)
            assert_array_equal(model.predict(X), before)
            assert model.loss_curve_ == losses

    def test_conversion_draws_nothing_from_the_users_generator(self):
        random = np.random.RandomState(0)
        model = neural_network.MLPRegressor(random_state=random, max_iter=2).fit(X, line)
        before = random.get_state()[1].copy(), random.get_state()[2]
        from_sklearn(model)
        assert_array_equal(random.get_state()[1], before[0])
        assert random.get_state()[2] == before[1]

    @regressors
    def test_scaling_is_worked_into_the_weights(self, kind):
        Z, y = 100 + 7 * X, 1000 + 50 * KINDS[kind][1]
        model = ours(kind, scale_inputs=True, scale_targets=True, max_iter=20).fit(Z, y)
        assert_allclose(to_sklearn(model).predict(Z), model.predict(Z), rtol=1e-9)

    def test_scaling_without_a_hidden_layer(self):
        model = ours("one number", hidden_layer_sizes=(), scale_inputs=True, scale_targets=True, max_iter=5)
        model.fit(100 + 7 * X, line)
        assert_allclose(to_sklearn(model).predict(100 + 7 * X), model.predict(100 + 7 * X), rtol=1e-9)

    @pytest.mark.parametrize("loss", ["absolute_error", "huber", "poisson"])
    def test_losses_that_do_not_matter_to_predictions(self, loss):
        model = MLPRegressor(loss, dropout=0.2, max_iter=3, random_state=0).fit(X, COUNTS)
        assert_allclose(to_sklearn(model).predict(X), model.predict(X), rtol=1e-10)

    @pytest.mark.parametrize("names", [["no", "yes"], [-7, -2], ["a", "b", "c"]], ids=str)
    def test_classes(self, names):
        y = np.array(names)[thirds % len(names)]
        model = MLPClassifier(max_iter=20, random_state=0).fit(X, y)
        there = to_sklearn(model)
        assert_array_equal(there.predict(X), model.predict(X))
        assert_array_equal(from_sklearn(there).predict(X), model.predict(X))
        assert there.score(X, y) == model.score(X, y)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_dtype(self, dtype):
        Z = X.astype(dtype)
        model = MLPRegressor(max_iter=2).fit(Z, line)
        there = to_sklearn(model)
        assert there.coefs_[0].dtype == from_sklearn(there).coefs_[0].dtype == dtype

    def test_early_stopping(self):
        a, b = both("two classes", early_stopping=True, max_iter=3)
        for model, converted in ((a, to_sklearn(a)), (b, from_sklearn(b))):
            assert converted.validation_scores_ == model.validation_scores_
            assert converted.best_validation_score_ == model.best_validation_score_

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (MLPRegressor(activation="silu"), "activation"),
            (MLPRegressor(activation=bp.ReLU()), "activation"),
            (MLPRegressor("quantile"), "one output per target"),
            (MLPRegressor("gaussian"), "one output per target"),
        ],
        ids=str,
    )
    def test_refuses_what_cannot_be_said(self, model, words):
        with pytest.raises(ValueError, match=words):
            to_sklearn(model.set_params(max_iter=1).fit(X, line))

    def test_refuses_what_is_not_fitted_or_not_theirs(self):
        for model, convert in ((MLPRegressor(), to_sklearn), (neural_network.MLPRegressor(), from_sklearn)):
            with pytest.raises(NotFittedError):
                convert(model)
        with pytest.raises(TypeError, match="scikit-learn"):
            from_sklearn(Ridge().fit(X, line))
        with pytest.raises(TypeError, match="MLP"):
            to_sklearn(Ridge().fit(X, line))


SAVED = {
    **{name: (kind, y, {}) for name, (kind, y) in KINDS.items()},
    "words as classes": (MLPClassifier, np.array(["a", "b", "c"])[thirds], {"scale_inputs": True}),
    "booleans": (MLPClassifier, line > 0, {"solver": "lbfgs", "dtype": "float32"}),
    "scaled": (MLPRegressor, X[:, :3], {"scale_inputs": True, "scale_targets": True, "activation": bp.LeakyReLU(0.2)}),
    "one scaled target": (MLPRegressor, line, {"scale_targets": True, "early_stopping": True, "activation": ["silu"]}),
    "Gaussian": (MLPRegressor, line, {"loss": "gaussian", "dropout": 0.2}),
    "a loss object": (MLPRegressor, line, {"loss": bp.Huber(0.5), "learning_rate_init": bp.CosineDecay(0.01, steps=9)}),
    "callbacks": (MLPRegressor, line, {"callbacks": [bp.EarlyStopping()], "random_state": np.random.RandomState(0)}),
}


class TestFiles:
    @pytest.mark.parametrize("case", SAVED)
    def test_comes_back_as_it_was(self, case, tmp_path):
        kind, y, parameters = SAVED[case]
        model = kind(**{"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 4, **parameters}).fit(X, y)
        model.save(tmp_path / "model.safetensors")
        again = kind.load(tmp_path / "model.safetensors")
        assert_array_equal(outputs(again), outputs(model))
        assert_array_equal(again.predict(X), model.predict(X))
        assert again.predict(X).dtype == model.predict(X).dtype
        assert again.score(X, y) == model.score(X, y)
        assert_same_weights(again, model)
        skipped = {"callbacks", "random_state", "_course", "network_", "activation", "learning_rate_init", "loss"}
        for name in vars(model).keys() - skipped:
            if not isinstance(getattr(model, name), (bp.Loss, np.ndarray)) and not name.startswith("_"):
                assert getattr(again, name) == getattr(model, name), name
        again.partial_fit(X, y) if hasattr(again, "partial_fit") else again.fit(X, y)
        assert np.isfinite(outputs(again)).all()

    def test_a_table_comes_along(self, tmp_path):
        model = fitted_flats()
        model.save(tmp_path / "model.safetensors")
        again = MLPRegressor.load(tmp_path / "model.safetensors")
        assert_array_equal(again.predict(FLATS[FEATURES]), model.predict(FLATS[FEATURES]))
        assert_array_equal(again.feature_names_in_, FEATURES)

    def test_own_losses_are_passed(self, tmp_path):
        model = MLPRegressor(LogCosh(), hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(X, line)
        model.save(tmp_path / "model.safetensors")
        with pytest.raises(bp.FileFormatError, match="LogCosh"):
            MLPRegressor.load(tmp_path / "model.safetensors")
        again = MLPRegressor.load(tmp_path / "model.safetensors", [LogCosh])
        assert_array_equal(again.predict(X), model.predict(X))

    def test_refused(self, tmp_path):
        path = tmp_path / "model.safetensors"
        with pytest.raises(NotFittedError):
            MLPRegressor().save(path)
        with pytest.raises(TypeError, match="monitor"):
            ours("one number", monitor=lambda model, X, y: 0.0).fit(X, line).save(path)
        assert not path.exists()
        bp.Sequential(bp.Linear(4, 1)).save(path)
        with pytest.raises(bp.FileFormatError, match=r"Sequential\.load opens it"):
            MLPRegressor.load(path)
        ours("one number", max_iter=2).fit(X, line).save(path)
        with pytest.raises(bp.FileFormatError, match="MLPRegressor"):
            MLPClassifier.load(path)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(bp.FileFormatError):
            MLPRegressor.load(path)


class TestInsideOthers:
    def test_pipeline_with_names_of_features(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=list("abcd"))
        model = make_pipeline(StandardScaler().set_output(transform="pandas"), MLPRegressor(solver="lbfgs", alpha=0.01))
        model.fit(frame, line)
        assert_array_equal(model[-1].feature_names_in_, list("abcd"))
        assert model.score(frame, line) > 0.95
        with pytest.raises(ValueError, match="feature names"):
            model[-1].predict(frame[list("dcba")])

    def test_frame_is_array(self):
        pandas = pytest.importorskip("pandas")
        frame, y = pandas.DataFrame(X, columns=list("abcd")), pandas.Series(line)
        model = MLPRegressor(max_iter=3, random_state=0)
        assert_array_equal(clone(model).fit(frame, y).predict(frame), clone(model).fit(X, line).predict(X))
        names = pandas.Series(np.array(["a", "b", "c"])[thirds]).astype("category")
        classifier = MLPClassifier(max_iter=30, learning_rate_init=0.05).fit(frame, names)
        assert_array_equal(classifier.classes_, ["a", "b", "c"])
        assert classifier.score(frame, names) > 0.8

    def test_column_transformer(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"size": X[:, 0], "weight": X[:, 1], "color": np.array(["red", "green"])[thirds % 2]})
        columns = ColumnTransformer([("n", StandardScaler(), ["size", "weight"]), ("c", OneHotEncoder(), ["color"])])
        y = line + 3 * (frame["color"] == "red")
        model = make_pipeline(columns, MLPRegressor(solver="lbfgs", alpha=0.01, random_state=0)).fit(frame, y)
        assert model.score(frame, y) > 0.9

    def test_grid_search_with_two_jobs(self):
        grid = {"alpha": [1e-3, 10.0], "activation": ["tanh", "silu"]}
        search = GridSearchCV(MLPClassifier((5,), solver="lbfgs", random_state=0), grid, cv=2, n_jobs=2)
        search.fit(X, thirds)
        assert search.best_params_["alpha"] == 1e-3
        assert search.best_estimator_.score(X, thirds) == search.score(X, thirds)

    def test_cross_validation(self):
        model = MLPRegressor(hidden_layer_sizes=(), solver="lbfgs", alpha=0.01)
        assert cross_val_score(model, X, line, cv=3).min() > 0.9

    @pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
    def test_calibration(self, method):
        model = CalibratedClassifierCV(MLPClassifier((5,), max_iter=30, random_state=0), method=method, cv=2)
        p = model.fit(X, thirds, sample_weight=np.ones(N)).predict_proba(X)
        assert_allclose(p.sum(axis=1), 1)

    def test_ada_boost(self):
        model = AdaBoostRegressor(ours("one number", solver="lbfgs"), n_estimators=3, random_state=0).fit(X, line)
        assert len(model.estimators_) >= 1
        assert model.score(X, line) > 0.9

    def test_bagging(self):
        model = BaggingClassifier(MLPClassifier((5,), solver="lbfgs"), n_estimators=3, random_state=0)
        assert model.fit(X, thirds).score(X, thirds) > 0.8

    def test_transformed_targets(self):
        model = TransformedTargetRegressor(ours("one number", solver="lbfgs"), func=np.log, inverse_func=np.exp)
        assert model.fit(X, np.exp(line)).score(X, np.exp(line)) > 0.9

    def test_metadata_routing(self):
        w = np.random.default_rng(0).uniform(0, 2, N)
        with sklearn.config_context(enable_metadata_routing=True):
            network = MLPRegressor(max_iter=5, random_state=0).set_fit_request(sample_weight=True)
            model = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), network)
            model.fit(X, line, sample_weight=w)
            Z = StandardScaler().fit_transform(X)
            assert_same_weights(model[-1], clone(network).fit(Z, line, sample_weight=w))
            requests = network.get_metadata_routing().fit.requests
        assert {"sample_weight", "validation_data"} <= set(requests)

    def test_clone_has_parameters_and_nothing_else(self):
        model = MLPClassifier((3,), ["tanh"], dropout=[0.1], class_weight={0: 1.0, 1: 2.0, 2: 1.0}, max_iter=2)
        twin = clone(model.fit(X, thirds))
        assert not [name for name in vars(twin) if name.endswith("_")]
        assert str(twin.get_params()) == str(model.get_params())
        assert repr(twin) == repr(model)

    def test_is_shown_in_a_notebook(self):
        for model in (
            MLPRegressor(hidden_layer_sizes=(5,)),
            MLPRegressor(hidden_layer_sizes=(5,), max_iter=1).fit(X, line),
        ):
            assert "MLPRegressor" in model._repr_html_()

    def test_a_subclass_works(self):
        class Wide(MLPRegressor):
            def __init__(self, width=7, max_iter=2):
                super().__init__(hidden_layer_sizes=(width, width), max_iter=max_iter)
                self.width = width

        assert clone(Wide(4)).fit(X, line).coefs_[0].shape == (D, 4)


def state(model):
    """What can be seen of a model."""
    seen = {name: repr(value) for name, value in vars(model).items() if name != "network_"}
    if not hasattr(model, "network_"):
        return seen
    optimizer = model._course.optimizer
    vectors = {"φ": model.network_.phi, **(optimizer.state if optimizer else {})}
    return seen | {name: vector.tobytes() for name, vector in vectors.items()} | {"t": optimizer and optimizer.t}


def with_nan(array):
    array = array.astype(float)
    array[3, 1] = np.nan
    return array


REFUSED = {
    # parameters
    "hidden_layer_sizes 0": (lambda m: m.set_params(hidden_layer_sizes=(5, 0)).fit(X, thirds), "hidden_layer_sizes"),
    "hidden_layer_sizes -1": (lambda m: m.set_params(hidden_layer_sizes=-1).fit(X, thirds), "hidden_layer_sizes"),
    "hidden_layer_sizes text": (lambda m: m.set_params(hidden_layer_sizes="5").fit(X, thirds), "hidden_layer_sizes"),
    "hidden_layer_sizes 1.5": (lambda m: m.set_params(hidden_layer_sizes=[1.5]).fit(X, thirds), "hidden_layer_sizes"),
    "activation": (lambda m: m.set_params(activation="rleu").fit(X, thirds), "relu"),
    "too many activations": (
        lambda m: m.set_params(activation=["relu"] * 3).fit(X, thirds),
        "activation.*hidden layer",
    ),
    "activation object": (lambda m: m.set_params(activation=np.tanh).fit(X, thirds), "activation"),
    "solver": (lambda m: m.set_params(solver="newton").fit(X, thirds), "lbfgs"),
    "alpha": (lambda m: m.set_params(alpha=-1.0).fit(X, thirds), "alpha"),
    "alpha nan": (lambda m: m.set_params(alpha=float("nan")).fit(X, thirds), "alpha"),
    "batch_size": (lambda m: m.set_params(batch_size=0).fit(X, thirds), "batch_size"),
    "batch_size text": (lambda m: m.set_params(batch_size="all").fit(X, thirds), "batch_size"),
    "learning_rate": (lambda m: m.set_params(learning_rate=0.1).fit(X, thirds), "learning_rate"),
    "learning_rate_init": (lambda m: m.set_params(learning_rate_init=0.0).fit(X, thirds), "learning_rate"),
    "max_iter": (lambda m: m.set_params(max_iter=0).fit(X, thirds), "max_iter"),
    "max_fun": (lambda m: m.set_params(solver="lbfgs", max_fun=-1).fit(X, thirds), "max_fun"),
    "tol": (lambda m: m.set_params(tol=-0.1).fit(X, thirds), "tol"),
    "shuffle": (lambda m: m.set_params(shuffle="yes").fit(X, thirds), "shuffle"),
    "momentum": (lambda m: m.set_params(solver="sgd", momentum=2.0).fit(X, thirds), "momentum"),
    "power_t": (
        lambda m: m.set_params(solver="sgd", learning_rate="invscaling", power_t=-1.0).fit(X, thirds),
        "power_t",
    ),
    "beta_1": (lambda m: m.set_params(beta_1=1.0).fit(X, thirds), "beta"),
    "epsilon": (lambda m: m.set_params(epsilon=-0.5).fit(X, thirds), "eps"),
    "n_iter_no_change": (lambda m: m.set_params(n_iter_no_change=-1).fit(X, thirds), "n_iter_no_change"),
    "validation_fraction": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=1.0).fit(X, thirds),
        "validation_fraction",
    ),
    "dropout 1": (lambda m: m.set_params(dropout=1.0).fit(X, thirds), "dropout"),
    "too many dropouts": (lambda m: m.set_params(dropout=[0.1] * 3).fit(X, thirds), "dropout.*hidden layer"),
    "dropout with L-BFGS": (lambda m: m.set_params(dropout=0.5, solver="lbfgs").fit(X, thirds), "random|dropout"),
    "dtype": (lambda m: m.set_params(dtype="int8").fit(X, thirds), "float32"),
    "threads": (lambda m: m.set_params(threads=0).fit(X, thirds), "threads"),
    "random_state": (lambda m: m.set_params(random_state="0").fit(X, thirds), "'0'"),
    "callbacks": (lambda m: m.set_params(callbacks=[print]).fit(X, thirds), "callbacks"),
    "a class as a callback": (lambda m: m.set_params(callbacks=[bp.EarlyStopping]).fit(X, thirds), "callbacks"),
    "monitor": (lambda m: m.set_params(early_stopping=True, monitor="f1_marco").fit(X, thirds), "f1_macro"),
    "monitor number": (lambda m: m.set_params(early_stopping=True, monitor=1).fit(X, thirds), "monitor"),
    "class_weight": (lambda m: m.set_params(class_weight="equal").fit(X, thirds), "balanced"),
    # data
    "NaN in X": (lambda m: m.fit(with_nan(X), thirds), "NaN"),
    "inf in X": (lambda m: m.fit(np.where(X > 2, np.inf, X), thirds), "NaN|inf"),
    "text in X": (lambda m: m.fit(np.full((N, D), "a"), thirds), "could not convert|dtype"),
    "X of one dimension": (lambda m: m.fit(X[:, 0], thirds), "2D array"),
    "no examples": (lambda m: m.fit(X[:0], thirds[:0]), "0 sample"),
    "no columns": (lambda m: m.fit(X[:, :0], thirds), "0 feature"),
    "other lengths": (lambda m: m.fit(X, thirds[:-1]), "inconsistent numbers of samples"),
    "numbers for classes": (lambda m: m.fit(X, line), "continuous"),
    "one class": (lambda m: m.fit(X, np.full(N, 3)), "at least two classes.*one class, 3"),
    "the only class": (lambda m: clone(m).partial_fit(X, np.full(N, "a"), classes=["a"]), "at least two classes"),
    "class_weight 0": (
        lambda m: m.set_params(class_weight={0: 0, 1: 0, 2: 0}).fit(X, thirds),
        "class_weight ≥ 0, and > 0 for some",
    ),
    "class_weight -1": (lambda m: m.set_params(class_weight={0: -1, 1: 1, 2: 1}).fit(X, thirds), "class_weight ≥ 0"),
    "weight in what is held out alone": (
        lambda m: m.set_params(early_stopping=True).fit(X, line > 0, held_out_alone(m, line > 0)),
        "sample_weight > 0",
    ),
    "balanced in parts": (
        lambda m: clone(m).set_params(class_weight="balanced").partial_fit(X, thirds, classes=[0, 1, 2]),
        "class_weight a dict",
    ),
    "nothing to hold out": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=0.0).fit(X, thirds),
        "validation_fraction > 0",
    ),
    "several columns of classes": (lambda m: m.fit(X, np.column_stack([thirds, thirds])), "[Mm]ultioutput"),
    "weights too few": (lambda m: m.fit(X, thirds, sample_weight=np.ones(3)), "sample_weight"),
    "weights negative": (lambda m: m.fit(X, thirds, sample_weight=-np.ones(N)), "[Nn]egative|≥ 0"),
    "weights all zero": (lambda m: m.fit(X, thirds, sample_weight=np.zeros(N)), "zero|> 0|not all 0"),
    "weights NaN": (lambda m: m.fit(X, thirds, sample_weight=np.full(N, np.nan)), "NaN"),
    "too few to hold out": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=0.01).fit(X, thirds),
        "at least 2 examples.*got 1 of 60 by validation_fraction=0.01",
    ),
    "too few to train on": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=0.99).fit(X, thirds),
        "some to train on, got 60 of 60 by validation_fraction=0.99",
    ),
    "one example of a class to hold out": (
        lambda m: m.set_params(early_stopping=True).fit(X, np.r_[1, np.zeros(N - 1, int)]),
        r"each class to train on.*\[59, 1\] examples of \[0, 1\], and 6 to hold out",
    ),
    "validation data of other columns": (lambda m: m.fit(X, thirds, validation_data=(X[:, :2], thirds)), "features"),
    "validation data of other classes": (lambda m: m.fit(X, thirds, validation_data=(X, thirds + 5)), "classes"),
    "validation data that is no pair": (lambda m: m.fit(X, thirds, validation_data=X), "validation_data"),
    "first partial_fit without classes": (lambda m: clone(m).partial_fit(X, thirds), "classes"),
}

REFUSED_WHEN_FITTED = {
    "other columns in predict": (lambda m: m.predict(X[:, :2]), "features"),
    "NaN in predict": (lambda m: m.predict(with_nan(X)), "NaN"),
    "other columns in partial_fit": (lambda m: m.partial_fit(X[:, :2], thirds), "features"),
    "a new class in partial_fit": (lambda m: m.partial_fit(X, thirds + 1), "classes"),
    "other classes in partial_fit": (lambda m: m.partial_fit(X, thirds, classes=[0, 1]), "classes"),
    "epochs 0": (lambda m: m.partial_fit(X, thirds, epochs=0), "epochs"),
    "other columns in a warm start": (lambda m: m.set_params(warm_start=True).fit(X[:, :2], thirds), "features"),
    "a new class in a warm start": (lambda m: m.set_params(warm_start=True).fit(X, thirds + 1), "classes"),
}


class TestErrors:
    """One clear error, and the model as it was."""

    @pytest.mark.parametrize("case", REFUSED)
    @pytest.mark.parametrize("fitted", [False, True])
    def test_refused(self, case, fitted):
        call, words = REFUSED[case]
        model = MLPClassifier((5,), max_iter=2, random_state=0)
        if fitted:
            model.fit(X, thirds)
        self.check(model, call, words)

    @pytest.mark.parametrize("case", REFUSED_WHEN_FITTED)
    def test_refused_when_fitted(self, case):
        call, words = REFUSED_WHEN_FITTED[case]
        self.check(MLPClassifier((5,), max_iter=2, random_state=0).fit(X, thirds), call, words)

    def check(self, model, call, words):
        before = state(model)
        parameters = set(model.get_params())
        with pytest.raises((ValueError, TypeError), match=words):
            call(model)
        after = state(model)
        assert {name for name in before if name not in parameters} == {name for name in after if name not in parameters}
        for name in before.keys() - parameters:
            assert before[name] == after[name], name

    @pytest.mark.parametrize(
        ("model", "call", "words"),
        [
            (MLPRegressor("squares"), lambda m: m.fit(X, line), "squared_error"),
            (MLPRegressor(bp.LeastSquares), lambda m: m.fit(X, line), "loss"),
            (MLPRegressor("huber", delta=-1.0), lambda m: m.fit(X, line), "delta"),
            (MLPRegressor("quantile", quantiles=(0.5, 1.5)), lambda m: m.fit(X, line), "quantile"),
            (MLPRegressor("quantile", quantiles=()), lambda m: m.fit(X, line), "quantile"),
            (MLPRegressor("poisson"), lambda m: m.fit(X, line), "y|count|≥ 0"),
            (MLPRegressor("poisson", scale_targets=True), lambda m: m.fit(X, COUNTS), "scale_targets"),
            (MLPRegressor(), lambda m: m.fit(X, np.where(line > 0, np.nan, line)), "NaN"),
            (MLPRegressor(), lambda m: m.fit(X, np.full(N, "a")), "y: numbers.*'a' at row 0"),
            (MLPRegressor(), lambda m: m.fit(X, line[:, None, None]), "dim"),
            (MLPRegressor(), lambda m: m.fit(X, line).partial_fit(X, X), "columns"),
            (MLPRegressor(learning_rate_init=1e200), lambda m: m.fit(X, line), "finite"),
            (MLPRegressor(scale_inputs="yes"), lambda m: m.fit(X, line), "scale_inputs"),
            (MLPRegressor(scale_targets=2), lambda m: m.fit(X, line), "scale_targets"),
        ],
        ids=range(14),
    )
    def test_of_the_regressor(self, model, call, words):
        with pytest.raises((ValueError, TypeError), match=words):
            call(model)

    @pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
    def test_unfitted(self, method):
        with pytest.raises(NotFittedError):
            getattr(MLPClassifier(), method)(X)
        for name in ("coefs_", "intercepts_", "classes_", "loss_", "n_iter_", "network_"):
            assert not hasattr(MLPClassifier(), name)

    def test_l_bfgs_has_no_partial_fit(self):
        assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
        assert hasattr(MLPClassifier(), "partial_fit")

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_refused_fit_leaves_the_network_itself(self, method):
        """Weights that somebody took from it are still its own."""
        model = ours("one number", warm_start=True, max_iter=3).fit(X, line)
        net, coefs, before = model.network_, model.coefs_, model.network_.phi.copy()

        class Broken(bp.Callback):
            def epoch(self, trainer, record):
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            getattr(model.set_params(callbacks=[Broken()], learning_rate_init=0.1), method)(X, line)
        assert model.network_ is net
        assert np.shares_memory(coefs[0], net.phi)
        assert_array_equal(net.phi, before)

    def test_a_refused_fit_leaves_no_trace_in_the_next(self):
        a, b = (ours("one number", warm_start=True, max_iter=3, dropout=0.2).fit(X, line) for _ in range(2))
        for bad in (with_nan(X), X[:, :2]):
            with pytest.raises(ValueError, match=r"NaN|features"):
                a.fit(bad, line)
        assert_same_weights(a.fit(X, line), b.fit(X, line))

    @pytest.mark.parametrize("solver", ["sgd", "adam"])
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_fit_that_diverges_changes_nothing(self, solver, method):
        model = ours("one number", solver=solver, warm_start=True, max_iter=3).fit(X, line)
        before = state(model)

        class Poison(bp.Callback):
            def epoch(self, trainer, record):
                trainer.net.phi[0] = np.nan

        model.set_params(callbacks=[Poison()])
        with pytest.raises(ValueError, match="finite"):
            model.fit(X, line) if method == "fit" else model.partial_fit(X, line, epochs=3)
        model.set_params(callbacks=None)
        assert state(model) == before

    def test_ctrl_c_keeps_what_was_learned(self):
        class Interrupt(bp.Callback):
            def epoch(self, trainer, record):
                if record.epoch == 3:
                    raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="interrupted"):
            model = MLPRegressor(callbacks=[Interrupt()], max_iter=20).fit(X, line)
        assert len(model.loss_curve_) == 3
        assert np.isfinite(model.predict(X)).all()
