"""LeNet-5 on the real MNIST, from the folder that PYCL_CNN_DATA names, or from shared/data beside the checkout.

The curves of 100 steps are compared for Adam with a small learning rate and pixels between 0 and 1: there float32 and float64 agree
to 1e-5 from every seed tried. With SGD at 0.05 a rounding that moves one ReLU or one maximum across its threshold grows to 1e-2 and
more within 100 steps, between PyTorch's own float32 and float64 as well; that recipe is compared step by step from equal weights.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import cli, data, models, nn, optim
from pycl_cnn.training import Trainer

DATA = Path(os.environ.get("PYCL_CNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

pytestmark = pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason=f"there is no MNIST in {DATA / 'mnist'}; PYCL_CNN_DATA names another folder")

STEPS, BATCH, SEED, LR = 100, 64, 7, 3e-4


@pytest.fixture(scope="module")
def mnist():
    return data.load_mnist(DATA / "mnist")


@pytest.fixture(scope="module")
def first(mnist):
    """The images of the first 100 steps, pixels between 0 and 1, and their labels."""
    return mnist.x[: STEPS * BATCH] * np.float32(data.STD) + np.float32(data.MEAN), mnist.labels[: STEPS * BATCH]


@pytest.fixture(scope="module")
def curve(first):
    """A function: losses of the first 100 steps on a device, each measured once."""
    known = {}

    def measure(device):
        if device not in known:
            pc.manual_seed(SEED)
            trainer = Trainer(models.lenet5(), nn.CrossEntropyLoss(), optim.Adam(LR), device=device, seed=SEED)
            known[device] = trainer.fit(first, 1, BATCH, progress=False).step_loss
        return known[device]

    return measure


def torch_lenet5(torch, weights):
    """PyTorch's LeNet-5 with these weights."""
    t = torch.nn
    twin = t.Sequential(
        *(t.Conv2d(1, 6, 5, padding=2), t.ReLU(), t.MaxPool2d(2), t.Conv2d(6, 16, 5), t.ReLU(), t.MaxPool2d(2), t.Flatten()),
        *(t.Linear(400, 120), t.ReLU(), t.Linear(120, 84), t.ReLU(), t.Linear(84, 10)),
    )
    twin.load_state_dict({key: torch.tensor(np.array(value)) for key, value in zip(twin.state_dict(), weights.values(), strict=True)})
    return twin


def test_the_files_are_mnist(mnist):
    assert mnist.x.shape == (60000, 1, 28, 28) and mnist.held_out_x.shape == (10000, 1, 28, 28)
    assert abs(mnist.x.mean()) < 1e-3 and abs(mnist.x.std() - 1) < 1e-3
    assert np.bincount(mnist.held_out_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def opencl_devices():
    return [device for device in pc.devices() if device.backend == "opencl"]


def test_opencl_and_the_cpu_have_one_loss_curve(curve):
    found = opencl_devices()
    if not found:
        pytest.skip("there is no OpenCL device")
    for device in found:
        np.testing.assert_allclose(curve(device), curve(pc.device("cpu")), atol=1e-3, rtol=0, err_msg=str(device))
    assert curve(found[0])[-1] < 0.6 * curve(found[0])[0]


def test_so_has_pytorch_from_the_same_weights_and_batches(first, curve):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of its own")
    pc.manual_seed(SEED)
    twin = torch_lenet5(torch, models.lenet5().state_dict())
    optimizer = torch.optim.Adam(twin.parameters(), LR)
    order = np.random.default_rng([SEED, 0]).permutation(STEPS * BATCH)
    losses = []
    for start in range(0, STEPS * BATCH, BATCH):
        rows = order[start : start + BATCH]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(first[0][rows])), torch.tensor(first[1][rows]).long())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for device in [pc.device("cpu"), *opencl_devices()]:
        np.testing.assert_allclose(curve(device), losses, atol=1e-3, rtol=0, err_msg=str(device))


def test_every_step_of_sgd_is_pytorchs_from_the_same_weights(mnist):
    """Ours goes ahead; PyTorch takes over our weights before each step, so that roundings cannot add up."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of its own")
    for device in [pc.device("cpu"), *opencl_devices()]:
        pc.manual_seed(SEED)
        trainer = Trainer(models.lenet5(), nn.CrossEntropyLoss(), optim.SGD(0.05), device=device)
        for start in range(0, 30 * BATCH, BATCH):
            rows = slice(start, start + BATCH)
            twin = torch_lenet5(torch, trainer.model.state_dict())
            loss = torch.nn.functional.cross_entropy(twin(torch.tensor(mnist.x[rows])), torch.tensor(mnist.labels[rows]).long())
            loss.backward()
            torch.optim.SGD(twin.parameters(), 0.05).step()
            (ours,) = trainer.fit((mnist.x[rows], mnist.labels[rows]), 1, BATCH, shuffle=False, progress=False).step_loss
            assert abs(ours - loss.item()) < 1e-5, (str(device), start)
            for key, array, expected in zip(trainer.model.state_dict(), trainer.model.state_dict().values(), twin.parameters(), strict=True):
                np.testing.assert_allclose(array, expected.detach().numpy(), atol=1e-4, err_msg=f"{device} {key}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "opencl"])
def test_lenet5_reaches_98_8_per_cent(name, tmp_path, capsys):
    """What `pycl-cnn train` does by default, five epochs."""
    try:
        device = pc.device(name)
    except pc.DeviceError as error:
        pytest.skip(str(error))
    out = tmp_path / "lenet5.safetensors"
    assert cli.main(["train", "--data", str(DATA / "mnist"), "--out", str(out), "--device", device.label, "--quiet"]) == 0
    print(said := capsys.readouterr().out)
    assert float(said.split("test accuracy ")[1].split(" %")[0]) >= 98.8
