"""Passes of a layer or network that must not leave traces: what is seen of its state from outside.

`analytic` takes the gradients after a pass with other inputs, and with an `infer` between forward and backward, so that a stale
cache cannot hide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.checks import Array
from backprop.gradients.numeric import largest, random_direction
from backprop.gradients.problem import Problem, run
from backprop.layers import Gradients, Layer
from backprop.sequential import Sequential

LAST_PLACE, SHAKES = 1e-15, 2  # a relative change as small as rounding makes it, tried so often …
WIDER = 32  # … and so many times as far
MOST_ROUNDING = 1e-5  # of a gradient that may be left to rounding
STATE = "state changed between forward and backward"
TWICE = f"{STATE}: a second backward after the same forward gives another answer: backward changes state that it needs."


def repeatable(problem: Problem) -> float:
    """L, which must be a finite number, and the same at each pass. Raises ValueError or RuntimeError, naming the layer."""
    fresh = problem.fresh()
    phi = fresh.net.phi.copy()
    L, again = fresh.value(), fresh.value()
    if not math.isfinite(L.real):
        expected, advice = "a finite loss", "Scale the inputs, or draw smaller weights."
        raise ValueError(checks.message(problem.who, expected, repr(L), advice))
    if not np.array_equal(fresh.h, problem.h, equal_nan=True):
        expected, advice = "a forward pass that leaves its input as it is", "Copy h before changing it."
        raise RuntimeError(checks.message(problem.who, expected, f"one that writes over it{_writer(problem)}", advice))
    if again != L or not np.array_equal(fresh.net.phi, phi):
        cause, advice = _unsteady(problem, phi, fresh.net.phi)
        raise RuntimeError(checks.message(problem.who, "the same loss twice", cause, advice))
    return L


def _writer(problem: Problem) -> str:
    for name, layer, h in parts(problem):
        given = h.copy()
        run(layer, given)
        if not np.array_equal(given, h, equal_nan=True):
            return f": {name}"
    return ""


def _unsteady(problem: Problem, before: Array, after: Array) -> tuple[str, str]:
    for name, changed in problem.net.views(after).items():
        if not np.array_equal(changed, problem.net.views(before)[name]):
            advice = f"Forward must not change parameters: {STATE}."
            return f"a forward pass that changes parameter {name} ({place(problem.net, name)})", advice
    for name, layer, h in parts(problem):
        if not np.array_equal(run(layer, h.copy()), run(layer, h.copy())):
            advice = (
                "If it is random, draw from a generator kept as an attribute; else forward must not change its state."
            )
            return f"two different ones: {name} gives another f for the same h", advice
    return "two different ones", "Draw from a generator kept as an attribute."


def analytic(problem: Problem) -> tuple[Gradients, list[str]]:
    """What `backward` returns, by name, with ∂L/∂X in rows, and what it says about state that changes."""
    fresh, mistakes = problem.fresh(), []
    try:
        _run_a_decoy(fresh)
        first, second, writes = _gradients_twice(fresh)
    except Exception:
        first, second, writes = _gradients_twice(problem.fresh())  # raises again unless the decoy was the cause
        mistakes.append("stale cache: after a forward pass over fewer examples, the next passes fail.")
    if any(not np.array_equal(first[name], second[name], equal_nan=True) for name in first):
        mistakes.append(TWICE)
    if writes:
        mistakes.append(f"{STATE}: backward writes over a parameter.")
    return first, mistakes


def _gradients_twice(fresh: Problem) -> tuple[Gradients, Gradients, bool]:
    """What two backward passes after one forward return, and whether they changed φ; an `infer` must not matter."""
    fresh.value()
    boundary.infer(fresh.net, fresh.decoy())
    phi = fresh.net.phi.copy()
    first, second = (fresh.backward(fresh.loss.backward()) for _ in range(2))
    if first[fresh.inputs].T.shape != fresh.h.shape:
        expected, got = f"∂L/∂h with the shape of h, {fresh.h.shape}", f"shape {first[fresh.inputs].T.shape}"
        raise ValueError(checks.message(f"{fresh.net[0].label}.backward", expected, got))
    return first, second, not np.array_equal(phi, fresh.net.phi)


def _run_a_decoy(fresh: Problem) -> None:
    """Passes over fewer examples, then over other inputs and targets: nothing of them may be left in the next."""
    if fresh.n > 1:
        fewer = fresh.without_the_last()
        with suppress(Exception):  # a part may refuse a single example
            fewer.loss.forward(fewer.forward(), fewer.y, fewer.w)
    w = None if fresh.w is None else fresh.w[::-1]
    fresh.loss.forward(run(fresh.net, fresh.decoy()), fresh.y[..., ::-1], w)


def natural_sizes(problem: Problem) -> dict[str, float]:
    """How large L and its gradients would be if nothing cancelled on the way: rounding errors are relative to that.

    Terms cancel in the loss, as where a classifier is certain: there it is replaced by a random projection of the outputs, of the
    size of these and at least 1. They cancel in layers, too, such as a normalization of inputs that are all the same: what a
    gradient changes when φ and h move in their last place is taken for its rounding error.
    """
    fresh = problem.fresh()
    f = fresh.forward()
    size = max(1.0, float(np.max(np.abs(f)))) / (problem.n if problem.loss.reduction == "mean" else 1)
    projected = fresh.backward(size * random_direction(f.shape, 0))
    natural = {"L": size * problem.n} | {name: largest(g) for name, g in projected.items()}
    here = fresh.gradients()
    for seed in range(SHAKES):
        little, more = (_shaken(problem, fresh, seed, here, by) for by in (LAST_PLACE, WIDER * LAST_PLACE))
        for name, change in little.items():
            # What rounding does grows with the shake. A jump does not: of the slope at a kink, reached by terms that cancel.
            grows = 4 * np.abs(more[name]) > WIDER * np.abs(change)
            natural[name] = max(natural[name], largest(change[grows]) / LAST_PLACE)
    for name, off in _off_by_rounding(problem, here):
        natural[name] = max(natural[name], off / np.finfo(float).eps)
    return natural


def _shaken(problem: Problem, fresh: Problem, seed: int, here: Gradients, by: float) -> dict[str, Array]:
    """What gradients change when φ, h and the slope of the loss move in random directions, `by` so much of themselves."""
    generator = np.random.default_rng(seed)
    for moved, from_ in ((fresh.net.phi, problem.net.phi), (fresh.h, problem.h)):
        np.multiply(from_, 1 + by * generator.uniform(-1, 1, from_.shape), out=moved)
    fresh.value()
    slope = fresh.loss.backward()
    gradients = fresh.backward(slope * (1 + by * generator.uniform(-1, 1, slope.shape)))
    return {name: g - here[name] for name, g in gradients.items()}


def _off_by_rounding(problem: Problem, here: Gradients) -> Iterator[tuple[str, float]]:
    """How far gradients are from those of the same code in longer numbers, where the machine has them and the code takes them.

    Only little: code that computes something else for another type is wrong, and not excused.
    """
    longer = problem.fresh()
    longer.h, longer.dtype = longer.h.astype(np.longdouble), np.dtype(np.longdouble)
    longer.net.bind(longer.net.phi.astype(np.longdouble))
    try:
        found = longer.gradients()
    except Exception:
        return
    for name, g in found.items():
        off = largest(g - here[name])
        if off <= MOST_ROUNDING * largest(g):
            yield name, off


def ignores_the_last_forward(alone: Problem) -> bool:
    """Whether backward gives the same whatever the last forward pass was."""
    here, there = alone.fresh(), alone.fresh()
    there.h = alone.decoy()
    return bool(np.array_equal(here.gradients()["X"], there.gradients()["X"]))


def parts(problem: Problem) -> Iterator[tuple[str, Layer, Array]]:
    """(name in errors, a copy of the layer, its inputs h) for each layer, the innermost first."""
    for path, layer, h in problem.visits():
        if type(layer) is not Sequential:
            yield f"layer {path}, {layer.label}", layer.copy(), h


def every_layer_fits(problem: Problem) -> None:
    """Raise the ValueError of the first layer whose own backward returns something that does not fit."""
    for _, layer, h in parts(problem):
        _gradients_twice(problem.of_layer(layer, h))


def place(net: Layer, name: str) -> str:
    """The layer that a parameter named "2.layer.0.omega" belongs to, in words."""
    path = name.split(".")[:-1]
    for key in path:
        net = net.children[key]
    return f"layer {'.'.join(path)}, {net.label}"
