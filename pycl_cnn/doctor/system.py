"""Which system this is, and the commands that mend things on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from ..records import record

SYSTEMS = {
    "debian": "Debian/Ubuntu",
    "fedora": "Fedora",
    "macos": "macOS",
    "windows": "Windows",
    "raspberrypi": "Raspberry Pi OS",
}

#: Packages with libraries that drivers need, by the beginning of the library's name: (Debian, Fedora).
PACKAGES = {
    "libhwloc.so": ("libhwloc15", "hwloc-libs"),
    "libnuma.so": ("libnuma1", "numactl-libs"),
    "libtbb.so": ("libtbb12", "tbb"),
    "libelf.so": ("libelf1", "elfutils-libelf"),
    "libz.so": ("zlib1g", "zlib"),
    "libdrm.so": ("libdrm2", "libdrm"),
    "libstdc++.so": ("libstdc++6", "libstdc++"),
    "libze_loader.so": ("libze1", "oneapi-level-zero"),
    "libOpenCL.so": ("ocl-icd-libopencl1", "ocl-icd"),
}

#: Drivers for the graphics hardware of a PCI vendor: its name, packages on Debian and Fedora, the driver that rusticl is told to use.
GRAPHICS = {
    "0x1002": ("AMD", "mesa-opencl-icd", "rocm-opencl", "radeonsi"),
    "0x10de": ("NVIDIA", "nvidia-opencl-icd", "xorg-x11-drv-nvidia-cuda", ""),
    "0x8086": ("Intel", "intel-opencl-icd", "intel-compute-runtime", "iris"),
}

_PIP = f'"{sys.executable}" -m pip install'

#: For each trouble and system the command; {names} are filled in. Raspberry Pi OS is a Debian; "*" stands for the systems not named.
REMEDIES: dict[str, dict[str, str]] = {
    "pyopencl missing": {"*": f"{_PIP} pyopencl"},
    "pyopencl broken": {"*": f"{_PIP} --force-reinstall --no-cache-dir pyopencl"},
    "no driver": {
        "debian": "sudo apt-get install pocl-opencl-icd",
        "fedora": "sudo dnf install pocl",
        "macos": "brew install pocl",
        "windows": "winget install 9NQPSL29BFFF --source msstore",
    },
    "no graphics driver": {
        "debian": "sudo apt-get install {debian}",
        "fedora": "sudo dnf install {fedora}",
        "*": "install the graphics driver from the vendor's site",
    },
    "variable": {"windows": "set {variable}=", "*": "unset {variable}"},
    "empty file": {"*": "sudo rm {icd}"},
    "no such library": {
        "debian": 'sudo apt-get install --reinstall "$(dpkg -S {icd} | cut -d: -f1)" || sudo rm {icd}',
        "fedora": 'sudo dnf reinstall "$(rpm -qf {icd})" || sudo rm {icd}',
        "windows": 'reg delete "HKLM\\SOFTWARE\\Khronos\\OpenCL\\Vendors" /v "{library}" /f',
        "*": "rm {icd}",
    },
    "library elsewhere": {"*": "echo {elsewhere} | sudo tee {icd}"},
    "need elsewhere": {"*": "export LD_LIBRARY_PATH={folder}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"},
    "missing need": {
        "debian": "sudo apt-get install {debian}",
        "fedora": "sudo dnf install {fedora}",
        "windows": "reinstall the graphics driver, and the Visual C++ runtime: winget install Microsoft.VCRedist.2015+.x64",
        "*": "brew install {stem}",
    },
    "unknown need": {
        "debian": "sudo apt-get install apt-file && sudo apt-file update && apt-file search {need}",
        "fedora": "sudo dnf install '*/{need}'",
        "windows": "reinstall the graphics driver, and the Visual C++ runtime: winget install Microsoft.VCRedist.2015+.x64",
        "*": "brew install {stem}",
    },
    "does not load": {
        "debian": 'sudo apt-get update && sudo apt-get install --reinstall "$(dpkg -S {icd} | cut -d: -f1)"',
        "fedora": 'sudo dnf upgrade "$(rpm -qf {icd})"',
        "*": "reinstall the driver that {library} belongs to",
    },
    "no permission": {"*": 'sudo usermod -aG {group} "$USER"    # then log out and in again'},
    "no group": {"*": 'sudo setfacl -m "u:$USER:rw" {node}    # until the next start'},
    "not enabled": {"*": "export RUSTICL_ENABLE={driver}"},
    "device fails": {
        "debian": "sudo apt-get update && sudo apt-get upgrade    # a newer driver; else choose another --device",
        "fedora": "sudo dnf upgrade    # a newer driver; else choose another --device",
        "macos": "softwareupdate --install --all    # a newer driver; else choose another --device",
        "windows": "install the vendor's newest graphics driver; else choose another --device",
    },
}


@record
class System:
    """`name` is a key of SYSTEMS, or "" for one that is not known."""

    name: str
    title: str

    def remedies(self, trouble: str, **details: str) -> dict[str, str]:
        """The commands for `trouble`: this system's alone, or where the system is not known those of all."""
        table = REMEDIES[trouble]
        wanted = [self.name] if self.name else list(SYSTEMS)
        commands = {SYSTEMS[name]: table.get("debian" if name == "raspberrypi" else name, table.get("*", "")).format(**details) for name in wanted}
        return {name: command for name, command in commands.items() if command}


def package_details(need: str) -> dict[str, str] | None:
    """The packages that hold the library `need`, as details of the remedy "missing need"; None where they are not known."""
    known = next((packages for stem, packages in PACKAGES.items() if Path(need).name.startswith(stem)), None)
    return {"debian": known[0], "fedora": known[1], "stem": stem_of(need)} if known else None


def stem_of(library: str) -> str:
    """libfoo.so.1 -> foo"""
    return Path(library).name.partition(".")[0].removeprefix("lib")


def identify(root: Path = Path("/"), kind: str = sys.platform) -> System:
    """The system whose files lie below `root`; `kind` is sys.platform."""
    if kind == "darwin":
        return System("macos", f"macOS {platform.mac_ver()[0]}")
    if kind == "win32":
        return System("windows", platform.platform())
    facts = _os_release(root)
    family = f"{facts.get('ID', '')} {facts.get('ID_LIKE', '')}".split()
    title = facts.get("PRETTY_NAME") or platform.platform()
    if "raspbian" in family or ("debian" in family and _is_raspberry(root)):
        return System("raspberrypi", title)
    for name, ids in {"debian": {"debian", "ubuntu"}, "fedora": {"fedora", "rhel", "centos"}}.items():
        if ids & set(family):
            return System(name, title)
    return System("", title)


def _os_release(root: Path) -> Mapping[str, str]:
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines) if value}


def _is_raspberry(root: Path) -> bool:
    try:
        model = (root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace")
    except OSError:
        model = ""
    return "Raspberry Pi" in model or os.path.exists(root / "etc/rpi-issue")
