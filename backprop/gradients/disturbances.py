"""What must not change a gradient: passes before and in between, the order of memory, the number of examples, the type.

The derivatives prove a gradient at one φ, for one batch, in float64. Here each layer, and the loss, is asked for it again under
L = Σ c ⊙ f after whatever people do: other inputs, fewer and more examples, other parameters, an `infer`, another object of the
class, the same array with other numbers in it. What must be equal is compared; derivatives are found only where it is not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np

from backprop.around import boundary
from backprop.around.nesting import draws
from backprop.checks import Array
from backprop.gradients.comparison import measure
from backprop.gradients.experiments import STATE, TWICE, natural_sizes, parts
from backprop.gradients.numeric import largest, random_direction
from backprop.gradients.problem import Problem, run
from backprop.layers import Gradients

SAME = 1e-9  # relative: another order of memory adds in another order
ALIKE = 0.02  # float32 against float64, of the largest entry, beside …
STEP32 = 1e-6  # … what a shake of φ and h by so much changes in either
ROUNDINGS = 1e-14  # of what a gradient would be if nothing cancelled
PARTS = 6  # numbers of examples below this are looked at each
ENTRIES = 60  # checked where a number of examples is looked at

Disturbance = Callable[[Problem], None]


def disturbed(problem: Problem) -> Iterator[str]:
    """What layers, the innermost first, and the loss are disturbed by, in words that begin with the name of each.

    Those of the library are not asked: its own tests do.
    """
    guilty: set[str] = set()
    for name, layer, h in parts(problem):
        path = name.partition(",")[0]
        if not _is_ours(layer) and not any(inner.startswith(f"{path}.") for inner in guilty):
            texts = list(of_part(problem.of_layer(layer, h)))
            guilty |= {path} if texts else set()
            yield from (f"{name}: {text}" for text in texts)
    if not _is_ours(problem.loss):
        yield from (f"{problem.loss!r}: {text}" for text in of_part(problem.of_loss()))


def _is_ours(part: object) -> bool:
    return type(part).__module__.startswith("backprop.")


def of_part(alone: Problem) -> Iterator[str]:
    """What one layer or loss alone is disturbed by."""
    alone = copy.copy(alone)
    alone.rounding = {name: ROUNDINGS * natural for name, natural in natural_sizes(alone).items()}
    yield from list(traces(alone)) or [*_scales(alone), *_sizes(alone), *_elsewhere(alone), *_types(alone)]


def traces(alone: Problem) -> Iterator[str]:
    """Which passes and arrays disturb the gradients: all at once, and where that does, one by one."""
    plain, before, between = _answer(alone), [*BEFORE.values()], [*BETWEEN.values()]
    # What comes first matters to what is kept of the first pass.
    once = _same(alone, _answer(alone, before, between, order="C"), plain)
    if not (once and _same(alone, _answer(alone, before[::-1], order="F", twice=True), plain)):
        yield from list(_one_by_one(alone, plain)) or [f"{STALE} the passes that came before."]
    yield from _written(alone)


def _one_by_one(alone: Problem, plain: Gradients | None) -> Iterator[str]:
    if not _same(alone, _answer(alone, twice=True), plain):
        yield TWICE
    for text, disturb in BETWEEN.items():
        if not _same(alone, _answer(alone, between=[disturb]), plain):
            yield text
    for text, disturb in BEFORE.items():
        if not _same(alone, _answer(alone, [disturb]), plain):
            yield text
    if not all(_same(alone, _answer(alone, order=order), plain) for order in ("C", "F")):
        yield "depends on the order of memory of h or ∂L/∂f: the same numbers in Fortran's order give another gradient."


def _scales(alone: Problem) -> Iterator[str]:
    """Whether ∂L/∂f of other sizes gives gradients of those sizes; of a loss, which makes it, that is not asked."""
    if alone.inputs == "f":
        return
    fresh = alone.fresh()
    fresh.value()
    slope = fresh.loss.backward()
    plain = fresh.backward(slope.copy())
    found = [{name: g / by for name, g in fresh.backward(slope * by).items()} for by in (1e3, 1e-6)]
    if not all(_same(alone, each, plain) for each in found):
        yield "is not linear in ∂L/∂f: a thousand times as large a ∂L/∂f must give a thousand times as large a gradient."


def _answer(
    alone: Problem,
    before: list[Disturbance] | None = None,
    between: list[Disturbance] | None = None,
    *,
    order: str = "K",
    twice: bool = False,
) -> Gradients | None:
    """The gradients after disturbances; None where they lead to an error."""
    fresh = alone.fresh()
    fresh.h = np.array(fresh.h, order=order)  # type: ignore[call-overload]
    for disturb in before or []:
        with suppress(Exception):  # a layer may refuse a single example, say
            disturb(fresh)
    try:
        fresh.value()
        for disturb in between or []:
            with suppress(Exception):
                disturb(fresh)
        slope = fresh.loss.backward()
        dL_df = np.array(0.5 * slope, order=order)  # type: ignore[call-overload]
        if twice:
            fresh.backward(dL_df)
        dL_df[...] = slope  # the same array with other numbers
        return fresh.backward(dL_df)
    except Exception:
        if before or between or twice or order != "K":
            return None
        raise


def _same(alone: Problem, found: Gradients | None, plain: Gradients | None) -> bool:
    if found is None or plain is None:
        return False
    scale = 1e-6 * max(map(largest, plain.values()))  # beside which a tensor is rounding alone
    slack = {name: SAME * max(largest(g), scale) + alone.rounding.get(name, 0.0) for name, g in plain.items()}
    return all(np.allclose(found[name], g, rtol=0, atol=slack[name], equal_nan=True) for name, g in plain.items())


def _pass(fresh: Problem, h: Array) -> None:
    """Both passes over other inputs, with the same layer."""
    f = run(fresh.net, h.copy())
    boundary.backward(fresh.net, random_direction(f.shape, 1))
    y = fresh.y[..., np.arange(h.shape[1]) % fresh.n][..., ::-1].copy()
    fresh.loss.forward(f, y)
    fresh.loss.backward()


def _with_other_inputs(fresh: Problem) -> None:
    _pass(fresh, fresh.decoy())


def _with_fewer_and_more(fresh: Problem) -> None:
    for h in (fresh.h[:, :1], fresh.h[:, :-1], np.c_[fresh.h, fresh.decoy()]):
        with suppress(Exception):
            _pass(fresh, h)


def _with_other_parameters(fresh: Problem) -> None:
    phi = fresh.net.phi.copy()
    fresh.net.phi[...] = 0.75 * phi + 0.25 * phi[::-1]
    try:
        _pass(fresh, fresh.h)
    finally:
        fresh.net.phi[...] = phi


def _many(fresh: Problem) -> None:
    for _ in range(12):
        _pass(fresh, fresh.h)


def _infer(fresh: Problem) -> None:
    boundary.infer(fresh.net, fresh.decoy())
    fresh.loss.per_example(run(fresh.net.copy(), fresh.decoy()), fresh.y)


def _of_another_object(fresh: Problem) -> None:
    _with_other_inputs(fresh.fresh())


STALE = "stale cache: what backward gives depends on"
BEFORE: dict[str, Disturbance] = {
    f"{STALE} the parameters of an earlier pass, not only on those of the last one.": _with_other_parameters,
    f"{STALE} how many passes came before.": _many,
    f"{STALE} an earlier forward pass, not only on the last one.": _with_other_inputs,
    f"{STALE} an earlier pass over another number of examples.": _with_fewer_and_more,
}
BETWEEN: dict[str, Disturbance] = {
    f"{STATE}: a pass of another object of this class writes over what backward needs.": _of_another_object,
    f"{STATE}: infer writes over what backward needs.": _infer,
}


def _written(alone: Problem) -> Iterator[str]:
    """Arrays that a pass only reads."""
    fresh, y = alone.fresh(), alone.y.copy()
    fresh.loss.ell(fresh.forward(), y)
    if not np.array_equal(y, alone.y):
        yield "ell writes over the targets, which are the caller's."
    fresh = alone.fresh()
    fresh.value()
    if not np.array_equal(fresh.h, alone.h):
        yield f"{STATE}: forward writes over its input, which the layer before it may need."
    given = fresh.loss.backward()
    h = fresh.h.copy()
    boundary.backward(fresh.net, given)
    if not np.array_equal(given, fresh.loss.backward()):
        yield "backward writes over the ∂L/∂f that it is given, which other branches may need."
    if not np.array_equal(h, fresh.h):
        yield f"{STATE}: backward writes over the input of the last forward pass."
    if not np.array_equal(alone.net.phi, fresh.net.phi):
        yield f"{STATE}: a pass writes over a parameter."


def _sizes(alone: Problem) -> Iterator[str]:
    """Numbers of examples for which the gradient is wrong, though it is right for these."""
    if not _adds_up(alone):
        numbers = sorted({*range(1, PARTS), alone.n - 1, alone.n, 2 * alone.n + 1} - {0})
        wrong = [str(n) for n in numbers if not _passes(_of_size(alone, n))]
        if wrong:
            yield f"is right for {alone.n} examples and wrong for {' and '.join(wrong)}."


def _passes(problem: Problem) -> bool:
    """Whether derivatives say so; a part may refuse a single example, or give no finite number there."""
    try:
        L = problem.fresh().value()
    except Exception:
        return True
    if not math.isfinite(L):
        return True
    try:
        return measure(problem, ENTRIES)[0].passed
    except Exception:  # of backward alone
        return False


def _elsewhere(alone: Problem) -> Iterator[str]:
    """Whether the gradient is right at other parameters, too: something may be kept of those it was made with."""
    moved = alone.fresh()
    moved.net.phi[...] = 0.75 * alone.net.phi + 0.25 * alone.net.phi[::-1]
    if alone.net.size and not _passes(moved):
        yield "is right for these parameters and wrong for others: what is kept of parameters does not move with them."


def _of_size(alone: Problem, n: int) -> Problem:
    """The same for n examples: those there are, then others between them."""
    other = copy.copy(alone)
    other.h = np.c_[alone.h, alone.decoy(), alone.h[:, :1]][:, :n].copy()
    other.y = alone.y[..., np.arange(n) % alone.n].copy()
    other.w = None
    return other


def _adds_up(alone: Problem) -> bool:
    """Whether the gradient of many examples is that of parts of them, put together: then it is right for any number."""
    if alone.net.couples_examples or draws(alone.net):
        return False
    whole = _of_size(alone, 2 * alone.n + 1)
    c = random_direction(whole.fresh().forward().shape, 3)
    found = _of_columns(whole, c, slice(None))
    n, end = alone.n, whole.n
    for cuts in ([0, n, 2 * n, end], *([0, k, end] for k in {*range(1, PARTS), n - 1} if 0 < k < end)):
        pieces = [_of_columns(whole, c, slice(a, b)) for a, b in pairwise(cuts) if a < b]
        there = [piece for piece in pieces if piece is not None]
        if found is None or len(there) < len(pieces):
            return False
        joined: Gradients = {name: sum(piece[name] for piece in there) for name in found if name != whole.inputs}  # type: ignore[misc]
        joined[whole.inputs] = np.concatenate([piece[whole.inputs] for piece in there])
        if not _same(alone, found, joined):
            return False
    return True


def _of_columns(whole: Problem, c: Array, columns: slice) -> Gradients | None:
    """Gradients for some of the examples; of a loss, N times as large for a mean, so that they add up."""
    fresh = whole.fresh()
    fresh.h, fresh.y = fresh.h[:, columns].copy(), whole.y[..., columns].copy()
    fresh.w = None
    try:
        if whole.inputs == "f":
            fresh.value()
            return fresh.backward(fresh.loss.backward() * (fresh.n if fresh.loss.reduction == "mean" else 1))
        fresh.forward()
        return fresh.backward(c[:, columns].copy())
    except Exception:
        return None


def _types(alone: Problem) -> Iterator[str]:
    """Whether float32 gives the same, but for what rounding φ and h to float32 changes."""
    rng = np.random.default_rng(0)
    exact = copy.copy(alone)
    exact.net, exact.h = alone.net.copy(), alone.h.astype(np.float32).astype(float)
    exact.net.phi[...] = exact.net.phi.astype(np.float32)
    single = copy.copy(exact)
    single.net, single.h, single.dtype = exact.net.copy(), exact.h.astype(np.float32), np.dtype(np.float32)
    single.net.bind(exact.net.phi.astype(np.float32))
    single.y = alone.y.astype(np.float32) if alone.y.dtype.kind == "f" else alone.y
    shaken = [each.fresh() for each in (exact, single)]
    for each in shaken:
        for array in (each.net.phi, each.h):
            array *= (1 + STEP32 * rng.uniform(-1, 1, array.shape)).astype(array.dtype)
    try:
        expected, found, *moved = (each.fresh().gradients() for each in (exact, single, *shaken))
    except Exception:
        return  # float32 is asked for, not what code of one's own that is not made for it does
    scale = max(map(largest, expected.values()))  # beside which a tensor may be rounding alone
    for name, array in expected.items():
        noise = max(largest(there[name] - here[name]) for here, there in zip((expected, found), moved, strict=True))
        rounding = alone.rounding.get(name, 0.0) * float(np.finfo(np.float32).eps / np.finfo(float).eps)
        slack = ALIKE * max(largest(array), 1e-3 * scale) + 10 * noise + rounding
        if np.isfinite(found[name]).all() and largest(found[name] - array) > slack:
            yield f"is right in float64 and wrong in float32: look at {name.removeprefix('0.')}."
