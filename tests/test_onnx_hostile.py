"""Files that lie: every rule of the reader, a malformed file for each."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from helpers.onnx_files import GOOD, TensorProto, calls, field, helper, info, key, model, nested, onnx, relu

import pycl_cnn as pc
from pycl_cnn.onnx import checks, reader, wire
from pycl_cnn.onnx.reader import read

AttributeProto = onnx.AttributeProto


def refused(source, *fragments):
    """`read` refuses the file with one error that says all of these."""
    with pytest.raises(pc.FormatError) as caught:
        read(source)
    message = str(caught.value)
    assert message.startswith("onnx: ")
    for fragment in fragments:
        assert fragment in message
    return message


# ---- the wire ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fragments"),
    [
        (b"", ["ir_version must be 1 to", "received 0: this is no ONNX model"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["pointer of Git LFS", "git lfs pull"]),
        (b"PK\x03\x04 a zip file of some length", ["no ONNX model"]),
        (b"\x00\x00", ["number 0"]),
        (GOOD + b"\x0b", ["unknown kind 3"]),
        (GOOD + b"\x0e", ["unknown kind 6"]),
        (GOOD[:-1], ["is cut short or damaged"]),
        (GOOD + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ["a field of 18,446,744,073,709,551,615 bytes", "goes beyond its message"]),
        (GOOD + b"\x08" + b"\xff" * 11, ["does not end"]),
        (GOOD + b"\x08\xff", ["does not end"]),
        (GOOD + b"\x3a", ["does not end"]),
        (GOOD + b"\x09\x01\x02", ["goes beyond its message"]),
        (GOOD + b"\x0d\x01\x02", ["goes beyond its message"]),
    ],
)
def test_damaged_bytes(data, fragments):
    refused(data, *fragments)


def test_every_prefix_of_a_model_is_refused():
    for length in range(len(GOOD)):
        refused(GOOD[:length])


def test_unknown_fields_are_passed_over():
    odd = key(999, 0) + b"\x05" + key(1000, 1) + b"\0" * 8 + key(1001, 5) + b"\0" * 4 + field(1002, b"later")
    assert read(GOOD + odd) == read(GOOD)


def test_too_many_fields(monkeypatch):
    monkeypatch.setattr(wire, "MAX_FIELDS", 1000)
    refused(GOOD + key(999, 0) + b"\x05" + (key(999, 0) + b"\x05") * 1000, "more than 1,000 fields")


# ---- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (lambda m: setattr(m, "ir_version", 99), ["ir_version must be 1 to", "received 99"]),
        (lambda m: setattr(m, "ir_version", -1), ["received -1"]),
        (lambda m: m.ClearField("graph"), ["a model has one graph; received 0"]),
        (lambda m: m.ClearField("opset_import"), ["imports no operator set"]),
        (lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 9)), ["'ai.onnx' is imported in two versions, 17 and 9"]),
        (lambda m: setattr(m.opset_import[0], "version", 0), ["the version of the operator set 'ai.onnx' must be at least 1; received 0"]),
        (lambda m: setattr(m.opset_import[0], "version", -5), ["received -5"]),
        (lambda m: setattr(m.graph.node[0], "op_type", ""), ["has no operator"]),
        (lambda m: m.graph.node[0].ClearField("output"), ["Relu", "has no output"]),
        (lambda m: m.graph.node.append(relu("y", "y")), ["the Relu that gives 'y': the name 'y' is given a second time"]),
        (lambda m: m.graph.node.append(relu("x", "y")), ["the name 'y' is given a second time"]),
        (lambda m: m.graph.node.append(relu("x", "x")), ["the name 'x' is given a second time"]),
        (lambda m: m.graph.node.append(relu("nowhere", "z", name="n")), ["node 'n' (Relu) reads 'nowhere', which nothing gives"]),
        (lambda m: m.graph.node.append(relu("z", "z")), ["reads its own output 'z': a cycle"]),
        (lambda m: m.graph.node.extend([relu("b", "a"), relu("a", "b")]), ["gives 'a' reads 'b' before the Relu that gives 'b'", "topological order, without a cycle"]),
        (lambda m: m.graph.input.append(info("x")), ["the input 'x' is listed twice"]),
        (lambda m: m.graph.output.append(info("y")), ["the output 'y' is listed twice"]),
        (lambda m: m.graph.output.append(info("z")), ["nothing gives the output 'z'"]),
        (lambda m: m.graph.input.append(info("")), ["the input has no name"]),
        (lambda m: m.graph.input.append(info("i", [1], 77)), ["the input 'i': 77 is no element type of ONNX"]),
        (lambda m: m.graph.input.append(info("i", [1], 0)), ["the input 'i' has no element type"]),
        (lambda m: m.graph.input.append(info("i", [-2])), ["the input 'i'", "lengths of at least 0", "[-2]"]),
        (lambda m: m.graph.input.append(info("i", [1 << 41])), ["the input 'i'", "at most 2**40"]),
        (lambda m: m.graph.input.append(info("i", [1 << 30, 1 << 30])), ["the input 'i'", "at most 2**40 elements"]),
        (lambda m: m.graph.input.append(info("i", [1] * 33)), ["the input 'i'", "more than 32 axes"]),
        (lambda m: m.graph.sparse_initializer.add(), ["sparse initializers are not supported"]),
    ],
)
def test_unsound_models(change, fragments):
    proto = onnx.ModelProto.FromString(GOOD)
    change(proto)
    refused(proto, *fragments)


def test_a_model_with_two_graphs():
    graph = model([relu()]).graph.SerializeToString()
    refused(GOOD + field(7, graph), "a model has one graph; received 2")


@pytest.mark.parametrize(
    ("attribute", "fragments"),
    [
        (AttributeProto(type=AttributeProto.INT, i=1), ["an attribute has no name"]),
        (AttributeProto(name="a"), ["the attribute 'a' has no type and 0 values"]),
        (AttributeProto(name="a", i=1, f=2), ["the attribute 'a' has no type and 2 values"]),
        (AttributeProto(name="a", type=AttributeProto.TENSOR), ["the attribute 'a' has no value"]),
        (AttributeProto(name="a", type=AttributeProto.SPARSE_TENSOR), ["type SPARSE_TENSOR, which is not supported"]),
        (AttributeProto(name="a", ref_attr_name="b", type=AttributeProto.INT), ["refers to 'b', which is no attribute of a function around it"]),
    ],
)
def test_unsound_attributes(attribute, fragments):
    node = relu(name="n")
    node.attribute.append(attribute)
    refused(model([node]), "node 'n' (Relu)", *fragments)


def test_an_attribute_type_that_there_is_not():
    """onnx's own classes would not write it."""
    attribute = field(1, b"a") + key(20, 0) + b"\x63"
    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu") + field(5, attribute)
    refused(GOOD.replace(GOOD, b"\x08\x08" + field(8, b"\x10\x11") + field(7, field(1, node))), "the attribute 'a' is of the type 99, which is not supported")


