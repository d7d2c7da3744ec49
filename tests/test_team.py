"""A team of ranks trains with the bits of one process. Here ranks are threads; in test_ranks.py they are processes."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import ranks
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import backprop as bp
from backprop.distributed import start
from backprop.engine.shards import joined, part, tree
from backprop.engine.team import ALONE, Ranks, Rehearsal
from backprop.estimators import MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")


class Threads(Ranks):
    """A rank that is a thread; `post` is where they leave what they send."""

    def __init__(self, rank, post):
        super().__init__()
        self.rank, self.size, self.post = rank, len(post), post

    def exchange(self, mine):
        self.post[self.rank] = mine
        self.post.barrier.wait(120)
        found = list(self.post)
        self.post.barrier.wait(120)
        return found

    def gather(self, mine, counts, out):
        assert [len(mine.ravel()), out.size] == [counts[self.rank], sum(counts)]
        out[...] = np.concatenate([each.ravel() for each in self.exchange(mine.copy())]).reshape(out.shape)
        return out

    def swap(self, send, counts, out, from_each):
        parts = [each[self.rank] for each in self.exchange(np.split(send.copy(), np.cumsum(counts)[:-1]))]
        assert list(map(len, parts)) == list(from_each)
        out[:] = np.concatenate(parts)
        return out

    def agree(self, who, *what):
        self.compare(who, start.facts(*what))

    def compare(self, who, facts):
        start.require_same(self, who, facts)


class Post(list):
    def __init__(self, size):
        super().__init__([None] * size)
        self.barrier = threading.Barrier(size)


def together(size, function):
    """What `function(team)` returns or raises on each rank; where one fails, the others do not wait for it."""
    post = Post(size)

    def run(rank):
        try:
            return function(Threads(rank, post))
        except threading.BrokenBarrierError:
            return None
        except BaseException as error:
            if not isinstance(error, ValueError | FloatingPointError | KeyboardInterrupt):
                post.barrier.abort()
            return error

    if size == 1:
        return [function(ALONE)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def same(found):
    """The one result of all ranks."""
    for each in found:
        if isinstance(each, BaseException):
            raise each
    assert len(set(found)) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    ranks.write(folder)
    return folder


class TestTree:
    @pytest.mark.parametrize("S", [1, 2, 3, 7, 8, 11, 32, 33])
    def test_the_same_additions_for_any_ranks(self, S):
        def text(joins, places):
            for level in joins:
                for left, right in level:
                    places[left] = f"({places[left]} + {places[right]})"
            return places

        alone, last = joined({(0, s): s for s in range(S)}, S)
        whole = text(alone, {s: str(s) for s in range(S)})[next(iter(last.values()))]
        for p in range(1, S + 1):
            nodes = {}
            for rank in range(p):
                for threads in (1, 3):
                    found = tree(S, threads, part(range(S), rank, p))
                    there = {}
                    for thread, steps in enumerate(found.own):
                        for what, a, b in steps:
                            if what == "shard":
                                there[thread, b] = str(a)
                            else:
                                there[thread, a] = f"({there[thread, a]} + {there[thread, b]})"
                    there = text(found.joins, there)
                    nodes |= {node: there[place] for node, place in found.nodes.items()}
            joins, last = joined({node: node for node in nodes}, S)
            assert text(joins, nodes)[next(iter(last.values()))] == whole

    @given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 12), st.data())
    def test_add_has_the_bits_of_one_process(self, p, more, P, data):
        S = p + more
        shards = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((S, P)).astype(np.float32)

        def added(team):
            of_rank, nodes = team.shards(S), {}
            for node in tree(S, 1, of_rank[team.rank]).nodes:
                some = range(node[1] << node[0], min(S, (node[1] + 1) << node[0]))
                joins, last = joined({(0, s): s for s in some}, S)
                sums = shards.copy()
                for level in joins:
                    for left, right in level:
                        sums[left] += sums[right]
                nodes[node] = sums[last[node]]
            total = np.empty(P, np.float32)
            team.add(nodes, of_rank, total)
            return (next(iter(nodes.values())) if team.size == 1 else total).tobytes()

        assert same(together(p, added)) == added(ALONE)


CASES = [
    ("SGD", "folder", 2, 0, 3),
    ("Adam with clipping", "arrays", 2, 1, 8),
    ("BatchNorm", "folder", 1, 1, 4),
    ("Dropout", "arrays", 1, 0, 11),
    ("weights", "folder", 1, 0, 3),
    ("float64", "arrays", 1, 1, 2),
]


@pytest.mark.parametrize(("kind", "where", "threads", "native", "p"), CASES)
def test_bits_of_one_process(folder, kind, where, threads, native, p):
    alone = ranks.train(folder, f"{kind},{where},1,0", ALONE)
    assert same(together(p, lambda team: ranks.train(folder, f"{kind},{where},{threads},{native}", team))) == alone


def test_a_rank_computes_and_reads_its_own_shards_only(folder):
    class Counted(bp.ParquetRows):
        decoded = 0

        def blocks(self, start, stop):
            for row, place, block in super().blocks(start, stop):
                self.decoded += len(block) if place is None else 0
                yield row, place, block

    class Counting(bp.Layer):
        """Sees every example that a rank computes with."""

        seen = 0

        def forward(self, h):
            self.seen += h.shape[1]
            return h

        def backward(self, dL_df):
            return dL_df, {}

    def read(team):
        source, counting = Counted(folder, target="y", piece_bytes=500), Counting()
        net = bp.Sequential(counting, bp.Linear(ranks.D, 1), seed=0)
        trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=48, shards=16, team=team)
        trainer.fit(source, epochs=4, verbose=0)
        return source.decoded / 4, counting.seen / 4

    for p in (2, 4):
        found = together(p, read)
        read_, computed = np.transpose(found)
        assert computed.sum() == pytest.approx(ranks.N, abs=16 * p)  # and its first example, to know f
        # A row group of 37 that two ranks need is read by both, as far as each needs it.
        assert max(read_) <= 1.3 * ranks.N / p + 37, (p, read_)
        assert max(computed) <= 1.3 * ranks.N / p


def test_a_loss_that_is_not_finite_ends_all_after_the_same_step(folder):
    def diverges(team):
        trainer = ranks.trainer_of("SGD", team)
        trainer.optimizer = bp.SGD(1e6)
        with pytest.raises(FloatingPointError) as caught:
            trainer.fit(*ranks.rows(folder, "folder", "SGD"), epochs=5, verbose=0)
        return str(caught.value), trainer.optimizer.t, ranks.sha(trainer)

    assert same(together(3, diverges)) == diverges(ALONE)


def test_one_rank_s_signal_ends_all_after_the_same_step_and_any_number_goes_on(folder, tmp_path):
    path = tmp_path / "run.safetensors"

    class Pressed(bp.Callback):
        def step(self, trainer):
            if (trainer.optimizer.t, trainer.team.rank) == (8, 1):
                trainer._descent.presses.append(2)

    def fit(team, *more):
        trainer = bp.Trainer.resume(path, team=team) if path.exists() else ranks.trainer_of("BatchNorm", team)
        saving, rows = bp.Checkpoints(path), ranks.rows(folder, "folder", "BatchNorm")
        trainer.fit(*rows, until=5, verbose=0, callbacks=[saving, *more])
        return ranks.sha(trainer)

    def stopped(team):
        with pytest.raises(KeyboardInterrupt):
            fit(team, Pressed())
        return 0

    same(together(3, stopped))
    resumed = bp.Trainer.resume(path)
    assert (resumed.optimizer.t, resumed.position) == (9, (1, 4))  # it came after the exchange of the eighth
    found = same(together(2, fit))
    path.unlink()
    assert found == fit(ALONE)


def test_a_signal_ends_steps_that_are_played_in_one_call():
    X, y, _ = ranks.data()

    class Pressing(bp.ConstantRate):
        """On one rank, a signal while the rates of many steps are looked up."""

        trainer = None

        def __call__(self, t):
            if t == 21 and self.trainer.team.rank == 1:
                self.trainer._descent.presses.append(2)
            return 0.01

    def stopped(team):
        trainer = ranks.trainer_of("SGD", team, native=True)
        trainer.optimizer = bp.SGD(Pressing(0.01))
        trainer.optimizer.schedule.trainer = trainer
        with suppress(KeyboardInterrupt):  # where it comes in the last steps, they are done first
            trainer.fit(X, y, epochs=40, verbose=0)
        return trainer.optimizer.t, ranks.sha(trainer)

    t, found = same(together(3, stopped))
    assert t < 200
    trainer, shas = ranks.trainer_of("SGD", ALONE), {}
    trainer.optimizer = bp.SGD(0.01)
    trainer.after_step = [lambda: shas.update({trainer.optimizer.t: ranks.sha(trainer)})]
    trainer.fit(X, y, epochs=t // 5 + 1, verbose=0)
    assert shas[t] == found


class Scaled(bp.LeastSquares):
    """A loss whose code and setting are the user's."""

    strength = 2.0

    def ell(self, f, y):
        return self.strength * super().ell(f, y)

    def dell_df(self, f, y):
        return self.strength * super().dell_df(f, y)


