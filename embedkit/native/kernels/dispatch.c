/* Which kernels this processor can run, and the entry points that hand work on to them. Compiled for any processor. */
#include "common/maxsim.h"
#include "common/search.h"
#include "native.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* What sets of instructions need, beside what every processor of the kind has; CPU_FEATURES of dispatch.py, in this order. */
enum feature {
    AVX2 = 1 << 0, /* with all else of x86-64-v3: FMA, F16C, BMI, LZCNT, MOVBE */
    AVX_VNNI = 1 << 1,
    AVX512 = 1 << 2, /* with all else of x86-64-v4: F, BW, CD, DQ, VL */
    AVX512_VNNI = 1 << 3,
    AVX512_BF16 = 1 << 4,
    NEON = 1 << 5,
    DOTPROD = 1 << 6,
    AMX = 1 << 7,         /* tiles, and their products of bf16 and of int8; Linux lets this process use them */
    AMX_REFUSED = 1 << 8, /* the processor has them, and the system does not let this process use them */
};

#if defined(__x86_64__)
/* The registers whose contents the system keeps for a thread: bits 1 and 2 for 256 bits, 5 to 7 for 512. An instruction
 * would be refused where the processor has it and the system, or what a virtual machine runs on, does not. */
static uint64_t kept_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int has_all(uint32_t found, uint32_t wanted) { return (found & wanted) == wanted; }

/* Ask Linux (5.16 on) for the use of tiles, for all threads of this process, now and later. It refuses where a thread has a stack for
 * signals that is too small for them, where a sandbox forbids the call, and in versions that do not know it. */
static int tiles_are_allowed(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { GET_PERMISSIONS = 0x1022, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    long syscall(long number, ...); /* unistd.h has it for _GNU_SOURCE alone */
    unsigned long granted = 0;
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) return 0;
    return !syscall(SYS_arch_prctl, GET_PERMISSIONS, &granted) && granted >> TILE_DATA & 1;
#else
    return 0;
#endif
}

/* Tiles of 16 rows x 64 bytes, eight of them, as the kernels are written for. */
static int has_whole_tiles(void) {
    uint32_t a, b, c, d;
    return __get_cpuid_count(0x1d, 1, &a, &b, &c, &d) && a >> 16 >= 1024 && (b & 0xffff) >= 64 && b >> 16 >= 8 &&
           (c & 0xffff) >= 16;
}

static int64_t find_features(void) {
    uint32_t a, b, c, d, features = 0, more_a, more_b, more_c, more_d, extended_c;
    const uint32_t avx_bits = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_MOVBE;
    const uint32_t avx2_bits = bit_AVX2 | bit_BMI | bit_BMI2;
    const uint32_t avx512_bits = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, avx_bits) || !has_all((uint32_t)kept_registers(), 0x6)) return 0;
    if (!__get_cpuid(0x80000001, &a, &b, &extended_c, &d) || !has_all(extended_c, bit_LZCNT)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, avx2_bits)) return 0;
    features |= AVX2;
    if (!__get_cpuid_count(7, 1, &more_a, &more_b, &more_c, &more_d) || a < 1) more_a = 0;
    if (more_a & 1u << 4) features |= AVX_VNNI;
    if (!has_all(b, avx512_bits) || !has_all((uint32_t)kept_registers(), 0xe6)) return features;
    features |= AVX512;
    if (c & 1u << 11) features |= AVX512_VNNI;
    if (more_a & 1u << 5) features |= AVX512_BF16;
    const uint32_t amx_bits = 1u << 22 | 1u << 24 | 1u << 25; /* bf16, tiles, int8 */
    if (has_all(d, amx_bits) && has_whole_tiles())
        features |= has_all((uint32_t)kept_registers(), 3u << 17) && tiles_are_allowed() ? AMX : AMX_REFUSED;
    return features;
}
#elif defined(__aarch64__) && defined(__linux__)
static int64_t find_features(void) {
    const unsigned long dot_products = 1ul << 20; /* HWCAP_ASIMDDP */
    return getauxval(AT_HWCAP) & dot_products ? NEON | DOTPROD : NEON;
}
#elif defined(__aarch64__) && defined(__APPLE__)
static int64_t find_features(void) { return NEON | DOTPROD; } /* of every such processor of Apple's in a Mac */
#else
static int64_t find_features(void) { return 0; }
#endif

/* Return the features that this processor and this system have, a bit each. */
EXPORT int64_t embedkit_cpu_features(void) { return find_features(); }

EXPORT int64_t embedkit_kernels_version(void) { return KERNELS_VERSION; }

struct choice {
    int64_t needs;
    const struct kernels *of[PRECISIONS];
};

/* HAS_ says which sets the compiler could build. */
#ifdef HAS_generic
extern const struct kernels generic_fp32, generic_int8;
#endif
#ifdef HAS_avx2
extern const struct kernels avx2_fp32, avx2_int8;
#endif
#ifdef HAS_avx2vnni
extern const struct kernels avx2vnni_int8;
#endif
#ifdef HAS_avx512
extern const struct kernels avx512_fp32;
#endif
#ifdef HAS_avx512vnni
extern const struct kernels avx512vnni_int8;
#endif
#ifdef HAS_neon
extern const struct kernels neon_fp32, neon_int8;
#endif
#ifdef HAS_neondot
extern const struct kernels neondot_int8;
#endif
#ifdef HAS_amx
extern const struct kernels amx_bf16, amx_int8;
#endif
#ifdef HAS_avx512bf16
extern const struct kernels avx512bf16_bf16, avx512bf16_int8;
#endif

