"""The main job on real input: a small LeNet-style network learns scikit-learn's handwritten digits and recognises them.

It trains on one backend, writes the weights and a picture, then loads the weights on the other and compares the two.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from . import nn, optim
from .backends import backend
from .backends.base import Device
from .data import Dataset, load_digits
from .errors import DeviceError
from .formats.weights import load_weights, save
from .placement import device as find_device
from .placement import opencl_devices
from .random import manual_seed
from .report.pictures import overview
from .training import EpochRecord, History, Trainer

EPOCHS, BATCH_SIZE, LR, DECAY = 6, 64, 0.05, 0.7

#: What must be reached on the held-out quarter.
GOAL = 0.98

#: Where two float32 backends may differ in a logit.
TOLERANCE = 1e-3

MODEL_FILE, PICTURE_FILE = "digits.safetensors", "digits.png"


def digits_network(num_classes: int = 10) -> nn.Sequential:
    """[n,1,8,8] -> [n, num_classes], in LeNet's manner: convolutions, pooling, two linear layers; 38,346 parameters."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 16, 5, padding=2),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(16, 32, 3, padding=1),
            "relu2": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.3),
            "fc1": nn.Linear(32 * 4 * 4, 64),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(64, num_classes),
        }
    )


def _half_shift(x: np.ndarray, axis: int, by: int) -> np.ndarray:
    """Images moved by half a pixel along an axis, to lower (-1) or higher (+1) indices or (0) not at all; zeros come in."""
    if by == 0:
        return x
    moved = np.moveaxis(x, axis, 0)
    neighbour = np.zeros_like(moved)
    if by > 0:
        neighbour[1:] = moved[:-1]
    else:
        neighbour[:-1] = moved[1:]
    return (x + np.moveaxis(neighbour, 0, axis)) / 2


def half_pixel_shifts(x: np.ndarray) -> np.ndarray:
    """Images [n,c,h,w] and their eight copies moved by half a pixel, [9n,c,h,w]."""
    steps = (0, -1, 1)
    return np.concatenate([_half_shift(_half_shift(x, 2, down), 3, right) for down in steps for right in steps])


def pick_device(spec: Any = None) -> Device:
    """The device to train on: `spec`, or PYCL_CNN_DEVICE, else OpenCL's first where there is one, so that both backends are seen."""
    if spec is not None or os.environ.get("PYCL_CNN_DEVICE"):
        return find_device(spec)
    return find_device("opencl" if opencl_devices() else "cpu")


def _other_device(first: Device) -> tuple[Device | None, str]:
    """The device of the other backend to compare with; where there is none, why."""
    if first.backend != "cpu":
        return find_device("cpu"), ""
    try:
        backend("opencl").devices()
        return find_device("opencl"), ""
    except DeviceError as error:
        return None, str(error)


