"""What an imported model can do: names, values that plans depend on, stages, control flow, functions, training, errors."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import nn, optim

onnx = pytest.importorskip("onnx", reason="the tests build their models with the package onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def model(nodes, inputs, outputs, initializers=None, opset=21, functions=(), domains=()):
    """A ModelProto; inputs and outputs as {name: (type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [helper.make_tensor_value_info(name, *info) for name, info in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (initializers or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def classifier(batch="N"):
    """Conv, batch norm, ReLU, dropout, global pooling, dense."""
    rng = np.random.default_rng(1)
    weights = {
        "features.0.weight": rng.standard_normal((6, 1, 3, 3)).astype(np.float32) / 3,
        "features.1.weight": np.ones(6, np.float32),
        "features.1.bias": np.zeros(6, np.float32),
        "features.1.running_mean": np.zeros(6, np.float32),
        "features.1.running_var": np.ones(6, np.float32),
        "head.weight": rng.standard_normal((3, 6)).astype(np.float32),
        "head.bias": np.zeros(3, np.float32),
    }
    nodes = [
        node("Conv", ["x", "features.0.weight"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="features.0"),
        node("BatchNormalization", ["a", *list(weights)[1:5]], ["b"], name="features.1"),
        node("Relu", ["b"], ["c"]),
        node("Dropout", ["c", "ratio"], ["d"], name="drop"),
        node("GlobalAveragePool", ["d"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1, name="head"),
    ]
    return model(nodes, {"x": (FLOAT, [batch, 1, 8, 8])}, {"y": (FLOAT, [batch, 3])}, {**weights, "ratio": np.float32(0.5)})


# ---- what a user sees ---------------------------------------------------------------------------------------------------


def test_parameters_have_the_files_names(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(classifier(), path)
    net = pc.onnx.load(path)
    assert list(dict(net.named_parameters())) == ["features.0.weight", "features.1.weight", "features.1.bias", "head.weight", "head.bias"]
    assert list(dict(net.named_buffers())) == ["features.1.running_mean", "features.1.running_var"]
    assert [(info.name, info.dtype, info.shape) for info in net.inputs] == [("x", np.float32, ("N", 1, 8, 8))]
    assert [info.name for info in net.outputs] == ["y"] and not net.training
    assert "OnnxModel(x: float32['N', 1, 8, 8] -> y" in repr(net)
    summary = net.summary((2, 1, 8, 8))
    assert summary.parameters == 6 * 9 + 12 + 18 + 3 and "features.0" in str(summary)


def test_it_is_a_module(device, tmp_path):
    net = pc.onnx.load(classifier())
    x = random(2, 1, 8, 8)
    y = net(x, device=device)
    np.testing.assert_array_equal(net({"x": x}, device=device), y)
    np.testing.assert_allclose(net(x.transpose(0, 2, 3, 1), device=device, layout="NHWC"), y, atol=1e-6)
    np.testing.assert_allclose(pc.compile(net, x.shape, device=device).run(x), y, atol=1e-6)
    np.testing.assert_allclose(nn.Sequential(net, nn.ReLU())(x, device=device), np.maximum(y, 0), atol=1e-6)
    pc.save(net, tmp_path / "weights.safetensors")
    other = pc.onnx.load(classifier())
    other.load_state_dict({name: array + 1 for name, array in net.state_dict().items()})
    assert not np.allclose(other(x, device=device), y)
    pc.load_weights(other, tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(other(x, device=device), y)
    twin = copy.deepcopy(net)
    twin.load_state_dict({**twin.state_dict(), "head.bias": np.ones(3)})
    np.testing.assert_allclose(twin(x, device=device), y + 1, atol=1e-5)
    np.testing.assert_array_equal(net(x, device=device), y)


def test_training_mode_is_pytorchs(device):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    net = pc.onnx.load(classifier())
    state = {name: torch.tensor(np.array(array)) for name, array in net.state_dict().items()}
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3, padding=1, bias=False), torch.nn.BatchNorm2d(6))
    theirs.load_state_dict({name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}, strict=False)
    theirs.train()
    x = random(4, 1, 8, 8)
    theirs(torch.tensor(x))
    before = net(x, device=device)
    net.train()
    first, second = net(x, device=device), net(x, device=device)
    assert not np.array_equal(first, second) and not np.allclose(first, before)  # dropout draws anew, the batch's statistics are used
    buffers = dict(net.named_buffers())
    reference = pc.onnx.load(classifier())
    reference.train()
    reference(x, device=device)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(dict(reference.named_buffers())[f"features.1.{name}"].data, getattr(theirs[1], name).numpy(), atol=1e-5)
        assert not np.array_equal(buffers[f"features.1.{name}"].data, state[f"features.1.{name}"].numpy())
    net.eval()
    np.testing.assert_array_equal(net(x, device=device), net(x, device=device))


def test_freeze_by_pattern_and_train(device):
    net = pc.onnx.load(classifier())
    before = net.state_dict()
    net.freeze("features*")
    assert [name for name, parameter in net.named_parameters() if parameter.requires_grad] == ["head.weight", "head.bias"]
    with pytest.raises(pc.ShapeError, match="must match a parameter's name"):
        net.freeze("backbone*")
    trainer = pc.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(lr=0.1), device, seed=0)
    trainer.fit((random(24, 1, 8, 8), np.arange(24) % 3), epochs=2, batch_size=8, progress=False)
    changed = {name for name, array in net.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed == {"head.weight", "head.bias"}
    net.unfreeze("features.0*")
    trainer = pc.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(lr=0.1), device, seed=0)
    trainer.fit((random(24, 1, 8, 8), np.arange(24) % 3), epochs=1, batch_size=8, progress=False)
    assert not np.array_equal(net.state_dict()["features.0.weight"], before["features.0.weight"])


def test_stored_weights_become_float_parameters(device):
    quantised = np.array([[-3, 0, 5], [7, -8, 1]], np.int8)
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0),
        node("Cast", ["half"], ["b"], to=FLOAT),
        node("Gemm", ["x", "w", "b"], ["y"], transB=1),
    ]
    scale = np.array([0.5, 0.25], np.float32)
    net = pc.onnx.load(
        model(nodes, {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, [1, 2])}, {"q": quantised, "scale": scale, "zero": np.zeros(2, np.int8), "half": np.array([1, 2], np.float16)})
    )
    assert {name: parameter.shape for name, parameter in net.named_parameters()} == {"w": (2, 3), "b": (2,)}
    x = random(1, 3)
    np.testing.assert_allclose(net(x, device=device), x @ (quantised * scale[:, None]).T + [1, 2], rtol=1e-5)
    assert "numpy" not in net.explain(x, device="cpu")


# ---- what plans depend on -----------------------------------------------------------------------------------------------


def test_inputs_that_decide_about_shapes_are_bound_at_the_call(device):
    net = pc.onnx.load(model([node("Reshape", ["x", "shape"], ["y"])], {"x": (FLOAT, [2, 6]), "shape": (INT64, ["k"])}, {"y": (FLOAT, None)}))
    x = random(2, 6)
    for shape in ([3, 4], [12], [1, 2, -1], [3, 4]):
        np.testing.assert_array_equal(net(x, np.array(shape), device=device), x.reshape(shape))
    computed = [node("Mul", ["sizes", "two"], ["wider"]), node("Concat", ["front", "wider"], ["shape"], axis=0), node("Expand", ["x", "shape"], ["y"])]
    net = pc.onnx.load(
        model(computed, {"x": (FLOAT, [1, "k"]), "sizes": (INT64, [1])}, {"y": (FLOAT, None)}, {"two": np.array([2]), "front": np.array([4, 1])})
    )
    assert net(random(1, 1), np.array([2]), device=device).shape == (4, 1, 4)
    with pytest.raises(pc.ShapeError, match=r"Expand.*sizes must agree or be 1"):
        net(random(1, 3), np.array([4]), device=device)


def test_shape_arithmetic_is_folded(device):
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"], axis=0),
        node("Unsqueeze", ["n", "zero"], ["n1"]),
        node("Concat", ["n1", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ]
    net = pc.onnx.load(
        model(nodes, {"x": (FLOAT, ["N", 2, 3])}, {"y": (FLOAT, ["N", 6])}, {"first": np.int64(0), "zero": np.array([0]), "rest": np.array([-1])})
    )
    x = random(5, 2, 3)
    np.testing.assert_array_equal(net(x, device=device), x.reshape(5, 6))
    if device.backend != "reference":
        assert "numpy" not in net.explain(x, device=device)
    assert not list(net.parameters())


def test_results_without_a_shape_split_the_model(device):
    """Suppression between two parts of a network; the second is planned for as many boxes as there are."""
    nodes = [
        node("Mul", ["boxes", "factor"], ["scaled"]),
        node("NonMaxSuppression", ["scaled", "scores", "most", "overlap"], ["kept"]),
        node("Gather", ["kept", "two"], ["numbers"], axis=1),
        node("Gather", ["flat", "numbers"], ["y"], axis=0),
        node("Reshape", ["scaled", "pairs"], ["flat"]),
    ]
    nodes = [nodes[0], nodes[4], *nodes[1:4]]
    net = pc.onnx.load(
        model(
            nodes,
            {"boxes": (FLOAT, [1, 4, 4]), "scores": (FLOAT, [1, 1, 4])},
            {"y": (FLOAT, ["k", 4]), "kept": (INT64, ["k", 3])},
            {"factor": np.full((1, 1, 1), 2, np.float32), "most": np.array([3]), "overlap": np.array([0.5], np.float32), "two": np.int64(2), "pairs": np.array([4, 4])},
        )
    )
    boxes = np.array([[[0, 0, 1, 1], [0, 0.05, 1, 1.05], [0, 10, 1, 11], [5, 5, 6, 6]]], np.float32)
    for scores, expected in (([0.9, 0.8, 0.3, 0.7], [0, 3, 2]), ([0.1, 0.8, 0.3, 0.7], [1, 3, 2]), ([0.9, 0.9, 0.9, 0.9], [0, 2, 3])):
        y, kept = net(boxes, np.array([[scores]], np.float32), device=device)
        assert kept[:, 2].tolist() == expected
        np.testing.assert_allclose(y, 2 * boxes[0, expected], rtol=1e-6)
    with pytest.raises(pc.UnsupportedError, match="NonMaxSuppression"):
        pc.compile(net, [(1, 4, 4), (1, 1, 4)], device=device)


def test_elements_that_are_computed_can_decide_about_shapes(device):
    nodes = [node("NonZero", ["x"], ["places"]), node("Shape", ["places"], ["s"]), node("ReduceMax", ["x"], ["top"], keepdims=0), node("Cast", ["top"], ["k"], to=INT64)]
    nodes += [node("Reshape", ["k", "one"], ["k1"]), node("TopK", ["x", "k1"], ["y", ""])]
    net = pc.onnx.load(model(nodes, {"x": (FLOAT, [6])}, {"y": (FLOAT, ["k"]), "s": (INT64, [2])}, {"one": np.array([1])}))
    for x in ([3, 1, 0, 2, 0, 1], [1, 0, 0, 0, 0, 1], [3, 3, 2, 1, 1, 1]):
        x = np.array(x, np.float32)
        y, shape = net(x, device=device)
        np.testing.assert_array_equal(y, np.sort(x)[::-1][: int(x.max())])
        assert shape.tolist() == [1, np.count_nonzero(x)]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int32, np.int64, np.bool_], ids=lambda dtype: np.dtype(dtype).name)
def test_all_dtypes_are_first_class(dtype, device):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Concat", ["t", "t"], ["c"], axis=0), node("Where", ["m", "c", "other"], ["y"])]
    net = pc.onnx.load(model(nodes, {"x": (kind, [2, 3]), "m": (BOOL, [6, 1]), "other": (kind, [1, 2])}, {"y": (kind, [6, 2])}))
    x, m, other = (np.arange(6).reshape(2, 3) * 3 % 5).astype(dtype), np.array([1, 0, 1, 1, 0, 0], bool)[:, None], np.array([[1, 0]], dtype)
    y = net(x, m, other, device=device)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.where(m, np.concatenate([x.T, x.T]), other))


