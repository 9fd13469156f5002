# cython: language_level=3, binding=True, embedsignature=True
"""The CPU kernels in C and the runner of programs made of them.

`Program` runs an array of kernel calls without Python; `<kernel>_params(**members)` fills a kernel's parameters by
member name, as they are documented in src/<stem>.h; the functions at the end tell what this processor offers.
"""
import os

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef extern from "kernels.h" nogil:
    ctypedef void kernel_fn(const void *params, void *const *buffers, int64_t task, void *scratch)
    struct kernel_table:
        int64_t vector_length
        int64_t tile_rows
        int64_t panel_width
        int64_t few_tiles
        kernel_fn **kernels

cdef extern from "registry.h" nogil:
    struct kernel_entry:
        const char *name
        int64_t params_bytes
        int64_t buffers
    struct isa_entry:
        const char *name
        const kernel_table *table
    const kernel_entry *kernel_entries
    const isa_entry *isa_entries
    int64_t kernel_count()
    int64_t isa_count()
    bint isa_supported(int64_t isa)

cdef extern from "program.h" nogil:
    struct step:
        kernel_fn *kernel
        const void *params
        void **buffers
        int64_t tasks
        int64_t follows
    struct unit:
        pass
    struct progress:
        pass
    struct share:
        pass
    struct program:
        int64_t step_count
        int64_t unit_count
        step *steps
        unit *units
        progress *progress
        share *shares
        int64_t *finished
        int64_t *spent
        char *scratch
        int64_t scratch_bytes
        int64_t threads
    void program_prepare(program *program)
    bint program_lock(program *program)
    void program_unlock(program *program)
    void program_run(program *program, int64_t threads)
    void program_run_profiled(program *program, int64_t threads, int64_t *nanoseconds)
    bint openmp_compiled()
    int64_t openmp_threads()
    int64_t openmp_processors()
    void *memory_allocate(int64_t bytes)
    void memory_free(void *memory)


# ---- instruction sets ------------------------------------------------------------------------------------------------

cdef int64_t selected_isa


def isa_list():
    """Names of the instruction sets that the extension has kernels for and this processor has, the best first."""
    return [isa_entries[i].name.decode() for i in range(isa_count()) if isa_supported(i)]


cdef int64_t find_isa(str name) except -1:
    for i in range(isa_count()):
        if isa_entries[i].name.decode() == name and isa_supported(i):
            return i
    raise ValueError(f"[cpu] instruction set must be one that this processor has: {', '.join(isa_list())}; got {name!r}")


def active_isa():
    """Name of the instruction set that new programs use."""
    return isa_entries[selected_isa].name.decode()


def set_isa(str name not None):
    """Selects the instruction set of programs made from now on. Raises ValueError if this processor lacks it."""
    global selected_isa
    selected_isa = find_isa(name)


def vector_length(isa=None):
    """Floats in a vector of the instruction set (default: the active one)."""
    return isa_entries[selected_isa if isa is None else find_isa(isa)].table.vector_length


def panel_width(isa=None):
    """Floats in a full panel row of igemm's weights. Panels may also be any smaller multiple of the vector length."""
    return isa_entries[selected_isa if isa is None else find_isa(isa)].table.panel_width


def tile_rows(isa=None):
    """Pixels in a full register tile of igemm."""
    return isa_entries[selected_isa if isa is None else find_isa(isa)].table.tile_rows


def few_tiles(isa=None):
    """Tiles whose filters winograd transforms in registers, at most."""
    return isa_entries[selected_isa if isa is None else find_isa(isa)].table.few_tiles


cdef dict kernel_ids = {kernel_entries[i].name.decode(): i for i in range(kernel_count())}


def kernel_id(str name not None):
    """Number of a kernel. Raises KeyError for an unknown name."""
    return kernel_ids[name]


def kernel_names():
    """Names of all kernels."""
    return list(kernel_ids)


def openmp_available():
    """Whether programs can run on several threads: the extension was compiled with OpenMP."""
    return bool(openmp_compiled())


def default_threads():
    """Threads that OpenMP would use (OMP_NUM_THREADS, or the processors of this process); 1 without OpenMP."""
    return openmp_threads()


# ---- programs --------------------------------------------------------------------------------------------------------

