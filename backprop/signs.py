"""Signs of mathematics on an output that has no place for them: spelled, Ω as omega, where Python would end the program.

An output that is not UTF-8, as where Windows writes to a file, or under LANG=C, knows no Ω and no arrow. Python then raises
UnicodeEncodeError in the middle of `print(net)`. `let_print` has such an output spell the signs of this library; every other
character that it does not know stays the error it was, for what is not ours is not ours to change. Columns stay under each other:
the blanks behind a cell pay for the letters that its spelling takes.
"""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

TABLE = """
    α alpha  β beta  γ gamma  δ delta  ε epsilon  λ lambda  μ mu  π pi  ρ rho  σ sigma  τ tau  φ phi  ω omega
    Δ Delta  Σ Sum  Φ Phi  Ω omega  ∂ d  ℓ l  𝕀 I
    → ->  ← <-  ↦ ->  √ sqrt  − -  – -  × x  ÷ /  · *  ⊙ *  • *  … ...  ’ '  “ "  ” "  ‖ ||  ⌊ [  ⌋ ]  ∘ o  ′ '  ″ ''
    ≈ ~  ∝ ~  ≠ !=  ≤ <=  ≥ >=  ± +-  ∞ inf  ½ 1/2  ¼ 1/4  ¾ 3/4  ⅓ 1/3
"""
_WORDS = TABLE.split()
CELL = re.compile(r"(\S++(?: \S++)*+)(  ++)")  # what stands in a column, and the blanks up to the next one
SPELLED = dict(zip(_WORDS[::2], _WORDS[1::2], strict=True)) | {"\u0302": "^", "\u0304": "", "\u00a0": " "}


def spelled(sign: str) -> str | None:
    """A sign of ours in ASCII, a raised or lowered letter after ^ or _; None for any other.

    >>> spelled("∂"), spelled("₅"), spelled("ᵀ"), spelled("本")
    ('d', '_5', '^T', None)
    """
    place, _, code = unicodedata.decomposition(sign).partition(" ")
    if sign not in SPELLED and place in ("<sub>", "<super>"):
        base = chr(int(code, 16))
        return {"<sub>": "_", "<super>": "^"}[place] + ("-" if base == "−" else base)
    return SPELLED.get(sign)


def letters(text: str) -> str:
    """A text as an output shows it that knows none of our signs; what is not ours stays.

    >>> letters("∂L/∂Ω of größe")
    'dL/domega of größe'
    """
    return "".join(sign if (found := spelled(sign)) is None else found for sign in text)


def spelling(
    otherwise: Callable[[UnicodeError], tuple[str | bytes, int]],
) -> Callable[[UnicodeError], tuple[str | bytes, int]]:
    """What a codec does with characters it does not know: spell them if they are ours, else what is done otherwise."""

    def spell(error: UnicodeError) -> tuple[str | bytes, int]:
        if not isinstance(error, UnicodeEncodeError) or (sign := spelled(error.object[error.start])) is None:
            return otherwise(error)
        cell = CELL.match(error.object, error.start)
        words = letters(cell[1]) if cell else ""
        if not cell or not words.isascii():  # a character that is not ours is told of when its turn comes
            return sign, error.start + 1
        return words.ljust(max(cell.end() - cell.start(), len(words) + 2)), cell.end()

    return spell


codecs.register_error("backprop.spell", spelling(codecs.strict_errors))
codecs.register_error("backprop.tell", spelling(codecs.backslashreplace_errors))


def let_print(stream: Any, names: bool = False) -> None:
    """Have a text stream spell our signs if its encoding lacks them; with `names`, escape what else it lacks.

    Nothing changes for UTF-8, nor for a stream whose owner has said what to do with such characters.

    >>> import io
    >>> stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    >>> let_print(stream)
    >>> print("∂L/∂Ω → 2", file=stream, flush=True)
    >>> stream.buffer.getvalue().strip()
    b'dL/domega -> 2'
    """
    errors = {"strict": "backprop.spell", "backprop.spell": "backprop.spell", "backslashreplace": "backprop.tell"}
    found = errors.get(getattr(stream, "errors", None) or "")
    if found and hasattr(stream, "reconfigure") and not knows_all(stream):
        stream.reconfigure(errors="backprop.tell" if names else found)


def knows_all(stream: Any) -> bool:
    """Whether a text stream has a place for every character; one without an encoding holds text itself."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name.startswith("utf")


def let_all_print(names: bool = False) -> None:
    """The same for standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        let_print(stream, names)
