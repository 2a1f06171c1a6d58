/* The forward pass: a few sequences at a time go through all layers on one core, so that what passes between the steps
 * stays in its second-level cache; the weights stream past. Threads share the number of the next chunk, and when there is none
 * left, the steps of those that others still compute: attention by heads, all else by rows, which changes no bit of them.
 */
#include "encoder.h"

#include <stddef.h>
#include <string.h>

#include "common/merge.h"
#include "sharing.h"

/* No thread is handed fewer, for which the weights would have to pass; a multiple of the rows that any block of registers has. */
#define LEAST_ROWS 24

struct workspace;
struct desk;

/* Computes one part of a step of the chunk in `w`, at the desk of whoever took it. */
typedef void part_t(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk,
                    int64_t part);

/* What a thread needs for its own part of a step. */
struct desk {
    void *qkv;                /* (rows, 3 panels or more) of a few heads, float or bf16 */
    void *queries;            /* (rows, panel or more) of first tokens */
    void *scratch;            /* of attention */
    void *inner;              /* (block, I) float or bf16 */
    void *codes;              /* (block, I) what is read in its place in int8 */
    struct unit *codes_units; /* (block,) */
    int32_t *peaks;           /* (block, 16) */
};

/* A step that is under way, for whoever takes parts of it. */
struct step {
    part_t *run;
    const struct layer *layer;
    int64_t chunk, rows, block;
    int first;
};

