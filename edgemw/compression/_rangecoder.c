/* The hot loops of edgemw/compression/rangecoder.py, which describes the format. Same bytes and same refusals as
   rangecoder_python.py.

   Memory is bounded by the length of the payload and by the size that the caller allocated, never by a number inside the
   payload: the fields of all symbols must be there before the first is read, and a symbol takes a bounded number of steps,
   whatever the bytes. Payloads are copied before zero bytes, so that what is loaded near their end stays inside. The
   interpreter lock is kept: a call is short, and nobody can then change a buffer under it.

   Only the limited API of Python 3.11: one build serves every later version. Needs the builtins of gcc or clang. */

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define PAD_BYTES 32 /* more than one symbol takes, after which a reader looks whether it passed the end */
#define MAX_SIZE ((uint64_t)1 << 31)
#define TILE ((uint64_t)1 << 14) /* places that are added at a time: 64 KiB stay in a near cache */
#define NOWHERE UINT64_MAX
#define LOWEST UINT32_C(0x80000000) /* -2^31: the magnitude that only a negative symbol may have */

#define DIRECT 16 /* numbers below have a token of their own */
#define TOKENS 72
#define TOKEN_BITS 7
#define SLOT_BITS 12
#define SLOT_COUNT (UINT32_C(1) << SLOT_BITS)
#define SEEN 32u /* what one token adds to its count */
#define LARGEST_TOTAL (1u << 17) /* of counts, after which they are halved */
#define RUN_PRIOR 1024
#define MAGNITUDE_PRIOR 64
#define FIRST_BLOCK 8
#define BLOCK 1024
#define PAIRED 1024 /* from so many symbols on, runs and magnitudes have a state each */
#define LEAST (UINT32_C(1) << 16)

/* Where the C library can choose at load time, hot loops also exist for processors with BMI2. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define HOT __attribute__((target_clones("default", "arch=x86-64-v3")))
#endif
#endif
#ifndef HOT
#define HOT
#endif
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#define RARE(condition) __builtin_expect(!!(condition), 0)
#define HIDE(value) __asm__("" : "+r"(value)) /* from the compiler, which would make a branch of it */

static const char TRUNCATED[] = "truncated: the symbols end early";
static const char TRAILING[] = "trailing: bytes after the last symbol";
static const char STATE[] = "state: bytes that no writer ends with";
static const char TOKEN[] = "token: an escape to a token that needs none";
static const char COUNT[] = "count: more symbols than places";
static const char POSITION[] = "position: a symbol beyond the size";
static const char MAGNITUDE[] = "magnitude: a symbol outside 32 bits";
static const char MEMORY[] = "memory";
static const char MISUSE[] = "positions must increase below the size, and values not be zero";

static unsigned rice_parameter(uint64_t count, uint64_t size) {
    uint64_t ratio = (2 * size - count) * 77 / (320 * count);
    return ratio ? 64 - (unsigned)__builtin_clzll(ratio) : 0;
}

/* ---- tables ---- */

typedef struct {
    uint16_t first, width; /* slots */
} Span;

typedef struct {
    uint32_t escape; /* the token without slots of its own: its span stands for it and all above */
    Span spans[TOKENS + 1];
} Shares;

typedef struct {
    uint32_t counts[TOKENS];
    Shares shares;
} Table;

/* One slot for each token up to the last one seen and for the escape; the others by the counts, what remains to the widest. */
static void share_slots(Table *table) {
    Span *spans = table->shares.spans;
    uint32_t top = TOKENS, total = 0, first = 0, widest = 0;
    while (!table->counts[top - 1]) top--;
    for (uint32_t i = 0; i < top; i++) total += table->counts[i];
    uint32_t scale = ((SLOT_COUNT - 1 - top) << 16) / total;
    for (uint32_t i = 0; i <= top; i++) {
        uint32_t width = 1 + (i < top ? table->counts[i] * scale >> 16 : 0);
        spans[i].width = (uint16_t)width;
        first += width;
        if (width > spans[widest].width) widest = i;
    }
    spans[widest].width = (uint16_t)(spans[widest].width + SLOT_COUNT - first);
    for (uint32_t i = first = 0; i <= top; first += spans[i++].width) spans[i].first = (uint16_t)first;
    table->shares.escape = top;
    if (total > LARGEST_TOTAL)
        for (uint32_t i = 0; i < top; i++) table->counts[i] >>= 1;
}

