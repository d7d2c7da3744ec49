"""Where in somebody's own code an error came from, and the shapes of what met there.

NumPy says of a product that does not fit which of its own arguments were wrong. A reader looks for his line and his names.
"""

from __future__ import annotations

import ast
import linecache
import os
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np

# Folders in which nobody looks for his own mistake.
LIBRARIES = tuple(str(Path(file).parent) + os.sep for file in (__file__, np.__file__))
SIGNS = {ast.MatMult: "@", ast.Mult: "*", ast.Add: "+", ast.Sub: "-", ast.Div: "/"}


@dataclass(frozen=True)
class Place:
    """A line of somebody's own: the function it is in, its number, the code that failed, and the shapes in it, "" if unknown."""

    function: str
    line: int
    code: str
    shapes: str

    def __str__(self) -> str:
        said = f"`{self.code}`" + (f", which is {self.shapes}" if self.shapes else "")
        return f"{self.function}, line {self.line}" + (f": {said}" if self.code else "")


def place_of(error: BaseException) -> Place | None:
    """The last line of the traceback that is not in a library, or None.

    >>> import numpy as np
    >>> def product(a, b): return a @ b
    >>> try:
    ...     product(np.ones((3, 4)), np.ones((3, 7)))
    ... except ValueError as error:
    ...     print(place_of(error))
    product, line 1: `a @ b`, which is (3, 4) @ (3, 7)
    """
    found = None
    step: TracebackType | None = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(LIBRARIES):
            found = step
        step = step.tb_next
    return _place(found) if found else None


def shapes(error: BaseException) -> str:
    """That line and the shapes in it as the end of a sentence, where they are known."""
    place = place_of(error)
    return f": {place.code} is {place.shapes}" if place and place.shapes else ""


def _place(step: TracebackType) -> Place:
    code = step.tb_frame.f_code
    positions = list(code.co_positions())[step.tb_lasti // 2]
    text = _text(code.co_filename, *positions)
    return Place(code.co_name, step.tb_lineno, text, _shapes(text, step.tb_frame))


def _text(file: str, line: int | None, last: int | None, start: int | None, end: int | None) -> str:
    """What stands at a position of a file, in one line; columns are counted in bytes."""
    if line is None or last is None or start is None or end is None:
        return ""
    lines = [linecache.getline(file, number).encode() for number in range(line, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return " ".join(b"".join(lines).decode(errors="replace").split())


def _shapes(text: str, frame: FrameType) -> str:
    """The shapes of the two operands of an operation, such as "(3, 4) @ (3, 7)"."""
    try:
        operation = ast.parse(text, mode="eval").body
        if not isinstance(operation, ast.BinOp):
            return ""
        left, right = (_value(operand, frame).shape for operand in (operation.left, operation.right))
    except Exception:  # not an operation of two arrays by name: the line alone must do
        return ""
    return f"{left} {SIGNS.get(type(operation.op), '∘')} {right}"


def _value(operand: ast.expr, frame: FrameType) -> Any:
    """What a name, an attribute or an entry of one stands for; nothing is called."""
    match operand:
        case ast.Name(name):
            return frame.f_locals[name] if name in frame.f_locals else frame.f_globals[name]
        case ast.Attribute(of, name):
            return getattr(_value(of, frame), name)
        case ast.Subscript(of, ast.Constant(key)):
            return _value(of, frame)[key]
    raise TypeError("not a plain name")
