/* A step of a chunk, cut into parts that its own thread takes, and threads that have nothing else to do.
 *
 * Nobody waits for a thread to come: who is there takes parts until there are none left. A step is over when all of its parts are
 * done, which its own thread alone waits for.
 */
#ifndef EMBEDKIT_SHARING_H
#define EMBEDKIT_SHARING_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define PART_BITS 24

struct sharing {
    atomic_llong left; /* parts that nobody has taken; above PART_BITS the number of the step, so that no value comes twice */
    atomic_llong done; /* parts of the step */
};

/* Open a step: what is written before is seen by whoever takes a part. */
static inline void open_step(struct sharing *s, int64_t parts) {
    int64_t step = (atomic_load_explicit(&s->left, memory_order_relaxed) >> PART_BITS) + 1;
    atomic_store_explicit(&s->done, 0, memory_order_relaxed);
    atomic_store_explicit(&s->left, step << PART_BITS | parts, memory_order_release);
}

/* Take a part; -1 if there is none. */
static inline int64_t take_part(struct sharing *s) {
    long long left = atomic_load_explicit(&s->left, memory_order_relaxed);
    do {
        if (!(left & (((int64_t)1 << PART_BITS) - 1))) return -1;
    } while (!atomic_compare_exchange_weak_explicit(&s->left, &left, left - 1, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return (left & (((int64_t)1 << PART_BITS) - 1)) - 1;
}

static inline void end_part(struct sharing *s) { atomic_fetch_add_explicit(&s->done, 1, memory_order_release); }

/* Wait a moment: first without giving the processor away, for what takes microseconds, then to whoever wants it. */
#define SPINS 200
static inline void rest(int64_t *times) {
    if (++*times > SPINS) {
        sched_yield();
        return;
    }
    for (int i = 0; i < 16; i++)
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
}

static inline void close_step(struct sharing *s, int64_t parts) {
    int64_t times = 0;
    while (atomic_load_explicit(&s->done, memory_order_acquire) < parts) rest(&times);
}

#endif
