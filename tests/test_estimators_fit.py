"""What a fit trains on: dtypes, weights, layers, scaling, sparse rows; and where it goes on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

import scipy.sparse
from estimating import (
    KINDS,
    ONE_BATCH,
    N,
    X,
    assert_same_weights,
    classifiers,
    every_kind,
    line,
    ours,
    outputs,
    state,
    theirs,
    thirds,
)
from sklearn.base import clone

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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

    @pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
    def test_nor_does_who_plays_the_steps(self, solver):
        made = [
            MLPRegressor(solver=solver, native=native, max_iter=30, random_state=0, batch_size=10).fit(X, line)
            for native in (False, True)
        ]
        assert_array_equal(made[0].network_.phi, made[1].network_.phi)
        with pytest.raises(ValueError, match="MLPRegressor: expected native True, False or"):
            made[0].set_params(native="yes").fit(X, line)


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
        with pytest.warns(bp.TrainingAdvice, match=r"columns \[1\] hold one value only"):
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
        model.fit(SPARSE, line).partial_fit(SPARSE, line, X_val=SPARSE[40:], y_val=line[40:], epochs=2)
        model.fit(SPARSE[:40], line[:40], validation_data=(SPARSE[40:], line[40:]))
        assert len(model.validation_scores_) == 3

    def test_shifting_would_fill_it(self):
        with pytest.raises(ValueError, match="scale_inputs=False"):
            ours("one number", scale_inputs=True).fit(SPARSE, line)
