"""The promises of a loss, the simplest first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients import check_gradients
from backprop.initializers import Constant
from backprop.layers import Linear
from backprop.losses import Loss
from backprop.losses.base import share, slope, total
from backprop.sequential import Sequential
from backprop.testing import promises
from backprop.testing.promises import FEW, ROUNDING, TRAINED, Fault, copied, differences


def assert_loss(loss: Loss, f: Any, y: Any) -> None:
    """Run the library's tests of a loss on one of your own. Raises AssertionError for the first promise it breaks.

    f (K, N) holds outputs and y their targets, (K, N) or labels (N,), one example per column, a few of them different. What is
    tested: the value, as the mean and as the sum, with and without weights (0 is an example that is absent, 2 one that is there
    twice), the gradient, arrays that no other pass disturbs, dtypes, and the trainer against steps by hand. Raises TypeError or
    ValueError for what is no loss, or data that does not fit.

    >>> import numpy as np, backprop as bp
    >>> assert_loss(bp.Huber(0.5), np.array([[1.0, -2.0, 0.3]]), np.zeros(3))
    """
    __tracebackhide__ = True
    promises.keep(repr(loss), LOSS, examine_loss(loss, f, y, "assert_loss"))


def examine_loss(loss: Loss, f: Any, y: Any, who: str) -> _Losses:
    """What the promises of a loss are asked of."""
    checks.instance(who, "loss", loss, Loss)
    f, y = checks.numeric(who, "f", f), checks.numeric(who, "y", y)
    if f.ndim != 2:
        raise ValueError(checks.message(who, "f with shape (K, N), one column per example", f"{f.shape}"))
    checks.finite(who, "f", f.T)
    loss.targets(y, f.shape)
    return _Losses(loss, f.astype(np.float64), y)


class _Losses:
    """Copies of a loss, and examples drawn from f and y."""

    def __init__(self, loss: Loss, f: Array, y: Array) -> None:
        self.loss, self.N = loss, f.shape[1]
        self.f, self.y = f, y
        self.few, self.other = self.examples(FEW), tuple(np.roll(array, 1, axis=-1) for array in self.examples(FEW))
        self.weights = {"without weights": None, "with weights": np.array([2.0, 0.0, 0.5, 1.0, 3.0, 0.25, 1.0])}

    def examples(self, n: int) -> tuple[Array, Array]:
        """Outputs (K, n) and their targets."""
        places = promises.drawn(self.N, n)
        return self.f[:, places], self.y[..., places]

    def fresh(self, reduction: str = "") -> Loss:
        """A copy, with the reduction it has or another one."""
        twin = copy.deepcopy(self.loss)
        twin.reduction = reduction or twin.reduction
        return twin

    def cases(self) -> Iterator[tuple[str, Loss, Array | None]]:
        """Each reduction with and without weights."""
        for reduction in ("mean", "sum"):
            for name, w in self.weights.items():
                yield f"reduction={reduction!r} {name}", self.fresh(reduction), w


def _value_and_gradient(loss: Loss, f: Array, y: Array, w: Array | None = None) -> dict[str, Any]:
    return {"L": loss.forward(f, y, w), "∂L/∂f": loss.backward()}


def _loss_shapes(of: _Losses) -> Iterator[Fault]:
    """A float, (N,) and (K, N)."""
    for n in promises.BATCHES:
        f, y = of.examples(n)
        loss = of.fresh()
        found = _value_and_gradient(loss, f, y)
        if type(found["L"]) is not float:
            yield (
                "a float from forward",
                f"a {type(found['L']).__name__}",
                "Let Loss.forward do it: define ell alone.",
                "L",
            )
        ell = loss.per_example(f, y)
        if ell.shape != (n,):
            yield (
                f"ℓ with shape ({n},), one number per example",
                f"shape {ell.shape}",
                "Sum over the outputs, axis=0.",
                "ℓ",
            )
        if found["∂L/∂f"].shape != f.shape:
            yield f"∂L/∂f with the shape of f, {f.shape}", f"shape {found['∂L/∂f'].shape}", "", "∂L/∂f"


def _loss_arrays(of: _Losses) -> Iterator[Fault]:
    """What is handed in and what is returned is not written, as the trainer asks it, without copies."""
    loss, (f, y), w = of.fresh(), of.few, of.weights["with weights"]
    y = loss.targets(y, f.shape)
    given = {"f": f.copy(), "y": y.copy()}
    total(loss, given["f"], given["y"], share(loss, f, w))
    found = {"∂L/∂f": slope(loss)}
    yield from differences(given, {"f": f, "y": y}, "what is handed in as it was", "Write to new arrays.")
    before = copied(found)
    _value_and_gradient(loss, *of.other)
    yield from differences(found, before, "a ∂L/∂f that no later pass writes over", "Return new arrays.")


def _loss_pending(of: _Losses) -> Iterator[Fault]:
    """Nothing that happens between forward and backward changes what backward gives."""
    (f, y), advice = of.few, "Keep what dell_df needs in attributes that only ell sets, each time anew: self.d = f - y."
    between: dict[str, Callable[[Loss], object]] = {
        "a first backward": lambda loss: loss.backward(),
        "per_example": lambda loss: loss.per_example(*of.other),
        "a pass of a copy": lambda loss: _value_and_gradient(copy.deepcopy(loss), *of.other),
        "a pass of a shallow copy": lambda loss: _value_and_gradient(copy.copy(loss), *of.other),
    }
    for name, disturb in between.items():
        loss = of.fresh()
        loss.forward(f, y)
        expected = copied({"∂L/∂f": loss.backward()})
        loss.forward(f, y)
        disturb(loss)
        yield from differences({"∂L/∂f": loss.backward()}, expected, f"the same after {name}", advice)


def _loss_gradients(of: _Losses) -> Iterator[Fault]:
    """What backward gives is the derivative of forward."""
    for n in promises.sizes(of.N):
        f, y = of.examples(n)
        for case, loss, w in of.cases():
            w = None if w is None else np.resize(w, n)
            report = check_gradients(loss, f.T, y.T, w, max_entries=promises.ENTRIES)
            if not report.passed:
                got = f"another gradient for a batch of {n}, {case}"
                yield "∂L/∂f to be the derivative of L", got, f"\n{report}", "∂L/∂f"


def _loss_sums(of: _Losses) -> Iterator[Fault]:
    """L is the weighted mean or sum of ℓ, and each ℓ is that of its example alone."""
    f, y = of.few
    for case, loss, w in of.cases():
        ell = loss.per_example(f, y)
        w_or_1 = np.ones(FEW) if w is None else w
        L = (w_or_1 * ell).sum() / (1.0 if loss.reduction == "sum" else w_or_1.sum())
        wanted, advice = f"the mean or sum of per_example, {case}", "Let Loss do it: define ell alone."
        yield from differences({"L": loss.forward(f, y, w)}, {"L": L}, wanted, advice, ROUNDING)
    parts = [of.fresh().per_example(f[:, part], y[..., part]) for part in (slice(3), slice(3, None))]
    wanted = "the same ℓ for a batch and for its two parts"
    advice = "Let ell know nothing of the batch: Loss divides by the number of examples."
    yield from differences({"ℓ": np.concatenate(parts)}, {"ℓ": ell}, wanted, advice, ROUNDING)


def _loss_repeats(of: _Losses) -> Iterator[Fault]:
    """An earlier pass leaves no traces."""
    used, advice = of.fresh(), "Set anew in each ell whatever dell_df needs."
    used.forward(*of.other)
    expected = _value_and_gradient(of.fresh(), *of.few)
    yield from differences(_value_and_gradient(used, *of.few), expected, "what a new loss gives", advice)


def _loss_weights(of: _Losses) -> Iterator[Fault]:
    """Weight 0 is an absent example, weight 2 one that is there twice."""
    (f, y), advice = of.few, "Let Loss do it: define ell and dell_df without weights."
    w, places = np.array([2.0, 0.0, 1.0, 1.0, 2.0, 1.0, 1.0]), [0, 0, 2, 3, 4, 4, 5, 6]
    for reduction in ("mean", "sum"):
        loss = of.fresh(reduction)
        by_weight = _value_and_gradient(loss, f, y, w)
        plain = _value_and_gradient(loss, f[:, places], y[..., places])
        wanted = f"weight 0 to be an absent example, weight 2 one that is there twice, reduction={reduction!r}"
        dL_df = np.zeros_like(f)
        np.add.at(dL_df.T, places, plain["∂L/∂f"].T)
        yield from differences(by_weight, {"L": plain["L"], "∂L/∂f": dL_df}, wanted, advice, ROUNDING)


def _loss_dtypes(of: _Losses) -> Iterator[Fault]:
    """The gradient has the type of f, as y has in the trainer."""
    (f, y), w = of.few, of.weights["with weights"]
    for dtype in TRAINED:
        y = y.astype(dtype) if y.dtype.kind == "f" else y
        found = _value_and_gradient(of.fresh(), f.astype(dtype), y, w)["∂L/∂f"].dtype
        if found != dtype:
            yield f"∂L/∂f of {dtype} for f of {dtype}", f"{found}", "Make arrays in the dtype of f."


def _loss_trains(of: _Losses) -> Iterator[Fault]:
    """Two steps of the trainer, also in shards, are two steps by hand."""
    for dtype in TRAINED:
        f, y = of.few
        f, y = f.astype(dtype), y.astype(dtype) if y.dtype.kind == "f" else y
        for _, loss, w in of.cases():
            net = Sequential(Linear(len(f), len(f), initializer=Constant(0.0)), dtype=dtype)
            net.parameters["0.omega"] = np.eye(len(f))
            yield from promises.steps(net, loss, f, y, w, (1, 2))


LOSS: promises.Promises = {
    "shapes": _loss_shapes,
    "arrays": _loss_arrays,
    "repetition": _loss_repeats,
    "a pending backward": _loss_pending,
    "gradients": _loss_gradients,
    "the value": _loss_sums,
    "weights": _loss_weights,
    "dtypes": _loss_dtypes,
    "training": _loss_trains,
}
