/* The steps of a chunk: its embeddings, the parts of a layer, and what is written of the last one. */
#include <string.h>

#include "workspace.h"

/* What a product reads of the residual stream. */
static const void *input_of(const struct model *m, const struct workspace *w) {
    return m->kernels->input->of_hidden ? w->input : w->normed;
}

/* Make the next product's input of one row. */
static void set_input(const struct model *m, const struct workspace *w, int64_t row) {
    if (!m->kernels->input->of_hidden) return;
    int64_t stride = padded(m->hidden);
    char *to = (char *)w->input + row * stride * m->kernels->code_bytes;
    w->input_units[row] = m->kernels->input->of_hidden(to, w->normed + row * stride, m->hidden);
}

static void norm_rows(const struct model *m, const struct workspace *w, int64_t row, int64_t end, const struct norm *norm) {
    for (int64_t at = row * padded(m->hidden); row < end; row++, at += padded(m->hidden)) {
        m->kernels->set->norm_row(w->normed + at, w->hidden + at, m->hidden, norm, m->eps);
        set_input(m, w, row);
    }
}

static void multiply(const struct model *m, const struct linear *linear, const void *input, const struct unit *units,
                     int64_t rows, const struct result *result) {
    m->kernels->multiply(linear, input, units, padded(linear->rows_in), rows, result);
}

int64_t embed(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w) {
    int64_t row = 0, *left = w->lengths, size = m->embedding;
    float *rows = m->projection.weight ? w->embedded : w->hidden;
    struct merging merging = w->merging;
    for (int64_t i = b->chunks[chunk]; i < b->chunks[chunk + 1]; i++) {
        int64_t start = b->starts[b->order[i]], length = *left++ = length_of(b, i);
        if (b->merged_share > 0) start_merging(&merging, row, length);
        for (int64_t t = 0; t < length; t++, row++) {
            int64_t type = b->token_types ? b->token_types[start + t] : 0;
            float *to = rows + row * padded(size);
            /* An earlier chunk's NaN may have reached what fills the row up, and NaN times 0 is not 0. */
            memset(to + size, 0, (size_t)(padded(size) - size) * sizeof(float));
            m->kernels->set->sum_rows(to, m->tokens + b->input_ids[start + t] * size,
                                      m->positions ? m->positions + (t + m->position_offset) * size : NULL,
                                      m->token_types ? m->token_types + type * size : NULL, size);
            for (int64_t i = 0; m->embedding_scale != 1 && i < size; i++) to[i] *= (float)m->embedding_scale;
            if (m->embedding_norm.weight) m->kernels->set->norm_row(to, to, size, &m->embedding_norm, m->eps);
        }
    }
    struct result result = {STORE, GELU, w->hidden, padded(m->hidden), NULL};
    if (m->projection.weight) m->projecting->multiply(&m->projection, rows, NULL, padded(size), row, &result);
    if (m->first_norm.weight) {
        norm_rows(m, w, 0, row, &m->first_norm);
        return row;
    }
    /* As it is, also with norms before the parts of a layer: it has just been normed. */
    if (w->normed != w->hidden) memcpy(w->normed, w->hidden, (size_t)(row * padded(m->hidden)) * sizeof(float));
    for (int64_t i = 0; i < row; i++) set_input(m, w, i);
    return row;
}

/* A few heads of a layer, those of panel `part`: their queries, keys and values for all rows, then attention in each sequence. With
 * `first`, queries and contexts are those of first tokens alone, one row a sequence. */
