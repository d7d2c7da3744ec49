"""Targets that do not fit, and what to do about it; and targets as a person has them, one example per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backprop import checks
from backprop.checks import Array

if TYPE_CHECKING:
    from backprop.losses.base import Loss


def misfit(loss: Loss, y: Array, shape: tuple[int, ...], expected: str) -> ValueError:
    """The error of targets that do not fit outputs of this shape, and of outputs in rows, as `predict` returns them."""
    each, got = loss.outputs_per_target, f"shape {y.shape} for outputs of shape {shape}"
    advice = f"Each target takes {each} outputs." if each > 1 else ""
    if y.shape in (shape[::-1], (shape[1], shape[0] // each)):
        advice = "Pass y.T."
    elif loss.takes_labels and y.shape == (shape[1], 1):
        advice = "Pass y.ravel()."
    if y.shape == shape[:1] != (1,):
        expected = f"f with one column for each of the {y.size} examples in y"
        got, advice = f"f with shape {shape}", "A loss takes columns, and predict returns rows: pass f.T."
    return ValueError(checks.message(loss, expected, got, advice))


def rows(loss: Loss, who: str, y: object, K: int, N: int) -> Array:
    """Targets as a person has them, rows (N,) or (N, K), of the right shape and finite."""
    y = checks.numeric(who, "y", y)
    width = K // loss.outputs_per_target
    shapes: list[tuple[int, ...]] = [(N,)] if loss.takes_labels or width == 1 else []
    shapes += [(N, width)] if width > 1 or not loss.takes_labels else []
    if y.shape not in shapes:
        advice = "y takes one row per row of X."
        if y.T.shape in shapes:
            advice = "Pass y.T."
        elif y.shape == (N, 1) and (N,) in shapes:
            advice = "Pass y.ravel()."
        elif y.ndim and len(y) == N:
            advice = f"The network has {K} outputs; {loss!r} takes {loss.outputs_per_target} per target."
        expected = f"y with shape {' or '.join(map(str, shapes))} for {N} rows of X and {K} outputs"
        raise ValueError(checks.message(who, expected, f"shape {y.shape}", advice))
    checks.finite(who, "y", y)
    return y