/* Counts as if `prior / SEEN` tokens had been seen that were geometric: each `ratio / 2^32` times the one before. */
static void start_table(Table *table, uint64_t prior, uint64_t ratio) {
    uint64_t rest = prior << 20;
    memset(table->counts, 0, sizeof table->counts);
    for (unsigned i = 0; i < DIRECT; i++) {
        uint64_t next = rest * ratio >> 32;
        table->counts[i] = (uint32_t)((rest - next) >> 20);
        rest = next;
    }
    share_slots(table);
}

static void start_tables(Table *runs, Table *magnitudes, uint64_t count, uint64_t size, unsigned k) {
    uint64_t none = ((size - count) << 32) / size; /* that a place holds no symbol; then 2^k of them */
    for (unsigned i = 0; i < k; i++) none = none * none >> 32;
    start_table(runs, RUN_PRIOR, none);
    start_table(magnitudes, MAGNITUDE_PRIOR, UINT64_C(1) << 31);
}

/* Slots are shared out again after 8, 16, 32 ... 1024, 2048, 3072 ... symbols. */
INLINE uint64_t block_after(uint64_t done) { return done < FIRST_BLOCK ? FIRST_BLOCK : done < BLOCK ? done : BLOCK; }

/* A number from DIRECT on: its length and the bit below the leading one are in the token, the rest follows. */
INLINE uint32_t token_of(uint32_t number) {
    if (number < DIRECT) return number;
    unsigned length = 31 - (unsigned)__builtin_clz(number);
    return DIRECT + 2 * (length - 4) + (number >> (length - 1) & 1);
}

INLINE unsigned bits_below(uint32_t token) { return token < DIRECT ? 0 : 3 + (token - DIRECT) / 2; }

/* ---- reading ---- */

typedef struct {
    const uint8_t *bytes; /* ours, padded; NULL without symbols */
    uint64_t at, end;     /* the next word and the last, in bytes */
    uint64_t field;       /* the next one, in bits */
    uint64_t left;        /* symbols not yet read */
    uint64_t until;       /* `left` when tables are made again */
    uint64_t places;      /* up to and with the next symbol, zeros included */
    uint64_t negative;    /* is the next symbol? */
    uint32_t one, two;    /* states */
    unsigned k;
    int paired;
} Cursor;

typedef struct {
    Table table;
    uint8_t tokens[SLOT_COUNT];
} Decoder;

typedef struct {
    Cursor cursor;
    uint64_t count; /* symbols, read or not */
    Decoder runs, magnitudes;
} Reader;

