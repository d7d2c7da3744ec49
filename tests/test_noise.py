"""The noise scale against its definition and where it is known; the suggestion against its own formula."""

from __future__ import annotations

import math
import signal
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tables import OPTIMIZERS, Scale, spread
from test_bad_input import assert_refused

import backprop as bp
from backprop.gradients import per_example

N, D = 40, 4


def classifier(dtype="float64", *layers):
    return bp.Sequential(bp.Linear(D, 6), bp.Tanh(), *layers, bp.Linear(6, 3), seed=0, dtype=dtype)


def labelled(n=N):
    return spread((n, D)), np.arange(n) % 3


def constant(phi):
    """f = φ whatever x, in as many outputs as φ has entries: with least squares, ∂ℓ/∂φ = 2 (φ − y)."""
    net = bp.Sequential(bp.Linear(1, len(phi)), dtype="float64")
    net[0].parameters["omega"][...] = 0
    net[0].parameters["beta"][...] = phi
    return net


def noise_of(phi, y):
    return bp.gradient_noise_scale(constant(phi), bp.LeastSquares(), np.zeros((len(y), 1)), y)


class TestNoiseScale:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("layers", [(), (bp.LayerNorm(6),), (Scale(6),)], ids=["plain", "LayerNorm", "own"])
    def test_is_its_formula(self, dtype, reduction, layers):
        net = classifier(dtype, *(layer.copy() for layer in layers))
        (X, y), loss = labelled(), bp.CrossEntropy(reduction=reduction)
        G = bp.per_example_gradients(net, loss, X, y).astype(float)
        trace = G.var(axis=0, ddof=1).sum()
        squared_norm = (G.mean(axis=0) ** 2).sum() - trace / N
        noise = bp.gradient_noise_scale(net, loss, X, y)
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        assert_allclose(noise.trace, trace, rtol=tolerance)
        assert_allclose(noise.squared_norm, squared_norm, rtol=tolerance, atol=tolerance)
        assert noise.scale == float(noise) == noise.trace / noise.squared_norm
        assert noise.examples == N
        assert all(type(value) is float for value in (noise.scale, noise.trace, noise.squared_norm))

    @pytest.mark.parametrize("n", [2, 3, 4])
    def test_both_estimates_are_unbiased(self, n):
        population, phi = np.array([[0.0, 3.0], [1.0, -1.0], [4.0, 0.5]]), np.array([0.5, 2.0])
        gradients = 2 * (phi - population)
        trace, G = gradients.var(axis=0).sum(), gradients.mean(axis=0)
        every = [noise_of(phi, population[list(rows)]) for rows in product(range(3), repeat=n)]
        assert_allclose(np.mean([noise.trace for noise in every]), trace, rtol=1e-13)
        assert_allclose(np.mean([noise.squared_norm for noise in every]), G @ G, rtol=1e-13)

    def test_of_a_known_distribution(self):
        rng, sigma, phi = np.random.default_rng(0), np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
        noise = noise_of(phi, rng.normal(size=(100_000, 3)) * sigma)
        assert_allclose(noise.trace, 4 * (sigma**2).sum(), rtol=0.02)
        assert_allclose(noise.squared_norm, 4 * phi @ phi, rtol=0.02)
        assert_allclose(noise.scale, (sigma**2).sum() / (phi @ phi), rtol=0.04)

    def test_at_a_minimum_it_is_infinite(self):
        y = np.array([[1.0], [2.0], [3.0]])
        noise = noise_of(np.array([2.0]), y.squeeze(1))
        assert noise.scale == math.inf
        assert_allclose((noise.trace, noise.squared_norm), (4.0, -4 / 3), rtol=1e-13)

    def test_equal_examples_have_none(self):
        noise = noise_of(np.array([2.0]), np.zeros(5))
        assert_allclose((noise.scale, noise.trace, noise.squared_norm), (0, 0, 16), rtol=0, atol=1e-12)

    def test_no_gradient_at_all(self):
        assert noise_of(np.array([2.0]), np.full(5, 2.0)).scale == math.inf

    def test_blocks_make_no_difference(self, monkeypatch):
        net, (X, y) = classifier(), labelled()
        whole = bp.gradient_noise_scale(net, bp.CrossEntropy(), X, y)
        monkeypatch.setattr(per_example, "rows_per_block", lambda _: 7)
        blocks = bp.gradient_noise_scale(net, bp.CrossEntropy(), X, y)
        assert_allclose(blocks.scale, whole.scale, rtol=1e-11)

    def test_is_frozen(self):
        noise = bp.NoiseScale(1.0, 2.0, 2.0, 3)
        with pytest.raises(AttributeError):
            noise.scale = 2.0

    @pytest.mark.parametrize(
        ("call", "error", "parts"),
        [
            (lambda f: f(classifier(), bp.CrossEntropy(), *labelled(1)), ValueError, ["at least 2 examples", "1"]),
            (
                lambda f: f(classifier("float64", bp.BatchNorm(6)), bp.CrossEntropy(), *labelled()),
                ValueError,
                ["BatchNorm(6 → 6)", "net.frozen()"],
            ),
            (lambda f: f(bp.Tanh, bp.CrossEntropy(), *labelled()), TypeError, ["Tanh(…)"]),
            (lambda f: f(classifier(), "mse", *labelled()), TypeError, ["'mse'"]),
        ],
        ids=["one example", "BatchNorm", "a class", "no loss"],
    )
    @pytest.mark.parametrize("function", [bp.gradient_noise_scale, bp.suggest_batch_size])
    def test_bad_input(self, function, call, error, parts):
        assert_refused(lambda: call(function), error, function.__name__, *parts)


