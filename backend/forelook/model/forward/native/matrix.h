/* Products of rows of activations with a matrix, in four formats.
 *
 * A number depends only on its row of activations and its row of the matrix: sums have one order, whatever other rows are
 * computed beside. So a token gets the same numbers in a plain step and in a step with drafts.
 */
#ifndef FORELOOK_MATRIX_H
#define FORELOOK_MATRIX_H

#include <string.h>

#include "vectors.h"

#define GROUP 32      /* inputs that share a scale and a minimum in 4 bits */
#define LINE 64       /* bytes of a cache line */
#define AHEAD 2048    /* bytes that are asked for ahead: the processor's own prefetching ends with a page of 4 KiB */
#define BLOCK_ROWS 8  /* rows of activations at once: as many accumulators, and registers left for the rest */

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
            integers both = add_products(add_products(_mm256_setzero_si256(), ones, at), ones, at + 2 * LANES);
            sums[group] = sum_of(_mm256_cvtepi32_ps(both));
        }
    }
}

INLINE floats weights_of_bfloat16(const uint16_t *from)
{
    integers wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

INLINE floats eight_halves(const uint16_t *from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }

/* Ask for a cache line of a matrix, into the second cache. Past its end this does nothing. */
INLINE void ask_ahead(const void *codes) { __builtin_prefetch((const char *)codes + AHEAD, 0, 2); }

/* One function per format and number of rows, whose sums have names: compilers keep arrays of sums in memory. */
#define ROWS_1(DO) DO(0)
#define ROWS_2(DO) ROWS_1(DO) DO(1)
#define ROWS_3(DO) ROWS_2(DO) DO(2)
#define ROWS_4(DO) ROWS_3(DO) DO(3)
#define ROWS_5(DO) ROWS_4(DO) DO(4)
#define ROWS_6(DO) ROWS_5(DO) DO(5)
#define ROWS_7(DO) ROWS_6(DO) DO(6)
#define ROWS_8(DO) ROWS_7(DO) DO(7)

#define NO_FLOATS(t) floats sum##t = _mm256_setzero_ps();
#define NO_INTEGERS(t) integers sum##t = _mm256_setzero_si256();
#define ADD_FLOATS(t) sum##t = _mm256_fmadd_ps(w, load(x + t * inputs + k), sum##t);
#define ADD_CODES(t) sum##t = add_products(sum##t, w, x + t * inputs + k);
#define ADD_MINIMA(t) sum##t = _mm256_fmadd_ps(minimum, load(group_sums + t * padded + eight), sum##t);
#define ADD_GROUP(t)                                                                                          \
    {                                                                                                         \
        const int16_t *at = x + t * inputs + k;                                                               \
        integers found = add_products(_mm256_madd_epi16(low, _mm256_loadu_si256((const __m256i_u *)at)), high, \
                                      at + 2 * LANES);                                                        \
        sum##t = _mm256_fmadd_ps(each, _mm256_cvtepi32_ps(found), sum##t);                                    \
    }
#define STORE_FLOATS(t) y[t * m->outputs + output] = sum_of(sum##t) + bias;
#define STORE_CODES(t) y[t * m->outputs + output] = sum_of(_mm256_cvtepi32_ps(sum##t)) * (scale * units[t]) + bias;
#define STORE_GROUPS(t) y[t * m->outputs + output] = sum_of(sum##t) * units[t] + bias;

#define FOR_FLOATS(ROWS, NAME, TYPE, WEIGHTS)                                                           \
    static void NAME(const Matrix *m, const float *x, float *y, int64_t first, int64_t last)            \
    {                                                                                                   \
        const int64_t inputs = m->inputs;                                                               \
        for (int64_t output = first; output < last; output++) {                                         \
            const TYPE *codes = (const TYPE *)m->codes + output * inputs;                               \
            const float bias = m->bias ? m->bias[output] : 0.0f;                                        \
            ROWS(NO_FLOATS)                                                                             \
            for (int64_t line = 0; line < inputs; line += LINE / sizeof(TYPE)) {                        \
                ask_ahead(codes + line);                                                                \
                for (int64_t k = line; k < line + (int64_t)(LINE / sizeof(TYPE)); k += LANES) {         \
                    const floats w = WEIGHTS(codes + k);                                                \
                    ROWS(ADD_FLOATS)                                                                    \
                }                                                                                       \
            }                                                                                           \
            ROWS(STORE_FLOATS)                                                                          \
        }                                                                                               \
    }

#define FOR_ROWS8(ROWS, NAME)                                                                                         \
    static void NAME(const Matrix *m, const int16_t *x, const float *units, float *y, int64_t first, int64_t last)    \
    {                                                                                                                 \
        const int64_t inputs = m->inputs;                                                                             \
        for (int64_t output = first; output < last; output++) {                                                       \
            const int8_t *codes = (const int8_t *)m->codes + output * inputs;                                         \
            const float scale = ((const float *)m->scales)[output], bias = m->bias ? m->bias[output] : 0.0f;          \
            ROWS(NO_INTEGERS)                                                                                         \
            for (int64_t half = 0; half < inputs; half += LINE / 2) {                                                 \
                ask_ahead(codes + half);                                                                              \
                for (int64_t k = half; k < half + LINE / 2; k += 2 * LANES) {                                         \
                    const integers w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(codes + k)));           \
                    ROWS(ADD_CODES)                                                                                   \
                }                                                                                                     \
            }                                                                                                         \
            ROWS(STORE_CODES)                                                                                         \
        }                                                                                                             \
    }

