"""Products with the Hessian, the Gauss–Newton and the Fisher matrix, and eigenvalues, each against independent oracles."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from tables import LAYERS, LOSSES, Scale, spread

import backprop as bp
from backprop.around.nesting import views

N, D = 6, 3
WEIGHTS = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0])
every_layer = pytest.mark.parametrize("name", LAYERS)
every_loss = pytest.mark.parametrize("name", LOSSES)
every_width = pytest.mark.parametrize("K", [1, 2, 5])
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum"])
with_and_without_weights = pytest.mark.parametrize("w", [None, WEIGHTS], ids=["plain", "weighted"])


def rows(n=N):
    return spread((n, D))


def direction(net, seed=5):
    return np.random.default_rng(seed).normal(size=net.size) / 10


def random_phi(net, seed=0):
    net.phi[...] = np.random.default_rng(seed).uniform(-1, 1, net.size)
    return net


def mlp(outputs=2, activation=bp.Tanh, dtype="float64", **options):
    layers = bp.Linear(D, 4), activation(), bp.Linear(4, 3), activation(), bp.Linear(3, outputs)
    return random_phi(bp.Sequential(*layers, dtype=dtype, **options))


def around(name):
    """The layer of one row behind a Linear, so that its slope's own slope matters."""
    return random_phi(bp.Sequential(bp.Linear(D, 4), LAYERS[name](4), dtype="float64"))


def targets(name, K, n=N):
    """Rows of targets of one loss."""
    if name.startswith("CrossEntropy") and K == 1:
        return np.zeros(n, int)
    y = LOSSES[name].target(np.random.default_rng(2), K, n).T
    return y.ravel() if K == 1 else y


def problem(name, K, reduction="mean", activation=bp.Tanh):
    """A network for K targets of one loss, the loss, and data."""
    return mlp(K * LOSSES[name].outputs, activation), LOSSES[name].make(reduction=reduction), rows(), targets(name, K)


def at(net, phi):
    """A copy of a network with other parameters, of their type."""
    net = net.copy()
    net.bind(np.empty(net.size, phi.dtype))
    net.phi[...] = phi
    return net


def gradient(net, loss, X, y, w=None, phi=None):
    """∂L/∂φ from an ordinary backward pass, with the mask of seed 0."""
    net, loss = at(net, net.phi if phi is None else phi), copy.copy(loss)
    net.reseed(0)
    loss.forward(net.forward(X.T), np.asarray(y).T, w)
    return net.backward(loss.backward())[1].dL_dphi


def difference(net, loss, X, y, v, w=None, delta=1e-4):
    """H v from gradients on either side, with the errors of second and fourth order extrapolated away."""
    D = [
        (gradient(net, loss, X, y, w, net.phi + t * v) - gradient(net, loss, X, y, w, net.phi - t * v)) / (2 * t)
        for t in (delta, delta / 2, delta / 4)
    ]
    once = (4 * D[1] - D[0]) / 3, (4 * D[2] - D[1]) / 3
    return (16 * once[1] - once[0]) / 15


def untransformed(net, loss, X, y, v, w=None, epsilon=2.0**-100):
    """H v from a complex pass through the network as it is."""
    return gradient(net, loss, X, y, w, net.phi + 1j * epsilon * v).imag / epsilon


def relative(actual, desired, tolerance):
    assert_allclose(actual, desired, rtol=0, atol=tolerance * max(np.abs(desired).max(), 1e-3))


def matrix(product, P):
    return np.array([product(column) for column in np.eye(P)])


def jacobian(net, X, v):
    """J v (K, N) by a complex step."""
    return at(net, net.phi + 1e-30j * v).forward(X.T).imag / 1e-30


