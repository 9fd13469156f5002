"""Cross entropy with class labels, fused: the softmax is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..records import record
from .base import INT, Op, Spec, floats, require

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


@record
class CrossEntropy(Op):
    """Per row ``-(1-e) log p[label] - e/C sum_c log p[c]`` with p = softmax(logits), e = label_smoothing.

    A row whose label is `ignore_index` gives 0; a label that is no class gives NaN, so that the mistake is seen.
    """

    label_smoothing: float = 0.0
    ignore_index: int = -100

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        logits, labels = inputs
        require(
            len(logits.shape) == 2 and labels.shape == logits.shape[:1] and labels.dtype == INT,
            "cross_entropy",
            "logits must be [rows, classes] and labels int32 [rows]",
            logits=logits.shape,
            labels=labels.shape,
            labels_dtype=labels.dtype.name,
        )
        return (floats(logits.shape[0]),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        logits, labels = node.inputs
        op = CrossEntropyBackward(self.label_smoothing, self.ignore_index)
        return [grads[0] and graph.apply(op, logits, labels, grads[0]), None]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        logits, labels = inputs[0].astype(np.float64), inputs[1]
        log_p = logits - logits.max(1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
        classes = logits.shape[1]
        known = (labels >= 0) & (labels < classes)
        picked = log_p[np.arange(len(labels)), np.where(known, labels, 0)]
        loss = -(1 - self.label_smoothing) * picked - self.label_smoothing * log_p.mean(1)
        return (np.where(labels == self.ignore_index, 0.0, np.where(known, loss, np.nan)),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 4 * inputs[0].size


@record
class CrossEntropyBackward(Op):
    """``dloss * (softmax(logits) - (1-e) onehot(label) - e/C)``; zero for ignored rows and labels that are no class."""

    label_smoothing: float = 0.0
    ignore_index: int = -100

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        logits, labels, dloss = inputs
        require(dloss.shape == labels.shape == logits.shape[:1], "cross_entropy_backward", "one gradient per row", logits=logits.shape, dloss=dloss.shape)
        return (logits,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        logits, labels, dloss = inputs[0].astype(np.float64), inputs[1], inputs[2].astype(np.float64)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        classes = logits.shape[1]
        known = (labels >= 0) & (labels < classes) & (labels != self.ignore_index)
        target = np.full_like(p, self.label_smoothing / classes)
        target[np.arange(len(labels)), np.where(known, labels, 0)] += 1 - self.label_smoothing
        return (np.where(known[:, None], (p - target) * dloss[:, None], 0.0),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 5 * outputs[0].size


@record
class LabelMask(Op):
    """1.0 for every label that counts, 0.0 for `ignore_index`."""

    ignore_index: int = -100

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        require(inputs[0].dtype == INT, "label_mask", "labels must be int32", labels_dtype=inputs[0].dtype.name)
        return (floats(*inputs[0].shape),)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [None]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return ((inputs[0] != self.ignore_index).astype(np.float64),)
