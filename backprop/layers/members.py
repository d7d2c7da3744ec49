"""Members: k networks trained as one, which share most of their weights and answer by their mean.

Each of D features has a value of its own in every member, row d k + m of h (D k, N) for feature d and member m. Seen as (D, k N),
the same memory holds the examples of all members side by side, so that one product with Ω serves them all. Layers that go entry
by entry, Dropout among them, need not know that there are members.
Source: Gorishniy, Kotelnikov and Babenko (2025), "TabM: advancing tabular deep learning with parameter-efficient ensembling".
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.functions import column, log_sigmoid, sigmoid
from backprop.initializers import HeNormal, Initializer
from backprop.layers.base import Gradients, Layer

MEANS = {
    "values": "(1/k) Σₘ h_m",
    "softmax": "log (1/k) Σₘ softmax(h_m)",
    "sigmoid": "log Σₘ σ(h_m) − log Σₘ σ(−h_m)",
}


class _Members(Layer):
    """A layer of k members with D_in and D_out features each, and with β (D_out k,)."""

    _for_good: ClassVar[tuple[str, ...]] = ("inputs", "outputs", "members")

    def _shape(self, inputs: int, outputs: int, members: int, initializer: Initializer | None) -> None:
        who = type(self).__name__
        self.inputs = checks.integer(who, "inputs", inputs)
        self.outputs = checks.integer(who, "outputs", outputs)
        self.members = checks.integer(who, "members", members)
        self.initializer = HeNormal() if initializer is None else initializer
        checks.instance(who, "initializer", self.initializer, Initializer)
        self.in_features, self.out_features = self.inputs * self.members, self.outputs * self.members
        self.parameters["beta"] = np.zeros(self.out_features, np.float32)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inputs} → {self.outputs}, members={self.members})"


class MembersLinear(_Members):
    """`Linear` for k members: one Ω for all, and for each of them β, a scale r of every input and a scale s of every output.

        f       = β + s ⊙ g, g = Ω z     (D_out k, N); z and g as (D, k N), so that Ω meets the columns of all members
        z       = r ⊙ h                  (D_in k, N); with first=True h is (D_in, N), the same for all members
        ∂L/∂h   = r ⊙ ∂L/∂z, ∂L/∂z = Ωᵀ (s ⊙ ∂L/∂f)     with first=True the sum over members
        ∂L/∂β   = Σₙ ∂L/∂f               (D_out k,)
        ∂L/∂Ω   = (s ⊙ ∂L/∂f) zᵀ         (D_out, D_in), the sum over examples and members
        ∂L/∂r   = Σₙ h ⊙ ∂L/∂z           (D_in k,)
        ∂L/∂s   = Σₙ g ⊙ ∂L/∂f           (D_out k,)

    The weights of a member are Ω times s rᵀ, entry by entry. Ω starts from `initializer` (default He normal), β from 0, r and s
    from 1; with first=True r starts from random signs, which set the members apart.

    Raises TypeError or ValueError for widths and numbers of members that are not whole numbers ≥ 1.
    Source: Wen, Tran and Ba (2020), "BatchEnsemble: an alternative approach to efficient ensemble and lifelong learning".

    >>> import numpy as np, backprop as bp
    >>> layer = bp.MembersLinear(1, 1, members=2, first=True)
    >>> layer.omega, layer.r = np.array([[3.0]]), np.array([1.0, 2.0])
    >>> layer.forward(np.array([10.0]))
    array([30., 60.])
    """

    _for_good: ClassVar[tuple[str, ...]] = (*_Members._for_good, "first")

    def __init__(
        self,
        inputs: int,
        outputs: int,
        members: int,
        *,
        first: bool = False,
        initializer: Initializer | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self._shape(inputs, outputs, members, initializer)
        self.first = checks.boolean("MembersLinear", "first", first)
        if self.first:
            self.in_features = self.inputs
        self.parameters["omega"] = np.empty((self.outputs, self.inputs), np.float32)
        self.parameters["r"] = np.empty(self.inputs * self.members, np.float32)
        self.parameters["s"] = np.empty(self.outputs * self.members, np.float32)
        self.initialize(checks.generator("MembersLinear", seed))

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw Ω anew, and r if it is that of the first layer; set β to 0, the other scales to 1."""
        self.omega[...] = self.initializer(self.omega.shape, generator)
        self.r[...] = generator.choice([-1, 1], self.r.shape) if self.first else 1
        self.s[...] = 1
        self.beta[...] = 0

    def forward(self, h: Array) -> Array:
        self.h = h.reshape(self.inputs, -1, h.shape[1])
        self.z, self.g = self.products(self.h)
        return column(self.beta) + column(self.s) * self.g

    def infer(self, h: Array) -> Array:
        _, g = self.products(h.reshape(self.inputs, -1, h.shape[1]))
        return column(self.beta) + column(self.s) * g

    def products(self, h: Array) -> tuple[Array, Array]:
        """Of h (D_in, k, N), or (D_in, 1, N) for all members: z (D_in, k N) and g (D_out k, N)."""
        z = (self.r.reshape(self.inputs, -1, 1) * h).reshape(self.inputs, -1)
        return z, (self.omega @ z).reshape(-1, h.shape[2])

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        N = dL_df.shape[1]
        dL_dg = (column(self.s) * dL_df).reshape(self.outputs, -1)
        dL_dz = (self.omega.T @ dL_dg).reshape(self.inputs, -1, N)
        dL_dh = self.r.reshape(self.inputs, -1, 1) * dL_dz
        dL_dh = dL_dh.sum(axis=1) if self.first else dL_dh.reshape(-1, N)
        dL_dbeta = dL_df.sum(axis=1)
        dL_domega = dL_dg @ self.z.T
        dL_dr = (self.h * dL_dz).reshape(-1, N).sum(axis=1)
        dL_ds = (self.g * dL_df).sum(axis=1)
        return dL_dh, {"beta": dL_dbeta, "omega": dL_domega, "r": dL_dr, "s": dL_ds}


