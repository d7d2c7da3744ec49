"""Where pages were before they got folders: each old address leads to the new one, with the place on the page."""

from __future__ import annotations

import json
from pathlib import Path

from sphinx.application import Sphinx

FOLDERS = {
    "learn": ("graph", "per_example", "curvature", "second_order"),
    "train": ("training", "advice", "checkpoints", "tables", "plots", "regularization"),
    "use": ("check", "estimators", "scikit_learn", "files", "exports"),
    "reference": ("command_line", "api", "design", "performance", "glossary"),
}
MOVED = {page: f"{folder}/{page}" for folder, pages in FOLDERS.items() for page in pages} | {"gallery": "gallery/index"}
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Moved</title>
<noscript><meta http-equiv="refresh" content="0; url={to}"></noscript>
<script>location.replace({quoted} + location.hash)</script></head>
<body><h1>Moved</h1><p>This page is at <a href="{to}">{to}</a> now.</p></body></html>
"""


def redirect(app: Sphinx, error: Exception | None) -> None:
    """Write a page at each old address."""
    for old, new in MOVED.items():
        to = f"{new}.html"
        Path(app.outdir, f"{old}.html").write_text(PAGE.format(to=to, quoted=json.dumps(to)), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to the end of a build."""
    app.connect("build-finished", redirect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
