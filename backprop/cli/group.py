"""What all commands share: one line for an error, exit codes, results as text or as JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import click

from backprop import signs
from backprop.cli.words import printable, spoken

REFUSED = 1  # by the data, a file or the model
INTERRUPTED = 128 + 2  # as shells have it for SIGINT
NOBODY_READS = 128 + 13  # and for SIGPIPE
REFUSALS = (OSError, ValueError, TypeError, RuntimeError, ImportError, ArithmeticError, AssertionError, MemoryError)


class Command(click.Command):
    """A command that tells an error about data and files in one line, and ends quietly where nobody reads its results."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; the exit code, if it is not 0. Errors that are mistakes of the library itself keep their traceback."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except BrokenPipeError:
            return nobody_reads()
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise  # they are RuntimeErrors, too
        except REFUSALS as error:
            tell(f"{ctx.command_path}: {one_line(error)}")
            return REFUSED


class Group(click.Group):
    """The commands, in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added, not by the alphabet."""
        return list(self.commands)

    def main(self, *arguments: Any, standalone_mode: bool = True, **settings: Any) -> Any:
        """Run one command line; ends the process with its exit code, or returns it without `standalone_mode`."""
        hold_streams()
        signs.let_all_print(names=True)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest, **more: tell(f"{self.name}: note: {spoken(str(message))}")
            try:
                result: Any = super().main(*arguments, **settings | {"standalone_mode": False})
                code = result if isinstance(result, int) else 0
                if sys.stdout is not None:
                    sys.stdout.flush()
            except click.ClickException as error:
                vars(error)["message"] = printable(error.message)
                error.show()
                code = error.exit_code
            except BrokenPipeError:
                code = nobody_reads()
            except OSError as error:  # of --help and --version; a command tells of its own
                tell(f"{self.name}: {one_line(error)}")
                code = nobody_reads() and REFUSED
            except click.Abort:
                tell(f"{self.name}: interrupted; no result was written")
                code = INTERRUPTED
        if standalone_mode:
            sys.exit(code)
        return code


def nobody_reads() -> int:
    """Let go of what is still in the buffer, which would fail again, loudly, when Python ends; the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return NOBODY_READS


def hold_streams() -> None:
    """Give the numbers of closed streams to nobody: a file that got one would also get what is meant for people."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to the end


def one_line(error: BaseException) -> str:
    """The message of an error, with its notes, without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return spoken(" ".join([text, *getattr(error, "__notes__", [])]))


def short(value: object, most: int = 60) -> str:
    """A value in quotes, on one line, cut to so many characters."""
    text = value[: 2 * most] if isinstance(value, str) else value
    shown = repr(text)
    return shown if len(shown) <= most else f"{shown[: most - 2]}…{shown[-1]}"


def option(name: str, *values: str) -> str:
    """An option of names as one types it.

    >>> option("--drop", "size", "a,b", "two words")
    '--drop \\'size,"a,b",two words\\''
    """
    cells = [f'"{value}"' if "," in value or '"' in value or not value else value for value in values]
    return f"{name} {quoted(','.join(cells))}"


def quoted(text: str) -> str:
    """A word as one types it in a shell; a point at its end is seen to belong to it, and not to a sentence."""
    if text == "'":
        return f'"{text}"'
    plain = shlex.quote(text)
    return f"'{text}'" if plain == text and text[1:].endswith(".") else plain


def refusal(who: object, expected: str, got: str, advice: str = "") -> ValueError:
    """An error in four parts."""
    from backprop.checks import message  # with it comes NumPy, which --help can do without

    return ValueError(message(who, expected, got, advice))


def tell(text: str) -> None:
    """A message for a person, on stderr."""
    click.echo(text, err=True)


def answer(result: Mapping[str, Any], as_json: bool, text: str = "") -> None:
    """The result on stdout: as one JSON object, or as text, if there is any. Raises OSError where nobody can get it."""
    if sys.stdout is None and (as_json or text):
        raise OSError(errno.EBADF, "Standard output is closed")
    if as_json:
        escape = not signs.knows_all(sys.stdout)  # JSON has escapes of its own, which lose nothing
        click.echo(json.dumps(plain(result), ensure_ascii=escape, allow_nan=False))
    elif text:
        click.echo(text)


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, numbers that are not finite as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
