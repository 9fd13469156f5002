"""What is known about variants: measured on this device, shipped for its kind, or a rule by sizes.

A *record* is a JSON file: which devices it holds for, and for each family the best variant for each problem ("*" for every problem: a
list in order of preference, of which the first that the device allows is taken).

    {"format": 1, "title": "...", "level": "device", "match": {"platform": "...", "name": "...", "driver": "..."},
     "kernels": "...", "families": {"product": {"pixels=49 outs=512 reds=512 taps=9 groups=1": {"kernel": "conv_igemm", "MR": 10, ...}}}}

Records of this machine lie in the user's cache folder, one for each device and driver; those that come with the package in defaults/.
Looked up is in this order: this device and driver, its architecture (the same device with another driver, or a shipped record for its kind),
its vendor, its type (CPU or GPU), the rule by sizes. Within a record: the same problem, the nearest of its class, "*".
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..cache import cache_folder, write_json
from ..errors import PyclError
from ..records import record
from .space import Family, Limits, Problem, Variant

FORMAT = 1
LEVELS = ("device", "architecture", "vendor", "type")
EVERY = "*"
FACTS = ("platform", "name", "vendor", "driver", "type")


class TuningError(PyclError):
    """A tuning file that is none, or a model that has nothing to tune."""


@record
class Choice:
    """A variant and where it comes from."""

    variant: Variant
    source: str

    def __str__(self) -> str:
        return f"{self.variant} ({self.source})"


@cache
def parsed(family: str, key: str) -> Problem:
    """`Problem.parse`, once for each key: every lookup goes through a record's keys."""
    return Problem.parse(family, key)


@dataclass
class Record:
    """What one file says."""

    title: str
    level: str
    match: dict[str, str]
    families: dict[str, dict[str, list[Variant]]] = field(default_factory=dict)
    kernels: str = ""  # of which source the variants were measured; empty: of any
    exact: bool = False  # match is text to be equal, not patterns

    @classmethod
    def parse(cls, data: Any, where: str) -> Record:
        """Raises TuningError for what is no record."""
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']} is not {FORMAT}")
            if data["level"] not in LEVELS:
                raise ValueError(f"level {data['level']!r} is none of {', '.join(LEVELS)}")
            if not set(data["match"]) <= set(FACTS):
                raise ValueError(f"match has other names than {', '.join(FACTS)}")
            families = {
                family: {key: [Variant.parse(one) for one in (known if isinstance(known, list) else [known])] for key, known in problems.items()}
                for family, problems in data["families"].items()
            }
            match = {name: str(text) for name, text in data["match"].items()}
            for family, problems in families.items():
                for key in problems:
                    if key != EVERY:
                        Problem.parse(family, key)
            if data["level"] != "device":
                for text in match.values():
                    re.compile(text)
            return cls(str(data["title"]), data["level"], match, families, str(data.get("kernels", "")), data["level"] == "device")
        except (KeyError, TypeError, AttributeError, ValueError, re.error) as problem:
            raise TuningError(f"{where} is no tuning record: {type(problem).__name__}: {problem}") from None

    @property
    def data(self) -> dict[str, Any]:
        families = {
            family: {key: [v.data for v in known] if key == EVERY else known[0].data for key, known in sorted(problems.items())}
            for family, problems in sorted(self.families.items())
        }
        return {"format": FORMAT, "title": self.title, "level": self.level, "match": self.match, "kernels": self.kernels, "families": families}

    def holds_for(self, facts: Mapping[str, str]) -> bool:
        """Whether it is for a device of these facts."""
        if self.exact:
            return all(facts[name] == text for name, text in self.match.items())
        return all(re.search(text, facts[name], re.IGNORECASE) for name, text in self.match.items())

    def find(self, family: Family, problem: Problem, limits: Limits, refused: Collection[Variant] = ()) -> tuple[Variant, str] | None:
        """The variant for a problem, and how near its problem was; None where nothing here can do it but what is refused."""
        known = self.families.get(family.name, {})

        def allowed(variants: Sequence[Variant]) -> Variant | None:
            return next((v for v in variants if v not in refused and family.broken(v, problem, limits) is None), None)

        if problem.key in known and (found := allowed(known[problem.key])):
            return found, ""
        others = [parsed(family.name, key) for key in known if key != EVERY]
        near = [other for other in others if len(other.sizes) == len(problem.sizes) and other.kind == problem.kind]
        for other in sorted(near, key=lambda other: (other.distance(problem), other.key)):
            if found := allowed(known[other.key]):
                return found, f", as for {other.key}"
        if found := allowed(known.get(EVERY, [])):
            return found, ""
        return None


def facts_of(device: Any) -> dict[str, str]:
    """What records match, of a DeviceInfo."""
    return {
        "platform": f"{device.platform} {device.platform_version}",
        "name": device.name,
        "vendor": device.vendor,
        "driver": device.driver_version,
        "type": "gpu" if device.is_gpu else "cpu",
    }


def limits_of(device: Any, capabilities: Any) -> Limits:
    """What variants must keep, of a DeviceInfo and what was measured about it."""
    rates: dict[int, float] = {}
    for name, rate in capabilities.measured.items():
        width = int(name.split()[0])
        rates[width] = max(rates.get(width, 0.0), rate)
    return Limits(
        device.is_gpu,
        capabilities.vector_width,
        tuple(width for width, rate in rates.items() if not rate),
        device.max_work_group,
        tuple(device.max_work_item_sizes),
        device.local_memory,
    )


