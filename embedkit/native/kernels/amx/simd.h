/* The vectors of AVX-512 and the tiles of AMX: eight registers of 16 rows x 64 bytes. What each tile instruction does: common/set.h.
 *
 * They are written as assembly: gcc's _tile_loadd (12 to 14) does not say that it reads memory, so that stores may be moved behind it.
 * So no file needs -mamx-*, only an assembler that knows them. Rows should begin at multiples of 64 bytes: otherwise a load takes seven
 * times as long.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and volume 2.
 */
#include "../avx512/simd.h"

#ifndef EMBEDKIT_AMX_H
#define EMBEDKIT_AMX_H

#define WITH_TILES 1
#define PANEL_VECTORS 2 /* of the columns of two tiles */

#define T_LOAD(t, from, stride)                                                                                        \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"((const void *)(from)), "r"((int64_t)(stride)) : "memory")
#define T_STORE(t, to, stride)                                                                                         \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"((void *)(to)), "r"((int64_t)(stride)) : "memory")
#define T_ZERO(t) __asm__ volatile("tilezero %%tmm" #t::)
#define T_DOT_BF16(sum, left, right)                                                                                   \
    __asm__ volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum::)
#define T_DOT_CODES(sum, left, right)                                                                                  \
    __asm__ volatile("tdpbusd %%tmm" #right ", %%tmm" #left ", %%tmm" #sum::)

/* All eight tiles whole. A tile of fewer rows saves at most 6 of 16 cycles an instruction, and another configuration takes 200. */
INLINE void begin_tiles(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = TILE_ROW_BYTES, config.rows[i] = TILE_HEIGHT;
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

/* While a thread's tiles hold something, Linux saves 8 KiB more whenever it switches, and the core does not sleep deeply. */
INLINE void end_tiles(void) { __asm__ volatile("tilerelease" ::); }

#endif
