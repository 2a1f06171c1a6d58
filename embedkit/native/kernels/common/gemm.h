/* A product over packed weights and what follows it, written once for three number formats (see tile.h).
 *
 * Weights lie in panels of PANEL_COLUMNS columns; row k of a panel holds unit k of each of its columns. A panel is
 * used for all rows of the input before the next one, so that it is read from the first and second-level caches.
 *
 * Besides what tile.h asks for, the including file defines `output_t` and `STORE_OUTPUTS` of a panel's vectors;
 * `units_of`, sixteen units of a weight's row; `START_OF`, what a register of sums begins with; `VALUE_OF`, floats from
 * the sums of a vector; `LOAD_OUTPUT`, which reads one back; `GELU_OF` of the accuracy it needs; and WITH_UNITS, whether rows have a `struct unit`.
 */
#include <stddef.h>

#include "functions.h"

/* Write `columns` x K weights as panels; what is missing to whole panels and units becomes 0. */
INLINE void pack_panels(const struct linear *w, const float *weights, const float *inverse, char *to) {
    int64_t units = padded(w->rows_in) / PER_UNIT;
    for (int64_t column = 0; column < padded(w->columns); column += LANES) {
        char *panel = to + column / PANEL_COLUMNS * units * PANEL_BYTES + column % PANEL_COLUMNS * 4;
        for (int64_t unit = 0; unit < units; unit += LANES) {
            ivec block[16];
            for (int c = 0; c < LANES; c++) {
                int64_t first = unit * PER_UNIT, rest = w->rows_in - first;
                int there = column + c < w->columns && rest > 0;
                block[c] = there ? units_of(weights + (column + c) * w->rows_in + first, rest,
                                            inverse == NULL ? 1.0f : inverse[column + c])
                                 : i_zero();
            }
            i_transpose(block);
            for (int k = 0; k < LANES; k++) i_store(panel + (unit + k) * PANEL_BYTES, block[k]);
        }
    }
}

/* What turns a panel's sums into numbers. */
struct columns {
    vec scale[PANEL_VECTORS], bias[PANEL_VECTORS];
    const char *panel;
};

static const struct unit NO_UNIT;

INLINE vec activated(const enum activation activation, vec x) {
    return activation == GELU ? GELU_OF(x) : activation == GELU_TANH ? gelu_tanh(x) : activation == SILU ? silu(x) : relu(x);
}

#define PANEL_REGS (PANEL_VECTORS * REGS_PER_VECTOR)

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
    for (int r = 0; r < at.rows; r++, sums += PANEL_REGS) {
        char *to = at.to + r * at.stride;
        const struct unit unit = WITH_UNITS ? at.row_units[at.row + r] : NO_UNIT;
        ivec peak = i_zero();
        vec x[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int c = 0; c < PANEL_VECTORS; c++) {
            x[c] = VALUE_OF(sums + c * REGS_PER_VECTOR, unit, columns, c);
            if (sink == ACTIVATE) x[c] = activated(activation, x[c]);
            if (sink == ACTIVATE && WITH_UNITS) peak = i_max(peak, magnitude(x[c]));
            if (sink == MULTIPLY) x[c] = v_mul(x[c], LOAD_OUTPUT((const output_t *)to + c * LANES));
        }
        if (sink == ADD) {
            float *residual = (float *)to;
#pragma GCC unroll 4
            for (int c = 0; c < PANEL_VECTORS; c++, residual += LANES) v_store(residual, v_add(v_load(residual), x[c]));
            continue;
        }
        STORE_OUTPUTS((output_t *)to, x);
        if (sink == ACTIVATE && WITH_UNITS) {
            int32_t *lanes = at.peaks + (at.row + r) * LANES;
            i_store(lanes, i_max(peak, i_load(lanes)));
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
FINISH(finish_silu, ACTIVATE, SILU)
FINISH(finish_multiply, MULTIPLY, GELU)
#undef FINISH

static finish_t finish_of(const struct result *result) {
    static const finish_t activate[] = {finish_gelu, finish_gelu_tanh, finish_relu, finish_silu}; /* enum activation */
    if (result->sink == STORE) return finish_store;
    if (result->sink == ADD) return finish_add;
    return result->sink == MULTIPLY ? finish_multiply : activate[result->activation];
}

#ifdef WITH_TILES
#include "gemm_tiles.h"
#else
#include "tile.h"

/* While a tile is computed, the place it goes to comes into the cache. */
INLINE void fetch(struct place at, int64_t width) {
    for (int r = 0; r < at.rows; r++)
        for (int64_t line = 0; line < width; line += 64) __builtin_prefetch(at.to + r * at.stride + line, 1);
}

WIDEST_TILES
static const tile_t TILE_OF[TILE_ROWS] = WIDEST_NAMES;

INLINE void gemm(const struct linear *w, const input_t *input, const struct unit *row_units, int64_t stride,
                 int64_t rows, const struct result *result) {
    finish_t finish = finish_of(result);
    int64_t units = padded(w->rows_in) / PER_UNIT;
    int64_t number = result->sink == ADD ? sizeof(float) : sizeof(output_t);
    struct place at = {.stride = result->stride * number, .row_units = row_units, .peaks = result->peaks};
    for (int64_t column = 0; column < padded(w->columns); column += TILE_COLUMNS) {
        struct columns columns = {.panel = (const char *)w->weight + column * units * 4};
        _Alignas(64) sum_t start[TILE_REGS], sums[TILE_ROWS * TILE_REGS];
        for (int c = 0; c < TILE_REGS; c++) start[c] = START_OF(w, column + c * REG_LANES);
        for (int c = 0; c < TILE_VECTORS; c++) {
            columns.bias[c] = v_loadu(w->bias + column + c * LANES);
            columns.scale[c] = w->scale ? v_loadu(w->scale + column + c * LANES) : v_zero();
        }
        for (at.row = 0; at.row < rows; at.row += TILE_ROWS) {
            at.rows = rows - at.row < TILE_ROWS ? (int)(rows - at.row) : TILE_ROWS;
            at.to = (char *)result->to + at.row * at.stride + column * number;
            fetch(at, TILE_COLUMNS * number);
            TILE_OF[at.rows - 1](units, input + at.row * stride, stride, columns.panel, PANEL_BYTES, start, sums,
                                 TILE_REGS);
            finish(sums, &columns, at);
        }
    }
}

#endif
