"""Penalties that come with every rule, each a number or a number for each parameter by the pattern of its name.

    weight decay λ        g ← ∂L/∂φ + λ φ                          before the rule, as in PyTorch
    l1           λ₁       φ ← sign(φ) max(|φ| − λ₁ r, 0)           after it: the proximal step of λ₁ Σ |φ|, with exact zeros

r is how far the rule moves an entry whose gradient is a steady 1 (`rates`): α, for SGD with momentum α / (1 − μ), for the
adaptive rules α / (√ŝ + eps). The step and the penalty then balance where they should: all rules rest at a minimum of
L + λ₁ Σ |φ|. Sources: Duchi and Singer (2009), "Efficient online and batch learning using forward backward splitting", JMLR 10,
for a number r; Duchi, Hazan and Singer (2011), section 5, for Adagrad's; Yun, Lozano and Yang (2021), "Adaptive proximal
gradient methods for structured neural networks", for Adam's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.patterns import by_pattern

Penalty = float | Mapping[str, float]  # for all parameters, or by the pattern of their names


class Parametrized(Protocol):
    """A network: its φ, and which part of it has which name."""

    phi: Array

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters by name, in the order of φ."""


def number_or_patterns(who: str, name: str, value: object) -> float | dict[str, float]:
    """A number ≥ 0, or a dict of pattern → number ≥ 0, copied. Raises TypeError or ValueError."""
    if not isinstance(value, Mapping) or not value:
        return checks.number(who, name, value, least=0)
    for pattern in value:
        if not isinstance(pattern, str):
            raise TypeError(checks.message(who, f'patterns such as "*.omega" in {name}', repr(pattern)))
    return {pattern: checks.number(who, f"{name}[{pattern!r}]", each, least=0) for pattern, each in value.items()}


def over_phi(who: str, name: str, patterns: Mapping[str, float], sizes: Mapping[str, int], dtype: Any) -> float | Array:
    """The numbers by pattern as a vector (P,), from the sizes of the parameters by name; one number where all are alike."""
    numbers = by_pattern(who, name, patterns, sizes)
    found = [numbers.get(each, 0.0) for each in sizes]
    return np.repeat(np.array(found, dtype), list(sizes.values())) if len(set(found)) > 1 else next(iter(found), 0.0)


def shrink(phi: Array, by: float | Array) -> None:
    """Update φ ← sign(φ) max(|φ| − by, 0) in place.

    >>> phi = np.array([3.0, -0.5, -2.0])
    >>> shrink(phi, 1.0)
    >>> phi
    array([ 2.,  0., -1.])
    """
    phi -= np.minimum(np.maximum(phi, -by), by)
