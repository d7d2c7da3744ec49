"""The team: the processes that train one network together, each with its own shards. One process is the team of one.

    losses    those of all shards, and who wants to stop: every rank knows L before anything changes
    add       the vectors of all ranks, in the order of the tree over all shards: each rank adds a part of φ for all of them

Both are made of two exchanges of arrays, `gather` and `swap`; a team of one makes none.
`backprop.distributed` has teams of ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine.shards import Joins, Node, joined, part, tree
from backprop.layers import Layer

IN_A_STEP, BETWEEN = 2.0, 4  # added to a wish to stop: a rank that has come elsewhere would say another number


class Team:
    """A team of one: what a single process does."""

    rank, size = 0, 1
    signals: tuple[int, ...] = ()  # that end training after the step at hand, beside Ctrl-C
    presses: Sequence[int] = ()  # signals that this rank of several has got

    def __deepcopy__(self, memo: Any) -> Team:
        return self

    def listen(self, presses: Sequence[int]) -> None:
        """Training begins, in which these are the signals that come, as they come."""

    def stops(self, presses: Sequence[int]) -> bool:
        """Whether training ends after this step: the same on all ranks."""
        return bool(presses)

    def meet(self, presses: Sequence[int], net: Layer) -> bool:
        """Between two steps: whether any rank wants to stop. φ and running statistics are the same on all of them."""
        return bool(presses)

    def shards(self, S: int) -> tuple[range, ...]:
        """The shards of each rank, or the like."""
        return tuple(part(range(S), rank, self.size) for rank in range(self.size))

    def agree(self, who: str, *what: Any) -> None:
        """Refuse to begin where not all ranks are about to do the same."""

    def compare(self, who: str, facts: dict[str, Any]) -> None:
        """Refuse facts that are others on some ranks."""

    def all_texts(self, text: str) -> list[str]:
        """A text of each rank."""
        return [text]

    def losses(self, losses: Array, of_rank: Sequence[range]) -> None:
        """Fill in the losses (S,) of the other ranks' shards."""

    def all_rows(self, mine: Array, of_rank: Sequence[range]) -> Array:
        """Rows (n, K) of which each rank has some (m, K)."""
        return mine

    def add(self, nodes: Mapping[Node, Array], of_rank: tuple[range, ...], total: Array) -> None:
        """Add what all ranks have of the tree over their shards; `total` (P,) gets the sum on each of them."""


