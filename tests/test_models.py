"""The published networks: parameter counts, torchvision's names, initial weights; results against the same networks in plain PyTorch.

And `to_fully_convolutional`: the converted network is the original one, moved over a larger image.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.tolerance import assert_close

import pycl_cnn as pc
from pycl_cnn import models, nn
from pycl_cnn.nn.utils import to_fully_convolutional

COUNTS = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    # 3*3*(3*96 + 2*96*96 + 96*192 + 3*192*192) + 192*192 + 192*10 weights, 3*96 + 5*192 + 10 biases: the paper's "about 1.3 M"
    "all_cnn_c": 1_369_738,
    "unet": 31_037_698,
}


@pytest.fixture(scope="module", params=COUNTS)
def entry(request):
    return models.get(request.param)


@pytest.fixture(scope="module")
def empty(entry):
    """The network without its initial weights, which take the large ones a second."""
    with nn.init.skipped():
        return entry.build()


def test_published_parameter_counts(entry, empty):
    assert sum(parameter.size for parameter in empty.parameters()) == COUNTS[entry.name] == entry.parameters


def test_number_of_classes(entry):
    if entry.name not in ("alexnet", "vgg16"):
        image = {"unet": (1, 3, 16, 16), "all_cnn_c": (1, 3, 9, 9)}.get(entry.name, entry.input_shape)
        assert entry.build(num_classes=7).summary(image).output_shape[1] == 7


def test_registry():
    assert models.names() == list(COUNTS)
    assert isinstance(models.build("lenet5", num_classes=3), models.LeNet5)
    with pytest.raises(pc.PyclError, match="no 'resnet'; there are lenet5, alexnet"):
        models.get("resnet")


# ---- names ------------------------------------------------------------------------------------------------------------------

WEIGHTS, NORM = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var")


def keys(prefix, names, leaves):
    return [f"{prefix}{name}.{leaf}" for name in names for leaf in leaves]


def resnet_keys(blocks, convolutions):
    found = keys("", ["conv1"], ["weight"]) + keys("", ["bn1"], NORM)
    for stage, count in enumerate(blocks, 1):
        for index in range(count):
            prefix = f"layer{stage}.{index}."
            for number in range(1, convolutions + 1):
                found += keys(prefix, [f"conv{number}"], ["weight"]) + keys(prefix, [f"bn{number}"], NORM)
            if index == 0 and (stage > 1 or convolutions == 3):
                found += keys(prefix, ["downsample.0"], ["weight"]) + keys(prefix, ["downsample.1"], NORM)
    return found + keys("", ["fc"], WEIGHTS)


def mobilenet_keys():
    found = []
    for index in range(19):
        if index in (0, 18):
            pairs = [("0", "1")]
        else:
            pairs = (
                [("conv.0.0", "conv.0.1"), ("conv.1", "conv.2")]
                if index == 1
                else [("conv.0.0", "conv.0.1"), ("conv.1.0", "conv.1.1"), ("conv.2", "conv.3")]
            )
        for convolution, norm in pairs:
            found += keys(f"features.{index}.", [convolution], ["weight"]) + keys(f"features.{index}.", [norm], NORM)
    return found + keys("", ["classifier.1"], WEIGHTS)


def unet_keys():
    found = []
    blocks = ["inc.", *(f"down{i}.maxpool_conv.1." for i in range(1, 5)), *(f"up{i}.conv." for i in range(1, 5))]
    for block in blocks:
        if block.startswith("up"):
            found += keys("", [block[:4] + "up"], WEIGHTS)
        for convolution, norm in (("0", "1"), ("3", "4")):
            found += keys(f"{block}double_conv.", [convolution], ["weight"]) + keys(f"{block}double_conv.", [norm], NORM)
    return found + keys("", ["outc.conv"], WEIGHTS)


KEYS = {
    "lenet5": keys("", ["conv1", "conv2", "fc1", "fc2", "fc3"], WEIGHTS),
    "alexnet": keys("features.", [0, 3, 6, 8, 10], WEIGHTS) + keys("classifier.", [1, 4, 6], WEIGHTS),
    "vgg16": keys("features.", [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], WEIGHTS) + keys("classifier.", [0, 3, 6], WEIGHTS),
    "resnet18": resnet_keys((2, 2, 2, 2), 2),
    "resnet50": resnet_keys((3, 4, 6, 3), 3),
    "mobilenet_v2": mobilenet_keys(),
    "all_cnn_c": keys("features.", [1, 3, 5, 8, 10, 12, 15, 17, 19], WEIGHTS),
    "unet": unet_keys(),
}


def test_names_of_parameters_and_buffers(entry, empty):
    assert list(empty.state_dict()) == KEYS[entry.name]


# ---- initial weights --------------------------------------------------------------------------------------------------------


def spread(array, std):
    """Within five standard errors of the deviation `std`, and centred."""
    assert abs(array.std() / std - 1) < 5 / math.sqrt(2 * array.size) and abs(array.mean()) < 5 * std / math.sqrt(array.size)


def test_resnet_starts_as_torchvisions():
    weights = models.resnet18().state_dict()
    spread(weights["conv1.weight"], math.sqrt(2 / (64 * 49)))
    spread(weights["layer3.0.conv1.weight"], math.sqrt(2 / (256 * 9)))
    spread(weights["fc.weight"], math.sqrt(1 / 3 / 512))
    assert np.all(weights["layer1.0.bn2.weight"] == 1) and np.all(weights["layer1.0.bn2.bias"] == 0)
    assert np.all(models.resnet18(zero_init_residual=True).state_dict()["layer1.0.bn2.weight"] == 0)
    assert np.all(models.resnet50(zero_init_residual=True).state_dict()["layer1.0.bn3.weight"] == 0)


def test_vgg_and_mobilenet_start_as_torchvisions():
    weights = models.vgg16().state_dict()
    spread(weights["features.28.weight"], math.sqrt(2 / (512 * 9)))
    spread(weights["classifier.3.weight"], 0.01)
    assert not weights["features.28.bias"].any() and not weights["classifier.3.bias"].any()
    weights = models.mobilenet_v2().state_dict()
    spread(weights["features.3.conv.1.0.weight"], math.sqrt(2 / (144 * 9)))
    spread(weights["classifier.1.weight"], 0.01)


def test_seed_decides_the_weights():
    def drawn(seed):
        pc.manual_seed(seed)
        return nn.Linear(3000, 1000).state_dict()["weight"]  # large enough for several threads

    assert np.array_equal(drawn(3), drawn(3)) and not np.array_equal(drawn(3), drawn(4))
    spread(drawn(5), math.sqrt(1 / 3 / 3000))


# ---- results, against plain PyTorch -----------------------------------------------------------------------------------------


class Plain:
    """Layers of PyTorch's functions on a state_dict, by name: what the networks below are written with."""

    def __init__(self, state, torch):
        self.state = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
        self.F, self.cat = torch.nn.functional, torch.cat

    def conv(self, name, x, stride=1, padding=0, groups=1):
        return self.F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), stride, padding, 1, groups)

    def norm(self, name, x):
        mean, variance, weight, bias = (self.state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return self.F.batch_norm(x, mean, variance, weight, bias)

    def linear(self, name, x):
        return self.F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def lenet5(self, x):
        x = self.F.max_pool2d(self.conv("conv1", x, padding=2).relu(), 2)
        x = self.F.max_pool2d(self.conv("conv2", x).relu(), 2).flatten(1)
        return self.linear("fc3", self.linear("fc2", self.linear("fc1", x).relu()).relu())

    def alexnet(self, x):
        x = self.F.max_pool2d(self.conv("features.0", x, 4, 2).relu(), 3, 2)
        x = self.F.max_pool2d(self.conv("features.3", x, 1, 2).relu(), 3, 2)
        for index in (6, 8, 10):
            x = self.conv(f"features.{index}", x, 1, 1).relu()
        x = self.F.adaptive_avg_pool2d(self.F.max_pool2d(x, 3, 2), 6).flatten(1)
        return self.linear("classifier.6", self.linear("classifier.4", self.linear("classifier.1", x).relu()).relu())

    def vgg16(self, x):
        for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            for index in stage:
                x = self.conv(f"features.{index}", x, 1, 1).relu()
            x = self.F.max_pool2d(x, 2)
        x = self.F.adaptive_avg_pool2d(x, 7).flatten(1)
        return self.linear("classifier.6", self.linear("classifier.3", self.linear("classifier.0", x).relu()).relu())

    def resnet(self, x, blocks, bottleneck):
        x = self.F.max_pool2d(self.norm("bn1", self.conv("conv1", x, 2, 3)).relu(), 3, 2, 1)
        for stage, count in enumerate(blocks, 1):
            for index in range(count):
                name = f"layer{stage}.{index}"
                stride = 2 if stage > 1 and index == 0 else 1
                if bottleneck:
                    y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x)).relu()
                    y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, stride, 1)).relu()
                    y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", y))
                else:
                    y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, stride, 1)).relu()
                    y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, 1, 1))
                if f"{name}.downsample.0.weight" in self.state:
                    x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
                x = (x + y).relu()
        return self.linear("fc", x.mean((2, 3)))

    def resnet18(self, x):
        return self.resnet(x, (2, 2, 2, 2), False)

    def resnet50(self, x):
        return self.resnet(x, (3, 4, 6, 3), True)

    def mobilenet_v2(self, x):
        def block(convolution, norm, x, stride=1, padding=0, groups=1):
            return self.F.relu6(self.norm(norm, self.conv(convolution, x, stride, padding, groups)))

        x = block("features.0.0", "features.0.1", x, 2, 1)
        strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
        for index, stride in enumerate(strides, 1):
            name = f"features.{index}.conv"
            y = x if index == 1 else block(f"{name}.0.0", f"{name}.0.1", x)
            depthwise, project = (0, 1) if index == 1 else (1, 2)
            y = block(f"{name}.{depthwise}.0", f"{name}.{depthwise}.1", y, stride, 1, y.shape[1])
            y = self.norm(f"{name}.{project + 1}", self.conv(f"{name}.{project}", y))
            x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
        return self.linear("classifier.1", block("features.18.0", "features.18.1", x).mean((2, 3)))

    def all_cnn_c(self, x):
        for index, stride, padding in (
            (1, 1, 1),
            (3, 1, 1),
            (5, 2, 1),
            (8, 1, 1),
            (10, 1, 1),
            (12, 2, 1),
            (15, 1, 0),
            (17, 1, 0),
            (19, 1, 0),
        ):
            x = self.conv(f"features.{index}", x, stride, padding).relu()
        return x.mean((2, 3))

    def unet(self, x):
        def double(name, x):
            x = self.norm(f"{name}.double_conv.1", self.conv(f"{name}.double_conv.0", x, 1, 1)).relu()
            return self.norm(f"{name}.double_conv.4", self.conv(f"{name}.double_conv.3", x, 1, 1)).relu()

        skips = [double("inc", x)]
        for level in range(1, 5):
            skips.append(double(f"down{level}.maxpool_conv.1", self.F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for level in range(1, 5):
            up = self.F.conv_transpose2d(x, self.state[f"up{level}.up.weight"], self.state[f"up{level}.up.bias"], stride=2)
            x = double(f"up{level}.conv", self.cat([skips.pop(), up], 1))
        return self.conv("outc.conv", x)


#: Input shapes (small ones, and not square where that works) and arguments of the compared models.
COMPARED = {
    "lenet5": ((3, 1, 28, 28), {}),
    "alexnet": ((1, 3, 67, 95), {"num_classes": 10}),
    "vgg16": ((1, 3, 32, 64), {"num_classes": 10}),
    "resnet18": ((2, 3, 48, 33), {}),
    "resnet50": ((1, 3, 64, 40), {}),
    "mobilenet_v2": ((2, 3, 48, 33), {}),
    "all_cnn_c": ((2, 3, 32, 32), {}),
    "unet": ((2, 3, 32, 16), {"width": 8}),
}


def lively(model):
    """Weights under which every parameter and statistic matters: none of the zeros and ones that models start with."""
    draw = np.random.default_rng(0)
    for name, tensor in model.named_tensors():
        if name.endswith("running_var"):
            tensor.data = draw.uniform(0.5, 2.0, tensor.shape)
        elif tensor.ndim == 1:
            tensor.data = draw.uniform(0.5, 1.5, tensor.shape) if name.endswith("weight") else draw.normal(0, 0.2, tensor.shape)
    return model.eval()


@pytest.fixture(scope="module")
def compared():
    """The last model built and PyTorch's result for it, kept for the next device."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    kept = {}

    def get(name):
        if name not in kept:
            kept.clear()
            shape, arguments = COMPARED[name]
            model = lively(models.build(name, **arguments))
            x = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
            with torch.no_grad():
                kept[name] = model, x, getattr(Plain(model.state_dict(), torch), name)(torch.from_numpy(x)).numpy()
        return kept[name]

    return get


@pytest.mark.parametrize("name", COMPARED)
def test_results_equal_plain_torch(name, compared, device):
    if device.backend == "reference" and name not in ("lenet5", "unet"):
        pytest.skip("too large for the float64 reference, which works pixel by pixel")
    model, x, expected = compared(name)
    y = model(x, device=device)
    assert y.shape == expected.shape
    # Both sides round in float32, layer after layer: the bound is that of a chain of sums, relative to the largest score.
    np.testing.assert_allclose(y, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_unet_names_the_sizes_it_takes():
    with pytest.raises(pc.ShapeError, match="divisible by 16"):
        models.unet(width=8)(np.zeros((1, 3, 24, 32), np.float32), device="reference")


# ---- fully convolutional ----------------------------------------------------------------------------------------------------


def unpadded(*tail):
    """A network of stride 4 without padding, made for 18 x 22 images."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, (3, 2), stride=2), nn.Tanh()), nn.Flatten(), *tail
    )


TAILS = {
    "linear": lambda: unpadded(nn.Linear(6 * 3 * 5, 3)),
    "several": lambda: unpadded(nn.Dropout(), nn.Linear(6 * 3 * 5, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3, bias=False)),
    "norm and softmax": lambda: unpadded(nn.Linear(6 * 3 * 5, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.Linear(8, 3), nn.Softmax(1)),
    "log softmax": lambda: unpadded(nn.Sequential(nn.Linear(6 * 3 * 5, 3)), nn.LogSoftmax(-1)),
}


def moved(model, x, out, stride, window, device):
    """The model on every part of x of the size `window`: [n, classes, *out]."""
    (h, w), (rows, cols) = window, out
    parts = [x[:, :, i * stride : i * stride + h, j * stride : j * stride + w] for i in range(rows) for j in range(cols)]
    n = x.shape[0]
    results = model(np.concatenate(parts), device=device)
    return results.reshape(rows, cols, n, -1).transpose(2, 3, 0, 1)


@pytest.mark.parametrize("tail", TAILS)
def test_converted_equals_the_original_moved_over_the_image(tail, device):
    model = lively(TAILS[tail]())
    converted = to_fully_convolutional(model, (2, 18, 22))
    x = np.random.default_rng(0).normal(0, 1, (2, 2, 18 + 8, 22 + 5)).astype(np.float32)
    y = converted(x, device=device)
    assert y.shape == (2, 3, 3, 2)
    assert_close(y, moved(model, x, (3, 2), 4, (18, 22), device), 90)
    once = converted(x[:, :, :18, :22], device=device)
    assert_close(once[:, :, 0, 0], model(x[:, :, :18, :22], device=device), 90)
    assert once.shape == (2, 3, 1, 1)


def test_adaptive_pooling_becomes_the_pooling_of_the_original_size(device):
    """7 x 11 features pooled to 1 x 11 here, 6 x 10 to 3 x 5 below: windows larger than one pixel, moved pixel by pixel."""
    for features, pool, window in (
        (nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveAvgPool2d((3, 5)), (13, 21)),
        (nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveMaxPool2d((3, None)), (13, 21)),
        (nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), (15, 23)),
    ):
        with_pool = nn.Sequential(features, nn.ReLU(), pool)
        count = math.prod(with_pool.summary((1, 2, *window)).output_shape)
        model = lively(nn.Sequential(with_pool, nn.Dropout(), nn.Flatten(), nn.Linear(count, 3)))
        converted = to_fully_convolutional(model, (1, 2, *window))
        x = np.random.default_rng(0).normal(0, 1, (1, 2, window[0] + 6, window[1] + 3)).astype(np.float32)
        y = converted(x, device=device)
        assert y.shape == (1, 3, 4, 2)
        assert_close(y, moved(model, x, (4, 2), 2, window, device), 90)


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "mobilenet_v2", "all_cnn_c"])
def test_published_networks_convert(name):
    """Same names, the original's result at its size, a map at a larger one."""
    entry = models.get(name)
    model = entry.build(num_classes=5).eval()
    converted = to_fully_convolutional(model, entry.input_shape)
    assert list(converted.state_dict()) == list(model.state_dict())
    assert converted.summary(entry.input_shape).output_shape == (1, 5, 1, 1)
    assert converted.summary(entry.input_shape).multiply_adds == model.summary(entry.input_shape).multiply_adds
    n, c, h, w = entry.input_shape
    assert min(converted.summary((n, c, 2 * h, 3 * w)).output_shape[2:]) > 1


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_large_published_networks_convert(name):
    with nn.init.skipped():
        model = models.build(name, num_classes=2)
    converted = to_fully_convolutional(model, (3, 224, 224))
    assert list(converted.state_dict()) == list(model.state_dict())
    assert converted.summary((1, 3, 224, 224)).output_shape == (1, 2, 1, 1)
    assert converted.summary((1, 3, 288, 256)).output_shape == (1, 2, 3, 2)


