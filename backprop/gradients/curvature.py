"""Curvature: products of a vector with the Hessian of L and with its relatives, none of which is ever formed.

    H v   = ∂²L/∂φ² v                   Hessian
    G v   = Jᵀ (∂²L/∂f²) J v            Gauss–Newton, J = ∂f/∂φ: H without the curvature of the network itself
    F v   = Σ_n s_n E[g_n g_nᵀ] v       Fisher, g_n = ∂ℓ_n/∂φ for targets drawn from the model; empirical: for those at hand

    s_n = w_n / Σ w with reduction="mean", w_n with "sum": weight 2 is an example twice, so it counts once and not squared.

All three see the training pass: BatchNorm takes the statistics of these examples, Dropout has one mask, the same in each product.
At a kink, such as ReLU's, the curvature is that of the side the layer's slope is taken from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients.problem import Problem
from backprop.gradients.tangents import Products
from backprop.layers import Layer
from backprop.losses import BinaryCrossEntropy, CrossEntropy, GaussianNLL, LeastSquares, Loss, Poisson
from backprop.losses.base import slope, total

# Negative log-likelihoods whose ∂²ℓ/∂f² does not depend on y, so that its expectation is itself.
CANONICAL = (LeastSquares, CrossEntropy, BinaryCrossEntropy, Poisson)
DENSE = 32  # up to this many parameters the Hessian is formed: it costs less than an iteration
TOLERANCE = 1e-10  # relative, of an eigenvalue
NEAR = 1e-8  # relative to the largest: closer eigenvalues are one, of which another copy changes nothing


class Curvature:
    """L as a function of φ around the network's φ: value, gradient, and products with its second derivatives.

    Prepared once for many products. Rows X (N, D), targets y (N,) or (N, K); vectors v (P,) in the order of `net.phi`. `net` is
    copied; `at(phi)` moves the copy. `dtype` None computes in the type of the network, "float64" or "float32" in that one.

        (φ, v) → f, J v → L, ∂L/∂φ v → ∂L/∂φ, H v

    The list of the layers' operations is made longer by its tangents (see docs/learn/curvature.md): exact to rounding, at the
    cost of about one gradient, two at a new φ. Raises TypeError or ValueError for what does not fit, ValueError for a layer or
    a loss of one's own that does not take complex numbers, RuntimeError for a forward pass that is random and cannot be
    repeated. Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False), dtype="float64")
    >>> curvature = Curvature(net, bp.LeastSquares(), np.array([[3.0]]), np.array([1.0]))
    >>> curvature.hessian_product(np.array([1.0]))  # of (3ω − 1)²
    array([18.])
    """

    def __init__(self, net: Layer, loss: Loss, X: Any, y: Any, sample_weight: Any = None, *, dtype: Any = None) -> None:
        kind = None if dtype is None else checks.dtype("Curvature", dtype)
        self._prepare(Problem("Curvature", net, loss, X, y, sample_weight, dtype=kind).present())

    def _prepare(self, problem: Problem) -> None:
        if not problem.net.size:
            raise ValueError(checks.message(problem.who, "a network with parameters", "none"))
        if not np.array_equal(problem.forward(), problem.forward(), equal_nan=True):
            advice = "Draw from a generator that `reseed(*key)` sets."
            raise RuntimeError(checks.message(problem.who, "the same outputs twice", "two different ones", advice))
        self._problem, self._products = problem, Products(problem)
        self._f: Array | None = None  # of the real pass at this φ, whose caches serve any number of backward passes

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return self._problem.net.size

    def at(self, phi: Any) -> Self:
        """Move to other parameters φ (P,); returns itself. Raises TypeError or ValueError for a φ that does not fit."""
        phi = self._vector("at", "phi", phi)
        if not np.array_equal(phi, self._problem.net.phi):
            self._problem.net.phi[...] = phi
            self._f = None
            self._products.at_phi.clear()
        return self

    def value(self) -> float:
        """L."""
        problem = self._problem
        if self._f is None:
            self._f = problem.forward()
        return float(total(problem.loss, self._f, problem.y, problem.shares(self._f)))

    def gradient(self) -> Array:
        """∂L/∂φ (P,)."""
        self.value()
        _, gradients = self._problem.net.backward(slope(self._problem.loss))
        return gradients.dL_dphi

    def hessian_product(self, v: Any) -> Array:
        """H v (P,). Raises TypeError or ValueError for a v that is not P finite real numbers."""
        return self._products.product("hessian", self._vector("hessian_product", "v", v))

    def gauss_newton_product(self, v: Any) -> Array:
        """G v (P,). Positive semidefinite where ℓ is convex in f, which all losses here but GaussianNLL are."""
        return self._products.product("gauss_newton", self._vector("gauss_newton_product", "v", v))

    def fisher_product(self, v: Any, *, empirical: bool = False) -> Array:
        """F v (P,), positive semidefinite. `empirical` takes the targets at hand in place of those the model expects.

        The expectation is that of the likelihood whose negative logarithm ℓ is: for LeastSquares a normal one with variance ½.
        For all but GaussianNLL it is G v. Raises ValueError for a loss that is no such likelihood, unless `empirical`.
        """
        v = self._vector("fisher_product", "v", v)
        if checks.boolean("fisher_product", "empirical", empirical):
            return self._products.product("empirical_fisher", v)
        loss = self._problem.loss
        if type(loss) is GaussianNLL:
            return self._products.product("gaussian_fisher", v)
        if type(loss) in CANONICAL:
            return self._products.product("gauss_newton", v)
        names = ", ".join(kind.__name__ for kind in (*CANONICAL, GaussianNLL))
        advice = "Pass empirical=True, or use gauss_newton_product."
        raise ValueError(checks.message("fisher_product", f"a likelihood, one of {names}", loss.label, advice))

    def _vector(self, method: str, name: str, v: Any) -> Array:
        """A finite real vector (P,)."""
        who = f"Curvature.{method}"
        v = checks.numeric(who, name, v)
        if v.shape != (self.size,):
            raise ValueError(checks.message(who, f"{name} with shape ({self.size},), that of φ", f"shape {v.shape}"))
        if not checks.all_finite(v):
            at = int(np.argmin(np.isfinite(v)))
            raise ValueError(checks.message(who, f"finite values in {name}", f"{v[at]} at {at}"))
        return v

    def __repr__(self) -> str:
        return f"Curvature({self._problem.net.label}, {self._problem.loss.label}, {self._problem.n} examples)"


def hessian_product(net: Layer, loss: Loss, X: Any, y: Any, v: Any, sample_weight: Any = None) -> Array:
    """H v (P,) for one vector v (P,); see `Curvature`, which is prepared once for many.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False), bp.Exp(), dtype="float64")
    >>> net.phi[...] = 0
    >>> hessian_product(net, bp.LeastSquares(), np.ones((1, 1)), np.zeros(1), np.ones(1))  # of exp(2ω)
    array([4.])
    """
    return _curvature("hessian_product", net, loss, X, y, sample_weight).hessian_product(v)


def gauss_newton_product(net: Layer, loss: Loss, X: Any, y: Any, v: Any, sample_weight: Any = None) -> Array:
    """G v = Jᵀ (∂²L/∂f²) J v (P,) for one vector v (P,); see `Curvature`, which is prepared once for many.

    Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation 14.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False), bp.Exp(), dtype="float64")
    >>> net.phi[...] = 0
    >>> gauss_newton_product(net, bp.LeastSquares(), np.ones((1, 1)), np.zeros(1), np.ones(1))
    array([2.])
    """
    return _curvature("gauss_newton_product", net, loss, X, y, sample_weight).gauss_newton_product(v)


def fisher_product(
    net: Layer, loss: Loss, X: Any, y: Any, v: Any, sample_weight: Any = None, *, empirical: bool = False
) -> Array:
    """F v (P,) for one vector v (P,); see `Curvature.fisher_product`. It raises ValueError for a loss that is no likelihood.

    Sources: Amari (1998), "Natural gradient works efficiently in learning", Neural Computation 10; Kunstner, Balles and Hennig
    (2019), "Limitations of the empirical Fisher approximation for natural gradient descent", arXiv:1905.12558.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False), dtype="float64")
    >>> net.phi[...] = 0
    >>> fisher_product(net, bp.BinaryCrossEntropy(), np.full((1, 1), 2.0), np.ones(1), np.ones(1))  # p (1 − p) x²
    array([1.])
    """
    return _curvature("fisher_product", net, loss, X, y, sample_weight).fisher_product(v, empirical=empirical)


def hessian_eigenvalues(
    net: Layer, loss: Loss, X: Any, y: Any, k: int = 1, sample_weight: Any = None, *, seed: int = 0
) -> Array:
    """The k largest eigenvalues of H, the largest first, in float64 (k,). `seed` draws the vector that the iteration starts from.

    By the Lanczos method from Hessian-vector products alone; a few parameters, or nearly all eigenvalues: from H itself. Raises
    TypeError or ValueError for a k that is not 1 … P, ValueError where H is not finite, RuntimeError if the iteration does not
    converge.
    Source: Lehoucq, Sorensen and Yang (1998), "ARPACK users' guide".

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 1, bias=False))
    >>> hessian_eigenvalues(net, bp.LeastSquares(), np.diag([1.0, 3.0]), np.zeros(2), k=2)
    array([9., 1.])
    """
    return _largest("hessian_eigenvalues", net, loss, X, y, k, sample_weight, seed)


def learning_rate_ceiling(
    net: Layer, loss: Loss, X: Any, y: Any, sample_weight: Any = None, *, momentum: float = 0.0
) -> float:
    """2 (1 + μ) / λ, λ the largest eigenvalue of H: above it, gradient descent on the quadratic with this H diverges.

        along the eigenvector of λ    φ ← (1 − αλ) φ      shrinks for 0 < α < 2/λ, grows beyond; with momentum μ, 2 (1 + μ)/λ

    It speaks of all examples as one batch, of this φ, and of SGD without Nesterov's momentum. In training, λ tends to rise until
    2/λ has come down to the learning rate, the edge of stability. inf where no curvature is positive.
    Sources: LeCun, Simard and Pearlmutter (1993), "Automatic learning rate maximization by on-line estimation of the Hessian's
    eigenvectors"; Cohen, Kaur, Li, Kolter and Talwalkar (2021), "Gradient descent on neural networks typically occurs at the
    edge of stability", arXiv:2103.00065.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False))
    >>> learning_rate_ceiling(net, bp.LeastSquares(), np.full((1, 1), 2.0), np.zeros(1))  # L = 4ω²
    0.25
    """
    who = "learning_rate_ceiling"
    momentum = checks.number(who, "momentum", momentum, least=0, below=1)
    largest = float(_largest(who, net, loss, X, y, 1, sample_weight, 0)[0])
    return 2 * (1 + momentum) / largest if largest > 0 else math.inf


def _curvature(who: str, net: Layer, loss: Loss, X: Any, y: Any, sample_weight: Any, dtype: Any = None) -> Curvature:
    """A `Curvature` that speaks in the name of the function called."""
    made = Curvature.__new__(Curvature)
    made._prepare(Problem(who, net, loss, X, y, sample_weight, dtype=dtype).present())
    return made


def _largest(who: str, net: Layer, loss: Loss, X: Any, y: Any, k: int, sample_weight: Any, seed: int) -> Array:
    curvature = _curvature(who, net, loss, X, y, sample_weight, np.float64)
    P, k = curvature.size, checks.integer(who, "k", k)
    generator = checks.generator(who, seed)
    if k > P:
        raise ValueError(checks.message(who, f"k ≤ {P}, the number of parameters", f"{k}"))
    start = generator.standard_normal(P)
    along = curvature.hessian_product(start)
    if not checks.all_finite(along):
        raise ValueError(checks.message(who, "finite second derivatives", "inf or NaN", "L overflows at this φ."))
    if max(2 * k + 2, DENSE) >= P:
        H = np.array([curvature.hessian_product(column) for column in np.eye(P)])
        return np.linalg.eigvalsh((H + H.T) / 2)[::-1][:k]
    if not along.any():
        return np.zeros(k)  # H is 0, from which no iteration can start
    scale = float(np.linalg.norm(along) / np.linalg.norm(start))
    return scale * _lanczos(who, lambda v: curvature.hessian_product(v) / scale, P, k, generator)


def _lanczos(who: str, times_H: Callable[[Array], Array], P: int, k: int, generator: np.random.Generator) -> Array:
    """The k largest eigenvalues of an H of the size of 1, repeated ones as often as they occur.

    It runs on I + H: ARPACK looks for vectors in the range of what it is given, and 0 may be an eigenvalue of H. In the Krylov
    space of one vector there is one direction of each eigenvalue, so one run finds each once. Those found are moved below all
    others; what is then the largest belongs to them, until it is smaller than all.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    values, V = np.zeros(0), np.zeros((P, 0))

    def product(v: Array) -> Array:
        inside = V @ (V.T @ v.ravel())
        outside = v.ravel() - inside
        along = outside + times_H(outside)
        return along - V @ (V.T @ along) - 2 * np.abs(values).max(initial=1) * inside

    def largest(wanted: int) -> tuple[Array, Array]:
        H = LinearOperator((P, P), matvec=product, dtype=np.float64)
        try:
            return eigsh(H, wanted, which="LA", v0=generator.standard_normal(P), tol=TOLERANCE)
        except ArpackNoConvergence as error:
            got = f"{len(error.eigenvalues)} after {10 * P} iterations"
            raise RuntimeError(
                checks.message(who, f"{wanted} eigenvalues to converge", got, "Ask for fewer.")
            ) from None

    values, V = largest(k)
    while k > 1:
        found, vector = largest(1)
        if found[0] <= np.sort(values)[-k] + NEAR * np.abs(values).max():
            break
        values, V = np.append(values, found), np.linalg.qr(np.c_[V, vector])[0]
    return np.sort(values)[::-1][:k] - 1
