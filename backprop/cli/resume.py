"""`backprop resume`: training that was stopped goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.fit import logger
from backprop.cli.group import Command, refusal, tell
from backprop.cli.training import Plan, finish, prepare, train


@click.command(cls=Command, short_help="Go on with a training that was stopped.")
@click.argument("checkpoint", type=options.FILE)
@click.argument("data", type=options.DATA)
@options.out("Model file to write, ending in .safetensors.", options.MODEL, required=True)
@click.option("--epochs", type=click.IntRange(1), help="So many more. [what is left of those that fit was to train]")
@click.option("--log", type=options.LOG, help="Go on in a log, .csv or .jsonl.")
@options.as_json
def resume(checkpoint: Path, data: Path, out: Path, epochs: int | None, log: Path | None, as_json: bool) -> int | None:
    """Go on where a training stopped, from the CHECKPOINT that fit --checkpoint has written, with the same DATA.

    All other settings are in the checkpoint; its weights come out as if training had never stopped, and it is written again
    as training goes on. Other data are refused.

    \b
    Examples:
      backprop fit flats.csv --target rent -o rent.safetensors --checkpoint run.safetensors --epochs 20 --patience 0
      backprop resume run.safetensors flats.csv --out rent.safetensors --epochs 10
    """
    options.outputs(out, log, given=(data, checkpoint))
    callbacks = logger(log, append=True)
    trainer = bp.Trainer.resume(checkpoint)
    if "fit" not in trainer.notes:
        advice = "Trainer.resume opens those of trainer.save."
        raise refusal(checkpoint, "a checkpoint of backprop fit", "another one", advice)
    plan = Plan(**trainer.notes["fit"])
    left = epochs or plan.epochs - trainer.epochs_done
    if left < 1:
        raise ValueError(f"{checkpoint}: all {plan.epochs} epochs are done. Pass --epochs for more.")
    tell(f"Going on after {trainer.epochs_done} epochs and {trainer.position[1]} batches, for {left} epochs.")
    table, parts = prepare(plan, data)
    callbacks.append(bp.Checkpoints(checkpoint))
    history = train(trainer, parts, left, plan.patience, callbacks)
    return finish(trainer, table, parts, history, out, as_json)
