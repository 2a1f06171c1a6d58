/* MaxSim: the sum over a query's tokens of the largest cosine with any token of a row, by what an index stores of each token. */
#ifndef EMBEDKIT_MAXSIM_H
#define EMBEDKIT_MAXSIM_H

#include <stddef.h>

#include "../native.h"
#ifdef SET
#include "set.h"
#endif

/* `_Tokens` of maxsim.py: what token vectors are told by. A vector is its centroid and, times `scales` and the gain of its first byte,
 * the numbers that its other bytes stand for; then it is brought to unit length. */
struct tokens {
    const float *centroids; /* (C, width) */
    const float *scales;    /* (width,) zeros beyond the dimension */
    const float *table;     /* (256, per_byte) */
    const float *gains;     /* (256,) */
    int64_t num_centroids, dimension, width, per_byte, row_bytes;
};

/* `_Query` of maxsim.py: a query's tokens as columns, filled up with zeros. */
struct token_query {
    const float *columns; /* (D, filled) */
    int64_t filled;       /* a multiple of LANES */
};

/* `_Rows` of maxsim.py: the tokens of a segment's rows. Row i has those from starts[i] to before starts[i + 1]. */
struct token_rows {
    const uint16_t *ids;  /* (T,) the centroid of each token */
    const uint8_t *codes; /* (T, row_bytes) */
    const int64_t *starts;
};

#define TOKENS_TOGETHER 48 /* tokens that are decoded before they are multiplied: 24 KB of 128 dimensions */

/* What scoring needs: decoded tokens and one over their norms, products of a few, and the largest of all. */
struct maxsim_memory {
    float *vectors, *inverse, *products, *best;
};

/* Divide `memory`; with NULL, only count. */
static inline int64_t divide_maxsim(struct maxsim_memory *m, int64_t width, int64_t filled, char *memory) {
    int64_t vectors = TOKENS_TOGETHER * width * 4, inverse = TOKENS_TOGETHER * 4 / 64 * 64 + 64, products = 8 * filled * 4;
    m->vectors = (float *)memory;
    m->inverse = (float *)(memory ? memory + vectors : NULL);
    m->products = (float *)(memory ? memory + vectors + inverse : NULL);
    m->best = (float *)(memory ? memory + vectors + inverse + products : NULL);
    return vectors + inverse + products + filled * 4;
}

#ifdef SET
void OF_SET(centroid_products)(const struct tokens *t, const struct token_query *q, float *to);
void OF_SET(score_tokens)(const struct tokens *t, const struct token_query *q, const struct token_rows *rows,
                          const int64_t *positions, int64_t count, float *scores, char *memory);
void OF_SET(score_centroids)(const float *products, int64_t filled, const struct token_rows *rows, const int64_t *positions,
                             int64_t count, float *scores);
#endif

#endif
