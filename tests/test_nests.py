"""Random programs: nests of every layer, loss and rule, played exactly and fast, against the plain passes."""

from __future__ import annotations

import os

import numpy as np
import pytest
from helpers import Scale
from numpy.testing import assert_allclose, assert_array_equal

import backprop as bp
from backprop.around import boundary
from backprop.around.nesting import reseed, views
from backprop.engine.planning import Shape, plans_for
from backprop.engine.play import Bound, part_at
from backprop.losses.base import share, slope, total

SEEDS = range(int(os.environ.get("BACKPROP_NESTS", "100")))
ELEMENTWISE = [
    *(bp.ReLU, bp.LeakyReLU, bp.ELU, lambda: bp.ELU(0.7), bp.SiLU, bp.GELU, bp.Softplus, bp.Sigmoid, bp.Tanh, bp.Sin),
    *(bp.Cos, bp.Identity, lambda: bp.Dropout(0.3), lambda: bp.Sequential(bp.Tanh(), bp.Exp())),
]


class TracedScale(Scale):
    """A layer of one's own that makes the promise."""

    traced = True

    def forward(self, h):
        self.h = h
        return self.omega * h

    def backward(self, dL_df):
        return self.omega * dL_df, {"omega": (dL_df * self.h).sum(axis=1, keepdims=True)}


def layer(rng, D, depth, own):
    """A random layer for D features."""
    kind = rng.integers(11 if depth else 6)
    inner = lambda width: layer(rng, width, depth - 1, own)  # noqa: E731
    if kind < 3:
        return ELEMENTWISE[rng.integers(len(ELEMENTWISE))]()
    if kind == 3:
        return bp.LayerNorm(D) if rng.random() < 0.5 else bp.BatchNorm(D)
    if kind == 4:
        return own(D)
    if kind == 5:
        return bp.Linear(D, D, bias=bool(rng.integers(2)))
    if kind in (6, 7):
        return bp.Residual(bp.Sequential(inner(D), bp.Linear(D, D), inner(D)))
    if kind == 8:
        return bp.FanOut(bp.Linear(D, D), inner(D), join="sum")
    if kind == 9:
        width = int(rng.integers(1, D)) if D > 1 else 1
        body = bp.FanOut(bp.Linear(D, width), bp.Sequential(inner(D), bp.Linear(D, D)))
        return bp.Sequential(body, bp.Linear(width + D, D))
    return bp.Sequential(inner(D), inner(D), checkpoint=2 if rng.random() < 0.3 else None)


def losses(rng, K):
    """A random loss, the outputs it takes, and its targets in columns for n examples."""
    real = lambda n: rng.normal(size=(K, n))  # noqa: E731
    return [
        (bp.LeastSquares(), K, real),
        (bp.AbsoluteError(), K, real),
        (bp.Huber(0.5), K, real),
        (bp.Pinball([0.2, 0.7]), 2 * K, real),
        (bp.GaussianNLL(), 2 * K, real),
        (bp.Poisson(), K, lambda n: rng.poisson(2.0, (K, n)).astype(float)),
        (bp.BinaryCrossEntropy(), K, lambda n: rng.integers(0, 2, (K, n)).astype(float)),
        (bp.CrossEntropy(), K, lambda n: rng.integers(0, K, n)),
        (bp.CrossEntropy(), K, lambda n: np.eye(K)[:, rng.integers(0, K, n)]),
    ][rng.integers(9)]


def program(seed, own=TracedScale):
    """A random network, loss and batch."""
    rng = np.random.default_rng(seed)
    D, width, K, n = (int(v) for v in rng.integers(1, 6, 4))
    loss, outputs, target = losses(rng, K)
    loss.reduction = "sum" if rng.random() < 0.3 else "mean"
    body = [layer(rng, width, 2, own) for _ in range(rng.integers(1, 5))]
    checkpoint = int(rng.integers(2, 4)) if rng.random() < 0.4 else None
    dtype = "float32" if rng.random() < 0.5 else "float64"
    layers = bp.Linear(D, width), *body, bp.Linear(width, outputs)
    net = bp.Sequential(*layers, seed=seed, dtype=dtype, checkpoint=checkpoint)
    h = rng.normal(size=(n, D)).astype(dtype).T  # rows, as a trainer has them
    w = rng.random(n) + 0.1 if rng.random() < 0.4 else None
    y = target(n)
    return net, loss, h, y.astype(dtype) if y.dtype.kind == "f" else y, w


