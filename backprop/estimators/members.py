"""k networks, each stopped by rows that it has not seen, and the one network that they make together.

columns     cut to ±4 deviations, as normal scores, and in eight pieces: by layers that learn from the data without descending,
            so that the rows go through them once
a member    InputScale, Linear, ReLU, Linear, ReLU, Linear, on all rows but those of a part of its own, by which it stops
few rows    the members are trained a second time, gently: the ones, the others or all, whichever do best on rows not seen
together    the same layers, with the members side by side, and the mean of their answers
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.engine.threads import blas_threads, cores
from backprop.estimators.ended import Ended, Job, Known
from backprop.estimators.hooks import EpochTasks
from backprop.layers import (
    FanOut,
    InputScale,
    Layer,
    Linear,
    MembersMean,
    PiecewiseLinear,
    Quantiles,
    ReLU,
    Select,
    SeparateLinear,
    quantile_edges,
)
from backprop.losses import Loss
from backprop.optimizers import AdamW
from backprop.schedules import CosineDecay
from backprop.sequential import Sequential
from backprop.training import Callback, Trainer
from backprop.training.descent import interrupts
from backprop.training.history import Epoch
from backprop.training.watch import running

PIECES, KNOTS, REACH = 8, 64, 4.0
WIDE = 512  # columns of numbers from which on they are cut to ±4 deviations, and no more is made of them
LEARNED_FROM = 50_000  # rows that edges and scores are learned from
WIDTHS = (128, 128)
RATE, PACE = 6e-3, 4.0
STEPS, FEWEST, MOST = 1600, 20, 80  # steps of a member; least and most epochs
SEEN = 1_200_000  # rows that a member has seen after its last epoch, where rows are many
FEW, GENTLE = 500, 3.0  # rows up to which gentle members are tried too, and how many times as slowly they learn
PATIENCE = 12  # epochs without progress after which a member ends
SLOWEST = 8  # epochs that a member has at least, where time is short and there are others
LEAST = 100  # steps of the first member, however short the time is


@dataclass(frozen=True)
class Inputs:
    """What becomes of the columns before the members: layers that do not descend, and what each of their outputs counts.

    `several` and `two` are the columns of more than two values, and of two.
    """

    net: Sequential
    weight: Array
    several: Array
    two: Array

    def of(self, X: Array) -> Array:
        """Rows (N, E) as the members take them."""
        encoded = self.net.predict(X)
        encoded *= self.weight
        return encoded


def inputs(X: Array, w: Array | None = None) -> Inputs:
    """Learn from the rows X (N, D), with weights w (N,), what to make of each column.

    A column of two values, as of a category, is 0 or 1 times twice its deviation, so that rare categories do not drown the
    others; one whose rarer value hardly occurs is left out. A column of more values is cut to ±4, scored, and cut into pieces.
    """
    n, D = X.shape
    low, high = X.min(axis=0), X.max(axis=0)
    two = (low < high) & ((low == X) | (high == X)).all(axis=0)
    share = np.average(high == X, axis=0, weights=w)
    frequent = n * np.minimum(share, 1 - share) >= max(2, min(5, n // 100))
    several, pairs = np.flatnonzero((low < high) & ~two), np.flatnonzero(two & frequent)
    if not len(several) + len(pairs):
        pairs = np.flatnonzero(two) if two.any() else np.array([0])
    branches, weights = [], []
    if len(several):
        branches.append(_of_numbers(X[representative(n, w)][:, several], several, D))
        weights.append(np.ones(branches[-1].out_features or 0))
    if len(pairs):
        ends = np.stack([low, high])[:, pairs]
        branches.append(Sequential(Select(pairs.tolist(), in_features=D), PiecewiseLinear(quantile_edges(ends, 1))))
        weights.append(2 * np.sqrt(share[pairs] * (1 - share[pairs])))
    whole = branches[0] if len(branches) == 1 else FanOut(*branches)
    return Inputs(Sequential(whole), np.concatenate(weights).astype(np.float32), several, pairs)


def representative(n: int, w: Array | None) -> slice | Array:
    """Rows, some of them repeatedly, whose quantiles are those of n rows with weights w: of weight 2, twice."""
    if w is None:
        return slice(None) if n <= LEARNED_FROM else np.linspace(0, n - 1, LEARNED_FROM).astype(int)
    for unit in (w.min(), 1.0):
        times = np.rint(w / unit)
        if times.sum() <= LEARNED_FROM and np.allclose(times * unit, w, rtol=1e-9, atol=0):
            return np.repeat(np.arange(n), times.astype(int))
    most = min(LEARNED_FROM, 10 * n)  # enough for what becomes at most 64 knots
    below = np.cumsum(w) / w.sum()
    return np.minimum(np.searchsorted(below, (np.arange(most) + 0.5) / most), n - 1)


def _of_numbers(X: Array, columns: Array, D: int) -> Sequential:
    ends = [[-REACH, REACH]] * len(columns)
    treatments: list[Layer] = [Quantiles(ends, ends)]
    if len(columns) <= WIDE:
        treatments += [Quantiles.learned(X, knots=KNOTS), PiecewiseLinear(quantile_edges(X, PIECES))]
    one = treatments[0] if len(treatments) == 1 else FanOut(*treatments)
    return Sequential(Select(columns.tolist(), in_features=D), one)


@dataclass(frozen=True)
class Rows:
    """Rows X (N, E) as members take them, targets as the loss takes them, weights (N,) or None, groups (N,) or None."""

    X: Array
    targets: Array
    w: Array | None
    groups: Array | None = None

    def at(self, rows: Array) -> Rows:
        """Those of these rows."""
        w, groups = (None if each is None else each[rows] for each in (self.w, self.groups))
        return Rows(self.X[rows], self.targets[rows], w, groups)

    @property
    def judging(self) -> tuple[Array, ...]:
        """As a trainer takes them for validation."""
        return (self.X, self.targets) if self.w is None else (self.X, self.targets, self.w)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the members are to be trained; `until` is a time of `time.perf_counter`, `of` what `MembersMean` takes the mean of."""

    loss: Loss
    of: str
    outputs: int
    members: int
    seed: int
    epochs: int
    batch_size: int
    until: float
    ended: Ended
    callbacks: Sequence[Callback]
    native: bool | str
    say: Callable[[str], None]


