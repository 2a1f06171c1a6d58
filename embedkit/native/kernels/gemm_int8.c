/* Products in int8: four numbers a unit, summed in int32 by vpdpbusd.
 *
 * Weights are symmetric, w = scale[n] q with |q| <= 127, one scale a column. Inputs are of one scale a row and written
 * as unsigned bytes, as the instruction wants them, in one of two ways:
 *   centred:  x = row_scale (u - 128). The sums begin at -128 Σ q, which takes the 128 out again.
 *   shifted:  x = row_scale u - SHIFT, for what GELU gives, which is never below -0.17: all 255 steps are used. The
 *             constant SHIFT scale Σ q is taken out of the bias.
 * Source of the scheme: Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 2.
 */
#include "native.h"
#include "simd.h"

typedef __m512i sum_t;
typedef uint8_t input_t;
typedef uint16_t output_t;
#define PER_UNIT 4
#define DOT(sum, a, b) dot_bytes(sum, a, b)
#define START_OF(w, column) _mm512_loadu_si512((w)->start + (column))
#define STORE_OUTPUT(to, x) store_bf16(to, x)
#define GELU_OF(x) gelu_fast(x)
#define VALUE_OF(sum, unit, columns, c) \
    value_of(sum, unit, (columns)->scale[c], (columns)->bias[c], (columns)->panel + (c) * 64)

/* As assembly, because gcc 12 copies the sums of the intrinsic around and takes 1.6 times as long. */
INLINE __m512i dot_bytes(__m512i sum, __m512i a, __m512i b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

INLINE __m512i units_of(const float *weights, int64_t rest, float inverse) {
    __m512i bytes = _mm512_setzero_si512();
    __m128i part[4];
    for (int i = 0; i < 4; i++) {
        __m512 w = _mm512_maskz_loadu_ps(first_lanes(rest - i * LANES), weights + i * LANES);
        part[i] = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(w, _mm512_set1_ps(inverse))));
    }
    bytes = _mm512_inserti32x4(bytes, part[0], 0);
    bytes = _mm512_inserti32x4(bytes, part[1], 1);
    bytes = _mm512_inserti32x4(bytes, part[2], 2);
    return _mm512_inserti32x4(bytes, part[3], 3);
}

/* (row scale · sum + outlier · q) · column scale + bias, where q is the weight in the outlier's column. */
INLINE __m512 value_of(__m512i sum, struct unit row, __m512 scale, __m512 bias, const char *panel) {
    __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(row.scale));
    if (row.outlier != 0.0f) {
        __m512i units = _mm512_load_si512(panel + row.column / PER_UNIT * 256);
        __m128i up = _mm_cvtsi32_si128(24 - (int)(row.column % PER_UNIT) * 8);
        __m512i q = _mm512_srai_epi32(_mm512_sll_epi32(units, up), 24);
        x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(row.outlier), x);
    }
    return _mm512_fmadd_ps(x, scale, bias);
}

#include "gemm.h"

/* The sum of a column's bytes, read back from its panel. */
static int32_t column_sum(const struct linear *w, int64_t column, const int8_t *packed) {
    int64_t units = padded(w->rows_in) / PER_UNIT;
    const int8_t *from = packed + column / PANEL * units * 256 + column % PANEL * 4;
    int32_t sum = 0;
    for (int64_t k = 0; k < units; k++, from += 256) sum += from[0] + from[1] + from[2] + from[3];
    return sum;
}

/* Pack weights and write their scales and starts; `bias` comes in plain and goes out less what a shift adds. */
EXPORT void embedkit_pack_int8(struct linear *w, const float *weights, void *to, float *inverse, float *scale,
                               int32_t *start, float *bias, float shift) {
    for (int64_t column = 0; column < w->columns; column++) {
        __m512i peaks = _mm512_setzero_si512();
        for (int64_t k = 0; k < w->rows_in; k += LANES) {
            __m512 x = _mm512_maskz_loadu_ps(first_lanes(w->rows_in - k), weights + column * w->rows_in + k);
            peaks = _mm512_max_epi32(peaks, magnitude(x));
        }
        float peak = as_float(_mm512_reduce_max_epi32(peaks));
        scale[column] = peak / 127.0f;
        inverse[column] = peak == 0.0f ? 0.0f : 127.0f / peak;
    }
    pack_panels(w, weights, inverse, to);
    for (int64_t column = 0; column < w->columns; column++) {
        int32_t sum = column_sum(w, column, to);
        if (shift == 0.0f) start[column] = -128 * sum;
        else bias[column] -= shift * scale[column] * (float)sum;
    }
}

void gemm_int8(const struct linear *w, const uint8_t *input, const struct unit *row_units, int64_t stride, int64_t rows,
               const struct result *result) {
    gemm(w, input, row_units, stride, rows, result);
}
