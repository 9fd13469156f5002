"""The nodes of an ONNX graph while they are written: names, constants, and the layout that users know.

Inside, images are channels last and every operation that needs that stands between two transposes. A `Writer` does not write transposes:
it remembers for each value which ONNX tensor it is a transpose of, so that a Conv between two transposes is just a Conv on NCHW.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from ..errors import UnsupportedError
from ..graph import Graph, Node, Value
from ..ops.movement import invert

#: The operator set that is written: the first with Gelu, and AveragePool and Resize as PyTorch knows them.
OPSET = 20

Tensor = tuple[str, tuple[int, ...]]  # the name of an ONNX tensor t and a permutation: the value is transpose(t, permutation)


class Writer:
    """The nodes and names of one graph's ONNX twin, as they are written."""

    def __init__(self, graph: Graph, input_names: Sequence[str]) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.states: list[str] = []  # names of the initializers
        self.tensors: dict[Value, Tensor] = {}
        self.needed: set[Node] = set()  # what is written, for the outputs need it
        self.scope = ""  # the module whose nodes are written
        self._counts = Counter[str](input_names)
        self._known: dict[Any, str] = {}  # transposes and constants that are there already
        for value, name in zip(graph.inputs, input_names, strict=True):
            self.give(value, name)

    def is_needed(self, value: Value) -> bool:
        """Whether anything that is written reads `value`."""
        return any(user in self.needed for user in value.users) or any(value is output for output in self.graph.outputs)

    def refuse(self, node: Node, reason: str) -> NoReturn:
        """Raise UnsupportedError."""
        raise UnsupportedError(f"onnx.export: {node.op.name}{f' in {node.scope}' if node.scope else ''}: {reason}")

    # ---- tensors ------------------------------------------------------------------------------------------------------

    def give(self, value: Value, name: str, permutation: Sequence[int] | None = None) -> None:
        """`value` is the ONNX tensor `name`, transposed by `permutation`."""
        self.tensors[value] = name, tuple(range(len(value.shape)) if permutation is None else permutation)

    def give_state(self, value: Value, label: str) -> None:
        """`value` is the initializer `label`."""
        self.states.append(label)
        self._counts[label] += 1
        self.give(value, label)

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

        name = output or self._unused(f"{self.scope}/{op}" if self.scope else op)
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
