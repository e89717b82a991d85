/* The hot loops of edgemw/compression/rangecoder.py, which describes the format. Same bytes and same refusals as
   rangecoder_python.py.

   Memory is bounded by the length of the payload and by the size that the caller allocated, never by a number inside the
   payload: the fields of all symbols must be there before the first is read, and a symbol takes a bounded number of steps,
   whatever the bytes. Payloads are copied before zero bytes, more than one symbol takes, after which a reader looks whether
   it passed the end. */

#include "_coder.h"

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

#define HIDE(value) __asm__("" : "+r"(value)) /* from the compiler, which would make a branch of it */

static const char STATE[] = "state: bytes that no writer ends with";
static const char TOKEN[] = "token: an escape to a token that needs none";

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
    uint64_t places;      /* up to and with the next symbol, zeros included; 0 if it is not known, or there is none */
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
    word = BIG_ENDIAN16(word);
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
    uint8_t *bytes = padded_copy(data);
    if (!bytes) return MEMORY;
    in->bytes = bytes;
    in->left = in->until = reader->count = (uint64_t)count;
    in->paired = count >= PAIRED;
    start_tables(&reader->runs.table, &reader->magnitudes.table, (uint64_t)count, size, in->k);
    if (field_bits & 7 && (uint8_t)(bytes[in->at - 1] << (field_bits & 7))) return TRAILING;
    return start_states(in);
}

static void close_reader(Reader *reader) { PyMem_Free((void *)reader->cursor.bytes); }

static uint64_t symbols_in(const Reader *reader) { return reader->cursor.left; }

INLINE uint64_t next_position(const Reader *reader) { return reader->cursor.places - 1; /* NOWHERE for 0 */ }

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

INLINE const char *add_all(Reader *reader, int paired, Tile *tile, uint64_t size) {
    Cursor in = reader->cursor;
    const char *refusal;
    if (!in.places && in.left && (refusal = read_run(&in, reader, paired, size))) return refusal;
    while (in.places - 1 < tile->end) {
        uint32_t value = 0;
        if ((refusal = read_value(&in, reader, paired, &value))) return refusal;
        add_to(tile, in.places - 1, value);
        if (!--in.left) {
            in.places = 0;
            if ((refusal = check_end(in))) return refusal;
            break;
        }
        if ((refusal = read_run(&in, reader, paired, size))) return refusal;
    }
    reader->cursor = in;
    return NULL;
}

INLINE const char *add_symbols(Reader *reader, Tile *tile, uint64_t size) {
    if (reader->cursor.paired) return add_all(reader, 1, tile, size);
    return add_all(reader, 0, tile, size);
}

/* ---- writing ---- */

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

/* Writes the fields and takes notes. */
HOT static void note_steps(Symbols of, uint64_t size, Writer fields, Notes *notes) {
    Table runs, magnitudes;
    uint64_t until = 0, longer = 0;
    Block *block = notes->blocks;
    start_tables(&runs, &magnitudes, of.count, size, of.k);
    for (uint64_t i = 0; i < of.count; i++) {
        if (RARE(i == until)) {
            if (i) share_slots(&runs), share_slots(&magnitudes);
            *block++ = (Block){i, runs.shares, magnitudes.shares};
            until += block_after(i);
        }
        uint32_t run = run_of(&of, i);
        put(&fields, (run & ((UINT64_C(1) << of.k) - 1)) << 1 | (of.values[i] < 0), of.k + 1);
        uint32_t run_token = token_of(run >> of.k), magnitude_token = token_of(magnitude_of(of.values[i]) - 1);
        notes->steps[i] = (Step){(uint8_t)run_token, (uint8_t)magnitude_token};
        runs.counts[run_token] += SEEN;
        magnitudes.counts[magnitude_token] += SEEN;
        longer += (run_token >= runs.shares.escape) | (run_token >= DIRECT);
        longer += (magnitude_token >= magnitudes.shares.escape) | (magnitude_token >= DIRECT);
    }
    notes->last = block - 1;
    notes->word_bytes = 16 + 4 * of.count + 6 * longer; /* a number spills once for its token, and three times for other bits */
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

/* Writes backwards from `words` on, the last symbol first; returns where states and words begin. */
INLINE uint8_t *put_all(Symbols of, Notes notes, uint8_t *words, int paired) {
    uint32_t one = paired ? LEAST : 1, two = LEAST;
    const Block *block = notes.last;
    for (uint64_t i = of.count; i--;) {
        Step step = notes.steps[i];
        if (RARE(i < block->begin)) block--;
        put_number(paired ? &two : &one, &words, &block->magnitudes, step.magnitude, magnitude_of(of.values[i]) - 1);
        put_number(&one, &words, &block->runs, step.run, run_of(&of, i) >> of.k);
    }
    for (; one; one >>= 8) *--words = (uint8_t)one;
    for (unsigned i = 0; paired && i < 4; i++, two >>= 8) *--words = (uint8_t)two;
    return words;
}

HOT static uint8_t *put_symbols(Symbols of, Notes notes, uint8_t *words) {
    if (of.count < PAIRED) return put_all(of, notes, words, 0);
    return put_all(of, notes, words, 1);
}

static PyObject *joined(const uint8_t *fields, uint64_t field_bytes, const uint8_t *words, uint64_t word_bytes) {
    PyObject *packed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(field_bytes + word_bytes));
    if (!packed) return NULL;
    memcpy(PyBytes_AsString(packed), fields, field_bytes);
    memcpy(PyBytes_AsString(packed) + field_bytes, words, word_bytes);
    return packed;
}

static PyObject *write_symbols(const uint32_t *positions, const int32_t *values, uint64_t count, uint64_t size) {
    if (!count) return PyBytes_FromStringAndSize(NULL, 0);
    Symbols of = {positions, values, count, rice_parameter(count, size)};
    uint64_t field_bytes = (count * (of.k + 1) + 7) / 8;
    PyObject *packed = NULL;
    uint8_t *fields = PyMem_Malloc(field_bytes + sizeof(uint64_t)), *words = NULL;
    Notes notes = {PyMem_Malloc(count * sizeof(Step)), PyMem_Malloc((8 + count / BLOCK) * sizeof(Block)), NULL, 0};
    if (fields && notes.steps && notes.blocks) {
        note_steps(of, size, (Writer){fields, 0, 0}, &notes);
        words = PyMem_Malloc(notes.word_bytes);
    }
    if (words) {
        uint8_t *end = words + notes.word_bytes, *begin = put_symbols(of, notes, end);
        packed = joined(fields, field_bytes, begin, (uint64_t)(end - begin));
    } else PyErr_NoMemory();
    PyMem_Free(fields);
    PyMem_Free(notes.steps);
    PyMem_Free(notes.blocks);
    PyMem_Free(words);
    return packed;
}

#define NAME "_rangecoder"
#define DESCRIPTION "Adaptive range coding; see rangecoder.py."
#define INIT PyInit__rangecoder
#include "_extension.h"