/* The best first. */
static const struct choice CHOICES[] = {
#ifdef HAS_amx
    {AVX512 | AVX512_VNNI | AVX512_BF16 | AMX, {[BF16] = &amx_bf16, [INT8] = &amx_int8}},
#endif
#ifdef HAS_avx512bf16
    {AVX512 | AVX512_VNNI | AVX512_BF16, {[BF16] = &avx512bf16_bf16, [INT8] = &avx512bf16_int8}},
#endif
#ifdef HAS_avx512vnni
    {AVX512 | AVX512_VNNI, {[INT8] = &avx512vnni_int8}},
#endif
#ifdef HAS_avx512
    {AVX512, {[FP32] = &avx512_fp32}},
#endif
#ifdef HAS_avx2vnni
    {AVX2 | AVX_VNNI, {[INT8] = &avx2vnni_int8}},
#endif
#ifdef HAS_avx2
    {AVX2, {[FP32] = &avx2_fp32, [INT8] = &avx2_int8}},
#endif
#ifdef HAS_neondot
    {NEON | DOTPROD, {[INT8] = &neondot_int8}},
#endif
#ifdef HAS_neon
    {NEON, {[FP32] = &neon_fp32, [INT8] = &neon_int8}},
#endif
#ifdef HAS_generic
    {0, {[FP32] = &generic_fp32, [INT8] = &generic_int8}},
#endif
};

/* Return the fastest kernels of a precision that need no more than `features`, which must be there; NULL: there are none. */
EXPORT const struct kernels *embedkit_kernels(int64_t features, int64_t precision) {
    for (size_t i = 0; i < sizeof CHOICES / sizeof *CHOICES; i++)
        if ((CHOICES[i].needs & features) == CHOICES[i].needs && CHOICES[i].of[precision])
            return CHOICES[i].of[precision];
    return NULL;
}

EXPORT void embedkit_pack(const struct kernels *k, const struct linear *w, const float *weights, void *to,
                          float *inverse, float *scale, int32_t *start, float *bias, float shift) {
    k->pack(w, weights, to, inverse, scale, start, bias, shift);
}

/* The product alone, for training in fp32: K and N are multiples of PANEL, and rows lie one after another, here and there. */
EXPORT void embedkit_multiply(const struct kernels *k, const struct linear *w, const float *input, int64_t rows,
                              float *to) {
    for (int64_t row = 0; row < rows; row += BLOCK_ROWS) {
        struct result result = {.sink = STORE, .to = to + row * w->columns, .stride = w->columns};
        int64_t left = rows - row;
        k->multiply(w, input + row * w->rows_in, NULL, w->rows_in, left < BLOCK_ROWS ? left : BLOCK_ROWS, &result);
    }
}

/* Score each query (Q, E) with its rows (Q, K) as (Q, K); nothing is written for a row below 0. `k` are kernels of fp32. */
EXPORT void embedkit_score_pairs(const struct kernels *k, const struct stored *v, const float *queries,
                                 int64_t num_queries, const int64_t *rows, int64_t per_query, float *scores) {
    k->set->score_pairs(v, queries, num_queries, rows, per_query, scores);
}

EXPORT int64_t embedkit_scan_bytes(int64_t num_queries, int64_t dimension) {
    struct scan_memory m;
    return divide_scan(&m, num_queries, dimension, NULL);
}

/* See `scan` in search.c; `k` are the kernels of fp32 that packed the queries. */
EXPORT void embedkit_scan(const struct kernels *k, const struct stored *v, const struct linear *queries, int64_t few,
                          const float *norms, int64_t first, int64_t last, const uint8_t *allowed, int64_t best,
                          float *least, float *scores, int64_t *found, char *memory) {
    k->set->scan(v, queries, few, norms, first, last, allowed, best, least, scores, found, memory);
}

EXPORT int64_t embedkit_maxsim_bytes(int64_t width, int64_t filled) {
    struct maxsim_memory m;
    return divide_maxsim(&m, width, filled, NULL);
}

/* See maxsim.c; `k` are kernels of fp32. */
EXPORT void embedkit_centroid_products(const struct kernels *k, const struct tokens *t, const struct token_query *q,
                                       float *to) {
    k->set->centroid_products(t, q, to);
}

EXPORT void embedkit_score_tokens(const struct kernels *k, const struct tokens *t, const struct token_query *q,
                                  const struct token_rows *rows, const int64_t *positions, int64_t count, float *scores,
                                  char *memory) {
    k->set->score_tokens(t, q, rows, positions, count, scores, memory);
}

EXPORT void embedkit_score_centroids(const struct kernels *k, const float *products, int64_t filled,
                                     const struct token_rows *rows, const int64_t *positions, int64_t count,
                                     float *scores) {
    k->set->score_centroids(products, filled, rows, positions, count, scores);
}
