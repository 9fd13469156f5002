"""Which OpenCL implementation a process sees: a folder with the one .icd file of it, named by OCL_ICD_VENDORS."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Runtime:
    """An OpenCL implementation, and how to tell it by what its devices say."""

    name: str
    title: str
    platform: str
    driver: str  # how its devices' driver version begins
    pattern: str  # of its library; relative to a Python environment, or of an .icd file that names it
    install: str

    def matches(self, platform: str, driver: str) -> bool:
        return self.platform.lower() in platform.lower() and driver.startswith(self.driver)

    def library(self, prefix: Path) -> Path | None:
        """Its library: in the environment `prefix`, in a folder of LD_LIBRARY_PATH, or where the system's .icd file says; None where it is not installed."""
        if self.pattern.endswith(".icd"):
            icd = Path(self.pattern)
            return Path(icd.read_text().strip()) if icd.exists() else None
        folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
        found = [*sorted(prefix.glob(self.pattern)), *(path for folder in folders for path in sorted(Path(folder).glob(Path(self.pattern).name)))]
        return found[0] if found else None

    def environment(self, prefix: Path, folder: Path) -> dict[str, str]:
        """Variables with which a process sees this implementation first, or only. Raises FileNotFoundError with what to install."""
        library = self.library(prefix)
        if library is None:
            raise FileNotFoundError(f"{self.title} is not installed ({self.install})")
        vendors = folder / f"vendors-{self.name}"
        vendors.mkdir(parents=True, exist_ok=True)
        (vendors / f"{self.name}.icd").write_text(f"{library}\n")
        variables = {"OCL_ICD_VENDORS": str(vendors)}
        if library.is_absolute() and library.is_relative_to(prefix):
            variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(library.parent), os.environ.get("LD_LIBRARY_PATH"))))
        return variables


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "pocl-3.0",
            "PoCL 3.0",
            "Portable Computing Language",
            "3.0",
            "lib/python*/site-packages/pyopencl/.libs/libpocl-*.so",
            "pip install pyopencl[pocl]",
        ),
        Runtime(
            "pocl-3.1", "PoCL 3.1", "Portable Computing Language", "3.1", "/etc/OpenCL/vendors/pocl.icd", "apt-get install pocl-opencl-icd"
        ),
        Runtime("intel", "Intel's CPU runtime", "Intel", "", "lib/libintelocl.so*", "pip install intel-opencl-rt intel-cmplr-lib-rt"),
    )
}
