/* A product over packed weights and what follows it, written once for three number formats (see tile.h).
 *
 * Weights lie in panels of 64 columns; row k of a panel holds unit k of each of its columns, 256 bytes. A panel is used
 * for all rows of the input before the next one, so that it is read from the first and second-level caches.
 *
 * Besides what tile.h asks for, the including file defines `output_t` with LOAD/STORE of sixteen of them, the functions
 * `units_of` (sixteen units of a weight's row) and `VALUE_OF` (floats from sums), and GELU of the accuracy it needs.
 */
#include <stddef.h>

#include "native.h"
#include "tile.h"

/* Write `columns` x K weights as panels; what is missing to whole panels and units becomes 0. */
INLINE void pack_panels(const struct linear *w, const float *weights, const float *inverse, char *to) {
    int64_t units = padded(w->rows_in) / PER_UNIT;
    for (int64_t column = 0; column < padded(w->columns); column += LANES) {
        char *panel = to + column / PANEL * units * 256 + column % PANEL * 4;
        for (int64_t unit = 0; unit < units; unit += LANES) {
            __m512i block[16];
            for (int c = 0; c < LANES; c++) {
                int64_t first = unit * PER_UNIT, rest = w->rows_in - first;
                int there = column + c < w->columns && rest > 0;
                block[c] = there ? units_of(weights + (column + c) * w->rows_in + first, rest,
                                            inverse == NULL ? 1.0f : inverse[column + c])
                                 : _mm512_setzero_si512();
            }
            transpose_units(block);
            for (int k = 0; k < LANES; k++) _mm512_store_si512(panel + (unit + k) * 256, block[k]);
        }
    }
}

/* What turns a panel's sums into numbers. */
struct columns {
    __m512 scale[TILE_VECTORS], bias[TILE_VECTORS];
    const char *panel;
};

static const struct unit NO_UNIT;

INLINE __m512 activated(const enum activation activation, __m512 x) {
    return activation == GELU ? GELU_OF(x) : activation == GELU_TANH ? gelu_tanh(x) : relu(x);
}

/* Take a tile of sums to where the product's result belongs; `sink` and `activation` are constants at every call. */
INLINE void finish_as(const enum sink sink, const enum activation activation, int rows, const sum_t *sums,
                      const struct columns *columns, const struct unit *row_units, char *to, int64_t stride, int32_t *peaks) {
    for (int r = 0; r < rows; r++, to += stride, sums += TILE_VECTORS) {
        const struct unit unit = PER_UNIT == 4 ? row_units[r] : NO_UNIT;
        __m512i peak = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int c = 0; c < TILE_VECTORS; c++) {
            __m512 x = VALUE_OF(sums[c], unit, columns, c);
            if (sink == ADD) {
                float *at = (float *)to + c * LANES;
                _mm512_store_ps(at, _mm512_add_ps(_mm512_load_ps(at), x));
                continue;
            }
            if (sink == ACTIVATE) x = activated(activation, x);
            STORE_OUTPUT((output_t *)to + c * LANES, x);
            if (sink == ACTIVATE && PER_UNIT == 4) peak = _mm512_max_epi32(peak, magnitude(x));
        }
        if (sink == ACTIVATE && PER_UNIT == 4) {
            int32_t *lanes = peaks + r * LANES;
            _mm512_store_si512(lanes, _mm512_max_epi32(peak, _mm512_load_si512(lanes)));
        }
    }
}

#define FINISH(name, sink, activation)                                                                                 \
    static __attribute__((noinline)) void name(int rows, const sum_t *sums, const struct columns *columns,                 \
                                               const struct unit *row_units, char *to, int64_t stride, int32_t *peaks) {     \
        finish_as(sink, activation, rows, sums, columns, row_units, to, stride, peaks);                                  \
    }
FINISH(finish_store, STORE, GELU)
FINISH(finish_add, ADD, GELU)
FINISH(finish_gelu, ACTIVATE, GELU)
FINISH(finish_gelu_tanh, ACTIVATE, GELU_TANH)
FINISH(finish_relu, ACTIVATE, RELU)
#undef FINISH

typedef void (*finish_t)(int, const sum_t *, const struct columns *, const struct unit *, char *, int64_t, int32_t *);

static finish_t finish_of(const struct result *result) {
    if (result->sink == STORE) return finish_store;
    if (result->sink == ADD) return finish_add;
    return result->activation == GELU ? finish_gelu : result->activation == GELU_TANH ? finish_gelu_tanh : finish_relu;
}

TILES(4)
static const tile_t TILE_OF[TILE_ROWS] = NAMES(4);

INLINE void gemm(const struct linear *w, const input_t *input, const struct unit *row_units, int64_t stride, int64_t rows,
                 const struct result *result) {
    finish_t finish = finish_of(result);
    int64_t units_in = padded(w->rows_in) / PER_UNIT;
    int64_t number = result->sink == ADD ? sizeof(float) : sizeof(output_t), result_stride = result->stride * number;
    for (int64_t column = 0; column < padded(w->columns); column += PANEL) {
        const char *panel = (const char *)w->weight + column * units_in * 4;
        sum_t start[TILE_VECTORS], sums[TILE_ROWS * TILE_VECTORS];
        struct columns columns = {.panel = panel};
        for (int c = 0; c < TILE_VECTORS; c++) {
            int64_t at = column + c * LANES;
            start[c] = START_OF(w, at);
            columns.bias[c] = _mm512_loadu_ps(w->bias + at);
            columns.scale[c] = w->scale ? _mm512_loadu_ps(w->scale + at) : _mm512_setzero_ps();
        }
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            int count = rows - row < TILE_ROWS ? (int)(rows - row) : TILE_ROWS;
            const input_t *from = input + row * stride;
            char *to = (char *)result->to + row * result_stride + column * number;
            for (int r = 0; r < count; r++) /* while the tile is computed, its place comes into the cache */
                for (int64_t line = 0; line < PANEL * number; line += 64) __builtin_prefetch(to + r * result_stride + line, 1);
            TILE_OF[count - 1](units_in, from, stride, panel, 256, start, sums, TILE_VECTORS);
            finish(count, sums, &columns, row_units + row, to, result_stride, result->peaks + row * LANES);
        }
    }
}
