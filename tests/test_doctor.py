"""The doctor: machines made of folders, broken drivers, and its own command in a process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pycl_cnn import doctor
from pycl_cnn.doctor import nodes, vendors
from pycl_cnn.doctor.report import as_text
from pycl_cnn.doctor.system import REMEDIES, SYSTEMS, System, identify, package_details

DEBIAN, FEDORA, MACOS, WINDOWS, PI = (System(name, title) for name, title in SYSTEMS.items())
DEVICE = {
    **{"index": 0, "name": "Wonder", "vendor": "Acme", "kind": "gpu", "version": "OpenCL 3.0", "language": "OpenCL C 1.2", "driver": "7"},
    **{"compute_units": 4, "work_group": 256, "memory": 2**31, "largest_buffer": 2**29, "local_memory": 2**15, "extensions": ["cl_khr_fp16"]},
}
PLATFORM = {"name": "Acme", "vendor": "Acme", "version": "OpenCL 3.0"}


def listing(*devices, **facts):
    return {"pyopencl": "2026.1", "loader": "/lib/libOpenCL.so.1", "platforms": [{**PLATFORM, "devices": [dict(d) for d in devices]}], **facts}


def answering(answer, tried=None, load=None):
    """A probe that says these things."""

    def asked(command, *arguments):
        if command == "list":
            return answer
        return {"error": (load or {}).get(arguments[0], "")} if command == "load" else (tried or {"error": "", "seconds": 0.1})

    return asked


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def examined(root, *arguments, environment=None, system=DEBIAN, **others):
    return doctor.examine(root, environment or {}, answering(*arguments), system=system, **others)


def test_a_healthy_machine(tmp_path):
    found = examined(tmp_path, listing(DEVICE))
    assert found.usable and not found.problems
    text = as_text(found)
    for said in ("opencl:0 Wonder", "OpenCL C 1.2", "cl_khr_fp16", "memory 2.0 GiB", "usable OpenCL devices: opencl:0", "/lib/libOpenCL.so.1"):
        assert said in text


def test_no_opencl_at_all(tmp_path):
    """The remedy for each system is there, and the CPU backend is pointed out."""
    for system in (DEBIAN, FEDORA, MACOS, WINDOWS, PI):
        found = examined(tmp_path, {"error": "clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR", "stage": "platforms", "pyopencl": "2026.1"}, system=system)
        assert not found.usable and found.problems[0].remedies[SYSTEMS[system.name]]
        assert 'device="cpu"' in as_text(found)
    everywhere = examined(tmp_path, listing(), system=System("", "Plan 9")).problems[-1].remedies
    assert set(everywhere) == set(SYSTEMS.values())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"stage": "missing", "error": "No module named 'pyopencl'"}, "pip install pyopencl"),
        ({"stage": "import", "error": "ImportError: libOpenCL.so.1: cannot open"}, "--force-reinstall"),
        ({"error": "crashes the process (signal 11)"}, "crashes the process"),
        ({"error": "hangs: no answer in 60 s"}, "hangs"),
    ],
)
def test_pyopencl_missing_broken_or_deadly(tmp_path, answer, said):
    found = examined(tmp_path, answer)
    assert not found.usable and said in as_text(found)


def test_a_device_that_lists_but_fails(tmp_path):
    found = examined(tmp_path, listing(DEVICE), {"error": "crashes the process (signal 6)"})
    assert not found.usable and "opencl:0 (Wonder) does not run a kernel: crashes" in as_text(found)


COMPLAINTS = {
    "dangling": ("/opt/acme/libacme.so", "/opt/acme/libacme.so: cannot open shared object file: No such file or directory", "is not there", "sudo rm"),
    "dangling name": ("libacme.so.1", "libacme.so.1: cannot open shared object file: No such file or directory", "is not there", "dpkg -S"),
    "need": ("libacme.so.1", "libhwloc.so.15: cannot open shared object file: No such file or directory", "needs libhwloc.so.15", "install libhwloc15"),
    "odd need": ("libacme.so.1", "libodd.so.3: cannot open shared object file: No such file or directory", "needs libodd.so.3", "apt-file search libodd.so.3"),
    "mac need": ("libacme.dylib", "dlopen(libacme.dylib, 6): Library not loaded: @rpath/libodd.dylib", "needs @rpath/libodd.dylib", "libodd"),
    "version": ("libacme.so.1", "/lib/libc.so.6: version `GLIBC_2.99' not found", "GLIBC_2.99", "--reinstall"),
    "symbol": ("libacme.so.1", "libacme.so.1: undefined symbol: clFoo", "undefined symbol: clFoo", "--reinstall"),
    "class": ("libacme.so.1", "libacme.so.1: wrong ELF class: ELFCLASS32", "ELFCLASS32", "--reinstall"),
}


@pytest.mark.parametrize("case", COMPLAINTS)
def test_libraries_that_do_not_load(tmp_path, case):
    library, complaint, said, command = COMPLAINTS[case]
    icd = write(tmp_path / "etc/OpenCL/vendors/acme.icd", f"{library}\n")
    found = examined(tmp_path, listing(DEVICE), None, {library: complaint})
    (problem,) = found.problems
    assert str(icd) in problem.text and said in problem.text and command in problem.remedies["Debian/Ubuntu"]


def test_a_library_that_lies_elsewhere_is_found(tmp_path):
    """As with Intel's wheel, whose .icd names a folder that does not exist."""
    there = write(tmp_path / "usr/lib/libacme.so", "")
    complaint = "/wrong/libacme.so: cannot open shared object file: No such file or directory"
    vendor = vendors.judge("/x/acme.icd", "/wrong/libacme.so", complaint, FEDORA, tmp_path)
    assert f"echo {there}" in vendor.remedies["Fedora"]
    need = write(tmp_path / "usr/lib/libneed.so.1", "")
    vendor = vendors.judge("/x/acme.icd", "/opt/libacme.so", "libneed.so.1: cannot open shared object file: No such file", FEDORA, tmp_path)
    assert f"LD_LIBRARY_PATH={need.parent}" in vendor.remedies["Fedora"] and vendor.need == "libneed.so.1"


