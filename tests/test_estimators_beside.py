"""Estimators beside scikit-learn's on the same data: the same steps, attributes and answers."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

from estimating import (
    KINDS,
    ONE_BATCH,
    N,
    X,
    assert_same_weights,
    both,
    classifiers,
    every_kind,
    line,
    ours,
    outputs,
    regressors,
    theirs,
    thirds,
)
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import PoissonRegressor, Ridge

from backprop.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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
