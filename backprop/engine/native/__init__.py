"""Native: a step without Python.

    player.c    plays a list of operations, many steps in one call, the interpreter lock released
    lower       makes it of the calls that the NumPy player makes
    program     a whole step: rows picked, both passes, the rule
    compiled    the way forward as a function of a row

`player` is None where there was no C compiler when the package was installed: then NumPy plays everything.
"""

from importlib import import_module
from typing import Any

player: Any
try:
    player = import_module("backprop.engine.native.player")
except ImportError:
    player = None
