"""Exports of a network with its table: columns as they are go in, units of the target come out."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose
from test_exports import run_numpy

import backprop as bp
from backprop.formats.folding import folded
from backprop.formats.plan import Plan
from backprop.formats.verify import _rows

pa = pytest.importorskip("pyarrow")

WORDS = ["Bonn", "Köln", "U\"l'm\\?", "*/ 50 %"]
N = 60


def frame(missing=False, target="numbers", only=None):
    """Columns of every kind, some of them with holes."""
    rng = np.random.default_rng(0)
    columns = {
        "size of a\nflat */": pa.array(1e9 + 10 * rng.normal(size=N)),
        "town": pa.array(rng.choice(WORDS, N)),
        "lift": pa.array(rng.random(N) < 0.5),
        "code": pa.array(rng.integers(0, 4, N)).dictionary_encode(),
        "same": pa.array(np.full(N, 3.0)),
        "kind": pa.array(rng.choice(["", "a"], N)),
        "flag": pa.array(np.arange(N) % 3 == 0).dictionary_encode(),
    }
    columns = {name: column for name, column in columns.items() if only is None or name in only}
    if missing:
        hole = np.arange(N) == 5
        columns = {
            name: column
            if name == "kind"
            else pa.compute.if_else(pa.array(hole), None, column.cast(column.type))
            if not pa.types.is_dictionary(column.type)
            else pa.array([None if h else v for h, v in zip(hole, column.to_pylist(), strict=True)]).dictionary_encode()
            for name, column in columns.items()
        }
    y = {"numbers": 1000 + 50 * rng.normal(size=N), "three": rng.choice(["x", "y", "z"], N), "two": rng.random(N) < 0.5}
    return pa.table(columns | {"y": pa.array(y[target])})


def fitted(missing="refuse", unknown="refuse", target="numbers", only=None, dtype="float32", **settings):
    """A network of random weights, its table, and the frame."""
    data = frame(missing != "refuse", target, only)
    table = bp.Table("y", missing=missing, unknown=unknown, scale_target=True, dtype=dtype, **settings)
    with warnings.catch_warnings(action="ignore"):
        X, _ = table.fit(data)
    layers = [bp.Linear(X.shape[1], 7), bp.SiLU(), bp.Linear(7, {"numbers": 1, "three": 3, "two": 1}[target])]
    return bp.Sequential(*layers, seed=0, dtype=dtype), table, data


CASES = [
    {},
    {"missing": "impute", "unknown": "ignore"},
    {"missing": "impute", "target": "three"},
    {"unknown": "ignore", "target": "two", "dtype": "float64"},
    {"missing": "indicate", "target": "three"},
    {"missing": "indicate", "unknown": "ignore", "most_categories": 2},
    {"unknown": "ignore", "most_categories": 1, "only": ["size of a\nflat */", "town", "code", "flag"]},
    {"missing": "indicate", "only": ["size of a\nflat */", "same"]},
    {"missing": "indicate", "only": ["lift", "town"], "most_categories": 1},
    {"only": ["town"]},
    {"only": ["size of a\nflat */", "same"], "scale": False},
]
TARGETS = {"numpy": (bp.to_numpy, "model.py"), "onnx": (bp.to_onnx, "model.onnx"), "c": (bp.to_c, "model.h")}
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_target = pytest.mark.parametrize("target", TARGETS)


def export(target, net, folder, **settings):
    to, name = TARGETS[target]
    if target == "onnx":
        pytest.importorskip("onnx")
    if target == "c" and not shutil.which("cc"):
        pytest.skip("no C compiler")
    return to(net, folder / name, **settings)


def expected(net, table, data):
    f = net.predict(table.transform(data))
    return f if table.classes is not None else table.values(f)[:, None]


class TestEveryTable:
    @every_target
    @every_case
    def test_says_what_predict_says(self, target, case, tmp_path):
        """The export itself is compared on 100 generated rows and those of the data, holes and new words among them."""
        if case.get("scale") is False and target != "numpy":
            pytest.skip("numbers of 1e9 have no digits left in float32, as in predict")
        net, table, data = fitted(**case)
        report = export(target, net, tmp_path, table=table, X=data)
        assert report.rows == 100 + N
        assert report.relative_difference < 1e-5

    @pytest.mark.parametrize("library", [lambda t: t, lambda t: t.to_pandas(), pl.from_arrow, lambda t: t.to_pydict()])
    def test_a_python_file_takes_any_frame(self, library, tmp_path):
        net, table, data = fitted(only=["size of a\nflat */", "town", "lift", "kind"])
        bp.to_numpy(net, tmp_path / "model.py", table=table)
        assert_allclose(run_numpy(tmp_path / "model.py", library(data)), expected(net, table, data), rtol=1e-6)
        rows = [tuple(row[name] for name in table.columns) for row in data.to_pylist()]
        assert_allclose(run_numpy(tmp_path / "model.py", rows), expected(net, table, data), rtol=1e-6)

    def test_a_python_file_as_a_program(self, tmp_path):
        net, table, data = fitted(missing="impute", only=["town", "lift", "same", "code"])
        bp.to_numpy(net, tmp_path / "model.py", table=table)
        with (tmp_path / "data.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(data.column_names)
            writer.writerows([["" if v is None else str(v) for v in row.values()] for row in data.to_pylist()])
        command = [sys.executable, "-I", str(tmp_path / "model.py"), str(tmp_path / "data.csv")]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert_allclose(np.array(printed.split(), float)[:, None], expected(net, table, data), rtol=1e-6)

    def test_a_python_file_refuses_what_the_table_refuses(self, tmp_path):
        net, table, data = fitted(only=["lift", "town"])
        bp.to_numpy(net, tmp_path / "model.py", table=table)
        good = {name: data[name].to_pylist() for name in table.columns}
        for wrong, words in (
            ({"town": ["Rom"] * N}, "'Rom' in row 0"),
            ({"town": [None] * N}, "None in row 0"),
            ({"lift": [np.nan] * N}, "finite numbers in column 'lift'"),
        ):
            with pytest.raises(ValueError, match=words):
                run_numpy(tmp_path / "model.py", good | wrong)
        with pytest.raises(KeyError, match="town"):
            run_numpy(tmp_path / "model.py", {"lift": good["lift"]})
        with pytest.raises(ValueError, match="rows of 2 columns"):
            run_numpy(tmp_path / "model.py", [[1.0]])

    def test_onnx_names_its_columns_and_gives_nan_for_what_cannot_be_used(self, tmp_path):
        onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        net, table, data = fitted(target="three", only=["lift", "town", "same", "code"])
        bp.to_onnx(net, tmp_path / "model.onnx", table=table)
        properties = {each.key: each.value for each in onnx.load(tmp_path / "model.onnx").metadata_props}
        assert json.loads(properties["numbers"]) == ["lift", "code", "same"]
        assert json.loads(properties["words"]) == ["town"]
        assert json.loads(properties["classes"]) == ["x", "y", "z"]
        assert properties["target"] == "y"
        numbers = np.array([data[name].to_pylist() for name in ("lift", "code", "same")], float).T
        words = np.array(data["town"].to_pylist(), object)[:, None]
        run = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"]).run
        assert_allclose(run(["f"], {"X": numbers, "words": words})[0], expected(net, table, data), rtol=1e-5, atol=1e-6)
        for row, (x, word) in enumerate([(np.nan, "Bonn"), (np.inf, "Bonn"), (1.0, "Rom"), (1.0, "")]):
            numbers[row, 0], words[row, 0] = x, word
        numbers[4, 1] = 9
        f = run(["f"], {"X": numbers, "words": words})[0]
        assert np.isnan(f[:5]).all()
        assert np.isfinite(f[5:]).all()

    @pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
    def test_c_gives_nan_for_what_cannot_be_used_and_compiles_without_a_warning(self, tmp_path):
        net, table, _ = fitted(only=["lift", "town", "code", "size of a\nflat */"])
        bp.to_c(net, tmp_path / "model.h", table=table)
        main = """
