"""Files that are put in place whole or not at all, however their writing ends."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

PathLike = str | os.PathLike[str]


def write_atomically(path: PathLike, *pieces: bytes | memoryview) -> None:
    """Write the pieces to a file beside `path`, make it durable, and put it in place in one move.

    A link is followed. A file keeps the permissions it had; a new one has those of any new file. What earlier writers of the
    same path left behind when they were killed is removed, but never a file that somebody is writing.

    Raises OSError; the file that was there before is then still there, and nothing else.
    """
    with naming(path):
        target = Path(os.path.realpath(path))
        existed = target.exists()
        if existed and not target.is_file():
            raise OSError(errno.EISDIR if target.is_dir() else errno.EINVAL, "Not a regular file", str(path))
        remove_strays(target)
        file, part = _create(target)
        before = _beside(target)
        try:
            _write(file.fileno(), pieces)
            if sys.platform == "win32":
                file.close()  # only then it can be moved there; elsewhere the lock stays until it has been
                _replace_read_only(part, target)
            else:
                if existed:
                    with suppress(OSError):  # of a file system without permissions, or without links
                        os.chmod(part, stat.S_IMODE(os.stat(target).st_mode))
                        os.link(target, before)
                os.replace(part, target)
            _make_durable(target, existed, before)
        finally:
            _clear_away(file, part, before)


def _replace_read_only(part: Path, target: Path) -> None:
    """Replace, where a read-only file can be neither replaced nor removed: it is writable for that moment."""
    read_only = target.exists() and not os.stat(target).st_mode & stat.S_IWRITE
    if not read_only:
        os.replace(part, target)
        return
    os.chmod(target, stat.S_IREAD | stat.S_IWRITE)
    try:
        os.replace(part, target)
    finally:
        os.chmod(target, stat.S_IREAD)


def _clear_away(file: BinaryIO, *left: Path) -> None:
    """What is on the disk is decided already: an error here would say that the new file is not there."""
    with suppress(OSError):
        file.close()
    for path in left:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _create(target: Path) -> tuple[BinaryIO, Path]:
    """A new file beside the target, locked: whoever looks for strays sees that its writer is alive."""
    while True:
        part = _beside(target)
        file = open(part, "xb", buffering=0)  # noqa: SIM115
        if sys.platform != "win32":
            with suppress(OSError):  # of a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:  # taken for a stray before it was locked
                file.close()
                continue
        return file, part


def _write(file: int, pieces: Iterable[bytes | memoryview]) -> None:
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[os.write(file, left) :]
    _to_disk(file)


def _to_disk(file: int) -> None:
    """Have the system bring a file to the disk; macOS's fsync would stop at the disk's own memory."""
    if full := getattr(fcntl, "F_FULLFSYNC", None):
        with suppress(OSError):  # of a file system that has no such call
            fcntl.fcntl(file, full)
            return
    os.fsync(file)


def _make_durable(target: Path, existed: bool, before: Path) -> None:
    """Bring the new name to the disk; if that fails, bring the old file back, as for every other error."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _to_disk(folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # said by file systems that do not do this
                raise
        finally:
            os.close(folder)
    except BaseException:
        if before.exists():
            os.replace(before, target)
        elif not existed:
            target.unlink()
        raise


def _beside(target: Path) -> Path:
    return target.with_name(f".{_stem(target)}.{secrets.token_hex(4)}.part")


def _stem(target: Path) -> str:
    """The target's name, or a digest of it where a longer one might be too long."""
    name = os.fsencode(target.name)
    return target.name if len(name) < 200 else hashlib.sha256(name).hexdigest()


def remove_strays(path: PathLike) -> None:
    """Remove what killed writers of this path left behind, as far as that is possible. A living one holds a lock."""
    target = Path(os.path.realpath(path))
    ours = re.compile(re.escape(f".{_stem(target)}.") + r"[0-9a-f]{8}\.part")
    with suppress(OSError), os.scandir(target.parent) as entries:
        strays = [each.path for each in entries if ours.fullmatch(each.name) and each.is_file(follow_symlinks=False)]
        for stray in strays:
            with suppress(OSError):
                _remove_unless_locked(stray)


def _remove_unless_locked(part: str) -> None:
    if sys.platform == "win32":
        os.unlink(part)  # refused there while it is open
        return
    with open(part, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(part)


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Let every OSError name the path that the caller knows; one that no file can have is refused like one that is not there."""
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise OSError(errno.EINVAL, "No file can have this name", ascii(os.fspath(path)))
    if os.fspath(path).endswith((os.sep, os.altsep or os.sep)):
        raise IsADirectoryError(errno.EISDIR, "The name of a folder", os.fspath(path))
    try:
        yield
    except OSError as error:
        if error.filename == os.fspath(path) and error.filename2 is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
