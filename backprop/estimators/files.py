"""A fitted estimator as a file of data: its parameters, its network, and what stands before and behind the network."""

from __future__ import annotations

import datetime
import decimal
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from backprop import architecture, checks
from backprop.checks import Array
from backprop.estimators.course import Course, built
from backprop.estimators.data import Standardization
from backprop.files import container
from backprop.files.atomic import PathLike
from backprop.layers import Layer
from backprop.sequential import Sequential
from backprop.tables import Table

COUNTS = ("n_iter_", "t_", "n_features_in_", "n_layers_", "n_outputs_", "_targets")
SCORES = ("loss_", "best_loss_", "best_validation_score_", "sharpness_")
TEXTS = ("report_", "stopped_")
CURVES = ("loss_curve_", "validation_loss_curve_", "validation_scores_")
LABELS = ("classes_", "feature_names_in_")
ESTIMATORS = ("MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor")
RESIDUALS, COVERAGES = "residuals_", "coverages_"  # of a regressor for tables
WIDE = 1 << 21  # bytes; an array of text may be as wide as it was up to here, and is as wide as its longest text beyond
SCALINGS = {"inputs": "_input_scaling", "targets": "_target_scaling"}
SPELLINGS: dict[str, tuple[type, Any]] = {  # objects that are labels, as words and back
    "date": (datetime.date, datetime.date.fromisoformat),
    "datetime": (datetime.datetime, datetime.datetime.fromisoformat),
    "time": (datetime.time, datetime.time.fromisoformat),
    "Decimal": (decimal.Decimal, decimal.Decimal),
}
NOT_DATA = ("callbacks", "checkpoint", "random_state")  # what is of one run


def save(model: Any, path: PathLike) -> None:
    """Write a fitted model; see `BaseModel.save`."""
    check_is_fitted(model, "network_")
    who, arrays = f"{type(model).__name__}.save", dict(architecture.tensors(model.network_))
    fitted = model._course.made_by  # whatever `set_params` says since
    architecture.require_finite(who, arrays)
    for name, attribute in SCALINGS.items():
        if (scaling := getattr(model, attribute)) is not None:
            scale = np.where(np.isinf(scaling.scale), 0.0, scaling.scale)  # files hold finite numbers
            arrays |= {f"{name}.mean": np.atleast_1d(scaling.mean), f"{name}.scale": np.atleast_1d(scale)}
    if hasattr(model, RESIDUALS):
        arrays |= {RESIDUALS: model.residuals_, COVERAGES: model.coverages_}
    story: dict[str, Any] = {
        name: architecture.plain(who, name, getattr(model, name))
        for name in (*COUNTS, *SCORES, *CURVES, "out_activation_", *TEXTS)
        if hasattr(model, name)
    }
    instead = {**fitted, "activation": "relu", **dict.fromkeys(NOT_DATA)}
    labels = {name: getattr(model, name) for name in LABELS if hasattr(model, name)}
    story |= {name: _spelled(who, name, each) for name, each in labels.items()}
    about = {
        "model": architecture.describe(model, **{n: v for n, v in instead.items() if n in model.get_params()}),
        "activation": _described(fitted.get("activation")),
        "network": architecture.describe(model.network_),
        "table": None if model.table_ is None else model.table_.state(),
        "story": story,
    }
    if model.network_.saves:
        container.write(path, "estimator", about, arrays)


def load(kind: Any, path: PathLike, classes: Iterable[type]) -> Any:
    """Read a fitted model; see `BaseModel.load`."""
    known = architecture.with_classes(f"{kind.__name__}.load", [Sequential, kind, *classes])
    about, arrays = container.read(path, "estimator")
    try:
        architecture.require_finite("tensors", arrays)
        model = architecture.build(about["model"], known)
        if type(model) is not kind:
            raise ValueError(checks.message("model", f"a {kind.__name__}", f"a {type(model).__name__}"))
        if hasattr(model, "activation"):
            model.activation = _built(about["activation"], known)
        for name, attribute in SCALINGS.items():
            setattr(model, attribute, _scaling(arrays, name))
        _restore(model, about["story"])
        model.table_ = None if about["table"] is None else Table.from_state(about["table"])
        model._loss_function = model._make_loss()
        model._course = Course(seed=0, split=check_random_state(0).get_state(), made_by=built(model))
        if RESIDUALS in arrays:
            model.residuals_ = away = arrays.pop(RESIDUALS)
            shown = np.arange(1, len(away) + 1)[:, None] / (len(away) + 1)  # of equal rows, in older files
            model.coverages_ = arrays.pop(COVERAGES, np.repeat(shown, away.shape[-1], axis=1))
        model.network_ = architecture.build(about["network"], known, arrays)
        if arrays:
            raise ValueError(checks.message("model", "the tensors of its network", f"also {sorted(arrays)[:3]}"))
        _require_fit(model)
    except Exception as error:
        raise container.refusal(path, "an estimator", error) from error
    return model


def load_any(path: PathLike, classes: Iterable[type] = ()) -> Any:
    """Read a fitted model of whichever class the file names. Errors as of `BaseModel.load`."""
    from backprop import estimators

    name = container.read(path, "estimator")[0].get("model", {}).get("class")
    if name not in ESTIMATORS:
        container.refuse(path, f"one of {list(ESTIMATORS)}", reprlib.repr(name))
    return getattr(estimators, name).load(path, classes)


def _restore(model: Any, story: dict[str, Any]) -> None:
    for name, data in story.items():
        value = _labels(name, **data) if name in LABELS else architecture.value(data)
        if not _is(name, value):
            raise _error(f"{name} of a fitted model", value)
        setattr(model, name, value)


