"""Weights in safetensors files: named arrays behind a JSON header, no code in them (https://github.com/huggingface/safetensors).

A file is written beside its destination and then takes its place, so that the old one stays whole whatever happens. Reading checks
names, shapes and dtypes in the header before it takes any memory for arrays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np

from ..errors import FormatError
from ..nn.module import IGNORED_SUFFIX, Module

#: What `save` writes into a file's metadata.
FORMAT, VERSION = "pycl_cnn", 1

#: Suffixes of the files that torch.save writes.
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")

#: Where training scripts keep the weights among other things.
STATE_DICT_KEYS = ("state_dict", "model", "model_state_dict")

#: Bytes from which on an array is a piece of memory by itself.
SMALL = 4 << 20

#: What PyTorch's DataParallel puts before every name.
DATA_PARALLEL = "module."

#: safetensors' names of the dtypes that weights may have, and how NumPy stores them; it has no bfloat16.
STORED = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}

M = TypeVar("M", bound=Module)


def save(model: Module | Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a model's state_dict, or a mapping of names to arrays, to `path` in safetensors, as float32.

    `metadata` is kept in the file beside the format's name and version (see :func:`read_metadata`). The file appears under its
    name only when all of it is on the disk: a full disk (OSError) or a kill leaves an older file as it was (a kill also leaves a
    hidden file ending in .part, which may be removed).
    Raises DtypeError or FormatError for what is no array of real numbers.
    """
    arrays = {name: _as_float32(name, value) for name, value in (model.state_dict() if isinstance(model, Module) else model).items()}
    header = {**dict(metadata or {}), "format": FORMAT, "format_version": str(VERSION)}
    if any(not isinstance(text, str) for text in header.values()):
        raise FormatError("save: metadata must be text")
    with replacing(path) as beside:
        _write(arrays, beside, header)


