"""ONNX in and out: ``pc.onnx.export(model, "model.onnx", example_shape)``. Each name brings its module when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import export

#: Public name: the module that has it.
_HOMES = {"export": "exporter"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pycl_cnn.onnx' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


__all__ = ["export"]
