"""Models from files, and classes of one's own from modules."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli.data import Reading, as_categories
from backprop.cli.formats import of_arrow
from backprop.cli.group import refusal, tell
from backprop.cli.reading import Known, found_in, naming

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.cli.training import Plan
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


SEEN = (
    "The model that this one goes on from may have been trained on rows that are held out here, or on others of their groups: "
    "what is measured on them flatters it."
)


def seen_before(notes: Mapping[str, Any]) -> bool:
    """Whether a model was trained on other data before these, whose rows may be among those that are now held out."""
    return any(data != notes["data"] for data in notes.get("earlier", []))


@dataclass(frozen=True)
class Rows:
    """Rows of a file as a model takes them: X (N, D), and y (N,) where the file has the target.

    `read` are all columns and rows of the file, `features` those that the table takes, `target` the name of the target if it is
    known. `places` (N,) say which rows of the file these are, where fit could not measure its model on all; else None.
    """

    read: Any
    features: Any
    X: Array
    y: Any
    target: str | None
    places: Array | None = None


@dataclass(frozen=True)
class Model:
    """What a model file holds: a network, the table before it if there is one, and how backprop fit has trained it.

    `estimator` is the class of an estimator's file, `in_order` says that columns have no names to be found by, as of
    one that was fitted to an array.
    """

    path: Path
    net: Sequential
    table: Table | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    estimator: str = ""
    in_order: bool = False

    @property
    def tabular(self) -> bool:
        """Whether it is the default of fit, or an estimator for tables that Python has saved."""
        return self.estimator.startswith("Tabular")

    def plan(self) -> Plan | None:
        """How backprop fit has trained it, if it has."""
        from backprop.cli.training import Plan

        stored = self.notes.get("fit")
        return None if stored is None else Plan.from_notes(stored, self.path, "a model of backprop fit")

    def rows(
        self,
        data: Path,
        how: Mapping[str, Any],
        target: str | None = None,
        first: int | None = None,
        *,
        answers: bool = True,
    ) -> Rows:
        """The rows of data, all or the first ones, read as `how` says; `target` names a target that the model does not know.

        Without `answers` that column may hold anything.
        """
        read = Reading(**how).frame(data, self.table, target=answers).slice(0, first)
        return self._prepared(read, data, target, answers)

    def prepared(self, frame: Any) -> Array:
        """X (N, D) of a table of Arrow in memory, prepared as if it had been read from a file."""
        data, how = Path("the frame"), Reading.of(self.table)
        read = found_in(of_arrow(frame), data, how, Known.of(self.table, False), Reading())
        for error in read.refused.values():
            raise error
        return self._prepared(read.frame, data, None, False).X

    def _prepared(self, read: Any, data: Path, target: str | None, answers: bool) -> Rows:
        import numpy as np

        table, plan = self.table, self.plan()
        if table is None:
            return Rows(read, read, np.column_stack([column.to_numpy() for column in read.columns]), None, target)
        features = read if plan is None else plan.features(read)
        places = self._measured(read, features) if answers else None
        features = features if places is None else features.take(places)
        target = _target(table, features, target, self.in_order)
        y = None
        if target is not None and target in features.column_names and table.state()["answers"] is not None:
            if answers:
                coded = _coded(table, features, target)
                with naming(data):
                    y = table.targets(coded if table.target else coded[target])
            features = features.drop_columns([target])
        if self.in_order:
            expected, found = table.columns, features.column_names
            if len(found) != len(expected):
                raise refusal(self.path, f"{len(expected)} columns, in the order of fit", f"{len(found)}: {found}")
            features = features.rename_columns(expected)
        if self.estimator:
            features = _flags_as_numbers(features, table)
        with naming(data):
            return Rows(read, features, table.transform(features), y, target, places)

    def _measured(self, read: Any, features: Any) -> Array | None:
        """Which rows fit has trained on or measured, if these are its data and it has left some unmeasured; else None."""
        import numpy as np

        table, plan = self.table, self.plan()
        if table is None or plan is None or table.target not in features.column_names:
            return None
        frame = _coded(table, features, table.target)
        known = answerable(table, frame)
        if known.all():
            return None
        with suppress(TypeError, ValueError):  # of other data, which are refused by row and column
            training = plan.hold_out(read).training
            own = frame.take(training)
            own = _flags_as_numbers(own, table) if self.estimator else own
            if known[training].all():
                seen = fingerprint(self.net, table, table.transform(own), table.targets(own))
                return np.flatnonzero(known) if seen == self.notes.get("data") else None
        return None


def fingerprint(net: Sequential, table: Table, X: Array, y: Array) -> dict[str, Any]:
    """What tells the rows that a network is trained on from others."""
    from backprop.training.data import Examples

    return Examples("fit", net, default_loss(table, net.out_features), X, y).fingerprint()


def _coded(table: Table, frame: Any, target: str | None) -> Any:
    """The frame with a target of classes that are numbers as categories."""
    coded = table.classes is not None and table.classes.dtype.kind in "iuf"
    return as_categories(frame, codes=[target] if coded and target else [])


def _flags_as_numbers(features: Any, table: Table) -> Any:
    """True and false as 1 and 0 where an estimator has taken them for numbers."""
    import pyarrow as pa

    numbers = {each["name"] for each in table.state()["columns"] if each["kind"] == "numbers"}
    for j, name in enumerate(features.column_names):
        if name in numbers and pa.types.is_boolean(features.schema.field(j).type):
            features = features.set_column(j, name, features[name].cast(pa.int8()))
    return features


def _target(table: Table, features: Any, given: str | None, in_order: bool) -> str | None:
    """The name of the target: that of the table, that given, or the one column that is no feature."""
    names, known = features.column_names, table.target
    if given is not None:
        if known not in (None, given):
            raise refusal("--target", f"{known!r}, as in the model", repr(given))
        require_column("--target", given, features)
        return given
    if known is not None:
        return known
    more = names[len(table.columns) :] if in_order else [name for name in names if name not in table.columns]
    return more[0] if len(more) == 1 else None


def require_column(option: str, name: str, frame: Any) -> None:
    """Refuse the name of a column that is not there."""
    if name not in frame.column_names:
        from backprop.tables.frame import close_to

        advice = close_to(name, frame.column_names)
        raise refusal(option, f"one of the columns {frame.column_names}", repr(name), advice)


def load(path: Path, layers: Sequence[str | type] = ()) -> Model:
    """The model of a file: of backprop fit, of net.save, or of an estimator's save. `layers` are classes, or their names."""
    from backprop.files import container

    classes = [named(layer) if isinstance(layer, str) else layer for layer in layers]
    if container.kind(path) == "estimator":
        from backprop.estimators.files import load_any

        estimator = load_any(path, classes)
        net, table = estimator.as_network()
        in_order = not hasattr(estimator, "feature_names_in_")
        notes = {} if table is None else table.notes
        return Model(path, net, table, notes, estimator=type(estimator).__name__, in_order=in_order)
    net = bp.Sequential.load(path, classes=classes)
    about = container.read(path, "network")[0]
    table = None if about.get("table") is None else bp.Table.load(path)
    notes = about.get("notes")
    return Model(path, net, table, notes if isinstance(notes, dict) else {})


