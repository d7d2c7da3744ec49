"""Which mistake explains a wrong gradient: hypotheses, each tested against the numbers or by an experiment.

A failed check is first located: every layer is checked alone under L = Σ c ⊙ f, and so is the loss. Then, for each wrong tensor
with a = what backward gives and n = the truth,

    traces         passes that must not matter: another forward before, an infer in between, a second backward
    factors        a = r n                            sign, mean against sum, a forgotten 2
    candidates     a = what a known mistake gives     transposed, slope forgotten, wrong axis, inverted indicator
    terms          a = n + s t                        t is missing (s = −1), counted twice (s = 1), or has another factor

A hypothesis explains a tensor if it leaves less than a millionth of the difference a − n.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from backprop.checks import Array
from backprop.gradients.experiments import analytic, ignores_the_last_forward, loss_remembers, parts, traces
from backprop.gradients.numeric import index_of
from backprop.gradients.problem import Problem
from backprop.gradients.report import GradientReport, Tensor
from backprop.layers import Composite, Layer

LEFT_OVER = 1e-6  # share of a difference that a hypothesis may leave unexplained
NOISE = {"complex step": 1e-14, "Richardson differences": 1e-9}  # of n, relative to its largest entry
MOST_MISTAKES = 3
ENTRIES = 1000  # checked of each part, enough to tell hypotheses apart

Measure = Callable[..., GradientReport]


@dataclass(frozen=True)
class Case:
    """One wrong tensor: what backward gives (whole, and at the checked entries) and the truth at those entries."""

    tensor: Tensor
    whole: Array
    noise: float

    @property
    def a(self) -> Array:
        """What backward gives, at the checked entries."""
        return self.tensor.analytic

    @property
    def n(self) -> Array:
        """The truth, at the checked entries."""
        return self.tensor.numeric

    def at(self, array: Array) -> Array:
        """The checked entries of an array of the tensor's shape."""
        return np.broadcast_to(array, self.tensor.shape).reshape(-1)[self.tensor.at]

    def leaves_nothing(self, rest: Array) -> bool:
        """Whether a rest, at the checked entries, is nothing beside a − n."""
        largest = float(np.max(np.abs(self.n), initial=0.0))
        return bool(np.max(np.abs(rest)) <= LEFT_OVER * np.max(np.abs(self.a - self.n)) + self.noise * largest)

    def is_(self, candidate: Array) -> bool:
        """Whether backward gives this array."""
        return np.shape(candidate) == self.tensor.shape and self.leaves_nothing(self.a - self.at(candidate))

    def multiple(self, term: Array, of: Array | None = None) -> float | None:
        """S where a − n (or `of`) = s · term; None if it is no multiple, or too few entries to tell."""
        difference = self.a - self.n if of is None else of
        if np.count_nonzero(term) < min(3, max(1, term.size)) or not np.isfinite(term).all():
            return None
        s = float(term @ difference / (term @ term))
        return s if s and self.leaves_nothing(difference - s * term) else None


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
        except (
            TypeError,
            ValueError,
        ):  # inside a composite of one's own, which hands its layers something else than its h
            continue
        texts = list(traces(of_layer)) or list(_layer_mistakes(measure(of_layer, ENTRIES), of_layer, measure))
        if texts:
            guilty.add(path)
            yield from (f"{name}: {text}" for text in texts)


def _layer_mistakes(report: GradientReport, alone: Problem, measure: Measure) -> Iterator[str]:
    layer, whole = alone.net[0], analytic(alone.fresh(), "X")[0]
    f = alone.fresh().forward()
    known = _Known(layer, alone.h, f, alone.loss.weights(f.shape), dict(alone.net.parameters))  # type: ignore[attr-defined]
    numbers = {"examples": alone.n, "outputs": len(f), "inputs": len(alone.h)}
    for case in _cases(report, whole):
        name = "∂L/∂h" if case.tensor.name == "X" else f"the gradient of {case.tensor.name.removeprefix('0.')}"
        texts = [text for text in _at_a_glance(case) if text]
        texts += [text for text in (_factor(case, numbers, alone, measure),) if text]
        texts += _candidates(case, known) or _terms(case, known)
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
                texts += _term_text(case, name, case.at(term * share[:, None]))
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
    if N > 1 and (_near(abs(r), N) or _near(abs(r), 1 / N)):
        again = next(t for t in measure(problem.without_the_last(), ENTRIES).tensors if t.name == case.tensor.name)
        ratio = abs(float(again.numeric @ again.analytic / (again.numeric @ again.numeric)))
        follows = _near(ratio, N - 1) or _near(ratio, 1 / (N - 1))
        numbers = {name: number for name, number in numbers.items() if (name == "examples") == follows}
        if follows:
            return factor_text(r, numbers).replace(": a factor 2 too much", "").replace(": a factor 2 is missing", "")
    return factor_text(r, numbers)


