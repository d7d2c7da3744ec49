"""`backprop resume`: training that was stopped goes on from its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

import backprop as bp
from backprop.cli import options, tabular
from backprop.cli.fit import logging
from backprop.cli.group import Command, refusal, tell
from backprop.cli.training import Plan, finish, prepare, save, train

if TYPE_CHECKING:
    from backprop.cli.training import Parts
    from backprop.tables import Table
    from backprop.training import Trainer


@click.command(cls=Command, short_help="Go on with a training that was stopped.")
@click.argument("checkpoint", type=options.FILE)
@click.argument("data", type=options.DATA)
@options.out("Model file to write, ending in .safetensors.", options.MODEL, required=True)
@click.option("--epochs", type=click.IntRange(1), help="So many more. [what is left of those that fit was to train]")
@click.option("--patience", type=click.IntRange(0), help="As of fit. [as it was last]")
@click.option("--log", type=options.LOG, help="Go on in a log, .csv or .jsonl.")
@options.as_json
def resume(
    checkpoint: Path, data: Path, out: Path, epochs: int | None, patience: int | None, log: Path | None, as_json: bool
) -> int | None:
    """Go on where a training stopped, from the CHECKPOINT that fit --checkpoint has written, with the same DATA.

    All other settings are in the checkpoint; its weights come out as if training had never stopped, and it is written again
    as training goes on. After early stopping it is patient once more, and the best weights so far stay the best. Other data are
    refused: fit --from trains a plain model on with new rows. Of the tabular network the members that have ended stay, and the
    others are trained, for as long as they need; it has none of the options --epochs, --patience and --log.

    \b
    Examples:
      backprop fit flats.csv --target rent -o rent.safetensors --checkpoint run.safetensors --epochs 20 --patience 0
      backprop resume run.safetensors flats.csv --out rent.safetensors --epochs 10
      backprop resume run.safetensors flats.csv --out rent.safetensors --epochs 50 --patience 20
    """
    options.outputs(out, log, given=(data, checkpoint))
    if _of_tabular(checkpoint):
        for name, value in (("--epochs", epochs), ("--patience", patience), ("--log", log)):
            if value is not None:
                raise click.UsageError(
                    f"{name} is an option of the plain network, and '{checkpoint}' is of the tabular one."
                )
        return tabular.resume(checkpoint, data, out, as_json)
    trainer = bp.Trainer.resume(checkpoint)
    if "fit" not in trainer.notes:
        raise refusal(checkpoint, "a checkpoint of backprop fit", "one that a program of your own has saved")
    plan = Plan.from_notes(trainer.notes["fit"], checkpoint, "a checkpoint of backprop fit")
    left = epochs or plan.epochs - trainer.epochs_done
    if left < 1:
        raise ValueError(f"{checkpoint}: all {plan.epochs} epochs are done. Pass --epochs for more.")
    table, parts = _same_data(plan, trainer, checkpoint, data)
    tell(f"Going on after {trainer.epochs_done} epochs and {trainer.position[1]} batches, for {left} epochs.")
    if patience is not None:
        trainer.notes["fit"]["patience"] = patience
        plan = replace(plan, patience=patience)
    with logging(log, append=True) as callbacks:
        history = train(trainer, parts, left, plan.patience, [*callbacks, bp.Checkpoints(checkpoint)])
        save(trainer, table, out)
    return finish(trainer, table, parts, history, out, as_json)


def _of_tabular(path: Path) -> bool:
    """Whether a checkpoint is one of the tabular network. Raises ValueError for the model of a training that has ended."""
    from backprop.files import container

    kind = container.kind(path)
    if kind == "estimator":
        advice = "Fit anew. What fit --checkpoint writes can go on; predict and plot take the model."
        raise refusal(path, "a checkpoint of backprop fit --checkpoint", "a model whose training has ended", advice)
    return kind == "members"


def _same_data(plan: Plan, trainer: Trainer, checkpoint: Path, data: Path) -> tuple[Table, Parts]:
    """The table and the parts of the data that were trained on. Raises ValueError for others."""
    from backprop.training.data import Examples

    stored = trainer.notes.get("table")  # not in checkpoints of 0.1
    known = None if stored is None else bp.Table.from_state(stored)
    found = plan.found(data, known)
    before = trainer.state().data or {}
    try:
        table, parts = prepare(plan, found, data, known)
        seen = Examples(str(data), trainer.net, trainer.loss, *parts["training"]).fingerprint()
        same = all(seen.get(name) == value for name, value in before.items())
    except (TypeError, ValueError):
        same = False
    if not same:
        advice = f"With new rows a model is trained on by: backprop fit {data} --from MODEL."
        raise refusal(data, f"the data that {checkpoint} was trained on", "other data", advice)
    return table, parts
