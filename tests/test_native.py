"""The native player: the bits of NumPy's, its errors, its limits; and `compiled`."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
from helpers import LogCosh, Scale
from numpy.testing import assert_allclose, assert_array_equal
from test_nests import program

import backprop as bp
from backprop.engine import native, parts, play
from backprop.engine.blas import prepare
from backprop.engine.calls import Copy, Draw, Multiply, Numbers, Pick, Ufunc
from backprop.engine.calls import Scale as Scaled
from backprop.engine.threads import blas_threads
from backprop.training import native as choosing

if native.player is None:
    pytest.fail("the native player is not built: these tests need a C compiler", pytrace=False)

from backprop.engine.native.compiled import passes_of
from backprop.engine.native.keys import keys
from backprop.engine.native.loops import MEET, PYTHON, STOP
from backprop.engine.native.lower import Operations
from backprop.engine.native.spread import Spread

SEEDS = range(int(os.environ.get("BACKPROP_NATIVE_PROGRAMS", "60")))
RULES = [
    lambda **k: bp.SGD(0.01, **k),
    lambda **k: bp.SGD(bp.ExponentialDecay(0.01, factor=0.9), momentum=0.9, **k),
    lambda **k: bp.SGD(0.01, momentum=0.9, nesterov=True, **k),
    lambda **k: bp.Adam(0.01, **k),
    lambda **k: bp.AdamW(0.01, **k),
    lambda **k: bp.RMSProp(0.01, **k),
    lambda **k: bp.Adagrad(0.01, **k),
]


def state(trainer, losses):
    """All that a run leaves behind."""
    net, rule = trainer.net, trainer.optimizer
    arrays = {"phi": net.phi, **rule.state, **net.buffers, "losses": np.array(losses)}
    return {name: array.copy() for name, array in arrays.items()} | {"t": rule.t, "position": trainer.position}


def trained(native, net, loss, rule, X, y, *, epochs=3, w=None, **settings):
    """What a fit of copies comes to, played by one of the players."""
    trainer = bp.Trainer(net.copy(), copy.deepcopy(loss), rule(), native=native, seed=3, **settings)
    losses = [epoch.loss for epoch in trainer.epochs(X, y, epochs, sample_weight=w)]
    if native is True:
        (chance,) = {chance.refused for chance in trainer._descent.native._chances.values()}
        assert not chance
    return state(trainer, losses)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == b[name].dtype
            assert_array_equal(value.view(np.uint8), b[name].view(np.uint8), err_msg=name)  # −0.0 is not 0.0
        else:
            assert value == b[name], name


@pytest.mark.parametrize("seed", SEEDS)
def test_random_programs_have_the_bits_of_numpys_player(seed):
    net, loss, h, y, _ = program(seed)
    rng = np.random.default_rng(seed)
    N = int(rng.integers(3, 40))
    X = rng.normal(size=(N, len(h))).astype("f" if rng.random() < 0.5 else "d")
    rows = y.T[rng.integers(0, y.shape[-1], N)]
    if isinstance(loss, bp.CrossEntropy) and rows.shape[1:] == (1,):
        rows = np.zeros(N, int)  # one class is no column of ones
    w = rng.random(N) * rng.integers(0, 2, N) if rng.random() < 0.4 else None
    if w is not None:
        w[0] = 1.0
    settings = {"batch_size": int(rng.integers(1, 20)), "threads": int(rng.integers(1, 3))}
    settings["shards"] = "auto" if rng.random() < 0.5 else int(rng.integers(1, 6))
    clips = [{}, {"clip_norm": 0.5}, {"clip_value": 0.1}, {"clip_norm": 1.0, "clip_value": 0.3}][rng.integers(4)]
    penalties = [{}, {"weight_decay": 0.1}, {"weight_decay": {"*.omega": 0.1}}, {"l1": 0.01}][rng.integers(4)]
    kind = rng.integers(len(RULES))
    rule = lambda: RULES[kind](**clips, **penalties)  # noqa: E731
    found = []
    for player in (False, True):
        try:
            found.append(trained(player, net, loss, rule, X, rows, w=w, **settings))
        except FloatingPointError as error:
            found.append({"error": str(error)})
    assert_same(*found)


def wide(seed):
    """A network whose products come in parts, a batch size, and data for six batches or so."""
    rng = np.random.default_rng(seed)
    widths = [int(rng.integers(5, 150)), *rng.integers(40, 400, rng.integers(1, 4)).tolist(), int(rng.integers(1, 60))]
    n = int(rng.integers(1, 150))
    layers = []
    for D, K in pairwise(widths[:-1]):
        between = [lambda K: bp.BatchNorm(K), lambda K: bp.LayerNorm(K), lambda K: bp.Dropout(0.3)]
        between += [lambda K: bp.Residual(bp.Linear(K, K)), lambda K: bp.GELU(), lambda K: bp.Tanh()]
        layers += [bp.Linear(D, K), between[rng.integers(6)](K), bp.ReLU()]
    net = bp.Sequential(*layers, bp.Linear(*widths[-2:]), seed=seed, dtype=["float32", "float64"][rng.integers(2)])
    N = 6 * n + int(rng.integers(0, 3))
    return net, n, rng.normal(size=(N, widths[0])), rng.normal(size=(N, widths[-1])), ["auto", 1, 2, 3][rng.integers(4)]


@pytest.mark.parametrize("seed", SEEDS[:: max(1, 60 // 6)])
def test_parts_have_the_same_bits_on_any_number_of_threads(seed, monkeypatch):
    monkeypatch.setattr(play, "HANDED_OVER", 0)
    net, n, X, y, shards = wide(seed)
    rule = RULES[seed % len(RULES)]

    def fit(player, threads):
        settings = {"batch_size": n, "shards": shards, "threads": threads}
        try:
            return trained(player, net, bp.LeastSquares(), rule, X, y, **settings)
        except FloatingPointError as error:  # some diverge, and then at the same step
            return {"error": str(error)}

    alone = fit(False, 1)
    for player, threads in ((False, 2), (True, 1), (True, 2), (True, 3)):
        assert_same(alone, fit(player, threads))


STEPS = int(os.environ.get("BACKPROP_NATIVE_STEPS", "400"))


def test_many_steps_on_threads_that_meet():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8000, 60)), rng.integers(0, 3, 8000)
    net = bp.Sequential(bp.Linear(60, 200), bp.ReLU(), bp.Linear(200, 3), seed=0)
    ends = []
    for threads in (1, 2):
        trainer = bp.Trainer(net.copy(), bp.CrossEntropy(), bp.SGD(0.001), batch_size=100, threads=threads, native=True)
        made = trainer._descent.native
        for epoch in range(max(3, STEPS // 80)):
            if epoch > 1:
                for chance in made._chances.values():
                    chance.seconds = {1: 1.0, threads: 1e-4}  # whatever was measured
            list(trainer.epochs(X, y, 1))
        assert threads in {chance.threads for chance in made._chances.values()}
        ends.append(state(trainer, []))
    assert_same(*ends)


def test_a_number_of_threads_that_there_is_no_work_for_is_not_chosen():
    chance = choosing.Chance(seconds={1: 1.0, 2: 1e-4}, trusted={1, 2})
    chance.next_call(1)
    assert chance.threads == 1


def test_what_would_have_to_wait_lets_others_go_first():
    a, b, c, d = (np.zeros((64, 64), "f") for _ in range(4))
    lists, meetings = [Operations([]) for _ in range(2)], []
    spread = Spread(lists, lambda: meetings.append([len(ops.rows) for ops in lists]))

    def product(A, B, C):
        for i, part in enumerate(parts.rows(64, 2)):
            spread.extend([Multiply(prepare(A[part], B, C[part]), 1.0, 0.0, Numbers(), (i, 2))])

    product(a, b, c)
    product(b, c, d)  # reads what both have written: it waits
    spread.extend(
        [Ufunc(np.maximum, "__call__", [c, np.float32(0)], c)]
    )  # whose rows each has; but the product waits to read it
    assert meetings == [[1, 1]]
    spread.close()
    assert [len(ops.rows) for ops in lists] == [3, 3]
    assert meetings[1:] == [[2, 2]]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**100])
@pytest.mark.parametrize("t", [0, 5, 2**32 - 2])
def test_keys_of_draws_are_those_of_numpys_seed_sequence(seed, t):
    for where in ((), (0,), (3, 0, 1), (1, 2, 3, 4, 5)):
        expected = [np.random.SeedSequence((seed, t + i, *where)).generate_state(2, np.uint64) for i in range(4)]
        assert_array_equal(keys(seed, t, 4, where), expected)


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_draws_are_those_of_numpys_generator(dtype):
    key = np.random.SeedSequence(5).generate_state(2, np.uint64)
    inputs = np.array([0, 0, 0, 0, key.ctypes.data], np.uint64)
    for n in (1, 2, 3, 7, 8, 9, 1000):
        out = np.zeros(n, dtype)
        ops = Operations([], None, lambda draw: 4)
        ops.add(Draw(out, None, "", "random", True, {}))
        play_once(ops, inputs)
        expected = np.random.Generator(np.random.Philox(np.random.SeedSequence(5))).random(n, dtype=dtype)
        assert_array_equal(out, expected)


LAYERS = [
    *(bp.ReLU, bp.LeakyReLU, bp.ELU, bp.SiLU, bp.GELU, bp.Softplus, bp.Sigmoid, bp.Tanh, bp.Sin, bp.Cos, bp.Exp),
    *(bp.Identity, lambda: bp.Dropout(0.4), lambda: bp.BatchNorm(24), lambda: bp.LayerNorm(24)),
    *(lambda: bp.Residual(bp.Linear(24, 24)), lambda: bp.FanOut(bp.Linear(24, 8), bp.Linear(24, 16))),
    lambda: bp.Sequential(bp.Select(range(23, -1, -2)), bp.FanOut(bp.Identity(), bp.Embedding([3] * 12, [1] * 12))),
    *(
        lambda: bp.PiecewiseLinear([[-1.0, 0.0, 2.0]] * 24),
        lambda: bp.Quantiles([[-1.0, 0.0, 2.0]] * 24, [[-1, 0, 1]] * 24),
    ),
    *(lambda: bp.InputScale(24, pace=4), lambda: bp.MembersLinear(12, 12, 2), lambda: bp.SeparateLinear(12, 12, 2)),
    *(
        lambda of=of: bp.Sequential(bp.Linear(24, 48), bp.MembersMean(2, of=of))
        for of in ("values", "softmax", "sigmoid")
    ),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", LAYERS, ids=lambda make: repr(make()))
def test_every_layer_is_played_without_python(make, dtype):
    layer = make()
    net = bp.Sequential(bp.Linear(7, 24), layer, bp.Linear(layer.out_features or 24, 3), seed=0, dtype=dtype)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(150, 7)), rng.integers(0, 3, 150)
    X[3], X[4], X[5] = 1e-42, -0.0, 3.0
    runs = [trained(n, net, bp.CrossEntropy(), lambda: bp.Adam(0.01), X, y, batch_size=50) for n in (False, True)]
    assert_same(*runs)
    made = python_calls(net, bp.CrossEntropy(), bp.Adam(0.01), X, y)
    assert made == 0


def python_calls(net, loss, rule, X, y):
    """How often a step calls Python."""
    trainer = bp.Trainer(net.copy(), loss, rule, native=True, batch_size=50)
    list(trainer.epochs(X, y, 2))
    (chance,) = trainer._descent.native._chances.values()
    assert 1 in chance.trusted
    return sum(len(ops.python) for ops in chance.programs[1].lists)


@pytest.mark.parametrize("batch", [1, 2, 700])
@pytest.mark.parametrize("rule", RULES)
def test_one_example_and_many(batch, rule):
    rng = np.random.default_rng(0)
    N = 2100 if batch > 9 else 40
    X, y = 0.1 * rng.normal(size=(N, 20)), rng.normal(size=N)
    net = bp.Sequential(bp.Linear(20, 300), bp.Tanh(), bp.Linear(300, 300), bp.ReLU(), bp.Linear(300, 1), seed=0)
    runs = [trained(n, net, bp.LeastSquares(), rule, X, y, batch_size=batch, deterministic=True) for n in (False, True)]
    assert_same(*runs)


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_shards_give_the_bits_of_one_thread(shards):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 5)), rng.integers(0, 2, 90)
    net = bp.Sequential(bp.Linear(5, 200), bp.ReLU(), bp.Linear(200, 400), bp.ReLU(), bp.Linear(400, 2), seed=0)
    runs = [
        trained(n, net, bp.CrossEntropy(), lambda: bp.Adam(0.01), X, y, batch_size=30, shards=shards, threads=threads)
        for n, threads in ((False, 1), (True, 1), (True, 2))
    ]
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


def test_data_of_other_types_and_orders():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    net = bp.Sequential(bp.Linear(4, 8), bp.ReLU(), bp.Linear(8, 3), seed=0)
    whole = rng.integers(-9, 9, (120, 8))
    kinds = [whole[:60, :4].astype(t) for t in ("f", "d", "i", "l", "h", "?", ">f", "e")]
    for X in [*kinds, whole[::2, ::2], np.asfortranarray(whole[:60, :4].astype("f"))]:
        runs = [trained(n, net, bp.CrossEntropy(), lambda: bp.SGD(0.01), X, y) for n in (False, True)]
        assert_same(*runs)


def test_data_that_can_only_be_sliced():
    class Sliced:
        def __init__(self, X):
            self.X, self.shape, self.dtype = X, X.shape, X.dtype

        def __getitem__(self, rows):
            return self.X[rows]

    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    net = bp.Sequential(bp.Linear(4, 8), bp.ReLU(), bp.Linear(8, 3), seed=0)
    runs = [trained(n, net, bp.CrossEntropy(), lambda: bp.SGD(0.01), Sliced(X), y) for n in (False, True)]
    assert_same(*runs)


class Drawing(bp.Layer):
    """A layer of one's own that draws."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def forward(self, h):
        self.mask = self.generator.random(h.shape) < 0.5
        return h * self.mask

    def backward(self, dL_df):
        return dL_df * self.mask, {}