def factor_text(r: float, numbers: Mapping[str, int]) -> str:
    """What a constant ratio r may come from.

    >>> factor_text(-1.0, {}), factor_text(5.0, {"outputs": 5})
    ('has the wrong sign.', 'is 5 times what it should be, the number of outputs: a sum over outputs against a mean.')
    """
    if _near(r, -1):
        return "has the wrong sign."
    causes = []
    for name, number in numbers.items():
        shown = f"the number of {name}" + (" (batch size)" if name == "examples" else "")
        if number > 1 and _near(abs(r), number):
            causes.append(f"{shown}: a sum over {name} against a mean")
        if number > 1 and _near(abs(r), 1 / number):
            causes.append(f"1 over {shown}: a mean over {name} against a sum")
    for factor, text in ((2.0, "a factor 2 too much"), (0.5, "a factor 2 is missing")):
        if _near(abs(r), factor):
            causes.append(text)
    sign = "has the wrong sign, and " if r < 0 else ""
    return f"{sign}is {_digits(abs(r))} times what it should be, {', or '.join(causes) or 'a constant factor'}."


def _near(r: float, number: float) -> bool:
    return abs(r - number) <= 1e-6 * abs(number)


def _digits(r: float) -> str:
    return f"{r:.6g}" if abs(r - 1) > 1e-5 else f"1 {'+' if r > 1 else '−'} {abs(r - 1):.2g}"


@dataclass(frozen=True)
class _Known:
    """What is known of a layer: its inputs h (D, N), outputs f (K, N), c = ∂L/∂f (K, N), and parameters."""

    layer: Layer
    h: Array
    f: Array
    c: Array
    parameters: dict[str, Array]

    @property
    def elementwise(self) -> bool:
        """Whether the layer may be one that treats each entry by itself."""
        return self.h.shape == self.f.shape and not self.parameters

    def slope(self, h: Array) -> Array:
        """∂f/∂h of an elementwise layer, entry by entry, from forward alone."""
        step = 1e-6
        twin = self.layer.copy()
        twin.reseed(0)
        plus = twin.forward(h + step)
        twin.reseed(0)
        return (plus - twin.forward(h - step)) / (2 * step)


def _candidates(case: Case, known: _Known) -> list[str]:
    """Whole gradients that a known mistake gives."""
    of = _input_candidates if case.tensor.name == "X" else _parameter_candidates
    return _transposed(case) + [text for text, candidate in of(case, known) if case.is_(candidate)]


def _transposed(case: Case) -> list[str]:
    square = len(case.tensor.shape) == 2 and case.tensor.shape[0] == case.tensor.shape[1]
    return ["is transposed."] if square and case.leaves_nothing(case.at(case.whole.T) - case.n) else []


def _input_candidates(case: Case, known: _Known) -> Iterator[tuple[str, Array]]:
    h, f, c = known.h, known.f, known.c
    for name, theta in known.parameters.items():
        if theta.ndim == 2 and theta.shape[1] == len(c):
            yield f"multiplies by {name.removeprefix('0.')} itself: it must be transposed, Ωᵀ ∂L/∂f.", (theta @ c).T
    if not known.elementwise:
        return
    yield "is ∂L/∂f itself: the slope of the activation is forgotten.", c.T
    n = np.full(case.tensor.shape, np.nan)
    n.reshape(-1)[case.tensor.at] = case.n
    yield "has the indicator inverted: it passes where it should block.", c.T - n
    loose = dataclasses.replace(case, noise=1e-7)  # slopes are measured by differences here
    for text, candidate in _slopes_elsewhere(known, h, f, c):
        if loose.is_(candidate):
            yield text, case.whole


def _slopes_elsewhere(known: _Known, h: Array, f: Array, c: Array) -> Iterator[tuple[str, Array]]:
    """The right formula for the slope at the wrong place."""
    yield (
        "takes the slope of the activation at its output instead of at its input: a'[h] for a'[f] where h = a[f].",
        (known.slope(f) * c).T,
    )
    slope = known.slope(h)
    for text, at_f, at_h in (("f (1 − f)", f * (1 - f), h * (1 - h)), ("1 − f²", 1 - f * f, 1 - h * h), ("f", f, h)):
        if np.allclose(at_f, slope, rtol=1e-5, atol=1e-7):
            yield f"evaluates the slope {text} of the activation at h instead of f.", (at_h * c).T


