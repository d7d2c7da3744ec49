"""In-place products against NumPy: every shape, order and stride, both ways into BLAS, from any thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from backprop.engine import blas
from backprop.engine.blas import axpy, prepare, product
from backprop.functions import all_finite, load, norm

TOLERANCE = {"f": 2e-5, "d": 1e-13, "D": 1e-13, "F": 2e-5}

# How a matrix may lie in memory; each takes (m, n, dtype) and returns an array that is not filled.
ORDERS = {
    "C": lambda m, n, t: np.empty((m, n), t),
    "Fortran": lambda m, n, t: np.empty((m, n), t, order="F"),
    "some columns": lambda m, n, t: np.empty((m, n + 3), t)[:, 1 : n + 1],
    "some rows of Fortran": lambda m, n, t: np.empty((m + 2, n), t, order="F")[1 : m + 1],
    "every other row": lambda m, n, t: np.empty((2 * m, n), t)[::2],
    "every other column": lambda m, n, t: np.empty((m, 2 * n), t)[:, ::2],
    "every other of both": lambda m, n, t: np.empty((3 * m, 2 * n), t)[::3, ::2],
    "rows backwards": lambda m, n, t: np.empty((m, n), t)[::-1],
    "columns backwards": lambda m, n, t: np.empty((m, n), t)[:, ::-1],
    "backwards, Fortran": lambda m, n, t: np.empty((m, n), t, order="F")[::-1, ::-1],
    "transposed slice": lambda m, n, t: np.empty((n, 2 * m), t)[:, :m].T,
    "unaligned": lambda m, n, t: np.empty(1, [("gap", "i1"), ("x", t, (m, n))])["x"][0],
    "unaligned rows": lambda m, n, t: np.empty(m, [("gap", "i1"), ("x", t, (n,))])["x"],
    "out of a cube": lambda m, n, t: np.empty((m, 2, n), t)[:, 1],
    "the other way out of a cube": lambda m, n, t: np.empty((2, n, m), t)[1].T,
}
orders = st.sampled_from(list(ORDERS))
sizes = st.integers(1, 7)
numbers = st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.01, 3.0])
dtypes = st.sampled_from(["f", "d", "D"])


def filled(order, m, n, dtype, generator):
    """A matrix of random numbers in this order."""
    matrix = ORDERS[order](m, n, dtype)
    matrix[...] = generator.standard_normal((m, n))
    if dtype == "D":
        matrix += 1j * generator.standard_normal((m, n))
    return matrix


@pytest.fixture(params=[0.0, np.inf], ids=["by address", "by scipy"])
def way(request, monkeypatch):
    """Both ways into BLAS, whatever the size of the product."""
    monkeypatch.setattr(blas, "RELEASE_FLOPS", request.param)


def assert_product(A, B, C, scale, keep):
    tolerance = TOLERANCE[C.dtype.char]
    expected = scale * (A @ B) + (keep * C if keep else 0)
    around = C.base.copy() if isinstance(C.base, np.ndarray) and C.base.dtype == C.dtype else None
    if keep == 0:
        C[...] = np.nan  # must not be read
    before = A.copy(), B.copy()
    assert product(A, B, C, scale, keep) is C
    assert_allclose(C, expected, rtol=tolerance, atol=10 * tolerance)
    assert_array_equal(A, before[0])
    assert_array_equal(B, before[1])
    if around is not None:  # nothing beside C was written
        C[...] = 0
        base = C.base.copy()
        C[...] = 1
        untouched = base == C.base
        assert_array_equal(C.base[untouched], around[untouched])


@pytest.mark.usefixtures("way")
class TestProduct:
    @given(m=sizes, k=sizes, n=sizes, a=orders, b=orders, c=orders, dtype=dtypes, scale=numbers, keep=numbers)
    def test_every_order(self, m, k, n, a, b, c, dtype, scale, keep):
        generator = np.random.default_rng([m, k, n])
        A, B = filled(a, m, k, dtype, generator), filled(b, k, n, dtype, generator)
        assert_product(A, B, filled(c, m, n, dtype, generator), scale, keep)

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("place", ["A", "B", "C"])
    @pytest.mark.parametrize("dtype", ["f", "d"])
    def test_each_order_in_each_place(self, order, place, dtype):
        generator = np.random.default_rng(0)
        shapes = {"A": (4, 5), "B": (5, 3), "C": (4, 3)}
        A, B, C = (filled(order if p == place else "C", *shapes[p], dtype, generator) for p in "ABC")
        assert_product(A, B, C, -0.5, 1.0)

    @given(k=sizes, order=orders, other=orders, dtype=dtypes, scale=numbers, keep=numbers, data=st.data())
    def test_sides_of_one(self, k, order, other, dtype, scale, keep, data):
        m, n = data.draw(st.sampled_from([(1, 1), (1, 6), (6, 1)]))
        generator = np.random.default_rng(k)
        A, B = filled(order, m, k, dtype, generator), filled(other, k, n, dtype, generator)
        assert_product(A, B, filled("C", m, n, dtype, generator), scale, keep)
        outer = filled(order, 5, 1, dtype, generator), filled(other, 1, 4, dtype, generator)
        assert_product(*outer, filled("C", 5, 4, dtype, generator), scale, keep)

    def test_broadcast_matrices(self):
        generator = np.random.default_rng(0)
        for dtype in "fd":
            row, column = generator.standard_normal((1, 5)), generator.standard_normal((4, 1))
            A = np.broadcast_to(row.astype(dtype), (4, 5))
            assert_product(A, filled("C", 5, 3, dtype, generator), filled("C", 4, 3, dtype, generator), 1.0, 1.0)
            A = np.broadcast_to(column.astype(dtype), (4, 5))
            assert_product(A, filled("C", 5, 3, dtype, generator), filled("C", 4, 3, dtype, generator), 1.0, 0.5)

    @pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0)], ids=str)
    def test_sides_of_zero(self, shape):
        m, k, n = shape
        C = np.ones((m, n))
        product(np.ones((m, k)), np.ones((k, n)), C, 2.0, 0.5)
        assert_array_equal(C, np.full((m, n), 0.5))

    @pytest.mark.parametrize("dtypes", ["dff", "fdf", "ffd", "ddf", "ffD", "dDD"])
    def test_mixed_dtypes(self, dtypes):
        generator = np.random.default_rng(0)
        A, B, C = (filled("C", 3, 3, dtype, generator) for dtype in dtypes)
        expected = 0.5 * (A @ B) + 2.0 * C
        product(A, B, C, 0.5, 2.0)
        assert_allclose(C, expected, rtol=2e-5, atol=2e-5)

    def test_foreign_byte_order(self):
        C = np.ones((2, 2), ">f8")
        product(np.eye(2, dtype=">f8"), np.full((2, 2), 3.0, ">f8"), C, 2.0, 1.0)
        assert_array_equal(C, np.full((2, 2), 7.0))

    def test_a_read_only_target_is_refused(self):
        C = np.ones((3, 3))
        C.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            product(np.ones((3, 3)), np.ones((3, 3)), C)
        assert_array_equal(C, np.ones((3, 3)))

    def test_read_only_factors(self):
        A = np.arange(6.0).reshape(2, 3)
        A.flags.writeable = False
        assert_product(A, A.T, np.ones((2, 2)), 1.0, 1.0)

    @pytest.mark.parametrize(
        "shapes",
        [((2, 3), (4, 5), (2, 5)), ((2, 3), (3, 5), (2, 4)), ((2, 3), (3, 5), (1, 5))],
        ids=str,
    )
    def test_shapes_that_do_not_fit_are_refused(self, shapes):
        """BLAS itself does not look: it would read beside the arrays and land wrong numbers."""
        memory = np.zeros((3, 100))
        A, B, C = (row[: m * n].reshape(m, n) for row, (m, n) in zip(memory, shapes, strict=True))
        with pytest.raises(ValueError, match=r"expected .*, got|mismatch|broadcast"):
            product(A, B, C)
        assert_array_equal(memory, np.zeros((3, 100)))

    @given(k=sizes, n=sizes, order=orders, dtype=dtypes, scale=numbers, keep=numbers, stride=st.integers(1, 3))
    def test_vectors(self, k, n, order, dtype, scale, keep, stride):
        generator = np.random.default_rng([k, n])
        matrix, tolerance = filled(order, k, n, dtype, generator), TOLERANCE[dtype]
        row, column = (filled("C", 1, stride * size, dtype, generator)[0, ::stride] for size in (k, n))
        for A, B, size in ((row, matrix, n), (matrix, column, k)):
            C = filled("C", 1, stride * size, dtype, generator)[0, ::stride]
            expected = scale * (A @ B) + keep * C
            product(A, B, C, scale, keep)
            assert_allclose(C, expected, rtol=tolerance, atol=10 * tolerance)

    @pytest.mark.parametrize("dtype", ["f", "d"])
    def test_a_prepared_product_may_be_called_again(self, dtype):
        generator = np.random.default_rng(0)
        A, B = filled("C", 4, 5, dtype, generator), filled("Fortran", 5, 3, dtype, generator)
        C = np.zeros((4, 3), dtype)
        call = prepare(A, B, C)
        for scale, keep in ((1.0, 0.0), (0.5, 1.0), (-2.0, 0.5)):
            A[...] = generator.standard_normal((4, 5))  # the same memory, other numbers
            expected = scale * (A @ B) + keep * C
            call(scale, keep)
            assert_allclose(C, expected, rtol=2e-5, atol=2e-5)

    def test_a_prepared_product_keeps_its_arrays_alive(self):
        C = np.zeros((50, 50))
        call = prepare(np.ones((50, 50)), np.ones((50, 50)), C)
        rubbish = [np.full((50, 50), 7.0) for _ in range(20)]
        call(1.0, 0.0)
        assert_array_equal(C, np.full((50, 50), 50.0))
        assert len(rubbish) == 20

    def test_from_several_threads(self):
        generator = np.random.default_rng(0)
        jobs = [[filled("C", 60, 60, dtype, generator) for _ in range(2)] for dtype in "fdfd"]
        expected, wrong, start = [A @ B for A, B in jobs], [], threading.Barrier(4)

        def work(A, B, AB):
            start.wait()
            C = np.empty_like(A)
            call = prepare(A, B, C)
            for _ in range(50):
                C[...] = np.nan
                call(1.0, 0.0)
                if not np.allclose(C, AB, rtol=1e-4, atol=1e-4):
                    wrong.append(A.dtype)

        threads = [threading.Thread(target=work, args=(*job, AB)) for job, AB in zip(jobs, expected, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @pytest.mark.parametrize("order", ["C", "Fortran", "some columns"])
    @pytest.mark.parametrize("shape", [(300, 200, 1), (1, 200, 300), (1, 500, 1), (300, 1, 200)], ids=str)
    @pytest.mark.parametrize("keep", [0.0, 1.0, 0.9])
    def test_long_vectors(self, shape, order, keep):
        generator, (m, k, n) = np.random.default_rng(0), shape
        for dtype in "fd":
            A, B = filled(order, m, k, dtype, generator), filled(order, k, n, dtype, generator)
            assert_product(A / 10, B, filled("C", m, n, dtype, generator), -0.1, keep)

    def test_both_ways_take_what_the_other_does(self):
        """A product just below and just above the size from which on it releases the interpreter."""
        generator = np.random.default_rng(0)
        A, B = filled("C", 90, 110, "f", generator), filled("C", 110, 120, "f", generator)
        assert_product(A, B, filled("C", 90, 120, "f", generator), -0.1, 1.0)


def test_the_largest_dimension_a_training_step_has():
    generator = np.random.default_rng(0)
    A, B = filled("C", 784, 512, "f", generator), filled("Fortran", 512, 128, "f", generator)
    C = filled("Fortran", 784, 128, "f", generator)
    expected = -0.1 * (A.astype(float) @ B.astype(float)) + C
    product(A, B, C, -0.1, 1.0)
    assert_allclose(C, expected, rtol=1e-4, atol=1e-4)


VECTORS = {
    "whole": lambda n, t: np.empty(n, t),
    "strided": lambda n, t: np.empty(2 * n, t)[::2],
    "backwards": lambda n, t: np.empty(n, t)[::-1],
    "a slice": lambda n, t: np.empty(n + 5, t)[2 : n + 2],
    "unaligned": lambda n, t: np.empty(1, [("gap", "i1"), ("x", t, (n,))])["x"][0],
    "foreign byte order": lambda n, t: np.empty(n, np.dtype(t).newbyteorder()),
}


class TestAxpy:
    @given(
        n=st.integers(0, 20),
        x=st.sampled_from(list(VECTORS)),
        y=st.sampled_from(list(VECTORS)),
        dtypes=st.sampled_from(["ff", "dd", "DD", "fd", "df"]),
        a=numbers,
    )
    def test_vectors(self, n, x, y, dtypes, a):
        generator = np.random.default_rng(n)
        x, y = VECTORS[x](n, dtypes[0]), VECTORS[y](n, dtypes[1])
        x[...], y[...] = generator.standard_normal((2, n))
        expected, before = y + a * x.astype(y.dtype), x.copy()
        axpy(a, x, y)
        assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        assert_array_equal(x, before)

    @pytest.mark.parametrize("x", ["C", "Fortran", "every other row"])
    @pytest.mark.parametrize("y", ["C", "Fortran", "some columns"])
    def test_matrices(self, x, y):
        generator = np.random.default_rng(0)
        X, Y = filled(x, 3, 4, "d", generator), filled(y, 3, 4, "d", generator)
        expected = Y - 0.5 * X
        axpy(-0.5, X, Y)
        assert_allclose(Y, expected, rtol=1e-14, atol=1e-14)

    @pytest.mark.parametrize("dtype", ["f", "d", "D"])
    def test_a_read_only_target_is_refused(self, dtype):
        y = np.ones(3, dtype)
        y.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            axpy(1.0, np.ones(3, dtype), y)
        assert_array_equal(y, np.ones(3))


class TestNorm:
    @given(
        n=st.integers(0, 40),
        order=st.sampled_from(list(VECTORS)),
        dtype=st.sampled_from("fd"),
        scale=st.floats(-30, 30),
    )
    def test_vectors(self, n, order, dtype, scale):
        x = VECTORS[order](n, dtype)
        x[...] = np.random.default_rng(n).standard_normal(n) * 10.0**scale
        expected = np.sqrt(np.sum(x.astype(float) ** 2))
        assert_allclose(norm(x), expected, rtol=1e-5 if dtype == "f" else 1e-13, atol=0)

    @pytest.mark.parametrize(("dtype", "large"), [("f", 1e38), ("d", 1e300), ("f", 1e-30), ("d", 1e-300)])
    def test_neither_overflow_nor_underflow_on_the_way(self, dtype, large):
        assert_allclose(norm(np.array([1.5 * large, 2 * large], dtype)), 2.5 * large, rtol=1e-6)

    def test_nan_and_inf(self):
        assert np.isnan(norm(np.array([1.0, np.nan])))
        assert norm(np.array([1.0, np.inf])) == np.inf


class TestAllFinite:
    @given(n=st.integers(0, 40), order=st.sampled_from(list(VECTORS)), dtype=st.sampled_from("fd"), data=st.data())
    def test_vectors(self, n, order, dtype, data):
        x = VECTORS[order](n, dtype)
        x[...] = np.random.default_rng(n).standard_normal(n)
        assert all_finite(x)
        if n:
            x[data.draw(st.integers(0, n - 1))] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
            assert not all_finite(x)

    @pytest.mark.parametrize(("dtype", "large"), [("f", 3e38), ("d", 1e308)])
    def test_large_is_finite(self, dtype, large):
        x = np.full(100, large, dtype)
        assert all_finite(x)
        x[7] = np.nan
        assert not all_finite(x)


PROGRAM = """
import os, sys
import numpy
from backprop import functions
before = dict(os.environ)
late = not any(name.partition(".")[0] == "scipy" for name in sys.modules)
functions.load()
same = dict(os.environ) == before
from threadpoolctl import threadpool_info
found = [info for info in threadpool_info() if "scipy" in info["filepath"].split(os.sep)[-2]]
print(found[0].get("architecture") if found else "none", late, same)
"""


class TestLoad:
    @pytest.mark.parametrize("kernels", ["Nehalem", "Haswell", None])
    def test_kernels_chosen_in_the_environment_are_kept(self, kernels):
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        environment |= {"OPENBLAS_CORETYPE": kernels} if kernels else {}
        command = [sys.executable, "-W", "error", "-c", PROGRAM]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        architecture, late, same = run.stdout.split()
        if kernels is not None:
            assert architecture in (kernels, "none", "None")  # no name where SciPy's BLAS is no OpenBLAS
        assert (late, same) == ("True", "True")

    def test_is_scipy_s(self):
        import scipy.linalg.blas

        assert load() is scipy.linalg.blas


@pytest.mark.parametrize("shape", [(3, 4, 5), (300, 200, 100), (1, 4, 5), (3, 1, 5)])
def test_a_blas_with_64_bit_integers_is_left_alone(shape, monkeypatch):
    monkeypatch.setattr(blas, "known_integers", lambda: False)
    monkeypatch.setattr(blas, "_address", lambda name: pytest.fail("called by its address"))
    m, n, k = shape
    rng = np.random.default_rng(0)
    A, B, C = rng.normal(size=(m, k)), rng.normal(size=(k, n)), rng.normal(size=(m, n))
    expected = 2 * A @ B + 0.5 * C
    assert_allclose(blas.product(A, B, C, 2.0, 0.5), expected, rtol=1e-12, atol=1e-12)
