"""The command line, as a person uses it: by hand, in a pipe, from a script, and with the wrong files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from test_words import PYTHON

import backprop as bp
from backprop.__main__ import main
from backprop.cli import commands
from backprop.cli.data import write
from backprop.datasets import split

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "command_line.md"
BACKPROP = [sys.executable, "-m", "backprop"]

NUMBER = r"[\d,]+(?:\.\d+)?"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the demo: what it printed, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    command = [sys.executable, "-W", "error", "-m", "backprop", "demo", "--epochs", "30", "--out", str(out)]
    wide = os.environ | {"COLUMNS": "200", "LINES": "50"}  # for the numbers beside the bar
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=wide), out


class TestDemo:
    def test_succeeds(self, demo):
        run, _ = demo
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr

    def test_shows_the_network(self, demo):
        run, _ = demo
        assert re.search(r"Linear\(64 → 128\)\s+128\s+8,320", run.stdout)
        assert re.search(r"φ\s+9,610", run.stdout)

    def test_checks_the_gradient(self, demo):
        run, _ = demo
        assert re.search(r"Gradient check passed: complex step, 9,930 of 9,930 entries", run.stdout)

    def test_draws_a_progress_bar(self, demo):
        run, _ = demo
        assert "100%" in run.stderr
        assert "validation_accuracy" in run.stderr
        assert "100%|" not in run.stdout

    def test_reaches_97_percent_on_images_it_has_not_seen(self, demo):
        run, _ = demo
        assert "1,348 images to train on, 449 to test on" in run.stdout
        accuracy = float(re.search(r"Test accuracy ([\d.]+)%", run.stdout)[1])
        assert 97 <= accuracy <= 100

    def test_compares_batch_sizes(self, demo):
        run, _ = demo
        table = run.stdout.partition("examples/s      loss\n")[2] or run.stdout
        rows = re.findall(rf"^\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})$", table, re.MULTILINE)
        numbers = np.array([[float(cell.replace(",", "")) for cell in row] for row in rows])
        assert numbers[:, 0].tolist() == [1, 8, 32, 128, 512]
        assert numbers[:, 1].tolist() == [1348, 169, 43, 11, 3]
        assert (numbers[:, 2] > 1000).all()
        assert (np.diff(numbers[:, 3]) > 0).all()  # fewer steps in as many epochs get less far

    def test_saves_the_weights(self, demo):
        run, out = demo
        found = load_file(out / "digits.safetensors")
        shapes = {name: array.shape for name, array in found.items()}
        assert shapes == {"0.bias": (128,), "0.weight": (128, 64), "2.bias": (10,), "2.weight": (10, 128)}
        assert str(out / "digits.safetensors") in run.stdout

    def test_the_weights_make_the_accuracy_it_tells(self, demo):
        run, out = demo
        net = bp.Sequential(bp.Linear(64, 128), bp.ReLU(), bp.Linear(128, 10))
        bp.load_weights(net, out / "digits.safetensors")
        X, y = bp.load_digits()
        _, X_test, _, y_test = split(X / 16, y, seed=0)
        accuracy = np.mean(net.predict(X_test).argmax(axis=1) == y_test)
        assert f"Test accuracy {accuracy:.1%}" in run.stdout

    def test_draws_a_picture(self, demo):
        _, out = demo
        assert (out / "digits.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    def test_leaves_nothing_else(self, demo):
        _, out = demo
        assert sorted(path.name for path in out.iterdir()) == ["digits.png", "digits.safetensors"]


LAYERS = """
import numpy as np
import backprop as bp

class Swish(bp.Layer):
    keeps_width = True

    def forward(self, h):
        self.h, self.p = h, 1 / (1 + np.exp(-h))
        return h * self.p

    def backward(self, dL_df):
        return dL_df * self.p * (1 + self.h * (1 - self.p)), {}

class Scale(bp.Layer):
    def __init__(self, features):
        self.features = self.in_features = self.out_features = features
        self.parameters["gamma"] = np.ones(features, np.float32)

    def forward(self, h):
        self.h = h
        return (self.parameters["gamma"] * h.T).T

    def backward(self, dL_df):
        dL_dgamma = (dL_df * self.h).reshape(self.features, -1).sum(axis=1)
        return (self.parameters["gamma"] * dL_df.T).T, {"gamma": dL_dgamma}

class Logarithm(bp.Layer):
    keeps_width = True

    def forward(self, h):
        self.h = h
        return np.log(h)

    def backward(self, dL_df):
        return dL_df / self.h, {}

class Wrong(Swish):
    def backward(self, dL_df):
        return 2 * super().backward(dL_df)[0], {}

network = bp.Sequential(bp.Linear(3, 2), bp.Tanh())

def make():
    return bp.Tanh()
"""


def flats(n, seed, *, target=True):
    """Rows of flats; what they cost follows from size, floor, lift and town."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        size, floor, lift = int(rng.integers(20, 120)), int(rng.integers(0, 6)), bool(rng.random() < 0.5)
        town = ["Bonn", "Köln", "Ulm"][rng.integers(3)]
        rent = 200 + 10 * size + 300 * (town == "Köln") - 20 * floor * (not lift) + rng.normal(0, 20)
        row = {"size": size, "floor": floor, "lift": str(lift).lower(), "town": town}
        rows.append(row | ({"rent": round(rent, 2)} if target else {}))
    return rows


def irises(n, seed):
    """Rows of three kinds of flower, with holes."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in rng.integers(0, 3, n):
        species = ["setosa", "versicolor", "virginica"][k]
        length, width = rng.normal([1.5, 4.3, 5.6][k], 0.3), rng.normal([0.2, 1.3, 2.0][k], 0.15)
        soil = ["clay", "sand", ""][rng.integers(3)]
        hole = rng.random() < 0.1
        rows.append(
            {"length": "" if hole else f"{length:.2f}", "width": f"{width:.2f}", "soil": soil, "species": species}
        )
    return rows


def visits(patients=60, each=20):
    """Rows of visits: what hurts is a matter of the patient, and so is all that is measured."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(patients):
        measured, pain = rng.normal(size=3), rng.normal()
        for _ in range(each):
            a, b, c = measured + 0.001 * rng.normal(size=3)
            rows.append({"patient": f"p{k:02}", "a": a, "b": b, "c": c, "pain": pain + 0.01 * rng.normal()})
    return rows


