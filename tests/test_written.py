"""The same table as R, pandas, LibreOffice and others write it: one model, and no option again at later commands.

tests/written/written_by.py says which program wrote which file, with which command, and which are made by hand.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli import run, succeeds

import backprop as bp

FOLDER = Path(__file__).parent / "written"
sys.path.insert(0, str(FOLDER))
import written_by  # noqa: E402

ALL = bool(os.environ.get("BACKPROP_TABLES"))
COMMAS, POINTS, LATIN = ["--decimal", ","], ["--thousands", "."], ["--encoding", "cp1252"]
FILES = {  # what has to be said, beside --missing impute and --dates since; and what a program calls things
    "excel_german.csv": [*COMMAS, *POINTS, *LATIN],
    "excel_unicode_text.txt": [],
    "excel_utf8.csv": [],
    "gnumeric.txt": [],
    "google_sheets.csv": [],
    "julia_csv.csv": ["--na", "missing"],
    "libreoffice.csv": [],
    "libreoffice_windows.csv": LATIN,
    "matlab_writetable.csv": [],
    "mysql_outfile.txt": ["--na", "\\N", "--no-header"],
    "numbers_swiss.csv": ["--thousands", "'"],
    "pandas_archive.zip": [],
    "pandas_categories.parquet": [],
    "pandas_default.csv": [],
    "pandas_excel.csv": COMMAS,
    "pandas_german.csv": COMMAS,
    "pandas_nullable.parquet": [],
    "pandas_quoted.csv.bz2": ["--na", "n.a."],
    "pandas_shuffled.parquet": [],
    "pandas_utf16.csv": [],
    "pandas_without_index.csv": [],
    "polars.parquet": [],
    "polars_default.csv": [],
    "polars_semicolons.csv": [*COMMAS, "--na", "-"],
    "polars_times.csv": [],
    "postgresql_copy.csv": [],
    "pyarrow.csv": [],
    "python_csv.csv": LATIN,
    "r_german_dates.csv.gz": COMMAS,
    "r_write_csv.csv": [],
    "r_write_csv2.csv": COMMAS,
    "r_write_csv2_latin1.csv": [*COMMAS, *LATIN],
    "r_write_csv_without_names.csv": [],
    "r_write_table.txt": [],
    "r_write_table_tabs.tsv": [],
    "sas_proc_export.csv": ["--na", ".", "--encoding", "latin-1"],
    "spss_pspp_convert.csv": [],
    "spss_save_translate.csv": [],
    "spss_semicolons.csv": COMMAS,
    "spss_tabs.tsv": [],
    "sqlite.csv": [],
    "stata_export_delimited.csv": [],
    "stata_outsheet.txt": ["--encoding", "latin-1"],
}
SOME = [name for k, name in enumerate(FILES) if ALL or k % 3 == 0 or name == "r_write_table.txt"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_file_is_tried():
    listed = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert listed == {*FILES, "numpy_savetxt.txt", "written_by.py"}
    assert set(written_by.MADE_BY_HAND) < set(FILES)


@pytest.mark.parametrize("name", SOME)
def test_is_the_same_table(name):
    path, options = FOLDER / name, FILES[name]
    names = [f"x{j}" for j in range(6)] if "--no-header" in options else written_by.NAMES
    given = ["--missing", "impute", "--dates", names[4], *options]
    fit = ["fit", path, "--target", names[5], "--hidden", "none", "--epochs", 1, "-o", "m.safetensors"]
    needed = [option for option in options if option in ("--decimal", "--thousands", "--encoding", "--na")]
    if needed:  # and without them it is refused, and one of them is named
        result = run(
            *fit, "--missing", "impute", "--dates", names[4], *(["--no-header"] if "--no-header" in options else [])
        )
        assert result.exit_code == 1
        assert any(option in result.stderr.splitlines()[-1] for option in needed), result.stderr
    told = succeeds(*fit, *given).stderr
    assert "Read 20 rows" in told
    table = bp.Table.load("m.safetensors")
    assert sorted(table.columns) == sorted(names[:5])
    learnt = {column["name"]: column for column in table.state()["columns"]}
    days = [(day - written_by.datetime.date(1970, 1, 1)).days for day in written_by.SINCE]
    for column, values in zip(names[1:5], (written_by.SIZES, written_by.ROOMS, None, days), strict=True):
        there = [value for value in values or () if value is not None]
        if there:
            np.testing.assert_allclose(learnt[column]["mean"], np.mean(there), rtol=1e-12)
    assert table.categories[names[0]] == ["Bonn", "Köln", "Ulm"]
    answers = table.state()["answers"]
    np.testing.assert_allclose(
        (answers["mean"], answers["sigma"]), (np.mean(written_by.RENTS), np.std(written_by.RENTS)), rtol=1e-12
    )
    assert succeeds("predict", "m.safetensors", path).stdout.count("\n") == 21
    assert json.loads(succeeds("evaluate", "m.safetensors", path, "--json").stdout)["rows"] == 20
    assert len(json.loads(succeeds("look", path, *given[2:], "--json").stdout)["columns"]) == 6
    if ALL:
        succeeds("explain", "m.safetensors", path)
        succeeds("plot", "m.safetensors", path, "--kind", "loss", "-o", "p.png")


def test_numbers_alone():
    """As numpy.savetxt writes them; a hole is nan."""
    fit = [
        "fit",
        FOLDER / "numpy_savetxt.txt",
        "--target",
        "rent",
        "--missing",
        "impute",
        "--epochs",
        1,
        "-o",
        "m.safetensors",
    ]
    assert "Read 20 rows" in succeeds(*fit).stderr
    sizes = [size for size in written_by.SIZES if size is not None]
    np.testing.assert_allclose(bp.Table.load("m.safetensors").state()["columns"][0]["mean"], np.mean(sizes), rtol=1e-15)
