"""What version 0.1.0 wrote can be read, and what it computed comes out again: see `yesterday/make.py`."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_allclose
from yesterday import make

import backprop as bp

ORACLE, EXPECTED = make.read_results("oracle.npz"), make.read_results("expected.npz")
LIKE_PHI = ("phi", "running_mean", "running_variance")

# What a later version does in another way on purpose: the training, and what `resume` has to say of it.
CHANGED: dict[str, str] = {}

# Nothing here is meant to train well.
pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of version 0.1.0."""
    path = tmp_path_factory.mktemp("yesterday")
    with zipfile.ZipFile(make.FILES) as archive:
        archive.extractall(path)
    return path


def names(kind, cases=EXPECTED):
    """The cases of one kind, from the file, so that none is forgotten."""
    return [case.partition(" ")[2] for case in cases if case.startswith(f"{kind} ")]


def assert_near(found, frozen, tolerance):
    """The same arrays, each within `tolerance` of its entries and of its largest entry."""
    assert found.keys() == frozen.keys()
    for name, array in frozen.items():
        if tolerance < 1e-4:  # in float32, version 0.1 gave some losses in float64
            assert found[name].dtype == array.dtype, name
        atol = tolerance * max(0.1, np.abs(array).max(initial=0))
        assert_allclose(found[name], array, rtol=tolerance, atol=atol, err_msg=name)


class TestOracle:
    @pytest.mark.parametrize("case", [case for case in ORACLE if not case.startswith("minimum ")])
    def test_computes_the_same(self, case):
        in_float32 = "float32" in case or case == "estimator several-answers"
        assert_near(make.ORACLE[case](), ORACLE[case], 1e-4 if in_float32 else 1e-9)

    @pytest.mark.parametrize("name", names("minimum", ORACLE))
    def test_finds_the_same_minimum(self, name):
        """To what the gradient, at most 1e-7, and the penalty 0.1 leave of it; the way there is SciPy's."""
        assert_near(make.of_minimum(name), ORACLE[f"minimum {name}"], 2e-6)

    def test_every_case_is_there(self):
        assert make.ORACLE.keys() == ORACLE.keys()


class TestNetworks:
    @pytest.mark.parametrize("name", names("network"))
    def test_predicts_and_trains_the_same(self, name, folder):
        net = bp.Sequential.load(make.file(folder, "network", name))
        found, frozen = make.of_network(net), EXPECTED[f"network {name}"]
        as_saved = [key for key in frozen if key.rpartition(".")[2] in LIKE_PHI]
        for key in as_saved:
            assert found[key].tobytes() == frozen[key].tobytes(), key
        assert_near(found, frozen, 1e-6 if net.dtype == np.float32 else 1e-12)

    def test_weights_alone(self, folder):
        net = make.NETWORKS[make.WEIGHTS]()
        bp.load_weights(net, make.file(folder, "network", "weights"))
        assert_near(make.of_network(net), EXPECTED[f"network {make.WEIGHTS}"], 1e-12)

    @pytest.mark.parametrize("name", names("network"))
    def test_is_saved_as_the_same_network(self, name, folder, tmp_path):
        net = bp.Sequential.load(make.file(folder, "network", name))
        net.save(tmp_path / "again.safetensors")
        again = bp.Sequential.load(tmp_path / "again.safetensors")
        assert repr(again) == repr(net)
        assert_near(make.of_network(again), make.of_network(net), 1e-12)


def resumed(path):
    """The trainer of a file, and that `resume` warns of another version, of another machine, or not at all."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer = bp.Trainer.resume(path)
    said = [str(warning.message) for warning in seen]
    assert all("as where it was saved" in text for text in said), said
    if bp.__version__ != make.VERSION:
        assert len(said) == 1
        assert f"backprop {make.VERSION}, as where it was saved" in said[0]
    return trainer


class TestTrainings:
    @pytest.mark.parametrize("name", names("training"))
    def test_goes_on_to_the_same_end(self, name, folder):
        """Also where the file holds more than a later version needs, such as Nesterov's velocity before the step."""
        path, training, frozen = make.file(folder, "training", name), make.RUNS[name], EXPECTED[f"training {name}"]
        if name in CHANGED:
            with pytest.raises(bp.FileFormatError, match=CHANGED[name]):
                bp.Trainer.resume(path)
            return
        trainer = resumed(path)
        assert trainer.optimizer.t == training.stop
        assert trainer.notes == training.notes
        assert trainer.net.dtype == training.dtype
        done = trainer.epochs_done
        found = training.results(trainer, training.fit(trainer, training.epochs - done))
        left = {
            key: array[done:] if key in ("loss", "learning_rate") or key.startswith("validation") else array
            for key, array in frozen.items()
        }
        assert_near(found, left, 1e-5 if training.dtype == "float32" else 1e-9)

    @pytest.mark.parametrize("name", names("training"))
    def test_goes_on_after_being_saved_again(self, name, folder, tmp_path):
        if name in CHANGED:
            return
        training, again = make.RUNS[name], tmp_path / "again.safetensors"
        resumed(make.file(folder, "training", name)).save(again)
        trainer = bp.Trainer.resume(again)
        training.fit(trainer, training.epochs - trainer.epochs_done)
        found, frozen = {"phi": trainer.net.phi}, {"phi": EXPECTED[f"training {name}"]["phi"]}
        assert_near(found, frozen, 1e-5 if training.dtype == "float32" else 1e-9)

    def test_other_data_are_still_refused(self, folder):
        training = make.RUNS["momentum"]
        trainer, (X, y) = resumed(make.file(folder, "training", "momentum")), training.data()
        with pytest.raises(ValueError, match="SHA-256 of X"):
            trainer.fit(X + 1, y, epochs=1, verbose=0)


class TestEstimators:
    @pytest.mark.parametrize("name", names("estimator"))
    def test_predicts_the_same(self, name, folder):
        estimator = make.ESTIMATORS[name]
        model = type(estimator.make()).load(make.file(folder, "estimator", name))
        tolerance = 1e-6 if model.network_.dtype == np.float32 else 1e-12
        assert_near(estimator.predictions(model), EXPECTED[f"estimator {name}"], tolerance)


class TestCommandLine:
    @pytest.mark.parametrize("name", list(make.COMMANDS))
    def test_predicts_the_same(self, name, folder):
        found = make.of_command(folder, name, *make.PREDICTING[name])
        assert_near(found, EXPECTED[f"command {name}"], 1e-6)

    def test_goes_on_to_the_same_model(self, folder):
        said = make.resume_command(folder)
        if bp.__version__ != make.VERSION:
            assert f"backprop {make.VERSION}, as where it was saved" in said
        assert_near(make.of_command(folder, "resumed"), EXPECTED["command run"], 1e-5)

    def test_the_table_is_there(self, folder):
        table = bp.Table.load(make.file(folder, "command", "rent"))
        assert table.target == "rent"
        assert table.columns == ["size", "floor", "lift", "town"]
