"""From scikit-learn's fitted MLPs and back, with equal predictions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from backprop import checks
from backprop.estimators.base import BaseMLP
from backprop.estimators.mlp import MLPClassifier, MLPRegressor

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
        got = f"categories or holes in {model.table_.columns}"
        raise ValueError(checks.message("to_sklearn", "a model of columns of numbers", got))
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


def _work_in_scaling(model: Any, theirs: Any) -> None:
    inputs, targets = model._input_scaling, model._target_scaling
    if inputs is not None:  # Ω ((x − m) / s) + β
        theirs.intercepts_[0] = theirs.intercepts_[0] - (inputs.mean / inputs.scale) @ theirs.coefs_[0]
        theirs.coefs_[0] = theirs.coefs_[0] / inputs.scale[:, None]
    if targets is not None:  # s f + m
        theirs.coefs_[-1] = theirs.coefs_[-1] * targets.scale
        theirs.intercepts_[-1] = theirs.intercepts_[-1] * targets.scale + targets.mean


def _copy_attributes(source: Any, target: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(source, name):
            setattr(target, name, copy.copy(getattr(source, name)))
