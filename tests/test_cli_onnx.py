"""``pycl-cnn info | run | compare`` on small ONNX files, and on a photograph and a real classifier where they are there."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from helpers.onnx_files import MODELS, TensorProto, helper, info, model, onnx, relu

import pycl_cnn as pc
from pycl_cnn import nn
from pycl_cnn.onnx.description import describe

PHOTOGRAPHS = MODELS.parent / "images"


@pytest.fixture
def digits(tmp_path):
    """A small classifier of grey pictures."""
    pc.manual_seed(1)
    path = tmp_path / "digits.onnx"
    pc.onnx.export(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10)), path, (1, 1, 8, 8))
    return path


def save(path, proto):
    path.write_bytes(proto.SerializeToString())
    return path


# ---- info --------------------------------------------------------------------------------------------------------------


def test_info(call, digits):
    status, out, err = call("info", digits, "--device", "cpu")
    assert status == 0 and not err
    assert "input   x: float32 [N, 1, 8, 8]" in out and "output  y: float32 [N, 10]" in out and "opset ai.onnx 20, by pycl_cnn" in out
    assert re.search(r"^operator +count +cpu$", out, re.MULTILINE)
    for row in (r"Conv +1 +kernel", r"Relu +1 +(kernel|fused or folded)", r"Gemm +1 +kernel"):
        assert re.search(row, out), row
    assert "parameters  1,490 (0.01 MiB)" in out
    assert "(0.0 million multiply-adds)" in out and re.search(r"memory .* MiB .* on cpu", out)
    description = describe(pc.onnx.load(digits), [pc.device("cpu")])
    assert description.multiply_adds == 36 * 4 * 9 + 144 * 10 and description.flops >= 2 * description.multiply_adds


def test_info_tells_every_backend(call, digits):
    status, out, _ = call("info", digits)
    assert status == 0
    for device in [pc.device("cpu"), *[d for d in pc.devices() if d.backend == "opencl"][:1]]:
        assert re.search(rf"^operator.* {device.label}\b", out, re.MULTILINE) and f"on {device.label}" in out


def test_info_of_what_runs_on_the_host_and_of_what_does_not_run(call, tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("TopK", ["a", "k"], ["v", "i"]), helper.make_node("Identity", ["v"], ["y"])]
    path = save(tmp_path / "m.onnx", model(nodes, initializers=[helper.make_tensor("k", TensorProto.INT64, [1], [2])]))
    status, out, _ = call("info", path, "--device", "cpu")
    assert status == 0 and re.search(r"TopK +1 +host", out)
    path = save(tmp_path / "n.onnx", model([relu("x", "a"), helper.make_node("Frobnicate", ["a"], ["y"], name="f", domain="com.example")]))
    status, out, _ = call("info", path, "--device", "cpu")
    assert status == 1 and re.search(r"com.example::Frobnicate +1 +unsupported", out) and "cannot run: node 'f' (com.example::Frobnicate)" in out


def test_info_asks_for_open_sizes(call, tmp_path):
    path = save(tmp_path / "m.onnx", model([relu()], [info("x", ["N", 3, "H", "W"])], [info("y", None)]))
    status, _, err = call("info", path)
    assert status == 2 and "give --input-shape x=1,3,224,224" in err and err.count("\n") == 1
    assert "1 x 3 x 5 x 6" in call("info", path, "--input-shape", "1,3,5,6", "--device", "cpu")[1]
    assert "1 x 3 x 5 x 6" in call("info", path, "--input-shape", "x=1x3x5x6", "--device", "cpu")[1]
    status, _, err = call("info", path, "--input-shape", "z=1,3,5,6")
    assert status == 2 and "there is no such input; there are x" in err


def test_names_in_a_file_cannot_steer_the_terminal(call, tmp_path):
    path = save(tmp_path / "m.onnx", model([helper.make_node("Relu", ["x\x1b[2J"], ["y"], name="\x1b]0;a\x07")], ["x\x1b[2J"], producer_name="\x1b[31m"))
    for command in ("info", "compare"):
        status, out, err = call(command, path, "--device", "cpu")
        assert status == 0 and "\x1b" not in out + err and "\x07" not in out + err


# ---- run ---------------------------------------------------------------------------------------------------------------


def test_run_on_arrays(call, digits, tmp_path):
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    expected = np.asarray(pc.onnx.load(digits)(x, device="cpu"))
    for arguments in ([tmp_path / "x.npy"], [f"x={tmp_path / 'x.npy'}"]):
        status, out, _ = call("run", digits, *arguments, "--out", tmp_path / "y.npy", "--device", "cpu")
        assert status == 0 and "y: float32 [3, 10]" in out and "written to" in out
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    assert call("run", digits, tmp_path / "x.npy", "--out", tmp_path / "y.npz", "--device", "cpu")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], expected)


def test_run_with_several_inputs(call, tmp_path):
    path = save(tmp_path / "m.onnx", model([helper.make_node("Sub", ["a", "b"], ["y"]), relu("y", "z")], ["a", "b"], ["y", "z"]))
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 3, np.float32)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    np.savez(tmp_path / "both.npz", b=b, a=a)
    for arguments in ([tmp_path / "a.npy", tmp_path / "b.npy"], [f"b={tmp_path / 'b.npy'}", f"a={tmp_path / 'a.npy'}"], [tmp_path / "both.npz"]):
        assert call("run", path, *arguments, "--out", tmp_path / "o.npz", "--device", "cpu")[0] == 0
        assert np.load(tmp_path / "o.npz")["y"][0, 0] == -2 and np.load(tmp_path / "o.npz")["z"][0, 0] == 0
    status, _, err = call("run", path, tmp_path / "a.npy", "--device", "cpu")
    assert status == 2 and "the model's inputs are a, b; given were a: give NAME=FILE for each" in err
    status, _, err = call("run", path, tmp_path / "both.npz", "--out", tmp_path / "o.npy", "--device", "cpu")
    assert status == 2 and "2 outputs; give a name that ends in .npz" in err


def echo(tmp_path, shape, elem_type=TensorProto.FLOAT):
    """A model that gives its input."""
    return save(tmp_path / "echo.onnx", model([helper.make_node("Identity", ["x"], ["y"])], [info("x", shape, elem_type)], [info("y", None, elem_type)]))


@pytest.fixture
def image(tmp_path):
    """A picture 16 wide and 8 high: 10 in its left quarter, 20, 30, 40; red, green and blue differ by 1."""
    module = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    columns = np.repeat(np.arange(10, 50, 10), 4)
    pixels = np.broadcast_to(columns[None, :, None] + np.arange(3), (8, 16, 3)).astype(np.uint8)
    module.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        (("N", 3, 8, 8), ["--range", 255, "--mean", 0, "--std", 1], np.stack([np.repeat([20, 30], 4) + c for c in range(3)])[None, :, None]),
        (("N", 3, 8, 8), ["--range", 255, "--mean", "0,1,2", "--std", 2], np.stack([np.repeat([10, 15], 4)] * 3)[None, :, None]),
        (("N", 3, 8, 8), ["--range", 255, "--mean", "2,1,0", "--std", 1, "--channels", "BGR"], np.stack([np.repeat([20, 30], 4)] * 3)[None, :, None]),
        ((1, 8, 8, 3), ["--range", 255, "--mean", 0, "--std", 1], (np.repeat([20, 30], 4)[:, None] + np.arange(3))[None, None]),
        (("N", 3, 8, 8), [], ((np.repeat([20, 30], 4) + np.arange(3)[:, None]) / 255 - [[0.485], [0.456], [0.406]])[None, :, None] / np.array([0.229, 0.224, 0.225])[None, :, None, None]),
        (("N", 3, "H", "W"), ["--size", 8, "--range", 255, "--mean", 0, "--std", 1], np.stack([np.repeat([20, 30], 4) + c for c in range(3)])[None, :, None]),
    ],
    ids=["plain", "mean and std", "BGR", "NHWC", "ImageNet", "open sizes"],
)
def test_a_picture_becomes_the_input(call, tmp_path, image, shape, options, expected):
    path = echo(tmp_path, shape)
    status, _out, err = call("run", path, image, "--resize", 8, "--out", tmp_path / "y.npy", "--device", "cpu", *options)
    assert status == 0, err
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-5)


def test_top_classes(call, tmp_path, image):
    """The mean of each third of a picture as three scores."""
    weight = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["a"]), helper.make_node("Flatten", ["a"], ["b"]), helper.make_node("Gemm", ["b", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", model(nodes, [info("x", [1, 3, 8, 8])], [info("y", [1, 3])], [weight]))
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    arguments = ["run", path, image, image, "--range", 255, "--mean", 0, "--std", 1, "--device", "cpu", "--top", 2, "--labels", labels]
    status, out, _ = call(*arguments)
    powers = np.exp([0.0, 1.0, 2.0])
    assert status == 0 and out.count(str(image)) == 2 and "red" not in out
    assert re.search(rf"{100 * powers[2] / powers.sum():.1f} %  blue\n +{100 * powers[1] / powers.sum():.1f} %  green", out)
    labels.write_text("green\nblue\n")  # one less: class 0 is the background
    assert re.search(r"%  blue\n.*%  green", call(*arguments)[1])
    labels.write_text("a\nb\nc\nd\n")
    status, _, err = call(*arguments)
    assert status == 2 and "has 4 lines, the model has 3 classes" in err


def test_a_photograph_through_a_real_classifier(call, tmp_path):
    """The same five classes as onnxruntime, which is given the pixels that are written here by hand."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    image_module = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    path, photograph, labels = MODELS / "mobilenetv2-from-uint8.onnx", PHOTOGRAPHS / "hot_dog.jpg", PHOTOGRAPHS / "imagenet_synset.txt"
    if not path.exists():
        pytest.skip(f"no {path}")
    picture = image_module.open(photograph).convert("RGB")
    width, height = (round(n * 256 / min(picture.size)) for n in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    pixels = np.asarray(picture.resize((width, height), image_module.Resampling.BILINEAR).crop((left, top, left + 224, top + 224)), np.float32)
    x = np.moveaxis((pixels / 255 - 0.5) / 0.5, -1, 0)[None]
    (y,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": x.astype(np.float32)})
    names = ["background", *labels.read_text().splitlines()]
    expected = [names[i] for i in np.argsort(-y[0])[:5]]
    assert "hotdog" in expected[0]
    for device in ["cpu", *[d.label for d in pc.devices() if d.backend == "opencl"][:1]]:
        status, out, err = call("run", path, photograph, "--labels", labels, "--mean", 0.5, "--std", 0.5, "--device", device)
        assert status == 0, err
        assert [line.partition("%")[2].strip() for line in out.splitlines() if "%" in line] == expected


# ---- compare -----------------------------------------------------------------------------------------------------------


def test_compare(call, digits, tmp_path):
    pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    np.save(tmp_path / "x.npy", np.ones((2, 1, 8, 8), np.float32))
    for more in ([], [tmp_path / "x.npy"], ["--input-shape", "3,1,8,8", "--runs", 2]):
        status, out, err = call("compare", digits, *more, "--device", "cpu")
        assert status == 0 and not err
        assert re.search(r"^y +cpu +\S+ +\S+$", out, re.MULTILINE) and re.search(r"^onnxruntime +\S+ ms$", out, re.MULTILINE) and "agrees: " in out
    assert call("compare", digits, "--device", "cpu", "--tolerance", 0)[0] in (0, 1)


def test_compare_with_the_reference(call, digits):
    status, out, _ = call("compare", digits, "--against", "reference", "--device", "cpu", "--device", "reference")
    assert status == 0 and re.search(r"^y +reference +0 +0$", out, re.MULTILINE) and "agrees" in out


def test_outputs_that_are_no_arrays(call, tmp_path, image):
    """A sequence has a line of its own, and no place in an array file."""
    pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    nodes = [helper.make_node("SplitToSequence", ["x"], ["y"], axis=2), relu("x", "z")]
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    both = save(tmp_path / "both.onnx", model(nodes, [info("x", [1, 3, 2, 4])], [sequence, info("z", None)]))
    alone = save(tmp_path / "alone.onnx", model(nodes[:1], [info("x", [1, 3, 2, 4])], [sequence]))
    np.save(tmp_path / "x.npy", np.ones((1, 3, 2, 4), np.float32))
    status, out, err = call("run", both, tmp_path / "x.npy", "--device", "cpu")
    assert status == 0 and "y: sequence of 2" in out and "z: float32 [1, 3, 2, 4]" in out, err
    for arguments in ([both, tmp_path / "x.npy"], [alone, tmp_path / "x.npy"], [alone, image], [alone, image, image]):
        status, out, err = call("run", *arguments, "--device", "cpu", "--out", tmp_path / "y.npz")
        assert status == 2 and "sequence of 2" in out and "only arrays of numbers can be written; the output y is none (sequence of 2)" in err
    for path in (both, alone):
        status, out, err = call("compare", path, "--device", "cpu", "--runs", 1)
        assert status == 0 and re.search(r"^y +cpu +0 +0$", out, re.MULTILINE), err


def test_compare_takes_shapes_and_dtypes_from_files(call, tmp_path):
    """Open sizes need no --input-shape then, and both runtimes are given what the model wants."""
    pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    path = save(tmp_path / "m.onnx", model([relu()], [info("x", ["N", 3, "H", "W"])], [info("y", None)]))
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 60).reshape(1, 3, 4, 5))
    status, out, err = call("compare", path, tmp_path / "x.npy", "--device", "cpu", "--runs", 1)
    assert status == 0 and "agrees: " in out, err
    assert "give --input-shape" in call("compare", path, "--device", "cpu")[2]
    assert "files have shapes of their own" in call("compare", path, tmp_path / "x.npy", "--input-shape", "1,3", "--device", "cpu")[2]


