"""What `pycl-cnn check` does: the kernels of a device tried anew, and the certificate that says how that went.

Without `full` these are the kernels that a few networks would run on the device; with it every algorithm that takes any of their
nodes, for training too, and every function, reduction, loss and update rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ... import __version__, models, nn, optim
from ... import functional as F
from ...cache import write_json
from ...compiler import Spec, inference_graph, training_graph
from ...errors import DeviceError
from ...geometry import ConvGeometry
from ...graph import Graph
from ...ops.base import floats
from ...ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight, Epilogue
from ...ops.matmul import MatMul
from ...ops.pointwise import BINARY_KINDS, FUSABLE, KINDS, Activation, Binary, Unary, UnaryBackward
from ...ops.reduce import REDUCE_KINDS, Reduce
from ...passes import optimised
from ...plan import does_work, protect
from ...report.profile import table as columns
from ..base import Device
from .check import Unit, Verdict, device_check
from .samples import samples

NETWORKS = {"lenet5": (4, 1, 28, 28), "resnet18": (1, 3, 224, 224), "mobilenet_v2": (1, 3, 224, 224), "unet": (1, 3, 64, 64)}
MORE_NETWORKS = {"resnet18": (4, 3, 96, 96), "all_cnn_c": (3, 3, 32, 32), "mobilenet_v2": (2, 3, 96, 96), "lenet5": (64, 1, 28, 28)}
RULES = (optim.SGD(momentum=0.9, nesterov=True), optim.Adam(), optim.AdamW(), optim.RMSprop(momentum=0.5, centered=True), optim.SGD(), optim.RMSprop())


class Segmentation(nn.Module):
    """What the networks leave out: transposed and dilated convolutions, interpolation, adaptive and average pooling, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(5, 19, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(19, 38, 3, padding=2, dilation=2, groups=19)
        self.up = nn.ConvTranspose2d(38, 7, 3, stride=2, padding=1, output_padding=1)
        self.head = nn.Linear(7 * 4, 6)

    def forward(self, x: Any) -> Any:
        y = F.log_softmax(F.gelu(self.up(F.leaky_relu(self.wide(F.relu6(self.down(x)))))), 1)
        y = F.cat([y, F.interpolate(F.avg_pool2d(y, 2), scale_factor=2, mode="bilinear")], 1)[:, 3:10]
        return F.softmax(self.head(F.flatten(F.adaptive_avg_pool2d(F.dropout(F.pad(y, (1, 0, 2, 1)), 0.25, training=True), 2), 1)), 1)


def _graphs(full: bool) -> Iterator[Graph]:
    for name, shape in NETWORKS.items():
        yield inference_graph(models.build(name), [(shape, np.float32)])
    yield _training(models.build("lenet5"), NETWORKS["lenet5"], RULES[0])
    if full:
        for (name, shape), rule in zip(MORE_NETWORKS.items(), RULES, strict=False):
            yield _training(models.build(name), shape, rule)
        yield _training(Segmentation(), (2, 5, 12, 14), RULES[4])
        yield _training(Segmentation(), (2, 5, 12, 14), RULES[5])
        yield _single_operations()
        yield _register_blocks()


def _training(model: nn.Module, shape: Sequence[int], rule: optim.Optimizer) -> Graph:
    target: Spec = ((shape[0],), np.int32)
    return training_graph(model, nn.CrossEntropyLoss(label_smoothing=0.1), rule.rule, [(tuple(shape), np.float32)], target)


def _single_operations() -> Graph:
    """A node for every function of one and two variables, every reduction, every fused activation."""
    graph = Graph()
    x, w = graph.input("x", (13, 37)), graph.input("w", (37, 21))
    functions = [Activation(kind, 1.5, 2.5) for kind in KINDS if kind != "none"]
    graph.outputs = [graph.apply(Unary(f), x) for f in functions]
    graph.outputs += [graph.apply(UnaryBackward(f), x, x) for f in functions]
    graph.outputs += [graph.apply(Binary(kind), x, x) for kind in BINARY_KINDS]
    graph.outputs += [graph.apply(Reduce(kind, axes), x) for kind in REDUCE_KINDS for axes in ((0,), (1,))]
    graph.outputs += [graph.apply(MatMul(epilogue=Epilogue(activation=f)), x, w) for f in functions if f.kind in FUSABLE]
    return graph


def _register_blocks() -> Graph:
    """Convolutions of every class of sizes, forward and both gradients: algorithms choose their blocks by them."""
    graph = Graph()
    for groups, c, k in ((1, 67, 67), (1, 19, 131), (1, 131, 13), (67, 67, 67)):
        g = ConvGeometry.forward("check", (2, 47, 47, c), (k, 3, 3, c // groups), padding=1, groups=groups)
        shapes = {Conv: (g.input_shape, g.weight_shape), ConvBackwardInput: (g.output_shape, g.weight_shape), ConvBackwardWeight: (g.input_shape, g.output_shape)}
        for kind, operands in shapes.items():
            for op, specs in samples(kind(g), [floats(*shape) for shape in operands]):
                name = f"x{len(graph.inputs)}"
                graph.outputs += graph.add(op, *(graph.input(f"{name}.{number}", spec.shape) for number, spec in enumerate(specs)))
    return graph


def units(device: Device, full: bool) -> list[Unit]:
    """What is to be checked on a device."""
    from . import BACKEND

    check, found = device_check(device.index), dict[str, Unit]()
    for graph in _graphs(full):
        optimised(graph)
        BACKEND.prelude(graph)
        protect(graph)
        for node in graph.nodes():
            if not does_work(node):
                continue
            table = BACKEND.algorithms.get(type(node.op), []) if full else list(BACKEND.candidates(node, device, {}))[:1]
            for algorithm in table:
                unit = check.unit(node, algorithm) if algorithm.supports(node, device) else None
                if unit is not None:
                    found[unit.key] = unit
    return list(found.values())


def certify(device: Device, full: bool, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Try the kernels of a device anew; the certificate. `progress` is told how many units are done, of how many."""
    check, wanted, verdicts = device_check(device.index), units(device, full), list[Verdict]()
    start = time.perf_counter()
    for first in range(0, len(wanted), 16):
        progress(first, len(wanted))
        verdicts += check.examine(wanted[first : first + 16], again=True)
    progress(len(wanted), len(wanted))
    return {
        "device": device.name,
        "label": device.label,
        "kind": device.kind,
        "platform": device.platform,
        "driver": device.driver,
        "pycl_cnn": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "full": full,
        "seconds": round(time.perf_counter() - start, 1),
        "passed": sum(verdict.ok for verdict in verdicts),
        "failed": sum(not verdict.ok for verdict in verdicts),
        "checks": [asdict(verdict) for verdict in verdicts],
    }


def _short(kernel: str) -> str:
    """A kernel's entry with the parameters that are not the whole device's."""
    entry, *options = kernel.split()
    own = [o.removeprefix("-D") for o in options if o.startswith("-D") and o.split("=")[0] not in ("-DVEC", "-DMULTIPLY_ADD", "-DWORK_GROUP", "-DLOCAL_MEMORY")]
    return entry.partition(".")[2] + (f"[{' '.join(own)}]" if own else "")


def table(certificate: dict[str, Any]) -> str:
    """A certificate for people, failures last."""
    rows = [("what", "kernels", "error", "allowed", "verdict")]
    for check in sorted(certificate["checks"], key=lambda check: (not check["ok"], check["what"])):
        kernels = ", ".join(dict.fromkeys(map(_short, check["kernels"])))
        numbers = (f"{check['error']:.1e}", f"{check['allowed']:.1e}") if check["allowed"] else ("", "")
        rows.append((check["what"], kernels, *numbers, "ok" if check["ok"] else f"FAILS: {check['problem']}"))
    end = f"{certificate['label']} ({certificate['device']}, {certificate['platform']}): {certificate['passed']} pass, {certificate['failed']} fail, {certificate['seconds']:g} s"
    return f"{columns(rows)}\n{end}"


def run(spec: str | None, full: bool, path: str) -> int:
    """`pycl-cnn check`: tables on screen, the certificates in a file; status 0 where all passes, 1 where something fails. Raises DeviceError, OSError."""
    from ...placement import device as find_device
    from . import BACKEND

    found = [find_device(spec)] if spec else list(BACKEND.devices())
    if not found or found[0].backend != "opencl":
        named = f"{found[0]} compiles no kernels; name an OpenCL device" if found else "there is no OpenCL device"
        raise DeviceError(f"check: {named} (pycl-cnn devices lists them, pycl-cnn doctor says what is missing)")
    certificates = []
    for device in found:
        with tqdm(desc=f"{device}", unit="check", leave=False, disable=None) as bar:

            def progress(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            certificates.append(certify(device, full, progress))
        print(table(certificates[-1]))
    write_json(Path(path), {"certificates": certificates})
    print(f"wrote {path}")
    return int(any(certificate["failed"] for certificate in certificates))
