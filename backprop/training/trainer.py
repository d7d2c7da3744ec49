"""The trainer: minibatch descent, from the loop you can see to a `fit` with progress and early stopping."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from backprop import checks
from backprop.blas import Landing
from backprop.checks import Array
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential
from backprop.training.callbacks import Callback
from backprop.training.data import Examples
from backprop.training.history import Epoch, History

Metric = Callable[[Array, Array], float]


class Trainer:
    """Trains a network by descent on minibatches.

        for each epoch: shuffle by (seed, epoch); for each batch B of `batch_size` examples:
            L = mean of ℓ_i over B,   φ ← optimizer(φ, ∂L/∂φ)

    `batch_size` 1 is single-example descent, "full" the whole data set in each step. The trainer runs replicas of the network:
    the same φ, but caches of their own, so what you do with `net` between steps does not disturb it.

    Raises TypeError or ValueError for arguments that do not fit; FloatingPointError while training, when a loss or gradient is
    not finite (the weights are then those of the step that the message names).

    >>> import numpy as np, backprop as bp
    >>> X = np.linspace(-1, 1, 20).reshape(-1, 1)
    >>> net = bp.Sequential(bp.Linear(1, 1), seed=0)
    >>> trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.3), batch_size=5)
    >>> for epoch in trainer.epochs(X, 2 * X[:, 0] + 1, 20):
    ...     if epoch.loss < 1e-3: break
    >>> epoch.loss < 1e-3
    True
    """

    def __init__(
        self,
        net: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        *,
        batch_size: int | str = 32,
        seed: int = 0,
    ) -> None:
        for name, value, kind in (("net", net, Sequential), ("loss", loss, Loss), ("optimizer", optimizer, Optimizer)):
            if not isinstance(value, kind):
                advice = f"Write {value.__name__}(…)." if isinstance(value, type) else ""
                raise TypeError(checks.message("Trainer", f"{name}: a {kind.__name__}", repr(value), advice))
        self.net, self.loss, self.optimizer = net, loss, optimizer
        if isinstance(batch_size, str):
            checks.choice("Trainer", "batch_size", batch_size, ["full"])
        self.batch_size = batch_size if isinstance(batch_size, str) else checks.integer("Trainer", "batch_size", batch_size)
        self.seed = checks.integer("Trainer", "seed", seed, least=0)
        self.epochs_done = 0
        self._replica, self._loss = net.replica(), loss.replica()
        self._random = any(type(leaf).reseed is not Layer.reseed for leaf in net.leaves())
        first = next(iter(self._replica.leaves()))
        first._wants_dL_dh = False  # nobody asks for the gradient of the data

    def step(self, X: Array, y: Array, sample_weight: Array | None = None) -> float:
        """One optimizer step on the rows X (N, D) as one batch; returns the loss before it.

        The gradient is checked before φ is touched.
        """
        h, y, w = Examples("Trainer.step", self.net, self.loss, X, y, sample_weight).columns(slice(None))
        L = self._gradient(h, y, w, buffer := Landing(np.empty_like(self.net.phi)))
        if not checks.all_finite(buffer.target):  # type: ignore[arg-type]
            raise self._not_finite("gradient", buffer.target, "The weights are those before this step.")
        self.optimizer.step(self.net.phi, buffer.target)  # type: ignore[arg-type]
        return L

    def epochs(
        self,
        X: Array,
        y: Array,
        n: int,
        *,
        validation_data: tuple[Array, Array] | None = None,
        sample_weight: Array | None = None,
        metrics: Sequence[str | Metric] = (),
    ) -> Iterator[Epoch]:
        """Train for `n` epochs, yielding a record after each; `break` stops training.

        Rows X (N, D), targets y (N,) or (N, K). Everything is checked before the first step.
        """
        checks.integer("Trainer.epochs", "n", n)
        examples = Examples("Trainer.epochs", self.net, self.loss, X, y, sample_weight)
        validation = self._validation(validation_data)
        return self._epochs(examples, n, validation, metrics)

    def _epochs(
        self, examples: Examples, n: int, validation: Examples | None, metrics: Sequence[str | Metric]
    ) -> Iterator[Epoch]:
        for _ in range(n):
            alpha, start = self.optimizer.learning_rate, time.perf_counter()
            loss = self._epoch(examples)
            seconds = time.perf_counter() - start
            self.epochs_done += 1
            record = Epoch(
                epoch=self.epochs_done,
                loss=loss,
                seconds=seconds,
                examples_per_second=examples.n / seconds,
                learning_rate=alpha,
                metrics=self._measure(examples, metrics) if metrics else {},
                validation=self._measure(validation, metrics) if validation else {},
            )
            self.optimizer.schedule.observe(record.validation.get("loss", loss))
            yield record
