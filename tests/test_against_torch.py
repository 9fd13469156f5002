"""The same calls in PyTorch: names, argument order and defaults, values and gradients. Skipped where PyTorch is not installed."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from helpers.catalogue import CASES, array, labels
from helpers.graphs import trace_gradients
from helpers.tolerance import assert_close

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0 to compare with it")


class TorchFunctions:
    """torch.nn.functional, and torch for what is not there."""

    def __getattr__(self, name):
        return getattr(torch.nn.functional, name, None) or getattr(torch, name)


def as_tensor(array_):
    return torch.from_numpy(array_.astype(np.int64 if array_.dtype == np.int32 else np.float64))


@pytest.mark.parametrize("case", [case for case in CASES if case.like_torch], ids=str)
def test_operation_and_gradients_equal_torch(case):
    """In float64 on both sides, so that the only difference left is what is computed."""
    tensors = [as_tensor(a).requires_grad_(a.dtype != np.int32) for a in case.arrays]
    y = case.call(TorchFunctions(), *tensors)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, tuple(y.shape)).astype(np.float32)
    (y * torch.from_numpy(weights)).sum().backward()
    expected = [y.detach().numpy(), *(t.grad.numpy() for t in tensors if t.requires_grad)]
    actual = trace_gradients(lambda *x: case.call(F, *x), *case.arrays).reference()
    for got, want in zip(actual, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def _functions():
    for name, function in vars(F).items():
        if not name.startswith("_") and hasattr(function, "__wrapped__"):
            other = getattr(torch.nn.functional, name, None) or getattr(torch, name, None)
            try:
                yield name, inspect.signature(function), inspect.signature(other)
            except (TypeError, ValueError):
                continue  # a builtin of PyTorch's without a signature: its calls are compared in the catalogue


@pytest.mark.parametrize(("name", "ours", "theirs"), list(_functions()), ids=lambda value: value if isinstance(value, str) else "")
def test_positional_arguments_stand_where_torch_has_them(name, ours, theirs):
    """A call that is right in PyTorch never means something else here: same name at every position, or none."""
    positional = [p for p in ours.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    there = list(theirs.parameters)
    if there == ["args", "kwargs"]:
        return  # dispatched at run time; called in the catalogue
    for index, parameter in enumerate(positional):
        assert parameter.name == there[index], f"{name}: argument {index} is {parameter.name}, in PyTorch {there[index]}"
    for parameter in ours.parameters.values():
        default = theirs.parameters[parameter.name].default if parameter.name in theirs.parameters else parameter.default
        if parameter.name not in ("dim", "value"):  # None there, "the last axis" and 0 here
            assert parameter.default == default, f"{name}: default of {parameter.name}"


MODULES = [name for name in nn.__all__ if hasattr(torch.nn, name) and inspect.isclass(getattr(nn, name)) and name not in ("Module", "Parameter", "Buffer", "ModuleList", "Sequential")]


@pytest.mark.parametrize("name", MODULES)
def test_modules_take_the_same_arguments(name):
    ours, theirs = (inspect.signature(getattr(place, name).__init__).parameters for place in (nn, torch.nn))
    there = [p for p in theirs if p != "self"]
    for index, parameter in enumerate(p for key, p in ours.items() if key != "self" and p.kind is p.POSITIONAL_OR_KEYWORD):
        assert parameter.name == there[index]
    for key, parameter in ours.items():
        if key in theirs and key not in ("self", "dim"):
            default = theirs[key].default
            assert parameter.default == default or (default == 1 and parameter.default in (1, (1, 1))), f"{name}.{key}"


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_optimizers_take_the_same_arguments(name):
    ours, theirs = (inspect.signature(getattr(place, name)).parameters for place in (pc.optim, torch.optim))
    for key, parameter in ours.items():
        assert parameter.default == theirs[key].default, f"{name}.{key}"


CONVNET = [
    ("Conv2d", (3, 8, 3), {"padding": 1}),
    ("BatchNorm2d", (8,), {}),
    ("ReLU", (), {}),
    ("MaxPool2d", (2,), {}),
    ("Conv2d", (8, 8, 3), {"groups": 8, "padding": "same", "bias": False}),
    ("Hardswish", (), {}),
    ("ConvTranspose2d", (8, 4, 2), {"stride": 2}),
    ("GELU", (), {}),
    ("AdaptiveAvgPool2d", (2,), {}),
    ("Flatten", (), {}),
    ("Linear", (16, 5), {}),
]


def twins():
    """The same network twice, with the same weights."""
    pc.manual_seed(0)
    model = nn.Sequential(*(getattr(nn, kind)(*args, **kwargs) for kind, args, kwargs in CONVNET))
    other = torch.nn.Sequential(*(getattr(torch.nn, kind)(*args, **kwargs) for kind, args, kwargs in CONVNET))
    state = {name: torch.from_numpy(value.copy()) for name, value in model.state_dict().items()}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return model, other


def test_state_dict_keys_and_order_are_those_of_torch():
    model, other = twins()
    theirs = {name: tuple(value.shape) for name, value in other.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert list({name: value.shape for name, value in model.state_dict().items()}.items()) == list(theirs.items())


def test_torch_state_dict_loads():
    model, other = twins()
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.5)
    model.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(model.state_dict()["10.weight"], other[10].weight.detach().numpy())


def test_inference_of_a_network(device):
    model, other = twins()
    x = array(2, 3, 8, 8)
    with torch.no_grad():
        expected = other.eval()(torch.from_numpy(x)).numpy()
    assert_close(model.eval()(x, device=device), expected, 300)


def test_gradients_and_running_statistics_of_a_network(device):
    model, other = twins()
    x, target = array(4, 3, 8, 8), labels(4, classes=5)
    value, grads = pc.value_and_grad(model, nn.CrossEntropyLoss(label_smoothing=0.1), device=device)(x, target)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(other(torch.from_numpy(x)), torch.from_numpy(target).long())
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in other.named_parameters():
        assert_close(grads[name], parameter.grad.numpy(), 2000, name)
    for name, buffer in other.named_buffers():
        if not name.endswith("num_batches_tracked"):
            assert_close(model.state_dict()[name], buffer.numpy(), 256, name)


class Twice(nn.Module):
    def __init__(self):
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.norm(x) * 2 + 1)


def test_a_batch_norm_that_is_applied_twice_updates_its_statistics_twice(device):
    model, other = Twice(), torch.nn.BatchNorm1d(6)
    x = array(5, 6)
    y = model(x, device=device)
    expected = other(other(torch.from_numpy(x)) * 2 + 1).detach().numpy()
    assert_close(y, expected, 50)
    assert_close(model.state_dict()["norm.running_mean"], other.running_mean.numpy(), 50)
    assert_close(model.state_dict()["norm.running_var"], other.running_var.numpy(), 50)


def test_a_torch_tensor_is_an_array():
    x = array(2, 3, 5, 5)
    np.testing.assert_array_equal(F.relu(torch.from_numpy(x), device="reference"), np.maximum(x, 0))