@dataclass
class Member:
    """A network, in the end at its best epoch: that of the least loss on the rows outside, of which it says `answers` (n, K).

    There is an answer after each epoch.
    """

    net: Sequential
    part: int
    gentle: bool = False
    best: float = math.inf
    epoch: int = 0
    phi: Array | None = None
    losses: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    cut: bool = False  # by Ctrl-C or the time
    ended: bool = False
    error: FloatingPointError | None = None
    answers: list[Array] = field(default_factory=list)

    @property
    def first(self) -> bool:
        """Whether it is the one that is always there."""
        return self.part == 0 and not self.gentle

    def note(self, record: Epoch, outside: Rows) -> None:
        """Keep the curves, the answers and the best φ."""
        loss, phi = record.validation["loss"], self.net.phi
        self.answers.append(self.net.predict(outside.X))
        self.losses.append(record.loss)
        self.validation.append(loss)
        if loss < self.best or self.phi is None:
            self.best, self.epoch, self.phi = loss, record.epoch, phi.copy()

    def whole(self, epochs: int) -> bool:
        """Whether it has ended by itself, of so many epochs: then it would never be another one."""
        last = len(self.losses)
        return not self.cut and self.error is None and (last >= epochs or last - self.epoch >= PATIENCE)

    def recall(self, known: Known) -> None:
        """Be one that has ended before."""
        (self.losses, self.validation), self.answers = known.curves.tolist(), list(known.answers)
        self.best, self.epoch, self.phi = self.validation[known.epoch - 1], known.epoch, known.phi

    def conclude(self) -> None:
        """Go to the best epoch."""
        self.ended = True
        if self.phi is not None:
            self.net.phi = self.phi


def batch_of(n: int) -> int:
    """Examples of a batch, for n in all: small tables get many steps, and large ones do not take for ever."""
    return int(2 ** np.clip(np.round(np.log2(max(n, 1) / 64)), 5, 10))


