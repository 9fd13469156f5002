"""Results as tables for people, and as JSON to keep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import CONTENDERS, ROWS, Bar, Row
from .session import Entry, Result

SECTIONS = {
    "inference": ("Inference", "Milliseconds for one run of the batch, from a NumPy array to a result that is there."),
    "training": ("Training", "Milliseconds for one step: forward, cross entropy, backward, SGD with momentum."),
    "memory": ("Memory", "Peak resident MiB of a process that loads the weights and infers a few times; libraries included."),
    "start": (
        "Ready to run",
        "Milliseconds in a new process, after its imports, to load the weights, build, and give the first result; files are in memory.",
    ),
    "threads": ("Threads", "Milliseconds."),
    "opencl": (
        "OpenCL",
        "Milliseconds; all runtimes work on the processor. *cold*: with empty caches, to the first result, in a new process; *second process*: the same when another process has filled them.",
    ),
}


def begin(name: str) -> str:
    return f"<!-- begin {name}: generated, do not edit -->"


def end(name: str) -> str:
    return f"<!-- end {name} -->"


def put_block(path: Path, name: str, text: str) -> None:
    """Write `text` between the marks `name` of the file at `path`; at its end, with marks, where it has none."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    block = f"{begin(name)}\n\n{text.strip()}\n\n{end(name)}"
    before, mark, rest = page.partition(begin(name))
    if not mark:
        page = f"{page.rstrip()}\n\n{block}\n".lstrip()
    else:
        _, closing, after = rest.partition(end(name))
        if not closing:
            raise ValueError(f"{path}: the block {name!r} has no end mark")
        page = before + block + after
    path.write_text(page, encoding="utf-8")


@dataclass
class Record:
    """A session: its results, the machine with the command and its settings, and each contender's versions."""

    results: list[Result]
    machine: dict[str, Any]
    versions: dict[str, dict[str, str]]


# ---- JSON ----------------------------------------------------------------------------------------------------------------


def to_json(record: Record) -> str:
    rows = [
        {
            "row": r.row.name,
            "judge": r.judge,
            "entries": {n: {"values": e.values, "problem": e.problem, "note": e.note} for n, e in r.entries.items()},
        }
        for r in record.results
    ]
    return json.dumps({"machine": record.machine, "versions": record.versions, "rows": rows}, indent=1)


def from_json(text: str) -> Record:
    """What `to_json` wrote; rows that exist no more are left out."""
    data = json.loads(text)
    known = {row.name: row for row in ROWS}
    results = [
        Result(known[r["row"]], {n: Entry(**e) for n, e in r["entries"].items()}, judge=r["judge"]) for r in data["rows"] if r["row"] in known
    ]
    return Record(results, data["machine"], data["versions"])


# ---- tables --------------------------------------------------------------------------------------------------------------


def three(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{2 if value < 1 else 1 if value >= 10 else 2}f}" if value >= 0.1 else f"{value:.3g}"


def shown(row: Row, value: float) -> str:
    return three(value / 2**20 if row.kind == "memory" else value * 1e3)


def judge(result: Result, bar: Bar) -> tuple[float, str] | None:
    """Ours over the best of a bar's contenders, and that one's name; None where one of the two is missing."""
    mine = result.entries[result.row.contenders[0]]
    others = {name: result.entries[name].median for name in bar.over if name in result.entries and result.entries[name].values}
    if not mine.values or not others:
        return None
    best = min(others, key=lambda name: others[name])
    return mine.median / others[best], best


def verdict(result: Result, bar: Bar) -> str:
    judged = judge(result, bar)
    if judged is None:
        return f"{bar.name} {bar.limit:.3g}: not measured"
    ratio, best = judged
    return f"{bar.name} {bar.limit:.3g}: {'met' if ratio <= bar.limit else '**missed**'} ({ratio:.3g} of {CONTENDERS[best].title})"