def write_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments, stdin=b""):
    """One command line in this process: the exit code, and what it wrote."""
    result = CliRunner().invoke(commands, [str(each) for each in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def succeeds(*arguments, stdin=b""):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data, a module, and a model of numbers and of classes."""
    folder, before = tmp_path_factory.mktemp("files"), Path.cwd()
    os.chdir(folder)
    try:
        write_csv("flats.csv", flats(200, 0))
        write_csv("later.csv", flats(60, 1))
        write_csv("new.csv", flats(5, 2, target=False))
        write_csv("irises.csv", irises(150, 3))
        write_csv("visits.csv", visits())
        Path("layers.py").write_text(LAYERS)
        pyarrow.parquet.write_table(pyarrow.csv.read_csv("flats.csv"), "flats.parquet")
        succeeds("fit", "flats.csv", "--target", "rent", "--epochs", 30, "-o", "rent.safetensors")
        plain = ["--missing", "impute", "--model", "plain"]
        succeeds("fit", "irises.csv", "--target", "species", *plain, "-o", "species.safetensors")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A copy of that folder, to work in."""
    for path in files.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "layers", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


class TestJourney:
    def test_numbers(self, folder):
        fit = succeeds("fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", "--log", "log.jsonl")
        assert "Read 200 rows from flats.csv: 4 columns make 6 features." in fit.stderr
        assert "The target 'rent' holds numbers: regression." in fit.stderr
        worth = json.loads(succeeds("evaluate", "m.safetensors", "later.csv", "--json").stdout)
        assert worth["r2"] > 0.95
        assert worth["root_mean_squared_error"] < 80  # in units of the target, whose σ is about 300
        lines = succeeds("predict", "m.safetensors", "later.csv").stdout.splitlines()
        assert lines[0] == "rent"
        true = np.array([row["rent"] for row in flats(60, 1)])
        error = np.array(lines[1:], float) - true
        np.testing.assert_allclose(np.sqrt(np.mean(error**2)), worth["root_mean_squared_error"], rtol=1e-5)
        np.testing.assert_allclose(np.mean(np.abs(error)), worth["mean_absolute_error"], rtol=1e-5)
        assert len(Path("log.jsonl").read_text().splitlines()) > 5

    def test_classes_with_words_and_holes(self, folder):
        arguments = ["irises.csv", "--target", "species", "--missing", "impute", "--model", "plain"]
        arguments += ["-o", "m.safetensors", "--json"]
        result = json.loads(succeeds("fit", *arguments).stdout)
        assert result["task"] == "classification"
        assert result["validation"]["accuracy"] >= 0.9
        assert result["rows"] == {"training": 120, "validation": 30}
        table = bp.Table.load("m.safetensors")
        assert table.classes.tolist() == ["setosa", "versicolor", "virginica"]
        assert table.missing == "impute"
        worth = json.loads(succeeds("evaluate", "m.safetensors", "irises.csv", "--json").stdout)
        predicted = json.loads(succeeds("predict", "m.safetensors", "irises.csv", "--json").stdout)["species"]
        true = [row["species"] for row in irises(150, 3)]
        assert worth["accuracy"] == pytest.approx(np.mean([p == t for p, t in zip(predicted, true, strict=True)]))

    def test_the_model_is_the_one_that_python_loads(self, folder):
        import pyarrow.csv

        net, table = bp.Sequential.load("rent.safetensors"), bp.Table.load("rent.safetensors")
        values = table.values(net.predict(table.transform(pyarrow.csv.read_csv("new.csv"))))
        lines = succeeds("predict", "rent.safetensors", "new.csv").stdout.splitlines()[1:]
        np.testing.assert_array_equal(np.array(lines, float), values)

    def test_a_target_of_any_scale(self, folder):
        rows = flats(200, 0)
        worths = []
        for scale in (1, 1e9, 1e-9):
            write_csv("scaled.csv", [row | {"rent": row["rent"] * scale} for row in rows])
            arguments = ["scaled.csv", "--target", "rent", "-o", "m.safetensors", "--epochs", 15, "--json"]
            worths.append(json.loads(succeeds("fit", *arguments).stdout)["validation"])
        assert worths[0]["r2"] > 0.9
        for worth, scale in zip(worths[1:], (1e9, 1e-9), strict=True):
            np.testing.assert_allclose(worth["r2"], worths[0]["r2"], rtol=1e-3)
            np.testing.assert_allclose(
                worth["mean_absolute_error"], worths[0]["mean_absolute_error"] * scale, rtol=1e-2
            )

    def test_whole_numbers_as_classes(self, folder):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((120, 2))
        np.savez("data.npz", X=X, y=np.where(X[:, 0] > 0, 7, 3))
        arguments = ["data.npz", "--target", "y", "-o", "m.safetensors", "--epochs", 10]
        as_numbers = succeeds("fit", *arguments)
        assert "If they name classes: --task classification." in as_numbers.stderr
        assert "2 classes" in succeeds("fit", *arguments, "--task", "classification").stderr
        assert json.loads(succeeds("evaluate", "m.safetensors", "data.npz", "--json").stdout)["accuracy"] > 0.9
        succeeds("predict", "m.safetensors", "data.npz", "--out", "p.npy")
        predicted = np.load("p.npy")
        assert predicted.dtype == np.int64
        assert set(predicted.tolist()) == {3, 7}

    def test_post_codes_are_words(self, folder):
        rows = [{"code": f"0{1000 + i % 3}", "y": float(i % 3)} for i in range(60)]
        write_csv("codes.csv", rows)
        succeeds("fit", "codes.csv", "--target", "y", "--categories", "code", "-o", "m.safetensors", "--epochs", 2)
        assert bp.Table.load("m.safetensors").categories == {"code": ["01000", "01001", "01002"]}
        assert len(succeeds("predict", "m.safetensors", "codes.csv").stdout.splitlines()) == 61

    def test_resume_goes_on_with_the_same_bits(self, folder):
        settings = ["flats.csv", "--target", "rent", "--patience", 0, "--batch-size", 16]
        succeeds("fit", *settings, "--epochs", 6, "-o", "whole.safetensors", "--log", "whole.csv")
        succeeds(
            "fit", *settings, "--epochs", 4, "-o", "m.safetensors", "--checkpoint", "run.safetensors", "--log", "l.csv"
        )
        result = succeeds(
            "resume", "run.safetensors", "flats.csv", "-o", "m.safetensors", "--epochs", 2, "--log", "l.csv"
        )
        assert "Going on after 4 epochs" in result.stderr
        whole, again = (bp.Sequential.load(f"{name}.safetensors").phi for name in ("whole", "m"))
        assert whole.tobytes() == again.tobytes()
        losses = [[row["loss"] for row in read_csv(name)] for name in ("whole.csv", "l.csv")]
        assert losses[0] == losses[1]
        assert "all 4 epochs are done" in run("resume", "run.safetensors", "flats.csv", "-o", "m.safetensors").stderr

    @pytest.mark.parametrize("to", ["onnx", "numpy", "c"])
    def test_exports_compute_what_predict_does(self, folder, to):
        pytest.importorskip("onnxruntime" if to == "onnx" else "numpy")
        result = succeeds("export", "rent.safetensors", "--to", to, "--json")
        report = json.loads(result.stdout)
        assert "Its inputs are 4 columns, as they are in the data: size, floor, lift, town." in result.stderr
        assert "in units of rent" in result.stderr
        assert report["largest_difference"] < 1e-2  # rents are about 1000, in float32
        assert Path(report["out"]).stat().st_size > 1000

    def test_an_export_says_what_predict_says(self, folder):
        """It once took scaled inputs and gave the scaled target."""
        for model, data, target in (("rent", "new.csv", "rent"), ("species", "irises.csv", "species")):
            succeeds("export", f"{model}.safetensors", "--to", "numpy", "--out", f"{model}_net.py")
            program = [sys.executable, "-I", f"{model}_net.py", data]
            printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
            told = json.loads(succeeds("predict", f"{model}.safetensors", data, "--json").stdout)[target]
            if model == "rent":
                np.testing.assert_allclose(np.array(printed, float), told, rtol=1e-6)
            else:
                f = np.array([line.split(",") for line in printed], float)
                assert np.array(["setosa", "versicolor", "virginica"])[f.argmax(axis=1)].tolist() == told

    def test_weights_for_torch_where_it_is_not_installed(self, folder, monkeypatch):
        def absent(net):
            raise ImportError("no torch")

        monkeypatch.setattr(bp, "to_torch", absent)  # importing it takes seconds; test_formats compares with it
        result = succeeds("export", "rent.safetensors", "--to", "torch", "--json")
        report = json.loads(result.stdout)
        assert report["largest_difference"] is None
        assert "not installed" in report["run_by"]
        weights = load_file(report["out"])
        assert "size, floor, lift, town=Bonn, town=Köln, town=Ulm" in result.stderr
        net = bp.Sequential.load("rent.safetensors")
        bp.load_weights(net, report["out"])  # the same network, but for its scaling
        rows = [
            [r["size"], r["floor"], r["lift"] == "true", *(r["town"] == t for t in ("Bonn", "Köln", "Ulm"))]
            for r in flats(5, 2)
        ]
        lines = succeeds("predict", "rent.safetensors", "new.csv").stdout.splitlines()[1:]
        np.testing.assert_allclose(net.predict(np.array(rows, float))[:, 0], np.array(lines, float), rtol=1e-5)
        assert weights["0.weight"].shape == (64, 6)

    def test_other_optimizers_activations_and_losses(self, folder):
        for extra in (
            ["--optimizer", "sgd", "--activation", "tanh", "--loss", "huber"],
            ["--optimizer", "adamw", "--weight-decay", "0.01", "--hidden", "none", "--loss", "absolute-error"],
            ["--optimizer", "rmsprop", "--activation", "leakyrelu", "--hidden", "8", "--validation", "0"],
        ):
            result = succeeds(
                "fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", "--epochs", 40, *extra, "--json"
            )
            worth = json.loads(result.stdout)
            assert worth["training"]["r2"] > 0.5
            assert ("validation" in worth) == ("--validation" not in extra)
        net = bp.Sequential.load("m.safetensors")
        assert [type(layer).__name__ for layer in net] == ["Linear", "LeakyReLU", "Linear"]


class TestDataInAndOut:
    def frame(self, folder):
        import pyarrow.csv

        return pyarrow.csv.read_csv(folder / "later.csv")

    @pytest.mark.parametrize("kind", ["parquet", "tsv", "semicolons", "no header", "stdin", "reordered"])
    def test_the_same_rows_give_the_same_predictions(self, folder, kind):
        import pyarrow.parquet

        expected = succeeds("predict", "rent.safetensors", "later.csv").stdout
        text = Path("later.csv").read_text(encoding="utf-8")
        if kind == "parquet":
            pyarrow.parquet.write_table(self.frame(folder), "x.parquet")
            found = succeeds("predict", "rent.safetensors", "x.parquet")
        elif kind == "tsv":
            Path("x.tsv").write_text(text.replace(",", "\t"), encoding="utf-8")
            found = succeeds("predict", "rent.safetensors", "x.tsv")
        elif kind == "semicolons":
            Path("x.csv").write_text(text.replace(",", ";"), encoding="utf-8")
            found = succeeds("predict", "rent.safetensors", "x.csv", "--delimiter", ";")
        elif kind == "no header":
            numbers = "\n".join(
                ",".join(f"{v:.3f}" for v in row) for row in np.random.default_rng(0).normal(size=(40, 3))
            )
            Path("x.csv").write_text(numbers)
            fit = ["fit", "x.csv", "--no-header", "--target", "x2", "-o", "m.safetensors", "--epochs", 1]
            succeeds(*fit)
            array = np.loadtxt("x.csv", delimiter=",")
            np.save("x.npy", array)
            expected = succeeds("predict", "m.safetensors", "x.npy").stdout
            found = succeeds("predict", "m.safetensors", "x.csv", "--no-header")
        elif kind == "stdin":
            found = succeeds("predict", "rent.safetensors", "-", stdin=text.encode())
        else:
            frame = self.frame(folder)
            pyarrow.parquet.write_table(frame.select(frame.column_names[-2::-1]), "x.parquet")
            found = succeeds("predict", "rent.safetensors", "x.parquet")
        assert found.stdout == expected

    def test_out_in_each_format(self, folder):
        for name in ("p.csv", "p.jsonl", "p.npy"):
            result = succeeds("predict", "rent.safetensors", "later.csv", "--out", name)
            assert result.stdout == ""
            assert f"60 predictions saved to {name}." in result.stderr
        from_csv = [float(row["rent"]) for row in read_csv("p.csv")]
        from_lines = [json.loads(line)["rent"] for line in Path("p.jsonl").read_text().splitlines()]
        assert from_csv == from_lines == np.load("p.npy").tolist()
        to_stdout = run("predict", "rent.safetensors", "later.csv", "--format", "npy", "--out", "-")
        np.testing.assert_array_equal(np.load(io.BytesIO(to_stdout.stdout_bytes)), from_csv)

    def test_probabilities(self, folder):
        arguments = ["predict", "species.safetensors", "irises.csv", "--probabilities"]
        rows = list(csv.DictReader(io.StringIO(succeeds(*arguments).stdout)))
        names = ["species=setosa", "species=versicolor", "species=virginica"]
        p = np.array([[float(row[name]) for name in names] for row in rows])
        assert list(rows[0]) == ["species", *names]
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
        assert [row["species"] for row in rows] == [names[k].partition("=")[2] for k in p.argmax(axis=1)]
        succeeds(*arguments, "--out", "p.npy")
        np.testing.assert_array_equal(np.load("p.npy"), p)

    def test_a_model_without_a_table_takes_the_columns_as_they_are(self, folder):
        net = bp.Sequential(bp.Linear(3, 2), bp.Tanh(), seed=0)
        net.save("plain.safetensors")
        X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
        np.save("x.npy", X)
        succeeds("predict", "plain.safetensors", "x.npy", "--out", "f.npy")
        np.testing.assert_array_equal(np.load("f.npy"), net.predict(X))
        assert succeeds("predict", "plain.safetensors", "x.npy").stdout.startswith("f0,f1\n")

    def test_a_model_that_python_has_trained(self, folder):
        import pyarrow as pa

        X = np.random.default_rng(0).standard_normal(40)
        frame, sign = pa.table({"x": X}), np.where(X > 0, "plus", "minus")
        table = bp.Table()
        inputs, labels = table.fit(frame, sign)
        one = bp.Sequential(bp.Linear(1, 1), seed=0)
        bp.Trainer(one, bp.BinaryCrossEntropy(), bp.Adam(0.1)).fit(inputs, labels, epochs=20, verbose=0)
        one.save("one.safetensors", table=table)
        pa.csv.write_csv(frame, "x.csv")
        rows = json.loads(succeeds("predict", "one.safetensors", "x.csv", "--probabilities", "--json").stdout)
        p = 1 / (1 + np.exp(-one.predict(inputs)[:, 0].astype(float)))
        np.testing.assert_allclose(rows["prediction=plus"], p, rtol=1e-12)
        assert rows["prediction"] == np.where(p > 0.5, "plus", "minus").tolist()

        quantiles = bp.Sequential(bp.Linear(1, 2), seed=0)
        table.fit(frame, X * 100)
        quantiles.save("two.safetensors", table=table)
        assert succeeds("predict", "two.safetensors", "x.csv").stdout.startswith("prediction 0,prediction 1\n")
        assert run("evaluate", "two.safetensors", "x.csv").exit_code == 1  # it has no name for the target

        binary = bp.Table("sign")
        binary.fit(frame.append_column("sign", pa.array(sign)))
        one.save("one.safetensors", table=binary)
        pa.csv.write_csv(frame.append_column("sign", pa.array(sign)), "x.csv")
        worth = json.loads(succeeds("evaluate", "one.safetensors", "x.csv", "--json").stdout)
        assert worth["accuracy"] == np.mean((p > 0.5) == (X > 0))
        np.testing.assert_allclose(worth["loss"], -np.mean(np.log(np.where(X > 0, p, 1 - p))), rtol=1e-5)

    def test_a_layer_of_one_s_own_is_named(self, folder):
        sys.path.insert(0, str(folder))
        import layers

        bp.Sequential(bp.Linear(2, 2), layers.Swish(), seed=0).save("own.safetensors")
        np.save("x.npy", np.eye(2))
        refused = run("predict", "own.safetensors", "x.npy")
        assert refused.exit_code == 1
        assert "Swish" in refused.stderr
        succeeds("predict", "own.safetensors", "x.npy", "--layer", "layers:Swish")


class TestLooking:
    def test_explain_a_small_network(self):
        shown = succeeds("explain").stdout
        assert shown.startswith("Forward pass\n")
        assert "f_0 = β_0 + Ω_0 x" in shown
        numbers = json.loads(succeeds("explain", "--json").stdout)["numbers"]
        assert np.shape(numbers["∂L/∂Ω_1"]) == (1, 2)

    def test_explain_in_steps_is_all_of_it_where_nobody_can_press_enter(self):
        assert succeeds("explain", "--step").stdout == succeeds("explain").stdout
        assert "--step shows text" in run("explain", "--step", "--json").stderr

    def test_explain_a_model(self, folder):
        numbers = json.loads(succeeds("explain", "rent.safetensors", "later.csv", "--rows", 3, "--json").stdout)[
            "numbers"
        ]
        assert np.shape(numbers["x"]) == (6, 3)
        assert "### " in succeeds("explain", "species.safetensors", "irises.csv", "--markdown").stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            ["layers:Swish"],
            ["layers:Scale", "features=3"],
            ["layers:Logarithm", "--between", "0.5", "2"],
            ["layers:network"],
            ["layers:make"],
            ["backprop:Linear", "in_features=4", "out_features=2"],
            ["backprop:Dropout", "rate=0.3"],
        ],
        ids=" ".join,
    )
    def test_check_passes(self, folder, arguments):
        assert json.loads(succeeds("check", *arguments, "--json").stdout)["passed"]

    def test_check_names_what_is_wrong(self, folder):
        result = run("check", "layers:Wrong")
        assert result.exit_code == 1
        assert "Gradient check FAILED" in result.stdout
        assert result.stderr.startswith("backprop check: Wrong(), gradients: ")
        assert len(result.stderr.splitlines()) == 1
        as_json = run("check", "layers:Wrong", "--json")
        assert as_json.exit_code == 1
        assert not json.loads(as_json.stdout)["passed"]

    def test_bench(self, folder):
        result = json.loads(
            succeeds("bench", "--batch-sizes", "1,64", "--hidden", "8", "--seconds", "0.05", "--json").stdout
        )
        assert [row["batch_size"] for row in result["rows"]] == [1, 64]
        assert result["batch_size"] in (1, 64)

    def test_pictures(self, folder):
        succeeds("fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", "--epochs", 3, "--log", "log.csv")
        rng = np.random.default_rng(0)
        np.savez("plane.npz", X=rng.standard_normal((60, 2)), y=rng.choice(["a", "b"], 60))
        succeeds("fit", "plane.npz", "--target", "y", "-o", "plane.safetensors", "--epochs", 2)
        for source, kind in (
            (["log.csv"], None),
            (["rent.safetensors"], "network"),
            (["rent.safetensors"], "weights"),
            (["species.safetensors", "irises.csv"], "confusion"),
            (["plane.safetensors", "plane.npz"], "boundary"),
            (["rent.safetensors", "new.csv"], "loss"),
        ):
            if kind == "loss":
                write_csv("new.csv", flats(4, 2))
            settings = ["--kind", kind] if kind else []
            result = succeeds("plot", *source, *settings, "--out", "picture.png", "--json")
            assert json.loads(result.stdout) == {"out": "picture.png"}
            assert Path("picture.png").read_bytes().startswith(b"\x89PNG")
            Path("picture.png").unlink()

    def test_a_log_reads_back_as_it_was(self, folder):
        from backprop.cli.pictures import history

        X, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
        net = bp.Sequential(bp.Linear(2, 2), seed=0)
        loggers = [bp.CSVLogger("a.csv"), bp.JSONLLogger("a.jsonl")]
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1))
        seen = trainer.fit(X, y, epochs=3, validation_data=(X, y), metrics=["accuracy"], callbacks=loggers, verbose=0)
        for name in ("a.csv", "a.jsonl"):
            assert [epoch.flat() for epoch in history(Path(name))] == [epoch.flat() for epoch in seen]


