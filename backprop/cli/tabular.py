"""`backprop fit` without an option of the plain network: the estimators for tables, trained on a file."""

from __future__ import annotations

import shlex
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backprop as bp
from backprop.cli.group import INTERRUPTED, answer, refusal, tell
from backprop.cli.models import (
    answerable,
    by_part,
    fingerprint,
    measures,
    task,
    tell_one_answer,
    tell_unmeasured,
)
from backprop.cli.training import Plan, advise, prepare

if TYPE_CHECKING:
    from backprop.cli.holdout import HoldOut
    from backprop.tables import Table

CTRL_C = "Ctrl-C"


def fit(plan: Plan, data: Path, out: Path, checkpoint: Path | None, as_json: bool) -> int | None:
    """Train the members on the rows that are not held out, save them as an estimator, and tell what they are worth.

    Returns the exit code of Ctrl-C where it ended training.
    """
    _require_sklearn()
    from backprop.estimators.ended import Ended

    if checkpoint is not None:
        Ended(checkpoint, {"fit": asdict(plan)}).write()
    return _fit(plan, data, out, checkpoint, as_json)


def resume(checkpoint: Path, data: Path, out: Path, as_json: bool) -> int | None:
    """Go on with the members that are not in the checkpoint. Raises ValueError for one of other data."""
    _require_sklearn()
    from backprop.estimators.ended import VERSION, OtherTraining, read

    known = read(checkpoint)
    if "fit" not in known.notes:
        raise refusal(checkpoint, "a checkpoint of backprop fit", "one that a program of your own has saved")
    plan = Plan.from_notes(known.notes["fit"], checkpoint, "a checkpoint of backprop fit")
    tell(f"Going on. Members that have ended: {len(known.members)}.")
    try:
        return _fit(replace(plan, max_time=None), data, out, checkpoint, as_json)
    except OtherTraining as error:
        if error.name == VERSION:
            advice = "Fit anew, or install that version."
            raise refusal(checkpoint, f"one of version {error.got}", f"one of {error.expected}", advice) from None
        advice = "For new rows fit anew, with the old ones."
        raise refusal(data, f"the data that {checkpoint} was trained on", "other data", advice) from None


def _fit(plan: Plan, data: Path, out: Path, checkpoint: Path | None, as_json: bool) -> int | None:
    import numpy as np

    found = plan.found(data, None, first=lambda frame: advise(plan, frame, data))
    table, _ = prepare(plan, found, data)
    rows, frame = plan.hold_out(found.frame), _of_task(plan.features(found.frame), plan, table)
    groups = None if plan.group is None else _groups(plan.group, found.frame, rows)
    train, held = plan.rows(frame, rows.training), frame.take(rows.held)
    model = _trained(plan, table, train, groups, checkpoint)
    net, own = model.as_network()
    known = answerable(own, held)
    if not known.all():
        tell_unmeasured(len(held) - int(known.sum()))
    frames = {"training": train, "validation": held.take(np.flatnonzero(known))}
    parts = {name: (own.transform(part), own.targets(part)) for name, part in frames.items() if len(part)}
    seen = fingerprint(net, own, *parts["training"])
    model.table_.notes = table.notes | {"fit": asdict(plan), "data": seen}
    model.save(out)
    tell(model.report_.replace(type(model).__name__, "The tabular network", 1))
    if model.stopped_ == CTRL_C:
        tell("Stopped by Ctrl-C: the best so far.")
    if model.stopped_ and checkpoint is not None:
        tell("To go on: " + shlex.join(["backprop", "resume", str(checkpoint), str(data), "--out", str(out)]))
    tell(f"Model saved to {out}.")
    X, y = parts.get("validation", parts["training"])
    tell_one_answer(own, net.predict(X), y)
    worth = {name: measures(own, net.predict(X), y) for name, (X, y) in parts.items()}
    counts = {name: len(X) for name, (X, _) in parts.items()}
    result = {"model": str(out), "task": task(own), "features": len(own.feature_names), "rows": counts}
    result |= {"held_out": plan.held_out(), "epochs": model.n_iter_, "stopped": model.stopped_, **worth}
    answer(result, as_json, by_part(worth))
    return INTERRUPTED if model.stopped_ == CTRL_C else None


def _require_sklearn() -> None:
    """Refuse before the work what could not be done. Raises ImportError."""
    try:
        import sklearn as _  # noqa: F401
    except ImportError as error:
        needs = 'the tabular network needs scikit-learn: pip install "backprop-mlp[sklearn,tables]"'
        raise ImportError(f"{needs}, or train the plain one: --model plain.") from error


def _trained(plan: Plan, table: Table, frame: Any, groups: list[Any] | None, checkpoint: Path | None) -> Any:
    """The estimator of the task, fitted to a frame with its target; with a progress bar where somebody looks at it."""
    from backprop import estimators

    kind = estimators.TabularRegressor if table.classes is None else estimators.TabularClassifier
    settings: dict[str, Any] = {"members": plan.members, "max_time": plan.max_time, "random_state": plan.seed}
    settings["checkpoint"] = checkpoint
    model = kind(
        missing=plan.missing, unknown=plan.unknown, verbose="bar" if sys.stderr.isatty() else False, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.TrainingAdvice)  # the table has been looked at
        warnings.filterwarnings("ignore", "Training interrupted")  # which is told in the end
        warnings.filterwarnings("ignore", ".*hold one value only")  # as well
        model.fit(frame, plan.target, groups=groups)
    return model.set_params(verbose=False)


def _groups(name: str, frame: Any, rows: HoldOut) -> list[Any]:
    """The groups of the rows trained on. Raises ValueError for a single one."""
    groups: list[Any] = frame[name].take(rows.training).to_pylist()
    if len(set(groups)) < 2:
        expected = "two groups to train on, since each member of the tabular network is stopped by groups of its own"
        held = len(frame[name].unique()) - 1
        advice = (
            f"Hold out fewer: {'--validation, or ' * (held > 1)}a file of more groups. --model plain trains on one."
        )
        raise refusal(f"--group {name}", expected, f"{groups[0]!r} alone, the other {held} held out", advice)
    return groups


def _of_task(frame: Any, plan: Plan, table: Table) -> Any:
    """The frame with a target that is of the task of the plan."""
    from backprop.cli.data import as_categories

    return as_categories(frame, codes=[plan.target]) if table.classes is not None else frame
