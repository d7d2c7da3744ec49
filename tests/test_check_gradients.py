"""The checker is itself checked: it passes what is right, and planted faults of every kind make it fail."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tables import LAYERS, LOSSES, LossRow, network
from test_bad_input import ROWS, assert_refused

import backprop as bp

D, K, N = 4, 3, 5


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (N, D)), rng.integers(0, K, N)


def rows_of(loss: LossRow, outputs: int):
    """Targets in rows for this many targets per example."""
    y = loss.target(np.random.default_rng(2), outputs, N).T
    return y.ravel() if y.size == N else y


def between(*layers, dtype="float64"):
    """A network with these layers in the middle."""
    return bp.Sequential(bp.Linear(D, 4), *layers, bp.Linear(4, K), seed=0, dtype=dtype)


class TestPasses:
    @pytest.mark.parametrize("name", LAYERS)
    def test_every_layer(self, name):
        X, _ = data()
        net = network(name, D)
        y = np.random.default_rng(1).normal(size=net.predict(X).shape)
        report = bp.check_gradients(net, bp.LeastSquares(), X, y)
        assert report.passed, str(report)
        assert report.method == "complex step"
        assert report.worst.error < 1e-12
        assert [entry.name for entry in report.entries] == [*net.parameters, "X"]
        assert report.counts == tuple((p.size, p.size) for p in [*net.parameters.values(), X])

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_every_loss(self, name, reduction, weighted):
        row, (X, _) = LOSSES[name], data()
        outputs = 1 if name == "BinaryCrossEntropy of probabilities" else 2
        w = np.array([0.0, 1.0, 2.0, 0.5, 3.0]) if weighted else None
        net = bp.Sequential(bp.Linear(D, 3), bp.Tanh(), bp.Linear(3, outputs * row.outputs), seed=1)
        report = bp.check_gradients(net, row.make(reduction=reduction), X, rows_of(row, outputs), w)
        assert report.passed, str(report)
        assert report.method == "complex step"

    def test_a_layer_that_is_no_network(self):
        X, y = data()
        report = bp.check_gradients(bp.Linear(D, K, seed=0), bp.CrossEntropy(), X, y)
        assert report.passed
        assert [entry.name for entry in report.entries] == ["0.beta", "0.omega", "X"]

    def test_a_float32_network_is_checked_in_float64(self):
        X, y = data()
        report = bp.check_gradients(between(bp.GELU(), dtype="float32"), bp.CrossEntropy(), X.astype("f"), y)
        assert report.worst.error < 1e-12

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_gradients_of_any_size(self, scale):
        X, _ = data()
        net = bp.Sequential(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, 2), seed=0)
        y = scale * np.random.default_rng(0).normal(size=(N, 2))
        assert bp.check_gradients(net, bp.LeastSquares(), X, y).passed

    def test_a_bias_before_batchnorm_has_a_gradient_of_zero(self):
        X, y = data()
        report = bp.check_gradients(between(bp.BatchNorm(4), bp.Tanh()), bp.CrossEntropy(), X, y)
        assert report.passed, str(report)

    def test_a_report_is_true_when_it_passed(self):
        X, y = data()
        assert bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y)
        assert not bp.check_gradients(between(Twice()), bp.CrossEntropy(), X, y)


class Twice(bp.Tanh):
    """Its gradient is twice what it should be."""

    factor = 2.0

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh * self.factor, gradients


class ABillionthTooLarge(Twice):
    factor = 1 + 1e-9


class WrongSign(Twice):
    factor = -1.0


class SlopeForgotten(bp.Tanh):
    def backward(self, dL_df):
        return dL_df.copy(), {}


class SlopeAtH(bp.Sigmoid):
    """σ' = f (1 − f) taken at h instead of f."""

    def forward(self, h):
        self.h = h
        return super().forward(h)

    def backward(self, dL_df):
        return dL_df * self.h * (1 - self.h), {}


class StaleCache(bp.Tanh):
    """Remembers the first batch for ever."""

    def forward(self, h):
        f = super().forward(h)
        self.first = getattr(self, "first", f * 0.5)
        return f

    def backward(self, dL_df):
        return dL_df * (1 - self.first**2), {}


