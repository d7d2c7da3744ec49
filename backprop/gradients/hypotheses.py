"""What a wrong gradient may be: a multiple of the right one, what a known mistake gives, or the right one and a term too many.

With a = what backward gives and n = the truth, a hypothesis explains a tensor if it leaves less than a millionth of a − n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from backprop.around import boundary
from backprop.checks import Array
from backprop.functions import sigmoid
from backprop.gradients.numeric import random_direction
from backprop.gradients.problem import Problem, run
from backprop.gradients.report import Tensor
from backprop.layers import Composite

# Slopes that are written with the output, by what they are called.
Formula = Callable[[Array], Array]
SLOPES: dict[str, Formula] = {"f (1 − f)": lambda f: f * (1 - f), "1 − f²": lambda f: 1 - f * f, "f": lambda f: f}
# Slopes that people write, and that are none: of tanh and σ, where a square or a factor is forgotten; of h σ(h).
CLASSICS: dict[str, Callable[[Array, Array], Array]] = {
    "1 − f": lambda h, f: 1 - f,
    "f": lambda h, f: f,
    "f²": lambda h, f: f * f,
    "f (1 − f)": lambda h, f: f * (1 - f),
    "1 − f²": lambda h, f: 1 - f * f,
    "σ(h) + h σ(h)": lambda h, f: sigmoid(h) + f,
    "σ(h)": lambda h, f: sigmoid(h),
    "h": lambda h, f: h,
    "−f": lambda h, f: -f,
}
LEFT_OVER = 1e-6  # share of a difference that a hypothesis may leave unexplained


class Case:
    """One wrong tensor: what backward gives (whole, and a at the checked entries) and the truth n at those entries."""

    def __init__(self, tensor: Tensor, whole: Array, noise: float) -> None:
        self.tensor, self.whole, self.noise = tensor, whole, noise
        self.a, self.n = tensor.analytic, tensor.numeric

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


def factor_text(r: float, numbers: Mapping[str, int]) -> str:
    """What a constant ratio r may come from.

    >>> factor_text(-1.0, {}), factor_text(5.0, {"outputs": 5})
    ('has the wrong sign.', 'is 5 times what it should be, the number of outputs: a sum over outputs against a mean.')
    """
    if near(r, -1):
        return "has the wrong sign."
    causes = []
    for name, number in numbers.items():
        shown = f"the number of {name}" + (" (batch size)" if name == "examples" else "")
        if number > 1 and near(abs(r), number):
            causes.append(f"{shown}: a sum over {name} against a mean")
        if number > 1 and near(abs(r), 1 / number):
            causes.append(f"1 over {shown}: a mean over {name} against a sum")
    for factor, text in ((2.0, "a factor 2 too much"), (0.5, "a factor 2 is missing")):
        if near(abs(r), factor):
            causes.append(text)
    sign = "has the wrong sign, and " if r < 0 else ""
    return f"{sign}is {_digits(abs(r))} times what it should be, {', or '.join(causes) or 'a constant factor'}."


def near(r: float, number: float) -> bool:
    """Whether a ratio is this number, but for rounding."""
    return abs(r - number) <= 1e-6 * abs(number)


def _digits(r: float) -> str:
    return f"{r:.6g}" if abs(r - 1) > 1e-5 else f"1 {'+' if r > 1 else '−'} {abs(r - 1):.2g}"


class Known:
    """What is known of a layer alone: its inputs h (D, N), outputs f (K, N), c = ∂L/∂f (K, N), and parameters."""

    def __init__(self, alone: Problem) -> None:
        self.layer, self.h, self.parameters = alone.net[0], alone.h, alone.net.parameters
        self.f = alone.fresh().forward()
        self.c = random_direction(self.f.shape, 0)  # as `Projection` has it

    def slope(self, h: Array) -> Array:
        """∂f/∂h of an elementwise layer, entry by entry, from forward alone."""
        step, twin = 1e-6, self.layer.copy()
        return (run(twin, h + step) - run(twin, h - step)) / (2 * step)


def known_mistakes(case: Case, known: Known) -> Iterator[str]:
    """Whole gradients that a known mistake gives, then terms whose multiple a − n is."""
    yield from transposed(case)
    candidates = _input_candidates if case.tensor.name == "X" else _parameter_candidates
    yield from (text for text, candidate in candidates(case, known) if case.is_(candidate))
    for name, term, belongs in _known_terms(case, known):
        if np.shape(term) == case.tensor.shape:
            yield from term_text(case, name, case.at(term), belongs=belongs)


def transposed(case: Case) -> list[str]:
    """Whether backward gives the transpose of a square gradient, in words."""
    shape = case.tensor.shape
    square = len(shape) == 2 and shape[0] == shape[1]
    return ["is transposed."] if square and case.leaves_nothing(case.at(case.whole.T) - case.n) else []


def _input_candidates(case: Case, known: Known) -> Iterator[tuple[str, Array]]:
    h, f, c = known.h, known.f, known.c
    for name, theta in known.parameters.items():
        if theta.ndim == 2 and theta.shape[1] == len(c):
            yield f"multiplies by {name.removeprefix('0.')} itself: it must be transposed, Ωᵀ ∂L/∂f.", (theta @ c).T
    if h.shape != f.shape or known.parameters:  # not one that treats each entry by itself
        return
    yield "is ∂L/∂f itself: the slope of the activation is forgotten.", c.T
    n = np.full(case.tensor.shape, np.nan)
    n.reshape(-1)[case.tensor.at] = case.n
    yield "has the indicator inverted: it passes where it should block.", c.T - n
    loose = Case(case.tensor, case.whole, noise=1e-7)  # slopes are measured by differences here
    for text, candidate in _slopes_elsewhere(known):
        if loose.is_(candidate):
            yield text, case.whole


def _slopes_elsewhere(known: Known) -> Iterator[tuple[str, Array]]:
    """The right formula for the slope at the wrong place."""
    h, f, c = known.h, known.f, known.c
    text = "takes the slope of the activation at its output instead of at its input: a'[h] for a'[f] where h = a[f]."
    yield text, (known.slope(f) * c).T
    slope = known.slope(h)
    for formula, of in SLOPES.items():
        if np.allclose(of(f), slope, rtol=1e-5, atol=1e-7):
            yield f"evaluates the slope {formula} of the activation at h instead of f.", (of(h) * c).T
    for formula, wrong in CLASSICS.items():
        yield f"takes {formula} for the slope of the activation.", (wrong(h, f) * c).T


def _parameter_candidates(case: Case, known: Known) -> Iterator[tuple[str, Array]]:
    h, f, c, shape = known.h, known.f, known.c, case.tensor.shape
    ends = {"first": 0, "last": -1}.items()
    if shape == (len(c), len(f)):
        yield "multiplies by the layer's output f where its input h belongs.", c @ f.T
    if shape == (len(c), len(h)):
        yield from ((f"uses the {which} example alone.", np.outer(c[:, n], h[:, n])) for which, n in ends)
    if len(shape) == 1:
        wrong = "is summed over the wrong axis: over features"
        yield f"{wrong} instead of examples.", np.resize(c.sum(axis=0), shape)
        yield f"{wrong} and examples, where each feature has its own.", np.full(shape, c.sum())
        yield from ((f"uses the {which} example alone.", np.resize(c[:, n], shape)) for which, n in ends)


def term_text(case: Case, name: str, term: Array, *, belongs: bool = False) -> list[str]:
    """What a − n = s · term says; `belongs` if the truth has this very term, with the factor 1."""
    s = case.multiple(term)
    if s is None:
        return []
    if not belongs:
        return [f"has a wrong factor on one term: {s:.6g} times {name} is too much."]
    if near(-s, 1):
        return [f"lacks a term: {name} is missing."]
    if near(s, 1):
        return [f"has one term twice: {name}."]
    return [f"has a wrong factor on one term: {name} counts {1 + s:.6g} times."]


def _known_terms(case: Case, known: Known) -> Iterator[tuple[str, Array, bool]]:
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


def _branches(known: Known) -> Iterator[tuple[str, Array]]:
    """What each layer inside contributes to ∂L/∂h, and h itself where f has its shape."""
    if not isinstance(known.layer, Composite):
        return
    twin = known.layer.copy()
    run(twin, known.h.copy())
    if known.h.shape == known.f.shape:
        yield "the branch that passes h on (the shortcut)", known.c
    start = 0
    for key, child in twin.children.items():
        rows = len(boundary.infer(child, known.h))
        whole = rows == len(known.f)
        c = known.c if whole else known.c[start : start + rows]
        start += 0 if whole else rows
        yield f"the branch {key}, {child.label}", boundary.backward(child, c.copy())[0]


def _normalization_terms(known: Known) -> Iterator[tuple[str, Array]]:
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
