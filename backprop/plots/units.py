"""Units and arrows: a small change of one weight on its way forward, and the derivative of ℓ on its way back.

    forward    ∂h/∂ω  of each unit       an arrow carries  Ω_ij ∂h_j/∂ω
    backward   ∂ℓ/∂h  of each unit       an arrow carries  Ω_ij ∂ℓ/∂f_i

A weight sits on an arrow. What it multiplies comes from the left, what its change does goes on to the right, and where the two
ways meet they say the same: ∂ℓ/∂ω = h ∂ℓ/∂f.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients.problem import Problem
from backprop.layers import Activation, Linear
from backprop.losses import Loss
from backprop.pictures import ACCENT, INK
from backprop.plots import canvas
from backprop.sequential import Sequential

ACROSS, DOWN, RADIUS, BELOW = 2.3, 1.1, 0.45, 1.0  # between columns, between units, of a unit, for the line of words
MOST = 8  # units of a layer: more are no picture of units
INCHES = 0.6  # of a unit of length, in a figure made here
WHO = "units"
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass
class Column:
    """The units of a layer: their letter, what they hold, ∂/∂ω and ∂ℓ/∂ of it; and the Ω that leads to them, ∂ℓ/∂f behind it."""

    name: str
    held: Array
    moved: Array
    slope: Array
    omega: Array
    slope_f: Array


def units(net: Sequential, loss: Loss, x: Any, y: Any, weight: tuple[str, int, int], *, ax: Any = None) -> Any:
    """Draw units and arrows twice: a change of one weight travelling forward, and the derivative of ℓ travelling back.

    `net` has `Linear` layers, at most 8 units wide, with activations between them. x (D,) and y, a number, a label or (K,), are
    one example. `weight` is the name of an Ω, a row and a column: ("2.omega", 1, 0) is the weight from unit 0 to unit 1. The
    numbers in the units are ∂h/∂ω in the first picture, and ∂ℓ/∂h in the second. An arrow is as dark as what it carries is large,
    the weight itself orange and dashed. `ax` are two axes. Returns them (2,). Raises TypeError and ValueError for other networks,
    data and weights.

    >>> import backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 2), bp.Tanh(), bp.Linear(2, 1), seed=0)
    >>> units(net, bp.LeastSquares(), [1.0], [0.5], ("0.omega", 1, 0)).shape
    (2,)
    """
    at = _suited(net, weight)
    x, y = np.reshape(x, (1, -1)), np.ravel(y)
    problem = Problem(WHO, net, loss, x, y[None] if len(y) > 1 else y, dtype=np.float64)
    columns = _columns(problem, at, weight)
    width = ACROSS * len(columns)
    height = DOWN * max(len(column.held) for column in columns) + 2 * BELOW
    both = canvas.panels(WHO, ax, 2, INCHES * width, INCHES * height)
    for axes, forward in zip(both, (True, False), strict=True):
        axes.set(xlim=(-ACROSS / 2, width - ACROSS / 2), ylim=(-height / 2, height / 2), aspect="equal")
        axes.set_axis_off()
        _draw(axes, columns, at, weight, forward)
    return both


def _suited(net: Any, weight: tuple[str, int, int]) -> int:
    """The number of the layer that has the weight, counting those with weights from 1, the column to its right."""
    checks.instance(WHO, "net", net, Sequential)
    for layer in net:
        if not isinstance(layer, Linear | Activation):
            raise TypeError(checks.message(WHO, "a network of Linear layers and activations", layer.label))
        if isinstance(layer, Linear) and max(layer.omega.shape) > MOST:
            raise ValueError(checks.message(WHO, f"layers of at most {MOST} units", layer.label))
    if not (isinstance(weight, tuple) and list(map(type, weight)) == [str, int, int]):
        raise TypeError(checks.message(WHO, 'weight: (name, row, column), such as ("0.omega", 1, 0)', repr(weight)))
    names = [f"{key}.omega" for key, layer in net.layers.items() if isinstance(layer, Linear)]
    name, i, j = weight
    if name not in names:
        raise ValueError(checks.message(WHO, f"the name of a weight, one of {', '.join(names)}", repr(name)))
    shape = net.parameters[name].shape
    if not (0 <= i < shape[0] and 0 <= j < shape[1]):
        raise ValueError(checks.message(WHO, f"a row and a column of {name} {shape}", f"{i}, {j}"))
    return names.index(name) + 1


def _columns(problem: Problem, at: int, weight: tuple[str, int, int]) -> list[Column]:
    """Both passes. An activation multiplies by its slope either way, so its `backward` takes a change forward, too."""
    h, nothing = problem.h, np.zeros((0, 1))
    columns = [Column("x", h, np.zeros_like(h), nothing, nothing, nothing)]
    for layer in problem.net:
        last, h = columns[-1], layer.forward(h)
        if isinstance(layer, Linear):
            moved = layer.omega @ last.moved
            if len(columns) == at:
                moved[weight[1]] += last.held[weight[2]]
            name = f"f{len(columns) - 1}".translate(SUBSCRIPTS)
            columns.append(Column(name, h, moved, nothing, layer.omega, nothing))
        else:
            last.moved, last.held = layer.backward(last.moved)[0], h
            last.name = f"h{len(columns) - 1}".translate(SUBSCRIPTS)
    ell = np.full((1, 1), problem.loss.forward(h, problem.y))
    dL_df, k = problem.loss.backward(), len(columns) - 1
    columns.append(Column("ℓ", ell, dL_df.T @ columns[-1].moved, np.ones((1, 1)), dL_df.T, np.ones((1, 1))))
    columns[k].slope = dL_df
    for layer in reversed(list(problem.net)):
        if isinstance(layer, Linear):
            columns[k].slope_f, k = dL_df, k - 1
        dL_df = layer.backward(dL_df)[0]
        if isinstance(layer, Linear):
            columns[k].slope = dL_df
    return columns


def _draw(axes: Any, columns: list[Column], at: int, weight: tuple[str, int, int], forward: bool) -> None:
    """One of the two pictures."""
    for c, column in enumerate(columns):
        if c:
            _arrows(axes, c, columns, weight if c == at else None, forward)
        shown = column.moved if forward else column.slope
        top = len(column.held) * DOWN / 2
        canvas.text(axes, c * ACROSS, top + 0.25, column.name, 0.45, color=INK)
        for i, number in enumerate(shown[:, 0]):
            _unit(axes, (c * ACROSS, _height(column, i)), number)
    words = _words(columns, at, weight, forward)
    width, height = ACROSS * len(columns), axes.get_ylim()[1]
    size = min(0.36, width / (0.6 * len(words)))
    canvas.text(axes, ACROSS * (len(columns) - 1) / 2, 0.45 - height, words, size, color=INK)


def _words(columns: list[Column], at: int, weight: tuple[str, int, int], forward: bool) -> str:
    """What the picture says of the weight."""
    h, slope = columns[at - 1].held[weight[2], 0], columns[at].slope_f[weight[1], 0]
    if forward:
        said = f"forward, ∂h/∂ω: from h = {h:.3g}, at ℓ it is {columns[-1].moved[0, 0]:.3g}"
    else:
        said = f"backward, ∂ℓ/∂h: at the weight, h · ∂ℓ/∂f = {h:.3g} · ({slope:.3g}) = {h * slope:.3g}"
    return said.replace("-", "−")


def _arrows(axes: Any, c: int, columns: list[Column], weight: tuple[str, int, int] | None, forward: bool) -> None:
    """All arrows between two columns, the faint ones first."""
    left, right = columns[c - 1], columns[c]
    carried = np.abs(right.omega * (left.moved.T if forward else right.slope_f))
    shares = carried / max(float(carried.max()), 1e-300) if carried.any() else carried
    for i, j in sorted(np.ndindex(*right.omega.shape), key=lambda place: shares[place]):
        ends = ((c - 1) * ACROSS + RADIUS, _height(left, j)), (c * ACROSS - RADIUS, _height(right, i))
        chosen = weight is not None and weight[1:] == (i, j)
        style = (
            {"color": ACCENT, "lw": 2.2, "ls": "--"} if chosen else {"color": str(0.88 * (1 - shares[i, j])), "lw": 0.9}
        )
        start, end = ends if forward else ends[::-1]
        arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8, **style}
        axes.annotate("", end, start, arrowprops=arrow, zorder=3 if chosen else 1 + shares[i, j])


def _unit(axes: Any, place: tuple[float, float], number: float) -> None:
    """A circle with its number; grey where nothing arrives."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle(place, RADIUS, fc="white", ec=INK if number else "0.75", lw=0.9, zorder=3))
    words = f"{number:.2g}".replace("-", "−")
    canvas.text(axes, *place, words, min(0.32, 2.6 * RADIUS / len(words)), color=INK if number else "0.6")


def _height(column: Column, i: int) -> float:
    """Of a unit, the first on top."""
    return DOWN * ((len(column.held) - 1) / 2 - i)
