/* The largest values of some rows of logits, in one pass over each: a block without a value above the least one kept,
 * which nearly all are, costs its comparisons only. */

#include <math.h>
#include <stdint.h>

enum { BLOCK = 64 }; /* values that are compared at once; chosen, not measured */

static int any_above(const float *values, float limit)
{
    int found = 0;
    for (int k = 0; k < BLOCK; k++)
        found |= values[k] > limit;
    return found;
}

/* Keep the values above the least of `count` in descending order; of equal ones the first come first. */
static void keep_largest(const float *row, int64_t first, int64_t last, int64_t count, int32_t *places, float *values)
{
    for (int64_t k = first; k < last; k++) {
        if (!(row[k] > values[count - 1]))
            continue;
        int64_t at = count - 1;
        for (; at > 0 && row[k] > values[at - 1]; at--) {
            values[at] = values[at - 1];
            places[at] = places[at - 1];
        }
        values[at] = row[k];
        places[at] = (int32_t)k;
    }
}

/* Of `rows` of logits [R, size]: the places and values of the `count` largest, [num_rows, count] each, largest first.
 * Returns 0 where a row has fewer than `count` values above minus infinity; they are then undefined. */
int64_t forelook_likeliest(const float *logits, int64_t size, const int64_t *rows, int64_t num_rows, int64_t count,
                           int32_t *places, float *values)
{
    for (int64_t number = 0; number < num_rows; number++, places += count, values += count) {
        const float *row = logits + rows[number] * size;
        for (int64_t k = 0; k < count; k++)
            values[k] = -INFINITY;
        int64_t first = 0;
        for (; first + BLOCK <= size; first += BLOCK)
            if (any_above(row + first, values[count - 1]))
                keep_largest(row, first, first + BLOCK, count, places, values);
        keep_largest(row, first, size, count, places, values);
        if (!(values[count - 1] > -INFINITY))
            return 0;
    }
    return 1;
}
