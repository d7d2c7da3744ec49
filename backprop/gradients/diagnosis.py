"""Which mistake explains a wrong gradient: hypotheses, each tested against the numbers or by an experiment.

A failed check is first located: every layer is checked alone under L = Σ c ⊙ f, and so is the loss. Then, for each wrong tensor
with a = what backward gives and n = the truth,

    traces         passes that must not matter: another forward before, an infer in between, a second backward
    factors        a = r n                            sign, mean against sum, a forgotten 2
    candidates     a = what a known mistake gives     transposed, slope forgotten, wrong axis, inverted indicator
    terms          a = n + s t                        t is missing (s = −1), counted twice (s = 1), or has another factor

The last three are in `hypotheses`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from backprop.checks import Array
from backprop.gradients import hypotheses
from backprop.gradients.comparison import DIFFERENCES, EXACT, measure
from backprop.gradients.disturbances import traces
from backprop.gradients.experiments import analytic, ignores_the_last_forward, parts
from backprop.gradients.hypotheses import LEFT_OVER, Case, Known, factor_text, near, term_text
from backprop.gradients.numeric import index_of
from backprop.gradients.problem import Problem
from backprop.gradients.report import GradientReport

NOISE = {EXACT: 1e-14, DIFFERENCES: 1e-9}  # of n, relative to its largest entry
MOST_MISTAKES = 3
NOWHERE = "each layer is right by itself, and so is the loss: look at what they share, or at the network's own code."
ENTRIES = 1000  # checked of each part, enough to tell hypotheses apart


def explained(report: GradientReport, problem: Problem) -> GradientReport:
    """The report with the likely mistakes, each naming its layer."""
    with np.errstate(all="ignore"):
        found = list(dict.fromkeys(_blame(problem)))
    # What was seen of the whole network is worth saying only where no layer was found to do it.
    found += [mistake for mistake in report.mistakes if not any("state changed" in text for text in found)]
    return dataclasses.replace(report, mistakes=tuple(found[:MOST_MISTAKES]) or (NOWHERE,))


def blames(problem: Problem) -> bool:
    """Whether a layer or the loss is wrong by itself."""
    with np.errstate(all="ignore"):
        return any(True for _ in _blame(problem))


def _blame(problem: Problem) -> Iterator[str]:
    of_loss = problem.of_loss()
    report = measure(of_loss, ENTRIES)[0]
    if texts := list(traces(of_loss)):
        yield from (f"{problem.loss!r}: {text}" for text in texts)
    elif not report.passed:
        yield from (f"{problem.loss!r}: {text}" for text in _loss_mistakes(report, of_loss))
    guilty: set[str] = set()
    for name, layer, h in parts(problem):
        path = name.partition(",")[0]
        if any(inner.startswith(f"{path}.") for inner in guilty):
            continue
        of_layer = problem.of_layer(layer, h)
        texts = list(traces(of_layer)) or list(_layer_mistakes(measure(of_layer, ENTRIES)[0], of_layer))
        if texts:
            guilty.add(path)
            yield from (f"{name}: {text}" for text in texts)


def _mistakes(
    report: GradientReport, whole: Mapping[str, Array], texts: Callable[[Case], Iterator[str]]
) -> Iterator[str]:
    """What the first hypothesis that explains it says of each wrong tensor."""
    names = {"X": "∂L/∂h", "f": "∂L/∂f", "x": "∂f/∂x"}
    for tensor in report.tensors:
        if tensor.error > report.tolerance:
            case = Case(tensor, whole[tensor.name], NOISE[report.method])
            name = names.get(tensor.name, f"the gradient of {tensor.name.removeprefix('0.')}")
            text = next(texts(case), "is wrong in a way that fits no known mistake.")
            yield f"{name} {text}"


def _layer_mistakes(report: GradientReport, alone: Problem) -> Iterator[str]:
    known = Known(alone)
    numbers = {"examples": alone.n, "outputs": len(known.f), "inputs": len(known.h)}

    def texts(case: Case) -> Iterator[str]:
        yield from _at_a_glance(case)
        yield from _factor(case, numbers, alone)
        yield from hypotheses.known_mistakes(case, known)
        if ignores_the_last_forward(alone):
            yield "does not depend on the last forward pass: a stale cache?"

    return _mistakes(report, analytic(alone)[0], texts)


def _loss_mistakes(report: GradientReport, alone: Problem) -> Iterator[str]:
    f, y, w = alone.h.T, alone.y, alone.w
    if y.ndim == 1:
        y = np.eye(f.shape[1])[:, y.astype(int)]
    share = np.full(len(f), 1 / len(f)) if w is None else w / w.sum()
    terms = {"the targets y": y.T, "the outputs f": f, "a constant": np.ones_like(f)}

    def texts(case: Case) -> Iterator[str]:
        yield from _at_a_glance(case)
        yield from _factor(case, {"examples": alone.n, "outputs": f.shape[1]}, alone)
        if w is not None and case.multiple(case.n, of=case.a * case.at(w[:, None])) is not None:
            yield "leaves the sample weights out."
        for name, term in terms.items():
            if term.shape == f.shape:
                yield from term_text(case, f"{name}, weighted,", case.at(term * share[:, None]))

    return _mistakes(report, analytic(alone)[0], texts)


def explained_function(report: GradientReport, x: Array, g: Array, sizes: Mapping[str, int]) -> GradientReport:
    """The report of a plain function with the likely mistake."""

    def texts(case: Case) -> Iterator[str]:
        yield from _at_a_glance(case)
        if (r := case.multiple(case.n, of=case.a)) is not None:
            yield factor_text(r, sizes)
        yield from hypotheses.transposed(case)
        yield from term_text(case, "x itself, as an L2 penalty has it,", case.at(x))
        yield from _two_terms(case, x, sizes)
        yield from _part(case, sizes)

    with np.errstate(all="ignore"):
        return dataclasses.replace(report, mistakes=tuple(_mistakes(report, {"x": g}, texts)))


def _at_a_glance(case: Case) -> Iterator[str]:
    """What can be seen without a hypothesis: NaN, zeros, a single wrong entry, row or column."""
    a, n, tensor = case.a, case.n, case.tensor
    if not np.isfinite(case.whole).all():
        yield f"holds NaN or inf, first at {tuple(map(int, np.argwhere(~np.isfinite(case.whole))[0]))}."
        return
    if not a.any() and n.any():
        yield "is 0 everywhere: it is not computed, or a term is missing."
        return
    if tensor.kinks[np.argmax(tensor.errors)]:
        yield "is no subgradient at a kink: it lies outside the slopes to the left and to the right."
    wrong = np.abs(a - n) > LEFT_OVER * np.max(np.abs(a - n))
    places = np.array([index_of(place, tensor.shape) for place in tensor.at[wrong]])
    if wrong.sum() == 1 < len(wrong):
        yield f"is wrong in the single entry {tuple(map(int, places[0]))}."
    elif tensor.shape and len(wrong) > wrong.sum() > 1:
        kinds = ("example", "feature") if tensor.name in ("X", "f") else ("row", "column")
        for axis, kind in enumerate(kinds[: places.shape[1]]):
            # More entries of other rows must have been looked at, or "only" says nothing.
            if places.shape[1] > 1 and len(set(places[:, axis])) == 1 < tensor.shape[axis]:
                yield f"is wrong in {kind} {int(places[0, axis])} alone."


def _factor(case: Case, numbers: Mapping[str, int], problem: Problem) -> Iterator[str]:
    """A constant ratio a/n in words; where the number of examples may be its cause, one example less must change it."""
    r = case.multiple(case.n, of=case.a)
    if r is None or np.count_nonzero(case.n) < min(2, case.n.size):
        return
    N, follows = numbers["examples"], False
    if N > 1 and (near(abs(r), N) or near(abs(r), 1 / N)):
        report = measure(problem.without_the_last(), ENTRIES)[0]
        again = next(tensor for tensor in report.tensors if tensor.name == case.tensor.name)
        ratio = abs(float(again.numeric @ again.analytic / (again.numeric @ again.numeric)))
        follows = near(ratio, N - 1) or near(ratio, 1 / (N - 1))
        numbers = {name: number for name, number in numbers.items() if (name == "examples") == follows}
    text = factor_text(r, numbers)
    yield text.replace(": a factor 2 too much", "").replace(": a factor 2 is missing", "") if follows else text


def _two_terms(case: Case, x: Array, sizes: Mapping[str, int]) -> Iterator[str]:
    """A wrong factor on all but the term of a penalty."""
    if (r := _without_penalty(case, case.at(x))) is not None:
        text = factor_text(r, sizes).removesuffix(".")
        yield f"{text}; but the term proportional to x (an L2 penalty) is right: a wrong factor on one term only."


def _without_penalty(case: Case, x: Array) -> float | None:
    """R of a = r n + s x, where x may be penalized in some entries only: those whose ratio is not the one of the others."""
    if np.isfinite(case.a).all() and len(case.n) > 3:
        terms = np.stack([case.n, x], axis=1)
        r, s = map(float, np.linalg.lstsq(terms, case.a)[0])
        if min(abs(r), abs(s)) > LEFT_OVER and case.leaves_nothing(case.a - terms @ [r, s]):
            return r
    usual = _usual_ratio(case)
    if usual is None:
        return None
    rest = case.a - usual * case.n
    penalized = np.where(np.abs(rest) > LEFT_OVER * np.abs(case.a - case.n), x, 0.0)
    return None if case.multiple(penalized, of=rest) is None else usual


def _usual_ratio(case: Case) -> float | None:
    """The ratio a/n that most entries share."""
    there = np.abs(case.n) > 1e-9 * np.max(np.abs(case.n))
    ratios = np.sort(case.a[there] / case.n[there])
    if len(ratios) < 3:
        return None
    same = np.diff(ratios) <= 1e-7 * np.abs(ratios[1:])
    shared = max(np.split(ratios, np.flatnonzero(~same) + 1), key=len)
    return float(np.median(shared)) if len(shared) > 1 else None


def _part(case: Case, sizes: Mapping[str, int]) -> Iterator[str]:
    """A constant ratio in one stretch of x, right everywhere else."""
    wrong = np.flatnonzero(np.abs(case.a - case.n) > LEFT_OVER * np.max(np.abs(case.a - case.n)))
    if 0 < len(wrong) < len(case.n):
        at = case.tensor.at[wrong]
        part = dataclasses.replace(case.tensor, at=at, analytic=case.a[wrong], numeric=case.n[wrong])
        r = Case(part, case.whole, case.noise).multiple(case.n[wrong], of=case.a[wrong])
        there = "" if r is None else f", and there it {factor_text(r, sizes)}".removesuffix(".")
        yield f"is wrong only from entry {at[0]} to {at[-1]} (flattened){there}."
