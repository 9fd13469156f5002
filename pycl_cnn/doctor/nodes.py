"""The device nodes of Linux' graphics and compute drivers, and which graphics hardware there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..records import record
from .system import GRAPHICS, System

PATTERNS = ("dev/dri/renderD*", "dev/kfd", "dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvidia-uvm", "dev/mali*", "dev/kgsl-3d0")


@record
class Node:
    """A device node, and whether this user may read and write it."""

    path: str
    usable: bool
    group: str = ""
    remedies: Mapping[str, str] | None = None


def examine(root: Path, system: System, access: Callable[..., bool] = os.access) -> list[Node]:
    """The nodes below `root`."""
    found = []
    for path in sorted(path for pattern in PATTERNS for path in root.glob(pattern)):
        shown = f"/{path.relative_to(root)}"
        if access(path, os.R_OK | os.W_OK):
            found.append(Node(shown, True))
            continue
        group = group_of(path)
        remedies = system.remedies("no permission", group=group) if group not in ("", "root") else system.remedies("no group", node=shown)
        found.append(Node(shown, False, group, remedies))
    return found


def group_of(path: Path) -> str:
    """The name of a file's group, "" where it has none."""
    try:
        import grp

        return grp.getgrgid(path.stat().st_gid).gr_name
    except (ImportError, KeyError, OSError):
        return ""


def graphics(root: Path) -> list[str]:
    """PCI vendors (keys of GRAPHICS) of the graphics hardware that Linux knows."""
    found = []
    for path in sorted(root.glob("sys/class/drm/card*/device/vendor")):
        try:
            vendor = path.read_text(encoding="ascii").strip().lower()
        except (OSError, UnicodeDecodeError):
            continue
        if vendor in GRAPHICS and vendor not in found:
            found.append(vendor)
    return found
