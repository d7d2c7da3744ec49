"""What version 0.1.0 writes and computes, frozen for the versions after it.

Run with version 0.1.0 alone (commit 8b972ef); the files are written beside this one:

    git worktree add out/old 8b972ef
    PYTHONPATH=out/old python tests/yesterday/make.py

    oracle.npz                   results of the library: layers, losses, optimizers, trainings, …
    files.zip                    files of the library:
      network-….safetensors        of `net.save`, and one of `save_weights`
      training-….safetensors       of `trainer.save`, before the first step, in the middle of an epoch, and between two
      estimator-….safetensors      of `model.save`
      command-….safetensors        of `backprop fit`, on flats.csv
    expected.npz                 what these files have to give

`tests/test_yesterday.py` calls the same recipes with the version at hand, and compares. So a recipe is never changed, unless its
results are made anew with version 0.1.0.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import backprop as bp
from backprop import estimators

VERSION = "0.1.0"
HERE = Path(__file__).parent
FILES = HERE / "files.zip"
D, N = 4, 23  # features and examples of a training; with batches of 5 the last has 3
DTYPES = ("float32", "float64")

Array = np.ndarray
Results = dict[str, Array]


def numbers(*shape: int, start: int = 0) -> Array:
    """Numbers in ±2 without an order to see, none of them 0: the same bits on every machine and with every NumPy."""
    k = np.arange(start, start + math.prod(shape))
    return ((5 * k**3 + 31 * k**2 + 17 * k) % 257 - 128.3).reshape(shape) / 64


def swish(v: bp.Value) -> bp.Value:
    """A function for `Elementwise`."""
    return v * v.sigmoid()


class Blocks:
    """Rows that can only be sliced."""

    def __init__(self, X: Array) -> None:
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def __getitem__(self, rows: slice) -> Array:
        return self.X[rows]


LAYERS: dict[str, Callable[[], bp.Layer]] = {
    "Linear": lambda: bp.Linear(3, 2),
    "Linear without bias": lambda: bp.Linear(3, 2, bias=False),
    "ReLU": bp.ReLU,
    "LeakyReLU": lambda: bp.LeakyReLU(0.1),
    "ELU": lambda: bp.ELU(1.3),
    "SiLU": bp.SiLU,
    "GELU": bp.GELU,
    "Softplus": bp.Softplus,
    "Sigmoid": bp.Sigmoid,
    "Tanh": bp.Tanh,
    "Sin": bp.Sin,
    "Cos": bp.Cos,
    "Exp": bp.Exp,
    "Identity": bp.Identity,
    "Elementwise": lambda: bp.Elementwise(swish),
    "Dropout": lambda: bp.Dropout(0.4),
    "Dropout inside": lambda: bp.Residual(
        bp.Sequential(bp.Linear(3, 3), bp.FanOut(bp.Dropout(0.4), bp.Dropout(0.4), join="sum"))
    ),
    "BatchNorm": lambda: bp.BatchNorm(3),
    "BatchNorm with momentum": lambda: bp.BatchNorm(3, momentum=0.3, eps=1e-3),
    "LayerNorm": lambda: bp.LayerNorm(3, eps=1e-4),
    "Sequential": lambda: bp.Sequential(bp.Linear(3, 2), bp.Tanh(), bp.Sequential(bp.Linear(2, 2), bp.ELU())),
    "Sequential with checkpoints": lambda: bp.Sequential(
        bp.Linear(3, 2), bp.Tanh(), bp.BatchNorm(2), bp.Dropout(0.3), bp.Linear(2, 2), checkpoint=2
    ),
    "Residual": lambda: bp.Residual(bp.Sequential(bp.Linear(3, 2), bp.SiLU(), bp.Linear(2, 3))),
    "FanOut concatenates": lambda: bp.FanOut(bp.Linear(3, 2), bp.Identity(), bp.Sin()),
    "FanOut sums": lambda: bp.FanOut(bp.Linear(3, 3), bp.Tanh(), bp.LayerNorm(3), join="sum"),
}


def of_layer(name: str, dtype: str) -> Results:
    """Forward, backward and inference of four examples, in this order, and the inference of a fifth."""
    net = bp.Sequential(LAYERS[name](), dtype=dtype)
    net.phi[...] = numbers(net.phi.size, start=900)
    net.reseed(3)
    h = numbers(3, 4, start=40).astype(dtype)
    f = net.forward(h)
    found = {"f": f.copy()}
    dL_dh, gradients = net.backward(numbers(*f.shape, start=80).astype(dtype))
    found |= {"dL_dh": dL_dh.copy()} | {f"dL_d{key}": gradients[key].copy() for key in net.parameters}
    found |= {key: buffer.copy() for key, buffer in net.buffers.items()}
    return found | {"infer": net.infer(h), "infer one": net.infer(numbers(3, start=60).astype(dtype))}


@dataclass(frozen=True)
class LossRow:
    """How to make a loss, targets for n examples in rows, and the number of outputs."""

    make: Callable[..., bp.Loss]
    targets: Callable[[int], Array]
    outputs: int


def classes(n: int) -> Array:
    """Labels 0 … 2, which the examples of `numbers` tell: n = 23 are those of the trainings."""
    return numbers(n, D)[:, :3].argmax(axis=1)


def shares(n: int) -> Array:
    """Three probabilities for each example."""
    p = np.abs(numbers(n, 3, start=300))
    return p / p.sum(axis=1, keepdims=True)


LOSSES: dict[str, LossRow] = {
    "LeastSquares": LossRow(bp.LeastSquares, lambda n: numbers(n, 2, start=200), 2),
    "AbsoluteError": LossRow(bp.AbsoluteError, lambda n: numbers(n, 2, start=200), 2),
    "Huber": LossRow(lambda **kw: bp.Huber(0.7, **kw), lambda n: numbers(n, start=200), 1),
    "Pinball": LossRow(lambda **kw: bp.Pinball([0.1, 0.5, 0.9], **kw), lambda n: numbers(n, start=200), 3),
    "Poisson": LossRow(bp.Poisson, lambda n: np.floor(2 + numbers(n, 2, start=200)), 2),
    "GaussianNLL": LossRow(bp.GaussianNLL, lambda n: numbers(n, start=200), 2),
    "CrossEntropy of labels": LossRow(bp.CrossEntropy, classes, 3),
    "CrossEntropy of one-hot": LossRow(bp.CrossEntropy, lambda n: np.eye(3)[classes(n)], 3),
    "CrossEntropy of probabilities": LossRow(bp.CrossEntropy, shares, 3),
    "BinaryCrossEntropy": LossRow(bp.BinaryCrossEntropy, lambda n: (numbers(n, 2, start=200) > 0).astype(int), 2),
    "BinaryCrossEntropy of probabilities": LossRow(bp.BinaryCrossEntropy, lambda n: shares(n)[:, :2], 2),
}


def of_loss(name: str, dtype: str) -> Results:
    """Value, gradient and measures for either reduction, with weights and without."""
    row, n = LOSSES[name], 5
    f, y = numbers(row.outputs, n, start=500).astype(dtype), row.targets(n).T
    y = y if y.dtype.kind == "i" else np.atleast_2d(y)
    w = np.array([0.5, 2, 0, 1, 3.25])
    found: Results = {"per example": row.make().per_example(f, y)}
    for reduction in ("mean", "sum"):
        for weights, words in ((None, ""), (w, ", weighted")):
            loss = row.make(reduction=reduction)
            found[f"L, {reduction}{words}"] = np.array(loss.forward(f, y, weights))
            found[f"dL_df, {reduction}{words}"] = loss.backward().copy()
            found |= {f"{key}{words}": np.array(value) for key, value in loss.metrics(f, y, weights).items()}
    return found


OPTIMIZERS: dict[str, Callable[[], bp.Optimizer]] = {
    "SGD": lambda: bp.SGD(0.05),
    "SGD decay": lambda: bp.SGD(0.05, weight_decay=0.1),
    "SGD decay by name": lambda: bp.SGD(0.05, weight_decay={"*.omega": 0.1, "0.beta": 0.05}),
    "SGD l1": lambda: bp.SGD(0.05, l1=0.2),
    "SGD clip": lambda: bp.SGD(0.05, clip_value=0.5, clip_norm=0.8, weight_decay=0.1),
    "momentum": lambda: bp.SGD(0.05, momentum=0.9),
    "momentum decay": lambda: bp.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "momentum by name": lambda: bp.SGD(0.05, momentum=0.8, weight_decay={"*.omega": 0.1}, l1={"0.*": 0.02}),
    "momentum l1 clip": lambda: bp.SGD(0.05, momentum=0.9, l1=0.02, clip_norm=1.5),
    "nesterov": lambda: bp.SGD(0.05, momentum=0.9, nesterov=True),
    "nesterov decay": lambda: bp.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
    "nesterov l1 clip": lambda: bp.SGD(0.05, momentum=0.8, nesterov=True, l1=0.02, clip_value=0.9),
    "RMSProp": lambda: bp.RMSProp(0.01),
    "RMSProp decay": lambda: bp.RMSProp(0.01, decay=0.9, eps=1e-6, weight_decay=0.1),
    "RMSProp l1 clip": lambda: bp.RMSProp(0.01, decay=0.9, l1={"*.omega": 0.3}, clip_norm=0.8),
    "Adagrad": lambda: bp.Adagrad(0.05),
    "Adagrad decay": lambda: bp.Adagrad(0.05, eps=1e-6, weight_decay={"*.omega": 0.1}),
    "Adagrad l1 clip": lambda: bp.Adagrad(0.05, l1=0.2, clip_value=0.7),
    "Adam": lambda: bp.Adam(0.01),
    "Adam decay": lambda: bp.Adam(0.01, betas=(0.8, 0.99), weight_decay=0.1),
    "Adam without memory": lambda: bp.Adam(0.01, betas=(0.0, 0.0), eps=0.1),
    "Adam l1 clip": lambda: bp.Adam(0.01, l1=0.3, clip_norm=0.8),
    "AdamW": lambda: bp.AdamW(0.01),
    "AdamW decay": lambda: bp.AdamW(0.01, eps=1e-6, weight_decay=0.3),
    "AdamW by name": lambda: bp.AdamW(0.01, weight_decay={"*.omega": 0.3}, l1={"0.beta": 0.2}, clip_value=0.7),
}


def of_optimizer(name: str, dtype: str) -> Results:
    """φ after each of five steps along given gradients, which pull back a little."""
    net = bp.Sequential(bp.Linear(2, 2), dtype=dtype)
    net.phi[...] = numbers(6, start=600)
    optimizer = OPTIMIZERS[name]()
    optimizer.assign(net)
    path = []
    for t in range(5):
        g = (0.3 * net.phi + numbers(6, start=610 + 6 * t)).astype(dtype)
        optimizer.step(net.phi, g)
        path.append(net.phi.copy())
    return {"phi": np.array(path)}


SCHEDULES: dict[str, Callable[[], bp.Schedule]] = {
    "ConstantRate": lambda: bp.ConstantRate(0.1),
    "StepDecay": lambda: bp.StepDecay(0.1, every=3, factor=0.5),
    "ExponentialDecay": lambda: bp.ExponentialDecay(0.1, factor=0.9),
    "CosineDecay": lambda: bp.CosineDecay(0.1, steps=10, final=0.01),
    "WarmUp": lambda: bp.WarmUp(bp.ReduceOnPlateau(0.1, factor=0.5, patience=1), steps=3),
    "OneCycle": lambda: bp.OneCycle(0.1, steps=11),
    "ReduceOnPlateau": lambda: bp.ReduceOnPlateau(0.1, factor=0.5, patience=0, threshold=0.1),
}


def of_schedule(name: str) -> Results:
    """Its rates over twelve steps, while it hears of losses that soon fall no more."""
    schedule, rates = SCHEDULES[name](), []
    for t in range(12):
        rates.append(schedule(t))
        schedule.observe(1 + 1 / (t + 1) ** 2)
    return {"alpha": np.array(rates)}


INITIALIZERS: dict[str, Callable[[], bp.Initializer]] = {
    "HeNormal": bp.HeNormal,
    "HeUniform": bp.HeUniform,
    "GlorotNormal": bp.GlorotNormal,
    "GlorotUniform": bp.GlorotUniform,
    "LeCunNormal": bp.LeCunNormal,
    "LeCunUniform": bp.LeCunUniform,
    "Normal": lambda: bp.Normal(0.3),
    "Orthogonal": lambda: bp.Orthogonal(1.2),
    "Constant": lambda: bp.Constant(0.25),
}


def of_initializer(name: str, dtype: str) -> Results:
    """φ of a network of two layers, from seed 5."""
    make = INITIALIZERS[name]
    layers = (bp.Linear(2, 3, initializer=make()), bp.Residual(bp.Linear(3, 3, initializer=make(), bias=False)))
    return {"phi": bp.Sequential(*layers, seed=5, dtype=dtype).phi.copy()}


CONSTRAINTS: dict[str, Callable[[], bp.Constraint]] = {
    "MaxNorm": lambda: bp.MaxNorm(1.5),
    "MaxNorm of columns": lambda: bp.MaxNorm(1.5, axis=0),
    "NonNegative": bp.NonNegative,
}


def of_constraint(name: str, dtype: str) -> Results:
    """A projected parameter."""
    parameter = numbers(3, 3, start=700).astype(dtype)
    CONSTRAINTS[name]().project(parameter)
    return {"omega": parameter}


def dense(K: int) -> list[bp.Layer]:
    """One hidden layer."""
    return [bp.Linear(D, 5), bp.Tanh(), bp.Linear(5, K)]


def rectified(K: int) -> list[bp.Layer]:
    """The same with ReLU."""
    return [bp.Linear(D, 5), bp.ReLU(), bp.Linear(5, K)]


def with_dropout(K: int) -> list[bp.Layer]:
    """Dropout at the top and twice further in."""
    inside = bp.Residual(bp.Sequential(bp.Linear(5, 5), bp.Dropout(0.2), bp.Sin()))
    return [bp.Linear(D, 5), bp.ELU(), bp.Dropout(0.3), inside, bp.FanOut(bp.Dropout(0.1), bp.Cos()), bp.Linear(10, K)]


def with_norm(K: int) -> list[bp.Layer]:
    """BatchNorm behind an activation: the bias before it alone would have no gradient but rounding."""
    return [bp.Linear(D, 5), bp.Tanh(), bp.BatchNorm(5), bp.Linear(5, 4, bias=False), bp.LayerNorm(4), bp.Linear(4, K)]


def with_both(K: int) -> list[bp.Layer]:
    """BatchNorm and Dropout."""
    return [
        bp.Linear(D, 5),
        bp.Softplus(),
        bp.BatchNorm(5),
        bp.Dropout(0.2),
        bp.Linear(5, 4),
        bp.GELU(),
        bp.Linear(4, K),
    ]


@dataclass(frozen=True)
class Training:
    """A network, a loss (a row of `LOSSES`), an optimizer and their data; `stop` is the step at which it was saved."""

    layers: Callable[[int], list[bp.Layer]] = dense
    optimizer: Callable[[], bp.Optimizer] = OPTIMIZERS["momentum"]
    loss: str = "CrossEntropy of labels"
    dtype: str = "float64"
    reduction: str = "mean"
    weighted: bool = False
    validated: bool = False
    epochs: int = 3
    callbacks: Callable[[], list[bp.Callback]] = list
    sliced: bool = False
    net: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    stop: int = 0

    def trainer(self) -> bp.Trainer:
        """A trainer before its first step."""
        row = LOSSES[self.loss]
        net = bp.Sequential(*self.layers(row.outputs), seed=0, dtype=self.dtype, **self.net)
        loss = row.make(reduction=self.reduction)
        trainer = bp.Trainer(net, loss, self.optimizer(), **{"batch_size": 5} | self.settings)
        trainer.notes |= self.notes
        return trainer

    def data(self) -> tuple[Any, Array]:
        """Rows X and targets y."""
        X = numbers(N, D)
        return Blocks(X) if self.sliced else X, LOSSES[self.loss].targets(N)

    def weights(self) -> Array | None:
        """Some of the weights are 0."""
        w = np.abs(numbers(N, start=400))
        w[::4] = 0
        return w if self.weighted else None

    def fit(self, trainer: bp.Trainer, epochs: int, *more: bp.Callback) -> bp.History:
        """Train for so many epochs."""
        held = (numbers(7, D, start=1000), LOSSES[self.loss].targets(7)) if self.validated else None
        X, y = self.data()
        callbacks = [*self.callbacks(), *more]
        w = self.weights()
        return trainer.fit(X, y, epochs=epochs, sample_weight=w, validation_data=held, callbacks=callbacks, verbose=0)

    def results(self, trainer: bp.Trainer, history: bp.History) -> Results:
        """What training ended with."""
        net, records = trainer.net, [record.flat() for record in history]
        names = [
            name for name in records[0] if name == "loss" or name == "learning_rate" or name.startswith("validation")
        ]
        found = {"phi": net.phi.copy(), **{key: buffer.copy() for key, buffer in net.buffers.items()}}
        found |= {name: np.array([record[name] for record in records]) for name in names}
        found |= {f"evaluated {name}": np.array(value) for name, value in trainer.evaluate(*self.data()).items()}
        return found | {"t": np.array(float(trainer.optimizer.t)), "position": np.array(trainer.position, float)}


FITS: dict[str, Training] = {
    **{f"with {name}": Training(optimizer=each) for name, each in OPTIMIZERS.items()},
    **{f"of {name}": Training(loss=name, epochs=1, optimizer=OPTIMIZERS["SGD"]) for name in LOSSES},
    **{
        f"of {name}, weighted sum": Training(
            loss=name, epochs=1, reduction="sum", weighted=True, optimizer=lambda: bp.SGD(0.01)
        )
        for name in LOSSES
    },
    **{
        f"{name}, {dtype}": Training(layers, make, dtype=dtype)
        for dtype in DTYPES
        for name, layers, make in (
            ("ReLU and momentum", rectified, OPTIMIZERS["momentum"]),
            ("Dropout and Adam", with_dropout, OPTIMIZERS["Adam"]),
            ("BatchNorm and nesterov", with_norm, OPTIMIZERS["nesterov"]),
            ("both and AdamW", with_both, OPTIMIZERS["AdamW decay"]),
        )
    },
    "mean, weighted": Training(weighted=True),
    "sum": Training(reduction="sum", optimizer=lambda: bp.SGD(0.01, momentum=0.9)),
    "weighted, clipped": Training(weighted=True, optimizer=OPTIMIZERS["momentum l1 clip"]),
    "one shard": Training(with_dropout, settings={"shards": 1}),
    "three shards": Training(with_dropout, settings={"shards": 3}),
    "three shards, weighted": Training(with_dropout, weighted=True, settings={"shards": 3, "batch_size": 7}),
    "three shards, clipped": Training(optimizer=OPTIMIZERS["momentum l1 clip"], settings={"shards": 3}),
    "three shards on threads": Training(
        with_dropout, OPTIMIZERS["Adam"], settings={"shards": 3, "threads": 2, "deterministic": True}
    ),
    "five shards": Training(with_dropout, settings={"shards": 5, "batch_size": 11}),
    "checkpoints": Training(with_both, OPTIMIZERS["Adam"], net={"checkpoint": 2}),
    "checkpoints of three": Training(with_dropout, net={"checkpoint": 3}),
    "checkpoints and shards": Training(with_dropout, net={"checkpoint": 2}, settings={"shards": 3}),
    "single examples": Training(settings={"batch_size": 1}, epochs=1),
    "full batches": Training(with_norm, settings={"batch_size": "full"}),
    "larger batches than data": Training(settings={"batch_size": 50}),
    "in order": Training(settings={"shuffle": False}),
    "another seed": Training(with_dropout, settings={"seed": 7}),
    "sliced": Training(sliced=True),
    "constrained": Training(settings={"constraints": {"*.omega": bp.MaxNorm(0.5), "*.beta": bp.NonNegative()}}),
    "scheduled": Training(optimizer=lambda: bp.Adam(bp.WarmUp(bp.CosineDecay(0.05, steps=9), steps=4))),
    "best weights": Training(
        optimizer=lambda: bp.SGD(0.9, momentum=0.9), epochs=5, validated=True, callbacks=lambda: [bp.BestWeights()]
    ),
    "average of epochs": Training(callbacks=lambda: [bp.WeightAverage(start_epoch=2)]),
    "average of steps": Training(with_norm, callbacks=lambda: [bp.WeightAverage(0.8)]),
}


def of_fit(name: str) -> Results:
    """What a training ends with."""
    training = FITS[name]
    trainer = training.trainer()
    return training.results(trainer, training.fit(trainer, training.epochs))


def of_single_steps() -> Results:
    """Losses and φ of `Trainer.step`, on batches of three sizes."""
    training = Training(with_dropout, OPTIMIZERS["nesterov decay"], weighted=True)
    trainer, (X, y), w = training.trainer(), training.data(), training.weights()
    losses = [trainer.step(X[rows], y[rows], w[rows]) for rows in (slice(0, 9), slice(9, 13), slice(13, 23))]
    return {"losses": np.array(losses), "phi": trainer.net.phi.copy()}


MINIMA = {
    f"{name}, {method}": (name, method)
    for name, methods in {
        "LeastSquares": ("L-BFGS-B", "BFGS", "CG", "TNC", "Newton-CG", "trust-ncg", "trust-krylov"),
        "CrossEntropy of labels": ("L-BFGS-B", "trust-ncg"),
        "Poisson": ("L-BFGS-B",),
        "GaussianNLL": ("L-BFGS-B",),
    }.items()
    for method in methods
}


def of_minimum(name: str) -> Results:
    """φ and L where `minimize` has converged: on a convex objective, whose minimum does not depend on the way."""
    loss, method = MINIMA[name]
    row = LOSSES[loss]
    net = bp.Sequential(bp.Linear(D, row.outputs), seed=0, dtype="float64")
    X, y, w = numbers(N, D) / 2, row.targets(N), np.abs(numbers(N, start=400))
    history = bp.minimize(
        net,
        row.make(),
        X,
        y,
        sample_weight=w,
        weight_decay=0.1,
        method=method,
        iterations=500,
        tolerance=1e-7,
        verbose=0,
    )
    return {"phi": net.phi.copy(), "loss": np.array(history[-1].loss)}


@dataclass(frozen=True)
class Estimator:
    """An estimator, and y."""

    make: Callable[[], Any]
    y: Callable[[], Any]
    framed: bool = False

    def X(self) -> Any:
        """Rows: an array, or a frame with numbers, truths and words."""
        X = numbers(30, D)
        if not self.framed:
            return X
        import pandas as pd

        towns = np.array(["Bonn", "Köln", "Ulm"])[numbers(30, 3, start=50).argmax(axis=1)]
        return pd.DataFrame({"size": X[:, 0], "lift": X[:, 1] > 0, "town": towns, "floor": np.arange(30) % 5})

    def fitted(self) -> Any:
        """The estimator after `fit`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # none of them has converged
            return self.make().fit(self.X(), self.y())

    def predictions(self, model: Any) -> Results:
        """What it predicts; of words, which of all."""
        predicted = np.asarray(model.predict(self.X()))
        if predicted.dtype.kind not in "fiu":
            predicted = np.unique(np.asarray(self.y())).searchsorted(predicted)
        found = {"predict": predicted.astype(float), "score": np.array(model.score(self.X(), self.y()))}
        return found | ({"predict_proba": model.predict_proba(self.X())} if hasattr(model, "predict_proba") else {})


