"""An estimator's parameters, checked as a fit begins, and the layers, losses and optimizers that they stand for."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from backprop import checks, layers, losses
from backprop.checks import Array
from backprop.layers import Dropout, Layer, Linear
from backprop.losses import Loss
from backprop.optimizers import SGD, Adam, Optimizer
from backprop.schedules import Schedule
from backprop.sequential import Sequential
from backprop.training.native import choice
from backprop.training.watch import check_callbacks

ACTIVATIONS: dict[str, type[Layer]] = {
    "identity": layers.Identity,
    "logistic": layers.Sigmoid,
    "tanh": layers.Tanh,
    "relu": layers.ReLU,
    "leaky_relu": layers.LeakyReLU,
    "elu": layers.ELU,
    "silu": layers.SiLU,
    "gelu": layers.GELU,
    "softplus": layers.Softplus,
    "sin": layers.Sin,
    "cos": layers.Cos,
}


class HalfSquares(losses.LeastSquares):
    """Half the sum of squared differences, which is what scikit-learn's "squared_error" descends on.

        ℓ      = ½ Σₖ (f − y)²
        ∂ℓ/∂f  = f − y

    >>> import numpy as np
    >>> loss = HalfSquares()
    >>> loss.forward(np.array([[3.0]]), np.array([1.0])), loss.backward()
    (2.0, array([[2.]]))
    """

    traced = True

    def entry(self, d: Array) -> Array:
        """½ d²."""
        return 0.5 * (d * d)

    def entry_slope(self, d: Array) -> Array:
        """Return d."""
        return d


def check_parameters(model: Any) -> None:
    """Refuse parameters of a wrong kind or out of range; the network, its loss and its optimizer check theirs."""
    who = type(model).__name__
    check_callbacks(who, model.callbacks or ())
    checks.choice(who, "solver", model.solver, ("lbfgs", "sgd", "adam"))
    checks.choice(who, "learning_rate", model.learning_rate, ("constant", "invscaling", "adaptive"))
    for name in ("max_iter", "max_fun"):
        checks.integer(who, name, getattr(model, name))
    for name in ("alpha", "tol", "power_t"):
        checks.number(who, name, getattr(model, name), least=0)
    checks.number(who, "validation_fraction", model.validation_fraction, least=0, below=1)
    for name in ("scale_inputs", "scale_targets", "shuffle", "warm_start", "early_stopping"):
        checks.boolean(who, name, getattr(model, name, False))
    checks.integer_or(who, "batch_size", model.batch_size, "auto")
    checks.integer_or(who, "shards", model.shards, "auto")
    choice(who, model.native)
    if model.n_iter_no_change != np.inf:
        checks.integer(who, "n_iter_no_change", model.n_iter_no_change)
    if model.early_stopping:
        check_monitor(who, model.monitor)


def check_monitor(who: str, monitor: Any) -> None:
    """Refuse what is neither None, "loss", the name of a scorer, nor a function (model, X, y) → score."""
    if monitor is None or monitor == "loss" or callable(monitor):
        return
    expected = 'monitor None, "loss", the name of a scorer of scikit-learn, or a function of (model, X, y)'
    if not isinstance(monitor, str):
        raise TypeError(checks.message(who, expected, repr(monitor)))
    from sklearn.metrics import get_scorer_names  # a third of the time that scikit-learn takes to start

    if monitor not in get_scorer_names():
        close = difflib.get_close_matches(monitor, get_scorer_names())
        raise ValueError(checks.message(who, expected, repr(monitor), f"Close to it: {close}." if close else ""))


def widths(hidden_layer_sizes: Any) -> list[int]:
    """Widths of the hidden layers: a whole number or a sequence of them."""
    if isinstance(hidden_layer_sizes, int | np.integer) and not isinstance(hidden_layer_sizes, bool):
        hidden_layer_sizes = [hidden_layer_sizes]
    if isinstance(hidden_layer_sizes, str) or not hasattr(hidden_layer_sizes, "__iter__"):
        got = f"{hidden_layer_sizes!r}"
        raise TypeError(checks.message("MLP", "hidden_layer_sizes a whole number or a sequence of them", got))
    return [checks.integer("MLP", "hidden_layer_sizes > 0: each", width) for width in hidden_layer_sizes]


def per_layer(expected: str, value: Any, n: int, kinds: Any = list | tuple) -> list[Any]:
    """A value for each of n hidden layers: one for all of them, or a sequence of n."""
    each = list(value) if isinstance(value, kinds) else [value] * n
    if len(each) != n:
        expected = f"{expected}, or a sequence of {n}, one for each hidden layer"
        raise ValueError(checks.message("MLP", expected, f"{len(each)}"))
    return each


def activation_layer(activation: Any) -> Layer:
    """A new activation layer of a name, a layer or a class."""
    if isinstance(activation, Layer):
        return activation.copy()
    if isinstance(activation, type) and issubclass(activation, Layer):
        return activation()
    return ACTIVATIONS[checks.choice("MLP", "activation a layer or", activation, ACTIVATIONS)]()


def network(units: Sequence[int], activation: Any, dropout: Any, random: Any, dtype: Any) -> Sequential:
    """Linear layers with these numbers of units, activations and Dropout between them; weights drawn as scikit-learn does.

    Uniform in ±√(6 / (D_in + D_out)), with 2 in the place of 6 for "logistic", and the same for β, from a `RandomState`.
    Source: Glorot and Bengio (2010).
    """
    hidden = len(units) - 2
    activations = [activation_layer(one) for one in per_layer("activation one", activation, hidden)]
    dropouts = per_layer("dropout a number", dropout, hidden, list | tuple | np.ndarray)
    rates = [checks.number("MLP", "dropout", rate, least=0, below=1) for rate in dropouts]
    parts: list[Layer] = [Linear(units[0], units[1], seed=0)]
    for one, rate, (fan_in, fan_out) in zip(activations, rates, pairwise(units[1:]), strict=True):
        parts += [one, *([Dropout(rate, seed=0)] if rate else []), Linear(fan_in, fan_out, seed=0)]
    net = Sequential(*parts, dtype=dtype)
    for linear in (part for part in parts if isinstance(part, Linear)):
        fan_out, fan_in = linear.parameters["omega"].shape
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (fan_in + fan_out))
        linear.parameters["omega"][...] = random.uniform(-bound, bound, (fan_in, fan_out)).T
        linear.parameters["beta"][...] = random.uniform(-bound, bound, fan_out)
    return net


def take_over(net: Sequential, trained: Sequential) -> None:
    """Give `net` the parameters and running statistics of its copy, or of itself."""
    net.phi[...] = trained.phi
    for name, buffer in net.buffers.items():
        buffer[...] = trained.buffers[name]


def regression_loss(loss: Any, quantiles: Sequence[float], delta: float) -> Loss:
    """The loss of a name, or a copy of a loss of one's own."""
    if isinstance(loss, Loss):
        return copy.copy(loss)
    made: dict[str, Callable[[], Loss]] = {
        "squared_error": HalfSquares,
        "poisson": losses.Poisson,
        "absolute_error": losses.AbsoluteError,
        "huber": lambda: losses.Huber(delta),
        "quantile": lambda: losses.Pinball(quantiles),
        "gaussian": losses.GaussianNLL,
    }
    return made[checks.choice("MLPRegressor", "loss a Loss or", loss, made)]()


