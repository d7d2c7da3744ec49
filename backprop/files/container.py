"""The file that everything is saved in: safetensors with plain data beside the tensors and a SHA-256 over every byte.

`write` puts a whole file in place or none; `read` takes nothing on trust, executes nothing, and allocates nothing that the file
does not hold. The layout is described in docs/use/files.md, for readers in other languages.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import reprlib
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.files.atomic import PathLike, naming, remove_strays, write_atomically

FORMAT = 1
START = f'{{"__metadata__":{{"format":"backprop {FORMAT}","sha256":"'.encode()
NO_DIGEST = b"0" * 64
DIGEST = slice(8 + len(START), 8 + len(START) + len(NO_DIGEST))  # where it stands, after 8 bytes of length
VERSION = re.compile(rb'"format":\s*"backprop (\d{1,9})"')  # a later format says so in the same words
KINDS = {
    "network": "Sequential.load",
    "estimator": "MLPClassifier.load or MLPRegressor.load",
    "checkpoint": "Trainer.resume",
    "members": "TabularClassifier or TabularRegressor with checkpoint=, or backprop resume,",
}  # and what opens them
CODES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "U64": "<u8", "I32": "<i4", "U32": "<u4", "U8": "|u1"}
TYPES = {name: np.dtype(code) for name, code in CODES.items()}
TYPE_NAMES = {kind: name for name, kind in TYPES.items()}
# What JSON may cost in memory and time before anything of it is known; a network of 1,000 layers is far below.
MOST_HEADER = 1 << 21  # bytes
MOST_VALUES = 1 << 16
MOST_DIGITS = 100  # of a whole number; reading more takes time that grows with their square
MOST_DEPTH = 200  # lists and dicts inside each other; `repr` and `build` come to Python's limit at about twice that
PIECE = 1 << 20  # bytes hashed while they are in cache


class FileFormatError(ValueError):
    """A file that is not what it should be: damaged, altered, of another kind, or of a newer version. Names path and reason.

    >>> import backprop as bp
    >>> try:
    ...     bp.Sequential.load(bp.__file__)
    ... except bp.FileFormatError as error:
    ...     print(str(error).partition("__init__.py: ")[2][:56])
    expected a file of net.save or trainer.save, got a heade
    """


def refuse(path: PathLike, expected: str, got: str, advice: str = "") -> NoReturn:
    """Raise the FileFormatError of this path."""
    raise FileFormatError(checks.message(os.fspath(path), expected, got, advice)) from None


def refusal(path: PathLike, expected: str, error: Exception) -> FileFormatError:
    """The FileFormatError for an error of whatever a file is to be turned into; a constructor of one's own may raise anything.

    Words of the file may stand in it at any length, so it is cut.
    """
    text = str(error)
    if ": expected " not in text:
        text = checks.message("what it holds", expected, f"{type(error).__name__}: {text}".rstrip("."))
    return FileFormatError(f"{os.fspath(path)}: {text if len(text) < 800 else f'{text[:500]} … {text[-250:]}'}")


def write(path: PathLike, kind: str, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Save plain data and arrays by name, as a file of this kind. The same values give the same bytes.

    Raises OSError where it cannot be written (the file that was there is then still whole), TypeError or ValueError for what is
    not plain data or too much of it.
    """
    # The widest first, so that each tensor starts at a multiple of its width.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    header = _header(path, kind, about, dict(ordered))
    tensors = [np.asarray(array, order="C").reshape(-1).view(np.uint8).data for _, array in ordered]
    digest = hashlib.sha256(header)
    for tensor in tensors:
        digest.update(tensor)
    write_atomically(path, _with_digest(header, digest.hexdigest().encode()), *tensors)


