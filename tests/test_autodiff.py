"""The computation graph: its rules against the complex step and an independent library, its pictures, and layers made of it."""

from __future__ import annotations

import copy
import math
import warnings
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import assert_close, complex_step, spread, swish

import backprop as bp
from backprop import drawing
from backprop.autodiff import Value

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import autograd
    import autograd.numpy as anp

INDEX = np.array([[0, 2, 0], [1, 1, 1]])


def logistic(a):
    return 1 / (1 + anp.exp(-a))


# name: the operation on Values, the same written with the other library's functions
UNARY = {
    "neg": (lambda a: -a, lambda a: -a),
    "exp": (lambda a: a.exp(), lambda a: anp.exp(a)),
    "log": (lambda a: (a * a + 1).log(), lambda a: anp.log(a * a + 1)),
    "sin": (lambda a: a.sin(), lambda a: anp.sin(a)),
    "cos": (lambda a: a.cos(), lambda a: anp.cos(a)),
    "tanh": (lambda a: a.tanh(), lambda a: anp.tanh(a)),
    "relu": (lambda a: a.relu(), lambda a: anp.maximum(a, 0)),
    "sigmoid": (lambda a: a.sigmoid(), logistic),
    "square": (lambda a: a**2, lambda a: a**2),
    "cube": (lambda a: a**3, lambda a: a**3),
    "reciprocal": (lambda a: a**-1, lambda a: a**-1.0),
    "root": (lambda a: (a * a) ** 0.5, lambda a: (a * a) ** 0.5),
    "to the 0": (lambda a: a**0 * a, lambda a: a**0 * a),
    "plus a number": (lambda a: a + 2, lambda a: a + 2),
    "a number plus": (lambda a: 2 + a, lambda a: 2 + a),
    "a number minus": (lambda a: 2 - a, lambda a: 2 - a),
    "a number times": (lambda a: 2 * a, lambda a: 2 * a),
    "a number over": (lambda a: 2 / a, lambda a: 2 / a),
    "a number to the": (lambda a: 2**a, lambda a: 2**a),
    "maximum of a number": (lambda a: a.maximum(0.3), lambda a: anp.maximum(a, 0.3)),
    "used three times": (lambda a: a * a.sin() + a, lambda a: a * anp.sin(a) + a),
    "sum": (lambda a: a.sum(), lambda a: anp.sum(a)),
    "mean": (lambda a: a.mean(), lambda a: anp.mean(a)),
    "sum, dimensions kept": (lambda a: a / a.sum(keepdims=True), lambda a: a / anp.sum(a, keepdims=True)),
    "reshape": (lambda a: a.reshape(-1), lambda a: anp.reshape(a, -1)),
    "T": (lambda a: a.T, lambda a: a.T),
}
MATRIX = {
    "sum over rows": (lambda a: a.sum(axis=0), lambda a: anp.sum(a, axis=0)),
    "sum over the last": (lambda a: a.sum(axis=-1, keepdims=True), lambda a: anp.sum(a, axis=-1, keepdims=True)),
    "sum over both": (lambda a: a.sum(axis=(0, -1)), lambda a: anp.sum(a, axis=(0, -1))),
    "mean over rows": (lambda a: a.mean(axis=0, keepdims=True), lambda a: anp.mean(a, axis=0, keepdims=True)),
    "mean over columns": (lambda a: a.mean(axis=1), lambda a: anp.mean(a, axis=1)),
    "reshape": (lambda a: a.reshape(2, 6), lambda a: anp.reshape(a, (2, 6))),
    "reshape to a tuple": (lambda a: a.reshape((6, -1)), lambda a: anp.reshape(a, (6, -1))),
    "transpose": (lambda a: a.transpose(1, 0), lambda a: anp.transpose(a, (1, 0))),
    "one entry": (lambda a: a[1, -1], lambda a: a[1, -1]),
    "one row": (lambda a: a[1], lambda a: a[1]),
    "slices": (lambda a: a[::-1, 1:3], lambda a: a[::-1, 1:3]),
    "a new axis": (lambda a: a[:, None], lambda a: a[:, None]),
    "rows that repeat": (lambda a: a[[0, 2, 0, 0]], lambda a: a[[0, 2, 0, 0]]),
    "entries that repeat": (lambda a: a[INDEX, 1], lambda a: a[INDEX, 1]),
    "an index per column": (lambda a: a[[2, 0, 1, 1], range(4)], lambda a: a[[2, 0, 1, 1], range(4)]),
    "a mask": (lambda a: a[np.eye(3, 4) > 0], lambda a: a[np.eye(3, 4) > 0]),
    "iteration": (lambda a: sum(r * i for i, r in enumerate(a)), lambda a: sum(a[i] * i for i in range(3))),
}
BINARY = {
    "+": (lambda a, b: a + b, lambda a, b: a + b),
    "−": (lambda a, b: a - b, lambda a, b: a - b),
    "×": (lambda a, b: a * b, lambda a, b: a * b),
    "÷": (lambda a, b: a / b, lambda a, b: a / b),
    "**": (lambda a, b: (a * a) ** b, lambda a, b: (a * a) ** b),
    "maximum": (lambda a, b: a.maximum(b), lambda a, b: anp.maximum(a, b)),
}
SHAPES = [
    ((), ()),
    ((3,), ()),
    ((), (2, 3)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((2, 3), (2, 3)),
    ((4, 1, 3), (2, 1)),
    ((1,), (1, 1)),
]
PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((1, 3), (3, 1)),
    ((1,), (1, 2)),
    ((2, 0), (0, 3)),
]