/* The bits from `at` on, first bit uppermost; 57 or more of them, then zeros. */
INLINE uint64_t window(const uint8_t *bits, uint64_t at) {
    uint64_t word;
    memcpy(&word, bits + (at >> 3), 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word << (at & 7);
}

static void fill(Decoder *decoder) {
    const Shares *shares = &decoder->table.shares;
    for (uint32_t i = 0; i <= shares->escape; i++) memset(decoder->tokens + shares->spans[i].first, (int)i, shares->spans[i].width);
}

APART uint64_t next_block(uint64_t left, Reader *reader) {
    uint64_t block = block_after(reader->count - left);
    if (left < reader->count) share_slots(&reader->runs.table), share_slots(&reader->magnitudes.table);
    fill(&reader->runs), fill(&reader->magnitudes);
    return left > block ? left - block : 0;
}

/* Makes a state at least LEAST again. A pair always has a word for it; one that a writer began at 1 has none near its end. */
INLINE void refill(Cursor *in, uint32_t *state, int paired) {
    uint16_t word;
    memcpy(&word, in->bytes + in->at, 2);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap16(word);
#endif
    uint32_t mask = 0 - (uint32_t)(*state < LEAST && (paired || in->at < in->end));
    HIDE(mask);
    *state ^= (*state ^ (*state << 16 | word)) & mask;
    in->at += 2 & mask;
}

static uint32_t read_even(Cursor *in, uint32_t *state, unsigned width) { /* at most 16 */
    uint32_t bits = *state & ((UINT32_C(1) << width) - 1);
    *state >>= width;
    refill(in, state, in->paired);
    return bits;
}

/* The number of a token that other bits follow; NOWHERE if no writer writes them. */
APART uint64_t read_long(Cursor *in, uint32_t *state, Table *table, uint32_t token) {
    if (token == table->shares.escape) {
        token = read_even(in, state, TOKEN_BITS);
        if (token < table->shares.escape || token >= TOKENS) return NOWHERE;
    }
    table->counts[token] += SEEN;
    if (token < DIRECT) return token;
    unsigned width = bits_below(token);
    uint64_t number = 2 | ((token - DIRECT) & 1);
    if (width > 16) number = number << (width - 16) | read_even(in, state, width - 16);
    width = width > 16 ? 16 : width;
    return number << width | read_even(in, state, width);
}

INLINE uint64_t read_number(Cursor *in, uint32_t *state, int paired, Decoder *decoder) {
    uint32_t slot = *state & (SLOT_COUNT - 1), token = decoder->tokens[slot];
    Span span = decoder->table.shares.spans[token];
    uint32_t offset = slot - span.first;
    HIDE(offset); /* known before the product */
    *state = (*state >> SLOT_BITS) * span.width + offset;
    refill(in, state, paired);
    if (RARE(token >= DIRECT || token == decoder->table.shares.escape)) {
        Cursor aside = *in; /* so that no other address of the cursor is taken */
        uint32_t state_aside = *state;
        uint64_t number = read_long(&aside, &state_aside, &decoder->table, token);
        *in = aside;
        *state = state_aside;
        return number;
    }
    decoder->table.counts[token] += SEEN;
    return token;
}

/* Go to the next symbol. */
INLINE const char *read_run(Cursor *in, Reader *reader, int paired, uint64_t size) {
    if (RARE(in->at > in->end)) return TRUNCATED;
    if (RARE(in->left == in->until)) in->until = next_block(in->left, reader);
    uint64_t field = window(in->bytes, in->field) >> (63 - in->k);
    uint64_t high = read_number(in, &in->one, paired, &reader->runs);
    if (RARE(high > size)) return high == NOWHERE ? TOKEN : POSITION;
    in->field += in->k + 1;
    in->negative = field & 1;
    in->places += (high << in->k) + (field >> 1) + 1;
    return RARE(in->places > size) ? POSITION : NULL;
}

/* The symbol's value, modulo 2^32. */
INLINE const char *read_value(Cursor *in, Reader *reader, int paired, uint32_t *value) {
    uint64_t magnitude = read_number(in, paired ? &in->two : &in->one, paired, &reader->magnitudes) + 1;
    if (RARE(magnitude - 1 >= LOWEST - 1 + in->negative)) return magnitude ? MAGNITUDE : TOKEN;
    *value = ((uint32_t)magnitude ^ (uint32_t)(0 - in->negative)) + (uint32_t)in->negative;
    return NULL;
}

/* By value, like the readers of the loops below: an address would keep the states in memory. */
static const char *check_end(Cursor in) {
    if (in.at != in.end) return in.at < in.end ? TRAILING : TRUNCATED;
    return in.one == (in.paired ? LEAST : 1) && in.two == (in.paired ? LEAST : 0) ? NULL : STATE;
}

static const char *start_states(Cursor *in) {
    if (in->paired) {
        if (in->at + 7 > in->end) return TRUNCATED;
        in->two = (uint32_t)(window(in->bytes, in->at << 3) >> 32);
        in->at += 4;
        if (in->two < LEAST) return STATE;
    }
    uint64_t length = in->end - in->at;
    if (!length) return TRUNCATED;
    if (!in->bytes[in->at]) return STATE;
    length = length <= 4 ? length : 4 - (length & 1);
    in->one = (uint32_t)(window(in->bytes, in->at << 3) >> (64 - 8 * length));
    in->at += length;
    return NULL;
}

/* Copies `data` behind zeros and finds its parts. Free `cursor.bytes` afterwards, whatever is returned. */
static const char *open_reader(Reader *reader, const Py_buffer *data, int64_t count, uint64_t size) {
    Cursor *in = &reader->cursor;
    memset(in, 0, sizeof *in);
    if (count < 0 || (uint64_t)count > size) return COUNT;
    in->one = 1; /* what is left without symbols */
    if (count == 0) return data->len ? TRAILING : NULL;
    in->k = rice_parameter((uint64_t)count, size);
    uint64_t field_bits = (uint64_t)count * (in->k + 1);
    in->at = (field_bits + 7) / 8;
    in->end = (uint64_t)data->len;
    if (in->at > in->end) return TRUNCATED;
    uint8_t *bytes = PyMem_Malloc((size_t)data->len + PAD_BYTES);
    if (!bytes) return MEMORY;
    memcpy(bytes, data->buf, (size_t)data->len);
    memset(bytes + data->len, 0, PAD_BYTES);
    in->bytes = bytes;
    in->left = in->until = reader->count = (uint64_t)count;
    in->paired = count >= PAIRED;
    start_tables(&reader->runs.table, &reader->magnitudes.table, (uint64_t)count, size, in->k);
    if (field_bits & 7 && (uint8_t)(bytes[in->at - 1] << (field_bits & 7))) return TRAILING;
    return start_states(in);
}

INLINE const char *list_all(Reader *reader, uint64_t size, int paired, int64_t *positions, uint32_t *values) {
    Cursor in = reader->cursor;
    const char *refusal;
    for (; in.left; in.left--) {
        if ((refusal = read_run(&in, reader, paired, size))) return refusal;
        *positions++ = (int64_t)in.places - 1;
        if ((refusal = read_value(&in, reader, paired, values++))) return refusal;
    }
    return check_end(in);
}

HOT static const char *list_symbols(Reader *reader, uint64_t size, int64_t *positions, uint32_t *values) {
    if (reader->cursor.paired) return list_all(reader, size, 1, positions, values);
    return list_all(reader, size, 0, positions, values);
}

/* Add the symbols before place `end` to `tile`, whose first place is `begin`. The reader stands before the next one. */
INLINE const char *add_symbols(Reader *reader, int paired, uint64_t begin, uint64_t end, uint64_t size, uint32_t *tile) {
    Cursor in = reader->cursor;
    const char *refusal;
    while (in.places <= end) {
        uint32_t value = 0;
        if ((refusal = read_value(&in, reader, paired, &value))) return refusal;
        tile[in.places - 1 - begin] += value;
        if (!--in.left) {
            in.places = NOWHERE;
            if ((refusal = check_end(in))) return refusal;
            break;
        }
        if ((refusal = read_run(&in, reader, paired, size))) return refusal;
    }
    reader->cursor = in;
    return NULL;
}

INLINE const char *add_some(Reader *reader, uint64_t begin, uint64_t end, uint64_t size, uint32_t *tile) {
    if (reader->cursor.paired) return add_symbols(reader, 1, begin, end, size, tile);
    return add_symbols(reader, 0, begin, end, size, tile);
}

/* ---- writing ---- */

typedef struct {
    uint32_t position;
    int32_t value;
} Symbol;

typedef struct {
    uint8_t run, magnitude; /* tokens */
} Step;

typedef struct {
    uint64_t begin; /* its first symbol */
    Shares runs, magnitudes;
} Block;

/* What the forward pass leaves for the backward one: tables follow the symbols, states are written from the end. */
typedef struct {
    Step *steps;
    Block *blocks, *last;
    uint64_t word_bytes; /* that states and words take at most */
} Notes;

typedef struct {
    uint8_t *next;
    uint64_t held; /* bits not yet stored, first bit uppermost */
    unsigned used; /* how many, below 64 between calls */
} Fields;

INLINE uint32_t magnitude_of(int32_t value) { return value < 0 ? 0 - (uint32_t)value : (uint32_t)value; }

INLINE void put_field(Fields *to, uint64_t bits, unsigned width) { /* width is 1 to 32 */
    unsigned room = 64 - to->used; /* at least 1 */
    if (width < room) {
        to->held |= bits << (room - width);
        to->used += width;
        return;
    }
    uint64_t word = to->held | bits >> (width - room);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to->next, &word, 8);
    to->next += 8;
    to->used = width - room;
    to->held = bits << 1 << (63 - to->used);
}