def _parameter_candidates(case: Case, known: _Known) -> Iterator[tuple[str, Array]]:
    h, f, c = known.h, known.f, known.c
    shape = case.tensor.shape
    if len(shape) == 2:
        if shape == (len(c), len(f)):
            yield "multiplies by the layer's output f where its input h belongs.", c @ f.T
        if shape == (len(c), len(h)):
            yield "uses the first example alone.", np.outer(c[:, 0], h[:, 0])
            yield "uses the last example alone.", np.outer(c[:, -1], h[:, -1])
    if len(shape) == 1:
        K = shape[0]
        yield "is summed over the wrong axis: over features instead of examples.", np.resize(c.sum(axis=0), K)
        yield (
            "is summed over the wrong axis: over features and examples, where each feature has its own.",
            np.full(K, c.sum()),
        )
        yield "uses the first example alone.", np.resize(c[:, 0], K)
        yield "uses the last example alone.", np.resize(c[:, -1], K)


def _terms(case: Case, known: _Known) -> list[str]:
    """Terms whose multiple a − n is."""
    texts: list[str] = []
    for name, term, belongs in _known_terms(case, known):
        if np.shape(term) == case.tensor.shape:
            texts += _term_text(case, name, case.at(term), belongs=belongs)
    return texts


def _term_text(case: Case, name: str, term: Array, *, belongs: bool = False) -> list[str]:
    """What a − n = s · term says; `belongs` if the truth has this very term, with the factor 1."""
    s = case.multiple(term)
    if s is None:
        return []
    if belongs and _near(-s, 1):
        return [f"lacks a term: {name} is missing."]
    if belongs and _near(s, 1):
        return [f"has one term twice: {name}."]
    if belongs:
        return [f"has a wrong factor on one term: {name} counts {1 + s:.6g} times."]
    return [f"has a wrong factor on one term: {s:.6g} times {name} is too much."]


def _known_terms(case: Case, known: _Known) -> Iterator[tuple[str, Array, bool]]:
    """(name, the term, whether the true gradient has it with the factor 1)."""
    h, f, c = known.h, known.f, known.c
    if case.tensor.name != "X":
        yield "the parameter itself, as weight decay has it,", known.parameters[case.tensor.name], False
        return
    yield from ((name, term.T, True) for name, term in _branches(known))
    if h.shape == f.shape:
        products = {"∂L/∂f": c, "∂L/∂f ⊙ h": c * h, "∂L/∂f ⊙ f": c * f}
        products |= {"∂L/∂f ⊙ f²": c * f * f, "∂L/∂f ⊙ h²": c * h * h, "∂L/∂f ⊙ h f": c * h * f}
        yield from ((name, term.T, False) for name, term in products.items())
        yield from ((name, term.T, True) for name, term in _normalization_terms(known))


def _branches(known: _Known) -> Iterator[tuple[str, Array]]:
    """What each layer inside contributes to ∂L/∂h, and h itself where f has its shape."""
    if not isinstance(known.layer, Composite):
        return
    twin = known.layer.copy()
    twin.reseed(0)
    twin.forward(known.h.copy())
    if known.h.shape == known.f.shape:
        yield "the branch that passes h on (the shortcut)", known.c
    start = 0
    for key, child in twin.children.items():
        rows = len(child.infer(known.h))
        whole = rows == len(known.f)
        c = known.c if whole else known.c[start : start + rows]
        start += 0 if whole else rows
        yield f"the branch {key}, {child.label}", child.backward(c.copy())[0]


def _normalization_terms(known: _Known) -> Iterator[tuple[str, Array]]:
    """Two terms of ∂L/∂h where f is γ ⊙ (h − mean)/σ + β over examples or over features."""
    gamma = next((p[:, None] for name, p in known.parameters.items() if name.endswith("gamma")), 1.0)
    dL_dz = gamma * known.c
    for axis, what in ((1, "examples"), (0, "features")):
        sigma = np.sqrt(known.h.var(axis=axis, keepdims=True) + getattr(known.layer, "eps", 0.0))
        z = (known.h - known.h.mean(axis=axis, keepdims=True)) / sigma
        mean = dL_dz.mean(axis=axis, keepdims=True)
        yield f"mean[∂L/∂z] over {what}, through the mean", np.broadcast_to(-mean / sigma, z.shape)
        through = -z * (z * dL_dz).mean(axis=axis, keepdims=True) / sigma
        yield f"z ⊙ mean[z ⊙ ∂L/∂z] over {what}, through the standard deviation", through


def explained_function(report: GradientReport, x: Array, g: Array, sizes: Mapping[str, int]) -> GradientReport:
    """The report of a plain function with the likely mistake."""
    with np.errstate(all="ignore"):
        (case,) = _cases(report, {"x": g})
        texts = [text for text in _at_a_glance(case) if text]
        r = case.multiple(case.n, of=case.a)
        texts += [factor_text(r, sizes)] if r is not None else []
        texts += _transposed(case) + _term_text(case, "x itself, as an L2 penalty has it,", case.at(x))
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