def load_with_targets(
    path: Path, data: Path, target: str | None = None, rows: int | None = None, *, layers: tuple[str, ...], **how: Any
) -> tuple[Model, Table, Rows]:
    """The model of a file, its table, and rows of data with their target, read as `how` says: all rows, or the first ones.

    Raises ValueError for a model or data without a target.
    """
    model = load(path, layers)
    if model.table is None or model.table.state()["answers"] is None:
        got = "none" if model.table is None else "one without a target"
        expected = "a model saved with its table, as by backprop fit or net.save(path, table=table)"
        raise refusal(path, expected, got)
    found = model.rows(data, how, target, rows)
    if found.y is None:
        names = found.read.column_names
        if model.table.target is not None:
            model.table.targets(found.read)  # which says what is close
        raise refusal(data, "the column of the target", f"columns {names}", "Name it: --target COLUMN.")
    if found.places is not None:
        tell_unmeasured(len(found.read) - len(found.places))
    tell_unknown(model.table, found.features)
    return model, model.table, found


def tell_unknown(table: Table | None, frame: Any) -> None:
    """Tell of categories that a model does not know, where it takes them for none."""
    if table is None or table.unknown != "ignore":
        return
    for name, new in new_categories(table, frame).items():
        what = ", ".join(map(repr, new[:5]))
        tell(f"Column {name!r}: the model does not know {what}; it takes them for none.")


def new_categories(table: Table, frame: Any) -> dict[str, list[Any]]:
    """The categories of each column that a table does not know, where there are such, and no feature stands for them."""
    columns = [each for each in table.state()["columns"] if "categories" in each and not each.get("other")]
    found = {each["name"]: _others(frame, each["name"], each["categories"]) for each in columns}
    return {name: new for name, new in found.items() if new}


