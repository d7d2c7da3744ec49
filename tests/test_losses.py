"""Every loss returns one number and exactly its gradient, whatever K, the weights and the reduction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import LOSSES, assert_close, complex_step

import backprop as bp

every_loss = pytest.mark.parametrize("name", LOSSES)
every_K = pytest.mark.parametrize("K", [1, 2, 5])
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum"])
WEIGHT = np.array([2.0, 0.0, 0.5, 1.0, 3.0, 0.25])


def example(name, K, N=6, **settings):
    """A loss, outputs f and targets y."""
    row, generator = LOSSES[name], np.random.default_rng(K)
    f = generator.normal(0, 1.5, (K * row.outputs, N))
    return row.make(**settings), f, row.target(generator, K, N)


class TestGradient:
    @every_loss
    @every_K
    @every_reduction
    @pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
    def test_is_that_of_the_number_forward_returns(self, name, K, reduction, weight):
        loss, f, y = example(name, K, reduction=reduction)
        assert isinstance(loss.forward(f, y, weight), float)
        dL_df = loss.backward()
        assert_close(dL_df, complex_step(lambda f: loss.forward(f, y, weight), f))

    @every_loss
    @every_K
    def test_of_one_example_as_a_vector(self, name, K):
        loss, f, y = example(name, K, N=1)
        L = loss.forward(f, y)
        dL_df = loss.backward()
        vector = loss.forward(f[:, 0], y[..., 0])
        assert_allclose(vector, L, rtol=1e-15)
        assert_array_equal(loss.backward(), dL_df[:, 0])

    @every_loss
    def test_is_the_same_twice_and_is_the_callers(self, name):
        loss, f, y = example(name, 2)
        loss.forward(f, y)
        first = loss.backward()
        second = loss.backward()
        assert_array_equal(first, second)
        loss.forward(f + 1, y)
        loss.backward()
        assert_array_equal(first, second)

    @every_loss
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_has_the_type_of_f(self, name, dtype):
        loss, f, y = example(name, 2)
        loss.forward(f.astype(dtype), y, WEIGHT)
        assert loss.backward().dtype == dtype

    @every_loss
    def test_leaves_what_is_handed_in_alone(self, name):
        loss, f, y = example(name, 2)
        given = [f, y, WEIGHT.copy()]
        before = [array.copy() for array in given]
        for array in given:
            array.setflags(write=False)
        loss.forward(*given)
        loss.backward()
        for array, then in zip(given, before, strict=True):
            assert_array_equal(array, then)


class Keeps(bp.Loss):
    """A loss of one's own that keeps what it is given."""

    def ell(self, f, y):
        self.f, self.y = f, y
        return ((f - y) ** 2).sum(axis=0)

    def dell_df(self):
        return 2 * (self.f - self.y)


class TestCallersArrays:
    """What is done with the arrays of a call reaches no later one."""

    @pytest.mark.parametrize("name", [*LOSSES, "one's own"])
    @every_reduction
    def test_backward_is_the_gradient_of_the_last_forward(self, name, reduction):
        loss, f, y = example("LeastSquares" if name == "one's own" else name, 2, reduction=reduction)
        loss, w = Keeps(reduction) if name == "one's own" else loss, WEIGHT.copy()
        loss.forward(f, y, w)
        expected = loss.backward()
        for array in (f, y, w):
            array[...] = 0
        for _ in range(2):
            dL_df = loss.backward()
            assert_array_equal(dL_df, expected)
            dL_df[...] = np.nan


