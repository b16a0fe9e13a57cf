/* Products of rows of activations with a matrix, in four formats.
 *
 * A number depends only on its row of activations and its row of the matrix: sums have one order, whatever other rows are
 * computed beside. So a token gets the same numbers in a plain step and in a step with drafts.
 */
#ifndef FORELOOK_MATRIX_H
#define FORELOOK_MATRIX_H

#include <stdbool.h>
#include <string.h>

#include "vectors.h"

#define GROUP 32      /* inputs that share a scale and a minimum in 4 bits */
#define LINE 64       /* bytes of a cache line */
#define BLOCK_ROWS 8  /* rows of activations at once */

/* Measured: docs/decisions.md, "Several outputs at once, and memory asked for earlier". */
#define AHEAD 8192 /* bytes that are asked for ahead: 2 KiB are multiplied before memory answers */

/* Outputs at once, for as many sums as registers hold: each row is then loaded once for all of them, and sums do not wait
 * for one another. */
#ifdef __AVX512VL__
#define SUMS 16
#define OUTPUTS4(rows) ((rows) <= 2 ? 4 : 2)
#else
#define SUMS 8
#define OUTPUTS4(rows) 1
#endif
#define MOST_OUTPUTS 4
#define OUTPUTS(rows) (SUMS / (rows) >= 4 ? 4 : SUMS / (rows) >= 2 ? 2 : 1)

/* As in native/matrices.py. */
enum { FLOAT32 = 0, BFLOAT16 = 1, ROWS8 = 2, GROUPS4 = 3 };

/* ROWS8:   codes [outputs, inputs] int8, scales [outputs] float.
 * GROUPS4: codes [outputs, inputs / 2] bytes: of each group the first 16 inputs in the low halves, the others in the high
 *          ones; scales and minima [outputs, padded groups] float16, where groups are padded to a multiple of 8 with 0.
 */
typedef struct {
    int64_t format;
    int64_t outputs;
    int64_t inputs;
    const void *codes;
    const void *scales;
    const void *minima;
    const float *bias; /* [outputs] or NULL */
} Matrix;

/* Rows of activations as a format multiplies them.
 *
 * floats:  [rows, inputs], as they are.
 * codes:   [rows, inputs], integers of up to 15 bits, and of each row the unit that they count.
 * sums:    [rows, padded groups], for GROUPS4: the sum of the codes of each group.
 */
typedef struct {
    const float *floats;
    int16_t *codes;
    float *units;
    float *sums;
} Activations;

INLINE int64_t padded_groups(int64_t inputs) { return (inputs / GROUP + 7) / 8 * 8; }

/* The largest code of activations for which no sum of a lane overflows 32 bits, whatever the weights are. */
static int largest_code(const Matrix *matrix)
{
    int64_t per_lane = matrix->format == GROUPS4 ? GROUP / LANES * 15 : matrix->inputs / LANES * 127;
    int64_t largest = INT32_MAX / (per_lane ? per_lane : 1);
    return largest < INT16_MAX ? (int)largest : INT16_MAX;
}

/* Row `row` of x in the form that the matrix's format needs. */
static void prepare_row(const Matrix *matrix, const float *x, int64_t row, const Activations *prepared)
{
    if (matrix->format < ROWS8)
        return;
    const int64_t inputs = matrix->inputs;
    const float *from = x + row * inputs;
    int16_t *codes = prepared->codes + row * inputs;
    floats largest = _mm256_setzero_ps();
    for (int64_t k = 0; k < inputs; k += LANES)
        largest = _mm256_max_ps(largest, absolute(load(from + k)));
    const float range = largest_of(largest), limit = (float)largest_code(matrix);
    const float unit = range > 1e-30f ? range / limit : 1.0f;
    const floats per_unit = _mm256_set1_ps(1.0f / unit);
    for (int64_t k = 0; k < inputs; k += 2 * LANES) {
        integers low = _mm256_cvtps_epi32(_mm256_mul_ps(load(from + k), per_unit));
        integers high = _mm256_cvtps_epi32(_mm256_mul_ps(load(from + k + LANES), per_unit));
        integers packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        _mm256_storeu_si256((integers *)(codes + k), packed);
    }
    prepared->units[row] = unit;
    if (matrix->format == GROUPS4) {
        float *sums = prepared->sums + row * padded_groups(inputs);
        const integers ones = _mm256_set1_epi16(1);
        for (int64_t group = 0; group < padded_groups(inputs); group++) {
            if (group * GROUP >= inputs) {
                sums[group] = 0.0f;
                continue;
            }
            const int16_t *at = codes + group * GROUP;
            integers both = add_products_of(add_products_of(_mm256_setzero_si256(), ones, at), ones, at + 2 * LANES);
            sums[group] = sum_of(_mm256_cvtepi32_ps(both));
        }
    }
}

