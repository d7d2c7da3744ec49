"""What a model makes of the columns of its data: which ones matter, and what follows when one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.pictures import ACCENT, INK
from backprop.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

MOST_BARS = 15
MOST_LINES = 40  # single examples behind their mean
MOST_CLASSES = 7
FEW_VALUES = 12  # up to so many are marked one by one
STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))


def column_importance(
    error: Callable[[Array], float],
    X: Any,
    columns: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
    *,
    repeats: int = 5,
    seed: int = 0,
    ax: Axes | None = None,
) -> Drawn:
    """How much the error grows when a column is shuffled, the largest first. Returns the axes.

    `error` is measured on rows X (N, D), as in `lambda X: trainer.evaluate(X, y)["loss"]`. `columns` names those of X, or says
    which places belong to one name and are shuffled together, as the features of a category. Bars are means over `repeats`, lines
    go from the least to the most. A column whose shuffling costs nothing is not used, or others say the same. Above 15 columns
    only the first are drawn. Source: Breiman (2001), Random Forests, section 10.

    Raises TypeError or ValueError for X that are no rows, for names that do not fit, and for an error that is not finite.

    >>> X = np.arange(12.0).reshape(6, 2)
    >>> ax = column_importance(lambda rows: float(np.abs(rows[:, 0] - X[:, 0]).mean()), X, ["size", "floor"])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['size', 'floor']
    """
    who = "column_importance"
    growths = importances(error, X, columns, repeats=repeats, seed=seed)
    shown = sorted(growths, key=lambda name: -float(growths[name].mean()))[:MOST_BARS]
    ax = canvas.axes(who, ax, 5.4, min(1.2 + 0.32 * len(shown), 6.0))
    means = np.array([growths[name].mean() for name in shown])
    reach = np.array([[growths[name].mean() - growths[name].min(), np.ptp(growths[name])] for name in shown]).T
    reach[1] -= reach[0]
    places = np.arange(len(shown))
    ax.barh(places, means, height=0.65, color=canvas.COLORS[0], edgecolor=INK, linewidth=0.6)
    ax.errorbar(means, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.0, capsize=2.5)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(places, [canvas.shortened(name) for name in shown], parse_math=False)
    ax.invert_yaxis()
    left_out = len(growths) - len(shown)
    ax.set(
        xlabel="growth of the error when the column is shuffled",
        title=f"the first of {len(growths)}" if left_out else "",
    )
    ax.set_axisbelow(True)
    ax.grid(alpha=0.3, axis="x")
    return ax


def importances(
    error: Callable[[Array], float], X: Any, columns: Any = None, *, repeats: int = 5, seed: int = 0
) -> dict[str, Array]:
    """The growth of the error (repeats,) by the name of each column that is shuffled; see `column_importance`."""
    who = "column_importance"
    X = np.asarray(checks.rows(who, X, None))
    places = _places(who, columns, X.shape[1])
    repeats, generator = checks.integer(who, "repeats", repeats), checks.generator(who, seed)
    base = checks.number(who, "error(X)", error(X))
    found: dict[str, Array] = {}
    for name, own in places.items():
        found[name] = np.empty(repeats)
        for k in range(repeats):
            shuffled = X.copy()
            shuffled[:, own] = X[generator.permutation(len(X))][:, own]
            found[name][k] = checks.number(who, "error(X)", error(shuffled)) - base
    return found


def _places(who: str, columns: Any, D: int) -> dict[str, list[int]]:
    """The places of each name."""
    if isinstance(columns, Mapping):
        places = {str(name): [int(j) for j in own] for name, own in columns.items()}
    else:
        names = [f"$x_{{{j + 1}}}$" for j in range(D)] if columns is None else [str(name) for name in columns]
        if len(names) != D or len(set(names)) != D:
            raise ValueError(checks.message(who, f"columns: {D} different names, one per column of X", f"{names}"))
        places = {name: [j] for j, name in enumerate(names)}
    if not places or any(not 0 <= j < D for own in places.values() for j in own):
        raise ValueError(checks.message(who, f"columns: places 0 … {D - 1} of X", f"{places}"))
    return places


def column_dependence(
    predict: Callable[[Array], Any],
    X: Any,
    column: int | Sequence[int],
    values: Any = None,
    at: Any = None,
    *,
    classes: Sequence[Any] | None = None,
    ax: Axes | None = None,
) -> Drawn:
    """What is predicted when one column is set to one value after another in all rows, and the others stay. Returns the axes.

    Of one number the mean over the rows X (N, D), with single rows behind it: where their lines are not parallel, the effect
    depends on other columns. Of several outputs, such as the probabilities of `classes`, a mean for each.

    `column` is a place in X, or the places of one category's features. `values` (V,), or (V, places), are what is written there;
    by default 40 numbers between the 1st and the 99th percentile. `at` (V,) are numbers or words at which they are drawn, such as
    units of the data. Small lines on the axis are at the deciles of the data. Source: Friedman (2001); Goldstein et al. (2015).

    Raises TypeError or ValueError for X, values and places that do not fit, and for predictions that are not finite.

    >>> ax = column_dependence(lambda X: X[:, 0] ** 2, np.arange(8.0).reshape(4, 2), 0, values=[0, 1, 2])
    >>> [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]
    ['mean', 'single rows']
    """
    who = "column_dependence"
    X = np.asarray(checks.rows(who, X, None))
    places, values = _written(who, X, column, values)
    at = values[:, 0] if at is None else np.asarray(at)
    if at.shape != (len(values),):
        raise ValueError(checks.message(who, f"at with shape ({len(values)},), one per value", f"shape {at.shape}"))
    f = _answers(who, predict, X, places, values)
    ax = canvas.axes(who, ax, 5.4, 4.0)
    words = at.dtype.kind in "OUSb"
    x = np.arange(len(at)) if words else at.astype(float)
    marks = words or len(x) <= FEW_VALUES
    _several(ax, x, f, classes, marks) if f.shape[2] > 1 else _one(ax, x, f, marks)
    if words:
        labels = [canvas.shortened(str(word), 20) for word in at]
        shown = canvas.every(len(labels), canvas.room(ax, 0.25))
        flat = sum(map(len, labels)) <= 40
        ax.set_xticks([x[k] for k in shown], [labels[k] for k in shown], rotation=0 if flat else 90, parse_math=False)
    elif len(places) == 1:
        order = np.argsort(values[:, 0])
        deciles = np.quantile(X[:, places[0]], np.linspace(0.1, 0.9, 9))
        marks = np.interp(deciles, values[order, 0], x[order])
        ax.plot(marks, np.zeros(9), "|", color=INK, markersize=14, transform=ax.get_xaxis_transform(), clip_on=True)
    ax.grid(alpha=0.3)
    return ax


def _written(who: str, X: Array, column: Any, values: Any) -> tuple[list[int], Array]:
    """Places in X, and what is written there (V, places)."""
    places = [int(j) for j in np.atleast_1d(column)]
    if not places or not all(0 <= j < X.shape[1] for j in places):
        raise ValueError(checks.message(who, f"column: places 0 … {X.shape[1] - 1} of X", f"{places}"))
    if values is None:
        if len(places) > 1:
            raise ValueError(checks.message(who, "values (V, places) for several places", "none"))
        low, high = np.quantile(X[:, places[0]], (0.01, 0.99))
        values = np.unique(np.linspace(low, high, 40))
    values = checks.numeric(who, "values", values)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != len(places) or not len(values):
        expected = f"values with shape (V, {len(places)}), a column per place"
        raise ValueError(checks.message(who, expected, f"shape {values.shape}"))
    checks.finite(who, "values", values)
    return places, values


def _answers(who: str, predict: Callable[[Array], Any], X: Array, places: list[int], values: Array) -> Array:
    """Predictions (V, N, K)."""
    found = []
    for value in values:
        rows = X.copy()
        rows[:, places] = value
        f = np.asarray(checks.numeric(who, "predictions", predict(rows)), np.float64)
        found.append(f.reshape(len(X), -1))
        checks.finite(who, "predictions", found[-1])
    return np.stack(found)


def _one(ax: Any, x: Array, f: Array, marks: bool) -> None:
    """The mean, and rows at equal distances behind it."""
    ax.plot(x, f[:, :, 0].mean(axis=1), "-o" if marks else "-", color=ACCENT, linewidth=2.5, label="mean", zorder=3)
    style = {"color": "0.55", "linewidth": 0.7, "alpha": 0.6, "zorder": 2, "markersize": 3}
    for k, row in enumerate(canvas.every(f.shape[1], MOST_LINES)):
        ax.plot(x, f[:, row, 0], "-o" if marks else "-", label="_" if k else "single rows", **style)
    ax.set_ylabel("prediction")
    ax.legend(loc="best", fontsize="small", framealpha=0.8)


def _several(ax: Any, x: Array, f: Array, classes: Any, marks: bool) -> None:
    """A mean for each output, those that change most if there are many."""
    means = f.mean(axis=1)
    names = canvas.names("column_dependence", classes, f.shape[2])
    shown = np.sort(np.argsort(-np.ptp(means, axis=0), kind="stable")[:MOST_CLASSES])
    for i, k in enumerate(shown.tolist()):
        style = {"color": canvas.COLORS[i % len(canvas.COLORS)], "linestyle": STYLES[i % len(STYLES)]}
        style["marker"] = canvas.MARKERS[i] if marks else ""
        ax.plot(x, means[:, k], linewidth=2.0, label=canvas.shortened(names[k]), **style)
    ax.set_ylabel("mean probability" if classes is not None else "mean prediction")
    if classes is not None:
        ax.set_ylim(-0.03, 1.03)
    ax.legend(loc="best", fontsize="small", framealpha=0.8)
