"""The loop over batches: steps, the watch over NaN and inf, and a clean end on Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import ref

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.nesting import views
from backprop.checks import Array
from backprop.constraints import Constraint
from backprop.engine import native
from backprop.engine.native.program import Played, Steps
from backprop.engine.planning import Shape
from backprop.engine.step import Batch, Engine, automatic_shards
from backprop.engine.team import ALONE, Team
from backprop.engine.threads import BLAS_FLOPS, Pool, blas_threads, cores
from backprop.functions import all_finite
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.schedules import ConstantRate
from backprop.sequential import Sequential
from backprop.training.data import Examples
from backprop.training.native import Native
from backprop.training.projections import Projection, projections
from backprop.training.state import Position, Settings

LONG = 1 << 17  # parameters from which on a second thread pays for the update of φ by Adam and its like …
FEW = 64  # … and examples up to which it pays more there than in the products


class _Training:
    """Stands for one while it lasts."""


class Descent:
    """Steps of one network, loss and optimizer, and the position in training."""

    def __init__(self, net: Sequential, loss: Loss, optimizer: Optimizer, team: Team = ALONE) -> None:
        self.engine, self.team = Engine(net, loss, optimizer, team), team
        self.after_step: list[Callable[[], object]] = []
        self.position = Position()
        self.lost = False  # the weights: an epoch ended with numbers that were not finite
        self.before: dict[str, Array] = {}  # φ, state and statistics when the epoch began, and …
        self.t = 0  # … the optimizer's t
        self.presses = Presses()
        self.native = Native()
        self._pool: Pool | None = None
        self._busy = threading.Lock()
        self._training = ref(_Training())  # what is training, and is no more
        self._cores: ExitStack | None = None  # while a whole `fit` holds them
        self._held: tuple[int, int] = (0, 0)

    def serve(self, net: Sequential, loss: Loss, optimizer: Optimizer) -> None:
        """Train these from here on."""
        if self.engine.loss is not loss or self.engine.rule is not optimizer or self.engine.net is not net:
            self.engine = Engine(net, loss, optimizer, self.team)

    def epoch(
        self,
        examples: Examples,
        settings: Settings,
        constraints: Mapping[str, Constraint],
        progress: Callable[[int], object],
    ) -> float:
        """What is left of one pass over the examples; returns the mean of the loss (its sum for reduction="sum").

        `position` moves on with each batch; the caller begins the next epoch. Raises KeyboardInterrupt between two steps,
        FloatingPointError for a loss or gradient that is not finite, which the epoch then has to begin anew. Whatever is raised
        within a step, φ, state and position are those of a whole step.
        """
        batch_size = examples.n if isinstance(settings.batch_size, str) else settings.batch_size
        in_order = not settings.shuffle or batch_size >= examples.n
        order = examples.order(settings.seed, self.position.epoch, batch_size, in_order)
        every = max(batch_size, examples.n // 50)
        at, rest, self.lost = self.position, np.empty(0, int), False
        rows, done = rest, 0
        project = projections("Trainer", constraints, self.engine.net.parameters) if constraints else []
        batches = {n: self.batch(examples, n, settings) for n in sorted(sizes(examples.n, batch_size))}
        self.remember()
        with (
            self.at_work(batches[min(batch_size, examples.n)], settings),
            interrupts(self.team, self.presses) as interrupted,
        ):
            self.presses = interrupted
            start = at.batch * batch_size
            while start < examples.n and not self.team.stops(interrupted):
                if not len(rest):
                    rest, weights = self._next(examples, order, start, batch_size)
                rows = rest[:batch_size]
                count = self._play(batches[len(rows)], examples, rest, weights, settings, project)
                if self.after_step and count:  # it may write a file: of finite numbers only
                    self.require_finite(examples, rows)
                    self.notify()
                played = max(count, 1) * batch_size
                start, rest, weights = start + played, rest[played:], None if weights is None else weights[played:]
                if start - done >= every:
                    progress(min(start, examples.n) - done)
                    done = min(start, examples.n)
            progress(min(start, examples.n) - done)
            self.require_finite(examples, rows)
            stops = self.team.stops(interrupted) or self.team.meet(interrupted, self.engine.net)
        if stops:
            raise KeyboardInterrupt
        return at.total / self._share(examples.weights(order), examples.n)

    def _next(self, examples: Examples, order: Any, start: int, batch_size: int) -> tuple[Array, Array | None]:
        """Rows of batches to come, of those on disk a few, and their weights. One that cannot be read undoes the epoch."""
        try:
            rows = order[start : start + examples.stretch(batch_size)]
        except Exception:
            self.go_back()
            raise
        return rows, None if examples.w is None else examples.w[rows]

    @contextmanager
    def alone(self, who: str) -> Iterator[None]:
        """One training at a time: a second one, of another thread or of a callback, is refused."""
        mine = _Training()  # when it is forgotten the training has ended, wherever an interrupt has come in between
        with self._busy:
            if self._training() is not None:
                advice = "Make a trainer for each thread; in callbacks do not train."
                raise RuntimeError(checks.message(who, "one training of a trainer at a time", "another one", advice))
            self._training = ref(mine)
        try:
            yield
        finally:
            del mine

    def notify(self) -> None:
        """Call what waits for the end of a step, when the position is already that after it."""
        for call in self.after_step:
            call()

    def _play(
        self,
        batch: Batch,
        examples: Examples,
        order: Array,
        weights: Array | None,
        settings: Settings,
        project: Sequence[Projection],
    ) -> int:
        """The next steps of the rows in `order`: one by NumPy, or several natively; how many. A batch of weight 0 is none."""
        n = batch.shape.n
        share = self._share(None if weights is None else weights[:n], n)
        if not share:
            self.position.batch += 1
            return 0
        most = 1 if self.after_step or project else len(order) // n
        count = min(most, self.native.steps(batch, settings.native))
        if count and (done := self._natively(count, batch, examples, order, weights, settings.seed, project)):
            return done
        began = time.perf_counter()
        self.step(batch, examples, order[:n], settings.seed, project, share)
        self.native.spent(batch, time.perf_counter() - began)
        return 1

    def _natively(
        self,
        count: int,
        batch: Batch,
        examples: Examples,
        order: Array,
        weights: Array | None,
        seed: int,
        project: Sequence[Projection],
    ) -> int:
        """Up to `count` steps by the native player; how many."""
        steps, counts = self._coming(count, batch, examples, order, weights, seed)
        rows, t = order[: batch.shape.n], steps.key[1]

        # Whatever is raised at whatever moment: what is not known to be a whole step is undone, back to the start of the epoch.
        settled = False

        def by_numpy() -> float:
            nonlocal settled
            settled = True  # `step` sees to it
            return self.step(batch, examples, rows, seed, (), counts[0])

        batch.on_commit = self.presses.hold
        if not batch.is_opaque:  # in whose layers Ctrl-C may end a step, until it begins to change something
            batch.on_commit()
        try:
            played = self.native.play(batch, steps, by_numpy, self._kept, self._pool)
            if played is not None:
                self._note(played, t, counts)
                settled = played.done == len(counts) or not played.committing
                self._require_whole(played, batch, examples, steps.rows)
            settled = not project
            for constraint, parameter in project:
                constraint.project(parameter)
        except BaseException:
            batch.restore()
            if not settled:
                self.go_back()
            raise
        finally:
            self.presses.held = batch.committing = False
        return 1 if played is None else played.done

    def _coming(
        self, count: int, batch: Batch, examples: Examples, order: Array, weights: Array | None, seed: int
    ) -> tuple[Steps, list[float]]:
        """At most `count` steps with these rows, as the native player wants them, and what each counts in the epoch's loss.

        They end before a batch of weight 0, which is no step, and before one for which the schedule has no rate.
        """
        n, t = batch.shape.n, self.engine.rule.t  # type: ignore[union-attr]
        counts = [self._share(None if weights is None else weights[i * n : (i + 1) * n], n) for i in range(count)]
        counts = counts[: counts.index(0.0)] if 0.0 in counts else counts
        alphas = self._rates(len(counts))
        rows, shares = order[: len(alphas) * n].reshape(-1, n), None
        if weights is not None:
            shares = np.array([self._shares(w) for w in weights[: rows.size].reshape(rows.shape)]).astype(
                examples.dtype
            )
            rows = np.array([examples.present(each, self.engine.net) for each in rows])  # type: ignore[arg-type]

        def copied(step: int, mine: slice, arrays: dict[str, Array]) -> None:
            fill(examples, rows[step], batch.mean if shares is None else shares[step], mine, arrays)

        return Steps(rows, examples.X, examples.y, shares, copied, alphas, (seed, t)), counts[: len(alphas)]

    def _note(self, played: Played, t: int, counts: Sequence[float]) -> None:
        """Move on behind the steps that were played."""
        self.engine.rule.t = t + played.done  # type: ignore[union-attr]
        for share, L in zip(counts, played.losses, strict=False):
            self.position.total += share * L
            self.position.batch += 1

    def _require_whole(self, played: Played, batch: Batch, examples: Examples, rows: Array) -> None:
        """Raise what ended the steps, if something did: an error, a loss or a gradient that is not finite."""
        if played.error is not None:
            raise played.error
        if played.done < len(rows) and not played.enough:
            loss = not math.isfinite(played.last)
            what, vector = ("loss", None) if loss else ("gradient", batch.g)
            raise self._lost(what, vector, examples, batch.own(rows[played.done]))

    def _rates(self, count: int) -> list[float]:
        """α of the next steps; those before one for which the schedule has none."""
        rule, rates = self.engine.rule, []
        if type(rule.schedule) is ConstantRate:  # type: ignore[union-attr]
            return [rule.learning_rate] * count  # type: ignore[union-attr]
        t = rule.t  # type: ignore[union-attr]
        try:
            for rule.t in range(t, t + count):  # type: ignore[union-attr]
                rates.append(rule.learning_rate)  # type: ignore[union-attr]
        except Exception:
            if not rates:
                raise
        finally:
            rule.t = t  # type: ignore[union-attr]
        return rates

    def _share(self, weights: Array | None, n: int) -> float:
        """What n examples count in the loss of the epoch. A batch of weight 0 is no step at all."""
        mean = self.engine.loss.reduction == "mean"
        if weights is not None:
            weight = float(weights.sum())
            return weight if mean else float(weight > 0)
        return float(n) if mean else 1.0

    def require_shards(self, examples: Examples, settings: Settings) -> None:
        """Refuse a batch of fewer shards than there are ranks. Raises ValueError."""
        size = examples.n if isinstance(settings.batch_size, str) else min(settings.batch_size, examples.n)
        automatic = isinstance(settings.shards, str)
        S = automatic_shards(self.engine.net, size) if automatic else min(settings.shards, size)
        p = self.team.size
        if p > S or (automatic and p > 1 and examples.by_shards):
            got = f"shards={settings.shards!r}, {S} for a batch of {size}"
            advice = f"Write shards={2 ** (4 * p - 1).bit_length()}: the bits depend on it, not on the ranks."
            advice = advice if size >= p else "Start fewer ranks, or take larger batches."
            raise ValueError(checks.message("Trainer", f"a shard for each of {p} ranks", got, advice))

    @contextmanager
    def measuring(self, settings: Settings) -> Iterator[None]:
        """BLAS as in a `fit`, where the bits are to be those of any number of ranks."""
        with blas_threads(1) if settings.shards not in ("auto", 1) else nullcontext():
            yield

    def batch(self, examples: Examples, n: int, settings: Settings) -> Batch:
        """What a batch of n examples of this kind needs."""
        K = examples.y.shape[1:]
        shape = Shape(n, examples.X.shape[1], ((*K, n), examples.y.dtype), examples.w is not None, examples.dtype)
        return self.engine.batch(shape, settings.shards, most(settings.threads))

    @contextmanager
    def at_work(self, batch: Batch, settings: Settings, *, hold: bool = False) -> Iterator[None]:
        """Cores for steps of this kind; with `hold` until the end of this block, whatever epochs come."""
        wanted = cores_for(batch, settings.threads, settings.deterministic)
        if self._cores is not None:
            if wanted != self._held:  # a setting has changed since
                self._cores.close()
                self._take_cores(self._cores, wanted)
            with np.errstate(all="ignore"):
                yield
            return
        with ExitStack() as stack:
            self._take_cores(stack, wanted)
            self._cores = stack if hold else None
            try:
                yield
            finally:
                self._cores, self._pool = None, None

    def _take_cores(self, stack: ExitStack, wanted: tuple[int, int]) -> None:
        self._held = wanted
        self._pool = stack.enter_context(at_work(wanted))

    def step(
        self,
        batch: Batch,
        examples: Examples,
        rows: Array,
        seed: int,
        project: Sequence[Projection] = (),
        share: float = 0.0,
    ) -> float:
        """One optimizer step, and `position` behind it where the batch has a share in an epoch; returns the loss before it."""
        rule = batch.rule
        alpha, t = rule.learning_rate, rule.t  # type: ignore[union-attr]
        batch.on_commit = self.presses.hold
        try:
            each = batch.mean if examples.w is None else self._shares(examples.w[rows])
            rows = examples.present(rows, self.engine.net)  # type: ignore[arg-type]
            L = batch.run(partial(fill, examples, rows, each), alpha, t, (seed, t), self._pool)
            if not math.isfinite(L):
                raise self._lost("loss", None, examples, batch.own(rows))
            if batch.landed == "g" and not all_finite(batch.g):
                raise self._lost("gradient", batch.g, examples, rows)
            batch.commit()
            batch.update(alpha, t, self._pool)
            for constraint, parameter in project:
                constraint.project(parameter)
            if share:
                self.position.total += share * L
                self.position.batch += 1
            batch.committing = False
        except BaseException:
            batch.restore()
            if batch.committing:
                self.go_back()
            raise
        finally:
            self.presses.held = batch.committing = False
        return L

    def _shares(self, w: Array) -> Array:
        return w / w.sum() if self.engine.loss.reduction == "mean" else w

    def remember(self) -> None:
        """Keep φ, the optimizer's state and statistics: a gradient that lands does so before it can be looked at."""
        self.t = self.engine.rule.t  # type: ignore[union-attr]
        kept = self._kept()
        self.before = {name: array for name, array in self.before.items() if name in kept}
        for name, array in kept.items():
            before = self.before.get(name)
            if before is None or before.shape != array.shape or before.dtype != array.dtype:
                self.before[name] = array.copy()
            else:
                np.copyto(before, array)

    def go_back(self) -> None:
        """Be again where the epoch began."""
        self.engine.rule.t = self.t  # type: ignore[union-attr]
        for name, array in self._kept().items():
            np.copyto(array, self.before.get(name, 0))
        self.position = Position(self.position.epoch)

    def require_finite(self, examples: Examples, rows: Array) -> None:
        """Refuse φ, state or statistics that are not finite."""
        for name, array in self._kept().items():
            if not all_finite(array):
                raise self._lost("update", array, examples, rows, name)

    def _lost(
        self, what: str, vector: Array | None, examples: Examples, rows: Array, name: str = "phi"
    ) -> FloatingPointError:
        """Name the tensor that is not finite, put finite numbers back where they were lost, and say so."""
        rule, net = self.engine.rule, self.engine.net
        step = rule.t + (what != "update")  # type: ignore[union-attr]
        where = first_bad(net, vector, examples, rows)  # type: ignore[arg-type]
        if what == "loss":  # which another rank may know more of
            where = min(self.team.all_texts(where), key=lambda text: text == "the loss")
        if what == "update" and name != "phi":
            where = (
                name if name in net.buffers else f"the optimizer's {name} of {where.removeprefix('the gradient of ')}"
            )
        finite = all(np.isfinite(array).all() for array in self._kept().values())
        self.position, self.lost = Position(self.position.epoch), True
        if not finite:
            self.go_back()
        left = f"The weights are those after step {rule.t}."  # type: ignore[union-attr]
        advice = "Lower the learning rate, scale the inputs, or clip gradients (clip_norm=1)."
        expected = f"a finite {what} at step {step}"
        return FloatingPointError(checks.message("Trainer", expected, f"nan or inf in {where}", f"{left} {advice}"))

    def _kept(self) -> dict[str, Array]:
        net, rule = self.engine.net, self.engine.rule
        return {"phi": net.phi, **rule.state, **net.buffers}  # type: ignore[union-attr]

    def __deepcopy__(self, memo: Any) -> Descent:
        """At the same position, with nothing made yet."""
        import copy

        engine = copy.deepcopy(self.engine, memo)
        made = Descent(engine.net, engine.loss, engine.rule, self.team)  # type: ignore[arg-type]
        made.position, made.lost = copy.copy(self.position), self.lost
        return made


