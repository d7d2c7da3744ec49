"""Bytes of a file or of standard input: nothing that never ends, inflated within bounds, text as UTF-8."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from backprop.cli.group import refusal

MOST = 1 << 31  # bytes that a pipe or a compressed file may come to
ANY = 1 << 26  # and so many for a compressed file however small it is
RATIO = 200  # beyond which a larger one is made to fill the memory
PIECE, SAMPLE = 1 << 20, 1 << 16
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAGIC = {  # what begins so, and what to do
    b"PK\x03\x04": ("a spreadsheet or an archive", "Save the sheet as CSV, or name a zipped CSV .csv.zip."),
    b"\xd0\xcf\x11\xe0": ("an old spreadsheet", "Save the sheet as CSV."),
    b"\x1f\x8b": ("compressed bytes", "Name the file .csv.gz."),
    b"BZh": ("compressed bytes", "Name the file .csv.bz2."),
    b"\xfd7zXZ": ("compressed bytes", "Name the file .csv.xz."),
    b"\x28\xb5\x2f\xfd": ("compressed bytes", "Name the file .csv.zst."),
    b"PAR1": ("a Parquet file", "Name the file .parquet."),
    b"SQLite": ("a database", "Write what you need of it as CSV."),
    b"%PDF": ("a document", ""),
}


def require_regular(path: Path) -> None:
    """Refuse what may never end or block: devices, named pipes. What is not there is found out when it is opened."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        got = "a named pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise refusal(path, "a file", got, "What comes through a pipe is read as -, standard input.")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """The bytes of a file, inflated, and the suffix that says what they are; of - those of a CSV on standard input."""
    if str(path) == "-":
        if sys.stdin is None:
            raise refusal("standard input", "a CSV", "it closed")
        yield io.BytesIO(bounded(sys.stdin.buffer, MOST, "Write it to a file first.", text=True)), ".csv"
        return
    require_regular(path)
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        if suffix not in COMPRESSED:
            yield file, suffix
            return
        most = min(MOST, ANY + RATIO * os.fstat(file.fileno()).st_size)
        try:
            inflated, suffix = _inflated(file, path, most)
        except DAMAGED as error:
            raise refusal(path, f"a whole {suffix} file", str(error) or type(error).__name__) from None
        yield io.BytesIO(inflated), suffix


DAMAGED = (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def _inflated(file: BinaryIO, path: Path, most: int) -> tuple[bytes, str]:
    """All bytes of a compressed file, and the suffix of what is in it."""
    kind, inner, advice = path.suffix.lower(), Path(path.stem).suffix.lower() or ".csv", "Inflate it to a file first."
    if kind == ".zip":
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
            if len(names) != 1:
                raise refusal(path, "an archive of a single file", f"{len(names)}: {names[:4]}")
            with archive.open(names[0]) as member:
                return bounded(cast(BinaryIO, member), most, advice), Path(names[0]).suffix.lower() or ".csv"
    if kind == ".zst":
        import pyarrow as pa

        return bounded(pa.CompressedInputStream(file, "zstd"), most, advice), inner
    module = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[kind]
    with module.open(file) as stream:
        return bounded(cast(BinaryIO, stream), most, advice), inner


def bounded(file: BinaryIO, most: int, advice: str, *, text: bool = False) -> bytes:
    """All bytes of a stream. Raises ValueError for more than `most`, and at once for bytes that are no text where it is to be."""
    pieces: list[bytes] = []
    size = 0
    while piece := file.read(PIECE):
        if text and not pieces:
            _require_no_other(piece[:SAMPLE])
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise refusal("the file", f"at most {most:,} bytes", "more, and no end in sight", advice)
    return b"".join(pieces)


def require_bounded(size: int, compressed: int) -> None:
    """Refuse an archive that says itself that it is made to fill the memory."""
    if size > ANY + RATIO * compressed:
        got = f"{compressed:,} that inflate to {size:,}"
        raise refusal("the file", f"at most {RATIO} times the bytes that it has", got, "Save it without compression.")


def is_encoding(name: str) -> bool:
    """Whether this is the name of an encoding of text."""
    try:
        return "1,2\n".encode(name).decode(name) == "1,2\n"
    except (LookupError, ValueError):
        return False


def utf8(data: bytes, encoding: str | None) -> bytes:
    """A text in UTF-8, without the mark at its beginning; that mark decides, then `encoding`.

    Raises ValueError for what is no text, UnicodeDecodeError for other bytes than the encoding has.
    """
    mark = next((mark for mark in BOMS if data.startswith(mark)), None)
    if mark is not None:
        encoding = BOMS[mark]
        while data.startswith(codecs.BOM_UTF8):  # some have two
            data = data[len(codecs.BOM_UTF8) :]
    elif not encoding:
        _require_utf8(data[:SAMPLE])
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        _validate(data)
        return data
    return data.decode(encoding).lstrip("\ufeff").encode()


def _require_no_other(start: bytes) -> None:
    """Refuse bytes that no text of any encoding begins with, and say what they look like."""
    for magic, (what, advice) in MAGIC.items():
        if start.startswith(magic):
            raise refusal("the file", "text", what, advice)
    control = sum(start.count(byte) for byte in range(1, 32) if byte not in b"\t\n\v\f\r")
    if 20 * control > len(start) or start.count(0) == len(start) > 0:
        raise refusal("the file", "text", f"bytes such as {start[:8]!r}")


def _require_utf8(start: bytes) -> None:
    """Refuse what is text of no encoding, or of one with two bytes for a character."""
    _require_no_other(start)
    even, odd = start[::2].count(0), start[1::2].count(0)
    if 4 * max(even, odd) > len(start) > 8 and min(even, odd) * 8 <= max(even, odd):
        option = f"--encoding utf-16-{'be' if even > odd else 'le'}"
        raise refusal("the file", "text in UTF-8", "a zero in every second byte", f"It may be UTF-16: {option}.")
    if 20 * start.count(0) > len(start):
        raise refusal("the file", "text", f"bytes such as {start[:8]!r}")


def _validate(data: bytes) -> None:
    """Raise the UnicodeDecodeError of the first byte that is not UTF-8, without a second copy of the text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), PIECE):
        try:
            decoder.decode(data[start : start + PIECE], final=start + PIECE >= len(data))
        except UnicodeDecodeError:
            data.decode()  # names the place in the whole
            raise
