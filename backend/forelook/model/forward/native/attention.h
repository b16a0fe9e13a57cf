/* Attention of one query over the keys and values that it sees.
 *
 * The visible tokens are numbered one after the other, whatever lies between them in the cache. So a token gets the same
 * numbers in a draft tree as in a plain step.
 */
#ifndef FORELOOK_ATTENTION_H
#define FORELOOK_ATTENTION_H

#include <stdbool.h>

#include "vectors.h"

/* What a row of a step sees: all of the prefix, then some slots behind it. */
typedef struct {
    int64_t prefix;
    int64_t num_slots;
    const int32_t *slots; /* ascending, counted from the prefix's end */
} Seen;

INLINE int64_t slot_of(const Seen *seen, int64_t index)
{
    return index < seen->prefix ? index : seen->prefix + seen->slots[index - seen->prefix];
}

/* The four sums of four vectors, each in one order. */
INLINE __m128 four_sums(floats a, floats b, floats c, floats d)
{
    floats sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

/* Tokens ahead whose keys or values the first query of a head asks for. Chosen, not measured; that it helps is in
 * docs/decisions.md, "Several outputs at once, and memory asked for earlier". */
#define TOKENS_AHEAD 32

/* Ask for `count` floats of a later token's row, into the second cache; rows have `size` floats. */
INLINE void ask_for_token(const float *row, int64_t size, int64_t count)
{
    for (int64_t k = 0; k < count; k += 16)
        __builtin_prefetch(row + TOKENS_AHEAD * size + k, 0, 2);
}

/* Tokens whose keys or values stay in the first cache while all queries of a head read them. Chosen, not measured. */
#define TOKENS_AT_ONCE 64

/* Products of a query [size] with the keys [tokens, size] of the visible tokens from `first` (a multiple of LANES) to
 * `last`; up to LANES - 1 scores more are written. */
static void score(const float *query, const float *keys, const Seen *seen, int64_t size, int64_t first, int64_t last,
                  bool is_first, float *scores)
{
    for (int64_t j = first; j < last; j += 4) {
        const float *row[4];
        for (int i = 0; i < 4; i++)
            row[i] = keys + slot_of(seen, j + i < last ? j + i : last - 1) * size;
        if (is_first)
            for (int i = 0; i < 4; i++)
                ask_for_token(row[i], size, size);
        floats a = _mm256_setzero_ps(), b = a, c = a, d = a;
        for (int64_t k = 0; k < size; k += LANES) {
            const floats q = load(query + k);
            a = _mm256_fmadd_ps(q, load(row[0] + k), a);
            b = _mm256_fmadd_ps(q, load(row[1] + k), b);
            c = _mm256_fmadd_ps(q, load(row[2] + k), c);
            d = _mm256_fmadd_ps(q, load(row[3] + k), d);
        }
        _mm_storeu_ps(scores + j, four_sums(a, b, c, d));
    }
}

/* Scores of `count` tokens to e^(scale (score - largest)); returns the reciprocal of their sum. */
static float soften(float *scores, int64_t count, float scale)
{
    const floats scales = _mm256_set1_ps(scale), least = _mm256_set1_ps(-3.4e38f);
    for (int64_t j = count; j % LANES != 0; j++)
        scores[j] = -3.4e38f;
    floats largest = least;
    for (int64_t j = 0; j < count; j += LANES) {
        /* The filling stays finite and below all others, whatever the scale. */
        const floats found = _mm256_max_ps(_mm256_mul_ps(load(scores + j), scales), least);
        _mm256_storeu_ps(scores + j, found);
        largest = _mm256_max_ps(largest, found);
    }
    const floats top = _mm256_set1_ps(largest_of(largest));
    floats total = _mm256_setzero_ps();
    for (int64_t j = 0; j < count; j += LANES) {
        const floats share = exponential(_mm256_sub_ps(load(scores + j), top));
        _mm256_storeu_ps(scores + j, share);
        total = _mm256_add_ps(total, share);
    }
    for (int64_t j = count; j % LANES != 0; j++)
        scores[j] = 0.0f;
    return 1.0f / sum_of(total);
}

/* Add the values [tokens, size] of the visible tokens from `first` to `last`, times their scores, to a sum [size]. */
static void add_values(const float *scores, const float *values, const Seen *seen, int64_t size, int64_t first, int64_t last,
                       bool is_first, float *sum)
{
    int64_t start = 0;
    for (; start + 8 * LANES <= size; start += 8 * LANES) {
        floats sums[8];
        for (int i = 0; i < 8; i++)
            sums[i] = load(sum + start + i * LANES);
        for (int64_t j = first; j < last; j++) {
            const float *value = values + slot_of(seen, j) * size + start;
            if (is_first)
                ask_for_token(value, size, 8 * LANES);
            const floats share = _mm256_broadcast_ss(scores + j);
            for (int i = 0; i < 8; i++)
                sums[i] = _mm256_fmadd_ps(share, load(value + i * LANES), sums[i]);
        }
        for (int i = 0; i < 8; i++)
            _mm256_storeu_ps(sum + start + i * LANES, sums[i]);
    }
    for (; start < size; start += LANES) {
        floats one = load(sum + start);
        for (int64_t j = first; j < last; j++)
            one = _mm256_fmadd_ps(_mm256_broadcast_ss(scores + j), load(values + slot_of(seen, j) * size + start), one);
        _mm256_storeu_ps(sum + start, one);
    }
}

#endif