class InverseScaling(Schedule):
    """Scikit-learn's "invscaling": α = learning_rate / (1 + examples seen)^power, set anew after each epoch.

    `seen` is the number of examples before step `first`, with which it begins.

    >>> InverseScaling(0.1, steps_per_epoch=10, examples=100, power=0.5)(0)
    0.1
    """

    first = 0

    def __init__(
        self, learning_rate: float, *, steps_per_epoch: int, examples: int, power: float, seen: int = 0
    ) -> None:
        self.learning_rate = checks.number("InverseScaling", "learning_rate", learning_rate, above=0)
        self.steps_per_epoch, self.examples, self.power, self.seen = steps_per_epoch, examples, power, seen

    def __call__(self, t: int) -> float:
        """α of step t."""
        epochs = (t - self.first) // self.steps_per_epoch
        return self.learning_rate / (1.0 + self.seen + epochs * self.examples) ** self.power


class Adaptive(Schedule):
    """Scikit-learn's "adaptive": constant, divided by 5 whenever training no longer improves; `divide` says when.

    >>> rate = Adaptive(0.1)
    >>> rate.divide(), rate(0)
    (True, 0.02)
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = checks.number("Adaptive", "learning_rate", learning_rate, above=0)

    def __call__(self, t: int) -> float:
        """α of step t."""
        return self.learning_rate

    def divide(self) -> bool:
        """Divide by 5; False where α is already so small (1e-6) that training may stop."""
        if self.learning_rate <= 1e-6:
            return False
        self.learning_rate /= 5.0
        return True


def at_pace(optimizer: Optimizer, before: float) -> float:
    """Return α of the next epoch, the velocity being right for it where α was `before` until now.

    Scikit-learn's velocity adds up α g, each gradient with the α of its day; ours adds up g, and all of it counts by the α of
    today. So where α is divided by a rule of scikit-learn's, the velocity is multiplied.
    """
    now = optimizer.learning_rate
    if before and now != before and isinstance(optimizer.schedule, InverseScaling | Adaptive):
        for velocity in optimizer.state.values():
            velocity *= before / now
    return now


def optimizer(model: Any, n: int, batch_size: int, decay: Any) -> Optimizer:
    """The optimizer of an estimator's parameters for n examples; `decay` is the weight decay per parameter."""
    rate: Any = copy.deepcopy(model.learning_rate_init)  # a schedule may remember what it has seen
    if not isinstance(rate, Schedule):
        rate = checks.number("MLP", "learning_rate_init", rate, above=0)
        if model.solver == "sgd" and model.learning_rate == "invscaling":
            steps = -(-n // batch_size)
            rate = InverseScaling(rate, steps_per_epoch=steps, examples=n, power=model.power_t, seen=model.t_)
        elif model.solver == "sgd" and model.learning_rate == "adaptive":
            rate = Adaptive(rate)
    rule: Optimizer
    if model.solver == "sgd":
        momentum = checks.number("MLP", "momentum", model.momentum, least=0, below=1)
        rule = SGD(rate, momentum, bool(model.nesterovs_momentum) and momentum > 0, weight_decay=decay)
    else:
        rule = Adam(rate, (model.beta_1, model.beta_2), model.epsilon, weight_decay=decay)
    return continued(model._course, rule, repr([model.solver, model.learning_rate, model.learning_rate_init]))


def continued(course: Any, optimizer: Optimizer, rate: str) -> Optimizer:
    """The optimizer with the momentum and the count of steps of the one before, if their rules remember the same things.

    Where the learning rate, as text, was not set anew, so is what its schedule has come to.
    """
    before, same_rate = course.optimizer, course.rate == rate
    course.optimizer, course.rate = optimizer, rate
    if type(optimizer) is not type(before) or optimizer.slots != before.slots:
        return optimizer
    optimizer.state, optimizer.t = before.state, before.t
    if isinstance(optimizer.schedule, InverseScaling):
        optimizer.schedule.first = optimizer.t
    elif same_rate:
        optimizer.schedule = before.schedule
    return optimizer
