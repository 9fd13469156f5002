"""From an ONNX file to the first result on the CPU, beside onnxruntime: ``python benchmarks/onnx_start.py model.onnx [runs]``.

Every measurement is a process of its own, the two engines in turns; medians. "import" is what loading the package costs, "file to result" is
reading the file, planning, and the first run on zeros. Needs onnxruntime.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

OURS = """
import sys, time
import numpy as np
start = time.perf_counter()
import pycl_cnn as pc
load = pc.onnx.load
imported = time.perf_counter()
net = load(sys.argv[1])
net(*(np.zeros([n if isinstance(n, int) else 1 for n in info.shape], info.dtype) for info in net.inputs), device="cpu")
print(imported - start, time.perf_counter() - imported)
"""

THEIRS = """
import sys, time
import numpy as np
start = time.perf_counter()
import onnxruntime
imported = time.perf_counter()
onnxruntime.set_default_logger_severity(3)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {info.name: np.zeros([n if isinstance(n, int) else 1 for n in info.shape], np.float32) for info in session.get_inputs()})
print(imported - start, time.perf_counter() - imported)
"""


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    path, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 9
    times: dict[str, list[list[float]]] = {"pycl_cnn": [], "onnxruntime": []}
    for _ in range(runs + 1):  # the first round only fills the disk's cache
        for name, code in (("pycl_cnn", OURS), ("onnxruntime", THEIRS)):
            output = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout
            times[name].append([float(value) * 1e3 for value in output.split()])
    for name, rows in times.items():
        imported, result = (statistics.median(column) for column in zip(*rows[1:], strict=True))
        print(f"{name:12} import {imported:6.1f} ms   file to result {result:6.1f} ms   together {imported + result:6.1f} ms")


if __name__ == "__main__":
    main()
