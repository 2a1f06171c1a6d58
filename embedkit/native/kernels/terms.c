/* The head of a learned sparse model: what a masked-language-model head makes of token vectors, and of each logit the largest in a
 * sequence. Logits are pooled as they are computed: of the vocabulary, only a few columns' are ever in memory. */
#include <string.h>

#include "native.h"

/* Columns whose products wait in the second-level cache to be compared, beside their weights. */
#define PART_COLUMNS 256

/* Write norm(activation(x W' + b)) of rows (N, K), padded; `k` are the kernels of fp32, and the columns are a multiple of LANES. */
EXPORT void embedkit_transform(const struct kernels *k, const struct linear *w, int64_t activation, const struct norm *norm,
                               double eps, const float *rows, int64_t count, float *to) {
    int64_t stride = padded(w->columns), size = padded(w->rows_in);
    for (int64_t row = 0; row < count; row += BLOCK_ROWS) {
        int64_t here = count - row < BLOCK_ROWS ? count - row : BLOCK_ROWS;
        float *block = to + row * stride;
        struct result result = {ACTIVATE, (enum activation)activation, block, stride, NULL};
        k->multiply(w, rows + row * size, NULL, size, here, &result);
        for (int64_t i = 0; i < here; i++) k->set->norm_row(block + i * stride, block + i * stride, w->columns, norm, eps);
    }
}

/* Write what a product reads in the place of rows (N, K), padded; only where `embedkit_reads_codes`. */
EXPORT void embedkit_fill_input(const struct kernels *k, const float *rows, int64_t count, int64_t size, char *to,
                                struct unit *units) {
    int64_t stride = padded(size);
    for (int64_t row = 0; row < count; row++)
        units[row] = k->input->of_hidden(to + row * stride * k->code_bytes, rows + row * stride, size);
}

EXPORT int64_t embedkit_reads_codes(const struct kernels *k) { return k->input->of_hidden != NULL; }
EXPORT int64_t embedkit_rows_behind(const struct kernels *k) { return k->rows_behind; }
EXPORT int64_t embedkit_largest_bytes(void) { return BLOCK_ROWS * PART_COLUMNS * (int64_t)sizeof(float); }

/* Write the largest product of each column with any row of a sequence. Sequence b has the `lengths[b]` rows that follow those of b - 1,
 * at least one. Written are the columns from `first` to before `last`, multiples of PANEL, of each sequence's row of `to`, which are
 * `stride` apart. NaN is hidden by what is no NaN. */
EXPORT void embedkit_largest(const struct kernels *k, const struct linear *w, const void *input, const struct unit *units,
                             const int64_t *lengths, int64_t rows, int64_t first, int64_t last, float *to, int64_t stride,
                             float *memory) {
    int64_t size = padded(w->rows_in);
    if (k->begin) k->begin();
    for (int64_t column = first, count; column < last; column += count) {
        count = last - column < PART_COLUMNS ? last - column : PART_COLUMNS;
        struct linear part = columns_of(k, w, column, count);
        /* Stored as numbers of the precision, which may be bf16; but always added to floats. */
        struct result result = {k->number_bytes == sizeof(float) ? STORE : ADD, GELU, memory, count, NULL};
        int64_t sequence = 0, left = lengths[0];
        float *largest = to + column;
        int begun = 0;
        for (int64_t row = 0, here; row < rows; row += here) {
            here = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
            if (result.sink == ADD) memset(memory, 0, (size_t)(here * count) * sizeof(float));
            k->multiply(&part, (const char *)input + row * size * k->code_bytes, units ? units + row : NULL, size, here, &result);
            for (int64_t done = 0, some; done < here; done += some) {
                some = left < here - done ? left : here - done;
                k->set->keep_largest(largest, memory + done * count, some, count, begun);
                begun = 1, left -= some;
                if (left || row + done + some == rows) continue;
                left = lengths[++sequence], largest += stride, begun = 0;
            }
        }
    }
    if (k->end) k->end();
}