USAGE = [
    [],
    ["demonstrate"],
    ["demo", "--epochs"],
    ["demo", "--epochs", "many"],
    ["demo", "--epochs", "0"],
    ["demo", "--rate", "1"],
    ["fit"],
    ["fit", "flats.csv"],
    ["fit", "flats.csv", "--target", "rent"],
    ["fit", "flats.csv", "--target", "rent", "-o", "flats.csv"],
    ["fit", "flats.csv", "--target", "rent", "-o", "m.bin"],
    *(
        ["fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", *wrong]
        for wrong in (
            ["--hidden", "64,x"],
            ["--hidden", "0"],
            ["--hidden", ""],
            ["--validation", "1"],
            ["--epochs", "0"],
            ["--epochs", "2.5"],
            ["--learning-rate", "0"],
            ["--batch-size", "-1"],
            ["--optimizer", "lion"],
            ["--seed", "-1"],
            ["--loss", "cross-entropy"],
            ["--log", "log.txt"],
            ["--checkpoint", "m.safetensors"],
            ["--checkpoint", "m.pt"],
            ["--delimiter", ";;"],
            ["--task", "clustering"],
        )
    ),
    ["fit", "irises.csv", "--target", "species", "--missing", "impute", "--loss", "huber", "-o", "m.safetensors"],
    ["fit", "layers.py", "--target", "y", "-o", "m.safetensors"],
    ["predict", "rent.safetensors"],
    ["predict", "rent.safetensors", "new.csv", "--out", "new.csv"],
    ["predict", "rent.safetensors", "new.csv", "--out", "p.txt"],
    ["predict", "rent.safetensors", "new.csv", "--format", "xml"],
    ["predict", "rent.safetensors", "new.xlsx"],
    ["evaluate", "rent.safetensors"],
    ["export", "rent.safetensors"],
    ["export", "rent.safetensors", "--to", "pickle"],
    ["export", "rent.safetensors", "--to", "c", "--out", "rent.safetensors"],
    ["export", "rent.safetensors", "--to", "torch", "--out", "rent.safetensors"],
    ["plot", "rent.safetensors"],
    ["plot", "rent.safetensors", "--out", "picture.gif"],
    ["plot", "rent.safetensors", "--out", "picture.png", "--kind", "confusion"],
    ["explain", "rent.safetensors"],
    ["check"],
    ["check", "layers"],
    ["check", "layers:Scale"],
    ["check", "layers:Scale", "features"],
    ["check", "layers:Scale", "width=3"],
    ["bench", "--batch-sizes", "1,two"],
    ["bench", "--batch-sizes", "0"],
    ["resume", "run.safetensors"],
    ["completion", "tcsh"],
]


