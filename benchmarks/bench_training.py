"""Whole training steps: forward, loss, backward, SGD with momentum, one program."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .cases import DEVICES, device
from .networks import NETWORKS, batch_of, seeded

#: network -> batch
BATCHES = {"lenet5": 64, "resnet18": 8, "mobilenet_v2": 8}
LR = 1e-4


class Step:
    """The loss must be near that of guessing, and fall."""

    params = (DEVICES, tuple(BATCHES))
    param_names = ("device", "network")
    timeout = 600

    def setup(self, where: str, name: str) -> None:
        import pycl_cnn as pc

        target = device(where)
        network = NETWORKS[name]
        optimizer = pc.optim.SGD(lr=LR, momentum=0.9)
        images, labels = batch_of(network, BATCHES[name])
        self.program = pc.compile(
            seeded(network).train(),
            images.shape,
            device=target,
            train=True,
            loss=pc.nn.CrossEntropyLoss(),
            optimizer=optimizer,
            target=labels,
        )
        self.arrays: list[Any] = [images, labels, np.array(optimizer.rule.hyper(LR, 1), np.float32)]
        first, second = (float(self.program.run(*self.arrays)[0]) for _ in range(2))
        if not 0.3 * math.log(network.classes) < first < 3 * math.log(network.classes) or not second < first:
            raise AssertionError(f"{name} does not learn: losses {first}, {second}")
        self.arrays[2] = np.array(optimizer.rule.hyper(LR, 2), np.float32)

    def time_step(self, where: str, name: str) -> None:
        self.program.run(*self.arrays)
