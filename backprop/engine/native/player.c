/* The native player: a list of operations on memory, played without the interpreter, many steps in one call.

   An operation is data, made in Python (lower.py): which function, which addresses, how many, how far apart. The functions are
   NumPy's inner loops, BLAS as SciPy carries it, and the loops at the top of this file; so the bits are those of NumPy's player.

   A step may be several lists. Threads play one each, in a call of `play` of their own, and wait for each other at MEET; or one
   call plays all of them by turns, each up to the next MEET. Nothing is written but where an operation says so. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#ifndef _WIN32
#include <sched.h>
#endif

#if defined(__GNUC__) && defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define PAUSE() _mm_pause()
#else
#define PAUSE() ((void)0)
#endif

/* ---- loops: over n entries, each operand with a stride of its own, as NumPy's ---------------------------------------- */

typedef void loop(char **at, const intptr_t *n, const intptr_t *strides, void *data);

#define CONVERT(name, from, to) CONVERT_BY(name, from, to, )
#define CONVERT_BY(name, from, to, as)                                                                            \
  static WIDE void name(char **at, const intptr_t *n, const intptr_t *strides, void *data) {                     \
    const char *in = at[0];                                                                                       \
    char *out = at[1];                                                                                            \
    intptr_t count = *n, si = strides[0], so = strides[1];                                                        \
    (void)data;                                                                                                   \
    if (si == sizeof(from) && so == sizeof(to))                                                                   \
      for (intptr_t i = 0; i < count; i++) ((to *)out)[i] = (to)(as((const from *)in)[i]);                            \
    else                                                                                                          \
      for (intptr_t i = 0; i < count; i++, in += si, out += so) *(to *)out = (to)(as*(const from *)in);               \
  }
CONVERT(copy1, uint8_t, uint8_t)
CONVERT(copy4, uint32_t, uint32_t)
CONVERT(copy8, uint64_t, uint64_t)
CONVERT_BY(bool_to_float, uint8_t, float, !!) /* a true one may be any byte but 0 */
CONVERT_BY(bool_to_double, uint8_t, double, !!)
CONVERT(float_to_double, float, double)
CONVERT(double_to_float, double, float)
CONVERT(long_to_float, int64_t, float)
CONVERT(long_to_double, int64_t, double)
CONVERT(int_to_float, int32_t, float)
CONVERT(int_to_double, int32_t, double)

/* in, mask, out */
#define MASKED(name, type)                                                                                        \
  static void name(char **at, const intptr_t *n, const intptr_t *strides, void *data) {                          \
    char *in = at[0], *mask = at[1], *out = at[2];                                                                \
    (void)data;                                                                                                   \
    for (intptr_t i = 0; i < *n; i++, in += strides[0], mask += strides[1], out += strides[2])                    \
      if (*mask) *(type *)out = *(const type *)in;                                                                \
  }
MASKED(masked1, uint8_t)
MASKED(masked4, uint32_t)
MASKED(masked8, uint64_t)

/* max(x, y) of NumPy on x86, with one number y: of two zeros it takes y, of NaN the NaN */
#define EXTREME(name, type, better)                                                                               \
  static WIDE void name(char **at, const intptr_t *n, const intptr_t *strides, void *data) {                     \
    const type *x = (const type *)at[0], y = *(const type *)at[1];                                                \
    type *out = (type *)at[2];                                                                                    \
    (void)strides, (void)data;                                                                                    \
    for (intptr_t i = 0, count = *n; i < count; i++) out[i] = x[i] better y || x[i] != x[i] ? x[i] : y;           \
  }
EXTREME(maximum_f, float, >)
EXTREME(maximum_d, double, >)
EXTREME(minimum_f, float, <)
EXTREME(minimum_d, double, <)

