"""Ways to die and to disagree in a job, signals, and chaos: all ranks end in time, or in the bits of a run that never stopped.

BACKPROP_DEATHS=1 asks for three ranks, too, BACKPROP_CHAOS=20 for so many trials, BACKPROP_SEED=N for others.
"""

import os
import random
import re
import signal
import sys
import time

import pytest
from launching import DOOMED, TIMEOUT, Job, fingerprint, launch, left, needs_mpi, never_stopped

from backprop.distributed import guard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the launcher needs fcntl")

ALL = bool(os.environ.get("BACKPROP_DEATHS"))
TRIALS = int(os.environ.get("BACKPROP_CHAOS", "2"))
SEED = int(os.environ.get("BACKPROP_SEED", "0"))


WAYS = {
    "exception": "rank 1 of {n} failed: ValueError: bad luck",
    "no memory": "rank 1 of {n} failed: .*MemoryError",
    "sys.exit(0)": "rank 1 of {n} has come to the end of its program before the others: .* waiting in exchange",
    "sys.exit(3)": "rank 1 of {n} has left with status 3",
    "os._exit(0)": r"status \d, and no rank could say why",
    "kill": "status 9, and no rank could say why",
    "stop": r"waited 5 s for the others: .*rank 1 \(process \d+ on \S+\) silent for",
    "crash": "rank 1 of {n}: Fatal Python error: Segmentation fault",
    "loop": r"waited 5 s for the others: .*rank 1 \(process \d+ on \S+\) at work after exchange",
}


@pytest.mark.parametrize("n", [2] + [3] * ALL)
@pytest.mark.parametrize("way", WAYS)
def test_a_death_ends_all_and_names_the_rank(way, n, tmp_path):
    needs_mpi()
    code, out, err = launch(tmp_path, DOOMED, way, 1, 10, n=n, options=["--max-restarts", "0"])
    took = time.time() - (tmp_path / "died").stat().st_mtime
    assert (code, fingerprint(out)) == (1, None)
    assert re.search(f"backprop launch: attempt 1 has failed: .*{WAYS[way].format(n=n)}", err)
    assert took < TIMEOUT + 4
    assert not (tmp_path / ".backprop-run" / "done").exists()


DISAGREEMENTS = {
    "layers": "Tanh",
    "widths": "9",
    "dtype": "float64",
    "weights": "",
    "loss": "Huber",
    "optimizer": "SGD",
    "learning rate": "0.002",
    "batch size": "32",
    "shards": "4",
    "seed": "1",
    "rows": "",
    "fewer rows": "48",
    "fewer epochs": "",
    "callbacks": "Checkpoints",
}


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_a_disagreement_ends_all_and_names_the_rank(what, tmp_path):
    needs_mpi()
    began = time.monotonic()
    code, out, err = launch(tmp_path, DOOMED, what, 2, 0, n=3, options=["--max-restarts", "0"])
    assert (code, fingerprint(out)) == (1, None)
    assert re.search(rf"attempt 1 has failed: rank \d of 3 .*{DISAGREEMENTS[what]}.*rank 2", err)
    assert time.monotonic() - began < TIMEOUT + 4 + 10  # with the start of Python on a crowded machine


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("n", [1, 2])
    def test_stop_all_with_a_checkpoint(self, number, n, tmp_path):
        needs_mpi()
        job = Job(tmp_path, DOOMED, "slow", 0, 0, n=n)
        job.wait_for("saved")
        sent = time.monotonic()
        job.process.send_signal(number)
        code, _, err = job.ends()
        assert code == 128 + number
        assert f"stopped by {number.name}" in err
        assert "Traceback" not in err
        assert time.monotonic() - sent < TIMEOUT + 4
        code, out, _ = launch(tmp_path, DOOMED, "none", 0, 0, n=3 - n)
        assert (code, fingerprint(out)) == (0, never_stopped())

    def test_a_second_one_does_not_wait(self, tmp_path):
        needs_mpi()
        (tmp_path / "deaf.py").write_text(
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "open('.backprop-run/ready', 'w').write('yes')\ntime.sleep(60)\n"
        )
        job = Job(tmp_path, "deaf.py", timeout=60)
        job.wait_for("ready")
        sent = time.monotonic()
        for _ in range(2):
            job.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert job.ends()[0] == 130
        assert time.monotonic() - sent < 10

    def test_silence_of_all_ranks_is_heard(self, tmp_path):
        code, _, err = launch(tmp_path, DOOMED, "stop", 0, 10, n=1, options=["--max-restarts", "0"])
        assert code == 1
        assert re.search(r"a silence of 5 s: rank 0 \(process \d+ on \S+\)", err)
        assert time.time() - (tmp_path / "died").stat().st_mtime < TIMEOUT + 4

    def test_one_job_in_a_folder(self, tmp_path):
        needs_mpi()
        job = Job(tmp_path, DOOMED, "slow", 0, 0, 1000)
        job.wait_for("saved")
        refused = "expected no other job in this folder, got .*{}, of one that is still running"
        code, _, err = launch_beside(tmp_path)
        assert code == 1
        assert re.search(refused.format("launcher"), err)
        job.process.kill()  # its ranks live on
        job.process.wait()
        code, _, err = launch_beside(tmp_path)
        assert code == 1
        assert re.search(refused.format(r"alive\.\d"), err)
        os.kill(guard.place(tmp_path / ".backprop-run", 0)["process"], signal.SIGINT)
        until = time.monotonic() + 30
        while list(left(tmp_path)) and time.monotonic() < until:
            time.sleep(0.1)
        job.ends()


def launch_beside(folder):
    job = Job(folder, DOOMED, "none", 0, 0, n=1)
    out, err = job.process.communicate(timeout=60)
    return job.process.returncode, out, err


@pytest.mark.parametrize("trial", range(TRIALS))
def test_chaos_ends_in_the_bits_of_a_run_that_never_stopped(trial, tmp_path):
    needs_mpi()
    rng = random.Random(SEED * 1000 + trial)
    ranks, kills = [rng.randint(1, 4) for _ in range(4)], rng.randint(1, 3)
    job = Job(tmp_path, DOOMED, "slow", 0, 0, n=",".join(map(str, ranks)), timeout=60, options=["--max-restarts", "9"])
    run, killed = tmp_path / ".backprop-run", []
    while len(killed) < kills and job.process.poll() is None:
        before = saved(run)
        while saved(run) == before and job.process.poll() is None:  # so that each attempt gets further
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.2))
        alive = [place for rank in range(4) if (place := guard.place(run, rank)) and not place["ended"]]
        try:
            victim = rng.choice(alive)["process"]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        except (IndexError, ProcessLookupError):
            continue
    code, out, err = job.ends()
    assert killed
    assert (code, fingerprint(out)) == (0, never_stopped()), f"{ranks}, killed {killed}\n{err}"


def saved(run):
    try:
        return len((run / "saved").read_text().splitlines())
    except OSError:
        return 0
