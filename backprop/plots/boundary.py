"""What a network says about a plane: regions of classes, or the height of one output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers import Layer
from backprop.pictures import INK
from backprop.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

MARGIN = 0.08  # of the width of the data, around it
MOST_ROWS, MOST_INSIDE = 14, 10  # of a legend beside the axes; of one in them


def decision_boundary(
    model: Any,
    X: Any,
    y: Any,
    classes: Any = None,
    *,
    threshold: float = 0.0,
    resolution: int = 200,
    ax: Axes | None = None,
) -> Drawn:
    """The plane as the model sees it, with the examples on it. Returns the axes.

    X (N, 2) are points, y (N,) their classes or numbers. `model` is a network or has a `predict(X)` as scikit-learn's have.

        several outputs             the class of a point is that of the largest output
        one output, y only 0 and 1  class 1 where the output is above `threshold`: 0 for a logit, ½ for a least-squares fit
        one output, other y         the output itself, as height
        an estimator                its classes by `predict_proba` or `predict`, or its numbers as height

    `classes` names the classes 0, 1, …; `resolution` is the number of points computed along each side. Classes differ in color
    and in their signs, and a line parts them, so that they are told apart in grey, too. A legend of more than ten classes
    has no room in axes handed in; `ax.legend()` puts it there all the same.

    Raises TypeError or ValueError for X that are no points of a plane, for y that does not fit, and for predictions that are
    not finite.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 1, initializer=bp.Constant(1)))
    >>> ax = decision_boundary(net, np.array([[0.0, 1], [-1, 0]]), np.array([1, 0]))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['0', '1']
    """
    who = "decision_boundary"
    view = View(who, model, X, y, classes, threshold, checks.integer(who, "resolution", resolution, least=2))
    inside = ax is not None
    ax = canvas.axes(who, ax, 4.8 + view.legend_width, 4.2)
    view.draw(ax, view.heights(), inside=inside)
    return ax


class View:
    """A model over a plane: how it is asked, and how its answers are drawn.

    `x` (R,), `y` (R,) are the lines of a grid around the examples. `names` are those of the classes; None for numbers.
    """

    def __init__(self, who: str, model: Any, X: Any, y: Any, classes: Any, threshold: float, resolution: int) -> None:
        self.who, self.X, self.given = who, _points(who, X), np.asarray(y)
        self.model, self.threshold = model, checks.number(who, "threshold", threshold)
        if not callable(getattr(model, "predict", None)) or isinstance(model, type):
            raise TypeError(checks.message(who, "a model with predict(X), such as a Sequential", repr(model)))
        if self.given.shape != (len(self.X),):
            advice = "Pass y.ravel()." if self.given.shape == (len(self.X), 1) else ""
            expected = f"y with shape ({len(self.X)},), one class or number per row of X"
            raise ValueError(checks.message(who, expected, f"shape {self.given.shape}", advice))
        low, high = self.X.min(axis=0).astype(float), self.X.max(axis=0).astype(float)
        margin = np.where(high > low, MARGIN * (high - low), 1.0)
        self.x, self.y = np.linspace(low - margin, high + margin, resolution).T
        self.labels: Array | None = None
        self.names: list[str] | None = None
        self.is_network = isinstance(model, Layer)
        (self._of_network if self.is_network else self._of_estimator)(classes)
        if self.labels is None:
            checks.finite(who, "y", checks.numeric(who, "y", self.given))

    def _of_network(self, classes: Any) -> None:
        y = checks.numeric(self.who, "y", self.given)
        K = len(self._outputs(self.X[:1]))
        if K == 1 and not np.isin(y, (0, 1)).all():
            return
        K = max(K, 2)
        self.labels, self.names = checks.labels(self.who, y, K), canvas.names(self.who, classes, K)[:K]

    def _of_estimator(self, classes: Any) -> None:
        known = getattr(self.model, "classes_", None)
        if known is None and np.asarray(self.model.predict(self.X[:1])).dtype.kind == "f":
            return
        self.known = np.unique(self.given) if known is None else np.asarray(known)
        if not np.isin(self.given, self.known).all():
            strange = self.given[~np.isin(self.given, self.known)][0]
            raise ValueError(checks.message(self.who, f"y among the classes {list(self.known)}", repr(strange)))
        self.labels = np.argmax(self.given[:, None] == self.known, axis=1)
        self.names = canvas.names(self.who, self.known if classes is None else classes, len(self.known))

    def heights(self) -> Array:
        """Of each class how far it is above the best other (K, R, R); of a number itself (1, R, R)."""
        f = self._outputs(np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2))
        checks.finite(self.who, "the predictions", f.T)
        if self.names is not None:
            if len(f) == 1:  # class 0 has the threshold as its output
                f = np.concatenate([np.full_like(f, self.threshold), f])
            ordered = np.sort(f, axis=0)
            f = f - np.where(f == ordered[-1], ordered[-2], ordered[-1])
        return f.reshape(len(f), len(self.y), len(self.x))

    def _outputs(self, points: Array) -> Array:
        """Answers in columns: outputs (K, M), one for a number."""
        if self.is_network:
            return np.asarray(self.model.predict(points), float).T
        if self.names is None:
            return np.asarray(self.model.predict(points), float).reshape(1, -1)
        if hasattr(self.model, "predict_proba"):
            return np.asarray(self.model.predict_proba(points), float).T
        answers = np.asarray(self.model.predict(points))
        return (answers == self.known[:, None]).astype(float)

    @property
    def legend_width(self) -> float:
        """Inches that names, or a scale of colors, take beside the axes."""
        if self.names is None:
            return 1.0
        letters = max(len(canvas.shortened(name)) for name in self.names)
        return self._legend_columns * (0.5 + 0.085 * letters)

    @property
    def _legend_columns(self) -> int:
        return -(-len(self.names or [""]) // MOST_ROWS)

    def draw(self, ax: Any, heights: Array, *, inside: bool = False, limits: Any = None) -> None:
        """Regions, or heights between `limits`, and the examples over them; the legend in the axes or beside them."""
        size = 26 if len(self.X) <= 300 else 12
        if self.names is None:
            self._height(ax, heights[0], size, limits or (heights.min(), heights.max()))
        else:
            self._regions(ax, heights)
            for k, name in enumerate(self.names):
                mine = self.X[self.labels == k]
                style = {"marker": canvas.MARKERS[k % len(canvas.MARKERS)], "facecolor": color(k)}
                label = canvas.shortened(name)
                ax.scatter(*mine.T, s=size, edgecolor=INK, linewidth=0.6, label=label, zorder=3, **style)
            if not inside:
                beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
                ax.legend(ncols=self._legend_columns, markerscale=(26 / size) ** 0.5, **beside)
            elif len(self.names) <= MOST_INSIDE:
                ax.legend(loc="best", fontsize="small", framealpha=0.8, handletextpad=0.2)
        ax.set(xlim=self.x[[0, -1]], ylim=self.y[[0, -1]], xlabel="$x_1$", ylabel="$x_2$")

    def _regions(self, ax: Any, heights: Array) -> None:
        from matplotlib.colors import to_rgb

        for k, height in enumerate(heights):
            pale = 1 - 0.35 * (1 - np.array(to_rgb(color(k))))
            if height.max() > 0:
                ax.contourf(self.x, self.y, height, levels=[0, height.max()], colors=[pale])
                if height.min() < 0:
                    ax.contour(self.x, self.y, height, levels=[0], colors=INK, linewidths=1.0)

    def _height(self, ax: Any, height: Array, size: float, limits: tuple[float, float]) -> None:
        from matplotlib.ticker import MaxNLocator

        low, high = min(limits[0], self.given.min()), max(limits[1], self.given.max())
        levels = MaxNLocator(12).tick_values(low, high if high > low else low + 1.0)
        style = {"cmap": "cividis", "vmin": levels[0], "vmax": levels[-1]}
        filled = ax.contourf(self.x, self.y, height, levels=levels, **style)
        inside = levels[(levels > height.min()) & (levels < height.max())]
        if len(inside):
            ax.contour(self.x, self.y, height, levels=inside, colors=INK, linewidths=0.4)
        ax.scatter(*self.X.T, c=self.given, s=size, edgecolor="white", linewidth=0.8, zorder=3, **style)
        ax.figure.colorbar(filled, ax=ax, label="output; fill of a point: y", format="{x:.3g}")


def _points(who: str, X: Any) -> Array:
    """The rows X (N, 2)."""
    X = np.asarray(checks.rows(who, X, None))
    if X.shape[1] != 2:
        advice = "Choose two columns, X[:, [0, 1]], for a network of two inputs."
        raise ValueError(checks.message(who, "X with shape (N, 2), points of a plane", f"shape {X.shape}", advice))
    checks.finite(who, "X", X)
    return X


def color(k: int) -> str:
    """The color of class k; classes whose colors are the same have different signs."""
    return canvas.COLORS[k % len(canvas.COLORS)]
