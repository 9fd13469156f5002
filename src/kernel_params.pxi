# Parameters, task counts and default task sizes of the kernels that are not convolutions; part of _kernels.pyx.

cdef extern from "pointwise.h" nogil:
    struct unary_members "unary_params":
        int64_t size, kind
        float alpha, beta
    struct binary_members "binary_params":
        int64_t size, rank
        int64_t shape[6]
        int64_t a_stride[6]
        int64_t b_stride[6]
        int64_t kind, activation
        float alpha, beta
    int64_t unary_tasks(const unary_members *p)
    int64_t binary_tasks(const binary_members *p)
cdef extern from "reduce.h" nogil:
    struct reduce_members "reduce_params":
        int64_t outer, reduce, inner, parts, outer_block, inner_block, kind
        float divisor
    int64_t reduce_tasks(const reduce_members *p)
cdef extern from "softmax.h" nogil:
    struct softmax_members "softmax_params":
        int64_t outer, axis, inner, outer_block, inner_block, log
    int64_t softmax_tasks(const softmax_members *p)
cdef extern from "row_products.h" nogil:
    struct row_products_members "row_products_params":
        int64_t rows, outs, reds, out_block, activation
        float alpha, beta
    int64_t row_products_tasks(const row_products_members *p)
    enum: ROW_PRODUCTS_ROWS

cdef extern from "loss.h" nogil:
    struct cross_entropy_members "cross_entropy_params":
        int64_t rows, classes, rows_per_task, ignore_index
        float label_smoothing
    struct label_mask_members "label_mask_params":
        int64_t size, ignore_index
    int64_t cross_entropy_tasks(const cross_entropy_members *p)
    int64_t label_mask_tasks(const label_mask_members *p)
cdef extern from "max_pool.h" nogil:
    struct max_pool_members "max_pool_params":
        int64_t n, h, w, c, oh, ow, row_dilation, col_dilation, rows_per_task, channel_block
    int64_t max_pool_tasks(const max_pool_members *p)
    int64_t max_pool_backward_tasks(const max_pool_members *p)
cdef extern from "resample.h" nogil:
    struct resample_members "resample_params":
        int64_t n, h, w, c, oh, ow, rows_per_task, channel_block
    int64_t resample_tasks(const resample_members *p)
cdef extern from "batch_norm.h" nogil:
    struct batch_norm_members "batch_norm_params":
        int64_t rows, c, image_rows, part_rows, near, rows_per_task, activation
        float alpha, beta, eps, momentum
    int64_t batch_norm_parts(const batch_norm_members *p)
    int64_t batch_norm_finalize_tasks(const batch_norm_members *p)
    int64_t batch_norm_rows_tasks(const batch_norm_members *p)
cdef extern from "movement.h" nogil:
    struct strided_copy_members "strided_copy_params":
        int64_t size, rank
        int64_t shape[6]
        int64_t dst_stride[6]
        int64_t src_stride[6]
        int64_t dst_offset, src_offset
    struct transpose_members "transpose_params":
        int64_t batch, rows, cols, src_batch_stride, src_row_stride, dst_batch_stride, dst_row_stride, row_block, col_block
    struct fill_members "fill_params":
        int64_t size, bits
    int64_t strided_copy_tasks(const strided_copy_members *p)
    int64_t transpose_tasks(const transpose_members *p)
    int64_t fill_tasks(const fill_members *p)
cdef extern from "ceilings.h" nogil:
    struct multiply_adds_members "multiply_adds_params":
        int64_t tasks, rounds
    struct copies_members "copies_params":
        int64_t tasks, items, rounds
    int64_t multiply_adds_tasks(const multiply_adds_members *p)
    int64_t copies_tasks(const copies_members *p)
cdef extern from "dropout.h" nogil:
    struct dropout_members "dropout_params":
        int64_t size, stream, threshold
        float keep
    int64_t dropout_tasks(const dropout_members *p)
cdef extern from "optimizer.h" nogil:
    struct sgd_members "sgd_params":
        int64_t size, nesterov
        float momentum, one_minus_dampening, weight_decay
    struct adam_members "adam_params":
        int64_t size, decoupled
        float one_minus_beta1, beta2, one_minus_beta2, eps, weight_decay
    struct rmsprop_members "rmsprop_params":
        int64_t size
        float alpha, one_minus_alpha, eps, weight_decay, momentum
    int64_t sgd_tasks(const sgd_members *p)
    int64_t adam_tasks(const adam_members *p)
    int64_t rmsprop_tasks(const rmsprop_members *p)


def unary_params(**members):
    cdef unary_members p = members
    return as_params("unary", members, p, <char *>&p, sizeof(p))


