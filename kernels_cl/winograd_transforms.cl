// Winograd's transforms of the VEC channels of one tile, shared by winograd.cl and winograd_fused.cl; matrices and tiles: winograd_tile.cl.
//
// A tile's SIDE x SIDE vectors do not fit the registers, so both directions of a transform go through private memory.

// V = B^T d B.  x: the images' first channel of these; frequency f goes to v + f*frequency_stride.
inline void transform_input(
    __global const float *x, const corner_of_tile corner, const int pad_top, const int pad_left, const int x_rows, const int x_columns,
    const int channels, const int lanes, __global float *v, const int frequency_stride)
{
    const int first_row = corner.row - pad_top, first_column = corner.column - pad_left;
    const int row_stride = x_columns * channels;
    const int inside = first_row >= 0 && first_row + SIDE <= x_rows && first_column >= 0 && first_column + SIDE <= x_columns;
    x += (corner.image * x_rows + first_row) * row_stride + first_column * channels;

    float half_done[FREQUENCIES * VEC];
    for (int s = 0; s < SIDE; ++s) {
        __global const float *at = x + s * channels;
#define DECLARE_INPUT(r) real d##r;
        EACH(SIDE, DECLARE_INPUT)
        if (inside && lanes == VEC) {
#define LOAD_INSIDE(r) d##r = load(at + r * row_stride);
            EACH(SIDE, LOAD_INSIDE)
        } else {
#define LOAD_CHECKED(r) \
            if ((uint)(first_row + r) < (uint)x_rows && (uint)(first_column + s) < (uint)x_columns) \
                d##r = load_some(at + r * row_stride, lanes); \
            else \
                d##r = (real)(0.0f);
            EACH(SIDE, LOAD_CHECKED)
        }
        INPUT_LINE
#define KEEP_INPUT(n) store_private(r##n, half_done + (SIDE * n + s) * VEC);
        EACH(SIDE, KEEP_INPUT)
    }
    for (int n = 0; n < SIDE; ++n) {
#define LOAD_LINE(s) const real d##s = load_private(half_done + (SIDE * n + s) * VEC);
        EACH(SIDE, LOAD_LINE)
        INPUT_LINE
#define STORE_INPUT(k) store_some(r##k, v + (SIDE * n + k) * frequency_stride, lanes);
        EACH(SIDE, STORE_INPUT)
    }
}

#if TAPS == 4

// Channels of all four phases of a pixel, and what is left over.
#define PHASE_LANES 16

// The same for a convolution with stride 2: the tile's pixel (i, j) has the lanes of the phases x[2i + a, 2j + b] side by side, (a, b) = (0, 1), (0, 0),
// (1, 0), (1, 1) as in src/winograd.h, `channels` of each, at most PHASE_LANES together.  x: the images' first channel.  pixels: FREQUENCIES*PHASE_LANES floats.
inline void transform_phases(
    __global const float *x, const corner_of_tile corner, const int pad_top, const int pad_left, const int x_rows, const int x_columns,
    const int channels, __private float *pixels, __global float *v, const int frequency_stride)
{
    const int first_row = 2 * corner.row - pad_top, first_column = 2 * corner.column - pad_left;
    const int last_row = first_row + 2 * SIDE, last_column = first_column + 2 * SIDE;
    const int row_stride = x_columns * channels;
    // Four floats are copied, of which the next phase overwrites those that are too many.
    const int inside = first_row >= 0 && first_column >= 0 && last_row <= x_rows && last_column <= x_columns - (last_row == x_rows ? 3 : 0);
    x += (corner.image * x_rows + first_row) * row_stride + first_column * channels;

    for (int place = 0; place < FREQUENCIES; ++place) {
        const int i = place / SIDE, j = place - i * SIDE;
        __private float *pixel = pixels + place * PHASE_LANES;
        __global const float *at = x + 2 * (i * row_stride + j * channels);
        if (inside) {
            store_quad_private(load_quad(at + channels), pixel);
            store_quad_private(load_quad(at), pixel + channels);
            store_quad_private(load_quad(at + row_stride), pixel + 2 * channels);
            store_quad_private(load_quad(at + row_stride + channels), pixel + 3 * channels);
            continue;
        }
        for (int phase = 0; phase < 4; ++phase) {
            const int a = phase / 2, b = phase == 0 || phase == 3;
            const int found = (uint)(first_row + 2 * i + a) < (uint)x_rows && (uint)(first_column + 2 * j + b) < (uint)x_columns;
            for (int channel = 0; channel < channels; ++channel)
                pixel[phase * channels + channel] = found ? at[a * row_stride + b * channels + channel] : 0.0f;
        }
    }

    float half_done[FREQUENCIES * VEC];
    for (int lane = 0; lane < 4 * channels; lane += VEC) {
        for (int s = 0; s < SIDE; ++s) {
#define LOAD_PIXEL(r) const real d##r = load_private(pixels + (SIDE * r + s) * PHASE_LANES + lane);
            EACH(SIDE, LOAD_PIXEL)
            INPUT_LINE
            EACH(SIDE, KEEP_INPUT)
        }
        for (int n = 0; n < SIDE; ++n) {
            EACH(SIDE, LOAD_LINE)
            INPUT_LINE
#define STORE_PHASES(k) store(r##k, v + (SIDE * n + k) * frequency_stride + lane);
            EACH(SIDE, STORE_PHASES)
        }
    }
}

#endif

// y = activation(A^T M A + bias + residual) of the places of a tile that are inside.  y, residual: the images' first channel of these.
inline void transform_output(
    __global const float *m, const int frequency_stride, const real bias, __global const float *residual, const int has_residual,
    __global float *y, const corner_of_tile corner, const int y_rows, const int y_columns, const int channels, const int lanes,
    const float alpha, const float beta)
{
    const int rows = min(TILE, y_rows - corner.row), columns = min(TILE, y_columns - corner.column);
    const int first_place = ((corner.image * y_rows + corner.row) * y_columns + corner.column) * channels;

    float half_done[TILE * SIDE * VEC], results[TILE * VEC];
    for (int s = 0; s < SIDE; ++s) {
#define LOAD_PRODUCT(r) const real d##r = load_some(m + (SIDE * r + s) * frequency_stride, lanes);
        EACH(SIDE, LOAD_PRODUCT)
        FROM_POINTS(TILE)
#define KEEP_OUTPUT(n) store_private(r##n, half_done + (SIDE * n + s) * VEC);
        EACH(TILE, KEEP_OUTPUT)
    }
    for (int n = 0; n < rows; ++n) {
        EACH(SIDE, LOAD_LINE)
        FROM_POINTS(TILE)
#define KEEP_RESULT(k) store_private(r##k, results + k * VEC);
        EACH(TILE, KEEP_RESULT)
        for (int k = 0; k < columns; ++k) {
            const int place = first_place + (n * y_columns + k) * channels;
            real value = load_private(results + k * VEC) + bias;
            if (has_residual)
                value += load_some(residual + place, lanes);
            store_some(activate(value, alpha, beta), y + place, lanes);
        }
    }
}
