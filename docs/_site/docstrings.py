"""Our docstrings as reStructuredText: they are plain text, with equations as indented blocks and code in single backticks.

A block stays as it is written, in the letters and columns of the source. In sentences only what is between backticks is special;
a name of the library becomes a link. "Raises …" and "Source: …" open with that word in bold.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"`([^`]+)`")
NAME = re.compile(r"[A-Za-z_][\w.]*")
SPECIAL = re.compile(r"([\\*|_])")
LEAD = re.compile(r"^(Raises|Source:|Sources:)(?= )", re.MULTILINE)


def sentence(text: str) -> str:
    """One paragraph, its signs escaped."""
    parts = CODE.split(text)  # every other part is code
    for index, part in enumerate(parts):
        if index % 2:
            parts[index] = f":py:obj:`{part}`" if NAME.fullmatch(part) else f"``{part}``"
            # A letter may follow a closing backtick in our text, but not in this markup.
            parts[index] = f"\\ {parts[index]}\\ "
        else:
            parts[index] = SPECIAL.sub(r"\\\1", part)
    return LEAD.sub(r"**\1**", "".join(parts))


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """The parts of a docstring: paragraphs, and indented blocks with the empty lines inside them."""
    block: list[str] = []
    for line in [*lines, ""]:
        indented = line.startswith(" ")
        if block and line and indented != block[0].startswith(" ") and not block[0].startswith(("- ", ">>>")):
            yield block
            block = []
        if line or (block and block[0].startswith(" ")):
            block.append(line)
        elif block:
            yield block
            block = []
    if any(block):
        yield block


def process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring."""
    result: list[str] = []
    for block in blocks(lines):
        if block[0].startswith(">>>"):
            result += [".. code-block:: pycon", "", *(f"   {line}" for line in block)]
        elif block[0].startswith(" "):
            result += [".. code-block:: text", "   :class: equations", ""]
            result += [f"   {line}" for line in textwrap.dedent("\n".join(block)).split("\n")]
        else:
            result += sentence("\n".join(block)).split("\n")
        result.append("")
    lines[:] = result


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what is not ours, such as the methods that scikit-learn makes for metadata routing."""
    return True if str(getattr(thing, "__module__", "backprop")).startswith("sklearn") else None


def signature(app: Sphinx, what: str, name: str, thing: Any, *rest: Any) -> tuple[str, str] | None:
    """The arguments of a class as Python sees them; autodoc would show those of `__new__`, which takes anything."""
    if what != "class":
        return None
    parameters = inspect.signature(thing).parameters.values()
    return str(inspect.Signature([one.replace(annotation=one.empty) for one in parameters])), ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to autodoc."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
