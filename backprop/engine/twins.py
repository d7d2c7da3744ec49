"""Twins: the parts of a step as a trace sees them. A user's own layers, losses and rules are never touched by it.

A twin is an object of the same class with stand-ins in the place of parameters, buffers, arrays and generators, and with copies
of lists and dicts, through every attribute that is, or holds, a layer or loss. What its passes read of plain attributes is noted
as a setting. What they read and then set, state that would go from pass to pass, is refused: it belongs in `buffers`.
A part that does not say `traced = True` in its own class becomes `OpaqueLayer` or `OpaqueLoss`: calls of its passes, in order.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from inspect import getattr_static, unwrap
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from backprop.around.boundary import backward, forward, is_traced
from backprop.around.held import Arrays
from backprop.checks import Array, StandIn
from backprop.engine.live import NotFinite, total_on_copies
from backprop.engine.operations import CannotTrace, Op, base, refusal
from backprop.engine.trace import ALPHA, STEP, Draws, Trace, Value
from backprop.layers import Gradients, Layer
from backprop.losses import Loss
from backprop.losses.base import slope, total
from backprop.optimizers import Optimizer

UNCHANGING = (int, float, complex, str, bool, type(None), np.generic, np.dtype, type, Arrays)
PLAIN = (int, float, complex, str, bool, type(None), tuple, list, dict, set, np.generic, np.dtype, type)
HIDDEN = [
    "parameters",
    "buffers",
    "layers",
    "_shape",
    "_inside",
    "_owned",
    "_called",
    "_share",
    "_of",
    "_came",
    "_phi",
    "_mark",
]
OF_RULES = ("t", "state")  # which move with each step

_classes: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def twin(part: Any, trace: Trace, path: str = "", place: tuple[int, ...] = ()) -> Any:
    """The twin of a layer or loss at this path of keys, which is `place` in numbers."""
    if not is_traced(part) or (
        trace.apart and isinstance(part, Layer) and not type(part).__module__.startswith("backprop.")
    ):
        return (OpaqueLoss if isinstance(part, Loss) else OpaqueLayer)(part, trace, path)
    made: Any = object.__new__(_watched(type(part)))
    own = vars(made)
    own["_trace"], own["_part"], own["_path"], own["_made"], own["_read"] = trace, part, path, set(), set()
    for i, (key, child) in enumerate(_children(part).items()):
        own.setdefault("layers", {})[key] = twin(child, trace, f"{path}{key}.", (*place, i))
    held = [*vars(part).get("parameters", ()), *vars(part).get("buffers", ())]
    for name, value in vars(part).items():
        if name not in own and name not in held:
            own[name] = _stand_in(value, name, trace, path, place)
    return made


def _children(part: Any) -> dict[str, Layer]:
    return part.children if isinstance(part, Layer) else {}


def _stand_in(value: Any, name: str, trace: Trace, path: str, place: tuple[int, ...]) -> Any:
    """What a twin has in the place of an attribute."""
    if isinstance(value, Arrays):
        inputs: Any = {key: trace.input(f"{path}{key}", array.shape, array.dtype) for key, array in value.items()}
        made: Any = StoodIn(inputs)
        made.aliases = value.aliases
        return made
    if isinstance(value, np.random.Generator):
        return Draws(trace, f"{path}{name}", place)
    if isinstance(value, np.ndarray):
        made = trace.input(f"{path}:{name}", value.shape, value.dtype)
        if (other := trace.arrays.setdefault(id(value), made)) is not made:
            trace.shared |= {made.op, other.op}
        return made
    if isinstance(value, Layer | Loss):
        return twin(value, trace, f"{path}{name}.", (*place, 0))
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | set | tuple) else ()
    if any(isinstance(each, Layer | Loss) for each in inside):
        advice = "Make it a Composite, whose `layers` are a dict."
        raise refusal(f"{name}, a {type(value).__name__} of layers", advice)
    return value


class StoodIn(Arrays):
    """The parameters or buffers of a twin: what is assigned to one is its value after the step."""

    def __setitem__(self, name: str, value: Any) -> None:
        self[name][...] = value


def _watched(kind: type) -> type:
    """A subclass whose objects note what is read of them, and refuse state."""
    if kind in _classes:
        return _classes[kind]

    def __getattribute__(self: Any, name: str) -> Any:
        try:
            value = object.__getattribute__(self, name)
        except AttributeError:
            _note_missing(object.__getattribute__(self, "__dict__"), name)
            raise
        if name == "__dict__" and not sys._getframe(1).f_globals.get("__name__", "").startswith("backprop."):
            _note_all(self, value)
        if name[:2] == "__" or name in HIDDEN or (name in OF_RULES and issubclass(kind, Optimizer)):
            return value
        own = object.__getattribute__(self, "__dict__")
        return value if name in own["_made"] or name in own["_read"] else _first_read(kind, own, name, value)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        own = object.__getattribute__(self, "__dict__")
        if name in own["_read"] and name not in own["_made"]:
            raise _state(f"{kind.__name__}.{name}")
        own["_made"].add(name)
        kind.__setattr__(self, name, value)  # type: ignore[call-arg]

    body = {"__getattribute__": __getattribute__, "__setattr__": __setattr__, "traced": True}
    made = _classes[kind] = type(kind.__name__, (kind,), body | {"__module__": kind.__module__})
    return made


def _first_read(kind: type, own: dict[str, Any], name: str, value: Any) -> Any:
    """What a pass gets that reads an attribute for the first time, noted as a setting."""
    before = vars(own["_part"]).get(name, own)
    if before is own and not _is_setting(kind, name, value):
        return value
    own["_read"].add(name)
    if isinstance(before, Layer | Loss | np.random.Generator):
        return value
    seen = value if before is own else before  # of the class, a property, or its own
    of_the_class = before is own and isinstance(seen, np.ndarray)  # no input of the list: its numbers count
    now = seen.copy() if of_the_class else described(seen)
    known = own["_trace"].settings.setdefault((own["_path"], name), now)
    if value is seen and known is not seen:  # what may change in place: a copy is read, and looked at in the end
        value = own[name] = copy.deepcopy(value)
        own["_trace"].read.append((f"{kind.__name__}.{name}", value, known))
    return value


def _is_setting(kind: type, name: str, value: Any) -> bool:
    """Whether a class attribute or property is a setting: no method, and nothing computed of stand-ins."""
    if isinstance(value, PLAIN):
        return True
    return not callable(value) and not isinstance(value, StandIn) and getattr_static(kind, name) is value


def _state(name: str) -> CannotTrace:
    return refusal(f"{name}, which a pass reads and then changes,", "Keep it in `buffers`, or leave `traced` out.")


def require_unchanged(trace: Trace) -> None:
    """Refuse lists, objects and the like that a pass has read and changed in place; arrays of this pass in a dict are a cache."""
    for name, value, known in trace.read:
        if isinstance(value, dict):
            cached = {key for key, x in value.items() if _of_this_pass(x)}
            value, known = ({k: x for k, x in each.items() if k not in cached} for each in (value, known))
        if not same_setting(value, known):
            raise _state(name)


def _of_this_pass(x: Any) -> bool:
    return isinstance(x, StandIn) or (isinstance(x, list | tuple) and any(map(_of_this_pass, x)))


def _note_missing(own: dict[str, Any], name: str) -> None:
    """That a part has no such attribute is a setting, too: it may get one."""
    if name[:2] != "__" and name not in HIDDEN and "_part" in own and not hasattr(own["_part"], name):
        own["_trace"].settings.setdefault((own["_path"], name), Missing)
        own["_read"].add(name)


def _note_all(part: Any, own: dict[str, Any]) -> None:
    """That a pass looked at all attributes at once: each is a setting."""
    for name in vars(own["_part"]):
        if not name.startswith("_") and name not in own["_read"]:
            getattr(part, name)
            own["_read"].discard(name)


class Missing:
    """The setting that there is none of this name."""


class Shaped(NamedTuple):
    """What is kept of an array that is an input of the list."""

    shape: tuple[int, ...]
    dtype: Any


def described(value: Any) -> Any:
    """A setting, to be compared later: of an array only shape and type, for its numbers are an input of the list."""
    if isinstance(value, np.ndarray):
        return Shaped(value.shape, value.dtype)
    if isinstance(value, UNCHANGING):
        return value
    try:
        return copy.deepcopy(value)  # the very same, where nothing in it can change
    except Exception:
        return value


def same_setting(value: Any, known: Any) -> bool:
    """Whether a setting is what was described: containers by their entries, objects by what a copy of them takes."""
    if value is known:
        return True
    if isinstance(known, Shaped):
        return isinstance(value, np.ndarray) and known == (value.shape, value.dtype)
    if type(value) is not type(known):
        return False
    if isinstance(value, np.ndarray):
        return value.dtype == known.dtype and np.array_equal(value, known, equal_nan=value.dtype.kind in "fc")
    if isinstance(value, dict):
        return list(value) == list(known) and all(map(same_setting, value.values(), known.values()))
    if isinstance(value, list | tuple):
        return len(value) == len(known) and all(map(same_setting, value, known))
    if isinstance(value, float | complex | np.inexact):
        return repr(value) == repr(known)  # −0.0 is another number than 0.0, NaN the same
    try:
        if getattr_static(type(value), "__eq__") is vars(object)["__eq__"]:  # objects without one of their own
            return same_setting(value.__reduce_ex__(4), known.__reduce_ex__(4))
        return bool(value == known)
    except Exception:  # what can neither be compared nor copied is itself alone
        return False


def _written_at(method: Any) -> str:
    """Where a pass of one's own stands, in the form of the lines of a trace."""
    code = getattr(unwrap(method), "__code__", None)
    if code is None:
        return ""
    return f"{'/'.join(code.co_filename.rsplit('/', 2)[-2:])}:{code.co_firstlineno} in {code.co_name}"


