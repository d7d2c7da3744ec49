"""The numbers of a step: random draws, and, where layers of one's own take part, the values that a trace of them needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.engine.operations import Op, converted, look
from backprop.losses import Loss
from backprop.losses.base import total


class Generators:
    """Random generators by name, each started from a key of the step and the place of its layer."""

    def __init__(self, places: Mapping[str, tuple[int, ...]]) -> None:
        self.places = places
        self.key: tuple[int, ...] = (0,)
        self.made: dict[str, np.random.Generator] = {}

    def draw(self, name: str, method: str, first: bool, out: Array, options: dict[str, Any]) -> None:
        """Fill `out`; the first draw of a pass starts the generator anew."""
        if first:
            seed = np.random.SeedSequence((*self.key, *self.places[name]))
            self.made[name] = np.random.Generator(np.random.Philox(seed))
        function = getattr(self.made[name], method)
        if method in ("normal", "uniform"):
            out[...] = function(size=out.shape, **options)
        else:
            function(out=out, **options)


class NotFinite(Exception):
    """The loss of the pass that a trace looks at is `L`: there is no way back to trace."""

    def __init__(self, L: float) -> None:
        super().__init__(L)
        self.L = L


class Live:
    """The numbers of one step, computed while it is traced, because layers of one's own take part, of whose passes only they know
    what they return. What they return is kept, for the first play of the list is this very step.
    """

    def __init__(self, sources: Mapping[str, Array], generators: Generators) -> None:
        self.sources, self.generators = sources, generators
        self.values: dict[Op, Any] = {}
        self.results: dict[tuple[str, ...], Any] = {}

    def __call__(self, op: Op) -> Array:
        """The output of an operation, by NumPy's own calls."""
        if op not in self.values:
            self.values[op] = self._compute(op)
        return self.values[op]

    def _compute(self, op: Op) -> Any:
        args = [self(x) if isinstance(x, Op) and x.kind != "input" else self._given(x) for x in op.inputs]
        if op.kind == "view":
            return look(args[0], op.function)
        if op.kind == "draw":
            out = np.empty(op.shape, op.dtype)
            options = {k: v for k, v in op.options.items() if k != "first"}
            self.generators.draw(str(op.inputs[0].function), op.function, op.options["first"], out, options)
            return out
        if op.kind == "ufunc":
            ufunc, method = op.function
            return getattr(ufunc, method)(*args, **op.options)
        return converted(args[0], op.dtype) if op.function is converted else op.function(*args, **op.options)

    def _given(self, x: Any) -> Any:
        if not isinstance(x, Op):
            return x
        name = str(x.function)
        return None if name.startswith("generator ") else self.sources[name]

    def again(self) -> Live:
        """For another trace of the same step, which calls nothing again."""
        twin = Live(self.sources, self.generators)
        twin.results = self.results
        return twin

    def result(self, key: tuple[str, ...], call: Callable[[], Any]) -> Any:
        """What a call of a layer or loss of one's own returned: it is made once."""
        if key not in self.results:
            self.results[key] = call()
        return self.results[key]


def total_on_copies(loss: Loss, f: Array, y: Array, share: Array) -> Any:
    """L of a loss of one's own, which may keep what it gets."""
    return total(loss, np.array(f), y, share if share.ndim else share.item())
