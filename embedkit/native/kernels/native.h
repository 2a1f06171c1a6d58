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
#define KERNELS_VERSION 16

#define PANEL 64 /* numbers to which rows are filled up; a multiple of the columns that any tile computes at once */
/* Rows are computed so many at a time: enough that a panel of weights is used many times, few enough that their input stays in the
 * second-level cache while all panels pass. */
#define BLOCK_ROWS 192
#define EXPORT __attribute__((visibility("default")))

enum precision { FP32 = 0, BF16 = 1, INT8 = 2, PRECISIONS = 3 };
enum activation { GELU = 0, GELU_TANH = 1, RELU = 2, SILU = 3 };

static inline int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

/* y = x W' + b with W packed; `scale` and `start`, of int8 alone, are per column: the weight's unit, and what the sum
 * of products begins with, which undoes the 128 that every input has too much. All three arrays are padded. */
struct linear {
    const void *weight;
    const float *bias, *scale;
    const int32_t *start;
    int64_t rows_in, columns; /* K and N, unpadded */
};

/* A layer norm, of which all `bias` are 0 where it has none; or, where `bias` is NULL, one by the root mean square alone. */
struct norm {
    const float *weight, *bias;
};

/* The columns of `qkv` are in the order of `struct heads`: queries, keys, values of the first few heads, then of the
 * next. Where the weight of `gate` is not NULL, what `up` gives is activated and multiplied by what `gate` gives. The norms are
 * those that follow each part: with norms before the parts, that of the feed-forward and that of the next layer's attention.
 * Where the weights of `of_attention` and `of_mlp` are not NULL, what a part gives is normed before it is added to the residual
 * stream; with `twice`, attention's is normed together with that stream. Weights of `query_norm` and `key_norm` are NULL where there are
 * none. `rotary`, `reach` and `ahead` are as in `struct sequence`. */
struct layer {
    struct linear qkv, out, up, gate, down;
    struct norm after_attention, after_mlp, of_attention, of_mlp, query_norm, key_norm;
    const float *rotary;
    const void *distance_keys, *distance_queries; /* of all heads, as in `struct sequence` */
    int64_t reach, ahead, twice;
};

/* Queries are of `heads` heads of `head_size` numbers, keys and values of `key_heads`, each shared by as many query heads. With
 * `norm_together` the norms of queries and keys are of all heads of a token together.
 * The tables have `embedding` columns; without positions or token types, theirs is NULL. Their sum is multiplied by
 * `embedding_scale`, and normed where the weight of `embedding_norm` is not NULL. Where the weight of `projection` is not NULL, it
 * takes that to the width of the residual stream, in fp32: the kernels `projecting` have packed it.
 * `shifted` says that `down` was packed for what a shift adds to its input. Where the weight of `final_norm` is not NULL, norms
 * stand before the parts of a layer, and this one behind the last that is computed: the residual stream itself is never normed.
 * `first_norm` stands before the first part, where its weight is not NULL. Scores are multiplied by `score_scale`.
 * `numbers`, `num_distances` and `distances`, of all heads, are as in `struct sequence`; NULL: none. Layers may share weights. */
struct model {
    const struct kernels *kernels, *projecting;
    int64_t hidden, embedding, heads, key_heads, head_size, norm_together, inner, num_layers, activation, shifted, position_offset;
    double eps, score_scale, embedding_scale;
    const float *tokens, *positions, *token_types;
    struct norm embedding_norm, first_norm, final_norm;
    struct linear projection;
    const float *distances;
    int64_t distances_stride;
    const int64_t *numbers;
    int64_t num_distances;
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
    STORE,    /* y, as float or bf16 */
    ADD,      /* residual += y */
    ACTIVATE, /* activation(y), as float or bf16; of int8 also the largest magnitude of each row */
    MULTIPLY, /* y times what is there, as float or bf16 */
};

struct result {
    enum sink sink;
    enum activation activation;
    void *to; /* floats or, unless added, numbers of `number_bytes`; rows `stride` apart */
    int64_t stride;
    int32_t *peaks; /* LANES a row: bits of the largest magnitude seen in each lane; int8 with ACTIVATE */
};

/* A few heads whose queries, keys and values are computed and used together: `count` heads of `size` numbers of queries, which
 * with what fills up a panel are `width`, and `keys` heads of keys, and as many of values, of `key_width` each. A row has all
 * three, one after another. Neighbouring heads of queries share one of keys. */
struct heads {
    int64_t count, keys, size, width, key_width;
};

/* The numbers of a row, and where within it the keys, and the values, of a head of queries begin. */
static inline int64_t row_of_heads(const struct heads *h) { return h->width + 2 * h->key_width; }
static inline int64_t keys_of(const struct heads *h, int64_t head) { return h->width + head * h->keys / h->count * h->size; }
static inline int64_t values_of(const struct heads *h, int64_t head) { return keys_of(h, head) + h->key_width; }

