/* Elementwise operations (pointwise.h) over flat stretches. */
#include "pointwise.h"
#include "unary.h"

/* ---- one input ------------------------------------------------------------------------------------------------ */

void KERNEL(unary)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct unary_params *p = params;
    const int64_t begin = task * POINTWISE_ITEMS;
    const float *x = buffers[0];
    float *y = buffers[1];
    unary_run(p->kind, p->alpha, p->beta, x + begin, y + begin, min_i64(POINTWISE_ITEMS, p->size - begin));
}

void KERNEL(unary_backward)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct unary_params *p = params;
    const int64_t begin = task * POINTWISE_ITEMS;
    const float *dy = buffers[0], *x = buffers[1];
    float *dx = buffers[2];
    unary_gradient_run(p->kind, p->alpha, p->beta, dy + begin, x + begin, dx + begin,
                       min_i64(POINTWISE_ITEMS, p->size - begin));
}

/* ---- two inputs ----------------------------------------------------------------------------------------------- */

ALWAYS_INLINE vf binary_value(int64_t kind, vf a, vf b) {
    const vf one = vf_set1(1.0f), zero = vf_set1(0.0f);
    switch (kind) {
    case BINARY_ADD: return a + b;
    case BINARY_SUB: return a - b;
    case BINARY_MUL: return a * b;
    case BINARY_DIV: return a / b;
    case BINARY_MAX: return vf_maximum(a, b);
    case BINARY_MIN: return vf_minimum(a, b);
    case BINARY_POW: return vf_pow(a, b);
    case BINARY_EQ: return vf_select(a == b, one, zero);
    case BINARY_GT: return vf_select(a > b, one, zero);
    case BINARY_GE: return vf_select(a >= b, one, zero);
    default: return vf_select(b == zero, zero, a);
    }
}

/* Steps are 0 (the same number for all) or 1. */
ALWAYS_INLINE void binary_loop(int64_t kind, const float *a, int64_t a_step, const float *b, int64_t b_step, float *y,
                               int64_t count) {
    const vf a_first = vf_set1(*a), b_first = vf_set1(*b);
    int64_t i = 0;
    for (; i + VL <= count; i += VL)
        vf_store(y + i, binary_value(kind, a_step ? vf_load(a + i) : a_first, b_step ? vf_load(b + i) : b_first));
    if (i < count) {
        vf last = binary_value(kind, a_step ? vf_load_first(a + i, count - i) : a_first,
                               b_step ? vf_load_first(b + i, count - i) : b_first);
        vf_store_first(y + i, last, count - i);
    }
}

static void binary_run(int64_t kind, const float *a, int64_t a_step, const float *b, int64_t b_step, float *y,
                       int64_t count) {
    switch (kind) {
#define CASE(k)                                                                                                        \
    case k:                                                                                                            \
        if (a_step && b_step) binary_loop(k, a, 1, b, 1, y, count);                                                    \
        else if (a_step) binary_loop(k, a, 1, b, 0, y, count);                                                         \
        else if (b_step) binary_loop(k, a, 0, b, 1, y, count);                                                         \
        else binary_loop(k, a, 0, b, 0, y, count);                                                                     \
        break;
        CASE(BINARY_ADD)
        CASE(BINARY_SUB)
        CASE(BINARY_MUL)
        CASE(BINARY_DIV)
        CASE(BINARY_MAX)
        CASE(BINARY_MIN)
        CASE(BINARY_POW)
        CASE(BINARY_EQ)
        CASE(BINARY_GT)
        CASE(BINARY_GE)
        CASE(BINARY_KEEP)
#undef CASE
    }
}

/* Stretches up to this long are computed, then activated, while they lie in the first-level cache. */
#define BINARY_BLOCK 2048
/* Rows shorter than this are taken several at a time; an operand that does not lie dense is copied to a panel first. */
#define BINARY_SHORT_ROW 48
#define BINARY_PANEL 512

/* A place in the broadcast shape: coordinates, and the offsets of both operands. */
struct place {
    int64_t coordinate[6];
    int64_t a, b;
};

static struct place place_of(const struct binary_params *p, int64_t index) {
    struct place place = {.a = 0, .b = 0};
    for (int64_t d = p->rank - 1; d >= 0; d--) {
        place.coordinate[d] = index % p->shape[d];
        index /= p->shape[d];
        place.a += place.coordinate[d] * p->a_stride[d];
        place.b += place.coordinate[d] * p->b_stride[d];
    }
    return place;
}

/* Forward by `steps` along dimension d, at most to its end, which carries into the dimensions before it. */
static void advance(const struct binary_params *p, struct place *place, int64_t d, int64_t steps) {
    place->coordinate[d] += steps;
    place->a += steps * p->a_stride[d];
    place->b += steps * p->b_stride[d];
    for (; d > 0 && place->coordinate[d] == p->shape[d]; d--) {
        place->coordinate[d] = 0;
        place->coordinate[d - 1]++;
        place->a += p->a_stride[d - 1] - p->shape[d] * p->a_stride[d];
        place->b += p->b_stride[d - 1] - p->shape[d] * p->b_stride[d];
    }
}

/* Some short rows of an operand side by side; `source` tells which, so that repeated rows are copied once. */
struct panel {
    const float *source;
    int64_t rows;
    float elements[BINARY_PANEL];
};

static const float *panel_of(struct panel *panel, const float *source, int64_t row_stride, int64_t step, int64_t rows,
                             int64_t row) {
    if (step == 1 && row_stride == row) return source;
    if (row_stride != 0 || panel->source != source || panel->rows < rows) {
        float *element = panel->elements;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < row; k++) *element++ = source[r * row_stride + k * step];
        panel->source = source;
        panel->rows = rows;
    }
    return panel->elements;
}

void KERNEL(binary)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct binary_params *p = params;
    const float *a = buffers[0], *b = buffers[1];
    float *y = buffers[2];
    const int64_t last = p->rank - 1, row = p->shape[last];
    const int64_t a_step = p->a_stride[last], b_step = p->b_stride[last];
    const int64_t end = min_i64((task + 1) * POINTWISE_ITEMS, p->size);
    struct panel a_panel, b_panel;
    a_panel.source = b_panel.source = NULL;
    struct place place = place_of(p, task * POINTWISE_ITEMS);
    for (int64_t i = task * POINTWISE_ITEMS, count; i < end; i += count) {
        int64_t rows = 0;
        if (last > 0 && row < BINARY_SHORT_ROW && place.coordinate[last] == 0)
            rows = min_i64(min_i64(BINARY_PANEL, end - i) / row, p->shape[last - 1] - place.coordinate[last - 1]);
        if (rows > 1) {
            count = rows * row;
            const float *a_rows = panel_of(&a_panel, a + place.a, p->a_stride[last - 1], a_step, rows, row);
            const float *b_rows = panel_of(&b_panel, b + place.b, p->b_stride[last - 1], b_step, rows, row);
            binary_run(p->kind, a_rows, 1, b_rows, 1, y + i, count);
            advance(p, &place, last - 1, rows);
        } else {
            count = min_i64(min_i64(BINARY_BLOCK, end - i), row - place.coordinate[last]);
            binary_run(p->kind, a + place.a, a_step, b + place.b, b_step, y + i, count);
            advance(p, &place, last, count);
        }
        if (p->activation != ACTIVATION_NONE) unary_run(p->activation, p->alpha, p->beta, y + i, y + i, count);
    }
}