/* Neighboring calls of NumPy's as one loop, for rules; each operation rounds as it does alone. All dense. */
#define FUSED(type, letter, root)                                                                                 \
  /* a, x, y, out ← a x + y */                                                                                    \
  static WIDE void scaled_sum_##letter(char **at, const intptr_t *n, const intptr_t *strides, void *data) {      \
    const type a = *(const type *)at[0], *x = (const type *)at[1], *y = (const type *)at[2];                      \
    type *out = (type *)at[3];                                                                                    \
    (void)strides, (void)data;                                                                                    \
    for (intptr_t i = 0, count = *n; i < count; i++) out[i] = a * x[i] + y[i];                                    \
  }                                                                                                               \
  /* a, s, g, out ← a s + g² */                                                                                   \
  static WIDE void sum_of_squares_##letter(char **at, const intptr_t *n, const intptr_t *strides, void *data) {  \
    const type a = *(const type *)at[0], *s = (const type *)at[1], *g = (const type *)at[2];                      \
    type *out = (type *)at[3];                                                                                    \
    (void)strides, (void)data;                                                                                    \
    for (intptr_t i = 0, count = *n; i < count; i++) out[i] = a * s[i] + g[i] * g[i];                             \
  }                                                                                                               \
  /* a, m, s, e, phi: phi ← phi − a m / (√s + e) */                                                               \
  static WIDE void divided_step_##letter(char **at, const intptr_t *n, const intptr_t *strides, void *data) {    \
    const type a = *(const type *)at[0], *m = (const type *)at[1], *s = (const type *)at[2];                      \
    const type e = *(const type *)at[3];                                                                          \
    type *phi = (type *)at[4];                                                                                    \
    (void)strides, (void)data;                                                                                    \
    for (intptr_t i = 0, count = *n; i < count; i++) phi[i] = phi[i] - a * m[i] / (root(s[i]) + e);               \
  }
FUSED(float, f, sqrtf)
FUSED(double, d, sqrt)

static const struct { const char *name; loop *function; } loops[] = {
  {"maximum f", maximum_f}, {"maximum d", maximum_d}, {"minimum f", minimum_f}, {"minimum d", minimum_d},
  {"scaled_sum f", scaled_sum_f}, {"scaled_sum d", scaled_sum_d}, {"sum_of_squares f", sum_of_squares_f},
  {"sum_of_squares d", sum_of_squares_d}, {"divided_step f", divided_step_f}, {"divided_step d", divided_step_d},
  {"1", copy1}, {"4", copy4}, {"8", copy8}, {"?f", bool_to_float}, {"?d", bool_to_double}, {"fd", float_to_double},
  {"df", double_to_float}, {"lf", long_to_float}, {"ld", long_to_double}, {"if", int_to_float}, {"id", int_to_double},
  {"masked 1", masked1}, {"masked 4", masked4}, {"masked 8", masked8},
};

/* ---- operations ------------------------------------------------------------------------------------------------------- */

typedef void gemm(const char *, const char *, const int *, const int *, const int *, const void *, const void *, const int *,
                  const void *, const int *, const void *, void *, const int *);
typedef void gemv(const char *, const int *, const int *, const void *, const void *, const int *, const void *, const int *,
                  const void *, void *, const int *);
typedef void axpy(const int *, const void *, const void *, const int *, void *, const int *);
typedef float norm_of_floats(const int *, const void *, const int *);
typedef double norm_of_doubles(const int *, const void *, const int *);

#define VERSION 2 /* raised with each change of what follows, for a module that was built from an older file */

enum { LOOP, TILES, GEMM, GEMV, AXPY, NUMBER, NORM, ROWS, RECORD, LOSS, FINITE, MEET, STOP, PYTHON, PICK, MATMUL, HERE };

typedef struct {
  int64_t kind;
  void *function, *data;
  char *at[5];
  int64_t n[3], strides[3][5]; /* of the outer loops, and last of the inner one */
  int32_t size[3], lead[3];    /* of BLAS */
  int32_t scale, keep;         /* places among the numbers of the step */
  char trans[2], is_double, operands, pad[4];
} operation;

/* What the threads of a step share. */
typedef struct {
  atomic_int arrived, round, broken, lost;
  int committing, done; /* written by the first thread */
} team;

enum { MOST_LISTS = 64 };

typedef struct {
  const operation *ops, *end;
  PyObject *calls;
} list;

/* What a call is given. */
typedef struct {
  list lists[MOST_LISTS];
  int count; /* of the lists of this call */
  team *shared;
  int threads, first;
  Py_ssize_t batch, numbers, shards;
  const double *values;  /* (steps, numbers) */
  double *losses;        /* (steps, shards) */
  char *const *inputs;   /* the data: rows are picked by inputs[0], int64 (steps, batch) */
} play;

