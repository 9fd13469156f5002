"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998), as it is taught today: ReLU and max pooling, full connection tables."""

from __future__ import annotations

from ..nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


class LeNet5(Sequential):
    """[n, in_channels, 28, 28] -> [n, num_classes]; 61,706 parameters. PyTorch's default initialisation.

    The first convolution pads by 2, so that MNIST's 28 x 28 images take the place of the paper's 32 x 32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__(
            {
                "conv1": Conv2d(in_channels, 6, 5, padding=2),
                "relu1": ReLU(),
                "pool1": MaxPool2d(2),
                "conv2": Conv2d(6, 16, 5),
                "relu2": ReLU(),
                "pool2": MaxPool2d(2),
                "flatten": Flatten(),
                "fc1": Linear(16 * 5 * 5, 120),
                "relu3": ReLU(),
                "fc2": Linear(120, 84),
                "relu4": ReLU(),
                "fc3": Linear(84, num_classes),
            }
        )


def lenet5(num_classes: int = 10, in_channels: int = 1) -> LeNet5:
    """LeNet-5 for 28 x 28 images."""
    return LeNet5(num_classes, in_channels)
