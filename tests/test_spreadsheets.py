"""What spreadsheets and statistics packages write: right numbers, or a refusal with file, row, column, value and the option."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from test_bad_input import assert_refused
from test_cli import run, succeeds

import backprop as bp
from backprop.cli import source
from backprop.cli.data import Reading

ALL = bool(os.environ.get("BACKPROP_TABLES"))  # else a part of the longer tables
QUICK = ["--hidden", "none", "--epochs", "1", "-o", "m.safetensors"]
N = 60
X = np.random.default_rng(0).normal(scale=900, size=N).round(2)
Y = (2 * X + 5).round(2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(columns, delimiter=",", end="\n"):
    """The text of a CSV; cells are as they are given."""
    lines = [delimiter.join(columns), *(delimiter.join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return end.join(lines) + end


def write(name, columns, delimiter=",", encoding="utf-8", end="\n"):
    Path(name).write_bytes(table(columns, delimiter, end).encode(encoding))
    return name


def fit(name, *options, target="y"):
    return run("fit", name, "--target", target, *QUICK, *options)


def fits(name, *options, target="y"):
    result = fit(name, *options, target=target)
    assert result.exit_code == 0, result.stderr
    return result


def refused(result, *parts):
    """Exit code 1 and one line that says so."""
    assert result.exit_code == 1, (result.stdout, result.stderr)
    line = result.stderr.splitlines()[-1]
    assert line.startswith("backprop ")
    assert len(line) < 1500
    for part in parts:
        assert part in line
    assert not Path("m.safetensors").exists()


def learnt(name="x", model="m.safetensors"):
    """Mean and σ of a column, as the model has learnt them."""
    (column,) = (column for column in bp.Table.load(model).state()["columns"] if column["name"] == name)
    return column["shift"], 1 / column["factor"]


def has_learnt(x, name="x"):
    np.testing.assert_allclose(learnt(name), (np.mean(x), np.std(x)), rtol=1e-12)


def german(x):
    """1410.63 as 1.410,63."""
    return f"{x:,.2f}".translate(str.maketrans(",.", ".,"))


ODD = {  # a cell, and what is said of it
    "?": "--na '?'",
    "-": "--na -",
    "None": "--na None",
    "n.a.": "--na 'n.a.'",
    "k.A.": "--na 'k.A.'",
    "Total": "Remove the line",
    "x": "Remove the line with the names",
    "5%": "without signs",
    "$5": "without signs",
    "5 kg": "units",
    "1 200": "--thousands ' '",
    "1'257": '--thousands "\'"',
    "\u22125": "minus",
    "<0.5": "without signs",
    "5\0": "zero byte",
    "1\u202f200": "--thousands ' '",
    "(5)": "without signs",
    "5-": "without signs",
    "EUR 5": "without signs",
    "٣": "without signs",
    "true": "--categories x",
    "2020-01-05": "without signs",
    "ERR": "--na ERR",
    "word of more than twenty characters": "--categories x",
}


class TestOneOddCell:
    @pytest.mark.parametrize("cell", ODD, ids=ascii)
    def test_in_a_column(self, cell):
        cells = [*map(str, X[:17]), cell, *map(str, X[18:])]
        write("a.csv", {"x": cells, "y": Y})
        refused(fit("a.csv"), "a.csv: column 'x': expected numbers", f"{cell!r} at row 17", ODD[cell], "--drop x")

    @pytest.mark.parametrize("cell", ODD, ids=ascii)
    def test_in_the_target(self, cell):
        cells = [*map(str, X[:17]), cell, *map(str, X[18:])]
        write("a.csv", {"z": Y, "x": cells})
        refused(fit("a.csv", target="x"), "column 'x': expected numbers", f"{cell!r} at row 17", ODD[cell])

    @pytest.mark.parametrize("cell", ["?", "5%", "\u22125"], ids=ascii)
    @pytest.mark.parametrize("command", ["predict", "evaluate", "explain", "resume", "plot"])
    def test_in_a_later_file(self, cell, command):
        write("a.csv", {"x": X, "y": Y})
        fits("a.csv", "--checkpoint", "c.safetensors")
        Path("m.safetensors").rename("model.safetensors")
        write("b.csv", {"x": [*X[:3], cell], "y": Y[:4]})
        more = {"resume": ["--epochs", "1", "-o", "m.safetensors"], "plot": ["--kind", "loss", "-o", "p.png"]}
        of = "c.safetensors" if command == "resume" else "model.safetensors"
        result = run(command, of, "b.csv", *more.get(command, []))
        refused(result, "b.csv: column 'x': expected numbers", f"{cell!r} at row 3")

    @pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=lambda make: make.__module__)
    @pytest.mark.parametrize("cell", ["?", "Total", "5%", "5 kg", "1 200", "<0.5", "5\0"], ids=ascii)
    def test_in_a_frame(self, make, cell):
        words = [*map(str, X[:17]), cell, *map(str, X[18:])]
        for columns, target in (({"x": words, "y": Y}, "y"), ({"x": Y, "y": words}, "y")):
            message = [repr(cell), "at row 17", "categorical"]
            assert_refused(lambda c=columns, t=target: bp.Table(t).fit(make(c)), ValueError, "Table.fit", *message)
        names = pd.DataFrame({"x": pd.Categorical(words), "y": Y})
        assert len(bp.Table("y").fit(names)[0].T) == len(set(words))  # who says that they are names is believed

    def test_a_hole_that_is_told(self):
        write("a.csv", {"x": [*X[:3], "?", *X[4:]], "y": Y})
        refused(fit("a.csv", "--na", "?"), "no missing values in column 'x'", "row 3", "--missing impute")
        fits("a.csv", "--na", "?", "--missing", "impute")
        has_learnt(np.delete(X, 3))
        write("b.csv", {"x": ["?", "1"]})
        assert len(succeeds("predict", "m.safetensors", "b.csv").stdout.splitlines()) == 3

    @pytest.mark.parametrize("cell", ["?", "1,5"])
    def test_in_words_of_a_parquet_file(self, cell):
        words = [*map(str, X[:17]), cell, *map(str, X[18:])]
        options = {"?": ["--na", "?", "--missing", "impute"], "1,5": ["--decimal", ","]}[cell]
        words = [word.replace(".", ",") for word in words] if cell == "1,5" else words
        for k, make in enumerate((pl.DataFrame, pd.DataFrame)):
            frame = make({"x": words, "y": Y})
            (frame.to_parquet if k else frame.write_parquet)("a.parquet")
            refused(fit("a.parquet"), "column 'x': expected numbers", options[0])
            fits("a.parquet", *options)
            assert bp.Table.load("m.safetensors").categories == {}
            assert len(succeeds("predict", "m.safetensors", "a.parquet").stdout.splitlines()) == N + 1
            Path("m.safetensors").unlink()

    def test_numbers_as_words_of_a_parquet_file_are_names(self):
        pd.DataFrame({"x": ["01", "02", "03"] * (N // 3), "y": Y}).to_parquet("a.parquet")
        fits("a.parquet")
        assert bp.Table.load("m.safetensors").categories == {"x": ["01", "02", "03"]}

    def test_numbers_that_begin_with_0_may_be_codes(self):
        codes = [f"{k % 9:02}" if k % 2 else k for k in range(N)]
        write("codes.csv", {"x": X, "code": codes, "y": Y}, delimiter=";")
        told = "Column 'code' has numbers that begin with 0, such as 01: --categories code, if they are codes."
        assert told in fits("codes.csv").stderr
        assert told in succeeds("look", "codes.csv").stderr
        assert told not in succeeds("predict", "m.safetensors", "codes.csv").stderr
        assert "begin with 0" not in fits("codes.csv", "--categories", "code").stderr
        assert "begin with 0" not in fits(write("x.csv", {"x": X % 1, "y": Y})).stderr

    @pytest.mark.parametrize("write_it", ["npz", "polars"])
    def test_what_is_no_number_is_a_hole_in_categories_too(self, write_it):
        x = np.tile([1.0, 2.0, np.nan, 2.0], N // 4)
        if write_it == "npz":
            np.savez("a.npz", X=np.column_stack([x, X]), y=Y)
        else:
            pl.DataFrame({"x0": x, "x1": X, "y": Y}).write_parquet("a.parquet")
        (name,) = Path().glob("a.*")
        refused(fit(name, "--categories", "x0"), "no missing values in column 'x0'", "at row 2")
        fits(name, "--categories", "x0", "--missing", "impute")
        assert bp.Table.load("m.safetensors").categories == {"x0": ["1", "2"]}

    def test_categories_that_are_lists_are_refused(self):
        pd.DataFrame({"x": [[1], [2]] * (N // 2), "y": Y}).to_parquet("a.parquet")
        refused(fit("a.parquet", "--categories", "x"), "a.parquet: column 'x': expected numbers or words, got [1]")

    def test_names_that_are_told(self):
        write("a.csv", {"x": ["S", "M", "38", "40"] * 15, "y": Y})
        refused(fit("a.csv"), "column 'x'", "--categories x")
        fits("a.csv", "--categories", "x")
        assert bp.Table.load("m.safetensors").categories == {"x": ["38", "40", "M", "S"]}

    @pytest.mark.parametrize(
        "words",
        [
            ["25-34", "35-44", "45-54", "55+"],
            ["<=50K", ">50K"],
            ["A1", "B2", "12"],
            ["5 kg", "10 kg"],
            ["1st", "2nd", "3rd"],
            ["yes", "no", "8"],
            ["Mr", "Mrs", "?"],
            ["Q1", "Q2"],
            ["12 Monkeys", "Se7en"],
        ],
        ids=str,
    )
    def test_words_with_digits_are_words(self, words):
        write("a.csv", {"x": (words * N)[:N], "y": Y})
        fits("a.csv")
        assert bp.Table.load("m.safetensors").categories == {"x": sorted(words)}

    @pytest.mark.parametrize("unit", ["{}%", "${}", "{} €", "{} kg", "<{}", "\u2212{}", "{},5", "1'{:03}", "({})"])
    def test_every_cell_in_another_writing(self, unit):
        write("a.csv", {"x": [f'"{unit.format(k)}"' for k in range(N)], "y": Y})
        refused(fit("a.csv"), "column 'x': expected numbers", "at row 0")


NOTATIONS = {  # how a number is written, the delimiter, and the options
    "points": ("{:.2f}", ",", []),
    "commas": (lambda x: f"{x:.2f}".replace(".", ","), ";", ["--decimal", ","]),
    "German": (german, ";", ["--decimal", ",", "--thousands", "."]),
    "English": (lambda x: f'"{x:,.2f}"', ",", ["--thousands", ","]),
    "Swiss": (lambda x: f"{x:,.2f}".replace(",", "'"), ";", ["--thousands", "'"]),
    "Swiss, typeset": (lambda x: f"{x:,.2f}".replace(",", "’"), ";", ["--thousands", "'"]),
    "French": (
        lambda x: f"{x:,.2f}".replace(",", "\u202f").replace(".", ","),
        ";",
        ["--decimal", ",", "--thousands", " "],
    ),
    "quoted commas": (lambda x: f'"{x:.2f}"'.replace(".", ","), ",", ["--decimal", ","]),
    "tabs": ("{:.2f}", "\t", []),
    "bars": ("{:.2f}", "|", []),
    "spaces around": (" {:.2f} ", ",", []),
    "plus signs": ("{:+.2f}", ",", []),
    "plus signs and commas": (lambda x: f"{x:+.2f}".replace(".", ","), ";", ["--decimal", ","]),
    "exponents": ("{:.12e}", ",", []),
}


class TestNotations:
    @pytest.mark.parametrize("case", NOTATIONS)
    def test_are_the_same_numbers_in_every_command(self, case):
        form, delimiter, options = NOTATIONS[case]
        form = form.format if isinstance(form, str) else form
        write("a.csv", {"x": map(form, X), "y": map(form, Y)}, delimiter)
        if options:
            said = fit("a.csv").stderr.splitlines()[-1]
            assert all(option in said for option in options if option.startswith("--")), said
        told = fits("a.csv", *options).stderr
        assert (f"separated by {delimiter!r}" in told) == (delimiter != ",")
        has_learnt(X)
        pd.DataFrame({"x": X, "y": Y}).to_parquet("b.parquet")
        worth = succeeds("evaluate", "m.safetensors", "a.csv").stdout
        assert succeeds("evaluate", "m.safetensors", "b.parquet").stdout == worth
        assert (
            "x" in json.loads(succeeds("explain", "m.safetensors", "a.csv", "--rows", "1", "--json").stdout)["numbers"]
        )

    def test_another_format_later_is_told(self):
        write("a.csv", {"x": map(german, X), "y": map(german, Y)}, ";", "cp1252")
        fits("a.csv", "--delimiter", ";", "--decimal", ",", "--thousands", ".", "--encoding", "cp1252")
        expected = succeeds("evaluate", "m.safetensors", "a.csv").stdout
        write("b.csv", {"x": X, "y": Y}, "|")
        assert run("evaluate", "m.safetensors", "b.csv").exit_code == 1
        result = succeeds("evaluate", "m.safetensors", "b.csv", "--delimiter", "|", "--decimal", ".")
        assert result.stdout == expected
        assert "b.csv is read with --decimal '.', as given here; fit had ','." in result.stderr
        assert "b.csv is read with --delimiter '|', as given here; fit had ';'." in result.stderr

    def test_a_mark_of_two_meanings(self):
        write("a.csv", {"x": X, "y": Y})
        for options, other in (
            (["--thousands", "."], "--decimal"),
            (["--decimal", ",", "--thousands", ","], "--thousands"),
        ):
            result = fit("a.csv", *options)
            assert result.exit_code == 2
            assert f"say {other}, too" in result.stderr

    def test_wrong_options(self):
        write("a.csv", {"x": X, "y": Y})
        for options in (
            ["--decimal", ";"],
            ["--thousands", "x"],
            ["--encoding", "klingon"],
            ["--encoding", "base64"],
            *(["--delimiter", mark] for mark in ("", "a", "5", ".", '"', "§", "\n")),
        ):
            assert fit("a.csv", *options).exit_code == 2, options

    def test_grouping_is_that_of_thousands(self):
        write("a.csv", {"x": ["1,2", *map(str, X[1:])], "y": Y}, ";")
        refused(fit("a.csv", "--thousands", ","), "'1,2' at row 0")


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1", "mac-roman"]


class TestEncodings:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"] if ALL else ["\r\n"], ids=ascii)
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_is_found_out_or_told(self, encoding, end):
        write(
            "a.csv",
            {"größe": X, "ort": ["Köln", "Łódź" if encoding[:3] == "utf" else "Bonn"] * (N // 2), "y": Y},
            ";",
            encoding,
            end,
        )
        found_out = encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
        if not found_out:
            refused(fit("a.csv"), "a.csv: the file: expected text in UTF-8", "--encoding")
        fits("a.csv", *([] if found_out else ["--encoding", encoding]))
        assert bp.Table.load("m.safetensors").columns == ["größe", "ort"]
        succeeds("evaluate", "m.safetensors", "a.csv")

    def test_names_the_cell(self):
        Path("a.csv").write_bytes(b"town,y\nBonn,1\nK\xf6ln,2\n")
        refused(fit("a.csv"), "in column 'town'", "0xF6 at row 1", "'Köln': --encoding cp1252")
        refused(fit("a.csv", "--encoding", "ascii"), "column 'town': expected text in ascii", "--encoding")

    def test_one_that_fits_as_well_is_told(self):
        """A later file in UTF-8, read in the code page of the first one, would be other words."""
        columns = {"town": ["Köln", "Ulm"] * (N // 2), "x": X, "y": Y}
        fits(write("first.csv", columns, encoding="cp1252"), "--encoding", "cp1252")
        result = run("predict", "m.safetensors", write("later.csv", columns))
        assert result.exit_code == 1
        assert "in column 'town', got 'KÃ¶ln' at row 0" in result.stderr
        assert "The file is read as cp1252, and is text in UTF-8, too: --encoding utf-8" in result.stderr
        for name in ("utf-8", "UTF8", "utf-8-sig"):
            result = succeeds("predict", "m.safetensors", "later.csv", "--encoding", name)
            assert result.stdout.count("\n") == N + 1
            assert "in UTF-8, too" not in result.stderr

    def test_one_that_a_mark_has_overruled_is_not_told(self):
        columns = {"town": ["Köln", "Ulm"] * (N // 2), "x": X, "y": Y}
        assert "in UTF-8, too" not in fits(write("a.csv", columns, encoding="utf-8-sig"), "--encoding", "cp1252").stderr

    def test_a_mark_at_the_beginning_decides(self):
        write("a.csv", {"größe": X, "y": Y}, encoding="utf-8-sig")
        fits("a.csv", "--encoding", "cp1252")
        assert bp.Table.load("m.safetensors").columns == ["größe"]


def packed(data, kind):
    """Bytes as they are compressed, and the name of the file."""
    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/a.csv", data)
        return file.getvalue()
    if kind == "zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as file:
            file.write(data)
        return sink.getvalue().to_pybytes()
    return {"gz": gzip, "bz2": bz2, "xz": lzma}[kind].compress(data)


class TestCompressed:
    @pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "zip"])
    def test_every_command_reads_them(self, kind):
        data = table({"x": X, "y": Y}).encode()
        Path(f"a.csv.{kind}").write_bytes(packed(data, kind))
        fits(f"a.csv.{kind}")
        has_learnt(X)
        succeeds("evaluate", "m.safetensors", f"a.csv.{kind}")
        whole = Path(f"a.csv.{kind}").read_bytes()
        Path("m.safetensors").unlink()
        for damaged in (whole[:-9], whole[:12], b"", b"x,y\n1,2\n"):
            Path(f"a.csv.{kind}").write_bytes(damaged)
            refused(fit(f"a.csv.{kind}"), f"a.csv.{kind}: ")

    @pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "zip"])
    def test_their_size_is_bounded(self, kind, monkeypatch):
        monkeypatch.setattr(source, "ANY", 1 << 20)
        Path(f"a.csv.{kind}").write_bytes(packed(b"x,y\n" + bytes(8 << 20), kind))
        refused(fit(f"a.csv.{kind}"), "bytes, got more", "Inflate it")

    def test_arrays_that_fill_the_memory(self):
        np.savez_compressed("a.npz", X=np.zeros((1 << 17, 100)), y=np.zeros(1 << 17))
        refused(fit("a.npz"), "a.npz: the file: expected at most 200 times the bytes")

    def test_an_archive_of_several(self):
        with zipfile.ZipFile("a.csv.zip", "w") as archive:
            archive.writestr("a.csv", "x,y\n1,2\n")
            archive.writestr("b.csv", "x,y\n1,2\n")
        refused(fit("a.csv.zip"), "a single file", "2: ['a.csv', 'b.csv']")

    def test_parquet_and_arrays_in_them(self):
        pd.DataFrame({"x": X, "y": Y}).to_parquet("a.parquet")
        Path("a.parquet.gz").write_bytes(gzip.compress(Path("a.parquet").read_bytes()))
        fits("a.parquet.gz")
        has_learnt(X)
        Path("a.png.gz").write_bytes(b"")
        assert fit("a.png.gz").exit_code == 2


DAYS = [datetime.date(2019, 6, 21) + datetime.timedelta(97 * k) for k in range(N)]
SINCE = [(day - datetime.date(1970, 1, 1)).days for day in DAYS]
FORMS = ["%d.%m.%Y", "%Y/%m/%d", "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%d %b %Y", "%B %d, %Y", "%d-%m-%Y"]


class TestDates:
    @pytest.mark.parametrize("clock", ["", " %H:%M", "T%H:%M:%S"] if ALL else [" %H:%M"])
    @pytest.mark.parametrize("form", FORMS)
    def test_are_refused_or_days(self, form, clock):
        noon = [datetime.datetime(day.year, day.month, day.day, 12 if clock else 0) for day in DAYS]
        cells = [f'"{day:{form + clock}}"' for day in noon]
        write("a.csv", {"day": cells, "y": Y})
        refused(fit("a.csv"), "column 'day'", "the date '", "at row 0", "--dates day makes numbers", "--drop day")
        fits("a.csv", "--dates", "day")
        has_learnt(np.array(SINCE) + (0.5 if clock else 0), "day")
        expected = succeeds("evaluate", "m.safetensors", "a.csv").stdout
        pd.DataFrame({"day": pd.to_datetime(noon), "y": Y}).to_parquet("b.parquet")
        assert succeeds("evaluate", "m.safetensors", "b.parquet").stdout == expected
        fits("a.csv", "--categories", "day")

    @pytest.mark.parametrize(
        ("cells", "form", "days"),
        [
            (["2020-05-01", "2020-06-02"], "%Y-%d-%m", [18266, 18298]),  # as told, though they look like other dates
            (["03:25", "12:30"], "%M:%S", [205 / 86400, 750 / 86400]),
            (["10:20", "12:45"], None, [620 / 1440, 765 / 1440]),
            (["10:20", "12:45", "9:05"], None, [620 / 1440, 765 / 1440, 545 / 1440]),
            (["10:20:30", "9:05:00"], None, [37230 / 86400, 545 / 1440]),
            (["01022020", "02032020", "15042020"], "%d%m%Y", [18293, 18323, 18367]),  # which are no numbers
            (["010220", "150420"], "%d%m%y", [18293, 18367]),
            (["0030", "2359"], "%H%M", [30 / 1440, 1439 / 1440]),
            (["2020-01-01", "9999-12-31"], None, [18262, 2932896]),
            (["2020-01-01T12:00:00.000Z"], None, [18262.5]),
            (["2020-01-01T12:00+02:00"], "%Y-%m-%dT%H:%M%z", [18262 + 10 / 24]),
            (["5 sep 2020", "06 Sep 2020"], None, [18510, 18511]),
        ],
        ids=str,
    )
    def test_mean_what_they_say(self, cells, form, days):
        write("a.csv", {"t": cells, "y": range(len(cells))})
        np.testing.assert_allclose(Reading(dates={"t": form}).frame(Path("a.csv"))["t"].to_pylist(), days, rtol=1e-12)

    @pytest.mark.parametrize(
        ("cell", "form"),
        [
            ("31.02.2020", None),
            ("29.02.2021", "%d.%m.%Y"),
            ("2020-02-30", None),
            ("04/31/2021", "%m/%d/%Y"),
            ("20200230", "%Y%m%d"),
            ("31.02.2020 10:00+0100", "%d.%m.%Y %H:%M%z"),
            ("2020-W05", "%Y-W%W"),
        ],
    )
    def test_that_do_not_exist_are_refused(self, cell, form):
        write("a.csv", {"t": [cell], "y": [1]})
        with pytest.raises(
            ValueError, match=f"a.csv: column 't', --dates: expected dates.*got '{re.escape(cell)}' at row 0"
        ):
            Reading(dates={"t": form}).frame(Path("a.csv"))

    def test_whole_numbers_of_a_parquet_file_get_their_zeros_back(self):
        pd.DataFrame({"t": [1022020, 15042020], "y": [1, 2]}).to_parquet("a.parquet")
        assert Reading(dates={"t": "%d%m%Y"}).frame(Path("a.parquet"))["t"].to_pylist() == [18293, 18367]

    def test_times_of_day_are_the_same_in_a_later_file(self):
        times = [f"{h}:{m:02}" for h in range(6, 20) for m in (5, 20, 45)]
        write("a.csv", {"t": times, "y": range(len(times))})
        fits("a.csv", "--dates", "t")
        for name, cells in (("b.csv", ["10:20", "12:45"]), ("c.csv", ["10:20", "12:45", "9:05"])):
            write(name, {"t": cells})
        b, c = (succeeds("predict", "m.safetensors", name).stdout.splitlines() for name in ("b.csv", "c.csv"))
        assert b == c[:3]

    def test_a_day_or_a_month(self):
        write("a.csv", {"day": ["1/5/2020", "2/5/2020", "3/5/2020"] * 20, "y": Y})
        refused(fit("a.csv"), "--dates day")
        refused(fit("a.csv", "--dates", "day"), "dates of one meaning", "--dates day=%d/%m/%Y or --dates day=%m/%d/%Y")
        fits("a.csv", "--dates", "day=%d/%m/%Y")
        days = [(datetime.date(2020, 5, k) - datetime.date(1970, 1, 1)).days for k in (1, 2, 3)]
        has_learnt(days, "day")
        write("b.csv", {"day": ["2/5/2020", "13/5/2020"]})  # which is as ambiguous alone
        succeeds("predict", "m.safetensors", "b.csv")
        write("b.csv", {"day": ["5/13/2020"]})
        result = run("predict", "m.safetensors", "b.csv")
        assert result.exit_code == 1
        assert "'5/13/2020' at row 0" in result.stderr

    def test_an_odd_one(self):
        write("a.csv", {"day": ["21.06.2019", "22.06.2019", "unknown"] * 20, "y": Y})
        refused(fit("a.csv", "--dates", "day"), "'unknown' at row 2")
        fits("a.csv", "--dates", "day", "--na", "unknown", "--missing", "impute")

    def test_numbers_and_clocks(self):
        write("a.csv", {"day": [f"{day:%Y%m%d}" for day in DAYS], "at": ["06:00", "12:00", "18:00"] * 20, "y": Y})
        refused(fit("a.csv"), "column 'at'", "--dates at")
        refused(fit("a.csv", "--dates", "day,at"), "day=%Y%m%d")
        fits("a.csv", "--dates", "day=%Y%m%d,at")
        has_learnt(SINCE, "day")
        has_learnt([0.25, 0.5, 0.75], "at")

    def test_as_the_target(self):
        write("a.csv", {"x": X, "day": DAYS})
        refused(fit("a.csv", target="day"), "column 'day'", "--dates day")
        assert "--drop day" not in fit("a.csv", target="day").stderr
        assert "regression" in fits("a.csv", "--dates", "day", target="day").stderr

    def test_in_a_frame(self):
        frame = pd.DataFrame({"day": [f"{day:%d.%m.%Y}" for day in DAYS], "y": Y})
        assert_refused(
            lambda: bp.Table("y").fit(frame), ValueError, "Table.fit", "'day'", "'21.06.2019' at row 0", "dates"
        )

    def test_words_of_a_parquet_file(self):
        days = [f"{day:%d.%m.%Y}" for day in DAYS]
        for k, make in enumerate((pl.DataFrame, pd.DataFrame)):
            frame = make({"day": days, "y": Y})
            (frame.to_parquet if k else frame.write_parquet)("a.parquet")
            refused(fit("a.parquet"), "column 'day'", "the date '21.06.2019' at row 0", "--dates day")
            fits("a.parquet", "--dates", "day")
            has_learnt(SINCE, "day")
            Path("m.safetensors").unlink()

    def test_a_column_that_is_not_there(self):
        write("a.csv", {"x": X, "y": Y})
        refused(fit("a.csv", "--dates", "day"), "--dates: expected columns ['day']")


class TestTargets:
    @pytest.mark.parametrize("cells", [[f"r{k}" for k in range(N)], [*(f"r{k}" for k in range(N - 1)), "r0"]])
    def test_as_many_classes_as_rows(self, cells):
        write("a.csv", {"x": X, "y": cells})
        refused(fit("a.csv"), "a.csv: expected classes that repeat in column 'y'", f"{len(set(cells))} in {N} rows")

    def test_numbers_as_classes(self):
        write("a.csv", {"x": X, "y": Y})
        refused(fit("a.csv", "--task", "classification"), "classes that repeat in column 'y'")

    @pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series])
    def test_in_a_table(self, make):
        words = [f"r{k}" for k in range(N)]
        assert_refused(
            lambda: bp.Table().fit(pd.DataFrame({"x": X}), make(words)), ValueError, "Table.fit", "classes", "'y'"
        )

    def test_few_rows(self):
        assert bp.Table().fit(pd.DataFrame({"x": [1, 2, 3]}), ["a", "b", "a"])[1].tolist() == [0, 1, 0]


def index_of(kind):
    """A frame sorted by y, shuffled, and written with its index."""
    y = np.repeat(["no", "yes"], N // 2)
    frame = pd.DataFrame({"x": X, "y": y}).sample(frac=1, random_state=0)
    frame = frame.rename_axis("row") if "named" in kind else frame
    name = f"a.{kind.split()[-1]}"
    if kind.endswith("parquet"):
        frame.to_parquet(name)
    else:
        frame.to_csv(name)
        if "twice" in kind:
            pd.read_csv(name).to_csv(name, index=False)
    return name, frame


class TestIndex:
    @pytest.mark.parametrize("kind", ["parquet", "named parquet", "csv", "twice csv"])
    def test_is_no_feature(self, kind):
        name, frame = index_of(kind)
        result = fits(name)
        assert "left out: " in result.stderr
        assert bp.Table.load("m.safetensors").columns == ["x"]
        frame.reset_index(drop=True).to_csv("b.csv", index=False)
        expected = succeeds("evaluate", "m.safetensors", "b.csv").stdout
        for again in ("parquet", "csv", "twice csv"):
            assert succeeds("evaluate", "m.safetensors", index_of(again)[0]).stdout == expected

    def test_one_with_a_name_of_its_own_is_told_of(self):
        name, _ = index_of("named csv")
        assert "Column 'row' numbers the rows: --drop row." in fits(name).stderr

    def test_names_of_rows(self):
        """As R's write.csv has them."""
        rows = "".join(f'"car {k}",{X[k]},{Y[k]}\n' for k in range(N))
        Path("a.csv").write_text(f'"","x","y"\n{rows}', encoding="utf-8")
        assert "'@1'" in fits("a.csv").stderr
        assert bp.Table.load("m.safetensors").columns == ["x"]
        Path("b.csv").write_text('"","x"\n"car 1",1\n"car 1",2\n', encoding="utf-8")
        succeeds("predict", "m.safetensors", "b.csv")

    def test_what_is_wanted_is_kept(self):
        pd.DataFrame({"x": X}, index=pd.Index(Y, name="y")).to_parquet("a.parquet")
        fits("a.parquet")
        has_learnt(X)

    def test_arrow_tables_of_a_frame(self):
        _, frame = index_of("csv")
        arrow = pa.Table.from_pandas(frame)
        assert "__index_level_0__" in arrow.column_names
        made = bp.Table("y")
        assert len(made.fit(arrow)[0].T) == 1
        assert made.columns == ["x"]
        np.testing.assert_array_equal(made.transform(arrow), made.transform(frame))
        before = bp.Table("y")
        before.fit(arrow.replace_schema_metadata())  # as before that was known
        assert before.columns == ["x", "__index_level_0__"]
        assert len(before.transform(arrow).T) == 2
        named = pa.Table.from_pandas(frame.set_index("y"))
        assert bp.Table("y").fit(named)[1].sum() == N // 2


