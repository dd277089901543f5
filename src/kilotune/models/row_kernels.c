/* Passes over rows that a processor does once instead of torch's several: norms, rotary positions,
 * gated units, and what stands between the products of attention.
 *
 * Numbers are read and written in their own type and computed in float. The file includes itself
 * once for each type, so that both do the same. Every row is computed by one thread in one order:
 * results do not depend on how many threads there are.
 */
#ifndef NUMBER

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Sixteen numbers at once, in as many registers as the processor needs. */
enum { LANES = 16 };
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

/* Below this many numbers, waking the other threads takes longer than the work. */
#define PRAGMA(text) _Pragma(#text)
#define ROWS(numbers) PRAGMA(omp parallel for schedule(static) if ((numbers) > 16384))

static inline floats all(float value) { return value - (floats){0}; }

static inline floats chosen(integers where, floats yes, floats no) {
    return (floats)(((integers)yes & where) | ((integers)no & ~where));
}

static inline floats higher(floats a, floats b) { return chosen(a > b, a, b); }

/* The lanes from `first` on. */
static inline integers lanes_from(int first) {
    integers lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane >= first;
}

/* One half against the other, until one lane is left. */
#define FOLDED(lanes, with)                                                                       \
    do {                                                                                          \
        lanes = with(lanes, SWAPPED(lanes, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
        lanes = with(lanes, SWAPPED(lanes, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
        lanes = with(lanes, SWAPPED(lanes, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
        lanes = with(lanes, SWAPPED(lanes, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)); \
    } while (0)
#define SWAPPED(lanes, ...) __builtin_shufflevector(lanes, lanes, __VA_ARGS__)
#define PLUS(a, b) ((a) + (b))

static inline float sum_of(floats lanes) {
    FOLDED(lanes, PLUS);
    return lanes[0];
}

static inline float highest_of(floats lanes) {
    FOLDED(lanes, higher);
    return lanes[0];
}

/* e to the power of x within 2 units in the last place (Cephes, Moshier 1989). */
static inline floats exponential(floats x) {
    x = higher(all(-87.0f), x); /* what is no number stays so */
    x = chosen(x > 88.0f, all(88.0f), x);
    floats n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f; /* rounded */
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    integers power = (__builtin_convertvector(n, integers) + 127) << 23;
    return p * (floats)power;
}

static inline floats load_float32(const float *x) {
    floats lanes;
    memcpy(&lanes, x, sizeof lanes);
    return lanes;
}

static inline void store_float32(float *x, floats lanes) { memcpy(x, &lanes, sizeof lanes); }

static inline floats load_bfloat16(const uint16_t *x) {
    halves lanes;
    memcpy(&lanes, x, sizeof lanes);
    return (floats)(__builtin_convertvector(lanes, words) << 16);
}

/* To the nearest, ties to even, as torch rounds. */
static inline void store_bfloat16(uint16_t *x, floats values) {
    words bits = (words)values;
    halves lanes = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
    memcpy(x, &lanes, sizeof lanes);
}

#define NUMBER float
#define NAME(name) name##_float32
#include __FILE__
#undef NUMBER
#undef NAME
#define NUMBER uint16_t
#define NAME(name) name##_bfloat16
#include __FILE__

#else

#define LOAD NAME(load)
#define STORE NAME(store)

/* The last `rest` of some numbers, fewer than LANES, in a buffer; what is beyond them is zero. */
static inline void NAME(fill)(NUMBER *buffer, const NUMBER *x, long rest) {
    for (long i = 0; i < LANES; i++) buffer[i] = i < rest ? x[i] : 0;
}

/* y = gain * x / sqrt(mean(x^2) + epsilon) for each row; `inverse` keeps what x is multiplied by.
 * Widths are multiples of LANES here and below. */
void NAME(norm_forward)(const NUMBER *x, const NUMBER *gain, NUMBER *y, float *inverse, long rows,
                        long width, float epsilon) {
    ROWS(rows * width)
    for (long row = 0; row < rows; row++) {
        const NUMBER *in = x + row * width;
        floats squares = {0};
        for (long i = 0; i < width; i += LANES) squares += LOAD(in + i) * LOAD(in + i);
        float by = 1.0f / sqrtf(sum_of(squares) / width + epsilon);
        inverse[row] = by;
        for (long i = 0; i < width; i += LANES)
            STORE(y + row * width + i, LOAD(gain + i) * (LOAD(in + i) * by));
    }
}

/* The gradient of x from that of y. */
void NAME(norm_backward)(const NUMBER *x, const NUMBER *gain, const float *inverse,
                         const NUMBER *slope, NUMBER *given, long rows, long width) {
    ROWS(rows * width)
    for (long row = 0; row < rows; row++) {
        const NUMBER *in = x + row * width, *dy = slope + row * width;
        floats products = {0};
        float by = inverse[row];
        for (long i = 0; i < width; i += LANES)
            products += LOAD(dy + i) * LOAD(gain + i) * LOAD(in + i);
        float along = sum_of(products) * by * by * by / width;
        for (long i = 0; i < width; i += LANES)
            STORE(given + row * width + i,
                  LOAD(dy + i) * LOAD(gain + i) * by - LOAD(in + i) * along);
    }
}

/* Rotary positions: the halves (a, b) of every head become (a cos - b sin, b cos + a sin).
 *
 * x and y are (batch, heads, tokens, size) with any strides but 1 along `size`; cos and sin are
 * (batch, tokens, size) in rows, of `angles` batches. `back` takes gradients the other way. */
void NAME(rotate)(const NUMBER *x, const NUMBER *cosines, const NUMBER *sines, NUMBER *y,
                  long batch, long heads, long tokens, long size, const long *from, const long *to,
                  long angles, int back) {
    long half = size / 2;
    ROWS(batch * heads * tokens * size)
    for (long row = 0; row < batch * tokens; row++) {
        long b = row / tokens, t = row % tokens, angle = ((angles > 1 ? b : 0) * tokens + t) * size;
        const NUMBER *c = cosines + angle, *s = sines + angle;
        for (long h = 0; h < heads; h++) {
            const NUMBER *in = x + b * from[0] + h * from[1] + t * from[2];
            NUMBER *out = y + b * to[0] + h * to[1] + t * to[2];
            for (long i = 0, j = half; i < half; i += LANES, j += LANES) {
                floats one = LOAD(in + i), other = LOAD(in + j);
                floats turned = other * LOAD(s + (back ? j : i));
                floats across = one * LOAD(s + (back ? i : j));
                STORE(out + i, one * LOAD(c + i) + (back ? turned : -turned));
                STORE(out + j, other * LOAD(c + j) + (back ? -across : across));
            }
        }
    }
}

/* y = gate * sigmoid(gate) * linear; the rows of gate and linear are `step` apart. */
void NAME(gated_forward)(const NUMBER *gate, const NUMBER *linear, NUMBER *y, long rows,
                         long width, long step) {
    ROWS(rows * width)
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < width; i += LANES) {
            floats g = LOAD(gate + row * step + i), by = LOAD(linear + row * step + i);
            STORE(y + row * width + i, g / (1.0f + exponential(-g)) * by);
        }
}

void NAME(gated_backward)(const NUMBER *gate, const NUMBER *linear, const NUMBER *slope,
                          NUMBER *to_gate, NUMBER *to_linear, long rows, long width, long step) {
    ROWS(rows * width)
    for (long row = 0; row < rows; row++)
        for (long i = 0, at = row * width; i < width; i += LANES, at += LANES) {
            floats g = LOAD(gate + row * step + i), by = LOAD(linear + row * step + i);
            floats dy = LOAD(slope + at), sigmoid = 1.0f / (1.0f + exponential(-g));
            STORE(to_gate + at, dy * by * sigmoid * (1.0f + g * (1.0f - sigmoid)));
            STORE(to_linear + at, dy * g * sigmoid);
        }
}

/* Attention: `scores` are (heads, count, length * groups, columns). Token `tokens[c * length + j]`
 * has the rows j * groups and on of part c; a token that repeats the one before it is padding.
 * With `causal` its rows see the first j + 1 columns. What is kept for each row of each token is
 * (heads, every, groups): `every` tokens there are. */
#define PADDING(c, j) ((j) > 0 && tokens[(c) * length + (j)] == tokens[(c) * length + (j) - 1])

/* Turn scores * scale into exp(score - top) in place; `tops` and `totals` are one a row.
 *
 * The last LANES numbers that are seen overlap those before: they are read first, and counted
 * where nothing else counts them. Rows that see fewer are done in a buffer. */
void NAME(soften)(NUMBER *scores, float *tops, float *totals, long batch, long rows, long columns,
                  long groups, int causal, float scale) {
    ROWS(batch * rows * columns)
    for (long row = 0; row < batch * rows; row++) {
        NUMBER *x = scores + row * columns, buffer[LANES];
        long seen = causal ? (row % rows) / groups + 1 : columns;
        long whole = seen / LANES * LANES, rest = seen - whole;
        NUMBER *end = seen < LANES ? buffer : x + seen - LANES;
        if (seen < LANES) NAME(fill)(buffer, x, seen);
        integers counted = seen < LANES ? ~lanes_from(seen) : lanes_from(LANES - rest);
        floats last = LOAD(end) * scale;
        floats high = seen < LANES ? chosen(counted, last, all(last[0])) : last;
        for (long i = 0; i < whole; i += LANES) high = higher(high, LOAD(x + i) * scale);
        float top = highest_of(high);
        floats sums = {0};
        for (long i = 0; i < whole; i += LANES) {
            floats weights = exponential(LOAD(x + i) * scale - top);
            sums += weights;
            STORE(x + i, weights);
        }
        if (rest) {
            floats weights = exponential(last - top);
            sums += chosen(counted, weights, all(0));
            STORE(end, weights);
        }
        if (seen < LANES) memcpy(x, buffer, seen * sizeof *x);
        memset(x + seen, 0, (columns - seen) * sizeof *x);
        tops[row] = top;
        totals[row] = sum_of(sums);
    }
}

/* The inner product of each row of a with that of b. */
void NAME(inner)(const NUMBER *a, const NUMBER *b, float *products, long rows, long width) {
    ROWS(rows * width)
    for (long row = 0; row < rows; row++) {
        floats sums = {0};
        for (long i = row * width; i < (row + 1) * width; i += LANES)
            sums += LOAD(a + i) * LOAD(b + i);
        products[row] = sum_of(sums);
    }
}

/* Join what a piece gives, `part` (heads, count, length * groups, size), to what others gave: a
 * mean of values for each row, `out`, and the `logsum` of its scores. */
void NAME(join)(const NUMBER *part, const float *tops, const float *totals, const long *tokens,
                float *out, float *logsum, long heads, long count, long length, long groups,
                long size, long every, int first) {
    long rows = length * groups;
    ROWS(heads * count * rows * size)
    for (long row = 0; row < heads * count * rows; row++) {
        long h = row / (count * rows), c = row / rows % count, j = row % rows / groups;
        if (PADDING(c, j)) continue;
        long place = (h * every + tokens[c * length + j]) * groups + row % groups;
        const NUMBER *given = part + row * size;
        float *mean = out + place * size;
        float own = tops[row] + logf(totals[row]), by = 1.0f / totals[row];
        if (first) {
            for (long i = 0; i < size; i += LANES) store_float32(mean + i, LOAD(given + i) * by);
            logsum[place] = own;
            continue;
        }
        float before = logsum[place], high = own > before ? own : before;
        float now = high + logf(expf(own - high) + expf(before - high)), kept = expf(before - now);
        by = expf(tops[row] - now);
        for (long i = 0; i < size; i += LANES)
            store_float32(mean + i, load_float32(mean + i) * kept + LOAD(given + i) * by);
        logsum[place] = now;
    }
}

/* Scores become weights, and gradients of weights (`passed`) those of scores, both in place. `off`
 * is what softmax's Jacobian takes off. Padding passes nothing on. The end as in `soften`. */
void NAME(slopes)(NUMBER *scores, NUMBER *passed, const long *tokens, const float *logsum,
                  const float *off, long heads, long count, long length, long groups, long columns,
                  long every, int causal, float scale) {
    long rows = length * groups;
    ROWS(heads * count * rows * columns)
    for (long row = 0; row < heads * count * rows; row++) {
        long h = row / (count * rows), c = row / rows % count, j = row % rows / groups;
        long place = (h * every + tokens[c * length + j]) * groups + row % groups;
        NUMBER *x = scores + row * columns, *d = passed + row * columns;
        NUMBER short_x[LANES], short_d[LANES];
        long seen = PADDING(c, j) ? 0 : causal ? j + 1 : columns;
        long whole = seen / LANES * LANES;
        NUMBER *end_x = x + seen - LANES, *end_d = d + seen - LANES;
        if (seen < LANES) {
            NAME(fill)(end_x = short_x, x, seen);
            NAME(fill)(end_d = short_d, d, seen);
        }
        float sum = logsum[place], less = off[place];
        floats last_x = LOAD(end_x), last_d = LOAD(end_d);
        for (long i = 0; i < whole; i += LANES) {
            floats weights = exponential(LOAD(x + i) * scale - sum);
            STORE(x + i, weights);
            STORE(d + i, weights * (LOAD(d + i) - less) * scale);
        }
        if (whole < seen) {
            floats weights = exponential(last_x * scale - sum);
            STORE(end_x, weights);
            STORE(end_d, weights * (last_d - less) * scale);
        }
        if (seen < LANES) {
            memcpy(x, short_x, seen * sizeof *x);
            memcpy(d, short_d, seen * sizeof *d);
        }
        memset(x + seen, 0, (columns - seen) * sizeof *x);
        memset(d + seen, 0, (columns - seen) * sizeof *d);
    }
}

/* whole[h, token] = or += part[h, c, j], rows of `width`; padding is left out. */
void NAME(put)(const NUMBER *part, const long *tokens, float *whole, long heads, long count,
               long length, long width, long every, int first) {
    ROWS(heads * count * length * width)
    for (long row = 0; row < heads * count * length; row++) {
        long h = row / (count * length), c = row / length % count, j = row % length;
        if (PADDING(c, j)) continue;
        const NUMBER *given = part + row * width;
        float *to = whole + (h * every + tokens[c * length + j]) * width;
        for (long i = 0; i < width; i += LANES)
            store_float32(to + i, LOAD(given + i) + (first ? all(0) : load_float32(to + i)));
    }
}

#undef LOAD
#undef STORE
#undef PADDING
#endif
