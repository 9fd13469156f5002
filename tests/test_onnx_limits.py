"""What little files may ask for: memory and time of reading and planning, and files with bytes and fields changed at random."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from random import Random

import numpy as np
import pytest
from helpers.onnx_files import GOOD, REAL, TensorProto, calls, field, helper, info, model, nested, onnx, real_models, relu
from helpers.onnx_mutations import mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pycl_cnn as pc
from pycl_cnn.onnx import importer
from pycl_cnn.onnx.description import describe
from pycl_cnn.onnx.model import OnnxModel
from pycl_cnn.onnx.reader import MEMORY_BASE, MEMORY_FACTOR, read

AttributeProto = onnx.AttributeProto


# ---- reading ----------------------------------------------------------------------------------------------------------


def dense_files():
    """Files that say much with few bytes, by name."""
    head = b"\x08\x08" + field(8, b"\x10\x11")
    tiny = [field(1, field(1, b"x") + field(2, f"{i:x}".encode()) + field(4, b"R")) for i in range(20_000)]
    yield "nodes", head + field(7, b"".join(tiny) + field(11, info("x").SerializeToString()))
    yield "initializers", head + field(7, b"".join(field(5, b"\x08\x00\x10\x01" + field(8, f"{i:x}".encode())) for i in range(20_000)))
    yield "outputs", head + field(7, b"".join(field(12, field(1, f"{i:x}".encode())) for i in range(30_000)))
    yield "empty inputs", head + field(7, field(1, field(4, b"R") + field(2, b"y") + b"\x0a\x00" * 50_000))
    integers = field(1, b"a") + b"\xa0\x01\x07" + b"\x40\xac\x02" * 50_000
    yield "integers", head + field(7, field(1, field(4, b"R") + field(2, b"y") + field(5, integers)))
    yield "packed integers", head + field(7, field(5, b"\x08" + b"\xc0\x84\x3d" + b"\x10\x07" + field(8, b"w") + field(7, b"\x01" * 1_000_000)))
    yield "texts", head + field(7, field(5, b"\x08" + b"\xd0\x86\x03" + b"\x10\x08" + field(8, b"w") + field(6, "é".encode()) * 50_000))
    yield "empty texts", head + field(7, field(5, b"\x08" + b"\xd0\x86\x03" + b"\x10\x08" + field(8, b"w") + b"\x32\x00" * 50_000))
    yield "empty nodes", head + field(7, b"\x0a\x00" * 50_000)
    yield "halves of bytes", head + field(7, field(5, b"\x08" + b"\x80\x89\x7a" + b"\x10\x16" + field(8, b"w") + field(9, b"\x12" * 1_000_000)))
    yield "single numbers", head + field(7, field(5, b"\x08" + b"\xd0\x86\x03" + b"\x10\x06" + field(8, b"w") + b"\x28\x01" * 50_000))
    yield "single floats", head + field(7, field(5, b"\x08" + b"\xd0\x86\x03" + b"\x10\x01" + field(8, b"w") + b"\x25\0\0\0\0" * 50_000))
    yield "unknown fields", head + b"\xba\x3e\x00" * 50_000


@pytest.mark.parametrize(("name", "data"), list(dense_files()), ids=lambda item: item if isinstance(item, str) else "")
def test_memory_is_a_bounded_multiple_of_the_file(name, data):
    tracemalloc.start()
    start = time.perf_counter()
    try:
        read(data)
    except pc.FormatError as error:
        outcome = str(error)
    else:
        outcome = "read"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY_FACTOR * len(data) + MEMORY_BASE, f"{name}: {peak:,} bytes for {len(data):,} ({outcome})"
    assert time.perf_counter() - start < 20
    print(f"{name}: {peak / len(data):.1f} x {len(data):,}, {outcome[:100]}")


# ---- real files, changed at random -------------------------------------------------------------------------------------


def network():
    """A small network with most kinds of fields: attributes, initializers, a function, a branch, external types."""
    rng = np.random.default_rng(0)
    weights = [onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in (("w", (4, 3, 3, 3)), ("s", (4,)), ("m", (2, 4)))]
    branch = helper.make_graph([relu("b", "t")], "branch", [], [info("t")])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "s", "s", "s", "s"], ["n"], epsilon=1e-3),
        helper.make_node("MaxPool", ["n"], ["p"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Shape", ["p"], ["shape"]),
        helper.make_node("Constant", [], ["k"], value=helper.make_tensor("", TensorProto.INT64, [2], [1, -1])),
        helper.make_node("Reshape", ["p", "k"], ["r"]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "m"], ["b"], transB=1),
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("Leaky", ["i"], ["y"], domain="local", slope=0.5),
    ]
    body = helper.make_node("LeakyRelu", ["u"], ["v"])
    body.attribute.append(AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Leaky", ["u"], ["v"], [body], opsets, attributes=["slope"])
    return model(nodes, [info("x", ["N", 3, 8, 8])], [info("y", None), info("r", None)], weights, functions=[function], opset_imports=opsets).SerializeToString()


def survives(data):
    """Reading, importing and describing end with a result or a PyclError, soon."""
    start = time.perf_counter()
    with contextlib.suppress(pc.PyclError):
        describe(OnnxModel(read(data)), devices=[pc.device("cpu")])
    assert time.perf_counter() - start < 5


SEEDS = [GOOD, nested(2).SerializeToString(), calls(3, 2).SerializeToString(), network(), *(path.read_bytes() for path in REAL if path.stat().st_size < 50_000)]


def test_the_seeds_are_sound():
    for data in SEEDS:
        describe(OnnxModel(read(data)), devices=())


FOUND = {
    "Cast of nothing": [helper.make_node("Cast", [""], ["y"], to=7)],
    "Cast without inputs": [helper.make_node("Cast", [], ["y"], to=7)],
    "Identity of nothing, read later": [helper.make_node("Identity", [""], ["a"]), relu("a", "y")],
    "Constant with an input": [helper.make_node("Constant", ["x"], ["y"], value_int=3)],
    "Constant that is something else": [helper.make_node("Constant", ["x"], ["y"], axis=3)],
    "an output that the operator does not have": [helper.make_node("Relu", ["x"], ["", "y"])],
    "one input too many, which is an array": [
        helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.ones((2, 3), np.float32))),
        helper.make_node("Add", ["x", "c", "c"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_what_the_fuzzer_found(name):
    survives(model(FOUND[name]).SerializeToString())


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.asarray(value)))


def counted(name, count):
    """The numbers up to `count`."""
    numbers = {f"{name}0": 0, f"{name}n": count, f"{name}1": 1}
    return [*(constant(key, np.int64(value)) for key, value in numbers.items()), helper.make_node("Range", list(numbers), [name])]


SIZES = np.array([1 << 14, 1 << 15], np.int64)
BOMBS = {
    "ConstantOfShape": [constant("s", SIZES), helper.make_node("ConstantOfShape", ["s"], ["y"])],
    "Expand": [constant("s", SIZES), constant("o", np.ones((1, 1), np.float32)), helper.make_node("Expand", ["o", "s"], ["y"])],
    "Tile": [constant("s", SIZES), constant("o", np.ones((1, 1), np.float32)), helper.make_node("Tile", ["o", "s"], ["y"])],
    "Range": counted("y", 1 << 40),
    "OneHot": [constant("i", np.arange(1000)), constant("d", np.int64(1 << 20)), constant("v", np.arange(2)), helper.make_node("OneHot", ["i", "d", "v"], ["y"])],
    "Pad": [constant("o", np.ones((1, 1), np.float32)), constant("p", np.array([0, 0, *SIZES])), helper.make_node("Pad", ["o", "p"], ["y"])],
    "Resize": [constant("o", np.ones((1, 1, 1, 1), np.float32)), constant("p", np.array([1, 1, *SIZES])), helper.make_node("Resize", ["o", "", "", "p"], ["y"])],
    "sum of a row and a column": [*counted("a", 1 << 15), constant("c", np.array([1])), helper.make_node("Unsqueeze", ["a", "c"], ["b"]), helper.make_node("Add", ["a", "b"], ["y"])],
    "product of a row and a column": [*counted("a", 1 << 15), helper.make_node("Einsum", ["a", "a"], ["y"], equation="i,j->ij")],
    "doubling": [constant("a0", np.ones(1)), *(helper.make_node("Concat", [f"a{i}"] * 2, [f"a{i + 1}" if i < 39 else "y"], axis=0) for i in range(40))],
    "many": [constant("s", np.array([1 << 22])), *(helper.make_node("ConstantOfShape", ["s"], [f"a{i}"]) for i in range(99)), helper.make_node("Identity", ["a98"], ["y"])],
    "a loop that gathers": [
        constant("t", np.int64(99)), constant("c", np.bool_(True)), constant("s", np.array([1 << 20])), helper.make_node("ConstantOfShape", ["s"], ["k"]),
        helper.make_node("Loop", ["t", "c"], ["y"], body=helper.make_graph(
            [], "body", [info("i", [], TensorProto.INT64), info("c1", [], TensorProto.BOOL)], [info("c1", [], TensorProto.BOOL), info("k", None)])),
    ],
    "an endless loop": [
        constant("t", np.int64(1 << 60)), constant("c", np.bool_(True)),
        helper.make_node("Loop", ["t", "c", "x"], ["y"], body=helper.make_graph(
            [helper.make_node("Identity", ["c1"], ["c2"]), helper.make_node("Identity", ["v"], ["w"])], "body",
            [info("i", [], TensorProto.INT64), info("c1", [], TensorProto.BOOL), info("v")], [info("c2", [], TensorProto.BOOL), info("w")])),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_little_that_asks_for_much(name, monkeypatch):
    """What is folded while a model is planned has a budget (made small here)."""
    base = 8 << 20
    monkeypatch.setattr(importer, "FOLDED_BASE", base)
    monkeypatch.setattr(importer, "MOST_STEPS", 1000)
    data = model(BOMBS[name]).SerializeToString()
    tracemalloc.start()
    try:
        found = describe(OnnxModel(read(data)), devices=())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not found.runs and any(word in found.trouble for word in ("absurdly large", "too much memory", "unrolled")), found.trouble
    assert peak < 64 * len(data) + 4 * base


def test_windows_of_nothing_but_padding_are_refused():
    """The fuzzer's finding: a pooling of six numbers had 67 million rows."""
    nodes = [constant("s", np.array([1, 1, 2, 3])), helper.make_node("Reshape", ["x", "s"], ["o"])]
    pool = helper.make_node("AveragePool", ["o"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 67108866, 1], count_include_pad=1)
    found = describe(OnnxModel(read(model([*nodes, pool]).SerializeToString())), devices=())
    assert not found.runs and "pads must be smaller than the window" in found.trouble