def _as_float32(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise FormatError(f"save: {name} must be an array of real numbers; received dtype {array.dtype}")
    return np.asarray(array, np.float32, order="C")


def _write(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        raise OSError(f"save: cannot write {path}: {error}") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name of a file to write, which takes the place of `path` in one step when it is complete and on the disk.

    When the body raises, it is removed and `path` is as it was. A link is followed: the file that it names is replaced.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    with open(beside, "xb") as file:
        mode = os.stat(target if target.exists() else file.fileno()).st_mode  # a writer may make a file of its own, with another mode
    try:
        yield beside
        os.chmod(beside, mode & 0o777)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Let the new name survive a power cut, where the system can say so (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Misfits(NamedTuple):
    """What a file and a model do not have in common."""

    missing: tuple[str, ...]  # in the file
    unexpected: tuple[str, ...]  # in the file
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name: the file's shape, the model's


@overload
def load_weights(model: M, path: str | os.PathLike[str], strict: Literal[True] = True) -> M: ...
@overload
def load_weights(model: Module, path: str | os.PathLike[str], strict: Literal[False]) -> Misfits: ...
def load_weights(model: Module, path: str | os.PathLike[str], strict: bool = True) -> Module | Misfits:
    """Set the model's weights to those in the file `path`; the model, for chaining.

    Reads safetensors files, whoever wrote them, and where PyTorch is installed its state_dict files (.pt, .pth, .ckpt, .bin; alone or
    among other things under "state_dict", "model" or "model_state_dict"; tensors only, nothing in them is executed). float16, bfloat16
    and float64 become float32. PyTorch's num_batches_tracked is passed over, and so is the "module." that DataParallel puts before
    every name. With ``strict=False`` what is missing, unexpected or misshapen is passed over, and that is what is returned.

    Raises FormatError that lists every missing, unexpected and misshapen key and every one of a wrong dtype, or says why the file
    cannot be read; then nothing has changed. Raises FileNotFoundError.
    """
    if Path(path).suffix.lower() in TORCH_SUFFIXES:
        given = _read_torch(path)
        return _load(model, path, {name: (array.shape, array.dtype.name) for name, array in given.items()}, given.__getitem__, strict)
    with _opened(path) as file:
        _check_version(path, file.metadata() or {})
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        entries = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        return _load(model, path, entries, _arrays(path), strict)


def _load(
    model: Module, path: Any, entries: Mapping[str, tuple[tuple[int, ...], str]], read: Callable[[str], np.ndarray], strict: bool
) -> Module | Misfits:
    """Check the file's `entries` (shape and dtype by name), then read and set those that the model has."""
    prefix = DATA_PARALLEL if entries and all(name.startswith(DATA_PARALLEL) for name in entries) else ""
    given = {name[len(prefix) :]: entry for name, entry in entries.items() if name.rpartition(".")[2] != IGNORED_SUFFIX}
    own = {name: value.shape for name, value in model.named_tensors(remove_duplicate=False)}
    shared = [name for name in given if name in own]
    misfits = Misfits(
        tuple(name for name in own if name not in given),
        tuple(name for name in given if name not in own),
        {name: (given[name][0], own[name]) for name in shared if given[name][0] != own[name]},
    )
    problems = model.misfits({name: shape for name, (shape, _) in given.items()}) if strict else []
    problems += [f"dtype: {name} is {given[name][1]}, weights must be floating-point" for name in shared if given[name][1] not in (*STORED, "float32")]
    if problems:
        raise FormatError(f"load_weights: {path} does not fit {type(model).__name__}:\n  " + "\n  ".join(problems))
    model.load_state_dict({name: read(prefix + name) for name in shared if name not in misfits.misshapen}, strict)
    return model if strict else misfits


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text that `save` was given for a safetensors file, and its format. Raises FormatError, FileNotFoundError."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


def _check_version(path: Any, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        return  # another program's weights: names and shapes decide
    version = metadata.get("format_version", "")
    if not version.isdigit() or int(version) > VERSION:
        raise FormatError(f"load_weights: {path} has version {version!r} of the format; this pycl_cnn reads up to {VERSION}")


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The safetensors file, its header read and checked against the file's size. Raises FormatError, FileNotFoundError."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:  # for the usual errors of files that are absent or forbidden
        start = file.read(4)
    try:
        opened = safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        hint = f"; it looks like one of PyTorch's, whose names end in {' or '.join(TORCH_SUFFIXES[:2])}" if start == b"PK\x03\x04" else ""
        raise FormatError(f"load_weights: {path} is no complete safetensors file ({error}){hint}") from error
    with opened as file:
        yield file


def _arrays(path: Any) -> Callable[[str], np.ndarray]:
    """A function that reads an array of a checked safetensors file by name, as read-only float32, which the model takes over without a copy.

    Arrays are read, not mapped: the pages of a mapped file would count as the process's memory beside the arrays. The small ones lie
    together in one piece of memory, which the system gives in large pages: twice as fast as one by one.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    places, size = {}, 0
    for name, entry in header.items():
        if entry.get("dtype") == "F32" and (nbytes := entry["data_offsets"][1] - entry["data_offsets"][0]) < SMALL:
            places[name] = slice(size, size + nbytes)
            size += -(-nbytes // 64) * 64
    together = np.empty(size, np.uint8)
    shared = {name: together[place].view(np.float32).reshape(header[name]["shape"]) for name, place in places.items()}
    together.flags.writeable = False  # what was made from it before may still be filled

    def read(name: str) -> np.ndarray:
        entry = header[name]
        array = shared[name] if name in shared else np.empty(entry["shape"], STORED[entry["dtype"]])
        with open(path, "rb") as file:
            file.seek(8 + length + entry["data_offsets"][0])
            count = file.readinto(array.reshape(-1).view(np.uint8).data) if array.size else 0
        if count != array.nbytes:
            raise FormatError(f"load_weights: {path} ends within {name!r}: {count} of {array.nbytes} bytes")
        if entry["dtype"] == "BF16":  # the upper half of a float32
            array = np.array((array.astype(np.uint32) << 16).view(np.float32))
        array = np.asarray(array, np.float32)
        array.flags.writeable = False
        return array

    return read


def _read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a state_dict that torch.save wrote; weights as float32."""
    try:
        import torch
    except ImportError as error:
        raise FormatError(
            f"load_weights: reading {path} needs PyTorch, which is not installed; where it is, "
            'safetensors.torch.save_file(state_dict, "x.safetensors") makes a file that needs nothing'
        ) from error
    import pickle

    with open(path, "rb"):
        pass  # the usual errors of files that are absent or forbidden
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise FormatError(f"load_weights: {path} is no PyTorch file of tensors alone ({str(error).splitlines()[0]})") from error
    if isinstance(content, Mapping):
        content = next((content[key] for key in STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise FormatError(f"load_weights: {path} holds no state_dict: it must map names to tensors, or hold that under {', '.join(STATE_DICT_KEYS)}")
    return {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in content.items()}