every_unary = pytest.mark.parametrize("name", UNARY)


def numbers(shape, seed=0):
    """As `spread`, also of no entries; no number of one seed is there for another."""
    return np.asarray(spread(shape, seed) + 0.01 * seed) if math.prod(shape) else np.zeros(shape)


def graph_gradients(function, arrays, weights):
    """Gradients of Σ weights ⊙ function from the graph."""
    values = [Value(array) for array in arrays]
    (function(*values) * weights).sum().backward()
    return [value.grad for value in values]


def check(function, other, arrays):
    """Value and gradients against the other library's, gradients against the complex step."""
    f = function(*map(Value, arrays))
    weights = numbers(f.shape, 5)
    gradients = graph_gradients(function, arrays, weights)
    assert_allclose(f.data, other(*arrays), rtol=1e-14, atol=1e-15)
    for k, array in enumerate(arrays):

        def L_of(x, k=k):
            return (function(*(Value(x if i == k else a) for i, a in enumerate(arrays))) * weights).sum().data

        assert_close(gradients[k], complex_step(L_of, array), 1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = autograd.grad(lambda *xs: anp.sum(other(*xs) * weights), k)(*arrays)
        assert_close(gradients[k], oracle, 1e-12)


class TestRules:
    @every_unary
    @pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3), (0,)], ids=str)
    def test_of_one_operand(self, name, shape):
        if math.prod(shape) or name not in ("mean", "reshape"):
            check(*UNARY[name], [numbers(shape)])

    @pytest.mark.parametrize("name", MATRIX)
    def test_of_a_matrix(self, name):
        check(*MATRIX[name], [spread((3, 4))])

    @pytest.mark.parametrize("name", BINARY)
    @pytest.mark.parametrize("shapes", SHAPES, ids=str)
    def test_of_two_operands_that_broadcast(self, name, shapes):
        first, second = shapes
        check(*BINARY[name], [numbers(first), numbers(second, 1)])
        check(*BINARY[name], [numbers(second), numbers(first, 1)])

    @pytest.mark.parametrize("shapes", PRODUCTS, ids=str)
    def test_of_products(self, shapes):
        check(lambda a, b: a @ b, lambda a, b: a @ b, [numbers(shapes[0]), numbers(shapes[1], 1)])

    def test_can_fail(self):
        def wrong(a):
            a = a * 1.0
            a._derivatives = (lambda dL_df: dL_df * (1 + 1e-9), a._derivatives[1])
            return a

        with pytest.raises(AssertionError):
            check(wrong, lambda a: a * 1.0, [spread((3,))])

    @pytest.mark.parametrize(
        "array", [np.array([1.0, -2.0]), np.float64(3), np.float32(3), [1, 2], 5, np.int64(2)], ids=repr
    )
    def test_take_arrays_and_numbers_on_the_left(self, array):
        v = Value([3.0, 4.0])
        for f, expected in [
            (array + v, array + v.data),
            (array - v, array - v.data),
            (array * v, array * v.data),
            (array / v, array / v.data),
            (array**v, np.asarray(array) ** v.data),
        ]:
            assert isinstance(f, Value)
            assert_allclose(f.data, expected, rtol=1e-15)

    def test_take_an_array_times_a_value(self):
        x = Value([1.0, 2.0])
        (np.array([[3.0, 4.0], [5.0, 6.0]]) @ x).sum().backward()
        assert_array_equal(x.grad, [8, 10])

    def test_of_powers_at_zero(self):
        zero, b = Value(0.0), Value(2.0)
        (zero**0 + zero**1 + zero**2 + zero**b).backward()
        assert zero.grad == 1
        assert b.grad == 0

    @pytest.mark.parametrize("slope", ["relu", "maximum"])
    def test_at_a_kink_give_a_subgradient(self, slope):
        a, b = Value(0.0), Value(0.0)
        (a.relu() if slope == "relu" else a.maximum(b)).backward()
        assert (a.grad, b.grad) == ((0, 0) if slope == "relu" else (1, 0))  # to the first of two equals

    def test_choose_sides_by_the_real_part(self):
        a = Value([1 + 5j, -1 - 5j, 0 + 1e-30j])
        assert_array_equal(a.relu().data, [1 + 5j, 0, 0])
        assert_array_equal(a.maximum(0.5).data, [1 + 5j, 0.5, 0.5])

    def test_let_nan_through(self):
        assert np.isnan(Value([np.nan, 1.0]).maximum([1.0, np.nan]).data).all()
        for operation in (Value.relu, Value.sigmoid, Value.tanh, Value.exp, Value.log):
            a = Value([np.nan, 1.0])
            f = operation(a)
            f.sum().backward()
            assert np.isnan(f.data).tolist() == [True, False]
            assert np.isnan(a.grad[0]) or operation is Value.relu
        assert Value(np.inf).exp().data == np.inf

    def test_of_sigmoid_are_stable(self):
        a = Value([-1e4, 1e4])
        f = a.sigmoid()
        f.sum().backward()
        assert_array_equal(f.data, [0, 1])
        assert_array_equal(a.grad, [0, 0])

    @pytest.mark.parametrize("dtype", ["float64", "complex128"])
    def test_of_what_saturates_keep_their_digits(self, dtype):
        """And have their limits; more points are in tests/test_numbers.py."""
        for operation, values, slopes in [
            (Value.sigmoid, [0, 1, 1], [0, math.exp(-40), 0]),
            (Value.tanh, [-1, 1, 1], [0, 4 * math.exp(-80), 0]),
        ]:
            a = Value(np.array([-np.inf, 40, np.inf], dtype))
            f = operation(a)
            f.sum().backward()
            assert_allclose(f.data, values, rtol=1e-15)
            assert_allclose(a.grad, slopes, rtol=1e-14)


