"""What training reports: one small record per epoch, or iteration of `minimize`, and the list of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, overload

from backprop import checks, html


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training data.

    `epoch` counts from 1; `loss` is the mean over the epoch, each batch measured before its own step; `metrics` are measured
    on the training data after the epoch where they were asked for; `validation` holds "loss" and the metrics of the
    validation data; `seconds` is the time of the training pass alone. In `minimize` it is an iteration; see there.
    """

    epoch: int
    loss: float
    seconds: float
    examples_per_second: float
    learning_rate: float
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    validation: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def flat(self) -> dict[str, float]:
        """All numbers by name; those of the validation data are called "validation_loss", "validation_accuracy", …."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del own["metrics"], own["validation"]
        return own | dict(self.metrics) | {f"validation_{k}": v for k, v in self.validation.items()}


class History(Sequence[Epoch]):
    """The records of a `fit` or a `minimize`, in order; `history["loss"]` is a column.

    `stopped` says why training ended before its last epoch: "" (it did not), "Ctrl-C", or the name of a callback; after
    `minimize` also "converged", or what SciPy says.

    >>> history = History([Epoch(1, 0.5, 1.0, 100.0, 0.1), Epoch(2, 0.25, 1.0, 100.0, 0.1)])
    >>> history["loss"], history[-1].epoch
    ([0.5, 0.25], 2)
    """

    def __init__(self, epochs: Sequence[Epoch] = (), stopped: str = "") -> None:
        self.epochs = list(epochs)
        self.stopped = stopped

    def names(self) -> list[str]:
        """The columns there are."""
        return list(dict.fromkeys(name for epoch in self.epochs for name in epoch.flat()))

    @overload
    def __getitem__(self, index: int) -> Epoch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Epoch]: ...
    @overload
    def __getitem__(self, index: str) -> list[float]: ...
    def __getitem__(self, index: int | slice | str) -> Any:
        """An epoch by its position, or a column by its name. Raises KeyError for an unknown name."""
        if not isinstance(index, str):
            return self.epochs[index]
        if not self.epochs and index == "loss":
            return []  # of a training that was interrupted in its first epoch
        if index not in self.names():
            raise KeyError(checks.message("History", f"one of {self.names()}", repr(index)))
        return [epoch.flat()[index] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no epochs)"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].flat().items())
        stopped = f"; stopped: {self.stopped}" if self.stopped else ""
        return f"History({len(self)} epoch{'s' * (len(self) != 1)}; last: {last}{stopped})"

    def _repr_html_(self) -> str:
        names = [name for name in self.names() if name != "examples_per_second"]
        rows = [[f"{epoch.flat().get(name, math.nan):.4g}" for name in names] for epoch in self.epochs]
        stopped = [f"Stopped: {self.stopped}."] if self.stopped else []
        title = f"{len(self):,} epoch{'s' * (len(self) != 1)}, {sum(epoch.seconds for epoch in self.epochs):.2f} s"
        return html.table(title, [name.replace("_", " ") for name in names], html.shortened(rows), *stopped, names=0)
