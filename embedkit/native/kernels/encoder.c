/* The forward pass: a few sequences at a time go through all layers on one core, so that what passes between the steps
 * stays in its second-level cache; the weights stream past. Threads share nothing but the number of the next chunk.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "common/merge.h"
#include "native.h"

/* One thread's memory: rows of a chunk, each kind in its place. Zeroed once; what fills rows up stays zero for good. */
struct workspace {
    float *hidden;            /* (rows, D) the residual stream */
    void *input;              /* (rows, D) what the next product reads, where it does not read `hidden` */
    struct unit *input_units; /* (rows,) of int8 */
    void *qkv, *context;      /* (rows, 3 panels or more) of a few heads, (rows, D), float or bf16 */
    void *inner;              /* (rows, I) float or bf16 */
    void *codes;              /* (rows, I) what is read in its place in int8 */
    struct unit *codes_units; /* (rows,) */
    int32_t *peaks;           /* (rows, 16) */
    void *scratch;            /* of attention */
    int64_t *lengths;         /* (rows,) of which there is one for each sequence: the rows that it has left */
    void *first, *queries;    /* (rows, D) inputs and (rows, panel or more) queries of first tokens */
    struct unit *first_units; /* (rows,) */
    struct merging merging;
};

/* As many heads as a panel holds, from head `first` on. Packing orders the columns of qkv in the same way. */
static struct heads heads_of(const struct model *m, int64_t first) {
    int64_t size = m->hidden / m->heads, count = size < PANEL ? PANEL / size : 1;
    if (count > m->heads) count = m->heads;
    struct heads heads = {m->heads - first < count ? m->heads - first : count, size, padded(count * size)};
    return heads;
}

