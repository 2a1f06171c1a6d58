/* The best rows of a sparse index's segment for one query: term after term over blocks of rows, and no further than need be.
 *
 * A segment holds its rows (terms ascending, codes of 8 bits, a scale for each row) and, for each block of rows, the lists of the terms that
 * occur there: the rows, by their place in the block, with the same codes, and the largest weight of the list.
 *
 * 1. The bound of a block is the sum over the query's terms of the query's weight times the largest weight. Blocks come by their bounds, the
 *    largest first, until one is below the k-th best score so far (Mallia et al. 2024, https://arxiv.org/abs/2405.01117).
 * 2. In a block the lists come by what they can add, the largest first. Once what is left cannot lift a row to the k-th best score that no
 *    list has met yet, no further rows are taken in; once the rows that still may reach it are few, they are scored one by one (MaxScore,
 *    Turtle and Flood 1995, https://doi.org/10.1016/0306-4573(95)00020-H; block maxima, Ding and Suel 2011,
 *    https://doi.org/10.1145/2009916.2010048).
 * 3. A row that seems good enough is scored by what is stored of it, in double precision, its terms in ascending order: a score depends on
 *    nothing but the query and the row. */
#include <stdlib.h>
#include <string.h>

#include "native.h"

#define SLACK 1e-5 /* relative, of sums in single precision, which must not lose a row */
#define ROW_COST 64 /* postings that are added up in the time in which one row is scored by itself */

struct postings {
    const int64_t *starts; /* of rows */
    const void *terms;
    const uint8_t *codes;
    const float *scales;
    const int64_t *block_lists; /* the first list of each block */
    const uint32_t *list_terms;
    const int64_t *list_starts;
    const float *list_largest;
    const uint16_t *places;
    const uint8_t *posting_codes;
    int64_t rows, term_bytes, num_blocks, block_rows;
};

struct term_query {
    const int32_t *terms; /* ascending */
    const float *weights;
    const float *dense; /* by term, 0 for all others */
    int64_t num_terms;
    const uint8_t *allowed; /* by row; NULL: all */
    int64_t k, exhaustive;
    double factor; /* 1: exact; above: the score to be reached is taken for so much higher than it is */
};

struct found {
    float *heap; /* the k best scores, of all segments so far, the least first */
    int64_t heap_size;
    float *scores;
    int64_t *rows;
    int64_t count, capacity;
};

struct list {
    int64_t first, last;
    float weight;
    double bound;
};

struct bounded {
    int64_t block;
    double bound;
};

