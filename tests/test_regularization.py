"""Penalties by parameter, constraints and averages, each against what it says, written out parameter by parameter."""

from __future__ import annotations

import copy
import os
import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tables import OPTIMIZERS
from test_bad_input import assert_refused
from test_engine import data, network, plain
from test_optimizers import RULES, slope

import backprop as bp
from backprop.engine.planning import PIECE
from backprop.patterns import by_pattern

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)

DECAY = {"0.omega": 0.3, "2.*": 0.05}  # 0.beta has none
L1 = {"*.beta": 0.0, "0.*": 0.4, "2.omega": 0.02}
PENALTIES = {
    "decay": {"weight_decay": DECAY},
    "l1": {"l1": L1},
    "both": {"weight_decay": DECAY, "l1": L1},
    "number and names": {"l1": 0.1, "weight_decay": DECAY},
    "clipped": {"weight_decay": DECAY, "l1": L1, "clip_value": 0.3},
}
OF_NAME = {
    "weight_decay": {"0.beta": 0.0, "0.omega": 0.3, "2.beta": 0.05, "2.omega": 0.05},
    "l1": {"0.beta": 0.0, "0.omega": 0.4, "2.beta": 0.0, "2.omega": 0.02},
}


def steady_step(kind, settings, t, state):
    """How far step t (from 1) of a rule goes along a gradient of 1 that was always there, from its textbook form."""
    alpha, mu = settings["learning_rate"], settings.get("momentum", 0.0)
    if kind is bp.SGD:
        v = sum(mu**k for k in range(t))
        return alpha * (1 + mu * v if settings.get("nesterov") else v)
    if kind is bp.RMSProp:
        return alpha / (np.sqrt(state["v"]) + settings.get("eps", 1e-8))
    if kind is bp.Adagrad:
        return alpha / (np.sqrt(state["sum"]) + settings.get("eps", 1e-10))
    beta2 = settings.get("betas", (0.9, 0.999))[1]
    return alpha / (np.sqrt(state["v"] / (1 - beta2**t)) + settings.get("eps", 1e-8))


class Groups:
    """An optimizer as a loop over parameters: each has a rule of its own with numbers of its own."""

    def __init__(self, net, kind, settings, penalties):
        self.net, self.kind, self.settings, self.penalties = net, kind, settings, penalties
        self.t, self.states = 0, {name: {} for name in net.parameters}

    def number(self, penalty, name):
        value = self.penalties.get(penalty, self.settings.get(penalty, 0.01 if self.kind is bp.AdamW else 0.0))
        if penalty == "l1" and "l1" not in self.penalties:
            return 0.0
        return OF_NAME[penalty][name] if isinstance(value, dict) else value

    def step(self, phi, g):
        self.t += 1
        limit = self.penalties.get("clip_value", np.inf)
        gradients = self.net.views(np.clip(g, -limit, limit))
        for name, parameter in self.net.views(phi).items():
            state, settings = self.states[name], self.settings | {"weight_decay": self.number("weight_decay", name)}
            moved = RULES[self.kind](parameter, gradients[name], self.t, state, **settings)
            threshold = self.number("l1", name) * steady_step(self.kind, self.settings, self.t, state)
            parameter[...] = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)


