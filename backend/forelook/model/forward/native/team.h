/* A team of threads that run one function together, with barriers between its parts.
 *
 * A step of a small model has hundreds of parts of a few microseconds. So members spin at a barrier, and between steps for
 * a moment before they sleep.
 */
#ifndef FORELOOK_TEAM_H
#define FORELOOK_TEAM_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.h"

#define MAX_MEMBERS 64

/* Between two steps a request takes about half a millisecond elsewhere. Chosen, not measured. */
#define SPIN_NS 1000000L
/* At a barrier, before other programs get the core. Chosen, not measured. */
#define SPINS 4000

typedef void (*Work)(void *argument, int member, int size);

static struct {
    pthread_mutex_t running; /* one step at a time */
    pthread_mutex_t lock;    /* of what sleeping members wait for */
    pthread_cond_t changed;
    atomic_ulong order; /* number of the run, and in its last byte how many members it has */
    int num_started;    /* members besides the caller */
    int num_sleeping;
    Work work;
    void *argument;
    atomic_int num_done;
    atomic_int num_arrived;
    atomic_uint phase;
} team = {.running = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

INLINE void spin(int *num_spins)
{
    if (++*num_spins < SPINS)
        _mm_pause();
    else
        sched_yield();
}

/* Wait until all members are here; what each wrote before, all see after. */
static void team_meet(int size)
{
    if (size == 1)
        return;
    unsigned phase = atomic_load_explicit(&team.phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team.num_arrived, 1, memory_order_acq_rel) == size - 1) {
        atomic_store_explicit(&team.num_arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team.phase, phase + 1, memory_order_release);
        return;
    }
    int num_spins = 0;
    while (atomic_load_explicit(&team.phase, memory_order_acquire) == phase)
        spin(&num_spins);
}

static long now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

/* The next order after the one that a member has seen. */
static unsigned long next_order(unsigned long seen)
{
    long until = now_ns() + SPIN_NS;
    unsigned long order;
    for (int num_spins = 1; num_spins % 64 != 0 || now_ns() < until; num_spins++) {
        if ((order = atomic_load_explicit(&team.order, memory_order_acquire)) != seen)
            return order;
        _mm_pause();
    }
    pthread_mutex_lock(&team.lock);
    team.num_sleeping++;
    while ((order = atomic_load(&team.order)) == seen)
        pthread_cond_wait(&team.changed, &team.lock);
    team.num_sleeping--;
    pthread_mutex_unlock(&team.lock);
    return order;
}

typedef struct {
    int member;
    unsigned long seen;
} Member;

static Member members[MAX_MEMBERS];

static void *team_member(void *given)
{
    Member *self = given;
    for (;;) {
        self->seen = next_order(self->seen);
        int size = self->seen & 0xff;
        if (self->member < size) { /* the others may miss orders: nobody waits for them */
            team.work(team.argument, self->member, size);
            atomic_fetch_add_explicit(&team.num_done, 1, memory_order_release);
        }
    }
    return NULL;
}

/* The threads of a process do not exist in its forked child, and OpenMP does not know that. */
static bool is_forked;

static void team_forget(void)
{
    is_forked = true;
    pthread_mutex_init(&team.running, NULL);
    pthread_mutex_init(&team.lock, NULL);
    pthread_cond_init(&team.changed, NULL);
    team.num_started = team.num_sleeping = 0;
    atomic_store(&team.num_arrived, 0);
    atomic_store(&team.num_done, 0);
}

static void team_start(int size)
{
    while (team.num_started < size - 1 && team.num_started < MAX_MEMBERS - 1) {
        pthread_t thread;
        Member *member = &members[team.num_started + 1];
        member->member = team.num_started + 1;
        member->seen = atomic_load(&team.order);
        if (pthread_create(&thread, NULL, team_member, member) != 0)
            break;
        pthread_detach(thread);
        team.num_started++;
    }
}

/* Run work(argument, member, size) by `size` threads, the caller among them; fewer if the system gives no more.
 *
 * By OpenMP, if the compiler has it: torch's operators run on the same threads then. Threads of our own would share the
 * cores with those of OpenMP, which spin for milliseconds after each operator (a prompt took twice as long).
 */
static void team_run(int size, Work work, void *argument)
{
    static bool handles_forks;
    if (!handles_forks)
        handles_forks = pthread_atfork(NULL, NULL, team_forget) == 0;
#ifdef _OPENMP
    if (!is_forked && size > 1) {
#pragma omp parallel num_threads(size)
        work(argument, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    if (size > 1)
        team_start(size);
    if (size > team.num_started + 1)
        size = team.num_started + 1;
    if (size <= 1) {
        work(argument, 0, 1);
        return;
    }
    team.work = work;
    team.argument = argument;
    atomic_store_explicit(&team.num_done, 0, memory_order_relaxed);
    pthread_mutex_lock(&team.lock);
    unsigned long order = atomic_load_explicit(&team.order, memory_order_relaxed);
    atomic_store_explicit(&team.order, ((order >> 8) + 1) << 8 | (unsigned long)size, memory_order_release);
    if (team.num_sleeping)
        pthread_cond_broadcast(&team.changed);
    pthread_mutex_unlock(&team.lock);
    work(argument, 0, size);
    int num_spins = 0;
    while (atomic_load_explicit(&team.num_done, memory_order_acquire) < size - 1)
        spin(&num_spins);
}

#endif
