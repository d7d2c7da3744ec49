"""CSV as an Arrow table: encoding and delimiter found out, names made addresses, pyarrow does the reading."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from backprop.cli.group import refusal, short
from backprop.cli.source import utf8

DELIMITERS = (",", ";", "\t", "|", " ")
SAMPLE, LINES = 1 << 16, 50  # characters, and lines of them, by which the delimiter is guessed
MOST_BLOCK = (1 << 31) - 1  # bytes that Arrow can parse as one
HOLES = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NULL", "Null", "null", "#NA", "1.#QNAN", "-1.#IND")


@dataclass(frozen=True)
class Dialect:
    """How a text is to be read; None is found out, or the usual."""

    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    na: Sequence[str] | None = None
    no_header: bool = False

    @property
    def holes(self) -> list[str]:
        """What stands for a hole: the empty cell, and the words for it."""
        return ["", *(HOLES if self.na is None else self.na)]


@dataclass
class Columns:
    """What was read: the Arrow table, each of whose columns has a name of its own, and what is to be told of it.

    A column without a name, and each of a name that is repeated, is called @ and its place, from 1.
    """

    called: list[str]  # names as the file has them
    frame: Any = None
    index: list[str] = field(default_factory=list)  # of a data frame
    notes: list[str] = field(default_factory=list)
    typed: bool = False  # whether the file says what kind a column is of
    zeros: dict[str, str] = field(
        default_factory=dict
    )  # columns of whole numbers, some of which begin with 0, and the first

    @property
    def names(self) -> list[str]:
        """Their own names."""
        counts = Counter(self.called)
        return [name if name and counts[name] == 1 else self._place(j + 1) for j, name in enumerate(self.called)]

    def _place(self, number: int) -> str:
        """@ and the number; with another @ where a column has that for a name."""
        place = f"@{number}"
        while place in self.called:
            place = f"@{place}"
        return place

    @property
    def repeated(self) -> dict[str, list[str]]:
        """Names that stand more than once, each with the columns it stands for."""
        several = [name for name, n in Counter(self.called).items() if name and n > 1]
        return {
            name: [own for own, each in zip(self.names, self.called, strict=True) if each == name] for name in several
        }

    @property
    def unnamed(self) -> dict[int, str]:
        """Columns without a name, also where a data frame has made one up for its index, by their places from 0."""
        pairs = enumerate(zip(self.names, self.called, strict=True))
        return {
            j: own for j, (own, name) in pairs if not name or (j == 0 and re.fullmatch(r"Unnamed: 0(\.\d+)?", name))
        }

    def places(self, name: str) -> list[str]:
        """The columns that a name stands for: all that have it, or the one at @ and its place; "" those without a name."""
        found = [own for own, each in zip(self.names, self.called, strict=True) if name in (own, each)]
        at = re.fullmatch(r"@(\d{1,9})", name)
        return found or (self.names[int(at[1]) - 1 : int(at[1])] if at and int(at[1]) else [])

    def lasting(self, name: str) -> str:
        """A name for the same column of another file: its own, if it has one."""
        found = self.places(name)
        return found[0] if len(found) == 1 else name


def read(data: bytes, dialect: Dialect, texts: Sequence[str]) -> Columns:
    """The table of a CSV. `texts` are read as words whatever they look like.

    Raises ValueError for what is no CSV, by row and column.
    """
    notes: list[str] = []
    try:
        text = utf8(data, dialect.encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(data, error, dialect) from None
    text = text.lstrip(b"\r\n")
    if not text or text.isspace():
        raise refusal("the file", "the names of columns and rows", "nothing")
    start = io.TextIOWrapper(io.BytesIO(text[:SAMPLE]), encoding="utf-8", errors="replace", newline="").read()
    first = re.match(r'[\r\n]*"?sep=(.)"?\r?\n', start)  # of spreadsheets
    if first:
        text, start = text[len(first[0].encode()) :], start[len(first[0]) :]
    delimiter = dialect.delimiter or (first[1] if first else _delimiter(start, dialect, len(text) > SAMPLE))
    if delimiter != "," and not dialect.delimiter:
        notes.append(f"Columns are separated by {delimiter!r}; --delimiter says otherwise.")
    names, header = _names(text, delimiter, dialect)
    columns = Columns(names, notes=notes)
    words = [own for own, name in zip(columns.names, names, strict=True) if name in texts or own in texts]
    columns.frame = _parse(text, delimiter, dialect, columns.names, words, header)
    if re.search(rb"[^0-9.,+'-]0[0-9]", text):
        again = _parse(text, delimiter, dialect, columns.names, columns.names, header)
        columns.zeros = _zeros(columns.frame, again)
    read_as_utf8 = text.isascii() or data.endswith(text)
    if dialect.encoding and not read_as_utf8 and _is_utf8(data):
        notes.append(
            f"The file is read as {dialect.encoding}, and is text in UTF-8, too: --encoding utf-8, if words look odd."
        )
    _require_closed_quotes(text, columns.frame)
    return columns


def _zeros(frame: Any, words: Any) -> dict[str, str]:
    """Columns of whole numbers of which some are written with zeros before them, as codes are; and the first such word."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for name in [each.name for each in frame.schema if pa.types.is_integer(each.type)]:
        codes = pc.match_substring_regex(words[name], r"^\s*0[0-9]+\s*$")
        if pc.any(codes).as_py():
            found[name] = words[name].filter(codes)[0].as_py().strip()
    return found


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(start: str, dialect: Dialect, cut: bool) -> str:
    """The mark that gives every line the same number of cells, or else the first line the most of them."""
    score = {}
    for mark in DELIMITERS:
        lines = csv.reader(io.StringIO(start, newline=""), delimiter=mark)
        rows: list[list[str]] = []
        with suppress(csv.Error):  # a cell longer than it can take
            rows += (row for row, _ in zip(lines, range(LINES), strict=False) if row)
        whole = rows[:-1] if cut and 1 < len(rows) < LINES else rows
        if whole:
            widths = {len(row) for row in whole[1:]} or {len(whole[0])}
            same = widths == {len(whole[0])} and len(whole[0]) > 1
            named = widths == {len(whole[0]) + 1} and start.startswith('"')  # rows with names, as of R
            several = len(whole[0]) if mark != " " or ((same or named) and all(whole[0])) else 0
            score[mark] = (same or (named and several > 0), mark not in (dialect.decimal, " "), several)
    return max(score, key=score.__getitem__, default=",")


