"""Coverage-guided fuzzing of what happens to an ONNX file before it runs: read, import, info.

    pip install atheris
    python tests/fuzz/fuzz_onnx.py CORPUS [--minutes 30]

CORPUS is a folder for inputs that reach something new; it is filled with small models (those of onnx's node tests) when it is empty.
Allowed outcomes are a description and a PyclError. Any other exception is told once for each place that it comes from; a crash, an input
that takes longer than `TIMEOUT` seconds or lets the process grow beyond `MEMORY` MiB ends the run. The input is written to CORPUS-found; it
belongs into tests/test_onnx_limits.py then, with what mends it.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

TIMEOUT, MEMORY, LONGEST = 10, 2048, 1 << 15

with atheris.instrument_imports(include=["pycl_cnn.onnx", "pycl_cnn.functional", "pycl_cnn.geometry", "pycl_cnn.ops", "pycl_cnn.graph"], enable_loader_override=False):
    from pycl_cnn.onnx import description, model, reader
    from pycl_cnn.onnx.operators.table import operators

    operators()

from pycl_cnn import device  # noqa: E402
from pycl_cnn.errors import PyclError  # noqa: E402
from tests.helpers.onnx_mutations import mutated  # noqa: E402

outcomes: Counter[str] = Counter()
places: set[tuple[str, str, int]] = set()
found = Path()


def one(data: bytes) -> None:
    """One input through everything."""
    try:
        description.describe(model.OnnxModel(reader.read(data)), devices=[device("cpu")])
        outcomes["described"] += 1
    except PyclError as error:
        outcomes[type(error).__name__] += 1
    except Exception as error:
        outcomes["wrong"] += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = type(error).__name__, last.filename, last.lineno or 0
        if place not in places:
            places.add(place)
            (found / f"{place[0]}-{Path(place[1]).stem}-{place[2]}").write_bytes(data)
            traceback.print_exc()
    if outcomes.total() % 20_000 == 0:
        print(f"{outcomes.total():,} inputs: {dict(outcomes)}; places of exceptions that should not be: {len(places)}", flush=True)


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """libFuzzer's own changes, or ours that know the format."""
    random = Random(seed)
    changed = mutated(data, random) if random.random() < 0.8 else bytes(atheris.Mutate(data, size))
    return changed[:size]


def fill(corpus: Path) -> None:
    """Small models as seeds."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        data = case.model.SerializeToString()
        if len(data) < LONGEST:
            (corpus / case.name).write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    if not any(options.corpus.iterdir()):
        fill(options.corpus)
    global found
    found = options.corpus.resolve().with_name(f"{options.corpus.name}-found")
    found.mkdir(exist_ok=True)
    flags = [f"-max_total_time={int(options.minutes * 60)}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}", f"-artifact_prefix={found}{os.sep}", "-print_final_stats=1"]
    warnings.simplefilter("ignore")
    atheris.Setup([sys.argv[0], str(options.corpus), *flags], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
