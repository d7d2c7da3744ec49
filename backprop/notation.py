"""What is read off the class of a layer, loss or rule, so that it stands once: its equations, its arguments, if it is traced."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

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


def call(thing: object, **instead: object) -> str:
    """The call that makes an object: its class and those constructor arguments that are known and not at their default.

    >>> import backprop as bp
    >>> call(bp.StepDecay(0.1, every=10))
    'StepDecay(learning_rate=0.1, every=10)'
    """
    values = []
    for name, parameter in _parameters(type(thing).__init__).items():
        value = instead.get(name, getattr(thing, name, parameter.default))
        unknown = value is parameter.empty or (value is None and parameter.default is parameter.empty)
        if name != "self" and not unknown and not _same(value, parameter.default):
            values.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(values)})"


def _same(value: Any, default: Any) -> bool:
    try:
        return value is default or bool(value == default)
    except ValueError:  # an array of several numbers is no default
        return False


@cache
def _parameters(constructor: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Read once: every pass asks for the name of its loss, in case there is something to complain about."""
    return inspect.signature(constructor).parameters


def settings(part: object, **instead: object) -> None:
    """Refuse what the constructor of a part of the library would: settings may have been assigned since."""
    kind = type(part)
    if not kind.__module__.startswith("backprop."):
        return
    values = {}
    for name, parameter in _parameters(kind.__init__).items():
        if hasattr(part, name):
            values[name] = instead.get(name, getattr(part, name))
        elif parameter.default is parameter.empty and name != "self":
            values[name] = getattr(part, "in_features", None)  # of a normalization, which keeps the width
    kind(**values)
