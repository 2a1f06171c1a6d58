/* Search among stored vectors: the best of all rows by fp32 products, and pairs of a query and a row in double precision.
 *
 * Vectors lie as an index stores them: floats, halves, or bytes that count steps of `scales` from 128. An L2 score is
 * minus the squared distance, so that more is better in every metric.
 */
#include <math.h>
#include <string.h>

#include "native.h"
#include "simd.h"

enum storage { FLOATS, HALVES, BYTES };

struct stored {
    const void *codes;   /* (N, E) */
    const float *scales; /* (E,) of bytes */
    int64_t storage, dimension, squared;
};

static const char *row_of(const struct stored *v, int64_t row) {
    int64_t bytes = v->storage == FLOATS ? 4 : v->storage == HALVES ? 2 : 1;
    return (const char *)v->codes + row * v->dimension * bytes;
}

/* Load sixteen numbers of a row, zeros where the mask has none. */
INLINE __m512 load_numbers(const enum storage storage, const char *row, int64_t at, const float *scales,
                           __mmask16 mask) {
    if (storage == FLOATS) return _mm512_maskz_loadu_ps(mask, (const float *)row + at);
    if (storage == HALVES) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + at));
    __m512i steps = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, (const uint8_t *)row + at));
    __m512 centred = _mm512_sub_ps(_mm512_cvtepi32_ps(steps), _mm512_set1_ps(128.0f));
    return _mm512_mul_ps(centred, _mm512_maskz_loadu_ps(mask, scales + at));
}

INLINE __m512d low_doubles(__m512 x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
INLINE __m512d high_doubles(__m512 x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }

INLINE void fetch_row(const char *row, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(row + line);
}

INLINE double score_pair(const enum storage storage, const int squared, const struct stored *v, const float *query,
                         const char *row) {
    __m512d low = _mm512_setzero_pd(), high = low;
    for (int64_t at = 0; at < v->dimension; at += LANES) {
        __mmask16 mask = first_lanes(v->dimension - at);
        __m512 x = load_numbers(storage, row, at, v->scales, mask), q = _mm512_maskz_loadu_ps(mask, query + at);
        __m512d x_low = low_doubles(x), x_high = high_doubles(x), q_low = low_doubles(q), q_high = high_doubles(q);
        if (squared) {
            x_low = q_low = _mm512_sub_pd(x_low, q_low);
            x_high = q_high = _mm512_sub_pd(x_high, q_high);
        }
        low = _mm512_fmadd_pd(x_low, q_low, low);
        high = _mm512_fmadd_pd(x_high, q_high, high);
    }
    double sum = _mm512_reduce_add_pd(_mm512_add_pd(low, high));
    return squared ? -sum : sum;
}

#define AHEAD 4 /* rows whose memory is asked for before they are needed */

INLINE void score_pairs(const enum storage storage, const int squared, const struct stored *v, const float *queries,
                        int64_t num_queries, const int64_t *rows, int64_t per_query, float *scores) {
    int64_t bytes = row_of(v, 1) - row_of(v, 0), total = num_queries * per_query;
    for (int64_t at = 0; at < total; at++) {
        if (at + AHEAD < total && rows[at + AHEAD] >= 0) fetch_row(row_of(v, rows[at + AHEAD]), bytes);
        if (rows[at] < 0) continue;
        const float *query = queries + at / per_query * v->dimension;
        scores[at] = (float)score_pair(storage, squared, v, query, row_of(v, rows[at]));
    }
}

#define BY_KIND(call, ...)                                                                                             \
    do {                                                                                                               \
        if (v->storage == FLOATS && !v->squared) call(FLOATS, 0, __VA_ARGS__);                                         \
        else if (v->storage == FLOATS) call(FLOATS, 1, __VA_ARGS__);                                                   \
        else if (v->storage == HALVES && !v->squared) call(HALVES, 0, __VA_ARGS__);                                    \
        else if (v->storage == HALVES) call(HALVES, 1, __VA_ARGS__);                                                   \
        else if (!v->squared) call(BYTES, 0, __VA_ARGS__);                                                             \
        else call(BYTES, 1, __VA_ARGS__);                                                                              \
    } while (0)

/* Score each query (Q, E) with its rows (Q, K) as (Q, K); nothing is written for a row below 0. */
EXPORT void embedkit_score_pairs(const struct stored *v, const float *queries, int64_t num_queries, const int64_t *rows,
                                 int64_t per_query, float *scores) {
    BY_KIND(score_pairs, v, queries, num_queries, rows, per_query, scores);
}

/* The k best of one query so far, the worst of them first: a binary heap. */
static void replace_worst(float *scores, int64_t *rows, int64_t k, float score, int64_t row) {
    int64_t at = 0;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= k) break;
        if (child + 1 < k && scores[child + 1] < scores[child]) child++;
        if (score <= scores[child]) break;
        scores[at] = scores[child];
        rows[at] = rows[child];
        at = child;
    }
    scores[at] = score;
    rows[at] = row;
}

