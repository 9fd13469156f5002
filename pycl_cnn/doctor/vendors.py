"""The vendors' drivers: what the loader's .icd files name, whether it loads, and which of its needs is missing where it does not."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ..records import record
from .system import System, package_details, stem_of

LIBRARY_FOLDERS = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")
REGISTRY = r"SOFTWARE\Khronos\OpenCL\Vendors"


@record
class Vendor:
    """A file (or registry entry) that names a driver's library. `error` is what is wrong with it, "" where it loads."""

    icd: str
    library: str
    error: str = ""
    need: str = ""  # the library that it needs and that is missing
    remedies: Mapping[str, str] | None = None


def folders(root: Path, environment: Mapping[str, str], pyopencl: Path | None) -> list[Path]:
    """Where loaders look for .icd files: OCL_ICD_VENDORS or OPENCL_VENDOR_PATH or the system's folder, and pyopencl's own."""
    named = environment.get("OCL_ICD_VENDORS") or environment.get("OPENCL_VENDOR_PATH")
    found = [Path(named)] if named else [root / "etc/OpenCL/vendors"]
    return [*found, *([pyopencl / ".libs"] if pyopencl and (pyopencl / ".libs").is_dir() else [])]


def icd_files(places: list[Path]) -> list[Path]:
    """The .icd files of folders; a place may be such a file itself."""
    found: list[Path] = []
    for place in places:
        found += sorted(place.glob("*.icd")) if place.is_dir() else [place] if place.is_file() else []
    return found


def registered() -> list[str]:
    """The libraries in Windows' registry, none elsewhere."""
    if sys.platform != "win32":
        return []
    import winreg

    libraries = []
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, REGISTRY) as key:
            for number in range(winreg.QueryInfoKey(key)[1]):
                libraries.append(winreg.EnumValue(key, number)[0])
    except OSError:
        return []
    return libraries


def examine(icd: Path, load: Callable[[str], str], system: System, root: Path = Path("/")) -> Vendor:
    """What an .icd file names; `load` gives the dynamic linker's complaint about a library, or ""."""
    try:
        lines = [line.strip() for line in icd.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        return Vendor(str(icd), "", f"cannot be read ({error.strerror})", remedies=system.remedies("no group", node=str(icd)))
    library = next((line for line in lines if line), "")
    if not library:
        return Vendor(str(icd), "", "names no library", remedies=system.remedies("empty file", icd=str(icd)))
    beside = icd.parent / library  # pyopencl's wheel names a file beside the .icd
    target = str(beside) if not os.path.isabs(library) and beside.is_file() else library
    return judge(str(icd), target, load(target), system, root)


def judge(icd: str, library: str, complaint: str, system: System, root: Path = Path("/")) -> Vendor:
    """The verdict on a library that the dynamic linker said `complaint` about."""
    if not complaint:
        return Vendor(icd, library)
    missing = missing_library(complaint)
    if missing and os.path.basename(missing) != os.path.basename(library):
        details = package_details(missing)
        near = _elsewhere(missing, [Path(library).parent] if os.path.isabs(library) else [], root)
        if near is not None:
            remedies = system.remedies("need elsewhere", folder=str(near.parent))
        elif details:
            remedies = system.remedies("missing need", **details)
        else:
            remedies = system.remedies("unknown need", need=missing, stem=stem_of(missing))
        return Vendor(icd, library, f"does not load: it needs {missing}, which is missing", missing, remedies)
    if missing:
        near = _elsewhere(library, [], root)
        if near is not None and os.path.isabs(library):
            error = f"names {library}, which is not there; {near} is"
            return Vendor(icd, library, error, remedies=system.remedies("library elsewhere", elsewhere=str(near), icd=icd))
        return Vendor(icd, library, f"names {library}, which is not there", remedies=system.remedies("no such library", icd=icd, library=library))
    return Vendor(icd, library, f"does not load: {complaint[:300]}", remedies=system.remedies("does not load", icd=icd, library=library))


def missing_library(complaint: str) -> str:
    """The library that the dynamic linker did not find, "" where it complains about something else."""
    for pattern in (
        r"^([^:]+): cannot open shared object file: No such file",  # Linux
        r"Library not loaded: (\S+)",  # macOS, a need
        r"dlopen\(([^,]+),.*no such file",  # macOS, the library
        r"Could not find module '([^']+)'",  # Windows, which does not tell a need from the library
    ):
        found = re.search(pattern, complaint)
        if found:
            return found.group(1).strip()
    return ""


def _elsewhere(library: str, folders: list[Path], root: Path) -> Path | None:
    """A file of that name in `folders`, this Python's environment, or the system's folders."""
    places = [*folders, Path(sys.prefix) / "lib", *(root / folder for folder in LIBRARY_FOLDERS)]
    return next((place / Path(library).name for place in places if (place / Path(library).name).is_file()), None)
