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
};

static int64_t apart_bytes(int64_t length, int64_t size) {
    int64_t filled = filled_of(2 * length - 1);
    return 2 * packed_bytes(filled, size) + filled * (size * (int64_t)sizeof(input_t) + 4) + BLOCK * SCORE_STRIDE(filled) * 4 +
           length * filled_of(length) * 4;
}

/* Pack the rows of all distances. */
static void pack_distances(struct head *far, const struct sequence *s, const input_t *table, input_t *rows) {
    for (int64_t r = 0; r < far->length; r++)
        memcpy(rows + r * far->size, table + s->numbers[s->length - 1 - r] * far->size, (size_t)far->size * sizeof *rows);
    far->stride = far->size;
    pack_keys(far, rows);
}

/* Find what the keys' products with the distances' queries add, for all queries. */
static void find_by_queries(struct apart *a, const struct sequence *s) {
    struct head *far = &a->by_queries;
    int64_t length = s->length, filled = filled_of(length);
    for (int64_t key = 0; key < length; key += BLOCK) {
        int64_t rows = length - key < BLOCK ? length - key : BLOCK;
        reach_for(far, key + length - s->queries, key + rows + length - 1);
        score_rows(far, key, rows);
        for (int64_t query = 0; query < s->queries; query++)
            for (int64_t r = 0; r < rows; r++)
                a->found[query * filled + key + r] = far->scores[r * SCORE_STRIDE(far->filled) + key + r + length - 1 - query];
    }
}

/* Make ready what the distances add within head `head`, whose queries and keys have been packed into `h` from `keys`. */
static void take_apart(struct apart *a, const struct head *h, const struct sequence *s, const input_t *keys, int64_t head,
                       void *scratch) {
    int64_t length = 2 * s->length - 1, filled = filled_of(length), table = head * s->num_distances * h->size;
    char *at = scratch;
    struct head far = {.length = length, .filled = filled, .size = h->size};
    far.added = memset(at, 0, (size_t)filled * sizeof(float)), at += filled * 4;
    far.scores = (float *)at, at += BLOCK * SCORE_STRIDE(filled) * 4;
    a->found = (float *)at, at += s->length * filled_of(s->length) * 4;
    a->by_keys = a->by_queries = far;
    a->by_keys.keys = a->by_queries.keys = NULL;
    input_t *rows = (input_t *)(at + 2 * packed_bytes(filled, h->size));
    if (s->distance_keys) {
        a->by_keys.keys = (void *)at;
        set_parts(&a->by_keys);
        pack_distances(&a->by_keys, s, (const input_t *)s->distance_keys + table, rows);
        a->by_keys.queries = h->queries, a->by_keys.stride = h->stride;
    }
    if (s->distance_queries) {
        a->by_queries.keys = (void *)(at + packed_bytes(filled, h->size));
        set_parts(&a->by_queries);
        pack_distances(&a->by_queries, s, (const input_t *)s->distance_queries + table, rows);
        a->by_queries.queries = keys, a->by_queries.stride = h->stride;
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
    if (a->by_keys.keys) add_distances(scores, by_keys, first, end);
    if (a->by_queries.keys) add_distances(scores, a->found + query * filled_of(s->length), first, end);
}
