"""Exports a network to what other engines read: ``python -m benchmarks.compare.contenders.export NETWORK BATCH WEIGHTS FOLDER``.

Writes FOLDER/model.onnx (for onnxruntime and OpenVINO) and FOLDER/model.ncnn.param and .bin (through pnnx), and FOLDER/export.json, which
says for each what it was made with or why it is missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...networks import NETWORKS
from .torch_networks import BUILD


def to_onnx(model: torch.nn.Module, images: torch.Tensor, folder: Path) -> str:
    """The exporter from TorchScript, which needs nothing beside torch and onnx; folding is left to the engines."""
    torch.onnx.export(model, (images,), str(folder / "model.onnx"), dynamo=False, opset_version=17, input_names=["x"], output_names=["y"])
    return f"torch {torch.__version__}"


def to_ncnn(model: torch.nn.Module, images: torch.Tensor, folder: Path) -> str:
    import pnnx

    with tempfile.TemporaryDirectory() as place:
        torch.jit.trace(model, images[:1]).save(f"{place}/model.pt")
        shape = ",".join(map(str, images[:1].shape))
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", "fp16=0"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        for name in ("model.ncnn.param", "model.ncnn.bin"):
            if not Path(place, name).exists():
                raise RuntimeError(f"pnnx wrote no {name}: {done.stderr.strip()[-300:]}")
            Path(folder, name).write_bytes(Path(place, name).read_bytes())
    return f"pnnx {pnnx.__version__}"


def attempt(
    convert: Callable[[torch.nn.Module, torch.Tensor, Path], str], model: torch.nn.Module, images: torch.Tensor, folder: Path
) -> dict:
    try:
        return {"made": convert(model, images, folder)}
    except Exception as error:  # a converter that is missing or fails leaves its engine out, by name
        return {"missing": f"{type(error).__name__}: {error}"}


def main(network: str, batch: int, weights: str, folder: Path) -> None:
    model = BUILD[network]().eval()
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"{network}: the weights do not fit the network in PyTorch: missing {missing}, unexpected {unexpected}")
    images = torch.zeros(NETWORKS[network].input_shape(batch))
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        report = {"onnx": attempt(to_onnx, model, images, folder), "ncnn": attempt(to_ncnn, model, images, folder)}
    (folder / "export.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