@dataclass(eq=False)
class OpaqueLayer:
    """A layer of one's own: one call of its forward and one of its backward."""

    layer: Layer
    trace: Trace
    path: str
    traced = True

    @property
    def parameters(self) -> dict[str, Array]:
        """Those of the layer, for the names and shapes of its gradients."""
        return self.layer.parameters

    def forward(self, h: Value) -> Value:
        """What `forward` returns. Where the numbers are known it is called; else a copy of the layer is run on ones."""
        op, live = self.trace.now(h), self.trace.live
        if live is None:
            self.probe = copy.deepcopy(self.layer)
            with np.errstate(all="ignore"):
                f = forward(self.probe, np.ones(h.shape, h.dtype))
        else:
            f = live.result(("forward", self.path), lambda: np.array(forward(self.layer, np.array(live(op)))))
        self.f = self.trace.add("call", ("forward", self.path), (h,), f.shape, f.dtype, {})
        self.f.op.line = _written_at(type(self.layer).forward)
        if live is not None:
            live.values[self.f.op] = np.array(f)
        return self.f

    def backward(self, dL_df: Value) -> tuple[Value, Gradients]:
        """What `backward` returns."""
        op, live, add = self.trace.now(dL_df), self.trace.live, self.trace.add
        if live is None:
            with np.errstate(all="ignore"):
                dL_dh, gradients = backward(self.probe, np.ones(dL_df.shape, dL_df.dtype))
        else:
            call = lambda: copy.deepcopy(backward(self.layer, np.array(live(op))))  # noqa: E731
            dL_dh, gradients = live.result(("backward", self.path), call)
        made = add("call", ("backward", self.path), (dL_df, self.f), np.shape(dL_dh), np.asarray(dL_dh).dtype, {})
        made.op.line = line = _written_at(type(self.layer).backward)
        found = {}
        for name, array in gradients.items():
            shape = (dL_df.shape[1], *np.shape(array)) if self.trace.apart else np.shape(array)
            found[name] = add("call", ("gradient", self.path, name), (made,), shape, np.asarray(array).dtype, {})
            found[name].op.line = line
            if live is not None:
                live.values[found[name].op] = np.asarray(array)
        if live is not None:
            live.values[made.op] = np.asarray(dL_dh)
        return made, found  # type: ignore[return-value]


