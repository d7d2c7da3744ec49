"""Start the ranks of a job, count nothing but the marker as success, and start them again from the last checkpoint."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from backprop import checks
from backprop.distributed.guard import FAILED, HOST, is_locked, place, where

GRACE = 2.0  # seconds in which what has failed may end by itself


@dataclass
class Launcher:
    """Runs `program` with its arguments on ranks of this machine, or of those that the cluster has given to this job.

    `ranks` are those of the first attempt, of the second, and so on; the last number stays.
    """

    program: Sequence[str]
    ranks: Sequence[int]
    folder: Path
    timeout: float
    max_restarts: int
    tell: Callable[[str], object]
    signals: list[int] = field(default_factory=list)

    def run(self) -> int:
        """0 if every rank came to the end of the program, 1 if not, 128 + the number of a signal that stopped it.

        Raises OSError for a folder that cannot be made, RuntimeError without an MPI or while another job uses the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.folder / "launcher", *self.folder.glob("alive.*")):
            if is_locked(path):
                got, advice = f"{path}, of one that is still running", "Stop it, or give --run another folder."
                raise RuntimeError(checks.message(self.folder, "no other job in this folder", got, advice))
        own = open(self.folder / "launcher", "w")  # noqa: SIM115 - and its lock, until this process ends
        fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (self.folder / "saved").write_text("")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # for good: this process ends with the job
            signal.signal(number, lambda number, frame: self.signals.append(number))
        with own:
            return self._attempts()

    def _attempts(self) -> int:
        saved, fruitless = set[str](), 0  # checkpoints, each by its step and path; attempts without a new one
        for attempt in range(self.max_restarts + 1):
            n = self.ranks[min(attempt, len(self.ranks) - 1)]
            if attempt:
                self.tell(f"started again, with {n} rank{'s' * (n > 1)}")
            reason = self._attempt(n)
            if self.signals:
                self.tell(f"stopped by {signal.Signals(self.signals[0]).name}")
                return 128 + self.signals[0]
            if reason is None:
                return 0
            self.tell(f"attempt {attempt + 1} has failed: {reason}")
            new = {*(self.folder / "saved").read_text(encoding="utf-8").splitlines()} - saved
            saved, fruitless = saved | new, 0 if new else fruitless + 1
            if fruitless == 2 and attempt < self.max_restarts:
                self.tell("not started again: two attempts, one after the other, have saved no new checkpoint")
                break
        return FAILED

    def _attempt(self, n: int) -> str | None:
        """Run n ranks to their end; why that was a failure, None if it was none."""
        for stale in ("done", "failed", "died*", "alive.*", "crash.*"):
            for path in self.folder.glob(stale):
                path.unlink(missing_ok=True)
        own = {"BACKPROP_RUN": self.folder.absolute(), "BACKPROP_TIMEOUT": self.timeout, "BACKPROP_RANKS": n}
        own["BACKPROP_LAUNCHER"] = HOST
        environ = os.environ | {name: str(value) for name, value in own.items()}
        job = subprocess.Popen(self._command(n), env=environ, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            silence = self._wait(job, n)
            return None if (self.folder / "done").exists() else silence or self._reason(job, n)
        finally:
            self._kill(job)

    def _command(self, n: int) -> list[str]:
        rank = [sys.executable, "-m", "backprop.distributed.rank", *self.program]
        if n == 1:
            return rank
        if find_spec("mpi4py") is None:
            advice = 'Install it: pip install "backprop-mlp[mpi]"'
            raise RuntimeError(checks.message("several ranks", "mpi4py, by which they speak", "none", advice))
        beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        mpiexec = shutil.which("mpiexec", path=beside)
        if mpiexec is None:
            advice = 'Install one: pip install "backprop-mlp[mpi]"'
            raise RuntimeError(checks.message("launch", "the mpiexec of an MPI", "none", advice))
        return [mpiexec, "-n", str(n), *rank]

    def _wait(self, job: subprocess.Popen[bytes], n: int) -> str:
        """Until the job has ended, or has to be ended; then perhaps for which silence."""
        last = dict.fromkeys(range(n), (0.0, time.monotonic()))  # a rank's last sign of life, and when it was seen
        until, passed_on = math.inf, 0
        while job.poll() is None and time.monotonic() < until and len(self.signals) < 2:
            time.sleep(0.05)
            now = time.monotonic()
            if len(self.signals) > passed_on:
                job.send_signal(signal.SIGINT)
                passed_on, until = 1, now + self.timeout
            for sign, grace in (("failed", GRACE), ("done", self.timeout)):
                until = min(until, now + grace) if (self.folder / sign).exists() else until
            signs = {rank: place(self.folder, rank).get("when", 0.0) for rank in range(n)}
            last |= {rank: (sign, now) for rank, sign in signs.items() if sign != last[rank][0]}
            if now - min(seen for _, seen in last.values()) > self.timeout + GRACE:
                return f"a silence of {self.timeout:g} s: {where(self.folder, n)}"
        return ""

    def _reason(self, job: subprocess.Popen[bytes], n: int) -> str:
        paths = [path for name in ("failed", "crash.*", "died") for path in sorted(self.folder.glob(name))]
        # It is empty where its writer was killed, or had no room.
        said = {path.name: told for path in paths if (told := path.read_text(encoding="utf-8"))}
        crashes = [f"rank {name[6:]} of {n}: {told}" for name, told in said.items() if name.startswith("crash")]
        silent = f"{said.get('died', 'no rank could say why')}: {where(self.folder, n)}"
        return said.get("failed") or "\n".join(crashes) or f"status {job.returncode}, and {silent}"

    def _kill(self, job: subprocess.Popen[bytes]) -> None:
        """End whatever is left of the job."""
        with suppress(OSError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        for path in self.folder.glob("alive.*"):
            told, until = place(self.folder, int(path.suffix[1:])), time.monotonic() + GRACE
            while is_locked(path) and time.monotonic() < until:
                with suppress(ProcessLookupError):
                    if told.get("host") == HOST:
                        os.kill(told["process"], signal.SIGKILL)
                time.sleep(0.01)
