/* depthwise_tile.h for every number of columns up to DEPTHWISE_COLS; TAPS and STRIDE are set by the includer. */
#define COLS 1
#include "depthwise_tile.h"
#define COLS 2
#include "depthwise_tile.h"
#define COLS 3
#include "depthwise_tile.h"
#define COLS 4
#include "depthwise_tile.h"