class OwnRule(bp.Optimizer):
    """A rule of one's own, without the promise."""

    def update(self, alpha, phi, g, *state):
        phi -= alpha * g * (1 + self.t)


@pytest.mark.parametrize("parts", ["layer", "loss", "drawing", "rule"])
def test_parts_of_ones_own_are_called_between_native_stretches(parts):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    own = {"layer": Scale(8), "drawing": Drawing()}.get(parts, bp.Tanh())
    net = bp.Sequential(bp.Linear(4, 8), own, bp.Linear(8, 2), seed=0)
    loss = LogCosh() if parts == "loss" else bp.LeastSquares()
    rule = (lambda: OwnRule(0.001)) if parts == "rule" else (lambda: bp.Adam(0.01))
    runs = [trained(n, net, loss, rule, X, y, batch_size=10) for n in (False, True)]
    assert_same(*runs)


def test_fit_in_pieces_and_by_turns_gives_the_bits_of_one_run(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(103, 4)), rng.integers(0, 3, 103)
    net = bp.Sequential(bp.Linear(4, 8), bp.BatchNorm(8), bp.Dropout(0.2), bp.Linear(8, 3), seed=0)
    make = lambda **k: bp.Trainer(net.copy(), bp.CrossEntropy(), bp.Adam(0.01), batch_size=10, **k)  # noqa: E731
    whole = make(native=False)
    whole.fit(X, y, epochs=6, verbose=0)
    turns = make(native=True)
    for epoch in range(6):
        turns.native = bool(epoch % 2)
        turns.fit(X, y, epochs=1, verbose=0)
    assert_array_equal(whole.net.phi, turns.net.phi)
    half = make(native=True)
    half.after_step = [lambda: half.save(tmp_path / "run.safetensors") if half.position == (2, 5) else None]
    half.fit(X, y, epochs=3, verbose=0)
    resumed = bp.Trainer.resume(tmp_path / "run.safetensors")
    assert resumed.native is True
    resumed.fit(X, y, epochs=4, verbose=0)
    assert_array_equal(whole.net.phi, resumed.net.phi)


