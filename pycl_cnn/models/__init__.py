"""Well-known networks, with torchvision's names of functions, classes and parameters, so that its weights load.

    model = pycl_cnn.models.resnet18(num_classes=10)
    pycl_cnn.load_weights(model, "resnet18.safetensors")

They are chains (`nn.Sequential` with named parts), so that they can be cut, and converted by `nn.utils.to_fully_convolutional`.
`get` finds one by name, together with the input shape it was published for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import PyclError
from ..nn.module import Module
from ..records import record
from .alexnet import AlexNet, alexnet
from .all_cnn import AllCNN, all_cnn_c
from .lenet import LeNet5, lenet5
from .mobilenet import InvertedResidual, MobileNetV2, mobilenet_v2
from .resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet50
from .unet import UNet, unet
from .vgg import VGG, vgg16


@record
class Entry:
    """A network that the command line knows by name."""

    name: str
    build: Callable[..., Module]  # its function, with num_classes among the arguments
    input_shape: tuple[int, int, int, int]  # [n,c,h,w] of one image, as published
    parameters: int  # with the default arguments
    source: str  # the paper


_RESNET = "He et al., Deep residual learning for image recognition, 2016"
_IMAGENET = (1, 3, 224, 224)

REGISTRY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("lenet5", lenet5, (1, 1, 28, 28), 61_706, "LeCun et al., Gradient-based learning applied to document recognition, 1998"),
        Entry(
            "alexnet", alexnet, _IMAGENET, 61_100_840, "Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014"
        ),
        Entry("vgg16", vgg16, _IMAGENET, 138_357_544, "Simonyan and Zisserman, Very deep convolutional networks, 2015"),
        Entry("resnet18", resnet18, _IMAGENET, 11_689_512, _RESNET),
        Entry("resnet50", resnet50, _IMAGENET, 25_557_032, _RESNET),
        Entry("mobilenet_v2", mobilenet_v2, _IMAGENET, 3_504_872, "Sandler et al., Inverted residuals and linear bottlenecks, 2018"),
        Entry("all_cnn_c", all_cnn_c, (1, 3, 32, 32), 1_369_738, "Springenberg et al., Striving for simplicity, 2015"),
        Entry("unet", unet, (1, 3, 256, 256), 31_037_698, "Ronneberger et al., Convolutional networks for image segmentation, 2015"),
    )
}


def names() -> list[str]:
    """The names that `get` knows."""
    return list(REGISTRY)


def get(name: str) -> Entry:
    """The network called `name`. Raises PyclError that lists the names there are."""
    if name not in REGISTRY:
        raise PyclError(f"models: there is no {name!r}; there are {', '.join(REGISTRY)}")
    return REGISTRY[name]


def build(name: str, **arguments: Any) -> Module:
    """``get(name).build(**arguments)``: the model, newly initialised. Raises PyclError."""
    return get(name).build(**arguments)


__all__ = [
    "REGISTRY",
    "VGG",
    "AlexNet",
    "AllCNN",
    "BasicBlock",
    "Bottleneck",
    "Entry",
    "InvertedResidual",
    "LeNet5",
    "MobileNetV2",
    "ResNet",
    "UNet",
    "alexnet",
    "all_cnn_c",
    "build",
    "get",
    "lenet5",
    "mobilenet_v2",
    "names",
    "resnet18",
    "resnet50",
    "unet",
    "vgg16",
]
