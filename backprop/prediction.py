"""Rows through a network, block by block: what stands behind `Sequential.predict`."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import numpy as np

from backprop import checks
from backprop.around.nesting import leaves
from backprop.checks import Array
from backprop.engine.native.compiled import alike, passes_of

BLOCK_BYTES = 3 << 15  # about this much of X at a time, so that activations stay in cache
LEAST_ROWS = 256  # … or of these, so that products are quick


def rows_per_block(net: Any) -> int:
    """Rows whose activations in the widest layer fill a block; enough of them for products to be quick.

    Features lie an odd number of lines of memory apart, so that they do not get into each other's way in the cache.
    """
    widest = max(16, net.in_features or 1, *(layer.out_features or 1 for layer in leaves(net)))
    rows = max(LEAST_ROWS, BLOCK_BYTES // (widest * net.phi.itemsize))
    return rows if rows < 32 else rows // 32 * 32 - 16


def by_blocks(net: Any, X: Any, out: Array | None) -> Array:
    """Outputs (N, K) for rows X (N, D), written to `out` if given. Raises TypeError or ValueError for what does not fit."""
    X = checks.rows(vars(net)["_predict"], X, net.in_features)
    if isinstance(out, np.ndarray) and isinstance(X, np.ndarray) and np.may_share_memory(X, out):
        X = X.copy()  # what is written to `out` may be rows that are still to be read
    n, block = X.shape[0], vars(net)["_block"]
    if n <= block and out is None:
        return _of_rows(net, X, 0, n)
    done = 0
    with alike(net, block) if n > block else nullcontext():
        if isinstance(X, np.ndarray) and net.out_features is not None:
            out = _checked_out(net, out, (n, net.out_features))
            done = passes_of(net).of_blocks(net, X, block, out)
        for start in range(done, n, block):
            f = _of_rows(net, X, start, start + block)
            out = _checked_out(net, out, (n, f.shape[1]))
            out[start : start + block] = f
    return out  # type: ignore[return-value]


def _of_rows(net: Any, X: Any, start: int, end: int) -> Array:
    """Outputs (n, K) for some of the rows: what `infer` gives, from a pass that was made for so many rows if there is one."""
    X, dtype = np.asarray(X[start:end]), net.phi.dtype
    passes = passes_of(net)
    if X.dtype == dtype and (found := passes(X)) is not None:
        return found
    checks.finite(vars(net)["_predict"], "X", X, start, dtype)
    began = time.perf_counter()
    f = net.infer(np.ascontiguousarray(X.T, dtype)).T  # columns, whose products are up to twice as quick
    passes.spent(net, X, f, time.perf_counter() - began)
    return f


def _checked_out(net: Any, out: Array | None, shape: tuple[int, ...]) -> Array:
    if out is None:
        return np.empty(shape, net.phi.dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype.kind != "f":
        got = f"shape {out.shape} of {out.dtype}" if isinstance(out, np.ndarray) else repr(out)
        raise ValueError(checks.message(vars(net)["_predict"], f"out with shape {shape} of floats", got))
    return out
