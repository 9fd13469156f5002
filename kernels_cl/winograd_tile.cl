// Tiles of Winograd's minimal filtering F(TILE x TILE, TAPS x TAPS) and its matrices, line by line, shared by winograd.cl and winograd_gradient.cl
// (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016, section 4).
//
// Points: 0, 1, -1, infinity; from TILE 4 on also 2, -2; for 6 also 1/2, -1/2; for 4 TAPS all of these but 0.  Points in pairs of either sign
// share even and odd parts.
//
//   INPUT_LINE    B^T d    SIDE values     FILTER_LINE   G g      SIDE values      each reads d0, d1, ... (FILTER_LINE: g0, g1, g2) and
//   OUTPUT_LINE   A^T m    TILE values     GATHER_LINE   G^T u    3 values         calls F(n, value) with its results
//   SPREAD_LINE   A e      SIDE values
//
// TILE  outputs of a tile at a side; 2, 4 or 6: 4/9, 1/4, 16/81 of the multiplications of the direct method.  Others have no matrices here, and
//       with more points float32 loses too much.
// TAPS  of a filter at a side: 3, or 4 with TILE 4: a phase of a 7x7 convolution with stride 2 (winograd_fused.cl), whose filters the host transforms.
#ifndef TILE
#define TILE 4
#endif
#ifndef TAPS
#define TAPS 3
#endif

#if TAPS == 4

#define SIDE 7
#define INPUT_LINE(F) { \
    const real even = d4 - 4.25f * d2 + d0, odd = d5 - 4.25f * d3 + d1; \
    const real far_even = 2.0f * d4 - 2.5f * d2 + 0.5f * d0, far_odd = d5 - 1.25f * d3 + 0.25f * d1; \
    const real half_even = 0.5f * d4 - 2.5f * d2 + 2.0f * d0, half_odd = d5 - 5.0f * d3 + 4.0f * d1; \
    F(0, odd + even) \
    F(1, odd - even) \
    F(2, far_odd + far_even) \
    F(3, far_odd - far_even) \
    F(4, half_odd + half_even) \
    F(5, half_odd - half_even) \
    F(6, d6 - d0 + 5.25f * (d2 - d4)) \
}
#define OUTPUT_LINE(F) { \
    const real sum1 = d0 + d1, difference1 = d0 - d1, sum2 = d2 + d3, difference2 = d2 - d3, sum3 = d4 + d5, difference3 = d4 - d5; \
    F(0, sum1 + sum2 + sum3) \
    F(1, difference1 + 2.0f * difference2 + 0.5f * difference3) \
    F(2, sum1 + 4.0f * sum2 + 0.25f * sum3) \
    F(3, difference1 + 8.0f * difference2 + 0.125f * difference3 + d6) \
}

#elif TILE == 2

#define SIDE 4
#define INPUT_LINE(F) { \
    F(0, d0 - d2) \
    F(1, d2 + d1) \
    F(2, d2 - d1) \
    F(3, d3 - d1) \
}
#define OUTPUT_LINE(F) { \
    F(0, d0 + d1 + d2) \
    F(1, d1 - d2 + d3) \
}
#define FILTER_LINE(F) { \
    const real even = (g0 + g2) * 0.5f, odd = g1 * 0.5f; \
    F(0, g0) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, g2) \
}
#define SPREAD_LINE(F) { \
    F(0, d0) \
    F(1, d0 + d1) \
    F(2, d0 - d1) \
    F(3, d1) \
}
#define GATHER_LINE(F) { \
    const real near = (d1 + d2) * 0.5f; \
    F(0, d0 + near) \
    F(1, (d1 - d2) * 0.5f) \
    F(2, near + d3) \
}

#elif TILE == 4

#define SIDE 6
#define INPUT_LINE(F) { \
    const real even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, near = d4 - d2, far = 2.0f * (d3 - d1); \
    F(0, 4.0f * d0 - 5.0f * d2 + d4) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, near + far) \
    F(4, near - far) \
    F(5, 4.0f * d1 - 5.0f * d3 + d5) \
}
#define OUTPUT_LINE(F) { \
    const real sum1 = d1 + d2, difference1 = d1 - d2, sum2 = d3 + d4, difference2 = d3 - d4; \
    F(0, d0 + sum1 + sum2) \
    F(1, difference1 + 2.0f * difference2) \
    F(2, sum1 + 4.0f * sum2) \
    F(3, difference1 + 8.0f * difference2 + d5) \
}
#define FILTER_LINE(F) { \
    const real even = (g0 + g2) * (1.0f / 6.0f), odd = g1 * (1.0f / 6.0f); \
    const real half_even = g0 * (1.0f / 24.0f) + g2 * (1.0f / 6.0f), half_odd = g1 * (1.0f / 12.0f); \
    F(0, g0 * 0.25f) \
    F(1, -even - odd) \
    F(2, odd - even) \
    F(3, half_even + half_odd) \
    F(4, half_even - half_odd) \
    F(5, g2) \
}
#define SPREAD_LINE(F) { \
    const real even = d0 + d2, odd = d1 + d3, far_even = d0 + 4.0f * d2, far_odd = 2.0f * d1 + 8.0f * d3; \
    F(0, d0) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, far_even + far_odd) \
    F(4, far_even - far_odd) \
    F(5, d3) \
}
#define GATHER_LINE(F) { \
    const real near = (d1 + d2) * (1.0f / 6.0f), far = d3 + d4; \
    F(0, d0 * 0.25f - near + far * (1.0f / 24.0f)) \
    F(1, (d2 - d1) * (1.0f / 6.0f) + (d3 - d4) * (1.0f / 12.0f)) \
    F(2, far * (1.0f / 6.0f) - near + d5) \
}

