/* A product over packed weights and what follows it, written once for three number formats (see tile.h).
 *
 * Weights lie in panels of 64 columns; row k of a panel holds unit k of each of its columns, 256 bytes. A panel is used
 * for all rows of the input before the next one, so that it is read from the first and second-level caches.
 *
 * Besides what tile.h asks for, the including file defines `output_t` and `STORE_OUTPUT` of sixteen of them;
 * `units_of`, sixteen units of a weight's row; `START_OF`, what sums begin with; `VALUE_OF`, floats from sums; and
 * `GELU_OF` of the accuracy it needs.
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

/* Where a tile of sums belongs. */
struct place {
    int64_t row, stride; /* the tile's first row; bytes from one row to the next */
    int rows;
    char *to;
    const struct unit *row_units; /* of all rows, as are */
    int32_t *peaks;
};

/* Take a tile of sums to its place; `sink` and `activation` are constants at every call. */
INLINE void finish_as(const enum sink sink, const enum activation activation, const sum_t *sums,
                      const struct columns *columns, struct place at) {
    for (int r = 0; r < at.rows; r++, sums += TILE_VECTORS) {
        char *to = at.to + r * at.stride;
        const struct unit unit = PER_UNIT == 4 ? at.row_units[at.row + r] : NO_UNIT;
        __m512i peak = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int c = 0; c < TILE_VECTORS; c++) {
            __m512 x = VALUE_OF(sums[c], unit, columns, c);
            if (sink == ADD) {
                float *residual = (float *)to + c * LANES;
                _mm512_store_ps(residual, _mm512_add_ps(_mm512_load_ps(residual), x));
                continue;
            }
            if (sink == ACTIVATE) x = activated(activation, x);
            STORE_OUTPUT((output_t *)to + c * LANES, x);
            if (sink == ACTIVATE && PER_UNIT == 4) peak = _mm512_max_epi32(peak, magnitude(x));
        }
        if (sink == ACTIVATE && PER_UNIT == 4) {
            int32_t *lanes = at.peaks + (at.row + r) * LANES;
            _mm512_store_si512(lanes, _mm512_max_epi32(peak, _mm512_load_si512(lanes)));
        }
    }
}

typedef void (*finish_t)(const sum_t *sums, const struct columns *columns, struct place at);

#define FINISH(name, sink, activation)                                                                                 \
    static __attribute__((noinline)) void name(const sum_t *sums, const struct columns *columns, struct place at) {    \
        finish_as(sink, activation, sums, columns, at);                                                                \
    }
FINISH(finish_store, STORE, GELU)
FINISH(finish_add, ADD, GELU)
FINISH(finish_gelu, ACTIVATE, GELU)
FINISH(finish_gelu_tanh, ACTIVATE, GELU_TANH)
FINISH(finish_relu, ACTIVATE, RELU)
#undef FINISH

static finish_t finish_of(const struct result *result) {
    if (result->sink == STORE) return finish_store;
    if (result->sink == ADD) return finish_add;
    if (result->activation == GELU) return finish_gelu;
    return result->activation == GELU_TANH ? finish_gelu_tanh : finish_relu;
}

/* While a tile is computed, the place it goes to comes into the cache. */
INLINE void fetch(struct place at, int64_t width) {
    for (int r = 0; r < at.rows; r++)
        for (int64_t line = 0; line < width; line += 64) __builtin_prefetch(at.to + r * at.stride + line, 1);
}

TILES(4)
static const tile_t TILE_OF[TILE_ROWS] = NAMES(4);

INLINE void gemm(const struct linear *w, const input_t *input, const struct unit *row_units, int64_t stride,
                 int64_t rows, const struct result *result) {
    finish_t finish = finish_of(result);
    int64_t units = padded(w->rows_in) / PER_UNIT;
    int64_t number = result->sink == ADD ? sizeof(float) : sizeof(output_t);
    struct place at = {.stride = result->stride * number, .row_units = row_units, .peaks = result->peaks};
    for (int64_t column = 0; column < padded(w->columns); column += PANEL) {
        struct columns columns = {.panel = (const char *)w->weight + column * units * 4};
        sum_t start[TILE_VECTORS], sums[TILE_ROWS * TILE_VECTORS];
        for (int c = 0; c < TILE_VECTORS; c++) {
            start[c] = START_OF(w, column + c * LANES);
            columns.bias[c] = _mm512_loadu_ps(w->bias + column + c * LANES);
            columns.scale[c] = w->scale ? _mm512_loadu_ps(w->scale + column + c * LANES) : _mm512_setzero_ps();
        }
        for (at.row = 0; at.row < rows; at.row += TILE_ROWS) {
            at.rows = rows - at.row < TILE_ROWS ? (int)(rows - at.row) : TILE_ROWS;
            at.to = (char *)result->to + at.row * at.stride + column * number;
            fetch(at, PANEL * number);
            TILE_OF[at.rows - 1](units, input + at.row * stride, stride, columns.panel, 256, start, sums, TILE_VECTORS);
            finish(sums, &columns, at);
        }
    }
}
