"""The tests of the native player once more, with a player that looks at each of its reads and writes (address, undefined).

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
FLAGS = [
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
]
TESTS = "CallsAlone or shards or random or edges or Compiled or parts or draws"


def library(name: str) -> str:
    """Where GCC keeps a library."""
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    """Build, and run the tests; what they end with."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("backprop", "tests"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        there = Path(folder, "backprop", "engine", "native")
        include = sysconfig.get_paths()["include"]
        source, built = there / "player.c", there / "player.abi3.so"
        subprocess.run(["gcc", *FLAGS, "-Wall", "-Wextra", "-Werror", f"-I{include}", source, "-o", built], check=True)
        extra = {"LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}", "ASAN_OPTIONS": "detect_leaks=0"}
        extra |= {"PYTHONPATH": folder, "PYTHONMALLOC": "malloc"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/test_native.py", "-k", TESTS]
        return subprocess.run(command, cwd=folder, env=os.environ | extra, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
