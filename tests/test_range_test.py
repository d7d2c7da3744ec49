"""The learning-rate range test: what it finds on losses whose stable rates are known, and that it changes nothing."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_bad_input import assert_refused

import backprop as bp
from backprop.training.range_test import LearningRateReport

N, D = 300, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D)) * [1, 0.5, 0.3, 0.2, 0.1]
Y = 2 + X @ np.ones(D) + 0.5 * RNG.standard_normal(N)


def linear(seed=0):
    return bp.Sequential(bp.Linear(D, 1), seed=seed, dtype="float64")


def range_test(net=None, X=X, Y=Y, **settings):
    return bp.learning_rate_range_test(net or linear(), bp.LeastSquares(), X, Y, **settings)


class TestQuadratics:
    @pytest.mark.parametrize("scale", [0.1, 1, 10])
    @pytest.mark.parametrize("momentum", [0, 0.9])
    def test_the_ceiling_lies_between_the_lowest_loss_and_divergence(self, scale, momentum):
        net = linear()
        ceiling = bp.learning_rate_ceiling(net, bp.LeastSquares(), scale * X, Y, momentum=momentum)
        report = range_test(net, scale * X, optimizer=bp.SGD(1, momentum=momentum), low=1e-7, high=1e4, steps=200)
        assert report.learning_rate < ceiling < report.diverged
        assert ceiling / 30 < report.lowest
        assert report.diverged < 5 * ceiling

    def test_a_slow_sweep_of_all_examples_diverges_at_the_ceiling(self):
        net = linear()
        ceiling = bp.learning_rate_ceiling(net, bp.LeastSquares(), X, Y)
        report = range_test(net, batch_size=N, low=ceiling / 20, high=ceiling * 20, steps=3000)
        assert 0.95 * ceiling < report.diverged < 1.5 * ceiling

    def test_the_steps_are_those_of_descent(self):
        """One parameter, L = (ω x)² with x = 1: each step multiplies ω by 1 − 2α."""
        net = bp.Sequential(bp.Linear(1, 1, bias=False), seed=0, dtype="float64")
        report = range_test(net, np.ones((4, 1)), np.zeros(4), low=0.001, high=0.4, steps=20)
        omega = float(net.phi[0]) * np.cumprod([1, *(1 - 2 * report.rates[:-1])])
        assert_allclose(report.losses, omega**2, rtol=1e-12)
        assert_allclose(report.rates, 0.001 * 400 ** (np.arange(20) / 19), rtol=1e-12)
        assert report.diverged == math.inf

    def test_the_suggestion_trains(self):
        X, y = bp.load_digits()
        X = X / 16
        for rule in (lambda rate: bp.SGD(rate), lambda rate: bp.SGD(rate, momentum=0.9), lambda rate: bp.Adam(rate)):
            net = bp.Sequential(bp.Linear(64, 32), bp.ReLU(), bp.Linear(32, 10), seed=0)
            report = bp.learning_rate_range_test(net, bp.CrossEntropy(), X, y, optimizer=rule(0.1))
            trainer = bp.Trainer(net, bp.CrossEntropy(), rule(report.learning_rate))
            trainer.fit(X, y, epochs=3, verbose=0)
            assert trainer.evaluate(X, y)["accuracy"] > 0.93

    def test_the_same_seed_gives_the_same_report(self):
        a, b, c = (range_test(seed=seed) for seed in (1, 1, 2))
        assert_array_equal(a.losses, b.losses)
        assert not np.array_equal(a.losses[:10], c.losses[:10])


class TestLeavesEverythingAsItWas:
    @pytest.mark.parametrize("used", [False, True])
    def test_network_optimizer_and_loss(self, used):
        net = bp.Sequential(bp.Linear(D, 4), bp.BatchNorm(4), bp.ReLU(), bp.Dropout(0.2), bp.Linear(4, 1), seed=0)
        optimizer, loss = bp.Adam(bp.CosineDecay(0.1, steps=9)), bp.LeastSquares()
        if used:
            bp.Trainer(net, loss, optimizer).fit(X, Y, epochs=1, verbose=0)
        f = net.forward(X.T)
        before = copy.deepcopy((net.phi, net.buffers, optimizer.t, optimizer.state, net.backward(f)[0], X, Y))
        schedule = optimizer.schedule
        bp.learning_rate_range_test(net, loss, X, Y, optimizer=optimizer)
        after = net.phi, net.buffers, optimizer.t, optimizer.state, net.backward(f)[0], X, Y
        for a, b in zip(before, after, strict=True):
            for key in a if isinstance(a, dict) else [...]:
                assert_array_equal(a[key] if isinstance(a, dict) else a, b[key] if isinstance(b, dict) else b)
        assert optimizer.schedule is schedule


class Script(bp.Loss):
    """A loss that takes these values, step after step, whatever the network does."""

    def __init__(self, values):
        super().__init__()
        self.values = iter(values)

    def __deepcopy__(self, memo):
        return self

    def ell(self, f, y):
        self.f = f
        return (f * 0).sum(axis=0) + next(self.values)

    def dell_df(self):
        return np.zeros_like(self.f)


def scripted(values, **settings):
    values = list(values)
    return bp.learning_rate_range_test(linear(), Script(values), X, Y, steps=len(values), **settings)


VALLEY = [*([2.0] * 40), *np.linspace(2, 1, 40), *np.linspace(1.1, 9, 20)]


class TestCurves:
    def test_a_valley(self):
        report = scripted(VALLEY)
        rates = np.geomspace(1e-6, 10, 100)
        assert rates[75] < report.lowest < rates[83]
        assert report.learning_rate == report.lowest / 3
        assert report.diverged == rates[np.flatnonzero(np.array(VALLEY) > 3)[0] + 1]  # the median of three
        assert len(report.rates) == len(report.losses) == len(report.smoothed) < 100

    @pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
    def test_a_loss_that_is_not_finite_ends_it(self, bad):
        report = scripted([*VALLEY[:80], bad, *VALLEY[81:]])
        assert report.diverged == np.geomspace(1e-6, 10, 100)[80]
        assert_array_equal(report.losses, VALLEY[:80])
        assert np.isfinite(report.smoothed).all()

    def test_not_finite_at_the_start(self):
        with pytest.raises(FloatingPointError):
            scripted([math.nan] * 20)

    def test_one_odd_batch_is_no_divergence(self):
        report = scripted([*VALLEY[:50], 100.0, *VALLEY[51:]])
        assert report.diverged > np.geomspace(1e-6, 10, 100)[80]

    def test_losses_below_zero(self):
        a, b = scripted(VALLEY), scripted([value - 50 for value in VALLEY])
        assert a.lowest == b.lowest
        assert a.diverged == b.diverged

    def test_smoothing_lags_on_neither_side(self):
        values = 3 + np.abs(np.arange(100) - 50) / 100
        report = scripted(values)
        assert np.argmin(report.smoothed) == 50
        assert_allclose(report.smoothed[10:40], values[10:40], rtol=1e-12)
        assert_allclose(scripted([2.0] * 40).smoothed, 2, rtol=1e-12)


DOUBTS = {
    "only rose": (np.linspace(1, 1.5, 60), "lower rate (low)"),
    "still falling": (np.linspace(2, 1, 60), "higher rate (high)"),
    "noise": (2 + RNG.standard_normal(60), "larger batch_size"),
}


class TestReport:
    def test_text(self):
        text = str(scripted(VALLEY))
        first, second, *table = text.splitlines()
        report = scripted(VALLEY)
        assert first == f"Suggested learning rate: {report.learning_rate:.2g}"
        assert f"{report.lowest:.2g}" in second
        assert f"diverged at {report.diverged:.2g}" in second
        assert table[0].split() == ["rate", "loss"]
        assert [float(line.split()[0]) for line in table[1:]] == pytest.approx([10.0**k for k in range(-6, 1)], rel=0.2)

    @pytest.mark.parametrize("case", DOUBTS)
    def test_doubts(self, case):
        values, words = DOUBTS[case]
        assert words in str(scripted(values))
        assert not any(words in str(scripted(VALLEY)) for _, words in DOUBTS.values())

    @pytest.mark.parametrize(
        "values", [VALLEY, [2.0] * 20, [2.0, *[math.nan] * 19]], ids=["valley", "flat", "one step"]
    )
    def test_plot(self, values):
        report = scripted(values)
        ax = report.plot()
        assert ax.get_xscale() == "log"
        assert f"{report.learning_rate:.2g}" in ax.get_title()
        raw, smoothed, suggested = ax.lines[:3]
        assert_array_equal(raw.get_ydata(), report.losses)
        assert_array_equal(smoothed.get_ydata(), report.smoothed)
        assert suggested.get_xdata() == report.learning_rate
        assert report.plot(ax) is ax
        ax.figure.savefig(io.BytesIO())

    def test_is_frozen(self):
        with pytest.raises(AttributeError):
            LearningRateReport(np.ones(1), np.ones(1), np.ones(1), 1.0).diverged = 2.0


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"net": bp.ReLU()}, TypeError, "net"),
        ({"optimizer": 0.1}, TypeError, "optimizer"),
        ({"low": 0}, ValueError, "low"),
        ({"low": 10}, ValueError, "high"),
        ({"high": math.nan}, ValueError, "high"),
        ({"steps": 9}, ValueError, "steps"),
        ({"steps": 10.0}, TypeError, "steps"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"X": X[:, :2]}, ValueError, "X"),
        ({"Y": Y[:3]}, ValueError, "y"),
    ],
    ids=str,
)
def test_bad_settings(settings, error, name):
    assert_refused(lambda: range_test(**settings), error, "learning_rate_range_test", name)


def test_fewer_examples_than_a_batch():
    report = range_test(X=X[:5], Y=Y[:5])
    assert np.isfinite(report.learning_rate)