SHORT = {"hidden_layer_sizes": (5,), "max_iter": 5, "batch_size": 8, "learning_rate_init": 0.02, "random_state": 0}
EXACT = SHORT | {"dtype": "float64"}

ESTIMATORS: dict[str, Estimator] = {
    "classifier": Estimator(
        lambda: estimators.MLPClassifier(
            activation="tanh", scale_inputs=True, dropout=0.2, class_weight="balanced", **EXACT
        ),
        lambda: np.array(["one", "three", "two"])[classes(30)],
    ),
    "two-classes": Estimator(
        lambda: estimators.MLPClassifier(solver="sgd", early_stopping=True, monitor="loss", **EXACT),
        lambda: numbers(30, D)[:, 0] > 0,
    ),
    "several-answers": Estimator(
        lambda: estimators.MLPClassifier(activation="silu", **SHORT), lambda: (numbers(30, D)[:, :2] > 0).astype(int)
    ),
    "regressor": Estimator(
        lambda: estimators.MLPRegressor(
            **EXACT | {"hidden_layer_sizes": (4, 3)}, activation=[bp.LeakyReLU(0.1), "gelu"], scale_targets=True
        ),
        lambda: 7 + 3 * numbers(30, start=1),
    ),
    "huber": Estimator(
        lambda: estimators.MLPRegressor("huber", delta=0.5, solver="sgd", learning_rate="adaptive", **EXACT),
        lambda: numbers(30, 2, start=1),
    ),
    "quantiles": Estimator(
        lambda: estimators.MLPRegressor("quantile", quantiles=[0.2, 0.5, 0.7], scale_targets=True, **EXACT),
        lambda: numbers(30, start=1),
    ),
    "gaussian": Estimator(lambda: estimators.MLPRegressor("gaussian", **EXACT), lambda: numbers(30, start=1)),
    "counts": Estimator(
        lambda: estimators.MLPRegressor(bp.Poisson(), activation="softplus", **EXACT),
        lambda: np.floor(2 + numbers(30, start=1)),
    ),
    "frame": Estimator(
        lambda: estimators.MLPRegressor(unknown="ignore", missing="impute", **EXACT),
        lambda: numbers(30, start=1),
        framed=True,
    ),
}


