"""Frames of every library by column name, and Parquet in pieces: what comes out, what is refused, what stays in memory."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from test_bad_input import assert_refused

import backprop as bp


def _converted(columns, **options):
    with np.errstate(invalid="ignore"):  # of inf as a whole number, which pandas tries
        return pd.DataFrame(columns).convert_dtypes(**options)


# The same columns as a frame of each library, and of each way in which pandas keeps them.
FRAMES = {
    "pandas": pd.DataFrame,
    "pandas, objects": lambda columns: pd.DataFrame(columns, dtype=object),
    "pandas, nullable": lambda columns: _converted(columns),
    "pandas, arrow": lambda columns: _converted(columns, dtype_backend="pyarrow"),
    "pandas, another index": lambda columns: pd.DataFrame(columns, index=[7] * len(next(iter(columns.values())))),
    "polars": lambda columns: pl.DataFrame(columns, strict=False),
    "pyarrow": pa.table,
}
every_library = pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)

PEOPLE = {
    "age": [30, 40, 50, 40],
    "height": [1.5, None, 1.75, 2.0],
    "member": [True, False, True, True],
    "town": ["Ulm", "Bonn", None, "Ulm"],
    "plan": ["free", "paid", "paid", "free"],
}
FEATURES = ["age", "height", "member", "town=Bonn", "town=Ulm"]


def people(**changed):
    """PEOPLE with other columns; None leaves one out."""
    columns = PEOPLE | changed
    return {name: values for name, values in columns.items() if values is not None}


def fitted(**settings):
    table = bp.Table("plan", **{"missing": "impute"} | settings)
    table.fit(pd.DataFrame(PEOPLE))
    return table


class TestFit:
    @every_library
    def test_every_library_by_hand(self, make):
        table = bp.Table("plan", missing="impute", dtype="float64")
        X, y = table.fit(make(PEOPLE))
        assert table.columns == ["age", "height", "member", "town"]
        assert table.feature_names == FEATURES
        assert table.categories == {"town": ["Bonn", "Ulm"]}
        assert table.classes.tolist() == ["free", "paid"]
        assert_array_equal(y, [0, 1, 1, 0])
        sigma = math.sqrt(50)
        assert_allclose(X[:, 0], np.array([-10, 0, 10, 0]) / sigma, atol=1e-15)
        heights = np.array([1.5, 1.75, 2.0])
        assert_allclose(X[[0, 2, 3], 1], (heights - 1.75) / heights.std(), atol=1e-15)
        assert X[1, 1] == 0
        assert_allclose(X[:, 2], (np.array([1, 0, 1, 1]) - 0.75) / math.sqrt(0.1875), rtol=1e-14)
        assert_array_equal(X[:, 3:], [[0, 1], [1, 0], [0, 1], [0, 1]])

    def test_against_scikit_learn(self):
        rng = np.random.default_rng(0)
        n = 200
        frame = pd.DataFrame(
            {"a": rng.normal(5, 3, n), "b": rng.integers(0, 9, n) * 1e6, "c": rng.choice(list("xyz"), n)}
        )
        frame.loc[rng.random(n) < 0.1, "a"] = np.nan
        frame.loc[rng.random(n) < 0.1, "c"] = None
        table = bp.Table(missing="impute", dtype="float64")
        X, y = table.fit(frame)
        assert y is None
        numbers = make_pipeline(StandardScaler(), SimpleImputer())  # σ is that of the values that are there
        words = make_pipeline(SimpleImputer(missing_values=None, strategy="most_frequent"), OneHotEncoder())
        theirs = make_column_transformer((numbers, ["a", "b"]), (words, ["c"]), sparse_threshold=0)
        words_as_objects = frame.astype({"c": object}).where(frame.notna(), None)
        assert_allclose(X, theirs.fit_transform(words_as_objects.astype({"a": float, "b": float})), atol=1e-12)

    @every_library
    def test_without_scaling(self, make):
        X, _ = bp.Table("plan", missing="impute", scale=False, dtype="float64").fit(make(PEOPLE))
        assert_array_equal(X[:, :3], [[30, 1.5, 1], [40, 1.75, 0], [50, 1.75, 1], [40, 2, 1]])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_dtype(self, dtype):
        X, y = bp.Table("y", dtype=dtype).fit(pd.DataFrame({"x": [1, 2], "y": [3, 4]}))
        assert X.dtype == y.dtype == dtype
        assert X.flags.c_contiguous

    @pytest.mark.parametrize("values", [[3, 3, 3], [0.1] * 3, ["a"] * 3, [True] * 3, [1.0, None, 1.0]], ids=str)
    def test_constant_columns_are_named_and_say_nothing(self, values):
        table = bp.Table(missing="impute", unknown="ignore")
        frame = pd.DataFrame({"x": [1, 2, 3], "same": values})
        with pytest.warns(UserWarning, match=r"Table\.fit: columns \['same'\] hold one value only") as caught:
            X, _ = table.fit(frame)
        assert caught[0].filename == __file__
        assert_array_equal(X[:, 1], float(values[0] == "a"))
        if values[0] != "a":  # what was constant in training has weights that nobody has trained
            other = frame.assign(same=[not values[0]] * 3 if values[0] is True else [99] * 3)
            assert_array_equal(table.transform(other)[:, 1], 0)

    @pytest.mark.parametrize(
        "x", [[0.0, 5e-324], [1e308, -1e308, 1.7e308], [1e-300, 3e-300], [1e15, 1e15 + 2], [0, 2**63]], ids=str
    )
    def test_extreme_numbers(self, x):
        frame = pl.DataFrame({"x": np.array(x)})
        with np.errstate(all="raise", under="ignore", over="ignore"):
            X, _ = bp.Table(dtype="float64").fit(frame)
        assert np.isfinite(X).all()
        if x[1] != 5e-324:
            assert_allclose([X.mean(), X.std()], [0, 1], atol=1e-12)

    @pytest.mark.parametrize(
        "town",
        [
            pd.Series(["b", "a", "b"], dtype="category"),
            pd.Categorical(["b", "a", "b"], categories=["b", "a"], ordered=True),
            pl.Series(["b", "a", "b"], dtype=pl.Categorical),
            pl.Series(["c", "b", "a", "b"], dtype=pl.Categorical)[1:],
            pl.Series(["b", "a", "b"], dtype=pl.Enum(["b", "a"])),
            pa.array(["b", "a", "b"]).dictionary_encode(),
            pd.Series(["b", "a", "b"], dtype=object),
            pd.Series([np.str_("b"), "a", "b"], dtype=object),
            pd.Series(["b", "a", "b"], dtype="string"),
        ],
        ids=lambda town: f"{type(town).__module__} {getattr(town, 'dtype', getattr(town, 'type', ''))}",
    )
    def test_categories_of_every_type(self, town):
        home = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}[
            type(town).__module__.split(".")[0]
        ]
        table = bp.Table()
        X, _ = table.fit(home({"town": town}))
        assert table.categories == {"town": ["a", "b"]}
        assert_array_equal(X, [[0, 1], [1, 0], [0, 1]])
        assert_array_equal(table.transform(pd.DataFrame({"town": ["a"]})), [[1, 0]])

    @pytest.mark.parametrize(
        "town",
        [
            pd.Categorical(["b", None, "b"], categories=["c", "b", "a"]),
            pd.Categorical(["b", None, "b"], categories=["c", "b", "a"], ordered=True),
            pl.Series(["b", None, "b"], dtype=pl.Enum(["b", "c", "a"])),
            pa.DictionaryArray.from_arrays(pa.array([1, None, 1]), pa.array(["a", "b", "c"])),
            pl.Series([None, None], dtype=pl.Enum(["b", "c", "a"])),
        ],
        ids=["pandas", "pandas, ordered", "polars", "pyarrow", "nothing but levels"],
    )
    def test_levels_of_the_dtype_announce_categories(self, town):
        """So that the first piece of a stream need not hold them all."""
        home = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}[
            type(town).__module__.split(".")[0]
        ]
        table = bp.Table(missing="impute")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table.fit(home({"town": town}))
        assert table.categories == {"town": ["a", "b", "c"]}
        assert_array_equal(table.transform(pl.DataFrame({"town": ["c", "a"]})), [[0, 0, 1], [1, 0, 0]])

    @pytest.mark.parametrize("values", [[3, 1, 2], [True, False, True], [1.5, 2.5, 1.5]], ids=str)
    def test_categories_that_are_no_text_match_the_plain_values(self, values):
        """JSON and polars have no categories of numbers: there they come as numbers."""
        learnt = pd.DataFrame({"month": pd.Categorical(values)})
        plain = learnt.astype({"month": type(values[0])})
        table = bp.Table()
        X, _ = table.fit(learnt)
        for frame in (
            plain,
            pl.from_pandas(plain),
            pl.DataFrame([{"month": value} for value in values]),
            pa.table(plain),
        ):
            assert_array_equal(table.transform(frame), X)
        other = bp.Table()  # and the other way round
        X, _ = other.fit(plain)
        assert_array_equal(other.transform(learnt), X)

    def test_a_number_that_is_no_category(self):
        table = bp.Table()
        table.fit(pd.DataFrame({"month": pd.Categorical([3, 1, 2])}))
        with pytest.raises(ValueError, match=r"expected one of .1, 2, 3. in column 'month', got 7.0 at row 1"):
            table.transform(pl.DataFrame({"month": [3, 7]}))
        with pytest.raises(
            TypeError, match="expected categories that are numbers in column 'month', as in fit, got text"
        ):
            table.transform(pl.DataFrame({"month": ["3"]}))

    def test_classes_that_are_numbers_match_the_plain_values(self):
        table = bp.Table("kind")
        frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "kind": pd.Categorical([2, 1, 2])})
        _, y = table.fit(frame)
        assert_array_equal(table.targets(pl.DataFrame({"kind": [2, 1, 2]})), y)

    def test_the_index_of_pandas_is_no_column(self):
        """A shuffled frame of pandas has its old row numbers with it, which in rows sorted by the target give that away."""
        frame = pd.DataFrame({"x": [3.0, 1.0, 2.0], "town": ["a", "b", "a"]}, index=[2, 0, 1])
        for named in (frame, frame.rename_axis("id")):
            assert bp.Table().fit(pa.Table.from_pandas(named))[0].shape == (3, 3)
        table = bp.Table()
        table.fit(frame)
        assert table.transform(pa.Table.from_pandas(frame)).shape == (3, 3)

    @pytest.mark.parametrize(
        ("make", "values"), [(pd.Categorical, [3, 1, 3]), (pd.Categorical, [True, False, True])], ids=str
    )
    def test_categories_that_are_no_text(self, make, values):
        table = bp.Table()
        X, _ = table.fit(pd.DataFrame({"code": make(values)}))
        assert table.categories == {"code": sorted(set(values))}
        assert_array_equal(X, [[0, 1], [1, 0], [0, 1]])
        again = bp.Table.from_state(json.loads(json.dumps(table.state())))
        assert_array_equal(again.transform(pd.DataFrame({"code": make(values)})), X)

    def test_numbers_of_every_type(self):
        columns = {
            "object": pd.Series([1, 2.5, None], dtype=object),
            "decimal": pd.Series([Decimal(1), Decimal("2.5"), None], dtype=object),
            "numpy": pd.Series([np.int8(1), np.float32(2.5), np.nan], dtype=object),
            "sparse": pd.arrays.SparseArray([1, 2.5, np.nan]),
            "float32": np.array([1, 2.5, np.nan], "f4"),
        }
        X, _ = bp.Table(scale=False, missing="impute").fit(pd.DataFrame(columns))
        assert_array_equal(X, [[1] * 5, [2.5] * 5, [1.75] * 5])

    @every_library
    @pytest.mark.parametrize("values", [[2**60 + 1, 0], [2**60 + 1, None, 0]], ids=str)
    def test_whole_numbers_beyond_those_of_floats_are_rounded(self, make, values):
        X, _ = bp.Table(missing="impute", dtype="float64", scale=False).fit(make({"x": values}))
        assert X[0, 0] == float(values[0])

    def test_a_second_fit_forgets_the_first(self):
        table = fitted()
        table.fit(pd.DataFrame({"x": [1.0, 2.0], "plan": [3.0, 4.0]}))
        assert (table.columns, table.categories, table.classes) == (["x"], {}, None)

    def test_the_frame_is_not_changed(self):
        frame = pd.DataFrame(PEOPLE)
        before = frame.copy(deep=True)
        table = bp.Table("plan", missing="impute")
        table.fit(frame)
        table.transform(frame)
        pd.testing.assert_frame_equal(frame, before)


class TestTransform:
    @every_library
    def test_columns_are_matched_by_name(self, make):
        table = fitted()
        expected, _ = fitted().fit(pd.DataFrame(PEOPLE))
        assert_array_equal(table.transform(make(PEOPLE)), expected)
        backwards = dict(reversed(people(plan=None).items()))
        assert_array_equal(table.transform(make(backwards)), expected)

    @every_library
    def test_fills_with_what_was_learnt(self, make):
        one = people(age=[None], height=[None], member=[None], town=[None], plan=None)
        assert_array_equal(fitted().transform(make(one)), [[0, 0, 0, 0, 1]])
        frame = make(people(age=[60, None], height=[9.0, None], member=[True, None], town=["Bonn", None], plan=None))
        assert_array_equal(fitted().transform(frame)[1], [0, 0, 0, 0, 1])

    def test_of_equally_frequent_categories_the_first_is_filled_in(self):
        table = bp.Table(missing="impute")
        assert_array_equal(table.fit(pl.DataFrame({"c": ["b", "a", None]}))[0], [[0, 1], [1, 0], [1, 0]])

    @every_library
    def test_unknown_categories_may_be_zeros(self, make):
        X = fitted(unknown="ignore").transform(make(people(town=["Ulm", "Köln", "Bonn", "Köln"], plan=None)))
        assert_array_equal(X[:, 3:], [[0, 1], [0, 0], [1, 0], [0, 0]])

    def test_trains_and_predicts(self):
        rng = np.random.default_rng(0)
        n = 300
        frame = pl.DataFrame({"x": rng.normal(1e4, 500, n), "c": rng.choice(["u", "v"], n)})
        frame = frame.with_columns(
            y=pl.when((pl.col("x") > 1e4) ^ (pl.col("c") == "u")).then(pl.lit("yes")).otherwise(pl.lit("no"))
        )
        table = bp.Table("y")
        X, y = table.fit(frame)
        net = bp.Sequential(bp.Linear(X.shape[1], 16), bp.Tanh(), bp.Linear(16, 2), seed=0)
        bp.Trainer(net, bp.CrossEntropy(), bp.Adam(0.01)).fit(X, y, epochs=40, verbose=0)
        found = table.labels(net.predict(table.transform(frame.select("c", "x"))))
        assert np.mean(found == frame["y"].to_numpy()) > 0.9


class TestTargets:
    @every_library
    @pytest.mark.parametrize(
        ("values", "y", "classes"),
        [
            ([3, 1, 2], [3.0, 1.0, 2.0], None),
            ([0.5, -1.0, 2.0], [0.5, -1.0, 2.0], None),
            (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
            ([True, False, True], [1, 0, 1], [False, True]),
        ],
        ids=str,
    )
    def test_by_name(self, make, values, y, classes):
        table = bp.Table("y")
        frame = make({"x": [1, 2, 3], "y": values})
        for found in (table.fit(frame)[1], table.targets(frame)):
            assert_array_equal(found, y)
            assert found.dtype.kind == ("f" if classes is None else "i")
        assert (None if table.classes is None else table.classes.tolist()) == classes
        assert table.columns == ["x"]

    @pytest.mark.parametrize(
        "make",
        [list, tuple, np.array, pd.Series, pl.Series, pd.Index, pa.array, lambda y: pa.chunked_array([y])],
        ids=["list", "tuple", "array", "pandas", "polars", "index", "pyarrow", "chunked"],
    )
    @pytest.mark.parametrize("values", [["b", "a", "b"], [1.5, 2.0, 3.0], [True, False, True]], ids=str)
    def test_by_itself(self, make, values):
        by_name = bp.Table("y")
        expected = by_name.fit(pd.DataFrame({"x": [1, 2, 3], "y": values}))[1]
        table = bp.Table()
        found = table.fit(pl.DataFrame({"x": [1, 2, 3]}), make(values))[1]
        assert_array_equal(found, expected)
        assert_array_equal(table.targets(make(values[:2])), expected[:2])

    def test_labels(self):
        table = fitted()
        assert table.labels([[2.0, 1.0], [-1.0, 3.0]]).tolist() == ["free", "paid"]
        assert table.labels([[2.0], [-1.0], [0.0]]).tolist() == ["paid", "free", "free"]

    @every_library
    def test_scaled_by_hand(self, make):
        table = bp.Table("age", scale_target=True)
        frame = make(people(height=None, town=None))
        _, y = table.fit(frame)
        assert_allclose(y, np.array([-1, 0, 1, 0]) * math.sqrt(2), rtol=1e-6)  # mean 40, σ = √50
        assert y.dtype == np.float32
        assert_allclose(table.targets(frame), y, rtol=0)
        assert_allclose(table.values([[0.0], [math.sqrt(2)], [-1.0]]), [40, 50, 40 - math.sqrt(50)], rtol=1e-12)

    @pytest.mark.parametrize("scale", [1e-300, 1e-9, 1, 1e9, 1e300])
    def test_scaled_targets_are_the_same_at_any_scale(self, scale):
        y = np.array([1.0, 2.0, 4.0, 8.0])
        table = bp.Table(scale_target=True)
        _, found = table.fit(pd.DataFrame({"x": [1, 2, 3, 4]}), y * scale)
        assert_allclose(found, (y - y.mean()) / y.std(), rtol=1e-6)
        values = table.values(found[:, None])
        assert values.shape == (4,)
        assert_allclose(values, y * scale, rtol=1e-6)

    def test_values_that_are_all_the_same(self):
        table = bp.Table(scale_target=True)
        _, y = table.fit(pd.DataFrame({"x": [1, 2]}), [7.0, 7.0])
        assert y.tolist() == [0, 0]
        assert table.values([[0.0], [1.0]]).tolist() == [7, 8]

    def test_values_without_scaling_are_the_outputs(self):
        table = bp.Table()
        table.fit(pd.DataFrame({"x": [1, 2]}), [3.0, 9.0])
        assert table.values([[0.25], [4.0]]).tolist() == [0.25, 4]
        assert table.values([[0.25, 1.0]]).tolist() == [[0.25, 1]]  # as of several quantiles

    def test_classes_are_not_scaled(self):
        table = bp.Table("plan", scale_target=True)
        _, y = table.fit(pd.DataFrame(people(height=None, town=None)))
        assert y.tolist() == [0, 1, 1, 0]


DATES = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)]
REFUSED_COLUMNS = {  # two values and more of a column "x", and what is said of them
    "missing number": ([1.0, None, 2.0, None], ValueError, ["no missing values", "row 1", "first of 2", "impute"]),
    "missing word": (["a", "b", None], ValueError, ["no missing values", "row 2", "impute"]),
    "missing boolean": ([True, None, False], ValueError, ["no missing values", "row 1"]),
    "nothing": ([None, None], ValueError, ["nothing but missing", "Leave the column out"]),
    "nan only": ([math.nan, math.nan], ValueError, ["nothing but missing"]),
    "inf": ([1.0, 2.0, -math.inf, math.inf], ValueError, ["finite", "-inf at row 2", "first of 2"]),
    "too large for float32": ([1e300, 1.0], ValueError, ["range of float32", "1e+300 at row 0", "Scale"]),
    "dates": (DATES, TypeError, ["date", "days since"]),
    "times": ([datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 2)], TypeError, ["days since"]),
    "durations": ([datetime.timedelta(1), datetime.timedelta(2)], TypeError, ["'x'", "days since"]),
    "lists": ([[1], [2]], TypeError, ["Leave the column out"]),
    "names of the rows": ([str(i) for i in range(101)], ValueError, ["repeat", "101 different ones in 101 rows"]),
    "bytes": ([b"a", b"b"], TypeError, ["bytes"]),
}
REFUSED_OBJECTS = {  # what only pandas can hold
    "number and word": ([1, "a", 2], ["1 at row 0", "'a' at row 1"]),
    "word and number late": (["a"] * 150 + [3], ["'a' at row 0", "3 at row 150"]),
    "boolean and number": ([True, None, 2], ["True at row 0", "2 at row 2"]),
    "nothing, then a number, then a word": ([None] * 120 + [3, "a"], ["3 at row 120", "'a' at row 121"]),
    "complex": ([1j, 2j], ["complex"]),
    "a huge integer": ([10**400, 1], ["finite", "row 0"]),
    "periods": (list(pd.period_range("2024", periods=2, freq="D")), ["Period"]),
}
REFUSED_FRAMES = {
    "a lazy frame": (pl.LazyFrame({"x": [1]}), TypeError, ["lazy", ".collect()"]),
    "an array": (np.ones((2, 2)), TypeError, ["ndarray", "trainer"]),
    "a dict": ({"x": [1]}, TypeError, ["pandas, polars or pyarrow", "dict"]),
    "a series": (pd.Series([1]), TypeError, ["Series"]),
    "nothing": (None, TypeError, ["NoneType"]),
    "a number for a name": (pd.DataFrame([[1, 2]]), TypeError, ["names that are text", "0"]),
    "levels of names": (
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
        TypeError,
        ["names that are text"],
    ),
    "names twice, pandas": (pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, ["duplicates", "'a'"]),
    "names twice, pyarrow": (pa.table([[1], [2]], names=["a", "a"]), ValueError, ["duplicates", "'a'"]),
    "no rows": (pl.DataFrame({"x": []}), ValueError, ["(0, 1)"]),
    "no columns": (pd.DataFrame(index=[1, 2]), ValueError, ["(2, 0)"]),
    "nothing at all": (pa.table({}), ValueError, ["(0, 0)"]),
}
REFUSED_LATER = {  # columns of a later frame that differ from PEOPLE
    "absent": ({"age": None}, ValueError, ["columns ['age']"]),
    "renamed": ({"age": None, "Age": [1] * 4}, ValueError, ["columns ['age']", "Close to it: 'Age'"]),
    "added": ({"weight": [1] * 4}, ValueError, ["as in fit", "['weight']", "Leave them out"]),
    "text for numbers": ({"age": ["30"] * 4}, TypeError, ["numbers in column 'age'", "text"]),
    "booleans for numbers": ({"age": [True] * 4}, TypeError, ["numbers in column 'age'", "booleans"]),
    "numbers for text": ({"town": [1.0] * 4}, TypeError, ["text in column 'town'", "numbers"]),
    "numbers for booleans": ({"member": [2, 1, 0, 1]}, TypeError, ["booleans in column 'member'", "numbers"]),
    "unknown": (
        {"town": ["Ulm", "Köln", "Ulm", "Köln"]},
        ValueError,
        ["['Bonn', 'Ulm']", "'Köln' at row 1", "first of 2"],
    ),
    "inf": ({"height": [1.0, 1.0, math.inf, 1.0]}, ValueError, ["finite", "'height'", "row 2"]),
    "too large": ({"height": [1.0, 1e300, 1.0, 1.0]}, ValueError, ["float32", "'height'", "row 1"]),
    "dates": ({"age": DATES * 2}, TypeError, ["'age'", "days since"]),
}
NEVER_A_TARGET = {
    "absent": (None, ValueError, ["columns ['y']"]),
    "missing": ([1.0, None, 2.0], ValueError, ["no missing values", "'y'", "row 1"]),
    "missing class": (["a", "b", None], ValueError, ["no missing values", "'y'", "row 2"]),
    "nothing": ([None] * 3, ValueError, ["'y'", "row 0", "first of 3"]),
    "one class": (["a"] * 3, ValueError, ["two classes", "only 'a'"]),
    "one boolean": ([True] * 3, ValueError, ["two classes", "only True"]),
    "inf": ([1.0, math.inf, 2.0], ValueError, ["finite", "'y'", "row 1"]),
    "too large": ([1.0, 1e300, 2.0], ValueError, ["float32", "'y'", "row 1"]),
    "dates": ([*DATES, DATES[0]], TypeError, ["'y'", "days since"]),
}


class Unchanged:
    """A fitted table that a failing call leaves as it was."""

    def __init__(self, **settings):
        self.table = bp.Table("plan", **settings)
        self.table.fit(pd.DataFrame(people(height=[1.5, 1.6, 1.75, 2.0], town=["Ulm", "Bonn", "Ulm", "Ulm"])))
        self.before = self.table.state()

    def refuses(self, call, error, *parts):
        assert_refused(lambda: call(self.table), error, *parts)
        assert self.table.state() == self.before


class TestRefused:
    @every_library
    @pytest.mark.parametrize("case", REFUSED_COLUMNS)
    def test_columns_in_fit(self, make, case):
        values, error, parts = REFUSED_COLUMNS[case]
        frame = make({"x": values, "plan": list(range(len(values)))})
        Unchanged(scale=False).refuses(lambda table: table.fit(frame), error, "Table.fit", "'x'", *parts)

    @pytest.mark.parametrize("case", REFUSED_OBJECTS)
    def test_objects_in_fit(self, case):
        values, parts = REFUSED_OBJECTS[case]
        frame = pd.DataFrame({"x": pd.Series(values, dtype=object), "plan": list(range(len(values)))})
        error = ValueError if "finite" in parts else TypeError
        Unchanged(missing="impute").refuses(lambda table: table.fit(frame), error, "Table.fit", "'x'", *parts)

    @pytest.mark.parametrize("door", ["fit", "transform", "targets"])
    @pytest.mark.parametrize("case", REFUSED_FRAMES)
    def test_frames(self, case, door):
        frame, error, parts = REFUSED_FRAMES[case]
        Unchanged().refuses(lambda table: getattr(table, door)(frame), error, f"Table.{door}", *parts)

    @every_library
    @pytest.mark.parametrize("case", REFUSED_LATER)
    def test_columns_in_transform(self, make, case):
        changed, error, parts = REFUSED_LATER[case]
        frame = make(people(**{"height": [1.5] * 4, "town": ["Ulm"] * 4} | changed))
        Unchanged().refuses(lambda table: table.transform(frame), error, "Table.transform", *parts)

    @every_library
    @pytest.mark.parametrize("name", ["age", "height", "member", "town"])
    def test_missing_values_in_transform(self, make, name):
        columns = people(height=[1.5] * 4, town=["Ulm"] * 4)
        frame = make(columns | {name: [None, columns[name][1], None, columns[name][3]]})
        parts = ["Table.transform", f"'{name}'", "row 0", "first of 2"]
        Unchanged().refuses(lambda table: table.transform(frame), ValueError, *parts)
        frame = make(columns | {name: [None] * 4})
        Unchanged().refuses(lambda table: table.transform(frame), ValueError, f"'{name}'", "first of 4")

    @every_library
    @pytest.mark.parametrize("case", NEVER_A_TARGET)
    def test_targets_in_fit(self, make, case):
        values, error, parts = NEVER_A_TARGET[case]
        frame = make({"x": [1, 2, 3]} | ({} if values is None else {"y": values}))
        for missing in ("refuse", "impute"):
            assert_refused(
                lambda missing=missing: bp.Table("y", missing=missing).fit(frame), error, "Table.fit", *parts
            )

    @every_library
    def test_a_class_that_fit_has_not_seen(self, make):
        frame = make(people(plan=["free", "gold", "free", "free"]))
        parts = ["Table.targets", "['free', 'paid']", "'gold' at row 1"]
        Unchanged(unknown="ignore").refuses(lambda table: table.targets(frame), ValueError, *parts)
        numbers = make(people(plan=[1, 2, 3, 4]))
        Unchanged().refuses(lambda table: table.targets(numbers), TypeError, "text in column 'plan'", "numbers")

    @pytest.mark.parametrize(
        ("y", "error", "parts"),
        [
            ([1, 2], ValueError, ["3 values", "got 2"]),
            (np.ones((3, 1)), TypeError, ["one value for each row"]),
            (pd.DataFrame({"y": [1, 2, 3]}), TypeError, ["one value for each row", "DataFrame"]),
            ("abc", TypeError, ["one value for each row", "str"]),
            ({"y": 1}, TypeError, ["dict"]),
            (3, TypeError, ["int"]),
            ([1, "a", 2], TypeError, ["1 at row 0", "'a' at row 1"]),
            ([1, None, 2], ValueError, ["missing", "row 1"]),
        ],
        ids=str,
    )
    def test_targets_by_themselves(self, y, error, parts):
        assert_refused(lambda: bp.Table().fit(pd.DataFrame({"x": [1, 2, 3]}), y), error, "Table.fit", "y", *parts)

    def test_a_target_twice(self):
        frame = pd.DataFrame(PEOPLE)
        Unchanged().refuses(lambda table: table.fit(frame, [1, 2, 3, 4]), ValueError, "'plan'", "both")

    def test_a_target_and_nothing_else(self):
        frame = pd.DataFrame({"plan": [1, 2]})
        Unchanged().refuses(lambda table: table.fit(frame), ValueError, "beside the target")

    @pytest.mark.parametrize(
        "predictions", [np.ones(3), np.ones((3, 3)), np.ones((2, 3, 2)), [["a", "b"]], [[1.0, math.nan]], []], ids=str
    )
    def test_labels(self, predictions):
        error = TypeError if isinstance(predictions, list) and "a" in np.ravel(predictions) else ValueError
        Unchanged().refuses(lambda table: table.labels(predictions), error, "Table.labels", "predictions")

    @pytest.mark.parametrize("predictions", [np.ones(3), np.ones((2, 3, 2)), [["a"]], [[math.inf]], []], ids=str)
    def test_values(self, predictions):
        table = bp.Table(scale_target=True)
        table.fit(pd.DataFrame({"x": [1, 2]}), [3.0, 9.0])
        error = TypeError if isinstance(predictions, list) and "a" in np.ravel(predictions) else ValueError
        assert_refused(lambda: table.values(predictions), error, "Table.values", "predictions")

    def test_the_order_of_calls(self):
        table, frame = bp.Table("plan"), pd.DataFrame(PEOPLE)
        for call in (lambda: table.transform(frame), lambda: table.targets(frame), table.state):
            assert_refused(call, RuntimeError, "fit to have run")
        assert_refused(lambda: table.labels([[1.0, 2.0]]), RuntimeError, "Table.labels", "no classes")
        assert_refused(lambda: table.values([[1.0]]), RuntimeError, "Table.values", "no such target")
        assert_refused(lambda: fitted().values([[1.0]]), RuntimeError, "Table.values", "numbers as target")
        without = bp.Table()
        without.fit(pd.DataFrame({"x": [1, 2]}))
        assert_refused(lambda: without.targets([1, 2]), RuntimeError, "no target")

    @pytest.mark.parametrize(
        ("settings", "error", "part"),
        [
            ({"target": 3}, TypeError, "target"),
            ({"target": ["y"]}, TypeError, "target"),
            ({"missing": "drop"}, ValueError, "missing"),
            ({"missing": None}, TypeError, "missing"),
            ({"unknown": "impute"}, ValueError, "unknown"),
            ({"scale": 1}, TypeError, "scale"),
            ({"scale_target": "yes"}, TypeError, "scale_target"),
            ({"dtype": "int32"}, ValueError, "dtype"),
        ],
        ids=str,
    )
    def test_settings(self, settings, error, part):
        assert_refused(lambda: bp.Table(**settings), error, "Table", part)

    def test_a_warning_that_is_an_error_changes_nothing(self):
        table = fitted()
        before = table.state()
        with pytest.raises(UserWarning, match="one value only"):
            table.fit(pd.DataFrame(people(age=[1] * 4)))
        assert table.state() == before


def state(**changed):
    return json.loads(json.dumps(fitted().state())) | changed


NUMBER = {"name": "x", "kind": "numbers", "mean": 1.0, "shift": 0.0, "factor": 1.0}
WORD = {"name": "x", "kind": "text", "categories": ["a", "b"], "most_frequent": "a"}
BROKEN = {
    "nothing": {},
    "no dict": [1, 2],
    "a setting too many": state(colour="red"),
    "no columns": {name: value for name, value in state().items() if name != "columns"},
    "an empty list of columns": state(columns=[]),
    "the same name twice": state(columns=[NUMBER, WORD]),
    "a name that is no text": state(columns=[NUMBER | {"name": 3}]),
    "columns that are no dicts": state(columns=[3]),
    "an unknown kind": state(columns=[NUMBER | {"kind": "dates"}]),
    "a mean that is not finite": state(columns=[NUMBER | {"mean": math.nan}]),
    "a factor that is text": state(columns=[NUMBER | {"factor": "1"}]),
    "something missing": state(columns=[{"name": "x", "kind": "numbers"}]),
    "something added": state(columns=[NUMBER | {"median": 1.0}]),
    "no categories": state(columns=[WORD | {"categories": []}]),
    "categories that are no list": state(columns=[WORD | {"categories": 3}]),
    "categories out of order": state(columns=[WORD | {"categories": ["b", "a"]}]),
    "categories twice": state(columns=[WORD | {"categories": ["a", "a"]}]),
    "categories of two kinds": state(columns=[WORD | {"categories": ["a", 1]}]),
    "categories of another kind": state(columns=[WORD | {"categories": [1, 2]}]),
    "a category that is none": state(columns=[WORD | {"most_frequent": "c"}]),
    "a dtype": state(dtype="int8"),
    "classes of another kind": state(answers={"name": "y", "kind": "text", "classes": [1, 2]}),
    "answers that are no dict": state(answers=3),
    "numbers with classes": state(answers={"name": "y", "kind": "numbers", "classes": ["a", "b"]}),
    "a sigma of zero": state(answers={"name": "y", "kind": "numbers", "classes": [], "sigma": 0.0}),
    "a mean that is text": state(answers={"name": "y", "kind": "numbers", "classes": [], "mean": "0"}),
}


class TestState:
    @pytest.mark.parametrize("settings", [{}, {"unknown": "ignore", "scale": False, "dtype": "float64"}], ids=str)
    def test_is_plain_data_and_all_there_is(self, settings):
        table, frame = fitted(**settings), pl.DataFrame(people(town=["Bonn", None, "Ulm", "Ulm"]))
        saved = table.state()
        assert saved == json.loads(json.dumps(saved, allow_nan=False))
        again = bp.Table.from_state(json.loads(json.dumps(saved)))
        assert again.state() == saved
        assert repr(again) == repr(table)
        assert (again.feature_names, again.categories) == (table.feature_names, table.categories)
        assert_array_equal(again.classes, table.classes)
        assert_array_equal(again.transform(frame), table.transform(frame))
        assert_array_equal(again.targets(frame), table.targets(frame))

    def test_keeps_the_scale_of_the_target(self):
        table = bp.Table("age", scale_target=True)
        table.fit(pl.DataFrame(people(height=None, town=None)))
        again = bp.Table.from_state(json.loads(json.dumps(table.state())))
        assert again.state() == table.state()
        assert_array_equal(again.values([[1.5]]), table.values([[1.5]]))

    def test_from_before_targets_were_scaled(self):
        old = state()
        del old["scale_target"], old["answers"]["mean"], old["answers"]["sigma"]
        assert bp.Table.from_state(old).state() == fitted().state()

    @pytest.mark.parametrize("case", BROKEN)
    def test_anything_else_is_refused(self, case):
        assert_refused(lambda: bp.Table.from_state(BROKEN[case]), ValueError, "Table")

    def test_what_is_returned_is_the_caller_s(self):
        table = fitted()
        for mine in (table.columns, table.feature_names, table.categories["town"], table.state()["columns"]):
            mine.clear()
        table.classes[:] = "x"
        assert table.feature_names == FEATURES
        assert table.classes.tolist() == ["free", "paid"]


# Without digits: numbers with another word among them are refused, as test_spreadsheets.py has it.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Nd", "Cs"]), max_size=3)
KINDS = {  # with a missing value or none
    "numbers": st.floats(-(2.0**99), 2.0**99, width=32),
    "whole numbers": st.integers(-(2**60), 2**60),
    "booleans": st.booleans(),
    "text": words,
}


@st.composite
def tables(draw):
    """Columns by name, with missing values, but in no column all of them."""
    n = draw(st.integers(2, 8))
    names = draw(st.lists(words, min_size=1, max_size=4, unique=True))
    columns = {}
    for name in names:
        of_kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        first = draw(of_kind)
        columns[name] = [first, *draw(st.lists(st.none() | of_kind, min_size=n - 1, max_size=n - 1))]
    return columns


@pytest.mark.filterwarnings("ignore:Table.fit. columns")
class TestAnyTable:
    @given(tables())
    def test_every_library_gives_the_same_bits(self, columns):
        results, states = {}, {}
        for library, make in FRAMES.items():
            table = bp.Table(missing="impute")
            results[library], _ = table.fit(make(columns))
            states[library] = table.state()
        for library, X in results.items():
            assert_array_equal(X, results["pyarrow"], err_msg=library)
            assert states[library] == states["pyarrow"], library

    @given(tables(), st.randoms(use_true_random=False))
    def test_rows_and_columns_in_any_order(self, columns, random):
        table = bp.Table(missing="impute")
        X, _ = table.fit(pa.table(columns))
        rows, names = list(range(len(X))), list(columns)
        random.shuffle(rows)
        random.shuffle(names)
        shuffled = {name: [columns[name][row] for row in rows] for name in names}
        again = bp.Table.from_state(json.loads(json.dumps(table.state())))
        assert_array_equal(again.transform(pl.DataFrame(shuffled, strict=False)), X[rows])

    @given(tables())
    def test_a_row_tells_its_categories(self, columns):
        table = bp.Table(missing="impute")
        X, _ = table.fit(pa.table(columns))
        for name, categories in table.categories.items():
            places = [table.feature_names.index(f"{name}={categories[0]}") + i for i in range(len(categories))]
            for row, value in zip(X[:, places], columns[name], strict=True):
                assert row.sum() == 1
                assert value is None or categories[row.argmax()] == value


def random_rows(n=1000, D=6):
    return np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)


def write(path, X, group=100, **more):
    columns = {f"x{j}": column for j, column in enumerate(X.T)} | more
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """1,000 rows of six numbers in ten row groups."""
    return write(tmp_path_factory.mktemp("parquet") / "rows.parquet", random_rows())


class TestParquet:
    @pytest.mark.parametrize(
        ("piece_bytes", "rows"), [(1, 1), (240, 10), (24 * 70, 50), (24 * 100, 100), (24 * 350, 300), (1 << 26, 1000)]
    )
    def test_slices_are_those_of_an_array(self, file, piece_bytes, rows):
        X, found = random_rows(), bp.ParquetRows(file, piece_bytes=piece_bytes)
        assert (found.shape, found.dtype, len(found)) == ((1000, 6), np.float32, 1000)
        assert found.chunks == (rows, 6)
        for part in (
            slice(95, 105),
            slice(0, 3),
            slice(990, None),
            slice(-2, 2000),
            slice(5, 5),
            slice(7, 2),
            slice(250, 652),
        ):
            assert_array_equal(found[part], X[part])
            assert found[part].flags.writeable
        if rows > 1:
            assert_array_equal(found[:], X)

    @given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 12), st.data())
    def test_any_groups_pieces_and_slices(self, n, group, piece, data):
        X = random_rows(n, 2)
        with tempfile.TemporaryDirectory() as folder:
            found = bp.ParquetRows(write(Path(folder) / "rows.parquet", X, group), piece_bytes=8 * piece)
            part = slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))))
            assert_array_equal(found[part], X[part])
            assert_array_equal(found[:], X)

    def test_columns_of_one_s_own_choice(self, file):
        X = random_rows()
        assert_array_equal(bp.ParquetRows(file, ["x4", "x0"])[:50], X[:50, [4, 0]])
        assert bp.ParquetRows(file, ["x4"], dtype="float64")[:1].dtype == np.float64

    def test_numbers_of_every_type(self, tmp_path):
        columns = {
            "boolean": pa.array([True, False]),
            "byte": pa.array([1, 2], pa.uint8()),
            "half": pa.array(np.array([1.5, 2.5], np.float16)),
            "decimal": pa.array([1, 2], pa.decimal128(10, 2)),
        }
        path = write(tmp_path / "rows.parquet", np.zeros((2, 0)), **columns)
        assert_array_equal(bp.ParquetRows(path)[:], [[1, 1, 1.5, 1], [0, 2, 2.5, 2]])

    def test_through_a_table(self, tmp_path):
        towns = np.random.default_rng(0).choice(["Ulm", "Bonn", "Köln"], 1000)
        path = write(tmp_path / "rows.parquet", random_rows(), town=towns, y=towns)
        frame = pq.read_table(path)
        table = bp.Table("y", dtype="float64")
        X, _ = table.fit(frame)
        found = bp.ParquetRows(path, table=table, piece_bytes=8 * 9 * 70)
        assert (found.shape, found.dtype, found.chunks) == ((1000, 9), np.float64, (50, 9))
        assert_array_equal(found[13:777], X[13:777])

    def test_a_bad_row_is_named_by_its_place_in_the_file(self, tmp_path):
        X = random_rows()
        X[437, 2] = np.nan
        towns = ["Ulm"] * 1000
        path = write(tmp_path / "rows.parquet", X, town=[*towns[:-3], None, "Rom", "Ulm"])
        rows = bp.ParquetRows(path, ["x0", "x1", "x2"], piece_bytes=12 * 50)
        assert_array_equal(rows[:400], X[:400, :3])
        trainer = bp.Trainer(bp.Sequential(bp.Linear(3, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
        phi = trainer.net.phi.copy()
        fit = lambda: trainer.fit(rows, np.zeros(1000), verbose=0)  # noqa: E731
        assert_refused(fit, ValueError, "rows.parquet", "missing", "'x2'", "row 437")
        assert_array_equal(trainer.net.phi, phi)
        table = bp.Table(missing="impute")
        table.fit(pa.table({"x0": X[:2, 0], "town": ["Ulm", "Bonn"]}))
        read = lambda: bp.ParquetRows(path, table=table)[990:]  # noqa: E731
        assert_refused(read, ValueError, "rows.parquet", "'Rom' at row 998", "'town'")

    def test_trains_as_an_array_does(self, file):
        X, y = random_rows(), random_rows()[:, 0]
        results = []
        for rows in (X, bp.ParquetRows(file, piece_bytes=24 * 130)):
            net = bp.Sequential(bp.Linear(6, 4), bp.Tanh(), bp.Linear(4, 1), seed=0)
            trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1), batch_size="full")
            history = trainer.fit(rows, y, epochs=2, validation_data=(rows, y), verbose=0)
            results.append((net.phi, history["loss"], net.predict(rows)))
        for ours, theirs in zip(*results, strict=True):
            assert_array_equal(ours, theirs)

    def test_an_epoch_reads_each_piece_once(self, file, monkeypatch):
        monkeypatch.setattr("backprop.training.data.BLOCK_BYTES", 240)
        rows, read = bp.ParquetRows(file, piece_bytes=24 * 250), []
        plain = rows._read
        monkeypatch.setattr(rows, "_read", lambda start, stop: read.append((start, stop)) or plain(start, stop))
        trainer = bp.Trainer(bp.Sequential(bp.Linear(6, 1), seed=0), bp.LeastSquares(), bp.SGD(0.01), batch_size=32)
        counts = []
        for _ in trainer.epochs(rows, np.zeros(1000), 4):
            counts.append(len(read))
            assert all(stop - start <= 200 for start, stop in read)
            read.clear()
        assert max(counts[1:]) <= 5  # of 200 rows each
        trainer.net.predict(rows)
        assert len(read) <= 5

    def test_the_last_piece_is_kept(self, file, monkeypatch):
        rows, read = bp.ParquetRows(file, piece_bytes=24 * 100), []
        plain = rows._read
        monkeypatch.setattr(rows, "_read", lambda start, stop: read.append(start) or plain(start, stop))
        for start in range(0, 1000, 25):
            rows[start : start + 25][:] = 0  # of one's own
        assert read == list(range(0, 1000, 100))
        assert_array_equal(rows[900:], random_rows()[900:])

    def test_threads_may_ask_at_once_and_one_piece_is_decoded_at_a_time(self, file, monkeypatch):
        X, rows, wrong, busy = random_rows(), bp.ParquetRows(file, piece_bytes=24 * 100), [], threading.Lock()
        plain = rows._read

        def read(start, stop):
            if not busy.acquire(blocking=False):
                wrong.append("two at a time")
                return plain(start, stop)
            try:
                time.sleep(1e-3)
                return plain(start, stop)
            finally:
                busy.release()

        def work(first):
            for start in range(first, 1000, 70):
                wrong.extend([start] * (not np.array_equal(rows[start : start + 50], X[start : start + 50])))

        monkeypatch.setattr(rows, "_read", read)
        threads = [threading.Thread(target=work, args=(130 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_what_is_not_there(self, file, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            bp.ParquetRows(tmp_path / "nowhere.parquet")
        (tmp_path / "text.parquet").write_text("a,b\n1,2\n")
        assert_refused(lambda: bp.ParquetRows(tmp_path / "text.parquet"), ValueError, "text.parquet", "a Parquet file")
        whole = file.read_bytes()
        (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
        assert_refused(lambda: bp.ParquetRows(tmp_path / "cut.parquet"), ValueError, "a Parquet file")
        assert_refused(
            lambda: bp.ParquetRows(write(tmp_path / "empty.parquet", np.zeros((0, 2)))), ValueError, "0 rows"
        )
        assert_refused(lambda: bp.ParquetRows(file, ["x0", "y0"]), ValueError, "['y0']", "x1")
        assert_refused(lambda: bp.ParquetRows(file, table=fitted()), ValueError, "'age'", "'x0'")

    @pytest.mark.parametrize("values", [["a", "b"], DATES, [[1], [2]], [None, None]], ids=str)
    def test_columns_that_are_no_numbers(self, values, tmp_path):
        path = write(tmp_path / "rows.parquet", random_rows(2), other=pa.array(values))
        assert_refused(lambda: bp.ParquetRows(path), TypeError, "'other'", "fitted Table")
        assert bp.ParquetRows(path, ["x0"]).shape == (2, 1)

    @pytest.mark.parametrize(
        ("settings", "error", "part"),
        [
            ({"columns": "x0"}, ValueError, "list of names"),
            ({"columns": []}, ValueError, "list of names"),
            ({"columns": ["x0", "x0"]}, ValueError, "duplicates"),
            ({"dtype": "int8"}, ValueError, "dtype"),
            ({"piece_bytes": 0}, ValueError, "piece_bytes"),
            ({"piece_bytes": 1.5}, TypeError, "piece_bytes"),
            ({"table": "x0"}, TypeError, "table"),
            ({"table": bp.Table()}, RuntimeError, "fit"),
            ({"table": fitted(), "columns": ["x0"]}, ValueError, "both"),
            ({"table": fitted(), "dtype": "float32"}, ValueError, "both"),
        ],
        ids=str,
    )
    def test_settings(self, file, settings, error, part):
        assert_refused(lambda: bp.ParquetRows(file, **settings), error, "ParquetRows", part)

    def test_not_an_array_by_accident(self, file):
        assert_refused(lambda: np.asarray(bp.ParquetRows(file)), TypeError, "ParquetRows", "bp.Trainer")

    @pytest.mark.parametrize("rows", [3, -1, slice(0, 10, 2), slice(None, None, -1), [1, 2], (0, 1), "x0"], ids=str)
    def test_only_slices(self, file, rows):
        assert_refused(lambda: bp.ParquetRows(file)[rows], TypeError, "ParquetRows", "slice without a step")


MEMORY = """
import sys, tracemalloc
import numpy as np, pyarrow as pa
import backprop as bp

