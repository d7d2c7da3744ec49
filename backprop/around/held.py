"""The arrays that a layer holds: by name, as attributes, and, once a network has taken it in, at their places in φ.

`self.omega` is `self.parameters["omega"]`. In a network it is a view of φ for good: what is assigned is copied there, or refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from backprop import checks, functions, notation
from backprop.around import boundary
from backprop.around.nesting import leaves
from backprop.checks import Array

if TYPE_CHECKING:
    from backprop.layers.base import Layer

GONE = ("empty", "land", "scratch", "take")  # methods that layers of version 0.1 called
# What in a network is, or shapes, a place in φ.
RULED = ("parameters", "buffers", "in_features", "out_features", "bias")


class Arrays(dict[str, Array]):
    """Arrays by name. Once they are placed, as parameters are in φ, assignment copies into them."""

    def __init__(
        self, arrays: Mapping[str, Array] | None = None, placed: bool = False, aliases: dict[str, str] | None = None
    ) -> None:
        super().__init__(arrays or {})
        self.placed = placed
        self.aliases = aliases or {}  # attribute -> name, for a layer that keeps a parameter under another name

    def __reduce__(self) -> Any:
        return Arrays, (dict(self), self.placed, self.aliases)

    def __setitem__(self, name: str, value: Any) -> None:
        if not self.placed:
            super().__setitem__(name, value)
        elif name in self:
            write(name, self[name], value)
        else:
            raise KeyError(checks.message("parameters or buffers of a network", f"one of {list(self)}", repr(name)))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign each."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self


NOWHERE = Arrays()


class Holder(notation.Part, ABC):
    """A layer as the holder of its arrays."""

    parameters: dict[str, Array]
    buffers: dict[str, Array]
    _for_good: ClassVar[tuple[str, ...]] = ()  # arguments that shape the layer and cannot be assigned later

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """The arrays are made here and not in __init__: a subclass of one's own may leave super().__init__() out."""
        layer = super().__new__(cls)
        # Of the arguments numbers and words only, for a file: a layer need not keep them, and this keeps no arrays alive.
        called = tuple(map(_word, args)), {name: _word(value) for name, value in kwargs.items()}
        vars(layer).update(parameters=Arrays(), buffers=Arrays(), _owned=False, _inside=False, _called=called)
        return layer

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("forward", "backward", "infer"):
            method = getattr(cls, name)  # also one of a mixin, which is no Layer
            if not hasattr(method, "plain") and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, getattr(boundary, f"around_{name}")(method))

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name in errors."""

    def _handed_out(self, gradients: dict[str, Array]) -> dict[str, Array]:
        """Gradients as a caller gets them: his own arrays."""
        return {name: np.array(gradient) for name, gradient in gradients.items()}

    def __getattr__(self, name: str) -> Any:
        held, key = self._find(name)
        if key:
            return held[key]
        advice = ". Since version 0.2 a layer is plain expressions that return new arrays" if name in GONE else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{advice}")

    def __setattr__(self, name: str, value: Any) -> None:
        held, key = self._find(name)
        if key or name in RULED or name in type(self)._for_good:
            self._assign(held, key, name, value)
        else:
            object.__setattr__(self, name, value)

    def _find(self, name: str) -> tuple[Arrays, str]:
        """The parameter or buffer that an attribute of this name stands for: its place and its key, "" if there is none."""
        for held in (vars(self).get("parameters", NOWHERE), vars(self).get("buffers", NOWHERE)):
            if (key := held.aliases.get(name, name)) in held:
                return held, key
        return NOWHERE, ""

    def _assign(self, held: Arrays, key: str, name: str, value: Any) -> None:
        """Set a parameter or buffer, all of them, or a width: what a network holds is copied to its place, or stays."""
        if key:
            if not held.placed:
                vars(self).pop(key, None)
            if held[key] is not value:  # it is after `self.omega *= 2`
                held[key] = value
        elif name in ("parameters", "buffers"):
            self._assign_all(name, value)
        else:
            stays = vars(self).get("_owned") or (name in self._for_good and hasattr(self, name))
            if stays and (fixed := getattr(self, name)) != value:
                advice = "Put a new layer into a new network."
                raise ValueError(checks.message(self.label, f"{name} {fixed} for good", repr(value), advice))
            object.__setattr__(self, name, value)

    def _assign_all(self, kind: str, value: Any) -> None:
        arrays: Arrays = getattr(self, kind)  # of a composite, those of all children
        if not arrays.placed:
            vars(self)[kind] = Arrays(value)
            return
        if not isinstance(value, Mapping) or value.keys() != arrays.keys():
            got = f"{list(value)}" if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise ValueError(checks.message(f"{self.label}.{kind}", f"a dict of {list(arrays)}", got))
        arrays.update(value)


def _word(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else ...


def write(name: str, place: Array, value: Any) -> None:
    """Copy a value into the place that a parameter or buffer has. Raises TypeError or ValueError for what does not fit."""
    array = np.asarray(value)
    if array is place:
        return
    if array.dtype.kind not in ("fiubc" if place.dtype.kind == "c" else "fiub"):
        raise TypeError(checks.message(name, "real numbers", f"an array of dtype {array.dtype}"))
    if array.shape != place.shape:
        advice = "Pass its transpose." if array.shape == place.shape[::-1] else "It keeps its shape for good."
        raise ValueError(checks.message(name, f"shape {place.shape}", f"shape {array.shape}", advice))
    place[...] = array


def place(layer: Layer, arrays: Mapping[str, Array]) -> None:
    """Have these arrays, views of a network's φ, as the parameters of a layer without children, for good.

    A parameter that the layer also keeps as an attribute is moved along. Raises ValueError if `parameters` are not arrays that
    it keeps.
    """
    own = vars(layer)
    held, parameters = own["parameters"], layer.parameters
    for name in [name for name, value in own.items() if isinstance(value, np.ndarray)]:
        key = next((key for key, array in parameters.items() if array is own[name]), None)
        if key is not None:
            del own[name]
            held.aliases[name] = key
    held.placed = False
    held.clear()
    held.update(arrays)
    held.placed = own["buffers"].placed = True
    own.update(held)  # self.omega is then a plain attribute, the quickest there is
    own.update(own["buffers"])
    for name in arrays:
        if layer.parameters.get(name) is not arrays[name]:
            expected = f"parameter {name!r} in self.parameters, or as an attribute"
            raise ValueError(checks.message(layer.label, expected, "an array that is made anew at each look"))


def adopt(layer: Layer, name: str, array: Array) -> None:
    """Have `array` as the parameter of this name, in a layer that is being put together."""
    held = vars(layer)["parameters"]
    before = held[name]
    dict.__setitem__(held, name, array)
    for attribute, value in list(vars(layer).items()):
        if value is before:
            vars(layer)[attribute] = array


def seat(layer: Layer, phi: Array) -> None:
    """Have `phi`, which holds the parameters already, as φ of a network, and its parts as the φ and parameters inside."""
    if is_network(layer):
        vars(layer)["_phi"] = phi
    if not layer.children:
        place(layer, functions.views(layer.parameters, phi))
    start = 0
    for child in layer.children.values():
        size = child.size
        seat(child, phi[start : start + size])
        start += size


def claim(net: Layer) -> None:
    """Take the layers into this network, each once: a layer in two networks would leave the φ of the first."""
    every = list(leaves(net))
    if len({id(leaf) for leaf in every}) < len(every):
        advice = "Use layer.copy()."
        raise ValueError(checks.message("Sequential", "each layer once", "the same layer object twice", advice))
    free = list(net.children.values())
    for layer in free:  # grows while it runs
        if vars(layer)["_owned"]:
            expected, advice = "layers of no other network", "Use layer.copy()."
            raise ValueError(checks.message("Sequential", expected, layer.label, advice))
        if not is_network(layer):
            free.extend(layer.children.values())
    for layer in free:
        vars(layer)["_owned"] = True


def release(layer: Layer) -> None:
    """Belong to no network any more; the layers of a network stay in it."""
    vars(layer)["_owned"] = False
    if is_network(layer):
        return
    for held in (vars(layer)["parameters"], vars(layer)["buffers"]):
        if held.placed:
            for name in held:
                vars(layer).pop(name, None)
        held.placed = False
    for child in layer.children.values():
        release(child)


def is_network(layer: Layer) -> bool:
    """Whether a layer has a φ of its own."""
    return "_phi" in vars(layer)
