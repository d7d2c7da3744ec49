"""`backprop shuffle`: the rows of Parquet files in a random order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from backprop.cli import options
from backprop.cli.group import Command, answer, tell


@click.command(cls=Command, short_help="Write the rows of Parquet files anew in a random order.")
@click.argument("data", metavar="IN", type=options.FILE)
@click.argument("out", type=options.FILE)
@options.whole("--seed", 0, "Of the order.", least=0)
@options.as_json
def shuffle(data: Path, out: Path, seed: int, as_json: bool) -> None:
    """Write the rows of IN, a .parquet file or a folder of them, to OUT in a random order, once and for all.

    OUT becomes a file if it ends in .parquet, else a folder of files; one that is there already is never touched. Memory stays
    small, however many the rows: they are dealt to files beside OUT, which need as much room as the rows without compression,
    and then shuffled one after another. All columns are kept as they are. The same seed gives the same files.

    Training reads files piece by piece. It needs this for those that are sorted, by time or by their target.

    \b
    Examples:
      backprop shuffle flats.parquet mixed.parquet
      backprop shuffle flats.parquet mixed --seed 1
    """
    from backprop.tables.shuffle import shuffle as shuffle_rows
    from backprop.training.watch import progress_bar

    options.outputs(out, given=(data,))
    bars: list[Any] = []

    def show(rows: int, of: int) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            bars[:] = bars or [progress_bar(of, "row")]
            bars[0].update(rows)

    try:
        n = shuffle_rows(data, out, seed=seed, progress=show)
    finally:
        for bar in bars:
            bar.close()
    tell(f"{n:,} rows saved to {out}.")
    answer({"out": str(out), "rows": n}, as_json)
