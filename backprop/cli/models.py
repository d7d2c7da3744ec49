"""Models from files, and classes of one's own from modules."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli.data import Reading
from backprop.cli.group import refusal

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.losses import Loss
    from backprop.sequential import Sequential
    from backprop.tables import Table


def named(name: str) -> Any:
    """What "package.module:Name" stands for; modules in the working directory are found, as by `python -m`.

    Raises click.BadParameter for another form, ImportError for what is not there or fails when it is imported.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise click.BadParameter(f"'{name}' should have the form package.module:Name.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        thing: Any = import_module(module)
    except Exception as error:  # the module is somebody's own, and may raise anything
        raise ImportError(f"{module} cannot be imported: {type(error).__name__}: {error}{_place(error)}") from error
    for part in attribute.split("."):
        if not hasattr(thing, part):
            raise ImportError(f"{module} has no {attribute}.")
        thing = getattr(thing, part)
    return thing


def _place(error: BaseException) -> str:
    """Where it was raised; a SyntaxError says so itself."""
    if isinstance(error, SyntaxError | ModuleNotFoundError):
        return ""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f" ({Path(frame.f_code.co_filename).name}, line {line})"


def load(path: Path, layers: tuple[str, ...]) -> tuple[Sequential, Table | None]:
    """The network of a file, and the table that was saved with it, if there was one."""
    from backprop.files import container

    net = bp.Sequential.load(path, classes=[named(layer) for layer in layers])
    has_table = container.read(path, "network")[0].get("table") is not None
    return net, bp.Table.load(path) if has_table else None


def load_with_targets(
    path: Path, data: Path, rows: int | None = None, *, layers: tuple[str, ...], **how: Any
) -> tuple[Sequential, Table, Array, Array]:
    """The network of a file, its table, and X and y of data read as `how` says: all rows, or the first ones.

    Raises ValueError for a model without a table that has a target.
    """
    net, table = load(path, layers)
    if table is None or table.target is None:
        got = "none" if table is None else "one without a target"
        expected = "a model saved with its table, as by backprop fit or net.save(path, table=table)"
        raise refusal(path, expected, got)
    frame = Reading(**how).frame(data, table).slice(0, rows)
    return net, table, table.transform(frame), table.targets(frame)


def task(table: Table) -> str:
    """What the target makes of it."""
    return "regression" if table.classes is None else "classification"


def default_loss(table: Table, outputs: int | None) -> Loss:
    """The loss that goes with a table's target, and with the outputs of a network."""
    if table.classes is None:
        return bp.LeastSquares()
    return bp.CrossEntropy() if outputs == len(table.classes) else bp.BinaryCrossEntropy()


def measures(table: Table, f: Array, y: Array) -> dict[str, float]:
    """What outputs f (N, K) are worth against the targets y (N,) of `table.targets`, in units of the target."""
    import numpy as np

    loss = default_loss(table, f.shape[1])
    own = loss.metrics(f.T, loss.from_rows("evaluate", y, f.shape[1], len(f)))
    if table.classes is not None:
        return {**own, "loss": loss.forward(f.T, y if f.shape[1] > 1 else y[None])}
    difference = table.values(f) - table.values(y[:, None])
    rms = float(np.sqrt(np.mean(difference**2)))
    return {**own, "root_mean_squared_error": rms, "mean_absolute_error": float(np.abs(difference).mean())}


def shown(numbers: dict[str, float]) -> str:
    """A line per measure."""
    width = max(map(len, numbers))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {value:.4g}" for name, value in numbers.items())
