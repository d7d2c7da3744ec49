"""Ways to die and to disagree in a job, signals, and chaos: all ranks end in time, or in the bits of a run that never stopped.

BACKPROP_DEATHS=1 asks for three ranks, too, for every signal, and for a job of its own for each disagreement, of which else three
are chosen; BACKPROP_CHAOS=20 for so many trials, BACKPROP_SEED=N for others.
"""

import json
import os
import random
import re
import signal
import time
from contextlib import suppress
from itertools import product

import pytest
from launching import DOOMED, TIMEOUT, Job, fingerprint, launch, left, needs_mpi, never_stopped

from backprop.distributed import guard

fcntl = pytest.importorskip("fcntl", reason="the launcher needs it")

ALL = bool(os.environ.get("BACKPROP_DEATHS"))
TRIALS = int(os.environ.get("BACKPROP_CHAOS", "2"))
SEED = int(os.environ.get("BACKPROP_SEED", "0"))


WAYS = {
    "exception": "rank 1 of {n} failed: ValueError: bad luck",
    "no memory": "rank 1 of {n} failed: .*MemoryError",
    "sys.exit(0)": "rank 1 of {n} has come to the end of its program before the others: .* waiting in exchange",
    "sys.exit(3)": "rank 1 of {n} has left with status 3",
    "os._exit(0)": r"status \d, and rank 1 of {n} \(process \d+ on \S+\) has died without a word: killed",
    "kill": r"status 9, and rank 1 of {n} \(process \d+ on \S+\) has died without a word: killed",
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
    "metrics": "lambda.* of other code, or with other values in it",
    "constraints": "MaxNorm",
}


def test_every_disagreement_is_told_to_all_ranks(tmp_path):
    needs_mpi()
    code, _, err = launch(tmp_path, DOOMED, "every", 2, 0, n=3, options=["--max-restarts", "0"])
    assert code == 0, err
    first, *others = (json.loads((tmp_path / f"told.{rank}").read_text()) for rank in range(3))
    assert others == [first] * 2
    assert first.keys() == DISAGREEMENTS.keys()
    for what, told in first.items():
        assert re.search(f"{DISAGREEMENTS[what]}.*rank 2", told), what
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("what", DISAGREEMENTS if ALL else random.Random(SEED).sample([*DISAGREEMENTS], 3))
def test_a_disagreement_ends_all_and_names_the_rank(what, tmp_path):
    needs_mpi()
    began = time.monotonic()
    code, out, err = launch(tmp_path, DOOMED, what, 2, 0, n=3, options=["--max-restarts", "0"])
    assert (code, fingerprint(out)) == (1, None)
    assert re.search(rf"attempt 1 has failed: rank \d of 3 .*{DISAGREEMENTS[what]}.*rank 2", err)
    assert time.monotonic() - began < TIMEOUT + 4 + 10  # with the start of Python on a crowded machine


class TestSignals:
    @pytest.mark.parametrize(("number", "n"), [*product([signal.SIGINT, signal.SIGTERM], [1, 2])][:: 1 if ALL else 3])
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
        (tmp_path / "deaf.py").write_text(DEAF)
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
        job.process.send_signal(signal.SIGINT)
        job.ends()
        with open(tmp_path / ".backprop-run" / "alive.1", "r+b") as rank:  # of another job that lives on
            fcntl.lockf(rank, fcntl.LOCK_EX)
            code, _, err = launch_beside(tmp_path)
        assert code == 1
        assert re.search(refused.format(r"alive\.1"), err)

    @pytest.mark.parametrize("n", [1, 2])
    def test_ranks_do_not_outlive_their_launcher(self, n, tmp_path):
        """They stop after the step at hand, with a checkpoint, from which the next job goes on."""
        needs_mpi()
        job = Job(tmp_path, DOOMED, "slow", 0, 0, n=n)
        job.wait_for("saved")
        before = saved(tmp_path / ".backprop-run")
        job.process.kill()
        none_left(tmp_path, TIMEOUT)
        job.process.communicate()
        assert saved(tmp_path / ".backprop-run") > before
        code, out, _ = launch(tmp_path, DOOMED, "none", 0, 0, n=n)
        assert (code, fingerprint(out)) == (0, never_stopped())

    @pytest.mark.parametrize("n", [1] + [2] * ALL)
    def test_nor_do_the_deaf(self, n, tmp_path):
        needs_mpi()
        (tmp_path / "deaf.py").write_text(DEAF)
        job = Job(tmp_path, "deaf.py", n=n)
        job.wait_for("ready")
        job.process.kill()
        none_left(tmp_path, TIMEOUT + 4)
        job.process.communicate()
        assert not (tmp_path / ".backprop-run" / "done").exists()


