"""Products that end where they are needed: C ← scale · A B + keep · C.

BLAS computes exactly this in one call, so an update Ω ← Ω − α ∂L/∂f hᵀ needs neither a gradient nor a second pass over Ω. SciPy
carries a BLAS with that interface. Three facts shape this file, each measured (docs/reference/performance.md):

- `scipy.linalg.blas` costs least per call but holds the interpreter lock; the same function called through its address in
  `scipy.linalg.cython_blas` costs half a microsecond more and lets other threads run. Small products take the first way.
- The product with a single column costs ten times less as a matrix-vector product.
- NumPy and SciPy each bring an OpenBLAS with threads of its own that get in each other's way, so the player uses SciPy's alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from backprop.checks import Array, message
from backprop.functions import load

Call = Callable[[float, float], object]

SMALL = 10**6  # multiplications of the largest product that OpenBLAS takes for a small one
LEAST_ROWS = 48
RELEASE_FLOPS = 2e6  # from about 20 µs of work on, a product gives other Python threads the interpreter


def product(A: Array, B: Array, C: Array, scale: float = 1.0, keep: float = 0.0) -> Array:
    """C (m, n) ← scale · A (m, k) B (k, n) + keep · C, in place; vectors stand for a row A or columns B and C.

    With keep 0 the old C is not read, so it may hold anything. Any strides, float32, float64 or complex.

    >>> import numpy as np
    >>> C = np.full((2, 2), 10.0)
    >>> product(np.eye(2), np.ones((2, 2)), C, scale=2.0, keep=1.0)
    array([[12., 12.],
           [12., 12.]])
    """
    if A.ndim == 1:
        prepare(A[None, :], B, C[None, :])(scale, keep)
    elif B.ndim == 1:
        prepare(A, B[:, None], C[:, None])(scale, keep)
    else:
        prepare(A, B, C)(scale, keep)
    return C


@dataclass(frozen=True, slots=True)
class Product:
    """A product as a function of (scale, keep), and as data: its matrices, and the pieces that it is computed in, each by one
    call of BLAS.

    A piece is (A, B, C), all three in the order in which BLAS gets them, x and y vectors for its gemv; without pieces, NumPy
    multiplies.
    """

    call: Call
    pieces: tuple[tuple[Array, Array, Array], ...] = ()
    matrices: tuple[Array, ...] = ()

    @property
    def flops(self) -> float:
        """Operations."""
        A, B, _ = self.matrices
        return 2.0 * A.size * B.shape[1]

    def __call__(self, scale: float, keep: float) -> object:
        """Compute it."""
        return self.call(scale, keep)


def prepare(A: Array, B: Array, C: Array) -> Product:
    """The product of these three matrices, to be computed many times."""
    return replace(_prepared(A, B, C), matrices=(A, B, C))


def _prepared(A: Array, B: Array, C: Array) -> Product:
    if A.ndim != 2 or B.ndim != 2 or C.shape != (A.shape[0], B.shape[1]) or A.shape[1] != B.shape[0]:
        got = f"{A.shape}, {B.shape} and {C.shape}"
        raise ValueError(message("product", "A (m, k), B (k, n) and C (m, n)", f"shapes {got}"))
    if not (A.dtype == B.dtype == C.dtype and _real(C) and A.size and B.size):
        return Product(partial(_by_numpy, A, B, C))
    if not C.flags.f_contiguous:
        A, B, C = B.T, A.T, C.T  # BLAS writes Fortran order, and Cᵀ = Bᵀ Aᵀ
    if 1 in C.shape and A.shape[1] > 1:
        return _vector(A, B[:, 0], C[:, 0]) if C.shape[1] == 1 else _vector(B.T, A[0], C[0])
    usable = C.flags.f_contiguous and C.flags.aligned and C.flags.writeable
    if not usable or _order(A) is None or _order(B) is None or not known_integers():
        return Product(partial(_by_numpy, A, B, C))
    pieces = _pieces(C.shape[0], C.shape[1], A.shape[1])
    if len(pieces) > 1 and A.flags.f_contiguous and not A.flags.c_contiguous:
        parts = tuple((A[piece], B, C[piece]) for piece in pieces)
        calls = [_by_address(*part) for part in parts]
        return Product(lambda scale, keep: [call(scale, keep) for call in calls], parts)
    if 2.0 * C.size * A.shape[1] >= RELEASE_FLOPS or not (_whole(A) and _whole(B)):
        return Product(_by_address(A, B, C), ((A, B, C),))
    gemm = load().sgemm if C.dtype.char == "f" else load().dgemm
    (a, trans_a), (b, trans_b) = _fortran(A), _fortran(B)
    return Product(lambda scale, keep: gemm(scale, a, b, keep, C, trans_a, trans_b, 1), ((A, B, C),))


def _pieces(m: int, n: int, k: int) -> list[slice]:
    """Stretches of the m rows, of at least LEAST_ROWS each, whose products OpenBLAS computes in its quick way for small ones."""
    count = -(-m * n * k // SMALL)
    if count < 2 or m < LEAST_ROWS * count:
        return [slice(0, m)]
    bounds = [m * i // count // 16 * 16 if i < count else m for i in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]


def axpy(a: float, x: Array, y: Array) -> None:
    """Update y ← a x + y in place, without an array on the way.

    >>> import numpy as np
    >>> y = np.ones(2)
    >>> axpy(2.0, np.array([1.0, 10.0]), y)
    >>> y
    array([ 3., 21.])
    """
    plain = x.flags.c_contiguous and y.flags.c_contiguous and y.flags.writeable and y.size and x.shape == y.shape
    if plain and x.dtype == y.dtype and _real(y):
        function = load().saxpy if y.dtype.char == "f" else load().daxpy
        function(x.reshape(-1), y.reshape(-1), a=a)
    else:
        np.add(y, a * x, out=y)


def _vector(A: Array, x: Array, y: Array) -> Product:
    """The product y ← scale · A x + keep · y: ten times faster than the matrix product with one column."""
    if not (_whole(A) and y.flags.c_contiguous and y.flags.writeable) or not all(v.flags.aligned for v in (A, x, y)):
        return Product(partial(_by_numpy, A, x, y))
    gemv = load().sgemv if y.dtype.char == "f" else load().dgemv
    a, trans = _fortran(A)
    # What f2py would copy, it copies for BLAS, too; so there is no piece of a vector with gaps.
    pieces = ((A, x, y),) if x.flags.c_contiguous and known_integers() else ()
    return Product(lambda scale, keep: gemv(scale, a, x, keep, y, 0, 1, 0, 1, trans, 1), pieces)


def _by_numpy(A: Array, B: Array, C: Array, scale: float, keep: float) -> None:
    AB = np.matmul(A, B)
    if scale != 1:
        AB *= scale
    if keep == 0:
        C[...] = AB
    else:
        C *= keep
        C += AB


def _real(A: Array) -> bool:
    """Whether BLAS knows this type: float32 or float64 in the machine's byte order."""
    return A.dtype.char in "fd" and A.dtype.isnative