@pytest.mark.parametrize("rule", [lambda: bp.SGD(1e9), lambda: bp.Adam(1e9), lambda: bp.SGD(1e9, momentum=0.9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite_is_named_as_by_numpy(rule, dtype):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(64, 4)), rng.normal(size=(64, 1))
    net = bp.Sequential(bp.Linear(4, 8), bp.BatchNorm(8), bp.Exp(), bp.Linear(8, 1), seed=0, dtype=dtype)
    found = []
    for player in (False, True):
        trainer = bp.Trainer(net.copy(), bp.LeastSquares(), rule(), batch_size=8, native=player)
        with pytest.raises(FloatingPointError) as error:
            trainer.fit(X, y, epochs=50, verbose=0)
        assert np.isfinite(trainer.net.phi).all()
        found.append((str(error.value), state(trainer, [])))
    assert found[0][0] == found[1][0]
    assert_same(found[0][1], found[1][1])


def test_ctrl_c_ends_within_a_call_and_training_goes_on_with_the_same_bits():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 8)), rng.integers(0, 3, 4000)
    net = bp.Sequential(bp.Linear(8, 8), bp.ReLU(), bp.Linear(8, 3), seed=0)
    make = lambda: bp.Trainer(net.copy(), bp.CrossEntropy(), bp.SGD(0.01), batch_size=4, native=True)  # noqa: E731
    stopped, whole = make(), make()
    timer = threading.Timer(0.15, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    stopped.fit(X, y, epochs=500, verbose=0)
    timer.join()
    epochs, batches = stopped.position
    assert (epochs, batches) < (500, 0)
    stopped.fit(X, y, epochs=2, verbose=0)
    whole.fit(X, y, epochs=stopped.position[0], verbose=0)
    assert_array_equal(stopped.net.phi, whole.net.phi)


def test_after_step_and_constraints_see_every_step():
    X, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 3
    net = bp.Sequential(bp.Linear(4, 8), bp.ReLU(), bp.Linear(8, 3), seed=0)
    seen = {}
    for player in (False, True):
        trainer = bp.Trainer(
            net.copy(),
            bp.CrossEntropy(),
            bp.SGD(0.1),
            batch_size=8,
            native=player,
            constraints={"*.omega": bp.MaxNorm(0.5)},
        )
        steps = seen[player] = []
        trainer.after_step = [lambda s=steps, t=trainer: s.append((t.optimizer.t, t.position, t.net.phi.copy()))]
        trainer.fit(X, y, epochs=3, verbose=0)
    assert len(seen[True]) == 15
    for a, b in zip(seen[False], seen[True], strict=True):
        assert a[:2] == b[:2]
        assert_array_equal(a[2], b[2])


def test_what_is_set_between_epochs_counts():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), rng.normal(size=50)
    ends = []
    for player in (False, True):
        loss, dropout = bp.Huber(1.0), bp.Dropout(0.1)
        net = bp.Sequential(bp.Linear(4, 8), dropout, bp.LeakyReLU(), bp.Linear(8, 1), seed=0)
        trainer = bp.Trainer(net, loss, bp.SGD(0.1, momentum=0.5, clip_norm=1.0), batch_size=5, native=player)
        changes = [
            lambda t: setattr(t.loss, "delta", 0.1),
            lambda t: setattr(t.loss, "reduction", "sum"),
            lambda t: setattr(t.net[1], "rate", 0.5),
            lambda t: setattr(t.net[2], "negative_slope", 0.3),
            lambda t: setattr(t.optimizer, "momentum", 0.9),
            lambda t: setattr(t.optimizer, "clip_norm", 0.01),
            lambda t: setattr(t.optimizer, "clip_norm", None),
            lambda t: setattr(t.optimizer, "learning_rate", 0.001),
            lambda t: setattr(t, "optimizer", bp.Adam(0.01)),
            lambda t: setattr(t, "batch_size", 7),
            lambda t: t.optimizer.state.update(first_moment=np.ones_like(t.net.phi)),
            lambda t: setattr(t.net, "phi", 0.1 * np.ones_like(t.net.phi)),
            lambda t: setattr(t, "shards", 3),
            lambda t: setattr(t, "loss", bp.LeastSquares()),
            lambda t: setattr(t.optimizer, "weight_decay", 0.1),
        ]
        end = []
        for change in changes:
            trainer.fit(X, y, epochs=2, verbose=0)
            change(trainer)
            end.append(trainer.net.phi.copy())
        ends.append(end)
    for i, (a, b) in enumerate(zip(*ends, strict=True)):
        assert_array_equal(a, b, err_msg=f"change {i}")


def small():
    X, y = np.random.default_rng(0).normal(size=(400, 4)), np.arange(400) % 3
    return bp.Sequential(bp.Linear(4, 8), bp.ReLU(), bp.Linear(8, 3), seed=0), X, y


@pytest.mark.parametrize(("word", "asked"), [("1", True), ("0", False), ("auto", "auto"), ("", "auto")])
def test_the_environment_decides_where_the_trainer_says_auto(monkeypatch, word, asked):
    monkeypatch.setenv("BACKPROP_NATIVE", word)
    assert choosing.wanted("auto") == asked
    assert choosing.wanted(True) is True
    assert choosing.wanted(False) is False


def test_the_trainer_says_who_plays(monkeypatch):
    net, X, y = small()
    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), native="auto")
    assert "too few steps" in trainer.player
    trainer.native = True
    trainer.fit(X, y, epochs=2, verbose=0)
    assert trainer.player == "native"
    other = bp.Trainer(net.copy(), bp.CrossEntropy(), bp.SGD(0.1), native=False)
    assert other.player == "numpy (native=False)"
    other.native = "auto"
    monkeypatch.setenv("BACKPROP_NATIVE", "0")
    assert other.player == "numpy (BACKPROP_NATIVE is 0)"
    monkeypatch.delenv("BACKPROP_NATIVE")
    monkeypatch.setattr(native, "player", None)
    assert "no C compiler" in other.player


def test_another_word_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("BACKPROP_NATIVE", "yes")
    net, X, y = small()
    with pytest.raises(ValueError, match="BACKPROP_NATIVE: expected auto, 0 or 1, got 'yes'"):
        bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1)).fit(X, y, verbose=0)


