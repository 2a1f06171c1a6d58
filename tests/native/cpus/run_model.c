/* A program without Python: packs a model, encodes its tokens with one set of kernels and writes what comes out, for processors
 * that are only emulated. test_cpus.py writes its input and reads its output.
 *
 *   run_model features                             the bits of embedkit_cpu_features
 *   run_model FEATURES PRECISION INPUT OUTPUT [together]
 *                                                  the name of the kernels; OUTPUT gets float (N, D), computed a sequence at a time or
 *                                                  all of them together
 *   run_model FEATURES PRECISION products          int8 against whole numbers; the name, and the count of wrong ones
 *   run_model FEATURES PRECISION attention         attention against double precision; the largest error
 *
 * INPUT: int64 (hidden, heads, inner, layers, activation, position_offset, vocabulary, positions in a table, or 0, token types,
 * tokens N, sequences B, columns of qkv, columns of tables where they are projected, or 0, distinct layers, distances of a head, or 0,
 * whether there are gates, whether norms come first, rotary positions, or 0, whether the input of `down` is shifted, heads of keys,
 * numbers of a head, whether embeddings are normed, whether norms are by the root mean square, whether there are norms of what the parts
 * give, and of queries and keys, rows of distances in disentangled attention, or 0, and positions in the table of their numbers),
 * doubles (eps, scale of scores, scale of embeddings), float tables and weights in the order in which they are read below, int64 numbers
 * of distances, reaches (layers), the same to the other side (layers), 1 for local layers and 0 (layers), ids (N), lengths (B).
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoder.h"

int64_t embedkit_cpu_features(void);
const struct kernels *embedkit_kernels(int64_t features, int64_t precision);
static FILE *input;

static void *zeroed(int64_t bytes) {
    size_t size = (size_t)(bytes + 127) / 64 * 64;
    return memset(aligned_alloc(64, size), 0, size);
}

static void *read_some(int64_t bytes, int64_t room) {
    void *memory = zeroed(room > bytes ? room : bytes);
    if (fread(memory, 1, (size_t)bytes, input) != (size_t)bytes) exit(2);
    return memory;
}

static float *floats(int64_t count) { return read_some(count * 4, padded(count) * 4); }

static void set_number(const struct kernels *k, void *at, int64_t i, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits += 0x8000; /* rounded as bf16, but for halves */
    if (k->number_bytes == 4) ((float *)at)[i] = x;
    else memcpy((uint16_t *)at + i, (char *)&bits + 2, 2);
}

/* Floats, as the kernels have numbers between products. */
static void *numbers(const struct kernels *k, int64_t count) {
    float *from = floats(count);
    void *to = zeroed(count * k->number_bytes);
    for (int64_t i = 0; i < count; i++) set_number(k, to, i, from[i]);
    return to;
}

static struct linear pack(const struct kernels *k, float *weights, float *bias, int64_t rows_in, int64_t columns,
                          float shift) {
    int64_t size = padded(columns);
    float *inverse = zeroed(size * 4), *scale = zeroed(size * 4);
    int32_t *start = zeroed(size * 4);
    void *to = zeroed(size * padded(rows_in) * k->code_bytes);
    int whole = k->input->of_inner != NULL;
    struct linear linear = {to, bias, whole ? scale : NULL, whole ? start : NULL, rows_in, columns};
    k->pack(&linear, weights, to, inverse, scale, start, bias, shift);
    return linear;
}

static struct norm read_norm(int64_t size, int64_t by_squares) {
    struct norm norm = {.weight = floats(size)};
    if (!by_squares) norm.bias = floats(size);
    return norm;
}

static struct linear read_linear(const struct kernels *k, int64_t rows_in, int64_t columns, float shift) {
    float *weights = floats(columns * rows_in), *bias = floats(columns);
    return pack(k, weights, bias, rows_in, columns, shift);
}

/* More than most sequences, so that threads help one another. */
#define THREADS 3

struct thread {
    const struct model *model;
    const struct batch *batch;
    struct progress *progress;
    const struct crew *crew;
    int64_t own;
    pthread_t id;
};

static void *encode(void *thread) {
    const struct thread *t = thread;
    embedkit_run(t->model, t->batch, t->progress, t->crew, t->own);
    return NULL;
}

