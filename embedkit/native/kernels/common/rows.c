/* What is done to one token's row in every precision, and the set's other functions of that kind. Sizes are multiples of
 * sixteen. */
#include "maxsim.h"
#include "merge.h"
#include "search.h"
#include "set.h"

typedef float input_t;
#define LOAD_NUMBERS(from) v_load(from)
#define STORE_NUMBERS(to, x) v_store(to, x)
#include "norm.h"

static void sum_rows(float *to, const float *a, const float *b, const float *c, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) {
        vec x = v_loadu(a + i);
        if (c) x = v_add(x, v_loadu(c + i));
        if (b) x = v_add(x, v_loadu(b + i));
        v_store(to + i, x);
    }
}

static void norm_row(float *to, const float *row, int64_t size, const struct norm *norm, double eps) {
    norm_numbers(to, row, norm, size, eps);
}

static void keep_largest(float *to, const float *rows, int64_t count, int64_t size, int begun) {
    for (int64_t i = 0; i < size; i += PANEL) {
        const float *from = rows + i;
        vec best[PANEL / LANES];
        for (int c = 0; c < PANEL / LANES; c++) best[c] = v_load((begun ? to + i : from) + c * LANES);
        for (int64_t row = begun ? 0 : 1; row < count; row++)
            for (int c = 0; c < PANEL / LANES; c++) best[c] = v_max(best[c], v_load(from + row * size + c * LANES));
        for (int c = 0; c < PANEL / LANES; c++) v_store(to + i + c * LANES, best[c]);
    }
}

const struct set OF_SET(set) = {
    .norm_row = norm_row,
    .sum_rows = sum_rows,
    .keep_largest = keep_largest,
    .merge_scratch_bytes = OF_SET(merge_scratch_bytes),
    .merge_sequence = OF_SET(merge_sequence),
    .score_pairs = OF_SET(score_pairs),
    .scan = OF_SET(scan),
    .centroid_products = OF_SET(centroid_products),
    .score_tokens = OF_SET(score_tokens),
    .score_centroids = OF_SET(score_centroids),
};
