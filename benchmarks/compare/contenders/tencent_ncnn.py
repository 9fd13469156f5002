"""ncnn on the CPU, from the model that pnnx converted, in float32. It takes one image at a time: a batch is a loop."""

from __future__ import annotations

from typing import Any

import ncnn
import numpy as np

from ..task import Engine, Task


class Ncnn(Engine):
    """See the module's docstring."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.threads = options["threads"]

    def versions(self) -> dict[str, str]:
        return {"ncnn": ncnn.__version__}

    def prepare(self, task: Task) -> None:
        self.net = ncnn.Net()
        option = self.net.opt
        option.num_threads = self.threads
        option.use_vulkan_compute = False
        option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = option.use_bf16_storage = False
        for load, name in ((self.net.load_param, "model.ncnn.param"), (self.net.load_model, "model.ncnn.bin")):
            if load(str(task.model / name)) != 0:
                raise RuntimeError(f"ncnn cannot load {name}")
        self.images = [ncnn.Mat(image).clone() for image in task.images]

    def _infer(self, image: Any) -> Any:
        extractor = self.net.create_extractor()
        extractor.input("in0", image)
        status, output = extractor.extract("out0")
        if status != 0:
            raise RuntimeError(f"ncnn: extract returned {status}")
        return output

    def step(self) -> Any:
        return [self._infer(image) for image in self.images]

    def check(self) -> dict[str, np.ndarray]:
        return {"output": np.stack([np.array(output) for output in self.step()])}


ENGINE = Ncnn
