"""The loss of k members that are trained as one network."""

from __future__ import annotations

import copy
from typing import Self

import numpy as np

from backprop import checks, notation
from backprop.checks import Array
from backprop.losses.base import Loss


class PerMember(Loss):
    """The mean of the losses that k members have, each for itself, on the same targets.

        ℓ      = (1/k) Σₘ wₘ ℓ[f_m, y]            wₘ = 1, or with weighted=True what y says
        ∂ℓ/∂f  = (1/k) wₘ ∂ℓ/∂f[f_m, y]           in the rows of member m

    f is (K k, N), K outputs of each member as `MembersLinear` orders them, y what the loss takes for (K, N). With weighted=True y
    has k more rows, the weight ≥ 0 of each example for each member, so that members can leave out rows of their own. Sample
    weights count beside them. Metrics are those of the members' mean f.

    Raises TypeError for a loss of one's own that is not `traced`, ValueError for targets and weights that do not fit.
    Source: Gorishniy, Kotelnikov and Babenko (2025), "TabM".

    >>> import numpy as np, backprop as bp
    >>> loss = bp.PerMember(bp.LeastSquares(), members=2)
    >>> loss.forward(np.array([[1.0], [3.0]]), np.array([0.0])), loss.backward().T
    (5.0, array([[1., 3.]]))
    """

    def __init__(self, loss: Loss, members: int, *, weighted: bool = False) -> None:
        checks.instance("PerMember", "loss", loss, Loss)
        if not vars(type(loss)).get("traced"):
            advice = "Say traced = True in its class, if its passes always make the same calls."
            raise TypeError(checks.message("PerMember", "a loss that can be traced", repr(loss), advice))
        notation.settings(loss)
        self.loss = loss
        self.members = checks.integer("PerMember", "members", members)
        self._weighted = checks.boolean("PerMember", "weighted", weighted)

    @property
    def weighted(self) -> bool:
        """Whether y brings weights; for good, since y would mean something else."""
        return self._weighted

    @weighted.setter
    def weighted(self, weighted: bool) -> None:
        if weighted != self._weighted:
            advice = "Make a new loss."
            raise ValueError(checks.message(self, f"weighted {self._weighted} for good", repr(weighted), advice))

    @property
    def reduction(self) -> str:
        """That of the loss."""
        return self.loss.reduction

    @reduction.setter
    def reduction(self, reduction: str) -> None:
        self.loss.reduction = reduction

    @property
    def outputs_per_target(self) -> int:  # type: ignore[override]
        """Those of the loss, for each member."""
        return self.members * self.loss.outputs_per_target

    @property
    def takes_labels(self) -> bool:  # type: ignore[override]
        """Whether the loss does, and labels do not stand beside weights."""
        return self.loss.takes_labels and not self.weighted

    @property
    def measures(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the loss."""
        return self.loss.measures

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """What the loss takes for (K, N), and with weighted=True a row of weights for each member below it."""
        K, N = self._outputs(shape[0]), shape[1]
        if not self.weighted:
            return self.loss.targets(y, (K, N), single=single)
        y = checks.numeric(self, "y", y)
        y = y.reshape(-1, 1) if single and y.ndim == 1 else y
        if y.ndim != 2 or y.shape[1] != N or len(y) <= self.members:
            expected = f"y with {N} columns: targets, and below them {self.members} rows of weights"
            raise ValueError(checks.message(self, expected, f"shape {y.shape}"))
        checks.finite(self, "y", y.T)
        answers, w = y[: -self.members], y[-self.members :]
        checks.values_between(self, "weights in y", w, 0, np.inf)
        if self.loss.takes_labels and len(answers) == 1 < K:
            answers = np.eye(K)[:, self.loss.targets(answers[0], (K, N))]
        return np.concatenate([self.loss.targets(answers, (K, N)), w])

    def from_rows(self, who: str, y: object, K: int, N: int) -> Array:
        """Targets as rows, (N,) or (N, K), with weighted=True (N, K + k)."""
        each = self._outputs(K)
        if not self.weighted:
            return self.loss.from_rows(who, y, each, N)
        y = checks.numeric(who, "y", y)
        if y.ndim != 2 or len(y) != N:
            expected = f"y with {N} rows: targets, and beside them {self.members} weights"
            raise ValueError(checks.message(who, expected, f"shape {y.shape}"))
        return self.targets(y.T, (K, N))

    def _outputs(self, rows: int) -> int:
        """Outputs of each member."""
        if rows % self.members:
            expected = f"outputs a multiple of {self.members}, as many for each member"
            raise ValueError(checks.message(self, expected, f"{rows}"))
        return rows // self.members

    def ell(self, f: Array, y: Array) -> Array:
        k, N = self.members, f.shape[1]
        self.w: Array | None = y[-k:].astype(f.real.dtype) if self.weighted else None
        y = y[:-k] if self.weighted else y
        of_each = self.loss.ell(f.reshape(-1, k * N), np.concatenate([y] * k, axis=-1)).reshape(k, N)
        if self.w is not None:
            of_each = self.w * np.where(self.w > 0, of_each, 0)  # absent, even where its ℓ is inf
        return of_each.sum(axis=0) / k

    def dell_df(self) -> Array:
        slope = self.loss.dell_df() / self.members
        slope = slope.reshape(len(slope), self.members, -1)
        if self.w is not None:
            slope = self.w * np.where(self.w > 0, slope, 0)
        return slope.reshape(-1, slope.shape[2])

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Those of the loss, for the members' mean f."""
        mean = f.reshape(-1, self.members, f.shape[1]).mean(axis=1)
        return self.loss.metrics(mean, y[: -self.members] if self.weighted else y, w)

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), loss=copy.copy(self.loss))
        return twin
