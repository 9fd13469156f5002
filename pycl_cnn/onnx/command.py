"""``pycl-cnn info | run | compare``: the commands that work with ONNX files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..backends.base import Device, table
from ..backends.cpu.threads import get_num_threads
from ..data.images import IMAGENET_MEAN, IMAGENET_STD, NUMPY_MAGIC, read_photograph
from ..errors import FormatError, PyclError
from ..formats.weights import replacing
from ..placement import device as find_device
from ..placement import opencl_devices
from .description import concrete_shapes, describe
from .model import OnnxModel, load
from .reader import ValueInfo, printable

ZIP_MAGIC = b"PK\x03\x04"


def info(options: argparse.Namespace) -> int:
    """Tell what a model needs."""
    description = describe(load(options.model), _devices([options.device] if options.device else []), options.input_shape)
    print(description)
    return 0 if description.runs else 1


def _devices(wanted: Sequence[str]) -> list[Device]:
    """The devices asked for, or one of each backend."""
    if wanted:
        return [find_device(name) for name in wanted]
    return [find_device("cpu"), *opencl_devices()[:1]]


# ---- run -------------------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Run a model on pictures or arrays."""
    model, device = load(options.model), find_device(options.device)
    if all(_is_array(path) for path in options.inputs):
        inputs = read_arrays(model.inputs, options.inputs)
        outputs = model(inputs, device=device)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        print(f"on {device}")
        for item, array in zip(model.outputs, outputs, strict=True):
            print(f"{printable(item.name)}: {_summary(array)}")
        if options.out:
            _write(options.out, model.outputs, outputs)
            print(f"written to {options.out}")
        return 0
    if len(model.inputs) != 1:
        raise PyclError(f"pictures are for models with one input; this one has {', '.join(printable(item.name) for item in model.inputs)}: give .npy files")
    labels = _labels(options.labels)
    results = []
    for path in options.inputs:
        x = picture(model.inputs[0], path, options)
        y = model(x, device=device)
        y = y[0] if isinstance(y, tuple) else y
        results.append(y)
        if isinstance(y, np.ndarray) and _is_classifier(y):
            _print_classes(path, y.reshape(-1), labels, options)
        else:
            print(f"{path}: {printable(model.outputs[0].name)} {_summary(y)}")
    print(f"on {device}")
    if options.out:
        together = len(results) > 1 and all(isinstance(y, np.ndarray) for y in results)
        _write(options.out, model.outputs[:1], [np.concatenate(results) if together else results[0]])
        print(f"written to {options.out}")
    return 0


def _is_array(path: str) -> bool:
    """Whether the input is an array file, and no picture."""
    with open(path.rpartition("=")[2] if "=" in path and not Path(path).exists() else path, "rb") as file:
        start = file.read(6)
    return start == NUMPY_MAGIC or start[:4] == ZIP_MAGIC


def read_arrays(inputs: Sequence[ValueInfo], paths: Sequence[str]) -> dict[str, np.ndarray]:
    """An array for each input: NAME=FILE, files in the inputs' order, or an .npz with their names. Raises FormatError."""
    arrays: dict[str, np.ndarray] = {}
    names = [item.name for item in inputs]
    for index, text in enumerate(paths):
        name, _, path = ("", "", text) if Path(text).exists() else text.rpartition("=")
        try:
            content = np.load(path, allow_pickle=False)
            found = dict(content) if isinstance(content, Mapping) else {name or (names[index] if index < len(names) else path): content}
        except (ValueError, EOFError) as error:
            raise FormatError(f"{path} is no array of numbers that NumPy can read ({error})") from error
        arrays |= found
    if set(arrays) != set(names):
        raise FormatError(f"the model's inputs are {', '.join(map(printable, names))}; given were {', '.join(map(printable, arrays))}: give NAME=FILE for each, or an .npz with these names")
    return arrays


