"""All-CNN-C (Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity: the all convolutional net", 2015)."""

from __future__ import annotations

from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Module, ReLU, Sequential, init
from .initialise import kaiming_fan_out

#: (out channels, kernel, stride, padding) of each convolution before the classes' (tables 1 and 2 of the paper): those of
#: stride 2 stand where other networks pool, and the first 3 x 3 one behind them is unpadded, so that 6 x 6 is averaged.
LAYERS = (
    (96, 3, 1, 1),
    (96, 3, 1, 1),
    (96, 3, 2, 1),
    (192, 3, 1, 1),
    (192, 3, 1, 1),
    (192, 3, 2, 1),
    (192, 3, 1, 0),
    (192, 1, 1, 0),
)


class AllCNN(Sequential):
    """[n, in_channels, 32, 32] -> [n, num_classes]: convolutions only, then the mean over the image; sizes from 9 up work.

    As published: a ReLU behind every convolution, also the last; dropout of a fifth of the input, and of half behind each
    convolution that takes pooling's place. Normal initialisation with variance 2 / fan_out (the paper names none).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, input_dropout: float = 0.2, dropout: float = 0.5) -> None:
        parts: list[Module] = [Dropout(input_dropout)]
        with init.skipped():
            for out_channels, kernel_size, stride, padding in LAYERS:
                parts += [Conv2d(in_channels, out_channels, kernel_size, stride, padding), ReLU()]
                if stride > 1:
                    parts.append(Dropout(dropout))
                in_channels = out_channels
            parts += [Conv2d(in_channels, num_classes, 1), ReLU()]
        super().__init__({"features": Sequential(*parts), "avgpool": AdaptiveAvgPool2d((1, 1)), "flatten": Flatten()})
        kaiming_fan_out(self)


def all_cnn_c(num_classes: int = 10, in_channels: int = 3, input_dropout: float = 0.2, dropout: float = 0.5) -> AllCNN:
    """All-CNN-C for 32 x 32 images; 1,369,738 parameters for 10 classes."""
    return AllCNN(num_classes, in_channels, input_dropout, dropout)
