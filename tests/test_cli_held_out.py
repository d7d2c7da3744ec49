"""The tabular network of the command line, and the rows that it never sees: what it keeps, measures and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import run, succeeds

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

import pyarrow.parquet as pq  # noqa: E402

from backprop.cli.holdout import HoldOut  # noqa: E402
from backprop.cli.models import load  # noqa: E402

N = 40
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=N).round(3), RNG.normal(size=N).round(3)
TOWNS = np.array(["Bonn", "Ulm"] * (N // 2))
HELD = HoldOut(pa.table({"x": X}), 0.2, 0).held  # of every file of so many rows, by chance


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, and networks that train for three epochs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("backprop.estimators.members.epochs_of", lambda n, batch_size: 3)


def write(name="a.csv", **columns):
    pd.DataFrame({"x": X, **columns}).to_csv(name, index=False)


def but(values, places, value):
    """The values with another one at some places."""
    found = np.array(values, dtype=object)
    found[places] = value
    return found


def fit(*options, name="a.csv", target="y"):
    return run("fit", name, "--target", target, "--members", 1, "-o", "m.safetensors", "--json", *options)


def fits(*options, **how):
    result = fit(*options, **how)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def evaluate(name="a.csv"):
    return json.loads(succeeds("evaluate", "m.safetensors", name, "--json").stdout)


def require_the_same(found):
    """What evaluate says of the rows held out is what fit has said."""
    held = evaluate()["held_out"]
    assert held.pop("rows") == found["rows"]["validation"]
    assert held == pytest.approx(found["validation"], rel=1e-5)


KINDS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "dictionary of large_string": pa.dictionary(pa.int32(), pa.large_string()),
}


class TestKindsOfArrow:
    @pytest.mark.parametrize("kind", KINDS)
    def test_days_in_words_hold_out_the_same_rows(self, kind):
        """Of some kinds, words of days were put in the order of the alphabet."""
        days = [f"{1 + 11 * k % 28:02}.{1 + 7 * k % 12:02}.{2020 + k % 3}" for k in range(N)]
        write(day=days, town=TOWNS, y=Y)
        frame = pa.table({"x": X, "day": days, "town": TOWNS.tolist(), "y": Y})
        pq.write_table(frame.set_column(1, "day", frame["day"].cast(KINDS[kind])), "a.parquet")
        told = {name: fit("--time", "day", name=name).stderr for name in ("a.csv", "a.parquet")}
        assert "Held out: the latest" in told["a.csv"]
        assert told["a.parquet"].replace("a.parquet", "a.csv") == told["a.csv"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_advice_and_refusals_are_the_same(self, kind):
        people = [f"p{k % 8}" for k in range(N)]
        days = [f"{1 + k % 28:02}.12.2024" for k in range(N)]
        write(patient=people, day=days, y=Y)
        columns = {"patient": pa.array(people).cast(KINDS[kind]), "day": pa.array(days).cast(KINDS[kind])}
        pq.write_table(pa.table({"x": X, **columns, "y": Y}), "a.parquet")
        told = {name: fit("--dates", "day=%d.%m.%y", name=name) for name in ("a.csv", "a.parquet")}
        assert {result.exit_code for result in told.values()} == {1}
        assert told["a.parquet"].stderr.replace("a.parquet", "a.csv") == told["a.csv"].stderr
        told = {name: fit("--drop", "day", name=name) for name in ("a.csv", "a.parquet")}
        assert "--time day" in told["a.csv"].stderr
        assert "--group patient" in told["a.csv"].stderr
        assert told["a.parquet"].stderr.replace("a.parquet", "a.csv") == told["a.csv"].stderr

    @pytest.mark.parametrize(
        ("values", "options", "expected"),
        [
            (pa.array([[1, 2]] * N), ["--group", "c"], "--group c: expected names, numbers or dates, got [1, 2]"),
            (pa.array([{"u": 1}] * N), ["--time", "c"], "--time c: expected names, numbers or dates, got {'u': 1}"),
            (pa.array([[1, 2]] * N), [], "expected numbers, text or categories in column 'c', got a list"),
            (pa.array([b"u", b"v"] * (N // 2), pa.binary_view()), [], "in column 'c', got a bytes"),
        ],
    )
    def test_what_is_no_column_is_refused_in_our_words(self, values, options, expected):
        pq.write_table(pa.table({"x": X, "c": values, "y": Y}), "a.parquet")
        result = fit(*options, name="a.parquet")
        assert result.exit_code == 1
        assert expected in result.stderr
        assert not Path("m.safetensors").exists()

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([b"u", b"v", b"w"] * 13 + [b"u"], pa.binary_view()),
            pa.array(np.arange(N) % 4, pa.float16()),
            pa.array(["u", "v", "w"] * 13 + ["u"], pa.string_view()),
        ],
        ids=lambda values: str(values.type),
    )
    def test_groups_of_rare_kinds(self, values):
        pq.write_table(pa.table({"x": X, "c": values, "y": Y}), "a.parquet")
        found = fits("--group", "c", name="a.parquet")
        assert sum(found["rows"].values()) == N


@pytest.mark.parametrize(("n", "options"), [(N, ["--validation", "0"]), (4, [])])
def test_without_rows_held_out_all_are_trained_on(n, options):
    """Nothing held out was a filter without a type."""
    pd.DataFrame({"x": X[:n], "town": TOWNS[:n], "y": Y[:n]}).to_csv("a.csv", index=False)
    found = fits(*options)
    assert found["rows"] == {"training": n}
    measured = evaluate()
    assert "held_out" not in measured
    assert measured["r2"] == pytest.approx(found["training"]["r2"], rel=1e-5)


class TestValuesOfRowsHeldOutAlone:
    @pytest.mark.parametrize("options", [[], ["--unknown", "refuse"]])
    def test_evaluate_and_plot_take_the_file_of_fit(self, options):
        """A class, and a category, that only rows held out have: fit and evaluate leave out the same rows, and tell."""
        write(town=but(TOWNS, HELD[:1], "Köln"), c=but(TOWNS, HELD[1:3], "third"))
        result = fit(*options, target="c")
        found, n = json.loads(result.stdout), 3 if options else 2
        told = f"Held out are {n} rows of classes or categories that no row trained on has"
        assert told in result.stderr
        assert found["rows"] == {"training": 32, "validation": 8 - n}
        require_the_same(found)
        assert evaluate()["rows"] == N - n
        assert told in succeeds("evaluate", "m.safetensors", "a.csv").stderr
        drawn = succeeds("plot", "m.safetensors", "a.csv", "--kind", "confusion", "-o", "c.png").stderr
        assert f"Drawn from the {8 - n} rows that fit held out" in drawn

    def test_classes_and_codes_that_are_numbers(self):
        write(code=but([10, 20] * (N // 2), HELD[:2], 77), c=but([1, 2] * (N // 2), HELD[2:4], 5))
        options = ["--task", "classification", "--categories", "code", "--unknown", "refuse"]
        found = fits(*options, target="c")
        table = load(Path("m.safetensors")).table
        assert table.classes.tolist() == [1, 2]
        assert table.categories["code"] == ["10", "20"]
        assert found["rows"]["validation"] == 4
        require_the_same(found)

    def test_numbers_to_predict(self):
        write(town=but(TOWNS, HELD[:3], "Köln"), y=Y)
        for options, n in (([], 8), (["--unknown", "refuse"], 5)):
            found = fits(*options)
            assert found["rows"]["validation"] == n
            require_the_same(found)

    def test_where_nothing_held_out_can_be_measured(self):
        write(c=but(TOWNS, HELD, "third"))
        assert fits(target="c")["rows"] == {"training": 32}
        assert "held_out" not in evaluate()

    def test_other_data_are_refused_as_before(self):
        c = but(TOWNS, HELD[:2], "third")
        write(c=c)
        fits(target="c")
        pd.DataFrame({"x": [9.0, *X[1:]], "c": c}).to_csv("other.csv", index=False)
        result = run("evaluate", "m.safetensors", "other.csv")
        assert result.exit_code == 1
        assert "expected one of the classes ['Bonn', 'Ulm'] in column 'c', got 'third' at row" in result.stderr

    def test_the_model_tells_of_the_rows_that_it_was_trained_on(self):
        """Ranges, words, classes and features were those of all rows."""
        x, c = but(X, HELD[0], 99), but(TOWNS, HELD[1], "third")
        holes = but(TOWNS, [k for k in range(N) if k not in HELD][:3], None)
        pd.DataFrame({"x": x, "town": but(TOWNS, HELD[2], "Köln"), "hole": holes, "c": c}).to_csv("a.csv", index=False)
        result = fit(target="c")
        table = load(Path("m.safetensors")).table
        assert f"3 columns make {len(table.feature_names)} features" in result.stderr
        assert "The target 'c' holds 2 classes" in result.stderr
        lines = json.loads(succeeds("look", "m.safetensors", "--json").stdout)["columns"]
        kept = {line["column"]: line for line in lines}
        trained_on = np.delete(X, HELD)
        assert kept["x"]["range"] == f"{trained_on.min():.6g} … {trained_on.max():.6g}"
        assert [kept[name]["range"] for name in ("town", "c")] == ["Bonn, Ulm"] * 2
        assert (kept["x"]["different"], kept["town"]["different"]) == (len(set(trained_on)), 2)
        assert kept["c"]["becomes"] == "target: 2 classes"
        for name, places in table.places.items():
            assert kept[name]["becomes"].split()[0] == str(len(places))

    @pytest.mark.parametrize("values", [("seen", "again"), (1.5, 2.5)], ids=["words", "numbers"])
    def test_a_column_with_values_in_them_alone_is_left_out(self, values):
        """Whether a nearly empty column ended training depended on the seed."""
        write(note=but([None] * N, HELD[:2], values), y=Y)
        result = fit()
        assert "left out: 'note' (it has values in rows held out alone)" in result.stderr
        assert load(Path("m.safetensors")).table.columns == ["x"]
        require_the_same(json.loads(result.stdout))
        assert len(json.loads(succeeds("predict", "m.safetensors", "a.csv", "--json").stdout)["y"]) == N
        write(note=[None] * N, y=Y)
        assert "nothing but missing values" in fit().stderr
        pd.DataFrame({"note": but([None] * N, HELD[:2], values), "y": Y}).to_csv("a.csv", index=False)
        refused = "a.csv, the 32 rows that are trained on: expected values in column 'note', got nothing but missing"
        assert refused in fit().stderr

    def test_one_class_left_to_train_on_is_refused_as_such(self):
        write(day=np.arange(N), c=["early"] * 32 + ["late"] * 8)
        result = fit("--time", "day", target="c")
        assert result.exit_code == 1
        assert "a.csv, the 32 rows that are trained on: expected at least two classes in column 'c'" in result.stderr


@pytest.mark.parametrize(("groups", "share", "way"), [(2, 0.2, "a file"), (3, 0.7, "--validation, or a file")])
def test_a_single_group_left_to_train_on_is_refused_as_such(groups, share, way):
    """Of two groups it was said that there is one."""
    write(g=np.arange(N) % groups, y=Y)
    result = fit("--group", "g", "--validation", share)
    assert result.exit_code == 1
    assert f"alone, the other {groups - 1} held out. Hold out fewer: {way} of more groups." in result.stderr
    assert "--group g: expected two groups to train on" in result.stderr
    assert not Path("m.safetensors").exists()
    succeeds("fit", "a.csv", "--target", "y", "--group", "g", "--model", "plain", "--epochs", 1, "-o", "p.safetensors")
