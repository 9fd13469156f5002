"""Convolutions of the networks at batch 1, channels last: forward, and the two gradients as a training step computes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import CONVOLUTIONS, DEVICES, check_adjoint, check_convolution, device, inner, normal

#: Layers whose gradients are timed.
TRAINED = ("lenet5.conv2", "resnet18.conv1", "resnet18.layer1", "resnet18.layer4", "mobilenet_v2.depthwise8", "mobilenet_v2.project")


class Conv2d:
    """Inference: weights are packed beforehand."""

    params = (DEVICES, tuple(CONVOLUTIONS))
    param_names = ("device", "layer")

    def setup(self, where: str, name: str) -> None:
        import pycl_cnn as pc

        target, layer = device(where), CONVOLUTIONS[name]
        pc.manual_seed(0)
        module = layer.module()
        self.x = normal(*layer.input_shape)
        self.program = pc.compile(module, layer.input_shape, device=target, layout="NHWC")
        check_convolution(self.program.run(self.x), self.x, module.weight.data, module.bias.data, layer)

    def time_forward(self, where: str, name: str) -> None:
        self.program.run(self.x)


class Conv2dGradients:
    """Weights come in as they are, and are packed at every run."""

    params = (DEVICES, TRAINED)
    param_names = ("device", "layer")

    def setup(self, where: str, name: str) -> None:
        from pycl_cnn.eager import finish
        from pycl_cnn.geometry import ConvGeometry
        from pycl_cnn.graph import Graph
        from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight

        target, layer = device(where), CONVOLUTIONS[name]
        weight_shape = (layer.out, layer.kernel, layer.kernel, layer.channels // layer.groups)
        geometry = ConvGeometry.forward("conv", layer.input_shape, weight_shape, layer.stride, layer.padding, 1, layer.groups)
        x, w, dy = normal(*layer.input_shape), normal(*weight_shape, seed=1), normal(*geometry.output_shape, seed=2)
        results = []
        for op, arrays in ((Conv(geometry), (x, w)), (ConvBackwardInput(geometry), (dy, w)), (ConvBackwardWeight(geometry), (x, dy))):
            graph = Graph()
            inputs = [graph.input(f"array{index}", array.shape) for index, array in enumerate(arrays)]
            graph.outputs = [graph.apply(op, *inputs)]
            program = finish(graph, target, {})
            results.append((program, arrays, program.run(*arrays)))
        (_, _, y), (self.input_program, self.input_arrays, dx), (self.weight_program, self.weight_arrays, dw) = results
        check_adjoint(inner(y, dy), inner(x, dx), inner(w, dw), float(np.linalg.norm(y) * np.linalg.norm(dy)))

    def time_backward_input(self, where: str, name: str) -> None:
        self.input_program.run(*self.input_arrays)

    def time_backward_weight(self, where: str, name: str) -> None:
        self.weight_program.run(*self.weight_arrays)


class ConvTranspose2d:
    """The upsampling of U-Net: kernel 2, stride 2."""

    params = (DEVICES,)
    param_names = ("device",)

    def setup(self, where: str) -> None:
        import pycl_cnn as pc

        target = device(where)
        pc.manual_seed(0)
        module: Any = pc.nn.ConvTranspose2d(128, 64, kernel_size=2, stride=2)
        self.x = normal(1, 128, 128, 128)
        self.program = pc.compile(module, self.x.shape, device=target, layout="NHWC")
        y = self.program.run(self.x)
        # Each output is reached from one input pixel: y[2a+r, 2b+s, k] = sum_c x[a,b,c] w[c,k,r,s] + bias[k].
        expected = np.einsum("c,ckrs->rsk", self.x[0, 5, 7].astype(np.float64), module.weight.data) + module.bias.data
        np.testing.assert_allclose(y[0, 10:12, 14:16], expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    def time_forward(self, where: str) -> None:
        self.program.run(self.x)
