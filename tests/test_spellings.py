"""Spellings of layers, rules and steps that a list of operations could take for others: each against the plain path."""

from __future__ import annotations

import copy
import pickle
import re
from collections import OrderedDict, deque

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import backprop as bp

X, Y = np.random.default_rng(0).normal(size=(2, 12, 3))


def layer(forward, **own):
    """A traced layer of one's own; its backward, the identity, need not be right here."""
    body = {"traced": True, "keeps_width": True, "forward": forward, "backward": lambda self, g: (g, {}), **own}
    return type("Own", (bp.Layer,), body)()


def assert_plain(layers=(), rule=lambda: bp.SGD(0.05), between=lambda rule, net: None):
    """Two full batches by the trainer and by hand give the same φ; in between something is changed."""
    net = bp.Sequential(*layers, bp.Linear(3, 3), seed=0, dtype="float64")
    other, loss, mine, theirs = net.copy(), bp.LeastSquares(), rule(), rule()
    trainer = bp.Trainer(net, bp.LeastSquares(), mine, batch_size="full", shards=1)
    for turn in range(2):
        if turn:
            between(mine, net)
            between(theirs, other)
        list(trainer.epochs(X, Y, 1))
        loss.forward(other.forward(X.T), Y.T)
        theirs.step(other.phi, other.backward(loss.backward())[1].dL_dphi)
    assert_allclose(net.phi, other.phi, rtol=1e-12, atol=1e-14)


def one_of_two(self, h):
    a, b = np.tanh(h), np.tanh(h)
    a *= 2
    return b


def again_afterwards(self, h):
    a, b = np.tanh(h), np.tanh(h)
    a *= 2
    return a + b * np.tanh(h)


def cast_to_its_type(self, h):
    a = h.astype(h.dtype)
    a *= 3
    return a + h


def copied(self, h):
    a = h.copy()
    a *= 3
    return a + h


def unit_vectors(self, h):
    e, total = np.zeros((3, 1)), 0
    for i in range(3):
        e[:] = 0
        e[i] = 1
        total = total + e * h
    return total


def one_entry(self, h):
    return h * h[0, 0]


def inverse(self, h):
    return np.linalg.inv(np.eye(3) + h @ h.T) @ h


@pytest.mark.parametrize(
    "forward", [one_of_two, again_afterwards, cast_to_its_type, copied, unit_vectors, one_entry, inverse]
)
def test_arrays_with_equal_numbers_stay_apart(forward):
    assert_plain([bp.Tanh(), layer(forward)])


def test_branches_with_equal_numbers_stay_apart():
    def doubled(self, h):
        h = h.copy()
        h *= 2
        return h

    assert_plain([bp.FanOut(bp.Tanh(), bp.Sequential(bp.Tanh(), layer(doubled)), join="sum")])


@pytest.mark.parametrize("rule", [lambda: bp.SGD(0.05, momentum=0.9), lambda: bp.Adam(0.05)], ids=["momentum", "Adam"])
@pytest.mark.parametrize(
    "change",
    [
        lambda rule, net: rule.state.update({name: 0 * v for name, v in rule.state.items()}),
        lambda rule, net: rule.state.clear(),
        lambda rule, net: setattr(rule, "state", {name: 0 * v for name, v in rule.state.items()}),
    ],
    ids=["entries", "cleared", "assigned"],
)
def test_state_that_is_replaced_counts(rule, change):
    assert_plain(rule=rule, between=change)


def test_an_attribute_that_was_not_there_counts():
    scaled = layer(lambda self, h: h * getattr(self, "k", 1))
    assert_plain([scaled], between=lambda rule, net: setattr(net[0], "k", -1))


def counted(self, h):
    self.n += 1
    return h / self.n


def counted_from_nothing(self, h):
    self.n = getattr(self, "n", 0) + 1
    return h / self.n


def mean_elsewhere(self, h):
    m = np.empty(3)
    h.mean(axis=1, out=m)
    return h - m[:, None]


class Holder:
    """What a layer may keep a number in."""

    def __init__(self):
        self.k = 1.0


