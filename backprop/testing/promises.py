"""A promise is a function that yields what is broken: what was expected, what came, what to do, and in which arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from backprop import blame, checks
from backprop.around.nesting import reseed
from backprop.checks import Array
from backprop.engine.operations import CannotTrace
from backprop.gradients import GradientReport
from backprop.gradients.numeric import index_of, largest, random_direction
from backprop.losses import Loss
from backprop.optimizers import SGD
from backprop.sequential import Sequential
from backprop.training import Trainer

FEW = 7  # examples of most checks
BATCHES = (FEW, 2, 1)  # of the gradient check, which also takes all there are; of several, mistakes are told apart best
ENTRIES = 200  # checked one by one in each gradient check; random directions cover the rest
STEP = 0.01  # the most that an entry of φ moves in a training step: far enough to be seen, near enough to stay in the domain
ROUNDING = 1e-12  # relative to the largest entry: sums of the same float64 numbers in another order
TRAINED = {"float32": 1e-5, "float64": ROUNDING}  # dtype -> tolerance after two steps
LAYOUTS = ("C-ordered", "F-ordered", "strided", "read-only")

Change = Callable[[Sequential], None]
Fault = tuple[
    str, ...
]  # what was expected, what came, what to do; then the names of the arrays that are wrong, if it is some
Promises = Mapping[str, Callable[[Any], Iterator[Fault]]]
FITS = "A gradient has the shape of what it is taken with respect to: that says which factor is first, and which is transposed."


def keep(label: str, promises: Promises, subject: Any, calls: str = "passes") -> None:
    """Ask each promise in turn; a fault or an error ends it. `calls` is what `traced` promises something of."""
    __tracebackhide__ = True
    for name in promises:
        fault, cause = ask(promises, name, subject, calls)
        if fault:
            raise AssertionError(checks.message(f"{label}, {name}", *fault[:3]).replace(". \n", ".\n")) from cause


def ask(promises: Promises, name: str, subject: Any, calls: str = "passes") -> tuple[Fault | None, Exception | None]:
    """The first fault of one promise, and the error that it comes from, if there was one."""
    try:
        return next(promises[name](subject), None), None
    except CannotTrace as error:
        expected = f"{calls} whose calls are always the same, as traced = True says"
        return (expected, str(error).rstrip("."), "Or leave `traced` out."), None
    except Exception as error:
        return ("no error", *told(error)), error


def told(error: Exception) -> tuple[str, str]:
    """An error in words, with the line of somebody's own that it comes from, and what to do."""
    kind, place = type(error).__name__, blame.place_of(error)
    if place and place.shapes:
        return f"{kind} in {place}", FITS if " @ " in place.shapes else ""
    return f"{kind}: {str(error).rstrip('.')}" + (f" ({place})" if place else ""), ""


def differences(
    found: Mapping[str, Any], expected: Mapping[str, Any], wanted: str, advice: str, tolerance: float = 0.0
) -> Iterator[Fault]:
    """A fault for each array that is not as expected, within a tolerance relative to its largest entry."""
    for name, right in expected.items():
        actual, right = np.asarray(found[name]), np.asarray(right)
        if actual.shape != right.shape:
            yield wanted, f"{name} with shape {actual.shape} instead of {right.shape}", advice, name
            continue
        with np.errstate(all="ignore"):
            same = (actual == right) | (np.isnan(actual) & np.isnan(right))
            off = np.where(same, 0.0, np.abs(actual - right))
        if not np.max(off, initial=0.0) <= tolerance * max(1.0, largest(right)):
            where = index_of(np.argmax(off), off.shape)
            yield wanted, f"{name} that differs by {off[where]:.3g}" + (f" at {where}" if where else ""), advice, name


def spread(shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """Numbers between ½ and 1½ of either sign, always the same ones."""
    return random_direction(shape, 1).astype(dtype)


def drawn(N: int, n: int) -> Array:
    """The places of n of N examples, each once as long as there are enough."""
    return np.resize(np.random.default_rng(0).permutation(N), n)


def wrong(report: GradientReport) -> list[str]:
    """The gradients of a layer in a network that do not agree, as the layer calls them."""
    names = [tensor.name for tensor in report.tensors if not tensor.error <= report.tolerance]
    return ["∂L/∂h" if name == "X" else f"∂L/∂{name.partition('.')[2] or name}" for name in names]


def sizes(N: int) -> list[int]:
    """Batch sizes of the gradient check for N examples."""
    return list(dict.fromkeys((*BATCHES, N)))


def copied(arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays as they are now."""
    return {name: np.array(array) for name, array in arrays.items()}


def laid_out(array: Array, layout: str) -> Array:
    """The same values in another order in memory."""
    if layout == "strided":
        room = np.full([2 * n for n in array.shape], np.nan, array.dtype)
        view = room[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    array = array.copy(order="F" if layout == "F-ordered" else "C")
    array.setflags(write=layout != "read-only")
    return array


def steps(
    net: Sequential, loss: Loss, h: Array, y: Array, w: Any, shards: Iterable[int], between: Change | None = None
) -> Iterator[Fault]:
    """φ and buffers after two steps of gradient descent, by hand and by the trainer; `between` changes the network after one."""
    by_hand = net.copy()
    alpha = 0.0
    for t in range(2):
        reseed(by_hand, 0, t, 0)  # as the trainer does: seed, step, shard
        loss.forward(by_hand.forward(h), y, w)
        dL_dphi = by_hand.backward(loss.backward())[1].dL_dphi
        alpha = alpha or STEP / max(float(np.max(np.abs(dL_dphi))), 1e-6)
        by_hand.phi -= alpha * dL_dphi
        if between and t == 0:
            between(by_hand)
    for S in shards:
        twin = net.copy()
        trainer = Trainer(twin, loss, SGD(alpha), batch_size="full", shards=S, threads=1)
        for epoch in trainer.epochs(h.T, y.T, 2, sample_weight=w):
            if between and epoch.epoch == 1:
                between(twin)
        found, expected = ({"φ": each.phi, **(each.buffers if S == 1 else {})} for each in (twin, by_hand))
        wanted = f"φ after two steps of the trainer (shards={S}, {net.phi.dtype}) to be φ − α ∂L/∂φ by hand"
        advice = "A pass must depend on its arguments and on φ alone: the trainer repeats its calls, in memory that it reuses."
        yield from differences(found, expected, wanted, advice, TRAINED[net.phi.dtype.name])