cdef class Program:
    """Kernel calls, ready to run.

    steps          sequence of (kernel name, params bytes, buffers, tasks); buffers holds a (base, byte offset) or, for an
                   absent optional buffer, None for each buffer of the kernel
    base_bytes     sizes of the memories that buffers lie in. Base 0 is the arena, which the program allocates; all
                   others are arrays that `bind` attaches
    scratch_bytes  scratch of a thread: the largest that any step asks for
    written        bases that steps write to: only writable arrays can be bound to them
    isa            name of an instruction set (default: the active one)
    follows        numbers of steps whose task t needs nothing of the step before but what that one's task t does: whoever
                   has taken that runs it at once. They have as many tasks as the step before

    A program serves one thread at a time; a second one gets a RuntimeError and should use a `clone`. Raises ValueError
    for steps that do not fit their kernels or bases.
    """
    cdef program program
    cdef char *params          # of all steps
    cdef void **slots          # buffer addresses of all steps
    cdef int64_t *slot_base    # base of every slot, -1 for absent buffers
    cdef int64_t *slot_offset
    cdef int64_t slot_count
    cdef int64_t base_count
    cdef Py_buffer *views      # of every bound base
    cdef char **addresses      # of every base; NULL while unbound
    cdef char *arena
    cdef readonly str isa
    cdef readonly tuple base_bytes
    cdef readonly frozenset written
    cdef tuple arguments

    def __init__(self, steps, base_bytes, scratch_bytes=0, written=(), isa=None, follows=()):
        if self.program.steps != NULL:
            raise RuntimeError("[Program] is initialised already")
        cdef int64_t isa_index = selected_isa if isa is None else find_isa(isa)
        cdef int64_t i, slot = 0, place = 0, kernel, count
        steps = tuple(steps)
        self.isa = isa_entries[isa_index].name.decode()
        self.base_bytes = tuple(base_bytes)
        self.written = frozenset(written)
        follows = frozenset(follows)
        self.arguments = (steps, self.base_bytes, scratch_bytes, self.written, self.isa, follows)
        self.base_count = len(self.base_bytes)
        if self.base_count == 0 or min(self.base_bytes) < 0:
            raise ValueError(f"[Program] base_bytes must start with the size of the arena; got {self.base_bytes}")

        for number in follows:
            if not (0 < number < len(steps) and steps[number][3] == steps[number - 1][3]):
                raise ValueError(f"[Program] a step that follows must have as many tasks as the one before; got step {number} of {len(steps)}")
        params_bytes = slots = 0
        for name, params, buffers, tasks in steps:
            if name not in kernel_ids:
                raise ValueError(f"[Program] unknown kernel {name!r}")
            kernel = kernel_ids[name]
            if len(params) != kernel_entries[kernel].params_bytes:
                raise ValueError(f"[Program] params of {name} have {kernel_entries[kernel].params_bytes} bytes; "
                                 f"got {len(params)}")
            if len(buffers) != kernel_entries[kernel].buffers:
                raise ValueError(f"[Program] {name} has {kernel_entries[kernel].buffers} buffers; got {len(buffers)}")
            if tasks < 1:
                raise ValueError(f"[Program] {name} must have at least one task; got {tasks}")
            for buffer in buffers:
                if buffer is None:
                    continue
                base, offset = buffer
                if not (0 <= base < self.base_count and 0 <= offset <= self.base_bytes[base] and offset % 4 == 0):
                    raise ValueError(f"[Program] buffers of {name} must lie in a base, at a multiple of 4 bytes; "
                                     f"got base {base}, offset {offset}")
            params_bytes += (len(params) + 7) // 8 * 8
            slots += len(buffers)

        count = len(steps)
        self.slot_count = slots
        self.program.step_count = count
        self.program.steps = <step *>calloc(count + 1, sizeof(step))
        self.program.units = <unit *>calloc(count + 1, sizeof(unit))
        self.program.progress = <progress *>memory_allocate((count + 1) * sizeof(progress))
        self.program.finished = <int64_t *>calloc(count + 1, sizeof(int64_t))
        self.program.spent = <int64_t *>calloc(count + 1, sizeof(int64_t))
        self.program.scratch_bytes = (scratch_bytes + 63) // 64 * 64
        self.params = <char *>memory_allocate(params_bytes)
        self.slots = <void **>calloc(slots + 1, sizeof(void *))
        self.slot_base = <int64_t *>calloc(slots + 1, sizeof(int64_t))
        self.slot_offset = <int64_t *>calloc(slots + 1, sizeof(int64_t))
        self.views = <Py_buffer *>calloc(self.base_count, sizeof(Py_buffer))
        self.addresses = <char **>calloc(self.base_count, sizeof(char *))
        self.arena = <char *>memory_allocate(self.base_bytes[0])
        if (not self.program.steps or not self.program.units or not self.program.spent
                or not self.program.progress or not self.program.finished or not self.params or not self.slots
                or not self.slot_base or not self.slot_offset or not self.views or not self.addresses
                or not self.arena):
            raise MemoryError(f"[Program] no memory for an arena of {self.base_bytes[0]} bytes")

        for i in range(count):
            name, params, buffers, tasks = steps[i]
            kernel = kernel_ids[name]
            self.program.steps[i].kernel = isa_entries[isa_index].table.kernels[kernel]
            self.program.steps[i].tasks = tasks
            self.program.steps[i].follows = i in follows
            self.program.steps[i].params = self.params + place
            self.program.steps[i].buffers = self.slots + slot
            memcpy(self.params + place, <const char *>(<bytes>params), len(params))
            place += (len(params) + 7) // 8 * 8
            for buffer in buffers:
                self.slot_base[slot] = -1
                if buffer is not None:
                    self.slot_base[slot], self.slot_offset[slot] = buffer
                slot += 1
        program_prepare(&self.program)
        self.reserve(1)
        self.attach(0, self.arena)

    def __dealloc__(self):
        cdef int64_t i
        if self.views != NULL:
            for i in range(self.base_count):
                PyBuffer_Release(&self.views[i])
        free(self.program.steps)
        free(self.program.units)
        free(self.program.spent)
        memory_free(self.program.progress)
        free(self.program.finished)
        memory_free(self.program.scratch)
        memory_free(self.program.shares)
        memory_free(self.params)
        free(self.slots)
        free(self.slot_base)
        free(self.slot_offset)
        free(self.views)
        free(self.addresses)
        memory_free(self.arena)

    cdef void attach(self, int64_t base, char *address) noexcept:
        cdef int64_t slot
        self.addresses[base] = address
        for slot in range(self.slot_count):
            if self.slot_base[slot] == base:
                self.slots[slot] = address + self.slot_offset[slot]

    cdef int reserve(self, int64_t threads) except -1:
        """Scratch for so many threads."""
        if threads <= self.program.threads:
            return 0
        memory_free(self.program.scratch)
        memory_free(self.program.shares)
        self.program.threads = 0
        self.program.scratch = <char *>memory_allocate(threads * self.program.scratch_bytes)
        self.program.shares = <share *>memory_allocate(threads * self.program.step_count * sizeof(share))
        if self.program.scratch == NULL or self.program.shares == NULL:
            raise MemoryError(f"[Program] no memory for the scratch of {threads} threads")
        self.program.threads = threads
        return 0

    cdef int lock(self, str action) except -1:
        if not program_lock(&self.program):
            raise RuntimeError(f"[Program.{action}] another thread is running this program; use a clone() per thread")
        return 0

    def bind(self, int64_t base, array):
        """Attaches an array to a base (1 or higher) and keeps it alive until another one is bound.

        The array must be C-contiguous, of 4-byte items and exactly the size of the base, and writable when the base is
        among `written`. Raises ValueError otherwise.
        """
        cdef Py_buffer view
        cdef bint written = base in self.written
        if not 1 <= base < self.base_count:
            raise ValueError(f"[Program.bind] base must be 1 .. {self.base_count - 1}; got {base}")
        if not PyObject_CheckBuffer(array):
            raise TypeError(f"[Program.bind] base {base} takes an array; got {type(array).__name__}")
        try:
            PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if written else 0))
        except (BufferError, ValueError) as error:
            raise ValueError(f"[Program.bind] base {base} takes a C-contiguous {'writable ' if written else ''}array: "
                             f"{error}") from None
        try:
            if view.itemsize != 4 or view.len != self.base_bytes[base]:
                raise ValueError(f"[Program.bind] base {base} has {self.base_bytes[base]} bytes in items of 4; got "
                                 f"{view.len} bytes in items of {view.itemsize}")
            self.lock("bind")
        except BaseException:
            PyBuffer_Release(&view)
            raise
        PyBuffer_Release(&self.views[base])
        self.views[base] = view
        self.attach(base, <char *>view.buf)
        program_unlock(&self.program)

    cdef int check_bound(self) except -1:
        cdef int64_t base
        for base in range(self.base_count):
            if self.addresses[base] == NULL:
                raise RuntimeError(f"[Program.run] no array is bound to base {base}")
        return 0

    def run(self, int64_t threads=1):
        """Runs all steps on at most `threads` threads. The results do not depend on their number."""
        self.check_bound()
        self.lock("run")
        try:
            self.reserve(threads)
            with nogil:
                program_run(&self.program, threads)
        finally:
            program_unlock(&self.program)

    def run_profiled(self, int64_t threads=1):
        """Runs all steps and returns the nanoseconds of each as a list of int."""
        cdef int64_t *nanoseconds = <int64_t *>calloc(self.program.step_count + 1, sizeof(int64_t))
        cdef int64_t i
        if nanoseconds == NULL:
            raise MemoryError()
        try:
            self.check_bound()
            self.lock("run_profiled")
            try:
                self.reserve(threads)
                with nogil:
                    program_run_profiled(&self.program, threads, nanoseconds)
            finally:
                program_unlock(&self.program)
            return [nanoseconds[i] for i in range(self.program.step_count)]
        finally:
            free(nanoseconds)

    def clone(self):
        """A program with an arena of its own; the arrays bound to this one are bound to it, too."""
        cdef Program other = Program(*self.arguments)
        cdef int64_t base
        for base in range(1, self.base_count):
            if self.addresses[base] != NULL:
                other.bind(base, <object>self.views[base].obj)
        return other


