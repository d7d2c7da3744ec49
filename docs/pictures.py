"""Draw the pictures of the pages anew: `python docs/pictures.py [page or notebook …]`.

Runs the Python blocks of each page in a folder of its own, and copies what they saved to where the page shows it. A notebook is
run as Jupyter does it, and keeps what its cells show; that needs nbclient and ipykernel, in the extra `backprop-mlp[docs]`.
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


def execute(notebook: Path) -> list[str]:
    """Run a notebook and keep its outputs, without the times at which they came."""
    import nbformat
    from nbclient import NotebookClient

    cells = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(cells, resources={"metadata": {"path": folder}}, record_timing=False).execute()
    nbformat.write(cells, notebook)
    return [notebook.name]


if __name__ == "__main__":
    docs = Path(__file__).resolve().parent
    everything = [*sorted(docs.rglob("*.md")), *sorted((docs.parent / "examples").glob("*.ipynb"))]
    for page in [Path(name).resolve() for name in sys.argv[1:]] or everything:
        for name in execute(page) if page.suffix == ".ipynb" else draw(page):
            print(f"{page.name}: {name}")
