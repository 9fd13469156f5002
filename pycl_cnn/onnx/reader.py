"""ONNX files as plain data: what a model says, checked, with no meaning given to its operators yet.

A model file is hostile until it is read. What comes out of `read` keeps these promises, and everything else is refused with a
FormatError that names the node or tensor and the rule: nodes stand in topological order (so there is no cycle), every name that is read
was given before, no name is given twice, arrays have the elements that their types and dims ask for, subgraphs and calls of
functions are bounded in depth and in number. Reading takes at most `MEMORY_FACTOR` times the file's size and `MEMORY_BASE` bytes.

The format: https://onnx.ai/onnx/repo-docs/IR.html, onnx.proto. Field numbers stand at the fields' names below.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from . import checks
from .checks import MAX_DEPTH, Checks
from .files import Attribute, FunctionFile, GraphFile, ModelFile, NodeFile, Reference, ValueInfo, printable
from .tensors import Folder, Tensors, check_shape, element_type, shown
from .wire import FIXED32, LENGTH, VARINT, Wire, signed, tag

#: The newest version of the file format that is understood.
NEWEST_IR = 14

MAX_TENSORS = 200_000

MEMORY_FACTOR, MEMORY_BASE = 64, 4 << 20


def read(source: Any) -> ModelFile:
    """The model in a file, in bytes, or in an onnx.ModelProto.

    External data are read only for a model that is given by its path, and only from that file's folder.
    Raises FormatError for what is no sound model, with the node or tensor and the rule; FileNotFoundError and other OSErrors.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _Reader(bytes(source), "model in memory", Folder(None)).model()
    if hasattr(source, "SerializeToString"):
        return _Reader(source.SerializeToString(), "ModelProto", Folder(None)).model()
    path = Path(source)
    return _Reader(path.read_bytes(), os.fspath(path), Folder(path.parent)).model()