DEAF = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
open('.backprop-run/ready', 'w').write('yes')
time.sleep(60)
"""


def none_left(folder, seconds):
    """Nothing of a job is left after so many seconds, with nobody's help."""
    until = time.monotonic() + seconds
    while list(left(folder)):
        assert time.monotonic() < until, list(left(folder))
        time.sleep(0.1)


ELSEWHERE = """
import sys, numpy as np, backprop as bp
class Odd(bp.Callback):
    def epoch(self, trainer, record):
        if (trainer.team.rank, record.epoch) == (1, 2):
            raise OSError("its log is gone")
X, team = np.ones((96, 4), np.float32), bp.distributed.team()
net = bp.Sequential(bp.Linear(4, 1), seed=0)
trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=16, shards=8, team=team)
if sys.argv[1] == "catches":
    try:
        trainer.fit(X, X[:, 0], epochs=5, verbose=0, callbacks=[Odd()])
    except OSError:
        pass
else:
    for record in trainer.epochs(X, X[:, 0], 5):
        if (team.rank, record.epoch) == (1, 2):
            break
trainer.fit(X, X[:, 0], epochs=5, verbose=0)
"""


@pytest.mark.parametrize("how", ["catches", "leaves"])
def test_a_rank_that_goes_on_elsewhere_ends_all(how, tmp_path):
    needs_mpi()
    (tmp_path / "program.py").write_text(ELSEWHERE)
    code, _, err = launch(tmp_path, "program.py", how, n=3, options=["--max-restarts", "0"])
    assert code == 1
    assert re.search("attempt 1 has failed: .*rank [012] of 3", err)
    assert how == "leaves" or "all ranks at the same place of one training, got others" in err


THREADS = """
import sys, threading, numpy as np, backprop as bp
team, refused = bp.distributed.team(), []
X = np.ones((96, 4), np.float32)
def train(seed):
    net = bp.Sequential(bp.Linear(4, 1), seed=seed)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=16, shards=8, team=team)
    try:
        trainer.fit(X, X[:, 0], epochs=20, verbose=0)
    except RuntimeError as error:
        refused.append(f"{error} {trainer.optimizer.t}")
other = threading.Thread(target=train, args=(1,), name="another")
other.start()
train(0)
other.join()
if "loud" in sys.argv:
    threading.Thread(target=sys.exit, args=(3,)).start()  # which to Python means nothing
    if team.rank == 1:
        threading.Thread(target=lambda: 1 / 0).start()
print(refused)
"""


class TestThreads:
    def test_a_second_one_that_trains_by_the_team_is_refused(self, tmp_path):
        needs_mpi()
        (tmp_path / "program.py").write_text(THREADS)
        code, out, err = launch(tmp_path, "program.py")
        assert code == 0, err
        refused = r"expected one thread that trains together with other ranks, MainThread, got another\. .*? 0']"
        assert len(re.findall(refused, out)) == 2, out

    def test_an_error_in_one_ends_the_job(self, tmp_path):
        needs_mpi()
        (tmp_path / "program.py").write_text(THREADS)
        code, _, err = launch(tmp_path, "program.py", "loud", options=["--max-restarts", "0"])
        assert code == 1
        assert "attempt 1 has failed: rank 1 of 2 failed: ZeroDivisionError" in err


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


@pytest.mark.parametrize("trial", range(TRIALS // 2))
def test_any_signal_to_anyone_at_any_time(trial, tmp_path):
    """Also to the launcher: nothing is left, no failure looks like success, and the next job goes on to the same bits."""
    needs_mpi()
    rng = random.Random(SEED * 1000 + trial)
    for told in ("ready", "saved", "saved"):
        n = rng.randint(1, 3)
        job = Job(tmp_path, DOOMED, "slow", 0, 0, n=n, options=["--max-restarts", "1"])
        run = tmp_path / ".backprop-run"
        if told == "saved":
            job.wait_for("saved")
        time.sleep(rng.uniform(0, 1))
        places = [guard.place(run, rank).get("process") for rank in range(n)]
        victim = rng.choice([job.process.pid, *filter(None, places)])
        number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP])
        with suppress(ProcessLookupError):
            os.kill(victim, number)
        if (victim, number) == (job.process.pid, signal.SIGSTOP):
            time.sleep(1)
            os.kill(victim, signal.SIGCONT)
        out, err = job.process.communicate(timeout=120)
        none_left(tmp_path, TIMEOUT + 4)
        done = (run / "done").exists()
        assert job.process.returncode == 0 or not done or victim == job.process.pid, (
            f"{told} {n} {victim} {number} {err}"
        )
        assert job.process.returncode or fingerprint(out) == never_stopped(), f"{told} {n} {number}\n{err}"
    code, out, err = launch(tmp_path, DOOMED, "none", 0, 0)
    assert (code, fingerprint(out)) == (0, never_stopped()), err


def saved(run):
    try:
        return len((run / "saved").read_text().splitlines())
    except OSError:
        return 0
