"""The OpenCL backend: kernels of kernels_cl/ on every device that an OpenCL driver offers. Only OpenCL C 1.2 is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import DeviceError
from ...graph import Graph, Node
from ...plan import Plan
from ..base import Algorithm, Backend, Device, Memory, Program
from ..ceilings import Ceilings, machine_key, remembered
from ..prelude import Prelude, cut_off

MOST_BYTES = 4 * (2**31 - 1)  # kernels count elements in 32 bits


class OpenClBackend(Backend):
    """See the module's docstring."""

    name = "opencl"

    families = ("winograd_few", "winograd_phases", "winograd_fused", "winograd", "winograd_gradient", "batch_norm", "conv", "conv_weight_gradient", "dropout", "loss", "matmul", "max_pool", "movement", "optimizer", "pack", "pointwise", "reduce", "resample", "softmax")

    def devices(self) -> Sequence[Device]:
        """Raises DeviceError where pyopencl or the driver loader cannot be used."""
        from .devices import OpenCLUnavailable, devices

        try:
            found = devices()
        except OpenCLUnavailable as problem:
            raise DeviceError(str(problem)) from problem
        return [
            Device(
                backend="opencl",
                index=d.index,
                name=d.name,
                kind="gpu" if d.is_gpu else "cpu",
                platform=f"{d.platform} {d.platform_version}",
                driver=d.driver_version,
                memory=d.global_memory,
                largest=min(d.max_allocation * 999 // 1000, MOST_BYTES),  # the pool rounds up
            )
            for d in found
        ]

    def shortage(self, plan: Plan, device: Device) -> str:
        """Pieces longer than the device's largest, or more in all than is left."""
        from .call import device_context

        memory = Memory.of(plan)
        longest = max((*(storage.nbytes for storage in plan.storages), *plan.arenas, *plan.setup_arenas), default=0)
        if device.largest and longest > device.largest:
            return f"{device}: one array needs {longest / 2**20:.2f} MiB, and the longest piece of memory that the device gives is {device.largest / 2**20:.2f} MiB"
        used = device_context(device).pool.active_bytes
        if device.memory and memory.peak > device.memory - used:
            return f"{device}: the program needs {memory}, and of the device's {device.memory / 2**20:.2f} MiB other programs here use {used / 2**20:.2f} MiB"
        return ""

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
