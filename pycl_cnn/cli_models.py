"""The commands that work with networks by name: `train`, `predict` and `profile`."""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import models, nn, optim
from .backends.base import Device, Program
from .compiler import compile as compile_model
from .compiler import output_shape
from .data import load_mnist, read_idx, read_images
from .demo import digits_network
from .errors import PyclError
from .formats.weights import load_weights, read_metadata, save
from .placement import device as find_device
from .random import manual_seed
from .training import Checkpoint, EpochRecord, Trainer

DIGITS = models.Entry("digits", digits_network, (1, 1, 8, 8), 38_346, "the network of pycl-cnn demo")


def known_models() -> dict[str, models.Entry]:
    """The networks that the command line knows."""
    return {**models.REGISTRY, DIGITS.name: DIGITS}


def known_model(name: str) -> models.Entry:
    """The network called `name`. Raises PyclError that lists the names there are."""
    found = known_models().get(name)
    if found is None:
        raise PyclError(f"there is no network {name!r}; there are {', '.join(known_models())}")
    return found


def _build(entry: models.Entry, classes: int, channels: int) -> nn.Module:
    """The network for so many classes and, where it lets one choose, channels."""
    arguments: dict[str, Any] = {"num_classes": classes}
    if "in_channels" in inspect.signature(entry.build).parameters:
        arguments["in_channels"] = channels
    return entry.build(**arguments)


def _check_writable(name: str, path: str | None) -> None:
    """Training takes long: a folder that is not there is told at once. Raises PyclError."""
    if path is not None and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
        raise PyclError(f"{name}: {path} must be a file in a folder that exists")


def _optimizer(options: argparse.Namespace) -> optim.Optimizer:
    if options.optimizer == "adam":
        return optim.Adam(0.002 if options.lr is None else options.lr, weight_decay=options.weight_decay)
    return optim.SGD(0.05 if options.lr is None else options.lr, momentum=0.9, weight_decay=options.weight_decay, nesterov=True)


def train(options: argparse.Namespace) -> int:
    """``pycl-cnn train``"""
    for name in ("out", "checkpoint"):
        _check_writable(f"--{name}", getattr(options, name))
    entry, device, data = known_model(options.model), find_device(options.device), load_mnist(options.data)
    classes = int(max(data.labels.max(), data.held_out_labels.max())) + 1
    manual_seed(options.seed)
    model = _build(entry, classes, data.x.shape[1])
    optimizer = _optimizer(options)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, device=device)
    if options.resume:
        trainer.resume(options.resume)

    def decay(record: EpochRecord) -> None:
        optimizer.lr *= options.lr_decay

    callbacks: list[Any] = [decay, *([Checkpoint(trainer, options.checkpoint)] if options.checkpoint else [])]
    print(f"{entry.name} on {device}: {len(data.x):,} images to learn from, {len(data.held_out_x):,} to test on, {classes} classes")
    facts = {"model": entry.name, "num_classes": str(classes), "in_channels": str(data.x.shape[1])}
    epochs = max(options.epochs - trainer.epoch, 0)
    try:
        trainer.fit(data.train, epochs, options.batch_size, data.held_out, progress=not options.quiet, callbacks=callbacks)
    except KeyboardInterrupt:
        save(model, options.out, facts)
        print(f"interrupted in epoch {trainer.epoch + 1}; the weights so far are in {options.out}", file=sys.stderr)
        return 130
    save(model, options.out, facts)
    scores = trainer.evaluate(*data.held_out)
    print(f"test accuracy {100 * (scores.accuracy or 0):.2f} %, loss {scores.loss:.4f}; weights in {options.out}")
    return 0