def bad_files():
    """Files that are not what they should be."""
    model = Path("rent.safetensors").read_bytes()
    rows = flats(30, 5)
    write = {
        "empty.csv": b"",
        "header.csv": b"size,rent\n",
        "ragged.csv": b"a,rent\n1,2\n3\n",
        "thousands.csv": b'size,rent\n10,"1,234"\n20,"12"\n30,"1,500.5"\n',
        "latin.csv": "town,rent\nKöln,1\nUlm,2\n".encode("latin-1"),
        "numbers.csv": b"1,2\n3,4\n",
        "twice.csv": b"a,a,rent\n1,2,3\n4,5,6\n",
        "infinite.csv": b"a,rent\n1,2\n3,inf\n",
        "dates.csv": b"day,rent\n2024-01-01,1\n2024-01-02,2\n",
        "one.csv": b"a,rent\n1,x\n2,x\n",
        "text.npy": b"no array",
        "text.npz": b"no archive",
        "text.parquet": b"no table",
        "short.safetensors": model[:-7],
        "flipped.safetensors": model[:-5] + bytes([model[-5] ^ 1]) + model[-4:],
        "text.safetensors": b"no model",
        "broken.py": b"def f(:\n",
        "raises.py": b"1 / 0\n",
    }
    for name, data in write.items():
        Path(name).write_bytes(data)
    X = np.arange(6.0).reshape(3, 2)
    np.save("flat.npy", np.arange(3.0))
    np.save("objects.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    np.savez("noX.npz", a=X)
    np.savez("long.npz", X=X, y=np.arange(4))
    Path("cut.npy").write_bytes(Path("flat.npy").read_bytes()[:-4])
    np.savez("cut.npz", X=X, y=np.arange(3.0))
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:-30])
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "<f8", "fortran_order": False, "shape": (2**57, 1)})
    Path("claim.npy").write_bytes(claim.getvalue())
    write_csv("absent.csv", [{name: row[name] for name in ("size", "floor", "lift", "rent")} for row in rows])
    write_csv("added.csv", [row | {"garden": 1} for row in rows])
    write_csv("unseen.csv", [row | {"town": "Rom"} for row in rows])
    write_csv("words.csv", [row | {"size": "large"} for row in rows])
    write_csv("holes.csv", [row | {"floor": "" if k == 3 else 1} for k, row in enumerate(rows)])
    Path("folder.csv").mkdir()
    Path("folder.safetensors").mkdir()


