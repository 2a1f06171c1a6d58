/* Attention of one sequence within a few heads, in tiles of bf16; the steps are those of attention.h, 32 queries at a time.
 *
 * Keys and values lie as right tiles, one after another:
 *   keys: for each 16 tokens, for each 32 numbers of a head: 16 units of two numbers x 16 tokens;
 *   values: for each 32 tokens, for each 16 numbers of a head: 16 units of two tokens x 16 numbers.
 * Queries are read where they lie. What a head of 16, 48, ... numbers lacks to whole tiles is zero in its keys.
 *
 * Tiles and vectors share a port of the processor, so that nothing is gained by mixing them: all scores of a block come first, then all
 * powers, which take their place. Of short sequences some heads are taken together, so that there is enough to do while a tile is summed.
 */
#include <math.h>
#include <string.h>

#include "functions.h"
#include "queries_and_keys.h"

#define QUERIES (2 * TILE_HEIGHT)
#define TOGETHER 4 /* heads, at most */
#define SHORT 64   /* tokens up to which heads are taken together */
/* Floats from one row of scores to the next: a cache line more than there are, so that rows do not share few sets of the caches. */
#define SCORE_STRIDE(filled) ((filled) + LANES)

/* Where the pieces of one head lie. */
struct head {
    int64_t length, filled, size, parts; /* tokens; tokens rounded up to 32; numbers of a query; tiles that these fill */
    const uint16_t *queries;             /* T rows, `stride` numbers apart */
    int64_t stride;
    char *keys, *values;
    float *scores; /* QUERIES rows; powers replace them, as bf16, from the left */
    float *mixed;  /* QUERIES rows of `size` */
    const float *added;
    int64_t first, end; /* keys within reach of the queries at hand; `first` is a multiple of 32 */
    float share[QUERIES];
};

static int64_t filled_of(int64_t length) { return (length + QUERIES - 1) / QUERIES * QUERIES; }
static int64_t parts_of(int64_t size) { return (size + 2 * LANES - 1) / (2 * LANES); }

static int64_t bytes_of_head(int64_t filled, int64_t size) {
    return filled * (parts_of(size) * TILE_ROW_BYTES + size * 2) + QUERIES * (SCORE_STRIDE(filled) + size) * 4;
}

static int64_t own_bytes(int64_t length, int64_t size) {
    int64_t one = bytes_of_head(filled_of(length), size), many = TOGETHER * bytes_of_head(SHORT, size);
    return filled_of(length) * 4 + (one > many ? one : many);
}

/* Of row r of `keys`, or of row numbers[-r]. */
static void pack_keys(const struct head *h, const uint16_t *keys, const int64_t *numbers) {
    char *to = h->keys;
    for (int64_t token = 0; token < h->length; token += LANES)
        for (int64_t unit = 0; unit < h->parts * LANES; unit += LANES, to += TILE_BYTES) {
            ivec block[LANES];
            lanes_t there = first_lanes(h->size / PER_UNIT - unit);
            for (int t = 0; t < LANES; t++) {
                int64_t row = token + t < h->length && numbers ? numbers[-(token + t)] : token + t;
                const uint16_t *from = keys + row * h->stride + unit * PER_UNIT;
                block[t] = token + t < h->length ? i_load_first(from, there) : i_zero();
            }
            i_transpose(block);
            for (int u = 0; u < LANES; u++) i_store(to + u * TILE_ROW_BYTES, block[u]);
        }
}

static void pack_values(const struct head *h, const uint16_t *values) {
    int64_t tiles = h->size / LANES;
    for (int64_t token = 0; token < h->filled; token += PER_UNIT) {
        char *to = h->values + token / QUERIES * tiles * TILE_BYTES + token % QUERIES / PER_UNIT * TILE_ROW_BYTES;
        const uint16_t *from = values + token * h->stride;
        for (int64_t i = 0; i < tiles; i++, to += TILE_BYTES, from += LANES) {
            if (token < h->length) i_pair_halves((int32_t *)to, from, token + 1 < h->length ? from + h->stride : NULL);
            else i_store(to, i_zero());
        }
    }
}

/* Store a tile of scores and begin the next one, as in gemm_tiles.h. */
#define TURN_OVER(t, to, start, left, right)                                                                           \
    T_STORE(t, to, to_bytes);                                                                                          \
    T_LOAD(t, start, 0);                                                                                               \
    T_DOT_BF16(t, left, right)

