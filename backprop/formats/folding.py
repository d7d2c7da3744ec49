"""Scaling worked into the weights of a network, for a format that has nothing but layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop import checks
from backprop.formats.preparation import Preparation
from backprop.layers import Linear
from backprop.sequential import Sequential

NEAR = 1e-3  # of the target's σ, or of a score: how far rounding may move an output
AWAY = "to_numpy, to_onnx and to_c scale in double precision."


def folded(who: str, net: Sequential, table: Any) -> tuple[Sequential, float]:
    """A copy of the network with the scaling of its table inside, and the largest difference from both of them.

        first layer    Ω ((x − shift) ⊙ factor) + β  =  (Ω ⊙ factorᵀ) x + (β − Ω (shift ⊙ factor))
        last layer     mean + σ (Ω h + β)            =  (σ Ω) h + (mean + σ β)

    It takes numbers as they are, and 0 or 1 for each category, in the order of `table.feature_names`. Raises ValueError for a
    network that does not begin and end with a Linear that has a bias, and where numbers are so far from 0 that they lose
    their digits this way.
    """
    preparation = Preparation(who, table, net)
    twin = Sequential(*(layer.copy() for layer in net), dtype=net.phi.dtype)
    ends = [layer for layer in (twin[0], twin[-1]) if isinstance(layer, Linear) and "beta" in layer.parameters]
    if len(ends) < 2:
        expected = "a network that begins and ends with a Linear with a bias, to take the scaling in"
        raise ValueError(checks.message(who, expected, f"{net[0].label} and {net[-1].label}", AWAY))
    shift, factor = np.zeros(net.in_features or 0), np.ones(net.in_features or 0)
    at = 0
    for column in preparation.columns:
        if not column.categories:
            shift[at], factor[at] = column.shift, column.factor
        at += column.width
    first, last = (layer.parameters for layer in ends)
    omega = first["omega"].astype(np.float64) * factor
    first["beta"][...] = first["beta"] - omega @ shift
    first["omega"][...] = omega
    last["omega"][...] = preparation.sigma * last["omega"].astype(np.float64)
    last["beta"][...] = preparation.mean + preparation.sigma * last["beta"].astype(np.float64)
    return twin, _difference(who, net, twin, preparation)


def _difference(who: str, net: Sequential, twin: Sequential, table: Preparation) -> float:
    """The largest difference on generated rows. Raises ValueError where it is more than rounding may do."""
    given = table.generated()
    X = table.features(who, *given)
    expected = table.in_units(net.predict(X))
    found = twin.predict(table.unscaled(X, given[0]))
    difference = float(np.abs(found - expected).max())
    if not difference <= NEAR * table.sigma:
        expected_words = f"outputs within {NEAR * table.sigma:.2g} of predict, with the scaling in the weights"
        got = f"a difference of {difference:.2g}: numbers far from 0 lose their digits in {net.phi.dtype}"
        raise ValueError(checks.message(who, expected_words, got, AWAY))
    return difference
