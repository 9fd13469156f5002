"""Search spaces of kernels as data: parameters and their values, rules that a choice must keep, local memory.

A *family* is one kind of work (a product, a weight gradient) that several kernels can do; each kernel has a *space*, a choice out of it
is a *variant*. A *problem* is the work of one step: a family's name and sizes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import field
from typing import Any

from ..records import record


@record
class Limits:
    """What a device allows. Sizes in bytes."""

    is_gpu: bool
    width: int  # floats of the fastest vector
    broken_widths: tuple[int, ...]  # vectors that its compiler or its kernels fail with
    max_work_group: int
    max_work_item_sizes: tuple[int, ...]
    local_memory: int


@record
class Problem:
    """The work of a step: sizes by name, e.g. pixels, outs, reds, taps, groups."""

    family: str
    sizes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, family: str, **sizes: int) -> Problem:
        return cls(family, tuple(sizes.items()))

    def __getitem__(self, name: str) -> int:
        return dict(self.sizes)[name]

    @property
    def key(self) -> str:
        return " ".join(f"{name}={size}" for name, size in self.sizes)

    @classmethod
    def parse(cls, family: str, key: str) -> Problem:
        """The problem with this key. Raises ValueError."""
        return cls(family, tuple((name, int(size)) for name, _, size in (word.partition("=") for word in key.split())))

    @property
    def kind(self) -> tuple[tuple[str, int], ...]:
        """The class of its shape: sizes within a factor of eight or so are of one class; one tap, one group are classes of their own."""
        return tuple((name, math.ceil(math.log2(max(1, size)) / 3)) for name, size in self.sizes)

    def distance(self, other: Problem) -> float:
        """How far the sizes lie apart, in doublings."""
        return sum(abs(math.log2(max(1, a) / max(1, b))) for (_, a), (_, b) in zip(self.sizes, other.sizes, strict=True))


@record
class Variant:
    """A kernel and the values of its parameters."""

    kernel: str
    parameters: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, kernel: str, **parameters: int) -> Variant:
        return cls(kernel, tuple(sorted(parameters.items())))

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Variant:
        """From a dictionary of a file. Raises ValueError."""
        kernel, values = data.get("kernel"), {name: value for name, value in data.items() if name != "kernel"}
        if not isinstance(kernel, str) or not all(type(value) is int for value in values.values()):
            raise ValueError(f"a variant is a kernel and whole numbers, not {dict(data)!r}")
        return cls.of(kernel, **values)

    def __getitem__(self, name: str) -> int:
        return dict(self.parameters)[name]

    def but(self, name: str, value: int) -> Variant:
        """With another value of one parameter."""
        return Variant.of(self.kernel, **{**dict(self.parameters), name: value})

    @property
    def data(self) -> dict[str, Any]:
        return {"kernel": self.kernel, **dict(self.parameters)}

    def __str__(self) -> str:
        return f"{self.kernel} {' '.join(f'{name}={value}' for name, value in self.parameters)}"


@record
class Rule:
    """What a variant must keep, in words and as a condition."""

    text: str
    holds: Callable[[Variant, Problem, Limits], bool]


@record
class Space:
    """A kernel's parameters with their values in order, its usual variant, its rules, and the bytes of local memory of a work-group."""

    kernel: str
    parameters: Mapping[str, tuple[int, ...]]
    usual: Callable[[Problem, Limits], Variant]
    rules: tuple[Rule, ...] = ()
    local_bytes: Callable[[Variant], int] = field(default=lambda variant: 0)

    def broken(self, variant: Variant, problem: Problem, limits: Limits) -> str | None:
        """The first rule that `variant` does not keep; None where it keeps all."""
        given = dict(variant.parameters)
        if set(given) != set(self.parameters):
            return f"the parameters are {', '.join(self.parameters)}"
        for name, value in given.items():
            if value not in self.parameters[name]:
                return f"{name} is one of {self.parameters[name]}"
        for rule in self.rules:
            if not rule.holds(variant, problem, limits):
                return rule.text
        if self.local_bytes(variant) > limits.local_memory:
            return f"{self.local_bytes(variant)} bytes of local memory, of {limits.local_memory}"
        return None

    def variants(self, problem: Problem, limits: Limits) -> Iterator[Variant]:
        """All that keep the rules."""
        for values in itertools.product(*self.parameters.values()):
            variant = Variant.of(self.kernel, **dict(zip(self.parameters, values, strict=True)))
            if self.broken(variant, problem, limits) is None:
                yield variant

    def neighbours(self, variant: Variant) -> Iterator[Variant]:
        """One parameter one step up or down."""
        for name, values in self.parameters.items():
            place = values.index(variant[name])
            for other in (place + 1, place - 1):
                if 0 <= other < len(values):
                    yield variant.but(name, values[other])


@record
class Family:
    """One kind of work: the spaces of the kernels that can do it, the one to be taken where several may first."""

    name: str
    spaces: tuple[Space, ...]

    def default(self, problem: Problem, limits: Limits, refused: Collection[Variant] = ()) -> Variant:
        """What is chosen where nothing is known: the usual variant of the first kernel that the device allows, and that is not refused while
        there is another.
        """
        usual = self.usual(problem, limits)
        return next((variant for variant in usual if variant not in refused), usual[0])

    def usual(self, problem: Problem, limits: Limits) -> list[Variant]:
        """The usual variant of every kernel that the device allows."""
        found = [space.usual(problem, limits) for space in self.spaces]
        return [variant for variant in found if self.broken(variant, problem, limits) is None]

    def broken(self, variant: Variant, problem: Problem, limits: Limits) -> str | None:
        """Why `variant` cannot do `problem` on this device; None where it can."""
        for space in self.spaces:
            if space.kernel == variant.kernel:
                return space.broken(variant, problem, limits)
        return f"{self.name} is done by {', '.join(space.kernel for space in self.spaces)}"

    def variants(self, problem: Problem, limits: Limits) -> Iterator[Variant]:
        """All that this device allows."""
        for space in self.spaces:
            yield from space.variants(problem, limits)

    def neighbours(self, variant: Variant, problem: Problem, limits: Limits) -> list[Variant]:
        """Variants one step away from one that is allowed."""
        (space,) = (space for space in self.spaces if space.kernel == variant.kernel)
        return [other for other in space.neighbours(variant) if space.broken(other, problem, limits) is None]
