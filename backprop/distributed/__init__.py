"""Training by many processes, on one machine or many: each computes its shards of every batch, with the bits of one process."""

from backprop.distributed.team import team
from backprop.engine.team import Team

__all__ = ["Team", "team"]
