"""A training of an estimator for tables that was interrupted ends in the same bits as one that was not."""

import functools
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import backprop as bp
from backprop.cli import commands
from backprop.estimators import TabularClassifier, TabularRegressor, ended, members
from backprop.files import container

N = 90
rng = np.random.default_rng(0)
FRAME = pd.DataFrame({"size": rng.normal(60, 20, N), "town": rng.choice(["Bonn", "Ulm", "Jena"], N)})
RENT = 5 * FRAME["size"] * np.where(FRAME["town"] == "Ulm", 1.5, 1) + 20 * rng.normal(size=N)
DEAR = np.where(RENT.median() < RENT, "yes", "no")
FRAME.loc[::17, "size"] = np.nan
JOBS, EPOCHS = [(0, False), (1, False), (0, True), (1, True)], 5


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(members, "epochs_of", lambda n, batch_size: EPOCHS)


class Presses(bp.Callback):
    """Ends training, in one way or another, in the second epoch of a member; does not change it otherwise."""

    writes = True

    def __init__(self, end, member=3):
        self.end_it, self.member, self.trained = end, member, 0

    def start(self, trainer):
        self.trained += 1

    def epoch(self, trainer, record):
        return self.end_it() if (self.trained, record.epoch) == (self.member, 2) else None


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)  # until it is seen


def raises():
    raise KeyboardInterrupt


def stops():
    return True


def fails():
    raise OSError("no disk")