ORACLE: dict[str, Callable[[], Results]] = {
    **{f"layer {name}, {dtype}": lambda n=name, d=dtype: of_layer(n, d) for name in LAYERS for dtype in DTYPES},
    **{f"loss {name}, {dtype}": lambda n=name, d=dtype: of_loss(n, d) for name in LOSSES for dtype in DTYPES},
    **{f"rule {name}, {dtype}": lambda n=name, d=dtype: of_optimizer(n, d) for name in OPTIMIZERS for dtype in DTYPES},
    **{f"schedule {name}": lambda n=name: of_schedule(n) for name in SCHEDULES},
    **{
        f"weights {name}, {dtype}": lambda n=name, d=dtype: of_initializer(n, d)
        for name in INITIALIZERS
        for dtype in DTYPES
    },
    **{
        f"constraint {name}, {dtype}": lambda n=name, d=dtype: of_constraint(n, d)
        for name in CONSTRAINTS
        for dtype in DTYPES
    },
    **{f"training {name}": lambda n=name: of_fit(n) for name in FITS},
    "training by single steps": of_single_steps,
    **{f"minimum {name}": lambda n=name: of_minimum(n) for name in MINIMA},
    **{f"estimator {name}": lambda e=each: e.predictions(e.fitted()) for name, each in ESTIMATORS.items()},
}


