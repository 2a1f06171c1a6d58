/* Attention in bf16: scores and sums in fp32, the powers rounded to bf16 before they meet the values. */
#include "simd.h"

typedef __m512 sum_t;
typedef uint16_t input_t;
#define PER_UNIT 2
#define DOT(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))
#define EXP2(x) exp2_fast(x)
#define STORE_NUMBERS(to, x) store_bf16(to, x)

/* A unit holds one column's value of two tokens, the first in the lower half; `next` < 0: there is no second. */
INLINE void pair_up(int32_t *to, const uint16_t *values, int64_t next, int64_t size) {
    for (int64_t column = 0; column < size; column += LANES) {
        __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(values + column)));
        __m512i high = _mm512_setzero_si512();
        if (next >= 0) high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(values + next + column)));
        _mm512_store_si512(to + column, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

#include "attention.h"

void attention_bf16(const struct heads *heads, int64_t length, const uint16_t *qkv, uint16_t *context, int64_t stride,
                    void *scratch) {
    attention(heads, length, qkv, context, stride, scratch);
}
