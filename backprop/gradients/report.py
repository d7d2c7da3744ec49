"""What a gradient check found: numbers, a verdict, a table that fits a screen, and a picture."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backprop import html, pictures
from backprop.checks import Array
from backprop.gradients import numeric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

WIDTH = 110  # of the text
MOST_ROWS = 14  # of the table; the tensors with the largest errors come first where there are more


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of one gradient, found both ways. `error` is the difference relative to the largest entry of its tensor."""

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float

    def __str__(self) -> str:
        place = f"{self.name}[{', '.join(map(str, self.index))}]" if self.index else self.name
        return f"{place}: the gradient is {self.analytic:.12g}, it should be {self.numeric:.12g}"


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """The checked entries of one gradient. `at` (n,) are their positions in the flattened tensor; the arrays go with them.

    `errors` are relative to the tensor's largest entry. `kinks` (n,) marks entries where L has no derivative and `backward` gives
    a subgradient, which is right. `direction` is the error along random directions through all entries, 0 if all were checked.
    """

    name: str
    place: str  # the layer it belongs to, "" for a plain function
    shape: tuple[int, ...]
    at: Array
    analytic: Array
    numeric: Array
    errors: Array
    kinks: Array
    direction: float = 0.0

    @property
    def size(self) -> int:
        """Number of entries there are."""
        return math.prod(self.shape)

    @property
    def worst(self) -> Entry:
        """The checked entry with the largest error; NaN is the largest of all."""
        i = int(np.argmax(np.where(np.isfinite(self.errors), self.errors, np.inf)))
        index = numeric.index_of(self.at[i], self.shape)
        return Entry(self.name, index, float(self.analytic[i]), float(self.numeric[i]), float(self.errors[i]))

    @property
    def error(self) -> float:
        """The largest error, of an entry or along a direction."""
        worst = self.worst.error
        return max(worst, self.direction) if math.isfinite(worst) else math.inf


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GradientReport:
    """Outcome of `check_gradients` and `check_function`; `str(report)` is meant to be read, `report.plot()` to be looked at.

    `tensors` holds every checked number, `mistakes` what is likely wrong, in words, the most telling first. A report is true
    if it passed.
    """

    method: str
    tolerance: float
    tensors: tuple[Tensor, ...]
    mistakes: tuple[str, ...] = field(default=())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The worst entry of each tensor."""
        return tuple(tensor.worst for tensor in self.tensors)

    @property
    def counts(self) -> tuple[tuple[int, int], ...]:
        """Of each tensor: how many entries were checked, and how many there are."""
        return tuple((len(tensor.at), tensor.size) for tensor in self.tensors)

    @property
    def kinks(self) -> int:
        """Number of checked entries at which L has a kink."""
        return int(sum(np.count_nonzero(tensor.kinks) for tensor in self.tensors))

    @property
    def worst(self) -> Entry:
        """The entry with the largest error."""
        return max(self.entries, key=lambda entry: entry.error if math.isfinite(entry.error) else math.inf)

    @property
    def passed(self) -> bool:
        """Whether every checked entry and direction agrees within the tolerance, and nothing else was found wrong."""
        return not self.mistakes and all(tensor.error <= self.tolerance for tensor in self.tensors)

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        checked, there = self._sums
        verdict = "passed" if self.passed else f"FAILED at {self.worst.name}"
        return f"GradientReport({verdict}, {checked:,} of {there:,} entries, largest error {self.worst.error:.1e})"

    def __str__(self) -> str:
        rows, rest = self._rows()
        width = max(16, *(len(name) + 2 for name, *_ in rows))
        lines = [f"  {'tensor':<{width}}{'checked':>16}{'largest error':>16}"]
        lines += [f"  {name:<{width}}{counts:>16}{error:>16}{mark}" for name, counts, error, mark in rows]
        # No-break spaces around the arrow keep a layer's name on one line.
        verdict = [line.replace(" → ", "\u00a0→\u00a0") for line in self._verdict()]
        wrapped = [part for line in verdict for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]
        more = [f"  {rest}"] if rest else []
        return "\n".join([self._title, *lines, *more, *wrapped]).replace("\u00a0", " ")

    def _repr_html_(self) -> str:
        rows, rest = self._rows()
        head = ["tensor", "checked", "largest error", ""]
        return html.table(self._title, head, rows, *([rest] if rest else []), *self._verdict())

    @property
    def _sums(self) -> tuple[int, int]:
        """How many entries were checked, and how many there are."""
        checked, there = zip(*self.counts, strict=True)
        return sum(checked), sum(there)

    @property
    def _title(self) -> str:
        checked, there = self._sums
        title = f"Gradient check {'passed' if self.passed else 'FAILED'}: {self.method}, "
        title += f"{checked:,} of {there:,} entries, tolerance {self.tolerance:g}"
        return title + (f", {self.kinks:,} at a kink" if self.kinks else "")

    def _rows(self) -> tuple[list[tuple[str, str, str, str]], str]:
        """Name, count, error and mark of each tensor, of many those with the largest errors; and of what is left out."""
        shown, rest = self.tensors, ""
        if len(shown) > MOST_ROWS:
            by_error = sorted(shown, key=lambda tensor: tensor.error, reverse=True)
            shown, others = tuple(by_error[:MOST_ROWS]), by_error[MOST_ROWS:]
            rest = f"and {len(others)} more, largest error {others[0].error:.1e}"
        rows = []
        for tensor in shown:
            mark = "" if tensor.error <= self.tolerance else "  ← wrong"
            rows.append((tensor.name, f"{len(tensor.at):,}/{tensor.size:,}", f"{tensor.error:.1e}", mark))
        return rows, rest

    def _verdict(self) -> list[str]:
        if self.passed:
            return []
        lines = []
        if any(tensor.error > self.tolerance for tensor in self.tensors):
            place = next(tensor.place for tensor in self.tensors if tensor.name == self.worst.name)
            lines.append(f"Worst entry {self.worst}" + (f"  ({place})" if place else ""))
        return lines + [f"Likely mistake: {mistake}" for mistake in self.mistakes]

    def plot(self, ax: Axes | None = None) -> Drawn:
        """Draw each checked entry: what `backward` gives against the numeric derivative. Returns the axes.

        Right entries lie on the diagonal; wrong ones are orange crosses. Raises ImportError without matplotlib.
        """
        axes = pictures.axes(ax, 4.8, 4.8)
        numeric = np.concatenate([tensor.numeric for tensor in self.tensors])
        analytic = np.concatenate([tensor.analytic for tensor in self.tensors])
        wrong = np.concatenate([~(tensor.errors <= self.tolerance) for tensor in self.tensors])
        known = np.isfinite(numeric) & np.isfinite(analytic)
        reach = 1.05 * np.max(np.abs([numeric[known], analytic[known]]), initial=1e-300)
        axes.plot([-reach, reach], [-reach, reach], color=pictures.SOFT, linewidth=1, zorder=1)
        right, bad = known & ~wrong, known & wrong
        axes.scatter(numeric[right], analytic[right], s=12, color=pictures.INK)
        axes.scatter(numeric[bad], analytic[bad], s=28, color=pictures.ACCENT, marker="x")
        axes.set(xlabel=f"derivative of L\nby the {self.method}", ylabel="gradient", aspect="equal")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        counts = f"{right.sum():,} right (•)" + (f", {wrong.sum():,} wrong (×)" if wrong.any() else "")
        axes.set_title(f"Gradient check {'passed' if self.passed else 'failed'}\n{counts}", fontsize="medium")
        return axes
