"""What `fit` and `resume` have in common: a plan, the data made ready, training with progress, the model saved."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli.data import Reading, as_categories
from backprop.cli.dates import decoded
from backprop.cli.group import INTERRUPTED, answer, option, refusal, tell
from backprop.cli.holdout import HoldOut, advice
from backprop.cli.kind import PLAIN, TABULAR
from backprop.cli.look import MOST_STORED, Line, features, look_at, outside, shortly
from backprop.cli.models import (
    SEEN,
    by_part,
    measures,
    require_column,
    seen_before,
    task,
    tell_one_answer,
    tell_unknown,
)
from backprop.cli.reading import Known, Read, naming, read, source

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
    group: str | None = None
    time: str | None = None
    model: str = PLAIN  # the only one of 0.1
    members: int = 8
    max_time: float | None = None

    @classmethod
    def from_notes(cls, stored: Any, path: Path, expected: str) -> Plan:
        """The plan that a file holds. Raises ValueError for anything else."""
        try:
            return cls(**stored)
        except TypeError as error:
            raise refusal(path, expected, f"another one ({error})") from None

    def table(self) -> Table:
        """The table that learns what the columns are."""
        settings: dict[str, Any] = {"missing": self.missing, "unknown": self.unknown}
        return bp.Table(self.target, scale_target=True, most_categories=self.most_categories, **settings)

    @property
    def most_categories(self) -> int | None:
        """How many categories of a column the network keeps: all, or the most frequent ones."""
        if self.model != TABULAR:
            return None
        from backprop.estimators.tabular import BaseTabular

        return BaseTabular.most_categories

    def hold_out(self, frame: Any) -> HoldOut:
        """Which rows of a frame are held out."""
        return HoldOut(frame, self.validation, self.seed, self.group, self.time, days=self.time in self.dates)

    def held_out(self) -> dict[str, Any]:
        """What says which rows are held out."""
        for name, column in (("group", self.group), ("time", self.time)):
            if column is not None:
                return {"by": name, "column": column}
        return {"by": "chance"}

    def wanted(self) -> Known:
        """The target, and what says what is held out, are wanted whatever they look like."""
        beside = [name for name in (self.group, self.time) if name is not None]
        return Known([self.target, *beside], aside=beside)

    def rows(self, frame: Any, places: Array) -> Any:
        """Some rows of a frame; categories of which only its options say that they are such are those of these rows."""
        frame = frame.take(places)
        for j, name in enumerate(frame.column_names):
            if name in (self.target, *self.categories) and frame[name].type != decoded(frame[name]).type:
                frame = frame.set_column(j, name, decoded(frame[name]).dictionary_encode())
        return frame

    def features(self, frame: Any) -> Any:
        """The frame without the columns that only say what is held out."""
        return frame.drop_columns([name for name in (self.group, self.time) if name in frame.column_names])


def advise(plan: Plan, frame: Any, data: Path) -> None:
    """Tell of columns by which rows belong together, the dropped ones too, where rows are to be held out by chance.

    Raises ValueError for columns that the plan names and that are not there.
    """
    for name, column in (("--target", plan.target), ("--group", plan.group), ("--time", plan.time)):
        if column is not None:
            require_column(name, column, frame)
    if not plan.validation or plan.group is not None or plan.time is not None:
        return
    if plan.drop and str(data) != "-":
        with suppress(TypeError, ValueError):  # a column may have been dropped because it cannot be read
            whole = replace(plan, drop=())
            frame = read(data, whole, whole.wanted(), new=whole).frame
    full = [name for name in frame.column_names if not frame[name].null_count]  # a row is held out by a value
    for line in advice(frame.select(full), plan.target):
        tell(line)


def prepare(plan: Plan, found: Read, data: Path, known: Table | None = None) -> tuple[Table, Parts]:
    """Fit a table to what was read, or take the one known, and hold some rows out. The same plan and rows give the same parts.

    The table of the plain network is of all rows; that of the tabular one, and what it keeps of the columns, of those trained on.
    """
    import numpy as np

    rows = plan.hold_out(found.frame)
    if plan.model == TABULAR:
        _leave_out_the_unseen(plan, found, rows)
    frame = plan.features(found.frame)
    if known is not None:
        table = bp.Table.from_state(known.state() | {"unknown": plan.unknown})
        tell_unknown(table, frame)
        with naming(data):
            X, y = table.transform(frame), table.targets(frame)
        tell(f"Read {len(X):,} rows from {source(data)}, with the {len(table.columns)} columns of the model.")
    else:
        if plan.task == "classification":
            frame = as_categories(frame, codes=[plan.target])
        table = plan.table()
        with naming(data):
            X, y = table.fit(frame)
    if plan.task == "regression" and table.classes is not None:
        raise ValueError(f"--task regression needs numbers in column {plan.target!r}, which holds classes.")
    if known is None:
        by_chance = bool(plan.validation) and plan.group is None and plan.time is None
        looking = partial(look_at, target=plan.target, task=plan.task, most=plan.most_categories, by_chance=by_chance)
        lines = own = [*looking(replace(found, frame=frame))]
        if plan.model == TABULAR and len(rows.held):
            trained_on = plan.rows(frame, np.sort(rows.training))
            own = [*looking(replace(found, frame=trained_on))]
            table = _learnt(plan, trained_on, data)
        table.notes = {"reading": found.reading.choices(), **_kept(own, table)}
        _require_storable(table)
        _describe(plan, table, frame, data, found.left_out, lines)
    if rows.words:
        tell(rows.words)
    if plan.validation and not len(rows.held):
        tell(f"{len(X)} rows are too few to hold some out: nothing is validated.")
    held = {"validation": (X[rows.held], y[rows.held])} if len(rows.held) else {}
    return table, {"training": (X[rows.training], y[rows.training]), **held}


def _leave_out_the_unseen(plan: Plan, found: Read, rows: HoldOut) -> None:
    """Leave out, here and in later data, the columns that have values, but none in the rows that are trained on.

    Where there are no others all stay, to be refused.
    """
    import pyarrow.compute as pc

    names = [name for name in plan.features(found.frame).column_names if name != plan.target]
    there = {name: pc.invert(pc.is_null(found.frame[name], nan_is_null=True)) for name in names}
    seen = {name for name in names if pc.any(there[name].take(rows.training)).as_py()}
    unseen = [name for name in names if name not in seen and pc.any(there[name]).as_py()]
    if seen:
        found.leave_out(unseen, "it has values in rows held out alone")
        found.reading = replace(found.reading, drop=(*found.reading.drop, *unseen))


def _learnt(plan: Plan, frame: Any, data: Path) -> Table:
    """The table of the rows that are trained on, of a file all of which has been looked at, and warned of."""
    table = plan.table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            table.fit(frame)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{source(data)}, the {len(frame):,} rows that are trained on: {error}") from error
    return table


def _kept(lines: Sequence[Line], table: Table) -> dict[str, Any]:
    """What a model keeps of the columns that it was trained on, unless they are very many."""
    if len(lines) > MOST_STORED:
        return {}
    made = {name: features(len(places)) for name, places in table.places.items()}
    return {"columns": [asdict(line) | {"becomes": made.get(line.column, line.becomes)} for line in lines]}


def _describe(
    plan: Plan, table: Table, frame: Any, data: Path, left_out: dict[str, str], lines: Sequence[Line]
) -> None:
    """Tell what was read, which column became what, what looks wrong, and what the target makes of it."""
    what = "numbers" if table.classes is None else f"{len(table.classes)} classes"
    made = f"{len(table.columns)} columns make {len(table.feature_names)} features"
    tell(f"Read {len(frame):,} rows from {source(data)}: {made}{outside(left_out)}.")
    for line in shortly([line for line in lines if line.column != plan.target], lines):
        tell(line)
    tell(f"The target {plan.target!r} holds {what}: {task(table)}.")
    if table.classes is None and plan.task == "auto":
        values = frame[plan.target].unique().to_pylist()
        if len(values) <= FEW and all(float(value).is_integer() for value in values):
            tell(f"Its {len(values)} different values are whole numbers. If they name classes: --task classification.")


def _require_storable(table: Table) -> None:
    """Refuse more categories than a model file can hold, before the work."""
    with TemporaryDirectory() as folder:
        try:
            chain([1, 1], "Identity", 0).save(Path(folder) / "table.safetensors", table=table)
        except ValueError:
            most = max(table.categories, key=lambda name: len(table.categories[name]), default="")
            expected, got = "as many categories as a model file can hold", f"{len(table.feature_names):,} features"
            advice = f"{option('--drop', most)} leaves out the column that makes the most of them." if most else ""
            raise refusal("the table", expected, got, advice) from None


def chain(widths: list[int], activation: str, seed: int) -> Sequential:
    """A network of these widths, with an activation between each two layers."""
    layers: list[bp.Layer] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [bp.Linear(fan_in, fan_out), getattr(bp, activation)()]
    return bp.Sequential(*layers[:-1], seed=seed)


def network_of(plan: Plan, table: Table) -> Sequential:
    """A network as wide as the data and the plan say."""
    outputs = 1 if table.classes is None else len(table.classes)
    return chain([len(table.feature_names), *plan.hidden, outputs], ACTIVATIONS[plan.activation], plan.seed)


def trainer_of(plan: Plan, net: Sequential, table: Table) -> Trainer:
    """A trainer of a network, with the learning rate that suits the optimizer."""
    rate = plan.learning_rate or RATES[plan.optimizer]
    momentum = {"momentum": 0.9} if plan.optimizer == "sgd" else {}
    optimizer = getattr(bp, OPTIMIZERS[plan.optimizer])(rate, weight_decay=plan.weight_decay, **momentum)
    trainer = bp.Trainer(net, loss_of(plan, table), optimizer, batch_size=plan.batch_size, seed=plan.seed)
    trainer.notes |= {"fit": asdict(plan), "table": table.state()}
    return trainer


def loss_of(plan: Plan, table: Table) -> Loss:
    """The loss of the plan, else that of the task. Raises click.UsageError for one that does not suit the target."""
    of_task = task(table)
    name = plan.loss or ("least-squares" if of_task == "regression" else "cross-entropy")
    class_name, suits = LOSSES[name]
    if suits != of_task:
        raise click.UsageError(f"--loss {name} is for {suits}, and the target {plan.target!r} makes it {of_task}.")
    return getattr(bp, class_name)()


@cache
def early_stopping() -> type[bp.EarlyStopping]:
    """That of the library, but when a training is taken up that it has stopped, it is patient anew. Made on first use."""

    class EarlyStopping(bp.EarlyStopping):
        def go_on(self, state: dict[str, Any]) -> None:
            waited = state.pop("waited")
            super().go_on({**state, "waited": waited if waited < self.patience else 0})

    return EarlyStopping


def train(trainer: Trainer, parts: Parts, epochs: int, patience: int, callbacks: list[Callback]) -> History:
    """Train with a progress bar where somebody looks at it; with validation data, stop early and keep the best weights."""
    held_out = parts.get("validation")
    if held_out and patience:
        callbacks = [*callbacks, early_stopping()(patience=patience)]
    verbose = int(sys.stderr.isatty())
    return trainer.fit(
        *parts["training"], epochs=epochs, validation_data=held_out, callbacks=callbacks, verbose=verbose
    )


def seen(trainer: Trainer) -> dict[str, Any]:
    """What data a model has been trained on, now and before."""
    return {"data": trainer.state().data, "earlier": trainer.notes.get("earlier", [])}


def save(trainer: Trainer, table: Table, out: Path) -> None:
    """Write the model, with what it is to remember."""
    trainer.net.save(out, table=table, notes={"fit": trainer.notes["fit"], **seen(trainer)})


def finish(
    trainer: Trainer, table: Table, parts: Parts, history: History, out: Path, as_json: bool, before: Any = None
) -> int | None:
    """Tell what the saved model is worth, and was `before`; the exit code of Ctrl-C where it ended training."""
    net, plan = trainer.net, trainer.notes["fit"]
    if "validation" in parts and seen_before(seen(trainer)):
        tell(SEEN)
    interrupted = history.stopped == "Ctrl-C"
    if interrupted:
        tell(f"Stopped by Ctrl-C after {trainer.epochs_done} whole epochs.")
    elif history.stopped:
        tell(f"Stopped after epoch {history[-1].epoch}: the validation loss no longer improved. Best weights kept.")
    tell(f"Model saved to {out}.")
    worth = {name: measures(table, net.predict(X), y) for name, (X, y) in parts.items()}
    X, y = parts.get("validation", parts["training"])
    tell_one_answer(table, net.predict(X), y)
    worth |= {"before": before} if before else {}
    rows = {name: len(X) for name, (X, _) in parts.items()}
    result = {"model": str(out), "task": task(table), "features": len(table.feature_names), "rows": rows}
    result |= {"held_out": Plan(**plan).held_out(), "epochs": trainer.epochs_done, "stopped": history.stopped, **worth}
    answer(result, as_json, by_part(worth))
    return INTERRUPTED if interrupted else None
