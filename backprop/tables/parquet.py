"""Parquet files larger than memory, read in pieces as rows of numbers."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.tables.columns import Numbers
from backprop.tables.frame import BOOLEANS, NUMBERS, listing, require_names
from backprop.tables.table import Table

BATCH_BYTES, BATCH_ROWS = 1 << 22, 1 << 16  # what is decoded at once, before it becomes numbers of a piece


class ParquetRows:
    """The rows of a Parquet file as X (N, D), never all in memory: its slices are arrays, so that it trains and predicts.

    `columns` names the columns of numbers to be read, in order; None stands for all of the file. Or `table`, a `Table` that has
    been fitted (to some of the rows, say), encodes the columns it knows. `dtype` is "float32", "float64", or that of the table.

    Rows are read a piece at a time, `piece_bytes` of X at most, and the last piece is kept: as many whole row groups as fit, or
    a part of a row group that is larger. Training reads each piece once an epoch: it shuffles the pieces, and the rows of each.
    A part costs the decoding of all that is before it in its row group, so that row groups not larger than a piece are best.

    Raises ImportError without pyarrow; OSError for a file that cannot be read; ValueError for what is not Parquet, for absent
    columns and, as they are read, for missing values, by column and row; TypeError for columns that are not numbers.

    >>> import pyarrow as pa, pyarrow.parquet, tempfile, backprop as bp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pa.parquet.write_table(pa.table({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}), f"{folder}/rows.parquet")
    ...     bp.ParquetRows(f"{folder}/rows.parquet", ["b", "a"])[1:]
    array([[1.5, 2. ],
           [2.5, 3. ]], dtype=float32)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: list[str] | None = None,
        *,
        table: Table | None = None,
        dtype: Any = None,
        piece_bytes: int = 1 << 26,
    ) -> None:
        who = self._who = f"ParquetRows({os.fspath(path)!r})"
        checks.integer(who, "piece_bytes", piece_bytes)
        self._file = _open(who, path)
        schema, metadata = self._file.schema_arrow, self._file.metadata
        if len(set(schema.names)) < len(schema.names) or metadata.num_rows == 0:
            got = f"{metadata.num_rows} rows with columns {listing(schema.names)}"
            raise ValueError(checks.message(who, "rows, and column names without duplicates", got))
        if table is None:
            table = _as_they_are(who, schema, columns, "float32" if dtype is None else dtype)
        elif columns is not None or dtype is not None:
            raise ValueError(checks.message(who, "either a table, or columns and dtype", "both"))
        checks.instance(who, "table", table, Table)
        table._require_fit(who)
        self._table, self._columns = table, table.columns
        require_names(who, self._columns, schema.names)
        self.shape, self.dtype = (metadata.num_rows, len(table.feature_names)), table.dtype
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._group_starts = np.cumsum([0, *groups])
        self.chunks = (self._rows_per_piece(max(groups), piece_bytes), self.shape[1])
        self._last: tuple[int, Array] | None = None
        self._lock = threading.Lock()  # the shards of a step may ask at the same time

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        """The rows of a slice without a step, (n, D), in an array of their own."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            advice = "Write rows[i:i + 1] for a single one."
            raise TypeError(checks.message(self._who, "a slice without a step", repr(rows), advice))
        start, stop, _ = rows.indices(len(self))
        X = np.empty((max(0, stop - start), self.shape[1]), self.dtype)
        size = self.chunks[0]
        for p in range(start // size, -(-stop // size)):
            first, last = max(start, p * size), min(stop, (p + 1) * size)
            X[first - start : last - start] = self._piece(p)[first - p * size : last - p * size]
        return X

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """Refuse to become one array by accident, as in an estimator of scikit-learn's kind."""
        advice = "Train with bp.Trainer, which reads it in pieces; rows[:] is all of it in memory."
        raise TypeError(checks.message(self._who, "a use of slices of it", "one of the whole as an array", advice))

    def __repr__(self) -> str:
        return f"<{self._who}: {self.shape[0]:,} × {self.shape[1]} {self.dtype}, {self.chunks[0]:,} rows a piece>"

    def _rows_per_piece(self, group: int, piece_bytes: int) -> int:
        """Whole row groups if one fits, else an equal part of one."""
        fit = max(1, piece_bytes // (self.shape[1] * self.dtype.itemsize))
        rows = fit // group * group if fit >= group else -(-group // -(-group // fit))
        return min(rows, len(self))

    def _piece(self, p: int) -> Array:
        with self._lock:
            if self._last is None or self._last[0] != p:
                self._last = None  # before the next one takes its memory
                self._last = p, self._read(p * self.chunks[0], min(len(self), (p + 1) * self.chunks[0]))
            return self._last[1]

    def _read(self, start: int, stop: int) -> Array:
        """Rows start … stop − 1, decoded batch by batch from the start of their first row group."""
        import pyarrow as pa

        X = np.empty((stop - start, self.shape[1]), self.dtype)
        first, end = np.searchsorted(self._group_starts, [start, stop - 1], side="right") - 1
        at = int(self._group_starts[first])
        size = min(BATCH_ROWS, max(1, BATCH_BYTES // (8 * max(self.shape[1], len(self._columns)))))
        groups = range(first, end + 1)
        for batch in self._file.iter_batches(batch_size=size, row_groups=groups, columns=self._columns):
            low, high = max(start, at), min(stop, at + len(batch))
            if low < high:
                rows = pa.Table.from_batches([batch.slice(low - at, high - low)])
                X[low - start : high - start] = self._table._transform(self._who, rows, low)
            at += len(batch)
            if at >= stop:
                break
        return X


def _open(who: str, path: str | os.PathLike[str]) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError('Parquet needs pyarrow: pip install "backprop-mlp[tables]"') from error
    try:
        # Buffered, column chunks are read as they are decoded; else each would be in memory whole.
        return pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise ValueError(checks.message(who, "a Parquet file", str(error))) from None


def _as_they_are(who: str, schema: Any, columns: list[str] | None, dtype: Any) -> Table:
    """A table that takes these columns for numbers and does not scale them."""
    from pyarrow import types

    if columns is not None and (isinstance(columns, str) or not columns or len(set(columns)) < len(columns)):
        raise ValueError(checks.message(who, "columns: a list of names without duplicates", repr(columns)))
    names = schema.names if columns is None else list(columns)
    require_names(who, names, schema.names)
    learnt = []
    for name in names:
        kind = schema.field(name).type
        numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        if not (numeric or types.is_boolean(kind)):
            advice = "Leave it out of columns, or pass a fitted Table as table."
            raise TypeError(checks.message(who, f"numbers in column {name!r}", str(kind), advice))
        learnt.append(Numbers(name, NUMBERS if numeric else BOOLEANS, 0.0, 0.0, 1.0))
    return Table.of(learnt, scale=False, dtype=checks.dtype(who, dtype))
