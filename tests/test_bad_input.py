"""What users get wrong, and what they hear then: the operation, the rule, the values. And what is right although it looks odd."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn

X, W = array(2, 4, 6, 5), array(6, 2, 3, 3)

REFUSED = [
    # shapes
    (lambda: F.conv2d(X[0], W), r"conv2d: the input must have 4 axes \(NCHW\); received input=\(4, 6, 5\)"),
    (lambda: F.conv2d(X, W[0]), r"conv2d: the weight must have 4 axes; received weight=\(2, 3, 3\)"),
    (lambda: F.conv2d(X, W), r"conv2d: the weight's input channels times groups must equal.*in_channels=4, weight_in_channels=2, groups=1"),
    (lambda: F.conv2d(X, W, groups=3), r"conv2d: groups must divide the input and the output channels; received groups=3, in_channels=4, out_channels=6"),
    (lambda: F.conv2d(X, array(5, 2, 3, 3), groups=2), r"conv2d: groups must divide .*groups=2, in_channels=4, out_channels=5"),
    (lambda: F.conv2d(X, W, array(5), groups=2), r"conv: the bias must have one element per output channel; received bias=\(5,\), channels=6"),
    (lambda: F.conv2d(X, array(6, 4, 9, 3)), r"conv2d: the kernel must not be larger than the padded input; .*input_size=\(6, 5\), kernel_size=\(9, 3\)"),
    (lambda: F.conv2d(X, array(6, 4, 3, 3), dilation=3), r"conv2d: the kernel must not be larger than the padded input; .*dilation=\(3, 3\)"),
    (lambda: F.conv2d(X[:, :, :0], array(6, 4, 1, 1)), r"conv2d: the kernel must not be larger.*input_size=\(0, 5\)"),
    (lambda: F.conv2d(X[:, :0], array(6, 0, 3, 3)), r"conv2d: channels and kernel size must be at least 1"),
    (lambda: F.conv1d(X, W[..., 0]), r"conv1d: the input must have 3 axes \(NCL\)"),
    (lambda: F.linear(X, array(3, 4)), r"linear: the input's last axis must equal the weight's in_features; received input=\(2, 4, 6, 5\), weight=\(3, 4\)"),
    (lambda: F.matmul(array(2, 3), array(2, 3)), r"matmul: inner sizes must agree; received a=\(2, 3\), b=\(2, 3\)"),
    (lambda: F.matmul(X, X), r"matmul: both operands must be matrices"),
    (lambda: F.conv_transpose2d(X, array(3, 2, 3, 3)), r"conv_transpose2d: the weight's first axis must equal the input's channels; received in_channels=4"),
    (lambda: F.conv_transpose2d(X, array(4, 2, 3, 3), stride=2, output_padding=2), r"conv_transpose2d: output_padding must be smaller than stride or dilation"),
    (lambda: F.conv_transpose2d(X, array(4, 2, 3, 3), padding=9), r"conv_transpose2d: the output would be empty; .*padding=9"),
    (lambda: F.conv_transpose2d(X, array(4, 2, 3, 3), padding="same"), r"conv_transpose2d: padding must be given in numbers; .*same"),
    # attributes
    (lambda: F.conv2d(X, W, groups=2, padding=-1), r"conv2d: padding must not be negative; received padding=-1"),
    (lambda: F.conv2d(X, W, groups=2, padding=((1, 2), (0, -3))), r"conv2d: padding must not be negative; received padding=\(0, -3\)"),
    (lambda: F.conv2d(X, W, groups=2, padding="full"), r'conv2d: padding as text must be "same" or "valid"; received padding=.full'),
    (lambda: F.conv2d(X, W, groups=2, padding=(1, 2, 3)), r"conv2d: padding must be an integer or 2 integers; received padding=\(1, 2, 3\)"),
    (lambda: F.conv2d(X, W, groups=2, padding=0.5), r"conv2d: padding must be an integer or 2 integers; received padding=0.5"),
    (lambda: F.conv2d(X, W, groups=2, stride=0), r"conv2d: stride must be at least 1; received stride=0"),
    (lambda: F.conv2d(X, W, groups=2, stride=(1, -2)), r"conv2d: stride must be at least 1; received stride=\(1, -2\)"),
    (lambda: F.conv2d(X, W, groups=2, dilation=0), r"conv2d: dilation must be at least 1"),
    (lambda: F.conv2d(X, W, groups=0), r"conv2d: groups must be at least 1; received groups=0"),
    (lambda: F.conv2d(X, W, groups=2, layout="CHWN"), r'conv2d: layout must be "NCHW" or "NHWC"; received layout=.CHWN'),
    (lambda: F.conv1d(X[..., 0], W[..., 0], groups=2, stride=(1, 2)), r"conv1d: stride must be an integer or one integer; received stride=\(1, 2\)"),
    (lambda: F.softmax(X, 4), r"softmax: the axis must be one of the input's; received dim=4, axes=4"),
    (lambda: F.gelu(X, "fast"), r'gelu: approximate must be "none" or "tanh"'),
    (lambda: F.clamp(X), r"clamp: at least one of min and max must be given"),
    # modules
    (lambda: nn.Conv2d(4, 6, 3, groups=4), r"Conv2d: groups must divide in_channels and out_channels; received in_channels=4, out_channels=6, groups=4"),
    (lambda: nn.Conv2d(0, 6, 3), r"Conv2d: in_channels must be at least 1; received in_channels=0"),
    (lambda: nn.Conv2d(4, 6, (3, 3, 3)), r"Conv2d: kernel_size must be an integer or 2 integers"),
    (lambda: nn.Linear(3, 0), r"Linear: out_features must be at least 1"),
    (lambda: nn.Linear(3, 4)(array(2, 5)), r"linear: the input's last axis must equal.*input=\(2, 5\), weight=\(4, 3\)"),
    (lambda: nn.Linear(3, 4)(array(2, 3), layout="HWCN"), r'layout: must be "NCHW" or "NHWC"'),
    (lambda: nn.Parameter(array(3)).__setattr__("data", array(4)), r"parameter: the shape cannot change; received shape=\(3,\), given=\(4,\)"),
    (lambda: pc.value_and_grad(nn.Linear(3, 4), nn.MSELoss(reduction="none"))(array(2, 3), array(2, 4)), r"loss: must be a single number .*shape=\(2, 4\)"),
    (lambda: pc.compile(nn.Linear(3, 4), (2, 3), train=True), r"compile: train=True needs loss, optimizer and an example target"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:60].replace("\\", "") for _, message in REFUSED])
def test_refused_with_operation_rule_and_values(call, message):
    with pytest.raises(pc.ShapeError, match=message):
        call()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.conv2d(x, W, groups=2),
        lambda x: F.relu(x),
        lambda x: F.add(x, X),
        lambda x: F.softmax(x),
        lambda x: F.mean(x),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.batch_norm(x, None, None),
        lambda x: F.linear(x, array(3, 5)),
        lambda x: F.conv2d(X, x),
    ],
)
def test_integers_are_refused_where_numbers_with_fractions_are_meant(call, dtype):
    with pytest.raises(pc.DtypeError, match=r"\w+: \w+ must be a floating-point array; received dtype int32, shape \(2, 4, 6, 5\)"):
        call(np.ones((2, 4, 6, 5), dtype))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, object, "U3", bool])
def test_what_is_no_real_number_is_refused(dtype):
    x = np.full((2, 3), "abc") if dtype == "U3" else np.ones((2, 3), dtype)
    with pytest.raises(pc.DtypeError, match=r"relu: arrays must hold real numbers; received dtype"):
        F.relu(x)
    with pytest.raises(pc.DtypeError, match=r"ReLU: arrays must hold real numbers"):
        nn.ReLU()(x)


def test_integers_beyond_32_bits_are_refused():
    with pytest.raises(pc.DtypeError, match=r"cross_entropy: integers must fit 32 bits; received int64 up to 8589934592"):
        F.cross_entropy(array(2, 3), np.array([0, 2**33]))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda x: x.astype(np.float64), id="float64"),
        pytest.param(lambda x: x.astype(np.float16), id="float16"),
        pytest.param(lambda x: x.astype(np.longdouble), id="longdouble"),
        pytest.param(lambda x: x.tolist(), id="lists"),
        pytest.param(lambda x: np.asfortranarray(x), id="Fortran order"),
        pytest.param(lambda x: np.repeat(x, 2, -1)[..., ::2], id="every second element"),
        pytest.param(lambda x: x[::-1, :, ::-1][::-1, :, ::-1], id="negative strides"),
        pytest.param(lambda x: np.broadcast_to(x[:1], x.shape), id="broadcast"),
        pytest.param(lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), id="transposed view"),
        pytest.param(lambda x: x.astype(">f4"), id="big endian"),
        pytest.param(lambda x: nn.Parameter(x), id="a parameter"),
        pytest.param(lambda x: unaligned(x), id="unaligned"),
    ],
)
def test_arrays_of_every_kind_are_taken(given, device):
    x = (np.round(X * 8) / 8).astype(np.float32)  # exact in half precision
    x = np.broadcast_to(x[:1], x.shape).copy()
    odd = given(x)
    np.testing.assert_array_equal(F.conv2d(odd, W, groups=2, device=device), F.conv2d(x, W, groups=2, device=device))
    np.testing.assert_array_equal(nn.ReLU()(odd, device=device), np.maximum(x, 0))
    np.testing.assert_array_equal(F.sub(x, odd, device=device), np.zeros_like(x))


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(np.float32).reshape(x.shape)
    view[...] = x
    return view


def test_read_only_arrays_are_taken_and_left(device):
    x = X.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(F.relu(x, device=device), np.maximum(X, 0))
    np.testing.assert_array_equal(x, X)


def test_inputs_are_never_written_to(device):
    """Also where an operation could work in place."""
    x, y = X.copy(), X.copy()
    F.add(F.tanh(x, device=device), y, device=device)
    nn.Sequential(nn.ReLU(inplace=True), nn.Sigmoid(), nn.Softmax(1))(x, device=device)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, X)


def test_single_numbers_are_arrays_without_axes(device):
    for number in (np.float32(-2), np.float64(-2), np.array(-2.0), np.array(-2.0, np.float16)):
        y = F.abs(number, device=device)
        assert isinstance(y, np.ndarray) and y.shape == () and y == 2
    assert F.add(np.float32(1), 2, device=device) == 3
    assert F.sum(np.array(4.0), device=device) == 4


def test_numbers_alone_are_no_arrays():
    with pytest.raises(TypeError, match="add: at least one argument must be an array; received float, int"):
        F.add(1.0, 2)


def test_attributes_may_be_numpy_s_numbers(device):
    expected = F.conv2d(X, W, None, (2, 1), 1, 1, 2, device=device)
    got = F.conv2d(X, W, None, np.array([2, 1]), np.int64(1), np.uint8(1), np.int32(2), device=device)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(F.leaky_relu(X, np.float64(0.5), device=device), F.leaky_relu(X, 0.5, device=device))
    np.testing.assert_array_equal(F.reshape(X, (np.int64(2), -1), device=device), X.reshape(2, -1))


# ---- models and programs ------------------------------------------------------------------------------------------------


def test_load_state_dict_lists_everything_that_does_not_fit_and_changes_nothing():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 5))
    before = model.state_dict()
    given = {"0.weight": array(2, 1, 3, 3), "1.weight": array(5, 3), "1.bias": np.zeros(5, complex), "2.weight": array(1)}
    with pytest.raises(pc.FormatError) as caught:
        model.load_state_dict(given)
    for line in ("missing: 0.bias", "unexpected: 2.weight", "shape: 1.weight is [5, 3], the model needs [5, 4]", "dtype: 1.bias is complex128"):
        assert line in str(caught.value)
    assert all(model.state_dict()[name] is value for name, value in before.items())
    model.load_state_dict({"0.weight": given["0.weight"]}, strict=False)
    np.testing.assert_array_equal(model.state_dict()["0.weight"], given["0.weight"])


def test_a_counter_of_batches_is_no_unexpected_key():
    nn.BatchNorm2d(2).load_state_dict({**nn.BatchNorm2d(2).state_dict(), "num_batches_tracked": np.array(3)})


def test_programs_check_their_inputs():
    program = pc.compile(nn.Linear(3, 4), (2, 3), device="reference")
    with pytest.raises(pc.ShapeError, match=r"run: input 'x' must have the shape the program was made for; received expected=\(2, 3\), given=\(3, 3\)"):
        program.run(array(3, 3))
    with pytest.raises(pc.ShapeError, match=r"run: the inputs \['x'\] must be given once each; received positional=2"):
        program.run(array(2, 3), array(2, 3))
    with pytest.raises(pc.ShapeError, match=r"given once each.*named=\['y'\]"):
        program.run(y=array(2, 3))
    with pytest.raises(pc.ShapeError, match=r"given once each"):
        program.run(array(2, 3), x=array(2, 3))
    with pytest.raises(pc.DtypeError, match=r"run: input 'x' must be float32; received int32"):
        program.run(np.ones((2, 3), int))
    with pytest.raises(pc.ShapeError, match=r"load: state 'weight' is missing; received given=\['bias'\]"):
        program.load({"bias": array(4)})
    with pytest.raises(pc.ShapeError, match=r"load: state 'weight' must keep its shape; received expected=\(4, 3\), given=\(3, 4\)"):
        program.load({"bias": array(4), "weight": array(3, 4)})
    assert program.run(x=[[1.0, 2.0, 3.0]] * 2).shape == (2, 4)


def test_a_forward_that_returns_no_symbol_is_named():
    class Wrong(nn.Module):
        def forward(self, x):
            return np.ones(3)

    with pytest.raises(TypeError, match=r"Wrong\.forward must return arrays of the trace; it returned ndarray"):
        Wrong()(array(3), device="reference")


def test_control_flow_on_elements_is_explained():
    class Branching(nn.Module):
        def forward(self, x):
            return x if F.sum(x) > 0 else F.neg(x)

    with pytest.raises(TypeError):
        Branching()(array(3), device="reference")


def test_a_layer_that_was_replaced_or_changed_is_not_remembered(device):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x = array(2, 3)
    first = model(x, device=device)
    setattr(model, "1", nn.Tanh())
    assert (model(x, device=device) != first).any()
    leaky = nn.LeakyReLU(0.5)
    first = leaky(x, device=device)
    leaky.negative_slope = 0.25
    np.testing.assert_allclose(leaky(x, device=device), np.where(x > 0, x, x / 4), rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["no such thing"])
def test_an_unknown_algorithm_is_refused(algorithm):
    with pytest.raises(pc.UnsupportedError, match=r"Conv: there is no algorithm 'no such thing' on cpu; there are \[.*\]"):
        pc.compile(nn.Conv2d(3, 4, 3), (1, 3, 8, 8), device="cpu", algorithms={"Conv": algorithm})


# ---- devices and import ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["gpu that nobody has", "opencl:99", "opencl:x", "opencl:-1"])
def test_an_unknown_device_is_refused_with_what_there_is(spec):
    with pytest.raises(pc.DeviceError, match="device: "):
        pc.device(spec)


@pytest.mark.parametrize("spec", [3, 1.5, ["cpu"]])
def test_a_device_is_text(spec):
    with pytest.raises(pc.DeviceError, match="device: must be text or a Device; received"):
        F.relu(X, device=spec)


def test_devices_are_found_by_their_labels_and_parts_of_their_names():
    for device in pc.devices():
        assert pc.device(device.label) == device and pc.device(device) is device
    assert pc.devices()[0].label == "cpu"
    assert pc.device(" CPU ") == pc.device("cpu")
    assert pc.device("auto").reason


def test_the_environment_names_the_default_device(monkeypatch):
    monkeypatch.setenv("PYCL_CNN_DEVICE", "reference")
    assert pc.device() == pc.device("reference")
    monkeypatch.setenv("PYCL_CNN_DEVICE", "nonsense")
    with pytest.raises(pc.DeviceError):
        F.relu(X)


def python(code, **environment):
    """Output of `code` in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


