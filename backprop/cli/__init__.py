"""The command line, `backprop` and `python -m backprop`: a file per family of commands.

Only click is imported here: what a command needs it imports when it runs, so that --help answers at once.
"""

from __future__ import annotations

import click

import backprop as bp
from backprop.cli.bench import bench, demo
from backprop.cli.check import check, explain
from backprop.cli.export import export
from backprop.cli.fit import fit
from backprop.cli.group import Command, Group
from backprop.cli.launch import launch, rank
from backprop.cli.look import look
from backprop.cli.pictures import plot
from backprop.cli.predict import evaluate, predict
from backprop.cli.resume import resume
from backprop.cli.shuffle import shuffle


@click.group(cls=Group, name="backprop", context_settings={"show_default": True})
@click.version_option(bp.__version__, message="%(version)s")
def commands() -> None:
    """Multilayer perceptrons on a CPU: train on a file, predict, measure, export, and look inside.

    \b
    Examples:
      backprop fit flats.csv --target rent --out rent.safetensors
      backprop predict rent.safetensors new.csv --out predictions.csv
      backprop predict --help

    Results go to standard output, messages and progress to standard error. Exit codes: 0; 1 the data, a file or the model says
    no; 2 wrong usage; 130 stopped by Ctrl-C.
    """


@click.command(cls=Command, short_help="Print a script that completes commands in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands, options and files after the Tab key.

    \b
    Examples:
      backprop completion bash > backprop-completion.bash
      backprop completion fish > backprop.fish

    Then source that file where your shell starts: a line such as source backprop-completion.bash at the end of .bashrc.
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    complete = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(complete(commands, {}, "backprop", "_BACKPROP_COMPLETE").source())


for command in (
    look,
    fit,
    predict,
    evaluate,
    resume,
    export,
    plot,
    explain,
    check,
    shuffle,
    launch,
    rank,
    bench,
    demo,
    completion,
):
    commands.add_command(command)
