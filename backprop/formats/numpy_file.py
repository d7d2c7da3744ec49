"""A network as one Python file that needs NumPy and nothing else."""

from __future__ import annotations

import base64
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backprop import checks
from backprop.checks import Array
from backprop.files.atomic import write_atomically
from backprop.formats.plan import Plan, Step
from backprop.formats.preparation import Preparation
from backprop.formats.verify import ExportReport, compare

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
    "Select": "{h}[:, {rows!r}]",
    "Cut": "np.clip({h}, 0, 1)",
    "Codes": "codes({h}, {width})",
    "MembersLinear": "members_linear({h}, r_{key}, omega_{key}, s_{key}, beta_{key})",
    "MeanOfSoftmax": "mean_of_softmax({h}, {number:.0f})",
    "MeanOfSigmoid": "mean_of_sigmoid({h}, {number:.0f})",
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
    "codes": '''
def codes(h, n):
    """1 at the code of each row (N, n), a whole number up to a quarter; of what is no code, at 0."""
    code = np.rint(h)
    known = (code > 0) & (code < n) & (np.abs(h - code) < 0.25)
    return (np.where(known, code, 0) == np.arange(n)).astype(h.dtype)
''',
    "members_linear": '''
def members_linear(h, r, omega, s, beta):
    """One matrix for all members, which scale inputs and outputs each in their own way; members lie side by side in a feature."""
    z = h.reshape(len(h), len(r), -1) * r
    g = z.swapaxes(1, 2) @ omega.T
    return (beta + s * g.swapaxes(1, 2)).reshape(len(h), -1)
''',
    "mean_of_softmax": '''
def mean_of_softmax(h, k):
    """The logarithm of the mean of k members' probabilities."""
    h = h.reshape(len(h), -1, k)
    z = h - h.max(axis=1, keepdims=True)
    return log_sum(z - np.log(np.exp(z).sum(axis=1, keepdims=True))) - h.dtype.type(np.log(k))
''',
    "mean_of_sigmoid": '''
def mean_of_sigmoid(h, k):
    """The logarithm of the odds of the mean of k members' probabilities."""
    h = h.reshape(len(h), -1, k)
    tail = np.log1p(np.exp(-np.abs(h)))
    return log_sum(np.minimum(h, 0) - tail) - log_sum(np.minimum(-h, 0) - tail)
''',
    "log_sum": '''
def log_sum(x):
    """The logarithm of the sum of exponentials along the last axis."""
    top = x.max(axis=2, keepdims=True)
    return np.log(np.exp(x - top).sum(axis=2)) + top[:, :, 0]
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

{about}
"""

import base64
{modules}import sys
{imports}
import numpy as np
{constants}

def {call}(X):
    """Outputs (N, {plan.outputs}) for rows X (N, {plan.inputs}). Raises ValueError for another shape, and for NaN and inf."""
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != {plan.inputs}:
        raise ValueError(f"{call}: expected X with shape (N, {plan.inputs}), one example per row, got shape {{X.shape}}.")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{call}: expected X of real numbers, got {{X.dtype}}.")
    h0 = X.astype(np.{plan.dtype.name})
    if not np.isfinite(h0).all():
        raise ValueError("{call}: expected finite X, got NaN or inf.")
{steps}
    return h{last}
{functions}{table}

def array(shape, text):
    """The numbers in base64 text, which holds their little-endian bytes."""
    return np.frombuffer(base64.b64decode(text), "{code}").reshape(shape)


{weights}

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {{sys.argv[0]}} data.csv")
{program}'''

PLAIN = """\
As a module: predict(X) takes rows X (N, {plan.inputs}) and returns rows (N, {plan.outputs}). It needs NumPy and nothing else.
As a program, python model.py data.csv prints the outputs for each line of numbers."""

PLAIN_PROGRAM = """\
    rows = np.loadtxt(sys.argv[1], np.{plan.dtype.name}, delimiter=",", ndmin=2)
    np.savetxt(sys.stdout, predict(rows), "%.{digits}g", delimiter=",")
"""

