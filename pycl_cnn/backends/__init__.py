"""What the operations do on a device: one folder for each backend.

A new backend is one folder and one line here. Modules are imported when a device of theirs is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Backend

BACKENDS = {"cpu": "pycl_cnn.backends.cpu", "opencl": "pycl_cnn.backends.opencl", "reference": "pycl_cnn.backends.reference"}


def backend(name: str) -> Backend:
    """The backend `name`, imported now if it was not yet."""
    return import_module(BACKENDS[name]).BACKEND


__all__ = ["BACKENDS", "backend"]
