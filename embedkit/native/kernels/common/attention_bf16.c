/* Attention in bf16: scores and sums in fp32, the powers rounded to bf16 before they meet the values. */
#include "set.h"

typedef freg sum_t;
typedef uint16_t input_t;
#define PER_UNIT 2
#define EXP2(x) exp2_fast(x)
#define LOAD_NUMBERS(from) v_load_bf16(from)
#define STORE_NUMBERS(to, x) v_store_bf16(to, x)

#ifdef WITH_TILES
#include "attention_tiles.h"
#else

#define DOT(sum, a, b) r_dot_bf16(sum, a, b)

/* A unit holds one column's value of two tokens, the first in the lower half; `next` < 0: there is no second. */
INLINE void pair_up(int32_t *to, const uint16_t *values, int64_t next, int64_t size) {
    for (int64_t column = 0; column < size; column += LANES)
        i_pair_halves(to + column, values + column, next < 0 ? NULL : values + next + column);
}

#include "attention.h"

#endif

int64_t OF_SET(attention_bf16_bytes)(int64_t length, int64_t size, int disentangled) {
    return attention_bytes(length, size, disentangled);
}

void OF_SET(attention_bf16)(const struct heads *heads, const struct sequence *sequence, void *qkv, void *context,
                            int64_t stride, void *scratch) {
    attention(heads, sequence, qkv, context, stride, scratch);
}