@pytest.mark.parametrize("value", ["yes", 2, None, "True"])
def test_another_setting_is_refused(value):
    with pytest.raises(ValueError, match="Trainer: expected native True, False or"):
        bp.Trainer(small()[0], bp.CrossEntropy(), bp.SGD(0.1), native=value)


def test_without_the_player_numpy_plays_and_true_says_why(monkeypatch):
    monkeypatch.setattr(native, "player", None)
    net, X, y = small()
    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1))
    trainer.fit(X, y, epochs=2, verbose=0)
    trainer.native = True
    before = net.phi.copy()
    with pytest.raises(RuntimeError, match="no C compiler"):
        trainer.fit(X, y, verbose=0)
    assert_array_equal(net.phi, before)


def test_a_differing_bit_leaves_the_steps_to_numpy_and_says_so_once(monkeypatch, caplog):
    real = Operations._multiply

    def wrong(self, call):
        real(self, call)
        self.rows[-1]["keep"] = self.place(0.5)

    net, X, y = small()
    expected = trained(False, net, bp.CrossEntropy(), lambda: bp.SGD(0.1), X, y, epochs=4)
    monkeypatch.setattr(Operations, "_multiply", wrong)
    monkeypatch.setattr(choosing, "COST", 0.0)
    with caplog.at_level(logging.WARNING, "backprop"):
        found = trained("auto", net, bp.CrossEntropy(), lambda: bp.SGD(0.1), X, y, epochs=4)
    assert_same(expected, found)
    said = {record.getMessage() for record in caplog.records}
    assert len(said) == 1
    assert "its bits differ from NumPy's" in said.pop()
    assert 1 <= len(caplog.records) <= 2  # one for each batch size


def test_an_error_in_python_between_two_steps_leaves_whole_steps():
    class Failing(Scale):
        calls = 0

        def forward(self, h):
            type(self).calls += 1
            if type(self).calls == 25:
                raise OSError("the sensor is gone")
            return super().forward(h)

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    ends = []
    for player in (False, True):
        Failing.calls = 0
        net = bp.Sequential(bp.Linear(4, 4, bias=False), Failing(4), seed=0)
        trainer = bp.Trainer(net, bp.LeastSquares(), bp.Adam(0.1), batch_size=5, native=player)
        with pytest.raises(OSError, match="the sensor is gone"):
            trainer.fit(X, y, epochs=5, verbose=0)
        ends.append(state(trainer, []))
        Failing.calls = 100
        trainer.fit(X, y, epochs=1, verbose=0)
        ends.append(state(trainer, []))
    assert_same(ends[0], ends[2])
    assert_same(ends[1], ends[3])


def test_trainings_in_threads_do_not_disturb_each_other():
    net, X, y = small()
    expected = trained(True, net, bp.CrossEntropy(), lambda: bp.Adam(0.01), X, y, epochs=20)
    found = []
    work = lambda: found.append(trained(True, net, bp.CrossEntropy(), lambda: bp.Adam(0.01), X, y, epochs=20))  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for each in found:
        assert_same(expected, each)


EDGES = [0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.0, -7.5, 88.0, -104.0, 1e30, -1e30, np.inf, -np.inf, np.nan]


def play_once(ops, inputs=np.zeros(4, np.uint64)):  # noqa: B008
    """One step of these operations."""
    values = np.array([*ops.values, 0.0])
    nothing = np.zeros((1, 1)), inputs
    native.player.play(ops.packed(), [], np.zeros(native.player.TEAM // 4, np.int32), True, values, *nothing, 1, 1)


class TestCallsAlone:
    """Each call of the players, natively against NumPy's, in every order of memory and at the edges of the numbers."""

    @staticmethod
    def run(call):
        """The bits of `out` after NumPy's call and after the native one, from the same memory."""
        out = call.out if hasattr(call, "out") else call.target
        before = out.copy()
        with np.errstate(all="ignore"):
            call.bind()()
        expected = out.copy()
        out[...] = before
        ops = Operations([])
        ops.add(call)
        assert not ops.python, "has no native form"
        play_once(ops)
        nan = expected != expected  # of a NaN, NumPy itself does not keep the sign
        assert_array_equal(out != out, nan)
        out[nan] = expected[nan] = 0
        assert_array_equal(np.ascontiguousarray(out).view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))

    def array(self, shape, dtype, order, rng):
        whole = rng.choice(EDGES, size=tuple(2 * n for n in shape)).astype(dtype)
        if order == "gaps":
            return whole[tuple(slice(None, 2 * n, 2) for n in shape)]
        return np.array(whole[tuple(slice(n) for n in shape)], order=order)

    @pytest.mark.filterwarnings("ignore:overflow")
    @pytest.mark.parametrize("dtype", ["f", "d"])
    @pytest.mark.parametrize("order", ["C", "F", "gaps"])
    @pytest.mark.parametrize(
        "ufunc",
        [
            *(np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.power, np.greater, np.equal),
            *(
                np.exp,
                np.log,
                np.log1p,
                np.expm1,
                np.tanh,
                np.sin,
                np.cos,
                np.sinh,
                np.cosh,
                np.sqrt,
                np.square,
                np.sign,
            ),
            *(np.absolute, np.negative, np.reciprocal, np.less, np.isfinite, np.logaddexp, np.hypot),
        ],
        ids=lambda ufunc: ufunc.__name__,
    )
    def test_ufuncs(self, ufunc, order, dtype):
        rng = np.random.default_rng(0)
        for shape in ((1,), (37,), (1, 1), (5, 1), (1, 70), (9, 33), (3, 2500)):
            x = self.array(shape, dtype, order, rng)
            others = [self.array(shape, dtype, order, rng), 0.5, 0, x[..., :1]] if ufunc.nin == 2 else [None]
            for other in others:
                args = [x] if other is None else [x, other]
                with np.errstate(all="ignore"):
                    out = ufunc(*args)
                self.run(Ufunc(ufunc, "__call__", args, np.zeros_like(out)))
                if out.dtype == x.dtype:  # in place
                    self.run(Ufunc(ufunc, "__call__", args if other is not x else [x, x], x))

    @pytest.mark.parametrize("dtype", ["f", "d"])
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("ufunc", [np.add, np.maximum, np.minimum, np.multiply], ids=lambda ufunc: ufunc.__name__)
    def test_reductions(self, ufunc, order, dtype):
        rng = np.random.default_rng(0)
        for shape in ((1, 1), (5, 1), (1, 5), (3, 4), (9, 8), (8, 9), (2, 300), (300, 2), (17, 1000), (3, 20000)):
            for x in (np.array(rng.normal(size=shape), dtype, order=order), self.array(shape, dtype, order, rng)):
                for axis in (0, 1, None):
                    with np.errstate(all="ignore"):
                        out = np.zeros_like(ufunc.reduce(x, axis=axis))
                    self.run(Ufunc(ufunc, "reduce", [x], out, {"axis": axis, "keepdims": False}))

    @pytest.mark.parametrize("pair", ["?f", "?d", "fd", "df", "ff", "dd", "lf", "ld", "if", "id", "??", "ll"])
    def test_copies(self, pair):
        rng = np.random.default_rng(0)
        for shape in ((7,), (3, 5), (0,)):
            for order in "CF":
                x = np.array(rng.normal(size=shape) * 100, pair[0], order=order)
                self.run(Copy(np.zeros(shape, pair[1]), x))
                self.run(Copy(np.zeros(shape, pair[1]), x[..., :1]))
        if pair[0] == pair[1]:
            self.run(Copy(np.zeros(9, pair[0]), np.ones(9, pair[0]), np.arange(9) % 3 == 0))

    @pytest.mark.parametrize("dtype", ["f", "d"])
    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 1), (1, 5, 2), (16, 1, 33), (40, 50, 60), (200, 150, 120)])
    def test_products(self, shape, dtype):
        m, k, n = shape
        rng = np.random.default_rng(0)
        for a, b, c in ((A, B, C) for A in "CF" for B in "CF" for C in "CF"):
            A, B = (np.array(rng.normal(size=s), dtype, order=o) for s, o in (((m, k), a), ((k, n), b)))
            C = np.array(rng.normal(size=(m, n)), dtype, order=c)
            before = C.copy()
            for scale, keep in ((1.0, 0.0), (-0.01, 1.0), (0.3, 0.9)):
                call = Multiply(prepare(A, B, C), scale, keep, Numbers())
                call.bind()()
                expected, C[...] = C.copy(), before
                ops = Operations([])
                ops.add(call)
                assert not ops.python
                play_once(ops)
                assert_array_equal(C, expected)
                C[...] = before

    def test_picks_and_scales(self):
        x, rng = np.random.default_rng(0).normal(size=(5, 9)), np.random.default_rng(1)
        for array in (x, np.asfortranarray(x), x[::2], x.astype("f")):
            rows = rng.integers(-len(array), len(array), 9)
            self.run(Pick(np.zeros(9, array.dtype), array, (rows, np.arange(9))))
        for scale, keep in ((0.5, 1.0), (-2.0, 0.3), (1.0, 0.0)):
            self.run(Scaled(np.ones(300), scale, rng.normal(size=300), keep, Numbers()))

    def test_a_place_outside_is_an_error(self):
        ops = Operations([])
        ops.add(Pick(np.zeros(2), np.zeros((3, 4)), (np.array([0, 3]), np.arange(2))))
        with pytest.raises(IndexError, match="out of bounds"):
            play_once(ops)

    def test_memory_that_overlaps_in_another_order_is_copied_first(self):
        memory = np.arange(12.0)
        x, out = memory.reshape(4, 3).T, memory.reshape(3, 4)
        self.run(Ufunc(np.add, "__call__", [x, 1.0], out))
        ops = Operations([])
        long = np.arange(9000.0)
        ops.add(Ufunc(np.add, "__call__", [long[:5000], 1.0], np.zeros(5000)))
        ops.add(
            Ufunc(np.add, "__call__", [np.ones(5000), 1.0], long[2000:7000])
        )  # not tile by tile with the one before
        assert [row["kind"] for row in ops.packed()].count(PYTHON) == 0
        assert len(ops.packed()) == 2