class TestByName:
    @every_optimizer
    @pytest.mark.parametrize("penalty", PENALTIES)
    def test_each_parameter_has_its_own_number(self, name, penalty):
        kind, settings = OPTIMIZERS[name]
        net, twin = network(), network()
        optimizer = kind(**settings | PENALTIES[penalty])
        optimizer.assign(net)
        groups = Groups(twin, kind, settings, PENALTIES[penalty])
        for t in range(30):
            optimizer.step(net.phi, slope(net.phi, t))
            groups.step(twin.phi, slope(twin.phi, t))
        assert_allclose(net.phi, twin.phi, rtol=1e-12, atol=1e-12)

    @every_optimizer
    def test_over_more_than_one_piece(self, name):
        (kind, settings), rng = OPTIMIZERS[name], np.random.default_rng(0)
        D, loss = PIECE // 200, bp.CrossEntropy()
        X, y = rng.standard_normal((4, D)), rng.integers(0, 3, 4)
        net = bp.Sequential(bp.Linear(D, 300), bp.Tanh(), bp.Linear(300, 3), seed=0, dtype="float64")
        twin = net.copy()
        assert net.size > PIECE
        trainer = bp.Trainer(net, loss, kind(**settings | PENALTIES["both"]))
        groups = Groups(twin, kind, settings, PENALTIES["both"])
        for _ in range(2):
            trainer.step(X, y)
            loss.forward(twin.forward(X.T), y)
            groups.step(twin.phi, twin.backward(loss.backward())[1].dL_dphi)
        assert_allclose(net.phi, twin.phi, rtol=1e-12, atol=1e-12)

    @every_optimizer
    @pytest.mark.parametrize(("shards", "threads"), [(1, 1), (1, 2), (3, 1), (3, 2)])
    def test_the_trainer_is_the_plain_loop(self, name, shards, threads):
        kind, settings = OPTIMIZERS[name]
        (X, y), net, twin = data(), network(), network()
        plain(twin, bp.CrossEntropy(), Groups(twin, kind, settings, PENALTIES["both"]), X, y, 12, 2)
        optimizer = kind(**settings | PENALTIES["both"])
        trainer = bp.Trainer(net, bp.CrossEntropy(), optimizer, batch_size=12, shards=shards, threads=threads)
        trainer.fit(X, y, epochs=2, verbose=0)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12)

    @every_optimizer
    def test_one_number_for_every_name_is_that_number(self, name):
        kind, settings = OPTIMIZERS[name]
        (X, y), found = data(), []
        for value in (0.1, {"*": 0.1}, {"0.*": 0.1, "*.beta": 0.1, "2.omega": 0.1}):
            net = network()
            optimizer = kind(**settings | {"weight_decay": value, "l1": value})
            bp.Trainer(net, bp.CrossEntropy(), optimizer, batch_size=8).fit(X, y, epochs=2, verbose=0)
            found.append(net.phi)
        assert_array_equal(found[0], found[1])
        assert_array_equal(found[0], found[2])

    @pytest.mark.parametrize("kind", [bp.SGD, bp.Adam])
    @pytest.mark.parametrize("nothing", [{"*": 0.0}, {"*.beta": 0}, 0])
    def test_nothing_is_nothing(self, kind, nothing):
        (X, y), net, twin = data(), network(), network()
        bp.Trainer(net, bp.CrossEntropy(), kind(0.1, weight_decay=nothing, l1=nothing)).fit(X, y, epochs=2, verbose=0)
        bp.Trainer(twin, bp.CrossEntropy(), kind(0.1, weight_decay=0.0)).fit(X, y, epochs=2, verbose=0)
        assert_array_equal(net.phi, twin.phi)

    @pytest.mark.parametrize("kind", [bp.SGD, bp.Adam])
    def test_threads_never_change_a_bit(self, kind):
        rng, found = np.random.default_rng(0), []
        X, y = rng.standard_normal((64, 300)).astype("f"), rng.integers(0, 3, 64)
        for threads in (1, 2, 3):
            net = bp.Sequential(bp.Linear(300, 800), bp.ReLU(), bp.Linear(800, 3), seed=0)
            optimizer = kind(0.01, weight_decay={"*.omega": 0.1}, l1={"0.omega": 0.05})
            settings = {"batch_size": 32, "shards": 4, "threads": threads, "deterministic": True}
            bp.Trainer(net, bp.CrossEntropy(), optimizer, **settings).fit(X, y, epochs=2, verbose=0)
            found.append(net.phi)
        assert net.size > 3 * PIECE
        assert_array_equal(found[0], found[1])
        assert_array_equal(found[0], found[2])

    def test_in_float32_the_type_is_kept(self):
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        for kind in RULES:
            optimizer = kind(0.01, weight_decay={"*.omega": 0.1}, l1={"*.omega": 0.1})
            optimizer.assign(net)
            optimizer.step(net.phi, net.phi.copy())
            assert all(array.dtype == np.float32 for array in [*optimizer.state.values(), net.phi])

    def test_is_what_pytorch_makes_of_parameter_groups(self):
        torch = pytest.importorskip("torch")
        of_torch = {
            bp.SGD: (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
            bp.RMSProp: (torch.optim.RMSprop, {}),
            bp.Adagrad: (torch.optim.Adagrad, {}),
            bp.Adam: (torch.optim.Adam, {}),
            bp.AdamW: (torch.optim.AdamW, {}),
        }
        for kind, (theirs, settings) in of_torch.items():
            net = network()
            tensors = {name: torch.tensor(array.copy()) for name, array in net.parameters.items()}
            groups = [{"params": [x], "weight_decay": OF_NAME["weight_decay"][name]} for name, x in tensors.items()]
            optimizer, other = kind(0.05, weight_decay=DECAY, **settings), theirs(groups, lr=0.05, **settings)
            optimizer.assign(net)
            for t in range(20):
                g = slope(net.phi, t)
                for name, part in net.views(g).items():
                    tensors[name].grad = torch.tensor(part)
                optimizer.step(net.phi, g)
                other.step()
            for name, parameter in net.parameters.items():
                assert_allclose(parameter, tensors[name].numpy(), rtol=1e-12, atol=1e-12)

    def test_the_first_pattern_counts(self):
        names = ["0.beta", "0.omega", "10.omega"]
        assert by_pattern("x", "y", {"0.*": 1, "*.omega": 2}, names) == {"0.beta": 1, "0.omega": 1, "10.omega": 2}
        assert by_pattern("x", "y", {"*.omega": 2, "0.*": 1}, names) == {"0.beta": 1, "0.omega": 2, "10.omega": 2}
        assert by_pattern("x", "y", {"[01].?eta": 3}, names) == {"0.beta": 3}

    def test_the_dict_is_copied(self):
        mine = {"*.omega": 0.5}
        optimizer = bp.SGD(0.1, weight_decay=mine)
        mine["*.beta"] = -1
        assert optimizer.weight_decay == {"*.omega": 0.5}
        assert repr(optimizer) == "SGD(learning_rate=0.1, weight_decay={'*.omega': 0.5})"

    @pytest.mark.parametrize("kind", RULES)
    @pytest.mark.parametrize("penalty", ["weight_decay", "l1"])
    def test_a_step_before_assign(self, kind, penalty):
        optimizer, phi = kind(0.1, **{penalty: {"*.omega": 0.1}}), np.ones(3)
        assert_refused(lambda: optimizer.step(phi, np.ones(3)), RuntimeError, kind.__name__, penalty, "assign(net)")
        assert_array_equal(phi, np.ones(3))

    def test_a_step_of_another_network(self):
        optimizer, phi = bp.SGD(0.1, weight_decay={"*.omega": 0.1}), np.ones(3)
        optimizer.assign(network())
        assert_refused(lambda: optimizer.step(phi, np.ones(3)), ValueError, "SGD", "(53,)", "(3,)")
        assert_array_equal(phi, np.ones(3))

    @pytest.mark.parametrize("penalty", ["weight_decay", "l1"])
    @pytest.mark.parametrize(
        ("value", "error", "part"),
        [
            ({"*.omega": -1}, ValueError, "['*.omega'] ≥ 0"),
            ({"*.omega": "0.1"}, TypeError, "['*.omega']"),
            ({"*.omega": np.nan}, ValueError, "['*.omega']"),
            ({0: 0.1}, TypeError, "patterns"),
            ({}, TypeError, "a number"),
            (-0.1, ValueError, "≥ 0"),
            ([0.1], TypeError, "a number"),
        ],
        ids=str,
    )
    def test_bad_numbers(self, penalty, value, error, part):
        assert_refused(lambda: bp.Adam(**{penalty: value}), error, "Adam", penalty, part)

    def test_a_pattern_that_matches_nothing_lists_the_names(self):
        optimizer = bp.SGD(0.1, l1={"*.omega": 0.1, "3.omega": 0.1})
        parts = ("SGD", "l1", "'3.omega'", "'0.beta'", "'0.omega'", "'2.beta'", "'2.omega'")
        assert_refused(lambda: bp.Trainer(network(), bp.CrossEntropy(), optimizer), ValueError, *parts)

    def test_what_is_no_network(self):
        assert_refused(lambda: bp.SGD(0.1).assign({"omega": np.ones(3)}), TypeError, "SGD.assign", "Sequential")


def lasso(A, y, l1):
    """The least of mean (A w − y)² + l1 Σ |w|, coordinate by coordinate."""
    w, n = np.zeros(A.shape[1]), len(y)
    for _ in range(2000):
        for j in range(len(w)):
            rest = y - A @ w + A[:, j] * w[j]
            correlation = 2 * A[:, j] @ rest / n
            w[j] = np.sign(correlation) * max(abs(correlation) - l1, 0) / (2 * A[:, j] @ A[:, j] / n)
    return w


class TestL1:
    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda l1: bp.SGD(0.1, l1=l1),
            lambda l1: bp.SGD(0.02, 0.9, l1=l1),
            lambda l1: bp.SGD(0.02, 0.9, True, l1=l1),
            lambda l1: bp.RMSProp(0.01, l1=l1),
            lambda l1: bp.Adagrad(0.5, l1=l1),
            lambda l1: bp.Adam(0.02, l1=l1),
            lambda l1: bp.AdamW(0.02, weight_decay=0.0, l1=l1),
        ],
        ids=["SGD", "momentum", "nesterov", "RMSProp", "Adagrad", "Adam", "AdamW"],
    )
    def test_every_rule_ends_at_the_lasso(self, optimizer):
        rng = np.random.default_rng(0)
        A = rng.standard_normal((60, 8)) @ np.diag([1, 0.5, 1.5, 1, 1, 0.7, 1, 1])
        y = A @ np.array([1, -2, 0, 0, 0.5, 0, 0, 0.1]) + 0.1 * rng.standard_normal(60)
        expected = lasso(A, y, 0.3)
        assert 0 < np.count_nonzero(expected) < 8
        net = bp.Sequential(bp.Linear(8, 1, bias=False), seed=0, dtype="float64")
        trainer = bp.Trainer(net, bp.LeastSquares(), optimizer(0.3), batch_size="full")
        trainer.fit(A, y, epochs=2000, verbose=0)
        assert_allclose(net.phi, expected, rtol=0, atol=1e-5)
        assert_array_equal(net.phi == 0, expected == 0)  # exact zeros, and the right ones

    def test_one_step_by_hand(self):
        # α = 0.1, λ₁ = 2, g = 1: 1 − 0.1 = 0.9 shrinks to 0.7; −0.2 − 0.1 to −0.1; 0.25 − 0.1 = 0.15 to 0
        phi = np.array([1.0, -0.2, 0.25])
        bp.SGD(0.1, l1=2.0).step(phi, np.ones(3))
        assert_allclose(phi, [0.7, -0.1, 0.0], rtol=1e-14)
        assert phi[2] == 0


