"""Weights in files: back to the bit, under PyTorch's names, and whole or not at all."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load, save
from tables import LAYERS, Scale, network, spread

import backprop as bp
from backprop.files.atomic import write_atomically


def small(**settings):
    return bp.Sequential(bp.Linear(3, 4), bp.BatchNorm(4), bp.ReLU(), bp.Linear(4, 2), seed=0, **settings)


def values(net):
    return {name: array.copy() for name, array in {**net.parameters, **net.buffers}.items()}


def assert_values(net, expected):
    for name, array in {**net.parameters, **net.buffers}.items():
        assert_array_equal(array, expected[name], err_msg=name)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("name", LAYERS)
    def test_every_layer(self, name, dtype, tmp_path):
        net = network(name, dtype=dtype)
        net.forward(spread((4, 7)).astype(dtype))  # moves the running statistics
        path = tmp_path / "net.safetensors"
        bp.save_weights(net, path)
        twin = network(name, dtype=dtype)
        twin.phi[...] = 0
        bp.load_weights(twin, path)
        assert_values(twin, values(net))
        assert_array_equal(twin.phi, net.phi)
        assert np.shares_memory(twin.phi, next(iter(twin.parameters.values()))) if twin.size else True
        X = spread((5, 4)).astype(dtype)
        assert_array_equal(twin.predict(X), net.predict(X))

    def test_names_are_those_of_pytorch(self, tmp_path):
        bp.save_weights(small(), tmp_path / "net.safetensors")
        found = load((tmp_path / "net.safetensors").read_bytes())
        assert {name: array.shape for name, array in found.items()} == {
            "0.bias": (4,),
            "0.weight": (4, 3),
            "1.bias": (4,),
            "1.weight": (4,),
            "1.running_mean": (4,),
            "1.running_var": (4,),
            "3.bias": (2,),
            "3.weight": (2, 4),
        }
        assert all(array.dtype == np.float32 for name, array in found.items() if "running" not in name)

    def test_numbers_are_those_of_the_network(self, tmp_path):
        net = small()
        bp.save_weights(net, tmp_path / "net.safetensors")
        found = load((tmp_path / "net.safetensors").read_bytes())
        assert_array_equal(found["0.weight"], net.parameters["0.omega"])
        assert_array_equal(found["1.weight"], net.parameters["1.gamma"])
        assert_array_equal(found["1.running_var"], net.buffers["1.running_variance"])

    def test_no_two_tensors_share_a_name(self, tmp_path):
        """A layer of one's own may have both names that PyTorch calls "weight"."""

        class Both(Scale):
            def __init__(self, features):
                self.parameters.update(omega=np.ones(features), gamma=np.full(features, 2.0))

        net, twin = (bp.Sequential(Both(3)) for _ in range(2))
        net.phi[...] = np.arange(6)
        bp.save_weights(net, tmp_path / "net.safetensors")
        bp.load_weights(twin, tmp_path / "net.safetensors")
        assert_array_equal(twin.phi, net.phi)

    def test_a_network_goes_on_training_with_what_was_loaded(self, tmp_path):
        X, y = spread((20, 3)), np.arange(20) % 2
        nets = [small() for _ in range(2)]
        trainers = [bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1)) for net in nets]
        for trainer in trainers:
            trainer.fit(X, y, epochs=2, verbose=0)
        bp.save_weights(nets[0], tmp_path / "net.safetensors")
        before = values(nets[0])
        trainers[0].fit(X, y, epochs=3, verbose=0)
        bp.load_weights(nets[0], tmp_path / "net.safetensors")
        assert_values(nets[0], before)
        for trainer in trainers:
            trainer.step(X, y)
        assert_values(nets[0], values(nets[1]))

    def test_another_dtype_is_converted(self, tmp_path):
        net, twin = small(), small(dtype="float64")
        bp.save_weights(net, tmp_path / "net.safetensors")
        bp.load_weights(twin, tmp_path / "net.safetensors")
        assert_array_equal(twin.phi, net.phi.astype(float))

    def test_paths_of_either_kind(self, tmp_path):
        net = small()
        bp.save_weights(net, str(tmp_path / "a.safetensors"))
        bp.save_weights(net, tmp_path / "b.safetensors")
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
        bp.load_weights(net, str(tmp_path / "a.safetensors"))

    def test_the_file_may_be_read_by_whom_the_umask_allows(self, tmp_path):
        before = os.umask(0o027)
        try:
            bp.save_weights(small(), tmp_path / "net.safetensors")
        finally:
            os.umask(before)
        assert (tmp_path / "net.safetensors").stat().st_mode & 0o777 == 0o640


