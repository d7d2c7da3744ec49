"""A network as one function: the way forward of a few rows, played without Python."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from backprop import checks
from backprop.around.boundary import is_traced
from backprop.around.nesting import inside
from backprop.checks import Array
from backprop.engine import native
from backprop.engine.calls import Copy
from backprop.engine.operations import CannotTrace
from backprop.engine.plan import make
from backprop.engine.play import Bound, part_at
from backprop.engine.threads import blas_threads, cores
from backprop.engine.twins import Missing, same_setting, trace_infer
from backprop.layers import Layer

Function = Callable[[Array], Array]

MOST_FLOPS = 2e7  # of a pass that keeps the interpreter to itself, about 0.2 ms; longer ones gain nothing
LEAST_FLOPS = 1e7  # of a thread, about 0.1 ms
MOST_SIZES = 8  # numbers of rows whose passes are kept for each network
COST = 1e-3  # seconds that a pass takes to make: so long NumPy goes on with a size


def compiled(net: Layer, dtype: np.dtype[Any], D: int, rows: int) -> Function:
    """`infer` of a network that nobody else changes, as a function of X (rows, D), or of x (D,) where it takes one row."""
    who = f"{net.label}.compiled"
    bound = inference(who, net, dtype, D, rows)[0]
    slowly = Slowly(who, (rows, D), dtype)
    natively = _natively(bound, slowly, Compiled) if _may_play() else None
    slowly.play, slowly.natively = natively or _by_numpy(bound), natively
    return natively or slowly


class Unpickled:
    """What is not pickled."""

    def __reduce__(self) -> Any:
        advice = "Pickle the network, and compile it where it is loaded."
        raise TypeError(checks.message("pickle", "a network", "a function made of one by compiled()", advice))

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Compiled(Unpickled, tuple[Any, ...]):
    """What the native player's function has."""

    __slots__ = ()


class Slowly(Unpickled):
    """A function of what is no array of this very shape, type and order, once it is one. Raises ValueError or TypeError."""

    play: Function
    natively: Function | None = None

    def __init__(self, who: str, shape: tuple[int, int], dtype: Any) -> None:
        self.who, self.shape, self.dtype = who, shape, dtype

    def __call__(self, given: Any, /) -> Array:
        """F (rows, K), or (K,) for one row alone. An array in float64 is cast first, and looked at where it does not fit."""
        if self.natively is not None and type(given) is np.ndarray and given.dtype == "d" != self.dtype:
            with suppress(ValueError, RuntimeWarning, FloatingPointError):  # what is said of it below
                return self.natively(given.astype(self.dtype, "C"))
        x, shape = np.asarray(given), self.shape
        one = shape[0] == 1 and x.shape == shape[1:]
        if x.shape != shape and not one:
            expected = f"X with shape {shape}" + (f" or {shape[1:]}" if shape[0] == 1 else "")
            raise ValueError(checks.message(self.who, expected, f"shape {x.shape}"))
        X = checks.rows(self.who, x.reshape(shape), shape[1])
        checks.finite(self.who, "X", X, 0, self.dtype)
        found = self.play(np.ascontiguousarray(X, self.dtype))
        return found[0] if one else found


def _may_play() -> bool:
    """Whether there is a native player, and the environment does not keep it from playing."""
    return native.player is not None and os.environ.get("BACKPROP_NATIVE") != "0"


