"""Optimizers follow PyTorch's documented rules, written out here once more as plainly as possible."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tables import OPTIMIZERS

import backprop as bp

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
STEPS = 50
P = 17_000  # more than one piece of φ


def sgd(phi, g, t, state, *, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
    g = g + weight_decay * phi
    if momentum:
        state["b"] = g if t == 1 else momentum * state["b"] + g
        g = g + momentum * state["b"] if nesterov else state["b"]
    return phi - learning_rate * g


def rmsprop(phi, g, t, state, *, learning_rate, decay=0.99, eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * phi
    state["v"] = decay * state.get("v", 0) + (1 - decay) * g**2
    return phi - learning_rate * g / (np.sqrt(state["v"]) + eps)


def adagrad(phi, g, t, state, *, learning_rate, eps=1e-10, weight_decay=0.0):
    g = g + weight_decay * phi
    state["sum"] = state.get("sum", 0) + g**2
    return phi - learning_rate * g / (np.sqrt(state["sum"]) + eps)


def adam(phi, g, t, state, *, learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * phi
    state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
    m_hat, v_hat = state["m"] / (1 - betas[0] ** t), state["v"] / (1 - betas[1] ** t)
    return phi - learning_rate * m_hat / (np.sqrt(v_hat) + eps)


def adamw(phi, g, t, state, *, learning_rate, weight_decay=0.01, **settings):
    phi = phi - learning_rate * weight_decay * phi
    return adam(phi, g, t, state, learning_rate=learning_rate, **settings)


RULES = {bp.SGD: sgd, bp.RMSProp: rmsprop, bp.Adagrad: adagrad, bp.Adam: adam, bp.AdamW: adamw}


def start(size=100, dtype="float64"):
    """φ at the start."""
    return np.random.default_rng(0).normal(size=size).astype(dtype)


def slope(phi, t):
    """∂L/∂φ of a bumpy L that changes from step to step."""
    return 2 * phi + np.sin(5 * phi + t) + np.cos(np.arange(phi.size))


def by_rule(rule, settings, clip=lambda g: g, size=100):
    """φ after 50 steps of a plain rule; settings may be functions of the step t = 0, 1, 2, …"""
    phi, state = start(size), {}
    for t in range(STEPS):
        now = {key: value(t) if callable(value) else value for key, value in settings.items()}
        phi = rule(phi, clip(slope(phi, t)), t + 1, state, **now)
    return phi


def by_optimizer(optimizer, phi=None):
    """φ after 50 steps of an optimizer."""
    phi = start() if phi is None else phi
    for t in range(STEPS):
        optimizer.step(phi, slope(phi, t))
    return phi


def clipped_to_norm(limit):
    """The rule of PyTorch's clip_grad_norm_."""
    return lambda g: g * min(1, limit / (np.sqrt((g**2).sum()) + 1e-6))


