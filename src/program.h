/* The program runner: an array of steps, run in one call, by one thread or by a team. */
#ifndef PYCL_CNN_PROGRAM_H
#define PYCL_CNN_PROGRAM_H

#include "kernels.h"

struct step {
    kernel_fn *kernel;
    const void *params;
    void **buffers;
    int64_t tasks;
    int64_t follows; /* whether its task t needs nothing of the step before but what that one's task t does; as many tasks */
};

/* Steps first..last-1 that are dealt out together, with as many tasks each: whoever takes task t runs that of every step. Neighbours
 * with one task are such a unit, and a step with those that follow it, which find what it wrote in the core's cache. */
struct unit {
    int64_t first, last, tasks;
};

/* How many tasks of a unit are finished. On a cache line of its own. */
struct progress {
    int64_t done;
    int64_t padding[7];
};

/* How many of a thread's share of the tasks of a unit were taken, by whomever. On a cache line of its own. */
struct share {
    int64_t taken;
    int64_t padding[7];
};

struct program {
    int64_t step_count, unit_count;
    struct step *steps;
    struct unit *units;        /* unit_count */
    struct progress *progress; /* step_count */
    struct share *shares;      /* step_count * threads */
    int64_t *finished;         /* step_count: nanoseconds at which a unit was finished, when profiling */
    int64_t *spent;            /* step_count: nanoseconds that all threads spent in a step, when profiling */
    int64_t most_tasks;        /* of any step */
    char *scratch;             /* threads * scratch_bytes */
    int64_t scratch_bytes;     /* of a thread, a multiple of 64 */
    int64_t threads;           /* threads that there is scratch for, and shares */
    int busy;                  /* taken by program_lock */
};

/* Fills units and most_tasks from the steps. */
void program_prepare(struct program *program);

/* Takes the program for the calling thread; 0 when another one has it. */
int program_lock(struct program *program);
void program_unlock(struct program *program);

/* Runs all steps by at most `threads` threads (no more than there is scratch for). The results do not depend on their
 * number. The caller holds the lock. */
void program_run(struct program *program, int64_t threads);

/* The same, and writes the nanoseconds of every step; steps of a unit share its time as they share that of its threads. */
void program_run_profiled(struct program *program, int64_t threads, int64_t *nanoseconds);

/* 1 when the extension was compiled with OpenMP; without it every program runs on one thread. */
int openmp_compiled(void);
int64_t openmp_threads(void);
int64_t openmp_processors(void); /* of this process, whatever the number of threads */

/* Memory for arenas and scratch: 64-byte aligned, on huge pages where it is large. */
void *memory_allocate(int64_t bytes);
void memory_free(void *memory);

#endif