def test_the_same_attribute_twice():
    node = relu(name="n")
    node.attribute.extend([helper.make_attribute("a", 1), helper.make_attribute("a", 2)])
    refused(model([node]), "node 'n' (Relu): the attribute 'a' is given twice")


def test_names_are_shown_without_control_characters():
    message = refused(model([relu("\x1b[2J" + "long" * 100, "z")], outputs=["z"]), "which nothing gives")
    assert "\x1b" not in message and len(message) < 300


# ---- bounds ------------------------------------------------------------------------------------------------------------


def test_too_many_nodes(monkeypatch):
    monkeypatch.setattr(checks, "MAX_NODES", 10)
    chain = [relu(f"v{i}", f"v{i + 1}") for i in range(11)]
    read(model(chain[:10], ["v0"], ["v10"]))
    refused(model(chain, ["v0"], ["v11"]), "more than 10 nodes")


def test_too_many_tensors(monkeypatch):
    monkeypatch.setattr(reader, "MAX_TENSORS", 10)
    refused(model([relu()], initializers=[helper.make_tensor(f"w{i}", TensorProto.FLOAT, [], [0]) for i in range(11)]), "more than 10 tensors")


def test_graphs_within_graphs():
    read(nested(checks.MAX_DEPTH))
    refused(nested(checks.MAX_DEPTH + 1), "graphs are nested more than 16 deep")
    graph = b""
    for _ in range(2000):  # deeper than Python's stack
        graph = field(1, field(4, b"If") + field(2, b"y") + field(5, field(1, b"a") + field(6, graph)))
    refused(b"\x08\x08" + field(8, b"\x10\x11") + field(7, graph), "graphs are nested more than 16 deep")


