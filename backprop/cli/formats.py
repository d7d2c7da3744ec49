"""The formats that data come in, by the suffix of the file: each as a table of Arrow whose columns have names of their own."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from backprop.cli.group import refusal
from backprop.cli.source import COMPRESSED, opened, require_bounded
from backprop.cli.text import Columns, Dialect
from backprop.cli.text import read as csv

if TYPE_CHECKING:
    from backprop.checks import Array


def columns_of(path: Path, dialect: Dialect, texts: Sequence[str]) -> Columns:
    """The columns of a file, or of a folder of Parquet files.

    `texts` are read as words, whatever they look like, where the file says nothing of kinds. Raises click.BadParameter for
    another suffix, OSError for a file that cannot be read, ValueError for one that is not what its suffix says.
    """
    readers: dict[str, Callable[[BinaryIO], Columns]]
    text = partial(_csv, dialect=dialect, texts=texts)
    readers = {".csv": text, ".tsv": partial(text, delimiter="\t"), ".txt": text}
    readers |= {".parquet": _parquet, ".npy": _npy, ".npz": _npz}
    others = (
        f"also with {', '.join(COMPRESSED)} behind it, be a folder of .parquet files, or - for a CSV on standard input"
    )
    known = f"one of {', '.join(readers)}, {others}"
    if str(path) != "-" and any(path.glob("*.parquet")):
        from backprop.tables.parquet import read_whole

        return _typed(read_whole("the folder", path))
    if str(path) != "-" and path.suffix.lower() not in (*readers, *COMPRESSED):
        advice = " Save the sheet as CSV." if path.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise click.BadParameter(f"'{path}' should end in {known}.{advice}")
    with opened(path) as (file, suffix):
        if suffix not in readers:
            raise click.BadParameter(f"'{path}' should end in {known}.")
        return readers[suffix](file)


def _csv(file: BinaryIO, dialect: Dialect, texts: Sequence[str], delimiter: str | None = None) -> Columns:
    return csv(file.read(), replace(dialect, delimiter=delimiter or dialect.delimiter), texts)


def _typed(frame: Any, index: Sequence[str] = ()) -> Columns:
    """A table whose columns have kinds already."""
    for j, field in enumerate(frame.schema):
        if (kind := _usual(field.type)) != field.type:
            frame = frame.set_column(j, field.name, frame.column(j).cast(kind))
    columns = Columns(frame.column_names, index=list(index), typed=True)
    columns.frame = frame.rename_columns(columns.names)
    return columns


def _usual(kind: Any) -> Any:
    """The kind of Arrow that such values usually have, of the several that hold the same: that of a CSV, where it has one."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _usual(kind.value_type), kind.ordered)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    return pa.float32() if types.is_float16(kind) else kind


def of_arrow(frame: Any) -> Columns:
    """The columns of a table of Arrow, but for what was the index of a data frame."""
    from backprop.tables.frame import index_names

    return _typed(frame, index_names(frame.schema))


def _parquet(file: BinaryIO) -> Columns:
    import pyarrow.parquet as pq

    return of_arrow(pq.ParquetFile(file).read())


def _npy(file: BinaryIO) -> Columns:
    import numpy as np

    magic = file.read(6)
    if magic != b"\x93NUMPY":
        raise refusal("the file", "an .npy file", f"one that begins with {magic!r}")
    file.seek(0)
    return _columns(np.load(file, allow_pickle=False))


def _npz(file: BinaryIO) -> Columns:
    import zipfile

    import numpy as np

    try:
        inflated = sum(each.file_size for each in zipfile.ZipFile(file).infolist())
        require_bounded(inflated, file.seek(0, io.SEEK_END))
        archive = np.lib.npyio.NpzFile(file, allow_pickle=False)
        if "X" not in archive.files:
            raise refusal("the file", "arrays X (N, D) and y (N,)", f"{archive.files}")
        return _columns(archive["X"], archive["y"] if "y" in archive.files else None)
    except zipfile.BadZipFile as error:
        raise refusal("the file", "an .npz file", str(error)) from None


def _columns(X: Array, y: Array | None = None) -> Columns:
    """The columns x0, x1, … of X (N, D), and y."""
    import pyarrow as pa

    if X.ndim != 2 or X.dtype.kind not in "fiub":
        expected = "numbers with shape (N, D), one example per row"
        raise refusal("the array X", expected, f"{X.dtype} with shape {X.shape}")
    columns = {f"x{j}": pa.array(X[:, j]) for j in range(X.shape[1])}
    if y is not None:
        if y.shape != (len(X),) or y.dtype.kind not in "fiubU":
            expected = f"numbers or text with shape ({len(X)},), one for each row of X"
            raise refusal("the array y", expected, f"{y.dtype} with shape {y.shape}")
        columns["y"] = pa.array(y)
    return _typed(pa.table(columns))