class Late(bp.Schedule):
    """A learning rate that is 0 at first, when steps are compared."""

    def __call__(self, t):
        return 0.0 if t < 30 else 0.05


class OwnConstant(bp.ConstantRate):
    """A schedule of one's own that has the name of a constant."""

    def __call__(self, t):
        return self.learning_rate / (1 + t)


class WideGelu(bp.Layer):
    """A traced layer of one's own whose constant makes its numbers float64."""

    traced = True
    keeps_width = True
    c = np.sqrt(2 / np.pi)

    def forward(self, h):
        self.h, self.u = h, np.tanh(self.c * h)
        return h * self.u

    def backward(self, dL_df):
        return dL_df * (self.u + self.h * self.c * (1 - self.u * self.u)), {}


class KeepsItsStep(bp.Optimizer):
    """A traced rule that keeps in its state what another rule would only pass through."""

    traced = True
    slots = ("last",)

    def update(self, alpha, phi, g, last):
        phi += 0.5 * last
        last[...] = -alpha * g
        phi += last


SLOW_TO_SHOW = {  # what differs only later than the step that is played both ways
    "numbers of what Python plays": (
        lambda: bp.FanOut(bp.Linear(4, 2), bp.Linear(4, 2), join="sum"),
        lambda: bp.SGD(bp.StepDecay(0.05, every=100), weight_decay=0.1),
    ),
    "gradients of another type": (lambda: WideGelu(), lambda: bp.SGD(bp.StepDecay(0.05, every=50))),
    "a subclass of a constant rate": (lambda: bp.Tanh(), lambda: bp.SGD(OwnConstant(0.1))),
    "state in the middle of a rule": (lambda: bp.Tanh(), lambda: KeepsItsStep(Late(), clip_norm=1.0)),
    "a rate that falls within a call": (lambda: bp.Tanh(), lambda: bp.Adam(bp.CosineDecay(0.1, steps=300))),
}


@pytest.mark.parametrize("player", [True, "auto"])
@pytest.mark.parametrize("name", SLOW_TO_SHOW)
def test_what_shows_later_than_in_the_compared_step(name, player):
    layer, rule = SLOW_TO_SHOW[name]
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 4 if "type" in name or "Tanh" in repr(layer()) else 2))
    net = (
        bp.Sequential(layer(), seed=0)
        if "Python" in name
        else bp.Sequential(bp.Linear(4, 4), layer(), bp.Linear(4, 4), seed=0)
    )
    trainers = [bp.Trainer(net.copy(), bp.LeastSquares(), rule(), batch_size=10, native=n) for n in (False, player)]
    for trainer in trainers:
        trainer.fit(X, y, epochs=20, verbose=0)
        trainer.optimizer.learning_rate = 1e-6
        trainer.fit(X, y, epochs=3, verbose=0)
    assert_same(*(state(trainer, []) for trainer in trainers))


def test_a_true_bool_may_be_any_byte_but_0():
    mask = np.random.default_rng(0).integers(0, 2, (200, 4)).astype("uint8")
    mask[60:] *= 255
    X, y = mask.view(bool), np.arange(200) % 3
    net = bp.Sequential(bp.Linear(4, 8), bp.ReLU(), bp.Linear(8, 3), seed=0)
    runs = [trained(n, net, bp.CrossEntropy(), lambda: bp.SGD(0.01), X, y, shuffle=False) for n in (False, True)]
    assert_same(*runs)


def test_a_schedule_that_ends_within_an_epoch_ends_after_the_same_step():
    class Ends(bp.Schedule):
        def __call__(self, t):
            if t >= 33:
                raise OSError("no more rates")
            return 0.1

    net, X, y = small()
    ends = []
    for player in (False, True):
        trainer = bp.Trainer(net.copy(), bp.CrossEntropy(), bp.SGD(Ends()), batch_size=5, native=player)
        with pytest.raises(OSError, match="no more rates"):
            trainer.fit(X, y, epochs=3, verbose=0)
        assert trainer.position == (0, 33)
        ends.append(state(trainer, []))
    assert_same(*ends)


def test_shards_that_were_not_bound_are_numpys():
    class Own(bp.Layer):
        keeps_width = True

        def forward(self, h):
            return np.exp(h)

        def backward(self, dL_df):
            return dL_df, {}

    X, y = np.zeros((8, 2)), np.zeros(8)
    X[0] = 1e3
    net = bp.Sequential(bp.Linear(2, 4), Own(), bp.Linear(4, 1), seed=0)
    net.phi = abs(net.phi) + 0.5
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=8, shards=2, shuffle=False, native=True)
    for _ in range(3):
        with pytest.raises(FloatingPointError):
            trainer.fit(X, y, epochs=1, verbose=0)


