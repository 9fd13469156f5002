"""Trainer: fits a model to data. Every step is one program that stays on the device; the host sends a batch and reads the loss."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..backends.base import Program, check_precision
from ..compiler import Spec, inference_program
from ..errors import DivergenceError, ShapeError
from ..nn.module import Module
from ..optim import Optimizer
from ..placement import device as find_device
from . import checkpoint
from .history import EpochRecord, History
from .progress import Progress
from .samples import Samples, check_batch_size
from .steps import TrainingSteps, versions

#: How many programs for evaluation and prediction are kept.
KEPT_PROGRAMS = 6


class Evaluation(NamedTuple):
    """What `Trainer.evaluate` measures; accuracy is None where the labels are not integers."""

    loss: float
    accuracy: float | None


class _Tally:
    """Loss and accuracy over several batches, each row counted once; rows with an ignored label do not count."""

    def __init__(self, loss: Module) -> None:
        self._ignored = getattr(loss, "ignore_index", -100)
        self._summed = getattr(loss, "reduction", "mean") == "sum"
        self._loss, self._rows, self._right, self._labels = 0.0, 0, 0, 0

    def add(self, loss: float, result: np.ndarray, target: np.ndarray) -> None:
        if target.dtype.kind == "i":
            counted = target != self._ignored
            rows = int(np.count_nonzero(counted))
            self._labels += rows
            self._right += int(np.count_nonzero((result.argmax(1) == target) & counted))
        else:
            rows = len(target)
        if rows:  # a batch of ignored rows has no mean
            self._loss += loss if self._summed else loss * rows
        self._rows += rows

    @property
    def loss(self) -> float:
        return self._loss if self._summed else self._loss / self._rows if self._rows else math.nan

    @property
    def accuracy(self) -> float | None:
        return self._right / self._labels if self._labels else None

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f" accuracy {100 * self.accuracy:.2f} %"
        return f"loss {self.loss:.4f}{accuracy}"


class _Scored(Module):
    """The model's first result, and the loss."""

    def __init__(self, model: Module, loss: Module) -> None:
        self.model, self.loss = model, loss

    def forward(self, input: Any, target: Any) -> Any:
        result = self.model(input)
        first = result[0] if isinstance(result, tuple | list) else result
        return self.loss(first, target), first


