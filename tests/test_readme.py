"""The session of a newcomer: what the README says, in its order, each step in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mutants import NoShortcut

import backprop as bp

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")


def blocks(language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def run(folder, *command):
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestSession:
    def test_from_import_to_a_trained_classifier(self, tmp_path):
        train, _ = blocks("python")
        assert train.startswith("import backprop as bp\n")
        assert len(train.splitlines()) <= 15
        printed = run(tmp_path, sys.executable, "-W", "error", "-c", train)
        losses = [float(line.split()[1]) for line in printed.splitlines()[:10]]
        assert losses[-1] < losses[0] / 5
        assert float(re.search(r"test accuracy ([\d.]+)%", printed)[1]) > 96
        shown = blocks("text")[0]  # the same lines, but for the last digits
        for told, expected in zip(printed.splitlines()[10:], shown.splitlines(), strict=True):
            assert re.split(r"\d+\.\d", told)[0] == re.split(r"\d+\.\d", expected)[0]
        X, y = bp.load_digits()
        answers = bp.Sequential.load(tmp_path / "digits.safetensors").predict(X / 16).argmax(axis=1)
        assert np.mean(answers == y) > 0.96

    def test_shows_what_explain_says_of_the_way_back(self, tmp_path):
        printed = run(tmp_path, sys.executable, "-W", "error", "-c", blocks("python")[1])
        assert printed.endswith(blocks("text")[2])

    def test_from_a_table_to_predictions(self, tmp_path):
        pytest.importorskip("pyarrow")
        rng = np.random.default_rng(0)
        size, town = rng.uniform(20, 120, 300).round(), rng.choice(["Bonn", "Ulm"], 300)
        rows = [f"{s},{t},{10 * s + 100 * (t == 'Ulm')}" for s, t in zip(size, town, strict=True)]
        (tmp_path / "flats.csv").write_text("\n".join(["size,town,rent", *rows]), encoding="utf-8")
        (tmp_path / "new.csv").write_text("town,size\nUlm,50\nBonn,50\n", encoding="utf-8")
        commands = [
            line[2:].split() for line in "".join(blocks("console")).splitlines() if line.startswith("$ backprop")
        ]
        assert [command[1] for command in commands] == ["fit", "predict"]
        for command in commands:
            run(tmp_path, sys.executable, "-m", *command)
        heading, *predicted = (tmp_path / "predictions.csv").read_text(encoding="utf-8").split()
        assert heading.strip('"') == "rent"
        np.testing.assert_allclose([float(rent) for rent in predicted], [600, 500], rtol=0.1)

    def test_opens_with_the_two_commands_of_the_makefile(self):
        title, sentence, fence, *rest = [line for line in README.splitlines() if line]
        assert title.startswith("# ")
        assert sentence.endswith(".")
        assert fence == "```"
        commands = [line.split("#")[0].split()[1] for line in rest[:2]]
        assert commands == ["demo", "test"]
        for command in commands:
            assert re.search(rf"^{command}:", MAKEFILE, re.MULTILINE)

    def test_shows_what_the_check_says_of_a_mistake(self):
        X, y = np.random.default_rng(0).normal(size=(2, 6, 4))
        report = str(bp.check_gradients(bp.Sequential(NoShortcut(bp.Tanh())), bp.LeastSquares(), X, y))
        told, shown = (re.sub(r"X\[.*?\]|\d\.\d+(e-\d+)?", "#", text).split() for text in (report, blocks("text")[1]))
        assert told == shown

    def test_has_a_place_for_the_speed_table(self):
        assert README.count("<!-- speed -->") == README.count("<!-- /speed -->") == 1
        assert README.index("<!-- speed -->") < README.index("<!-- /speed -->")

    def test_is_one_screen_of_text(self):
        text = re.sub(r"```.*?```|^\|.*?$|<!--.*?-->", "", README, flags=re.DOTALL | re.MULTILINE)
        assert len(text.split()) < 400
        assert len(README.splitlines()) < 120
        assert len(re.findall(r"!\[", README)) == 1
