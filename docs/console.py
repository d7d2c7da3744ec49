"""Show anew what the commands of a page print: `python docs/console.py [page …]`.

Runs the Python blocks and the console lines of each page, in order, in a folder of its own, and writes what the commands say to
the text below them, where there is one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = ("how_to/hold_out_honestly.md", "how_to/going_on.md")
PIECE = re.compile(
    r"^```python\n(?P<python>.*?)^```$|^```console\n(?P<console>.*?)^```$(?P<text>\n\n```text\n.*?^```$)?",
    re.MULTILINE | re.DOTALL,
)


def replay(page: Path) -> None:
    """Write the page again with what its commands say now."""
    namespace = {"__name__": page.stem}

    def said(piece: re.Match[str]) -> str:
        if piece["console"] is None:
            exec(compile(piece["python"], str(page), "exec"), namespace)
            return piece[0]
        text = ""
        for line in piece["console"].splitlines():
            command = [sys.executable, "-m", *shlex.split(line.removeprefix("$ "))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            text += done.stderr + done.stdout
        shown = f"\n\n```text\n{text}```" if piece["text"] else ""
        return f"```console\n{piece['console']}```{shown}"

    text, before = page.read_text("utf-8"), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = PIECE.sub(said, text)
        os.chdir(before)
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:] or [str(DOCS / page) for page in PAGES]:
        replay(Path(name))
