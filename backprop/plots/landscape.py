"""The loss around a point φ, along one direction or over a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients.problem import Problem
from backprop.losses import Loss
from backprop.pictures import ACCENT, INK
from backprop.plots import canvas
from backprop.sequential import Sequential

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

Span = tuple[float, float]


def loss_line(
    net: Sequential,
    loss: Loss,
    X: Any,
    y: Any,
    direction: Any = None,
    *,
    span: Span = (-1.0, 1.0),
    points: int = 51,
    seed: int = 0,
    ax: Axes | None = None,
) -> Drawn:
    """The loss along a line through φ. Returns the axes.

        L(φ + t d)      t from span[0] to span[1], at `points` places

    `direction` d (P,) is `other.phi - net.phi` for the way to another network, which is at t = 1; without, it is drawn at random
    and normalized as in `loss_surface`. Rows X (N, D), y (N,) or (N, K); the network is taken as `predict` takes it, on a copy.
    Where the loss is not finite the line has a gap.

    Raises TypeError or ValueError for a network, loss, data, direction or span that does not fit.
    Source: Goodfellow, Vinyals and Saxe (2015), "Qualitatively characterizing neural network optimization problems".

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1), seed=0, dtype="float64")
    >>> ax = loss_line(net, bp.LeastSquares(), np.ones((4, 1)), np.ones(4), points=5)
    >>> ax.lines[0].get_xdata()
    array([-1. , -0.5,  0. ,  0.5,  1. ])
    """
    who = "loss_line"
    problem, d = _question(who, net, loss, X, y, [direction], seed)
    t = _steps(who, span, points)
    ax = canvas.axes(who, ax, 5.6, 3.8)
    L = _losses(who, problem, t[:, None], d)
    ax.plot(t, L, color=INK)
    if t[0] <= 0 <= t[-1]:
        ax.plot(0, _losses(who, problem, np.zeros((1, 1)), d), "o", ms=9, color=ACCENT, mec=INK, label="φ")
    if direction is not None and t[0] <= 1 <= t[-1]:
        ax.plot(1, _losses(who, problem, np.ones((1, 1)), d), "s", ms=8, color="white", mec=INK, label="φ + d")
    canvas.logarithmic(ax, L)
    ax.set(xlabel="t", ylabel="loss at φ + t d")
    ax.grid(alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)
    return ax


def loss_surface(
    net: Sequential,
    loss: Loss,
    X: Any,
    y: Any,
    directions: Sequence[Any] | None = None,
    *,
    span: Span = (-1.0, 1.0),
    points: int = 25,
    seed: int = 0,
    ax: Axes | None = None,
) -> Drawn:
    """The loss over a plane through φ, as contours. Returns the axes.

        L(φ + s d_1 + t d_2)                          s and t from span[0] to span[1], at points² places
        d_k ← d_k · ‖row_k of Ω‖ / ‖d_k‖              random directions: each row as long as that of the weights

    So normalized, a step means the same for every unit whatever the scale of its weights, and sharp and flat can be compared
    between networks; vectors (biases, the parameters of normalizations) stay as they are, as in the source. `directions` are two
    vectors (P,) of your own, such as the ways to two other networks. Otherwise as `loss_line`. It takes points² forward passes
    over X: hand in as many rows as you have patience for.

    Raises TypeError or ValueError as `loss_line`.
    Source: Li, Xu, Taylor, Studer and Goldstein (2018), "Visualizing the loss landscape of neural nets", section 4.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 1), seed=0)
    >>> loss_surface(net, bp.LeastSquares(), np.eye(2), np.ones(2), points=5).get_xlabel()
    's'
    """
    who = "loss_surface"
    directions = [None, None] if directions is None else directions
    if not isinstance(directions, Sequence | np.ndarray) or len(directions) != 2:
        raise ValueError(checks.message(who, "two directions, vectors (P,)", repr(directions)))
    problem, d = _question(who, net, loss, X, y, directions, seed)
    t = _steps(who, span, points)
    places = np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2)
    ax = canvas.axes(who, ax, 5.4, 4.4)
    _contours(ax, t, _losses(who, problem, places, d).reshape(len(t), len(t)))
    if t[0] <= 0 <= t[-1]:
        ax.plot(0, 0, "o", ms=9, color=ACCENT, mec="white", label="φ")
    ax.set(xlabel="s", ylabel="t", title="loss at φ + s d₁ + t d₂")
    return ax


def random_direction(net: Sequential, generator: np.random.Generator) -> Array:
    """A random direction (P,) whose every row is as long as that row of the weights; 0 for vectors."""
    direction = np.zeros(net.size)
    for name, view in net.views(direction).items():
        if view.ndim > 1:
            rows = generator.standard_normal(view.shape)
            axes = tuple(range(1, view.ndim))
            length = np.sqrt(np.sum(np.square(net.parameters[name], dtype=float), axis=axes, keepdims=True))
            view[...] = rows * length / np.sqrt(np.sum(rows**2, axis=axes, keepdims=True))
    return direction


def _question(
    who: str, net: Any, loss: Any, X: Any, y: Any, directions: Sequence[Any], seed: int
) -> tuple[Problem, Array]:
    """A copy of everything, and the directions (n, P)."""
    checks.instance(who, "net", net, Sequential)
    problem, generator = Problem(who, net, loss, X, y), checks.generator(who, seed)
    found = []
    for direction in directions:
        d = random_direction(net, generator) if direction is None else checks.numeric(who, "a direction", direction)
        if d.shape != net.phi.shape:
            expected = f"a direction with shape {net.phi.shape}, that of φ"
            raise ValueError(checks.message(who, expected, f"shape {d.shape}"))
        checks.finite(who, "a direction", d)
        if not d.any():
            advice = "Random directions leave vectors as they are: this network has no weights beside them."
            raise ValueError(checks.message(who, "a direction", "zeros", "" if direction is not None else advice))
        found.append(d.astype(float))
    return problem, np.array(found)


def _steps(who: str, span: Any, points: int) -> Array:
    """So many numbers from the first to the last of the span."""
    if not isinstance(span, Sequence) or len(span) != 2:
        raise TypeError(checks.message(who, "span (first, last)", repr(span)))
    first = checks.number(who, "first of span", span[0])
    last = checks.number(who, "last of span", span[1], above=first)
    return np.linspace(first, last, checks.integer(who, "points", points, least=2))


def _losses(who: str, problem: Problem, places: Array, directions: Array) -> Array:
    """L at φ + places · directions; NaN where it is not finite, which it must be somewhere."""
    net, L = problem.net, np.empty(len(places))
    start = net.phi.astype(float)
    with np.errstate(all="ignore"):
        for i, place in enumerate(places):
            net.phi[...] = start + place @ directions
            L[i] = problem.loss.forward(net.infer(problem.h), problem.y)
    net.phi[...] = start
    if not np.isfinite(L).any():
        raise ValueError(checks.message(who, "a finite loss somewhere", "none", "Make the span smaller."))
    return np.where(np.isfinite(L), L, np.nan)


def _contours(ax: Any, t: Array, L: Array) -> None:
    """Filled contours, logarithmic where the loss spans more than a factor of 10."""
    from matplotlib.colors import LogNorm

    low, high = float(np.nanmin(L)), float(np.nanmax(L))
    if not high > low:
        high = low + 1.0
    logarithmic = low > 0 and high > 10 * low
    space, norm = (np.geomspace, LogNorm(low, high)) if logarithmic else (np.linspace, None)
    levels, shown = space(low, high, 14), np.ma.masked_invalid(L)
    filled = ax.contourf(t, t, shown, levels=levels, cmap="cividis", norm=norm)
    ax.contour(t, t, shown, levels=levels[1:-1], colors="white", linewidths=0.5)
    ax.figure.colorbar(filled, ax=ax, label="loss", format="{x:.2g}")
