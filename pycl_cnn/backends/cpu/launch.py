"""A kernel call as the algorithms describe it, before addresses are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph import Graph, Node, Value
from ...records import record
from ..base import Algorithm, Device
from . import _kernels


@record
class At:
    """A place `offset` bytes into a value or, without a value, into the step's workspace."""

    value: Value | None
    offset: int = 0


Buffer = Value | At | None


@record
class Launch:
    """`tasks` tasks of a kernel of src/, with its parameters by name and its buffers in the documented order."""

    kernel: str
    params: bytes
    buffers: Sequence[Buffer]
    tasks: int
    scratch: int = 0  # bytes for each thread
    follows: bool = False  # whether task t needs nothing of the call before but what that one's task t does, and may come at once


def launch(kernel: str, buffers: Sequence[Buffer], **members: Any) -> Launch:
    """A call of a kernel that needs no scratch; its header says how many tasks there are."""
    params = getattr(_kernels, f"{kernel}_params")(**members)
    return Launch(kernel, params, buffers, _kernels.kernel_tasks(kernel, params))


def conv_launch(kernel: str, buffers: Sequence[Buffer], /, **members: Any) -> Launch:
    """A call of a kernel of src/conv.h; its header says how many tasks there are."""
    params = getattr(_kernels, f"{kernel}_params")(**members)
    return Launch(kernel, params, buffers, *_kernels.conv_sizes(kernel, params))


class CpuAlgorithm(Algorithm):
    """An algorithm of the CPU backend: a node becomes kernel calls."""

    def launches(self, node: Node) -> list[Launch]:
        raise NotImplementedError

    def task_rows(self, node: Node) -> tuple[int, int] | None:
        """(rows of an image, rows of a task) of what `node` writes, as rows of channels, where its tasks write whole rows in order, all calls the same ones;
        an image's last task may have fewer. Else None."""
        return None


__all__ = ["At", "Buffer", "CpuAlgorithm", "Device", "Graph", "Launch", "Node", "Value", "conv_launch", "launch"]