# ---- control flow and functions -----------------------------------------------------------------------------------------


def branch(name, op, outer):
    return helper.make_graph([node(op, [outer], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])


def test_if_takes_a_branch(device):
    net = pc.onnx.load(
        model([node("If", ["c"], ["y"], then_branch=branch("t", "Relu", "x"), else_branch=branch("e", "Neg", "x"))], {"x": (FLOAT, [4]), "c": (BOOL, [])}, {"y": (FLOAT, [4])})
    )
    x = random(4)
    np.testing.assert_allclose(net(x, np.array(True), device=device), np.maximum(x, 0))
    np.testing.assert_allclose(net(x, np.array(False), device=device), -x)
    decided = pc.onnx.load(
        model(
            [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"]), node("If", ["c"], ["y"], then_branch=branch("t", "Relu", "x"), else_branch=branch("e", "Neg", "x"))],
            {"x": (FLOAT, [4])},
            {"y": (FLOAT, [4])},
            {"zero": np.float32(0)},
        )
    )
    for x in (np.array([1, -2, 3, 4], np.float32), np.array([1, -2, -3, -4], np.float32)):
        np.testing.assert_allclose(decided(x, device=device), np.maximum(x, 0) if x.sum() > 0 else -x)


def loop(condition):
    nodes = [node("Mul", ["v", "w"], ["v_out"]), node("Identity", ["v_out"], ["row"])]
    if condition == "constant":
        nodes += [node("Identity", ["cond"], ["cond_out"])]
    else:
        nodes += [node("ReduceMax", ["v_out"], ["top"], keepdims=0), node("Less", ["top", "hundred"], ["cond_out"])]
    body = helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("cond", BOOL, []), helper.make_tensor_value_info("v", FLOAT, [2])],
        [helper.make_tensor_value_info("cond_out", BOOL, []), helper.make_tensor_value_info("v_out", FLOAT, [2]), helper.make_tensor_value_info("row", FLOAT, [2])],
    )
    return model([node("Loop", ["trips", "", "v0"], ["y", "all"], body=body, name="loop")], {"v0": (FLOAT, [2])}, {"y": (FLOAT, [2]), "all": (FLOAT, [3, 2])}, {"trips": np.int64(3), "w": np.array([2, 3], np.float32), "hundred": np.float32(100)})


