"""Conversions of models."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ShapeError
from . import init
from .activation import ELU, GELU, Hardswish, LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, SiLU, Softmax, Tanh
from .containers import Sequential
from .layers import BatchNorm1d, BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, Flatten, Identity, Linear
from .module import Module
from .parameter import Parameter
from .pooling import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d

#: Layers that treat every element alike: they mean the same before and behind a Flatten, and to a vector or a map.
_ELEMENTWISE = (ReLU, ReLU6, LeakyReLU, ELU, GELU, Sigmoid, Tanh, SiLU, Hardswish, Dropout, Identity)

_NAME = "to_fully_convolutional"


def to_fully_convolutional(model: Module, input_shape: Sequence[int] | None = None) -> Sequential:
    """The same network as one that gives a map of predictions [n, classes, oh, ow] for images larger than it was made for.

    `model` is an `nn.Sequential` (names and nesting as you like, so also lenet5, alexnet, vgg16, resnet and mobilenet_v2 of
    `pycl_cnn.models`): layers on images, a Flatten, then Linear layers with activations, dropouts, batch norms and softmaxes
    between them. Each Linear becomes a convolution, the first one with a kernel as large as the feature map, the others 1 x 1
    (Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015). Names of parameters stay; the
    result has weights of its own.

    An image of the original size gives the original's result, exactly, as [n, classes, 1, 1]. On a larger image element (i, j) is
    the result for the part of it that begins at (i, j) times the network's stride, as if the original were moved over the
    image; layers with padding see their neighbours there instead of zeros.

    `input_shape`, [n,c,h,w] or [c,h,w], is the original size. It is needed where an adaptive pooling stands before the Flatten,
    which becomes the pooling of fixed windows that it is at that size (its output must divide its input); and where the feature
    map is not square or its channels cannot be read off the layers.

    Raises ShapeError for a model without Flatten, or with a layer that has no meaning on larger images.
    """
    if not isinstance(model, Sequential):
        raise ShapeError(_NAME, "the model must be an nn.Sequential", model=type(model).__name__)
    chain = list(_chain(model))
    if not any(isinstance(module, Flatten) for module in chain):
        raise ShapeError(_NAME, "the model must have a Flatten (without one it takes any size already)", model=type(model).__name__)
    shapes = {} if input_shape is None else _shapes(model, chain, input_shape)
    conversion = _Conversion(shapes)
    converted = conversion.sequential(model)
    conversion.finish()
    return converted


def _chain(model: Sequential) -> Iterator[Module]:
    """The layers of nested Sequentials, in order."""
    for child in model.children():
        if isinstance(child, Sequential):
            yield from _chain(child)
        else:
            yield child


def _shapes(model: Module, chain: Sequence[Module], input_shape: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The shape of what reaches each layer, by the layer's identity."""
    from ..compiler import begin
    from ..trace import tracing

    if len(input_shape) not in (3, 4):
        raise ShapeError(_NAME, "input_shape must be [n,c,h,w] or [c,h,w]", input_shape=tuple(input_shape))
    tracer = begin(model, False, False)
    shapes: dict[int, tuple[int, ...]] = {}
    with tracing(tracer):
        x = tracer.input("x", (1, *tuple(input_shape)[-3:]))
        for module in chain:
            shapes[id(module)] = x.shape
            x = module(x)
    return shapes


def _refuse(rule: str, module: Module) -> ShapeError:
    return ShapeError(_NAME, rule, layer=repr(module).partition("\n")[0])


