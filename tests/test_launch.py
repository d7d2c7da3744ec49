"""The guard and the launcher, with a few jobs of one and two ranks. tests/test_deaths.py has all ways to die."""

import os
import re
import subprocess
import sys

import pytest
from launching import DOOMED, fingerprint, launch, needs_mpi, never_stopped

from backprop.distributed import guard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the launcher needs fcntl")


class TestOneRank:
    """Without MPI."""

    def test_goes_on_after_a_kill_to_the_same_bits(self, tmp_path):
        code, out, err = launch(tmp_path, DOOMED, "kill", 0, 10, n=1)
        assert (code, fingerprint(out)) == (0, never_stopped())
        assert re.search(
            r"attempt 1 has failed: status -9, and rank 0 of 1 \(process \d+ on \S+\) has died without a word", err
        )
        assert "started again, with 1 rank\n" in err
        assert len((tmp_path / ".backprop-run" / "saved").read_text().splitlines()) >= 5

    def test_is_not_started_again_for_nothing(self, tmp_path):
        (tmp_path / "broken.py").write_text("import sys\nprint(sys.argv[1:])\nraise ValueError('bad luck')\n")
        code, out, err = launch(tmp_path, "broken.py", "--lines", "two words", n=1)
        assert (code, out) == (1, "['--lines', 'two words']\n" * 2)
        assert err.count('File "broken.py", line 3') == 2
        assert "runpy" not in err
        assert "not started again: two attempts, one after the other, have saved no new checkpoint" in err


@pytest.mark.parametrize("words", ["b'Gr\\xf6'.decode('utf-8', 'surrogateescape')", "''"])
def test_a_failure_is_one_whatever_its_words_are(tmp_path, words):
    (tmp_path / "program.py").write_text(f"raise ValueError({words})")
    command = [sys.executable, "-m", "backprop", "launch", "-n", "1", "--max-restarts", "0", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "attempt 1 has failed: rank 0 of 1 failed: ValueError" in done.stderr


SILENT = """
import contextlib, backprop as bp
bp.distributed.team()
with contextlib.redirect_stdout(None):
    raise ValueError("nobody hears it")
"""
STOPPED = """
import os, signal, numpy as np, backprop as bp
class Stop(bp.Callback):
    def step(self, trainer):
        if trainer.optimizer.t == 3:
            os.kill(os.getpid(), signal.SIGTERM)
net = bp.Sequential(bp.Linear(1, 1), seed=0)
trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=4, team=bp.distributed.team())
trainer.fit(np.ones((8, 1)), np.ones(8), epochs=10**6, verbose=0, callbacks=[Stop()])
print(trainer.optimizer.t)
"""


@pytest.mark.parametrize("before", ["", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"])
def test_one_rank_that_its_scheduler_stops_has_not_come_to_its_end(tmp_path, before):
    """Also where a shell has it ignore Ctrl-C, as all that it starts by &."""
    (tmp_path / "program.py").write_text(STOPPED)
    start = f"{before}\nimport sys, runpy; sys.argv[1:] = ['program.py']"
    start += "\nrunpy.run_module('backprop.distributed.rank', None, '__main__')"
    done = subprocess.run([sys.executable, "-c", start], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "3\n")
    assert not (tmp_path / ".backprop-run" / "done").exists()


def test_a_failure_without_outputs_is_one(tmp_path):
    (tmp_path / "program.py").write_text(SILENT)
    command = [sys.executable, "-m", "backprop.distributed.rank", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "rank 0 of 1 failed: ValueError: nobody hears it" in done.stderr
    assert (tmp_path / ".backprop-run" / "failed").read_text() == "rank 0 of 1 failed: ValueError: nobody hears it"


class TestWorld:
    """What a process knows of the others."""

    def run(self, program, **environ):
        clean = {name: value for name, value in os.environ.items() if name not in ("PMI_SIZE", "PMI_RANK", "PMI_FD")}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=clean | environ, capture_output=True, text=True, timeout=60)

    def test_alone_nothing_of_mpi_is_imported(self):
        program = "import sys, backprop as bp; t = bp.distributed.team(); print(t.size, 'mpi4py' in sys.modules)"
        assert self.run(program).stdout == "1 False\n"

    def test_without_mpi4py_it_says_what_to_install(self):
        program = "import sys; sys.modules['mpi4py'] = None; import backprop as bp; bp.distributed.team()"
        run = self.run(program, BACKPROP_RANKS="2")
        assert 'pip install "backprop-mlp[mpi]"' in run.stderr.splitlines()[-1]

    def test_without_mpi4py_no_rank_is_started(self, tmp_path):
        (tmp_path / "program.py").write_text("")
        arguments = ["launch", "--run", str(tmp_path / "run"), "-n", "2", str(tmp_path / "program.py")]
        start = (
            f"import sys; sys.modules['mpi4py'] = None; from backprop.__main__ import main; sys.exit(main({arguments}))"
        )
        run = self.run(start)
        assert run.returncode == 1
        (line,) = run.stderr.splitlines()
        assert line.startswith("backprop launch: several ranks: expected mpi4py")
        assert 'pip install "backprop-mlp[mpi]"' in line

    def test_ranks_that_mpi_does_not_know_are_refused(self):
        needs_mpi()
        run = self.run("import backprop as bp; bp.distributed.team()", BACKPROP_RANKS="2")
        assert "expected the 2 ranks that were started, got 1 of MPI" in run.stderr.splitlines()[-1]


class TestWhere:
    def test_words(self, tmp_path):
        def told(rank, age=0.0, **place):
            place = {"exchange": 4, "waits": False, "ended": False, "process": 7, "host": "a"} | place
            path = tmp_path / f"alive.{rank}"
            path.write_text(guard.json.dumps(place).ljust(guard.WIDTH))
            os.utime(path, (1e9 - age, 1e9 - age))

        told(0, waits=True, exchange=5)
        told(1, waits=True, exchange=5)
        told(2)
        told(3, age=60)
        told(4, ended=True)
        (tmp_path / "alive.5").write_text("half a li")
        assert guard.where(tmp_path, 6) == (
            "rank 2 (process 7 on a) at work after exchange 4; rank 3 (process 7 on a) silent for 60 s, after 4 exchanges; "
            "rank 4 (process 7 on a) at the end of the program; rank 5 not begun; "
            "ranks 0 (process 7 on a), 1 (process 7 on a) waiting in exchange 5"
        )
