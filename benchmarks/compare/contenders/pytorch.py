"""PyTorch, eager, in the memory layout (contiguous or channels last) that is faster here. torch.compile is not used."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ..task import MOMENTUM, TIMED_LR, Engine, Task, checked_training
from .torch_networks import BUILD

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


class PyTorch(Engine):
    """See the module's docstring."""

    dtype = torch.float32

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        torch.set_num_interop_threads(1)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def prepare(self, task: Task) -> None:
        self.task = task
        self.model = BUILD[task.network]().to(self.dtype).train(task.trains)
        self.model.load_state_dict(load_file(task.weights), strict=False)  # but for num_batches_tracked
        self.labels = torch.from_numpy(task.labels).long()
        self._use("contiguous")

    def _use(self, layout: str) -> None:
        self.model = self.model.to(memory_format=LAYOUTS[layout])
        self.images = torch.from_numpy(self.task.images).to(self.dtype).contiguous(memory_format=LAYOUTS[layout])
        if self.task.trains:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=TIMED_LR, momentum=MOMENTUM)

    def settle(self) -> str:
        """The faster layout; the weights become the given ones again."""
        times = {}
        for layout in LAYOUTS:
            self._use(layout)
            self.step()
            samples = []
            for _ in range(3):
                start = perf_counter()
                self.step()
                samples.append(perf_counter() - start)
            times[layout] = min(samples)
        best = min(times, key=lambda layout: times[layout])
        self.model.load_state_dict(load_file(self.task.weights), strict=False)
        self._use(best)
        return ", ".join(f"{layout} {seconds * 1e3:.3g} ms" for layout, seconds in times.items()) + f": {best}"

    def _train(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def step(self) -> Any:
        if self.task.trains:
            return self._train(TIMED_LR)
        with torch.inference_mode():
            return self.model(self.images)

    def check(self) -> dict[str, np.ndarray]:
        if not self.task.trains:
            return {"output": self.step().contiguous().numpy()}
        return checked_training(lambda: {name: p.detach().numpy().copy() for name, p in self.model.named_parameters()}, self._train)


ENGINE = PyTorch
