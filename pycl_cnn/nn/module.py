"""Module: the base class of layers and models, with PyTorch's ways.

Parameters, buffers and submodules are simply attributes; they are found in the order in which they were assigned.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np

from ..errors import FormatError, ShapeError
from ..trace import active_tracer
from .parameter import Buffer, Parameter

#: PyTorch keeps a batch counter beside the running statistics; it means nothing here, so that reading it is no error.
IGNORED_SUFFIX = "num_batches_tracked"

_versions = count(1)


class Module:
    """A layer or a model: parameters, submodules, and `forward`, which says what it computes.

    Called on arrays it compiles itself for their shapes (a few programs are kept) and runs; called inside another module's
    forward it becomes part of that graph.
    """

    _training = True
    _version = 0  # grows with every attribute that is set or deleted, so that programs made before are not used after

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name != "_training" and active_tracer() is None:
            object.__setattr__(self, "_version", next(_versions))

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        object.__setattr__(self, "_version", next(_versions))

    def forward(self, *inputs: Any) -> Any:
        """What the module computes, written with pycl_cnn.functional, operators and submodules."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    @property
    def kind(self) -> str:
        """What people call such a module, in a summary."""
        return type(self).__name__

    @property
    def training(self) -> bool:
        """Whether layers like dropout and batch norm behave as in training. A trace may decide for the whole model."""
        tracer = active_tracer()
        return self._training if tracer is None or tracer.mode is None else tracer.mode

    def __call__(self, *inputs: Any, device: Any = None, layout: str = "NCHW", precision: str = "fast") -> Any:
        """Apply the module to arrays [n, ...] on `device`. Images are NCHW unless ``layout="NHWC"``.

        ``precision="exact"`` has plain sums of products only, see :func:`pycl_cnn.compile`. Raises ShapeError.
        """
        tracer = active_tracer()
        if tracer is not None:
            return tracer.call(self, inputs)
        from ..compiler import run_module

        return run_module(self, inputs, device, layout, precision)

    # ---- parts ----------------------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with dotted names; a module used twice appears once, or with every name."""
        seen: set[int] = set()

        def walk(module: Module, name: str) -> Iterator[tuple[str, Module]]:
            if remove_duplicate and id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for child_name, child in module.named_children():
                yield from walk(child, f"{name}.{child_name}" if name else child_name)

        return walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def apply(self, function: Callable[[Module], None]) -> Module:
        """Call `function` on this module and all below it, children first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def own_tensors(self) -> list[tuple[str, Parameter]]:
        """The parameters and buffers of this module itself, by name."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Parameter)]

    def named_tensors(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters and buffers under their state_dict names; one that is shared appears under its first name, or under all."""
        seen: set[int] = set()
        for prefix, module in self.named_modules(remove_duplicate=remove_duplicate):
            for name, value in sorted(module.own_tensors(), key=lambda item: isinstance(item[1], Buffer)):
                if not remove_duplicate or id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, value) for name, value in self.named_tensors() if not isinstance(value, Buffer))

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        return ((name, value) for name, value in self.named_tensors() if isinstance(value, Buffer))

    def parameters(self) -> Iterator[Parameter]:
        return (value for _, value in self.named_parameters())

    def buffers(self) -> Iterator[Buffer]:
        return (value for _, value in self.named_buffers())

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Let training change the parameters, or keep them as they are."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def freeze(self, *patterns: str) -> Module:
        """Keep the parameters whose state_dict names match one of the shell patterns ("features*") as they are in training.

        Raises ShapeError for a pattern that matches none.
        """
        return self._let_train(patterns, False)

    def unfreeze(self, *patterns: str) -> Module:
        """Let training change the parameters whose names match again. See :meth:`freeze`."""
        return self._let_train(patterns, True)

    def _let_train(self, patterns: tuple[str, ...], requires_grad: bool) -> Module:
        parameters = dict(self.named_parameters())
        for pattern in patterns:
            matching = fnmatch.filter(parameters, pattern)
            if not matching:
                raise ShapeError("freeze", "a pattern must match a parameter's name", pattern=pattern, names=list(parameters)[:8])
            for name in matching:
                parameters[name].requires_grad = requires_grad
        return self

    def example_dtypes(self, count: int) -> tuple[Any, ...]:
        """The dtypes of so many inputs where only shapes are given."""
        return (np.float32,) * count

    # ---- mode and state -------------------------------------------------------------------------------------------------

    def fingerprint(self) -> tuple[tuple[int, bool], ...]:
        """Equal as long as this module and those below it keep their attributes and modes."""
        return tuple((module._version, module._training) for module in self.modules())

    def train(self, mode: bool = True) -> Module:
        """Training behaviour of dropout and batch norm for this module and all below it."""
        for module in self.modules():
            module._training = mode
        return self

    def eval(self) -> Module:
        """Inference behaviour: ``train(False)``."""
        return self.train(False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name, as read-only arrays; a shared one under every name, as in PyTorch."""
        return {name: value.data for name, value in self.named_tensors(remove_duplicate=False)}

    def misfits(self, shapes: Mapping[str, tuple[int, ...]], strict: bool = True) -> list[str]:
        """What keeps arrays of these names and shapes from being loaded, a line each; `strict` counts missing and unexpected names."""
        own = {name: value.shape for name, value in self.named_tensors(remove_duplicate=False)}
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in own if name not in shapes]
            problems += [f"unexpected: {name}" for name in shapes if name not in own]
        problems += [
            f"shape: {name} is {list(shape)}, the model needs {list(own[name])}"
            for name, shape in shapes.items()
            if name in own and tuple(shape) != own[name]
        ]
        return problems

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Take over arrays by name. Nothing changes unless everything fits.

        Raises FormatError that lists every missing, unexpected (both only when `strict`) and misshapen key.
        """
        own = dict(self.named_tensors(remove_duplicate=False))
        given = {name: np.asarray(value) for name, value in state_dict.items() if name.rpartition(".")[2] != IGNORED_SUFFIX}
        problems = self.misfits({name: value.shape for name, value in given.items()}, strict)
        problems += [f"dtype: {name} is {value.dtype}" for name, value in given.items() if name in own and value.dtype.kind not in "fiu"]
        if problems:
            raise FormatError(f"load_state_dict: the weights do not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for name, value in given.items():
            if name in own:
                own[name].data = value

    def summary(self, input_shape: tuple[int, ...]) -> Any:
        """Per layer output shape, parameters, multiply-adds and memory, for inputs of `input_shape` [n, ...]; printable."""
        from ..report.summary import summarize

        return summarize(self, input_shape)

    # ---- appearance -----------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The module's arguments, for people."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}({extra}\n  " + "\n  ".join(lines) + "\n)"

