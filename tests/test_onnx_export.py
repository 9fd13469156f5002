"""Export to ONNX: the checker accepts it, onnxruntime gives our outputs, the names are the user's."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from helpers.catalogue import CASES, NAMES
from helpers.onnx_files import info, onnx, real_models
from helpers.onnx_files import model as onnx_model

import pycl_cnn as pc
from pycl_cnn import nn
from pycl_cnn.onnx.exporter import _traced, export, to_proto
from pycl_cnn.onnx.reader import read
from pycl_cnn.ops.leaf import Constant, Input, State
from pycl_cnn.ops.resample import Resample
from pycl_cnn.passes import canonical

onnxruntime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")

#: The operations of the catalogue that ONNX cannot say, and what the error says.
CANNOT = {
    "adaptive_max_pool2d": "no windows of different lengths (7 elements to 3)",
    "dropout": "dropout",
}


def checked(proto):
    """The proto, which the checker has accepted with types and shapes inferred."""
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto, *arrays):
    """onnxruntime's outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([item.name for item in session.get_inputs()], arrays, strict=True)))


def close(found, expected, what=""):
    """Equal within 1e-5 of the scale."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape and found.dtype == expected.dtype, what
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0) or 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale, err_msg=what)


class Call(nn.Module):
    """A case of the catalogue as a model."""

    def __init__(self, case):
        self._case = case

    def forward(self, *inputs):
        return self._case.call(pc.F, *inputs)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_operation(case):
    model = Call(case)
    specs = [(array.shape, array.dtype) for array in case.arrays]
    if case.name in CANNOT:
        with pytest.raises(pc.UnsupportedError) as caught:
            to_proto(model, specs, dynamic_batch=False)
        assert str(caught.value).startswith("onnx.export: ") and CANNOT[case.name] in str(caught.value)
        return
    proto = checked(to_proto(model, specs, dynamic_batch=False))
    expected = model(*case.arrays, device="cpu")
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, wanted in zip(run(proto, *case.arrays), expected, strict=True):
        close(found, wanted)


SMALL = {
    "lenet5": (lambda: pc.models.lenet5(), (2, 1, 28, 28)),
    "alexnet": (lambda: pc.models.alexnet(num_classes=10), (2, 3, 96, 96)),
    "vgg16": (lambda: pc.models.vgg16(num_classes=10), (2, 3, 32, 32)),
    "resnet18": (lambda: pc.models.resnet18(num_classes=10), (2, 3, 64, 64)),
    "resnet50": (lambda: pc.models.resnet50(num_classes=10), (2, 3, 64, 64)),
    "mobilenet_v2": (lambda: pc.models.mobilenet_v2(num_classes=10), (2, 3, 64, 64)),
    "all_cnn_c": (lambda: pc.models.all_cnn_c(), (2, 3, 32, 32)),
    "unet": (lambda: pc.models.unet(width=8), (2, 3, 32, 48)),
}

#: These have hundreds of megabytes of weights.
LARGE = ("alexnet", "vgg16")


def test_every_model_is_tested():
    assert set(SMALL) == set(pc.models.names())


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in SMALL])
def test_every_model_before_and_after_training(name, tmp_path):
    pc.manual_seed(1)
    build, shape = SMALL[name]
    model = build()
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path = tmp_path / "m.onnx"
    for trained in (False, True):
        if trained:
            target = np.zeros((shape[0], *np.shape(model(x, device="cpu"))[2:]), np.int32)
            pc.Trainer(model, nn.CrossEntropyLoss(), pc.optim.SGD(0.001), device="cpu").fit((x, target), epochs=2, batch_size=len(x), progress=False)
        model.eval()
        export(model, path, (1, *shape[1:]))
        proto = checked(onnx.load(path))
        close(run(proto, x)[0], model(x, device="cpu"), f"{name}, trained: {trained}")
        close(run(proto, x[:1])[0], model(x[:1], device="cpu"), f"{name}, trained: {trained}, one image")
        assert {item.name for item in proto.graph.initializer} == set(model.state_dict())
        assert not {node.op_type for node in proto.graph.node} & {"Transpose", "Expand"}, "images stay NCHW"


def lenet():
    return pc.models.lenet5().eval()


def test_names_and_shapes_are_the_user_s(tmp_path):
    model = lenet()
    pc.onnx.export(model, tmp_path / "m.onnx", example_shape=(4, 1, 28, 28))
    found = read(tmp_path / "m.onnx")
    assert found.opsets == {"": 20} and found.producer.startswith("pycl_cnn ")
    assert [(item.name, item.shape) for item in found.graph.inputs] == [("x", ("N", 1, 28, 28))]
    assert [(item.name, item.shape) for item in found.graph.outputs] == [("y", ("N", 10))]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(found.graph.initializers[name], array)
    nodes = [(node.op, node.name) for node in found.graph.nodes if node.op != "Constant"]
    assert [op for op, _ in nodes] == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Reshape", "Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    assert all("." not in op for op, _ in nodes) and len({name for _, name in nodes}) == len(nodes)


def test_a_fixed_batch():
    found = read(to_proto(lenet(), [((4, 1, 28, 28), np.float32)], dynamic_batch=False))
    assert found.graph.inputs[0].shape == (4, 1, 28, 28) and found.graph.outputs[0].shape == (4, 10)


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        self._function = function

    def forward(self, *inputs):
        return self._function(*inputs)


def test_any_batch_size_through_every_movement():
    F = pc.F
    model = Function(lambda x: (F.flatten(x), F.reshape(x, (-1, 7, 2)), x[1:, ::-1, 2:], F.pad(x, (1, 0, 0, 2)), F.expand(x[:, None], (-1, 3, -1, -1, -1)), F.mean(x, (2, 3)), x.permute(3, 0, 2, 1)))
    proto = checked(to_proto(model, [((2, 3, 4, 7), np.float32)]))
    for batch in (2, 5):
        x = np.random.default_rng(0).standard_normal((batch, 3, 4, 7)).astype(np.float32)
        for found, expected in zip(run(proto, x), model(x, device="cpu"), strict=True):
            close(found, expected)


def test_several_inputs_and_outputs_that_are_the_same():
    model = Function(lambda a, b: (a + b, a, b * 1.0, a + b))
    proto = checked(to_proto(model, [((2, 3), np.float32), ((2, 3), np.float32)]))
    a, b = (np.random.default_rng(i).standard_normal((4, 3)).astype(np.float32) for i in (0, 1))
    for found, expected in zip(run(proto, a, b), (a + b, a, b, a + b), strict=True):
        close(found, expected)
    assert [item.name for item in proto.graph.input] == ["x", "x1"] and [item.name for item in proto.graph.output] == ["y", "y1", "y2", "y3"]


def test_what_depends_on_the_batch_size_otherwise():
    model = Function(lambda x: pc.F.mean(x) + pc.F.expand(pc.F.sum(x, 0, True), (x.shape[0], 3)))
    with pytest.raises(pc.UnsupportedError, match=r"onnx.export: Constant.* depends on the batch size .*dynamic_batch=False"):
        to_proto(model, [((2, 3), np.float32)])
    checked(to_proto(model, [((2, 3), np.float32)], dynamic_batch=False))


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_batch_norm_is_one_node(epsilon):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=epsilon), nn.ReLU())
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data = rng.standard_normal(parameter.shape)
    for buffer in model.buffers():
        buffer.data = rng.uniform(0.5, 2, buffer.shape)
    x = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    proto = checked(to_proto(model, [(x.shape, x.dtype)]))
    assert [node.op_type for node in proto.graph.node] == ["Conv", "BatchNormalization", "Relu"]
    assert list(proto.graph.node[1].input)[1:] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    close(run(proto, x)[0], model.eval()(x, device="cpu"))


def test_a_file_appears_when_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(pc.UnsupportedError):
        export(Function(lambda x: pc.F.dropout(x, 0.4)), path, (2, 3))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export(lenet(), path, (1, 1, 28, 28))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_without_the_package_onnx(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(pc.FormatError, match=r'onnx.export needs the package onnx: pip install "pycl_cnn\[onnx\]"'):
        export(lenet(), "nowhere.onnx", (1, 1, 28, 28))


# ---- and in again ------------------------------------------------------------------------------------------------------


def structure(model, specs):
    """The model, channels last, as rows (operation, inputs) with every row once: equal for the same operations on the same inputs,
    constants and states, in whatever order they were traced."""
    graph = canonical(_traced(model, specs)[0])
    digests: dict = {}

    def digest(node):
        op = node.op
        if isinstance(op, Constant):
            what = op.array.dtype.str, op.array.shape, op.array.tobytes()
        elif isinstance(op, Input):
            what = graph.inputs.index(node.outputs[0]), op.shape, op.dtype
        elif isinstance(op, State):
            what = op.label, op.shape, op.user_shape, op.moves
        elif isinstance(op, Resample):  # windows may be given by a rule or by a table
            what = op.rows.shape, op.rows.table, op.cols.shape, op.cols.table
        else:
            what = op
        inputs = [(digests[value.node], value.index) for value in node.inputs]
        return hashlib.sha256(repr((type(op).__name__, what, inputs)).encode()).hexdigest()

    for node in graph.nodes():
        digests[node] = digest(node)
    return sorted(digests.values()), [(digests[value.node], value.index) for value in graph.outputs]


@pytest.mark.parametrize("name", [name for name in SMALL if name not in LARGE])
def test_import_of_our_export_is_the_same_graph(name):
    build, shape = SMALL[name]
    model, specs = build().eval(), [(shape, np.float32)]
    proto = to_proto(model, specs)
    again = pc.onnx.load(proto.SerializeToString())
    assert structure(model, specs) == structure(again, specs)
    assert {key: array.shape for key, array in again.state_dict().items()} == {key: array.shape for key, array in model.state_dict().items()}
    assert {key for key, _ in again.named_buffers()} == {key for key, _ in model.named_buffers()}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(again(x, device="cpu"), model(x, device="cpu"))


@real_models
def test_every_imported_model(path):
    """Checked, within 1e-5 of our own outputs in onnxruntime, and the same graph when it is imported again."""
    model = pc.onnx.load(path)
    record = path.with_name(f"{path.stem.removesuffix('-slicepad')}.io.npz")
    with np.load(record) as recorded:
        arrays = [recorded[f"in:{item.name}"] for item in model.inputs]
    specs = [(array.shape, array.dtype) for array in arrays]
    dynamic = path.stem != "mnist-8"  # which flattens to one row
    proto = checked(to_proto(model, specs, dynamic))
    assert [item.name for item in proto.graph.input] == [item.name for item in model.inputs]
    assert [item.name for item in proto.graph.output] == [item.name for item in model.outputs]
    expected = model(*arrays, device="cpu")
    for found, wanted in zip(run(proto, *arrays), expected if isinstance(expected, tuple) else (expected,), strict=True):
        close(found, wanted, path.stem)
    assert structure(pc.onnx.load(proto.SerializeToString()), specs) == structure(model, specs)


def test_a_model_for_one_batch_size_says_so():
    model = Function(lambda x: pc.F.reshape(x, (1, 6)))
    with pytest.raises(pc.UnsupportedError, match=r"takes no other batch size than that of example_shape; dynamic_batch=False fixes it"):
        to_proto(model, [((1, 2, 3), np.float32)])


def test_local_response_normalisation_is_one_node():
    node = onnx.helper.make_node("LRN", ["x"], ["y"], size=5, alpha=0.1, beta=0.6, bias=2.0)
    model = pc.onnx.load(onnx_model([node], [info("x", [2, 7, 3, 4])], [info("y", [2, 7, 3, 4])]))
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 4)).astype(np.float32)
    proto = checked(to_proto(model, [(x.shape, x.dtype)]))
    assert [item.op_type for item in proto.graph.node] == ["LRN"]
    close(run(proto, x)[0], model(x, device="cpu"))


@pytest.mark.parametrize(("pads", "count", "ceil"), [((0, 0), False, False), ((1, 1), False, False), ((1, 1), True, False), ((1, 0), True, False), ((0, 0), False, True)])
def test_average_pooling_by_tables_is_average_pooling(pads, count, ceil):
    """Imported windows are tables; they are recognised."""
    attributes = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[*pads, *pads], count_include_pad=int(count), ceil_mode=int(ceil))
    model = pc.onnx.load(onnx_model([onnx.helper.make_node("AveragePool", ["x"], ["y"], **attributes)], [info("x", [2, 3, 8, 9])], [info("y", None)]))
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 9)).astype(np.float32)
    proto = checked(to_proto(model, [(x.shape, x.dtype)]))
    assert [item.op_type for item in proto.graph.node] == ["AveragePool"]
    close(run(proto, x)[0], model(x, device="cpu"))


def test_adaptive_pooling_to_more_elements_is_interpolation():
    model = Function(lambda x: pc.F.adaptive_avg_pool2d(x, (6, 7)))
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 1)).astype(np.float32)
    proto = checked(to_proto(model, [(x.shape, x.dtype)]))
    assert [item.op_type for item in proto.graph.node if item.op_type != "Constant"] == ["Resize"]
    close(run(proto, x)[0], model(x, device="cpu"))