# With a table: columns come as they are.
ABOUT = """\
As a module: predict(X) takes the columns named in COLUMNS by their names, as a dict or a frame, or rows with these columns in
this order, and returns {returns}. It needs NumPy and nothing else.
As a program, python model.py data.csv prints what is predicted for each line of a CSV with names in its first line."""

TABLE = '''

def predict(X):
    """{Returns} for columns by their names, or for rows (N, {D}) in the order of COLUMNS.

    Raises KeyError for a column that is not there, ValueError for values that cannot be used.
    """
    if hasattr(X, "keys") or hasattr(X, "columns"):
        columns = [X[name] for name in COLUMNS]
    else:
        columns = list(X.T if isinstance(X, np.ndarray) else zip(*X))
    if len(columns) != {D}:
        raise ValueError(f"predict: expected rows of {D} columns, {{list(COLUMNS)}}, got {{len(columns)}}.")
    return {answer}


def encode({arguments}):
    """The inputs of the network (N, {plan.inputs}): numbers scaled, a 1 for each category and 0 for the others."""
    features = [
{features}
    ]
    return np.concatenate(features, axis=1).astype("{code}")


def number(name, values, fill, shift, factor, indicates):
    """(x - shift) * factor for numbers, true and false as 1 and 0; fill for missing ones, of which a second feature may tell."""
    x = np.array(values, float)  # None becomes NaN
    missing = np.isnan(x)
    x = x if fill is None else np.where(missing, fill, x)
    if not np.isfinite(x).all():
        raise ValueError(f"predict: expected finite numbers in column {{name!r}}, got {{x[~np.isfinite(x)][0]}}.")
    x = (x - shift) * factor
    return np.column_stack([x, missing]) if indicates else x[:, None]


def one_of(name, values, categories, width, missing_at, other_at):
    """1 at the place of each value among the categories, or at that of missing ones, or of others; 0 elsewhere."""
    place = {{category: k for k, category in enumerate(categories)}}
    x = np.zeros((len(values), width))
    for row, value in enumerate(np.asarray(values, object).tolist()):
        missing = value is None or value != value
        k = missing_at if missing else place.get(value, other_at)
        if k is not None:
            x[row, k] = 1
{unknown}    return x


def read_number(text):
    """The number in a cell, None in an empty one."""
    return {{"": None, "true": 1.0, "false": 0.0}}[text.lower()] if text.lower() in ("", "true", "false") else float(text)


def read_word(text):
    """The word in a cell, None in an empty one."""
    return text or None


COLUMNS = {{  # and how a cell of each is read
{columns}
}}
{classes}'''

REFUSE_MISSING = """\
        elif missing:
            raise ValueError(f"predict: expected a value in column {name!r}, got {value!r} in row {row}.")
"""

REFUSE_UNKNOWN = """\
        else:
            raise ValueError(f"predict: expected one of {categories} in column {name!r}, got {value!r} in row {row}.")
"""

TABLE_PROGRAM = """\
    with open(sys.argv[1], encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    columns = {{name: [read(line[name]) for line in lines] for name, read in COLUMNS.items()}}
    np.savetxt(sys.stdout, predict(columns), "%.17g", delimiter=",")
"""


