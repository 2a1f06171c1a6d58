/* MaxSim of one query with rows of stored tokens.
 *
 *   1. A few tokens are decoded: the numbers of each byte from a table, then scale, gain and centroid, and one over the norm.
 *   2. Tiles of their products with the query's tokens, times that, go into the largest of each of the query's tokens.
 *   3. The sum of these is the row's score. It depends on nothing but the query and the row.
 */
#include "maxsim.h"

#include <math.h>
#include <string.h>

#include "set.h"

typedef freg sum_t;
typedef float input_t;
#define PER_UNIT 1
#define DOT(sum, a, b) r_dot_floats(sum, a, b)

#include "tile.h"

ALL_TILES
static const tile_t TILE_OF[TILE_VECTORS][TILE_ROWS] = ALL_NAMES;
static const sum_t NOTHING[TILE_REGS];

/* Multiply up to TILE_ROWS rows with all columns of a query; products lie `filled` numbers apart. */
INLINE void multiply(const struct token_query *q, int64_t dimension, const float *rows, int64_t width, int count, float *to) {
    for (int64_t column = 0; column < q->filled; column += TILE_COLUMNS) {
        int64_t vectors = (q->filled - column) / LANES;
        TILE_OF[vectors < TILE_VECTORS ? vectors - 1 : TILE_VECTORS - 1][count - 1](
            dimension, rows, width, (const char *)(q->columns + column), q->filled * 4, NOTHING, (sum_t *)(to + column),
            q->filled / REG_LANES);
    }
}

/* The products of all centroids with a query: (C, filled). */
void OF_SET(centroid_products)(const struct tokens *t, const struct token_query *q, float *to) {
    for (int64_t row = 0; row < t->num_centroids; row += TILE_ROWS) {
        int64_t left = t->num_centroids - row;
        multiply(q, t->dimension, t->centroids + row * t->width, t->width, left < TILE_ROWS ? (int)left : TILE_ROWS,
                 to + row * q->filled);
    }
}

/* Write the numbers that bytes stand for; `per_byte` is a constant at every call. */
INLINE void expand(const int per_byte, const struct tokens *t, const uint8_t *codes, float *to) {
    for (int64_t i = 1; i < t->row_bytes; i++)
        memcpy(to + (i - 1) * per_byte, t->table + codes[i] * per_byte, (size_t)per_byte * sizeof(float));
}

static void decode(const struct tokens *t, const struct token_rows *rows, int64_t first, int64_t count,
                   const struct maxsim_memory *m) {
    const uint8_t *all = rows->codes + first * t->row_bytes, *codes = all;
    /* All of them at first, or the sums below would wait for what was just written. */
    for (int64_t r = 0; r < count; r++, codes += t->row_bytes) {
        if (t->per_byte == 4) expand(4, t, codes, m->vectors + r * t->width);
        else expand(2, t, codes, m->vectors + r * t->width);
    }
    for (int64_t r = 0; r < count; r++) {
        const float *centroid = t->centroids + rows->ids[first + r] * t->width;
        float *vector = m->vectors + r * t->width;
        vec squares = v_zero(), gain = v_fill(t->gains[all[r * t->row_bytes]]);
        for (int64_t i = 0; i < t->width; i += LANES) {
            vec x = v_fmadd(v_load(vector + i), v_mul(v_load(t->scales + i), gain), v_load(centroid + i));
            v_store(vector + i, x);
            squares = v_fmadd(x, x, squares);
        }
        float norm = sqrtf(v_sum(squares));
        m->inverse[r] = norm > 1e-12f ? 1.0f / norm : 1e12f;
    }
}

static float sum_of(const float *best, int64_t filled) {
    vec sum = v_zero();
    for (int64_t column = 0; column < filled; column += LANES) sum = v_add(sum, v_load(best + column));
    return v_sum(sum);
}

/* Score the rows at some positions. `memory` is zeroed before it is first used. */
void OF_SET(score_tokens)(const struct tokens *t, const struct token_query *q, const struct token_rows *rows,
                          const int64_t *positions, int64_t count, float *scores, char *memory) {
    struct maxsim_memory m;
    divide_maxsim(&m, t->width, q->filled, memory);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows->starts[positions[i]], end = rows->starts[positions[i] + 1];
        for (int64_t column = 0; column < q->filled; column += LANES) v_store(m.best + column, v_fill(-INFINITY));
        for (; at < end; at += TOKENS_TOGETHER) {
            int64_t here = end - at < TOKENS_TOGETHER ? end - at : TOKENS_TOGETHER;
            decode(t, rows, at, here, &m);
            for (int64_t row = 0; row < here; row += TILE_ROWS) {
                int tile_rows = here - row < TILE_ROWS ? (int)(here - row) : TILE_ROWS;
                multiply(q, t->dimension, m.vectors + row * t->width, t->width, tile_rows, m.products);
                for (int64_t column = 0; column < q->filled; column += LANES) {
                    vec best = v_load(m.best + column);
                    for (int r = 0; r < tile_rows; r++) {
                        vec x = v_mul(v_load(m.products + r * q->filled + column), v_fill(m.inverse[row + r]));
                        best = v_max(best, x);
                    }
                    v_store(m.best + column, best);
                }
            }
        }
        scores[i] = sum_of(m.best, q->filled);
    }
}

/* Score the rows at some positions as if their tokens were their centroids, whose products (C, filled) are given. */
void OF_SET(score_centroids)(const float *products, int64_t filled, const struct token_rows *rows, const int64_t *positions,
                             int64_t count, float *scores) {
    for (int64_t i = 0; i < count; i++) {
        int64_t first = rows->starts[positions[i]], end = rows->starts[positions[i] + 1];
        vec sum = v_zero();
        for (int64_t column = 0; column < filled; column += LANES) {
            vec best = v_fill(-INFINITY);
            for (int64_t at = first; at < end; at++)
                best = v_max(best, v_load(products + rows->ids[at] * filled + column));
            sum = v_add(sum, best);
        }
        scores[i] = v_sum(sum);
    }
}
