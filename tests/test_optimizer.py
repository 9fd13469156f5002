"""Update rules: step by step equal to torch.optim, with every option, and on every device equal to the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from helpers.tolerance import assert_close

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn, optim

OPTIONS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "betas": (0.5, 0.9), "eps": 1e-6, "weight_decay": 0.3}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-5, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.7}),
    ("RMSprop", {"lr": 0.02, "centered": True, "momentum": 0.5}),
]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for name, options in OPTIONS]
STEPS = 6


def batches():
    """Inputs that differ in size from step to step, so that gradients do."""
    return [array(5, 4, seed=step) * np.float32(1 + step % 3) for step in range(STEPS)]


class Quadratic(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter(array(3, 4, seed=9))
        self.bias = nn.Parameter(array(3, seed=8))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


def train(optimizer, device, rates=None):
    """Parameters after every step."""
    model = Quadratic()
    target = array(5, 3, seed=7)
    program = pc.compile(model, (5, 4), device=device, train=True, loss=nn.MSELoss(), optimizer=optimizer, target=target)
    history = []
    for step, x in enumerate(batches(), 1):
        lr = optimizer.lr if rates is None else rates[step - 1]
        program.run(x, target, np.array(optimizer.rule.hyper(lr, step), np.float32))
        history.append(program.states())
    return history


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
def test_every_option_equals_torch(name, options, device):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    start = Quadratic()
    parameters = {key: torch.from_numpy(p.data.astype(np.float64)).requires_grad_() for key, p in start.named_parameters()}
    other = getattr(torch.optim, name)(parameters.values(), **options)
    target = torch.from_numpy(array(5, 3, seed=7).astype(np.float64))
    for state, x in zip(train(getattr(optim, name)(**options), device), batches(), strict=True):
        other.zero_grad()
        y = torch.nn.functional.linear(torch.from_numpy(x.astype(np.float64)), parameters["weight"], parameters["bias"])
        torch.nn.functional.mse_loss(y, target).backward()
        other.step()
        for key, value in parameters.items():
            # eps stands beside roots of tiny squares: relative differences of the gradient stay relative in the update
            np.testing.assert_allclose(state[key], value.detach().numpy(), rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
def test_every_option_equals_the_reference(name, options, device):
    """Parameters and slots, to the rounding of a few steps."""
    expected = train(getattr(optim, name)(**options), "reference")
    actual = train(getattr(optim, name)(**options), device)
    for got, want in zip(actual, expected, strict=True):
        assert got.keys() == want.keys()
        for key in got:
            np.testing.assert_allclose(got[key], want[key], rtol=2e-4, atol=2e-5, err_msg=key)


def test_the_learning_rate_may_change_between_steps(device):
    """It is an input of the program, not a part of it."""
    rates = [0.1, 0.05, 0.0, 0.2, 0.1, 0.0]
    history = train(optim.SGD(lr=1.0), device, rates)
    for step in (2, 5):
        np.testing.assert_array_equal(history[step]["weight"], history[step - 1]["weight"])
    assert (history[3]["weight"] != history[2]["weight"]).all()


def test_slots_are_states_with_the_parameter_s_shape(device):
    state = train(optim.Adam(), device)[0]
    assert set(state) == {"weight", "bias", *(f"optimizer.{slot}.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in ("weight", "bias"))}
    assert state["optimizer.exp_avg.weight"].shape == (3, 4)


def test_training_goes_on_from_given_slots(device):
    """Six steps in one program equal three in one and three in the next that takes over weights and slots."""
    target, optimizer = array(5, 3, seed=7), optim.Adam(lr=0.05)
    whole = train(optim.Adam(lr=0.05), device)[-1]
    model = Quadratic()
    kept: dict = {}
    for first in (0, 3):
        from pycl_cnn.compiler import training_program

        specs = [((5, 4), np.float32)]
        program = training_program(model, nn.MSELoss(), optimizer.rule, specs, (target.shape, np.float32), device, slots=kept)
        for step in range(first, first + 3):
            program.run(batches()[step], target, np.array(optimizer.rule.hyper(0.05, step + 1), np.float32))
        kept = program.states()
        model.load_state_dict({name: value for name, value in kept.items() if not name.startswith("optimizer.")})
    for name in whole:
        assert_close(kept[name], whole[name], 1, name)


def test_convolution_weights_and_their_slots_come_back_in_the_users_layout(device):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 4 * 3, 5))
    target = np.array([0, 4])
    program = pc.compile(
        model, (2, 2, 6, 5), device=device, train=True, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.5, momentum=0.9), target=target
    )
    x = array(2, 2, 6, 5)
    _, grads = pc.value_and_grad(model, nn.CrossEntropyLoss(), device=device)(x, target)
    program.run(x, target, np.array([0.5, 1, 0, 0], np.float32))
    state = program.states()
    for name, value in model.state_dict().items():
        assert_close(state[name], value - 0.5 * grads[name], 8, name)
        assert_close(state[f"optimizer.momentum_buffer.{name}"], grads[name], 8, name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.SGD(lr=-1), r"SGD: lr must not be negative; received lr=-1"),
        (lambda: optim.SGD(momentum=-0.1), r"SGD: momentum must not be negative"),
        (lambda: optim.SGD(nesterov=True), r"SGD: nesterov needs a momentum and no dampening"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), r"Adam: betas must be two numbers of at least 0 and below 1; received betas=\(0.9, 1.0\)"),
        (lambda: optim.AdamW(weight_decay=-1), r"AdamW: weight_decay must not be negative"),
        (lambda: optim.RMSprop(eps=float("nan")), r"RMSprop: eps must not be negative"),
    ],
)
def test_senseless_settings_are_refused(call, message):
    with pytest.raises(pc.ShapeError, match=message):
        call()