static void *take(char **at, int64_t bytes) {
    void *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* Divide `memory`; with NULL, only count. */
static int64_t divide(struct workspace *w, const struct model *m, int64_t rows, int64_t length, char *memory) {
    const struct kernels *k = m->kernels;
    int64_t number = k->number_bytes, hidden = padded(m->hidden), inner = padded(m->inner);
    int64_t size = m->hidden / m->heads;
    char *at = memory;
    w->hidden = take(&at, rows * hidden * 4);
    w->input = take(&at, k->input->of_hidden ? rows * hidden * k->code_bytes : 0);
    w->input_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->qkv = take(&at, rows * 3 * heads_of(m, 0).width * number);
    w->inner = take(&at, rows * inner * number);
    w->context = take(&at, rows * hidden * number);
    w->codes = take(&at, k->input->of_inner ? rows * inner * k->code_bytes : 0);
    w->codes_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->peaks = take(&at, rows * 64);
    w->scratch = take(&at, attention_scratch_bytes(length, size));
    w->lengths = take(&at, rows * 8);
    w->first = take(&at, rows * hidden * number);
    w->queries = take(&at, rows * heads_of(m, 0).width * number);
    w->first_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->merging.sizes = take(&at, rows * 4);
    w->merging.added = take(&at, rows * 4);
    w->merging.owners = take(&at, rows * 4);
    w->merging.scratch = take(&at, k->set->merge_scratch_bytes(length, hidden));
    return at - memory;
}

EXPORT int64_t embedkit_workspace_bytes(const struct model *m, int64_t rows, int64_t length) {
    struct workspace w;
    return divide(&w, m, rows, length, NULL);
}

/* What a product reads of the residual stream. */
static const void *input_of(const struct model *m, const struct workspace *w) {
    return m->kernels->input->of_hidden ? w->input : w->hidden;
}

/* Make the next product's input of one row. */
static void set_input(const struct model *m, struct workspace *w, int64_t row) {
    if (!m->kernels->input->of_hidden) return;
    int64_t stride = padded(m->hidden);
    char *to = (char *)w->input + row * stride * m->kernels->code_bytes;
    w->input_units[row] = m->kernels->input->of_hidden(to, w->hidden + row * stride, m->hidden);
}

static void norm_rows(const struct model *m, struct workspace *w, int64_t rows, const float *weight,
                      const float *bias) {
    for (int64_t row = 0; row < rows; row++) {
        m->kernels->set->norm_row(w->hidden + row * padded(m->hidden), m->hidden, weight, bias, m->eps);
        set_input(m, w, row);
    }
}

static void multiply(const struct model *m, const struct linear *linear, const void *input, const struct unit *units,
                     int64_t rows, const struct result *result) {
    m->kernels->multiply(linear, input, units, padded(linear->rows_in), rows, result);
}

/* `struct Batch` of library.py. Sequence order[i] has the tokens starts[order[i]] to starts[order[i] + 1]. */
struct batch {
    const int64_t *input_ids, *token_types, *starts, *order;
    const int64_t *chunks; /* chunk c holds order[chunks[c]] .. order[chunks[c + 1]] */
    int64_t num_chunks, num_layers;
    int64_t first_only;  /* the last layer is computed for the first token of each sequence alone */
    double merged_share; /* of a sequence's rows, merged into others in each layer; 0: none */
    const int64_t *keys; /* how many of a sequence's first tokens are attended to; NULL: all. Not with merging */
    float *hidden_states; /* (N, D), or (B, D) of first tokens */
};

static int64_t length_of(const struct batch *b, int64_t i) {
    return b->starts[b->order[i] + 1] - b->starts[b->order[i]];
}

static int64_t sequences_of(const struct batch *b, int64_t chunk) { return b->chunks[chunk + 1] - b->chunks[chunk]; }

static int64_t embed(const struct model *m, const struct batch *b, int64_t chunk, struct workspace *w) {
    int64_t row = 0, *left = w->lengths;
    for (int64_t i = b->chunks[chunk]; i < b->chunks[chunk + 1]; i++) {
        int64_t start = b->starts[b->order[i]], length = *left++ = length_of(b, i);
        if (b->merged_share > 0) start_merging(&w->merging, row, length);
        for (int64_t t = 0; t < length; t++, row++) {
            int64_t type = b->token_types ? b->token_types[start + t] : 0;
            float *to = w->hidden + row * padded(m->hidden);
            /* An earlier chunk's NaN may have reached what fills the row up, and NaN times 0 is not 0. */
            memset(to + m->hidden, 0, (size_t)(padded(m->hidden) - m->hidden) * sizeof(float));
            m->kernels->set->sum_rows(to, m->tokens + b->input_ids[start + t] * m->hidden,
                                      m->positions + (t + m->position_offset) * m->hidden,
                                      m->token_types ? m->token_types + type * m->hidden : NULL, m->hidden);
        }
    }
    norm_rows(m, w, row, m->norm_weight, m->norm_bias);
    return row;
}

/* The weights of some columns of queries, keys and values. */
static struct linear columns_of(const struct model *m, const struct linear *qkv, int64_t first, int64_t count) {
    struct linear part = *qkv;
    part.columns = count;
    part.weight = (const char *)part.weight + first * padded(m->hidden) * m->kernels->code_bytes;
    part.bias += first;
    if (part.scale) part.scale += first, part.start += first;
    return part;
}

/* A few heads of a layer: their queries, keys and values for all rows, then attention in each sequence. With `first`
 * queries and contexts are those of first tokens alone, one row a sequence. */
static void attend(const struct model *m, const struct layer *layer, const struct batch *b, int64_t chunk,
                   int64_t rows, int first, struct workspace *w) {
    int64_t stride = padded(m->hidden), number = m->kernels->number_bytes, column = 0;
    int64_t sequences = sequences_of(b, chunk);
    const void *input = input_of(m, w);
    struct heads heads;
    for (int64_t head = 0; head < m->heads; head += heads.count, column += 3 * heads.width) {
        heads = heads_of(m, head);
        int64_t skipped = first ? heads.width : 0, row = 0;
        struct linear part = columns_of(m, &layer->qkv, column + skipped, 3 * heads.width - skipped);
        struct result qkv = {STORE, GELU, (char *)w->qkv + skipped * number, 3 * heads.width, NULL};
        multiply(m, &part, input, w->input_units, rows, &qkv);
        if (first) {
            struct linear queries = columns_of(m, &layer->qkv, column, heads.width);
            struct result result = {STORE, GELU, w->queries, heads.width, NULL};
            multiply(m, &queries, w->first, w->first_units, sequences, &result);
        }
        for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
            struct sequence sequence = {w->lengths[i], first ? 1 : w->lengths[i], w->lengths[i], NULL};
            if (b->keys) sequence.keys = b->keys[b->order[b->chunks[chunk] + i]];
            if (b->merged_share > 0) sequence.added = w->merging.added + row;
            char *from = (char *)w->qkv + row * 3 * heads.width * number;
            char *to = (char *)w->context + ((first ? i : row) * stride + head * heads.size) * number;
            if (first)
                memcpy(from, (char *)w->queries + i * heads.width * number, (size_t)(heads.width * number));
            m->kernels->attend(&heads, &sequence, from, to, stride, w->scratch);
        }
    }
}

/* Merge rows in every sequence; returns how many are left of all. */
static int64_t merge(const struct model *m, const struct batch *b, int64_t chunk, struct workspace *w) {
    int64_t row = 0, to = 0, token = 0, sequences = sequences_of(b, chunk);
    for (int64_t i = 0; i < sequences; i++) {
        int64_t length = w->lengths[i], tokens = length_of(b, b->chunks[chunk] + i);
        w->lengths[i] = m->kernels->set->merge_sequence(
            &w->merging, w->hidden, padded(m->hidden), m->hidden / m->heads, row, length, to,
            count_merges(length, b->merged_share), w->merging.owners + token, tokens);
        row += length, to += w->lengths[i], token += tokens;
    }
    for (int64_t i = 0; i < to; i++) set_input(m, w, i);
    return to;
}