class ScaledElsewhere(bp.LeastSquares):
    """The same in other words."""

    strength = 2.0

    def ell(self, f, y):
        return self.strength * (f - y) ** 2

    def dell_df(self, f, y):
        return 2 * self.strength * (f - y)


ScaledElsewhere.__name__, ScaledElsewhere.__qualname__ = Scaled.__name__, Scaled.__qualname__


class Applied(bp.Layer):
    """A layer of a function."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def forward(self, h):
        self.calls += 1
        return self.function(h)

    def backward(self, dL_df):
        return dL_df, {}


class Halving(bp.Schedule):
    """A schedule of one's own."""

    def __init__(self, learning_rate, every=3):
        self.learning_rate, self.every = learning_rate, every

    def __call__(self, t):
        return self.learning_rate / 2 ** (t // self.every)


def scaled(strength):
    loss = Scaled()
    loss.strength = strength
    return loss


def net_of(function):
    return bp.Sequential(bp.Linear(5, 1, seed=0), Applied(function))


def tolerance(limit):
    def within(f, y):
        return float(np.mean(np.abs(f - y) < limit))

    return within


DISAGREEMENTS = {
    "settings of a loss": (lambda of: of.update(loss=scaled(3.0)), "loss Scaled()", {"loss": Scaled()}),
    "code of a loss": (lambda of: of.update(loss=ScaledElsewhere()), "of other code", {"loss": Scaled()}),
    "function in a layer": (
        lambda of: of.update(net=net_of(lambda h: h - 1)),
        "layer 2 inside",
        {"net": lambda: net_of(lambda h: h)},
    ),
    "schedule": (
        lambda of: of.update(rule=bp.SGD(Halving(0.1, 4))),
        "Halving(learning_rate=0.1)",
        {"rule": lambda: bp.SGD(Halving(0.1))},
    ),
    "metric": (lambda of: of.update(metrics=[tolerance(0.2)]), "metrics [", {"metrics": [tolerance(0.1)]}),
    "metric's name": (
        lambda of: of.update(metrics=["r2"]),
        "metrics ['neg_max_error']",
        {"metrics": ["neg_max_error"]},
    ),
    "constraint": (
        lambda of: of.update(constraints={"*.omega": bp.MaxNorm(2)}),
        "MaxNorm",
        {"constraints": {"*.omega": bp.MaxNorm(3)}},
    ),
    "layers": (lambda of: of.update(net=bp.Sequential(bp.Linear(5, 7), bp.ReLU(), bp.Linear(7, 1), seed=0)), "layer 2"),
    "loss": (lambda of: of.update(loss=bp.Huber()), "loss LeastSquares()"),
    "optimizer": (lambda of: of.update(rule=bp.SGD(0.2)), "optimizer SGD"),
    "batch_size": (lambda of: of.update(batch_size=40), "batch_size 48"),
    "seed": (lambda of: of.update(seed=2), "seed 1"),
    "shards": (lambda of: of.update(shards=12), "shards 11"),
    "data": (lambda of: of["X"].__setitem__((3, 2), 7.0), "SHA-256 of X"),
    "targets": (lambda of: of["y"].__setitem__(3, 7.0), "SHA-256 of y"),
    "rows": (lambda of: of.update(X=of["X"][:200], y=of["y"][:200]), "shape of X"),
    "validation": (lambda of: of.update(validation=(of["X"][:9], of["y"][:9])), "validation shape of X"),
    "epochs": (lambda of: of.update(epochs=7), "epochs 2"),
    "weights": (lambda of: of["net"].phi.__setitem__(0, 9.0), "SHA-256 of 0.beta"),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_ranks_that_would_do_different_things_are_told_the_first_difference(name):
    change, told, *usual = DISAGREEMENTS[name]

    def begins(team):
        X, y, _ = ranks.data()
        of = {"X": X, "y": y, "validation": (X[:50], y[:50]), "epochs": 2, "loss": bp.LeastSquares()}
        of |= {"net": ranks.network("SGD"), "rule": bp.SGD(0.1), "batch_size": 48, "seed": 1, "shards": 11}
        of |= {"metrics": [], "constraints": {}}
        of |= {
            key: each() if callable(each) and key in ("net", "rule") else each
            for own in usual
            for key, each in own.items()
        }
        if team.rank == 1:
            change(of)
        settings = {key: of[key] for key in ("batch_size", "seed", "shards", "constraints")}
        trainer = bp.Trainer(of["net"], of["loss"], of["rule"], team=team, **settings)
        before = trainer.net.phi.copy()
        options = {"validation_data": of["validation"], "metrics": of["metrics"], "verbose": 0}
        with pytest.raises(ValueError, match="on rank 1") as caught:
            trainer.fit(of["X"], of["y"], epochs=of["epochs"], **options)
        assert_array_equal(trainer.net.phi, before)
        return str(caught.value)

    assert told in same(together(3, begins))


@pytest.mark.parametrize("where", ["after_step", "epoch", "end", "estimator"])
def test_weights_that_go_apart_end_all_ranks(where):
    """Whatever of one's own it is that does other things on one rank, and which the start check cannot know."""

    class Odd(bp.Callback):
        rank = None

        def epoch(self, trainer, record):
            if (where, record.epoch, self.rank) == ("epoch", 2, 1):
                trainer.net.phi[3] += 1e-6
            if (where, self.rank) == ("estimator", 1):
                trainer.net.phi[3] += 1e-6

        def end(self, trainer):
            if (where, self.rank) == ("end", 1):
                trainer.net.phi[3] += 1e-6

    def goes_apart(team):
        X, y, _ = ranks.data()
        trainer, odd = ranks.trainer_of("Adam with clipping", team), Odd()
        odd.rank = team.rank
        if where == "after_step":
            trainer.after_step = [lambda: trainer.net.phi.__setitem__(0, team.rank == 1)]
        model = MLPRegressor(max_iter=3, shards=8, random_state=0, callbacks=[odd])
        fit = partial(model.fit, X, y, team=team) if where == "estimator" else partial(trainer.fit, X, y, epochs=3)
        with pytest.raises(ValueError, match="the same weights on all ranks, got others on rank 1"):
            fit() if where == "estimator" else fit(verbose=0, callbacks=[odd])
        return trainer.epochs_done

    expected = {"after_step": 0, "epoch": 2, "end": 3, "estimator": 0}
    assert same(together(3, goes_apart)) == expected[where]


def test_a_rank_that_has_come_elsewhere_is_not_taken_for_one_that_has_not():
    """Where what the ranks say is of one length."""
    net = ranks.network("BatchNorm")

    def apart(team):
        with pytest.raises(RuntimeError, match="all ranks at the same place of one training, got others"):
            team.meet((), net) if team.rank else team.losses(np.zeros(2), team.shards(2))
        with pytest.raises(RuntimeError, match="all ranks at the same place of one training, got others"):
            team.compare("Trainer", {"t": 1}) if team.rank else start.require_same(Other(team), "", {})
        return 0

    class Other:
        def __init__(self, team):
            self.team = team

        def all_texts(self, text):
            return self.team.all_texts("EarlyStopping")

    same(together(2, apart))


def test_what_a_rank_may_have_of_its_own():
    """Counts of a layer, and what a function finds that knows its rank."""
    X, y, _ = ranks.data()

    def steps(team):
        trainer = bp.Trainer(net_of(np.positive), bp.LeastSquares(), bp.SGD(0.01), batch_size=48, shards=8, team=team)
        seen = []
        trainer.after_step = [lambda: seen.append((team.rank, trainer.optimizer.t))] * (team.rank == 0)
        for _ in range(2):
            trainer.fit(X, y, epochs=1, verbose=0)
        trainer.step(X, y)
        return ranks.sha(trainer)

    assert same(together(2, steps)) == steps(ALONE)


def test_a_loss_of_other_code_is_refused_in_a_step():
    X, y, _ = ranks.data()

    def steps(team):
        loss = scaled(3.0 if team.rank else 2.0)
        trainer = bp.Trainer(ranks.network("SGD"), loss, bp.SGD(0.01), shards=8, team=team)
        with pytest.raises(ValueError, match=r"Trainer.step: expected loss Scaled\(\).* on rank 1"):
            trainer.step(X, y)
        return ranks.sha(trainer)

    same(together(2, steps))


def test_objects_without_words_of_their_own_are_the_same_on_all_ranks():
    class Within(bp.Constraint):
        def project(self, parameter):
            np.clip(parameter, -1, 1, out=parameter)

    def steps(team):
        X, y, _ = ranks.data()
        trainer = ranks.trainer_of("SGD", team, constraints={"*": Within()})
        trainer.fit(X, y, epochs=1, verbose=0)
        return ranks.sha(trainer)

    assert same(together(2, steps)) == steps(ALONE)


def test_each_rank_its_own_rows_in_a_step_is_refused():
    def steps(team):
        X, y, _ = ranks.data()
        trainer = ranks.trainer_of("SGD", team)
        trainer.step(X[:40], y[:40])
        with pytest.raises(ValueError, match=r"Trainer.step: expected SHA-256 of X .* on rank 1"):
            trainer.step(X[team.rank : 40 + team.rank], y[:40])
        return ranks.sha(trainer)

    X, y, _ = ranks.data()
    alone = ranks.trainer_of("SGD", ALONE)
    alone.step(X[:40], y[:40])
    assert same(together(2, steps)) == ranks.sha(alone)


@pytest.mark.parametrize("t", range(1, 8))
def test_a_signal_while_some_ranks_compare_the_players(t):
    X, y, _ = ranks.data()

    class Pressed(bp.Callback):
        def step(self, trainer):
            if (trainer.optimizer.t, trainer.team.rank) == (t, 1):
                trainer._descent.presses.append(2)

    def stopped(team):
        trainer = ranks.trainer_of("SGD", team, native=team.rank != 1)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X, y, epochs=3, verbose=0, callbacks=[Pressed()])
        return trainer.optimizer.t, ranks.sha(trainer)

    assert same(together(3, stopped))[0] == (t if t % 5 == 0 else t + 1)


def test_more_ranks_than_shards_are_refused_by_the_name_of_the_setting(folder):
    X, y, _ = ranks.data()

    def refused(team):
        with pytest.raises(
            ValueError, match=r"a shard for each of 3 ranks.*shards=2, 2 for a batch of 48.*Write shards=16"
        ):
            ranks.trainer_of("SGD", team, shards=2).fit(X, y, verbose=0)
        with pytest.raises(ValueError, match="shards='auto'"):
            ranks.trainer_of("SGD", team, shards="auto", batch_size=20000).step(np.tile(X, (9, 1)), np.tile(y, 9))
        with pytest.raises(ValueError, match="Start fewer ranks"):
            ranks.trainer_of("SGD", team, batch_size=2).fit(X, y, verbose=0)
        with pytest.raises(ValueError, match="a shard for each of 3 ranks"):
            ranks.trainer_of("BatchNorm", team, shards="auto").fit(X, y, verbose=0)
        with pytest.raises(ValueError, match="shards"):
            MLPRegressor(max_iter=2, random_state=0).fit(X, y, team=team)
        with pytest.raises(ValueError, match="lbfgs"):
            MLPRegressor(solver="lbfgs").fit(X, y, team=team)
        return 0

    same(together(3, refused))


def test_estimators_train_by_a_team():
    X, y, _ = ranks.data()

    def fitted(team):
        model = MLPRegressor(hidden_layer_sizes=(7,), random_state=0, max_iter=5, shards=8, early_stopping=True)
        with pytest.warns(UserWarning, match="Maximum iterations") if team is ALONE else np.errstate():
            model.fit(X, y, team=team)
        return model.network_.phi.tobytes(), tuple(model.validation_scores_)

    with pytest.warns(UserWarning, match="Maximum iterations"):
        found = same(together(3, fitted))
    assert found == fitted(ALONE)


def test_statistics_beside_a_layer_that_is_called_by_itself_are_refused_by_name():
    X, y, _ = ranks.data()

    def refused(team):
        net = bp.Sequential(bp.Linear(5, 7), bp.BatchNorm(7), Applied(np.positive), bp.Linear(7, 1), seed=0)
        trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=48, shards=8, team=team)
        before = net.phi.copy()
        with pytest.raises(ValueError, match=r"running statistics that can be moved after the passes.*`traced = True`"):
            trainer.fit(X, y, epochs=1, verbose=0)
        assert_array_equal(net.phi, before)
        return 0

    same(together(2, refused))