static int run(const struct kernels *k, const struct kernels *projecting, const char *to, int together) {
    int64_t *n = read_some(27 * 8, 0), hidden = n[0], inner = n[2], tokens = n[9], sequences = n[10];
    int64_t width = n[12] ? n[12] : hidden, distinct = n[13], squares = n[22], of_parts = n[23], of_heads = n[24];
    double *doubles = read_some(3 * 8, 0);
    struct model m = {.kernels = k, .projecting = projecting, .hidden = hidden, .embedding = width, .heads = n[1],
                      .key_heads = n[19], .head_size = n[20], .score_scale = doubles[1], .embedding_scale = doubles[2],
                      .inner = inner, .num_layers = n[3], .activation = n[4], .shifted = n[18], .position_offset = n[5],
                      .eps = doubles[0], .distances_stride = n[14]};
    m.tokens = floats(n[6] * width);
    if (n[7]) m.positions = floats(n[7] * width);
    if (n[8]) m.token_types = floats(n[8] * width);
    if (n[21]) m.embedding_norm = read_norm(width, squares);
    if (n[16] && !n[21]) m.first_norm = read_norm(hidden, squares);
    if (n[16]) m.final_norm = read_norm(hidden, squares);
    if (n[12]) m.projection = read_linear(projecting, width, hidden, 0);
    if (n[14]) m.distances = floats(n[1] * n[14]) + (n[14] - LANES) / 2;
    const float *rotary[2] = {NULL, NULL};
    for (int i = 0; n[17] && i < 2; i++) rotary[i] = floats(n[17] * n[20]);
    struct layer *layers = zeroed(n[3] * (int64_t)sizeof *layers), *modules = zeroed(distinct * (int64_t)sizeof *modules);
    for (struct layer *l = modules; l < modules + distinct; l++) {
        l->qkv = read_linear(k, hidden, n[11], 0), l->out = read_linear(k, n[1] * n[20], hidden, 0);
        l->up = read_linear(k, hidden, inner, 0);
        if (n[15]) l->gate = read_linear(k, hidden, inner, 0);
        l->down = read_linear(k, inner, hidden, n[18] ? 0.171f : 0);
        if (of_parts) l->of_attention = read_norm(hidden, squares), l->of_mlp = read_norm(hidden, squares);
        if (of_heads) l->query_norm = read_norm(n[20], squares), l->key_norm = read_norm(n[20], squares);
        if (n[25]) l->distance_queries = numbers(k, n[1] * n[25] * n[20]), l->distance_keys = numbers(k, n[1] * n[25] * n[20]);
    }
    for (int64_t i = 0; i < n[3]; i++) {
        layers[i] = modules[i * distinct / n[3]];
        layers[i].after_attention = read_norm(hidden, squares), layers[i].after_mlp = read_norm(hidden, squares);
    }
    m.num_distances = n[25];
    if (n[25]) m.numbers = (int64_t *)read_some((2 * n[26] - 1) * 8, 0) + n[26] - 1;
    int64_t *reaches = read_some(n[3] * 8, 0), *ahead = read_some(n[3] * 8, 0), *local = read_some(n[3] * 8, 0);
    for (int64_t i = 0; i < n[3]; i++)
        layers[i].reach = reaches[i], layers[i].ahead = ahead[i], layers[i].rotary = rotary[local[i]];
    m.layers = layers;
    int64_t *ids = read_some(tokens * 8, 0), *lengths = read_some(sequences * 8, 0);
    int64_t *starts = zeroed((sequences + 1) * 8), *order = zeroed(sequences * 8), *chunks = zeroed((sequences + 1) * 8);
    int64_t longest = 1;
    for (int64_t i = 0; i < sequences; i++) {
        starts[i + 1] = starts[i] + lengths[i], order[i] = i, chunks[i + 1] = i + 1;
        if (lengths[i] > longest) longest = lengths[i];
    }
    if (together) chunks[1] = sequences;
    float *out = zeroed(tokens * hidden * 4);
    struct batch b = {.input_ids = ids, .starts = starts, .order = order, .chunks = chunks, .hidden_states = out,
                      .num_chunks = together ? 1 : sequences, .num_layers = n[3]};
    struct progress progress = {0, 0};
    int64_t rows = together ? tokens : longest;
    char *memories[THREADS];
    for (int i = 0; i < THREADS; i++) memories[i] = zeroed(embedkit_workspace_bytes(&m, rows, longest));
    struct crew crew = {memories, THREADS, rows, longest};
    struct thread threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){&m, &b, &progress, &crew, i, 0};
        if (pthread_create(&threads[i].id, NULL, encode, &threads[i])) exit(3);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i].id, NULL);
    FILE *output = fopen(to, "wb");
    return !output || fwrite(out, (size_t)hidden * 4, (size_t)tokens, output) != (size_t)tokens || fclose(output);
}

