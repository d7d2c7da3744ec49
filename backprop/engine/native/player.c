/* The native player: a list of operations on memory, played without the interpreter, many steps in one call.

   An operation is data, made in Python (lower.py): which function, which addresses, how many, how far apart. The functions are
   NumPy's inner loops, BLAS as SciPy carries it, and the loops at the top of this file; so the bits are those of NumPy's player.

   A step may be several lists: threads play one each, in a call of `play` of their own, and wait for each other at MEET, all of
   them or those of a group. Nothing is written but where an operation says so. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#elif !defined(_WIN32)
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

#define VERSION 7 /* raised with each change of what follows, for a module that was built from an older file */

enum { LOOP, TILES, GEMM, GEMV, AXPY, NUMBER, NORM, ROWS, RECORD, LOSS, FINITE, MEET, STOP, PYTHON, PICK, MATMUL, HERE, DRAW };

typedef struct {
  int64_t kind;
  void *function, *data;
  char *at[5];
  int64_t n[3], strides[3][5]; /* of the outer loops, and last of the inner one */
  int32_t size[3], lead[3];    /* of BLAS */
  int32_t scale, keep;         /* places among the numbers of the step */
  char trans[2], is_double, operands, pad[4];
} operation;

enum { MOST_THREADS = 64 };

/* What the threads of a step share; `points` are where they meet: all of them at the first one, groups at the others. */
typedef struct {
  atomic_int broken, lost;
  int committing, done; /* written by the first thread */
  struct point { atomic_int arrived, round, asleep; int apart[13]; } points[1 + MOST_THREADS];
} team;

/* What a call is given. */
typedef struct {
  const operation *ops, *end;
  PyObject *calls; /* what Python is called for */
  team *shared;
  int first;
  Py_ssize_t batch, numbers, shards;
  const double *values;  /* (steps, numbers) */
  double *losses;        /* (steps, shards) */
  char *const *inputs;   /* the data: rows are picked by inputs[0], int64 (steps, batch) */
} play;

/* Sleep until somebody wakes this round's sleepers, or a little while; elsewhere than on Linux, let others have the core. */
static void nap(struct point *p, int round) {
#if defined(__linux__)
  struct timespec most = {0, 2000000};
  atomic_fetch_add(&p->asleep, 1);
  syscall(SYS_futex, &p->round, FUTEX_WAIT_PRIVATE, round, &most, NULL, 0);
  atomic_fetch_sub(&p->asleep, 1);
#elif !defined(_WIN32)
  (void)p, (void)round;
  sched_yield();
#endif
}

static void wake(struct point *p) {
#if defined(__linux__)
  if (atomic_load(&p->asleep)) syscall(SYS_futex, &p->round, FUTEX_WAKE_PRIVATE, MOST_THREADS, NULL, NULL, 0);
#else
  (void)p;
#endif
}

/* Where so many threads wait for the last of them; 0 where one has failed. They spin for about 50 µs, then they sleep: on a crowded
   machine who spins keeps the others from their cores. */