@pytest.mark.parametrize("player", [False, True])
def test_a_penalty_and_state_that_change_within_an_epoch_count_from_the_next(player):
    class Change(bp.Callback):
        def step(self, trainer):
            if trainer.position == (1, 3):
                trainer.optimizer.weight_decay = 0.05
                trainer.optimizer.state["first_moment"] = np.zeros_like(trainer.net.phi)

    X = np.random.default_rng(0).normal(size=(40, 2))
    rule = bp.Adam(0.01, weight_decay={"*.omega": 0.1})
    net = bp.Sequential(bp.Linear(2, 1), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), rule, batch_size=4, native=player)
    trainer.fit(X, X[:, 0], epochs=3, verbose=0, callbacks=[Change()])
    assert trainer.position == (3, 0)


@pytest.mark.parametrize(("batch", "shards"), [(16, 1), (16, 3), (512, 4)])
@pytest.mark.parametrize("rule", [lambda: bp.SGD(0.01), lambda: bp.Adam(0.01), lambda: bp.Adam(0.01, clip_norm=1.0)])
def test_all_lists_meet_and_stop_at_the_same_places(batch, shards, rule):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2 * batch, 300)), rng.normal(size=2 * batch)
    net = bp.Sequential(bp.Linear(300, 700), bp.BatchNorm(700), bp.Linear(700, 1), seed=0)
    settings = {"batch_size": batch, "shards": shards, "threads": 2, "native": True}
    trainer = bp.Trainer(net, bp.LeastSquares(), rule(), **settings)
    trainer.fit(X, y, epochs=3, verbose=0)
    (chance,) = trainer._descent.native._chances.values()
    assert chance.trusted == {1, 2}
    for made in chance.programs.values():
        places = [
            [(row["kind"], row.get("n")) for row in ops.rows if row["kind"] in (MEET, STOP)] for ops in made.lists
        ]
        assert all(each == places[0] for each in places)
        if len(places) > 1:
            kinds = [kind for kind, _ in places[0]]
            assert all(before == MEET for before, kind in pairwise(kinds) if kind == STOP)  # what it reads was written


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it may come within a weak reference's call
@pytest.mark.parametrize("player", [False, True])
def test_an_exception_of_a_signal_handler_leaves_whole_steps(player):
    class Late_(Exception):
        pass

    def late(*_):
        raise Late_

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1024, 20)), rng.normal(size=1024)
    net = bp.Sequential(bp.Linear(20, 30), bp.ReLU(), bp.Linear(30, 1), seed=0)
    whole = bp.Trainer(net.copy(), bp.LeastSquares(), bp.Adam(1e-3), batch_size=64, shards=2, threads=2)
    steps = {0: net.phi.copy()}
    whole.after_step = [lambda: steps.update({whole.optimizer.t: whole.net.phi.copy()})]
    whole.fit(X, y, epochs=400, verbose=0)
    before, raised = signal.signal(signal.SIGALRM, late), 0
    try:
        for run in range(12):
            trainer = bp.Trainer(
                net.copy(), bp.LeastSquares(), bp.Adam(1e-3), batch_size=64, shards=2, threads=2, native=player
            )
            signal.setitimer(signal.ITIMER_REAL, 0.01 + 0.007 * run)
            try:
                trainer.fit(X, y, epochs=400, verbose=0)
            except Late_:
                raised += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            epoch, batch = trainer.position
            assert trainer.optimizer.t == 16 * epoch + batch
            assert_array_equal(trainer.net.phi, steps[trainer.optimizer.t])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert raised


def test_more_threads_than_the_player_knows_are_numpys():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 4)), rng.normal(size=400)
    settings = {"batch_size": 200, "threads": 70, "shards": 100}
    trainer = bp.Trainer(bp.Sequential(bp.Linear(4, 1), seed=0), bp.LeastSquares(), bp.SGD(0.01), **settings)
    trainer.fit(X, y, epochs=5, verbose=0)
    trainer.native = True
    with pytest.raises(RuntimeError, match="more than 64 threads"):
        trainer.fit(X, y, verbose=0)


def test_programs_of_settings_that_are_gone_are_gone():
    net, X, y = small()
    net = bp.Sequential(bp.Linear(4, 8), bp.Dropout(0.1), bp.Linear(8, 3), seed=0)
    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.01), native=True)
    for i in range(30):
        net[1].rate = 0.1 + i / 100
        trainer.fit(X, y, epochs=2, verbose=0)
    assert len(trainer._descent.native._chances) <= choosing.MOST_BATCHES