class SeparateLinear(_Members):
    """A `Linear` for each of k members, with nothing shared: what their answers end in.

        f       = β + Ω_m h_m of each member m     (D_out k, N) of h (D_in k, N)
        ∂L/∂h   = Ω_mᵀ ∂L/∂f_m of each member m
        ∂L/∂β   = Σₙ ∂L/∂f                         (D_out k,)
        ∂L/∂Ω_m = ∂L/∂f_m h_mᵀ                     (D_out, D_in), parameters omega_0, omega_1, …

    Each Ω_m starts from `initializer` (default He normal), β from 0. Raises TypeError or ValueError for widths and numbers of
    members that are not whole numbers ≥ 1. Source: Gorishniy, Kotelnikov and Babenko (2025), "TabM".

    >>> import numpy as np, backprop as bp
    >>> layer = bp.SeparateLinear(1, 1, members=2)
    >>> layer.omega_0, layer.omega_1 = np.array([[3.0]]), np.array([[4.0]])
    >>> layer.forward(np.array([10.0, 100.0]))
    array([ 30., 400.])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        members: int,
        *,
        initializer: Initializer | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self._shape(inputs, outputs, members, initializer)
        for m in range(self.members):
            self.parameters[f"omega_{m}"] = np.empty((self.outputs, self.inputs), np.float32)
        self.initialize(checks.generator("SeparateLinear", seed))

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw each Ω_m anew and set β to 0."""
        for m in range(self.members):
            self.parameters[f"omega_{m}"][...] = self.initializer((self.outputs, self.inputs), generator)
        self.beta[...] = 0

    def forward(self, h: Array) -> Array:
        self.h = h.reshape(self.inputs, self.members, -1)
        return self.infer(h)

    def infer(self, h: Array) -> Array:
        h = h.reshape(self.inputs, self.members, -1)
        f = [self.parameters[f"omega_{m}"] @ h[:, m] for m in range(self.members)]
        return column(self.beta) + _together(f)

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        each = dL_df.reshape(self.outputs, self.members, -1)
        dL_dh, gradients = [], {"beta": dL_df.sum(axis=1)}
        for m in range(self.members):
            dL_dh.append(self.parameters[f"omega_{m}"].T @ each[:, m])
            gradients[f"omega_{m}"] = each[:, m] @ self.h[:, m].T
        return _together(dL_dh), gradients


