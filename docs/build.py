"""Build the site from the Markdown pages: `python docs/build.py [folder]`. Needs the extra `backprop-mlp[docs]`, and no network.

The pages are read as they are in the repository. They are laid out first, beside the site, together with what is not a page:
the order of reading (from `index.md`) and the reference (from docstrings). Every warning is an error.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

from _site.layout import lay_out  # noqa: E402


def build(folder: Path, quiet: bool = True) -> int:
    """Make the site in `folder`, with its working files in `folder`.pages; 0 if nothing is wrong."""
    from sphinx.cmd.build import main

    pages = folder.with_name(folder.name + ".pages")
    for old in (folder, pages):  # a page that is gone must not stay
        shutil.rmtree(old, ignore_errors=True)
    lay_out(DOCS.parent, pages)
    options = ["-b", "html", "-W", "--keep-going", "-c", str(DOCS), "-d", str(pages / ".trees")]
    return main([*(["-q"] if quiet else []), *options, str(pages), str(folder)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS.parent / "out" / "site")
    folder = parser.parse_args().folder.absolute()
    if code := build(folder):
        sys.exit(code)
    print(f"The site is in {folder / 'index.html'}")
