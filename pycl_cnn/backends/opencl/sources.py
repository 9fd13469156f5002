"""The kernels' source files and what they say about themselves.

Kernels are real files in kernels_cl/; a line `#include "name.cl"` in one of them is replaced by that file here, because an
installed package need not be a folder that an OpenCL compiler could search.
"""

from __future__ import annotations

import functools
import importlib.resources
import pathlib
import re

from ...records import record

_INCLUDE = re.compile(r'^#include "(\w+)\.cl"$', re.MULTILINE)
_ENTRY = re.compile(r"__kernel\s+(?:__attribute__\(\(\w+\([^)]*\)\)\)\s+)?void\s+(\w+)\s*\(([^)]*)\)")
_COMMENT = re.compile(r"//[^\n]*")


@record
class Parameter:
    """One parameter of a kernel: `type` is "buffer", "int" or "float"."""

    name: str
    type: str


def _kernel_file(stem):
    try:
        return importlib.resources.files("pycl_cnn.kernels_cl") / f"{stem}.cl"
    except ModuleNotFoundError:    # a source tree that was built in place, not installed
        return pathlib.Path(__file__).resolve().parents[3] / "kernels_cl" / f"{stem}.cl"


def _expand(stem, seen):
    if stem in seen:
        return ""
    seen.add(stem)
    text = _kernel_file(stem).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda include: _expand(include.group(1), seen), text)


@functools.cache
def source_text(stem):
    """The text of kernels_cl/<stem>.cl, every included file in its place once."""
    return _expand(stem, set())


@functools.cache
def signatures(stem):
    """{kernel name: tuple of Parameter} of kernels_cl/<stem>.cl."""
    found = {}
    for name, parameters in _ENTRY.findall(_COMMENT.sub("", source_text(stem))):
        found[name] = tuple(
            Parameter(words[-1].lstrip("*"), "buffer" if "*" in parameter else words[-2])
            for parameter in parameters.split(",")
            for words in [parameter.split()]
        )
    return found


def build_options(defines):
    """The compiler's options for -D parameters."""
    header = ("-D_OPENCL_H_",) if defines.get("DECLARE_BUILTINS") else ()  # as if it had been read
    return ("-cl-std=CL1.2", *header, *(f"-D{name}={value}" for name, value in sorted(defines.items())))
