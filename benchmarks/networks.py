"""The networks that are measured: names, shapes, and weights that every engine gets. Imports nothing heavy at the top, for asv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """A network by the name of its function in pycl_cnn.models."""

    name: str
    title: str
    image: tuple[int, int, int]  # channels, height, width
    classes: int
    arguments: dict[str, Any] = field(default_factory=dict)

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        return (batch, *self.image)

    def build(self) -> Any:
        """Our model, newly initialised."""
        from pycl_cnn import models

        return models.build(self.name, **self.arguments)


# No dropout: it is nothing at inference, and in training every engine draws other numbers.
NETWORKS = {
    network.name: network
    for network in (
        Network("lenet5", "LeNet-5 28x28", (1, 28, 28), 10),
        Network("mobilenet_v2", "MobileNetV2 224", (3, 224, 224), 1000, {"dropout": 0.0}),
        Network("resnet18", "ResNet-18 224", (3, 224, 224), 1000),
        Network("resnet50", "ResNet-50 224", (3, 224, 224), 1000),
        Network("vgg16", "VGG-16 224", (3, 224, 224), 1000, {"dropout": 0.0}),
        Network("unet", "U-Net 256", (3, 256, 256), 2),
    )
}


def seeded(network: Network, seed: int = 0) -> Any:
    """Our model with the weights that are compared: batch norms are made to differ from the identity, so that folding them is real work."""
    import pycl_cnn as pc

    pc.manual_seed(seed)
    model = network.build()
    generator = np.random.default_rng(seed)
    draws: dict[str, Callable[[Any], Any]] = {
        "weight": lambda shape: generator.uniform(0.5, 1.5, shape),
        "bias": lambda shape: generator.normal(0, 0.1, shape),
        "running_mean": lambda shape: generator.normal(0, 0.1, shape),
        "running_var": lambda shape: generator.uniform(0.5, 1.5, shape),
    }
    for module in model.modules():
        if isinstance(module, pc.nn.BatchNorm2d):
            for name, draw in draws.items():
                tensor = getattr(module, name)
                tensor.data = draw(tensor.shape).astype(np.float32)
    return model


def batch_of(network: Network, batch: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels: the same for every engine."""
    generator = np.random.default_rng(seed)
    images = generator.standard_normal(network.input_shape(batch), dtype=np.float32)
    return images, generator.integers(0, network.classes, batch).astype(np.int32)
