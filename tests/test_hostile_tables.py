"""CSV files that are not what they should be, through every command: the right model, or one clear line and nothing lost.

BACKPROP_TABLES=1 tries all of them with every command; else a part that has some of each group, another for each
BACKPROP_SEED.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import run, succeeds

import backprop as bp

ALL = bool(os.environ.get("BACKPROP_TABLES"))
SEED = int(os.environ.get("BACKPROP_SEED", "0"))
PER_GROUP = 4
N = 24
NUMBERS = [f"{value:.2f}" for value in np.random.default_rng(0).normal(size=N)]
WORDS = ["p", "q", "r"] * (N // 3)
ANSWERS = [f"{k % 7 + k / 100:.2f}" for k in range(N)]
GOOD = [["a", "b", "y"], *(list(row) for row in zip(NUMBERS, WORDS, ANSWERS, strict=True))]


def text(rows=GOOD, delimiter=",", end="\n"):
    return "".join(delimiter.join(row) + end for row in rows)


def changed(row, column, cell):
    """The good table with another cell; row 0 is that of the names."""
    rows = [list(each) for each in GOOD]
    rows[row][column] = cell
    return text(rows)


def column(cells, name="a"):
    """The good table with other cells in its first column, or in the target."""
    j = {"a": 0, "y": 2}[name]
    return text([GOOD[0], *([*row[:j], cell, *row[j + 1 :]] for row, cell in zip(GOOD[1:], cells, strict=True))])


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


def parquet():
    file = io.BytesIO()
    pd.DataFrame({"a": [1], "y": [2]}).to_parquet(file)
    return file.getvalue()


AB = ("a", "b")
LINES = {  # the bytes, and the columns that are learnt, or what is said of them
    "nothing": ("", "nothing"),
    "a mark alone": ("\ufeff", "nothing"),
    "two marks": ("\ufeff\ufeff" + text(), AB),
    "an empty line": ("\n", "nothing"),
    "spaces": ("   ", "nothing"),
    "names alone": ("a,b,y\n", "rows"),
    "names and empty lines": ("a,b,y\n\n\n", "rows"),
    "one row": (text(GOOD[:2]), "fits"),
    "two rows": (text(GOOD[:3]), "fits"),
    "a row too short": (changed(5, 1, "p\n3"), "CSV parse error"),
    "a row too long": (changed(5, 1, "p,p"), "CSV parse error"),
    "a last row cut off": (text()[:-8], "CSV parse error"),
    "a first row that is long": (changed(1, 0, "1,2"), "CSV parse error"),
    "names one short": (text().replace("a,b,y", "b,y"), "col.names = NA"),
    "no line end at the end": (text()[:-1], AB),
    "ends of Windows": (text(end="\r\n"), AB),
    "ends of old Macs": (text(end="\r"), AB),
    "ends of both kinds": (text(GOOD[:9]) + text(GOOD[9:], end="\r\n"), AB),
    "empty lines between": (text(end="\n\n"), AB),
    "empty lines before": ("\n\r\n" + text(), AB),
    "a delimiter behind every row": (text(end=",\n"), AB),
    "a delimiter behind the names only": (text().replace("a,b,y", "a,b,y,"), "CSV parse error"),
    "a delimiter before every row": ("".join(f",{line}\n" for line in text().splitlines()), AB),
    "a quotation mark in front": (changed(5, 0, '"1'), "CSV parse error"),
    "a quotation mark that takes the rest": (changed(N, 2, '"1\n2\n3'), "quotation marks in pairs"),
    "a quotation mark in a word": (changed(5, 1, 'p"'), AB),
    "a quotation mark at the last word": (changed(N, 1, '"p'), "CSV parse error"),
    "a quotation mark in the names": (text().replace("a,b", 'a,"b', 1), "a"),
    "quotation marks everywhere": (text([[f'"{cell}"' for cell in row] for row in GOOD]), AB),
    "single quotation marks": (
        text([[f"'{cell}'" for cell in row] for row in GOOD]),
        "--target: expected one of the columns",
    ),
    "a line end in a word": (changed(5, 1, '"p\nq"'), AB),
    "a line end in a name": (text().replace("a,b,y", 'a,"b\nb",y'), ("a", "b\nb")),
    "a note before": ("Exported on Monday\n" + text(), "CSV parse error"),
    "comments": ("# one\n" + text(), "CSV parse error"),
    "a line of units": (text([GOOD[0], ["m", "", "EUR"], *GOOD[1:]]), "'m' at row 0"),
    "the names again": (text([*GOOD, GOOD[0]]), "names that is there again"),
    "a line of sums": (text([*GOOD, ["Total", "", "9.5"]]), "sums up"),
    "a line of stars": (text([*GOOD, ["***", "***", "***"]]), "'***' at row 24"),
    "dashes below the names": (text([GOOD[0], ["---", "---", "---"], *GOOD[1:]]), "'---' at row 0"),
    "Excel's first line": ("sep=;\n" + text(delimiter=";"), AB),
    "no names": (text(GOOD[1:]), "--target: expected one of the columns"),
    "a table of numbers": ("1,2\n3,4\n", "--no-header"),
    "many columns": (text([[f"c{j}" for j in range(300)] + ["y"], *(["1.5"] * 300 + [y] for y in ANSWERS)]), "fits"),
    "JSON": ('{"a": [1, 2], "y": [3, 4]}', "refused"),
    "JSON lines": ("".join(f'{{"a": {k}, "y": {k}}}\n' for k in range(9)), "refused"),
    "HTML": ("<html><table><tr><td>a</td></tr></table></html>", "refused"),
    "markdown": ("| a | y |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n", "refused"),
    "a log": ("2024-01-01 INFO start\n2024-01-02 INFO stop\n", "refused"),
    "fixed widths": (
        "a    b    y\n" + "".join(f"{a:5}{b:5}{y}\n" for a, b, y in GOOD[1:]),
        "--target: expected one of the columns",
    ),
}
BYTES = {
    "a spreadsheet": (zipped(), "Save the sheet as CSV"),
    "an old spreadsheet": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "Save the sheet as CSV"),
    "compressed": (gzip.compress(text().encode()), ".csv.gz"),
    "Parquet": (parquet(), ".parquet"),
    "pickle": (pickle.dumps({"a": [1, 2]}), "expected text"),
    "an array": (
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n" + bytes(24),
        "text",
    ),
    "PNG": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01" + bytes(40), "text"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a document"),
    "zeros": (bytes(4000), "text"),
    "noise": (random.Random(0).randbytes(4000), "text"),
    "noise behind names": (b"a,b,y\n" + random.Random(0).randbytes(4000), "text"),
    "a zero in a number": (changed(5, 0, "1\0"), r"'1\x00' at row 4"),
    "a zero in a word": (changed(5, 1, "p\0"), r"'p\x00' at row 4"),
    "a zero in a name": (text().replace("a,b", "a\0,b"), "fits"),
    "UTF-16": (text().encode("utf-16"), AB),
    "UTF-16 without a mark": (text().encode("utf-16-le"), "--encoding utf-16-le"),
    "UTF-16 cut in a character": (text().encode("utf-16")[:-1], "utf-16"),
    "UTF-32": (text().encode("utf-32"), AB),
    "a byte of another encoding": (changed(5, 1, "ö").encode("cp1252"), "'ö': --encoding cp1252"),
    "a byte of another encoding in a name": (text().replace("b", "ö", 1).encode("cp1252"), "names of the columns"),
    "a character cut at the end": (text().encode()[:-1] + "ö".encode()[:1], "0xC3 at row 23"),
    "UTF-7 that nobody writes": (b"+AGE-,b,y\n1,p,2\n3,q,4\n", "fits"),
    "escapes in a word": (changed(5, 1, "\x1b[31mp\x1b]0;x\x07"), AB),
    "escapes in a number": (changed(5, 0, "\x1b[31m1"), r"'\x1b[31m1' at row 4"),
    "escapes in a name": (text().replace("a", "\x1b[2Ja", 1), "fits"),
    "escapes in a long row": (changed(5, 0, "\x1b[31m1,2"), "CSV parse error"),
    "text that runs backwards": (text().replace("a", "\u202ea", 1), "fits"),
    "a long cell among numbers": (changed(5, 0, "x" * 3_000_000), "'xxxx"),
    "a long number": (changed(5, 0, "1" * 300), "fits"),
    "a long cell among words": (changed(5, 1, "x" * 3_000_000), "a text of 3,000,000 characters at row 4"),
    "a long name": (text().replace("a", "x" * 3_000_000, 1), "very long"),
    "a long line without delimiter": ("x" * 3_000_000, "very long"),
}
CELLS = {  # in a column of numbers, and as the target
    **dict.fromkeys(["?", "-", "--", ".", "None", "n.a.", "k.A.", "#N/V", "#REF!", "#DIV/0!", "missing", "Total", "_"]),
    **dict.fromkeys(
        ["5%", "$5", "€ 5", "5 kg", "1 200", "1'257", "1_000", "\u22125", "<0.5", "~5", "(5)", "5-", "1.2.3"]
    ),
    **dict.fromkeys(
        [
            "--5",
            "5e",
            "1d5",
            "=A1+B1",
            "1/2",
            "½",
            "٣",
            "５",
            "0b11",
            "true",
            "5 000,5",
            "2024-01-01",
            "10:30",
            "\u200b5",
        ]
    ),
}
ODD = {
    f"{cell!r} in {name!r}": (changed(7, j, f'"{cell}"'), f"{cell!r} at row 6")
    for cell in CELLS
    for name, j in (("a", 0), ("y", 2))
}
VALUES = {
    "inf": (changed(5, 0, "inf"), "inf at row 4"),
    "inf in the target": (changed(5, 2, "-inf"), "-inf at row 4"),
    "a number that overflows": (changed(5, 0, "1e400"), "inf at row 4"),
    "a number that underflows": (changed(5, 0, "1e-400"), AB),
    "a number too large for float32": (changed(5, 2, "1e300"), "fits"),
    "a huge whole number": (changed(5, 0, "9" * 40), "fits"),
    "hexadecimal": (changed(5, 0, "0x1F"), "'0x1F' at row 4"),
    "a hole": (changed(5, 0, ""), "a missing value at row 4"),
    "a hole in the target": (changed(5, 2, "NA"), "a missing value at row 4"),
    "a hole among words": (changed(5, 1, "null"), "a missing value at row 4"),
    "holes only": (column([""] * N), "nothing but missing values"),
    "holes only in the target": (column(["NA"] * N, "y"), "missing"),
    "spaces for holes": (changed(5, 0, "  "), "a missing value at row 4"),
    "a column of one number": (column(["7"] * N), AB),
    "a target of one number": (column(["7"] * N, "y"), "fits"),
    "a target of one word": (column(["w"] * N, "y"), "at least two classes"),
    "a target of words that occur once": (column([f"w{k}" for k in range(N)], "y"), "classes that repeat"),
    "a target of words": (column(["w", "v"] * (N // 2), "y"), AB),
    "a target of true and false": (column(["true", "False"] * (N // 2), "y"), AB),
    "true, false and another": (column(["true", "false", "maybe"] * (N // 3)), "'maybe' at row 2"),
    "true, false and 1": (column(["true", "false", "1"] * (N // 3)), "at row 2"),
    "words and numbers": (column(["u", "5"] * (N // 2)), "'u' at row 0"),
    "words and few numbers": (column(["u", "v", "w", "5"] * (N // 4)), AB),
    "holes that most cells are": (column(["?"] * 15 + NUMBERS[15:]), "'?' at row 0"),
    "percent": (column([f"{k}%" for k in range(N)]), "'0%' at row 0"),
    "money": (column([f"{k} EUR" for k in range(N)]), "'0 EUR' at row 0"),
    "units": (column([f"{k} kg" for k in range(N)]), "'0 kg' at row 0"),
    "quoted decimal commas": (column([f'"{k},5"' for k in range(N)]), "--decimal ,"),
    "quoted thousands": (column([f'"{k},500"' for k in range(N)]), "--thousands ,"),
    "decimal commas as delimiters": (column([f"{k},5" for k in range(N)]), "CSV parse error"),
    "times": (column([f"{k}:30" for k in range(N)]), "--dates a"),
    "dates": (column([f"2024-01-{k + 1:02}" for k in range(N)]), "--dates a"),
    "German dates": (column([f"{k + 1}.1.2024" for k in range(N)]), "--dates a"),
    "American dates": (column([f"1/{k + 1}/24" for k in range(N)]), "--dates a"),
    "dates and times": (column([f"2024-01-01T{k:02}:00:00Z" for k in range(N)]), "--dates a"),
    "dates as the target": (column([f"{k + 1}.1.2024" for k in range(N)], "y"), "--dates y"),
    "dates, some of them wrong": (column([f"{k + 20}.1.2024" for k in range(N)]), "--dates a"),
    "addresses of the net": (column([f"10.0.0.{k}" for k in range(N)]), AB),
    "ages": (column(["25-34", "35-44", "45+"] * (N // 3)), AB),
}
NAMES = {
    "a name twice": (text().replace("a,b", "a,a", 1), "'a' as columns 1 and 2"),
    "the target twice": (text().replace("a,b", "a,y", 1), "'y' as columns 2 and 3"),
    "no name": (text().replace("a,b", ",b", 1), ("@1", "b")),
    "no names at all": (text().replace("a,b,y", ",,", 1), "--target: expected one of the columns"),
    "names with spaces": (text().replace("a,b,y", " a , b , y ", 1), AB),
    "names with commas": (text().replace("a,", '"a,a",', 1), ("a,a", "b")),
    "names with signs": (text().replace("a,", "a=%$#*;,", 1), ("a=%$#*;", "b")),
    "a name like a place": (text().replace("a,", "@2,", 1), ("@2", "b")),
    "a name like another's place": (text().replace("a,b", "@2,", 1), "fits"),
    "the target in capitals": (text().replace("y", "Y", 1), "Close to it"),
    "no target": (text([row[:2] for row in GOOD]), "--target: expected one of the columns"),
    "nothing but the target": (text([row[2:] for row in GOOD]), "beside the target"),
    "names of rows": (text([["", *GOOD[0]], *([f"row {k}", *row] for k, row in enumerate(GOOD[1:]))]), AB),
    "numbers of rows": (text([["", *GOOD[0]], *([str(k), *row] for k, row in enumerate(GOOD[1:]))]), AB),
    "an accent in two ways": (text().replace("a,b", "\u00e9,e\u0301", 1), ("\u00e9", "e\u0301")),
}
MARKS = {
    **{f"separated by {mark!r}": (text(delimiter=mark), AB) for mark in (";", "\t", "|", " ")},
    **{
        f"separated by {mark!r}": (text(delimiter=mark), "--target: expected one of the columns") for mark in (":", "~")
    },
    "separated by comma and space": (text(delimiter=", "), AB),
    "separated by comma and spaces": (text(delimiter=" , "), AB),
    "semicolons, and commas in the words": (
        text([[*row[:1], "p,q"[:3], row[2]] if k else row for k, row in enumerate(GOOD)], ";"),
        AB,
    ),
    "semicolons and decimal commas": (
        text([[cell.replace(".", ",") for cell in row] for row in GOOD], ";"),
        "--decimal ,",
    ),
}
GROUPS = {"lines": LINES, "bytes": BYTES, "odd": ODD, "values": VALUES, "names": NAMES, "marks": MARKS}
FILES = {name: file for group in GROUPS.values() for name, file in group.items()}
CHOSEN = [
    name
    for group in GROUPS.values()
    for name in (group if ALL else random.Random(SEED).sample(sorted(group), min(PER_GROUP, len(group))))
]


def test_there_are_many():
    assert len(FILES) >= 150


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model of the good table, a checkpoint of its training, and the table."""
    folder, before = tmp_path_factory.mktemp("models"), Path.cwd()
    os.chdir(folder)
    try:
        Path("good.csv").write_text(text())
        options = ["--target", "y", "--hidden", "none", "--epochs", 1, "--checkpoint", "run.safetensors"]
        succeeds("fit", "good.csv", *options, "-o", "good.safetensors", "--log", "log.csv")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(models, tmp_path, monkeypatch):
    for path in models.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_clear(result, command):
    """One line, of a length for people, that a terminal does not obey, and nothing on standard output."""
    assert result.exit_code in (1, 2), result.stderr
    lines = result.stderr.splitlines()
    assert lines[-1].startswith((f"backprop {command}: ", "Error: ")), result.stderr
    assert sum(line.startswith(f"backprop {command}: ") for line in lines) <= 1
    assert len(result.stderr) < 3000
    assert not [c for c in result.stderr if unicodedata.category(c)[0] == "C" and c != "\n"]
    assert not re.search(r"Traceback|bp\.|Table\.|Trainer\.|missing='|unknown='|\w+\(\)", result.stderr)
    assert result.stdout == ""
    return lines[-1]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHOSEN)