@dataclass(eq=False)
class OpaqueLoss:
    """A loss of one's own: one call for L and one for ∂L/∂f."""

    loss: Loss
    trace: Trace
    path: str = ""

    def total(self, f: Value, y: Value, share: Value) -> Value:
        """L."""
        self.f, live, now = f, self.trace.live, self.trace.now
        self.L = self.trace.add("call", ("total",), (f, y, share), (), f.dtype, {})
        if live is not None:
            args = [live.sources["y"], live.sources["share"]]
            live.values[self.L.op] = live.result(("total",), lambda: total_on_copies(self.loss, live(now(f)), *args))
        return self.L

    def slope(self) -> Value:
        """∂L/∂f."""
        made = self.trace.add("call", ("slope",), (self.L, self.f), self.f.shape, self.f.dtype, {})
        if (live := self.trace.live) is not None:
            live.values[made.op] = np.asarray(live.result(("slope",), lambda: np.array(slope(self.loss))), made.dtype)
        return made


def total_of(loss: Any, f: Any, y: Any, share: Any) -> Any:
    """L of a twin."""
    return loss.total(f, y, share) if isinstance(loss, OpaqueLoss) else total(loss, f, y, share)


def slope_of(loss: Any) -> Any:
    """∂L/∂f of a twin."""
    return loss.slope() if isinstance(loss, OpaqueLoss) else slope(loss)


