"""Small ONNX models for the tests, and where the real ones are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx (the extra `onnx`)")

from onnx import TensorProto, helper  # noqa: E402 - after importorskip

#: Real models, where the folder is there.
MODELS = Path(os.environ.get("PYCL_CNN_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "models"
REAL = sorted(MODELS.glob("*.onnx"))
real_models = pytest.mark.parametrize("path", REAL or [pytest.param(None, marks=pytest.mark.skip(reason=f"no models in {MODELS}"))], ids=lambda path: getattr(path, "stem", "none"))


def info(name: str, shape: Sequence[Any] | None = (2, 3), elem_type: int = TensorProto.FLOAT) -> Any:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, elem_type, shape)


def model(nodes: Sequence[Any], inputs: Sequence[Any] = ("x",), outputs: Sequence[Any] = ("y",), initializers: Sequence[Any] = (), **more: Any) -> Any:
    """A ModelProto of these nodes; inputs and outputs are names or value infos."""
    infos = [[info(item) if isinstance(item, str) else item for item in items] for items in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "g", *infos, list(initializers))
    more.setdefault("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, ir_version=more.pop("ir_version", 8), **more)


def relu(source: str = "x", target: str = "y", **more: Any) -> Any:
    """A Relu node."""
    return helper.make_node("Relu", [source], [target], **more)