class Ball(bp.Constraint):
    """A constraint of one's own: φ in a ball around 0."""

    def project(self, parameter):
        parameter /= max(1.0, np.linalg.norm(parameter))


class Returns(bp.Constraint):
    """A mistake: a new array instead of a change in place."""

    def project(self, parameter):
        return np.maximum(parameter, 0)


def norms_at_most(limit, axis):
    return lambda array: (np.linalg.norm(array, axis=axis) <= limit * (1 + 1e-12)).all()


CONSTRAINTS = {
    "rows": (lambda: bp.MaxNorm(0.5), "*.omega", norms_at_most(0.5, 1)),
    "columns": (lambda: bp.MaxNorm(0.5, axis=0), "0.omega", norms_at_most(0.5, 0)),
    "a vector": (lambda: bp.MaxNorm(0.01, axis=0), "*.beta", norms_at_most(0.01, 0)),
    "non-negative": (bp.NonNegative, "2.*", lambda array: (array >= 0).all()),
    "one's own": (Ball, "*", norms_at_most(1, None)),
}


class Descends:
    """An optimizer that projects by a function of its own, for the plain loop."""

    def __init__(self, optimizer, net, names, project):
        self.optimizer, self.net, self.names, self.project = optimizer, net, names, project

    def step(self, phi, g):
        self.optimizer.step(phi, g)
        for name in self.names:
            self.net.parameters[name][...] = self.project(self.net.parameters[name])


