"""Arrays that are new for a user and recycled for the trainer."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from backprop.checks import Array

Part = TypeVar("Part")


def shallow(part: Part) -> Part:
    """A twin with the same attributes, the very same objects. `copy.copy` would call `__setstate__`, which makes new views."""
    twin = object.__new__(type(part))
    twin.__dict__.update(part.__dict__)
    return twin


class Recycling:
    """Gives layers and losses `empty`: a new array each time, or in a trainer's replica the same one again.

    So a user's arrays are never overwritten, and after its first batch a trainer allocates nothing.
    """

    replays: ClassVar[bool] = False  # the calls of one pass are those of every pass of the same shape
    _arrays: dict[str, Array] | None = None  # a dict in a replica
    _tape: Any = None  # while a replica's pass is recorded

    def recycled(self) -> Self:
        """A twin whose `empty` recycles; a twin of a twin shares its arrays."""
        twin = shallow(self)
        twin._arrays = {} if self._arrays is None else self._arrays
        return twin

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialized array: a new one in a user's network, the same one again in a trainer's replica."""
        if self._arrays is None:
            return np.empty(shape, dtype)
        flat, size = self._arrays.get(name), math.prod(shape)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._arrays[name] = np.empty(size, dtype)
        view: Array = flat[:size].reshape(shape)  # a short last batch uses the front of the same memory
        return view if self._tape is None else self._tape.watch(view)


def replays(part: Recycling) -> bool:
    """Whether this very class, not one it inherits from, says that the calls of its passes are always the same.

    Its own arithmetic is then known to the library; a subclass of one's own is taken for what it is, an unknown.
    """
    return bool(vars(type(part)).get("replays"))
