"""The command line, from one day to the next: rows held out honestly, training that goes on, models trained on with new rows."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import files, flats, folder, read_csv, run, shell, succeeds, visits, write_csv  # noqa: F401 (fixtures)
from test_docs import words

import backprop as bp

pa = pytest.importorskip("pyarrow")

from backprop.cli.group import spoken  # noqa: E402
from backprop.cli.holdout import HoldOut, advice, units  # noqa: E402
from backprop.cli.kind import OF, chosen  # noqa: E402
from backprop.cli.models import load  # noqa: E402


def fitted(*arguments, out="m.safetensors"):
    """What fit says in JSON, and to a person."""
    result = succeeds("fit", *arguments, "-o", out, "--json")
    return json.loads(result.stdout), result.stderr


class TestHoldOut:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda codes: len(set(codes)) > 1),
        st.floats(0.01, 0.99),
        st.integers(0, 3),
        st.sampled_from(["group", "time"]),
    )
    def test_units_stay_whole(self, codes, share, seed, by):
        frame, values = pa.table({"unit": codes}), np.array(codes)
        found = HoldOut(frame, share, seed, **{by: "unit"})
        assert sorted([*found.training, *found.held]) == list(range(len(codes)))
        training, held = values[found.training], values[found.held]
        assert not set(training) & set(held)
        wanted = int(len(codes) * share)
        assert bool(len(held)) == bool(wanted)
        assert len(training)
        if by == "time" and len(held):
            assert training.max() < held.min()
            sizes = [np.count_nonzero(values >= cut) for cut in sorted(set(codes))[1:]]
            assert abs(len(held) - wanted) == min(abs(size - wanted) for size in sizes)
        again = HoldOut(frame, share, seed, **{by: "unit"})
        np.testing.assert_array_equal(again.held, found.held)

    def test_by_chance_it_is_the_split_of_the_library(self):
        from backprop.datasets import split

        for n, share, seed in ((1, 0.5, 0), (4, 0.2, 0), (57, 0.2, 1), (200, 0.33, 7)):
            rows = np.arange(n)
            training, held, *_ = split(rows, rows, held_out=share, seed=seed)
            found = HoldOut(pa.table({"x": rows}), share, seed)
            np.testing.assert_array_equal(found.training, training)
            np.testing.assert_array_equal(found.held, held)

    DAYS = (date(2019, 6, 21), date(2019, 6, 3), date(2020, 1, 5), date(2019, 12, 31), date(2019, 6, 21))

    @pytest.mark.parametrize(
        "write",
        [
            lambda day: day,
            lambda day: day.isoformat(),
            lambda day: f"{day.year}/{day.month}/{day.day}",
            lambda day: f"{day:%d.%m.%Y}",
            lambda day: f"{day:%d.%m.%Y} 08:00",
            lambda day: f"{day:%m/%d/%Y}",
            lambda day: day.toordinal(),
            lambda day: float(day.toordinal()),
            lambda day: np.datetime64(day, "us").item(),
        ],
    )
    def test_moments_in_any_form(self, write):
        frame = pa.table({"day": [write(day) for day in self.DAYS]})
        assert units(frame, "day", "--time").tolist() == [1, 0, 3, 2, 1]

    @pytest.mark.parametrize("words", [["2024-05", "2023-11", "2024-06"], ["2024Q2", "2023Q4", "2024Q3"]])
    def test_words_that_are_in_order(self, words):
        assert units(pa.table({"t": words}), "t", "--time").tolist() == [1, 0, 2]

    @pytest.mark.parametrize("column", [["b", "a", "b"], [3, 1, 3], [True, False, True], [2.5, 1.5, 2.5]])
    def test_groups_of_any_kind(self, column):
        assert units(pa.table({"g": column}), "g", "--group").tolist() == [1, 0, 1]
        if isinstance(column[0], str):
            coded = pa.table({"g": pa.array(column).dictionary_encode()})
            assert units(coded, "g", "--group").tolist() == [1, 0, 1]

    @pytest.mark.parametrize(
        ("column", "option", "reason"),
        [
            (["01/02/2024", "02/01/2024"], "--time", "the day or the month first"),
            (["Monday", "Friday"], "--time", "expected dates or numbers, got 'Monday'"),
            (["2024-5", "2024-11"], "--time", "expected dates or numbers"),
            (["a", None, "b"], "--group", "expected a value in each row, got none at row 1"),
            ([1.0, 2.0, float("nan")], "--time", "expected a value in each row, got none at row 2"),
            ([7, 7, 7], "--group", "at least two different values, got 7"),
        ],
    )
    def test_refused(self, column, option, reason):
        with pytest.raises(ValueError, match=reason.replace("(", r"\(")) as error:
            units(pa.table({"c": column}), "c", option)
        assert str(error.value).startswith(f"{option} c: ")

    def test_patients_that_come_again(self, folder):  # noqa: F811
        """A hold-out by chance says R² 1.00, and of new patients the model knows nothing: 60 groups of 20 rows."""
        by_chance, told = fitted("visits.csv", "--target", "pain", "--drop", "patient", "--epochs", 60)
        assert by_chance["validation"]["r2"] > 0.995
        assert by_chance["held_out"] == {"by": "chance"}
        assert "Column 'patient' repeats: 60 values in 1,200 rows." in told
        assert "--group patient" in told
        honest, told = fitted("visits.csv", "--target", "pain", "--group", "patient", "--model", "plain")
        assert honest["validation"]["r2"] < 0.1
        assert honest["held_out"] == {"by": "group", "column": "patient"}
        assert honest["rows"] == {"training": 960, "validation": 240}
        assert honest["stopped"]  # chosen by the patients held out, which no epoch makes better
        assert "Held out: 12 of 60 groups of 'patient', 240 rows." in told
        assert "repeats" not in told
        assert bp.Table.load("m.safetensors").columns == ["a", "b", "c"]

    def test_the_model_remembers_what_was_held_out(self, folder):  # noqa: F811
        told = fitted("visits.csv", "--target", "pain", "--group", "patient", "--epochs", 2)[0]
        seen = succeeds("evaluate", "m.safetensors", "visits.csv", "--json")
        result = json.loads(seen.stdout)
        assert result["rows"] == 1200
        apart = result["held_out"]
        assert apart.pop("rows") == 240
        assert apart == told["validation"]
        assert "but for the 240 rows that were held out" in seen.stderr
        assert "held out" in succeeds("evaluate", "m.safetensors", "visits.csv").stdout
        rows = visits()
        write_csv("others.csv", rows[1:])
        assert "held_out" not in json.loads(succeeds("evaluate", "m.safetensors", "others.csv", "--json").stdout)
        write_csv("without.csv", [{name: row[name] for name in "abc"} for row in rows])
        predicted = [succeeds("predict", "m.safetensors", name).stdout for name in ("visits.csv", "without.csv")]
        assert predicted[0] == predicted[1]

    def test_resume_holds_out_the_same_rows(self, folder):  # noqa: F811
        arguments = ["visits.csv", "--target", "pain", "--group", "patient", "--patience", 0]
        whole, _ = fitted(*arguments, "--epochs", 4, out="whole.safetensors")
        fitted(*arguments, "--epochs", 2, "--checkpoint", "run.safetensors")
        result = succeeds("resume", "run.safetensors", "visits.csv", "-o", "m.safetensors", "--epochs", 2, "--json")
        assert "12 of 60 groups" in result.stderr
        assert json.loads(result.stdout)["validation"] == whole["validation"]

    def test_the_latest_rows(self, folder):  # noqa: F811
        rng = np.random.default_rng(0)
        days = [date(2023, 1, 1) + timedelta(days=int(k)) for k in rng.permutation(200)]
        rows = [{"day": day, "x": x, "y": 2 * x} for day, x in zip(days, rng.normal(size=200), strict=True)]
        write_csv("days.csv", rows)
        refused = run("fit", "days.csv", "--target", "y", "-o", "m.safetensors")
        assert refused.exit_code == 1
        assert "Column 'day' holds dates." in refused.stderr
        assert "--time day holds out the latest rows" in refused.stderr
        found, told = fitted("days.csv", "--target", "y", "--time", "day", "--drop", "day", "--epochs", 3)
        assert found["rows"] == {"training": 160, "validation": 40}
        assert found["held_out"] == {"by": "time", "column": "day"}
        first = sorted(days)[160]
        assert f"Held out: the latest 40 rows, from {first} in 'day' on." in told
        latest = [row for row in rows if row["day"] >= first]
        write_csv("latest.csv", latest)
        worth = json.loads(succeeds("evaluate", "m.safetensors", "latest.csv", "--json").stdout)
        np.testing.assert_allclose(worth["r2"], found["validation"]["r2"], rtol=1e-5)

    def test_dates_that_are_numbers_are_told_as_dates(self, folder):  # noqa: F811
        rows = [{"at": f"{1 + k // 2}.3.2024 {12 * (k % 2)}:00", "x": k % 7, "y": k} for k in range(40)]
        write_csv("hours.csv", rows)
        options = ["--target", "y", "--dates", "at=%d.%m.%Y %H:%M", "--time", "at", "--epochs", 1]
        assert "the latest 8 rows, from 2024-03-17 in 'at' on" in fitted("hours.csv", *options)[1]
        options += ["--validation", 0.24]
        assert "the latest 9 rows, from 2024-03-16T12:00:00 in 'at' on" in fitted("hours.csv", *options)[1]

    def test_a_time_that_is_not_there_comes_before_odd_columns(self, folder):  # noqa: F811
        write_csv("days.csv", [{"day": "2024-01-05", "x": k, "y": k} for k in range(30)])
        refused = run("fit", "days.csv", "--target", "y", "--time", "nope", "-o", "m.safetensors")
        assert refused.exit_code == 1
        assert "--time: expected one of the columns ['day', 'x', 'y'], got 'nope'" in refused.stderr

    def test_look_tells_of_a_model_how_its_data_were_read_and_held_out(self, folder):  # noqa: F811
        fitted("visits.csv", "--target", "pain", "--group", "patient", "--drop", "a", "--delimiter", ",", "--epochs", 1)
        found = succeeds("look", "m.safetensors")
        assert (
            "Data are read with --delimiter , --drop a.\nHeld out: 20 % of the rows, in whole groups of 'patient'.\n"
            in found.stderr
        )
        result = json.loads(succeeds("look", "m.safetensors", "--json").stdout)
        assert result["held_out"] == {"by": "group", "column": "patient", "share": 0.2}
        assert result["read"] == {"delimiter": ",", "drop": ["a"]}
        looked = succeeds("look", "visits.csv", "--target", "pain").stdout
        assert "--group patient holds out whole ones" in looked

    def test_a_column_with_an_odd_name(self, folder):  # noqa: F811
        rows = [{"id, of the patient": row.pop("patient"), **row} for row in visits(12, 5)]
        write_csv("odd.csv", rows)
        found, _ = fitted("odd.csv", "--target", "pain", "--group", "id, of the patient", "--epochs", 1)
        assert found["held_out"]["column"] == "id, of the patient"
        told = fitted("odd.csv", "--target", "pain", "--drop", '"id, of the patient"', "--epochs", 1)[1]
        assert "--group 'id, of the patient'" in told

    @pytest.mark.parametrize("name", ["flats.csv", "irises.csv"])
    def test_no_advice_where_rows_are_of_their_own(self, folder, name):  # noqa: F811
        import pyarrow.csv

        assert list(advice(pyarrow.csv.read_csv(name), "rent" if name == "flats.csv" else "species")) == []

    def test_advice_knows_a_name_for_things(self):
        rng = np.random.default_rng(0)
        frame = {"user_id": rng.integers(0, 30, 300), "floor": rng.integers(0, 20, 300), "y": rng.normal(size=300)}
        (line,) = advice(pa.table(frame), "y")
        assert "'user_id' repeats: 30 values" in line
        assert not list(advice(pa.table({"id": np.arange(300), "x": rng.normal(size=300), "y": frame["y"]}), "y"))

    @pytest.mark.parametrize(
        ("wrong", "code", "reason"),
        [
            (["--group", "a", "--time", "b"], 2, "exclude each other"),
            (["--group", "patient", "--validation", "0"], 2, "holds nothing out"),
            (["--group", "pain"], 2, "'pain' is the target"),
            (["--group", "Patient"], 1, "--group: expected one of the columns"),
            (["--time", "nope", "--drop", "a"], 1, "--time: expected one of the columns"),
            (["--time", "patient"], 1, "--time patient: expected dates or numbers, got 'p00'"),
        ],
    )
    def test_wrong_options(self, folder, wrong, code, reason):  # noqa: F811
        result = run("fit", "visits.csv", "--target", "pain", "-o", "m.safetensors", *wrong)
        assert result.exit_code == code
        assert reason in result.stderr
        assert not Path("m.safetensors").exists()


class TestNetworks:
    """Which network fit trains, and what is said of it."""

    @pytest.mark.parametrize(
        ("said", "given", "kind", "told"),
        [
            (None, (), "tabular", ""),
            (None, ("seed", "validation", "group", "members"), "tabular", ""),
            ("tabular", ("max_time",), "tabular", ""),
            ("plain", (), "plain", ""),
            ("plain", ("epochs", "hidden"), "plain", ""),
            (None, ("start", "epochs"), "plain", ""),  # the model that it names is plain
            *(
                (None, (name,), "plain", f"--{name.replace('_', '-')} is an option")
                for name in OF["plain"]
                if name != "start"
            ),
        ],
    )
    def test_chosen(self, said, given, kind, told):
        found, words = chosen(said, given)
        assert found == kind
        assert told in words
        assert bool(words) == bool(told)

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            (["--model", "tabular", "--hidden", "3"], "--hidden asks for the plain network, and --model tabular"),
            (["--model", "tabular", "--from", "rent.safetensors"], "--from asks for the plain network, and --model"),
            (["--model", "plain", "--members", "3"], "--model plain asks for the plain network, and --members"),
            (["--weight-decay", "0", "--max-time", "3"], "--weight-decay asks for the plain network, and --max-time"),
            (["--log", "l.csv", "--model", "tabular"], "--log asks for the plain network"),
        ],
    )
    def test_options_of_both_are_refused(self, folder, wrong, reason):  # noqa: F811
        result = run("fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", *wrong)
        assert result.exit_code == 2
        assert reason in result.stderr
        assert result.stderr.strip().endswith("for the tabular one: leave one of them out.")
        assert not Path("m.safetensors").exists()

    def test_every_option_of_a_network_is_one_of_fit(self):
        from backprop.cli import commands

        names = {parameter.name for parameter in commands.commands["fit"].params}
        assert {name for own in OF.values() for name in own} <= names

    def test_a_plain_one_that_an_option_implies_is_told(self, folder):  # noqa: F811
        told = fitted("flats.csv", "--target", "rent", "--hidden", "4", "--epochs", 1)[1]
        assert "The plain network is trained, as --hidden is an option of it" in told
        assert "plain" not in fitted("flats.csv", "--target", "rent", "--model", "plain", "--epochs", 1)[1]
        assert "plain" not in fitted("flats.csv", "--from", "m.safetensors", "--epochs", 1, out="on.safetensors")[1]

    def test_the_default_is_the_tabular_one(self, folder, monkeypatch):  # noqa: F811
        """With words and holes, and without a setting: what is told, what is saved, and how data are read again."""
        monkeypatch.setattr("backprop.estimators.members.epochs_of", lambda n, batch_size: 4)
        found, told = fitted("irises.csv", "--target", "species", "--members", 2)
        assert "The tabular network: 120 rows" in told
        assert "2 members" in told
        assert found["rows"] == {"training": 120, "validation": 30}
        assert found["stopped"] == ""
        assert "soil is missing" in load(Path("m.safetensors")).table.feature_names
        rows = json.loads(succeeds("evaluate", "m.safetensors", "irises.csv", "--json").stdout)["held_out"]
        assert rows.pop("rows") == 30
        assert rows == pytest.approx(found["validation"])


FIT = ["flats.csv", "--target", "rent", "--checkpoint", "run.safetensors", "--learning-rate", "0.05"]


def best_of(trainer):
    """The best validation loss so far, as early stopping remembers it."""
    return dict(trainer.state().callbacks)["EarlyStopping"]["best"]


class TestResume:
    def test_after_early_stopping_it_is_patient_anew(self, folder):  # noqa: F811
        """It once trained a single epoch, every second time."""
        stopped, _ = fitted(*FIT, "--patience", 3)
        assert stopped["stopped"] == "EarlyStopping"
        for _ in range(2):
            before = bp.Trainer.resume("run.safetensors")
            best = best_of(before)
            result = succeeds("resume", "run.safetensors", "flats.csv", "-o", "m.safetensors", "--json")
            again = json.loads(result.stdout)
            assert again["epochs"] >= before.epochs_done + 3
            assert best_of(bp.Trainer.resume("run.safetensors")) <= best

    def test_patience_of_its_own(self, folder):  # noqa: F811
        stopped, _ = fitted(*FIT, "--patience", 3)
        arguments = ["resume", "run.safetensors", "flats.csv", "-o", "m.safetensors", "--json"]
        more = json.loads(succeeds(*arguments, "--patience", 0, "--epochs", 8).stdout)
        assert more["epochs"] == stopped["epochs"] + 8
        assert not more["stopped"]
        assert bp.Trainer.resume("run.safetensors").notes["fit"]["patience"] == 0

    def test_a_patience_is_as_if_it_had_been_that_of_fit(self, folder):  # noqa: F811
        whole, _ = fitted(*FIT, "--patience", 6, "--epochs", 60, out="whole.safetensors")
        fitted(*FIT, "--patience", 3, "--epochs", 60)
        result = succeeds("resume", "run.safetensors", "flats.csv", "-o", "m.safetensors", "--json", "--patience", 6)
        assert json.loads(result.stdout)["epochs"] == whole["epochs"]
        phi = [bp.Sequential.load(f"{name}.safetensors").phi.tobytes() for name in ("whole", "m")]
        assert phi[0] == phi[1]

    @pytest.mark.parametrize("other", ["more rows", "other towns", "another target", "no target", "other columns"])
    def test_other_data_are_called_that(self, folder, other):  # noqa: F811
        fitted(*FIT, "--epochs", 2)
        rows = flats(200, 0)
        if other == "more rows":
            rows += flats(30, 9)
        elif other == "other towns":
            rows[3]["town"] = "Rom"
        elif other == "another target":
            rows[3]["rent"] += 1
        elif other == "no target":
            rows = flats(200, 0, target=False)
        else:
            rows = [row | {"garden": 1} for row in rows]
        write_csv("others.csv", rows)
        before = Path("run.safetensors").read_bytes()
        result = run("resume", "run.safetensors", "others.csv", "-o", "other.safetensors", "--epochs", 1)
        assert result.exit_code == 1
        last = result.stderr.splitlines()[-1]
        assert "expected the data that run.safetensors was trained on, got other data." in last
        assert "backprop fit others.csv --from MODEL" in last
        assert "Trainer" not in last
        assert Path("run.safetensors").read_bytes() == before
        assert not Path("other.safetensors").exists()


class TestFrom:
    def test_a_model_is_trained_on(self, folder):  # noqa: F811
        first, _ = fitted("flats.csv", "--target", "rent", "--epochs", 4, "--patience", 0, out="first.safetensors")
        write_csv("more.csv", flats(300, 4))
        found, told = fitted("more.csv", "--from", "first.safetensors", "--epochs", 30)
        assert "Read 300 rows from more.csv, with the 4 columns of the model." in told
        assert found["before"]["r2"] < found["validation"]["r2"]
        assert found["before"]["r2"] == pytest.approx(first["validation"]["r2"], abs=0.3)
        old, new = bp.Table.load("first.safetensors"), bp.Table.load("m.safetensors")
        assert old.state() == new.state()  # so that the model's weights mean what they meant
        nets = [bp.Sequential.load(f"{name}.safetensors") for name in ("first", "m")]
        assert repr(nets[0]) == repr(nets[1])
        assert "before" in succeeds("fit", "more.csv", "--from", "first.safetensors", "-o", "x.safetensors").stdout

    def test_rows_that_the_first_model_may_have_seen_are_told_of(self, folder):  # noqa: F811
        shape = ["--target", "pain", "--group", "patient", "--epochs", "3"]
        _, told = fitted("visits.csv", *shape, out="first.safetensors")
        assert "may have been trained" not in told
        _, told = fitted("visits.csv", "--from", "first.safetensors", out="same.safetensors")
        assert "may have been trained" not in told  # the same rows are held out
        _, told = fitted("visits.csv", "--from", "first.safetensors", "--seed", "3", out="other.safetensors")
        assert "may have been trained on rows that are held out here" in told
        assert "flatters it" in succeeds("evaluate", "other.safetensors", "visits.csv").stderr
        assert "flatters" not in succeeds("evaluate", "same.safetensors", "visits.csv").stderr

    @pytest.mark.parametrize("option", ["--group", "--time", "--drop"])
    def test_a_column_that_the_model_takes_stays_an_input(self, option, folder):  # noqa: F811
        column = bp.Table.load("rent.safetensors").columns[0]
        result = run("fit", "flats.csv", "--from", "rent.safetensors", "-o", "m.safetensors", option, column)
        assert result.exit_code == 2
        assert f"{option} {column}: the model that --from names takes {column!r} as an input" in result.stderr
        assert not Path("m.safetensors").exists()

    def test_data_of_the_first_model_are_remembered(self, folder):  # noqa: F811
        fitted("flats.csv", "--target", "rent", "--epochs", 2, out="first.safetensors")
        write_csv("more.csv", flats(300, 4))
        fitted("more.csv", "--from", "first.safetensors", "--epochs", 2, out="second.safetensors")
        told = succeeds("evaluate", "second.safetensors", "flats.csv").stderr
        assert "goes on from one that was trained on these data" in told
        write_csv("fresh.csv", flats(50, 9))
        assert "trained" not in succeeds("evaluate", "second.safetensors", "fresh.csv").stderr

    def test_what_is_not_said_is_as_in_its_fit(self, folder):  # noqa: F811
        shape = ["--group", "patient", "--loss", "huber", "--epochs", "2", "--hidden", "8", "--optimizer", "sgd"]
        fitted("visits.csv", "--target", "pain", *shape, out="first.safetensors")
        found, told = fitted("visits.csv", "--from", "first.safetensors", "--learning-rate", "0.001")
        assert found["held_out"] == {"by": "group", "column": "patient"}
        assert found["epochs"] <= 2
        assert "12 of 60 groups" in told
        from backprop.files import container

        plans = [container.read(f"{name}.safetensors", "network")[0]["notes"]["fit"] for name in ("first", "m")]
        assert plans[1] == plans[0] | {"learning_rate": 0.001}

    def test_a_model_that_is_never_beaten_stays(self, folder):  # noqa: F811
        arguments = ["flats.csv", "--from", "rent.safetensors", "--learning-rate", "0.3"]
        found, told = fitted(*arguments, "--epochs", 3)
        assert "which is saved as it was" in told
        assert found["validation"] == found["before"]
        phi = [bp.Sequential.load(f"{name}.safetensors").phi.tobytes() for name in ("rent", "m")]
        assert phi[0] == phi[1]

    def test_new_categories_are_told(self, folder):  # noqa: F811
        rows = flats(60, 4)
        rows[7]["town"] = "Rom"
        write_csv("more.csv", rows)
        refused = run("fit", "more.csv", "--from", "rent.safetensors", "-o", "m.safetensors")
        assert refused.exit_code == 1
        assert "'Rom' at row 7" in refused.stderr
        assert "--unknown ignore" in refused.stderr
        assert "unknown=" not in refused.stderr
        arguments = ["more.csv", "--from", "rent.safetensors", "--epochs", 1, "--unknown", "ignore"]
        told = fitted(*arguments, out="on.safetensors")[1]
        assert "Column 'town': the model does not know 'Rom'" in told

    def test_a_checkpoint_of_it_goes_on(self, folder):  # noqa: F811
        write_csv("more.csv", flats(90, 4)[:80])
        arguments = ["more.csv", "--from", "rent.safetensors", "--patience", 0]
        fitted(*arguments, "--epochs", 3, out="whole.safetensors")
        fitted(*arguments, "--epochs", 2, "--checkpoint", "run.safetensors")
        succeeds("resume", "run.safetensors", "more.csv", "-o", "m.safetensors", "--epochs", 1)
        phi = [bp.Sequential.load(f"{name}.safetensors").phi.tobytes() for name in ("whole", "m")]
        assert phi[0] == phi[1]

    def test_classes_that_are_numbers(self, folder):  # noqa: F811
        rng = np.random.default_rng(0)
        X = rng.standard_normal((120, 2))
        np.savez("data.npz", X=X, y=np.where(X[:, 0] > 0, 7, 3))
        fitted("data.npz", "--target", "y", "--task", "classification", "--epochs", 2, out="first.safetensors")
        found, _ = fitted("data.npz", "--from", "first.safetensors", "--epochs", 20)
        assert found["task"] == "classification"
        assert found["validation"]["accuracy"] > 0.9

    @pytest.mark.parametrize(
        ("wrong", "code", "reason"),
        [
            (["--hidden", "8"], 2, "--hidden is as in the model"),
            (["--missing", "impute"], 2, "--missing is as in the model"),
            (["--task", "regression"], 2, "--task is as in the model"),
            (["-o", "rent.safetensors"], 2, "would be overwritten"),
            (["--target", "size"], 1, "--target: expected 'rent', that of rent.safetensors, got 'size'"),
            (["--loss", "cross-entropy"], 2, "--loss cross-entropy is for classification"),
        ],
    )
    def test_wrong_options(self, folder, wrong, code, reason):  # noqa: F811
        arguments = ["flats.csv", "--from", "rent.safetensors", "-o", "m.safetensors", *wrong]
        result = run("fit", *arguments)
        assert result.exit_code == code, result.stderr
        assert reason in result.stderr
        assert not Path("m.safetensors").exists()

    def test_models_that_cannot_be_trained_on(self, folder):  # noqa: F811
        bp.Sequential(bp.Linear(2, 1), seed=0).save("plain.safetensors")
        for model, reason in (("plain.safetensors", "a model that knows its target"), ("flats.csv", "flats.csv: ")):
            result = run("fit", "flats.csv", "--from", model, "-o", "m.safetensors")
            assert result.exit_code == 1
            assert reason in result.stderr


def estimator(kind, y, **parameters):
    """An estimator of scikit-learn's interface, fitted to 60 rows of an array or a frame."""
    estimators = pytest.importorskip("backprop.estimators")
    made = getattr(estimators, kind)(
        hidden_layer_sizes=(8,), solver="lbfgs", max_iter=30, tol=1, random_state=0, **parameters
    )
    return made.fit(X, y)


