"""What Hypothesis draws: inputs, networks, losses, targets and weights. It is imported when a strategy is asked for."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks, layers
from backprop import losses as of_library
from backprop.around.nesting import chain
from backprop.checks import Array
from backprop.layers import Linear
from backprop.losses import BinaryCrossEntropy, Loss, Poisson
from backprop.sequential import Sequential
from backprop.testing.promises import LAYOUTS, TRAINED, laid_out

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _hypothesis() -> ModuleType:
    """The module of strategies."""
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ImportError("strategies need Hypothesis: pip install hypothesis") from error
    return strategies


UNIT = 256  # numbers are drawn as multiples of 1/256: exact in float32, never subnormal, and they shrink well


def _numbers(n: int, low: float, high: float, away_from_zero: float = 0.0) -> SearchStrategy[Array]:
    """Vectors (n,) of multiples of 1/256 between two limits."""
    st = _hypothesis()
    units = st.integers(int(np.ceil(low * UNIT)), int(np.floor(high * UNIT)))
    if away_from_zero:
        units = units.filter(lambda k: abs(k) >= away_from_zero * UNIT)
    return st.lists(units, min_size=n, max_size=n).map(lambda values: np.array(values) / UNIT)


def inputs(
    features: int, *, examples: int = 8, low: float = -4.0, high: float = 4.0, away_from_zero: float = 0.0
) -> SearchStrategy[Array]:
    """Strategy of h (D, N): D features, 1 to `examples` columns, numbers in [low, high], float32 or float64, in any memory order.

    `away_from_zero` keeps entries at least so far from a kink at 0. Raises ImportError without Hypothesis.

    >>> from hypothesis import find
    >>> find(inputs(features=2), lambda h: h.sum() > 1)
    array([[0.       ],
           [1.0039062]], dtype=float32)
    """
    st = _hypothesis()
    features = checks.integer("inputs", "features", features)

    def arranged(n: int) -> Any:
        return st.builds(
            lambda values, dtype, layout: laid_out(values.reshape(features, n).astype(dtype), layout),
            _numbers(features * n, low, high, away_from_zero),
            st.sampled_from(list(TRAINED)),
            st.sampled_from(LAYOUTS),
        )

    return st.integers(1, checks.integer("inputs", "examples", examples)).flatmap(arranged)


def networks(features: int, outputs: int | None = None, *, depth: int = 4) -> SearchStrategy[Sequential]:
    """Strategy of networks (D → K): 1 to `depth` layers of the library that chain, and a Linear at the end; float32 or float64.

    K is `outputs`, or drawn. Raises ImportError without Hypothesis.

    >>> from hypothesis import find
    >>> [layer for layer in find(networks(features=2, outputs=3), lambda net: net.couples_examples)]
    [BatchNorm(2 → 2), Linear(2 → 3)]
    """
    st = _hypothesis()
    names = ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus", "Sigmoid", "Tanh", "Sin", "Cos", "Identity")
    kinds = {name: lambda width, _, name=name: getattr(layers, name)() for name in names} | {
        "Linear": lambda width, to: Linear(width, to),
        "LayerNorm": lambda width, _: layers.LayerNorm(width),
        "BatchNorm": lambda width, _: layers.BatchNorm(width),
        "Dropout": lambda width, _: layers.Dropout(0.3),
        "Residual": lambda width, to: layers.Residual(Sequential(Linear(width, to), layers.Tanh(), Linear(to, width))),
        "FanOut": lambda width, to: layers.FanOut(Linear(width, to), layers.Sin()),
    }

    def built(parts: list[tuple[str, int]], last: int, seed: int, dtype: str) -> Sequential:
        body, width = [], checks.integer("networks", "features", features)
        for kind, to in parts:
            body.append(kinds[kind](width, to))
            width = chain(body[-1], width) or width
        return Sequential(*body, Linear(width, outputs or last), seed=seed, dtype=dtype)

    parts = st.lists(st.tuples(st.sampled_from(list(kinds)), st.integers(1, 6)), min_size=1, max_size=depth)
    return st.builds(built, parts, st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from(list(TRAINED)))


def losses() -> SearchStrategy[Loss]:
    """Strategy of the losses of the library, as the mean and as the sum. Raises ImportError without Hypothesis.

    >>> from hypothesis import find
    >>> find(losses(), lambda loss: loss.takes_labels)
    CrossEntropy()
    """
    st = _hypothesis()
    kinds = [
        getattr(of_library, name) for name in of_library.__all__ if name not in ("Loss", "PerMember")
    ]  # a loss of losses
    reductions = st.sampled_from(["mean", "sum"])
    return st.builds(lambda kind, reduction: kind(reduction=reduction), st.sampled_from(kinds), reductions)


def targets(loss: Loss, outputs: int, examples: int) -> SearchStrategy[Array]:
    """Strategy of y for a loss and outputs f (K, N): labels (N,) or numbers (K, N), of the kind that the loss takes.

    Raises ImportError without Hypothesis, ValueError for a K that the loss cannot take.

    >>> from hypothesis import find
    >>> import backprop as bp
    >>> find(targets(bp.CrossEntropy(), outputs=3, examples=4), lambda y: y.sum() > 2)
    array([0, 0, 1, 2])
    """
    st = _hypothesis()
    if outputs % loss.outputs_per_target:
        expected = f"outputs a multiple of {loss.outputs_per_target}"
        raise ValueError(checks.message(f"targets of {loss!r}", expected, f"{outputs}"))
    if loss.takes_labels:
        return st.lists(st.integers(0, outputs - 1), min_size=examples, max_size=examples).map(np.array)
    low, high = (0, 1) if isinstance(loss, BinaryCrossEntropy) else (0, 4) if isinstance(loss, Poisson) else (-4, 4)
    K = outputs // loss.outputs_per_target
    return _numbers(K * examples, low, high).map(lambda y: y.reshape(K, examples))


def sample_weights(n: int) -> SearchStrategy[Array]:
    """Strategy of weights (n,) ≥ 0 that are not all 0. Raises ImportError without Hypothesis.

    >>> from hypothesis import find
    >>> find(sample_weights(3), lambda w: w.sum() > 1)
    array([0.        , 0.        , 1.00390625])
    """
    return _numbers(n, 0.0, 4.0).filter(lambda w: bool(w.any()))