def _train(device: Device, data: Dataset, epochs: int, seed: int, validate: bool, progress: bool) -> tuple[Trainer, History]:
    manual_seed(seed)
    trainer = Trainer(digits_network(), nn.CrossEntropyLoss(), optim.SGD(LR, momentum=0.9, nesterov=True), device=device)

    def decay(record: EpochRecord) -> None:
        trainer.optimizer.lr = LR * DECAY**record.epoch

    x = half_pixel_shifts(data.x)
    labels = np.tile(data.labels, len(x) // len(data.x))
    history = trainer.fit((x, labels), epochs, BATCH_SIZE, data.held_out if validate else None, progress=progress, callbacks=[decay])
    return trainer, history


def _probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _images_per_second(trainer: Trainer, x: np.ndarray) -> float:
    """Best of several rounds of inference, the program being there already."""
    trainer.predict(x, len(x))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        trainer.predict(x, len(x))
        best = min(best, time.perf_counter() - started)
    return len(x) / best


def run(device: Any = None, out: str | os.PathLike[str] = "pycl-cnn-demo", seed: int = 0, progress: bool = True) -> int:
    """See the module's docstring. 0 when the goal is reached and the backends agree, else 1."""
    started = time.perf_counter()
    first, folder, data = pick_device(device), Path(out), load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Device   {first}" + (f", {shorten(first.platform, 44, placeholder=' ...')}" if first.platform else ""))
    print(f"Data     {len(data.x):,} digits of 8 x 8 pixels to learn from (each also moved by half a pixel, 9 in all), {len(data.held_out_x)} held out")

    trainer, history = _train(first, data, EPOCHS, seed, True, progress)
    x, labels = data.held_out
    logits = trainer.predict(x, len(x))
    accuracy = float((logits.argmax(1) == labels).mean())
    print(f"Learned  {100 * accuracy:.2f} % of the held-out digits are recognised ({np.count_nonzero(logits.argmax(1) != labels)} mistakes)")

    save(trainer.model, folder / MODEL_FILE, {"model": "digits"})
    subtitle = f"{100 * accuracy:.2f} % of {len(x)} held-out digits recognised after {EPOCHS} epochs, {sum(r.seconds for r in history):.1f} s on {first}"
    _draw(folder / PICTURE_FILE, subtitle, trainer, history, data, _probabilities(logits))
    print(f"Written  {folder / MODEL_FILE}, {folder / PICTURE_FILE}")

    agree = _compare(trainer, history.images_per_second[-1], folder / MODEL_FILE, data, logits, seed)
    reached = accuracy >= GOAL
    print(f"Done     in {time.perf_counter() - started:.0f} s" + ("" if reached else f"; the goal of {100 * GOAL:.0f} % was missed"))
    return 0 if reached and agree else 1


def _compare(trainer: Trainer, trained_per_second: float, file: Path, data: Dataset, logits: np.ndarray, seed: int) -> bool:
    """Load the weights on the other backend, print how far the two agree and how fast each is; whether they agree."""
    first, x = trainer.device, data.held_out_x
    rows = [(str(first), _images_per_second(trainer, x), trained_per_second)]
    second, reason = _other_device(first)
    agree = True
    if second is not None:
        model = load_weights(digits_network(), file)
        twin = Trainer(model, trainer.loss, trainer.optimizer, device=second)
        others = twin.predict(x, len(x))
        difference = float(np.abs(others - logits).max())
        same = int(np.count_nonzero(others.argmax(1) == logits.argmax(1)))
        agree = same == len(x) and difference <= TOLERANCE
        print(f"Compared {file.name} on {second}: {same} of {len(x)} labels are the same, logits differ by {difference:.1e} at most")
        rows.append((str(second), _images_per_second(twin, x), _train(second, data, 1, seed, False, False)[1].images_per_second[-1]))
    else:
        print(f"Compared with nothing: {reason}")
    width = max(len(row[0]) for row in rows)
    print(f"Speed    {'images per second':{width}}  {'inference':>12}  {'training':>12}")
    for name, inference, training in rows:
        print(f"         {name:{width}}  {inference:12,.0f}  {training:12,.0f}")
    return agree


def _draw(path: Path, subtitle: str, trainer: Trainer, history: History, data: Dataset, probabilities: np.ndarray) -> None:
    """The picture; the predictions shown are one of each class 0 to 4, and the five least certain of all."""
    model = trainer.model
    assert isinstance(model, nn.Sequential)
    x, labels = data.held_out
    first = int(np.argmax(labels == 8))  # an eight has edges of every direction
    layers = (("After convolution 1 and ReLU", 2), ("After convolution 2, ReLU and pooling", 5))
    maps = [(name, model[:parts](x[first : first + 1], device=trainer.device)[0]) for name, parts in layers]
    least_certain = np.argsort(probabilities.max(1), kind="stable")[:5].tolist()
    of_each_class = [int(np.argmax(labels == digit)) for digit in range(5)]
    overview(
        path,
        "pycl_cnn learns handwritten digits",
        subtitle,
        history,
        model.state_dict()["conv1.weight"][:, 0],
        x[first, 0],
        maps,
        x[:, 0],
        labels,
        probabilities,
        [("Predictions on held-out images, probabilities in per cent", of_each_class), ("The five least certain of all", least_certain)],
    )
