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
 */
#ifndef EMBEDKIT_SET_H
#define EMBEDKIT_SET_H

#include "../native.h"
#include "simd.h"

#define JOIN_AS_WRITTEN(a, b) a##_##b
#define JOIN(a, b) JOIN_AS_WRITTEN(a, b)
#define OF_SET(name) JOIN(SET, name)
#define OF_BASE(name) JOIN(BASE, name)

#define TILE_COLUMNS (TILE_VECTORS * LANES)
#define PANEL_BYTES (TILE_COLUMNS * 4) /* a row of units of packed weights */

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

/* Kernels that files of a set use of one another. */
void OF_SET(gemm_fp32)(const struct linear *w, const void *input, const struct unit *units, int64_t stride, int64_t rows,
                       const struct result *result);
void OF_SET(attention_fp32)(const struct heads *heads, const struct sequence *sequence, const void *qkv, void *context,
                            int64_t stride, void *scratch);
void OF_BASE(attention_fp32)(const struct heads *heads, const struct sequence *sequence, const void *qkv, void *context,
                             int64_t stride, void *scratch);
void OF_SET(attention_bf16)(const struct heads *heads, const struct sequence *sequence, const void *qkv, void *context,
                            int64_t stride, void *scratch);
extern const struct input OF_SET(codes);
extern const struct set OF_SET(set), OF_BASE(set);

#endif