/* One thread's memory: rows of a chunk, each kind in its place. Zeroed once; what fills rows up stays zero for good. */
struct workspace {
    struct sharing *sharing;
    struct step *step;
    float *hidden;            /* (rows, D) the residual stream */
    float *embedded;          /* (rows, E) what is projected to it */
    void *input;              /* (rows, D) what the next product reads, where it does not read `hidden` */
    struct unit *input_units; /* (rows,) of int8 */
    void *context;            /* (rows, D) float or bf16 */
    int64_t *lengths;         /* (rows,) of which there is one for each sequence: the rows that it has left */
    void *first;              /* (rows, D) inputs of first tokens */
    struct unit *first_units; /* (rows,) */
    struct merging merging;
    struct desk desk;
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

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Divide `memory`; with NULL, only count. */
static int64_t divide(struct workspace *w, const struct model *m, int64_t rows, int64_t length, char *memory) {
    const struct kernels *k = m->kernels;
    int64_t number = k->number_bytes, hidden = padded(m->hidden), inner = padded(m->inner);
    int64_t size = m->hidden / m->heads, block = least(rows, BLOCK_ROWS);
    char *at = memory;
    w->sharing = take(&at, sizeof *w->sharing);
    w->step = take(&at, sizeof *w->step);
    w->hidden = take(&at, rows * hidden * 4);
    w->embedded = take(&at, m->projection.weight ? rows * padded(m->embedding) * 4 : 0);
    w->input = take(&at, k->input->of_hidden ? rows * hidden * k->code_bytes : 0);
    w->input_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->context = take(&at, rows * hidden * number);
    w->lengths = take(&at, rows * 8);
    w->first = take(&at, rows * hidden * number);
    w->first_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->merging.sizes = take(&at, rows * 4);
    w->merging.added = take(&at, rows * 4);
    w->merging.owners = take(&at, rows * 4);
    w->merging.scratch = take(&at, k->set->merge_scratch_bytes(length, hidden));
    w->desk.qkv = take(&at, rows * 3 * heads_of(m, 0).width * number);
    w->desk.queries = take(&at, rows * heads_of(m, 0).width * number);
    w->desk.scratch = take(&at, k->attention_bytes(length, size));
    w->desk.inner = take(&at, block * inner * number);
    w->desk.codes = take(&at, k->input->of_inner ? block * inner * k->code_bytes : 0);
    w->desk.codes_units = take(&at, block * (int64_t)sizeof(struct unit));
    w->desk.peaks = take(&at, block * 64);
    take(&at, k->rows_behind * most(most(hidden, inner), 3 * heads_of(m, 0).width) * number);
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
static void set_input(const struct model *m, const struct workspace *w, int64_t row) {
    if (!m->kernels->input->of_hidden) return;
    int64_t stride = padded(m->hidden);
    char *to = (char *)w->input + row * stride * m->kernels->code_bytes;
    w->input_units[row] = m->kernels->input->of_hidden(to, w->hidden + row * stride, m->hidden);
}

static void norm_rows(const struct model *m, const struct workspace *w, int64_t row, int64_t end, const float *weight,
                      const float *bias) {
    for (; row < end; row++) {
        m->kernels->set->norm_row(w->hidden + row * padded(m->hidden), m->hidden, weight, bias, m->eps);
        set_input(m, w, row);
    }
}

static void multiply(const struct model *m, const struct linear *linear, const void *input, const struct unit *units,
                     int64_t rows, const struct result *result) {
    m->kernels->multiply(linear, input, units, padded(linear->rows_in), rows, result);
}

static int64_t length_of(const struct batch *b, int64_t i) {
    return b->starts[b->order[i] + 1] - b->starts[b->order[i]];
}

static int64_t sequences_of(const struct batch *b, int64_t chunk) { return b->chunks[chunk + 1] - b->chunks[chunk]; }

static int64_t embed(const struct model *m, const struct batch *b, int64_t chunk, struct workspace *w) {
    int64_t row = 0, *left = w->lengths, size = m->embedding;
    float *rows = m->projection.weight ? w->embedded : w->hidden;
    for (int64_t i = b->chunks[chunk]; i < b->chunks[chunk + 1]; i++) {
        int64_t start = b->starts[b->order[i]], length = *left++ = length_of(b, i);
        if (b->merged_share > 0) start_merging(&w->merging, row, length);
        for (int64_t t = 0; t < length; t++, row++) {
            int64_t type = b->token_types ? b->token_types[start + t] : 0;
            float *to = rows + row * padded(size);
            /* An earlier chunk's NaN may have reached what fills the row up, and NaN times 0 is not 0. */
            memset(to + size, 0, (size_t)(padded(size) - size) * sizeof(float));
            m->kernels->set->sum_rows(to, m->tokens + b->input_ids[start + t] * size,
                                      m->positions + (t + m->position_offset) * size,
                                      m->token_types ? m->token_types + type * size : NULL, size);
            m->kernels->set->norm_row(to, size, m->norm_weight, m->norm_bias, m->eps);
        }
    }
    struct result result = {STORE, GELU, w->hidden, padded(m->hidden), NULL};
    if (m->projection.weight) m->projecting->multiply(&m->projection, rows, NULL, padded(size), row, &result);
    for (int64_t i = 0; i < row; i++) set_input(m, w, i);
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

/* A few heads of a layer, those of panel `part`: their queries, keys and values for all rows, then attention in each sequence. With
 * `first`, queries and contexts are those of first tokens alone, one row a sequence. */
static void attend(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk,
                   int64_t part) {
    const struct step *step = w->step;
    int64_t stride = padded(m->hidden), number = m->kernels->number_bytes, sequences = sequences_of(b, step->chunk);
    int64_t head = part * heads_of(m, 0).count, row = 0;
    struct heads heads = heads_of(m, head);
    int64_t width = heads.width, column = part * 3 * width, skipped = step->first ? width : 0;
    struct linear columns = columns_of(m, &step->layer->qkv, column + skipped, 3 * width - skipped);
    struct result qkv = {STORE, GELU, (char *)desk->qkv + skipped * number, 3 * width, NULL};
    multiply(m, &columns, input_of(m, w), w->input_units, step->rows, &qkv);
    if (step->first) {
        struct linear queries = columns_of(m, &step->layer->qkv, column, width);
        struct result result = {STORE, GELU, desk->queries, width, NULL};
        multiply(m, &queries, w->first, w->first_units, sequences, &result);
    }
    for (int64_t i = 0; i < sequences; row += w->lengths[i], i++) {
        int64_t length = w->lengths[i], queries = step->first ? 1 : length;
        struct sequence sequence = {length, queries, length, NULL, NULL, m->distances_stride};
        if (b->keys) sequence.keys = b->keys[b->order[b->chunks[step->chunk] + i]];
        if (b->merged_share > 0) sequence.added = w->merging.added + row;
        if (m->distances) sequence.distances = m->distances + head * m->distances_stride;
        char *from = (char *)desk->qkv + row * 3 * width * number;
        char *to = (char *)w->context + ((step->first ? i : row) * stride + head * heads.size) * number;
        if (step->first) memcpy(from, (char *)desk->queries + i * width * number, (size_t)(width * number));
        m->kernels->attend(&heads, &sequence, from, to, stride, desk->scratch);
    }
}

/* Merge rows in every sequence; returns how many are left of all. */
static int64_t merge(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w) {
    int64_t row = 0, to = 0, token = 0, sequences = sequences_of(b, chunk);
    struct merging merging = w->merging;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t length = w->lengths[i], tokens = length_of(b, b->chunks[chunk] + i);
        w->lengths[i] = m->kernels->set->merge_sequence(
            &merging, w->hidden, padded(m->hidden), m->hidden / m->heads, row, length, to,
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

/* The rows of a part of a step: from `start_of` to `end_of`. */
static int64_t start_of(const struct step *step, int64_t part) { return part * step->block; }

static int64_t end_of(const struct step *step, int64_t part) { return least(step->rows, (part + 1) * step->block); }

/* What follows attention in some rows: its output and the norm. */
static void put_out(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk,
                    int64_t part) {
    (void)b, (void)desk;
    const struct layer *layer = w->step->layer;
    const struct kernels *k = m->kernels;
    int64_t hidden = padded(m->hidden), row = start_of(w->step, part), end = end_of(w->step, part);
    char *context = (char *)w->context + row * hidden * k->number_bytes;
    char *input = (char *)w->input + row * hidden * k->code_bytes;
    struct result residual = {ADD, GELU, w->hidden + row * hidden, hidden, NULL};
    if (k->input->of_context) {
        for (int64_t i = 0; i < end - row; i++)
            w->input_units[row + i] = k->input->of_context(input + i * hidden * k->code_bytes,
                                                           context + i * hidden * k->number_bytes, m->hidden);
        context = input;
    }
    multiply(m, &layer->out, context, w->input_units + row, end - row, &residual);
    norm_rows(m, w, row, end, layer->attention_norm_weight, layer->attention_norm_bias);
}

/* The feed-forward layer of some rows, and its norm. */
static void feed_forward(const struct model *m, const struct batch *b, const struct workspace *w,
                         const struct desk *desk, int64_t part) {
    (void)b;
    const struct layer *layer = w->step->layer;
    const struct kernels *k = m->kernels;
    int64_t hidden = padded(m->hidden), inner = padded(m->inner);
    int64_t row = start_of(w->step, part), end = end_of(w->step, part), rows = end - row;
    int64_t bytes = k->input->of_hidden ? k->code_bytes : (int64_t)sizeof(float);
    const char *input = (const char *)input_of(m, w) + row * hidden * bytes;
    struct result residual = {ADD, GELU, w->hidden + row * hidden, hidden, NULL};
    struct result up = {ACTIVATE, (enum activation)m->activation, desk->inner, inner, desk->peaks};
    const void *inside = desk->inner;
    if (k->input->of_inner) memset(desk->peaks, 0, (size_t)rows * LANES * sizeof *desk->peaks);
    multiply(m, &layer->up, input, w->input_units + row, rows, &up);
    if (k->input->of_inner) {
        for (int64_t i = 0; i < rows; i++)
            desk->codes_units[i] =
                k->input->of_inner((char *)desk->codes + i * inner * k->code_bytes,
                                   (char *)desk->inner + i * inner * k->number_bytes, inner, desk->peaks + i * LANES);
        inside = desk->codes;
    }
    multiply(m, &layer->down, inside, desk->codes_units, rows, &residual);
    norm_rows(m, w, row, end, layer->mlp_norm_weight, layer->mlp_norm_bias);
}

static void finish(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk,
                   int64_t part) {
    put_out(m, b, w, desk, part);
    feed_forward(m, b, w, desk, part);
}

/* A thread among others. */
struct worker {
    const struct model *model;
    const struct batch *batch;
    struct progress *progress;
    const struct crew *crew;
    struct workspace w;
};

static int take_over(struct worker *at, const struct workspace *w) {
    int64_t part = take_part(w->sharing);
    if (part < 0) return 0;
    w->step->run(at->model, at->batch, w, &at->w.desk, part);
    end_part(w->sharing);
    return 1;
}

/* Run a step of this thread's chunk, with whoever is idle. */
static void run_step(struct worker *at, const struct step *step, int64_t parts) {
    *at->w.step = *step;
    open_step(at->w.sharing, parts);
    while (take_over(at, &at->w))
        ;
    close_step(at->w.sharing, parts);
}

/* The rows of a part: a block's, or fewer where there are threads without a chunk. */
static int64_t rows_of_part(const struct worker *at, int64_t rows) {
    int64_t idle = atomic_load_explicit(&at->progress->next, memory_order_relaxed) >= at->batch->num_chunks;
    int64_t parts = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    if (idle && parts < at->crew->count) parts = at->crew->count;
    int64_t each = (rows + parts - 1) / parts;
    return (each + LEAST_ROWS - 1) / LEAST_ROWS * LEAST_ROWS;
}

static void run_rows(struct worker *at, struct step *step, int64_t rows, part_t *run) {
    step->run = run, step->rows = rows, step->block = rows_of_part(at, rows);
    run_step(at, step, (rows + step->block - 1) / step->block);
}

/* Run a layer; returns how many rows there are after it. */
static int64_t run_layer(struct worker *at, const struct layer *layer, int64_t chunk, int64_t rows, int first) {
    const struct model *m = at->model;
    struct workspace *w = &at->w;
    int64_t heads = heads_of(m, 0).count, sequences = sequences_of(at->batch, chunk);
    struct step step = {attend, layer, chunk, rows, 0, first};
    if (first) gather_inputs(m, sequences, w);
    run_step(at, &step, (m->heads + heads - 1) / heads);
    if (first) gather_residuals(m, sequences, w), rows = sequences;
    if (at->batch->merged_share > 0 && !first) {
        run_rows(at, &step, rows, put_out);
        rows = merge(m, at->batch, chunk, w);
        run_rows(at, &step, rows, feed_forward);
    } else {
        run_rows(at, &step, rows, finish);
    }
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

static void run_chunk(struct worker *at, int64_t chunk) {
    const struct batch *b = at->batch;
    int64_t rows = embed(at->model, b, chunk, &at->w);
    for (int64_t i = 0; i < b->num_layers; i++)
        rows = run_layer(at, at->model->layers + i, chunk, rows, b->first_only && i == b->num_layers - 1);
    write_out(at->model, b, chunk, &at->w);
    atomic_fetch_add(&at->progress->done, 1);
}

/* Take parts of other threads' steps until all chunks are done. */
static void help(struct worker *at) {
    int64_t times = 0;
    while (atomic_load(&at->progress->done) < at->batch->num_chunks && atomic_load(&at->progress->next) < STOPPED) {
        int helped = 0;
        for (int64_t i = 0; i < at->crew->count; i++) {
            struct workspace other;
            divide(&other, at->model, at->crew->rows, at->crew->length, at->crew->memories[i]);
            while (take_over(at, &other)) helped = 1;
        }
        if (helped) times = 0;
        else rest(&times);
    }
}

EXPORT void embedkit_run(const struct model *m, const struct batch *b, struct progress *progress,
                         const struct crew *crew, int64_t own) {
    struct worker at = {m, b, progress, crew, {0}};
    divide(&at.w, m, crew->rows, crew->length, crew->memories[own]);
    if (m->kernels->begin) m->kernels->begin();
    for (int64_t chunk; (chunk = atomic_fetch_add(&progress->next, 1)) < b->num_chunks;) run_chunk(&at, chunk);
    if (crew->count > 1) help(&at);
    if (m->kernels->end) m->kernels->end();
}