# ---- files --------------------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where this machine's records lie."""
    return cache_folder() / "tuning"


def own_path(facts: Mapping[str, str]) -> Path:
    """The record of a device and driver."""
    identity = "|".join(facts[name] for name in ("platform", "name", "driver"))
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{facts['name']}-{facts['driver']}").strip("-")[:60]
    return folder() / f"{words}-{zlib.crc32(identity.encode()):08x}.json"


def read(path: Path) -> dict[str, Any]:
    """A record's data with what was tried. Raises TuningError for what is no record; an absent file is empty."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise TuningError(f"{path} cannot be read: {problem}") from None
    Record.parse(data, str(path))
    return dict(data)


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Beside its place, then renamed. Raises TuningError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, data)
    except OSError as problem:
        raise TuningError(f"{path} cannot be written: {problem}") from None


@cache
def shipped() -> tuple[Record, ...]:
    """The records of the package."""
    found = sorted((entry for entry in files(__package__).joinpath("defaults").iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name)
    return tuple(Record.parse(json.loads(entry.read_text(encoding="utf-8")), entry.name) for entry in found)


def own_records() -> list[Record]:
    """Those of this machine; a damaged one counts as absent."""
    found = []
    for path in sorted(folder().glob("*.json")) if folder().is_dir() else []:
        try:
            data = read(path)
            found.append(Record.parse(data, str(path)))
        except TuningError:
            continue
    return found


# ---- looking up -----------------------------------------------------------------------------------------------------------------


class Tuning:
    """What a device's algorithms ask for their variants.

    `kernels` names the source that this machine's records must have been measured with: a changed kernel is another kernel.
    """

    def __init__(self, facts: Mapping[str, str], limits: Limits, kernels: str, own: Sequence[Record], defaults: Sequence[Record]) -> None:
        self.facts, self.limits = dict(facts), limits
        current = [record for record in own if record.kernels == kernels]
        device = [("tuned on this device", r) for r in current if r.holds_for(facts)]
        same_name = [("tuned with another driver", r) for r in current if not r.holds_for(facts) and r.match.get("name") == facts["name"]]
        named = [(f"defaults: {record.title}", record) for record in defaults if record.holds_for(facts)]
        levels = {level: [pair for pair in named if pair[1].level == level] for level in LEVELS}
        levels["device"] = device + levels["device"]
        levels["architecture"] = same_name + levels["architecture"]
        self._records = [pair for level in LEVELS for pair in levels[level]]
        self._refused: dict[str, dict[Variant, str]] = {}
        self._local = threading.local()

    def refuse(self, family: str, variant: Variant, reason: str) -> bool:
        """Choose `variant` no more, unless nothing else is left; False where that was known already."""
        if self.forced.get(family) == variant or variant in self._refused.setdefault(family, {}):
            return False
        self._refused[family][variant] = reason
        return True

    @property
    def forced(self) -> Mapping[str, Variant]:
        """What `trying` says to this thread."""
        return getattr(self._local, "forced", None) or {}

    @property
    def state(self) -> Hashable:
        """Equal as long as the same things are chosen."""
        return sum(map(len, self._refused.values())), tuple(sorted(self.forced.items(), key=lambda pair: pair[0]))

    def without_own(self) -> Tuning:
        """What is chosen where nothing was tuned on this machine: tuning starts there."""
        return Tuning(self.facts, self.limits, "", (), shipped())

    def choose(self, family: Family, problem: Problem) -> Choice:
        """The variant for a problem and where it comes from."""
        forced = getattr(self._local, "forced", None)
        if forced is not None:
            choice = self._forced(family, problem, forced)
            self._local.asked.append((family, problem, choice.variant))
            return choice
        return self._look_up(family, problem)

    def _look_up(self, family: Family, problem: Problem) -> Choice:
        refused = self._refused.get(family.name, {})
        but = "".join(f"; not {variant}, since {reason}" for variant, reason in refused.items())
        for source, found_in in self._records:
            if found := found_in.find(family, problem, self.limits, refused):
                return Choice(found[0], source + found[1] + but)
        return Choice(family.default(problem, self.limits, refused), "rule by sizes" + but)

    def _forced(self, family: Family, problem: Problem, forced: Mapping[str, Variant]) -> Choice:
        variant = forced.get(family.name)
        if variant is None:
            return self._look_up(family, problem)
        broken = family.broken(variant, problem, self.limits)
        if broken is not None:
            raise TuningError(f"{variant} cannot do {problem.key}: {broken}")
        return Choice(variant, "under trial")

    @contextmanager
    def trying(self, forced: Mapping[str, Variant]) -> Iterator[list[tuple[Family, Problem, Variant]]]:
        """Inside, this thread's algorithms get these variants; what they asked for is listed. Raises TuningError from `choose`."""
        before = getattr(self._local, "forced", None), getattr(self._local, "asked", None)
        self._local.forced, self._local.asked = dict(forced), []
        try:
            yield self._local.asked
        finally:
            self._local.forced, self._local.asked = before