def test_loops_are_unrolled(device):
    y, every = pc.onnx.load(loop("constant"))(np.ones(2, np.float32), device=device)
    np.testing.assert_allclose(y, [8, 27], rtol=1e-6)
    np.testing.assert_allclose(every, [[2, 3], [4, 9], [8, 27]], rtol=1e-6)
    with pytest.raises(pc.UnsupportedError, match=r"'loop'.*condition of a loop must not depend"):
        pc.onnx.load(loop("computed"))(np.ones(2, np.float32), device=device)


def test_functions_of_the_model(device):
    body = [node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5))), helper.make_node("LeakyRelu", ["a"], ["r"]), node("Mul", ["r", "half"], ["b"])]
    body[1].attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    function = helper.make_function("own", "Halved", ["a"], ["b"], body, [helper.make_opsetid("", 21)], ["slope"])
    net = pc.onnx.load(
        model([node("Halved", ["x"], ["y"], domain="own", slope=0.25), node("Halved", ["y"], ["z"], domain="own", slope=1.0)], {"x": (FLOAT, [5])}, {"z": (FLOAT, [5])}, functions=[function], domains=["own"])
    )
    x = random(5)
    np.testing.assert_allclose(net(x, device=device), np.where(x > 0, x, x / 4) / 4, rtol=1e-6)


