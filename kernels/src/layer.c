#include "layer.h"

#include <string.h>

Rounded rounded_from(Rounded all, const Matrix *m, size_t row)
{
    return (Rounded){all.values + row * m->blocks * m->block, all.scales + row * m->blocks, all.sums + row * m->blocks};
}

static void add_residual(const float *residual, size_t columns, size_t width, size_t rows, float *out)
{
    for (size_t r = 0; r < rows; r++, out += columns, residual += columns)
        for (size_t i = 0; i < width; i++) out[i] += residual[i];
}

/* NaN stays. */
static void clamp(float limit, size_t rows, float *gate, size_t stride, float *up)
{
    for (size_t r = 0; r < rows; r++, gate += stride, up += TILE)
        for (size_t i = 0; i < TILE; i++) {
            const float high = up[i] > limit ? limit : up[i];
            gate[i] = gate[i] > limit ? limit : gate[i];
            up[i] = (high < -limit ? -limit : high) + 1.0f;
        }
}

void multiply_tile(const Layer *layer, size_t tile, Rounded rounded, size_t rows, const uint8_t *next, const float *residual,
                   float *out)
{
    const Matrix *m = layer->matrix, *second = layer->second;
    const size_t first = tile * TILE, width = at_most(m->columns - first, TILE);
    float whole[ROW_GROUP * TILE], gated[ROW_GROUP * TILE];
    float *to = width == TILE ? out + first : whole;
    const size_t stride = width == TILE ? m->columns : TILE;
    const uint8_t *other = second ? second->weights + tile * tile_bytes(second) : next;
    layer->kernels->multiplies(m, tile, rounded, rows, other, to, stride);
    if (second) layer->kernels->multiplies(second, tile, rounded, rows, next, gated, TILE);
    if (second && layer->limit > 0) clamp(layer->limit, rows, to, stride, gated);
    if (layer->activation || second)
        layer->kernels->activates(to, stride, rows, layer->activation, layer->alpha, second ? gated : NULL);
    for (size_t r = 0; r < rows && to == whole; r++)
        memcpy(out + r * m->columns + first, whole + r * TILE, width * sizeof *out);
    if (residual) add_residual(residual + first, m->columns, width, rows, out + first);
}
