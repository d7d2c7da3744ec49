"""Make what is uploaded, and try it: `python tests/dist.py [--address URL]`; `make dist`. Needs the extra `backprop-mlp[dist]`.

dist/                a source archive and a wheel, whose metadata `twine` checks
the archive          has every file of the repository; tests run from it, unpacked, with its own code
the wheel            in a fresh environment: the demo from another folder, its output in cp1252, ASCII and UTF-8; the
                     command; a user's program under `mypy --strict`, run
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENCODINGS = ("cp1252", "ascii", "utf-8")
QUICK = ("tests/test_losses.py", "tests/test_readme.py", "tests/test_portability.py")
OTHER_EXTRAS = ("tests/test_partitions.py",)  # of `test-dask`


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; it must succeed."""
    print("$", *(Path(part).name if isinstance(part, Path) else part for part in command), flush=True)
    quiet = {"PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "MPLBACKEND": "agg"}
    environment = os.environ | quiet | environment
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode(environment.get("PYTHONIOENCODING", "utf-8"), "replace")
    if done.returncode:
        sys.exit(f"{said}\nfailed with {done.returncode}")
    return said


def make(address: str) -> tuple[Path, Path]:
    """The archive and the wheel, in dist/."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # files that are gone would come along
    run(sys.executable, "-m", "build", "--outdir", "dist", BACKPROP_ADDRESS=address)
    (archive,), (wheel,) = (ROOT / "dist").glob("*.tar.gz"), (ROOT / "dist").glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", archive, wheel)
    return archive, wheel


def try_archive(archive: Path, folder: Path) -> None:
    """Nothing is missing, and tests run from it."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    if (ROOT / ".git").exists():
        files = run("git", "ls-files").splitlines()
        if missing := [name for name in files if (ROOT / name).exists() and not (unpacked / name).exists()]:
            sys.exit(f"the archive lacks {missing}")
    own = {"cwd": unpacked, "PYTHONPATH": str(unpacked)}  # programs that tests start elsewhere are the archive's, too
    run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", **own)  # the archive's own player
    others = [f"--ignore={name}" for name in OTHER_EXTRAS]
    run(sys.executable, "-m", "pytest", "--collect-only", "-q", *others, **own)
    said = run(sys.executable, "-m", "pytest", "-q", *QUICK, **own)
    print(said.splitlines()[-1])
    where = run(sys.executable, "-c", "import backprop; print(backprop.__file__)", **own | {"cwd": folder}).strip()
    if not Path(where).is_relative_to(unpacked.resolve()):
        sys.exit(f"the tests were of {where}, not of the archive")


def try_wheel(wheel: Path, folder: Path) -> None:
    """The demo, the command and a user's program, where nothing else is of this project."""
    venv.create(folder / "fresh", with_pip=True)
    scripts = folder / "fresh" / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[plots,sklearn]")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    version = run(scripts / "backprop", "--version", cwd=elsewhere).strip()
    if f"-{version}-" not in wheel.name:
        sys.exit(f"{wheel.name} says that it is {version}")
    for encoding in ENCODINGS:
        said = run(python, "-m", "backprop.demo", cwd=elsewhere, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        if not re.search(r"Test accuracy 9\d\.\d%.*All of it took [\d.]+ s\.\s*$", said, re.DOTALL):
            sys.exit(f"{said}\nthe demo did not come to its end in {encoding}")
        print(said.strip().splitlines()[-1], f"({encoding})")
    program = shutil.copy(ROOT / "tests" / "typed_program.py", elsewhere)
    mypy = ("-m", "mypy", "--strict", "--config-file", os.devnull, "--python-executable", python)
    run(sys.executable, *mypy, "--cache-dir", folder / "mypy", program, cwd=elsewhere)
    run(python, program, cwd=elsewhere)


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--address", default=os.environ.get("BACKPROP_ADDRESS", ""), help="of the repository, for links"
    )
    address = parser.parse_args().address
    archive, wheel = make(address)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("archive", "wheel"):
            Path(folder, name).mkdir()
        try_archive(archive, Path(folder, "archive"))
        try_wheel(wheel, Path(folder, "wheel"))
    if not address:
        print("No --address was given: the metadata have no project URLs, and links of the README are words.")
    print(f"Good: {archive.relative_to(ROOT)} and {wheel.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
