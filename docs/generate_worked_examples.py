"""Writes docs/worked-examples.md from tests/data/worked_examples.json: ``python docs/generate_worked_examples.py``.

Every example is shown with the lines of Python that work it. tests/test_worked_examples.py runs the very same lines on every device
and compares what they give with the known answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "worked_examples.json"
PAGE = ROOT / "docs" / "worked-examples.md"

INTRODUCTION = """\
# Worked examples

Fifty small examples with known answers, from lectures on convolutional networks, each worked with pycl_cnn. To follow one, make its
arrays (numbers with four decimals are cut short here, tests/data/worked_examples.json has them in full) and run its lines behind

    import numpy as np
    import pycl_cnn as pc
    from pycl_cnn import nn
    import pycl_cnn.functional as F

Arrays are NCHW, weights [out channels, in channels, rows, columns]. As everywhere in deep learning, "convolution" slides the kernel
as it stands (cross-correlation); example {flipped} shows the flipped one of mathematics. The tests run these very lines on
every device.

This page is generated from tests/data/worked_examples.json by docs/generate_worked_examples.py; change those.
"""

#: Heading, what there is to say, and the operations under it; "shape" examples come last.
GROUPS = (
    ("Convolution", "A kernel slides over the input; each output is a sum of products, plus the bias.", ("conv2d", "conv1d", "convolve1d")),
    (
        "Transposed convolution",
        "The convolution's input gradient as a layer of its own: it spreads every input over a window.",
        ("conv_transpose2d",),
    ),
    (
        "Pooling",
        "Each window gives one number: its maximum, its mean, or its norm.",
        ("max_pool2d", "max_pool1d", "avg_pool2d", "avg_pool1d", "lp_pool2d"),
    ),
    ("Activation", "Element by element.", ("relu",)),
    (
        "Gradients",
        "`pc.value_and_grad` gives the gradients of a loss in a model's parameters. With the loss `sum(y * grad_output)` they are what the "
        "layer makes of `grad_output`; a parameter of zeros that is added to the input has the input's gradient.",
        ("max_pool2d_backward", "conv1d_backward_weight", "conv2d_backward_input"),
    ),
    (
        "Shapes, parameters, operations",
        "What a layer makes of an input's shape, and what it costs: `summary` tells without computing.",
        ("shape",),
    ),
)


def load() -> list[dict[str, Any]]:
    """The examples."""
    return json.loads(DATA.read_text(encoding="utf-8"))


def arrays(example: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that the example's lines work on."""
    return {name: np.array(value, np.float32) for name, value in example.get("inputs", {}).items()}


# ---- the lines of Python ---------------------------------------------------------------------------------------------------

WEIGHTED_SUM = """\
class WeightedSum(nn.Module):
    def forward(self, y, grad_output):
        return F.sum(y * grad_output)
"""

SHIFTED = """\
class Shifted(nn.Module):
    def __init__(self):
        self.shift = nn.Parameter(np.zeros({shape}))

    def forward(self, x):
        return {call}
"""


