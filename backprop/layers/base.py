"""What a layer is, and the landing of a gradient.

A layer keeps this contract (h and f hold one example per column):

    f = layer.forward(h)                       training pass; caches what backward needs
    dL_dh, gradients = layer.backward(dL_df)   gradients: a dict like layer.parameters, {} if there are none
    f = layer.infer(h)                         inference; caches nothing
    layer.parameters                           name -> array, beta before omega

Gradients are return values: nothing is stored on the layer, so `backward` twice gives the same answer twice.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np

from backprop import checks
from backprop.blas import FRESH, Landing
from backprop.checks import Array
from backprop.memory import Recycling, shallow

Gradients = dict[str, Array]


class Layer(Recycling, ABC):
    """A differentiable function of h with parameters. Subclass it with `forward` and `backward`.

    Parameters go into `self.parameters` and are read from there in each pass: a network moves them into its φ.

    >>> import numpy as np, backprop as bp
    >>> class Scale(bp.Layer):
    ...     def __init__(self, features):
    ...         self.parameters["omega"] = np.ones((features, 1))
    ...     def forward(self, h):
    ...         self.h = h
    ...         return self.parameters["omega"] * h
    ...     def backward(self, dL_df):
    ...         dL_domega = (dL_df * self.h).sum(axis=1, keepdims=True)
    ...         return self.parameters["omega"] * dL_df, {"omega": dL_domega}
    >>> net = bp.Sequential(bp.Linear(2, 3), Scale(3), bp.ReLU())
    >>> list(net.parameters)
    ['0.beta', '0.omega', '1.omega']
    """

    in_features: int | None = None
    out_features: int | None = None
    keeps_width: ClassVar[bool] = False  # f has as many rows as h, whatever that number is
    reuses_output: ClassVar[bool] = True  # backward reads f, so the next layer must not write over it
    couples_examples: ClassVar[bool] = False  # f of one column depends on the other columns
    equations: ClassVar[tuple[str, ...]] = ("f = layer[h]",)  # forward, then backward; shown by `explain`

    parameters: dict[str, Array]
    buffers: dict[str, Array]  # state that is not trained, such as running statistics

    _landings: dict[str, Landing]
    _owned: bool  # by a network: its parameters are views of that network's φ
    _wants_dL_dh: bool  # False in the trainer's first layer: nobody asks for the gradient of the data
    _may_overwrite_h: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: D102
        # Not in __init__: a subclass of one's own may then leave super().__init__() out.
        layer = super().__new__(cls)
        layer.__dict__.update(parameters={}, buffers={}, _landings={}, _arrays=None, _owned=False)
        layer.__dict__.update(_wants_dL_dh=True, _may_overwrite_h=False)
        # Numbers and words only, for a file: a layer need not keep its arguments, and this keeps no arrays alive.
        layer.__dict__["_called"] = tuple(map(_word, args)), {name: _word(value) for name, value in kwargs.items()}
        return layer

    @abstractmethod
    def forward(self, h: Array) -> Array:
        """Return f (D_out,) or (D_out, N) of h (D_in,) or (D_in, N); caches what `backward` needs."""

    @abstractmethod
    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """(dL_dh, gradients) of the last `forward`, from dL_df in the shape of f."""

    def infer(self, h: Array) -> Array:
        """Like `forward`, but caches nothing: a pending backward is not disturbed."""
        return self.twin().forward(h)

    def twin(self) -> Self:
        """The same layer, with caches of its own: what a pass keeps there is forgotten with the twin."""
        return shallow(self)

    def snapshot(self) -> Self:
        """A twin that repeats the next forward pass: with the randomness as it stands, and running statistics of its own."""
        twin = self.twin()
        for name, value in vars(self).items():
            if isinstance(value, np.random.Generator):
                vars(twin)[name] = copy.deepcopy(value)
        if self.buffers:
            twin.buffers = {name: buffer.copy() for name, buffer in self.buffers.items()}
        return twin

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

    def leaves(self) -> Iterator[Layer]:
        """The layers without children, in the order of φ."""
        if not self.children:
            yield self
        for child in self.children.values():
            yield from child.leaves()

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw the parameters anew, in place."""
        for child in self.children.values():
            child.initialize(generator)

    def reseed(self, *key: int) -> None:
        """Start the randomness of the next forward pass from `key`; layers without any ignore it."""
        for i, child in enumerate(self.children.values()):
            child.reseed(*key, i)

    def chain(self, width: int | None) -> int | None:
        """Rows of f for an h of `width` rows; None is unknown. Raises ValueError if they cannot chain."""
        if width is not None and self.in_features is not None and width != self.in_features:
            raise ValueError(
                checks.message(
                    self.label,
                    f"{self.in_features} input features",
                    f"{width} from the layer before it",
                    "Each layer takes as many features as the one before it returns.",
                )
            )
        if self.keeps_width:
            return width if width is not None else self.in_features
        return self.out_features

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
        twin.release()
        return twin

    def frozen(self) -> Layer:
        """The layer as `infer` computes it, as an independent copy with a `forward` and a `backward`: no randomness, no batch.

        Dropout becomes the identity, BatchNorm the affine map of its running statistics; most layers are merely copied.

        >>> import backprop as bp
        >>> bp.Sequential(bp.Linear(2, 3), bp.Dropout(0.5)).frozen()[1]
        Identity()
        """
        return self.copy()

    def release(self) -> None:
        """Belong to no network any more."""
        self._owned = False
        for child in self.children.values():
            child.release()

    def replica(self) -> Self:
        """The same layer for the trainer: shared parameters and buffers, caches and recycled arrays of its own.

        A replica of a replica shares the recycled arrays, too: for passes that never run at the same time.
        """
        twin = self.recycled()
        twin.__dict__["parameters"] = dict(self.__dict__["parameters"])
        twin._landings = {}
        return twin

    def share_arrays(self, other: Layer) -> None:
        """Recycle the arrays of another replica, which is never used at the same time."""
        self._arrays = other._arrays
        for own, others in zip(self.children.values(), other.children.values(), strict=False):
            own.share_arrays(others)

    def land(self, name: str) -> Landing:
        """Where the gradient of parameter `name` goes. Ask for it after the parameter's last use in `backward`."""
        return self._landings.get(name, FRESH)

    def bind(self, phi: Array) -> None:
        """Move the parameters into `phi` (P,), one after another, and keep views of it.

        A layer of one's own may also keep a parameter as an attribute, `self.omega`, which is moved along. Raises ValueError
        if the layer's `parameters` are not the arrays it keeps.
        """
        for name, view in self.views(phi).items():
            view[...] = self.parameters[name]
            self.adopt(name, view)

    def adopt(self, name: str, array: Array) -> None:
        """Have `array` as the parameter of this name from now on. Raises ValueError as `bind` does."""
        before = self.parameters[name]
        for attribute, value in vars(self).items():
            if value is before:
                vars(self)[attribute] = array
        if name in self.__dict__["parameters"]:
            self.__dict__["parameters"][name] = array
        if self.parameters[name] is not array:
            expected = f"parameter {name!r} in self.parameters, or as an attribute"
            raise ValueError(checks.message(self.label, expected, "an array that is made anew at each look"))

    def views(self, flat: Array) -> dict[str, Array]:
        """A vector (P,) laid out like φ, seen as one array per parameter; of rows (N, P), each array is (N, *shape)."""
        found, start = {}, 0
        for name, array in self.parameters.items():
            found[name] = flat[..., start : start + array.size].reshape(flat.shape[:-1] + array.shape)
            start += array.size
        return found

    def land_in(self, landings: dict[str, Landing]) -> None:
        """Send the gradients to these landings, one per parameter; {} lets each be a new array again."""
        self._landings.clear()  # the same dict, which twins of this layer share
        self._landings.update(landings)

    def take(self, gradients: Gradients) -> Gradients:
        """Land the gradients that a layer of one's own returned as arrays; says so if they do not fit."""
        if gradients.keys() != self.parameters.keys():
            raise ValueError(
                checks.message(
                    f"{self.label}.backward",
                    f"gradients named {list(self.parameters)}",
                    f"{list(gradients)}",
                    "Return one gradient per parameter.",
                )
            )
        landed = {}
        for name, gradient in gradients.items():
            if np.shape(gradient) != self.parameters[name].shape:
                raise ValueError(
                    checks.message(
                        f"{self.label}.backward",
                        f"gradient {name!r} with shape {self.parameters[name].shape}",
                        f"shape {np.shape(gradient)}",
                        _shape_advice(np.shape(gradient), self.parameters[name].shape),
                    )
                )
            landing = self._landings.get(name)
            landed[name] = gradient if landing is None else landing.add(gradient)
        return landed

    def __repr__(self) -> str:
        if self.in_features is None or self.out_features is None:
            return checks.call(self)
        return f"{type(self).__name__}({self.in_features} → {self.out_features})"


