"""The Parquet files of a path, one file or all of a folder, as their footers describe them: columns, row groups, ranges."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backprop import checks
from backprop.tables.frame import index_names, listing, require_names

MOST_RANGES = 64  # row groups whose ranges are looked at; of more, evenly spread ones


class Footers:
    """What the footers say of a file, or of the files of a folder in the order of their names. Nothing else is read.

    Files whose names begin with "." or "_" are left out, as everywhere. Raises ImportError without pyarrow, OSError for what
    cannot be read, ValueError for what is not Parquet or not one table: no rows, other columns from file to file.
    """

    def __init__(self, who: str, path: str | os.PathLike[str]) -> None:
        self.who, self.paths = who, _files(who, Path(path))
        digest = hashlib.sha256()
        self._metadata, self._marks, self._places = [], [], []
        for each in self.paths:
            with _open(who if each == Path(path) else f"{who}: {each.name}", each) as file:
                self._metadata.append(file.metadata)
                schema = file.schema_arrow
            self.schema = schema if len(self._metadata) == 1 else self._same_columns(each, schema)
            self._marks.append(_mark(each))
            columns = self._metadata[-1].schema
            self._places.append(
                {columns.column(j).path: j for j in range(len(columns))}
            )  # of those that are not nested
            digest.update(b"" if each == Path(path) else os.fsencode(each.name))
            digest.update(_footer(each))
        self.digest = digest.hexdigest()
        self._groups = [(f, g) for f, metadata in enumerate(self._metadata) for g in range(metadata.num_row_groups)]
        rows = [self._metadata[f].row_group(g).num_rows for f, g in self._groups]
        self._groups = [group for group, n in zip(self._groups, rows, strict=True) if n]
        self.starts = np.cumsum([0, *filter(None, rows)])
        if len(set(self.schema.names)) < len(self.schema.names) or not self.starts[-1]:
            got = f"{self.starts[-1]} rows with columns {listing(self.schema.names)}"
            raise ValueError(checks.message(who, "rows, and column names without duplicates", got))

    def _same_columns(self, path: Path, schema: Any) -> Any:
        """The schema of all files so far, in which another file has the same names and kinds of columns."""
        require_names(f"{self.who}: {path.name}", self.schema.names, schema.names)
        for name in schema.names:
            before = str(self.schema.field(name).type) if name in self.schema.names else "no such column"
            if (now := str(schema.field(name).type)) != before:
                expected = f"in column {name!r} {before}, as in {self.paths[0].name}"
                raise ValueError(checks.message(f"{self.who}: {path.name}", expected, now, "Write both alike."))
        return self.schema

    @property
    def index(self) -> list[str]:
        """The columns that pandas wrote for its index, which says nothing of a row."""
        return [name for name in index_names(self.schema) if name in self.schema.names]

    @property
    def bytes_of_a_group(self) -> int:
        """The largest row group, when it is no longer compressed."""
        return max(self._metadata[f].row_group(g).total_byte_size for f, g in self._groups)

    def batches(self, group: int, names: list[str], size: int) -> Iterator[tuple[int, Any]]:
        """Some columns of a row group, at most `size` rows at once, with the number of their first row."""
        import pyarrow as pa

        f, g = self._groups[group]
        if _mark(self.paths[f]) != self._marks[f]:
            raise ValueError(checks.message(self.who, "files that stay as they are", f"{self.paths[f]} changed since"))
        at = int(self.starts[group])
        with _open(self.who, self.paths[f], self._metadata[f]) as file:
            # Threads of pyarrow's would not make training faster, and each keeps memory.
            for batch in file.iter_batches(batch_size=size, row_groups=[g], columns=names, use_threads=False):
                yield at, pa.Table.from_batches([batch])
                at += len(batch)

    def ranges(self, name: str, least: int = 0) -> tuple[list[int], list[Any], list[Any]]:
        """The first rows, smallest and largest values of a column's row groups of at least so many rows, where they are known."""
        some = np.unique(np.linspace(0, len(self._groups) - 1, MOST_RANGES).astype(int)).tolist()
        found: tuple[list[int], list[Any], list[Any]] = [], [], []
        for i in some:
            f, g = self._groups[i]
            group = self._metadata[f].row_group(g)
            column = self._places[f].get(name)
            known = None if column is None or group.num_rows < least else group.column(column).statistics
            if known is not None and known.has_min_max:
                for values, value in zip(found, (int(self.starts[i]), known.min, known.max), strict=True):
                    values.append(value)
        return found


def _files(who: str, path: Path) -> list[Path]:
    """The file, or the Parquet files of the folder. Raises ValueError for a folder without them or with others below it."""
    if not path.is_dir():
        return [_regular(who, path)]
    inside = [each for each in sorted(path.iterdir()) if each.name[0] not in "._"]
    if folders := [each.name for each in inside if each.is_dir()]:
        advice = "What the names of folders say is no column: write it into the files, side by side in one folder."
        raise ValueError(checks.message(who, "a folder of Parquet files", f"folders {listing(folders)} in it", advice))
    found = [each for each in inside if each.suffix.lower() == ".parquet"]
    if not found:
        got = f"files {listing([each.name for each in inside])}" if inside else "an empty one"
        raise ValueError(checks.message(who, "a folder of Parquet files, which end in .parquet", got))
    return [_regular(f"{who}: {each.name}", each) for each in found]


def _regular(who: str, path: Path) -> Path:
    """The path; ValueError for what may never end. What is not there is found out when it is opened."""
    if path.exists() and not path.is_file():
        raise ValueError(checks.message(who, "a file", "a named pipe or a device"))
    return path


def _open(who: str, path: Path, metadata: Any = None) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError('Parquet needs pyarrow: pip install "backprop-mlp[tables]"') from error
    try:
        # Buffered, column chunks are read as they are decoded; else each would be in memory whole.
        return pq.ParquetFile(path, metadata=metadata, buffer_size=1 << 16, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise ValueError(checks.message(who, "a Parquet file", str(error).rstrip("."))) from None


def _footer(path: Path) -> bytes:
    """The bytes of the footer, whose length stands before the last four bytes."""
    with path.open("rb") as file:
        end = file.seek(-8, os.SEEK_END)
        file.seek(end - int.from_bytes(file.read(4), "little"))
        return file.read()


def _mark(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
