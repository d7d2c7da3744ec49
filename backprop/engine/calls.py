"""The calls of a plan on arrays: what the players play.

    Ufunc       out ← ufunc(args), or a method of it
    Copy        out ← x, where a mask says so
    Multiply    a product that BLAS adds to its target: C ← scale · A B + keep · C
    Pick        out ← x[rows, columns], one entry for each pair
    Scale       target ← scale · x + keep · target
    Draw        out ← random numbers
    Python      what only Python can do: a layer of one's own, an odd function

All of it is data, which the native player reads; how NumPy plays each is its `bind`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.engine.blas import Product, axpy
from backprop.engine.live import Generators
from backprop.engine.plan import is_number
from backprop.engine.trace import Number

Play = Callable[[], object]


class Numbers:
    """The numbers of a step, such as (alpha * -1.0), computed in double precision once a step."""

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self.values: list[float] = []
        self.arrays: list[tuple[int, Array]] = []

    def index(self, number: Number) -> int:
        """The place of a number in `values`."""
        texts = [known.text for known in self.numbers]
        if number.text not in texts:
            self.numbers.append(number)
            self.values.append(0.0)
            return len(texts)
        return texts.index(number.text)

    def getter(self, number: float | Number) -> Callable[[], float]:
        """What gives a number at each play."""
        if not isinstance(number, Number):
            return lambda value=float(number): value  # type: ignore[misc]
        return partial(self.values.__getitem__, self.index(number))

    def array(self, number: Number, dtype: Any) -> Array:
        """The number as an array ()."""
        made = np.zeros((), dtype)
        self.arrays.append((self.index(number), made))
        return made

    def set(self, alpha: float, t: int) -> None:
        """Compute them for a step."""
        self.values[:] = [number.value(alpha, t) for number in self.numbers]
        for i, array in self.arrays:
            array[()] = self.values[i]


@dataclass(eq=False, slots=True)
class Ufunc:
    """out ← ufunc(*args), or ufunc.method(*args). `number` is what the last of args is full of, where it is a constant row."""

    ufunc: np.ufunc
    method: str
    args: list[Any]
    out: Array
    options: dict[str, Any] = field(default_factory=dict)
    number: float | None = None

    def bind(self) -> Play:
        """NumPy's own call."""
        function = self.ufunc if self.method == "__call__" else getattr(self.ufunc, self.method)
        return partial(function, *self.args, out=self.out, **self.options)


@dataclass(eq=False, slots=True)
class Copy:
    """out ← x, converted if need be; only where `where` is true, if there is one."""

    out: Array
    x: Any
    where: Array | None = None

    def bind(self) -> Play:
        """np.copyto."""
        where = {} if self.where is None else {"where": self.where}
        return partial(np.copyto, self.out, self.x, casting="unsafe", **where)


@dataclass(eq=False, slots=True)
class Multiply:
    """A product that ends in its target: C ← scale · A B + keep · C; `part` says which of how many by rows of the whole."""

    product: Product
    scale: float | Number
    keep: float | Number
    numbers: Numbers
    part: tuple[int, int] = (0, 1)

    def bind(self) -> Play:
        """BLAS's call."""
        call = self.product.call
        if not isinstance(self.scale, Number) and not isinstance(self.keep, Number):
            return partial(call, self.scale, self.keep)
        scale, keep = self.numbers.getter(self.scale), self.numbers.getter(self.keep)
        return lambda: call(scale(), keep())


@dataclass(eq=False, slots=True)
class Pick:
    """out ← x[rows, columns]: an entry for each pair of places."""

    out: Array
    x: Array
    keys: tuple[Any, Any]

    def bind(self) -> Play:
        """NumPy's index."""
        out, x, keys = self.out, self.x, self.keys
        return lambda: np.copyto(out, x[keys])


@dataclass(eq=False, slots=True)
class Scale:
    """target ← scale · x + keep · target."""

    target: Array
    scale: float | Number
    x: Array
    keep: float | Number
    numbers: Numbers

    def bind(self) -> Play:
        """A product with a number, and BLAS's axpy."""
        target, x = self.target, self.x
        scale, keep = self.numbers.getter(self.scale), self.numbers.getter(self.keep)
        keeps_all = is_number(self.keep, 1)

        def play() -> None:
            if not keeps_all:
                np.multiply(target, keep(), out=target)
            if x.dtype == target.dtype:
                axpy(scale(), x, target)
            else:
                np.add(target, scale() * x, out=target, casting="same_kind")

        return play


@dataclass(eq=False, slots=True)
class Draw:
    """out ← random numbers of a generator, which `first` starts anew."""

    out: Array
    generators: Generators
    name: str
    method: str
    first: bool
    options: dict[str, Any]

    def bind(self) -> Play:
        """The generator's own method."""
        return partial(self.generators.draw, self.name, self.method, self.first, self.out, self.options)


@dataclass(eq=False, slots=True)
class Python:
    """What only Python can do."""

    function: Play

    def bind(self) -> Play:
        """The function itself."""
        return self.function


Call = Ufunc | Copy | Multiply | Pick | Scale | Draw | Python