def test_the_right_model_or_one_clear_line(folder, name):
    data, verdict = FILES[name]
    Path("x.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    Path("m.safetensors").write_bytes(b"of somebody")
    before = contents(folder)
    fit = [
        "fit",
        "x.csv",
        "--target",
        "y",
        "--hidden",
        "none",
        "--epochs",
        1,
        "-o",
        "m.safetensors",
        "--log",
        "log.csv",
    ]
    result = run(*fit)
    if result.exit_code == 0:
        assert verdict == "fits" or isinstance(verdict, tuple), result.stderr
        columns = bp.Table.load("m.safetensors").columns
        assert verdict == "fits" or columns == list(verdict)
        n = len(succeeds("predict", "m.safetensors", "x.csv", "--format", "jsonl").stdout.splitlines())
        assert f"Read {n} rows" in result.stderr
        succeeds("evaluate", "m.safetensors", "x.csv")
        assert (
            len(json.loads(succeeds("look", "x.csv", "--target", "y", "--json").stdout)["columns"]) == len(columns) + 1
        )
    else:
        line = is_clear(result, "fit")
        assert verdict == "refused" or (isinstance(verdict, str) and verdict != "fits" and verdict in line), line
        assert contents(folder) == before
    commands = [["predict", "good.safetensors"], ["evaluate", "good.safetensors"]]
    if ALL:
        commands += [
            ["explain", "good.safetensors"],
            ["resume", "run.safetensors", "-o", "m.safetensors", "--epochs", 1],
        ]
        commands += [["plot", "good.safetensors", "--kind", "loss", "-o", "p.png"]]
    for command in commands:
        after = run(command[0], command[1], "x.csv", *command[2:])
        assert after.exit_code == 0 or is_clear(after, command[0])
    look = run("look", "x.csv", "--target", "y")
    assert (look.exit_code == 0 and look.stdout.startswith("column ")) or is_clear(look, "look")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("name", ["escapes in a number", "a long cell among numbers"])
def test_in_a_terminal(folder, name):
    import pty

    data, verdict = FILES[name]
    Path("x.csv").write_text(data)
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "backprop",
        "fit",
        "x.csv",
        "--target",
        "y",
        "-o",
        "m.safetensors",
        "--hidden",
        "none",
    ]
    process = subprocess.Popen(command, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 4096):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 1
    assert verdict in shown.decode()
    assert b"\x1b" not in shown
    assert len(shown) < 3000
