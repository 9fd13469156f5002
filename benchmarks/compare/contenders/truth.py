"""What a network computes, by PyTorch in float64: ``python -m benchmarks.compare.contenders.truth REQUEST.json RESULT.npz``.

Float32 engines differ from each other by more than each differs from this: MobileNetV2's gradients, for one, have 1 to 2 % of noise.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from ..task import Task
from .pytorch import PyTorch


class Truth(PyTorch):
    """See the module's docstring."""

    dtype = torch.float64


def main(request: Path, result: Path) -> None:
    engine = Truth({"threads": os.cpu_count() or 1})
    engine.prepare(Task.read(json.loads(request.read_text())))
    np.savez(result, **engine.check())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