def _others(frame: Any, name: str, known: Collection[Any]) -> list[Any]:
    """The values of a column that are not among those known, but for holes; none of a column that cannot have them."""
    from pyarrow import types

    if name not in frame.column_names or types.is_nested(frame[name].type):
        return []
    known = {None, *known}
    return [value for value in frame[name].unique().to_pylist() if value not in known]


def answerable(table: Table, frame: Any) -> Array:
    """Whether a model can be measured on each row (N,): it knows the class, and the categories if it refuses others."""
    import numpy as np

    new = new_categories(table, frame) if table.unknown == "refuse" else {}
    if table.classes is not None and table.target is not None:
        new[table.target] = _others(frame, table.target, table.classes.tolist())
    known = np.ones(len(frame), bool)
    for name, values in new.items():
        if unknown := set(values):
            known &= [value not in unknown for value in frame[name].to_pylist()]
    return known


def tell_unmeasured(n: int) -> None:
    """Tell of rows held out on which a model cannot be measured."""
    tell(
        f"Held out are {n:,} rows of classes or categories that no row trained on has: the model is not measured on them."
    )


def task(table: Table) -> str:
    """What the target makes of it."""
    return "regression" if table.classes is None else "classification"


def default_loss(table: Table, outputs: int | None) -> Loss:
    """The loss that goes with a table's target, and with the outputs of a network."""
    if table.classes is None:
        return bp.LeastSquares()
    return bp.CrossEntropy() if outputs == len(table.classes) else bp.BinaryCrossEntropy()


def log_loss(table: Table, f: Array, y: Array) -> float:
    """The mean of −log of the probability that outputs f (N, K) give to the classes y (N,)."""
    return default_loss(table, f.shape[1]).forward(f.T, y if f.shape[1] > 1 else y[None])


def measures(table: Table, f: Array, y: Array) -> dict[str, float]:
    """What outputs f (N, K) are worth against the targets y (N,) of `table.targets`, in units of the target."""
    import numpy as np

    loss = default_loss(table, f.shape[1])
    own = loss.metrics(f.T, loss.from_rows("evaluate", y, f.shape[1], len(f)))
    if table.classes is not None:
        often = np.bincount(y)
        usual = {"share_of_the_most_frequent_class": float(often.max() / len(y))}
        return {**own, **usual, **_ranking(loss, f, y), "loss": log_loss(table, f, y)}
    difference = table.values(f) - table.values(y[:, None])
    rms = float(np.sqrt(np.mean(difference**2)))
    return {**own, "root_mean_squared_error": rms, "mean_absolute_error": float(np.abs(difference).mean())}


def _ranking(loss: Loss, f: Array, y: Array) -> dict[str, float]:
    """How well outputs tell two classes apart, whatever probability one cuts at; nothing where one of them is not there."""
    from backprop.training.metrics import score

    if len(y) == 0 or f.shape[1] > 2 or y.min() == y.max():
        return {}
    targets = loss.from_rows("evaluate", y, f.shape[1], len(f))
    try:
        return {name: score(loss, name, f.T, targets, None) for name in ("roc_auc", "average_precision")}
    except ImportError:  # of scikit-learn, which a plain network can do without
        return {}


def tell_one_answer(table: Table, f: Array, y: Array) -> None:
    """Tell where a model of classes gives one answer to all rows, which have others; and which class the measures are of."""
    if table.classes is None or len(f) == 0 or y.min() == y.max():
        return
    labels, classes = table.labels(f), table.classes.tolist()
    if (labels == labels[0]).all():
        always = f"note: every prediction is {labels.tolist()[0]!r}, as if it always answered that."
        tell(f"{always} backprop predict --probabilities tells the rows apart.")
    if len(classes) == 2:
        tell(f"Average precision is of {classes[1]!r}.")


def by_part(worth: Mapping[str, Mapping[str, float]]) -> str:
    """A column for each part of the data, a line for each measure."""
    names = list(dict.fromkeys(name for numbers in worth.values() for name in numbers))
    width = max(map(len, names)) + 2
    lines = ["".join([" " * width, *(f"{part:>12}" for part in worth)])]
    for name in names:
        cells = (f"{numbers[name]:>12.4g}" if name in numbers else f"{'-':>12}" for numbers in worth.values())
        lines.append("".join([name.replace("_", " ").ljust(width), *cells]))
    return "\n".join(lines)


def shown(numbers: dict[str, float]) -> str:
    """A line per measure."""
    width = max(map(len, numbers))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {value:.4g}" for name, value in numbers.items())
