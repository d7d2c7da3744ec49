"""Advice where people go wrong: a warning, once, that says what was seen and what to do.

    before the first step     inputs, targets, outputs, and one forward and backward pass over a sample of the examples
    after epochs 1, 2, 4, …   the loss on that sample, units that died, and how far φ has moved

Layers and losses of one's own are not run: where there are any, only inputs and targets are looked at.

Silence is better than a false alarm: every limit is orders away from what good settings give, and where one trouble may come from
another that was told already, nothing more is said.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from backprop.around.nesting import leaves
from backprop.checks import Array
from backprop.functions import norm
from backprop.layers import Linear, ReLU, Sigmoid
from backprop.losses import AbsoluteError, CrossEntropy, GaussianNLL, Huber, LeastSquares, Loss, Pinball
from backprop.optimizers import Optimizer
from backprop.schedules import ConstantRate
from backprop.sequential import Sequential
from backprop.training.data import Examples
from backprop.training.history import Epoch
from backprop.training.look import Look, look, may_look, sample
from backprop.training.metrics import CLASSIFICATION

REGRESSION = (LeastSquares, AbsoluteError, Huber, Pinball, GaussianNLL)  # those whose outputs are on the scale of y
CAUSES = {"inputs", "targets", "layers"}  # a loss that rises or rests may come from them
PIECE = 1 << 14  # entries of φ compared at a time
RATE = "bp.learning_rate_range_test(net, loss, X, y) suggests one."


class TrainingAdvice(UserWarning):
    """The warning of a training that is likely to go wrong; its text says what was seen and what to do.

    `Trainer` and `minimize` give each kind of advice once. `warnings.simplefilter("ignore", bp.TrainingAdvice)` silences all of
    it, `message=` of `warnings.filterwarnings` one kind; "error" in the place of "ignore" makes errors of it.

    >>> import warnings, numpy as np, backprop as bp
    >>> X, y = np.linspace(0, 1e4, 100).reshape(-1, 1), np.linspace(0, 1, 100)
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     history = bp.minimize(bp.Sequential(bp.Linear(1, 1), seed=0), bp.LeastSquares(), X, y, iterations=1, verbose=0)
    >>> str(caught[0].message).partition(",")[0]
    'minimize: the inputs are not scaled. Column 0 of X has mean 5e+03 and standard deviation 2.92e+03'
    """


class Advisor:
    """Looks at one training and tells of each kind of trouble once. `who` begins the texts."""

    def __init__(self, who: str, net: Sequential, loss: Loss, optimizer: Optimizer | None = None) -> None:
        self.who, self.net, self.loss = who, net, loss
        self.optimizer: Any = optimizer  # None in `minimize`, which finds the scale itself
        self.told: dict[str, str] = {}  # its text, by the kind of trouble
        self.start = Look()
        self.quiet = False

    def before(self, examples: Examples) -> None:
        """Look at the examples and at a pass over a sample of them, before the first step."""
        if not self.quiet:
            with np.errstate(all="ignore"):  # the trainer names what is not finite
                self._before(examples, *sample(examples, self.net))

    def _before(self, examples: Examples, X: Array, y: Array, w: Array | None) -> None:
        net, loss = self.net, self.loss
        if not len(X):
            return
        self._tell("order", rows_in_order(examples))
        if type(next(leaves(net))) is Linear:  # other layers may do the scaling
            self._tell("inputs", unscaled_inputs(X))
        targets = examples.answers()
        if isinstance(loss, REGRESSION):
            self._tell("labels", labels_as_amounts(loss, targets))
        if not may_look(net, loss):
            return
        self.start = start = look(net, loss, X.T, y.T, w, backward=True)
        if isinstance(loss, REGRESSION) and self.optimizer and not self.told.keys() - {"order"}:
            self._tell("targets", unscaled_targets(targets, start.f))
        if isinstance(loss, CLASSIFICATION):
            self._tell("probabilities", probabilities(loss, start))
        self._tell("dead", dead_units(start, "Start with biases of 0 and HeNormal weights, or use LeakyReLU."))
        if "dead" not in self.told:
            self._tell("layers", uneven_layers(start))

    def after(self, examples: Examples, record: Epoch, before: Array, steps: int) -> None:
        """Look at what an epoch has done: after epochs 1, 2, 4, …, and wherever the loss is far above its start."""
        if self.quiet or self.told.keys() & CAUSES or not self.start.layers or not steps:
            return
        total = 1.0 if self.loss.reduction == "mean" else examples.n if examples.w is None else float(examples.w.sum())
        mean = record.loss / total
        if record.epoch & (record.epoch - 1) == 0 or mean > 2 * self.start.baseline:
            with np.errstate(all="ignore"):
                self._after(record, mean, before, steps, *sample(examples, self.net))

    def _after(self, record: Epoch, mean: float, before: Array, steps: int, X: Array, y: Array, w: Any) -> None:
        if not len(X):
            return
        now = look(self.net, self.loss, X.T, y.T, w, backward=False)
        length = norm(before)
        moved = distance(self.net.phi, before) / (length or math.inf)
        self._tell("rate", too_large(self.start, now, mean, record, moved))
        schedule, rate = self.optimizer.schedule, record.learning_rate
        # Not while it grows, as in a warm-up; only rates that were asked for before are looked at.
        if isinstance(schedule, ConstantRate) or (steps > 1 and schedule(self.optimizer.t - 1) <= rate):
            self._tell("rate", too_small(self.start, now, record, moved, steps, length))
        if "rate" not in self.told and not self.optimizer.l1:  # l1 is there to make units 0
            advice = f"They were not before the first step: the learning rate {rate:.3g} is too large. Divide it by 10"
            self._tell("dead", dead_units(now, f"{advice}, or use LeakyReLU."))

    def _tell(self, kind: str, text: str) -> None:
        if text and kind not in self.told:
            self.told[kind] = text
            warnings.warn(f"{self.who}: {text}", TrainingAdvice, stacklevel=outside())


def outside() -> int:
    """The stack level, for the caller of this, of the first frame that is neither of this package nor of scikit-learn.

    Scikit-learn stands between: as a pipeline, and around each `fit` of an estimator.
    """
    package = str(Path(__file__).parents[1]) + os.sep
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(package)
        or frame.f_globals.get("__name__", "").partition(".")[0] == "sklearn"
    ):
        level, frame = level + 1, frame.f_back
    return level + 1


def rows_in_order(examples: Examples) -> str:
    """Rows from disk whose row groups differ by more than chance."""
    found = examples.disorder()
    if not found:
        return ""
    return (
        f"the rows lie in an order. Column {found}, so that batches are no random sample of all rows. Write them anew in a "
        "random order, `backprop shuffle OLD NEW`, and train on NEW."
    )


def unscaled_inputs(X: Array) -> str:
    """Columns of X (N, D) with values far above 1, not just a few outliers, or all of them far below."""
    size = np.abs(X)
    large = np.count_nonzero(size > 100, axis=0) > 0.25 * len(X)
    if not large.any() and size.max() > 1e-3:
        return ""
    of_columns = np.where(large, size.mean(axis=0, dtype=np.float64), -1) if large.any() else size.max(axis=0)
    worst = int(of_columns.argmax())
    mean, deviation = X[:, worst].mean(dtype=np.float64), X[:, worst].std(dtype=np.float64)
    if not (large.any() or deviation):
        return ""
    others = int(large.sum()) - 1
    return (
        f"the inputs are not scaled. Column {worst} of X has mean {mean:.3g} and standard deviation {deviation:.3g}, where 0 and "
        f"1 suit the first weights{f'; {others} more are like it' if others > 0 else ''}. "
        "Standardize the columns: bp.Table does it for frames, scale_inputs=True in the estimators, StandardScaler in "
        "scikit-learn. Divide pixels by their largest value."
    )


def labels_as_amounts(loss: Loss, y: Array) -> str:
    """Targets (N, 1) of a regression loss that look like the labels of classes: 0 … K − 1, all of them about as often."""
    if y.shape[1] != 1 or y.min() != 0 or not 2 <= y.max() < 100 or (y != np.floor(y)).any():
        return ""
    counts = np.bincount(y[:, 0].astype(int))
    if counts.min() < max(20, 0.4 * counts.max()):  # counts and grades have rare values
        return ""
    K = len(counts)
    return (
        f"y holds only the whole numbers 0 … {K - 1}, each about equally often, as labels of classes do, and {loss!r} takes "
        f"them for amounts, in which {K - 1} is far from 0. For classes use CrossEntropy with {K} outputs; if they are amounts, "
        "all is well."
    )


def unscaled_targets(y: Array, f: Array) -> str:
    """A column of the targets (N, K) far above 1, and far from where the outputs f start, or far below 1."""
    if len(f) < y.shape[1]:
        return ""
    mean, deviation = y.mean(axis=0, dtype=np.float64), y.std(axis=0, dtype=np.float64)
    outputs = f[: y.shape[1]].mean(axis=1, dtype=np.float64)
    away = np.hypot(mean - outputs, deviation)
    worst = int(away.argmax())
    if not (away[worst] > 3000 or 0 < deviation.max() < 1e-4):
        return ""
    return (
        f"the targets are not scaled. Column {worst} of y has mean {mean[worst]:.3g} and standard deviation "
        f"{deviation[worst]:.3g}, and the outputs start around {outputs[worst]:.3g}. Train on (y − mean) / deviation and undo it "
        "in the predictions; scale_targets=True does both in MLPRegressor."
    )


def probabilities(loss: Loss, seen: Look) -> str:
    """Outputs that went through a sigmoid or a softmax before the loss that has one inside."""
    if not math.isfinite(seen.loss):
        return ""
    f, last = seen.f, seen.layers[-1]
    summing = len(f) > 1 and f.shape[1] >= 16 and np.allclose(f.sum(axis=0), 1, atol=1e-3)
    known = issubclass(last.kind, Sigmoid) or (summing and not issubclass(last.kind, Linear | ReLU))
    if not known or f.min() < 0 or f.max() > 1:
        return ""
    of = "softmax" if summing else "sigmoid"
    has = "softmax" if isinstance(loss, CrossEntropy) else "sigmoid"
    return (
        f"the outputs of {last}, lie between {f.min():.2g} and {f.max():.2g}{' and sum to 1' if summing else ''}, as "
        f"probabilities after a {of} do, but {loss!r} has a {has} inside and takes any numbers. Leave that layer out, and apply "
        f"the {has} to what predict returns."
    )


def dead_units(seen: Look, advice: str) -> str:
    """ReLU layers of which far more units than chance would have it are 0 for the whole sample."""
    for passed in seen.layers:
        # Deep layers see all examples nearly alike: there each unit is 0 for all of them with probability ½, and this is + 4 σ.
        many = max(0.8 * passed.units, 0.5 * passed.units + 2 * math.sqrt(passed.units))
        if passed.dead > many or passed.dead == passed.units >= 3:
            return (
                f"dead units. {passed.dead} of the {passed.units} units of {passed}, are 0 for each of {seen.f.shape[1]} "
                f"examples, and no gradient passes through them. {advice}"
            )
    return ""


def uneven_layers(seen: Look) -> str:
    """Activations or gradients that grow or shrink by orders from layer to layer."""
    linear = [passed for passed in seen.layers if issubclass(passed.kind, Linear)]
    if len(linear) < 3:
        return ""
    # The last one goes to the scale of y.
    forward = uneven("activations", {str(passed): passed.size for passed in linear[:-1]}, 1 / 3000, 3000)
    found = forward or uneven("gradients", {str(passed): passed.slope for passed in linear[::-1]}, 1e-4, 300)
    init = "Use an initializer that keeps the scale: HeNormal for ReLU, GlorotNormal for Tanh"
    return f"{found}. {init}; and LayerNorm, BatchNorm or Residual in deep networks." if found else ""


def uneven(what: str, sizes: dict[str, float], low: float, high: float) -> str:
    """What is seen if the sizes of the layers, in the order of the pass, leave the range from low to high times the first."""
    sizes = {
        layer: size for layer, size in sizes.items() if size > 0
    }  # 0 comes from weights that are 0, often on purpose
    first = next(iter(sizes), "")
    far = max(sizes, key=lambda layer: abs(math.log(sizes[layer]) - math.log(sizes[first])), default="")
    if not sizes or low < sizes[far] / sizes[first] < high:
        return ""
    verbs = "explode. They grow" if sizes[far] > sizes[first] else "vanish. They shrink"
    return f"{what} {verbs} from {sizes[first]:.2g} in {first}, to {sizes[far]:.2g} in {far}"


def distance(a: Array, b: Array) -> float:
    """Length of a − b for two vectors, without a third one."""
    pieces = [slice(start, start + PIECE) for start in range(0, len(a), PIECE)]
    return math.hypot(*(norm(a[piece] - b[piece]) for piece in pieces))


def too_large(start: Look, now: Look, mean: float, record: Epoch, moved: float) -> str:
    """A loss, of the epoch and after it, that is worse than that of a network that knows nothing."""
    if not (start.baseline > 0 and min(now.loss, mean) > 2 * np.maximum(start.baseline, now.of_zeros)):
        return ""
    return (
        f"the learning rate {record.learning_rate:.3g} is too large. After epoch {record.epoch} the loss is {now.loss:.3g}, "
        f"before the first step it was {start.loss:.3g}, and in this epoch φ moved by {moved:.2g} times its length. Divide it "
        f"by 10; {RATE}"
    )


def too_small(start: Look, now: Look, record: Epoch, moved: float, steps: int, length: float) -> str:
    """A loss and a φ that rest, though the gradient says that there is much to gain and little is gained yet."""
    # What moves by less than a millionth of that is meant to rest.
    rests = abs(now.loss - start.loss) < 0.01 * start.loss and 1e-12 * steps < moved < min(1e-3, 1e-6 * steps)
    to_gain = now.loss > 0.5 * now.of_zeros and start.gradient * length > 0.1 * start.loss
    if not (rests and to_gain):
        return ""
    return (
        f"the learning rate {record.learning_rate:.3g} is too small. After epoch {record.epoch} the loss is {now.loss:.4g}, "
        f"before the first step it was {start.loss:.4g}, and a step moves φ by {moved / steps:.1g} of its length. Try 0.1 for "
        f"SGD, 0.001 for Adam; {RATE}"
    )
