"""What an ONNX model needs, told before it runs: operators and what does them on each backend, parameters, arithmetic, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..backends import backend
from ..backends.base import Device, Memory, Program, table
from ..compiler import begin, trace_forward
from ..errors import PyclError, ShapeError
from ..graph import Graph
from ..ops.base import FLOAT
from ..ops.conv import Conv, ConvBackwardInput
from ..ops.matmul import MatMul
from ..passes import canonical, optimised
from ..records import record
from ..trace import tracing
from .importer import CONTROL_OPERATORS
from .model import OnnxModel
from .operators.table import operators
from .reader import NodeFile, ValueInfo, printable

#: What does an operator on a backend.
KERNEL, HOST, FUSED, UNSUPPORTED = "kernel", "host", "fused or folded", "unsupported"


@record
class Description:
    """See the module's docstring. Print it."""

    source: str
    producer: str
    opsets: Mapping[str, int]
    inputs: Sequence[ValueInfo]
    outputs: Sequence[ValueInfo]
    nodes: int
    operators: Mapping[str, int]  # how often each occurs
    support: Mapping[str, Mapping[str, str]]  # device -> operator -> what does it there
    trouble: str  # why the model cannot run, or not as one program; "" where it can
    runs: bool  # whether it can run
    shapes: Sequence[tuple[int, ...]]  # of the inputs, for the figures below
    parameters: int  # elements
    buffers: int
    parameter_bytes: int
    flops: int
    multiply_adds: int
    memory: Mapping[str, Memory]  # of a program, by device

    def __str__(self) -> str:
        opsets = ", ".join(f"{printable(domain) or 'ai.onnx'} {version}" for domain, version in self.opsets.items())
        lines = [f"{self.source}: {self.nodes} nodes, opset {opsets}" + (f", by {printable(self.producer)}" if self.producer else "")]
        for kind, infos in (("input", self.inputs), ("output", self.outputs)):
            lines += [f"{kind:7} {printable(info.name)}: {info.dtype or 'no tensor'} {_shape(info.shape)}" for info in infos]
        rows = [("operator", "count", *self.support)]
        rows += [(printable(name), str(count), *(found.get(name, FUSED) for found in self.support.values())) for name, count in self.operators.items()]
        lines += ["", table(rows), ""]
        if self.memory:
            lines.append(f"for         {', '.join(' x '.join(map(str, shape)) or 'a single number' for shape in self.shapes)}")
        lines.append(f"parameters  {self.parameters:,} ({self.parameter_bytes / 2**20:.2f} MiB)" + (f"; in buffers {self.buffers:,}" if self.buffers else ""))
        if self.memory:
            lines.append(f"arithmetic  {self.flops / 1e6:,.1f} Mflop ({self.multiply_adds / 1e6:,.1f} million multiply-adds)")
        lines += [f"memory      {memory} on {device}" for device, memory in self.memory.items()]
        if self.trouble:
            lines.append(f"{'note' if self.runs else 'cannot run'}: {self.trouble}")
        return "\n".join(lines)


def _shape(shape: Sequence[int | str | None] | None) -> str:
    return "of any shape" if shape is None else f"[{', '.join('?' if n is None else printable(n) if isinstance(n, str) else str(n) for n in shape)}]"


def concrete_shapes(inputs: Sequence[ValueInfo], given: Sequence[tuple[str, tuple[int, ...]]] = ()) -> list[tuple[int, ...]]:
    """Shapes for the inputs: those `given` by name (or one without a name), else the file's, an open first axis of one image.

    Raises ShapeError, which says how to give what is open.
    """
    names = [info.name for info in inputs]
    named = {name or (names[0] if names else ""): shape for name, shape in given}
    if unknown := [name for name in named if name not in names]:
        raise ShapeError("--input-shape", f"there is no such input; there are {', '.join(map(printable, names))}", name=unknown[0])
    shapes = []
    for info in inputs:
        shape = named.get(info.name, info.shape)
        sizes = None if shape is None else [1 if axis == 0 and not isinstance(n, int) else n for axis, n in enumerate(shape)]
        if sizes is None or not all(isinstance(n, int) for n in sizes):
            example = ",".join("1" if axis == 0 else str(n) if isinstance(n, int) else "224" for axis, n in enumerate(info.shape or (None, 3, None, None)))
            raise ShapeError("model", f"the file leaves sizes of the input {printable(info.name)} open: give --input-shape {printable(info.name)}={example}", shape=_shape(info.shape))
        shapes.append(tuple(sizes))
    return shapes  # type: ignore[return-value]