def test_estimators_that_draw_other_seeds_are_told_of_random_state():
    X, y, _ = ranks.data()

    def fits(team):
        model = MLPRegressor(max_iter=2, shards=8, random_state=np.random.RandomState(team.rank == 1))
        with pytest.raises(ValueError, match=r"seed from random_state \d+, as on other ranks, got \d+ on rank 1"):
            model.fit(X, y, team=team)
        return 0

    same(together(3, fits))


def test_a_team_is_not_handed_to_other_processes():
    with pytest.raises(TypeError, match="team: expected to stay in its process, got pickle"):
        pickle.dumps(Threads(0, Post(2)))


def test_rank_0_writes_and_the_others_return(tmp_path):
    X, y, _ = ranks.data()

    def writes(team):
        own = tmp_path / str(team.rank)
        own.mkdir()
        trainer = ranks.trainer_of("SGD", team)
        log = bp.CSVLogger(own / "log.csv")
        trainer.fit(X, y, epochs=2, verbose=0, callbacks=[bp.Checkpoints(own / "run.safetensors"), log])
        trainer.net.save(own / "net.safetensors")
        names = sorted(path.name for path in own.iterdir())
        trainer.net.copy().save(own / "copy.safetensors")  # which is its owner's
        copy.deepcopy(trainer).net.save(own / "twin.safetensors")  # which is the team's
        return names, (own / "copy.safetensors").exists(), (own / "twin.safetensors").exists()

    first, *others = together(3, writes)
    assert first == (["log.csv", "net.safetensors", "run.safetensors"], True, True)
    assert others == [([], True, False)] * 2