static int by_bound(const void *a, const void *b) {
    double x = ((const struct bounded *)a)->bound, y = ((const struct bounded *)b)->bound;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int by_list_bound(const void *a, const void *b) {
    double x = ((const struct list *)a)->bound, y = ((const struct list *)b)->bound;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int64_t find_list(const struct postings *p, int64_t block, uint32_t term) {
    int64_t low = p->block_lists[block], high = p->block_lists[block + 1], end = high;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (p->list_terms[middle] < term) low = middle + 1;
        else high = middle;
    }
    return low < end && p->list_terms[low] == term ? low : -1;
}

/* Write the lists of the query's terms in a block, in the order of terms; return how many there are. */
static int64_t take_lists(const struct postings *p, const struct term_query *q, int64_t block, struct list *lists, double *bound) {
    int64_t count = 0;
    *bound = 0;
    for (int64_t i = 0; i < q->num_terms; i++) {
        int64_t at = find_list(p, block, (uint32_t)q->terms[i]);
        if (at < 0) continue;
        double most = (double)q->weights[i] * (double)p->list_largest[at];
        *bound += most;
        if (lists) lists[count] = (struct list){p->list_starts[at], p->list_starts[at + 1], q->weights[i], most};
        count++;
    }
    return count;
}

static float score_row(const struct postings *p, const struct term_query *q, int64_t row) {
    int64_t first = p->starts[row], last = p->starts[row + 1];
    double sum = 0;
    if (p->term_bytes == 2) {
        const uint16_t *terms = p->terms;
        for (int64_t i = first; i < last; i++) sum += (double)q->dense[terms[i]] * (double)p->codes[i];
    } else {
        const uint32_t *terms = p->terms;
        for (int64_t i = first; i < last; i++) sum += (double)q->dense[terms[i]] * (double)p->codes[i];
    }
    return (float)(sum * (double)p->scales[row]);
}

/* What a score must reach to be among the best k so far. */
static double least(const struct term_query *q, const struct found *f) { return f->heap_size < q->k ? 0.0 : (double)f->heap[0]; }

static void remember(const struct term_query *q, struct found *f, float score) {
    float *heap = f->heap;
    int64_t at;
    if (f->heap_size < q->k) {
        for (at = f->heap_size++; at && heap[(at - 1) / 2] > score; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
        heap[at] = score;
        return;
    }
    if (score <= heap[0]) return;
    for (at = 0;;) {
        int64_t child = 2 * at + 1;
        if (child >= q->k) break;
        if (child + 1 < q->k && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= score) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = score;
}

/* Take a row in if it is good enough; return 0 where there is no room for it. */
static int offer(const struct postings *p, const struct term_query *q, struct found *f, int64_t row) {
    float score = score_row(p, q, row);
    if (score <= 0 || score < least(q, f)) return 1;
    if (f->count == f->capacity) { /* those that others have displaced make room */
        double floor = least(q, f);
        int64_t kept = 0;
        for (int64_t i = 0; i < f->count; i++)
            if (f->scores[i] >= floor) {
                f->scores[kept] = f->scores[i];
                f->rows[kept++] = f->rows[i];
            }
        f->count = kept;
        if (kept == f->capacity) return 0;
    }
    remember(q, f, score);
    f->scores[f->count] = score;
    f->rows[f->count++] = row;
    return 1;
}

/* Offer the rows of a block whose sum, with `more` at most to come, may be good enough. */
static int offer_block(const struct postings *p, const struct term_query *q, struct found *f, const float *sums, int64_t first, int64_t count,
                       double more, double factor) {
    for (int64_t start = 0; start < count; start += 64) {
        int64_t stop = start + 64 < count ? start + 64 : count;
        float floor = (float)(least(q, f) * factor * (1 - SLACK) - more);
        int any = 0;
        for (int64_t i = start; i < stop; i++) any |= (sums[i] > 0) & (sums[i] * p->scales[first + i] >= floor);
        if (!any) continue;
        for (int64_t i = start; i < stop; i++) {
            if (sums[i] <= 0 || (q->allowed && !q->allowed[first + i])) continue;
            if ((double)sums[i] * (double)p->scales[first + i] < least(q, f) * factor * (1 - SLACK) - more) continue;
            if (!offer(p, q, f, first + i)) return 0;
        }
    }
    return 1;
}

static int64_t count_hopeful(const struct postings *p, const float *sums, int64_t first, int64_t count, float floor) {
    int64_t hopeful = 0;
    for (int64_t i = 0; i < count; i++) hopeful += (sums[i] > 0) & (sums[i] * p->scales[first + i] >= floor);
    return hopeful;
}

static void add_list(const struct postings *p, const struct list *list, float *sums) {
    for (int64_t i = list->first; i < list->last; i++) sums[p->places[i]] += list->weight * (float)p->posting_codes[i];
}

/* Search one block; return 0 where there is no room. */
static int search_block(const struct postings *p, const struct term_query *q, struct found *f, int64_t block, struct list *lists, float *sums) {
    int64_t first = block * p->block_rows;
    int64_t count = p->rows - first < p->block_rows ? p->rows - first : p->block_rows;
    double left, more = 0;
    int64_t num_lists = take_lists(p, q, block, lists, &left), postings = 0;
    double factor = q->exhaustive ? 1.0 : q->factor;
    for (int64_t i = 0; i < num_lists; i++) postings += lists[i].last - lists[i].first;
    int64_t counted = INT64_MAX;
    if (!q->exhaustive) qsort(lists, (size_t)num_lists, sizeof *lists, by_list_bound);
    memset(sums, 0, (size_t)count * sizeof *sums);
    for (int64_t i = 0; i < num_lists; i++) {
        double floor = least(q, f) * factor;
        /* A row that no list has met yet cannot get there any more: only those that one has met may, and perhaps few. To count them
         * pays where much is left to add up, and where it has become much less since they were counted. */
        if (!q->exhaustive && left < floor * (1 - SLACK) && postings > count / 2 && postings < counted / 2) {
            counted = postings;
            int64_t hopeful = count_hopeful(p, sums, first, count, (float)(floor * (1 - SLACK) - left));
            if (hopeful * ROW_COST < postings) {
                more = left;
                break;
            }
        }
        add_list(p, lists + i, sums);
        left -= lists[i].bound;
        postings -= lists[i].last - lists[i].first;
    }
    return offer_block(p, q, f, sums, first, count, more, more > 0 ? factor : 1.0); /* a whole sum is no guess */
}

/* Add a segment's rows to what was found; return 0, or -1 where `found` has too little room and -2 where there is too little memory. */
EXPORT int64_t embedkit_search_postings(const struct postings *p, const struct term_query *q, struct found *f) {
    int64_t result = -2;
    size_t rows = (size_t)(p->rows < p->block_rows ? p->rows : p->block_rows);
    struct bounded *blocks = malloc((size_t)p->num_blocks * sizeof *blocks);
    struct list *lists = malloc((size_t)(q->num_terms ? q->num_terms : 1) * sizeof *lists);
    float *sums = malloc(rows * sizeof *sums);
    if (blocks && lists && sums) {
        for (int64_t block = 0; block < p->num_blocks; block++) {
            blocks[block].block = block;
            take_lists(p, q, block, NULL, &blocks[block].bound);
        }
        if (!q->exhaustive) qsort(blocks, (size_t)p->num_blocks, sizeof *blocks, by_bound);
        result = 0;
        for (int64_t i = 0; i < p->num_blocks && !result; i++) {
            if (!q->exhaustive && blocks[i].bound < least(q, f) * q->factor * (1 - SLACK)) break;
            if (!search_block(p, q, f, blocks[i].block, lists, sums)) result = -1;
        }
    }
    free(sums);
    free(lists);
    free(blocks);
    return result;
}
