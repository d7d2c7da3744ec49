"""The proof of an export: what was written is run on rows, and its outputs are compared with `predict`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.formats.plan import Plan
from backprop.sequential import Sequential

ROWS = 100
SLACK = 16.0
OURS = "This is a mistake of the exporter: please report it, with the network."


@dataclass(frozen=True)
class ExportReport:
    """What an export was found to compute.

    `largest_difference` is the largest |exported − predict| over `rows` rows and all outputs; `relative_difference` the same
    with each output divided by its largest size among these rows. Both are NaN and `rows` is 0 where nothing could be run.
    `dtype` is what the export computes in, `run_by` what ran it.

    >>> ExportReport("net.h", 100, 2e-7, 1e-7, "float32", "cc")
    net.h: float32, largest difference from predict 2e-07 (relative 1e-07) on 100 rows, run by cc
    """

    path: str
    rows: int
    largest_difference: float
    relative_difference: float
    dtype: str
    run_by: str

    def __repr__(self) -> str:
        if not self.rows:
            return f"{self.path}: {self.dtype}, not compared with predict: {self.run_by}"
        found = f"{self.largest_difference:.2g} (relative {self.relative_difference:.2g})"
        return f"{self.path}: {self.dtype}, largest difference from predict {found} on {self.rows} rows, run by {self.run_by}"


def compare(plan: Plan, run: Callable[..., Array], path: object, run_by: str, advice: str = OURS) -> ExportReport:
    """Run an export on generated rows and on the caller's, all at once and one alone: on X, or on numbers and words of a table.

    With f (N, K) from `predict`, output k may differ by 16 (ε max_n |f_nk| + ρ_k), where ε is the rounding of the export's dtype
    and ρ_k is what rounding does to this network: the largest difference between f_k in float32 and in float64, in units of ε.
    Rows whose f is not finite are left out. With a table, both are in units of the target. Raises RuntimeError for a difference
    beyond that.
    """
    inputs, f, tolerance = _expected(plan)
    size = np.abs(f).max(axis=0)
    with np.errstate(all="ignore"):
        found = np.asarray(run(*inputs))
        alone = np.asarray(run(*(values[:1] for values in inputs)))
    if found.shape != f.shape or alone.shape != f[:1].shape:
        raise RuntimeError(checks.message(plan.who, f"outputs with shape {f.shape}", f"{found.shape}", advice))
    difference = np.maximum(np.abs(found - f).max(axis=0), np.abs(alone - f[:1]).max(axis=0))
    wrong = ~(difference <= tolerance)  # also NaN
    if wrong.any():
        k = int(np.argmax(wrong))
        expected = f"output {k} within {tolerance[k]:.2g} of predict (outputs up to {size[k]:.2g})"
        raise RuntimeError(checks.message(plan.who, expected, f"a difference of {difference[k]:.2g}", advice))
    relative = np.divide(difference, size, out=np.zeros_like(size), where=size > 0)
    return ExportReport(str(path), len(f), float(difference.max()), float(relative.max()), plan.dtype.name, run_by)


def _expected(plan: Plan) -> tuple[list[Array], Array, Array]:
    """Rows as the export takes them, what predict makes of them, and how far each output may be from it."""
    preparation = plan.preparation
    inputs, X = _rows(plan)
    with np.errstate(all="ignore"):
        f = plan.net.predict(X).astype(np.float64)
        wide, narrow = (_in(plan.net, dtype).predict(X).astype(np.float64) for dtype in ("float64", "float32"))
    usable = np.isfinite(f).all(axis=1) & np.isfinite(wide).all(axis=1) & np.isfinite(narrow).all(axis=1)
    if not usable.any():
        raise ValueError(checks.message(plan.who, "finite outputs for some rows", "none", "Pass X, rows of the data."))
    f, rounding = f[usable], np.abs(wide - narrow)[usable].max(axis=0)
    unit = np.finfo(plan.dtype).eps
    tolerance = SLACK * (unit * np.abs(f).max(axis=0) + rounding * (unit / np.finfo(np.float32).eps))
    inputs = [values[usable] for values in inputs]
    if preparation is None or not preparation.scales:
        return inputs, f, tolerance
    f = preparation.in_units(f)
    return inputs, f, preparation.sigma * tolerance + SLACK * np.finfo(np.float64).eps * np.abs(f).max(axis=0)


def _rows(plan: Plan) -> tuple[list[Array], Array]:
    """Generated rows and the caller's, as the export takes them, and as inputs of the network.

    Where numbers are cut into pieces, there are rows at every edge and in every piece, however narrow it is.
    """
    knots = plan.knots()
    if plan.preparation is not None:
        inputs = plan.preparation.generated()
        if knots:
            more = plan.preparation.at_knots(inputs, knots)
            inputs = [np.concatenate(pair) for pair in zip(inputs, more, strict=True)]
        X = plan.preparation.features(plan.who, *inputs)
        if plan.X is None:
            return inputs, X
        both = zip(inputs, plan.inputs_given, strict=True)
        return [np.concatenate(pair) for pair in both], np.concatenate([X, np.asarray(plan.X[:])])
    X = generated(plan.inputs)
    if knots:
        steep = X[np.arange(max(map(len, knots.values()))) % ROWS]
        for j, own in knots.items():
            steep[:, j] = np.resize(own, len(steep))
        X = np.concatenate([X, steep])
    if plan.X is not None:
        X = np.concatenate([X, np.asarray(plan.X[:]).astype(plan.net.phi.dtype)])
    return [X], X


def generated(width: int) -> Array:
    """Rows (100, D): a row of zeros, then normal numbers at three scales."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((ROWS, width), np.float32) * generator.choice([0.1, 1, 3], (ROWS, 1))
    X[0] = 0
    return X.astype(np.float32)


def _in(net: Sequential, dtype: str) -> Sequential:
    """The network in another precision."""
    return Sequential(*(layer.copy() for layer in net.frozen()), dtype=dtype)
