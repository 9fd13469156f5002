"""Whole networks: inference, the time to make a program and to be ready, and the overhead of a run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

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


class Batch:
    """Sixteen images at once, and one on one thread, on the CPU backend."""

    params = (((16, 2), (1, 1)),)
    param_names = ("(batch, threads)",)

    def setup(self, size: tuple[int, int]) -> None:
        import pycl_cnn as pc

        batch, threads = size
        network = NETWORKS["resnet18"]
        self.x, _ = batch_of(network, batch)
        self.before = pc.get_num_threads()
        pc.set_num_threads(threads)
        model = seeded(network).eval()
        self.program = pc.compile(model, self.x.shape, device=device("cpu"))
        # An image's result does not depend on those beside it.
        agree(self.program.run(self.x)[:1], pc.compile(model, network.input_shape(1), device=device("cpu")).run(self.x[:1]))

    def teardown(self, size: tuple[int, int]) -> None:
        import pycl_cnn as pc

        pc.set_num_threads(self.before)

    def time_run(self, size: tuple[int, int]) -> None:
        self.program.run(self.x)


class Ready:
    """Weights from a file, a program, the first result."""

    params = (DEVICES,)
    param_names = ("device",)
    timeout = 300

    def setup(self, where: str) -> None:
        import pycl_cnn as pc

        self.target, self.network = device(where), NETWORKS["resnet18"]
        self.x, _ = batch_of(self.network, 1)
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "weights.safetensors"
        model = seeded(self.network)
        pc.save(model, self.path)
        agree(self.first_result(), pc.compile(model.eval(), self.x.shape, device=self.target).run(self.x))

    def teardown(self, where: str) -> None:
        self.folder.cleanup()

    def first_result(self) -> np.ndarray:
        import pycl_cnn as pc

        model = self.network.build().eval()
        pc.load_weights(model, self.path)
        return pc.compile(model, self.x.shape, device=self.target).run(self.x)

    def time_ready(self, where: str) -> None:
        self.first_result()


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
        self.out = np.empty_like(self.x)
        agree(self.program.run(self.x, out=self.out), np.maximum(self.x, 0))

    def time_run(self, where: str) -> None:
        self.program.run(self.x)

    def time_run_on_given_arrays(self, where: str) -> None:
        self.program.run(self.x, out=self.out)
