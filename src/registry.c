#include "registry.h"

#include <string.h>

const struct kernel_entry kernel_entries[] = {
#define X(name, params, buffers) {#name, (int64_t)sizeof(params), buffers},
    KERNELS(X)
#undef X
};

int64_t kernel_count(void) { return KERNEL_COUNT; }

/* The instruction sets that setup.py compiles for this architecture (its INSTRUCTION_SETS), the best first. */
#if defined(__x86_64__) || defined(_M_X64)
#define ISAS(X) X(avx512) X(avx2) X(sse2)
#elif defined(__aarch64__)
#define ISAS(X) X(neon)
#else
#define ISAS(X) X(generic)
#endif

#define X(name) extern const struct kernel_table kernel_table_##name;
ISAS(X)
#undef X

const struct isa_entry isa_entries[] = {
#define X(name) {#name, &kernel_table_##name},
    ISAS(X)
#undef X
};

int64_t isa_count(void) { return (int64_t)(sizeof isa_entries / sizeof *isa_entries); }

int isa_supported(int64_t isa) {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_cpu_init();
    if (strcmp(isa_entries[isa].name, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(isa_entries[isa].name, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)isa;
    return 1; /* the baseline of the architecture */
}