def _names(text: bytes, delimiter: str, dialect: Dialect) -> tuple[list[str], bool]:
    """The names in the first line, and whether it is to be skipped. Raises ValueError for one without any word.

    Where each row has one cell more, and marks of quotation, as R writes names of rows, that column has no name.
    """
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline=""), delimiter=delimiter)
    rows = filter(None, lines)
    try:
        first = next(rows)
    except csv.Error as error:
        raise refusal("the first line", "the names of the columns", f"a very long cell ({error})") from None
    second: list[str] = []
    with suppress(csv.Error):
        second = next(rows, [])
    if dialect.no_header:
        return [f"x{j}" for j in range(len(first))], False
    if all(_is_number(name, dialect) for name in first):
        got, advice = f"numbers {short(first[:4])}", "With --no-header the columns are x0, x1 and so on."
        raise refusal("the first line", "the names of the columns", got, advice)
    of_rows = len(second) == len(first) + 1 and re.match(rb'"[^\r\n]*[\r\n]+"', text)
    return [*([""] if of_rows else []), *(name.strip() for name in first)], True


def _is_number(cell: str, dialect: Dialect) -> bool:
    try:
        float(cell.replace(dialect.decimal or ".", "."))
    except ValueError:
        return False
    return True


def _parse(text: bytes, delimiter: str, dialect: Dialect, names: list[str], words: list[str], header: bool) -> Any:
    import pyarrow as pa
    import pyarrow.csv as arrow

    # Arrow's threads would read a file of Python's, and after an error wait for each other for ever when Python ends.
    source = pa.py_buffer(text.rstrip(b"\r\n") if len(names) == 1 else text)
    convert = arrow.ConvertOptions(
        column_types=dict.fromkeys(words, pa.string()),
        null_values=dialect.holes,
        strings_can_be_null=True,
        decimal_point=dialect.decimal or ".",
        true_values=["true", "True", "TRUE"],  # and no numbers
        false_values=["false", "False", "FALSE"],
    )
    # An empty line is a hole in the only column there is, and no row where there are several.
    parse = arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=len(names) > 1)

    def attempt(block: int | None = None, threads: bool = True) -> Any:
        read = arrow.ReadOptions(
            column_names=names, skip_rows_after_names=int(header), block_size=block, use_threads=threads
        )
        return arrow.read_csv(pa.BufferReader(source), read_options=read, parse_options=parse, convert_options=convert)

    whole = min(len(text), MOST_BLOCK)
    try:
        return attempt()
    except pa.ArrowInvalid as error:
        if "straddl" in str(error):  # a row longer than one of Arrow's blocks
            return attempt(whole)
    try:
        return attempt(whole, threads=False)  # which can tell the row
    except pa.ArrowInvalid as error:
        raise _ragged(str(error), delimiter, header) from None