def to_numpy(net: Any, path: str | os.PathLike[str], *, table: Any = None, X: Any = None) -> ExportReport:
    """Write the network as one Python file with a `predict(X)` for rows: it imports NumPy and nothing of this library.

    The weights are in the file, as base64. It computes in the network's dtype, and is also a program:
    `python model.py data.csv`. Before anything is written, the file is run and compared with `net.predict` on generated rows
    and on those of `X`.

    With the `table` that makes the network's inputs, the file does that too, in float64: `predict(columns)` takes a dict or a
    frame of columns as they are, or rows of them, and returns numbers in units of the target, or a score for each of `CLASSES`.
    X is then a frame. A fitted estimator in the place of the network brings its own scaling and table.

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
    plan = Plan("to_numpy", net, X, None, table)
    source = _source(plan).encode()
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.py")
        file.write_bytes(source)
        predict = runpy.run_path(str(file))["predict"]
        report = compare(
            plan, predict if plan.preparation is None else _by_name(plan.preparation, predict), path, "NumPy"
        )
    write_atomically(path, source)
    return report


def _shadows_nothing(file: str) -> None:
    stem, ending = os.path.splitext(file)
    if ending == ".py" and (stem in sys.stdlib_module_names or stem in ("numpy", "backprop")):
        advice = f"Programs beside it would import it for {stem}; call it {stem}_net.py."
        raise ValueError(checks.message("to_numpy", "a file that is not called like a module", repr(file), advice))


def _by_name(preparation: Preparation, predict: Callable[[Any], Array]) -> Callable[..., Array]:
    """What hands numbers and words to the file as columns by name."""

    def run(*given: Array) -> Array:
        columns = (*preparation.numbers, *preparation.words)
        values = [values for array in given for values in array.T]
        return predict({column.name: own for column, own in zip(columns, values, strict=True)})

    return run


def _source(plan: Plan) -> str:
    steps = [_statement(step, k) for k, step in enumerate(plan.steps, 1)]
    code = "\n".join(steps)
    functions = [text for name, text in FUNCTIONS.items() if f"{name}(" in code]
    functions += [FUNCTIONS["log_sum"]] if "log_sum(" in "".join(functions) else []
    erfc, table = "normal_distribution(" in code, plan.preparation
    digits = 9 if plan.dtype.itemsize == 4 else 17
    return TEMPLATE.format(
        plan=plan,
        about=PLAIN.format(plan=plan) if table is None else ABOUT.format(returns=_returns(plan, table)),
        modules="" if table is None else "import csv\n",
        imports="from math import erfc as erfc_of_one\n" if erfc else "",
        constants="\nerfc = np.frompyfunc(erfc_of_one, 1, 1)\n" if erfc else "",
        call="predict" if table is None else "network",
        steps=code,
        last=len(steps),
        functions="\n".join(["", *functions]),
        table="" if table is None else _table(plan, table),
        code=plan.dtype.newbyteorder("<").str,
        weights="\n".join(_weights(step) for step in plan.steps if step.arrays),
        program=TABLE_PROGRAM.format() if table else PLAIN_PROGRAM.format(plan=plan, digits=digits),
    )


def _returns(plan: Plan, table: Preparation) -> str:
    if table.classes:
        return f"scores (N, {plan.outputs}) of CLASSES, the largest that of the class" * (plan.outputs > 1) or (
            "scores (N, 1), above 0 for the second of CLASSES"
        )
    units = f" in units of {table.target!r}" if table.target else ""
    return f"numbers (N, {plan.outputs}){units}"


def _table(plan: Plan, table: Preparation) -> str:
    """The functions that take columns as they are."""
    names = [f"x{j}" for j in range(len(table.columns))]
    features = [
        f"        one_of({c.name!r}, {x}, {c.categories!r}, {c.width}, {c.missing_at!r}, {c.other_at!r}),"
        if c.categories
        else f"        number({c.name!r}, {x}, {c.fill!r}, {c.shift!r}, {c.factor!r}, {c.indicator!r}),"
        for x, c in zip(names, table.columns, strict=True)
    ]
    answer, returns = "network(encode(*columns))", _returns(plan, table)
    if table.scales:
        answer = f"{table.mean!r} + {table.sigma!r} * {answer}.astype(float)"
    columns = (f"    {c.name!r}: {'read_word' if c.is_word else 'read_number'}," for c in table.columns)
    return TABLE.format(
        plan=plan,
        D=len(table.columns),
        Returns=returns[0].upper() + returns[1:],
        answer=answer,
        arguments=", ".join(names),
        features="\n".join(features),
        unknown=REFUSE_MISSING if table.ignores else REFUSE_UNKNOWN,
        columns="\n".join(columns),
        classes=f"CLASSES = {table.classes!r}\n" if table.classes else "",
        code=table.dtype.newbyteorder("<").str,
    )


def _statement(step: Step, k: int) -> str:
    """The line of Python that computes value k."""
    key, inputs = _name(step), [f"h{i}" for i in step.inputs]
    several = {"sum": " + ".join(inputs), "list": ", ".join(inputs)}
    own = {"number": step.number, "rows": list(step.rows), "width": step.width}
    formula = FORMULAS[step.kind].format(h=inputs[0], key=key, **own, **several)
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
