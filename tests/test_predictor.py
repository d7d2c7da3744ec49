"""`Predictor`: every kind of model file × every kind of rows, as whoever loads the model himself has them."""

import json
import pickle
import threading

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from helpers import Scale
from numpy.testing import assert_allclose, assert_array_equal

import backprop as bp
from backprop import predictor
from backprop.cli import commands
from backprop.estimators import MLPClassifier, MLPRegressor

N = 40
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": RNG.normal(50, 9, N),
        "town": RNG.choice(["Bonn", "Ulm"], N),
        "code": RNG.choice([10, 20, 30], N),
        "since": pd.date_range("2020-01-01", periods=N),
        "id": np.arange(N),
    },
    index=np.arange(N) * 3,
)
FRAME["rent"] = 2 * FRAME["size"] + 5 * (FRAME["town"] == "Ulm")
FRAME["kind"] = np.where(FRAME["size"] > 50, "big", "small")
COLUMNS = ["size", "town"]
X = np.column_stack([FRAME["size"], FRAME["rent"]])


def fitted(folder, target, other):
    """A model of `backprop fit` with everything that its options do to columns."""
    FRAME.to_parquet(folder / "flats.parquet")
    out = folder / f"{target}.safetensors"
    columns = ["--drop", f"id,{other}", "--categories", "code", "--dates", "since"]
    fit = ["fit", folder / "flats.parquet", "--target", target, "--out", out, "--epochs", "2", *columns]
    assert CliRunner().invoke(commands, list(map(str, fit))).exit_code == 0
    run = CliRunner().invoke(commands, ["predict", str(out), str(folder / "flats.parquet"), "--json"])
    return out, FRAME, json.loads(run.stdout)[target], target


def with_table(folder, target):
    table = bp.Table(target, scale_target=True)
    features, _ = table.fit(FRAME[[*COLUMNS, target]])
    K = 1 if table.classes is None else len(table.classes)
    net = bp.Sequential(bp.Linear(features.shape[1], K), seed=0)
    net.save(folder / "net.safetensors", table=table)
    f = net.predict(features)
    values = table.values(f) if table.classes is None else table.labels(f)
    return folder / "net.safetensors", FRAME[[*COLUMNS, target]], values, target


def alone(folder):
    net = bp.Sequential(Scale(2), bp.Linear(2, 2), seed=0)
    net.save(folder / "net.safetensors")
    return folder / "net.safetensors", FRAME[["size", "rent"]], net.predict(X)[:, 1], "f1"


