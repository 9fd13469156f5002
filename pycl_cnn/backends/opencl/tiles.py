"""The block of a product that a work-item or work-group computes: what can be chosen, and what is where nothing is known."""

from __future__ import annotations

from ...records import record
from ...tuning.space import Family, Limits, Problem, Rule, Space, Variant
from .sizes import blocks

REGISTERS = 32  # vectors of a wide CPU; those with fewer keep the rest in a cache
FLOATS = 64  # sums of a GPU's work-item
WIDTHS = (4, 8, 16)
HEIGHTS = (1, 2, 4, 5, 6, 7, 8, 10, 12, 14, 16)


@record
class Tile:
    """A work-item has `rows` rows by `vectors` vectors of `width` columns; a work-group `lines` by `columns` work-items."""

    rows: int
    vectors: int
    width: int
    columns: int = 1
    lines: int = 1

    @classmethod
    def of(cls, variant: Variant, height: str) -> Tile:
        """`height` names the parameter that is the rows."""
        values = dict(variant.parameters)
        return cls(values[height], values["NV"], values["VEC"], values.get("COLUMNS", 1), values.get("LINES", 1))

    @property
    def panel(self) -> int:
        """Columns of a work-group."""
        return self.vectors * self.width * self.columns

    @property
    def pixels(self) -> int:
        """Rows of a work-group."""
        return self.rows * self.lines

    @property
    def local_size(self) -> tuple[int, int, int]:
        return (self.columns, self.lines, 1)


# ---- rules that several kernels share -----------------------------------------------------------------------------------------


def width_works(variant: Variant, problem: Problem, limits: Limits) -> bool:
    return variant["VEC"] not in limits.broken_widths and variant["VEC"] <= max(limits.width, 4 if limits.is_gpu else 8)


WIDTH = Rule("VEC is a vector that the device's compiler can do", width_works)


def registers(height: str) -> Rule:
    def holds(variant: Variant, problem: Problem, limits: Limits) -> bool:
        return variant[height] * variant["NV"] + variant["NV"] + 1 <= REGISTERS

    return Rule(f"{height}*NV sums, NV operands and one more fit {REGISTERS} registers", holds)


GPU_COLUMNS, GPU_LINES, GPU_ROWS = 8, 16, 4


def local_usual(kernel: str, height: str, lines: int, columns: int, limits: Limits) -> Variant:
    """Work-items along a tile's lines and columns as far as there is work for them and the device takes such work-groups."""
    items = min(GPU_COLUMNS * GPU_LINES, limits.max_work_group)
    vectors = 2 if columns > 4 * GPU_COLUMNS else 1
    most = GPU_LINES if lines > GPU_ROWS * GPU_LINES // 2 else GPU_LINES // 2
    while most > items // GPU_COLUMNS and most > 4:
        most //= 2
    return Variant.of(kernel, **{height: GPU_ROWS}, NV=vectors, VEC=4, COLUMNS=GPU_COLUMNS, LINES=most, STEP=16, BUFFERS=1)


