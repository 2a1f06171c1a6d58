/* The mean of rows of a table: what a static model makes of a text's tokens. */
#include <string.h>

#include "native.h"

struct table {
    const void *rows; /* (R, D), int8 with scales, or fp32 where there are none */
    const float *row_scale, *column_scale;
    int64_t dimension;
};

static void add_codes(float *restrict sum, const int8_t *restrict codes, float scale, int64_t size) {
    for (int64_t i = 0; i < size; i++) sum[i] += scale * (float)codes[i];
}

static void add_row(float *restrict sum, const float *restrict row, int64_t size) {
    for (int64_t i = 0; i < size; i++) sum[i] += row[i];
}

/* Sequence b has the `lengths[b]` numbers of rows that follow those of b - 1; its first `skip` do not count. Of none the mean is 0. */
EXPORT void embedkit_mean_rows(const struct table *t, const int64_t *numbers, const int64_t *lengths, int64_t count, int64_t skip,
                               float *means) {
    int64_t size = t->dimension;
    for (int64_t b = 0; b < count; b++, means += size) {
        memset(means, 0, size * sizeof *means);
        for (int64_t i = skip; i < lengths[b]; i++) {
            if (t->row_scale) add_codes(means, (const int8_t *)t->rows + numbers[i] * size, t->row_scale[numbers[i]], size);
            else add_row(means, (const float *)t->rows + numbers[i] * size, size);
        }
        numbers += lengths[b];
        if (lengths[b] <= skip) continue;
        float share = 1.0f / (float)(lengths[b] - skip);
        for (int64_t i = 0; i < size; i++) means[i] *= t->row_scale ? share * t->column_scale[i] : share;
    }
}
