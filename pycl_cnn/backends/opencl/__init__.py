"""The OpenCL backend: kernels of kernels_cl/ on every device that an OpenCL driver offers. Only OpenCL C 1.2 is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import DeviceError
from ...graph import Graph, Node
from ...plan import Plan
from ..ceilings import Ceilings, machine_key, remembered
from ..base import Algorithm, Backend, Device, Program
from ..prelude import Prelude, cut_off


class OpenClBackend(Backend):
    """See the module's docstring."""

    name = "opencl"

    families = ("winograd", "batch_norm", "conv", "conv_weight_gradient", "dropout", "loss", "matmul", "max_pool", "movement", "optimizer", "pack", "pointwise", "reduce", "resample", "softmax")

    def devices(self) -> Sequence[Device]:
        """Raises DeviceError where pyopencl or the driver loader cannot be used."""
        from .devices import OpenCLUnavailable, devices

        try:
            found = devices()
        except OpenCLUnavailable as problem:
            raise DeviceError(str(problem)) from problem
        return [
            Device("opencl", d.index, d.name, "gpu" if d.is_gpu else "cpu", f"{d.platform} {d.platform_version}", d.driver_version, d.global_memory)
            for d in found
        ]

    def prelude(self, graph: Graph) -> Prelude | None:
        return cut_off(graph)

    def ceilings(self, device: Device) -> Ceilings:
        from .call import device_context
        from .ceilings import measure

        return remembered(machine_key(device.platform, device.name, device.driver), lambda: measure(device_context(device)))

    def examine(self, choices: Sequence[tuple[Node, Iterable[Algorithm]]], device: Device) -> None:
        from .check import device_check

        device_check(device.index).examine_first(choices)

    def problem(self, algorithm: Algorithm, node: Node, device: Device) -> str:
        from .check import device_check

        return device_check(device.index).problem(node, algorithm)

    def link(self, plan: Plan, device: Device) -> Program:
        from .call import device_context
        from .program import OpenClProgram

        return OpenClProgram(plan, device, device_context(device))


BACKEND = OpenClBackend()
