"""The picture of a computation graph: columns from left to right, few crossings, nothing on top of anything else.

    columns    a value stands as far right as it can: one column before the first that uses it
    order      up and down a column by the mean place of its neighbours, keeping the order with the fewest crossings
    heights    as near to its neighbours as order and distance allow: a regression with order constraints
    long edges run through the columns between as a value without height would

Source: Sugiyama, Tagawa and Toda (1981), "Methods for visual understanding of hierarchical system structures".
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from backprop.pictures import ACCENT, INK, axes

# All of one width, so that texts need no measuring; the last only for letters that have none, such as ℓ.
FONT, SIZE = ["DejaVu Sans Mono", "monospace", "DejaVu Sans"], 9
LETTER, LINE = 0.602 * SIZE / 72, 0.19  # width of a letter, height of a line; all lengths are inches
# In a box, between boxes, to a box, between columns, around.
PAD, GAP, REACH, CURVE, MARGIN = 0.09, 0.24, 0.2, 0.62, 0.15
SWEEPS = 12

Spot = tuple[int, int]  # (node, column): the node itself in its own column, its edge in the columns behind
Places = dict[Spot, float]
Edge = tuple[Spot, Spot, float]  # the last is 0 … 1, from the first operand to the last


@dataclass(frozen=True)
class Node:
    """A value as text, the operation it comes from ("" for a leaf), and the places of its parents in the list of nodes."""

    title: str
    data: str
    grad: str
    operation: str = ""
    parents: tuple[int, ...] = ()

    @property
    def width(self) -> float:
        """Width of the box."""
        return max(len(self.title), len(self.data) + 5, len(self.grad) + 5) * LETTER + 2 * PAD

    @property
    def height(self) -> float:
        """Height of the box."""
        return (3 if self.title else 2) * LINE + PAD

    @property
    def circle(self) -> float:
        """Width of the operation; 0 for a leaf."""
        return max(0.3, len(self.operation) * LETTER + 0.16) if self.operation else 0.0

    @property
    def lead(self) -> float:
        """Width of the operation and of the line from it to the box."""
        return self.circle + REACH if self.operation else 0.0


class Layout:
    """Where the nodes of a graph, parents first, stand: from `x` to `right` each column, `y` of each spot, and the edges."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.column = _columns(nodes)
        self.edges = list(dict.fromkeys(self._edges()))
        self.spots: list[list[Spot]] = [[] for _ in range(max(self.column) + 1)]
        for spot in dict.fromkeys([(i, c) for i, c in enumerate(self.column)] + [s for s, _, _ in self.edges]):
            self.spots[spot[1]].append(spot)
        self.order()
        self.y = self.heights()
        inside = [[nodes[spot[0]] for spot in spots if self.real(spot)] for spots in self.spots]
        leads = [max(node.lead for node in column) for column in inside]
        widths = np.add(leads, [max(node.width for node in column) for column in inside])
        self.x = np.cumsum([0.0, *(widths[:-1] + CURVE)])  # left of a column, where its operations are
        self.box, self.right = self.x + leads, self.x + widths

    def real(self, spot: Spot) -> bool:
        """Whether a spot is a node, not an edge on its way."""
        return self.column[spot[0]] == spot[1]

    def _edges(self) -> Iterator[Edge]:
        """From column to next column. The edges of one parent run together until they part."""
        for j, node in enumerate(self.nodes):
            for k, i in enumerate(node.parents):
                for c in range(self.column[i] + 1, self.column[j]):
                    yield (i, c - 1), (i, c), 0.5
                yield (i, self.column[j] - 1), (j, self.column[j]), (k + 0.5) / len(node.parents)

    def order(self) -> None:
        """Sweep through the columns, sorting each by its neighbours; keep the best."""
        best, fewest = self.spots, math.inf
        for sweep in range(SWEEPS):
            leftward = sweep % 2 == 0
            place = {spot: float(p) for spots in self.spots for p, spot in enumerate(spots)}
            for spots in reversed(self.spots) if leftward else self.spots:
                wanted = self.wanted(spots, place, leftward, 0.9)  # operands from top to bottom
                spots.sort(key=wanted.__getitem__)
                place.update({spot: float(p) for p, spot in enumerate(spots)})
            crossings = self.crossings(place)
            if crossings < fewest:
                best, fewest = [list(spots) for spots in self.spots], crossings
        self.spots = best

    def wanted(self, spots: list[Spot], place: Places, leftward: bool, spread: float = 0.0) -> Places:
        """The mean place of each spot's neighbours to the right (for a sweep leftward) or to the left; its own without any."""
        near: dict[Spot, list[float]] = {spot: [] for spot in spots}
        for left, right, port in self.edges:
            spot, neighbour = (left, place[right] + spread * port) if leftward else (right, place[left])
            if spot in near:
                near[spot].append(neighbour)
        return {spot: float(np.mean(places or [place[spot]])) for spot, places in near.items()}

    def crossings(self, place: Places) -> int:
        """How many pairs of edges cross."""
        total = 0
        for c in range(len(self.spots) - 1):
            ends = np.array([(place[a], place[b] + 0.9 * port) for a, b, port in self.edges if a[1] == c])
            apart = ends[:, None] - ends
            total += int(np.count_nonzero(apart[..., 0] * apart[..., 1] < 0)) // 2
        return total

    def heights(self) -> Places:
        """Centre of each spot, downwards from 0."""
        from scipy.optimize import isotonic_regression

        tall = {spot: self.nodes[spot[0]].height if self.real(spot) else 0.0 for spots in self.spots for spot in spots}
        offsets = []
        for spots in self.spots:
            distances = [(tall[a] + tall[b]) / 2 + GAP for a, b in pairwise(spots)]
            offsets.append(np.cumsum([0.0, *distances]))
        y = {s: float(v) for spots, at in zip(self.spots, offsets, strict=True) for s, v in zip(spots, at, strict=True)}
        for sweep in range(2 * SWEEPS):
            leftward = sweep % 2 == 0
            for c in range(len(self.spots))[:: -1 if leftward else 1]:
                wanted = np.array([*self.wanted(self.spots[c], y, leftward).values()])
                nearest = offsets[c] + isotonic_regression(wanted - offsets[c]).x  # that are far enough apart
                y.update(zip(self.spots[c], nearest.tolist(), strict=True))
        top = min(y[spot] - tall[spot] / 2 for spot in y)
        return {spot: v - top for spot, v in y.items()}


