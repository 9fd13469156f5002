"""The demo: it reaches its goal, its files are there, and the backends agree."""

import numpy as np
import pytest

import pycl_cnn as pc
from pycl_cnn import demo

pytest.importorskip("sklearn", reason="scikit-learn carries the digits")
pytest.importorskip("matplotlib", reason="matplotlib draws the picture")

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def test_half_pixel_shifts():
    image = np.zeros((1, 1, 3, 3), np.float32)
    image[0, 0, 1, 1] = 1
    shifted = demo.half_pixel_shifts(image)
    assert shifted.shape == (9, 1, 3, 3)
    np.testing.assert_array_equal(shifted[0], image[0])
    np.testing.assert_allclose(shifted.sum((1, 2, 3)), 1)  # nothing leaves the frame
    assert len({copy.tobytes() for copy in shifted}) == 9
    np.testing.assert_array_equal(demo.half_pixel_shifts(np.ones((1, 1, 2, 2), np.float32))[3, 0], [[1, 1], [0.5, 0.5]])


def test_the_device_is_opencls_where_there_is_one(monkeypatch):
    monkeypatch.delenv("PYCL_CNN_DEVICE", raising=False)
    monkeypatch.setattr(demo, "opencl_devices", lambda: [])
    assert demo.pick_device().backend == "cpu"
    assert demo.pick_device("reference").backend == "reference"
    monkeypatch.setenv("PYCL_CNN_DEVICE", "reference")
    assert demo.pick_device().backend == "reference"


@pytest.mark.parametrize("name", ["cpu", "opencl"])
def test_the_demo_reaches_its_goal(name, tmp_path, capsys):
    try:
        device = pc.device(name)
    except pc.DeviceError as error:
        pytest.skip(str(error))
    assert demo.run(device, tmp_path, progress=False) == 0
    said = capsys.readouterr().out
    assert (f"Device   {device}" in said and "logits differ" in said) or len(pc.devices()) == 1
    assert (tmp_path / demo.PICTURE_FILE).read_bytes().startswith(PNG_MAGIC)
    model = pc.load_weights(demo.digits_network(), tmp_path / demo.MODEL_FILE).eval()
    digits = pc.data.load_digits()
    predicted = model(digits.held_out_x, device="cpu").argmax(1)
    assert (predicted == digits.held_out_labels).mean() >= demo.GOAL


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_goal_is_reached_from_every_seed(seed, tmp_path):
    assert demo.run("cpu", tmp_path, seed, progress=False) == 0