def loop(steps):
    """A Loop whose body has no nodes."""
    infos = [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("v", [1])]
    body = helper.make_graph([], "body", infos, infos[1:])
    return [constant("t", np.bool_(True)), helper.make_node("Loop", [steps, "t", "x"], ["y"], body=body)]


def scan(inputs, **attributes):
    """A Scan whose body has no nodes."""
    infos = [info("r", [0])]
    return [helper.make_node("Scan", inputs, ["y"], body=helper.make_graph([], "body", infos, infos), num_scan_inputs=1, **attributes)]


def pool(op, **attributes):
    return [helper.make_node(op, ["x"], ["y"], **attributes)]


def shaped(name, shape, value):
    """A tensor of one value."""
    return [constant(f"{name}s", np.array(shape, np.int64)), helper.make_node("ConstantOfShape", [f"{name}s"], [name], value=onnx.numpy_helper.from_array(np.array([value])))]


def node(op, inputs, **attributes):
    return helper.make_node(op, inputs, ["y"], **attributes)


def looped(before, repeated):
    """9,000 times the same."""
    infos = [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("v", [], TensorProto.INT64)]
    body = helper.make_graph([repeated], "body", infos, infos[1:])
    return [*before, constant("n", np.int64(9_000)), constant("t", np.bool_(True)), helper.make_node("Loop", ["n", "t", "n"], ["y"], body=body)]