class TestAtomic:
    @pytest.mark.parametrize("function", ["fsync", "replace"])
    @pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
    def test_a_failure_leaves_the_old_file_and_no_other(self, function, error, tmp_path, monkeypatch):
        path = tmp_path / "net.safetensors"
        bp.save_weights(small(), path)
        old = path.read_bytes()

        def fail(*_, **__):
            raise error

        monkeypatch.setattr(os, function, fail)
        with pytest.raises(type(error)):
            bp.save_weights(small(), path)
        monkeypatch.undo()
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["net.safetensors"]

    def test_bytes_are_durable_before_they_are_in_place(self, tmp_path, monkeypatch):
        events = []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file)))
        monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
        write_atomically(tmp_path / "file", b"data")
        assert events[:2] == ["fsync", "replace"]
        assert (tmp_path / "file").read_bytes() == b"data"

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            bp.save_weights(small(), tmp_path / "nowhere" / "net.safetensors")

    def test_a_path_that_is_a_folder(self, tmp_path):
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            bp.save_weights(small(), tmp_path / "folder")
        assert os.listdir(tmp_path) == ["folder"]


def good():
    return {
        "0.bias": np.zeros(4, "f"),
        "0.weight": np.zeros((4, 3), "f"),
        "1.bias": np.zeros(4, "f"),
        "1.weight": np.ones(4, "f"),
        "1.running_mean": np.zeros(4, "f"),
        "1.running_var": np.ones(4, "f"),
        "3.bias": np.zeros(2, "f"),
        "3.weight": np.zeros((2, 4), "f"),
    }


def bfloat16():
    """A file as PyTorch writes it in bfloat16, a type NumPy does not have."""
    header, start = {}, 0
    for name, array in good().items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(array.shape),
            "data_offsets": [start, start + 2 * array.size],
        }
        start += 2 * array.size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * start


BAD_FILES = {
    "empty": (lambda: b"", ["safetensors file"]),
    "text": (lambda: b"0.weight: 1 2 3\n" * 20, ["safetensors file"]),
    "truncated": (lambda: save(good())[:-5], ["safetensors file"]),
    "truncated in its header": (lambda: save(good())[:40], ["safetensors file"]),
    "a header that is no JSON": (lambda: struct.pack("<Q", 4) + b"null", ["safetensors file"]),
    "a header of a terabyte": (lambda: struct.pack("<Q", 10**12) + b"{}", ["safetensors file"]),
    "a tensor missing": (lambda: save({k: v for k, v in good().items() if k != "3.bias"}), ["'3.bias'"]),
    "a tensor too many": (lambda: save(good() | {"4.bias": np.zeros(2, "f")}), ["'4.bias'"]),
    "our names": (lambda: save({f"{k}.omega": v for k, v in good().items()}), ["'0.weight'", "'0.weight.omega'"]),
    "no tensor": (lambda: save({}), ["'0.weight'", "[]"]),
    "a shape": (lambda: save(good() | {"0.weight": np.zeros((3, 4), "f")}), ["0.weight", "(4, 3)", "(3, 4)"]),
    "a vector": (lambda: save(good() | {"0.bias": np.zeros((4, 1), "f")}), ["0.bias", "(4,)", "(4, 1)"]),
    "whole numbers": (lambda: save(good() | {"0.bias": np.zeros(4, "i4")}), ["0.bias", "floats", "int32"]),
    "nan": (lambda: save(good() | {"3.weight": np.full((2, 4), np.nan, "f")}), ["3.weight", "finite"]),
    "inf": (lambda: save(good() | {"1.running_var": np.full(4, np.inf, "f")}), ["1.running_var", "finite"]),
    "beyond float32": (lambda: save(good() | {"3.weight": np.full((2, 4), 1e300)}), ["3.weight", "finite"]),
    "bfloat16": (bfloat16, ["BF16"]),
}


class TestBadFiles:
    @pytest.mark.parametrize("bad", BAD_FILES)
    def test_are_refused_with_the_network_unchanged(self, bad, tmp_path):
        make, parts = BAD_FILES[bad]
        path = tmp_path / "bad.safetensors"
        path.write_bytes(make())
        net = small()
        before = values(net)
        with pytest.raises(ValueError, match=r"(?s)load_weights\(.*expected .*, got ") as caught:
            bp.load_weights(net, path)
        for part in (str(path), *parts):
            assert part in str(caught.value)
        assert_values(net, before)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
            bp.load_weights(small(), tmp_path / "nothing.safetensors")

    def test_a_folder(self, tmp_path):
        with pytest.raises(OSError, match=tmp_path.name):
            bp.load_weights(small(), tmp_path)
