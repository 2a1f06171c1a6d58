/* The inner loop of every product: a few rows of one matrix times up to 64 columns of another, summed in registers.
 *
 * The file that includes this one defines its number format: a sum register `sum_t`; `DOT(sum, a, b)`, which adds the
 * products of the units in `a` and `b`; `PER_UNIT`, the numbers in a unit of four bytes; `input_t`, their type.
 * Six rows x four vectors of sums fill 24 of the 32 registers; four hold a row of the right matrix, one a unit of the
 * left one. Ten loads go with 24 products, so that the multipliers never wait.
 */
#include "simd.h"

typedef int32_t __attribute__((may_alias)) unit_t;

#define TILE_ROWS 6
#define TILE_VECTORS 4

/* Sum up left (rows x K) times right (K x 16·vectors), beginning with `start`.
 *
 * left: rows `left_stride` numbers apart; right: row k holds unit k of every column, `right_stride` bytes apart.
 * sums: rows `sum_stride` vectors apart.
 * `rows` and `vectors` are constants at every call, which turns the inner loops into straight code.
 */
INLINE void tile(const int rows, const int vectors, int64_t units, const input_t *left, int64_t left_stride,
                 const char *right, int64_t right_stride, const sum_t *start, sum_t *sums, int64_t sum_stride) {
    sum_t sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) sum[r][c] = start[c];
    }
#pragma GCC unroll 2
    for (int64_t k = 0; k < units; k++, right += right_stride) {
        __m512i b[TILE_VECTORS];
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) b[c] = _mm512_load_si512(right + c * 64);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512i a = _mm512_set1_epi32(*(const unit_t *)(left + r * left_stride + k * PER_UNIT));
#pragma GCC unroll 4
            for (int c = 0; c < vectors; c++) sum[r][c] = DOT(sum[r][c], a, b[c]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) sums[r * sum_stride + c] = sum[r][c];
    }
}

/* A function for each shape of a tile, because inlined into one gcc keeps sums in memory. */
typedef void (*tile_t)(int64_t units, const input_t *left, int64_t left_stride, const char *right,
                       int64_t right_stride, const sum_t *start, sum_t *sums, int64_t sum_stride);

#define TILE(rows, vectors)                                                                                            \
    static __attribute__((noinline)) void tile_##rows##_##vectors(                                                     \
        int64_t units, const input_t *left, int64_t left_stride, const char *right, int64_t right_stride,              \
        const sum_t *start, sum_t *sums, int64_t sum_stride) {                                                         \
        tile(rows, vectors, units, left, left_stride, right, right_stride, start, sums, sum_stride);                   \
    }
#define TILES(vectors) TILE(1, vectors) TILE(2, vectors) TILE(3, vectors) TILE(4, vectors) TILE(5, vectors) TILE(6, vectors)
#define NAMES(vectors) {tile_1_##vectors, tile_2_##vectors, tile_3_##vectors, tile_4_##vectors, tile_5_##vectors, tile_6_##vectors}
