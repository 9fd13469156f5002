"""What a training run leaves behind for people and plots: plain lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..records import record


@record
class EpochRecord:
    """One epoch. What was not measured is None: accuracy needs integer labels, the validation entries validation data."""

    epoch: int  # counted from 1 over the trainer's life, also through checkpoints
    step: int  # updates done so far, counted the same way
    lr: float
    loss: float  # mean over the epoch's images, each with the weights of its own step
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float  # of training, without validation
    images_per_second: float

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}: loss {self.loss:.4f}"]
        for name, value in (("accuracy", self.accuracy), ("validation accuracy", self.validation_accuracy)):
            if value is not None:
                parts.append(f"{name} {100 * value:.2f} %")
        return ", ".join([*parts, f"{self.images_per_second:,.0f} images/s"])


@dataclass
class History:
    """The epochs of one `fit`, and the loss of every step."""

    records: list[EpochRecord] = field(default_factory=list)
    step_loss: list[float] = field(default_factory=list)

    @property
    def epoch(self) -> list[int]:
        return [record.epoch for record in self.records]

    @property
    def loss(self) -> list[float]:
        return [record.loss for record in self.records]

    @property
    def accuracy(self) -> list[float | None]:
        return [record.accuracy for record in self.records]

    @property
    def validation_loss(self) -> list[float | None]:
        return [record.validation_loss for record in self.records]

    @property
    def validation_accuracy(self) -> list[float | None]:
        return [record.validation_accuracy for record in self.records]

    @property
    def images_per_second(self) -> list[float]:
        return [record.images_per_second for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def __str__(self) -> str:
        return "\n".join(map(str, self.records))