INLINE floats eight_halves(const uint16_t *from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }

/* Ask for a cache line of a matrix, into the second cache. Past its end this does nothing. */
INLINE void ask_ahead(const void *codes) { __builtin_prefetch((const char *)codes + AHEAD, 0, 2); }

/* A loop of a constant number of turns, unrolled: the arrays that it indexes stay in registers. */
#define EACH(index, count) _Pragma("GCC unroll 8") for (int index = 0; index < (count); index++)

/* The functions below compute `outputs` numbers of `rows` rows each, both constants. The order of a sum is always the same. */

/* Weights of a row of the matrix, from its input `k` on. */
INLINE floats weights_of(const Matrix *m, int64_t output, int64_t k, const bool is_half)
{
    const int64_t at = output * m->inputs + k;
    if (!is_half)
        return load((const float *)m->codes + at);
    const integers wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)((const uint16_t *)m->codes + at)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

INLINE void of_floats(const Matrix *m, const float *x, float *y, int64_t output, const bool is_half, const int rows,
                      const int outputs)
{
    const int64_t inputs = m->inputs, size = is_half ? sizeof(uint16_t) : sizeof(float);
    const char *codes = (const char *)m->codes + output * inputs * size;
    floats sums[MOST_OUTPUTS][BLOCK_ROWS];
    EACH(o, outputs) EACH(t, rows) sums[o][t] = _mm256_setzero_ps();
    for (int64_t line = 0; line < inputs; line += LINE / size) {
        EACH(o, outputs) ask_ahead(codes + (o * inputs + line) * size);
        for (int64_t k = line; k < line + LINE / size; k += LANES) {
            floats w[MOST_OUTPUTS];
            EACH(o, outputs) w[o] = weights_of(m, output + o, k, is_half);
            EACH(t, rows)
            {
                const floats a = load(x + t * inputs + k);
                EACH(o, outputs) sums[o][t] = _mm256_fmadd_ps(w[o], a, sums[o][t]);
            }
        }
    }
    EACH(o, outputs)
    {
        const float bias = m->bias ? m->bias[output + o] : 0.0f;
        EACH(t, rows) y[t * m->outputs + output + o] = sum_of(sums[o][t]) + bias;
    }
}

INLINE void of_rows8(const Matrix *m, const int16_t *x, const float *units, float *y, int64_t output, const int rows,
                     const int outputs)
{
    const int64_t inputs = m->inputs;
    const int8_t *codes = (const int8_t *)m->codes + output * inputs;
    integers sums[MOST_OUTPUTS][BLOCK_ROWS];
    EACH(o, outputs) EACH(t, rows) sums[o][t] = _mm256_setzero_si256();
    for (int64_t half = 0; half < inputs; half += LINE / 2) {
        EACH(o, outputs) ask_ahead(codes + o * inputs + half);
        EACH(part, LINE / 2 / (2 * LANES))
        {
            const int64_t k = half + part * 2 * LANES;
            integers w[MOST_OUTPUTS];
            EACH(o, outputs) w[o] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(codes + o * inputs + k)));
            EACH(t, rows)
            {
                const int16_t *from = x + t * inputs + k;
                if (outputs == 1) {
                    sums[0][t] = add_products_of(sums[0][t], w[0], from);
                    continue;
                }
                const integers a = pairs_of(from);
                EACH(o, outputs) sums[o][t] = add_products(sums[o][t], w[o], a);
            }
        }
    }
    EACH(o, outputs)
    {
        const float scale = ((const float *)m->scales)[output + o], bias = m->bias ? m->bias[output + o] : 0.0f;
        EACH(t, rows)
        y[t * m->outputs + output + o] = sum_of(_mm256_cvtepi32_ps(sums[o][t])) * (scale * units[t]) + bias;
    }
}