X = 100 + 7 * np.random.default_rng(0).normal(size=(60, 3))
WORDS = np.where(X[:, 0] > 100, "large", "small")


@pytest.mark.filterwarnings("ignore::UserWarning")  # few iterations are enough here
class TestEstimators:
    """What scikit-learn users saved is served like what fit has saved."""

    def test_of_numbers(self, folder):  # noqa: F811
        y = 1000 + 50 * X[:, 0]
        model = estimator("MLPRegressor", y, scale_inputs=True, scale_targets=True)
        model.save("e.safetensors")
        np.savez("data.npz", X=X, y=y)
        np.save("x.npy", X)
        for data in ("data.npz", "x.npy"):
            succeeds("predict", "e.safetensors", data, "--out", "p.npy")
            np.testing.assert_allclose(np.load("p.npy"), model.predict(X), rtol=1e-12)
        worth = succeeds("evaluate", "e.safetensors", "data.npz", "--json")
        assert json.loads(worth.stdout)["r2"] == pytest.approx(model.score(X, y))
        assert "regression of 'y'" in worth.stderr
        assert "--target COLUMN" in run("evaluate", "e.safetensors", "x.npy").stderr
        write_csv("named.csv", [{"a": a, "b": b, "c": c, "price": p} for (a, b, c), p in zip(X, y, strict=True)])
        for named in ([], ["--target", "price"]):
            worth = json.loads(succeeds("evaluate", "e.safetensors", "named.csv", *named, "--json").stdout)
            assert worth["r2"] == pytest.approx(model.score(X, y))
        wrong = run("predict", "e.safetensors", "flats.csv")
        assert wrong.exit_code == 1
        assert "expected 3 columns, in the order of fit" in wrong.stderr

    @pytest.mark.parametrize("y", [WORDS, WORDS == "large", np.arange(60) % 3, np.arange(60) % 3 * 2.0], ids=str)
    def test_of_classes(self, folder, y):  # noqa: F811
        model = estimator("MLPClassifier", y, scale_inputs=True)
        model.save("e.safetensors")
        np.savez("data.npz", X=X, y=y)
        told = json.loads(succeeds("predict", "e.safetensors", "data.npz", "--probabilities", "--json").stdout)
        assert told.pop("y" if "y" in told else "prediction") == model.predict(X).tolist()
        np.testing.assert_allclose(np.transpose(list(told.values())), model.predict_proba(X), atol=1e-12)
        worth = json.loads(succeeds("evaluate", "e.safetensors", "data.npz", "--json").stdout)
        assert worth["accuracy"] == pytest.approx(model.score(X, y))

    def test_of_a_frame(self, folder):  # noqa: F811
        import pyarrow.csv

        estimators = pytest.importorskip("backprop.estimators")
        frame = pyarrow.csv.read_csv("flats.csv")
        model = estimators.MLPRegressor(
            hidden_layer_sizes=(8,), solver="lbfgs", max_iter=20, tol=1, scale_inputs=True, random_state=0
        )
        model.fit(frame, "rent").save("e.safetensors")
        lines = succeeds("predict", "e.safetensors", "new.csv").stdout.splitlines()
        assert lines[0] == "rent"
        expected = model.predict(pyarrow.csv.read_csv("new.csv"))
        np.testing.assert_allclose(np.array(lines[1:], float), expected, rtol=1e-6)
        assert json.loads(succeeds("evaluate", "e.safetensors", "flats.csv", "--json").stdout)["r2"] > 0.5
        assert succeeds("explain", "e.safetensors", "flats.csv").stdout

    def test_true_and_false_are_the_numbers_that_they_were(self, folder):  # noqa: F811
        import pyarrow.csv

        estimators = pytest.importorskip("backprop.estimators")
        frame = pyarrow.csv.read_csv("flats.csv").drop_columns(["town"])
        model = estimators.MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", max_iter=5, tol=1, random_state=0)
        model.fit(frame.drop_columns(["rent"]), frame["rent"].to_numpy()).save("e.safetensors")
        lines = succeeds("predict", "e.safetensors", "new.csv", "--drop", "town").stdout.splitlines()
        expected = model.predict(pyarrow.csv.read_csv("new.csv").drop_columns(["town"]))
        np.testing.assert_allclose(np.array(lines[1:], float), expected, rtol=1e-6)

    def test_is_not_trained_on(self, folder):  # noqa: F811
        estimator("MLPRegressor", X[:, 0]).save("e.safetensors")
        result = run("fit", "flats.csv", "--from", "e.safetensors", "-o", "m.safetensors")
        assert result.exit_code == 1
        assert "expected a model of backprop fit --model plain, got a MLPRegressor" in result.stderr


