"""Training: the Trainer, its history, checkpoints."""

from .checkpoint import Checkpoint
from .history import EpochRecord, History
from .trainer import Evaluation, Trainer

__all__ = ["Checkpoint", "EpochRecord", "Evaluation", "History", "Trainer"]