INLINE void of_groups4(const Matrix *m, const int16_t *x, const float *units, const float *group_sums, float *y,
                       int64_t output, const int rows, const int outputs)
{
    const int64_t inputs = m->inputs, padded = padded_groups(inputs);
    const integers low_bits = _mm256_set1_epi16(15);
    const uint8_t *codes = (const uint8_t *)m->codes + output * inputs / 2;
    const uint16_t *scales = (const uint16_t *)m->scales + output * padded;
    const uint16_t *minima = (const uint16_t *)m->minima + output * padded;
    floats sums[MOST_OUTPUTS][BLOCK_ROWS];
    EACH(o, outputs) EACH(t, rows) sums[o][t] = _mm256_setzero_ps();
    for (int64_t eight = 0; eight < padded; eight += 8) {
        float scale[MOST_OUTPUTS][8];
        floats minimum[MOST_OUTPUTS];
        EACH(o, outputs)
        {
            ask_ahead(codes + o * inputs / 2 + eight * GROUP / 2);
            ask_ahead(codes + o * inputs / 2 + eight * GROUP / 2 + LINE);
            _mm256_storeu_ps(scale[o], eight_halves(scales + o * padded + eight));
            minimum[o] = eight_halves(minima + o * padded + eight);
        }
        EACH(t, rows)
        {
            const floats of_group = load(group_sums + t * padded + eight);
            EACH(o, outputs) sums[o][t] = _mm256_fmadd_ps(minimum[o], of_group, sums[o][t]);
        }
        const int64_t left = inputs / GROUP - eight;
        for (int g = 0; g < (left < 8 ? left : 8); g++) {
            const int64_t k = (eight + g) * GROUP;
            integers low[MOST_OUTPUTS], high[MOST_OUTPUTS];
            floats each[MOST_OUTPUTS];
            EACH(o, outputs)
            {
                const integers pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(codes + (o * inputs + k) / 2)));
                low[o] = _mm256_and_si256(pairs, low_bits);
                high[o] = _mm256_srli_epi16(pairs, 4);
                each[o] = _mm256_broadcast_ss(scale[o] + g);
            }
            EACH(t, rows)
            {
                const int16_t *from = x + t * inputs + k;
                const integers a = pairs_of(from), b = pairs_of(from + 2 * LANES);
                EACH(o, outputs)
                {
                    const integers first = _mm256_madd_epi16(low[o], a);
                    const integers found = outputs == 1 ? add_products_of(first, high[o], from + 2 * LANES)
                                                        : add_products(first, high[o], b);
                    sums[o][t] = _mm256_fmadd_ps(each[o], _mm256_cvtepi32_ps(found), sums[o][t]);
                }
            }
        }
    }
    EACH(o, outputs)
    {
        const float bias = m->bias ? m->bias[output + o] : 0.0f;
        EACH(t, rows) y[t * m->outputs + output + o] = sum_of(sums[o][t]) * units[t] + bias;
    }
}

/* Outputs from `first` to `last`, as many at once as registers allow. */
#define FOR_OUTPUTS(AT_ONCE, FUNCTION, ...)                          \
    for (int64_t output = first; output < last;) {                   \
        const int64_t count = output + AT_ONCE <= last ? AT_ONCE : 1; \
        if (count == AT_ONCE)                                        \
            FUNCTION(__VA_ARGS__, AT_ONCE);                          \
        else                                                         \
            FUNCTION(__VA_ARGS__, 1);                                \
        output += count;                                             \
    }

/* Outputs from `first` to `last` of a number of rows, of which `row` is the first. */
#define BLOCK(ROWS)                                                                                                       \
    static void block_##ROWS(const Matrix *m, const Activations *from, int64_t row, float *y, int64_t first, int64_t last) \
    {                                                                                                                     \
        const float *x = from->floats + row * m->inputs, *units = from->units + row;                                      \
        const float *sums = from->sums + row * padded_groups(m->inputs);                                                  \
        const int16_t *codes = from->codes + row * m->inputs;                                                             \
        y += row * m->outputs;                                                                                            \
        if (m->format == GROUPS4)                                                                                         \
            FOR_OUTPUTS(OUTPUTS4(ROWS), of_groups4, m, codes, units, sums, y, output, ROWS)                               \
        else if (m->format == ROWS8)                                                                                      \
            FOR_OUTPUTS(OUTPUTS(ROWS), of_rows8, m, codes, units, y, output, ROWS)                                        \
        else if (m->format == BFLOAT16)                                                                                   \
            FOR_OUTPUTS(OUTPUTS(ROWS), of_floats, m, x, y, output, true, ROWS)                                            \
        else                                                                                                              \
            FOR_OUTPUTS(OUTPUTS(ROWS), of_floats, m, x, y, output, false, ROWS)                                           \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
BLOCK(5)
BLOCK(6)
BLOCK(7)
BLOCK(8)

typedef void (*Block)(const Matrix *, const Activations *, int64_t, float *, int64_t, int64_t);
static const Block blocks[BLOCK_ROWS] = {block_1, block_2, block_3, block_4, block_5, block_6, block_7, block_8};

/* y[rows, outputs] = prepared rows of x times the matrix, for the outputs from `first` to `last`. */
static void multiply(const Matrix *m, const Activations *from, int64_t num_rows, float *y, int64_t first, int64_t last)
{
    /* Weights are read from memory once: further rows find a part of them in the cache. */
    const int64_t part = 16;
    for (int64_t start = first; start < last; start += part) {
        const int64_t stop = start + part < last ? start + part : last;
        for (int64_t row = 0; row < num_rows; row += BLOCK_ROWS)
            blocks[(num_rows - row < BLOCK_ROWS ? num_rows - row : BLOCK_ROWS) - 1](m, from, row, y, start, stop);
    }
}

#endif