def predict(options: argparse.Namespace) -> int:
    """``pycl-cnn predict``"""
    facts = read_metadata(options.weights) if Path(options.weights).suffix == ".safetensors" else {}
    name = options.model or facts.get("model")
    if name is None:
        raise PyclError(f"{options.weights} does not say which network it is for: give --model ({', '.join(known_models())})")
    entry = known_model(name)
    own = name == facts.get("model")  # what the file says about its network holds for that one
    channels = int(facts["in_channels"]) if own and "in_channels" in facts else entry.input_shape[1]
    model = _build(entry, int(facts["num_classes"]), channels) if own and "num_classes" in facts else entry.build()
    load_weights(model, options.weights)

    shape = (channels, *entry.input_shape[2:])
    sources: list[str] = []
    parts: list[np.ndarray] = []
    for path in options.images:
        images = read_images(path, shape, options.invert)
        sources += [path] if len(images) == 1 else [f"{path}[{index}]" for index in range(len(images))]
        if parts and images.shape[1:] != parts[0].shape[1:]:
            raise PyclError(f"the images of one call must be of one size; {path} has {list(images.shape[1:])}, those before {list(parts[0].shape[1:])}")
        parts.append(images)
    x = np.concatenate(parts)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(), device=options.device)
    logits = trainer.predict(x)
    if logits.ndim != 2:
        raise PyclError(f"{name} gives no single label per image; its result is {list(logits.shape)}")
    powers = np.exp(logits - logits.max(1, keepdims=True))
    _print_table(options, sources, powers / powers.sum(1, keepdims=True))
    if options.labels:
        labels = read_idx(options.labels)
        if labels.shape != (len(x),):
            raise PyclError(f"--labels: {options.labels} must hold {len(x)} labels, one for each image; it holds {list(labels.shape)}")
        right = int(np.count_nonzero(logits.argmax(1) == labels))
        print(f"accuracy {100 * right / len(x):.2f} % ({right} of {len(x)}) on {trainer.device}")
    return 0


def profile(options: argparse.Namespace) -> int:
    """``pycl-cnn profile``"""
    _check_writable("--trace", options.trace)
    entry, device = known_model(options.model), find_device(options.device)
    program, inputs = program_of(entry, options.batch, device, options.train)
    result = program.profile(repeat=options.repeat, **inputs)
    print(f"{entry.name}, batch {options.batch}, {'training step' if options.train else 'inference'}\n{result}")
    if options.trace:
        result.save_trace(options.trace)
        print(f"trace in {options.trace}: open it in chrome://tracing or https://ui.perfetto.dev")
    return 0


def program_of(entry: models.Entry, batch: int, device: Device, training: bool = False) -> tuple[Program, dict[str, np.ndarray]]:
    """The network's program for `batch` images, inference or a training step with SGD, and what to run it on."""
    model = entry.build().train(training)
    x = np.random.default_rng(0).standard_normal((batch, *entry.input_shape[1:]), dtype=np.float32)
    if not training:
        return compile_model(model, x.shape, device=device), {"x": x}
    result = output_shape(model, x.shape)
    target, optimizer = np.zeros((result[0], *result[2:]), np.int32), optim.SGD(lr=0.001, momentum=0.9)
    program = compile_model(model, x.shape, device=device, train=True, loss=nn.CrossEntropyLoss(), optimizer=optimizer, target=target)
    given = {"x": x, "target": target, "hyper": np.array(optimizer.rule.hyper(optimizer.lr, 1), np.float32), "rng": np.zeros(2, np.int32)}
    return program, {name: given[name] for name in program.input_values}


def _print_table(options: argparse.Namespace, sources: list[str], probabilities: np.ndarray) -> None:
    names = [str(index) for index in range(probabilities.shape[1])]
    if options.classes_file:
        names = Path(options.classes_file).read_text(encoding="utf-8").splitlines()
        if len(names) < probabilities.shape[1]:
            raise PyclError(f"--classes-file: {options.classes_file} has {len(names)} lines for {probabilities.shape[1]} classes")
    shown = len(sources) if options.limit == 0 else min(options.limit, len(sources))
    rows = []
    for source, row in zip(sources[:shown], probabilities, strict=False):
        order = np.argsort(-row, kind="stable")[: options.top]
        rows.append((source, *(f"{names[index]} {100 * row[index]:.1f} %" for index in order)))
    rows.insert(0, ("image", "label", *["or"] * (len(rows[0]) - 2)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if shown < len(sources):
        print(f"... and {len(sources) - shown} more (--limit 0 shows all)")
