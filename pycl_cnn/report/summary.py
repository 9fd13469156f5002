"""What a model consists of: for every layer its output, parameters, multiply-adds and memory, and the totals.

The model is traced, as for a program, but nothing is computed: the counts are those of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..backends.base import Memory
from ..compiler import Spec, begin, trace_forward
from ..graph import Node
from ..nn.module import Module
from ..nn.parameter import Buffer
from ..ops.base import FLOAT
from ..ops.conv import Conv, ConvBackwardInput
from ..ops.leaf import Constant, Input, State
from ..ops.matmul import MatMul
from ..ops.movement import Reshape, Transpose
from ..passes import canonical, optimised
from ..plan import make_plan, protect
from ..records import record
from ..trace import Call, Symbol, Tracer, tracing


@record
class Row:
    """One layer, or one operation that a module's forward asks for itself."""

    name: str  # the module's dotted name
    kind: str  # the layer's class, or the operation's name
    output_shape: tuple[int, ...]  # as the user sees it: images are NCHW
    parameters: int  # elements; those of a shared one are counted where it is met first
    multiply_adds: int  # of convolutions and matrix products
    output_bytes: int


@record
class Summary:
    """The rows in the order of execution, and the totals. Print it for a table."""

    model: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    buffers: int  # elements of running statistics and the like
    multiply_adds: int
    memory: Memory  # of an inference program, the workspaces of a device's algorithms apart

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters in float32."""
        return self.parameters * FLOAT.itemsize

    @property
    def arena_bytes(self) -> int:
        """Most bytes of intermediate results that are needed at one time."""
        return self.memory.arena

    def __str__(self) -> str:
        head = ("layer", "type", "output shape", "parameters", "multiply-adds", "output KiB")
        body = [
            (
                row.name or self.model,
                row.kind,
                _shape(row.output_shape),
                f"{row.parameters:,}" if row.parameters else "",
                f"{row.multiply_adds:,}" if row.multiply_adds else "",
                f"{row.output_bytes / 2**10:,.1f}",
            )
            for row in self.rows
        ]
        widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
        lines = [_line(row, widths) for row in [head, *body]]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        inputs = ", ".join(map(_shape, self.input_shapes))
        totals = [
            f"{self.model}: {inputs} -> {_shape(self.output_shape)}",
            f"parameters     {self.parameters:,} ({self.parameter_bytes / 2**20:.2f} MiB), trainable {self.trainable:,}; "
            f"in buffers {self.buffers:,}",
            f"multiply-adds  {self.multiply_adds:,} ({_scaled(self.multiply_adds)})",
            f"memory         intermediate results {self.arena_bytes / 2**20:.2f} MiB at most; of an inference program {self.memory}",
        ]
        return "\n".join([lines[0], rule, *lines[1:], rule, *totals])


def summarize(model: Module, input_shape: Sequence[int] | Sequence[Sequence[int]]) -> Summary:
    """Summary of `model` for inputs of `input_shape`, [n, ...] or one shape for each input, in inference mode.

    Counts multiply-adds of convolutions (taps on padding included, as is usual) and matrix products; pooling, batch norm and
    activations have none. Raises ShapeError where the model does not take such inputs.
    """
    several = bool(input_shape) and isinstance(input_shape[0], Sequence)
    shapes: tuple[tuple[int, ...], ...] = tuple(tuple(s) for s in input_shape) if several else (tuple(input_shape),)  # type: ignore
    specs: list[Spec] = list(zip(shapes, model.example_dtypes(len(shapes)), strict=True))
    tracer = begin(model, False, False)
    with tracing(tracer):
        results = trace_forward(tracer, model, specs, "NCHW")
    graph = tracer.graph
    graph.outputs = [symbol.value for symbol in results]
    rows = _rows(tracer)
    protect(optimised(canonical(graph)))
    parameters = list(model.parameters())
    return Summary(
        model=type(model).__name__,
        input_shapes=shapes,
        output_shape=results[0].shape,
        rows=tuple(rows),
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        buffers=sum(b.size for b in model.buffers()),
        multiply_adds=sum(row.multiply_adds for row in rows),
        memory=Memory.of(make_plan(graph, lambda node: 0)),
    )


def _rows(tracer: Tracer) -> list[Row]:
    """A row for each call of a module without parts, and for each operation that a module with parts does itself."""
    nodes = {node.order[1]: node for node in tracer.graph.nodes()}
    called_inside = {id(outer) for before, outer in zip(tracer.calls, tracer.calls[1:], strict=False) if before.first >= outer.first and before.last > outer.first}
    leaves = [call for call in tracer.calls if next(call.module.children(), None) is None and id(call) not in called_inside]
    owners = {serial for call in leaves for serial in range(call.first + 1, call.last + 1)}
    rows = []
    seen: set[int] = set()
    unseen = Input | State | Constant | Reshape | Transpose  # what users do not think of as an operation
    found: list[tuple[float, Call | Node]] = [(call.first + 0.5, call) for call in leaves]
    found += [(serial, node) for serial, node in nodes.items() if serial not in owners and not isinstance(node.op, unseen)]
    modules = {call.name: call.module for call in tracer.calls}
    for _, item in sorted(found, key=lambda entry: entry[0]):
        if isinstance(item, Call):
            inside = [nodes[s] for s in range(item.first + 1, item.last + 1) if s in nodes]
            rows.append(_row(item.name, item.module.kind, _result_shape(item), _new_parameters(item.module, seen), inside))
        else:
            owner = modules[item.scope]
            rows.append(_row(item.scope, item.op.name.lower(), _user_shape(item, nodes), _new_parameters(owner, seen), [item]))
    return rows


def _row(name: str, kind: str, shape: tuple[int, ...], parameters: int, nodes: Sequence[Node]) -> Row:
    return Row(name, kind, shape, parameters, sum(map(_multiply_adds, nodes)), math.prod(shape) * FLOAT.itemsize)


def _multiply_adds(node: Node) -> int:
    op = node.op
    if isinstance(op, Conv | ConvBackwardInput):
        return op.geometry.multiply_adds
    if isinstance(op, MatMul):
        return math.prod(op.sizes(node.inputs[0].spec, node.inputs[1].spec))
    return 0


def _new_parameters(module: Module, seen: set[int]) -> int:
    """Elements of the module's own parameters that were not counted before."""
    own = {id(value): value for _, value in module.own_tensors() if not isinstance(value, Buffer)}
    new = [parameter for key, parameter in own.items() if key not in seen]
    seen.update(own)
    return sum(parameter.size for parameter in new)


def _result_shape(call: Call) -> tuple[int, ...]:
    first = call.result[0] if isinstance(call.result, tuple | list) else call.result
    return first.shape if isinstance(first, Symbol) else ()


def _user_shape(node: Node, nodes: dict[int, Node]) -> tuple[int, ...]:
    """The shape of what an operation gives its caller: behind the transpose to NCHW, which follows at once."""
    y = node.outputs[0]
    after = nodes.get(node.order[1] + 1)
    if after is not None and isinstance(after.op, Transpose) and after.inputs[0] is y and after.op.permutation == (0, 3, 1, 2):
        return after.outputs[0].shape
    return y.shape


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Text to the left, numbers to the right."""
    cells = [cell.ljust(width) if column < 3 else cell.rjust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))]
    return "  ".join(cells).rstrip()


def _scaled(count: int) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return str(count)
