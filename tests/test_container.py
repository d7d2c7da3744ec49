"""Files: what is in them, what is refused, and that there is always a whole one."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from forgery import DIGEST, START, forge, headed, mutated, pack, parts, sign
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.numpy import load_file, save

import backprop as bp
from backprop.files import container

THOROUGH = bool(os.environ.get("BACKPROP_THOROUGH"))  # the full counts, in half a minute
MUTANTS = 100_000 if THOROUGH else 3_000
KILLS = 200 if THOROUGH else 10


def small(value=0.5):
    net = bp.Sequential(bp.Linear(2, 3), bp.BatchNorm(3), bp.ReLU(), bp.Linear(3, 1), seed=0)
    net.phi[...] = value
    return net


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def saved(path):
    small().save(path)
    return path.read_bytes()


def tiny(path):
    """The bytes of a file in which everything can be tried."""
    bp.Sequential(bp.Linear(1, 1)).save(path)
    return path.read_bytes()


def put(path, data):
    """Write a new file: some file systems wait for the disk when one is written over."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def refused(path, data):
    """The error of a file with these bytes."""
    put(path, data)
    with pytest.raises(bp.FileFormatError) as caught:
        bp.Sequential.load(path)
    return str(caught.value)


DOORS = {
    "save": lambda path: small().save(path),
    "load": bp.Sequential.load,
    "save_weights": lambda path: bp.save_weights(small(), path),
    "load_weights": lambda path: bp.load_weights(small(), path),
    "resume, which loads": bp.Trainer.resume,
    "to_numpy": lambda path: bp.to_numpy(small(), path.with_suffix(".py")),
}


class TestLayout:
    def test_the_safetensors_library_reads_it(self, path, saved):
        net, found = small(), load_file(path)
        assert found.keys() == {
            *("0.bias", "0.weight", "3.bias", "3.weight"),
            *("1.bias", "1.weight", "1.running_mean", "1.running_var"),
        }
        assert_array_equal(found["0.weight"], net.parameters["0.omega"])
        assert_array_equal(found["1.running_var"], net.buffers["1.running_variance"])
        with safe_open(path, "np") as file:
            metadata = file.metadata()
        assert {name: metadata[name] for name in ("format", "kind")} == {"format": "backprop 1", "kind": "network"}
        assert json.loads(metadata["about"])["network"]["class"] == "Sequential"

    def test_weights_alone_are_read_from_it(self, path, saved):
        net = small(0)
        bp.load_weights(net, path)
        assert_array_equal(net.phi, small().phi)

    def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(self, saved):
        assert (DIGEST.start, DIGEST.stop) == (57, 121)
        assert saved[8:57] == START
        assert sign(saved) == saved

    def test_tensors_start_at_multiples_of_their_width(self, path):
        net = bp.Sequential(bp.Linear(1, 1), bp.BatchNorm(1), bp.Linear(1, 3))  # odd numbers of float32 before float64
        net.save(path)
        _, header, tensors = parts(path.read_bytes())
        assert (path.stat().st_size - len(tensors)) % 8 == 0
        for name, entry in header.items():
            if name != "__metadata__":
                assert 8 * entry["data_offsets"][0] % int(entry["dtype"][1:]) == 0

    def test_the_same_values_give_the_same_bytes(self, path, saved):
        small().save(path)
        assert path.read_bytes() == saved
        small(0.25).save(path)
        assert path.read_bytes() != saved

    def test_plain_data_and_arrays_come_back(self, path):
        about = {"ä": [1, 2.5, None, True, "☃", {"": []}], "b": {"c": -0.0, "big": 2**127}}
        arrays = {
            "matrix": np.arange(6.0).reshape(2, 3).T,  # not contiguous
            "none": np.empty((3, 0), "f4"),
            "scalar": np.float64(2.0),
            "größe": np.array([1, 2], "u1"),
            **{kind: np.array([0, 1, 100]).astype(kind) for kind in ("f4", "i4", "i8", "u4", "u8")},
        }
        container.write(path, "checkpoint", about, arrays)
        again, found = container.read(path, "checkpoint")
        assert repr(again) == repr(about)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert_array_equal(found[name], array, strict=True)
            assert found[name].flags.writeable
        for name, array in load_file(path).items():
            assert_array_equal(array, arrays[name])

    @pytest.mark.parametrize(
        ("about", "arrays", "error", "words"),
        [
            ({}, {"x": np.ones(2, bool)}, TypeError, "'x' of bool"),
            ({}, {"x": np.ones(2, ">f4")}, TypeError, "'x' of >f4"),
            ({}, {"__metadata__": np.ones(2)}, TypeError, "__metadata__"),
            ({"x": float("nan")}, {}, ValueError, "not JSON compliant"),
            ({"x": object()}, {}, TypeError, "not JSON serializable"),
            ({"x": [0] * (1 << 17)}, {}, ValueError, "65,536 values"),
            ({"x": "y" * (1 << 21)}, {}, ValueError, "2,097,152 bytes"),
        ],
    )
    def test_what_could_not_be_read_is_not_written(self, about, arrays, error, words, path, saved):
        with pytest.raises(error, match=words):
            container.write(path, "network", about, arrays)
        assert path.read_bytes() == saved