class TestHessianProduct:
    @every_layer
    def test_every_layer(self, name):
        net, X = around(name), rows()
        y = np.random.default_rng(1).normal(size=net.predict(X).shape)
        data = net, bp.LeastSquares(), X, y[:, 0] if y.shape[1] == 1 else y
        v = direction(net)
        found = bp.hessian_product(*data, v)
        relative(found, difference(*data, v), 1e-6)
        relative(found, untransformed(*data, v), 1e-12)

    @every_loss
    @every_width
    @every_reduction
    @with_and_without_weights
    def test_every_loss(self, name, K, reduction, w):
        data = problem(name, K, reduction)
        v = direction(data[0])
        found = bp.hessian_product(*data, v, w)
        relative(found, difference(*data, v, w), 1e-6)
        relative(found, untransformed(*data, v, w), 1e-12)

    @pytest.mark.parametrize("kind", ["LeastSquares", "CrossEntropy of labels", "GaussianNLL", "Poisson"])
    def test_the_whole_matrix_against_autograd(self, kind):
        pytest.importorskip("autograd")
        import autograd.numpy as anp
        from autograd import hessian

        net, loss, X, y = problem(kind, 2, activation=bp.Sigmoid)

        def per_example(f):
            if kind == "LeastSquares":
                return ((f - y) ** 2).sum(1)
            if kind == "Poisson":
                return (anp.exp(f) - y * f).sum(1)
            if kind == "GaussianNLL":
                mean, s = f[:, :2], f[:, 2:]
                return 0.5 * (s + (y - mean) ** 2 / anp.exp(s) + np.log(2 * np.pi)).sum(1)
            return anp.log(anp.exp(f).sum(1)) - f[np.arange(N), y]

        def L(phi):
            h, start = X, 0
            for k, layer in enumerate(layer for layer in net if layer.size):
                D_out, D_in = layer.parameters["omega"].shape
                beta = phi[start : start + D_out]
                omega = phi[start + D_out : start + layer.size].reshape(D_out, D_in)
                h, start = h @ omega.T + beta, start + layer.size
                h = 1 / (1 + anp.exp(-h)) if k < 2 else h
            return anp.mean(per_example(h))

        curvature = bp.Curvature(net, loss, X, y)
        relative(matrix(curvature.hessian_product, net.size), hessian(L)(net.phi.copy()), 1e-10)

    def test_against_torch(self):
        torch = pytest.importorskip("torch")
        net, X, y = mlp(activation=bp.GELU), rows(), np.arange(N) % 2
        v = direction(net)
        pieces = [torch.from_numpy(p.copy()) for p in net.parameters.values()]

        def L(*pieces):
            h = torch.from_numpy(X)
            for k, (beta, omega) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
                h = torch.nn.functional.linear(h if k == 0 else torch.nn.functional.gelu(h), omega, beta)
            return torch.nn.functional.cross_entropy(h, torch.from_numpy(y))

        along = tuple(torch.from_numpy(part.copy()) for part in net.views(v).values())
        _, expected = torch.autograd.functional.hvp(L, tuple(pieces), along)
        flat = np.concatenate([part.numpy().ravel() for part in expected])
        relative(bp.hessian_product(net, bp.CrossEntropy(), X, y, v), flat, 1e-12)

    @given(seed=st.integers(0, 10**6), layer=st.sampled_from(list(LAYERS)))
    def test_is_symmetric_and_linear(self, seed, layer):
        net = around(layer)
        y = np.random.default_rng(seed).normal(size=net.predict(rows()).shape)
        curvature = bp.Curvature(net, bp.LeastSquares(), rows(), y if y.shape[1] > 1 else y[:, 0])
        u, v = direction(net, seed), direction(net, seed + 1)
        Hu, Hv = curvature.hessian_product(u), curvature.hessian_product(v)
        size = np.linalg.norm(Hu) * np.linalg.norm(v) + np.linalg.norm(Hv) * np.linalg.norm(u)
        assert_allclose(u @ Hv, v @ Hu, rtol=0, atol=1e-13 * size)
        relative(curvature.hessian_product(2 * u - v), 2 * Hu - Hv, 1e-12)

    @pytest.mark.parametrize("scale", [2.0**-900, 2.0**-60, 2.0**60, 2.0**900])
    def test_the_size_of_v_does_no_harm(self, scale):
        net, loss, X, y = problem("LeastSquares", 2, activation=bp.GELU)
        net = random_phi(bp.Sequential(net, bp.LayerNorm(2), dtype="float64"))
        v = direction(net)
        relative(bp.hessian_product(net, loss, X, y, v * scale) / scale, bp.hessian_product(net, loss, X, y, v), 1e-15)

    @pytest.mark.parametrize("name", [name for name in LAYERS if name != "Exp"])
    def test_far_from_zero(self, name):
        net = around(name)
        y = np.zeros(net.predict(rows()).shape)
        data = net, bp.Huber(), 1e4 * rows(), y if y.shape[1] > 1 else y[:, 0]
        assert np.isfinite(bp.hessian_product(*data, direction(net))).all()

    def test_of_nothing_is_nothing(self):
        net, *data = problem("LeastSquares", 1)
        assert not bp.hessian_product(net, *data, np.zeros(net.size)).any()
        assert not bp.gauss_newton_product(net, *data, np.zeros(net.size)).any()

    def test_whole_numbers_are_a_direction(self):
        net, *data = problem("LeastSquares", 1)
        v = np.arange(net.size)
        assert_allclose(bp.hessian_product(net, *data, v), bp.hessian_product(net, *data, v.astype(float)), rtol=1e-15)

    @pytest.mark.parametrize("activation", [bp.ReLU, bp.Tanh, bp.ELU])
    def test_in_single_precision(self, activation):
        X, y = rows(), np.arange(N) % 2
        single, double = mlp(2, activation, "float32"), mlp(2, activation)
        double.phi[...] = single.phi
        v = direction(double)
        found = bp.hessian_product(single, bp.CrossEntropy(), X, y, v)
        assert found.dtype == np.float32
        relative(found, bp.hessian_product(double, bp.CrossEntropy(), X, y, v.astype(np.float32)), 1e-5)
        exact = bp.Curvature(single, bp.CrossEntropy(), X, y, dtype="float64").hessian_product(v)
        assert exact.dtype == np.float64
        relative(exact, bp.hessian_product(double, bp.CrossEntropy(), X, y, v), 1e-13)

    def test_with_checkpoints(self):
        X, y = rows(), np.arange(N) % 2
        inner = lambda **options: bp.Sequential(  # noqa: E731
            bp.Sequential(bp.Linear(D, 4), bp.Dropout(0.3), bp.Tanh(), **options), bp.Linear(4, 2), dtype="float64"
        )
        plain, stored = random_phi(inner()), random_phi(inner(checkpoint=2))
        v = direction(plain)
        for product in (bp.hessian_product, bp.gauss_newton_product):
            found = product(stored, bp.CrossEntropy(), X, y, v)
            relative(found, product(plain, bp.CrossEntropy(), X, y, v), 1e-15)

    def test_of_a_single_layer_and_a_single_example(self):
        layer = bp.Linear(D, 2)
        v = direction(layer)
        x = rows(1)
        f = views(layer, v)["omega"] @ x[0] + v[:2]
        found = bp.hessian_product(layer, bp.LeastSquares(), x, np.ones((1, 2)), v)
        assert_allclose(found, np.concatenate([2 * f, np.outer(2 * f, x[0]).ravel()]), rtol=1e-12)

    def test_nothing_of_the_callers_is_changed(self):
        net, X = random_phi(bp.Sequential(bp.Linear(D, 4), bp.BatchNorm(4), bp.Linear(4, 2))), rows()
        f = net.forward(X.T.astype(np.float32))
        before = [net.phi.copy(), *map(np.copy, net.buffers.values()), net.backward(f)[1].dL_dphi]
        data, v = (net, bp.CrossEntropy(), X, np.arange(N) % 2), direction(net)
        for product in (bp.hessian_product, bp.gauss_newton_product, bp.fisher_product):
            product(*data, v)
        bp.hessian_eigenvalues(*data)
        after = [net.phi, *net.buffers.values(), net.backward(f)[1].dL_dphi]
        assert all(map(np.array_equal, before, after))
        assert np.array_equal(X, rows())
        assert np.array_equal(v, direction(net))


