"""A network's forward and backward pass on the chalkboard: every equation with its shapes and its numbers.

The names are those of the notes. Layers with parameters give f_0, f_1, …, the others h_1, h_2, …:

    f_0 = β_0 + Ω_0 x,   h_1 = a[f_0],   f_1 = β_1 + Ω_1 h_1,   …,   ℓ = loss[f_K, y]
    ∂L/∂f_K,   ∂L/∂h_K, ∂L/∂β_K, ∂L/∂Ω_K,   ∂L/∂f_{K−1},   …,   ∂L/∂x

An equation with the numbers of one array is an `Item`, the items of one layer are a `Step`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

import numpy as np

from backprop import checks, signs
from backprop.checks import Array
from backprop.gradients.problem import Problem
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.sequential import Sequential

__all__ = ["Explanation", "explain"]

SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "omega": "Ω"}
HEAD = 38  # characters for an equation; a longer one has its numbers on the next line
EDGE = 3  # rows and columns shown at each end of an array; those between become "..."


@dataclass(frozen=True)
class Item:
    """One array: its name, the equation that gives it (or the bare name), its numbers."""

    name: str
    equation: str
    value: Array


@dataclass(frozen=True)
class Step:
    """The items of one layer, or of the loss, in one direction."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `explain` returns: the steps of both passes, shown as text, or as Markdown in a notebook.

    `numbers` holds every array by its name in the text, such as "h_1" or "∂L/∂Ω_0". `walk()` prints an equation at a time.
    """

    forward: tuple[Step, ...]
    backward: tuple[Step, ...]

    @property
    def numbers(self) -> dict[str, Array]:
        """Name -> array, in the order of the text."""
        return {item.name: item.value for step in self.forward + self.backward for item in step.items}

    @property
    def text(self) -> str:
        """Both passes as plain text: equation, shape, numbers."""
        return "\n".join(self.lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The text as one would write it on a board: an equation at a time, with the heads that come before it."""
        lines, above = [], ""
        for heading, steps in self._passes():
            above += f"{heading}\n{'=' * len(heading)}\n\n"
            for step in steps:
                above += f"{step.title}\n"
                for item in step.items:
                    lines.append(above + _show(item, "    ", self._width))
                    above = ""
                above = "\n"
        return tuple(lines)

    @property
    def markdown(self) -> str:
        """Both passes as Markdown: a heading for each step, equations, shapes and numbers in a code block."""
        parts = []
        for heading, steps in self._passes():
            parts.append(f"## {heading}")
            for step in steps:
                items = "\n".join(_show(item, "", self._width) for item in step.items)
                parts.append(f"### {escape(step.title)}\n\n```text\n{items}\n```")
        return "\n\n".join(parts)

    def walk(self) -> None:
        """Print an equation at a time: Enter goes on, Ctrl-C ends. Where nobody can press it, all of them come at once.

        In a notebook the field that waits for input waits for Enter, too.
        """
        where = _who_waits()
        for line in self.lines[:-1]:
            print(line, end="" if where == "terminal" else "\n", flush=True)  # a terminal shows the Enter as a new line
            try:
                if where:
                    input()
            except (
                EOFError,
                NotImplementedError,
            ):  # no input after all: a kernel that runs without anybody says so here
                print(end="\n" if where == "terminal" else "")
                where = ""
            except KeyboardInterrupt:
                print()
                return
        print(self.lines[-1])

    def _passes(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return ("Forward pass", self.forward), ("Backward pass", self.backward)

    @property
    def _width(self) -> int:
        """Of the column of equations, with room for those that an output of letters only makes longer."""
        lengths = [
            len(signs.letters(item.equation)) for _, steps in self._passes() for step in steps for item in step.items
        ]
        return max(length for length in lengths if length <= HEAD)

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def explain(net: Sequential, loss: Loss, X: Array, y: Array, sample_weight: Array | None = None) -> Explanation:
    """Run `net` forward and backward on the rows X, layer by layer, and show each equation with its numbers.

    X (N, D) holds one example per row, y (N,) or (N, K) the targets, sample_weight (N,) the weights. Inside,
    an example is a column: the shapes shown are (D, N). It is a training pass in float64 on a copy, so `net`
    and `loss` stay as they are; Dropout shows one mask, BatchNorm the statistics of these examples.

    Raises TypeError or ValueError for a network, loss or data that do not fit.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, initializer=bp.Constant(2)), bp.Exp())
    >>> passes = bp.explain(net, bp.LeastSquares(), X=np.zeros((1, 1)), y=np.array([3.0]))
    >>> print(str(passes).splitlines()[-1])
        ∂L/∂Ω_0 = ∂L/∂f_0 xᵀ        (1, 1)    [[0.]]
    """
    checks.instance("explain", "net", net, Sequential)
    problem = Problem("explain", net, loss, X, y, sample_weight, dtype=np.float64).fresh()
    layers = list(_named(problem.net))
    forward, f = _forward(layers, problem.h)
    of_loss, slope = _loss(problem, layers[-1].f, f)
    backward = _backward(layers, problem.loss.backward())
    return Explanation((_step("the examples", {"x": problem.h}), *forward, of_loss), (slope, *backward))


@dataclass(frozen=True)
class _Named:
    """A layer of the copied network with what its h and f are called."""

    key: str
    layer: Layer
    k: int  # number of the f_k at hand: this layer's own, or of the last layer with parameters
    h: str
    f: str

    @property
    def title(self) -> str:
        return f"layer {self.key}: {self.layer.label}"

    def parameter(self, name: str) -> str:
        """β_k for "beta", β_k[0] for "0.beta" of a layer inside."""
        inside, _, last = name.rpartition(".")
        return f"{SYMBOLS.get(last, last)}_{self.k}" + (f"[{inside}]" if inside else "")

    def write(self, equation: str) -> str:
        """An equation of the layer in the names of the network."""
        names = {"h": self.h, "f": self.f}
        names |= {SYMBOLS.get(name, name): self.parameter(name) for name in self.layer.parameters}
        return _rename(equation.replace("layer[", f"{type(self.layer).__name__}["), names)

    def gradient(self, name: str) -> str:
        """The layer's equation for ∂L/∂name; without one, the chain rule."""
        written = map(self.write, self.layer.equations[1:])
        chain_rule = f"∂L/∂{name} = ∂{self.f}/∂{name} ∂L/∂{self.f}"
        return next((line for line in written if line.startswith(f"∂L/∂{name} =")), chain_rule)


def _named(net: Sequential) -> Iterator[_Named]:
    """The layers in order, those of a network inside the network too, with the names of the notes."""
    k, h = -1, "x"
    for key, layer in flattened(net):
        k += bool(layer.parameters)
        f = f"f_{k}" if layer.parameters else f"h_{k + 1}"
        if h.startswith(f):  # a second layer without parameters: h_1 becomes h_1'
            f = f"{h}'"
        yield _Named(key, layer, k, h, f)
        h = f


def flattened(net: Sequential, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """The layers in order with their keys, those of a network inside the network too."""
    for key, layer in net.layers.items():
        if type(layer) is Sequential:
            yield from flattened(layer, f"{prefix}{key}.")
        else:
            yield prefix + key, layer


def _forward(layers: list[_Named], h: Array) -> tuple[list[Step], Array]:
    """The forward pass: f = layer.forward(h), one layer after another."""
    steps = []
    for named in layers:
        arrays = {named.parameter(name): array for name, array in named.layer.parameters.items()}
        h = arrays[named.f] = named.layer.forward(h)
        steps.append(_step(named.title, arrays, {named.f: named.write(named.layer.equations[0])}))
    return steps, h


def _loss(problem: Problem, end: str, f: Array) -> tuple[Step, Step]:
    """ℓ and L, then ∂ℓ/∂f and ∂L/∂f; the outputs f are called `end`."""
    loss, y, w = problem.loss, problem.y, problem.w
    L = loss.forward(f, y, w)
    weight, total = ("", "N") if w is None else ("wₙ ", "Σₙ wₙ")
    divide = "" if loss.reduction == "sum" else f" / {total}"
    first, second = (re.sub(r"(?<![A-Za-z])f(?=_[a-z]|ⱼ)", "(f)", equation) for equation in loss.equations)
    equations = {
        "ℓ": _rename(first, {"f": end}),
        "L": f"L = Σₙ {weight}ℓₙ{divide}",
        f"∂ℓ/∂{end}": _rename(second, {"f": end}),
        f"∂L/∂{end}": f"∂L/∂{end} = {weight}∂ℓ/∂{end}{divide}",
    }
    values = {"y": y} | ({} if w is None else {"w": w}) | {"ℓ": loss.per_example(f, y), "L": np.asarray(L)}
    slopes = {f"∂ℓ/∂{end}": loss.dell_df(), f"∂L/∂{end}": loss.backward()}
    title = f"loss: {loss!r}"
    return _step(title, values, equations), _step(title, slopes, equations)


def _backward(layers: list[_Named], dL_df: Array) -> Iterator[Step]:
    """The backward pass: dL_dh, gradients = layer.backward(dL_df), from the last layer to the first."""
    for named in reversed(layers):
        dL_df, gradients = named.layer.backward(dL_df)  # this layer's ∂L/∂h is ∂L/∂f of the one before it
        arrays = {named.h: dL_df} | {named.parameter(name): array for name, array in gradients.items()}
        equations = {f"∂L/∂{name}": named.gradient(name) for name in arrays}
        yield _step(named.title, {f"∂L/∂{name}": array for name, array in arrays.items()}, equations)


def _who_waits() -> str:
    """Where somebody can press Enter: in a "terminal", in a "notebook", or "" for nowhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return "notebook"
    both = sys.stdin, sys.stdout
    return "terminal" if all(stream is not None and stream.isatty() for stream in both) else ""


def _step(title: str, arrays: dict[str, Array], equations: Mapping[str, str] = MappingProxyType({})) -> Step:
    """Items in the order of the arrays, copied: a layer of one's own may write over what it is handed."""
    return Step(title, tuple(Item(name, equations.get(name, name), np.array(a)) for name, a in arrays.items()))


def _rename(equation: str, names: dict[str, str]) -> str:
    """Replace the symbols of an equation, but not letters within words such as exp or mean."""
    symbols = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![A-Za-z_])({symbols})(?![A-Za-z_])", lambda found: names[found[1]], equation)


def _show(item: Item, margin: str, width: int) -> str:
    """Equation, shape and numbers side by side; further rows of numbers line up below the first."""
    fits = len(signs.letters(item.equation)) <= width
    above = "" if fits else f"{margin}{item.equation}\n"
    left = f"{margin}{item.equation if fits else '':{width}}  {item.value.shape!s:8}  "
    return above + left + _digits(item.value).replace("\n", "\n" + " " * len(left))


def _digits(value: Array) -> str:
    """Four decimals; five digits and an exponent where that would show nothing, as for gradients of 1e−7."""
    plain = value.dtype.kind != "f" or 0.01 <= np.max(np.abs(value)) < 1e4 or not value.any()
    rounded = np.round(value, 4) if plain else value
    with np.printoptions(precision=4, suppress=plain, threshold=0, edgeitems=EDGE, linewidth=200):
        return np.array2string(rounded + 0)  # + 0 turns −0 into 0
