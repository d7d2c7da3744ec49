"""Exercises graded: whether an answer is right and where it is not, never what would be right; and shapes that do not fit."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from tables import spread

import backprop as bp
from backprop import blame
from backprop.testing import Grade, assert_layer, grade


class Student(bp.Layer):
    """A linear layer as it is handed in, with one line of one's own."""

    def __init__(self):
        self.parameters["omega"] = spread((3, 4))

    def forward(self, h):
        self.h = h
        return self.parameters["omega"] @ h

    def dL_dh(self, dL_df):
        return self.parameters["omega"].T @ dL_df

    def backward(self, dL_df):
        return self.dL_dh(dL_df), {"omega": dL_df @ self.h.T}


class NotTransposed(Student):
    def dL_dh(self, dL_df):
        return self.parameters["omega"] @ dL_df


class Twice(Student):
    def dL_dh(self, dL_df):
        return 2 * self.parameters["omega"].T @ dL_df


class NotYet(Student):
    def dL_dh(self, dL_df):
        return ...


class NotEither(Student):
    def dL_dh(self, dL_df):
        raise NotImplementedError


class HalfSquare(bp.Loss):
    """Σₖ (f − y)² with the gradient of the half of it."""

    def ell(self, f, y):
        self.d = f - y
        return (self.d**2).sum(axis=0)

    def dell_df(self):
        return self.d


def square(x):
    return float((x**2).sum())


THREE = np.ones(3)
H, X = spread((4, 5)), np.array([[1.0, -2.0], [3.0, 0.5]])
NUMBERS = {"f_0": np.array([[1.0], [2.0]]), "ℓ": 0.25, "∂ℓ/∂f_0": np.array([[3.0, 4.0]])}

# answer and what comes with it, then the names that are not right yet with the words beside them
ANSWERS = {
    "a right layer": ((Student(), H), {}),
    "a right loss": ((bp.LeastSquares(), H, H[::-1]), {}),
    "a right optimizer": ((bp.Adam(0.01),), {}),
    "a right gradient": ((lambda x: 2 * x, square, X, X[0]), {}),
    "right numbers": ((NUMBERS | {"∂ℓ/∂f_0": [[3, 4]], "ℓ": [[0.25]]}, NUMBERS), {}),
    "a wrong slope": ((Twice(), H), {"gradients": "∂L/∂h", "disturbances": ""}),
    "a wrong loss": ((HalfSquare(), H, H[::-1]), {"gradients": "∂L/∂f"}),
    "a gradient wrong in one entry": (
        (lambda x: 2 * x + (x == 3.0), square, X[0], X),
        {"at point 2": "entry (1, 0)"},
    ),
    "a gradient of another shape": ((lambda x: x[0], square, X), {"at point 1": "shape (2,)"}),
    "a gradient that fails": ((lambda x: x @ THREE, square, X), {"at point 1": "(2, 2) @"}),
    "numbers": (
        ({"f_0": [[1.0], [2.5]], "ℓ": ..., "∂ℓ/∂f_0": [3.0]}, NUMBERS),
        {"f_0": "entry (1, 0)", "ℓ": "not answered", "∂ℓ/∂f_0": "shape (1,)"},
    ),
    "words": (({"ℓ": "much"}, {"ℓ": 0.25}), {"ℓ": "not a number"}),
    "a complex number": (({"ℓ": np.array([0.25 + 1j])}, {"ℓ": 0.25}), {"ℓ": "not a number"}),
    "a list of lists": (({"f_0": [[1.0], [2.0, 3.0]]}, {"f_0": NUMBERS["f_0"]}), {"f_0": "not a number"}),
    "yes": (({"ℓ": True}, {"ℓ": 1.0}), {"ℓ": "not a number"}),
    "whole numbers": (({"ℓ": 4}, {"ℓ": 4.0}), {}),
    "NaN": (({"ℓ": np.nan}, {"ℓ": 0.25}), {"ℓ": ""}),
    "a gradient not written": ((lambda x: ..., square, X), {"at point 1": "not answered"}),
}


@cache
def graded(name):
    answer, *given = ANSWERS[name][0]
    return grade(answer, *given)


@pytest.mark.parametrize("name", ANSWERS)
def test_says_whether_and_where(name):
    result, wrong = graded(name), ANSWERS[name][1]
    assert {mark.name: mark.where for mark in result.marks if not mark.passed}.keys() == wrong.keys(), str(result)
    for mark in result.marks:
        assert wrong.get(mark.name, "") in mark.where
    assert bool(result) == result.passed == (not wrong)
    assert result.points == len(result.marks) - len(wrong)
    assert str(result).splitlines()[0].endswith(f"{result.points} of {len(result.marks)} right")


