"""Per-example gradients and their norms, against a loop over single examples, the complex step and two other libraries."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import LAYERS, LOSSES, Scale, complex_step, network, spread
from test_bad_input import assert_refused

import backprop as bp
from backprop.around.nesting import leaves
from backprop.gradients import per_example

N, D = 6, 4
COUPLERS = {"BatchNorm", "BatchNorm inside"}
APART = [name for name in LAYERS if name not in COUPLERS]
BOTH = [bp.per_example_gradients, bp.per_example_gradient_norms]


def single(net, loss, x, y):
    """∂ℓ/∂φ of one example, by the ordinary passes."""
    loss.forward(net.forward(x[:, None]), y[..., None])
    return net.backward(loss.backward())[1].dL_dphi


def looped(net, loss, X, y):
    """The same, example by example."""
    return np.array([single(net, loss, x, y_n) for x, y_n in zip(X, y, strict=True)])


def masked(net, X):
    """The network with Dropout replaced by the mask it draws for these examples: one network per example."""
    net = net.copy()
    net.reseed(0)
    net.forward(X.T)
    masks = [leaf.mask for leaf in leaves(net) if isinstance(leaf, bp.Dropout)]
    return [with_masks(net, [mask[:, n : n + 1] for mask in masks]) for n in range(len(X))]


class Mask(bp.Layer):
    """Multiplies with a given mask."""

    def __init__(self, mask):
        self.mask = mask

    def forward(self, h):
        return self.mask * h

    def backward(self, dL_df):
        return self.mask * dL_df, {}


def with_masks(layer, masks):
    """The layer anew, with these masks in the place of its Dropouts, in order."""
    if isinstance(layer, bp.Dropout):
        return Mask(masks.pop(0))
    children = [with_masks(child, masks) for child in layer.children.values()]
    if isinstance(layer, bp.Sequential):
        return bp.Sequential(*children, dtype="float64")
    if isinstance(layer, bp.FanOut):
        return bp.FanOut(*children, join=layer.join)
    return bp.Residual(*children) if children else layer.copy()


def targets(net, X, seed=1):
    return np.random.default_rng(seed).normal(size=net.predict(X).shape)


class TestEveryLayer:
    @pytest.mark.parametrize("name", APART)
    def test_against_a_loop(self, name):
        net, X = network(name, D), spread((N, D))
        y = targets(net, X)
        G = bp.per_example_gradients(net, bp.LeastSquares(), X, y)
        nets = masked(net, X)
        desired = [single(one, bp.LeastSquares(), x, y_n) for one, x, y_n in zip(nets, X, y, strict=True)]
        assert_allclose(G, desired, rtol=1e-12, atol=1e-12)
        norms = bp.per_example_gradient_norms(net, bp.LeastSquares(), X, y)
        assert norms.shape == (N,)
        assert_allclose(norms, np.linalg.norm(desired, axis=1), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ["Linear", "LayerNorm", "Residual", "FanOut sums", "a layer of one's own inside"])
    def test_against_the_complex_step(self, name):
        net, X = network(name, D), spread((N, D))
        y, twin = targets(net, X), net.copy()
        twin.bind(net.phi.astype(complex))

        def ell(phi, n):
            twin.phi[...] = phi
            return bp.LeastSquares().forward(twin.forward(X[n : n + 1].T), y[n : n + 1].T)

        G = bp.per_example_gradients(net, bp.LeastSquares(), X, y)
        for n in range(N):
            desired = complex_step(lambda phi, n=n: ell(phi, n), net.phi)
            assert_allclose(G[n], desired, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("function", BOTH)
    @pytest.mark.parametrize("name", sorted(COUPLERS))
    def test_what_couples_examples_is_refused_and_frozen_is_not(self, name, function):
        net, X = network(name, D), spread((N, D))
        y = targets(net, X)
        assert_refused(
            lambda: function(net, bp.LeastSquares(), X, y), ValueError, function.__name__, "BatchNorm", "net.frozen()"
        )
        desired = looped(net.frozen(), bp.LeastSquares(), X, y)
        if function is bp.per_example_gradient_norms:
            desired = np.linalg.norm(desired, axis=1)
        assert_allclose(function(net.frozen(), bp.LeastSquares(), X, y), desired, rtol=1e-12, atol=1e-12)


class TestEveryLoss:
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("K", [1, 2, 5])
    @pytest.mark.parametrize("name", LOSSES)
    def test_against_a_loop(self, name, K, reduction):
        row = LOSSES[name]
        net = bp.Sequential(bp.Linear(D, 3), bp.Tanh(), bp.Linear(3, K * row.outputs), seed=1, dtype="float64")
        X, columns = spread((N, D)), row.target(np.random.default_rng(2), K, N)
        if K == 1 and name.startswith("CrossEntropy"):
            columns = np.zeros(N, int)  # a single class is a label at the door
        y = columns[0] if K == 1 and columns.ndim == 2 else columns.T
        loss = row.make(reduction=reduction)
        desired = looped(net, loss, X, columns.T)
        G = bp.per_example_gradients(net, loss, X, y)
        assert_allclose(G, desired, rtol=1e-12, atol=1e-12)
        assert_allclose(
            bp.per_example_gradient_norms(net, loss, X, y), np.linalg.norm(desired, axis=1), rtol=1e-12, atol=1e-12
        )
        loss.forward(net.forward(X.T), columns)
        batch = net.backward(loss.backward())[1].dL_dphi
        assert_allclose(G.mean(axis=0) if reduction == "mean" else G.sum(axis=0), batch, rtol=1e-12, atol=1e-13)


def classifier(dtype="float64", **options):
    layers = [bp.Linear(D, 5), bp.Tanh(), bp.Linear(5, 3)]
    return bp.Sequential(*layers, seed=0, dtype=dtype, **options)


def labelled(n=N):
    return spread((n, D)), np.arange(n) % 3


class TestOracles:
    def test_autograd(self):
        numpy, grad = pytest.importorskip("autograd.numpy"), pytest.importorskip("autograd").grad
        net, (X, y) = classifier(), labelled()

        def ell(phi, x, k):
            views = net.views(phi)
            h = numpy.tanh(numpy.dot(views["0.omega"], x) + views["0.beta"])
            f = numpy.dot(views["2.omega"], h) + views["2.beta"]
            return numpy.log(numpy.sum(numpy.exp(f))) - f[k]

        desired = np.array([grad(ell)(net.phi, x, k) for x, k in zip(X, y, strict=True)])
        G = bp.per_example_gradients(net, bp.CrossEntropy(), X, y)
        assert_allclose(G, desired, rtol=1e-12, atol=1e-13)
        norms = bp.per_example_gradient_norms(net, bp.CrossEntropy(), X, y)
        assert_allclose(norms, np.linalg.norm(desired, axis=1), rtol=1e-12)

    @pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
    def test_torch(self):
        import torch

        net, (X, y) = classifier(), labelled()
        parts = {name: torch.from_numpy(array.copy()) for name, array in net.parameters.items()}

        def ell(parts, x, k):
            h = torch.tanh(parts["0.omega"] @ x + parts["0.beta"])
            f = parts["2.omega"] @ h + parts["2.beta"]
            return torch.nn.functional.cross_entropy(f[None], k[None])

        each = torch.func.vmap(torch.func.grad(ell), in_dims=(None, 0, 0))
        desired = each(parts, torch.from_numpy(X), torch.from_numpy(y))
        views = net.views(bp.per_example_gradients(net, bp.CrossEntropy(), X, y))
        assert list(views) == list(desired)
        for name, view in views.items():
            assert_allclose(view, desired[name].numpy(), rtol=1e-12, atol=1e-13)


class Doubled(bp.Loss):
    """Twice the least squares, in float64 whatever f is."""

    def ell(self, f, y):
        self.d = f.astype(np.float64) - y
        return 2 * (self.d**2).sum(axis=0)

    def dell_df(self):
        return 4 * self.d


class Running(bp.Layer):
    """Couples the examples of a batch without saying so."""

    def forward(self, h):
        return h - h.mean(axis=-1, keepdims=True)

    def backward(self, dL_df):
        return dL_df - dL_df.mean(axis=-1, keepdims=True), {}


class Noise(bp.Layer):
    """Random in training."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def reseed(self, *key):
        self.generator = np.random.default_rng(key)

    def forward(self, h):
        return h + self.generator.normal(size=h.shape)

    def backward(self, dL_df):
        return dL_df, {}


