"""The plans of a step: made once for nets of one structure and the same settings, and remembered.

A plan is made of a trace of both passes and of one of the rule. What the rule's list says of g decides where a gradient lands.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from backprop import notation
from backprop.around.boundary import is_traced
from backprop.around.nesting import inside
from backprop.engine.live import Live
from backprop.engine.operations import CannotTrace, Op, refusal
from backprop.engine.plan import Form, Land, Plan, is_number, linear, make
from backprop.engine.play import part_at
from backprop.engine.statistics import Statistics, statistics
from backprop.engine.trace import Number
from backprop.engine.twins import Missing, Rule, Step, same_setting, trace_rule, trace_step
from backprop.layers import Layer, Linear
from backprop.losses import Loss
from backprop.optimizers import Optimizer

PIECE = 1 << 16  # entries of φ updated at a time: few enough for the cache, enough to be worth a call
MOST_PLANS = 64  # kept for nets of the same structure


@dataclass(frozen=True)
class Shape:
    """What a pass is planned for: n examples of D features, targets, weights, and the type of φ."""

    n: int
    D: int
    y: tuple[tuple[int, ...], Any]
    weighted: bool
    dtype: Any

    def of(self, n: int) -> Shape:
        """The same for n examples."""
        kind, y = self.y
        return replace(self, n=n, y=((*kind[:-1], n), y))


@dataclass(eq=False)
class Plans:
    """The plans of a step of one structure: both passes, and what the rule does once the gradient has landed."""

    passes: Any  # Plan
    landed: str  # "phi", "velocity", or "g": where the gradient goes
    update: Plan | None = None  # of a piece of φ
    mixes: bool = False  # the rule looks at all of φ at once
    moves: list[tuple[str, str, float | Number]] = field(
        default_factory=list
    )  # (target, source, coefficient): axpy after the landing
    settings: dict[tuple[str, str], Any] = field(default_factory=dict)
    statistics: Statistics | None = None  # None: they move with the pass


_plans: OrderedDict[Any, list[tuple[Any, dict[tuple[str, str], Any]]]] = OrderedDict()


_lock = threading.RLock()

T = TypeVar("T")


def remembered(
    key: Any, net: Layer, loss: Loss | None, rule: Optimizer | None, make: Callable[[], tuple[T, Any, bool]]
) -> T:
    """What was made for nets of this structure with these settings, or made anew; `make` also returns its settings, and
    whether it is for this net alone, as where a layer of one's own may return what its class does not tell.
    """
    key = _structure(net), type(loss), is_traced(loss), rule and (type(rule), is_traced(rule), tuple(rule.slots)), key
    with _lock:
        known = _plans.setdefault(key, [])
        _plans.move_to_end(key)
        while len(_plans) > MOST_PLANS:
            _plans.popitem(last=False)
        for made, settings in known:
            if fits(settings, net, loss, rule):
                return made
    made, settings, own = make()
    if not own:
        with _lock:
            known[:] = [(made, settings), *known[:3]]
    return made


def fits(settings: Mapping[tuple[str, str], Any], net: Layer, loss: Loss | None, rule: Optimizer | None) -> bool:
    """Whether the settings that a plan was made for are what they were."""
    for (path, name), value in settings.items():
        part = rule if path == "rule." else part_at(net, loss, path)
        if not same_setting(getattr(part, name, Missing), value):
            return False
    return True


def plans_for(
    net: Layer,
    loss: Loss,
    rule: Optimizer | None,
    shape: Shape,
    land: bool,
    exact: bool = False,
    apart: bool = False,
) -> Plans:
    """The plans of this structure, from those there are or made anew. `land` lets the gradient of SGD land in φ; running
    statistics move with the pass, or where that is possible `apart` from it.
    """

    def planned() -> tuple[Plans, Any, bool]:
        plans = make_plans(net, loss, rule, shape, land, exact, apart)
        return plans, plans.settings, plans.passes.is_opaque

    return remembered((shape, land, exact, apart, rule is not None and rule.clips), net, loss, rule, planned)


def _structure(net: Layer) -> Any:
    """Classes and shapes, for layers inside layers."""
    arrays = (
        () if net.children else tuple((k, a.shape, a.dtype) for k, a in (*net.parameters.items(), *net.buffers.items()))
    )
    inside = tuple((key, _structure(child)) for key, child in net.children.items())
    return type(net), is_traced(net), arrays, inside, getattr(net, "checkpoint", None)


def make_plans(
    net: Layer,
    loss: Loss,
    rule: Optimizer | None,
    shape: Shape,
    land: bool,
    exact: bool,
    apart: bool,
    live: Live | None = None,
) -> Plans:
    """Both passes traced and planned, with the gradient where the rule wants it."""
    _require_settings(net, loss, rule)
    step = trace_step(net, loss, shape.D, shape.n, shape.y, shape.weighted, shape.dtype, live=live)
    _require_constant(net, loss, shape, step, live)
    effects = [op for op in step.trace.ops if op.kind == "call"]
    landing = None
    if land and not exact and not effects and rule is not None and is_traced(rule) and not rule.clips and net.size:
        landing = _landing(trace_rule(rule, min(PIECE, net.size), shape.dtype))
    target, scale, keep, moves = landing or ("g", 1.0, 0.0, [])
    prefix = "" if target == "phi" else f"{target} "
    lands = [Land(f"{prefix}{name}", op.shape, op, scale, keep) for name, op in step.gradients.items()]
    writes = step.trace.writes
    moving = statistics(writes, [step.L, *step.gradients.values()]) if apart else None
    writes, seen = (writes, ()) if moving is None else ({}, moving.seen)
    passes = make(step.L, lands, writes, effects=effects, turn=step.turn, kept=step.kept, exact=exact, results=seen)
    passes.generators, passes.settings = step.trace.places, step.trace.settings
    update = (None, False) if landing or rule is None else rule_plans(rule, net.size, shape.dtype)
    settings = step.trace.settings | (_rule_settings(rule, shape.dtype) if rule is not None and is_traced(rule) else {})
    return Plans(passes, target, *update, moves=moves, settings=settings, statistics=moving)


def _require_settings(net: Layer, loss: Loss, rule: Optimizer | None) -> None:
    """Refuse settings out of range, by the words of the constructors."""
    for layer in inside(net):
        if not (layer.children or layer._for_good or isinstance(layer, Linear)):  # which have none that could change
            notation.settings(layer)
    notation.settings(loss)
    if rule is not None:
        notation.settings(rule, learning_rate=1.0)  # a schedule checks itself, and serves one optimizer


def rule_plans(rule: Optimizer | None, size: int, dtype: Any) -> tuple[Plan | None, bool]:
    """The plan of a rule on a piece of φ, or on all of it where the rule mixes entries; None for a rule of one's own."""
    if rule is None or not is_traced(rule) or not size:
        return None, False
    plan = _rule_plan(rule, min(PIECE, size), dtype)
    shapes = {op.shape for op in _ops(plan)}
    mixes = any(op.kind != "ufunc" or op.function[1] != "__call__" for op in _ops(plan))
    constants = any(np.ndim(x) for op in _ops(plan) for x in op.inputs if not isinstance(x, Op))
    if not mixes and not constants and shapes <= {(min(PIECE, size),), ()}:
        return plan, False
    return (_rule_plan(rule, size, dtype) if size > PIECE else plan), True