class TestValue:
    @every_loss
    @every_K
    @every_reduction
    @pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
    def test_is_the_formula(self, name, K, reduction, weight):
        loss, f, y = example(name, K, reduction=reduction)
        w = np.ones(6) if weight is None else weight
        expected = (w * LOSSES[name].formula(f, y)).sum() / (w.sum() if reduction == "mean" else 1)
        assert_allclose(loss.forward(f, y, weight), expected, rtol=1e-13)

    @every_loss
    @every_K
    def test_per_example_is_the_formula_and_leaves_a_pending_backward_alone(self, name, K):
        loss, f, y = example(name, K)
        loss.forward(f, y)
        dL_df = loss.backward()
        assert_allclose(loss.per_example(f, y), LOSSES[name].formula(f, y), rtol=1e-13)
        loss.per_example(f[:, :2] + 1, y[..., :2])
        assert_array_equal(loss.backward(), dL_df)

    @every_loss
    def test_of_a_vector_per_example(self, name):
        loss, f, y = example(name, 2)
        assert_allclose(loss.per_example(f[:, 0], y[..., 0]), loss.per_example(f, y)[:1], rtol=1e-14)

    @every_loss
    @given(N=st.integers(1, 9), K=st.integers(1, 4), order=st.sampled_from("CF"), stride=st.integers(1, 3))
    def test_does_not_depend_on_the_layout(self, name, N, K, order, stride):
        loss, f, y = example(name, K, N)
        L = loss.forward(f, y)
        dL_df = loss.backward()
        room = np.repeat(f, stride, axis=1).copy(order=order)
        assert_allclose(loss.forward(room[:, ::stride], y.copy(order=order)), L, rtol=1e-13)
        assert_close(loss.backward(), dL_df)

    @every_loss
    def test_of_whole_numbers_is_that_of_float64(self, name):
        loss, f, y = example(name, 2)
        f = f.round()
        expected = loss.forward(f, y), loss.backward()
        assert_allclose(loss.forward(f.astype(int), y), expected[0], rtol=1e-14)
        assert_close(loss.backward(), expected[1])

    @every_loss
    def test_of_one_row_takes_a_plain_vector_of_targets(self, name):
        loss, f, y = example(name, 1)
        assert loss.forward(f, y.reshape(1, -1) if y.ndim == 2 else y) == loss.forward(f, y)


class TestWeights:
    @every_loss
    @every_reduction
    def test_0_is_an_absent_example(self, name, reduction):
        loss, f, y = example(name, 2, reduction=reduction)
        kept = WEIGHT > 0
        L = loss.forward(f[:, kept], y[..., kept], WEIGHT[kept])
        dL_df = loss.backward()
        assert_allclose(loss.forward(f, y, WEIGHT), L, rtol=1e-14)
        assert_close(loss.backward()[:, kept], dL_df)
        assert_array_equal(loss.backward()[:, ~kept], 0)

    @every_loss
    @every_reduction
    def test_2_is_an_example_twice(self, name, reduction):
        loss, f, y = example(name, 2, reduction=reduction)
        twice = [0, 0, 1, 2, 3, 4, 4, 5]
        L = loss.forward(f[:, twice], y[..., twice])
        dL_df = loss.backward()
        assert_allclose(loss.forward(f, y, np.array([2, 1, 1, 1, 2, 1])), L, rtol=1e-14)
        assert_close(loss.backward()[:, 0], dL_df[:, 0] + dL_df[:, 1])
        assert_close(loss.backward()[:, 1], dL_df[:, 2])

    @every_loss
    @every_reduction
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("far", [1e4, -1e4, np.inf, -np.inf, np.nan])
    def test_0_is_absent_where_the_loss_is_no_number(self, name, reduction, dtype, far):
        loss, f, y = example(name, 2, reduction=reduction)
        f = f.astype(dtype)
        L = loss.forward(f, y, WEIGHT)
        dL_df = loss.backward()
        f[:, WEIGHT == 0] = far
        with np.errstate(all="ignore"):
            assert loss.forward(f, y, WEIGHT) == L
            assert_array_equal(loss.backward(), dL_df)

    def test_0_is_an_absent_poisson_rate_that_overflows(self):
        f, y, w = np.array([[0.5, 1000.0, -1.0]]), np.array([1, 2, 0]), np.array([1.0, 0.0, 2.0])
        loss = bp.Poisson()
        with np.errstate(over="ignore"):
            assert_allclose(loss.forward(f, y, w), (np.exp(0.5) - 0.5 + 2 * np.exp(-1)) / 3, rtol=1e-14)
            assert_allclose(loss.backward(), [[(np.exp(0.5) - 1) / 3, 0, 2 * np.exp(-1) / 3]], rtol=1e-14)
            assert loss.forward(f, y) == np.inf

    @every_loss
    @given(scale=st.floats(1e-6, 1e6))
    def test_all_alike_do_not_change_a_mean(self, name, scale):
        loss, f, y = example(name, 2)
        assert_allclose(loss.forward(f, y, np.full(6, scale)), loss.forward(f, y), rtol=1e-12)


