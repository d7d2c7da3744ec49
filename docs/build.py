"""Build the site from the Markdown pages: `python docs/build.py [folder]`. Needs the extra `backprop-mlp[docs]`, and no network.

The pages are read as they are in the repository. They are laid out first, beside the site, together with what is not a page:
the order of reading (from `index.md`) and the reference (from docstrings). Every warning is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

from _site.layout import lay_out  # noqa: E402
from _site.made import emptied, make  # noqa: E402


def build(folder: Path) -> int:
    """Make the site in `folder`, with its working files in `folder`.pages; 0 if nothing is wrong."""
    from sphinx.cmd.build import main

    pages = emptied(folder)
    lay_out(DOCS.parent, pages)
    options = ["-q", "-b", "html", "-W", "--keep-going", "-c", str(DOCS), "-d", str(pages / ".trees")]
    return main([*options, str(pages), str(folder)])


if __name__ == "__main__":
    make(build, "site", __doc__)