def _columns(nodes: list[Node]) -> list[int]:
    """The column of each node: the last minus the longest path to the root."""
    steps = [0] * len(nodes)
    for j in reversed(range(len(nodes))):
        for i in nodes[j].parents:
            steps[i] = max(steps[i], steps[j] + 1)
    return [max(steps) - s for s in steps]


def draw(nodes: list[Node]) -> Any:
    """Matplotlib axes with the graph of these nodes, parents first, the root last."""
    layout = Layout(nodes)
    low = max(layout.y[i, c] + nodes[i].height / 2 for i, c in enumerate(layout.column))
    width, height = layout.right[-1] + 2 * MARGIN, max(low, *layout.y.values()) + 2 * MARGIN
    ax = axes(width=width, height=height)
    ax.set_position((0, 0, 1, 1))  # an inch of the layout is an inch of the figure
    ax.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN))
    ax.set_axis_off()
    for edge in layout.edges:
        _edge(ax, layout, edge)
    for i, c in enumerate(layout.column):
        _node(ax, nodes[i], layout.box[c], layout.y[i, c])
    return ax


def _edge(ax: Any, layout: Layout, edge: Edge) -> None:
    """A curve from one column to the next; straight through the columns themselves, where boxes are."""
    from matplotlib.patches import FancyArrowPatch, PathPatch
    from matplotlib.path import Path as Curve

    left, right, port = edge
    node, target = layout.nodes[left[0]], layout.nodes[right[0]]
    start, y, down = layout.right[left[1]], layout.y[left], layout.y[right]
    first = layout.box[left[1]] + node.width if layout.real(left) else layout.x[left[1]]
    bend = end = layout.x[right[1]]
    if layout.real(right):
        down += (port - 0.5) * 0.2
        end = layout.box[right[1]] - REACH - target.circle + 0.01
    points = [(first, y), (start, y), ((start + bend) / 2, y), ((start + bend) / 2, down), (bend, down), (end, down)]
    curve = Curve(points, [Curve.MOVETO, Curve.LINETO, *[Curve.CURVE4] * 3, Curve.LINETO])
    if layout.real(right):
        ax.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=7, lw=0.8, color=INK))
    else:
        ax.add_patch(PathPatch(curve, fill=False, lw=0.8, color=INK))


def _node(ax: Any, node: Node, box: float, y: float) -> None:
    """The box of a value, which begins at `box`, and before it the operation it comes from."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    text = {"family": FONT, "size": SIZE, "color": INK, "parse_math": False}
    middle_of_letters = 0.36 * SIZE / 72  # above their baseline
    top = y - node.height / 2
    if node.operation:
        middle, half = box - REACH - node.circle / 2, node.circle / 2
        ax.plot([middle + half, box], [y, y], lw=0.8, color=INK)
        corner, width = (middle - half + 0.15, y), node.circle - 0.3
        ax.add_patch(FancyBboxPatch(corner, width, 0, boxstyle="round,pad=0.15", fc="white", ec=INK, lw=0.8))
        ax.text(middle, y + middle_of_letters, node.operation, ha="center", **text)
    strip = LINE + PAD / 2
    ax.add_patch(Rectangle((box, top), node.width, node.height, fc="white", ec="none"))
    ax.add_patch(Rectangle((box, top + node.height - strip), node.width, strip, fc=ACCENT, alpha=0.25, ec="none"))
    ax.add_patch(Rectangle((box, top), node.width, node.height, fill=False, ec=INK, lw=0.8))
    lines = [("", node.title)] * bool(node.title) + [("data", node.data), ("grad", node.grad)]
    for row, (name, content) in enumerate(lines):
        at = top + PAD / 4 + (row + 0.5) * LINE + (PAD / 2 if name == "grad" else 0) + middle_of_letters
        bold = {"weight": "bold"} if not name else {}
        ax.text(box + PAD, at, f"{name:<5}{content}" if name else content, ha="left", **text, **bold)


def rendered(picture: Any, kind: str) -> bytes:
    """The picture as ".svg" or ".png". The texts of SVG stay texts, and the same picture gives the same bytes."""
    import matplotlib

    into, most_pixels = io.BytesIO(), 60_000  # that the rasterizer takes along one side
    dpi = min(200.0, most_pixels / max(picture.figure.get_size_inches()))
    metadata = {"Date": None} if kind == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "backprop"}):
        picture.figure.savefig(into, format=kind[1:], dpi=dpi, metadata=metadata)
    return into.getvalue()
