"""What is read off the class of a layer, loss or rule, so that it stands once: its equations, and whether it is traced."""

from __future__ import annotations

import re
from typing import ClassVar

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


class Part:
    """What layers, losses and rules have in common."""

    # The promise that each pass makes the same NumPy calls (docs/how_to/write_a_layer.md); each class speaks for itself.
    traced: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        own = vars(cls)
        if "traced" not in own and cls.__module__.startswith("backprop."):
            cls.traced = True
        if hasattr(cls, "equations") and "equations" not in own and (written := equations(cls.__doc__)):
            cls.equations = written
