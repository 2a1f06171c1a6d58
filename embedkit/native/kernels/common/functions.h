/* Powers, exponentials and activations of sixteen floats; what places of queries and keys do to scores. */
#ifndef EMBEDKIT_FUNCTIONS_H
#define EMBEDKIT_FUNCTIONS_H

#include "set.h"

/* 2^(whole + part), |part| <= 1/2, to a relative 2e-9 before rounding (minimax of degree 6). */
INLINE vec exp2_parts(vec whole, vec part) {
    vec y = v_fill(1.5343000278e-4f);
    y = v_fmadd(y, part, v_fill(1.3399976023e-3f));
    y = v_fmadd(y, part, v_fill(9.6185004848e-3f));
    y = v_fmadd(y, part, v_fill(5.5503286121e-2f));
    y = v_fmadd(y, part, v_fill(2.4022646756e-1f));
    y = v_fmadd(y, part, v_fill(6.9314720592e-1f));
    y = v_fmadd(y, part, v_fill(1.0f));
    return v_times_power(y, whole);
}

/* 2^x for x <= 0; from 2^-126 on it is 0, since numbers below that are slow to compute with. What is taken off all others is less
 * than half a unit in their last place from 2^-101 on. */
INLINE vec exp2_exact(vec x) {
    x = v_max(v_fill(-126.0f), x);
    return v_sub(exp2_parts(v_nearest(x), v_sub(x, v_nearest(x))), v_fill(0x1p-126f));
}

/* e^x for any x. The product with log2(e) is taken in two parts, or large x would lose digits. */
INLINE vec exp_exact(vec x) {
    x = v_min(v_fill(110.0f), v_max(v_fill(-110.0f), x));
    vec high = v_fill(1.44269502f), low = v_fill(1.92596303e-8f);
    vec whole = v_nearest(v_mul(x, high));
    return exp2_parts(whole, v_fmadd(x, low, v_fmsub(x, high, whole)));
}

/* 2^x for x <= 0 to a relative 7.5e-5, well below the 2e-3 of the bf16 it becomes (minimax on [-1/2, 1/2]); from
 * 2^-126 on it is as good as 0. Adding 1.5 · 2^23 rounds to a whole number and leaves it, with the exponent's 127, in
 * the lowest bits; shifted up they are 2^whole. */
INLINE vec exp2_fast(vec x) {
    const vec rounding = v_fill(12582912.0f + 127.0f);
    x = v_max(v_fill(-126.0f), x);
    vec shifted = v_add(x, rounding);
    vec part = v_sub(x, v_sub(shifted, rounding));
    vec y = v_fill(5.517167e-2f);
    y = v_fmadd(y, part, v_fill(2.4261113e-1f));
    y = v_fmadd(y, part, v_fill(6.9326099e-1f));
    y = v_fmadd(y, part, v_fill(9.9992807e-1f));
    return v_mul(y, i_bits(i_up(v_bits(shifted), 23)));
}

/* x Φ(x) = max(x, 0) - |x| Φ(-|x|), with Φ(-t) = exp(-t²/2) u P(u), u = 1 / (1 + t/4); absolute error 1e-7.
 * The form is that of Abramowitz and Stegun 26.2.17; P is a minimax fit of degree 6. */
INLINE vec gelu_exact(vec x) {
    vec t = v_abs(x);
    vec u = v_div(v_fill(1.0f), v_fmadd(t, v_fill(0.25f), v_fill(1.0f)));
    vec p = v_fill(-8.8578289715e-2f);
    p = v_fmadd(p, u, v_fill(3.2608620228e-1f));
    p = v_fmadd(p, u, v_fill(-2.3394574307e-1f));
    p = v_fmadd(p, u, v_fill(2.4385017404e-1f));
    p = v_fmadd(p, u, v_fill(4.8358220341e-2f));
    p = v_fmadd(p, u, v_fill(1.0432303480e-1f));
    p = v_fmadd(p, u, v_fill(9.9906398634e-2f));
    vec density = exp_exact(v_mul(v_mul(t, t), v_fill(-0.5f)));
    vec tail = v_mul(v_mul(p, u), density);
    return v_fnmadd(t, tail, v_max(v_zero(), x));
}

/* x Φ(x) with Φ(x) - 1/2 = x P(x²) on |x| <= 3.65 and constant beyond; absolute error 4.8e-4 (minimax of degree 5). */
INLINE vec gelu_fast(vec x) {
    vec t = v_max(v_fill(-3.65f), v_min(v_fill(3.65f), x));
    vec s = v_mul(t, t);
    vec p = v_fill(-4.9784606706e-7f);
    p = v_fmadd(p, s, v_fill(2.7184177213e-5f));
    p = v_fmadd(p, s, v_fill(-6.2157446077e-4f));
    p = v_fmadd(p, s, v_fill(7.8737841094e-3f));
    p = v_fmadd(p, s, v_fill(-6.2653774196e-2f));
    p = v_fmadd(p, s, v_fill(3.9653000826e-1f));
    return v_mul(x, v_fmadd(p, t, v_fill(0.5f)));
}

/* x / (1 + exp(-2z)) with z = sqrt(2/pi) (x + 0.044715 x³): Hendrycks and Gimpel 2016, section 2, as tanh. */
INLINE vec gelu_tanh(vec x) {
    vec s = v_fmadd(v_mul(x, x), v_fill(-0.0713548162726f), v_fill(-1.59576912161f));
    vec e = exp_exact(v_mul(x, s));
    return v_div(x, v_add(e, v_fill(1.0f)));
}

/* x / (1 + exp(-x)): Elfwing et al. 2017, https://arxiv.org/abs/1702.03118, eq. 2. */
INLINE vec silu(vec x) { return v_div(x, v_add(exp_exact(v_sub(v_zero(), x)), v_fill(1.0f))); }

INLINE vec relu(vec x) { return v_max(v_zero(), x); }

/* What the distances of the first, the second, ... key from a query add to their scores. */
INLINE const float *distances_of(const struct sequence *sequence, int64_t head, int64_t query) {
    return sequence->distances + head * sequence->stride - query;
}

INLINE void add_distances(float *scores, const float *distances, int64_t first, int64_t end) {
    for (int64_t key = first; key < end; key += LANES)
        v_store(scores + key, v_add(v_load(scores + key), v_loadu(distances + key)));
}

#define NO_SCORE -1e30f /* its power is 0 */

/* Take keys beyond the reach of a query out of its scores, those of keys `first` to `end`, both at whole vectors. */
INLINE void keep_near(float *scores, const struct sequence *sequence, int64_t query, int64_t first, int64_t end) {
    int64_t from = query - sequence->reach, to = query + sequence->ahead + 1;
    if (sequence->keys <= from) { /* none is left but itself */
        from = query, to = query + 1;
        scores[query] = 0.0f;
    }
    vec none = v_fill(NO_SCORE);
    for (int64_t key = first; key < from; key += LANES)
        v_store(scores + key, v_first_of(none, first_lanes(from - key), v_load(scores + key)));
    for (int64_t key = to / LANES * LANES; key < end; key += LANES)
        v_store(scores + key, v_first_of(v_load(scores + key), first_lanes(to - key), none));
}

#endif
