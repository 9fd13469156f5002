/* Reductions along one axis (reduce.h); the trees themselves are in reduce_tree.h. */
#include "reduce.h"
#include "reduce_tree.h"

/* Few contiguous columns: several rows are taken as one wide row, whose columns are folded at the end. */
ALWAYS_INLINE void reduce_narrow(int64_t kind, const float *x, int64_t rows, int64_t columns, float *result) {
    const int64_t fold = REDUCE_COLUMNS / 8 / columns, wide = fold * columns;
    float folded[REDUCE_COLUMNS / 8 + VL];
    reduce_columns(kind, x, rows / fold, wide, wide, folded);
    for (int64_t c = 0; c < columns; c++) {
        vf total = vf_set1(folded[c]);
        for (int64_t f = 1; f < fold; f++) total = reduce_combine(kind, total, vf_set1(folded[f * columns + c]));
        for (int64_t r = rows - rows % fold; r < rows; r++)
            total = reduce_combine(kind, total, vf_set1(x[r * columns + c]));
        result[c] = total[0];
    }
}

/* One task: slices of `outer`, `rows` of the axis, `columns` of inner. */
ALWAYS_INLINE void reduce_task(int64_t kind, const float *x, float *y, int64_t slices, int64_t slice_stride,
                               int64_t rows, int64_t inner, int64_t columns, float divisor) {
    float result[REDUCE_COLUMNS + VL];
    for (int64_t s = 0; s < slices; s++, x += slice_stride, y += inner) {
        if (inner == 1) {
            *y = reduce_row(kind, x, rows) / divisor;
            continue;
        }
        if (inner <= REDUCE_COLUMNS / 16 && inner == columns) reduce_narrow(kind, x, rows, columns, result);
        else reduce_columns(kind, x, rows, inner, columns, result);
        int64_t c = 0;
        for (; c + VL <= columns; c += VL) vf_store(y + c, vf_load(result + c) / divisor);
        if (c < columns) vf_store_first(y + c, vf_load(result + c) / divisor, columns - c);
    }
}

void KERNEL(reduce)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct reduce_params *p = params;
    const int64_t inner_blocks = ceil_div(p->inner, p->inner_block);
    const int64_t outer_blocks = ceil_div(p->outer, p->outer_block);
    const int64_t column = task % inner_blocks * p->inner_block;
    const int64_t slice = task / inner_blocks % outer_blocks * p->outer_block;
    const int64_t part = task / inner_blocks / outer_blocks;
    const int64_t begin = part * p->reduce / p->parts, end = (part + 1) * p->reduce / p->parts;
    const int64_t slices = min_i64(p->outer_block, p->outer - slice);
    const int64_t columns = min_i64(p->inner_block, p->inner - column);
    const float *x = (const float *)buffers[0] + (slice * p->reduce + begin) * p->inner + column;
    float *y = (float *)buffers[1] + (part * p->outer + slice) * p->inner + column;
    switch (p->kind) {
#define CASE(k)                                                                                                        \
    case k: reduce_task(k, x, y, slices, p->reduce * p->inner, end - begin, p->inner, columns, p->divisor); break;
        CASE(REDUCE_SUM)
        CASE(REDUCE_MAX)
        CASE(REDUCE_MIN)
        CASE(REDUCE_PROD)
#undef CASE
    }
}