def sizes(n: int, batch_size: int) -> set[int]:
    """Sizes of the batches of n examples."""
    return {min(batch_size, n), n % batch_size or min(batch_size, n)}


def fill(examples: Examples, rows: Array, share: Any, mine: slice, arrays: dict[str, Array]) -> None:
    """Copy these examples of a batch, and what each counts, to the arrays of a shard."""
    examples.fill(rows[mine], arrays["X"], arrays["y rows"])
    arrays["share"][...] = share if examples.w is None else share[mine]


def most(threads: int | str) -> int:
    """The number of threads that "auto" or a number allows."""
    return cores() if isinstance(threads, str) else threads


def cores_for(batch: Batch, threads: int | str, deterministic: bool = False) -> tuple[int, int]:
    """Threads for BLAS, and of our own: never both, for BLAS's spin between products, on the cores that ours would need.

    Where there is the native player, ours share the parts of a product, whoever plays them. Where Python alone would hand parts
    over, BLAS's own threads are quicker.
    """
    if native.player is not None:
        return 1, batch.useful_threads
    size, n = batch.net.size, batch.shape.n
    long_update = size >= LONG and batch.update.plan is not None
    if not batch.whole or (long_update and (deterministic or n <= FEW)):
        return 1, most(threads)
    pays = 6.0 * size * n >= BLAS_FLOPS or not isinstance(threads, str)
    return (most(threads) if pays and not deterministic else 1), 1


