"""The tests of the native player once more, with a player that looks at each of its reads and writes (address, undefined), and of
what threads share.

    python tests/sanitized.py

It builds the player with GCC's sanitizers beside a copy of the package, so nothing that is installed changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = ["-g", "-O1", "-fno-sanitize-recover=all", "-ffp-contract=off", "-fPIC", "-shared"]
WATCHES = {  # what each looks at, its libraries, and the tests that run under it
    "address,undefined": (
        ["asan", "ubsan"],
        "CallsAlone or shards or random or edges or Compiled or ManyRows or parts or draws",
    ),
    "thread": (
        ["tsan"],
        "many_steps or shards or all_lists or ManyRows",
    ),  # OpenBLAS, which is not watched, in one thread
}


def library(name: str) -> str:
    """Where GCC keeps a library."""
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    """Build, and run the tests, for each watch; what they end with."""
    return max(run(*each) for each in WATCHES.items())


def run(watch: str, of_watch: tuple[list[str], str]) -> int:
    """Build with this watch, and run its tests."""
    libraries, tests = of_watch
    with tempfile.TemporaryDirectory() as folder:
        for name in ("backprop", "tests"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        there = Path(folder, "backprop", "engine", "native")
        include = sysconfig.get_paths()["include"]
        source, built = there / "player.c", there / "player.abi3.so"
        flags = [*FLAGS, f"-fsanitize={watch}"]
        subprocess.run(["gcc", *flags, "-Wall", "-Wextra", "-Werror", f"-I{include}", source, "-o", built], check=True)
        extra = {"LD_PRELOAD": " ".join(library(f"lib{name}.so") for name in libraries)}
        extra |= {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "exitcode=66"}
        extra |= {"PYTHONPATH": folder, "PYTHONMALLOC": "malloc"} | (
            {"OPENBLAS_NUM_THREADS": "1"} if watch == "thread" else {}
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/test_native.py", "-k", tests]
        return subprocess.run(command, cwd=folder, env=os.environ | extra, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
