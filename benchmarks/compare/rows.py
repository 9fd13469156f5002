"""What is measured, who takes part, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from ..networks import NETWORKS


@dataclass(frozen=True)
class Contender:
    """An engine in one configuration; it lives in a process of its own."""

    name: str
    title: str
    module: str  # in contenders/
    ours: bool = False
    device: str = ""  # ours: "cpu", "opencl", "reference"
    runtime: str = ""  # the OpenCL implementation, see runtimes.py
    threads: int = 0  # 0: as many as asked for


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("cpu", "pycl_cnn", "ours", True, "cpu"),
        Contender("cpu-1thread", "pycl_cnn, 1 thread", "ours", True, "cpu", threads=1),
        Contender("reference", "pycl_cnn reference", "ours", True, "reference"),
        Contender("pocl-3.0", "pycl_cnn, PoCL 3.0", "ours", True, "opencl", "pocl-3.0"),
        Contender("pocl-3.1", "pycl_cnn, PoCL 3.1", "ours", True, "opencl", "pocl-3.1"),
        Contender("intel", "pycl_cnn, Intel OpenCL", "ours", True, "opencl", "intel"),
        Contender("torch", "PyTorch", "pytorch"),
        Contender("onnxruntime", "onnxruntime", "onnx_runtime"),
        Contender("openvino", "OpenVINO", "open_vino"),
        Contender("ncnn", "ncnn", "tencent_ncnn"),
        Contender("tinygrad-pocl-3.0", "tinygrad, PoCL 3.0", "tiny_grad", runtime="pocl-3.0"),
        Contender("tinygrad-pocl-3.1", "tinygrad, PoCL 3.1", "tiny_grad", runtime="pocl-3.1"),
    )
}

PEERS = ("torch", "onnxruntime", "openvino", "ncnn")


@dataclass(frozen=True)
class Bar:
    """Ours may be at most `limit` times the best of `over`."""

    limit: float
    over: tuple[str, ...]
    name: str = "bar"  # or "floor", which is what must hold at the very least


@dataclass(frozen=True)
class Row:
    """One measurement: the first contender is the one that is judged."""

    kind: str  # inference, training, memory (peak resident bytes), start (load weights, build, first result), cold (with empty caches)
    network: str
    batch: int
    contenders: tuple[str, ...]
    bars: tuple[Bar, ...] = ()
    section: str = ""

    @property
    def name(self) -> str:
        subject, name = self.contenders[0], f"{self.kind}/{self.network}-b{self.batch}"
        if self.section == "threads":
            return f"threads/{self.network}-b{self.batch}"
        return name if subject == "cpu" else f"{name}@{subject}"

    @property
    def title(self) -> str:
        return f"{NETWORKS[self.network].title}, batch {self.batch}"

    @property
    def trains(self) -> bool:
        return self.kind == "training"


def _inference(network: str, batch: int, limit: float, *floors: Bar) -> Row:
    return Row("inference", network, batch, ("cpu", *PEERS), (*floors, Bar(limit, PEERS)), "inference")


def _training(network: str, batch: int, limit: float, *floors: Bar) -> Row:
    return Row("training", network, batch, ("cpu", "torch"), (*floors, Bar(limit, ("torch",))), "training")


def _memory(network: str, batch: int) -> Row:
    return Row("memory", network, batch, ("cpu", "onnxruntime"), (Bar(1.0, ("onnxruntime",)),), "memory")


def _opencl(kind: str, network: str, batch: int, contenders: tuple[str, ...], *bars: Bar) -> Row:
    return Row(kind, network, batch, contenders, bars, "opencl")


ROWS = (
    _inference("lenet5", 1, 0.8, Bar(2.0, ("onnxruntime",), "floor")),
    _inference("mobilenet_v2", 1, 0.9),
    _inference("resnet18", 1, 0.65, Bar(1.5, ("onnxruntime",), "floor")),
    _inference("resnet50", 1, 0.85),
    _inference("vgg16", 1, 0.5),
    _inference("unet", 1, 0.6),
    _inference("resnet18", 16, 1 / 1.6),
    _training("lenet5", 64, 0.4, Bar(1.0, ("torch",), "floor")),
    _training("resnet18", 8, 0.5),
    _training("mobilenet_v2", 8, 0.5),
    _memory("lenet5", 1),
    _memory("mobilenet_v2", 1),
    _memory("resnet18", 1),
    _memory("resnet50", 1),
    _memory("vgg16", 1),
    _memory("unet", 1),
    _memory("resnet18", 16),
    Row("start", "resnet18", 1, ("cpu", "onnxruntime", "openvino"), (Bar(1.0, ("onnxruntime",)),), "start"),
    Row("inference", "resnet18", 1, ("cpu", "cpu-1thread"), (Bar(1 / 1.8, ("cpu-1thread",)),), "threads"),
    _opencl(
        "inference",
        "resnet18",
        1,
        ("pocl-3.1", "tinygrad-pocl-3.1", "cpu", "onnxruntime"),
        Bar(0.2, ("tinygrad-pocl-3.1",), "floor"),
        Bar(1.25, ("cpu",)),
        Bar(1.0, ("onnxruntime",)),
    ),
    _opencl("inference", "resnet18", 1, ("pocl-3.0", "tinygrad-pocl-3.0"), Bar(0.2, ("tinygrad-pocl-3.0",))),
    _opencl("inference", "resnet18", 1, ("intel", "cpu"), Bar(1.25, ("cpu",))),
    _opencl("inference", "mobilenet_v2", 1, ("pocl-3.0", "tinygrad-pocl-3.0"), Bar(0.2, ("tinygrad-pocl-3.0",))),
    _opencl("training", "lenet5", 64, ("pocl-3.0", "tinygrad-pocl-3.0"), Bar(0.25, ("tinygrad-pocl-3.0",))),
    _opencl("training", "resnet18", 8, ("pocl-3.1", "torch"), Bar(1 / 1.5, ("torch",))),
    _opencl("start", "resnet18", 1, ("pocl-3.1", "pocl-3.0", "cpu")),
    _opencl("cold", "resnet18", 1, ("pocl-3.0", "tinygrad-pocl-3.0"), Bar(1 / 6, ("tinygrad-pocl-3.0",))),
)


def selected(wanted: str) -> list[Row]:
    """The rows whose name or section contains one of the comma-separated words. Raises ValueError where a word selects nothing."""
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words:
        return list(ROWS)
    for word in words:
        if not any(word in row.name or word in row.section for row in ROWS):
            raise ValueError(f"no row contains {word!r}; there are {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if any(word in row.name or word in row.section for word in words)]
