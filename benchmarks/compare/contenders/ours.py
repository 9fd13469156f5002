"""pycl_cnn, on the device that the options name."""

from __future__ import annotations

from typing import Any

import numpy as np

import pycl_cnn as pc

from ...networks import NETWORKS
from ..runtimes import RUNTIMES
from ..task import MOMENTUM, TIMED_LR, Engine, Task, checked_training


def find_device(options: dict[str, Any]) -> Any:
    """The device meant; among OpenCL devices the one of the runtime that the options name."""
    if options["device"] != "opencl":
        return pc.device(options["device"])
    runtime = RUNTIMES[options["runtime"]]
    for device in pc.devices():
        if device.backend == "opencl" and runtime.matches(device.platform, device.driver):
            return device
    found = [f"{device.platform} {device.driver}" for device in pc.devices() if device.backend == "opencl"]
    raise pc.DeviceError(f"no OpenCL device of {runtime.title} among {found}")


class Ours(Engine):
    """See the module's docstring."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.device = find_device(options)
        if self.device.backend == "cpu":
            pc.set_num_threads(options["threads"])

    def versions(self) -> dict[str, str]:
        return {"pycl_cnn": pc.__version__, "numpy": np.__version__, "device": f"{self.device} {self.device.platform} {self.device.driver}"}

    def prepare(self, task: Task) -> None:
        with pc.nn.init.skipped():
            model = NETWORKS[task.network].build()
        pc.load_weights(model, task.weights)
        self.task, self.count = task, 0
        if task.trains:
            self.optimizer = pc.optim.SGD(lr=TIMED_LR, momentum=MOMENTUM)
            self.program = pc.compile(
                model.train(),
                task.images.shape,
                device=self.device,
                train=True,
                loss=pc.nn.CrossEntropyLoss(),
                optimizer=self.optimizer,
                target=task.labels,
            )
            self.names = [name for name, _ in model.named_parameters()]
        else:
            self.program = pc.compile(model.eval(), task.images.shape, device=self.device)

    def _train(self, lr: float) -> float:
        self.count += 1
        hyper = np.array(self.optimizer.rule.hyper(lr, self.count), np.float32)
        return float(self.program.run(self.task.images, self.task.labels, hyper)[0])

    def step(self) -> Any:
        return self._train(TIMED_LR) if self.task.trains else self.program.run(self.task.images)

    def check(self) -> dict[str, np.ndarray]:
        if not self.task.trains:
            return {"output": self.program.run(self.task.images)}

        def parameters() -> dict[str, np.ndarray]:
            states = self.program.states()
            return {name: states[name] for name in self.names}

        return checked_training(parameters, self._train)


ENGINE = Ours
