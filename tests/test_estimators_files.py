"""Models converted from scikit-learn's and back, and models in files."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

from estimating import (
    COUNTS,
    FEATURES,
    FLATS,
    KINDS,
    X,
    assert_same_weights,
    both,
    every_kind,
    fitted_flats,
    line,
    ours,
    outputs,
    regressors,
    thirds,
)
from helpers import LogCosh
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor, from_sklearn, to_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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

    @pytest.mark.parametrize("scale", [False, True])
    def test_a_fit_by_column_name(self, scale):
        """It once said "categories or holes" of a frame of numbers, because its target was a column."""
        frame = FLATS[["size", "lift", "rent"]]
        model = MLPRegressor(
            hidden_layer_sizes=(5,), scale_inputs=scale, scale_targets=scale, max_iter=5, random_state=0
        ).fit(frame, "rent")
        there, features = to_sklearn(model), frame[["size", "lift"]]
        assert_allclose(there.predict(features), model.predict(features), rtol=1e-9)
        for parameters, words in (({}, r"categories in columns \['town'\]"), ({"missing": "impute"}, "fills holes")):
            columns = ["size", "rent"] if parameters else ["size", "town", "rent"]
            with pytest.raises(ValueError, match=words):
                to_sklearn(MLPRegressor(max_iter=1, **parameters).fit(FLATS[columns], "rent"))

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


class TestNetworks:
    """The network and the table of an estimator predict what it predicts."""

    @pytest.mark.parametrize("case", [case for case in SAVED if "questions" not in case])
    def test_of_an_array(self, case):
        kind, y, parameters = SAVED[case]
        model = kind(**{"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 4, **parameters}).fit(X, y)
        before = model.network_.phi.copy()
        net, table = model.as_network()
        f = net.predict(table.transform(pa.table({f"x{j}": column for j, column in enumerate(X.T)})))
        if table.classes is not None:
            assert_array_equal(table.labels(f), model.predict(X))
            assert table.classes.dtype.kind == model.classes_.dtype.kind
        else:
            assert_allclose(table.values(f), model.predict(X), rtol=1e-6 if "float32" in str(net.phi.dtype) else 1e-12)
        net.phi[...] = 0
        assert_array_equal(model.network_.phi, before)

    @pytest.mark.parametrize("loss", ["quantile", "poisson"])
    def test_of_other_losses(self, loss):
        y, scale = COUNTS, {} if loss == "poisson" else {"scale_targets": True}
        model = MLPRegressor(loss, max_iter=3, random_state=0, scale_inputs=True, **scale).fit(X, y)
        net, table = model.as_network()
        f = net.predict(table.transform(pa.table({f"x{j}": column for j, column in enumerate(X.T)})))
        assert_allclose(table.values(f), model.predict(X), rtol=1e-10)

    def test_of_a_frame_with_words(self):
        model = fitted_flats()
        net, table = model.as_network()
        assert (table.target, table.columns) == ("rent", FEATURES)
        values = table.values(net.predict(table.transform(FLATS.drop(columns="let"))))
        assert_allclose(values, model.predict(FLATS[FEATURES]), rtol=1e-6)

    def test_several_questions_have_no_class_as_answer(self):
        model = ours("three yes-no questions", max_iter=1).fit(X, KINDS["three yes-no questions"][1])
        with pytest.raises(ValueError, match="3 questions of yes or no"):
            model.as_network()


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
        again.partial_fit(X, y, X_val=X, y_val=y) if hasattr(again, "partial_fit") else again.fit(X, y)
        assert np.isfinite(outputs(again)).all()

    @pytest.mark.parametrize(
        "labels",
        [
            np.array([1, 2**64 - 1], np.uint64),
            np.array(["2020-01-01", "2021-01-01"], "M8[ns]"),
            np.array(["2020-01-01", "2021-01-01"], "M8[D]"),
            np.array([1, 2], "m8[ns]"),
            [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)],
            [Decimal("1.5"), Decimal("2.50")],
        ],
        ids=lambda labels: str(getattr(labels, "dtype", type(labels[0]))),
    )
    def test_labels_come_back_as_they_were(self, labels, tmp_path):
        model = MLPClassifier((3,), max_iter=1).fit(X, [labels[k % 2] for k in range(len(X))])
        model.save(tmp_path / "m.safetensors")
        again = MLPClassifier.load(tmp_path / "m.safetensors").classes_
        assert again.dtype == model.classes_.dtype
        assert list(again) == list(model.classes_)

    def test_labels_that_no_file_holds_are_refused_before_it_is_written(self, tmp_path):
        periods = pd.period_range("2020-01", periods=2, freq="M").tolist()
        model = MLPClassifier((3,), max_iter=1).fit(X, pd.Series([periods[k % 2] for k in range(len(X))]))
        with pytest.raises(
            TypeError, match=r"MLPClassifier\.save: expected classes_ that a file can hold.*got Periods"
        ):
            model.save(tmp_path / "m.safetensors")
        assert not list(tmp_path.iterdir())

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
