"""The trainer: minibatch descent, from the loop you can see to a `fit` with progress and early stopping."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from backprop import checks, html
from backprop.checks import Array
from backprop.constraints import Constraint
from backprop.engine.plan import Plan
from backprop.engine.team import ALONE, Team
from backprop.files import container
from backprop.files.atomic import PathLike
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential
from backprop.training import checkpoint
from backprop.training.advice import Advisor
from backprop.training.callbacks import Callback, EarlyStopping
from backprop.training.data import Examples
from backprop.training.descent import Descent, interrupts
from backprop.training.history import Epoch, History
from backprop.training.metrics import Metrics, check_metrics, measure
from backprop.training.native import choice
from backprop.training.projections import projections
from backprop.training.rows import Source, Streamed
from backprop.training.state import Position, Settings, State
from backprop.training.watch import (
    NoBar,
    check_callbacks,
    check_verbose,
    described,
    of_rank,
    validation_examples,
    watching,
)

Progress = Callable[[int], object]  # told of so many more examples


class Unsaid(int):
    """A default, which is not the same number said."""


TEN = Unsaid(10)
SETTABLE: dict[str, Callable[[Any], Any]] = {
    "loss": lambda value: _checked(checks.instance("Trainer", "loss", value, Loss)),
    "optimizer": lambda value: checks.instance("Trainer", "optimizer", value, Optimizer),
    "batch_size": lambda value: checks.integer_or("Trainer", "batch_size", value, "full"),
    "shuffle": lambda value: checks.boolean("Trainer", "shuffle", value),
    "seed": lambda value: checks.integer("Trainer", "seed", value, least=0),
    "shards": lambda value: checks.integer_or("Trainer", "shards", value, "auto"),
    "threads": lambda value: checks.integer_or("Trainer", "threads", value, "auto"),
    "deterministic": lambda value: checks.boolean("Trainer", "deterministic", value),
    "native": lambda value: choice("Trainer", value),
}


def _checked(loss: Loss) -> Loss:
    """Refuse a loss with passes of its own, which would not be asked."""
    if (type(loss).forward, type(loss).backward) != (Loss.forward, Loss.backward):
        got, advice = (
            f"{loss!r} with passes of its own",
            "Define ell and dell_df; weights and reduction are the library's.",
        )
        raise TypeError(checks.message("Trainer", "a loss of ell and dell_df", got, advice))
    return loss


class Trainer:
    """Trains a network by descent on minibatches.

        for each epoch: shuffle by (seed, epoch); for each batch B of `batch_size` examples:
            L = mean of ℓ_i over B,   φ ← optimizer(φ, ∂L/∂φ)

    `batch_size` 1 is single-example descent, "full" the whole data set in each step; without `shuffle` the batches are always
    the same, in the order of the data. Steps are played from a plan of the network (see `plan`), which keeps its arrays to
    itself: what you do with `net` between steps does not disturb it. What is assigned to an attribute of the trainer, its loss,
    optimizer or a layer counts from the next epoch or step on; another `net` is refused.

    `shards` cuts each batch into that many parts, one after another or on threads: activation memory is that of one part per
    thread. "auto" takes 1 for small steps. `threads` is "auto" (what the step is worth, at most the cores there are) or a
    number. The same seed and setting give the same bits. Many steps are played in one call without Python, with the same bits,
    where the package was installed with a C compiler; `native=False`, or BACKPROP_NATIVE=0 in the environment, plays all by
    NumPy, `native=True` refuses what cannot be played natively; `player` says who played. Bits then never depend on the number
    of threads; without a compiler they do not with `deterministic=True`.

    `team` are the processes that train together, `bp.distributed.team()`: each rank makes the same calls and computes its own of
    the `shards`, of which there are at least as many as ranks; all bits are those of one process. Rank 0 writes and shows.

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
        native: bool | str = "auto",
        constraints: Mapping[str, Constraint] | None = None,
        team: Team | None = None,
    ) -> None:
        checks.instance("Trainer", "net", net, Sequential)
        self.team: Team = ALONE if team is None else team
        self.net, self.loss, self.optimizer = net, loss, optimizer
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.shards, self.threads, self.deterministic, self.native = shards, threads, deterministic, native
        self.constraints: Any = constraints
        self.notes: dict[str, Any] = {}
        self._descent = Descent(net, loss, optimizer, self.team)
        self._advisor = Advisor("Trainer", net, loss, optimizer)
        if self.team.rank:
            net.saves, self._advisor.quiet = False, True
        self._data: Examples | dict[str, Any] | None = None  # trained on last; of a file, only their fingerprint
        self._callbacks: Sequence[Callback] = ()  # of the `fit` that is running …
        self._fitting = False  # … if one is
        self._waiting: list[tuple[str, dict[str, Any]]] = []  # states of callbacks from a file, by their class
        self._begun_with: tuple[object, ...] = ()  # batch size and seed

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("net", "team") and name in vars(self) and value is not vars(self)[name]:
            advice = "Its optimizer and position belong to it: make a new Trainer."
            raise ValueError(checks.message("Trainer", f"the {name} that it was made with", f"another {name}", advice))
        if name == "team":
            checks.instance("Trainer", "team", value, Team)
        if name in SETTABLE:
            value = SETTABLE[name](value)
        if name == "optimizer":
            value.assign(self.net)
        if name == "constraints":
            projections("Trainer", value, self.net.parameters)
            value = dict(value or {})
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        made = f"{self.net.label}, {self.loss!r}, {self.optimizer!r}, batch_size={self.batch_size!r}"
        return f"Trainer({made}; {self._progress})"

    def _repr_html_(self) -> str:
        """The network, the settings, where training stands, and the advice that was given."""
        shown = ("loss", "optimizer", "batch_size", "shuffle", "seed", "constraints")
        rows = [(name.replace("_", " "), repr(getattr(self, name))) for name in shown if getattr(self, name) != {}]
        settings = html.table(f"Trainer, {self._progress}", ["setting", "value"], rows, names=2)
        advice = html.table("Advice", ["about", "what was seen, and what to do"], self._advisor.told.items(), names=2)
        return html.fixed(repr(self.net)) + settings + (advice if self._advisor.told else "")

    @property
    def _progress(self) -> str:
        epochs, batches = self.position
        if not epochs and not batches:
            return "not begun"
        return f"{epochs:,} epoch{'s' * (epochs != 1)} done" + (f" and {batches:,} batches" if batches else "")

    @property
    def after_step(self) -> list[Callable[[], object]]:
        """Functions that are called after each step."""
        return self._descent.after_step

    @after_step.setter
    def after_step(self, functions: Iterable[Callable[[], object]]) -> None:
        if not isinstance(functions, list | tuple) or not all(map(callable, functions)):
            raise TypeError(checks.message("Trainer", "after_step: a list of functions", repr(functions)))
        self._descent.after_step[:] = functions

    @property
    def epochs_done(self) -> int:
        """Whole epochs so far. Setting it begins the next one anew."""
        return self._descent.position.epoch

    @epochs_done.setter
    def epochs_done(self, epochs: int) -> None:
        self._descent.position = Position(checks.integer("Trainer", "epochs_done", epochs, least=0))

    @property
    def position(self) -> tuple[int, int]:
        """Whole epochs so far, and batches of the next one."""
        return self._descent.position.epoch, self._descent.position.batch

    @property
    def settings(self) -> Settings:
        """The arguments of the trainer as they are now."""
        of_steps = self.shards, self.threads, self.deterministic, self.native
        return Settings(self.batch_size, self.shuffle, self.seed, *of_steps)

    @property
    def lost(self) -> bool:
        """Whether the last epoch ended with numbers that were not finite; the weights are then those before it."""
        return self._descent.lost

    def plan(self, n: int | None = None) -> Plan:
        """The plan of a step of n examples (default `batch_size`), to be printed: every operation, and where gradients land.

        Targets are those of the last training, else one number per output. See docs/reference/design.md for how to read it.

        >>> import backprop as bp
        >>> net = bp.Sequential(bp.Linear(2, 1, bias=False), seed=0)
        >>> print(bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).plan(4).steps[-1])
        0.omega ← (alpha * -1.0) · matmul(%13, X) + 1.0 · itself
        """
        default = 32 if isinstance(self.batch_size, str) else self.batch_size
        n = checks.integer("Trainer.plan", "n", default if n is None else n)
        self._descent.serve(self.net, self.loss, self.optimizer)
        examples = self._data
        if not isinstance(examples, Examples):
            D = self.net.in_features or 1
            K = self.net.out_features or len(self.net.infer(np.zeros((D, 1))))
            y = np.zeros(n if self.loss.takes_labels else (n, K // self.loss.outputs_per_target))
            examples = Examples("Trainer.plan", self.net, self.loss, np.zeros((n, D)), y)
        return self._descent.batch(examples, n, self.settings).passes

    @property
    def player(self) -> str:
        """Who has played the steps until now: "native", or "numpy" with the reason.

        >>> import numpy as np, backprop as bp
        >>> net = bp.Sequential(bp.Linear(2, 1))
        >>> bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1), native=False).player
        'numpy (native=False)'
        """
        return self._descent.native.player(self.native)

    def step(self, X: Array, y: Array, sample_weight: Array | None = None) -> float:
        """One optimizer step on the rows X (N, D) as one batch; returns the loss before it.

        The same step as one of `epochs`, which for many of them is faster: it checks the data once. All ranks of a team pass the
        same rows.
        """
        examples = Examples("Trainer.step", self.net, self.loss, X, y, sample_weight)
        with self._descent.alone("Trainer.step"):
            descent, settings, rows = self._ready(), self.settings, np.arange(examples.n)
            if self.team.size > 1:
                self.team.agree("Trainer.step", self.state(), (examples, None), {}, False)
                self.team.meet((), self.net)
            descent.require_shards(examples, replace(settings, batch_size="full"))
            descent.remember()
            batch = descent.batch(examples, examples.n, settings)
            with descent.at_work(batch, settings), interrupts(self.team) as interrupted:
                descent.presses = interrupted
                project = projections("Trainer", self.constraints, self.net.parameters) if self.constraints else []
                L = descent.step(batch, examples, rows, self.seed, project)
                descent.require_finite(examples, rows)
                descent.notify()
                stops = self.team.stops(interrupted)
        if stops:
            raise KeyboardInterrupt
        return L

    def _ready(self) -> Descent:
        """The descent, for the network, loss and optimizer as they are now."""
        self.optimizer.assign(self.net)
        checks.choice(self.loss, "reduction", self.loss.reduction, ["mean", "sum"])
        checks.integer(type(self.optimizer).__name__, "t", self.optimizer.t, least=0)
        self._descent.serve(self.net, self.loss, self.optimizer)
        self._advisor.loss, self._advisor.optimizer = self.loss, self.optimizer
        return self._descent

    def epochs(
        self,
        X: Any,
        y: Array | None,
        n: int,
        *,
        validation_data: tuple[Array, ...] | None = None,
        sample_weight: Array | None = None,
        metrics: Metrics = (),
    ) -> Iterator[Epoch]:
        """Train for `n` epochs, yielding a record after each; `break` stops training.

        Rows X (N, D), targets y (N,) or (N, K); None for `ParquetRows` with a target of their own. Everything is checked before
        the first step, rows on disk as they are read: one that cannot be used is named, and the epoch is as if it had not begun.
        An epoch that was interrupted is the first of the n; with other data or batches than it began with it begins anew. Raises
        ValueError after `resume` for other data than those of the file.
        """
        checks.integer("Trainer.epochs", "n", n)
        data = self._prepared(X, y, sample_weight, validation_data, metrics)
        return self._epochs(*data, n, metrics, NoBar().update)

    def _prepared(
        self, X: Any, y: Any, sample_weight: Any, validation_data: Any, metrics: Metrics
    ) -> tuple[Examples, Examples | None]:
        """The examples and those of validation, checked."""
        who, net, loss = "Trainer.epochs", self.net, self.loss
        if isinstance(X, Source):
            examples: Examples = Streamed(who, net, loss, X, y, sample_weight, self.shards, self.team)
        else:
            examples = Examples(who, net, loss, X, y, sample_weight)
        validation = validation_examples("Trainer", net, loss, validation_data)
        check_metrics("Trainer", net, loss, metrics, examples, validation)
        if isinstance(self._data, dict):
            checkpoint.check_data("Trainer.epochs", self._data, examples)
        return examples, validation

    def fit(
        self,
        X: Any,
        y: Array | None = None,
        *,
        epochs: int = TEN,
        until: int | None = None,
        validation_data: tuple[Array, ...] | None = None,
        sample_weight: Array | None = None,
        metrics: Metrics = (),
        callbacks: Sequence[Callback] = (),
        verbose: int = 1,
    ) -> History:
        """Train, and return the history of this call. A second `fit` goes on where the first stopped.

        Rows X (N, D) and targets y (N,) or (N, K), or X alone: `ParquetRows` that know their target. `epochs` are so many more;
        `until` are all of this trainer, those before included, so that a program that is started again after
        `resume` says the same as before. Where nothing is left to do, or `EarlyStopping` had stopped what is resumed,
        callbacks start and end, and the history is empty.

        `validation_data` is (X, y) or (X, y, sample_weight). `metrics` are names of the loss's own measures ("accuracy", "r2"),
        names of scikit-learn's scorers ("f1_macro", "roc_auc"), or functions of predictions (N, K) and targets in rows, without
        weights; they are measured after each epoch on the training data, and on the validation data. `verbose` is 0 for silence,
        1 for a progress bar, 2 for a line per epoch, both on stderr. Ctrl-C ends training after the step at hand: the weights are
        whole, the history is kept, and the next `fit` goes on with the next batch. `callbacks` are ended whatever ends training,
        an error included.
        """
        check_callbacks("Trainer.fit", callbacks)
        verbose, callbacks = check_verbose("Trainer.fit", verbose), of_rank(self.team, callbacks)
        epochs = self._left(epochs, until)
        data = self._prepared(X, y, sample_weight, validation_data, metrics)
        if self._fitting:
            advice = "In callbacks do not fit: raise `epochs`, or fit again afterwards."
            raise RuntimeError(checks.message("Trainer.fit", "one fit of a trainer at a time", "another one", advice))
        n, self._callbacks, self._fitting = data[0].n, callbacks, True
        try:
            with watching(self, callbacks, 0 if self.team.rank else verbose, n * epochs, "example", "epoch") as watch:
                if self._waiting:
                    checkpoint.go_on(self._waiting, callbacks)
                    stops = [each for each in callbacks if isinstance(each, EarlyStopping) and each.over]
                    epochs = 0 if stops else epochs
                    watch.history.stopped = type(stops[0]).__name__ if stops else ""
                # Once for all epochs; and Ctrl-C between two of them loses no record.
                descent, settings = self._ready(), self.settings
                size = n if isinstance(settings.batch_size, str) else min(settings.batch_size, n)
                batch = descent.batch(data[0], size, settings)
                with descent.at_work(batch, settings, hold=True), interrupts(self.team) as interrupted:
                    for record in self._epochs(*data, epochs, metrics, watch.bar.update):
                        watch.note(record)
                        watch.history.stopped = self.team.all_texts(watch.history.stopped)[0]  # rank 0 decides
                        if watch.history.stopped:
                            break
                        if self.team.meet(interrupted, self.net):
                            raise KeyboardInterrupt
        finally:
            self._callbacks, self._fitting = (), False
        return self._together(watch.history)

    def _together(self, history: History) -> History:
        """The history; of several ranks none gets it after Ctrl-C, or where callbacks have left them other weights."""
        if self.team.size > 1 and history.stopped == "Ctrl-C":
            raise KeyboardInterrupt  # the program ends on all ranks: what comes next is not what it was to be
        self.team.meet((), self.net)
        return history

    def _left(self, epochs: int, until: int | None) -> int:
        """How many epochs there are to train."""
        if until is None:
            return checks.integer("Trainer.fit", "epochs", epochs)
        if epochs is not TEN:
            advice = "epochs counts those of this call, until all of the trainer."
            raise ValueError(
                checks.message("Trainer.fit", "either epochs or until", f"{epochs!r} and {until!r}", advice)
            )
        return max(0, checks.integer("Trainer.fit", "until", until) - self.epochs_done)

    def evaluate(
        self, X: Any, y: Array | None = None, sample_weight: Array | None = None, metrics: Metrics = ()
    ) -> dict[str, float]:
        """Loss and measures on rows X (N, D): {"loss": …, "accuracy": …}. Nothing is trained.

        y may be left out for `ParquetRows` with a target; their targets and predictions, (N,) and (N, K), are in memory.

        >>> import numpy as np, backprop as bp
        >>> trainer = bp.Trainer(bp.Sequential(bp.Identity()), bp.LeastSquares(), bp.SGD(0.1))
        >>> trainer.evaluate(np.ones((2, 1)), np.array([1.0, 0.0]))
        {'loss': 0.5, 'r2': -1.0}
        """
        examples = Examples("Trainer.evaluate", self.net, self.loss, X, y, sample_weight)
        check_metrics("Trainer", self.net, self.loss, metrics, examples)
        return measure(self.net, self.loss, examples, metrics)

    def _epochs(
        self, examples: Examples, validation: Examples | None, n: int, metrics: Metrics, progress: Progress
    ) -> Iterator[Epoch]:
        with self._descent.alone("Trainer.epochs"):
            self._begin(examples)
        if self.team.size > 1:
            self._agree(examples, validation, n, metrics)
        if self.position == (0, 0):
            self._advise(examples)
        for _ in range(n):
            with self._descent.alone("Trainer.epochs"):
                descent = self._ready()
                at = descent.position
                if not at.batch:
                    at.learning_rate = self.optimizer.learning_rate
                at.clock = time.perf_counter()
                try:
                    loss = descent.epoch(examples, self.settings, self.constraints, progress)
                finally:
                    descent.position = at = descent.position.rest()
            with descent.measuring(self.settings):
                parts = self.net, self.loss
                measured = measure(*parts, examples.whole(), metrics, own=False, team=self.team) if metrics else {}
                of_validation = measure(*parts, validation, metrics, team=self.team) if validation else {}
            speed = examples.n / (at.seconds or math.inf)
            record = Epoch(at.epoch + 1, loss, at.seconds, speed, at.learning_rate, measured, of_validation)
            self.optimizer.schedule.observe(record.validation.get("loss", loss))
            descent.position = Position(record.epoch)  # only now: where `observe` fails, it is asked again
            self._advisor.after(examples, record, descent.before["phi"], self.optimizer.t - descent.t)
            yield record

    def _agree(self, examples: Examples, validation: Examples | None, n: int, metrics: Metrics) -> None:
        """Begin on all ranks, or on none: where they would do different things, or have too few shards."""
        running = [described(callback) for callback in self._callbacks if not callback.writes]
        also = {"epochs": n, "metrics": list(metrics), "callbacks": running}
        self.team.agree("Trainer", self.state(), (examples, validation), also)
        self._descent.require_shards(examples, self.settings)

    def _advise(self, examples: Examples) -> None:
        """Look at the examples before the first step."""
        if not self._advisor.quiet:
            size = examples.n if isinstance(self.batch_size, str) else self.batch_size
            examples.ahead(self.seed, 0, size, not self.shuffle or size >= examples.n)
        self._advisor.before(examples)

    def _begin(self, examples: Examples) -> None:
        """Go on in an epoch that was left, or begin it anew if the data or the batches are others."""
        settings, before = (self.batch_size, self.seed), self._data
        other = isinstance(before, Examples) and self.position[1] and before.fingerprint() != examples.fingerprint()
        if other or settings != self._begun_with:
            self._descent.position = Position(self.epochs_done)
        self._data, self._begun_with = examples, settings
        self._waiting.clear()

    def save(self, path: PathLike) -> None:
        """Write all that training needs to go on with the same bits to one file, whole or not at all.

        At any time: before and after training, between epochs, and from `step` of a callback. Of a team rank 0 writes it. The
        data are not in the file, but their fingerprint is, and while `fit` runs what its callbacks remember. Raises OSError where
        the file cannot be written, TypeError for constraints that are not data.

        >>> import pathlib, tempfile, backprop as bp
        >>> trainer = bp.Trainer(bp.Sequential(bp.Linear(2, 1)), bp.LeastSquares(), bp.Adam(0.01))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer.save(pathlib.Path(folder, "run.safetensors"))
        ...     bp.Trainer.resume(pathlib.Path(folder, "run.safetensors")).optimizer
        Adam(learning_rate=0.01)
        """
        if not self.team.rank:
            checkpoint.save(self.state(), path)

    def state(self) -> State:
        """What `save` writes: all that training is at this moment."""
        data = self._data.fingerprint() if isinstance(self._data, Examples) else self._data
        running = [(type(callback).__name__, callback.state()) for callback in self._callbacks]
        parts = self.net, self.loss, self.optimizer, self.settings, self.constraints
        return State(*parts, self._descent.position.rest(), data, self.notes, running or self._waiting)

    def __reduce__(self) -> Any:
        advice = "Use trainer.save(path) and Trainer.resume(path), or copy.deepcopy(trainer)."
        raise TypeError(checks.message("Trainer", "a file of data", "pickle", advice))

    def __deepcopy__(self, memo: Any) -> Self:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        idle = {"_callbacks": (), "_fitting": False}  # whatever runs here, there nothing does
        vars(twin).update({name: copy.deepcopy(value, memo) for name, value in (vars(self) | idle).items()})
        twin.net.saves = self.net.saves  # the copy is the team's, as this one
        return twin

    @classmethod
    def resume(
        cls,
        path: PathLike,
        *,
        classes: Iterable[type] = (),
        net: Sequential | None = None,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        other_data: bool = False,
        team: Team | None = None,
    ) -> Self:
        """The trainer that `save` has saved, at the same step: it goes on with the bits of a run that never stopped.

        `classes` are those of your own that the file names: layers, losses, rules, schedules. What is no data, such as a function
        in a layer, comes with the object it is in: `net`, `loss` or `optimizer` are then filled, and must be as they were.
        `fit` and `epochs` first finish an epoch that was left, on the same data; with `other_data` they begin it anew, on any.
        A `team` may have another number of ranks than that which saved.

        Raises FileFormatError for a file that is damaged, altered, of another kind or version, or does not fit what is handed in,
        which is then unchanged; TypeError where something has to be handed in; OSError for a file that cannot be read. Warns
        of the first of the versions, BLAS libraries, kernels and threads that is another: the last bits may then be others.
        """
        state, machine = checkpoint.load(path, classes, net, loss, optimizer)
        try:
            settings = vars(state.settings) | {"constraints": state.constraints, "team": team}
            trainer = cls(state.net, state.loss, state.optimizer, **settings)
        except Exception as error:
            raise container.refusal(path, "a checkpoint", error) from error
        trainer._descent.position, trainer._data, trainer.notes = state.position, state.data, state.notes
        trainer._waiting, trainer._begun_with = state.callbacks, (trainer.batch_size, trainer.seed)
        if checks.boolean("Trainer.resume", "other_data", other_data):
            trainer._data = None
            trainer.epochs_done = trainer.epochs_done  # which begins the next one anew
        checkpoint.check_machine(f"Trainer.resume({os.fspath(path)!r})", machine, checkpoint.machine(state.settings))
        return trainer
