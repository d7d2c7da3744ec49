"""Data in: CSV, Parquet, .npy, .npz and standard input as an Arrow table. Predictions out: CSV, JSON lines, .npy."""

from __future__ import annotations

import csv
import errno
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from backprop.cli.group import plain, refusal

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.tables import Table

MOST_BLOCK = (1 << 31) - 1  # bytes that Arrow can parse as one


@dataclass(frozen=True)
class Reading:
    """How to read: the options of `options.reading`, and the columns that are categories whatever they look like."""

    delimiter: str = ","
    no_header: bool = False
    drop: Sequence[str] = ()
    categories: Sequence[str] = ()

    def frame(self, path: Path, table: Table | None = None) -> Any:
        """The Arrow table of a file, with the kinds of columns that `table` has learnt.

        Raises click.BadParameter for another suffix, OSError for a file that cannot be read, ValueError for one that is not
        what its suffix says or has not the columns to drop, ImportError without the extra `tables`.
        """
        try:
            import pyarrow as pa
        except ImportError as error:
            raise ImportError('files of data need pyarrow: pip install "backprop-mlp[tables]"') from error
        texts, codes = self._known(table)
        try:
            frame = self._read(path, texts)
        except (ValueError, EOFError, MemoryError, pa.ArrowException) as error:
            raise ValueError(f"{'standard input' if str(path) == '-' else path}: {error}") from error
        for option, names in (("--drop", self.drop), ("--categories", self.categories)):
            if absent := [name for name in names if name not in frame.column_names]:
                raise refusal(f"{option}, {path}", f"columns {absent}", f"columns {frame.column_names}")
        return as_categories(frame.drop_columns(list(self.drop)), texts, codes)

    def _known(self, table: Table | None) -> tuple[list[str], list[str]]:
        """Columns that are to be read as text, and those that are categories that are numbers."""
        known = {} if table is None else dict(table.categories)
        if table is not None and table.target is not None and table.classes is not None:
            known[table.target] = table.classes.tolist()
        texts = [name for name, values in known.items() if isinstance(values[0], str)]
        codes = [name for name, values in known.items() if type(values[0]) in (int, float)]
        return [*texts, *self.categories], codes

    def _read(self, path: Path, texts: list[str]) -> Any:
        text = partial(self._csv, texts=texts)
        if str(path) == "-":
            return text(sys.stdin.buffer)
        readers: dict[str, Callable[[BinaryIO], Any]]
        readers = {".csv": text, ".tsv": partial(text, delimiter="\t"), ".txt": text}
        readers |= {".npy": _npy, ".npz": _npz}
        suffix, known = path.suffix.lower(), ", ".join([*readers, ".parquet"])
        if suffix == ".parquet" or any(path.glob("*.parquet")):
            from backprop.tables.parquet import read_whole

            return read_whole("the folder" if path.is_dir() else "the file", path)
        if suffix not in readers:
            other = "be a folder of .parquet files, or - for a CSV on standard input"
            raise click.BadParameter(f"'{path}' should end in one of {known}, {other}.")
        with path.open("rb") as file:
            return readers[suffix](file)

    def _csv(self, file: BinaryIO, texts: list[str], delimiter: str | None = None) -> Any:
        import pyarrow as pa
        import pyarrow.csv as arrow

        # Arrow's threads would read a file of Python's, and after an error wait for each other for ever when Python ends.
        text = file.read()
        types = dict.fromkeys(texts, pa.string())

        def parse(block: int | None = None) -> Any:
            return arrow.read_csv(
                pa.BufferReader(text),
                read_options=arrow.ReadOptions(autogenerate_column_names=self.no_header, block_size=block),
                parse_options=arrow.ParseOptions(delimiter=delimiter or self.delimiter, newlines_in_values=True),
                convert_options=arrow.ConvertOptions(column_types=types, strings_can_be_null=True),
            )

        try:
            frame = parse()
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error):
                raise
            frame = parse(min(len(text), MOST_BLOCK))  # a row longer than one of Arrow's blocks
        if not self.no_header and all(_is_number(name) for name in frame.column_names):
            got, advice = f"numbers {frame.column_names[:4]}", "With --no-header the columns are x0, x1 and so on."
            raise refusal("the first line", "the names of the columns", got, advice)
        binary = [field.name for field in frame.schema if pa.types.is_binary(field.type)]
        if binary:
            raise refusal("the file", "text in UTF-8", f"other bytes in columns {binary}")
        for name, column in zip(frame.column_names, frame.columns, strict=True):
            if name not in texts and _is_grouped(column):
                advice = f"Remove the separators of thousands, or say --categories {name}."
                raise refusal(f"column {name!r}", "numbers", f"{column.drop_null()[0].as_py()!r}", advice)
        return frame.rename_columns([f"x{j}" for j in range(frame.num_columns)]) if self.no_header else frame


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_grouped(column: Any) -> bool:
    """Whether these are numbers such as 1,234.5, which would pass for words."""
    import pyarrow as pa
    import pyarrow.compute as compute

    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return False
    grouped = compute.match_substring_regex(column, r"^-?\d{1,3}(,\d{3})*(\.\d+)?$")
    commas = compute.match_substring(column, ",")
    return bool(compute.all(grouped).as_py() and compute.any(commas).as_py())


