"""Whole models: real ones from the data folder beside the checkout against onnxruntime and recorded outputs, and those in the package onnx."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

import pycl_cnn as pc

DATA = Path(os.environ.get("PYCL_CNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
MODELS = sorted((DATA / "models").glob("*.onnx"))
TOLERANCE = 1e-4  # of the output's scale

needs_models = pytest.mark.skipif(not MODELS, reason=f"{DATA}/models has no ONNX models; PYCL_CNN_DATA names another folder")


def close(y, expected):
    """Within 1e-4 of the largest expected element."""
    assert y.shape == expected.shape and y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE * float(np.abs(expected).max()))


def chosen(device):
    """The reference is slow, and further OpenCL devices are tried with --devices."""
    if device.backend == "reference" or device.index > 0:
        pytest.skip("whole models run on the CPU backend and on OpenCL's first device")
    return device


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def recorded(path):
    """(inputs, {(output, slice): array}) that lie beside the model."""
    with np.load(path.with_name(path.name.replace("-slicepad", "").removesuffix(".onnx") + ".io.npz")) as file:
        inputs = {key[3:]: file[key] for key in file.files if key.startswith("in:")}
        outputs = {re.fullmatch(r"out:([^[]*)(\[.*\])?", key).groups(): file[key] for key in file.files if key.startswith("out:")}
    return inputs, outputs


@needs_models
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_recorded_outputs(path, device):
    net = pc.onnx.load(path)
    inputs, outputs = recorded(path)
    results = dict(zip([info.name for info in net.outputs], as_tuple(net(inputs, device=chosen(device)))))
    for (name, part), expected in outputs.items():
        y = results[name]
        close(eval(f"y{part}", {"y": y}) if part else y, expected)  # the slice is the data folder's own


@needs_models
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_onnxruntime_gives_the_same(path, device):
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    runtime.set_default_logger_severity(3)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    recorded_inputs, _ = recorded(path)
    rng = np.random.default_rng(0)
    inputs = {name: (array + array.std() * rng.standard_normal(array.shape)).astype(np.float32) for name, array in recorded_inputs.items()}
    net = pc.onnx.load(path)
    for y, expected in zip(as_tuple(net(inputs, device=chosen(device))), session.run(None, inputs), strict=True):
        close(y, expected)


@needs_models
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_float_networks_have_no_host_steps(path):
    net = pc.onnx.load(path)
    inputs, _ = recorded(path)
    text = net.explain(inputs, device="cpu")
    assert " numpy " not in text and "Conv" in text


@needs_models
def test_a_batch_binds_the_symbolic_size(device):
    net = pc.onnx.load(DATA / "models" / "resnet20-cifar10.onnx")
    assert net.inputs[0].shape[0] == "N" and net.inputs[0].dtype == np.float32
    inputs, _ = recorded(DATA / "models" / "resnet20-cifar10.onnx")
    images = inputs["input"]
    whole = net(images, device=chosen(device))
    close(np.concatenate([net(images[:3], device=device), net({"input": images[3:]}, device=device)]), whole)
    with pytest.raises(pc.ShapeError, match="'input' must have the shape"):
        net(images[:, :2])
    with pytest.raises(pc.ShapeError, match="given once each"):
        net(images, images)


@needs_models
@pytest.mark.parametrize("name", ["mobilenetv2-from-uint8", "squeezenet1.1-from-fp16"])
def test_a_photograph_has_onnxruntimes_top_five(name, device):
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    image = pytest.importorskip("PIL.Image", reason="reads a photograph")
    pixels = np.asarray(image.open(DATA / "images" / "hot_dog_224.png").convert("RGB"), np.float32).transpose(2, 0, 1)[None]
    x = (pixels - 128) / 128 if name.startswith("mobilenet") else pixels[:, ::-1] - np.array([103.939, 116.779, 123.68], np.float32)[:, None, None]
    x = np.ascontiguousarray(x)
    path = DATA / "models" / f"{name}.onnx"
    runtime.set_default_logger_severity(3)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0].ravel()
    scores = pc.onnx.load(path)(x, device=chosen(device)).ravel()
    assert np.argsort(-scores)[:5].tolist() == np.argsort(-expected)[:5].tolist()
    labels = (DATA / "images" / "imagenet_synset.txt").read_text(encoding="utf-8").splitlines()
    assert "hotdog" in labels[scores.argmax() - (len(scores) == 1001)]


def light_models():
    """The models without weights (these are made by ConstantOfShape) that the package onnx carries, with their outputs."""
    try:
        import onnx
    except ImportError:
        return []
    return sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


@pytest.mark.parametrize("path", [pytest.param(path, marks=[pytest.mark.slow] if "vgg" in path.name else []) for path in light_models()], ids=lambda path: path.stem)
def test_light_models_of_the_package_onnx(path, device):
    onnx = pytest.importorskip("onnx")
    from onnx.backend.test.runner import Runner

    model = onnx.load(path)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [Runner.generate_dummy_data(info, name="") for info in model.graph.input if info.name not in initializers]
    expected = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes()))
    close(as_tuple(pc.onnx.load(path)(*inputs, device=chosen(device)))[0], expected)
