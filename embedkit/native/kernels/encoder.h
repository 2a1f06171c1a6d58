/* What Python and the tests call to encode; `Batch` and `BatchProgress` of library.py. */
#ifndef EMBEDKIT_ENCODER_H
#define EMBEDKIT_ENCODER_H

#include <stdatomic.h>

#include "native.h"

/* Sequence order[i] has the tokens starts[order[i]] to starts[order[i] + 1]. */
struct batch {
    const int64_t *input_ids, *token_types, *starts, *order;
    const int64_t *chunks; /* chunk c holds order[chunks[c]] .. order[chunks[c + 1]] */
    int64_t num_chunks, num_layers;
    int64_t first_only;  /* the last layer is computed for the first token of each sequence alone */
    int64_t mean, skip;  /* what is written is the mean of each sequence's tokens behind the first `skip`; of none it is 0 */
    double merged_share; /* of a sequence's rows, merged into others in each layer; 0: none */
    const int64_t *keys; /* how many of a sequence's first tokens are attended to; NULL: all. Not with merging */
    float *hidden_states; /* (N, D), or (B, D) of first tokens or means */
};

/* What the threads of a batch share: the next chunk, and how many are done. Whoever adds STOPPED to `next` ends them early. */
struct progress {
    atomic_llong next, done;
};
#define STOPPED ((int64_t)1 << 40)

/* The threads' memories, each of embedkit_workspace_bytes for chunks of `rows` tokens and sequences of `length`; zeroed before
 * they are used first, and by one batch at a time. */
struct crew {
    char *const *memories;
    int64_t count, rows, length;
};

int64_t embedkit_workspace_bytes(const struct model *m, int64_t rows, int64_t length);

/* Encode chunks until there is none left, as thread `own` of a crew. */
void embedkit_run(const struct model *m, const struct batch *b, struct progress *progress, const struct crew *crew,
                  int64_t own);

#endif
