/* Stored vectors, and what a search among them needs. */
#ifndef EMBEDKIT_SEARCH_H
#define EMBEDKIT_SEARCH_H

#include <stddef.h>

#include "../native.h"
#ifdef SET
#include "set.h"
#endif

/* `_Stored` of search.py. */
struct stored {
    const void *codes;   /* (N, E) */
    const float *scales; /* (E,) of bytes */
    int64_t storage, dimension, squared;
};

#define SCAN_ROWS 96 /* of which the products, and the rows themselves, stay in the second-level cache */

/* What a scan needs beside its results: products, and rows that cannot be used where they lie. */
struct scan_memory {
    float *products; /* (SCAN_ROWS, Q) */
    float *vectors;  /* (SCAN_ROWS, E) */
};

/* Divide `memory`; with NULL, only count. */
static inline int64_t divide_scan(struct scan_memory *m, int64_t num_queries, int64_t dimension, char *memory) {
    int64_t products = SCAN_ROWS * padded(num_queries) * 4;
    m->products = (float *)memory;
    m->vectors = (float *)(memory ? memory + products : NULL);
    return products + SCAN_ROWS * padded(dimension) * 4;
}

#ifdef SET
void OF_SET(score_pairs)(const struct stored *v, const float *queries, int64_t num_queries, const int64_t *rows,
                         int64_t per_query, float *scores);
void OF_SET(scan)(const struct stored *v, const struct linear *queries, int64_t few, const float *norms, int64_t first,
                  int64_t last, const uint8_t *allowed, int64_t k, float *least, float *scores, int64_t *found,
                  char *memory);
#endif

#endif