def _npy(file: BinaryIO) -> Any:
    import numpy as np

    magic = file.read(6)
    if magic != b"\x93NUMPY":
        raise refusal("the file", "an .npy file", f"one that begins with {magic!r}")
    file.seek(0)
    return _columns(np.load(file, allow_pickle=False))


def _npz(file: BinaryIO) -> Any:
    import zipfile

    import numpy as np

    try:
        archive = np.lib.npyio.NpzFile(file, allow_pickle=False)
        if "X" not in archive.files:
            raise refusal("the file", "arrays X (N, D) and y (N,)", f"{archive.files}")
        return _columns(archive["X"], archive["y"] if "y" in archive.files else None)
    except zipfile.BadZipFile as error:
        raise refusal("the file", "an .npz file", str(error)) from None


def _columns(X: Array, y: Array | None = None) -> Any:
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
    return pa.table(columns)


def as_categories(frame: Any, texts: Sequence[str] = (), codes: Sequence[str] = ()) -> Any:
    """Columns of numbers as the categories they stand for."""
    import pyarrow as pa

    for j, name in enumerate(frame.column_names):
        kind = frame.schema.field(j).type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if number and name in texts:
            frame = frame.set_column(j, name, frame[name].cast(pa.string()))
        elif number and name in codes:
            frame = frame.set_column(j, name, frame[name].dictionary_encode())
    return frame


def out_format(out: Path | None, given: str | None) -> str:
    """The format of the predictions: as asked for, else by the suffix, else CSV. Raises click.BadParameter."""
    kind = f".{given}" if given else out.suffix if out else ".csv"
    if kind not in WRITERS:
        raise click.BadParameter(f"'{out}' should end in one of {', '.join(WRITERS)}.", param_hint="'--out'")
    return kind


def write(columns: Mapping[str, Array], out: Path | None, kind: str) -> None:
    """Predictions by column to a file, whole or not at all, or to standard output."""
    data = WRITERS[kind](columns)
    if out is not None:
        from backprop.files.atomic import write_atomically

        write_atomically(out, data)
        return
    if sys.stdout is None:
        raise OSError(errno.EBADF, "Standard output is closed")
    left = memoryview(data)
    while left:  # without a buffer, as by python -u, a write may take a part
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()


def _rows(columns: Mapping[str, Array]) -> Iterable[tuple[Any, ...]]:
    return zip(*(values.tolist() for values in columns.values()), strict=True)


def _to_csv(columns: Mapping[str, Array]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(_rows(columns))
    return text.getvalue().encode()


def _to_json_lines(columns: Mapping[str, Array]) -> bytes:
    rows = (dict(zip(columns, row, strict=True)) for row in _rows(columns))
    return "".join(f"{json.dumps(plain(row), ensure_ascii=False)}\n" for row in rows).encode()


def _to_npy(columns: Mapping[str, Array]) -> bytes:
    """One column as (N,), several as (N, K)."""
    import numpy as np

    arrays = list(columns.values())
    file = io.BytesIO()
    np.save(file, arrays[0] if len(arrays) == 1 else np.column_stack(arrays), allow_pickle=False)
    return file.getvalue()


WRITERS = {".csv": _to_csv, ".jsonl": _to_json_lines, ".npy": _to_npy}