# ---- errors -------------------------------------------------------------------------------------------------------------


def test_errors_name_the_node():
    x = {"x": (FLOAT, [2, 3])}
    with pytest.raises(pc.UnsupportedError, match=r"node 'odd' \(LSTM\): the operator is not supported"):
        pc.onnx.load(model([node("LSTM", ["x", "x", "x"], ["y"], name="odd")], x, {"y": (FLOAT, None)}))(random(2, 3))
    with pytest.raises(pc.UnsupportedError, match=r"com\.example::Relu"):
        pc.onnx.load(model([node("Relu", ["x"], ["y"], domain="com.example")], x, {"y": (FLOAT, None)}, domains=["com.example"]))(random(2, 3))
    with pytest.raises(pc.ShapeError, match=r"'flat' \(Reshape\): the number of elements must stay the same"):
        pc.onnx.load(model([node("Reshape", ["x", "s"], ["y"], name="flat")], x, {"y": (FLOAT, None)}, {"s": np.array([4, 2])}))(random(2, 3))
    with pytest.raises(pc.ShapeError, match=r"the Concat that gives 'y'.*cat: all sizes but the one along the axis must agree"):
        pc.onnx.load(model([node("Concat", ["x", "z"], ["y"], axis=1)], {**x, "z": (FLOAT, [1, 3])}, {"y": (FLOAT, None)}))(random(2, 3), random(1, 3))
    with pytest.raises(pc.ShapeError, match="the attribute axis must be an integer"):
        pc.onnx.load(model([node("Concat", ["x", "x"], ["y"], axis="one")], x, {"y": (FLOAT, None)}))(random(2, 3))
    with pytest.raises(pc.ShapeError, match="absurdly large"):
        pc.onnx.load(model([node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], x, {"y": (FLOAT, None)}, {"s": np.array([1 << 40])}))(random(2, 3))
    with pytest.raises(pc.UnsupportedError, match="opset 99"):
        pc.onnx.load(model([node("Relu", ["x"], ["y"])], x, {"y": (FLOAT, [2, 3])}, opset=99))
    net = pc.onnx.load(model([node("Relu", ["x"], ["y"])], {"x": (INT64, [2])}, {"y": (INT64, [2])}))
    assert net([1, -2]).tolist() == [1, 0]
    with pytest.raises(pc.DtypeError, match="must be int64; received float64"):
        net(np.array([0.5, 1.0]))
    with pytest.raises(pc.ShapeError, match="given once each"):
        net({"z": [1, 2]})


