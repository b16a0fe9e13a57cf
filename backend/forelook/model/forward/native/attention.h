/* Attention of one query over the keys and values that it sees.
 *
 * The visible tokens are numbered one after the other, whatever lies between them in the cache. So a token gets the same
 * numbers in a draft tree as in a plain step.
 */
#ifndef FORELOOK_ATTENTION_H
#define FORELOOK_ATTENTION_H

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

/* query [size]; keys and values [tokens, size]; scores has room for all visible tokens and 8 more; result [size]. */
static void attend(const float *query, const float *keys, const float *values, const Seen *seen, int64_t size, float scale,
                   float *scores, float *result)
{
    const int64_t count = seen->prefix + seen->num_slots;
    const floats scales = _mm256_set1_ps(scale);
    floats largest = _mm256_set1_ps(-3.4e38f);
    for (int64_t j = 0; j < count; j += LANES) {
        for (int part = 0; part < LANES; part += 4) {
            const float *row[4];
            for (int i = 0; i < 4; i++) {
                int64_t index = j + part + i < count ? j + part + i : count - 1;
                row[i] = keys + slot_of(seen, index) * size;
            }
            floats a = _mm256_setzero_ps(), b = a, c = a, d = a;
            for (int64_t k = 0; k < size; k += LANES) {
                const floats q = load(query + k);
                a = _mm256_fmadd_ps(q, load(row[0] + k), a);
                b = _mm256_fmadd_ps(q, load(row[1] + k), b);
                c = _mm256_fmadd_ps(q, load(row[2] + k), c);
                d = _mm256_fmadd_ps(q, load(row[3] + k), d);
            }
            _mm_storeu_ps(scores + j + part, four_sums(a, b, c, d));
        }
        floats found = _mm256_mul_ps(load(scores + j), scales);
        _mm256_storeu_ps(scores + j, found);
        largest = _mm256_max_ps(largest, found); /* the last token's copies change no maximum */
    }
    const floats top = _mm256_set1_ps(largest_of(largest));
    for (int64_t j = count; j % LANES != 0; j++)
        scores[j] = -3.4e38f;
    floats total = _mm256_setzero_ps();
    for (int64_t j = 0; j < count; j += LANES) {
        floats share = exponential(_mm256_sub_ps(load(scores + j), top));
        _mm256_storeu_ps(scores + j, share);
        total = _mm256_add_ps(total, share);
    }
    const floats normal = _mm256_set1_ps(1.0f / sum_of(total));
    for (int64_t start = 0; start < size; start += 8 * LANES) {
        const int parts = size - start < 8 * LANES ? (int)((size - start) / LANES) : 8;
        floats sums[8];
        for (int i = 0; i < 8; i++)
            sums[i] = _mm256_setzero_ps();
        if (parts == 8) {
            for (int64_t j = 0; j < count; j++) {
                const float *value = values + slot_of(seen, j) * size + start;
                const floats share = _mm256_broadcast_ss(scores + j);
                for (int i = 0; i < 8; i++)
                    sums[i] = _mm256_fmadd_ps(share, load(value + i * LANES), sums[i]);
            }
        } else {
            for (int64_t j = 0; j < count; j++) {
                const float *value = values + slot_of(seen, j) * size + start;
                const floats share = _mm256_broadcast_ss(scores + j);
                for (int i = 0; i < parts; i++)
                    sums[i] = _mm256_fmadd_ps(share, load(value + i * LANES), sums[i]);
            }
        }
        for (int i = 0; i < parts; i++)
            _mm256_storeu_ps(result + start + i * LANES, _mm256_mul_ps(sums[i], normal));
    }
}

#endif
