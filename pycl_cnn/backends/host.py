"""Steps that run on the host, for every backend: what NumPy evaluates, between the backend's kernels.

Two kinds of node come here: `HostOp`, which is written for NumPy, and movements of elements that are not four bytes long, which is
what kernels move. Nothing is hidden: such a step has the algorithm "numpy" and says in `explain` what is copied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..graph import Node, Value
from ..ops.base import Op
from ..ops.host import HostOp
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

    @staticmethod
    def copies(node: Node) -> str:
        """What such a step costs on a device that is not the host."""
        down, up = (sum(value.nbytes for value in dict.fromkeys(values)) / 1024 for values in (node.inputs, node.outputs))
        return f"copies {down:.1f} KiB to the host, {up:.1f} KiB back"


def evaluate(node: Node, read: Callable[[Value], np.ndarray], write: Callable[[Value, np.ndarray], None]) -> None:
    """Do a node's work: `read` gives its inputs, `write` takes its outputs."""
    results = node.op.reference(*(read(value) for value in node.inputs))
    for value, result in zip(node.outputs, results, strict=True):
        if value.nbytes:
            write(value, np.asarray(result, value.dtype))


HOST_STEP = HostStep()
#: The last choice of every backend that has kernels.
HOST_ALGORITHMS: dict[type[Op], list[Algorithm]] = {op: [HOST_STEP] for op in (HostOp, Transpose, Copy, Expand, Slice, Flip, Pad, Concat)}