static void finish_fields(Fields *to) {
    for (; to->used; to->used = to->used > 8 ? to->used - 8 : 0, to->held <<= 8) *to->next++ = (uint8_t)(to->held >> 56);
}

/* Writes the fields and takes notes. */
HOT static void note_steps(const Symbol *symbols, uint64_t count, uint64_t size, Fields fields, Notes *notes) {
    Table runs, magnitudes;
    unsigned k = rice_parameter(count, size);
    uint64_t next = 0, until = 0, longer = 0;
    Block *block = notes->blocks;
    start_tables(&runs, &magnitudes, count, size, k);
    for (uint64_t i = 0; i < count; i++) {
        if (RARE(i == until)) {
            if (i) share_slots(&runs), share_slots(&magnitudes);
            *block++ = (Block){i, runs.shares, magnitudes.shares};
            until += block_after(i);
        }
        uint32_t run = (uint32_t)(symbols[i].position - next);
        put_field(&fields, (run & ((UINT64_C(1) << k) - 1)) << 1 | (symbols[i].value < 0), k + 1);
        uint32_t run_token = token_of(run >> k), magnitude_token = token_of(magnitude_of(symbols[i].value) - 1);
        notes->steps[i] = (Step){(uint8_t)run_token, (uint8_t)magnitude_token};
        runs.counts[run_token] += SEEN;
        magnitudes.counts[magnitude_token] += SEEN;
        longer += (run_token >= runs.shares.escape) | (run_token >= DIRECT);
        longer += (magnitude_token >= magnitudes.shares.escape) | (magnitude_token >= DIRECT);
        next = (uint64_t)symbols[i].position + 1;
    }
    finish_fields(&fields);
    notes->last = block - 1;
    notes->word_bytes = 16 + 4 * count + 6 * longer; /* a number spills once for its token, and three times for other bits */
}