class _Reader:
    """Reads one file."""

    def __init__(self, data: bytes, source: str, folder: Folder) -> None:
        self.wire = Wire(data, source)
        self.tensors = Tensors(self.wire, folder)
        self.fail = self.wire.fail
        self.node_count = self.tensor_count = 0

    def model(self) -> ModelFile:
        wire, data = self.wire, self.wire.data
        if data.startswith(b"version https://git-lfs"):
            self.fail("this is a pointer of Git LFS, not the model itself: fetch it with `git lfs pull`")
        ir_version, producer, version = 0, "", ""
        opsets: dict[str, int] = {}
        graphs: list[tuple[int, int]] = []
        bodies = []
        for key, first, last in wire.fields(0, len(data)):
            if key == tag(1, VARINT):  # ir_version
                ir_version = signed(first)
            elif key == tag(2, LENGTH):  # producer_name
                producer = wire.text(first, last)
            elif key == tag(3, LENGTH):  # producer_version
                version = wire.text(first, last)
            elif key == tag(7, LENGTH):  # graph
                graphs.append((first, last))
            elif key == tag(8, LENGTH):  # opset_import
                self._opset(first, last, opsets)
            elif key == tag(25, LENGTH):  # functions
                bodies.append((first, last))
        if not 1 <= ir_version <= NEWEST_IR:
            self.fail(f"its ir_version must be 1 to {NEWEST_IR}; received {ir_version}" + ("" if ir_version > 0 else ": this is no ONNX model"))
        if len(graphs) != 1:
            self.fail(f"a model has one graph; received {len(graphs)}")
        if not opsets:
            if ir_version >= 3:
                self.fail("it imports no operator set (opset_import)")
            opsets[""] = 1
        functions: dict[tuple[str, str, str], FunctionFile] = {}
        for first, last in bodies:
            function = self._function(first, last, opsets)
            key_ = (function.domain, function.name, function.overload)
            if key_ in functions:
                self.fail(f"the function {shown(function.name)} is defined twice")
            functions[key_] = function
        graph = self._graph(*graphs[0], 0)
        check = Checks(self.wire, functions)
        for function in functions.values():
            check.function(function)
        check.inputs(graph)
        check.graph(graph, ())
        return ModelFile(ir_version, MappingProxyType(opsets), graph, MappingProxyType(functions), f"{producer} {version}".strip(), wire.source, len(data))

    def _opset(self, start: int, end: int, opsets: dict[str, int]) -> None:
        domain, number = "", 0
        for key, first, last in self.wire.fields(start, end):
            if key == tag(1, LENGTH):
                domain = _domain(self.wire.text(first, last))
            elif key == tag(2, VARINT):
                number = signed(first)
        if not 1 <= number < 1 << 31:
            self.fail(f"the version of the operator set {shown(domain or 'ai.onnx')} must be at least 1; received {number}")
        if opsets.get(domain, number) != number:
            self.fail(f"the operator set {shown(domain or 'ai.onnx')} is imported in two versions, {opsets[domain]} and {number}")
        opsets[domain] = number

    # ---- graphs and functions -----------------------------------------------------------------------------------------

    def _graph(self, start: int, end: int, depth: int) -> GraphFile:
        if depth > MAX_DEPTH:
            self.fail(f"graphs are nested more than {MAX_DEPTH} deep")
        wire = self.wire
        name, nodes, inputs, outputs = "", [], [], []
        initializers: dict[str, np.ndarray] = {}
        for key, first, last in wire.fields(start, end):
            if key == tag(1, LENGTH):  # node
                nodes.append(self._node(first, last, depth))
            elif key == tag(2, LENGTH):  # name
                name = wire.text(first, last)
            elif key == tag(5, LENGTH):  # initializer
                label, array = self._tensor(first, last, "an initializer")
                if not label:
                    self.fail("an initializer has no name")
                if label in initializers:
                    self.fail(f"the initializer {shown(label)} is given twice")
                initializers[label] = array
            elif key == tag(11, LENGTH):  # input
                inputs.append(self._value_info(first, last, "input"))
            elif key == tag(12, LENGTH):  # output
                outputs.append(self._value_info(first, last, "output"))
            elif key == tag(15, LENGTH):  # sparse_initializer
                self.fail("sparse initializers are not supported")
        for kind, infos in (("input", inputs), ("output", outputs)):
            self._unique(f"the {kind}", [info.name for info in infos])
        kept = tuple(info for info in inputs if info.name not in initializers)
        return GraphFile(name, tuple(nodes), MappingProxyType(initializers), kept, tuple(outputs))

    def _function(self, start: int, end: int, opsets: Mapping[str, int]) -> FunctionFile:
        wire = self.wire
        texts: dict[int, list[str]] = {1: [], 4: [], 5: [], 6: [], 10: [], 13: []}  # name, input, output, attribute, domain, overload
        nodes, defaults = [], {}
        own: dict[str, int] = {}
        for key, first, last in wire.fields(start, end):
            if key & 7 == LENGTH and key >> 3 in texts:
                texts[key >> 3].append(wire.text(first, last))
            elif key == tag(7, LENGTH):  # node
                nodes.append(self._node(first, last, 0))
            elif key == tag(9, LENGTH):  # opset_import
                self._opset(first, last, own)
            elif key == tag(11, LENGTH):  # attribute_proto
                label, value = self._attribute(first, last, 0, "a function's attribute")
                defaults[label] = value
        name = "".join(texts[1][-1:])
        if not name:
            self.fail("a function has no name")
        inputs, outputs, attributes = (tuple(texts[number]) for number in (4, 5, 6))
        for kind, names in (("input", inputs), ("output", outputs), ("attribute", (*attributes, *defaults))):
            self._unique(f"function {shown(name)}: the {kind}", names)
        domain, overload = _domain("".join(texts[10][-1:])), "".join(texts[13][-1:])
        return FunctionFile(
            name, domain, overload, inputs, outputs, attributes, MappingProxyType(defaults), tuple(nodes), MappingProxyType(own or dict(opsets))
        )

    def _unique(self, what: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if not name:
                self.fail(f"{what} has no name")
            if name in seen:
                self.fail(f"{what} {shown(name)} is listed twice")
            seen.add(name)

    # ---- nodes and attributes -----------------------------------------------------------------------------------------

    def _node(self, start: int, end: int, depth: int) -> NodeFile:
        self.node_count += 1
        if self.node_count > checks.MAX_NODES:
            self.fail(f"it has more than {checks.MAX_NODES:,} nodes")
        wire = self.wire
        inputs, outputs, attributes = [], [], []
        name = op = domain = overload = ""
        for key, first, last in wire.fields(start, end):
            if key == tag(1, LENGTH):  # input
                inputs.append(wire.text(first, last))
            elif key == tag(2, LENGTH):  # output
                outputs.append(wire.text(first, last))
            elif key == tag(3, LENGTH):  # name
                name = wire.text(first, last)
            elif key == tag(4, LENGTH):  # op_type
                op = wire.text(first, last)
            elif key == tag(5, LENGTH):  # attribute
                attributes.append((first, last))
            elif key == tag(7, LENGTH):  # domain
                domain = _domain(wire.text(first, last))
            elif key == tag(8, LENGTH):  # overload
                overload = wire.text(first, last)
        values: dict[str, Attribute] = {}
        node = NodeFile(name, op, domain, tuple(inputs), tuple(outputs), MappingProxyType(values), overload)
        if not op:
            self.fail(f"node {shown(name)} has no operator (op_type)")
        if not any(outputs):
            self.fail(f"{node.label} has no output")
        for first, last in attributes:
            label, value = self._attribute(first, last, depth, node.label)
            if label in values:
                self.fail(f"{node.label}: the attribute {shown(label)} is given twice")
            values[label] = value
        return node

    def _attribute(self, start: int, end: int, depth: int, owner: str) -> tuple[str, Attribute]:
        wire = self.wire
        name, kind, reference = "", 0, ""
        found: dict[int, list[Any]] = {}
        for key, first, last in wire.fields(start, end):
            number, how = key >> 3, key & 7
            if key == tag(1, LENGTH):
                name = wire.text(first, last)
            elif key == tag(20, VARINT):  # type
                kind = first
            elif key == tag(21, LENGTH):  # ref_attr_name
                reference = wire.text(first, last)
            elif number in _ATTRIBUTE_FIELDS:
                written = _ATTRIBUTE_FIELDS[number]
                if how == written or (number in (7, 8) and how == LENGTH):
                    found.setdefault(number, []).append((how, first, last))
        if not name:
            self.fail(f"{owner}: an attribute has no name")
        owner = f"{owner}: the attribute {shown(name)}"
        if reference:
            return name, Reference(reference)
        if kind == 0:  # files older than the type: the one field that is there tells it
            if len(found) != 1:
                self.fail(f"{owner} has no type and {len(found)} values")
            kind = _KIND_OF_FIELD[next(iter(found))]
        if kind not in _FIELD_OF_KIND:
            self.fail(f"{owner} is of the type {_UNSUPPORTED_KINDS.get(kind, kind)}, which is not supported")
        number = _FIELD_OF_KIND[kind]
        items = found.get(number, [])
        if kind >= 6 and kind not in (11, 13):  # lists
            return name, tuple(value for item in items for value in self._values(number, item, depth, owner))
        values = [value for item in items[-1:] for value in self._values(number, item, depth, owner)]
        if not values:
            if number in (2, 3):
                return name, 0.0 if number == 2 else 0  # proto2 leaves out what is zero when it is written so
            if number == 4:
                return name, ""
            self.fail(f"{owner} has no value")
        return name, values[0]

    def _values(self, number: int, item: tuple[int, int, int], depth: int, owner: str) -> Iterable[Attribute]:
        """The values in one field of an attribute; several where numbers are packed."""
        how, first, last = item
        wire = self.wire
        if number in (2, 7):  # f, floats
            if (last - first) % 4:
                self.fail(f"{owner}: {last - first:,} bytes are no whole number of float32")
            return (wire.float32(place) for place in range(first, last, 4))
        if number in (3, 8):  # i, ints
            return wire.varints(first, last).view(np.int64).tolist() if how == LENGTH else (signed(first),)
        if number in (4, 9):  # s, strings
            return (wire.text(first, last),)
        if number in (5, 10):  # t, tensors
            return (self._tensor(first, last, owner)[1],)
        if number in (6, 11):  # g, graphs
            return (self._graph(first, last, depth + 1),)
        return (self._type(first, last, owner, ""),)  # tp, type_protos

    def _tensor(self, first: int, last: int, owner: str) -> tuple[str, np.ndarray]:
        self.tensor_count += 1
        if self.tensor_count > MAX_TENSORS:
            self.fail(f"it has more than {MAX_TENSORS:,} tensors")
        return self.tensors.read(first, last, owner)

    # ---- types --------------------------------------------------------------------------------------------------------

    def _value_info(self, start: int, end: int, kind: str) -> ValueInfo:
        name, place = "", (0, 0)
        for key, first, last in self.wire.fields(start, end):
            if key == tag(1, LENGTH):
                name = self.wire.text(first, last)
            elif key == tag(2, LENGTH):
                place = first, last
        return self._type(*place, f"the {kind} {shown(name)}", name)

    def _type(self, start: int, end: int, owner: str, name: str) -> ValueInfo:
        wire = self.wire
        for key, first, last in wire.fields(start, end):
            if key != tag(1, LENGTH):  # tensor_type; sequences, maps, optional and opaque values are left to who uses them
                continue
            number, shape = 0, None
            for inner, begin, stop in wire.fields(first, last):
                if inner == tag(1, VARINT):  # elem_type
                    number = begin
                elif inner == tag(2, LENGTH):  # shape
                    shape = self._shape(begin, stop, owner)
            try:
                return ValueInfo(name, element_type(number) if number else None, shape)
            except ValueError as error:
                self.fail(f"{owner}: {error}")
        return ValueInfo(name, None, None)

    def _shape(self, start: int, end: int, owner: str) -> tuple[int | str | None, ...]:
        shape: list[int | str | None] = []
        for key, first, last in self.wire.fields(start, end):
            if key != tag(1, LENGTH):  # dim
                continue
            length: int | str | None = None
            for inner, begin, stop in self.wire.fields(first, last):
                if inner == tag(1, VARINT):  # dim_value; exporters write -1 for what they do not know
                    length = signed(begin) if signed(begin) != -1 else None
                elif inner == tag(2, LENGTH):  # dim_param
                    length = self.wire.text(begin, stop) or None
            shape.append(length)
        try:
            check_shape([length for length in shape if isinstance(length, int)])
        except ValueError as error:
            self.fail(f"{owner}: {error}")
        return tuple(shape)


#: The fields of an attribute that hold its value (f, i, s, t, g, floats, ints, strings, tensors, graphs, tp, type_protos, sparse ...)
_ATTRIBUTE_FIELDS = {2: FIXED32, 3: VARINT, 7: FIXED32, 8: VARINT, **dict.fromkeys((4, 5, 6, 9, 10, 11, 14, 15, 22, 23), LENGTH)}
_FIELD_OF_KIND = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 13: 14, 14: 15}
_UNSUPPORTED_KINDS = {11: "SPARSE_TENSOR", 12: "SPARSE_TENSORS"}
_KIND_OF_FIELD = {number: kind for kind, number in _FIELD_OF_KIND.items()} | {22: 11, 23: 12}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name

__all__ = ["FunctionFile", "GraphFile", "ModelFile", "NodeFile", "Reference", "ValueInfo", "printable", "read"]