def test_functions_that_call_functions():
    read(calls(16, 1))
    read(calls(5, 8))
    for chain in (17, 18, 2000):
        proto = calls(chain, 1)
        refused(proto, "functions call functions more than 16 deep")
        functions = list(proto.functions)
        del proto.functions[:]
        proto.functions.extend(functions[::-1])
        refused(proto, "functions call functions more than 16 deep")
    start = time.perf_counter()
    refused(calls(16, 50), "with the functions that are called there are more than 200,000 nodes")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (lambda f: setattr(f[0].node[0], "op_type", "f0"), ["the function 'f0' calls itself"]),
        (lambda f: setattr(f[1].node[0], "op_type", "f0"), ["calls itself"]),
        (lambda f: f.append(f[0]), ["the function 'f0' is defined twice"]),
        (lambda f: setattr(f[0], "name", ""), ["a function has no name"]),
        (lambda f: f[0].input.append("a"), ["function 'f0': the input 'a' is listed twice"]),
        (lambda f: f[0].output.append("q"), ["function 'f0': nothing gives the output 'q'"]),
        (lambda f: f[0].node[0].input.append("q"), ["function 'f0': the local::f1 that gives 'b0' reads 'q', which nothing gives"]),
    ],
)
def test_unsound_functions(change, fragments):
    proto = calls(3, 1)
    for function in proto.functions:
        function.node[0].domain = "local"
    proto.functions[2].node[0].domain = ""
    change(proto.functions)
    refused(proto, *fragments)


# ---- tensors -----------------------------------------------------------------------------------------------------------


def tensor(dims=(2,), data_type=TensorProto.FLOAT, **more):
    return TensorProto(name="w", dims=dims, data_type=data_type, **more)


@pytest.mark.parametrize(
    ("proto", "fragments"),
    [
        (tensor(raw_data=b"\0" * 7), ["2 elements of type float32 need 8 bytes, its raw data are 7"]),
        (tensor(raw_data=b"\0" * 12), ["need 8 bytes, its raw data are 12"]),
        (tensor(), ["2 elements of type float32 need 2 entries of data, it has 0"]),
        (tensor(float_data=[1]), ["need 2 entries of data, it has 1"]),
        (tensor(float_data=[1, 2, 3]), ["need 2 entries of data, it has 3"]),
        (tensor(int32_data=[1, 2]), ["need 2 entries of data, it has 0"]),  # in the field of another type
        (tensor([-1], raw_data=b""), ["its shape must have lengths of at least 0", "[-1]"]),
        (tensor([1 << 62], raw_data=b"1234"), ["at most 2**40 elements"]),
        (tensor([1 << 32, 1 << 32], raw_data=b"1234"), ["at most 2**40 elements"]),
        (tensor([1 << 33, 1 << 33, 0]), ["at most 2**40 elements"]),  # no element, but NumPy would count the others
        (tensor([1 << 39], raw_data=b"1234"), ["549,755,813,888 elements of type float32 need 2,199,023,255,552 bytes, its raw data are 4"]),
        (tensor([1] * 33, raw_data=b"1234"), ["more than 32 axes"]),
        (tensor([1] * 10_000, raw_data=b"1234"), ["more than 32 axes"]),
        (tensor(data_type=0, raw_data=b""), ["0 is no element type of ONNX"]),
        (tensor(data_type=99, raw_data=b""), ["99 is no element type of ONNX"]),
        (tensor(data_type=-1, raw_data=b""), ["is no element type of ONNX"]),
        (tensor([3], TensorProto.INT4, raw_data=b"\0"), ["3 elements of type int4 need 2 bytes, its raw data are 1"]),
        (tensor([2], TensorProto.COMPLEX64, float_data=[1, 2]), ["2 elements of type complex64 need 4 entries of data, it has 2"]),
        (tensor([2], TensorProto.STRING, string_data=[b"a"]), ["2 texts are needed, it has 1"]),
        (tensor(segment=TensorProto.Segment(begin=0, end=1), raw_data=b"\0" * 8), ["in segments is not supported"]),
    ],
)
def test_unsound_tensors(proto, fragments):
    if proto.data_type == TensorProto.INT4:
        pytest.importorskip("ml_dtypes", reason="int4 needs ml_dtypes")
    message = refused(model([relu()], initializers=[proto]), *fragments)
    assert "tensor 'w'" in message or "an initializer" in message
    node = helper.make_node("Constant", [], ["c"], name="n", value=proto)
    node.attribute[0].t.ClearField("name")
    refused(model([node, relu()]), "node 'n' (Constant): the attribute 'value'", *fragments)


def test_initializers_without_or_with_the_same_name():
    unnamed, named = tensor(float_data=[1, 2]), tensor(float_data=[1, 2])
    unnamed.ClearField("name")
    refused(model([relu()], initializers=[unnamed]), "an initializer has no name")
    refused(model([relu()], initializers=[named, named]), "the initializer 'w' is given twice")