ONLY_CPU = """
    import pycl_cnn as pc
    assert [d.label for d in pc.devices()] == ["cpu"], pc.devices()
    assert pc.device("auto").label == "cpu"
    try:
        pc.device("opencl")
    except pc.DeviceError as error:
        print(error)
    import numpy as np
    assert pc.F.relu(np.array([-1.0, 2.0])).tolist() == [0, 2]
"""


def test_without_any_opencl_platform_the_cpu_remains():
    """As on a machine without drivers: pyopencl is there and finds nothing."""
    pytest.importorskip("pyopencl", reason="pyopencl is not installed")
    nothing = """
    import pyopencl
    def no_platforms():
        raise pyopencl.LogicError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")
    pyopencl.get_platforms = no_platforms
    """
    message = python(textwrap.dedent(nothing) + textwrap.dedent(ONLY_CPU), PYCL_CNN_DEVICE="")
    assert "offers no device" in message and "install" in message and 'device="cpu"' in message


@pytest.mark.parametrize("fault", ["ImportError('no module named pyopencl')", "OSError('libOpenCL.so.1: cannot open shared object file')"])
def test_without_a_working_pyopencl_the_cpu_remains(tmp_path, fault):
    (tmp_path / "pyopencl").mkdir()
    (tmp_path / "pyopencl" / "__init__.py").write_text(f"raise {fault}\n")
    message = python(ONLY_CPU, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]), PYCL_CNN_DEVICE="")
    assert "pyopencl" in message and "install" in message


def test_import_loads_nothing_but_the_package_itself():
    """What `import pycl_cnn` costs: its own file. (In milliseconds: `asv run --bench bench_import`.)"""
    loaded = python("import sys; before = set(sys.modules); import pycl_cnn; print(*sorted(set(sys.modules) - before))")
    assert {name for name in loaded.split() if name.partition(".")[0] not in sys.stdlib_module_names} == {"pycl_cnn"}


HEAVY = ["pyopencl", "scipy", "matplotlib", "sklearn", "PIL", "torch", "tqdm", "safetensors", "onnx"]


def test_building_and_running_a_model_on_the_cpu_loads_little():
    code = "import numpy as np, pycl_cnn as pc; pc.models.lenet5()(np.zeros((1, 1, 28, 28), 'f'), device='cpu')"
    loaded = python(f"import sys; {code}; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"