def test_statistics_move_in_the_order_of_shards_on_any_number_of_threads():
    X, y, _ = ranks.data()
    found = set()
    for threads in (1, 3):
        for native in (False, True):
            trainer = ranks.trainer_of("BatchNorm", ALONE, threads=threads, native=native)
            trainer.fit(X, y, epochs=3, verbose=0)
            found.add(ranks.sha(trainer))
    assert len(found) == 1
    net = ranks.network("BatchNorm")
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.0001), shards=3, batch_size=30, shuffle=False)
    twin = net.copy()
    trainer.step(X[:30], y[:30])
    for s in range(3):
        twin.forward(X[10 * s : 10 * s + 10].T)
    for name, buffer in net.buffers.items():
        np.testing.assert_allclose(buffer, twin.buffers[name], rtol=1e-6)


def test_a_rehearsal_notices_what_differs_from_what_the_team_was_told():
    def told(team):
        rehearsal = Rehearsal(team)
        losses = np.arange(4.0)
        rehearsal.losses(losses, team.shards(4))
        rehearsal.repeat()
        rehearsal.losses(other := np.arange(4.0) + (team.rank == 1), team.shards(4))
        return rehearsal.differs, other.tolist()

    assert together(2, told) == [(False, [0.0, 1.0, 2.0, 3.0]), (True, [0.0, 1.0, 2.0, 3.0])]


def test_the_team_of_a_single_process():
    team = bp.distributed.team()
    assert (team.rank, team.size, bp.distributed.team()) == (0, 1, team)
    assert team is ALONE is ranks.trainer_of("SGD", None).team  # so the one takes the very code of the other
    with pytest.raises(TypeError, match="team: a Team"):
        ranks.trainer_of("SGD", 3)
    with pytest.raises(ValueError, match="another team"):
        ranks.trainer_of("SGD", team).team = Threads(0, Post(2))