class Twice(bp.Composite):
    """A composition of one's own."""

    def __init__(self, layer):
        self.layers = {"a": layer}

    def forward(self, h):
        return 2 * self.layers["a"].forward(h)

    def backward(self, dL_df):
        return self.backward_child("a", 2 * dL_df)


class Named(bp.Sequential):
    """A network with a name: a subclass whose passes are the library's."""


class Affine(bp.Linear):
    """Another one."""

    def __init__(self, *widths):
        super().__init__(*widths)

    @property
    def ratio(self):
        return self.out_features / self.in_features


class TracedScale(Scale):
    """A layer of one's own that the engine may look into."""

    traced = True


class TracedBell(bp.layers.activations.Activation):
    traced = True

    def value(self, h):
        return np.exp(-h * h)

    def slope(self, h, f):
        return -2 * h * f


class Halved(bp.Sequential):
    """A network with a forward pass of its own."""

    def forward(self, h):
        return super().forward(h) / 2

    def backward(self, dL_df):
        return super().backward(dL_df / 2)


class Forgetful(Scale):
    """Returns no gradient for its parameter."""

    def backward(self, dL_df):
        return super().backward(dL_df)[0], {}


class TestLayersOfOnesOwn:
    @pytest.mark.parametrize("function", BOTH)
    @pytest.mark.parametrize("layer", [Running, Noise, lambda: Twice(bp.Dropout(0.5))], ids=["couples", "random", "of"])
    def test_what_the_loop_would_get_wrong_is_refused(self, layer, function):
        net = bp.Sequential(bp.Linear(D, 3), layer(), bp.Linear(3, 3), seed=0)
        X, y = labelled()
        parts = ["each example on its own", "another output in the batch than alone", "net.frozen()"]
        assert_refused(lambda: function(net, bp.CrossEntropy(), X, y), ValueError, function.__name__, *parts)

    def test_one_example_couples_with_none(self):
        net = bp.Sequential(bp.Linear(D, 3), Running(), bp.Linear(3, 3), seed=0, dtype="float64")
        X, y = labelled(1)
        desired = looped(net, bp.CrossEntropy(), X, y)
        assert_allclose(bp.per_example_gradients(net, bp.CrossEntropy(), X, y), desired, rtol=1e-13)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: bp.Sequential(Twice(bp.Linear(D, 3)), bp.Tanh(), Scale(3)),
            lambda: bp.Sequential(bp.Residual(Scale(D)), bp.FanOut(Scale(D), bp.Linear(D, 2)), bp.Linear(D + 2, 3)),
            lambda: Named(bp.Linear(D, 4), bp.ReLU(), bp.Linear(4, 3)),
            lambda: Halved(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, 3)),
            lambda: bp.Sequential(Halved(bp.Linear(D, 4), bp.Tanh()), bp.Linear(4, 3)),
        ],
        ids=["composition", "in ours", "subclass", "network", "network in a network"],
    )
    def test_of_every_kind(self, make):
        net = make()
        net.bind(net.phi.astype(float))
        net.phi[...] = np.random.default_rng(0).normal(size=net.size)
        X, y = labelled()
        desired = looped(net, bp.CrossEntropy(), X, y)
        assert_allclose(bp.per_example_gradients(net, bp.CrossEntropy(), X, y), desired, rtol=1e-12, atol=1e-13)
        norms = bp.per_example_gradient_norms(net, bp.CrossEntropy(), X, y)
        assert_allclose(norms, np.linalg.norm(desired, axis=1), rtol=1e-12)

    @pytest.mark.parametrize("function", BOTH)
    def test_a_name_for_ours_is_ours(self, function, monkeypatch):
        """It has one mask for all examples, and none of them is run alone."""
        monkeypatch.setattr(per_example, "OneByOne", None)
        layers = [bp.Linear(D, 8), bp.Sequential(bp.Tanh(), bp.Dropout(0.3)), bp.Linear(8, 3)]
        ours = bp.Sequential(*(layer.copy() for layer in layers), seed=0, dtype="float64")
        named = Named(Affine(D, 8), Named(bp.Tanh(), bp.Dropout(0.3)), bp.Linear(8, 3), seed=0, dtype="float64")
        X, y = labelled()
        assert_array_equal(function(named, bp.CrossEntropy(), X, y), function(ours, bp.CrossEntropy(), X, y))
        assert type(named[0]) is Affine

    def test_a_layer_of_ones_own_that_is_traced(self):
        net = bp.Sequential(bp.Linear(D, 3), TracedScale(3), bp.Tanh(), TracedBell(), seed=0, dtype="float64")
        X, y = labelled()
        desired = looped(net, bp.CrossEntropy(), X, y)
        assert_allclose(bp.per_example_gradients(net, bp.CrossEntropy(), X, y), desired, rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("function", BOTH)
    def test_a_pending_backward_is_left_alone(self, function):
        bell = TracedBell()
        net = bp.Sequential(bp.Linear(D, 3), bp.Elementwise(lambda v: v * v), Scale(3), bell, seed=0, dtype="float64")
        X, y = labelled()
        net.forward(X.T)
        before = net.backward(np.ones((3, N)))[1].dL_dphi
        function(net, bp.CrossEntropy(), X[::-1] / 2, y)
        assert_array_equal(net.backward(np.ones((3, N)))[1].dL_dphi, before)

    def test_a_missing_gradient_is_named(self):
        net = bp.Sequential(bp.Linear(D, 3), Forgetful(3))
        assert_refused(
            lambda: bp.per_example_gradients(net, bp.CrossEntropy(), *labelled()), ValueError, "Forgetful", "omega"
        )

    def test_a_single_layer(self):
        X, y = labelled()
        G = bp.per_example_gradients(bp.Linear(D, 3, seed=0), bp.CrossEntropy(), X, y)
        assert G.shape == (N, 15)
        assert G.dtype == np.float64


class TestForm:
    @settings(max_examples=25, deadline=None)
    @given(
        n=st.integers(1, 9),
        widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
        kind=st.sampled_from(["float32", "float64"]),
        order=st.sampled_from("CF"),
        checkpoint=st.sampled_from([None, 2]),
    )
    def test_any_shape(self, n, widths, kind, order, checkpoint):
        layers = [bp.Linear(a, b) for a, b in pairwise(widths)]
        layers = [part for layer in layers for part in (layer, bp.SiLU())]
        net = bp.Sequential(*layers, seed=0, dtype=kind, checkpoint=checkpoint)
        X = np.asarray(np.random.default_rng(0).normal(size=(n, widths[0])), order=order)
        y = targets(net, X).squeeze(1) if widths[-1] == 1 else targets(net, X)
        G = bp.per_example_gradients(net, bp.LeastSquares(), X, y)
        assert G.shape == (n, net.size)
        assert G.dtype == net.phi.dtype
        desired = looped(net, bp.LeastSquares(), X.astype(kind), y.reshape(n, -1).astype(kind))
        tolerance = 1e-4 if kind == "float32" else 1e-12
        assert_allclose(G, desired, rtol=tolerance, atol=tolerance)
        norms = bp.per_example_gradient_norms(net, bp.LeastSquares(), X, y)
        assert_allclose(norms, np.linalg.norm(G, axis=1), rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("function", BOTH)
    def test_blocks_make_no_difference(self, function, monkeypatch):
        net, (X, y) = classifier(), labelled(23)
        whole = function(net, bp.CrossEntropy(), X, y)
        monkeypatch.setattr(per_example, "rows_per_block", lambda _: 5)
        assert_allclose(function(net, bp.CrossEntropy(), X, y), whole, rtol=1e-13, atol=1e-15)

    def test_dropout_is_the_same_in_gradients_and_norms(self, monkeypatch):
        net = bp.Sequential(bp.Linear(D, 40), bp.Dropout(0.5), bp.Linear(40, 3), seed=0, dtype="float64")
        monkeypatch.setattr(per_example, "rows_per_block", lambda _: 7)
        X, y = labelled(20)
        G = bp.per_example_gradients(net, bp.CrossEntropy(), X, y)
        norms = bp.per_example_gradient_norms(net, bp.CrossEntropy(), X, y)
        assert_allclose(norms, np.linalg.norm(G, axis=1), rtol=1e-12)
        assert_array_equal(G, bp.per_example_gradients(net, bp.CrossEntropy(), X, y))
        without = bp.per_example_gradients(net.frozen(), bp.CrossEntropy(), X, y)
        assert not np.allclose(G, without)

    def test_dropout_has_a_mask_for_each_block(self, monkeypatch):
        net = bp.Sequential(bp.Linear(D, 40), bp.Dropout(0.5), bp.Linear(40, 3), seed=0, dtype="float64")
        monkeypatch.setattr(per_example, "rows_per_block", lambda _: 5)
        G = bp.per_example_gradients(net, bp.CrossEntropy(), np.ones((10, D)), np.zeros(10, int))
        assert len(np.unique(G, axis=0)) == 10

    @pytest.mark.parametrize("kind", ["float32", "float64"])
    def test_large_layers(self, kind):
        net = bp.Sequential(bp.Linear(100, 90), bp.ReLU(), bp.Linear(90, 2), seed=0, dtype=kind)
        X, y = spread((7, 100)).astype(kind), np.arange(7) % 2
        desired = looped(net, bp.CrossEntropy(), X, y)
        tolerance = 1e-5 if kind == "float32" else 1e-13
        assert_allclose(bp.per_example_gradients(net, bp.CrossEntropy(), X, y), desired, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("width", [5, 100])
    def test_a_loss_of_another_dtype(self, width):
        net = bp.Sequential(bp.Linear(100, width), seed=0)
        X, y = spread((7, 100)), np.zeros((7, width))
        G = bp.per_example_gradients(net, Doubled(), X, y)
        assert G.dtype == np.float32
        assert_allclose(G, 2 * bp.per_example_gradients(net, bp.LeastSquares(), X, y), rtol=1e-5, atol=1e-5)
        norms = bp.per_example_gradient_norms(net, Doubled(), X, y)
        assert norms.dtype == np.float32
        assert_allclose(norms, np.linalg.norm(G, axis=1), rtol=1e-5)

    def test_no_parameters(self):
        X, _ = labelled()
        net = bp.Sequential(bp.Tanh(), dtype="float64")
        assert bp.per_example_gradients(net, bp.LeastSquares(), X, X).shape == (N, 0)
        assert_array_equal(bp.per_example_gradient_norms(net, bp.LeastSquares(), X, X), np.zeros(N))

    @pytest.mark.parametrize("function", BOTH)
    def test_nothing_of_the_callers_changes(self, function):
        layers = [bp.Linear(D, 4), bp.Dropout(0.5, seed=1), Scale(4), bp.BatchNorm(4).frozen(), bp.Linear(4, 3)]
        net, twin = (bp.Sequential(*(layer.copy() for layer in layers), seed=0, dtype="float64") for _ in range(2))
        X, y = labelled()
        loss = bp.CrossEntropy()
        net.forward(X.T)
        twin.forward(X.T)
        loss.forward(np.eye(3), np.arange(3))
        kept = loss.backward()
        phi, inputs = net.phi.copy(), X.copy()
        returned = function(net, loss, X, y)
        before = returned.copy()
        assert_array_equal(net.backward(np.ones((3, N)))[1].dL_dphi, twin.backward(np.ones((3, N)))[1].dL_dphi)
        assert_array_equal(net.forward(X.T), twin.forward(X.T))
        assert_array_equal(loss.backward(), kept)
        assert_array_equal(net.phi, phi)
        assert_array_equal(X, inputs)
        function(net, loss, X[::-1], y)
        assert_array_equal(returned, before)
        assert type(net[2]) is Scale


X, Y = labelled()
BAD = {
    "a class": (lambda f: f(bp.Sequential, bp.CrossEntropy(), X, Y), TypeError, ["net: a Layer", "Sequential(…)"]),
    "no loss": (lambda f: f(classifier(), "mse", X, Y), TypeError, ["loss: a Loss", "'mse'"]),
    "transposed X": (lambda f: f(classifier(), bp.CrossEntropy(), X.T, Y), ValueError, ["pass X.T"]),
    "one example as a vector": (lambda f: f(classifier(), bp.CrossEntropy(), X[0], Y[:1]), ValueError, ["(N, D)"]),
    "complex X": (lambda f: f(classifier(), bp.CrossEntropy(), X + 0j, Y), TypeError, ["real numbers"]),
    "NaN in X": (lambda f: f(classifier(), bp.CrossEntropy(), X * np.nan, Y), ValueError, ["finite values in X"]),
    "no examples": (lambda f: f(classifier(), bp.CrossEntropy(), X[:0], Y[:0]), ValueError, ["at least one example"]),
    "too few targets": (lambda f: f(classifier(), bp.CrossEntropy(), X, Y[1:]), ValueError, ["(6,)", "(5,)"]),
    "a label too many": (lambda f: f(classifier(), bp.CrossEntropy(), X, Y + 1), ValueError, ["0 … 2", "3"]),
}


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("bad", BAD)
def test_bad_input(bad, function):
    call, error, parts = BAD[bad]
    assert_refused(lambda: call(function), error, *parts)
