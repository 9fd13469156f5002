"""A kernel call as the algorithms describe it, before buffers exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from ...graph import Graph, Node, Value
from ...records import record
from ...tuning.database import Choice
from ...tuning.space import Family, Problem, Variant
from ..base import Algorithm, Device
from .programs import Context, open_context


@record
class At:
    """A place `offset` floats into a value or, without a value, into the step's workspace."""

    value: Value | None
    offset: int = 0


@record
class Table:
    """A small array that a kernel reads: offsets of taps, windows, strides."""

    array: np.ndarray


@record
class Zeros:
    """At least `count` zeros, what lies outside an image."""

    count: int


@record
class Call:
    """Kernel `entry` of kernels_cl/<stem>.cl with its arguments by name, its -D parameters and launch sizes."""

    stem: str
    entry: str
    global_size: Sequence[int]
    local_size: Sequence[int] | None  # None: the driver chooses
    arguments: Mapping[str, Any]
    defines: Mapping[str, int] = field(default_factory=dict)


class OpenClAlgorithm(Algorithm):
    """An algorithm of the OpenCL backend: a node becomes kernel calls."""

    def calls(self, node: Node, context: Context) -> list[Call]:
        raise NotImplementedError

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        """The choices that tuning makes for this node, the main one first."""
        return []

    def variant(self, node: Node, context: Context) -> Variant:
        """The choice for the first of `tuned`: what was settled, for weights are packed and workspaces planned by it."""
        choice = node.settled[0] if node.settled else context.tuning.choose(*self.tuned(node, context)[0])
        return choice.variant

    def settle(self, node: Node, device: Device) -> tuple[Choice, ...]:
        context = device_context(device)
        return tuple(context.tuning.choose(*pair) for pair in self.tuned(node, context))

    def why(self, node: Node, device: Device) -> str:
        context = device_context(device)
        return "; ".join([self.reason, *(str(context.tuning.choose(*pair)) for pair in self.tuned(node, context))])


def device_context(device: Device) -> Context:
    """The context of a device; opened once."""
    return open_context(device.index)


__all__ = ["At", "Call", "Context", "Device", "Graph", "Node", "OpenClAlgorithm", "Table", "Value", "Zeros", "device_context"]