def test_lenet_is_exact_at_its_size_and_needs_no_shape(device):
    model = lively(models.lenet5())
    x = np.random.default_rng(0).normal(0, 1, (2, 1, 28, 28)).astype(np.float32)
    y = to_fully_convolutional(model)(x, device=device)
    assert_close(y[:, :, 0, 0], model(x, device=device), 400)


def test_converted_weights_are_its_own():
    model = models.lenet5().train()
    model.fc1.requires_grad_(False)
    converted = to_fully_convolutional(model)
    before = model.state_dict()
    for parameter in converted.parameters():
        parameter.data = parameter.data + 1
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())
    assert [p.requires_grad for p in converted.parameters()] == [p.requires_grad for p in model.parameters()]
    assert converted.fc3._training and not to_fully_convolutional(model.eval()).fc3._training


class Own(nn.Module):
    def __init__(self, part):
        self.part = part

    def forward(self, x):
        return self.part(x)


REFUSED = {
    "must be an nn.Sequential": lambda: (Own(nn.Linear(2, 2)), None),
    "must have a Flatten": lambda: (nn.Sequential(nn.Conv2d(1, 2, 3)), None),
    "a Linear must follow": lambda: (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (1, 5, 5)),
    "what an adaptive pooling averages": lambda: (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)), None),
    "output must divide": lambda: (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)), (2, 5, 5)),
    "right before the Flatten": lambda: (
        nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(2, 2, 4), nn.Flatten(), nn.Linear(2, 2)),
        (2, 8, 8),
    ),
    "do not tell": lambda: (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 3 * 4, 2)), None),
    "keep the batch": lambda: (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Linear(9, 2)), None),
    "depends on the size": lambda: (nn.Sequential(Own(nn.AdaptiveAvgPool2d(3)), nn.Flatten(), nn.Linear(9, 2)), (1, 5, 5)),
    "behind the Flatten": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(25, 2), Own(nn.Linear(2, 2))), (1, 5, 5)),
    "input_shape must be": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(25, 2)), (5, 5)),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_cannot_be_converted(rule):
    model, shape = REFUSED[rule]()
    with pytest.raises(pc.ShapeError, match=rule):
        to_fully_convolutional(model, shape)


def test_a_shared_parameter_is_in_the_state_dict_under_every_name():
    """As in PyTorch; it is still one parameter to train."""

    class Tied(nn.Module):
        def __init__(self):
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    model = Tied()
    assert list(model.state_dict()) == ["first.weight", "second.weight"]
    assert [name for name, _ in model.named_parameters()] == ["first.weight"]
    model.load_state_dict({name: np.eye(4) for name in model.state_dict()})
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(model(x, device="reference"), x)
