"""The trainer: minibatch descent, from the loop you can see to a `fit` with progress and early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.constraints import Constraint, projections
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential
from backprop.training.callbacks import Callback
from backprop.training.data import Examples
from backprop.training.descent import Descent
from backprop.training.history import Epoch, History
from backprop.training.metrics import Metric, check_metrics, measure
from backprop.training.watch import check_callbacks, check_verbose, validation_examples, watching


class Trainer:
    """Trains a network by descent on minibatches.

        for each epoch: shuffle by (seed, epoch); for each batch B of `batch_size` examples:
            L = mean of ℓ_i over B,   φ ← optimizer(φ, ∂L/∂φ)

    `batch_size` 1 is single-example descent, "full" the whole data set in each step; without `shuffle` the batches are always
    the same, in the order of the data. The trainer runs replicas of the network:
    the same φ, but caches of their own, so what you do with `net` between steps does not disturb it.

    `shards` cuts each batch into that many parts, one after another or on threads: activation memory is that of one part per
    thread. "auto" takes 1 for small steps. `threads` is "auto" (what the step is worth, at most the cores there are) or a
    number. The same seed and setting give the same bits; with `deterministic=True` whatever the number of threads.

    `constraints` are what parameters satisfy after each step, by the pattern of their names: {"*.omega": MaxNorm(3)}; the first
    pattern that matches counts. Initial weights are left as they are; the first step projects them. `after_step` is a list of
    functions to call after each step, for callbacks that cannot wait for the end of an epoch.

    Raises TypeError or ValueError for arguments that do not fit; FloatingPointError while training, when a loss or gradient is
    not finite (the message names the step whose weights are left).

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
        shuffle: bool = True,
        seed: int = 0,
        shards: int | str = "auto",
        threads: int | str = "auto",
        deterministic: bool = False,
        constraints: Mapping[str, Constraint] | None = None,
    ) -> None:
        checks.instance("Trainer", "net", net, Sequential)
        checks.instance("Trainer", "loss", loss, Loss)
        checks.instance("Trainer", "optimizer", optimizer, Optimizer)
        self.net, self.loss, self.optimizer = net, loss, optimizer
        self.batch_size = checks.integer_or("Trainer", "batch_size", batch_size, "full")
        self.shuffle = checks.boolean("Trainer", "shuffle", shuffle)
        self.seed = checks.integer("Trainer", "seed", seed, least=0)
        self.shards = checks.integer_or("Trainer", "shards", shards, "auto")
        self.threads = checks.integer_or("Trainer", "threads", threads, "auto")
        self.deterministic = checks.boolean("Trainer", "deterministic", deterministic)
        projected = projections("Trainer", constraints, net.parameters)
        self.constraints = dict(constraints or {})
        optimizer.assign(net)
        self.epochs_done = 0
        self._progress: Callable[[int], object] = lambda examples: None
        deterministic = self.deterministic
        self._descent = Descent(net, loss, optimizer, self.shards, self.threads, deterministic, projected, self.shuffle)
        self.after_step = self._descent.after_step

    def step(self, X: Array, y: Array, sample_weight: Array | None = None) -> float:
        """One optimizer step on the rows X (N, D) as one batch; returns the loss before it.

        The gradient is checked before φ is touched. For many steps `epochs` is faster: it checks the data once.
        """
        examples = Examples("Trainer.step", self.net, self.loss, X, y, sample_weight)
        descent = self._descent
        descent.remember()
        with descent.running(descent.step_for(examples, examples.n)):
            return descent.step(examples, np.arange(examples.n), self.seed, careful=True)

    def epochs(
        self,
        X: Array,
        y: Array,
        n: int,
        *,
        validation_data: tuple[Array, ...] | None = None,
        sample_weight: Array | None = None,
        metrics: Sequence[str | Metric] = (),
    ) -> Iterator[Epoch]:
        """Train for `n` epochs, yielding a record after each; `break` stops training.

        Rows X (N, D), targets y (N,) or (N, K). Everything is checked before the first step.
        """
        checks.integer("Trainer.epochs", "n", n)
        examples = Examples("Trainer.epochs", self.net, self.loss, X, y, sample_weight)
        validation = validation_examples("Trainer", self.net, self.loss, validation_data)
        check_metrics("Trainer", self.net, self.loss, metrics, examples, validation)
        return self._epochs(examples, n, validation, metrics)

    def fit(
        self,
        X: Array,
        y: Array,
        *,
        epochs: int = 10,
        validation_data: tuple[Array, ...] | None = None,
        sample_weight: Array | None = None,
        metrics: Sequence[str | Metric] = (),
        callbacks: Sequence[Callback] = (),
        verbose: int = 1,
    ) -> History:
        """Train, and return the history of this call. A second `fit` goes on where the first stopped.

        `validation_data` is (X, y) or (X, y, sample_weight). `metrics` are names of the loss's own measures ("accuracy", "r2"),
        names of scikit-learn's scorers ("f1_macro", "roc_auc"), or functions of predictions (N, K) and targets in rows, without
        weights; they are measured after each epoch on the training data, and on the validation data. `verbose` is 0 for silence,
        1 for a progress bar, 2 for a line per epoch, both on stderr. Ctrl-C ends training after the step at hand: the weights are
        whole, the history is kept. `callbacks` are ended whatever ends training, an error included.
        """
        check_callbacks("Trainer.fit", callbacks)
        verbose = check_verbose("Trainer.fit", verbose)
        checks.integer("Trainer.fit", "epochs", epochs)
        records = self.epochs(
            X, y, epochs, validation_data=validation_data, sample_weight=sample_weight, metrics=metrics
        )
        with watching(self, callbacks, verbose, np.shape(X)[0] * epochs, "example", "epoch") as watch:
            before, self._progress = self._progress, watch.bar.update
            try:
                for record in records:
                    if watch.note(record):
                        break
            finally:
                self._progress = before
        return watch.history

    def evaluate(
        self, X: Array, y: Array, sample_weight: Array | None = None, metrics: Sequence[str | Metric] = ()
    ) -> dict[str, float]:
        """Loss and measures on rows X (N, D): {"loss": …, "accuracy": …}. Nothing is trained.

        >>> import numpy as np, backprop as bp
        >>> trainer = bp.Trainer(bp.Sequential(bp.Identity()), bp.LeastSquares(), bp.SGD(0.1))
        >>> trainer.evaluate(np.ones((2, 1)), np.array([1.0, 0.0]))
        {'loss': 0.5, 'r2': -1.0}
        """
        examples = Examples("Trainer.evaluate", self.net, self.loss, X, y, sample_weight)
        check_metrics("Trainer", self.net, self.loss, metrics, examples)
        return measure(self.net, self.loss, examples, metrics)

    def _epochs(
        self, examples: Examples, n: int, validation: Examples | None, metrics: Sequence[str | Metric]
    ) -> Iterator[Epoch]:
        batch_size = examples.n if isinstance(self.batch_size, str) else self.batch_size
        for _ in range(n):
            alpha, start = self.optimizer.learning_rate, time.perf_counter()
            loss = self._descent.epoch(examples, batch_size, self.seed, self.epochs_done, self._progress)
            seconds = time.perf_counter() - start
            self.epochs_done += 1
            record = Epoch(
                epoch=self.epochs_done,
                loss=loss,
                seconds=seconds,
                examples_per_second=examples.n / seconds,
                learning_rate=alpha,
                metrics=measure(self.net, self.loss, examples, metrics, own=False) if metrics else {},
                validation=measure(self.net, self.loss, validation, metrics) if validation else {},
            )
            self.optimizer.schedule.observe(record.validation.get("loss", loss))
            yield record
