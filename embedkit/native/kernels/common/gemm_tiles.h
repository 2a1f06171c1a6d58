/* The loop of gemm.h in tiles: blocks of 32 rows x 32 columns of sums, four tiles, beside two of inputs and two of weights, so that four
 * loads go with four products (a block of 16 x 64 would take five).
 *
 * Blocks go down the rows of a panel, which stays in the first-level cache, while inputs come from the second: of K = 384 in bf16 it has
 * 24 KiB. The sums of a block are taken to their place, some rows at each step, while the next block is multiplied. A block reads all of
 * its rows, also those behind the last one of the input: `rows_behind` of the kernels. Nothing of them is used.
 */
#define TILES_ROWS (2 * TILE_HEIGHT) /* of a block */
#define SUM_BYTES (PANEL_VECTORS * TILE_ROW_BYTES)

/* Sums on their way. */
struct finished {
    finish_t finish;
    const sum_t *sums;
    const struct columns *columns;
    struct place at;
    int64_t left; /* rows */
};

INLINE void finish_some(struct finished *f, int64_t rows) {
    f->at.rows = (int)(rows < f->left ? rows : f->left);
    if (!f->at.rows) return;
    f->finish(f->sums, f->columns, f->at);
    f->sums += f->at.rows * PANEL_REGS, f->left -= f->at.rows;
    f->at.row += f->at.rows, f->at.to += f->at.rows * f->at.stride;
}

/* Store the sums of the block before, when the first tiles of the next one are already being loaded, and begin with these: a store right
 * after the last product would wait for it. */
#define TURN_OVER(t, to, start, left, right)                                                                           \
    T_STORE(t, to, SUM_BYTES);                                                                                         \
    T_LOAD(t, start, 0);                                                                                               \
    DOT_TILES(t, left, right)

INLINE void gemm(const struct linear *w, const input_t *input, const struct unit *row_units, int64_t stride,
                 int64_t rows, const struct result *result) {
    int64_t units = padded(w->rows_in) / PER_UNIT, steps = units * 4 / TILE_ROW_BYTES;
    int64_t number = result->sink == ADD ? sizeof(float) : sizeof(output_t), row_bytes = stride * (int64_t)sizeof(input_t);
    int64_t blocks = (rows + TILES_ROWS - 1) / TILES_ROWS, share = steps > 1 ? (TILES_ROWS + steps - 2) / (steps - 1) : 0;
    /* The next panel comes into the second-level cache: of every line, since the processor does not bring its neighbour. */
    int64_t lines = (units * PANEL_BYTES / 64 + blocks * steps - 1) / (blocks * steps);
    _Alignas(64) sum_t sums[TILES_ROWS * PANEL_REGS], starts[2][PANEL_REGS];
    struct columns columns[2];
    struct finished done = {.finish = finish_of(result), .left = 0};
    char *to = (char *)sums;
    int side = 0;
    for (int64_t column = 0; column < padded(w->columns); column += PANEL_COLUMNS, side ^= 1) {
        const char *panel = (const char *)w->weight + column * units * 4, *next = panel + units * PANEL_BYTES;
        const char *start = (const char *)starts[side];
        struct columns *c = &columns[side];
        c->panel = panel;
        for (int i = 0; i < PANEL_REGS; i++) starts[side][i] = START_OF(w, column + i * REG_LANES);
        for (int i = 0; i < PANEL_VECTORS; i++) {
            c->bias[i] = v_loadu(w->bias + column + i * LANES);
            c->scale[i] = w->scale ? v_loadu(w->scale + column + i * LANES) : v_zero();
        }
        for (int64_t row = 0; row < rows; row += TILES_ROWS) {
            const char *upper = (const char *)(input + row * stride), *lower = upper + TILE_HEIGHT * row_bytes;
            const int two = rows - row > TILE_HEIGHT;
            T_LOAD(4, upper, row_bytes);
            T_LOAD(6, panel, PANEL_BYTES);
            T_LOAD(7, panel + TILE_ROW_BYTES, PANEL_BYTES);
            if (two) T_LOAD(5, lower, row_bytes);
            TURN_OVER(0, to, start, 4, 6);
            TURN_OVER(1, to + TILE_ROW_BYTES, start + TILE_ROW_BYTES, 4, 7);
            TURN_OVER(2, to + TILE_HEIGHT * SUM_BYTES, start, 5, 6);
            TURN_OVER(3, to + TILE_HEIGHT * SUM_BYTES + TILE_ROW_BYTES, start + TILE_ROW_BYTES, 5, 7);
            for (int64_t k = 1; k < steps; k++) {
                const char *right = panel + k * TILE_HEIGHT * PANEL_BYTES;
                T_LOAD(4, upper + k * TILE_ROW_BYTES, row_bytes);
                T_LOAD(6, right, PANEL_BYTES);
                T_LOAD(7, right + TILE_ROW_BYTES, PANEL_BYTES);
                if (two) T_LOAD(5, lower + k * TILE_ROW_BYTES, row_bytes);
                DOT_TILES(0, 4, 6);
                DOT_TILES(1, 4, 7);
                if (two) {
                    DOT_TILES(2, 5, 6);
                    DOT_TILES(3, 5, 7);
                }
                for (int64_t i = 0; i < lines; i++, next += 64) __builtin_prefetch(next, 0, 2);
                finish_some(&done, share);
            }
            finish_some(&done, TILES_ROWS);
            done.sums = sums, done.columns = c, done.left = rows - row < TILES_ROWS ? rows - row : TILES_ROWS;
            done.at = (struct place){.row = row,
                                     .stride = result->stride * number,
                                     .to = (char *)result->to + (row * result->stride + column) * number,
                                     .row_units = row_units,
                                     .peaks = result->peaks};
        }
    }
    T_STORE(0, to, SUM_BYTES);
    T_STORE(1, to + TILE_ROW_BYTES, SUM_BYTES);
    T_STORE(2, to + TILE_HEIGHT * SUM_BYTES, SUM_BYTES);
    T_STORE(3, to + TILE_HEIGHT * SUM_BYTES + TILE_ROW_BYTES, SUM_BYTES);
    finish_some(&done, TILES_ROWS);
}
