"""MobileNetV2 (Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018)."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, Module, ReLU6, Sequential, init
from .initialise import kaiming_fan_out, normal_linear

#: (expansion, channels, blocks, stride of the first) of each stage: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `value`, but at most a tenth below it and at least `divisor`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1) -> Sequential:
    return Sequential(
        Conv2d(in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, groups=groups, bias=False),
        BatchNorm2d(out_channels),
        ReLU6(),
    )


class InvertedResidual(Module):
    """Expand 1 x 1, filter depthwise 3 x 3, project 1 x 1; the input is added where the shapes agree.

    [n,inp,h,w] -> [n,oup,h/stride,w/stride].
    """

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int) -> None:
        if stride not in (1, 2):
            raise ShapeError("InvertedResidual", "stride must be 1 or 2", stride=stride)
        hidden = round(inp * expand_ratio)
        self.use_res_connect = stride == 1 and inp == oup
        self.conv = Sequential(
            *([_conv_bn_relu(inp, hidden, 1)] if expand_ratio != 1 else []),
            _conv_bn_relu(hidden, hidden, 3, stride, groups=hidden),
            Conv2d(hidden, oup, 1, bias=False),
            BatchNorm2d(oup),
        )

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(Sequential):
    """[n,3,224,224] -> [n, num_classes]; every size works. Parameter names and initialisation as torchvision's.

    `width_mult` scales all channels, which stay multiples of `round_nearest`.
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, round_nearest: int = 8, dropout: float = 0.2) -> None:
        with init.skipped():
            channels = make_divisible(32 * width_mult, round_nearest)
            last = make_divisible(1280 * max(1.0, width_mult), round_nearest)
            parts: list[Module] = [_conv_bn_relu(3, channels, stride=2)]
            for expansion, stage_channels, count, stride in STAGES:
                out = make_divisible(stage_channels * width_mult, round_nearest)
                for index in range(count):
                    parts.append(InvertedResidual(channels, out, stride if index == 0 else 1, expansion))
                    channels = out
            parts.append(_conv_bn_relu(channels, last, 1))
            classifier = Sequential(Dropout(dropout), Linear(last, num_classes))
        super().__init__(
            {"features": Sequential(*parts), "avgpool": AdaptiveAvgPool2d((1, 1)), "flatten": Flatten(), "classifier": classifier}
        )
        kaiming_fan_out(self)
        normal_linear(self)


def mobilenet_v2(num_classes: int = 1000, **arguments: Any) -> MobileNetV2:
    """MobileNetV2; 3,504,872 parameters for 1000 classes. Further arguments as :class:`MobileNetV2`'s."""
    return MobileNetV2(num_classes, **arguments)
