"""``python -m benchmarks.compare``: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from . import report
from .machine import describe
from .rows import ROWS, selected
from .session import Session, Settings


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m benchmarks.compare", description="Compare pycl_cnn with other engines, interleaved, outputs checked first."
    )
    made.add_argument("--rows", default="", help="comma-separated parts of names of rows or sections (default: all)")
    made.add_argument("--list", action="store_true", help="print the names of the rows, and end")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--rounds", type=int, default=15, help="turns of each contender (default: 15)")
    made.add_argument("--seconds", type=float, default=0.4, help="of a turn (default: 0.4; at least one run)")
    made.add_argument(
        "--peers-python",
        default=os.environ.get("PYCL_CNN_PEERS_PYTHON"),
        help="Python of the environment that holds the peers (default: $PYCL_CNN_PEERS_PYTHON); without it they are reported as missing",
    )
    made.add_argument("--folder", type=Path, default=Settings.folder, help="for weights and exported models (default: in the user's cache)")
    made.add_argument(
        "--from",
        dest="sources",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="render results of earlier runs instead of measuring; may be repeated, a later file's rows go before an earlier one's",
    )
    made.add_argument(
        "--out", type=Path, action="append", default=[], help="a .json file, or a .md file whose block is replaced; may be repeated"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or render; 0 where everything to be reached that was measured was met, 1 where something was missed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    if options.list:
        print("\n".join(f"{row.section:10} {row.name}" for row in ROWS))
        return 0
    if options.sources:
        records = [report.from_json(source.read_text(encoding="utf-8")) for source in options.sources]
    else:
        try:
            rows = selected(options.rows)
        except ValueError as error:
            parser().error(str(error))
        settings = Settings(
            options.peers_python, threads=options.threads, rounds=options.rounds, seconds=options.seconds, folder=options.folder
        )
        settings.say = lambda text: print(text, file=sys.stderr, flush=True)
        session = Session(settings)
        machine = describe() | {
            "command": shlex.join(["python", "-m", "benchmarks.compare", *_public(given)]),
            "threads": options.threads,
            "rounds": options.rounds,
            "seconds": options.seconds,
        }
        record = report.Record([], machine, session.versions)
        records = [record]
        for row in rows:
            record.results.append(session.measure(row))
            for path in options.out:
                if path.suffix == ".json":  # written again after every row: an interrupted session has lost one row only
                    path.write_text(report.to_json(record), encoding="utf-8")
    for path in options.out:
        if path.suffix != ".json":
            report.put_block(path, "compare", report.markdown(records))
    if not options.out:
        print(report.markdown(records))
    results = [result for group in report.by_threads(records).values() for result in group]
    return 1 if report.tally(results)[1] else 0


def _public(arguments: Sequence[str]) -> list[str]:
    """The command line without places of this machine."""
    kept: list[str] = []
    pairs = iter(arguments)
    for argument in pairs:
        name = argument.partition("=")[0]
        if name in ("--peers-python", "--folder", "--out"):
            if "=" not in argument:
                next(pairs, None)
            if name == "--peers-python":
                kept += [name, "PEERS/bin/python"]
        else:
            kept.append(argument)
    return kept


if __name__ == "__main__":
    sys.exit(main())