class NotANumber(bp.Tanh):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        dL_dh[0, 0] = np.nan
        return dL_dh, gradients


class OneEntryWrong(bp.Linear):
    """∂L/∂Ω is wrong in the one entry (2, 1)."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        gradients["omega"][2, 1] *= 1.001
        return dL_dh, gradients


class Affine(bp.Layer):
    """A linear layer as a beginner writes it; the subclasses each make one of the usual mistakes."""

    def __init__(self):
        self.parameters["beta"] = np.ones(4)
        self.parameters["omega"] = np.random.default_rng(5).normal(size=(4, 4))

    def forward(self, h):
        self.h = h
        return self.parameters["beta"][:, None] + self.parameters["omega"] @ h

    def dL_dbeta(self, dL_df):
        return dL_df.sum(axis=1)

    def dL_domega(self, dL_df):
        return dL_df @ self.h.T

    def dL_dh(self, dL_df):
        return self.parameters["omega"].T @ dL_df

    def backward(self, dL_df):
        return self.dL_dh(dL_df), {"beta": self.dL_dbeta(dL_df), "omega": self.dL_domega(dL_df)}


class BetaOfOneExample(Affine):
    def dL_dbeta(self, dL_df):
        return dL_df[:, 0]


class BetaAveraged(Affine):
    def dL_dbeta(self, dL_df):
        return dL_df.mean(axis=1)


class BetaSummedOverFeatures(Affine):
    def dL_dbeta(self, dL_df):
        return np.resize(dL_df.sum(axis=0), 4)


class OmegaTransposed(Affine):
    def dL_domega(self, dL_df):
        return self.h @ dL_df.T


class OmegaNotTransposedOnTheWayBack(Affine):
    def dL_dh(self, dL_df):
        return self.parameters["omega"] @ dL_df


class MissingBranch(bp.FanOut):
    """Forgets that h reaches the loss along every branch."""

    def backward(self, dL_df):
        start = self._rows[0]
        gradients = self.backward_child("1", dL_df[start:])[1]
        dL_dh, first = self.backward_child("0", dL_df[:start])
        return dL_dh, first | gradients


class NoShortcut(bp.Residual):
    """Forgets the 1 in ∂f/∂h = 1 + ∂g/∂h."""

    def backward(self, dL_df):
        return self.backward_child("layer", dL_df)


FAULTS = {
    "a factor of 2": (Twice, "0."),
    "a factor of 1 + 1e-9": (ABillionthTooLarge, "0."),
    "the wrong sign": (WrongSign, "0."),
    "the slope forgotten": (SlopeForgotten, "0."),
    "the slope at h": (SlopeAtH, "0."),
    "a stale cache": (StaleCache, "0."),
    "nan": (NotANumber, "0."),
    "one entry": (lambda: OneEntryWrong(4, 4), "1.omega"),
    "beta from one example": (BetaOfOneExample, "1.beta"),
    "beta averaged": (BetaAveraged, "1.beta"),
    "beta summed over features": (BetaSummedOverFeatures, "1.beta"),
    "omega transposed": (OmegaTransposed, "1.omega"),
    "omega not transposed": (OmegaNotTransposedOnTheWayBack, "0."),
    "a branch missing": (lambda: MissingBranch(bp.Linear(4, 2), bp.Linear(4, 2)), "0."),
    "no shortcut": (lambda: NoShortcut(bp.Sequential(bp.Linear(4, 4), bp.Tanh())), "0."),
}


class Squares(bp.Loss):
    """Least squares, right; the subclasses are not."""

    def ell(self, f, y):
        self.d = f - y
        return (self.d**2).sum(axis=0)

    def dell_df(self):
        return 2 * self.d


class HalfForgotten(Squares):
    def dell_df(self):
        return self.d


class DividedByExamplesTwice(Squares):
    def dell_df(self):
        return 2 * self.d / self.d.shape[1]


class DividedByOutputs(Squares):
    def dell_df(self):
        return 2 * self.d / len(self.d)


class ValueDividedByOutputs(Squares):
    def ell(self, f, y):
        return super().ell(f, y) / len(f)


class SumForMean(Squares):
    def slope(self):
        return super().slope() * self.d.shape[1]


class WeightsForgotten(Squares):
    def slope(self):
        return 2 * self.d / self.d.shape[1]


WRONG_LOSSES = [HalfForgotten, DividedByExamplesTwice, DividedByOutputs, ValueDividedByOutputs, SumForMean]


class TestFails:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_planted_fault(self, fault):
        make, where = FAULTS[fault]
        X, y = data()
        report = bp.check_gradients(between(make()), bp.CrossEntropy(), X, y)
        assert not report.passed, str(report)
        assert report.worst.name.startswith(where) or report.worst.name == "X"
        assert report.worst.name in str(report).splitlines()[-1]

    def test_the_layers_the_faults_are_planted_in_are_right(self):
        X, y = data()
        assert bp.check_gradients(between(Affine()), bp.CrossEntropy(), X, y).passed
        y = np.random.default_rng(0).normal(size=(N, K))
        assert bp.check_gradients(between(bp.Tanh()), Squares(), X, y, np.arange(1.0, 6.0)).passed

    @pytest.mark.parametrize("loss", WRONG_LOSSES)
    def test_a_planted_fault_in_a_loss(self, loss):
        X, _ = data()
        y = np.random.default_rng(0).normal(size=(N, K))
        report = bp.check_gradients(between(bp.Tanh()), loss(), X, y)
        assert not report.passed, str(report)

    def test_forgotten_weights(self):
        X, _ = data()
        y = np.random.default_rng(0).normal(size=(N, K))
        net, w = between(bp.Tanh()), np.arange(1.0, 6.0)
        assert bp.check_gradients(net, WeightsForgotten(), X, y).passed
        assert not bp.check_gradients(net, WeightsForgotten(), X, y, w).passed

    def test_the_worst_entry_is_named(self):
        X, y = data()
        report = bp.check_gradients(between(OneEntryWrong(4, 4)), bp.CrossEntropy(), X, y)
        assert (report.worst.name, report.worst.index) == ("1.omega", (2, 1))
        assert math.isclose(report.worst.analytic, 1.001 * report.worst.numeric, rel_tol=1e-10)
        wrong = [entry.name for entry in report.entries if entry.error > report.tolerance]
        assert wrong == ["1.omega"]

    def test_a_fault_in_a_small_gradient_beside_large_ones(self):
        X, _ = data()
        net = bp.Sequential(bp.Linear(D, 4), OneEntryWrong(4, 4), bp.Linear(4, 1), seed=0, dtype="float64")
        net.parameters["2.omega"][...] *= 1e-5  # what comes after makes the gradient of layer 1 small
        report = bp.check_gradients(net, bp.LeastSquares(), X, np.full(N, 1e3))
        assert not report.passed, str(report)


class WithAbs(bp.Layer):
    """|h|, which abs() takes out of the complex numbers."""

    keeps_width = True
    factor = 1.0

    def forward(self, h):
        self.sign = np.sign(h.real)
        return np.abs(h)

    def backward(self, dL_df):
        return self.factor * self.sign * dL_df, {}


class RealOnly(bp.Layer):
    """Refuses complex numbers."""

    keeps_width = True
    factor = 1.0

    def forward(self, h):
        if np.iscomplexobj(h):
            raise TypeError("real numbers only")
        self.h = h
        return np.cbrt(h)

    def backward(self, dL_df):
        return self.factor * dL_df / (3 * np.cbrt(self.h) ** 2), {}


class Cast(bp.Layer):
    """Casts to float on the way."""

    keeps_width = True
    factor = 1.0

    def forward(self, h):
        self.h = np.asarray(h).astype(np.float64)
        return self.h**2

    def backward(self, dL_df):
        return self.factor * 2 * self.h * dL_df, {}


class TestCentralDifferences:
    @pytest.mark.parametrize("kind", [WithAbs, RealOnly, Cast])
    def test_where_a_layer_does_not_take_complex_numbers(self, kind):
        X, y = data()
        report = bp.check_gradients(between(kind()), bp.CrossEntropy(), X, y)
        assert report.method == "central difference"
        assert report.passed, str(report)
        assert "central difference" in str(report)

    @pytest.mark.parametrize("factor", [2.0, 1.0001, -1.0])
    @pytest.mark.parametrize("kind", [WithAbs, RealOnly, Cast])
    def test_they_find_faults(self, kind, factor):
        X, y = data()
        layer = kind()
        layer.factor = factor
        report = bp.check_gradients(between(layer), bp.CrossEntropy(), X, y)
        assert report.method == "central difference"
        assert not report.passed

    def test_a_loss_that_does_not_take_them(self):
        class Absolute(bp.Loss):
            def ell(self, f, y):
                self.sign = np.sign((f - y).real)
                return np.abs(f - y).sum(axis=0)

            def dell_df(self):
                return self.sign

        X, _ = data()
        report = bp.check_gradients(between(bp.Tanh()), Absolute(), X, np.full((N, K), 5.0))
        assert (report.method, report.passed) == ("central difference", True)


class TestRandomness:
    def test_dropout_is_frozen(self):
        X, y = data()
        report = bp.check_gradients(between(bp.Dropout(0.5)), bp.CrossEntropy(), X, y)
        assert report.passed

    def test_a_random_layer_that_cannot_be_repeated(self):
        class Noise(bp.Layer):
            keeps_width = True

            def forward(self, h):
                self.noise = np.random.default_rng().normal(size=h.shape)
                return h * self.noise

            def backward(self, dL_df):
                return dL_df * self.noise, {}

        X, y = data()
        with pytest.raises(RuntimeError, match=r"check_gradients: expected the same loss twice.*reseed"):
            bp.check_gradients(between(Noise()), bp.CrossEntropy(), X, y)


class TestNothingChanges:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_of_the_caller_s(self, dtype):
        X, y = data()
        X = X.astype(dtype)
        net = between(bp.BatchNorm(4), bp.Dropout(0.3), bp.Tanh(), dtype=dtype)
        loss = bp.CrossEntropy()
        f = net.forward(X.T)
        L = loss.forward(f, y)
        dL_df = loss.backward()
        dL_dh, gradients = net.backward(dL_df)
        before = [array.copy() for array in (X, y, net.phi, *net.buffers.values(), dL_dh, gradients.dL_dphi)]
        bp.check_gradients(net, loss, X, y)
        assert_array_equal(loss.backward(), dL_df)
        again, gradients = net.backward(dL_df)
        after = [X, y, net.phi, *net.buffers.values(), again, gradients.dL_dphi]
        for a, b in zip(after, before, strict=True):
            assert_array_equal(a, b)
        assert net.phi.dtype == dtype
        assert math.isfinite(L)

    def test_of_a_layer(self):
        X, y = data()
        layer = bp.Linear(D, K, seed=0)
        omega = layer.parameters["omega"]
        bp.check_gradients(layer, bp.CrossEntropy(), X, y)
        assert layer.parameters["omega"] is omega
        assert bp.Sequential(layer).size == layer.size  # it still belongs to no network


class TestSampling:
    def test_each_tensor_has_its_share(self):
        X, y = data()
        net = bp.Sequential(bp.Linear(D, 50), bp.Tanh(), bp.Linear(50, K), seed=0)
        report = bp.check_gradients(net, bp.CrossEntropy(), X, y, max_entries=60)
        assert report.passed
        assert [there for _, there in report.counts] == [50, 200, 3, 150, 20]
        assert sum(some for some, _ in report.counts) <= 60
        assert min(some for some, _ in report.counts) == 3  # the smallest tensor is checked whole
        assert "60 of 423 entries" in str(report)

    def test_the_seed_decides_which(self):
        X, y = data()
        net = bp.Sequential(bp.Linear(D, 50), bp.Tanh(), bp.Linear(50, K), seed=0)
        one, same, other = (
            bp.check_gradients(net, bp.CrossEntropy(), X, y, max_entries=60, seed=seed) for seed in (0, 0, 1)
        )
        assert one == same
        assert one != other

    def test_less_than_one_entry_each(self):
        X, y = data()
        report = bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y, max_entries=1)
        assert all(some == 1 for some, _ in report.counts)


class TestReport:
    def test_one_that_passed(self):
        X, y = data()
        text = str(bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y))
        title, _, *tensors = text.splitlines()
        assert title == "Gradient check passed: complex step, 55 of 55 entries, tolerance 1e-10"
        assert [line.split()[0] for line in tensors] == ["0.beta", "0.omega", "2.beta", "2.omega", "X"]
        assert "wrong" not in text

    def test_one_that_failed(self):
        X, y = data()
        report = bp.check_gradients(between(OneEntryWrong(4, 4)), bp.CrossEntropy(), X, y)
        text = str(report)
        assert text.startswith("Gradient check FAILED: complex step, 75 of 75 entries")
        assert [line.split()[0] for line in text.splitlines() if "← wrong" in line] == ["1.omega"]
        found = re.search(r"Worst entry 1\.omega\[2, 1\]: backward gives (\S+), the complex step (\S+)$", text)
        assert math.isclose(float(found[1]), report.worst.analytic, rel_tol=1e-10)
        assert math.isclose(float(found[2]), report.worst.numeric, rel_tol=1e-10)

    def test_nan_is_the_worst(self):
        X, y = data()
        report = bp.check_gradients(between(NotANumber()), bp.CrossEntropy(), X, y)
        assert math.isnan(report.worst.analytic)
        assert "← wrong" in str(report)


class TestBadInput:
    def check(self, *, net=None, loss=None, X=None, y=None, w=None, **settings):
        good_X, good_y = data()
        return bp.check_gradients(
            net or between(bp.Tanh()),
            bp.CrossEntropy() if loss is None else loss,
            good_X if X is None else X,
            good_y if y is None else y,
            w,
            **settings,
        )

    @pytest.mark.parametrize("bad", [bad for bad in ROWS if bad not in ("none", "beyond float32")])
    def test_inputs(self, bad):
        X, error, parts = ROWS[bad]
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        y = np.zeros(5, int)
        assert_refused(lambda: bp.check_gradients(net, bp.CrossEntropy(), X, y), error, "check_gradients", *parts)

    @pytest.mark.parametrize(
        ("settings", "error", "parts"),
        [
            ({"net": "net"}, TypeError, ["net: a Layer", "'net'"]),
            ({"net": bp.Linear}, TypeError, ["net: a Layer", "Linear"]),
            ({"loss": bp.CrossEntropy}, TypeError, ["loss: a Loss", "CrossEntropy"]),
            ({"loss": "mse"}, TypeError, ["loss: a Loss", "'mse'"]),
            ({"y": np.zeros(4, int)}, ValueError, ["(5,)", "(4,)"]),
            ({"y": [0, 1, 2, 3, 0]}, ValueError, ["0 … 2", "3 at row 3"]),
            ({"y": list("abcab")}, TypeError, ["Encode text"]),
            ({"w": np.ones(4)}, ValueError, ["sample_weight", "(5,)"]),
            ({"w": -np.ones(5)}, ValueError, ["sample_weight", "≥ 0"]),
            ({"max_entries": 0}, ValueError, ["max_entries ≥ 1"]),
            ({"max_entries": 2.5}, TypeError, ["max_entries"]),
            ({"max_entries": True}, TypeError, ["max_entries"]),
            ({"seed": "a"}, TypeError, ["check_gradients", "seed"]),
            ({"seed": -1}, ValueError, ["check_gradients", "seed"]),
        ],
        ids=str,
    )
    def test_others(self, settings, error, parts):
        if not isinstance(settings.get("net", None), type) and not isinstance(settings.get("loss"), type):
            assert_refused(lambda: self.check(**settings), error, *parts)
        else:
            with pytest.raises(error, match=parts[0]) as caught:
                self.check(**settings)
            assert f"Write {parts[1]}(…)." in str(caught.value)