/* The scores of up to 32 queries with the keys at hand, 32 keys at a time; `below`: there are more than 16 queries. */
static void score(const struct head *h, int64_t query, int below) {
    int64_t left_bytes = h->stride * 2, to_bytes = SCORE_STRIDE(h->filled) * 4;
    const char *left = (const char *)(h->queries + query * h->stride), *lower = left + TILE_HEIGHT * left_bytes;
    const char *key = h->keys + h->first / LANES * h->parts * TILE_BYTES;
    char *to = (char *)h->scores, *under = to + TILE_HEIGHT * to_bytes;
    for (int64_t token = h->first, last = token; token < h->end; last = token, token += 2 * LANES) {
        const float *start = h->added + token;
        const char *next = key + h->parts * TILE_BYTES;
        const int two = h->end - token > LANES;
        char *before = to + last * 4, *before_under = under + last * 4;
        for (int64_t part = 0; part < h->parts; part++) {
            T_LOAD(4, left + part * TILE_ROW_BYTES, left_bytes);
            T_LOAD(6, key + part * TILE_BYTES, TILE_ROW_BYTES);
            if (two) T_LOAD(7, next + part * TILE_BYTES, TILE_ROW_BYTES);
            if (below) T_LOAD(5, lower + part * TILE_ROW_BYTES, left_bytes);
            if (part > 0) {
                T_DOT_BF16(0, 4, 6);
                if (two) T_DOT_BF16(1, 4, 7);
                if (below) T_DOT_BF16(2, 5, 6);
                if (below && two) T_DOT_BF16(3, 5, 7);
                continue;
            }
            TURN_OVER(0, before, start, 4, 6);
            TURN_OVER(1, before + TILE_ROW_BYTES, start + LANES, 4, 7);
            if (below) {
                TURN_OVER(2, before_under, start, 5, 6);
                TURN_OVER(3, before_under + TILE_ROW_BYTES, start + LANES, 5, 7);
            }
        }
        key = next + h->parts * TILE_BYTES;
    }
    int64_t last = (h->end - 1) / (2 * LANES) * 2 * LANES;
    T_STORE(0, to + last * 4, to_bytes);
    T_STORE(1, to + last * 4 + TILE_ROW_BYTES, to_bytes);
    if (below) {
        T_STORE(2, under + last * 4, to_bytes);
        T_STORE(3, under + last * 4 + TILE_ROW_BYTES, to_bytes);
    }
}

static int64_t packed_bytes(int64_t filled, int64_t size) { return filled * parts_of(size) * TILE_ROW_BYTES; }
static void set_parts(struct head *h) { h->parts = parts_of(h->size); }
static void score_rows(const struct head *h, int64_t query, int64_t rows) { score(h, query, rows > TILE_HEIGHT); }

/* Choose the keys from `first` to `end`, as far as there are any. */
static void reach_for(struct head *h, int64_t first, int64_t end) {
    h->first = first > 0 ? first / QUERIES * QUERIES : 0;
    h->end = end < h->length ? end : h->length;
}

#define BLOCK QUERIES
#include "disentangled.h"

/* Turn one query's scores into powers of two of `scale` times them, less their maximum; returns one over their sum. */
static float soften(const struct head *h, float *scores, float scale) {
    uint16_t *powers = (uint16_t *)scores;
    vec factor = v_fill(scale), lowest = v_fill(-INFINITY), most = lowest, sum = v_zero();
    for (int64_t token = h->first; token < h->end; token += LANES)
        most = v_max(most, v_first_of(v_load(scores + token), first_lanes(h->end - token), lowest));
    vec top = v_fill(v_largest(most) * scale);
    for (int64_t token = h->first; token < h->end; token += 2 * LANES) {
        lanes_t low = first_lanes(h->end - token), high = first_lanes(h->end - token - LANES);
        vec a = v_first_of(EXP2(v_fmsub(v_load(scores + token), factor, top)), low, v_zero());
        vec b = v_first_of(EXP2(v_fmsub(v_load(scores + token + LANES), factor, top)), high, v_zero());
        sum = v_add(sum, v_add(a, b));
        i_store(powers + token, v_two_to_bf16(a, b));
    }
    return 1.0f / v_sum(sum);
}

/* The product of powers and values, 32 columns at a time, not yet divided. */
static void mix(const struct head *h, int below) {
    int64_t tiles = h->size / LANES, from_bytes = SCORE_STRIDE(h->filled) * 4, to_bytes = h->size * 4;
    char *to = (char *)h->mixed;
    for (int64_t first = 0; first < tiles; first += 2, to += 2 * TILE_ROW_BYTES) {
        const char *value = h->values + (h->first / QUERIES * tiles + first) * TILE_BYTES;
        const char *left = (const char *)h->scores + h->first * 2;
        const int two = first + 1 < tiles;
        T_ZERO(0);
        T_ZERO(1);
        T_ZERO(2);
        T_ZERO(3);
        for (int64_t token = h->first; token < h->end; token += QUERIES, value += tiles * TILE_BYTES, left += TILE_ROW_BYTES) {
            T_LOAD(4, left, from_bytes);
            T_LOAD(6, value, TILE_ROW_BYTES);
            if (two) T_LOAD(7, value + TILE_BYTES, TILE_ROW_BYTES);
            if (below) T_LOAD(5, left + TILE_HEIGHT * from_bytes, from_bytes);
            T_DOT_BF16(0, 4, 6);
            if (two) T_DOT_BF16(1, 4, 7);
            if (below) T_DOT_BF16(2, 5, 6);
            if (below && two) T_DOT_BF16(3, 5, 7);
        }
        T_STORE(0, to, to_bytes);
        if (two) T_STORE(1, to + TILE_ROW_BYTES, to_bytes);
        if (below) T_STORE(2, to + TILE_HEIGHT * to_bytes, to_bytes);
        if (below && two) T_STORE(3, to + TILE_HEIGHT * to_bytes + TILE_ROW_BYTES, to_bytes);
    }
}