class TestNames:
    def test_twice(self):
        write("a.csv", {"a": X, "b": X + 1, "y": Y})
        text = Path("a.csv").read_text().replace("a,b,y", "a,a,y")
        Path("a.csv").write_text(text)
        refused(
            fit("a.csv"), "a.csv: the names of the columns: expected each once, got 'a' as columns 1 and 2", "--drop @2"
        )
        fits("a.csv", "--drop", "@2")
        has_learnt(X, "a")
        succeeds("evaluate", "m.safetensors", "a.csv")
        write("b.csv", {"a": X, "y": Y})
        succeeds("evaluate", "m.safetensors", "b.csv")  # @2 has a name here
        fits("a.csv", "--drop", "@1")
        has_learnt(X + 1, "a")
        assert "beside the target" in fit("a.csv", "--drop", "a").stderr

    @pytest.mark.parametrize("task", ["auto", "classification", "regression"])
    def test_a_target_twice(self, task):
        rows = "".join(f"{k},{k % 3},{k % 2}\n" for k in range(N))
        Path("a.csv").write_text(f"a,y,y\n{rows}")
        refused(fit("a.csv", "--task", task), "'y' as columns 2 and 3", "--drop @3")
        fits("a.csv", "--task", task, "--drop", "@3")
        succeeds("evaluate", "m.safetensors", "a.csv")

    def test_in_parquet(self):
        import pyarrow.parquet as pq

        pq.write_table(pa.table([X, X + 1, Y], names=["a", "a", "y"]), "a.parquet")
        refused(fit("a.parquet"), "'a' as columns 1 and 2")
        fits("a.parquet", "--drop", "@2")
        has_learnt(X, "a")

    def test_commas_spaces_and_quotation_marks(self):
        names = ["a,b", 'a"b', "two words", " y "]
        columns = {f'"{name.replace(chr(34), chr(34) * 2)}"': X + k for k, name in enumerate(names)}
        write("a.csv", columns)
        fits("a.csv")
        assert bp.Table.load("m.safetensors").columns == names[:3]
        fits("a.csv", "--drop", '"a,b",two words')
        assert bp.Table.load("m.safetensors").columns == ['a"b']
        succeeds("evaluate", "m.safetensors", "a.csv")

    def test_lines_that_end_in_a_delimiter(self):
        rows = "".join(f"{x},{y},\n" for x, y in zip(X, Y, strict=True))
        Path("a.csv").write_text(f"x,y,\n{rows}")
        assert "'@3' (neither a name nor values)" in fits("a.csv").stderr
        has_learnt(X)
        succeeds("evaluate", "m.safetensors", "a.csv")

    def test_none(self):
        write("a.csv", {"x": X, "": X + 1, "y": Y})
        assert "Column 2 has no name: it is called @2." in fits("a.csv").stderr
        has_learnt(X + 1, "@2")
        succeeds("evaluate", "m.safetensors", "a.csv")
        for drop in ("@2", '""'):
            fits("a.csv", "--drop", drop)
            assert bp.Table.load("m.safetensors").columns == ["x"]

    def test_of_codes(self):
        write("a.csv", {"": [f"0{k % 4}" for k in range(N)], "y": Y})
        fits("a.csv", "--categories", "@1")
        assert bp.Table.load("m.safetensors").categories == {"@1": ["00", "01", "02", "03"]}
        Path("b.csv").write_text("\n".join(f"0{k % 4},{k}" for k in range(N)))
        fits("b.csv", "--no-header", "--categories", "x0", target="x1")
        assert bp.Table.load("m.safetensors").categories == {"x0": ["00", "01", "02", "03"]}


