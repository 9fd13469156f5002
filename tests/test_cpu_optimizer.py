"""The CPU's update rules on every instruction set, against the same rules in float64."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, run

STEPS = 5


def float32(**members):
    """Members as the kernel sees them."""
    return {name: float(np.float32(value)) for name, value in members.items()}


def train(isa, size, kernel, members, slots, hyper, rule):
    """Five updates by the kernel and by `rule(param, grad, state, t)`; the parameters must agree."""
    rng = np.random.default_rng(0)
    param = rng.normal(size=size).astype(np.float32)
    state = [np.zeros(size, np.float32) if used else None for used in slots]
    exact, exact_state = param.astype(np.float64), [np.zeros(size) for _ in slots]
    for t in range(1, STEPS + 1):
        grad = rng.normal(size=size).astype(np.float32)
        run(isa, kernel, {"size": size, **members}, param, grad, *state, np.array([*hyper(t), 0, 0, 0], np.float32)[:4])
        exact = rule(exact, grad.astype(np.float64), exact_state, t)
    np.testing.assert_allclose(param, exact, rtol=2e-6, atol=2e-6)
    for got, expected in zip(state, exact_state, strict=True):
        if got is not None:
            np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6 * np.abs(expected).max())


SIZES = [1, 17, 20001]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("momentum, dampening, decay, nesterov", [(0, 0, 0, 0), (0.9, 0, 0, 0), (0.9, 0, 5e-4, 1), (0.9, 0.3, 0.1, 0), (0, 0, 0.1, 0)])
def test_sgd(isa, size, momentum, dampening, decay, nesterov):
    rate = float(np.float32(0.1))

    def rule(param, grad, state, t):
        grad = grad + decay * param
        if momentum:
            state[0] = grad if t == 1 else momentum * state[0] + (1 - dampening) * grad
            grad = grad + momentum * state[0] if nesterov else state[0]
        return param - rate * grad

    members = {"nesterov": nesterov, **float32(momentum=momentum, one_minus_dampening=1 - dampening, weight_decay=decay)}
    train(isa, size, "sgd", members, [momentum > 0], lambda t: (rate, t == 1), rule)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay, decoupled", [(0, 0), (0.1, 0), (0.1, 1)])
def test_adam(isa, size, decay, decoupled):
    rate, beta1, beta2, eps = 0.01, 0.9, 0.999, 1e-8

    def rule(param, grad, state, t):
        if decoupled:
            param = param * (1 - rate * decay)
        else:
            grad = grad + decay * param
        state[0] = beta1 * state[0] + (1 - beta1) * grad
        state[1] = beta2 * state[1] + (1 - beta2) * grad * grad
        return param - rate / (1 - beta1**t) * state[0] / (np.sqrt(state[1]) / np.sqrt(1 - beta2**t) + eps)

    members = float32(one_minus_beta1=1 - beta1, beta2=beta2, one_minus_beta2=1 - beta2, eps=eps, weight_decay=decay)
    train(isa, size, "adam", {"decoupled": decoupled, **members}, [True, True], lambda t: (rate, 1 - beta1**t, 1 - beta2**t), rule)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("momentum, decay, centered", [(0, 0, False), (0.9, 0, False), (0.5, 0.1, True), (0, 0, True)])
def test_rmsprop(isa, size, momentum, decay, centered):
    rate, alpha, eps = 0.01, 0.99, 1e-8

    def rule(param, grad, state, t):
        grad = grad + decay * param
        state[0] = alpha * state[0] + (1 - alpha) * grad * grad
        variance = state[0]
        if centered:
            state[1] = alpha * state[1] + (1 - alpha) * grad
            variance = variance - state[1] ** 2
        step = grad / (np.sqrt(variance) + eps)
        if momentum:
            step = state[2] = momentum * state[2] + step
        return param - rate * step

    members = float32(alpha=alpha, one_minus_alpha=1 - alpha, eps=eps, weight_decay=decay, momentum=momentum)
    train(isa, size, "rmsprop", members, [True, centered, momentum > 0], lambda t: (rate,), rule)
