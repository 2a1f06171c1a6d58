/* Vectors in plain C, with the vector types of GCC and Clang: 16 lanes in four registers of 128 bits, which every x86-64 and
 * 64-bit ARM processor has. What each function does: common/set.h. neon/simd.h includes this file with EMBEDKIT_NEON. */
#ifndef EMBEDKIT_SIMD_H
#define EMBEDKIT_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(EMBEDKIT_NEON)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float freg __attribute__((vector_size(16)));
typedef int32_t ireg __attribute__((vector_size(16)));
typedef double dreg __attribute__((vector_size(16)));
typedef freg loose_freg __attribute__((aligned(4), may_alias));
typedef ireg loose_ireg __attribute__((aligned(4), may_alias));

typedef struct { freg r[4]; } vec;
typedef struct { ireg r[4]; } ivec;

typedef int64_t lanes_t; /* how many */
INLINE lanes_t first_lanes(int64_t count) { return count; }

#define EACH(body)                                                                                                     \
    do {                                                                                                               \
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) body;                                                      \
    } while (0)
#define VEC(of)                                                                                                        \
    vec y;                                                                                                             \
    EACH(y.r[i] = (of));                                                                                               \
    return y
#define IVEC(of)                                                                                                       \
    ivec y;                                                                                                            \
    EACH(y.r[i] = (of));                                                                                               \
    return y

