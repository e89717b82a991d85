/* What the entropy coders share: `_golomb.c` and `_rangecoder.c` include this first and `_extension.h` last.

   Streams stand in bytes with the first bit uppermost. The interpreter lock is kept: a call takes microseconds to
   milliseconds, and nobody can then change a buffer under it. Only the limited API of Python 3.11: one build serves every later
   version. Needs the builtins of gcc or clang. */

#ifndef EDGEMW_CODER_H
#define EDGEMW_CODER_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PAD_BYTES 32 /* zeros behind a copied payload, so that what is loaded near its end stays inside */
#define MAX_SIZE ((uint64_t)1 << 31)
#define NOWHERE UINT64_MAX
#define LOWEST UINT32_C(0x80000000) /* -2^31: the magnitude that only a negative symbol may have */

/* Where the C library can choose at load time, hot loops also exist for processors with BMI2. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define HOT __attribute__((target_clones("default", "arch=x86-64-v3")))
#endif
#endif
#ifndef HOT
#define HOT
#endif
#define INLINE static inline __attribute__((always_inline)) /* also into the copies of a HOT function */
#define APART static __attribute__((noinline))
#define RARE(condition) __builtin_expect(!!(condition), 0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BIG_ENDIAN64(word) __builtin_bswap64(word)
#define BIG_ENDIAN16(word) __builtin_bswap16(word)
#define LITTLE_ENDIAN64(word) (word)
#else
#define BIG_ENDIAN64(word) (word)
#define BIG_ENDIAN16(word) (word)
#define LITTLE_ENDIAN64(word) __builtin_bswap64(word)
#endif

static const char TRUNCATED[] = "truncated: the symbols end early";
static const char TRAILING[] = "trailing: bytes after the last symbol";
static const char COUNT[] = "count: more symbols than places";
static const char POSITION[] = "position: a symbol beyond the size";
static const char MAGNITUDE[] = "magnitude: a symbol outside 32 bits";
static const char MEMORY[] = "memory";
static const char MISUSE[] = "positions must increase below the size, and values not be zero";

static inline unsigned rice_parameter(uint64_t count, uint64_t size) {
    uint64_t ratio = (2 * size - count) * 77 / (320 * count);
    return ratio ? 64 - (unsigned)__builtin_clzll(ratio) : 0;
}

/* What is written: values that are not zero, at increasing positions; k is the Rice parameter. */
typedef struct {
    const uint32_t *positions;
    const int32_t *values;
    uint64_t count;
    unsigned k;
} Symbols;

/* The zeros between symbol i and the one before. */
INLINE uint32_t run_of(const Symbols *of, uint64_t i) {
    return i ? of->positions[i] - of->positions[i - 1] - 1 : of->positions[0];
}

INLINE uint32_t magnitude_of(int32_t value) { return value < 0 ? 0 - (uint32_t)value : (uint32_t)value; }

/* The part of the sum that is being made, and which of its places a symbol was added to: clearing and collecting then cost
   what was added and not how many places there are. */
#define TILE ((uint64_t)1 << 15)

typedef struct {
    uint64_t begin, end; /* its places */
    uint64_t touched[TILE / 64];
    uint32_t sums[TILE];
} Tile;

INLINE void add_to(Tile *tile, uint64_t position, uint32_t value) {
    uint64_t place = position - tile->begin;
    tile->sums[place] += value;
    tile->touched[place / 64] |= UINT64_C(1) << place % 64;
}

/* A copy of the payload before zeros, or NULL. */
static inline uint8_t *padded_copy(const Py_buffer *data) {
    uint8_t *bytes = PyMem_Malloc((size_t)data->len + PAD_BYTES);
    if (!bytes) return NULL;
    memcpy(bytes, data->buf, (size_t)data->len);
    memset(bytes + data->len, 0, PAD_BYTES);
    return bytes;
}

INLINE uint64_t load(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

/* The bits from `at` on, first bit uppermost; 57 or more of them, then zeros. */
INLINE uint64_t window(const uint8_t *bits, uint64_t at) { return BIG_ENDIAN64(load(bits + (at >> 3))) << (at & 7); }

/* A stream that is written from its beginning, into memory with 8 bytes to spare. */
typedef struct {
    uint8_t *next;
    uint64_t held; /* bits that do not fill a byte yet, first bit uppermost */
    unsigned used; /* how many, at most 7 between calls */
} Writer;

/* No branch depends on the bits: all that is held is stored every time, and what fills no byte is stored again. */
INLINE void put(Writer *to, uint64_t bits, unsigned width) { /* width is 0 to 56, no higher bit is set */
    to->used += width;
    to->held |= bits << 1 << (63 - to->used);
    uint64_t word = BIG_ENDIAN64(to->held);
    memcpy(to->next, &word, 8);
    to->next += to->used >> 3;
    to->held <<= to->used & 56;
    to->used &= 7;
}

/* Where the stream ends, the last byte filled with zeros. */
INLINE uint8_t *end_of(const Writer *to) { return to->next + (to->used != 0); }

#endif
