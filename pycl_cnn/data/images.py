"""Images as a network's input: IDX files, NumPy arrays, photographs and drawings (with Pillow, which is an extra)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, PyclError
from .idx import GZIP_MAGIC, read_idx
from .mnist import normalise

#: Mean and standard deviation, by channel, that torchvision's networks expect.
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

NUMPY_MAGIC = b"\x93NUMPY"


def read_images(path: str | os.PathLike[str], shape: tuple[int, int, int], invert: bool = False) -> np.ndarray:
    """What the file `path` holds as float32 [n,c,h,w] for a network whose input is `shape` [c,h,w].

    IDX files (of bytes, [n,h,w], gzipped or not) and .npy files of bytes are normalised as by `load_mnist`; .npy files of floats
    ([n,c,h,w], [n,h,w] or [c,h,w]) are taken as they are. Other files are read by Pillow as one image: cut to the network's
    proportions, resized, in grey or colour as the network has one channel or three, and normalised with MNIST's or ImageNet's mean
    and deviation. `invert` turns dark on white into light on black, as MNIST is.
    Raises FormatError, FileNotFoundError; PyclError where Pillow is not installed.
    """
    with open(path, "rb") as file:
        start = file.read(6)
    if start == NUMPY_MAGIC:
        return _from_numpy(path, shape, invert)
    if start[:2] in (b"\0\0", GZIP_MAGIC):
        pixels = read_idx(path)
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise FormatError(f"read_images: {os.fspath(path)} must hold images of bytes [n,h,w]; it holds {pixels.dtype} {list(pixels.shape)}")
        return normalise(255 - pixels if invert else pixels)
    return _from_picture(path, shape, invert)


def _from_numpy(path: Any, shape: tuple[int, int, int], invert: bool) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"read_images: {os.fspath(path)} is no array of numbers that NumPy can read ({error})") from error
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4):
        raise FormatError(f"read_images: {os.fspath(path)} must hold numbers [n,c,h,w], [n,h,w] or [c,h,w]; it holds {array.dtype} {list(array.shape)}")
    if array.ndim < 4:
        array = array[None] if array.shape == shape else array.reshape(-1, 1, *array.shape[-2:])
    if array.dtype != np.uint8:
        return array.astype(np.float32)
    if array.shape[1] == 3:
        return _normalise_colours(array)
    return normalise((255 - array if invert else array).reshape(-1, *array.shape[-2:]))


def _normalise_colours(pixels: np.ndarray) -> np.ndarray:
    """Bytes [n,3,h,w] as torchvision's networks expect them."""
    return (pixels.astype(np.float32) / 255 - IMAGENET_MEAN[:, None, None]) / IMAGENET_STD[:, None, None]


def read_photograph(path: str | os.PathLike[str], height: int, width: int, short_side: int, grey: bool = False) -> np.ndarray:
    """The middle of a photograph as bytes [height,width,3], or [height,width,1] in grey.

    It is turned as the camera says, and resized so that its shorter side is `short_side` long, or as much longer as the cut needs.
    Raises FormatError, FileNotFoundError; PyclError where Pillow is not installed.
    """
    image = _decoded("read_photograph", path, "L" if grey else "RGB")
    from PIL import Image

    factor = max(short_side / min(image.size), width / image.width, height / image.height)
    size = max(round(image.width * factor), width), max(round(image.height * factor), height)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height)))
    return pixels[..., None] if grey else pixels


def _decoded(operation: str, path: Any, mode: str) -> Any:
    """The picture in the file, upright, in Pillow's `mode`."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise PyclError(f'{operation}: reading {os.fspath(path)} needs Pillow, which is not installed: pip install "pycl_cnn[images]"') from error
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert(mode)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(f"{operation}: {os.fspath(path)} is no image that Pillow can read ({error})") from error


def _from_picture(path: Any, shape: tuple[int, int, int], invert: bool) -> np.ndarray:
    channels, height, width = shape
    if channels not in (1, 3):
        raise FormatError(f"read_images: {Path(path).name} has 1 or 3 channels, the network needs {channels}; give a .npy file")
    image = _decoded("read_images", path, "L" if channels == 1 else "RGB")
    from PIL import Image, ImageOps

    pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR))
    if channels == 1:
        return normalise((255 - pixels if invert else pixels)[None])
    return _normalise_colours(np.moveaxis(255 - pixels if invert else pixels, -1, 0)[None])
