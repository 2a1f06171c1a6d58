/* Products in fp32: one number a unit, fused multiply-add where the processor has it; and what the set does in fp32. */
#include "set.h"

typedef freg sum_t;
typedef float input_t;
typedef float output_t;
#define PER_UNIT 1
#define WITH_UNITS 0
#define DOT(sum, a, b) r_dot_floats(sum, a, b)
#define START_OF(w, column) r_floats((w)->bias + (column))
#define STORE_OUTPUTS(to, x) store_floats(to, x)
#define LOAD_OUTPUT(from) v_load(from)
#define GELU_OF(x) gelu_exact(x)
#define VALUE_OF(sums, unit, columns, c) ((void)(unit), (void)(columns), v_load((const float *)(sums)))

INLINE ivec units_of(const float *weights, int64_t rest, float inverse) {
    (void)inverse;
    return i_load_first(weights, first_lanes(rest));
}

#include "gemm.h"

static void pack(const struct linear *w, const float *weights, void *to, float *inverse, float *scale, int32_t *start,
                 float *bias, float shift) {
    (void)inverse, (void)scale, (void)start, (void)bias, (void)shift;
    pack_panels(w, weights, NULL, to);
}

void OF_SET(gemm_fp32)(const struct linear *w, const void *input, const struct unit *units, int64_t stride, int64_t rows,
                       const struct result *result) {
    gemm(w, input, units, stride, rows, result);
}

static const struct input AS_THEY_LIE;

const struct kernels OF_SET(fp32) = {
    .name = NAME,
    .number_bytes = sizeof(float),
    .code_bytes = sizeof(float),
    .set = &OF_SET(set),
    .input = &AS_THEY_LIE,
    .pack = pack,
    .multiply = OF_SET(gemm_fp32),
    .attend = OF_SET(attention_fp32),
    .attention_bytes = OF_SET(attention_fp32_bytes),
};
