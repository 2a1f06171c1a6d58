/* Text to pieces of a WordPiece vocabulary, as the normalizer and the pre-tokenizer of BERT read it (Devlin et al. 2019,
 * https://arxiv.org/abs/1810.04805): words between white space and punctuation, of each the longest piece first.
 *
 * All of this is decided here for ASCII alone. A stretch between white space that holds anything else is looked up as a whole in a second
 * table, of stretches that somebody who knows Unicode has read before; one that is not there is named, and the caller adds it. */
#include <string.h>

#include "native.h"

enum { LETTER_OR_DIGIT, SPACE, PUNCTUATION, UNREAD };
#define WORD 256 /* bytes, at most, of the longest word that is cut into pieces */

/* Strings with open addressing: slots hold the number of an entry, or -1. */
struct strings {
    const uint8_t *bytes;
    const int32_t *starts; /* of each entry, and the end */
    int32_t *slots;
    int64_t mask; /* slots less one, a power of two */
    int64_t count;
};

struct wordpiece {
    struct strings first, following; /* pieces that begin a word, and those that go on (without their mark) */
    const int32_t *first_ids, *following_ids;
    struct strings stretches; /* stretches with other letters than ASCII has */
    const int32_t *stretch_starts, *stretch_ids; /* the tokens of each */
    const uint8_t *refused; /* (256,): 1 where a special token may begin: texts that hold one are the caller's */
    const uint8_t *special; /* special tokens one after the other, in small letters */
    const int32_t *special_starts;
    int64_t num_special, longest_piece, longest_word, longest_stretch, unknown, lower;
};

struct tokens {
    int32_t *ids;
    int64_t capacity, count;
    int32_t *lengths; /* of each text; -1 where the caller has to read it */
    int64_t *missing; /* first and last byte of stretches that are not there, up to so many */
    int64_t missing_capacity, num_missing;
};

#define SEED 14695981039346656037u
#define PRIME 1099511628211u

static inline uint64_t step(uint64_t hash, uint8_t byte) { return (hash ^ byte) * PRIME; } /* FNV-1a */
static inline uint64_t mixed(uint64_t hash) { return hash ^ (hash >> 29) ^ (hash >> 47); }

static uint64_t hash_of(const uint8_t *bytes, int64_t size) {
    uint64_t hash = SEED;
    for (int64_t i = 0; i < size; i++) hash = step(hash, bytes[i]);
    return hash;
}

static int32_t find(const struct strings *s, const uint8_t *bytes, int64_t size, uint64_t hash) {
    for (int64_t slot = mixed(hash) & s->mask;; slot = (slot + 1) & s->mask) {
        int32_t entry = s->slots[slot];
        if (entry < 0) return -1;
        int32_t start = s->starts[entry];
        if (s->starts[entry + 1] - start == size && !memcmp(s->bytes + start, bytes, size)) return entry;
    }
}

/* Put entries from number `from` on into the slots. */
EXPORT void embedkit_add_strings(struct strings *s, int64_t from) {
    for (int64_t entry = from; entry < s->count; entry++) {
        uint64_t hash = hash_of(s->bytes + s->starts[entry], s->starts[entry + 1] - s->starts[entry]);
        int64_t slot = mixed(hash) & s->mask;
        while (s->slots[slot] >= 0) slot = (slot + 1) & s->mask;
        s->slots[slot] = (int32_t)entry;
    }
}

static inline int kind_of(uint8_t c) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') return SPACE;
    if (c < ' ' || c >= 127) return UNREAD; /* control characters are taken out of a text, which may join what stands around them */
    int small = c | 32;
    return (c >= '0' && c <= '9') || (small >= 'a' && small <= 'z') ? LETTER_OR_DIGIT : PUNCTUATION;
}