def fit_to(path, target="rent"):
    return ["fit", path, "--target", target, "-o", "m.safetensors", "--epochs", "1"]


def predict_of(path):
    return ["predict", "rent.safetensors", path]


REFUSED = {
    "no such file": (fit_to("nothing.csv"), "nothing.csv: No such file"),
    "a folder as data": (fit_to("folder.csv"), "folder.csv: Is a directory"),
    "empty": (fit_to("empty.csv"), "empty.csv: "),
    "a header alone": (fit_to("header.csv"), "rows"),
    "ragged": (fit_to("ragged.csv"), "ragged.csv: CSV parse error"),
    "not UTF-8": (fit_to("latin.csv"), "latin.csv: the file: expected text in UTF-8"),
    "separators of thousands": (fit_to("thousands.csv"), "column 'rent': expected numbers, got '1,234'"),
    "no header": (fit_to("numbers.csv"), "--no-header"),
    "a name twice": (fit_to("twice.csv"), "a"),
    "infinite": (fit_to("infinite.csv"), "inf at row 1"),
    "dates": (fit_to("dates.csv"), "--dates day makes numbers"),
    "one class": (fit_to("one.csv"), "at least two classes"),
    "no such target": (fit_to("flats.csv", "Rent"), "Close to it: 'rent'"),
    "holes": (fit_to("holes.csv"), "fit --missing impute"),
    "to drop what is not there": ([*fit_to("flats.csv"), "--drop", "id"], "expected columns ['id']"),
    "categories that are not there": ([*fit_to("flats.csv"), "--categories", "id"], "expected columns ['id']"),
    "classes as numbers": (
        [*fit_to("irises.csv", "species"), "--missing", "impute", "--task", "regression"],
        "classes",
    ),
    "divergence": ([*fit_to("flats.csv"), "--optimizer", "sgd", "--learning-rate", "1e30"], "finite"),
    "no folder for the model": ([*fit_to("flats.csv"), "-o", "none/m.safetensors"], "none: No such folder"),
    "a folder as model": ([*fit_to("flats.csv"), "-o", "folder.safetensors"], "Is a directory"),
    "no .npy": (fit_to("text.npy"), "text.npy: the file: expected an .npy file"),
    "no .npz": (fit_to("text.npz"), "text.npz: the file: expected an .npz file"),
    "no .parquet": (fit_to("text.parquet"), "text.parquet: "),
    "a vector": (fit_to("flat.npy"), "(N, D)"),
    "pickled objects": (fit_to("objects.npy"), "objects.npy: "),
    "a cut array": (fit_to("cut.npy"), "cut.npy: "),
    "a cut archive": (fit_to("cut.npz"), "cut.npz: "),
    "an array that claims too much": (fit_to("claim.npy"), "claim.npy: "),
    "no X": (fit_to("noX.npz"), "expected arrays X"),
    "y too long": (fit_to("long.npz", "y"), "shape (3,)"),
    "an empty stdin": (fit_to("-"), "standard input: "),
    "a column absent": (predict_of("absent.csv"), "expected columns ['town']"),
    "a column added": (predict_of("added.csv"), "got also ['garden']"),
    "an unseen category": (predict_of("unseen.csv"), "'Rom' at row 0"),
    "words for numbers": (predict_of("words.csv"), "column 'size': expected numbers, got 'large' at row 0"),
    "holes later": (predict_of("holes.csv"), "row 3"),
    "probabilities of numbers": ([*predict_of("new.csv"), "--probabilities"], "predicts numbers"),
    "no target": (["evaluate", "rent.safetensors", "new.csv"], "expected columns ['rent']"),
    "a cut model": (["predict", "short.safetensors", "new.csv"], "short.safetensors: "),
    "a flipped bit": (["predict", "flipped.safetensors", "new.csv"], "SHA-256"),
    "text as model": (["predict", "text.safetensors", "new.csv"], "text.safetensors: "),
    "a folder to predict with": (["predict", "folder.safetensors", "new.csv"], "folder.safetensors: Is a directory"),
    "no such model": (["evaluate", "nothing.safetensors", "new.csv"], "nothing.safetensors: No such file"),
    "data as model": (["export", "flats.csv", "--to", "numpy"], "flats.csv: "),
    "confusion of numbers": (
        ["plot", "rent.safetensors", "later.csv", "--kind", "confusion", "--out", "x.png"],
        "predicts numbers",
    ),
    "a boundary of many columns": (
        ["plot", "rent.safetensors", "later.csv", "--kind", "boundary", "--out", "x.png"],
        "--kind boundary: expected a model of two columns of numbers",
    ),
    "no log": (["plot", "flats.csv", "--out", "x.png"], "expected a log"),
    "no such metric": (["plot", "log.csv", "--metric", "joy", "--out", "x.png"], "joy"),
    "no such module": (["check", "nothing:Layer"], "No module named 'nothing'"),
    "a broken module": (["check", "broken:Layer"], "SyntaxError"),
    "a module that raises": (["check", "raises:Layer"], "ZeroDivisionError: division by zero (raises.py, line 1)"),
    "no such class": (["check", "layers:Nothing"], "layers has no Nothing"),
    "no layer": (["check", "layers:np"], "expected a class of layers"),
    "outside its domain": (["check", "layers:Logarithm"], "finite loss"),
    "a model to resume": (["resume", "rent.safetensors", "flats.csv", "-o", "m.safetensors"], "expected a checkpoint"),
    "other data": (
        ["resume", "run.safetensors", "later.csv", "-o", "m.safetensors", "--epochs", "1"],
        "later.csv: expected the data that run.safetensors was trained on, got other data. With new rows",
    ),
    "another's checkpoint": (["resume", "other.safetensors", "later.csv", "-o", "m.safetensors"], "backprop fit"),
    "a batch larger than the data": (["bench", "--batch-sizes", "4096"], "1,797"),
    "a folder that cannot be made": (["demo", "--out", "flats.csv/below"], "flats.csv"),
}