class TestTargets:
    @every_K
    def test_label_is_one_hot(self, K):
        loss, f, y = example("CrossEntropy of labels", K)
        L = loss.forward(f, y)
        dL_df = loss.backward()
        one_hot = np.eye(K)[:, y]
        for form in (one_hot, one_hot.astype(int), one_hot.astype(bool)):
            assert_allclose(loss.forward(f, form), L, rtol=1e-15)
            assert_close(loss.backward(), dL_df)

    @pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.float32])
    def test_labels_may_be_of_any_type(self, kind):
        loss, f, y = example("CrossEntropy of labels", 5)
        assert loss.forward(f, y.astype(kind)) == loss.forward(f, y) == loss.forward(f, y.tolist())

    @pytest.mark.parametrize("kind", [int, float], ids=lambda kind: kind.__name__)
    def test_one_hot_vector_for_one_example(self, kind):
        loss, f = bp.CrossEntropy(), np.array([0.5, -1.0, 2.0])
        assert loss.forward(f, np.array([0, 1, 0], kind)) == loss.forward(f, 1)

    @every_loss
    @pytest.mark.parametrize("shape", [(6, 1), (2, 3), (1, 1), (1,), (1, 6, 1)], ids=str)
    def test_never_broadcast(self, name, shape):
        loss, f, _ = example(name, 1)
        with pytest.raises(ValueError, match=r"expected .* got"):
            loss.forward(f, np.zeros(shape))

    @every_loss
    def test_never_broadcast_one_column_over_many(self, name):
        loss, f, y = example(name, 3)
        with pytest.raises(ValueError, match=r"expected .* got"):
            loss.forward(f, y[..., :1])

    @pytest.mark.parametrize("name", [name for name in LOSSES if "labels" not in name])
    def test_of_one_row_for_many_examples_may_be_a_vector_where_that_is_clear(self, name):
        loss, f, y = example(name, 1)
        if loss.takes_labels:  # there, a vector is labels
            assert loss.forward(f, np.zeros(6, int)) == loss.forward(f, y)
        else:
            assert loss.forward(f, y[0]) == loss.forward(f, y)


class TestStability:
    """Logits of ±10⁴: the loss is their distance from the right answer, to the last digit, no warning."""

    f = np.array([[1e4, -1e4, 1e4, 0.0], [-1e4, 1e4, 1e4, -1e4]])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_cross_entropy(self, dtype):
        loss, y = bp.CrossEntropy(), np.array([0, 0, 1, 1])
        expected = [0, 2e4, np.log(2), 1e4]
        assert_allclose(loss.per_example(self.f.astype(dtype), y), expected, rtol=1e-6)
        assert_allclose(loss.forward(self.f.astype(dtype), y), np.mean(expected), rtol=1e-6)
        assert_allclose(loss.backward(), np.array([[0, -1, 0.5, 1], [0, 1, -0.5, -1]]) / 4, atol=1e-7)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_binary_cross_entropy(self, dtype):
        loss, y = bp.BinaryCrossEntropy(), np.array([[1, 1, 0, 1], [0, 0, 1, 1]])
        expected = [0, 2e4, 1e4, np.log(2) + 1e4]
        assert_allclose(loss.per_example(self.f.astype(dtype), y), expected, rtol=1e-6)
        assert_allclose(loss.forward(self.f.astype(dtype), y), np.mean(expected), rtol=1e-6)
        assert_allclose(loss.backward(), np.array([[0, -1, 1, -0.5], [0, 1, 0, -1]]) / 4, atol=1e-7)

    @pytest.mark.parametrize("name", ["LeastSquares", "AbsoluteError", "Huber", "Pinball"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_of_differences(self, name, dtype):
        loss, f, y = example(name, 2)
        f = (1e4 * np.sign(f)).astype(dtype)
        assert_allclose(loss.forward(f, y), LOSSES[name].formula(f.astype(float), y).mean(), rtol=1e-5)
        assert np.isfinite(loss.backward()).all()


@pytest.mark.parametrize("loss", [bp.CrossEntropy(), bp.BinaryCrossEntropy(), bp.Poisson()], ids=repr)
def test_outputs_of_0_are_no_kink_of_smooth_losses(loss):
    f, y = np.zeros((2, 3)), np.array([[1, 0, 1], [0, 1, 0]])
    loss.forward(f, y)
    assert_close(loss.backward(), complex_step(lambda f: loss.forward(f, y), f))


class TestKinks:
    """On a kink the gradient is the one the docstring states."""

    @pytest.mark.parametrize("loss", [bp.AbsoluteError(), bp.Pinball([0.1]), bp.LeastSquares(), bp.Huber()], ids=repr)
    def test_equal_output_and_target_pull_nowhere(self, loss):
        loss.forward(np.ones((1, 3)), np.ones(3))
        assert_array_equal(loss.backward(), np.zeros((1, 3)))


@every_loss
@every_reduction
def test_repr_is_the_call_that_makes_it(name, reduction):
    loss = LOSSES[name].make(reduction=reduction)
    again = eval(repr(loss), vars(bp.losses))
    assert (repr(again), again.reduction) == (repr(loss), reduction)
