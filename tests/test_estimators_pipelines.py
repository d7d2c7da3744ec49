"""Estimators inside what scikit-learn is made of: pipelines, searches, ensembles."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

import sklearn.metrics
import sklearn.model_selection
from estimating import D, N, X, assert_same_weights, line, ours, thirds
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import AdaBoostRegressor, BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from backprop.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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
