"""Steps that run on the host, for every backend, between the backend's kernels.

NumPy evaluates two kinds of node: `HostOp`, which is written for it, and movements of elements that are not four bytes long, which is
what kernels move; and of what depends on weights alone what the device's kernels want packed (`Once`). A node for which a device has no kernel left that is right is done by the CPU backend's kernel. Nothing is hidden: such steps
have the algorithms "numpy" and "cpu", and say in `explain` what is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..graph import Graph, Node, Value
from ..ops.base import Op
from ..ops.host import HostOp
from ..ops.leaf import State
from ..ops.movement import Concat, Copy, Expand, Flip, Pad, Slice, Transpose
from .base import Algorithm, Device
from .strided import MAX_RANK

#: Bytes of an element that kernels move.
WORD = 4


def kernels_move(node: Node) -> bool:
    """Whether the elements that a node moves are as long as kernels take them, along no more axes than these count."""
    values = (*node.inputs, *node.outputs)
    return all(value.dtype.itemsize == WORD and sum(n != 1 for n in value.shape) <= MAX_RANK for value in values)


class HostStep(Algorithm):
    """The operation's own NumPy evaluation, in its own dtypes."""

    name = "numpy"

    def why(self, node: Node, device: Device) -> str:
        cause = "evaluated on the host" if isinstance(node.op, HostOp) else f"no kernel moves {node.inputs[0].dtype} along {len(node.outputs[0].shape)} axes"
        return cause if device.backend == "cpu" else f"{cause}; {self.copies(node)}"

    def runner(self, node: Node) -> Callable[..., Sequence[np.ndarray]]:
        """What gives the node's outputs for its inputs."""
        return node.op.reference

    def copies(self, node: Node) -> str:
        """What such a step costs on a device that is not the host."""
        down, up = (sum(value.nbytes for value in dict.fromkeys(values)) / 1024 for values in (node.inputs, node.outputs))
        return f"copies {down:.1f} KiB to the host, {up:.1f} KiB back"


def is_fixed(value: Value) -> bool:
    """Whether it is a state that no run updates."""
    return isinstance(value.op, State) and value.op.fixed


class Once(HostStep):
    """What depends on a fixed state alone, by NumPy when weights are loaded: no kernel is compiled for it. The operation has a method `once`."""

    name = "numpy, once"
    once = True

    def supports(self, node: Node, device: Device) -> bool:
        return is_fixed(node.inputs[0])

    def why(self, node: Node, device: Device) -> str:
        return "depends on weights alone"

    def runner(self, node: Node) -> Callable[..., Sequence[np.ndarray]]:
        return lambda array: (node.op.once(array),)  # type: ignore[attr-defined]


class NativeStep(HostStep):
    """The CPU backend's kernel for the operation, as a program of its own."""

    name = "cpu"

    def runner(self, node: Node) -> Callable[..., Sequence[np.ndarray]]:
        from . import backend

        native = backend("cpu")
        program = native.compile(_alone(node), native.devices()[0], {}, precision="exact")  # which "fast" may have as well

        def run(*arrays: np.ndarray) -> Sequence[np.ndarray]:
            results = program.run(*arrays)
            return results if isinstance(results, tuple) else (results,)

        return run


def last_resort(node: Node) -> HostStep:
    """Who does a node that a device has no kernel for: the CPU backend where it has one, else NumPy."""
    from . import backend

    native = backend("cpu")
    algorithm = next(native.candidates(_alone(node).outputs[0].node, native.devices()[0], {}), None)
    return HOST_STEP if algorithm is None or isinstance(algorithm, HostStep) else NATIVE_STEP


def _alone(node: Node) -> Graph:
    """A graph of this node alone, which takes its inputs one by one."""
    graph = Graph()
    graph.outputs = list(graph.add(node.op, *(graph.input(f"x{place}", value.shape, value.dtype) for place, value in enumerate(node.inputs))))
    return graph


def evaluate(run: Callable[..., Sequence[np.ndarray]], node: Node, read: Callable[[Value], np.ndarray], write: Callable[[Value, np.ndarray], None]) -> None:
    """Do a node's work by its runner: `read` gives its inputs, `write` takes its outputs."""
    results = run(*(read(value) for value in node.inputs))
    for value, result in zip(node.outputs, results, strict=True):
        if value.nbytes:
            write(value, np.asarray(result, value.dtype))


HOST_STEP, NATIVE_STEP, ONCE = HostStep(), NativeStep(), Once()
#: The last choice of every backend that has kernels.
HOST_ALGORITHMS: dict[type[Op], list[Algorithm]] = {op: [HOST_STEP] for op in (HostOp, Transpose, Copy, Expand, Slice, Flip, Pad, Concat)}
