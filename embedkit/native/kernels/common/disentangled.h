/* What the distance of two tokens adds to their score in disentangled attention: the query's product with a key of the distance, and the
 * key's product with a query of it. Every distance from 1 - T to T - 1 takes a row of its own, from the farthest key before a query to the
 * farthest behind it, so that those of one query with all keys lie one after another.
 *
 * attention.h and attention_tiles.h include it, which define `struct head`, `pack_keys`, `score_rows`, `reach_for`, BLOCK, the rows that are
 * scored at once, SCORE_STRIDE, the floats from one row of scores to the next, and `packed_bytes`.
 * Source: He et al. 2021, https://arxiv.org/abs/2006.03654, section 3.1.
 */

/* Of one head; the `keys` of either part are NULL where the model has no such product. */
struct apart {
    struct head by_keys, by_queries; /* the distances' keys with the queries, the distances' queries with the keys */
    float *found;                    /* (Q, filled) what the second adds */
    float *band;                     /* (BAND, filled) the same for a few keys, from the last query to the first */
};

#define BAND (3 * LANES) /* keys: several blocks, so that few of these are cut short */

static int64_t apart_bytes(int64_t length, int64_t size) {
    int64_t filled = filled_of(2 * length - 1);
    return 2 * packed_bytes(filled, size) + (filled + BLOCK * SCORE_STRIDE(filled) + (length + BAND) * filled_of(length)) * 4;
}

/* Pack the rows of all distances into `far`, for products with `rows` of `stride` numbers. */
static void pack_distances(struct head *far, const struct sequence *s, const void *table, const input_t *rows, int64_t stride) {
    far->stride = far->size;
    set_parts(far);
    pack_keys(far, table, s->numbers + s->length - 1);
    far->queries = rows, far->stride = stride;
}

/* Turn around what was found for LANES keys, from `key` on. */
static void turn_band(const struct apart *a, const float *band, int64_t queries, int64_t filled, int64_t key) {
    for (int64_t query = 0; query < queries; query += LANES) {
        ivec block[LANES];
        for (int i = 0; i < LANES; i++) block[i] = i_load(band + i * filled + query);
        i_transpose(block);
        for (int i = 0; i < LANES && query + i < queries; i++)
            i_store(a->found + (queries - 1 - query - i) * filled + key, block[i]);
    }
}

/* Find what the keys' products with the distances' queries add, for all queries. */
static void find_by_queries(struct apart *a, const struct sequence *s) {
    struct head *far = &a->by_queries;
    int64_t length = s->length, filled = filled_of(length), rows;
    for (int64_t first = 0; first < length; first += BAND) {
        int64_t end = first + BAND < length ? first + BAND : length;
        for (int64_t key = first; key < end; key += rows) {
            rows = end - key < BLOCK ? end - key : BLOCK;
            int64_t nearest = key + length - s->queries; /* of the distances, that of the last query */
            reach_for(far, nearest, key + rows + length - 1);
            score_rows(far, key, rows);
            for (int64_t r = 0; r < rows; r++)
                memcpy(a->band + (key - first + r) * filled, far->scores + r * SCORE_STRIDE(far->filled) + nearest + r,
                       (size_t)s->queries * sizeof(float));
        }
        for (int64_t key = first; key < end; key += LANES)
            turn_band(a, a->band + (key - first) * filled, s->queries, filled, key);
    }
}

/* Make ready what the distances add within head `head`, whose queries and keys have been packed into `h` from `keys`. */
static void take_apart(struct apart *a, const struct head *h, const struct sequence *s, const input_t *keys, int64_t head,
                       void *scratch) {
    int64_t length = 2 * s->length - 1, filled = filled_of(length), own = filled_of(s->length);
    int64_t table = head * s->num_distances * h->size;
    char *at = scratch;
    struct head far = {.length = length, .filled = filled, .size = h->size};
    far.added = memset(at, 0, (size_t)filled * sizeof(float)), at += filled * 4;
    far.scores = (float *)at, at += BLOCK * SCORE_STRIDE(filled) * 4;
    a->found = (float *)at, at += s->length * own * 4;
    a->band = (float *)at, at += BAND * own * 4;
    a->by_keys = a->by_queries = far;
    a->by_keys.keys = s->distance_keys ? (void *)at : NULL, at += packed_bytes(filled, h->size);
    a->by_queries.keys = s->distance_queries ? (void *)at : NULL;
    if (s->distance_keys)
        pack_distances(&a->by_keys, s, (const input_t *)s->distance_keys + table, h->queries, h->stride);
    if (s->distance_queries) {
        pack_distances(&a->by_queries, s, (const input_t *)s->distance_queries + table, keys, h->stride);
        find_by_queries(a, s);
    }
}

/* Score the distances' keys with some queries. */
static void score_by_keys(struct apart *a, const struct sequence *s, int64_t query, int64_t rows) {
    if (!a->by_keys.keys) return;
    reach_for(&a->by_keys, s->length - query - rows, 2 * s->length - 1 - query);
    score_rows(&a->by_keys, query, rows);
}

/* Add to the scores of one query, which is row `row` of those that were scored. */
static void add_apart(float *scores, const struct apart *a, const struct sequence *s, int64_t query, int64_t row,
                      int64_t first, int64_t end) {
    const float *by_keys = a->by_keys.scores + row * SCORE_STRIDE(a->by_keys.filled) + s->length - 1 - query;
    const float *by_queries = a->found + query * filled_of(s->length);
    if (!a->by_queries.keys) return add_distances(scores, by_keys, first, end);
    if (!a->by_keys.keys) return add_distances(scores, by_queries, first, end);
    for (int64_t key = first; key < end; key += LANES) {
        vec far = v_add(v_load(scores + key), v_loadu(by_keys + key));
        v_store(scores + key, v_add(far, v_load(by_queries + key)));
    }
}
