r"""Which line of code a displayed equation stands for.

    $$ f = \beta + \Omega h $$                          below it, in a paragraph of its own:
    `backprop/losses/base.py`: `return d * d`         a file of the repository and a part of one of its lines
    `backprop/layers/linear.py`, `forward`: `self.omega @ h`    the same, of a line of the only function of that name in it
    `this page`: `p = beta + omega * x`                     or of a line of the page's own Python blocks

The code must be part of exactly one line, so that a reader finds it and a change of it is noticed. ` · ` joins several.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = "this page"
EQUATION = re.compile(r"^\$\$$.*?^\$\$$|^\$\$[^\n]+\$\$$", re.MULTILINE | re.DOTALL)
IMPLEMENTED = re.compile(r"`([^`]+)`(?:,\s+`(\w+)`)?:\s+(`[^`]+`(?:\s+·\s+`[^`]+`)*)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class NotOnce(ValueError):
    """Code that should be part of exactly one line is not."""


def line_of(text: str, code: str, function: str | None = None) -> int:
    """The number, from 1, of the only line of a text, or of a function in it, that contains some code."""
    first, last = lines_of(text, function) if function else (1, len(text.splitlines()))
    lines = list(enumerate(text.splitlines(), 1))[first - 1 : last]
    found = [number for number, line in lines if code in line]
    if len(found) != 1:
        raise NotOnce(f"{code!r} is part of {len(found)} lines, not of one" + (f": {found[:5]}" if found else ""))
    return found[0]


def lines_of(text: str, function: str) -> tuple[int, int]:
    """The first and the last line of the only function of a name."""
    definitions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    found = [(node.lineno, node.end_lineno or node.lineno) for node in definitions if node.name == function]
    if len(found) != 1:
        raise NotOnce(f"{function!r} is the name of {len(found)} functions, not of one")
    return found[0]


@cache
def text_of(path: str) -> str:
    """The text of a file of the repository."""
    file = (ROOT / path).resolve()
    if not file.is_relative_to(ROOT) or not file.is_file():
        raise NotOnce(f"there is no file {path}")
    return file.read_text("utf-8")


def find(page: str, equation: re.Match[str]) -> list[tuple[str, int]]:
    """The files and lines that stand for a displayed equation of a page. Raises NotOnce where the page does not say them."""
    below = page[equation.end() :].lstrip("\n").split("\n\n", 1)[0].strip()
    said = IMPLEMENTED.fullmatch(below)
    if said is None:
        raise NotOnce(f"no line of code below {equation[0]!r}, but {below[:60]!r}")
    path, function, codes = said[1], said[2], re.findall(r"`([^`]+)`", said[3])
    text = "".join(BLOCK.findall(page)) if path == HERE else text_of(path)
    return [(path, line_of(text, code, function)) for code in codes]