class TestCurvature:
    def test_serves_many_products(self):
        net, *data = problem("Poisson", 2)
        curvature = bp.Curvature(net, *data)
        first = curvature.hessian_product(direction(net))
        kept = first.copy()
        others = [curvature.hessian_product(direction(net, seed)) for seed in range(3)]
        assert np.array_equal(first, kept)
        assert np.array_equal(curvature.hessian_product(direction(net)), first)
        for seed, other in enumerate(others):
            relative(other, bp.hessian_product(net, *data, direction(net, seed)), 1e-15)

    def test_value_and_gradient(self):
        net, loss, X, y = problem("GaussianNLL", 2)
        curvature = bp.Curvature(net, loss, X, y, WEIGHTS)
        f = net.forward(X.T)
        assert_allclose(curvature.value(), loss.forward(f, y.T, WEIGHTS), rtol=1e-15)
        assert_allclose(curvature.gradient(), gradient(net, loss, X, y, WEIGHTS), rtol=1e-12)
        assert curvature.size == net.size

    @pytest.mark.parametrize("name", ["Tanh", "BatchNorm inside", "a layer of one's own inside", "FanOut sums"])
    def test_moves_to_other_parameters(self, name):
        net, X = around(name), rows()
        y = np.random.default_rng(1).normal(size=net.predict(X).shape)
        curvature = bp.Curvature(net, bp.LeastSquares(), X, y)
        v, before = direction(net), net.phi.copy()
        curvature.hessian_product(v)
        curvature.gauss_newton_product(v)
        net.phi[...] = np.random.default_rng(9).uniform(-1, 1, net.size)
        expected = bp.Curvature(net, bp.LeastSquares(), X, y)
        assert curvature.at(net.phi) is curvature
        for method in ("hessian_product", "gauss_newton_product", "fisher_product"):
            relative(getattr(curvature, method)(v), getattr(expected, method)(v), 1e-15)
        assert_allclose(curvature.gradient(), expected.gradient(), rtol=1e-13)
        assert curvature.value() == expected.value()
        net.phi[...] = before
        assert curvature.value() == expected.value(), "the network itself plays no part"

    def test_dropout_has_one_mask(self):
        net = random_phi(bp.Sequential(bp.Linear(D, 8), bp.Dropout(0.5, seed=1), bp.Linear(8, 1), dtype="float64"))
        curvature = bp.Curvature(net, bp.LeastSquares(), rows(), np.ones(N))
        v = direction(net)
        assert np.array_equal(curvature.hessian_product(v), curvature.hessian_product(v))
        assert curvature.value() == curvature.value()

    def test_names_itself(self):
        net, *data = problem("Poisson", 2)
        assert repr(bp.Curvature(net, *data)) == "Curvature(Sequential(3 → 2), Poisson(), 6 examples)"


