"""The estimators for tables: scikit-learn's checks, what goes in, what comes out, and what is promised of it."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.inspection import permutation_importance

import backprop as bp
from backprop.estimators import MLPRegressor, TabularClassifier, TabularRegressor, members
from backprop.estimators.data import standardization
from backprop.estimators.files import load_any
from backprop.functions import sigmoid

pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")


N = 120
generator = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": generator.normal(60, 20, N),
        "rooms": generator.integers(1, 5, N),
        "town": generator.choice(["Bonn", "Ulm", "Jena"], N),
        "garden": generator.random(N) > 0.5,
    }
)
RENT = 5 * FRAME["size"] + 100 * (FRAME["town"] == "Ulm") + generator.normal(size=N)
HOLES = FRAME.astype({"garden": object}).mask(generator.random(FRAME.shape) < 0.1)
THIRDS = pd.cut(RENT, RENT.quantile([0, 1 / 3, 2 / 3, 1]), labels=["low", "middle", "high"], include_lowest=True)
KINDS = {
    "two classes": (TabularClassifier, RENT.median() < RENT),
    "three classes": (TabularClassifier, THIRDS.astype(str)),
    "two questions": (TabularClassifier, np.column_stack([RENT.median() < RENT, FRAME["garden"]]).astype(int)),
    "one number": (TabularRegressor, RENT),
    "two numbers": (TabularRegressor, np.column_stack([RENT, FRAME["size"]])),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def fitted(kind, X=HOLES, **parameters):
    make, y = KINDS[kind]
    return make(**{"members": 2, **parameters}).fit(X, y)


def answers(model, X=HOLES):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


@every_kind
def test_one_network_answers_and_the_file_answers_the_same(kind, tmp_path):
    """Words and holes go in; what predicts is one `Sequential`, and a file keeps all of it, the report too."""
    model = fitted(kind)
    assert isinstance(model.network_, bp.Sequential)
    if kind != "two questions":  # which are refused
        net, table = model.as_network()
        f = net.predict(table.transform(HOLES))
    if kind == "one number":
        assert_allclose(f[:, 0], model.predict(HOLES), rtol=1e-6)
        assert model.score(HOLES, RENT) > 0.8
    elif kind == "three classes":
        assert_allclose(np.exp(f) / np.exp(f).sum(axis=1, keepdims=True), answers(model), rtol=1e-6)
    model.save(tmp_path / "m.safetensors")
    loaded = load_any(tmp_path / "m.safetensors")
    assert type(loaded) is type(model)
    assert loaded.report_ == model.report_
    assert_array_equal(answers(loaded), answers(model))
    if isinstance(model, TabularRegressor):
        assert_array_equal(loaded.predict_interval(HOLES)[0], model.predict_interval(HOLES)[0])


@every_kind
def test_same_seed_same_bits_however_many_threads(kind, monkeypatch):
    before = fitted(kind)
    monkeypatch.setattr("backprop.estimators.members.cores", lambda: 1)
    assert_array_equal(fitted(kind).network_.phi, before.network_.phi)
    other = clone(before).set_params(random_state=1).fit(HOLES, KINDS[kind][1])
    assert not np.array_equal(other.network_.phi, before.network_.phi)


def test_the_whole_is_the_mean_of_its_members():
    """What was trained one by one and what stands side by side say the same."""
    X, y = generator.normal(size=(80, 3)).astype("f"), generator.normal(size=80).astype("f")
    before = members.inputs(X)
    nets = [
        members.Member(
            bp.Sequential(bp.InputScale(len(before.weight), pace=4.0), *_layers(len(before.weight)), seed=m), m
        )
        for m in range(3)
    ]
    whole = members.together(before, nets, "values", 2.0, "float64")
    each = [one.net.predict(before.of(X)) for one in nets]
    assert_allclose(whole.predict(X), 2 * np.mean(each, axis=0), rtol=1e-4, atol=1e-5)
    assert len(y) == len(X)


def _layers(D):
    H, G = 128, 128
    return bp.Linear(D, H), bp.ReLU(), bp.Linear(H, G), bp.ReLU(), bp.Linear(G, 1)


def test_intervals_cover_what_they_promise():
    """Over 10 tables with noise of unequal size the mean coverage on new rows is within what so few tables can tell."""
    covered = []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        X = draw.normal(size=(360, 2))
        y = X[:, 0] ** 2 + (0.3 + 0.3 * np.abs(X[:, 1])) * draw.normal(size=360)
        low, high = TabularRegressor(members=3).fit(X[:60], y[:60]).predict_interval(X[60:], 0.9)
        covered.append(np.mean((low <= y[60:]) & (y[60:] <= high)))
    assert 0.88 < np.mean(covered) < 0.97


def test_groups_and_weights_count_in_intervals():
    """Worked by hand: groups of 3 and 1 rows count as one each; a row of weight 2 is two in the order."""
    order, nothing = np.arange(4)[:, None], np.zeros((4, 1))

    def shown(w=None, groups=None):
        own = members.Rows(nothing, nothing, None if w is None else np.array(w), groups)
        return members.coverages(order, own)[:, 0]

    assert_allclose(shown(), np.array([1, 2, 3, 4]) / 5)
    assert_allclose(shown(groups=np.array([7, 7, 9, 7])), np.array([1 / 3, 2 / 3, 5 / 3, 2]) / 3)
    assert_allclose(shown(w=[2, 1, 1, 1]), np.array([2, 3, 4, 5]) / (5 + 7 / 5))
    for size in (0.1, 1e-300, 1e300):
        assert_allclose(shown(w=[size] * 4), shown())
    assert_allclose(
        shown(w=[2, 2, 3, 2], groups=np.array([0, 0, 1, 0])), np.array([2 / 3, 4 / 3, 13 / 3, 5]) / (5 + 13 / 5)
    )


def test_intervals_of_new_groups_cover_what_they_promise():
    """24 groups of 2 to 30 rows, whose effects no column tells: rows of new groups, each group counted as one."""
    covered = []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        groups = np.repeat(np.arange(24), draw.integers(2, 30, 24))
        X, new = draw.normal(size=(len(groups), 2)), draw.normal(size=(400, 2))
        y = X[:, 0] + draw.normal(size=24)[groups] + 0.2 * draw.normal(size=len(X))
        later = new[:, 0] + draw.normal(size=400) + 0.2 * draw.normal(size=400)
        model = TabularRegressor(members=2).fit(X, y, groups=groups)
        low, high = model.predict_interval(new, 0.8)
        covered.append(np.mean((low <= later) & (later <= high)))
    assert 0.75 < np.mean(covered) < 0.9


def test_intervals_cover_by_weight():
    """Rows of weight 9 are noisier: of such rows, as often as their weight says, 0.9 are to be covered."""
    covered = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        X = draw.normal(size=(600, 2))
        w = np.where(draw.random(600) < 0.2, 9.0, 1.0)
        y = X[:, 0] + np.where(w > 1, 1.0, 0.2) * draw.normal(size=600)
        low, high = TabularRegressor(members=2).fit(X[:200], y[:200], w[:200]).predict_interval(X[200:], 0.9)
        covered.append(np.average((low <= y[200:]) & (y[200:] <= high), weights=w[200:]))
    assert 0.86 < np.mean(covered) < 0.96


def test_six_groups_cannot_show_a_coverage_of_0_9(tmp_path):
    model = TabularRegressor(members=2).fit(FRAME, RENT, groups=np.arange(N) % 6)
    model.save(tmp_path / "m.safetensors")
    for each in (model, load_any(tmp_path / "m.safetensors")):
        each.predict_interval(FRAME, 0.6)
        with pytest.raises(ValueError, match=r"coverage up to 0\.\d+, which \d+ rows, as many as \d by their groups"):
            each.predict_interval(FRAME, 0.9)


def test_rows_that_calibrate_have_not_chosen_the_epoch():
    """What a member says of its own rows counts at the middle epoch of the others, or at its last one before that."""
    net, rows = bp.Sequential(bp.Linear(1, 1)), members.Rows(np.zeros((4, 1)), np.zeros(4), None)
    epochs = [(3, 5), (1, 2), (2, 4), (4, 4)]  # the best one, and how many there were
    made = [
        members.Member(net, m, epoch=best, answers=[np.full((1, 1), 10 * m + epoch) for epoch in range(1, n + 1)])
        for m, (best, n) in enumerate(epochs)
    ]
    assert members.epochs_of_others(made) == [2, 3, 3, 2]
    f, _ = members.judged(made, members.epochs_of_others(made), rows, np.arange(4), "values")
    assert f[:, 0].tolist() == [2, 12, 23, 32]  # of the second there were two
    assert members.epochs_of_others(made[:1]) == [3]


def test_what_is_calibrated_is_what_is_answered():
    """Means of probabilities, not of log-odds, of rows that all members are judged by."""
    made = [
        members.Member(bp.Sequential(bp.Linear(1, 1)), m, answers=[np.array([[0.0], [f]])])
        for m, f in enumerate([9, -1])
    ]
    rows = members.Rows(np.zeros((2, 1)), np.zeros(2), None)
    f, own = members.judged(made, [1, 1], rows, None, "sigmoid")
    assert_allclose(sigmoid(f[:, 0]), [sigmoid(np.array([0.0, 0.0])).mean(), sigmoid(np.array([9.0, -1.0])).mean()])
    assert own is rows
    X = np.random.default_rng(0).normal(size=(300, 2))
    y = np.digitize(X[:, 0] + 3 * np.random.default_rng(1).normal(size=300), [-0.5, 0.5])
    model = TabularClassifier(members=3).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    p = np.asarray(model.predict_proba(X[200:]), np.float64)

    def loss_of(s):
        q = p**s / (p**s).sum(axis=1, keepdims=True)
        return -np.log(q[np.arange(100), y[200:]]).mean()

    assert loss_of(1.0) < min(loss_of(0.99), loss_of(1.01))


def test_a_coverage_that_the_rows_cannot_show_is_refused():
    model = TabularRegressor(members=1).fit(FRAME[:20], RENT[:20])
    with pytest.raises(
        ValueError, match=r"TabularRegressor.predict_interval: expected coverage up to 0\.8, which 4 rows"
    ):
        model.predict_interval(FRAME, 0.95)


def test_groups_are_held_out_whole():
    """With a column that gives the group away, rows of a group that was seen say nothing of one that was not."""
    groups = np.repeat(np.arange(12), 10)
    away = np.random.default_rng(0).normal(size=12)[groups]
    X = pd.DataFrame({"which": groups.astype(str), "noise": generator.normal(size=N)})
    by_chance = TabularRegressor(members=2).fit(X, away)
    by_group = TabularRegressor(members=2).fit(X, away, groups=groups)
    assert by_group.best_loss_ > 2 * by_chance.best_loss_
    assert "by groups" in by_group.report_
    with pytest.raises(ValueError, match="at least 2 groups"):
        TabularRegressor().fit(X, away, groups=np.zeros(N))


def test_validation_data_judge_all_members():
    model = TabularRegressor(members=2).fit(FRAME[:80], RENT[:80], X_val=FRAME[80:], y_val=RENT[80:])
    assert "by the validation data" in model.report_
    assert len(model.residuals_) == 40


@every_kind
def test_validation_data_are_taken_for_every_kind_of_target(kind):
    """With two classes, and with several questions, nothing was known of the outputs when they were looked at."""
    make, y = KINDS[kind]
    apart = make(members=1).fit(FRAME, y, X_val=FRAME, y_val=y)
    pair = make(members=1)
    if make is TabularClassifier:
        pair.fit(FRAME, THIRDS.astype(str))  # of which the next fit knows nothing
    pair.fit(FRAME, y, validation_data=(FRAME, y))
    assert_array_equal(answers(pair, FRAME), answers(apart, FRAME))


@pytest.mark.parametrize("w", [[2, 1, 1, 3] * 30, [1, 0.5, 0.5, 1.5] * 30, [5, 2, 3, 7] * 30])
def test_columns_are_learned_by_weight(w):
    """Knots, edges and shares are those of rows that come as often as they weigh."""
    X, w = np.column_stack([RENT, FRAME["garden"]]).astype("f"), np.array(w, float)
    rows = np.repeat(np.arange(N), (w / np.gcd.reduce((2 * w).astype(int)) * 2).astype(int))
    by_weight, repeated = members.inputs(X, w), members.inputs(X[rows])
    assert_array_equal(by_weight.of(X), repeated.of(X))


def test_columns_are_learned_by_weights_of_any_size():
    """Up to each row there is as much of the whole among the rows that stand for it as there is weight."""
    w = np.random.default_rng(0).exponential(size=3000)
    rows = members.representative(3000, w)
    shares = np.bincount(rows, minlength=3000) / len(rows)
    assert_allclose(np.cumsum(shares), np.cumsum(w) / w.sum(), atol=1 / len(rows))


ABSENT = pd.DataFrame({"size": [1e12], "rooms": [9], "town": ["Paris"], "garden": [True]})
HELD = {
    "a frame of pandas": lambda frame: frame,
    "a frame of polars": lambda frame: pl.from_pandas(frame),
    "a table of Arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "an array": lambda frame: frame[["size", "rooms"]].to_numpy(float),
    "a list": lambda frame: frame[["size", "rooms"]].to_numpy(float).tolist(),
}


@pytest.mark.parametrize(
    ("kind", "held"),
    [*(("one number", held) for held in HELD), ("three classes", "a frame of pandas"), ("two questions", "an array")],
)
def test_rows_of_weight_0_are_absent(kind, held):
    """Features, categories, classes, parts and holes: the same bits as of the model of the other rows."""
    (make, y), hold = KINDS[kind], HELD[held]
    other = ["absent"] if kind == "three classes" else np.ones((1, *np.shape(y)[1:]), int) * (10 if y is RENT else 1)
    whole, w = pd.concat([FRAME[:60], ABSENT, FRAME[60:]], ignore_index=True), np.r_[np.full(60, 2.0), 0, np.ones(60)]
    answer, groups = (
        np.concatenate([each[:60], one, each[60:]]) for each, one in ((np.asarray(y), other), (ROOM, [-1]))
    )
    model = make(members=1).fit(hold(whole), answer, sample_weight=w, groups=groups)
    without = make(members=1).fit(hold(FRAME), y, sample_weight=w[w > 0], groups=ROOM)
    assert_array_equal(answers(model, hold(FRAME)), answers(without, hold(FRAME)))
    judged = make(members=1).fit(hold(FRAME), y, X_val=hold(whole), y_val=answer, sample_weight_val=(w > 0).astype(int))
    direct = make(members=1).fit(hold(FRAME), y, X_val=hold(FRAME), y_val=y, sample_weight_val=np.ones(N))
    assert_array_equal(answers(judged, hold(FRAME)), answers(direct, hold(FRAME)))


ROOM = np.arange(N) // 6


def test_rows_of_weight_0_may_have_holes_in_the_target_that_is_named():
    frame = FRAME.assign(rent=RENT.where(RENT.index != 7))
    w = (FRAME.index != 7).astype(float)
    model = TabularRegressor(members=1).fit(frame, "rent", sample_weight=w)
    without = TabularRegressor(members=1).fit(frame[w > 0], "rent", sample_weight=w[w > 0])
    assert_array_equal(model.predict(FRAME), without.predict(FRAME))
    frame.loc[9, "rent"] = np.nan
    with pytest.raises(ValueError, match=r"at row 8\. .*Rows are counted among the 119 of 120 with a weight > 0"):
        model.fit(frame, "rent", sample_weight=w)
    with pytest.raises(ValueError, match=r"non-zero number|sample_weight > 0 for some row"):
        model.fit(FRAME, RENT, sample_weight=np.zeros(N))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(FRAME, RENT[:-1], sample_weight=w)


def test_classes_of_weight_0_are_known_and_their_rows_absent():
    """No category is learned of them, and nothing of their numbers."""
    X, y = pd.concat([FRAME, ABSENT], ignore_index=True), [*THIRDS.astype(str), "absent"]
    model = TabularClassifier(members=1, class_weight={"absent": 0}).fit(X, y)
    assert model.classes_.tolist() == ["absent", "high", "low", "middle"]
    assert "town=Paris" not in model.table_.feature_names
    assert model.score(FRAME, y[:-1]) > 0.7
    assert model.predict_proba(FRAME)[:, 0].max() < 0.1


@pytest.mark.parametrize(
    "make", [TabularRegressor(members=1), MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, scale_inputs=True)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_order_of_numbers_in_memory_changes_no_bit(make):
    """Columns one after another, and every other column of a table twice as wide; targets too."""
    X, Y = generator.normal(size=(301, 5)), generator.normal(size=(301, 2))
    make = make.set_params(random_state=0)
    phi = [
        clone(make).fit(rows, targets).network_.phi
        for rows in (X, np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2])
        for targets in (Y, np.asfortranarray(Y))
    ]
    assert all(np.array_equal(phi[0], each) for each in phi[1:])
    assert_array_equal(*(make.fit(X, Y).predict(rows) for rows in (X, np.asfortranarray(X))))


def test_max_time_is_kept():
    X, y = generator.normal(size=(4000, 10)), generator.normal(size=4000)
    began = time.process_time()
    model = TabularRegressor(max_time=0.5).fit(X, y)
    assert time.process_time() - began < 5  # of two cores, with what stands around the training
    assert "cut short" in model.report_


def test_max_time_ends_within_the_first_epoch():
    """Of 100,000 rows one epoch takes many times as long as is given; a few hundred steps are, and they are worth something."""
    X = np.random.default_rng(0).normal(size=(100_000, 20)).astype("f")
    model = TabularRegressor(max_time=0.2).fit(X, X[:, 0])
    assert "cut short, with 1 of 8 members begun" in model.report_
    assert model.n_iter_ == 1
    assert model.score(X[:1000], X[:1000, 0]) > 0.5
    assert np.isfinite([model.loss_, model.best_loss_]).all()


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals")
def test_ctrl_c_gives_the_best_so_far(monkeypatch):
    """Pressed after the third epoch of all members."""
    noted, note = [], members.Member.note

    def pressing(member, record, phi):
        note(member, record, phi)
        noted.append(record.epoch)
        if len(noted) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(members.Member, "note", pressing)
    X, y = generator.normal(size=(4000, 10)), generator.normal(size=4000)
    with pytest.warns(UserWarning, match="interrupted"):
        model = TabularRegressor(members=50).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    assert "cut short" in model.report_
    assert len(noted) < 50


def test_callbacks_are_told_of_each_member():
    class Stops(bp.Callback):
        def __init__(self):
            self.epochs = []

        def epoch(self, trainer, record):
            self.epochs.append(record.epoch)
            return record.epoch == 2

    stops = Stops()
    TabularRegressor(members=3, callbacks=[stops]).fit(FRAME, RENT)
    assert stops.epochs == [1, 2] * 3 * 2  # fast, and gently


@pytest.mark.parametrize(
    ("fast", "gentle", "taken"),
    [
        ([0.1, 0.1], [1.0, 1.0], [0, 1]),
        ([1.0, 1.0], [0.1, 0.1], [2, 3]),
        ([1.0, 1.0], [-1.0, -1.0], [0, 1, 2, 3]),  # wrong in opposite ways
        ([1.0, 1.0], [0.1], [0, 1]),  # cut short
        ([], [0.1], [2]),
    ],
)
def test_members_are_chosen_that_are_least_wrong_on_unseen_rows(fast, gentle, taken):
    rows, part, squares = members.Rows(np.zeros((4, 1)), np.zeros(4), None), np.array([0, 1, 0, 1]), bp.LeastSquares()
    made = [
        members.Member(bp.Sequential(bp.Linear(1, 1)), m, kind, answers=[np.full((2, 1), off)])
        for kind, each in ((False, fast), (True, gentle))
        for m, off in enumerate(each)
    ]
    names = [(member.part, member.gentle) for member in members.chosen(squares, made, rows, part, "values")]
    assert names == [[(0, False), (1, False), (0, True), (1, True)][place] for place in taken]


def test_relevance_is_the_certainty_of_a_correlation():
    from types import SimpleNamespace

    draw = np.random.default_rng(0)
    X, w = draw.normal(size=(400, 3)), np.r_[np.ones(300), np.zeros(100)]
    X[:, 2] = 1
    y = np.where(w, 2 * X[:, 0] + draw.normal(size=400), 5 * X[:, 1])
    course = SimpleNamespace(loss=bp.LeastSquares(), outputs=1)
    found = members.relevance(members.Rows(X, y, w), course)
    sure = np.sqrt(300) * np.abs(np.corrcoef(X[:300, 0], y[:300])[0, 1])
    assert_allclose(found / found[2], [sure, 1, 1], rtol=1e-6)
    assert_allclose(np.mean(found**2), 1)


def test_verbose_says_what_is_done(capsys):
    model = fitted("one number", verbose=1)
    said = capsys.readouterr().out
    assert said.count("Member ") == 4
    assert said.count("gently: best epoch") == 2
    assert said.endswith(model.report_ + "\n")


BAD = {
    "warm start": ({"warm_start": True}, HOLES, RENT, "expected warm_start=False"),
    "no members": ({"members": 0}, HOLES, RENT, "members"),
    "no time": ({"max_time": 0}, HOLES, RENT, "max_time"),
    "a hole in y": ({}, HOLES, RENT.where(RENT.index > 3), "missing one"),
    "a hole in an array": ({}, np.full((N, 2), np.nan), RENT, "NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_changes_nothing(case):
    parameters, X, y, text = BAD[case]
    model = TabularRegressor(members=1).fit(FRAME, RENT)
    before = model.predict(FRAME)
    with pytest.raises((TypeError, ValueError), match=text):
        model.set_params(**parameters).fit(X, y)
    assert_array_equal(model.predict(FRAME), before)


RECORDS = [{"size": 1.0, "rooms": 2.0}] * N
ONE_THING = {
    "a dict": ({"X": dict(FRAME), "y": RENT}, "X: an array or a frame, one example per row, got a dict. Make a frame"),
    "records": ({"X": RECORDS, "y": RENT}, "one example per row, got a list of dicts. Make a frame"),
    "a text": ({"X": "table.csv", "y": RENT}, "one example per row, got a str"),
    "an iterator": ({"X": iter(RECORDS), "y": RENT}, "one example per row, got a list_iterator"),
    "targets in a dict": ({"X": FRAME, "y": {"rent": RENT}}, "y as an array, a series or a list, .* got a dict"),
    "groups in a dict": ({"X": FRAME, "y": RENT, "groups": {"room": ROOM}}, "groups as an array, .* got a dict"),
    "mixed groups": (
        {"X": FRAME, "y": RENT, "groups": pd.Series([1, "a"] * (N // 2))},
        r"groups of one kind, which can be sorted, got \['int', 'str'\]\. Make text of them",
    ),
}


@pytest.mark.parametrize("case", ONE_THING)
def test_what_holds_no_rows_is_refused_in_words_of_the_door(case):
    given, text = ONE_THING[case]
    with pytest.raises(TypeError, match=f"TabularRegressor: expected .*{text}"):
        TabularRegressor(members=1).fit(**given)


ODD = {
    "20 rows": (FRAME[:20], RENT[:20]),
    "all columns constant but one": (FRAME[["size"]].assign(a=1.0, b="x"), RENT),
    "all columns constant": (FRAME[["size"]] * 0, RENT),
    "targets of 1e9": (FRAME, RENT * 1e9),
    "targets of 1e-9": (FRAME, RENT * 1e-9),
    "a target of one value": (FRAME, RENT * 0 + 7),
    "many columns": (pd.DataFrame(generator.normal(size=(60, 800))).rename(columns=str), RENT[:60]),
    "many categories": (FRAME.assign(many=np.repeat([f"c{i}" for i in range(N // 2)], 2)), RENT),
}


@pytest.mark.filterwarnings("ignore:.*hold one value only")
@pytest.mark.parametrize("case", ODD)
def test_odd_tables_get_an_answer(case):
    X, y = ODD[case]
    model = TabularRegressor(members=1).fit(X, y)
    predicted = model.predict(X)
    assert np.isfinite(predicted).all()
    assert abs(predicted.mean() - y.mean()) <= 0.5 * y.std()


WAVE = np.sin(np.arange(N))
ALIKE = {
    "equal": np.full(N, 0.3),
    "zeros": np.zeros(N),
    "but for rounding": np.where(WAVE > 0, 0.3, 0.1 + 0.2),
    "sums": np.random.default_rng(0).dirichlet(np.ones(5), N).sum(axis=1),
    "large": 1e15 + np.arange(N) % 2,
    "largest": 1e300 * (1 + 4e-16 * (WAVE > 0)),
    "some digits": 1e8 + 2e-4 * WAVE,
}


@pytest.mark.parametrize("case", ALIKE)
def test_targets_that_are_almost_one_value_are_answered_by_it(case):
    """To the last digits; beside it another target is answered as if it were alone."""
    y, both = ALIKE[case], pd.DataFrame({"one": ALIKE[case], "rent": RENT})
    model = TabularRegressor(members=1).fit(FRAME, y)
    atol = max(4 * np.ptp(y), 4e-16 * abs(y[0]))
    assert_allclose(model.predict(FRAME), y.mean(), rtol=0, atol=atol)
    assert model.residuals_.max() <= atol
    beside = TabularRegressor(members=1).fit(FRAME, both).predict(FRAME)
    assert_allclose(beside[:, 0], y.mean(), rtol=0, atol=atol)
    assert np.corrcoef(beside[:, 1], RENT)[0, 1] > 0.9


def test_few_digits_that_differ_are_scaled_as_they_vary():
    """20,000 sums of 1e8 were off by more than the targets differ, and these taken for one value."""
    wave = np.sin(np.linspace(-3, 3, 20_000))
    mean, scale = standardization(1e8 + 2e-4 * wave, None)
    assert_allclose(scale, 2e-4 * wave.std(), rtol=1e-3)
    assert_allclose(mean, 1e8 + 2e-4 * wave.mean(), rtol=0, atol=2e-8)


def test_intervals_of_a_target_of_one_value_hold_others_that_judge(tmp_path):
    model = TabularRegressor(members=1).fit(FRAME, np.full(N, 7.0), X_val=FRAME, y_val=np.arange(7, 7 + N))
    assert_array_equal(model.predict(FRAME), np.full(N, 7.0))
    assert_allclose(model.residuals_[:, 0], np.arange(N), atol=1e-5)
    model.save(tmp_path / "m.safetensors")
    assert_array_equal(load_any(tmp_path / "m.safetensors").predict(FRAME), model.predict(FRAME))


def test_one_class_is_told_of_and_predicted():
    with pytest.warns(bp.TrainingAdvice, match="y holds one class"):
        model = TabularClassifier(members=1).fit(FRAME, ["yes"] * N)
    assert set(model.predict(FRAME)) == {"yes"}


def test_categories_are_bounded():
    """Of 10,000 categories 255 are kept, and one more stands for the others."""
    X = pd.DataFrame({"code": [f"c{i}" for i in range(10_000)] * 2})
    model = TabularRegressor(members=1, max_time=1).fit(X, np.tile(np.arange(10_000.0), 2))
    assert model.network_.in_features == 256


def test_columns_can_be_weighed_by_scikit_learn():
    """Rows of a frame are shuffled by column, words too."""
    model = fitted("one number", FRAME)
    found = permutation_importance(model, FRAME, RENT, n_repeats=2, random_state=0).importances_mean
    assert FRAME.columns[np.argmax(found)] == "size"


def run(*arguments):
    from click.testing import CliRunner

    from backprop.cli import commands

    return CliRunner().invoke(commands, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A folder with files, and models of `fit`: of numbers from data with holes, of classes from whole ones."""
    folder = tmp_path_factory.mktemp("tabular")
    whole = FRAME.drop(columns="garden").assign(rent=RENT, house=np.arange(N) // 4)
    whole.assign(size=whole["size"].mask(whole.index % 9 == 0)).to_csv(folder / "holes.csv", index=False)
    whole.assign(dear=np.where(RENT.median() < RENT, "yes", "no")).drop(columns=["rent", "house"]).to_csv(
        folder / "whole.csv", index=False
    )
    for arguments in (
        (
            "holes.csv",
            "--target",
            "rent",
            "--group",
            "house",
            "--out",
            folder / "rent.safetensors",
        ),
        ("whole.csv", "--target", "dear", "--out", folder / "dear.safetensors"),
    ):
        done = run("fit", folder / arguments[0], *arguments[1:])
        assert done.exit_code == 0, done.output
        assert "8 members" in done.output
        assert "The tabular network: " in done.output
        assert "The plain network" not in done.output
    return folder


def test_categories_that_only_the_rows_held_out_have(tmp_path):
    """One that occurs once is in no row of the training, and was refused after it; what is unknown later is told."""
    frame = pd.DataFrame(
        {"town": np.where(np.arange(60) % 2, "Bonn", "Ulm"), "x": np.arange(60.0), "y": np.arange(60.0)}
    )
    for row in range(0, 60, 3):
        frame.loc[row, "town"] = f"once {row}"
    frame.to_csv(tmp_path / "d.csv", index=False)
    fit = [
        "fit",
        tmp_path / "d.csv",
        "--target",
        "y",
        "--members",
        "1",
        "--max-time",
        "0.2",
        "--out",
        tmp_path / "m.safetensors",
    ]
    for unknown in ("ignore", "refuse"):
        done = run(*fit, "--unknown", unknown)
        assert done.exit_code == 0, done.output
        told = run("evaluate", tmp_path / "m.safetensors", tmp_path / "d.csv")
        said = "the model does not know 'once" if unknown == "ignore" else "the model is not measured on them"
        assert told.exit_code == 0, told.output
        assert said in told.output


def test_a_class_that_only_the_rows_held_out_have(tmp_path):
    """It was refused after the training."""
    y = ["ab"[k % 2] for k in range(40)]
    y[3], y[5], y[8], y[13], y[21] = "vwxyz"
    pd.DataFrame({"x": np.arange(40) % 7, "y": y}).to_csv(tmp_path / "d.csv", index=False)
    done = run("fit", tmp_path / "d.csv", "--target", "y", "--members", "1", "--out", tmp_path / "m.safetensors")
    assert done.exit_code == 0, done.output
    assert "of classes or categories that no row trained on has: the model is not measured on them" in done.output


def test_ctrl_c_on_the_command_line_saves_the_best_and_exits_with_130(shell, monkeypatch):
    from backprop.estimators import members

    note = members.Member.note

    def pressing(member, record, phi):
        note(member, record, phi)
        if record.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(members.Member, "note", pressing)
    from backprop.__main__ import main

    path = shell / "stopped.safetensors"
    assert main(["fit", str(shell / "whole.csv"), "--target", "dear", "--out", str(path)]) == 130
    assert load_any(path).stopped_ == "Ctrl-C"
    assert "cut short" in load_any(path).report_
    path.unlink()


def test_a_bar_shows_how_far_the_members_are(capsys):
    model = fitted("one number", verbose="bar")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err
    assert "members=4/4" in shown.err  # of few rows two of each kind
    assert "validation_loss" in shown.err
    with pytest.raises(ValueError, match="verbose"):
        model.set_params(verbose="loud").fit(HOLES, RENT)


def test_the_held_out_groups_are_remembered(shell):
    """`evaluate` and `plot` find the rows that were held out; the column of groups may be there or not."""
    told = run("evaluate", shell / "rent.safetensors", shell / "holes.csv", "--json")
    held = json.loads(told.stdout)["held_out"]
    assert held["rows"] == 24
    assert "but for the 24 rows that were held out" in told.stderr
    plot = run("plot", shell / "rent.safetensors", shell / "holes.csv", "--kind", "residuals", "--out", shell / "r.svg")
    assert "Drawn from the 24 rows" in plot.output
    pd.read_csv(shell / "holes.csv").drop(columns=["house", "rent"]).to_csv(shell / "new.csv", index=False)
    done = run("predict", shell / "rent.safetensors", shell / "new.csv", "--out", shell / "p.csv")
    assert done.exit_code == 0, done.output
    predicted = load_any(shell / "rent.safetensors").predict(pd.read_csv(shell / "new.csv"))
    assert_allclose(pd.read_csv(shell / "p.csv")["rent"], predicted, rtol=1e-5)


def test_probabilities_of_the_command_line_are_those_of_the_estimator(shell):
    done = run("predict", shell / "dear.safetensors", shell / "whole.csv", "--probabilities", "--out", shell / "q.csv")
    assert done.exit_code == 0, done.output
    p = load_any(shell / "dear.safetensors").predict_proba(pd.read_csv(shell / "whole.csv").drop(columns="dear"))
    assert_allclose(pd.read_csv(shell / "q.csv")[["dear=no", "dear=yes"]], p, atol=1e-6)


def test_pictures_of_columns_with_holes_are_of_these_columns(shell):
    """A column with holes makes two features: those after it were taken for others."""
    from backprop.cli.models import load_with_targets
    from backprop.cli.view import View

    how = {"layers": (), "drop": (), "categories": ()}
    view = View(*load_with_targets(shell / "rent.safetensors", shell / "holes.csv", **how))
    assert view.table.feature_names[:3] == ["size", "size is missing", "rooms"]
    assert view.table.places == {"size": [0, 1], "rooms": [2], "town": [3, 4, 5]}
    assert view.column == "size"
    for column, width in (("size", 2), ("rooms", 1), ("town", 3)):
        view.column = column
        values, at = view._settings()
        assert values.shape == (len(at), width)
    labels = [label.get_text() for label in view.draw("importance", None).get_yticklabels()]
    assert labels[0] == "size"


SERVED = {
    "network": ("plot", "rent", "--out", "n.svg"),
    "dependence": ("plot", "rent", "holes.csv", "--column", "town", "--out", "d.svg"),
    "confusion": ("plot", "dear", "whole.csv", "--kind", "confusion", "--out", "c.svg"),
    "explain": ("explain", "dear", "whole.csv"),
    "look": ("look", "rent"),
    "numpy": ("export", "dear", "--to", "numpy", "--out", "dear.py"),
    "holes in NumPy": ("export", "rent", "--to", "numpy", "--out", "holes_net.py"),
}
REFUSED = {
    "probabilities": ("predict", "rent", "holes.csv", "--probabilities", "needs a model of classes"),
    "boundary": (
        "plot",
        "rent",
        "holes.csv",
        "--kind",
        "boundary",
        "--out",
        "b.svg",
        "a model of two columns of numbers",
    ),
    "confusion of numbers": (
        "plot",
        "rent",
        "holes.csv",
        "--kind",
        "confusion",
        "--out",
        "b.svg",
        "a model of classes",
    ),
    "torch": ("export", "rent", "--to", "torch", "--out", "r.safetensors", "--to numpy, onnx and c"),
    "resume": (
        "resume",
        "rent",
        "holes.csv",
        "--out",
        "x.safetensors",
        "got a model whose training has ended. Fit anew.",
    ),
    "from": (
        "fit",
        "holes.csv",
        "--from",
        "rent",
        "--out",
        "x.safetensors",
        "got a tabular one. Its members have",
    ),
    "check": ("check", "rent", "expected a layer as package.module:Name, got a model file"),
}


def placed(shell, arguments):
    """Arguments with the models and files of the folder."""
    names = {"rent": "rent.safetensors", "dear": "dear.safetensors"}
    return [shell / names.get(each, each) if each in names or "." in each else each for each in arguments]


@pytest.mark.parametrize("case", SERVED)
def test_commands_serve_its_model(shell, case):
    done = run(*placed(shell, SERVED[case]))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("case", REFUSED)
def test_commands_refuse_its_model_in_one_line_of_their_own_words(shell, case):
    *arguments, text = REFUSED[case]
    before = sorted(shell.iterdir())
    done = run(*placed(shell, arguments))
    assert done.exit_code in (1, 2)
    last = done.output.strip().splitlines()[-1]
    assert text in last
    assert not any(word in last for word in ("table=", "X[", "to_c", "to_numpy", "partial_fit"))
    assert sorted(shell.iterdir()) == before


def test_the_weekend_and_the_hour_are_seen_in_dates(tmp_path):
    """Days alone explain nothing of it; without a setting."""
    draw = np.random.default_rng(0)
    when = pd.Series(pd.Timestamp("2021-01-01") + pd.to_timedelta(draw.integers(0, 3 * 365 * 24, 600), unit="h"))
    y = (when.dt.day_of_week >= 5) * 2 + np.cos(2 * np.pi * when.dt.hour / 24)
    frame = pd.DataFrame({"when": when})
    model = TabularRegressor(members=2).fit(frame[:500], y[:500])
    assert model.score(frame[500:], y[500:]) > 0.9
    model.save(tmp_path / "m.safetensors")
    assert_array_equal(load_any(tmp_path / "m.safetensors").predict(frame), model.predict(frame))
    with pytest.raises(TypeError, match="days since"):
        MLPRegressor().fit(frame, y)
