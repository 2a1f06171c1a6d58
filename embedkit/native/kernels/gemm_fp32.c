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

/* Rows of which the input stays in the second-level cache while all panels of weights pass. */
#define CHUNK_ROWS 192

/* The product alone, for training: K and N are multiples of PANEL, and rows lie one after another, here and there. */
EXPORT void embedkit_multiply_fp32(const struct linear *w, const float *input, int64_t rows, float *to) {
    for (int64_t row = 0; row < rows; row += CHUNK_ROWS) {
        struct result result = {.sink = STORE, .to = to + row * w->columns, .stride = w->columns};
        int64_t left = rows - row;
        gemm(w, input + row * w->rows_in, NULL, w->rows_in, left < CHUNK_ROWS ? left : CHUNK_ROWS, &result);
    }
}
