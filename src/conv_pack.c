/* Packs weights, or a matrix, into the panels that the GEMM micro-kernel streams (layout in conv.h). */
#include "conv.h"
#include "isa.h"

/* Reductions are read in blocks, so that the cache lines of the outs of a panel stay in L1 while their floats are
 * scattered over the panel's rows. */
enum { PACK_BLOCK = 64 };

void KERNEL(pack_panels)(const void *params, void *const *buffers, int64_t task, void *scratch) {
    (void)scratch;
    const struct pack_panels_params *p = params;
    const int64_t width = p->panel_width, panels = ceil_div(p->outs, width);
    const int64_t group = task / panels, panel = task % panels;
    const int64_t lanes = min_i64(width, p->outs - panel * width);
    const float *source = (const float *)buffers[0] + p->offset + group * p->group_stride + panel * width * p->out_stride;
    float *target = (float *)buffers[1] + task * p->tap_rows * p->tap_cols * p->reds * width;
    for (int64_t r = 0; r < p->tap_rows; r++)
        for (int64_t s = 0; s < p->tap_cols; s++) {
            const float *tap = source + r * p->tap_row_stride + s * p->tap_col_stride;
            if (p->out_stride == 1) {
                for (int64_t i = 0; i < p->reds; i++, target += width)
                    for (int64_t lane = 0; lane < width; lane += VL)
                        vf_store(target + lane, vf_load_first(tap + i * p->red_stride + lane,
                                                              max_i64(0, min_i64(VL, lanes - lane))));
                continue;
            }
            for (int64_t begin = 0; begin < p->reds; begin += PACK_BLOCK) {
                int64_t count = min_i64(PACK_BLOCK, p->reds - begin);
                for (int64_t lane = 0; lane < lanes; lane++) {
                    const float *line = tap + begin * p->red_stride + lane * p->out_stride;
                    for (int64_t i = 0; i < count; i++) target[i * width + lane] = line[i * p->red_stride];
                }
                for (int64_t i = 0; i < count; i++)
                    for (int64_t lane = lanes; lane < width; lane++) target[i * width + lane] = 0;
                target += count * width;
            }
        }
}
