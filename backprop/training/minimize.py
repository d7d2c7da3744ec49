"""Second-order training: SciPy's minimizers on the loss of all examples as a function of φ.

    J[φ]    = L[φ] + ½ Σ_j λ_j φ_j²
    ∂J/∂φ   = ∂L/∂φ + λ ⊙ φ
    H_J v   = H_L v + λ ⊙ v                Hessian-vector products, for the methods that use them

L and its gradient come from the same steps as those of the trainer, in float64, for a minimizer compares losses that differ in
the last digits and builds its picture of the curvature from differences of gradients.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.around.nesting import draws, leaves
from backprop.checks import Array
from backprop.engine.native.program import Steps
from backprop.engine.planning import Shape
from backprop.engine.step import Engine
from backprop.engine.threads import Pool
from backprop.functions import all_finite, norm
from backprop.layers import BatchNorm
from backprop.losses import Loss
from backprop.losses.base import share
from backprop.sequential import Sequential
from backprop.training.advice import Advisor
from backprop.training.callbacks import Callback
from backprop.training.data import Examples
from backprop.training.descent import at_work, cores_for, fill, first_bad, interrupts, most
from backprop.training.history import Epoch, History
from backprop.training.metrics import Metrics, check_metrics, measure
from backprop.training.native import Native, choice
from backprop.training.watch import Watch, check_callbacks, check_verbose, validation_examples, watching

if TYPE_CHECKING:  # what it needs of the proof of gradients is imported where it is used: training itself needs none
    from backprop.gradients.curvature import Curvature

# What switches each method's own limits off: `tolerance` and `iterations` then mean the same for all of them. Not here are those
# without gradients, those that need all of the Hessian, and SLSQP and trust-constr, which are for constraints.
METHODS: dict[str, dict[str, float]] = {
    "L-BFGS-B": {"ftol": 0, "gtol": 0, "maxfun": 10**9, "maxiter": 10**9},
    "BFGS": {"gtol": 0, "maxiter": 10**9},
    "CG": {"maxiter": 10**9},
    "TNC": {"ftol": 0, "xtol": 0, "gtol": 0, "maxfun": 10**9},
    "Newton-CG": {"xtol": 0, "maxiter": 10**9},
    "trust-ncg": {"gtol": 0, "maxiter": 10**9},
    "trust-krylov": {"gtol": 0, "maxiter": 10**9},
}
CURVATURE = {"Newton-CG", "trust-ncg", "trust-krylov"}  # those that are given Hessian-vector products


def minimize(
    net: Sequential,
    loss: Loss,
    X: Array,
    y: Array,
    *,
    method: str = "L-BFGS-B",
    sample_weight: Array | None = None,
    weight_decay: float | Array = 0.0,
    iterations: int = 200,
    validation_data: tuple[Array, ...] | None = None,
    metrics: Metrics = (),
    callbacks: Sequence[Callback] = (),
    verbose: int = 1,
    threads: int | str = "auto",
    native: bool | str = "auto",
    tolerance: float = 1e-6,
    options: Mapping[str, Any] | None = None,
) -> History:
    """Fit φ to all examples at once with a method of `scipy.optimize.minimize`: L-BFGS-B, BFGS, CG, TNC, Newton-CG, trust-ncg, ….

    Rows X (N, D), targets y (N,) or (N, K). It minimizes J = L + ½ Σ_j λ_j φ_j² for λ = `weight_decay`, a number or one for each
    parameter (P,), until each entry of ∂J/∂φ is at most `tolerance`, or for `iterations` iterations. Newton-CG, trust-ncg and
    trust-krylov get exact Hessian-vector products. `options` go to SciPy as they are.

    The history has a record for each iteration. Its `loss` is L after the iteration, without the penalty; its metrics begin with
    "objective" J and "gradient_norm" |∂J/∂φ|; `examples_per_second` counts an example for each gradient and for each product;
    `learning_rate` is |Δφ| / |∂J/∂φ|, with which a step of plain descent would have been as long. `history.stopped` is "" if the
    iterations ran out, else "Ctrl-C", the name of a callback, "converged", "standstill" where the search ended content although
    ∂J/∂φ is larger than that (at a kink, say), or SciPy's words.

    It computes in float64 on a copy. After each iteration `net` gets the φ found so far, in its own type, and BatchNorm the
    statistics of all examples, so `predict` is what was minimized; whatever ends it, it is left there.

    Raises TypeError or ValueError for what does not fit, for an unknown method or option, and for layers that are random;
    FloatingPointError where L is not finite at the start, or the search finds no way back from there.
    Source: Nocedal and Wright (2006), "Numerical optimization", chapters 6 and 7.

    >>> import numpy as np, backprop as bp
    >>> X = np.linspace(-1, 1, 20).reshape(-1, 1)
    >>> net = bp.Sequential(bp.Linear(1, 1), seed=0, dtype="float64")
    >>> history = bp.minimize(net, bp.LeastSquares(), X, 2 * X[:, 0] + 1, verbose=0)
    >>> history.stopped, net.phi.round(5)
    ('converged', array([1., 2.]))
    """
    checks.instance("minimize", "net", net, Sequential)
    checks.instance("minimize", "loss", loss, Loss)
    checks.choice("minimize", "method", method, METHODS)
    checks.integer("minimize", "iterations", iterations)
    checks.number("minimize", "tolerance", tolerance, least=0)
    checks.integer_or("minimize", "threads", threads, "auto")
    choice("minimize", native)
    verbose = check_verbose("minimize", verbose)
    check_callbacks("minimize", callbacks)
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(checks.message("minimize", "options as a dict, for SciPy", repr(options)))
    objective = Objective(net, loss, X, y, sample_weight, weight_decay, threads, native)
    validation = validation_examples("minimize", net, loss, validation_data)
    check_metrics("minimize", net, loss, metrics, objective.examples, validation)
    from backprop.gradients.curvature import Curvature

    curvature = partial(Curvature, net, loss, X, y, sample_weight, dtype="float64") if method in CURVATURE else None
    search = Search(net, loss, objective, curvature, metrics, validation, iterations, tolerance)
    Advisor("minimize", objective.net, loss).before(objective.examples)
    with watching(search, callbacks, verbose, iterations, "iteration", "iteration") as watch:
        of_cg = {"gtol": tolerance} if method == "CG" else {}  # else it fails where the gradient is 0
        search.run(method, {**METHODS[method], **of_cg, **(options or {})}, watch)
    return watch.history


@dataclass(frozen=True, eq=False, slots=True)
class Point:
    """What is known at one φ: L, J, ∂J/∂φ (P,), and the statistics that BatchNorm used.

    `lost` names a tensor that is not finite; J is then inf, and the gradient 0.
    """

    phi: Array
    loss: float
    J: float
    gradient: Array
    buffers: dict[str, Array]
    lost: str


class Objective:
    """J and its gradient at any φ, computed in float64 on a copy of the network."""

    def __init__(
        self,
        net: Sequential,
        loss: Loss,
        X: Array,
        y: Array,
        sample_weight: Any,
        weight_decay: Any,
        threads: int | str,
        native: bool | str = "auto",
    ) -> None:
        self.decay, self.threads = per_parameter(weight_decay, net.size), threads
        from backprop.gradients.problem import independent

        self.net = independent(net, "float64")
        for leaf in leaves(self.net):
            if draws(leaf):
                raise random_loss(leaf.label)
            if type(leaf) is BatchNorm:
                leaf.__class__ = FullBatchNorm
        self.examples = examples = Examples("minimize", self.net, loss, X, y, sample_weight)
        n, y = examples.n, examples.y
        self.rows = examples.present(np.arange(n), self.net)
        shape = Shape(n, examples.X.shape[1], ((*y.shape[1:], n), y.dtype), examples.w is not None, examples.dtype)
        self.batch = Engine(self.net, loss, None).batch(shape, "auto", most(threads))
        self.share = share(loss, np.empty((0, n)), examples.w)
        self.native, self.setting = Native("minimize"), native
        shares = np.asarray(self.share)[None].astype(examples.dtype) if examples.w is not None else None
        fill_step = lambda step, mine, arrays: fill(examples, self.rows, self.share, mine, arrays)  # noqa: E731
        self.step = Steps(self.rows[None], examples.X, y, shares, fill_step, [0.0], (0, 0))

    def _passes(self, pool: Pool | None) -> float:
        """Both passes: L, with the gradient in `batch.g`."""
        batch, found = self.batch, []

        def by_numpy() -> float:
            found.append(batch.run(partial(fill, self.examples, self.rows, self.share), 0.0, 0, (), pool))
            return found[0]

        began = time.perf_counter()
        if self.native.steps(batch, self.setting):
            kept = lambda: {"g": batch.g, **self.net.buffers}  # noqa: E731
            played = self.native.play(batch, self.step, by_numpy, kept, pool)
            if played is not None and played.error is not None:
                raise played.error
            return found[0] if played is None else played.losses[0] if played.done else played.last
        by_numpy()
        self.native.spent(batch, time.perf_counter() - began)
        return found[0]

    def at(self, phi: Array, pool: Pool | None) -> Point:
        """J and ∂J/∂φ at phi (P,), which is copied."""
        net, g = self.net, self.batch.g
        np.copyto(net.phi, phi)
        with np.errstate(all="ignore"):
            L = self._passes(pool)
        decay = self.decay * net.phi
        J = L + 0.5 * float(decay @ net.phi)
        lost = ""
        if not (math.isfinite(J) and all_finite(g)):
            lost = first_bad(net, g if math.isfinite(J) else None, self.examples, self.rows)
        gradient = np.zeros_like(g) if lost else g + decay
        buffers = {name: buffer.copy() for name, buffer in net.buffers.items()}
        return Point(net.phi.copy(), L, math.inf if lost else J, gradient, buffers, lost)


class FullBatchNorm(BatchNorm):
    """BatchNorm that keeps the statistics of its last pass as they were used there, so that `infer` gives the same f."""

    traced = True

    def observe(self, mean: Array, variance: Array, n: int) -> None:
        """Keep the statistics."""
        self.running_mean[...] = mean
        self.running_variance[...] = variance


class Finished(Exception):
    """Raised through SciPy to end a search: the one way out of all its methods, in all versions."""


@dataclass(eq=False)
class Search:
    """One call of `minimize`: what SciPy asks for, and what is made of each iteration. Callbacks get it as their trainer."""

    net: Sequential
    loss: Loss
    objective: Objective
    curvature: Callable[[], Curvature] | None  # made where the search starts, once that is known to be finite
    metrics: Metrics
    validation: Examples | None
    iterations: int
    tolerance: float

    def run(self, method: str, options: dict[str, Any], watch: Watch) -> None:
        """Let SciPy search from φ as it is. Raises KeyboardInterrupt between two evaluations."""
        from scipy import optimize

        self.watch, self._passes, self._start = watch, 0, time.perf_counter()
        cores = cores_for(self.objective.batch, self.objective.threads)
        with interrupts() as self._interrupted, at_work(cores) as self._pool, suppress(Finished):
            self._accepted = self._latest = self._first()
            self._check_limits()
            self._curvature = self.curvature() if self.curvature else None
            phi, hessp = self._accepted.phi, self.product if self.curvature else None
            with only_errors(optimize.OptimizeWarning):
                result = optimize.minimize(
                    self.evaluate, phi, method=method, jac=True, hessp=hessp, callback=self.accept, options=options
                )
            if self._latest.lost:
                raise self._astray(self._latest)
            # Convergence was looked at after each iteration: what SciPy calls a success here is none.
            watch.history.stopped = "standstill" if result.get("success") else str(result.message)
        if self._interrupted:
            raise KeyboardInterrupt

    def evaluate(self, phi: Array) -> tuple[float, Array]:
        """J and ∂J/∂φ (P,) at phi; where they are not finite, a plateau above all that a search would accept.

        From inf the line searches cannot interpolate their way back; from a plateau of the order of J all of them do.
        """
        point, J = self._at(phi), self._accepted.J
        return J + 10 * (1 + abs(J)) if point.lost else point.J, point.gradient

    def product(self, phi: Array, v: Array) -> Array:
        """The Hessian of J at phi times v (P,)."""
        self._count_a_pass()
        if self._curvature is None or not all_finite(v):  # trust-krylov divides by a gradient that is 0
            self.watch.history.stopped = "no direction left"
            raise Finished
        return self._curvature.at(phi).hessian_product(v) + self.objective.decay * v

    def accept(self, phi: Array) -> None:
        """SciPy has done an iteration and come to phi: the network gets it, the history a record. Raises Finished."""
        point = self._at(phi)
        self._give(point)
        record, self._accepted = self._record(point), point
        self.watch.bar.update(1)
        if self.watch.note(record):
            raise Finished
        self._check_limits()
        self._passes, self._start = 0, time.perf_counter()

    def _check_limits(self) -> None:
        if np.abs(self._accepted.gradient).max(initial=0) <= self.tolerance:
            self.watch.history.stopped = "converged"
            raise Finished
        if len(self.watch.history) >= self.iterations:
            raise Finished

    def _record(self, point: Point) -> Epoch:
        examples, before = self.objective.examples, self._accepted
        seconds = time.perf_counter() - self._start
        measured = {"objective": point.J, "gradient_norm": norm(point.gradient)}
        if self.metrics:
            measured |= measure(self.net, self.loss, examples, self.metrics, own=False)
        of_validation = measure(self.net, self.loss, self.validation, self.metrics) if self.validation else {}
        done, speed = len(self.watch.history), self._passes * examples.n / seconds
        rate = norm(point.phi - before.phi) / (norm(before.gradient) or 1.0)
        return Epoch(done + 1, point.loss, seconds, speed, rate, measured, of_validation)

    def _first(self) -> Point:
        """Where the search starts; run twice, to see that the loss is not random."""
        point, again = (self._pass(self.net.phi) for _ in range(2))
        if point.lost:
            raise self._astray(point)
        if not math.isclose(point.loss, again.loss, rel_tol=1e-9):
            raise random_loss("two different losses at the same φ")
        return point

    def _at(self, phi: Array) -> Point:
        """A point that was just looked at, or a new one: some methods ask twice, or go back to where they were."""
        for known in (self._latest, self._accepted):
            if np.array_equal(known.phi, phi):
                return known
        self._latest = self._pass(phi)
        return self._latest

    def _pass(self, phi: Array) -> Point:
        self._count_a_pass()
        return self.objective.at(phi, self._pool)

    def _count_a_pass(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._passes += 1

    def _give(self, point: Point) -> None:
        """Write φ and the statistics of BatchNorm to the caller's network, if they are finite in its type."""
        phi = point.phi.astype(self.net.phi.dtype)
        if point.lost or not all_finite(phi):
            raise self._astray(point)
        self.net.phi[...] = phi
        for name, buffer in self.net.buffers.items():
            buffer[...] = point.buffers[name]

    def _astray(self, point: Point) -> FloatingPointError:
        done = len(self.watch.history)
        left = f"The weights are those after iteration {done}." if done else "The weights are unchanged."
        got = f"nan or inf in {point.lost or f'φ as {self.net.phi.dtype}'}"
        expected = f"a finite loss and gradient in iteration {done + 1}"
        return FloatingPointError(checks.message("minimize", expected, got, f"{left} Scale the inputs."))


