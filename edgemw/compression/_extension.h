/* The functions that both extensions offer to Python. Included last by a coder, which has defined

       Reader                     made of zeros, it is closed
       open_reader, close_reader  a payload's parts are found, and its copy is freed; what was not opened well is closed too
       symbols_in                 that `add_symbols` has not added
       next_position              of the symbol that `add_symbols` adds next, or NOWHERE; known after the first call
       add_symbols                adds those before the tile's end
       list_symbols               all, for a reader that has just been opened
       write_symbols              the payload as bytes
       NAME, DESCRIPTION, INIT    of the module

   Functions that read return NULL or why they refuse. */

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
    (void)module;
    if (!PyArg_ParseTuple(args, "y*LOO:unpack", &data, &size, &positions_object, &values_object)) return NULL;
    if (view_of(positions_object, &positions, 8, PyBUF_WRITABLE)) goto no_positions;
    if (view_of(values_object, &values, 4, PyBUF_WRITABLE)) goto no_values;
    const char *refusal = MISUSE;
    Reader *in = PyMem_Calloc(1, sizeof(Reader));
    if (!in) refusal = MEMORY;
    else if (values.len / 4 == positions.len / 8 && size >= 0 && (uint64_t)size <= MAX_SIZE)
        refusal = open_reader(in, &data, positions.len / 8, (uint64_t)size);
    if (!refusal) refusal = list_symbols(in, (uint64_t)size, positions.buf, values.buf);
    if (in) close_reader(in);
    PyMem_Free(in);
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
    uint32_t *places = PyMem_Malloc((size_t)count * sizeof *places);
    int sound = places && values.len / 4 == count && size >= 0 && (uint64_t)size <= MAX_SIZE;
    for (; sound && i < count; next = place[i++] + 1) {
        places[i] = (uint32_t)place[i];
        sound = place[i] >= next && place[i] < size && value[i];
    }
    if (!places) PyErr_NoMemory();
    else if (!sound) PyErr_SetString(PyExc_ValueError, MISUSE);
    else packed = write_symbols(places, value, (uint64_t)count, (uint64_t)size);
    PyMem_Free(places);
    PyBuffer_Release(&values);
    PyBuffer_Release(&positions);
    return packed;
}

typedef struct {
    uint64_t count;
    uint32_t *positions; /* room for all symbols of the parts, and one more */
    int32_t *values;
} Sum;

/* Move what is in the tile to the end of the sum, in order, except what became zero again. */
INLINE void collect(Tile *tile, Sum *sum) {
    uint64_t count = sum->count;
    for (uint64_t begin = 0; begin < TILE; begin += 64) {
        for (uint64_t word = tile->touched[begin / 64]; word; word &= word - 1) {
            uint64_t place = begin + (uint64_t)__builtin_ctzll(word);
            sum->positions[count] = (uint32_t)(tile->begin + place);
            sum->values[count] = (int32_t)tile->sums[place];
            count += tile->sums[place] != 0;
            tile->sums[place] = 0;
        }
        tile->touched[begin / 64] = 0;
    }
    sum->count = count;
}

/* The sum of opened readers. Tiles without a symbol are passed over. */
HOT static const char *sum_readers(Reader *readers, Py_ssize_t parts, uint64_t size, Tile *tile, Sum *sum) {
    for (uint64_t begin = 0; begin != NOWHERE;) {
        uint64_t next = NOWHERE;
        for (Py_ssize_t i = 0; i < parts; i++) {
            const char *refusal = add_symbols(&readers[i], tile, size);
            if (refusal) return refusal;
            uint64_t position = next_position(&readers[i]);
            next = position < next ? position : next;
        }
        collect(tile, sum);
        begin = next;
        tile->begin = next & ~(TILE - 1);
        tile->end = tile->begin + TILE;
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

/* The pair that `merge` returns. */
static PyObject *sum_of(Reader *readers, Py_ssize_t number, uint64_t size) {
    uint64_t room = 0;
    PyObject *packed = NULL;
    for (Py_ssize_t i = 0; i < number; i++) room += symbols_in(&readers[i]);
    room = (room < size ? room : size) + 1;
    Sum sum = {0, PyMem_Malloc(room * sizeof *sum.positions), PyMem_Malloc(room * sizeof *sum.values)};
    Tile *tile = PyMem_Calloc(1, sizeof(Tile));
    const char *refusal = MEMORY;
    if (sum.positions && sum.values && tile) refusal = sum_readers(readers, number, size, tile, &sum);
    packed = refusal ? refuse(refusal) : write_symbols(sum.positions, sum.values, sum.count, size);
    PyMem_Free(tile);
    PyMem_Free(sum.positions);
    PyMem_Free(sum.values);
    return packed ? Py_BuildValue("(LN)", (long long)sum.count, packed) : NULL;
}

static PyObject *merge(PyObject *module, PyObject *args) {
    PyObject *parts, *result = NULL;
    long long size;
    (void)module;
    if (!PyArg_ParseTuple(args, "OL:merge", &parts, &size)) return NULL;
    Py_ssize_t number = PySequence_Size(parts);
    if (number < 0) return NULL;
    if (size < 0 || (uint64_t)size > MAX_SIZE) return refuse(MISUSE);
    Reader *readers = PyMem_Calloc((size_t)number, sizeof(Reader));
    if (!readers) return PyErr_NoMemory();
    if (!open_readers(parts, number, (uint64_t)size, readers)) result = sum_of(readers, number, (uint64_t)size);
    for (Py_ssize_t i = 0; i < number; i++) close_reader(&readers[i]);
    PyMem_Free(readers);
    return result;
}

static PyMethodDef METHODS[] = {
    {"unpack", unpack, METH_VARARGS, "unpack(data, size, positions, values): fill int64[count] and int32[count]."},
    {"pack", pack, METH_VARARGS, "pack(positions, values, size): the bytes for int64[count] and int32[count]."},
    {"merge", merge, METH_VARARGS, "merge(parts, size): number of symbols of the sum of (data, count), and the bytes for them."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, NAME, DESCRIPTION, 0, METHODS, SLOTS, NULL, NULL, NULL};

PyMODINIT_FUNC INIT(void) { return PyModuleDef_Init(&MODULE); }
