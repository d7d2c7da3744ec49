"""Columns of a table as inputs: rows chosen, categories embedded, numbers cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from test_bad_input import assert_refused

import backprop as bp

EDGES = [[-1.0, 0.0, 3.0], [2.0, 2.5], [-7.0, -6.0, -5.5, 0.0]]
H = np.random.default_rng(0).normal(0, 4, (3, 50))


class TestSelect:
    def test_gives_the_rows_and_takes_their_gradients_back(self):
        layer, dL_df = bp.Select([2, 0]), np.array([[1.0, 2.0], [3.0, 4.0]])
        assert_array_equal(layer.forward(H[:, :2]), H[[2, 0], :2])
        assert_array_equal(layer.backward(dL_df)[0], [[3, 4], [0, 0], [1, 2]])

    @pytest.mark.parametrize(
        ("rows", "kind", "words"),
        [
            ([0, 0], ValueError, "different rows"),
            ([-1], ValueError, "≥ 0"),
            ([0.5], TypeError, "whole number"),
            ([True], TypeError, "whole number"),
            ([], TypeError, "a list of whole numbers"),
            ("01", TypeError, "a list of whole numbers"),
        ],
        ids=str,
    )
    def test_refuses_other_rows(self, rows, kind, words):
        assert_refused(lambda: bp.Select(rows), kind, words)

    def test_refuses_an_h_without_them(self):
        assert_refused(lambda: bp.Select([3]).forward(H), ValueError, "at least 4 input features")
        assert_refused(lambda: bp.Select([3], in_features=3), ValueError, "at least 4 input features")
        assert_refused(
            lambda: bp.Sequential(bp.Linear(2, 3), bp.Select([0], in_features=4)), ValueError, "4 input features"
        )

    def test_joins_kinds_of_columns(self):
        numbers = bp.Sequential(bp.Select([0, 2], in_features=3), bp.PiecewiseLinear([[0, 1], [0, 2, 4]]))
        net = bp.Sequential(bp.FanOut(numbers, bp.Sequential(bp.Select([1]), bp.Embedding([4], [2]))), dtype="float64")
        assert (net.in_features, net.out_features) == (3, 5)
        assert_array_equal(net.predict([[0.5, 0.0, 3.0]]), [[0.5, 1, 0.5, 0, 0]])


class TestEmbedding:
    def embedded(self, codes):
        layer = bp.Embedding([4], [1])
        layer.omega_0 = np.array([[10.0, 11.0, 12.0, 13.0]])
        return layer.forward(np.array([codes], float))[0]

    def test_gives_the_vector_of_each_code(self):
        assert_array_equal(self.embedded([0, 1, 2, 3, -0.0]), [10, 11, 12, 13, 10])

    def test_takes_what_is_no_code_for_what_is_missing(self):
        assert_array_equal(self.embedded([-1, 4, 1e30, -1e30, 1.5, 2.3]), [10] * 6)

    def test_takes_what_rounding_did_to_a_code_for_the_code(self):
        assert_array_equal(self.embedded([2.0001, 0.9, 3.2]), [12, 11, 13])

    def test_starts_from_0_for_what_is_missing(self):
        net = bp.Sequential(bp.Embedding([50, 3], [40, 2]), seed=0)
        for omega in net.parameters.values():
            assert not omega[:, 0].any()
        assert 0.9 < net.parameters["0.omega_0"][:, 1:].std() < 1.1

    @pytest.mark.parametrize(
        ("arguments", "kind", "words"),
        [
            (([3, 2], [1]), ValueError, "2 widths, one for each column"),
            (([0], [1]), ValueError, "≥ 1"),
            (([3], [1.5]), TypeError, "whole number"),
            ((3, [1]), TypeError, "cardinalities: a list"),
            (([3], [1], 4), TypeError, "positional"),
        ],
        ids=str,
    )
    def test_refuses_other_arguments(self, arguments, kind, words):
        with pytest.raises(kind, match=words):
            bp.Embedding(*arguments)


class TestPieces:
    def test_tell_how_far_a_number_has_come(self):
        f = bp.PiecewiseLinear(EDGES).forward(H)
        lows, highs = ([edge for each in EDGES for edge in each[part]] for part in (slice(-1), slice(1, None)))
        rows = [0, 0, 1, 2, 2, 2]
        expected = [np.interp(H[j], [a, b], [0, 1]) for j, a, b in zip(rows, lows, highs, strict=True)]
        assert_allclose(f, expected, rtol=1e-14)

    def test_with_a_linear_layer_are_any_function_straight_between_edges(self):
        values = np.array([5.0, -1.0, 2.0])
        net = bp.Sequential(bp.PiecewiseLinear(EDGES[:1]), bp.Linear(2, 1), dtype="float64")
        net.parameters["1.omega"], net.parameters["1.beta"] = np.diff(values)[None], values[:1]
        assert_allclose(net.predict(H[:1].T)[:, 0], np.interp(H[0], EDGES[0], values), atol=1e-14)

    def test_of_scores_are_interpolated(self):
        scores = [[-2, 0.5, 0.5], [0, 1], [-1, 0, 2, 3]]
        f = bp.Quantiles(EDGES, scores).forward(H)
        assert_allclose(f, [np.interp(H[j], EDGES[j], scores[j]) for j in range(3)], atol=1e-13)

    @pytest.mark.parametrize(
        "make", [bp.PiecewiseLinear, lambda edges: bp.Quantiles(edges, edges)], ids=["edges", "scores"]
    )
    def test_keep_their_edges(self, make, tmp_path):
        net = bp.Sequential(make(EDGES), dtype="float64")
        assert net[0].edges == EDGES
        net.save(tmp_path / "net")
        again = bp.Sequential.load(tmp_path / "net")
        assert again[0].edges == EDGES
        assert_array_equal(again.predict(H.T), net.predict(H.T))
        assert_refused(lambda: setattr(net[0], "edges", [[1, 2]] * 3), ValueError, "for good")

    def test_whose_edges_can_be_set_as_buffers(self, tmp_path):
        net = bp.Sequential(bp.PiecewiseLinear([[0, 1, 2]]), dtype="float64")
        net.buffers["0.low"], net.buffers["0.high"] = [10, 20], [20, 40]
        assert_array_equal(net.predict([[30]]), [[1, 0.5]])
        assert net[0].edges == [[10, 20, 40]]
        net.buffers["0.low"] = [10, 30]
        with pytest.raises(ValueError, match="each piece to begin where the one before it ends"):
            net.save(tmp_path / "net")
        assert not (tmp_path / "net").exists()

    @pytest.mark.parametrize(
        ("edges", "kind", "words"),
        [
            ([[0, 0]], ValueError, r"edges\[0\] that increase"),
            ([[0, 1], [3, 2]], ValueError, r"edges\[1\] that increase"),
            ([[0]], ValueError, "two or more finite numbers"),
            ([[0, np.nan]], ValueError, "two or more finite numbers"),
            ([0, 1], ValueError, "two or more finite numbers"),
            ([["a", "b"]], TypeError, r"edges\[0\]"),
            ([], TypeError, "a list of numbers for each row"),
            (3, TypeError, "a list of numbers for each row"),
        ],
        ids=str,
    )
    def test_refuse_other_edges(self, edges, kind, words):
        with pytest.raises(kind, match=words):
            bp.PiecewiseLinear(edges)

    def test_refuse_other_scores(self):
        assert_refused(lambda: bp.Quantiles([[0, 1]], [[1, 0]]), ValueError, "scores that do not fall")
        assert_refused(lambda: bp.Quantiles([[0, 1]], [[0, 1, 2]]), ValueError, "as many scores as edges")


NUMBERS = hnp.arrays(
    float, st.tuples(st.integers(1, 30), st.just(1)), elements=st.floats(-1e6, 1e6) | st.sampled_from([0, 1, np.nan])
)


class TestLearned:
    def test_edges_have_as_many_values_between_them(self):
        x = np.random.default_rng(0).exponential(size=(1000, 1))
        (edges,) = bp.quantile_edges(x, 4)
        assert_array_equal(np.histogram(x.astype("f"), np.array(edges, "f"))[0], [250] * 4)

    @settings(deadline=None, max_examples=20)
    @given(X=NUMBERS, pieces=st.integers(1, 9))
    def test_edges_can_be_used_whatever_the_numbers(self, X, pieces):
        edges = bp.quantile_edges(X, pieces)
        assert 2 <= len(edges[0]) <= pieces + 1
        there = X[~np.isnan(X)].astype("f")
        if len(np.unique(there)) > 1:
            assert_allclose(
                [edges[0][0], edges[0][-1]], [there.min(), there.max()], rtol=0, atol=1e-5 * np.ptp(there.astype(float))
            )
        for kind in ("float32", "float64"):
            f = bp.PiecewiseLinear(edges).infer(np.nan_to_num(X).T.astype(kind))
            assert (f >= 0).all()
            assert (f <= 1).all()
        learned = bp.Quantiles.learned(X, pieces + 1).infer(np.sort(there.astype(float))[None])
        assert np.isfinite(learned).all()
        assert (np.diff(learned) >= 0).all()
        assert (np.abs(learned) <= 4).all()

    def test_two_values_make_one_piece_and_one_makes_one_around_it(self):
        X = np.array([[0.0, 7.0, np.nan, 1e3], [1.0, 7.0, np.nan, 1e3], [1.0, np.nan, np.nan, 1e3]])
        assert bp.quantile_edges(X, 8) == [[0, 1], [3.5, 10.5], [-0.5, 0.5], [500, 1500]]
        assert_array_equal(bp.Quantiles.learned(X[:, 1:]).infer(np.zeros((3, 1))), np.zeros((3, 1)))

    def test_scores_are_those_of_the_ranks(self):
        x = np.random.default_rng(0).permutation(np.repeat(np.arange(20.0) ** 3, 2))
        f = bp.Quantiles.learned(x[:, None]).infer(x[None])[0]
        ranks = np.searchsorted(np.unique(x), x)
        assert_allclose(f, norm.ppf((2 * ranks + 1) / 40), rtol=1e-12)

    @pytest.mark.parametrize("knots", [24, 64])
    def test_scores_of_much_data_are_standard_normal(self, knots):
        x = np.random.default_rng(0).lognormal(0, 2, (20_000, 1))
        f = bp.Quantiles.learned(x, knots).infer(x.T)
        assert_allclose([f.mean(), f.std()], [0, 1], atol=0.05)

    @pytest.mark.parametrize(
        ("call", "kind", "words"),
        [
            (lambda: bp.quantile_edges([[np.inf]], 3), ValueError, "finite values in X"),
            (lambda: bp.quantile_edges([[1e300]], 3), ValueError, "X"),
            (lambda: bp.quantile_edges([["a"]], 3), TypeError, "X"),
            (lambda: bp.quantile_edges([1.0, 2.0], 3), ValueError, "X"),
            (lambda: bp.quantile_edges([[1.0]], 0), ValueError, "pieces ≥ 1"),
            (lambda: bp.Quantiles.learned([[1.0]], 1), ValueError, "knots ≥ 2"),
        ],
    )
    def test_refuses_what_is_no_table_of_numbers(self, call, kind, words):
        with pytest.raises(kind, match=words):
            call()


class Rows(bp.Layer):
    """Rows of h by lists of every form, as somebody writes it."""

    traced = True

    def __init__(self, rows):
        self.rows = rows

    def forward(self, h):
        self.D = len(h)
        return h[np.array(self.rows)]

    def backward(self, dL_df):
        there = np.array(self.rows)[:, None] == np.arange(self.D)
        return there.T.astype(dL_df.dtype) @ dL_df, {}


@pytest.mark.parametrize("rows", [[0] * 5, [3, 1, 2, 0], [0, 2, 4, 5, 5, 5, 1], [-1, 2], [5, 4, 3]], ids=str)
@pytest.mark.parametrize("native", [False, True])
def test_rows_that_are_always_the_same_are_copied(rows, native):
    X, y = np.random.default_rng(0).normal(size=(20, 4)), np.zeros((20, 1))
    nets = [
        bp.Sequential(bp.Linear(4, 6), Rows(rows), bp.Linear(len(rows), 1), seed=0, dtype="float64") for _ in range(2)
    ]
    bp.Trainer(nets[0], bp.LeastSquares(), bp.SGD(0.01), batch_size=5, native=native).fit(X, y, epochs=2, verbose=0)
    for epoch in range(2):
        order = np.random.default_rng([0, epoch]).permutation(20)
        for start in range(0, 20, 5):
            loss, batch = bp.LeastSquares(), order[start : start + 5]
            loss.forward(nets[1].forward(X[batch].T), y[batch].T)
            nets[1].phi[...] = nets[1].phi - 0.01 * nets[1].backward(loss.backward())[1].dL_dphi
    assert_allclose(nets[0].phi, nets[1].phi, rtol=0, atol=1e-13)


@pytest.mark.parametrize("product", [bp.hessian_product, bp.gauss_newton_product, bp.fisher_product])
def test_second_derivatives_before_a_layer_without_a_slope_are_0(product):
    """Gradients that depend on nothing were no part of the list of operations."""
    net = bp.Sequential(bp.Linear(3, 2), bp.Embedding([3, 3], [2, 1]), seed=0, dtype="float64")
    found = net.views(product(net, bp.LeastSquares(), H.T, np.ones((50, 3)), np.ones(net.size)))
    assert not found["0.beta"].any()
    assert not found["0.omega"].any()
    assert found["1.omega_0"].any()


def test_one_value_far_away_takes_nothing_from_the_others():
    """Scores are of ranks: a sentinel among a thousand values leaves the pieces of the others as they are, in float32 too."""
    X = np.random.default_rng(0).normal(size=(1000, 1))
    far = np.vstack([X, [[1e9]]])
    assert bp.quantile_edges(far, 8)[0][1:-1] == pytest.approx(bp.quantile_edges(X, 8)[0][1:-1], abs=0.02)
    layer = bp.Quantiles.learned(far)
    scores = layer.infer(far.T.astype("f"))[0]
    assert np.corrcoef(scores[:-1], X[:, 0])[0, 1] > 0.99
    assert scores[-1] == scores.max()


def test_values_too_near_for_a_slope_are_one():
    edges = bp.quantile_edges(np.array([[0.0], [1e-45], [1.0]]), 8)
    assert edges == [[0.0, 1.0]]