/* `yes` where the bits of `mask` are set. */
INLINE freg r_select(ireg mask, freg yes, freg no) { return (freg)((mask & (ireg)yes) | (~mask & (ireg)no)); }
INLINE freg r_same(float x) { return (freg){x, x, x, x}; }
INLINE ireg r_fill(int32_t x) { return (ireg){x, x, x, x}; }
INLINE ireg r_first(int64_t count, int i) {
    return r_fill(count > LANES ? LANES : (int32_t)count) > (ireg){4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3};
}
#if defined(EMBEDKIT_NEON)
INLINE freg r_fmadd(freg a, freg b, freg c) { return (freg)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE freg r_fmadd(freg a, freg b, freg c) { return a * b + c; }
#endif
/* To the nearest whole number where |x| < 2^22, by adding 1.5 · 2^23, which leaves no room for a fraction. */
INLINE freg r_nearest(freg x) {
    const freg big = r_same(12582912.0f);
    return (x + big) - big;
}
/* Whole numbers as integers: the lowest bits of the same sum. What is not finite gives any number. */
INLINE ireg r_whole(freg x) { return (ireg)(x + r_same(12582912.0f)) - r_fill(0x4b400000); }
INLINE freg r_float(ireg x) { return __builtin_convertvector(x, freg); }

INLINE vec v_load(const float *from) { VEC(*(const loose_freg *)(from + 4 * i)); }
INLINE vec v_loadu(const float *from) { VEC(*(const loose_freg *)(from + 4 * i)); }
INLINE void v_storeu(float *to, vec x) { EACH(*(loose_freg *)(to + 4 * i) = x.r[i]); }
INLINE void v_store(float *to, vec x) { v_storeu(to, x); }
INLINE vec v_load_first(const float *from, lanes_t count) {
    float some[LANES] = {0};
    if (count <= 0) return v_loadu(some);
    if (count < LANES) from = memcpy(some, from, (size_t)count * sizeof *some);
    return v_loadu(from);
}
INLINE vec v_fill(float x) { VEC(r_same(x)); }
INLINE vec v_zero(void) { VEC(r_same(0.0f)); }
INLINE vec v_add(vec a, vec b) { VEC(a.r[i] + b.r[i]); }
INLINE vec v_sub(vec a, vec b) { VEC(a.r[i] - b.r[i]); }
INLINE vec v_mul(vec a, vec b) { VEC(a.r[i] * b.r[i]); }
INLINE vec v_div(vec a, vec b) { VEC(a.r[i] / b.r[i]); }
INLINE vec v_fmadd(vec a, vec b, vec c) { VEC(r_fmadd(a.r[i], b.r[i], c.r[i])); }
INLINE vec v_fmsub(vec a, vec b, vec c) { VEC(r_fmadd(a.r[i], b.r[i], -c.r[i])); }
INLINE vec v_fnmadd(vec a, vec b, vec c) { VEC(r_fmadd(-a.r[i], b.r[i], c.r[i])); }
INLINE vec v_max(vec a, vec b) { VEC(r_select(a.r[i] > b.r[i], a.r[i], b.r[i])); }
INLINE vec v_min(vec a, vec b) { VEC(r_select(a.r[i] < b.r[i], a.r[i], b.r[i])); }
INLINE vec v_abs(vec x) { VEC((freg)((ireg)x.r[i] & r_fill(0x7fffffff))); }
INLINE vec v_nearest(vec x) { VEC(r_nearest(x.r[i])); }
/* Two factors, since one alone does not reach beyond 2^127 or below 2^-126. */
INLINE freg r_times_power(freg x, freg whole) {
    ireg all = r_whole(whole), half = all >> 1;
    freg first = (freg)((half + 127) << 23), second = (freg)((all - half + 127) << 23);
    return x * first * second;
}
INLINE vec v_times_power(vec x, vec whole) { VEC(r_times_power(x.r[i], whole.r[i])); }
/* In the order of AVX-512: halves of sixteen, of eight, of four, of two. */
INLINE float v_sum(vec x) {
    freg four = (x.r[1] + x.r[3]) + (x.r[0] + x.r[2]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}
INLINE float v_largest(vec x) {
    vec y = v_max((vec){{x.r[1], x.r[3], x.r[1], x.r[3]}}, (vec){{x.r[0], x.r[2], x.r[0], x.r[2]}});
    freg four = r_select(y.r[0] > y.r[1], y.r[0], y.r[1]);
    float a = four[0] > four[2] ? four[0] : four[2], b = four[1] > four[3] ? four[1] : four[3];
    return a > b ? a : b;
}
INLINE vec v_first_of(vec x, lanes_t count, vec rest) { VEC(r_select(r_first(count, i), x.r[i], rest.r[i])); }
/* A bit for each lane of which all bits are set. */
INLINE uint32_t bits_of(ivec mask) {
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++) bits |= (uint32_t)(mask.r[i / 4][i % 4] & 1) << i;
    return bits;
}
INLINE uint32_t v_above(vec a, vec b) {
    ivec mask;
    EACH(mask.r[i] = a.r[i] > b.r[i]);
    ireg any = (mask.r[0] | mask.r[1]) | (mask.r[2] | mask.r[3]);
    return (any[0] | any[1] | any[2] | any[3]) ? bits_of(mask) : 0;
}
INLINE ivec v_bits(vec x) { IVEC((ireg)x.r[i]); }
INLINE ivec v_round(vec x) { IVEC(r_whole(x.r[i])); }

INLINE ivec i_load(const void *from) { IVEC(((const loose_ireg *)from)[i]); }
INLINE ivec i_load_first(const void *from, lanes_t count) { return v_bits(v_load_first(from, count)); }
INLINE void i_store(void *to, ivec x) { EACH(((loose_ireg *)to)[i] = x.r[i]); }
INLINE ivec i_fill(int32_t x) { IVEC(r_fill(x)); }
INLINE ivec i_zero(void) { IVEC(r_fill(0)); }
INLINE ivec i_and(ivec a, ivec b) { IVEC(a.r[i] & b.r[i]); }
INLINE ireg r_choose(ireg mask, ireg yes, ireg no) { return (mask & yes) | (~mask & no); }
INLINE ivec i_max(ivec a, ivec b) { IVEC(r_choose(a.r[i] > b.r[i], a.r[i], b.r[i])); }
INLINE ivec i_min(ivec a, ivec b) { IVEC(r_choose(a.r[i] < b.r[i], a.r[i], b.r[i])); }
INLINE ivec i_up(ivec x, const int count) { IVEC(x.r[i] << count); }
INLINE int32_t i_largest(ivec x) {
    int32_t most = x.r[0][0];
    for (int i = 1; i < LANES; i++) most = x.r[i / 4][i % 4] > most ? x.r[i / 4][i % 4] : most;
    return most;
}
INLINE uint32_t i_equal(ivec a, ivec b) {
    ivec mask;
    EACH(mask.r[i] = a.r[i] == b.r[i]);
    return bits_of(mask);
}
INLINE ivec i_choose(uint32_t lanes, ivec yes, ivec no) {
    IVEC(r_choose((r_fill((int32_t)(lanes >> 4 * i)) & (ireg){1, 2, 4, 8}) != 0, yes.r[i], no.r[i]));
}
INLINE vec i_bits(ivec x) { VEC((freg)x.r[i]); }
INLINE vec i_float(ivec x) { VEC(r_float(x.r[i])); }
INLINE ivec i_field(ivec x, int below, const int width) { IVEC(x.r[i] << (32 - width - below) >> (32 - width)); }

/* Registers of a tile of 16 columns: NEON has 32 of them, SSE 16. */
#define REG_LANES 4
#define TILE_VECTORS 1
#if defined(EMBEDKIT_NEON)
#define TILE_ROWS 6
#else
#define TILE_ROWS 3
#endif
INLINE ireg r_load(const void *from) { return *(const loose_ireg *)from; }
INLINE freg r_floats(const float *from) { return *(const loose_freg *)from; }
INLINE ireg r_ints(const int32_t *from) { return r_load(from); }
INLINE freg r_dot_floats(freg sum, ireg a, ireg b) { return r_fmadd((freg)a, (freg)b, sum); }

INLINE float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    union { uint32_t bits; float number; } all = {.bits = rest << 13};
    if (rest >= 0x7c00) all.bits += (uint32_t)(255 - 31) << 23; /* infinity and NaN */
    else all.number *= 0x1p112f;                                /* also what is denormal as a half */
    all.bits |= sign;
    return all.number;
}
INLINE vec v_load_halves(const uint16_t *from, lanes_t count) {
    float some[LANES];
    for (int i = 0; i < LANES; i++) some[i] = i < count ? float_of_half(from[i]) : 0.0f;
    return v_loadu(some);
}
INLINE vec v_load_bytes(const uint8_t *from, lanes_t count) {
    float some[LANES];
    for (int i = 0; i < LANES; i++) some[i] = i < count ? (float)from[i] : 0.0f;
    return v_loadu(some);
}