@st.composite
def expressions(draw):
    """A random function of three operands of shapes that broadcast, for Values and for the other library."""
    steps = draw(
        st.lists(st.tuples(st.integers(0, 8), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12)
    )

    def build(operands, tanh, maximum, sigmoid, mean):
        pool = list(operands)
        table = [
            lambda a, b: a + b,
            lambda a, b: a - b,
            lambda a, b: a * b,
            lambda a, b: a / (b * b + 1),
            lambda a, b: tanh(a),
            lambda a, b: sigmoid(b),
            lambda a, b: maximum(a, b + 0.123),
            lambda a, b: mean(a) * b,
            lambda a, b: tanh(a) ** 2,
        ]
        for kind, i, j in steps:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            pool.append(table[kind](a, b))
        return tanh(sum(pool))

    shapes = [draw(st.sampled_from([(), (3,), (2, 1), (1, 3), (2, 3)])) for _ in range(3)]
    return build, shapes


class TestGraph:
    @given(expressions())
    def test_random_expressions_agree_with_another_library(self, drawn):
        build, shapes = drawn
        arrays = [numbers(shape, seed) for seed, shape in enumerate(shapes)]

        def ours(*x):
            return build(x, Value.tanh, Value.maximum, Value.sigmoid, Value.mean).sum()

        def theirs(*x):
            return anp.sum(build(x, anp.tanh, anp.maximum, logistic, anp.mean))

        values = [Value(array) for array in arrays]
        L = ours(*values)
        L.backward()
        assert_allclose(L.data, theirs(*arrays), rtol=1e-13, atol=1e-13)
        for k, value in enumerate(values):
            assert_close(value.grad, np.asarray(autograd.grad(theirs, k)(*arrays)), 1e-11)

    def test_scalar_sanity(self):
        # The classic small example, its derivatives by hand: d = (a b + b³) relu(a + b), at a = −4, b = 2 and at 4, 2.
        for a, b in [(-4.0, 2.0), (4.0, 2.0)]:
            x, y = Value(a), Value(b)
            d = (x * y + y**3) * (x + y).relu()
            d.backward()
            on = a + b > 0
            assert d.data == (a * b + b**3) * max(a + b, 0)
            assert x.grad == on * (b * (a + b) + a * b + b**3)
            assert y.grad == on * ((a + 3 * b**2) * (a + b) + a * b + b**3)

    def test_reused_values_accumulate(self):
        a = Value(3.0)
        b = a + a
        (b * b).backward()
        assert a.grad == 24
        assert b.grad == 12

    def test_gradients_add_up_until_they_are_set_to_zero(self):
        a = Value([1.0, 2.0])
        b = a * a
        L = (b * b).sum()
        L.backward()
        once = a.grad.copy(), b.grad.copy()
        L.backward()
        assert_array_equal(a.grad, 2 * once[0])  # and not more, through the doubled gradient of b
        assert_array_equal(b.grad, 2 * once[1])
        assert L.grad == 2
        b.sum().backward()
        assert_array_equal(a.grad, 2 * once[0] + 2 * a.data)
        L.zero_grad()
        for value in (L, b, a):
            assert_array_equal(value.grad, np.zeros(value.shape))
        L.backward()
        assert_array_equal(a.grad, once[0])

    def test_gradients_are_arrays_of_their_own(self):
        a, b = Value([1.0, 2.0]), Value([3.0, 4.0])
        f = a + b
        f.sum().backward()
        assert not any(np.shares_memory(x.grad, y.grad) for x, y in [(a, b), (a, f), (b, f)])
        for value in (a, f, f[0], a.sum()):
            assert type(value.data) is type(value.grad) is np.ndarray
            assert value.grad.shape == value.data.shape

    def test_gradients_before_backward_are_zero(self):
        assert_array_equal(Value(np.ones((2, 3))).grad, np.zeros((2, 3)))

    def test_data_may_be_set_anew_before_backward(self):
        a = Value(3.0)
        L = a * a
        a.data = np.array(100.0)
        L.backward()
        assert a.grad == 6

    def test_data_is_a_copy(self):
        array = np.ones(3)
        Value(array).data[0] = 5
        assert_array_equal(array, np.ones(3))

    def test_parents_and_operations_tell_the_graph(self):
        a, b = Value(1, "a"), Value(2, "b")
        f = a * b + a
        assert f.operation == "+"
        assert f.parents[1] is a
        assert f.parents[0].parents == (a, b)
        order = f.graph()
        assert [order.index(v) for p in order for v in p.parents if order.index(v) > order.index(p)] == []
        assert order[-1] is f
        assert len(order) == 4

    def test_a_chain_of_100_000_operations(self):
        f = a = Value(2.0)
        for _ in range(100_000):
            f = -f
        f.backward()
        assert (f.data, a.grad) == (2, 1)
        f.zero_grad()
        assert a.grad == 0
        del f  # frees node after node, not each from within the other

    def test_a_value_used_many_times(self):
        a, f = Value(1.0), Value(0.0)
        for _ in range(5000):
            f = f + a
        f.backward()
        assert a.grad == 5000

    def test_doubling_paths_are_walked_once(self):
        f = a = Value(1.0)
        for _ in range(200):  # 2²⁰⁰ paths
            f = f + f
        f.backward()
        assert a.grad == 2.0**200

    @pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
    def test_types_are_kept(self, dtype):
        a = Value(np.array([1, 2], dtype))
        f = ((2 * a + 1.5) ** 2 / 3 - 1).tanh().maximum(0).relu().sigmoid().exp().mean()
        f.backward()
        assert a.data.dtype == f.data.dtype == a.grad.dtype == dtype

    def test_whole_numbers_become_float64(self):
        for data in (3, True, [1, 2], np.array([1, 2], np.int8)):
            assert Value(data).data.dtype == np.float64

    def test_mixed_precision_keeps_each_type(self):
        a, b = Value(np.ones(2, np.float32)), Value(np.ones(2))
        (a * b).sum().backward()
        assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


ERRORS_OF_VALUES = {
    "text": (lambda: Value("three"), TypeError, "Value: expected data of real numbers"),
    "an object": (lambda: Value([None]), TypeError, "dtype object"),
    "a Value": (lambda: Value(Value(1)), TypeError, "dtype object"),
    "a masked array": (lambda: Value(np.ma.array([1])), TypeError, "masked array"),
    "a label that is no text": (lambda: Value(1, 2), TypeError, "label: a str"),
    "an operand that is text": (lambda: Value(1) + "a", TypeError, r"Value \+ other: expected other"),
    "an operand that is nothing": (lambda: None * Value(1), TypeError, "Value × other"),
    "shapes": (
        lambda: Value([1, 2], "w") + Value([1, 2, 3], "x"),
        ValueError,
        r"Value 'w' \+ Value 'x': expected shapes that broadcast together, got \(2,\) of 'w' and \(3,\) of 'x'",
    ),
    "shapes of maximum": (lambda: Value([1, 2]).maximum([1, 2, 3]), ValueError, r"\(2,\) and \(3,\)"),
    "shapes of a product": (
        lambda: Value(np.ones((2, 3)), "A") @ Value(np.ones((2, 3)), "B"),
        ValueError,
        r"as many columns on the left as rows on the right, got \(2, 3\) of 'A' and \(2, 3\) of 'B'",
    ),
    "a product of scalars": (lambda: Value(1) @ Value(2), ValueError, "vectors and matrices"),
    "a product of more dimensions": (
        lambda: Value(np.ones((2, 2, 2))) @ np.ones(2),
        ValueError,
        "vectors and matrices",
    ),
    "no scalar": (
        lambda: Value([1, 2], "f").backward(),
        ValueError,
        r"Value 'f'.backward: expected a scalar, got shape \(2,\).*\.sum\(\)\.backward\(\)",
    ),
    "an axis": (lambda: Value([1, 2]).sum(axis=1), ValueError, r"Value.sum: expected axis None or one of the 1"),
    "an axis twice": (lambda: Value([[1, 2]]).mean(axis=(0, 0)), ValueError, r"Value.mean"),
    "a shape": (lambda: Value([1, 2]).reshape(3), ValueError, r"a shape of 2 entries, as \(2,\) has, got 3"),
    "axes": (lambda: Value([[1, 2]]).transpose(0, 0), ValueError, r"each axis 0 … 1"),
    "an index": (lambda: Value([1, 2])[5], IndexError, r"an index of shape \(2,\), got 5"),
    "an index that is a Value": (lambda: Value([1, 2])[Value(0)], IndexError, "an index of shape"),
    "iteration over a scalar": (lambda: list(Value(1)), TypeError, "an array to iterate over"),
    "a ufunc without a rule": (lambda: np.arctan(Value(1)), TypeError, "Value.*arctan"),
    "a suffix": (lambda: Value(1).draw("graph.pdf"), ValueError, r"\.svg or \.png, got 'graph.pdf'"),
    "a picture too large": (
        lambda: sum(Value(i) for i in range(120)).draw(),
        ValueError,
        "at most 200 values, got 241",
    ),
}


class TestErrors:
    @pytest.mark.parametrize("name", ERRORS_OF_VALUES)
    def test_say_what_is_wrong(self, name):
        call, kind, text = ERRORS_OF_VALUES[name]
        with pytest.raises(kind, match=text):
            call()


def random_network(generator, dtype="float64"):
    """A network of random depth, widths and activations, and the same function of Values: (layers, parameters → f)."""
    kinds = {"tanh": bp.Tanh, "relu": bp.ReLU, "sigmoid": bp.Sigmoid}
    widths = generator.integers(1, 7, generator.integers(2, 6))
    names = generator.choice(list(kinds), len(widths) - 1)
    layers = []
    for (m, n), name in zip(pairwise(widths), names, strict=True):
        layers += [bp.Linear(int(m), int(n)), kinds[name]()]
    net = bp.Sequential(*layers[:-1], seed=int(generator.integers(1000)), dtype=dtype)
    net.phi[...] += 0.1 * generator.normal(size=net.size)  # biases, too

    def function(h, parameters):
        for k, name in enumerate(names):
            h = parameters[f"{2 * k}.beta"].reshape(-1, 1) + parameters[f"{2 * k}.omega"] @ h
            h = getattr(h, name)() if k < len(names) - 1 else h
        return h

    return net, function


def cross_entropy(f, y):
    """Mean of log Σ eᶠ − f_y; the largest logit is subtracted as a constant."""
    shifted = f - f.data.max(axis=0)
    return (shifted.exp().sum(axis=0).log() - shifted[y, range(len(y))]).mean()


class TestNetworks:
    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("loss", [bp.LeastSquares(), bp.CrossEntropy()], ids=repr)
    def test_built_both_ways_agree(self, seed, loss):
        generator = np.random.default_rng(seed)
        net, function = random_network(generator)
        n = int(generator.integers(1, 9))
        h, K = generator.normal(size=(net.in_features, n)), net.out_features
        labels = isinstance(loss, bp.CrossEntropy)
        y = generator.integers(K, size=n) if labels else generator.normal(size=(K, n))

        L = loss.forward(net.forward(h), y)
        dL_dh, gradients = net.backward(loss.backward())

        parameters = {name: Value(array, name) for name, array in net.parameters.items()}
        data = Value(h, "h")
        f = function(data, parameters)
        graph_L = cross_entropy(f, y) if labels else ((f - y) ** 2).sum(axis=0).mean()
        graph_L.backward()

        assert_allclose(graph_L.data, L, rtol=1e-12, atol=1e-12)
        assert_close(data.grad, dL_dh, 1e-12)
        for name, value in parameters.items():
            assert_close(value.grad, gradients[name], 1e-12)


def neuron():
    w, x, b = Value(4, "w"), Value(-3, "x"), Value(14, "b")
    h = (w * x + b).relu()
    h.label = "h"
    h.backward()
    return h


class TestDrawing:
    def texts(self, svg):
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]

    def test_svg_holds_labels_data_gradients_and_operations(self, tmp_path):
        neuron().draw(tmp_path / "neuron.svg")
        texts = self.texts((tmp_path / "neuron.svg").read_text("utf-8"))
        expected = ["w", "data 4", "grad -3", "x", "data -3", "grad 4", "b", "data 14", "grad 1", "h", "data 2"]
        assert set(texts) == {*expected, "data -12", "×", "+", "relu"}

    def test_of_a_notebook_is_the_same_each_time(self):
        assert neuron()._repr_svg_() == neuron()._repr_svg_()
        assert "relu" in self.texts(neuron()._repr_svg_())

    def test_of_a_notebook_gives_way_where_there_is_no_picture(self):
        assert sum(Value(i) for i in range(120))._repr_svg_() is None

    def test_png(self, tmp_path):
        neuron().draw(str(tmp_path / "neuron.PNG"))
        content = (tmp_path / "neuron.PNG").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000

    def test_arrays_show_their_shape_and_first_entries(self):
        a = Value(np.arange(12).reshape(3, 4), "A <&> $x$")
        texts = self.texts((a @ np.eye(4)).sum()._repr_svg_())
        assert "A <&> $x$ (3, 4)" in texts
        assert "data [0, 1, 2, 3, …]" in texts

    def test_numbers_are_short(self):
        assert (
            repr(Value([1 / 3, 1e-12, np.nan, -np.inf, 5]))
            == "Value([0.333, 1e-12, nan, -inf, …], grad=[0, 0, 0, 0, …])"
        )
        assert repr(Value([[1, 2], [3, 4]], "A")) == "Value([[1, 2], [3, 4]], grad=[[0, 0], [0, 0]], label='A')"
        assert repr(Value(2 / 3 + 1j)) == "Value(0.6667+1j, grad=0+0j)"
        assert repr(Value(np.zeros((2, 0)))) == "Value([], grad=[])"

    @staticmethod
    def random_nodes(seed):
        generator = np.random.default_rng(seed)
        nodes = []
        for i in range(int(generator.integers(1, 40))):
            parents = tuple(generator.integers(i, size=generator.integers(0, 3)).tolist()) if i else ()
            operation = "tanh" if parents else ""
            nodes.append(drawing.Node("x" * int(generator.integers(0, 9)), "1.5", "-2", operation, parents))
        used = {p for node in nodes for p in node.parents}
        return [*nodes, drawing.Node("L", "1", "1", "sum", tuple(i for i in range(len(nodes)) if i not in used))]

    @pytest.mark.parametrize("seed", range(12))
    def test_nothing_overlaps(self, seed):
        nodes = self.random_nodes(seed)
        layout = drawing.Layout(nodes)
        for c, spots in enumerate(layout.spots):
            assert all(layout.column[p] < c for i, at in spots if layout.column[i] == c for p in nodes[i].parents)
            assert c == 0 or layout.right[c - 1] < layout.x[c]
            for above, below in pairwise(spots):
                halves = sum(nodes[i].height / 2 for i, at in (above, below) if layout.column[i] == at)
                assert layout.y[below] - layout.y[above] >= halves + 0.2

    def test_a_tree_has_no_crossings(self):
        leaves = [Value(float(i)) for i in range(8)]
        while len(leaves) > 1:
            leaves = [a - b for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
        order = leaves[0].graph()
        nodes = [drawing.Node("", "", "", v.operation, tuple(map(order.index, v.parents))) for v in order]
        layout = drawing.Layout(nodes)
        assert layout.crossings({spot: float(p) for spots in layout.spots for p, spot in enumerate(spots)}) == 0
        data = [order[i].data for i, _ in layout.spots[0]]
        assert data == sorted(data)  # operands from top to bottom

    def test_boxes_that_are_wanted_at_one_height_stand_around_it(self):
        nodes = [*[drawing.Node("a", "1", "1")] * 5, drawing.Node("L", "1", "1", "sum", (0, 1, 2, 3, 4))]
        layout = drawing.Layout(nodes)
        heights = [layout.y[i, 0] for i in range(5)]
        assert_allclose(np.diff(heights), nodes[0].height + drawing.GAP)
        assert_allclose(np.mean(heights), layout.y[5, 1])


MIXTURES = {
    "mean": lambda v: v - v.mean(),
    "mean over features": lambda v: v - v.mean(axis=0, keepdims=True),
    "mean over examples": lambda v: v - v.mean(axis=-1, keepdims=True),
    "softmax": lambda v: v.exp() / v.exp().sum(),
    "neighbours": lambda v: v + v[[1, 0, *range(2, v.shape[0])]],
    "reversed": lambda v: v[::-1],
    "transposed": lambda v: v.T,
}


ERRORS_OF_LAYERS = {
    "not a function": (lambda: bp.Elementwise(3), TypeError, "Elementwise: expected a function of a Value, got 3"),
    "an array": (
        lambda: bp.Elementwise(lambda v: v.data).forward(np.ones(2)),
        TypeError,
        r"Elementwise\(<lambda>\): expected a function that returns a Value, got array",
    ),
    "another shape": (
        lambda: bp.Elementwise(lambda v: v.sum()).forward(np.ones(2)),
        ValueError,
        r"returns the shape of its argument, \(2, 1\), got shape \(\)",
    ),
    "complex numbers": (
        lambda: bp.Elementwise(lambda v: v * 1j).forward(np.ones(2)),
        TypeError,
        "a function that returns float64, got complex128",
    ),
    "backward first": (lambda: bp.Elementwise(swish).backward(np.ones(2)), RuntimeError, "before backward"),
}


class TestElementwise:
    @pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 7), (1,), (1, 1)], ids=str)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_is_the_layer_with_a_slope_by_hand(self, shape, dtype):
        h = spread(shape).astype(dtype)
        ours, theirs = bp.Elementwise(swish), bp.SiLU()
        tolerance = 1e-6 if dtype == "float32" else 1e-14
        assert_close(ours.forward(h), theirs.forward(h), tolerance)
        assert_close(ours.infer(h), theirs.infer(h), tolerance)
        dL_df = spread(shape, seed=2).astype(dtype)
        dL_dh, gradients = ours.backward(dL_df)
        assert_close(dL_dh, theirs.backward(dL_df)[0], tolerance)
        assert gradients == {}
        assert dL_dh.dtype == ours.infer(h).dtype == dtype

    def test_is_checked_by_the_complex_step(self):
        net = bp.Sequential(bp.Linear(3, 5), bp.Elementwise(swish), bp.Linear(5, 2), seed=0)
        report = bp.check_gradients(net, bp.LeastSquares(), spread((6, 3)), spread((6, 2), seed=1))
        assert report.passed, report
        assert report.method == "complex step"

    def test_trains_like_the_layer_with_a_slope_by_hand(self):
        X = spread((60, 2))
        y = np.sin(X[:, 0]) * X[:, 1]
        predictions = []
        for layer in (bp.Elementwise(swish), bp.SiLU()):
            net = bp.Sequential(bp.Linear(2, 8), layer, bp.Linear(8, 1), seed=0, dtype="float64")
            history = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.05), batch_size=16).fit(X, y, epochs=5, verbose=0)
            predictions.append(net.predict(X))
            assert history.epochs[-1].loss < history.epochs[0].loss
        assert_allclose(predictions[0], predictions[1], rtol=1e-10)

    @pytest.mark.parametrize(
        "how", [lambda layer: layer.copy(), copy.deepcopy, copy.copy], ids=["copy", "deepcopy", "shallow"]
    )
    def test_copies_work_and_are_named(self, how):
        layer = bp.Elementwise(swish)
        layer.forward(spread((3, 2)))
        twin = how(layer)
        assert repr(twin) == "Elementwise(swish)"
        assert_array_equal(twin.forward(spread((4, 2))), layer.infer(spread((4, 2))))

    @pytest.mark.parametrize("name", MIXTURES)
    @pytest.mark.parametrize("D", [2, 3, 8])
    def test_refuses_functions_that_mix_entries(self, name, D):
        layer = bp.Elementwise(MIXTURES[name])
        for _ in range(2):  # each time, not only the first
            with pytest.raises(ValueError, match=r"a function of each entry alone, got one that mixes entries"):
                layer.forward(spread((D, D)).astype(np.float32))
        if name == "mean over examples":  # a single example cannot tell, the next batch does
            layer.forward(spread((D, 1)))
            with pytest.raises(ValueError, match="mixes entries"):
                layer.forward(spread((D, 4)))

    @pytest.mark.parametrize("name", ERRORS_OF_LAYERS)
    def test_errors(self, name):
        call, kind, text = ERRORS_OF_LAYERS[name]
        with pytest.raises(kind, match=text):
            call()