def every_layer(dtype: str) -> bp.Sequential:
    """A network with every layer whose arguments are data."""
    return bp.Sequential(
        *(bp.Linear(D, 4), bp.ReLU(), bp.BatchNorm(4, momentum=0.2, eps=1e-4), bp.LeakyReLU(0.1)),
        *(bp.Linear(4, 3, bias=False), bp.ELU(1.3), bp.LayerNorm(3), bp.SiLU()),
        bp.Residual(bp.Sequential(bp.Linear(3, 2), bp.GELU(), bp.Dropout(0.25), bp.Linear(2, 3))),
        bp.Softplus(),
        bp.FanOut(bp.Linear(3, 2), bp.Sequential(bp.Sigmoid(), bp.Linear(3, 1)), bp.Identity()),
        bp.Tanh(),
        bp.FanOut(
            bp.Linear(6, 2),
            bp.Sequential(bp.Sin(), bp.Linear(6, 2)),
            bp.Sequential(bp.Cos(), bp.Linear(6, 2)),
            join="sum",
        ),
        *(bp.Dropout(0.1, seed=3), bp.Exp(), bp.Linear(2, 2)),
        seed=0,
        dtype=dtype,
        checkpoint=4,
    )


def every_initializer(dtype: str) -> bp.Sequential:
    """A network with weights of every kind."""
    return bp.Sequential(*(bp.Linear(D, D, initializer=make()) for make in INITIALIZERS.values()), dtype=dtype)


