"""What asv's benchmarks share: devices, layer shapes of the networks, and how results are checked before they are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: The names under which results are kept; the second is the first OpenCL device.
DEVICES = ("cpu", "opencl")


def device(name: str) -> Any:
    """The device, or NotImplementedError, by which asv passes a benchmark over, where it is not present."""
    import pycl_cnn as pc

    try:
        return pc.device(name)
    except pc.DeviceError as error:
        raise NotImplementedError(str(error)) from None


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def agree(given: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless two arrays agree within `tolerance` of the largest element."""
    given, expected = np.asarray(given, np.float64), np.asarray(expected, np.float64)
    if given.shape != expected.shape:
        raise AssertionError(f"what is to be timed is wrong: its shape is {given.shape}, not {expected.shape}")
    error, size = np.abs(given - expected).max(initial=0.0), np.abs(expected).max(initial=0.0)
    if not error <= tolerance * max(1.0, size):
        raise AssertionError(f"what is to be timed is wrong by {error}; the largest element is {size}")


@dataclass(frozen=True)
class Layer:
    """A convolution of a network: input [1,c,size,size]."""

    channels: int
    size: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (1, self.size, self.size, self.channels)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.out, self.channels // self.groups, self.kernel, self.kernel)

    def module(self) -> Any:
        from pycl_cnn import nn

        return nn.Conv2d(self.channels, self.out, self.kernel, self.stride, self.padding, groups=self.groups)


CONVOLUTIONS = {
    "lenet5.conv1": Layer(1, 28, 6, 5, padding=2),
    "lenet5.conv2": Layer(6, 14, 16, 5),
    "resnet18.conv1": Layer(3, 224, 64, 7, 2, 3),
    "resnet18.layer1": Layer(64, 56, 64, 3, padding=1),
    "resnet18.layer2.0": Layer(64, 56, 128, 3, 2, 1),
    "resnet18.layer3": Layer(256, 14, 256, 3, padding=1),
    "resnet18.layer4": Layer(512, 7, 512, 3, padding=1),
    "resnet50.layer1.conv1": Layer(256, 56, 64, 1),
    "resnet50.layer3.conv3": Layer(256, 14, 1024, 1),
    "mobilenet_v2.depthwise1": Layer(96, 112, 96, 3, 2, 1, 96),
    "mobilenet_v2.depthwise8": Layer(384, 14, 384, 3, 1, 1, 384),
    "mobilenet_v2.project": Layer(576, 14, 96, 1),
    "vgg16.conv2": Layer(64, 224, 64, 3, padding=1),
    "unet.inc": Layer(64, 256, 64, 3, padding=1),
}


def check_convolution(y: np.ndarray, x: np.ndarray, w: np.ndarray, bias: np.ndarray, layer: Layer, count: int = 32) -> None:
    """Compare some outputs y[1,oh,ow,k] with their sums in float64; x[1,h,w,c], w[k,c/groups,r,s]."""
    generator = np.random.default_rng(0)
    pad = ((0, 0), (layer.padding, layer.padding), (layer.padding, layer.padding), (0, 0))
    padded = np.pad(x.astype(np.float64), pad)[0]
    given, expected = [], []
    inputs, outputs = layer.channels // layer.groups, layer.out // layer.groups
    for _ in range(count):
        row, col, k = (int(generator.integers(n)) for n in y.shape[1:])
        first = k // outputs * inputs
        top, left = row * layer.stride, col * layer.stride
        patch = padded[top : top + layer.kernel, left : left + layer.kernel, first : first + inputs]
        expected.append(np.sum(patch * w[k].transpose(1, 2, 0)) + bias[k])
        given.append(y[0, row, col, k])
    agree(np.array(given), np.array(expected))


def check_adjoint(y_dy: float, x_dx: float, w_dw: float, scale: float) -> None:
    """<conv(x,w), dy> = <x, dx> = <w, dw>, within rounding of `scale`, the product of the lengths."""
    if max(abs(y_dy - x_dx), abs(y_dy - w_dw)) > 1e-4 * scale:
        raise AssertionError(f"gradients are not adjoint: <y,dy> {y_dy}, <x,dx> {x_dx}, <w,dw> {w_dw}")


def inner(a: np.ndarray, b: np.ndarray) -> float:
    """The inner product, in float64."""
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def like_reference(function: Any, arrays: Sequence[np.ndarray], where: Any) -> None:
    """Compare ``function(*arrays)`` on a device with the float64 reference."""
    agree(function(*arrays, device=where), function(*arrays, device="reference"))
