"""Draw the pictures of the pages anew: `python docs/pictures.py [page …]`.

Runs the Python blocks of each page in a folder of its own, and copies what they saved to where the page shows it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w./-]+)\)")


def draw(page: Path) -> list[str]:
    """The names of the pictures of a page that its blocks made."""
    text, drawn = page.read_text("utf-8"), []
    matplotlib.rcParams["svg.hashsalt"] = page.stem  # the same picture is the same file
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    pictures = {Path(name).name: page.parent / name for name in PICTURE.findall(text)}
    if not any(name in block for block in BLOCK.findall(text) for name in pictures):
        return []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile("\n".join(BLOCK.findall(text)), str(page), "exec"), {"__name__": page.stem})
        os.chdir(page.parent)
        for name, place in pictures.items():
            if Path(folder, name).exists():
                shutil.copy(Path(folder, name), place)
                drawn.append(name)
    return drawn


if __name__ == "__main__":
    pages = [Path(name).resolve() for name in sys.argv[1:]] or sorted(Path(__file__).resolve().parent.rglob("*.md"))
    for page in pages:
        for name in draw(page):
            print(f"{page.name}: {name}")
