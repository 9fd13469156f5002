"""Checks for operations that are linear in each of their arguments: convolutions, matrix products, resampling.

The absolute values' own result bounds the rounding error element by element, and the adjoint identity ties the gradients to the
operation: ``<f(x, w), dy> = <x, dx> = <w, dw>``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pycl_cnn.functional as F
from pycl_cnn.autodiff import gradients

from .graphs import Traced, trace
from .tolerance import assert_within, gamma, sum_bound


def _with_gradients(function: Callable[..., Any], arrays: tuple[np.ndarray, ...], dy: np.ndarray) -> Traced:
    """f's value and its gradients for the output gradient `dy`, which is an input too."""
    traced = trace(lambda *symbols: (function(*symbols[:-1]), F.sum(function(*symbols[:-1]) * symbols[-1])), *arrays, dy)
    graph = traced.graph
    y, loss = graph.outputs
    found = gradients(graph, loss, traced.inputs[: len(arrays)])
    graph.outputs = [y, *found]  # type: ignore[list-item]
    return traced


def check_linear(function: Callable[..., Any], arrays: tuple[np.ndarray, ...], lengths: tuple[int, ...], device: Any, seed: int = 0) -> None:
    """Gradients against the float64 reference and each other; `lengths` of the longest sums in the value and in each gradient."""
    shape = trace(function, *arrays).graph.outputs[0].shape
    dy = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    results = _with_gradients(function, arrays, dy).run(device)
    exact = _with_gradients(function, arrays, dy).reference()
    magnitudes = _with_gradients(function, tuple(np.abs(a) for a in arrays), np.abs(dy)).reference()
    for index, (got, want, magnitude, length) in enumerate(zip(results, exact, magnitudes, lengths, strict=True)):
        assert_within(got, want, sum_bound(length, magnitude), "value" if index == 0 else f"gradient {index - 1}")
    y, *grads = (result.astype(np.float64) for result in results)
    total = float((magnitudes[0] * np.abs(dy)).sum())
    forward = float((y * dy).sum())
    for index, (array, grad) in enumerate(zip(arrays, grads, strict=True)):
        allowed = (gamma(lengths[0] + 4) + gamma(lengths[index + 1] + 4)) * total + 1e-30
        assert abs(forward - float((array * grad).sum())) <= allowed, f"<y, dy> and <x{index}, dx{index}> differ"
