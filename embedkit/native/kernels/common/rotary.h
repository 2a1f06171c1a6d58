/* Rotary positions: pairs of numbers of queries and keys are turned by angles that grow with the position. Of a head, the numbers of a pair
 * lie half of it apart. `input_t`, `LOAD_NUMBERS` and `STORE_NUMBERS` are as in attention.h; half of a head is whole vectors.
 *
 * Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34.
 */
#include "set.h"

INLINE void turn_head(input_t *head, const float *cosines, int64_t half) {
    for (int64_t i = 0; i < half; i += LANES) {
        vec a = LOAD_NUMBERS(head + i), b = LOAD_NUMBERS(head + half + i);
        vec cosine = v_loadu(cosines + i), sine = v_loadu(cosines + half + i);
        STORE_NUMBERS(head + i, v_fnmadd(b, sine, v_mul(a, cosine)));
        STORE_NUMBERS(head + half + i, v_fmadd(a, sine, v_mul(b, cosine)));
    }
}

INLINE void turn(const struct heads *heads, const struct sequence *sequence, input_t *qkv) {
    const float *cosines = sequence->rotary;
    for (int64_t token = 0; token < sequence->length; token++, qkv += 3 * heads->width, cosines += heads->size)
        for (int64_t head = 0; head < heads->count; head++) {
            if (token < sequence->queries) turn_head(qkv + head * heads->size, cosines, heads->size / 2);
            turn_head(qkv + heads->width + head * heads->size, cosines, heads->size / 2);
        }
}
