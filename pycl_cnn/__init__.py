"""pycl_cnn: convolutional networks inferred and trained on any vendor's hardware, through OpenCL or a Cython CPU backend.

Importing it loads NumPy and little else; OpenCL is looked for when a device is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import functional as F
from . import nn, optim
from .compile import compile, value_and_grad
from .device import device, devices
from .errors import DeviceError, DtypeError, FormatError, PyclError, ShapeError, UnsupportedError
from .random import manual_seed

__version__ = "0.1.0"

#: Names that are imported when they are first used: they bring in libraries that not everyone needs.
_LAZY = {
    "Trainer": "training.trainer",
    "save": "formats.weights",
    "load_weights": "formats.weights",
    "set_num_threads": "backends.cpu.threads",
    "get_num_threads": "backends.cpu.threads",
    "models": "models",
    "data": "data",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pycl_cnn' has no attribute {name!r}")
    module = import_module(f".{_LAZY[name]}", __name__)
    value = module if name == _LAZY[name] else getattr(module, name)
    globals()[name] = value
    return value


__all__ = [
    "DeviceError",
    "DtypeError",
    "F",
    "FormatError",
    "PyclError",
    "ShapeError",
    "UnsupportedError",
    "compile",
    "device",
    "devices",
    "manual_seed",
    "nn",
    "optim",
    "value_and_grad",
    *_LAZY,
]
