"""The commands that work with ONNX files: ``pycl-cnn info | run | compare``. Their arguments; what they do stands in `onnx.command`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .cli_values import not_negative, positive, shape

INFO_EPILOG = """\
examples:
  pycl-cnn info model.onnx
  pycl-cnn info model.onnx --device cpu
  pycl-cnn info segmenter.onnx --input-shape 1,3,512,512         where the file leaves sizes open
  pycl-cnn info two_inputs.onnx --input-shape left=1,3,64,64 --input-shape right=1,3,64,64

For each operator: how often it occurs, and on each backend what does it: a kernel, or NumPy on the host ("host"), between kernels.
Nothing is run. The exit status is 1 where the model cannot run.
"""

RUN_EPILOG = """\
examples:
  pycl-cnn run model.onnx photo.jpg --labels imagenet.txt        needs Pillow: pip install "pycl_cnn[images]"
  pycl-cnn run model.onnx a.jpg b.png --top 3 --device opencl
  pycl-cnn run model.onnx photo.jpg --mean 0.5 --std 0.5         pixels from -1 to 1
  pycl-cnn run model.onnx photo.jpg --range 255 --mean 103.939,116.779,123.68 --std 1 --channels BGR
  pycl-cnn run model.onnx input.npy --out output.npy             one input, one output
  pycl-cnn run model.onnx left=a.npy right=b.npy --out outputs.npz

A photograph is decoded, turned as its camera says, resized (its short side to --resize), cut in the middle to the network's size, and
normalised: (pixel / 255 * range - mean) / std. The defaults are those of torchvision's networks.
LABELS has one class a line. A model of one class more than there are labels has class 0 for the background.
"""

COMPARE_EPILOG = """\
examples:
  pycl-cnn compare model.onnx                                    random input, on every backend
  pycl-cnn compare model.onnx input.npy --device cpu
  pycl-cnn compare model.onnx --against reference                pycl_cnn's own float64 reference: slow and exact
  pycl-cnn compare model.onnx --input-shape 8,3,224,224 --runs 50

For every output and device the largest difference, alone and relative to the largest element of the output; then the median times of both.
The exit status is 1 where a relative difference is larger than --tolerance. onnxruntime: pip install onnxruntime
"""


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands by `command(name, run, text, epilog, default_device)`."""
    info = command("info", _later("info"), "tell what an ONNX file needs and where each operator runs, before running it", INFO_EPILOG, "the CPU and the first OpenCL device")
    _add_model(info)

    run = command("run", _later("run"), "run an ONNX file on photographs or arrays", RUN_EPILOG)
    run.add_argument("model", metavar="MODEL", help="ONNX file")
    run.add_argument("inputs", metavar="INPUT", nargs="+", help="pictures; or an .npy file for each input (NAME=FILE where there are several), or one .npz")
    run.add_argument("--out", metavar="FILE", help="write the outputs: .npy (one) or .npz (by name)")
    run.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    run.add_argument("--top", type=positive, default=5, metavar="N", help="classes shown for each picture (default: %(default)s)")
    run.add_argument("--mean", type=_numbers, default=None, metavar="R,G,B", help="subtracted from each channel (default: 0.485,0.456,0.406)")
    run.add_argument("--std", type=_numbers, default=None, metavar="R,G,B", help="each channel is divided by it (default: 0.229,0.224,0.225)")
    run.add_argument("--range", type=not_negative, default=1.0, metavar="R", help="of the pixels before that: 0 to R (default: 1)")
    run.add_argument("--channels", choices=("RGB", "BGR"), default="RGB", help="their order (default: %(default)s); --mean and --std stand in it too")
    run.add_argument("--layout", choices=("NCHW", "NHWC"), help="of the model's input (default: what its shape says)")
    run.add_argument("--resize", type=positive, metavar="N", help="short side before the cut (default: 8/7 of the network's: 256 for 224)")
    run.add_argument("--size", type=positive, metavar="N", help="height and width of the picture where the file leaves them open (default: 224)")

    compare = command("compare", _later("compare"), "compare an ONNX file's outputs and times with another runtime", COMPARE_EPILOG, "every backend; may be given several times", several=True)
    _add_model(compare)
    compare.add_argument("inputs", metavar="INPUT", nargs="*", help="an .npy file for each input (NAME=FILE), or one .npz (default: random numbers)")
    compare.add_argument("--against", choices=("onnxruntime", "reference"), default="onnxruntime", help="default: %(default)s")
    compare.add_argument("--runs", type=positive, default=10, metavar="N", help="timed runs of each (default: %(default)s)")
    compare.add_argument("--tolerance", type=not_negative, default=1e-4, metavar="T", help="largest relative difference (default: %(default)s)")
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="of random inputs (default: %(default)s)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="ONNX file")
    parser.add_argument("--input-shape", type=_named_shape, action="append", default=[], metavar="[NAME=]N,C,H,W", help="where the file leaves sizes open (default: one image)")


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """The command `name` of `onnx.command`, imported when it is run."""

    def run(options: argparse.Namespace) -> int:
        from .onnx import command

        return getattr(command, name)(options)

    return run


def _named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    return name, shape(sizes)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers: tuple[Any, ...] = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"must be one number or three like 0.5,0.5,0.5, not {text!r}")
    return numbers
