"""The bits of one process on ranks that are processes, by MPI. BACKPROP_TEAM=1 tries every case, else a part is chosen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import ranks

import backprop as bp

pytest.importorskip("mpi4py")

WHOLE = bool(os.environ.get("BACKPROP_TEAM"))
TABLE = list(product(ranks.KINDS, ("arrays", "folder"), (1, 2), (0, 1)))
MPIEXEC = [str(Path(sys.executable).with_name("mpiexec")), "-n"]


def job(p, *arguments, **options):
    """A started job of p ranks."""
    command = [*MPIEXEC, str(p), sys.executable, *map(str, arguments)]
    environ = {**os.environ, "BACKPROP_TIMEOUT": "60"}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def cases_for(p):
    """Of each kind one case by chance, for more ranks fewer."""
    if WHOLE:
        return TABLE
    chosen = random.Random(p)
    kinds = chosen.sample(ranks.KINDS, {2: 6, 3: 4, 8: 2}[p])
    return [chosen.choice([case for case in TABLE if case[0] == kind]) for kind in kinds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    ranks.write(folder)
    return folder


@pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8] if WHOLE else [2, 3, 8])
def test_one_hash(p, folder):
    cases = cases_for(p)
    out, err = job(p, ranks.__file__, folder, *(",".join(map(str, case)) for case in cases)).communicate(timeout=500)
    found = [line.rsplit(" ", 1) for line in out.splitlines()]
    assert [case for case, _ in found] == [",".join(map(str, case)) for case in cases], err[-2000:]
    for case, sha in found:
        kind, where, *_ = case.split(",")
        assert sha == ranks.train(folder, f"{kind},{where},1,0", bp.distributed.team()), case


PROGRAM = """
import os, pathlib, sys, numpy as np, backprop as bp
sys.path.insert(0, sys.argv[2])
import ranks
team, folder = bp.distributed.team(), pathlib.Path(sys.argv[1])
X, y, _ = ranks.data()
trainer = ranks.trainer_of("SGD", team, native=True)
class Started(bp.Callback):
    def epoch(self, trainer, record):
        (folder / f"pid.{team.rank}").write_text(str(os.getpid()))
try:
    saving = bp.Checkpoints(folder / "run.safetensors", every_epochs=10**6)
    trainer.fit(X, y, epochs=10**6, verbose=0, callbacks=[saving, Started()])
finally:
    (folder / f"end.{team.rank}").write_text(f"{trainer.optimizer.t} {ranks.sha(trainer)}")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_rank_stops_all_after_the_same_step_with_a_checkpoint(number, tmp_path):
    running = job(3, "-W", "ignore", "-c", PROGRAM, tmp_path, Path(ranks.__file__).parent)
    until = time.monotonic() + 60
    while not all((tmp_path / f"pid.{rank}").exists() for rank in range(3)):
        assert time.monotonic() < until, running.kill()
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid.1").read_text()), number)
    running.communicate(timeout=60)
    assert running.returncode != 0
    ends = {(tmp_path / f"end.{rank}").read_text() for rank in range(3)}
    assert len(ends) == 1
    saved = bp.Trainer.resume(tmp_path / "run.safetensors")
    assert f"{saved.optimizer.t} {ranks.sha(saved)}" == ends.pop()