def random_loss(got: str) -> ValueError:
    """The error of a network that is random: there is no one loss to minimize."""
    advice = "Leave the random layer out, or train with Trainer."
    return ValueError(checks.message("minimize", "a network without random layers", got, advice))


def per_parameter(weight_decay: Any, size: int) -> float | Array:
    """Checked λ: a number ≥ 0, or an array of them (P,)."""
    if np.ndim(weight_decay) == 0:
        return checks.number("minimize", "weight_decay", weight_decay, least=0)
    decay = checks.numeric("minimize", "weight_decay", weight_decay)
    if decay.shape != (size,):
        expected = f"weight_decay a number, or one for each parameter: shape ({size},)"
        raise ValueError(checks.message("minimize", expected, f"shape {decay.shape}"))
    checks.finite("minimize", "weight_decay", decay)
    if (decay < 0).any():
        j = int(np.argmax(decay < 0))
        raise ValueError(checks.message("minimize", "weight_decay ≥ 0", f"{decay[j]} for parameter {j} of φ"))
    return decay.astype(np.float64)


@contextmanager
def only_errors(unknown_option: type[Warning]) -> Iterator[None]:
    """SciPy warns of an option that it does not know, where we refuse it, and of line searches, which it answers itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="scipy")
        warnings.filterwarnings("error", "Unknown solver options", unknown_option)
        try:
            yield
        except unknown_option as warning:
            raise ValueError(checks.message("minimize", "options that SciPy knows", str(warning))) from None