def suggest(net=None, **options):
    X, y = labelled()
    return bp.suggest_batch_size(net or classifier("float32"), bp.CrossEntropy(), X, y, **{"seconds": 0.02} | options)


class TestSuggestion:
    def test_rows_are_their_formula(self):
        report = suggest()
        sizes = np.array([row.batch_size for row in report.rows])
        assert_array_equal(sizes, [1, 2, 4, 8, 16, 32])
        assert_allclose(
            report.noise.scale, bp.gradient_noise_scale(classifier(), bp.CrossEntropy(), *labelled()).scale, rtol=1e-3
        )
        steps = 1 + report.noise.scale / sizes
        assert_allclose([row.relative_steps for row in report.rows], steps / steps[-1], rtol=1e-12)
        times = steps * sizes / [row.examples_per_second for row in report.rows]
        assert_allclose([row.relative_time for row in report.rows], times / times.min(), rtol=1e-12)
        assert report.batch_size == sizes[times.argmin()]

    def test_without_a_gradient_the_fastest_examples_win(self):
        X = np.zeros((6, 1))
        report = bp.suggest_batch_size(
            constant(np.array([2.5])), bp.LeastSquares(), X, np.arange(6.0), batch_sizes=(1, 6), seconds=0.01
        )
        assert report.noise.scale == math.inf
        assert [row.relative_steps for row in report.rows] == [6, 1]
        assert report.batch_size == max(report.rows, key=lambda row: row.examples_per_second).batch_size
        assert "inf" in str(report)

    def test_candidates(self):
        assert [row.batch_size for row in suggest(batch_sizes=[30, 3, 30]).rows] == [3, 30]
        assert [row.batch_size for row in suggest(batch_sizes=N).rows] == [N]

    @pytest.mark.parametrize("name", ["SGD momentum", "Adam", "AdamW decay"])
    def test_nothing_of_the_callers_changes(self, name):
        kind, settings = OPTIMIZERS[name]
        net, optimizer = classifier("float32", bp.Dropout(0.2, seed=1)), kind(**settings)
        twin = net.copy()
        bp.Trainer(net, bp.CrossEntropy(), optimizer).step(*labelled())
        phi, state = net.phi.copy(), {key: array.copy() for key, array in optimizer.state.items()}
        suggest(net, optimizer=optimizer, batch_sizes=[1, 8])
        assert_array_equal(net.phi, phi)
        assert optimizer.t == 1
        assert optimizer.learning_rate == settings["learning_rate"]
        for key, array in optimizer.state.items():
            assert_array_equal(array, state[key])
        h = labelled()[0].T
        assert_array_equal(net[2].forward(h[:1].repeat(6, axis=0)), twin[2].forward(h[:1].repeat(6, axis=0)))

    def test_reads_as_a_table(self):
        text = str(suggest())
        assert text.startswith("Suggested batch size: ")
        assert text.count("← least time") == 1
        lines = text.splitlines()
        assert len(lines) == 3 + 6 + 2
        assert max(map(len, lines)) <= 110

    def test_draws(self, tmp_path):
        report = suggest()
        ax = report.plot()
        ax.figure.savefig(tmp_path / "batch.png")
        assert (tmp_path / "batch.png").stat().st_size > 5000
        assert ax.get_legend_handles_labels()[1][:2] == ["steps", "time"]
        for line, column in zip(ax.lines, ("relative_steps", "relative_time"), strict=False):
            assert_array_equal(line.get_ydata(), [getattr(row, column) for row in report.rows])
        assert report.plot(ax) is ax

    def test_ctrl_c_ends_it(self, monkeypatch):
        net = classifier("float32")
        phi, calls, step = net.phi.copy(), [], bp.Trainer.epochs

        def epochs(self, *arguments, **options):
            calls.append(arguments)
            if len(calls) == 4:
                signal.raise_signal(signal.SIGINT)
            return step(self, *arguments, **options)

        monkeypatch.setattr(bp.Trainer, "epochs", epochs)
        with pytest.raises(KeyboardInterrupt):
            suggest(net)
        assert_array_equal(net.phi, phi)

    @pytest.mark.parametrize(
        ("options", "error", "parts"),
        [
            ({"batch_sizes": [N + 1]}, ValueError, ["batch_sizes from 1 to 40", "got 41"]),
            ({"batch_sizes": []}, ValueError, ["batch_sizes", "none"]),
            ({"batch_sizes": [0]}, ValueError, ["batch_sizes ≥ 1", "0"]),
            ({"batch_sizes": [2.5]}, TypeError, ["batch_sizes", "2.5"]),
            ({"batch_sizes": "all"}, TypeError, ["batch_sizes", "'all'"]),
            ({"seconds": 0}, ValueError, ["seconds > 0"]),
            ({"optimizer": bp.SGD}, TypeError, ["optimizer: a Optimizer", "SGD(…)"]),
            ({"optimizer": 0.1}, TypeError, ["optimizer", "0.1"]),
            ({"net": bp.Linear(D, 3)}, TypeError, ["net: a Sequential"]),
        ],
        ids=str,
    )
    def test_bad_options(self, options, error, parts):
        assert_refused(lambda: suggest(**options), error, "suggest_batch_size", *parts)