def binary_params(**members):
    cdef binary_members p = members
    return as_params("binary", members, p, <char *>&p, sizeof(p))


def reduce_params(**members):
    cdef reduce_members p = members
    return as_params("reduce", members, p, <char *>&p, sizeof(p))


def softmax_params(**members):
    cdef softmax_members p = members
    return as_params("softmax", members, p, <char *>&p, sizeof(p))


def row_products_params(**members):
    cdef row_products_members p = members
    return as_params("row_products", members, p, <char *>&p, sizeof(p))


def cross_entropy_params(**members):
    cdef cross_entropy_members p = members
    return as_params("cross_entropy", members, p, <char *>&p, sizeof(p))


def label_mask_params(**members):
    cdef label_mask_members p = members
    return as_params("label_mask", members, p, <char *>&p, sizeof(p))


def max_pool_params(**members):
    cdef max_pool_members p = members
    return as_params("max_pool", members, p, <char *>&p, sizeof(p))


def resample_params(**members):
    cdef resample_members p = members
    return as_params("resample", members, p, <char *>&p, sizeof(p))


def batch_norm_params(**members):
    cdef batch_norm_members p = members
    return as_params("batch_norm", members, p, <char *>&p, sizeof(p))


def strided_copy_params(**members):
    cdef strided_copy_members p = members
    return as_params("strided_copy", members, p, <char *>&p, sizeof(p))


def transpose_params(**members):
    cdef transpose_members p = members
    return as_params("transpose", members, p, <char *>&p, sizeof(p))


def fill_params(**members):
    cdef fill_members p = members
    return as_params("fill", members, p, <char *>&p, sizeof(p))


def multiply_adds_params(**members):
    cdef multiply_adds_members p = members
    return as_params("multiply_adds", members, p, <char *>&p, sizeof(p))


def copies_params(**members):
    cdef copies_members p = members
    return as_params("copies", members, p, <char *>&p, sizeof(p))


def dropout_params(**members):
    cdef dropout_members p = members
    return as_params("dropout", members, p, <char *>&p, sizeof(p))


def sgd_params(**members):
    cdef sgd_members p = members
    return as_params("sgd", members, p, <char *>&p, sizeof(p))


def adam_params(**members):
    cdef adam_members p = members
    return as_params("adam", members, p, <char *>&p, sizeof(p))


def rmsprop_params(**members):
    cdef rmsprop_members p = members
    return as_params("rmsprop", members, p, <char *>&p, sizeof(p))

unary_backward_params = unary_params
softmax_backward_params = softmax_params
cross_entropy_backward_params = cross_entropy_params
max_pool_backward_params = max_pool_normalised_params = max_pool_params
batch_norm_statistics_params = batch_norm_finalize_params = batch_norm_normalise_params = batch_norm_normaliser_params = batch_norm_backward_partial_params = batch_norm_backward_finalize_params = batch_norm_backward_input_params = batch_norm_params


def kernel_tasks(str kernel not None, bytes params not None):
    """Number of tasks of a kernel that is not a convolution, with these parameters."""
    cdef const char *p = params
    if kernel not in kernel_ids or len(params) != kernel_entries[<int64_t>kernel_ids[kernel]].params_bytes:
        raise ValueError(f"[kernel_tasks] these are not params of a kernel: {kernel!r}, {len(params)} bytes")
    if kernel in ("unary", "unary_backward"):
        return unary_tasks(<const unary_members *>p)
    if kernel == "binary":
        return binary_tasks(<const binary_members *>p)
    if kernel == "reduce":
        return reduce_tasks(<const reduce_members *>p)
    if kernel in ("softmax", "softmax_backward"):
        return softmax_tasks(<const softmax_members *>p)
    if kernel == "row_products":
        return row_products_tasks(<const row_products_members *>p)
    if kernel in ("cross_entropy", "cross_entropy_backward"):
        return cross_entropy_tasks(<const cross_entropy_members *>p)
    if kernel == "label_mask":
        return label_mask_tasks(<const label_mask_members *>p)
    if kernel in ("max_pool", "max_pool_normalised"):
        return max_pool_tasks(<const max_pool_members *>p)
    if kernel == "max_pool_backward":
        return max_pool_backward_tasks(<const max_pool_members *>p)
    if kernel == "resample":
        return resample_tasks(<const resample_members *>p)
    if kernel in ("batch_norm_statistics", "batch_norm_backward_partial"):
        return batch_norm_parts(<const batch_norm_members *>p)
    if kernel in ("batch_norm_finalize", "batch_norm_normaliser", "batch_norm_backward_finalize"):
        return batch_norm_finalize_tasks(<const batch_norm_members *>p)
    if kernel in ("batch_norm_normalise", "batch_norm_backward_input"):
        return batch_norm_rows_tasks(<const batch_norm_members *>p)
    if kernel == "strided_copy":
        return strided_copy_tasks(<const strided_copy_members *>p)
    if kernel == "transpose":
        return transpose_tasks(<const transpose_members *>p)
    if kernel == "fill":
        return fill_tasks(<const fill_members *>p)
    if kernel == "multiply_adds":
        return multiply_adds_tasks(<const multiply_adds_members *>p)
    if kernel == "copies":
        return copies_tasks(<const copies_members *>p)
    if kernel == "dropout":
        return dropout_tasks(<const dropout_members *>p)
    if kernel == "sgd":
        return sgd_tasks(<const sgd_members *>p)
    if kernel == "adam":
        return adam_tasks(<const adam_members *>p)
    if kernel == "rmsprop":
        return rmsprop_tasks(<const rmsprop_members *>p)
    raise ValueError(f"[kernel_tasks] {kernel!r} is a convolution kernel; see conv_sizes")