def _header(path: PathLike, kind: str, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Its length and the header, with zeros for the digest."""
    for name, array in arrays.items():
        if name == "__metadata__" or array.dtype not in TYPE_NAMES:
            got = f"{reprlib.repr(name)} of {array.dtype}"
            raise TypeError(checks.message(os.fspath(path), f"arrays of {[kind.name for kind in TYPE_NAMES]}", got))
    metadata = {"format": f"backprop {FORMAT}", "sha256": NO_DIGEST.decode(), "kind": kind, "about": _json(about)}
    entries: dict[str, Any] = {"__metadata__": metadata}
    places = itertools.pairwise(itertools.accumulate((array.nbytes for array in arrays.values()), initial=0))
    for (name, array), place in zip(arrays.items(), places, strict=True):
        entries[name] = {"dtype": TYPE_NAMES[array.dtype], "shape": array.shape, "data_offsets": place}
    text = _json(entries).encode()
    text += b" " * (-len(text) % 8)
    if _depth(about) > MOST_DEPTH:
        raise ValueError(checks.message(os.fspath(path), f"at most {MOST_DEPTH} levels of data", "more"))
    if len(text) > MOST_HEADER or _values(text) > MOST_VALUES:
        expected = f"at most {MOST_HEADER:,} bytes and {MOST_VALUES:,} values beside the tensors"
        raise ValueError(checks.message(os.fspath(path), expected, f"{len(text):,} and {_values(text):,}"))
    return len(text).to_bytes(8, "little") + text


def _with_digest(header: bytes, digest: bytes) -> bytes:
    return header[: DIGEST.start] + digest + header[DIGEST.stop :]


def _json(data: Any) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


def _values(text: bytes) -> int:
    """At least as many as JSON makes objects of."""
    return text.count(b"{") + text.count(b"[") + text.count(b",")


def _depth(data: Any) -> int:
    """How many lists and dicts are inside each other; counting stops beyond the most that may be."""
    depth, level = 0, [data]
    while (level := [each for each in level if isinstance(each, dict | list)]) and depth <= MOST_DEPTH:
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
        depth += 1
    return depth


def read(path: PathLike, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The plain data and the arrays of a file of this kind.

    Raises FileFormatError for a file that is not exactly as `write` left it, OSError for one that cannot be read.
    """
    with naming(path), _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = _read_header(path, file, size)
        entries = _parse(path, header[8:])
        about = _about(path, kind, entries.pop("__metadata__"))
        kinds = _tensors(path, entries, size - len(header))
        digest = hashlib.sha256(_with_digest(header, NO_DIGEST))
        arrays = {name: _read_tensor(path, file, digest, *of_tensor) for name, of_tensor in kinds.items()}
    if digest.hexdigest().encode() != header[DIGEST]:
        _refuse_altered(path)
    remove_strays(path)
    return about, arrays


def kind(path: PathLike) -> str:
    """What a file says that it holds, "network" or another: `read` then opens it. Raises FileFormatError, OSError."""
    with naming(path), _open(path) as file:
        header = _read_header(path, file, os.fstat(file.fileno()).st_size)
    metadata = _parse(path, header[8:]).get("__metadata__")
    return str(metadata.get("kind")) if isinstance(metadata, dict) else ""


def contents(path: PathLike) -> bytes:
    """All of a file of any kind; one of ours must be as it was saved. Raises FileFormatError, OSError."""
    with naming(path), _open(path) as file:
        data = file.read()
    if data.startswith(START, 8) and hashlib.sha256(_with_digest(data, NO_DIGEST)).hexdigest().encode() != data[DIGEST]:
        _refuse_altered(path)
    return data


def _refuse_altered(path: PathLike) -> NoReturn:
    refuse(path, "the SHA-256 that the file was saved with", "another one", "The file was altered or damaged.")


def _open(path: PathLike) -> BinaryIO:
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait; a folder has an error of its own
        refuse(path, "a file", "a pipe or device")
    return open(path, "rb")


def _read_header(path: PathLike, file: BinaryIO, size: int) -> bytes:
    """Length and header, after the checks that need no JSON."""
    expected = "a file of net.save or trainer.save"
    length = int.from_bytes(file.read(8), "little")
    if not len(START) <= length <= min(size - 8, MOST_HEADER):
        got = f"{size} bytes" if size < 8 else f"a header of {length:,} bytes in a file of {size:,}"
        refuse(path, expected, got, "It is cut short, or something else.")
    file.seek(0)
    header = file.read(8 + length)
    version = VERSION.search(header)
    if version and int(version[1]) > FORMAT:
        advice = "A newer version of the library wrote it: pip install --upgrade backprop-mlp."
        refuse(path, f"format {FORMAT}", f"the newer format {int(version[1])}", advice)
    if not header.startswith(START, 8):
        refuse(path, expected, "another header", "load_weights reads weights alone, by PyTorch's names.")
    return header


def _parse(path: PathLike, text: bytes) -> dict[str, Any]:
    """An object of JSON with each name once, and no number that is not finite."""
    if _values(text) > MOST_VALUES:
        refuse(path, f"at most {MOST_VALUES:,} values in the header", f"{_values(text):,}")
    try:
        data = DECODER.decode(text.decode("ascii"))
        depth = _depth(data)
    except RecursionError:
        depth = MOST_DEPTH + 1
    except ValueError as error:
        refuse(path, "JSON", str(error))
    if depth > MOST_DEPTH:
        refuse(path, f"at most {MOST_DEPTH} levels of JSON", "values nested too deeply")
    if not isinstance(data, dict):
        refuse(path, "JSON with names", reprlib.repr(data))
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in pairs:
        if name in named:
            raise ValueError(f"the name {reprlib.repr(name)} twice")
        named[name] = value
    return named


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {reprlib.repr(text)}")
    return float(text)


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_finite)


