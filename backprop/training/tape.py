"""The tape: the NumPy calls of one training step, written down once and played back at every later step.

A replica's arrays are the same objects in every step, so the calls of a step are the same, too: same functions, same arguments.
Recording keeps the calls and drops what Python does between them (attribute look-ups, checks, views, dictionaries), which
for a small network is most of the time. The layers are not written for it: during the one recorded pass they are given arrays
of the class `Recorded`, which notice each ufunc applied to them.

Only layers and losses that say `replays = True` in their own class are recorded call by call. Anything else, such as a layer
of one's own, becomes a single call of its `forward` and one of its `backward`: always right, a little slower.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.blas import Landing, prepare
from backprop.checks import Array
from backprop.layers import Composite, Layer
from backprop.layers.base import Gradients
from backprop.losses import Loss
from backprop.memory import replays

PLAYABLE = {np.copyto, np.concatenate}  # NumPy functions that are not ufuncs and may be on a tape
HARMLESS = {np.result_type, np.shape}  # those that only look at types and shapes, the same in every step


class Tape:
    """A list of calls without arguments, with a mark where the forward pass ends."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.turn = 0

    def play_forward(self) -> None:
        """Run the calls of the forward pass again."""
        for call in self.calls[: self.turn]:
            call()

    def play_backward(self) -> None:
        """Run the calls of the backward pass again."""
        for call in self.calls[self.turn :]:
            call()

    def run(self, call: Callable[[], object]) -> None:
        """Run a call now and at every later `play`."""
        call()
        self.calls.append(call)

    def watch(self, array: Array) -> Array:
        """The same memory, in an array that writes what is done to it on this tape."""
        watched = array.view(Recorded)
        watched.tape = self
        return watched


class Recorded(np.ndarray[Any, Any]):
    """An array whose ufunc calls are written on a tape. What would make a step depend on its numbers is refused."""

    tape: Tape

    def __array_finalize__(self, parent: Any) -> None:
        self.tape = getattr(parent, "tape", None)  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        tape = next(x.tape for x in (*inputs, *(out or ())) if isinstance(x, Recorded))
        arguments = [plain(x) for x in inputs]
        function = getattr(ufunc, method)
        if "where" in options:
            options["where"] = plain(options["where"])
        target = plain(out[0]) if out else np.asarray(function(*arguments, **options))
        tape.run(partial(function, *arguments, out=target, **options))
        return out[0] if out else tape.watch(target)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function in HARMLESS:
            return function(*plain(arguments))
        arguments, options = plain(arguments), {name: plain(value) for name, value in options.items()}
        if function is np.dot:  # with out=, as `Linear` writes it; here it becomes a prepared product
            A, B = arguments
            self.tape.run(partial(prepare(A, B, options["out"]), 1.0, 0.0))
            return self.tape.watch(options["out"])
        if function not in PLAYABLE:
            raise NotImplementedError(f"np.{function.__name__} cannot be written on a tape")
        result = function(*arguments, **options)
        if function is not np.copyto:
            options.setdefault("out", result)
        self.tape.calls.append(partial(function, *arguments, **options))
        return result if result is None else self.tape.watch(result)

    def astype(self, dtype: Any, copy: bool = True, **options: Any) -> Any:  # type: ignore[override]
        """A conversion is a copy at every play; to the same type without `copy` it is nothing."""
        if self.dtype == dtype and not copy:
            return self
        converted = np.empty(self.shape, dtype)
        self.tape.run(partial(np.copyto, converted, plain(self), casting="unsafe"))
        return self.tape.watch(converted)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("a step that reads its numbers in Python cannot be written on a tape")

    __bool__ = __int__ = __float__ = __complex__ = __index__ = __setitem__ = _refuse
    item = tolist = copy = fill = _refuse


def plain(value: Any) -> Any:
    """The same memory as an ordinary array, also inside lists and tuples."""
    if isinstance(value, Recorded):
        return value.view(np.ndarray)
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


