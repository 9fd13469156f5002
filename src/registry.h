/* Which kernels exist, and for which instruction sets: names, sizes of the params structs, one table per set. */
#ifndef PYCL_CNN_REGISTRY_H
#define PYCL_CNN_REGISTRY_H

#include "kernels.h"

struct kernel_entry {
    const char *name;
    int64_t params_bytes;
    int64_t buffers;
};
extern const struct kernel_entry kernel_entries[];
int64_t kernel_count(void);

/* Instruction sets that were compiled in, the best first. */
struct isa_entry {
    const char *name;
    const struct kernel_table *table;
};
extern const struct isa_entry isa_entries[];
int64_t isa_count(void);

/* Whether the processor that this process runs on has the instruction set. */
int isa_supported(int64_t isa);

#endif