class Trainer:
    """Trains `model` with `loss` and `optimizer` on `device`.

        trainer = pc.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.05, momentum=0.9))
        history = trainer.fit((x, labels), epochs=5, batch_size=64, validation=(xv, yv))

    Shuffles and dropout follow from `seed` (by default the next number of `pycl_cnn.manual_seed`'s generator), so that the same
    seed, data and device give the same losses, bit for bit. Layers train as their own mode says (`model.train()`, the default;
    a layer in `eval()` keeps its running statistics and drops nothing); evaluation and prediction always use inference behaviour.
    `device` None means PYCL_CNN_DEVICE, or "auto". ``precision="exact"`` has plain sums of products only, see `pycl_cnn.compile`.

    A last batch smaller than the others trains as well, through a second program; weights and the optimizer's arrays go over
    exactly. `optimizer.lr` may be changed at any time, e.g. by a callback.
    """

    def __init__(
        self,
        model: Module,
        loss: Module,
        optimizer: Optimizer,
        device: Any = None,
        *,
        seed: int | None = None,
        layout: str = "NCHW",
        precision: str = "fast",
    ) -> None:
        for name, value, kind in (("model", model, Module), ("loss", loss, Module), ("optimizer", optimizer, Optimizer)):
            if not isinstance(value, kind):
                raise TypeError(f"Trainer: {name} must be an instance of {kind.__module__}.{kind.__name__}; received {value!r}")
        self.model, self.loss, self.optimizer, self.layout = model, loss, optimizer, layout
        self.precision = check_precision("Trainer", precision)
        self.device = find_device(device)
        self.seed = int(random.generator().integers(2**31)) if seed is None else int(seed)
        self.epoch = 0  # epochs done
        self.step = 0  # updates done
        self.steps = TrainingSteps(model, loss, optimizer.rule, self.device, layout, precision)
        self._programs: dict[Any, tuple[Program, tuple[int, ...]]] = {}

    # ---- training -------------------------------------------------------------------------------------------------------

    def fit(
        self,
        data: tuple[Any, Any],
        epochs: int = 1,
        batch_size: int = 64,
        validation: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        progress: bool = True,
        callbacks: Iterable[Callable[[EpochRecord], None]] = (),
    ) -> History:
        """Train for `epochs` more epochs on ``data = (x, labels)``; what was measured.

        x [n, ...] may have any real dtype and be indexable by rows only (a np.memmap stays on disk); integers keep their value.
        Labels are integers (any size) or what the loss takes. Each of `callbacks` is called with every epoch's EpochRecord.
        The model's own weights follow at the end of each epoch, and when an exception (also Ctrl-C) ends training within one.

        Raises ShapeError and DtypeError for data that do not fit, before the first step; DivergenceError when a loss or weight is
        no finite number: the model then keeps the weights of the last good epoch.
        """
        samples = _samples("fit", data)
        held_out = None if validation is None else _samples("fit: validation", validation)
        size = check_batch_size("fit", batch_size)
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
            raise ShapeError("fit", "epochs must be an integer of at least 0", epochs=epochs)
        history, last, calls = History(), self.epoch + epochs, list(callbacks)
        while self.epoch < last:
            with Progress(f"epoch {self.epoch + 1}/{last}", len(samples), progress) as bar:
                bar.say("preparing")
                programs = self._prepare(samples, held_out, size)
                record = self._run_epoch(samples, held_out, size, programs, shuffle, bar, history.step_loss)
            history.records.append(record)
            for call in calls:
                call(record)
        return history

    def _prepare(self, samples: Samples, held_out: Samples | None, size: int) -> dict[int, Program]:
        """A program for each size of batch; the labels are checked now that the classes are known."""
        sizes = samples.sizes(size)
        programs = self.steps.prepare([(samples.x_spec(rows), samples.target_spec(rows)) for rows in sizes])
        self._check_labels(samples, programs[0])
        if held_out is not None:
            self._check_labels(held_out, programs[0])
        return dict(zip(sizes, programs, strict=True))

    def _check_labels(self, samples: Samples, program: Program) -> None:
        """Labels must be classes of the model, whose result [n, classes, ...] is the program's second output."""
        if samples.labelled:
            samples.check_labels(program.plan.graph.outputs[1].shape[1], getattr(self.loss, "ignore_index", -100))

    def _run_epoch(
        self, samples: Samples, held_out: Samples | None, size: int, programs: dict[int, Program], shuffle: bool, bar: Progress, losses: list[float]
    ) -> EpochRecord:
        """One epoch, its validation included."""
        tally, first, started = _Tally(self.loss), self.step, time.perf_counter()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(samples)) if shuffle else np.arange(len(samples))
        try:
            for start in range(0, len(samples), size):
                rows = order[start : start + size]
                losses.append(self._run_step(samples, rows, programs[len(rows)], tally))
                rate = (start + len(rows)) / (time.perf_counter() - started)
                bar.advance(len(rows), f"{tally} {rate:,.0f} images/s")
            if not self.steps.write_back():
                raise DivergenceError(f"fit: a weight is no finite number at the end of epoch {self.epoch + 1}, step {self.step}; {self._advice()}")
        except DivergenceError:
            self.steps.forget()
            self.step = first
            raise
        except BaseException:
            self.steps.write_back()
            raise
        seconds = time.perf_counter() - started
        self.epoch += 1
        text = f"{tally} {len(samples) / seconds:,.0f} images/s"
        scores = None
        if held_out is not None:
            bar.say(f"{text}, validating")
            scores = self._evaluate(held_out, size)
            text += ", held out " + (f"loss {scores.loss:.4f}" if scores.accuracy is None else f"{100 * scores.accuracy:.2f} %")
        bar.say(text)
        return EpochRecord(
            epoch=self.epoch,
            step=self.step,
            lr=self.optimizer.lr,
            loss=tally.loss,
            accuracy=tally.accuracy,
            validation_loss=scores.loss if scores else None,
            validation_accuracy=scores.accuracy if scores else None,
            seconds=seconds,
            images_per_second=len(samples) / seconds,
        )

    def _run_step(self, samples: Samples, rows: np.ndarray, program: Program, tally: _Tally) -> float:
        """One step on the samples in `rows`; its loss."""
        self.step += 1
        target = samples.targets(rows)
        hyper = self.optimizer.rule.hyper(self.optimizer.lr, self.step)
        loss, result = self.steps.run(program, samples.inputs(rows), target, hyper, (self.seed & 0x7FFFFFFF, self.step & 0x7FFFFFFF))
        if not math.isfinite(loss):
            raise DivergenceError(f"fit: the loss is {loss} at step {self.step} (epoch {self.epoch + 1}); {self._advice()}")
        tally.add(loss, result, target)
        return loss

    def _advice(self) -> str:
        kept = f"the weights of epoch {self.epoch} are kept" if self.epoch else "the initial weights are kept"
        return f"{kept}. A smaller learning rate (now {self.optimizer.lr:g}) or inputs of smaller magnitude may help"

    # ---- evaluation -----------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, labels: Any, batch_size: int = 256) -> Evaluation:
        """Loss and, for integer labels, accuracy of the model in inference behaviour. Raises ShapeError, DtypeError."""
        return self._evaluate(Samples("evaluate", x, labels), check_batch_size("evaluate", batch_size))

    def _evaluate(self, samples: Samples, size: int) -> Evaluation:
        tally = _Tally(self.loss)
        scored = _Scored(self.model, self.loss)
        for rows in samples.batches(size):
            program = self._program(scored, [samples.x_spec(len(rows)), samples.target_spec(len(rows))])
            if rows[0] == 0:
                self._check_labels(samples, program)
            target = samples.targets(rows)
            loss, result = program.run(samples.inputs(rows), target)
            tally.add(float(loss), result, target)
        return Evaluation(tally.loss, tally.accuracy)

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """The model's result [n, ...] (or results) for x [n, ...], in inference behaviour. Raises ShapeError, DtypeError."""
        samples = Samples("predict", x)
        parts = []
        for rows in samples.batches(check_batch_size("predict", batch_size)):
            result = self._program(self.model, [samples.x_spec(len(rows))]).run(samples.inputs(rows))
            parts.append(result if isinstance(result, tuple) else (result,))
        results = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        return results[0] if len(results) == 1 else results

    def _program(self, module: Module, specs: list[Spec]) -> Program:
        """An inference program with the model's present weights; the most recently used ones are kept."""
        key = (type(module) is _Scored, tuple((shape, np.dtype(dtype).str) for shape, dtype in specs))
        now = versions(self.model)
        program, loaded = self._programs.pop(key, (None, ()))
        if program is None:
            program = inference_program(module, specs, self.device, self.layout, precision=self.precision)
        elif loaded != now:
            program.load(module.state_dict())
        self._programs[key] = program, now
        if len(self._programs) > KEPT_PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return program

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write weights, optimizer's arrays and counters to `path` (safetensors), in one step: an older file stays whole till then."""
        checkpoint.write(self, path)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: what `fit` does next is what it would have done without the stop, bit for bit.

        Takes over weights, the optimizer's arrays and learning rate, the seed and the counters of epochs and steps.
        Raises FormatError, and changes nothing, where the file does not fit the model or the optimizer; FileNotFoundError.
        """
        checkpoint.read(self, path)


def _samples(operation: str, data: Any) -> Samples:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ShapeError(operation, "the data must be a pair (x, labels)", given=type(data).__name__)
    return Samples(operation, *data)
