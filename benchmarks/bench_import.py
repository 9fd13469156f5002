"""Import time, and peak memory of processes that infer."""

from __future__ import annotations

from .cases import device
from .networks import NETWORKS, batch_of, seeded


class Import:
    """In a new interpreter each time."""

    def timeraw_numpy(self) -> str:
        return "import numpy"

    def timeraw_package(self) -> str:
        return "import pycl_cnn"

    def timeraw_layers(self) -> str:
        """What a script that defines a model imports."""
        return "from pycl_cnn import nn, optim; import pycl_cnn.functional as F"


class Memory:
    """Peak resident memory after building, loading and running a network on the CPU backend."""

    params = ((*((name, 1) for name in NETWORKS), ("resnet18", 16)),)
    param_names = ("(network, batch)",)

    def peakmem_inference(self, case: tuple[str, int]) -> None:
        import pycl_cnn as pc

        name, batch = case
        x, _ = batch_of(NETWORKS[name], batch)
        pc.compile(seeded(NETWORKS[name]).eval(), x.shape, device=device("cpu")).run(x)


class Plan:
    """Bytes that the plan of a network needs, by the plan itself."""

    params = (("inference", "training"), ("lenet5", "mobilenet_v2", "resnet18"))
    param_names = ("kind", "network")
    unit = "bytes"

    def track_peak(self, kind: str, name: str) -> int:
        from .layers import make_program

        program, _ = make_program(name, 1, device("cpu"), kind == "training")
        return program.memory.peak
