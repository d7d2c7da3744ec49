"""Make slides of the notes: `python docs/slides.py [folder]`. Needs the extra `backprop-mlp[docs]`, and no network.

What one would put on a board becomes a slide: equations with their lines of code, pictures, tables, lists, short outputs, and the
sentences with bold words. The rest of the text goes to the speaker's notes (press S). Each section has one slide or more.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

from _site.equations import IMPLEMENTED  # noqa: E402
from _site.made import emptied, make  # noqa: E402

DETAILS = re.compile(r"<details>.*?</details>\n", re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\([^)]+\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$|^(\$\$)$\n(.*?)^\$\$$", re.MULTILINE | re.DOTALL)
SENTENCE = re.compile(r"(?<=[.:?])\s+(?=[A-Z*])")
ROOM, MOST_LINES = 9, 16  # of a slide, in lines of text; of an output that is shown
SETTINGS = {
    "extensions": ["myst_parser", "sphinx_revealjs", "sphinx.ext.mathjax", "_site.mathjax"],
    "myst_enable_extensions": ["dollarmath"],
    "project": "backprop",
    "html_title": "backprop",
    "smartquotes": False,
    "highlight_language": "text",
    "revealjs_style_theme": "white",
    "revealjs_static_path": [str(DOCS / "_static")],
    "revealjs_css_files": ["slides.css"],
    "revealjs_script_conf": {"hash": True, "slideNumber": "c/t", "width": 1100, "height": 750, "transition": "none"},
    "revealjs_script_plugins": [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}],
    "html_copy_source": False,
}


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, fenced blocks and displayed equations."""
    end = 0
    for found in FENCED.finditer(text):
        yield from filter(None, map(str.strip, text[end : found.start()].split("\n\n")))
        yield found[0]
        end = found.end()
    yield from filter(None, map(str.strip, text[end:].split("\n\n")))


def shown(block: str) -> tuple[str, int]:
    """What of a block goes onto a slide, and how many lines it takes; "" for nothing."""
    if block.startswith(("```python", "`this page`", "<")):
        return "", 0
    lines = block.count("\n") + 1
    if block.startswith("```"):
        return (block, lines // 2) if lines - 2 <= MOST_LINES else ("", 0)
    if block.startswith("$$"):
        return block, 2 + block.count("\\\\")
    if block.startswith("!["):
        return block, ROOM
    if block.startswith(("|", "- ", "1. ")) or IMPLEMENTED.fullmatch(block):
        return block, lines
    bold = [sentence for sentence in SENTENCE.split(block) if "**" in sentence]
    return " ".join(bold), 2 * len(bold)


def section(text: str) -> str:
    """A section as slides: as much on each as there is room for, the rest of the words in the notes of the speaker."""
    slides: list[tuple[list[str], list[str]]] = [([], [])]
    left = ROOM
    for block in blocks(text):
        visible, lines = shown(block)
        if visible and lines > left and slides[-1][0] and not IMPLEMENTED.fullmatch(block):
            slides.append(([], []))
            left = ROOM
        if visible:
            slides[-1][0].append(visible)
            left -= lines
        if block[0] not in "`$!|<-":
            slides[-1][1].append(" ".join(block.split()))
    parts = []
    for board, words in slides:
        said = "\n\n".join(words)
        board = board or [SENTENCE.split(said)[0]]
        notes = f"````{{revealjs-notes}}\n{said}\n````" if said else ""
        parts.append("\n\n".join([*board, notes]))
    return "\n\n```{revealjs-break}\n```\n\n".join(parts)


def deck(page: str) -> str:
    """A page of the notes as a deck."""
    page = LINK.sub(r"\1", DETAILS.sub("", page))
    page = re.sub(r"^Next: .*$|^Back to .*$", "", page, flags=re.MULTILINE)
    title, *parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    head, _, opening = title.partition("\n")
    sections = [f"## {name}\n\n{section(body)}" for name, body in zip(parts[::2], parts[1::2], strict=True)]
    return "\n\n".join([head, section(opening), *sections]) + "\n"


def lay_out(notes: Path, target: Path) -> list[str]:
    """Write the decks and what they show to a folder, and return their names."""
    target.mkdir(parents=True, exist_ok=True)
    names = []
    for page in sorted(notes.glob("[0-9][0-9]_*.md")):
        (target / page.name).write_text(deck(page.read_text("utf-8")), "utf-8")
        names.append(page.stem)
    for picture in notes.iterdir():
        if picture.suffix in (".png", ".svg"):
            shutil.copy(picture, target)
    listing = "\n".join(f"- [{name.replace('_', ' ')}]({name}.md)" for name in names)
    tree = "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])
    (target / "index.md").write_text(f"# The notes, as slides\n\n{listing}\n\n{tree}\n", "utf-8")
    return names


def build(folder: Path) -> int:
    """Make the slides in `folder`, with its working files in `folder`.pages; 0 if nothing is wrong."""
    from sphinx.application import Sphinx

    pages = emptied(folder)
    lay_out(DOCS / "notes", pages)
    settings = SETTINGS | {"exclude_patterns": [".trees"]}
    app = Sphinx(pages, None, folder, pages / ".trees", "revealjs", settings, status=None, warningiserror=True)
    app.build()
    return app.statuscode


if __name__ == "__main__":
    make(build, "slides", __doc__)