#define SCAN_ROWS 96 /* of which the products, and the rows themselves, stay in the second-level cache */

/* What a scan needs beside its results: products, and rows that cannot be used where they lie. */
struct scan_memory {
    float *products; /* (SCAN_ROWS, Q) */
    float *vectors;  /* (SCAN_ROWS, E) */
};

static int64_t divide(struct scan_memory *m, int64_t num_queries, int64_t dimension, char *memory) {
    int64_t products = SCAN_ROWS * padded(num_queries) * 4;
    m->products = (float *)memory;
    m->vectors = (float *)(memory + products);
    return products + SCAN_ROWS * padded(dimension) * 4;
}

EXPORT int64_t embedkit_scan_bytes(int64_t num_queries, int64_t dimension) {
    struct scan_memory m;
    return divide(&m, num_queries, dimension, NULL);
}

INLINE void decode_row(const enum storage storage, const int squared, const struct stored *v, const char *row,
                       float *to, float *norm) {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t at = 0; at < v->dimension; at += LANES) {
        __m512 x = load_numbers(storage, row, at, v->scales, first_lanes(v->dimension - at));
        _mm512_store_ps(to + at, x);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    *norm = squared ? _mm512_reduce_add_ps(squares) : 0.0f;
}

#define FEW_QUERIES 32 /* as in search.py: with fewer, a product's panel of 64 columns is mostly empty */
#define TOGETHER 4

/* Multiply a row with `count` queries, and with itself where `squared`, as it is decoded. A lone query has two sums, which
 * take turns, so that an addition need not wait for the one before. */