def by_hand(net, loss, h, y, w):
    """L and the gradients of the plain passes."""
    net = net.copy()
    reseed(net, 0, 3, 0)
    with np.errstate(all="ignore"):
        f = boundary.forward(net, h)
        L = total(loss, f, y, share(loss, f, w))
        _, gradients = boundary.backward(net, slope(loss))
    return {"L": L, **gradients, **net.buffers}


def played(net, loss, h, y, w, *, exact):
    """The same of the list, played; a traced layer is never called."""
    net = net.copy()
    shape = Shape(h.shape[1], len(h), (y.shape, y.dtype), w is not None, net.phi.dtype)
    plan = plans_for(net, loss, None, shape, False, exact).passes
    assert not plan.is_opaque
    g = np.full_like(net.phi, np.nan)
    arrays = {"X": np.ascontiguousarray(h.T), "y": np.ascontiguousarray(y.T).T, **net.parameters, **net.buffers}
    arrays["share"] = np.asarray(share(loss, h, w), net.phi.dtype)
    arrays |= {f"g {name}": view for name, view in views(net, g).items()}
    bound = Bound(plan, arrays, exact=exact, part=lambda path: part_at(net, loss, path))
    bound.generators.key = (0, 3, 0)
    with np.errstate(all="ignore"):
        for _ in range(2):  # the memory is that of the first play
            for name, buffer in net.buffers.items():
                buffer[...] = 1.0 if name.endswith("variance") else 0.0
            for call in bound.first + bound.rest:
                call()
    return {"L": bound.L, **views(net, g), **net.buffers}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exact_player_gives_the_bits_of_the_plain_passes(seed):
    net, loss, h, y, w = program(seed)
    expected, found = by_hand(net, loss, h, y, w), played(net, loss, h, y, w, exact=True)
    for name, array in expected.items():
        assert_array_equal(found[name], array.astype(found[name].dtype), err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fast_player_gives_the_same_numbers(seed):
    net, loss, h, y, w = program(seed)
    net.bind(net.phi.astype(np.float64))
    h, y = h.T.astype(np.float64).T, y.astype(np.float64) if y.dtype.kind == "f" else y
    expected, found = by_hand(net, loss, h, y, w), played(net, loss, h, y, w, exact=False)
    if np.isfinite(expected["L"]):
        largest = max(1.0, *(np.abs(array).max(initial=0) for array in expected.values()))
        for name, array in expected.items():
            assert_allclose(found[name], array, rtol=0, atol=1e-12 * largest, err_msg=name)


RULES = [
    lambda: bp.SGD(1e-3),
    lambda: bp.SGD(1e-3, momentum=0.9, weight_decay=0.1),
    lambda: bp.SGD(1e-3, momentum=0.8, nesterov=True, l1=1e-3),
    lambda: bp.SGD(1e-3, weight_decay={"0.*": 0.1}, clip_norm=0.3),
    lambda: bp.RMSProp(1e-3, clip_value=0.1),
    lambda: bp.Adagrad(1e-3, l1={"*omega*": 1e-3}),
    lambda: bp.Adam(1e-3, weight_decay=0.1),
    lambda: bp.AdamW(1e-3),
]


@pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")
@pytest.mark.parametrize("own", [TracedScale, Scale], ids=["traced", "opaque"])
@pytest.mark.parametrize("seed", SEEDS[:60])
def test_the_trainer_takes_the_steps_of_the_plain_code(seed, own):
    net, loss, h, y, w = program(seed, own)
    net.bind(net.phi.astype(np.float64))
    twin, rule = net.copy(), RULES[seed % len(RULES)]
    trainer = bp.Trainer(net, loss, rule(), batch_size="full")
    by_rule = rule()
    by_rule.assign(twin)
    for t in range(3):
        try:
            L = trainer.step(h.T, y.T if y.ndim == 1 or len(y) > 1 else y[0], w)
        except FloatingPointError:
            return
        twin.reseed(0, t, 0)
        with np.errstate(all="ignore"):
            expected = loss.forward(twin.forward(h), y, w)
            _, gradients = twin.backward(loss.backward())
            by_rule.step(twin.phi, gradients.dL_dphi)
        assert_allclose(L, expected, rtol=1e-9, atol=1e-9)
        if np.abs(gradients.dL_dphi).max(initial=0) > 1e6:
            return  # a normalization of hardly anything: rounding is all there is
        g = np.abs(gradients.dL_dphi)
        known = g > 1e-8 * g.max(initial=0)  # the others are rounding, which adaptive rules make large
        scale = max(1.0, np.abs(twin.phi).max(initial=0))
        assert_allclose(net.phi[known], twin.phi[known], rtol=0, atol=2e-9 * scale)
        net.phi = twin.phi