def _about(path: PathLike, kind: str, metadata: Any) -> dict[str, Any]:
    """The plain data, if it is of this kind."""
    names = ["format", "sha256", "kind", "about"]
    if list(metadata) != names or not all(isinstance(value, str) for value in metadata.values()):
        refuse(path, f"metadata {names}, each a text", reprlib.repr(metadata))
    if metadata["kind"] != kind:
        found = metadata["kind"]
        an = ["an" if str(each)[:1] in "aeiou" else "a" for each in (kind, found)]
        refuse(
            path,
            f"{an[0]} {kind}",
            f"{an[1]} {reprlib.repr(found)}",
            f"{KINDS[found]} opens it." if found in KINDS else "",
        )
    try:
        return _parse(path, metadata["about"].encode("ascii"))
    except UnicodeEncodeError:
        refuse(path, "ASCII", "another character")


def _tensors(path: PathLike, entries: dict[str, Any], size: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """(shape, dtype) of each tensor, after the check that they fill the rest of the file, one after another."""
    found, end = {}, 0
    for name, entry in entries.items():
        match entry:
            case {"dtype": str(kind), "shape": list(shape), "data_offsets": [start, stop]} if len(entry) == 3:
                pass
            case _:
                refuse(path, f"{_tensor(name)} with dtype, shape and data_offsets", reprlib.repr(entry))
        if kind not in TYPES:
            refuse(path, f"{_tensor(name)} of a type in {list(TYPES)}", reprlib.repr(kind))
        # A dimension larger than the file could hide behind one of 0.
        if len(shape) > 8 or not all(type(length) is int and 0 <= length <= size for length in shape):
            refuse(path, f"{_tensor(name)} with a shape that fits into {size:,} bytes", reprlib.repr(shape))
        expected = [end, end + math.prod(shape) * TYPES[kind].itemsize]
        if [start, stop] != expected or not type(start) is type(stop) is int:
            refuse(path, f"{_tensor(name)} at {expected}, after the one before", reprlib.repr([start, stop]))
        found[name], end = (tuple(shape), TYPES[kind]), expected[1]
    if end != size:
        advice = "The file was cut short." if size < end else "Something was appended."
        refuse(path, f"{end:,} bytes of tensors", f"{size:,}", advice)
    return found


def _tensor(name: str) -> str:
    return f"tensor {reprlib.repr(name)}"


def _read_tensor(path: PathLike, file: BinaryIO, digest: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    array: Array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data
    for start in range(0, array.nbytes, PIECE):
        piece = view[start : start + PIECE]
        if file.readinto(piece) < len(piece):  # type: ignore[attr-defined]
            refuse(path, "a file at rest", "one that was cut short while it was read")
        digest.update(piece)
    return array