static inline uint8_t small(uint8_t c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

static int is_special(const struct wordpiece *w, const uint8_t *text, int64_t left) {
    for (int64_t i = 0; i < w->num_special; i++) {
        const uint8_t *own = w->special + w->special_starts[i];
        int64_t size = w->special_starts[i + 1] - w->special_starts[i], same = 0;
        if (size > left) continue;
        while (same < size && small(text[same]) == own[same]) same++;
        if (same == size) return 1;
    }
    return 0;
}

/* Write the pieces of a word, and return how many: the longest first, or the unknown token alone. There is room for `size`. */
static int64_t pieces_of(const struct wordpiece *w, const uint8_t *word, int64_t size, int32_t *ids) {
    uint64_t hashes[WORD];
    int64_t count = 0;
    if (size > w->longest_word) {
        ids[0] = (int32_t)w->unknown;
        return 1;
    }
    for (int64_t start = 0; start < size;) {
        const struct strings *table = start ? &w->following : &w->first;
        int64_t reach = size - start < w->longest_piece ? size - start : w->longest_piece;
        uint64_t hash = SEED;
        for (int64_t i = 0; i < reach; i++) hashes[i] = hash = step(hash, word[start + i]);
        int32_t entry = -1;
        while (reach > 0 && (entry = find(table, word + start, reach, hashes[reach - 1])) < 0) reach--;
        if (entry < 0) {
            ids[0] = (int32_t)w->unknown;
            return 1;
        }
        ids[count++] = start ? w->following_ids[entry] : w->first_ids[entry];
        start += reach;
    }
    return count;
}

/* Read a text; return how many tokens it has, -1 where the caller has to read it, -2 where there is no room for it. */
static int64_t read_text(const struct wordpiece *w, const uint8_t *text, int64_t size, int64_t before, struct tokens *out) {
    uint8_t word[WORD];
    int64_t length = 0, count = 0, room = out->capacity - out->count, start = 0, counted = 0; /* before the stretch */
    int32_t *ids = out->ids + out->count;
    for (int64_t i = 0; i <= size; i++) {
        uint8_t c = i < size ? text[i] : ' ';
        if (c >= 128) {
            int64_t end = i;
            count = counted;
            while (end < size && kind_of(text[end]) != SPACE) {
                if (text[end] < 128 && (kind_of(text[end]) == UNREAD || (w->refused[text[end]] && is_special(w, text + end, size - end)))) return -1;
                end++;
            }
            if (end - start > w->longest_stretch) return -1;
            int32_t entry = find(&w->stretches, text + start, end - start, hash_of(text + start, end - start));
            if (entry < 0) {
                if (out->num_missing == out->missing_capacity) return -1;
                out->missing[2 * out->num_missing] = before + start;
                out->missing[2 * out->num_missing++ + 1] = before + end;
            } else {
                int64_t first = w->stretch_starts[entry], own = w->stretch_starts[entry + 1] - first;
                if (count + own > room) return -2;
                memcpy(ids + count, w->stretch_ids + first, own * sizeof *ids);
                count += own;
            }
            length = 0;
            counted = count;
            i = end; /* white space, or the end */
            start = end + 1;
            continue;
        }
        int kind = kind_of(c);
        if (kind == UNREAD || (w->refused[c] && i < size && is_special(w, text + i, size - i))) return -1;
        if (kind == LETTER_OR_DIGIT) {
            if (length < WORD) word[length] = w->lower ? small(c) : c;
            length++;
            continue;
        }
        if (length) {
            if (count + length + 1 > room) return -2;
            count += pieces_of(w, word, length, ids + count);
            length = 0;
        }
        if (kind == PUNCTUATION) {
            if (count + 1 > room) return -2;
            count += pieces_of(w, &c, 1, ids + count);
        } else {
            start = i + 1;
            counted = count;
        }
    }
    return count;
}

/* Read texts that are parted by zeros; return how many were read before there was no room. */
EXPORT int64_t embedkit_wordpiece(const struct wordpiece *w, const uint8_t *texts, int64_t size, struct tokens *out) {
    int64_t number = 0;
    for (int64_t start = 0; start <= size; number++) {
        const uint8_t *zero = memchr(texts + start, 0, size - start);
        int64_t end = zero ? zero - texts : size;
        int64_t count = read_text(w, texts + start, end - start, start, out);
        if (count == -2) break;
        out->lengths[number] = (int32_t)count;
        if (count > 0) out->count += count;
        start = end + 1;
    }
    return number;
}
