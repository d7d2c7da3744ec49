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
from backprop.gradients.experiments import analytic, ignores_the_last_forward, loss_remembers, parts, traces
from backprop.gradients.hypotheses import (
    LEFT_OVER,
    Case,
    Known,
    candidates,
    factor_text,
    near,
    term_text,
    transposed,
    wrong_terms,
)
from backprop.gradients.numeric import index_of
from backprop.gradients.problem import Problem
from backprop.gradients.report import GradientReport

NOISE = {"complex step": 1e-14, "Richardson differences": 1e-9}  # of n, relative to its largest entry
MOST_MISTAKES = 3
ENTRIES = 1000  # checked of each part, enough to tell hypotheses apart

Measure = Callable[..., GradientReport]


def explained(report: GradientReport, problem: Problem, measure: Measure) -> GradientReport:
    """The report with the likely mistakes, each naming its layer."""
    with np.errstate(all="ignore"):
        found = list(dict.fromkeys(_blame(problem, measure)))
    # What was seen of the whole network is worth saying only where no layer was found to do it.
    found += [mistake for mistake in report.mistakes if not any("state changed" in text for text in found)]
    if not found:
        found = [
            "each layer is right by itself, and so is the loss: look at what they share, or at the network's own code."
        ]
    return dataclasses.replace(report, mistakes=tuple(found[:MOST_MISTAKES]))


def blames(problem: Problem, measure: Measure) -> bool:
    """Whether a layer or the loss is wrong by itself."""
    with np.errstate(all="ignore"):
        return any(True for _ in _blame(problem, measure))


def _blame(problem: Problem, measure: Measure) -> Iterator[str]:
    of_loss = problem.of_loss()
    report = measure(of_loss, ENTRIES)
    if loss_remembers(of_loss):
        yield f"{problem.loss!r}: stale cache: ∂L/∂f depends on an earlier forward pass, not only on the last one."
    elif not report.passed:
        yield from (f"{problem.loss!r}: {text}" for text in _loss_mistakes(report, of_loss, measure))
    guilty: set[str] = set()
    for name, layer, h in parts(problem):
        path = name.partition(",")[0]
        if any(inner.startswith(f"{path}.") for inner in guilty):
            continue
        try:
            of_layer = problem.of_layer(layer, h)
        except (TypeError, ValueError):
            continue  # inside a composite of one's own, which hands its layers something else than its h
        texts = list(traces(of_layer)) or list(_layer_mistakes(measure(of_layer, ENTRIES), of_layer, measure))
        if texts:
            guilty.add(path)
            yield from (f"{name}: {text}" for text in texts)


def _layer_mistakes(report: GradientReport, alone: Problem, measure: Measure) -> Iterator[str]:
    layer, whole = alone.net[0], analytic(alone.fresh(), "X")[0]
    f = alone.fresh().forward()
    known = Known(layer, alone.h, f, alone.loss.weights(f.shape), dict(alone.net.parameters))  # type: ignore[attr-defined]
    numbers = {"examples": alone.n, "outputs": len(f), "inputs": len(alone.h)}
    for case in _cases(report, whole):
        name = "∂L/∂h" if case.tensor.name == "X" else f"the gradient of {case.tensor.name.removeprefix('0.')}"
        texts = [text for text in _at_a_glance(case) if text]
        texts += [text for text in (_factor(case, numbers, alone, measure),) if text]
        texts += candidates(case, known) or wrong_terms(case, known)
        if not texts and ignores_the_last_forward(alone):
            texts = ["does not depend on the last forward pass: a stale cache?"]
        yield f"{name} {texts[0] if texts else 'is wrong in a way that fits no known mistake.'}"


def _loss_mistakes(report: GradientReport, alone: Problem, measure: Measure) -> Iterator[str]:
    whole = analytic(alone.fresh(), "X")[0]
    f, y, w = alone.h.T, alone.y, alone.w
    if y.ndim == 1:
        y = np.eye(f.shape[1])[:, y.astype(int)]
    share = np.full(len(f), 1 / len(f)) if w is None else w / w.sum()
    numbers = {"examples": alone.n, "outputs": f.shape[1]}
    for case in _cases(report, whole):
        texts = [text for text in _at_a_glance(case) if text]
        texts += [text for text in (_factor(case, numbers, alone, measure),) if text]
        if w is not None and case.multiple(case.n, of=case.a * case.at(w[:, None])) is not None:
            texts.append("leaves the sample weights out.")
        terms = {
            "the targets y, weighted,": y.T,
            "the outputs f, weighted,": f,
            "a constant, weighted,": np.ones_like(f),
        }
        for name, term in terms.items():
            if term.shape == f.shape:
                texts += term_text(case, name, case.at(term * share[:, None]))
        yield f"∂L/∂f {texts[0] if texts else 'is wrong in a way that fits no known mistake.'}"


def _cases(report: GradientReport, whole: Mapping[str, Array]) -> Iterator[Case]:
    for tensor in report.tensors:
        if tensor.error > report.tolerance:
            yield Case(tensor, whole[tensor.name], NOISE[report.method])


