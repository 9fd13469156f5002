"""U-Net (Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015).

As it is mostly built today: the 3 x 3 convolutions are padded, so that the output has the input's size, and each is followed by
batch normalisation. Parameter names are those of the widespread PyTorch implementation (milesial/Pytorch-UNet).
"""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..errors import ShapeError
from ..nn import BatchNorm2d, Conv2d, ConvTranspose2d, MaxPool2d, Module, ReLU, Sequential

#: How often the encoder halves the image.
LEVELS = 4


class DoubleConv(Module):
    """Twice convolution, batch norm, ReLU: [n,in_channels,h,w] -> [n,out_channels,h,w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        self.double_conv = Sequential(
            Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            BatchNorm2d(out_channels),
            ReLU(),
            Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            BatchNorm2d(out_channels),
            ReLU(),
        )

    def forward(self, x: Any) -> Any:
        return self.double_conv(x)


class Down(Module):
    """Halve by max pooling, then convolve: [n,in_channels,h,w] -> [n,out_channels,h/2,w/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        self.maxpool_conv = Sequential(MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, x: Any) -> Any:
        return self.maxpool_conv(x)


class Up(Module):
    """Double by transposed convolution, put behind the encoder's channels, convolve.

    x [n,in_channels,h,w] and skip [n,out_channels,2h,2w] -> [n,out_channels,2h,2w].
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        self.up = ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = DoubleConv(2 * out_channels, out_channels)

    def forward(self, x: Any, skip: Any) -> Any:
        return self.conv(F.cat([skip, self.up(x)], dim=1))


class OutConv(Module):
    """The classes' scores from the features, pixel by pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        self.conv = Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Any) -> Any:
        return self.conv(x)


class UNet(Module):
    """[n,in_channels,h,w] -> [n,num_classes,h,w], a score for every class at every pixel; h and w must be divisible by 16.

    `width` channels at full size, twice as many at each of the four halvings. PyTorch's default initialisation.
    Raises ShapeError for other sizes.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 2, width: int = 64) -> None:
        self.inc = DoubleConv(in_channels, width)
        self.down1 = Down(width, 2 * width)
        self.down2 = Down(2 * width, 4 * width)
        self.down3 = Down(4 * width, 8 * width)
        self.down4 = Down(8 * width, 16 * width)
        self.up1 = Up(16 * width, 8 * width)
        self.up2 = Up(8 * width, 4 * width)
        self.up3 = Up(4 * width, 2 * width)
        self.up4 = Up(2 * width, width)
        self.outc = OutConv(width, num_classes)

    def forward(self, x: Any) -> Any:
        if x.ndim != 4 or x.shape[2] % (1 << LEVELS) or x.shape[3] % (1 << LEVELS):
            raise ShapeError("UNet", f"the input must be [n,c,h,w] with h and w divisible by {1 << LEVELS}", input=x.shape)
        full = self.inc(x)
        half = self.down1(full)
        quarter = self.down2(half)
        eighth = self.down3(quarter)
        y = self.down4(eighth)
        y = self.up1(y, eighth)
        y = self.up2(y, quarter)
        y = self.up3(y, half)
        y = self.up4(y, full)
        return self.outc(y)


def unet(in_channels: int = 3, num_classes: int = 2, width: int = 64) -> UNet:
    """U-Net; 31,037,698 parameters for 3 channels and 2 classes."""
    return UNet(in_channels, num_classes, width)
