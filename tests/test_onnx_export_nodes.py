"""Every operator that can be imported and said in the operator set that is written comes out as it went in: ONNX's own tests, exported.

onnxruntime gives the results of the exported models that the imported ones have here; what cannot be written is refused with a reason.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.onnx_files import TensorProto, info, onnx
from helpers.onnx_files import model as onnx_model
from helpers.scripts import documentation

import pycl_cnn as pc
from pycl_cnn.onnx.exporter import to_proto

onnxruntime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
docs = documentation("generate_onnx")
PASSING = {name for name, state in json.loads(docs.DATA.read_text(encoding="utf-8"))["tests"].items() if state == "pass"}

#: What refusals say: the model runs in stages, or the operator set that is written says it otherwise or not at all.
REASONS = ("when the plan is made", "result is text", "which is written", "there is no ONNX operator", "dropout", "must be")


def _results(proto, arrays):
    """onnxruntime's, or None where it has no kernel for an element type, or no way to give it to NumPy."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip([item.name for item in session.get_inputs()], arrays, strict=True)))
    except Exception as error:
        if any(reason in str(error) for reason in ("NOT_IMPLEMENTED", "No corresponding Numpy type", "be converted to MLDataType")):
            return None
        raise


def _same(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype == np.uint8 and expected.dtype.itemsize == 1:  # onnxruntime gives floats of eight bits as their bits
        expected = expected.view(np.uint8)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.kind in "iubUO":
        return np.array_equal(found, expected)
    coarse = found.dtype.itemsize < 4
    return np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=2e-2 if coarse else 1e-4, atol=1e-2 if coarse else 1e-5, equal_nan=True)


def test_every_operator():
    written, wrong, refused = [], {}, []
    for case in docs.cases():
        if case.kind != "node" or case.name not in PASSING:
            continue
        model = pc.onnx.load(case.model.SerializeToString())
        given = dict(zip([item.name for item in case.model.graph.input], case.data[0][0], strict=False))
        arrays = [given[item.name] for item in model.inputs]
        if any(not isinstance(array, np.ndarray | np.generic) or np.asarray(array).dtype.hasobject for array in arrays):
            continue  # sequences, optional values, texts
        arrays = [np.asarray(array) for array in arrays]
        try:
            proto = to_proto(model, [(array.shape, array.dtype) for array in arrays], dynamic_batch=False)
        except pc.UnsupportedError as error:
            refused.append((case.name, str(error)))
            continue
        onnx.checker.check_model(proto, full_check=True)
        expected = model(*arrays, device="cpu")
        found = _results(proto, arrays)
        if found is None:
            continue
        written.append(case.name)
        if not all(map(_same, found, expected if isinstance(expected, tuple) else (expected,))):
            wrong[case.name] = found, expected
    assert not wrong, sorted(wrong)
    assert not [item for item in refused if not any(reason in item[1] for reason in REASONS)]
    assert len(written) > 900, len(written)


def _of(opset, op, inputs, outputs=("y",), **attributes):
    node = onnx.helper.make_node(op, [item.name for item in inputs], list(outputs), **attributes)
    return pc.onnx.load(onnx_model([node], inputs, [info(name, None) for name in outputs], opset_imports=[onnx.helper.make_opsetid("", opset)]))


def test_attributes_that_were_renamed():
    model = _of(16, "GridSample", [info("x", [1, 2, 4, 5]), info("grid", [1, 3, 3, 2])], mode="bilinear", align_corners=1)
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((1, 2, 4, 5)).astype(np.float32), rng.uniform(-1.2, 1.2, (1, 3, 3, 2)).astype(np.float32)
    proto = to_proto(model, [(x.shape, x.dtype), (grid.shape, grid.dtype)])
    onnx.checker.check_model(proto, full_check=True)
    assert _same(_results(proto, [x, grid])[0], model(x, grid, device="cpu"))


@pytest.mark.parametrize(
    ("opset", "op", "inputs", "more", "reason"),
    [
        (9, "TopK", [info("x", [3, 4])], {"k": 2, "outputs": ["y", "z"]}, "opset 9 says it otherwise than opset 20"),
        (11, "Hardmax", [info("x", [3, 4])], {}, "opset 11 says it otherwise than opset 20"),
        (25, "BitShift", [info("x", [3], TensorProto.INT8), info("z", [3], TensorProto.INT8)], {"direction": "LEFT"}, "knows it not for int8"),
        (26, "BitCast", [info("x", [3], TensorProto.INT32)], {"to": TensorProto.UINT32}, "has no such operator"),
    ],
)
def test_what_cannot_be_written_is_refused(opset, op, inputs, more, reason):
    model = _of(opset, op, inputs, **more)
    specs = [(tuple(item.shape), item.dtype) for item in model.inputs]
    with pytest.raises(pc.UnsupportedError, match=rf"onnx.export: {op}.*{reason}"):
        to_proto(model, specs, dynamic_batch=False)
