/* Products in bf16: two numbers a unit, summed in fp32 by vdpbf16ps. */
#include "simd.h"

typedef __m512 sum_t;
typedef uint16_t input_t;
typedef uint16_t output_t;
#define PER_UNIT 2
#define DOT(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))
#define START_OF(w, column) _mm512_loadu_ps((w)->bias + (column))
#define STORE_OUTPUT(to, x) store_bf16(to, x)
#define GELU_OF(x) gelu_fast(x)
#define VALUE_OF(sum, unit, columns, c) ((void)(unit), (void)(columns), (sum))

INLINE __m512i units_of(const float *weights, int64_t rest, float inverse) {
    (void)inverse;
    __m512 low = _mm512_maskz_loadu_ps(first_lanes(rest), weights);
    __m512 high = _mm512_maskz_loadu_ps(first_lanes(rest - LANES), weights + LANES);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

#include "gemm.h"

EXPORT void embedkit_pack_bf16(struct linear *w, const float *weights, void *to) { pack_panels(w, weights, NULL, to); }

void gemm_bf16(const struct linear *w, const uint16_t *input, int64_t stride, int64_t rows,
               const struct result *result) {
    gemm(w, input, NULL, stride, rows, result);
}
