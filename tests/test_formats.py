"""Weight files: what is written can be read, by others too; what cannot be read is refused before anything changes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import nn
from pycl_cnn.formats import weights


def small(seed=0):
    pc.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def raw(path, header, data=b""):
    """A safetensors file with any header."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


# ---- writing and reading ----------------------------------------------------------------------------------------------------


def test_a_model_comes_back(tmp_path):
    model, other = small(0), small(1)
    pc.save(model, tmp_path / "m.safetensors")
    assert not same(model.state_dict(), other.state_dict())
    assert pc.load_weights(other, tmp_path / "m.safetensors") is other
    assert same(model.state_dict(), other.state_dict())


def test_a_mapping_is_saved_as_float32(tmp_path):
    model = small()
    pc.save({name: array.astype(np.float64) for name, array in model.state_dict().items()}, tmp_path / "m.safetensors")
    assert same(pc.load_weights(small(1), tmp_path / "m.safetensors").state_dict(), model.state_dict())


def test_metadata_names_format_and_version(tmp_path):
    pc.save(small(), tmp_path / "m.safetensors", {"model": "small"})
    assert weights.read_metadata(tmp_path / "m.safetensors") == {"model": "small", "format": "pycl_cnn", "format_version": "1"}


def test_the_library_reads_what_was_written(tmp_path):
    from safetensors.numpy import load_file

    model = small()
    pc.save(model, tmp_path / "m.safetensors")
    assert same(load_file(tmp_path / "m.safetensors"), model.state_dict())


