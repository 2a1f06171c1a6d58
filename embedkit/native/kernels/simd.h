/* Sixteen floats at a time: loads and stores of bf16, sums and maxima, exp2 and the activations.
 *
 * Nothing here hides a NaN: where an operand is bounded, it stands second in min and max, which then return it.
 */
#ifndef EMBEDKIT_SIMD_H
#define EMBEDKIT_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

/* A mask of the first `count` lanes: none below 1, all from 16 on. */
INLINE __mmask16 first_lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

/* bf16 is the upper half of a float. */
INLINE __m512 load_bf16(const uint16_t *from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16));
}

#ifdef __AVX512BF16__
INLINE void store_bf16(uint16_t *to, __m512 values) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(values));
}
#endif

/* The bits of |x| ordered as integers are ordered as the floats, with infinity and NaN above all numbers. */
INLINE __m512i magnitude(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

INLINE float as_float(int32_t bits) {
    union { int32_t i; float f; } same = {.i = bits};
    return same.f;
}

/* 2^(whole + part), |part| <= 1/2, to a relative 2e-9 before rounding (minimax of degree 6). */
INLINE __m512 exp2_parts(__m512 whole, __m512 part) {
    __m512 y = _mm512_set1_ps(1.5343000278e-4f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.3399976023e-3f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.6185004848e-3f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(5.5503286121e-2f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.4022646756e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.9314720592e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

INLINE __m512 nearest(__m512 x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* 2^x for x <= 0; from 2^-150 on it is 0. */
INLINE __m512 exp2_exact(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x);
    return exp2_parts(nearest(x), _mm512_sub_ps(x, nearest(x)));
}

/* e^x for any x. The product with log2(e) is taken in two parts, or large x would lose digits. */
INLINE __m512 exp_exact(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(110.0f), _mm512_max_ps(_mm512_set1_ps(-110.0f), x));
    __m512 high = _mm512_set1_ps(1.44269502f), low = _mm512_set1_ps(1.92596303e-8f);
    __m512 whole = nearest(_mm512_mul_ps(x, high));
    return exp2_parts(whole, _mm512_fmadd_ps(x, low, _mm512_fmsub_ps(x, high, whole)));
}

/* 2^x for x <= 0 to a relative 7.5e-5, well below the 2e-3 of the bf16 it becomes (minimax on [-1/2, 1/2]); from
 * 2^-126 on it is as good as 0. Adding 1.5 · 2^23 rounds to a whole number and leaves it, with the exponent's 127, in
 * the lowest bits; shifted up they are 2^whole. */
INLINE __m512 exp2_fast(__m512 x) {
    const __m512 rounding = _mm512_set1_ps(12582912.0f + 127.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    __m512 shifted = _mm512_add_ps(x, rounding);
    __m512 part = _mm512_sub_ps(x, _mm512_sub_ps(shifted, rounding));
    __m512 y = _mm512_set1_ps(5.517167e-2f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.4261113e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.9326099e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.9992807e-1f));
    return _mm512_mul_ps(y, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

/* x Φ(x) = max(x, 0) - |x| Φ(-|x|), with Φ(-t) = exp(-t²/2) u P(u), u = 1 / (1 + t/4); absolute error 1e-7.
 * The form is that of Abramowitz and Stegun 26.2.17; P is a minimax fit of degree 6. */
INLINE __m512 gelu_exact(__m512 x) {
    __m512 t = _mm512_abs_ps(x);
    __m512 u = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_fmadd_ps(t, _mm512_set1_ps(0.25f), _mm512_set1_ps(1.0f)));
    __m512 p = _mm512_set1_ps(-8.8578289715e-2f);
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(3.2608620228e-1f));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(-2.3394574307e-1f));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(2.4385017404e-1f));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(4.8358220341e-2f));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(1.0432303480e-1f));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(9.9906398634e-2f));
    __m512 density = exp_exact(_mm512_mul_ps(_mm512_mul_ps(t, t), _mm512_set1_ps(-0.5f)));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, u), density);
    return _mm512_fnmadd_ps(t, tail, _mm512_max_ps(_mm512_setzero_ps(), x));
}

/* x Φ(x) with Φ(x) - 1/2 = x P(x²) on |x| <= 3.65 and constant beyond; absolute error 4.8e-4 (minimax of degree 5). */
INLINE __m512 gelu_fast(__m512 x) {
    __m512 t = _mm512_max_ps(_mm512_set1_ps(-3.65f), _mm512_min_ps(_mm512_set1_ps(3.65f), x));
    __m512 s = _mm512_mul_ps(t, t);
    __m512 p = _mm512_set1_ps(-4.9784606706e-7f);
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(2.7184177213e-5f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-6.2157446077e-4f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(7.8737841094e-3f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-6.2653774196e-2f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(3.9653000826e-1f));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f)));
}

/* x / (1 + exp(-2z)) with z = sqrt(2/pi) (x + 0.044715 x³): Hendrycks and Gimpel 2016, section 2, as tanh. */
INLINE __m512 gelu_tanh(__m512 x) {
    __m512 s = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.0713548162726f), _mm512_set1_ps(-1.59576912161f));
    __m512 e = exp_exact(_mm512_mul_ps(x, s));
    return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

INLINE __m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }

/* Turn a block of 16 x 16 units of four bytes around; rows become columns. */
INLINE void transpose_units(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4i + j] holds columns j, 4 + j, 8 + j and 12 + j of rows 4i .. 4i + 3, 128 bits each. */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
        r[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
        r[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

#endif