INLINE void multiply_row(const enum storage storage, const int squared, const int count, const struct stored *v,
                         const char *row, const float *queries, int64_t width, float *products, float *norm) {
    __m512 sum[2][TOGETHER], squares = _mm512_setzero_ps();
    const int turns = count == 1 ? 2 : 1;
#pragma GCC unroll 4
    for (int j = 0; j < count; j++) sum[0][j] = sum[1][j] = _mm512_setzero_ps();
    for (int64_t at = 0; at < v->dimension; at += turns * LANES) {
#pragma GCC unroll 2
        for (int turn = 0; turn < turns; turn++) {
            int64_t here = at + turn * LANES;
            __mmask16 mask = first_lanes(v->dimension - here);
            __m512 x = load_numbers(storage, row, here, v->scales, mask);
#pragma GCC unroll 4
            for (int j = 0; j < count; j++) {
                __m512 query = _mm512_maskz_loadu_ps(mask, queries + j * width + here);
                sum[turn][j] = _mm512_fmadd_ps(x, query, sum[turn][j]);
            }
            if (squared) squares = _mm512_fmadd_ps(x, x, squares);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < count; j++) products[j] = _mm512_reduce_add_ps(_mm512_add_ps(sum[0][j], sum[1][j]));
    if (squared) *norm = _mm512_reduce_add_ps(squares);
}

/* Multiply rows with few queries, which lie `width` numbers apart. */
INLINE void multiply_few(const enum storage storage, const int squared, const struct stored *v, const int64_t *rows,
                         int64_t count, const struct linear *queries, int64_t width, int64_t stride, float *products,
                         float *norms) {
    for (int64_t r = 0; r < count; r++, products += stride) {
        const char *row = row_of(v, rows[r]);
        const float *query = queries->weight;
        int64_t q = 0;
        for (; q + TOGETHER <= queries->columns; q += TOGETHER, query += TOGETHER * width)
            multiply_row(storage, squared, TOGETHER, v, row, query, width, products + q, norms + r);
        for (; q < queries->columns; q++, query += width)
            multiply_row(storage, squared, 1, v, row, query, width, products + q, norms + r);
    }
}

/* Find the best of rows `first` to `last` - 1, those that `allowed` (by row, or NULL) lets pass, for each query.
 *
 * `queries` are packed as the weights of a product or, if they are fewer than FEW_QUERIES, lie as rows of padded(E).
 * `norms` (Q,) are their squared lengths where v->squared is, `least` (Q,) the worst score of each heap; both are filled up
 * to padded(Q), the latter with infinity. `scores` and `found` are the heaps (Q, K).
 */
INLINE void scan(const enum storage storage, const int squared, const struct stored *v, const struct linear *queries,
                 const float *norms, int64_t first, int64_t last, const uint8_t *allowed, int64_t k, float *least,
                 float *scores, int64_t *found, char *memory) {
    struct scan_memory m;
    int64_t width = padded(v->dimension), stride = padded(queries->columns);
    divide(&m, queries->columns, v->dimension, memory);
    memset(m.vectors, 0, SCAN_ROWS * width * 4);
    memset(m.products, 0, SCAN_ROWS * stride * 4);
    struct result result = {.sink = STORE, .to = m.products, .stride = stride};
    const int few = queries->columns < FEW_QUERIES;
    const int in_place = few || (storage == FLOATS && !squared && !allowed && width == v->dimension);
    for (int64_t row = first; row < last;) {
        int64_t rows[SCAN_ROWS], count = 0;
        float row_norms[SCAN_ROWS];
        const float *vectors = in_place ? (const float *)row_of(v, row) : m.vectors;
        for (; row < last && count < SCAN_ROWS; row++) {
            if (allowed && !allowed[row]) continue;
            if (!in_place)
                decode_row(storage, squared, v, row_of(v, row), m.vectors + count * width, row_norms + count);
            rows[count++] = row;
        }
        if (few)
            multiply_few(storage, squared, v, rows, count, queries, width, stride, m.products, row_norms);
        else
            gemm_fp32(queries, vectors, width, count, &result);
        for (int64_t r = 0; r < count; r++) {
            for (int64_t column = 0; column < queries->columns; column += LANES) {
                __m512 x = _mm512_load_ps(m.products + r * stride + column);
                if (squared) {
                    __m512 lengths = _mm512_add_ps(_mm512_loadu_ps(norms + column), _mm512_set1_ps(row_norms[r]));
                    x = _mm512_sub_ps(_mm512_add_ps(x, x), lengths);
                }
                __mmask16 better = _mm512_cmp_ps_mask(x, _mm512_loadu_ps(least + column), _CMP_GT_OQ);
                if (!better) continue;
                float values[LANES];
                _mm512_storeu_ps(values, x);
                for (; better; better &= (__mmask16)(better - 1)) {
                    int lane = __builtin_ctz(better);
                    int64_t query = column + lane;
                    replace_worst(scores + query * k, found + query * k, k, values[lane], rows[r]);
                    least[query] = scores[query * k];
                }
            }
        }
    }
}

EXPORT void embedkit_scan(const struct stored *v, const struct linear *queries, const float *norms, int64_t first,
                          int64_t last, const uint8_t *allowed, int64_t k, float *least, float *scores, int64_t *found,
                          char *memory) {
    BY_KIND(scan, v, queries, norms, first, last, allowed, k, least, scores, found, memory);
}
