"""An imported model: a module like any other, with the names of the file."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError, UnsupportedError
from ..functional.door import NCHW_TO_NHWC, NHWC_TO_NCHW
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..ops.base import FLOAT
from ..placement import device as find_device
from ..trace import Call, Symbol, active_tracer
from .importer import Budget, Importer, Scope, SplitsModel, as_value
from .node import NeedsValue, Tensor
from .operators.sequences import as_python, items, nothing
from .operators.table import operators
from .reader import ModelFile, NodeFile, ValueInfo, read
from .stages import Runner
from .weights import names_read, needed, unpacked, weights

#: Opsets that the operators' meanings are known of (of those before 7 the forms that later ones kept, and their broadcasting).
OLDEST_OPSET, NEWEST_OPSET = 1, 28


def load(source: str | os.PathLike[str] | bytes | Any) -> OnnxModel:
    """The model in an ONNX file, in its bytes, or in an `onnx.ModelProto`: a :class:`OnnxModel` in eval() mode.

    Raises FormatError for what is no sound model, UnsupportedError for what is not supported, both with the node's name.
    """
    return OnnxModel(read(source))


class OnnxModel(Module):
    """A model that was read from an ONNX file.

    ``net(x)``, ``net(x, y)`` and ``net({"data": x})`` run it; the result is an array, or a tuple for several outputs. `inputs` and
    `outputs` tell names, dtypes and shapes, symbolic sizes as text. Initializers are its parameters, with their names in the file:
    it trains, freezes, saves and compiles like any other module, and may be a part of one.

    In eval() mode, which it begins in, it is what the file says. After train() dropouts drop and batch normalisations take the
    batch's statistics, as in PyTorch.
    """

    def __init__(self, file: ModelFile) -> None:
        for domain, version in file.opsets.items():
            if domain == "" and not OLDEST_OPSET <= version <= NEWEST_OPSET:
                raise UnsupportedError(
                    f"onnx: the model uses opset {version}; supported are {OLDEST_OPSET} to {NEWEST_OPSET} (onnx.version_converter converts models)"
                )
        self.file = file
        graph, constants = unpacked(file.graph, file.opsets.get("", 1))
        self._tensors, self._constants = weights(graph, constants, file.functions)
        self.nodes: tuple[NodeFile, ...] = needed(graph)
        self.inputs: tuple[ValueInfo, ...] = graph.inputs
        self.outputs: tuple[ValueInfo, ...] = graph.outputs
        self.alive = self._alive()
        self.bound: dict[Any, frozenset[str]] = {}
        self._training = False

    def _alive(self) -> list[list[str]]:
        """Before each node, and behind the last: the names that are given and still read."""
        reads = [{*names_read([node])} for node in self.nodes]
        later = {info.name for info in self.outputs}
        needed = [later]
        for names, node in zip(reversed(reads), reversed(self.nodes), strict=True):
            later = (later - set(node.outputs)) | names
            needed.append(later)
        fixed = {*self._tensors, *self._constants}
        return [sorted(names - fixed) for names in reversed(needed)]

    def __deepcopy__(self, memo: dict) -> OnnxModel:
        """A model with weights of its own; the file is shared, since nobody writes to it."""
        twin = copy.copy(self)
        twin._tensors = copy.deepcopy(self._tensors, memo)
        twin.bound = {}
        return twin

    # ---- parts --------------------------------------------------------------------------------------------------------

    def own_tensors(self) -> list[tuple[str, Parameter]]:
        return list(self._tensors.items())

    def constant(self, name: str) -> np.ndarray:
        """The elements of an initializer."""
        if name in self._tensors:
            return self._tensors[name].data
        if name not in self._constants:
            raise ShapeError("onnx", "this name has no value here", name=name)
        return self._constants[name]

    def tensor(self, name: str) -> Tensor:
        """An initializer in the active trace: a weight as a state, anything else as it is."""
        if name not in self._tensors:
            return self.constant(name)
        tracer = active_tracer()
        assert tracer is not None
        return tracer.state(self._tensors[name])

    def example_dtypes(self, count: int) -> tuple[Any, ...]:
        return tuple(info.dtype or FLOAT for info in self.inputs) if count == len(self.inputs) else super().example_dtypes(count)

    @cached_property
    def unsupported(self) -> dict[str, str]:
        """Operators of the model that are not supported, with a node that uses each."""
        table = operators()
        known = {*table, "If", "Loop", "Scan"}
        return {node.operator: node.label for node in self.nodes if (node.domain, node.op, node.overload) not in self.file.functions and (node.domain != "" or node.op not in known)}

    # ---- running ------------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """In a trace: the graph of the whole model."""
        names = [info.name for info in self.inputs]
        given = dict(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], Mapping) else dict(zip(names, inputs, strict=False))
        if len(inputs) > len(names) or set(given) != set(names):
            raise ShapeError("onnx", f"the inputs {names} must be given once each", given=sorted(given))
        scope = Scope({name: given[name] for name in names}, self.tensor)
        importer = Importer(self.file.functions, self.file.opsets, self.training, Budget.of(self.file))
        tracer = active_tracer()
        assert tracer is not None
        try:
            for node in self.nodes:
                first = tracer.graph.serial
                importer.step(node, scope)
                result = scope.tensors[next(name for name in node.outputs if name)]
                part = _Part(node.op, {name: self._tensors[name] for name in node.inputs if name in self._tensors})
                tracer.calls.append(Call(node.name or node.outputs[0], part, first, tracer.graph.serial, result))
        except (NeedsValue, SplitsModel) as error:
            raise UnsupportedError(f"{error}; called as net(x) the model runs in stages, but one program cannot hold it") from None
        results = tuple(Symbol(as_value(scope.get(info.name))) for info in self.outputs)
        return results[0] if len(results) == 1 else results

    def __call__(self, *inputs: Any, device: Any = None, layout: str = "NCHW", precision: str = "fast") -> Any:
        """Apply the model to arrays, in order or as one mapping from names. Raises ShapeError, DtypeError, UnsupportedError."""
        if active_tracer() is not None:
            return super().__call__(*inputs)
        arrays = self.arrays(inputs, layout)
        results = Runner(self, find_device(device), precision).run(arrays)
        if layout == "NHWC":
            results = tuple(np.ascontiguousarray(y.transpose(NCHW_TO_NHWC)) if y.ndim == 4 else y for y in results)
        results = tuple(as_python(y) if info.dtype is None else y for info, y in zip(self.outputs, results, strict=True))
        return results[0] if len(results) == 1 else results

    def explain(self, *inputs: Any, device: Any = None) -> str:
        """What a call on such arrays runs: a table of the steps of each of its programs."""
        programs = Runner(self, find_device(device)).programs(self.arrays(inputs))
        return "\n\n".join(program.explain() for program in programs)

    def arrays(self, inputs: tuple[Any, ...], layout: str = "NCHW") -> dict[str, np.ndarray]:
        """The inputs by name, of the dtypes and shapes that the model wants."""
        if layout not in ("NCHW", "NHWC"):
            raise ShapeError("layout", 'must be "NCHW" or "NHWC"', layout=layout)
        names = [info.name for info in self.inputs]
        given = dict(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], Mapping) else dict(zip(names, inputs, strict=False))
        if set(given) != set(names) or (len(inputs) > 1 and len(inputs) != len(names)):
            raise ShapeError("onnx", f"the inputs {names} must be given once each", given=sorted(given), positional=len(inputs))
        symbols: dict[str, int] = {}
        arrays = {}
        for info in self.inputs:
            array = _as_array(info, given[info.name])
            if layout == "NHWC" and array.ndim == 4:
                array = np.ascontiguousarray(array.transpose(NHWC_TO_NCHW))
            _check_shape(info, array.shape, symbols)
            arrays[info.name] = array
        return arrays

    def __repr__(self) -> str:
        parts = [", ".join(f"{info.name}: {info.dtype}{list(info.shape or ())}" for info in infos) for infos in (self.inputs, self.outputs)]
        return f"OnnxModel({parts[0]} -> {parts[1]}; {len(self.nodes)} nodes)"


class _Part(Module):
    """A node and its weights, for summaries."""

    def __init__(self, kind: str, tensors: Mapping[str, Parameter]) -> None:
        self._kind, self._tensors = kind, tensors

    @property
    def kind(self) -> str:
        return self._kind

    def own_tensors(self) -> list[tuple[str, Parameter]]:
        return list(self._tensors.items())


def _as_array(info: ValueInfo, value: Any) -> np.ndarray:
    """`value` as an array of the input's dtype. Raises DtypeError."""
    if info.dtype is None:  # a sequence or an optional value
        if isinstance(value, list | tuple):
            return items(np.asarray(item) for item in value)
        return nothing() if value is None else np.asarray(value)
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    array = np.asarray(value)
    if array.dtype != info.dtype:
        same = array.dtype.kind == info.dtype.kind or (array.dtype.kind in "iu" and info.dtype.kind in "iuf") or not isinstance(value, np.ndarray)
        converted = array.astype(info.dtype) if same else array
        if not same or (info.dtype.kind in "iu" and not np.array_equal(converted, array)):
            raise DtypeError(f"onnx: input {info.name!r} must be {info.dtype}; received {array.dtype}")
        array = converted
    return np.asarray(array, order="C")


def _check_shape(info: ValueInfo, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    """The shape must be the input's; a symbol has one value in a call."""
    if info.shape is None:
        return
    fits = len(shape) == len(info.shape)
    for wanted, n in zip(info.shape, shape, strict=False):
        if isinstance(wanted, str):
            wanted = symbols.setdefault(wanted, n)
        fits = fits and wanted in (None, n)
    if not fits:
        raise ShapeError("onnx", f"input {info.name!r} must have the shape {list(info.shape)}", given=shape, sizes=symbols)