#else

#define SIDE 8
#define INPUT_LINE(F) { \
    const real even = d2 + d6 - 4.25f * d4, odd = d1 + d5 - 4.25f * d3; \
    const real far_even = 0.25f * d2 - 1.25f * d4 + d6, far_odd = 0.5f * d1 - 2.5f * d3 + 2.0f * d5; \
    const real half_even = 4.0f * d2 - 5.0f * d4 + d6, half_odd = 2.0f * d1 - 2.5f * d3 + 0.5f * d5; \
    F(0, d0 - d6 + 5.25f * (d4 - d2)) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, far_even + far_odd) \
    F(4, far_even - far_odd) \
    F(5, half_even + half_odd) \
    F(6, half_even - half_odd) \
    F(7, d7 - d1 + 5.25f * (d3 - d5)) \
}
#define OUTPUT_LINE(F) { \
    const real sum1 = d1 + d2, difference1 = d1 - d2, sum2 = d3 + d4, difference2 = d3 - d4, sum3 = d5 + d6, difference3 = d5 - d6; \
    F(0, d0 + sum1 + sum2 + sum3) \
    F(1, difference1 + 2.0f * difference2 + 0.5f * difference3) \
    F(2, sum1 + 4.0f * sum2 + 0.25f * sum3) \
    F(3, difference1 + 8.0f * difference2 + 0.125f * difference3) \
    F(4, sum1 + 16.0f * sum2 + 0.0625f * sum3) \
    F(5, difference1 + 32.0f * difference2 + 0.03125f * difference3 + d7) \
}
#define FILTER_LINE(F) { \
    const real even = (g0 + g2) * (2.0f / 9.0f), odd = g1 * (2.0f / 9.0f); \
    const real far_even = g0 * (1.0f / 90.0f) + g2 * (2.0f / 45.0f), far_odd = g1 * (1.0f / 45.0f); \
    const real half_even = g0 * (32.0f / 45.0f) + g2 * (8.0f / 45.0f), half_odd = g1 * (16.0f / 45.0f); \
    F(0, g0) \
    F(1, -even - odd) \
    F(2, odd - even) \
    F(3, far_even + far_odd) \
    F(4, far_even - far_odd) \
    F(5, half_even + half_odd) \
    F(6, half_even - half_odd) \
    F(7, g2) \
}
#define SPREAD_LINE(F) { \
    const real even = d0 + d2 + d4, odd = d1 + d3 + d5; \
    const real far_even = d0 + 4.0f * d2 + 16.0f * d4, far_odd = 2.0f * d1 + 8.0f * d3 + 32.0f * d5; \
    const real half_even = d0 + 0.25f * d2 + 0.0625f * d4, half_odd = 0.5f * d1 + 0.125f * d3 + 0.03125f * d5; \
    F(0, d0) \
    F(1, even + odd) \
    F(2, even - odd) \
    F(3, far_even + far_odd) \
    F(4, far_even - far_odd) \
    F(5, half_even + half_odd) \
    F(6, half_even - half_odd) \
    F(7, d5) \
}
#define GATHER_LINE(F) { \
    const real near = (d1 + d2) * (2.0f / 9.0f), far = d3 + d4, half_way = d5 + d6; \
    F(0, d0 - near + far * (1.0f / 90.0f) + half_way * (32.0f / 45.0f)) \
    F(1, (d2 - d1) * (2.0f / 9.0f) + (d3 - d4) * (1.0f / 45.0f) + (d5 - d6) * (16.0f / 45.0f)) \
    F(2, far * (2.0f / 45.0f) + half_way * (8.0f / 45.0f) - near + d7) \
}

#endif

#define FREQUENCIES (SIDE * SIDE)

// Image, row and column of a tile's first output.
typedef struct { int image, row, column; } corner_of_tile;

inline corner_of_tile corner_of(const int tile, const int tile_rows, const int tile_columns) {
    const int line = tile / tile_columns, image = line / tile_rows;
    const corner_of_tile corner = {image, TILE * (line - image * tile_rows), TILE * (tile - line * tile_columns)};
    return corner;
}
