"""The networks in plain PyTorch, with torchvision's parameter names (U-Net: milesial/Pytorch-UNet's)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn


def lenet5() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, 10),
        )
    )


class Residual(nn.Module):
    """A block of ResNet: convolutions with batch norm, each but the last with ReLU, and the way around them."""

    def __init__(self, channels: int, width: int, out: int, stride: int) -> None:
        super().__init__()
        # (kernel, channels, stride) of the basic block, or of the bottleneck with its stride in the 3 x 3
        plan = [(3, width, stride), (3, out, 1)] if out == width else [(1, width, 1), (3, width, stride), (1, out, 1)]
        self.count = len(plan)
        inputs = channels
        for number, (kernel, outputs, step) in enumerate(plan, 1):
            self.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            inputs = outputs
        around = stride != 1 or channels != out
        self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if around else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            if number < self.count:
                y = torch.relu(y)
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def _resnet(blocks: tuple[int, ...], expansion: int) -> nn.Module:
    parts: dict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False), bn1=nn.BatchNorm2d(64), relu=nn.ReLU(), maxpool=nn.MaxPool2d(3, 2, 1)
    )
    channels = 64
    for stage, count in enumerate(blocks):
        width, layers = 64 << stage, []
        for index in range(count):
            layers.append(Residual(channels, width, width * expansion, 2 if stage and not index else 1))
            channels = width * expansion
        parts[f"layer{stage + 1}"] = nn.Sequential(*layers)
    return nn.Sequential(OrderedDict(parts, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, 1000)))


def resnet18() -> nn.Module:
    return _resnet((2, 2, 2, 2), 1)


def resnet50() -> nn.Module:
    return _resnet((3, 4, 6, 3), 4)


def _conv_bn_relu6(channels: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


class InvertedResidual(nn.Module):
    """A block of MobileNetV2: expand, depthwise, project."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.adds = stride == 1 and channels == out
        self.conv = nn.Sequential(
            *([_conv_bn_relu6(channels, hidden, 1)] if expansion != 1 else []),
            _conv_bn_relu6(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


#: (expansion, channels, blocks, stride of the first) of each stage: table 2 of the paper.
MOBILENET_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2() -> nn.Module:
    parts, channels = [_conv_bn_relu6(3, 32, stride=2)], 32
    for expansion, out, count, stride in MOBILENET_STAGES:
        for index in range(count):
            parts.append(InvertedResidual(channels, out, 1 if index else stride, expansion))
            channels = out
    parts.append(_conv_bn_relu6(channels, 1280, 1))
    classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, 1000))
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(*parts), avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=classifier)
    )


def vgg16() -> nn.Module:
    parts: list[nn.Module] = []
    channels = 3
    for out, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            parts += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
        parts.append(nn.MaxPool2d(2))
    # The identities stand where torchvision has dropout.
    classifier = nn.Sequential(
        nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Identity(), nn.Linear(4096, 4096), nn.ReLU(), nn.Identity(), nn.Linear(4096, 1000)
    )
    return nn.Sequential(OrderedDict(features=nn.Sequential(*parts), flatten=nn.Flatten(), classifier=classifier))


class DoubleConv(nn.Module):
    """Twice convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.double_conv(x)


class Down(nn.Module):
    """Halve, then convolve."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(channels, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Double, put behind the encoder's channels, convolve."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, out, 2, 2)
        self.conv = DoubleConv(channels, out)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


class OutConv(nn.Module):
    """Scores of the classes."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class UNet(nn.Module):
    """U-Net with 64 channels at full size, for 2 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = DoubleConv(3, 64)
        for level in range(1, 5):
            self.add_module(f"down{level}", Down(32 << level, 64 << level))
            self.add_module(f"up{level}", Up(2048 >> level, 1024 >> level))
        self.outc = OutConv(64, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        y = self.down4(x4)
        y = self.up1(y, x4)
        y = self.up2(y, x3)
        y = self.up3(y, x2)
        return self.outc(self.up4(y, x1))


BUILD = {
    "lenet5": lenet5,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg16": vgg16,
    "unet": UNet,
}
