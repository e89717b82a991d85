/* The hot loops of edgemw/compression/golomb.py, which describes the format. Same bytes and same refusals as golomb_numpy.py.

   Memory is bounded by the length of the payload and by the size that the caller allocated, never by a number inside the
   payload: where the five streams begin is found by counting bits that are there, before any symbol is read. Payloads are
   copied before zeros, so that a 64-bit load at any bit of theirs stays inside.

   Streams are read for 56 symbols at a time, one stream after the other, and written whole, one after the other. So each
   loop is short and has hardly a branch that depends on the bits, which is where the time went. */

#include "_coder.h"

#define BATCH 56 /* symbols at most whose signs and lengths are inside one window */
#define WINDOW ((UINT64_C(1) << 56) - 1)
#define MAX_LENGTH 31
#define CHUNK 4 /* ones that are taken from a word without asking */
#define CHUNK_WIDTH 14 /* so many remainders of this width are inside one window */

/* ---- reading ---- */

typedef struct {
    const uint8_t *bits; /* ours, padded; NULL without symbols */
    uint64_t end;        /* in bits */
    uint64_t left;       /* symbols not yet in the batch */
    uint64_t runs, remainders, signs, lengths, mantissas; /* where each stream is read next, in bits */
    uint64_t places; /* up to and with the last symbol of the batch, zeros included */
    unsigned k;
    unsigned held, next; /* symbols in the batch, and which of them is next */
    uint32_t positions[BATCH + CHUNK], values[BATCH];
} Reader;

INLINE uint64_t ones_in(uint64_t word) {
    word -= (word >> 1) & UINT64_C(0x5555555555555555);
    word = (word & UINT64_C(0x3333333333333333)) + ((word >> 2) & UINT64_C(0x3333333333333333));
    word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (word * UINT64_C(0x0101010101010101)) >> 56;
}

/* The place behind the `count`-th one from `at` on, or NOWHERE. */
static uint64_t behind_ones(const Reader *in, uint64_t at, uint64_t count) {
    while (at < in->end) {
        uint64_t word = window(in->bits, at) & ~UINT64_C(0xff);
        uint64_t ones = ones_in(word);
        if (ones >= count) {
            for (; count > 1; count--) word &= ~(UINT64_C(1) << (63 - __builtin_clzll(word)));
            return at + (uint64_t)__builtin_clzll(word) + 1;
        }
        count -= ones;
        at += 56;
    }
    return NOWHERE;
}

/* Find the streams; afterwards every read of `left` symbols, at least one, is inside the payload. */
static const char *locate(Reader *in, uint64_t size) {
    uint64_t count = in->left, behind, rest;
    in->k = rice_parameter(count, size);
    if (count * (in->k + 3) > in->end) return TRUNCATED;
    in->remainders = behind_ones(in, 0, count);
    if (in->remainders == NOWHERE) return TRUNCATED;
    if (in->remainders - count > size >> in->k) return POSITION; /* so that no run below can overflow */
    in->signs = in->remainders + count * in->k;
    in->lengths = in->signs + count;
    behind = behind_ones(in, in->lengths, count);
    if (behind == NOWHERE) return TRUNCATED;
    in->mantissas = behind;
    behind += behind - in->lengths - count;
    if (behind > in->end) return TRUNCATED;
    rest = in->end - behind;
    if (rest >= 8 || window(in->bits, behind)) return TRAILING;
    return NULL;
}

static const char *open_reader(Reader *in, const Py_buffer *data, int64_t count, uint64_t size) {
    memset(in, 0, offsetof(Reader, positions));
    if (count < 0 || (uint64_t)count > size) return COUNT;
    if (count == 0) return data->len ? TRAILING : NULL;
    if (!(in->bits = padded_copy(data))) return MEMORY;
    in->end = 8 * (uint64_t)data->len;
    in->left = (uint64_t)count;
    return locate(in, size);
}

static void close_reader(Reader *in) { PyMem_Free((void *)in->bits); }

static uint64_t symbols_in(const Reader *in) { return in->left + in->held - in->next; }

/* As `window`, but the first bit is the lowest: the lowest one of a word is found and cleared faster. */
INLINE uint64_t mirrored_window(const uint8_t *bits, uint64_t at) {
    uint64_t word = LITTLE_ENDIAN64(load(bits + (at >> 3)));
    word = (word >> 1 & UINT64_C(0x5555555555555555)) | (word & UINT64_C(0x5555555555555555)) << 1;
    word = (word >> 2 & UINT64_C(0x3333333333333333)) | (word & UINT64_C(0x3333333333333333)) << 2;
    word = (word >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f)) | (word & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4;
    return word >> (at & 7);
}

