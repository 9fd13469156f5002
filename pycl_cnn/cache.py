"""What is remembered between sessions (measurements, verdicts about kernels): JSON files in the user's cache folder.

Losing one only means that the work is done again: a folder that cannot be written is no error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """The environment variable PYCL_CNN_CACHE, else the user's cache folder."""
    named = os.environ.get("PYCL_CNN_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pycl_cnn"


def read_cache(name: str) -> dict[str, Any]:
    """The remembered dictionary `name`; empty when there is none or it cannot be read."""
    try:
        content = json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def update_cache(name: str, entries: Mapping[str, Any]) -> None:
    """Add entries to the dictionary `name`, beside those that other processes add at the same time; None takes one out.

    It is written beside the old file and renamed, so that a reader never sees half of it.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / f"{name}.lock"):
            write_json(folder / name, {key: value for key, value in {**read_cache(name), **entries}.items() if value is not None})
    except OSError:
        return


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file beside its place and rename it. Raises OSError."""
    import tempfile  # here, for it brings in a dozen modules, and most processes only read

    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, sort_keys=True)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While inside, other processes wait. The operating system lets go of the lock of a process that dies."""
    with open(path, "a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
