"""A fitted estimator as a file of data: its parameters, its network, and what stands before and behind the network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from backprop import architecture, checks, container
from backprop.container import FileFormatError, PathLike
from backprop.estimators.course import Course
from backprop.estimators.data import Standardization
from backprop.layers import Layer
from backprop.sequential import Sequential
from backprop.tables import Table

STORY = (
    *("n_iter_", "t_", "loss_", "best_loss_", "loss_curve_", "validation_loss_curve_", "validation_scores_"),
    *("best_validation_score_", "n_features_in_", "n_layers_", "n_outputs_", "out_activation_", "_targets"),
)
SCALINGS = {"inputs": "_input_scaling", "targets": "_target_scaling"}
NOT_DATA = ("callbacks", "random_state")  # what is of one run


def save(model: Any, path: PathLike) -> None:
    """Write a fitted model; see `BaseMLP.save`."""
    check_is_fitted(model, "network_")
    parameters = {name: value for name, value in vars(model).items() if name in model.get_params(deep=False)}
    activation = parameters.pop("activation")
    arrays = dict(architecture.tensors(model.network_))
    architecture.require_finite(f"{type(model).__name__}.save", arrays)
    for name, attribute in SCALINGS.items():
        if getattr(model, attribute) is not None:
            arrays |= {f"{name}.mean": np.atleast_1d(getattr(model, attribute).mean)}
            arrays |= {f"{name}.scale": np.atleast_1d(getattr(model, attribute).scale)}
    story = {name: _plain(getattr(model, name)) for name in STORY if hasattr(model, name)}
    for name in ("classes_", "feature_names_in_"):
        if hasattr(model, name):
            values = getattr(model, name)
            story[name] = {"dtype": values.dtype.str, "values": values.tolist()}
    about = {
        "model": architecture.describe(model, activation="relu", **dict.fromkeys(NOT_DATA)),
        "activation": _described(activation),
        "network": architecture.describe(model.network_),
        "table": None if model.table_ is None else model.table_.state(),
        "story": story,
    }
    container.write(path, "estimator", about, arrays)


def load(kind: Any, path: PathLike, classes: Iterable[type]) -> Any:
    """Read a fitted model; see `BaseMLP.load`."""
    known = architecture.with_classes(f"{kind.__name__}.load", [Sequential, kind, *classes])
    about, arrays = container.read(path, "estimator")
    try:
        architecture.require_finite("tensors", arrays)
        model = architecture.build(about["model"], known)
        if type(model) is not kind:
            raise ValueError(checks.message("model", f"a {kind.__name__}", f"a {type(model).__name__}"))
        model.activation = _built(about["activation"], known)
        for name, attribute in SCALINGS.items():
            setattr(model, attribute, _scaling(arrays, name))
        _restore(model, about["story"])
        model.table_ = None if about["table"] is None else Table.from_state(about["table"])
        model._loss_function = model._make_loss()
        model._course = Course(seed=0, split=check_random_state(0).get_state())
        model.network_ = architecture.build(about["network"], known, arrays)
        if arrays:
            raise ValueError(checks.message("model", "the tensors of its network", f"also {sorted(arrays)[:3]}"))
    except Exception as error:  # a constructor of one's own may raise anything
        raise FileFormatError(f"{os.fspath(path)}: {error or type(error).__name__}") from error
    return model


def _restore(model: Any, story: dict[str, Any]) -> None:
    for name, value in story.items():
        if name in ("classes_", "feature_names_in_"):
            value = np.array(value["values"], dtype=np.dtype(value["dtype"]))
        elif name not in STORY:
            raise ValueError(checks.message("model", f"attributes among {STORY}", repr(name)))
        setattr(model, name, value)
    if hasattr(model, "classes_"):
        several = model.out_activation_ == "logistic" and model.n_outputs_ > 1
        model._binarizer = LabelBinarizer().fit(np.eye(2, model.n_outputs_) if several else model.classes_)


def _scaling(arrays: dict[str, Any], name: str) -> Standardization | None:
    if f"{name}.mean" not in arrays:
        return None
    scaling = Standardization.__new__(Standardization)
    mean, scale = arrays.pop(f"{name}.mean"), arrays.pop(f"{name}.scale")
    if not mean.shape == scale.shape == (len(mean),):
        raise ValueError(checks.message("model", f"{name}: mean and scale (D,)", f"{mean.shape} and {scale.shape}"))
    scaling.mean, scaling.scale = mean, scale
    return scaling


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(each) for each in value] if isinstance(value, list) else value


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
