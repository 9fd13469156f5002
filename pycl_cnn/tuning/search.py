"""Which variant to try next: from the best one known, one parameter one step up or down, for the step that takes the most time.

Everything is decided by what was tried, so that a search that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .space import Family, Limits, Problem, Variant

KEEP = 0.97  # of the untuned time, at most, for a variant to be kept: less is noise


@dataclass
class Task:
    """A step of the model: `count` times in it, and what was tried for it: {label of variants: ratio to the untuned time, or why it failed}."""

    name: str
    count: int
    start: dict[str, Variant] = field(default_factory=dict)  # by family, what is chosen without tuning
    seconds: float = 0.0
    tried: dict[str, float | str] = field(default_factory=dict)
    finished: bool = False

    @property
    def weight(self) -> float:
        return self.count * self.seconds

    @staticmethod
    def label(variants: Mapping[str, Variant]) -> str:
        return json.dumps({family: variant.data for family, variant in sorted(variants.items())})

    @staticmethod
    def parse(label: str) -> dict[str, Variant]:
        return {family: Variant.parse(data) for family, data in json.loads(label).items()}


def best_of(task: Task) -> float:
    """The best ratio known; 1 is the untuned one's."""
    return min([1.0, *(ratio for ratio in task.tried.values() if not isinstance(ratio, str))])


def best_variants(task: Task) -> dict[str, Variant]:
    """The variants of the best ratio, where one is better than the untuned one."""
    best = best_of(task)
    if best >= 1.0:
        return dict(task.start)
    return Task.parse(next(label for label, ratio in task.tried.items() if ratio == best))


def next_task(tasks: Iterable[Task]) -> Task | None:
    """The one with the most time for each try that it had; None where all are finished."""
    open_tasks = [task for task in tasks if not task.finished]
    return max(open_tasks, key=lambda task: (task.weight * best_of(task) / (1 + len(task.tried)), task.name), default=None)


def next_variants(task: Task, asked: Mapping[str, tuple[Family, Problem]], limits: Limits) -> dict[str, Variant] | None:
    """An untried neighbour of the best variants, or another kernel's usual choice; None where there is none."""
    best = best_variants(task)
    for candidate in _candidates(best, asked, limits):
        if candidate != task.start and task.label(candidate) not in task.tried:
            return candidate
    return None


def _candidates(best: Mapping[str, Variant], asked: Mapping[str, tuple[Family, Problem]], limits: Limits) -> Iterable[dict[str, Variant]]:
    for name, (family, problem) in asked.items():
        for variant in family.usual(problem, limits):
            yield {**best, name: variant}
    for name, (family, problem) in asked.items():
        for variant in family.neighbours(best[name], problem, limits):
            yield {**best, name: variant}
