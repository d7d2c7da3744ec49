"""What people hand in: labels and targets of every kind, frames of every library, and the words for what cannot be."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.7")

from estimating import D, N, X, line
from sklearn.exceptions import ConvergenceWarning

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor
from backprop.estimators.data import standardization

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

codes = np.digitize(line, np.quantile(line, [0.25, 0.5, 0.75]))  # four classes
BIG = 2**53


def classifier(**parameters):
    return MLPClassifier((8,), solver="lbfgs", max_iter=60, random_state=0, **parameters)


def regressor(**parameters):
    return MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, random_state=0, **parameters)


def objects(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


DAYS = [datetime.date(2020, 1, 1 + int(code)) for code in codes]
# What y is, and the classes in order.
LABELS = {
    "Int64 beyond 2^53": (pd.Series(BIG + codes, dtype="Int64"), [BIG, BIG + 1, BIG + 2, BIG + 3]),
    "int64 of Arrow in pandas": (pd.Series(BIG + codes, dtype="int64[pyarrow]"), [BIG, BIG + 1, BIG + 2, BIG + 3]),
    "int64 of polars": (pl.Series(BIG + codes), [BIG, BIG + 1, BIG + 2, BIG + 3]),
    "int64 of Arrow": (pa.chunked_array([BIG + codes]), [BIG, BIG + 1, BIG + 2, BIG + 3]),
    "uint64 beyond int64": (np.uint64(2**63) + codes.astype(np.uint64), [2**63, 2**63 + 1, 2**63 + 2, 2**63 + 3]),
    "objects beyond int64": (objects([2**70 + int(c) for c in codes]), [2**70, 2**70 + 1, 2**70 + 2, 2**70 + 3]),
    "a list of ints": (codes.tolist(), [0, 1, 2, 3]),
    "boolean": (pd.Series(codes > 1, dtype="boolean"), [False, True]),
    "Boolean of polars": (pl.Series(codes > 1), [False, True]),
    "objects that are bool": (objects([bool(c > 1) for c in codes]), [False, True]),
    "objects that are int": (objects([int(c) for c in codes]), [0, 1, 2, 3]),
    "objects that are np.int8": (objects([np.int8(c) for c in codes]), [0, 1, 2, 3]),
    "Decimal": (objects([Decimal(int(c)) / 2 for c in codes]), [Decimal(c) / 2 for c in range(4)]),
    "Decimal of polars": (
        pl.Series([Decimal(f"{c / 2:.1f}") for c in codes], dtype=pl.Decimal(10, 1)),
        [Decimal(c) / 2 for c in range(4)],
    ),
    "dates": (DAYS, sorted(set(DAYS))),
    "dates of polars": (pl.Series(DAYS), sorted(set(DAYS))),
    "datetime64": (np.datetime64("2020-01-01") + codes, np.datetime64("2020-01-01") + np.arange(4)),
    "text": ([f"class {c}" for c in codes], [f"class {c}" for c in range(4)]),
    "string of pandas": (pd.Series([f"class {c}" for c in codes], dtype="string"), [f"class {c}" for c in range(4)]),
    "category of text": (pd.Series(pd.Categorical.from_codes(codes, list("dcba"))), list("abcd")),
    "category of numbers": (pd.Series(pd.Categorical.from_codes(codes, [3, 5, 7, 9])), [3, 5, 7, 9]),
    "Enum": (pl.Series(np.array(list("abcd"))[codes], dtype=pl.Enum(list("dcba"))), list("abcd")),
    "whole floats": (codes.astype(np.float32), [0.0, 1.0, 2.0, 3.0]),
}


class TestLabels:
    @pytest.mark.parametrize("case", LABELS)
    def test_come_back_as_they_went_in(self, case):
        y, classes = LABELS[case]
        model = classifier().fit(X, y)
        assert_array_equal(model.classes_, classes)
        assert len(set(model.classes_.tolist())) == len(classes)
        predicted = model.predict(X)
        given = y.to_pylist() if hasattr(y, "to_pylist") else list(y)
        right = sum(
            a == b for a, b in zip(predicted.tolist(), np.asarray(given, predicted.dtype).tolist(), strict=True)
        )
        assert model.score(X, y) == right / N > 0.8

    @pytest.mark.parametrize("case", ["Int64 beyond 2^53", "boolean", "objects that are int", "Decimal", "dates"])
    def test_stop_early_and_go_on(self, case):
        y = LABELS[case][0]
        model = MLPClassifier((8,), early_stopping=True, warm_start=True, max_iter=3, random_state=0).fit(X, y)
        assert len(model.fit(X, y).validation_scores_) == 6
        model.partial_fit(X[:3], y[:3], classes=y, X_val=X, y_val=y)
        assert model.best_validation_score_ <= 1

    @pytest.mark.parametrize(
        "case", ["Int64 beyond 2^53", "uint64 beyond int64", "boolean", "objects that are int", "text"]
    )
    def test_live_in_files(self, case, tmp_path):
        model = classifier().fit(X, LABELS[case][0])
        model.save(tmp_path / "m.safetensors")
        again = MLPClassifier.load(tmp_path / "m.safetensors")
        assert again.classes_.dtype == model.classes_.dtype
        assert_array_equal(again.predict(X), model.predict(X))

    @pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
    @pytest.mark.parametrize(
        "missing",
        [
            lambda y: [None if row == 7 else int(value) for row, value in enumerate(y)],
            lambda y: objects([pd.NA if row == 7 else int(value) for row, value in enumerate(y)]),
            lambda y: objects([float("nan") if row == 7 else int(value) for row, value in enumerate(y)]),
            lambda y: pd.Series(y, dtype="Int64").where(np.arange(N) != 7),
            lambda y: pl.Series([None if row == 7 else int(value) for row, value in enumerate(y)]),
            lambda y: pa.array([None if row == 7 else int(value) for row, value in enumerate(y)]),
        ],
        ids=["None", "pd.NA", "NaN among objects", "Int64", "polars", "pyarrow"],
    )
    def test_a_missing_one_is_named_by_its_row(self, kind, missing):
        with pytest.raises(
            ValueError, match=r"y with a value in each row, got a missing one \(None, NaN, NA\) at row 7"
        ):
            kind().fit(X, missing(codes))

    @pytest.mark.parametrize(
        ("y", "words"),
        [
            (objects([True if c else 2 for c in codes]), "y with values of one kind, got .* at row"),
            (objects([1 if c else "a" for c in codes]), "y with labels that can be sorted"),
            ([[1, 2], [1]] * (N // 2), "y a rectangular array, got rows of unequal length"),
            (None, "requires y to be passed, but the target y is None"),
        ],
        ids=["booleans and numbers", "text and numbers", "ragged", "none"],
    )
    def test_refused(self, y, words):
        with pytest.raises((TypeError, ValueError), match=words):
            classifier().fit(X, y)


TARGETS = {
    "Decimal": [Decimal(repr(float(v))) for v in line],
    "Float64": pd.Series(line, dtype="Float64"),
    "polars": pl.Series(line),
    "pyarrow": pa.array(line),
    "objects": objects(line.tolist()),
    "big endian": line.astype(">f8"),
    "read-only": np.frombuffer(line.tobytes()),
}
NO_TARGETS = {
    "datetime64": pd.Series(pd.to_datetime(DAYS)),
    "dates": DAYS,
    "Timestamps": objects(list(pd.to_datetime(DAYS))),
    "timedelta64": pd.Series(pd.to_timedelta(codes, unit="D")),
    "Date of polars": pl.Series(DAYS),
    "Datetime of polars": pl.Series(DAYS).cast(pl.Datetime("us")),
    "date32 of Arrow": pa.array(DAYS),
}


class TestTargets:
    @pytest.mark.parametrize("case", TARGETS)
    def test_are_the_numbers(self, case):
        plain = regressor().fit(X, line)
        model = regressor().fit(X, TARGETS[case])
        assert_array_equal(model.network_.phi, plain.network_.phi)
        assert model.score(X, TARGETS[case]) == plain.score(X, line)

    def test_several_in_a_frame(self):
        y = pd.DataFrame({"a": line, "b": codes}).convert_dtypes()
        plain = regressor().fit(X, np.column_stack([line, codes]))
        for frame in (y, pl.from_pandas(y), pa.table(y)):
            assert_array_equal(regressor().fit(X, frame).network_.phi, plain.network_.phi)
        with pytest.raises(ValueError, match=r"column 'b' of y with a value in each row, got .* at row 3"):
            regressor().fit(X, y.assign(b=y["b"].where(np.arange(N) != 3)))

    @pytest.mark.parametrize("case", NO_TARGETS)
    def test_dates_are_refused(self, case):
        with pytest.raises((TypeError, ValueError), match=r"MLPRegressor: expected y: numbers, got .*days since"):
            regressor().fit(X, NO_TARGETS[case])


NUMBERS = pd.DataFrame(X, columns=list("abcd")).assign(e=line > 0)
SHUFFLED = NUMBERS.sample(frac=1, random_state=0)
FRAMES = {
    "pandas": NUMBERS,
    "nullable": NUMBERS.convert_dtypes(),
    "Arrow in pandas": NUMBERS.convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.from_pandas(NUMBERS),
    "pyarrow": pa.table(NUMBERS),
    "pyarrow with an index of pandas": pa.Table.from_pandas(NUMBERS.set_axis(np.arange(N)[::-1], axis=0)),
    "pyarrow with a named index": pa.Table.from_pandas(NUMBERS.set_axis(pd.Index(np.arange(N), name="id"), axis=0)),
    "sparse columns": NUMBERS.astype(float).astype(pd.SparseDtype("float")),
}
NUMBERS_ONLY = NUMBERS.to_numpy(float)
ORDERS = {
    "F-ordered": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": X[::-1].copy()[::-1],
    "read-only": np.frombuffer(X.tobytes()).reshape(N, D),
    "a list": X.tolist(),
    "rows of tuples": tuple(map(tuple, X)),
    "big endian": X.astype(">f8"),
}


@pytest.mark.parametrize("case", [*FRAMES, *ORDERS])
class TestRows:
    """Each is what the plain array of its numbers is, at every door."""

    def given(self, case):
        return (FRAMES[case], NUMBERS_ONLY) if case in FRAMES else (ORDERS[case], X)

    def test_of_estimators(self, case):
        rows, plain = self.given(case)
        a, b = (regressor(scale_inputs=True).fit(each, line) for each in (rows, plain))
        assert_allclose(a.predict(rows), b.predict(plain), rtol=1e-12)
        assert a.n_features_in_ == plain.shape[1]

    def test_of_the_trainer(self, case):
        rows, plain = self.given(case)
        results = []
        for each in (rows, plain):
            net = bp.Sequential(bp.Linear(plain.shape[1], 1), seed=0, dtype="float64")
            trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01))
            trainer.fit(each, line, epochs=2, validation_data=(each, line), verbose=0)
            history = bp.minimize(net, bp.LeastSquares(), each, line, iterations=1, verbose=0)
            results.append([trainer.evaluate(each, line)["loss"], history[-1].loss, *net.predict(each)[:, 0]])
        assert_allclose(results[0], results[1], rtol=1e-12)


class Frame:
    """What a frame of dask looks like from outside."""

    columns, partitions = ("a", "b"), ()

    def compute(self):
        """To be called by the user."""


def net():
    return bp.Sequential(bp.Linear(4, 1), seed=0)


def trainer():
    return bp.Trainer(net(), bp.LeastSquares(), bp.SGD(0.01))


DOORS = {
    "fit": lambda rows: trainer().fit(rows, line, verbose=0),
    "evaluate": lambda rows: trainer().evaluate(rows, line),
    "predict": lambda rows: net().predict(rows),
    "minimize": lambda rows: bp.minimize(net(), bp.LeastSquares(), rows, line, verbose=0),
}
NO_ROWS = {
    "sparse matrix": (scipy.sparse.csr_matrix(X), TypeError, "X a dense array, got a sparse one"),
    "sparse array": (scipy.sparse.coo_array(X), TypeError, "X a dense array, got a sparse one"),
    "none": (None, TypeError, "X an array of numbers, got None"),
    "lazy": (pl.LazyFrame(X), TypeError, r"a lazy one \(LazyFrame\). Pass .collect\(\)"),
    "dask": (Frame(), TypeError, r"a lazy one \(Frame\). Pass .compute\(\)"),
    "words": (NUMBERS.assign(e="a").iloc[:, 1:], TypeError, "X numbers, got an array of dtype object"),
    "numbers as words": (NUMBERS.assign(e="1").iloc[:, 1:], TypeError, "X numbers, got an array of dtype object"),
    "a hole": (NUMBERS.convert_dtypes().iloc[:, 1:].mask(NUMBERS.iloc[:, 1:] > 2), ValueError, "got nan at row"),
    "masked": (np.ma.masked_array(X, X > 2), TypeError, "got a masked array"),
    "ragged": ([[1.0, 2.0], [1.0]], ValueError, "rows of unequal length"),
}


@pytest.mark.parametrize("case", NO_ROWS)
@pytest.mark.parametrize("door", DOORS)
def test_rows_that_the_trainer_refuses(door, case):
    rows, kind, words = NO_ROWS[case]
    with pytest.raises(kind, match=words):
        DOORS[door](rows)


REFUSED = {
    "X none": (lambda: regressor().fit(None, line), "X: an array or a frame, one example per row, got None"),
    "X none in predict": (lambda: regressor().fit(X, line).predict(None), "MLPRegressor.predict: .*got None"),
    "ragged X": (lambda: regressor().fit([[1, 2], [1]], [1, 2]), "X a rectangular array"),
    "lazy X": (lambda: regressor().fit(pl.LazyFrame(X), line), r"a lazy frame. Pass frame.collect\(\)"),
    "X of dask": (lambda: regressor().fit(Frame(), line), r"a lazy frame. Pass frame.compute\(\)"),
    "lazy y": (lambda: regressor().fit(X, Frame()), r"y in memory, got a lazy one \(Frame\). Pass .compute\(\)"),
    "the name in a list": (
        lambda: regressor().fit(NUMBERS, ["a"]),
        r"y with one target for each row, got \['a'\]. For the column of that name pass 'a' itself",
    ),
    "a column twice": (
        lambda: regressor().fit(pd.DataFrame(X, columns=list("abca")), line),
        r"columns with different names, got \['a'\] more than once",
    ),
    "a column of words twice": (
        lambda: regressor().fit(pd.DataFrame(np.full((N, 2), "x"), columns=list("aa")), line),
        r"columns with different names, got \['a'\] more than once",
    ),
    "a column twice in Arrow": (
        lambda: regressor().fit(pa.table([X[:, 0], X[:, 1]], names=["a", "a"]), line),
        r"columns with different names, got \['a'\] more than once",
    ),
    "inf in a frame": (
        lambda: regressor().fit(NUMBERS.assign(b=np.where(codes == 2, np.inf, 1.0)), line),
        "finite numbers in column 'b', got inf at row",
    ),
    "inf in a frame later": (
        lambda: regressor().fit(NUMBERS, line).predict(NUMBERS.assign(b=np.inf)),
        "finite numbers in column 'b', got inf at row 0",
    ),
    "holes of an array and impute": (
        lambda: regressor(missing="impute").fit(np.where(X > 2, np.nan, X), line),
        r"X without NaN, got NaN at row \d+, column \d. missing='impute' fills the holes of frames",
    ),
    "columns of the frame later": (
        lambda: regressor().fit(NUMBERS, line).predict(NUMBERS.rename(columns={"a": "z"})),
        "z",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(case):
    call, words = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=words):
        call()


@pytest.mark.parametrize("name", ["LeastSquares", "Huber", "BinaryCrossEntropy", "CrossEntropy"])
def test_a_loss_is_not_given_rows(name):
    """`predict` returns rows; y[:, None] would make one example of them all."""
    y = line if name in ("LeastSquares", "Huber") else (line > 0).astype(int)
    f = bp.Sequential(bp.Linear(4, 2 if name == "CrossEntropy" else 1), seed=0).predict(X)
    with pytest.raises(ValueError, match=re.escape("A loss takes columns, and predict returns rows: pass f.T.")):
        getattr(bp, name)().forward(f, y)
    assert getattr(bp, name)().forward(f.T, y) < 100


class TestScaling:
    @pytest.mark.parametrize("factor", [1e155, 1e-155, 1e-170, 1e300, 1e-300])
    def test_is_that_of_any_unit(self, factor):
        a = regressor(scale_inputs=True, scale_targets=True).fit(X * factor, line * factor)
        b = regressor(scale_inputs=True, scale_targets=True).fit(X, line)
        assert_allclose(a.predict(X * factor) / factor, b.predict(X), rtol=1e-6)

    @pytest.mark.parametrize("w", [None, np.arange(N) % 3])
    def test_is_the_mean_and_the_deviation(self, w):
        mean, scale = standardization(X, w)
        assert_allclose(mean, np.average(X, axis=0, weights=w), rtol=1e-12, atol=1e-15)
        assert_allclose(scale, np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w)), rtol=1e-12)

    def test_a_column_that_was_constant_moves_nothing(self, tmp_path):
        """As in a Table: whatever it is later, nothing is known of what it does."""
        rows, other = np.column_stack([X, np.full(N, 7.0)]), np.column_stack([X, np.full(N, 2000.0)])
        with pytest.warns(bp.TrainingAdvice, match=r"columns \[4\] hold one value only"):
            model = regressor(scale_inputs=True).fit(rows, line)
        assert_array_equal(model.predict(other), model.predict(rows))
        model.save(tmp_path / "m.safetensors")
        assert_array_equal(MLPRegressor.load(tmp_path / "m.safetensors").predict(other), model.predict(rows))
        with pytest.warns(bp.TrainingAdvice, match=r"columns \['e'\] hold one value only"):
            regressor(scale_inputs=True).fit(pd.DataFrame(rows, columns=list("abcde")), line)


class TestAdvice:
    def test_a_regression_of_no_use_is_told_to_scale(self):
        far = 1000 + 50 * line
        with pytest.warns(ConvergenceWarning, match=r"R² = -.*scale_inputs=True and scale_targets=True") as caught:
            regressor(learning_rate_init=1e-4).fit(X, far)
        assert str(caught[0].message).startswith("Stochastic Optimizer: Maximum iterations (3) reached")
        with pytest.warns(ConvergenceWarning) as caught:
            regressor(scale_inputs=True, scale_targets=True).fit(X, far)
        assert "R²" not in str(caught[0].message)

    def test_scikit_learns_filters_of_lbfgs_go_on_filtering(self):
        with pytest.warns(ConvergenceWarning, match=r"^lbfgs failed to converge after 1 iteration\(s\).*max_iter=1"):
            MLPRegressor(solver="lbfgs", max_iter=1).fit(X, line)


STARTS = """
import sys, warnings
{first}
before = set(sys.modules)
from backprop.estimators import MLPClassifier
X = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0]]
warnings.simplefilter("ignore")
MLPClassifier((5,), max_iter=3).fit(X, [0, 1, 0, 1]).predict(X)
print(*sorted(name for name in set(sys.modules) - before if name.count(".") < 2))
"""


def test_a_first_fit_imports_no_more_than_it_needs():
    """Less than scikit-learn's, which brings its metrics, its model selection and its callbacks."""
    first = "import sklearn.base, sklearn.utils.validation, sklearn.utils.multiclass"
    done = subprocess.run(
        [sys.executable, "-c", STARTS.format(first=first)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "backprop.estimators" in done
    brought = {
        "scipy.stats",
        "pandas",
        "scipy.optimize",
        "matplotlib",
        "polars",
        "pyarrow",
        "backprop.gradients",
        "rich",
    }
    brought |= {
        f"sklearn.{name}" for name in ("metrics", "model_selection", "preprocessing", "callback", "neural_network")
    }
    assert not brought & set(done)
