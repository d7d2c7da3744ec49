"""`backprop fit --model tabular`: the estimators for tables, trained on a file."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

import backprop as bp
from backprop.cli.group import answer, tell
from backprop.cli.models import by_part, default_loss, measures, task
from backprop.cli.training import Plan, advise, prepare

if TYPE_CHECKING:
    from backprop.tables import Table

# What says how a plain network is built and trained, of which this one decides by itself.
PLAIN = (
    "hidden",
    "activation",
    "loss",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "epochs",
    "patience",
)
OF_TRAINING = ("start", "log", "checkpoint")


def require_none_given(given: set[str]) -> None:
    """Refuse options that say how the plain network is trained. Raises click.UsageError."""
    if found := sorted(given & {*PLAIN, *OF_TRAINING}):
        name = "--from" if found[0] == "start" else f"--{found[0].replace('_', '-')}"
        raise click.UsageError(f"{name} is for --model plain: the tabular network decides that by itself, in one go.")


def fit(plan: Plan, data: Path, out: Path, as_json: bool) -> int | None:
    """Train the members on the rows that are not held out, save them as an estimator, and tell what they are worth."""
    from backprop import estimators
    from backprop.training.data import Examples

    found = plan.found(data, None, first=lambda frame: advise(plan, frame, data))
    table, parts = prepare(plan, found, data)
    rows, frame = plan.hold_out(found.frame), plan.features(found.frame)
    kind = estimators.TabularRegressor if table.classes is None else estimators.TabularClassifier
    model = kind(random_state=plan.seed, missing=_missing(plan), unknown=plan.unknown)
    train = _as_trained(frame, plan, table).take(rows.training)
    groups = found.frame[plan.group].take(rows.training).to_pylist() if plan.group is not None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.TrainingAdvice)  # the table has been looked at
        model.fit(train, plan.target, groups=groups)
    net, own = model.as_network()
    frames = {"training": train}
    if "validation" in parts:
        frames["validation"] = _as_trained(frame, plan, table).take(rows.held)
    parts = {name: (own.transform(part), own.targets(part)) for name, part in frames.items()}
    seen = Examples("fit", net, default_loss(own, net.out_features), *parts["training"]).fingerprint()
    made = cast("Table", model.table_)  # of a file there is always one
    made.notes = table.notes | {"fit": asdict(plan), "data": seen}
    model.save(out)
    tell(model.report_)
    tell(f"Model saved to {out}.")
    worth = {name: measures(own, net.predict(X), y) for name, (X, y) in parts.items()}
    counts = {name: len(X) for name, (X, _) in parts.items()}
    result = {"model": str(out), "task": task(own), "features": len(own.feature_names), "rows": counts}
    result |= {"held_out": plan.held_out(), **worth}
    answer(result, as_json, by_part(worth))
    return None


def _missing(plan: Plan) -> str:
    return "indicate" if plan.missing == "impute" else plan.missing


def _as_trained(frame: Any, plan: Plan, table: Table) -> Any:
    """The frame with a target that is of the task of the plan."""
    from backprop.cli.data import as_categories

    return as_categories(frame, codes=[plan.target]) if table.classes is not None else frame
