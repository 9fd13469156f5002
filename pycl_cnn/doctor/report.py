"""A diagnosis as text, and the command ``pycl-cnn doctor``."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

from . import Diagnosis, examine

LINE = 116


def as_text(found: Diagnosis) -> str:
    """What was found, then what is broken and what mends it, then the verdict."""
    from .. import __version__

    lines = [
        f"pycl_cnn {__version__}, Python {platform.python_version()}, {found.system.title}, {platform.machine()}",
        f"pyopencl {found.pyopencl or '-'}, loader {found.loader or '-'}",
        *(f"{name}={value}" for name, value in found.variables.items()),
    ]
    lines += ["", "vendor files" + ("" if found.vendors else ": none")]
    lines += [f"  {vendor.icd}: {vendor.error or f'{vendor.library} loads'}" for vendor in found.vendors]
    lines += ["", "platforms" + ("" if found.platforms else ": none")]
    for facts in found.platforms:
        lines.append(f"  {facts['name']} ({facts['vendor']}), {facts['version']}" + ("" if facts["devices"] else ": no device"))
        for device in facts["devices"]:
            lines += _device(device)
    if found.nodes:
        lines += ["", "device nodes", *(f"  {node.path}: {'may be used' if node.usable else 'no permission'}" for node in found.nodes)]
    for number, problem in enumerate(found.problems, 1):
        lines += [""] if number == 1 else []
        lines.append(f"{'note' if problem.note else 'problem'} {number}: {problem.text}")
        for system, command in problem.remedies.items():
            lines.append(f"  mend{f' ({system})' if len(problem.remedies) > 1 else ''}: {command}")
    usable = [f"opencl:{device['index']}" for device in found.devices if not device["error"]]
    lines += ["", f"usable OpenCL devices: {', '.join(usable) or 'none'}" + ("" if usable else '; device="cpu" works without OpenCL')]
    return "\n".join(lines)


def _device(device: dict[str, Any]) -> list[str]:
    verdict = device["error"] or f"builds and runs a kernel ({device['seconds']:.2f} s)"
    sizes = f"memory {device['memory'] / 2**30:.1f} GiB, largest buffer {device['largest_buffer'] / 2**30:.1f} GiB, local {device['local_memory'] // 1024} KiB"
    return [
        f"    opencl:{device['index']} {device['name']}: {verdict}",
        f"      {device['kind']}, {device['version']}, {device['language']}, driver {device['driver']}",
        f"      {device['compute_units']} compute units, work-group {device['work_group']}, {sizes}",
        *_wrapped("      ", device["extensions"]),
    ]


def _wrapped(indent: str, words: list[str]) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(words), LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def run(options: argparse.Namespace) -> int:
    """``pycl-cnn doctor``: 0 if an OpenCL device is usable, else 1."""
    found = examine()
    print(json.dumps(found.as_dict(), indent=1) if options.json else as_text(found))
    return 0 if found.usable else 1