NETWORKS: dict[str, Callable[[], bp.Sequential]] = {
    "every-layer-float32": lambda: every_layer("float32"),
    "every-layer-float64": lambda: every_layer("float64"),
    "every-initializer": lambda: every_initializer("float64"),
}
WEIGHTS = "every-layer-float64"  # the network whose weights are saved alone, too


def of_network(net: bp.Sequential) -> Results:
    """φ, running statistics, predictions, and φ after more training."""
    found = {"phi": net.phi.copy(), **{key: buffer.copy() for key, buffer in net.buffers.items()}}
    X = numbers(N, D)
    found["predict"] = net.predict(X)
    y = X[:, : found["predict"].shape[1]]
    bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.001), batch_size=5).fit(X, y, epochs=1, verbose=0)
    return found | {"trained phi": net.phi.copy(), "trained predict": net.predict(X)}


def plateau() -> bp.Optimizer:
    """Adam that becomes slower where the loss stays."""
    return bp.Adam(
        bp.WarmUp(bp.ReduceOnPlateau(0.05, factor=0.5, patience=0, threshold=0.05), steps=4), l1={"0.*": 0.01}
    )


CONSTRAINED = {"constraints": {"*.omega": bp.MaxNorm(0.8), "0.beta": bp.NonNegative()}}

