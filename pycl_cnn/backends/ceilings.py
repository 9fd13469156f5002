"""What a device does at most, measured once and remembered: the rate of a multiply-add loop, and rates of copying by size."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter

from ..cache import read_cache, update_cache
from ..records import record

#: Bytes of source and target together, from a core's cache to main memory.
COPY_SIZES = tuple(2**exponent for exponent in (17, 19, 21, 23, 25, 28))
SAMPLE_SECONDS = 0.005  # of the loop that is timed, at least
LONGEST_SAMPLE = 0.05
SAMPLES = 15  # of which the best counts
PATIENCE_SECONDS = 0.5  # a device that needs longer for one round is not asked for more


@record
class Ceilings:
    """Floating-point operations a second (a multiply-add is two), and bytes read and written a second by bytes touched."""

    flops: float
    copies: tuple[tuple[int, float], ...]

    def bandwidth(self, nbytes: int) -> float:
        """Bytes a second for a step that touches `nbytes`: of the smallest copy that is as large."""
        return next((rate for size, rate in self.copies if size >= nbytes), self.copies[-1][1])

    def floor(self, flops: int, nbytes: int) -> float:
        """Seconds that arithmetic or memory need at the least."""
        return max(flops / self.flops, nbytes / self.bandwidth(nbytes) if nbytes else 0.0)

    def best(self, other: Ceilings) -> Ceilings:
        """The higher of two measurements in everything."""
        rates = dict(self.copies)
        return Ceilings(max(self.flops, other.flops), tuple(sorted((rates | {size: max(rate, rates.get(size, 0.0)) for size, rate in other.copies}).items())))

    def __str__(self) -> str:
        copies = ", ".join(f"{size / 2**20:.3g} MiB {rate / 1e9:.3g}" for size, rate in self.copies)
        return f"multiply-add loop {self.flops / 1e9:.3g} GFLOP/s; copying, GB/s read and written: {copies}"


def best_rate(work: Callable[[int], float]) -> tuple[float, float]:
    """(best amount a second, seconds of one round) of ``work(rounds) -> amount``, with as many rounds as can be timed.

    Other programs make samples longer, so the shortest counts; and a rate that still grows with the rounds is mostly the time to begin.
    """

    def shortest(samples: int) -> float:
        seconds = float("inf")
        for _ in range(samples):
            start = perf_counter()
            work(rounds)
            seconds = min(seconds, perf_counter() - start)
        return seconds

    rounds, rate = 1, 0.0
    if shortest(1) > PATIENCE_SECONDS:  # builds, wakes threads, touches memory; so slow a device is not asked again and again
        return work(1) / (seconds := shortest(1)), seconds
    while True:
        before, seconds = rate, shortest(3)
        rate = rounds / seconds
        if seconds > LONGEST_SAMPLE or (seconds >= SAMPLE_SECONDS and rate < 1.2 * before):
            break
        rounds *= max(2, min(64, round(SAMPLE_SECONDS / seconds)))
    seconds = min(seconds, shortest(SAMPLES))
    return work(rounds) / seconds, seconds / rounds


def measured(multiply_adds: Callable[[int], float], copy_of: Callable[[int], Callable[[int], float]], most: int) -> Ceilings:
    """Ceilings from a loop of multiply-adds and from copies of so many bytes; nothing larger than `most` bytes."""
    flops, _ = best_rate(multiply_adds)
    copies: list[tuple[int, float]] = []
    for size in COPY_SIZES:
        if copies and size > most:
            break
        rate, seconds = best_rate(copy_of(size))
        copies.append((size, rate))
        if seconds > PATIENCE_SECONDS:
            break
    return Ceilings(flops, tuple(copies))


FILE = "ceilings.json"
SESSIONS = 5  # processes that measure, since other programs were perhaps running: the best counts
_known: dict[str, Ceilings] = {}


def remembered(key: str, measure: Callable[[], Ceilings]) -> Ceilings:
    """The best of what was measured for `key` in the first few processes that asked, by the user's cache folder; this one perhaps measures too."""
    if key not in _known:
        entry = read_cache(FILE).get(key) or {}
        sessions = int(entry.get("sessions", 0))
        known = Ceilings(float(entry["flops"]), tuple((int(size), float(rate)) for size, rate in entry["copies"])) if sessions else None
        if known is None or sessions < SESSIONS:
            now = measure()
            known = known.best(now) if known else now
            update_cache(FILE, {key: {**asdict(known), "sessions": sessions + 1}})
        _known[key] = known
    return _known[key]


def machine_key(*parts: object) -> str:
    """What was measured holds for this machine and these parts (device, driver, threads) alone."""
    return " | ".join(str(part) for part in (platform.node(), platform.machine(), *parts))
