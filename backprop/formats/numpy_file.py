"""A network as one Python file that needs NumPy and nothing else."""

from __future__ import annotations

import base64
import os
import runpy
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backprop import checks
from backprop.checks import Array
from backprop.files.atomic import write_atomically
from backprop.formats.plan import Plan, Step
from backprop.formats.verify import ExportReport, compare
from backprop.sequential import Sequential

# Of an input h; what NumPy lacks is in FUNCTIONS. Below −800 and −40 SiLU and GELU are 0, and −∞ · 0 is no number.
FORMULAS = {
    "Linear": "{h} @ omega_{key}.T",
    "Add": "{sum}",
    "Concatenate": "np.concatenate([{list}], axis=1)",
    "Identity": "{h}",
    "ReLU": "np.maximum({h}, 0)",
    "LeakyReLU": "np.where({h} > 0, {h}, {number!r} * {h})",
    "ELU": "np.where({h} > 0, {h}, {number!r} * np.expm1(np.minimum({h}, 0)))",
    "SiLU": "np.maximum({h}, -800) * sigmoid({h})",
    "GELU": "np.maximum({h}, -40) * normal_distribution({h})",
    "Softplus": "np.maximum({h}, 0) + np.log1p(np.exp(-np.abs({h})))",
    "Sigmoid": "sigmoid({h})",
    "Tanh": "np.tanh({h})",
    "Sin": "np.sin({h})",
    "Cos": "np.cos({h})",
    "Exp": "np.exp({h})",
    "BatchNorm": "({h} - mean_{key}) * scale_{key} + beta_{key}",
    "LayerNorm": "standardize({h}, {number!r}) * gamma_{key} + beta_{key}",
}


FUNCTIONS = {
    "sigmoid": '''
def sigmoid(h):
    """1 / (1 + exp(-h)); no exponent is positive, so that nothing overflows."""
    e = np.exp(-np.abs(h))
    return np.where(h > 0, 1, e) / (1 + e)
''',
    "normal_distribution": '''
def normal_distribution(h):
    """The probability that a standard normal number is below h; NumPy itself has no erf."""
    return (0.5 * erfc(h.astype(float) * -(0.5**0.5))).astype(h.dtype)
''',
    "standardize": '''
def standardize(h, eps):
    """Each row with mean 0 and variance 1; counted from its first number, numbers that are all alike are exactly 0."""
    h = h - h[:, :1]
    h = h - h.mean(axis=1, keepdims=True)
    return h / np.sqrt((h * h).mean(axis=1, keepdims=True) + h.dtype.type(eps))
''',
}

TEMPLATE = '''"""A network of {plan.inputs} inputs and {plan.outputs} outputs, {plan.net.size:,} parameters in {plan.dtype.name}.

As a module: predict(X) takes rows X (N, {plan.inputs}) and returns rows (N, {plan.outputs}). It needs NumPy and nothing else.
As a program, python model.py data.csv prints the outputs for each line of numbers.
"""

import base64
import sys
{imports}
import numpy as np
{constants}

def predict(X):
    """Outputs (N, {plan.outputs}) for rows X (N, {plan.inputs}). Raises ValueError for another shape, and for NaN and inf."""
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != {plan.inputs}:
        raise ValueError(f"predict: expected X with shape (N, {plan.inputs}), one example per row, got shape {{X.shape}}.")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"predict: expected X of real numbers, got {{X.dtype}}.")
    h0 = X.astype(np.{plan.dtype.name})
    if not np.isfinite(h0).all():
        raise ValueError("predict: expected finite X, got NaN or inf.")
{steps}
    return h{last}
{functions}

def array(shape, text):
    """The numbers in base64 text, which holds their little-endian bytes."""
    return np.frombuffer(base64.b64decode(text), "{code}").reshape(shape)


{weights}

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {{sys.argv[0]}} data.csv")
    rows = np.loadtxt(sys.argv[1], np.{plan.dtype.name}, delimiter=",", ndmin=2)
    np.savetxt(sys.stdout, predict(rows), "%.{digits}g", delimiter=",")
'''


def to_numpy(net: Sequential, path: str | os.PathLike[str], *, X: Any = None) -> ExportReport:
    """Write the network as one Python file with a `predict(X)` for rows: it imports NumPy and nothing of this library.

    The weights are in the file, as base64. It computes in the network's dtype, and is also a program:
    `python model.py data.csv`. Before anything is written, the file is run and compared with `net.predict` on generated rows
    and on those of `X`.

    Raises TypeError for a layer that no exporter knows, such as `Elementwise`; ValueError for weights that are not finite, for
    a network of unknown width without X, and for a file called like a module of Python, like NumPy or this library, which
    programs beside it would import in their place; RuntimeError if the outputs differ; OSError. The file that was there
    before is then still whole.

    >>> import tempfile, pathlib, backprop as bp
    >>> net = bp.Sequential(bp.Linear(4, 8), bp.Tanh(), bp.Linear(8, 2), seed=0)
    >>> report = bp.to_numpy(net, pathlib.Path(tempfile.mkdtemp(), "model.py"))
    >>> report.rows, report.largest_difference < 1e-6
    (100, True)
    """
    _shadows_nothing(Path(path).name)
    plan = Plan("to_numpy", net, X, None)
    source = _source(plan).encode()
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.py")
        file.write_bytes(source)
        predict = runpy.run_path(str(file))["predict"]
        report = compare(plan, predict, path, "NumPy")
    write_atomically(path, source)
    return report


def _shadows_nothing(file: str) -> None:
    stem, ending = os.path.splitext(file)
    if ending == ".py" and (stem in sys.stdlib_module_names or stem in ("numpy", "backprop")):
        advice = f"Programs beside it would import it for {stem}; call it {stem}_net.py."
        raise ValueError(checks.message("to_numpy", "a file that is not called like a module", repr(file), advice))


def _source(plan: Plan) -> str:
    steps = [_statement(step, k) for k, step in enumerate(plan.steps, 1)]
    code = "\n".join(steps)
    functions = [text for name, text in FUNCTIONS.items() if f"{name}(" in code]
    erfc = "normal_distribution(" in code
    return TEMPLATE.format(
        plan=plan,
        imports="from math import erfc as erfc_of_one\n" if erfc else "",
        constants="\nerfc = np.frompyfunc(erfc_of_one, 1, 1)\n" if erfc else "",
        steps=code,
        last=len(steps),
        functions="\n".join(["", *functions]),
        code=plan.dtype.newbyteorder("<").str,
        weights="\n".join(_weights(step) for step in plan.steps if step.arrays),
        digits=9 if plan.dtype.itemsize == 4 else 17,
    )


def _statement(step: Step, k: int) -> str:
    """The line of Python that computes value k."""
    key, inputs = _name(step), [f"h{i}" for i in step.inputs]
    several = {"sum": " + ".join(inputs), "list": ", ".join(inputs)}
    formula = FORMULAS[step.kind].format(h=inputs[0], key=key, number=step.number, **several)
    if step.kind == "Linear" and "beta" in step.arrays:
        formula += f" + beta_{key}"
    return f"    h{k} = {formula}  # {step.text}"


def _weights(step: Step) -> str:
    return "\n".join(f"{name}_{_name(step)} = {_literal(array)}" for name, array in step.arrays.items())


def _name(step: Step) -> str:
    return step.key.replace(".", "_")


def _literal(array: Array) -> str:
    text = base64.encodebytes(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return f'array({array.shape}, """\n{text}""")'