# ---- params: one block per kernel, members as in src/<stem>.h ---------------------------------------------------------

cdef bytes as_params(str kernel, dict given, dict members, const char *data, size_t size):
    """The bytes of a struct that Cython filled from `given`; Cython checks for missing members, this for unknown ones."""
    unknown = given.keys() - members.keys()
    if unknown:
        raise TypeError(f"[{kernel}_params] has no member {', '.join(sorted(unknown))}")
    return data[:size]


# conv

cdef extern from "conv.h" nogil:
    enum: CHUNK
    struct pack_panels_members "pack_panels_params":
        int64_t groups, outs, tap_rows, tap_cols, reds, panel_width
        int64_t offset, group_stride, out_stride, tap_row_stride, tap_col_stride, red_stride, chunked
    struct igemm_members "igemm_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t outs, panel_width, pixel_block, panel_block, reduction_block, activation
        float alpha, beta
    struct conv_lines_members "conv_lines_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t outs, panel_width, line_block, panel_block, activation
        float alpha, beta
    struct weight_gradient_members "weight_gradient_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t outs, parts, out_block, red_block, pixel_block
    struct weight_gradient_lines_members "weight_gradient_lines_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t outs, parts, line_block
    struct spread_lines_members "spread_lines_params":
        int64_t images, rows, cols, channels, grid_rows, grid_cols, outs, tap_rows, tap_cols, pad_top, pad_left
        int64_t panel_width, line_block
    struct sum_parts_members "sum_parts_params":
        int64_t parts, count
    struct depthwise_members "depthwise_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t row_block, channel_block, activation
        float alpha, beta
    struct expanded_depthwise_members "expanded_depthwise_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t reds, panel_width, row_block, band_rows, channel_block, expand_activation
        float expand_alpha, expand_beta
        int64_t activation
        float alpha, beta
    struct depthwise_weight_gradient_members "depthwise_weight_gradient_params":
        int64_t images, rows, cols, image_stride, row_stride, col_stride, groups, channels, grid_rows, grid_cols
        int64_t row_step, col_step, tap_rows, tap_cols, tap_row_start, tap_col_start, tap_row_step, tap_col_step
        int64_t out_offset, out_image_stride, out_row_stride, out_col_stride
        int64_t parts, channel_block
    int64_t conv_blocks(int64_t count, int64_t block)
    int64_t conv_round(int64_t count, int64_t unit)
    int64_t pack_panels_tasks(const pack_panels_members *p)
    int64_t igemm_tasks(const igemm_members *p)
    int64_t igemm_scratch_bytes(const igemm_members *p)
    int64_t conv_lines_tasks(const conv_lines_members *p)
    int64_t conv_lines_scratch_bytes(const conv_lines_members *p)
    int64_t weight_gradient_tasks(const weight_gradient_members *p)
    int64_t weight_gradient_scratch_bytes(const weight_gradient_members *p)
    int64_t weight_gradient_lines_scratch_bytes(const weight_gradient_lines_members *p)
    int64_t spread_lines_tasks(const spread_lines_members *p)
    int64_t spread_lines_scratch_bytes(const spread_lines_members *p)
    int64_t sum_parts_tasks(const sum_parts_members *p)
    int64_t depthwise_tasks(const depthwise_members *p)
    int64_t depthwise_scratch_bytes(const depthwise_members *p)
    int64_t expanded_depthwise_tasks(const expanded_depthwise_members *p)
    int64_t expanded_depthwise_scratch_bytes(const expanded_depthwise_members *p)
    int64_t depthwise_weight_gradient_tasks(const depthwise_weight_gradient_members *p)
    int64_t depthwise_weight_gradient_scratch_bytes(const depthwise_weight_gradient_members *p)
    int64_t depthwise_normalised_scratch_bytes(const depthwise_members *p)
    int64_t depthwise_weight_gradient_normalised_scratch_bytes(const depthwise_weight_gradient_members *p)