def epochs_of(n: int, batch_size: int) -> int:
    """Most epochs of a member."""
    epochs = np.clip(STEPS // math.ceil(n / batch_size), FEWEST, MOST)
    return int(np.clip(SEEN // max(n, 1), SLOWEST, epochs))


def decay_of(n: int) -> float:
    """Weight decay of a member that is trained on n rows: more of it below 600."""
    return float(np.clip(0.3 * (600 / n) ** 2, 0.3, 2.0))


def parts(k: int, key: Array, groups: Array | None, random: np.random.Generator) -> Array:
    """For each row the part of k that it belongs to: whole groups, else with a share of large and small keys in each part."""
    if groups is not None:
        of_group = np.empty(groups.max() + 1, int)
        of_group[random.permutation(len(of_group))] = np.arange(len(of_group)) % k
        return of_group[groups]
    n = len(key)
    part = np.empty(n, int)
    in_order = np.lexsort((random.random(n), key))
    part[in_order] = np.concatenate([random.permutation(k) for _ in range(-(-n // k))])[:n]
    return part


def train(
    course: Course, rows: Rows, part: Array | None, judges: Rows, tasks: EpochTasks, bar: Any
) -> tuple[list[Member], bool]:
    """Train the members, as many at a time as there are cores: member m on all rows but part m, or on all, judged by `judges`.

    Each is the same whatever the others do; a progress `bar` of all their epochs shows how far they are. With few rows, or fewer
    than inputs, gentle ones come after. Those that have ended before are as they were. Returns those that are `chosen`, and
    whether Ctrl-C was pressed. Raises KeyboardInterrupt where no member has anything to show yet, FloatingPointError where
    numbers are not finite from the start.
    """
    stop, begun, jobs = Event(), list[Member](), jobs_of(course, rows)
    left = [job for job in jobs if job not in course.ended.members]

    def one(place: int) -> Member | None:
        if stop.is_set() or ((place or len(left) < len(jobs)) and time.perf_counter() > course.until):
            return None  # the first one is always there
        m, gentle = job = left[place]
        member, inside, outside = _new(course, job, rows, part, judges)
        begun.append(member)
        now, rounds = time.perf_counter(), math.ceil((len(left) - place) / workers)
        _train(course, member, inside, outside, stop, now + (course.until - now) / rounds)
        member.conclude()
        if member.phi is not None and member.whole(course.epochs):
            curves, answers = np.array([member.losses, member.validation]), np.stack(member.answers)
            course.ended.add(job, Known(member.phi, curves, answers, member.epoch))
        best = f"best epoch {member.epoch} of {len(member.losses)}, validation loss {member.best:.6g}"
        course.say(f"Member {m + 1} of {course.members}{', gently' if gentle else ''}: {best}")
        return member

    # Callbacks are told of one member after another, and need not know of threads.
    workers = 1 if course.callbacks else max(1, min(len(left), cores()))
    with blas_threads(1), interrupts() as pressed, ThreadPoolExecutor(workers) as pool:
        made = [_recalled(course, job, jobs, rows, part, judges) for job in course.ended.members]
        begun += made
        trained = [pool.submit(one, place) for place in range(len(left))]
        for job in trained:
            job.add_done_callback(lambda job: stop.set() if job.exception() else None)
        while wait(trained, timeout=0.05).not_done:
            _show(bar, course, begun, len(jobs))
            if pressed:
                stop.set()
        _show(bar, course, begun, len(jobs))
        made += [member for job in trained if (member := job.result()) is not None]
        for _ in range(course.members):
            tasks.end(tasks.begin()) if tasks.fit else None
    done = sorted((member for member in made if member.phi is not None), key=lambda one: (one.gentle, one.part))
    if pressed and not done:
        raise KeyboardInterrupt
    if not done:
        raise next(member.error for member in made if member.error)
    return chosen(course.loss, done, judges, part, course.of), bool(pressed)


def jobs_of(course: Course, rows: Rows) -> list[tuple[int, bool]]:
    """The members to train: (number, whether gently)."""
    n, inputs = rows.X.shape
    return [
        (m, gentle) for gentle in ((False, True) if n <= max(FEW, inputs) else (False,)) for m in range(course.members)
    ]


def _new(course: Course, job: Job, rows: Rows, part: Array | None, judges: Rows) -> tuple[Member, Rows, Rows]:
    """A member, the rows that it is trained on, and those that it is stopped by."""
    m, gentle = job
    inside, outside = (rows, judges) if part is None else (rows.at(part != m), rows.at(part == m))
    return Member(_network(course, inside, m, gentle), m, gentle), inside, outside


def _recalled(course: Course, job: Job, jobs: list[Job], rows: Rows, part: Array | None, judges: Rows) -> Member:
    """A member that has ended before. Raises FileFormatError for one that is none of these."""
    known = course.ended.members[job]
    if job not in jobs:
        course.ended.refuse(job)
    member, _, outside = _new(course, job, rows, part, judges)
    if len(known.phi) != member.net.size or known.answers.shape[1:] != (len(outside.X), course.outputs):
        course.ended.refuse(job)
    member.recall(known)
    member.conclude()
    return member


def _show(bar: Any, course: Course, begun: list[Member], members: int) -> None:
    """Draw how far the members are; one that has ended early is as far as the others will be."""
    begun = [member for member in begun if member.losses]
    done = sum(course.epochs if member.ended else len(member.losses) for member in begun)
    if begun:
        ended = sum(member.ended for member in begun)
        best = float(np.mean([member.best for member in begun]))
        bar.set_postfix({"members": f"{ended}/{members}", "validation_loss": f"{best:.4g}"}, refresh=False)
    bar.update(done - getattr(bar, "n", done))


def chosen(loss: Loss, done: list[Member], judges: Rows, part: Array | None, of: str) -> list[Member]:
    """The fast members, the gentle ones, or all: those with the least loss on rows that they have not seen.

    Where one kind has been cut short, the other.
    """
    gentle, fast = ([member for member in done if member.gentle is kind] for kind in (True, False))
    if len(gentle) != len(fast):
        return max(fast, gentle, key=len)

    def unseen(members: list[Member]) -> float:
        f, own = judged(members, [member.epoch for member in members], judges, part, of)
        y = own.targets if loss.takes_labels else own.targets.reshape(f.shape).T
        return float(copy.copy(loss).forward(f.T, y, sample_weight=own.w))

    return min(fast, gentle, done, key=unseen)


def _network(course: Course, inside: Rows, m: int, gentle: bool) -> Sequential:
    (H, G), inputs = WIDTHS, inside.X.shape[1]
    layers = [InputScale(inputs, pace=PACE), Linear(inputs, H), ReLU(), Linear(H, G), ReLU(), Linear(G, course.outputs)]
    net = Sequential(*layers, seed=course.seed + m)
    if gentle:
        net.parameters["0.gamma"] = net.parameters["0.gamma"] * relevance(inside, course)
    return net


def relevance(rows: Rows, course: Course) -> Array:
    """A factor for each input (E,), of mean square 1: how surely it goes with a target, √n |ρ|, but at least 1 before scaling.

    ρ is the correlation of Pearson, with whichever target or class it is largest; of inputs that have nothing to do with any
    √n |ρ| is about 1. Such factors at the start let a network see the few that count among many.
    Source: Fan and Lv (2008), "Sure independence screening for ultrahigh dimensional feature space", on ranking by correlation.
    """
    n = len(rows.X)
    w = np.full(n, 1 / n) if rows.w is None else rows.w / rows.w.sum()
    y = np.eye(course.outputs)[rows.targets] if course.loss.takes_labels else rows.targets.reshape(n, -1)
    X, y = (_standard(np.asarray(each, np.float64), w) for each in (rows.X, y))
    rho = np.abs((X * w[:, None]).T @ y).max(axis=1)
    sure = np.maximum(rho / np.sqrt((w**2).sum()), 1)
    return np.asarray(sure / np.sqrt(np.mean(sure**2)))


def _standard(x: Array, w: Array) -> Array:
    """Columns to mean 0 and deviation 1; those of one value to 0."""
    x = x - w @ x
    deviation = np.sqrt(w @ x**2)
    return x / np.where(deviation > 1e-9, deviation, np.inf)


def _train(course: Course, member: Member, inside: Rows, outside: Rows, stop: Event, until: float) -> None:
    """Descend, and keep the weights of the best epoch; with as many epochs, from `SLOWEST` on, as can be done in time."""
    net, n, began = member.net, len(inside.X), time.perf_counter()
    batch_size = min(course.batch_size, n)
    steps = math.ceil(n / batch_size)
    slow = GENTLE if member.gentle else 1.0
    epochs, rate = course.epochs, CosineDecay(RATE / slow, steps=steps * course.epochs)
    loss, rule, seed = copy.copy(course.loss), AdamW(rate, weight_decay=slow * decay_of(n)), course.seed + member.part
    trainer = Trainer(net, loss, rule, batch_size=batch_size, seed=seed, threads=1, native=course.native)
    records = trainer.epochs(
        inside.X, inside.targets, course.epochs, sample_weight=inside.w, validation_data=outside.judging
    )
    trainer.after_step = [lambda: _look(course, member, rule.t)] if until < math.inf else []
    try:
        with running(trainer, course.callbacks):
            for record in records:
                member.note(record, outside)
                stops = [bool(callback.epoch(trainer, record)) for callback in course.callbacks]
                now = time.perf_counter()
                if record.epoch == 1 and until < math.inf:
                    epochs = min(epochs, 1 + max(SLOWEST, int(0.9 * (until - now) / (now - began))))
                    rule.schedule = CosineDecay(RATE / slow, steps=steps * epochs)
                stops += [stop.is_set() or now > course.until, record.epoch >= epochs]
                if any(stops) or record.epoch - member.epoch >= PATIENCE:
                    member.cut = stops[-2] or epochs < course.epochs
                    break
    except FloatingPointError as error:
        member.error = error
    except KeyboardInterrupt:  # in the midst of an epoch
        member.cut = True
        if member.first and member.phi is None and time.perf_counter() > course.until:
            some = inside.at(np.arange(min(n, LEAST * batch_size)))
            mean, of_outside = (trainer.evaluate(each.X, each.targets, each.w)["loss"] for each in (some, outside))
            seconds = time.perf_counter() - began
            speed = rule.t * batch_size / seconds
            member.note(Epoch(1, mean, seconds, speed, rule.learning_rate, validation={"loss": of_outside}), outside)


def _look(course: Course, member: Member, steps: int) -> None:
    """Raise KeyboardInterrupt when the time is over, within an epoch too; the first member has a few steps in any case."""
    begun = not member.first or member.phi is not None or steps >= LEAST
    if begun and time.perf_counter() > course.until:
        raise KeyboardInterrupt


def judged(
    members: list[Member], epochs: Sequence[int], judges: Rows, part: Array | None, of: str
) -> tuple[Array, Rows]:
    """What members say after these epochs (n, K), as together they do, of rows not trained on, and these rows."""

    def said(each: int | None) -> Array:
        some = [
            member.answers[min(epoch, len(member.answers)) - 1].T
            for member, epoch in zip(members, epochs, strict=True)
            if each is None or member.part == each
        ]
        return MembersMean(len(some), of=of).infer(np.stack(some, axis=1).reshape(-1, some[0].shape[1])).T

    if part is None:
        return said(None), judges
    parts = sorted({member.part for member in members})
    own = judges.at(np.concatenate([np.flatnonzero(part == each) for each in parts]))
    return np.concatenate([said(each) for each in parts]), own


def epochs_of_others(members: list[Member]) -> list[int]:
    """For each member the middle one of the best epochs of the others of its kind, which its own rows have not chosen."""
    epochs = []
    for member in members:
        others = [other.epoch for other in members if other.gentle is member.gentle and other.part != member.part]
        epochs.append(round(float(np.median(others))) if others else member.epoch)
    return epochs


def coverages(order: Array, own: Rows) -> Array:
    """The coverage that an interval up to each of the rows' distances has shown; `order` (n, K) sorts them, smallest first.

        m_i = w_i / size of the group of i      k groups, of mass M_g = Σ m_i; without groups each row is one
        coverage of a distance = Σ m of all up to it / (Σ M + M'),   M' = Σ M² / Σ M for the new one

    So a group counts as one, however many rows it has, and k groups show k / (k + 1) at the most: with unequal weights as if
    there were (Σ M)² / Σ M² of them, and weights times a number are the same.
    Sources: Lee, Barber and Willett (2023), "Distribution-free inference with hierarchical data"; Tibshirani et al. (2019),
    "Conformal prediction under covariate shift", on weights; Kish (1965), "Survey sampling", section 8.2, on how many they are.
    """
    w = np.ones(len(order)) if own.w is None else np.asarray(own.w, np.float64)
    of = np.arange(len(order)) if own.groups is None else np.unique(own.groups, return_inverse=True)[1]
    mass = w / w.max() / np.bincount(of)[of]  # whose squares neither overflow nor vanish
    of_groups = np.bincount(of, mass)
    return np.cumsum(mass[order], axis=0) / (of_groups.sum() + (of_groups**2).sum() / of_groups.sum())


def together(before: Inputs, members: list[Member], of: str, sharpness: float, dtype: Any) -> Sequential:
    """One network that gives, of rows as they come, the mean of the members' answers times `sharpness`."""
    k, nets, (H, G) = len(members), [member.net for member in members], WIDTHS
    K = nets[0].out_features or 1
    first, second, last = Linear(len(before.weight), H * k), SeparateLinear(H, G, k), SeparateLinear(G, K, k)
    after = [] if sharpness == 1 else [Linear(K, K, bias=False)]
    columns = (layer.copy() for layer in before.net)
    net = Sequential(*columns, first, ReLU(), second, ReLU(), last, MembersMean(k, of=of), *after, seed=0, dtype=dtype)
    for m, one in enumerate(nets):
        scale, hidden, deep, answer = one[0], one[1], one[3], one[5]
        first.omega[m::k] = hidden.omega * (scale.pace * scale.gamma * before.weight)
        first.beta[m::k] = hidden.beta
        for target, source in ((second, deep), (last, answer)):
            target.parameters[f"omega_{m}"][...] = source.omega
            target.beta[m::k] = source.beta
    for linear in after:
        linear.omega = sharpness * np.eye(K)
    return net
