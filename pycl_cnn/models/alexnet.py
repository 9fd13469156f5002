"""AlexNet in the single-tower form of Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014)."""

from __future__ import annotations

from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential


class AlexNet(Sequential):
    """[n,3,224,224] -> [n, num_classes]; other sizes from 63 up work.

    Parameter names as torchvision's, initialisation PyTorch's default.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__(
            {
                "features": Sequential(
                    Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
                    ReLU(),
                    MaxPool2d(kernel_size=3, stride=2),
                    Conv2d(64, 192, kernel_size=5, padding=2),
                    ReLU(),
                    MaxPool2d(kernel_size=3, stride=2),
                    Conv2d(192, 384, kernel_size=3, padding=1),
                    ReLU(),
                    Conv2d(384, 256, kernel_size=3, padding=1),
                    ReLU(),
                    Conv2d(256, 256, kernel_size=3, padding=1),
                    ReLU(),
                    MaxPool2d(kernel_size=3, stride=2),
                ),
                "avgpool": AdaptiveAvgPool2d((6, 6)),
                "flatten": Flatten(),
                "classifier": Sequential(
                    Dropout(dropout),
                    Linear(256 * 6 * 6, 4096),
                    ReLU(),
                    Dropout(dropout),
                    Linear(4096, 4096),
                    ReLU(),
                    Linear(4096, num_classes),
                ),
            }
        )


def alexnet(num_classes: int = 1000, dropout: float = 0.5) -> AlexNet:
    """AlexNet; 61,100,840 parameters for 1000 classes."""
    return AlexNet(num_classes, dropout)
