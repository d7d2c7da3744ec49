"""How large activations and gradients are from layer to layer: vanishing and exploding made visible; the gradient check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.nesting import reseed
from backprop.checks import Array
from backprop.gradients import GradientReport
from backprop.gradients.explain import flattened
from backprop.gradients.problem import Problem
from backprop.plots import canvas
from backprop.training import Callback, Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

MOST_EPOCHS = 6


class Magnitudes(Callback):
    """A callback that keeps the size of activations and gradients of each layer, before training and after each epoch.

        activations_k = √ mean f_k²              f_k the output of layer k for the rows X: root mean square over its entries
        gradients_k   = √ mean (∂L/∂f_k)²        L the loss of these rows

    The rows X (N, D), y (N,) or (N, K) are few and fixed, so that epochs compare and cost little: a forward and a backward pass
    of a training pass on a copy, with the same Dropout masks each time. Then `epochs` (E,) counts from where training began,
    `layers` names the layers, those of a network inside the network too, and `activations`, `gradients` are arrays (E, layers).

    Raises TypeError or ValueError, when training starts, for rows that do not fit.
    Source: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks".

    >>> import numpy as np, backprop as bp
    >>> X, y = np.ones((8, 2)), np.zeros(8)
    >>> net = bp.Sequential(bp.Linear(2, 3), bp.Tanh(), bp.Linear(3, 1), seed=0)
    >>> record = Magnitudes(X, y)
    >>> _ = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).fit(X, y, epochs=2, callbacks=[record], verbose=0)
    >>> record.epochs, record.layers, record.gradients.shape
    ([0, 1, 2], ['0 Linear', '1 Tanh', '2 Linear'], (3, 3))
    """

    def __init__(self, X: Any, y: Any) -> None:
        self.X, self.y = X, y
        self.epochs: list[int] = []
        self.layers: list[str] = []
        self._sizes: list[tuple[list[float], list[float]]] = []  # of activations, of gradients

    @property
    def activations(self) -> Array:
        """Root mean square of each layer's output (E, layers)."""
        return np.array([activations for activations, _ in self._sizes])

    @property
    def gradients(self) -> Array:
        """Root mean square of ∂L/∂f of each layer (E, layers)."""
        return np.array([gradients for _, gradients in self._sizes])

    def start(self, trainer: Any) -> None:
        """Forget the training before, and measure the network as it is."""
        self.epochs, self._sizes = [], []
        self._problem = Problem("Magnitudes", trainer.net, trainer.loss, self.X, self.y)
        self.layers = [f"{key} {type(layer).__name__}" for key, layer in flattened(self._problem.net)]
        self._measure(trainer, getattr(trainer, "epochs_done", 0))

    def epoch(self, trainer: Any, record: Epoch) -> None:
        """Measure."""
        self._measure(trainer, record.epoch)

    def _measure(self, trainer: Any, epoch: int) -> None:
        problem = self._problem
        problem.net.phi[...] = trainer.net.phi
        reseed(problem.net, 0)
        layers, h = [layer for _, layer in flattened(problem.net)], problem.h
        activations: list[float] = []
        gradients: list[float] = []
        for layer in layers:
            h = boundary.forward(layer, h)
            activations.append(_size(h))
        problem.loss.forward(h, problem.y)
        dL_df = problem.loss.backward()
        for layer in reversed(layers):
            gradients.append(_size(dL_df))
            dL_df, _ = boundary.backward(layer, dL_df)
        self.epochs.append(epoch)
        self._sizes.append((activations, gradients[::-1]))


def _size(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))  # small float32 gradients would square to 0


def magnitudes(record: Magnitudes, *, ax: Any = None) -> Array:
    """The size of activations (left) and gradients (right) from layer to layer, a line per epoch. Returns both axes (2,).

    Of many epochs six are shown, the later the darker. Lines that are level are healthy; gradients vanish where they fall by
    orders of magnitude towards the first layer, explode where they grow. A 0 at the bottom is an exact one: a layer all of whose
    units are dead. `ax` may be two axes.

    Raises TypeError for what is no `Magnitudes`, ValueError for one that has recorded nothing yet, or nothing finite.
    """
    who = "magnitudes"
    checks.instance(who, "record", record, Magnitudes)
    if not record.epochs:
        advice = "Hand it to fit: callbacks=[record]."
        raise ValueError(checks.message(who, "a record of at least one epoch", "an empty one", advice))
    ax = canvas.panels(who, ax, 2, 4.8, 3.8)
    last = len(record.epochs) - 1
    shown = sorted({round(i * last / (MOST_EPOCHS - 1)) for i in range(MOST_EPOCHS)})
    both = {"activations": record.activations, "gradients ∂L/∂f": record.gradients}
    for each, (title, values) in zip(ax, both.items(), strict=True):
        if not np.isfinite(values).any():
            raise ValueError(checks.message(who, f"finite {title}", "none"))
        _lines(each, record, values, shown)
        each.set(title=title, xlabel="layer")
    ax[0].set_ylabel("root mean square")
    ax[0].legend(title="epoch", frameon=False, fontsize="small")
    return ax


def _lines(ax: Any, record: Magnitudes, values: Array, shown: list[int]) -> None:
    """A line for each of the epochs shown, from light to dark."""
    from matplotlib import colormaps

    places = np.arange(len(record.layers))
    shades = np.linspace(1, 0.15, len(shown))[::-1]
    for row, shade, marker in zip(shown, shades, canvas.MARKERS, strict=False):
        color, line = colormaps["viridis_r"](shade), values[row]
        positive = np.where(np.isfinite(line) & (line > 0), line, np.nan)
        ax.plot(places, positive, color=color, marker=marker, markersize=4, label=str(record.epochs[row]))
        for zero in places[line == 0]:  # which a logarithmic axis does not have
            ax.plot(zero, 0.04, marker="$0$", color=color, markersize=7, transform=ax.get_xaxis_transform())
    canvas.logarithmic(ax, values[shown], always=True)
    ticks = canvas.every(len(places), canvas.room(ax, 0.16))
    names = [canvas.shortened(record.layers[k], 18) for k in ticks]
    ax.set_xticks(ticks, names, rotation=0 if len(ticks) <= 3 else 90, fontsize="small")
    ax.grid(alpha=0.3)


def gradient_check(report: GradientReport, *, ax: Axes | None = None) -> Drawn:
    """What `backward` gives against the numeric derivative, a point per checked entry; the same as `report.plot(ax)`.

    Raises TypeError for what is no `GradientReport`.
    """
    checks.instance("gradient_check", "report", report, GradientReport)
    return report.plot(canvas.axes("gradient_check", ax, 4.8, 4.8))
