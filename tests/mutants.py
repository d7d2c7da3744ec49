"""Planted faults: gradients that are wrong in the ways people get them wrong, and what the checker must say of each.

Run it (`make mutants`) to see the table: every fault, whether it was caught, and the mistake that the report names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

import backprop as bp

D, K, N = 4, 3, 5


class Twice(bp.Tanh):
    """Its gradient is `factor` times what it should be."""

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


class SigmoidSlopeAtH(bp.Sigmoid):
    """σ' = f (1 − f), written with h."""

    def backward(self, dL_df):
        return dL_df * self.h * (1 - self.h), {}


class TanhSlopeAtH(bp.Tanh):
    """1 − f², written with h."""

    def backward(self, dL_df):
        return dL_df * (1 - self.h**2), {}


class SlopeAtTheOutput(bp.Softplus):
    """a'[a[h]] instead of a'[h]."""

    def backward(self, dL_df):
        return dL_df / (1 + np.exp(-self.f)), {}


class IndicatorInverted(bp.ReLU):
    def backward(self, dL_df):
        return dL_df * (self.f.real <= 0), {}


class TermForgotten(bp.Tanh):
    """The slope is 1 − f², here 1."""

    def backward(self, dL_df):
        return dL_df * (1 - 2 * self.f**2), {}


class StaleCache(bp.Tanh):
    """Remembers the first batch for ever."""

    def forward(self, h):
        f = super().forward(h)
        self.first = getattr(self, "first", f)
        return f

    def backward(self, dL_df):
        return dL_df * (1 - self.first**2), {}


class InferDisturbs(bp.Tanh):
    """Caches in `infer` what `backward` needs."""

    def infer(self, h):
        return self.forward(h)


class CacheUsedUp(bp.Tanh):
    """Multiplies its cache in place: right once, wrong the second time."""

    def backward(self, dL_df):
        self.f *= self.f
        return dL_df * (1 - self.f), {}


class MaskDrawnAgain(bp.Dropout):
    """Blocks other entries on the way back than on the way forth."""

    def backward(self, dL_df):
        self.forward(dL_df)
        return super().backward(dL_df)


class WritesOverItsInput(bp.Layer):
    """2 h, computed in the array of the layer before, which needs it for its own backward."""

    keeps_width = True

    def forward(self, h):
        h *= 2
        return h.copy()

    def backward(self, dL_df):
        return 2 * dL_df, {}


class NotANumber(bp.Tanh):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        dL_dh[0, 0] = np.nan
        return dL_dh, gradients


class LastExampleForgotten(bp.Tanh):
    """A loop that ends one example early."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        dL_dh[:, -1] = 0
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
        self.f = self.parameters["beta"][:, None] + self.parameters["omega"] @ h
        return self.f

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


class BetaSummedOverAll(Affine):
    def dL_dbeta(self, dL_df):
        return np.full(4, dL_df.sum())


class BetaForgotten(Affine):
    def dL_dbeta(self, dL_df):
        return np.zeros(4)


class OmegaTransposed(Affine):
    def dL_domega(self, dL_df):
        return self.h @ dL_df.T


class OmegaFromOutput(Affine):
    def dL_domega(self, dL_df):
        return dL_df @ self.f.T


class OmegaAveraged(Affine):
    def dL_domega(self, dL_df):
        return dL_df @ self.h.T / self.h.shape[1]


class OmegaDecayed(Affine):
    """Weight decay in the gradient that is not in the loss."""

    def dL_domega(self, dL_df):
        return dL_df @ self.h.T + 0.01 * self.parameters["omega"]


class OmegaNotTransposedOnTheWayBack(Affine):
    def dL_dh(self, dL_df):
        return self.parameters["omega"] @ dL_df


class MissingBranch(bp.FanOut):
    """Forgets that h reaches the loss along every branch."""

    def backward(self, dL_df):
        start = self.rows[0]
        gradients = self.backward_child("1", dL_df[start:])[1]
        dL_dh, first = self.backward_child("0", dL_df[:start])
        return dL_dh, first | gradients


class BranchTwice(bp.FanOut):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh + self.backward_child("1", dL_df[self.rows[0] :])[0], gradients


class NoShortcut(bp.Residual):
    """Forgets the 1 in ∂f/∂h = 1 + ∂g/∂h."""

    def backward(self, dL_df):
        return self.backward_child("layer", dL_df)


class ShortcutTwice(bp.Residual):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh + dL_df, gradients


class SumOfBranchesHalved(bp.FanOut):
    """Averages what it should add."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh / len(self.layers), gradients


