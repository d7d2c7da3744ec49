"""Layers of columns and members as steps of a plan, several for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backprop import layers
from backprop.layers import Layer

PIECES = "pieces"  # of a step that says how far a number has come through each of its pieces


def _select(plan: Any, layer: layers.Select, h: int, key: str) -> int:
    return _rows(plan, h, key, layer.rows)


def _rows(plan: Any, h: int, key: str, rows: Any) -> int:
    chosen = tuple(int(row) for row in rows)
    return int(plan.add("Select", (h,), len(chosen), key, "Select", rows=chosen))


def _input_scale(plan: Any, layer: layers.InputScale, h: int, key: str) -> int:
    gamma = layer.parameters["gamma"]
    arrays = {"mean": 0 * gamma, "scale": layer.pace * gamma, "beta": 0 * gamma}
    return int(plan.add("BatchNorm", (h,), len(gamma), key, layer.label, arrays))


def _pieces(plan: Any, layer: layers.PiecewiseLinear | layers.Quantiles, h: int, key: str) -> int:
    rows = np.repeat(np.arange(len(layer.pieces)), layer.pieces)
    cut, low, scale = len(rows), layer.buffers["low"], 1 / (layer.buffers["high"] - layer.buffers["low"])
    h = _rows(plan, h, key, rows)
    h = plan.add("BatchNorm", (h,), cut, f"{key}.pieces", PIECES, {"mean": low, "scale": scale, "beta": 0 * low})
    return int(plan.add("Cut", (h,), cut, key, layer.label))


def _quantiles(plan: Any, layer: layers.Quantiles, h: int, key: str) -> int:
    h = _pieces(plan, layer, h, key)
    rows = np.repeat(np.arange(len(layer.pieces)), layer.pieces)
    omega = np.where(rows == np.arange(len(layer.pieces))[:, None], layer.buffers["rise"], 0)
    arrays = {"omega": omega, "beta": layer.buffers["start"]}
    return int(plan.add("Linear", (h,), len(omega), f"{key}.scores", layer.label, arrays))


def _embedding(plan: Any, layer: layers.Embedding, h: int, key: str) -> int:
    found = []
    for j, (C, width) in enumerate(zip(layer.cardinalities, layer.widths, strict=True)):
        code = plan.add("Codes", (_rows(plan, h, key, [j]),), C, key, layer.label)
        arrays = {"omega": layer.parameters[f"omega_{j}"]}
        found.append(plan.add("Linear", (code,), width, f"{key}.{j}", f"column {j}", arrays))
    return _joined(plan, found, key, layer)


def _joined(plan: Any, values: list[int], key: str, layer: Layer) -> int:
    if len(values) == 1:
        return values[0]
    return int(plan.add("Concatenate", tuple(values), sum(plan.widths[v] for v in values), key, layer.label))


def _members_linear(plan: Any, layer: layers.MembersLinear, h: int, key: str) -> int:
    own, k = layer.parameters, layer.members
    arrays = {"omega": own["omega"]} | {name: own[name].reshape(-1, k) for name in ("beta", "r", "s")}
    return int(plan.add("MembersLinear", (h,), layer.out_features, key, layer.label, arrays, number=k))


def _separate_linear(plan: Any, layer: layers.SeparateLinear, h: int, key: str) -> int:
    own, k, found = layer.parameters, layer.members, []
    for m in range(k):
        of_one = _rows(plan, h, key, range(m, plan.widths[h], k))
        arrays = {"omega": own[f"omega_{m}"], "beta": own["beta"][m::k]}
        found.append(plan.add("Linear", (of_one,), layer.outputs, f"{key}.{m}", f"member {m}", arrays))
    joined = _joined(plan, found, key, layer)
    return _rows(plan, joined, key, np.arange(k * layer.outputs).reshape(k, -1).T.ravel())


def _members_mean(plan: Any, layer: layers.MembersMean, h: int, key: str) -> int:
    k, K = layer.members, plan.widths[h] // layer.members
    if layer.of == "values":
        arrays = {"omega": np.repeat(np.eye(K) / k, k, axis=1)}
        return int(plan.add("Linear", (h,), K, key, layer.label, arrays))
    return int(plan.add(f"MeanOf{layer.of.capitalize()}", (h,), K, key, layer.label, number=k))


SEVERAL: dict[type[Layer], Callable[[Any, Any, int, str], int]] = {
    layers.Select: _select,
    layers.InputScale: _input_scale,
    layers.PiecewiseLinear: _pieces,
    layers.Quantiles: _quantiles,
    layers.Embedding: _embedding,
    layers.MembersLinear: _members_linear,
    layers.SeparateLinear: _separate_linear,
    layers.MembersMean: _members_mean,
}
