/* What the library is made of: a model as Python hands it over, and the steps of its forward pass.
 *
 * Rows are tokens. Every row of a matrix begins at a multiple of PANEL numbers and is filled up with zeros, so that
 * no inner loop has a rest: `padded(n)` numbers a row. K is what a product sums over, N the columns of its result.
 */
#ifndef EMBEDKIT_NATIVE_H
#define EMBEDKIT_NATIVE_H

#include <stdint.h>

/* Raised whenever a structure, a function or the layout of packed weights changes, so that a file that was compiled from other
 * sources is refused; KERNELS_VERSION in library.py. */
#define KERNELS_VERSION 5

#define PANEL 64 /* columns that a tile of a product computes at once */
#define EXPORT __attribute__((visibility("default")))

enum precision { FP32 = 0, BF16 = 1, INT8 = 2 };
enum activation { GELU = 0, GELU_TANH = 1, RELU = 2 };

static inline int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

/* y = x W' + b with W packed; `scale` and `start`, of int8 alone, are per column: the weight's unit, and what the sum
 * of products begins with, which undoes the 128 that every input has too much. All three arrays are padded. */
struct linear {
    const void *weight;
    const float *bias, *scale;
    const int32_t *start;
    int64_t rows_in, columns; /* K and N, unpadded */
};

/* The columns of `qkv` are in the order of `struct heads`: queries, keys, values of the first few heads, then of the
 * next. */
struct layer {
    struct linear qkv, out, up, down;
    const float *attention_norm_weight, *attention_norm_bias, *mlp_norm_weight, *mlp_norm_bias;
};

struct model {
    int64_t precision, hidden, heads, inner, num_layers, activation, position_offset;
    double eps;
    const float *tokens, *positions, *token_types; /* tables; no token types: NULL */
    const float *norm_weight, *norm_bias;
    const struct layer *layers;
};

/* What the bytes of one row of an input are worth: `scale` a step, and beside them one number, `outlier`, in `column`,
 * where the bytes have a zero; 0 where there is none. Of int8 alone. */
struct unit {
    float scale, outlier;
    int64_t column;
};

/* What a product does with its result while it is still in registers. */
enum sink {
    STORE,    /* y, as float (fp32) or bf16 */
    ADD,      /* residual += y */
    ACTIVATE, /* activation(y), as float or bf16; of int8 also the largest magnitude of each row */
};

struct result {
    enum sink sink;
    enum activation activation;
    void *to; /* float or uint16_t, rows `stride` apart */
    int64_t stride;
    int32_t *peaks; /* LANES a row: bits of the largest magnitude seen in each lane; int8 with ACTIVATE */
};

/* Products: `rows` rows of `input`, `stride` numbers apart, each in the precision's own type. */
void gemm_fp32(const struct linear *w, const float *input, int64_t stride, int64_t rows, const struct result *result);
void gemm_bf16(const struct linear *w, const uint16_t *input, int64_t stride, int64_t rows,
               const struct result *result);
void gemm_int8(const struct linear *w, const uint8_t *input, const struct unit *row_units, int64_t stride, int64_t rows,
               const struct result *result);

/* A few heads whose queries, keys and values are computed and used together. Each of the three is `width` numbers,
 * `count` heads of `size` and what fills up a panel; a row has all three, one after another. */
struct heads {
    int64_t count, size, width;
};

/* One sequence of `length` rows, of which the first `queries` attend to all. `added`, or NULL, is what every score with
 * a row begins with, before scores are divided by the square root of a head's size. */
struct sequence {
    int64_t length, queries;
    const float *added;
};

/* Attention of one sequence within some heads; `context` is where the first of them writes. */
void attention_fp32(const struct heads *heads, const struct sequence *sequence, const float *qkv, float *context,
                    int64_t stride, void *scratch);
void attention_bf16(const struct heads *heads, const struct sequence *sequence, const uint16_t *qkv, uint16_t *context,
                    int64_t stride, void *scratch);
int64_t attention_scratch_bytes(int64_t length, int64_t head_size);

#endif
