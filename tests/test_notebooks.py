"""What a notebook shows of the last line of a cell: a table for a report, the picture for a plot; and the short forms."""

from __future__ import annotations

import copy
import pickle
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from mutants import NoShortcut

import backprop as bp

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X[:, :1] - X[:, 1:2]


def network():
    return bp.Sequential(bp.Linear(3, 4), bp.Tanh(), bp.Linear(4, 1), seed=0)


@pytest.fixture(scope="module")
def shown():
    """One of everything that has something to show."""
    net, loss = network(), bp.LeastSquares()
    trainer = bp.Trainer(net, loss, bp.SGD(0.05, momentum=0.9), batch_size=8)
    history = trainer.fit(X, Y, epochs=30, verbose=0)
    return {
        "report": bp.check_gradients(net, loss, X, Y),
        "failed report": bp.check_gradients(bp.Sequential(NoShortcut(bp.Tanh())), loss, X, X),
        "history": history,
        "empty history": bp.History(),
        "trainer": trainer,
        "new trainer": bp.Trainer(network(), loss, bp.SGD(0.1)),
        "plan": trainer.plan(8),
        "learning rates": bp.learning_rate_range_test(network(), loss, X, Y, steps=20),
        "batch sizes": bp.suggest_batch_size(network(), loss, X, Y, batch_sizes=(4, 16), seconds=0.02),
    }


NAMES = [
    *("report", "failed report", "history", "empty history", "trainer", "new trainer", "plan", "learning rates"),
    "batch sizes",
]


class Markup(HTMLParser):
    """The text of some HTML, and whether every tag that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_is_well_formed_and_sets_no_color(shown, name):
    html = shown[name]._repr_html_()
    assert ("table" in Markup(html).tags) == (name != "empty history")
    assert "color" not in html
    assert len(html) < 20_000


@pytest.mark.parametrize("name", NAMES)
def test_the_short_form_is_one_line(shown, name):
    text = repr(shown[name])
    assert "\n" not in text
    assert len(text) < 200
    assert "object at" not in text
    assert text.startswith(type(shown[name]).__name__)


@pytest.mark.parametrize("name", ["report", "failed report", "learning rates", "batch sizes", "plan"])
def test_has_the_numbers_of_the_text(shown, name):
    """Both are made of the same rows."""
    text, words = str(shown[name]), " ".join(Markup(shown[name]._repr_html_()).words)
    assert set(re.findall(r"\d[\d.,e-]*\d", text)) <= set(re.findall(r"\d[\d.,e-]*\d", words))


def test_a_history_of_many_epochs_shows_the_first_and_the_last(shown):
    rows = Markup(shown["history"]._repr_html_())
    assert rows.tags.count("tr") == 13
    assert {"1", "3", "30", "…"} <= set(rows.words)
    assert "4" not in rows.words


def test_a_trainer_shows_where_it_stands_and_the_advice_it_gave():
    trainer = bp.Trainer(network(), bp.LeastSquares(), bp.SGD(1e-9))
    assert "not begun" in repr(trainer)
    with pytest.warns(bp.TrainingAdvice, match="inputs are not scaled"):
        trainer.fit(X * 1e4, Y, epochs=1, verbose=0)
    assert "1 epoch done" in repr(trainer)
    words = " ".join(Markup(trainer._repr_html_()).words)
    assert "inputs are not scaled" in words
    assert "SGD(learning_rate=1e-09)" in words


def test_markup_in_a_name_is_text():
    class Bold(bp.Tanh):
        label = "<b>Tanh</b>"

    net = bp.Sequential(Bold())
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1))
    trainer.constraints = {}
    assert "<b>" not in trainer._repr_html_()
    assert "<b>" not in bp.explain(net, bp.LeastSquares(), X, X)._repr_markdown_()


def test_one_epoch_is_one():
    trainer = bp.Trainer(network(), bp.LeastSquares(), bp.SGD(0.05))
    assert repr(trainer.fit(X, Y, epochs=1, verbose=0)).startswith("History(1 epoch; ")


def test_the_plan_of_a_deep_network_shows_its_ends():
    layers = [layer for _ in range(60) for layer in (bp.Linear(2, 2), bp.Tanh())]
    plan = bp.Trainer(bp.Sequential(*layers, seed=0), bp.LeastSquares(), bp.SGD(0.1)).plan(4)
    html = plan._repr_html_()
    assert Markup(html).tags.count("tr") == 401
    assert len(str(plan).splitlines()) > 500
    assert "matmul(0.omega, Xᵀ)" in html
    assert "0.omega ←" in html


class TestPictures:
    def drawn(self, shown):
        return {
            "one": bp.plots.learning_curves(shown["history"]),
            "panels": bp.plots.weights(network()),
            "report": shown["report"].plot(),
        }

    @pytest.mark.parametrize("name", ["one", "panels", "report"])
    def test_is_the_last_line_of_a_cell(self, shown, name):
        data, size = self.drawn(shown)[name]._repr_png_()
        assert data.startswith(b"\x89PNG")
        np.testing.assert_allclose(struct.unpack(">II", data[16:24]), [2 * size["width"], 2 * size["height"]], atol=1)

    def test_a_notebook_takes_it(self, shown):
        formatters = pytest.importorskip("IPython.core.formatters")
        data, about = formatters.DisplayFormatter().format(self.drawn(shown)["one"])
        assert data["image/png"].startswith(b"\x89PNG")
        assert about["image/png"]["width"] > 100

    def test_axes_of_ones_own_are_shown_by_their_owner(self, shown):
        from matplotlib.figure import Figure

        ax = Figure().subplots(1, 3)
        for drawn in (bp.plots.learning_curves(shown["history"], ax=ax[0]), bp.plots.weights(network(), ax=ax[1:])):
            assert not hasattr(drawn, "_repr_png_")

    def test_pictures_can_be_copied_and_pickled(self, shown):
        for drawn in self.drawn(shown).values():
            again = pickle.loads(pickle.dumps(drawn))
            assert again._repr_png_()[1] == drawn._repr_png_()[1]
        assert isinstance(copy.copy(self.drawn(shown)["panels"]), np.ndarray)
