/* What the kernels of one instruction set are written with. The files of this folder are compiled once for each set, with its
 * flags and the simd.h of its folder; SET is its name, and BASE that of the set whose other kernels it uses.
 *
 * A simd.h has sixteen floats, `vec`, and as many integers of 32 bits, `ivec`. Beside plain arithmetic:
 *   v_load, i_load       from a multiple of 64 bytes; v_loadu from anywhere; v_load_first: zeros after some first lanes
 *   v_min, v_max         the second operand where either is NaN. Nothing here hides a NaN: what is bounded stands second
 *   v_fmadd, v_fnmadd    a b + c, c - a b; v_fmsub: a b - c
 *   v_times_power        x 2^whole, rounded once, also where 2^whole is no float
 *   v_sum, v_largest     of all lanes
 *   v_first_of           the first lanes of one, then those of another
 *   v_above, i_equal     a bit for each lane where that is so; i_choose takes these lanes from `yes`
 *   v_bits, i_bits       the same bits as integers, as floats; v_round, i_float convert
 *   i_field              a signed field of some bits of each lane
 *   i_transpose          a block of 16 x 16 turned around; rows become columns
 *   code_t, store_codes  what numbers of int8 are written as in a product's input, 64 at a time, and i_pack_codes: in weights
 *   doubles              sixteen sums in double precision
 *   freg, ireg, r_*      the registers of a tile, of REG_LANES lanes; see tile.h
 *
 * With WITH_BF16 it has bf16, too; with WITH_TILES, registers of TILE_HEIGHT rows of TILE_ROW_BYTES, numbered from 0 to 7, which must be
 * written as constants:
 *   T_LOAD, T_STORE      rows that are `stride` bytes apart; a load of stride 0 reads one row sixteen times
 *   T_ZERO               all numbers 0
 *   T_DOT_BF16           sum += left · right, two numbers of bf16 a unit, summed in fp32; denormal numbers count as 0
 *   T_DOT_CODES          the same with four codes of int8 a unit, of which the left are unsigned
 *   begin_tiles, end_tiles  what a thread calls before its first tile, and after its last
 */
#ifndef EMBEDKIT_SET_H
#define EMBEDKIT_SET_H

#include "../native.h"

#define TILE_HEIGHT 16
#define TILE_ROW_BYTES 64
#define TILE_BYTES (TILE_HEIGHT * TILE_ROW_BYTES)
#include "simd.h"

#define JOIN_AS_WRITTEN(a, b) a##_##b
#define JOIN(a, b) JOIN_AS_WRITTEN(a, b)
#define OF_SET(name) JOIN(SET, name)
#define OF_BASE(name) JOIN(BASE, name)

#define REGS_PER_VECTOR (LANES / REG_LANES)
#define TILE_COLUMNS (TILE_VECTORS * LANES)
#ifndef PANEL_VECTORS
#define PANEL_VECTORS TILE_VECTORS
#endif
#define PANEL_COLUMNS (PANEL_VECTORS * LANES)
#define PANEL_BYTES (PANEL_COLUMNS * 4) /* a row of units of packed weights */

/* What is taken from the whole numbers of a product's input, which are from 0 to 255. */
#ifndef CODE_OFFSET
#define CODE_OFFSET 0
#endif

typedef int32_t __attribute__((may_alias)) unit_t;

INLINE float as_float(int32_t bits) {
    union { int32_t i; float f; } same = {.i = bits};
    return same.f;
}

/* The bits of |x| ordered as integers are ordered as the floats, with infinity and NaN above all numbers. */
INLINE ivec magnitude(vec x) { return i_and(v_bits(x), i_fill(0x7fffffff)); }

#ifdef WITH_BF16
/* Round a panel's vectors to bf16: two at once take half as long. */
INLINE void store_bf16(uint16_t *to, const vec x[PANEL_VECTORS]) {
#pragma GCC unroll 2
    for (int i = 0; i < PANEL_VECTORS; i += 2) i_store(to + i * LANES, v_two_to_bf16(x[i], x[i + 1]));
}
#endif

INLINE void store_floats(float *to, const vec x[PANEL_VECTORS]) {
#pragma GCC unroll 4
    for (int i = 0; i < PANEL_VECTORS; i++) v_store(to + i * LANES, x[i]);
}

/* Kernels that files of a set use of one another. */
void OF_SET(gemm_fp32)(const struct linear *w, const void *input, const struct unit *units, int64_t stride, int64_t rows,
                       const struct result *result);
void OF_SET(attention_fp32)(const struct heads *heads, const struct sequence *sequence, void *qkv, void *context,
                            int64_t stride, void *scratch);
void OF_BASE(attention_fp32)(const struct heads *heads, const struct sequence *sequence, void *qkv, void *context,
                             int64_t stride, void *scratch);
int64_t OF_SET(attention_fp32_bytes)(int64_t length, int64_t head_size, int disentangled);
int64_t OF_BASE(attention_fp32_bytes)(int64_t length, int64_t head_size, int disentangled);
int64_t OF_SET(attention_bf16_bytes)(int64_t length, int64_t head_size, int disentangled);
void OF_SET(attention_bf16)(const struct heads *heads, const struct sequence *sequence, void *qkv, void *context,
                            int64_t stride, void *scratch);
extern const struct input OF_SET(codes);
extern const struct set OF_SET(set), OF_BASE(set);

#endif
