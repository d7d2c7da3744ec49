"""Tangents of a list of operations: each rule against differences, each layer and loss against the complex step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special
from tables import LAYERS, LOSSES
from test_curvature import WEIGHTS, D, N, difference, direction, gradient, random_phi, relative, rows, targets

import backprop as bp
from backprop.engine import tangent
from backprop.engine.operations import CannotTrace
from backprop.engine.plan import make
from backprop.engine.play import Bound
from backprop.engine.tangent import Tangents
from backprop.engine.trace import Trace

generator = np.random.default_rng(0)
A, B = generator.uniform(0.2, 0.9, (3, 4)), generator.uniform(1.1, 2.0, (3, 4))
AWAY = generator.permutation(np.linspace(-1.5, 1.5, 12)).reshape(3, 4)
KEYS = np.array([2, 0, 2]), np.array([1, 1, 3])
clip = np._core.umath.clip


def along(function, arrays, directions, dtype=float):
    """How function(*arrays) moves when the arrays move along directions, None for those that do not."""
    trace, seeds, sources = Trace(), {}, {}
    values = []
    for i, (array, v) in enumerate(zip(arrays, directions, strict=True)):
        values.append(trace.input(f"x{i}", array.shape, dtype))
        sources[f"x{i}"] = array.astype(dtype)
        if v is not None:
            seeds[values[-1].op] = trace.input(f"v{i}", v.shape, dtype)
            sources[f"v{i}"] = v.astype(dtype)
    op = trace.now(function(*values))
    moved = Tangents(trace, [op], seeds).get(op)
    if moved is None:
        return None
    assert (moved.shape, moved.dtype) == (op.shape, op.dtype)
    bound = Bound(make(None, [], {}, results=[trace.now(moved)]), sources)
    for call in bound.first + bound.rest:
        call()
    return np.array(bound.results[0])


def differences(function, arrays, directions, delta=1e-3):
    """The same from values alone, with the errors of second and fourth order extrapolated away."""

    def at(t):
        return function(*(a if v is None else a + t * v for a, v in zip(arrays, directions, strict=True)))

    D = [(at(t) - at(-t)) / (2 * t) for t in (delta, delta / 2, delta / 4)]
    once = (4 * D[1] - D[0]) / 3, (4 * D[2] - D[1]) / 3
    return (16 * once[1] - once[0]) / 15


def agree(function, *arrays):
    """Every set of arguments may move, and the others stay."""
    v = [generator.uniform(0.5, 1, array.shape) for array in arrays]
    for moving in range(1, 2 ** len(arrays)):
        directions = [one if moving >> i & 1 else None for i, one in enumerate(v)]
        found, expected = along(function, arrays, directions), differences(function, arrays, directions)
        assert_allclose(np.zeros_like(expected) if found is None else found, expected, 1e-9, 1e-9)


# Where it is defined and smooth; a ufunc that is not named here takes numbers of either sign.
POINTS = {
    **dict.fromkeys(("log", "log2", "log10", "log1p", "sqrt", "reciprocal", "arctanh"), (A,)),
    "power": (A, B),
    "divide": (AWAY, B),
    "clip": (A, np.full((), 0.1), np.full((), 3.0)),
}
BY_NAME = {"ndtr": special.ndtr, "erf": special.erf, "clip": clip}


class TestRules:
    @pytest.mark.parametrize("name", tangent.RULES)
    def test_every_function(self, name):
        ufunc = BY_NAME.get(name) or getattr(np, name)
        arguments = POINTS.get(name, (AWAY, B)[: ufunc.nin])
        if name == "clip":  # its bounds stay where they are
            v = np.ones(A.shape), None, None
            for low, high in ((0.1, 3.0), (0.5, 3.0), (0.1, 0.5)):
                arrays = A, np.full((), low), np.full((), high)
                assert_allclose(along(clip, arrays, v), differences(clip, arrays, v, 1e-6), atol=1e-9)
        else:
            agree(ufunc, *arguments)

    @pytest.mark.parametrize("n", [2, 3, -1, 0.5, 1, 2.5])
    def test_powers(self, n):
        agree(lambda x: x**n, B)
        agree(lambda x: n**x if n > 0 else x, B)

    @pytest.mark.parametrize(
        "function",
        [
            lambda x, y: x @ y.T,
            lambda x, y: (x @ y.T) @ x * 2 - y,
            lambda x, y: np.maximum(x, y) + np.minimum(x, 0.5 * y),
            lambda x, y: np.where(x > 0, x * y, y / 3),
            lambda x, y: np.where(x > 0, 1.0, y),
            lambda x, y: np.concatenate([x, 2 * y, x[:1]]) ** 2,
            lambda x, y: np.stack([x, y * x], axis=1).sum(axis=1),
            lambda x, y: np.hstack([x, y]) + np.vstack([x[:, :2], y[:, 2:]]).reshape(3, 4)[:, [0] * 8],
            lambda x, y: np.einsum("ij,kj->ik", x, y * y),
            lambda x, y: np.tensordot(x, y, axes=((1,), (1,))) + np.outer(x[:, 0], y[0, :3]),
            lambda x, y: np.vdot(x, y) * x,
            lambda x, y: np.cumsum(x * y, axis=1) + np.flip(x, 0) - np.roll(y, 1, axis=1),
            lambda x, y: np.repeat(x[:, :2], 2, axis=1) * np.tile(y[:, :2], (1, 2)),
            lambda x, y: (x * y)[KEYS] / y[KEYS],
            lambda x, y: np.take(x, [2, 0], axis=0) + np.diff(y, axis=0),
            lambda x, y: x.max(axis=0) * y.min(axis=1, keepdims=True),
            lambda x, y: x.var(axis=1, keepdims=True) + y.mean(),
            lambda x, y: x[0] + y.T[:, :1] * x[:, 1:2].sum(),
            lambda x, y: np.swapaxes(x, 0, 1).reshape(3, 4) * y.ravel().reshape(3, 4),
            lambda x, y: (x / np.sqrt((x * x).sum(axis=0))).astype(float) * y.copy(),
        ],
    )
    def test_composed(self, function):
        agree(function, AWAY, B)

    def test_something_smaller_is_broadcast(self):
        agree(lambda x, y: x + y[:, :1] + y[0, 1:2], AWAY, B)

    def test_what_does_not_move_has_none(self):
        assert along(lambda x: np.sign(x) + (x > 0) * 2.0, [AWAY], [AWAY]) is None
        assert along(lambda x, y: y * 2, [AWAY, B], [AWAY, None]) is None
        found = along(lambda x: np.floor(x) * x + np.rint(B), [AWAY], [np.ones((3, 4))])
        assert_allclose(found, np.floor(AWAY))

    def test_arrays_that_are_written_in_place_are_what_they_were(self):
        def in_place(x):
            y = x * 2
            y += x * x
            z = y * x
            y *= y
            y[...] = np.sin(y) * z
            return y * z

        def plain(x):
            y = x * 2 + x * x
            z = y * x
            return np.sin(y * y) * z * z

        v = [np.ones((3, 4))]
        assert_allclose(along(in_place, [A], v), differences(plain, [A], v), 1e-8)

    def test_in_single_precision(self):
        def function(x, y):
            return np.where(x > 0, np.maximum(x, 0), abs(x) * y) - np.clip(y, 0, 1.5) @ x.T @ x

        v = [A, B]
        found = along(function, [AWAY, B], v, np.float32)
        assert found.dtype == np.float32
        assert_allclose(found, along(function, [AWAY, B], v), rtol=1e-4)

    def test_a_branch_that_is_not_taken_may_overflow(self):
        found = along(lambda x: np.where(x > 0, x, np.exp(-1000 * x)), [A], [B])
        assert_allclose(found, B)
        big = np.array([[-1e4, 2.0]])
        with np.errstate(all="ignore"):
            assert_allclose(along(lambda x: np.where(x > 0, x, np.expm1(-x)), [big], [np.ones((1, 2))])[0, 1], 1)

    @pytest.mark.parametrize("function", [lambda x: np.median(x, axis=1), lambda x: np.sort(x), lambda x: x.prod()])
    def test_a_function_without_a_rule_is_named(self, function):
        with pytest.raises(CannotTrace, match="has no tangent here"):
            along(function, [A], [B])


class TestKinks:
    """At 0 all functions take the same side, so that pieces of a smooth function stay together."""

    @pytest.mark.parametrize(
        "layer", [bp.Sigmoid, bp.Softplus, bp.SiLU, bp.GELU, bp.Tanh, bp.LeakyReLU, bp.ELU, bp.ReLU]
    )
    def test_activations_at_zero_move_with_their_slope(self, layer):
        f, zero = layer(), np.zeros((1, 1))
        f.forward(zero)
        slope = f.backward(np.ones((1, 1)))[0]
        assert_allclose(along(lambda h: type(f).value(f, h), [zero], [np.ones((1, 1))]), slope, rtol=1e-15)

    @pytest.mark.parametrize("layer", [bp.Sigmoid, bp.Softplus, bp.SiLU, bp.GELU, bp.Tanh])
    def test_smooth_ones_have_the_curvature_from_beside(self, layer):
        def H(beta):
            net = bp.Sequential(bp.Linear(1, 1), layer(), dtype="float64")
            net.phi[...] = beta, 0
            curvature = bp.Curvature(net, bp.LeastSquares(), np.ones((1, 1)), np.ones(1))
            return curvature.hessian_product(np.ones(2))

        assert_allclose(H(0.0), (H(1e-6) + H(-1e-6)) / 2, rtol=1e-9)

    def test_a_loss_at_zero(self):
        net = bp.Sequential(bp.Linear(2, 1, bias=False, initializer=bp.Constant(0)), dtype="float64")
        X, v = np.array([[1.0, 2.0]]), np.array([1.0, 0.5])
        for y in (0.0, 0.3, 1.0):
            found = bp.hessian_product(net, bp.BinaryCrossEntropy(), X, np.array([y]), v)
            assert_allclose(found, X[0] * (X[0] @ v) / 4)

    @pytest.mark.parametrize("function", [np.maximum, lambda x, y: np.maximum(y, x), np.minimum])
    def test_of_two_that_are_equal_one_moves(self, function):
        found = along(lambda x, y: function(x, y), [A, A], [np.ones((3, 4)), np.ones((3, 4))])
        assert_allclose(found, 1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_and_loss_against_the_complex_step(name, loss):
    row, epsilon = LOSSES[loss], 2.0**-100
    width = bp.Sequential(bp.Linear(D, 4), LAYERS[name](4)).infer(np.zeros((D, 1))).shape[0]
    net = random_phi(
        bp.Sequential(bp.Linear(D, 4), LAYERS[name](4), bp.Linear(width, 2 * row.outputs), dtype="float64")
    )
    data, v = (net, row.make(), rows(), targets(loss, 2)), direction(net)
    for w in (None, WEIGHTS):
        expected = gradient(*data, w, net.phi + 1j * epsilon * v).imag / epsilon
        relative(bp.hessian_product(*data, v, w), expected, 1e-10)


class Traced(bp.Layer):
    """A layer of one's own that is traced; `function` says what it does with ω h."""

    traced = True

    def __init__(self, features=4):
        self.parameters["omega"] = np.full((features, 1), 1.5)

    def forward(self, h):
        self.h = h
        self.u = self.omega * h
        return self.function(self.u)

    def backward(self, dL_df):
        dL_du = self.slope(self.u) * dL_df
        return self.omega * dL_du, {"omega": (dL_du * self.h).sum(axis=1, keepdims=True)}


