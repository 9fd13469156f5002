"""The exceptions that users meet. Each message names the operation, the rule and the values received."""

from __future__ import annotations


class PyclError(Exception):
    """Base of every error that pycl_cnn raises on purpose."""


class ShapeError(PyclError, ValueError):
    """An operation was given shapes or attributes that it cannot combine."""

    def __init__(self, operation: str, rule: str, **received: object) -> None:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        super().__init__(f"{operation}: {rule}" + (f"; received {values}" if values else ""))
        self.operation = operation


class DtypeError(PyclError, TypeError):
    """An operation was given an array of a dtype that makes no sense for it."""


class DeviceError(PyclError, RuntimeError):
    """No such device, or the device cannot do what is asked of it."""


class DeviceMemoryError(DeviceError):
    """The device has too little memory for a program. `available` bytes could be had where the driver refused more, else 0."""

    def __init__(self, message: str, available: int = 0) -> None:
        super().__init__(message)
        self.available = available


class DeviceWarning(UserWarning):
    """A device does something wrong, and what takes its place."""


class UnsupportedError(PyclError, NotImplementedError):
    """A backend has no algorithm for an operation."""


class FormatError(PyclError, ValueError):
    """A file is not what it claims to be, or does not fit the model."""


class DivergenceError(PyclError, ArithmeticError):
    """Training arrived at a loss or a weight that is no finite number."""
