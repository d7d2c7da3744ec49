"""What the programs share that make a folder of pages: `build.py` the site, `slides.py` the slides."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

OURS = (".buildinfo", ".trees")  # one of them is in each folder that was made here


def emptied(folder: Path) -> Path:
    """The folder beside `folder` for working files; of a build before there is nothing left, a page that is gone must not stay.

    Exits, and removes nothing, if there is anything else in one of them.
    """
    pages = folder.with_name(folder.name + ".pages")
    there = [old for old in (folder, pages) if old.exists()]
    for old in there:
        if not old.is_dir() or (any(old.iterdir()) and not any((old / name).exists() for name in OURS)):
            sys.exit(f"{old} is not a folder that was made here: name another one, or one that is empty")
    for old in there:
        shutil.rmtree(old)
    (pages / ".trees").mkdir(parents=True)
    return pages


def make(build: Callable[[Path], int], name: str, about: str | None) -> None:
    """The command line: build in the folder that it names, or in out/`name`, and say where; exit with what is wrong."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[2] / "out" / name)
    folder = parser.parse_args().folder.absolute()
    if code := build(folder):
        sys.exit(code)
    print(f"To be read from here: {folder / 'index.html'}")
