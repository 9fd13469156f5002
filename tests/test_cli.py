"""The command line, called as a function; once as a process."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.idx_files import idx, write_mnist

import pycl_cnn as pc
from pycl_cnn import cli, models


def train_arguments(folder, out, *more):
    return ["train", "--data", folder, "--out", out, "--device", "cpu", "--epochs", 1, "--batch-size", 4, "--quiet", *more]


def test_devices(call):
    status, out, _ = call("devices")
    assert status == 0
    for device in pc.devices():
        assert device.label in out and device.name in out
    status, out, _ = call("devices", "--device", "cpu")
    assert status == 0 and "--device cpu: cpu" in out


def test_devices_say_why_there_is_no_opencl(call, monkeypatch):
    from pycl_cnn import backends
    from pycl_cnn.backends import backend

    class Broken:
        def devices(self):
            raise pc.DeviceError("the loader is missing")

    monkeypatch.setattr(backends, "backend", lambda name: Broken() if name == "opencl" else backend(name))
    status, out, _ = call("devices", "--device", "cpu")
    assert status == 0 and "no OpenCL: the loader is missing" in out


@pytest.mark.parametrize("command", [(), ("devices",), ("doctor",), ("check",), ("demo",), ("train",), ("predict",), ("summary",), ("profile",), ("tune",), ("info",), ("run",), ("compare",)])
def test_help_teaches(call, command):
    status, out, _ = call(*command, "--help")
    assert status == 0 and "%%" not in out
    assert command in ((), ("devices",)) or ("examples:" in out and ("--device" in out or command == ("doctor",)))


def test_summary(call):
    status, out, _ = call("summary", "lenet5")
    assert status == 0 and "61,706" in out
    status, out, _ = call("summary", "lenet5", "--input-shape", "3x1x28x28", "--device", "cpu")
    assert status == 0 and "3 x 10" in out and "igemm" in out
    for name in models.names():
        assert name in call("summary", "--help")[1]
    assert call("summary", "digits")[0] == 0


def test_train_predict_and_resume(call, tmp_path):
    folder, out, run = write_mnist(tmp_path / "m", train=10), tmp_path / "m.safetensors", tmp_path / "run.safetensors"
    status, said, _ = call(*train_arguments(folder, out, "--checkpoint", run))
    assert status == 0 and "test accuracy" in said and str(out) in said
    assert call(*train_arguments(folder, tmp_path / "b.safetensors", "--epochs", 2, "--resume", run))[0] == 0
    assert call(*train_arguments(folder, tmp_path / "c.safetensors", "--epochs", 2))[0] == 0
    resumed, whole = (pc.load_weights(models.lenet5(), tmp_path / name).state_dict() for name in ("b.safetensors", "c.safetensors"))
    assert all(np.array_equal(array, whole[name]) for name, array in resumed.items())

    images, labels = folder / "t10k-images-idx3-ubyte", folder / "t10k-labels-idx1-ubyte"
    status, said, _ = call("predict", out, images, "--labels", labels, "--limit", 2, "--top", 2, "--device", "cpu")
    assert status == 0 and "1 more" in said and re.search(r"accuracy \d+\.\d\d % \(\d of 3\) on cpu", said)
    rows = [line for line in said.splitlines() if "ubyte[" in line]
    assert len(rows) == 2 and all(line.count("%") == 2 for line in rows)
    names = tmp_path / "names"
    names.write_text("\n".join(f"digit {index}" for index in range(10)))
    assert "digit " in call("predict", out, images, "--classes-file", names, "--device", "cpu")[1]


def test_predict_a_picture(call, tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    pc.save(models.lenet5(), tmp_path / "w.safetensors")
    image_module.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "x.png")
    status, out, _ = call("predict", tmp_path / "w.safetensors", tmp_path / "x.png", tmp_path / "x.png", "--model", "lenet5", "--invert", "--device", "cpu")
    assert status == 0 and out.count("x.png") == 2


MISTAKES = {
    "no command": ([], "required"),
    "no such command": (["learn"], "learn"),
    "no such network": (["summary", "lenet6"], "lenet5"),
    "no such device": (["summary", "lenet5", "--device", "warp"], "warp"),
    "shape": (["summary", "lenet5", "--input-shape", "1,a"], "1,a"),
    "input too small": (["summary", "lenet5", "--input-shape", "1,1,4,4"], "received"),
    "no data": (["train", "--data", "{tmp}/nowhere", "--out", "{tmp}/o"], "nowhere"),
    "no out folder": (["train", "--data", "{tmp}", "--out", "{tmp}/nowhere/m"], "nowhere"),
    "batch size": (["train", "--data", "{tmp}/m", "--out", "{tmp}/o", "--batch-size", "0"], "batch_size"),
    "negative rate": (["train", "--data", "{tmp}", "--out", "{tmp}/m", "--lr", "-1"], "--lr"),
    "no weights": (["predict", "{tmp}/nothing", "{tmp}/x"], "nothing"),
    "foreign weights": (["predict", "{tmp}/m/t10k-labels-idx1-ubyte", "x", "--model", "lenet5"], "safetensors"),
    "which network": (["predict", "{tmp}/plain.safetensors", "x"], "--model"),
    "no image": (["predict", "{tmp}/plain.safetensors", "--model", "lenet5", "{tmp}/nothing.png"], "nothing.png"),
    "wrong network": (["predict", "{tmp}/plain.safetensors", "--model", "resnet18", "x"], "missing"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_gets_one_line_and_status_2(call, tmp_path, case):
    write_mnist(tmp_path / "m")
    pc.save(models.lenet5(), tmp_path / "plain.safetensors")
    arguments, word = MISTAKES[case]
    status, _, err = call(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert status == 2
    assert err.count("\n") == 1 and word in err and "Traceback" not in err and err.startswith("pycl-cnn"), err


def test_ctrl_c_saves_the_weights(call, tmp_path, monkeypatch):
    from pycl_cnn.training import Trainer

    def interrupted(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", interrupted)
    status, _, err = call(*train_arguments(write_mnist(tmp_path / "m", train=10), tmp_path / "m.safetensors"))
    assert status == 130 and "interrupted" in err
    pc.load_weights(models.lenet5(), tmp_path / "m.safetensors")


def test_ctrl_c_elsewhere(call, monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "devices", interrupted)
    status, _, err = call("devices")
    assert status == 130 and err.count("\n") == 1


def test_as_a_process(tmp_path):
    command = [sys.executable, "-m", "pycl_cnn"]
    done = subprocess.run([*command, "summary", "lenet5"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "61,706" in done.stdout and not done.stderr
    done = subprocess.run([*command, "train"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent in POSIX' way")
def test_a_real_ctrl_c_in_a_process(tmp_path):
    folder = tmp_path / "m"
    write_mnist(folder)
    images = np.zeros((4000, 28, 28))
    (folder / "train-images-idx3-ubyte").write_bytes(idx(images))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4000) % 10))
    arguments = ["train", "--data", folder, "--out", tmp_path / "m.safetensors", "--epochs", "1000", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "pycl_cnn", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    while b"epoch 2/1000" not in (line := process.stderr.read(4096)):  # training is under way
        assert line, "training ended by itself"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted in epoch" in err and b"Traceback" not in err
    pc.load_weights(models.lenet5(), tmp_path / "m.safetensors")
