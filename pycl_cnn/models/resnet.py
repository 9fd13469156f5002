"""ResNet (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016).

The bottleneck has its stride in the 3 x 3 convolution, as torchvision has it (known as ResNet V1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential, init
from .initialise import kaiming_fan_out


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, groups=groups, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


class BasicBlock(Module):
    """Two 3 x 3 convolutions around which the input passes: [n,inplanes,h,w] -> [n,planes,h/stride,w/stride]."""

    expansion = 1

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: Module | None = None, groups: int = 1, base_width: int = 64
    ) -> None:
        if groups != 1 or base_width != 64:
            raise ShapeError("BasicBlock", "groups must be 1 and base_width 64", groups=groups, base_width=base_width)
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = BatchNorm2d(planes)
        self.relu = ReLU()
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions around which the input passes: [n,inplanes,h,w] -> [n,4*planes,h/stride,w/stride]."""

    expansion = 4

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: Module | None = None, groups: int = 1, base_width: int = 64
    ) -> None:
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = _conv1x1(inplanes, width)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, groups)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = _conv1x1(width, planes * self.expansion)
        self.bn3 = BatchNorm2d(planes * self.expansion)
        self.relu = ReLU()
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Sequential):
    """[n,3,224,224] -> [n, num_classes]; every size works. Parameter names and initialisation as torchvision's.

    `layers` counts the blocks of the four stages; `groups` and `width_per_group` make a ResNeXt or a wide ResNet of bottlenecks;
    `zero_init_residual` lets every block start as the identity (Goyal et al., 2017).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        if len(layers) != 4:
            raise ShapeError("ResNet", "layers must count the blocks of four stages", layers=tuple(layers))
        with init.skipped():
            stages = {}
            inplanes = 64
            for index, count in enumerate(layers):
                planes = 64 << index
                stages[f"layer{index + 1}"] = self._stage(block, inplanes, planes, count, 1 if index == 0 else 2, groups, width_per_group)
                inplanes = planes * block.expansion
            stem = Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        super().__init__(
            {
                "conv1": stem,
                "bn1": BatchNorm2d(64),
                "relu": ReLU(),
                "maxpool": MaxPool2d(kernel_size=3, stride=2, padding=1),
                **stages,
                "avgpool": AdaptiveAvgPool2d((1, 1)),
                "flatten": Flatten(),
                "fc": Linear(inplanes, num_classes),
            }
        )
        kaiming_fan_out(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                    if last.weight is not None:
                        last.weight.data = np.zeros(last.weight.shape)

    @staticmethod
    def _stage(
        block: type[BasicBlock] | type[Bottleneck], inplanes: int, planes: int, count: int, stride: int, groups: int, base_width: int
    ) -> Sequential:
        """`count` blocks; the first has the stride, and a projection where its output's shape differs from its input's."""
        out = planes * block.expansion
        projection = Sequential(_conv1x1(inplanes, out, stride), BatchNorm2d(out)) if stride != 1 or inplanes != out else None
        blocks: list[Module] = [block(inplanes, planes, stride, projection, groups, base_width)]
        blocks += [block(out, planes, groups=groups, base_width=base_width) for _ in range(1, count)]
        return Sequential(*blocks)


def resnet18(num_classes: int = 1000, **arguments: Any) -> ResNet:
    """ResNet-18; 11,689,512 parameters for 1000 classes. Further arguments as :class:`ResNet`'s."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, **arguments)


def resnet50(num_classes: int = 1000, **arguments: Any) -> ResNet:
    """ResNet-50; 25,557,032 parameters for 1000 classes. Further arguments as :class:`ResNet`'s."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, **arguments)