class _Conversion:
    """The walk along the chain: on images until the Flatten, then on what were vectors."""

    def __init__(self, shapes: dict[int, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.channels: int | None = None  # of the feature map, where the layers tell
        self.adapted: tuple[tuple[int, int], tuple[int, int]] | None = None  # output size and window of an adaptive pooling
        self.flat = False  # behind the Flatten
        self.map: tuple[int, int, int] | None = None  # c, h, w of the feature map that was flattened, until a Linear takes it

    def sequential(self, module: Sequential) -> Sequential:
        return _like(module, Sequential({name: self.layer(child) for name, child in module.named_children()}))

    def layer(self, module: Module) -> Module:
        if isinstance(module, Sequential):
            return self.sequential(module)
        return self.on_vector(module) if self.flat else self.on_image(module)

    def finish(self) -> None:
        """What was flattened must have become vectors: by a Linear, or because the map was a single pixel."""
        if self.map is None or self.map[1:] != (1, 1):
            raise ShapeError(_NAME, "a Linear must follow the Flatten (or give input_shape, if the feature map is a single pixel)")

    # ---- before the Flatten ----------------------------------------------------------------------------------------------

    def on_image(self, module: Module) -> Module:
        if isinstance(module, Flatten):
            return self.flatten(module)
        if isinstance(module, _ELEMENTWISE):
            return copy.deepcopy(module)
        if self.adapted is not None:
            raise _refuse("an adaptive pooling must stand right before the Flatten", module)
        if isinstance(module, AdaptiveAvgPool2d | AdaptiveMaxPool2d):
            return self.adaptive_pool(module)
        fixed = (Flatten, Linear, BatchNorm1d, AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveMaxPool2d)
        if any(isinstance(part, fixed) for part in module.modules()):
            raise _refuse("this layer depends on the size of the image", module)
        if isinstance(module, Conv2d | ConvTranspose2d):
            self.channels = module.out_channels
        elif isinstance(module, BatchNorm2d):
            self.channels = module.num_features
        elif next(module.children(), None) is not None or next(module.parameters(), None) is not None:
            self.channels = None  # a block of the user's: its layers do not tell what comes out
        return copy.deepcopy(module)

    def adaptive_pool(self, module: Any) -> Module:
        shape = self.shapes.get(id(module))
        if shape is None:
            raise _refuse("give input_shape: the original size of the image decides what an adaptive pooling averages", module)
        size = shape[2:]
        wanted = module.output_size if isinstance(module.output_size, Sequence) else (module.output_size,) * 2
        out = tuple(n if o is None else o for n, o in zip(size, wanted, strict=True))
        if any(n % o for n, o in zip(size, out, strict=True)):
            raise ShapeError(_NAME, "an adaptive pooling's output must divide its input", input=size, output=out)
        window = (size[0] // out[0], size[1] // out[1])
        self.adapted = ((out[0], out[1]), window)
        if window == (1, 1):
            return _like(module, Identity())
        return _like(module, (AvgPool2d if isinstance(module, AdaptiveAvgPool2d) else MaxPool2d)(window, stride=1))

    def flatten(self, module: Flatten) -> Module:
        if module.start_dim != 1 or module.end_dim not in (-1, 3):
            raise _refuse("the Flatten must keep the batch and nothing else", module)
        self.flat = True
        shape = self.shapes.get(id(module))
        if shape is not None:
            self.map = (shape[1], shape[2], shape[3])
        return _like(module, Identity())

    # ---- behind the Flatten ----------------------------------------------------------------------------------------------

    def on_vector(self, module: Module) -> Module:
        if isinstance(module, _ELEMENTWISE):
            return copy.deepcopy(module)
        if isinstance(module, Linear):
            return self.linear(module)
        single = self.map is not None and self.map[1:] == (1, 1)
        if single and isinstance(module, BatchNorm1d):
            norm = BatchNorm2d(module.num_features, module.eps, module.momentum, module.weight is not None, module.running_mean is not None)
            for name, tensor in module.named_tensors():
                setattr(norm, name, copy.deepcopy(tensor))
            return _like(module, norm)
        if single and isinstance(module, Softmax | LogSoftmax) and module.dim in (1, -1):
            return _like(module, type(module)(1))
        raise _refuse(
            "behind the Flatten come Linear layers, activations, dropouts; batch norms and softmaxes only behind a Linear", module
        )

    def linear(self, module: Linear) -> Module:
        c, h, w = self.map or self.square_map(module)
        if c * h * w != module.in_features:
            raise ShapeError(_NAME, "the first Linear must fit the feature map", feature_map=(c, h, w), in_features=module.in_features)
        spread = self.adapted[1] if self.adapted is not None and (h, w) != (1, 1) else (1, 1)
        with init.skipped():
            conv = Conv2d(c, module.out_features, (h, w), dilation=spread, bias=module.bias is not None)
        conv.weight = Parameter(module.weight.data.reshape(conv.weight.shape), module.weight.requires_grad)
        conv.bias = copy.deepcopy(module.bias)
        self.map, self.adapted = (module.out_features, 1, 1), None
        return _like(module, conv)

    def square_map(self, module: Linear) -> tuple[int, int, int]:
        """The feature map as the layers tell: so many channels, and a square."""
        side = math.isqrt(module.in_features // self.channels) if self.channels else 0
        if not self.channels or self.channels * side * side != module.in_features:
            raise ShapeError(
                _NAME,
                "give input_shape: the layers do not tell the feature map's size",
                in_features=module.in_features,
                channels=self.channels,
            )
        return self.channels, side, side


def _like(old: Module, new: Any) -> Any:
    """`new` in `old`'s mode."""
    new._training = old._training
    return new
