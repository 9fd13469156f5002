"""The native CPU backend: C kernels for each instruction set behind one Cython module. Needs no OpenCL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...graph import Graph
from ...plan import Plan
from ..base import Backend, Device, Program
from ..ceilings import Ceilings, machine_key, remembered
from . import _kernels
from .program import CpuProgram
from .threads import get_num_threads


class CpuBackend(Backend):
    """See the module's docstring."""

    name = "cpu"

    families = ("winograd", "winograd_filters", "batch_norm", "conv_depthwise", "conv", "dropout", "expanded", "loss", "matmul", "max_pool", "movement", "normalised", "optimizer", "pointwise", "reduce", "resample", "softmax")

    def devices(self) -> Sequence[Device]:
        return [Device("cpu", 0, processor_name(), "cpu", "native", f"Cython, {_kernels.active_isa()}", memory())]

    def ceilings(self, device: Device) -> Ceilings:
        from .ceilings import measure

        return remembered(machine_key(device.name, device.driver, f"{get_num_threads()} threads"), measure)

    def join(self, graph: Graph, force: Mapping[str, str]) -> None:
        from .expanded import join_expansions

        join_expansions(graph, force)

    def settle(self, graph: Graph, device: Device, force: Mapping[str, str], precision: str) -> None:
        """Also lets the readers of batch norms normalise, unless an algorithm is forced for those."""
        from .normalised import normalise_at_readers

        super().settle(graph, device, force, precision)
        if "BatchNormTraining" not in force and normalise_at_readers(graph):
            super().settle(graph, device, force, precision)

    def link(self, plan: Plan, device: Device) -> Program:
        return CpuProgram(plan, device)


def processor_name() -> str:
    """The processor as the operating system calls it."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory() -> int:
    """Bytes of main memory, 0 where the operating system does not tell."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


BACKEND = CpuBackend()
