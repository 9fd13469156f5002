/* All kernels in one translation unit, compiled once per instruction set (see isa.h). */
#include "kernels.h"
#include "isa.h"

/* Kernels are reached through the table only; this declares them before their definitions. */
#define X(name, params, buffers) static kernel_fn KERNEL(name);
KERNELS(X)
#undef X

#include "conv_pack.c"
#include "conv_patch.c"
#include "gemm_tile.c"
#include "conv_igemm.c"
#include "conv_lines.c"
#include "conv_lines_gradient.c"
#include "conv_spread.c"
#include "conv_weight_gradient.c"
#include "conv_depthwise.c"
#include "conv_expanded.c"
#include "winograd.c"
#include "winograd_gradient.c"

#include "pointwise.c"
#include "reduce.c"
#include "softmax.c"
#include "loss.c"
#include "max_pool.c"
#include "resample.c"
#include "row_products.c"
#include "batch_norm.c"
#include "movement.c"
#include "dropout.c"
#include "optimizer.c"
#include "ceilings.c"

extern const struct kernel_table KERNEL(kernel_table);
const struct kernel_table KERNEL(kernel_table) = {
    .vector_length = VL,
    .tile_rows = MR,
    .panel_width = NR,
    .few_tiles = FEW_TILES,
    .kernels = {
#define X(name, params, buffers) [KERNEL_ID_##name] = KERNEL(name),
        KERNELS(X)
#undef X
    },
};