# Five steps are an epoch, unless a row says otherwise.
RUNS: dict[str, Training] = {
    "sgd": Training(loss="LeastSquares", optimizer=OPTIMIZERS["SGD decay by name"], stop=8),
    "sgd-float32": Training(with_dropout, lambda: bp.SGD(bp.StepDecay(0.1, every=4)), dtype="float32", stop=6),
    "momentum": Training(
        rectified, OPTIMIZERS["momentum by name"], settings=CONSTRAINED, notes={"why": ["plain", 1.5, None]}, stop=7
    ),
    "momentum-float32": Training(with_both, OPTIMIZERS["momentum decay"], dtype="float32", weighted=True, stop=9),
    "nesterov": Training(optimizer=OPTIMIZERS["nesterov l1 clip"], stop=8),
    "nesterov-decay": Training(with_dropout, OPTIMIZERS["nesterov decay"], settings={"shards": 3, "seed": 7}, stop=11),
    "nesterov-float32": Training(with_norm, OPTIMIZERS["nesterov"], dtype="float32", stop=6),
    "nesterov-between-epochs": Training(optimizer=OPTIMIZERS["nesterov"], stop=10),
    "rmsprop": Training(with_dropout, lambda: bp.RMSProp(bp.OneCycle(0.02, steps=15), weight_decay=0.01), stop=8),
    "rmsprop-float32": Training(optimizer=OPTIMIZERS["RMSProp"], loss="Huber", dtype="float32", stop=4),
    "adagrad": Training(
        optimizer=lambda: bp.Adagrad(bp.ExponentialDecay(0.1, factor=0.9)), loss="Pinball", weighted=True, stop=12
    ),
    "adam": Training(
        with_both,
        plateau,
        validated=True,
        epochs=6,
        callbacks=lambda: [bp.EarlyStopping(patience=4, min_delta=1e-3), bp.WeightAverage(0.9, start_epoch=2)],
        stop=18,
    ),
    "adam-float32": Training(
        optimizer=OPTIMIZERS["Adam"], loss="GaussianNLL", dtype="float32", callbacks=lambda: [bp.BestWeights()], stop=8
    ),
    "adam-checkpoints": Training(
        with_both, OPTIMIZERS["Adam"], loss="BinaryCrossEntropy", net={"checkpoint": 2}, settings={"shards": 1}, stop=7
    ),
    "adam-not-begun": Training(with_dropout, OPTIMIZERS["Adam"], loss="Poisson", settings={"batch_size": 7}),
    "adamw": Training(
        with_norm,
        lambda: bp.AdamW(bp.CosineDecay(0.05, steps=20, final=0.001), weight_decay={"*.omega": 0.1}, clip_norm=0.5),
        reduction="sum",
        callbacks=lambda: [bp.WeightAverage()],
        stop=13,
    ),
    "adamw-float32": Training(
        optimizer=OPTIMIZERS["AdamW"],
        dtype="float32",
        settings={"batch_size": "full", "shuffle": False},
        epochs=6,
        stop=3,
    ),
    "slow": Training(
        optimizer=lambda: bp.SGD(bp.ReduceOnPlateau(1.5, factor=0.5, patience=0), momentum=0.9),
        loss="CrossEntropy of probabilities",
        validated=True,
        epochs=8,
        callbacks=lambda: [bp.EarlyStopping(patience=3)],
        stop=18,
    ),
}