def change(key, **entries):
    """A header with another entry for a tensor."""
    return lambda saved: forge(saved, lambda _, header: header[key].update(entries))


def newer(saved):
    return saved.replace(b"backprop 1", b"backprop 2", 1)


def pickled(_):
    return pickle.dumps({"0.weight": np.zeros(3)})


def zipped(_):
    path = Path("bomb.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0.weight.npy", bytes(50_000_000))
    return path.read_bytes()


def other_library(saved):
    return save({"0.weight": np.zeros((3, 2), "f4")}, metadata={"format": "pt"})


def through_the_library(saved, path=Path("again")):
    """The same tensors and metadata, written by the safetensors library, which orders the header in its own way."""
    path.write_bytes(saved)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    return save(load_file(path), metadata=metadata | {"format": "backprop 3"})


def twice(saved):
    """A tensor under a name that is there already, as a parser that keeps the last of two would take it."""
    end = 8 + int.from_bytes(saved[:8], "little")
    entry = b',"0.bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    return pack(saved[8:end].rstrip()[:-1] + entry, saved[end:])


MANY = container.MOST_VALUES
# What only a person can make: the digest is right, the rest is not.
FORGED = {
    "a name twice": (twice, ["'0.bias' twice"]),
    "a name twice in the plain data": (lambda s: headed(b"}", '{"network":1,"network":2}'), ["'network' twice"]),
    "a gap": (change("3.bias", data_offsets=[4, 8]), ["after the one before"]),
    "an overlap": (change("0.weight", data_offsets=[0, 24]), ["'0.weight'", "after the one before"]),
    "backwards": (change("0.bias", data_offsets=[12, 0]), ["'0.bias'"]),
    "offsets that are not whole": (change("0.bias", data_offsets=[48.0, 60.0]), ["'0.bias'"]),
    "offsets of text": (change("0.bias", data_offsets="ab"), ["data_offsets"]),
    "three offsets": (change("0.bias", data_offsets=[48, 60, 60]), ["data_offsets"]),
    "a shape that is too large": (change("0.bias", shape=[2**62]), ["fits into"]),
    "a shape that overflows to the right size": (change("0.bias", shape=[2**32, 2**32, 3]), ["fits into"]),
    "a large shape behind a zero": (change("0.bias", shape=[0, 2**62]), ["fits into"]),
    "a negative shape": (change("0.bias", shape=[-1, -3]), ["fits into"]),
    "a shape of booleans": (change("3.bias", shape=[True]), ["fits into"]),
    "a shape of 100 dimensions": (change("3.bias", shape=[1] * 100), ["fits into"]),
    "another entry": (change("0.bias", extra=1), ["with dtype, shape and data_offsets"]),
    "a type we do not have": (change("0.bias", dtype="BF16"), ["'BF16'"]),
    "a type that is no text": (change("0.bias", dtype=["F32"]), ["with dtype"]),
    "bytes left over": (lambda s: sign(s + b"\0" * 8), ["bytes of tensors", "appended"]),
    "bytes missing": (lambda s: sign(s[:-8]), ["bytes of tensors", "cut short"]),
    "an array for a header": (lambda s: headed(b',"x":[]}'), ["'x'"]),
    "two headers": (lambda s: headed(b"}{}"), ["JSON", "Extra data"]),
    "a letter beyond ASCII": (lambda s: headed(',"ä":0}'.encode()), ["JSON", "ascii"]),
    "more metadata": (lambda s: forge(s, lambda _, h: h["__metadata__"].update(x="y")), ["metadata"]),
    "less metadata": (lambda s: forge(s, lambda _, h: h["__metadata__"].pop("kind")), ["metadata"]),
    "metadata that is no text": (lambda s: forge(s, lambda _, h: h["__metadata__"].update(kind=1)), ["metadata"]),
    "an unknown kind": (lambda s: forge(s, lambda _, h: h["__metadata__"].update(kind="x")), ["a network", "'x'"]),
    "plain data beyond ASCII": (lambda s: headed(b"}", '"ä"'), ["ASCII"]),
    "plain data that is a list": (lambda s: headed(b"}", "[]"), ["names"]),
    "plain data that is no JSON": (lambda s: headed(b"}", "nothing"), ["JSON"]),
    "plain data that is code": (lambda s: headed(b"}", "__import__('os').abort()"), ["JSON"]),
    "NaN": (lambda s: headed(b"}", '{"x":NaN}'), ["NaN"]),
    "infinity": (lambda s: headed(b"}", '{"x":1e999}'), ["1e999"]),
    "a number of a million digits": (lambda s: headed(b"}", '{"x":' + "9" * 1_000_000 + "}"), ["1,000,000 digits"]),
    "numbers of many digits": (lambda s: headed(b"}", f'{{"x":[{",".join(["9" * 4000] * 500)}]}}'), ["digits"]),
    "nested deeply": (lambda s: headed(b',"x":' + b"[" * 60_000), ["nested"]),
    "nested deeply in the plain data": (lambda s: headed(b"}", '{"x":' * 50_000), ["nested"]),
    "objects by the thousand": (lambda s: headed(b',"x":[' + b'{"a":0},' * (MANY // 2 - 99) + b"0]}"), ["'x'"]),
    "too many objects": (lambda s: headed(b',"x":[' + b'{"a":0},' * MANY + b"0]}"), ["65,536 values"]),
    "a thousand tensors": (
        lambda s: headed(
            b"".join(b',"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(1000)) + b"}"
        ),
        ["class, arguments"],
    ),
    "wide letters": (lambda s: headed(b"}", '"' + "\U0001f600" + "a" * 2_000_000 + '"'), ["ASCII"]),
    "a long name": (lambda s: headed(b',"' + b"a" * 2_000_000 + b'":0}'), ["aaa...aaa"]),
}
BAD = {
    "empty": (lambda s: b"", ["0 bytes"]),
    "seven bytes": (lambda s: s[:7], ["7 bytes"]),
    "zeros": (lambda s: bytes(1000), ["a header of 0 bytes"]),
    "text": (lambda s: b"0.weight: 1 2 3\n" * 200, ["net.save", "a header of"]),
    "pickle": (pickled, ["a header of"]),
    "a zip bomb": (zipped, ["a header of"]),
    "a header of 2^60 bytes": (lambda s: (1 << 60).to_bytes(8, "little") + s[8:], ["1,152,921,504,606,846,976"]),
    "a header that is larger than any": (lambda s: (3 << 20).to_bytes(8, "little") + bytes(4 << 20), ["3,145,728"]),
    "half of it": (lambda s: s[: len(s) // 2], ["cut short"]),
    "something appended": (lambda s: s + b"\n", ["bytes of tensors", "appended"]),
    "itself twice": (lambda s: s + s, ["bytes of tensors", "appended"]),
    "line ends translated": (lambda s: b"\r\n" + s, ["a header of"]),
    "one bit of a weight": (lambda s: s[:-1] + bytes([s[-1] ^ 1]), ["SHA-256", "altered"]),
    "the digest in capitals": (lambda s: s[:57] + s[57:121].upper() + s[121:], ["SHA-256"]),
    "a newer format": (newer, ["newer format 2", "--upgrade"]),
    "a newer format with its digest": (lambda s: sign(newer(s)), ["newer format 2", "--upgrade"]),
    "a newer format in another order": (through_the_library, ["newer format 3"]),
    "a format of none": (lambda s: sign(s.replace(b"backprop 1", b"backprop 0")), ["another header"]),
    "a file of another library": (other_library, ["another header", "load_weights"]),
    "a PyTorch state in megabytes": (
        lambda s: save({"weight": np.zeros(1_000_000)}, metadata={"format": "pt"}),
        ["another header"],
    ),
}


def seconds_to_refuse(path):
    """Of this process alone: other programs run, too."""
    start = time.process_time()
    with pytest.raises(bp.FileFormatError):
        bp.Sequential.load(path)
    return time.process_time() - start


class TestBadInput:
    @pytest.mark.parametrize("bad", [*BAD, *FORGED])
    def test_is_refused_by_path_and_reason_at_once_and_in_little_memory(self, bad, path, saved, monkeypatch):
        monkeypatch.chdir(path.parent)
        make, words = (BAD | FORGED)[bad]
        data = make(saved)
        message = refused(path, data)
        assert message.startswith(f"{path}: ")
        for word in words:
            assert word in message
        assert len(message) < 1000
        assert any(seconds_to_refuse(path) < 0.05 for _ in range(20))
        tracemalloc.start()
        with pytest.raises(bp.FileFormatError):
            bp.Sequential.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 2 * len(data) + (16 << 20)
        assert path.read_bytes() == data

    def test_a_checkpoint_is_no_network(self, path):
        container.write(path, "checkpoint", {}, {})
        with pytest.raises(bp.FileFormatError, match=r"expected a network, got a 'checkpoint'\. Trainer\.resume opens"):
            bp.Sequential.load(path)

    def test_a_network_is_no_checkpoint(self, path, saved):
        with pytest.raises(
            bp.FileFormatError, match=r"expected a checkpoint, got a 'network'\. Sequential\.load opens"
        ):
            container.read(path, "checkpoint")

    def test_it_is_a_value_error(self):
        assert issubclass(bp.FileFormatError, ValueError)
        assert not issubclass(bp.FileFormatError, OSError)

    def test_truncation_at_every_byte(self, path, saved):
        for length in range(len(saved)):
            refused(path, saved[:length])

    def test_every_bit(self, path):
        data = bytearray(tiny(path))
        for i in range(len(data)):
            for bit in range(8):
                data[i] ^= 1 << bit
                refused(path, data)
                data[i] ^= 1 << bit

    def test_random_mutants(self, path):
        saved, generator = tiny(path), np.random.default_rng(0)
        for _ in range(MUTANTS):
            mutant = mutated(saved, generator)
            if mutant != saved:
                refused(path, mutant)

    def test_random_mutants_that_are_signed_again(self, path):
        """Some of them are good files, with another weight; the others fail in one way."""
        saved, generator = tiny(path), np.random.default_rng(1)
        loaded, errors = 0, []
        for _ in range(MUTANTS):
            put(path, sign(mutated(saved, generator)))
            try:
                loaded += bool(bp.Sequential.load(path))
            except bp.FileFormatError as error:
                errors.append(str(error))
        assert loaded + len(errors) == MUTANTS
        assert loaded > 0
        assert all(error.startswith(f"{path}: ") for error in errors)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
            bp.Sequential.load(tmp_path / "nothing.safetensors")

    def test_a_folder(self, tmp_path):
        with pytest.raises(OSError, match=tmp_path.name):
            bp.Sequential.load(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(bp.FileFormatError, match="pipe"):
            bp.Sequential.load(tmp_path / "pipe")
        with pytest.raises(OSError, match="pipe"):
            small().save(tmp_path / "pipe")
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)

    @pytest.mark.parametrize("name", ["net\0work", "net\ud800work"])
    @pytest.mark.parametrize("door", DOORS)
    def test_a_name_that_no_file_can_have(self, tmp_path, name, door):
        with pytest.raises(OSError, match=r"No file can have this name.*net"):
            DOORS[door](tmp_path / name)

    @pytest.mark.parametrize("door", ["save", "save_weights"])
    def test_the_name_of_a_folder_is_none_of_a_file(self, tmp_path, door):
        with pytest.raises(IsADirectoryError, match="folder"):
            DOORS[door](f"{tmp_path}/new/")
        assert not os.listdir(tmp_path)

    @pytest.mark.parametrize("door", [name for name in DOORS if "load" in name])
    def test_devices_and_pipes_are_not_read(self, tmp_path, door):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", os.devnull):
            with pytest.raises(bp.FileFormatError, match="a pipe or device"):
                DOORS[door](path)

    def test_weights_of_a_saved_network_that_was_altered(self, path):
        small(1).save(path)
        whole, net = path.read_bytes(), small(2)
        before = net.phi.copy()
        for k in range(len(whole) - 40, len(whole)):
            path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
            with pytest.raises(bp.FileFormatError, match="SHA-256"):
                bp.load_weights(net, path)
        assert_array_equal(net.phi, before)

    @pytest.mark.parametrize("call", ["close", "unlink"])
    def test_an_error_after_the_new_file_is_in_place_is_none(self, path, saved, call, monkeypatch):
        import _io

        if call == "unlink":
            monkeypatch.setattr(Path, "unlink", fail)
        else:
            opened = open

            class Closing(_io.FileIO):
                def close(self):
                    super().close()
                    fail()

            monkeypatch.setattr(
                "builtins.open",
                lambda name, mode="r", **k: Closing(name, "x") if "x" in mode else opened(name, mode, **k),
            )
        small(2).save(path)
        monkeypatch.undo()
        assert_array_equal(bp.Sequential.load(path).phi, small(2).phi)

    def test_an_error_of_the_disk_names_the_path(self, path, saved, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", fail)
            raised = outcome(bp.Sequential.load, path)
        assert isinstance(raised, OSError)
        assert str(path) in str(raised)
        assert raised.errno == errno.EIO


def fail(*_, **__):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def outcome(function, *arguments):
    """What it raises, or None."""
    try:
        function(*arguments)
    except BaseException as error:
        return error
    return None


class FaultAt:
    """Lets the n-th of the calls that reach the disk fail, whichever that is, and counts them."""

    NAMES = ("write", "fsync", "replace")

    def __init__(self, monkeypatch, n, error):
        self.n, self.error, self.calls = n, error, []
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, function):
        def wrapped(*arguments):
            self.calls.append(name)
            if len(self.calls) == self.n:
                raise self.error
            return function(*arguments)

        return wrapped


ERRORS = {
    "I/O error": OSError(errno.EIO, "Input/output error"),
    "no number": OSError("boom"),
    "Ctrl-C": KeyboardInterrupt(),
}


class TestAtomic:
    @pytest.mark.parametrize("existed", [True, False], ids=["over a file", "a new file"])
    @pytest.mark.parametrize("error", ERRORS)
    def test_a_fault_at_every_write_fsync_and_rename(self, error, existed, path, monkeypatch):
        if existed:
            small(1).save(path)
        old = path.read_bytes() if existed else None
        n = 0
        while True:
            n += 1
            with monkeypatch.context() as patch:
                fault = FaultAt(patch, n, ERRORS[error])
                raised = outcome(small(2).save, path)
            if raised is None:
                break
            assert isinstance(raised, type(ERRORS[error]))
            assert isinstance(raised, KeyboardInterrupt) or str(path) in str(raised)
            assert os.listdir(path.parent) == ([path.name] if existed else [])
            assert (path.read_bytes() if existed else None) == old
        assert fault.calls == ["write"] * (n - 4) + ["fsync", "replace", "fsync"]
        assert n > 10
        assert_array_equal(bp.Sequential.load(path).phi, small(2).phi)

    def test_where_links_are_not_to_be_had(self, path, monkeypatch):
        """Without a second name for the old file, a fault after the rename leaves the new one: whole, in any case."""
        small(1).save(path)
        monkeypatch.setattr(os, "link", fail)
        fault = FaultAt(monkeypatch, 10**9, None)
        small(1).save(path)
        fault.n, fault.calls, fault.error = len(fault.calls), [], ERRORS["I/O error"]
        with pytest.raises(OSError, match=r"Input/output.*net\.safetensors"):
            small(2).save(path)
        assert_array_equal(bp.Sequential.load(path).phi, small(2).phi)
        assert os.listdir(path.parent) == [path.name]

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
    def test_where_folders_cannot_be_made_durable(self, number, path, monkeypatch):
        fsync = os.fsync

        def only_files(file):
            if stat.S_ISDIR(os.fstat(file).st_mode):
                raise OSError(number, os.strerror(number))
            fsync(file)

        monkeypatch.setattr(os, "fsync", only_files)
        small(2).save(path)
        assert_array_equal(bp.Sequential.load(path).phi, small(2).phi)

    def test_short_writes_are_continued(self, path, saved, monkeypatch):
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
        small().save(path)
        assert path.read_bytes() == saved

    def test_a_full_disk(self, path, saved):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        try:
            with pytest.raises(OSError, match=r"net\.safetensors") as caught:
                small(2).save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.errno == errno.EFBIG
        assert path.read_bytes() == saved
        assert os.listdir(path.parent) == [path.name]

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere.*net'"):
            small().save(tmp_path / "nowhere" / "net")

    def test_a_path_that_is_a_folder(self, tmp_path):
        with pytest.raises(IsADirectoryError, match=tmp_path.name):
            small().save(tmp_path)

    def test_a_folder_that_cannot_be_written(self, path, saved):
        path.parent.chmod(0o555)
        try:
            if os.access(path.parent, os.W_OK):
                pytest.skip("this user may write anywhere")
            with pytest.raises(PermissionError, match=r"net\.safetensors"):
                small(2).save(path)
            assert path.read_bytes() == saved
            assert bp.Sequential.load(path).size == small().size
        finally:
            path.parent.chmod(0o755)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
    def test_a_folder_that_nobody_may_write(self):
        with pytest.raises(OSError, match=r"/proc/self/net\.safetensors"):
            small().save("/proc/self/net.safetensors")

    def test_a_network_that_may_not_be_saved_leaves_the_file(self, path, saved):
        with pytest.raises(ValueError, match=r"Sequential\(2 → 1\)\.save: expected finite numbers in '0\.bias'"):
            small(np.nan).save(path)
        assert path.read_bytes() == saved


class TestPermissions:
    @pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
    def test_of_a_new_file_are_those_of_any_new_file(self, umask, path):
        before = os.umask(umask)
        try:
            small().save(path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def test_of_a_file_stay(self, path, saved):
        path.chmod(0o600)
        small(2).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_link_is_followed(self, path, saved, tmp_path):
        (tmp_path / "models").mkdir()
        (tmp_path / "latest").symlink_to("models/first")
        for value in (1, 2):  # the link dangles at first
            small(value).save(tmp_path / "latest")
            assert (tmp_path / "latest").is_symlink()
            assert_array_equal(bp.Sequential.load(tmp_path / "models" / "first").phi, small(value).phi)
            assert_array_equal(bp.Sequential.load(tmp_path / "latest").phi, small(value).phi)
        assert os.listdir(tmp_path / "models") == ["first"]

    @pytest.mark.parametrize("name", ["x" * 250, "ä" * 120, ".", ".hidden", "a b\n*[c]", "-"])
    def test_names_of_every_kind(self, name, tmp_path):
        if name == ".":
            with pytest.raises(OSError, match=tmp_path.name):
                small().save(tmp_path / name)
            return
        for value in (1, 2):
            small(value).save(tmp_path / name)
        assert os.listdir(tmp_path) == [name]
        assert bp.Sequential.load(tmp_path / name).phi[0] == 2


class TestStrays:
    def strays(self, path):
        made = [path.with_name(f".{path.name}.{i:08x}.part") for i in range(3)]
        for stray in made:
            stray.write_bytes(b"half")
        return made

    @pytest.mark.parametrize("start", [lambda path: small().save(path), bp.Sequential.load], ids=["save", "load"])
    def test_of_dead_writers_are_removed_and_nothing_else(self, start, path, saved):
        self.strays(path)
        others = [".net.safetensors.part", ".net.safetensors.0000000.part", ".net.safetensors.0000000g.part"]
        others += [".net.safetensors.bak.00000000.part", "net.safetensors.00000000.part", ".other.00000000.part"]
        for name in others:
            (path.parent / name).write_bytes(b"somebody's")
        (path.parent / ".net.safetensors.11111111.part").mkdir()
        start(path)
        assert sorted(os.listdir(path.parent)) == sorted([*others, path.name, ".net.safetensors.11111111.part"])

    def test_that_cannot_be_removed_do_not_matter(self, path, saved, monkeypatch):
        self.strays(path)
        monkeypatch.setattr(os, "unlink", fail)
        assert bp.Sequential.load(path).size == small().size

    def test_a_living_writer_is_left_alone(self, path, saved, monkeypatch):
        """One that waits in the middle of its writing, while others save and load."""
        waits, goes_on, write = threading.Event(), threading.Event(), os.write

        def slow(file, data):
            if threading.current_thread() is writer:
                waits.set()
                goes_on.wait(10)
            return write(file, data)

        monkeypatch.setattr(os, "write", slow)
        writer = threading.Thread(target=lambda: small(3).save(path))
        writer.start()
        assert waits.wait(10)
        assert len(os.listdir(path.parent)) == 2
        small(2).save(path)
        assert_array_equal(bp.Sequential.load(path).phi, small(2).phi)
        assert len(os.listdir(path.parent)) == 2
        goes_on.set()
        writer.join()
        assert_array_equal(bp.Sequential.load(path).phi, small(3).phi)
        assert os.listdir(path.parent) == [path.name]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix")
    def test_kill_9_at_random_instants(self, tmp_path):
        command = [sys.executable, Path(__file__).with_name("killed_saves.py"), str(KILLS), str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, run.stderr
        found = json.loads(run.stdout)
        assert found["kills"] == KILLS
        assert found["strays"] > 0  # kills hit what they should
        assert os.listdir(tmp_path) == ["net.safetensors"]
