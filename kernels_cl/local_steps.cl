// Sums in steps through local memory, shared by the tiled products.  A kernel says LOAD_STEP(step), which brings a step into buffer step % BUFFERS,
// and then
//
//     BEGIN_STEPS(count)
//     for (step ...) { BRING_STEP(step, count)  multiply what buffer step % BUFFERS holds  barrier }
//
//   one buffer:    load 0 | multiply 0 | load 1 | multiply 1 | ...           | is a barrier
//   two buffers:   load 0 | load 1, multiply 0 | load 2, multiply 1 | ...
//
// COLUMNS, LINES  work-items of a work-group along vectors and rows; COLUMNS*LINES a multiple of STEP/VEC.
// STEP            terms of a step; a multiple of VEC.
// BUFFERS         1 or 2.
#ifndef COLUMNS
#define COLUMNS 8
#endif
#ifndef LINES
#define LINES 16
#endif
#ifndef STEP
#define STEP 16
#endif
#ifndef BUFFERS
#define BUFFERS 1
#endif
#define ITEMS (COLUMNS * LINES)

#if BUFFERS == 2
// Into the buffer that was read before the last barrier, while the other one is multiplied.
#define BEGIN_STEPS(count) { if ((count) > 0) LOAD_STEP(0) barrier(CLK_LOCAL_MEM_FENCE); }
#define BRING_STEP(step, count) { if ((step) + 1 < (count)) LOAD_STEP((step) + 1) }
#else
#define BEGIN_STEPS(count)
#define BRING_STEP(step, count) { LOAD_STEP(step) barrier(CLK_LOCAL_MEM_FENCE); }
#endif
