"""The command line: ``pycl-cnn devices | doctor | check | demo | train | predict | summary | profile | tune``.

A mistake gets one line on stderr and exit status 2; Ctrl-C 130.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from textwrap import shorten
from typing import Any, NoReturn

from .cli_onnx import add_commands as add_onnx_commands
from .cli_values import natural, not_negative, positive, shape
from .errors import DeviceError, PyclError

PROGRAM = "pycl-cnn"

#: Longest message of an error, which may list every name in a file.
LONGEST_ERROR = 500

EPILOG = """\
start here:
  pycl-cnn demo                       learn handwritten digits in less than a minute, on every backend
  pycl-cnn devices                    what this machine can compute on
  pycl-cnn doctor                     what is wrong with its OpenCL, and the command that mends it
  pycl-cnn check                      compare its kernels with float64, and write a certificate
  pycl-cnn train --data mnist --out lenet5.safetensors
  pycl-cnn predict lenet5.safetensors mnist/t10k-images-idx3-ubyte.gz
  pycl-cnn summary resnet18           layers, parameters, multiply-adds, memory
  pycl-cnn info model.onnx            what a trained model in an ONNX file needs, and where each operator runs
  pycl-cnn run model.onnx photo.jpg --labels imagenet.txt
  pycl-cnn compare model.onnx         outputs and times beside onnxruntime's

devices are spelled "cpu" (the native backend), "opencl", "opencl:1", part of a device's name, or "auto";
the environment variable PYCL_CNN_DEVICE sets the default.
"""

DEMO_EPILOG = """\
needs the extras: pip install "pycl_cnn[demo]"

examples:
  pycl-cnn demo                       on OpenCL where there is a driver, then compared with the native CPU backend
  pycl-cnn demo --device cpu --out /tmp/digits

It writes digits.safetensors (the weights) and digits.png (training curve, filters, feature maps, confusion matrix, predictions).
"""

TRAIN_EPILOG = """\
DIR holds MNIST's four files (or Fashion-MNIST's, or others of that format), gzipped or not:
  train-images-idx3-ubyte  train-labels-idx1-ubyte  t10k-images-idx3-ubyte  t10k-labels-idx1-ubyte

examples:
  pycl-cnn train --data mnist --out lenet5.safetensors           the defaults take LeNet-5 to about 99 % on MNIST
  pycl-cnn train --data mnist --device opencl --epochs 3 --out m.safetensors
  pycl-cnn train --data mnist --checkpoint run.safetensors --out m.safetensors
  pycl-cnn train --data mnist --resume run.safetensors --checkpoint run.safetensors --out m.safetensors

Ctrl-C stops and still writes the weights. Same seed, device and data: same weights, bit for bit.
"""

TUNE_EPILOG = """\
examples:
  pycl-cnn tune --device opencl:1                                ResNet-18's shapes, for a minute
  pycl-cnn tune --model mobilenet_v2 --input-shape 8,3,224,224 --train --budget 600
  pycl-cnn tune --model detector.onnx --input-shape 1,3,320,320
  pycl-cnn tune --export my-device.json                          what was found, for others: please contribute it

Variants are tried in a process of their own; only those whose results agree with the reference are kept, in the user's cache folder
(PYCL_CNN_CACHE), for this device and driver. Ctrl-C stops; the next run goes on from there. Nothing is ever tuned unless asked for.
"""

PREDICT_EPILOG = """\
examples:
  pycl-cnn predict lenet5.safetensors digit.png                  one image (needs Pillow), light on black as in MNIST
  pycl-cnn predict lenet5.safetensors --invert scan.png          dark on white
  pycl-cnn predict lenet5.safetensors mnist/t10k-images-idx3-ubyte.gz --limit 0 --labels mnist/t10k-labels-idx1-ubyte.gz
  pycl-cnn predict resnet18.safetensors --model resnet18 --classes-file synset.txt cat.jpg

Weights that `train` and `demo` wrote name their model; for others give --model.
"""

SUMMARY_EPILOG = """\
examples:
  pycl-cnn summary lenet5
  pycl-cnn summary resnet50 --input-shape 8,3,224,224
  pycl-cnn summary lenet5 --device cpu                           also what the compiled program does there, step by step
"""

DOCTOR_EPILOG = """\
examples:
  pycl-cnn doctor                                  what OpenCL there is, what is broken, and the command that mends it
  pycl-cnn doctor --json > report.json             the same for a bug report
  pycl-cnn doctor > /dev/null && pycl-cnn demo     its status is 0 if an OpenCL device is usable, else 1

Drivers are loaded and tried in processes of their own: a broken one is reported and harms nothing.
"""

CHECK_EPILOG = """\
examples:
  pycl-cnn check                                   the kernels of a few networks, on every OpenCL device
  pycl-cnn check --device opencl:1 --full          every algorithm, function and update rule, training too: about a minute
  pycl-cnn check --out gpu.json                    where the certificate goes

