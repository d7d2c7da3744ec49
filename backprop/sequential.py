"""Layers one after another, with all parameters in one vector φ: a network as a person holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from backprop import architecture, checks
from backprop.around.boundary import backward, forward, infer
from backprop.around.held import claim, seat, write
from backprop.around.nesting import chain, reseed
from backprop.checks import Array
from backprop.engine.native.compiled import compiled, passes_of
from backprop.files.atomic import PathLike
from backprop.functions import named, views
from backprop.layers import Composite, Gradients, Layer, Residual
from backprop.prediction import by_blocks, rows_per_block


class FlatGradients(dict[str, Array]):
    """Gradients by name, as views of one vector `dL_dphi` (P,) laid out like φ."""

    def __init__(self, gradients: Gradients, dtype: Any) -> None:
        self.dL_dphi = np.concatenate([np.zeros(0, dtype), *(gradient.ravel() for gradient in gradients.values())])
        super().__init__(views(gradients, self.dL_dphi))


class Fixed(dict[str, Layer]):
    """The layers of a network: they stay, for φ has a place for each of them."""

    def __reduce__(self) -> Any:
        return Fixed, (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        advice = "Make a new Sequential; to change a layer, assign to its parameters."
        raise TypeError(checks.message("Sequential.layers", "the layers it was made with", "others", advice))

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse


class Sequential(Composite):
    """Layers one after another, themselves a layer.

        f      = layer_K[… layer_0[h]]
        ∂L/∂h  = the layers' backward in reverse order

    `phi` (P,) holds every parameter, layer by layer, beta before omega; `parameters` are views into it, keyed "0.beta",
    "0.omega", …. With `seed` all weights are drawn anew from one generator; without, the layers keep their values.
    `dtype` is "float32" or "float64".

    With `checkpoint=k` the trainer keeps only every k-th activation and computes the others again on the way back, segment by
    segment: memory for K/k + k activations instead of K (least at k = √K), for one more forward pass. Of networks inside
    networks the outermost k counts.
    Source: Chen, Xu, Zhang and Guestrin (2016), "Training deep nets with sublinear memory cost", arXiv:1604.06174.

    Raises ValueError for no layers, for widths that cannot chain, and for a layer that is used twice; TypeError for what
    is not a layer.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 3), bp.ReLU(), bp.Linear(3, 1), seed=0)
    >>> net.predict(np.zeros((4, 2))).shape
    (4, 1)
    >>> list(net.parameters), net.phi.shape
    (['0.beta', '0.omega', '2.beta', '2.omega'], (13,))
    """

    saves = True  # False on the other ranks of a team

    def __init__(
        self, *layers: Layer, seed: int | None = None, dtype: Any = "float32", checkpoint: int | None = None
    ) -> None:
        if not layers:
            advice = "Write Sequential(Linear(64, 10))."
            raise ValueError(checks.message("Sequential", "at least one layer", "none", advice))
        self.layers = Fixed({str(i): checks.layer("Sequential", layer, Layer) for i, layer in enumerate(layers)})
        kind = checks.dtype("Sequential", dtype)
        self.checkpoint = checkpoint
        generator = None if seed is None else checks.generator("Sequential", seed)
        first = next((layer for layer in layers if not (layer.in_features is None and layer.keeps_width)), layers[-1])
        self.in_features = first.in_features
        self.out_features = self.chain(self.in_features)
        claim(self)
        if generator is not None:
            self.initialize(generator)
        self.bind(np.empty(self.size, kind))
        vars(self).update(_predict=f"{self.label}.predict", _block=rows_per_block(self))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "checkpoint" and value is not None:
            value = checks.integer("Sequential", "checkpoint", value, least=2)
        if name == "layers" and name in vars(self):
            Fixed._refuse(vars(self)[name])
        super().__setattr__(name, value)

    def forward(self, h: Array) -> Array:
        """Outputs (D_out, N) of h (D_in, N), or of one example (D_in,); keeps what `backward` needs."""
        for layer in self.layers.values():
            h = forward(layer, h)
        return h

    def infer(self, h: Array) -> Array:
        """Outputs as `predict` computes them; keeps nothing."""
        for layer in self.layers.values():
            h = infer(layer, h)
        return h

    def backward(self, dL_df: Array) -> tuple[Array, FlatGradients]:
        """(dL_dh, gradients) of the last `forward`; the gradients are views of `gradients.dL_dphi` (P,)."""
        gradients: Any = {}
        for key in reversed(self.layers):
            dL_df, own = backward(self.layers[key], dL_df)
            gradients = named({key: own}) | gradients
        return dL_df, gradients  # made one vector for a caller from outside, by `_handed_out`

    def _handed_out(self, gradients: Gradients) -> Gradients:
        return FlatGradients({name: gradients[name] for name in vars(self)["_names"]}, self.phi.dtype)

    @property
    def keeps_width(self) -> bool:  # type: ignore[override]
        """Whether every layer does."""
        return all(layer.keeps_width for layer in self.layers.values())

    def chain(self, width: int | None) -> int | None:
        """Rows of f for an h of `width` rows. Raises ValueError if two neighbors do not fit."""
        for layer in self.layers.values():
            width = chain(layer, width)
        return width

    @property
    def phi(self) -> Array:
        """φ (P,): all parameters, one vector. Assigning copies into it."""
        return vars(self)["_phi"]

    @phi.setter
    def phi(self, value: Any) -> None:
        write(f"{self.label}.phi", self.phi, value)

    def bind(self, phi: Array) -> None:
        """Move the parameters into `phi` (P,), of any type, which becomes the network's φ."""
        for part, array in zip(self.views(phi).values(), self.parameters.values(), strict=True):
            part[...] = array
        # The names are in the order of φ, which a layer of one's own need not keep.
        vars(self).update(_phi=phi, _names=tuple(self.parameters))
        seat(self, phi)

    def views(self, flat: Array) -> dict[str, Array]:
        """A vector (P,) laid out like φ, seen as one array per parameter; of rows (N, P), each array is (N, *shape)."""
        return views(self.parameters, flat)

    def reseed(self, *key: int) -> None:
        """Start the randomness of the next forward pass, such as the masks of Dropout, from `key`."""
        reseed(self, *key)

    def frozen(self) -> Self:
        """The network as `predict` computes it, an independent copy: Dropout is the identity, BatchNorm an affine map."""
        twin = super().frozen()
        for layer in twin.layers.values():
            vars(layer)["_owned"] = True
        twin.bind(np.empty(twin.size, self.phi.dtype))
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and unpickled networks hold φ and its views as separate arrays; make them one again.
        vars(self).update(state)
        vars(self).pop("saves", None)  # a copy is its owner's, no longer the team's
        seat(self, self.phi if self.phi.flags.writeable else self.phi.copy())  # a memory map may be read-only

    def predict(self, X: Any, out: Array | None = None) -> Array:
        """Outputs (N, K) for rows X (N, D), computed block by block; written to `out` if given.

        X may be an array, a memory map, or anything with `shape`, `dtype` and slices. Nothing is kept, so several threads may
        predict at once. Raises TypeError or ValueError for X or `out` that do not fit.

        >>> import numpy as np, backprop as bp
        >>> bp.Sequential(bp.Exp()).predict(np.zeros((1, 3)))
        array([[1., 1., 1.]], dtype=float32)
        """
        # A pass takes finite rows of its very shape, type and order, and nothing else, so they need no look here.
        if out is None and type(X) is np.ndarray and (found := passes_of(self)(X)) is not None:
            return found
        return by_blocks(self, X, out)

    def compiled(self, rows: int = 1) -> Callable[[Array], Array]:
        """The network as it is now, as a function of X (rows, D), or of one row x (D,), for control loops.

        The function has a copy of weights and settings. It gives what `predict` gives, but for the last bits, returns new arrays,
        and may be called from any thread. Raises TypeError where a layer of one's own cannot be traced, ValueError for a network
        that takes any width; the function raises ValueError or TypeError for an X that does not fit.

        >>> import numpy as np, backprop as bp
        >>> policy = bp.Sequential(bp.Linear(4, 2, bias=False), seed=0).compiled()
        >>> policy(np.zeros(4, "float32"))
        array([0., 0.], dtype=float32)
        """
        rows = checks.integer(f"{self.label}.compiled", "rows", rows)
        if self.in_features is None:
            expected = "a network that takes a known number of features"
            raise ValueError(checks.message(f"{self.label}.compiled", expected, "any", "Begin it with a Linear."))
        return compiled(self.copy(), self.phi.dtype, self.in_features, rows)

    def save(self, path: PathLike, *, table: Any = None, notes: Mapping[str, Any] | None = None) -> None:
        """Save the network, and the `Table` its inputs come from, as one file that `Sequential.load` and `Table.load` read.

        Of a network that a team trains rank 0 writes it.

        `notes` are plain data of your own that go with them; the command line keeps there how a model was trained.

        It holds the layers with their arguments, the parameters and the running statistics, and no code: a safetensors file with
        PyTorch's names, written whole or not at all, the same bytes for the same network. Raises OSError where it cannot be
        written, TypeError for a layer with arguments that are not data, ValueError for numbers that are not finite.

        >>> import tempfile, backprop as bp
        >>> net = bp.Sequential(bp.Linear(2, 3), bp.ReLU(), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save(f"{folder}/net.safetensors")
        ...     bool((bp.Sequential.load(f"{folder}/net.safetensors").phi == net.phi).all())
        True
        """
        architecture.save(self, path, table, notes, [Sequential])

    @classmethod
    def load(cls, path: PathLike, classes: Iterable[type] = ()) -> Self:
        """The network that `save` has saved, to the bit. `classes` are those of your own that it may contain.

        Nothing in the file is executed. The masks of a Dropout start anew. Raises FileFormatError for a file that is damaged,
        altered, of another kind, of a newer version or with classes that are not known, OSError for one that cannot be read.
        """
        return architecture.load(path, cls, [Sequential, cls, *classes])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, the type of φ."""
        return self.phi.dtype

    @property
    def label(self) -> str:
        """Name in errors: the widths, not the whole table."""
        return f"Sequential({self.in_features or '?'} → {self.out_features or '?'})"

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers.values())

    def __getitem__(self, index: int) -> Layer:
        return list(self.layers.values())[index]

    def __repr__(self) -> str:
        lines = [f"{'':4}{'layer':<34}{'f':>8}{'parameters':>13}"]
        width = self.in_features
        for key, layer in self.layers.items():
            width = chain(layer, width)
            name = _short(layer)
            lines.append(f"{key:<4}{name:<34}{width or '?':>8}{layer.size:>13,}")
        lines.append(f"{'':4}{'φ':<34}{'':>8}{self.size:>13,}  {self.phi.nbytes / 1024:,.1f} KiB {self.phi.dtype}")
        return "\n".join(lines)


def _short(layer: Layer) -> str:
    """One line for the summary table."""
    if isinstance(layer, Sequential):
        return f"Sequential of {len(layer)}"
    if isinstance(layer, Residual):
        return f"Residual({_short(layer.layers['layer'])})"
    text = repr(layer)
    return text if len(text) <= 32 else text[:31] + "…"
