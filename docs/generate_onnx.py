"""Runs ONNX's backend tests and writes docs/onnx.md and tests/data/onnx_nodes.json: ``python docs/generate_onnx.py``.

The page says what became of every test, the JSON file is what tests/test_onnx_nodes.py expects of each device. Needs the package onnx, whose
tests these are; they are run on the native CPU backend.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "onnx_nodes.json"
PAGE = ROOT / "docs" / "onnx.md"

#: ONNX's tests of single operators, of small graphs, and of layers and operations that PyTorch exported.
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

#: The operators that image networks use: every test of these alone must pass.
LISTED = frozenset((
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool", "Gemm", "MatMul",
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LRN", "MeanVarianceNormalization",
    "LpNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "HardSwish",
    "Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Erf", "Swish", "Softmax", "LogSoftmax", "Hardmax", "Add", "Sub", "Mul",
    "Div", "Pow", "Sqrt", "Exp", "Log", "Abs", "Neg", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Min", "Max", "Mean", "Sum",
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "Where", "ReduceSum", "ReduceMean",
    "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax",
    "ArgMin", "TopK", "CumSum", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Pad", "Expand",
    "Tile", "Gather", "GatherElements", "GatherND", "ScatterND", "DepthToSpace", "SpaceToDepth", "Resize", "Upsample", "RoiAlign",
    "NonMaxSuppression", "GridSample", "Shape", "Size", "Constant", "ConstantOfShape", "Range", "Cast", "Identity", "Dropout", "OneHot",
    "Einsum", "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan",
))


@dataclass(frozen=True)
class Case:
    """One of ONNX's tests: a model, and arrays in and out."""

    name: str
    kind: str
    model: Any
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float

    @property
    def operators(self) -> tuple[str, ...]:
        return tuple(sorted({node.op_type for node in self.model.graph.node}))


@cache
def cases() -> tuple[Case, ...]:
    """All tests that the package onnx carries."""
    import onnx
    from onnx.backend.test.loader import load_model_tests
    from onnx.backend.test.runner import _normalize_tensor

    found = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for test in load_model_tests(kind=kind):
                if kind == "node":
                    model = test.model
                    data = [tuple([_normalize_tensor(array) for array in arrays] for arrays in pair) for pair in test.data_sets]
                else:
                    model, data = onnx.load(Path(test.model_dir) / "model.onnx"), list(_stored(Path(test.model_dir)))
                found.append(Case(test.name, kind, model, data, test.rtol, test.atol))
    return tuple(found)