# Default sizes of tasks, from the sizes of the operation only. A task is to take 10 to 100 us.

cdef int64_t TASK_ELEMENTS = 16384  # read, or written where that is more
cdef int64_t MOST_PARTS = 64        # that a reduction is cut into


cdef int64_t blocks_within(int64_t work, int64_t most):
    """How many units of so much work make a task; not more than there are."""
    return max(1, min(most, TASK_ELEMENTS // max(1, work)))


def reduce_blocks(int64_t outer, int64_t reduce, int64_t inner):
    """Default parts, outer_block and inner_block of reduce, as a dict."""
    cdef int64_t columns = min(inner, 512), blocks = outer * conv_blocks(inner, columns), parts = 1
    if blocks < 16:
        parts = max(1, min(outer * reduce * inner // (2 * TASK_ELEMENTS), MOST_PARTS, reduce))
    return {"parts": parts, "outer_block": blocks_within(conv_blocks(reduce, parts) * columns, outer), "inner_block": columns}


def softmax_blocks(int64_t outer, int64_t axis, int64_t inner):
    """Default outer_block and inner_block of softmax and softmax_backward, as a dict."""
    cdef int64_t columns = min(inner, 256)
    return {"outer_block": blocks_within(axis * columns, outer), "inner_block": columns}


def row_products_blocks(int64_t outs, int64_t reds):
    """Default out_block of row_products, as a dict: half a MiB of the matrix, which memory gives in some 30 us."""
    return {"out_block": max(16, min(conv_round(outs, 16), 131072 // max(1, reds) // 16 * 16))}


def most_rows():
    """Rows that row_products takes."""
    return ROW_PRODUCTS_ROWS


def cross_entropy_blocks(int64_t rows, int64_t classes):
    """Default rows_per_task of cross_entropy and cross_entropy_backward, as a dict."""
    return {"rows_per_task": blocks_within(classes, rows)}


def window_blocks(int64_t rows, int64_t cols, int64_t c, int64_t taps):
    """Default rows_per_task and channel_block of max_pool, max_pool_backward and resample, as a dict.

    rows and cols of the array that is written (rows of all images together); taps: elements that a pixel is made of, on
    average. Going backward through max_pool: 1.
    """
    cdef int64_t channels = min(c, 256)
    if rows * cols == 1:  # a global pool of one image: only channels can be shared out
        channels = min(c, max(64, blocks_within(taps, c) // 64 * 64))
    return {"rows_per_task": blocks_within(cols * channels * max(1, taps), rows), "channel_block": channels}


def batch_norm_blocks(int64_t rows, int64_t c):
    """Default part_rows and rows_per_task of the batch_norm kernels, for rows that are no images, as a dict."""
    cdef int64_t parts = max(1, min(rows * c // (2 * TASK_ELEMENTS), MOST_PARTS, rows))
    return {"image_rows": rows, "part_rows": conv_blocks(rows, parts), "near": 0, "rows_per_task": blocks_within(c, rows)}


def batch_norm_workspace(bytes params not None):
    """Bytes of the partial results of batch_norm kernels with these params."""
    cdef const batch_norm_members *p = <const batch_norm_members *><const char *>params
    if len(params) != sizeof(batch_norm_members):
        raise ValueError(f"[batch_norm_workspace] these are not params of batch_norm kernels: {len(params)} bytes")
    return batch_norm_parts(p) * 2 * p.c * 4


def transpose_blocks(int64_t rows, int64_t cols):
    """Default row_block and col_block of transpose, as a dict."""
    cdef int64_t row_block = min(rows, max(128, conv_round(TASK_ELEMENTS // max(1, cols), 16)))
    return {"row_block": row_block, "col_block": min(cols, conv_round(max(16, TASK_ELEMENTS // row_block), 16))}