/* Bring the rows of first tokens together: before attention what is multiplied, after it, as contexts lie, the rest. */
static void gather_inputs(const struct model *m, int64_t sequences, struct workspace *w) {
    int64_t row = 0, bytes = padded(m->hidden) * m->kernels->code_bytes;
    const char *input = input_of(m, w);
    for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
        memcpy((char *)w->first + i * bytes, input + row * bytes, (size_t)bytes);
        w->first_units[i] = w->input_units[row];
    }
}

static void gather_residuals(const struct model *m, int64_t sequences, struct workspace *w) {
    int64_t row = w->lengths[0], stride = padded(m->hidden);
    for (int64_t i = 1; i < sequences; row += w->lengths[i], i++)
        memcpy(w->hidden + i * stride, w->hidden + row * stride, (size_t)stride * sizeof(float));
}

/* Run a layer; returns how many rows there are after it. */
static int64_t run_layer(const struct model *m, const struct layer *layer, const struct batch *b, int64_t chunk,
                         int64_t rows, int first, struct workspace *w) {
    int64_t hidden = padded(m->hidden), inner = padded(m->inner), sequences = sequences_of(b, chunk);
    struct result residual = {ADD, GELU, w->hidden, hidden, NULL};
    struct result up = {ACTIVATE, (enum activation)m->activation, w->inner, inner, w->peaks};
    const void *context = w->context, *inside = w->inner;
    const struct kernels *k = m->kernels;
    if (first) gather_inputs(m, sequences, w);
    attend(m, layer, b, chunk, rows, first, w);
    if (first) gather_residuals(m, sequences, w), rows = sequences;
    if (k->input->of_context) {
        for (int64_t row = 0; row < rows; row++)
            w->input_units[row] = k->input->of_context((char *)w->input + row * hidden * k->code_bytes,
                                                       (char *)w->context + row * hidden * k->number_bytes, m->hidden);
        context = w->input;
    }
    multiply(m, &layer->out, context, w->input_units, rows, &residual);
    norm_rows(m, w, rows, layer->attention_norm_weight, layer->attention_norm_bias);
    if (b->merged_share > 0 && !first) rows = merge(m, b, chunk, w);
    if (k->input->of_inner) memset(w->peaks, 0, (size_t)rows * LANES * sizeof *w->peaks);
    multiply(m, &layer->up, input_of(m, w), w->input_units, rows, &up);
    if (k->input->of_inner) {
        for (int64_t row = 0; row < rows; row++)
            w->codes_units[row] =
                k->input->of_inner((char *)w->codes + row * inner * k->code_bytes,
                                   (char *)w->inner + row * inner * k->number_bytes, inner, w->peaks + row * LANES);
        inside = w->codes;
    }
    multiply(m, &layer->down, inside, w->codes_units, rows, &residual);
    norm_rows(m, w, rows, layer->mlp_norm_weight, layer->mlp_norm_bias);
    return rows;
}

/* Write what was asked for: the rows as they lie where they are those of first tokens, else one for every token. */
static void write_out(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w) {
    int64_t row = 0, token = 0, stride = padded(m->hidden), sequences = sequences_of(b, chunk);
    size_t bytes = (size_t)m->hidden * sizeof(float);
    for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
        int64_t number = b->order[b->chunks[chunk] + i], length = length_of(b, b->chunks[chunk] + i);
        float *to = b->hidden_states + (b->first_only ? number : b->starts[number]) * m->hidden;
        if (b->first_only) {
            memcpy(to, w->hidden + i * stride, bytes);
            continue;
        }
        for (int64_t t = 0; t < length; t++, token++, to += m->hidden) {
            int64_t own = b->merged_share > 0 ? w->merging.owners[token] : t;
            memcpy(to, w->hidden + (row + own) * stride, bytes);
        }
    }
}

/* Encode chunks until there is none left; `next` is the number of the next one, shared by all threads. */
EXPORT void embedkit_run(const struct model *m, const struct batch *b, atomic_llong *next, char *memory, int64_t rows,
                         int64_t length) {
    struct workspace w;
    divide(&w, m, rows, length, memory);
    for (;;) {
        int64_t chunk = atomic_fetch_add(next, 1);
        if (chunk >= b->num_chunks) return;
        int64_t count = embed(m, b, chunk, &w);
        for (int64_t i = 0; i < b->num_layers; i++) {
            int first = b->first_only && i == b->num_layers - 1;
            count = run_layer(m, m->layers + i, b, chunk, count, first, &w);
        }
        write_out(m, b, chunk, &w);
    }
}