def test_the_title_leaves_out_what_is_not_known():
    class Sized(Student):
        def __init__(self, in_features, out_features, scale=None):
            super().__init__()

    assert str(grade(Sized(4, 3), H)).startswith("Sized(): ")


def test_one_number_has_no_place_whatever_its_shape():
    for right in (2.4, [2.4], [[2.4]]):
        assert [mark.where for mark in grade({"a": 3.0}, {"a": np.array(right)}).marks] == [""]


def test_what_is_not_written_is_not_called_wrong():
    for gradient in (lambda x: ..., NotEither().dL_dh):
        assert [mark.where for mark in grade(gradient, square, X).marks] == ["not answered"]
    result = grade(NotYet(), H)
    assert {mark.where for mark in result.marks if not mark.passed} == {"not answered"}
    assert not result


@pytest.mark.parametrize("name", [name for name, (_, wrong) in ANSWERS.items() if wrong and "fails" not in name])
def test_does_not_say_what(name):
    """No right number, no factor, and nothing of what the checker says of a mistake."""
    text = str(graded(name))
    assert "NOT YET" in text
    assert not re.search(r"\d\.\d|twice|times|should be|mistake|factor|missing", text), text


def test_an_answer_is_left_alone():
    numbers = {"f_0": [[1.0], [2.0]]}
    grade(numbers, NUMBERS)
    point = X.copy()
    grade(lambda x: np.multiply(x, 2, out=x), square, point)
    np.testing.assert_array_equal(point, X)
    assert numbers == {"f_0": [[1.0], [2.0]]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Student, H), r"got grade\(the class Student, a ndarray\)"),
        ((Student(),), r"expected one of grade\(layer, h\), .*, got grade\(a Student\)"),
        ((bp.LeastSquares(), H), "grade"),
        ((square,), "grade"),
        ((np.ones(3), np.ones(3)), "grade"),
    ],
    ids=("a class", "nothing with it", "no targets", "no function", "an array"),
)
def test_what_cannot_be_graded_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        grade(*arguments)


def test_examples_that_do_not_fit_are_the_teachers_mistake():
    with pytest.raises(ValueError, match=r"grade: expected finite values in h"):
        grade(Student(), np.full((4, 2), np.nan))


def test_a_grade_is_short_where_one_mistake_breaks_all():
    layer = NotTransposed()
    before = layer.parameters["omega"].copy()
    text = str(grade(layer, H))
    np.testing.assert_array_equal(layer.parameters["omega"], before)
    assert TestShapes.MET in text
    assert text.count("@") <= 6
    assert text.count("the same") == 10


class TestShapes:
    """A product that does not fit is told of in the student's own names, with both shapes."""

    MET = r'`self.parameters["omega"] @ dL_df`, which is (3, 4) @ (3, 7)'

    def test_of_assert_layer(self):
        with pytest.raises(AssertionError) as caught:
            assert_layer(NotTransposed(), H)
        text = str(caught.value)
        assert f"ValueError in dL_dh, line {line_of(NotTransposed)}: {self.MET}" in text
        assert "gufunc" not in text
        assert "A gradient has the shape of what it is taken with respect to" in text

    def test_of_a_network(self):
        net = bp.Sequential(NotTransposed(), bp.Tanh(), dtype="float64")
        net.forward(H)
        with pytest.raises(ValueError, match="mismatch") as caught:
            net.backward(np.ones((3, 5)))
        (note,) = caught.value.__notes__
        assert note.endswith('shape (3, 5): self.parameters["omega"] @ dL_df is (3, 4) @ (3, 5).')

    @pytest.mark.parametrize(
        ("code", "shapes"),
        [
            ("A @ B", "(2, 3) @ (2, 3)"),
            ("A.T + B", "(3, 2) + (2, 3)"),
            ("kept['A'] * kept['B'].T", "(2, 3) * (3, 2)"),
            ("np.tanh(A) @ B", ""),  # nothing is called a second time
            ("A[:, :] @ B", ""),
            ("len(3)", ""),
        ],
    )
    def test_of_any_operation(self, code, shapes, tmp_path):
        file = tmp_path / "student.py"
        file.write_text(f"α = 1; C = {code}\n")
        A, B = np.ones((2, 3)), np.ones((2, 3))
        with pytest.raises((ValueError, TypeError)) as caught:
            exec(compile(file.read_text(), str(file), "exec"), {"A": A, "B": B, "kept": {"A": A, "B": B}, "np": np})
        place = blame.place_of(caught.value)
        assert place.shapes == shapes
        assert (place.line, place.code) == (1, code)


def line_of(kind):
    return kind.dL_dh.__code__.co_firstlineno + 1


def test_a_grade_prints_where_there_are_few_signs():
    text = str(grade(NotTransposed(), H))
    assert not set(text) - set(map(chr, range(128)))
    assert isinstance(grade({"a": 1}, {"a": 1}), Grade)
