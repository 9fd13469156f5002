"""Small ONNX models for the tests, and where the real ones are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx (the extra `onnx`)")

from onnx import TensorProto, helper  # noqa: E402 - after importorskip

#: Real models, where the folder is there.
MODELS = Path(os.environ.get("PYCL_CNN_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "models"
REAL = sorted(MODELS.glob("*.onnx"))
real_models = pytest.mark.parametrize("path", REAL or [pytest.param(None, marks=pytest.mark.skip(reason=f"no models in {MODELS}"))], ids=lambda path: getattr(path, "stem", "none"))


def info(name: str, shape: Sequence[Any] | None = (2, 3), elem_type: int = TensorProto.FLOAT) -> Any:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, elem_type, shape)


def model(nodes: Sequence[Any], inputs: Sequence[Any] = ("x",), outputs: Sequence[Any] = ("y",), initializers: Sequence[Any] = (), **more: Any) -> Any:
    """A ModelProto of these nodes; inputs and outputs are names or value infos."""
    infos = [[info(item) if isinstance(item, str) else item for item in items] for items in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "g", *infos, list(initializers))
    more.setdefault("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, ir_version=more.pop("ir_version", 8), **more)


def relu(source: str = "x", target: str = "y", **more: Any) -> Any:
    """A Relu node."""
    return helper.make_node("Relu", [source], [target], **more)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of the wire format."""
    length, octets = len(content), bytearray()
    while True:
        octets.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes([*key(number, 2), *octets]) + content


def key(number: int, how: int) -> bytes:
    """What stands before a field's content."""
    value = number << 3 | how
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])


def nested(depth: int) -> Any:
    """A graph within a graph, `depth` times."""
    graph = helper.make_graph([relu("x", "out")], "g", [], [info("out")])
    for level in range(depth):
        node = helper.make_node("If", ["c"], [f"out{level}"], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [info(f"out{level}")])
    return model(graph.node, ["x", info("c", [], TensorProto.BOOL)], [graph.output[0].name])


def calls(chain: int, fan: int) -> Any:
    """Functions f0 ... of which each calls the next `fan` times."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = []
    for level in range(chain):
        op, domain = (f"f{level + 1}", "local") if level + 1 < chain else ("Relu", "")
        body = [helper.make_node(op, ["a"], [f"b{i}"], domain=domain) for i in range(fan)]
        functions.append(helper.make_function("local", f"f{level}", ["a"], ["b0"], body, opsets))
    return model([helper.make_node("f0", ["x"], ["y"], domain="local")], functions=functions, opset_imports=opsets)


#: A sound file.
GOOD = model([relu()]).SerializeToString()
