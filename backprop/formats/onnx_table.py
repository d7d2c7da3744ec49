"""What is around the nodes of a network in an ONNX model: inputs and outputs, and the nodes of its table."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.formats.plan import Plan
from backprop.formats.preparation import Column, Preparation

FLOAT, STRING, BOOL, DOUBLE = 1, 8, 9, 11  # kinds of tensors, by onnx.TensorProto


class Graph:
    """What is around the nodes of a network: here only its input and output. Each is (name, kind, width)."""

    begin, end = "X", "f"
    is_exact = False  # whether the inputs of the network are in float64

    def __init__(self, plan: Plan) -> None:
        self.inputs, self.outputs = [("X", FLOAT, plan.inputs)], [("f", FLOAT, plan.outputs)]
        self.before, self.behind = list[Any](), list[Any]()
        self.arrays: dict[str, Array] = {}
        self.properties: dict[str, str] = {}


class TableGraph(Graph):
    """What makes inputs of columns as they are, and units of outputs; all nodes and arrays have names that begin with "table.".

    Features are first made kind by kind, all numbers at once and then each column of categories, and then put in their order.
    """

    begin, end = "table.inputs", "table.outputs"

    def __init__(self, plan: Plan, table: Preparation) -> None:
        super().__init__(plan)
        self.table, n, w = table, len(table.numbers), len(table.words)
        self.inputs = [(name, kind, k) for name, kind, k in (("X", DOUBLE, n), ("words", STRING, w)) if k]
        self.outputs = [("f", DOUBLE if table.scales else FLOAT, plan.outputs)]
        # Pieces may be narrower than the distance of two numbers in float32: a network in float64 cuts them in that.
        self.is_exact = plan.net.phi.dtype == np.float64 and bool(plan.knots())
        self.kind = DOUBLE if self.is_exact else FLOAT
        self.unusable: list[str] = []  # (N, 1), true where a row has no prediction
        self.arrays["table.last"] = np.array([-1])
        self._features()
        self._answers()
        columns = {"numbers": table.numbers, "words": table.words}
        self.properties = {kind: json.dumps([c.name for c in own], ensure_ascii=False) for kind, own in columns.items()}
        if table.classes:
            self.properties["classes"] = json.dumps(table.classes, ensure_ascii=False)
        if table.target:
            self.properties["target"] = table.target

    def _add(self, operation: str, inputs: list[str], output: str, behind: bool = False, **settings: Any) -> str:
        from onnx.helper import make_node

        name = f"table.{output}" if output != "f" else output
        (self.behind if behind else self.before).append(make_node(operation, inputs, [name], **settings))
        return name

    def _array(self, name: str, values: Any, dtype: Any = None) -> str:
        self.arrays[f"table.{name}"] = np.array(values, dtype)
        return f"table.{name}"

    def _any(self, flags: str, output: str) -> str:
        """Whether any of the flags (N, K) of a row is true (N, 1)."""
        counted = self._add("Cast", [flags], f"{output}.counted", to=FLOAT)
        most = self._add("ReduceMax", [counted, "table.last"], f"{output}.most", keepdims=1)
        return self._add("Cast", [most], output, to=BOOL)

    def _features(self) -> None:
        table, parts, places, at = self.table, list[str](), dict[str, list[int]](), 0
        scaled = [column for column in table.numbers if not column.categories]
        if scaled:
            parts.append(self._scaled(scaled))
            places, at = {column.name: [j] for j, column in enumerate(scaled)}, len(scaled)
        if told := [column for column in scaled if column.indicator]:
            parts.append(self._missing(told))
            for column in told:
                places[column.name].append(at)
                at += 1
        for j, column in enumerate(table.columns):
            if column.categories:
                parts.append(self._one_of(f"column{j}", column))
                places[column.name] = list(range(at, at + column.width))
                at += column.width
        order = [place for column in table.columns for place in places[column.name]]
        joined = self._add("Concat", parts, "joined", axis=1)
        self._add("Gather", [joined, self._array("order", order)], "inputs", axis=1)

    def _missing(self, columns: list[Column]) -> str:
        """1 where a number is missing, else 0."""
        places = self._array("indicated.places", [self.table.numbers.index(column) for column in columns])
        missing = self._add(
            "IsNaN", [self._add("Gather", ["X", places], "indicated.given", axis=1)], "indicated.missing"
        )
        return self._add("Cast", [missing], "indicated", to=self.kind)

    def _scaled(self, columns: list[Column]) -> str:
        """(x − shift) · factor in float64, and then as the network takes it."""
        places = [self.table.numbers.index(column) for column in columns]
        x = self._add("Gather", ["X", self._array("scaled.places", places)], "scaled.given", axis=1)
        fills = any(column.fill is not None for column in columns)
        if fills:
            missing = self._add("IsNaN", [x], "scaled.missing")
            x = self._add("Where", [missing, self._array("fill", [[c.fill for c in columns]]), x], "scaled.filled")
        zero = self._add("Sub", [x, x], "scaled.zero")  # of NaN and inf it is NaN
        self.unusable.append(self._any(self._add("IsNaN", [zero], "scaled.not_finite"), "scaled.unusable"))
        shifted = self._add("Sub", [x, self._array("shift", [[c.shift for c in columns]])], "scaled.shifted")
        scaled = self._add("Mul", [shifted, self._array("factor", [[c.factor for c in columns]])], "scaled.doubles")
        return self._add("Cast", [scaled], "scaled", to=self.kind)

    def _one_of(self, name: str, column: Column) -> str:
        """1 at the place of the value, 0 elsewhere."""
        own = self.table.words if column.is_word else self.table.numbers
        place, source = self._array(f"{name}.place", [own.index(column)]), "words" if column.is_word else "X"
        x = self._add("Gather", [source, place], f"{name}.given", axis=1)
        known = self._array(f"{name}.known", [column.categories], object if column.is_word else float)
        flags = self._add("Equal", [x, known], f"{name}.found")
        if column.is_word and "" not in column.categories:
            missing = self._add("Equal", [x, self._array(f"{name}.empty", [[""]], object)], f"{name}.missing")
        elif column.is_word:
            missing = ""
        else:
            missing = self._add("IsNaN", [x], f"{name}.missing")
        if missing and column.fill is not None and not column.indicator:
            fill = self._array(f"{name}.fill", [[category == column.fill for category in column.categories]])
            flags = self._add("Or", [flags, self._add("And", [missing, fill], f"{name}.filled")], f"{name}.flags")
        elif missing and column.fill is None and (self.table.ignores or column.other):
            self.unusable.append(missing)
        return self._add("Cast", [self._beside(name, column, flags, missing)], name, to=self.kind)

    def _beside(self, name: str, column: Column, flags: str, missing: str) -> str:
        """The flags of the categories, and behind them those of others and of missing ones; rows without any are unusable."""
        if column.indicator and not missing:  # "" is one of the categories, and nothing is missing
            some = self._any(flags, f"{name}.some")
            missing = self._add("Xor", [some, some], f"{name}.never")
        if column.other:
            listed = self._any(flags, f"{name}.listed")
            listed = self._add("Or", [listed, missing], f"{name}.listed_or_missing") if missing else listed
            other = [self._add("Not", [listed], f"{name}.other")]
        else:
            other = []
        told = [flags, *other, *([missing] if column.indicator else [])]
        flags = self._add("Concat", told, f"{name}.told", axis=1) if len(told) > 1 else flags
        if not (self.table.ignores or column.other):
            self.unusable.append(self._add("Not", [self._any(flags, f"{name}.known_one")], f"{name}.unusable"))
        return flags

    def _answers(self) -> None:
        """Outputs in units of the target; NaN where a row cannot be used."""
        y, table = self.end, self.table
        if table.scales:
            y = self._add("Cast", [y], "doubles", behind=True, to=DOUBLE)
            y = self._add("Mul", [y, self._array("sigma", table.sigma)], "scaled_back", behind=True)
            y = self._add("Add", [y, self._array("mean", table.mean)], "units", behind=True)
        nothing = self._array("nan", np.nan, np.float64 if table.scales else np.float32)
        for k, unusable in enumerate(self.unusable):
            last = k == len(self.unusable) - 1
            y = self._add("Where", [unusable, nothing, y], "f" if last else f"usable{k}", behind=True)
        if not self.unusable:
            self._add("Identity", [y], "f", behind=True)
