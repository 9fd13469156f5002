"""Fine-tuning: the last layer of a real imported classifier learns another task as well as PyTorch teaches it from the same weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import nn, optim

DATA = Path(os.environ.get("PYCL_CNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
MODEL, FASHION = DATA / "models" / "resnet20-cifar10.onnx", DATA / "fashion-mnist"

pytestmark = pytest.mark.skipif(not (MODEL.exists() and FASHION.exists()), reason=f"{DATA} has no resnet20-cifar10.onnx and Fashion-MNIST; PYCL_CNN_DATA names another folder")

TRAINED, HELD_OUT, EPOCHS, BATCH, RATE = 600, 400, 6, 50, 0.1


@pytest.fixture(scope="module")
def task():
    """Clothes, as the network for photographs wants them: 32 x 32, three channels, normalised; and their classes."""
    images, labels = (pc.data.read_idx(FASHION / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    count = TRAINED + HELD_OUT
    scaled = np.pad(images[:count].astype(np.float32)[:, None] / 255, ((0, 0), (0, 0), (2, 2), (2, 2)))
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return ((scaled - mean) / std).astype(np.float32), labels[:count].astype(np.int64)


@pytest.fixture(scope="module")
def pytorchs(task):
    """(accuracy, weight) of PyTorch's last layer, trained on the features that onnxruntime computes, from the same weights and batches."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    onnx = pytest.importorskip("onnx", reason="cuts the model before its last layer")
    runtime = pytest.importorskip("onnxruntime", reason="computes the features for PyTorch")
    proto = onnx.load(MODEL)
    head = proto.graph.node[-1]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name in head.input}
    features_name = head.input[0]
    del proto.graph.node[-1], proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(features_name, onnx.TensorProto.FLOAT, ["N", 64]))
    x, labels = task
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    features = torch.tensor(np.concatenate([session.run(None, {"input": x[i : i + 100]})[0] for i in range(0, len(x), 100)]))
    layer = torch.nn.Linear(64, 10)
    layer.load_state_dict({"weight": torch.tensor(weights[head.input[1]]), "bias": torch.tensor(weights[head.input[2]])})
    optimizer = torch.optim.SGD(layer.parameters(), lr=RATE, momentum=0.9)
    for _ in range(EPOCHS):
        for start in range(0, TRAINED, BATCH):
            optimizer.zero_grad()
            batch = slice(start, start + BATCH)
            torch.nn.functional.cross_entropy(layer(features[batch]), torch.tensor(labels[batch])).backward()
            optimizer.step()
    right = layer(features[TRAINED:]).argmax(1).numpy() == labels[TRAINED:]
    return right.mean(), layer.weight.detach().numpy()


def test_the_last_layer_learns_what_pytorchs_does(task, pytorchs, device):
    if device.backend == "reference" or device.index > 0:
        pytest.skip("trains on the CPU backend and on OpenCL's first device")
    x, labels = task
    net = pc.onnx.load(MODEL)
    before = (net(x[TRAINED:], device=device).argmax(1) == labels[TRAINED:]).mean()
    net.freeze("*").unfreeze("linear.*")
    trainer = pc.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(lr=RATE, momentum=0.9), device, seed=0)
    trainer.fit((x[:TRAINED], labels[:TRAINED]), epochs=EPOCHS, batch_size=BATCH, shuffle=False, progress=False)
    accuracy = trainer.evaluate(x[TRAINED:], labels[TRAINED:]).accuracy
    expected, weight = pytorchs
    assert expected > before + 0.3 and accuracy >= expected - 0.005, (before, accuracy, expected)
    np.testing.assert_allclose(net.state_dict()["linear.weight"], weight, atol=1e-3 * np.abs(weight).max())
