"""`backprop look`: a line per column, what becomes of it, what looks wrong; and what `fit` tells and keeps of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import run, succeeds
from test_spreadsheets import fits, folder, write  # noqa: F401 - a fixture

import backprop as bp

N = 400
RNG = np.random.default_rng(0)
X = RNG.normal(50, 9, N).round(2)
Y = (3 * X + RNG.normal(0, 5, N)).round(2)
CLASSES = np.where(np.median(Y) < Y, "dear", "cheap")


def look(*options, name="a.csv", target="y"):
    """The lines by column."""
    result = succeeds("look", name, *(["--target", target] if target else []), *options, "--json")
    return {line["column"]: line for line in json.loads(result.stdout)["columns"]}


def with_far(values, *far):
    return [*far, *values[len(far) :]]


WRONG = {  # a column, and what is said of it
    "numbers of the rows": (range(1, N + 1), "numbers the rows: --drop c"),
    "numbers of the rows, shuffled": (RNG.permutation(N), "numbers the rows: --drop c"),
    "a copy of the target": (Y, "says the same as the target 'y': --drop c"),
    "the target in other units": ([f"{-v / 7 + 3:.9f}" for v in Y], "says the same as the target 'y'"),
    "sorted numbers": (np.sort(X), "is what the rows are sorted by"),
    "sorted backwards": (np.sort(X)[::-1], "is what the rows are sorted by"),
    "sorted words": (np.repeat(["p", "q", "r", "s"], N // 4), "is what the rows are sorted by"),
    "numbers of persons": (
        RNG.permutation(np.repeat(np.arange(20, dtype=int) * 17, N // 20)),
        "repeats 20 values 20 times each",
    ),
    "outliers": (with_far(X, 9e9, -1e7), "has 2 values far from the others, such as 9e+09: clip"),
    "one value": ([7] * N, "has one value only: --drop c"),
    "one word": (["w"] * N, "has one value only: --drop c"),
    "dates in one number": (
        [20200101 + 100 * (k % 12) + k % 28 for k in range(N)],
        "looks like dates: --dates c=%Y%m%d",
    ),
    "a word for a hole": ((["u", "v", "?", "w"] * N)[:N], "has '?', which may stand for a hole: --na '?'"),
    "two spellings": ((["Ulm", "Bonn", "ulm "] * N)[:N], "has 'Ulm' and 'ulm ', which may be the same"),
    "words that occur once": ([f"w{k}" for k in range(N)], "categories that repeat in column 'c'"),
    "most words occur once": ([f"w{min(k, 70)}" if k < 90 else f"w{k % 3}" for k in range(N)], ""),
    "holes only": ([""] * N, "nothing but missing values"),
    "an odd cell": (with_far(X, "?"), "expected numbers, got '?' at row 0"),
    "dates": ([f"{1 + k % 28}.6.2020" for k in range(N)], "--dates c makes numbers"),
    "few numbers with a unit": ((["5 kg", "10 kg", "2.5 kg"] * N)[:N], "such as '5 kg', which are taken for names"),
    "few numbers with a sign": ((["<5", "~5", "5 m2"] * N)[:N], "or --categories c if they are names"),
    "odd cells of a kind": (["5 €", "6 €"] * (N // 2), f"got '5 €' at row 0 (the first of {N} such rows)"),
    "normal numbers": (X, ""),
    "heavy tails": (np.exp(RNG.normal(0, 2, N)).round(3), None),
    "true and false": ((["true", "false", "true"] * N)[:N], ""),
    "counts": (RNG.poisson(3, N), ""),
    "words": ((["u", "v", "w", "u"] * N)[:N], ""),
}


class TestWhatLooksWrong:
    @pytest.mark.parametrize("case", WRONG)
    def test_is_said(self, case):
        cells, said = WRONG[case]
        write("a.csv", {"x": X[::-1], "c": cells, "y": Y})
        remarks = "; ".join(look()["c"]["remarks"])
        assert said is None or (said in remarks if said else remarks == ""), remarks

    @pytest.mark.parametrize("case", ["numbers of persons", "words"])
    def test_of_a_user(self, case):
        cells = WRONG[case][0]
        write("a.csv", {"user_id": cells, "y": Y})
        assert ("repeats" in str(look()["user_id"]["remarks"])) == (case == "numbers of persons")

    @pytest.mark.parametrize(
        "copy", [np.where(CLASSES == "dear", 1, 2), np.where(CLASSES == "dear", "D", "C"), CLASSES == "dear"]
    )
    def test_a_copy_of_classes(self, copy):
        write("a.csv", {"x": X, "c": np.char.lower(np.asarray(copy).astype(str)), "y": CLASSES})
        lines = look()
        assert lines["c"]["remarks"] == ["says the same as the target 'y': --drop c"]
        assert lines["x"]["remarks"] == []
        assert lines["y"]["becomes"] == "target: 2 classes"

    def test_outliers_of_the_target(self):
        write("a.csv", {"x": X, "y": with_far(Y, 1e7)})
        assert look()["y"]["remarks"] == [
            "has 1 values far from the others, such as 1e+07: --loss huber makes less of them"
        ]
        assert "--loss huber" in fits("a.csv").stderr

    def test_rows_sorted_by_the_target(self):
        order = np.argsort(Y)
        write("a.csv", {"x": X[order], "y": Y[order]})
        assert look()["y"]["remarks"] == ["is what the rows are sorted by"]
        write("a.csv", {"x": X, "y": np.sort(CLASSES)})
        assert look()["y"]["remarks"] == ["is what the rows are sorted by"]

    def test_few_rows_tell_nothing(self):
        write("a.csv", {"a": [1, 2, 3], "b": [3, 4, 5], "y": [1, 2, 4]})
        assert [line["remarks"] for line in look().values()] == [[], [], []]


class TestLines:
    def test_say_all_there_is(self):
        cells = ["", "", *map(str, X[2:])]
        towns = (["Ulm", "Bonn", "Köln", "Ulm"] * N)[:N]
        write("a.csv", {"x": cells, "town": towns, "lift": (["true", "false", "true"] * N)[:N], "y": Y})
        lines = look()
        assert lines["x"] == {
            "column": "x",
            "kind": "numbers",
            "holes": 2,
            "different": len(set(X[2:])),
            "range": f"{X[2:].min():.6g} … {X[2:].max():.6g}",
            "becomes": "1 feature",
            "remarks": [],
        }
        assert (lines["town"]["kind"], lines["town"]["different"]) == ("words", 3)
        assert (lines["town"]["range"], lines["town"]["becomes"]) == ("Bonn, Köln, Ulm", "3 features")
        assert (lines["lift"]["kind"], lines["lift"]["becomes"]) == ("true or false", "1 feature")
        assert lines["y"]["becomes"] == "target"
        text = succeeds("look", "a.csv", "--target", "y").stdout.splitlines()
        assert text[0].split() == ["column", "kind", "holes", "different", "range", "becomes", "looks", "wrong"]
        assert [line.split()[0] for line in text[1:]] == ["x", "town", "lift", "y"]

    def test_all_refusals_at_once(self):
        write("a.csv", {"a": with_far(X, "?"), "b": with_far(X, "5%"), "day": ["2024-01-01"] * N, "y": Y})
        lines = look()
        assert [lines[name]["becomes"] for name in ("a", "b", "day", "y")] == ["refused"] * 3 + ["target"]
        assert lines["a"]["remarks"][0].startswith("expected numbers, got '?' at row 0. --na '?'")
        lines = look("--na", "?,5%", "--dates", "day")
        assert [lines[name]["becomes"] for name in ("a", "b", "day")] == ["1 feature"] * 3
        assert lines["day"]["range"] == "2024-01-01 … 2024-01-01"

    def test_without_a_target(self):
        write("a.csv", {"x": X, "y": Y})
        assert [line["becomes"] for line in look(target=None).values()] == ["1 feature", "1 feature"]

    def test_a_target_that_is_not_there(self):
        write("a.csv", {"x": X, "Y": Y})
        result = run("look", "a.csv", "--target", "y")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].endswith("Close to it: 'Y'.")

    def test_a_target_that_is_refused(self):
        write("a.csv", {"x": X, "y": with_far(Y, "?")})
        assert look()["y"]["becomes"] == "refused"
        assert look()["x"]["remarks"] == []

    def test_what_was_left_out(self):
        write("a.csv", {"": range(N), "x": X, "note": ["n"] * N, "y": Y})
        result = succeeds("look", "a.csv", "--drop", "note")
        assert "400 rows, 2 columns; left out: 'note' (--drop), '@1' (no name, and another value" in result.stderr


FIT = ("fit", "a.csv", "--target", "y", "-o", "a.safetensors", "--members", "2", "--max-time", "0.1")


class TestFit:
    def test_says_it_shortly(self):
        towns = (["Ulm", "Bonn", "Ulm", "Ulm"] * N)[:N]
        write("a.csv", {"id": range(N), "x": X, "town": towns, "z": X[::-1], "y": Y})
        lines = fits("a.csv", "--drop", "z").stderr.splitlines()
        assert lines[:5] == [
            "Read 400 rows from a.csv: 3 columns make 4 features; left out: 'z' (--drop).",
            "  numbers: id, x",
            "  words: town (2)",
            "note: Column 'id' numbers the rows: --drop id.",
            "The target 'y' holds numbers: regression.",
        ]

    def test_hints_can_be_followed(self):
        """A point belongs to a name; groups are advised where rows are held out by chance; many words are cut by default."""
        persons, words = WRONG["numbers of persons"][0], WRONG["words that occur once"][0]
        write("a.csv", {"Nr.": range(N), "patient": persons, "free": words, "x": X[::-1], "y": Y})
        assert "numbers the rows: --drop 'Nr.'." in succeeds(*FIT).stderr
        told = succeeds(*FIT, "--time", "x").stderr
        assert "--group" not in told
        assert "categories that repeat" not in told
        assert "Column 'free' has words of which most occur once: --drop free." in told

    def test_days_with_holes_are_not_what_rows_are_held_out_by(self):
        days = [f"2020-01-{1 + k % 28:02d}" for k in range(N)]
        for cells, advised in ((days, True), (["", *days[1:]], False)):  # and days without --dates are refused
            write("a.csv", {"since": cells, "x": X[::-1], "y": Y})
            assert ("--time since" in run(*FIT).stderr) == advised

    def test_of_many_columns_a_part(self):
        write("a.csv", {f"c{j}": range(j, j + N) for j in range(40)} | {"x": X, "y": Y})
        told = fits("a.csv").stderr
        assert "  numbers: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 29 more" in told
        assert "note: 32 more columns look wrong; backprop look shows them." in told
        assert len(told.splitlines()) < 20

    def test_keeps_it_with_the_model(self):
        write("a.csv", {"x": X, "town": (["Ulm", "Bonn", "Ulm", "Ulm"] * N)[:N], "y": Y})
        fits("a.csv")
        lines = bp.Table.load("m.safetensors").notes["columns"]
        assert [line["column"] for line in lines] == ["x", "town", "y"]
        assert look(name="m.safetensors", target=None) == look()
        assert succeeds("look", "m.safetensors").stdout == succeeds("look", "a.csv", "--target", "y").stdout

    def test_of_a_model_that_a_program_made(self):
        import pandas as pd

        made = bp.Table("y")
        made.fit(pd.DataFrame({"x": X, "town": (["Ulm", "Bonn"] * N)[:N], "y": Y}))
        bp.Sequential(bp.Linear(3, 1), seed=0).save("m.safetensors", table=made)
        lines = look(name="m.safetensors", target=None)
        assert [(line["kind"], line["becomes"]) for line in lines.values()] == [
            ("numbers", "1 feature"),
            ("words", "2 features"),
        ]
        bp.Sequential(bp.Linear(3, 1), seed=0).save("n.safetensors")
        assert run("look", "n.safetensors").exit_code == 1
        assert not Path("p.png").exists()

    def test_more_columns_than_are_kept(self):
        names = [f"c{j}" for j in range(1001)]
        write("a.csv", {name: [1.5, 2.5, 3.0, 1.0] for name in names} | {"y": [1, 2, 3, 5]})
        fits("a.csv")
        assert "columns" not in bp.Table.load("m.safetensors").notes
        assert len(look(name="m.safetensors", target=None)) == 1001