void attend(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk, int64_t part) {
    const struct step *step = w->step;
    const struct layer *layer = step->layer;
    int64_t stride = padded(context_of(m)), number = m->kernels->number_bytes, sequences = sequences_of(b, step->chunk);
    int64_t key_head = part * heads_of(m, 0).keys, head = key_head * (m->heads / m->key_heads), row = 0;
    struct heads heads = heads_of(m, key_head);
    int64_t width = heads.width, all = row_of_heads(&heads), column = part * all, skipped = step->first ? width : 0;
    struct linear columns = columns_of(m->kernels, &layer->qkv, column + skipped, all - skipped);
    struct result qkv = {STORE, GELU, (char *)desk->qkv + skipped * number, all, NULL};
    multiply(m, &columns, input_of(m, w), w->input_units, step->rows, &qkv);
    if (step->first) {
        struct linear queries = columns_of(m->kernels, &layer->qkv, column, width);
        struct result result = {STORE, GELU, desk->queries, width, NULL};
        multiply(m, &queries, w->first, w->first_units, sequences, &result);
    }
    for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
        int64_t length = w->lengths[i], queries = step->first ? 1 : length;
        struct sequence sequence = {.length = length, .queries = queries, .keys = length, .reach = layer->reach,
                                    .ahead = layer->ahead, .rotary = layer->rotary, .stride = m->distances_stride,
                                    .norm_together = m->norm_together, .eps = m->eps,
                                    .scale = m->score_scale, .numbers = m->numbers, .num_distances = m->num_distances};
        if (layer->query_norm.weight) sequence.query_norm = &layer->query_norm, sequence.key_norm = &layer->key_norm;
        int64_t table = head * m->num_distances * heads.size * number;
        if (layer->distance_keys) sequence.distance_keys = (const char *)layer->distance_keys + table;
        if (layer->distance_queries) sequence.distance_queries = (const char *)layer->distance_queries + table;
        if (b->keys) sequence.keys = b->keys[b->order[b->chunks[step->chunk] + i]];
        if (b->merged_share > 0) sequence.added = w->merging.added + row;
        if (m->distances) sequence.distances = m->distances + head * m->distances_stride;
        char *from = (char *)desk->qkv + row * all * number;
        char *to = (char *)w->context + ((step->first ? i : row) * stride + head * heads.size) * number;
        if (step->first) memcpy(from, (char *)desk->queries + i * width * number, (size_t)(width * number));
        m->kernels->attend(&heads, &sequence, from, to, stride, desk->scratch);
    }
}

int64_t merge(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w) {
    int64_t row = 0, to = 0, token = 0, sequences = sequences_of(b, chunk);
    struct merging merging = w->merging;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t length = w->lengths[i], tokens = length_of(b, b->chunks[chunk] + i);
        w->lengths[i] = m->kernels->set->merge_sequence(
            &merging, w->hidden, padded(m->hidden), m->head_size, row, length, to,
            count_merges(length, b->merged_share), w->merging.owners + token, tokens);
        row += length, to += w->lengths[i], token += tokens;
    }
    for (int64_t i = 0; i < to; i++) set_input(m, w, i);
    return to;
}

void gather_inputs(const struct model *m, int64_t sequences, const struct workspace *w) {
    int64_t row = 0, bytes = padded(m->hidden) * m->kernels->code_bytes;
    const char *input = input_of(m, w);
    for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
        memcpy((char *)w->first + i * bytes, input + row * bytes, (size_t)bytes);
        w->first_units[i] = w->input_units[row];
    }
}

void gather_residuals(const struct model *m, int64_t sequences, const struct workspace *w) {
    int64_t row = w->lengths[0], stride = padded(m->hidden);
    for (int64_t i = 1; i < sequences; row += w->lengths[i], i++)
        memcpy(w->hidden + i * stride, w->hidden + row * stride, (size_t)stride * sizeof(float));
}

/* The rows of a part of a step: from `start_of` to `end_of`. */
static int64_t start_of(const struct step *step, int64_t part) { return part * step->block; }

static int64_t end_of(const struct step *step, int64_t part) { return least(step->rows, (part + 1) * step->block); }

/* Add a product to some rows of the residual stream: as it is, or where `norm` has a weight its norm, or with `twice` that of its sum with
 * them. */
static void add_part(const struct model *m, const struct workspace *w, const struct desk *desk, const struct linear *linear,
                     const void *input, const struct unit *units, int64_t row, int64_t rows, const struct norm *norm,
                     int64_t twice) {
    int64_t hidden = padded(m->hidden);
    float *to = w->hidden + row * hidden;
    struct result residual = {ADD, GELU, norm->weight ? desk->part : to, hidden, NULL};
    size_t bytes = norm->weight ? (size_t)(rows * hidden) * sizeof(float) : 0;
    if (twice) memcpy(desk->part, to, bytes);
    else memset(desk->part, 0, bytes);
    multiply(m, linear, input, units, rows, &residual);
    for (int64_t at = 0; norm->weight && at < rows * hidden; at += hidden) {
        m->kernels->set->norm_row(desk->part + at, desk->part + at, m->hidden, norm, m->eps);
        m->kernels->set->sum_rows(to + at, to + at, desk->part + at, NULL, m->hidden);
    }
}