class TestGaussNewton:
    @every_loss
    @every_width
    @every_reduction
    @with_and_without_weights
    def test_is_what_it_says(self, name, K, reduction, w):
        net, loss, X, y = problem(name, K, reduction)
        u, v = direction(net, 1), direction(net, 2)
        f = net.forward(X.T)
        loss.forward(f + 1e-30j * jacobian(net, X, v), np.asarray(y).T, w)
        middle = np.imag(loss.backward()) / 1e-30
        found = bp.gauss_newton_product(net, loss, X, y, v, w)
        size = np.abs(u) @ np.abs(found) + 1e-3
        assert_allclose(u @ found, np.sum(jacobian(net, X, u) * middle), rtol=0, atol=1e-12 * size)

    @every_loss
    def test_is_the_hessian_where_f_is_linear_in_phi(self, name):
        outputs = 2 * LOSSES[name].outputs
        for layers in (
            [bp.Linear(D, outputs)],
            [bp.Linear(D, outputs), bp.LeakyReLU()],
            [bp.Linear(D, outputs), bp.ReLU()],
        ):
            net = random_phi(bp.Sequential(*layers, dtype="float64"))
            data = net, LOSSES[name].make(), rows(), targets(name, 2)
            v = direction(net)
            relative(bp.gauss_newton_product(*data, v), bp.hessian_product(*data, v), 1e-13)

    def test_is_not_the_hessian_elsewhere(self):
        net, *data = problem("LeastSquares", 2)
        v = direction(net)
        G, H = bp.gauss_newton_product(net, *data, v), bp.hessian_product(net, *data, v)
        assert np.linalg.norm(G - H) > 1e-2 * np.linalg.norm(H)

    @given(seed=st.integers(0, 10**6), name=st.sampled_from([name for name in LOSSES if name != "GaussianNLL"]))
    def test_has_no_negative_curvature(self, seed, name):
        net, *data = problem(name, 2)
        v = direction(net, seed)
        curvature = bp.Curvature(net, *data)
        for product in (curvature.gauss_newton_product, lambda v: curvature.fisher_product(v, empirical=True)):
            assert v @ product(v) >= -1e-13 * np.linalg.norm(product(v)) * np.linalg.norm(v)


def per_example_gradients(net, loss, X, y):
    """g_n (N, P), one at a time, of losses without weights."""
    loss = copy.copy(loss)
    loss.reduction = "sum"
    return np.array([gradient(net, loss, X[n : n + 1], y[n : n + 1]) for n in range(len(X))])


def draws(loss, f):
    """Probability and value of every target the model may draw for outputs f (K,); quadrature where it is continuous."""
    nodes, shares = np.polynomial.hermite.hermgauss(5)  # exact to degree 9 in y; g gᵀ has degree 4
    if isinstance(loss, bp.CrossEntropy):
        p = np.exp(f) / np.exp(f).sum()
        return [(p[k], k) for k in range(len(f))]
    if isinstance(loss, bp.BinaryCrossEntropy):
        p = 1 / (1 + np.exp(-f))
        each = [[(1 - q, 0.0), (q, 1.0)] for q in p]
    elif isinstance(loss, bp.Poisson):
        log_factorial = np.cumsum(np.log(np.maximum(np.arange(25), 1)))
        each = [[(np.exp(k * s - np.exp(s) - log_factorial[k]), float(k)) for k in range(25)] for s in f]
    else:
        mean, variance = (f, np.full(len(f), 0.5)) if isinstance(loss, bp.LeastSquares) else (f[:2], np.exp(f[2:]))
        each = [
            [(share / np.sqrt(np.pi), m + np.sqrt(2 * s) * node) for share, node in zip(shares, nodes, strict=True)]
            for m, s in zip(mean, variance, strict=True)
        ]
    return [(np.prod([p for p, _ in both]), np.array([y for _, y in both])) for both in itertools.product(*each)]


