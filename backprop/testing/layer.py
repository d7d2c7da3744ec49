"""The promises of a layer, the simplest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.boundary import is_traced
from backprop.around.nesting import draws, frozen, reseed
from backprop.checks import Array
from backprop.gradients.check import compared
from backprop.gradients.disturbances import of_part
from backprop.gradients.problem import Problem, Projection, run
from backprop.initializers import Constant
from backprop.layers import Identity, Layer, Linear
from backprop.losses import LeastSquares
from backprop.optimizers import SGD
from backprop.sequential import Sequential
from backprop.testing import promises
from backprop.testing.promises import FEW, ROUNDING, TRAINED, Change, Fault, copied, differences, spread
from backprop.training import Trainer


def assert_layer(layer: Layer, h: Any) -> None:
    """Run the library's tests of a layer on one of your own. Raises AssertionError for the first promise it breaks.

    h (D, N) holds examples the layer can take, one per column, a few of them different. What is tested: arrays and caches that no
    other pass disturbs, copies, gradients (`check_gradients`, at several batch sizes), inference, dtypes, memory order, the
    promise `traced`, and the trainer against steps by hand, in shards and with checkpoints. Raises TypeError or ValueError for
    what is no layer, or an h that does not fit.

    >>> import numpy as np, backprop as bp
    >>> class Wrong(bp.Tanh):
    ...     def backward(self, dL_df): return dL_df.copy(), {}
    >>> assert_layer(Wrong(), np.eye(3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: Wrong(), gradients: expected backward to be the derivative of forward, got another gradient ...
    """
    __tracebackhide__ = True  # pytest then points at the line of the caller
    promises.keep(layer.label, LAYER, examine(layer, h, "assert_layer"))


def examine(layer: Layer, h: Any, who: str) -> _Layers:
    """What the promises of a layer are asked of."""
    checks.layer(who, layer, Layer)
    array = boundary.checked_input(layer, "forward", checks.numeric(who, "h", h))
    checks.finite(who, "h", array)
    return _Layers(layer, array)


class _Layers:
    """Copies of a layer, each in a network of its own, and examples drawn from h."""

    def __init__(self, layer: Layer, h: Array) -> None:
        self.layer = layer
        h = h.reshape(len(h), -1).astype(np.float64)
        self.all = h if h.shape[1] > 1 else np.hstack([h, 0.9 * h])
        self.h, self.N = self.examples(FEW), h.shape[1]
        self.other = np.roll(self.h, 1, axis=1)
        self.draws = draws(layer)
        self.is_plain = not (self.draws or layer.couples_examples or layer.buffers)

    def examples(self, n: int) -> Array:
        """Inputs (D, n)."""
        return self.all[:, promises.drawn(self.all.shape[1], n)]

    def network(self, dtype: str = "float64", *, inside: bool = False, checkpoint: int | None = None) -> Sequential:
        """A copy of the layer in a network, alone or between two layers that do nothing.

        Its φ has moved a little, as training moves it: a layer that keeps numbers made from φ elsewhere is found out.
        """
        around: list[Layer] = []
        if inside:
            around = [Linear(len(self.h), len(self.h), initializer=Constant(0.0)), Identity()]
            around[0].parameters["omega"][...] = np.eye(len(self.h))
        net = Sequential(*around[:1], self.layer.copy(), *around[1:], dtype=dtype, checkpoint=checkpoint)
        mine = net.phi[net.size - self.layer.size :]
        mine += 0.1 * np.random.default_rng(0).uniform(-1, 1, mine.size) * np.maximum(np.abs(mine), 0.1)
        return net

    def problem(self, n: int) -> Problem:
        """Gradients of n examples, to be asked about under L = Σ c ⊙ f."""
        return Problem("check_gradients", self.network(), Projection(), self.examples(n).T, None, dtype=np.float64)

    def alone(self, dtype: str = "float64") -> Layer:
        """The layer of such a network."""
        return self.network(dtype)[0]


def _pass(layer: Layer, h: Array, dL_df: Array | None = None) -> dict[str, Array]:
    """f, ∂L/∂h and the gradients of a forward and a backward pass, by name, as a network runs them: nothing is copied."""
    f = run(layer, h.copy(order="K"))
    dL_df = spread(f.shape, f.dtype) if dL_df is None else dL_df
    return {"f": f, **_gradients_of(layer, dL_df.copy(order="K"))}


def _gradients_of(layer: Layer, dL_df: Array) -> dict[str, Array]:
    dL_dh, gradients = boundary.backward_result(layer, boundary.backward(layer, dL_df), None)
    return {"∂L/∂h": dL_dh, **{f"∂L/∂{name}": gradient for name, gradient in gradients.items()}}


def _copies(of: _Layers) -> Iterator[Fault]:
    """copy() shares nothing with the layer it is taken of."""
    twin = of.layer.copy()
    for kind in ("parameters", "buffers"):
        for name, array in getattr(of.layer, kind).items():
            if np.shares_memory(array, getattr(twin, kind)[name]):
                yield f"a copy() with {kind} of its own", f"one that shares {name!r}", "Let copy.deepcopy copy it."
    if twin is of.layer:
        yield "a copy()", "the layer itself", "Leave __deepcopy__ out."


def _repeats(of: _Layers) -> Iterator[Fault]:
    """The same h gives the same f, and φ is left alone."""
    net = of.network()
    phi, first, second = net.phi.copy(), _pass(net[0], of.h)["f"].copy(), _pass(net[0], of.h)["f"]
    advice = "A pass must not change parameters: they are the optimizer's."
    yield from differences({"φ": net.phi}, {"φ": phi}, "φ as it was before a pass", advice)
    advice = "Draw random numbers from a generator kept as an attribute; keep no other state from pass to pass."
    yield from differences({"f": second}, {"f": first}, "the same f from the same h after the same reseed(0)", advice)


def _shapes(of: _Layers) -> Iterator[Fault]:
    """One column of f per example, ∂L/∂h like h, and widths as stated."""
    for n in promises.BATCHES:
        found = _pass(of.alone(), of.examples(n))
        f, D = found["f"], len(of.h)
        if f.ndim != 2 or f.shape[1] != n:
            yield (
                f"f with {n} columns for {n} examples",
                f"shape {f.shape}",
                "An example is a column: keep axis 1.",
                "f",
            )
        if found["∂L/∂h"].shape != (D, n):
            yield f"∂L/∂h with the shape of h, {(D, n)}", f"shape {found['∂L/∂h'].shape}", "", "∂L/∂h"
        if of.layer.out_features not in (None, len(f)):
            advice = f"Set out_features = {len(f)} in __init__, or leave it out."
            yield f"f with out_features = {of.layer.out_features} rows", f"{len(f)}", advice, "f"
        if of.layer.keeps_width and len(f) != D:
            yield f"f with the {D} rows of h, as keeps_width says", f"{len(f)}", "Leave keeps_width out."


def _inputs_left_alone(of: _Layers) -> Iterator[Fault]:
    """What is handed in is not written."""
    layer, h = of.alone(), of.h.copy()
    f = boundary.forward(layer, h)
    dL_df = spread(f.shape, f.dtype)
    boundary.backward(layer, dL_df)
    boundary.infer(layer, h)
    advice = "The layer before needs its f, and other branches their ∂L/∂f: write to new arrays."
    expected = {"h": of.h, "∂L/∂f": spread(f.shape, f.dtype)}
    yield from differences({"h": h, "∂L/∂f": dL_df}, expected, "h and ∂L/∂f as they were handed in", advice)


def _arrays_kept(of: _Layers) -> Iterator[Fault]:
    """What is returned is not written again."""
    layer = of.alone()
    found = {"infer's f": boundary.infer(layer, of.h), **_pass(layer, of.h)}
    before = copied(found)
    _pass(layer, of.other)
    boundary.infer(layer, of.other)
    advice = "What is returned is the caller's: return new arrays."
    yield from differences(found, before, "arrays that no later pass writes over", advice)
    found["f"] = boundary.forward(layer, of.h)
    before = copied({"f": found["f"]})
    boundary.backward(layer, spread(found["f"].shape))
    yield from differences(found, before, "an f that backward does not write over", advice)


def _pending_backward(of: _Layers) -> Iterator[Fault]:
    """Nothing that happens between forward and backward changes what backward gives."""
    keep = "Keep what backward needs in attributes that only forward sets, each time anew: self.h = h."
    shared = "A twin shares what is neither an array nor a list."
    between: dict[str, tuple[Callable[[Layer], object], str]] = {
        "a first backward": (lambda layer: boundary.backward(layer, dL_df), "backward must not change what it needs."),
        "infer": (lambda layer: layer.infer(of.other), keep),
        "a pass of a copy": (lambda layer: _pass(layer.copy(), of.other), f"{keep} Nothing belongs to the class."),
        "a pass of a twin": (lambda layer: _pass(boundary.beside(layer), of.other), f"{keep} {shared}"),
    }
    for name, (disturb, advice) in between.items():
        layer = of.alone()
        expected = copied(_pass(layer, of.h))
        dL_df = spread(run(layer, of.h).shape)
        disturb(layer)
        found = _gradients_of(layer, dL_df)
        del expected["f"]
        yield from differences(found, expected, f"the same gradients after {name}", advice)


def _parameters(of: _Layers) -> Iterator[Fault]:
    """The parameters in φ are those that count."""
    net = of.network()
    for name, parameter in net[0].parameters.items():
        before = copied(_pass(net[0], of.h))
        largest = max(np.abs(value).max(initial=0) for name, value in before.items() if name.startswith("∂L"))
        # A shift ahead of BatchNorm changes nothing: its gradient is rounding.
        if np.abs(before[f"∂L/∂{name}"]).max(initial=0) > 1e-6 * largest:
            parameter += 0.1 * np.maximum(np.abs(parameter), 0.1)
            if np.array_equal(_pass(net[0], of.h)["f"], before["f"]):
                advice = f"Read it from self.parameters[{name!r}] in each pass: a network moves it into its φ."
                yield f"another f when {name!r} changes in φ", "the same f", advice
    fresh = of.network()
    fresh.phi[...] = net.phi
    wanted = "what a new layer with this φ gives"
    advice = "Keep nothing made from parameters: they change in each step."
    yield from differences(_pass(net[0], of.h), _pass(fresh[0], of.h), wanted, advice)


def _gradients(of: _Layers) -> Iterator[Fault]:
    """What backward gives is the derivative of forward."""
    for n in promises.sizes(of.N):
        report = compared(of.problem(n), promises.ENTRIES)
        if not report.passed:
            got = f"another gradient for a batch of {n}"
            yield "backward to be the derivative of forward", got, f"\n{report}", *promises.wrong(report)


def _disturbances(of: _Layers) -> Iterator[Fault]:
    """Nothing but φ, h and ∂L/∂f has a say in a gradient, in either type."""
    with np.errstate(all="ignore"):
        for text in of_part(of.problem(of.N)):
            yield "a gradient of these φ, h and ∂L/∂f alone", f"one that {text.rstrip('.')}", ""


def _inference(of: _Layers) -> Iterator[Fault]:
    """What infer gives is the same each time, that of forward where nothing makes them differ, and that of frozen()."""
    layer = of.alone()
    if of.is_plain:
        found, advice = {"f": layer.infer(of.h)}, "Define infer, or leave it out."
        yield from differences(found, {"f": layer.forward(of.h)}, "infer to agree with forward", advice, ROUNDING)
    f, advice = layer.infer(of.h), "Define infer without randomness, and without state that it changes."
    reseed(layer, 1)
    yield from differences({"f": layer.infer(of.h)}, {"f": f}, "the same f from infer each time", advice)
    found, advice = {"f": frozen(layer).forward(of.h)}, "Define frozen: a layer whose forward is this layer's infer."
    yield from differences(found, {"f": f}, "frozen() to compute what infer does", advice, ROUNDING)


def _dtypes(of: _Layers) -> Iterator[Fault]:
    """float32 stays float32, float64 stays float64."""
    advice = "Make arrays in the dtype of h; a constant array in float64 turns all it meets into float64."
    for dtype in TRAINED:
        layer, h = of.alone(dtype), of.h.astype(dtype)
        for name, array in {**_pass(layer, h), "infer's f": layer.infer(h)}.items():
            if array.dtype != dtype:
                yield f"{dtype} from {dtype} parameters and h", f"{name} of {array.dtype}", advice, name


def _layouts(of: _Layers) -> Iterator[Fault]:
    """The order of h in memory does not matter."""
    expected = _pass(of.alone(), of.h)
    dL_df = spread(expected["f"].shape)
    for layout in promises.LAYOUTS:
        layer = of.alone()
        f = run(layer, promises.laid_out(of.h, layout))
        found = {"f": f, **_gradients_of(layer, promises.laid_out(dL_df, layout))}
        yield from differences(found, expected, f"the same from {layout} arrays", "Use shapes, not memory.", ROUNDING)


def _examples_apart(of: _Layers) -> Iterator[Fault]:
    """What happens to one example does not depend on the others, unless couples_examples says so."""
    if of.draws or of.layer.couples_examples:
        return
    layer, cut = of.alone(), FEW // 2
    whole = copied(_pass(layer, of.h))
    dL_df = spread(whole["f"].shape)
    parts = [copied(_pass(layer, of.h[:, part], dL_df[:, part])) for part in (slice(cut), slice(cut, None))]
    joined = {name: np.hstack([part[name] for part in parts]) for name in ("f", "∂L/∂h")}
    added = {name: parts[0][name] + parts[1][name] for name in whole if name not in joined}
    wanted = "the same for a batch and for its two parts"
    advice = (
        "If f of one example depends on the others, set couples_examples = True: the trainer keeps its batches whole."
    )
    yield from differences({**joined, **added}, whole, wanted, advice, 1e3 * ROUNDING)


def _checkpoints(of: _Layers) -> Iterator[Fault]:
    """A trainer that keeps every second activation takes the steps of one that keeps all."""
    trained = []
    for checkpoint in (None, 2):
        net = of.network(inside=True, checkpoint=checkpoint)
        if not net.size:
            return
        y = spread(net.infer(of.h).shape)
        for _ in Trainer(net, LeastSquares(), SGD(1e-3), batch_size="full").epochs(of.h.T, y.T, 2):
            pass
        trained.append({"φ": net.phi, **net.buffers})
    wanted = "the same steps of the trainer with checkpoint=2"
    yield from differences(trained[1], trained[0], wanted, "Keep state in `buffers`.", ROUNDING)


def _traced(of: _Layers) -> Iterator[Fault]:
    """Where the class says `traced`, its passes are the same list of calls in each step, and settings are read in each."""
    if not is_traced(of.layer):
        return
    for dtype in TRAINED:
        for n in promises.BATCHES:
            yield from _steps(of, dtype, n)
    for name in [name for name, value in vars(of.layer).items() if name[0] != "_" and type(value) is float]:
        for wanted, got, *_ in _steps(of, "float64", FEW, between=partial(_change, name=name)):
            yield f"{wanted}, with another {name} after the first", got, f"Read it in each pass, as self.{name}."


def _change(net: Sequential, name: str) -> None:
    setattr(net[1], name, 0.9 * getattr(net[1], name))


def _trains(of: _Layers) -> Iterator[Fault]:
    """Two steps of the trainer are two steps by hand."""
    shards = (1,) if of.draws or of.layer.couples_examples else (1, 2)
    for dtype in TRAINED:
        for inside in (True, False):
            yield from _steps(of, dtype, FEW, shards, inside=inside)


def _steps(
    of: _Layers, dtype: str, n: int, shards: Iterable[int] = (1,), *, inside: bool = True, between: Change | None = None
) -> Iterator[Fault]:
    net, h = of.network(dtype, inside=inside), of.examples(n).astype(dtype)
    if net.size:
        yield from promises.steps(net, LeastSquares(), h, spread(net.infer(h).shape, dtype), None, shards, between)


LAYER: promises.Promises = {
    "copies": _copies,
    "shapes": _shapes,
    "what is handed in": _inputs_left_alone,
    "repetition": _repeats,
    "what is returned": _arrays_kept,
    "a pending backward": _pending_backward,
    "parameters": _parameters,
    "gradients": _gradients,
    "inference": _inference,
    "dtypes": _dtypes,
    "memory order": _layouts,
    "disturbances": _disturbances,
    "examples": _examples_apart,
    "traced": _traced,
    "checkpoints": _checkpoints,
    "training": _trains,
}
