/* The norm of some numbers, as `norm_row` of a set describes it. `input_t`, `LOAD_NUMBERS` and `STORE_NUMBERS` are as in attention.h.
 *
 * Sources: Ba et al. 2016, https://arxiv.org/abs/1607.06450; Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4.
 */
#include <math.h>

#include "set.h"

INLINE void norm_numbers(input_t *to, const input_t *x, const struct norm *norm, int64_t size, double eps) {
    const float *weight = norm->weight, *bias = norm->bias;
    vec sum = v_zero(), squares = v_zero();
    for (int64_t i = 0; bias && i < size; i += LANES) sum = v_add(sum, LOAD_NUMBERS(x + i));
    vec middle = v_fill(v_sum(sum) / (float)size);
    for (int64_t i = 0; i < size; i += LANES) {
        vec away = v_sub(LOAD_NUMBERS(x + i), middle);
        squares = v_fmadd(away, away, squares);
    }
    vec factor = v_fill((float)(1.0 / sqrt((double)v_sum(squares) / (double)size + eps)));
    for (int64_t i = 0; i < size; i += LANES) {
        vec y = v_mul(v_sub(LOAD_NUMBERS(x + i), middle), factor), scale = v_loadu(weight + i);
        STORE_NUMBERS(to + i, bias ? v_fmadd(y, scale, v_loadu(bias + i)) : v_mul(y, scale));
    }
}
