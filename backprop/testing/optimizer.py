"""The promises of an optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from backprop import checks
from backprop.layers.boundary import is_traced
from backprop.optimizers import Optimizer
from backprop.testing.promises import ROUNDING, Fault, Promises, differences, keep, spread


def assert_optimizer(optimizer: Optimizer) -> None:
    """Run the library's tests of an optimizer on one of your own. Raises AssertionError for the first promise it breaks.

    What is tested: the state, a rule that treats each entry alike in any piece of φ, the same bits each time, and a quadratic
    that falls within 100 steps. Raises TypeError for what is no optimizer.

    >>> import backprop as bp
    >>> assert_optimizer(bp.Adam(0.01))
    """
    __tracebackhide__ = True
    checks.instance("assert_optimizer", "optimizer", optimizer, Optimizer)
    keep(repr(optimizer), OPTIMIZER, optimizer)


def _rule(optimizer: Optimizer) -> Iterator[Fault]:
    """State of the shape of φ; the same φ each time, and for φ in two pieces; a quadratic that falls."""
    whole, again, parts = (copy.deepcopy(optimizer) for _ in range(3))
    for twin in (whole, again, parts):
        twin.t, twin.state = 0, {}
    start = spread((100,))
    phi, phi_again, in_parts = start.copy(), start.copy(), start.copy()

    for _ in range(100):
        whole.step(phi, phi.copy())
        again.step(phi_again, phi_again.copy())
        state, g = parts.prepare(in_parts), in_parts.copy()
        parts.clip(g)
        for piece in (slice(len(g) // 3, None), slice(len(g) // 3)):
            parts.move(parts.learning_rate, in_parts[piece], g[piece], *(array[piece] for array in state))
        parts.t += 1
    for name, array in whole.state.items():
        if array.shape != phi.shape:
            yield f"state {name!r} with the shape of φ, {phi.shape}", f"shape {array.shape}", "Name it in slots."
    yield from differences({"φ": phi_again}, {"φ": phi}, "the same φ from the same steps", "Keep state in slots.")
    advice = "update sees one piece of φ at a time, in any order: treat each entry alike, and keep state in slots."
    if not is_traced(optimizer):
        in_parts = phi  # a rule of one's own gets all of φ
    yield from differences({"φ": in_parts}, {"φ": phi}, "the same φ in one piece and in two", advice, ROUNDING)
    before, after = start @ start, phi @ phi
    if not after < before:
        yield "φᵀφ to fall within 100 steps", f"{before:g} before, {after:g} after", "Check the sign of the step."


OPTIMIZER: Promises = {"its rule": _rule}
