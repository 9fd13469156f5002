"""Checkpoints: a model's weights, its optimizer's arrays and where training stands, in one safetensors file.

The file holds the weights under their state_dict names, so that `pycl_cnn.load_weights(model, path, strict=False)` reads it too.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FormatError
from ..formats.weights import read_metadata, save
from .steps import PREFIX

if TYPE_CHECKING:
    from .history import EpochRecord
    from .trainer import Trainer

#: The metadata entry that says where training stands.
KEY = "trainer"


class Checkpoint:
    """A callback for `Trainer.fit` that writes a checkpoint to `path` after every `every` epochs, in place of the one before."""

    def __init__(self, trainer: Trainer, path: str | os.PathLike[str], every: int = 1) -> None:
        self.trainer, self.path, self.every = trainer, path, every

    def __call__(self, record: EpochRecord) -> None:
        if record.epoch % self.every == 0:
            write(self.trainer, self.path)


def write(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """See :meth:`Trainer.save_checkpoint`."""
    standing = {
        "epoch": trainer.epoch,
        "step": trainer.step,
        "seed": trainer.seed,
        "lr": trainer.optimizer.lr,
        "rule": repr(trainer.optimizer.rule),
    }
    save({**trainer.model.state_dict(), **trainer.steps.slots}, path, {KEY: json.dumps(standing)})


def read(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """See :meth:`Trainer.resume`."""
    standing = _standing(trainer, path)
    from safetensors.numpy import load_file

    arrays = load_file(path)
    slots = {name: np.asarray(array, np.float32) for name, array in arrays.items() if name.startswith(PREFIX)}
    shapes = {name: parameter.shape for name, parameter in trainer.model.named_parameters()}
    for name, array in slots.items():
        slot, _, parameter = name.removeprefix(PREFIX).partition(".")
        if slot not in trainer.optimizer.rule.slots or shapes.get(parameter) != array.shape:
            raise FormatError(f"resume: {path}: {name} {list(array.shape)} fits no parameter of {type(trainer.model).__name__}")
    trainer.model.load_state_dict({name: array for name, array in arrays.items() if name not in slots})
    trainer.steps.forget()
    trainer.steps.slots = slots
    trainer.epoch, trainer.step, trainer.seed, trainer.optimizer.lr = (standing[key] for key in ("epoch", "step", "seed", "lr"))


def _standing(trainer: Trainer, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Where training stood, for this trainer's optimizer."""
    text = read_metadata(path).get(KEY)
    if text is None:
        raise FormatError(f"resume: {path} holds no state of a training; if it holds weights alone, use pycl_cnn.load_weights")
    try:
        standing = json.loads(text)
        numbers = [standing[key] for key in ("epoch", "step", "seed", "lr")]
        rule = standing["rule"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"resume: {path} says where training stood in a way that is not understood ({error!r})") from error
    if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
        raise FormatError(f"resume: {path} says that training stood at {standing}")
    if rule != repr(trainer.optimizer.rule):
        raise FormatError(f"resume: {path} was written with {rule}; this trainer's optimizer is {trainer.optimizer.rule!r}")
    return standing