def test_an_empty_file_and_a_folder_that_is_not_there(tmp_path):
    icd = write(tmp_path / "vendors/empty.icd", "\n")
    found = examined(tmp_path, listing(DEVICE), environment={"OCL_ICD_VENDORS": str(icd.parent)})
    assert "names no library" in found.problems[0].text
    found = examined(tmp_path, listing(DEVICE), environment={"OCL_ICD_VENDORS": str(tmp_path / "nowhere")})
    assert found.problems[0].remedies == {"Debian/Ubuntu": "unset OCL_ICD_VENDORS"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared libraries are made in Linux' way")
@pytest.mark.skipif(not (shutil.which("gcc")), reason="there is no gcc to make a library with a missing need")
def test_a_real_library_with_a_missing_need(tmp_path):
    def build(name, source, *more):
        code = write(tmp_path / f"{name}.c", source)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / f"lib{name}.so", code, *more], check=True, capture_output=True)

    build("need", "int need(void) { return 1; }", "-Wl,-soname,libneed.so")
    build("driver", "int need(void); int driver(void) { return need(); }", f"-L{tmp_path}", "-lneed")
    (tmp_path / "libneed.so").unlink()
    icd = write(tmp_path / "vendors/driver.icd", str(tmp_path / "libdriver.so"))
    vendor = vendors.examine(icd, lambda library: doctor.ask("load", library)["error"], DEBIAN)
    assert vendor.need == "libneed.so" and "apt-file search libneed.so" in vendor.remedies["Debian/Ubuntu"]
    deadly = "#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }"
    build("deadly", deadly)
    assert "crashes the process (signal 6)" in doctor.ask("load", str(tmp_path / "libdeadly.so"))["error"]
    build("slow", "#include <unistd.h>\n__attribute__((constructor)) static void wait(void) { sleep(60); }")
    assert "hangs" in doctor.ask("load", str(tmp_path / "libslow.so"), seconds=2)["error"]


@pytest.mark.skipif(os.name == "nt", reason="groups of files are POSIX'")
def test_device_nodes_without_permission(tmp_path, monkeypatch):
    for name in ("dri/renderD128", "kfd", "nvidia0", "mali0"):
        write(tmp_path / "dev" / name, "")
    groups = {"renderD128": "render", "kfd": "render", "nvidia0": "root", "mali0": "video"}
    monkeypatch.setattr(nodes, "group_of", lambda path: groups[path.name])
    found = examined(tmp_path, listing(DEVICE), access=lambda path, mode: path.name == "kfd")
    assert {node.path for node in found.nodes if node.usable} == {"/dev/kfd"}
    commands = {problem.text.split()[0]: problem.remedies["Debian/Ubuntu"] for problem in found.problems}
    assert "usermod -aG render" in commands["/dev/dri/renderD128"] and "usermod -aG video" in commands["/dev/mali0"]
    assert "setfacl" in commands["/dev/nvidia0"] and "no permission" in as_text(found)