def _whole(A: Array) -> bool:
    return A.flags.c_contiguous or A.flags.f_contiguous


def _fortran(A: Array) -> tuple[Array, int]:
    """A in Fortran order, and 1 if that is Aᵀ."""
    return (A, 0) if A.flags.f_contiguous else (A.T, 1)


def _order(A: Array) -> tuple[bytes, int] | None:
    """BLAS's name for A's order and its leading dimension; None if neither dimension is dense."""
    if not A.flags.aligned or any(stride % A.itemsize for stride in A.strides):
        return None
    if A.flags.f_contiguous:
        return b"N", max(A.shape[0], 1)
    if A.flags.c_contiguous:
        return b"T", max(A.shape[1], 1)
    rows, columns = (stride // A.itemsize for stride in A.strides)
    if rows == 1 and columns >= A.shape[0]:
        return b"N", columns
    if columns == 1 and rows >= A.shape[1]:
        return b"T", rows
    return None


def _by_address(A: Array, B: Array, C: Array) -> Call:
    """The product through BLAS's own address, which releases the interpreter lock. C is in Fortran order."""
    kind = C.dtype.char
    gemm, real = _address(kind + "gemm"), ctypes.c_float if kind == "f" else ctypes.c_double
    (trans_a, lda), (trans_b, ldb) = _order(A), _order(B)  # type: ignore[misc]
    alpha, beta = real(), real()
    ldc = C.strides[1] // C.itemsize if C.shape[1] > 1 else max(C.shape[0], 1)
    numbers = [ctypes.c_int(v) for v in (*C.shape, A.shape[1], lda, ldb, ldc)]
    m, n, k, a_lead, b_lead, c_lead = map(ctypes.addressof, numbers)
    letters = [ctypes.c_char(trans_a), ctypes.c_char(trans_b)]
    pointers = [ctypes.addressof(letter) for letter in letters]
    pointers += [m, n, k, ctypes.addressof(alpha), A.ctypes.data, a_lead, B.ctypes.data, b_lead]
    pointers += [ctypes.addressof(beta), C.ctypes.data, c_lead]
    arguments = [ctypes.c_void_p(pointer) for pointer in pointers]
    alive = (A, B, C, numbers, letters)  # what the addresses point at

    def call(scale: float, keep: float, _alive: Any = alive) -> None:
        alpha.value, beta.value = scale, keep
        gemm(*arguments)

    return call


@cache
def _address(name: str) -> Any:
    """BLAS's gemm as a C function of pointers."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(address(name))


@cache
def address(name: str) -> int:
    """Where a BLAS function of SciPy lies, "fgemm" or "dgemm". SciPy documents these capsules in `cython_blas`."""
    load()
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__["s" + name[1:] if name[0] == "f" else name]
    api = ctypes.pythonapi
    get_name, get_pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))


@cache
def known_integers() -> bool:
    """Whether this SciPy's BLAS takes 32-bit integers: one with 64 bits would read past ours, so NumPy multiplies instead."""
    from scipy.linalg import cython_blas

    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    signature = get_name(cython_blas.__pyx_capi__["dgemm"])
    return b"long" not in signature and b"int64" not in signature