def test_an_index_array_that_changes_later_does_not_matter():
    x, index = Value([1.0, 2.0, 3.0]), np.array([0, 0])
    y = x[index].sum()
    index[:] = 2
    y.backward()
    assert x.grad.tolist() == [2, 0, 0]


OF_NUMPY = {
    "dot": (lambda v: np.dot(np.ones((2, 2)), v), lambda v: Value(np.ones((2, 2))) @ v),
    "sum": (lambda v: np.sum(v, axis=0, keepdims=True), lambda v: v.sum(axis=0, keepdims=True)),
    "mean": (np.mean, lambda v: v.mean()),
    "exp": (np.exp, lambda v: v.exp()),
    "maximum": (lambda v: np.maximum(1.5, v), lambda v: Value(1.5).maximum(v)),
    "reshape": (lambda v: np.reshape(v, (1, 2)), lambda v: v.reshape(1, 2)),
    "an array first": (lambda v: np.arange(2) - v, lambda v: Value([0.0, 1.0]) - v),
    "a scalar of NumPy first": (lambda v: np.float64(2) ** v, lambda v: 2**v),
}


@pytest.mark.parametrize("name", OF_NUMPY)
def test_functions_of_numpy_are_the_methods(name):
    by_numpy, by_method = OF_NUMPY[name]
    found, expected = Value([1.0, 2.0]), Value([1.0, 2.0])
    f, g = by_numpy(found), by_method(expected)
    assert type(f) is Value
    assert_array_equal(f.data, g.data)
    f.sum().backward()
    g.sum().backward()
    assert_array_equal(found.grad, expected.grad)


def test_a_deep_copy_of_a_deep_graph_is_a_graph_of_its_own():
    w = Value(1.0, "w")
    f = w
    for _ in range(3000):
        f = f * 1.0001
    twin = copy.deepcopy(f)
    twin.backward()
    assert w.grad == 0
    assert_allclose(twin.graph()[0].grad, 1.0001**3000)
