/* Activations rounded by blocks, in plain C that compilers make vectors of; the same bits wherever it is compiled. */
#include <math.h>
#include <string.h>

#define STEPS 127.0f
#define TO_WHOLE 12582912.0f /* 1.5 x 2^23: what is added to it loses its fraction, ties to even */

static inline void ISA(round_block)(const float *x, size_t count, size_t block, int8_t *values, float *scale, int32_t *sum)
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
    const int finite = largest < 0x7f800000u;
    *scale = finite ? top / STEPS : NAN;
    const float factor = finite && *scale > 0 ? 1.0f / *scale : 0.0f;
    int32_t total = 0;
    for (size_t i = 0; i < count; i++) {
        const float in_steps = x[i] * factor;
        const float inside = in_steps > STEPS ? STEPS : in_steps < -STEPS ? -STEPS : in_steps;
        const int32_t value = finite ? (int32_t)((inside + TO_WHOLE) - TO_WHOLE) : 0;
        values[i] = (int8_t)value;
        total += value;
    }
    memset(values + count, 0, block - count);
    *sum = total;
}

static void ISA(rounds)(const Matrix *matrix, const float *x, size_t rows, Rounded rounded)
{
    const size_t block = matrix->block, blocks = matrix->blocks, depth = matrix->depth;
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < blocks; b++) {
            const size_t left = depth - b * block, count = left < block ? left : block, at = r * blocks + b;
            ISA(round_block)(x + r * depth + b * block, count, block, rounded.values + at * block, rounded.scales + at,
                             rounded.sums + at);
        }
}
