/* Attention of one sequence within a few heads, written once for two number formats (see tile.h).
 *
 * For each head:
 *   1. Keys are turned around, so that row k holds unit k of every token; values are paired up as units of tokens.
 *   2. Six queries at a time: their scores with all keys, in fp32.
 *   3. Powers of two of the scores less their row's maximum; the powers are left undivided by their sum.
 *   4. Their product with the values, divided by that sum.
 *
 * Besides what tile.h asks for, the including file defines `EXP2` of sixteen floats; `STORE_NUMBERS`, which writes
 * them; and `pair_up`, which writes the values of PER_UNIT tokens as one row of units.
 * Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1.
 */
#include <math.h>

#include "native.h"
#include "tile.h"

/* Where the pieces of one head lie: T tokens, filled up to whole vectors of tokens. */
struct head {
    int64_t length, filled, size; /* tokens; tokens rounded up to LANES; numbers of a query */
    const input_t *queries;       /* T rows, `stride` numbers apart */
    int64_t stride;
    int32_t *keys, *values; /* size / PER_UNIT rows of `filled` units; filled / PER_UNIT rows of `size` units */
    float *scores;          /* TILE_ROWS rows of `filled` */
    input_t *powers;        /* the same */
};

static void pack_keys(const struct head *h, const input_t *keys) {
    int64_t units = h->size / PER_UNIT;
    for (int64_t token = 0; token < h->filled; token += LANES) {
        for (int64_t unit = 0; unit < units; unit += LANES) {
            __m512i block[LANES];
            __mmask16 there = first_lanes(units - unit);
            for (int t = 0; t < LANES; t++) {
                const input_t *from = keys + (token + t) * h->stride + unit * PER_UNIT;
                block[t] = token + t < h->length ? _mm512_maskz_loadu_epi32(there, from) : _mm512_setzero_si512();
            }
            transpose_units(block);
            for (int u = 0; u < LANES && unit + u < units; u++)
                _mm512_store_si512(h->keys + (unit + u) * h->filled + token, block[u]);
        }
    }
}

TILES(1) TILES(2) TILES(3) TILES(4)
static const tile_t TILE_OF[TILE_VECTORS][TILE_ROWS] = {NAMES(1), NAMES(2), NAMES(3), NAMES(4)};
static const __m512 NOTHING[TILE_VECTORS];

/* The scores of `rows` queries with all keys. */
static void score(int rows, const struct head *h, int64_t query) {
    const input_t *left = h->queries + query * h->stride;
    for (int64_t token = 0; token < h->filled; token += TILE_VECTORS * LANES) {
        int64_t vectors = (h->filled - token) / LANES;
        TILE_OF[vectors < TILE_VECTORS ? vectors - 1 : TILE_VECTORS - 1][rows - 1](
            h->size / PER_UNIT, left, h->stride, (const char *)(h->keys + token), h->filled * 4, NOTHING,
            (__m512 *)(h->scores + token), h->filled / LANES);
    }
}

/* Powers of two of one query's scores, times `scale`, less their maximum; returns one over their sum. */
static float soften(const struct head *h, int row, float scale) {
    const float *scores = h->scores + row * h->filled;
    input_t *powers = h->powers + row * h->filled;
    __mmask16 tail = first_lanes(h->length - (h->filled - LANES));
    int64_t last = h->filled - LANES;
    __m512 factor = _mm512_set1_ps(scale);
    __m512 lowest = _mm512_set1_ps(-INFINITY);
    __m512 most = _mm512_mask_mov_ps(lowest, tail, _mm512_load_ps(scores + last));
    for (int64_t token = 0; token < last; token += LANES) most = _mm512_max_ps(most, _mm512_load_ps(scores + token));
    __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most) * scale);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t token = 0; token < last; token += LANES) {
        __m512 power = EXP2(_mm512_fmsub_ps(_mm512_load_ps(scores + token), factor, top));
        sum = _mm512_add_ps(sum, power);
        STORE_NUMBERS(powers + token, power);
    }
    __m512 power = EXP2(_mm512_fmsub_ps(_mm512_load_ps(scores + last), factor, top));
    power = _mm512_maskz_mov_ps(tail, power);
    STORE_NUMBERS(powers + last, power);
    return 1.0f / _mm512_reduce_add_ps(_mm512_add_ps(sum, power));
}

/* The product of powers and values, each row divided by the sum of its powers. */
static void mix(int rows, const struct head *h, const float *share, input_t *context, int64_t stride) {
    __m512 sums[TILE_ROWS * TILE_VECTORS];
    int64_t units = (h->length + PER_UNIT - 1) / PER_UNIT, vectors;
    for (int64_t column = 0; column < h->size; column += vectors * LANES) {
        vectors = (h->size - column) / LANES;
        if (vectors > TILE_VECTORS) vectors = TILE_VECTORS;
        TILE_OF[vectors - 1][rows - 1](units, h->powers, h->filled, (const char *)(h->values + column), h->size * 4,
                                       NOTHING, sums, vectors);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < vectors; c++)
                STORE_NUMBERS(context + r * stride + column + c * LANES,
                              _mm512_mul_ps(sums[r * vectors + c], _mm512_set1_ps(share[r])));
    }
}

INLINE void attention(const struct heads *heads, int64_t length, const input_t *qkv, input_t *context, int64_t stride,
                      void *scratch) {
    int64_t size = heads->size, filled = (length + LANES - 1) / LANES * LANES;
    struct head h = {.length = length, .filled = filled, .size = size, .stride = 3 * heads->width};
    h.keys = scratch;
    h.values = h.keys + size / PER_UNIT * filled;
    h.scores = (float *)(h.values + size * filled / PER_UNIT);
    h.powers = (input_t *)(h.scores + TILE_ROWS * filled);
    /* softmax in powers of two: e^(x / sqrt(d)) = 2^(x log2(e) / sqrt(d)) */
    float scale = (float)(1.4426950408889634 / sqrt((double)size)), share[TILE_ROWS];
    for (int64_t head = 0; head < heads->count; head++) {
        h.queries = qkv + head * size;
        pack_keys(&h, h.queries + heads->width);
        const input_t *values = h.queries + 2 * heads->width;
        for (int64_t token = 0; token < length; token += PER_UNIT)
            pair_up(h.values + token / PER_UNIT * size, values + token * h.stride, token + 1 < length ? h.stride : -1,
                    size);
        for (int64_t query = 0; query < length; query += TILE_ROWS) {
            int rows = length - query < TILE_ROWS ? (int)(length - query) : TILE_ROWS;
            score(rows, &h, query);
            for (int r = 0; r < rows; r++) share[r] = soften(&h, r, scale);
            mix(rows, &h, share, context + query * stride + head * size, stride);
        }
    }
}
