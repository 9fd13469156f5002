/* The list of all CPU kernels and the function type they share.
 *
 * A kernel is written once, in src/<stem>.c, as
 *
 *     void KERNEL(name)(const void *params, void *const *buffers, int64_t task, void *scratch)
 *
 * src/kernels.c includes every stem and is compiled once per instruction set; each compilation ends in one table of
 * its kernels. To add a kernel: its source and header in a stem, one line in KERNELS below, the two includes in
 * src/kernels.c and below, and its params function in src/_kernels.pyx. */
#ifndef PYCL_CNN_KERNELS_H
#define PYCL_CNN_KERNELS_H

#include <stdint.h>

/* params:  the kernel's own struct (declared in src/<stem>.h).
 * buffers: float* or int32_t* in the order that the header documents; an absent optional buffer is NULL.
 * task:    0 .. tasks-1; tasks write disjoint outputs and may run in any order on any thread.
 * scratch: belongs to the calling thread, 64-byte aligned, contents undefined, of the size that the program asked for. */
typedef void kernel_fn(const void *params, void *const *buffers, int64_t task, void *scratch);

#include "batch_norm.h"
#include "ceilings.h"
#include "conv.h"
#include "dropout.h"
#include "loss.h"
#include "max_pool.h"
#include "movement.h"
#include "optimizer.h"
#include "pointwise.h"
#include "reduce.h"
#include "resample.h"
#include "row_products.h"
#include "softmax.h"
#include "winograd.h"

/* X(name, params struct, number of buffers) */
#define KERNELS(X)                                                                                                     \
    X(multiply_adds, struct multiply_adds_params, 1)                                                                   \
    X(copies, struct copies_params, 2)                                                                                 \
    X(pack_panels, struct pack_panels_params, 3)                                                                       \
    X(igemm, struct igemm_params, 5)                                                                                   \
    X(igemm_normalised, struct igemm_params, 6)                                                                        \
    X(conv_lines, struct conv_lines_params, 5)                                                                         \
    X(weight_gradient, struct weight_gradient_params, 3)                                                               \
    X(weight_gradient_normalised, struct weight_gradient_params, 4)                                                    \
    X(weight_gradient_lines, struct weight_gradient_lines_params, 3)                                                   \
    X(spread_lines, struct spread_lines_params, 3)                                                                     \
    X(sum_parts, struct sum_parts_params, 2)                                                                           \
    X(depthwise, struct depthwise_params, 5)                                                                           \
    X(depthwise_normalised, struct depthwise_params, 6)                                                                \
    X(expanded_depthwise, struct expanded_depthwise_params, 7)                                                         \
    X(depthwise_weight_gradient, struct depthwise_weight_gradient_params, 3)                                           \
    X(depthwise_weight_gradient_normalised, struct depthwise_weight_gradient_params, 4)                                \
    X(winograd_filters, struct winograd_filters_params, 2)                                                             \
    X(winograd_inputs, struct winograd_params, 3)                                                                      \
    X(winograd, struct winograd_params, 7)                                                                             \
    X(winograd_gradient_inputs, struct winograd_gradient_params, 2)                                                    \
    X(winograd_gradient_outputs, struct winograd_gradient_params, 2)                                                   \
    X(winograd_gradient, struct winograd_gradient_params, 5)                                                           \
    X(row_products, struct row_products_params, 5)                                                                     \
    X(unary, struct unary_params, 2)                                                                                   \
    X(unary_backward, struct unary_params, 3)                                                                          \
    X(binary, struct binary_params, 3)                                                                                 \
    X(reduce, struct reduce_params, 2)                                                                                 \
    X(softmax, struct softmax_params, 2)                                                                               \
    X(softmax_backward, struct softmax_params, 3)                                                                      \
    X(cross_entropy, struct cross_entropy_params, 3)                                                                   \
    X(cross_entropy_backward, struct cross_entropy_params, 4)                                                          \
    X(label_mask, struct label_mask_params, 2)                                                                         \
    X(max_pool, struct max_pool_params, 4)                                                                             \
    X(max_pool_normalised, struct max_pool_params, 5)                                                                  \
    X(max_pool_backward, struct max_pool_params, 4)                                                                    \
    X(resample, struct resample_params, 8)                                                                             \
    X(batch_norm_statistics, struct batch_norm_params, 2)                                                              \
    X(batch_norm_finalize, struct batch_norm_params, 6)                                                                \
    X(batch_norm_normalise, struct batch_norm_params, 6)                                                               \
    X(batch_norm_normaliser, struct batch_norm_params, 5)                                                              \
    X(batch_norm_backward_partial, struct batch_norm_params, 7)                                                        \
    X(batch_norm_backward_finalize, struct batch_norm_params, 3)                                                       \
    X(batch_norm_backward_input, struct batch_norm_params, 9)                                                          \
    X(strided_copy, struct strided_copy_params, 2)                                                                     \
    X(transpose, struct transpose_params, 2)                                                                           \
    X(fill, struct fill_params, 1)                                                                                     \
    X(dropout, struct dropout_params, 3)                                                                               \
    X(sgd, struct sgd_params, 4)                                                                                       \
    X(adam, struct adam_params, 5)                                                                                     \
    X(rmsprop, struct rmsprop_params, 6)

enum kernel_id {
#define X(name, params, buffers) KERNEL_ID_##name,
    KERNELS(X)
#undef X
        KERNEL_COUNT
};

/* What one compilation of src/kernels.c offers. */
struct kernel_table {
    int64_t vector_length; /* floats in a vector (VL) */
    int64_t tile_rows;     /* rows of the GEMM register tile (MR) */
    int64_t panel_width;   /* floats in a full panel row (NR) */
    int64_t few_tiles;     /* tiles that winograd takes with `few` (FEW_TILES) */
    kernel_fn *kernels[KERNEL_COUNT];
};

#endif
