"""From what is said to the line that does it: the source as pages with an anchor at every line, and the links to them.

source:backprop/layers/linear.py    a link to a file that is no page: `layout` writes it so
the line below an equation          to that line, see `equations`
an entry of the reference           to the line it begins at
a public name in backticks          to its entry in the reference
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from html import escape
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.addnodes import desc_signature
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.osutil import relative_uri

from _site.equations import HERE, IMPLEMENTED, ROOT, NotOnce, line_of, text_of

CALL = re.compile(r"(?:bp\.)?([A-Za-z_][\w.]*)(?:\(.*\))?", re.DOTALL)
WORDS = {"net": "Sequential", "trainer": "Trainer", "loss": "Loss", "optimizer": "Optimizer", "table": "Table"}
logger = logging.getLogger(__name__)


def link_equations(app: Sphinx, doctree: nodes.document) -> None:
    """Turn the paragraph below each displayed equation into links to the lines of code it names."""
    for equation in list(doctree.findall(nodes.math_block)):
        paragraph = equation.next_node(descend=False, siblings=True)
        if isinstance(paragraph, nodes.paragraph) and IMPLEMENTED.fullmatch(paragraph.rawsource.strip()):
            paragraph["classes"].append("implements")
            try:
                link_code(doctree, paragraph)
            except NotOnce as error:
                logger.warning("%s", error, location=paragraph)


def link_code(doctree: nodes.document, paragraph: nodes.paragraph) -> None:
    """Link each piece of code in a paragraph to its line, or to its block on this page."""
    said = IMPLEMENTED.fullmatch(paragraph.rawsource.strip())
    function = said[2] if said else None
    path, *codes = paragraph.findall(nodes.literal)
    if path.astext() != HERE:  # the whole path is where the link leads
        path.replace_self(nodes.literal("", PurePosixPath(path.astext()).name))
    for code in codes[1:] if function else codes:
        if path.astext() == HERE:
            code.replace_self(reference_to(code, refid=block_with(doctree, code.astext())))
        else:
            line = line_of(text_of(path.astext()), code.astext(), function)
            code.replace_self(reference_to(code, refuri=f"source:{path.astext()}#L{line}"))


def reference_to(node: nodes.Node, **where: str) -> nodes.reference:
    """A link with a node as its text."""
    return nodes.reference("", "", node.deepcopy(), internal=True, **where)


def block_with(doctree: nodes.document, code: str) -> str:
    """The anchor of the Python block of a page that contains some code in one line."""
    blocks = [block for block in doctree.findall(nodes.literal_block) if block.get("language") == "python"]
    line_of("\n".join(block.astext() for block in blocks), code)
    (block,) = (block for block in blocks if code in block.astext())
    if not block["ids"]:
        block["ids"].append(f"code-{blocks.index(block) + 1}")
    return block["ids"][0]


def line_in_source(module: str, full_name: str) -> str | None:
    """Where a name of the reference begins, as a link."""
    thing: Any = import_module(module)
    try:
        for part in full_name.split("."):
            thing = getattr(thing, part)
        thing = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
        file, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]
    except (AttributeError, TypeError, OSError):
        return None
    path = Path(file or "").resolve()
    return f"source:{path.relative_to(ROOT).as_posix()}#L{line}" if path.is_relative_to(ROOT) else None


def link_signatures(app: Sphinx, doctree: nodes.document) -> None:
    """Hang a link to the source on each entry of the reference."""
    for signature in doctree.findall(desc_signature):
        where = line_in_source(signature.get("module") or "backprop", signature.get("fullname", ""))
        if where:
            link = nodes.reference("", "source", internal=True, refuri=where, classes=["to-source"])
            signature += nodes.inline("", "", link, classes=["to-source"])


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link public names in backticks to the reference, and `source:` links to the pages made below."""
    objects = app.env.domains.python_domain.objects
    for literal in list(doctree.findall(nodes.literal)):
        known = next((objects[name] for name in full_names(literal.astext()) if name in objects), None)
        if known and not inside(literal, nodes.reference, nodes.title, desc_signature):
            page = "" if known.docname == docname else app.builder.get_relative_uri(docname, known.docname)
            literal.replace_self(reference_to(literal, refuri=f"{page}#{known.node_id}"))
    for reference in doctree.findall(nodes.reference):
        scheme, _, rest = reference.get("refuri", "").partition(":")
        if scheme == "source":
            path, hash_, line = rest.partition("#")
            app.env.linked_sources.add(path)
            to = app.builder.get_target_uri(f"source/{path}")
            reference["refuri"] = relative_uri(app.builder.get_target_uri(docname), to) + hash_ + line


def full_names(code: str) -> list[str]:
    """What a name in backticks may stand for: a public name, an estimator, or a method of what its first word says."""
    call = CALL.fullmatch(code)
    if call is None:
        return []
    first, _, rest = call[1].partition(".")
    method = [f"backprop.{WORDS[first]}.{rest}"] if first in WORDS and rest else []
    return [f"backprop.{call[1]}", f"backprop.estimators.{call[1]}", *method]


def inside(node: nodes.Node, *kinds: type) -> bool:
    """Whether a node has an ancestor of one of these kinds."""
    while node is not None and not isinstance(node, kinds):
        node = node.parent
    return node is not None


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages of the files that are linked to."""
    for path in sorted(app.env.linked_sources):
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        code = highlight(text_of(path), lexer, HtmlFormatter(linespans="L", wrapcode=True))
        code = re.sub(r'<span id="L-(\d+)">', r'<span class="line" id="L\1">', code)
        yield f"source/{path}", {"title": path, "body": f"<h1>{escape(path)}</h1>\n{code}", "parents": []}, "page.html"


def prepare(app: Sphinx) -> None:
    """Begin with no file linked to."""
    app.env.linked_sources = set()


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to the steps of a build."""
    app.connect("builder-inited", prepare)
    app.connect("doctree-read", link_equations)
    app.connect("doctree-read", link_signatures)
    app.connect("doctree-resolved", link_names)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": False, "parallel_write_safe": False}
