"""Pooling layers of the networks, at batch 1, channels last."""

from __future__ import annotations

from typing import Any

from .cases import DEVICES, agree, device, normal


def _modules() -> dict[str, tuple[Any, tuple[int, ...]]]:
    from pycl_cnn import nn

    return {
        "resnet18.maxpool": (nn.MaxPool2d(3, 2, 1), (1, 112, 112, 64)),
        "vgg16.pool1": (nn.MaxPool2d(2), (1, 224, 224, 64)),
        "average 3x3": (nn.AvgPool2d(3, 2, 1), (1, 56, 56, 64)),
        "mobilenet_v2.avgpool": (nn.AdaptiveAvgPool2d(1), (1, 7, 7, 1280)),
    }


class Pool:
    """Every pooling is checked on a corner of its input against the reference."""

    params = (DEVICES, ("resnet18.maxpool", "vgg16.pool1", "average 3x3", "mobilenet_v2.avgpool"))
    param_names = ("device", "layer")

    def setup(self, where: str, name: str) -> None:
        import pycl_cnn as pc

        target = device(where)
        module, shape = _modules()[name]
        self.x = normal(*shape)
        corner = self.x[:, :9, :9, :8]
        agree(module(corner, device=target, layout="NHWC"), module(corner, device="reference", layout="NHWC"))
        self.program = pc.compile(module, shape, device=target, layout="NHWC")

    def time_forward(self, where: str, name: str) -> None:
        self.program.run(self.x)