KEPT = {
    "number": (0, None),
    "list": ([0], lambda kept: kept.append(kept.pop() + 1)),
    "list in a tuple": (([0],), lambda kept: kept[0].append(kept[0].pop() + 1)),
    "dict": ({}, lambda kept: kept.update(n=kept.get("n", 0) + 1)),
    "OrderedDict": (OrderedDict(), lambda kept: kept.update(n=kept.get("n", 0) + 1)),
    "deque": (deque([1]), lambda kept: kept.append(1)),
    "array in a tuple": ((np.zeros(1),), lambda kept: np.add(kept[0], 1, out=kept[0])),
    "object": (Holder(), lambda kept: setattr(kept, "k", kept.k + 1)),
}


@pytest.mark.parametrize("forward", [counted, counted_from_nothing, mean_elsewhere])
def test_what_would_be_lost_is_refused(forward):
    with pytest.raises(TypeError, match=r"test_spellings\.py:\d+ in .* cannot be traced"):
        assert_plain([layer(forward, n=0)])


@pytest.mark.parametrize("where", ["class", "object"])
@pytest.mark.parametrize("kept", [name for name in KEPT if name != "number"])
def test_state_in_a_container_is_refused_and_not_touched(kept, where):
    value, change = copy.deepcopy(KEPT[kept])

    def forward(self, h):
        change(self.kept)
        return h

    own = layer(forward, **({"kept": value} if where == "class" else {}))
    if where == "object":
        own.kept = value
    before = pickle.dumps(value)
    with pytest.raises(TypeError, match=r"Own\.kept, which a pass reads and then changes, cannot be traced"):
        assert_plain([own])
    assert pickle.dumps(value) == before


@pytest.mark.parametrize(
    "kept", ["list", "list in a tuple", "dict", "OrderedDict", "deque", "array in a tuple", "object"]
)
def test_what_is_changed_in_a_container_counts(kept):
    scale = {
        "list": lambda kept: 1 + sum(kept),
        "list in a tuple": lambda kept: 1 + sum(kept[0]),
        "dict": lambda kept: 1 + len(kept),
        "OrderedDict": lambda kept: 1 + len(kept),
        "deque": len,
        "array in a tuple": lambda kept: 1 + kept[0],
        "object": lambda kept: kept.k,
    }[kept]
    value, change = KEPT[kept]
    own = layer(lambda self, h: h * scale(self.kept))
    own.kept = copy.deepcopy(value)
    assert_plain([own], between=lambda rule, net: change(net[0].kept))


class Keeps(bp.Layer):
    """Writes to what it gets and to what it returned."""

    keeps_width = True

    def forward(self, h):
        h *= 2
        self.f = np.tanh(h)
        return self.f

    def backward(self, dL_df):
        self.f *= self.f
        return 2 * dL_df * (1 - self.f), {}


def test_predicting_leaves_the_data_alone():
    Z = X.astype(np.float32)
    net = bp.Sequential(Keeps())
    f = net.predict(Z)
    assert_array_equal(Z, X.astype(np.float32))
    net.predict(Z + 1)
    assert_array_equal(f, net.predict(Z))


class Narrow(bp.Layer):
    keeps_width = True

    def forward(self, h):
        return h * 1

    def backward(self, dL_df):
        return dL_df.sum(axis=0, keepdims=True), {}


class MeanSlope(bp.LeastSquares):
    def ell(self, f, y):
        self.d = f - y
        return (self.d**2).sum(axis=0)

    def dell_df(self):
        return (2 * self.d).mean()


class OneNumber(MeanSlope):
    def ell(self, f, y):
        return super().ell(f, y).sum()


@pytest.mark.parametrize(
    ("layers", "loss", "words"),
    [
        (
            [Narrow()],
            bp.LeastSquares(),
            r"Narrow\(\)\.backward: expected dL_dh with the shape of h, \(3, 12\), got .*\(1, 12\)",
        ),
        ([], MeanSlope(), r"MeanSlope\(\)\.backward: expected ∂ℓ/∂f with the shape of f, \(3, 12\), got shape \(\)"),
        ([], OneNumber(), r"OneNumber\(\)\.ell: expected ℓ with shape \(12,\), got shape \(\)"),
    ],
    ids=["layer", "slope", "loss"],
)
def test_shapes_that_would_be_broadcast_are_refused(layers, loss, words):
    net = bp.Sequential(bp.Linear(3, 3), *layers, seed=0)
    with pytest.raises(ValueError, match=words):
        bp.Trainer(net, loss, bp.SGD(0.1)).step(X, Y)


