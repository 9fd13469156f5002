"""Records: immutable objects that are equal when their fields are, as ``dataclass(frozen=True)`` makes them, but quick to define.

A frozen dataclass writes six methods as source for each class and compiles them, whenever its module is imported: with as many classes as operations
and algorithms have, a good part of the time until a new process gives its first result (the row "ready to run" of docs/benchmarks.md). Here the
constructor alone is written for each class; the rest is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, overload

C = TypeVar("C")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[C], C]:
        return lambda decorated: decorated


def _values(record: Any) -> tuple[Any, ...]:
    return tuple([getattr(record, name) for name in record._compared])


def _equal(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._shown)})"


def _set(self: Any, name: str, value: object) -> None:
    """For the constructor."""
    if name in self.__dict__ or name not in self._names:
        raise FrozenInstanceError(f"cannot assign to field {name!r} of {type(self).__name__}")
    self.__dict__[name] = value


def _delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r} of {type(self).__name__}")


@overload
def record(cls: type[C]) -> type[C]: ...
@overload
def record(*, eq: bool) -> Callable[[type[C]], type[C]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: Any = None, *, eq: bool = True) -> Any:
    """A class decorator: the annotated attributes become constructor arguments and cannot be set afterwards. With ``eq=False`` each object equals
    itself only. Subclasses with fields of their own must be records, too. `dataclasses.fields`, `replace` and `asdict` work."""
    if cls is None:
        return lambda cls: record(cls) if eq else _made(cls, object.__eq__, object.__hash__)
    return _made(cls, _equal, _hash)


def _made(cls: Any, equal: Any, hashed: Any) -> Any:
    made = dataclass(eq=False, repr=False)(cls)
    items = fields(made)
    made._names = tuple(item.name for item in items)
    made._compared = tuple(item.name for item in items if item.compare)
    made._shown = tuple(item.name for item in items if item.repr)
    for name, method in (("__eq__", equal), ("__hash__", hashed), ("__repr__", _repr), ("__setattr__", _set), ("__delattr__", _delete)):
        if name not in cls.__dict__:
            setattr(made, name, method)
    return made
