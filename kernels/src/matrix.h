/* A matrix of linear.h, packed from what MatMulNBits has: weights [columns, blocks, bytes] uint8 of 4 or 8 bits, scales
 * [columns, blocks] float32, zero points uint8 or none (the middle), bias [columns] float32 or none. */
#ifndef EDGELLM_MATRIX_H
#define EDGELLM_MATRIX_H

#include "linear.h"

typedef struct {
    const uint8_t *weights;
    const float *scales;
    const uint8_t *zeros; /* or NULL */
    const float *bias;    /* or NULL */
} Packing;

/* Makes *m a matrix of these sizes without weights. 0 where there are no kernels for such bits or blocks. */
int set_sizes(Matrix *m, size_t depth, size_t columns, size_t block, size_t bits);

/* The bytes of what is stored, bias apart. */
size_t stored_weights(const Matrix *);
size_t stored_scales(const Matrix *);
size_t stored_zeros(const Matrix *);

/* Gives the matrix its own memory; pages of a file that were read for it are let go. 0 where there is no memory. In any
 * case the matrix is to be freed. */
int pack_matrix(Matrix *, Packing);
void free_matrix(Matrix *);

#endif
