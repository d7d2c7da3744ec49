"""Parquet rows written anew in a random order, in two passes and bounded memory.

    1    each row goes to one of B buckets, files that lie beside the result, by chance
    2    the rows of each bucket are shuffled in memory and written

Every order of all rows is equally likely. Source: Sandelius (1962), "A simple randomization procedure".
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backprop.files.atomic import naming
from backprop.tables.footers import Footers

BUCKET = 1 << 26  # bytes of rows that are in memory at once, unless that would make more files than …
MOST_BUCKETS = 512  # … may be open
BATCH_ROWS = 1 << 15  # decoded at once
GROUP_ROWS = 1 << 16  # of a row group of the result: training reads several of them at once


class Progress(Protocol):
    """Told of so many more rows, of how many in all; each comes twice."""

    def __call__(self, rows: int, of: int) -> object:
        """Show it."""


def shuffle(source: Path, out: Path, *, seed: int = 0, progress: Progress = lambda rows, of: None) -> int:
    """Write all rows of a Parquet file or a folder of them in a random order; returns how many there are.

    `out` becomes a file if it ends in .parquet, else a folder of files; it is there whole or not at all. All columns keep their
    types; the same seed gives the same bits. Beside `out` there has to be room for the rows twice, once without compression.

    Raises what reading Parquet does (see `Footers`), FileExistsError for an `out` that is there, OSError for one that cannot
    be written.
    """
    footers = Footers(os.fspath(source), source)
    with naming(os.fspath(out)), ExitStack() as stack:
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, "File exists: remove it first, or write elsewhere", os.fspath(out))
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".part", dir=out.parent))
        stack.callback(shutil.rmtree, beside, ignore_errors=True)
        more = partial(progress, of=2 * int(footers.starts[-1]))
        buckets = _deal(footers, beside, np.random.default_rng([seed, 0]), more)
        made = beside / "made"
        if out.suffix.lower() != ".parquet":
            made.mkdir()
        _write(footers.schema, buckets, made, np.random.default_rng([seed, 1]), more)
        for path in [*(made.iterdir() if made.is_dir() else ()), made]:
            _make_durable(path)
        os.rename(made, out)
    return int(footers.starts[-1])


def _deal(footers: Footers, folder: Path, rng: np.random.Generator, more: Callable[[int], object]) -> list[Path]:
    """Deal the rows to buckets, files in this folder."""
    import pyarrow as pa

    bytes_in_all = _bytes_per_row(footers) * footers.starts[-1]
    paths = [folder / f"{b}.arrow" for b in range(int(min(MOST_BUCKETS, bytes_in_all // BUCKET + 1)))]
    with ExitStack() as stack:
        files = [stack.enter_context(pa.ipc.new_stream(os.fspath(path), footers.schema)) for path in paths]
        for rows in _gathered(footers, BUCKET // 4):
            to = rng.integers(len(files), size=len(rows))
            ends = np.cumsum(np.bincount(to, minlength=len(files)))
            rows = rows.take(np.argsort(to, kind="stable"))
            for file, begin, end in zip(files, [0, *ends[:-1]], ends, strict=True):
                file.write_table(rows.slice(begin, end - begin))
            more(len(rows))
    return paths


def _gathered(footers: Footers, size: int) -> Iterator[Any]:
    """All rows, about so many bytes at once, so that what a bucket gets of them is no crumb."""
    held: list[Any] = []
    for group in range(len(footers.starts) - 1):
        for _, batch in footers.batches(group, footers.schema.names, BATCH_ROWS):
            held.append(batch)
            if sum(each.nbytes for each in held) >= size:
                yield _together(held, footers.schema)
                held.clear()
    if held:
        yield _together(held, footers.schema)


def _together(tables: list[Any], schema: Any) -> Any:
    """One table in one piece, with this schema: others may have their columns in another order, and other notes of pandas."""
    import pyarrow as pa

    columns = [[table[name] for table in tables] for name in schema.names]
    chunks = [pa.chunked_array([chunk for column in each for chunk in column.chunks]) for each in columns]
    return pa.Table.from_arrays(chunks, names=schema.names).cast(schema).combine_chunks()


def _bytes_per_row(footers: Footers) -> float:
    """In memory, by the first rows of a few row groups."""
    some = np.unique(np.linspace(0, len(footers.starts) - 2, 8).astype(int)).tolist()
    first = [next(footers.batches(group, footers.schema.names, BATCH_ROWS))[1] for group in some]
    return max(table.nbytes / len(table) for table in first)


def _write(
    schema: Any, buckets: list[Path], made: Path, rng: np.random.Generator, more: Callable[[int], object]
) -> None:
    """Shuffle each bucket, and write it to a file of its own or behind the others."""
    import pyarrow.parquet as pq

    digits = len(str(len(buckets) - 1))
    with ExitStack() as stack:
        into = None if made.is_dir() else stack.enter_context(pq.ParquetWriter(made, schema))
        for b, path in enumerate(buckets):
            rows = _taken(path, schema)
            rows = rows.take(rng.permutation(len(rows)))
            if into is not None:
                into.write_table(rows, row_group_size=GROUP_ROWS)
            else:
                pq.write_table(rows, made / f"part-{b:0{digits}}.parquet", row_group_size=GROUP_ROWS)
            more(len(rows))


def _taken(path: Path, schema: Any) -> Any:
    """The rows of a bucket, which then takes no more room."""
    import pyarrow as pa

    with pa.memory_map(os.fspath(path)) as file, pa.ipc.open_stream(file) as stream:
        rows = _together([stream.read_all()], schema)
    path.unlink()
    return rows


def _make_durable(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
