/* gemm_tile.h for every number of rows up to MR; VECTORS is set by the includer. Every number exists, so that the rows
 * of a task are shared out evenly: 49 pixels are tiles of 13, 12, 12 and 12 rows, not 14, 14, 14 and 7. */
#define ROWS 1
#include "gemm_tile.h"
#undef ROWS
#define ROWS 2
#include "gemm_tile.h"
#undef ROWS
#define ROWS 3
#include "gemm_tile.h"
#undef ROWS
#define ROWS 4
#include "gemm_tile.h"
#undef ROWS
#define ROWS 5
#include "gemm_tile.h"
#undef ROWS
#define ROWS 6
#include "gemm_tile.h"
#undef ROWS
#if MR > 6
#define ROWS 7
#include "gemm_tile.h"
#undef ROWS
#define ROWS 8
#include "gemm_tile.h"
#undef ROWS
#define ROWS 9
#include "gemm_tile.h"
#undef ROWS
#if !defined(TILE_HALF) || VECTORS < 3
#define ROWS 10
#include "gemm_tile.h"
#undef ROWS
#define ROWS 11
#include "gemm_tile.h"
#undef ROWS
#define ROWS 12
#include "gemm_tile.h"
#undef ROWS
#define ROWS 13
#include "gemm_tile.h"
#undef ROWS
#define ROWS 14
#include "gemm_tile.h"
#undef ROWS
#endif
#endif