def test_an_error_in_a_constraint_leaves_the_statistics_of_the_epoch_before():
    class Fails(bp.Constraint):
        turns, at = 0, -1

        def project(self, parameter):
            self.turns += 1
            if self.turns == self.at:
                raise RuntimeError("once")

    fails = Fails()
    net = bp.Sequential(bp.Linear(3, 6), bp.BatchNorm(6), bp.Linear(6, 3), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=4, shards=2, constraints={"0.omega": fails})
    trainer.fit(X, Y, epochs=1, verbose=0)
    before, fails.turns, fails.at = {name: b.copy() for name, b in net.buffers.items()}, 0, 3
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(X, Y, epochs=1, verbose=0)
    for name, buffer in net.buffers.items():
        assert_array_equal(buffer, before[name])


def test_weights_whose_sum_is_no_number_are_refused():
    net = bp.Sequential(bp.Linear(3, 3), seed=0)
    with pytest.raises(ValueError, match="a finite sum of sample_weight"):
        bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).fit(X, Y, sample_weight=np.full(12, 1e308), verbose=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: setattr(t.net[1], "momentum", 2), "BatchNorm: expected momentum"),
        (lambda t: setattr(t.net[2], "rate", 1), "Dropout: expected rate"),
        (lambda t: setattr(t.optimizer, "momentum", 1.5), "SGD: expected momentum"),
        (lambda t: setattr(t.loss, "delta", -1), "Huber: expected delta > 0, got -1"),
        (lambda t: setattr(t.loss, "reduction", "foo"), "expected reduction"),
    ],
    ids=["BatchNorm", "Dropout", "SGD", "Huber", "reduction"],
)
def test_settings_out_of_range_are_refused_before_the_next_step(change, words):
    net = bp.Sequential(bp.Linear(3, 6), bp.BatchNorm(6), bp.Dropout(0.1), bp.Linear(6, 3), seed=0)
    trainer = bp.Trainer(net, bp.Huber(1.0), bp.SGD(0.01, momentum=0.5), batch_size=4)
    trainer.fit(X, Y, epochs=1, verbose=0)
    phi = net.phi.copy()
    change(trainer)
    with pytest.raises(ValueError, match=words):
        trainer.fit(X, Y, epochs=1, verbose=0)
    assert_array_equal(net.phi, phi)


def test_one_training_of_a_trainer_at_a_time():
    net = bp.Sequential(bp.Linear(3, 3), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=4)
    trainer.after_step.append(lambda: trainer.step(X, Y))
    with pytest.raises(RuntimeError, match=r"Trainer\.step: expected one training of a trainer at a time"):
        trainer.fit(X, Y, epochs=1, verbose=0)
    trainer.after_step.clear()
    trainer.fit(X, Y, epochs=1, verbose=0)


def test_a_limit_beyond_all_numbers_limits_nothing():
    net = bp.Sequential(bp.Linear(3, 3), seed=0)
    twin = net.copy()
    for each, constraints in ((net, {"*.omega": bp.MaxNorm(1e300)}), (twin, {})):
        bp.Trainer(each, bp.LeastSquares(), bp.SGD(0.1), constraints=constraints).fit(X, Y, epochs=1, verbose=0)
    assert_array_equal(net.phi, twin.phi)


def test_what_is_no_list_of_metrics_is_refused():
    trainer = bp.Trainer(bp.Sequential(bp.Linear(3, 3), seed=0), bp.LeastSquares(), bp.SGD(0.1))
    with pytest.raises(TypeError, match="expected metrics as a list, got 3"):
        trainer.fit(X, Y, metrics=3, verbose=0)


def test_half_a_step_is_refused():
    trainer = bp.Trainer(bp.Sequential(bp.Linear(3, 3), seed=0), bp.LeastSquares(), bp.SGD(0.1))
    trainer.optimizer.t = 2.5
    with pytest.raises(TypeError, match=r"SGD: expected a whole number t ≥ 0, got 2.5"):
        trainer.fit(X, Y, verbose=0)


class Wide(bp.Layer):
    def __init__(self, features):
        self.parameters["omega"] = np.ones((features, 1))

    def forward(self, h):
        self.h = h
        return self.omega * h

    def backward(self, dL_df):
        return self.omega * dL_df, {"omega": (dL_df * self.h).sum(axis=1, keepdims=True)}