/* One sequence of `length` rows, of which the first `queries` attend to the first `keys`. `added`, or NULL, is what every
 * score with a row begins with, before scores are multiplied by `scale`. `distances`, or NULL, are
 * added as well: distances[key - query] to scores of the first head, and those of each next head lie `stride` further on. Up
 * to LANES - 1 numbers behind the last may be read. No key is attended to that stands more than `reach` before the query or
 * more than `ahead` behind it; a query that is left without any attends to itself. `rotary`, or NULL, has the cosines and sines
 * of angles by which queries and keys are turned: for each position one of each for each pair of numbers of a head. Before that
 * queries and keys are normed unless these norms are NULL: each head by itself, or with `norm_together` all heads. In disentangled
 * attention distances have keys and queries, NULL where there are none of them, float or bf16: for each head `num_distances` rows
 * of a head's size; numbers[query - key] says which row is that of a pair. */
struct sequence {
    int64_t length, queries, keys;
    const float *added, *distances;
    int64_t stride, reach, ahead;
    const float *rotary;
    const struct norm *query_norm, *key_norm;
    int64_t norm_together;
    double eps, scale;
    const void *distance_keys, *distance_queries;
    const int64_t *numbers;
    int64_t num_distances;
};

/* Sixteen numbers at a time: vectors of every instruction set have so many lanes, if in several registers. */
#define LANES 16

struct merging;
struct stored;
struct tokens;
struct token_query;
struct token_rows;

/* What one instruction set computes for every precision. */
struct set {
    /* Write the norm of a row, to its own place or another: (x - mean) / sqrt(variance + eps) * weight + bias, or without a bias
     * x / sqrt(mean of squares + eps) * weight. */
    void (*norm_row)(float *to, const float *row, int64_t size, const struct norm *norm, double eps);
    /* Write a + b + c; b and c may be NULL. */
    void (*sum_rows)(float *to, const float *a, const float *b, const float *c, int64_t size);
    /* Write the largest of each column of some rows, and of what is there, too, once it has been `begun`. */
    void (*keep_largest)(float *to, const float *rows, int64_t count, int64_t size, int begun);
    /* See merge.h. */
    int64_t (*merge_scratch_bytes)(int64_t length, int64_t stride);
    int64_t (*merge_sequence)(struct merging *w, float *hidden, int64_t stride, int64_t head_size, int64_t row,
                              int64_t length, int64_t to, int64_t count, int32_t *owners, int64_t tokens);
    /* See search.h. */
    void (*score_pairs)(const struct stored *v, const float *queries, int64_t num_queries, const int64_t *rows,
                        int64_t per_query, float *scores);
    void (*scan)(const struct stored *v, const struct linear *queries, int64_t few, const float *norms, int64_t first,
                 int64_t last, const uint8_t *allowed, int64_t k, float *least, float *scores, int64_t *found,
                 char *memory);
    /* See maxsim.h. */
    void (*centroid_products)(const struct tokens *t, const struct token_query *q, float *to);
    void (*score_tokens)(const struct tokens *t, const struct token_query *q, const struct token_rows *rows,
                         const int64_t *positions, int64_t count, float *scores, char *memory);
    void (*score_centroids)(const float *products, int64_t filled, const struct token_rows *rows, const int64_t *positions,
                            int64_t count, float *scores);
};

/* How rows become the input of a product, and what a number of it is worth; NULL where a product reads them as they lie. */
struct input {
    struct unit (*of_hidden)(void *to, const float *row, int64_t size);
    struct unit (*of_context)(void *to, const void *row, int64_t size);
    struct unit (*of_inner)(void *to, const void *row, int64_t size, const int32_t *peaks); /* shifted */
    struct unit (*of_gated)(void *to, const void *row, int64_t size);
};

/* What one instruction set computes in one precision. Between products a number is a float or bf16, of `number_bytes`; what a
 * product reads, and packed weights, have `code_bytes`. How weights are packed is the set's own business. */
struct kernels {
    const char *name;
    int64_t number_bytes, code_bytes;
    const struct set *set;
    const struct input *input;
    /* Pack weights (N, K). Of int8 also write scales and starts, and take what a shift adds out of `bias`; `inverse` is for
     * the function's own use. All four arrays are padded. */
    void (*pack)(const struct linear *w, const float *weights, void *to, float *inverse, float *scale, int32_t *start,
                 float *bias, float shift);
    /* The product of `rows` rows of `input`, `stride` numbers apart. `units` are those of int8. */
    void (*multiply)(const struct linear *w, const void *input, const struct unit *units, int64_t stride, int64_t rows,
                     const struct result *result);
    /* Attention of one sequence within some heads; `context` is where the first of them writes. Queries and keys are normed and
     * turned where they lie. */
    void (*attend)(const struct heads *heads, const struct sequence *sequence, void *qkv, void *context,
                   int64_t stride, void *scratch);
    /* The bytes of `scratch` for a sequence of `length` tokens, whose attention is `disentangled` or not. */
    int64_t (*attention_bytes)(int64_t length, int64_t head_size, int disentangled);
    /* Rows behind the last one of what products and attention read that they read, too, and make no use of. */
    int64_t rows_behind;
    /* What each thread calls before it multiplies or attends, and after that; or NULL. */
    void (*begin)(void), (*end)(void);
};

/* The weights of some columns, from a multiple of PANEL on. */
static inline struct linear columns_of(const struct kernels *k, const struct linear *w, int64_t first, int64_t count) {
    struct linear part = *w;
    part.columns = count;
    part.weight = (const char *)w->weight + first * padded(w->rows_in) * k->code_bytes;
    part.bias += first;
    if (part.scale) part.scale += first, part.start += first;
    return part;
}

#endif
