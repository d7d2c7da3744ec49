"""Jobs of `backprop launch` in tests: started in a folder, waited for, and nothing of them left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

DOOMED = Path(__file__).with_name("doomed.py")
TIMEOUT = 5.0


def needs_mpi():
    pytest.importorskip("mpi4py", reason="the extra mpi")


class Job:
    """A `backprop launch` in a folder of its own."""

    def __init__(self, folder, *program, n=2, options=(), timeout=TIMEOUT):
        self.folder = folder
        options = ["-n", str(n), "--timeout", str(timeout), *options]
        command = [sys.executable, "-m", "backprop", "launch", *options, *map(str, program)]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=without_coverage()
        )

    def ends(self):
        """The exit code, what was printed, and what was told."""
        out, err = self.process.communicate(timeout=120)
        for name in left(self.folder):
            pytest.fail(f"still running: {name}")
        return self.process.returncode, out, err

    def wait_for(self, name):
        """Until there is something in a file of the run."""
        until, path = time.monotonic() + 60, self.folder / ".backprop-run" / name
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < until, f"{name} never came"
            time.sleep(0.01)


def without_coverage():
    return {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_XDIST"))}


def left(folder):
    """Processes of a job that are still there, known by the folder of their run."""
    mark = f"BACKPROP_RUN={folder / '.backprop-run'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() and b"State:\tZ" not in (process / "status").read_bytes():
                yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def launch(folder, *program, **how):
    return Job(folder, *program, **how).ends()


def fingerprint(out):
    """What the program has printed at its end, if it came there; MPI may print, too."""
    found = re.findall(r"^[0-9a-f]{64}$", out, re.MULTILINE)
    assert len(found) < 2
    return found[0] if found else None


@cache
def never_stopped():
    """The bits of a run that never stopped."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, DOOMED, "none", "0", "0"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return fingerprint(run.stdout)
