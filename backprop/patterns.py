"""Parameters chosen by name: "*.omega" is every weight, "0.*" all of the first layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from backprop import checks

T = TypeVar("T")


def by_pattern(who: object, name: str, patterns: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """For each of `names`, what the first pattern that matches it stands for; names that match none are left out.

    Patterns are those of the shell (`fnmatch`): * any text, ? any letter, [01] one of these. Raises ValueError for a pattern
    that matches nothing, with the names there are.

    >>> by_pattern("SGD", "weight_decay", {"0.*": 0.0, "*.omega": 0.1}, ["0.beta", "0.omega", "2.beta", "2.omega"])
    {'0.beta': 0.0, '0.omega': 0.0, '2.omega': 0.1}
    """
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(each, pattern) for each in names):
            expected = f"patterns in {name} that match a parameter, one of {names}"
            raise ValueError(checks.message(who, expected, f"{pattern!r}, which matches none"))
    first = {each: [value for pattern, value in patterns.items() if fnmatchcase(each, pattern)] for each in names}
    return {each: values[0] for each, values in first.items() if values}
