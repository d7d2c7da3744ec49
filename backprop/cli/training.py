"""What `fit` and `resume` have in common: a plan, the data made ready, training with progress, the model saved."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli.data import Reading
from backprop.cli.group import INTERRUPTED, answer, tell
from backprop.cli.models import measures, task

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.losses import Loss
    from backprop.optimizers import Optimizer
    from backprop.sequential import Sequential
    from backprop.tables import Table
    from backprop.training import Callback, History, Trainer

ACTIVATIONS = {
    name.lower(): name
    for name in ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus", "Sigmoid", "Tanh", "Sin", "Cos", "Identity")
}
LOSSES = {
    "cross-entropy": ("CrossEntropy", "classification"),
    "least-squares": ("LeastSquares", "regression"),
    "huber": ("Huber", "regression"),
    "absolute-error": ("AbsoluteError", "regression"),
}
RATES = {"adam": 0.003, "adamw": 0.003, "sgd": 0.03, "rmsprop": 0.001, "adagrad": 0.03}  # for standardized data
FEW = 20  # whole numbers in a target that may well be classes


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is learnt from a file, as plain data."""

    target: str
    task: str
    hidden: tuple[int, ...]
    activation: str
    loss: str | None
    optimizer: str
    learning_rate: float | None
    weight_decay: float
    batch_size: int
    epochs: int
    validation: float
    patience: int
    seed: int
    missing: str
    unknown: str
    delimiter: str
    no_header: bool
    drop: tuple[str, ...]
    categories: tuple[str, ...]

    def reading(self) -> Reading:
        """How to read the data."""
        return Reading(self.delimiter, self.no_header, self.drop, self.categories)

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Plan:
        """The plan whose `state` this is."""
        settings: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in state.items()}
        return cls(**settings)


@dataclass(frozen=True)
class Problem:
    """The data made ready: a fitted table, the rows to train on and those held out (None where there are none)."""

    table: Table
    training: tuple[Array, Array]
    validation: tuple[Array, Array] | None


def prepare(plan: Plan, data: Path) -> Problem:
    """Read the data, fit the table to them and hold some rows out. The same plan and data give the same problem."""
    from backprop.datasets import split

    frame = plan.reading().frame(data)
    if plan.task == "classification" and plan.target in frame.column_names:
        frame = _as_classes(frame, plan.target)
    table = bp.Table(plan.target, missing=plan.missing, unknown=plan.unknown, scale_target=True)
    X, y = table.fit(frame)
    if plan.task == "regression" and table.classes is not None:
        raise ValueError(f"--task regression needs numbers in column {plan.target!r}, which holds classes.")
    _describe(plan, table, frame, data, X)
    X_train, X_held, y_train, y_held = split(X, y, held_out=plan.validation, seed=plan.seed)
    if plan.validation and not len(X_held):
        tell(f"{len(X)} rows are too few to hold some out: nothing is validated.")
    return Problem(table, (X_train, y_train), (X_held, y_held) if len(X_held) else None)


def _as_classes(frame: Any, target: str) -> Any:
    import pyarrow as pa

    j = frame.column_names.index(target)
    kind = frame.schema.field(j).type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return frame.set_column(j, target, frame[target].dictionary_encode())
    return frame


def _describe(plan: Plan, table: Table, frame: Any, data: Path, X: Array) -> None:
    """Tell what was read and what the target makes of it."""
    what = "numbers" if table.classes is None else f"{len(table.classes)} classes"
    source = "standard input" if str(data) == "-" else data
    tell(f"Read {len(X):,} rows from {source}: {len(table.columns)} columns make {X.shape[1]} features.")
    tell(f"The target {plan.target!r} holds {what}: {task(table)}.")
    if table.classes is None and plan.task == "auto":
        values = frame[plan.target].unique().to_pylist()
        if len(values) <= FEW and all(float(value).is_integer() for value in values):
            tell(f"Its {len(values)} different values are whole numbers. If they name classes: --task classification.")


