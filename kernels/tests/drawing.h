/* Random cases, the same everywhere. */
#ifndef EDGELLM_DRAWING_H
#define EDGELLM_DRAWING_H

#include "runtime.h"

static unsigned state = 1;
static unsigned below(unsigned end)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % end;
}
static float normal(void) { return ((float)below(2001) - 1000) / 250; }

static OrtValue *floats(size_t rank, const int64_t *dims, float scale)
{
    OrtValue *value = new_value(ORT_FLOAT, rank, dims);
    for (size_t i = 0; i < value->elements; i++) ((float *)value->data)[i] = scale * normal();
    return value;
}

#endif