cdef extern from "winograd.h" nogil:
    struct winograd_form:
        int64_t tile, kernel, step, short_rows, short_cols
    int64_t winograd_products(const winograd_form *f)
    int64_t winograd_side(const winograd_form *f)
    int64_t winograd_depth(const winograd_form *f, int64_t channels)
    bint winograd_phases_share(const winograd_form *f, int64_t channels)
    struct winograd_filters_members "winograd_filters_params":
        int64_t tile, kernel, step, short_rows, short_cols, panels, floats
    struct winograd_members "winograd_params":
        int64_t tile, kernel, step, short_rows, short_cols, images, rows, cols, channels, first_channels, out_rows, out_cols, outs
        int64_t grid_rows, grid_cols, pad_top, pad_left, out_step, out_top, out_left
        int64_t panel_width, tile_block, panel_block, transformed, taps, few, activation
        float alpha, beta
    struct winograd_gradient_members "winograd_gradient_params":
        int64_t tile, kernel, step, short_rows, short_cols, images, rows, cols, channels, out_rows, out_cols, outs, pad_top, pad_left
        int64_t parts, group_rows, group_width, panel_width, group_block, channel_block, tile_block, transformed
    int64_t winograd_gradient_tiles(const winograd_gradient_members *p)
    int64_t winograd_gradient_groups(const winograd_gradient_members *p)
    int64_t winograd_gradient_phases(const winograd_gradient_members *p)
    int64_t winograd_gradient_panels(const winograd_gradient_members *p)
    int64_t winograd_gradient_inputs(const winograd_gradient_members *p, int64_t tiles, int64_t panels)
    int64_t winograd_gradient_outputs(const winograd_gradient_members *p, int64_t tiles, int64_t groups)
    int64_t winograd_gradient_tasks(const winograd_gradient_members *p)
    int64_t winograd_gradient_scratch_bytes(const winograd_gradient_members *p)
    int64_t winograd_filters_tasks(const winograd_filters_members *p)
    int64_t winograd_tiles(const winograd_members *p)
    int64_t winograd_tasks(const winograd_members *p)
    int64_t winograd_scratch_bytes(const winograd_members *p)
    int64_t winograd_inputs_bytes(const winograd_members *p)


def winograd_filters_params(**members):
    cdef winograd_filters_members p = members
    return as_params("winograd_filters", members, p, <char *>&p, sizeof(p))


def winograd_params(**members):
    cdef winograd_members p = members
    return as_params("winograd", members, p, <char *>&p, sizeof(p))


def winograd_inputs_params(**members):
    cdef winograd_members p = members
    return as_params("winograd_inputs", members, p, <char *>&p, sizeof(p))


def winograd_gradient_params(**members):
    cdef winograd_gradient_members p = members
    return as_params("winograd_gradient", members, p, <char *>&p, sizeof(p))