@dataclass(eq=False)
class TapedLanding(Landing):
    """A landing whose products are prepared once; scale and keep are read at each play, so they may change.

    Off the tape (`tape` None), which is where a layer of one's own runs, it is an ordinary landing.
    """

    tape: Tape | None = None

    def outer(self, dL_df: Array, h: Array) -> Array:
        """Land dL_df hᵀ with one prepared product."""
        if self.tape is None or self.target is None:
            return super().outer(dL_df, h)
        return self._play(self.tape, plain(dL_df), plain(h).T, self.target)

    def sum(self, dL_df: Array) -> Array:
        """Land the sum over examples as the product with a column of ones, several times faster than a reduction."""
        if self.tape is None or self.target is None:
            return super().sum(dL_df)
        dL_df = plain(dL_df)
        return self._play(self.tape, dL_df, np.ones((dL_df.shape[1], 1), dL_df.dtype), self.target)

    def _play(self, tape: Tape, A: Array, B: Array, C: Array) -> Array:
        call = prepare(A, B, C.reshape(len(A), -1))
        tape.run(lambda: call(self.scale, self.keep))
        return C


class Opaque(Layer):
    """A layer that is on the tape as one call of its forward and one of its backward."""

    def __init__(self, layer: Layer, tape: Tape) -> None:
        self.layer, self.tape = layer, tape
        self.in_features, self.out_features = layer.in_features, layer.out_features
        for leaf in layer.leaves():
            for landing in leaf._landings.values():
                if isinstance(landing, TapedLanding):
                    landing.tape = None

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]
        """Those of the layer."""
        return self.layer.parameters

    def land_in(self, landings: dict[str, Landing]) -> None:
        """Hand the landings on."""
        self.layer.land_in(landings)

    def reseed(self, *key: int) -> None:
        """Hand the key on."""
        self.layer.reseed(*key)

    def snapshot(self) -> Opaque:
        """Record the taking of a snapshot, which must be new in each step."""
        again = copy.copy(self)

        def take() -> None:
            again.layer = self.layer.snapshot()

        self.tape.run(take)
        return again

    def forward(self, h: Array) -> Array:
        """Record layer.forward into an array of our own: what the layer returns may be a new array each time."""
        h = plain(h)
        f = np.array(self.layer.forward(h))
        self.tape.calls.append(lambda: np.copyto(f, self.layer.forward(h)))
        return self.tape.watch(f)

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Record layer.backward, with its gradients landed."""
        dL_df = plain(dL_df)

        def run() -> Array:
            through, gradients = checks.backward_result(self.layer, self.layer.backward(dL_df))
            self.layer.take(gradients)
            return through

        dL_dh = np.array(run())
        self.tape.calls.append(lambda: np.copyto(dL_dh, run()))
        return self.tape.watch(dL_dh), {}

    def take(self, gradients: Gradients) -> Gradients:
        """Nothing is left to land."""
        return gradients


def put_on(layer: Layer, tape: Tape) -> Layer:
    """Prepare a replica for its recorded pass."""
    if isinstance(layer, Composite) and replays(layer):
        layer.layers = {key: put_on(child, tape) for key, child in layer.layers.items()}
    elif not replays(layer):
        return Opaque(layer, tape)
    else:
        layer.parameters = {name: tape.watch(array) for name, array in layer.parameters.items()}
    layer._tape = tape
    return layer


class Recording:
    """One step of a replica, recorded in two halves: the loss is known before any gradient lands."""

    def __init__(self, net: Layer, loss: Loss, tape: Tape) -> None:
        self.net, self.loss, self.tape = put_on(net, tape), loss, tape

    def forward(self, h: Array, y: Array, w: Array | None, divisor: float) -> Array:
        """Run and record the forward pass; returns Σ w ℓ, an array (1,) that every play fills anew."""
        loss, tape = self.loss, self.tape
        f = self.net.forward(tape.watch(h))
        if replays(loss):
            loss._tape = tape
            total = plain(loss.total(f, tape.watch(y), None if w is None else tape.watch(w), divisor))
        else:
            f, total = plain(f), np.empty(1, f.dtype)
            tape.run(lambda: np.copyto(total, loss.total(f, y, w, divisor)))
        tape.turn = len(tape.calls)
        return total

    def backward(self) -> None:
        """Run and record the backward pass."""
        loss, tape = self.loss, self.tape
        if replays(loss):
            dL_df = loss.slope()
        else:
            slope = np.array(loss.slope())
            tape.calls.append(lambda: np.copyto(slope, loss.slope()))
            dL_df = tape.watch(slope)
        self.net.backward(dL_df)
