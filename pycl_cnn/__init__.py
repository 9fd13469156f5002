"""pycl_cnn: convolutional networks inferred and trained on any vendor's hardware, through OpenCL or a Cython CPU backend.

Importing it loads nothing else: each name brings its module when it is first used, and OpenCL is looked for when a device is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, functional, models, nn, onnx, optim
    from . import functional as F
    from .backends.cpu.threads import get_num_threads, set_num_threads
    from .compiler import compile, value_and_grad
    from .errors import DeviceError, DeviceWarning, DtypeError, FormatError, PyclError, ShapeError, UnsupportedError
    from .formats.weights import load_weights, save
    from .placement import device, devices
    from .random import manual_seed
    from .training.trainer import Trainer

__version__ = "0.1.0"

#: Public name: the module that has it, or that it is.
_HOMES = {
    **dict.fromkeys(("DeviceError", "DeviceWarning", "DtypeError", "FormatError", "PyclError", "ShapeError", "UnsupportedError"), "errors"),
    **dict.fromkeys(("compile", "value_and_grad"), "compiler"),
    **dict.fromkeys(("device", "devices"), "placement"),
    **dict.fromkeys(("get_num_threads", "set_num_threads"), "backends.cpu.threads"),
    **dict.fromkeys(("load_weights", "save"), "formats.weights"),
    **{name: name for name in ("data", "functional", "models", "nn", "onnx", "optim")},
    "F": "functional",
    "Trainer": "training.trainer",
    "manual_seed": "random",
}
_MODULES = ("F", "data", "functional", "models", "nn", "onnx", "optim")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pycl_cnn' has no attribute {name!r}")
    module = import_module(f".{_HOMES[name]}", __name__)
    globals()[name] = value = module if name in _MODULES else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [
    "DeviceError",
    "DeviceWarning",
    "DtypeError",
    "F",
    "FormatError",
    "PyclError",
    "ShapeError",
    "Trainer",
    "UnsupportedError",
    "compile",
    "data",
    "device",
    "devices",
    "functional",
    "get_num_threads",
    "load_weights",
    "manual_seed",
    "models",
    "nn",
    "onnx",
    "optim",
    "save",
    "set_num_threads",
    "value_and_grad",
]
