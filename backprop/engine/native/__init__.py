"""Native: a step without Python.

    player.c    plays a list of operations, many steps in one call, the interpreter lock released
    loops       its kinds of operations, and NumPy's inner loops by address
    lower       makes the list of the calls that the NumPy player makes
    fuse        what an optimizer's rule does entry by entry, in fewer loops
    program     a whole step: rows picked, both passes, the rule
    compiled    the way forward as a function of rows

`player` is None where there was no C compiler when the package was installed: then NumPy plays everything.
"""

from importlib import import_module
from typing import Any

VERSION = 7  # of the player that the code here knows

player: Any
try:
    player = import_module("backprop.engine.native.player")
except ImportError:
    player = None
else:  # one that was built from an older file, as after an update of a checkout, is none
    player = player if getattr(player, "VERSION", 0) == VERSION else None
