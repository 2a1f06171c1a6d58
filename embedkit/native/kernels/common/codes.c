/* The input of int8's products: rows rounded to whole numbers from 0 to 255, and what one of them is worth. */
#include "codes.h"

/* GELU is nowhere below -0.17; see gemm_int8.c for what the shift is for. SHIFT in packing.py. */
#define SHIFT 0.171f

/* A number this many times as large as any other of its row is left out of the bytes: otherwise all others would be
 * rounded to its scale. Trained encoders have such numbers in the rows of some tokens: in [CLS] of all-MiniLM-L6-v2, 19.5
 * where the whole row has a norm of 19.6. There, this takes the error of sentence vectors, one less their mean cosine,
 * from .0025 to .0007.
 * Source of the idea: Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, section 3.2, there for whole columns. */
#define OUTLIER 2.0f

/* Sixteen numbers of a row of floats or, with `inner`, a constant, of inner numbers. */
INLINE vec load_row(const int inner, const void *row, int64_t i) {
    return inner ? load_inner((const inner_t *)row + i) : v_load((const float *)row + i);
}

/* Write x · factor + offset of a row, and of what fills it up, as numbers from 0 to 255. */
INLINE void to_row(const int inner, code_t *to, const void *row, int64_t size, vec factor, vec offset) {
    for (int64_t i = 0; i < padded(size); i += 4 * LANES) {
        ivec x[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) x[j] = v_round(v_fmadd(load_row(inner, row, i + j * LANES), factor, offset));
        store_codes(to + i, x);
    }
}

/* A peak that is not finite gives a unit that is not, and so does all it touches. A row of zeros has the unit 0. */
INLINE vec steps_of(float peak, float steps) { return v_fill(peak == 0.0f ? 0.0f : steps / peak); }

/* Leave the number of this magnitude out of the bytes. */
INLINE void leave_out(const int inner, struct unit *unit, const void *row, int64_t size, int32_t bits) {
    int64_t i = 0;
    uint32_t here = 0;
    for (; i < size && !here; i += LANES) here = i_equal(magnitude(load_row(inner, row, i)), i_fill(bits));
    float numbers[LANES];
    v_storeu(numbers, load_row(inner, row, i - LANES));
    unit->column = i - LANES + __builtin_ctz(here);
    unit->outlier = numbers[unit->column % LANES];
}

INLINE struct unit centred(const int inner, void *to, const void *row, int64_t size) {
    /* The largest and the second largest magnitude, of each lane and then of all. */
    ivec most = i_zero(), next = most;
    for (int64_t i = 0; i < size; i += LANES) {
        ivec x = magnitude(load_row(inner, row, i));
        next = i_max(next, i_min(most, x));
        most = i_max(most, x);
    }
    int32_t first = i_largest(most);
    uint32_t lanes = i_equal(most, i_fill(first));
    lanes &= -lanes; /* one of them, if several are as large */
    float peak = as_float(first), second = as_float(i_largest(i_choose(lanes, next, most)));
    struct unit unit = {peak / 127.0f, 0.0f, 0};
    if (peak > OUTLIER * second) {
        leave_out(inner, &unit, row, size, first);
        unit.scale = second / 127.0f;
        peak = second;
    }
    vec factor = steps_of(peak, 127.0f), middle = v_fill(128.0f - CODE_OFFSET);
    to_row(inner, to, row, size, factor, middle);
    if (unit.outlier != 0.0f) ((code_t *)to)[unit.column] = 128 - CODE_OFFSET;
    return unit;
}

static struct unit of_hidden(void *to, const float *row, int64_t size) { return centred(0, to, row, size); }

/* What a gate has multiplied may be far below 0, and has far larger numbers than others, as the residual stream has. */
static struct unit of_gated(void *to, const void *row, int64_t size) { return centred(1, to, row, size); }

static struct unit of_context(void *to, const void *row, int64_t size) {
    ivec peaks = i_zero();
    for (int64_t i = 0; i < size; i += LANES) peaks = i_max(peaks, magnitude(load_row(1, row, i)));
    float peak = as_float(i_largest(peaks));
    vec factor = steps_of(peak, 127.0f), middle = v_fill(128.0f - CODE_OFFSET);
    to_row(1, to, row, size, factor, middle);
    struct unit unit = {peak / 127.0f, 0.0f, 0};
    return unit;
}

static struct unit of_inner(void *to, const void *row, int64_t size, const int32_t *peaks) {
    float peak = as_float(i_largest(i_load(peaks))) + SHIFT;
    vec factor = v_fill(255.0f / peak), shift = v_fill(SHIFT * (255.0f / peak) - CODE_OFFSET);
    to_row(1, to, row, size, factor, shift);
    struct unit unit = {peak / 255.0f, 0.0f, 0};
    return unit;
}

const struct input OF_SET(codes) = {of_hidden, of_context, of_inner, of_gated};