def _value(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(tuple(value) if isinstance(value, list) else value)


def _arguments(example: dict[str, Any], leave_out: tuple[str, ...] = ()) -> str:
    """The attributes that are not the defaults, as keyword arguments behind what stands before them."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "ceil_mode": False}
    if "pool" in example["op"]:
        defaults["stride"] = example["attrs"].get("kernel_size")
    attributes = {k: v for k, v in example["attrs"].items() if k not in leave_out and (k not in defaults or v != defaults[k])}
    return "".join(f", {key}={_value(value)}" for key, value in attributes.items())


def _direct(example: dict[str, Any]) -> str:
    operands = [name for name in ("x", "weight", "bias") if name in example["inputs"]]
    positional = [_value(example["attrs"][key]) for key in ("norm_type", "kernel_size") if key in example["attrs"]]
    return f"y = F.{example['op']}({', '.join(operands + positional)}{_arguments(example, ('norm_type', 'kernel_size'))})\n"


def _flipped(example: dict[str, Any]) -> str:
    return f'y = F.conv1d(x, weight, padding="{example["attrs"]["mode"]}", flip=True)\n'


def _pool_gradient(example: dict[str, Any]) -> str:
    shape = tuple(np.shape(example["inputs"]["x"]))
    call = f"F.max_pool2d(x + self.shift, {_value(example['attrs']['kernel_size'])}{_arguments(example, ('kernel_size',))})"
    run = 'loss, grads = pc.value_and_grad(Shifted(), WeightedSum())(x, grad_output)\ny = grads["shift"]\n'
    return "\n\n".join([SHIFTED.format(shape=shape, call=call), WEIGHTED_SUM, run])


def _weight_gradient(example: dict[str, Any]) -> str:
    (_, c, _), (_, k, _) = np.shape(example["inputs"]["x"]), np.shape(example["inputs"]["grad_output"])
    layer = f"layer = nn.Conv1d({c}, {k}, {example['attrs']['kernel_size']}{_arguments(example, ('kernel_size',))}, bias=False)\n"
    run = 'loss, grads = pc.value_and_grad(layer, WeightedSum())(x, grad_output)\ny = grads["weight"]\n'
    return "\n\n".join([WEIGHTED_SUM, layer + run])


def _input_gradient(example: dict[str, Any]) -> str:
    channels = np.shape(example["inputs"]["weight"])[1]
    shape = (np.shape(example["inputs"]["grad_output"])[0], channels, *example["attrs"]["input_size"])
    call = f"F.conv2d(x + self.shift, weight{_arguments(example, ('input_size',))})"
    run = (
        f"x = np.zeros({shape}, np.float32)  # the gradient does not depend on it\n"
        "loss, grads = pc.value_and_grad(Shifted(), WeightedSum())(x, grad_output)\n"
        'y = grads["shift"]\n'
    )
    return "\n\n".join([SHIFTED.format(shape=shape, call=call), WEIGHTED_SUM, run])


#: What a "shape" example asks for, and how it is read off a layer and its summary.
QUESTIONS = {
    "output_shape": "summary.output_shape",
    "weights": "layer.weight.size",
    "biases": "layer.bias.size",
    "parameters": "summary.parameters",
    "stored_floats": "summary.parameters",
    "multiplications": "summary.multiply_adds",
    "float_operations": "2 * summary.multiply_adds - int(np.prod(summary.output_shape))",
}


def questions(example: dict[str, Any]) -> dict[str, str]:
    """What a "shape" example asks for, with the expression that answers it."""
    return {name: expression for name, expression in QUESTIONS.items() if name in example}


def _shape(example: dict[str, Any]) -> str:
    attributes, channels = dict(example["attrs"]), example["input_shape"][1]
    if example["layer"] == "conv2d":
        layer = f"nn.Conv2d({channels}, {attributes.pop('out_channels')}, {_value(attributes.pop('kernel_size'))}"
    elif example["layer"] == "linear":
        layer = f"nn.Linear({channels}, {attributes.pop('out_features')}"
    else:
        layer = f"nn.MaxPool2d({_value(attributes.pop('kernel_size'))}"
    rest = _arguments({"op": example["layer"], "attrs": attributes})
    lines = [f"layer = {layer}{rest})", f"summary = layer.summary({tuple(example['input_shape'])})"]
    return "\n".join([*lines, *questions(example).values()]) + "\n"


SNIPPETS = {
    "shape": _shape,
    "convolve1d": _flipped,
    "max_pool2d_backward": _pool_gradient,
    "conv1d_backward_weight": _weight_gradient,
    "conv2d_backward_input": _input_gradient,
}


def snippet(example: dict[str, Any]) -> str:
    """The lines that work the example; the result is `y`, or for "shape" examples the values of the last lines."""
    return SNIPPETS.get(example["op"], _direct)(example)


#: Decimals that the page shows; the data have all.
DECIMALS = 4

# ---- the page --------------------------------------------------------------------------------------------------------------


def matrix(array: np.ndarray) -> str:
    """A vector or matrix as aligned text, with as many decimals as it has, at most DECIMALS."""
    array = np.atleast_2d(array)
    decimals = next((d for d in range(DECIMALS) if np.allclose(array, array.round(d), rtol=1e-6, atol=0)), DECIMALS)
    rows = [[f"{value + 0.0:.{decimals}f}" for value in row] for row in array]
    width = max(len(cell) for row in rows for cell in row)
    return "\n".join("  ".join(cell.rjust(width) for cell in row) for row in rows)


def _beside(blocks: list[tuple[str, str]]) -> str:
    """Captioned texts side by side."""
    columns = []
    for caption, text in blocks:
        lines = [caption, *text.split("\n")]
        width = max(map(len, lines))
        columns.append([line.ljust(width) for line in lines])
    height = max(map(len, columns))
    for column in columns:
        column += [" " * len(column[0])] * (height - len(column))
    return "\n".join("    ".join(parts).rstrip() for parts in zip(*columns, strict=True))


def _planes(name: str, array: np.ndarray) -> list[tuple[str, str]]:
    """An array's matrices (for signals: its channels as rows), each with a caption."""
    if array.ndim == 1 or (array.ndim == 3 and array.shape[0] == 1):
        return [(name, matrix(array.reshape(-1, array.shape[-1])))]
    if array.ndim < 4:
        return [(name, matrix(array))]
    indices = list(np.ndindex(*array.shape[:2]))
    return [(name if len(indices) == 1 else f"{name}[{', '.join(map(str, index))}]", matrix(array[index])) for index in indices]


def _blocks(example: dict[str, Any]) -> str:
    """Inputs and result, side by side where they fit."""
    given = [block for name, array in arrays(example).items() for block in _planes(name, array)]
    given += _planes("y", np.array(example["expected"]))
    lines: list[list[tuple[str, str]]] = [[]]
    for block in given:
        if lines[-1] and len(_beside([*lines[-1], block]).split("\n")[0]) > 110:
            lines.append([])
        lines[-1].append(block)
    return "\n\n".join(_beside(line) for line in lines)


def _title(example: dict[str, Any]) -> str:
    return example["name"].replace("_", " ")


def _answers(example: dict[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | `{expression}` | {_answer(example[name])} |" for name, expression in questions(example).items()]
    return "\n".join(["| question | asked with | answer |", "|---|---|---|", *rows])


def _answer(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"


def _section(number: int, example: dict[str, Any]) -> str:
    parts = [f"### {number}. {_title(example)}"]
    if example["op"] == "shape":
        parts.append("```python\n" + "\n".join(snippet(example).split("\n")[:2]) + "\n```")
        parts.append(_answers(example))
    else:
        parts.append("```text\n" + _blocks(example) + "\n```")
        parts.append("```python\n" + snippet(example) + "```")
    if "note" in example:
        parts.append(f"Note: {example['note']}.")
    return "\n\n".join(parts)


def page() -> str:
    """The whole page."""
    examples = load()
    sections, number, flipped = [], 0, 0
    for heading, text, operations in GROUPS:
        sections.append(f"## {heading}\n\n{text}")
        for operation in operations:
            for example in (item for item in examples if item["op"] == operation):
                number += 1
                flipped = number if operation == "convolve1d" else flipped
                sections.append(_section(number, example))
    assert number == len(examples), "every example belongs to a group"
    return "\n\n".join([INTRODUCTION.format(flipped=flipped).rstrip(), *sections]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
