"""A table of values and derivatives that one can walk through, a number at a time: the values downwards, the derivatives back up.

It is made of the text that a page shows of it, a block whose first line has a ↓ and a ↑. The script `steps.js` adds the buttons;
without it, and where there is no script at all, it is a table.
"""

from __future__ import annotations

import re
from html import escape

from docutils import nodes
from sphinx.application import Sphinx

ROW = re.compile(r"^(\S+)\s+(-?[\d.]+)(?:\s{2,}(\S.*?)\s{2,}(-?[\d.]+)\s+(-?[\d.]+))?$")


def table(text: str) -> str:
    """The text as a table, every number with its place in the walk and a sentence about it."""
    rows = [found.groups() for line in text.splitlines()[1:] if (found := ROW.match(line.strip()))]
    if len(rows) != len(text.splitlines()) - 1:
        raise ValueError(f"not a table of values, factors and derivatives:\n{text}")
    end, lines = len(rows), []
    for i, (name, value, formula, factor, slope) in enumerate(rows):
        cells = [f"<th>{escape(name)}</th>", cell(value, i + 1, f"{name} = {value}, and it is kept for the way back.")]
        if slope:
            above = rows[i + 1]
            chain = f"{formula} · ∂ℓ/∂{above[0]} = {factor} · {bracketed(above[4])}" if above[4] else formula
            said = f"∂ℓ/∂{name} = {chain} = {slope}"
            step = 2 * end - 1 - i
            cells += [cell(formula, step), cell(factor, step), cell(slope, step, said)]
        else:
            cells += ["<td></td>"] * 3
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{words}</th>" for words in ("", "value ↓", "local factor", "", "∂ℓ/∂ … ↑"))
    return (
        f'<div class="steps"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
        '<p class="say" aria-live="polite"></p></div>'
    )


def cell(text: str, step: int, said: str = "") -> str:
    """A cell that appears at a step, with the sentence of it."""
    say = f' data-say="{escape(said)}"' if said else ""
    return f'<td data-step="{step}"{say}>{escape(text)}</td>'


def bracketed(number: str) -> str:
    """A negative number in brackets, for a product."""
    return f"({number})" if number.startswith("-") else number


def walk(app: Sphinx, doctree: nodes.document) -> None:
    """Put the table in the place of its text."""
    for block in list(doctree.findall(nodes.literal_block)):
        first = block.astext().partition("\n")[0]
        if "↓" in first and "↑" in first and block.get("language") == "text":
            block.replace_self(nodes.raw("", table(block.astext()), format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen, and bring the script along."""
    app.connect("doctree-read", walk)
    app.add_js_file("steps.js", loading_method="defer")
    app.add_css_file("steps.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
