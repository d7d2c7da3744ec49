"""Second-order training: the objective is the function whose gradient it gives, its minimum is reached, and it ends cleanly."""

from __future__ import annotations

import os
import re
import signal
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
from numpy.testing import assert_allclose, assert_array_equal
from tables import complex_step
from test_bad_input import assert_refused

import backprop as bp
from backprop.engine.step import Batch

N, D = 30, 4
GRADIENT = ["L-BFGS-B", "BFGS", "CG", "TNC"]
PRODUCTS = ["Newton-CG", "trust-ncg", "trust-krylov"]
METHODS = GRADIENT + PRODUCTS


def data(K=2, n=N):
    generator = np.random.default_rng(K)
    X = generator.standard_normal((n, D))
    return X, np.sin(X[:, :K]) + 0.1 * generator.standard_normal((n, K)) if K <= D else generator.random((n, K))


def smooth(K=2, dtype="float64", *hidden):
    return bp.Sequential(bp.Linear(D, 5), *hidden, bp.Tanh(), bp.Linear(5, K), seed=1, dtype=dtype)


def affine(K=2, dtype="float64"):
    return bp.Sequential(bp.Linear(D, K), seed=1, dtype=dtype)


def minimize(net, loss, X, y, **settings):
    return bp.minimize(net, loss, X, y, **{"verbose": 0} | settings)


def ridge(X, Y, w, decay):
    """Minimum of Σ w |Ω x + β − y|² / Σ w + ½ Σ λ φ² by the normal equations; φ as (β, Ω), λ (P,) with the same layout."""
    K = Y.shape[1]
    beta, omega = decay[:K], decay[K:].reshape(K, -1)
    H = np.c_[np.ones(len(X)), X]
    solved = [
        np.linalg.solve(2 * (H.T * w) @ H / w.sum() + np.diag([beta[k], *omega[k]]), 2 * (H.T * w) @ Y[:, k] / w.sum())
        for k in range(K)
    ]
    return np.concatenate([[s[0] for s in solved], *[s[1:] for s in solved]])


@pytest.fixture
def handed_to_scipy(monkeypatch):
    """What `minimize` hands to SciPy, which here does nothing with it but remember."""
    seen = {}

    def remember(fun, x0, **settings):
        seen.update(settings, fun=fun, x0=x0)
        return scipy.optimize.OptimizeResult(message="nothing done")

    monkeypatch.setattr(scipy.optimize, "minimize", remember)
    return seen


def chalk_objective(K, w, reduction, decay, X, y):
    """J of `smooth` written out, for real or complex φ."""

    def objective(phi):
        beta0, omega0 = phi[:5], phi[5 : 5 + 5 * D].reshape(5, D)
        beta1, omega1 = phi[5 + 5 * D :][:K], phi[5 + 5 * D + K :].reshape(K, 5)
        f = beta1[:, None] + omega1 @ np.tanh(beta0[:, None] + omega0 @ X.T)
        ell = ((f - y.T) ** 2).sum(axis=0)
        total = (w * ell).sum() / (w.sum() if reduction == "mean" else 1)
        return total + (decay * phi * phi).sum() / 2

    return objective


