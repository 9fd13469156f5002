"""Models as ONNX files: the traced graph, node by node, in the layout and with the names that users know.

Inside, images are channels last and every operation that needs that stands between two transposes. A `Writer` does not write transposes:
it remembers for each value which ONNX tensor it is a transpose of, so that a Conv between two transposes is just a Conv on NCHW. What
each operation is in ONNX stands in `exporter_ops`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from ..compiler import Spec, begin, trace_forward
from ..errors import FormatError, ShapeError, UnsupportedError
from ..formats.weights import replacing
from ..graph import Graph, Node, Value
from ..nn.module import Module
from ..ops.leaf import Constant, Input, State
from ..ops.movement import Transpose, invert
from ..trace import tracing
from .model import OnnxModel

#: The operator set and the file format that are written: the first with Gelu, and AveragePool and Resize as PyTorch knows them.
OPSET, IR_VERSION = 20, 9

#: Protocol buffers end here.
LARGEST_FILE = (1 << 31) - (1 << 20)

#: Name of the batch axis.
BATCH = "N"

Tensor = tuple[str, tuple[int, ...]]  # the name of an ONNX tensor t and a permutation: the value is transpose(t, permutation)


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
    writer = Writer(graph, input_names)
    nodes = writer.write(output_names)
    shapes: dict[str, list[int | str | None]] = {name: list(value.shape) for name, value in zip([*input_names, *output_names], [*graph.inputs, *graph.outputs], strict=True)}
    if dynamic_batch:
        larger = [((shape[0] + 1, *shape[1:]) if shape else (), dtype) for shape, dtype in specs]
        try:
            twin, _, _ = _traced(model, larger)
        except ShapeError as error:
            raise UnsupportedError(f"onnx.export: the model takes no other batch size than that of example_shape; dynamic_batch=False fixes it ({error})") from error
        _free_batch(nodes, Writer(twin, input_names).write(output_names))
        for name, value in zip(shapes, [*twin.inputs, *twin.outputs], strict=True):
            shapes[name] = [n if n == m else (BATCH if axis == 0 else None) for axis, (n, m) in enumerate(zip(shapes[name], value.shape, strict=True))]

    def info(name: str, value: Value) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), shapes[name])

    parameters = dict(model.state_dict())
    initializers = [onnx.numpy_helper.from_array(np.asarray(parameters[name]), name) for name in writer.states]
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


class Writer:
    """Writes the nodes of one graph."""

    def __init__(self, graph: Graph, input_names: Sequence[str]) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.states: list[str] = []  # names of the initializers
        self.tensors: dict[Value, Tensor] = {}
        self._needed: set[Node] = set()
        self._scope = ""
        self._counts = Counter[str](input_names)
        self._known: dict[Any, str] = {}  # transposes and constants that are there already
        for value, name in zip(graph.inputs, input_names, strict=True):
            self.give(value, name)

    def write(self, output_names: Sequence[str]) -> list[Any]:
        """All nodes, the last of which give the outputs."""
        from .exporter_ops import RULES
        from .exporter_patterns import patterns

        found = patterns(self.graph)
        needed = self._needed
        stack = [value.node for value in self.graph.outputs]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(value.node for value in (found[node].inputs if node in found else node.inputs))
        for node in self.graph.nodes():
            if node not in needed or isinstance(node.op, Input):
                continue
            self._scope = node.scope
            if node in found:
                found[node].write(self, node)
            elif isinstance(node.op, State):
                self.states.append(node.op.label)
                self._counts[node.op.label] += 1
                self.give(node.outputs[0], node.op.label)
            elif isinstance(node.op, Constant):
                self.give(node.outputs[0], self.constant(node.op.array))
            elif isinstance(node.op, Transpose):
                name, permutation = self.tensors[node.inputs[0]]
                self.give(node.outputs[0], name, tuple(permutation[axis] for axis in node.op.permutation))
            elif type(node.op) in RULES:
                RULES[type(node.op)](self, node)
            else:
                self.refuse(node, "there is no ONNX operator for it")
        for value, name in zip(self.graph.outputs, output_names, strict=True):
            self._scope = ""
            self.emit("Identity", [self.name(value)], output=name)
        return _without_identities(self.nodes, output_names)

    def is_needed(self, value: Value) -> bool:
        """Whether anything that is written reads `value`."""
        return any(user in self._needed for user in value.users) or any(value is output for output in self.graph.outputs)

    def refuse(self, node: Node, reason: str) -> NoReturn:
        """Raise UnsupportedError."""
        raise UnsupportedError(f"onnx.export: {node.op.name}{f' in {node.scope}' if node.scope else ''}: {reason}")

    # ---- tensors ------------------------------------------------------------------------------------------------------

    def give(self, value: Value, name: str, permutation: Sequence[int] | None = None) -> None:
        """`value` is the ONNX tensor `name`, transposed by `permutation`."""
        self.tensors[value] = name, tuple(range(len(value.shape)) if permutation is None else permutation)

    def tensor(self, value: Value, order: Sequence[int]) -> str:
        """The ONNX tensor that is ``transpose(value, order)``."""
        name, permutation = self.tensors[value]
        needed = tuple(permutation[axis] for axis in order)
        if needed == tuple(range(len(needed))):
            return name
        if (name, needed) not in self._known:
            self._known[name, needed] = self.emit("Transpose", [name], perm=needed)
        return self._known[name, needed]

    def name(self, value: Value) -> str:
        """The ONNX tensor that is `value`."""
        return self.tensor(value, range(len(value.shape)))

    def channels_first(self, value: Value) -> str:
        """[n,h,w,c] as NCHW, [k,r,s,c] as KCRS."""
        return self.tensor(value, (0, 3, 1, 2))

    def give_channels_last(self, value: Value, name: str) -> None:
        """`value` [n,h,w,c] is the ONNX tensor `name` [n,c,h,w]."""
        self.give(value, name, (0, 2, 3, 1))

    def operands(self, node: Node, permutation: tuple[int, ...]) -> list[str]:
        """The inputs z with ``transpose(z, permutation)`` equal to the node's; those of fewer axes, which are broadcast, get axes of 1."""
        names = []
        for value in node.inputs:
            if len(value.shape) == len(permutation):
                names.append(self.tensor(value, invert(permutation)))
                continue
            if permutation == tuple(range(len(permutation))):
                names.append(self.name(value))
                continue
            order = invert(permutation)
            whole = (1,) * (len(permutation) - len(value.shape)) + value.shape
            moved = [axis for axis in order if whole[axis] != 1]
            if moved == sorted(moved):  # only axes of 1 move
                names.append(self.reshape(self.name(value), [whole[axis] for axis in order]))
            else:
                names.append(self.emit("Transpose", [self.reshape(self.name(value), whole)], perm=order))
        return names

    # ---- nodes --------------------------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: Iterable[str], output: str = "", **attributes: Any) -> str:
        """Append a node with one output; its name."""
        return self.emit_several(op, inputs, 1, output, **attributes)[0]

    def emit_several(self, op: str, inputs: Iterable[str], outputs: int, output: str = "", written: Iterable[Any] = (), **attributes: Any) -> list[str]:
        """Append a node, with attributes that are `written` already and others; the names of its outputs."""
        from onnx import helper

        name = output or self._unused(f"{self._scope}/{op}" if self._scope else op)
        names = [name, *(f"{name}:{i}" for i in range(1, outputs))]
        node = helper.make_node(op, list(inputs), names, name=name, **attributes)
        node.attribute.extend(written)
        self.nodes.append(node)
        return names

    def _unused(self, name: str) -> str:
        self._counts[name] += 1
        return name if self._counts[name] == 1 else self._unused(f"{name}_{self._counts[name] - 1}")

    def constant(self, array: Any) -> str:
        """The name of a constant."""
        from onnx import numpy_helper

        array = np.asarray(array)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = self.emit("Constant", [], value=numpy_helper.from_array(array))
        return self._known[key]

    def scalar(self, number: float) -> str:
        """The name of a float32 constant without axes."""
        return self.constant(np.float32(number))

    def integers(self, numbers: Iterable[int]) -> str:
        """The name of an int64 list."""
        return self.constant(np.array([int(n) for n in numbers], np.int64))

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """A reshape; the shape is a constant of its own, since the batch size may have to be freed in it."""
        from onnx import numpy_helper

        wanted = self.emit("Constant", [], value=numpy_helper.from_array(np.array(shape, np.int64)))
        return self.emit("Reshape", [name, wanted], allowzero=int(0 in shape))


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