class TestConstraints:
    @pytest.mark.parametrize("shards", [1, 3])
    @pytest.mark.parametrize(
        "optimizer", [lambda: bp.SGD(0.5), lambda: bp.SGD(0.2, 0.9), bp.Adam], ids=["SGD", "momentum", "Adam"]
    )
    @pytest.mark.parametrize("constraint", CONSTRAINTS)
    def test_hold_after_every_step(self, constraint, optimizer, shards):
        make, pattern, holds = CONSTRAINTS[constraint]
        (X, y), net = data(), network()
        trainer = bp.Trainer(
            net, bp.CrossEntropy(), optimizer(), batch_size=10, shards=shards, constraints={pattern: make()}
        )
        held = []
        names = by_pattern("", "", {pattern: 0}, net.parameters)
        trainer.after_step.append(lambda: held.append(all(holds(net.parameters[name]) for name in names)))
        trainer.fit(X, y, epochs=3, verbose=0)
        trainer.step(X, y)
        assert held == [True] * 16

    @pytest.mark.parametrize(
        "optimizer",
        [lambda: bp.SGD(0.5), lambda: bp.SGD(0.2, 0.9, weight_decay=0.1), bp.Adam],
        ids=["SGD", "momentum", "Adam"],
    )
    def test_are_projections_after_the_plain_step(self, optimizer):
        (X, y), net, twin = data(), network(), network()
        trainer = bp.Trainer(
            net,
            bp.CrossEntropy(),
            optimizer(),
            batch_size=8,
            constraints={"0.omega": bp.MaxNorm(0.7), "*.beta": bp.NonNegative()},
        )
        trainer.fit(X, y, epochs=3, verbose=0)
        rows = lambda omega: omega * np.minimum(1, 0.7 / np.sqrt((omega**2).sum(axis=1, keepdims=True)))  # noqa: E731
        positive = lambda beta: np.where(beta > 0, beta, 0)  # noqa: E731
        own = optimizer()
        steps = Descends(Descends(own, twin, ["0.omega"], rows), twin, ["0.beta", "2.beta"], positive)
        plain(twin, bp.CrossEntropy(), steps, X, y, 8, 3)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12)
        for name, array in trainer.optimizer.state.items():
            assert_allclose(array, own.state[name], rtol=0, atol=1e-11)

    @pytest.mark.parametrize("constraint", CONSTRAINTS)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_are_idempotent_and_leave_alone_what_satisfies_them(self, constraint, dtype):
        project = CONSTRAINTS[constraint][0]().project
        array = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
        project(array)
        again = array.copy()
        project(again)
        assert_allclose(again, array, rtol=4 * np.finfo(dtype).eps)
        inside = np.full((4, 6), 1e-3, dtype)
        project(inside)
        assert_array_equal(inside, np.full((4, 6), 1e-3, dtype))

    def test_project_to_the_nearest_point(self):
        rng = np.random.default_rng(0)
        array = rng.standard_normal((3, 4))
        for constraint, sample in [
            (bp.MaxNorm(0.8), lambda x: x * 0.8 / np.linalg.norm(x, axis=1, keepdims=True)),
            (bp.NonNegative(), np.abs),
        ]:
            nearest = array.copy()
            constraint.project(nearest)
            distance = np.linalg.norm(nearest - array)
            others = [sample(nearest + 0.1 * rng.standard_normal((3, 4))) for _ in range(200)]
            assert all(np.linalg.norm(other - array) >= distance for other in others)

    def test_a_row_of_zeros_stays(self):
        omega = np.array([[0.0, 0.0], [3.0, 4.0]])
        bp.MaxNorm(1).project(omega)
        assert_allclose(omega, [[0, 0], [0.6, 0.8]], rtol=1e-15)

    def test_initial_weights_are_left_to_the_first_step(self):
        (X, y), net = data(), network()
        before = net.phi.copy()
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), constraints={"*.omega": bp.NonNegative()})
        assert_array_equal(net.phi, before)
        trainer.step(X, y)
        assert net.parameters["0.omega"].min() == 0

    def test_the_first_pattern_counts(self):
        (X, y), net = data(), network()
        constraints = {"0.omega": bp.MaxNorm(100), "*.omega": bp.NonNegative()}
        bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), constraints=constraints).step(X, y)
        assert net.parameters["0.omega"].min() < 0 <= net.parameters["2.omega"].min()

    def test_reprs(self):
        assert [repr(bp.MaxNorm(3)), repr(bp.NonNegative())] == ["MaxNorm(limit=3.0)", "NonNegative()"]

    @pytest.mark.parametrize(
        ("constraints", "error", "parts"),
        [
            (bp.MaxNorm(3), TypeError, ["constraints as a dict", "MaxNorm"]),
            ({"*.omega": bp.NonNegative}, TypeError, ["Constraint", "Write NonNegative(…)"]),
            ({"*.omega": 3}, TypeError, ["constraints['*.omega']"]),
            ({1: bp.NonNegative()}, TypeError, ["patterns"]),
            ({"*.gamma": bp.NonNegative()}, ValueError, ["'*.gamma'", "'0.beta'", "matches none"]),
            ({"*": bp.MaxNorm(3)}, ValueError, ["MaxNorm", "axis 1", "(5,)", "leaves β out"]),
            ({"*.omega": Returns()}, TypeError, ["Returns().project", "in place", "ndarray", "0.omega"]),
        ],
        ids=str,
    )
    def test_bad_constraints(self, constraints, error, parts):
        net = network()
        before = net.phi.copy()
        call = lambda: bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), constraints=constraints)  # noqa: E731
        assert_refused(call, error, *parts)
        assert_array_equal(net.phi, before)

    @pytest.mark.parametrize(
        ("settings", "error"), [((0,), ValueError), ((-1,), ValueError), (("3",), TypeError), ((3, -1), ValueError)]
    )
    def test_bad_settings(self, settings, error):
        assert_refused(lambda: bp.MaxNorm(*settings), error, "MaxNorm")