/* What follows attention in some rows: its output and the norm. */
void put_out(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk, int64_t part) {
    (void)b;
    const struct layer *layer = w->step->layer;
    const struct kernels *k = m->kernels;
    int64_t width = padded(context_of(m)), row = start_of(w->step, part), end = end_of(w->step, part);
    const char *context = (const char *)w->context + row * width * k->number_bytes;
    if (k->input->of_context) {
        for (int64_t i = 0; i < end - row; i++)
            desk->codes_units[i] = k->input->of_context((char *)desk->codes + i * width * k->code_bytes,
                                                        context + i * width * k->number_bytes, context_of(m));
        context = desk->codes;
    }
    add_part(m, w, desk, &layer->out, context, desk->codes_units, row, end - row, &layer->of_attention,
             layer->twice);
    norm_rows(m, w, row, end, &layer->after_attention);
}

/* What `down` reads of the rows of `inner`: these, or their codes. */
static const void *inner_codes(const struct model *m, const struct desk *desk, int64_t rows) {
    const struct kernels *k = m->kernels;
    int64_t inner = padded(m->inner);
    if (!k->input->of_inner) return desk->inner;
    for (int64_t i = 0; i < rows; i++) {
        char *to = (char *)desk->codes + i * inner * k->code_bytes;
        const char *row = (const char *)desk->inner + i * inner * k->number_bytes;
        desk->codes_units[i] = m->shifted ? k->input->of_inner(to, row, inner, desk->peaks + i * LANES)
                                          : k->input->of_gated(to, row, inner);
    }
    return desk->codes;
}

/* The feed-forward layer of some rows, and its norm. */
void feed_forward(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk,
                  int64_t part) {
    (void)b;
    const struct layer *layer = w->step->layer;
    const struct kernels *k = m->kernels;
    int64_t hidden = padded(m->hidden), inner = padded(m->inner);
    int64_t row = start_of(w->step, part), end = end_of(w->step, part), rows = end - row;
    int64_t bytes = k->input->of_hidden ? k->code_bytes : (int64_t)sizeof(float);
    const char *input = (const char *)input_of(m, w) + row * hidden * bytes;
    struct result up = {ACTIVATE, (enum activation)m->activation, desk->inner, inner, desk->peaks};
    struct result gate = {MULTIPLY, GELU, desk->inner, inner, NULL};
    if (k->input->of_inner) memset(desk->peaks, 0, (size_t)rows * LANES * sizeof *desk->peaks);
    multiply(m, &layer->up, input, w->input_units + row, rows, &up);
    if (layer->gate.weight) multiply(m, &layer->gate, input, w->input_units + row, rows, &gate);
    add_part(m, w, desk, &layer->down, inner_codes(m, desk, rows), desk->codes_units, row, rows, &layer->of_mlp, 0);
    norm_rows(m, w, row, end, w->step->after_mlp);
}

void finish(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk, int64_t part) {
    put_out(m, b, w, desk, part);
    feed_forward(m, b, w, desk, part);
}

/* The row of a token within its sequence; `token` counts those of the chunk. */
static int64_t row_of(const struct batch *b, const struct workspace *w, int64_t token, int64_t t) {
    return b->merged_share > 0 ? w->merging.owners[token] : t;
}

/* Write the mean of a sequence's tokens, whose rows begin at `rows`; `token` is its first in the chunk. */
static void write_mean(const struct model *m, const struct batch *b, const struct workspace *w, const float *rows,
                       int64_t token, int64_t length, float *to) {
    int64_t count = length > b->skip ? length - b->skip : 0;
    memset(w->mean, 0, (size_t)m->hidden * sizeof(float));
    for (int64_t t = b->skip; t < length; t++)
        m->kernels->set->sum_rows(w->mean, w->mean, rows + row_of(b, w, token + t, t) * padded(m->hidden), NULL, m->hidden);
    for (int64_t i = 0; i < m->hidden; i++) to[i] = w->mean[i] / (float)most(count, 1);
}

void write_out(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w) {
    int64_t row = 0, token = 0, stride = padded(m->hidden), sequences = sequences_of(b, chunk);
    size_t bytes = (size_t)m->hidden * sizeof(float);
    for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
        int64_t number = b->order[b->chunks[chunk] + i], length = length_of(b, b->chunks[chunk] + i);
        float *to = b->hidden_states + (b->first_only || b->mean ? number : b->starts[number]) * m->hidden;
        if (b->first_only) memcpy(to, w->normed + i * stride, bytes);
        else if (b->mean) write_mean(m, b, w, w->normed + row * stride, token, length, to);
        else
            for (int64_t t = 0; t < length; t++)
                memcpy(to + t * m->hidden, w->normed + (row + row_of(b, w, token + t, t)) * stride, bytes);
        token += length;
    }
}
