"""The main job from the command line, as a person runs it."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import backprop as bp
from backprop.__main__ import main
from backprop.datasets import split

NUMBER = r"[\d,]+(?:\.\d+)?"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the demo: what it printed, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    command = [sys.executable, "-W", "error", "-m", "backprop", "demo", "--epochs", "30", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120), out


class TestDemo:
    def test_succeeds(self, demo):
        run, _ = demo
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr

    def test_shows_the_network(self, demo):
        run, _ = demo
        assert re.search(r"Linear\(64 → 128\)\s+128\s+8,320", run.stdout)
        assert re.search(r"φ\s+9,610", run.stdout)

    def test_checks_the_gradient(self, demo):
        run, _ = demo
        assert re.search(r"Gradient check passed: complex step, 9,930 of 9,930 entries", run.stdout)

    def test_draws_a_progress_bar(self, demo):
        run, _ = demo
        assert "100%" in run.stderr
        assert "validation_accuracy" in run.stderr
        assert "100%|" not in run.stdout

    def test_reaches_97_percent_on_images_it_has_not_seen(self, demo):
        run, _ = demo
        assert "1,348 images to train on, 449 to test on" in run.stdout
        accuracy = float(re.search(r"Test accuracy ([\d.]+)%", run.stdout)[1])
        assert 97 <= accuracy <= 100

    def test_compares_batch_sizes(self, demo):
        run, _ = demo
        table = run.stdout.partition("examples/s      loss\n")[2] or run.stdout
        rows = re.findall(rf"^\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})$", table, re.MULTILINE)
        numbers = np.array([[float(cell.replace(",", "")) for cell in row] for row in rows])
        assert numbers[:, 0].tolist() == [1, 8, 32, 128, 512]
        assert numbers[:, 1].tolist() == [1348, 169, 43, 11, 3]
        assert (numbers[:, 2] > 1000).all()
        assert (np.diff(numbers[:, 3]) > 0).all()  # fewer steps in as many epochs get less far

    def test_saves_the_weights(self, demo):
        run, out = demo
        found = load_file(out / "digits.safetensors")
        shapes = {name: array.shape for name, array in found.items()}
        assert shapes == {"0.bias": (128,), "0.weight": (128, 64), "2.bias": (10,), "2.weight": (10, 128)}
        assert str(out / "digits.safetensors") in run.stdout

    def test_the_weights_make_the_accuracy_it_tells(self, demo):
        run, out = demo
        net = bp.Sequential(bp.Linear(64, 128), bp.ReLU(), bp.Linear(128, 10))
        bp.load_weights(net, out / "digits.safetensors")
        X, y = bp.load_digits()
        _, X_test, _, y_test = split(X / 16, y, seed=0)
        accuracy = np.mean(net.predict(X_test).argmax(axis=1) == y_test)
        assert f"Test accuracy {accuracy:.1%}" in run.stdout

    def test_draws_a_picture(self, demo):
        _, out = demo
        assert (out / "digits.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    def test_leaves_nothing_else(self, demo):
        _, out = demo
        assert sorted(path.name for path in out.iterdir()) == ["digits.png", "digits.safetensors"]


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [[], ["demonstrate"], ["demo", "--epochs"], ["demo", "--epochs", "many"], ["demo", "--rate", "1"]],
        ids=" ".join,
    )
    def test_errors_exit_with_2(self, arguments, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        seen = capsys.readouterr()
        assert seen.out == ""
        assert "usage: backprop" in seen.err

    def test_in_a_process_of_its_own(self):
        run = subprocess.run([sys.executable, "-m", "backprop", "nothing"], capture_output=True, text=True)
        assert run.returncode == 2
        assert "demo" in run.stderr  # the commands there are

    @pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]], ids=" ".join)
    def test_help_exits_with_0(self, arguments, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert "usage: backprop" in capsys.readouterr().out

    def test_a_folder_that_cannot_be_made_exits_with_1(self, tmp_path, capsys):
        (tmp_path / "file").write_text("in the way")
        assert main(["demo", "--out", str(tmp_path / "file" / "below")]) == 1
        seen = capsys.readouterr()
        assert seen.err.startswith("backprop demo: ")
        assert str(tmp_path / "file") in seen.err
        assert "Traceback" not in seen.err

    @pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--epochs", "-3"], ["--seed", "-1"]], ids=" ".join)
    def test_numbers_out_of_range_exit_with_1_or_2(self, arguments, tmp_path, capsys):
        try:
            code = main(["demo", "--out", str(tmp_path / "out"), *arguments])
        except SystemExit as error:
            code = error.code
        assert code in (1, 2)
        assert arguments[1] in capsys.readouterr().err


class TestDigits:
    def test_facts(self):
        X, y = bp.load_digits()
        assert (X.shape, X.dtype) == ((1797, 64), np.uint8)
        assert (X.min(), X.max()) == (0, 16)
        assert (y.shape, y.dtype) == ((1797,), np.int64)
        # counts of the classes as the data set's authors publish them
        assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]

    def test_the_first_image_is_a_zero(self):
        X, y = bp.load_digits()
        image = X[0].reshape(8, 8)
        assert y[0] == 0
        assert image[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
        assert image[3:5, 3:5].max() <= 1  # the hole in the middle

    def test_each_call_gives_arrays_of_one_s_own(self):
        X, _ = bp.load_digits()
        X[...] = 0
        assert bp.load_digits()[0].max() == 16

    def test_split_keeps_rows_and_labels_together_and_loses_none(self):
        X, y = bp.load_digits()
        X_train, X_test, y_train, y_test = split(X, y, held_out=0.25, seed=3)
        both = np.vstack([np.column_stack([X_train, y_train]), np.column_stack([X_test, y_test])])
        whole = np.column_stack([X, y])
        assert len(X_test) == 449
        np.testing.assert_array_equal(both[np.lexsort(both.T)], whole[np.lexsort(whole.T)])
        np.testing.assert_array_equal(split(X, y, seed=3)[2], y_train)
        assert not np.array_equal(split(X, y, seed=4)[2], y_train)
