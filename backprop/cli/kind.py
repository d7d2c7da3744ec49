"""Which of its two networks `backprop fit` trains: as --model says, else as the options that only one of them has."""

from __future__ import annotations

from collections.abc import Collection

import click

PLAIN, TABULAR = "plain", "tabular"
SHAPE, DESCENT = "hidden activation", "loss optimizer learning_rate weight_decay batch_size epochs patience"
OF = {PLAIN: f"{SHAPE} {DESCENT} log start".split(), TABULAR: ["members", "max_time"]}


def chosen(said: str | None, given: Collection[str]) -> tuple[str, str]:
    """The network, "plain" or "tabular", and what to tell of the choice where an option implies it.

    Raises click.UsageError for options of one network beside what asks for the other.
    """
    asks = [(kind, _flag(name)) for kind, names in OF.items() for name in names if name in given]
    asks += [] if said is None else [(said, f"--model {said}")]
    one = dict(reversed(asks))
    if len(one) == 2:
        both = f"{one[PLAIN]} asks for the plain network, and {one[TABULAR]} for the tabular one"
        raise click.UsageError(f"{both}: leave one of them out.")
    kind = next(iter(one), TABULAR)
    if kind == TABULAR or said is not None or "start" in given:
        return kind, ""
    return kind, f"The plain network is trained, as {one[kind]} is an option of it; --model tabular is the default."


def _flag(name: str) -> str:
    return "--from" if name == "start" else f"--{name.replace('_', '-')}"