class Watcher(bp.Callback):
    """Keeps φ and statistics after each epoch, and stops or raises where told."""

    def __init__(self, stop=None, error=None):
        self.at_end_of, self.stop, self.error = [], stop, error

    def epoch(self, trainer, record):
        net = trainer.net
        self.at_end_of.append({"phi": net.phi.copy()} | {name: array.copy() for name, array in net.buffers.items()})
        if record.epoch == self.error:
            raise ZeroDivisionError
        return record.epoch == self.stop


def fitted(average, epochs=5, callbacks=(), net=None, **settings):
    """A trainer after `epochs` with the average, and what the network was after each epoch."""
    (X, y), watcher = data(), Watcher(**settings)
    trainer = bp.Trainer(net or network(), bp.CrossEntropy(), bp.SGD(0.2, 0.9), batch_size=8)
    trainer.fit(X, y, epochs=epochs, callbacks=[watcher, *callbacks, average], verbose=0)
    return trainer, watcher.at_end_of


def batch_norm():
    return network(lambda: bp.Sequential(bp.BatchNorm(5), bp.ReLU()))


class Follower:
    """φ after each step of the plain loop."""

    def __init__(self, optimizer):
        self.optimizer, self.seen = optimizer, []

    def step(self, phi, g):
        self.optimizer.step(phi, g)
        self.seen.append(phi.copy())


