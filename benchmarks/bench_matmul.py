"""Dense layers of the networks, and square products."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import DEVICES, agree, device, normal

#: (rows, reduction, columns)
LINEAR = {
    "lenet5.fc1": (64, 400, 120),
    "resnet18.fc": (1, 512, 1000),
    "vgg16.fc2": (1, 4096, 4096),
    "square256": (256, 256, 256),
    "square1024": (1024, 1024, 1024),
}


class Linear:
    """Weights are packed beforehand."""

    params = (DEVICES, tuple(LINEAR))
    param_names = ("device", "layer")

    def setup(self, where: str, name: str) -> None:
        import pycl_cnn as pc

        target = device(where)
        rows, reduction, columns = LINEAR[name]
        pc.manual_seed(0)
        module: Any = pc.nn.Linear(reduction, columns)
        self.x = normal(rows, reduction)
        self.program = pc.compile(module, self.x.shape, device=target)
        sample = slice(0, 64)
        expected = self.x[sample].astype(np.float64) @ module.weight.data.T.astype(np.float64) + module.bias.data
        agree(self.program.run(self.x)[sample], expected)

    def time_forward(self, where: str, name: str) -> None:
        self.program.run(self.x)