def fit(kind=TabularRegressor, *, X=FRAME, y=RENT, way=(), **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Training interrupted")
        return kind(**{"members": 2} | settings).fit(X, y, **dict(way))


def same(one, other):
    assert np.array_equal(one.network_.phi, other.network_.phi)
    for name in ("report_", "stopped_", "loss_curve_", "validation_loss_curve_", "best_loss_", "n_iter_"):
        assert getattr(one, name) == getattr(other, name)
    assert np.array_equal(one.predict(FRAME), other.predict(FRAME))


WAYS = {
    "as it is": {},
    "groups": {"groups": np.arange(N) // 5},
    "weights": {"sample_weight": 1.0 + np.arange(N) % 3},
    "validation data": {"X_val": FRAME[:30], "y_val": RENT[:30]},
}


@functools.cache
def uninterrupted(way):
    return fit(way=WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bits_as_one_that_was_never_interrupted(tmp_path, way):
    whole, way, path = uninterrupted(way), WAYS[way], tmp_path / "run.safetensors"
    presses, counts = Presses(ctrl_c), Presses(stops)
    counts.trained = 10  # presses nothing any more
    part = fit(way=way, checkpoint=path, callbacks=[presses])
    assert part.stopped_ == "Ctrl-C"
    kept = list(ended.read(path).members)
    assert kept[:2] == JOBS[:2]
    assert len(kept) < 4
    same(fit(way=way, checkpoint=path, callbacks=[counts]), whole)
    assert counts.trained == 14 - len(kept)
    assert sorted(ended.read(path).members) == sorted(JOBS)
    same(fit(way=way, checkpoint=path, callbacks=[Presses(fails)]), whole)  # trains none


@pytest.mark.parametrize(
    ("end", "kept"), [(raises, [*JOBS[:2], JOBS[3]]), (stops, [*JOBS[:2], JOBS[3]]), (fails, JOBS[:2])]
)
def test_only_a_member_that_ended_by_itself_is_kept(tmp_path, end, kept):
    """Ended by a callback it is none: the next one may say otherwise. After an error no other is begun."""
    path = tmp_path / "run.safetensors"
    if end is fails:
        with pytest.raises(OSError, match="no disk"):
            fit(checkpoint=path, callbacks=[Presses(end)])
    else:
        fit(checkpoint=path, callbacks=[Presses(end)])
    assert list(ended.read(path).members) == kept
    same(fit(checkpoint=path), uninterrupted("as it is"))


@pytest.mark.parametrize(
    ("change", "whole"),
    [
        ({}, False),  # the best epoch may come yet
        ({"losses": [1.0] * 20}, True),
        ({"losses": [1.0] * 15}, True),  # patience is over
        ({"losses": [1.0] * 15, "cut": True}, False),  # but of another schedule
        ({"losses": [1.0] * 20, "cut": True}, False),
        ({"losses": [1.0] * 15, "error": FloatingPointError()}, False),
    ],
)
def test_whole(change, whole):
    assert members.Member(None, 0, **{"epoch": 3, "losses": [1.0] * 14} | change).whole(20) is whole


def test_classes_and_the_first_member_last(tmp_path):
    settings = {"kind": TabularClassifier, "y": DEAR, "class_weight": "balanced"}
    fit(**settings, checkpoint=tmp_path / "run.safetensors", callbacks=[Presses(raises, 1)])
    same(fit(**settings, checkpoint=tmp_path / "run.safetensors"), fit(**settings))


def test_members_of_a_shortened_course_are_trained_anew(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    monkeypatch.setattr(members, "SLOWEST", 3)
    short = fit(checkpoint=path, max_time=1e-3)
    assert short.stopped_ == "max_time"
    assert not ended.read(path).members
    same(fit(checkpoint=path, max_time=1000), uninterrupted("as it is"))
    assert len(ended.read(path).members) == 4
    same(fit(checkpoint=path, max_time=1e-6), uninterrupted("as it is"))  # there is nothing left to do


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The file of a training."""
    path = tmp_path_factory.mktemp("ended") / "run.safetensors"
    with pytest.MonkeyPatch.context() as short:
        short.setattr(members, "epochs_of", lambda n, batch_size: EPOCHS)
        fit(members=1, checkpoint=path)
    return path


OTHERS = {
    "members": ({"members": 2}, "expected members 1, as in the file, got 2"),
    "seed": ({"random_state": 7}, "expected seed from random_state"),
    "missing": ({"missing": "impute"}, "expected missing indicate, as in the file, got impute"),
    "targets": ({"y": RENT + 1}, "expected SHA-256 of y"),
    "rows": ({"X": FRAME.assign(size=1.0 + np.arange(N))}, "expected SHA-256 of X"),
    "names": ({"X": FRAME.rename(columns={"size": "area"})}, "expected columns"),
    "words": ({"X": FRAME.replace("Bonn", "Berlin")}, "expected table of SHA-256"),
    "weights": ({"way": {"sample_weight": 1.0 + np.arange(N) % 2}}, "expected SHA-256 of w none"),
    "groups": ({"way": {"groups": np.arange(N) // 5}}, "expected SHA-256 of groups none"),
    "validation": ({"way": {"X_val": FRAME, "y_val": RENT}}, "expected SHA-256 of validation X none"),
    "callbacks": ({"callbacks": [bp.EarlyStopping()]}, r"expected callbacks \[\]"),
    "class": ({"kind": TabularClassifier, "y": DEAR}, "expected class TabularRegressor, as in the file, got"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_training_is_refused_and_changes_nothing(run, other):
    settings, reason = OTHERS[other]
    before = run.read_bytes()
    with pytest.raises(ValueError, match=f"run.safetensors: {reason}.*a file of its own"):
        fit(**{"members": 1} | settings, checkpoint=run)
    assert run.read_bytes() == before


def test_another_version_is_refused_and_another_machine_is_told(run, monkeypatch):
    there = ended.checkpoint.machine()
    monkeypatch.setattr(ended.checkpoint, "machine", lambda: there | {"numpy": "0.1"})
    with pytest.warns(UserWarning, match=r"run.safetensors: expected numpy .* got 0.1\. Training goes on"):
        fit(members=1, checkpoint=run)
    monkeypatch.setattr(bp, "__version__", "9.9")
    with pytest.raises(ValueError, match=r"expected version .*, as in the file, got 9\.9"):
        fit(members=1, checkpoint=run)


def odd(change):
    def made(path):
        about, arrays = container.read(path, ended.KIND)
        change(about, arrays)
        container.write(path, ended.KIND, about, arrays)

    return made


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


FORGED = {
    "a bit": (flipped, "SHA-256"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cut short"),
    "a model": (lambda path: fit(members=1).save(path), "expected a members, got an 'estimator'"),
    "no weights": (odd(lambda about, arrays: arrays.pop("0.phi")), "KeyError"),
    "more weights": (odd(lambda about, arrays: arrays.update(more=np.zeros(3))), "members"),
    "a member too many": (odd(lambda about, arrays: about["members"].append([0, False, 1])), "members"),
    "an epoch too late": (odd(lambda about, arrays: about["members"][0].__setitem__(2, 99)), "an epoch of them"),
    "infinite": (odd(lambda about, arrays: arrays["0.phi"].fill(np.inf)), "finite"),
    "without facts": (odd(lambda about, arrays: about["facts"].clear()), "what tells of them"),
    "of another shape": (
        odd(lambda about, arrays: arrays.update({"0.phi": arrays["0.phi"][1:]})),
        "expected members of this training, got member 0 with",
    ),
}


@pytest.mark.parametrize("case", FORGED)
def test_what_is_damaged_is_refused(run, tmp_path, case):
    forge, reason = FORGED[case]
    path = tmp_path / "run.safetensors"
    path.write_bytes(run.read_bytes())
    forge(path)
    before, model = path.read_bytes(), TabularRegressor(members=1, checkpoint=path)
    with pytest.raises(bp.FileFormatError, match=reason):
        model.fit(FRAME, RENT)
    assert path.read_bytes() == before
    assert not hasattr(model, "network_")


def test_a_member_of_another_number_is_refused(run, tmp_path):
    path = tmp_path / "run.safetensors"
    about, arrays = container.read(run, ended.KIND)
    about["members"] = [[5, *rest] for _, *rest in about["members"]]
    container.write(path, ended.KIND, about, {f"5{name[1:]}": array for name, array in arrays.items()})
    with pytest.raises(bp.FileFormatError, match="expected members of this training, got member 5"):
        fit(members=1, checkpoint=path)


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(members=1)
    assert not list(tmp_path.iterdir())
    for wrong, error in ((tmp_path / "none" / "run.safetensors", OSError), (tmp_path, OSError), (5, TypeError)):
        with pytest.raises(error):
            fit(members=1, checkpoint=wrong)
    assert not list(tmp_path.iterdir())


def test_a_saved_model_does_not_tell_where_its_members_were(run, tmp_path):
    fit(members=1, checkpoint=run).save(tmp_path / "one")
    fit(members=1).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FRAME.assign(rent=RENT).to_csv("flats.csv", index=False)
    FRAME[5:].assign(rent=RENT).to_csv("others.csv", index=False)
    return tmp_path


def shell(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments])


FIT = ["fit", "flats.csv", "--target", "rent", "--members", "2"]
KILLED = """
import os, signal, sys
from backprop.__main__ import main
from backprop.estimators import ended, members
members.epochs_of = lambda n, batch_size: 5
add = ended.Ended.add
def dying(self, job, member):
    add(self, job, member)
    if len(self.members) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
ended.Ended.add = dying
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_command_that_was_killed_goes_on(folder):
    """The model of resume is that of a fit that was never killed, byte for byte."""
    whole = shell(*FIT, "--out", "whole.safetensors")
    assert whole.exit_code == 0, whole.output
    arguments = [*FIT, "--out", "m.safetensors", "--checkpoint", "run.safetensors"]
    died = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not Path("m.safetensors").exists()
    assert len(ended.read("run.safetensors").members) == 2
    for count in (2, 4):
        done = shell("resume", "run.safetensors", "flats.csv", "--out", "m.safetensors")
        assert done.exit_code == 0, done.output
        assert f"Going on. Members that have ended: {count}." in done.output
        assert Path("m.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_ctrl_c_tells_the_line_to_type(folder, monkeypatch):
    add = ended.Ended.add

    def pressing(self, job, member):
        add(self, job, member)
        if len(self.members) == 1:
            ctrl_c()

    monkeypatch.setattr(ended.Ended, "add", pressing)
    Path("run of mine.safetensors").write_text("what was there is replaced")
    from backprop.__main__ import main

    arguments = [*FIT, "--out", "m.safetensors", "--checkpoint", "run of mine.safetensors"]
    with monkeypatch.context() as told:
        lines = []
        told.setattr("backprop.cli.tabular.tell", lines.append)
        assert main(arguments) == 130
    assert "To go on: backprop resume 'run of mine.safetensors' flats.csv --out m.safetensors" in lines
    assert ended.read("run of mine.safetensors").members


def test_what_resume_and_fit_refuse(folder):
    done = shell(*FIT, "--out", "m.safetensors", "--checkpoint", "run.safetensors")
    assert done.exit_code == 0, done.output
    fit(members=1, checkpoint="python.safetensors")
    about, arrays = container.read("run.safetensors", ended.KIND)
    about["facts"]["version"] = "0.1"
    container.write("older.safetensors", ended.KIND, about, arrays)
    before = Path("run.safetensors").read_bytes()
    for arguments, reason in (
        (
            ["run.safetensors", "others.csv"],
            "others.csv: expected the data that run.safetensors was trained on, got other",
        ),
        (["run.safetensors", "flats.csv", "--epochs", 3], "--epochs is an option of the plain network"),
        (["run.safetensors", "flats.csv", "--log", "l.csv"], "--log is an option of the plain network"),
        (["python.safetensors", "flats.csv"], "got one that a program of your own has saved"),
        (["older.safetensors", "flats.csv"], f"expected one of version {bp.__version__}, got one of 0.1"),
    ):
        refused = shell("resume", *arguments, "--out", "new.safetensors")
        assert refused.exit_code in (1, 2)
        assert reason in refused.output
        assert "checkpoint=" not in refused.output
        assert not Path("new.safetensors").exists()
    failed = shell(*FIT, "--drop", "nothing", "--out", "new.safetensors", "--checkpoint", "run.safetensors")
    assert failed.exit_code == 1
    assert Path("run.safetensors").read_bytes() == before
    with pytest.raises(bp.FileFormatError, match="backprop resume"):
        bp.Trainer.resume("run.safetensors")
