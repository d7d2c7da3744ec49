"""What the pictures share: axes and panels, and signs that are told apart without color."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks, pictures
from backprop.checks import Array

if TYPE_CHECKING:
    from backprop.pictures import Drawn

# Okabe and Ito's colors for the color-blind (black apart), in an order in which neighbours also differ in grey.
COLORS = ("#0072B2", "#E69F00", "#CC79A7", "#F0E442", "#009E73", "#56B4E9", "#D55E00")
MARKERS = "os^DvPX*<>hd"
SIGNED = "cividis"  # dark blue, grey at 0, light yellow: its lightness only grows, so a sign is still one in grey
SHARES = "Blues"
ACROSS = 4  # panels of a new figure


def axes(who: str, ax: Any, width: float, height: float) -> Drawn:
    """One axes: that handed in, or that of a new figure. Raises TypeError for what is none, ImportError without matplotlib."""
    made = pictures.axes(ax, width, height)
    from matplotlib.axes import Axes

    if not isinstance(made, Axes):
        advice = "One of its entries is." if isinstance(ax, np.ndarray | Sequence) and not isinstance(ax, str) else ""
        raise TypeError(checks.message(who, "ax: axes of matplotlib", f"a {type(ax).__name__}", advice))
    return made


def panels(who: str, ax: Any, n: int, width: float, height: float) -> Array:
    """`n` axes (n,), those handed in, or those of a new figure with four beside each other; sizes are of one panel."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != n:
            advice = f"Make them with figure.subplots(1, {n}), or leave ax out."
            raise ValueError(checks.message(who, f"ax: {n} axes, one per panel", f"{len(given)}", advice))
        return np.array([axes(who, each, width, height) for each in given], dtype=object)
    columns = min(n, ACROSS)
    rows = math.ceil(n / columns)
    figure = pictures.axes(None, width * columns, height * rows).figure
    figure.clear()
    made = [figure.add_subplot(rows, columns, k + 1) for k in range(n)]
    return np.array(made, dtype=object).view(pictures.Panels)


def every(n: int, most: int) -> range:
    """Places 0 … n − 1, as many as may be labelled, at equal distances.

    >>> list(every(5, 10)), list(every(40, 10))
    ([0, 1, 2, 3, 4], [0, 4, 8, 12, 16, 20, 24, 28, 32, 36])
    """
    return range(0, n, math.ceil(n / most))


def shortened(text: str, most: int = 24) -> str:
    """A name that does not fill the picture; its end stays, where names often differ.

    >>> shortened("a very long name of class 12", 12)
    'a very…ss 12'
    """
    end = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - end]}…{text[-end:]}"


def room(ax: Any, inches: float) -> int:
    """How many labels, each this wide, fit side by side below the axes."""
    return max(1, int(ax.get_window_extent().width / ax.figure.dpi / inches))


def whole_numbers(axis: Any, most: int = 10) -> None:
    """Ticks of an axis of things that are counted: no epoch 2.5, no half row."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def logarithmic(ax: Any, values: Array, always: bool = False) -> None:
    """A logarithmic y axis where the values ask for it: all positive, and more than a factor of 10 apart.

    With `always` for any positive values; the axis then spans a decade at least, so that nothing small looks large.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = values[np.isfinite(values) & (values > 0 if always else True)]
    low, high = values.min(initial=math.inf), values.max(initial=-math.inf)
    if not (0 < low < math.inf and (always or high > 10 * low)):
        return
    ax.set_yscale("log")
    if high <= 10 * low:
        middle = math.sqrt(low) * math.sqrt(high)
        ax.set_ylim(middle / math.sqrt(15), middle * math.sqrt(15))
    if high < 1000 * low:  # 1, 2, 5, 10: one label per decade would leave the axis bare
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _plain(x: float, _: object) -> str:
    return f"{x:,.0f}" if x >= 10 else f"{x:.1g}"


def names(who: str, classes: Any, n: int) -> list[str]:
    """Names of `n` classes; their numbers if there are none."""
    if classes is None:
        return [str(k) for k in range(n)]
    given = [str(name) for name in classes] if not isinstance(classes, str) else [classes]
    if len(given) < n:
        raise ValueError(checks.message(who, f"at least {n} names in classes", f"{len(given)}"))
    return given


def text(ax: Any, x: float, y: float, words: str, size: float = 1.0, most: float = 72.0, **style: Any) -> None:
    """Words whose letters are `size` high in the units of the y axis, at most `most` points; they shrink with the axes."""
    style = {"ha": "center", "va": "center", "parse_math": False, "zorder": 4, "clip_on": False, **style}
    ax.add_artist(_scaled()(x, y, words, size, most, transform=ax.transData, **style))


@cache
def _scaled() -> Any:
    """A text of matplotlib's that takes its size from the axes each time it is drawn."""
    from matplotlib.text import Text

    class Scaled(Text):
        def __init__(self, x: float, y: float, words: str, size: float, most: float, **style: Any) -> None:
            super().__init__(x, y, words, **style)
            self.size, self.most = size, most

        def _fit(self) -> None:
            ends = self.get_transform().transform([(0, 0), (0, self.size)])
            points = abs(ends[1, 1] - ends[0, 1]) * 72 / self.figure.dpi
            self.set_fontsize(min(self.most, max(0.1, points)))

        def draw(self, renderer: Any) -> None:
            self._fit()
            super().draw(renderer)

        def get_window_extent(self, renderer: Any = None, dpi: Any = None) -> Any:
            self._fit()
            return super().get_window_extent(renderer, dpi)

        def get_tightbbox(self, renderer: Any = None) -> None:
            return None  # it is inside the axes: the layout need not ask

    return Scaled