def table(results: Sequence[Result], notes: list[str]) -> Iterator[str]:
    """A table in Markdown; what is missing or wrong is appended to `notes`."""
    columns = list(dict.fromkeys(name for result in results for name in result.row.contenders))
    yield "| | " + " | ".join(CONTENDERS[name].title for name in columns) + " | ours / fastest other | to be reached |"
    yield "|---|" + "---:|" * (len(columns) + 1) + "---|"
    for result in results:
        row, cells = result.row, []
        measured = {name: entry.median for name, entry in result.entries.items() if entry.values}
        fastest = min(measured.values(), default=0.0)
        for name in columns:
            entry = result.entries.get(name)
            if entry is None:
                cells.append("")
            elif entry.values:
                text = shown(row, entry.median)
                cells.append(f"**{text}**" if entry.median == fastest else text)
            else:
                notes.append(f"{row.name}, {CONTENDERS[name].title}: {entry.problem or 'not measured'}")
                cells.append(f"{entry.problem.partition(':')[0] or 'not measured'} [{len(notes)}]")
        judged = judge(result, Bar(1.0, row.contenders[1:]))
        kind = {"training": ", training step", "cold": ", cold start", "start": ", second process"}.get(row.kind, "") if row.section == "opencl" else ""
        ratio = f"{judged[0]:.2f}" if judged else "-"
        verdicts = "<br>".join(verdict(result, bar) for bar in row.bars)
        yield f"| {row.title}{kind} | {' | '.join(cells)} | {ratio} | {verdicts} |"


def _judges(results: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(result.judge for result in results if result.judge)) or "nobody"


def by_threads(records: Sequence[Record]) -> dict[int, list[Result]]:
    """For each number of threads, the most first, the results in the rows' order; of a row that two sessions measured, the later."""
    places = {row.name: place for place, row in enumerate(ROWS)}
    found: dict[int, dict[str, Result]] = {}
    for record in records:
        found.setdefault(record.machine["threads"], {}).update({result.row.name: result for result in record.results})
    return {
        threads: sorted(found[threads].values(), key=lambda result: places.get(result.row.name, len(places)))
        for threads in sorted(found, reverse=True)
    }


def _session(machine: dict[str, Any]) -> list[str]:
    """Where, when and how a session measured."""
    return [
        f"Measured {machine['date']} on {machine['processor']} ({machine['processors']} processors, {machine['vectors']}), {machine['memory']},",
        f"{machine['system']}, commit {machine['commit']}, by",
        "",
        f"    {machine['command']}",
        "",
        f"{count(machine['threads'])}, float32, {machine['rounds']} rounds in turns of {machine['seconds']} s; medians.",
        "",
    ]


def count(threads: int) -> str:
    return f"{threads} thread{'s' if threads != 1 else ''}"


def markdown(records: Sequence[Record]) -> str:
    """All tables, what was missing, the machines, and what was measured with what."""
    lines = [line for record in records for line in _session(record.machine)]
    groups = by_threads(records)
    results = [result for group in groups.values() for result in group]
    lines += [
        f"The fastest of a row in bold. Before anything was timed, outputs (in training losses and gradients) agreed with those of {_judges(results)}."
    ]
    notes: list[str] = []
    for threads, group in groups.items():
        behind = "" if len(groups) == 1 else f", {count(threads)}"
        for section, (title, text) in SECTIONS.items():
            chosen = [result for result in group if result.row.section == section]
            if chosen:
                lines += ["", f"### {title}{behind}", "", text, "", *table(chosen, notes)]
    if notes:
        lines += ["", "Not in the tables:", "", *[f"{number}. {note}" for number, note in enumerate(notes, 1)]]
    choices = [(r.row.name, CONTENDERS[n].title, e.note) for r in results for n, e in r.entries.items() if e.note and e.values]
    if choices:
        lines += ["", "Tried out, and the faster taken:", "", *[f"* {row}, {title}: {note}" for row, title, note in choices]]
    met, missed, open_ = tally(results)
    lines += ["", f"{met} to be reached were met, {missed} missed, {open_} not measured.", "", "Versions and devices:", ""]
    versions = {name: entry for record in records for name, entry in record.versions.items()}
    lines += [
        f"* {CONTENDERS[name].title}: {', '.join(f'{key} {value}' for key, value in entry.items())}" for name, entry in versions.items()
    ]
    return "\n".join(lines) + "\n"


def tally(results: Sequence[Result]) -> tuple[int, int, int]:
    """How many bars were met, missed, and not measured."""
    outcomes = [(judge(result, bar), bar.limit) for result in results for bar in result.row.bars]
    met = sum(judged is not None and judged[0] <= limit for judged, limit in outcomes)
    unmeasured = sum(judged is None for judged, _ in outcomes)
    return met, len(outcomes) - met - unmeasured, unmeasured
