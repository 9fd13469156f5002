"""The error table: how far every convolution of the networks lies from float64, forward and both gradients, by the algorithm that was chosen.
Those of one tap and depthwise ones are left out: they have plain sums only.

    python -m benchmarks.errors [--network vgg16,unet] [--device cpu] [--out docs/benchmarks.md]

A layer gets the input that it has in its network (images with the spectrum of photographs, weights as initialised, batch norms
folded) and an output gradient that is zero where a ReLU would be. An error is the largest of an array, over the array's largest element.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .compare.machine import describe
from .compare.report import put_block
from .networks import NETWORKS, Network, seeded

KINDS = ("forward", "input gradient", "weight gradient")


def photograph(network: Network, seed: int = 0) -> np.ndarray:
    """An image [1,c,h,w] of mean 0 and deviation 1 whose spectrum falls with the frequency as that of photographs does."""
    channels, height, width = network.image
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequencies[0, 0] = np.inf
    noise = np.random.default_rng(seed).standard_normal((channels, height, width))
    image = np.fft.irfft2(np.fft.rfft2(noise) / frequencies, s=(height, width))
    return ((image - image.mean()) / image.std()).astype(np.float32)[None]


def layers_of(network: Network) -> Iterator[tuple[str, Any, np.ndarray, np.ndarray]]:
    """Name, geometry, input [n,h,w,c] and weight [k,r,s,c] of every convolution of several taps that is not depthwise, as its network's plan has them."""
    import pycl_cnn as pc
    from pycl_cnn.backends import backend
    from pycl_cnn.compiler import begin, trace_forward
    from pycl_cnn.ops.conv import Conv
    from pycl_cnn.passes import canonical, optimised
    from pycl_cnn.trace import tracing

    model, x = seeded(network).eval(), photograph(network)
    tracer = begin(model, False, with_gradients=False)
    with tracing(tracer):
        results = trace_forward(tracer, model, [(x.shape, np.float32)], "NCHW")
    tracer.graph.outputs = [y.value for y in results]
    graph = optimised(canonical(tracer.graph))
    nodes = [
        node for node in graph.nodes() if isinstance(node.op, Conv) and node.op.geometry.kernel != (1, 1) and node.op.geometry.groups == 1
    ]
    layers = [(node.scope, node.op.geometry, *node.inputs[:2]) for node in nodes]  # a backend packs weights in between
    values = list(dict.fromkeys(value for _, _, *operands in layers for value in operands))
    graph.outputs = list(values)
    arrays = backend("cpu").compile(graph, pc.device("cpu"), model.state_dict(), None, "exact").run(x)
    found = dict(zip(values, arrays, strict=True))
    for scope, geometry, x_value, w_value in layers:
        yield scope, geometry, found[x_value], found[w_value]