def picture(wanted: ValueInfo, path: str, options: argparse.Namespace) -> np.ndarray:
    """A picture as the model's input [1,c,h,w] or [1,h,w,c]. Raises PyclError."""
    shape = wanted.shape or (None,) * 4
    if len(shape) != 4:
        raise PyclError(f"pictures are for inputs of four axes; {printable(wanted.name)} has the shape {list(shape)}: give an .npy file")
    layout = options.layout or ("NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW")
    channels, height, width = (shape[3], shape[1], shape[2]) if layout == "NHWC" else shape[1:]
    channels = channels if isinstance(channels, int) else 3
    height, width = (n if isinstance(n, int) else options.size or 224 for n in (height, width))
    if channels not in (1, 3) or not isinstance(height, int) or not isinstance(width, int):
        raise PyclError(f"a picture has 1 or 3 channels; {printable(wanted.name)} has the shape {list(shape)} ({layout}): try --layout, or give an .npy file")
    pixels = read_photograph(path, height, width, options.resize or round(min(height, width) * 8 / 7), grey=channels == 1)
    if options.channels == "BGR":
        pixels = pixels[..., ::-1]
    mean, std = (
        np.asarray(given, np.float32) if given else (default if channels == 3 else default.mean(keepdims=True)) * options.range
        for given, default in ((options.mean, IMAGENET_MEAN), (options.std, IMAGENET_STD))
    )
    if len(mean) not in (1, channels) or len(std) not in (1, channels) or not np.all(std):
        raise PyclError(f"--mean and --std need one number or one for each of the {channels} channels, and no std of 0")
    dtype = wanted.dtype or np.dtype(np.float32)
    x = pixels if dtype == np.uint8 else ((pixels / np.float32(255) * np.float32(options.range) - mean) / std).astype(dtype)
    return np.ascontiguousarray(x[None] if layout == "NHWC" else np.moveaxis(x, -1, 0)[None])


def _labels(path: str | None) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if path else []


def _is_classifier(y: np.ndarray) -> bool:
    """Whether an output is one score for each class of one image."""
    return y.ndim >= 2 and y.shape[0] == 1 and y.size > 1 and y.size == max(y.shape)


def _print_classes(path: str, scores: np.ndarray, labels: list[str], options: argparse.Namespace) -> None:
    scores = scores.astype(np.float64)
    if scores.min() < 0 or abs(scores.sum() - 1) > 1e-3:  # no probabilities yet
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    names = ["background", *labels] if len(labels) + 1 == len(scores) else labels
    if names and len(names) != len(scores):
        raise PyclError(f"--labels: {options.labels} has {len(labels)} lines, the model has {len(scores)} classes")
    print(path)
    for index in np.argsort(-scores, kind="stable")[: options.top]:
        print(f"  {100 * scores[index]:5.1f} %  {names[index] if names else f'class {index}'}")


def _summary(output: Any) -> str:
    """An output in a line."""
    if output is None:
        return "nothing"
    if not isinstance(output, np.ndarray):
        return f"sequence of {len(output)}"
    text = f"{output.dtype} {list(output.shape)}"
    if not output.size or output.dtype.kind not in "fiu":
        return text
    return f"{text}, {output.min():g} to {output.max():g}, mean {output.mean():g}"


def _write(path: str, infos: Sequence[ValueInfo], outputs: Sequence[Any]) -> None:
    for item, output in zip(infos, outputs, strict=True):
        if not isinstance(output, np.ndarray) or output.dtype.hasobject:
            raise PyclError(f"--out: only arrays of numbers can be written; the output {printable(item.name)} is none ({_summary(output)})")
    if Path(path).suffix == ".npz":
        with replacing(path) as beside, open(beside, "wb") as file:
            arrays: dict[str, Any] = {item.name: array for item, array in zip(infos, outputs, strict=True)}
            np.savez(file, **arrays)
    elif len(outputs) > 1:
        raise PyclError(f"--out: the model has {len(outputs)} outputs; give a name that ends in .npz")
    else:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.save(file, outputs[0])


