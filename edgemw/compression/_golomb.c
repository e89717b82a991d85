/* The hot loops of edgemw/compression/golomb.py, which describes the format. Same bytes and same refusals as golomb_numpy.py.

   Memory is bounded by the length of the payload and by the size that the caller allocated, never by a number inside the
   payload: where the five streams begin is found by counting bits that are there, before any symbol is read. Payloads are
   copied behind 16 zero bytes, so that a 64-bit load at any bit of theirs stays inside. The interpreter lock is kept: a
   call takes tens of microseconds, and nobody can then change a buffer under it.

   Only the limited API of Python 3.11: one build serves every later version. Needs the builtins of gcc or clang. */

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define PAD_BYTES 16
#define MAX_SIZE ((uint64_t)1 << 31)
#define MAX_LENGTH 31
#define TILE ((uint64_t)1 << 14) /* places that are added at a time: 64 KiB stay in a near cache */
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

static const char TRUNCATED[] = "truncated: the symbols end early";
static const char TRAILING[] = "trailing: bytes after the last symbol";
static const char COUNT[] = "count: more symbols than places";
static const char POSITION[] = "position: a symbol beyond the size";
static const char MAGNITUDE[] = "magnitude: a symbol outside 32 bits";
static const char MEMORY[] = "memory";
static const char MISUSE[] = "positions must increase below the size, and values not be zero";

static unsigned rice_parameter(uint64_t count, uint64_t size) {
    uint64_t ratio = (2 * size - count) * 77 / (320 * count);
    return ratio ? 64 - (unsigned)__builtin_clzll(ratio) : 0;
}

/* ---- reading ---- */

typedef struct {
    const uint8_t *bits; /* ours, padded; NULL without symbols */
    uint64_t end;        /* in bits */
    uint64_t left;       /* symbols not yet read */
    unsigned k;
    uint64_t runs, remainders, signs, lengths, mantissas; /* where each stream is read next, in bits */
    uint64_t run_word, length_word;                       /* what `window` gave there, read bits shifted out; or 0 */
    uint64_t places; /* up to and with the next symbol, zeros included */
} Reader;

