"""Exercises graded: whether an answer is right, and where it is not, but not what would be right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backprop import checks
from backprop.gradients import check_function
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.testing import promises
from backprop.testing.layer import LAYER, examine
from backprop.testing.loss import LOSS, examine_loss
from backprop.testing.optimizer import OPTIMIZER

CALLS = "grade(layer, h), grade(loss, f, y), grade(optimizer), grade(gradient, function, point, …), grade(numbers, expected)"
CLOSE = 1e-6  # relative to the largest entry: more digits than anybody writes down


@dataclass(frozen=True)
class Mark:
    """One thing asked of an answer: its name, whether it is right, and where it is not."""

    name: str
    passed: bool
    where: str = ""

    def __str__(self) -> str:
        return f"{self.name:<22}{'right' if self.passed else 'NOT YET'}" + (f"   {self.where}" if self.where else "")


@dataclass(frozen=True, repr=False)
class Grade:
    """What `grade` returns: a mark for each thing asked. It is true if all are right; `str` is the table of them."""

    title: str
    marks: tuple[Mark, ...]

    @property
    def points(self) -> int:
        """How many are right."""
        return sum(mark.passed for mark in self.marks)

    @property
    def passed(self) -> bool:
        """Whether all are right."""
        return self.points == len(self.marks)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines, said = [f"{self.title}: {self.points} of {len(self.marks)} right"], ""
        for mark in self.marks:
            lines.append(f"  {replace(mark, where='the same') if mark.where == said != '' else mark}")
            said = mark.where or said
        return "\n".join(lines)

    __repr__ = __str__


def grade(answer: Any, *given: Any) -> Grade:
    """Grade an answer: whether it is right, and where it is not, without what would be right.

        grade(layer, h)                    every promise of a layer, on examples h (D, N), see `assert_layer`
        grade(loss, f, y)                  of a loss, on outputs f (K, N) and targets y, see `assert_loss`
        grade(optimizer)                   of an optimizer
        grade(gradient, function, *points) gradient(x), in the shape of x, against function(x), a float, at each point x
        grade(numbers, expected)           a dict of arrays by name, against one of the right ones, such as `explain(…).numbers`

    All that can be asked is asked, whatever else is wrong. What is still `...` or raises NotImplementedError is not answered yet.
    Answers run on copies. Raises TypeError for an answer of another kind, or if not the right things come with it.

    >>> import numpy as np
    >>> print(grade(lambda x: 2 * x + 1, lambda x: float(x @ x), np.array([1.0, -2.0])))
    gradient: 0 of 1 right
      at point 1            NOT YET   entries 0, 1
    """
    match answer, given:
        case Layer(), (h,):
            title, marks = answer.label, _kept(LAYER, examine(answer, h, "grade"))
        case Loss(), (f, y):
            title, marks = repr(answer), _kept(LOSS, examine_loss(answer, f, y, "grade"))
        case Optimizer(), ():
            title, marks = repr(answer), _kept(OPTIMIZER, answer, "steps")
        case Mapping(), (Mapping() as expected,):
            title, marks = "numbers", (_number(name, answer.get(name), right) for name, right in expected.items())
        case _, (function, *points) if (
            points and callable(function) and callable(answer) and not isinstance(answer, type)
        ):
            title = getattr(answer, "__name__", "gradient").replace("<lambda>", "gradient")
            marks = (_point(f"at point {i}", answer, function, x) for i, x in enumerate(points, 1))
        case _:
            raise TypeError(checks.message("grade", f"one of {CALLS}", _call(answer, *given)))
    return Grade(title, tuple(marks))


def _call(*arguments: Any) -> str:
    """How the call looked, in kinds."""
    return f"grade({', '.join(f'the class {a.__name__}' if isinstance(a, type) else f'a {type(a).__name__}' for a in arguments)})"


def _kept(asked: promises.Promises, subject: Any, calls: str = "passes") -> Iterator[Mark]:
    return (_promise(asked, name, subject, calls) for name in asked)


def _promise(asked: promises.Promises, name: str, subject: Any, calls: str) -> Mark:
    fault, cause = promises.ask(asked, name, subject, calls)
    if fault is None:
        return Mark(name, True)
    if cause is not None:
        return Mark(name, False, _open(cause) or fault[1])
    return Mark(name, False, ", ".join(fault[3:]))


def _point(name: str, gradient: Callable[..., Any], function: Callable[..., Any], x: Any) -> Mark:
    x = np.array(x, dtype=np.float64)
    try:
        found = gradient(x.copy())
        if found is ...:
            raise NotImplementedError
        report = check_function(function, gradient, x)
    except Exception as error:
        return Mark(name, False, _open(error) or promises.told(error)[0])
    tensor = report.tensors[0]
    wrong = tensor.at[~(tensor.errors <= report.tolerance)]
    return Mark(name, report.passed, _places(wrong, tensor.shape))


def _number(name: str, found: Any, right: Any) -> Mark:
    if found is ... or found is None:
        return Mark(name, False, "not answered")
    right = np.asarray(right, dtype=np.float64)
    try:
        found = np.asarray(found)
    except ValueError:  # lists of different lengths
        found = np.array(None)
    if found.dtype.kind not in "iuf":
        return Mark(name, False, "not a number")
    if found.size == right.size == 1:  # a number is right as 2.4, [2.4] and [[2.4]]
        found = found.reshape(right.shape)
    if found.shape != right.shape:
        return Mark(name, False, f"shape {found.shape}")
    scale = max(float(np.max(np.abs(right), initial=0.0)), 1e-300)
    wrong = np.flatnonzero(~(np.abs(found - right) <= CLOSE * scale))
    return Mark(name, not len(wrong), _places(wrong, right.shape))


def _open(error: BaseException) -> str:
    """The words for what is not answered yet; "" for another error."""
    return "not answered" if isinstance(error, NotImplementedError) or "ellipsis" in str(error).lower() else ""


def _places(flat: Any, shape: tuple[int, ...]) -> str:
    """The first places of wrong entries, in the shape of the array; "" for one number."""
    if math.prod(shape) == 1 or not len(flat):
        return ""
    places = [tuple(int(i) for i in np.unravel_index(place, shape)) for place in flat[:4]]
    shown = ", ".join(str(place[0]) if len(place) == 1 else str(place) for place in places)
    return f"entr{'y' if len(flat) == 1 else 'ies'} {shown}" + (", …" if len(flat) > 4 else "")
