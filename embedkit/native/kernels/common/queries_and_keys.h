/* What is done to queries and keys before attention: they are normed, and pairs of a head's numbers are turned by angles that grow with
 * the position. The numbers of a pair lie half of a head apart. `input_t`, `LOAD_NUMBERS` and `STORE_NUMBERS` are as in
 * attention.h; half of a head that is turned is whole vectors.
 *
 * Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34.
 */
#include "norm.h"

INLINE void turn_head(input_t *head, const float *cosines, int64_t half) {
    for (int64_t i = 0; i < half; i += LANES) {
        vec a = LOAD_NUMBERS(head + i), b = LOAD_NUMBERS(head + half + i);
        vec cosine = v_loadu(cosines + i), sine = v_loadu(cosines + half + i);
        STORE_NUMBERS(head + i, v_fnmadd(b, sine, v_mul(a, cosine)));
        STORE_NUMBERS(head + half + i, v_fmadd(a, sine, v_mul(b, cosine)));
    }
}

INLINE void place_heads(const struct sequence *s, input_t *head, int64_t count, int64_t size, const struct norm *norm,
                        int64_t token) {
    if (norm && s->norm_together) norm_numbers(head, head, norm, count * size, s->eps);
    for (int64_t i = 0; i < count; i++, head += size) {
        if (norm && !s->norm_together) norm_numbers(head, head, norm, size, s->eps);
        if (s->rotary) turn_head(head, s->rotary + token * size, size / 2);
    }
}

INLINE void place_queries_and_keys(const struct heads *heads, const struct sequence *s, input_t *qkv) {
    if (!s->rotary && !s->query_norm) return;
    for (int64_t token = 0; token < s->length; token++, qkv += row_of_heads(heads)) {
        if (token < s->queries) place_heads(s, qkv, heads->count, heads->size, s->query_norm, token);
        place_heads(s, qkv + heads->width, heads->keys, heads->size, s->key_norm, token);
    }
}
