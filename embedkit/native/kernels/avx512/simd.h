/* The vectors of AVX-512, 16 lanes in one register. What each function does: common/set.h. */
#ifndef EMBEDKIT_SIMD_H
#define EMBEDKIT_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m512 vec;
typedef __m512i ivec;

typedef __mmask16 lanes_t;
INLINE lanes_t first_lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

INLINE vec v_load(const float *from) { return _mm512_load_ps(from); }
INLINE vec v_loadu(const float *from) { return _mm512_loadu_ps(from); }
INLINE vec v_load_first(const float *from, lanes_t first) { return _mm512_maskz_loadu_ps(first, from); }
INLINE void v_store(float *to, vec x) { _mm512_store_ps(to, x); }
INLINE void v_storeu(float *to, vec x) { _mm512_storeu_ps(to, x); }
INLINE vec v_fill(float x) { return _mm512_set1_ps(x); }
INLINE vec v_zero(void) { return _mm512_setzero_ps(); }
INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec v_fmadd(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec v_fmsub(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }
INLINE vec v_fnmadd(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec v_abs(vec x) { return _mm512_abs_ps(x); }
INLINE vec v_nearest(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec v_times_power(vec x, vec whole) { return _mm512_scalef_ps(x, whole); }
INLINE float v_sum(vec x) { return _mm512_reduce_add_ps(x); }
INLINE float v_largest(vec x) { return _mm512_reduce_max_ps(x); }
INLINE vec v_first_of(vec x, lanes_t first, vec rest) { return _mm512_mask_mov_ps(rest, first, x); }
INLINE uint32_t v_above(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE ivec v_bits(vec x) { return _mm512_castps_si512(x); }
INLINE ivec v_round(vec x) { return _mm512_cvtps_epi32(x); }

INLINE ivec i_load(const void *from) { return _mm512_load_si512(from); }
INLINE ivec i_load_first(const void *from, lanes_t first) { return _mm512_maskz_loadu_epi32(first, from); }
INLINE void i_store(void *to, ivec x) { _mm512_store_si512(to, x); }
INLINE ivec i_fill(int32_t x) { return _mm512_set1_epi32(x); }
INLINE ivec i_zero(void) { return _mm512_setzero_si512(); }
INLINE ivec i_and(ivec a, ivec b) { return _mm512_and_si512(a, b); }
INLINE ivec i_max(ivec a, ivec b) { return _mm512_max_epi32(a, b); }
INLINE ivec i_min(ivec a, ivec b) { return _mm512_min_epi32(a, b); }
INLINE ivec i_up(ivec x, const int count) { return _mm512_slli_epi32(x, (unsigned)count); }
INLINE int32_t i_largest(ivec x) { return _mm512_reduce_max_epi32(x); }
INLINE uint32_t i_equal(ivec a, ivec b) { return _mm512_cmpeq_epi32_mask(a, b); }
INLINE ivec i_choose(uint32_t lanes, ivec yes, ivec no) { return _mm512_mask_mov_epi32(no, (__mmask16)lanes, yes); }
INLINE vec i_bits(ivec x) { return _mm512_castsi512_ps(x); }
INLINE vec i_float(ivec x) { return _mm512_cvtepi32_ps(x); }
/* The signed field of `width` bits that ends `below` bits above the lowest. */
INLINE ivec i_field(ivec x, int below, const int width) {
    ivec up = _mm512_sll_epi32(x, _mm_cvtsi32_si128(32 - width - below));
    return _mm512_srai_epi32(up, (unsigned)(32 - width));
}

/* Registers of a tile. */
typedef __m512 freg;
typedef __m512i ireg;
#define REG_LANES 16
#define TILE_ROWS 6
#define TILE_VECTORS 4
INLINE ireg r_load(const void *from) { return _mm512_load_si512(from); }
INLINE ireg r_fill(int32_t unit) { return _mm512_set1_epi32(unit); }
INLINE freg r_floats(const float *from) { return _mm512_loadu_ps(from); }
INLINE ireg r_ints(const int32_t *from) { return _mm512_loadu_si512(from); }
INLINE freg r_dot_floats(freg sum, ireg a, ireg b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
}

INLINE vec v_load_halves(const uint16_t *from, lanes_t first) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first, from));
}
INLINE vec v_load_bytes(const uint8_t *from, lanes_t first) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first, from)));
}

typedef struct { __m512d low, high; } doubles;
INLINE doubles d_zero(void) { return (doubles){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
INLINE doubles d_of(vec x) {
    return (doubles){_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
}
INLINE doubles d_sub(doubles a, doubles b) {
    return (doubles){_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)};
}
INLINE doubles d_fmadd(doubles a, doubles b, doubles c) {
    return (doubles){_mm512_fmadd_pd(a.low, b.low, c.low), _mm512_fmadd_pd(a.high, b.high, c.high)};
}
INLINE double d_sum(doubles x) { return _mm512_reduce_add_pd(_mm512_add_pd(x.low, x.high)); }

#if defined(__AVX512VNNI__)
/* Inputs and weights of int8 as bytes. */
typedef uint8_t code_t;
#define CODES_PER_UNIT 4
/* As assembly, because gcc 12 copies the sums of the intrinsic around and takes 1.6 times as long. */
INLINE ireg r_dot_codes(ireg sum, ireg a, ireg b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

INLINE ivec i_pack_codes(const ivec x[4]) {
    ivec bytes = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(x[0]));
    bytes = _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(x[1]), 1);
    bytes = _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(x[2]), 2);
    return _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(x[3]), 3);
}

INLINE void store_codes(code_t *to, const ivec x[4]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i low = _mm512_packs_epi32(x[0], x[1]);
    __m512i high = _mm512_packs_epi32(x[2], x[3]);
    /* packing works within 128 bits; `order` brings their parts together */
    _mm512_store_si512(to, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
}
#endif

#ifdef __AVX512BF16__
#define WITH_BF16 1
INLINE vec v_load_bf16(const uint16_t *from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16));
}
INLINE void v_store_bf16(uint16_t *to, vec x) { _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(x)); }
INLINE ivec v_two_to_bf16(vec low, vec high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
INLINE freg r_dot_bf16(freg sum, ireg a, ireg b) { return _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b)); }
INLINE void i_pair_halves(int32_t *to, const uint16_t *low, const uint16_t *high) {
    ivec x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)low)), y = _mm512_setzero_si512();
    if (high) y = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)high));
    _mm512_store_si512(to, _mm512_or_si512(x, _mm512_slli_epi32(y, 16)));
}
#endif

INLINE void i_transpose(ivec r[16]) {
    ivec t[16];
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
