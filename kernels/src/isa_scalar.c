/* Plain C, one number at a time: where nothing better is there, and what the others are compared with. */
#include <math.h>
#include <string.h>

#include "linear.h"

#define ISA(name) scalar_##name
#define LANES 1
#define QUERIES 1
#define COLUMNS 1
typedef float Floats;

static inline Floats load_floats(const float *p) { return *p; }
static inline void store_floats(float *p, Floats a) { *p = a; }
static inline Floats no_floats(void) { return 0; }
static inline Floats same_floats(float value) { return value; }
static inline Floats add_floats(Floats a, Floats b) { return a + b; }
static inline Floats subtract_floats(Floats a, Floats b) { return a - b; }
static inline Floats multiply_floats(Floats a, Floats b) { return a * b; }
static inline Floats divide_floats(Floats a, Floats b) { return a / b; }
static inline Floats fma_floats(Floats a, Floats b, Floats c) { return fmaf(a, b, c); }
static inline Floats greater(Floats a, Floats b) { return a > b ? a : b; }
static inline float greatest_of(Floats a) { return a; }
static inline Floats power_of_two(Floats shifted)
{
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&shifted, &bits, 4);
    return shifted;
}
static inline Floats load_bfloat16(const uint16_t *p)
{
    const uint32_t bits = (uint32_t)*p << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}
static inline Floats load_int8(const int8_t *p) { return *p; }
static inline Floats half_of(Floats words, int i)
{
    uint32_t bits;
    memcpy(&bits, &words, 4);
    const uint16_t half = (uint16_t)(bits >> 16 * i);
    return load_bfloat16(&half);
}
static inline Floats byte_of(Floats words, int i)
{
    uint32_t bits;
    memcpy(&bits, &words, 4);
    return (int8_t)(bits >> 8 * i);
}
static inline void transpose(const float *const *rows, float *to, size_t stride) 
{
    (void)stride;
    memcpy(to, *rows, sizeof *to);
}

#include "attention_body.h"
#include "rounding.h"
#include "epilogue.h"
#include "norm_body.h"

static int weight(const Matrix *matrix, size_t tile, size_t b, size_t k, size_t column)
{
    const int four_bits = matrix->packed == 4;
    const size_t each = four_bits ? 8 : 4, steps = matrix->block / each;
    const size_t step = (tile * matrix->blocks + b) * steps + k / each;
    const uint8_t byte = matrix->weights[(step * TILE + column) * 4 + k % 4];
    const uint8_t found = four_bits ? (k % 8 < 4 ? byte & 15 : byte >> 4) : byte;
    return matrix->looks_up ? matrix->table[found] : found;
}

static void multiplies(const Matrix *matrix, size_t tile, Rounded rounded, size_t rows, const uint8_t *ahead, float *out,
                       size_t stride)
{
    (void)ahead;
    const size_t block = matrix->block, blocks = matrix->blocks;
    for (size_t r = 0; r < rows; r++)
        for (size_t column = 0; column < TILE; column++) {
            float total = 0;
            for (size_t b = 0; b < blocks; b++) {
                const size_t at = (tile * blocks + b) * TILE + column;
                const int zero = matrix->zeros ? matrix->zeros[at] : matrix->middle;
                int32_t sum = 0;
                for (size_t k = 0; k < block; k++)
                    sum += (weight(matrix, tile, b, k, column) - zero) * rounded.values[(r * blocks + b) * block + k];
                total = fmaf((float)sum, matrix->scales[at] * rounded.scales[r * blocks + b], total);
            }
            out[r * stride + column] = matrix->bias ? total + matrix->bias[tile * TILE + column] : total;
        }
}

static int is_there(void) { return 1; }

const Kernels scalar_kernels = {"scalar", is_there, ISA(rounds), multiplies, ISA(activates), ISA(norms), ATTENTION_KERNELS};
