"""What OpenCL this machine has, what is broken about it, and the command that mends it. Works without any OpenCL, and never crashes.

Drivers are loaded and asked by `probe.py` in processes of their own, because broken ones crash or hang.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..records import record
from . import nodes, vendors
from .system import GRAPHICS, System, identify

SECONDS = 60
_PROBE = Path(__file__).with_name("probe.py")


@record
class Problem:
    """Something that is broken, and for each system the command that mends it; a `note` is worth knowing and may stay so."""

    text: str
    remedies: Mapping[str, str]
    note: bool = False


@dataclass
class Diagnosis:
    """All that was found; `as_dict` is what a bug report needs."""

    system: System
    pyopencl: str = ""
    loader: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    vendors: list[vendors.Vendor] = field(default_factory=list)
    platforms: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[nodes.Node] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The OpenCL devices of all platforms; "error" says what is wrong with one."""
        return [device for platform in self.platforms for device in platform["devices"]]

    @property
    def usable(self) -> bool:
        """Whether there is an OpenCL device that builds and runs a kernel."""
        return any(not device["error"] for device in self.devices)

    def as_dict(self) -> dict[str, Any]:
        from .. import __version__

        facts = {"pycl_cnn": __version__, "python": platform.python_version(), "machine": platform.machine(), "usable": self.usable}
        return {**facts, **asdict(self)}


def ask(*arguments: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The answer of probe.py, or {"error": ...} where it died or hung."""
    try:
        done = subprocess.run([sys.executable, str(_PROBE), *arguments], capture_output=True, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"hangs: no answer in {seconds:g} s"}
    except OSError as error:
        return {"error": f"the probe cannot be started: {error}"}
    for line in reversed(done.stdout.splitlines()):  # libraries may print as well
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    signal = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    last = done.stderr.strip().splitlines()[-1:] or [""]
    return {"error": f"crashes the process ({signal}){': ' * bool(last[0])}{last[0][:300]}"}


def examine(
    root: Path = Path("/"),
    environment: Mapping[str, str] = os.environ,
    asked: Callable[..., dict[str, Any]] = ask,
    access: Callable[..., bool] = os.access,
    system: System | None = None,
) -> Diagnosis:
    """Look at everything. What it looks at may be given: the file system, the environment, the probe, who may access what."""
    found = Diagnosis(system or identify(root))
    found.variables = {name: environment[name] for name in sorted(environment) if name.startswith(("OCL_ICD", "OPENCL_", "OCL_", "POCL_", "RUSTICL_"))}
    with ThreadPoolExecutor(4) as pool:
        listing = pool.submit(asked, "list")
        _examine_vendors(found, root, environment, lambda library: asked("load", library)["error"], pool)
        _examine_platforms(found, listing.result(), asked, pool)
    found.nodes = nodes.examine(root, found.system, access)
    for node in found.nodes:
        if not node.usable:
            owner = f": it belongs to group {node.group}" if node.group else ""
            found.problems.append(Problem(f"{node.path} may not be read and written by you{owner}", node.remedies or {}))
    _examine_hardware(found, root, environment)
    if not found.devices and not any("pyopencl" in problem.text for problem in found.problems):
        found.problems.append(Problem("no OpenCL device: no driver offers one", found.system.remedies("no driver")))
    return found


def _examine_vendors(found: Diagnosis, root: Path, environment: Mapping[str, str], load: Callable[[str], str], pool: ThreadPoolExecutor) -> None:
    places = vendors.folders(root, environment, _pyopencl_folder())
    for variable in ("OCL_ICD_VENDORS", "OPENCL_VENDOR_PATH"):
        named = environment.get(variable)
        if named and not os.path.exists(named):
            found.problems.append(Problem(f"{variable} names {named}, which is not there", found.system.remedies("variable", variable=variable)))
    found.vendors = list(pool.map(lambda icd: vendors.examine(icd, load, found.system, root), vendors.icd_files(places)))
    for library in vendors.registered():
        found.vendors.append(vendors.judge("the registry", library, load(library), found.system, root))
    for vendor in found.vendors:
        if vendor.error:
            found.problems.append(Problem(f"{vendor.icd} {vendor.error}", vendor.remedies or {}))


def _pyopencl_folder() -> Path | None:
    """Where pyopencl is installed; it is not imported."""
    try:
        spec = importlib.util.find_spec("pyopencl")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _examine_platforms(found: Diagnosis, listing: dict[str, Any], asked: Callable[..., dict[str, Any]], pool: ThreadPoolExecutor) -> None:
    found.pyopencl, found.loader, found.platforms = listing.get("pyopencl", ""), listing.get("loader", ""), listing.get("platforms", [])
    if listing.get("error"):
        stage = listing.get("stage", "list")
        text = {
            "missing": "pyopencl is not installed",
            "import": f"pyopencl cannot be imported: {listing['error']}",
            "platforms": f"the OpenCL loader offers no platform: {listing['error']}",
            "list": f"asking the drivers for their devices fails: it {listing['error']}",
        }[stage]
        trouble = {"missing": "pyopencl missing", "import": "pyopencl broken", "platforms": "no driver", "list": "device fails"}[stage]
        found.problems.append(Problem(text, found.system.remedies(trouble)))
    for device, tried in zip(found.devices, pool.map(lambda device: asked("try", str(device["index"])), found.devices), strict=True):
        device.update(error=tried["error"], seconds=tried.get("seconds", 0.0))
        if device["error"]:
            text = f"opencl:{device['index']} ({device['name']}) does not run a kernel: {device['error']}"
            found.problems.append(Problem(text, found.system.remedies("device fails")))


def _examine_hardware(found: Diagnosis, root: Path, environment: Mapping[str, str]) -> None:
    """Graphics hardware that no platform offers, and a driver that waits to be enabled."""
    present = nodes.graphics(root)
    offered = any(device["kind"] in ("gpu", "accelerator") for device in found.devices)
    waiting = any(p["name"].lower() == "rusticl" and not p["devices"] for p in found.platforms) and not environment.get("RUSTICL_ENABLE")
    for vendor in [] if offered else present:
        name, debian, fedora, _ = GRAPHICS[vendor]
        remedies = found.system.remedies("no graphics driver", debian=debian, fedora=fedora)
        found.problems.append(Problem(f"there is graphics hardware of {name}, but no OpenCL driver offers it", remedies))
    if waiting:
        drivers = [GRAPHICS[vendor][3] for vendor in present if GRAPHICS[vendor][3]]
        remedies = found.system.remedies("not enabled", driver=",".join(drivers) or "llvmpipe")
        found.problems.append(Problem("the driver rusticl is installed and offers nothing until RUSTICL_ENABLE names its devices", remedies, note=not drivers))