typedef struct { dreg r[8]; } doubles;
INLINE doubles d_zero(void) { return (doubles){{{0}}}; }
INLINE doubles d_of(vec x) {
    doubles y;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) y.r[i] = (dreg){x.r[i / 2][i % 2 * 2], x.r[i / 2][i % 2 * 2 + 1]};
    return y;
}
INLINE doubles d_sub(doubles a, doubles b) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a.r[i] -= b.r[i];
    return a;
}
INLINE doubles d_fmadd(doubles a, doubles b, doubles c) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) c.r[i] += a.r[i] * b.r[i];
    return c;
}
INLINE double d_sum(doubles x) {
    dreg two = {0, 0};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) two += x.r[i];
    return two[0] + two[1];
}

#if defined(EMBEDKIT_NEON) && defined(__ARM_FEATURE_DOTPROD)
/* Inputs and weights of int8 as signed bytes, since sdot wants both of one kind: an input is 128 less than elsewhere. */
typedef int8_t code_t;
#define CODES_PER_UNIT 4
#define CODE_OFFSET 128
INLINE ireg r_dot_codes(ireg sum, ireg a, ireg b) {
    return (ireg)vdotq_s32((int32x4_t)sum, (int8x16_t)a, (int8x16_t)b);
}
#else
/* Inputs and weights of int8 as 16 bits. */
typedef int16_t code_t;
#define CODES_PER_UNIT 2
INLINE ireg r_dot_codes(ireg sum, ireg a, ireg b) {
#if defined(__SSE2__)
    return sum + (ireg)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(EMBEDKIT_NEON)
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return sum + (ireg)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#else
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}
#endif
INLINE void to_codes(code_t *to, ivec x) {
    for (int i = 0; i < LANES; i++) to[i] = (code_t)x.r[i / 4][i % 4];
}
INLINE ivec i_pack_codes(const ivec x[CODES_PER_UNIT]) {
    code_t some[CODES_PER_UNIT * LANES];
    for (int j = 0; j < CODES_PER_UNIT; j++) to_codes(some + j * LANES, x[j]);
    return i_load(some);
}
INLINE void store_codes(code_t *to, const ivec x[4]) {
    for (int j = 0; j < 4; j++) to_codes(to + j * LANES, x[j]);
}

INLINE void i_transpose(ivec r[16]) {
    int32_t from[16][16], to[16][16];
    for (int i = 0; i < 16; i++) i_store(from[i], r[i]);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[j][i] = from[i][j];
    for (int i = 0; i < 16; i++) r[i] = i_load(to[i]);
}

#endif
