"""The loop over batches: steps, the watch over NaN and inf, and a clean end on Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from backprop import checks
from backprop.blas import Landing, all_finite
from backprop.checks import Array
from backprop.constraints import Projection
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential
from backprop.training.data import Examples
from backprop.training.shards import Step, automatic_shards, for_pieces
from backprop.training.threads import Pool, blas_threads, cores

BLAS_FLOPS = 3e7  # products of a step from which on a second BLAS thread pays, 0.3 ms at 100 GFLOP/s
LONG = 1 << 17  # parameters from which on a second thread pays for the update of φ by Adam and its like …
FEW = 64  # … and examples up to which it pays more there than in the products


@dataclass
class Position:
    """How far training has come: whole epochs, then batches of the next one, with what that epoch's record needs of them."""

    epoch: int = 0
    batch: int = 0
    total: float = 0.0  # the losses of these batches, each times what its examples count
    learning_rate: float = 0.0  # of the epoch's first step
    seconds: float = 0.0  # until training was last taken up
    clock: float = 0.0  # when that was; 0 while it rests

    def rest(self) -> Position:
        """The position with the time until now, which no longer runs."""
        now = time.perf_counter()
        return replace(self, seconds=self.seconds + now - (self.clock or now), clock=0.0)


class Descent:
    """Steps of one network, loss and optimizer. Keeps what each batch size needs, so that a step allocates nothing."""

    def __init__(
        self,
        net: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        shards: int | str,
        threads: int | str,
        deterministic: bool,
        projections: Sequence[Projection] = (),
        shuffle: bool = True,
    ) -> None:
        self.net, self.loss, self.optimizer = net, loss, optimizer
        self.shards, self.deterministic = shards, deterministic
        self.threads, self.projections, self.shuffle = threads, projections, shuffle
        self.after_step: list[Callable[[], object]] = []
        self.position = Position()
        self.lost = False  # the weights: an epoch ended with numbers that were not finite
        self._steps: dict[object, Step] = {}
        self._pool: Pool | None = None
        self._before: dict[str, Array] = {}

    def epoch(self, examples: Examples, batch_size: int, seed: int, progress: Callable[[int], object]) -> float:
        """What is left of one pass over the examples; returns the mean of the loss (its sum for reduction="sum").

        `position` moves on with each batch; the caller begins the next epoch. Raises KeyboardInterrupt between two steps,
        FloatingPointError for a loss or gradient that is not finite, which the epoch then has to begin anew.
        """
        in_order = not self.shuffle or batch_size >= examples.n
        order = np.arange(examples.n) if in_order else examples.order(seed, self.position.epoch)
        every = max(batch_size, examples.n // 50)
        weights = None if examples.w is None else examples.w[order]
        at, rows, self.lost = self.position, order[:batch_size], False
        done = min(at.batch * batch_size, examples.n)
        self.remember()
        with self.running(self.step_for(examples, min(batch_size, examples.n))), interrupts() as interrupted:
            for start in range(done, examples.n, batch_size):
                rows = order[start : start + batch_size]
                share = self._share(None if weights is None else weights[start : start + batch_size], len(rows))
                if share:
                    at.total += share * self.step(examples, rows, seed)
                at.batch += 1
                if share:
                    self.notify()
                done += len(rows)
                if done >= every:
                    progress(done)
                    done = 0
                if interrupted:
                    break
            progress(done)
            if not all_finite(self.net.phi):
                raise self._lost("update", self.net.phi, examples, rows)
        if interrupted:
            raise KeyboardInterrupt
        return at.total / self._share(weights, examples.n)

    def notify(self) -> None:
        """Call what waits for the end of a step, when the position is already that after it."""
        for call in self.after_step:
            call()

    def _share(self, weights: Array | None, n: int) -> float:
        """What n examples count in the loss of the epoch. A batch of weight 0 is no step at all."""
        if weights is not None:
            weight = float(weights.sum())
            return weight if self.loss.reduction == "mean" else float(weight > 0)
        return 1.0 if self.loss.reduction == "sum" else float(n)

    def step_for(self, examples: Examples, n: int) -> Step:
        """What a batch of n examples of this kind needs; made once."""
        key = (n, examples.kind)
        step = self._steps.get(key)
        if step is None:
            if len(self._steps) >= 4:
                self._steps.clear()
            S = automatic_shards(self.net, n) if isinstance(self.shards, str) else self.shards
            step = self._steps[key] = Step(self.net, self.loss, examples, n, S, most(self.threads))
        return step

    @contextmanager
    def running(self, step: Step) -> Iterator[None]:
        """Cores for steps of this kind."""
        long_update = self.net.size >= LONG and type(self.optimizer).landing is Optimizer.landing
        update_on_threads = long_update and (self.deterministic or step.n <= FEW)
        with at_work(step, self.threads, update_on_threads, self.deterministic) as self._pool:
            try:
                yield
            finally:
                self._pool = None

    def step(self, examples: Examples, rows: Array, seed: int, *, careful: bool = False) -> float:
        """One optimizer step; returns the loss before it. `careful` checks the gradient before φ is touched."""
        optimizer, phi, pool = self.optimizer, self.net.phi, self._pool
        step = self.step_for(examples, len(rows))
        direct = step.S == 1 and not careful and not optimizer.clips
        to = Landing(step.buffer) if not direct else Landing()

        def land() -> Landing:
            nonlocal to
            if direct:
                optimizer.prepare(phi)
                to = optimizer.landing(phi)
            return to

        L = step.run(examples, rows, (seed, optimizer.t), land, pool)
        if not math.isfinite(L):
            raise self._lost("loss", None, examples, rows)
        if to.keep == 0 and not all_finite(to.target):  # type: ignore[arg-type]
            raise self._lost("gradient", to.target, examples, rows)
        if not direct:
            optimizer.prepare(phi)
            self._land(optimizer.clip(step.buffer, step.buffer), optimizer.landing(phi))
        optimizer.finish(phi, lambda size, update: for_pieces(size, update, pool))
        for constraint, parameter in self.projections:
            constraint.project(parameter)
        return L

    def _land(self, g: Array, to: Landing) -> None:
        def land(piece: slice) -> None:
            replace(to, target=to.target[piece]).add(g[piece])  # type: ignore[index]

        for_pieces(g.size, land, self._pool)

    def remember(self) -> None:
        """Keep φ and the optimizer's state: SGD's gradient lands before it can be looked at."""
        self._t = self.optimizer.t
        for name, array in self._kept().items():
            if name not in self._before:
                self._before[name] = np.empty_like(array)
            np.copyto(self._before[name], array)

    def _lost(self, what: str, vector: Array | None, examples: Examples, rows: Array) -> FloatingPointError:
        """Name the tensor that is not finite, put finite numbers back where they were lost, and say so."""
        self.position, self.lost = Position(self.position.epoch), True
        step = self.optimizer.t + (vector is not self.net.phi)
        where = first_bad(self.net, vector, examples, rows)
        if not all(np.isfinite(array).all() for array in self._kept().values()):
            self.optimizer.t = self._t
            for name, array in self._kept().items():
                np.copyto(array, self._before.get(name, 0))
        left = f"The weights are those after step {self.optimizer.t}."
        advice = "Lower the learning rate, scale the inputs, or clip gradients (clip_norm=1)."
        expected = f"a finite {what} at step {step}"
        return FloatingPointError(checks.message("Trainer", expected, f"nan or inf in {where}", f"{left} {advice}"))

    def _kept(self) -> dict[str, Array]:
        return {"phi": self.net.phi, **self.optimizer.state, **self.net.buffers}


def most(threads: int | str) -> int:
    """The number of threads that "auto" or a number allows."""
    return cores() if isinstance(threads, str) else threads


@contextmanager
def at_work(
    step: Step, threads: int | str, update_on_threads: bool = False, deterministic: bool = False
) -> Iterator[Pool | None]:
    """Cores for steps of this kind: a pool of threads of our own for shards, else BLAS threads where they pay."""
    pays = 6.0 * step.net.size * step.n >= BLAS_FLOPS or not isinstance(threads, str)
    blas = mine = 1  # never both: BLAS's threads spin between products, on the cores that ours would need
    if step.S > 1 or update_on_threads:
        mine = most(threads)
    elif pays and not deterministic:
        blas = most(threads)
    with ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))  # numbers that are not finite are found and named
        stack.enter_context(blas_threads(blas))
        yield stack.enter_context(Pool(mine)) if mine > 1 else None


def first_bad(net: Sequential, vector: Array | None, examples: Examples, rows: Array) -> str:
    """The first tensor in the order of computation that holds NaN or inf, by layer and name."""
    if vector is not None:
        bad = [name for name, view in net.views(vector).items() if not checks.all_finite(view)]
        return f"{'the gradient of ' if vector is not net.phi else ''}{bad[0] if bad else 'φ'}"
    for name, parameter in net.parameters.items():
        if not checks.all_finite(parameter):
            return name
    inputs, h = examples.inputs(len(rows))
    examples.fill(rows, inputs, np.empty((len(rows), *examples.y.shape[1:]), examples.y.dtype))
    with np.errstate(all="ignore"):
        for key, layer in net.layers.items():
            h = layer.infer(h)
            if not checks.all_finite(h):
                return f"the output of layer {key}, {layer.label}"
    return "the loss"


@contextmanager
def interrupts() -> Iterator[list[bool]]:
    """Collect Ctrl-C while a step runs, so that it ends between two steps; a second Ctrl-C interrupts at once."""
    seen: list[bool] = []
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield seen
        return

    def note(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
