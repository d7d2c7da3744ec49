"""The team of the ranks of an MPI job."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.distributed import guard, start
from backprop.distributed.world import world
from backprop.engine import threads
from backprop.engine.team import ALONE, Ranks, Team

_team: list[Team] = []


def team() -> Team:
    """The ranks of this job, to be handed to `Trainer(…, team=)`; a team of one outside of a job. The same one at each call.

    `rank` counts from 0, `size` is the number of ranks. Ranks on one machine share its cores. Of several threads one trains with
    other ranks, the first that asks here: another is refused with RuntimeError. Raises ImportError in a job of several ranks
    without mpi4py, RuntimeError where MPI finds another number of ranks than were started.

    >>> import backprop as bp
    >>> team = bp.distributed.team()
    >>> team.rank, team.size
    (0, 1)
    """
    if not _team:
        comm = world()
        _team.append(ALONE if comm is None else MPITeam(comm))
    return _team[0]


class MPITeam(Ranks):
    """All ranks of a communicator. What is sent are arrays, never objects."""

    signals = (signal.SIGTERM,)  # what a scheduler sends before it kills

    def __init__(self, comm: Any) -> None:
        super().__init__()
        guard.start(comm)
        with guard.waiting():
            self._comm = comm.Dup()
        self.rank, self.size, self._thread = comm.rank, comm.size, threading.current_thread()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        here = self.all_texts(f"{socket.gethostname()} {cores}")
        threads.share(here.count(here[self.rank]))

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}>"

    def _exchange(self) -> AbstractContextManager[object]:
        """In one thread alone: what two send at once would come to the other's place, on some ranks."""
        here = threading.current_thread()
        if here is not self._thread:
            advice = "Train there; or let the thread that trains be the first to call bp.distributed.team()."
            expected = f"one thread that trains together with other ranks, {self._thread.name}"
            raise RuntimeError(checks.message("team", expected, here.name, advice))
        return guard.waiting()

    def gather(self, mine: Array, counts: Sequence[int], out: Array) -> Array:
        """By MPI_Allgatherv."""
        with self._exchange():
            self._comm.Allgatherv(np.ascontiguousarray(mine), [out, counts])
        return out

    def swap(self, send: Array, counts: Sequence[int], out: Array, from_each: Sequence[int]) -> Array:
        """By MPI_Alltoallv."""
        with self._exchange():
            self._comm.Alltoallv([send, counts], [out, from_each])
        return out

    def agree(self, who: str, *what: Any) -> None:
        """Raise ValueError on every rank where they are not about to do the same."""
        self.compare(who, start.facts(*what))

    def compare(self, who: str, facts: dict[str, Any]) -> None:
        """Raise ValueError on every rank, for the first fact that is another on some of them."""
        start.require_same(self, who, facts)
