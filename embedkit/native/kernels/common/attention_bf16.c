/* Attention in bf16: scores and sums in fp32, the powers rounded to bf16 before they meet the values. */
#include "set.h"

typedef freg sum_t;
typedef uint16_t input_t;
#define PER_UNIT 2
#define DOT(sum, a, b) r_dot_bf16(sum, a, b)
#define EXP2(x) exp2_fast(x)
#define STORE_NUMBERS(to, x) v_store_bf16(to, x)

/* A unit holds one column's value of two tokens, the first in the lower half; `next` < 0: there is no second. */
INLINE void pair_up(int32_t *to, const uint16_t *values, int64_t next, int64_t size) {
    for (int64_t column = 0; column < size; column += LANES)
        i_pair_halves(to + column, values + column, next < 0 ? NULL : values + next + column);
}

#include "attention.h"

void OF_SET(attention_bf16)(const struct heads *heads, const struct sequence *sequence, const void *qkv, void *context,
                            int64_t stride, void *scratch) {
    attention(heads, sequence, qkv, context, stride, scratch);
}
