"""Mathematics in a sentence, set like that in the formulas: f₀, ∂ℓ/∂f, Ωᵀ, written in plain letters, get the class `letters`."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

LETTER = r"[∂δ]?[A-Za-zΩβφαγσμλθΣℓΦε](?:[₀-₉ₖₙⱼᵢ]+|[ᵀ′])*"
# A letter, or two with a stroke between, one sign of which no ordinary word has.
TOKEN = re.compile(rf"(?<![\w∂/.])(?=[\w∂/ᵀ′]*[Ωβφαγσμλℓε∂₀-₉ₖₙⱼᵀ]){LETTER}(?:/{LETTER})?(?![\w/])")
OTHER = (
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.title,
    addnodes.desc_signature,
)


def set_letters(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give letters of mathematics in sentences their class."""
    for text in list(doctree.findall(nodes.Text)):
        if any(isinstance(above, OTHER) for above in ancestors(text)) or not TOKEN.search(text):
            continue
        pieces: list[nodes.Node] = []
        end = 0
        for token in TOKEN.finditer(text):
            pieces += [nodes.Text(text[end : token.start()]), nodes.inline("", token[0], classes=["letters"])]
            end = token.end()
        text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def ancestors(node: nodes.Node) -> list[nodes.Node]:
    """The nodes around a node, the nearest first."""
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to the end of reading."""
    app.connect("doctree-resolved", set_letters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
