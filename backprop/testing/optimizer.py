"""The promises of an optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from backprop import checks
from backprop.engine.planning import PIECE
from backprop.layers import Linear
from backprop.losses import LeastSquares
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential
from backprop.testing.promises import TRAINED, Fault, Promises, differences, keep, spread
from backprop.training import Trainer


def assert_optimizer(optimizer: Optimizer) -> None:
    """Run the library's tests of an optimizer on one of your own. Raises AssertionError for the first promise it breaks.

    What is tested: the state, the same bits each time, a quadratic that falls within 100 steps, and steps of the trainer that are
    steps by hand, also where the rule is `traced`. Raises TypeError for what is no optimizer.

    >>> import backprop as bp
    >>> assert_optimizer(bp.Adam(0.01))
    """
    __tracebackhide__ = True
    checks.instance("assert_optimizer", "optimizer", optimizer, Optimizer)
    keep(repr(optimizer), OPTIMIZER, optimizer, "steps")


def _fresh(optimizer: Optimizer, net: Sequential) -> Optimizer:
    """A copy before its first step, for this network."""
    twin = copy.deepcopy(optimizer)
    twin.t, twin.state = 0, {}
    twin.assign(net)
    return twin


def _descends(optimizer: Optimizer) -> Iterator[Fault]:
    """State of the shape of φ; the same φ each time; a quadratic that falls."""
    net, start = Sequential(Linear(9, 10), dtype="float64"), spread((100,))
    first, again = _fresh(optimizer, net), _fresh(optimizer, net)
    phi, phi_again = start.copy(), start.copy()
    for _ in range(100):
        first.step(phi, phi.copy())
        again.step(phi_again, phi_again.copy())
    for name, array in first.state.items():
        if array.shape != phi.shape:
            yield f"state {name!r} with the shape of φ, {phi.shape}", f"shape {array.shape}", "Name it in slots."
    yield from differences({"φ": phi_again}, {"φ": phi}, "the same φ from the same steps", "Keep state in slots.")
    before, after = start @ start, phi @ phi
    if not after < before:
        yield "φᵀφ to fall within 100 steps", f"{before:g} before, {after:g} after", "Check the sign of the step."


def _trains(optimizer: Optimizer) -> Iterator[Fault]:
    """Three steps of the trainer, on more parameters than are moved at a time, are three steps by hand."""
    for dtype in TRAINED:
        for D in (4, PIECE // 16):
            net, loss = Sequential(Linear(D, 20), seed=0, dtype=dtype), LeastSquares()
            by_hand = net.copy()
            rule, own = _fresh(optimizer, net), _fresh(optimizer, by_hand)
            X, y = spread((3, D), dtype) / np.sqrt(D).astype(dtype), spread((3, 20), dtype)
            trainer = Trainer(net, loss, rule)
            for _ in range(3):
                trainer.step(X, y)
                loss.forward(by_hand.forward(X.T), y.T)
                own.step(by_hand.phi, by_hand.backward(loss.backward())[1].dL_dphi)
            wanted = f"φ and state after three steps of the trainer ({dtype}, P = {net.size:,}) to be those by hand"
            advice = "Let update depend on its arguments and self.t alone, and keep state in slots."
            found, expected = {"φ": net.phi, **rule.state}, {"φ": by_hand.phi, **own.state}
            yield from differences(found, expected, wanted, advice, TRAINED[dtype])


def _remembers(optimizer: Optimizer) -> Iterator[Fault]:
    """A step depends on φ, the gradient, the learning rate, t and the state, and on nothing else."""
    net, start = Sequential(Linear(9, 10), dtype="float64"), spread((100,))
    far, near = start.copy(), start.copy()
    for phi, factor in ((far, 1.0), (near, 0.5)):
        rule = _fresh(optimizer, net)
        rule.schedule = factor * rule.learning_rate
        rule.step(phi, phi.copy())
    if np.array_equal(far, near):
        yield "half the learning rate to move φ less", "the same step", "Multiply by alpha."
    first, phi = _fresh(optimizer, net), start.copy()
    for _ in range(10):
        first.step(phi, phi.copy())
    twin, again = _fresh(optimizer, net), phi.copy()
    twin.t, twin.state = first.t, {name: array.copy() for name, array in first.state.items()}
    first.step(phi, phi.copy())
    twin.step(again, again.copy())
    wanted = "an optimizer with the same t and state to make the same step"
    yield from differences({"φ": again}, {"φ": phi}, wanted, "All that it remembers belongs in slots.")


OPTIMIZER: Promises = {"descent": _descends, "training": _trains, "memory": _remembers}
