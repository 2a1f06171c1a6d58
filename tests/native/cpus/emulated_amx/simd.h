/* What kernels/amx/simd.h has, in plain C, with the same results to the bit: tiles, the rounding to bf16, and codes of int8 as bytes.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS and TDPBUSD: products of the even and of the
 * odd numbers are summed apart, by fused multiply-adds, then together, then into the tile; denormal numbers count as 0 on the way in and
 * out. Each file that includes this has tiles of its own, which a function leaves to nobody else.
 */
#ifndef EMBEDKIT_EMULATED_AMX_H
#define EMBEDKIT_EMULATED_AMX_H

/* The codes of plain C have 16 bits; they keep other names. */
#define code_t plain_code_t
#define to_codes plain_to_codes
#define i_pack_codes plain_pack_codes
#define store_codes plain_store_codes
#define r_dot_codes plain_dot_codes
#include "../../../../embedkit/native/kernels/generic/simd.h"
#undef code_t
#undef to_codes
#undef i_pack_codes
#undef store_codes
#undef r_dot_codes
#undef CODES_PER_UNIT

#define WITH_BF16 1
#define WITH_TILES 1
#define PANEL_VECTORS 2

typedef uint8_t code_t;
#define CODES_PER_UNIT 4
INLINE void store_codes(code_t *to, const ivec x[4]) { /* what is rounded to bf16 may be a little above its row's peak */
    for (int i = 0; i < 4 * LANES; i++) {
        int32_t code = x[i / LANES].r[i % LANES / 4][i % 4];
        to[i] = (uint8_t)(code < 0 ? 0 : code > 255 ? 255 : code);
    }
}
INLINE ivec i_pack_codes(const ivec x[4]) {
    code_t some[4 * LANES];
    for (int i = 0; i < 4 * LANES; i++) some[i] = (uint8_t)x[i / LANES].r[i % LANES / 4][i % 4];
    return i_load(some);
}

INLINE float emulated_flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
INLINE float emulated_number(uint16_t bf16) {
    uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
INLINE uint16_t emulated_round(float x) { /* to the nearest, to even of two; what is no number stays none */
    uint32_t bits;
    x = emulated_flush(x);
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
INLINE vec v_load_bf16(const uint16_t *from) {
    float some[LANES];
    for (int i = 0; i < LANES; i++) some[i] = emulated_number(from[i]);
    return v_loadu(some);
}
INLINE void v_store_bf16(uint16_t *to, vec x) {
    for (int i = 0; i < LANES; i++) to[i] = emulated_round(x.r[i / 4][i % 4]);
}
INLINE ivec v_two_to_bf16(vec low, vec high) {
    uint16_t some[2 * LANES];
    v_store_bf16(some, low);
    v_store_bf16(some + LANES, high);
    return i_load(some);
}
INLINE void i_pair_halves(int32_t *to, const uint16_t *low, const uint16_t *high) {
    for (int i = 0; i < LANES; i++) to[i] = (int32_t)(low[i] | (uint32_t)(high ? high[i] : 0) << 16);
}

static _Thread_local union {
    uint8_t bytes[TILE_HEIGHT][TILE_ROW_BYTES];
    uint16_t halves[TILE_HEIGHT][32];
    float floats[TILE_HEIGHT][16];
    int32_t whole[TILE_HEIGHT][16];
} emulated_tile[8];
__attribute__((weak)) _Thread_local int emulated_tiles_begun; /* the only one of all files */

/* A tile without begin_tiles would end the program on a processor that has them. */
INLINE void emulated_check(int t) {
    if (!emulated_tiles_begun || t > 7) __builtin_trap();
}
INLINE void emulated_load(int t, const void *from, int64_t stride) {
    emulated_check(t);
    for (int r = 0; r < TILE_HEIGHT; r++) memcpy(emulated_tile[t].bytes[r], (const char *)from + r * stride, TILE_ROW_BYTES);
}
INLINE void emulated_store(int t, void *to, int64_t stride) {
    emulated_check(t);
    for (int r = 0; r < TILE_HEIGHT; r++) memcpy((char *)to + r * stride, emulated_tile[t].bytes[r], TILE_ROW_BYTES);
}
INLINE void emulated_dot_bf16(int sum, int left, int right) {
    emulated_check(sum);
    for (int m = 0; m < TILE_HEIGHT; m++)
        for (int n = 0; n < 16; n++) {
            float part[2] = {0.0f, 0.0f};
            for (int k = 0; k < 16; k++)
                for (int i = 0; i < 2; i++) {
                    float a = emulated_flush(emulated_number(emulated_tile[left].halves[m][2 * k + i]));
                    float b = emulated_flush(emulated_number(emulated_tile[right].halves[k][2 * n + i]));
                    part[i] = emulated_flush(fmaf(a, b, part[i]));
                }
            float *to = &emulated_tile[sum].floats[m][n];
            *to = emulated_flush(emulated_flush(*to) + emulated_flush(part[0] + part[1]));
        }
}
INLINE void emulated_dot_codes(int sum, int left, int right) {
    emulated_check(sum);
    for (int m = 0; m < TILE_HEIGHT; m++)
        for (int n = 0; n < 16; n++) {
            uint32_t all = (uint32_t)emulated_tile[sum].whole[m][n];
            for (int k = 0; k < 16; k++)
                for (int i = 0; i < 4; i++)
                    all += (uint32_t)(emulated_tile[left].bytes[m][4 * k + i] *
                                      (int8_t)emulated_tile[right].bytes[k][4 * n + i]);
            emulated_tile[sum].whole[m][n] = (int32_t)all;
        }
}

#define T_LOAD(t, from, stride) emulated_load(t, from, stride)
#define T_STORE(t, to, stride) emulated_store(t, to, stride)
#define T_ZERO(t) memset(&emulated_tile[t], 0, sizeof emulated_tile[t])
#define T_DOT_BF16(sum, left, right) emulated_dot_bf16(sum, left, right)
#define T_DOT_CODES(sum, left, right) emulated_dot_codes(sum, left, right)
INLINE void begin_tiles(void) { emulated_tiles_begun = 1; }
INLINE void end_tiles(void) { emulated_tiles_begun = 0; }

#endif