/* Where all threads wait for the last one; 0 where one of them has failed. */
static int meet(team *shared, int threads) {
  int round = atomic_load(&shared->round);
  if (atomic_fetch_add(&shared->arrived, 1) == threads - 1) {
    atomic_store(&shared->arrived, 0);
    atomic_fetch_add(&shared->round, 1);
    return !atomic_load(&shared->broken);
  }
  for (long spin = 0; atomic_load_explicit(&shared->round, memory_order_acquire) == round; spin++) {
    if (atomic_load_explicit(&shared->broken, memory_order_relaxed)) return 0;
    if (spin < 2000) PAUSE();
#ifndef _WIN32
    else sched_yield();
#endif
  }
  return !atomic_load(&shared->broken);
}

static void run_loop(const operation *o) {
  char *outer[5], *at[5];
  int operands = o->operands;
  memcpy(outer, o->at, sizeof outer);
  for (int64_t i = 0; i < o->n[0]; i++) {
    memcpy(at, outer, sizeof at);
    for (int64_t j = 0; j < o->n[1]; j++) {
      ((loop *)o->function)(at, (const intptr_t *)&o->n[2], (const intptr_t *)o->strides[2], o->data);
      for (int k = 0; k < operands; k++) at[k] += o->strides[1][k];
    }
    for (int k = 0; k < operands; k++) outer[k] += o->strides[0][k];
  }
}

/* The `count` loops that follow, tile by tile: what one of them writes, the next one reads while it is in cache. */
static void run_tiles(const operation *tiles) {
  int64_t count = tiles->n[0], tile = tiles->n[1], left = tiles->n[2];
  for (int64_t start = 0; left > 0; start += tile, left -= tile) {
    intptr_t n = left < tile ? left : tile;
    for (const operation *o = tiles + 1; o <= tiles + count; o++) {
      char *at[5];
      for (int k = 0; k < o->operands; k++) at[k] = o->at[k] + start * o->strides[2][k];
      ((loop *)o->function)(at, &n, (const intptr_t *)o->strides[2], o->data);
    }
  }
}

static void run_blas(const operation *o, const double *values) {
  double scale = values[o->scale], keep = values[o->keep];
  float short_scale = (float)scale, short_keep = (float)keep;
  const void *a = o->is_double ? (void *)&scale : (void *)&short_scale, *c = o->is_double ? (void *)&keep : (void *)&short_keep;
  static const int one = 1;
  const int *size = o->size, *lead = o->lead;
  switch (o->kind) {
    case GEMM:
      ((gemm *)o->function)(o->trans, o->trans + 1, size, size + 1, size + 2, a, o->at[0], lead, o->at[1], lead + 1, c, o->at[2],
                            lead + 2);
      break;
    case GEMV:
      ((gemv *)o->function)(o->trans, size, size + 1, a, o->at[0], lead, o->at[1], &one, c, o->at[2], &one);
      break;
    default: ((axpy *)o->function)(size, a, o->at[0], &one, o->at[1], &one);
  }
}

/* NumPy's own product, of one pair of matrices (m, k) and (k, n), with their strides */
static void run_matmul(const operation *o) {
  char *at[3] = {o->at[0], o->at[1], o->at[2]};
  const intptr_t sizes[4] = {1, (intptr_t)o->n[0], (intptr_t)o->n[1], (intptr_t)o->n[2]};
  intptr_t strides[9] = {0};
  for (int i = 0; i < 6; i++) strides[3 + i] = (intptr_t)o->strides[i / 2][i % 2];
  ((loop *)o->function)(at, sizes, strides, o->data);
}

/* min(1, most / (|g| + 1e-6)), what clipping by the norm multiplies g with */
static void run_norm(const operation *o, const double *values) {
  static const int one = 1;
  double norm = o->is_double ? ((norm_of_doubles *)o->function)(o->size, o->at[0], &one)
                             : (double)((norm_of_floats *)o->function)(o->size, o->at[0], &one);
  double factor = values[o->scale] / (norm + 1e-6);
  if (!(factor < 1.0)) factor = 1.0;
  if (o->is_double) *(double *)o->at[1] = factor;
  else *(float *)o->at[1] = (float)factor;
}