def train(rows):
    net = bp.Sequential(bp.Linear(rows.shape[1], 1), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(1e-3), batch_size=500)
    trainer.fit(rows, np.zeros(len(rows), np.float32), epochs=1, verbose=0)

rows = bp.ParquetRows(sys.argv[1], piece_bytes=2 << 20)
train(rows[:1000])  # imports what there is to be imported
tracemalloc.start()
train(rows)
print(tracemalloc.get_traced_memory()[1], pa.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize("group", [10_000, 200_000], ids=["small row groups", "one row group"])
def test_memory_is_that_of_pieces_not_of_the_file(group, tmp_path):
    """The file holds 40 MB of numbers, a piece 2 MiB; NumPy and pyarrow each say how much they had at most."""
    N, D = 200_000, 50
    column = np.random.default_rng(0).normal(size=N).astype(np.float32)
    table, path = pa.table({f"x{j}": column for j in range(D)}), tmp_path / "rows.parquet"
    settings = {
        "use_dictionary": False,
        "compression": "none",
        "data_page_size": 1 << 16,
    }  # pyarrow holds a page of each
    pq.write_table(table, path, row_group_size=group, **settings)
    assert path.stat().st_size > 40e6
    run = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    arrays, arrow = map(int, run.stdout.split())
    assert arrays < 24e6  # two blocks of the trainer, of 4 MiB and more, the last piece, and the next one as it is made
    assert arrow < 20e6


class TestMemoryMap:
    def test_a_mapped_file_trains_as_an_array_does(self, tmp_path):
        X = random_rows()
        np.save(tmp_path / "X.npy", X)
        results = []
        for rows in (X, np.load(tmp_path / "X.npy", mmap_mode="r")):
            net = bp.Sequential(bp.Linear(6, 4), bp.Tanh(), bp.Linear(4, 1), seed=0)
            trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1))
            trainer.fit(rows, X[:, 0], epochs=2, verbose=0)
            results.append(net.predict(rows))
        assert_array_equal(*results)


