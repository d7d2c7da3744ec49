"""Passes of a layer or network that must not leave traces: what is seen of its state from outside.

`analytic` takes the gradients after a pass with other inputs, and with an `infer` between forward and backward, so that a stale
cache cannot hide; `traces` finds out which of these passes a layer alone is disturbed by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients.problem import Problem
from backprop.layers import Layer
from backprop.sequential import Sequential

TWICE = "a second backward after the same forward gives another answer: backward changes state that it needs"


def repeatable(problem: Problem) -> float:
    """L, which must be a finite number, and the same at each pass. Raises ValueError or RuntimeError, naming the layer."""
    fresh = problem.fresh()
    phi = fresh.net.phi.copy()
    L, again = fresh.value(), fresh.value()
    if not math.isfinite(L.real):
        expected, advice = "a finite loss", "Scale the inputs, or draw smaller weights."
        raise ValueError(checks.message(problem.who, expected, repr(L), advice))
    if again != L or not np.array_equal(fresh.net.phi, phi):
        cause, advice = _unsteady(problem, phi, fresh.net.phi)
        raise RuntimeError(checks.message(problem.who, "the same loss twice", cause, advice))
    return L


def _unsteady(problem: Problem, before: Array, after: Array) -> tuple[str, str]:
    for name, changed in problem.net.views(after).items():
        if not np.array_equal(changed, problem.net.views(before)[name]):
            advice = "Forward must not change parameters: state changed between forward and backward."
            return f"a forward pass that changes parameter {name} ({place(problem.net, name)})", advice
    for name, layer, h in parts(problem):
        layer.reseed(0)
        first = layer.forward(h.copy())
        layer.reseed(0)
        if not np.array_equal(first, layer.forward(h.copy())):
            advice = "If it is random, draw from a generator that `reseed(*key)` sets; else forward must not change its state."
            return f"two different ones: {name} gives another f for the same h", advice
    return "two different ones", "Draw from a generator that `reseed(*key)` sets."


def analytic(problem: Problem, inputs: str) -> tuple[dict[str, Array], list[str]]:
    """What `backward` returns, by name, and what it says about state that changes; inputs in rows, under the given name."""
    fresh, decoy = problem.fresh(), problem.decoy()
    fresh.net.reseed(0)
    fresh.loss.forward(fresh.net.forward(decoy), fresh.y, fresh.w)
    fresh.value()
    fresh.net.infer(decoy)
    phi = fresh.net.phi.copy()
    answers = []
    for _ in range(2):
        dL_dh, gradients = fresh.net.backward(fresh.loss.backward())
        if np.shape(dL_dh) != fresh.h.shape:
            expected = f"∂L/∂h with the shape of h, {fresh.h.shape}"
            raise ValueError(checks.message(f"{problem.net[0].label}.backward", expected, f"shape {np.shape(dL_dh)}"))
        found = {**gradients, inputs: np.asarray(dL_dh).T}
        answers.append({name: np.array(gradient, dtype=np.float64) for name, gradient in found.items()})
    mistakes = []
    if any(not np.array_equal(answers[0][name], answers[1][name], equal_nan=True) for name in answers[0]):
        mistakes.append(f"state changed between forward and backward: {TWICE}.")
    if not np.array_equal(phi, fresh.net.phi):
        mistakes.append("state changed between forward and backward: backward writes over a parameter.")
    return answers[0], mistakes


def traces(alone: Problem) -> Iterator[str]:
    """What disturbs the gradients of one layer, in words."""

    def answer(before: bool = False, between: bool = False, backwards: int = 1) -> Array:
        net = alone.net.copy()
        if before:
            net.reseed(0)
            net.forward(alone.decoy())
        net.reseed(0)
        c = alone.loss.weights(net.forward(alone.h.copy()).shape)  # type: ignore[attr-defined]
        if between:
            net.infer(alone.decoy())
        for _ in range(backwards):
            dL_dh, gradients = net.backward(c.copy())
        return np.concatenate([np.ravel(array) for array in (dL_dh, *gradients.values())])

    plain = answer()
    if not np.array_equal(answer(before=True), plain, equal_nan=True):
        yield "stale cache: what backward gives depends on an earlier forward pass, not only on the last one."
    if not np.array_equal(answer(between=True), plain, equal_nan=True):
        yield "state changed between forward and backward: infer writes over what backward needs."
    if not np.array_equal(answer(backwards=2), plain, equal_nan=True):
        yield f"state changed between forward and backward: {TWICE}."
    net, h = alone.net.copy(), alone.h.copy()
    phi = net.phi.copy()
    net.reseed(0)
    c = alone.loss.weights(net.forward(h).shape)  # type: ignore[attr-defined]
    if not np.array_equal(h, alone.h):
        yield "state changed between forward and backward: forward writes over its input, which the layer before it may need."
    given = c.copy()
    net.backward(given)
    if not np.array_equal(given, c):
        yield "backward writes over the ∂L/∂f that it is given, which other branches may need."
    if not np.array_equal(phi, net.phi):
        yield "state changed between forward and backward: a pass writes over a parameter."


def ignores_the_last_forward(alone: Problem) -> bool:
    """Whether backward gives the same whatever the last forward pass was."""
    answers = []
    for h in (alone.h, alone.decoy()):
        net = alone.net.copy()
        net.reseed(0)
        c = alone.loss.weights(net.forward(h.copy()).shape)  # type: ignore[attr-defined]
        answers.append(net.backward(c)[0])
    return bool(np.array_equal(answers[0], answers[1]))


def parts(problem: Problem) -> Iterator[tuple[str, Layer, Array]]:
    """(name in errors, a copy of the layer, its inputs h) for each layer, the innermost first."""
    yield from _inside(problem.net.copy(), problem.h, "")


def _inside(net: Layer, h: Array, path: str) -> Iterator[tuple[str, Layer, Array]]:
    net.reseed(0)
    for key, layer in net.children.items():
        pristine = layer.copy()
        name = f"layer {path}{key}, {layer.label}"
        if layer.children:
            yield from _inside(layer.copy(), h, f"{path}{key}.")
        if type(layer) is not Sequential:
            yield name, pristine, h.copy()
        if isinstance(net, Sequential):
            h = layer.forward(h.copy())


def place(net: Layer, name: str) -> str:
    """The layer that a parameter named "2.layer.0.omega" belongs to, in words."""
    path = name.split(".")[:-1]
    for key in path:
        net = net.children[key]
    return f"layer {'.'.join(path)}, {net.label}"
