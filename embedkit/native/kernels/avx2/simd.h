/* The vectors of AVX2 and FMA, 16 lanes in two registers. What each function does: common/set.h. */
#ifndef EMBEDKIT_SIMD_H
#define EMBEDKIT_SIMD_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct { __m256 a, b; } vec;
typedef struct { __m256i a, b; } ivec;

typedef int64_t lanes_t; /* how many */
INLINE lanes_t first_lanes(int64_t count) { return count; }

/* All bits of these lanes. */
INLINE ivec mask_of(lanes_t count) {
    __m256i n = _mm256_set1_epi32(count > LANES ? LANES : (int32_t)count);
    return (ivec){_mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                  _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

#define V1(call, x) ((vec){call((x).a), call((x).b)})
#define V2(call, x, y) ((vec){call((x).a, (y).a), call((x).b, (y).b)})
#define V3(call, x, y, z) ((vec){call((x).a, (y).a, (z).a), call((x).b, (y).b, (z).b)})
#define I2(call, x, y) ((ivec){call((x).a, (y).a), call((x).b, (y).b)})

INLINE vec v_load(const float *from) { return (vec){_mm256_load_ps(from), _mm256_load_ps(from + 8)}; }
INLINE vec v_loadu(const float *from) { return (vec){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
INLINE vec v_load_first(const float *from, lanes_t count) {
    if (count >= LANES) return v_loadu(from);
    ivec mask = mask_of(count);
    return (vec){_mm256_maskload_ps(from, mask.a), _mm256_maskload_ps(from + 8, mask.b)};
}
INLINE void v_store(float *to, vec x) { _mm256_store_ps(to, x.a), _mm256_store_ps(to + 8, x.b); }
INLINE void v_storeu(float *to, vec x) { _mm256_storeu_ps(to, x.a), _mm256_storeu_ps(to + 8, x.b); }
INLINE vec v_fill(float x) { return (vec){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vec v_zero(void) { return (vec){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE vec v_add(vec a, vec b) { return V2(_mm256_add_ps, a, b); }
INLINE vec v_sub(vec a, vec b) { return V2(_mm256_sub_ps, a, b); }
INLINE vec v_mul(vec a, vec b) { return V2(_mm256_mul_ps, a, b); }
INLINE vec v_div(vec a, vec b) { return V2(_mm256_div_ps, a, b); }
INLINE vec v_fmadd(vec a, vec b, vec c) { return V3(_mm256_fmadd_ps, a, b, c); }
INLINE vec v_fmsub(vec a, vec b, vec c) { return V3(_mm256_fmsub_ps, a, b, c); }
INLINE vec v_fnmadd(vec a, vec b, vec c) { return V3(_mm256_fnmadd_ps, a, b, c); }
INLINE vec v_max(vec a, vec b) { return V2(_mm256_max_ps, a, b); }
INLINE vec v_min(vec a, vec b) { return V2(_mm256_min_ps, a, b); }
INLINE vec v_abs(vec x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vec){_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
INLINE __m256 r_nearest(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec v_nearest(vec x) { return V1(r_nearest, x); }
/* Two factors, since one alone does not reach beyond 2^127 or below 2^-126. */
INLINE __m256 r_times_power(__m256 x, __m256 whole) {
    const __m256i one = _mm256_set1_epi32(127);
    __m256i all = _mm256_cvtps_epi32(whole), half = _mm256_srai_epi32(all, 1);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, one), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(all, half), one), 23);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
INLINE vec v_times_power(vec x, vec whole) { return V2(r_times_power, x, whole); }
/* In the order of AVX-512: halves of sixteen, of eight, of four, of two. */
INLINE float v_sum(vec x) {
    __m256 eight = _mm256_add_ps(x.b, x.a);
    __m128 four = _mm_add_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
INLINE float v_largest(vec x) {
    __m256 eight = _mm256_max_ps(x.b, x.a);
    __m128 four = _mm_max_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
INLINE vec v_first_of(vec x, lanes_t count, vec rest) {
    ivec mask = mask_of(count);
    return (vec){_mm256_blendv_ps(rest.a, x.a, _mm256_castsi256_ps(mask.a)),
                 _mm256_blendv_ps(rest.b, x.b, _mm256_castsi256_ps(mask.b))};
}
INLINE uint32_t v_above(vec a, vec b) {
    int low = _mm256_movemask_ps(_mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ));
    int high = _mm256_movemask_ps(_mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ));
    return (uint32_t)low | (uint32_t)high << 8;
}
INLINE ivec v_bits(vec x) { return (ivec){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
INLINE ivec v_round(vec x) { return (ivec){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }

INLINE ivec i_load(const void *from) {
    return (ivec){_mm256_load_si256(from), _mm256_load_si256((const __m256i *)from + 1)};
}
INLINE ivec i_load_first(const void *from, lanes_t count) { return v_bits(v_load_first(from, count)); }
INLINE void i_store(void *to, ivec x) { _mm256_store_si256(to, x.a), _mm256_store_si256((__m256i *)to + 1, x.b); }
INLINE ivec i_fill(int32_t x) { return (ivec){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE ivec i_zero(void) { return (ivec){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE ivec i_and(ivec a, ivec b) { return I2(_mm256_and_si256, a, b); }
INLINE ivec i_max(ivec a, ivec b) { return I2(_mm256_max_epi32, a, b); }
INLINE ivec i_min(ivec a, ivec b) { return I2(_mm256_min_epi32, a, b); }
INLINE ivec i_up(ivec x, const int count) {
    return (ivec){_mm256_slli_epi32(x.a, count), _mm256_slli_epi32(x.b, count)};
}
INLINE int32_t i_largest(ivec x) {
    __m256i eight = _mm256_max_epi32(x.b, x.a);
    __m128i four = _mm_max_epi32(_mm256_extracti128_si256(eight, 1), _mm256_castsi256_si128(eight));
    __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
INLINE uint32_t i_equal(ivec a, ivec b) {
    ivec same = I2(_mm256_cmpeq_epi32, a, b);
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(same.a)) |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(same.b)) << 8;
}
INLINE ivec i_choose(uint32_t lanes, ivec yes, ivec no) {
    __m256i low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), high = _mm256_slli_epi32(low, 8);
    __m256i all = _mm256_set1_epi32((int32_t)lanes);
    __m256i a = _mm256_cmpeq_epi32(_mm256_and_si256(all, low), low);
    __m256i b = _mm256_cmpeq_epi32(_mm256_and_si256(all, high), high);
    return (ivec){_mm256_blendv_epi8(no.a, yes.a, a), _mm256_blendv_epi8(no.b, yes.b, b)};
}
INLINE vec i_bits(ivec x) { return (vec){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
INLINE vec i_float(ivec x) { return (vec){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE ivec i_field(ivec x, int below, const int width) {
    __m128i up = _mm_cvtsi32_si128(32 - width - below);
    return (ivec){_mm256_srai_epi32(_mm256_sll_epi32(x.a, up), 32 - width),
                  _mm256_srai_epi32(_mm256_sll_epi32(x.b, up), 32 - width)};
}

/* Registers of a tile: twelve sums, two of the right matrix, one of the left one. */
typedef __m256 freg;
typedef __m256i ireg;
#define REG_LANES 8
#define TILE_ROWS 6
#define TILE_VECTORS 1
INLINE ireg r_load(const void *from) { return _mm256_load_si256(from); }
INLINE ireg r_fill(int32_t unit) { return _mm256_set1_epi32(unit); }
INLINE freg r_floats(const float *from) { return _mm256_loadu_ps(from); }
INLINE ireg r_ints(const int32_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE freg r_dot_floats(freg sum, ireg a, ireg b) {
    return _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), sum);
}

INLINE vec v_load_halves(const uint16_t *from, lanes_t count) {
    uint16_t some[LANES] = {0};
    if (count < LANES) from = memcpy(some, from, count > 0 ? (size_t)count * sizeof *some : 0);
    const __m128i *halves = (const __m128i *)from;
    return (vec){_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
INLINE vec v_load_bytes(const uint8_t *from, lanes_t count) {
    uint8_t some[LANES] = {0};
    if (count < LANES) from = memcpy(some, from, count > 0 ? (size_t)count : 0);
    __m128i bytes = _mm_loadu_si128((const __m128i *)from);
    return i_float((ivec){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
}

typedef struct { __m256d a, b, c, d; } doubles;
INLINE doubles d_zero(void) {
    __m256d zero = _mm256_setzero_pd();
    return (doubles){zero, zero, zero, zero};
}
INLINE doubles d_of(vec x) {
    return (doubles){_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
                     _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))};
}
INLINE doubles d_sub(doubles x, doubles y) {
    return (doubles){_mm256_sub_pd(x.a, y.a), _mm256_sub_pd(x.b, y.b), _mm256_sub_pd(x.c, y.c),
                     _mm256_sub_pd(x.d, y.d)};
}
INLINE doubles d_fmadd(doubles x, doubles y, doubles z) {
    return (doubles){_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b), _mm256_fmadd_pd(x.c, y.c, z.c),
                     _mm256_fmadd_pd(x.d, y.d, z.d)};
}
/* In the order of AVX-512, as above. */
INLINE double d_sum(doubles x) {
    __m256d four = _mm256_add_pd(_mm256_add_pd(x.b, x.d), _mm256_add_pd(x.a, x.c));
    __m128d two = _mm_add_pd(_mm256_extractf128_pd(four, 1), _mm256_castpd256_pd128(four));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#ifdef __AVXVNNI__
/* Inputs and weights of int8 as bytes. */
typedef uint8_t code_t;
#define CODES_PER_UNIT 4
/* As assembly, because gcc 12 copies the sums of the intrinsic around. */
INLINE ireg r_dot_codes(ireg sum, ireg a, ireg b) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}

/* Eight numbers of each of four, as bytes in their order; signed ones, or from 0 to 255. */
INLINE __m256i r_bytes(const int are_signed, __m256i x, __m256i y, __m256i z, __m256i w) {
    __m256i low = _mm256_packs_epi32(x, y), high = _mm256_packs_epi32(z, w);
    __m256i bytes = are_signed ? _mm256_packs_epi16(low, high) : _mm256_packus_epi16(low, high);
    /* packing works within 128 bits */
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
INLINE ivec i_pack_codes(const ivec x[4]) {
    return (ivec){r_bytes(1, x[0].a, x[0].b, x[1].a, x[1].b), r_bytes(1, x[2].a, x[2].b, x[3].a, x[3].b)};
}
INLINE void store_codes(code_t *to, const ivec x[4]) {
    i_store(to, (ivec){r_bytes(0, x[0].a, x[0].b, x[1].a, x[1].b), r_bytes(0, x[2].a, x[2].b, x[3].a, x[3].b)});
}
#else
/* Inputs and weights of int8 as 16 bits: vpmaddubsw would do with bytes, but its sums of two products overflow. */
typedef int16_t code_t;
#define CODES_PER_UNIT 2
INLINE ireg r_dot_codes(ireg sum, ireg a, ireg b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

/* Sixteen numbers as 16 bits in their order; packing works within 128 bits. */
INLINE __m256i r_shorts(ivec x) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8); }
INLINE ivec i_pack_codes(const ivec x[2]) { return (ivec){r_shorts(x[0]), r_shorts(x[1])}; }
INLINE void store_codes(code_t *to, const ivec x[4]) {
    i_store(to, (ivec){r_shorts(x[0]), r_shorts(x[1])});
    i_store(to + 2 * LANES, (ivec){r_shorts(x[2]), r_shorts(x[3])});
}
#endif

INLINE void r_transpose(__m256i r[8]) {
    __m256i t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4i + j] holds columns j and 4 + j of rows 4i .. 4i + 3, 128 bits each. */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2x128_si256(r[j], r[4 + j], 0x20);
        t[4 + j] = _mm256_permute2x128_si256(r[j], r[4 + j], 0x31);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) r[j] = t[j];
}

/* Four blocks of 8 x 8, each turned around; two of them change places. */
INLINE void i_transpose(ivec r[16]) {
    __m256i block[4][8];
    for (int i = 0; i < 8; i++) block[0][i] = r[i].a, block[1][i] = r[i].b, block[2][i] = r[8 + i].a, block[3][i] = r[8 + i].b;
    for (int i = 0; i < 4; i++) r_transpose(block[i]);
    for (int i = 0; i < 8; i++) r[i] = (ivec){block[0][i], block[2][i]}, r[8 + i] = (ivec){block[1][i], block[3][i]};
}

#endif
