/* Products in fp32: one number a unit, fused multiply-add. */
#include "simd.h"

typedef __m512 sum_t;
typedef float input_t;
typedef float output_t;
#define PER_UNIT 1
#define DOT(sum, a, b) _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
#define START_OF(w, column) _mm512_loadu_ps((w)->bias + (column))
#define STORE_OUTPUT(to, x) _mm512_store_ps(to, x)
#define GELU_OF(x) gelu_exact(x)
#define VALUE_OF(sum, unit, columns, c) ((void)(unit), (void)(columns), (sum))

INLINE __m512i units_of(const float *weights, int64_t rest, float inverse) {
    (void)inverse;
    return _mm512_maskz_loadu_epi32(first_lanes(rest), weights);
}

#include "gemm.h"

EXPORT void embedkit_pack_fp32(struct linear *w, const float *weights, void *to) { pack_panels(w, weights, NULL, to); }

void gemm_fp32(const struct linear *w, const float *input, int64_t stride, int64_t rows, const struct result *result) {
    gemm(w, input, NULL, stride, rows, result);
}