class TestObjective:
    @pytest.mark.parametrize("decay", ["0", "number", "array"])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    @pytest.mark.parametrize("K", [1, 2, 5])
    def test_value_gradient_and_products_belong_together(self, K, weighted, reduction, decay, handed_to_scipy):
        X, y = data(K)
        net, generator = smooth(K), np.random.default_rng(0)
        w = generator.integers(0, 4, N).astype(float) if weighted else np.ones(N)
        decay = {"0": 0.0, "number": 0.3, "array": generator.random(net.size)}[decay]
        settings = {"sample_weight": w if weighted else None, "weight_decay": decay, "method": "trust-ncg"}
        minimize(net, bp.LeastSquares(reduction=reduction), X, y, **settings)
        oracle = chalk_objective(K, w, reduction, decay, X, y)

        assert_array_equal(handed_to_scipy["x0"], net.phi)
        phi = net.phi + 0.1 * generator.standard_normal(net.size)
        value, gradient = handed_to_scipy["fun"](phi)
        assert_allclose(value, oracle(phi).real, rtol=1e-13)
        exact = complex_step(oracle, phi)
        assert_allclose(gradient, exact, rtol=0, atol=1e-13 * np.abs(exact).max())

        v = generator.standard_normal(net.size)
        product = handed_to_scipy["hessp"](phi, v)
        step = 1e-5  # the error of the difference is of the order of its square
        ahead, behind = (complex_step(oracle, phi + side * step * v) for side in (1, -1))
        assert_allclose(product, (ahead - behind) / (2 * step), rtol=0, atol=1e-7 * np.abs(product).max())

    @pytest.mark.parametrize(
        ("loss", "y"),
        [(bp.CrossEntropy(), [0, 1, 2] * 10), (bp.Huber(0.5), None), (bp.Poisson(), [[1, 0, 4]] * 30)],
        ids=["CrossEntropy", "Huber", "Poisson"],
    )
    def test_of_any_loss(self, loss, y, handed_to_scipy):
        X = data()[0]
        y = np.array(y) if y is not None else data(3)[1]
        net = smooth(3)
        minimize(net, loss, X, y, weight_decay=0.1)
        value, gradient = handed_to_scipy["fun"](net.phi)
        L = loss.forward(net.forward(X.T), y if y.ndim == 1 else y.T)
        g = net.backward(loss.backward())[1].dL_dphi
        assert_allclose(value, L + 0.05 * net.phi @ net.phi, rtol=1e-13)
        assert_allclose(gradient, g + 0.1 * net.phi, rtol=0, atol=1e-13)

    def test_of_many_shards_is_that_of_one(self, handed_to_scipy):
        generator = np.random.default_rng(0)
        X, y = generator.standard_normal((600, 300)), generator.standard_normal((600, 2))
        net = bp.Sequential(bp.Linear(300, 600), bp.ReLU(), bp.Linear(600, 2), seed=0, dtype="float64")
        found = []
        for threads in (1, 2):
            minimize(net, bp.LeastSquares(), X, y, threads=threads)
            found.append(handed_to_scipy["fun"](net.phi))
        loss = bp.LeastSquares()
        assert_allclose(found[0][0], loss.forward(net.forward(X.T), y.T), rtol=1e-12)
        assert_allclose(found[0][1], net.backward(loss.backward())[1].dL_dphi, rtol=0, atol=1e-12)
        assert_array_equal(found[0][1], found[1][1])  # shards promise the same bits whatever the threads