LONG = [info("x", [1 << 40, 0])]
NUMBER, IMAGE = [info("x", [1])], [info("x", [1, 1, 1, 1])]
LINE, WHOLE, SIGNAL = [info("x", [1, 1, 1])], [info("x", [1, 1, 1], TensorProto.INT32)], [info("x", [140])]
WIDE_WINDOWS = {"kernel_shape": [60_000], "dilations": [2], "pads": [119_998] * 2}
SLOW = {
    "a loop without nodes": (loop(""), NUMBER, "unrolled"),
    "a long loop without nodes": ([constant("n", np.int64(1 << 60)), *loop("n")], NUMBER, "unrolled"),
    "a scan without nodes": (scan(["x"]), LONG, "unrolled"),
    "scans of a batch without nodes": (scan(["", "x"]), LONG, "unrolled"),
    "a sum of many letters": ([helper.make_node("Einsum", ["x"] * 5, ["y"], equation="a,b,c,d,e->")], SIGNAL, "the sum would be absurdly large"),
    "a sum of four letters": ([helper.make_node("Einsum", ["x"] * 4, ["y"], equation="a,b,c,d->")], SIGNAL, "the sum would be absurdly large"),
    "a sum over an ellipsis": ([helper.make_node("Einsum", ["x", "x", "x", "x"], ["y"], equation="...,b,c,d->...")], SIGNAL, "the sum would be absurdly large"),
    "a product with an ellipsis": ([helper.make_node("Einsum", ["x", "x"], ["y"], equation="a...,b...->ab...")], [info("x", [1 << 10, 1 << 8])], "the result would be absurdly large"),
    "Resize": ([constant("s", np.array([1, 1, 1, 1 << 30])), helper.make_node("Resize", ["x", "", "", "s"], ["y"])], IMAGE, "the table of its weights would be absurdly large"),
    "Resize with a wide filter": (
        [constant("r", np.array([0, 0, 0, 0, 1, 1, 1, 1e30], np.float32)), constant("s", np.array([1, 1, 1, 1e-30], np.float32)),
         helper.make_node("Resize", ["x", "r", "s"], ["y"], mode="linear", antialias=1, coordinate_transformation_mode="tf_crop_and_resize")],
        IMAGE, "the table of its weights would be absurdly large"),
    "AveragePool, whole numbers": (pool("AveragePool", **WIDE_WINDOWS), WHOLE, "all windows together would be absurdly large"),
    "AveragePool of many windows": (pool("AveragePool", kernel_shape=[2], dilations=[1 << 30], pads=[1 << 30] * 2), LINE, "the table of its windows would be absurdly large"),
    "LpPool of many windows": (pool("LpPool", kernel_shape=[2], dilations=[1 << 30], pads=[1 << 30] * 2), LINE, "the table of its windows would be absurdly large"),
    "sums in a loop": (looped(shaped("a", (1 << 10, 1 << 10), np.int32(1)), helper.make_node("MatMul", ["a", "a"], ["z"])), NUMBER, "the sum would be absurdly large"),
    "reductions in a loop": (looped(shaped("a", (1 << 24,), np.float32(1)), helper.make_node("ReduceMax", ["a"], ["z"])), NUMBER, "the sum would be absurdly large"),
    "host steps in a loop": (looped([], helper.make_node("ArgMax", ["x"], ["z"])), [info("x", [1 << 24])], "the sum would be absurdly large"),
    "Conv, much padding": ([constant("w", np.ones((1, 1, 1), np.float32)), node("Conv", ["x", "w"], pads=[1 << 40] * 2, strides=[1 << 40])], LINE, "the padded input would be absurdly large"),
    "Conv of whole numbers": ([*shaped("w", (1 << 12, 1, 1 << 12), np.int32(1)), node("Conv", ["x", "w"], pads=[1 << 12] * 2)], WHOLE, "the sum would be absurdly large"),
    "MatMul of whole numbers": ([*shaped("a", (1 << 12, 1 << 12), np.int32(1)), node("MatMul", ["a", "a"])], NUMBER, "the sum would be absurdly large"),
    "Gemm of whole numbers": ([*shaped("a", (1 << 12, 1 << 12), np.int32(1)), node("Gemm", ["a", "a"])], NUMBER, "the sum would be absurdly large"),
    "ConvTranspose of whole numbers": ([*shaped("a", (1, 1 << 8, 1 << 13), np.int32(1)), *shaped("w", (1 << 8, 1 << 8, 1 << 4), np.int32(1)), node("ConvTranspose", ["a", "w"])], NUMBER, "the sum would be absurdly large"),
    "LRN of many channels": ([node("LRN", ["x"], size=1 << 14)], [info("x", [1, 1 << 14, 1, 1])], "the table of neighbours would be absurdly large"),
    "a sequence of nothings": ([node("SplitToSequence", ["x"], keepdims=1)], LONG, "the sequence would be absurdly large"),
    "boxes that do not overlap": (
        [*shaped("b", (1, 100_000, 4), np.float32(0)), *shaped("p", (1, 1, 100_000), np.float32(0)), constant("n", np.int64(1 << 40)), node("NonMaxSuppression", ["b", "p", "n"])],
        NUMBER, "the sum would be absurdly large"),
    "RoiAlign of many regions": (
        [*shaped("r", (1 << 17, 4), np.float32(0)), *shaped("b", (1 << 17,), np.int64(0)), node("RoiAlign", ["x", "r", "b"])], IMAGE, "more regions than are looked at"),
    "GatherND of everything": ([*shaped("a", (1 << 14,), np.float32(0)), *shaped("i", (1 << 20, 0), np.int64(0)), node("GatherND", ["a", "i"])], NUMBER, "the result would be absurdly large"),
    "Gather of one element": ([*shaped("i", (1 << 24,), np.int64(0)), node("Gather", ["x", "i"])], NUMBER, "the table of its places would be absurdly large"),
    "Pad by reflection": ([constant("p", np.array([0, 0, 0, 1 << 40])), node("Pad", ["x", "p"], mode="reflect")], [info("x", [0, 2])], "the table of its places would be absurdly large"),
    "Resize beside a long axis": (
        [constant("s", np.array([1, 1, 2, 1 << 28])), node("Resize", ["x", "", "", "s"])], [info("x", [1, 1, 1, 1 << 28])], "the table of its weights would be absurdly large"),
    "a large tensor on the host": ([node("Not", ["x"])], [info("x", [1 << 33], TensorProto.BOOL)], "the result would be absurdly large"),
    "a large tensor that is sorted": ([constant("k", np.array([1])), helper.make_node("TopK", ["x", "k"], ["v", "y"])], [info("x", [1 << 33])], "an input of what runs on the host would be absurdly large"),
    "a product on the host": ([node("And", ["x", "c"])], [info("x", [1 << 20, 1], TensorProto.BOOL), info("c", [1 << 20], TensorProto.BOOL)], "the result would be absurdly large"),
    "MaxPool of many windows": (pool("MaxPool", kernel_shape=[2], dilations=[1 << 30], pads=[1 << 30] * 2), LINE, "the table of its windows would be absurdly large"),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_little_that_takes_long(name, monkeypatch):
    """What runs while a model is planned is refused by its sizes, before it begins."""
    nodes, inputs, trouble = SLOW[name]
    monkeypatch.setattr(importer, "MOST_STEPS", 10_000)
    opset = 8 if "batch" in name else 18
    start = time.perf_counter()
    found = describe(OnnxModel(read(model(nodes, inputs, [info("y", None)], opset_imports=[helper.make_opsetid("", opset)]))), devices=())
    assert time.perf_counter() - start < 10
    assert not found.runs and trouble in found.trouble and nodes[-1].op_type in found.trouble, found.trouble


def test_scanned_initializers_without_elements(monkeypatch):
    monkeypatch.setattr(importer, "MOST_STEPS", 10_000)
    long = TensorProto(name="w", dims=[1 << 40, 0], data_type=TensorProto.FLOAT, raw_data=b"")
    found = describe(OnnxModel(read(model(scan(["w"]), ["x"], [info("y", None)], [long]))), devices=())
    assert not found.runs and "Scan" in found.trouble and "unrolled" in found.trouble


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32 - 1))
def test_changed_files(which, seed):
    survives(mutated(SEEDS[which], Random(seed)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    survives(data)


@pytest.mark.slow
@real_models
def test_changed_real_models(path):
    data, random = path.read_bytes(), Random(0)
    for _ in range(300):
        survives(mutated(data, random))