def inference(
    who: str, net: Layer, dtype: np.dtype[Any], D: int, rows: int
) -> tuple[Bound, dict[tuple[str, str], Any]]:
    """The pass of `infer` for so many rows, NumPy's own calls, and the settings that it holds for.

    Raises TypeError where a layer of one's own would have to be called.
    """
    own = [layer for layer in inside(net) if not is_traced(layer)]
    if own:
        advice = "Say traced = True in the class, if its passes always make the same calls."
        if type(own[0]).__module__.startswith("backprop."):
            advice = (
                "It calls a function of yours. Write a layer with forward and backward instead, with traced = True."
            )
        raise TypeError(checks.message(who, "layers that can be traced", repr(own[0]), advice))
    try:
        trace, f = trace_infer(net, D, rows, dtype)
    except CannotTrace as error:
        raise TypeError(checks.message(who, "layers that can be traced", str(error))) from None
    plan = make(None, [], trace.writes, exact=True, results=[f])
    columns = np.zeros((D, rows), dtype)  # of rows, whose products are up to twice as quick
    arrays = {"X": columns.T, **net.parameters, **net.buffers}
    for name in plan.inputs:
        path, colon, attribute = name.rpartition(":")
        if colon:
            arrays[name] = getattr(part_at(net, None, path), attribute)
    return Bound(plan, arrays, exact=True), trace.settings


def _natively(bound: Bound, slowly: Callable[[Any], Any], kind: type = tuple) -> Function | None:
    """The native player's function, which leaves to `slowly` what is no finite X of this type; None where Python is needed."""
    from backprop.engine.native.loops import PICK, PYTHON
    from backprop.engine.native.lower import Operations

    X, f, ops = bound.sources["X"], bound.results[0], Operations([])
    rows = len(X)
    ops.extend(bound.calls)
    if f.dtype != X.dtype:
        return None
    if not f.flags.c_contiguous:
        ops.add(Copy(made := np.empty(f.shape, f.dtype), f))
        f = made
    packed, values = ops.packed(), np.array([*ops.values, 0.0])
    if np.isin(packed["kind"], (PYTHON, PICK)).any():  # which may raise
        return None
    F = f.T if rows == 1 else np.empty((rows, len(f)), f.dtype)
    one = F[0] if rows == 1 else None
    is_double = X.dtype.char == "d"
    return native.player.compiled(packed, values, X.T, f, F, rows, is_double, one, slowly, (ops, bound), kind)


def _by_numpy(bound: Bound) -> Function:
    lock, plays = Lock(), bound.first + bound.rest

    def play(given: Array) -> Array:
        with lock, np.errstate(all="ignore"):
            bound.sources["X"][...] = given
            for call in plays:
                call()
            return bound.results[0].T.copy()

    return play


def _is_short(net: Layer, rows: int) -> bool:
    return 2.0 * net.size * rows <= MOST_FLOPS


def alike(net: Layer, block: int) -> AbstractContextManager[None]:
    """While it is entered, blocks of rows have the same bits whoever computes them: BLAS has one thread where passes may."""
    return blas_threads(1, with_scipys=False) if _is_short(net, block) else nullcontext()