def save_run(training: Training, path: Path) -> None:
    """Save a training at its step: from a function after the step, or, if there are callbacks, where Ctrl-C has ended it."""
    trainer = training.trainer()
    if training.callbacks is list:
        if not training.stop:
            trainer.save(path)
        trainer.after_step.append(lambda: trainer.save(path) if trainer.optimizer.t == training.stop else None)
        training.fit(trainer, training.epochs)
        return
    trainer.after_step.append(
        lambda: signal.raise_signal(signal.SIGINT) if trainer.optimizer.t == training.stop else None
    )
    history = training.fit(trainer, training.epochs, bp.Checkpoints(path))
    if history.stopped != "Ctrl-C":
        raise RuntimeError(f"It was not stopped: {history.stopped!r}")


def of_run(training: Training) -> Results:
    """What a run that never stopped ends with."""
    trainer = training.trainer()
    return training.results(trainer, training.fit(trainer, training.epochs))


COMMANDS: dict[str, list[str]] = {
    "rent": ["--target", "rent", "--hidden", "5", "--epochs", "4", "--batch-size", "7", "--patience", "0"],
    "town": [
        "--target",
        "town",
        "--drop",
        "rent",
        "--hidden",
        "4,3",
        "--activation",
        "tanh",
        "--optimizer",
        "sgd",
        "--epochs",
        "9",
    ],
}
PREDICTING: dict[str, list[str]] = {"rent": [], "town": ["--drop", "rent", "--probabilities"]}