class NotAnalytic(Traced):
    """√(1 + |u|²), which loses what is imaginary, and has rules."""

    traced = True

    def function(self, u):
        return np.sqrt(1 + np.abs(u) ** 2)

    def slope(self, u):
        return u / np.sqrt(1 + np.abs(u) ** 2)


class WithoutRule(Traced):
    """u³ by a function without a rule, which complex numbers pass."""

    traced = True

    def function(self, u):
        return self.cube(u)

    def slope(self, u):
        return 3 * u * u

    def cube(self, u):
        return np.stack([u, u, u]).prod(axis=0)


class Neither(Traced):
    """|u|³ by way of both."""

    traced = True

    def function(self, u):
        return np.stack([np.abs(u)] * 3).prod(axis=0)

    def slope(self, u):
        return 3 * u * np.abs(u)


class TracedQuartic(bp.Loss):
    traced = True

    def ell(self, f, y):
        self.d = f - y
        return np.stack([self.d] * 4).prod(axis=0).sum(axis=0)

    def dell_df(self):
        return np.stack([self.d] * 3).prod(axis=0) * 4


class Named(bp.Sequential):
    """A network with a name, and nothing else."""


def around(layer):
    return random_phi(bp.Sequential(bp.Linear(D, 4), bp.Tanh(), layer, bp.Linear(4, 1), dtype="float64"))