class DropoutUnscaled(bp.Dropout):
    """Blocks the same entries on the way back, but leaves 1 / (1 − p) out."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh * 0.8, gradients


class LeakForgotten(bp.LeakyReLU):
    """Blocks where it should let a little through."""

    def backward(self, dL_df):
        return dL_df * (self.h.real > 0), {}


class SlopeOfAnApproximation(bp.GELU):
    """The slope of h σ(1.702 h), which is close to h Φ(h) and no more."""

    def backward(self, dL_df):
        sigma = 1 / (1 + np.exp(-1.702 * self.h))
        return dL_df * (sigma + 1.702 * self.h * sigma * (1 - sigma)), {}


class FirstFeatureForgotten(bp.Tanh):
    """A loop that begins at 1."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        dL_dh[0] = 0
        return dL_dh, gradients


class BetaOfTheLastExample(Affine):
    """Assigns in a loop where it should add."""

    def dL_dbeta(self, dL_df):
        return dL_df[:, -1]


class OmegaOfTheLastExample(Affine):
    def dL_domega(self, dL_df):
        return np.outer(dL_df[:, -1], self.h[:, -1])


class OmegaAccumulates(Affine):
    """Adds to the gradients of the calls before, as where `zero_grad` is forgotten."""

    total = 0.0

    def dL_domega(self, dL_df):
        self.total = self.total + dL_df @ self.h.T
        return self.total


class GammaTakesH(bp.LayerNorm):
    """∂L/∂γ with h where the normalised z belongs."""

    def forward(self, h):
        self.h = h
        return super().forward(h)

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, gradients | {"gamma": (dL_df * self.h).sum(axis=1)}


class MeanForgotten(bp.BatchNorm):
    """Leaves out what a change of h does through the mean."""

    def through(self, dL_dz):
        return (dL_dz - self.z * self.mean(self.z * dL_dz)) / self.sigma


class DeviationForgotten(bp.LayerNorm):
    """Leaves out what a change of h does through the standard deviation."""

    def through(self, dL_dz):
        return (dL_dz - self.mean(dL_dz)) / self.sigma


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
    def backward(self):
        return super().backward() * self.d.shape[1]


class WeightsForgotten(Squares):
    def backward(self):
        return 2 * self.d / self.d.shape[1]


class SlopeUnclipped(bp.Huber):
    """The slope of the parabola, also where the loss is a straight line."""

    def dell_df(self):
        return self.d.copy()


class SignOfTheDifference(Squares):
    """Of y − f where f − y is meant."""

    def dell_df(self):
        return -2 * self.d


class OldTargets(Squares):
    """Remembers the targets of the first batch for ever."""

    def ell(self, f, y):
        self.f, self.y = f, getattr(self, "y", y)
        return super().ell(f, y)

    def dell_df(self):
        return 2 * (self.f - self.y)


class TargetTwice(bp.CrossEntropy):
    """P − 2y."""

    def dell_df(self):
        return self.exp_z / self.normalizer - 2 * self.y


def between(*layers, dtype="float64"):
    """A network with these layers in the middle."""
    return bp.Sequential(bp.Linear(D, 4), *layers, bp.Linear(4, K), seed=0, dtype=dtype)