static void write_out(const struct head *h, int64_t rows, uint16_t *to, int64_t stride) {
    for (int64_t r = 0; r < rows; r++, to += stride)
        for (int64_t i = 0; i < h->size; i += LANES)
            v_store_bf16(to + i, v_mul(v_load(h->mixed + r * h->size + i), v_fill(h->share[r])));
}

static int64_t attention_bytes(int64_t length, int64_t size, int disentangled) {
    return own_bytes(length, size) + (disentangled ? apart_bytes(length, size) : 0);
}

/* What distances add to the scores of some queries, and no key beyond their reach. */
static void place(const struct head *h, const struct apart *apart, const struct sequence *sequence, int64_t head,
                  int64_t query, int64_t rows) {
    int64_t stop = (h->end + LANES - 1) / LANES * LANES;
    for (int64_t r = 0; r < rows; r++) {
        float *scores = h->scores + r * SCORE_STRIDE(h->filled);
        if (sequence->numbers) add_apart(scores, apart, sequence, query + r, r, h->first, h->end);
        if (sequence->distances) add_distances(scores, distances_of(sequence, head, query + r), h->first, h->end);
        keep_near(scores, sequence, query + r, h->first, stop);
    }
}

static void attention(const struct heads *heads, const struct sequence *sequence, uint16_t *qkv, uint16_t *context,
                      int64_t stride, void *scratch) {
    int64_t size = heads->size, length = sequence->length, filled = filled_of(length);
    float scale = (float)(1.4426950408889634 * sequence->scale), *added = scratch;
    char *at = (char *)(added + filled);
    memset(added, 0, (size_t)filled * sizeof *added);
    if (sequence->added) memcpy(added, sequence->added, (size_t)length * sizeof *added);
    for (int64_t token = sequence->keys; token < length; token++) added[token] = NO_SCORE;
    place_queries_and_keys(heads, sequence, qkv);
    struct head group[TOGETHER];
    struct apart apart = {0};
    int64_t most = length > SHORT || sequence->numbers ? 1 : TOGETHER, count;
    for (int64_t first = 0; first < heads->count; first += count) {
        count = heads->count - first < most ? heads->count - first : most;
        for (int64_t i = 0; i < count; i++) {
            struct head *h = group + i;
            *h = (struct head){.length = length, .filled = filled, .size = size, .parts = parts_of(size), .added = added};
            h->queries = qkv + (first + i) * size, h->stride = row_of_heads(heads);
            h->keys = at + i * bytes_of_head(filled, size);
            h->values = h->keys + filled * h->parts * TILE_ROW_BYTES;
            h->scores = (float *)(h->values + filled * size * 2);
            h->mixed = h->scores + QUERIES * SCORE_STRIDE(filled);
            pack_keys(h, qkv + keys_of(heads, first + i), NULL);
            pack_values(h, qkv + values_of(heads, first + i));
        }
        if (sequence->numbers)
            take_apart(&apart, group, sequence, qkv + keys_of(heads, first), first, (char *)scratch + own_bytes(length, size));
        for (int64_t query = 0; query < sequence->queries; query += QUERIES) {
            int64_t rows = sequence->queries - query < QUERIES ? sequence->queries - query : QUERIES;
            int below = rows > TILE_HEIGHT;
            for (int64_t i = 0; i < count; i++)
                reach_for(group + i, query - sequence->reach, query + rows + sequence->ahead);
            for (int64_t i = 0; i < count; i++) score(group + i, query, below);
            if (sequence->numbers) score_by_keys(&apart, sequence, query, rows);
            for (int64_t i = 0; i < count; i++) place(group + i, &apart, sequence, first + i, query, rows);
            for (int64_t i = 0; i < count; i++)
                for (int64_t r = 0; r < rows; r++)
                    group[i].share[r] = soften(group + i, group[i].scores + r * SCORE_STRIDE(filled), scale);
            for (int64_t i = 0; i < count; i++) mix(group + i, below);
            for (int64_t i = 0; i < count; i++)
                write_out(group + i, rows, context + query * stride + (first + i) * size, stride);
        }
    }
}