INLINE void spill(uint32_t *state, uint8_t **words, uint32_t full) {
    HIDE(full);
    (*words)[-2] = (uint8_t)(*state >> 8);
    (*words)[-1] = (uint8_t)*state;
    *words -= 2 * full;
    *state >>= 16 * full;
}

INLINE void put_even(uint32_t *state, uint8_t **words, uint32_t bits, unsigned width) { /* at most 16 */
    spill(state, words, *state >> (32 - width) != 0);
    *state = *state << width | (bits & ((UINT32_C(1) << width) - 1));
}

APART uint32_t put_long(uint32_t state, uint8_t **words, uint32_t number, int escaped) {
    uint32_t token = token_of(number);
    unsigned width = bits_below(token);
    if (width) put_even(&state, words, number, width > 16 ? 16 : width);
    if (width > 16) put_even(&state, words, number >> 16, width - 16);
    if (escaped) put_even(&state, words, token, TOKEN_BITS);
    return state;
}

INLINE void put_number(uint32_t *state, uint8_t **words, const Shares *shares, uint32_t token, uint32_t number) {
    if (RARE(token >= DIRECT || token >= shares->escape)) {
        *state = put_long(*state, words, number, token >= shares->escape);
        token = token < shares->escape ? token : shares->escape;
    }
    Span span = shares->spans[token];
    spill(state, words, *state >> (32 - SLOT_BITS) >= span.width);
    *state += *state / span.width * (SLOT_COUNT - span.width) + span.first;
}