Each kernel is built and run in a child process on small, odd shapes, and compared with a float64 reference. The verdicts replace those that
are remembered: a kernel that fails is not used any more, one that passes again is. The status is 0 if all pass, else 1.
"""

PROFILE_EPILOG = """\
examples:
  pycl-cnn profile resnet18                                      each step's time, GFLOP/s, GB/s, share of what the device can do
  pycl-cnn profile mobilenet_v2 --device opencl --batch 8
  pycl-cnn profile lenet5 --train --trace lenet5.json            a training step; open the trace in chrome://tracing or ui.perfetto.dev

The first profile on a device measures its ceilings (multiply-adds and copying, about two seconds). 3x3 convolutions by Winograd's method need
fewer multiplications than are counted, so they can be above 100 % of the ceiling.
"""


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes told in one line, and an epilog that may be made only when it is read."""

    def format_help(self) -> str:
        if callable(self.epilog):
            self.epilog = self.epilog()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"{PROGRAM} {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (PyclError, OSError) as error:
        plain = isinstance(error, OSError) and error.filename is not None and error.strerror
        message = f"{error.filename}: {error.strerror}" if plain else " ".join(str(error).split())  # type: ignore[union-attr]
        print(f"{PROGRAM} {options.command}: {message[:LONGEST_ERROR]}{'...' * (len(message) > LONGEST_ERROR)}", file=sys.stderr)
        return 2


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Train and run convolutional networks on the CPU or any OpenCL device.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, epilog: Any = None, default_device: str | None = 'PYCL_CNN_DEVICE, or "auto"', several: bool = False) -> Parser:
        described = f"{text[0].upper()}{text[1:]}."
        added = commands.add_parser(name, help=text, description=described, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
        if default_device:
            action = "append" if several else "store"
            added.add_argument("--device", metavar="D", action=action, help=f'"cpu", "opencl", "opencl:1", part of a name, "auto" (default: {default_device})')
        added.set_defaults(run=run)
        return added

    command("devices", devices, "list the devices of this machine, and which one is used")

    diagnosis = command("doctor", doctor, "say what OpenCL there is, what is broken and what mends it", DOCTOR_EPILOG, default_device=None)
    diagnosis.add_argument("--json", action="store_true", help="as JSON, for bug reports")

    checking = command("check", check, "compare a device's kernels with a float64 reference and write a certificate", CHECK_EPILOG, "every OpenCL device")
    checking.add_argument("--full", action="store_true", help="every algorithm at every operation, instead of what a few networks use")
    checking.add_argument("--out", metavar="FILE", default="pycl-cnn-check.json", help="the certificate, JSON (default: %(default)s)")

    demo_options = command("demo", demo, "learn handwritten digits, draw what was learned, compare the backends", DEMO_EPILOG, "PYCL_CNN_DEVICE, or OpenCL where there is a driver")
    demo_options.add_argument("--out", metavar="DIR", default="pycl-cnn-demo", help="folder for the model and the picture (default: %(default)s)")
    demo_options.add_argument("--seed", type=natural, default=0, metavar="N", help="of weights, shuffles and dropout (default: %(default)s)")

    training = command("train", train, "train a network on a folder of MNIST-style files", TRAIN_EPILOG)
    training.add_argument("--data", metavar="DIR", required=True, help="folder with the four IDX files")
    training.add_argument("--model", metavar="NAME", default="lenet5", help="name of a network (default: %(default)s; see pycl-cnn summary --help)")
    training.add_argument("--out", metavar="FILE", required=True, help="weights to write (safetensors)")
    training.add_argument("--epochs", type=natural, default=5, metavar="N", help="default: %(default)s")
    training.add_argument("--batch-size", type=natural, default=64, metavar="N", help="default: %(default)s")
    training.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="sgd: with Nesterov momentum 0.9 (default: %(default)s)")
    training.add_argument("--lr", type=not_negative, help="learning rate in the first epoch (default: 0.002 for adam, 0.05 for sgd)")
    training.add_argument("--lr-decay", type=not_negative, default=0.5, metavar="F", help="factor from one epoch to the next (default: %(default)s)")
    training.add_argument("--weight-decay", type=not_negative, default=0.0, metavar="W", help="default: %(default)s")
    training.add_argument("--seed", type=natural, default=0, metavar="N", help="of weights, shuffles and dropout (default: %(default)s)")
    training.add_argument("--checkpoint", metavar="FILE", help="write the state of training here after every epoch")
    training.add_argument("--resume", metavar="FILE", help="go on from this checkpoint, to --epochs in all")
    training.add_argument("--quiet", action="store_true", help="no progress bar")

    prediction = command("predict", predict, "recognise images with trained weights", PREDICT_EPILOG)
    prediction.add_argument("weights", metavar="WEIGHTS", help="file of weights (safetensors)")
    prediction.add_argument("images", metavar="IMAGES", nargs="+", help="IDX or .npy files, or pictures")
    prediction.add_argument("--model", metavar="NAME", help="name of the network (default: what the file of weights says)")
    prediction.add_argument("--classes-file", metavar="FILE", help="names of the classes, one a line")
    prediction.add_argument("--labels", metavar="FILE", help="IDX file of the true labels: tells the accuracy as well")
    prediction.add_argument("--top", type=positive, default=3, metavar="N", help="classes shown for each image (default: %(default)s)")
    prediction.add_argument("--limit", type=natural, default=20, metavar="N", help="images shown, 0 for all (default: %(default)s)")
    prediction.add_argument("--invert", action="store_true", help="pictures are dark on white")

    overview = command("summary", summary, "layers, parameters, multiply-adds and memory of a network", _summary_epilog, "none: what is the same on all")
    overview.add_argument("model", metavar="MODEL", help="name of the network")
    overview.add_argument("--input-shape", type=shape, metavar="N,C,H,W", help="default: one image of the size the network was made for")

    profiled = command("profile", profile, "say what each step of a network's program takes on a device", PROFILE_EPILOG)
    profiled.add_argument("model", metavar="MODEL", help="name of a network (see pycl-cnn summary --help)")
    profiled.add_argument("--batch", type=positive, default=1, metavar="N", help="images at once (default: %(default)s)")
    profiled.add_argument("--train", action="store_true", help="a training step (SGD, cross entropy) instead of inference")
    profiled.add_argument("--repeat", type=positive, default=10, metavar="N", help="runs; the least time of every step counts (default: %(default)s)")
    profiled.add_argument("--trace", metavar="FILE", help="write the fastest run as Trace Event JSON")

    tuning = command("tune", tune, "measure which variants of the kernels suit a device, for a network's shapes", TUNE_EPILOG, "the first OpenCL device")
    tuning.add_argument("--model", metavar="MODEL", default="resnet18", help="name of a network, or an .onnx file (default: %(default)s; see pycl-cnn summary --help)")
    tuning.add_argument("--input-shape", type=shape, metavar="N,C,H,W", help="default: one image of the size the network was made for")
    tuning.add_argument("--train", action="store_true", help="the shapes of a training step")
    tuning.add_argument("--budget", type=positive, default=60, metavar="SECONDS", help="default: %(default)s")
    tuning.add_argument("--export", metavar="FILE", help="only write what was found on the device so far, to be contributed")
    tuning.add_argument("--quiet", action="store_true", help="no progress bar")

    add_onnx_commands(command)
    return parser


