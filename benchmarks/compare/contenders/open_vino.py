"""OpenVINO on the CPU, from the exported ONNX model, in float32 (where it can it would otherwise take bfloat16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino

from ..task import Engine, Task


class OpenVino(Engine):
    """See the module's docstring."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.core = openvino.Core()
        self.settings = {
            "INFERENCE_NUM_THREADS": options["threads"],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def versions(self) -> dict[str, str]:
        return {"openvino": openvino.__version__}

    def prepare(self, task: Task) -> None:
        compiled = self.core.compile_model(self.core.read_model(task.model / "model.onnx"), "CPU", self.settings)
        self.request, self.images = compiled.create_infer_request(), task.images

    def step(self) -> Any:
        return self.request.infer({0: self.images}, share_inputs=True, share_outputs=True)[0]

    def check(self) -> dict[str, np.ndarray]:
        return {"output": np.array(self.step())}


ENGINE = OpenVino
