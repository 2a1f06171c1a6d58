/* Products in bf16: two numbers a unit, summed in fp32; and what the set does in bf16. */
#include "set.h"

typedef freg sum_t;
typedef uint16_t input_t;
typedef uint16_t output_t;
#define PER_UNIT 2
#define WITH_UNITS 0
#define DOT(sum, a, b) r_dot_bf16(sum, a, b)
#define START_OF(w, column) r_floats((w)->bias + (column))
#define DOT_TILES(sum, left, right) T_DOT_BF16(sum, left, right)
#define STORE_OUTPUTS(to, x) store_bf16(to, x)
#define LOAD_OUTPUT(from) v_load_bf16(from)
#define GELU_OF(x) gelu_fast(x)
#define VALUE_OF(sums, unit, columns, c) ((void)(unit), (void)(columns), v_load((const float *)(sums)))

INLINE ivec units_of(const float *weights, int64_t rest, float inverse) {
    (void)inverse;
    return v_two_to_bf16(v_load_first(weights, first_lanes(rest)), v_load_first(weights + LANES, first_lanes(rest - LANES)));
}

#include "gemm.h"

static void pack(const struct linear *w, const float *weights, void *to, float *inverse, float *scale, int32_t *start,
                 float *bias, float shift) {
    (void)inverse, (void)scale, (void)start, (void)bias, (void)shift;
    pack_panels(w, weights, NULL, to);
}

static void multiply(const struct linear *w, const void *input, const struct unit *units, int64_t stride, int64_t rows,
                     const struct result *result) {
    gemm(w, input, units, stride, rows, result);
}

static struct unit round_row(void *to, const float *row, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) v_store_bf16((uint16_t *)to + i, v_load(row + i));
    return NO_UNIT;
}

static const struct input ROUNDED = {.of_hidden = round_row};

const struct kernels OF_SET(bf16) = {
    .name = NAME,
    .number_bytes = sizeof(uint16_t),
    .code_bytes = sizeof(uint16_t),
    .set = &OF_BASE(set),
    .input = &ROUNDED,
    .pack = pack,
    .multiply = multiply,
    .attend = OF_SET(attention_bf16),
    .attention_bytes = OF_SET(attention_bf16_bytes),
#ifdef WITH_TILES
    .rows_behind = 2 * TILE_HEIGHT - 1,
    .begin = begin_tiles,
    .end = end_tiles,
#endif
};