def _ragged(error: str, delimiter: str, header: bool) -> ValueError:
    """What Arrow says of a row with another number of cells, with advice."""
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", error, re.DOTALL)
    if not found:
        return ValueError(short(error, 300))
    row, expected, got, line = found.groups()
    advice = "If they are separated by something else: --delimiter." if got == "1" else ""
    if int(got) == int(expected) + 1:
        advice = "If the rows begin with names of their own, give that column one; in R: col.names = NA."
    who, row = "CSV parse error", int(row) - 1 - header
    return refusal(who, f"{expected} cells between {delimiter!r}", f"{got} at row {row}: {short(line)}", advice)


def _require_closed_quotes(text: bytes, frame: Any) -> None:
    """Refuse a last row that goes on to the end of the file because a quotation mark was never closed."""
    import pyarrow as pa

    if not len(frame) or text.count(b'"') % 2 == 0:
        return
    for name, column in zip(frame.column_names, frame.columns, strict=True):
        last = column[-1].as_py() if pa.types.is_string(column.type) else None
        if last and "\n" in last:
            got = f"one that is open to the end of the file: {short(last)} at row {len(frame) - 1}"
            raise refusal(f"column {name!r}", "quotation marks in pairs", got)


def _undecodable(data: bytes, error: UnicodeDecodeError, dialect: Dialect) -> ValueError:
    """The refusal of bytes that are not of the encoding, by row, column and value."""
    if error.encoding != "utf-8" and not dialect.encoding:
        return refusal("the file", f"text in {error.encoding}, as its first bytes say", error.reason)
    begin = max(data.rfind(end, 0, error.start) for end in (b"\n", b"\r")) + 1
    line = re.split("[\r\n]", data[begin : begin + SAMPLE].decode("cp1252", errors="replace"))[0]
    row = max(data.count(end, 0, error.start) for end in (b"\n", b"\r")) - (not dialect.no_header)
    sample = data[:SAMPLE].decode("cp1252", errors="replace")
    delimiter = dialect.delimiter or _delimiter(sample, dialect, len(data) > SAMPLE)
    names, cells = _cells(re.split("[\r\n]", sample)[0], delimiter), _cells(line, delimiter)
    at = len(_cells(line[: error.start - begin + 1], delimiter)) - 1
    place = f"column {names[at]!r}" if row >= 0 and at < len(names) else "the names of the columns"
    got = f"the byte 0x{data[error.start]:02X}{f' at row {row}' if row >= 0 else ''}"
    if dialect.encoding:
        return refusal(place, f"text in {dialect.encoding}", got, "--encoding names another, such as utf-8 or cp1252.")
    advice = f"In the code page of Windows it is {short(cells[min(at, len(cells) - 1)])}: --encoding cp1252."
    return refusal("the file", f"text in UTF-8 in {place}", got, advice)


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line, one at least."""
    try:
        return next(csv.reader([line], delimiter=delimiter), []) or [line]
    except csv.Error:  # a cell longer than it can take
        return [line]
