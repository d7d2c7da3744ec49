"""Many steps in one call, where the native player can play them: when, how many at a time, and whether it may.

The bits are those of NumPy's player, so which of the two plays a step is decided by time alone: NumPy plays the first ones, until
they have taken about as long as a program takes to make. One step is then played both ways and compared.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine import native
from backprop.engine.native.program import Played, Program, Steps
from backprop.engine.step import Batch
from backprop.engine.team import Rehearsal
from backprop.engine.threads import Pool

SECONDS = 0.02  # that a call may take: Ctrl-C, progress and callbacks wait for its end
MOST = 4096  # steps in a call
TRIAL = 4  # steps by which a number of threads is measured first
AGAIN = 32  # calls after which the slower number of threads is measured again
COST = 4e-5  # seconds that a program takes to make, for each of NumPy's calls

MOST_THREADS = 64  # that the player knows
MOST_BATCHES = 4  # whose programs are kept, as the engine keeps as many sizes

NO_PLAYER = "no native player: there was no C compiler where backprop was installed"

log = logging.getLogger("backprop")


def choice(who: str, value: object) -> bool | str:
    """The setting `native`: True, False or "auto"."""
    if isinstance(value, bool | np.bool_) or value == "auto":
        return value if isinstance(value, str) else bool(value)
    raise ValueError(checks.message(who, 'native True, False or "auto"', repr(value)))


def wanted(setting: bool | str) -> bool | str:
    """The setting, or where it is "auto" what BACKPROP_NATIVE in the environment says: 1, 0 or auto."""
    words: dict[str, bool | str] = {"auto": "auto", "": "auto", "1": True, "0": False}
    word = os.environ.get("BACKPROP_NATIVE", "auto")
    if setting != "auto":
        return setting
    if word not in words:
        raise ValueError(checks.message("BACKPROP_NATIVE", "auto, 0 or 1", repr(word)))
    return words[word]


@dataclass(eq=False)
class Chance:
    """What is known of one batch: its program, why it has none, how long its steps take."""

    programs: dict[int, Program] = field(default_factory=dict)  # by number of threads
    trusted: set[int] = field(default_factory=set)  # the programs of which a step was played both ways
    refused: str = ""
    spent: float = 0.0  # seconds of NumPy's steps until now
    calls: int = 0
    looks: int = 0  # at numbers of threads that were slower
    threads: int = 1  # that play the next call
    seconds: dict[int, float] = field(default_factory=dict)  # of a step, by number of threads

    def next_call(self, most: int) -> int:
        """Choose the threads of the next call, by what was measured; how many steps it may take.

        Threads wait for each other many times in a step: where others keep the cores busy, one alone can be ten times as quick.
        So now and then a number that was slower is tried again, in the first calls more often.
        """
        self.calls += 1
        numbers = [*(1 << i for i in range(most.bit_length()) if 1 << i < most), most]
        untried = [threads for threads in numbers if threads not in self.seconds]
        measured = {threads: self.seconds[threads] for threads in numbers if threads in self.seconds}
        best = min(measured, key=measured.__getitem__, default=1)  # of those that there is work for now
        others = [threads for threads in numbers if threads != best]
        early = (
            self.calls < AGAIN and self.calls & (self.calls - 1) == 0
        )  # where the first look may have been disturbed
        self.threads = untried[0] if untried else best
        if not untried and others and (early or self.calls % AGAIN == 0):
            self.looks += 1
            self.threads = others[self.looks % len(others)]
        if self.threads not in self.trusted:
            return 1
        if not measured:
            return TRIAL
        # What is tried takes long enough for its threads to have woken up; else it would look several times as slow as it is.
        seconds = SECONDS if self.threads == best else SECONDS / 4
        return max(1, min(MOST, int(seconds / measured.get(self.threads, measured[best]))))


class Native:
    """Who plays the next steps of a descent."""

    def __init__(self, who: str = "Trainer") -> None:
        self._who = who
        self._chances: OrderedDict[Batch, Chance] = OrderedDict()

    def __deepcopy__(self, memo: Any) -> Native:
        return Native(self._who)

    def steps(self, batch: Batch, setting: bool | str) -> int:
        """How many steps of this batch the next call may take; 0 where the next one is NumPy's.

        Raises RuntimeError where `native=True` asks for what cannot be.
        """
        setting = wanted(setting)
        if setting is False:
            return 0
        chance = self._chances.setdefault(batch, Chance())
        if len(self._chances) > MOST_BATCHES:
            self._chances.popitem(last=False)
        chance.refused = chance.refused or why_not(batch)
        if chance.refused:
            if setting is True:
                advice = 'Leave native="auto", which takes NumPy there.'
                raise RuntimeError(
                    checks.message(self._who, "steps that can be played natively", chance.refused, advice)
                )
            return 0
        if not batch.was_played() or (setting == "auto" and (batch.is_opaque or chance.spent < COST * batch.length)):
            return 0
        count = chance.next_call(batch.useful_threads)
        # Layers of one's own may take their time: Ctrl-C is looked at after each step.
        return 1 if batch.is_opaque else count

    def player(self, setting: bool | str) -> str:
        """Who has played the last steps: "native", or "numpy" and why."""
        refused = [chance.refused for chance in self._chances.values() if chance.refused]
        if any(chance.trusted for chance in self._chances.values()) and not refused:
            return "native"
        if wanted(setting) is False:
            reason = "native=False" if setting is False else "BACKPROP_NATIVE is 0"
        elif native.player is None:
            reason = NO_PLAYER
        else:
            reason = (refused or ["too few steps until now"])[0]
        return f"numpy ({reason})"

    def spent(self, batch: Batch, seconds: float) -> None:
        """NumPy has played a step of this batch."""
        if (chance := self._chances.get(batch)) is not None:
            chance.spent += seconds

    def play(
        self,
        batch: Batch,
        steps: Steps,
        by_numpy: Callable[[], float],
        kept: Callable[[], dict[str, Array]],
        pool: Pool | None,
    ) -> Played | None:
        """Play steps; returns what they came to. The first one of a program is compared with NumPy's, which it then is: None.

        `kept` tells φ, state and statistics.
        """
        chance = self._chances[batch]
        threads = chance.threads
        program = chance.programs.get(threads)
        if program is None or not program.is_current(steps):
            program = chance.programs[threads] = Program(batch, steps, threads)
            chance.trusted.discard(threads)
            if batch.is_opaque or batch.update.by_hand:  # what is one's own may count its calls: it is not played twice
                chance.trusted.add(threads)
        if threads not in chance.trusted:
            self._compare(batch, chance, steps, by_numpy, kept(), pool)
            return None
        start = time.perf_counter()
        played = program.play(steps, pool)
        if played.done:
            chance.seconds[threads] = (time.perf_counter() - start) / played.done
        return played

    def _compare(
        self,
        batch: Batch,
        chance: Chance,
        steps: Steps,
        by_numpy: Callable[[], float],
        kept: dict[str, Array],
        pool: Pool | None,
    ) -> None:
        """Play one step natively, put everything back, and play it by NumPy."""
        before, team = {name: array.copy() for name, array in kept.items()}, batch.team
        batch.team = rehearsal = Rehearsal(team)
        try:
            played = chance.programs[chance.threads].play(replace(steps, alphas=steps.alphas[:1]), pool)
            if played.error is not None:
                raise played.error
            after = {name: array.copy() for name, array in kept.items()}
            for name, array in kept.items():
                np.copyto(array, before[name])
            rehearsal.repeat()
            L = by_numpy()
        finally:
            batch.team = team
        alike = all(array.tobytes() == after[name].tobytes() for name, array in kept.items()) and not rehearsal.differs
        if played.losses == [L] and alike:
            chance.trusted.add(chance.threads)
        else:
            chance.refused = "its bits differ from NumPy's"
            log.warning("backprop: NumPy plays this network, not the native player: %s", chance.refused)


def why_not(batch: Batch) -> str:
    """Why no program can be made for a batch; "" where it can."""
    if native.player is None:
        return NO_PLAYER
    if max(batch.threads, batch.cores) > MOST_THREADS:
        return f"more than {MOST_THREADS} threads"
    return ""