static void run_rows(const operation *o, const play *p, Py_ssize_t step) {
  const int64_t *picked = (const int64_t *)p->inputs[0] + step * p->batch + o->n[1];
  const char *from = p->inputs[o->n[2]];
  int64_t bytes = o->strides[0][0];
  for (int64_t i = 0; i < o->n[0]; i++) memcpy(o->at[0] + i * bytes, from + picked[i] * bytes, bytes);
}

/* out ← x[rows, columns]; 0 where a place is outside of x */
static int run_pick(const operation *o) {
  const char *rows = o->at[1], *columns = o->at[2];
  char *out = o->at[3];
  const int64_t *shape = o->strides[1], *apart = o->strides[2];
  for (int64_t i = 0; i < o->n[0]; i++, rows += apart[0], columns += apart[1], out += apart[2]) {
    int64_t row = *(const int64_t *)rows, column = *(const int64_t *)columns;
    row += row < 0 ? shape[0] : 0, column += column < 0 ? shape[1] : 0;
    if (row < 0 || row >= shape[0] || column < 0 || column >= shape[1]) return 0;
    memcpy(out, o->at[0] + row * o->strides[0][0] + column * o->strides[0][1], o->n[1] == 4 ? 4 : 8);
  }
  return 1;
}

/* Whether every number of a vector is finite: no exponent is all ones. */
static WIDE int finite_floats(const uint32_t *x, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; i++) bad |= (uint32_t)((x[i] & 0x7f800000u) == 0x7f800000u);
  return !bad;
}
static WIDE int finite_doubles(const uint64_t *x, int64_t n) {
  uint64_t bad = 0;
  for (int64_t i = 0; i < n; i++) bad |= (uint64_t)((x[i] & 0x7ff0000000000000u) == 0x7ff0000000000000u);
  return !bad;
}

enum { FAILED = -1, STOPPED, MET, ENDED };

/* A list from `*at` to the next MEET or its end; STOPPED where the step ends before anything has changed. */
static int run_part(const play *p, const list *own, const operation **at, Py_ssize_t step, PyThreadState **state) {
  const double *values = p->values + step * p->numbers;
  double *losses = p->losses + step * p->shards;
  for (const operation *o = *at; o < own->end; o++) switch (o->kind) {
      case LOOP: run_loop(o); break;
      case TILES: run_tiles(o); o += o->n[0]; break;
      case GEMM: case GEMV: case AXPY: run_blas(o, values); break;
      case MATMUL: run_matmul(o); break;
      case NUMBER:
        if (o->is_double) *(double *)o->at[0] = values[o->scale];
        else *(float *)o->at[0] = (float)values[o->scale];
        break;
      case NORM: run_norm(o, values); break;
      case ROWS: run_rows(o, p, step); break;
      case RECORD: memcpy(o->at[0], p->inputs[o->n[2]] + step * o->n[1] + o->n[0], o->strides[0][0]); break;
      case LOSS: { /* the loss of a shard; where it is not finite, the rest of the shard is left out */
        double L = o->is_double ? *(double *)o->at[0] : *(float *)o->at[0];
        losses[o->n[0]] = L;
        if (!isfinite(L)) o += o->n[1];
        break; }
      case FINITE:
        if (!(o->is_double ? finite_doubles((uint64_t *)o->at[0], o->n[0]) : finite_floats((uint32_t *)o->at[0], o->n[0])))
          atomic_store(&p->shared->lost, 1);
        break;
      case MEET: *at = o + 1; return MET;
      case STOP: { /* in every list, after a MEET: all read the same numbers, so all stop, or none */
        double L = 0;
        for (Py_ssize_t s = 0; s < p->shards; s++) L += losses[s];
        if (!isfinite(L) || (o->n[1] && atomic_load(&p->shared->lost))) return STOPPED;
        if (p->first && o->n[0]) p->shared->committing = 1;
        break; }
      case PYTHON: {
        PyEval_RestoreThread(*state);
        PyObject *result = PyObject_CallFunction(PyList_GetItem(own->calls, o->n[0]), "n", step);
        if (!result) atomic_store(&p->shared->broken, 1);
        Py_XDECREF(result);
        *state = PyEval_SaveThread();
        if (!result) return FAILED;
        break; }
      case PICK:
        if (!run_pick(o)) {
          PyEval_RestoreThread(*state);
          PyErr_SetString(PyExc_IndexError, "an index is out of bounds");
          *state = PyEval_SaveThread();
          if (p->shared) atomic_store(&p->shared->broken, 1);
          return FAILED;
        }
        break;
      default: break; /* HERE, where a LOSS goes on */
    }
  *at = own->end;
  return ENDED;
}

