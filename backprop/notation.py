"""The equations of a layer or loss, read off the table in its docstring, so that each stands once."""

from __future__ import annotations

import re

ROW = re.compile(r"^ *(f|ℓ|∂\S+) += (.+?)(?: {3,}.*)?$", re.MULTILINE)  # what comes after three spaces is a remark


def equations(doc: str | None) -> tuple[str, ...]:
    """Forward, then backward; () where the docstring has no such table.

    >>> equations('''Doubles.
    ...
    ...     f      = 2 h          (D, N)
    ...     ∂L/∂h  = 2 ∂L/∂f
    ... ''')
    ('f = 2 h', '∂L/∂h = 2 ∂L/∂f')
    """
    rows = ROW.findall(doc or "")
    return tuple(f"{name} = {right}" for name, right in rows) if len(rows) > 1 and rows[0][0] in "fℓ" else ()
