"""Words that are no names of categories: numbers with an odd cell among them, numbers written in another way, dates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

FEW = 20  # so many different values with a unit may well be names: "5 kg", "10 kg"

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_SIGN = "[+\\-\u2212\u2013]?"
_SPACES = "[ \u00a0\u202f]"
_MONEY = r"(?:[$€£¥]|EUR|USD|GBP|CHF)?"
_GROUPED = rf"(?:\d{{1,3}}(?:(?:[.,'’]|{_SPACES})\d{{3}})+(?:[.,]\d+)?|\d*[.,]?\d+(?:[.,])?(?:[eE][+-]?\d+)?)"
_PLAIN = rf"{_SIGN}{_MONEY}{_SPACES}?{_SIGN}{_GROUPED}"
_ANOTHER = rf"\(?{_PLAIN}{_SPACES}?(?:[%‰]|{_MONEY})\)?[-\0]?"
_UNIT = rf"(?:[<>≤≥~≈]=?{_SPACES}?)?{_PLAIN}(?:[<>≤≥+]|{_SPACES}?[^\W\d_][°/²³\w]{{0,14}}\.?|{_SPACES}?[°%][^\W\d_]?)?"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?:Z| ?[+-]\d{2}:?\d{2})?"
_MONTH = r"(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[^\W\d_]*\.?"
_DAY = (
    r"\d{4}([-/.])\d{1,2}\1\d{1,2}\.?|\d{1,2}([-/.])\d{1,2}\2(?:\d{4}|\d{2})"
    rf"|\d{{1,2}}{_MONTH}\d{{2,4}}|(?:\d{{1,2}}\.?[ -])?{_MONTH}[ -](?:\d{{1,2}},? )?\d{{2,4}}|\d{{1,2}}\. {_MONTH} \d{{4}}"
)
_DATE = rf"(?:[^\W\d_]{{2,9}}[,.]? )?(?:{_DAY})(?:,?[ T]{_CLOCK})?|{_CLOCK}"

PATTERNS = {
    "number": re.compile(rf"(?:{NUMBER}|[+-]?(?:inf|nan)(?:inity)?)", re.IGNORECASE),
    "date": re.compile(_DATE, re.IGNORECASE),
    "another": re.compile(_ANOTHER),
    "unit": re.compile(_UNIT),
    "boolean": re.compile("true|false", re.IGNORECASE),
}


@dataclass(frozen=True)
class Disguise:
    """What the words of a column really are, and the first of them that shows why they were not read as that."""

    what: str  # "numbers", "dates", "true or false"
    cell: str


def form(cell: str) -> str:
    """What a cell looks like: "number", "date", "another" way to write a number, one with a "unit", "boolean", or a "word".

    >>> [form(cell) for cell in ("1.5", "1,5", "5 kg", "21.06.2019", "Ulm")]
    ['number', 'another', 'unit', 'date', 'word']
    """
    cell = cell.strip()
    return next((name for name, pattern in PATTERNS.items() if pattern.fullmatch(cell)), "word")


def disguise(counts: Mapping[str, int]) -> Disguise | None:
    """What a column of these words, in the order of their appearance, is but for some cells; None for names of categories.

    Text that is numbers throughout counts as names: whoever wanted numbers would have made them.

    >>> disguise({"1.5": 3, "2": 1, "?": 1})
    Disguise(what='numbers', cell='?')
    """
    forms = {cell: form(cell) for cell in counts}
    rows = {name: sum(counts[cell] for cell in counts if forms[cell] == name) for name in {*PATTERNS, "word"}}
    different = {name: sum(each == name for each in forms.values()) for name in rows}
    n = sum(counts.values())

    def first(*others: str) -> str:
        return next(cell for cell in counts if forms[cell] not in others)

    if 2 * rows["date"] >= n:
        return Disguise("dates", first(*rows.keys() - {"date"}))
    if rows["number"] == n or rows["boolean"] == n:
        return None
    numbers, of_numbers = rows["number"] + rows["another"], different["number"] + different["another"]
    if 2 * numbers >= n or of_numbers >= max(3, len(counts) - of_numbers):
        return Disguise("numbers", first("number"))
    if 2 * rows["boolean"] >= n:
        return Disguise("true or false", first("boolean"))
    measured = different["unit"] + of_numbers
    if 2 * (rows["unit"] + numbers) >= n and measured > max(2, min(FEW, n // 2)):
        return Disguise("numbers", first("number"))
    return None
