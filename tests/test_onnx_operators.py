"""Single operators at the edges of their rules, against onnxruntime: known inputs are folded, others run on the device."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.onnx_files import TensorProto, helper, info, model, onnx

import pycl_cnn as pc

onnxruntime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
INF = np.inf


def single(op, arrays, opset, outputs=1, **attributes):
    """A model of one node: its first input is the model's, the others are initializers."""
    names = [f"x{i}" for i in range(len(arrays))]
    known = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in zip(names[1:], arrays[1:], strict=True)]
    x = np.asarray(arrays[0])
    given = helper.make_tensor_value_info("x0", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    results = [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)]
    node = helper.make_node(op, names, [item.name for item in results], **attributes)
    graph = helper.make_graph([node], "test", [given], results, known)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)), x


def check(op, arrays, device, opset=17, outputs=1, **attributes):
    """Both give the same."""
    model, x = single(op, arrays, opset, outputs, **attributes)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    expected = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"]).run(None, {"x0": x})
    found = pc.onnx.load(model)({"x0": x}, device=device)
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        assert a.dtype == b.dtype
        if a.dtype.hasobject:
            assert a.tolist() == b.tolist()
        else:
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def line(n, dtype=np.float32):
    return np.arange(n, dtype=dtype).reshape(1, 1, 1, n)