@pytest.fixture(scope="module")
def bad(files, tmp_path_factory):
    """The folder with bad files, too."""
    folder, before = tmp_path_factory.mktemp("bad"), Path.cwd()
    for path in files.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    os.chdir(folder)
    try:
        bad_files()
        trainer = bp.Trainer(bp.Sequential(bp.Linear(2, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
        trainer.save("other.safetensors")
        settings = ["--epochs", 2, "--checkpoint", "run.safetensors", "--log", "log.csv"]
        succeeds("fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", *settings)
    finally:
        os.chdir(before)
    return folder


class TestRefusals:
    @pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
    def test_wrong_usage_exits_with_2(self, folder, arguments):
        before = sorted(path.name for path in folder.iterdir())
        result = run(*arguments)
        assert result.exit_code == 2, result.stderr
        assert result.stdout == ""
        assert "Error: " in result.stderr or not arguments
        assert "Traceback" not in result.stderr
        assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before

    @pytest.mark.filterwarnings("default")
    @pytest.mark.parametrize("case", REFUSED)
    def test_what_data_and_models_cannot_do_exits_with_1(self, bad, case, monkeypatch):
        monkeypatch.chdir(bad)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.delitem(sys.modules, "layers", raising=False)
        arguments, reason = REFUSED[case]
        model = Path("m.safetensors").read_bytes()
        result = run(*arguments)
        assert result.exit_code == 1, (result.stdout, result.stderr)
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"backprop {arguments[0]}: ")
        assert reason in last
        assert arguments[0] == "check" or not PYTHON.search(result.stderr)
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert Path("m.safetensors").read_bytes() == model
        assert not list(bad.glob(".*.part"))

    def test_warnings_are_a_line_each(self, folder, recwarn):
        rows = [row | {"floor": 1} for row in flats(50, 0)]
        write_csv("same.csv", rows)
        import warnings

        warnings.simplefilter("default")
        result = succeeds("fit", "same.csv", "--target", "rent", "-o", "m.safetensors", "--epochs", 1)
        (line,) = [line for line in result.stderr.splitlines() if "hold one value only" in line]
        assert line.startswith("backprop: note: columns ['floor']")

    def test_the_extra_is_named_where_it_is_missing(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        result = run(*fit_to("flats.csv"))
        assert result.exit_code == 1
        assert 'pip install "backprop-mlp[tables]"' in result.stderr

    def test_main_returns_the_code(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.strip()
        assert main(["nothing"]) == 2
        assert "No such command" in capsys.readouterr().err

    def test_nothing_the_library_does_wrong_is_hidden(self, monkeypatch, capsys):
        monkeypatch.setattr("backprop.demo.run", lambda *arguments: {}["a mistake"])
        with pytest.raises(KeyError):
            main(["demo"])


def examples():
    """Every example of --help and of the page on the command line, in the order of the commands."""
    for name, command in commands.commands.items():
        for line in command.help.splitlines():
            if re.match(r"\s+(backprop|cat) ", line):
                yield name, line.strip()
    for line in re.findall(r"^\$ (.*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE):
        yield "docs", line


SHOWS = ("demo", "completion", "launch", "rank")  # whose output is somebody else's
QUICKER = {"bench": ["--seconds", "0.1"]}


def shell(line):
    """Run a line as a shell would: `cat file | backprop …`, `backprop … > file`."""
    words, stdin, out = shlex.split(line), b"", None
    if words[0] == "cat":
        stdin, words = Path(words[1]).read_bytes(), words[3:]
    if ">" in words:
        out, words = words[-1], words[: words.index(">")]
    program, name, *arguments = words
    assert program == "backprop"
    quicker = QUICKER.get(name, []) if "--help" not in arguments else []
    result = succeeds(name, *arguments, *quicker, stdin=stdin)
    if out is not None:
        Path(out).write_bytes(result.stdout_bytes)
    return result


class TestHelp:
    def test_every_command_teaches_with_an_example(self):
        taught = {name for name, _ in examples()}
        assert set(commands.commands) <= taught
        assert commands.help.count("  backprop ") >= 2

    def test_every_example_works(self, folder, monkeypatch):
        monkeypatch.setattr("backprop.estimators.members.epochs_of", lambda n, batch_size: 2)
        monkeypatch.setattr("backprop.demo.run", lambda out, epochs, seed: None)  # TestDemo runs it
        monkeypatch.setattr("backprop.distributed.launch.Launcher.run", lambda launcher: 0)  # tests/test_launch.py does
        monkeypatch.setattr("os.execve", lambda *arguments: None)
        (folder / "train.py").touch()
        lines = [line for _, line in examples()]
        assert len(lines) > 25
        for line in lines:
            shell(line)
            for path in folder.glob("*.json*"):
                assert path.read_text(encoding="utf-8")

    @pytest.mark.parametrize("name", ["", *commands.commands])
    def test_help_goes_to_stdout(self, name):
        result = succeeds(*([name] if name else []), "--help")
        assert result.stdout.startswith("Usage: backprop")
        shown = [line.strip() for line in result.stdout.splitlines()]
        assert "Examples:" in shown
        assert {line for of, line in examples() if of == name} <= set(shown)  # not wrapped
        assert result.stderr == ""

    @pytest.mark.parametrize("name", [name for name in commands.commands if name not in SHOWS])
    def test_every_command_but_the_show_speaks_json(self, name):
        assert "--json" in {option for parameter in commands.commands[name].params for option in parameter.opts}

    def test_help_needs_nothing_heavy(self):
        program = "import sys, backprop.cli; print([m for m in sys.modules if m in ('numpy', 'pyarrow', 'scipy')])"
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"

    def test_ctrl_c_while_it_starts(self):
        program = """
            import sys
            class Stop:
                def find_spec(name, *rest):
                    if name == "click":
                        raise KeyboardInterrupt
            sys.meta_path.insert(0, Stop)
            from backprop.__main__ import main
            sys.exit(main(["--version"]))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr == "backprop: interrupted; no result was written\n"

    @pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
    def test_completion(self, name):
        assert "_BACKPROP_COMPLETE" in succeeds("completion", name).stdout

    def test_completes_commands_options_and_choices(self, monkeypatch):
        for words, expected in (
            ("backprop ", {"fit", "predict", "resume"}),
            ("backprop fit --opt", {"--optimizer"}),
            ("backprop export --to ", {"onnx", "numpy", "c", "torch"}),
        ):
            monkeypatch.setenv("_BACKPROP_COMPLETE", "bash_complete")
            monkeypatch.setenv("COMP_WORDS", words)
            monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
            result = CliRunner().invoke(commands, [], prog_name="backprop")
            found = {line.partition(",")[2] for line in result.stdout.splitlines()}
            assert expected <= found


class TestWalk:
    """The page on spreadsheets, line by line."""

    PAGE = DOCS.parents[1] / "how_to" / "spreadsheets.md"

    def test_prints_what_is_shown(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        text = self.PAGE.read_text(encoding="utf-8")
        (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        exec(code, {})
        blocks = re.findall(r"^```console\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL)
        (fitted,) = (
            shown for shown in re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "Read" in shown
        )
        for lines, shown in blocks:
            for line in lines.splitlines():
                result = run(*shlex.split(line.removeprefix("$ backprop ")))
                printed = result.stderr + result.stdout
                assert (result.exit_code != 0) == shown.startswith("backprop look:"), printed
                if shown or "backprop fit" in line:
                    assert self.form(printed) == self.form(shown or fitted)
        assert Path("mieten.csv").read_text().count("\n") == 21
        assert Path("verlauf.png").read_bytes().startswith(b"\x89PNG")
        assert result.exit_code == 0
        assert "english.csv is read with --decimal '.', as given here; fit had ','." in result.stderr

    @staticmethod
    def form(text):
        """The words; numbers of a training differ from machine to machine."""
        return re.sub(r"Stopped.*\n", "", re.sub(r"[\d.]+", "#", text)).split()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestProcesses:
    def test_ctrl_c_saves_the_model_and_the_checkpoint(self, folder):
        log = Path("log.jsonl")
        arguments = ["flats.csv", "--target", "rent", "-o", "m.safetensors", "--epochs", "1000000", "--patience", "0"]
        process = subprocess.Popen(
            [*BACKPROP, "fit", *arguments, "--checkpoint", "run.safetensors", "--log", log, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: log.exists() and log.read_text().count("\n") > 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "Stopped by Ctrl-C" in err
        assert "Model saved to m.safetensors." in err
        assert "%" not in err  # no progress bar in a pipe
        assert "\x1b" not in out + err
        result = json.loads(out)
        assert result["stopped"] == "Ctrl-C"
        assert json.loads(succeeds("evaluate", "m.safetensors", "later.csv", "--json").stdout)["rows"] == 60
        resumed = succeeds("resume", "run.safetensors", "flats.csv", "-o", "m.safetensors", "--epochs", 1)
        assert f"Going on after {result['epochs']} epochs" in resumed.stderr
        assert not list(folder.glob(".*.part"))

    @pytest.mark.skipif(sys.platform != "linux", reason="tells by /proc when reading has begun")
    def test_ctrl_c_while_reading_writes_nothing(self, folder):
        read, write = os.pipe()
        process = subprocess.Popen(
            [*BACKPROP, *fit_to("-")], stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        os.close(read)
        os.write(write, b"a,rent\n1,2\n")
        wait_for(
            lambda: "pyarrow" in Path(f"/proc/{process.pid}/maps").read_text()
        ) if sys.platform == "linux" else None
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        os.close(write)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "no result was written" in err
        assert "Traceback" not in err
        assert out == ""
        assert not Path("m.safetensors").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
    def test_a_terminal_shows_progress_and_a_pipe_does_not(self, folder):
        import fcntl
        import pty
        import struct
        import termios

        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        process = subprocess.Popen(
            [*BACKPROP, *fit_to("flats.csv"), "--epochs", "20", "--json"], stdout=subprocess.PIPE, stderr=follower
        )
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            shown += piece
            if not piece:
                break
        os.close(leader)
        out = process.communicate(timeout=30)[0]
        assert process.returncode == 0
        assert b"100%" in shown
        assert b"validation_loss" in shown
        assert set(json.loads(out)) >= {"model", "task", "epochs", "validation"}

    @pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
    def test_a_reader_that_leaves_is_no_error(self, folder, environment):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | environment
        read, write = os.pipe()
        os.close(read)
        command = [*BACKPROP, "predict", "rent.safetensors", "later.csv"]
        result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment)
        os.close(write)
        assert (result.returncode, result.stderr) == (141, b"")

    def test_a_pipe_that_takes_a_part_gets_all(self, monkeypatch):
        taken = bytearray()

        class Narrow(io.RawIOBase):
            def write(self, data):
                taken.extend(data[:7])
                return min(7, len(data))

        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", SimpleNamespace(buffer=Narrow()))
            write({"rent": np.arange(50.0)}, None, ".csv")
        assert taken.decode().split() == ["rent", *(f"{value:.1f}" for value in range(50))]

    def test_a_row_longer_than_a_block_of_the_reader(self, tmp_path):
        """It once was refused, and then Python waited for the reader's threads for ever."""
        rows = "".join(f"{i},u,{i}\n" for i in range(30))
        (tmp_path / "long.csv").write_text(f"size,note,rent\n1,{'x' * 3_000_000},2\n{rows}")
        fit = ["fit", "long.csv", "--target", "rent", "--drop", "note", "--out", "m.safetensors", "--epochs", "1"]
        done = subprocess.run(
            [sys.executable, "-m", "backprop", *fit], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "Read 31 rows" in done.stderr

    @pytest.mark.skipif(sys.platform == "win32", reason="no such files")
    def test_files_that_never_end(self, folder):
        zero = os.path.join(os.sep, "dev", "zero")
        os.mkfifo("pipe.csv")
        Path("zero.csv").symlink_to(zero)
        for path in ("pipe.csv", "zero.csv"):
            for command in (["fit", path, "--target", "y", "-o", "m.safetensors"], ["look", path], [*predict_of(path)]):
                result = run(*command)
                assert result.exit_code == 1
                assert f"{path}: expected a file, got a " in result.stderr
        for command in (["plot", "pipe.csv", "-o", "p.png"], [*fit_to("flats.csv"), "--log", "pipe.csv"]):
            result = run(*command)
            assert result.exit_code == 1
            assert "pipe.csv: expected a file, got a named pipe" in result.stderr
        with open(zero, "rb") as zeros:
            done = subprocess.run([*BACKPROP, *fit_to("-")], stdin=zeros, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith("backprop fit: standard input: the file: expected text, got bytes such as b'")
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.skipif(sys.platform == "win32", reason="no such shell")
    @pytest.mark.parametrize(("path", "code"), [("flats.csv", 0), ("nothing.csv", 1)])
    def test_a_closed_standard_error(self, folder, path, code):
        command = f"{shlex.join([*BACKPROP, *fit_to(path)])} --log log.csv --json 2>&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (code, "")
        assert Path("m.safetensors").exists() == (code == 0)
        if code == 0:
            assert json.loads(done.stdout)["model"] == "m.safetensors"
            bp.Sequential.load("m.safetensors")
            assert len(read_csv("log.csv")) == 1

    @pytest.mark.skipif(sys.platform == "win32", reason="no such shell")
    def test_a_result_that_nobody_can_get_is_an_error(self, folder):
        succeeds(*fit_to("flats.csv"))
        command = f"{shlex.join([*BACKPROP, 'evaluate', 'm.safetensors', 'flats.csv'])} >&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.endswith("backprop evaluate: Standard output is closed\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
    @pytest.mark.parametrize("command", ["--help", "--version", "fit --help"])
    def test_words_that_have_no_room(self, command):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*BACKPROP, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
        assert (done.returncode, done.stderr) == (1, "backprop: No space left on device\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
    def test_files_of_one_training_stay_together_where_its_result_has_no_room(self, folder):
        more = ["--checkpoint", "run.safetensors", "--log", "log.csv", "--patience", "0"]
        succeeds(*fit_to("flats.csv"), *more, "--seed", "0")
        command = [*BACKPROP, *fit_to("flats.csv"), *more, "--seed", "1", "--epochs", "2"]
        with open("/dev/full", "w") as full:
            done = subprocess.run(list(map(str, command)), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 1
        model, trainer = bp.Sequential.load("m.safetensors"), bp.Trainer.resume("run.safetensors")
        np.testing.assert_array_equal(model.phi, trainer.net.phi)
        assert trainer.notes["fit"]["seed"] == 1
        assert len(read_csv("log.csv")) == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
    def test_a_link_to_where_nothing_can_be_written_is_refused_before_training(self, folder):
        os.symlink("nowhere/m.safetensors", "m.safetensors")
        result = run(*fit_to("flats.csv"))
        assert result.exit_code == 1
        assert result.stderr.endswith("nowhere: No such folder\n")
        assert "Read" not in result.stderr
        os.symlink("nothing.parquet", "mixed.parquet")
        refused = run("shuffle", "flats.parquet", "mixed.parquet")
        assert refused.exit_code == 1

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
    def test_named_pipes_of_rows_are_refused(self, folder):
        os.mkfifo("pipe.parquet")
        Path("rows").mkdir()
        os.mkfifo("rows/pipe.parquet")
        for command in (["shuffle", "pipe.parquet", "out.parquet"], ["look", "rows"], fit_to("rows")):
            result = run(*command)
            assert result.exit_code == 1
            assert "expected a file, got a named pipe" in result.stderr

    def test_a_fit_that_diverges_loses_nothing(self, folder):
        write_csv("large.csv", [row | {"rent": row["rent"] * (1 + (k == 60))} for k, row in enumerate(flats(200, 0))])
        before = {name: f"the {name} of somebody".encode() for name in ("log.csv", "run.safetensors", "m.safetensors")}
        for name, data in before.items():
            Path(name).write_bytes(data)
        options = ["--log", "log.csv", "--checkpoint", "run.safetensors", "--optimizer", "sgd", "--learning-rate", 1e30]
        result = run(*fit_to("large.csv"), *options)
        assert result.exit_code == 1
        assert "run.safetensors is again as it was." in result.stderr
        assert result.stderr.splitlines()[-1].endswith(
            "Lower --learning-rate; backprop look shows what is odd about the data."
        )
        for name, data in before.items():
            assert Path(name).read_bytes() == data

    def test_more_categories_than_a_file_holds(self, folder):
        """They were refused when the model was to be saved, after all the training."""
        write_csv("many.csv", [{"user": f"u{k % 66_000}", "y": k % 7} for k in range(140_000)])
        result = run("fit", "many.csv", "--target", "y", "--hidden", "8", "-o", "m.safetensors")
        assert result.exit_code == 1
        assert "column 'user'" in result.stderr
        assert "features" in result.stderr

    def test_as_a_module(self):
        result = subprocess.run([*BACKPROP, "nothing"], capture_output=True, text=True)
        assert result.returncode == 2
        assert "Usage: backprop" in result.stderr


class TestDigits:
    def test_facts(self):
        X, y = bp.load_digits()
        assert (X.shape, X.dtype) == ((1797, 64), np.uint8)
        assert (X.min(), X.max()) == (0, 16)
        assert (y.shape, y.dtype) == ((1797,), np.int64)
        # counts of the classes as the data set's authors publish them
        assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]

    def test_the_first_image_is_a_zero(self):
        X, y = bp.load_digits()
        image = X[0].reshape(8, 8)
        assert y[0] == 0
        assert image[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
        assert image[3:5, 3:5].max() <= 1  # the hole in the middle

    def test_each_call_gives_arrays_of_one_s_own(self):
        X, _ = bp.load_digits()
        X[...] = 0
        assert bp.load_digits()[0].max() == 16

    def test_split_keeps_rows_and_labels_together_and_loses_none(self):
        X, y = bp.load_digits()
        X_train, X_test, y_train, y_test = split(X, y, held_out=0.25, seed=3)
        both = np.vstack([np.column_stack([X_train, y_train]), np.column_stack([X_test, y_test])])
        whole = np.column_stack([X, y])
        assert len(X_test) == 449
        np.testing.assert_array_equal(both[np.lexsort(both.T)], whole[np.lexsort(whole.T)])
        np.testing.assert_array_equal(split(X, y, seed=3)[2], y_train)
        assert not np.array_equal(split(X, y, seed=4)[2], y_train)
