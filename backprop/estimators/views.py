"""`coefs_` and `intercepts_`: the parameters of the network as scikit-learn's users read and set them."""

from __future__ import annotations

from typing import Any, NoReturn, Self, overload

import numpy as np
from sklearn.utils.validation import check_is_fitted

from backprop import checks
from backprop.around.nesting import leaves
from backprop.checks import Array
from backprop.layers import Linear

NAMES = {"coefs_": "omega", "intercepts_": "beta"}


class Views(list[Array]):
    """A list of views of parameters; what is assigned to one of its places is copied into them. Copies are plain lists."""

    def __init__(self, who: str, views: list[Array]) -> None:
        super().__init__(views)
        self.who = who

    def __setitem__(self, place: Any, value: Any) -> None:
        if isinstance(place, slice):
            self._refuse()
        self[place][...] = _checked(f"{self.who}[{place}]", value, self[place].shape)

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(checks.message(self.who, "one array at a time, or all: model.coefs_ = [...]", "another change"))

    __delitem__ = __iadd__ = __imul__ = append = extend = insert = pop = remove = clear = sort = reverse = _refuse


class Parameter:
    """The attribute of that name of an estimator. Set before the first fit, it is what that begins with."""

    def __set_name__(self, _: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, model: None, kind: type | None = None) -> Self: ...
    @overload
    def __get__(self, model: object, kind: type | None = None) -> list[Array]: ...
    def __get__(self, model: Any, kind: type | None = None) -> Any:
        if model is None:
            return self
        if hasattr(model, "network_"):
            return Views(f"{type(model).__name__}.{self.name}", arrays_of(model, self.name))
        if self.name not in model.__dict__.get("_first", {}):
            check_is_fitted(model, "network_")
        return model._first[self.name]

    def __set__(self, model: Any, arrays: Any) -> None:
        if hasattr(model, "network_"):
            fill(model, self.name, arrays)
        else:
            model.__dict__.setdefault("_first", {})[self.name] = arrays


def arrays_of(model: Any, name: str) -> list[Array]:
    """Weights of each layer (D_in, D_out), which are Ωᵀ, or biases (D_out,)."""
    linears = [layer for layer in leaves(model.network_) if isinstance(layer, Linear)]
    return [layer.parameters[NAMES[name]].T for layer in linears]


def fill(model: Any, name: str, arrays: Any) -> None:
    """Copy arrays into the parameters, all or none. Raises TypeError or ValueError for numbers or shapes that do not fit."""
    who, places = f"{type(model).__name__}.{name}", arrays_of(model, name)
    if not isinstance(arrays, list | tuple) or len(arrays) != len(places):
        got = f"{len(arrays)}" if isinstance(arrays, list | tuple) else f"a {type(arrays).__name__}"
        raise ValueError(checks.message(who, f"a list of {len(places)} arrays, one for each layer", got))
    checked = [
        _checked(f"{who}[{i}]", array, place.shape) for i, (array, place) in enumerate(zip(arrays, places, strict=True))
    ]
    for place, array in zip(places, checked, strict=True):
        place[...] = array


def begin_with(model: Any) -> None:
    """Put what was set before the first fit into its network."""
    for name, arrays in model.__dict__.pop("_first", {}).items():
        fill(model, name, arrays)


def _checked(who: str, value: Any, shape: tuple[int, ...]) -> Array:
    array = checks.numeric(who, "an array", value)
    if array.shape != shape:
        advice = "It is transposed." if array.shape == shape[::-1] else ""
        raise ValueError(checks.message(who, f"shape {shape}", f"shape {array.shape}", advice))
    checks.finite(who, "it", array)
    return np.asarray(array)
