"""Parquet files larger than memory, read in pieces as rows of numbers."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.tables.columns import Numbers, Target
from backprop.tables.footers import Footers
from backprop.tables.frame import BOOLEANS, NUMBERS, Frame, listing, require_names
from backprop.tables.table import Table

BATCH_BYTES, BATCH_ROWS = 1 << 22, 1 << 16  # what is decoded at once, before it becomes numbers of a piece
DECODED = 1 << 24  # bytes of column chunks that are open at once; pyarrow holds pages and a dictionary of each
LEAST = 32  # rows of two row groups that chance does not part
DIGITS = 1 << 12  # numbers in a column's range that float32 has to have, if they are no whole ones


@dataclass
class Part:
    """Columns that are decoded at once, and what they become: features at this place, or the target."""

    names: list[str]
    place: slice | None
    encode: Callable[[Any, int], Array]


class ParquetRows:
    """The rows of a Parquet file, or of all files of a folder, as X (N, D), never all in memory. Only footers are read at first.

    `columns` names the columns of numbers to be read, in order; None stands for all but the target and what pandas wrote for its
    index. Or `table`, a `Table` that has been fitted (to some of the rows, say), encodes the columns it knows. `dtype` is
    "float32", "float64", or that of the table. `target` is the column to be predicted: `trainer.fit(rows)` then needs no y.

    Training reads at a few places at once and shuffles what it has read, `piece_bytes` at most (see docs/train/tables.md). Slices
    are arrays, for predictions; they are read in pieces of `piece_bytes`, of which the last is kept: whole row groups, or a
    part of one that is larger, which costs the decoding of all that is before it.

    Raises ImportError without pyarrow; OSError for a file that cannot be read; ValueError for what is not Parquet, for absent
    columns, for numbers that float32 cannot tell apart and, as they are read, for missing values, by column and row; TypeError
    for columns that are not numbers.

    >>> import pyarrow as pa, pyarrow.parquet, tempfile, backprop as bp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pa.parquet.write_table(pa.table({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}), f"{folder}/rows.parquet")
    ...     bp.ParquetRows(folder, ["b", "a"])[1:]
    array([[1.5, 2. ],
           [2.5, 3. ]], dtype=float32)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: list[str] | None = None,
        *,
        target: str | None = None,
        table: Table | None = None,
        dtype: Any = None,
        piece_bytes: int = 1 << 26,
    ) -> None:
        who = self._who = f"ParquetRows({os.fspath(path)!r})"
        self.piece_bytes = checks.integer(who, "piece_bytes", piece_bytes)
        self._footers = footers = Footers(who, path)
        if table is None:
            columns = self._chosen(columns, target)
            table = _as_they_are(who, footers.schema, columns, "float32" if dtype is None else dtype)
        elif columns is not None or dtype is not None:
            raise ValueError(checks.message(who, "either a table, or columns and dtype", "both"))
        checks.instance(who, "table", table, Table)
        table._require_fit(who)
        require_names(who, table.columns, footers.schema.names)
        self._table, self.target, self.feature_names = table, target, table.feature_names
        self._parts, self._answers = _parts(who, table, footers), self._part_of(target)
        self.starts = footers.starts  # of the row groups, and N
        self.shape, self.dtype = (int(self.starts[-1]), len(self.feature_names)), table.dtype
        self.require_digits(who, self.dtype)
        self.chunks = (self._rows_per_piece(int(np.diff(self.starts).max())), self.shape[1])
        self._last: tuple[int, Array] | None = None
        self._lock = threading.Lock()  # several threads may ask at the same time

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

    def targets(self) -> Array:
        """The target of all rows (N,), in memory: numbers, or the labels of the table. RuntimeError without a target."""
        if self._answers is None:
            raise RuntimeError(checks.message(self._who, "target=, the column to be predicted", "none"))
        return np.concatenate([y for _, _, y in self._decoded(0, len(self), [self._answers])])

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, slice | None, Array]]:
        """Rows start … stop − 1 as they are decoded: the first row, the place of the features, and they themselves (n, d).

        Of a row group some columns come before the others; the place of the target, (n,), is None.
        """
        return self._decoded(start, stop, self._parts if self._answers is None else [*self._parts, self._answers])

    def fingerprint(self) -> dict[str, Any]:
        """What makes these rows these, without reading them: names and footers of the files, and what is read of them."""
        how = hashlib.sha256(json.dumps(self._table.state()).encode()).hexdigest()
        found: dict[str, Any] = {"shape of X": list(self.shape), "dtype of X": str(self.dtype)}
        found |= {"columns of X": listing(self.feature_names), "target": self.target, "SHA-256 of what encodes X": how}
        return found | {"SHA-256 of names and footers": self._footers.digest}

    def in_order(self) -> str:
        """What says that the rows are not in a random order: a column whose row groups do not overlap; or nothing."""
        for name in [*([self.target] if self.target else []), *self._table.columns]:
            rows, low, high = self._footers.ranges(name, LEAST)
            if len(rows) > 1 and max(low) > min(high):
                a, b = high.index(min(high)), low.index(max(low))
                ends = f"at most {high[a]!r} in the row group from row {rows[a]:,} on and at least {low[b]!r} from row"
                return f"{name!r} is {ends} {rows[b]:,} on"
        return ""

    def require_digits(self, who: str, dtype: Any) -> None:
        """Refuse columns of numbers, read as they are, that this dtype cannot tell apart, such as Unix seconds in float32."""
        for column in self._table._columns:
            if not isinstance(column, Numbers) or (column.shift, column.factor) != (0, 1):
                continue
            _, low, high = self._footers.ranges(column.name)
            if not low or isinstance(low[0], bool) or not all(isinstance(v, int | float) for v in (low[0], high[0])):
                continue
            if text := _merged(min(low), max(high), np.dtype(dtype)):
                advice = "Pass dtype='float64' and train a network of it, or a fitted Table as table, which scales."
                expected = f"column {column.name!r} in numbers that {np.dtype(dtype)} can tell apart"
                raise ValueError(checks.message(who, expected, text, advice))

    def _chosen(self, columns: list[str] | None, target: str | None) -> list[str]:
        """The names of the features."""
        if columns is None:
            left_out = {target, *self._footers.index}
            return [name for name in self._footers.schema.names if name not in left_out]
        if isinstance(columns, str) or not columns or len(set(columns)) < len(columns):
            raise ValueError(checks.message(self._who, "columns: a list of names without duplicates", repr(columns)))
        if target in columns:
            raise ValueError(checks.message(self._who, f"columns without the target {target!r}", listing(columns)))
        return list(columns)

    def _part_of(self, target: str | None) -> Part | None:
        """How the target is read."""
        if target is None:
            return None
        require_names(self._who, [checks.instance(self._who, "target", target, str)], self._footers.schema.names)
        answers = self._table._target
        if answers is None:
            numbers = _kind(self._who, self._footers.schema, target, "as target")
            answers = Target(target, NUMBERS) if numbers == NUMBERS else Target(target, BOOLEANS, (False, True))
        elif target != self._table.target:
            raise ValueError(checks.message(self._who, f"target {self._table.target!r}, as in the table", repr(target)))
        return Part([target], None, partial(_encode_target, self._who, answers))

    def _rows_per_piece(self, group: int) -> int:
        """Whole row groups if one fits, else an equal part of one."""
        fit = max(1, self.piece_bytes // (self.shape[1] * self.dtype.itemsize))
        rows = fit // group * group if fit >= group else -(-group // -(-group // fit))
        return min(rows, len(self))

    def _piece(self, p: int) -> Array:
        with self._lock:
            if self._last is None or self._last[0] != p:
                self._last = None  # before the next one takes its memory
                self._last = p, self._read(p * self.chunks[0], min(len(self), (p + 1) * self.chunks[0]))
            return self._last[1]

    def _read(self, start: int, stop: int) -> Array:
        X = np.empty((stop - start, self.shape[1]), self.dtype)
        for row, place, block in self._decoded(start, stop, self._parts):
            X[row - start : row - start + len(block), place] = block
        return X

    def _decoded(self, start: int, stop: int, parts: list[Part]) -> Iterator[tuple[int, slice | None, Array]]:
        size = min(BATCH_ROWS, max(1, BATCH_BYTES // (8 * max(self.shape[1], len(self._table.columns)))))
        first, end = np.searchsorted(self.starts, [start, stop - 1], side="right") - 1
        for group in range(first, end + 1):
            for part in parts:
                for at, batch in self._footers.batches(group, part.names, size):
                    low, high = max(start, at), min(stop, at + len(batch))
                    if low < high:
                        yield low, part.place, part.encode(batch.slice(low - at, high - low), low)
                    if at + len(batch) >= stop:
                        break


def read_whole(who: str, path: str | os.PathLike[str]) -> Any:
    """The Arrow table of a file or a folder of files, without what pandas wrote for its index.

    Raises as ParquetRows does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    footers = Footers(who, path)
    names = [name for name in footers.schema.names if name not in footers.index]
    return pa.concat_tables(
        [pq.read_table(each, columns=names, partitioning=None).select(names) for each in footers.paths]
    )


def _parts(who: str, table: Table, footers: Footers) -> list[Part]:
    """The features, cut so that what is open of a row group at once is no more than DECODED."""
    most = max(1, DECODED * len(footers.schema.names) // max(1, footers.bytes_of_a_group))
    settings: dict[str, Any] = {
        "missing": table.missing,
        "unknown": table.unknown,
        "scale": table.scale,
        "dtype": table.dtype,
    }
    parts, at = [], 0
    for first in range(0, len(table._columns), most):
        some = Table.of(table._columns[first : first + most], **settings)
        place = slice(at, at + len(some.feature_names))
        parts.append(Part(some.columns, place, partial(some._transform, who)))
        at = place.stop
    return parts


def _encode_target(who: str, answers: Target, batch: Any, first_row: int) -> Array:
    return answers.encode(Frame(who, batch, first_row).column(answers.name), np.dtype(float))


def _as_they_are(who: str, schema: Any, names: list[str], dtype: Any) -> Table:
    """A table that takes these columns for numbers and does not scale them."""
    require_names(who, names, schema.names)
    learnt = [Numbers(name, _kind(who, schema, name, "out of columns"), 0.0, 0.0, 1.0) for name in names]
    if not learnt:
        raise ValueError(checks.message(who, "columns beside the target and the index", listing(schema.names)))
    return Table.of(learnt, scale=False, dtype=checks.dtype(who, dtype))


def _kind(who: str, schema: Any, name: str, where: str) -> str:
    """Numbers or booleans. Raises TypeError for a column of anything else."""
    from pyarrow import types

    kind = schema.field(name).type
    if types.is_boolean(kind):
        return BOOLEANS
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return NUMBERS
    advice = "pass a fitted Table as table."
    advice = f"Leave it {where}, or {advice}" if where == "out of columns" else f"For classes {advice}"
    raise TypeError(checks.message(who, f"numbers in column {name!r}", str(kind), advice))


def _merged(low: float, high: float, dtype: np.dtype[Any]) -> str:
    """How many numbers between these two are left in a dtype, where that is too few; or nothing."""
    if dtype != np.float32 or not low < high or not max(abs(low), abs(high)) < float(np.finfo(dtype).max):
        return ""
    # That below the largest number: 2²⁴ is still exact, and the step above it is twice as long.
    step = float(np.spacing(np.nextafter(np.asarray(max(abs(low), abs(high)), dtype), dtype.type(0))))
    left = round((float(np.float32(high)) - float(np.float32(low))) / step) + 1
    if isinstance(low, int):
        many = high - low + 1
        return f"{left:,} values of {many:,} between {low:,} and {high:,}" if step > 1 else ""
    return f"{left:,} values between {low!r} and {high!r}" if left < DIGITS else ""
