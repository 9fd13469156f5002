"""One session: contenders as processes that take turns, so that whatever the machine does, it does to all of them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import numpy as np

from ..networks import NETWORKS, batch_of, seeded
from .rows import CONTENDERS, Contender, Row
from .runtimes import RUNTIMES

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0  # seconds that one request may take: some engines compile for minutes
PAUSE = 0.03  # seconds between turns, in which idle thread pools stop spinning
TOLERANCE = 1e-3  # of the largest element, for outputs
UPDATE_TOLERANCE = 5e-2  # of a gradient's length, for gradients: roundings flip ReLUs and maxima, and batch norms spread that
FRESH_ROUNDS = 5  # at most, where every round takes new processes
RECIPE = 1  # of weights and exports; another one makes new files

NO_PEERS = "no environment of peers was given (--peers-python, PYCL_CNN_PEERS_PYTHON)"


class ContenderError(RuntimeError):
    """A contender is not installed, cannot do the task, or died."""


@dataclass
class Entry:
    """What a contender did in a row: values (seconds, or bytes in memory rows), or why there are none."""

    values: list[float] = field(default_factory=list)
    problem: str = ""  # begins with "missing" or "wrong"
    note: str = ""

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass
class Result:
    """A row with its entries by contender."""

    row: Row
    entries: dict[str, Entry]
    judge: str = ""  # whose results the others had to agree with


@dataclass
class Settings:
    """How a session measures."""

    peers_python: str | None
    own_python: str = sys.executable
    threads: int = 2
    rounds: int = 15
    seconds: float = 0.4  # of a turn
    folder: Path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pycl_cnn-benchmarks"
    say: Callable[[str], None] = print


class Worker:
    """A contender's process (see worker.py)."""

    def __init__(self, contender: Contender, settings: Settings, variables: dict[str, str] | None = None) -> None:
        python = settings.own_python if contender.ours else settings.peers_python
        if python is None:
            raise ContenderError(NO_PEERS)
        threads = contender.threads or settings.threads
        environment = {**os.environ, **self._environment(contender, python, threads, settings), **(variables or {})}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        command = [python, "-m", "benchmarks.compare.worker"]
        try:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
            )
        except OSError as error:
            raise ContenderError(f"{python} does not start: {error}") from None
        options = {"threads": threads, "device": contender.device, "runtime": contender.runtime}
        try:
            self.versions: dict[str, str] = self.ask("open", module=contender.module, options=options)["versions"]
        except ContenderError:
            self.close()
            raise

    @staticmethod
    def _environment(contender: Contender, python: str, threads: int, settings: Settings) -> dict[str, str]:
        names = ("OMP_NUM_THREADS", "PYCL_CNN_NUM_THREADS", "POCL_MAX_PTHREAD_COUNT", "CL_CONFIG_CPU_TBB_NUM_WORKERS")
        variables = dict.fromkeys(names, str(threads))
        if contender.runtime:
            variables["DEV"] = "CL"  # tinygrad's device
            try:
                variables |= RUNTIMES[contender.runtime].environment(Path(python).parents[1], settings.folder)
            except FileNotFoundError as error:
                raise ContenderError(str(error)) from None
        return variables

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """The reply to a request. Raises ContenderError where there is none or it says that something went wrong."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ContenderError(self._last_words(what)) from None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        if not ready:
            raise ContenderError(f"no answer to {what!r} within {PATIENCE:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise ContenderError(self._last_words(what))
        reply = json.loads(line)
        if "error" in reply:
            raise ContenderError(" ".join(reply["error"].split())[:300])
        return reply

    def _last_words(self, what: str) -> str:
        self.process.wait(10)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with status {self.process.returncode} at {what!r}: {lines[-1][:200] if lines else 'it said nothing'}"

    def close(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what is left to be written to a process that has gone
                    stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


class Materials:
    """Weights, inputs and exported models, made once and kept in the settings' folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, settings.folder / f"recipe-{RECIPE}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def request(self, row: Row) -> dict[str, Any]:
        """What a worker is told to prepare."""
        weights, inputs = self.weights(row.network), self.inputs(row.network, row.batch)
        model = self.folder / f"{row.network}-b{row.batch}"
        return {"network": row.network, "trains": row.trains, "weights": str(weights), "inputs": str(inputs), "model": str(model)}

    def weights(self, network: str) -> Path:
        path = self.folder / f"{network}.safetensors"
        if not path.exists():
            import pycl_cnn as pc

            pc.save(seeded(NETWORKS[network]), path)
        return path

    def inputs(self, network: str, batch: int) -> Path:
        path = self.folder / f"{network}-b{batch}.npz"
        if not path.exists():
            images, labels = batch_of(NETWORKS[network], batch)
            np.savez(path, images=images, labels=labels)
        return path

    def truth(self, row: Row) -> dict[str, np.ndarray]:
        """The row's results in float64. Raises ContenderError where there is no PyTorch to compute them."""
        kind = "training" if row.trains else "inference"
        path = self.folder / f"{row.network}-b{row.batch}-{kind}-truth.npz"
        if not path.exists():
            request = self.folder / f"{row.network}-b{row.batch}-{kind}.json"
            request.write_text(json.dumps(self.request(row)))
            self._peers("benchmarks.compare.contenders.truth", str(request), str(path))
        with np.load(path) as arrays:
            return dict(arrays)

    def _peers(self, module: str, *arguments: str) -> None:
        """Run a module in the peers' environment. Raises ContenderError."""
        if self.settings.peers_python is None:
            raise ContenderError(NO_PEERS)
        try:
            done = subprocess.run([self.settings.peers_python, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
        except OSError as error:
            raise ContenderError(f"{self.settings.peers_python} does not start: {error}") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise ContenderError(f"{module.rpartition('.')[2]} failed: {lines[-1][:300]}")

    def exported(self, row: Row, form: str) -> None:
        """See to the network's `form` ("onnx", "ncnn"). Raises ContenderError with the exporter's reason."""
        folder = self.folder / f"{row.network}-b{row.batch}"
        report = folder / "export.json"
        if not report.exists():
            self._peers("benchmarks.compare.contenders.export", row.network, str(row.batch), str(self.weights(row.network)), str(folder))
        entry = json.loads(report.read_text())[form]
        if "missing" in entry:
            report.unlink()  # to be tried again next time
            raise ContenderError(f"export to {form}: {' '.join(entry['missing'].split())[:200]}")


FORMS = {"onnx_runtime": "onnx", "open_vino": "onnx", "tencent_ncnn": "ncnn"}


def disagreement(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> str:
    """What keeps two results of `Engine.check` from being the same; empty where nothing does."""
    if "output" in reference:
        expected, given = reference["output"].astype(np.float64), ours["output"].astype(np.float64)
        if given.size != expected.size:
            return f"output has shape {given.shape}, not {expected.shape}"
        error = np.abs(given.reshape(expected.shape) - expected).max() / np.abs(expected).max()
        return "" if error <= TOLERANCE else f"output differs by {error:.2g} of its largest element"
    first, expected_first = float(ours["loss"][0]), float(reference["loss"][0])
    if not abs(first - expected_first) <= TOLERANCE * abs(expected_first):
        return f"loss is {first:.6g}, not {expected_first:.6g}"
    if not np.allclose(ours["loss"], reference["loss"], rtol=10 * TOLERANCE, atol=0):
        return f"losses of the first steps are {ours['loss']}, not {reference['loss']}"
    names = {name for name in reference if name.startswith("update ")}
    if {name for name in ours if name.startswith("update ")} != names:
        return f"parameters are {sorted(set(ours) ^ names)[:3]}, ..."
    lengths = {name: float(np.linalg.norm(reference[name])) for name in names}
    for name in sorted(names):
        error = float(np.linalg.norm(ours[name].astype(np.float64) - reference[name]))
        # A gradient that is nothing but rounding (a bias before a batch norm) is measured by the others.
        if not error <= UPDATE_TOLERANCE * max(lengths[name], 1e-3 * max(lengths.values())):
            return f"gradient of {name[7:]} differs by {error / max(lengths[name], 1e-30):.2g} of its length"
    return ""


class Session:
    """Measures rows; remembers the versions that it met."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.materials = settings, Materials(settings)
        self.versions: dict[str, dict[str, str]] = {}

    def measure(self, row: Row) -> Result:
        """All contenders of a row, in turns."""
        self.settings.say(f"{row.name}: {', '.join(row.contenders)}")
        result = Result(row, {name: Entry() for name in row.contenders})
        measures = {"memory": self._memory, "start": self._start, "cold": self._start}
        measures.get(row.kind, self._timed)(result)
        for name, entry in result.entries.items():
            shown = f"{entry.median:.6g} (median of {len(entry.values)})" if entry.values else entry.problem
            self.settings.say(f"    {name}: {shown}{'; ' + entry.note if entry.note else ''}")
        return result

    @contextmanager
    def _worker(self, row: Row, name: str, variables: dict[str, str] | None = None) -> Iterator[Worker]:
        """A worker that has prepared the row; `seconds` says how long that took."""
        contender = CONTENDERS[name]
        if contender.module in FORMS:
            self.materials.exported(row, FORMS[contender.module])
        worker = Worker(contender, self.settings, variables)
        try:
            self.versions[name] = worker.versions
            yield worker
        finally:
            worker.close()

    def _timed(self, result: Result) -> None:
        """Long-lived workers, checked against each other, then `rounds` turns for each, every second round in reverse order."""
        row, workers = result.row, {}
        with ExitStack() as stack:
            for name, entry in result.entries.items():
                try:
                    worker = stack.enter_context(self._worker(row, name))
                    worker.ask("prepare", **self.materials.request(row))
                    entry.note = worker.ask("settle")["note"]
                    workers[name] = worker
                except ContenderError as error:
                    entry.problem = f"missing: {error}"
            self._check(result, workers)
            for turn in range(self.settings.rounds):
                for name in sorted(workers, key=row.contenders.index, reverse=turn % 2 == 1):
                    sleep(PAUSE)
                    try:
                        result.entries[name].values += workers[name].ask("run", seconds=self.settings.seconds, most=1000)["times"]
                    except ContenderError as error:
                        result.entries[name].problem = f"missing: {error}"
                        result.entries[name].values.clear()
                        workers = {other: worker for other, worker in workers.items() if other != name}

    def _check(self, result: Result, workers: dict[str, Worker]) -> None:
        """Drop the contenders that do not compute what PyTorch computes in float64 or, without it, what another contender computes."""
        outputs: dict[str, dict[str, np.ndarray]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, worker in list(workers.items()):
                path = f"{folder}/{name}.npz"
                try:
                    worker.ask("check", path=path)
                    with np.load(path) as arrays:
                        outputs[name] = dict(arrays)
                except ContenderError as error:
                    result.entries[name].problem = f"missing: {error}"
                    del workers[name]
        if not outputs:
            return
        try:
            result.judge, expected = "PyTorch in float64", self.materials.truth(result.row)
        except ContenderError:
            judge = min(outputs, key=lambda name: (name != "torch", CONTENDERS[name].ours))
            result.judge, expected = CONTENDERS[judge].title, outputs[judge]
        for name, output in outputs.items():
            problem = disagreement(output, expected)
            if problem:
                result.entries[name].problem = f"wrong: {problem} (judged by {result.judge})"
                del workers[name]

    def _fresh(self, result: Result, ask: Callable[[Worker, dict[str, Any]], float], rounds: int) -> None:
        """New processes in every round."""
        row = result.row
        request = self.materials.request(row)
        for turn in range(rounds):
            for name in row.contenders[:: -1 if turn % 2 else 1]:
                entry = result.entries[name]
                if entry.problem:
                    continue
                try:
                    with tempfile.TemporaryDirectory() as empty:
                        caches = {
                            "XDG_CACHE_HOME": empty,
                            "PYCL_CNN_CACHE": empty,
                            "POCL_CACHE_DIR": f"{empty}/pocl",
                            "CACHEDB": f"{empty}/tinygrad/cache.db",
                        }
                        with self._worker(row, name, caches if row.kind == "cold" else None) as worker:
                            entry.values.append(ask(worker, request))
                except ContenderError as error:
                    entry.problem = f"missing: {error}"
                    entry.values.clear()

    def _memory(self, result: Result) -> None:
        def peak(worker: Worker, request: dict[str, Any]) -> float:
            worker.ask("prepare", **request)
            worker.ask("run", seconds=0.0, most=3)
            return float(worker.ask("memory")["peak"])

        self._fresh(result, peak, min(self.settings.rounds, 3))

    def _start(self, result: Result) -> None:
        def ready(worker: Worker, request: dict[str, Any]) -> float:
            return float(worker.ask("prepare", **request)["seconds"])

        # The first time reads files from the disk, later ones from memory: a first round is not counted, except that of empty caches.
        if result.row.kind == "start":
            self._fresh(Result(result.row, {name: Entry() for name in result.entries}), ready, 1)
        self._fresh(result, ready, 1 if result.row.kind == "cold" else min(self.settings.rounds, FRESH_ROUNDS))


__all__ = ["ContenderError", "Entry", "Result", "Session", "Settings", "Worker", "disagreement"]