# ---- compare ---------------------------------------------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> int:
    """Compare outputs and times with another runtime."""
    model = load(options.model)
    if options.inputs and options.input_shape:
        raise PyclError("compare: --input-shape is for random inputs; files have shapes of their own: leave one of them out")
    if options.inputs:
        inputs = read_arrays(model.inputs, options.inputs)
    else:
        inputs = random_inputs(model.inputs, concrete_shapes(model.inputs, options.input_shape), options.seed)
    inputs = model.arrays((inputs,))  # other runtimes do not convert them
    other = _onnxruntime(options.model, inputs) if options.against == "onnxruntime" else _ours(model, inputs, find_device("reference"))
    devices = _devices(options.device or [])
    runners = {options.against: other, **{device.label: _ours(model, inputs, device) for device in devices}}
    results = {name: runner() for name, runner in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.runs if options.against == "onnxruntime" else 1):  # in turns, so that a busy machine slows all alike
        for name, runner in runners.items():
            start = time.perf_counter()
            runner()
            seconds[name].append(time.perf_counter() - start)

    worst = 0.0
    rows = [("output", "device", "largest difference", "relative", "")]
    for index, item in enumerate(model.outputs):
        expected = results[options.against][index]
        for device in devices:
            absolute, relative = difference(results[device.label][index], expected)
            worst = max(worst, relative)
            rows.append((printable(item.name), device.label, f"{absolute:.2g}", f"{relative:.2g}", "" if relative <= options.tolerance else "differs"))
    print(table(rows))
    theirs = median(seconds[options.against])
    print(f"\n{options.against:12} {1e3 * theirs:10.3f} ms")
    for device in devices:
        ours = median(seconds[device.label])
        print(f"{device.label:12} {1e3 * ours:10.3f} ms  {theirs / ours:.2f} times as fast  ({device.name})")
    print(f"{'agrees' if worst <= options.tolerance else 'differs'}: largest relative difference {worst:.2g}, allowed {options.tolerance:g}; {get_num_threads()} threads")
    return 0 if worst <= options.tolerance else 1


def difference(found: Any, expected: Any) -> tuple[float, float]:
    """Largest difference, and that relative to the largest finite element; infinite for other shapes, dtypes or places of NaN.

    Of sequences that of their worst pair.
    """
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = [difference(*pair) for pair in zip(found, expected, strict=True)]
        return max((pair[0] for pair in pairs), default=0.0), max((pair[1] for pair in pairs), default=0.0)
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray):
        return (0.0, 0.0) if found is None and expected is None else (np.inf, np.inf)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf, np.inf
    if not found.size or found.dtype.kind not in "fiub":
        return (0.0, 0.0) if np.array_equal(found, expected) else (np.inf, np.inf)
    a, b = found.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    absolute = float(np.abs(np.subtract(a, b, where=~same, out=np.zeros_like(a))).max())
    absolute = absolute if np.isfinite(absolute) else np.inf
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return absolute, absolute / (scale or 1.0)


def random_inputs(infos: Sequence[ValueInfo], shapes: Sequence[tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Normally distributed numbers; for integers zeros and ones."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for item, shape in zip(infos, shapes, strict=True):
        if item.dtype is None or item.dtype.kind not in "fiub":
            raise PyclError(f"the input {printable(item.name)} is no array of numbers: give it as a file")
        numbers = rng.standard_normal(shape) if item.dtype.kind == "f" else rng.integers(0, 2, shape)
        arrays[item.name] = np.asarray(numbers).astype(item.dtype)
    return arrays


def _ours(model: OnnxModel, inputs: Mapping[str, np.ndarray], device: Device) -> Callable[[], Sequence[np.ndarray]]:
    def call() -> Sequence[np.ndarray]:
        outputs: Any = model(inputs, device=device)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return call


def _onnxruntime(path: str, inputs: Mapping[str, np.ndarray]) -> Callable[[], Sequence[np.ndarray]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise PyclError("--against onnxruntime: it is not installed: pip install onnxruntime; or compare with --against reference") from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = get_num_threads()
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        session.run(None, dict(inputs))
    except Exception as error:  # onnxruntime's own exceptions have no common base but this
        raise PyclError(f"onnxruntime cannot run {path}: {error}") from error
    return lambda: session.run(None, dict(inputs))
