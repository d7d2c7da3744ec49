"""The settings of Sphinx for the site; see `build.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from backprop import __version__

project = "backprop"
author = "the backprop authors"
copyright = "2026, the backprop authors, BSD-3-Clause"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "_site.docstrings",
    "_site.sources",
    "_site.letters",
    "_site.mathjax",
    "_site.steps",
    "_site.moved",
]
exclude_patterns = [".trees"]
highlight_language = "text"  # of blocks that do not name one
show_warning_types = True

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = False
myst_url_schemes = ["http", "https", "mailto", "source"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and kinds are in the text; annotations of arrays say less
add_module_names = False
default_role = "py:obj"
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
smartquotes = False  # "full" in a sentence is what one types

html_theme = "furo"
html_title = "backprop"
html_static_path = ["_static"]
html_css_files = ["backprop.css"]
html_js_files = [("search_text.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#1b4f9c", "color-brand-content": "#1b4f9c"},
    "dark_css_variables": {"color-brand-primary": "#8ab4f8", "color-brand-content": "#8ab4f8"},
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
