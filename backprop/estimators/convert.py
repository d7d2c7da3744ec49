"""From scikit-learn's fitted MLPs and back, and to a network and its table, with equal predictions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from backprop import checks
from backprop.estimators.answers import Classes
from backprop.estimators.base import BaseMLP, BaseModel
from backprop.estimators.mlp import MLPClassifier, MLPRegressor
from backprop.layers import Exp, Layer, Linear
from backprop.losses import Pinball, Poisson
from backprop.sequential import Sequential
from backprop.tables import Table
from backprop.tables.columns import Numbers, Target, plain
from backprop.tables.frame import BOOLEANS, CATEGORIES, NUMBERS, TEXT

SHARED = ("identity", "logistic", "tanh", "relu")
STORY = ("n_iter_", "t_", "loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_")


def from_sklearn(model: Any) -> BaseMLP:
    """The estimator of this library with the parameters and weights of a fitted `sklearn.neural_network` MLP.

    It predicts the same up to rounding. Raises TypeError for another kind of model.

    >>> from sklearn.neural_network import MLPRegressor as Theirs
    >>> X = np.linspace(0, 1, 8).reshape(-1, 1)
    >>> theirs = Theirs(hidden_layer_sizes=(4,), solver="lbfgs", max_iter=20, random_state=0, tol=1).fit(X, X[:, 0])
    >>> bool(np.allclose(from_sklearn(theirs).predict(X), theirs.predict(X)))
    True
    """
    from sklearn import neural_network  # imported here, for it takes time and few need it

    kinds: dict[type, type[BaseMLP]] = {
        neural_network.MLPClassifier: MLPClassifier,
        neural_network.MLPRegressor: MLPRegressor,
    }
    if type(model) not in kinds:
        raise TypeError(checks.message("from_sklearn", "an MLPClassifier or MLPRegressor of scikit-learn", repr(model)))
    check_is_fitted(model)
    ours = kinds[type(model)](**model.get_params())
    encoded = np.zeros((2, model.n_outputs_))
    if isinstance(ours, MLPClassifier):
        ours.classes_, ours.out_activation_ = model.classes_, model.out_activation_
    else:
        ours._encode(encoded if model.n_outputs_ > 1 else encoded[:, 0], reset=True)
    ours.random_state = 0  # what is drawn here is overwritten, and a generator of the user's stays as it is
    ours._begin(model.n_features_in_, encoded, model.coefs_[0].dtype)
    ours.random_state = model.random_state
    _copy_attributes(model, ours, ("n_features_in_", "feature_names_in_", *STORY))
    for weights, drawn in zip(model.coefs_ + model.intercepts_, ours.coefs_ + ours.intercepts_, strict=True):
        drawn[...] = weights
    return ours


def to_sklearn(model: BaseMLP) -> Any:
    """The `sklearn.neural_network` MLP that predicts the same as this fitted estimator.

    Scaling is worked into the first and the last layer, and Dropout left out: neither changes a prediction. Raises ValueError
    for what scikit-learn's cannot express: other activations, several of them, quantiles, Gaussian losses.

    >>> X = np.linspace(0, 1, 8).reshape(-1, 1)
    >>> ours = MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0, tol=1).fit(X, X[:, 0])
    >>> bool(np.allclose(to_sklearn(ours).predict(X), ours.predict(X)))
    True
    """
    from sklearn import neural_network
    from sklearn.preprocessing import LabelBinarizer

    if not isinstance(model, BaseMLP):
        raise TypeError(checks.message("to_sklearn", "an MLPClassifier or MLPRegressor of this library", repr(model)))
    check_is_fitted(model, "network_")
    classifier = isinstance(model, MLPClassifier)
    kind = neural_network.MLPClassifier if classifier else neural_network.MLPRegressor
    parameters = {**model.get_params(), **model._course.made_by}  # those of the network as they were in `fit`
    theirs = kind(**{name: value for name, value in parameters.items() if name in kind().get_params()})
    activation = parameters["activation"]
    if not isinstance(activation, str) or activation not in SHARED:
        raise ValueError(checks.message("to_sklearn", f"activation one of {SHARED}", repr(activation)))
    if model.table_ is not None:
        _require_numbers(model.table_)
    if not classifier and model._loss_function.outputs_per_target != 1:
        raise ValueError(checks.message("to_sklearn", "a loss with one output per target", repr(model._loss_function)))
    if not classifier and getattr(theirs, "loss", None) not in ("squared_error", "poisson"):
        theirs.set_params(loss="squared_error")  # which does not matter to predictions: the output is the identity
    theirs.coefs_ = [np.array(coef) for coef in model.coefs_]
    theirs.intercepts_ = [np.array(intercept) for intercept in model.intercepts_]
    _work_in_scaling(model, theirs)
    fitted = ("n_features_in_", "feature_names_in_", "classes_", "n_layers_", "n_outputs_", "out_activation_", *STORY)
    _copy_attributes(model, theirs, fitted)
    if classifier:
        several = model._answers_questions
        theirs._label_binarizer = LabelBinarizer().fit(np.eye(2, model.n_outputs_) if several else model.classes_)
    # What a further fit of theirs, with warm_start or early_stopping, goes on from.
    theirs._no_improvement_count = 0
    theirs._best_coefs = [coef.copy() for coef in theirs.coefs_]
    theirs._best_intercepts = [intercept.copy() for intercept in theirs.intercepts_]
    return theirs


def _require_numbers(table: Table) -> None:
    """Refuse a table of more than numbers, naming what there is."""
    if table.categories:
        got = f"categories in columns {list(table.categories)}"
    elif table.missing == "impute":
        got = "one that fills holes, missing='impute'"
    else:
        return
    raise ValueError(checks.message("to_sklearn", "a model of columns of numbers without holes", got))


def _input_columns(model: BaseModel) -> list[Numbers]:
    """What becomes of each column of an array before the network."""
    n, scaling = model.n_features_in_, model._input_scaling
    names = getattr(model, "feature_names_in_", [f"x{j}" for j in range(n)])
    mean, scale = (np.zeros(n), np.ones(n)) if scaling is None else scaling
    return [
        Numbers(str(name), NUMBERS, mean=float(m), shift=float(m), factor=float(1 / s))
        for name, m, s in zip(names, mean, scale, strict=True)
    ]


def as_network(model: BaseModel) -> tuple[Sequential, Table]:
    """The network and the table of `BaseModel.as_network`."""
    check_is_fitted(model, "network_")
    own, dtype = model.table_, model.network_.phi.dtype
    target = None if own is None else own.target
    layers: list[Layer] = [layer.copy() for layer in model.network_]
    if isinstance(model, Classes):
        answers = _classes(model, target or "y")
        net = Sequential(*layers, dtype=dtype)
    else:
        answers = Target(target or "y", NUMBERS)
        net = _in_units(model, layers)
    if own is not None:
        return net, Table.from_state(own.state() | {"answers": plain(answers)})
    return net, Table.of(_input_columns(model), answers, dtype=dtype)


def _classes(model: Any, name: str) -> Target:
    """The classes that the outputs stand for. Raises ValueError for several questions."""
    if model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        got = f"{model.n_outputs_} questions of yes or no"
        raise ValueError(
            checks.message(f"{type(model).__name__}.as_network", "one question, with a class as its answer", got)
        )
    classes = tuple(model.classes_.tolist())
    kinds = {str: TEXT, bool: BOOLEANS}
    return Target(name, kinds.get(type(classes[0]), CATEGORIES[NUMBERS]), classes)


def _in_units(model: Any, layers: list[Layer]) -> Sequential:
    """The network of these layers, followed by what makes predictions in units of y (K,) of its outputs."""
    K, loss, scaling, dtype = model._targets, model._loss_function, model._target_scaling, model.network_.phi.dtype
    if isinstance(loss, Poisson):
        return Sequential(*layers, Exp(), dtype=dtype)
    if model.n_outputs_ == K and scaling is None:
        return Sequential(*layers, dtype=dtype)
    mean, scale = (np.zeros(K), np.ones(K)) if scaling is None else map(np.atleast_1d, scaling)
    middle = int(np.argmin(np.abs(np.array(loss.quantiles) - 0.5))) if isinstance(loss, Pinball) else 0
    net = Sequential(*layers, Linear(model.n_outputs_, K, seed=0), dtype=dtype)
    net[-1].parameters["omega"][...] = np.diag(scale) @ np.eye(K, model.n_outputs_, middle * K)
    net[-1].parameters["beta"][...] = mean
    return net


def _work_in_scaling(model: Any, theirs: Any) -> None:
    inputs, targets = model._input_scaling, model._target_scaling
    if model.table_ is not None or inputs is not None:  # Ω ((x − m) s) + β
        columns = as_network(model)[1].state()["columns"]
        shift, factor = (np.array([column[name] for column in columns]) for name in ("shift", "factor"))
        theirs.intercepts_[0] = theirs.intercepts_[0] - (shift * factor) @ theirs.coefs_[0]
        theirs.coefs_[0] = theirs.coefs_[0] * factor[:, None]
    if targets is not None:  # s f + m
        theirs.coefs_[-1] = theirs.coefs_[-1] * targets.scale
        theirs.intercepts_[-1] = theirs.intercepts_[-1] * targets.scale + targets.mean


def _copy_attributes(source: Any, target: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(source, name):
            setattr(target, name, copy.copy(getattr(source, name)))
