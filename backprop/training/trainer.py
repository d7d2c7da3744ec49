"""The trainer: minibatch descent, from the loop you can see to a `fit` with progress and early stopping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.constraints import Constraint, projections
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential
from backprop.training import checkpoint
from backprop.training.advice import Advisor
from backprop.training.callbacks import Callback
from backprop.training.data import Examples
from backprop.training.descent import Descent, Position, interrupts
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

    `position` is (epochs done, batches done of the next one). After Ctrl-C training goes on there, with the next `fit`, or in
    another process: `save` writes a file for `resume`. `notes` is a dict of plain data of your own that goes with it, such as
    `table.state()`.

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
        self._progress: Callable[[int], object] = lambda examples: None
        deterministic = self.deterministic
        self._descent = Descent(net, loss, optimizer, self.shards, self.threads, deterministic, projected, self.shuffle)
        self.after_step = self._descent.after_step
        self._advisor = Advisor("Trainer", net, loss, optimizer)
        self._data: Examples | dict[str, Any] | None = None  # trained on last; of a file, only their fingerprint
        self._callbacks: Sequence[Callback] = ()  # of the `fit` that is running
        self._waiting: list[tuple[str, dict[str, Any]]] = []  # states of callbacks from a file, by their class
        self._begun_with: tuple[object, ...] = ()  # batch size and seed
        self.notes: dict[str, Any] = {}

    @property
    def epochs_done(self) -> int:
        """Whole epochs so far. Setting it begins the next one anew."""
        return self._descent.position.epoch

    @epochs_done.setter
    def epochs_done(self, epochs: int) -> None:
        self._descent.position = Position(epochs)

    @property
    def position(self) -> tuple[int, int]:
        """Whole epochs so far, and batches of the next one."""
        return self._descent.position.epoch, self._descent.position.batch

    def step(self, X: Array, y: Array, sample_weight: Array | None = None) -> float:
        """One optimizer step on the rows X (N, D) as one batch; returns the loss before it.

        The gradient is checked before φ is touched. For many steps `epochs` is faster: it checks the data once.
        """
        examples = Examples("Trainer.step", self.net, self.loss, X, y, sample_weight)
        descent = self._descent
        descent.remember()
        with descent.running(descent.step_for(examples, examples.n)):
            L = descent.step(examples, np.arange(examples.n), self.seed, careful=True)
            descent.notify()
            return L

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

        Rows X (N, D), targets y (N,) or (N, K). Everything is checked before the first step. An epoch that was interrupted is the
        first of the n; with other data or batches than it began with it begins anew. Raises ValueError after `resume` for other
        data than those of the file.
        """
        checks.integer("Trainer.epochs", "n", n)
        examples = Examples("Trainer.epochs", self.net, self.loss, X, y, sample_weight)
        validation = validation_examples("Trainer", self.net, self.loss, validation_data)
        check_metrics("Trainer", self.net, self.loss, metrics, examples, validation)
        if isinstance(self._data, dict):
            checkpoint.check_data("Trainer.epochs", self._data, examples)
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
        whole, the history is kept, and the next `fit` goes on with the next batch. `callbacks` are ended whatever ends training,
        an error included.
        """
        check_callbacks("Trainer.fit", callbacks)
        verbose = check_verbose("Trainer.fit", verbose)
        checks.integer("Trainer.fit", "epochs", epochs)
        records = self.epochs(
            X, y, epochs, validation_data=validation_data, sample_weight=sample_weight, metrics=metrics
        )
        before, self._callbacks = self._progress, callbacks
        try:
            with watching(self, callbacks, verbose, np.shape(X)[0] * epochs, "example", "epoch") as watch:
                self._progress = watch.bar.update
                checkpoint.go_on(self)
                with interrupts() as interrupted:  # also between epochs, so that no record is lost
                    for record in records:
                        if watch.note(record):
                            break
                        if interrupted:
                            raise KeyboardInterrupt
        finally:
            self._progress, self._callbacks = before, ()
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
        self._begin(examples)
        if self.position == (0, 0):
            self._advisor.before(examples)
        for _ in range(n):
            at = self._descent.position
            if not at.batch:
                at.learning_rate = self.optimizer.learning_rate
            at.clock = time.perf_counter()
            try:
                loss = self._descent.epoch(examples, batch_size, self.seed, self._progress)
            finally:
                self._descent.position = at = self._descent.position.rest()
            record = Epoch(
                epoch=at.epoch + 1,
                loss=loss,
                seconds=at.seconds,
                examples_per_second=examples.n / at.seconds,
                learning_rate=at.learning_rate,
                metrics=measure(self.net, self.loss, examples, metrics, own=False) if metrics else {},
                validation=measure(self.net, self.loss, validation, metrics) if validation else {},
            )
            self._descent.position = Position(record.epoch)
            self.optimizer.schedule.observe(record.validation.get("loss", loss))
            self._advisor.after(examples, record, self._descent)
            yield record

    def _begin(self, examples: Examples) -> None:
        """Go on in an epoch that was left, or begin it anew if the data or the batches are others."""
        settings, before = (self.batch_size, self.seed), self._data
        other = isinstance(before, Examples) and self.position[1] and before.fingerprint() != examples.fingerprint()
        if other or settings != self._begun_with:
            self._begin_anew()
        self._data, self._begun_with, self._waiting = examples, settings, []

    def _begin_anew(self) -> None:
        """Forget what was done of the next epoch."""
        self._descent.position = Position(self.epochs_done)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that training needs to go on with the same bits to one file, whole or not at all.

        At any time: before and after training, between epochs, and from `step` of a callback. The data are not in the file, but
        their fingerprint is, and while `fit` runs what its callbacks remember. Raises OSError where the file cannot be written,
        TypeError for constraints that are not data.

        >>> import pathlib, tempfile, backprop as bp
        >>> trainer = bp.Trainer(bp.Sequential(bp.Linear(2, 1)), bp.LeastSquares(), bp.Adam(0.01))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer.save(pathlib.Path(folder, "run.safetensors"))
        ...     bp.Trainer.resume(pathlib.Path(folder, "run.safetensors")).optimizer
        Adam(learning_rate=0.01)
        """
        checkpoint.save(self, path)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        classes: Iterable[type] = (),
        net: Sequential | None = None,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        other_data: bool = False,
    ) -> Self:
        """The trainer that `save` has saved, at the same step: it goes on with the bits of a run that never stopped.

        `classes` are those of your own that the file names: layers, losses, rules, schedules. What is no data, such as a function
        in a layer, comes with the object it is in: `net`, `loss` or `optimizer` are then filled, and must be as they were.
        `fit` and `epochs` first finish an epoch that was left, on the same data; with `other_data` they begin it anew, on any.

        Raises FileFormatError for a file that is damaged, altered, of another kind or version, or does not fit what is handed in,
        which is then unchanged; TypeError where something has to be handed in; OSError for a file that cannot be read. Warns
        of the first of the versions, BLAS libraries, kernels and threads that is another: the last bits may then be others.
        """
        return checkpoint.resume(cls, path, classes, net, loss, optimizer, other_data)