def _version() -> str:
    from . import __version__

    return __version__


def _summary_epilog() -> str:
    from .cli_models import known_models

    lines = (f"  {entry.name:14}{'x'.join(map(str, entry.input_shape)):14}{entry.source}" for entry in known_models().values())
    return "\n".join([SUMMARY_EPILOG, "networks:", *lines])


# ---- commands: each imports what it needs, so that --help is quick ---------------------------------------------------------


def devices(options: argparse.Namespace) -> int:
    """Print the table of devices."""
    from . import device as find_device
    from .backends import backend

    found, trouble = list(backend("cpu").devices()), ""
    try:
        found += backend("opencl").devices()
    except DeviceError as error:
        trouble = str(error)
    if len(found) == 1 and not trouble:
        trouble = 'OpenCL works but offers no device: pip install "pycl_cnn[pocl]", or apt-get install pocl-opencl-icd'
    rows = [("label", "name", "kind", "memory", "platform", "driver")]
    rows += [(d.label, d.name, d.kind, f"{d.memory / 2**30:.1f} GiB" if d.memory else "", shorten(d.platform, 44, placeholder=" ..."), d.driver) for d in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if trouble:
        print(f"no OpenCL: {trouble} (pycl-cnn doctor tells more)")
    chosen = find_device(options.device)
    print(f"{'--device ' + options.device if options.device else 'default'}: {chosen}" + (f" ({chosen.reason})" if chosen.reason else ""))
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Look for OpenCL and what is wrong with it."""
    from .doctor.report import run

    return run(options)


def check(options: argparse.Namespace) -> int:
    """Check the kernels of devices."""
    from .backends.opencl.certificate import run

    return run(options.device, options.full, options.out)


def demo(options: argparse.Namespace) -> int:
    """Run the demo."""
    from .demo import run

    return run(options.device, options.out, options.seed)


def train(options: argparse.Namespace) -> int:
    """Train a network."""
    from .cli_models import train as run

    return run(options)


def predict(options: argparse.Namespace) -> int:
    """Recognise images."""
    from .cli_models import predict as run

    return run(options)


def tune(options: argparse.Namespace) -> int:
    """Tune a device."""
    from .cli_tune import run

    return run(options)


def summary(options: argparse.Namespace) -> int:
    """Print a network's summary, and with --device its program."""
    from .cli_models import known_model

    entry = known_model(options.model)
    model, shape = entry.build(), options.input_shape or entry.input_shape
    print(model.summary(shape))
    if options.device:
        from .compiler import compile as compile_model

        print(f"\n{compile_model(model, shape, device=options.device).explain()}")
    return 0


def profile(options: argparse.Namespace) -> int:
    """Print what each step of a network takes."""
    from .cli_models import profile as run

    return run(options)
