/* What is done to one token's row in every precision, and the set's other functions of that kind. Sizes are multiples of
 * sixteen. */
#include <math.h>

#include "maxsim.h"
#include "merge.h"
#include "search.h"
#include "set.h"

static void sum_rows(float *to, const float *a, const float *b, const float *c, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) {
        vec x = v_loadu(a + i);
        if (c) x = v_add(x, v_loadu(c + i));
        if (b) x = v_add(x, v_loadu(b + i));
        v_store(to + i, x);
    }
}

/* Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4. */
static void scale_row(float *to, const float *row, int64_t size, const float *weight, double eps) {
    vec squares = v_zero();
    for (int64_t i = 0; i < size; i += LANES) squares = v_fmadd(v_load(row + i), v_load(row + i), squares);
    vec factor = v_fill((float)(1.0 / sqrt((double)v_sum(squares) / (double)size + eps)));
    for (int64_t i = 0; i < size; i += LANES)
        v_store(to + i, v_mul(v_mul(v_load(row + i), factor), v_loadu(weight + i)));
}

static void norm_row(float *to, const float *row, int64_t size, const struct norm *norm, double eps) {
    if (!norm->bias) {
        scale_row(to, row, size, norm->weight, eps);
        return;
    }
    vec sum = v_zero(), squares = v_zero();
    for (int64_t i = 0; i < size; i += LANES) sum = v_add(sum, v_load(row + i));
    float mean = v_sum(sum) / (float)size;
    vec middle = v_fill(mean);
    for (int64_t i = 0; i < size; i += LANES) {
        vec x = v_sub(v_load(row + i), middle);
        squares = v_fmadd(x, x, squares);
    }
    double variance = (double)v_sum(squares) / (double)size;
    vec factor = v_fill((float)(1.0 / sqrt(variance + eps)));
    for (int64_t i = 0; i < size; i += LANES) {
        vec x = v_mul(v_sub(v_load(row + i), middle), factor);
        x = v_fmadd(x, v_loadu(norm->weight + i), v_loadu(norm->bias + i));
        v_store(to + i, x);
    }
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