def convolve(geometry: Any, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution in float64, tap by tap as matrix products: the operations' own reference takes minutes at these sizes."""
    y = np.zeros(geometry.output_shape)
    for taps, patch in _patches(geometry, x):
        y += patch @ w[(slice(None), *taps)].astype(np.float64).T
    return y


def gradients(geometry: Any, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of sum(y * dy) by input and weight in float64: the transposes of `convolve`."""
    dy = dy.astype(np.float64)
    dw = np.zeros(w.shape)
    padded = np.zeros(_padded_shape(geometry))
    for taps, patch in _patches(geometry, x):
        dw[(slice(None), *taps)] = np.tensordot(dy, patch, ([0, 1, 2], [0, 1, 2]))
        padded[_window(geometry, taps)] += dy @ w[(slice(None), *taps)].astype(np.float64)
    (top, _), (left, _) = geometry.padding
    return padded[:, top : top + geometry.size[0], left : left + geometry.size[1]], dw


def _padded_shape(g: Any) -> tuple[int, ...]:
    return (g.batch, *(n + sum(p) for n, p in zip(g.size, g.padding, strict=True)), g.channels)


def _window(g: Any, taps: tuple[int, int]) -> tuple[slice, ...]:
    """What a tap sees of the padded input."""
    axes = zip(taps, g.dilation, g.stride, g.out, strict=True)
    return (slice(None), *(slice(tap * d, tap * d + s * (n - 1) + 1, s) for tap, d, s, n in axes))


def _patches(g: Any, x: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    padded = np.pad(x.astype(np.float64), ((0, 0), *g.padding, (0, 0)))
    for r in range(g.kernel[0]):
        for s in range(g.kernel[1]):
            yield (r, s), padded[_window(g, (r, s))]


@dataclass(frozen=True)
class Error:
    """What one way through a layer was computed by, and its largest error over the largest element; `plain` is that of plain sums."""

    algorithm: str
    error: float
    plain: float


def relative(given: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(given - expected).max() / np.abs(expected).max())


def errors_of(geometry: Any, x: np.ndarray, w: np.ndarray, device: Any, force: Mapping[str, str] | None = None) -> list[Error]:
    """Forward, input gradient and weight gradient of a layer on `device`, by the algorithms that the plan chooses, or by those of `force`."""
    from pycl_cnn.backends import backend
    from pycl_cnn.graph import Graph
    from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight
    from pycl_cnn.ops.leaf import State
    from pycl_cnn.passes import optimised

    y = convolve(geometry, x, w)
    dy = (np.random.default_rng(1).standard_normal(y.shape) * (y > 0)).astype(np.float32)
    dx, dw = gradients(geometry, x, w, dy)
    found = []
    for kind, operands, expected in ((Conv, (x, w), y), (ConvBackwardInput, (dy, w), dx), (ConvBackwardWeight, (x, dy), dw)):
        results = []
        for precision in ("fast", "exact"):
            graph = Graph()
            given = {"weight": w} if operands[1] is w else {}  # once, as layers have it
            values = [graph.input(f"array{index}", array.shape) for index, array in enumerate(operands) if array is not w]
            values += [graph.state(State.plain(name, array.shape)) for name, array in given.items()]
            graph.outputs = [graph.apply(kind(geometry), *values)]
            forced = force if precision == "fast" else None
            program = backend(device.backend).compile(optimised(graph), device, given, forced, precision)
            names = {step.algorithm for step in program.steps if step.operation == kind.__name__}
            results.append((names.pop(), relative(program.run(*operands[: len(graph.inputs)]), expected)))
        (algorithm, error), (_, plain) = results
        found.append(Error(algorithm, error, plain))
    return found


HEADINGS = ("network", "layer", "input", "outputs", *(f"{kind}{what}" for kind in KINDS for what in ("", ": error", ": plain sums")))


def rows(names: Sequence[str], device: Any) -> Iterator[tuple[str, ...]]:
    """The table's lines."""
    for name in names:
        network = NETWORKS[name]
        for scope, geometry, x, w in layers_of(network):
            cells = [cell for e in errors_of(geometry, x, w, device) for cell in (e.algorithm, f"{e.error:.1e}", f"{e.plain:.1e}")]
            yield network.title, scope, "x".join(map(str, x.shape)), str(geometry.out_channels), *cells


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.errors", description="Errors of the networks' convolutions against float64.")
    parser.add_argument("--network", default=",".join(NETWORKS), help="comma-separated (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a .md file whose block for this device is replaced")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    names = options.network.split(",")
    if unknown := [name for name in names if name not in NETWORKS]:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    import pycl_cnn as pc

    try:
        device = pc.device(options.device)
    except pc.DeviceError as error:
        parser.error(str(error))
    lines = [HEADINGS, ["---"] * 4 + ["---", "---:", "---:"] * len(KINDS), *rows(names, device)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if options.out is None:
        print(text)
        return 0
    machine = describe()
    made = f"{machine['date']}, {machine['processor']}, {device}, {device.driver}, commit {machine['commit']}."
    put_block(options.out, f"errors@{options.device}", f"{made}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
