"""Layers in layers: which are inside one, how their widths chain, how randomness is started.

These are functions and not methods, because nobody who reads or writes a layer needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from backprop import checks, functions
from backprop.checks import Array

if TYPE_CHECKING:
    from backprop.layers.base import Layer


def leaves(layer: Layer) -> Iterator[Layer]:
    """The layers without children, in the order of φ."""
    return (each for each in inside(layer) if not each.children)


def inside(layer: Layer) -> Iterator[Layer]:
    """A layer and all those inside it, at any depth."""
    yield layer
    for child in layer.children.values():
        yield from inside(child)


def views(layer: Layer, flat: Array) -> dict[str, Array]:
    """A vector (P,) laid out like φ, seen as one array per parameter; of rows (N, P), each array is (N, *shape)."""
    return functions.views(layer.parameters, flat)


def chain(layer: Layer, width: int | None) -> int | None:
    """Rows of f for an h of `width` rows; None is unknown. Raises ValueError if they cannot chain."""
    if hasattr(layer, "chain"):
        return layer.chain(width)
    if width is not None and layer.in_features is not None and width != layer.in_features:
        expected, got = f"{layer.in_features} input features", f"{width} from the layer before it"
        advice = "Each layer takes as many features as the one before it returns."
        raise ValueError(checks.message(layer.label, expected, got, advice))
    if layer.keeps_width:
        return width if width is not None else layer.in_features
    return layer.out_features


def frozen(layer: Layer) -> Layer:
    """The layer as `infer` computes it, as an independent copy with a `forward` and a `backward`: no randomness, no batch.

    Dropout becomes the identity, BatchNorm the affine map of its running statistics; a layer of one's own what its own method
    `frozen` returns; most layers are merely copied.
    """
    return layer.frozen() if hasattr(layer, "frozen") else layer.copy()


def reseed(layer: Layer, *key: int) -> None:
    """Start the randomness of the next forward pass from `key`.

    A layer of one's own may say how, in a method `reseed(*key)`; else the generators it keeps as attributes are set.
    """
    if hasattr(type(layer), "reseed") and not layer.children:
        layer.reseed(*key)
        return
    for name, value in vars(layer).items():
        if isinstance(value, np.random.Generator):
            vars(layer)[name] = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    for i, child in enumerate(layer.children.values()):
        reseed(child, *key, i)


@contextmanager
def reseeded(layer: Layer, *key: int) -> Iterator[None]:
    """With the randomness started from `key`; afterwards the generators kept as attributes are the ones from before."""
    kept = [(vars(each), name, x) for each in inside(layer) for name, x in vars(each).items()]
    own = [each for each in kept if isinstance(each[2], np.random.Generator)]
    reseed(layer, *key)
    try:
        yield
    finally:
        for attributes, name, generator in own:
            attributes[name] = generator


def draws(layer: Layer) -> bool:
    """Whether a forward pass draws random numbers."""
    return any(
        hasattr(type(leaf), "reseed") or any(isinstance(value, np.random.Generator) for value in vars(leaf).values())
        for leaf in leaves(layer)
    )
