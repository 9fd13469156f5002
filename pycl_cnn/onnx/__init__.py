"""ONNX in and out: `load` reads a model, `export` writes one, `backend` is ONNX's own interface to all of it.

    net = pc.onnx.load("mobilenetv2.onnx")
    y = net(x, device="opencl")
    pc.onnx.export(net, "again.onnx", example_shape=(1, 3, 224, 224))

Each name brings its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import backend
    from .exporter import export
    from .model import OnnxModel, load
    from .reader import read

#: Public name: the module that has it, or that it is.
_HOMES = {"export": "exporter", "load": "model", "OnnxModel": "model", "read": "reader", "backend": "backend"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pycl_cnn.onnx' has no attribute {name!r}")
    module = import_module(f".{_HOMES[name]}", __name__)
    globals()[name] = value = module if name == "backend" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = ["OnnxModel", "backend", "export", "load", "read"]