@pytest.mark.parametrize("growing", ["Add", "MatMul", "Concat", "Einsum", "Where"])
def test_constants_that_grow_are_refused_before_they_fill_the_memory(growing):
    column, row = np.zeros((1 << 17, 1), np.int64), np.zeros((1, 1 << 17), np.int64)
    values = {"column": column, "row": row}
    last = {
        "Add": [node("Add", ["column", "row"], ["c"])],
        "MatMul": [node("MatMul", ["column", "row"], ["c"])],
        "Einsum": [node("Einsum", ["column", "row"], ["c"], equation="ij,jk->ik")],
        "Where": [node("Equal", ["column", "column"], ["m"]), node("Where", ["m", "row", "column"], ["c"])],
        "Concat": [node("Concat", [f"c{i}"] * 8, [f"c{i + 1}"], axis=0) for i in range(8)] + [node("Identity", ["c8"], ["c"])],
    }[growing]
    nodes = [*last, node("Cast", ["c"], ["f"], to=FLOAT), node("ReduceMax", ["f"], ["t"], keepdims=0), node("Add", ["x", "t"], ["y"])]
    net = pc.onnx.load(model(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, {**values, "c0": column}))
    with pytest.raises(pc.ShapeError, match=f"{growing}.*absurdly large"):
        net(random(2))


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 62, 4], [-5]])
def test_absurd_sizes_are_refused(shape):
    for op in ("Expand", "Tile", "Resize"):
        values = {"s": np.array([1, *shape][:2] if len(shape) == 1 else shape)}
        inputs = ["x", "", "", "s"] if op == "Resize" else ["x", "s"]
        with pytest.raises(pc.PyclError):
            pc.onnx.load(model([node(op, inputs, ["y"])], {"x": (FLOAT, [1, 1])}, {"y": (FLOAT, None)}, values))(np.ones((1, 1), np.float32))


def test_wide_windows_are_planned_quickly():
    """A window of 60,000 places of which one lies inside."""
    part = node("AveragePool", ["x"], ["y"], kernel_shape=[60_000], dilations=[2], pads=[119_998, 119_998])
    start = time.perf_counter()
    y = pc.onnx.load(model([part], {"x": (FLOAT, [1, 1, 1])}, {"y": (FLOAT, None)}))(np.ones((1, 1, 1), np.float32))
    assert time.perf_counter() - start < 5
    assert y.shape == (1, 1, 119_999) and y.sum() == 60_000


