"""What `fit` and `resume` have in common: a plan, the data made ready, training with progress, the model saved."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli.data import Reading, as_categories
from backprop.cli.group import INTERRUPTED, answer, tell
from backprop.cli.models import measures, task

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.losses import Loss
    from backprop.sequential import Sequential
    from backprop.tables import Table
    from backprop.training import Callback, History, Trainer

    Parts = dict[str, tuple[Array, Array]]  # X and y of the rows for "training", and for "validation" if there are any

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
OPTIMIZERS = {name.lower(): name for name in ("Adam", "AdamW", "SGD", "RMSProp", "Adagrad")}
RATES = {"adam": 0.003, "adamw": 0.003, "sgd": 0.03, "rmsprop": 0.001, "adagrad": 0.03}  # for standardized data
FEW = 20  # whole numbers in a target that may well be classes


@dataclass(frozen=True, kw_only=True)
class Plan(Reading):
    """Everything that decides what is learnt from a file, and how that is read, as plain data."""

    target: str
    task: str
    hidden: Sequence[int]
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


def prepare(plan: Plan, data: Path) -> tuple[Table, Parts]:
    """Read the data, fit a table to them and hold some rows out. The same plan and data give the same parts."""
    from backprop.datasets import split

    frame = plan.frame(data)
    if plan.task == "classification":
        frame = as_categories(frame, codes=[plan.target])
    table = bp.Table(plan.target, missing=plan.missing, unknown=plan.unknown, scale_target=True)
    X, y = table.fit(frame)
    if plan.task == "regression" and table.classes is not None:
        raise ValueError(f"--task regression needs numbers in column {plan.target!r}, which holds classes.")
    _describe(plan, table, frame, data, X)
    X_train, X_held, y_train, y_held = split(X, y, held_out=plan.validation, seed=plan.seed)
    if plan.validation and not len(X_held):
        tell(f"{len(X)} rows are too few to hold some out: nothing is validated.")
    return table, {"training": (X_train, y_train)} | ({"validation": (X_held, y_held)} if len(X_held) else {})


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


def chain(widths: list[int], activation: str, seed: int) -> Sequential:
    """A network of these widths, with an activation between each two layers."""
    layers: list[bp.Layer] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [bp.Linear(fan_in, fan_out), getattr(bp, activation)()]
    return bp.Sequential(*layers[:-1], seed=seed)


def trainer_of(plan: Plan, table: Table) -> Trainer:
    """A trainer of a network as wide as the data and the plan say, with the learning rate that suits the optimizer."""
    outputs = 1 if table.classes is None else len(table.classes)
    net = chain([len(table.feature_names), *plan.hidden, outputs], ACTIVATIONS[plan.activation], plan.seed)
    rate = plan.learning_rate or RATES[plan.optimizer]
    momentum = {"momentum": 0.9} if plan.optimizer == "sgd" else {}
    optimizer = getattr(bp, OPTIMIZERS[plan.optimizer])(rate, weight_decay=plan.weight_decay, **momentum)
    return bp.Trainer(net, loss_of(plan, table), optimizer, batch_size=plan.batch_size, seed=plan.seed)


def loss_of(plan: Plan, table: Table) -> Loss:
    """The loss of the plan, else that of the task. Raises click.UsageError for one that does not suit the target."""
    of_task = task(table)
    name = plan.loss or ("least-squares" if of_task == "regression" else "cross-entropy")
    class_name, suits = LOSSES[name]
    if suits != of_task:
        raise click.UsageError(f"--loss {name} is for {suits}, and the target {plan.target!r} makes it {of_task}.")
    return getattr(bp, class_name)()


def train(trainer: Trainer, parts: Parts, epochs: int, patience: int, callbacks: list[Callback]) -> History:
    """Train with a progress bar where somebody looks at it; with validation data, stop early and keep the best weights."""
    held_out = parts.get("validation")
    if held_out and patience:
        callbacks = [*callbacks, bp.EarlyStopping(patience=patience)]
    verbose = int(sys.stderr.isatty())
    return trainer.fit(
        *parts["training"], epochs=epochs, validation_data=held_out, callbacks=callbacks, verbose=verbose
    )


def finish(trainer: Trainer, table: Table, parts: Parts, history: History, out: Path, as_json: bool) -> int | None:
    """Save the model and tell what it is worth; the exit code of Ctrl-C where it ended training."""
    net = trainer.net
    net.save(out, table=table)
    interrupted = history.stopped == "Ctrl-C"
    if interrupted:
        tell(f"Stopped by Ctrl-C after {trainer.epochs_done} whole epochs.")
    elif history.stopped:
        tell(f"Stopped after epoch {history[-1].epoch}: the validation loss no longer improved. Best weights kept.")
    tell(f"Model saved to {out}.")
    worth = {name: measures(table, net.predict(X), y) for name, (X, y) in parts.items()}
    rows = {name: len(X) for name, (X, _) in parts.items()}
    result = {"model": str(out), "task": task(table), "features": len(table.feature_names), "rows": rows}
    result |= {"epochs": trainer.epochs_done, "stopped": history.stopped, **worth}
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
