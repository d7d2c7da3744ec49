"""Matrices as pictures: weights, and what was taken for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers import Layer
from backprop.patterns import by_pattern
from backprop.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

MOST_COUNTS = 24  # classes up to which there is room for numbers


def weights(net: Layer, pattern: str = "*", *, ax: Any = None) -> Array:
    """Each weight matrix of a network: a row per output, a column per input, grey where 0. Returns the axes, one per matrix.

    Negative weights are dark and blue, positive ones light and yellow, each matrix on its own scale, which is symmetric about 0.
    `pattern` chooses among the parameters, as in "0.*"; those that are no matrices are left out. `ax` may be as many axes.

    Raises TypeError for what is no layer or network; ValueError where there is no matrix, and for NaN or inf.

    >>> import backprop as bp
    >>> [ax.get_title() for ax in weights(bp.Sequential(bp.Linear(3, 2), bp.Tanh(), bp.Linear(2, 1)))]
    ['0.omega (2, 3)', '2.omega (1, 2)']
    """
    who = "weights"
    checks.instance(who, "net", net, Layer)
    chosen = by_pattern(who, "pattern", {pattern: True}, net.parameters) if net.parameters else {}
    matrices = {name: net.parameters[name] for name in chosen if net.parameters[name].ndim == 2}
    if not matrices:
        raise ValueError(checks.message(who, "at least one matrix among the parameters", str(list(chosen) or "none")))
    for name, matrix in matrices.items():
        checks.finite(who, name, matrix)
    ax = canvas.panels(who, ax, len(matrices), 3.4, 2.9)
    for each, (name, matrix) in zip(ax, matrices.items(), strict=True):
        reach = float(np.max(np.abs(matrix))) or 1.0
        image = each.imshow(matrix, cmap=canvas.SIGNED, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
        each.figure.colorbar(image, ax=each)
        each.set(title=f"{name} {matrix.shape}", xlabel="input", ylabel="output")
        for axis in (each.xaxis, each.yaxis):
            canvas.whole_numbers(axis, most=5)
    return ax


def confusion_matrix(y: Any, predicted: Any, classes: Any = None, *, ax: Axes | None = None) -> Drawn:
    r"""How often each class (row) was taken for each (column), with the share of its row. Returns the axes.

    Labels y (N,) and predicted (N,) are whole numbers 0 … K − 1, which `classes` may name, or words; words are sorted, and
    `classes` may give their order. The darker a cell, the larger its share of the row, so that rare classes count as much as
    frequent ones. Above 24 classes there is no room for numbers.

    Raises TypeError or ValueError for labels that are none, that are of different lengths, or that `classes` does not have.

    >>> ax = confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], ["cat", "dog"])
    >>> [text.get_text() for text in ax.texts]
    ['1\n50 %', '1\n50 %', '0', '2\n100 %']
    """
    who = "confusion_matrix"
    counts, classes = _count(who, y, predicted, classes)
    K, rows = len(classes), counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    side = min(2.4 + 0.42 * K, 11.0)
    ax = canvas.axes(who, ax, side + 1.2, side)
    image = ax.imshow(shares, cmap=canvas.SHARES, vmin=0, vmax=1, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="share of the row", format="{x:.0%}", shrink=0.9)
    for i, j in np.ndindex(K, K) if K <= MOST_COUNTS else ():
        words = f"{counts[i, j]:,}" + (f"\n{100 * shares[i, j]:.0f} %" if counts[i, j] else "")
        size = min(0.3, 1.4 / max(map(len, words.split("\n"))))  # a letter is about 0.6 as wide as high
        shade = "0.6" if not counts[i, j] else "white" if shares[i, j] > 0.55 else "black"
        canvas.text(ax, j, i, words, size, 10.0, color=shade)
    labels = [canvas.shortened(name, 20) for name in classes]
    flat = max(map(len, labels)) <= (8 if K <= 2 else 3)
    across, down = canvas.every(K, canvas.room(ax, 0.25)), canvas.every(K, 44)
    ax.set_xticks(across, [labels[k] for k in across], rotation=0 if flat else 90)
    ax.set_yticks(down, [labels[k] for k in down])
    right = int(np.trace(counts))
    ax.set(xlabel="predicted", ylabel="true", title=f"{right:,} of {counts.sum():,} right ({right / counts.sum():.1%})")
    return ax


def _count(who: str, y: Any, predicted: Any, classes: Any) -> tuple[Array, list[str]]:
    """Counts (K, K) and the names of the K classes."""
    y, predicted = _labels(who, "y", y), _labels(who, "predicted", predicted)
    if y.shape != predicted.shape:
        raise ValueError(checks.message(who, f"predicted with shape {y.shape}, that of y", f"shape {predicted.shape}"))
    if "U" in (y.dtype.kind, predicted.dtype.kind):  # words
        y, predicted = y.astype(str), predicted.astype(str)
        order = canvas.names(who, classes, 0) if classes is not None else sorted({*y, *predicted})
        place = {name: k for k, name in enumerate(order)}
        if strange := {*y, *predicted} - set(place):
            raise ValueError(checks.message(who, f"labels among {order}", repr(str(min(strange)))))
        y, predicted = (np.array([place[name] for name in labels]) for labels in (y, predicted))
    else:
        order = canvas.names(who, classes, int(max(y.max(), predicted.max())) + 1)
        y, predicted = checks.labels(who, y, len(order)), checks.labels(who, predicted, len(order))
    K = len(order)
    return np.bincount(y * K + predicted, minlength=K * K).reshape(K, K), order


def _labels(who: str, name: str, values: Any) -> Array:
    """Labels (N,): numbers, or words as text."""
    array = np.asarray(values)
    if array.dtype.kind in "OU":
        array = array.astype(str)
    else:
        array = checks.numeric(who, name, array)
        checks.finite(who, name, array)
    if array.ndim != 1 or not array.size:
        advice = f"Pass {name}.argmax(axis=1)." if array.ndim == 2 and array.shape[1] > 1 else ""
        expected = f"{name} with shape (N,), one label per example"
        raise ValueError(checks.message(who, expected, f"shape {array.shape}", advice))
    return array