class TestWeightAverage:
    @pytest.mark.parametrize("start_epoch", [1, 3, 5])
    def test_without_a_decay_is_the_mean_over_epochs(self, start_epoch):
        average = bp.WeightAverage(start_epoch=start_epoch)
        trainer, seen = fitted(average, net=batch_norm())
        for name, array in {"phi": trainer.net.phi, **trainer.net.buffers}.items():
            expected = np.mean([each[name] for each in seen[start_epoch - 1 :]], axis=0)
            assert_allclose(array, expected, rtol=1e-13, atol=1e-14)
        assert average.n == 6 - start_epoch

    @pytest.mark.parametrize("start_epoch", [1, 3])
    @pytest.mark.parametrize("decay", [0.5, 0.99])
    def test_with_a_decay_is_the_exponential_average_over_steps(self, decay, start_epoch):
        (X, y), twin = data(), network()
        follower = Follower(bp.SGD(0.2, 0.9))
        plain(twin, bp.CrossEntropy(), follower, X, y, 8, 5)
        steps = follower.seen[7 * (start_epoch - 1) :]
        expected = steps[0]
        for n, phi in enumerate(steps[1:], start=2):
            rate = min(1 - 1 / n, decay)
            expected = rate * expected + (1 - rate) * phi
        trainer, _ = fitted(bp.WeightAverage(decay, start_epoch=start_epoch))
        assert_allclose(trainer.net.phi, expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("decay", [None, 0.9])
    def test_training_does_not_notice(self, decay):
        average = bp.WeightAverage(decay)
        trainer, seen = fitted(average)
        _, expected = fitted(bp.Callback())
        for mine, other in zip(seen, expected, strict=True):
            assert_array_equal(mine["phi"], other["phi"])
        assert not np.array_equal(trainer.net.phi, seen[-1]["phi"])
        assert trainer.after_step == []

    def test_there_and_back(self):
        average = bp.WeightAverage(0.9)
        trainer, seen = fitted(average, net=batch_norm())
        net = trainer.net
        mean, buffers = net.phi.copy(), {name: array.copy() for name, array in net.buffers.items()}
        average.put_last(net)
        for name, array in {"phi": net.phi, **net.buffers}.items():
            assert_array_equal(array, seen[-1][name])
        twin = net.copy()
        average.put_average(twin)
        assert_array_equal(twin.phi, mean)
        for name, array in twin.buffers.items():
            assert_array_equal(array, buffers[name])
        assert_array_equal(net.phi, seen[-1]["phi"])

    @pytest.mark.parametrize("back", [False, True])
    @pytest.mark.parametrize("decay", [None, 0.9])
    def test_four_and_six_epochs_are_ten(self, decay, back):
        (X, y), average, whole = data(), bp.WeightAverage(decay, start_epoch=2), bp.WeightAverage(decay, start_epoch=2)
        trainer, _ = fitted(average, 4, net=batch_norm())
        if back:
            average.put_last(trainer.net)
        trainer.fit(X, y, epochs=6, callbacks=[average], verbose=0)
        twin, _ = fitted(whole, 10, net=batch_norm())
        assert_array_equal(trainer.net.phi, twin.net.phi)
        assert average.n == whole.n
        for name, array in trainer.net.buffers.items():
            assert_array_equal(array, twin.net.buffers[name])

    def test_other_weights_start_afresh(self):
        (X, y), average = data(), bp.WeightAverage()
        trainer, _ = fitted(average)
        trainer.net.initialize(np.random.default_rng(5))
        trainer.fit(X, y, epochs=1, callbacks=[average], verbose=0)
        assert average.n == 1
        last = trainer.net.phi.copy()
        average.put_last(trainer.net)
        assert_array_equal(trainer.net.phi, last)

    def test_ending_before_the_start_leaves_the_network_alone(self):
        for decay in (None, 0.9):
            average = bp.WeightAverage(decay, start_epoch=6)
            trainer, seen = fitted(average)
            assert_array_equal(trainer.net.phi, seen[-1]["phi"])
            assert_refused(lambda a=average: a.put_average(network()), RuntimeError, "put_average", "no weights")

    def test_the_last_of_the_list_decides(self):
        for decay in (None, 0.9):
            average, stopper = bp.WeightAverage(decay), bp.EarlyStopping("learning_rate", patience=2)
            trainer, seen = fitted(average, callbacks=[stopper])
            assert len(seen) == 3
            assert stopper.best_epoch == 1
            average.put_last(trainer.net)
            assert_array_equal(trainer.net.phi, seen[0]["phi"])
        stopper = bp.EarlyStopping("learning_rate", patience=2)
        trainer, seen = fitted(stopper, callbacks=[bp.WeightAverage()])
        assert_array_equal(trainer.net.phi, seen[0]["phi"])

    @pytest.mark.parametrize("at", [1, 12])
    def test_after_ctrl_c(self, at):
        (X, y), net, average = data(), network(), bp.WeightAverage(0.9)
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.2, 0.9), batch_size=8)
        follower = Follower(bp.SGD(0.2, 0.9))
        plain(network(), bp.CrossEntropy(), follower, X, y, 8, 2)
        calls = iter(range(1, 100))
        trainer.after_step.append(lambda: os.kill(os.getpid(), signal.SIGINT) if next(calls) == at else None)
        history = trainer.fit(X, y, epochs=5, callbacks=[average], verbose=0)
        assert history.stopped == "Ctrl-C"
        assert average.n == at
        average.put_last(net)
        assert_allclose(net.phi, follower.seen[at - 1], rtol=0, atol=1e-12)

    def test_an_interrupted_average_is_still_one(self, monkeypatch):
        def interrupted(*args):
            raise KeyboardInterrupt

        (X, y), net, average = data(), network(), bp.WeightAverage(0.9)
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.2), batch_size=8)
        trainer.fit(X, y, epochs=1, callbacks=[average], verbose=0)
        before = net.phi.copy()
        monkeypatch.setattr("backprop.training.averaging.axpy", interrupted)
        assert trainer.fit(X, y, epochs=1, callbacks=[average], verbose=0).stopped == "Ctrl-C"
        assert_array_equal(net.phi, before)
        assert average.n == 7

    def test_an_error_leaves_no_hook_behind(self):
        (X, y), average = data(), bp.WeightAverage(0.9)
        trainer = bp.Trainer(network(), bp.CrossEntropy(), bp.SGD(0.2), batch_size=8)
        with pytest.raises(ZeroDivisionError):
            trainer.fit(X, y, epochs=3, callbacks=[average, Watcher(error=1)], verbose=0)
        assert trainer.after_step == []
        assert average.n == 7

    def test_in_minimize(self):
        X, y = data()
        net, average, watcher = network(), bp.WeightAverage(), Watcher()
        bp.minimize(net, bp.CrossEntropy(), X, y, iterations=4, callbacks=[watcher, average], verbose=0)
        assert_allclose(net.phi, np.mean([each["phi"] for each in watcher.at_end_of], axis=0), rtol=1e-12, atol=1e-14)
        call = lambda: bp.minimize(  # noqa: E731
            net, bp.CrossEntropy(), X, y, callbacks=[bp.WeightAverage(0.9)], verbose=0
        )
        assert_refused(call, TypeError, "WeightAverage", "Trainer.fit", "decay")

    def test_a_deep_copy_is_independent(self):
        average = bp.WeightAverage()
        trainer, _ = fitted(average)
        twin, other = copy.deepcopy(average), network()
        fitted(average)
        twin.put_average(other)
        assert_array_equal(other.phi, trainer.net.phi)

    def test_another_network_is_refused(self):
        average = bp.WeightAverage()
        fitted(average)
        net = bp.Sequential(bp.Linear(2, 2))
        assert_refused(lambda: average.put_last(net), ValueError, "put_last", "P = 53", "P = 6")
        assert_refused(lambda: bp.WeightAverage().put_last(net), RuntimeError, "put_last")

    def test_repr(self):
        assert repr(bp.WeightAverage(0.9, start_epoch=2)) == "WeightAverage(decay=0.9, start_epoch=2)"

    @pytest.mark.parametrize(
        ("settings", "error", "name"),
        [
            ({"decay": 1.0}, ValueError, "decay < 1"),
            ({"decay": 0}, ValueError, "decay > 0"),
            ({"decay": "0.9"}, TypeError, "decay"),
            ({"start_epoch": 0}, ValueError, "start_epoch ≥ 1"),
            ({"start_epoch": 1.5}, TypeError, "start_epoch"),
        ],
        ids=str,
    )
    def test_bad_settings(self, settings, error, name):
        assert_refused(lambda: bp.WeightAverage(**settings), error, "WeightAverage", name)
