"""Run the suite with the oldest versions of everything that pyproject.toml promises.

    python tests/oldest.py                          with each Python that there is of 3.11, 3.12 and 3.13
    python tests/oldest.py python3.12 -- -k tables  with one, and arguments for pytest

An environment for each is made in .cache, from the floors of pyproject.toml as they hold for that Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def floors(extras: tuple[str, ...], version: str) -> dict[str, str]:
    """The oldest version of each requirement of these extras for a Python such as "3.12"."""
    found: dict[str, str] = {}
    rows = [*PROJECT["dependencies"], *(row for name in extras for row in PROJECT["optional-dependencies"][name])]
    for row in rows:
        need = Requirement(row)
        if need.name == PROJECT["name"]:
            found |= floors(tuple(need.extras), version)
        elif need.marker is None or need.marker.evaluate({"python_version": version}):
            found[need.name] = next(each.version for each in need.specifier if each.operator in (">=", "=="))
    return found


def works(python: str) -> bool:
    """Whether this Python is there; a name may stand for one that is not installed."""
    return (
        shutil.which(python) is not None
        and not subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL).returncode
    )


def runs(python: str, arguments: list[str]) -> bool:
    """Whether the suite passes with this Python and the oldest versions; prints them, and how long it took."""
    version = subprocess.check_output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    version = version.strip()
    home = ROOT / ".cache" / f"oldest-{version}"
    subprocess.run([python, "-m", "venv", home], check=True)
    oldest = floors(("test",), version)
    oldest["pyparsing"] = "3.1.0"  # of the time of the oldest Matplotlib, of whose ways later ones warn
    constraints = home / "oldest.txt"
    constraints.write_text("".join(f"{name}=={number}\n" for name, number in sorted(oldest.items())), "utf-8")
    print(f"Python {version}:", ", ".join(f"{name} {number}" for name, number in sorted(oldest.items())), flush=True)
    install = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", constraints, "-e", f"{ROOT}[test]"], check=True)
    begin = time.perf_counter()
    done = subprocess.run([home / "bin/python", "-m", "pytest", "-n", "auto", "tests", *arguments], cwd=ROOT)
    print(f"Python {version}: {time.perf_counter() - begin:.0f} s", flush=True)
    return done.returncode == 0


def main() -> None:
    """Run what is asked for; exit with 1 where a test fails."""
    given, _, arguments = " ".join(sys.argv[1:]).partition("--")
    found = [python for python in given.split() or PYTHONS if works(python)]
    results = [runs(python, arguments.split()) for python in found]  # all of them, whatever the first one says
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
