/* What passes between the steps of a chunk, and the steps themselves. */
#ifndef EMBEDKIT_WORKSPACE_H
#define EMBEDKIT_WORKSPACE_H

#include "common/merge.h"
#include "encoder.h"
#include "sharing.h"

struct workspace;
struct desk;

/* Computes one part of a step of the chunk in `w`, at the desk of whoever took it. */
typedef void part_t(const struct model *m, const struct batch *b, const struct workspace *w, const struct desk *desk,
                    int64_t part);

/* What a thread needs for its own part of a step. */
struct desk {
    void *qkv;                /* (rows, 3 panels or more) of a few heads, float or bf16 */
    float *part;              /* (block, D) what attention or the feed-forward layer gives, where that is normed */
    void *queries;            /* (rows, panel or more) of first tokens */
    void *scratch;            /* of attention */
    void *inner;              /* (block, I) float or bf16 */
    void *codes;              /* (block, I or C) what is read in its place, or in that of contexts, in int8 */
    struct unit *codes_units; /* (block,) */
    int32_t *peaks;           /* (block, 16) */
};

/* A step that is under way, for whoever takes parts of it. */
struct step {
    part_t *run;
    const struct layer *layer;
    const struct norm *after_mlp; /* the layer's, or the one behind the last layer */
    int64_t chunk, rows, block;
    int first;
};

/* One thread's memory: rows of a chunk, each kind in its place. Zeroed once; what fills rows up stays zero for good. */
struct workspace {
    struct sharing *sharing;
    struct step *step;
    float *hidden;            /* (rows, D) the residual stream */
    float *normed;            /* (rows, D) the same, unless norms stand before the parts of a layer: then its norm */
    float *embedded;          /* (rows, E) what is projected to it */
    void *input;              /* (rows, D) what the next product reads, where it does not read `normed` */
    struct unit *input_units; /* (rows,) of int8 */
    void *context;            /* (rows, C) float or bf16, C the numbers of all heads */
    float *mean;              /* (D,) the sum of a sequence's rows */
    int64_t *lengths;         /* (rows,) of which there is one for each sequence: the rows that it has left */
    void *first;              /* (rows, D) inputs of first tokens */
    struct unit *first_units; /* (rows,) */
    struct merging merging;
    struct desk desk;
};

/* Of layer.c: look up the tokens of a chunk, and return how many rows they are. */
int64_t embed(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w);

/* The steps of a layer. A part of `attend` is a few heads, those of one panel; a part of the others some rows. */
part_t attend, put_out, feed_forward, finish;

/* Bring the rows of first tokens together: before attention what is multiplied, after it, as contexts lie, the rest. */
void gather_inputs(const struct model *m, int64_t sequences, const struct workspace *w);
void gather_residuals(const struct model *m, int64_t sequences, const struct workspace *w);

/* Merge rows in every sequence; returns how many are left of all. */
int64_t merge(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w);

/* Write what was asked for: the rows as they lie where they are those of first tokens, means, or else one for every token. */
void write_out(const struct model *m, const struct batch *b, int64_t chunk, const struct workspace *w);

/* As many heads of keys as a panel holds, or all where they are normed together, from head `first` on, with the heads of queries
 * that share them. Packing orders the columns of qkv in the same way. */
static inline struct heads heads_of(const struct model *m, int64_t first) {
    int64_t size = m->head_size, keys = size < PANEL ? PANEL / size : 1, shared = m->heads / m->key_heads;
    if (keys > m->key_heads || m->norm_together) keys = m->key_heads;
    int64_t there = m->key_heads - first < keys ? m->key_heads - first : keys;
    struct heads heads = {there * shared, there, size, padded(keys * shared * size), padded(keys * size)};
    return heads;
}

/* The numbers of all heads of a token. */
static inline int64_t context_of(const struct model *m) { return m->heads * m->head_size; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t length_of(const struct batch *b, int64_t i) {
    return b->starts[b->order[i] + 1] - b->starts[b->order[i]];
}

static inline int64_t sequences_of(const struct batch *b, int64_t chunk) { return b->chunks[chunk + 1] - b->chunks[chunk]; }

#endif
