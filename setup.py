"""Builds the Cython extension of the CPU backend and says where the packages are; the rest is in pyproject.toml.

The C kernels (src/kernels.c, which includes all of them) are compiled once per instruction set with that set's flags and
are linked into the one extension, which picks a set at run time. OpenMP is used when it compiles and links here.
"""
import os
import platform
import sys
import tempfile

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# Flags by architecture and instruction set; src/registry.c lists the same names.
INSTRUCTION_SETS = {
    "x86_64": {
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mprfchw", "-mprefer-vector-width=512"],
        "avx2": ["-mavx2", "-mfma", "-mprfchw"],
        "sse2": [],
    },
    "aarch64": {"neon": []},
    "other": {"generic": []},
}
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# FP contraction (a*b+c as one fused operation) is on; nothing else of -ffast-math is.
FLAGS = ["-std=gnu11", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
# PYCL_CNN_SANITIZE=1 builds for the sanitizers: every access and every integer operation of the C code is checked; the first error ends the process.
if os.environ.get("PYCL_CNN_SANITIZE"):
    FLAGS += ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
OPENMP_CANDIDATES = [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]

# One architecture per build: the flags above belong to one. A universal Python on macOS would ask for two.
if sys.platform == "darwin":
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")


def instruction_sets():
    architecture = ARCHITECTURES.get(platform.machine().lower(), "other")
    if sys.maxsize < 2**32:
        architecture = "other"
    return INSTRUCTION_SETS[architecture]


class BuildKernels(build_ext):
    def build_extension(self, extension):
        if self.compiler.compiler_type == "msvc" and "clang" not in os.path.basename(getattr(self.compiler, "cc", "") or ""):
            raise SystemExit(
                "pycl_cnn: the CPU kernels use the vector extension of GCC and clang, which MSVC (cl.exe) does not have. "
                "Build with clang-cl, the compiler for Windows that comes with LLVM and with Visual Studio's C++ Clang tools."
            )
        compile_flags, link_flags = self.openmp_flags()
        extension.extra_compile_args = FLAGS + compile_flags
        extension.extra_link_args = list(link_flags)
        extension.extra_objects = [self.compile_kernels(name, flags) for name, flags in instruction_sets().items()]
        super().build_extension(extension)

    def compile_kernels(self, name, flags):
        """src/kernels.c for one instruction set; the path of its object file."""
        objects = self.compiler.compile(
            ["src/kernels.c"],
            output_dir=os.path.join(self.build_temp, name),
            macros=[("ISA", name)],
            include_dirs=["src"],
            extra_postargs=FLAGS + flags,
            depends=EXTENSION.depends,
        )
        return objects[0]

    def openmp_flags(self):
        """Compile and link flags with which OpenMP works here; none if nothing does, and programs run on one thread."""
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n")
            for compile_flags, link_flags in OPENMP_CANDIDATES:
                try:
                    objects = self.compiler.compile([source], output_dir=folder, extra_postargs=compile_flags)
                    self.compiler.link_shared_object(objects, os.path.join(folder, "probe.so"), extra_postargs=link_flags)
                    return compile_flags, link_flags
                except Exception:  # each compiler class has its own errors; all of them mean: not this way
                    continue
        print("pycl_cnn: OpenMP is not available, programs will run on one thread", file=sys.stderr)
        return [], []


EXTENSION = Extension(
    "pycl_cnn.backends.cpu._kernels",
    sources=["src/_kernels.pyx", "src/registry.c", "src/program.c"],
    include_dirs=["src"],
    depends=[os.path.join("src", name) for name in sorted(os.listdir("src")) if name.endswith((".c", ".h", ".pxi"))],
)

setup(
    packages=find_packages(include=["pycl_cnn", "pycl_cnn.*"]) + ["pycl_cnn.kernels_cl"],
    package_dir={"pycl_cnn": "pycl_cnn", "pycl_cnn.kernels_cl": "kernels_cl"},
    package_data={"pycl_cnn": ["py.typed", "backends/cpu/_kernels.pyi", "tuning/defaults/*.json"], "pycl_cnn.kernels_cl": ["*.cl"]},
    ext_modules=[EXTENSION],
    cmdclass={"build_ext": BuildKernels},
)
