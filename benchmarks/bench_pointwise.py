"""Elementwise operations, softmax and batch normalisation in training, as operations on arrays (their plans are cached by shape)."""

from __future__ import annotations

from typing import Any

from .cases import DEVICES, device, like_reference, normal

SHAPE = (8, 64, 56, 56)


def _sum_over_space(x: Any, **where: Any) -> Any:
    import pycl_cnn.functional as F

    return F.sum(x, (2, 3), **where)


def _functions() -> dict[str, tuple[Any, tuple[tuple[int, ...], ...]]]:
    import pycl_cnn.functional as F

    return {
        "relu": (F.relu, (SHAPE,)),
        "gelu": (F.gelu, (SHAPE,)),
        "add": (F.add, (SHAPE, SHAPE)),
        "add a channel": (F.add, (SHAPE, (64, 1, 1))),
        "sum over space": (_sum_over_space, (SHAPE,)),
        "softmax": (F.softmax, ((64, 1000),)),
    }


class Pointwise:
    """1.6 million elements, softmax apart."""

    params = (DEVICES, ("relu", "gelu", "add", "add a channel", "sum over space", "softmax"))
    param_names = ("device", "function")

    def setup(self, where: str, name: str) -> None:
        self.target = device(where)
        self.function, shapes = _functions()[name]
        self.arrays = [normal(*shape, seed=index) for index, shape in enumerate(shapes)]
        like_reference(self.function, self.arrays, self.target)

    def time_run(self, where: str, name: str) -> None:
        self.function(*self.arrays, device=self.target)