def test_an_error_inside_a_layer_of_ones_own_names_it():
    net = bp.Sequential(bp.Linear(3, 4), Wide(5), seed=0)
    for call in (lambda: net.forward(X.T), lambda: net.predict(X)):
        with pytest.raises(ValueError, match="broadcast") as caught:
            call()
        met = "self.omega * h is (5, 1) * (4, 12)"
        assert caught.value.__notes__ == [f"In {net[1].label}.forward, for an array of shape (4, 12): {met}."]


def test_a_plan_tells_where_a_layer_of_ones_own_stands():
    net = bp.Sequential(bp.Linear(3, 4), Wide(4), bp.Linear(4, 3), seed=0)
    calls = [
        step
        for step in bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).plan(4).steps
        if getattr(step, "kind", "") == "call"
    ]
    assert [step.name for step in calls] == ["1.forward", "1.backward", "1.gradient.omega"]
    assert all("tests/test_spellings.py:" in step.line for step in calls)


def test_code_that_was_typed_in_is_where_it_stands():
    names = {"bp": bp}
    exec(
        "class Typed(bp.Layer):\n"
        "    traced = keeps_width = True\n"
        "    def forward(self, h):\n"
        "        return h if h.sum() > 0 else -h\n"
        "    def backward(self, dL_df):\n"
        "        return dL_df, {}\n",
        names,
    )
    net = bp.Sequential(bp.Linear(3, 3), names["Typed"](), seed=0)
    with pytest.raises(TypeError, match=r"^<string>:4 in forward: a decision by numbers"):
        bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).step(X, Y)


def rule(update, slots=()):
    return type("Rule", (bp.Optimizer,), {"traced": True, "slots": slots, "update": update})(0.1)


def by_a_mask(self, alpha, phi, g):
    phi -= alpha * (g > 0)


def by_a_mask_on_the_left(self, alpha, phi, g):
    phi -= (g > 0) * alpha * 0.5


def by_whole_numbers(self, alpha, phi, g):
    phi -= alpha * (self.t + 1) * np.sign(g).astype(int)


def by_either(self, alpha, phi, g):
    phi -= np.where(g > 0, alpha, -alpha)


def by_difference(self, alpha, phi, g, v):
    before = v * 0.9
    v *= 0.9
    v -= alpha * g
    phi += v + 0.9 * (v - before)


@pytest.mark.parametrize("update", [by_a_mask, by_a_mask_on_the_left, by_whole_numbers, by_either, by_difference])
def test_rules(update):
    assert_plain(rule=lambda: rule(update, ("v",) if update is by_difference else ()))


def by_a_constant(self, alpha, phi, g):
    phi -= (alpha * np.linspace(1, 2, 12)) * g


def by_an_attribute(self, alpha, phi, g):
    phi -= alpha * (self.w * g)


@pytest.mark.parametrize("update", [by_a_constant, by_an_attribute])
def test_rules_that_are_refused(update):
    made = rule(update)
    made.w = np.ones(12)
    with pytest.raises(TypeError, match="cannot be traced"):
        assert_plain(rule=lambda: made)


def keyword_indices(self, h):
    i = np.zeros(3, int)
    a = np.take(h, indices=i, axis=0)
    i[1] = 2
    return a - 2 * np.take(h, indices=i, axis=0)


def long_indices(self, h):
    i = np.zeros(2000, int)
    j = i.copy()
    j[1000] = 2
    return h + (np.take(h, indices=i, axis=0) - np.take(h, indices=j, axis=0)).sum(axis=0)


def turned_list(self, h):
    i = [0, 1, 2]
    a = np.take(h, i, 0)
    i.reverse()
    return a + 3 * np.take(h, i, 0)


def both_zeros(self, h):
    return np.copysign(h, 0.0) + 3 * np.copysign(h, -0.0)


@pytest.mark.parametrize(
    "forward",
    [
        keyword_indices,
        long_indices,
        turned_list,
        both_zeros,
        lambda self, h: h + 3 * np.flip(h, 0),
        lambda self, h: h + np.diff(h, 0),
        lambda self, h: np.clip(h, a_min=-0.1, a_max=0.2) + h.clip(min=0),
        lambda self, h: h * np.var(h, axis=0, ddof=1) + h.std(axis=0),
        lambda self, h: h.cumsum(axis=0) + h.round(2) + h.repeat(1, axis=0) + h.squeeze() + h.swapaxes(0, 1).T,
    ],
    ids=["keywords", "long", "list", "zeros", "flip", "diff", "clip", "var", "methods"],
)
def test_functions(forward):
    assert_plain([layer(forward)])