def describe(model: OnnxModel, devices: Iterable[Device], given: Sequence[tuple[str, tuple[int, ...]]] = ()) -> Description:
    """The description of `model` for inputs of the shapes `given` by name; where the file leaves none open they may be left out.

    Raises ShapeError where sizes are open.
    """
    graph = model.file.graph
    nodes = list(every_node(graph.nodes))
    counts = Counter(node.operator for node in nodes)
    support: dict[str, Mapping[str, str]] = {}
    memory: dict[str, Memory] = {}
    shapes: list[tuple[int, ...]] = []
    flops = multiply_adds = 0
    trouble = f"{next(iter(model.unsupported.values()))}: the operator is not supported" if model.unsupported else ""
    runs = not trouble
    devices = list(devices)
    if runs:
        shapes = concrete_shapes(model.inputs, given)
        try:
            traced = _traced(model, shapes)
            flops, multiply_adds = _arithmetic(traced)
            for device in devices:
                plan = backend(device.backend).lower(optimised(canonical(_traced(model, shapes))), device)
                host = {step.node.scope for step in [*plan.setup, *plan.run] if getattr(step.node.algorithm, "name", "") == "numpy"}
                there = {step.node.scope for step in [*plan.setup, *plan.run]}
                support[device.label] = _by_operator(model.nodes, host, there)
                memory[device.label] = Program(plan, device).memory
        except PyclError as error:
            trouble, support, memory = str(error), {}, {}
            runs = "runs in stages" in trouble
    for device in devices:
        support.setdefault(device.label, {name: _expected(model, name) for name in counts})
    parameters = list(model.parameters())
    return Description(
        model.file.source, model.file.producer, model.file.opsets, model.inputs, model.outputs, len(nodes), dict(counts.most_common()), support, trouble, runs, shapes,
        sum(p.size for p in parameters), sum(b.size for b in model.buffers()), sum(p.size for p in parameters) * FLOAT.itemsize, flops, multiply_adds, memory,
    )  # fmt: skip


def every_node(nodes: Iterable[NodeFile]) -> Iterable[NodeFile]:
    """The nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for _, graph in node.graphs():
            yield from every_node(graph.nodes)


def _traced(model: OnnxModel, shapes: Sequence[tuple[int, ...]]) -> Graph:
    tracer = begin(model, False, with_gradients=False)
    with tracing(tracer):
        results = trace_forward(tracer, model, list(zip(shapes, model.example_dtypes(len(shapes)), strict=True)), "NCHW")
    tracer.graph.outputs = [symbol.value for symbol in results]
    return tracer.graph


def _arithmetic(graph: Graph) -> tuple[int, int]:
    """Floating-point operations of the graph, and multiply-adds of its convolutions and matrix products."""
    flops = products = 0
    for node in graph.nodes():
        flops += node.op.flops([value.spec for value in node.inputs], [value.spec for value in node.outputs])
        if isinstance(node.op, Conv | ConvBackwardInput):
            products += node.op.geometry.multiply_adds
        elif isinstance(node.op, MatMul):
            m, n, k = node.op.sizes(node.inputs[0].spec, node.inputs[1].spec)
            products += m * n * k
    return flops, products


def _by_operator(nodes: Iterable[NodeFile], host: set[str], there: set[str]) -> dict[str, str]:
    """What does each operator: the host if it does one of its nodes. What was fused into another step is done by that one's kernel."""
    found: dict[str, str] = {}
    for node in every_node(nodes):
        scope, name = node.name or node.op, node.operator
        if scope in host:
            found[name] = HOST
        elif found.get(name) != HOST:
            found[name] = KERNEL if scope in there else found.get(name, FUSED)
    return found


def _expected(model: OnnxModel, name: str) -> str:
    """What can be said of an operator without a plan."""
    operator = operators().get(name)
    if name in model.unsupported:
        return UNSUPPORTED
    return KERNEL if name in CONTROL_OPERATORS or operator is None or operator.lower is not None else HOST