def _is(name: str, value: Any) -> bool:
    if name in COUNTS:
        return type(value) is int and value >= 0
    if name in SCORES:
        return value is None or _is_number(value)
    if name in TEXTS:
        return isinstance(value, str)
    if name in CURVES:
        return value is None or (type(value) is list and all(map(_is_number, value)))
    return name in LABELS or (name == "out_activation_" and value in ("identity", "exp", "logistic", "softmax"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spelled(who: str, name: str, labels: Array) -> dict[str, Any]:
    """Classes or names of columns as a file holds them. Raises TypeError for those that it would not give back."""
    moments = labels.dtype.kind in "mM"
    values = labels.view(np.int64).tolist() if moments else labels.tolist()
    kind = type(values[0])
    told: dict[str, Any] = {"dtype": labels.dtype.str, "values": values} | ({"spells": "moments"} if moments else {})
    if SPELLINGS.get(kind.__name__, (None,))[0] is kind:
        told |= {"values": [str(value) for value in values], "spells": kind.__name__}
    try:
        found = _labels(name, **told)
        whole = found.dtype == labels.dtype and bool((found == labels).all())
    except (ValueError, TypeError, ArithmeticError):
        whole = False
    if not whole:
        expected = f"{name} that a file can hold: numbers, text, true and false, dates, decimals"
        raise TypeError(checks.message(who, expected, f"{kind.__name__}s of dtype {labels.dtype}"))
    return told


def _labels(name: str, dtype: str, values: list[Any], spells: str | None = None) -> Array:
    """Classes or names of columns as the array they were, without room that a file only claims."""
    kind, wanted = {type(each) for each in values}, np.dtype(dtype)
    if spells == "moments" and wanted.kind in "mM":
        return _labels(name, "<i8", values).view(wanted)
    if spells is not None and kind == {str} and wanted.kind == "O":
        found = np.empty(len(values), object)
        found[:] = [SPELLINGS[spells][1](value) for value in values]
        return found
    if len(kind) != 1 or not kind <= {bool, int, float, str} or len(set(values)) < len(values):
        raise _error(f"{name}: different values of one kind", values)
    whole = kind == {int} and wanted.kind in "ui"  # else NumPy makes 2⁶⁴ − 1 beside 1 inexact
    found = np.array(values, wanted if whole else object if wanted.kind == "O" else None)
    if wanted.kind == found.dtype.kind == "U" and wanted.itemsize * len(values) > WIDE:
        return found
    fits = wanted.kind in ("O", found.dtype.kind) or wanted.kind + found.dtype.kind in ("ui", "iu")
    if not fits or (found.astype(wanted) != found).any():
        raise _error(f"{name} that are {wanted}", values)
    return found.astype(wanted)


def _require_fit(model: Any) -> None:
    """Refuse parts that do not fit each other: network, scaling, table, numbers of features, outputs and classes."""
    net, table = model.network_, model.table_
    if not isinstance(net, Sequential):
        raise _error("a network", net)
    features = len(table.columns) if table else model.n_features_in_
    columns = model._targets if hasattr(model, "_targets") else model.n_outputs_
    pairs = {
        "features": (model.n_features_in_, features),
        "inputs": (net.in_features, len(table.feature_names) if table else features),
        "outputs": (net.out_features, model.n_outputs_),
        "outputs of its targets or classes": (model.n_outputs_, model._outputs(columns)),
    }
    if hasattr(model, "classes_"):
        yes_or_no = model.n_outputs_ == 1
        pairs["classes"] = (len(model.classes_), min(len(model.classes_), 2) if yes_or_no else model.n_outputs_)
    for name, width in (("_input_scaling", features), ("_target_scaling", columns)):
        if getattr(model, name) is not None:
            pairs[name] = (len(getattr(model, name).mean), width)
    if hasattr(model, RESIDUALS):
        _require_residuals(model.residuals_, model.coverages_, columns)
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise _error(f"{name}: {expected}", found)


def _require_residuals(away: Array, shown: Array, columns: int) -> None:
    right = away.dtype.kind == "f" and away.ndim == 2 and away.shape[1] == columns and len(away)
    if not (right and (away[0] >= 0).all() and (np.diff(away, axis=0) >= 0).all()):
        raise _error(f"{RESIDUALS}: sorted distances (n, {columns})", away)
    rising = shown.shape == away.shape and (np.diff(shown, axis=0) >= 0).all()
    if not (rising and shown.dtype.kind == "f" and (shown >= 0).all() and (shown < 1).all()):
        raise _error(f"{COVERAGES}: rising shares (n, {columns})", shown)


def _error(expected: str, got: object) -> ValueError:
    return ValueError(checks.message("model", expected, reprlib.repr(got)))


def _scaling(arrays: dict[str, Any], name: str) -> Standardization | None:
    if f"{name}.mean" not in arrays:
        return None
    mean, scale = arrays.pop(f"{name}.mean"), arrays.pop(f"{name}.scale")
    floats = mean.dtype.kind == scale.dtype.kind == "f"
    if not (floats and mean.shape == scale.shape == (mean.size,) and (scale >= 0).all()):
        raise _error(f"{name}: mean and scale ≥ 0 (D,)", (mean, scale))
    return Standardization(mean, np.where(scale, scale, np.inf) if name == "inputs" else scale)


def _described(activation: Any) -> Any:
    if isinstance(activation, list | tuple):
        return [_described(one) for one in activation]
    if isinstance(activation, type):
        return {"kind": activation.__name__}
    return architecture.describe(activation) if isinstance(activation, Layer) else activation


def _built(activation: Any, known: dict[str, type]) -> Any:
    if isinstance(activation, list):
        return [_built(one, known) for one in activation]
    if isinstance(activation, dict):
        return known[activation["kind"]] if "kind" in activation else architecture.build(activation, known)
    return activation