class Passes:
    """The passes of a network that somebody holds and changes, by number of rows: the bits of `infer`, sooner.

    So which of the two computes a prediction is decided by time alone.
    """

    def __init__(self, net: Layer) -> None:
        self._known: OrderedDict[tuple[int, int], Function] = OrderedDict()
        self._free: dict[tuple[int, int], list[Function]] = {}  # of those that several threads play
        self._spent: dict[tuple[int, int], float] = {}
        self._refused = not _may_play()
        self._entries: list[tuple[Mapping[str, Any], str, Any]] = []
        self._noted: list[tuple[Any, str, Any]] = []
        self._sizes: list[tuple[dict[str, Any], int]] = []

    def __call__(self, X: Array) -> Array | None:
        """F (N, K) for finite rows X (N, D) of the network's type; None where `infer` has to do it."""
        play = self._known.get(X.shape)
        if play is None:
            return None
        if not self._is_current():
            self._forget()
            return None
        return play(X)

    def of_blocks(self, net: Layer, X: Array, block: int, F: Array) -> int:
        """Write outputs of X (N, D) to F (N, K), by blocks of rows on threads, the interpreter lock released; how many rows.

        For use within `alike`. None are written where `infer` has to do it. They end before a block that is not finite, and
        before a last, shorter one.
        """
        shape = block, X.shape[1]
        usable = [x.dtype == net.dtype and x.flags.c_contiguous and x.flags.aligned for x in (X, F)]
        usable += [F.flags.writeable, len(X) >= block]
        if shape not in self._known or not all(usable) or not self._is_current():
            return 0
        count = len(X) // block
        threads = max(1, min(cores(), count, int(2.0 * net.size * len(X) / LEAST_FLOPS)))
        free, taken = self._free.setdefault(shape, []), list[Function]()
        while len(taken) < threads:
            try:
                taken.append(free.pop())
            except IndexError:  # other calls have them, or there were none
                taken.append(_natively(inference(net.label, net, X.dtype, X.shape[1], block)[0], _nothing))  # type: ignore[arg-type]
        done = native.player.blocks(taken, X, F)
        free += taken
        return block * int(done)

    def _forget(self) -> None:
        self._known.clear()
        self._free = {}

    def spent(self, net: Layer, X: Array, f: Array, seconds: float) -> None:
        """Note the time of `infer`, which gave f (N, K) for X, and make a pass for this size where it pays."""
        if self._refused or not _is_short(net, len(X)):
            return
        if len(self._spent) > 8 * MOST_SIZES:
            self._spent.clear()
        self._spent[X.shape] = self._spent.get(X.shape, 0.0) + seconds
        if self._spent[X.shape] > COST:
            self._make(net, X, f)

    def _make(self, net: Layer, X: Array, f: Array) -> None:
        try:
            bound, settings = inference(net.label, net, X.dtype, X.shape[1], len(X))
            play = _natively(bound, _nothing)
        except TypeError:
            play = None
        found = None if play is None else play(np.ascontiguousarray(X))
        if play is None or (found is not None and found.tobytes() != f.tobytes()):
            self._refused = True
            return
        if not self._known or not self._is_current():
            self._forget()
            self._note(net, settings, bound)
        while len(self._known) >= MOST_SIZES:
            self._free.pop(self._known.popitem(last=False)[0], None)
        self._known[X.shape] = play

    def _note(self, net: Layer, settings: Mapping[tuple[str, str], Any], bound: Bound) -> None:
        """Keep what the passes hold for: layers, their methods, φ, statistics, arrays that layers keep, and settings."""
        self._entries, self._noted, self._sizes = [(vars(net), "_phi", vars(net).get("_phi"))], [], []
        for layer in inside(net):
            self._sizes.append((vars(layer), len(vars(layer))))  # a method put on the object adds to them
            self._noted += [(layer, "__class__", type(layer)), (type(layer), "infer", type(layer).infer)]
            for kind in type(layer).__mro__:
                if not kind.__module__.startswith("backprop."):
                    own = [(name, value) for name, value in vars(kind).items() if isinstance(value, FunctionType)]
                    self._noted += [(kind, name, value) for name, value in own]
            self._entries.append((vars(layer), "layers", vars(layer).get("layers")))
            for entries in (layer.children, vars(layer).get("buffers", {})):
                self._entries += [(entries, key, value) for key, value in entries.items()]
        self._noted += [(part_at(net, None, path), name, value) for (path, name), value in settings.items()]
        for name, array in bound.sources.items():
            path, colon, attribute = name.rpartition(":")
            self._noted += [(part_at(net, None, path), attribute, array)] if colon else []

    def _is_current(self) -> bool:
        for entries, key, value in self._entries:
            if entries.get(key) is not value:
                return False
        for own, size in self._sizes:
            if len(own) != size:
                return False
        for part, name, value in self._noted:
            now = getattr(part, name, Missing)
            if now is not value and not same_setting(now, value):
                return False
        return True


def _nothing(given: Any) -> None:
    """What a pass gives that cannot take an X."""


_passes: WeakKeyDictionary[Layer, Passes] = WeakKeyDictionary()


def passes_of(net: Layer) -> Passes:
    """The passes of this very network."""
    found = _passes.get(net)
    if found is None:
        found = _passes[net] = Passes(net)
    return found