def written_under_a_view(self, h):
    a = h * 2
    b = np.flip(a, 0)
    a += 1
    return a + 3 * b


def two_names(self, h):
    self.r[...] = self.r + 1
    return h * self.q


@pytest.mark.parametrize(
    "forward",
    [
        written_under_a_view,
        two_names,
        lambda self, h: h + np.einsum("ij->ij", h),
        lambda self, h: np.nan_to_num(h * 1, copy=False),
        lambda self, h: np.take_along_axis(h, indices=np.argsort(h, axis=0), axis=0),
    ],
    ids=["view", "two names", "einsum", "nan_to_num", "keyword"],
)
def test_functions_that_are_refused(forward):
    own = layer(forward)
    own.r = own.q = np.ones((3, 1))
    with pytest.raises(TypeError, match=r"test_spellings\.py:\d+ in .* cannot be traced"):
        assert_plain([own])


@pytest.mark.parametrize("name", ["t", "state"])
def test_settings_with_the_names_of_others_count(name):
    own = layer(lambda self, h: h * getattr(self, name))
    setattr(own, name, 1.0)
    assert_plain([own], between=lambda rule, net: setattr(net[0], name, 2.0))


@pytest.mark.parametrize(
    ("forward", "before", "after"),
    [
        (lambda self, h: h * vars(self)["r"], 1.0, 2.0),
        (lambda self, h: h * (2 if hasattr(self, "r") else 1), "none", None),
        (lambda self, h: np.copysign(h, self.r), 0.0, -0.0),
    ],
    ids=["vars", "hasattr", "zero"],
)
def test_settings_however_they_are_read(forward, before, after):
    own = layer(forward)
    if before != "none":
        own.r = before
    assert_plain([own], between=lambda rule, net: setattr(net[0], "r", after))


def test_an_array_of_the_class_counts():
    own = layer(lambda self, h: h * self.r, r=np.ones((3, 1)))

    def doubled(rule, net):
        if rule.t == 1:
            type(net[0]).r = np.full((3, 1), 2.0)

    assert_plain([own], between=doubled)


class Stumbling:
    """Parts of one's own with a mistake in them."""

    class Loss(bp.LeastSquares):
        def dell_df(self):
            return self.d @ self.d

    class Ell(bp.Loss):
        def ell(self, f, y):
            return f @ y

        def dell_df(self):
            return 0

    class Rule(bp.Optimizer):
        def update(self, alpha, phi, g, *state):
            phi -= g[1:] * alpha

    class Backward(bp.Tanh):
        def backward(self, dL_df):
            return dL_df @ self.f, {}


STUMBLING = {
    "dell_df": ({"loss": Stumbling.Loss()}, r"In Loss\(\)\.dell_df, for f of shape \(1, 5\)"),
    "ell": ({"loss": Stumbling.Ell()}, r"In Ell\(\)\.ell, for f of shape \(1, 5\) and y of shape \(1, 5\)"),
    "update": ({"rule": Stumbling.Rule(0.1)}, r"In Rule\(learning_rate=0\.1\)\.update, for phi of shape \(5,\)"),
    "backward": ({"layer": Stumbling.Backward()}, r"In Backward\(\)\.backward, for an array of shape \(1, 5\)"),
}


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("name", STUMBLING)
def test_an_error_in_one_s_own_code_names_the_part_the_pass_and_the_shapes(name, by_hand):
    parts, note = STUMBLING[name]
    layer = copy.deepcopy(parts.get("layer", bp.Tanh()))
    net = bp.Sequential(bp.Linear(2, 1), layer, bp.Linear(1, 1), seed=0, dtype="float64")
    loss, rule = copy.deepcopy(parts.get("loss", bp.LeastSquares())), copy.deepcopy(parts.get("rule", bp.SGD(0.1)))
    X, y = np.ones((5, 2)), np.arange(5.0)

    def step():
        if not by_hand:
            return bp.Trainer(net, loss, rule).step(X, y)
        loss.forward(net.forward(X.T), y)
        return rule.step(net.phi, net.backward(loss.backward())[1].dL_dphi)

    with pytest.raises(ValueError, match=r"matmul|broadcast") as caught:
        step()
    assert re.search(note, "\n".join(caught.value.__notes__))
