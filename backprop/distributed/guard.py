"""What MPI leaves out: nobody waits for the dead. An error, an early exit or a silence on one rank ends the job on all.

Each rank leaves in the folder of the run (.backprop-run if nobody has said another) what others have to know when it cannot
speak any more:

    alive.R   where rank R is; written each second, and locked by its process for as long as that lives
    crash.R   what Python had to say when rank R crashed
    failed    the first failure, by the rank that saw it
    died      the first rank that has died without a word, by the shell that waits for its end beside each rank
    saved     a line for each checkpoint
    done      written last of all, when every rank has come to the end of its program: the only sign of success
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from backprop.files.atomic import write_atomically
from backprop.training import checkpoint

FAILED, STOPPED = 1, 128 + signal.SIGINT
HOST = socket.gethostname()[:80]
# It writes if nothing was read, the mark of this attempt is still there, and no other has written.
WITNESS = 'exec > /dev/null 2>&1; read -r _ || { [ -e "$0" ] && set -C && printf %s "$1" > "$2"; }'
WIDTH = 250  # of what is in alive.R, so that it is replaced in one write

_guards: list[Guard] = []


def start(comm: Any = None) -> Guard:
    """Guard this rank until Python ends; once for a process. Folder and timeout are those that the launcher has set."""
    if not _guards:
        folder, timeout = os.environ.get("BACKPROP_RUN", ".backprop-run"), os.environ.get("BACKPROP_TIMEOUT", "600")
        _guards.append(Guard(comm, Path(folder).absolute(), float(timeout)))
        _guards[0].begin()
    return _guards[0]


def waiting() -> AbstractContextManager[object]:
    """Around each exchange, to which every rank comes: where a rank waits, and may lose patience.

    Work that nobody waits for may last as long as it likes.
    """
    return _guards[0] if _guards else nullcontext()


class Guard(AbstractContextManager["Guard"]):
    """Ends the job on all ranks when this one fails, leaves early, or has waited too long for the others."""

    def __init__(self, comm: Any, folder: Path, timeout: float) -> None:
        self.rank: int = 0 if comm is None else comm.rank
        self.size: int = 1 if comm is None else comm.size
        self.comm, self.folder, self.timeout = comm, folder, timeout
        self.exchange, self.since = 0, math.inf  # the last one, and since when this rank has waited in it
        self.ended, self.code, self.process = False, 0, os.getpid()
        self.lost = False  # the launcher
        self._over = threading.Event()
        self._witness: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Watch from here on."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell does with all that it starts by &
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: self._stop())
        sys.excepthook = lambda kind, error, trace: self.failed(error)
        threading.excepthook = lambda a: None if a.exc_type is SystemExit else self.failed(a.exc_value or a.exc_type())
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            for stale in ("done", "failed", "died"):
                (self.folder / stale).unlink(missing_ok=True)
        self._open()
        checkpoint.after_save.append(self._saved)
        threading.Thread(target=self._watch, name="backprop-guard", daemon=True).start()
        if self.comm is not None:
            with self:
                self.comm = self.comm.Dup()
                self.comm.Barrier()
        atexit.register(self.finish)  # before the program's own, to be called after them

    def _stop(self) -> None:
        """End the program as by Ctrl-C; whatever it does then, it has not come to its end."""
        self.code = STOPPED
        signal.raise_signal(signal.SIGINT)

    def _open(self) -> None:
        self._alive = os.open(self.folder / f"alive.{self.rank}", os.O_RDWR | os.O_CREAT, 0o644)
        with suppress(ImportError):  # on Windows, where there is no launcher
            import fcntl

            fcntl.lockf(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._crash = open(self.folder / f"crash.{self.rank}", "w")  # noqa: SIM115 - both to the end
        faulthandler.enable(self._crash)
        self._mark = self.folder / f"died.{self.rank}.{self.process}"
        self._mark.touch()
        who = f"rank {self.rank} of {self.size} (process {self.process} on {HOST})"
        told = f"{who} has died without a word: killed, out of memory, or os._exit"
        command: list[str | Path] = [shutil.which("sh") or "sh", "-c", WITNESS, self._mark, told, self.folder / "died"]
        if os.name == "posix":
            self._witness = subprocess.Popen(command, stdin=subprocess.PIPE, env={}, start_new_session=True)

    def _saved(self, path: str, t: int) -> None:
        with open(self.folder / "saved", "a", encoding="utf-8") as file:
            file.write(f"{t} {os.path.abspath(path)!a}\n")

    def __enter__(self) -> Guard:
        self.exchange += 1
        self.since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.since = math.inf

    def failed(self, error: BaseException) -> None:
        """The program of this rank has ended with an error. By Ctrl-C all are stopped, and end together."""
        if isinstance(error, KeyboardInterrupt):
            self.code = STOPPED
        else:
            what = traceback.format_exception_only(error)[-1].strip()
            self.end(f"failed: {what}", "".join(traceback.format_exception(error)))

    def finish(self) -> None:
        """The program of this rank has come to its end: wait for the others; rank 0 writes the marker last of all."""
        if os.getpid() != self.process:  # a child that this one has forked
            return
        self.ended = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is not at the end yet hears it, too
        if self.comm is not None:
            from mpi4py import MPI

            mine, worst = np.array([self.code]), np.array([self.code])
            with self:
                request = self.comm.Iallreduce(mine, worst, MPI.MAX)
                while not request.Test():
                    time.sleep(0.01)
            self.code = int(worst[0])
        self._over.set()
        if self._witness is not None:
            self._witness.communicate(b"\n")
        self._mark.unlink(missing_ok=True)
        if self.rank == 0 and self.code == 0:
            write_atomically(self.folder / "done", b"")

    def end(self, what: str, told: str = "") -> None:
        """End the job on all ranks for what has happened to this one; who comes first tells it in full."""
        line, self.code, mine = f"rank {self.rank} of {self.size} {what}", FAILED, os.getpid() == self.process
        told *= not (mine and (self.folder / "failed").exists())
        with suppress(Exception):  # whatever becomes of the words, the job has to end
            sys.stdout.flush()
        with suppress(Exception):
            sys.stderr.write(f"{line}\n{told}")
        if mine:
            path = self.folder / "failed"
            with suppress(OSError), open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
                self._mark.unlink(missing_ok=True)  # it has not died without a word
                file.write(line)
        if mine and self.comm is not None:
            faulthandler.dump_traceback_later(2, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115 - if MPI hangs
            self.comm.Abort(FAILED)

    def _watch(self) -> None:
        self._tell()
        while not self._over.wait(min(1.0, self.timeout / 8)):
            self._tell()
            if why := self._hopeless():
                self.end(why)

    def _hopeless(self) -> str:
        """Why there is nothing to wait for; "" while there is."""
        launcher = self.folder / "launcher"
        if time.monotonic() - self.since > self.timeout:
            return f"has waited {self.timeout:g} s for the others: {where(self.folder, self.size)}"
        if self.ended and self._awaited():
            return f"has come to the end of its program before the others: {where(self.folder, self.size)}"
        # A lock is asked for only where it was taken: there are file systems on which others do not see it.
        own = os.environ.get("BACKPROP_LAUNCHER") == HOST and not self.lost
        if own and launcher.exists() and not is_locked(launcher):
            self.lost = True
            os.kill(self.process, signal.SIGTERM)  # to end after the step at hand, with a checkpoint; else by force
            faulthandler.dump_traceback_later(self.timeout, exit=True, file=self._crash)
        return ""

    def _tell(self) -> None:
        now = {"exchange": self.exchange, "waits": self.since < math.inf, "ended": self.ended}
        line = json.dumps(now | {"process": self.process, "host": HOST})
        with suppress(OSError):
            os.pwrite(self._alive, line.ljust(WIDTH).encode(), 0)

    def _awaited(self) -> bool:
        """Whether another rank waits in an exchange that this one never came to."""
        places = [place(self.folder, rank) for rank in range(self.size)]
        return any(each["waits"] and not each["ended"] and each["exchange"] >= self.exchange for each in places if each)


def is_locked(path: Path) -> bool:
    """Whether the process that wrote this file lives."""
    import fcntl

    try:
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return False


def place(folder: Path, rank: int) -> dict[str, Any]:
    """What a rank has told of itself last, and when; nothing of one that has not begun."""
    path = folder / f"alive.{rank}"
    try:
        return {**json.loads(path.read_text()), "when": path.stat().st_mtime}
    except (OSError, ValueError):
        return {}


def where(folder: Path, size: int) -> str:
    """Where the ranks are, those first that are few."""
    places = [place(folder, rank) for rank in range(size)]
    now = max(each.get("when", 0.0) for each in places)
    found: dict[str, list[str]] = {}
    for rank, each in enumerate(places):
        who = f"{rank} (process {each['process']} on {each['host']})" if each else f"{rank}"
        found.setdefault(_words(each, now), []).append(who)
    groups = sorted(found.items(), key=lambda item: len(item[1]))
    return "; ".join(f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)} {words}" for words, ranks in groups)


def _words(place: dict[str, Any], now: float) -> str:
    if not place:
        return "not begun"
    if now - place["when"] > 3:
        return f"silent for {now - place['when']:.0f} s, after {place['exchange']} exchanges"
    if place["ended"]:
        return "at the end of the program"
    return f"{'waiting in' if place['waits'] else 'at work after'} exchange {place['exchange']}"