# ---- Resize -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_places_of_given_sizes_are_exact(device, mode, dtype):
    """36 / 14 is no float: output 18 lies at pixel 7 and not before it."""
    for size, out in [(14, 36), (3, 7), (5, 9), (7, 3), (49, 98), (25, 41)]:
        model, x = single("Resize", [line(size, dtype), np.float32([]), np.float32([]), np.array([1, 1, 1, out])], 17, mode="nearest", coordinate_transformation_mode=mode, nearest_mode="floor")
        half = 1 if mode == "half_pixel" else 0
        places = [((2 * i + half) * size - half * out) // (2 * out) for i in range(out)]
        np.testing.assert_array_equal(pc.onnx.load(model)({"x0": x}, device=device).ravel(), np.clip(places, 0, size - 1))


def test_resize_by_sizes(device):
    for mode in ("nearest", "linear"):
        check("Resize", [line(14), np.float32([]), np.float32([]), np.array([1, 1, 1, 36])], device, mode=mode, coordinate_transformation_mode="asymmetric", **({"nearest_mode": "floor"} if mode == "nearest" else {}))


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_that_keeps_the_aspect_ratio(device, policy):
    x = np.arange(14 * 15, dtype=np.float32).reshape(1, 1, 14, 15)
    arrays = [x, np.float32([]), np.float32([]), np.array([36, 40])]
    check("Resize", arrays, device, 19, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor", axes=[2, 3], keep_aspect_ratio_policy=policy)


@pytest.mark.parametrize(("size", "scale"), [(5, 0.6), (7, 0.3), (6, 0.7), (10, 0.35), (7, 0.7), (30, 0.1), (5, 1.5), (6, 8 / 3)])
def test_old_nearest_takes_the_next_pixel_of_smaller_images(device, size, scale):
    check("Resize", [line(size), np.float32([1, 1, 1, scale])], device, 10, mode="nearest")


@pytest.mark.parametrize("scale", [8 / 3, 5 / 3, 1.9, 0.7])
def test_places_of_scales_are_as_exact_as_these(device, scale):
    check("Resize", [line(30), np.float32([]), np.float32([1, 1, 1, scale])], device, 13, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


# ---- shapes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [-100, -7, -6, -1, 0, 2, 7])
@pytest.mark.parametrize("step", [-1, -4])
def test_slice_backwards(device, start, step):
    for dtype in (np.float32, np.int64):
        for end in (-100, -7, -6, 0, 1, 7):
            check("Slice", [np.arange(6, dtype=dtype), np.array([start]), np.array([end]), np.array([0]), np.array([step])], device)


@pytest.mark.parametrize("pads", [(-4, 3), (3, -4), (-4, 5), (-3, 0), (-3, 2), (-1, 2), (2, -1)])
def test_pad_where_more_is_cropped_than_there_is(device, pads):
    for dtype in (np.float32, np.int64):
        check("Pad", [np.arange(1, 4, dtype=dtype), np.array(pads), np.array(7, dtype)], device, 19)


@pytest.mark.parametrize(
    ("mode", "pads"),
    [(mode, pads) for mode in ("wrap", "edge") for pads in [(-1, 2), (2, -1), (-1, 5), (-2, 3), (-3, 4), (2, -2)]] + [("reflect", (-1, 2)), ("reflect", (2, -1))],
)
def test_pad_crops_before_it_repeats(device, mode, pads):
    check("Pad", [np.arange(4, dtype=np.float32), np.array(pads)], device, 19, mode=mode)


def test_pad_cannot_repeat_what_was_cropped(device):
    model, x = single("Pad", [np.arange(4, dtype=np.float32), np.array([-4, 5])], 19, mode="wrap")
    with pytest.raises(pc.ShapeError, match="there is nothing to repeat"):
        pc.onnx.load(model)({"x0": x}, device=device)


# ---- elements -----------------------------------------------------------------------------------------------------------


def test_log_sum_exp_of_infinities(device):
    x = np.array([[-INF, -INF], [INF, 1], [1, 2], [INF, -INF], [-INF, 3], [90, 90]], np.float32)
    check("ReduceLogSumExp", [x], device, axes=[1])
    check("ReduceLogSumExp", [x.T], device, axes=[0], keepdims=0)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_log_sum_exp_of_integers(device, dtype):
    check("ReduceLogSumExp", [np.array([[1, 2], [3, 4], [1, 200]], dtype)], device, axes=[1])


NUMBERS = np.array([1, 2.5, -0.0, INF, -INF, np.nan, 1e20, 1e-7, 0.1, 1 / 3, 123456789, 16777216, 1e7, 12345.678, 1e-5, 3.4e38])


@pytest.mark.parametrize(
    "x", [NUMBERS.astype(np.float32), NUMBERS, NUMBERS[:6].astype(np.float16), np.array([[1, -3]], np.int8), np.array([2**64 - 1], np.uint64), np.array([True, False]), np.float32(2)], ids=lambda x: str(x.dtype)
)
def test_numbers_as_texts(device, x):
    check("Cast", [x], device, to=onnx.TensorProto.STRING)


@pytest.mark.parametrize("x", [np.full((1, 2, 4, 4), -INF, np.float32), np.zeros((1, 1, 4, 4), np.uint8), np.full((1, 1, 4, 4), -128, np.int8)], ids=lambda x: str(x.dtype))
def test_indices_of_windows_as_low_as_the_padding(device, x):
    check("MaxPool", [x], device, outputs=2, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    check("MaxPool", [x], device, outputs=2, kernel_shape=[2, 2], strides=[2, 2])


# ---- against NumPy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_windows_much_larger_than_what_is_inside(padding, dtype):
    """Against the sums of all places of every window."""
    n, kernel, dilation, stride, before, after = 5, 300, 2, 3, 400, 350
    part = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[kernel], dilations=[dilation], strides=[stride], pads=[before, after], count_include_pad=padding)
    x = np.random.default_rng(0).standard_normal((1, 1, n)).astype(helper.tensor_dtype_to_np_dtype(dtype))
    y = pc.onnx.load(model([part], [info("x", [1, 1, n], dtype)], [info("y", None, dtype)]))(x)
    out = (n + before + after - dilation * (kernel - 1) - 1) // stride + 1
    places = np.arange(out)[:, None] * stride - before + np.arange(kernel) * dilation
    inside = (places >= 0) & (places < n)
    sums = np.where(inside, x[0, 0].astype(np.float64)[places.clip(0, n - 1)], 0).sum(1)
    counted = ((places >= -before) & (places < n + after)).sum(1) if padding else inside.sum(1)
    assert counted.max() > 2
    expected = np.where(inside.any(1), sums / np.maximum(counted, 1), 0)
    np.testing.assert_allclose(np.nan_to_num(y[0, 0].astype(np.float64)), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("equation", "shapes"), [("...ij,jk...->...ik", [(2, 3, 4), (4, 5, 2)]), ("a...b->...", [(2, 3, 4)]), ("...i,...i", [(3, 1, 4), (2, 4)]), ("ij,ij->i", [(2, 1), (2, 3)])])
def test_einsum_with_an_ellipsis(equation, shapes):
    arrays = {f"x{i}": np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}
    node = helper.make_node("Einsum", list(arrays), ["y"], equation=equation)
    net = pc.onnx.load(model([node], [info(name, array.shape) for name, array in arrays.items()], [info("y", None)]))
    np.testing.assert_allclose(net(arrays), np.einsum(equation, *arrays.values()), rtol=1e-5, atol=1e-6)
