"""A network as an ONNX model of plain nodes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.files.atomic import write_atomically
from backprop.formats.lowering import PIECES
from backprop.formats.onnx_members import SEVERAL
from backprop.formats.onnx_table import FLOAT, STRING, Graph, TableGraph
from backprop.formats.plan import Plan, Step, extra
from backprop.formats.verify import ExportReport, compare

# Opset 20 is the first with Gelu; intermediate representation 9 is what came with it. Both are read by onnxruntime ≥ 1.17.
OPSET, REPRESENTATION = 20, 9

# Steps that are one node; its attribute for the step's number, if it has one.
NODES: dict[str, tuple[str, str | None]] = {
    **{name: (name, None) for name in ("Identity", "Softplus", "Sigmoid", "Tanh", "Sin", "Cos", "Exp")},
    **{"ReLU": ("Relu", None), "LeakyReLU": ("LeakyRelu", "alpha"), "ELU": ("Elu", "alpha"), "Add": ("Sum", None)},
}

# Below these SiLU and GELU are 0 in float32. Of −∞ runtimes would make −∞ · 0, which is no number.
LEAST = {"SiLU": -200.0, "GELU": -20.0}


def to_onnx(net: Any, path: str | os.PathLike[str], *, table: Any = None, X: Any = None) -> ExportReport:
    """Write the network as an ONNX model: a Gemm node per `Linear`, a node per activation, in float32.

    Its input "X" has one example per row, (N, D), its output "f" is (N, K), for any N. float32 because runtimes compute ELU,
    LeakyReLU, GELU and Softplus in nothing else. Before anything is written, the model is checked by `onnx.checker`, run by
    onnxruntime (by onnx itself where that is not installed), and compared with `net.predict` on generated rows and those of `X`.

    With the `table` that makes the network's inputs, the graph does that too: "X" are the columns of numbers as they are (N, n),
    in float64, true and false as 1 and 0; "words" those of text (N, w), if there are any; "f" numbers in units of the target
    (float64), or the scores of classes. A missing value is NaN, or an empty word. Where a value cannot be used, the row's f is
    NaN. `metadata_props` name the columns and classes; X is a frame. A fitted estimator in the place of the network brings its
    own scaling and table.

    Raises ImportError without the extra `onnx`, else the errors of `to_numpy`.

    >>> import tempfile, pathlib, backprop as bp
    >>> net = bp.Sequential(bp.Linear(4, 8), bp.Tanh(), bp.Linear(8, 2), seed=0)
    >>> report = bp.to_onnx(net, pathlib.Path(tempfile.mkdtemp(), "model.onnx"))
    >>> report.rows, report.largest_difference < 1e-6
    (100, True)
    """
    onnx = extra("to_onnx", "onnx")
    plan = Plan("to_onnx", net, X, "float32", table)
    model = _model(plan)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    run, run_by = _runtime(model, data)
    report = compare(plan, run, path, run_by)
    write_atomically(path, data)
    return report


def _model(plan: Plan) -> Any:
    from onnx import helper, numpy_helper

    graph = Graph(plan) if plan.preparation is None else TableGraph(plan, plan.preparation)
    names = [graph.begin, *(f"h{k}" for k in range(1, len(plan.steps))), graph.end]
    nodes, tensors = list[Any](), list[Any]()
    exact = {graph.begin} if graph.is_exact else set[str]()  # values in float64: pieces of numbers, until they are cut
    for step, name in zip(plan.steps, names[1:], strict=True):
        given, dtype = [names[k] for k in step.inputs], plan.dtype
        if not exact.isdisjoint(given) and (step.kind == "Select" or step.text == PIECES):
            exact.add(name)
            dtype = np.dtype("float64")
        for h in exact.intersection(given) if name not in exact else ():
            single = f"{h}.for.{name}"
            nodes.append(helper.make_node("Cast", [h], [single], to=FLOAT))
            given = [single if each == h else each for each in given]
        nodes += _nodes(step, given, name)
        arrays = {f"{step.key}.{own}": array.astype(dtype) for own, array in step.arrays.items()}
        tensors += [numpy_helper.from_array(array, key) for key, array in arrays.items()]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, kind, ["N", width]) for name, kind, width in several]
        for several in (graph.inputs, graph.outputs)
    )
    tensors += [numpy_helper.from_array(array, name) for name, array in graph.arrays.items()]
    made = helper.make_graph([*graph.before, *nodes, *graph.behind], "network", inputs, outputs, tensors)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(made, opset_imports=[opset], ir_version=REPRESENTATION, producer_name="backprop-mlp")
    helper.set_model_props(model, graph.properties)
    return model


def _nodes(step: Step, inputs: list[str], name: str) -> list[Any]:
    """The nodes of one step; all but the last have names that start with `name`."""
    from onnx.helper import make_node as node

    own = {array: f"{step.key}.{array}" for array in step.arrays}
    if step.kind == "Linear":
        return [node("Gemm", [*inputs, own["omega"], *([own["beta"]] if "beta" in own else [])], [name], transB=1)]
    if step.kind == "Concatenate":
        return [node("Concat", inputs, [name], axis=1)]
    if step.kind in LEAST:
        h = f"{name}.limited"
        least = node("Constant", [], [f"{name}.least"], value_float=LEAST[step.kind])
        limit = [least, node("Max", [*inputs, f"{name}.least"], [h])]
        if step.kind == "GELU":
            return [*limit, node("Gelu", [h], [name])]
        return [*limit, node("Sigmoid", [h], [f"{name}.sigmoid"]), node("Mul", [h, f"{name}.sigmoid"], [name])]
    if step.kind == "LayerNorm":
        # Centered beforehand: onnxruntime before 1.28 loses digits of large numbers that hardly differ.
        axis, mean, z = (f"{name}.{own_name}" for own_name in ("axis", "mean", "centered"))
        return [
            node("Constant", [], [axis], value_ints=[-1]),
            node("ReduceMean", [*inputs, axis], [mean], keepdims=1),
            node("Sub", [*inputs, mean], [z]),
            node("LayerNormalization", [z, own["gamma"], own["beta"]], [name], axis=-1, epsilon=step.number),
        ]
    if step.kind == "BatchNorm":
        return [
            node("Sub", [*inputs, own["mean"]], [f"{name}.centered"]),
            node("Mul", [f"{name}.centered", own["scale"]], [f"{name}.scaled"]),
            node("Add", [f"{name}.scaled", own["beta"]], [name]),
        ]
    if step.kind in SEVERAL:
        return SEVERAL[step.kind](step, inputs[0], name, own)
    operation, attribute = NODES[step.kind]
    settings: dict[str, Any] = {attribute: step.number} if attribute else {}
    return [node(operation, inputs, [name], **settings)]


def _runtime(model: Any, data: bytes) -> tuple[Callable[[Array], Array], str]:
    """What runs the model: onnxruntime, or the reference implementation of onnx."""
    try:
        import onnxruntime
    except ImportError:
        import onnx.reference

        run: Any = onnx.reference.ReferenceEvaluator(model).run
        run_by = f"onnx {onnx.__version__}"
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # its threads would spin in everybody's way
        options.log_severity_level = 3
        run = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run
        run_by = f"onnxruntime {onnxruntime.__version__}"
    given = [(each.name, each.type.tensor_type.elem_type) for each in model.graph.input]

    def answer(*arrays: Array) -> Array:
        # Of a table that has only words the numbers are an empty array.
        values = {"X": arrays[0], "words": arrays[-1]}
        return np.asarray(run(["f"], {name: _as(kind, values[name]) for name, kind in given})[0])

    return answer, run_by


def _as(kind: int, values: Array) -> Array:
    """An array as an input of this kind takes it; a missing word is empty."""
    if kind == STRING:
        return np.where(values == None, "", values)  # noqa: E711 (entry by entry)
    return values.astype(np.float32 if kind == FLOAT else np.float64)