/* Rows whose numbers are already whole, with weights whose scale is 1: what comes out is whole, too. */
static int count_wrong(const struct kernels *k) {
    enum { K = 192, N = 70, ROWS = 77 };
    static float weights[N * K], row[K];
    float *bias = zeroed(padded(N) * 4), *out = zeroed(ROWS * padded(N) * 4);
    char *codes = zeroed((ROWS + k->rows_behind) * padded(K) * k->code_bytes);
    struct unit units[ROWS];
    static int whole[ROWS][K];
    for (int i = 0; i < N * K; i++) weights[i] = i % K == 0 ? 127.0f : (float)(rand() % 255 - 127);
    for (int i = 0; i < K; i++) weights[i] = 127.0f;
    struct linear linear = pack(k, weights, bias, K, N, 0);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < K; i++) {
            whole[r][i] = r == 0 || i == 5 ? 127 : rand() % 255 - 127;
            row[i] = (float)whole[r][i];
        }
        float aligned[K] __attribute__((aligned(64)));
        memcpy(aligned, row, sizeof row);
        units[r] = k->input->of_hidden(codes + r * padded(K) * k->code_bytes, aligned, K);
    }
    struct result result = {.sink = ADD, .to = out, .stride = padded(N)};
    if (k->begin) k->begin();
    k->multiply(&linear, codes, units, padded(K), ROWS, &result);
    if (k->end) k->end();
    int wrong = 0;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < N; c++) {
            int64_t exact = 0;
            for (int i = 0; i < K; i++) exact += whole[r][i] * (int64_t)weights[c * K + i];
            wrong += out[r * padded(N) + c] != (float)exact;
        }
    return wrong;
}

static double number_at(const struct kernels *k, const void *at, int64_t i) {
    if (k->number_bytes == 4) return ((const float *)at)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)at)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float uniform(void) { return (float)rand() / (float)RAND_MAX * 2 - 1; }

/* The largest error of attention, in units of the largest value, of `shared` heads of queries for each of keys; `spread`, of queries and
 * keys, makes scores large. */