#define FOR_GROUPS4(ROWS, NAME)                                                                                       \
    static void NAME(const Matrix *m, const int16_t *x, const float *units, const float *group_sums, float *y,        \
                     int64_t first, int64_t last)                                                                     \
    {                                                                                                                 \
        const int64_t inputs = m->inputs, padded = padded_groups(inputs);                                             \
        const integers low_bits = _mm256_set1_epi16(15);                                                              \
        for (int64_t output = first; output < last; output++) {                                                       \
            const uint8_t *codes = (const uint8_t *)m->codes + output * inputs / 2;                                   \
            const uint16_t *scales = (const uint16_t *)m->scales + output * padded;                                   \
            const uint16_t *minima = (const uint16_t *)m->minima + output * padded;                                   \
            const float bias = m->bias ? m->bias[output] : 0.0f;                                                      \
            ROWS(NO_FLOATS)                                                                                           \
            for (int64_t eight = 0; eight < padded; eight += 8) {                                                     \
                ask_ahead(codes + eight * GROUP / 2);                                                                 \
                ask_ahead(codes + eight * GROUP / 2 + LINE);                                                          \
                float scale[8];                                                                                       \
                _mm256_storeu_ps(scale, eight_halves(scales + eight));                                                \
                const floats minimum = eight_halves(minima + eight);                                                  \
                ROWS(ADD_MINIMA)                                                                                      \
                const int64_t left = inputs / GROUP - eight;                                                          \
                for (int g = 0; g < (left < 8 ? left : 8); g++) {                                                     \
                    const int64_t k = (eight + g) * GROUP;                                                            \
                    const integers pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(codes + k / 2)));   \
                    const integers low = _mm256_and_si256(pairs, low_bits), high = _mm256_srli_epi16(pairs, 4);       \
                    const floats each = _mm256_broadcast_ss(scale + g);                                               \
                    ROWS(ADD_GROUP)                                                                                   \
                }                                                                                                     \
            }                                                                                                         \
            ROWS(STORE_GROUPS)                                                                                        \
        }                                                                                                             \
    }

#define FOR_ALL(N)                                                             \
    FOR_FLOATS(ROWS_##N, float32_##N, float, load)                             \
    FOR_FLOATS(ROWS_##N, bfloat16_##N, uint16_t, weights_of_bfloat16)          \
    FOR_ROWS8(ROWS_##N, rows8_##N)                                             \
    FOR_GROUPS4(ROWS_##N, groups4_##N)

FOR_ALL(1)
FOR_ALL(2)
FOR_ALL(3)
FOR_ALL(4)
FOR_ALL(5)
FOR_ALL(6)
FOR_ALL(7)
FOR_ALL(8)

#define BY_ROWS(NAME, ...)                                                                                         \
    switch (num_rows) {                                                                                            \
    case 1: NAME##_1(__VA_ARGS__); break;                                                                          \
    case 2: NAME##_2(__VA_ARGS__); break;                                                                          \
    case 3: NAME##_3(__VA_ARGS__); break;                                                                          \
    case 4: NAME##_4(__VA_ARGS__); break;                                                                          \
    case 5: NAME##_5(__VA_ARGS__); break;                                                                          \
    case 6: NAME##_6(__VA_ARGS__); break;                                                                          \
    case 7: NAME##_7(__VA_ARGS__); break;                                                                          \
    default: NAME##_8(__VA_ARGS__); break;                                                                         \
    }

/* Outputs from `first` to `last` of up to BLOCK_ROWS rows, of which `row` is the first. */
static void block(const Matrix *m, const Activations *from, int64_t row, int64_t num_rows, float *y, int64_t first,
                  int64_t last)
{
    const float *x = from->floats + row * m->inputs, *units = from->units + row;
    const int16_t *codes = from->codes + row * m->inputs;
    y += row * m->outputs;
    switch (m->format) {
    case GROUPS4:
        BY_ROWS(groups4, m, codes, units, from->sums + row * padded_groups(m->inputs), y, first, last)
        break;
    case ROWS8:
        BY_ROWS(rows8, m, codes, units, y, first, last)
        break;
    case BFLOAT16:
        BY_ROWS(bfloat16, m, x, y, first, last)
        break;
    default:
        BY_ROWS(float32, m, x, y, first, last)
        break;
    }
}

/* y[rows, outputs] = prepared rows of x times the matrix, for the outputs from `first` to `last`. */
static void multiply(const Matrix *m, const Activations *from, int64_t num_rows, float *y, int64_t first, int64_t last)
{
    /* Weights are read from memory once: further rows find a part of them in the cache. */
    const int64_t part = 16;
    for (int64_t start = first; start < last; start += part) {
        const int64_t stop = start + part < last ? start + part : last;
        for (int64_t row = 0; row < num_rows; row += BLOCK_ROWS)
            block(m, from, row, num_rows - row < BLOCK_ROWS ? num_rows - row : BLOCK_ROWS, y, start, stop);
    }
}

#endif
