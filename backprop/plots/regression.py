"""Numbers as they were predicted, against what is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.pictures import ACCENT, INK
from backprop.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

MOST_POINTS = 5000  # more would only lie on each other
BINS = 10


def predicted_against_true(y: Any, predicted: Any, *, name: str = "y", ax: Axes | None = None) -> Drawn:
    """Each example's prediction over its true value, and the line on which they are the same. Returns the axes.

    y (N,) and predicted (N,) are numbers in the same units, of which `name` says what they are. Above 5,000 examples only as many
    are drawn, at equal distances; R² and the mean absolute error in the title are those of all.

    Raises TypeError or ValueError for what are no finite numbers, or not as many.

    >>> ax = predicted_against_true([1.0, 2.0, 3.0], [1.5, 2.0, 2.5], name="rent")
    >>> ax.get_title(), ax.get_xlabel()
    ('R² 0.75, mean absolute error 0.333', 'true rent')
    """
    y, f = _pair("predicted_against_true", y, predicted)
    ax = canvas.axes("predicted_against_true", ax, 4.8, 4.6)
    some = canvas.every(len(y), MOST_POINTS)
    low, high = _span(np.concatenate([y, f]))
    ax.plot([low, high], [low, high], color=ACCENT, linewidth=1.5, label="the same")
    ax.scatter(y[some], f[some], **_points(len(some)))
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = f"R² {1 - float(((f - y) ** 2).sum()) / spread:.3g}, " if spread else ""
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.set(xlabel=f"true {_label(name)}", ylabel=f"predicted {_label(name)}")
    ax.set_title(f"{r2}mean absolute error {np.abs(f - y).mean():.3g}", parse_math=False)
    _few_ticks(ax)
    ax.grid(alpha=0.3)
    return ax


def residuals(y: Any, predicted: Any, *, name: str = "y", ax: Axes | None = None) -> Drawn:
    """What is left, y − prediction, over the prediction, with its median and the middle 80 %. Returns the axes.

    A median that leaves 0 is something that the model has not learnt; a band that opens are errors that grow with the prediction.
    Both are of ten groups of neighbours, from 50 examples on. Arguments and errors as of `predicted_against_true`.

    >>> residuals([1.0, 2.0, 3.0], [1.5, 2.0, 2.5], name="rent").get_ylabel()
    'true − predicted rent'
    """
    y, f = _pair("residuals", y, predicted)
    ax = canvas.axes("residuals", ax, 5.4, 4.0)
    some = canvas.every(len(y), MOST_POINTS)
    ax.axhline(0, color=ACCENT, linewidth=1.5)
    ax.scatter(f[some], (y - f)[some], **_points(len(some)))
    if len(y) >= 5 * BINS and np.ptp(f):
        groups = np.array_split(np.argsort(f, kind="stable"), BINS)
        middle = [np.median(f[group]) for group in groups]
        low, median, high = np.transpose([np.quantile((y - f)[group], (0.1, 0.5, 0.9)) for group in groups])
        ax.plot(middle, median, "-s", color=INK, markersize=4, linewidth=1.5, label="median")
        ax.plot(middle, low, "--", color=INK, linewidth=1.0, label="middle 80 %")
        ax.plot(middle, high, "--", color=INK, linewidth=1.0)
        ax.legend(loc="best", fontsize="small", framealpha=0.8)
    ax.set(xlabel=f"predicted {_label(name)}", ylabel=f"true − predicted {_label(name)}")
    ax.set_title(f"root mean squared error {np.sqrt(np.mean((y - f) ** 2)):.3g}", parse_math=False)
    _few_ticks(ax)
    ax.grid(alpha=0.3)
    return ax


def _pair(who: str, y: Any, predicted: Any) -> tuple[Array, Array]:
    """Both as finite numbers (N,), in float64."""
    found = []
    for name, values in (("y", y), ("predicted", predicted)):
        array = checks.numeric(who, name, values)
        if array.ndim != 1 or not array.size:
            advice = f"Pass {name}[:, 0]." if array.ndim == 2 else ""
            expected = f"{name} with shape (N,), one number per example"
            raise ValueError(checks.message(who, expected, f"shape {array.shape}", advice))
        checks.finite(who, name, array)
        found.append(np.asarray(array, np.float64))
    if found[0].shape != found[1].shape:
        expected = f"predicted with shape {found[0].shape}, that of y"
        raise ValueError(checks.message(who, expected, f"shape {found[1].shape}"))
    return found[0], found[1]


def _label(name: str) -> str:
    """A name of a column as a label; $ would begin mathematics."""
    return canvas.shortened(str(name)).replace("$", r"\$")


def _span(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or abs(low) or 1.0
    return low - margin, high + margin


def _points(n: int) -> dict[str, Any]:
    """Small marks without a fill, which stay apart in a crowd."""
    style = {"facecolor": canvas.COLORS[0], "edgecolor": "white", "linewidth": 0.3, "zorder": 3, "rasterized": True}
    return style | {"s": 24 if n <= 300 else 10, "alpha": 0.9 if n <= 300 else 0.5}


def _few_ticks(ax: Any) -> None:
    """So few that long numbers stand beside each other."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(6))
