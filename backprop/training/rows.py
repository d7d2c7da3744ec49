"""Examples of rows from disk: what `ParquetRows` is to the trainer, and the pool of what is in memory of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine.team import ALONE, Team
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.training.data import Examples, require_targets, sha256
from backprop.training.streams import PLACES, Order

MOST_ROWS = 1 << 17  # in all windows: what is in memory is the same for 10⁶ rows and for 10⁷
STRETCH = 1 << 13  # rows of which the next batches are made without looking at windows
SAMPLE = 2048  # rows kept for a look at them


@runtime_checkable
class Source(Protocol):
    """Rows that are read from row groups, with a shape, a dtype and slices, too, for what is no training."""

    shape: tuple[int, int]
    dtype: Any
    starts: Array  # of the row groups, and N
    target: str | None
    feature_names: list[str]
    piece_bytes: int  # what windows may hold

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, slice | None, Array]]:
        """Rows as they are decoded: their first, the place of their features (None: of the target), and the numbers."""

    def fingerprint(self) -> dict[str, Any]:
        """What makes these rows these, without reading them."""

    def in_order(self) -> str:
        """What says that the rows are not in a random order."""

    def require_digits(self, who: str, dtype: Any) -> None:
        """Refuse numbers that would not be told apart in this dtype."""


class Streamed(Examples):
    """Examples of rows from disk. X, y and w hold the rows of the windows that are being read: `order` gives places in them.

    y and weights that were handed in are arrays of N, as elsewhere; the target of the rows themselves is read with them. A row
    that cannot be used is found when it is read, and named. A rank of a team reads the streams of its shards.
    """

    by_shards = True

    def __init__(
        self,
        who: str,
        net: Sequential,
        loss: Loss,
        X: Source,
        y: object,
        sample_weight: object,
        shards: int | str,
        team: Team = ALONE,
    ) -> None:
        self.who, self.net, self.loss, self.source = who, net, loss, X
        checks.rows(who, X, net.in_features)
        require_targets(who, X, y)
        self.n, self.dtype = X.shape[0], net.phi.dtype
        self.S = 1 if isinstance(shards, str) else shards
        self.mine = team.shards(self.S)[team.rank]
        X.require_digits(who, self.dtype)
        self.K = net.out_features or len(net.infer(np.zeros((X.shape[1], 1), self.dtype)))
        self.given = None if y is None else self._targets(who, y, self.n)
        self.given_w = None if sample_weight is None else checks.weights(who, sample_weight, self.n).astype(np.float64)
        first = self._first_target() if self.given is None else self.given[:1]
        self.X, self.y, self._first = np.empty((0, X.shape[1]), self.dtype), first[:0], first[0]
        self.w = None if self.given_w is None else self.given_w[:0]
        self.ids = np.empty(0, np.int64)
        self._order: Order | None = None
        self._sample: tuple[Array, Array, Array | None, Array] | None = None
        self._whole: Examples | None = None
        self._fingerprint = {}

    def order(self, seed: int, epoch: int, batch_size: int = 1, in_order: bool = False) -> Any:
        """The rows of one epoch as places, by (seed, epoch) alone; see `streams`."""
        key = (0, 0) if in_order else (seed, epoch)
        before = self._order
        if before is None or (before.key, before.batch_size, before.in_order) != (key, batch_size, in_order):
            if before is not None:
                before.close()
            self._order = Order(self, key, batch_size, self.S, self._most(), in_order, self.mine)
        return self._order

    def weights(self, order: Any) -> Array | None:
        """The weights of all rows, if there are any, in the order of the file."""
        return self.given_w

    def stretch(self, batch_size: int) -> int:
        """Whole batches; their rows are in memory beside those of windows."""
        return batch_size * max(1, STRETCH // batch_size)

    def ahead(self, seed: int, epoch: int, batch_size: int, in_order: bool) -> None:
        """Read the first windows, and keep a sample of them."""
        order = self.order(seed, epoch, batch_size, in_order)
        order[: self.stretch(batch_size)]
        some = evenly(order.there(), SAMPLE)
        self._sample = self.X[some], self.y[some], None if self.w is None else self.w[some], self.ids[some]

    def some(self, most: int) -> tuple[Array, Array, Array | None]:
        """X (m, D), y and weights of rows of the first windows."""
        X, y, w, _ = self._seen()
        rows = evenly(np.arange(len(X)), most)
        return X[rows], y[rows], None if w is None else w[rows]

    def answers(self) -> Array:
        """The targets of the first windows."""
        return self._seen()[1]

    def disorder(self) -> str:
        """What says that the rows lie in some order, which windows do not undo; or nothing."""
        if self._sample is None:
            return ""
        found = self.source.in_order() or drift(self._named_columns(), self._sample[3])
        return found and f"{found}. Rows are shuffled in windows of at most {self._most():,}, read at {PLACES} places"

    def whole(self) -> Examples:
        """The same with y in memory, for measures of all examples."""
        if self._whole is None:
            self._whole = Examples(self.who, self.net, self.loss, self.source, self.given, self.given_w)
        return self._whole

    def fingerprint(self) -> dict[str, Any]:
        """What makes these examples these: names and footers, and how they are read. X is not."""
        if not self._fingerprint:
            found = self.source.fingerprint()
            found["way to read X"] = f"in windows of {self._most()} rows from {PLACES} places, for {self.S} shards"
            given = {"SHA-256 of y": self.given, "SHA-256 of sample_weight": self.given_w}
            self._fingerprint = found | {k: "none" if v is None else sha256(v, self.n) for k, v in given.items()}
        return self._fingerprint

    def predictions(self, net: Sequential, team: Team = ALONE) -> Array:
        """Outputs (K, N), in the order of the file."""
        return self.whole().predictions(net, team)

    def present(self, rows: Array, net: Sequential) -> Array:
        """The same, with a row of zeros for those of weight 0: another one may not be here."""
        if self.w is None or net.couples_examples:
            return rows
        return np.where(self.w[rows] > 0, rows, len(self.X) - 1)

    # What an order needs of a pool.

    def room(self, places: int) -> None:
        """Have so many places, and behind them one of zeros, with the first target."""
        if len(self.X) <= places:
            self.X, self.y = (
                np.empty((places + 1, *self.X.shape[1:]), self.dtype),
                np.empty((places + 1, *self.y.shape[1:]), self.y.dtype),
            )
            self.ids = np.empty(places + 1, np.int64)
            self.w = None if self.w is None else np.empty(places + 1)
            self.X[-1], self.y[-1] = 0, self._first

    def move(self, start: int, stop: int, to: int) -> None:
        """Copy rows from places to others before them."""
        for array in (self.X, self.y, self.ids, *([] if self.w is None else [self.w])):
            array[to : to + stop - start] = array[start:stop]

    def name(self, places: Array, first_row: int) -> None:
        """Rows, which begin with this one, belong to places."""
        self.ids[places] = np.arange(first_row, first_row + len(places))

    def put(self, places: Array, first_row: int, X: Array, y: Array | None) -> None:
        """Write rows, which begin with this one, to places."""
        with np.errstate(over="ignore"):
            self.X[places] = X
        if y is not None:
            self.y[places] = self._checked(y, first_row)

    def loaded(self, places: slice, read: bool) -> None:
        """Look at a window, if it was read, and fill in what was handed in."""
        if read and not checks.all_finite(self.X[places]):
            place, column = np.argwhere(~np.isfinite(self.X[places]))[0]
            name, row = self.source.feature_names[column], self.ids[places][place]
            advice = f"It is too large for {self.dtype}: scale it, or use dtype='float64'."
            expected = f"finite values in column {name!r}"
            raise ValueError(checks.message(self.who, expected, f"one that is not at row {row:,}", advice))
        if self.given is not None:
            self.y[places] = self.given[self.ids[places]]
        if self.w is not None and self.given_w is not None:
            self.w[places] = self.given_w[self.ids[places]]

    def _most(self) -> int:
        """Rows in all windows."""
        return max(1, min(MOST_ROWS, self.source.piece_bytes // (self.X.shape[1] * self.dtype.itemsize)))

    def _targets(self, who: str, y: object, n: int) -> Array:
        """Targets in rows, checked, in the type that the loss takes."""
        columns = self.loss.from_rows(who, y, self.K, n)
        checks.finite(who, "y", columns.T, dtype=self.dtype)
        return np.ascontiguousarray(columns.T, self.dtype if columns.dtype.kind == "f" else None)

    def _checked(self, y: Array, first_row: int) -> Array:
        """The same of some rows; where one does not fit, an error that names it."""
        try:
            return self._targets(self.who, y, len(y))
        except ValueError:
            low, high = 0, len(y)  # between them is the first that does not fit
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if self._misfit(y[low:middle], first_row + low) else (middle, high)
            named = self._misfit(y[low:high], first_row + low)
            if named is None:
                raise
            raise named from None

    def _misfit(self, y: Array, row: int) -> ValueError | None:
        """The error of targets, the first of which is that of this row."""
        try:
            self._targets(self.who, y, len(y))
        except ValueError as error:
            text = str(error).replace(" at row 0", "").replace(" for example 0", "")
            return ValueError(f"{self.who}, {self.source.target!r} of row {row:,}: {text}")
        return None

    def _first_target(self) -> Array:
        """That of row 0, for its shape and type."""
        blocks = self.source.blocks(0, 1)
        return next(self._checked(block, row) for row, columns, block in blocks if columns is None)

    def _seen(self) -> tuple[Array, Array, Array | None, Array]:
        return self._sample or (self.X[:0], self.y[:0], None if self.w is None else self.w[:0], self.ids[:0])

    def _named_columns(self) -> dict[str, Array]:
        X, y, _, _ = self._seen()
        answers = y.reshape(len(y), -1)
        of_y = {
            f"y {k}" if answers.shape[1] > 1 else self.source.target or "y": each for k, each in enumerate(answers.T)
        }
        return of_y | {name: X[:, j] for j, name in enumerate(self.source.feature_names) if name not in of_y}


def evenly(places: Array, most: int) -> Array:
    """At most so many of them, evenly spread."""
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)]


def drift(columns: dict[str, Array], ids: Array) -> str:
    """What says that a column differs from stretch to stretch of the file by more than chance, or nothing.

    F = (variance of the means of 8 stretches, times their size) / (variance within them): about 1 for rows in a random order.
    """
    from scipy.special import fdtrc

    stretches = np.array_split(np.argsort(ids, kind="stable"), 8)
    m, k = len(ids), len(stretches)
    if m < 32 * k:
        return ""
    for name, x in columns.items():
        x = x.astype(np.float64)
        means = np.array([x[rows].mean() for rows in stretches])
        n = np.array([len(rows) for rows in stretches])
        between = (n * (means - x.mean()) ** 2).sum() / (k - 1)
        within = sum(((x[rows] - mean) ** 2).sum() for rows, mean in zip(stretches, means, strict=True)) / (m - k)
        chance = fdtrc(k - 1, m - k, between / within) if within else float(between == 0)
        if chance * len(columns) < 1e-9:
            low, high = int(means.argmin()), int(means.argmax())
            a, b = (int(ids[stretches[each]].min()) for each in (low, high))
            ends = f"{means[low]:.3g} in the mean of some rows from row {a:,} on and {means[high]:.3g} from row"
            return f"{name!r} is {ends} {b:,} on"
    return ""
