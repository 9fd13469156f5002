"""tinygrad on an OpenCL device (the session sets DEV=CL): inference and training steps captured by its TinyJit, BEAM search off, as it comes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from tinygrad import Context, Device, Tensor, TinyJit, dtypes
from tinygrad.nn import BatchNorm, Conv2d, Linear
from tinygrad.nn.optim import SGD
from tinygrad.nn.state import get_parameters, get_state_dict, load_state_dict, safe_load

from ..task import MOMENTUM, TIMED_LR, Engine, Task, checked_training


class LeNet5:
    def __init__(self) -> None:
        self.conv1, self.conv2 = Conv2d(1, 6, 5, padding=2), Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = Linear(400, 120), Linear(120, 84), Linear(84, 10)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu().max_pool2d()
        x = self.conv2(x).relu().max_pool2d().flatten(1)
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


class BasicBlock:
    def __init__(self, channels: int, out: int, stride: int) -> None:
        self.conv1, self.bn1 = Conv2d(channels, out, 3, stride, 1, bias=False), BatchNorm(out)
        self.conv2, self.bn2 = Conv2d(out, out, 3, 1, 1, bias=False), BatchNorm(out)
        self.downsample = [Conv2d(channels, out, 1, stride, bias=False), BatchNorm(out)] if stride != 1 or channels != out else []

    def __call__(self, x: Tensor) -> Tensor:
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x.sequential(self.downsample)).relu()


class ResNet18:
    def __init__(self) -> None:
        self.conv1, self.bn1 = Conv2d(3, 64, 7, 2, 3, bias=False), BatchNorm(64)
        self.layer1 = [BasicBlock(64, 64, 1), BasicBlock(64, 64, 1)]
        self.layer2 = [BasicBlock(64, 128, 2), BasicBlock(128, 128, 1)]
        self.layer3 = [BasicBlock(128, 256, 2), BasicBlock(256, 256, 1)]
        self.layer4 = [BasicBlock(256, 512, 2), BasicBlock(512, 512, 1)]
        self.fc = Linear(512, 1000)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu().max_pool2d((3, 3), 2, padding=1)
        x = x.sequential([*self.layer1, *self.layer2, *self.layer3, *self.layer4])
        return self.fc(x.mean((2, 3)))


def _conv_bn_relu6(channels: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list:
    return [Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False), BatchNorm(out)]


class InvertedResidual:
    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        hidden = channels * expansion
        self.adds = stride == 1 and channels == out
        expand = [_conv_bn_relu6(channels, hidden, 1)] if expansion != 1 else []
        self.conv = [*expand, _conv_bn_relu6(hidden, hidden, 3, stride, hidden), Conv2d(hidden, out, 1, bias=False), BatchNorm(out)]

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for conv, norm in self.conv[:-2]:
            y = norm(conv(y)).relu6()
        y = self.conv[-1](self.conv[-2](y))
        return x + y if self.adds else y


class MobileNetV2:
    def __init__(self) -> None:
        self.features: list = [_conv_bn_relu6(3, 32, stride=2)]
        channels = 32
        stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
        for expansion, out, count, stride in stages:
            for index in range(count):
                self.features.append(InvertedResidual(channels, out, 1 if index else stride, expansion))
                channels = out
        self.features.append(_conv_bn_relu6(channels, 1280, 1))
        self.classifier = [lambda x: x, Linear(1280, 1000)]  # the first stands where torchvision has dropout

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.features:
            x = part[1](part[0](x)).relu6() if isinstance(part, list) else part(x)
        return x.mean((2, 3)).sequential(self.classifier)


BUILD = {"lenet5": LeNet5, "resnet18": ResNet18, "mobilenet_v2": MobileNetV2}


class TinyGrad(Engine):
    """See the module's docstring."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.device = Device["CL"]

    def versions(self) -> dict[str, str]:
        return {"tinygrad": version("tinygrad"), "device": f"{self.device.device_name} {self.device.driver_version}"}

    def prepare(self, task: Task) -> None:
        self.task, self.model = task, BUILD[task.network]()
        counters = {name: tensor for name, tensor in get_state_dict(self.model).items() if name.endswith("num_batches_tracked")}
        load_state_dict(self.model, {**safe_load(str(task.weights)), **counters}, verbose=False)
        self.images, self.labels = Tensor(task.images).realize(), Tensor(task.labels).cast(dtypes.int32).realize()
        if not task.trains:
            self.run = TinyJit(lambda x: self.model(x).realize())
            return
        with Context(TRAINING=1):
            self.optimizer = SGD(get_parameters(self.model), lr=TIMED_LR, momentum=MOMENTUM)

            def train(x: Tensor, labels: Tensor) -> Tensor:
                self.optimizer.zero_grad()
                loss = self.model(x).sparse_categorical_crossentropy(labels).backward()
                return loss.realize(*self.optimizer.schedule_step())

            self.run = TinyJit(train)

    def _train(self, lr: float) -> float:
        self.optimizer.lr.assign(Tensor([lr])).realize()
        with Context(TRAINING=1):
            return float(self.run(self.images, self.labels).item())

    def settle(self) -> str:
        """Its jit captures at the second run and replays from the third; in training the checked steps see to that."""
        if not self.task.trains:
            self.step()
            self.step()
        return ""

    def step(self) -> Any:
        return self._train(TIMED_LR) if self.task.trains else self.run(self.images).numpy()

    def check(self) -> dict[str, np.ndarray]:
        if not self.task.trains:
            return {"output": self.step()}
        names = {name for name, tensor in get_state_dict(self.model).items() if any(tensor is p for p in self.optimizer.params)}
        return checked_training(lambda: {n: t.numpy() for n, t in get_state_dict(self.model).items() if n in names}, self._train)


ENGINE = TinyGrad
