/* Merging tokens that say nearly the same, between a layer's attention and its feed-forward. */
#ifndef EMBEDKIT_MERGE_H
#define EMBEDKIT_MERGE_H

#include "../native.h"
#ifdef SET
#include "set.h"
#endif

/* No sequence gets shorter than this by merging, so that short texts stay as they are; FEWEST_TOKENS in library.py. */
#define FEWEST_TOKENS 32

/* What merging knows of the rows of a chunk. Owners are of its tokens, as they were before anything was merged. */
struct merging {
    float *sizes;    /* (rows,) tokens that a row stands for */
    float *added;    /* (rows,) what that adds to scores: sqrt(head size) ln(size) */
    int32_t *owners; /* (tokens,) the row, within its sequence, that stands for a token */
    void *scratch;
};

/* Begin with every token for itself. */
static inline void start_merging(struct merging *w, int64_t row, int64_t length) {
    for (int64_t t = 0; t < length; t++) {
        w->sizes[row + t] = 1.0f;
        w->added[row + t] = 0.0f;
        w->owners[row + t] = (int32_t)t;
    }
}

/* Say how many of a sequence's rows are merged into others where `share` of them may be. */
static inline int64_t count_merges(int64_t length, double share) {
    int64_t count = (int64_t)(share * (double)length);
    int64_t most = length - FEWEST_TOKENS, pairs = (length - 2) / 2; /* as many rows has the first set */
    if (count > most) count = most;
    if (count > pairs) count = pairs;
    return count < 0 ? 0 : count;
}

/* Of `struct set`: the memory that merging needs, and merging itself: `count` rows of the sequence of `length` rows from
 * `row` on, which moves to `to`; `hidden` has rows of `stride` numbers. `owners` are those of its `tokens` tokens. Returns
 * the rows that are left. */
#ifdef SET
int64_t OF_SET(merge_scratch_bytes)(int64_t length, int64_t stride);
int64_t OF_SET(merge_sequence)(struct merging *w, float *hidden, int64_t stride, int64_t head_size, int64_t row,
                               int64_t length, int64_t to, int64_t count, int32_t *owners, int64_t tokens);
#endif

#endif
