"""Frames of any library as what an estimator is fitted to."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

import sklearn.metrics
import sklearn.model_selection
from estimating import FEATURES, FLATS, FRAMES, N, X, assert_same_weights, every_library, fitted_flats, line, state
from sklearn.base import clone

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor, to_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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


def test_a_lazy_frame_is_told_to_collect():
    frame = pl.LazyFrame({"a": [1.0, 2.0], "b": [0.0, 1.0]})
    for y in ("b", [1.0, 2.0]):
        with pytest.raises(TypeError, match=r"MLPRegressor: .*got a lazy frame. Pass frame.collect\(\)"):
            MLPRegressor(max_iter=2).fit(frame, y)
