/* The inner loop of every product: a few rows of one matrix times some columns of another, summed in registers.
 *
 * The file that includes this one defines its number format: a register of sums, `sum_t`; `DOT(sum, a, b)`, which adds the
 * products of the units in `a` and `b`; `PER_UNIT`, the numbers in a unit of four bytes; `input_t`, their type.
 * simd.h gives the shape that its registers hold. AVX-512: six rows x four vectors of sums fill 24 of the 32 registers; four
 * hold a row of the right matrix, one a unit of the left one. Ten loads go with 24 products, so that the multipliers
 * never wait. AVX2: six rows x one vector, 12 of the 16 registers; eight loads go with 12 products.
 */
#include "set.h"

#define TILE_REGS (TILE_VECTORS * REGS_PER_VECTOR)

/* Sum up left (rows x K) times right (K x 16·vectors), beginning with `start`.
 *
 * left: rows `left_stride` numbers apart; right: row k holds unit k of every column, `right_stride` bytes apart.
 * sums: rows `sum_stride` registers apart.
 * `rows` and `regs` are constants at every call, which turns the inner loops into straight code.
 */
INLINE void tile(const int rows, const int regs, int64_t units, const input_t *left, int64_t left_stride,
                 const char *right, int64_t right_stride, const sum_t *start, sum_t *sums, int64_t sum_stride) {
    sum_t sum[TILE_ROWS][TILE_REGS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < regs; c++) sum[r][c] = start[c];
    }
#pragma GCC unroll 2
    for (int64_t k = 0; k < units; k++, right += right_stride) {
        ireg b[TILE_REGS];
#pragma GCC unroll 4
        for (int c = 0; c < regs; c++) b[c] = r_load(right + c * 4 * REG_LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            ireg a = r_fill(*(const unit_t *)(left + r * left_stride + k * PER_UNIT));
#pragma GCC unroll 4
            for (int c = 0; c < regs; c++) sum[r][c] = DOT(sum[r][c], a, b[c]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < regs; c++) sums[r * sum_stride + c] = sum[r][c];
    }
}

/* A function for each shape of a tile, because inlined into one gcc keeps sums in memory. */
typedef void (*tile_t)(int64_t units, const input_t *left, int64_t left_stride, const char *right,
                       int64_t right_stride, const sum_t *start, sum_t *sums, int64_t sum_stride);

#define TILE(rows, vectors)                                                                                            \
    static __attribute__((noinline)) void tile_##rows##_##vectors(                                                     \
        int64_t units, const input_t *left, int64_t left_stride, const char *right, int64_t right_stride,              \
        const sum_t *start, sum_t *sums, int64_t sum_stride) {                                                         \
        tile(rows, vectors *REGS_PER_VECTOR, units, left, left_stride, right, right_stride, start, sums, sum_stride);  \
    }
#if TILE_ROWS == 6
#define TILES(vectors)                                                                                                 \
    TILE(1, vectors) TILE(2, vectors) TILE(3, vectors) TILE(4, vectors) TILE(5, vectors) TILE(6, vectors)
#define NAMES(vectors)                                                                                                 \
    {tile_1_##vectors, tile_2_##vectors, tile_3_##vectors, tile_4_##vectors, tile_5_##vectors, tile_6_##vectors}
#else
#define TILES(vectors) TILE(1, vectors) TILE(2, vectors) TILE(3, vectors)
#define NAMES(vectors) {tile_1_##vectors, tile_2_##vectors, tile_3_##vectors}
#endif

/* All shapes, where columns come in any number of vectors. */
#if TILE_VECTORS == 4
#define ALL_TILES TILES(1) TILES(2) TILES(3) TILES(4)
#define ALL_NAMES {NAMES(1), NAMES(2), NAMES(3), NAMES(4)}
#define WIDEST_TILES TILES(4)
#define WIDEST_NAMES NAMES(4)
#else
#define ALL_TILES TILES(1)
#define ALL_NAMES {NAMES(1)}
#define WIDEST_TILES TILES(1)
#define WIDEST_NAMES NAMES(1)
#endif
