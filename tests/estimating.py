"""What the tests of estimators share: the data, models of both sides, and how they are compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("sklearn", "1.7")  # the first whose MLP knows sample weights and the Poisson loss

import sklearn.metrics
import sklearn.model_selection
from sklearn import neural_network

from backprop.estimators import MLPClassifier, MLPRegressor

N, D = 60, 4
generator = np.random.default_rng(0)
X = generator.normal(size=(N, D))
line = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3
thirds = np.digitize(line, np.quantile(line, [1 / 3, 2 / 3]))

# Targets of every kind: the estimators of both sides, and y.
KINDS = {
    "two classes": (MLPClassifier, line > 0),
    "three classes": (MLPClassifier, thirds),
    "three yes-no questions": (MLPClassifier, (X[:, :3] > 0).astype(int)),
    "one number": (MLPRegressor, line),
    "three numbers": (MLPRegressor, X[:, :3] ** 2),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
regressors = pytest.mark.parametrize("kind", ["one number", "three numbers"])
classifiers = pytest.mark.parametrize("kind", [kind for kind in KINDS if "number" not in kind])


def ours(kind, **parameters):
    return KINDS[kind][0](**{"hidden_layer_sizes": (5,), "random_state": 0, **parameters})


def theirs(kind, **parameters):
    return getattr(neural_network, KINDS[kind][0].__name__)(
        **{"hidden_layer_sizes": (5,), "random_state": 0, **parameters}
    )


def both(kind, **parameters):
    y = KINDS[kind][1]
    return ours(kind, **parameters).fit(X, y), theirs(kind, **parameters).fit(X, y)


def assert_same_weights(a, b, tolerance=0.0):
    for name in ("coefs_", "intercepts_"):
        for one, other in zip(getattr(a, name), getattr(b, name), strict=True):
            assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def outputs(model, X=X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


# All examples in one batch, no stopping: what both sides then do is the same to the last digits.
ONE_BATCH = {"batch_size": N, "tol": 0.0, "n_iter_no_change": 1000}


def bp_held_out(model, n, stratify=None):
    """The rows that early stopping held out of n."""
    split = sklearn.utils.check_random_state(0)
    split.set_state(model._course.split)
    parts = sklearn.model_selection.train_test_split(np.arange(n), test_size=0.1, random_state=split, stratify=stratify)
    return parts[1]


FLATS = pd.DataFrame(
    {
        "size": generator.uniform(20, 120, 90).round(),
        "town": generator.choice(["Bonn", "Köln", "Ulm"], 90),
        "lift": generator.random(90) < 0.5,
    }
)
FLATS["rent"] = FLATS["size"] * 10 + 200.0 * (FLATS["town"] == "Köln")
FLATS["let"] = np.where(FLATS["rent"] < 800, "quickly", "slowly")
FEATURES = ["size", "town", "lift"]
FRAMES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}
every_library = pytest.mark.parametrize("library", FRAMES)


def fitted_flats(**parameters):
    model = MLPRegressor(
        hidden_layer_sizes=(16,), solver="lbfgs", scale_inputs=True, scale_targets=True, random_state=0, **parameters
    )
    return model.set_params(max_iter=300, tol=1e-3).fit(FLATS.drop(columns="let"), "rent")


COUNTS = np.random.default_rng(2).poisson(np.exp(line / 3)).astype(float)


def state(model):
    """What can be seen of a model."""
    seen = {name: repr(value) for name, value in vars(model).items() if name != "network_"}
    if not hasattr(model, "network_"):
        return seen
    optimizer = model._course.optimizer
    vectors = {"φ": model.network_.phi, **(optimizer.state if optimizer else {})}
    return seen | {name: vector.tobytes() for name, vector in vectors.items()} | {"t": optimizer and optimizer.t}
