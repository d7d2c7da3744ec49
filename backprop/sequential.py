"""Layers one after another, with all parameters in one vector φ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Self

import numpy as np

from backprop import architecture, checks, container
from backprop.atomic import PathLike
from backprop.blas import Landing
from backprop.checks import Array
from backprop.layers import Composite, Gradients, Layer, Residual

BLOCK_BYTES = 1 << 22  # predict works on about this much of X at a time, so that activations stay in cache


class FlatGradients(dict[str, Array]):
    """Gradients by name, as views of one vector `dL_dphi` (P,) laid out like φ."""

    def __init__(self, gradients: Gradients, dL_dphi: Array) -> None:
        super().__init__(gradients)
        self.dL_dphi = dL_dphi


class Sequential(Composite):
    """Composition f = f_K[… f_1[f_0[h]]], itself a layer.

        forward:   h_{k+1} = layer_k.forward(h_k)
        backward:  ∂L/∂h_k, gradients_k = layer_k.backward(∂L/∂h_{k+1})     from the last layer to the first

    `phi` (P,) holds every parameter, layer by layer, beta before omega; `parameters` are views into it, keyed "0.beta",
    "0.omega", …. With `seed` all weights are drawn anew from one generator; without, the layers keep their values.
    `dtype` is "float32" or "float64".

    With `checkpoint=k` the training pass stores only every k-th activation and computes the others again in `backward`,
    segment by segment: the same bits, in training memory for K/k + k activations instead of K (least at k = √K), one more forward
    pass. In a network of your own hands k more are kept, so that `backward` may be called twice.
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

    replays = True
    equations = ("f = layer_K[… layer_0[h]]", "∂L/∂h: the layers' backward in reverse order")

    def __init__(
        self, *layers: Layer, seed: int | None = None, dtype: Any = "float32", checkpoint: int | None = None
    ) -> None:
        if not layers:
            raise ValueError(
                checks.message("Sequential", "at least one layer", "none", "Write Sequential(Linear(64, 10)).")
            )
        self.layers = {str(i): checks.layer("Sequential", layer, Layer) for i, layer in enumerate(layers)}
        kind = checks.dtype("Sequential", dtype)
        self.checkpoint = (
            None if checkpoint is None else checks.integer("Sequential", "checkpoint", checkpoint, least=2)
        )
        generator = None if seed is None else checks.generator("Sequential", seed)
        self._stored: list[tuple[Array, list[Layer]]] = []  # of each segment: its input, and its layers as they were
        self._chain_widths()
        self._claim()
        if generator is not None:
            self.initialize(generator)
        self.bind(np.empty(self.size, kind))
        self._predict = f"{self.label}.predict"  # its name in errors
        widest = max(16, self.in_features or 1, *(layer.out_features or 1 for layer in self.leaves()))
        self._rows_per_block = max(1, BLOCK_BYTES // (widest * kind.itemsize))

    def _chain_widths(self) -> None:
        for layer in self.layers.values():
            self.in_features = layer.in_features
            if not (self.in_features is None and layer.keeps_width):
                break
        self.out_features = self.chain(self.in_features)

    @property
    def keeps_width(self) -> bool:  # type: ignore[override]
        """Whether every layer does."""
        return all(layer.keeps_width for layer in self.layers.values())

    def chain(self, width: int | None) -> int | None:
        """Rows of f for an h of `width` rows. Raises ValueError if two neighbors do not fit."""
        for layer in self.layers.values():
            width = layer.chain(width)
        return width

    def _claim(self) -> None:
        """Take the layers into this network, each once: a layer in two networks would leave the φ of the first."""
        leaves = list(self.leaves())
        if len({id(leaf) for leaf in leaves}) < len(leaves):
            raise ValueError(
                checks.message("Sequential", "each layer once", "the same layer object twice", "Use layer.copy().")
            )
        free = list(self.layers.values())
        for layer in free:  # grows while it runs
            if layer._owned:
                raise ValueError(
                    checks.message("Sequential", "layers of no other network", layer.label, "Use layer.copy().")
                )
            if not isinstance(layer, Sequential):
                free.extend(layer.children.values())
        for layer in free:
            layer._owned = True

    def bind(self, phi: Array) -> None:
        """Move the parameters into `phi` (P,), which becomes the network's φ."""
        super().bind(phi)
        self.phi = phi

    def release(self) -> None:
        """Belong to no larger network any more; the layers stay in this one."""
        self._owned = False

    def frozen(self) -> Self:
        """The network as `predict` computes it, an independent copy with the same φ."""
        twin = super().frozen()
        for layer in twin.layers.values():
            layer._owned = True
        twin.bind(twin.phi)
        return twin

    def replica(self) -> Self:
        """Replicas of the layers that recycle as much as they can.

        An activation may write over an input that nobody reads again. With checkpoints, only one segment is alive at a time, so
        the layers at the same place of each segment share their arrays.
        """
        twin = super().replica()
        for segment in twin._segments():
            layers = [twin.layers[key] for key in segment]
            for before, layer in pairwise(layers):
                layer._may_overwrite_h = not before.reuses_output
        if self._arrays is None:
            for segment in twin._segments()[1:]:
                for first, key in zip(twin._segments()[0], segment, strict=False):
                    twin.layers[key].share_arrays(twin.layers[first])
        return twin

    def leave_out_the_data(self) -> None:
        """Of a replica: nobody asks for ∂L/∂X, so the first layer may leave it out, but the child of a Residual may not."""
        first: Layer = self
        while isinstance(first, Sequential):
            first = first[0]
        first._wants_dL_dh = bool(first.children)

    def _segments(self) -> list[list[str]]:
        """The keys of the layers between two stored activations; without checkpoints, all of them."""
        keys = list(self.layers)
        k = self.checkpoint or len(keys)
        return [keys[start : start + k] for start in range(0, len(keys), k)]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and unpickled networks hold φ and its views as separate arrays; make them one again.
        self.__dict__.update(state)
        self.bind(self.phi if self.phi.flags.writeable else self.phi.copy())  # a memory map may be read-only

    def forward(self, h: Array) -> Array:
        """Training pass: h (D,) or (D, N), one example per column, to f (K,) or (K, N)."""
        h = checks.columns(self, "forward", h)
        *earlier, last = self._segments()
        self._stored = []
        for segment in earlier:
            self._stored.append((h, [self.layers[key].snapshot() for key in segment]))
            for key in segment:
                h = self.layers[key].twin().forward(h)  # the twin's caches go with it
            if self._arrays is not None:  # where arrays are recycled, this one must not be
                out = self.empty(f"checkpoint before {segment[-1]}", h.shape, h.dtype)
                h = np.positive(h, out=out)
        for key in last:
            h = self.layers[key].forward(h)
        return h

    def infer(self, h: Array) -> Array:
        """Inference pass, without caches."""
        h = checks.columns(self, "infer", h)
        for layer in self.layers.values():
            h = layer.infer(h)
        return h

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh and all gradients, as views of one flat vector (`gradients.dL_dphi`)."""
        if self._landings:
            return self._backward_children(dL_df)
        dL_dphi = np.empty(self.size, np.result_type(self.phi, dL_df))
        self.land_in({name: Landing(view) for name, view in self.views(dL_dphi).items()})
        try:
            dL_dh, gradients = self._backward_children(dL_df)
        finally:
            self.land_in({})
        return dL_dh, FlatGradients(gradients, dL_dphi)

    def _backward_children(self, dL_df: Array) -> tuple[Array, Gradients]:
        by_layer = []
        *earlier, last = self._segments()
        for key in reversed(last):
            dL_df, gradients = self.backward_child(key, dL_df)
            by_layer.append(gradients)
        if len(self._stored) < len(earlier):
            raise checks.too_early(self)
        for segment, (h, saved) in zip(reversed(earlier), reversed(self._stored), strict=True):
            layers = [layer.snapshot() for layer in saved]
            for layer in layers:
                h = layer.forward(h)
            for key, layer in zip(reversed(segment), reversed(layers), strict=True):
                dL_df, gradients = self.backward_child(key, dL_df, layer)
                by_layer.append(gradients)
        return dL_df, {name: g for gradients in reversed(by_layer) for name, g in gradients.items()}

    def predict(self, X: Any, out: Array | None = None) -> Array:
        """Outputs (N, K) for rows X (N, D), computed block by block; written to `out` if given.

        X may be an array, a memory map, or anything with `shape`, `dtype` and slices. Nothing is cached, so several threads may
        predict at once. Raises TypeError or ValueError for X or `out` that do not fit.

        >>> import numpy as np, backprop as bp
        >>> bp.Sequential(bp.Exp()).predict(np.zeros((1, 3)))
        array([[1., 1., 1.]], dtype=float32)
        """
        X = checks.rows(self._predict, X, self.in_features)
        n, block = X.shape[0], self._rows_per_block
        if n <= block and out is None:
            return self._infer_rows(X, 0, n).T
        for start in range(0, n, block):
            f = self._infer_rows(X, start, start + block)
            out = self._checked_out(out, (n, len(f)))
            out[start : start + block] = f.T
        return out  # type: ignore[return-value]

    def _infer_rows(self, X: Any, start: int, end: int) -> Array:
        X, dtype = np.asarray(X[start:end]), self.phi.dtype
        checks.finite(self._predict, "X", X, start, dtype)
        return self.infer(X.T if X.dtype == dtype else X.T.astype(dtype))

    def _checked_out(self, out: Array | None, shape: tuple[int, int]) -> Array:
        if out is None:
            return np.empty(shape, self.phi.dtype)
        if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype.kind != "f":
            got = f"shape {out.shape} of {out.dtype}" if isinstance(out, np.ndarray) else repr(out)
            raise ValueError(checks.message(self._predict, f"out with shape {shape} of floats", got))
        return out

    def save(self, path: PathLike, *, table: Any = None) -> None:
        """Save the network, and the `Table` its inputs come from, as one file that `Sequential.load` and `Table.load` read.

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
        who, arrays = f"{self.label}.save", architecture.tensors(self)
        architecture.require_finite(who, arrays)
        if table is not None and not hasattr(table, "state"):
            raise TypeError(checks.message(who, "table: a Table", repr(table)))
        data = architecture.describe(self)
        architecture.require_rebuilt(self, data, [Sequential])
        container.write(path, "network", {"network": data, "table": None if table is None else table.state()}, arrays)

    @classmethod
    def load(cls, path: PathLike, classes: Iterable[type] = ()) -> Self:
        """The network that `save` has saved, to the bit. `classes` are those of your own that it may contain.

        Nothing in the file is executed. The masks of a Dropout start anew. Raises FileFormatError for a file that is damaged,
        altered, of another kind, of a newer version or with classes that are not known, OSError for one that cannot be read.
        """
        known = architecture.with_classes("Sequential.load", [Sequential, cls, *classes])
        about, arrays = container.read(path, "network")
        try:
            architecture.require_finite("tensors", arrays)
            net = architecture.build(about.get("network"), known, arrays)
            if not isinstance(net, cls):
                raise ValueError(checks.message("network", f"a {cls.__name__}", f"a {type(net).__name__}"))
            if arrays:
                raise ValueError(checks.message("network", "the tensors of its layers", f"also {sorted(arrays)[:3]}"))
        except Exception as error:
            raise container.refusal(path, "a network", error) from error
        return net

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
            width = layer.chain(width)
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
