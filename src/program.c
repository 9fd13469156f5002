/* The program runner and its thread team.
 *
 * A team of OpenMP threads goes through the units of a program together. Each has a share of the tasks, neighbours, which it
 * takes from an atomic counter, and then takes what others have left of theirs. Shares of successive units are alike: a
 * thread mostly reads what it has written, from its own cache. A thread that finds no task left waits until the last one of
 * the unit is finished, which is all the barrier there is: no thread waits for the others to arrive. Waiting spins, and yields the processor when it takes long, so that more
 * threads than processors still make progress.
 *
 * libgomp's threads do not survive fork(), and a parallel region in the child would wait for them forever. A child of a
 * process that has used the team runs its programs on one thread. */
#if !defined(_WIN32) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "program.h"

#include <stdlib.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef _WIN32
#include <malloc.h>
#include <windows.h>
#else
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#endif

enum { SPINS_BEFORE_YIELD = 4000, HUGE_PAGE = 2 << 20 };

void program_prepare(struct program *program) {
    program->unit_count = 0;
    program->most_tasks = 1;
    for (int64_t i = 0; i < program->step_count; i++) {
        const int64_t tasks = program->steps[i].tasks;
        if (tasks > program->most_tasks) program->most_tasks = tasks;
        struct unit *previous = program->units + program->unit_count - 1;
        if (program->unit_count > 0 && previous->tasks == tasks && (tasks == 1 || program->steps[i].follows))
            previous->last = i + 1;
        else
            program->units[program->unit_count++] = (struct unit){i, i + 1, tasks};
    }
}

int program_lock(struct program *program) { return !__atomic_exchange_n(&program->busy, 1, __ATOMIC_ACQUIRE); }
void program_unlock(struct program *program) { __atomic_store_n(&program->busy, 0, __ATOMIC_RELEASE); }

static int64_t now(void) {
    struct timespec time;
#ifdef _WIN32
    timespec_get(&time, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &time);
#endif
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A task of every step of a unit. */
static void run_task(struct program *program, const struct unit *unit, int64_t task, char *scratch, int profile) {
    for (int64_t s = unit->first; s < unit->last; s++) {
        const struct step *step = program->steps + s;
        const int64_t begin = profile ? now() : 0;
        step->kernel(step->params, step->buffers, task, scratch);
        if (profile) __atomic_add_fetch(&program->spent[s], now() - begin, __ATOMIC_RELAXED);
    }
}

static void run_alone(struct program *program, int profile) {
    for (int64_t i = 0; i < program->unit_count; i++) {
        const struct unit *unit = program->units + i;
        for (int64_t task = 0; task < unit->tasks; task++) run_task(program, unit, task, program->scratch, profile);
        if (profile) program->finished[i] = now();
    }
}

#ifdef _OPENMP

static int team_used, forked_after_team;

#ifndef _WIN32
static void in_child(void) {
    if (team_used) forked_after_team = 1;
}

__attribute__((constructor)) static void watch_fork(void) { pthread_atfork(NULL, NULL, in_child); }
#endif

static void wait_for(const int64_t *counter, int64_t value) {
    for (int64_t spins = 0; __atomic_load_n(counter, __ATOMIC_ACQUIRE) != value; spins++) {
        if (spins < SPINS_BEFORE_YIELD) {
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            __asm__ volatile("yield");
#endif
        } else {
#ifdef _WIN32
            SwitchToThread();
#else
            sched_yield();
#endif
        }
    }
}

static void raise_to(int64_t *value, int64_t least) {
    int64_t seen = __atomic_load_n(value, __ATOMIC_RELAXED);
    while (seen < least && !__atomic_compare_exchange_n(value, &seen, least, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

/* `most`: shares of a unit that there is room for, at least as many as threads in the team. */
static void run_in_team(struct program *program, int64_t most, int profile) {
    const int64_t me = omp_get_thread_num(), threads = omp_get_num_threads();
    char *scratch = program->scratch + me * program->scratch_bytes;
    for (int64_t i = 0; i < program->unit_count; i++) {
        const struct unit *unit = program->units + i;
        struct progress *progress = program->progress + i;
        struct share *shares = program->shares + i * most;
        int64_t mine = 0;
        for (int64_t owner = me, tried = 0; tried < threads; tried++, owner = (owner + 1) % threads) {
            const int64_t first = (unit->tasks * owner + threads - 1) / threads, last = (unit->tasks * (owner + 1) + threads - 1) / threads;
            while (first + __atomic_load_n(&shares[owner].taken, __ATOMIC_RELAXED) < last) {
                const int64_t task = first + __atomic_fetch_add(&shares[owner].taken, 1, __ATOMIC_RELAXED);
                if (task >= last) continue;
                run_task(program, unit, task, scratch, profile);
                mine++;
            }
        }
        if (mine) {
            if (profile) raise_to(&program->finished[i], now()); /* before others may begin what follows */
            __atomic_add_fetch(&progress->done, mine, __ATOMIC_ACQ_REL);
        }
        wait_for(&progress->done, unit->tasks);
    }
}

static void run(struct program *program, int64_t threads, int profile) {
    if (threads > program->threads) threads = program->threads;
    if (threads > program->most_tasks) threads = program->most_tasks;
    if (threads < 2 || forked_after_team) {
        run_alone(program, profile);
        return;
    }
    const int64_t count = program->unit_count;
    for (int64_t i = 0; i < count; i++) program->progress[i].done = 0;
    for (int64_t i = 0; i < count * threads; i++) program->shares[i].taken = 0;
    team_used = 1;
#pragma omp parallel num_threads((int)threads)
    run_in_team(program, threads, profile);
}

int openmp_compiled(void) { return 1; }
int64_t openmp_threads(void) { return omp_get_max_threads(); }
int64_t openmp_processors(void) { return omp_get_num_procs(); }

#else

static void run(struct program *program, int64_t threads, int profile) {
    (void)threads;
    run_alone(program, profile);
}

int openmp_compiled(void) { return 0; }
int64_t openmp_threads(void) { return 1; }
int64_t openmp_processors(void) { return 1; }

#endif

void program_run(struct program *program, int64_t threads) { run(program, threads, 0); }

void program_run_profiled(struct program *program, int64_t threads, int64_t *nanoseconds) {
    for (int64_t i = 0; i < program->step_count; i++) program->finished[i] = program->spent[i] = 0;
    int64_t last = now();
    run(program, threads, 1);
    for (int64_t i = 0; i < program->unit_count; i++) {
        const struct unit *unit = program->units + i;
        double spent = 1; /* clocks may stand still for as long as a step takes */
        for (int64_t s = unit->first; s < unit->last; s++) spent += (double)program->spent[s];
        for (int64_t s = unit->first; s < unit->last; s++)
            nanoseconds[s] = (int64_t)((double)(program->finished[i] - last) * ((double)program->spent[s] / spent));
        last = program->finished[i];
    }
}

void *memory_allocate(int64_t bytes) {
    if (bytes < 64) bytes = 64;
#ifdef _WIN32
    return _aligned_malloc((size_t)bytes, 64);
#else
    const int huge = bytes >= HUGE_PAGE / 2;
    void *memory = NULL;
    if (posix_memalign(&memory, huge ? HUGE_PAGE : 64, (size_t)bytes)) return NULL;
#ifdef MADV_HUGEPAGE
    if (huge) madvise(memory, (size_t)bytes, MADV_HUGEPAGE);
#endif
    return memory;
#endif
}

void memory_free(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}
