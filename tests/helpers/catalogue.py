"""Every operation once or several times, with arguments that matter: written with PyTorch's names, argument order and defaults.

Each case is a function ``call(F, *arrays)``; `F` is pycl_cnn.functional or, with `like_torch`, PyTorch's own functions. So one
table serves the comparison with the float64 reference, with finite differences and with PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    name: str
    call: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    length: int = 1  # of the longest sum, for the tolerance
    like_torch: bool = True
    smooth: bool = True  # whether finite differences make sense at the arrays

    def __str__(self) -> str:
        return self.name


def array(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def distinct(*shape: int, seed: int = 0) -> np.ndarray:
    """Elements that lie apart from each other and from 0: maxima are unique and kinks far away."""
    size = int(np.prod(shape))
    values = (np.random.default_rng([seed, *shape]).permutation(size) - size // 2 + 0.37) * (4.0 / max(size, 1))
    return values.reshape(shape).astype(np.float32)


def labels(*shape: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(0, classes, shape).astype(np.int32)


def probabilities(*shape: int, seed: int = 0) -> np.ndarray:
    p = np.random.default_rng([seed, *shape]).uniform(0.1, 1.0, shape)
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


IMAGE = array(2, 4, 7, 6)
SIGNAL = array(2, 4, 9)
APART = distinct(2, 3, 7, 6)
MATRIX = array(5, 7)
POSITIVE = array(4, 6, low=0.3, high=3.0)


def _unary(name: str, x: np.ndarray, *args: Any, **kwargs: Any) -> Case:
    text = f"-{x.ndim}d" * name.endswith("softmax") + "".join(f"-{a}" for a in args) + "".join(f"-{k}={v}" for k, v in kwargs.items())
    return Case(name + text, lambda F, x: getattr(F, name)(x, *args, **kwargs), (x,))


CASES = [
    # convolution
    Case("conv2d", lambda F, x, w, b: F.conv2d(x, w, b), (IMAGE, array(5, 4, 3, 3), array(5)), 120),
    Case("conv2d-no-bias", lambda F, x, w: F.conv2d(x, w, None, 2, 1), (IMAGE, array(5, 4, 3, 2)), 120),
    Case("conv2d-attributes", lambda F, x, w, b: F.conv2d(x, w, b, (2, 1), (2, 1), (1, 2), 2), (IMAGE, array(6, 2, 3, 2), array(6)), 120),
    Case("conv2d-same", lambda F, x, w: F.conv2d(x, w, padding="same"), (IMAGE, array(3, 4, 4, 3)), 200),
    Case("conv2d-valid", lambda F, x, w: F.conv2d(x, w, padding="valid"), (IMAGE, array(3, 4, 4, 3)), 200),
    Case("conv2d-1x1", lambda F, x, w, b: F.conv2d(x, w, b), (IMAGE, array(3, 4, 1, 1), array(3)), 90),
    Case("conv2d-depthwise", lambda F, x, w, b: F.conv2d(x, w, b, padding=1, groups=4), (IMAGE, array(4, 1, 3, 3), array(4)), 90),
    Case("conv2d-depthwise-multiplier", lambda F, x, w: F.conv2d(x, w, stride=2, groups=4), (IMAGE, array(8, 1, 3, 3)), 90),
    Case("conv2d-flip", lambda F, x, w: F.conv2d(x, w, padding=1, flip=True), (IMAGE, array(3, 4, 3, 2)), 120, like_torch=False),
    Case("conv2d-asymmetric", lambda F, x, w: F.conv2d(x, w, padding=((2, 0), (0, 1))), (IMAGE, array(3, 4, 3, 2)), 120, like_torch=False),
    Case("conv2d-nhwc", lambda F, x, w: F.conv2d(x, w, stride=2, layout="NHWC"), (array(2, 7, 6, 4), array(3, 4, 3, 2)), 120, like_torch=False),
    Case("conv1d", lambda F, x, w, b: F.conv1d(x, w, b, 2, 1, 2), (SIGNAL, array(5, 4, 3), array(5)), 60),
    Case("conv1d-groups", lambda F, x, w: F.conv1d(x, w, None, 1, "same", 1, 2), (SIGNAL, array(6, 2, 4)), 60),
    Case("conv_transpose2d", lambda F, x, w, b: F.conv_transpose2d(x, w, b), (array(2, 4, 3, 5), array(4, 3, 3, 2), array(3)), 120),
    Case(
        "conv_transpose2d-attributes",
        lambda F, x, w, b: F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2, (2, 1)),
        (array(2, 4, 3, 5), array(4, 3, 3, 2), array(6)),
        300,
    ),
    Case("conv_transpose1d", lambda F, x, w, b: F.conv_transpose1d(x, w, b, 2, 1, 1), (SIGNAL, array(4, 3, 3), array(3)), 90),
    # dense
    Case("linear", lambda F, x, w, b: F.linear(x, w, b), (MATRIX, array(4, 7), array(4)), 20),
    Case("linear-no-bias-3d", lambda F, x, w: F.linear(x, w), (array(2, 5, 7), array(4, 7)), 20),
    Case("matmul", lambda F, a, b: F.matmul(a, b), (MATRIX, array(7, 3)), 20),
    # pooling
    Case("max_pool2d", lambda F, x: F.max_pool2d(x, 2), (APART,)),
    Case("max_pool2d-attributes", lambda F, x: F.max_pool2d(x, (3, 2), (2, 1), (1, 1), (1, 2), True), (APART,), 8),
    Case("max_pool1d", lambda F, x: F.max_pool1d(x, 3, 2, 1), (distinct(2, 3, 9),), 4),
    Case("adaptive_max_pool2d", lambda F, x: F.adaptive_max_pool2d(x, (3, 4)), (APART,), 4),
    Case("avg_pool2d", lambda F, x: F.avg_pool2d(x, 2), (IMAGE,), 8),
    Case("avg_pool2d-attributes", lambda F, x: F.avg_pool2d(x, (3, 2), (2, 3), (1, 0), True, False), (IMAGE,), 16),
    Case("avg_pool2d-ceil-count", lambda F, x: F.avg_pool2d(x, 3, 2, 1, True, True), (IMAGE,), 16),
    Case("avg_pool2d-divisor", lambda F, x: F.avg_pool2d(x, 3, 2, 1, False, True, 5), (IMAGE,), 16),
    Case("avg_pool1d", lambda F, x: F.avg_pool1d(x, 3, 2, 1, True, False), (SIGNAL,), 8),
    Case("lp_pool2d-2", lambda F, x: F.lp_pool2d(x, 2, 3, 2), (IMAGE,), 16),
    Case("lp_pool2d-1", lambda F, x: F.lp_pool2d(x, 1, 2), (IMAGE,), 16),
    Case("lp_pool2d-3-ceil", lambda F, x: F.lp_pool2d(x, 3, 3, 2, True), (array(2, 3, 6, 6, low=0.2),), 16),
    Case("lp_pool1d-1.5", lambda F, x: F.lp_pool1d(x, 1.5, 3), (array(2, 3, 9, low=0.2),), 16),
    Case("adaptive_avg_pool2d", lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)), (IMAGE,), 16),
    Case("adaptive_avg_pool2d-global", lambda F, x: F.adaptive_avg_pool2d(x, 1), (IMAGE,), 42),
    Case("adaptive_avg_pool2d-keep", lambda F, x: F.adaptive_avg_pool2d(x, (None, 2)), (IMAGE,), 16),
    Case("adaptive_avg_pool1d", lambda F, x: F.adaptive_avg_pool1d(x, 4), (SIGNAL,), 8),
    # interpolation
    Case("interpolate-nearest", lambda F, x: F.interpolate(x, (10, 9)), (IMAGE,), 8),
    Case("interpolate-nearest-factor", lambda F, x: F.interpolate(x, None, 2.0), (IMAGE,), 8),
    Case("interpolate-nearest-down", lambda F, x: F.interpolate(x, scale_factor=(0.5, 1.5)), (IMAGE,), 8),
    Case("interpolate-bilinear", lambda F, x: F.interpolate(x, (10, 4), None, "bilinear"), (IMAGE,), 16),
    Case("interpolate-bilinear-factor", lambda F, x: F.interpolate(x, scale_factor=1.7, mode="bilinear", align_corners=False), (IMAGE,), 16),
    Case("interpolate-bilinear-corners", lambda F, x: F.interpolate(x, (13, 11), None, "bilinear", True), (IMAGE,), 16),
    Case("interpolate-bilinear-corners-1", lambda F, x: F.interpolate(x, (1, 3), None, "bilinear", True), (IMAGE,), 16),
    # normalisation
    Case(
        "batch_norm",
        lambda F, x, m, v, w, b: F.batch_norm(x, m, v, w, b, False, 0.2, 1e-3),
        (IMAGE, array(4), array(4, low=0.5), array(4, seed=1), array(4, seed=2)),
        60,
        like_torch=False,  # there statistics have no gradient; compared as a layer in test_against_torch.py
    ),
    Case("batch_norm-plain", lambda F, x: F.batch_norm(x, None, None, training=True), (IMAGE,), 200),
    Case("batch_norm-training", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True), (IMAGE, array(4), array(4, seed=1)), 200),
    Case("batch_norm-training-2d", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True), (MATRIX, array(7), array(7, seed=1)), 60),
    Case("batch_norm-training-3d", lambda F, x, w: F.batch_norm(x, None, None, w, None, True), (SIGNAL, array(4)), 60),
    # functions of one array
    *(_unary(name, distinct(5, 9)) for name in ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "neg", "exp", "abs", "square", "erf", "softplus")),
    *(_unary(name, POSITIVE) for name in ("log", "sqrt", "rsqrt", "reciprocal")),
    _unary("leaky_relu", distinct(5, 9)),
    _unary("leaky_relu", distinct(5, 9), 0.2),
    _unary("leaky_relu", distinct(5, 9), negative_slope=-0.3),
    _unary("elu", distinct(5, 9)),
    _unary("elu", distinct(5, 9), 0.7),
    _unary("gelu", distinct(5, 9)),
    _unary("gelu", distinct(5, 9), approximate="tanh"),
    _unary("clamp", distinct(5, 9), -1.0, 0.5),
    _unary("clamp", distinct(5, 9), min=-0.5),
    _unary("clamp", distinct(5, 9), max=0.5),
    _unary("pow", distinct(5, 9), 2),
    _unary("pow", distinct(5, 9), 3),
    _unary("pow", POSITIVE, -1.5),
    _unary("softmax", MATRIX, -1),
    _unary("softmax", IMAGE, 1),
    _unary("softmax", IMAGE, dim=2),
    _unary("log_softmax", MATRIX, 1),
    _unary("log_softmax", IMAGE, 1),
    _unary("log_softmax", MATRIX, 0),
    # arithmetic
    Case("add", lambda F, a, b: F.add(a, b), (IMAGE, array(2, 4, 7, 6, seed=1)), 60),
    Case("add-channel", lambda F, a, b: F.add(a, b), (IMAGE, array(4, 1, 1)), 200),
    Case("sub-both", lambda F, a, b: F.sub(a, b), (array(3, 1, 5), array(4, 1)), 60),
    Case("mul-channel", lambda F, a, b: F.mul(a, b), (array(4, 1, 1), IMAGE), 200),
    Case("mul-row", lambda F, a, b: F.mul(a, b), (MATRIX, array(7)), 30),
    Case("mul-column", lambda F, a, b: F.mul(a, b), (MATRIX, array(5, 1)), 30),
    Case("mul-single", lambda F, a, b: F.mul(a, b), (MATRIX, array(1)), 60),
    Case("div", lambda F, a, b: F.div(a, b), (MATRIX, array(5, 7, seed=1, low=0.5)), 30),
    Case("div-broadcast", lambda F, a, b: F.div(a, b), (array(5, 1), array(7, low=0.5)), 60),
    Case("maximum", lambda F, a, b: F.maximum(a, b), (MATRIX, array(5, 7, seed=1)), 8),
    Case("minimum-broadcast", lambda F, a, b: F.minimum(a, b), (MATRIX, array(7, seed=1)), 30),
    Case("pow-arrays", lambda F, a, b: F.pow(a, b), (POSITIVE, array(6, seed=1)), 60),
    Case("same-twice", lambda F, a: F.mul(a, a), (MATRIX,), 8),
    Case("scalars", lambda F, a: 2 * a + 1 - a / 4 + (3 - a), (MATRIX,), 8),
    # reductions
    Case("sum", lambda F, x: F.sum(x), (MATRIX,), 40),
    Case("sum-dims", lambda F, x: F.sum(x, (0, 2)), (IMAGE,), 60),
    Case("sum-keepdim", lambda F, x: F.sum(x, -1, True), (IMAGE,), 60),
    Case("mean", lambda F, x: F.mean(x), (MATRIX,), 40),
    Case("mean-images", lambda F, x: F.mean(x, (2, 3)), (IMAGE,), 60),
    Case("mean-first", lambda F, x: F.mean(x, 0, keepdim=True), (MATRIX,), 40),
    Case("amax", lambda F, x: F.amax(x, (1, 3)), (APART,), 8),
    Case("amin-keepdim", lambda F, x: F.amin(x, 1, True), (APART,), 8),
    # shape
    Case("reshape", lambda F, x: F.reshape(x, (4, -1)), (IMAGE,)),
    Case("flatten", lambda F, x: F.flatten(x), (IMAGE,)),
    Case("flatten-some", lambda F, x: F.flatten(x, 1, -2), (IMAGE,)),
    Case("permute", lambda F, x: F.permute(x, (0, 2, -1, 1)), (IMAGE,)),
    Case("transpose", lambda F, x: F.transpose(x, 1, -1), (IMAGE,)),
    Case("cat", lambda F, a, b: F.cat([a, b, a], 1), (IMAGE, array(2, 3, 7, 6)), 4),
    Case("cat-last", lambda F, a, b: F.cat((a, b), -1), (MATRIX, array(5, 2))),
    Case("flip", lambda F, x: F.flip(x, (0, 2)), (IMAGE,)),
    Case("pad", lambda F, x: F.pad(x, (1, 2, 0, 3)), (IMAGE,)),
    Case("pad-value", lambda F, x: F.pad(x, (1, 2), "constant", 1.5), (IMAGE,)),
    Case("pad-crop", lambda F, x: F.pad(x, (-1, 2, 1, -2)), (IMAGE,)),
    Case("slice", lambda F, x: x[1:, ::2, 2:-1, 3], (IMAGE,)),
    Case("slice-none", lambda F, x: x[..., None, 1::3], (IMAGE,)),
    Case("slice-reverse", lambda F, x: x[:, ::-1, 5:0:-2], (IMAGE,), like_torch=False),
    Case("expand", lambda F, x: F.expand(x, (3, 5, -1)), (array(5, 1),), 30, like_torch=False),
    # losses
    Case("cross_entropy", lambda F, x, t: F.cross_entropy(x, t), (MATRIX, labels(5, classes=7)), 30),
    Case(
        "cross_entropy-attributes",
        lambda F, x, t: F.cross_entropy(x, t, ignore_index=2, reduction="sum", label_smoothing=0.1),
        (MATRIX, labels(5, classes=4, seed=1)),
        60,
    ),
    Case("cross_entropy-none", lambda F, x, t: F.cross_entropy(x, t, reduction="none", ignore_index=1), (MATRIX, labels(5, classes=3)), 30),
    Case("cross_entropy-images", lambda F, x, t: F.cross_entropy(x, t, label_smoothing=0.2), (array(2, 5, 3, 4), labels(2, 3, 4, classes=5)), 60),
    Case("cross_entropy-probabilities", lambda F, x, t: F.cross_entropy(x, t, label_smoothing=0.3), (MATRIX, probabilities(5, 7)), 60),
    Case("cross_entropy-probabilities-sum", lambda F, x, t: F.cross_entropy(x, t, reduction="sum"), (array(2, 5, 3), probabilities(2, 5, 3)), 60),
    Case("mse_loss", lambda F, x, t: F.mse_loss(x, t), (MATRIX, array(5, 7, seed=1)), 40),
    Case("mse_loss-sum", lambda F, x, t: F.mse_loss(x, t, reduction="sum"), (MATRIX, array(5, 7, seed=1)), 40),
    Case("mse_loss-none", lambda F, x, t: F.mse_loss(x, t, reduction="none"), (MATRIX, array(5, 7, seed=1)), 8),
    Case("bce", lambda F, x, t: F.binary_cross_entropy_with_logits(x, t), (MATRIX, array(5, 7, seed=1, low=0.0, high=1.0)), 60),
    Case("bce-none", lambda F, x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"), (MATRIX, array(5, 7, seed=1, low=0.0, high=1.0)), 16),
    # chains in which gradients meet
    Case("residual", lambda F, x, w: F.relu(F.conv2d(x, w, padding=1) + x), (IMAGE, array(4, 4, 3, 3)), 300, smooth=False),
    Case("dropout", lambda F, x: F.dropout(x, 0.4), (IMAGE,), 4, like_torch=False),
]
NAMES = [case.name for case in CASES]
assert len(set(NAMES)) == len(NAMES)