winograd_gradient_inputs_params = winograd_gradient_outputs_params = winograd_gradient_params


def pack_panels_params(**members):
    cdef pack_panels_members p = members
    return as_params("pack_panels", members, p, <char *>&p, sizeof(p))


def igemm_params(**members):
    cdef igemm_members p = members
    return as_params("igemm", members, p, <char *>&p, sizeof(p))


def conv_lines_params(**members):
    cdef conv_lines_members p = members
    return as_params("conv_lines", members, p, <char *>&p, sizeof(p))


def weight_gradient_params(**members):
    cdef weight_gradient_members p = members
    return as_params("weight_gradient", members, p, <char *>&p, sizeof(p))


def weight_gradient_lines_params(**members):
    cdef weight_gradient_lines_members p = members
    return as_params("weight_gradient_lines", members, p, <char *>&p, sizeof(p))


def spread_lines_params(**members):
    cdef spread_lines_members p = members
    return as_params("spread_lines", members, p, <char *>&p, sizeof(p))


def sum_parts_params(**members):
    cdef sum_parts_members p = members
    return as_params("sum_parts", members, p, <char *>&p, sizeof(p))


def depthwise_params(**members):
    cdef depthwise_members p = members
    return as_params("depthwise", members, p, <char *>&p, sizeof(p))


def expanded_depthwise_params(**members):
    cdef expanded_depthwise_members p = members
    return as_params("expanded_depthwise", members, p, <char *>&p, sizeof(p))


def depthwise_weight_gradient_params(**members):
    cdef depthwise_weight_gradient_members p = members
    return as_params("depthwise_weight_gradient", members, p, <char *>&p, sizeof(p))


# The same structs; the readers have one more buffer.
igemm_normalised_params, weight_gradient_normalised_params = igemm_params, weight_gradient_params
depthwise_normalised_params, depthwise_weight_gradient_normalised_params = depthwise_params, depthwise_weight_gradient_params


def conv_sizes(str kernel not None, bytes params not None):
    """(tasks, scratch bytes) of a kernel of src/conv.h with these parameters."""
    cdef const char *p = params
    if kernel not in kernel_ids or len(params) != kernel_entries[<int64_t>kernel_ids[kernel]].params_bytes:
        raise ValueError(f"[conv_sizes] these are not params of a convolution kernel: {kernel!r}, {len(params)} bytes")
    if kernel == "pack_panels":
        return pack_panels_tasks(<const pack_panels_members *>p), 0
    if kernel in ("igemm", "igemm_normalised"):
        return igemm_tasks(<const igemm_members *>p), igemm_scratch_bytes(<const igemm_members *>p)
    if kernel == "conv_lines":
        return conv_lines_tasks(<const conv_lines_members *>p), conv_lines_scratch_bytes(<const conv_lines_members *>p)
    if kernel in ("weight_gradient", "weight_gradient_normalised"):
        return (weight_gradient_tasks(<const weight_gradient_members *>p),
                weight_gradient_scratch_bytes(<const weight_gradient_members *>p))
    if kernel == "weight_gradient_lines":
        return ((<const weight_gradient_lines_members *>p).parts,
                weight_gradient_lines_scratch_bytes(<const weight_gradient_lines_members *>p))
    if kernel == "spread_lines":
        return spread_lines_tasks(<const spread_lines_members *>p), spread_lines_scratch_bytes(<const spread_lines_members *>p)
    if kernel == "sum_parts":
        return sum_parts_tasks(<const sum_parts_members *>p), 0
    if kernel == "depthwise":
        return depthwise_tasks(<const depthwise_members *>p), depthwise_scratch_bytes(<const depthwise_members *>p)
    if kernel == "expanded_depthwise":
        return (expanded_depthwise_tasks(<const expanded_depthwise_members *>p),
                expanded_depthwise_scratch_bytes(<const expanded_depthwise_members *>p))
    if kernel == "depthwise_weight_gradient":
        return (depthwise_weight_gradient_tasks(<const depthwise_weight_gradient_members *>p),
                depthwise_weight_gradient_scratch_bytes(<const depthwise_weight_gradient_members *>p))
    if kernel == "depthwise_normalised":
        return depthwise_tasks(<const depthwise_members *>p), depthwise_normalised_scratch_bytes(<const depthwise_members *>p)
    if kernel == "depthwise_weight_gradient_normalised":
        return (depthwise_weight_gradient_tasks(<const depthwise_weight_gradient_members *>p),
                depthwise_weight_gradient_normalised_scratch_bytes(<const depthwise_weight_gradient_members *>p))
    if kernel == "winograd_filters":
        return winograd_filters_tasks(<const winograd_filters_members *>p), 0
    if kernel == "winograd_gradient_inputs":
        return winograd_gradient_tiles(<const winograd_gradient_members *>p), 0
    if kernel == "winograd_gradient_outputs":
        return winograd_gradient_groups(<const winograd_gradient_members *>p) * (<const winograd_gradient_members *>p).parts, 0
    if kernel == "winograd_gradient":
        return (winograd_gradient_tasks(<const winograd_gradient_members *>p),
                winograd_gradient_scratch_bytes(<const winograd_gradient_members *>p))
    if kernel == "winograd_inputs":
        return winograd_tiles(<const winograd_members *>p), 0
    if kernel == "winograd":
        return winograd_tasks(<const winograd_members *>p), winograd_scratch_bytes(<const winograd_members *>p)
    raise ValueError(f"[conv_sizes] {kernel!r} is not a convolution kernel")