class TestRules:
    @every_optimizer
    def test_are_pytorchs_over_50_steps(self, name):
        kind, settings = OPTIMIZERS[name]
        expected = by_rule(RULES[kind], settings, size=P)
        assert_allclose(by_optimizer(kind(**settings), start(P)), expected, rtol=1e-12, atol=1e-12)

    @every_optimizer
    @pytest.mark.parametrize(
        ("settings", "clip"),
        [
            ({"clip_value": 0.3}, lambda g: np.clip(g, -0.3, 0.3)),
            ({"clip_norm": 2.0}, clipped_to_norm(2.0)),
            ({"clip_norm": 1e6}, lambda g: g),
            (
                {"clip_value": 0.3, "clip_norm": 2.0},
                lambda g: clipped_to_norm(2.0)(np.clip(g, -0.3, 0.3)),
            ),
        ],
        ids=["value", "norm", "norm out of reach", "both"],
    )
    def test_come_after_clipping(self, name, settings, clip):
        kind, own = OPTIMIZERS[name]
        expected = by_rule(RULES[kind], own, clip)
        assert_allclose(by_optimizer(kind(**own, **settings)), expected, rtol=1e-12, atol=1e-12)

    @every_optimizer
    @pytest.mark.parametrize(
        "schedule",
        [bp.CosineDecay(0.02, steps=40), bp.WarmUp(bp.StepDecay(0.02, every=7), steps=5)],
        ids=repr,
    )
    def test_follow_a_schedule(self, name, schedule):
        kind, settings = OPTIMIZERS[name]
        settings = {**settings, "learning_rate": schedule}
        assert_allclose(by_optimizer(kind(**settings)), by_rule(RULES[kind], settings), rtol=1e-12, atol=1e-12)

    @every_optimizer
    def test_in_float32_stay_near_float64_and_keep_the_type(self, name):
        kind, settings = OPTIMIZERS[name]
        settings = {**settings, "learning_rate": 1e-3}
        phi = by_optimizer(kind(**settings), start(50, "float32"))
        assert phi.dtype == np.float32
        assert_allclose(phi, by_optimizer(kind(**settings), start(50)), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("kind", RULES)
    def test_have_pytorchs_defaults(self, kind):
        expected = by_rule(RULES[kind], {"learning_rate": 0.01})
        assert_allclose(by_optimizer(kind(0.01)), expected, rtol=1e-12, atol=1e-12)


class TestByHand:
    def test_one_step_of_sgd(self):
        # φ = (1, −2), g = (3, ½), α = 0.1, λ = 0.2: g + λφ = (3.2, 0.1), φ − α(…) = (0.68, −2.01)
        phi = np.array([1.0, -2.0])
        bp.SGD(0.1, weight_decay=0.2).step(phi, np.array([3.0, 0.5]))
        assert_allclose(phi, [0.68, -2.01], rtol=1e-15)

    @pytest.mark.parametrize(
        ("nesterov", "expected"), [(False, 1 - 0.1 * 2 - 0.1 * 5), (True, 1 - 0.1 * 3 - 0.1 * 6.5)]
    )
    def test_two_steps_of_momentum(self, nesterov, expected):
        # μ = ½, g = 2 then 4: v = 2 then 5; Nesterov moves along g + ½v = 3 then 6.5
        phi, optimizer = np.array([1.0]), bp.SGD(0.1, momentum=0.5, nesterov=nesterov)
        for g in (2.0, 4.0):
            optimizer.step(phi, np.array([g]))
        assert_allclose(phi, [expected], rtol=1e-14)

    def test_a_network_learns(self):
        # f = β + ω h at β = ω = 0, h = 2, y = 3: L = 9, ∂L/∂β = −6, ∂L/∂ω = −12
        net = bp.Sequential(bp.Linear(1, 1, initializer=bp.Constant(0.0)), dtype="float64")
        loss = bp.LeastSquares()
        assert loss.forward(net.forward(np.array([2.0])), np.array([3.0])) == 9
        _, gradients = net.backward(loss.backward())
        bp.SGD(0.1).step(net.phi, gradients.dL_dphi)
        assert_allclose(net.parameters["0.beta"], [0.6], rtol=1e-15)
        assert_allclose(net.parameters["0.omega"], [[1.2]], rtol=1e-15)


class TestState:
    @every_optimizer
    def test_leaves_the_gradient_alone(self, name):
        kind, settings = OPTIMIZERS[name]
        optimizer, phi, g = kind(**settings, clip_value=0.5), start(), slope(start(), 0)
        g.setflags(write=False)
        for _ in range(3):
            optimizer.step(phi, g)
        assert_array_equal(g, slope(start(), 0))

    @every_optimizer
    def test_counts_steps(self, name):
        kind, settings = OPTIMIZERS[name]
        optimizer = kind(**settings)
        by_optimizer(optimizer, start(5))
        assert optimizer.t == STEPS

    @pytest.mark.parametrize(
        "name", [name for name, (kind, own) in OPTIMIZERS.items() if kind(**own).slots or "mom" in name]
    )
    @pytest.mark.parametrize("other", [np.ones(4), np.ones(3, np.float32)], ids=["shape", "dtype"])
    def test_belongs_to_one_phi(self, name, other):
        kind, settings = OPTIMIZERS[name]
        optimizer, twin = kind(**settings), kind(**settings)
        phi, untouched = np.ones(3), other.copy()
        optimizer.step(phi, phi.copy())
        with pytest.raises(ValueError, match=rf"{kind.__name__}.*expected phi with shape \(3,\).*got.*of its own"):
            optimizer.step(other, other.copy())
        assert_array_equal(other, untouched)
        # The refused step left no trace: the next one is that of an optimizer that never saw it.
        expected = np.ones(3)
        for _ in range(2):
            twin.step(expected, np.full(3, 0.5) if twin.t else np.ones(3))
        optimizer.step(phi, np.full(3, 0.5))
        assert_array_equal(phi, expected)

    @every_optimizer
    def test_two_optimizers_share_nothing(self, name):
        kind, settings = OPTIMIZERS[name]
        first, second = kind(**settings), kind(**settings)
        expected = by_optimizer(kind(**settings))
        by_optimizer(first)
        assert_array_equal(by_optimizer(second), expected)

    def test_learning_rate_is_that_of_the_next_step(self):
        optimizer, phi = bp.SGD(bp.StepDecay(1.0, every=2, factor=0.5)), np.ones(1)
        rates = []
        for _ in range(5):
            rates.append(optimizer.learning_rate)
            optimizer.step(phi, np.ones(1))
        assert rates == [1, 1, 0.5, 0.5, 0.25]


class TestRepr:
    @every_optimizer
    def test_is_a_call_that_makes_it(self, name):
        kind, settings = OPTIMIZERS[name]
        optimizer = kind(**settings, clip_norm=2.0)
        again = eval(repr(optimizer), vars(bp.optimizers))
        assert_array_equal(by_optimizer(again), by_optimizer(kind(**settings, clip_norm=2.0)))

    def test_names_the_settings_and_nothing_else(self):
        assert repr(bp.SGD(0.1, momentum=0.9)) == "SGD(learning_rate=0.1, momentum=0.9)"