/* The bits from `at` on, first bit uppermost; 57 or more of them, then zeros. */
static inline uint64_t window(const uint8_t *bits, uint64_t at) {
    uint64_t word;
    memcpy(&word, bits + (at >> 3), 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word << (at & 7);
}

static inline uint64_t ones_in(uint64_t word) {
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

/* Copies `data` behind zeros and finds its streams. Free `in->bits` afterwards, whatever is returned. */
static const char *open_reader(Reader *in, const Py_buffer *data, int64_t count, uint64_t size) {
    memset(in, 0, sizeof *in);
    if (count < 0 || (uint64_t)count > size) return COUNT;
    if (count == 0) return data->len ? TRAILING : NULL;
    uint8_t *bits = PyMem_Malloc((size_t)data->len + PAD_BYTES);
    if (!bits) return MEMORY;
    memcpy(bits, data->buf, (size_t)data->len);
    memset(bits + data->len, 0, PAD_BYTES);
    in->bits = bits;
    in->end = 8 * (uint64_t)data->len;
    in->left = (uint64_t)count;
    return locate(in, size);
}

static inline uint64_t read_unary(const uint8_t *bits, uint64_t *at, uint64_t *word) {
    uint64_t zeros = 0;
    if (!*word) {
        while (!(*word = window(bits, *at))) { /* ends: `locate` saw the one */
            zeros += 57;
            *at += 57;
        }
    }
    unsigned more = (unsigned)__builtin_clzll(*word);
    *at += more + 1;
    *word = *word << more << 1;
    return zeros + more;
}

static inline uint64_t read_fixed(const uint8_t *bits, uint64_t *at, unsigned width) {
    uint64_t number = window(bits, *at) >> 1 >> (63 - width);
    *at += width;
    return number;
}

/* Go to the next symbol. */
static inline void read_run(Reader *in) {
    uint64_t high = read_unary(in->bits, &in->runs, &in->run_word);
    in->places += (high << in->k) + read_fixed(in->bits, &in->remainders, in->k) + 1;
}

/* The symbol's value, modulo 2^32. One that is outside 32 bits is noted in `fault`. */
static inline uint32_t read_value(Reader *in, const char **fault) {
    uint64_t negative = read_fixed(in->bits, &in->signs, 1);
    uint64_t length = read_unary(in->bits, &in->lengths, &in->length_word);
    if (length > MAX_LENGTH) {
        in->mantissas += length;
        *fault = MAGNITUDE;
        return 0;
    }
    uint32_t magnitude = (uint32_t)(UINT64_C(1) << length | read_fixed(in->bits, &in->mantissas, (unsigned)length));
    if (magnitude >= LOWEST && (magnitude > LOWEST || !negative)) *fault = MAGNITUDE;
    return (magnitude ^ (uint32_t)(0 - negative)) + (uint32_t)negative;
}

/* This loop and the next take the reader by value: its cursors then live in registers. */
HOT static const char *list_symbols(Reader in, uint64_t size, int64_t *positions, uint32_t *values) {
    const char *fault = NULL;
    for (uint64_t count = in.left, i = 0; i < count; i++) {
        read_run(&in);
        if (in.places > size) return POSITION;
        positions[i] = (int64_t)in.places - 1;
        values[i] = read_value(&in, &fault);
    }
    return fault;
}

/* Add the symbols before place `end` to `tile`, whose first place is `begin`. The reader stands before the next one. */
static inline const char *add_symbols(Reader *reader, uint64_t begin, uint64_t end, uint64_t size, uint32_t *tile) {
    const char *fault = NULL;
    Reader in = *reader;
    while (in.places <= end) {
        uint32_t value = read_value(&in, &fault);
        tile[in.places - 1 - begin] += value;
        if (!--in.left) {
            in.places = NOWHERE;
            break;
        }
        read_run(&in);
        if (in.places > size) return POSITION;
    }
    *reader = in;
    return fault;
}

/* ---- writing ---- */

typedef struct {
    uint8_t *next;
    uint64_t held; /* bits not yet stored, first bit uppermost */
    unsigned used; /* how many, below 64 between calls */
} Writer;

static Writer writer_at(uint8_t *bits, uint64_t at) {
    Writer writer = {bits + (at >> 3), 0, (unsigned)(at & 7)};
    return writer;
}

/* Words are or-ed into zeros, because the first and the last byte of a stream also belong to its neighbours. */
static inline void put(Writer *to, uint64_t bits, unsigned width) { /* width is 0 to 32 */
    unsigned room = 64 - to->used; /* at least 1 */
    if (width < room) {
        to->held |= bits << 1 << (room - width - 1);
        to->used += width;
        return;
    }
    uint64_t stored, word = to->held | bits >> (width - room);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(&stored, to->next, 8);
    stored |= word;
    memcpy(to->next, &stored, 8);
    to->next += 8;
    to->used = width - room;
    to->held = bits << 1 << (63 - to->used);
}

static inline void put_unary(Writer *to, uint64_t number) {
    for (; number >= 32; number -= 32) put(to, 0, 32);
    put(to, 1, (unsigned)number + 1);
}

static void finish(Writer *to) {
    for (; to->used; to->used = to->used > 8 ? to->used - 8 : 0, to->held <<= 8) *to->next++ |= (uint8_t)(to->held >> 56);
}

typedef struct {
    uint32_t position;
    int32_t value;
} Symbol;

static inline uint32_t magnitude_of(int32_t value) { return value < 0 ? 0 - (uint32_t)value : (uint32_t)value; }

static inline unsigned length_of(uint32_t magnitude) { return 31 - (unsigned)__builtin_clz(magnitude); }

HOT static PyObject *write_symbols(const Symbol *symbols, uint64_t count, uint64_t size) {
    if (!count) return PyBytes_FromStringAndSize(NULL, 0);
    unsigned k = rice_parameter(count, size);
    uint64_t high_bits = 0, length_bits = 0, bytes, next = 0;
    for (uint64_t i = 0; i < count; i++) {
        high_bits += (symbols[i].position - next) >> k;
        length_bits += length_of(magnitude_of(symbols[i].value));
        next = (uint64_t)symbols[i].position + 1;
    }
    bytes = (high_bits + 2 * length_bits + count * (k + 3) + 7) / 8;
    PyObject *packed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (!packed) return NULL;
    uint8_t *bits = (uint8_t *)PyBytes_AsString(packed);
    memset(bits, 0, bytes);
    uint64_t at = count + high_bits;
    Writer runs = writer_at(bits, 0), remainders = writer_at(bits, at), signs = writer_at(bits, at += count * k);
    Writer lengths = writer_at(bits, at += count), mantissas = writer_at(bits, at += count + length_bits);
    next = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t run = symbols[i].position - next;
        uint32_t magnitude = magnitude_of(symbols[i].value);
        unsigned length = length_of(magnitude);
        put_unary(&runs, run >> k);
        put(&remainders, run & ((UINT64_C(1) << k) - 1), k);
        put(&signs, symbols[i].value < 0, 1);
        put_unary(&lengths, length);
        put(&mantissas, magnitude ^ (UINT32_C(1) << length), length);
        next = (uint64_t)symbols[i].position + 1;
    }
    finish(&runs), finish(&remainders), finish(&signs), finish(&lengths), finish(&mantissas);
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
    Reader in;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*LOO:unpack", &data, &size, &positions_object, &values_object)) return NULL;
    if (view_of(positions_object, &positions, 8, PyBUF_WRITABLE)) goto no_positions;
    if (view_of(values_object, &values, 4, PyBUF_WRITABLE)) goto no_values;
    const char *refusal = MISUSE;
    in.bits = NULL;
    if (values.len / 4 == positions.len / 8 && size >= 0 && (uint64_t)size <= MAX_SIZE)
        refusal = open_reader(&in, &data, positions.len / 8, (uint64_t)size);
    if (!refusal) refusal = list_symbols(in, (uint64_t)size, positions.buf, values.buf);
    PyMem_Free((void *)in.bits);
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
        if (readers[i].left) read_run(&readers[i]);
        else readers[i].places = NOWHERE;
        if (readers[i].left && readers[i].places > size) return POSITION;
    }
    *count = 0;
    for (uint64_t begin = 0; begin < size; begin += TILE) {
        memset(tile, 0, sizeof tile);
        for (Py_ssize_t i = 0; i < parts; i++) {
            const char *refusal = add_symbols(&readers[i], begin, begin + TILE, size, tile);
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
        for (Py_ssize_t i = 0; i < number; i++) room += readers[i].left;
        if (room > (uint64_t)size + 1) room = (uint64_t)size + 1;
        Symbol *symbols = PyMem_Malloc((size_t)room * sizeof(Symbol));
        const char *refusal = symbols ? sum_readers(readers, number, (uint64_t)size, symbols, &count) : MEMORY;
        packed = refusal ? refuse(refusal) : write_symbols(symbols, count, (uint64_t)size);
        PyMem_Free(symbols);
    }
    for (Py_ssize_t i = 0; i < number; i++) PyMem_Free((void *)readers[i].bits);
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
    PyModuleDef_HEAD_INIT, "_golomb", "Zero-run Golomb-Rice coding; see golomb.py.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__golomb(void) { return PyModuleDef_Init(&MODULE); }
