"""Arguments that several commands have."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def numbers(value: str | tuple[int, ...]) -> tuple[int, ...]:
    """Whole numbers ≥ 1 with commas between them; "none" is none of them."""
    if isinstance(value, tuple):  # a default
        return value
    parts = [] if value == "none" else value.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"'{value}' is not a list of whole numbers ≥ 1, such as 64,64.")
    return tuple(map(int, parts))


def character(text: str) -> str:
    r"""A single character; \t is a tabulator."""
    text = {"\\t": "\t"}.get(text, text)
    if len(text) != 1:
        raise click.BadParameter(f"'{text}' is not a single character.")
    return text


def names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names of columns with commas between them."""
    return value if isinstance(value, tuple) else tuple(name for name in value.split(",") if name)


FILE = click.Path(path_type=Path)
DATA = click.Path(path_type=Path, allow_dash=True)


def own_layers(command: F) -> F:
    """--layer: classes that the library does not know."""
    text = "A layer of your own that the model contains."
    return click.option("--layer", "layers", multiple=True, metavar="MODULE:CLASS", help=text)(command)


def model(command: F) -> F:
    """MODEL and --layer."""
    return click.argument("model", type=FILE)(own_layers(command))


def reading(command: F) -> F:
    """How data are to be read."""
    for option in (
        click.option("--no-header", is_flag=True, help="The first line of a CSV is data; columns are x0, x1, …"),
        click.option(
            "--delimiter", type=character, default=",", show_default=True, help="Between the columns of a CSV."
        ),
        click.option("--drop", type=names, metavar="NAME,…", default=(), help="Columns to leave out."),
    ):
        command = option(command)
    return command


def as_json(command: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for scripts.")(command)


def out(text: str, **settings: Any) -> Callable[[F], F]:
    """--out."""
    return click.option("--out", "-o", type=DATA, help=text, **settings)


def safetensors(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """A path of a file that the library writes; the suffix keeps a slip from replacing data."""
    if path is not None and path.suffix != ".safetensors":
        raise click.BadParameter(f"'{path}' should end in .safetensors.", ctx, parameter)
    return path


def outputs(*paths: Path | None, given: tuple[Path | None, ...]) -> None:
    """Refuse files that could not be written in the end, before the work, and those that are read or written twice.

    Raises click.UsageError, OSError.
    """
    written = [path for path in paths if path is not None]
    for k, path in enumerate(written):
        for other in [*given, *written[:k]]:
            if other is not None and _same(path, other):
                raise click.UsageError(f"'{path}' would be overwritten: it is also '{other}'.")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "Cannot write to the folder", str(path.parent))


def _same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()
