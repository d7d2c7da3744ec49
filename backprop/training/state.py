"""All that training is at one moment: what a step reads and writes, where the next step is, and the settings.

The trainer makes a `State` of itself, and itself of one; a checkpoint is a `State` in a file. Neither knows more of the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from backprop.constraints import Constraint
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.sequential import Sequential


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
        seconds = self.seconds + now - (self.clock or now)
        return Position(self.epoch, self.batch, self.total, self.learning_rate, seconds)


@dataclass(frozen=True)
class Settings:
    """What the trainer's arguments say of how it trains."""

    batch_size: int | str
    shuffle: bool
    seed: int
    shards: int | str
    threads: int | str
    deterministic: bool
    native: bool | str = "auto"


@dataclass
class State:
    """Training at one moment. `data` is the fingerprint of the data, None before the first; `callbacks` what they remember."""

    net: Sequential
    loss: Loss
    optimizer: Optimizer
    settings: Settings
    constraints: dict[str, Constraint]
    position: Position = field(default_factory=Position)
    data: dict[str, Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    callbacks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