@pytest.mark.parametrize("deep", [False, True])
def test_functions_take_values_that_plans_depend_on(deep):
    """A float initializer that a function's body reads as scales is no weight; one that it computes with is one."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("loc", 1)]
    body = [node("Mul", ["a", "w"], ["m"]), node("Identity", ["s"], ["t"]), node("Resize", ["m", "", "t" if deep else "s"], ["b"])]
    functions = [helper.make_function("loc", "Up", ["a", "s", "w"], ["b"], body, opsets)]
    if deep:
        functions.append(helper.make_function("loc", "Outer", ["w", "a", "s"], ["b"], [node("Up", ["a", "s", "w"], ["b"], domain="loc")], opsets))
    call = node("Outer", ["w", "x", "s"], ["y"], domain="loc") if deep else node("Up", ["x", "s", "w"], ["y"], domain="loc")
    values = {"s": np.array([1, 1, 2, 2], np.float32), "w": np.full(3, 2, np.float32)}
    net = pc.onnx.load(model([call], {"x": (FLOAT, [1, 1, 3, 3])}, {"y": (FLOAT, None)}, values, functions=functions, domains=["loc"]))
    assert list(dict(net.named_parameters())) == ["w"]
    x = random(1, 1, 3, 3)
    np.testing.assert_allclose(net(x), 2 * x.repeat(2, 2).repeat(2, 3), rtol=1e-6)


# ---- float networks stay in kernels -------------------------------------------------------------------------------------


def test_choices_by_comparison_have_no_host_steps(device):
    """Where keeps what it does not choose out, infinities and NaN included."""
    nodes = [
        node("Greater", ["x", "zero"], ["positive"]),
        node("LessOrEqual", ["x", "one"], ["small"]),
        node("Xor", ["positive", "small"], ["either"]),
        node("And", ["positive", "small"], ["both"]),
        node("Not", ["both"], ["outside"]),
        node("Log", ["x"], ["log"]),
        node("Where", ["positive", "log", "x"], ["a"]),
        node("Where", ["outside", "minus", "a"], ["y"]),
        node("Cast", ["either"], ["z"], to=FLOAT),
    ]
    net = pc.onnx.load(
        model(nodes, {"x": (FLOAT, [2, 5])}, {"y": (FLOAT, [2, 5]), "z": (FLOAT, [2, 5])}, {"zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-np.inf)})
    )
    x = np.array([[-1, 0, 0.5, 1, 2], [np.inf, -np.inf, 0.25, np.nan, -0.0]], np.float32)
    y, z = net(x, device=device)
    with np.errstate(all="ignore"):
        inside = (x > 0) & (x <= 1)
        np.testing.assert_allclose(y, np.where(inside, np.log(x), -np.inf), rtol=1e-6)
    np.testing.assert_array_equal(z, (x > 0) ^ (x <= 1))
    if device.backend != "reference":
        assert " numpy " not in net.explain(x, device=device)


def test_masks_are_booleans_where_they_are_asked_for(device):
    nodes = [node("Greater", ["x", "zero"], ["m"]), node("Transpose", ["m"], ["t"], perm=[1, 0]), node("Cast", ["m"], ["n"], to=INT64), node("ReduceSum", ["n"], ["count"], keepdims=0)]
    net = pc.onnx.load(model(nodes, {"x": (FLOAT, [2, 3])}, {"m": (BOOL, [2, 3]), "t": (BOOL, [3, 2]), "count": (INT64, [])}, {"zero": np.float32(0)}))
    x = random(2, 3)
    m, t, count = net(x, device=device)
    assert m.dtype == t.dtype == bool and count.dtype == np.int64
    np.testing.assert_array_equal(m, x > 0)
    np.testing.assert_array_equal(t, (x > 0).T)
    assert count == (x > 0).sum()


@pytest.mark.parametrize("places", [[2], [0, 1, 2], [5, 3, 1], [4, 4, 4], [0, 3, 1, 5, 2, 2, 0, 1, 4, 3, 5, 1, 0, 2]])
def test_known_places_are_gathered_by_kernels(places, device):
    net = pc.onnx.load(model([node("Gather", ["x", "i"], ["y"], axis=1)], {"x": (FLOAT, [2, 6, 3])}, {"y": (FLOAT, None)}, {"i": np.array(places)}))
    x = random(2, 6, 3)
    np.testing.assert_array_equal(net(x, device=device), x[:, places])
    if device.backend != "reference":
        assert " numpy " not in net.explain(x, device=device)


FLOAT_NODES = {
    "PRelu": (node("PRelu", ["x", "slope"], ["y"]), {"slope": np.full((4, 1, 1), 0.1, np.float32)}),
    "InstanceNormalization": (node("InstanceNormalization", ["x", "s", "b"], ["y"]), {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}),
    "GroupNormalization": (node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2), {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}),
    "LayerNormalization": (node("LayerNormalization", ["x", "s"], ["y"]), {"s": np.ones(6, np.float32)}),
    "LRN": (node("LRN", ["x"], ["y"], size=3), {}),
    "Resize cubic": (node("Resize", ["x", "", "r"], ["y"], mode="cubic"), {"r": np.array([1, 1, 2, 1.5], np.float32)}),
    "Resize nearest": (node("Resize", ["x", "", "r"], ["y"], mode="nearest"), {"r": np.array([1, 1, 2, 2], np.float32)}),
    "DepthToSpace": (node("DepthToSpace", ["x"], ["y"], blocksize=2), {}),
    "ReduceL2": (node("ReduceL2", ["x", "axes"], ["y"]), {"axes": np.array([2, 3])}),
    "ReduceLogSumExp": (node("ReduceLogSumExp", ["x", "axes"], ["y"]), {"axes": np.array([1])}),
    "Clip": (node("Clip", ["x", "low", "high"], ["y"]), {"low": np.float32(-0.5), "high": np.float32(0.5)}),
    "Pad reflect": (node("Pad", ["x", "pads"], ["y"], mode="reflect"), {"pads": np.array([0, 0, 4, 4, 0, 0, 4, 4])}),
    "Pad wrap": (node("Pad", ["x", "pads"], ["y"], mode="wrap"), {"pads": np.array([0, 0, 2, 2, 0, 0, 2, 2])}),
    "AveragePool": (node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[2, 2], ceil_mode=1), {}),
    "LpPool": (node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=3), {}),
    "Tile": (node("Tile", ["x", "n"], ["y"]), {"n": np.array([1, 2, 1, 3])}),
    "MatMul": (node("MatMul", ["x", "x_t"], ["y"]), {"x_t": np.random.default_rng(3).standard_normal((4, 6, 5)).astype(np.float32)}),
    "HardSigmoid": (node("HardSigmoid", ["x"], ["y"]), {}),
    "Mish": (node("Mish", ["x"], ["y"]), {}),
}


@pytest.mark.parametrize("name", FLOAT_NODES)
def test_operators_of_image_networks_have_kernels(name, device):
    """One form of each, against onnxruntime; all forms are in ONNX's own node tests."""
    runtime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    part, initializers = FLOAT_NODES[name]
    proto = model([part], {"x": (FLOAT, [2, 4, 6, 6])}, {"y": (FLOAT, None)}, initializers)
    net, x = pc.onnx.load(proto), random(2, 4, 6, 6)
    y = net(x, device=device)
    (expected,) = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, atol=2e-5)
    if device.backend != "reference":
        assert " numpy " not in net.explain(x, device=device)


def test_sequences_are_lists(device):
    """Tensors that kernels compute go into a sequence between two stages, and out of it."""
    info = helper.make_tensor_sequence_value_info
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("SequenceConstruct", ["r", "x"], ["s"]),
        node("SequenceInsert", ["given", "r"], ["t"]),
        node("SequenceAt", ["t", "last"], ["a"]),
        node("Neg", ["a"], ["y"]),
    ]
    proto = model(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}, {"last": np.int64(-1)})
    proto.graph.input.append(info("given", FLOAT, None))
    proto.graph.output.append(info("s", FLOAT, None))
    net, x = pc.onnx.load(proto), random(3)
    for given in ([], [np.ones(2, np.float32)]):
        y, s = net({"x": x, "given": given}, device=device)
        np.testing.assert_array_equal(y, -np.maximum(x, 0))
        assert isinstance(s, list) and len(s) == 2
        np.testing.assert_array_equal(s[1], x)