class TestHoles:
    def test_a_word_can_be_kept(self):
        write("a.csv", {"country": ["NA", "DE", "NA"] * 20, "y": Y})
        assert "no missing values in column 'country'" in fit("a.csv").stderr
        for na in ("", "?", "-"):
            fits("a.csv", "--na", na)
            assert bp.Table.load("m.safetensors").categories == {"country": ["DE", "NA"]}
        assert succeeds("predict", "m.safetensors", "a.csv").stdout.count("\n") == N + 1

    def test_spaces_around_them(self):
        write("a.csv", {"x": [" NA ", " ", *map(str, X[2:])], "y": Y})
        fits("a.csv", "--missing", "impute")
        has_learnt(X[2:])

    def test_an_empty_line_of_the_only_column(self):
        write("a.csv", {"x": X, "y": Y})
        fits("a.csv", "--missing", "impute")
        Path("b.csv").write_text("x\n1\n\n3\n\n\n")
        assert len(succeeds("predict", "m.safetensors", "b.csv").stdout.splitlines()) == 4

    def test_answers_that_are_to_be_found(self):
        """A file to predict has no answers, or something in their place."""
        write("a.csv", {"x": X, "y": Y})
        fits("a.csv")
        for cell in ("", "?", "to do"):
            write("b.csv", {"x": X, "y": [cell] * N})
            assert len(succeeds("predict", "m.safetensors", "b.csv").stdout.splitlines()) == N + 1
            assert run("evaluate", "m.safetensors", "b.csv").exit_code == 1


