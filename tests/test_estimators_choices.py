"""What a fit chooses by: validation data, groups, scores; and what of it stays, whatever is set later."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

from estimating import FEATURES, FLATS, KINDS, N, X, every_kind, line, ours, outputs, thirds
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor, to_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SCALES = {"scale_inputs": True, "scale_targets": True}
# How a regressor is made, and what is set after its fit.
SET_LATER = {
    "scaling off": (SCALES, {"scale_inputs": False, "scale_targets": False}),
    "scaling on": ({}, SCALES),
    "another loss": ({"loss": "gaussian"}, {"loss": "squared_error"}),
    "a loss by counts": ({}, {"loss": "poisson"}),
    "other quantiles": ({"loss": "quantile", "quantiles": (0.2, 0.8)}, {"quantiles": (0.1, 0.5, 0.9)}),
    "another delta": ({"loss": "huber", "delta": 2.0}, {"delta": -1.0}),
    "other layers": ({}, {"hidden_layer_sizes": (3, 3), "activation": ["tanh", "relu"], "dropout": 0.5}),
    "another dtype": ({}, {"dtype": "float32"}),
}


class TestWhatWasFittedCounts:
    @pytest.mark.parametrize("case", SET_LATER)
    def test_in_memory_and_in_the_file(self, case, tmp_path):
        made, later = SET_LATER[case]
        loss = made.get("loss", "squared_error")
        model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, random_state=0, **made).fit(10 * X, 5 + line)
        before = model.predict(10 * X)
        model.save(tmp_path / "first.safetensors")
        model.set_params(**later)
        assert_array_equal(model.predict(10 * X), before)
        assert_array_equal(pickle.loads(pickle.dumps(model)).predict(10 * X), before)
        model.save(tmp_path / "then.safetensors")
        assert (tmp_path / "then.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
        again = MLPRegressor.load(tmp_path / "then.safetensors")
        assert_array_equal(again.predict(10 * X), before)
        assert again.loss == loss
        if loss == "squared_error":
            assert_allclose(to_sklearn(model).predict(10 * X), before, rtol=1e-9)

    def test_a_loss_that_is_changed_later(self):
        model = MLPRegressor(bp.Huber(2.0), hidden_layer_sizes=(4,), max_iter=3, random_state=0).fit(X, line)
        model.loss.delta = 0.5
        with pytest.raises(
            ValueError, match=r"loss Huber\(delta=2.0\), as when training began, got Huber\(delta=0.5\)"
        ):
            model.partial_fit(X, line)


class TestWeightsThatAreSet:
    @every_kind
    def test_are_those_of_the_network(self, kind):
        a, b = ours(kind, max_iter=3).fit(X, KINDS[kind][1]), ours(kind, max_iter=9).fit(X, KINDS[kind][1])
        a.coefs_, a.intercepts_ = b.coefs_, b.intercepts_
        assert_array_equal(outputs(a), outputs(b))
        a.coefs_[0] = 2 * b.coefs_[0]
        assert_array_equal(a.coefs_[0], 2 * b.coefs_[0])
        copied = copy.deepcopy(a.coefs_)
        assert type(copied) is list
        copied[0][:] = 0
        assert a.coefs_[0].any()

    @pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")
    def test_before_the_first_fit_are_what_it_begins_with(self):
        start = ours("one number", max_iter=5).fit(X, line)
        for fit in ("fit", "partial_fit"):
            model = ours("one number", max_iter=1, learning_rate_init=1e-12)
            model.coefs_, model.intercepts_ = copy.deepcopy([start.coefs_, start.intercepts_])
            getattr(model, fit)(X, line)
            assert_allclose(model.predict(X), start.predict(X), rtol=1e-6)

    def test_count_after_early_stopping(self):
        """What is set takes the place of the weights that training would have gone on from."""
        model = ours("one number", early_stopping=True, warm_start=True, max_iter=30, learning_rate_init=0.05).fit(
            X, line
        )
        model.coefs_ = [0 * coef for coef in model.coefs_]
        model.set_params(max_iter=1, learning_rate_init=1e-9, early_stopping=False).fit(X, line)
        assert_allclose(model.coefs_[0], 0, atol=1e-6)

    def test_that_do_not_fit_are_refused_with_the_fit(self):
        model = ours("one number")
        model.coefs_ = [np.zeros((4, 5)), np.zeros((4, 1))]
        with pytest.raises(ValueError, match=r"coefs_\[1\]: expected shape \(5, 1\), got shape \(4, 1\)"):
            model.fit(X, line)
        assert not hasattr(model, "network_")


class TestOneClass:
    @pytest.mark.parametrize("label", [3, "a", True])
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_is_always_predicted(self, label, solver, tmp_path):
        y = np.full(N, label)
        with pytest.warns(bp.TrainingAdvice, match=f"y holds one class, {label!r}, which is always predicted"):
            model = MLPClassifier((4,), solver=solver, max_iter=3, random_state=0).fit(X, y)
        assert_array_equal(model.predict(50 * X), y)
        assert_array_equal(model.predict_proba(X), np.ones((N, 1)))
        assert model.score(X, y) == 1
        model.save(tmp_path / "m.safetensors")
        assert_array_equal(MLPClassifier.load(tmp_path / "m.safetensors").predict(X), y)

    def test_ends_by_itself_under_early_stopping(self):
        """Told in another way than by a UserWarning, of which some programs make errors."""
        with pytest.warns(RuntimeWarning, match="y holds one class, 3"):
            model = MLPClassifier((4,), early_stopping=True, random_state=0).fit(X, np.full(N, 3))
        assert model.n_iter_ < 20


class TestValidationData:
    def pipeline(self, **parameters):
        return make_pipeline(StandardScaler(), ours("one number", early_stopping=True, max_iter=4, **parameters))

    @pytest.mark.skipif(sklearn.__version__ < "1.6", reason="transform_input")
    def test_goes_through_a_pipeline_by_metadata_routing(self):
        scaled = StandardScaler().fit(100 * X)
        plain = ours("one number", early_stopping=True, max_iter=4)
        plain.fit(scaled.transform(100 * X), line, X_val=scaled.transform(100 * X[:20]), y_val=line[:20])
        with sklearn.config_context(enable_metadata_routing=True):
            model = ours("one number", early_stopping=True, max_iter=4).set_fit_request(X_val=True, y_val=True)
            pipeline = Pipeline([("scale", StandardScaler()), ("net", model)], transform_input=["X_val"])
            pipeline.fit(100 * X, line, X_val=100 * X[:20], y_val=line[:20])
        assert pipeline[-1].validation_scores_ == plain.validation_scores_
        assert pipeline.score(100 * X[:20], line[:20]) == pipeline[-1].best_validation_score_

    @pytest.mark.parametrize(
        "given",
        [
            {"mlpregressor__validation_data": (X, line)},
            {"mlpregressor__X_val": X, "mlpregressor__y_val": line},
        ],
        ids=["validation_data", "X_val"],
    )
    def test_past_the_steps_of_a_pipeline_is_told(self, given):
        with pytest.warns(bp.TrainingAdvice, match=r'came past the steps of the pipeline.*transform_input=\["X_val"\]'):
            self.pipeline().fit(X, line, **given)

    def test_where_nothing_is_transformed_is_not(self):
        for steps in (
            [("net", ours("one number", max_iter=2))],
            [("none", "passthrough"), ("net", ours("one number"))],
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("error", bp.TrainingAdvice)
                Pipeline(steps).set_params(net__max_iter=2).fit(X, line, net__validation_data=(X, line))

    def test_past_both_is_told_twice(self):
        inner = TransformedTargetRegressor(ours("one number", max_iter=2), func=np.log1p, inverse_func=np.expm1)
        given = {"net__X_val": X, "net__y_val": np.exp(line)}
        with pytest.warns(bp.TrainingAdvice) as caught:
            Pipeline([("scale", StandardScaler()), ("net", inner)]).fit(X, np.exp(line), **given)
        told = [str(warning.message) for warning in caught if warning.category is bp.TrainingAdvice]
        assert ["TransformedTargetRegressor" in told[0], "past the steps" in told[1]] == [True, True]

    def test_past_the_transformer_of_a_target_is_told(self):
        model = TransformedTargetRegressor(ours("one number", max_iter=2), func=np.log1p, inverse_func=np.expm1)
        with pytest.warns(bp.TrainingAdvice, match=r"y_val is not transformed by TransformedTargetRegressor"):
            model.fit(X, np.exp(line), X_val=X, y_val=np.exp(line))

    def test_both_ways_are_one(self):
        w = np.arange(20.0)
        a, b = (ours("one number", early_stopping=True, max_iter=3) for _ in range(2))
        a.fit(X, line, X_val=X[:20], y_val=line[:20], sample_weight_val=w)
        b.fit(X, line, validation_data=(X[:20], line[:20], w))
        assert a.validation_scores_ == b.validation_scores_

    def test_others_than_before_begin_the_count_anew(self):
        """The best score by other examples is another measure."""
        model = ours("one number", early_stopping=True, max_iter=30, warm_start=True, learning_rate_init=0.05, tol=0)
        model.fit(X, np.zeros(N), X_val=X[:20], y_val=1e-3 * line[:20])
        model.best_validation_score_ = 2.0  # beyond what any score can be
        model.fit(X, line, X_val=X[20:], y_val=line[20:])
        assert model.best_validation_score_ == max(model.validation_scores_[-model.n_iter_ :]) < 1
        assert_allclose(model.score(X[20:], line[20:]), model.best_validation_score_, rtol=1e-12)

    def test_of_a_model_from_a_file_begin_anew(self, tmp_path):
        """Who judged before is not in the file; that its best score is beaten by none must not lose the new weights."""
        model = ours("one number", early_stopping=True, max_iter=3).fit(X, line, X_val=X, y_val=line)
        model.best_validation_score_ = 2.0
        model.save(tmp_path / "m.safetensors")
        again = MLPRegressor.load(tmp_path / "m.safetensors")
        again.partial_fit(X, line, X_val=X, y_val=line, epochs=20)
        assert again.best_validation_score_ == max(again.validation_scores_[-again.n_iter_ :]) < 1

    def test_training_goes_on_from_where_it_was(self):
        """Also with other judges: the best weights are what is left to predict with."""
        left = []

        class Watch(bp.Callback):
            def epoch(self, trainer, record):
                left.append(trainer.net.phi.copy())

        model = ours("one number", early_stopping=True, warm_start=True, max_iter=20, learning_rate_init=0.1, tol=0)
        model.set_params(callbacks=[Watch()], dtype="float64").fit(X, line, X_val=X[:20], y_val=line[::-1][:20])
        assert not np.array_equal(model.network_.phi, left[-1])
        model.set_params(max_iter=1, learning_rate_init=1e-12).fit(X, line, X_val=X[20:], y_val=line[20:])
        assert_allclose(left[-1], left[-2], atol=1e-9)

    @pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")
    def test_set_on_the_way_counts(self):
        model = ours("one number", warm_start=True, max_iter=3).fit(X, line)
        assert model.validation_scores_ is None
        model.set_params(early_stopping=True).fit(X, line, X_val=X, y_val=line)
        assert len(model.validation_scores_) == 3
        assert model.score(X, line) == model.best_validation_score_ == max(model.validation_scores_)


class TestGroups:
    groups = np.repeat(np.arange(12), 5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_held_out_whole(self, kind):
        held = []

        def monitor(model, rows, y):
            held.append(rows)
            return 0.0

        names = np.array([f"patient {g}" for g in self.groups])
        for groups in (self.groups, names.tolist(), pd.Series(names, dtype="string"), pl.Series(names)):
            frame = pd.DataFrame(X).assign(row=np.arange(N)).rename(columns=str)
            model = ours(kind, early_stopping=True, max_iter=1, monitor=monitor, validation_fraction=0.25)
            model.fit(frame, KINDS[kind][1], groups=groups)
        for rows in held:
            inside = set(self.groups[rows["row"].astype(int)])
            assert len(inside) == 3
            assert len(rows) == 15

    def test_say_what_new_groups_are_worth(self):
        """60 groups of 20 rows, whose target is drawn for the group: rows by chance tell of what is known already."""
        rng = np.random.default_rng(0)
        of_group = rng.normal(size=(60, 2))
        rows = np.repeat(of_group, 20, axis=0) + 0.01 * rng.normal(size=(1200, 2))
        y, groups = np.repeat(rng.normal(size=60), 20), np.repeat(np.arange(60), 20)
        scores = [
            MLPRegressor(
                hidden_layer_sizes=(100,), early_stopping=True, random_state=0, learning_rate_init=0.02, max_iter=150
            )
            .fit(rows, y, **given)
            .best_validation_score_
            for given in ({}, {"groups": groups})
        ]
        assert scores[0] > 0.5 > 0.2 > scores[1]

    @pytest.mark.parametrize(
        "library", [lambda frame: frame, pl.from_pandas, pa.table], ids=["pandas", "polars", "Arrow"]
    )
    def test_are_advised_where_a_column_names_things_that_come_again(self, library):
        frame = pd.DataFrame(X, columns=list("abcd")).assign(patient_id=self.groups)
        model = ours("one number", early_stopping=True, max_iter=1)
        with pytest.warns(
            bp.TrainingAdvice, match=r"column 'patient_id' repeats: 12 values in 60 rows.*groups=X\['patient_id'\]"
        ):
            model.fit(library(frame), line)
        for quiet in (frame.rename(columns={"patient_id": "idle"}), frame.assign(patient_id=np.arange(N))):
            with warnings.catch_warnings():
                warnings.simplefilter("error", bp.TrainingAdvice)
                warnings.filterwarnings("ignore", "Trainer: the inputs are not scaled")
                model.fit(library(quiet), line)
                model.fit(library(frame), line, groups=self.groups)

    def test_that_are_missing_or_only_named_are_refused(self):
        model = ours("one number", early_stopping=True)
        holes = np.where(np.arange(N) % 4, self.groups, np.nan)
        with pytest.raises(ValueError, match="groups with a value in each row, got nan at row 0"):
            model.fit(X, line, groups=holes)
        with pytest.raises(TypeError, match="groups with one for each row, got 'who'"):
            model.fit(X, line, groups="who")

    def test_are_refused_where_nothing_is_chosen_by_them(self):
        with pytest.raises(ValueError, match="early_stopping=True beside groups, got early_stopping=False"):
            ours("one number", max_iter=3).fit(X, line, groups=self.groups)


class TestScores:
    def test_that_are_no_numbers_stop_training(self):
        """R² of one row is none."""
        model = ours("one number", early_stopping=True, n_iter_no_change=3, max_iter=50)
        with pytest.warns(bp.TrainingAdvice, match="no validation score was a number"):
            model.fit(X, line, X_val=X[:1], y_val=line[:1])
        assert model.n_iter_ == 4
        assert np.isnan(model.validation_scores_).all()

    @pytest.mark.parametrize("monitor", ["neg_log_loss", "neg_brier_score"])
    def test_of_a_class_that_the_hold_out_lacks(self, monitor):
        model = ours("three classes", early_stopping=True, monitor=monitor, max_iter=3)
        some = thirds < 2
        model.fit(X, thirds, X_val=X[some], y_val=thirds[some])
        assert len(model.validation_scores_) == 3
        if monitor == "neg_log_loss":
            p = model.predict_proba(X[some])[np.arange(some.sum()), thirds[some]]
            assert_allclose(model.best_validation_score_, np.log(p).mean(), rtol=1e-6)

    def test_by_accuracy_of_rare_classes_are_told(self):
        rng = np.random.default_rng(0)
        rows, y = rng.normal(size=(600, 3)), np.where(rng.random(600) < 0.03, "ill", "well")
        with pytest.warns(bp.TrainingAdvice, match=r"weights that say 'well' to all .*98% .*monitor='loss'"):
            MLPClassifier(early_stopping=True, random_state=0, learning_rate_init=0.01).fit(rows, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error", bp.TrainingAdvice)
            MLPClassifier(early_stopping=True, monitor="loss", random_state=0, max_iter=20).fit(rows, y)

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_fit_that_diverges_ends_with_the_best_weights(self, method, tmp_path):
        class Poison(bp.Callback):
            def epoch(self, trainer, record):
                if record.epoch == 3:
                    trainer.net.phi[0] = np.nan

        epochs = {} if method == "fit" else {"epochs": 9}
        model = ours("one number", early_stopping=True, max_iter=9, callbacks=[Poison()], warm_start=True)
        with pytest.warns(
            ConvergenceWarning, match="Training diverged.*nan or inf.*those of the best validation score"
        ):
            getattr(model, method)(X, line, X_val=X[:20], y_val=line[:20], **epochs)
        assert_array_equal(np.isnan(model.validation_scores_), [False] * 3 + [True])
        assert model.score(X[:20], line[:20]) == model.best_validation_score_ == max(model.validation_scores_[:3])
        model.callbacks = None
        model.save(tmp_path / "m.safetensors")
        assert_array_equal(MLPRegressor.load(tmp_path / "m.safetensors").predict(X), model.predict(X))
        assert model.fit(X, line, X_val=X[:20], y_val=line[:20]).n_iter_ > 0
        assert np.isfinite(model.predict(X)).all()


class TestStreams:
    @pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")
    def test_levels_of_the_first_part_announce_those_of_the_next(self):
        town = pd.Categorical(FLATS["town"], categories=["Bonn", "Köln", "Rom", "Ulm"])
        frame = FLATS[FEATURES].assign(town=town)
        model = MLPRegressor(hidden_layer_sizes=(4,), random_state=0)
        for part in ("Bonn", "Ulm", "Köln"):
            model.partial_fit(frame[town == part], FLATS["rent"][town == part])
        assert model.table_.categories == {"town": ["Bonn", "Köln", "Rom", "Ulm"]}
        assert np.isfinite(model.predict(frame.iloc[:1].assign(town="Rom"))).all()

    def test_parts_may_lack_classes_that_have_weights(self):
        model = MLPClassifier((4,), class_weight={2: 20, 0: 0.5}, random_state=0)
        model.partial_fit(X, thirds, classes=[0, 1, 2])
        other = copy.deepcopy(model)
        some = thirds < 2
        model.partial_fit(X[some], thirds[some])
        other.set_params(class_weight=None).partial_fit(X[some], thirds[some], np.where(thirds[some], 1.0, 0.5))
        assert_array_equal(model.network_.phi, other.network_.phi)

    def test_stop_by_one_hold_out(self):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(900, 4))
        y = rows @ [1.0, -2.0, 0.5, 0.0]
        model = MLPRegressor(hidden_layer_sizes=(16,), early_stopping=True, learning_rate_init=0.01, random_state=0)
        best = []
        for start in range(0, 800, 100):
            part = slice(start, start + 100)
            model.partial_fit(rows[part], y[part], X_val=rows[800:], y_val=y[800:], epochs=20)
            best.append(model.best_validation_score_)
        assert best == sorted(best)
        assert model.score(rows[800:], y[800:]) > 0.95

    def test_ask_for_classes_that_fit(self):
        for classes in (pd.Series([0, 1, 2], dtype="Int64"), pl.Series([2, 1, 0]), [0, 1, 2, 2]):
            model = MLPClassifier((4,), random_state=0).partial_fit(X[:5], thirds[:5], classes=classes)
            assert_array_equal(model.classes_, [0, 1, 2])


class TestCallbacksSeeTheRowsOfTheCaller:
    frame = FLATS[FEATURES].rename_axis("flat")

    @pytest.mark.skipif(not hasattr(MLPRegressor, "set_callbacks"), reason="since scikit-learn 1.9")
    @pytest.mark.parametrize("early_stopping", [False, True])
    @pytest.mark.parametrize("library", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
    def test_of_scikit_learn(self, library, early_stopping):
        from sklearn.callback import ScoringMonitor

        monitor = ScoringMonitor(scoring="r2")
        model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, random_state=0, early_stopping=early_stopping)
        frame = library(self.frame.reset_index(drop=True))
        model.set_callbacks(monitor).fit(frame, FLATS["rent"])
        log = pd.DataFrame(monitor.get_logs(select="most_recent").data_as_pandas)
        assert len(log) >= 3
        if not early_stopping:
            assert_allclose(log["r2"].iloc[-1], model.score(frame, FLATS["rent"]), rtol=1e-9)

    @pytest.mark.parametrize("y", ["rent", None])
    def test_of_a_monitor(self, y):
        seen = []

        def score(model, rows, targets):
            seen.append(rows)
            return model.score(rows, targets)

        frame = FLATS.drop(columns="let") if y else self.frame
        model = MLPRegressor(hidden_layer_sizes=(4,), early_stopping=True, monitor=score, max_iter=2, random_state=0)
        model.fit(frame, y or FLATS["rent"])
        assert set(seen[0]["town"]) <= {"Bonn", "Köln", "Ulm"}
        assert len(seen[0]) == 9
        pd.testing.assert_frame_equal(seen[0], frame.loc[seen[0].index])
