"""An operation that NumPy evaluates on the host: for dtypes and meanings that no backend has a kernel for.

A backend runs it between its kernels, as a step of the program like any other, with the copies to the host and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..records import record
from .base import Op, Spec


@record(eq=False)
class OnnxNode:
    """What a host step is in ONNX, so that it can be written there again."""

    op: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[int | np.ndarray | None, ...]  # a place among the step's inputs, a known array, or absent


@record(eq=False)
class HostOp(Op):
    """``function(*arrays)`` gives arrays of the specs `results`."""

    onnx: OnnxNode
    function: Callable[..., Sequence[Any]]
    results: tuple[Spec, ...]

    @property
    def name(self) -> str:
        return self.onnx.op

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        return self.results

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        with np.errstate(all="ignore"):
            outputs = self.function(*inputs)
        return tuple(np.asarray(array, spec.dtype).reshape(spec.shape) for array, spec in zip(outputs, self.results, strict=True))

    def attributes(self) -> str:
        return ""