def network(plan: Plan, problem: Problem) -> Sequential:
    """As wide as the data and the plan say."""
    classes = problem.table.classes
    widths = [problem.training[0].shape[1], *plan.hidden, 1 if classes is None else len(classes)]
    return chain(widths, ACTIVATIONS[plan.activation], plan.seed)


def chain(widths: list[int], activation: str, seed: int) -> Sequential:
    """A network of these widths, with an activation between each two layers."""
    layers: list[bp.Layer] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [bp.Linear(fan_in, fan_out), getattr(bp, activation)()]
    return bp.Sequential(*layers[:-1], seed=seed)


def loss_of(plan: Plan, table: Table) -> Loss:
    """The loss of the plan, else that of the task. Raises click.UsageError for one that does not suit the target."""
    of_task = task(table)
    name = plan.loss or ("least-squares" if of_task == "regression" else "cross-entropy")
    class_name, suits = LOSSES[name]
    if suits != of_task:
        raise click.UsageError(f"--loss {name} is for {suits}, and the target {plan.target!r} makes it {of_task}.")
    return getattr(bp, class_name)()


def optimizer_of(plan: Plan) -> Optimizer:
    """The optimizer of the plan, with the learning rate that suits it where none is given."""
    rate = plan.learning_rate or RATES[plan.optimizer]
    if plan.optimizer == "sgd":
        return bp.SGD(rate, momentum=0.9, weight_decay=plan.weight_decay)
    rules = {"adam": bp.Adam, "adamw": bp.AdamW, "rmsprop": bp.RMSProp, "adagrad": bp.Adagrad}
    return rules[plan.optimizer](rate, weight_decay=plan.weight_decay)


def train(trainer: Trainer, problem: Problem, epochs: int, patience: int, callbacks: list[Callback]) -> History:
    """Train with a progress bar where somebody looks at it; with validation data, stop early and keep the best weights."""
    if problem.validation is not None and patience:
        callbacks = [*callbacks, bp.EarlyStopping(patience=patience)]
    return trainer.fit(
        *problem.training,
        epochs=epochs,
        validation_data=problem.validation,
        callbacks=callbacks,
        verbose=int(sys.stderr.isatty()),
    )


def finish(trainer: Trainer, problem: Problem, history: History, out: Path, as_json: bool) -> int | None:
    """Save the model and tell what it is worth; the exit code of Ctrl-C where it ended training."""
    net = trainer.net
    net.save(out, table=problem.table)
    interrupted = history.stopped == "Ctrl-C"
    if interrupted:
        tell(f"Stopped by Ctrl-C after {trainer.epochs_done} whole epochs.")
    elif history.stopped:
        tell(f"Stopped after epoch {history[-1].epoch}: the validation loss no longer improved. Best weights kept.")
    tell(f"Model saved to {out}.")
    parts = {"training": problem.training, "validation": problem.validation}
    worth = {
        name: measures(problem.table, net.predict(part[0]), part[1]) for name, part in parts.items() if part is not None
    }
    result = {
        "model": str(out),
        "task": task(problem.table),
        "features": len(problem.table.feature_names),
        "rows": {name: len(part[0]) for name, part in parts.items() if part is not None},
        "epochs": trainer.epochs_done,
        "stopped": history.stopped,
        **worth,
    }
    answer(result, as_json, _table(worth))
    return INTERRUPTED if interrupted else None


def _table(worth: dict[str, dict[str, float]]) -> str:
    """A column for each part of the data, a line for each measure."""
    names = list(dict.fromkeys(name for numbers in worth.values() for name in numbers))
    width = max(map(len, names)) + 2
    lines = ["".join([" " * width, *(f"{part:>12}" for part in worth)])]
    for name in names:
        cells = (f"{numbers[name]:>12.4g}" if name in numbers else f"{'-':>12}" for numbers in worth.values())
        lines.append("".join([name.replace("_", " ").ljust(width), *cells]))
    return "\n".join(lines)