INLINE uint32_t high_of(const Symbol *symbols, uint64_t i, unsigned k) {
    return (uint32_t)(symbols[i].position - (i ? (uint64_t)symbols[i - 1].position + 1 : 0)) >> k;
}

/* Writes backwards from `words` on, the last symbol first; returns where states and words begin. */
INLINE uint8_t *put_all(const Symbol *symbols, uint64_t count, unsigned k, Notes notes, uint8_t *words, int paired) {
    uint32_t one = paired ? LEAST : 1, two = LEAST;
    const Block *block = notes.last;
    for (uint64_t i = count; i--;) {
        Step step = notes.steps[i];
        if (RARE(i < block->begin)) block--;
        put_number(paired ? &two : &one, &words, &block->magnitudes, step.magnitude, magnitude_of(symbols[i].value) - 1);
        put_number(&one, &words, &block->runs, step.run, high_of(symbols, i, k));
    }
    for (; one; one >>= 8) *--words = (uint8_t)one;
    for (unsigned i = 0; paired && i < 4; i++, two >>= 8) *--words = (uint8_t)two;
    return words;
}

HOT static uint8_t *put_symbols(const Symbol *symbols, uint64_t count, unsigned k, Notes notes, uint8_t *words) {
    if (count < PAIRED) return put_all(symbols, count, k, notes, words, 0);
    return put_all(symbols, count, k, notes, words, 1);
}

static PyObject *joined(const uint8_t *fields, uint64_t field_bytes, const uint8_t *words, uint64_t word_bytes) {
    PyObject *packed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(field_bytes + word_bytes));
    if (!packed) return NULL;
    memcpy(PyBytes_AsString(packed), fields, field_bytes);
    memcpy(PyBytes_AsString(packed) + field_bytes, words, word_bytes);
    return packed;
}

static PyObject *write_symbols(const Symbol *symbols, uint64_t count, uint64_t size) {
    if (!count) return PyBytes_FromStringAndSize(NULL, 0);
    unsigned k = rice_parameter(count, size);
    uint64_t field_bytes = (count * (k + 1) + 7) / 8;
    PyObject *packed = NULL;
    uint8_t *fields = PyMem_Malloc(field_bytes + 8), *words = NULL;
    Notes notes = {PyMem_Malloc(count * sizeof(Step)), PyMem_Malloc((8 + count / BLOCK) * sizeof(Block)), NULL, 0};
    if (fields && notes.steps && notes.blocks) {
        note_steps(symbols, count, size, (Fields){fields, 0, 0}, &notes);
        words = PyMem_Malloc(notes.word_bytes);
    }
    if (words) {
        uint8_t *end = words + notes.word_bytes, *begin = put_symbols(symbols, count, k, notes, end);
        packed = joined(fields, field_bytes, begin, (uint64_t)(end - begin));
    } else PyErr_NoMemory();
    PyMem_Free(fields);
    PyMem_Free(notes.steps);
    PyMem_Free(notes.blocks);
    PyMem_Free(words);
    return packed;
}

/* ---- the module ---- */

