/* The forward pass: a few sequences at a time go through all layers on one core, so that what passes between the steps
 * stays in its second-level cache; the weights stream past. Threads share the number of the next chunk, and when there is none
 * left, the steps of those that others still compute: attention by heads, all else by rows, which changes no bit of them.
 */
#include "encoder.h"

#include "workspace.h"

/* No thread is handed fewer, for which the weights would have to pass; a multiple of the rows that any block of registers has. */
#define LEAST_ROWS 24

static void *take(char **at, int64_t bytes) {
    void *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* Divide `memory`; with NULL, only count. */
static int64_t divide(struct workspace *w, const struct model *m, int64_t rows, int64_t length, char *memory) {
    const struct kernels *k = m->kernels;
    int64_t number = k->number_bytes, hidden = padded(m->hidden), inner = padded(m->inner), context = padded(context_of(m));
    struct heads heads = heads_of(m, 0);
    int64_t block = least(rows, BLOCK_ROWS), row = row_of_heads(&heads);
    char *at = memory;
    w->sharing = take(&at, sizeof *w->sharing);
    w->step = take(&at, sizeof *w->step);
    w->hidden = take(&at, rows * hidden * 4);
    w->normed = m->final_norm.weight ? take(&at, rows * hidden * 4) : w->hidden;
    w->embedded = take(&at, m->projection.weight ? rows * padded(m->embedding) * 4 : 0);
    w->input = take(&at, k->input->of_hidden ? rows * hidden * k->code_bytes : 0);
    w->input_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->context = take(&at, rows * context * number);
    w->mean = take(&at, hidden * 4);
    w->lengths = take(&at, rows * 8);
    w->first = take(&at, rows * hidden * number);
    w->first_units = take(&at, rows * (int64_t)sizeof(struct unit));
    w->merging.sizes = take(&at, rows * 4);
    w->merging.added = take(&at, rows * 4);
    w->merging.owners = take(&at, rows * 4);
    w->merging.scratch = take(&at, k->set->merge_scratch_bytes(length, hidden));
    w->desk.qkv = take(&at, rows * row * number);
    w->desk.part = take(&at, m->layers->of_attention.weight ? block * hidden * 4 : 0);
    w->desk.queries = take(&at, rows * heads.width * number);
    w->desk.scratch = take(&at, k->attention_bytes(length, m->head_size, m->numbers != NULL));
    w->desk.inner = take(&at, block * inner * number);
    w->desk.codes = take(&at, k->input->of_inner ? block * most(inner, context) * k->code_bytes : 0);
    w->desk.codes_units = take(&at, block * (int64_t)sizeof(struct unit));
    w->desk.peaks = take(&at, block * 64);
    take(&at, k->rows_behind * most(most(hidden, inner), most(context, row)) * number);
    return at - memory;
}

EXPORT int64_t embedkit_workspace_bytes(const struct model *m, int64_t rows, int64_t length) {
    struct workspace w;
    return divide(&w, m, rows, length, NULL);
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
static int64_t run_layer(struct worker *at, int64_t number, int64_t chunk, int64_t rows) {
    const struct model *m = at->model;
    const struct layer *layer = m->layers + number;
    const int last = number == at->batch->num_layers - 1, first = last && at->batch->first_only;
    struct workspace *w = &at->w;
    int64_t keys = heads_of(m, 0).keys, sequences = sequences_of(at->batch, chunk);
    struct step step = {attend, layer, &layer->after_mlp, chunk, rows, 0, first};
    if (last && m->final_norm.weight) step.after_mlp = &m->final_norm;
    if (first) gather_inputs(m, sequences, w);
    run_step(at, &step, (m->key_heads + keys - 1) / keys);
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

static void run_chunk(struct worker *at, int64_t chunk) {
    const struct batch *b = at->batch;
    int64_t rows = embed(at->model, b, chunk, &at->w);
    for (int64_t i = 0; i < b->num_layers; i++) rows = run_layer(at, i, chunk, rows);
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