def command(*arguments: object) -> str:
    """Run `backprop` with these arguments; what it wrote to standard error. Raises RuntimeError if it fails."""
    home = Path(bp.__file__).parents[1]  # so that it is the same version
    call = [sys.executable, "-m", "backprop", *map(str, arguments)]
    run = subprocess.run(call, capture_output=True, text=True, cwd=home)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return run.stderr


def of_command(folder: Path, name: str, *options: str) -> Results:
    """What `backprop predict` says of the flats by a model in the folder."""
    out = folder / f"{name}.npy"
    command("predict", file(folder, "command", name), folder / "flats.csv", "--out", out, *options)
    return {"predict": np.load(out)}


def resume_command(folder: Path) -> str:
    """Go on with a checkpoint for two epochs, which makes a model "resumed"; what `backprop resume` wrote to standard error."""
    run = folder / "again.safetensors"
    run.write_bytes(file(folder, "command", "run").read_bytes())  # it is written again
    return command("resume", run, folder / "flats.csv", "--out", file(folder, "command", "resumed"), "--epochs", 2)


def write_flats(path: Path) -> None:
    """Whole numbers, and means without rounding, so that scaling them gives the same bits everywhere."""
    rows = []
    for k in range(24):
        size, floor, lift, town = 20 + 7 * k % 91, k % 6, k // 2 % 2, ("Bonn", "Köln", "Ulm")[(k * k + k // 3) % 3]
        rows.append([size, floor, str(lift > 0).lower(), town, 200 + 10 * size + 300 * (town == "Köln") - 20 * floor])
    for j in (0, 1, 4):
        rows[-1][j] -= sum(row[j] for row in rows) % 24
    lines = [["size", "floor", "lift", "town", "rent"], *rows]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")


def file(folder: Path, kind: str, name: str) -> Path:
    """Where a file is."""
    return folder / f"{kind}-{name}.safetensors"


def write_files(folder: Path) -> dict[str, Results]:
    """Write the files of the library to a folder; what they have to give."""
    expected: dict[str, Results] = {}
    X = numbers(N, D)
    for name, make in NETWORKS.items():
        net = make()
        y = X[:, : net.out_features]
        bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.002), batch_size=6).fit(X, y, epochs=3, verbose=0)
        net.save(file(folder, "network", name))
        if name == WEIGHTS:
            bp.save_weights(net, file(folder, "network", "weights"))
        expected[f"network {name}"] = of_network(net)
    for name, training in RUNS.items():
        save_run(training, file(folder, "training", name))
        expected[f"training {name}"] = of_run(training)
    for name, estimator in ESTIMATORS.items():
        model = estimator.fitted()
        model.save(file(folder, "estimator", name))
        expected[f"estimator {name}"] = estimator.predictions(model)
    write_flats(folder / "flats.csv")
    for name, arguments in COMMANDS.items():
        more = ["--checkpoint", file(folder, "command", "run")] if name == "rent" else []
        command("fit", folder / "flats.csv", *arguments, *more, "--out", file(folder, "command", name))
        expected[f"command {name}"] = of_command(folder, name, *PREDICTING[name])
    return expected


def write_results(name: str, cases: dict[str, Results]) -> None:
    """Write results as one vector for each dtype, with an index: arrays of their own would take twice the room."""
    index, vectors = [], {dtype: [np.empty(0, dtype)] for dtype in DTYPES}
    for case, arrays in cases.items():
        for key, array in arrays.items():
            index.append([case, key, array.dtype.name, array.shape])
            vectors[array.dtype.name].append(array.ravel())
    joined = {dtype: np.concatenate(parts) for dtype, parts in vectors.items()}
    np.savez_compressed(HERE / name, index=np.frombuffer(json.dumps(index).encode(), np.uint8), **joined)


def read_results(name: str) -> dict[str, Results]:
    """What `write_results` has written: the arrays of each case by name."""
    cases: dict[str, Results] = {}
    with np.load(HERE / name) as found:
        vectors = {dtype: found[dtype] for dtype in DTYPES}
        for case, key, dtype, shape in json.loads(found["index"].tobytes()):
            size = math.prod(shape)
            cases.setdefault(case, {})[key] = vectors[dtype][:size].reshape(shape)
            vectors[dtype] = vectors[dtype][size:]
    return cases


def main() -> None:
    """Write all files."""
    if bp.__version__ != VERSION:
        raise SystemExit(
            f"This is version {bp.__version__}, in {bp.__file__}; version {VERSION} is what is frozen here."
        )
    warnings.simplefilter("ignore", bp.TrainingAdvice)
    write_results("oracle.npz", {name: compute() for name, compute in ORACLE.items()})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expected = write_files(folder)
        with zipfile.ZipFile(FILES, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in [*sorted(folder.glob("*.safetensors")), folder / "flats.csv"]:
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
        resume_command(folder)
        expected["command run"] = of_command(folder, "resumed")
    write_results("expected.npz", expected)


if __name__ == "__main__":
    main()