class TestFisher:
    @pytest.mark.parametrize(
        "name", ["LeastSquares", "CrossEntropy of labels", "BinaryCrossEntropy", "Poisson", "GaussianNLL"]
    )
    @every_reduction
    @with_and_without_weights
    def test_is_the_expectation_over_the_model(self, name, reduction, w):
        row, X = LOSSES[name], rows(2)
        net = random_phi(bp.Sequential(bp.Linear(D, 2), bp.Tanh(), bp.Linear(2, 2 * row.outputs), dtype="float64"))
        net.phi[...] /= 2  # so that no more than 25 counts are likely
        loss, v = row.make(reduction=reduction), direction(net)
        s = np.ones(2) if w is None else np.array([0.5, 3.0])
        expected = np.zeros(net.size)
        for n in range(2):
            f = net.forward(X[n])
            for p, y in draws(loss, f):
                (g,) = per_example_gradients(net, loss, X[n : n + 1], np.array([y]))
                expected += s[n] * p * g * (g @ v)
        expected /= s.sum() if reduction == "mean" else 1
        found = bp.fisher_product(net, loss, X, targets(name, 2, 2), v, None if w is None else s)
        relative(found, expected, 1e-11)

    @every_loss
    @every_reduction
    @with_and_without_weights
    def test_empirical_is_the_sum_over_examples(self, name, reduction, w):
        net, loss, X, y = problem(name, 2, reduction)
        g, v = per_example_gradients(net, loss, X, y), direction(net)
        s = np.ones(N) if w is None else w
        s = s / s.sum() if reduction == "mean" else s
        found = bp.fisher_product(net, loss, X, y, v, w, empirical=True)
        relative(found, (s * (g @ v)) @ g, 1e-12)

    @pytest.mark.parametrize("empirical", [False, True])
    def test_weight_two_is_an_example_twice(self, empirical):
        net, loss, X, y = problem("GaussianNLL", 2)
        v, w = direction(net), np.array([1, 2, 0, 1, 3, 1])
        found = bp.fisher_product(net, loss, X, y, v, w, empirical=empirical)
        repeated = bp.fisher_product(net, loss, np.repeat(X, w, 0), np.repeat(y, w, 0), v, empirical=empirical)
        relative(found, repeated, 1e-12)

    @pytest.mark.parametrize("loss", [bp.AbsoluteError(), bp.Huber(), bp.Pinball([0.5])], ids=repr)
    def test_of_what_is_no_likelihood(self, loss):
        net = mlp(1)
        with pytest.raises(ValueError, match=r"a likelihood, one of LeastSquares.* Pass empirical=True") as caught:
            bp.fisher_product(net, loss, rows(), np.ones(N), direction(net))
        assert repr(loss) in str(caught.value)


class TestEigenvalues:
    @pytest.mark.parametrize("widths", [(D, 2, 1), (D, 12, 2)], ids=["from H itself", "by Lanczos"])
    @pytest.mark.parametrize("k", [1, 3])
    def test_are_those_of_the_matrix(self, widths, k):
        net = random_phi(bp.Sequential(bp.Linear(*widths[:2]), bp.Tanh(), bp.Linear(*widths[1:]), dtype="float64"))
        y = np.random.default_rng(1).normal(size=(N, widths[2])).reshape((N, -1) if widths[2] > 1 else N)
        data = net, bp.LeastSquares(), rows(), y
        H = matrix(bp.Curvature(*data, WEIGHTS).hessian_product, net.size)
        assert np.linalg.eigvalsh(H)[0] < -1e-3, "largest is not largest in size"
        assert_allclose(bp.hessian_eigenvalues(*data, k, WEIGHTS), np.linalg.eigvalsh(H)[::-1][:k], rtol=1e-9)

    def test_all_of_them(self):
        net, *data = problem("LeastSquares", 2)
        found = bp.hessian_eigenvalues(net, *data, net.size)
        assert found.shape == (net.size,)
        assert (np.diff(found) <= 0).all()

    def test_are_found_in_double_precision(self):
        net = mlp(2, dtype="float32")
        found = bp.hessian_eigenvalues(net, bp.CrossEntropy(), rows(), np.arange(N) % 2)
        assert found.dtype == np.float64
        assert np.array_equal(found, bp.hessian_eigenvalues(net, bp.CrossEntropy(), rows(), np.arange(N) % 2))

    def test_without_any_curvature(self):
        net = random_phi(bp.Sequential(bp.Linear(D, 20), dtype="float64"))
        y = np.zeros((N, 20))
        assert_allclose(bp.hessian_eigenvalues(net, bp.AbsoluteError(), rows(), y, 2), [0, 0])
        assert bp.learning_rate_ceiling(net, bp.AbsoluteError(), rows(), y) == np.inf

    def test_that_do_not_converge(self, monkeypatch):
        import scipy.sparse.linalg as linalg

        def gives_up(*_, **__):
            raise linalg.ArpackNoConvergence("no", np.zeros(1), np.zeros((1, 1)))

        monkeypatch.setattr(linalg, "eigsh", gives_up)
        net, *data = problem("LeastSquares", 2)
        with pytest.raises(RuntimeError, match="expected 2 eigenvalues to converge, got 1"):
            bp.hessian_eigenvalues(net, *data, 2)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_descent_falls_below_the_ceiling_and_diverges_above(self, momentum):
        X, y = rows(), np.random.default_rng(0).normal(size=N)
        net = random_phi(bp.Sequential(bp.Linear(D, 1), dtype="float64"))
        ceiling = bp.learning_rate_ceiling(net, bp.LeastSquares(), X, y, momentum=momentum)
        best = np.linalg.lstsq(np.column_stack([np.ones(N), X]), y, rcond=None)[1].item() / N

        def excess(share):
            trainer = bp.Trainer(
                net.copy(), bp.LeastSquares(), bp.SGD(share * ceiling, momentum=momentum), batch_size="full"
            )
            losses = [trainer.step(X, y) - best for _ in range(400)]
            return losses[-1] / losses[0]

        assert excess(0.98) < 1e-2
        assert excess(1.02) > 1e2


