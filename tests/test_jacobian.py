"""Jacobians and the gradient by the inputs, against the complex step, a loop over examples, and two other libraries."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import LAYERS, LOSSES, complex_step, network, spread
from test_bad_input import assert_refused
from test_per_example import Noise, Running, Scale

import backprop as bp

N, D = 5, 4


def trained(name):
    """The network of one row, its running statistics away from where they start."""
    net = network(name, D)
    generator = np.random.default_rng(5)
    for buffer in net.buffers.values():
        buffer[...] = generator.uniform(0.5, 2, buffer.shape)
    return net


def by_complex_step(net, X, wrt):
    """The Jacobian of `predict` for each example, output by output."""
    frozen = net.frozen()
    frozen.bind(frozen.phi.astype(complex))
    K = len(frozen.forward(X[0]))

    def f(x, phi, k):
        frozen.phi[...] = phi
        return frozen.forward(x)[k]

    if wrt == "inputs":
        return np.array([[complex_step(lambda x, k=k: f(x, net.phi, k), row) for k in range(K)] for row in X])
    return np.array(
        [[complex_step(lambda phi, k=k, row=row: f(row, phi, k), net.phi) for k in range(K)] for row in X]
    ).reshape(len(X), K, -1)


class TestJacobian:
    @pytest.mark.parametrize("wrt", ["inputs", "phi"])
    @pytest.mark.parametrize("name", LAYERS)
    def test_every_layer(self, name, wrt):
        net, X = trained(name), spread((N, D))
        J = bp.jacobian(net, X, wrt)
        assert J.shape == (N, net.predict(X).shape[1], D if wrt == "inputs" else net.size)
        assert_allclose(J, by_complex_step(net, X, wrt), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("K", [1, 2, 5])
    def test_times_the_slope_of_the_loss_is_its_gradient(self, K):
        net = bp.Sequential(bp.Linear(D, 6), bp.GELU(), bp.Linear(6, K), seed=0, dtype="float64")
        X = spread((N, D))
        y = np.random.default_rng(0).normal(size=(N, K))
        loss = bp.LeastSquares()
        loss.forward(net.predict(X).T, y.T)
        slope = loss.backward().T
        y = y.squeeze(1) if K == 1 else y
        by_inputs = np.einsum("nk,nkd->nd", slope, bp.jacobian(net, X))
        assert_allclose(by_inputs, bp.input_gradient(net, loss, X, y), rtol=1e-12, atol=1e-14)
        by_phi = N * np.einsum("nk,nkp->np", slope, bp.jacobian(net, X, "phi"))
        assert_allclose(by_phi, bp.per_example_gradients(net, loss, X, y), rtol=1e-12, atol=1e-13)

    @settings(max_examples=20, deadline=None)
    @given(
        n=st.integers(1, 6),
        widths=st.tuples(*[st.integers(1, 5)] * 3),
        kind=st.sampled_from(["float32", "float64"]),
        wrt=st.sampled_from(["inputs", "phi"]),
    )
    def test_any_shape(self, n, widths, kind, wrt):
        a, b, c = widths
        net = bp.Sequential(bp.Linear(a, b), bp.Tanh(), bp.Linear(b, c), seed=0, dtype=kind)
        X = np.asarray(np.random.default_rng(0).normal(size=(n, a)), order="F")
        J = bp.jacobian(net, X, wrt)
        assert J.dtype == net.phi.dtype
        double = net.copy()
        double.bind(net.phi.astype(float))
        tolerance = 1e-5 if kind == "float32" else 1e-12
        assert_allclose(J, by_complex_step(double, X, wrt), rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("wrt", ["inputs", "phi"])
    @pytest.mark.parametrize("nested", [False, True])
    def test_checkpoints(self, nested, wrt):
        layers = [bp.Linear(D, 3), bp.Tanh(), bp.Linear(3, 3), bp.Sigmoid(), bp.Linear(3, 3)]
        net = bp.Sequential(*layers, seed=0, dtype="float64", checkpoint=2)
        net = bp.Sequential(net, dtype="float64") if nested else net
        J = bp.jacobian(net, spread((N, D)), wrt)
        assert_allclose(J, by_complex_step(net, spread((N, D)), wrt), rtol=1e-12, atol=1e-12)

    def test_autograd(self):
        numpy, autograd = pytest.importorskip("autograd.numpy"), pytest.importorskip("autograd")
        net = bp.Sequential(bp.Linear(D, 3), bp.Sin(), bp.Linear(3, 2), seed=0, dtype="float64")
        X = spread((N, D))

        def f(phi, x):
            views = net.views(phi)
            h = numpy.sin(numpy.dot(views["0.omega"], x) + views["0.beta"])
            return numpy.dot(views["2.omega"], h) + views["2.beta"]

        for n, x in enumerate(X):
            assert_allclose(bp.jacobian(net, X)[n], autograd.jacobian(f, 1)(net.phi, x), rtol=1e-12, atol=1e-14)
            assert_allclose(bp.jacobian(net, X, "phi")[n], autograd.jacobian(f)(net.phi, x), rtol=1e-12, atol=1e-14)

    @pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
    def test_torch(self):
        import torch

        net = bp.Sequential(bp.Linear(D, 6), bp.LayerNorm(6), bp.SiLU(), bp.Linear(6, 3), seed=0, dtype="float64")
        parts = {name: torch.from_numpy(array.copy()) for name, array in net.parameters.items()}
        X = spread((N, D))

        def f(parts, x):
            h = parts["0.omega"] @ x + parts["0.beta"]
            h = torch.nn.functional.layer_norm(h, (6,), parts["1.gamma"], parts["1.beta"])
            return parts["3.omega"] @ torch.nn.functional.silu(h) + parts["3.beta"]

        of_inputs = torch.func.vmap(torch.func.jacrev(f, 1), in_dims=(None, 0))(parts, torch.from_numpy(X))
        assert_allclose(bp.jacobian(net, X), of_inputs.numpy(), rtol=1e-11, atol=1e-13)
        of_phi = torch.func.vmap(torch.func.jacrev(f), in_dims=(None, 0))(parts, torch.from_numpy(X))
        for name, view in net.views(bp.jacobian(net, X, "phi")).items():
            assert_allclose(view, of_phi[name].numpy(), rtol=1e-11, atol=1e-13)


class TestInputGradient:
    @pytest.mark.parametrize("name", LAYERS)
    def test_every_layer(self, name):
        net, X = trained(name), spread((N, D))
        y = np.random.default_rng(1).normal(size=net.predict(X).shape)
        frozen = net.frozen()
        desired = complex_step(lambda x: bp.LeastSquares().forward(frozen.forward(x.T), y.T), X)
        assert_allclose(bp.input_gradient(net, bp.LeastSquares(), X, y), desired, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_every_loss(self, name, reduction, weighted):
        row, X = LOSSES[name], spread((N, D))
        net = bp.Sequential(bp.Linear(D, 3), bp.Tanh(), bp.Linear(3, 2 * row.outputs), seed=1, dtype="float64")
        y = row.target(np.random.default_rng(2), 2, N)
        w = np.array([0.0, 1.0, 2.0, 0.5, 3.0]) if weighted else None
        loss = row.make(reduction=reduction)
        desired = complex_step(lambda x: loss.forward(net.forward(x.T), y, w), X)
        assert_allclose(bp.input_gradient(net, loss, X, y.T, w), desired, rtol=1e-12, atol=1e-13)

    def test_examples_may_be_coupled_where_that_is_the_prediction(self):
        net = bp.Sequential(bp.Linear(D, 3), Running(), seed=0, dtype="float64")
        X = spread((N, D))
        desired = complex_step(lambda x: bp.LeastSquares().forward(net.forward(x.T), np.zeros((3, N))), X)
        actual = bp.input_gradient(net, bp.LeastSquares(), X, np.zeros((N, 3)))
        assert_allclose(actual, desired, rtol=1e-12, atol=1e-14)


class Off(Noise):
    """Random in training, not in inference, and `frozen` forgotten."""

    def infer(self, h):
        return h


def between(layer, dtype="float64"):
    return bp.Sequential(bp.Linear(D, 3), layer, bp.Linear(3, 2), seed=0, dtype=dtype)


class TestLayersOfOnesOwn:
    @pytest.mark.parametrize("wrt", ["inputs", "phi"])
    def test_what_is_no_function_of_one_example_is_refused(self, wrt):
        net = between(Running())
        assert_refused(lambda: bp.jacobian(net, spread((N, D)), wrt), ValueError, "jacobian", "Running")

    @pytest.mark.parametrize("layer", [Off, Noise])
    def test_forward_must_be_the_prediction(self, layer):
        net, X = between(layer()), spread((N, D))
        for call in (
            lambda: bp.input_gradient(net, bp.LeastSquares(), X, np.zeros((N, 2))),
            lambda: bp.jacobian(net, X),
        ):
            assert_refused(call, ValueError, "`frozen` computes what their `infer` does", "Sequential(4 → 2)")

    def test_nothing_of_the_callers_changes(self):
        net, twin = (
            bp.Sequential(bp.Linear(D, 3), bp.BatchNorm(3), bp.Dropout(0.5, seed=1), Scale(3), seed=0, dtype="float64")
            for _ in range(2)
        )
        X = spread((N, D))
        net.forward(X.T)
        twin.forward(X.T)
        phi, buffers = net.phi.copy(), {name: buffer.copy() for name, buffer in net.buffers.items()}
        J = bp.jacobian(net, X)
        before = J.copy()
        bp.jacobian(net, X[::-1], "phi")
        bp.input_gradient(net, bp.LeastSquares(), X, np.zeros((N, 3)))
        assert_array_equal(net.backward(np.ones((3, N)))[1].dL_dphi, twin.backward(np.ones((3, N)))[1].dL_dphi)
        assert_array_equal(net.phi, phi)
        for name, buffer in net.buffers.items():
            assert_array_equal(buffer, buffers[name])
        assert_array_equal(net.forward(X.T), twin.forward(X.T))
        assert_array_equal(J, before)


NET, X, Y = between(bp.Tanh()), spread((N, D)), np.zeros((N, 2))
LOSS = bp.LeastSquares()
BAD = {
    "a class": (lambda: bp.jacobian(bp.Linear, X), TypeError, ["jacobian", "net: a Layer", "Linear(…)"]),
    "another wrt": (lambda: bp.jacobian(NET, X, "omega"), ValueError, ["wrt", "'inputs', 'phi'", "'omega'"]),
    "wrt that is no word": (lambda: bp.jacobian(NET, X, None), TypeError, ["wrt", "None"]),
    "transposed X": (lambda: bp.jacobian(NET, X.T), ValueError, ["4 columns", "(4, 5)", "X.T"]),
    "a vector": (lambda: bp.jacobian(NET, X[0]), ValueError, ["(N, D)", "X.reshape(1, -1)"]),
    "complex X": (lambda: bp.jacobian(NET, X + 1j), TypeError, ["real numbers", "complex128"]),
    "inf in X": (lambda: bp.jacobian(NET, X * np.inf), ValueError, ["finite values in X"]),
    "no network": (lambda: bp.input_gradient(None, LOSS, X, Y), TypeError, ["input_gradient", "net: a Layer"]),
    "no loss": (lambda: bp.input_gradient(NET, bp.LeastSquares, X, Y), TypeError, ["LeastSquares(…)"]),
    "targets": (lambda: bp.input_gradient(NET, LOSS, X, Y.T), ValueError, ["(5, 2)", "Pass y.T"]),
    "weights": (lambda: bp.input_gradient(NET, LOSS, X, Y, -np.ones(N)), ValueError, ["sample_weight ≥ 0"]),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input(bad):
    call, error, parts = BAD[bad]
    assert_refused(call, error, *parts)