/* How far behind `at` each of the next `count` ones is. Ends: `locate` saw them. Room for CHUNK more is needed. */
INLINE void find_ones(const uint8_t *bits, uint64_t at, unsigned count, uint32_t *ones) {
    for (uint32_t base = 0;; base += 56) {
        uint64_t word = mirrored_window(bits, at + base) & WINDOW;
        unsigned here = (unsigned)ones_in(word), taken = here < count ? here : count;
        for (unsigned i = 0; i < taken; i += CHUNK) {
            for (unsigned j = 0; j < CHUNK; j++, word &= word - 1)
                ones[i + j] = base + (unsigned)__builtin_ctzll(word | UINT64_C(1) << 63);
        }
        count -= taken;
        ones += taken;
        if (!count) return;
    }
}

INLINE uint32_t read_fixed(const uint8_t *bits, uint64_t at, unsigned width) {
    return (uint32_t)(window(bits, at) >> 1 >> (63 - width));
}

/* The positions of the next `count` symbols. 32 bits hold them, also those beyond the size: by the choice of k, count 2^k is less
   than size 77 / 80, and so are all remainders and symbols together; `locate` saw that what stands above is at most the size. */
INLINE const char *read_positions(Reader *in, unsigned count, uint64_t size) {
    uint32_t ones[BATCH + CHUNK]; /* ones[i] - i zeros stand before symbol i */
    uint64_t places = in->places;
    unsigned k = in->k;
    find_ones(in->bits, in->runs, count, ones);
    if (!k) {
        for (unsigned i = 0; i < count; i++) in->positions[i] = (uint32_t)(places + ones[i]);
    } else if (k <= CHUNK_WIDTH) {
        for (unsigned i = 0; i < count; i += CHUNK) {
            uint64_t word = window(in->bits, in->remainders + i * k);
            for (unsigned j = i; j < i + CHUNK; j++, word <<= k) {
                in->positions[j] = (uint32_t)(places + (word >> (64 - k)) + ((uint64_t)(ones[j] - j) << k));
                places += (word >> (64 - k)) + 1;
            }
        }
    } else {
        for (unsigned i = 0; i < count; i++, places++) {
            places += read_fixed(in->bits, in->remainders + i * k, k);
            in->positions[i] = (uint32_t)(places + ((uint64_t)(ones[i] - i) << k));
        }
    }
    in->places = (uint64_t)in->positions[count - 1] + 1;
    in->runs += ones[count - 1] + 1;
    in->remainders += count * k;
    return in->places > size ? POSITION : NULL; /* positions increase, so that none is beyond */
}

/* The values of the next `count` symbols, whose lengths are inside one window. Most magnitudes are 1: all are, at first. */
INLINE const char *read_values(Reader *in, unsigned count, uint64_t lengths) {
    uint64_t signs = window(in->bits, in->signs), mantissa_bits = 0, outside = 0;
    for (unsigned i = 0; i < BATCH; i++) in->values[i] = 1 - 2 * (uint32_t)(signs >> (63 - i) & 1);
    for (uint64_t zeros = ~lengths & WINDOW; zeros;) {
        unsigned at = (unsigned)__builtin_ctzll(zeros), i = at - (unsigned)mantissa_bits;
        if (i >= count) break;
        unsigned length = (unsigned)__builtin_ctzll(lengths >> at);
        uint32_t mantissa = read_fixed(in->bits, in->mantissas + mantissa_bits, length & MAX_LENGTH);
        uint32_t magnitude = UINT32_C(1) << (length & MAX_LENGTH) | mantissa, negative = in->values[i] >> 31;
        outside |= (uint64_t)(magnitude - negative) | (uint64_t)length << 26; /* 32 reaches bit 31 */
        in->values[i] = (magnitude ^ (0 - negative)) + negative;
        mantissa_bits += length;
        zeros &= WINDOW << (at + length);
    }
    in->signs += count;
    in->lengths += mantissa_bits + count;
    in->mantissas += mantissa_bits;
    return outside >> 31 ? MAGNITUDE : NULL;
}

/* Read the next symbols, of which there are some. */
INLINE const char *read_batch(Reader *in, uint64_t size) {
    uint64_t lengths = mirrored_window(in->bits, in->lengths) & WINDOW;
    unsigned count = (unsigned)ones_in(lengths);
    if (count > in->left) count = (unsigned)in->left;
    if (!count) return MAGNITUDE;
    const char *refusal = read_positions(in, count, size);
    in->left -= count;
    in->held = count;
    in->next = 0;
    return refusal ? refusal : read_values(in, count, lengths);
}

/* Why a payload is refused of which a magnitude is wrong: a position beyond the size is the graver fault. */
APART const char *graver_fault(Reader *in, uint64_t size) {
    while (in->left) {
        unsigned count = in->left < BATCH ? (unsigned)in->left : BATCH;
        if (read_positions(in, count, size)) return POSITION;
        in->left -= count;
    }
    return MAGNITUDE;
}

