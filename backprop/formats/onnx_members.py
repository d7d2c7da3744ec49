"""The nodes of ONNX for columns and members."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from backprop.formats.plan import Step


class Nodes(list[Any]):
    """Nodes whose outputs have names that start with `name`; the last one is to be called so."""

    def __init__(self, name: str) -> None:
        self.name = name

    def add(self, operation: str, *inputs: str, last: bool = False, **settings: Any) -> str:
        """Append a node; return the name of its output."""
        from onnx.helper import make_node

        output = self.name if last else f"{self.name}.{len(self)}"
        self.append(make_node(operation, list(inputs), [output], **settings))
        return output

    def ints(self, *values: int) -> str:
        """Whole numbers."""
        return self.add("Constant", value_ints=values)

    def number(self, value: float) -> str:
        """A number."""
        return self.add("Constant", value_float=value)

    def log_sum(self, x: str) -> str:
        """The logarithm of the sum of exponentials along the last axis of x (N, K, k); no exponent is > 0."""
        axis = self.ints(2)
        top = self.add("ReduceMax", x, axis, keepdims=1)
        total = self.add("ReduceSum", self.add("Exp", self.add("Sub", x, top)), axis, keepdims=1)
        return self.add("Squeeze", self.add("Add", top, self.add("Log", total)), axis)


def _select(step: Step, h: str, name: str, own: dict[str, str]) -> Nodes:
    nodes = Nodes(name)
    nodes.add("Gather", h, nodes.ints(*step.rows), axis=1, last=True)
    return nodes


def _cut(step: Step, h: str, name: str, own: dict[str, str]) -> Nodes:
    nodes = Nodes(name)
    nodes.add("Clip", h, nodes.number(0.0), nodes.number(1.0), last=True)
    return nodes


def _codes(step: Step, h: str, name: str, own: dict[str, str]) -> Nodes:
    nodes = Nodes(name)
    code = nodes.add("Round", h)
    off = nodes.add("Abs", nodes.add("Sub", h, code))
    zero, top = nodes.number(0.0), nodes.number(float(step.width))
    inside = nodes.add("And", nodes.add("Greater", code, zero), nodes.add("Less", code, top))
    known = nodes.add("And", inside, nodes.add("Less", off, nodes.number(0.25)))
    each = nodes.add("Constant", value_floats=[float(c) for c in range(step.width)])
    nodes.add("Cast", nodes.add("Equal", nodes.add("Where", known, code, zero), each), to=1, last=True)
    return nodes


def _members_linear(step: Step, h: str, name: str, own: dict[str, str]) -> Nodes:
    nodes, inputs = Nodes(name), step.arrays["omega"].shape[1]
    apart = nodes.add("Reshape", h, nodes.ints(0, inputs, -1))
    z = nodes.add("Transpose", nodes.add("Mul", apart, own["r"]), perm=[0, 2, 1])  # (N, k, D_in)
    g = nodes.add("MatMul", z, nodes.add("Transpose", own["omega"], perm=[1, 0]))
    g = nodes.add("Transpose", g, perm=[0, 2, 1])
    f = nodes.add("Add", nodes.add("Mul", g, own["s"]), own["beta"])
    nodes.add("Reshape", f, nodes.ints(0, step.width), last=True)
    return nodes


def _mean_of_softmax(step: Step, h: str, name: str, own: dict[str, str]) -> Nodes:
    nodes = Nodes(name)
    apart = nodes.add("Reshape", h, nodes.ints(0, step.width, int(step.number)))
    total = nodes.log_sum(nodes.add("LogSoftmax", apart, axis=1))
    nodes.add("Sub", total, nodes.number(math.log(step.number)), last=True)
    return nodes


def _mean_of_sigmoid(step: Step, h: str, name: str, own: dict[str, str]) -> Nodes:
    nodes = Nodes(name)
    apart = nodes.add("Reshape", h, nodes.ints(0, step.width, int(step.number)))
    no = nodes.log_sum(nodes.add("Neg", nodes.add("Softplus", apart)))
    yes = nodes.log_sum(nodes.add("Neg", nodes.add("Softplus", nodes.add("Neg", apart))))
    nodes.add("Sub", yes, no, last=True)
    return nodes


SEVERAL: dict[str, Callable[[Step, str, str, dict[str, str]], Nodes]] = {
    "Select": _select,
    "Cut": _cut,
    "Codes": _codes,
    "MembersLinear": _members_linear,
    "MeanOfSoftmax": _mean_of_softmax,
    "MeanOfSigmoid": _mean_of_sigmoid,
}
