"""Models as ONNX files: the traced graph, node by node, in the layout and with the names that users know.

What each operation is in ONNX stands in `exporter_ops`, what several of them together are in `exporter_patterns`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compiler import Spec, begin, trace_forward
from ..errors import FormatError, ShapeError, UnsupportedError
from ..formats.weights import replacing
from ..graph import Graph, Value
from ..nn.module import Module
from ..ops.leaf import Constant, Input, State
from ..ops.movement import Transpose
from ..trace import tracing
from .exporter_ops import RULES
from .exporter_patterns import patterns
from .model import OnnxModel
from .writer import OPSET, Writer

#: The file format that is written.
IR_VERSION = 9

#: Protocol buffers end here.
LARGEST_FILE = (1 << 31) - (1 << 20)

#: Name of the batch axis.
BATCH = "N"


def export(
    model: Module, path: str | os.PathLike[str], example_shape: Sequence[int] | Sequence[Sequence[int]], *, dynamic_batch: bool = True
) -> None:
    """Write `model`, as it infers, to the ONNX file `path`.

    `example_shape` is the shape of its input ([n,c,h,w] for images), or one for each; with `dynamic_batch` the file takes any number of
    images, the other sizes are fixed. Parameters are initializers under their state_dict names. Needs the package onnx.
    The file appears under its name when all of it is on the disk. Raises ShapeError; UnsupportedError for an operation that ONNX cannot
    say, and where a size depends on the batch in a way that ONNX cannot say (then dynamic_batch=False helps).
    """
    several = bool(example_shape) and isinstance(example_shape[0], Sequence)
    shapes: list[tuple[int, ...]] = [tuple(shape) for shape in example_shape] if several else [tuple(example_shape)]  # type: ignore[arg-type,union-attr,list-item]
    proto = to_proto(model, list(zip(shapes, model.example_dtypes(len(shapes)), strict=True)), dynamic_batch)
    if proto.ByteSize() > LARGEST_FILE:
        raise UnsupportedError(f"onnx.export: a file of {proto.ByteSize():,} bytes; protocol buffers end at 2 GiB")
    with replacing(path) as beside:
        beside.write_bytes(proto.SerializeToString())


def to_proto(model: Module, specs: Sequence[Spec], dynamic_batch: bool = True) -> Any:
    """The onnx.ModelProto of `model` for inputs of these shapes and dtypes. See :func:`export`."""
    try:
        import onnx
    except ImportError as error:
        raise FormatError('onnx.export needs the package onnx: pip install "pycl_cnn[onnx]"') from error
    from .. import __version__

    graph, input_names, output_names = _traced(model, specs)
    nodes, states = _write(graph, input_names, output_names)
    shapes: dict[str, list[int | str | None]] = {name: list(value.shape) for name, value in zip([*input_names, *output_names], [*graph.inputs, *graph.outputs], strict=True)}
    if dynamic_batch:
        larger = [((shape[0] + 1, *shape[1:]) if shape else (), dtype) for shape, dtype in specs]
        try:
            twin, _, _ = _traced(model, larger)
        except ShapeError as error:
            raise UnsupportedError(f"onnx.export: the model takes no other batch size than that of example_shape; dynamic_batch=False fixes it ({error})") from error
        _free_batch(nodes, _write(twin, input_names, output_names)[0])
        for name, value in zip(shapes, [*twin.inputs, *twin.outputs], strict=True):
            shapes[name] = [n if n == m else (BATCH if axis == 0 else None) for axis, (n, m) in enumerate(zip(shapes[name], value.shape, strict=True))]

    def info(name: str, value: Value) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), shapes[name])

    parameters = dict(model.state_dict())
    initializers = [onnx.numpy_helper.from_array(np.asarray(parameters[name]), name) for name in states]
    inputs = [info(name, value) for name, value in zip(input_names, graph.inputs, strict=True)]
    outputs = [info(name, value) for name, value in zip(output_names, graph.outputs, strict=True)]
    onnx_graph = onnx.helper.make_graph(nodes, type(model).__name__, inputs, outputs, initializers)
    return onnx.helper.make_model(
        onnx_graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="pycl_cnn", producer_version=__version__
    )


def _traced(model: Module, specs: Sequence[Spec]) -> tuple[Graph, list[str], list[str]]:
    """The graph of the forward pass, the names of its inputs and outputs."""
    tracer = begin(model, False, with_gradients=False)
    with tracing(tracer):
        results = trace_forward(tracer, model, specs, "NCHW")
    graph = tracer.graph
    graph.outputs = [result.value for result in results]
    if len(graph.inputs) != len(specs):
        raise UnsupportedError("onnx.export: dropout in training cannot be said in ONNX as it is drawn here")
    if isinstance(model, OnnxModel):  # the names that the model came with
        return graph, [info.name for info in model.inputs], [info.name for info in model.outputs]
    return graph, [f"x{i or ''}" for i in range(len(specs))], [f"y{i or ''}" for i in range(len(results))]


def _free_batch(nodes: Sequence[Any], others: Sequence[Any]) -> None:
    """Let `nodes`, written for one batch size, take any: where `others`, written for another size, differ from them.

    Only the shapes of reshapes may differ, in one place each: -1 stands there then. Raises UnsupportedError.
    """
    import onnx

    for node, other in zip(nodes, others, strict=True):
        if node == other:
            continue
        here, there = (_shape_of_reshape(item, all_nodes) for item, all_nodes in ((node, nodes), (other, others)))
        differing = [i for i, (n, m) in enumerate(zip(here, there, strict=False)) if n != m]
        if len(here) != len(there) or len(differing) != 1:
            raise UnsupportedError(f"onnx.export: {node.name} depends on the batch size in a way that ONNX cannot say; dynamic_batch=False fixes it to that of example_shape")
        here[differing[0]] = -1
        node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array(here, np.int64)))


def _shape_of_reshape(node: Any, nodes: Sequence[Any]) -> list[int]:
    """The constant shape that reshapes alone read; [] for other nodes."""
    from onnx import numpy_helper

    readers = {user.op_type for user in nodes for name in user.input if name == node.output[0]}
    return numpy_helper.to_array(node.attribute[0].t).tolist() if node.op_type == "Constant" and readers == {"Reshape"} else []


def _write(graph: Graph, input_names: Sequence[str], output_names: Sequence[str]) -> tuple[list[Any], list[str]]:
    """The nodes of `graph`, the last of which give the outputs, and the names of its initializers."""
    writer = Writer(graph, input_names)
    found = patterns(graph)
    stack = [value.node for value in graph.outputs]
    while stack:
        node = stack.pop()
        if node not in writer.needed:
            writer.needed.add(node)
            stack.extend(value.node for value in (found[node].inputs if node in found else node.inputs))
    for node in graph.nodes():
        if node not in writer.needed or isinstance(node.op, Input):
            continue
        writer.scope = node.scope
        if node in found:
            found[node].write(writer, node)
        elif isinstance(node.op, State):
            writer.give_state(node.outputs[0], node.op.label)
        elif isinstance(node.op, Constant):
            writer.give(node.outputs[0], writer.constant(node.op.array))
        elif isinstance(node.op, Transpose):
            name, permutation = writer.tensors[node.inputs[0]]
            writer.give(node.outputs[0], name, tuple(permutation[axis] for axis in node.op.permutation))
        elif type(node.op) in RULES:
            RULES[type(node.op)](writer, node)
        else:
            writer.refuse(node, "there is no ONNX operator for it")
    writer.scope = ""
    for value, name in zip(graph.outputs, output_names, strict=True):
        writer.emit("Identity", [writer.name(value)], output=name)
    return _without_identities(writer.nodes, output_names), writer.states


def _without_identities(nodes: list[Any], output_names: Sequence[str]) -> list[Any]:
    """The nodes that give the outputs take their names, where one output alone asks for it; else an Identity stays."""
    givers = {name: node for node in nodes for name in node.output}
    asked = Counter(node.input[0] for node in nodes if node.output[0] in output_names)
    renamed: dict[str, str] = {}
    kept = []
    for node in nodes:
        source = node.input[0] if node.output[0] in output_names else ""
        if source in givers and asked[source] == 1:
            renamed[source] = node.output[0]
        else:
            kept.append(node)
    for node in kept:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    return kept