HOT static const char *list_symbols(Reader *in, uint64_t size, int64_t *positions, uint32_t *values) {
    while (in->left) {
        const char *refusal = read_batch(in, size);
        if (refusal) return refusal == MAGNITUDE ? graver_fault(in, size) : refusal;
        for (unsigned i = 0; i < in->held; i++) positions[i] = in->positions[i];
        memcpy(values, in->values, in->held * sizeof *values);
        positions += in->held;
        values += in->held;
    }
    return NULL;
}

INLINE uint64_t next_position(const Reader *in) { return in->next < in->held ? in->positions[in->next] : NOWHERE; }

INLINE const char *add_symbols(Reader *in, Tile *tile, uint64_t size) {
    for (;;) {
        unsigned next = in->next, held = in->held;
        if (held && in->positions[held - 1] < tile->end) {
            for (; next < held; next++) add_to(tile, in->positions[next], in->values[next]);
        } else {
            for (; next < held && in->positions[next] < tile->end; next++) add_to(tile, in->positions[next], in->values[next]);
        }
        in->next = next;
        if (next < held || !in->left) return NULL;
        const char *refusal = read_batch(in, size);
        if (refusal) return refusal;
    }
}

/* ---- writing ---- */

/* The last `width` bits of a number. */
typedef struct {
    uint64_t bits, width;
} Code;

INLINE unsigned length_of(uint32_t magnitude) { return 31 - (unsigned)__builtin_clz(magnitude); }

INLINE Code high_code(const Symbols *of, uint64_t i) { return (Code){1, (uint64_t)(run_of(of, i) >> of->k) + 1}; }

INLINE Code remainder_code(const Symbols *of, uint64_t i) { return (Code){run_of(of, i) & ((UINT32_C(1) << of->k) - 1), of->k}; }

INLINE Code sign_code(const Symbols *of, uint64_t i) { return (Code){(uint32_t)of->values[i] >> 31, 1}; }

INLINE Code length_code(const Symbols *of, uint64_t i) { return (Code){1, length_of(magnitude_of(of->values[i])) + 1}; }

INLINE Code mantissa_code(const Symbols *of, uint64_t i) {
    uint32_t magnitude = magnitude_of(of->values[i]);
    unsigned length = length_of(magnitude);
    return (Code){magnitude ^ UINT32_C(1) << length, length};
}

INLINE void put_code(Writer *to, Code code) {
    for (; code.width > 56; code.width -= 56) put(to, 0, 56);
    put(to, code.bits, (unsigned)code.width);
}

/* One stream. Four codes are put at once if they are short together, which most are. */
INLINE void put_stream(Writer *to, const Symbols *of, Code (*code_of)(const Symbols *, uint64_t)) {
    uint64_t i = 0;
    for (; i + 4 <= of->count; i += 4) {
        Code a = code_of(of, i), b = code_of(of, i + 1), c = code_of(of, i + 2), d = code_of(of, i + 3);
        uint64_t width = a.width + b.width + c.width + d.width;
        if (RARE(width > 56)) put_code(to, a), put_code(to, b), put_code(to, c), put_code(to, d);
        else put(to, ((a.bits << b.width | b.bits) << c.width | c.bits) << d.width | d.bits, (unsigned)width);
    }
    for (; i < of->count; i++) put_code(to, code_of(of, i));
}

/* The streams follow each other, so that one writer makes them all. Returns their end. */
HOT static uint8_t *write_streams(Symbols of, uint8_t *bytes) {
    Writer to = {bytes, 0, 0};
    put_stream(&to, &of, high_code);
    if (of.k) put_stream(&to, &of, remainder_code);
    put_stream(&to, &of, sign_code);
    put_stream(&to, &of, length_code);
    put_stream(&to, &of, mantissa_code);
    return end_of(&to);
}

static PyObject *write_symbols(const uint32_t *positions, const int32_t *values, uint64_t count, uint64_t size) {
    if (!count) return PyBytes_FromStringAndSize(NULL, 0);
    unsigned k = rice_parameter(count, size);
    uint64_t zeros = positions[count - 1] + 1 - count;
    uint32_t any = 0;
    for (uint64_t i = 0; i < count; i++) any |= magnitude_of(values[i]);
    uint64_t most_bits = (zeros >> k) + count * (k + 3 + 2 * length_of(any));
    uint8_t *bytes = PyMem_Malloc(most_bits / 8 + 1 + sizeof(uint64_t));
    if (!bytes) return PyErr_NoMemory();
    uint8_t *end = write_streams((Symbols){positions, values, count, k}, bytes);
    PyObject *packed = PyBytes_FromStringAndSize((char *)bytes, end - bytes);
    PyMem_Free(bytes);
    return packed;
}

#define NAME "_golomb"
#define DESCRIPTION "Zero-run Golomb-Rice coding; see golomb.py."
#define INIT PyInit__golomb
#include "_extension.h"