static double attention_error(const struct kernels *k, int64_t key_heads, int64_t shared, int64_t size, int64_t length,
                              int64_t queries, int64_t keys, int64_t reach, int64_t ahead, float spread, int distances) {
    int64_t count = key_heads * shared;
    struct heads heads = {count, key_heads, size, padded(count * size), padded(key_heads * size)};
    int64_t width = heads.width, stride = width, row = row_of_heads(&heads);
    char *qkv = zeroed((length + k->rows_behind) * row * k->number_bytes);
    char *context = zeroed(length * stride * k->number_bytes), *untouched = zeroed(stride * k->number_bytes);
    int64_t all = 2 * length - 1 + LANES;
    float *added = zeroed(length * 4), *table = zeroed(count * all * 4);
    for (int64_t i = 0; i < count * all; i++) table[i] = uniform() * 3;
    double *powers = zeroed(length * 8), worst = 0;
    for (int64_t t = 0; t < length; added[t++] = uniform() * 3)
        for (int64_t i = 0; i < row; i++) {
            int64_t of_keys = i - width, within = of_keys < 0 ? i : of_keys % heads.key_width;
            if (within < (of_keys < 0 ? count : key_heads) * size)
                set_number(k, qkv, t * row + i, uniform() * (of_keys < heads.key_width ? spread : 1));
        }
    struct sequence sequence = {.length = length, .queries = queries, .keys = keys, .added = added, .reach = reach,
                                .ahead = ahead, .scale = 1 / sqrt((double)size)};
    if (distances) sequence.distances = table + length - 1, sequence.stride = all;
    if (k->begin) k->begin();
    k->attend(&heads, &sequence, qkv, context, stride, zeroed(k->attention_bytes(length, size, 0)));
    if (k->end) k->end();
    for (int64_t q = 0; q < queries; q++)
        for (int64_t head = 0; head < count; head++) {
            double top = -INFINITY, sum = 0;
            int64_t from = q > reach ? q - reach : 0, to = q + ahead < keys ? q + ahead + 1 : keys;
            int64_t key = keys_of(&heads, head), value = values_of(&heads, head);
            if (from >= to) from = q, to = q + 1; /* itself */
            for (int64_t t = from; t < to; t++) {
                powers[t] = added[t] + (distances ? (double)sequence.distances[head * all + t - q] : 0);
                for (int64_t i = 0; i < size; i++)
                    powers[t] += number_at(k, qkv, q * row + head * size + i) * number_at(k, qkv, t * row + key + i);
                powers[t] /= sqrt((double)size);
                top = fmax(top, powers[t]);
            }
            for (int64_t t = from; t < to; t++) sum += powers[t] = exp(powers[t] - top);
            for (int64_t i = 0; i < size; i++) {
                double exact = 0;
                for (int64_t t = from; t < to; t++) exact += powers[t] / sum * number_at(k, qkv, t * row + value + i);
                worst = fmax(worst, fabs(number_at(k, context, q * stride + head * size + i) - exact));
            }
        }
    for (int64_t q = queries; q < length; q++)
        if (memcmp(context + q * stride * k->number_bytes, untouched, (size_t)(stride * k->number_bytes))) worst = INFINITY;
    free(qkv), free(context), free(untouched), free(added), free(table), free(powers);
    return worst;
}

static double largest_attention_error(const struct kernels *k) {
    static const int64_t lengths[] = {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 65, 97, 130}, sizes[] = {16, 32, 48, 64, 96, 128, 256};
    double worst = 0;
    for (unsigned s = 0; s < sizeof sizes / 8; s++)
        for (unsigned l = 0; l < sizeof lengths / 8; l++) {
            int64_t length = lengths[l], count = sizes[s] < 64 ? 64 / sizes[s] : 1;
            int64_t some = (length + 1) / 2, few = (length + 2) / 3;
            worst = fmax(worst, attention_error(k, count, 1, sizes[s], length, length, length, length, length, 1, 0));
            worst = fmax(worst, attention_error(k, count, 1, sizes[s], length, length, length, length, length, 1, 1));
            worst = fmax(worst, attention_error(k, 1, 1, sizes[s], length, 1, some, length, length, 1, 1));
            /* scores of hundreds */
            worst = fmax(worst, attention_error(k, 1, 1, sizes[s], length, length, length, length, length, 30, 0));
            worst = fmax(worst, attention_error(k, count, 3, sizes[s], length, length, length, length, 0, 1, 1));
            for (int64_t reach = 0; reach < length; reach = 3 * reach + 1) {
                worst = fmax(worst, attention_error(k, count, 1, sizes[s], length, length, length, reach, reach, 1, 1));
                worst = fmax(worst, attention_error(k, 1, 1, sizes[s], length, 1, length, reach, reach, 1, 0));
                worst = fmax(worst, attention_error(k, 1, 1, sizes[s], length, length, few, reach, reach, 1, 0));
                worst = fmax(worst, attention_error(k, 1, 2, sizes[s], length, length, length, reach, 0, 1, 0));
            }
        }
    return worst;
}

int main(int count, char **arguments) {
    if (count == 2) return printf("%lld\n", (long long)embedkit_cpu_features()) < 0;
    int64_t features = atoll(arguments[1]);
    const struct kernels *k = embedkit_kernels(features, atoll(arguments[2]));
    if (!k) return 2;
    if (!strcmp(arguments[3], "products")) return printf("%s %d\n", k->name, count_wrong(k)) < 0;
    if (!strcmp(arguments[3], "attention")) return printf("%g\n", largest_attention_error(k)) < 0;
    input = fopen(arguments[3], "rb");
    if (!input) return 2;
    puts(k->name);
    return run(k, embedkit_kernels(features, FP32), arguments[4], count == 6);
}