def estimator(folder, kind, rows, y):
    model = kind(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(rows, y)
    model.save(folder / "model.safetensors")
    columns = FRAME[["size", "rent"]] if isinstance(rows, np.ndarray) else rows
    found = model.predict(rows)
    name = "prediction" if found.ndim == 1 else "prediction 1"
    return folder / "model.safetensors", columns, found if found.ndim == 1 else found[:, 1], name


MODELS = {
    "backprop fit, numbers": lambda folder: fitted(folder, "rent", "kind"),
    "backprop fit, classes": lambda folder: fitted(folder, "kind", "rent"),
    "a table, numbers": lambda folder: with_table(folder, "rent"),
    "a table, classes": lambda folder: with_table(folder, "kind"),
    "a network alone": alone,
    "a regressor of a frame": lambda folder: estimator(folder, MLPRegressor, FRAME[COLUMNS], FRAME["rent"]),
    "a classifier of a frame": lambda folder: estimator(folder, MLPClassifier, FRAME[COLUMNS], FRAME["kind"]),
    "a regressor of an array": lambda folder: estimator(folder, MLPRegressor, X, FRAME["rent"]),
    "a regressor of two": lambda folder: estimator(folder, MLPRegressor, X, np.column_stack([X[:, 0], X[:, 1]])),
}
LIBRARIES = {
    "pandas": (lambda frame: frame, lambda found: found),
    "polars": (lambda frame: pl.from_pandas(frame), lambda found: found.to_pandas()),
    "pyarrow": (lambda frame: pa.Table.from_pandas(frame, preserve_index=False), lambda found: found.to_pandas()),
}


def made(path):
    return bp.Predictor(path, classes=[Scale])


def assert_same(found, expected):
    """Words to the letter, numbers but for what the size of a block changes."""
    if np.asarray(expected).dtype.kind in "fiu":
        assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=1e-5, atol=1e-5)
    else:
        assert list(found) == list(expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("model", MODELS)
def test_every_model_gives_frames_of_the_library_that_it_gets(model, tmp_path):
    path, frame, expected, name = MODELS[model](tmp_path)
    predict = pickle.loads(pickle.dumps(made(path)))
    for to, back in LIBRARIES.values():
        found = predict(to(frame))
        assert type(found) is type(to(frame))
        assert_same(back(found)[name], expected)
    whole, nothing = predict(frame), predict(frame[:0])
    assert list(whole.index) == list(frame.index)
    assert (len(nothing), dict(nothing.dtypes)) == (0, dict(whole.dtypes))
    pieces = [predict(frame[start : start + 7]) for start in range(0, N, 7)]
    assert_same(pd.concat(pieces)[name], expected)


class TestPromises:
    @pytest.fixture
    def path(self, tmp_path):
        return alone(tmp_path)[0]

    def test_arrays_give_arrays(self, path, tmp_path):
        assert_array_equal(made(path)(X), bp.Sequential.load(path, classes=[Scale]).predict(X))
        regressor = tmp_path / "model.safetensors"
        model = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", max_iter=50, random_state=0).fit(X / 50, X[:, 0])
        model.save(regressor)
        assert_array_equal(bp.Predictor(regressor)(X / 50), model.predict(X / 50))

    def test_it_pickles_as_a_path(self, tmp_path):
        bp.Sequential(bp.Linear(300, 300), seed=0).save(tmp_path / "net.safetensors")
        assert len(pickle.dumps(bp.Predictor(tmp_path / "net.safetensors"))) < 400

    def test_a_path_holds_in_other_folders(self, path, monkeypatch):
        monkeypatch.chdir(path.parent)
        predict = made(path.name)
        monkeypatch.chdir("/")
        predictor._load.cache_clear()
        assert predict(X).shape == (N, 2)

    def test_a_process_loads_a_file_once(self, path, monkeypatch):
        loads = []
        load = bp.Sequential.load
        monkeypatch.setattr(bp.Sequential, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
        predictor._load.cache_clear()
        given = pickle.dumps(made(path))
        jobs = [threading.Thread(target=lambda: pickle.loads(given)(X)) for _ in range(4)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert len(loads) == 1

    def test_another_file_in_its_place_is_no_silent_mixture(self, path):
        old = made(path)
        before = old(X)
        bp.Sequential(bp.Linear(2, 2), seed=1).save(path)
        assert_array_equal(old(X), before)  # here it is loaded
        predictor._load.cache_clear()  # as in another process
        with pytest.raises(
            ValueError, match=r"net.safetensors: expected the file that the Predictor was made of, got ano"
        ):
            old(X)
        assert not np.array_equal(made(path)(X), before)

    @pytest.mark.parametrize(
        ("rows", "kind", "said"),
        [
            (pl.LazyFrame({"size": [1.0]}), TypeError, "got a lazy frame"),
            ({"size": np.ones(2)}, TypeError, r'batch_format="pandas"'),
            (X, TypeError, r"a frame with the columns \['size', 'town'\], got an array"),
            (FRAME[["size"]], ValueError, r"expected columns \['town'\]"),
            (FRAME[COLUMNS].assign(town="Rom"), ValueError, "got 'Rom' at row 0"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, rows, kind, said, tmp_path):
        with pytest.raises(kind, match=said):
            bp.Predictor(with_table(tmp_path, "rent")[0])(rows)

    def test_a_model_of_fit_says_what_it_misses(self, tmp_path):
        predict = bp.Predictor(fitted(tmp_path, "rent", "kind")[0])
        with pytest.raises(ValueError, match=r"the frame: .*expected columns \['town'\]"):
            predict(FRAME.drop(columns="town"))
        with pytest.raises(ValueError, match="since"):
            predict(FRAME.assign(since="soon"))

    def test_no_file_is_refused_at_once(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            bp.Predictor(tmp_path / "nowhere.safetensors")
        (tmp_path / "odd.safetensors").write_bytes(b"odd")
        with pytest.raises(bp.FileFormatError):
            bp.Predictor(tmp_path / "odd.safetensors")
        with pytest.raises(TypeError, match="path of a file"):
            bp.Predictor(bp.Sequential(bp.Exp()))