def local_space(kernel: str, height: str, lines: str, columns: str, padding: int) -> Space:
    """The space of a kernel that goes through local memory. `height` names the parameter that is the rows, `lines` and `columns` the sizes of a
    problem along rows and vectors; `padding` floats are added to a line of rows.
    """

    def fits(variant: Variant, problem: Problem, limits: Limits) -> bool:
        sizes = limits.max_work_item_sizes
        return variant["COLUMNS"] * variant["LINES"] <= limits.max_work_group and variant["COLUMNS"] <= sizes[0] and variant["LINES"] <= sizes[1]

    def local_bytes(v: Variant) -> int:
        return 4 * v["BUFFERS"] * v["STEP"] * (v[height] * v["LINES"] + padding + v["NV"] * v["VEC"] * v["COLUMNS"])

    return Space(
        kernel,
        {
            height: (1, 2, 4, 8),
            "NV": (1, 2),
            "VEC": (2, 4),
            "COLUMNS": (4, 8, 16, 32),
            "LINES": (4, 8, 16, 32),
            "STEP": (8, 16, 32),
            "BUFFERS": (1, 2),
        },
        lambda problem, limits: local_usual(kernel, height, problem[lines], problem[columns], limits),
        (
            Rule("local memory pays on GPUs", lambda v, p, d: d.is_gpu),
            WIDTH,
            Rule("COLUMNS*LINES work-items are a work-group that the device takes", fits),
            Rule("COLUMNS*LINES is a multiple of STEP/VEC", lambda v, p, d: v["COLUMNS"] * v["LINES"] % (v["STEP"] // v["VEC"]) == 0),
            Rule(f"{height}*NV*VEC sums are at most {FLOATS}", lambda v, p, d: v[height] * v["NV"] * v["VEC"] <= FLOATS),
        ),
        local_bytes,
    )


# ---- the implicit GEMM ----------------------------------------------------------------------------------------------------------


def product_problem(pixels: int, outs: int, reds: int, taps: int, groups: int) -> Problem:
    """Pixels by outs, sums of taps * reds, in each group."""
    return Problem.of("product", pixels=pixels, outs=outs, reds=reds, taps=taps, groups=groups)


ROWS_OF_WIDTH = {16: (14, 12, 10, 8, 7, 4, 2, 1), 8: (6, 5, 4, 2, 1), 4: (6, 4, 2, 1)}  # with two vectors; registers: 32 or 16

FEW_PIXELS = 32
SET_BYTES, SAME_SET_ROWS = 2048, 10


def direct_usual(problem: Problem, limits: Limits) -> Variant:
    """As large as the registers allow, not wider than the outputs, of a height that leaves few pixels over in the last block."""
    pixels, outs = problem["pixels"], problem["outs"]
    if limits.is_gpu:
        lanes = max(n for n in LANES if n <= min(32, limits.max_work_group, limits.max_work_item_sizes[0]))
        return Variant.of("conv_igemm", MR=4, NV=1, VEC=4, UNROLL=1, LANES=lanes, WORK=0)
    width = limits.width
    while width > 4 and outs <= width // 2:
        width //= 2
    vectors = 2 if outs > width else 1
    heights = ROWS_OF_WIDTH[width]
    # Weights that few pixels share stream from far away, best in long pieces.
    if width == 8 and outs > 2 * width and pixels <= FEW_PIXELS:
        vectors, heights = 3, (4, 2, 1)
    if vectors == 1:
        heights = tuple(min(16, 2 * rows) for rows in heights)
    # Rows a multiple of SET_BYTES apart fall into the same few sets of a cache. (Those of many groups are mostly Winograd's tiles, which do not.)
    if problem["groups"] == 1 and 4 * problem["reds"] % SET_BYTES == 0:
        heights = tuple(min(SAME_SET_ROWS, rows) for rows in heights)
    # One more row's time in every block: its weights are loaded and its loop goes round.
    rows = min(heights, key=lambda rows: (blocks(pixels, rows) * (rows + 1), -rows))
    return Variant.of("conv_igemm", MR=rows, NV=vectors, VEC=width, UNROLL=1, LANES=1, WORK=18)


LANES = (1, 8, 16, 32, 64)
#: WORK: a work-item multiplies about 2^WORK times.
DIRECT = Space(
    "conv_igemm",
    {"MR": HEIGHTS, "NV": (1, 2, 3), "VEC": WIDTHS, "UNROLL": (1, 2, 4), "LANES": LANES, "WORK": (0, 14, 16, 18, 20)},
    direct_usual,
    (
        WIDTH,
        registers("MR"),
        Rule("a panel is not much wider than the outs", lambda v, p, d: v["VEC"] == 4 or v["NV"] * v["VEC"] < 2 * p["outs"] + 8),
        Rule("a CPU's work-group is one work-item", lambda v, p, d: v["LANES"] == 1 or d.is_gpu),
        Rule("LANES work-items are a work-group that the device takes", lambda v, p, d: v["LANES"] <= min(d.max_work_group, d.max_work_item_sizes[0])),
        Rule("a work-item of a GPU has one block", lambda v, p, d: (v["WORK"] == 0) == d.is_gpu),
        Rule(f"a GPU's work-item has {FLOATS} sums at most", lambda v, p, d: not d.is_gpu or v["MR"] * v["NV"] * v["VEC"] <= FLOATS),
    ),
)
PRODUCT = Family("product", (local_space("conv_igemm_tiled", "MR", "pixels", "outs", 4), DIRECT))