/* A contiguous buffer of aligned items; sets an exception and returns -1 otherwise. */
static int view_of(PyObject *object, Py_buffer *view, Py_ssize_t item_bytes, int flags) {
    if (PyObject_GetBuffer(object, view, flags | PyBUF_ND)) return -1;
    if (view->itemsize == item_bytes && (uintptr_t)view->buf % (uintptr_t)item_bytes == 0) return 0;
    PyErr_Format(PyExc_TypeError, "expected aligned items of %zd bytes", item_bytes);
    PyBuffer_Release(view);
    return -1;
}

static void *refuse(const char *refusal) {
    if (refusal == MEMORY) PyErr_NoMemory();
    else PyErr_SetString(PyExc_ValueError, refusal);
    return NULL;
}

static PyObject *unpack(PyObject *module, PyObject *args) {
    Py_buffer data, positions, values;
    PyObject *positions_object, *values_object;
    long long size;
    Reader in; /* 9 KiB */
    (void)module;
    if (!PyArg_ParseTuple(args, "y*LOO:unpack", &data, &size, &positions_object, &values_object)) return NULL;
    if (view_of(positions_object, &positions, 8, PyBUF_WRITABLE)) goto no_positions;
    if (view_of(values_object, &values, 4, PyBUF_WRITABLE)) goto no_values;
    const char *refusal = MISUSE;
    in.cursor.bytes = NULL;
    if (values.len / 4 == positions.len / 8 && size >= 0 && (uint64_t)size <= MAX_SIZE)
        refusal = open_reader(&in, &data, positions.len / 8, (uint64_t)size);
    if (!refusal) refusal = list_symbols(&in, (uint64_t)size, positions.buf, values.buf);
    PyMem_Free((void *)in.cursor.bytes);
    PyBuffer_Release(&values);
    PyBuffer_Release(&positions);
    PyBuffer_Release(&data);
    if (refusal) return refuse(refusal);
    Py_RETURN_NONE;
no_values:
    PyBuffer_Release(&positions);
no_positions:
    PyBuffer_Release(&data);
    return NULL;
}

static PyObject *pack(PyObject *module, PyObject *args) {
    Py_buffer positions, values;
    PyObject *positions_object, *values_object, *packed = NULL;
    long long size;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOL:pack", &positions_object, &values_object, &size)) return NULL;
    if (view_of(positions_object, &positions, 8, PyBUF_SIMPLE)) return NULL;
    if (view_of(values_object, &values, 4, PyBUF_SIMPLE)) {
        PyBuffer_Release(&positions);
        return NULL;
    }
    const int64_t *place = positions.buf;
    const int32_t *value = values.buf;
    int64_t count = positions.len / 8, next = 0, i = 0;
    Symbol *symbols = PyMem_Malloc((size_t)count * sizeof(Symbol));
    int sound = symbols && values.len / 4 == count && size >= 0 && (uint64_t)size <= MAX_SIZE;
    for (; sound && i < count; next = place[i++] + 1) {
        symbols[i] = (Symbol){(uint32_t)place[i], value[i]};
        sound = place[i] >= next && place[i] < size && value[i];
    }
    if (!symbols) PyErr_NoMemory();
    else if (!sound) PyErr_SetString(PyExc_ValueError, MISUSE);
    else packed = write_symbols(symbols, (uint64_t)count, (uint64_t)size);
    PyMem_Free(symbols);
    PyBuffer_Release(&values);
    PyBuffer_Release(&positions);
    return packed;
}

/* The non-zeros of a tile in order, into room for as many and one more. Runs of zeros are left eight at a time; elsewhere no
   branch depends on a value. */
static inline uint64_t gather(const uint32_t *tile, uint64_t begin, Symbol *symbols) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < TILE; i += 8) {
        const uint32_t *t = tile + i;
        if (!(t[0] | t[1] | t[2] | t[3] | t[4] | t[5] | t[6] | t[7])) continue;
        for (unsigned j = 0; j < 8; j++) {
            symbols[count] = (Symbol){(uint32_t)(begin + i + j), (int32_t)t[j]};
            count += t[j] != 0;
        }
    }
    return count;
}

