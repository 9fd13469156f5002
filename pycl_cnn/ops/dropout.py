"""Dropout with a counter-based generator, so that every device draws the same numbers in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..records import record
from .base import Op, Spec, require

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value


def philox4x32(counter: np.ndarray, key: tuple[int, int], rounds: int = 10) -> np.ndarray:
    """Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).

    `counter` is uint32[..., 4]; the result has the same shape.
    """
    mask = np.uint64(0xFFFFFFFF)
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k0, k1 = np.uint64(key[0] & 0xFFFFFFFF), np.uint64(key[1] & 0xFFFFFFFF)
    for _ in range(rounds):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k0, p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & mask, (k1 + np.uint64(0xBB67AE85)) & mask
    return np.stack(c, -1).astype(np.uint32)


@record
class Dropout(Op):
    """``y = x / (1 - p)`` where element i is kept, else 0; its own gradient.

    Inputs x and rng = int32 (seed, step). Element i is kept when ``(word >> 8) / 2**24 >= p``, word ``i % 4`` of Philox with
    key (seed, stream) and counter (i // 4, step, 0, 0).
    """

    p: float
    stream: int
    reuses: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, *inputs: Spec) -> tuple[Spec, ...]:
        require(0 <= self.p < 1, "dropout", "the probability must be at least 0 and below 1", p=self.p)
        return (inputs[0],)

    def gradient(self, graph: Graph, node: Node, grads: Sequence[Value | None]) -> Sequence[Value | None]:
        return [grads[0] and graph.apply(self, grads[0], node.inputs[1]), None]

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, rng = inputs[0].astype(np.float64), inputs[1].astype(np.int64)
        blocks = -(-x.size // 4)
        counter = np.zeros((blocks, 4), np.uint32)
        counter[:, 0] = np.arange(blocks)
        counter[:, 1] = np.uint32(rng[1] & 0xFFFFFFFF)
        words = philox4x32(counter, (int(rng[0]), self.stream)).ravel()[: x.size]
        keep = (words >> np.uint32(8)) * 2.0**-24 >= np.float32(self.p)
        return (np.where(keep.reshape(x.shape), x / (1 - self.p), 0.0),)

    def flops(self, inputs: Sequence[Spec], outputs: Sequence[Spec]) -> int:
        return 20 * outputs[0].size

    def permuted(self, permutation: tuple[int, ...], inputs: Sequence[Value]) -> tuple[Op, tuple[int, ...]] | None:
        # Elements are numbered as they are stored, so only the random draw differs; settle_layout knows when that is allowed.
        return self, permutation