static int meet(team *shared, int64_t at, int64_t threads) {
  struct point *p = shared->points + at;
  int round = atomic_load(&p->round);
  if (atomic_fetch_add(&p->arrived, 1) == threads - 1) {
    atomic_store(&p->arrived, 0);
    atomic_fetch_add(&p->round, 1);
    wake(p);
    return !atomic_load(&shared->broken);
  }
  for (long spin = 0; atomic_load_explicit(&p->round, memory_order_acquire) == round; spin++) {
    if (atomic_load_explicit(&shared->broken, memory_order_relaxed)) return 0;
    if (spin < 2000) PAUSE();
    else nap(p, round);
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

/* a b, high word and low word */
static uint64_t multiply_long(uint64_t a, uint64_t b, uint64_t *low) {
  *low = a * b;
#if defined(__SIZEOF_INT128__)
  return (uint64_t)((unsigned __int128)a * b >> 64);
#else
  uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
  uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (uint32_t)middle;
  return a1 * b1 + (middle >> 32) + (other >> 32);
#endif
}

/* Philox 4x64-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"), the block of a counter */
static void philox(uint64_t counter, const uint64_t *key, uint64_t *x) {
  uint64_t k0 = key[0], k1 = key[1];
  x[0] = counter, x[1] = x[2] = x[3] = 0;
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B97F4A7C15u, k1 += 0xBB67AE8584CAA73Bu) {
    uint64_t low0, low1, high0 = multiply_long(0xD2E7470EE14C6C93u, x[0], &low0);
    uint64_t high1 = multiply_long(0xCA5A826395121157u, x[2], &low1);
    x[0] = high1 ^ x[1] ^ k0, x[2] = high0 ^ x[3] ^ k1, x[1] = low1, x[3] = low0;
  }
}

/* Numbers from [0, 1) as NumPy's Generator(Philox) draws them first, started from the key of the step */
static void run_draw(const operation *o, const play *p, Py_ssize_t step) {
  const uint64_t *key = (const uint64_t *)p->inputs[o->n[1]] + 2 * step;
  uint64_t x[4], counter = 0;
  double *doubles = (double *)o->at[0];
  float *floats = (float *)o->at[0];
  for (int64_t left = o->n[0], each = o->is_double ? 4 : 8; left > 0; left -= each, doubles += 4, floats += 8) {
    philox(++counter, key, x);
    for (int j = 0; j < (left < each ? left : each); j++)
      if (o->is_double) doubles[j] = (double)(x[j] >> 11) * (1.0 / 9007199254740992.0);
      else floats[j] = (float)((uint32_t)(x[j / 2] >> 32 * (j % 2)) >> 8) * (1.0f / 16777216.0f);
  }
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

enum { FAILED = -1, STOPPED, ENDED };

/* One step; STOPPED where it ends before anything has changed. */
static int run_step(const play *p, Py_ssize_t step, PyThreadState **state) {
  const double *values = p->values + step * p->numbers;
  double *losses = p->losses + step * p->shards;
  for (const operation *o = p->ops; o < p->end; o++) switch (o->kind) {
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
      case DRAW: run_draw(o, p, step); break;
      case RECORD: memcpy(o->at[0], p->inputs[o->n[2]] + step * o->n[1] + o->n[0], o->strides[0][0]); break;
      case LOSS: { /* the loss of a shard, which one thread notes; where it is not finite, the rest of the shard is left out */
        double L = o->is_double ? *(double *)o->at[0] : *(float *)o->at[0];
        if (!o->n[2]) losses[o->n[0]] = L;
        if (!isfinite(L)) o += o->n[1];
        break; }
      case FINITE:
        if (!(o->is_double ? finite_doubles((uint64_t *)o->at[0], o->n[0]) : finite_floats((uint32_t *)o->at[0], o->n[0])))
          atomic_store(&p->shared->lost, 1);
        break;
      case MEET:
        if (!meet(p->shared, o->n[0], o->n[1])) return FAILED;
        break;
      case STOP: { /* in every list, after a MEET of all: all read the same numbers, so all stop, or none */
        double L = 0;
        for (Py_ssize_t s = 0; s < p->shards; s++) L += losses[s];
        if (!isfinite(L) || (o->n[1] && atomic_load(&p->shared->lost))) return STOPPED;
        if (p->first && o->n[0]) p->shared->committing = 1;
        break; }
      case PYTHON: {
        PyEval_RestoreThread(*state);
        PyObject *result = PyObject_CallFunction(PyList_GetItem(p->calls, o->n[0]), "n", step);
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
  return ENDED;
}

/* ---- one pass as a function of rows ---------------------------------------------------------------------------------- */

enum { STRIP = 128 }; /* lines of memory that are written by turns */

/* out (columns, rows) ← in (rows, columns) */
#define TURN(name, type, four)                                                                                    \
  static void name(const type *in, type *out, intptr_t rows, intptr_t columns) {                                  \
    for (intptr_t first = 0; first < columns; first += STRIP) {                                                     \
      intptr_t end = first + STRIP < columns ? first + STRIP : columns, row = 0;                                \
      for (; row + 4 <= rows; row += 4) {                                                                         \
        intptr_t c = first;                                                                                       \
        for (; c + 4 <= end; c += 4) four(in + row * columns + c, columns, out + c * rows + row, rows);           \
        for (; c < end; c++)                                                                                      \
          for (int i = 0; i < 4; i++) out[c * rows + row + i] = in[(row + i) * columns + c];                      \
      }                                                                                                           \
      for (; row < rows; row++)                                                                                   \
        for (intptr_t c = first; c < end; c++) out[c * rows + row] = in[row * columns + c];                       \
    }                                                                                                             \
  }
#define FOUR_BY_FOUR(type)                                                                                        \
  static inline void four_of_##type(const type *in, intptr_t apart, type *out, intptr_t out_apart) {              \
    for (int i = 0; i < 4; i++)                                                                                   \
      for (int j = 0; j < 4; j++) out[j * out_apart + i] = in[i * apart + j];                                     \
  }
#if defined(__x86_64__) || defined(_M_X64)
static inline void four_of_float(const float *in, intptr_t apart, float *out, intptr_t out_apart) {
  __m128 a = _mm_loadu_ps(in), b = _mm_loadu_ps(in + apart), c = _mm_loadu_ps(in + 2 * apart), d = _mm_loadu_ps(in + 3 * apart);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(out, a), _mm_storeu_ps(out + out_apart, b);
  _mm_storeu_ps(out + 2 * out_apart, c), _mm_storeu_ps(out + 3 * out_apart, d);
}
#else
FOUR_BY_FOUR(float)
#endif
FOUR_BY_FOUR(double)
TURN(turn_floats, float, four_of_float)
TURN(turn_doubles, double, four_of_double)

/* One pass in memory of its own: X (width, rows) in columns, f (height, rows), and F (rows, height), which is f for one row. */
typedef struct {
  play p;
  char *X, *f, *F;
  Py_ssize_t rows, width, height;
  int is_double;
} pass;

#define PASS "backprop.engine.native.pass"

static void turn(int is_double, const char *in, char *out, Py_ssize_t rows, Py_ssize_t columns) {
  if (rows == 1 || columns == 1) memcpy(out, in, rows * columns * (is_double ? 8 : 4));
  else if (is_double) turn_doubles((const double *)in, (double *)out, rows, columns);
  else turn_floats((const float *)in, (float *)out, rows, columns);
}

/* F for these rows; 0 where they are not finite. */
static int play_pass(const pass *own, const char *rows, char *F) {
  PyThreadState *state = NULL; /* no operation of a pass calls Python */
  int64_t n = own->rows * own->width;
  turn(own->is_double, rows, own->X, own->rows, own->width);
  if (!(own->is_double ? finite_doubles((uint64_t *)own->X, n) : finite_floats((uint32_t *)own->X, n))) return 0;
  if (run_step(&own->p, 0, &state) != ENDED) return 0;
  if (F != own->f) turn(own->is_double, own->f, F, own->height, own->rows);
  return 1;
}

/* The dimensions of `given` where it is what the pass takes, which `view` then holds, else 0. */
static int taken(const pass *own, PyObject *given, Py_buffer *view) {
  if (PyObject_GetBuffer(given, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
    PyErr_Clear();
    return 0;
  }
  int dimensions = view->ndim;
  int usable = dimensions == 2 ? view->shape[0] == own->rows : dimensions == 1 && own->rows == 1;
  usable = usable && view->shape[dimensions - 1] == own->width && (uintptr_t)view->buf % (own->is_double ? 8 : 4) == 0;
  usable = usable && view->format && !strcmp(view->format, own->is_double ? "d" : "f");
  if (!usable) PyBuffer_Release(view);
  return usable ? dimensions : 0;
}

/* Play into `made`, an array of its own; 0 where the rows are not finite. */
static int play_into(const pass *own, const char *rows, PyObject *made) {
  Py_buffer to;
  if (!made || PyObject_GetBuffer(made, &to, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)) return 0;
  int played = play_pass(own, rows, own->F);
  if (played) memcpy(to.buf, own->F, to.len);
  PyBuffer_Release(&to);
  return played;
}

/* self is (pass, what must live, F (K,) or None, F (rows, K), the slow way). From the first operation until the outputs are out
   of the pass's memory the interpreter lock is kept, so that calls from several threads come one after another. To make their
   array comes before: NumPy lets other threads go on while it copies one. */
static PyObject *call_pass(PyObject *self, PyObject *given) {
  const pass *own = PyCapsule_GetPointer(PyTuple_GetItem(self, 0), PASS);
  static PyObject *copy;
  if (!own || (!copy && !(copy = PyUnicode_InternFromString("copy")))) return NULL;
  Py_buffer view;
  int dimensions = taken(own, given, &view);
  if (dimensions) {
    PyObject *made = PyObject_CallMethodObjArgs(PyTuple_GetItem(self, 1 + dimensions), copy, NULL);
    int played = play_into(own, view.buf, made);
    PyBuffer_Release(&view);
    if (played) return made;
    Py_XDECREF(made);
    if (PyErr_Occurred()) return NULL;
  }
  return PyObject_CallFunctionObjArgs(PyTuple_GetItem(self, 4), given, NULL);
}

static PyMethodDef pass_method = {"compiled", call_pass, METH_O, "A network as a function of rows: X (N, D) -> F (N, K)"};

static void free_pass(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, PASS)); }

static PyObject *make_pass(PyObject *self, PyObject *args) {
  PyObject *of[5], *one, *slow, *alive, *type, *made = NULL; /* operations, values, X (D, rows), f (K, rows), F (rows, K) */
  Py_ssize_t rows;
  Py_buffer view[5];
  pass own = {0}, *kept;
  int held = 0;
  (void)self;
  if (!PyArg_ParseTuple(args, "OOOOOnpOOOO", of, of + 1, of + 2, of + 3, of + 4, &rows, &own.is_double, &one, &slow, &alive, &type))
    return NULL;
  while (held < 5 && !PyObject_GetBuffer(of[held], view + held, PyBUF_C_CONTIGUOUS)) held++;
  if (held == 5) { /* the arrays themselves are kept, so their memory stays where it is */
    Py_ssize_t size = own.is_double ? 8 : 4;
    own.p.ops = view[0].buf, own.p.end = own.p.ops + view[0].len / (Py_ssize_t)sizeof(operation), own.p.values = view[1].buf;
    own.X = view[2].buf, own.f = view[3].buf, own.F = view[4].buf;
    own.rows = rows, own.width = view[2].len / size / rows, own.height = view[3].len / size / rows;
  }
  int all = held == 5;
  while (held--) PyBuffer_Release(view + held);
  if (!all || !(kept = PyMem_Malloc(sizeof own))) return all ? PyErr_NoMemory() : NULL;
  *kept = own;
  PyObject *capsule = PyCapsule_New(kept, PASS, free_pass);
  if (!capsule) PyMem_Free(kept);
  PyObject *keep = capsule ? PyTuple_Pack(6, of[0], of[1], of[2], of[3], of[4], alive) : NULL;
  PyObject *of_call = keep ? PyTuple_Pack(5, capsule, keep, one, of[4], slow) : NULL;
  PyObject *named = of_call ? PyObject_CallFunctionObjArgs(type, of_call, NULL) : NULL; /* a kind of tuple */
  if (named) made = PyCFunction_New(&pass_method, named);
  Py_XDECREF(capsule), Py_XDECREF(keep), Py_XDECREF(of_call), Py_XDECREF(named);
  return made;
}

/* Blocks of rows, which passes of one kind share: each takes the next one. `bad` is the first that is not finite, or the end. */
typedef struct {
  const char *X;
  char *F;
  atomic_llong next, bad;
} blocks;

typedef struct {
  blocks *all;
  const pass *own;
  PyThread_type_lock busy; /* until it has ended */
  atomic_int taken;        /* by its thread, or by the caller, who then does not wait for it */
} helper;

static void take_blocks(blocks *all, const pass *own) {
  Py_ssize_t size = own->is_double ? 8 : 4, in = own->rows * own->width * size, out = own->rows * own->height * size;
  for (;;) {
    long long i = atomic_fetch_add(&all->next, 1), bad = atomic_load(&all->bad);
    if (i >= bad) break; /* none before the first bad one is left out */
    if (play_pass(own, all->X + i * in, all->F + i * out)) continue;
    while (i < bad && !atomic_compare_exchange_weak(&all->bad, &bad, i)) {}
  }
}

static void free_helper(helper *h) {
  if (h->busy) PyThread_free_lock(h->busy);
  free(h);
}

static void help(void *given) {
  helper *h = given;
  if (atomic_exchange(&h->taken, 1)) free_helper(h); /* too late: nobody waits, and the blocks are done */
  else take_blocks(h->all, h->own), PyThread_release_lock(h->busy);
}

/* A thread that helps; NULL where there is none to be had. */
static helper *start_helper(blocks *all, const pass *own) {
  helper *h = calloc(1, sizeof *h);
  if (!h) return NULL;
  h->all = all, h->own = own;
  if ((h->busy = PyThread_allocate_lock()) && PyThread_acquire_lock(h->busy, 1) &&
      PyThread_start_new_thread(help, h) != (unsigned long)-1)
    return h;
  free_helper(h);
  return NULL;
}

static void end_helper(helper *h) {
  if (!h || !atomic_exchange(&h->taken, 1)) return; /* where the cores are busy it has not begun: it frees itself */
  PyThread_acquire_lock(h->busy, 1), PyThread_release_lock(h->busy);
  free_helper(h);
}

static const pass *pass_of(PyObject *function) {
  PyObject *self = PyCFunction_GetSelf(function);
  return self ? PyCapsule_GetPointer(PyTuple_GetItem(self, 0), PASS) : NULL;
}

/* Whole blocks of X (N, D) into F (N, K), by these passes, each in a thread; how many blocks, from the first on, are finite. */
static PyObject *play_blocks(PyObject *self, PyObject *args) {
  PyObject *passes;
  Py_buffer X, F;
  const pass *own[MOST_THREADS] = {NULL};
  helper *helpers[MOST_THREADS] = {NULL};
  (void)self;
  if (!PyArg_ParseTuple(args, "O!y*w*", &PyList_Type, &passes, &X, &F)) return NULL;
  Py_ssize_t threads = PyList_Size(passes), i;
  threads = threads < MOST_THREADS ? threads : MOST_THREADS;
  for (i = 0; i < threads && (own[i] = pass_of(PyList_GetItem(passes, i))); i++) {}
  blocks all = {.X = X.buf, .F = F.buf};
  if (threads && i == threads) {
    atomic_init(&all.next, 0), atomic_init(&all.bad, X.len / (own[0]->rows * own[0]->width * (own[0]->is_double ? 8 : 4)));
    PyThreadState *state = PyEval_SaveThread();
    for (i = 1; i < threads; i++) helpers[i] = start_helper(&all, own[i]);
    take_blocks(&all, own[0]);
    for (i = 1; i < threads; i++) end_helper(helpers[i]);
    PyEval_RestoreThread(state);
  }
  PyBuffer_Release(&X), PyBuffer_Release(&F);
  return PyErr_Occurred() ? NULL : PyLong_FromLongLong(threads ? (long long)atomic_load(&all.bad) : 0);
}

/* ---- the module ------------------------------------------------------------------------------------------------------- */

static PyObject *play_steps(PyObject *self, PyObject *args) {
  Py_buffer ops, shared, values, losses, inputs;
  play p;
  Py_ssize_t steps, done = 0;
  (void)self;
  if (!PyArg_ParseTuple(args, "y*O!w*iy*w*y*nn", &ops, &PyList_Type, &p.calls, &shared, &p.first, &values, &losses, &inputs, &p.batch,
                        &steps))
    return NULL;
  p.ops = ops.buf, p.end = p.ops + ops.len / (Py_ssize_t)sizeof(operation), p.shared = shared.buf;
  p.values = values.buf, p.losses = losses.buf, p.inputs = inputs.buf;
  p.numbers = steps ? values.len / 8 / steps : 0, p.shards = steps ? losses.len / 8 / steps : 0;
  PyThreadState *state = PyEval_SaveThread();
  int outcome = ENDED;
  for (; done < steps && outcome == ENDED; done += outcome == ENDED) {
    if (p.first) p.shared->committing = 0, p.shared->done = (int)done;
    outcome = run_step(&p, done, &state);
  }
  if (p.first) p.shared->done = (int)done;
  PyEval_RestoreThread(state);
  PyBuffer_Release(&ops), PyBuffer_Release(&shared), PyBuffer_Release(&values), PyBuffer_Release(&losses), PyBuffer_Release(&inputs);
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
  {"play", play_steps, METH_VARARGS, "play(operations, calls, team, is_first, values, losses, inputs, batch, steps) -> steps done"},
  {"compiled", make_pass, METH_VARARGS,
   "compiled(operations, values, X, f, F, rows, is_double, F of one, slow, alive, type) -> a function of rows"},
  {"blocks", play_blocks, METH_VARARGS, "blocks(functions of rows, X, F) -> whole blocks done"},
  {"loops", own_loops, METH_NOARGS, "The loops of this file: name -> address"},
  {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "player", "Plays operations without the interpreter.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_player(void) {
  PyObject *made = PyModule_Create(&module);
  if (made && (PyModule_AddIntConstant(made, "VERSION", VERSION) || PyModule_AddIntConstant(made, "OPERATION", sizeof(operation)) ||
               PyModule_AddIntConstant(made, "TEAM", sizeof(team))))
    Py_CLEAR(made);
  return made;
}
