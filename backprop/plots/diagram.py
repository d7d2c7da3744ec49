"""A network as boxes and arrows: what each layer holds, and the shape of what passes between them.

All lengths are heights of a letter. Each part of the picture knows its `width` and `height`, and draws itself below a point
on its middle line, which it enters from above and leaves below. If it has a `head`, the arrow from above ends there; a line goes
on into what parts.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.around.nesting import chain
from backprop.checks import Array
from backprop.gradients.explain import SYMBOLS
from backprop.layers import FanOut, Layer, Residual
from backprop.pictures import INK
from backprop.plots import canvas
from backprop.sequential import Sequential

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

LETTER = 0.125  # inches of a figure made here
LINE, PAD, ARROW, BESIDE, ROUND, MARGIN = 1.45, 0.8, 2.3, 1.6, 0.8, 1.0
MOST_ARRAYS, MOST_LETTERS = 3, 40  # of parameters named in a box; in a line of it
MOST_INCHES = 60.0


def network_diagram(net: Layer, *, ax: Axes | None = None) -> Drawn:
    """The layers as boxes from top to bottom, with the shape (D, N) of what passes between them. Returns the axes.

    A box names the layer and its parameters with their shapes and number; N is the number of examples, "?" a width that only the
    data decide. The input of a `Residual` goes around its layer to a +; the branches of a `FanOut` stand
    side by side. A network inside a network is drawn as its layers. Letters shrink with the axes they are put in.

    Raises TypeError for what is no layer or network.

    >>> import backprop as bp
    >>> ax = network_diagram(bp.Sequential(bp.Linear(2, 3), bp.Tanh()))
    >>> [text.get_text() for text in ax.texts]
    ['h (2, N)', 'Linear', 'β (3,)  Ω (3, 2)', '9 parameters', '(3, N)', 'Tanh', 'f (3, N)', 'φ: 9 parameters']
    """
    who = "network_diagram"
    checks.instance(who, "net", net, Layer)
    parts = _part(net, net.in_features)
    first, last = f"h {_shape(net.in_features)}", f"f {_shape(chain(net, net.in_features))}"
    total = f"φ: {net.size:,} parameters"
    width = max(parts.width, *(text_width(text) for text in (first, last, total))) + 2 * MARGIN
    height = parts.height + 2 * ARROW + 3 * LINE + 2 * MARGIN
    unit = min(LETTER, MOST_INCHES / max(width, height))
    ax = canvas.axes(who, ax, unit * width, unit * height)
    ax.set(xlim=(-width / 2, width / 2), ylim=(height, 0), aspect="equal")
    ax.set_axis_off()
    y = MARGIN + LINE
    text(ax, 0, y - LINE / 2, first)
    arrow(ax, (0, y), (0, y + ARROW), head=parts.head)
    parts.draw(ax, 0, y + ARROW)
    y += ARROW + parts.height
    arrow(ax, (0, y), (0, y + ARROW))
    text(ax, 0, y + ARROW + LINE / 2, last)
    text(ax, 0, y + ARROW + 1.5 * LINE, total, color="0.35")
    return ax


class Box:
    """A layer: its name, its parameters, their number."""

    head = True

    def __init__(self, layer: Layer) -> None:
        self.lines = [_name(layer)]
        if layer.parameters:
            arrays = [f"{_symbol(name)} {array.shape}" for name, array in layer.parameters.items()]
            arrays[MOST_ARRAYS:] = ["…"] * (len(arrays) > MOST_ARRAYS)
            self.lines += ["  ".join(arrays), f"{layer.size:,} parameter{'s' * (layer.size != 1)}"]
        self.width = max(text_width(line, bold=i == 0) for i, line in enumerate(self.lines)) + 2 * PAD
        self.height = LINE * len(self.lines) + 2 * PAD

    def draw(self, ax: Any, x: float, y: float) -> None:
        """A frame around the lines; grey if there are parameters."""
        from matplotlib.patches import FancyBboxPatch

        corner = (x - self.width / 2 + 0.3, y + 0.3)
        size = (self.width - 0.6, self.height - 0.6)
        face = "0.9" if len(self.lines) > 1 else "white"
        ax.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.3", fc=face, ec=INK, lw=0.8))
        for i, line in enumerate(self.lines):
            text(ax, x, y + PAD + (i + 0.5) * LINE, line, bold=i == 0)


class Chain:
    """Layers one after another, with the shape that leaves each one beside the arrow."""

    def __init__(self, layers: list[Layer], width: int | None) -> None:
        self.parts, self.shapes = [], []
        for layer in layers:
            self.parts.append(_part(layer, width))
            width = chain(layer, width)
            self.shapes.append(_shape(width))
        self.head: bool = self.parts[0].head
        beside = [2 * _beside(shape) for shape in self.shapes[:-1]]
        self.width: float = max(*(part.width for part in self.parts), *beside, 0.0)
        self.height: float = sum(part.height for part in self.parts) + ARROW * (len(self.parts) - 1)

    def draw(self, ax: Any, x: float, y: float) -> None:
        """From top to bottom."""
        self.parts[0].draw(ax, x, y)
        for (before, part), shape in zip(pairwise(self.parts), self.shapes, strict=False):
            y += before.height + ARROW
            arrow(ax, (x, y - ARROW), (x, y), head=part.head)
            text(ax, x + PAD, y - ARROW / 2, shape, ha="left")
            part.draw(ax, x, y)


class Skip:
    """A layer, and a line around it to a +."""

    head = False

    def __init__(self, inner: Layer, width: int | None) -> None:
        self.inner, self.shape = _part(inner, width), _shape(width)
        self.reach = max(self.inner.width / 2, _beside(self.shape)) + BESIDE
        self.width: float = 2 * (self.reach + PAD)
        self.height: float = ARROW + self.inner.height + ARROW + 2 * ROUND

    def draw(self, ax: Any, x: float, y: float) -> None:
        """The way through the layer on the middle line, the way around it on the right."""
        from matplotlib.patches import Circle

        end = y + ARROW + self.inner.height
        middle = end + ARROW + ROUND
        arrow(ax, (x, y), (x, y + ARROW), head=self.inner.head)
        self.inner.draw(ax, x, y + ARROW)
        arrow(ax, (x, end), (x, middle - ROUND))
        text(ax, x + PAD, end + ARROW / 2, self.shape, ha="left")
        line(ax, [(x, y + ARROW / 2), (x + self.reach, y + ARROW / 2), (x + self.reach, middle)])
        arrow(ax, (x + self.reach, middle), (x + ROUND, middle))
        ax.add_patch(Circle((x, middle), ROUND, fc="white", ec=INK, lw=0.8, zorder=3))
        text(ax, x, middle, "+", bold=True)


class Fan:
    """Branches side by side, and where they meet again."""

    head = False

    def __init__(self, fan: FanOut, width: int | None) -> None:
        self.parts = [_part(branch, width) for branch in fan.layers.values()]
        self.shapes = [_shape(chain(branch, width)) for branch in fan.layers.values()]
        widths = [max(part.width, 2 * _beside(shape)) for part, shape in zip(self.parts, self.shapes, strict=True)]
        total = sum(widths) + BESIDE * (len(widths) - 1)
        lefts = accumulate([own + BESIDE for own in widths], initial=-total / 2)
        self.middles = [left + own / 2 for left, own in zip(lefts, widths, strict=False)]
        self.word = "concatenate" if fan.join == "concatenate" else "+"
        self.width: float = max(total, text_width("concatenate") + 4 * PAD)
        self.tall = max(part.height for part in self.parts)
        self.height: float = 1.5 * ARROW + self.tall + ARROW + 2 * ROUND

    def draw(self, ax: Any, x: float, y: float) -> None:
        """Down, apart, through the branches, and together."""
        fork, top = y + ARROW / 2, y + 1.5 * ARROW
        bottom = top + self.tall
        meet = bottom + ARROW
        line(ax, [(x, y), (x, fork)])
        for part, shape, dx in zip(self.parts, self.shapes, self.middles, strict=True):
            line(ax, [(x, fork), (x + dx, fork)])
            arrow(ax, (x + dx, fork), (x + dx, top), head=part.head)
            part.draw(ax, x + dx, top)
            arrow(ax, (x + dx, top + part.height), (x + dx, meet))
            text(ax, x + dx + PAD, bottom + ARROW / 2, shape, ha="left")
        self._meet(ax, x, meet)

    def _meet(self, ax: Any, x: float, y: float) -> None:
        """A bar as wide as the branches, which says how they are joined."""
        from matplotlib.patches import Rectangle

        half = max(-self.middles[0] + ROUND, text_width(self.word, bold=True) / 2 + PAD)
        ax.add_patch(Rectangle((x - half, y), 2 * half, 2 * ROUND, fc="white", ec=INK, lw=0.8))
        text(ax, x, y + ROUND, self.word, bold=True)


def _part(layer: Layer, width: int | None) -> Box | Chain | Skip | Fan:
    if isinstance(layer, Sequential):
        return Chain(list(layer), width)
    if isinstance(layer, Residual):
        return Skip(layer.layers["layer"], width)
    if isinstance(layer, FanOut):
        return Fan(layer, width)
    return Box(layer)


def _shape(width: int | None) -> str:
    return f"({width or '?'}, N)"


def _beside(shape: str) -> float:
    """Width of a shape beside an arrow."""
    return text_width(shape) + PAD


def _symbol(name: str) -> str:
    """β for "beta", 0.β for "0.beta" of a layer inside."""
    inside, dot, last = name.rpartition(".")
    return inside + dot + SYMBOLS.get(last, last)


def _name(layer: Layer) -> str:
    """The call that makes the layer; its kind alone where the arrows and the parameters say the rest."""
    name = repr(layer)
    kind = type(layer).__name__
    return kind if "→" in name or name == f"{kind}()" else canvas.shortened(name.replace("\n", " "), MOST_LETTERS)


def line(ax: Any, points: list[tuple[float, float]]) -> None:
    """A line through points."""
    ax.plot(*zip(*points, strict=True), color=INK, lw=0.8, solid_capstyle="round")


def arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], head: bool = True) -> None:
    """A line with a head, which grows and shrinks with the letters."""
    (x, y), (a, b) = start, end
    line(ax, [start, end])
    if not head:
        return
    dx, dy = np.sign([a - x, b - y])
    tip = [(a - 0.6 * dx + side * 0.28 * dy, b - 0.6 * dy + side * 0.28 * dx) for side in (-1, 1)]
    ax.fill(*zip(end, *tip, strict=True), color=INK, lw=0)


def text(ax: Any, x: float, y: float, words: str, *, bold: bool = False, **style: Any) -> None:
    """Words whose letters are 1 high."""
    canvas.text(ax, x, y, words, va="center_baseline", weight="bold" if bold else "normal", **{"color": INK, **style})


@cache
def text_width(words: str, bold: bool = False) -> float:
    """Width of words whose letters are 1 high."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(weight="bold" if bold else "normal")
    box: Array = TextPath((0, 0), words, size=1, prop=font).get_extents().bounds
    return float(box[0] + box[2])