def _at_a_glance(case: Case) -> Iterator[str]:
    """What can be seen without a hypothesis: NaN, zeros, a single wrong entry, row or column."""
    a, n, tensor = case.a, case.n, case.tensor
    if not np.isfinite(case.whole).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(case.whole))[0])
        yield f"holds NaN or inf, first at {index}."
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
        kinds = ("example", "feature") if tensor.name == "X" else ("row", "column")
        for axis, kind in enumerate(kinds[: places.shape[1]]):
            # More entries of other rows must have been looked at, or "only" says nothing.
            if places.shape[1] > 1 and len(set(places[:, axis])) == 1 < tensor.shape[axis]:
                yield f"is wrong in {kind} {int(places[0, axis])} alone."


def _factor(case: Case, numbers: Mapping[str, int], problem: Problem, measure: Measure) -> str:
    """A constant ratio a/n in words; where the number of examples may be its cause, one example less must change it."""
    r = case.multiple(case.n, of=case.a)
    if r is None or np.count_nonzero(case.n) < min(2, case.n.size):
        return ""
    N = numbers["examples"]
    if N > 1 and (near(abs(r), N) or near(abs(r), 1 / N)):
        again = next(t for t in measure(problem.without_the_last(), ENTRIES).tensors if t.name == case.tensor.name)
        ratio = abs(float(again.numeric @ again.analytic / (again.numeric @ again.numeric)))
        follows = near(ratio, N - 1) or near(ratio, 1 / (N - 1))
        numbers = {name: number for name, number in numbers.items() if (name == "examples") == follows}
        if follows:
            return factor_text(r, numbers).replace(": a factor 2 too much", "").replace(": a factor 2 is missing", "")
    return factor_text(r, numbers)


def explained_function(report: GradientReport, x: Array, g: Array, sizes: Mapping[str, int]) -> GradientReport:
    """The report of a plain function with the likely mistake."""
    with np.errstate(all="ignore"):
        (case,) = _cases(report, {"x": g})
        texts = [text for text in _at_a_glance(case) if text]
        r = case.multiple(case.n, of=case.a)
        texts += [factor_text(r, sizes)] if r is not None else []
        texts += transposed(case) + term_text(case, "x itself, as an L2 penalty has it,", case.at(x))
        texts += _two_terms(case, x, sizes) + _part(case, sizes)
    text = texts[0] if texts else "is wrong in a way that fits no known mistake."
    return dataclasses.replace(report, mistakes=(f"∂f/∂x {text}",))


def _two_terms(case: Case, x: Array, sizes: Mapping[str, int]) -> list[str]:
    """A = r n + s x, where x may be penalized in some entries only: those whose ratio is not the one of the others."""
    terms = np.stack([case.n, case.at(x)], axis=1)
    if np.isfinite(case.a).all() and len(case.n) > 3:
        r, s = np.linalg.lstsq(terms, case.a)[0]
        if min(abs(r), abs(s)) > LEFT_OVER and case.leaves_nothing(case.a - terms @ [r, s]):
            return [_one_term_wrong(r, sizes)]
    r = _usual_ratio(case)
    if r is None:
        return []
    penalized = np.where(np.abs(case.a - r * case.n) > LEFT_OVER * np.abs(case.a - case.n), case.at(x), 0.0)
    if case.multiple(penalized, of=case.a - r * case.n) is None:
        return []
    return [_one_term_wrong(r, sizes)]


def _one_term_wrong(r: float, sizes: Mapping[str, int]) -> str:
    text = factor_text(float(r), sizes).removesuffix(".")
    return f"{text}; but the term proportional to x (an L2 penalty) is right: a wrong factor on one term only."


def _usual_ratio(case: Case) -> float | None:
    """The ratio a/n that most entries share."""
    there = np.abs(case.n) > 1e-9 * np.max(np.abs(case.n))
    ratios = np.sort(case.a[there] / case.n[there])
    if len(ratios) < 3:
        return None
    same = np.diff(ratios) <= 1e-7 * np.abs(ratios[1:])
    best, length, start = 0, 0, 0
    for i in range(len(ratios)):
        if i and not same[i - 1]:
            start = i
        if i - start + 1 > length:
            best, length = start, i - start + 1
    return float(np.median(ratios[best : best + length])) if length >= 2 else None


def _part(case: Case, sizes: Mapping[str, int]) -> list[str]:
    """A constant ratio in one stretch of x, right everywhere else."""
    wrong = np.flatnonzero(np.abs(case.a - case.n) > LEFT_OVER * np.max(np.abs(case.a - case.n)))
    if not len(wrong) or len(wrong) == len(case.n):
        return []
    part = dataclasses.replace(case.tensor, at=case.tensor.at[wrong], analytic=case.a[wrong], numeric=case.n[wrong])
    r = Case(part, case.whole, case.noise).multiple(case.n[wrong], of=case.a[wrong])
    first, last = int(case.tensor.at[wrong[0]]), int(case.tensor.at[wrong[-1]])
    where = f"from entry {first} to {last} (flattened)"
    return (
        [f"is wrong only {where}, and there it {factor_text(r, sizes)}"]
        if r is not None
        else [f"is wrong only {where}."]
    )