@contextmanager
def at_work(wanted: tuple[int, int]) -> Iterator[Pool | None]:
    """These numbers of threads for BLAS and of our own."""
    blas, mine = wanted
    # Numbers that are not finite are found and named.
    with np.errstate(all="ignore"), blas_threads(blas), Pool(mine) if mine > 1 else nullcontext() as pool:
        yield pool


def first_bad(net: Sequential, vector: Array | None, examples: Examples, rows: Array) -> str:
    """The first tensor in the order of computation that holds NaN or inf, by layer and name."""
    if vector is not None:
        parts = views(net, vector).items() if vector.shape == net.phi.shape else ()
        bad = [name for name, view in parts if not checks.all_finite(view)]
        return f"{'the gradient of ' if vector is not net.phi else ''}{bad[0] if bad else 'φ'}"
    for name, parameter in net.parameters.items():
        if not checks.all_finite(parameter):
            return name
    if not len(rows):  # of a rank that had no shard
        return "the loss"
    h = examples.columns(rows)
    with np.errstate(all="ignore"):
        for key, layer in net.layers.items():
            h = boundary.infer(layer, h)
            if not checks.all_finite(h):
                return f"the output of layer {key}, {layer.label}"
    return "the loss"


class Presses(list[int]):
    """Ctrl-C, and what else ends training, each time; while φ and state are being written, `held`, nothing is interrupted."""

    held = False
    collecting = False
    patient = False  # whether the step is finished first, however often; in a team the others wait for it

    def hold(self) -> None:
        """From here on the step is finished first."""
        self.held = True

    def note(self, number: int, frame: object) -> None:
        """Handle a signal: the first one waits for the end of the step, a second one not, where nothing is written yet."""
        self.append(number)
        if len(self) > 1 and not self.held and not self.patient:
            raise KeyboardInterrupt


@contextmanager
def interrupts(team: Team = ALONE, around: Presses | None = None) -> Iterator[Presses]:
    """Collect Ctrl-C while a step runs, so that it ends between two steps; in a team also what its scheduler sends.

    Not where somebody `around` collects already: the `fit` of an epoch, or of a trainer in whose callback another one trains.
    """
    if around is not None and around.collecting:
        yield around
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *team.signals)}
    if isinstance(other := getattr(before[signal.SIGINT], "__self__", None), Presses):
        yield other
        return
    seen = Presses()
    seen.patient = team.size > 1
    team.listen(seen)
    if threading.current_thread() is not threading.main_thread():
        before = {}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, seen.note)
    seen.collecting = True
    try:
        yield seen
    finally:
        seen.collecting = False
        for number, handler in before.items():
            signal.signal(number, handler)
        team.listen(())