def test_the_child_of_a_fork_trains_whatever_the_parent_was_doing():
    program = """
import os, threading, numpy as np, backprop as bp
from backprop.engine import threads
held, go = threading.Event(), threading.Event()
def hold():
    with threads._guard:
        threads._wanted[1] = 1; held.set(); go.wait()
threading.Thread(target=hold, daemon=True).start(); held.wait()
pid = os.fork()
if not pid:
    net = bp.Sequential(bp.Linear(2, 1), seed=0)
    bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).fit(np.ones((40, 2)), np.ones(40), epochs=3, verbose=0)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); go.set()
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "7", done.stderr


def inferred(net, X):
    """What `predict` is to give for one block of rows: `infer` of columns that lie as those of a matrix do."""
    return net.infer(np.ascontiguousarray(X.T, net.dtype)).T


class TestPredictions:
    """`predict` after many calls is what `infer` gives now."""

    def often(self, net, X):
        passes = passes_of(net)
        passes._spent[X.shape] = 1.0
        net.predict(X)
        assert X.shape in passes._known
        assert_array_equal(net.predict(X), inferred(net, X))

    @pytest.mark.parametrize(
        "change",
        [
            lambda net: setattr(net, "phi", 2 * net.phi),
            lambda net: net.initialize(np.random.default_rng(5)),
            lambda net: setattr(net[1], "negative_slope", 0.7),
            lambda net: net[2].buffers["running_mean"].fill(3.0),
            lambda net: setattr(net[1], "infer", lambda h: h * 0),
            lambda net: setattr(net[1], "value", lambda h: 7 * h),
            lambda net: setattr(net[1], "__class__", bp.ReLU),
            lambda net: net.bind(np.empty(net.size)),
            lambda net: net[0].parameters["omega"].fill(1.0),
            lambda net: setattr(net[2], "eps", 0.5),
        ],
    )
    def test_what_changes_counts(self, change):
        net = bp.Sequential(bp.Linear(3, 5), bp.LeakyReLU(), bp.BatchNorm(5), bp.Linear(5, 2), seed=0)
        X = np.random.default_rng(0).normal(size=(7, 3)).astype("f")
        self.often(net, X)
        change(net)
        assert_array_equal(net.predict(X), inferred(net, X))

    def test_what_changes_in_classes_and_layers_of_layers_counts(self):
        class Own(bp.Layer):
            traced = keeps_width = True

            def helper(self, h):
                return h

            def forward(self, h):
                return self.helper(h)

            def backward(self, dL_df):
                return dL_df, {}

        net = bp.Sequential(bp.Linear(3, 5), Own(), bp.FanOut(bp.Identity(), bp.Tanh()), seed=0)
        X = np.random.default_rng(0).normal(size=(7, 3)).astype("f")
        self.often(net, X)
        Own.helper = lambda self, h: 2 * h
        assert_array_equal(net.predict(X), inferred(net, X))
        self.often(net, X)
        net[2].layers = {"0": bp.Identity(), "1": bp.Exp()}
        assert_array_equal(net.predict(X), inferred(net, X))
        with pytest.raises(TypeError, match="the layers it was made with"):
            net.layers = {"0": net[0]}

    @pytest.mark.parametrize("rows", [1, 100, 500])
    @pytest.mark.parametrize("kind", ["predict", "compiled"])
    def test_threads_do_not_mix_their_answers(self, kind, rows):
        """Outputs leave the memory that a pass plays in before another thread may play there."""
        net = bp.Sequential(bp.Linear(4, 8), bp.Tanh(), bp.Linear(8, 16), seed=0)
        function, Xs = net.predict if kind == "predict" else net.compiled(rows), []
        Xs = [np.full((rows, 4), i, "f") for i in range(2)]
        for X in Xs * 3:
            passes_of(net)._spent[X.shape] = 1.0
            function(X)
        wanted, wrong = [function(X) for X in Xs], [0, 0]

        def work(i):
            wrong[i] = sum(not np.array_equal(function(Xs[i]), wanted[i]) for _ in range(4000))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == [0, 0]

    def test_outputs_that_must_not_be_written_are_refused_alike(self):
        net = bp.Sequential(bp.Linear(8, 16), seed=0)
        X, out = np.zeros((3000, 8), "f"), np.empty((3000, 16), "f")
        out.flags.writeable = False
        for _ in range(30):
            with pytest.raises(ValueError, match="read-only"):
                net.predict(X, out=out)
            net.predict(X)

    @pytest.mark.parametrize(
        "given",
        [
            lambda X: X.astype("d"),
            lambda X: X.astype(">f4"),
            lambda X: X.astype("f2"),
            lambda X: X > 0,
            lambda X: X.astype(complex),
            lambda X: X.astype(str),
            lambda X: X.astype(object),
            lambda X: np.asfortranarray(X),
            lambda X: X[::-1],
            lambda X: np.matrix(X),
            lambda X: np.ma.masked_less(X, 0),
            lambda X: X.tolist(),
            lambda X: X[0],
            lambda X: X.T,
            lambda X: X[:, :2],
            lambda X: X[None],
            lambda X: np.where(X > 1, np.inf, X),
        ],
    )
    @pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
    def test_whatever_else_is_given_is_taken_or_refused_as_by_a_network_without_passes(self, given):
        net = bp.Sequential(bp.Linear(3, 5), bp.Tanh(), bp.Linear(5, 2), seed=0)
        X = np.random.default_rng(0).normal(size=(7, 3)).astype("f")
        fresh = net.copy()
        self.often(net, X)

        def outcome(net):
            try:
                f = net.predict(given(X))
            except (TypeError, ValueError) as error:
                return type(error), str(error)
            return type(f), f.tolist()

        assert outcome(net) == outcome(fresh)

    def test_results_are_new_arrays_of_what_the_rows_are_now(self):
        net = bp.Sequential(bp.Linear(3, 5), bp.Tanh(), seed=0)
        X = np.random.default_rng(0).normal(size=(7, 3)).astype("f")
        self.often(net, X)
        first = net.predict(X)
        before = first.copy()
        X *= 2
        assert_array_equal(net.predict(X), inferred(net, X))
        assert_array_equal(first, before)
        out = np.empty((7, 5), "f")
        assert net.predict(X, out=out) is out
        assert_array_equal(out, net.predict(X))

    def test_an_index_out_of_bounds_is_an_error_as_ever(self):
        class Looks(bp.Layer):
            traced = True
            keeps_width = True

            def __init__(self):
                self.rows = np.zeros(3, np.int64)

            def forward(self, h):
                return h + h[self.rows, np.zeros(3, np.int64)].sum()

            def backward(self, dL_df):
                return dL_df, {}

        net, X = bp.Sequential(bp.Linear(2, 2), Looks(), dtype="float64", seed=0), np.ones((4, 2))
        for _ in range(300):
            net.predict(X)
        net[1].rows[...] = 99
        with pytest.raises(IndexError):
            net.predict(X)

    def test_nan_is_refused_by_its_row(self):
        net, X = bp.Sequential(bp.Linear(3, 5), seed=0), np.ones((7, 3), "f")
        self.often(net, X)
        X[4, 2] = np.nan
        with pytest.raises(ValueError, match="row 4, column 2"):
            net.predict(X)


class TestManyRows:
    """Blocks of rows on threads, the interpreter lock released."""

    def made(self, dtype="float32", rows=None):
        net = bp.Sequential(bp.Linear(30, 64), bp.ReLU(), bp.Linear(64, 10), seed=0, dtype=dtype)
        n = 6 * net._block + 37 if rows is None else rows
        X = np.random.default_rng(0).normal(size=(n, 30)).astype(dtype)
        with blas_threads(1):
            expected = np.concatenate([inferred(net, X[at : at + net._block]) for at in range(0, n, net._block)])
        passes_of(net)._spent[net._block, 30] = 1.0
        net.predict(X[: net._block])
        assert (net._block, 30) in passes_of(net)._known
        return net, X, expected

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("threads", [1, 2, 3, 8])
    def test_bits_are_those_of_the_blocks_on_any_number_of_threads(self, threads, dtype, monkeypatch):
        net, X, expected = self.made(dtype)
        monkeypatch.setattr("backprop.engine.native.compiled.cores", lambda: threads)
        monkeypatch.setattr("backprop.engine.native.compiled.LEAST_FLOPS", 1.0)
        out = np.full((len(X), 10), np.nan, dtype)
        for _ in range(3):
            assert_array_equal(net.predict(X), expected)
            assert net.predict(X, out=out) is out
            assert_array_equal(out, expected)
        made = passes_of(net)._free[net._block, 30]
        assert len(made) == min(threads, 6)  # made once, and given back

    def test_blocks_are_played_natively(self, monkeypatch):
        net, X, expected = self.made()
        spied, blocks = [], native.player.blocks
        monkeypatch.setattr(native.player, "blocks", lambda *given: spied.append(blocks(*given)) or spied[-1])
        assert_array_equal(net.predict(X), expected)
        assert spied == [6]

    @pytest.mark.parametrize("at", [0, 1, 3, 5])
    def test_the_first_row_that_is_not_finite_is_named(self, at, monkeypatch):
        net, X, _ = self.made()
        monkeypatch.setattr("backprop.engine.native.compiled.LEAST_FLOPS", 1.0)
        row = at * net._block + 7
        X[row, 2], X[-1, 0] = np.inf, np.nan
        for _ in range(5):
            with pytest.raises(ValueError, match=f"row {row}, column 2"):
                net.predict(X)

    def test_what_changes_counts(self):
        net, X, expected = self.made()
        assert_array_equal(net.predict(X), expected)
        net.phi = 2 * net.phi
        assert_array_equal(net.predict(X[: net._block]), inferred(net, X[: net._block]))
        assert not np.array_equal(net.predict(X), expected)
        net.bind(np.empty(net.size))
        assert_array_equal(net.predict(X[:5]), inferred(net, X[:5]))
        assert net.predict(X).dtype == np.float64

    @pytest.mark.parametrize(
        "given", [lambda X: np.asfortranarray(X), lambda X: X.astype("d"), lambda X: X[::2], lambda X: X.tolist()]
    )
    def test_other_rows_are_taken_as_ever(self, given):
        net, X, _ = self.made()
        rows = np.asarray(given(X))
        assert_allclose(net.predict(given(X)), net.infer(rows.T.astype("f")).T, rtol=1e-4, atol=1e-5)

    def test_from_several_threads(self, monkeypatch):
        net, X, expected = self.made()
        monkeypatch.setattr("backprop.engine.native.compiled.cores", lambda: 3)
        monkeypatch.setattr("backprop.engine.native.compiled.LEAST_FLOPS", 1.0)
        wrong = []

        def work():
            for _ in range(30):
                wrong.extend([1] * (not np.array_equal(net.predict(X), expected)))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    @pytest.mark.parametrize("rows", range(1, 24))
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_rows_become_columns_and_columns_rows(self, rows, dtype):
        for D, K in ((1, 1), (3, 2), (4, 4), (17, 5), (130, 129)):
            net = bp.Sequential(bp.Linear(D, K), seed=0, dtype=dtype)
            X = np.random.default_rng(rows).normal(size=(rows, D)).astype(dtype)
            assert_array_equal(net.compiled(rows)(X), inferred(net, X))


class TestCompiled:
    @pytest.mark.parametrize("seed", range(60))
    def test_it_gives_what_predict_gives(self, seed):
        net, _, h, _, _ = program(seed)
        X = np.random.default_rng(seed).normal(size=(9, len(h))).astype(net.dtype)
        tolerance = {"rtol": 2e-4, "atol": 1e-5} if net.dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-12}
        expected = net.predict(X)
        for rows in (1, 4, 9):
            assert_allclose(net.compiled(rows)(X[:rows]), expected[:rows], **tolerance)
        assert_allclose(net.compiled()(X[3]), expected[3], **tolerance)

    def test_float64_is_cast_and_refused_as_it_was_given(self):
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        f, x = net.compiled(), np.array([0.1, -2.0, 3.0])
        for given in (x, x[None], np.asfortranarray(np.array([x, x]))[1], x[::-1][::-1]):
            assert_array_equal(f(given), f(given.astype("f")))
        for wrong, said in ((1e300, "1e\\+300 at row 0, column 1. It is too large for float32"), (np.nan, "got nan")):
            with pytest.raises(ValueError, match=said):
                f(np.array([0.0, wrong, 0.0]))

    def test_it_is_a_copy_of_the_network_as_it_was(self):
        net = bp.Sequential(bp.Linear(3, 2), bp.LeakyReLU(), seed=0)
        f, x = net.compiled(), np.ones(3, "f")
        before = f(x)
        net.phi = 0 * net.phi
        net[1].negative_slope = 0.7
        assert_array_equal(f(x), before)
        first = f(x)
        f(2 * x)
        assert_array_equal(first, before)  # a new array each time

    @pytest.mark.parametrize(
        "x", [[1.0, 2.0, 3.0], np.arange(3), np.arange(6.0)[::2], np.ones((1, 3)), np.ones(3, ">f8"), [[1, 2, 3]]]
    )
    def test_other_kinds_of_rows(self, x):
        net = bp.Sequential(bp.Linear(3, 2), bp.Tanh(), seed=0)
        expected = net.predict(np.reshape(x, (1, 3)))
        assert_allclose(net.compiled()(x), expected if np.ndim(x) == 2 else expected[0], rtol=1e-6)

    @pytest.mark.parametrize(
        ("x", "words"),
        [
            (np.ones(4, "f"), "shape"),
            (np.float32(1), "shape"),
            (np.ones((2, 3), "f"), "shape"),
            ("abc", "shape"),
            (np.ones((3, 1), "f"), "shape"),
            (np.array([1, np.nan, 2], "f"), "nan"),
            (np.array([1, 2, np.inf]), "inf"),
            (np.ones(3, complex), "complex"),
            (np.array(["a", "b", "c"]), "X"),
            (None, "shape"),
        ],
    )
    def test_rows_that_do_not_fit_are_refused_as_by_predict(self, x, words):
        f = bp.Sequential(bp.Linear(3, 2), seed=0).compiled()
        with pytest.raises((ValueError, TypeError), match=words):
            f(x)
        assert f(np.ones(3, "f")).shape == (2,)

    @pytest.mark.parametrize(("rows", "shape"), [(4, (3, 4)), (2, (1, 6)), (6, (9, 2)), (2, (6,))])
    def test_another_shape_of_as_many_numbers_is_refused(self, rows, shape):
        f = bp.Sequential(bp.Linear(3, 2), seed=0).compiled(rows)
        with pytest.raises(ValueError, match="shape"):
            f(np.ones(shape, "f"))

    def test_from_several_threads(self):
        net = bp.Sequential(bp.Linear(30, 50), bp.Tanh(), bp.Linear(50, 4), seed=0)
        f, X = net.compiled(), np.random.default_rng(0).normal(size=(8, 30)).astype("f")
        expected, wrong = [f(x) for x in X], []

        def work(i):
            for _ in range(2000):
                found = f(X[i] if i % 2 else X[i].astype("d"))
                wrong.extend([i] * (not np.array_equal(found, expected[i])))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_without_the_player(self, monkeypatch):
        net, X = bp.Sequential(bp.Linear(3, 2), bp.Tanh(), seed=0), np.ones((1, 3), "f")
        by_the_player = net.compiled()(X)
        monkeypatch.setattr(native, "player", None)
        f = net.compiled()
        assert_array_equal(f(X), by_the_player)
        assert_array_equal(f(X[0]), by_the_player[0])
        with pytest.raises(ValueError, match="shape"):
            f(np.ones(2))

    def test_the_environment_counts(self, monkeypatch):
        net, X = bp.Sequential(bp.Linear(3, 2), bp.Tanh(), seed=0), np.ones((1, 3), "f")
        monkeypatch.setenv("BACKPROP_NATIVE", "0")
        monkeypatch.setattr(native.player, "compiled", None)
        assert_array_equal(net.compiled()(X), net.predict(X))

    @pytest.mark.parametrize("player", [native.player, None])
    def test_it_is_copied_as_itself_and_not_pickled(self, player, monkeypatch):
        monkeypatch.setattr(native, "player", player)
        f = bp.Sequential(bp.Linear(3, 2), seed=0).compiled()
        assert copy.copy(f) is copy.deepcopy(f) is f
        with pytest.raises(TypeError, match="Pickle the network"):
            pickle.dumps(f)
        with pytest.raises(TypeError, match=r"keyword|positional"):
            f(given=np.ones(3))

    def test_a_function_that_nobody_knows_is_refused_with_advice(self):
        net = bp.Sequential(bp.Linear(3, 4), bp.Elementwise(lambda v: v * v), seed=0)
        with pytest.raises(TypeError, match=r"Elementwise\(.*\). It calls a function of yours"):
            net.compiled()

    def test_a_layer_of_ones_own_is_refused_by_name(self):
        with pytest.raises(TypeError, match="Scale"):
            bp.Sequential(bp.Linear(3, 4), Scale(4), seed=0).compiled()

    def test_a_network_of_any_width_is_refused(self):
        with pytest.raises(ValueError, match="Begin it with a Linear"):
            bp.Sequential(bp.Tanh()).compiled()

    @pytest.mark.parametrize("rows", [0, -1, 1.5, "all"])
    def test_rows_out_of_range_are_refused(self, rows):
        with pytest.raises((ValueError, TypeError), match="rows"):
            bp.Sequential(bp.Linear(3, 4), seed=0).compiled(rows)

    def test_nothing_leaks(self):
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        f, x = net.compiled(), np.ones(3, "f")
        before = sys.getrefcount(x)
        for _ in range(1000):
            f(x)
        assert sys.getrefcount(x) == before
