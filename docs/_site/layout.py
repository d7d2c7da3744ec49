"""The pages of the repository, laid out as the pages of the site.

    docs/X.md                                     X                 at the top, folders below
    README.md, CONTRIBUTING.md, …                 readme, …         lower case
    docs/index.md and index.md of a folder        the order: links that open a row or an item are the contents of their section
    backprop/*.py and whatever else is linked     source:<path>     `sources` shows them, line by line

Links are rewritten, text is not touched, but that the words of a picture come to stand on one line. A page that no index links to
makes Sphinx warn, so it cannot be forgotten.
"""

from __future__ import annotations

import re
import shutil
from os.path import relpath
from pathlib import Path, PurePosixPath

from PIL import Image

from _site.reference import write_reference

OF_THE_PROJECT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
FENCE = re.compile(r"^(`{3,}).*?^\1", re.MULTILINE | re.DOTALL)
DENSE = 120  # pixels in an inch
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))|(?<=src=\")([^\"]+)(?=\")")
ALT = re.compile(r"!\[[^\]]*\]")
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
ENTRY = re.compile(r"^(?:\| |- |\* |\d+\. )\[([^\]]*)\]\(([^)\s#]+)\.md\)", re.MULTILINE)


def lay_out(root: Path, target: Path) -> None:
    """Write every page of `root`, and the pictures it shows, below `target`."""
    for path in [*(root / name for name in OF_THE_PROJECT), *sorted((root / "docs").rglob("*.md"))]:
        if path.exists():
            place = target / place_of(path.relative_to(root).as_posix())
            place.parent.mkdir(parents=True, exist_ok=True)
            text = outside_code(path.read_text("utf-8"), lambda part, path=path: links(part, path, root, target))
            if place.name == "index.md":
                text += contents(text)
            place.write_text(text, "utf-8")
    write_reference(target)


def place_of(path: str) -> str:
    """Where a page or picture of the repository is among the pages of the site."""
    return path.lower() if path in OF_THE_PROJECT else path.removeprefix("docs/")


def outside_code(text: str, change) -> str:
    """The text with `change` applied to what is not a fenced block."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def links(text: str, page: Path, root: Path, target: Path) -> str:
    """The text with its relative links as they are on the site; a picture is copied there."""
    here = PurePosixPath(place_of(page.relative_to(root).as_posix())).parent

    def rewritten(link: re.Match[str]) -> str:
        to, anchor = link[1] or link[3], link[2] or ""
        if re.match(r"[a-z]+:", to):
            return link[0]
        path = relpath(page.parent / to, root)
        if path in OF_THE_PROJECT or (path.startswith("docs/") and path.endswith(".md")):
            return relpath(place_of(path), here) + anchor
        if Path(path).suffix in (".png", ".svg", ".gif", ".ipynb"):
            place = target / place_of(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shown = relpath(place_of(path), here)
            if not (root / path).exists():  # Sphinx says so
                return shown
            shutil.copy(root / path, place)
            width = width_of(root / path) if link[1] else None
            return f"{shown}){{width={width}px" if width else shown
        return f"source:{path}{anchor}"

    text = ALT.sub(lambda words: " ".join(words[0].split()), text)  # of words on two lines Sphinx makes one
    return re.sub(r"(\{width=\d+px)\)", r"\1}", LINK.sub(rewritten, text))


def width_of(picture: Path) -> int | None:
    """The width at which a PNG drawn for dense screens is to be shown, by its own word: 96 pixels are an inch. Else None."""
    if picture.suffix != ".png":
        return None
    try:
        with Image.open(picture) as image:
            density = image.info.get("dpi", (0,))[0]
            return round(image.width * 96 / density) if density >= DENSE else None
    except OSError:  # no picture: the browser says so
        return None


def contents(text: str) -> str:
    """The trees of contents, without a place on the page, of an index: one for each section with entries."""
    trees, seen = "", set()
    titles = ["", *HEADING.findall(text)]
    for title, section in zip(titles, HEADING.split(text)[::2], strict=True):
        entries = [(words, page) for words, page in ENTRY.findall(section) if page not in seen]
        seen |= {page for _, page in entries}
        if entries:
            rows = [f"{words} <{page}>" for words, page in entries]
            lines = ["```{toctree}", ":hidden:", *([f":caption: {title}"] if title else []), "", *rows, "```"]
            trees += "\n" + "\n".join(lines) + "\n"
    return trees