def test_packed_data_that_are_damaged():
    def raw(number, content):
        body = b"\x08\x01" + b"\x10" + bytes([number]) + content + field(8, b"w")
        return b"\x08\x08" + field(8, b"\x10\x11") + field(7, field(5, body))

    refused(raw(1, field(4, b"\0" * 5)), "no whole number of float32")
    refused(raw(7, field(7, b"\xff" * 3)), "does not end")
    refused(raw(7, field(7, b"\xff" * 12 + b"\0")), "more than 10 bytes")


def test_booleans_are_zero_or_one():
    """Other bytes in a boolean array would break NumPy's promises."""
    for more in (dict(raw_data=b"\0\x07"), dict(int32_data=[0, 7])):
        found = read(model([relu()], initializers=[tensor(data_type=TensorProto.BOOL, **more)])).graph.initializers["w"]
        assert found.view(np.uint8).tolist() == [0, 1]


# ---- external data -----------------------------------------------------------------------------------------------------


def external(folder, location="w.data", name="w", dims=(4,), **entries):
    """A model in folder/m.onnx with a tensor whose data are said to be elsewhere; its path."""
    return save(folder, [external_tensor(location, name, dims, **entries)])


def external_tensor(location="w.data", name="w", dims=(4,), **entries):
    proto = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for label, value in {"location": location, **entries}.items():
        proto.external_data.add(key=label, value=str(value))
    return proto


def save(folder, initializers):
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    path.write_bytes(model([relu()], initializers=initializers).SerializeToString())
    return path


@pytest.fixture
def home(tmp_path):
    """A model's folder with 16 bytes of data, a secret beside the folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "w.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "secret").write_bytes(b"s" * 16)
    return folder


def test_external_data_inside_the_folder(home):
    (home / "sub").mkdir()
    os.link(home / "w.data", home / "sub" / "w2.data")
    os.symlink("w.data", home / "link.data")
    for location in ("w.data", "./w.data", "sub/w2.data", "sub\\w2.data", "link.data"):
        found = read(external(home, location))
        np.testing.assert_array_equal(found.graph.initializers["w"], [0, 1, 2, 3])
    np.testing.assert_array_equal(read(external(home, dims=(2,), offset=8, length=8)).graph.initializers["w"], [2, 3])


@pytest.mark.parametrize(
    "location", ["../secret", "sub/../../secret", "/etc/passwd", "..", "", "C:\\secret", "\\\\server\\secret", "..\\secret", "a\0b", "sub\\..\\..\\secret"]
)
def test_external_data_outside_the_folder(home, location):
    message = refused(external(home, location), "tensor 'w'", "must lie in the model's folder")
    assert "\0" not in message


def test_external_data_behind_links(home):
    os.symlink("../secret", home / "out.data")
    os.symlink("..", home / "up")
    refused(external(home, "out.data"), "'out.data' is a link that leads out of it")
    refused(external(home, "up/secret"), "'up/secret' is a link that leads out of it")


def test_external_data_in_what_is_no_file(home):
    (home / "folder").mkdir()
    os.mkfifo(home / "pipe")  # reading it would wait for ever
    os.symlink("loop", home / "loop")
    refused(external(home, "folder"), "'folder' is none")
    refused(external(home, "pipe"), "'pipe' is none")
    refused(external(home, "absent"), "the file 'absent', are not in the model's folder")
    refused(external(home, "loop"), "tensor 'w'")


@pytest.mark.parametrize(
    ("entries", "fragments"),
    [
        (dict(offset=4), ["16 bytes from byte 4 on, do not lie within the 16 bytes of 'w.data'"]),
        (dict(offset=1 << 62), ["do not lie within"]),
        (dict(offset=-4), ["the offset of its external data must be a number of bytes; received '-4'"]),
        (dict(offset="nine"), ["received 'nine'"]),
        (dict(offset="9" * 5000), ["the offset of its external data must be a number"]),
        (dict(length=8), ["need 16 bytes, its external data are said to be 8"]),
        (dict(dims=(1 << 38,)), ["do not lie within the 16 bytes"]),
        (dict(dims=(-1,)), ["lengths of at least 0"]),
    ],
)
def test_external_data_of_another_size(home, entries, fragments):
    refused(external(home, **entries), "tensor 'w'", *fragments)


def test_regions_of_external_data_are_shared_but_do_not_overlap(home):
    same = [external_tensor(name=f"w{i}") for i in range(100)]
    found = list(read(save(home, same)).graph.initializers.values())
    assert all(np.shares_memory(found[0], other) for other in found)
    shifted = [external_tensor(name=f"w{i}", dims=(3,), offset=4 * i) for i in range(2)]
    refused(save(home, shifted), "tensor 'w1'", "need more than its 16 bytes together")
