/* What a linear layer does in one pass over a tile of its outputs. */
#ifndef EDGELLM_LAYER_H
#define EDGELLM_LAYER_H

#include "linear.h"

enum { ROW_GROUP = 128 };

/* What the matrix makes of rows x. With a second one, of as many inputs in the same blocks and as many outputs:
 * activation(first(x)) x second(x). `limit`, where it is not 0: activation(min(first(x), limit)) x (second(x) between
 * -limit and limit, plus 1). */
typedef struct {
    const Kernels *kernels;
    const Matrix *matrix, *second; /* NULL: there is no second */
    Activation activation;
    float alpha, limit;
} Layer;

/* The rounded activations from a row on, of what lies in rows of as many blocks as the matrix has. */
Rounded rounded_from(Rounded, const Matrix *, size_t row);

/* At most ROW_GROUP rows of one tile, to out [rows][columns], plus residual [rows][columns] where that is not NULL. `next`:
 * the weights of the tile of the first matrix that is needed next, or NULL. */
void multiply_tile(const Layer *, size_t tile, Rounded, size_t rows, const uint8_t *next, const float *residual, float *out);

#endif
