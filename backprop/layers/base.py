"""What a layer is, and a layer made of layers. Both keep this contract (h and f hold one example per column):

    f = layer.forward(h)                       training pass; keeps what backward needs
    dL_dh, gradients = layer.backward(dL_df)   gradients: a dict like layer.parameters, {} if there are none
    f = layer.infer(h)                         inference; keeps nothing
    layer.parameters                           name -> array, beta before omega

A layer's own code is the equations, on columns (D, N); checks, copies and single examples are those of `boundary`.
Gradients are return values: nothing is stored on the layer, so `backward` twice gives the same answer twice.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from backprop import checks, notation
from backprop.checks import Array
from backprop.layers import boundary
from backprop.layers.nesting import frozen, release, write

Gradients = dict[str, Array]
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


class Layer(notation.Part, ABC):
    """A differentiable function of h with parameters. Subclass it with `forward` and `backward`, on columns (D, N).

    Parameters go into `self.parameters`; `self.omega` is then `self.parameters["omega"]`, and likewise for `self.buffers`, state
    that is not trained. A network moves the parameters into its φ; from then on, assigning one copies into φ.

    >>> import numpy as np, backprop as bp
    >>> class Scale(bp.Layer):
    ...     def __init__(self, features):
    ...         self.parameters["omega"] = np.ones((features, 1))
    ...     def forward(self, h):
    ...         self.h = h
    ...         return self.omega * h
    ...     def backward(self, dL_df):
    ...         dL_domega = (dL_df * self.h).sum(axis=1, keepdims=True)
    ...         return self.omega * dL_df, {"omega": dL_domega}
    >>> net = bp.Sequential(bp.Linear(2, 3), Scale(3), bp.ReLU())
    >>> list(net.parameters)
    ['0.beta', '0.omega', '1.omega']
    """

    in_features: int | None = None
    out_features: int | None = None
    keeps_width: ClassVar[bool] = False  # f has as many rows as h, whatever that number is
    couples_examples: ClassVar[bool] = False  # f of one column depends on the other columns
    _for_good: ClassVar[tuple[str, ...]] = ()  # arguments that shape the layer and cannot be assigned later
    equations: ClassVar[tuple[str, ...]] = ("f = layer[h]",)  # of the docstring's table; shown by `explain`

    parameters: dict[str, Array]
    buffers: dict[str, Array]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: a subclass of one's own may then leave super().__init__() out.
        layer = super().__new__(cls)
        # Of the arguments numbers and words only, for a file: a layer need not keep them, and this keeps no arrays alive.
        called = tuple(map(_word, args)), {name: _word(value) for name, value in kwargs.items()}
        vars(layer).update(parameters=Arrays(), buffers=Arrays(), _owned=False, _inside=False, _called=called)
        return layer

    def __init__(self) -> None:
        """Take no arguments; a layer that takes some says so."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("forward", "backward", "infer"):
            method = getattr(cls, name)  # also one of a mixin, which is no Layer
            if not hasattr(method, "plain") and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, getattr(boundary, f"around_{name}")(method))

    @abstractmethod
    def forward(self, h: Array) -> Array:
        """Return f (D_out,) or (D_out, N) of h (D_in,) or (D_in, N); keeps what `backward` needs."""

    @abstractmethod
    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """(dL_dh, gradients) of the last `forward`, from dL_df in the shape of f."""

    @boundary.around_infer
    def infer(self, h: Array) -> Array:
        """Like `forward`, but keeps nothing and moves nothing: a pending backward is not disturbed."""
        return boundary.forward(boundary.beside(self), h)

    @property
    def children(self) -> dict[str, Layer]:
        """The layers inside this one; {} for most."""
        return {}

    @property
    def size(self) -> int:
        """Number of parameters.

        >>> import backprop as bp
        >>> bp.Linear(784, 128).size
        100480
        """
        return sum(array.size for array in self.parameters.values())

    @property
    def label(self) -> str:
        """Name of this layer in errors, on one line."""
        return repr(self)

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw the parameters anew, in place."""
        for child in self.children.values():
            child.initialize(generator)

    def copy(self) -> Self:
        """An independent layer or network with the same values.

        >>> import backprop as bp
        >>> a = bp.Linear(2, 2)
        >>> b = a.copy()
        >>> b.parameters["beta"] += 1
        >>> float(a.parameters["beta"][0])
        0.0
        """
        twin = copy.deepcopy(self)
        release(twin)
        return twin

    def _handed_out(self, gradients: Gradients) -> Gradients:
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

    def __repr__(self) -> str:
        if self.in_features is None or self.out_features is None:
            return checks.call(self)
        return f"{type(self).__name__}({self.in_features} → {self.out_features})"


def _word(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else ...


class Composite(Layer):
    """A layer made of layers. Subclasses fill `self.layers`, a dict of key -> layer in the order of φ.

    In one of one's own: `self.layers[key].forward(h)`, and `self.backward_child(key, dL_df)`, which names the gradients.
    """

    layers: dict[str, Layer]

    @property
    def children(self) -> dict[str, Layer]:
        """The layers inside this one, by key."""
        return self.layers

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]
        """Parameters of all children, named "key.name"."""
        return self._named("parameters")

    @property
    def buffers(self) -> dict[str, Array]:  # type: ignore[override]
        """Buffers of all children, named "key.name"."""
        return self._named("buffers")

    def _named(self, kind: str) -> Arrays:
        held = [(key, getattr(child, kind)) for key, child in self.layers.items()]
        return Arrays({f"{key}.{name}": array for key, arrays in held for name, array in arrays.items()}, placed=True)

    @property
    def couples_examples(self) -> bool:  # type: ignore[override]
        """Whether a layer inside couples the examples of a batch."""
        return any(child.couples_examples for child in self.layers.values())

    def backward_child(self, key: str, dL_df: Array) -> tuple[Array, Gradients]:
        """∂L/∂h of one child, and its gradients, named "key.name"."""
        dL_dh, gradients = boundary.backward(self.layers[key], dL_df)
        return dL_dh, {f"{key}.{name}": gradient for name, gradient in gradients.items()}

    def frozen(self) -> Self:
        """A copy with frozen children."""
        twin = self.copy()
        vars(twin)["layers"] = type(self.layers)({key: frozen(child) for key, child in self.layers.items()})
        return twin