static int run_step(const play *p, Py_ssize_t step, PyThreadState **state) {
  const operation *at[MOST_LISTS];
  for (int i = 0; i < p->count; i++) at[i] = p->lists[i].ops;
  for (;;) {
    int outcome = ENDED;
    for (int i = 0; i < p->count; i++) {
      outcome = run_part(p, p->lists + i, at + i, step, state);
      if (outcome <= STOPPED) return outcome;
    }
    if (outcome == ENDED) return ENDED; /* all lists meet equally often */
    if (p->count < p->threads && !meet(p->shared, p->threads)) return FAILED;
  }
}

/* ---- one pass as a function of a row ---------------------------------------------------------------------------------- */

typedef struct {
  play p;
  char *row;
  Py_ssize_t bytes, rows, width;
  char kind[2];
} pass;

#define PASS "backprop.engine.native.pass"

/* The fast way of a call: 1 where `given` is what the pass takes and it has been played, 0 where it is something else. */
static int try_pass(const pass *own, PyObject *given) {
  Py_buffer view;
  PyThreadState *state = NULL; /* no operation of a pass calls Python */
  int usable = 0;
  if (PyObject_GetBuffer(given, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
    PyErr_Clear();
    return 0;
  }
  int one = view.ndim == 1 && own->rows == 1, fits = view.ndim == 2 && view.shape[0] == own->rows;
  if ((one || fits) && view.shape[view.ndim - 1] == own->width && view.format && !strcmp(view.format, own->kind)) {
    memcpy(own->row, view.buf, own->bytes);
    usable = own->kind[0] == 'd' ? finite_doubles((uint64_t *)own->row, own->bytes / 8) : finite_floats((uint32_t *)own->row, own->bytes / 4);
  }
  int dimensions = view.ndim;
  PyBuffer_Release(&view);
  return usable && run_step(&own->p, 0, &state) == ENDED ? dimensions : 0;
}

/* self is (pass, operations and what else must live, result (K,), result (1, K), the slow way). The interpreter lock is kept, so
   that calls from several threads come one after another. */
static PyObject *call_pass(PyObject *self, PyObject *given) {
  const pass *own = PyCapsule_GetPointer(PyTuple_GetItem(self, 0), PASS);
  int dimensions = own ? try_pass(own, given) : 0;
  PyObject *result = dimensions == 1 || dimensions == 2 ? PyTuple_GetItem(self, 1 + dimensions) : Py_None;
  if (!result || result == Py_None) return own ? PyObject_CallFunctionObjArgs(PyTuple_GetItem(self, 4), given, NULL) : NULL;
  static PyObject *copy;
  if (!copy && !(copy = PyUnicode_InternFromString("copy"))) return NULL;
  return PyObject_CallMethodObjArgs(result, copy, NULL);
}

static PyMethodDef pass_method = {"compiled", call_pass, METH_O, "A network as a function of a row: x (D,) -> f (K,)"};

static void free_pass(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, PASS)); }

static PyObject *make_pass(PyObject *self, PyObject *args) {
  PyObject *ops, *values, *row, *result, *results, *slow, *alive, *made = NULL;
  const char *kind;
  Py_ssize_t rows;
  Py_buffer view[3];
  (void)self;
  if (!PyArg_ParseTuple(args, "OOOnsOOOO", &ops, &values, &row, &rows, &kind, &result, &results, &slow, &alive)) return NULL;
  pass *own = PyMem_Calloc(1, sizeof *own);
  PyObject *of[] = {ops, values, row};
  int held = 0;
  while (own && held < 3 && !PyObject_GetBuffer(of[held], view + held, PyBUF_C_CONTIGUOUS)) held++;
  if (held == 3) { /* the arrays themselves are kept, so their memory stays where it is */
    own->p.lists[0].ops = view[0].buf, own->p.lists[0].end = own->p.lists[0].ops + view[0].len / (Py_ssize_t)sizeof(operation);
    own->p.count = 1, own->p.values = view[1].buf;
    own->row = view[2].buf, own->bytes = view[2].len, own->kind[0] = *kind;
    own->rows = rows, own->width = view[2].len / rows / (*kind == 'd' ? 8 : 4);
    PyObject *capsule = PyCapsule_New(own, PASS, free_pass);
    PyObject *keep = capsule ? PyTuple_Pack(4, ops, values, row, alive) : NULL;
    PyObject *of_call = keep ? PyTuple_Pack(5, capsule, keep, result, results, slow) : NULL;
    made = of_call ? PyCFunction_New(&pass_method, of_call) : NULL;
    if (!capsule) PyMem_Free(own);
    Py_XDECREF(capsule), Py_XDECREF(keep), Py_XDECREF(of_call);
  } else PyMem_Free(own);
  while (held--) PyBuffer_Release(view + held);
  return made;
}

