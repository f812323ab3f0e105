/* Activations rounded by blocks, in plain C that compilers make vectors of; the same bits wherever it is compiled. */
#include "plain.h"

#define STEPS 127.0f
#define WHOLE_BITS 0x4b400000 /* TO_WHOLE's */
#define SMALLEST 1.17549435e-38f /* the least number that is not subnormal */
#define AT_ONCE 64 /* blocks whose divisions are done together */

/* Its largest magnitude; NaN where a number is not finite. */
INLINE float ISA(top_of)(const float *restrict x, size_t count)
{
    uint32_t largest = 0; /* of the magnitudes, as bits: NaN is above infinity, infinity above all numbers */
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    float top;
    memcpy(&top, &largest, 4);
    return largest < 0x7f800000u ? top : NAN;
}

INLINE int32_t ISA(round_block)(const float *restrict x, float factor, size_t count, size_t block, int8_t *restrict values)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const float shifted = x[i] * factor + TO_WHOLE; /* whole steps are its last bits now, never more than STEPS */
        int32_t bits;
        memcpy(&bits, &shifted, 4);
        const int32_t value = bits - WHOLE_BITS;
        values[i] = (int8_t)value;
        sum += value;
    }
    memset(values + count, 0, block - count);
    return sum;
}

/* At most AT_ONCE blocks that lie one behind the other, of which the last may hold fewer numbers. */
INLINE void ISA(round_blocks)(const float *restrict x, size_t blocks, size_t block, size_t last, int8_t *restrict values,
                              float *restrict scales, int32_t *restrict sums)
{
    float factors[AT_ONCE];
    for (size_t b = 0; b + 1 < blocks; b++) scales[b] = ISA(top_of)(x + b * block, block);
    scales[blocks - 1] = ISA(top_of)(x + (blocks - 1) * block, last);
    for (size_t b = 0; b < blocks; b++) {
        scales[b] /= STEPS;
        scales[b] = scales[b] < SMALLEST ? 0.0f : scales[b]; /* one over it would be infinite, and zeros no numbers */
        factors[b] = scales[b] > 0 ? 1.0f / scales[b] : 0.0f;
    }
    for (size_t b = 0; b < blocks; b++) {
        const int finite = scales[b] == scales[b];
        const size_t count = b + 1 < blocks ? block : last;
        if (finite && count == block) sums[b] = ISA(round_block)(x + b * block, factors[b], block, block, values + b * block);
        else if (finite) sums[b] = ISA(round_block)(x + b * block, factors[b], count, block, values + b * block);
        else {
            memset(values + b * block, 0, block);
            sums[b] = 0;
        }
    }
}

static void ISA(rounds)(const Matrix *matrix, const float *x, size_t rows, Rounded rounded)
{
    const size_t block = matrix->block, blocks = matrix->blocks, depth = matrix->depth;
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < blocks; b += AT_ONCE) {
            const size_t at = r * blocks + b, count = blocks - b < AT_ONCE ? blocks - b : AT_ONCE;
            const size_t left = depth - (b + count - 1) * block, last = left < block ? left : block;
            const float *from = x + r * depth + b * block;
            int8_t *values = rounded.values + at * block;
            if (block == 64) ISA(round_blocks)(from, count, 64, last, values, rounded.scales + at, rounded.sums + at);
            else if (block == 32) ISA(round_blocks)(from, count, 32, last, values, rounded.scales + at, rounded.sums + at);
            else ISA(round_blocks)(from, count, block, last, values, rounded.scales + at, rounded.sums + at);
        }
}
