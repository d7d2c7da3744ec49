"""Mathematics without a network: MathJax and its fonts are copied from an installed package into the site."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from sphinx.application import Sphinx

PACKAGE = "sphinx-mathjax-offline"  # a name with hyphens cannot be imported, but it can be found
PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2")  # of 24 MB the 1.5 that pages ask for


def copy(app: Sphinx) -> None:
    """Put the parts that pages ask for into the static files of the site."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError(f'mathematics needs {PACKAGE}: pip install "backprop-mlp[docs]"')
    package = Path(spec.origin).parent / "static" / "mathjax"
    for part in PARTS:
        target = Path(app.outdir, "_static", "mathjax", part)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (package / part).is_dir() else shutil.copy)(package / part, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Load the copy in place of the one on the net, without its menu, which would go there."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.config.mathjax3_config = {"options": {"enableMenu": False}}
    app.connect("builder-inited", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