class TestChoicesLiveInTheModel:
    """Everything that shaped the input, once: no later command needs an option again."""

    def files(self):
        cells = {
            "größe": ["?", *map(german, X[1:])],
            "tag": [f"{day:%d.%m.%Y}" for day in DAYS],
            "nr": [f"0{k % 7}" for k in range(N)],
            "notiz": [f"text {k}" for k in range(N)],
            "": ["a"] * N,
            "preis": map(german, Y),
        }
        write("a.csv", cells, ";", "cp1252")
        format = ["--decimal", ",", "--thousands", ".", "--encoding", "cp1252", "--na", "?"]
        of_columns = ["--dates", "tag", "--categories", "nr", "--drop", "notiz,@5", "--missing", "impute"]
        return ["--delimiter", ";", *format, *of_columns]

    def test_in_every_command(self):
        options = self.files()
        fits("a.csv", *options, "--checkpoint", "c.safetensors", target="preis")
        reading = bp.Table.load("m.safetensors").notes["reading"]
        assert reading == {
            "delimiter": ";",
            "decimal": ",",
            "thousands": ".",
            "encoding": "cp1252",
            "na": ["?"],
            "dates": {"tag": "%d.%m.%Y"},
            "categories": ["nr"],
            "drop": ["notiz", "@5"],
        }
        assert len(succeeds("predict", "m.safetensors", "a.csv").stdout.splitlines()) == N + 1
        succeeds("evaluate", "m.safetensors", "a.csv")
        succeeds("explain", "m.safetensors", "a.csv")
        succeeds("plot", "m.safetensors", "a.csv", "--kind", "loss", "-o", "p.png")
        succeeds("resume", "c.safetensors", "a.csv", "-o", "r.safetensors", "--epochs", "1")
        assert bp.Table.load("r.safetensors").notes == bp.Table.load("m.safetensors").notes
        shown = succeeds("look", "m.safetensors").stdout
        assert "dates" in shown

    def test_a_file_without_what_was_dropped(self):
        fits("a.csv", *self.files(), target="preis")
        expected = succeeds("evaluate", "m.safetensors", "a.csv").stdout
        text = Path("a.csv").read_bytes().decode("cp1252")
        kept = [";".join([*line.split(";")[:3], line.split(";")[5]]) for line in text.splitlines()]
        Path("b.csv").write_text("\n".join(kept), encoding="cp1252")
        assert succeeds("evaluate", "m.safetensors", "b.csv").stdout == expected
        assert "expected columns ['garten']" in run("evaluate", "m.safetensors", "b.csv", "--drop", "garten").stderr

    def test_more_to_drop_later(self):
        write("a.csv", {"x": X, "id": range(N), "y": Y})
        fits("a.csv", "--drop", "id")
        write("b.csv", {"x": X, "id": range(N), "note": ["a"] * N, "y": Y})
        refused_for = run("evaluate", "m.safetensors", "b.csv").stderr
        assert "also ['note']" in refused_for
        succeeds("evaluate", "m.safetensors", "b.csv", "--drop", "note")

    @pytest.mark.parametrize(
        "notes",
        [
            {"reading": 3},
            {"reading": {"colour": "red"}},
            {"reading": {"drop": "x"}},
            {"reading": {"drop": [1]}},
            {"reading": {"dates": {"x": 1}}},
            {"reading": {"decimal": 1}},
            {"reading": {"no_header": "yes"}},
            {"reading": {"encoding": "klingon"}},
            {"reading": {"decimal": "abc"}},
            {"reading": {"delimiter": "ab"}},
            {"columns": 3},
            {"columns": [3]},
            {"columns": [{"column": "x"}]},
        ],
        ids=str,
    )
    def test_notes_that_are_no_choices(self, notes):
        write("a.csv", {"x": X, "y": Y})
        made = bp.Table("y")
        made.fit(pd.DataFrame({"x": X, "y": Y}))
        made.notes = notes
        bp.Sequential(bp.Linear(1, 1), seed=0).save("other.safetensors", table=made)
        command = ["look", "other.safetensors"] if "columns" in notes else ["predict", "other.safetensors", "a.csv"]
        refused(run(*command), "notes of" if "klingon" not in str(notes) else "klingon")


def test_notes_of_a_table_travel():
    made = bp.Table("y")
    made.fit(pd.DataFrame({"x": [1, 2], "y": [3.0, 4.0]}))
    assert "notes" not in made.state()
    made.notes["story"] = {"when": [2026]}
    saved = made.state()
    saved["notes"]["story"]["when"].append(1)
    again = bp.Table.from_state(made.state())
    assert again.notes == {"story": {"when": [2026]}}
    assert_refused(lambda: bp.Table.from_state(made.state() | {"notes": 3}), ValueError, "Table.from_state")
