"""Reading ONNX files: what onnx's own package says they hold is what comes out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.onnx_files import TensorProto, helper, info, model, onnx, real_models, relu

import pycl_cnn as pc
from pycl_cnn.onnx.reader import GraphFile, Reference, ValueInfo, read
from pycl_cnn.onnx.tensors import TYPES, element_type

numpy_helper = onnx.numpy_helper


def read_initializer(tensor):
    return read(model([relu()], initializers=[tensor])).graph.initializers[tensor.name]


def test_a_model_as_plain_data():
    node = helper.make_node("Conv", ["x", "w", ""], ["y"], name="first", domain="ai.onnx", kernel_shape=[3, 3], auto_pad="SAME_UPPER", alpha=0.5, axis=-1)
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    proto = model(
        [node, relu("y", "z")],
        [info("x", ["N", None, 4]), info("w", [2, 3])],  # old files list initializers as inputs too
        [info("z", None)],
        [weight],
        producer_name="me",
        producer_version="3",
        opset_imports=[helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("com.example", 2)],
    )
    found = read(proto)
    assert (found.ir_version, found.opsets, found.producer) == (8, {"": 17, "com.example": 2}, "me 3")
    assert found.graph.inputs == (ValueInfo("x", np.dtype(np.float32), ("N", None, 4)),)
    assert found.graph.outputs == (ValueInfo("z", np.dtype(np.float32), None),)
    first, second = found.graph.nodes
    assert (first.name, first.op, first.domain, first.inputs, first.outputs) == ("first", "Conv", "", ("x", "w", ""), ("y",))
    assert dict(first.attributes) == {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER", "alpha": 0.5, "axis": -1}
    assert second.label == "the Relu that gives 'z'" and first.label == "node 'first' (Conv)"
    np.testing.assert_array_equal(found.graph.initializers["w"], [[0, 1, 2], [3, 4, 5]])


def test_every_source_gives_the_same(tmp_path):
    proto = model([relu()])
    data = proto.SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert read(proto) == read(data) == read(bytearray(data)) == read(path) == read(str(path))
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.onnx")


def test_attributes_of_every_kind():
    branch = helper.make_graph([relu("x", "b")], "branch", [], [info("b")])
    array = np.array([1.5, 2.5], np.float32)
    values = {
        "floats": [1.5, -2.0], "ints": [1, -2, 1 << 40, -(1 << 63)], "strings": ["a", "é"], "text": "", "zero": 0, "nought": 0.0,
        "tensor": numpy_helper.from_array(array), "graph": branch, "graphs": [branch, branch], "tensors": [numpy_helper.from_array(array)] * 2,
    }  # fmt: skip
    node = helper.make_node("Anything", ["x"], ["y"], domain="com.example", **values)
    node.attribute.append(helper.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    node.attribute.append(helper.make_attribute("type", helper.make_tensor_type_proto(TensorProto.INT64, [3])))
    found = read(model([node])).graph.nodes[0].attributes
    assert found["floats"] == (1.5, -2.0) and found["ints"] == (1, -2, 1 << 40, -(1 << 63)) and found["strings"] == ("a", "é")
    assert (found["text"], found["zero"], found["nought"], found["none"]) == ("", 0, 0.0, ())
    assert found["type"] == ValueInfo("", np.dtype(np.int64), (3,))
    assert isinstance(found["graph"], GraphFile) and found["graphs"] == (found["graph"],) * 2
    assert found["graph"].nodes[0].outputs == ("b",)
    for tensor in (found["tensor"], *found["tensors"]):
        np.testing.assert_array_equal(tensor, array)


def test_floats_are_the_decimals_that_were_meant():
    node = helper.make_node("Anything", ["x"], ["y"], alpha=0.1, list=[1e-5, 3.0, 1 / 3, float("inf")])
    found = read(model([node])).graph.nodes[0].attributes
    assert found["alpha"] == 0.1 and found["list"] == (1e-5, 3.0, 0.33333334, np.inf)
    assert np.float32(found["list"][2]) == np.float32(1 / 3)


def test_packed_and_unpacked_numbers_are_the_same():
    """Writers may pack repeated numbers whether or not onnx.proto says so."""
    unpacked = helper.make_node("Anything", ["x"], ["y"], ints=[1, 300, -1], floats=[1.5, -2.5]).attribute
    # field 8 (ints), length-delimited: 01, ac 02, ff..01; field 7 (floats)
    packed = [
        b"\x0a\x04ints\xa0\x01\x07\x42\x0d\x01\xac\x02" + b"\xff" * 9 + b"\x01",
        b"\x0a\x06floats\xa0\x01\x06\x3a\x08" + np.array([1.5, -2.5], "<f4").tobytes(),
    ]
    node = helper.make_node("Anything", ["x"], ["y"])
    data = node.SerializeToString() + b"".join(b"\x2a" + bytes([len(item)]) + item for item in packed)
    proto = onnx.NodeProto.FromString(data)
    assert {item.name for item in proto.attribute} == {item.name for item in unpacked}
    graph = b"\x0a" + bytes([len(data)]) + data + onnx.GraphProto(name="g", input=[info("x")], output=[info("y")]).SerializeToString()
    whole = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph
    assert dict(read(whole).graph.nodes[0].attributes) == {"ints": (1, 300, -1), "floats": (1.5, -2.5)}


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("number", sorted(set(TYPES) - {8}), ids=lambda number: TYPES[number][0])
def test_tensors_of_every_type(number, raw):
    name = TYPES[number][0]
    try:
        dtype = element_type(number)
    except pc.FormatError as error:
        pytest.skip(str(error))
    if dtype != helper.tensor_dtype_to_np_dtype(number):
        pytest.skip(f"this onnx has no {name}")
    for shape in [(), (0, 3), (5,), (3, 3), (2, 1, 7)]:
        bits = np.random.default_rng(1).integers(0, 2 ** min(TYPES[number][1], 8), (*shape, dtype.itemsize), np.uint8)
        array = (bits & 1).astype(bool)[..., 0] if name == "bool" else bits.view(dtype)[..., 0]
        if name in ("int4", "int2"):
            array = (bits[..., 0].astype(np.int8) - (1 << TYPES[number][1] - 1)).astype(dtype)
        array = np.ascontiguousarray(array).reshape(shape)
        if raw:
            tensor = numpy_helper.from_array(array, "w")
        else:
            tensor = helper.make_tensor("w", number, shape, array.ravel() if dtype.kind != "c" else array.ravel().tolist())
        found = read_initializer(tensor)
        assert found.dtype == dtype and found.shape == shape and not found.flags.writeable
        assert found.tobytes() == numpy_helper.to_array(tensor).tobytes()  # by their bits: a NaN does not equal itself
        wide = dtype if dtype.kind in "ciub" else np.float64
        np.testing.assert_array_equal(found.astype(wide), array.astype(wide))


def test_texts():
    tensor = helper.make_tensor("w", TensorProto.STRING, [2, 2], ["a", "", "ü", "d"])
    assert read_initializer(tensor).tolist() == [["a", ""], ["ü", "d"]]


def test_long_packed_numbers_cross_the_decoder_s_chunks():
    array = np.random.default_rng(0).integers(-(1 << 62), 1 << 62, 30_001) >> np.random.default_rng(1).integers(0, 62, 30_001)
    np.testing.assert_array_equal(read_initializer(helper.make_tensor("w", TensorProto.INT64, [30_001], array)), array)


def test_raw_data_are_views_of_the_file_s_bytes(tmp_path):
    array = np.arange(100_000, dtype=np.float32)
    data = model([relu()], initializers=[numpy_helper.from_array(array, "w")]).SerializeToString()
    found = read(data).graph.initializers["w"]
    start = found.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data
    assert 0 < start < len(data)
    np.testing.assert_array_equal(found, array)


def test_external_data(tmp_path):
    arrays = {"a": np.arange(300, dtype=np.float32), "b": np.arange(7, dtype=np.int64), "c": np.ones((3, 5), np.float16)}
    proto = model([relu()], initializers=[numpy_helper.from_array(array, name) for name, array in arrays.items()])
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    found = read(tmp_path / "m.onnx").graph.initializers
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(pc.FormatError, match=r"tensor 'a': its data lie in another file, 'm.data': read the model by its path"):
        read((tmp_path / "m.onnx").read_bytes())


def test_functions():
    body = [helper.make_node("LeakyRelu", ["a"], ["b"])]
    body[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("local", "Leaky", ["a"], ["b"], body, [helper.make_opsetid("", 16)], attributes=["slope"])
    proto = model([helper.make_node("Leaky", ["x"], ["y"], domain="local", slope=0.5)], functions=[function])
    found = read(proto).functions["local", "Leaky", ""]
    assert (found.inputs, found.outputs, found.attributes, found.opsets) == (("a",), ("b",), ("slope",), {"": 16})
    assert found.nodes[0].attributes["alpha"] == Reference("slope")


def test_names_in_subgraphs_may_come_from_outside():
    inner = helper.make_graph([helper.make_node("Add", ["x", "h"], ["s"])], "inner", [], [info("s")])
    proto = model([relu("x", "h"), helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], ["x", info("c", [], TensorProto.BOOL)])
    assert sorted(key for key, _ in read(proto).graph.nodes[1].graphs()) == ["else_branch", "then_branch"]


@real_models
def test_real_models_as_onnx_reads_them(path):
    proto, found = onnx.load(path), read(path)
    assert found.opsets == {item.domain: item.version for item in proto.opset_import}
    for theirs, ours in itertools.zip_longest(proto.graph.node, found.graph.nodes):
        assert (theirs.name, theirs.op_type, tuple(theirs.input), tuple(theirs.output)) == (ours.name, ours.op, ours.inputs, ours.outputs)
        assert [item.name for item in theirs.attribute] == list(ours.attributes)
        for attribute in theirs.attribute:
            value, our_value = helper.get_attribute_value(attribute), ours.attributes[attribute.name]
            if isinstance(value, TensorProto):
                np.testing.assert_array_equal(numpy_helper.to_array(value), our_value)
            elif isinstance(value, float):
                assert np.float32(our_value) == np.float32(value)
            else:
                assert our_value == (value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value)
    assert [tensor.name for tensor in proto.graph.initializer] == list(found.graph.initializers)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        assert array.dtype == found.graph.initializers[tensor.name].dtype
        np.testing.assert_array_equal(array, found.graph.initializers[tensor.name])
    shapes = {item.name: len(item.type.tensor_type.shape.dim) for item in proto.graph.input if item.name not in found.graph.initializers}
    assert {item.name: len(item.shape or ()) for item in found.graph.inputs} == shapes


@pytest.mark.parametrize(("number", "name"), [(1, "float_data"), (7, "int64_data"), (11, "double_data"), (6, "int32_data")])
def test_typed_data_that_are_not_packed(number, name):
    values = [1, 2, 300] if number in (6, 7) else [1.5, -2.0, 3.0]
    slot = onnx.TensorProto.DESCRIPTOR.fields_by_name[name].number
    whole = onnx.TensorProto(name="w", dims=[3], data_type=number)
    packed = onnx.TensorProto(**{name: values}).SerializeToString()
    content = packed[2:]
    if number in (6, 7):
        single = b"".join(bytes([slot << 3]) + item for item in (b"\x01", b"\x02", b"\xac\x02"))
    else:
        size = {1: 4, 11: 8}[number]
        single = b"".join(bytes([slot << 3 | (5 if size == 4 else 1)]) + content[i : i + size] for i in range(0, len(content), size))

    def file(data):
        body = whole.SerializeToString() + data
        return b"\x08\x08\x42\x02\x10\x11\x3a" + bytes([len(body) + 2]) + b"\x2a" + bytes([len(body)]) + body

    for data in (packed, single):
        assert read(file(data)).graph.initializers["w"].tolist() == values
    with pytest.raises(pc.FormatError, match="partly packed and partly not"):
        read(file(packed + single))