class MembersMean(Layer):
    """The mean of k members' answers, in the form in which the loss and the world take it: what stands last when all is trained.

        f       = (1/k) Σₘ h_m                      of="values": (K, N) of h (K k, N)
                = log (1/k) Σₘ softmax(h_m)         of="softmax": softmax(f) is the mean of the probabilities
                = log Σₘ σ(h_m) − log Σₘ σ(−h_m)    of="sigmoid": σ(f) is the mean of the probabilities
        ∂L/∂h   = (∂f/∂h)ᵀ ∂L/∂f

    Raises ValueError for an `of` that is none of the three, and for an h whose rows k does not divide.
    Source: Gorishniy, Kotelnikov and Babenko (2025), "TabM".

    >>> import numpy as np, backprop as bp
    >>> bp.MembersMean(2).forward(np.array([1.0, 2.0, 10.0, 20.0]))
    array([ 1.5, 15. ])
    """

    _for_good: ClassVar[tuple[str, ...]] = ("members", "of")

    def __init__(self, members: int, *, of: str = "values") -> None:
        self.members = checks.integer("MembersMean", "members", members)
        self.of = checks.choice("MembersMean", "of", of, [*MEANS])
        vars(self)["equations"] = (f"f = {MEANS[self.of]}", type(self).equations[-1])

    def chain(self, width: int | None) -> int | None:
        """Rows of f, which are those of each member."""
        if width is not None and width % self.members:
            expected = f"a multiple of {self.members} input features, as many for each member"
            raise ValueError(checks.message(self.label, expected, f"{width} from the layer before it"))
        return None if width is None else width // self.members

    def forward(self, h: Array) -> Array:
        f, self.share, self.p = self.mean(h)
        return f

    def infer(self, h: Array) -> Array:
        return self.mean(h)[0]

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        dL_dh = self.share * dL_df[:, None]
        if self.of == "softmax":
            dL_dh = dL_dh - self.p * dL_dh.sum(axis=0)
        return dL_dh.reshape(-1, dL_df.shape[1]), {}

    def mean(self, h: Array) -> tuple[Array, Array, Array]:
        """f, what each member counts in it (K, k, N), and the probabilities of each."""
        h = h.reshape(self.chain(len(h)), self.members, -1)  # type: ignore[arg-type]
        if self.of == "values":
            share = np.full((1, self.members, 1), 1 / self.members, h.real.dtype)
            return (share * h).sum(axis=1), share, h
        if self.of == "softmax":
            z = h - h.real.max(axis=0)
            log_p = z - np.log(np.exp(z).sum(axis=0))
            f, share = _log_sum(log_p)
            return f - math.log(self.members), share, np.exp(log_p)
        yes, share_of_yes = _log_sum(log_sigmoid(h))
        no, share_of_no = _log_sum(log_sigmoid(-h))
        return yes - no, share_of_yes * sigmoid(-h) + share_of_no * sigmoid(h), h


def _log_sum(x: Array) -> tuple[Array, Array]:
    """Log Σₘ eˣ over the middle axis, and the share of each term in the sum; no exponent is > 0."""
    top = x.real.max(axis=1, keepdims=True)
    terms = np.exp(x - top)
    total = terms.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], terms / total


def _together(parts: list[Array]) -> Array:
    """Rows (D k, N) in their order, of one (D, N) for each of k members."""
    N = parts[0].shape[1]
    return np.concatenate([part[:, None] for part in parts], axis=1).reshape(-1, N)