def test_compare_tells_a_difference(call, digits, monkeypatch):
    pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    from pycl_cnn.onnx import command

    whole = command.read_arrays
    monkeypatch.setattr(command, "_ours", lambda model, inputs, device: lambda: [np.ones((1, 10), np.float32)])
    status, out, _ = call("compare", digits, "--device", "cpu", "--runs", 1)
    assert status == 1 and "differs: largest relative difference" in out and whole is command.read_arrays


def test_differences():
    from pycl_cnn.onnx.command import difference

    a = np.array([1.0, np.nan, np.inf, -4.0], np.float32)
    assert difference(a, a) == (0, 0)
    assert difference(a + np.float32([0.5, 0, 0, 0]), a) == (0.5, 0.125)
    assert difference(np.nan_to_num(a), a) == (np.inf, np.inf)
    assert difference([a, a + np.float32(1)], [a, a]) == (1, 0.25) and difference([a], [a, a]) == difference(a, [a]) == difference(None, a) == (np.inf, np.inf)
    assert difference([], []) == difference(None, None) == (0, 0)
    assert difference(a[:2], a) == (np.inf, np.inf) and difference(a.astype(np.float64), a) == (np.inf, np.inf)


# ---- mistakes ----------------------------------------------------------------------------------------------------------


MISTAKES = {
    "no file": (["info", "{tmp}/nothing.onnx"], "nothing.onnx"),
    "no model": (["info", "{tmp}/text.onnx"], "no ONNX model"),
    "no input file": (["run", "{tmp}/digits.onnx", "{tmp}/nothing.jpg"], "nothing.jpg"),
    "no picture": (["run", "{tmp}/digits.onnx", "{tmp}/text.onnx"], "no image that Pillow can read"),
    "damaged array": (["run", "{tmp}/digits.onnx", "{tmp}/cut.npy"], "no array of numbers"),
    "other shape": (["run", "{tmp}/digits.onnx", "{tmp}/other.npy"], "must have the shape ['N', 1, 8, 8]"),
    "mean": (["run", "{tmp}/digits.onnx", "x", "--mean", "1,2"], "one number or three"),
    "std": (["run", "{tmp}/digits.onnx", "{tmp}/p.png", "--std", "0"], "no std of 0"),
    "three means for grey": (["run", "{tmp}/digits.onnx", "{tmp}/p.png", "--mean", "1,2,3"], "one for each of the 1 channels"),
    "no such device": (["compare", "{tmp}/digits.onnx", "--device", "warp"], "warp"),
    "no such rival": (["compare", "{tmp}/digits.onnx", "--against", "abacus"], "abacus"),
    "shape": (["info", "{tmp}/digits.onnx", "--input-shape", "x=1,a"], "1,a"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_gets_one_line_and_status_2(call, tmp_path, digits, image, case):
    (tmp_path / "text.onnx").write_text("hello, this is text")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.save(tmp_path / "other.npy", np.zeros((1, 3, 8, 8), np.float32))
    arguments, word = MISTAKES[case]
    status, _, err = call(*(argument.format(tmp=tmp_path) for argument in arguments), *(["--device", "cpu"] if "--device" not in arguments else []))
    assert status == 2
    assert err.count("\n") == 1 and word in err and "Traceback" not in err and err.startswith("pycl-cnn"), err


def test_without_onnxruntime(call, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = call("compare", digits, "--device", "cpu")
    assert status == 2 and "pip install onnxruntime; or compare with --against reference" in err
