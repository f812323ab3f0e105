/* Linear layers whose weights are whole numbers in blocks: the layout that the kernels of all instruction sets read.
 *
 * A matrix of `columns` outputs and `depth` inputs lies in tiles of TILE outputs. In a tile, the inputs go by blocks of
 * `block`; of each block four inputs of all TILE outputs lie side by side (8 bits), or twice four, the first in the low
 * halves of the bytes (4 bits). Weights are unsigned; what a block's numbers are above is its zero point. Where a matrix
 * of 8 bits has no more than 16 different weights, they lie as places of 4 bits in a table: the numbers are the same.
 *
 * Activations are rounded for each row and block: 127 steps of the largest magnitude, ties to even, or zeros where a step
 * would be subnormal. A block that holds a number that is not finite has the scale NaN, and makes its row NaN.
 *
 * An output is the sum over blocks, in order, of fma(sum of products, scale of the weights x scale of the activations),
 * in float32: the same bits on every instruction set, whatever other rows and columns are computed beside it. */
#ifndef EDGELLM_LINEAR_H
#define EDGELLM_LINEAR_H

#include <stddef.h>
#include <stdint.h>

#include "attention.h"

#define TILE 32
#define LARGEST_BLOCK 256 /* the sum of so many activations fits in 16 bits */

typedef struct {
    size_t depth, columns, block, blocks, tiles;
    int bits, packed;    /* of a weight where it was stored, and here */
    int middle;          /* the zero point of all blocks where there are no zeros */
    int looks_up;        /* weights are places in the table, of numbers below 128 */
    uint8_t table[16];
    uint8_t *weights;    /* [tiles][blocks][block / 4 or block / 8][TILE][4] */
    float *scales;       /* [tiles][blocks][TILE] */
    uint8_t *zeros;      /* [tiles][blocks][TILE], or NULL */
    float *bias;         /* [tiles * TILE], or NULL */
} Matrix;

/* Rows of activations, rounded. `stride`: blocks x block, depth filled up with zeros. */
typedef struct {
    int8_t *values;  /* [rows][blocks][block] */
    float *scales;   /* [rows][blocks] */
    int32_t *sums;   /* [rows][blocks], of the values */
} Rounded;

/* What is done to a sum before it is stored: nothing, x sigmoid(alpha x), GELU by the error function or by tanh, ReLU. */
typedef enum { PLAIN, SWISH, GELU, GELU_TANH, RELU, ACTIVATIONS } Activation;

/* A norm of rows of `size` numbers: less their mean where it `centers`, over the root of the mean of their squares, times
 * weight [size], plus bias [size] where that is not NULL. `scale` [size] or NULL: what a second output is multiplied by. */
typedef struct {
    size_t size;
    int centers;
    float epsilon;
    const float *weight, *bias, *scale;
} Norm;

/* The bytes of a tile's weights. */
static inline size_t tile_bytes(const Matrix *m) { return m->blocks * m->block * TILE * (size_t)m->packed / 8; }

/* One instruction set. `rounds`: rows [first, last) of x [rows][depth]. `multiplies`: rows of one tile, to
 * out [rows][stride], of which the tile's columns begin at `out`; all TILE of them are written. `ahead`: the weights of the
 * tile of a matrix of the same sizes that is needed next, or NULL.
 * `activates`: a tile's rows at `out`, activated, and times `gated` [rows][TILE] where that is not NULL.
 * `norms`: rows of x [rows][size] to out and, times the norm's scale where there is one, to scaled. */
typedef struct {
    const char *name;
    int (*is_there)(void);
    void (*rounds)(const Matrix *, const float *x, size_t rows, Rounded);
    void (*multiplies)(const Matrix *, size_t tile, Rounded, size_t rows, const uint8_t *ahead, float *out, size_t stride);
    void (*activates)(float *out, size_t stride, size_t rows, Activation, float alpha, const float *gated);
    void (*norms)(const Norm *, const float *x, size_t rows, float *out, float *scaled);
    AttentionKernels attention;
} Kernels;

extern const Kernels scalar_kernels, avx2_kernels, avxvnni_kernels, avx512vnni_kernels, neon_kernels, neondot_kernels,
    neoni8mm_kernels;

/* The best that this processor has, or the one that EDGELLM_KERNELS names; NULL where that is not there. */
const Kernels *chosen_kernels(void);

#endif