class Composite(Layer):
    """A layer made of layers. Subclasses fill `self.layers`, a dict of key -> layer in the order of φ."""

    layers: dict[str, Layer]

    @property
    def children(self) -> dict[str, Layer]:
        """The layers inside this one, by key."""
        return self.layers

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]
        """Parameters of all children, named "key.name"."""
        return {f"{key}.{name}": p for key, child in self.layers.items() for name, p in child.parameters.items()}

    @property
    def buffers(self) -> dict[str, Array]:  # type: ignore[override]
        """Buffers of all children, named "key.name"."""
        return {f"{key}.{name}": b for key, child in self.layers.items() for name, b in child.buffers.items()}

    @property
    def couples_examples(self) -> bool:  # type: ignore[override]
        """Whether a layer inside couples the examples of a batch."""
        return any(child.couples_examples for child in self.layers.values())

    def twin(self) -> Self:
        """Twins of the children, put together the same way."""
        twin = shallow(self)
        twin.layers = {key: child.twin() for key, child in self.layers.items()}
        return twin

    def snapshot(self) -> Self:
        """Snapshots of the children, put together the same way."""
        twin = shallow(self)
        twin.layers = {key: child.snapshot() for key, child in self.layers.items()}
        return twin

    def frozen(self) -> Self:
        """A copy with frozen children."""
        twin = self.copy()
        twin.layers = {key: child.frozen() for key, child in self.layers.items()}
        return twin

    def replica(self) -> Self:
        """Replicas of the children, put together the same way."""
        twin = self.recycled()
        twin._landings = {}
        twin.layers = {key: child.replica() for key, child in self.layers.items()}
        return twin

    def bind(self, phi: Array) -> None:
        """Give each child its stretch of `phi` (P,)."""
        start = 0
        for child in self.layers.values():
            child.bind(phi[start : start + child.size])
            start += child.size

    def land_in(self, landings: dict[str, Landing]) -> None:
        """Hand each child the landings of its own parameters."""
        super().land_in(landings)
        for key, child in self.layers.items():
            start = len(key) + 1
            child.land_in({n[start:]: to for n, to in landings.items() if n.startswith(f"{key}.")})

    def backward_child(self, key: str, dL_df: Array, child: Layer | None = None) -> tuple[Array, Gradients]:
        """Backward of one child (or of its twin), its gradients landed and named "key.name"."""
        child = child or self.layers[key]
        dL_dh, gradients = checks.backward_result(child, child.backward(dL_df))
        if not child.children:
            gradients = child.take(gradients)
        return dL_dh, {f"{key}.{name}": gradient for name, gradient in gradients.items()}


def _word(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else ...


def _shape_advice(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if got == expected[::-1] and len(got) == 2:
        return "It is transposed."
    if len(expected) == 1:
        return "Sum over the wrong axis? One β serves all examples: sum over them, axis=1."
    return ""


def column(vector: Array, like: Array) -> Array:
    """A vector (D,) ready to be added to `like`, which is (D,) or (D, N)."""
    return vector if like.ndim == 1 else vector[:, None]
