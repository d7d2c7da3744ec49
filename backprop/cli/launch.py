"""`backprop launch` and `backprop rank`: a program on many ranks, which train together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from backprop.cli import options
from backprop.cli.group import Command, tell

PROGRAM = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # what comes behind it belongs to it

_run = click.option(
    "--run",
    type=options.FILE,
    default=Path(".backprop-run"),
    help="Folder for what ranks tell each other, on a shared disk.",
)
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    help="Seconds that a rank may wait for the others.",
)
_program = click.argument("program", type=click.Path(exists=True, dir_okay=False))
_arguments = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)


@click.command(
    cls=Command, context_settings=PROGRAM, short_help="Run a program on many ranks, and again when one dies."
)
@options.numbers("-n", "1", "Ranks; with a comma, those after the first restart, and so on.")
@_run
@_timeout
@click.option("--max-restarts", type=click.IntRange(0), default=5, help="How often it is started again.")
@_program
@_arguments
def launch(
    n: tuple[int, ...], run: Path, timeout: float, max_restarts: int, program: str, arguments: tuple[str, ...]
) -> int:
    """Run the Python PROGRAM on n ranks, which train together where it says team=bp.distributed.team().

    An error, an early exit, a crash or a silence on one rank ends all of them, and they are started again: a program that begins
    with Trainer.resume where there is a checkpoint goes on from there. Success is when every rank has come to the end of the
    program. After two attempts that saved no new checkpoint nothing is started again.

    \b
    Examples:
      backprop launch -n 4 train.py
      backprop launch -n 4,3 --timeout 60 train.py --epochs 20
    """
    if sys.platform == "win32":
        raise RuntimeError("backprop launch needs Linux or macOS.")
    if not n:
        raise click.BadParameter("-n none: a job has at least one rank.")
    from backprop.distributed.launch import Launcher

    return Launcher(
        [program, *arguments], n, run, timeout, max_restarts, lambda text: tell(f"backprop launch: {text}")
    ).run()


@click.command(cls=Command, context_settings=PROGRAM, short_help="Be one rank of a job that srun or mpirun starts.")
@_run
@_timeout
@_program
@_arguments
def rank(run: Path, timeout: float, program: str, arguments: tuple[str, ...]) -> None:
    """Run the Python PROGRAM as one of the ranks that srun or mpirun has started.

    It is guarded as by backprop launch: what ends one rank ends all. Success is the file "done" in the folder of --run.

    \b
    Examples:
      backprop rank train.py
      backprop rank --run run --timeout 60 train.py --epochs 20

    Behind srun or mpirun, as in: srun -n 64 --kill-on-bad-exit=1 backprop rank train.py
    """
    run.mkdir(parents=True, exist_ok=True)
    environ: dict[str, Any] = os.environ | {"BACKPROP_RUN": str(run.absolute()), "BACKPROP_TIMEOUT": str(timeout)}
    command = [sys.executable, "-m", "backprop.distributed.rank", program, *arguments]
    os.execve(sys.executable, command, environ)
