"""Each benchmark runs small, as a user would start it, so that none of them can rot. Its numbers are not looked at."""

from __future__ import annotations

import csv
import math
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from backprop.engine import native

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
WITHOUT_PICTURE = {"generated", "ranks", "reproducible"}
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")

# benchmark, extra arguments, lines in its CSV, columns of text, columns of positive numbers, columns that may be NaN
CASES = [
    (
        "estimators",
        [],
        3 * 7 * 2,  # data sets × solvers × libraries
        {"data", "solver", "library"},
        {"batch_size", "seconds"},
        {"seed", "score"},
    ),
    (
        "peers",
        ["--contenders", "backprop,numpy,floor", "--threads", "1"],
        range(24, 49, 3),  # 2 batch sizes × 2 optimizers × 3 contenders × 2 to 4 rounds
        {"net", "optimizer", "contender"},
        {"batch", "threads", "steps", "seconds_per_step"},
        {"repetition", "others"},
    ),
    (
        "memory",
        [],
        2 * 2 + 2,
        {"study", "variant"},
        {"batch_size", "arrays_mib", "resident_mib", "milliseconds_per_step", "memory_ratio", "time_ratio"},
        {"activations_mib"},
    ),
    (
        "latency",
        ["--libraries", "numpy"],
        (3 + 2 + 3 + 1) * 2,
        {"what", "library"},
        {"seconds"},
        {"repetition"},
    ),
    (
        "batch_size",
        [],
        2,
        set(),
        {"batch_size", "steps_per_epoch", "seconds_per_epoch", "examples_per_second", "epochs"}
        | {"loss_equal_epochs", "seconds", "epochs_in_time", "loss_equal_time"},
        set(),
    ),
    (
        "second_order",
        [],
        6 * 41,
        {"method", "setting"},
        {"seconds"},
        {"loss"},
    ),
    (
        "exports",
        ["--contenders", "NumPy file,onnxruntime,C -O2"],
        range(8, 17, 4),  # 2 batch sizes × 2 rounds × predict and those that are installed
        {"net", "contender"},
        {"batch", "seconds"},
        {"repetition"},
    ),
    ("curvature", [], 2 * 5 * 2, {"net", "activation", "what"}, {"batch", "seconds"}, {"repetition"}),
    ("per_example", [], 2 * 5 * 2, {"net", "what"}, {"batch", "seconds"}, {"repetition"}),
    (
        "tables",
        ["--tables", "concrete", "--models", "backprop,linear,hgb"],
        3,
        {"table", "model"},
        {"rows", "columns", "split", "seconds"},
        {"score"},
    ),
    pytest.param(
        "generated",
        [],
        2 * 2,  # repetitions × players
        {"net", "optimizer", "who"},
        {"batch", "operations", "compiled_in", "seconds"},
        {"repetition"},
        marks=pytest.mark.skipif(native.player is None or not shutil.which("cc"), reason="no player or no compiler"),
    ),
    pytest.param(
        "ranks",
        [],
        2 * 2,  # repetitions × numbers of ranks
        {"net"},
        {"ranks", "batch", "seconds", "scaling"},
        {"repetition"},
        marks=pytest.mark.skipif(find_spec("mpi4py") is None, reason="the extra mpi"),
    ),
    ("reproducible", [], 3 + 2, {"group", "threads", "sha256"}, {"run", "hashes"}, set()),
]


def run(name, *arguments):
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=100)


@pytest.mark.parametrize(
    ("name", "arguments", "lines", "text", "positive", "other"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_runs_small(name, arguments, lines, text, positive, other, tmp_path):
    done = run(name, "--quick", "--out", tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Processor: " in done.stdout
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) in lines if isinstance(lines, range) else len(rows) == lines
    assert set(rows[0]) == text | positive | other
    for row in rows:
        assert all(row[column] for column in text)
        for column in positive:
            assert math.isfinite(float(row[column])), (column, row)
            assert float(row[column]) > 0, (column, row)
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8").startswith("# ")
    picture = tmp_path / f"{name}.png"
    assert picture.exists() == (name not in WITHOUT_PICTURE)
    assert name in WITHOUT_PICTURE or picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--contenders", "backprop,tensorflow"], "unknown contender 'tensorflow'"),
        (["--optimizers", "LBFGS"], "unknown optimizer 'LBFGS'"),
        (["--threads", "4096"], "no more threads than CPUs"),
    ],
)
def test_peers_refuses_what_it_cannot_run(arguments, says, tmp_path):
    done = run("peers", "--out", tmp_path, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(tmp_path.iterdir())