class Ranks(Team):
    """What a team of several does, in terms of two exchanges that are yet to be said."""

    agreed = False

    def __init__(self) -> None:
        self._rooms: dict[str, Array] = {}

    def __reduce__(self) -> Any:
        advice = "A search that hands a team to its fits runs them here: n_jobs=1, on all ranks alike."
        raise TypeError(checks.message("team", "to stay in its process", "pickle", advice))

    def gather(self, mine: Array, counts: Sequence[int], out: Array) -> Array:
        """`out`: the arrays of all ranks, one after another, of these lengths."""
        raise NotImplementedError

    def swap(self, send: Array, counts: Sequence[int], out: Array, from_each: Sequence[int]) -> Array:
        """`out`: what each rank has sent to this one, so much of each; `send` has so much for each."""
        raise NotImplementedError

    def listen(self, presses: Sequence[int]) -> None:
        """What was agreed before is done."""
        self.presses, self.agreed = presses, False

    def stops(self, presses: Sequence[int]) -> bool:
        """As it was agreed in the last step."""
        return self.agreed

    def meet(self, presses: Sequence[int], net: Layer) -> bool:
        """Ask all ranks. Raises ValueError on each of them where the sums of their bits differ."""
        of_bits = [(array, f"u{array.itemsize}") for array in (net.phi, *net.buffers.values())]
        mine = np.array(
            [sum(int(a.view(u).sum(dtype=u)) for a, u in of_bits) % (1 << 63), BETWEEN + bool(self.presses)]
        )
        sums, wishes = self.gather(mine, [2] * self.size, np.empty(2 * self.size, int)).reshape(-1, 2).T
        require_one_place(np.isin(wishes - BETWEEN, [0, 1]).all())
        self.agreed = bool((wishes > BETWEEN).any())
        _, odd, ranks = differing(sums.tolist())
        if odd:
            advice = "Callbacks, after_step, schedules and constraints of your own do the same on every rank, or change nothing."
            raise ValueError(checks.message("Trainer", "the same weights on all ranks", f"others on {ranks}", advice))
        return self.agreed

    def losses(self, losses: Array, of_rank: Sequence[range]) -> None:
        """One exchange: the losses of a rank's shards, and its wish to stop."""
        counts = [len(shards) + 1 for shards in of_rank]
        mine = of_rank[self.rank]
        sent = np.append(losses[mine.start : mine.stop], IN_A_STEP + bool(self.presses))
        found = self.gather(sent, counts, np.empty(sum(counts)))
        wishes = np.cumsum(counts) - 1
        require_one_place(np.isin(found[wishes] - IN_A_STEP, [0, 1]).all())
        self.agreed = bool((found[wishes] > IN_A_STEP).any())
        losses[:] = np.delete(found, wishes)

    def all_rows(self, mine: Array, of_rank: Sequence[range]) -> Array:
        """The rows of all ranks, in order."""
        K, rows = mine.shape[1], [len(each) for each in of_rank]
        return self.gather(mine, [n * K for n in rows], np.empty((sum(rows), K), mine.dtype))

    def all_texts(self, text: str) -> list[str]:
        """Their lengths first, then the bytes."""
        mine = np.frombuffer(text.encode(), np.uint8)
        lengths = self.all_rows(np.array([[len(mine)]]), self.shards(self.size))[:, 0].tolist()
        found = self.gather(mine, lengths, np.empty(sum(lengths), np.uint8)).tobytes()
        return [found[end - n : end].decode() for n, end in zip(lengths, accumulate(lengths), strict=True)]

    def add(self, nodes: Mapping[Node, Array], of_rank: tuple[range, ...], total: Array) -> None:
        """Each rank gets its piece of φ of all nodes, adds them up, and hands the sum to the others."""
        P, rank = total.size, self.rank
        cuts = [P * r // self.size for r in range(self.size + 1)]
        widths = np.diff(cuts).tolist()
        theirs, joins, last = _nodes(of_rank)
        mine = theirs[rank]
        send = nodes[mine[0]] if len(mine) == 1 else self._room("send", P * len(mine), total.dtype)
        for start, end in pairwise(cuts) if len(mine) > 1 else ():
            for i, node in enumerate(mine):
                at = len(mine) * start + i * (end - start)
                send[at : at + end - start] = nodes[node][start:end]
        counts, from_each = [len(mine) * width for width in widths], [len(each) * widths[rank] for each in theirs]
        received = self.swap(send, counts, self._room("receive", sum(from_each), total.dtype), from_each)
        rows = received.reshape(sum(map(len, theirs)), widths[rank])
        for level in joins:
            for left, right in level:
                np.add(rows[left], rows[right], out=rows[left])
        self.gather(rows[last], widths, total)

    def _room(self, name: str, size: int, dtype: Any) -> Array:
        """An array that is kept: new pages for each step would cost more than the sum."""
        if name not in self._rooms or (self._rooms[name].size, self._rooms[name].dtype) != (size, dtype):
            self._rooms[name] = np.empty(size, dtype)
        return self._rooms[name]


@cache
def _nodes(of_rank: tuple[range, ...]) -> tuple[list[list[Node]], Joins[int], int]:
    """The nodes that each rank hands on, how all of them are added, by their number, and which is then the sum."""
    S = sum(map(len, of_rank))
    nodes = [sorted(tree(S, 1, shards).nodes) for shards in of_rank]
    joins, last = joined({node: i for i, node in enumerate(node for each in nodes for node in each)}, S)
    return nodes, joins, next(iter(last.values()))


def require_one_place(yes: Any) -> None:
    """Raise RuntimeError where another rank has come to another place of the program."""
    if not yes:
        advice = "What one rank alone leaves early, or an error that it alone catches, has to end its program."
        raise RuntimeError(checks.message("team", "all ranks at the same place of one training", "others", advice))


def differing(values: Sequence[Any]) -> tuple[Any, list[int], str]:
    """Of what the ranks have: what most of them have, who has another, and these in words."""
    usual = Counter(values).most_common(1)[0][0]
    odd = [rank for rank, value in enumerate(values) if value != usual]
    return usual, odd, f"rank{'s' * (len(odd) > 1)} {', '.join(map(str, odd[:8]))}{' …' * (len(odd) > 8)}"


class Enough(Exception):
    """Raised where steps that are played in one call end, because the team stops after the last one."""


class Rehearsal(Ranks):
    """A step played twice: the second time it hears what the team said in the first; `differs` if it says other things itself."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team: Any = team
        self.rank, self.size, self.presses = team.rank, team.size, tuple(team.presses)
        self.said: list[tuple[bytes, Array]] = []
        self.again, self.differs = False, False

    def gather(self, mine: Array, counts: Sequence[int], out: Array) -> Array:
        """As the team did."""
        return self._heard(mine, out, lambda: self.team.gather(mine, counts, out))

    def swap(self, send: Array, counts: Sequence[int], out: Array, from_each: Sequence[int]) -> Array:
        """As the team did."""
        return self._heard(send, out, lambda: self.team.swap(send, counts, out, from_each))

    def repeat(self) -> None:
        """From here on it is the second time."""
        self.again, self.agreed = True, False

    def losses(self, losses: Array, of_rank: Sequence[range]) -> None:
        """The team hears of a wish to stop, too."""
        super().losses(losses, of_rank)
        self.team.agreed = self.agreed

    def _heard(self, mine: Array, out: Array, exchange: Any) -> Array:
        if not self.again:
            self.said.append((mine.tobytes(), exchange().copy()))
            return out
        said, heard = self.said.pop(0)
        self.differs |= said != mine.tobytes()
        np.copyto(out, heard.reshape(out.shape))
        return out


ALONE = Team()