def test_loaded_weights_stay_when_the_file_goes(tmp_path):
    model = small()
    pc.save(model, tmp_path / "m.safetensors")
    other = pc.load_weights(small(1), tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_bytes(b"\0" * 100)
    assert same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    from safetensors.numpy import save_file

    arrays = {name: array.astype(dtype) for name, array in small().state_dict().items()}
    save_file(arrays, tmp_path / "m.safetensors")
    loaded = pc.load_weights(small(1), tmp_path / "m.safetensors").state_dict()
    assert same(loaded, {name: array.astype(np.float32) for name, array in arrays.items()})
    assert all(array.dtype == np.float32 for array in loaded.values())


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([1.0, -2.5, 3.140625, 1e30, np.inf, -0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    cut = (halves.astype(np.uint32) << 16).view(np.float32)
    model = nn.Linear(3, 2, bias=False)
    raw(tmp_path / "m.safetensors", {"weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}, halves.tobytes())
    pc.load_weights(model, tmp_path / "m.safetensors")
    assert np.array_equal(model.weight.data, cut.reshape(2, 3))


def test_batch_counters_are_passed_over(tmp_path):
    from safetensors.numpy import save_file

    model = small()
    save_file({**model.state_dict(), "1.num_batches_tracked": np.array(7, np.int64)}, tmp_path / "m.safetensors")
    assert same(pc.load_weights(small(1), tmp_path / "m.safetensors").state_dict(), model.state_dict())


def test_not_strict_passes_over_what_does_not_fit_and_returns_it(tmp_path):
    pc.save({"3.bias": np.ones(3), "other": np.ones(2), "0.weight": np.ones((4, 1, 3, 3))}, tmp_path / "m.safetensors")
    model = small()
    before = model.state_dict()
    misfits = pc.load_weights(model, tmp_path / "m.safetensors", strict=False)
    assert misfits.unexpected == ("other",) and misfits.misshapen == {"0.weight": ((4, 1, 3, 3), (2, 1, 3, 3))}
    assert set(misfits.missing) == set(before) - {"3.bias", "0.weight"}
    assert np.array_equal(model.state_dict()["3.bias"], np.ones(3)) and np.array_equal(model.state_dict()["3.weight"], before["3.weight"])
    pc.save(before, tmp_path / "whole.safetensors")
    assert pc.load_weights(model, tmp_path / "whole.safetensors", strict=False) == ((), (), {}) and same(model.state_dict(), before)


# ---- what is refused --------------------------------------------------------------------------------------------------------


def refused(path, model=None, strict=True):
    """The message with which the file is refused; the model is as before."""
    model = model or small()
    before = model.state_dict()
    with pytest.raises(pc.FormatError) as error:
        pc.load_weights(model, path, strict)
    assert same(before, model.state_dict())
    return str(error.value)


def test_everything_that_does_not_fit_is_listed(tmp_path):
    from safetensors.numpy import save_file

    arrays = dict(small().state_dict())
    del arrays["0.bias"]
    arrays["0.weight"] = np.zeros((2, 1, 5, 5), np.float32)
    arrays["extra"] = np.zeros(1, np.float32)
    arrays["3.bias"] = np.zeros(3, np.int64)
    save_file(arrays, tmp_path / "m.safetensors")
    message = refused(tmp_path / "m.safetensors")
    for part in (
        "missing: 0.bias",
        "shape: 0.weight is [2, 1, 5, 5], the model needs [2, 1, 3, 3]",
        "unexpected: extra",
        "dtype: 3.bias is I64",
    ):
        assert part in message
    lenient = refused(tmp_path / "m.safetensors", strict=False)
    assert "missing" not in lenient and "shape" not in lenient and "dtype: 3.bias is I64" in lenient


@pytest.mark.parametrize("kept", [0, 4, 8, 50, -1])
def test_truncated_files(tmp_path, kept):
    path = tmp_path / "m.safetensors"
    pc.save(small(), path)
    path.write_bytes(path.read_bytes()[:kept])
    assert str(path) in refused(path)


def test_bytes_behind_the_end(tmp_path):
    path = tmp_path / "m.safetensors"
    pc.save(small(), path)
    path.write_bytes(path.read_bytes() + b"more")
    refused(path)


@pytest.mark.parametrize("content", [b"hello", b"\x89HDF\r\n\x1a\n" * 20, b"\xff" * 64, b"{}" * 50], ids=["text", "hdf5", "ones", "json"])
def test_foreign_files(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    refused(tmp_path / "m.safetensors")


def test_headers_that_lie(tmp_path):
    """Sizes that the file does not have; one of them a terabyte, which nobody tries to allocate."""
    huge = 1 << 40
    entry = {"dtype": "F32", "shape": [huge // 4], "data_offsets": [0, huge]}
    raw(tmp_path / "huge.safetensors", {"weight": entry}, b"\0" * 16)
    raw(tmp_path / "shape.safetensors", {"weight": {**entry, "data_offsets": [0, 16]}}, b"\0" * 16)
    raw(tmp_path / "offsets.safetensors", {"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 0]}}, b"\0" * 16)
    raw(tmp_path / "negative.safetensors", {"weight": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}, b"\0" * 16)
    (tmp_path / "header.safetensors").write_bytes(struct.pack("<Q", huge) + b"{}")
    for name in ("huge", "shape", "offsets", "negative", "header"):
        refused(tmp_path / f"{name}.safetensors", nn.Linear(2, 2, bias=False))


def test_a_later_version_of_the_format_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file(small().state_dict(), tmp_path / "m.safetensors", {"format": "pycl_cnn", "format_version": "2"})
    assert "version '2'" in refused(tmp_path / "m.safetensors")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        pc.load_weights(small(), tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError):
        pc.save(small(), tmp_path / "no folder" / "m.safetensors")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(pc.FormatError, match="name must be an array of real numbers"):
        pc.save({"name": np.array(["text"])}, tmp_path / "m.safetensors")
    with pytest.raises(pc.FormatError, match="metadata must be text"):
        pc.save(small(), tmp_path / "m.safetensors", {"epochs": 3})
    assert list(tmp_path.iterdir()) == []


# ---- the old file stays whole -----------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The limit on the size of files stands for the full disk: the write fails half way, as it does with ENOSPC."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX's")
    path = tmp_path / "m.safetensors"
    pc.save(small(), path)
    old = path.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        with pytest.raises(OSError):
            pc.save({"large": np.zeros(1 << 20)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_an_error_of_the_system_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "m.safetensors"
    pc.save(small(), path)
    old = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError):
        pc.save(small(1), path)
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_kill_while_saving_leaves_a_whole_file(tmp_path):
    """A child that saves over and over, killed at some moment: the file is always one of those it wrote."""
    path = tmp_path / "m.safetensors"
    child = textwrap.dedent(
        f"""
        import numpy as np, pycl_cnn as pc
        for value in range(100000):
            pc.save({{"a": np.full(1 << 22, value), "b": np.full(3, value)}}, {str(path)!r})
            print(value, flush=True)
        """
    )
    for delay in (0.0, 0.003, 0.011):
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        from safetensors.numpy import load_file

        arrays = load_file(path)
        assert arrays["a"].shape == (1 << 22,) and np.all(arrays["a"] == arrays["b"][0])


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and links")
def test_permissions_and_links(tmp_path):
    path, link = tmp_path / "m.safetensors", tmp_path / "link.safetensors"
    umask = os.umask(0o027)
    try:
        pc.save(small(), path)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    link.symlink_to(path)
    pc.save(small(1), link)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o604
    assert same(pc.load_weights(small(), path).state_dict(), small(1).state_dict())


# ---- PyTorch's files --------------------------------------------------------------------------------------------------------


def test_a_state_dict_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    twin = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    torch.save(twin.state_dict(), tmp_path / "m.pt")
    torch.save({"state_dict": twin.half().state_dict(), "epoch": 3}, tmp_path / "half.pth")
    whole = {name: tensor.float().numpy() for name, tensor in twin.state_dict().items() if not name.endswith("num_batches_tracked")}
    half = pc.load_weights(small(), tmp_path / "half.pth").state_dict()
    assert same(half, whole)
    assert not same(pc.load_weights(small(), tmp_path / "m.pt").state_dict(), half)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_a_checkpoint_of_a_training_script(tmp_path, key):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    weights = {f"module.{name}": torch.tensor(np.array(array)) for name, array in small(1).state_dict().items()}
    weights["module.1.num_batches_tracked"] = torch.tensor(3)
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimizer, key: weights}, tmp_path / "m.pth")
    assert same(pc.load_weights(small(), tmp_path / "m.pth").state_dict(), small(1).state_dict())
    assert pc.load_weights(small(), tmp_path / "m.pth", strict=False) == ((), (), {})


def test_what_is_refused_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.save({"0.weight": torch.zeros(2, 1, 3, 3, dtype=torch.int32)}, tmp_path / "ints.pt")
    message = refused(tmp_path / "ints.pt")
    assert "dtype: 0.weight is int32" in message and "missing: 3.bias" in message
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    assert "tensors alone" in refused(tmp_path / "module.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "state_dict" in refused(tmp_path / "list.pt")
    (tmp_path / "text.pt").write_bytes(b"hello")
    refused(tmp_path / "text.pt")
    torch.save({}, tmp_path / "named.safetensors")
    assert "PyTorch" in refused(tmp_path / "named.safetensors")
    with pytest.raises(FileNotFoundError):
        pc.load_weights(small(), tmp_path / "none.pt")


def test_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04")
    assert "needs PyTorch, which is not installed" in refused(tmp_path / "m.pt")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of resident memory is read from Linux's /proc")
def test_loading_takes_the_memory_of_the_arrays_once(tmp_path):
    """Neither a copy nor a mapped file beside them."""
    path = tmp_path / "wide.safetensors"
    pc.save({"weight": np.ones((4096, 4096), np.float32), "bias": np.ones(4096, np.float32)}, path)
    program = f"""
import pycl_cnn as pc
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")) / 1024
pc.load_weights(pc.nn.Linear(2, 2), {str(path)!r}, strict=False)  # what loading imports
with pc.nn.init.skipped():
    model = pc.nn.Linear(4096, 4096)
before = peak()
pc.load_weights(model, {str(path)!r})
assert model.weight.data[0, 0] == 1
print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1.3 * 64


def test_arrays_of_a_file_are_taken_over_without_a_copy_and_nobody_can_write_to_them(tmp_path):
    """Small ones lie together in one piece of memory."""
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    pc.save(model, tmp_path / "w.safetensors")
    loaded = pc.load_weights(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)), tmp_path / "w.safetensors")
    arrays = loaded.state_dict()
    assert len({id(array.base) for array in arrays.values()}) == 1
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
        for shown in (array, array.base):
            with pytest.raises(ValueError, match="read-only"):
                shown[...] = 0
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        arrays["0.weight"].flags.writeable = True