def test_hardware_without_a_driver_and_rusticl_that_waits(tmp_path):
    write(tmp_path / "sys/class/drm/card0/device/vendor", "0x1002\n")
    rusticl = {**PLATFORM, "name": "rusticl", "devices": []}
    found = examined(tmp_path, listing({**DEVICE, "kind": "cpu"}, platforms=[rusticl, {**PLATFORM, "devices": [{**DEVICE, "kind": "cpu"}]}]))
    hardware, waiting = found.problems
    assert "AMD" in hardware.text and "mesa-opencl-icd" in hardware.remedies["Debian/Ubuntu"]
    assert waiting.remedies["Debian/Ubuntu"] == "export RUSTICL_ENABLE=radeonsi" and not waiting.note
    assert not examined(tmp_path, listing(DEVICE)).problems


@pytest.mark.parametrize(
    ("files", "kind", "name"),
    [
        ({"etc/os-release": 'ID=debian\nPRETTY_NAME="Debian 12"'}, "linux", "debian"),
        ({"etc/os-release": "ID=mint\nID_LIKE='ubuntu debian'"}, "linux", "debian"),
        ({"etc/os-release": "ID=debian", "proc/device-tree/model": "Raspberry Pi 5 Model B\0"}, "linux", "raspberrypi"),
        ({"etc/os-release": "ID=debian", "etc/rpi-issue": ""}, "linux", "raspberrypi"),
        ({"etc/os-release": "ID=rocky\nID_LIKE='rhel centos fedora'"}, "linux", "fedora"),
        ({}, "darwin", "macos"),
        ({}, "win32", "windows"),
        ({}, "linux", ""),
    ],
)
def test_systems(tmp_path, files, kind, name):
    for path, text in files.items():
        write(tmp_path / path, text)
    assert identify(tmp_path, kind).name == name


def test_every_trouble_has_a_command_on_every_system():
    details = dict.fromkeys(("icd", "library", "elsewhere", "folder", "need", "stem", "debian", "fedora", "group", "node", "driver", "variable"), "X")
    for trouble in REMEDIES:
        for system in (DEBIAN, FEDORA, MACOS, WINDOWS, PI):
            assert system.remedies(trouble, **details)[SYSTEMS[system.name]], (trouble, system)
    assert package_details("libhwloc.so.15")["debian"] == "libhwloc15" and package_details("libodd.so") is None


def run_doctor(*arguments, **variables):
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.run([sys.executable, "-m", "pycl_cnn", "doctor", *arguments], env=environment, capture_output=True, text=True, timeout=300)


def test_the_command_with_a_broken_folder_of_drivers(tmp_path):
    """Whatever else this machine has, the broken file is named and nothing crashes; the status says whether a device works."""
    write(tmp_path / "broken.icd", "/nowhere/libbroken.so")
    done = run_doctor("--json", OCL_ICD_VENDORS=tmp_path)
    facts = json.loads(done.stdout)
    assert not done.stderr and done.returncode == (0 if facts["usable"] else 1)
    assert any("/nowhere/libbroken.so" in problem["text"] and problem["remedies"] for problem in facts["problems"])
    assert facts["variables"]["OCL_ICD_VENDORS"] == str(tmp_path)


def test_the_command_without_pyopencl(tmp_path):
    """A module of that name that fails stands in for a missing one."""
    write(tmp_path / "pyopencl.py", "raise ModuleNotFoundError(\"No module named 'pyopencl'\", name='pyopencl')")
    done = run_doctor(PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    assert done.returncode == 1 and "pyopencl is not installed" in done.stdout and not done.stderr


def test_the_probe_sees_what_pycl_cnn_sees():
    import pycl_cnn as pc

    listed = [device for platform in doctor.ask("list").get("platforms", []) for device in platform["devices"]]
    assert [device["name"] for device in listed] == [device.name for device in pc.devices() if device.backend == "opencl"]
    assert Path(doctor.__file__).with_name("probe.py").is_file()