#include <stdio.h>
#include "model.h"
int main(void)
{
    const double numbers[][3] = {{1e9, 1, 2}, {NAN, 1, 2}, {1e9, INFINITY, 2}, {1e9, 1, 7}, {1e9, 1, 2}, {1e9, 1, 2}};
    const char *words[] = {"Bonn", "Bonn", "Bonn", "Bonn", "Rom", NULL};
    double y[6];
    model_predict_rows(6, numbers[0], words, y);
    for (int i = 0; i < 6; i++) printf("%.9g ", y[i]);
    return 0;
}
"""
        (tmp_path / "main.c").write_text(main)
        flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
        subprocess.run(["cc", *flags, "main.c", "-o", "main", "-lm"], cwd=tmp_path, check=True)
        printed = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
        assert printed[1:] == ["nan"] * 5
        one = pa.table(
            {"size of a\nflat */": [1e9], "town": ["Bonn"], "lift": [True], "code": pa.array([2]).dictionary_encode()}
        )
        assert_allclose(float(printed[0]), expected(net, table, one)[0, 0], rtol=1e-6)


class TestFaults:
    """A preparation that is wrong by a little is found before a file is written."""

    @every_target
    @pytest.mark.parametrize("what", ["shift", "factor", "place", "mean", "sigma"])
    def test_is_refused(self, target, what, tmp_path, monkeypatch):
        net, table, _ = fitted()
        made = Plan.__init__

        def wrong(self, *arguments):
            made(self, *arguments)
            preparation = self.preparation
            if what in ("mean", "sigma"):
                setattr(preparation, what, getattr(preparation, what) * 1.001)
                preparation.in_units = lambda f: table.values(f)[:, None]
            elif what == "place":
                columns = preparation.columns
                columns[1] = type(columns[1])(**vars(columns[1]) | {"categories": tuple(WORDS[::-1])})
                preparation.words[0] = columns[1]
            else:
                size = preparation.columns[0]
                moved = type(size)(**vars(size) | {what: getattr(size, what) * (1 + 1e-9 if what == "shift" else 1.01)})
                preparation.columns[0] = preparation.numbers[0] = moved
                right = type(preparation).generated

                preparation.generated = lambda: right(Plan("x", net, None, "float32", table).preparation)

        with monkeypatch.context() as patch:
            original = Plan

            class Wrong(original):
                __init__ = wrong

            for module in ("numpy_file", "onnx_file", "c_header"):
                patch.setattr(f"backprop.formats.{module}.Plan", Wrong)
            with pytest.raises(RuntimeError, match=r"within .* of predict"):
                export(target, net, tmp_path, table=table)
        assert not list(tmp_path.iterdir())


class TestEstimators:
    @every_target
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_bring_their_own_scaling(self, target, tmp_path):
        """The network alone, exported without the scaling, once gave 1316 in the place of 75."""
        estimators = pytest.importorskip("backprop.estimators")
        rng = np.random.default_rng(0)
        X = 100 + 7 * rng.normal(size=(50, 3))
        y = 75 + 3 * (X[:, 0] - 100)
        scaled = {"scale_inputs": True, "scale_targets": True}
        model = estimators.MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", tol=1, random_state=0, **scaled).fit(
            X, y
        )
        data = pa.table({f"x{j}": column for j, column in enumerate(X.T)})
        report = export(target, model, tmp_path, X=data)
        assert report.largest_difference < 1e-3
        if target == "numpy":
            assert_allclose(run_numpy(tmp_path / "model.py", X)[:, 0], model.predict(X), rtol=1e-12)
        with pytest.raises(ValueError, match="both"):
            export(target, model, tmp_path, table=model.as_network()[1])


class TestFolding:
    """Weights for PyTorch carry the scaling inside."""

    @pytest.mark.parametrize("case", [{}, {"missing": "impute", "target": "three"}, {"dtype": "float64"}], ids=str)
    def test_numbers_as_they_are(self, case):
        net, table, data = fitted(**{"only": ["town", "lift", "code", "same"], **case})
        twin, difference = folded("to_torch", net, table)
        assert difference < (1e-3 if case.get("dtype") is None else 1e-10)
        at, raw = 0, table.transform(data).astype(float)
        for name in table.columns:
            if name in ("lift", "same"):
                means = table.state()["columns"][table.columns.index(name)]["mean"]
                raw[:, at] = [means if v is None else v for v in data[name].to_pylist()]
            at += len(table.categories.get(name, [name]))
        assert_allclose(twin.predict(raw), expected(net, table, data), rtol=1e-5, atol=1e-5)
        assert not np.array_equal(twin.phi, net.phi)

    def test_what_loses_its_digits_is_refused_with_a_way_out(self):
        net, table, _ = fitted(only=["size of a\nflat */"])
        with pytest.raises(
            ValueError, match=r"lose their digits in float32\. to_numpy, to_onnx and to_c scale in double"
        ):
            folded("to_torch", net, table)
        assert folded("to_torch", *fitted(only=["size of a\nflat */"], dtype="float64")[:2])[1] < 1e-3

    def test_a_network_that_has_no_place_for_it_is_refused(self):
        _, table, _ = fitted(only=["same"])
        net = bp.Sequential(bp.LayerNorm(1), bp.Linear(1, 1))
        with pytest.raises(ValueError, match="begins and ends with a Linear"):
            folded("to_torch", net, table)

    def test_to_torch(self):
        torch = pytest.importorskip("torch")
        net, table, data = fitted(only=["lift", "same"])
        module = bp.to_torch(net, table=table)
        raw = np.array([data[name].to_pylist() for name in ("lift", "same")], np.float32).T
        found = module(torch.tensor(raw)).detach().numpy()
        assert_allclose(found, expected(net, table, data), rtol=1e-5)
        assert module.largest_difference < 1e-3


class TestBadInput:
    @every_target
    def test_what_is_no_table_or_does_not_fit(self, target, tmp_path):
        net, table, _ = fitted(only=["lift"])
        with pytest.raises(TypeError, match="a Table"):
            export(target, net, tmp_path, table="table")
        other = fitted(only=["town"])[0]
        with pytest.raises(ValueError, match="a table that makes 4 features"):
            export(target, other, tmp_path, table=table)
        with pytest.raises(RuntimeError, match="fit to have run"):
            export(target, net, tmp_path, table=bp.Table())
        with pytest.raises(ValueError, match="lift"):
            export(target, net, tmp_path, table=table, X=pa.table({"other": [1.0]}))
        assert not list(tmp_path.iterdir())


class TestNarrowPieces:
    """A skewed column is cut into pieces that are narrower than the distance of two numbers in float32."""

    def skewed(self):
        rng = np.random.default_rng(0)
        frame = pd.DataFrame({"town": rng.choice(["Ulm", "Bonn"], 400), "x": np.exp(rng.normal(0, 3, 400))})
        frame["y"] = np.log(frame["x"])
        table = bp.Table("y", scale_target=True, dtype="float64")
        X, _ = table.fit(frame)
        cut = bp.Quantiles.learned(X)
        assert min(cut.high - cut.low) < 1e-7
        net = bp.Sequential(cut, bp.Linear(X.shape[1], 4, seed=0), bp.Tanh(), bp.Linear(4, 1, seed=1), dtype="float64")
        return frame, table, net, X

    def test_are_compared_one_by_one(self):
        _, table, net, _ = self.skewed()
        X = _rows(Plan("to_onnx", net, None, "float32", table))[1]
        _, plain = _rows(Plan("to_onnx", net, None, "float32"))
        for rows in (X, plain):
            h = rows[:, table.feature_names.index("x")]
            low, high = (net[0]._by_row(each)[table.feature_names.index("x")] for each in (net[0].low, net[0].high))
            assert ((h[:, None] >= low) & (h[:, None] <= high)).any(axis=0).all()

    def test_are_cut_in_float64_by_onnx(self, tmp_path):
        frame, table, net, _ = self.skewed()
        report = bp.to_onnx(net, tmp_path / "m.onnx", table=table)
        assert report.rows > 200
        assert report.largest_difference < 1e-5
        assert bp.to_onnx(net, tmp_path / "m.onnx", table=table, X=frame).largest_difference < 1e-5