class TestOnesOwn:
    @pytest.mark.parametrize("loss", [bp.LeastSquares, TracedQuartic])
    @pytest.mark.parametrize("layer", [NotAnalytic, WithoutRule, bp.Tanh])
    def test_what_is_traced_has_rules_or_takes_complex_numbers(self, layer, loss):
        if layer is NotAnalytic and loss is TracedQuartic:
            return  # where one part needs complex numbers, all take them
        net = around(layer())
        data, v = (net, loss(), rows(), np.ones(N)), direction(net)
        relative(bp.hessian_product(*data, v), difference(*data, v), 1e-8)
        for product in (bp.gauss_newton_product, lambda *given: bp.fisher_product(*given, empirical=True)):
            H = np.array([product(*data, column) for column in np.eye(net.size)])
            assert_allclose(H, H.T, atol=1e-10 * np.abs(H).max())

    def test_a_name_for_ours_is_ours(self, monkeypatch):
        monkeypatch.setattr("backprop.gradients.tangents.Carrier", None)
        net = Named(bp.Linear(D, 4), bp.Tanh(), Named(bp.Linear(4, 1)), seed=0, dtype="float64")
        data, v = (net, bp.LeastSquares(), rows(), np.ones(N)), direction(net)
        curvature = bp.Curvature(*data)
        for seed in (1, 2):
            curvature.at(random_phi(net, seed).phi)
            relative(curvature.hessian_product(v), difference(*data, v), 1e-8)

    def test_what_has_neither_is_named(self):
        net = around(Neither())
        with pytest.raises(ValueError, match=r"forward and backward of Neither\(\) to take complex numbers"):
            bp.hessian_product(net, bp.LeastSquares(), rows(), np.ones(N), direction(net))

    def test_at_another_phi(self):
        net = around(WithoutRule())
        data, v = (bp.LeastSquares(), rows(), np.ones(N)), direction(net)
        curvature = bp.Curvature(net, *data)
        for seed in (1, 2):
            random_phi(net, seed)
            for method in ("hessian_product", "gauss_newton_product"):
                found = getattr(curvature.at(net.phi), method)
                relative(found(v), getattr(bp, method)(net, *data, v), 1e-14)
                relative(found(-v), -found(v), 1e-14)
