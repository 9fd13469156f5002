"""VGG (Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential, init
from .initialise import kaiming_fan_out, normal_linear

#: Output channels of the 3 x 3 convolutions of configuration D; "M" is a 2 x 2 max pooling.
VGG16_LAYERS: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def make_layers(layers: Sequence[int | str], in_channels: int = 3) -> Sequential:
    """The convolutions, each with its ReLU, and poolings that `layers` lists."""
    parts: list[Module] = []
    for layer in layers:
        if isinstance(layer, int):
            parts += [Conv2d(in_channels, layer, kernel_size=3, padding=1), ReLU()]
            in_channels = layer
        else:
            parts.append(MaxPool2d(kernel_size=2, stride=2))
    return Sequential(*parts)


class VGG(Sequential):
    """[n,3,224,224] -> [n, num_classes] from `features` that give 512 channels; other sizes from 32 up work.

    Parameter names and initialisation as torchvision's.
    """

    def __init__(self, features: Module, num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> None:
        with init.skipped():
            classifier = Sequential(
                Linear(512 * 7 * 7, 4096),
                ReLU(),
                Dropout(dropout),
                Linear(4096, 4096),
                ReLU(),
                Dropout(dropout),
                Linear(4096, num_classes),
            )
        super().__init__({"features": features, "avgpool": AdaptiveAvgPool2d((7, 7)), "flatten": Flatten(), "classifier": classifier})
        if init_weights:
            kaiming_fan_out(self)
            normal_linear(self)


def vgg16(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG with 16 layers (configuration D); 138,357,544 parameters for 1000 classes.

    With ``init_weights=False`` the weights stay zero, for a model that is about to be loaded.
    """
    with init.skipped():
        features = make_layers(VGG16_LAYERS)
    return VGG(features, num_classes, init_weights, dropout)