def winograd_workspace(bytes params not None):
    """Bytes of the transformed inputs of a winograd kernel with these parameters, if they are made before."""
    cdef const char *p = params
    if len(params) != sizeof(winograd_members):
        raise ValueError(f"[winograd_workspace] these are not params of winograd: {len(params)} bytes")
    return winograd_inputs_bytes(<const winograd_members *>p) if (<const winograd_members *>p).transformed else 0


def winograd_gradient_workspace(bytes params not None):
    """Bytes of the transformed inputs and gradients of a winograd_gradient kernel with these parameters, if they are made before; else zeros."""
    cdef const winograd_gradient_members *p = <const winograd_gradient_members *><const char *>params
    if len(params) != sizeof(winograd_gradient_members):
        raise ValueError(f"[winograd_gradient_workspace] these are not params of winograd_gradient: {len(params)} bytes")
    if not p.transformed:
        return 0, 0
    cdef int64_t tiles = winograd_gradient_tiles(p)
    return (4 * winograd_gradient_inputs(p, tiles, winograd_gradient_phases(p) * winograd_gradient_panels(p)),
            4 * winograd_gradient_outputs(p, tiles, winograd_gradient_groups(p)))


# Default sizes of tasks. They depend on the sizes of the operation and on the instruction set, never on the number of
# threads; those of winograd, on which no sum depends, also on the number of processors. A task is to take some 5 to 50 us, and a large layer is to have a dozen of them.

cdef int64_t LEAST_TASK = 250_000, MOST_TASK = 4_000_000, FEWEST_TASKS = 12  # multiply-adds, counting idle lanes
cdef int64_t GRADIENT_OUTS = 112, GRADIENT_POSITIONS = 320
cdef int64_t LEAST_DEPTHWISE_TASK = 100_000, GRADIENT_FLOATS = 4096
cdef int64_t PANELS = 4  # of a task, so that copying patches costs little
cdef int64_t REDUCTION_BLOCK = 4608, PATCH_FLOATS = 32768


