"""Whole networks at batch 1: inference, the time to make a program, and the overhead of a run."""

from __future__ import annotations

import numpy as np

from .cases import DEVICES, agree, device, normal
from .networks import NETWORKS, batch_of, seeded


class Inference:
    """From a NumPy array to a NumPy array, NCHW."""

    params = (DEVICES, tuple(NETWORKS))
    param_names = ("device", "network")
    timeout = 300

    def setup(self, where: str, name: str) -> None:
        import pycl_cnn as pc

        target = device(where)
        model = seeded(NETWORKS[name]).eval()
        self.x, _ = batch_of(NETWORKS[name], 1)
        self.program = pc.compile(model, self.x.shape, device=target)
        result = self.program.run(self.x)
        # The reference takes too long for the large ones, which benchmarks/compare checks: here they must give the same bits again.
        if name == "lenet5":
            agree(result, model(self.x, device="reference"))
        if not np.isfinite(result).all() or np.ptp(result) == 0 or not np.array_equal(result, self.program.run(self.x)):
            raise AssertionError(f"{name} gives no sensible result, or not the same twice")

    def time_run(self, where: str, name: str) -> None:
        self.program.run(self.x)


class Compile:
    """Trace, passes, plan and packing of weights; OpenCL programs are built beforehand."""

    params = (DEVICES, ("lenet5", "resnet18"))
    param_names = ("device", "network")
    timeout = 300

    def setup(self, where: str, name: str) -> None:
        self.target = device(where)
        self.model, self.shape = seeded(NETWORKS[name]).eval(), NETWORKS[name].input_shape(1)
        self.time_compile(where, name)

    def time_compile(self, where: str, name: str) -> None:
        import pycl_cnn as pc

        pc.compile(self.model, self.shape, device=self.target)


class Overhead:
    """A program that does next to nothing: what a run costs beside its kernels."""

    params = (DEVICES,)
    param_names = ("device",)

    def setup(self, where: str) -> None:
        import pycl_cnn as pc

        self.program = pc.compile(pc.nn.ReLU(), (1, 1), device=device(where))
        self.x = normal(1, 1)
        agree(self.program.run(self.x), np.maximum(self.x, 0))

    def time_run(self, where: str) -> None:
        self.program.run(self.x)