@dataclass
class Step:
    """The trace of a training step: L, ∂L/∂f, the gradients by name and ∂L/∂h, with the list they are in."""

    trace: Trace
    turn: int  # operations before this number belong to the way forward
    f: Op
    L: Op
    gradients: dict[str, Op]
    dL_dX: Op
    kept: frozenset[Op]  # what `checkpoint=k` keeps of the way forward; empty: everything


def trace_step(
    net: Layer,
    loss: Loss | None,
    D: int,
    n: int,
    y: tuple[tuple[int, ...], Any],
    weighted: bool,
    dtype: Any,
    *,
    apart: bool = False,
    live: Any = None,
) -> Step:
    """Trace both passes over n examples of D features: h (D, n), targets of a shape and type as a loss takes them.

    Without a loss, the targets are ∂L/∂f, from which the way back begins. With `apart`, layers of one's own give the gradients of
    each example.
    """
    trace = Trace(apart=apart, live=live)
    own = twin(net, trace)
    h = trace.view(trace.input("X", (n, D), dtype), ("T",))
    targets = trace.input("y", *y)
    s = trace.input("share", (n,) if weighted else (), dtype)
    f, kept = _forward(net, own, h)
    its = None if loss is None else twin(loss, trace, "loss.")
    L = f if its is None else trace.known(total_of(its, f, targets, s))
    turn = len(trace.ops)
    if live is not None and not np.isfinite(number := float(live(trace.now(L)))):
        raise NotFinite(number)
    if kept:
        kept |= set(trace.ops[trace.now(f).number :])  # the loss is small, and needed at once
    trace.turn()
    dL_df: Any = targets if its is None else trace.known(slope_of(its))
    dL_dh, gradients = backward(own, dL_df)
    if trace.refused:
        raise trace.refused
    require_unchanged(trace)
    now = trace.now
    landing = {name: now(trace.known(g)) for name, g in gradients.items()}
    return Step(trace, turn, now(f), now(L), landing, now(trace.known(dL_dh)), frozenset(kept))


def _forward(net: Layer, own: Any, h: Any) -> tuple[Any, set[Op]]:
    """f, and what is kept where the outermost network says `checkpoint=k`: the output of every k-th layer."""
    k = getattr(own, "checkpoint", None) if is_traced(net) else None  # read of the twin, and thereby noted as a setting
    if not k:
        return h.trace.known(forward(own, h)), set()
    kept = set()
    for i, layer in enumerate(own.layers.values(), start=1):
        h = h.trace.known(forward(layer, h))
        if i % k == 0 or i == len(own.layers):
            kept.add(base(h.trace.now(h)))
    vars(own)["_shape"] = h.shape
    return h, kept


def trace_infer(net: Layer, D: int, n: int, dtype: Any) -> tuple[Trace, Op]:
    """Trace the inference pass over n examples."""
    from backprop.around.boundary import infer

    trace = Trace()
    f = infer(twin(net, trace), trace.view(trace.input("X", (n, D), dtype), ("T",)))  # type: ignore[arg-type]
    return trace, trace.now(f)


@dataclass
class Rule:
    """The trace of an optimizer's `move` on vectors: the new φ and the new state, by name."""

    trace: Trace
    new: dict[str, Op]


def trace_rule(rule: Optimizer, size: int, dtype: Any) -> Rule:
    """Trace weight decay, rule and l1 on vectors of this size."""
    trace = Trace()
    own = twin(rule, trace, "rule.")
    vars(own)["t"] = STEP

    def penalty(name: str) -> Any:
        value = rule.penalty(name)
        trace.settings["rule.", name] = described(getattr(rule, name))
        return trace.input(name, (size,), dtype) if np.ndim(value) else value

    vars(own)["penalty"] = penalty
    names = ("phi", "g", *rule.slots)
    vectors = {name: trace.input(name, (size,), dtype) for name in names}
    own.move(ALPHA, *vectors.values())
    if trace.refused:
        raise trace.refused
    require_unchanged(trace)
    read = {str(x.function) for op in trace.ops for x in op.inputs if isinstance(x, Op) and x.kind == "input"}
    if kept := sorted(each.removeprefix("rule.:") for each in read if each.startswith("rule.:")):
        what = f"{type(rule).__name__}.update: arrays kept as attributes, {', '.join(kept)},"
        raise CannotTrace(f"{what} cannot be traced. A vector of a rule is one of its `slots`; or leave `traced` out.")
    for name in ("weight_decay", "l1"):
        trace.settings["rule.", name] = described(getattr(rule, name))
    return Rule(trace, {name: trace.now(value) for name, value in vectors.items() if name != "g"})
