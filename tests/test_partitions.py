"""Rows and searches in other processes: joblib, Dask. With Ray by hand, see docs/use/many_machines.md."""

import dask.dataframe
import distributed
import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.ensemble import BaggingRegressor
from sklearn.model_selection import GridSearchCV

import backprop as bp
from backprop.estimators import MLPRegressor

N = 40
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"size": RNG.normal(50, 9, N), "town": RNG.choice(["Bonn", "Ulm"], N)})
FRAME["rent"] = 2 * FRAME["size"] + 5 * (FRAME["town"] == "Ulm")


@pytest.fixture
def predict(tmp_path):
    table = bp.Table("rent", scale_target=True)
    X, _ = table.fit(FRAME)
    bp.Sequential(bp.Linear(X.shape[1], 1), seed=0).save(tmp_path / "net.safetensors", table=table)
    return bp.Predictor(tmp_path / "net.safetensors")


def test_joblib_hands_rows_to_processes(predict):
    pieces = [FRAME[start : start + 10] for start in range(0, N, 10)]
    found = pd.concat(joblib.Parallel(n_jobs=2)(joblib.delayed(predict)(piece) for piece in pieces))
    assert_allclose(found["rent"], predict(FRAME)["rent"], rtol=1e-5)


@pytest.mark.parametrize("least", [0, 70, 1000], ids=["all rows", "partitions without rows", "none"])
def test_dask_hands_rows_to_threads(least, predict):
    rows = dask.dataframe.from_pandas(FRAME, npartitions=4)
    found = rows[rows["size"] > least].map_partitions(predict, meta=predict(FRAME.head(1))).compute()
    expected = predict(FRAME)[FRAME["size"] > least]
    assert list(found.index) == list(expected.index)
    assert_allclose(found["rent"], expected["rent"], rtol=1e-5)


@pytest.fixture(scope="module")
def cluster():
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        yield client


def test_dask_hands_rows_to_processes(predict, cluster):
    rows = dask.dataframe.from_pandas(FRAME, npartitions=4)
    found = rows.map_partitions(predict, meta=predict(FRAME.head(1))).compute()
    assert_allclose(found["rent"], predict(FRAME)["rent"], rtol=1e-5)


def test_a_whole_frame_of_dask_is_refused(predict):
    with pytest.raises(TypeError, match=r"Write frame\.map_partitions\(predictor, meta="):
        predict(dask.dataframe.from_pandas(FRAME, npartitions=2))


@pytest.mark.parametrize("make", ["search", "ensemble"])
def test_a_cluster_of_dask_trains_what_one_process_does(make, cluster):
    X, y = FRAME[["size"]].to_numpy() / 50, FRAME["rent"].to_numpy() / 100
    model = MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", max_iter=200, tol=0.01, random_state=0, threads=1)
    search = GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=2, error_score="raise")
    each = {"search": search, "ensemble": BaggingRegressor(model, n_estimators=4, random_state=0)}[make]
    alone = each.fit(X, y).predict(X)
    with joblib.parallel_backend("dask"):
        assert_allclose(each.set_params(n_jobs=2).fit(X, y).predict(X), alone, rtol=1e-6)
