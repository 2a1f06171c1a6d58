/* Products in int8, summed in int32: exactly, so that every set has the same sums; and what the set does in int8.
 *
 * Weights are symmetric, w = scale[n] q with |q| <= 127, one scale a column. Inputs are of one scale a row and written
 * as whole numbers from 0 to 255, since vpdpbusd wants them unsigned, in one of two ways:
 *   centred:  x = row_scale (u - 128). The sums begin at -128 Σ q, which takes the 128 out again.
 *   shifted:  x = row_scale u - SHIFT, for what GELU gives, which is never below -0.17: all 255 steps are used. The
 *             constant SHIFT scale Σ q is taken out of the bias.
 * Source of the scheme: Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 2.
 */
#include "codes.h"

typedef ireg sum_t;
typedef code_t input_t;
typedef inner_t output_t;
#define PER_UNIT CODES_PER_UNIT
#define WITH_UNITS 1
#define DOT(sum, a, b) r_dot_codes(sum, a, b)
#define START_OF(w, column) r_ints((w)->start + (column))
#define DOT_TILES(sum, left, right) T_DOT_CODES(sum, left, right)
#define STORE_OUTPUTS(to, x) store_inner(to, x)
#define LOAD_OUTPUT(from) load_inner(from)
#define GELU_OF(x) gelu_fast(x)
#define VALUE_OF(sums, unit, columns, c)                                                                               \
    value_of(i_load(sums), unit, (columns)->scale[c], (columns)->bias[c], (columns)->panel + (c) * LANES * 4)

INLINE ivec units_of(const float *weights, int64_t rest, float inverse) {
    ivec part[PER_UNIT];
    for (int i = 0; i < PER_UNIT; i++) {
        vec w = v_load_first(weights + i * LANES, first_lanes(rest - i * LANES));
        part[i] = v_round(v_mul(w, v_fill(inverse)));
    }
    return i_pack_codes(part);
}

/* (row scale · sum + outlier · q) · column scale + bias, where q is the weight in the outlier's column. */
INLINE vec value_of(ivec sum, struct unit row, vec scale, vec bias, const char *panel) {
    vec x = v_mul(i_float(sum), v_fill(row.scale));
    if (row.outlier != 0.0f) {
        const int width = 32 / PER_UNIT;
        ivec units = i_load(panel + row.column / PER_UNIT * PANEL_BYTES);
        ivec q = i_field(units, (int)(row.column % PER_UNIT) * width, width);
        x = v_fmadd(i_float(q), v_fill(row.outlier), x);
    }
    return v_fmadd(x, scale, bias);
}

#include "gemm.h"

#if CODES_PER_UNIT == 4
typedef int8_t weight_t;
#else
typedef int16_t weight_t;
#endif

/* The sum of a column's weights, read back from its panel. */
static int32_t column_sum(const struct linear *w, int64_t column, const char *packed) {
    int64_t units = padded(w->rows_in) / PER_UNIT;
    const char *from = packed + column / PANEL_COLUMNS * units * PANEL_BYTES + column % PANEL_COLUMNS * 4;
    int32_t sum = 0;
    for (int64_t k = 0; k < units; k++, from += PANEL_BYTES)
        for (int i = 0; i < PER_UNIT; i++)
            sum += ((const weight_t *)from)[i];
    return sum;
}

static void pack(const struct linear *w, const float *weights, void *to, float *inverse, float *scale, int32_t *start,
                 float *bias, float shift) {
    for (int64_t column = 0; column < w->columns; column++) {
        ivec peaks = i_zero();
        for (int64_t k = 0; k < w->rows_in; k += LANES) {
            vec x = v_load_first(weights + column * w->rows_in + k, first_lanes(w->rows_in - k));
            peaks = i_max(peaks, magnitude(x));
        }
        float peak = as_float(i_largest(peaks));
        scale[column] = peak / 127.0f;
        inverse[column] = peak == 0.0f ? 0.0f : 127.0f / peak;
    }
    pack_panels(w, weights, inverse, to);
    for (int64_t column = 0; column < w->columns; column++) {
        int32_t sum = column_sum(w, column, to);
        start[column] = CODE_OFFSET * sum;
        if (shift == 0.0f) start[column] -= 128 * sum;
        else bias[column] -= shift * scale[column] * (float)sum;
    }
}

static void multiply(const struct linear *w, const void *input, const struct unit *units, int64_t stride, int64_t rows,
                     const struct result *result) {
    gemm(w, input, units, stride, rows, result);
}

const struct kernels OF_SET(int8) = {
    .name = NAME,
    .number_bytes = sizeof(inner_t),
    .code_bytes = sizeof(code_t),
    .set = &OF_BASE(set),
    .input = &OF_SET(codes),
    .pack = pack,
    .multiply = multiply,
#ifdef WITH_BF16
    .attend = OF_SET(attention_bf16),
    .attention_bytes = OF_SET(attention_bf16_bytes),
#else
    .attend = OF_BASE(attention_fp32),
    .attention_bytes = OF_BASE(attention_fp32_bytes),
#endif
#ifdef WITH_TILES
    .rows_behind = 2 * TILE_HEIGHT - 1,
    .begin = begin_tiles,
    .end = end_tiles,
#endif
};