class TestMinimum:
    @pytest.mark.parametrize("method", METHODS)
    def test_of_least_squares_is_that_of_the_normal_equations(self, method):
        X, y = data()
        w = np.random.default_rng(5).random(N)
        net = affine()
        history = minimize(
            net, bp.LeastSquares(), X, y, method=method, sample_weight=w, weight_decay=0.1, tolerance=1e-9
        )
        assert_allclose(net.phi, ridge(X, y, w, np.full(net.size, 0.1)), rtol=0, atol=1e-8)
        assert history[-1].metrics["gradient_norm"] < 1e-7
        assert history.stopped

    @pytest.mark.parametrize("method", ["L-BFGS-B", "Newton-CG"])
    def test_penalizes_only_the_weights_that_it_is_told_to(self, method):
        X, y = data()
        net = affine()
        decay = np.zeros(net.size)
        net.views(decay)["0.omega"][...] = 2.0
        minimize(net, bp.LeastSquares(), X, y + 5, method=method, weight_decay=decay, tolerance=1e-9)
        assert_allclose(net.phi, ridge(X, y + 5, np.ones(N), decay), rtol=0, atol=1e-8)
        assert np.abs(net.parameters["0.beta"]).min() > 4

    def test_is_the_same_by_all_methods(self):
        X, y = data()
        labels = (y[:, 0] > 0).astype(int)
        found = []
        for method in METHODS:
            net = affine()
            minimize(net, bp.CrossEntropy(), X, labels, method=method, weight_decay=0.01, tolerance=1e-8)
            found.append(net.phi)
        assert_allclose(found, [found[0]] * len(found), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("method", ["L-BFGS-B", "trust-ncg"])
    def test_weight_0_is_absent_and_2_is_twice(self, method):
        X, y = data()
        w = np.arange(N) % 3
        found = []
        for rows, weights in ((np.arange(N), w), (np.repeat(np.arange(N), w), None)):
            net = affine()
            minimize(net, bp.LeastSquares(), X[rows], y[rows], method=method, sample_weight=weights, tolerance=1e-9)
            found.append(net.phi)
        assert_allclose(found[0], found[1], rtol=0, atol=1e-8)

    @pytest.mark.parametrize("method", METHODS)
    def test_never_climbs(self, method):
        X, y = data()
        net = smooth()
        history = minimize(net, bp.LeastSquares(), X, y, method=method, weight_decay=1e-3, iterations=25)
        J = history["objective"]
        assert all(after <= before for before, after in pairwise(J))
        assert J[-1] < 0.3 * J[0]

    def test_bits_are_the_same_again(self):
        X, y = data()
        nets = [smooth(), smooth()]
        for net in nets:
            minimize(net, bp.LeastSquares(), X, y, iterations=30)
        assert_array_equal(nets[0].phi, nets[1].phi)

    def test_goes_on_from_where_it_stopped(self):
        X, y = data()
        net = smooth()
        first = minimize(net, bp.LeastSquares(), X, y, iterations=5)
        second = minimize(net, bp.LeastSquares(), X, y, iterations=1)
        assert second[0].loss < first[-1].loss

    @pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")  # unscaled inputs are how it overflows
    @pytest.mark.parametrize("method", METHODS)
    def test_finds_back_from_where_the_loss_overflows(self, method):
        generator = np.random.default_rng(0)
        X = 200 * generator.standard_normal((40, 3))
        net = bp.Sequential(bp.Linear(3, 1), bp.Exp(), dtype="float64")
        net.phi[...] = 0.001
        history = minimize(net, bp.LeastSquares(), X, np.exp(X[:, 0] / 200), method=method)
        assert history[-1].loss < 1e-8
        assert np.isfinite(net.phi).all()

    def test_of_a_network_without_parameters(self):
        X, y = data(2)
        history = minimize(bp.Sequential(bp.Identity()), bp.LeastSquares(), X[:, :2], y)
        assert len(history) == 0
        assert history.stopped == "converged"

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("loss", [bp.AbsoluteError(), bp.Pinball()], ids=repr)
    def test_a_standstill_is_no_success(self, method, loss):
        """At a kink there is nowhere to go, and ∂J/∂φ is not 0."""
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
        net = bp.Sequential(bp.Linear(2, 1), seed=0, dtype="float64")
        history = minimize(net, loss, X, y, method=method)
        assert not re.search("success|converge", history.stopped, re.IGNORECASE)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("seed", range(10))
    def test_one_parameter(self, method, seed):
        X, y = np.random.default_rng(seed).normal(size=(2, 30))
        net = bp.Sequential(bp.Linear(1, 1, bias=False), seed=0, dtype="float64")
        assert minimize(net, bp.LeastSquares(), X[:, None], y, method=method).stopped == "converged"
        assert_allclose(net.phi, [X @ y / (X @ X)], rtol=1e-6)


class TestNetwork:
    def test_of_float32_gets_the_minimum_in_its_own_type(self):
        X, y = data()
        double, single = affine(), affine(dtype="float32")
        single.phi[...] = double.phi
        for net in (double, single):
            minimize(net, bp.LeastSquares(), X, y, tolerance=1e-9)
        assert single.phi.dtype == np.float32
        assert_allclose(single.phi, double.phi, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("method", ["L-BFGS-B", "Newton-CG"])
    def test_with_batch_norm_predicts_what_was_minimized(self, method):
        X, y = data()
        net = smooth(2, "float64", bp.BatchNorm(5))
        history = minimize(net, bp.LeastSquares(), X, y, method=method, iterations=12)
        assert history[-1].loss < history[0].loss
        assert_allclose(((net.predict(X) - y) ** 2).sum(axis=1).mean(), history[-1].loss, rtol=1e-12)
        h = X @ net.parameters["0.omega"].T + net.parameters["0.beta"]
        assert_allclose(net.buffers["1.running_mean"], h.mean(axis=0), rtol=0, atol=1e-13)
        assert_allclose(net.buffers["1.running_variance"], h.var(axis=0), rtol=1e-12)
        assert type(net[1]) is bp.BatchNorm

    def test_with_residual_fan_out_and_a_layer_of_ones_own(self):
        class Double(bp.Layer):
            def forward(self, h):
                return 2 * h

            def backward(self, dL_df):
                return 2 * dL_df, {}

        X, y = data()
        inside = bp.FanOut(bp.Linear(D, 2), bp.Sequential(bp.Linear(D, 2), bp.SiLU()))
        net = bp.Sequential(bp.Residual(inside), Double(), bp.LayerNorm(D), bp.Linear(D, 2), seed=0, checkpoint=2)
        history = minimize(net, bp.LeastSquares(), X, y, iterations=20)
        assert history[-1].loss < 0.5 * history[0].loss

    @pytest.mark.parametrize("inside", [False, True])
    def test_with_dropout_is_refused(self, inside):
        layer = bp.Residual(bp.Dropout(0.25)) if inside else bp.Dropout(0.25)
        net = smooth(2, "float64", layer)
        refused(net, ValueError, "without random layers", "Dropout(0.25)")

    @pytest.mark.parametrize("method", ["L-BFGS-B", "Newton-CG"])
    def test_with_hidden_randomness_is_refused(self, method):
        class Noise(bp.Layer):
            keeps_width = True
            generator = np.random.default_rng(0)

            def forward(self, h):
                return h + self.generator.standard_normal(h.shape)

            def backward(self, dL_df):
                return dL_df, {}

        refused(
            smooth(2, "float64", Noise()), ValueError, "without random layers", "two different losses", method=method
        )


class Watcher(bp.Callback):
    """Keeps what it was shown, and does something in one iteration."""

    def __init__(self, at=10**9, action=lambda: None):
        self.at, self.action = at, action
        self.seen, self.weights = [], []

    def start(self, trainer):
        self.seen.append("start")

    def epoch(self, trainer, record):
        self.seen.append(record.epoch)
        self.weights.append(trainer.net.phi.copy())
        return self.action() if record.epoch == self.at else None

    def end(self, trainer):
        self.seen.append("end")


class TestHistory:
    def test_has_a_record_for_each_iteration(self):
        X, y = data()
        labels = (y > 0).argmax(axis=1)
        net = smooth()
        start = net.phi.copy()
        g = gradient_at(net, bp.CrossEntropy(), X, labels) + 0.1 * start
        watcher = Watcher()

        def worst(f, targets):
            return float(np.abs(f).max())

        history = minimize(
            *(net, bp.CrossEntropy(), X, labels),
            iterations=6,
            weight_decay=0.1,
            metrics=["accuracy", worst],
            validation_data=(X[:10], labels[:10]),
            callbacks=[watcher],
        )
        assert history["epoch"] == [1, 2, 3, 4, 5, 6]
        assert watcher.seen == ["start", 1, 2, 3, 4, 5, 6, "end"]
        assert history.stopped == ""
        assert list(history[0].metrics) == ["objective", "gradient_norm", "accuracy", "worst"]
        assert list(history[0].validation) == ["loss", "accuracy", "worst"]
        assert all(epoch.seconds > 0 and epoch.examples_per_second > 0 for epoch in history)
        assert_array_equal(net.phi, watcher.weights[-1])
        for record, phi in zip(history, watcher.weights, strict=True):
            net.phi[...] = phi
            L = bp.CrossEntropy().forward(net.forward(X.T), labels)
            assert_allclose(record.loss, L, rtol=1e-12)
            assert_allclose(record.metrics["objective"], L + 0.05 * phi @ phi, rtol=1e-12)
            full = gradient_at(net, bp.CrossEntropy(), X, labels) + 0.1 * phi
            assert_allclose(record.metrics["gradient_norm"], np.linalg.norm(full), rtol=1e-10)
            assert_allclose(record.learning_rate, np.linalg.norm(phi - start) / np.linalg.norm(g), rtol=1e-10)
            assert_allclose(record.metrics["accuracy"], (net.predict(X).argmax(axis=1) == labels).mean())
            start, g = phi, full

    def test_says_that_it_converged(self):
        history = minimize(affine(), bp.LeastSquares(), *data(), tolerance=1e-3)
        assert history.stopped == "converged"
        assert history[-2].metrics["gradient_norm"] > 1e-3 > history[-1].metrics["gradient_norm"] / 4

    def test_is_empty_at_a_minimum(self):
        X, y = data()
        net = affine()
        minimize(net, bp.LeastSquares(), X, y, tolerance=1e-8)
        phi = net.phi.copy()
        assert len(minimize(net, bp.LeastSquares(), X, y, tolerance=1e-7)) == 0
        assert_array_equal(net.phi, phi)

    @pytest.mark.parametrize("method", METHODS)
    def test_says_what_scipy_says_where_rounding_ends_the_search(self, method):
        history = minimize(affine(), bp.LeastSquares(), *data(), method=method, tolerance=0, iterations=1000)
        assert history.stopped
        first, last = (record.metrics["gradient_norm"] for record in (history[0], history[-1]))
        assert last < 0.01 * first  # where CG's line search gives up is SciPy's affair, and depends on the kernels

    def test_of_scipys_own_limits(self):
        history = minimize(smooth(), bp.LeastSquares(), *data(), options={"maxiter": 3})
        assert len(history) == 3
        assert "LIMIT" in history.stopped

    def test_options_reach_scipy(self, handed_to_scipy):
        minimize(smooth(), bp.LeastSquares(), *data(), options={"maxcor": 3, "gtol": 0.5})
        assert handed_to_scipy["options"]["maxcor"] == 3
        assert handed_to_scipy["options"]["gtol"] == 0.5

    @pytest.mark.parametrize("verbose", [0, 1, 2])
    def test_draws_a_bar_only_if_asked(self, verbose, capsys):
        minimize(smooth(), bp.LeastSquares(), *data(), iterations=4, verbose=verbose)
        err = capsys.readouterr().err
        assert ("4.00/4.00" in err) == (verbose == 1)
        assert ("iteration 4: loss " in err) == (verbose == 2)


def gradient_at(net, loss, X, y):
    loss.forward(net.forward(X.T), y)
    return net.backward(loss.backward())[1].dL_dphi


class TestStopping:
    @pytest.mark.parametrize("method", METHODS)
    def test_by_a_callback(self, method):
        watcher, net = Watcher(3, lambda: True), smooth()
        history = minimize(net, bp.LeastSquares(), *data(), method=method, callbacks=[watcher])
        assert history.stopped == "Watcher"
        assert history[-1].epoch == 3
        assert watcher.seen[-1] == "end"
        assert_array_equal(net.phi, watcher.weights[-1])

    def test_early_restores_the_best_weights(self):
        X, y = data(n=60)
        net, watcher = smooth(dtype="float32"), Watcher()
        patience = bp.EarlyStopping(patience=4)
        history = minimize(
            *(net, bp.LeastSquares(), X[:12], y[:12]),
            validation_data=(X[12:], y[12:]),
            callbacks=[patience, watcher],
        )
        losses = [record.validation["loss"] for record in history]
        best = int(np.argmin(losses))
        assert history.stopped == "EarlyStopping"
        assert patience.best_epoch == history[best].epoch < history[-1].epoch
        assert_array_equal(net.phi, watcher.weights[best])

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("how", ["raised", "signalled"])
    def test_by_ctrl_c_keeps_the_last_iterate(self, how, method):
        def interrupt():
            if how == "raised":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        watcher, net = Watcher(2, interrupt), smooth()
        history = minimize(net, bp.LeastSquares(), *data(), method=method, callbacks=[watcher])
        assert history.stopped == "Ctrl-C"
        assert history[-1].epoch == 2
        assert watcher.seen[-1] == "end"
        assert_array_equal(net.phi, watcher.weights[-1])
        assert signal.getsignal(signal.SIGINT) is before

    def test_by_ctrl_c_in_the_last_iteration(self):
        watcher = Watcher(2, lambda: os.kill(os.getpid(), signal.SIGINT))
        history = minimize(smooth(), bp.LeastSquares(), *data(), iterations=2, callbacks=[watcher])
        assert history.stopped == "Ctrl-C"

    @pytest.mark.parametrize("method", METHODS)
    def test_by_an_error_of_a_callback(self, method):
        def fail():
            raise LookupError("of my own")

        watcher, net = Watcher(2, fail), smooth()
        with pytest.raises(LookupError, match="of my own"):
            minimize(net, bp.LeastSquares(), *data(), method=method, callbacks=[watcher])
        assert_array_equal(net.phi, watcher.weights[-1])


class TestNotFinite:
    @pytest.mark.parametrize("method", METHODS)
    def test_start_is_named_and_left_alone(self, method):
        net = bp.Sequential(bp.Linear(D, 1), bp.Exp(), seed=0, dtype="float64")
        X, y = data(1)
        net.phi[...] = 400
        assert_fails(net, X, y, "iteration 1", "layer 1, Exp()", "The weights are unchanged.", method=method)

    @pytest.mark.parametrize("method", METHODS)
    def test_gradient_at_the_start_is_named(self, method):
        class Broken(bp.Layer):
            keeps_width = True

            def forward(self, h):
                return h * 1.0

            def backward(self, dL_df):
                return dL_df * np.nan, {}

        net = smooth(2, "float64", Broken())
        assert_fails(net, *data(), "the gradient of 0.beta", "The weights are unchanged.", method=method)

    def test_no_way_back_leaves_the_last_iterate(self):
        class Cliff(bp.Layer):
            """The identity a few times; then NaN."""

            keeps_width = True
            asked = 0

            def forward(self, h):
                Cliff.asked += 1
                return h * (1.0 if Cliff.asked <= 6 else np.nan)

            def backward(self, dL_df):
                return dL_df, {}

        net, watcher = smooth(2, "float64", Cliff()), Watcher()
        X, y = data()
        with pytest.raises(FloatingPointError, match="those after iteration"):
            minimize(net, bp.LeastSquares(), X, y, callbacks=[watcher])
        assert len(watcher.weights) > 1
        assert_array_equal(net.phi, watcher.weights[-1])

    def test_phi_too_large_for_its_type(self):
        X, y = np.array([[1e-9]]), np.array([1e30])
        net = bp.Sequential(bp.Linear(1, 1, bias=False), dtype="float32")
        phi = net.phi.copy()
        with pytest.raises(FloatingPointError, match="φ as float32"):
            minimize(net, bp.LeastSquares(), X, y, method="Newton-CG")
        assert_array_equal(net.phi, phi)


class TestProducts:
    def test_of_a_layer_that_takes_no_complex_numbers_are_refused(self):
        class Absolute(bp.Layer):
            keeps_width = True

            def forward(self, h):
                self.h = h
                return np.abs(h)

            def backward(self, dL_df):
                return dL_df * np.sign(self.h), {}

        refused(smooth(2, "float64", Absolute()), ValueError, "complex numbers", method="trust-ncg")
        assert len(minimize(smooth(2, "float64", Absolute()), bp.LeastSquares(), *data(), iterations=3)) == 3

    @pytest.mark.parametrize("method", METHODS)
    def test_and_gradients_are_what_is_counted(self, method, monkeypatch):
        passes = []
        monkeypatch.setenv("BACKPROP_NATIVE", "0")
        for kind, name in ((Batch, "run"), (bp.Curvature, "hessian_product")):
            plain = getattr(kind, name)
            monkeypatch.setattr(kind, name, lambda *a, plain=plain, name=name: passes.append(name) or plain(*a))
        history = minimize(smooth(), bp.LeastSquares(), *data(), method=method, iterations=4)
        counted = sum(epoch.examples_per_second * epoch.seconds / N for epoch in history)
        assert_allclose(counted, len(passes), rtol=1e-9)
        assert ("hessian_product" in passes) == (method in PRODUCTS)


def assert_fails(net, X, y, *parts, **settings):
    phi = net.phi.copy()
    assert_refused(lambda: minimize(net, bp.LeastSquares(), X, y, **settings), FloatingPointError, *parts)
    assert_array_equal(net.phi, phi)


def refused(net, error, *parts, loss=None, X=None, y=None, **settings):
    """The call is refused in four parts and has changed neither the network nor the data."""
    own_X, own_y = data()
    X, y = own_X if X is None else X, own_y if y is None else y
    phi = getattr(net, "phi", np.zeros(0)).copy()
    assert_refused(lambda: minimize(net, loss or bp.LeastSquares(), X, y, **settings), error, *parts)
    assert_array_equal(getattr(net, "phi", phi), phi)


BAD = {
    "unknown method": ({"method": "adam"}, ValueError, METHODS),
    "a method without gradients": ({"method": "Nelder-Mead"}, ValueError, METHODS),
    "a method that forms the Hessian": ({"method": "trust-exact"}, ValueError, METHODS),
    "a method for constraints": ({"method": "SLSQP"}, ValueError, METHODS),
    "a method of one's own": ({"method": len}, TypeError, ["method"]),
    "iterations 0": ({"iterations": 0}, ValueError, ["iterations"]),
    "iterations 2.5": ({"iterations": 2.5}, TypeError, ["iterations"]),
    "tolerance": ({"tolerance": -1e-3}, ValueError, ["tolerance"]),
    "tolerance NaN": ({"tolerance": np.nan}, ValueError, ["tolerance"]),
    "threads 0": ({"threads": 0}, ValueError, ["threads"]),
    "threads many": ({"threads": "many"}, ValueError, ["threads", "auto"]),
    "verbose": ({"verbose": "no"}, TypeError, ["verbose"]),
    "negative decay": ({"weight_decay": -0.1}, ValueError, ["weight_decay"]),
    "decay of the wrong size": ({"weight_decay": np.ones(3)}, ValueError, ["weight_decay", "(37,)", "(3,)"]),
    "negative decay of one": ({"weight_decay": -np.eye(37)[5]}, ValueError, ["weight_decay"]),
    "decay NaN": ({"weight_decay": np.full(37, np.nan)}, ValueError, ["weight_decay"]),
    "decay of text": ({"weight_decay": "0.1"}, TypeError, ["weight_decay"]),
    "unknown metric": ({"metrics": ["accuracy"]}, ValueError, ["metric", "r2"]),
    "one metric as text": ({"metrics": "r2"}, TypeError, ["metrics as a list"]),
    "a callback class": ({"callbacks": [bp.EarlyStopping]}, TypeError, ["EarlyStopping(…)"]),
    "validation data": ({"validation_data": np.ones((3, D))}, TypeError, ["validation_data"]),
    "validation of another width": ({"validation_data": (np.ones((3, 2)), np.ones((3, 2)))}, ValueError, ["X"]),
    "unknown option": ({"options": {"maxiters": 3}}, ValueError, ["maxiters", "options"]),
    "options as a list": ({"options": [3]}, TypeError, ["options as a dict"]),
    "X with NaN": ({"X": np.full((N, D), np.nan)}, ValueError, ["finite values in X"]),
    "X transposed": ({"X": np.ones((D, N))}, ValueError, ["X.T"]),
    "y of another length": ({"y": np.ones((N - 1, 2))}, ValueError, ["y with shape"]),
    "weights of another length": ({"sample_weight": np.ones(3)}, ValueError, ["sample_weight"]),
    "a loss class": ({"loss": bp.LeastSquares}, TypeError, ["LeastSquares(…)"]),
    "no network": ({"net": bp.Linear(D, 2)}, TypeError, ["net: a Sequential"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_changes_nothing(name):
    settings, error, parts = BAD[name]
    settings = dict(settings)
    refused(settings.pop("net", smooth()), error, "minimize", *parts, **settings)


def test_data_of_the_caller_is_not_changed():
    X, y = data()
    kept, w = (X.copy(), y.copy()), np.ones(N)
    for array in (X, y, w):
        array.flags.writeable = False
    minimize(smooth(), bp.LeastSquares(), X, y, sample_weight=w, method="trust-ncg", iterations=3)
    assert_array_equal(X, kept[0])
    assert_array_equal(y, kept[1])