def drawn(monkeypatch, *arguments):
    """The figure that plot saves, and what it tells."""
    from backprop.cli import pictures

    figures = []

    def keep(axes, out):
        figures.append((axes if hasattr(axes, "figure") else axes.flat[0]).figure)

    monkeypatch.setattr(pictures, "save_picture", keep)
    result = succeeds("plot", *arguments, "--out", "p.png")
    return figures[0], result.stderr


class TestLooking:
    """Results as pictures, without knowing what there is."""

    def titles(self, figure):
        return [ax.get_ylabel() for ax in figure.axes]

    def test_of_a_regression(self, folder, monkeypatch):  # noqa: F811
        figure, told = drawn(monkeypatch, "rent.safetensors", "later.csv")
        assert "held out" not in told
        predictions, residuals, importance, dependence = figure.axes
        assert predictions.get_ylabel() == "predicted rent"
        worth = json.loads(succeeds("evaluate", "rent.safetensors", "later.csv", "--json").stdout)
        assert (
            predictions.get_title() == f"R² {worth['r2']:.3g}, mean absolute error {worth['mean_absolute_error']:.3g}"
        )
        assert residuals.get_title() == f"root mean squared error {worth['root_mean_squared_error']:.3g}"
        assert [text.get_text() for text in importance.get_yticklabels()][:2] == ["size", "town"]
        assert dependence.get_xlabel() == "size"
        mean = dependence.lines[0]
        assert mean.get_xdata()[[0, -1]] == pytest.approx([22, 119], abs=4)  # in units of the data
        slope = np.polyfit(mean.get_xdata(), mean.get_ydata(), 1)[0]
        assert slope == pytest.approx(10, rel=0.1)  # what a square metre costs

    def test_of_classes(self, folder, monkeypatch):  # noqa: F811
        figure, told = drawn(monkeypatch, "species.safetensors", "irises.csv")
        assert "Drawn from the 30 rows that fit held out of these data." in told
        confusion, importance, dependence = (ax for ax in figure.axes if ax.get_label() != "<colorbar>")
        assert "of 30 right" in confusion.get_title()
        assert importance.get_yticklabels()[-1].get_text() == "soil"
        assert [text.get_text() for text in dependence.get_legend().get_texts()] == [
            "setosa",
            "versicolor",
            "virginica",
        ]

    def test_of_a_class_that_is_rare(self, tmp_path, monkeypatch):
        """All predictions are "no", which is said, beside what that is worth; importance goes by probabilities."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        monkeypatch.chdir(tmp_path)
        rng = np.random.default_rng(0)
        noise, x = rng.standard_normal((2, 900))
        answer = np.where(rng.random(900) < 1 / (1 + np.exp(3.2 - x)), "yes", "no")
        lines = [f"{a:.3f},{b:.3f},{c}" for a, b, c in zip(noise, x, answer, strict=True)]
        Path("rare.csv").write_text("\n".join(["noise,x,y", *lines]))
        fit = succeeds("fit", "rare.csv", "--target", "y", "-o", "m.safetensors", "--epochs", 20, "--hidden", 8)
        assert "share of the most frequent class" in fit.stdout
        told = succeeds("evaluate", "m.safetensors", "rare.csv")
        for result in (fit, told):
            assert "note: every prediction is 'no'" in result.stderr
            assert "Average precision is of 'yes'." in result.stderr
        worth = json.loads(succeeds("evaluate", "m.safetensors", "rare.csv", "--json").stdout)
        assert worth["share_of_the_most_frequent_class"] == worth["accuracy"] == np.mean(answer == "no")
        p = succeeds("predict", "m.safetensors", "rare.csv", "--probabilities", "--format", "jsonl").stdout
        p = [json.loads(line)["y=yes"] for line in p.splitlines()]
        assert worth["roc_auc"] == pytest.approx(roc_auc_score(answer == "yes", p))
        assert worth["average_precision"] == pytest.approx(average_precision_score(answer == "yes", p))
        figure, _ = drawn(monkeypatch, "m.safetensors", "rare.csv")
        importance = next(ax for ax in figure.axes if "shuffled" in ax.get_xlabel())
        dependence = next(ax for ax in figure.axes if ax.get_ylabel() == "mean probability")
        assert "log-loss" in importance.get_xlabel()
        assert importance.get_yticklabels()[0].get_text() == dependence.get_xlabel() == "x"
        assert importance.patches[0].get_width() > 1e-3

    def test_dates_are_dates_on_an_axis(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        days = np.datetime64("2020-01-01") + np.arange(60)
        Path("a.csv").write_text("\n".join(["since,y", *(f"{day},{k % 7}" for k, day in enumerate(days))]))
        succeeds("fit", "a.csv", "--target", "y", "-o", "m.safetensors", "--epochs", 1, "--dates", "since")
        figure, _ = drawn(monkeypatch, "m.safetensors", "a.csv", "--column", "since")
        assert figure.axes[0].get_xticklabels()[0].get_text().startswith("20")
        assert "-01" in figure.axes[0].get_xticklabels()[1].get_text()

    def test_of_two_columns_also_the_plane(self, folder, monkeypatch):  # noqa: F811
        rng = np.random.default_rng(0)
        np.savez("plane.npz", X=rng.standard_normal((60, 2)), y=rng.choice(["a", "b"], 60))
        fitted("plane.npz", "--target", "y", "--epochs", 2)
        figure, _ = drawn(monkeypatch, "m.safetensors", "plane.npz")
        assert "x1, scaled" in self.titles(figure)

    @pytest.mark.parametrize(
        ("column", "words"),
        [("town", ["Bonn", "Köln", "Ulm"]), ("lift", ["false", "true"]), ("floor", None), ("size", None)],
    )
    def test_dependence_on_one_column(self, folder, monkeypatch, column, words):  # noqa: F811
        figure, _ = drawn(monkeypatch, "rent.safetensors", "later.csv", "--column", column)
        (ax,) = figure.axes
        assert (ax.get_xlabel(), ax.get_ylabel()) == (column, "predicted rent")
        if words:
            assert [text.get_text() for text in ax.get_xticklabels()] == words
        again, _ = drawn(monkeypatch, "rent.safetensors", "later.csv", "--kind", "dependence", "--column", column)
        np.testing.assert_array_equal(again.axes[0].lines[0].get_ydata(), ax.lines[0].get_ydata())

    @pytest.mark.parametrize("kind", ["predictions", "residuals", "importance", "dependence", "loss"])
    def test_each_by_its_name(self, folder, monkeypatch, kind):  # noqa: F811
        assert drawn(monkeypatch, "rent.safetensors", "later.csv", "--kind", kind)[0].axes

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_of_an_estimator(self, folder, monkeypatch):  # noqa: F811
        y = 1000 + 50 * X[:, 0]
        model = estimator("MLPRegressor", y, scale_inputs=True, scale_targets=True)
        model.save("e.safetensors")
        np.savez("data.npz", X=X, y=y)
        figure, _ = drawn(monkeypatch, "e.safetensors", "data.npz")
        assert figure.axes[0].get_title().startswith(f"R² {model.score(X, y):.3g}")
        assert figure.axes[3].lines[0].get_xdata().min() > 70  # in units of X

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (["rent.safetensors", "later.csv", "--kind", "network"], 2, "draws the model alone, without DATA"),
            (["rent.safetensors", "--kind", "predictions"], 2, "needs DATA with the target"),
            (
                ["rent.safetensors", "--column", "size"],
                2,
                "--column does not apply to the picture of a model without DATA",
            ),
            (["rent.safetensors", "later.csv", "--metric", "r2"], 2, "--metric does not apply"),
            (["log.csv", "later.csv"], 2, "DATA does not apply to the picture of a log"),
            (["log.csv", "--kind", "weights"], 2, "--kind does not apply to the picture of a log"),
            (["rent.safetensors", "later.csv", "--column", "Size"], 1, "--column: expected one of the columns"),
            (["rent.safetensors", "later.csv", "--kind", "loss", "--column", "size"], 2, "goes with --kind dependence"),
            (["rent.safetensors", "later.csv", "--kind", "confusion"], 1, "predicts numbers"),
            (["species.safetensors", "irises.csv", "--kind", "residuals"], 1, "predicts classes"),
            (["rent.safetensors", "new.csv"], 1, "expected columns ['rent']"),
        ],
    )
    def test_what_says_nothing_is_refused(self, folder, arguments, code, reason):  # noqa: F811
        succeeds("fit", "flats.csv", "--target", "rent", "--epochs", 1, "-o", "m.safetensors", "--log", "log.csv")
        result = run("plot", *arguments, "--out", "p.png")
        assert result.exit_code == code, result.stderr
        assert reason in result.stderr
        assert not Path("p.png").exists()


class TestLog:
    def test_stays_until_a_fit_has_succeeded(self, folder):  # noqa: F811
        log = Path("log.csv")
        fit = ["fit", "flats.csv", "--target", "rent", "-o", "m.safetensors", "--log", log]
        succeeds(*fit, "--epochs", 3)
        before, model = log.read_bytes(), Path("m.safetensors").read_bytes()
        names = sorted(path.name for path in folder.iterdir())
        for wrong in (["--optimizer", "sgd", "--learning-rate", "1e30"], ["--group", "town", "--time", "floor"]):
            assert run(*fit, *wrong).exit_code in (1, 2)
            assert log.read_bytes() == before
        assert Path("m.safetensors").read_bytes() == model
        assert sorted(path.name for path in folder.iterdir()) == names
        succeeds(*fit, "--epochs", 2)
        assert [row["epoch"] for row in read_csv(log)] == ["1", "2"]
        assert sorted(path.name for path in folder.iterdir()) == names

    def test_of_a_first_fit_that_fails_tells_how_far_it_came(self, folder):  # noqa: F811
        arguments = ["flats.csv", "--target", "rent", "-o", "m.safetensors", "--log", "new.jsonl"]
        assert run("fit", *arguments, "--optimizer", "sgd", "--learning-rate", "1e30").exit_code == 1
        assert Path("new.jsonl").exists()


class TestWords:
    """Errors on the command line are in its words."""

    @pytest.mark.parametrize(
        ("python", "option"),
        [
            ("Table.fit: expected x. Remove such rows, or fill them with missing='impute'.", "--missing impute"),
            ("Table.transform: expected x. unknown='ignore' encodes such values as zeros.", "--unknown ignore"),
            ("Trainer: too large; bp.learning_rate_range_test(net, loss, X, y) suggests one.", "--learning-rate"),
            ("Trainer.resume('a/run.safetensors'): expected numpy 2, got 3.", "expected numpy 2"),
            ("--to torch: expected x. to_numpy, to_onnx and to_c scale in double precision.", "--to numpy, onnx and c"),
        ],
    )
    def test_of_the_library_are_translated(self, python, option):
        assert option in spoken(python)
        assert not any(word in spoken(python) for word in ("Table.", "Trainer", "bp.", "='", "to_numpy"))

    def test_kinds_of_files_are_named_by_what_opens_them(self, folder):  # noqa: F811
        fitted(*FIT, "--epochs", 1)
        for arguments, opens in (
            (["predict", "run.safetensors", "flats.csv"], "backprop resume"),
            (["resume", "rent.safetensors", "flats.csv", "-o", "m2.safetensors"], "predict"),
        ):
            told = run(*arguments).stderr
            assert opens in told
            assert not any(word in told for word in ("Trainer", "Sequential", ".load"))


HOW_TO = Path(__file__).parents[1] / "docs" / "how_to"
PIECE = re.compile(r"^```(python|console)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["hold_out_honestly", "going_on"])
def test_pages_show_what_happens(page, tmp_path, monkeypatch):
    """Each command of a page runs, in order, and says what is shown below it, whatever the numbers."""
    monkeypatch.chdir(tmp_path)
    namespace, commands = {"__name__": page}, 0
    for language, text, shown in PIECE.findall((HOW_TO / f"{page}.md").read_text("utf-8")):
        if language == "python":
            exec(text, namespace)  # our own
            continue
        said = ""
        for line in text.splitlines():
            result = shell(line.removeprefix("$ "))
            said += result.stderr + result.stdout
            commands += 1
        if shown:
            assert words(said) == words(shown)
            assert held(said) == held(shown)
    assert commands >= 3


def held(text):
    """The measures of the first line, rounded: R² of training and of the rows held out, and before."""
    (line,) = re.findall(r"^r2 +(.*)$", text, re.MULTILINE)
    return [float(number) > 0.5 for number in line.split()]
