"""What a contender is asked to do, and what it must be able to do. Imported in every environment: NumPy and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Learning rate of the checked steps, large enough that the update tells the gradient, and of the timed ones, small enough that
#: thousands of steps on one batch leave ordinary numbers.
CHECK_LR, TIMED_LR, MOMENTUM = 0.01, 1e-4, 0.9
CHECK_STEPS = 3


@dataclass(frozen=True)
class Task:
    """A network to be run or trained: names of files, and the arrays that every contender gets."""

    network: str
    trains: bool
    weights: Path  # safetensors
    model: Path  # the exported forms: model.onnx, model.ncnn.param, model.ncnn.bin
    images: np.ndarray  # [n,c,h,w]
    labels: np.ndarray  # [n]

    @classmethod
    def read(cls, request: dict[str, Any]) -> Task:
        with np.load(request["inputs"]) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        return cls(request["network"], request["trains"], Path(request["weights"]), Path(request["model"]), images, labels)


class Engine:
    """A contender. Its constructor imports what it needs and sets the number of threads; nothing of that is timed."""

    def __init__(self, options: dict[str, Any]) -> None:
        """`options`: threads, device, runtime."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Versions, and the device where there is a choice."""
        raise NotImplementedError

    def prepare(self, task: Task) -> None:
        """Load the weights and make everything ready to run."""
        raise NotImplementedError

    def settle(self) -> str:
        """Try out what a user would try out to be fast; what came of it. Not part of being ready to run."""
        return ""

    def step(self) -> Any:
        """One inference, from a NumPy array to a result that is there; or one training step, up to its loss."""
        raise NotImplementedError

    def check(self) -> dict[str, np.ndarray]:
        """What others compare: "output"; in training "loss" (of CHECK_STEPS steps) and "update <parameter>" (of the first)."""
        raise NotImplementedError


def checked_training(parameters: Callable[[], Mapping[str, np.ndarray]], step: Callable[[float], float]) -> dict[str, np.ndarray]:
    """The loss of the first steps, and what the first one changed in each parameter, divided by the learning rate.

    `parameters()` gives them by name, `step(lr)` does a step and returns the loss.
    """
    before = {name: np.array(array, np.float64) for name, array in parameters().items()}
    losses = [float(step(CHECK_LR))]
    result = {f"update {name}": ((before[name] - array) / CHECK_LR).astype(np.float32) for name, array in parameters().items()}
    losses += [float(step(CHECK_LR)) for _ in range(CHECK_STEPS - 1)]
    return result | {"loss": np.array(losses)}
