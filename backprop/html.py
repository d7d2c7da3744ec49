"""Tables as a notebook shows them: what `_repr_html_` of reports returns. No color is set, so they fit light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MOST = 12  # rows that are shown whole
CELL = "padding: 0.15em 0.7em; white-space: nowrap; text-align: {side}"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], *below: str, names: int = 1) -> str:
    """A table under a title, with sentences below it. The first `names` columns are words, the others numbers.

    >>> table("Losses", ["epoch", "loss"], [[1, "0.5"]], "Done.").count("<td")
    2
    """
    sides = ["left" if j < names else "right" for j in range(len(head))]
    lines = [_row("th", head, sides), *(_row("td", row, sides) for row in rows)]
    body = f"<table>{''.join(lines)}</table>" if head else ""
    return f"<div><strong>{escape(title)}</strong>{body}{''.join(map(paragraph, below))}</div>"


def _row(tag: str, cells: Iterable[object], sides: Sequence[str]) -> str:
    text = ""
    for cell, side in zip(cells, sides, strict=True):
        text += f'<{tag} style="{CELL.format(side=side)}">{escape(str(cell))}</{tag}>'
    return f"<tr>{text}</tr>"


def paragraph(text: str) -> str:
    """A sentence or more, as one reads it."""
    return f'<p style="margin: 0.3em 0">{escape(text)}</p>'


def fixed(text: str) -> str:
    """Text whose columns stay under each other."""
    return f"<pre>{escape(text)}</pre>"


def shortened(rows: Sequence[Sequence[object]], most: int = MOST) -> list[Sequence[object]]:
    """The first and the last rows of many, with a row of … between them.

    >>> len(shortened([[i] for i in range(100)])), shortened([[1], [2]])
    (12, [[1], [2]])
    """
    if len(rows) <= most:
        return list(rows)
    return [*rows[: most // 4], ["…"] * len(rows[0]), *rows[most // 4 - most + 1 :]]
