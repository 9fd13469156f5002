"""ONNX's own interface to backends (onnx.backend.base), so that its test suite runs against this package unchanged.

    import onnx.backend.test, pycl_cnn.onnx.backend
    onnx.backend.test.BackendTest(pycl_cnn.onnx.backend, __name__)

Devices are "CPU", the native backend, and "OPENCL" or "OPENCL:1", OpenCL's. Needs the package onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError, UnsupportedError
from ..placement import device as find_device
from .model import OnnxModel
from .reader import read

try:
    import onnx
    from onnx.backend.base import Backend, BackendRep
except ImportError as error:  # pragma: no cover
    raise ImportError('pycl_cnn.onnx.backend needs the package onnx: pip install "pycl_cnn[onnx]"') from error


class Prepared(BackendRep):
    """A model made ready for a device."""

    def __init__(self, model: OnnxModel, device: str) -> None:
        self.model, self.device = model, device

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs; `inputs` is a sequence in the model's order, a mapping from names, or a single array."""
        if isinstance(inputs, Mapping):
            result = self.model(inputs, device=self.device)
        else:
            arrays = list(inputs) if isinstance(inputs, Sequence) else [inputs]
            names = [info.name for info in self.model.inputs]
            if len(arrays) > len(names):
                raise ValueError(f"the model has the inputs {names}; received {len(arrays)} arrays")
            result = self.model(dict(zip(names, arrays, strict=False)), device=self.device)
        return result if isinstance(result, tuple) else (result,)


class PyclBackend(Backend):
    """See the module's docstring."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Check and import `model`. Raises UnsupportedError that names the operators which are not supported."""
        super().prepare(model, device, **kwargs)
        imported = OnnxModel(read(model))
        if imported.unsupported:
            raise UnsupportedError(f"onnx: not supported: {', '.join(sorted(imported.unsupported))}")
        return Prepared(imported, _device(device))

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether all operators of the model are supported."""
        try:
            return not OnnxModel(read(model)).unsupported
        except (UnsupportedError, ValueError):
            return False

    @classmethod
    def run_node(cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs of a single node."""
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        names = [name for name in node.input if name]
        arrays = [np.asarray(inputs[name] if isinstance(inputs, Mapping) else array) for name, array in zip(names, inputs, strict=True)]
        infos = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in zip(names, arrays, strict=True)]
        results = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", infos, results)
        opsets = kwargs.get("opset_imports") or [onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version())]
        model = OnnxModel(read(onnx.helper.make_model(graph, opset_imports=opsets)))
        return Prepared(model, _device(device)).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether there is such a device: "CPU", "OPENCL", "OPENCL:1"."""
        try:
            find_device(_device(device))
        except DeviceError:
            return False
        return True


def _device(device: str) -> str:
    """ONNX's name of a device as ours. Raises DeviceError."""
    name = device.strip().lower()
    if name.partition(":")[0] not in ("cpu", "opencl"):
        raise DeviceError(f'device: ONNX\'s backend interface has "CPU" and "OPENCL" here; received "{device}"')
    return "cpu" if name.startswith("cpu") else name


prepare = PyclBackend.prepare
is_compatible = PyclBackend.is_compatible
run_model = PyclBackend.run_model
run_node = PyclBackend.run_node
supports_device = PyclBackend.supports_device

__all__ = ["Prepared", "PyclBackend", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]