def _stored(folder: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    """The arrays in the folder of a test."""
    import onnx

    def arrays(case: Path, stem: str) -> list[Any]:
        result = []
        for number in range(len(list(case.glob(f"{stem}_*.pb")))):
            content = (case / f"{stem}_{number}.pb").read_bytes()
            try:
                result.append(onnx.numpy_helper.to_array(onnx.TensorProto.FromString(content)))
            except Exception:  # a sequence or an optional value, which no test here gets to
                result.append(None)
        return result

    for case in sorted(folder.glob("test_data_set_*")):
        yield arrays(case, "input"), arrays(case, "output")


def _flat(values: Sequence[Any]) -> list[Any]:
    """Arrays, those in sequences one by one."""
    return [item for value in values for item in (_flat(value) if isinstance(value, list | tuple) else [value])]


def run(case: Case, device: str) -> str:
    """What became of it: "pass", "unsupported: why" or "fail: why", on "CPU", "OPENCL", "OPENCL:1"."""
    from onnx.backend.test.runner import Runner

    from pycl_cnn.errors import UnsupportedError
    from pycl_cnn.onnx import backend

    try:
        prepared = backend.prepare(case.model, device)
        for inputs, outputs in case.data:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = prepared.run(inputs)
            assert len(results) == len(outputs), (len(results), len(outputs))
            for result, expected in zip(_flat(results), _flat(outputs), strict=True):  # onnx's own comparison cannot look into sequences of numbers
                Runner.assert_similar_outputs([expected], [result], rtol=case.rtol, atol=case.atol)
    except UnsupportedError as error:
        return f"unsupported: {error}"
    except Exception as error:
        return f"fail: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "pass"


INTRODUCTION = """\
# ONNX

    import pycl_cnn as pc

    net = pc.onnx.load("model.onnx")            # a module in eval() mode; net.inputs, net.outputs tell names, dtypes, shapes
    y = net(x, device="opencl")                 # or net({"data": x}); a tuple where there are several outputs
    print(net.explain(x, device="opencl"))      # which step ran where, with which algorithm, what was copied
    net.freeze("features*")                     # initializers are parameters with their names in the file
    trainer = pc.Trainer(net.train(), loss, optimizer)

Importing is tracing: nodes become the operations that everything else here is made of, so that an imported model is fused, planned,
profiled, trained and exported like a native one. What is known when a plan is made (shapes, constants and all that follows from them) is
computed then, in its own dtype. Symbolic sizes are bound at the call; there is a plan for every set of shapes, the last few are kept.

* **Weights.** Every float32 initializer that is no single number and that no shape depends on is a parameter; running means and variances
  are buffers. float16 and quantised weights (Cast, DequantizeLinear of initializers) become float32 parameters when the model is loaded.
* **Training.** In eval() mode, in which a model is loaded, it is what the file says. After train() dropouts drop, and batch normalisations take
  the batch's statistics while the running ones follow, as in PyTorch.
* **Other elements than float32.** Integers, booleans, float16, float64 keep their dtype. What no kernel takes is done by NumPy between the
  kernels, on OpenCL with the copies that this needs; `explain` shows such steps with the algorithm "numpy" and the reason.
* **Shapes that depend on elements.** An input that is needed as numbers (sizes of a Resize, k of a TopK) is bound at the call: a plan for each of
  its values. Where computed elements are needed, or a result has no shape before it is there (NonMaxSuppression, NonZero), the model
  runs in stages. Such a model cannot be trained.
* **Control flow.** If, Loop and Scan are unrolled: conditions and counts are numbers of the plan. The condition of a loop must not be computed
  from elements inside it.
* **Export.** `pc.onnx.export` writes opset 20, steps that NumPy does as the operators that they came from. What opset 20 says otherwise, or not at all, and
  models that run in stages are refused.
* **Limits.** Opsets 7 to {newest}, older ones as far as later ones kept their meaning; no sparse tensors. Sequences, optional values and texts are handled by NumPy between the
  stages. What is not supported is refused with the name of the node.

`pycl_cnn.onnx.backend` is ONNX's own Backend interface (`prepare`, `run_model`, `run_node`, `supports_device` for "CPU" and "OPENCL"):

    import onnx.backend.test, pycl_cnn.onnx.backend
    globals().update(onnx.backend.test.BackendTest(pycl_cnn.onnx.backend, __name__).test_cases)

## Operators

"graph": operations of the graph, with kernels on every backend and gradients, for float32; all other elements by NumPy. "NumPy": evaluated on the
host. In both cases what depends on constants alone is computed when the plan is made.

"""


def page(results: dict[str, str]) -> str:
    """The page."""
    import onnx

    from pycl_cnn.onnx.importer import CONTROL_OPERATORS
    from pycl_cnn.onnx.model import NEWEST_OPSET
    from pycl_cnn.onnx.operators.table import operators

    table = operators()
    names = sorted({*table, *CONTROL_OPERATORS})
    ways = {}
    for name in names:
        entry = table.get(name)
        if entry is None:
            ways.setdefault("unrolled", []).append(name)
        elif entry.structural or name in ("Constant", "ConstantOfShape", "Range"):
            ways.setdefault("computed with the plan", []).append(name)
        elif entry.dynamic:
            ways.setdefault("NumPy, between stages", []).append(name)
        else:
            ways.setdefault("graph" if entry.lower else "NumPy", []).append(name)
    lines = [INTRODUCTION.replace("{newest}", str(NEWEST_OPSET)), "| | operators |\n|---|---|\n"]
    lines += [f"| {way} | {', '.join(ways[way])} |\n" for way in ("graph", "NumPy", "computed with the plan", "NumPy, between stages", "unrolled")]
    counts = {state: sum(result.startswith(state) for result in results.values()) for state in ("pass", "unsupported", "fail")}
    lines.append(
        f"\n## ONNX's tests\n\nOf the {len(results)} tests of onnx {onnx.__version__} (single operators, small graphs, layers that PyTorch exported) "
        f"**{counts['pass']} pass, {counts['unsupported']} use something unsupported, {counts['fail']} fail**. All tests of the operators that image networks use pass, "
        "on the CPU backend and on OpenCL.\n\n"
        "    python docs/generate_onnx.py                                # all tests on the CPU backend; writes this page and what the tests expect\n"
        "    python -m pytest tests/test_onnx_nodes.py --devices cpu     # the same tests against the expectation, on any device\n\n"
        "| operator | pass | unsupported | fail | tests |\n|---|---|---|---|---|\n"
    )
    groups: dict[str, list[Case]] = {}
    for case in cases():
        groups.setdefault(case.operators[0] if len(case.operators) == 1 else "several operators", []).append(case)
    for name, members in sorted(groups.items(), key=lambda item: (item[0] == "several operators", item[0])):
        states = [results[case.name].partition(":")[0] for case in members]
        shown = ", ".join(
            case.name.removeprefix("test_") + ("" if state == "pass" else f" ({state})") for case, state in sorted(zip(members, states, strict=True), key=lambda pair: pair[0].name)
        )
        lines.append(f"| {name} | {states.count('pass')} | {states.count('unsupported') or ''} | {states.count('fail') or ''} | {shown} |\n")
    lines.append("\n## Why tests are unsupported\n\n| reason | tests |\n|---|---|\n")
    reasons: dict[str, int] = {}
    for result in results.values():
        if result.startswith("unsupported"):
            reason = result.partition(": ")[2].removeprefix("onnx: ")
            reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"| {reason.replace('|', ' ')} | {count} |\n" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    return "".join(lines)


def main() -> None:
    import onnx

    results = {case.name: run(case, "CPU") for case in cases()}
    expected = {"onnx": onnx.__version__, "tests": {name: result.partition(":")[0] for name, result in sorted(results.items())}}
    DATA.write_text(json.dumps(expected, indent=0) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    for state in ("pass", "unsupported", "fail"):
        print(state, sum(result.startswith(state) for result in results.values()))
    for name, result in results.items():
        if result.startswith("fail"):
            print(name, result)


if __name__ == "__main__":
    main()
