"""onnxruntime on the CPU, from the exported ONNX model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from ..task import Engine, Task


class OnnxRuntime(Engine):
    """See the module's docstring."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = options["threads"]
        self.options.inter_op_num_threads = 1
        self.options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": onnxruntime.__version__}

    def prepare(self, task: Task) -> None:
        self.session = onnxruntime.InferenceSession(task.model / "model.onnx", self.options, providers=["CPUExecutionProvider"])
        self.feed = {self.session.get_inputs()[0].name: task.images}

    def step(self) -> Any:
        return self.session.run(None, self.feed)[0]

    def check(self) -> dict[str, np.ndarray]:
        return {"output": self.step()}


ENGINE = OnnxRuntime
