"""Optimizers follow PyTorch's documented rules, written out here once more as plainly as possible."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tables import OPTIMIZERS

import backprop as bp
from backprop.engine.planning import PIECE
from backprop.engine.update import LEAST_PIECES

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
STEPS = 50
P = 17_000  # a long vector


def sgd(phi, g, t, state, *, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
    g = g + weight_decay * phi
    if momentum:
        state["b"] = momentum * state.get("b", 0) + g
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


def by_optimizer(optimizer, phi=None, before=lambda t: None):
    """φ after 50 steps of an optimizer; `before` is called before each."""
    phi = start() if phi is None else phi
    for t in range(STEPS):
        before(t)
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

    @every_optimizer
    @pytest.mark.parametrize("threads", [1, 2])
    def test_are_those_of_the_trainer_piece_by_piece(self, name, threads):
        (kind, settings), generator = OPTIMIZERS[name], np.random.default_rng(0)
        D = LEAST_PIECES * PIECE // 300 + 1
        X, y = generator.normal(size=(4, D)), generator.normal(size=(4, 300))
        net = bp.Sequential(bp.Linear(D, 300), seed=0, dtype="float64")
        twin, loss, optimizer = net.copy(), bp.LeastSquares(), kind(**settings)
        assert net.size > LEAST_PIECES * PIECE
        trainer = bp.Trainer(net, loss, kind(**settings), threads=threads)
        for _ in range(3):
            trainer.step(X, y)
            loss.forward(twin.forward(X.T), y.T)
            optimizer.step(twin.phi, twin.backward(loss.backward())[1].dL_dphi)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12 * np.abs(twin.phi).max())

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

    @every_optimizer
    def test_phi_may_be_its_own_gradient(self, name):
        kind, settings = OPTIMIZERS[name]
        one, two, x, phi = kind(**settings), kind(**settings), start(), start()
        for _ in range(3):
            one.step(x, x)
            two.step(phi, phi.copy())
        assert_array_equal(x, phi)

    def test_a_step_along_itself(self):
        # φ = (1, 2) = g, α = 0.1: 0.9 φ
        x = np.array([1.0, 2.0])
        bp.SGD(0.1).step(x, x)
        assert_allclose(x, [0.9, 1.8], rtol=1e-15)


TURN = 20  # the step before which something is assigned
# what is assigned, and the settings of the plain rule as functions of t
ASSIGNED = {
    "learning_rate": (bp.Adam, {}, {"learning_rate": 0.003}, {"learning_rate": (0.01, 0.003)}),
    "a schedule": (
        bp.Adam,
        {},
        {"schedule": bp.ExponentialDecay(0.1, factor=0.9)},
        {"learning_rate": lambda t: 0.01 if t < TURN else 0.1 * 0.9**t},
    ),
    "a schedule as learning_rate": (
        bp.SGD,
        {},
        {"learning_rate": bp.CosineDecay(0.1, steps=STEPS)},
        {"learning_rate": lambda t: 0.01 if t < TURN else bp.CosineDecay(0.1, steps=STEPS)(t)},
    ),
    "momentum": (bp.SGD, {"momentum": 0.9}, {"momentum": 0.5}, {"momentum": (0.9, 0.5)}),
    "momentum from 0": (bp.SGD, {}, {"momentum": 0.8}, {"momentum": (0.0, 0.8)}),
    "momentum to 0": (bp.SGD, {"momentum": 0.9}, {"momentum": 0.0}, {"momentum": (0.9, 0.0)}),
    "nesterov": (bp.SGD, {"momentum": 0.9}, {"nesterov": True}, {"momentum": 0.9, "nesterov": (False, True)}),
    "weight_decay": (bp.SGD, {"momentum": 0.9}, {"weight_decay": 0.3}, {"momentum": 0.9, "weight_decay": (0.0, 0.3)}),
    "weight_decay of AdamW": (bp.AdamW, {}, {"weight_decay": 0.3}, {"weight_decay": (0.01, 0.3)}),
    "eps of Adam": (bp.Adam, {}, {"eps": 0.1}, {"eps": (1e-8, 0.1)}),
    "decay": (bp.RMSProp, {"decay": 0.9}, {"decay": 0.5, "eps": 0.1}, {"decay": (0.9, 0.5), "eps": (1e-8, 0.1)}),
    "eps": (bp.Adagrad, {}, {"eps": 0.1}, {"eps": (1e-10, 0.1)}),
}

ASSIGNED_IN_TRAINING = {
    "betas": (bp.Adam, {}, {"betas": (0.5, 0.9)}),
    "clip_value": (bp.SGD, {"momentum": 0.9}, {"clip_value": 0.01}),
    "clip_norm": (bp.SGD, {"momentum": 0.9}, {"clip_norm": 0.1}),
    "no clip_norm": (bp.SGD, {"clip_norm": 0.1}, {"clip_norm": None}),
    "l1": (bp.SGD, {"momentum": 0.9}, {"l1": 0.1}),
    "weight_decay by name": (bp.SGD, {"momentum": 0.9}, {"weight_decay": {"*.omega": 0.3}}),
    "other names": (bp.Adam, {"weight_decay": {"*.omega": 0.3}}, {"weight_decay": {"*.beta": 0.3, "0.omega": 0.1}}),
}


def at_the_turn(value):
    """A setting as a function of t."""
    changes = isinstance(value, tuple) and len(value) == 2
    return (lambda t: value[t >= TURN]) if changes else value


class TestAssignment:
    """What is assigned to an attribute after some steps counts from the next one on."""

    @pytest.mark.parametrize("name", ASSIGNED)
    def test_counts(self, name):
        kind, settings, assigned, by_step = ASSIGNED[name]
        optimizer = kind(0.01, **settings)

        def assign(t):
            for attribute, value in assigned.items() if t == TURN else ():
                setattr(optimizer, attribute, value)

        own = {"learning_rate": 0.01} | {key: at_the_turn(value) for key, value in by_step.items()}
        expected = by_rule(RULES[kind], own)
        assert_allclose(by_optimizer(optimizer, before=assign), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", [*ASSIGNED, *ASSIGNED_IN_TRAINING])
    @pytest.mark.parametrize("shards", [1, 2])
    def test_counts_for_the_trainer(self, name, shards):
        kind, settings, assigned, *_ = ASSIGNED.get(name) or ASSIGNED_IN_TRAINING[name]
        generator = np.random.default_rng(0)
        X, y = generator.normal(size=(8, 3)), generator.normal(size=(8, 2))
        net = bp.Sequential(bp.Linear(3, 4), bp.Tanh(), bp.Linear(4, 2), seed=0, dtype="float64")
        twin, loss = net.copy(), bp.LeastSquares()
        optimizer, own = kind(0.01, **settings), kind(0.01, **settings)
        own.assign(twin)
        trainer = bp.Trainer(net, loss, optimizer, shards=shards)
        for t in range(6):
            for attribute, value in assigned.items() if t == 3 else ():
                setattr(optimizer, attribute, value)
                setattr(own, attribute, value)
            trainer.step(X, y)
            loss.forward(twin.forward(X.T), y.T)
            own.step(twin.phi, twin.backward(loss.backward())[1].dL_dphi)
            assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-13, err_msg=f"step {t}")

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("learning_rate", -0.1, ValueError),
            ("learning_rate", 0, ValueError),
            ("learning_rate", "0.1", TypeError),
            pytest.param("schedule", lambda t: 0.1, TypeError, id="schedule-lambda"),
            ("weight_decay", -1, ValueError),
            ("weight_decay", {"*": np.nan}, ValueError),
            ("l1", "0.1", TypeError),
            ("clip_value", 0, ValueError),
            ("clip_norm", -1, ValueError),
        ],
        ids=str,
    )
    def test_of_what_does_not_fit_is_refused_and_changes_nothing(self, name, value, error):
        optimizer, expected = bp.Adam(0.01), by_optimizer(bp.Adam(0.01))
        with pytest.raises(error, match="Adam: expected"):
            setattr(optimizer, name, value)
        assert_array_equal(by_optimizer(optimizer), expected)


class Returning(bp.Optimizer):
    """A mistake: a new φ instead of a change in place."""

    def update(self, alpha, phi, g):
        return phi - alpha * g


class ReturningAndTraced(Returning):
    traced = True


class TestOnesOwn:
    @pytest.mark.parametrize("kind", [Returning, ReturningAndTraced])
    def test_an_update_that_returns_something_is_refused(self, kind):
        optimizer, phi = kind(0.1), np.ones(3)
        with pytest.raises(TypeError, match=rf"{kind.__name__}\.update: expected None, got a ndarray\. Write phi -= …"):
            optimizer.step(phi, np.ones(3))
        assert_array_equal(phi, 1)
        assert optimizer.t == 0
        net = bp.Sequential(bp.Linear(2, 1), seed=0)
        before = net.phi.copy()
        with pytest.raises(TypeError, match=rf"{kind.__name__}\.update: expected None, got a"):
            bp.Trainer(net, bp.LeastSquares(), kind(0.1)).step(np.ones((3, 2)), np.ones(3))
        assert_array_equal(net.phi, before)


class TestOneNetwork:
    """An optimizer that has moved one network is not that of another."""

    @staticmethod
    def network(seed=0):
        return bp.Sequential(bp.Linear(2, 1), seed=seed)

    @pytest.mark.parametrize("used", ["by hand", "by a trainer"])
    @every_optimizer
    def test_a_second_one_is_refused(self, name, used):
        kind, settings = OPTIMIZERS[name]
        optimizer, net, other = kind(**settings), self.network(), self.network(1)
        if used == "by hand":
            optimizer.assign(net)
            optimizer.step(net.phi, np.ones_like(net.phi))
        else:
            bp.Trainer(net, bp.LeastSquares(), optimizer).step(np.ones((3, 2)), np.ones(3))
        expected = r"assign: expected a network that it serves, got another one\. One optimizer serves one network"
        for call in (optimizer.assign, lambda other: bp.Trainer(other, bp.LeastSquares(), optimizer)):
            with pytest.raises(ValueError, match=kind.__name__ + r"\." + expected):
                call(other)
        optimizer.assign(net)
        trainer = bp.Trainer(net, bp.LeastSquares(), optimizer)
        trainer.step(np.ones((3, 2)), np.ones(3))
        assert optimizer.t == 2
        trainer.optimizer = kind(**settings)  # and a fresh one may take its place
        trainer.step(np.ones((3, 2)), np.ones(3))

    def test_before_its_first_step_it_may_serve_another(self):
        optimizer = bp.SGD(0.5, weight_decay={"*.omega": 1.0})
        for net in (bp.Sequential(bp.Linear(3, 2)), self.network()):
            optimizer.assign(net)
        before = net.phi.copy()
        optimizer.step(net.phi, np.zeros_like(net.phi))
        assert_allclose(net.phi, before * [1, 0.5, 0.5], rtol=1e-6)

    def test_a_copy_serves_the_same_network_or_its_copy(self):
        net, X, y = self.network(), np.ones((3, 2)), np.ones(3)
        optimizer = bp.SGD(0.1, momentum=0.9)
        bp.Trainer(net, bp.LeastSquares(), optimizer).step(X, y)
        for of_net, of_optimizer in (
            (net.copy(), copy.deepcopy(optimizer)),
            copy.deepcopy((net, optimizer)),
            (net, copy.deepcopy(optimizer)),
        ):
            trainer = bp.Trainer(of_net, bp.LeastSquares(), of_optimizer)
            trainer.step(X, y)
            assert (of_optimizer.t, optimizer.t) == (2, 1)
            with pytest.raises(ValueError, match="One optimizer serves one network"):
                of_optimizer.assign(self.network())

    @pytest.mark.parametrize("wrapped", [lambda rate: rate, lambda rate: bp.WarmUp(rate, steps=3)], ids=["", "warm-up"])
    def test_a_schedule_that_listens_serves_one_optimizer(self, wrapped):
        rate = bp.ReduceOnPlateau(0.1, factor=0.5, patience=0)
        optimizer, other = bp.SGD(wrapped(rate)), bp.Adam(0.2)
        expected = r"ReduceOnPlateau\(.*\): expected one optimizer, got a second one\..*a schedule of its own"
        with pytest.raises(ValueError, match=expected):
            bp.SGD(wrapped(rate))
        for name in ("learning_rate", "schedule"):
            with pytest.raises(ValueError, match=expected):
                setattr(other, name, rate)
        assert other.learning_rate == 0.2
        optimizer.learning_rate = rate  # it is its own
        twin = copy.deepcopy(optimizer)
        for loss in (1.0, 1.0):
            optimizer.schedule.observe(loss)
        assert (optimizer.schedule(9), twin.schedule(9)) == (0.05, 0.1)

    def test_a_schedule_of_t_alone_may_serve_many(self):
        rate = bp.CosineDecay(0.1, steps=10)
        assert bp.SGD(rate).learning_rate == bp.Adam(rate).learning_rate == 0.1


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
    def test_is_a_vector_for_each_slot(self, name):
        kind, settings = OPTIMIZERS[name]
        optimizer, phi = kind(**settings), start(5, "float32")
        assert optimizer.state == {}
        optimizer.step(phi, phi.copy())
        assert list(optimizer.state) == list(optimizer.slots)
        assert optimizer.slots != ("velocity",) or kind is bp.SGD  # of Nesterov's rule, too
        assert all(array.shape == (5,) and array.dtype == np.float32 for array in optimizer.state.values())

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


@pytest.mark.parametrize(
    ("rule", "state"),
    [("Adam", "second_moment"), ("AdamW", "second_moment"), ("RMSProp", "square"), ("Adagrad", "sum_of_squares")],
)
def test_state_that_overflows_is_named_and_changes_nothing(rule, state):
    """1e20 squared is inf in float32: the rule would stand still for good, and nobody would see it."""
    phi, optimizer = np.ones(2, np.float32), getattr(bp, rule)(0.1)
    optimizer.step(phi, np.ones(2, np.float32))
    before = [phi.copy(), *(vector.copy() for vector in optimizer.state.values())]
    with pytest.raises(FloatingPointError, match=f"{rule}.step: expected a finite {state} after the step"):
        optimizer.step(phi, np.array([1e20, 1], np.float32))
    for found, expected in zip([phi, *optimizer.state.values()], before, strict=True):
        assert_array_equal(found, expected)
    assert optimizer.t == 1
    optimizer.step(phi, np.ones(2, np.float32))


def test_state_that_overflows_in_training_is_named_like_a_parameter():
    net = bp.Sequential(bp.Linear(1, 1, initializer=bp.Constant(1.0)), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.Adam(1e-3))
    with pytest.raises(FloatingPointError, match=r"the optimizer's second_moment of 0\.omega"):
        trainer.fit(np.full((4, 1), 1e10), np.zeros(4), epochs=1, verbose=0)