class Absolute(bp.Layer):
    """|h|, by a way that forgets what is imaginary."""

    def forward(self, h):
        self.sign = np.sign(h.real)
        return np.abs(h)

    def backward(self, dL_df):
        return self.sign * dL_df, {}


class ForgetsBackward(Scale):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, {name: np.real(gradient) for name, gradient in gradients.items()}


class Casts(Scale):
    def forward(self, h):
        f = np.empty(h.shape)
        f[...] = super().forward(h)
        return f


class Refuses(Scale):
    def forward(self, h):
        if h.dtype.kind == "c":
            raise TypeError("real numbers, please")
        return super().forward(h)


class Softens(bp.Layer):
    """√(h² + 1), complex-safe; no parameters."""

    def forward(self, h):
        self.h, self.f = h, np.sqrt(h * h + 1)
        return self.f

    def backward(self, dL_df):
        return self.h / self.f * dL_df, {}


class TwoPaths(bp.Composite):
    """g[h] ⊙ g[h] of a child, as somebody may write it."""

    def __init__(self, child):
        self.layers = {"child": child}

    def forward(self, h):
        self.f = self.layers["child"].forward(h)
        return self.f * self.f

    def backward(self, dL_df):
        return self.backward_child("child", 2 * self.f * dL_df)


class Masks(bp.Layer):
    """Dropout as a user writes it."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def forward(self, h):
        self.mask = self.generator.random(h.shape) < 0.5
        return self.mask * h

    def backward(self, dL_df):
        return self.mask * dL_df, {}


class Quartic(bp.Loss):
    def ell(self, f, y):
        self.d = f - y
        return (self.d**4).sum(axis=0)

    def dell_df(self):
        return 4 * self.d**3


class Forgetful(Quartic):
    def dell_df(self):
        return 4 * self.d.real**3


class Noise(bp.Layer):
    generator = np.random.default_rng(0)

    def forward(self, h):
        return h + self.generator.normal(size=h.shape)

    def backward(self, dL_df):
        return dL_df, {}


class TestOnesOwn:
    @pytest.mark.parametrize("kind", [Absolute, lambda: ForgetsBackward(4), lambda: Casts(4), lambda: Refuses(4)])
    def test_a_layer_that_loses_tangents_is_named(self, kind):
        net = random_phi(bp.Sequential(bp.Linear(D, 4), kind(), bp.Linear(4, 1)))
        with pytest.raises(ValueError, match=r"forward and backward of .* to take complex numbers") as caught:
            bp.hessian_product(net, bp.LeastSquares(), rows(), np.ones(N), np.ones(net.size))
        assert net[1].label in str(caught.value)

    @pytest.mark.parametrize("kind", [Softens, lambda: TwoPaths(bp.Linear(4, 4)), lambda: TwoPaths(Scale(4))])
    def test_a_layer_that_keeps_them_is_exact(self, kind):
        net = random_phi(bp.Sequential(bp.Linear(D, 4), kind(), bp.Linear(4, 1), dtype="float64"))
        data = net, bp.LeastSquares(), rows(), np.ones(N)
        v = direction(net)
        relative(bp.hessian_product(*data, v), difference(*data, v), 1e-8)
        single = random_phi(bp.Sequential(bp.Linear(D, 4), kind(), bp.Linear(4, 1)))
        relative(bp.hessian_product(single, *data[1:], v), bp.hessian_product(*data, v), 1e-4)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: [bp.Dropout(0.4), Scale(4)],
            lambda: [Masks(), bp.Dropout(0.2)],
            lambda: [TwoPaths(bp.Sequential(bp.Linear(4, 4), bp.Dropout(0.3), bp.Sin()))],
            lambda: [bp.Residual(Scale(4)), bp.FanOut(Softens(), Scale(4), join="sum"), bp.BatchNorm(4)],
        ],
        ids=["beside a mask", "a mask of its own", "around a mask", "in ours"],
    )
    def test_a_layer_in_company(self, make):
        net = random_phi(bp.Sequential(bp.Linear(D, 4), *make(), bp.Linear(4, 1), dtype="float64"))
        data, v = (net, bp.LeastSquares(), rows(), np.ones(N)), direction(net)
        curvature = bp.Curvature(*data, WEIGHTS)
        relative(curvature.hessian_product(v), difference(*data, v, WEIGHTS), 1e-7)
        relative(curvature.hessian_product(v), difference(*data, v, WEIGHTS), 1e-7)
        u = direction(net, 1)
        Gu, Gv = curvature.gauss_newton_product(u), curvature.gauss_newton_product(v)
        assert_allclose(u @ Gv, v @ Gu, rtol=1e-12)
        relative(curvature.gradient(), gradient(*data, WEIGHTS), 1e-13)
        phi = random_phi(net, 3).phi
        relative(curvature.at(phi).hessian_product(v), difference(*data, v, WEIGHTS), 1e-7)

    def test_a_loss(self):
        net = mlp(2)
        data = net, Quartic(), rows(), np.ones((N, 2))
        v = direction(net)
        relative(bp.hessian_product(*data, v), difference(*data, v), 1e-8)
        for product in (bp.gauss_newton_product, lambda *given: bp.fisher_product(*given, empirical=True)):
            G = np.array([product(*data, column) for column in np.eye(net.size)])
            relative(G, G.T, 1e-13)
            eigenvalues = np.linalg.eigvalsh(G)
            assert eigenvalues[0] > -1e-13 * eigenvalues[-1]
        g = per_example_gradients(*data)
        empirical = bp.fisher_product(*data, v, empirical=True)
        relative(empirical, (g @ v) @ g / N, 1e-12)
        with pytest.raises(ValueError, match=r"ell and dell_df of Forgetful\(\) to take complex numbers"):
            bp.hessian_product(net, Forgetful(), *data[2:], v)

    def test_a_forward_pass_that_cannot_be_repeated(self):
        net = bp.Sequential(bp.Linear(D, 4), Noise(), bp.Linear(4, 1))
        with pytest.raises(RuntimeError, match="the same outputs twice, got two different ones"):
            bp.hessian_product(net, bp.LeastSquares(), rows(), np.ones(N), np.ones(net.size))


class KinkAtZero(bp.Layer):
    """ReLU as a user writes it."""

    def forward(self, h):
        self.on = h.real > 0
        return self.on * h

    def backward(self, dL_df):
        return self.on * dL_df, {}


class TestKinks:
    """Where entries stand exactly at a kink, the side is that of the slope, and the same for every v."""

    @pytest.mark.parametrize("make", [Scale, bp.LayerNorm, bp.BatchNorm], ids=["own", "LayerNorm", "BatchNorm"])
    def test_in_front_of_it_a_layer_that_gives_zeros(self, make):
        net = bp.Sequential(bp.Linear(3, 4), make(4), bp.ReLU(), bp.Linear(4, 2), seed=0, dtype="float64")
        for name, parameter in net.parameters.items():
            if name.startswith("1."):
                parameter[...] = 0
        y = np.random.default_rng(0).normal(size=(5, 2))
        curvature = bp.Curvature(net, bp.LeastSquares(), np.random.default_rng(1).normal(size=(5, 3)), y)
        v = np.random.default_rng(2).normal(size=net.size)
        H = matrix(curvature.hessian_product, net.size)
        assert_allclose(H, H.T, atol=1e-13)
        assert_allclose(curvature.hessian_product(v), H @ v, atol=1e-12)
        assert_allclose(curvature.hessian_product(-v), -H @ v, atol=1e-12)

    @pytest.mark.parametrize("make", [KinkAtZero, lambda: bp.Elementwise(lambda v: v.relu())])
    def test_data_with_many_zeros(self, make):
        X = np.maximum(np.random.default_rng(0).normal(size=(8, 3)), 0)
        y, v = np.random.default_rng(1).normal(size=(8, 2)), np.ones(8)
        nets = [bp.Sequential(layer, bp.Linear(3, 2), seed=0, dtype="float64") for layer in (make(), bp.ReLU())]
        own, ours = (bp.hessian_product(net, bp.LeastSquares(), X, y, v) for net in nets)
        assert_allclose(own, ours, atol=1e-13)


class TestBadInput:
    P = 21
    VECTORS = (
        ("a wrong length", np.ones(3), ValueError, r"v with shape \(21,\), that of φ, got shape \(3,\)"),
        ("a matrix", np.ones((21, 1)), ValueError, r"got shape \(21, 1\)"),
        ("complex", np.ones(21) * 1j, TypeError, "real numbers, got complex"),
        ("NaN", np.where(np.arange(21) == 4, np.nan, 1), ValueError, "finite values in v, got nan at 4"),
        ("inf", np.full(21, np.inf), ValueError, "got inf at 0"),
        ("text", np.array(["a"] * 21), TypeError, "dtype"),
        ("nothing", None, TypeError, "an array of numbers, got None"),
    )

    @pytest.mark.parametrize("method", ["hessian_product", "gauss_newton_product", "fisher_product"])
    @pytest.mark.parametrize(("v", "kind", "says"), [row[1:] for row in VECTORS], ids=[row[0] for row in VECTORS])
    def test_a_vector(self, method, v, kind, says):
        net = bp.Sequential(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, 1))
        with pytest.raises(kind, match=says) as caught:
            getattr(bp, method)(net, bp.LeastSquares(), rows(), np.ones(N), v)
        assert f"Curvature.{method}" in str(caught.value)

    def test_parameters_to_move_to(self):
        net, *data = problem("LeastSquares", 1)
        with pytest.raises(ValueError, match=r"Curvature\.at: expected phi with shape"):
            bp.Curvature(net, *data).at(np.ones(2))

    @pytest.mark.parametrize(("k", "kind"), [(0, ValueError), (10**6, ValueError), (1.5, TypeError), (True, TypeError)])
    def test_a_number_of_eigenvalues(self, k, kind):
        net, *data = problem("LeastSquares", 1)
        with pytest.raises(kind, match="hessian_eigenvalues"):
            bp.hessian_eigenvalues(net, *data, k)

    @pytest.mark.parametrize("hidden", [2, 20])
    def test_a_hessian_that_overflows(self, hidden):
        net = bp.Sequential(bp.Linear(D, hidden), bp.Exp(), bp.Linear(hidden, 1), dtype="float64")
        net.phi[...] = 1e3
        with (
            np.errstate(all="ignore"),
            pytest.raises(ValueError, match="expected finite second derivatives, got inf or NaN"),
        ):
            bp.learning_rate_ceiling(net, bp.LeastSquares(), rows(), np.ones(N))

    @pytest.mark.parametrize("momentum", [-0.1, 1.0])
    def test_a_momentum(self, momentum):
        net, *data = problem("LeastSquares", 1)
        with pytest.raises(ValueError, match="learning_rate_ceiling: expected momentum ≥ 0 and momentum < 1"):
            bp.learning_rate_ceiling(net, *data, momentum=momentum)

    def test_data_that_does_not_fit_is_refused_in_the_callers_name(self):
        net, loss, X, y = problem("LeastSquares", 1)
        for call in (bp.hessian_eigenvalues, bp.learning_rate_ceiling, bp.Curvature):
            with pytest.raises(ValueError, match=f"^{call.__name__}: expected X"):
                call(net, loss, X.T, y)
        with pytest.raises(ValueError, match="sample_weight"):
            bp.Curvature(net, loss, X, y, -WEIGHTS)
        with pytest.raises(ValueError, match="dtype 'float32' or 'float64'"):
            bp.Curvature(net, loss, X, y, dtype="float16")
        with pytest.raises(TypeError, match="empirical True or False"):
            bp.fisher_product(net, loss, X, y, np.ones(net.size), empirical=1)

    def test_a_network_without_parameters(self):
        with pytest.raises(ValueError, match="a network with parameters, got none"):
            bp.Curvature(bp.Sequential(bp.Tanh()), bp.LeastSquares(), rows(), rows())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [2, 4, 9])
def test_repeated_eigenvalues_are_found_as_often_as_they_occur(seed, k):
    """Each of the K outputs of a linear layer has the same H: every eigenvalue occurs K times."""
    rng = np.random.default_rng(seed)
    D, K, n = (int(v) for v in rng.integers(4, 9, 3))
    hidden = [bp.Linear(D, D), bp.Tanh()] if seed % 2 else []
    net = bp.Sequential(*hidden, bp.Linear(D, K), seed=seed, dtype="float64")
    X, Y = rng.normal(size=(4 * n, D)), rng.normal(size=(4 * n, K))
    curvature = bp.Curvature(net, bp.LeastSquares(), X, Y)
    H = np.array([curvature.hessian_product(v) for v in np.eye(net.size)])
    dense = np.linalg.eigvalsh((H + H.T) / 2)[::-1]
    found = bp.hessian_eigenvalues(net, bp.LeastSquares(), X, Y, k=k)
    assert_allclose(found, dense[:k], atol=1e-7 * dense[0])


class MinusSquares(bp.Loss):
    def ell(self, f, y):
        self.f = f
        return -(f * f).sum(axis=0)

    def dell_df(self):
        return -2 * self.f


def test_the_eigenvalue_0_of_a_negative_h_is_found():
    rng = np.random.default_rng(0)
    X = np.zeros((5, 50))
    X[:, :20] = rng.normal(size=(5, 20))
    X = np.r_[X, np.eye(50)[:20]]
    net = bp.Sequential(bp.Linear(50, 1, bias=False), seed=0, dtype="float64")
    assert_allclose(bp.hessian_eigenvalues(net, MinusSquares(), X, np.zeros(25), k=3), 0, atol=1e-10)


def test_eigenvalues_of_a_tiny_h_are_as_exact_as_of_any():
    X = 1e-10 * np.random.default_rng(0).normal(size=(80, 60))
    net = bp.Sequential(bp.Linear(60, 1, bias=False), seed=0, dtype="float64")
    found = bp.hessian_eigenvalues(net, bp.LeastSquares(), X, np.zeros(80), k=10)
    assert_allclose(found, np.linalg.eigvalsh(2 * X.T @ X / 80)[::-1][:10], rtol=1e-8)