/* The sum of readers that stand before their first symbol. `symbols` has room for all of theirs and one more. */
HOT static const char *sum_readers(Reader *readers, Py_ssize_t parts, uint64_t size, Symbol *symbols, uint64_t *count) {
    uint32_t tile[TILE];
    for (Py_ssize_t i = 0; i < parts; i++) {
        Cursor *in = &readers[i].cursor;
        if (!in->left) in->places = NOWHERE;
        const char *refusal = in->left ? read_run(in, &readers[i], in->paired, size) : NULL;
        if (refusal) return refusal;
    }
    *count = 0;
    for (uint64_t begin = 0; begin < size; begin += TILE) {
        memset(tile, 0, sizeof tile);
        for (Py_ssize_t i = 0; i < parts; i++) {
            const char *refusal = add_some(&readers[i], begin, begin + TILE, size, tile);
            if (refusal) return refusal;
        }
        *count += gather(tile, begin, symbols + *count);
    }
    return NULL;
}

/* Opens a reader for each (data, count); sets an exception and returns -1 if one is not that, or is refused. */
static int open_readers(PyObject *parts, Py_ssize_t number, uint64_t size, Reader *readers) {
    for (Py_ssize_t i = 0; i < number; i++) {
        Py_buffer data;
        long long count;
        PyObject *part = PySequence_GetItem(parts, i);
        if (!part) return -1;
        if (!PyTuple_Check(part)) PyErr_SetString(PyExc_TypeError, "expected tuples of data and count");
        int sound = PyTuple_Check(part) && PyArg_ParseTuple(part, "y*L:merge", &data, &count);
        Py_DECREF(part);
        if (!sound) return -1;
        const char *refusal = open_reader(&readers[i], &data, count, size);
        PyBuffer_Release(&data);
        if (refusal) {
            refuse(refusal);
            return -1;
        }
    }
    return 0;
}

static PyObject *merge(PyObject *module, PyObject *args) {
    PyObject *parts, *packed = NULL;
    long long size;
    uint64_t room = 1, count = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "OL:merge", &parts, &size)) return NULL;
    Py_ssize_t number = PySequence_Size(parts);
    if (number < 0) return NULL;
    if (size < 0 || (uint64_t)size > MAX_SIZE) return refuse(MISUSE);
    Reader *readers = PyMem_Calloc((size_t)number, sizeof(Reader));
    if (!readers) return PyErr_NoMemory();
    if (!open_readers(parts, number, (uint64_t)size, readers)) {
        for (Py_ssize_t i = 0; i < number; i++) room += readers[i].cursor.left;
        if (room > (uint64_t)size + 1) room = (uint64_t)size + 1;
        Symbol *symbols = PyMem_Malloc((size_t)room * sizeof(Symbol));
        const char *refusal = symbols ? sum_readers(readers, number, (uint64_t)size, symbols, &count) : MEMORY;
        packed = refusal ? refuse(refusal) : write_symbols(symbols, count, (uint64_t)size);
        PyMem_Free(symbols);
    }
    for (Py_ssize_t i = 0; i < number; i++) PyMem_Free((void *)readers[i].cursor.bytes);
    PyMem_Free(readers);
    return packed ? Py_BuildValue("(LN)", (long long)count, packed) : NULL;
}

static PyMethodDef METHODS[] = {
    {"unpack", unpack, METH_VARARGS, "unpack(data, size, positions, values): fill int64[count] and int32[count]."},
    {"pack", pack, METH_VARARGS, "pack(positions, values, size): the bytes for int64[count] and int32[count]."},
    {"merge", merge, METH_VARARGS, "merge(parts, size): number of symbols of the sum of (data, count), and the bytes for them."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_rangecoder", "Adaptive range coding; see rangecoder.py.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rangecoder(void) { return PyModuleDef_Init(&MODULE); }