cdef int64_t task_work(int64_t work):
    return max(LEAST_TASK, min(MOST_TASK, work // FEWEST_TASKS))


cdef int64_t narrowest_panel(int64_t outs, isa) except -1:
    """Floats of a panel row: a full one, or as many vectors as the outs take; of vectors of 16 also half a one, or one and a half."""
    cdef int64_t lanes = vector_length(isa)
    if lanes == 16 and outs <= 24 and (outs <= 8 or outs > 16):
        return 8 if outs <= 8 else 24
    return min(<int64_t>panel_width(isa), conv_round(outs, lanes))


def igemm_blocks(int64_t pixels, int64_t outs, int64_t reds, isa=None):
    """Default panel_width, pixel_block, panel_block and reduction_block of igemm, as a dict.

    pixels = images * grid_rows * grid_cols, outs = outs of a group, reds = tap_rows * tap_cols * channels of a group.
    """
    cdef int64_t rows = tile_rows(isa), width = narrowest_panel(outs, isa)
    cdef int64_t panels = conv_blocks(outs, width), tiles = conv_blocks(pixels, rows)
    # The work of a tile of pixels by one panel. A step of the reduction costs its loads even when there is one pixel; a
    # patch costs about as much as 32 steps.
    cdef int64_t unit = max(min(pixels, rows), 8) * width * (reds + 32)
    cdef int64_t units = max(1, task_work(tiles * panels * unit) // unit)
    cdef int64_t task_panels = min(panels, units if tiles == 1 else max(PANELS, units))
    task_panels = conv_blocks(panels, conv_blocks(panels, task_panels))
    # The patches of a task are to stay in the L2 cache, beside the panels.
    cdef int64_t fitting_tiles = PATCH_FLOATS // (rows * max(16, min(reds, REDUCTION_BLOCK)))
    cdef int64_t task_tiles = min(tiles, max(1, min(fitting_tiles, units // task_panels)))
    cdef int64_t blocks = conv_blocks(tiles, task_tiles)
    if blocks > 1 and blocks * conv_blocks(panels, task_panels) % 2:  # an odd task keeps one of two threads waiting
        blocks += 1
    task_tiles = conv_blocks(tiles, blocks)
    return {"panel_width": width, "pixel_block": min(pixels, task_tiles * rows), "panel_block": task_panels,
            "reduction_block": REDUCTION_BLOCK}


def conv_lines_blocks(int64_t images, int64_t grid_rows, int64_t grid_cols, int64_t outs, int64_t reds, isa=None):
    """Default panel_width, line_block and panel_block of conv_lines, as a dict; reds as for igemm_blocks."""
    cdef int64_t width = narrowest_panel(outs, isa), panels = conv_blocks(outs, width)
    cdef int64_t line = conv_round(grid_cols, tile_rows(isa)) * panels * width * (reds + 16)
    cdef int64_t lines = min(grid_rows, conv_blocks(task_work(images * grid_rows * line), line))
    return {"panel_width": width, "line_block": conv_blocks(grid_rows, conv_blocks(grid_rows, lines)), "panel_block": panels}


def weight_gradient_blocks(int64_t pixels, int64_t outs, int64_t reds, isa=None):
    """Default parts, out_block, red_block and pixel_block of weight_gradient, as a dict; sizes as for igemm_blocks."""
    cdef int64_t width = panel_width(isa), rows = tile_rows(isa)
    cdef int64_t panels = conv_blocks(reds, width), tiles = conv_blocks(outs, rows)
    # Copying the patches costs less the more outs share them, copying dy the more positions share it; both stay in L2.
    cdef int64_t out_tiles = conv_blocks(tiles, conv_blocks(tiles, GRADIENT_OUTS // rows))
    cdef int64_t red_panels = conv_blocks(panels, conv_blocks(panels, GRADIENT_POSITIONS // width))
    cdef int64_t pixel_block = 128, blocks = conv_blocks(pixels, pixel_block)
    cdef int64_t tasks = conv_blocks(tiles, out_tiles) * conv_blocks(panels, red_panels)
    cdef int64_t work = conv_round(outs, rows) * panels * width * pixels
    # Small gradients have too few tasks: the pixels are shared out, each share at least 4 blocks.
    cdef int64_t parts = min(conv_blocks(FEWEST_TASKS, tasks), work // (LEAST_TASK * tasks), blocks // 4)
    return {"parts": max(1, parts), "out_block": out_tiles * rows, "red_block": red_panels * width,
            "pixel_block": min(pixel_block, pixels)}


def weight_gradient_lines_blocks(int64_t lines, int64_t grid_cols, int64_t outs, int64_t reds, isa=None):
    """Default parts and line_block of weight_gradient_lines, as a dict. lines = images * grid_rows; reds as for igemm_blocks."""
    cdef int64_t work = lines * grid_cols * conv_round(outs, vector_length(isa)) * reds
    return {"parts": max(1, min(lines, FEWEST_TASKS, work // LEAST_TASK)), "line_block": 8}


def spread_lines_blocks(int64_t lines, int64_t grid_cols, int64_t run, int64_t reds, isa=None):
    """Default panel_width and line_block of spread_lines, as a dict. lines: of dx, all images; run: tap_cols * channels; reds: tap_rows * outs."""
    cdef int64_t width = narrowest_panel(run, isa), work = conv_round(grid_cols, tile_rows(isa)) * conv_round(run, width) * (reds + 16)
    return {"panel_width": width, "line_block": max(1, min(lines, conv_blocks(task_work(lines * work), work)))}


def depthwise_blocks(int64_t grid_rows, int64_t grid_cols, int64_t channels, int64_t taps, isa=None):
    """Default row_block and channel_block of depthwise, as a dict."""
    cdef int64_t row = grid_cols * channels * taps, image = row * grid_rows
    # Rows at the ends of a task are read by two tasks: not too many of them, but 4 where that is worth a thread.
    cdef int64_t tasks = min(grid_rows, max(image // LEAST_TASK, min(4, image // LEAST_DEPTHWISE_TASK), 1))
    tasks = conv_round(tasks, 2) if tasks > 1 else 1  # an odd one keeps one of two threads waiting
    return {"row_block": conv_round(conv_blocks(grid_rows, tasks), 2), "channel_block": channels}  # rows go in pairs


def expanded_depthwise_blocks(int64_t images, int64_t rows, int64_t grid_rows, int64_t row_step, int64_t seen_twice, int64_t channels, isa=None):
    """Default panel_width, row_block, band_rows and channel_block of expanded_depthwise, as a dict.

    rows: of x; seen_twice: those that two neighbouring grid rows see.
    """
    cdef int64_t width = narrowest_panel(channels, isa), panels = conv_blocks(channels, width)
    # Narrower blocks of channels find the pixels of a tile for too few vectors; an odd one keeps one of two threads waiting.
    cdef int64_t blocks = max(1, channels // 64)
    if blocks > 1 and blocks % 2:
        blocks -= 1
    cdef int64_t channel_block = conv_blocks(panels, blocks) * width, row_blocks = 1
    blocks = conv_blocks(channels, channel_block) * images
    # Where these are few, the rows are shared out, too, as long as few of them are computed twice.
    while blocks * row_blocks < 4 and 2 * row_blocks * 12 * seen_twice <= rows and 4 * row_blocks <= grid_rows:
        row_blocks *= 2
    cdef int64_t row_block = conv_round(conv_blocks(grid_rows, row_blocks), 2)  # rows go in pairs
    return {"panel_width": width, "row_block": row_block, "band_rows": min(row_block, max(2, 8 // row_step)), "channel_block": min(channels, channel_block)}


def winograd_products_of(int64_t tile, int64_t kernel, int64_t step, int64_t short_rows, int64_t short_cols):
    """Products of a tile for each channel and out, of all phases."""
    cdef winograd_form form = winograd_form(tile, kernel, step, short_rows, short_cols)
    return winograd_products(&form)


def winograd_blocks(int64_t tile, int64_t kernel, int64_t step, int64_t short_rows, int64_t short_cols, int64_t tiles, int64_t outs,
                    int64_t channels, bint shared=False, bint fixed=False, isa=None):
    """Default panel_width, tile_block, panel_block, transformed, taps and few of winograd, as a dict. tiles: of tile x tile outputs, of all images;
    shared: whether the sizes are for several phases of an input gradient, with one transformed dy; fixed: whether no run changes the filters."""
    cdef winograd_form form = winograd_form(tile, kernel, step, short_rows, short_cols)
    cdef int64_t width = min(<int64_t>panel_width(isa), conv_round(outs, vector_length(isa)))
    cdef int64_t panels = conv_blocks(outs, width), rows = tile_rows(isa), block, filters
    cdef bint taps
    tiles = max(1, tiles)
    if tile == 4 and kernel == 3 and step == 1 and not shared and tiles <= few_tiles(isa) and channels and channels % CHUNK == 0:
        return {"panel_width": vector_length(isa), "tile_block": tiles, "panel_block": 1, "transformed": 1, "taps": 0, "few": 1}
    # With fewer tiles than outs the filters are more than the inputs: the panels are shared out.
    if tiles < outs and panels >= FEWEST_TASKS // 2:
        # Filters that are transformed once are fetched while others are multiplied, which is faster; large ones save their memory, where a
        # panel's are multiplied by many tiles from 32 MiB on. Where each run has its own, tasks transform those of a panel themselves;
        # those of phases cost several transforms, which only large ones are worth.
        filters = winograd_products(&form) * outs * channels
        taps = filters >= 1 << 24 or (tiles >= 32 and filters >= 1 << 23 if fixed else step == 1 or filters >= 1 << 21)
        block = min(9 * rows, max(4 * rows, tiles * panels // FEWEST_TASKS)) if taps else 4 * rows
        block = conv_blocks(tiles, conv_blocks(tiles, block))
        return {"panel_width": width, "tile_block": block, "panel_block": 1, "transformed": 1, "taps": taps, "few": 0}
    # The transformed inputs of a task take half of a second-level cache of 1 MiB at most; three tasks for each processor, and as many for
    # each, keep threads busy that others hold up. Where there are few tiles the panels are shared out, too, and inputs transformed once
    # for each share. No sum depends on any of this.
    cdef int64_t floats = winograd_side(&form) * winograd_side(&form) * winograd_depth(&form, max(1, channels))
    cdef int64_t most = max(rows, min(3 * rows, 131072 // floats // rows * rows))
    cdef int64_t processors = openmp_processors(), least = min(tiles, conv_blocks(rows, 2))
    block = max(least, min(most, conv_blocks(tiles, 3 * processors)))
    cdef int64_t blocks = conv_blocks(tiles, block)
    if blocks > processors:
        blocks = conv_round(blocks, processors)
        if conv_blocks(tiles, blocks) < least:
            blocks -= processors
    block = conv_blocks(tiles, blocks)
    blocks = conv_blocks(tiles, block)
    cdef int64_t panel_blocks = min(panels, conv_blocks(2 * processors, blocks))
    return {"panel_width": width, "tile_block": block, "panel_block": conv_blocks(panels, panel_blocks), "transformed": 0, "taps": 0, "few": 0}


def winograd_gradient_blocks(int64_t tile, int64_t kernel, int64_t step, int64_t short_rows, int64_t short_cols, int64_t tiles, int64_t outs,
                             int64_t channels, isa=None):
    """Default sizes of winograd_gradient's tasks, as a dict: the members from parts on."""
    cdef winograd_form form = winograd_form(tile, kernel, step, short_rows, short_cols)
    cdef int64_t rows = tile_rows(isa), groups = conv_blocks(outs, rows), phases = step * step
    if winograd_phases_share(&form, channels):
        phases, channels = 1, 4 * channels
    cdef int64_t channel_block = min(64, conv_round(channels, panel_width(isa))), side = winograd_side(&form)
    # U takes half of a second-level cache of 1 MiB; where it is all that there is, a larger one is better than transforming twice.
    cdef int64_t group_block = groups if outs <= 64 else min(groups, conv_blocks(131072 // (side * side * channel_block), rows))
    group_block = conv_blocks(groups, conv_blocks(groups, group_block))
    cdef int64_t blocks = conv_blocks(groups, group_block) * phases * conv_blocks(channels, channel_block)
    cdef int64_t parts = max(1, min(conv_blocks(FEWEST_TASKS, blocks), tiles // 64))
    return {"parts": parts, "group_rows": rows, "group_width": conv_round(rows, vector_length(isa)), "panel_width": panel_width(isa),
            "group_block": group_block, "channel_block": channel_block, "tile_block": min(128 if blocks > 1 else 32, tiles), "transformed": blocks > 1}


def depthwise_weight_gradient_blocks(int64_t lines, int64_t grid_cols, int64_t channels, int64_t taps, isa=None):
    """Default parts and channel_block of depthwise_weight_gradient, as a dict. lines = images * grid_rows."""
    cdef int64_t lanes = vector_length(isa)
    # The sums of a task are to stay in the L1 cache.
    cdef int64_t block = conv_round(max(4 * lanes, GRADIENT_FLOATS // taps), lanes), work = lines * grid_cols * channels * taps
    cdef int64_t blocks = conv_blocks(channels, block)
    block = min(channels, conv_round(conv_blocks(channels, blocks), lanes))
    blocks = conv_blocks(channels, block)
    cdef int64_t parts = min(conv_blocks(FEWEST_TASKS, blocks), work // (LEAST_TASK * blocks), lines)
    return {"parts": max(1, parts), "channel_block": block}


# all other kernels

include "kernel_params.pxi"


# ---- the instruction set of new programs -----------------------------------------------------------------------------

set_isa(os.environ.get("PYCL_CNN_ISA") or isa_list()[0])