def _rule_plan(rule: Optimizer, size: int, dtype: Any) -> Plan:
    traced = trace_rule(rule, size, dtype)
    inputs = [op for op in traced.trace.ops if op.kind == "input"]
    new = {op: traced.new[str(op.function)] for op in inputs if op.function in traced.new}
    return make(None, [], {op: value for op, value in new.items() if op is not value}, scratch="g")


def _rule_settings(rule: Optimizer, dtype: Any) -> dict[tuple[str, str], Any]:
    return trace_rule(rule, 1, dtype).trace.settings


def _ops(plan: Plan) -> Iterator[Op]:
    for step in plan.steps:
        yield step.value if isinstance(step, Land) else step


def _require_constant(net: Layer, loss: Loss, shape: Shape, step: Step, live: Live | None) -> None:
    """Trace once more where a class of one's own says `traced`: what differs was drawn, counted or remembered elsewhere."""
    if all(type(part).__module__.startswith("backprop.") for part in (loss, *inside(net))):
        return
    again = trace_step(net, loss, shape.D, shape.n, shape.y, shape.weighted, shape.dtype, live=live and live.again())
    for op, other in zip(step.trace.ops, again.trace.ops, strict=False):
        same = (op.kind, op.shape, op.dtype, len(op.inputs)) == (
            other.kind,
            other.shape,
            other.dtype,
            len(other.inputs),
        )
        if not (same and all(map(_same_input, op.inputs, other.inputs))):
            what = f"{op.line}: a number that differs from pass to pass"
            raise CannotTrace(
                f"{what} cannot be traced. Draw from a generator kept as an attribute; keep state in `buffers`."
            )
    if len(step.trace.ops) != len(again.trace.ops):
        raise refusal("a pass whose calls differ from time to time", "Leave `traced` out.")


def _same_input(x: Any, y: Any) -> bool:
    if isinstance(x, Op):
        return isinstance(y, Op) and x.number == y.number
    return bool(np.array_equal(x, y, equal_nan=True)) if isinstance(x, np.ndarray) else x is y or x == y or x != x


Landing = tuple[str, float | Number, float | Number, list[tuple[str, str, float | Number]]]


def _landing(rule: Rule) -> Landing | None:
    """Where the gradient may land, by the form of the rule: φ' = keep·φ + scale·g, or v' of that form and φ' = φ + c v'."""
    inputs = {str(op.function): op for op in rule.trace.ops if op.kind == "input"}
    phi, g, new = inputs["phi"], inputs["g"], rule.new
    vectors = [name for name in new if name != "phi"]
    form = linear(new["phi"], [new[name] for name in vectors])
    if form is None or any(str(op.function) in ("weight_decay", "l1") for op in form):
        return None
    if not vectors and form.keys() <= {phi, g} and g in form:
        return "phi", form[g], form.get(phi, 0.0), []
    if len(vectors) != 1 or form.keys() != {phi, new[vectors[0]]} or not is_number(form[phi], 1):
        return None
    v: Form | None = linear(new[vectors[0]])
    if v is None or g not in v or not v.keys() <= {g, phi, inputs[vectors[0]]}:
        return None
    moves = [(vectors[0], "phi", v[phi])] if phi in v else []
    moves.append(("phi", vectors[0], form[new[vectors[0]]]))
    return vectors[0], v[g], v.get(inputs[vectors[0]], 0.0), moves
