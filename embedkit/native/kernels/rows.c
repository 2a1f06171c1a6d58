/* See rows.h. Sizes are multiples of sixteen. */
#include "rows.h"

#include <math.h>

#include "simd.h"

void sum_rows(float *to, const float *a, const float *b, const float *c, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) {
        __m512 x = _mm512_loadu_ps(a + i);
        if (c) x = _mm512_add_ps(x, _mm512_loadu_ps(c + i));
        _mm512_store_ps(to + i, _mm512_add_ps(x, _mm512_loadu_ps(b + i)));
    }
}

void norm_row(float *row, int64_t size, const float *weight, const float *bias, double eps) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += LANES) sum = _mm512_add_ps(sum, _mm512_load_ps(row + i));
    float mean = _mm512_reduce_add_ps(sum) / (float)size;
    __m512 middle = _mm512_set1_ps(mean);
    for (int64_t i = 0; i < size; i += LANES) {
        __m512 x = _mm512_sub_ps(_mm512_load_ps(row + i), middle);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    double variance = (double)_mm512_reduce_add_ps(squares) / (double)size;
    __m512 factor = _mm512_set1_ps((float)(1.0 / sqrt(variance + eps)));
    for (int64_t i = 0; i < size; i += LANES) {
        __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + i), middle), factor);
        x = _mm512_fmadd_ps(x, _mm512_loadu_ps(weight + i), _mm512_loadu_ps(bias + i));
        _mm512_store_ps(row + i, x);
    }
}

void row_to_bf16(uint16_t *to, const float *row, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) store_bf16(to + i, _mm512_load_ps(row + i));
}

/* A number this many times as large as any other of its row is left out of the bytes: otherwise all others would be
 * rounded to its scale. Trained encoders have such numbers in the rows of some tokens: in [CLS] of all-MiniLM-L6-v2, 19.5
 * where the whole row has a norm of 19.6. There, this takes the error of sentence vectors, one less their mean cosine,
 * from .0025 to .0007.
 * Source of the idea: Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, section 3.2, there for whole columns. */
#define OUTLIER 2.0f

/* Round 64 numbers from 0 to 255 to bytes. */
INLINE void store_bytes(uint8_t *to, const __m512 x[4]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(x[0]), _mm512_cvtps_epi32(x[1]));
    __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(x[2]), _mm512_cvtps_epi32(x[3]));
    /* packing works within 128 bits; `order` brings their parts together */
    _mm512_store_si512(to, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
}

/* Write x · factor + offset of a row of floats or, with `halves`, of bf16, and of what fills it up, as bytes. */
INLINE void numbers_to_bytes(const int halves, uint8_t *to, const void *row, int64_t size, __m512 factor,
                             __m512 offset) {
    for (int64_t i = 0; i < padded(size); i += 4 * LANES) {
        __m512 x[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            int64_t at = i + j * LANES;
            x[j] = halves ? load_bf16((const uint16_t *)row + at) : _mm512_load_ps((const float *)row + at);
            x[j] = _mm512_fmadd_ps(x[j], factor, offset);
        }
        store_bytes(to + i, x);
    }
}

/* A peak that is not finite gives a unit that is not, and so does all it touches. A row of zeros has the unit 0. */
INLINE __m512 steps_of(float peak, float steps) { return _mm512_set1_ps(peak == 0.0f ? 0.0f : steps / peak); }

static int64_t find_magnitude(const float *row, int64_t size, int32_t bits) {
    int64_t i = 0;
    __mmask16 here = 0;
    for (; i < size && !here; i += LANES)
        here = _mm512_cmpeq_epi32_mask(magnitude(_mm512_load_ps(row + i)), _mm512_set1_epi32(bits));
    return i - LANES + __builtin_ctz(here);
}

struct unit row_to_bytes(uint8_t *to, const float *row, int64_t size) {
    /* The largest and the second largest magnitude, of each lane and then of all. */
    __m512i most = _mm512_setzero_si512(), next = most;
    for (int64_t i = 0; i < size; i += LANES) {
        __m512i x = magnitude(_mm512_load_ps(row + i));
        next = _mm512_max_epi32(next, _mm512_min_epi32(most, x));
        most = _mm512_max_epi32(most, x);
    }
    int32_t first = _mm512_reduce_max_epi32(most);
    __mmask16 lanes = _mm512_cmpeq_epi32_mask(most, _mm512_set1_epi32(first));
    lanes &= (__mmask16)-lanes; /* one of them, if several are as large */
    float peak = as_float(first), second = as_float(_mm512_reduce_max_epi32(_mm512_mask_mov_epi32(most, lanes, next)));
    struct unit unit = {peak / 127.0f, 0.0f, 0};
    if (peak > OUTLIER * second) {
        unit.column = find_magnitude(row, size, first);
        unit.outlier = row[unit.column];
        unit.scale = second / 127.0f;
        peak = second;
    }
    __m512 factor = steps_of(peak, 127.0f);
    numbers_to_bytes(0, to, row, size, factor, _mm512_set1_ps(128.0f));
    if (unit.outlier != 0.0f) to[unit.column] = 128;
    return unit;
}

struct unit bf16_to_bytes(uint8_t *to, const uint16_t *row, int64_t size) {
    __m512i peaks = _mm512_setzero_si512();
    for (int64_t i = 0; i < size; i += LANES) peaks = _mm512_max_epi32(peaks, magnitude(load_bf16(row + i)));
    float peak = as_float(_mm512_reduce_max_epi32(peaks));
    __m512 factor = steps_of(peak, 127.0f);
    numbers_to_bytes(1, to, row, size, factor, _mm512_set1_ps(128.0f));
    struct unit unit = {peak / 127.0f, 0.0f, 0};
    return unit;
}

struct unit bf16_to_shifted_bytes(uint8_t *to, const uint16_t *row, int64_t size, const int32_t *peaks) {
    float peak = as_float(_mm512_reduce_max_epi32(_mm512_load_si512(peaks))) + SHIFT;
    __m512 factor = _mm512_set1_ps(255.0f / peak), shift = _mm512_set1_ps(SHIFT * (255.0f / peak));
    numbers_to_bytes(1, to, row, size, factor, shift);
    struct unit unit = {peak / 255.0f, 0.0f, 0};
    return unit;
}
