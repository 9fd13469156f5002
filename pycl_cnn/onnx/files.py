"""What an ONNX file says, as plain data: models, graphs, nodes, functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

import numpy as np

from ..records import record
from .tensors import shown

Attribute = Any  # float, int, str, np.ndarray, GraphFile, ValueInfo (a type), Reference, or a tuple of those


@record
class ValueInfo:
    """Name, element type and shape of an input or output; None: not told, or no tensor. A text in the shape is a symbol."""

    name: str
    dtype: np.dtype | None
    shape: tuple[int | str | None, ...] | None


@record
class Reference:
    """In a function's body: the value of the attribute `name` of the node that calls it."""

    name: str


@record
class NodeFile:
    """One node. An input or output "" is absent."""

    name: str
    op: str
    domain: str  # "" is ONNX's own
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    overload: str = ""

    @property
    def operator(self) -> str:
        """The operator, with its domain if that is not ONNX's own."""
        return f"{self.domain}::{self.op}" if self.domain else self.op

    @property
    def label(self) -> str:
        """The node for people."""
        operator = printable(self.operator)
        return f"node {shown(self.name)} ({operator})" if self.name else f"the {operator} that gives {shown(''.join(self.outputs[:1]))}"

    def graphs(self) -> Iterable[tuple[str, GraphFile]]:
        """The subgraphs among the attributes, with the attributes' names."""
        for key, value in self.attributes.items():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, GraphFile):
                    yield key, item


@record
class GraphFile:
    """Nodes in topological order; the inputs without those that are initializers."""

    name: str
    nodes: tuple[NodeFile, ...]
    initializers: Mapping[str, np.ndarray]  # read-only, may be unaligned views of the file's bytes
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]


@record
class FunctionFile:
    """A function that the model brings along: nodes that stand for one node."""

    name: str
    domain: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]  # names of those that a caller must give
    defaults: Mapping[str, Attribute]
    nodes: tuple[NodeFile, ...]
    opsets: Mapping[str, int]


@record
class ModelFile:
    """A whole model."""

    ir_version: int
    opsets: Mapping[str, int]  # domain -> version; "" is ONNX's own
    graph: GraphFile
    functions: Mapping[tuple[str, str, str], FunctionFile]  # (domain, name, overload)
    producer: str
    source: str = field(default="", compare=False)  # the file's name, for errors
    nbytes: int = field(default=0, compare=False)  # the file's size


def printable(text: str) -> str:
    """A name out of a file without control characters."""
    return shown(text)[1:-1]