def data(seed=0):
    """A few examples and their labels."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (N, D)), rng.integers(0, K, N)


class TanhWithoutItsSquare(bp.Tanh):
    def backward(self, dL_df):
        return dL_df * (1 - self.f), {}


class SwishWithoutItsTail(bp.SiLU):
    """σ + h σ for σ + h σ (1 − σ)."""

    def backward(self, dL_df):
        s = 1 / (1 + np.exp(-self.h))
        return dL_df * (s + self.h * s), {}


class Disturbed(bp.Tanh):
    """Right but where `odd` says so, of h and ∂L/∂f: then twice what it should be."""

    def odd(self, dL_df):
        return False

    def backward(self, dL_df):
        dL_dh = (1 - self.f**2) * dL_df
        return 2 * dL_dh if self.odd(dL_df) else dL_dh, {}


class WrongForOne(Disturbed):
    def odd(self, dL_df):
        return dL_df.shape[1] == 1


class WrongForEven(Disturbed):
    def odd(self, dL_df):
        return dL_df.shape[1] % 2 == 0


class WrongForMany(Disturbed):
    def odd(self, dL_df):
        return dL_df.shape[1] > 8


class WrongForSquares(Disturbed):
    """Takes examples for features where there are as many."""

    def odd(self, dL_df):
        return dL_df.shape[0] == dL_df.shape[1]


class WrongInFortranOrder(Disturbed):
    def odd(self, dL_df):
        return dL_df.flags.f_contiguous and not dL_df.flags.c_contiguous


class WrongForInputsInCOrder(Disturbed):
    def odd(self, dL_df):
        return self.h.flags.c_contiguous and not self.h.flags.f_contiguous


class WrongInFloat32(Disturbed):
    def odd(self, dL_df):
        return dL_df.dtype == np.float32


class ALittleInFloat32(bp.Tanh):
    def backward(self, dL_df):
        return dL_df * (1 - self.f**2) * (1.1 if dL_df.dtype == np.float32 else 1), {}


class WrongFromTheTenthPassOn(Disturbed):
    passes = 0

    def odd(self, dL_df):
        self.passes += 1
        return self.passes > 10


class RememberedById(bp.Tanh):
    """A memo that takes an array for the one it was, whatever it holds by now."""

    seen = None, None

    def forward(self, h):
        self.seen = None, None
        return super().forward(h)

    def backward(self, dL_df):
        if self.seen[0] is not dL_df:
            self.seen = dL_df, dL_df * (1 - self.f**2)
        return self.seen[1].copy(), {}


class AnswersOnce(bp.Tanh):
    """Gives its first answer again until the next forward."""

    def forward(self, h):
        self.answer = None
        return super().forward(h)

    def backward(self, dL_df):
        self.answer = dL_df * (1 - self.f**2) if self.answer is None else self.answer
        return self.answer.copy(), {}


class WritesIntoItsArgument(bp.Tanh):
    def backward(self, dL_df):
        dL_df *= 1 - self.f**2
        return dL_df, {}


class WritesIntoItsInput(bp.Layer):
    """∂L/∂h of h², computed in the array of h when it is no longer needed here."""

    keeps_width = True

    def forward(self, h):
        self.h, self.slope = h, 2 * h
        return h * h

    def backward(self, dL_df):
        np.multiply(self.slope, dL_df, out=self.h)
        return self.h.copy(), {}


class SharedByAllObjects(bp.Tanh):
    """Keeps its output on the class."""

    kept: ClassVar[dict] = {}

    def forward(self, h):
        self.kept["f"] = np.tanh(h)
        return self.kept["f"].copy()

    def infer(self, h):
        return np.tanh(h)

    def backward(self, dL_df):
        return (1 - self.kept["f"] ** 2) * dL_df, {}


class MatrixOfTheFirstPass(Affine):
    """Multiplies by the transpose of the matrix that it had in its first pass."""

    transposed = None

    def forward(self, h):
        self.h = h
        self.transposed = self.omega.T.copy() if self.transposed is None else self.transposed
        return self.omega @ h + self.beta[:, None]

    def backward(self, dL_df):
        return self.transposed @ dL_df, {"beta": dL_df.sum(axis=1), "omega": dL_df @ self.h.T}


class BufferOfTheLargestBatch(MatrixOfTheFirstPass):
    """Adds up all columns of a buffer that is as wide as the widest batch so far."""

    buffer = np.zeros((0, 0))

    def forward(self, h):
        if h.shape[1] > self.buffer.shape[1]:
            self.buffer = np.zeros(h.shape)
        self.h = h
        return self.omega @ h + self.beta[:, None]

    def backward(self, dL_df):
        if len(self.buffer) == len(dL_df):
            self.buffer[:, : dL_df.shape[1]] = dL_df
        whole = self.buffer if len(self.buffer) == len(dL_df) else dL_df
        return self.omega.T @ dL_df, {"beta": whole.sum(axis=1), "omega": dL_df @ self.h.T}


class ScaledByTheFirstBatch(bp.Tanh):
    """Divides by the number of examples of the first batch and multiplies by that of this one."""

    n = None

    def backward(self, dL_df):
        self.n = dL_df.shape[1] if self.n is None else self.n
        return dL_df * (1 - self.f**2) * (dL_df.shape[1] / self.n), {}


class StepsOfTheCaller(bp.Tanh):
    """Reads every entry of its argument by the order in which it lies in memory."""

    def backward(self, dL_df):
        flat = dL_df.ravel(order="K").reshape(dL_df.shape)
        return flat * (1 - self.f**2), {}


class OddLoss(bp.LeastSquares):
    """Right but where `odd` says so."""

    def odd(self):
        return False

    def dell_df(self):
        return (3 if self.odd() else 2) * self.d


class LossWrongForOne(OddLoss):
    def odd(self):
        return self.d.shape[1] == 1


class LossWrongForMany(OddLoss):
    def odd(self):
        return self.d.shape[1] > 8


class LossWrongInFloat32(OddLoss):
    def odd(self):
        return self.d.dtype == np.float32


class LossSharedByAllObjects(bp.LeastSquares):
    kept: ClassVar[dict] = {}

    def ell(self, f, y):
        self.kept["d"] = f - y
        return (self.kept["d"] ** 2).sum(axis=0)

    def dell_df(self):
        return 2 * self.kept["d"]


class LossWithAWornOutFactor(bp.LeastSquares):
    """Halves its slope from the tenth time on."""

    times = 0

    def dell_df(self):
        self.times += 1
        return (2 if self.times < 10 else 1) * self.d


def of_layer(make, examples=N):
    """The report of a network with a faulty layer."""

    def report():
        X, y = data()
        return bp.check_gradients(between(make()), bp.CrossEntropy(), X[:examples], y[:examples])

    return report


def of_loss(make, weighted=False):
    """The report of a network with a faulty loss."""

    def report():
        X, labels = data()
        y = labels if make is TargetTwice else np.random.default_rng(0).normal(size=(N, K))
        w = np.arange(1.0, N + 1) if weighted else None
        return bp.check_gradients(between(bp.Tanh()), make(), X, y, w)

    return report


def penalty(x):
    """A data term, and an L2 penalty on the first half of x."""
    return np.sin(x).sum() + 0.5 * (x[: len(x) // 2] ** 2).sum()


def of_function(f, gradient, **options):
    """The report of a plain function."""
    return lambda: bp.check_function(f, gradient, np.linspace(0.5, 2, 8), **options)


def penalty_gradient(x, of_data=1.0, of_penalty=1.0):
    """The two terms of the gradient of `penalty`, each with a factor."""
    half = np.arange(len(x)) < len(x) // 2
    return of_data * np.cos(x) + of_penalty * half * x


@dataclass(frozen=True)
class Mutant:
    """A faulty subject: how to get its report, words that must be in the named mistake, and the tensor or place it names."""

    report: Callable[[], bp.GradientReport]
    words: str
    place: str = "layer 1"


MUTANTS = {
    "a factor of 2": Mutant(of_layer(Twice), "a factor 2"),
    "a factor of 1 + 1e-9": Mutant(of_layer(ABillionthTooLarge), "is 1 + 1e-09 times"),
    "the wrong sign": Mutant(of_layer(WrongSign), "wrong sign"),
    "the slope forgotten": Mutant(of_layer(SlopeForgotten), "the slope of the activation is forgotten"),
    "sigmoid's slope at h instead of f": Mutant(of_layer(SigmoidSlopeAtH), "at h instead of f"),
    "tanh's slope at h instead of f": Mutant(of_layer(TanhSlopeAtH), "at h instead of f"),
    "the slope at the output": Mutant(of_layer(SlopeAtTheOutput), "at its output instead of at its input"),
    "the indicator inverted": Mutant(of_layer(IndicatorInverted), "indicator inverted"),
    "a wrong factor on one term": Mutant(of_layer(TermForgotten), "wrong factor on one term: -1 times ∂L/∂f ⊙ f²"),
    "a stale cache": Mutant(of_layer(StaleCache), "stale cache"),
    "infer writes over the cache": Mutant(of_layer(InferDisturbs), "state changed between forward and backward"),
    "the cache used up": Mutant(of_layer(CacheUsedUp), "state changed between forward and backward", ""),
    "the mask drawn again": Mutant(of_layer(MaskDrawnAgain), "state changed between forward and backward", ""),
    "the input written over": Mutant(
        of_layer(lambda: bp.Sequential(bp.Exp(), WritesOverItsInput())), "writes over its input"
    ),
    "NaN": Mutant(of_layer(NotANumber), "NaN"),
    "the last example forgotten": Mutant(of_layer(LastExampleForgotten), "wrong in example 4 alone"),
    "one entry": Mutant(of_layer(lambda: OneEntryWrong(4, 4)), "the single entry (2, 1)"),
    "β from one example": Mutant(of_layer(BetaOfOneExample), "the first example alone"),
    "β averaged": Mutant(of_layer(BetaAveraged), "the number of examples (batch size): a mean"),
    "β averaged, as many examples as features": Mutant(
        of_layer(BetaAveraged, 4), "the number of examples (batch size): a mean"
    ),
    "β summed over features": Mutant(of_layer(BetaSummedOverFeatures), "summed over the wrong axis"),
    "β summed over everything": Mutant(of_layer(BetaSummedOverAll), "summed over the wrong axis"),
    "β not computed": Mutant(of_layer(BetaForgotten), "is 0 everywhere"),
    "∂L/∂Ω transposed": Mutant(of_layer(OmegaTransposed), "is transposed"),
    "∂L/∂Ω from the output": Mutant(of_layer(OmegaFromOutput), "output f where its input h belongs"),
    "∂L/∂Ω averaged": Mutant(of_layer(OmegaAveraged), "the number of examples (batch size): a mean"),
    "weight decay in the gradient alone": Mutant(of_layer(OmegaDecayed), "weight decay"),
    "Ω not transposed on the way back": Mutant(of_layer(OmegaNotTransposedOnTheWayBack), "must be transposed"),
    "a branch missing": Mutant(
        of_layer(lambda: MissingBranch(bp.Linear(4, 2), bp.Linear(4, 2))), "the branch 1, Linear(4 → 2) is missing"
    ),
    "a branch twice": Mutant(
        of_layer(lambda: BranchTwice(bp.Linear(4, 2), bp.Linear(4, 2))), "one term twice: the branch 1"
    ),
    "no shortcut": Mutant(
        of_layer(lambda: NoShortcut(bp.Sequential(bp.Linear(4, 4), bp.Tanh()))), "(the shortcut) is missing"
    ),
    "BatchNorm without its mean": Mutant(of_layer(lambda: MeanForgotten(4)), "through the mean is missing"),
    "LayerNorm without its deviation": Mutant(
        of_layer(lambda: DeviationForgotten(4)), "through the standard deviation is missing"
    ),
    "a loss without its 2": Mutant(of_loss(HalfForgotten), "a factor 2 is missing", "HalfForgotten"),
    "a loss divided by N twice": Mutant(
        of_loss(DividedByExamplesTwice), "the number of examples (batch size): a mean", "DividedByEx"
    ),
    "a loss with a sum for a mean": Mutant(
        of_loss(SumForMean), "the number of examples (batch size): a sum", "SumForMean"
    ),
    "a loss divided by its outputs": Mutant(
        of_loss(DividedByOutputs), "the number of outputs: a mean", "DividedByOutputs"
    ),
    "a loss value divided by its outputs": Mutant(
        of_loss(ValueDividedByOutputs), "the number of outputs: a sum", "ValueDivided"
    ),
    "a loss that forgets weights": Mutant(
        of_loss(WeightsForgotten, weighted=True), "leaves the sample weights out", "Weights"
    ),
    "p − 2y": Mutant(of_loss(TargetTwice), "-1 times the targets y", "TargetTwice"),
    "a function's penalty twice": Mutant(
        of_function(lambda x: np.sin(x).sum() + 0.5 * (x**2).sum(), lambda x: np.cos(x) + 2 * x), "L2 penalty", "∂f/∂x"
    ),
    "a function's data term times outputs": Mutant(
        of_function(penalty, lambda x: penalty_gradient(x, of_data=5.0), sizes={"outputs": 5}),
        "the number of outputs",
        "∂f/∂x",
    ),
    "a function's sign": Mutant(of_function(lambda x: np.cos(x).sum(), np.sin), "wrong sign", "∂f/∂x"),
    "a function wrong in one stretch": Mutant(
        of_function(lambda x: np.sin(x).sum(), lambda x: np.cos(x) * np.where(np.arange(8) < 3, 1, 3)),
        "from entry 3 to 7",
        "∂f/∂x",
    ),
    "a fault in a network in a network": Mutant(
        of_layer(lambda: bp.Sequential(bp.Linear(4, 4), bp.Sequential(Twice(), bp.Linear(4, 4)))),
        "a factor 2",
        "layer 1.1.0, Twice()",
    ),
    "a fault in a residual block": Mutant(
        of_layer(lambda: bp.Residual(bp.Sequential(bp.Linear(4, 4), WrongSign()))),
        "wrong sign",
        "layer 1.layer.1, WrongSign()",
    ),
    "a fault in a branch": Mutant(
        of_layer(lambda: bp.FanOut(bp.Linear(4, 1), bp.Sequential(bp.Linear(4, 3), Twice()))),
        "a factor 2",
        "layer 1.1.1, Twice()",
    ),
    "a fault deep inside a residual branch": Mutant(
        of_layer(lambda: bp.Sequential(bp.Residual(bp.FanOut(bp.Tanh(), OmegaTransposed(), join="sum")), bp.Tanh())),
        "is transposed",
        "layer 1.0.layer.1, OmegaTransposed()",
    ),
    "the shortcut twice": Mutant(
        of_layer(lambda: ShortcutTwice(bp.Linear(4, 4))), "one term twice: the branch that passes h on"
    ),
    "a sum of branches averaged": Mutant(
        of_layer(lambda: SumOfBranchesHalved(bp.Tanh(), bp.Sin(), join="sum")), "a factor 2 is missing"
    ),
    "Dropout without its scale": Mutant(of_layer(lambda: DropoutUnscaled(0.2)), "is 0.8 times what it should be"),
    "a leak forgotten": Mutant(of_layer(lambda: LeakForgotten(0.1)), "fits no known mistake", "LeakForgotten"),
    "the slope of an approximation": Mutant(of_layer(SlopeOfAnApproximation), "fits no known mistake"),
    "the first feature forgotten": Mutant(of_layer(FirstFeatureForgotten), "wrong in feature 0 alone"),
    "β from the last example": Mutant(of_layer(BetaOfTheLastExample), "the last example alone"),
    "∂L/∂Ω from the last example": Mutant(of_layer(OmegaOfTheLastExample), "the last example alone"),
    "∂L/∂Ω accumulates": Mutant(of_layer(OmegaAccumulates), "a second backward after the same forward"),
    "∂L/∂γ with h for z": Mutant(of_layer(lambda: GammaTakesH(4)), "fits no known mistake", "gradient of gamma"),
    "a loss with unclipped slopes": Mutant(of_loss(lambda: SlopeUnclipped(0.3)), "∂L/∂f", "SlopeUnclipped"),
    "a loss with y − f": Mutant(of_loss(SignOfTheDifference), "wrong sign", "SignOfTheDifference"),
    "a loss with old targets": Mutant(of_loss(OldTargets), "stale cache", "OldTargets"),
    "a function's penalty forgotten": Mutant(
        of_function(lambda x: np.sin(x).sum() + 0.5 * (x**2).sum(), np.cos), "-1 times x itself", "∂f/∂x"
    ),
    "a function averaged over examples": Mutant(
        of_function(lambda x: np.sin(x).sum(), lambda x: np.cos(x) / 7, sizes={"examples": 7}),
        "1 over the number of examples",
        "∂f/∂x",
    ),
    "a function's gradient not computed": Mutant(
        of_function(lambda x: np.sin(x).sum(), np.zeros_like), "is 0 everywhere", "∂f/∂x"
    ),
    "a function's gradient with NaN": Mutant(
        of_function(lambda x: np.sin(x).sum(), lambda x: np.where(x < 1.9, np.cos(x), np.nan)), "first at (7,)", "∂f/∂x"
    ),
    "a function wrong in one entry": Mutant(
        of_function(lambda x: np.sin(x).sum(), lambda x: np.cos(x) + (x == x[3])), "the single entry (3,)", "∂f/∂x"
    ),
    "a function's gradient transposed": Mutant(
        lambda: bp.check_function(
            lambda x: (x @ x @ x).trace(), lambda x: 3 * x @ x, np.random.default_rng(0).normal(size=(3, 3))
        ),
        "is transposed",
        "∂f/∂x",
    ),
    "a function on real numbers alone, by 1 %": Mutant(
        of_function(lambda x: float(np.sin(np.asarray(x, float)).sum()), lambda x: 1.01 * np.cos(x)),
        "1.01 times",
        "∂f/∂x",
    ),
    "tanh's slope without its square": Mutant(of_layer(TanhWithoutItsSquare), "takes 1 − f for the slope"),
    "swish's slope without its tail": Mutant(of_layer(SwishWithoutItsTail), "takes σ(h) + h σ(h) for the slope"),
    # What is right for these examples, once, in float64, and wrong elsewhere.
    "wrong for one example": Mutant(of_layer(WrongForOne), "wrong for 1"),
    "wrong for even numbers of examples": Mutant(of_layer(WrongForEven), "wrong for 2 and 4"),
    "wrong for many examples": Mutant(of_layer(WrongForMany), "wrong for 11"),
    "wrong for as many examples as features": Mutant(of_layer(WrongForSquares), "wrong for 4"),
    "wrong in Fortran's order": Mutant(of_layer(WrongInFortranOrder), "the order of memory"),
    "wrong for inputs in C's order": Mutant(of_layer(WrongForInputsInCOrder), "the order of memory"),
    "entries by their place in memory": Mutant(of_layer(StepsOfTheCaller), "the order of memory"),
    "wrong in float32": Mutant(of_layer(WrongInFloat32), "wrong in float32"),
    "a slope 10 % too steep in float32": Mutant(of_layer(ALittleInFloat32), "wrong in float32"),
    "wrong from the tenth pass on": Mutant(of_layer(WrongFromTheTenthPassOn), "how many passes"),
    "remembered by identity": Mutant(of_layer(RememberedById), "a second backward"),
    "the first answer again": Mutant(of_layer(AnswersOnce), "a second backward"),
    "∂L/∂f written over": Mutant(of_layer(WritesIntoItsArgument), "writes over the ∂L/∂f"),
    "h written over on the way back": Mutant(of_layer(WritesIntoItsInput), "writes over the input"),
    "a cache of the class": Mutant(of_layer(SharedByAllObjects), "another object of this class"),
    "Ω of the first pass": Mutant(of_layer(MatrixOfTheFirstPass), "the parameters of an earlier pass"),
    "a buffer of the largest batch": Mutant(of_layer(BufferOfTheLargestBatch), "another number of examples"),
    "scaled by the first batch": Mutant(of_layer(ScaledByTheFirstBatch), "another number of examples"),
    "a loss wrong for one example": Mutant(of_loss(LossWrongForOne), "wrong for 1", "LossWrongForOne"),
    "a loss wrong for many examples": Mutant(of_loss(LossWrongForMany), "wrong for 11", "LossWrongForMany"),
    "a loss wrong in float32": Mutant(of_loss(LossWrongInFloat32), "wrong in float32", "LossWrongInFloat32"),
    "a loss with a cache of the class": Mutant(
        of_loss(LossSharedByAllObjects), "another object of this class", "LossSharedByAllObjects"
    ),
    "a loss that wears out": Mutant(of_loss(LossWithAWornOutFactor), "how many passes", "LossWithAWornOutFactor"),
}


def table() -> tuple[str, bool]:
    """Every mutant, caught or not, and what the report says; and whether all were caught and named."""
    lines, good = [f"{'planted fault':<42}{'caught':<8}{'named':<7}what the report says"], True
    for name, mutant in MUTANTS.items():
        report = mutant.report()
        said = report.mistakes[0] if report.mistakes else ""
        named = any(words in said for words in mutant.words.split("|")) and mutant.place in said
        good &= not report.passed and named
        lines.append(f"{name:<42}{'no' if report.passed else 'yes':<8}{'yes' if named else 'NO':<7}{said}")
    return "\n".join([*lines, f"{len(MUTANTS)} mutants"]), good


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    text, good = table()
    print(text)
    sys.exit(0 if good else 1)
