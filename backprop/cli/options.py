"""Arguments that several commands have."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from backprop.cli.group import tell
from backprop.cli.source import is_encoding, require_regular

F = TypeVar("F", bound=Callable[..., Any])


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers ≥ 1 with commas between them; "none" is none of them."""
    parts = [] if text == "none" else text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"'{text}' is not a list of whole numbers ≥ 1, such as 64,64.")
    return tuple(map(int, parts))


def character(text: str) -> str:
    r"""A single character; \t is a tabulator."""
    text = {"\\t": "\t", "space": " "}.get(text, text)
    if len(text) != 1:
        raise click.BadParameter(f"'{text}' is not a single character.")
    return text


def _delimiter(text: str) -> str:
    """What may stand between columns: one byte that is in no number and no word."""
    mark = character(text)
    if not mark.isascii() or mark.isalnum() or mark in "\"'.\r\n":
        raise click.BadParameter(f"'{text}' cannot separate columns; , ; | and a tabulator can.")
    return mark


def _names(text: str) -> tuple[str, ...]:
    """Names of columns with commas between them, as in a line of a CSV: "a,b" in quotes is one name, "" the empty one."""
    try:
        return tuple(next(csv.reader([text], strict=True), []))
    except csv.Error as error:
        raise click.BadParameter(f"'{text}': {error}.") from None


def _thousands(text: str) -> str:
    """What may stand between thousands."""
    if character(text) not in ".,'’_ \u00a0\u202f":
        raise click.BadParameter(f"'{text}' is not one of . , ' _ and a space.")
    return character(text)


def _holes(text: str | None) -> tuple[str, ...] | None:
    """Words for a hole; an empty text is none of them."""
    return None if text is None else _names(text)


def _dates(text: str) -> dict[str, str | None]:
    """NAME or NAME=FORMAT with commas between them."""
    parts = [name.rpartition("=") if "%" in name.rpartition("=")[2] else (name, "", "") for name in _names(text)]
    return {name: format or None for name, _, format in parts}


def _encoding(name: str | None) -> str | None:
    """The name of an encoding of text."""
    if name is not None and not is_encoding(name):
        raise click.BadParameter(f"'{name}' is no encoding of text; utf-8, utf-16, cp1252 and latin-1 are.")
    return name


class File(click.Path):
    """A file to write, with one of these suffixes, which keep a slip from replacing other data."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises click.BadParameter for another suffix."""
        path: Any = super().convert(value, param, ctx)
        if path.suffix not in self.suffixes:
            among = "one of " if len(self.suffixes) > 1 else ""
            self.fail(f"'{path}' should end in {among}{', '.join(self.suffixes)}.", param, ctx)
        return path


FILE = click.Path(path_type=Path)
DATA = click.Path(path_type=Path, allow_dash=True)
MODEL, PICTURE, LOG = File(".safetensors"), File(".png", ".svg", ".pdf"), File(".csv", ".jsonl")


def whole(name: str, default: int, text: str | None = None, *, least: int = 1) -> Callable[[F], F]:
    """A whole number."""
    return click.option(name, type=click.IntRange(least), default=default, help=text)


def choice(name: str, words: Iterable[str], text: str | None = None) -> Callable[[F], F]:
    """One of these words, the first unless given."""
    words = list(words)
    return click.option(name, type=click.Choice(words), default=words[0], help=text)


def numbers(name: str, default: str, text: str) -> Callable[[F], F]:
    """Several whole numbers."""
    text = f"{text} [{default}]"
    return click.option(name, type=_numbers, metavar="N,…", default=default, show_default=False, help=text)


def columns(name: str, text: str) -> Callable[[F], F]:
    """Several columns."""
    return click.option(name, type=_names, metavar="NAME,…", default="", show_default=False, help=text)


def own_layers(command: F) -> F:
    """--layer: classes that the library does not know."""
    text = "A layer of your own that the model contains."
    return click.option("--layer", "layers", multiple=True, metavar="MODULE:CLASS", help=text)(command)


def model(command: F) -> F:
    """MODEL and --layer."""
    return click.argument("model", type=FILE)(own_layers(command))


def target(command: F) -> F:
    """--target: of a model that does not know its own."""
    text = "The column with the answers. [that of fit; of an estimator's file the one column that is no feature]"
    return click.option("--target", metavar="COLUMN", help=text)(command)


def reading(command: F) -> F:
    """How data are to be read."""
    options = [
        columns("--drop", "Columns to leave out; @3 is the third."),
        click.option(
            "--delimiter", type=_delimiter, metavar="CHARACTER", help="Between the columns of a CSV. [guessed]"
        ),
        click.option("--decimal", type=click.Choice([".", ","]), help="The decimal point of a CSV. [.]"),
        click.option(
            "--thousands",
            type=_thousands,
            metavar="CHARACTER",
            help="What stands between thousands: . , ' or a space. [nothing]",
        ),
        click.option(
            "--encoding",
            type=_encoding,
            metavar="NAME",
            help="Of a CSV, such as cp1252. [utf-8, or as its first bytes say]",
        ),
        click.option(
            "--na", type=_holes, metavar="WORD,…", help="What stands for a hole. [NA, NaN, null and the like]"
        ),
        click.option("--dates", type=_dates, metavar="NAME[=FORMAT],…", default="", show_default=False, help=DATES),
        click.option("--no-header", is_flag=True, help="The first line of a CSV is data; columns are x0, x1, …"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


DATES = "Dates to make numbers of, days since 1970; a FORMAT is like %d.%m.%Y."


def as_json(command: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for scripts.")(command)


def out(text: str, kind: click.Path = DATA, **settings: Any) -> Callable[[F], F]:
    """--out."""
    return click.option("--out", "-o", type=kind, help=text, **settings)


def outputs(*paths: Path | None, given: tuple[Path | None, ...]) -> None:
    """Refuse files that could not be written in the end, before the work, and those that are read or written twice.

    Raises click.UsageError, OSError.
    """
    written = [path for path in paths if path is not None]
    for k, path in enumerate(written):
        for other in [*given, *written[:k]]:
            if other is not None and _same(path, other):
                raise click.UsageError(f"'{path}' would be overwritten: it is also '{other}'.")
        require_regular(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such folder", str(folder))
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "Cannot write to the folder", str(folder))


@contextmanager
def kept(*paths: Path | None) -> Iterator[None]:
    """Have files that were there be again what they were, if an error comes while they are written anew."""
    before = {path: path.read_bytes() for path in paths if path is not None and path.is_file()}
    try:
        yield
    except BaseException:
        from backprop.files.atomic import write_atomically

        for path, data in before.items():
            write_atomically(path, data)
            tell(f"{path} is again as it was.")
        raise


def _same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()
