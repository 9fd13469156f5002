"""Summaries: shapes, parameters, multiply-adds and memory are what the layers really have."""

from __future__ import annotations

import numpy as np
import pytest

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import models, nn

#: Multiply-adds of one 224 x 224 image (32 x 32 for All-CNN-C), as commonly published: 1.81 G for ResNet-18 and so on.
MULTIPLY_ADDS = {
    "lenet5": 416_520,
    "alexnet": 714_188_480,
    "vgg16": 15_470_264_320,
    "resnet18": 1_814_073_344,
    "resnet50": 4_089_184_256,
    "mobilenet_v2": 300_774_272,
    "all_cnn_c": 270_798_336,
}


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_published_multiply_adds(name):
    entry = models.get(name)
    with nn.init.skipped():
        summary = entry.build().summary(entry.input_shape)
    assert summary.multiply_adds == MULTIPLY_ADDS[name]
    assert summary.parameters == entry.parameters == sum(row.parameters for row in summary.rows)
    assert summary.parameter_bytes == 4 * entry.parameters


def test_rows_of_lenet():
    summary = models.lenet5().summary((2, 1, 28, 28))
    rows = [(row.name, row.kind, row.output_shape, row.parameters, row.multiply_adds, row.output_bytes) for row in summary.rows]
    assert rows[:3] == [
        ("conv1", "Conv2d", (2, 6, 28, 28), 156, 2 * 6 * 28 * 28 * 25, 2 * 6 * 28 * 28 * 4),
        ("relu1", "ReLU", (2, 6, 28, 28), 0, 0, 2 * 6 * 28 * 28 * 4),
        ("pool1", "MaxPool2d", (2, 6, 14, 14), 0, 0, 2 * 6 * 14 * 14 * 4),
    ]
    assert rows[6:8] == [("flatten", "Flatten", (2, 400), 0, 0, 3200), ("fc1", "Linear", (2, 120), 48120, 2 * 48000, 960)]
    assert summary.output_shape == (2, 10) and summary.input_shapes == ((2, 1, 28, 28),)


def test_the_table():
    text = str(models.lenet5().summary((1, 1, 28, 28)))
    lines = text.split("\n")
    assert lines[0].split() == ["layer", "type", "output", "shape", "parameters", "multiply-adds", "output", "KiB"]
    assert lines[2].split() == ["conv1", "Conv2d", "1", "x", "6", "x", "28", "x", "28", "156", "117,600", "18.4"]
    assert "parameters     61,706 (0.24 MiB), trainable 61,706" in text and "multiply-adds  416,520 (416.52 k)" in text
    assert all(line == line.rstrip() for line in lines)


class Own(nn.Module):
    """A module with parameters and operations of its own, a layer used twice, and one that does nothing in inference."""

    def __init__(self):
        self.layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.drop = nn.Dropout()
        self.kernel = nn.Parameter(np.ones((4, 6, 1, 1)))
        self.shift = nn.Buffer(np.ones((1, 4, 1, 1)))
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        y = F.cat([self.drop(self.layer(x)), self.layer(x)], dim=1)
        return F.conv2d(F.relu(y), self.kernel, stride=2) + self.shift


def test_operations_that_a_module_does_itself():
    summary = Own().summary((1, 3, 8, 6))
    rows = [(row.name, row.kind, row.output_shape, row.parameters, row.multiply_adds) for row in summary.rows]
    assert rows == [
        ("layer", "Conv2d", (1, 3, 8, 6), 81, 48 * 81),
        ("drop", "Dropout", (1, 3, 8, 6), 0, 0),
        ("layer", "Conv2d", (1, 3, 8, 6), 0, 48 * 81),  # its parameters are counted once
        ("", "concat", (1, 6, 8, 6), 24, 0),  # the module's own parameters, with the first thing it does
        ("", "relu", (1, 6, 8, 6), 0, 0),
        ("", "conv", (1, 4, 4, 3), 0, 12 * 24),
        ("", "add", (1, 4, 4, 3), 0, 0),
    ]
    assert summary.parameters == 81 + 24 + 6 and summary.buffers == 4
    assert "Own  " in str(summary)


def test_shared_and_frozen_parameters():
    layer = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = layer.weight
    layer.bias.requires_grad = False
    summary = nn.Sequential(layer, tied, layer).summary((3, 4))
    assert [row.parameters for row in summary.rows] == [20, 4, 0]
    assert (summary.parameters, summary.trainable, summary.multiply_adds) == (24, 20, 3 * 3 * 16)


def test_transposed_and_grouped_convolutions_and_signals():
    image = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2), nn.Conv2d(6, 6, 3, groups=6)).summary((1, 4, 5, 7))
    assert [(row.output_shape, row.multiply_adds) for row in image.rows] == [((1, 6, 10, 14), 35 * 4 * 6 * 4), ((1, 6, 8, 12), 96 * 6 * 9)]
    signal = nn.Sequential(nn.Conv1d(2, 3, 3), nn.MaxPool1d(2), nn.BatchNorm1d(3)).summary((2, 2, 10))
    assert [row.output_shape for row in signal.rows] == [(2, 3, 8), (2, 3, 4), (2, 3, 4)]
    assert signal.multiply_adds == 2 * 8 * 3 * 2 * 3


def test_a_layer_by_itself_and_several_inputs():
    row = nn.Conv2d(1, 2, 3).summary((1, 1, 5, 5)).rows[0]
    assert (row.name, row.kind, row.output_shape) == ("", "Conv2d", (1, 2, 3, 3))

    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    summary = Sum().summary([(2, 3), (1, 3)])
    assert summary.output_shape == (2, 3) and summary.input_shapes == ((2, 3), (1, 3))


def test_memory_is_that_of_the_planned_program():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    summary = model.summary((2, 3, 10, 10))
    assert summary.memory == pc.compile(model.eval(), (2, 3, 10, 10), device="reference").memory
    assert summary.arena_bytes >= 4 * 2 * 8 * 8 * 8  # the first convolution's result and more


def test_shapes_that_the_model_does_not_take():
    with pytest.raises(pc.ShapeError):
        models.lenet5().summary((1, 3, 28, 28))