class TestExtra:
    def test_is_named_when_absent(self, file, monkeypatch):
        table, frame = fitted(), pd.DataFrame(PEOPLE)
        monkeypatch.setitem(sys.modules, "narwhals", None)
        for call in (lambda: bp.Table().fit(frame), lambda: table.transform(frame), lambda: table.targets(frame)):
            with pytest.raises(ImportError, match=r'pip install "backprop-mlp\[tables\]"'):
                call()
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r'pip install "backprop-mlp\[tables\]"'):
            bp.ParquetRows(file)

    def test_is_imported_when_used(self):
        program = "import sys, backprop as bp; bp.Table(); bp.ParquetRows; print(*sys.modules)"
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert {"narwhals", "pandas", "polars", "pyarrow"}.isdisjoint(found.split())

    def test_one_library_does_not_bring_another(self):
        program = (
            "import sys, polars as pl, backprop as bp; bp.Table().fit(pl.DataFrame({'x': [1, 2], 'c': ['a', 'b']}));"
            "print(*sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert {"pandas", "scipy"}.isdisjoint(found.split())


class TestIndicateAndMost:
    """missing="indicate" and most_categories: what is missing, or rare, is a feature of its own."""

    FRAME = pd.DataFrame(
        {
            "size": [40.0, np.nan, 60.0, 80.0],
            "town": ["Bonn", None, "Ulm", "Ulm"],
            "street": ["a", "b", "c", "a"],
            "n": [1, 2, 3, 4],
        }
    )

    def test_only_columns_with_missing_values_have_an_indicator(self):
        table = bp.Table(missing="indicate", scale=False)
        X, _ = table.fit(self.FRAME)
        names = [
            "size",
            "size is missing",
            "town=Bonn",
            "town=Ulm",
            "town is missing",
            "street=a",
            "street=b",
            "street=c",
            "n",
        ]
        assert table.feature_names == names
        assert_array_equal(X[1], [60, 1, 0, 0, 1, 0, 1, 0, 2])
        assert_array_equal(X[0], [40, 0, 1, 0, 0, 1, 0, 0, 1])

    def test_what_is_missing_only_later_is_imputed(self):
        table = bp.Table(missing="indicate", scale=False)
        table.fit(self.FRAME)
        later = pd.DataFrame({"size": [1.0], "town": ["Ulm"], "street": [None], "n": [np.nan]})
        assert_array_equal(table.transform(later)[0], [1, 0, 0, 1, 0, 1, 0, 0, 2.5])

    def test_the_most_frequent_categories_stay_and_all_others_are_one(self):
        table = bp.Table(most_categories=2)
        X, _ = table.fit(pd.DataFrame({"town": ["Ulm", "Bonn", "Kiel", "Ulm", "Jena", "Bonn"]}))
        assert table.feature_names == ["town=Bonn", "town=Ulm", "town is other"]
        assert_array_equal(X, np.eye(3)[[1, 0, 2, 1, 2, 0]])
        assert_array_equal(table.transform(pd.DataFrame({"town": ["Köln"]})), [[0, 0, 1]])  # new, and yet not refused

    def test_of_equals_the_first_stay(self):
        table = bp.Table(most_categories=1)
        table.fit(pd.DataFrame({"town": ["Ulm", "Bonn"]}))
        assert table.feature_names == ["town=Bonn", "town is other"]

    def test_no_more_categories_than_that_change_nothing(self):
        frame = pd.DataFrame({"town": ["Ulm", "Bonn"]})
        table = bp.Table(most_categories=2)
        table.fit(frame)
        assert table.feature_names == ["town=Bonn", "town=Ulm"]
        with pytest.raises(ValueError, match=r"expected one of \['Bonn', 'Ulm'\]"):
            table.transform(pd.DataFrame({"town": ["Köln"]}))

    def test_names_of_rows_are_bounded(self):
        names = [f"name {i}" for i in range(1000)]
        with pytest.raises(ValueError, match="most_categories"):
            bp.Table().fit(pd.DataFrame({"name": names}))
        X, _ = bp.Table(most_categories=5).fit(pd.DataFrame({"name": names}))
        assert X.shape == (1000, 6)

    def test_state_comes_back_and_says_nothing_where_there_is_nothing(self):
        table = bp.Table(missing="indicate", most_categories=1)
        X, _ = table.fit(self.FRAME)
        again = bp.Table.from_state(json.loads(json.dumps(table.state())))
        assert_array_equal(again.transform(self.FRAME), X)
        assert repr(again) == "Table(missing='indicate', most_categories=1)"
        plain = bp.Table()
        plain.fit(self.FRAME.dropna())
        assert "most_categories" not in plain.state()
        assert not any({"indicator", "other"} & entry.keys() for entry in plain.state()["columns"])

    @pytest.mark.parametrize(
        "wrong", [{"most_categories": 0}, {"most_categories": "few"}, {"missing": "flag"}], ids=repr
    )
    def test_other_settings_are_refused(self, wrong):
        with pytest.raises((TypeError, ValueError), match="Table: expected"):
            bp.Table(**wrong)


class TestDates:
    """dates="cycles": days as a number, and their places in the week, the year and the day."""

    DAYS = (
        datetime.date(1970, 1, 1),
        datetime.date(1970, 1, 8),
        datetime.date(1971, 7, 2),
    )  # Thursday, Thursday, Friday
    HOURS = (datetime.datetime(2024, 2, 29, 6), datetime.datetime(2024, 3, 7, 18, 30), None)

    def fitted(self, values, **settings):
        table = bp.Table(dates="cycles", **settings)
        return table, table.fit(pd.DataFrame({"when": values}))[0]

    def test_by_hand(self):
        table, X = self.fitted(self.DAYS, scale=False, dtype="float64")
        assert table.feature_names == [
            "when",
            *(f"when in the {period}, {of}" for period in ("week", "year") for of in ("cos", "sin")),
        ]
        days = np.array([0, 7, 547])
        angle = 2 * np.pi * days / 365.2425
        assert_allclose(X[:, 0], days)
        assert_allclose(X[:, 1:3], [[1, 0], [1, 0], [np.cos(2 * np.pi / 7), np.sin(2 * np.pi / 7)]], atol=1e-12)
        assert_allclose(X[:, 3:], np.stack([np.cos(angle), np.sin(angle)], axis=1), atol=1e-12)

    def test_a_clock_and_a_hole(self):
        table, X = self.fitted(self.HOURS, missing="indicate", dtype="float64")
        assert table.feature_names[-3:] == ["when in the day, cos", "when in the day, sin", "when is missing"]
        assert_allclose(
            X[:, 5:7], [[0, 1], [np.cos(1.5 * np.pi + np.pi / 24), np.sin(1.5 * np.pi + np.pi / 24)], [0, 0]], atol=1e-9
        )
        assert X[:, -1].tolist() == [0, 0, 1]
        assert X[2, 0] == 0  # the mean
        with pytest.raises(ValueError, match="no missing values in column 'when', got a missing value at row 2"):
            self.fitted(self.HOURS)

    def test_whatever_a_library_calls_them(self):
        """Dates of pandas, polars and pyarrow, objects, other units, and moments by the clock of their place."""
        import polars as pl
        import pyarrow as pa

        moments = pd.Series(pd.to_datetime(["2024-02-29 06:00", "2024-03-07 18:30", None]))
        table, X = self.fitted(moments, missing="impute")
        alike = [
            moments.astype("datetime64[s]"),
            moments.astype(object),
            moments.dt.tz_localize("Europe/Berlin"),
            moments.astype("timestamp[us][pyarrow]"),
        ]
        for when in alike:
            assert_array_equal(table.transform(pd.DataFrame({"when": when})), X)
        assert_array_equal(table.transform(pl.DataFrame({"when": self.HOURS})), X)
        assert_array_equal(table.transform(pa.table({"when": list(self.HOURS)})), X)

    def test_state_comes_back(self):
        table, X = self.fitted(self.HOURS, missing="indicate")
        again = bp.Table.from_state(json.loads(json.dumps(table.state())))
        assert again.dates == "cycles"
        assert_array_equal(again.transform(pd.DataFrame({"when": self.HOURS})), X)
        with pytest.raises(ValueError, match=r"what Table\.state returned"):
            bp.Table.from_state(table.state() | {"columns": [table.state()["columns"][0] | {"clock": "yes"}]})

    def test_what_is_refused(self):
        table, X = self.fitted(self.DAYS)
        with pytest.raises(TypeError, match="expected dates in column 'when', as in fit, got numbers"):
            table.transform(pd.DataFrame({"when": [1.0]}))
        with pytest.raises(TypeError, match="days since"):
            bp.Table("when", dates="cycles").fit(pd.DataFrame({"when": self.DAYS, "x": [1, 2, 3]}))
        with pytest.raises(ValueError, match=r"Table: expected dates"):
            bp.Table(dates="yes")
        with pytest.raises(ValueError, match="export: expected a table without dates, got dates in column 'when'"):
            bp.to_numpy(bp.Sequential(bp.Linear(X.shape[1], 1)), "net.py", table=table)
        with pytest.raises(TypeError, match="values of one kind"):
            self.fitted([self.DAYS[0], 3])