/* ---- the module ------------------------------------------------------------------------------------------------------- */

/* Fill in the lists of a call, given as a sequence of (operations, calls); how many were held. */
static int take_lists(play *p, PyObject *lists, Py_buffer *held) {
  int n = (int)PyList_Size(lists);
  for (p->count = 0; p->count < n && n <= MOST_LISTS; p->count++) {
    PyObject *pair = PyList_GetItem(lists, p->count);
    list *own = p->lists + p->count;
    PyObject *ops;
    if (!PyArg_ParseTuple(pair, "OO!", &ops, &PyList_Type, &own->calls)) break;
    if (PyObject_GetBuffer(ops, held + p->count, PyBUF_C_CONTIGUOUS)) break;
    own->ops = held[p->count].buf, own->end = own->ops + held[p->count].len / (Py_ssize_t)sizeof(operation);
  }
  return p->count;
}

static PyObject *play_steps(PyObject *self, PyObject *args) {
  Py_buffer held[MOST_LISTS], shared, values, losses, inputs;
  PyObject *lists;
  play p;
  Py_ssize_t steps, done = 0;
  (void)self;
  if (!PyArg_ParseTuple(args, "O!w*iiy*w*y*nn", &PyList_Type, &lists, &shared, &p.threads, &p.first, &values, &losses, &inputs,
                        &p.batch, &steps))
    return NULL;
  p.shared = shared.buf, p.values = values.buf, p.losses = losses.buf, p.inputs = inputs.buf;
  p.numbers = steps ? values.len / 8 / steps : 0, p.shards = steps ? losses.len / 8 / steps : 0;
  if (take_lists(&p, lists, held) == PyList_Size(lists)) {
    PyThreadState *state = PyEval_SaveThread();
    int outcome = ENDED;
    for (; done < steps && outcome == ENDED; done += outcome == ENDED) {
      if (p.first) p.shared->committing = 0, p.shared->done = (int)done;
      outcome = run_step(&p, done, &state);
    }
    if (p.first) p.shared->done = (int)done;
    PyEval_RestoreThread(state);
  } else if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "too many lists");
  while (p.count--) PyBuffer_Release(held + p.count);
  PyBuffer_Release(&shared), PyBuffer_Release(&values), PyBuffer_Release(&losses), PyBuffer_Release(&inputs);
  return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(done);
}

static PyObject *own_loops(PyObject *self, PyObject *args) {
  PyObject *found = PyDict_New();
  (void)self, (void)args;
  for (size_t i = 0; found && i < sizeof loops / sizeof *loops; i++) {
    PyObject *address = PyLong_FromVoidPtr((void *)loops[i].function);
    if (!address || PyDict_SetItemString(found, loops[i].name, address)) Py_CLEAR(found);
    Py_XDECREF(address);
  }
  return found;
}

static PyMethodDef methods[] = {
  {"play", play_steps, METH_VARARGS, "play([(operations, calls)], team, threads, is_first, values, losses, inputs, batch, steps) -> steps done"},
  {"compiled", make_pass, METH_VARARGS, "compiled(operations, values, row, rows, kind, result, results, slow, alive) -> a function of a row"},
  {"loops", own_loops, METH_NOARGS, "The loops of this file: name -> address"},
  {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "player", "Plays operations without the interpreter.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_player(void) {
  PyObject *made = PyModule_Create(&module);
  if (made && (PyModule_AddIntConstant(made, "VERSION", VERSION) || PyModule_AddIntConstant(made, "OPERATION", sizeof(operation))))
    Py_CLEAR(made);
  return made;
}
