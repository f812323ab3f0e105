/* As much of ONNX Runtime as an operator sees: constants, inputs, outputs, attributes, and threads of our own, which
 * sanitizers can look into. */
#ifndef EDGELLM_RUNTIME_H
#define EDGELLM_RUNTIME_H

#include "../src/ort_api.h"

enum { MOST_PORTS = 16, MOST_ATTRIBUTES = 16, MOST_RANK = 8 };

struct OrtValue {
    void *data; /* guarded */
    int type, constant;
    size_t rank, elements;
    int64_t dims[MOST_RANK];
};
typedef struct { const char *name; int64_t whole; float number; int is_number; } Attribute;
struct OrtKernelInfo {
    OrtValue *inputs[MOST_PORTS]; /* NULL: left out */
    size_t input_count;
    Attribute attributes[MOST_ATTRIBUTES];
    size_t attribute_count;
};
struct OrtKernelContext {
    OrtValue *inputs[MOST_PORTS], *outputs[MOST_PORTS]; /* an output that is NULL is made, of float32 */
    size_t input_count;
    int threads;
};

/* An array of these dimensions, whose end is guarded. */
OrtValue *new_value(int type, size_t rank, const int64_t *dims);
void free_value(OrtValue *);
size_t value_bytes(const OrtValue *);

/* The operator of that name which the library registers. */
const OrtCustomOp *operator_of(const char *name);
/* Ends the program where the operator refuses. */
void *new_kernel(const OrtCustomOp *, const OrtKernelInfo *);
void compute(const OrtCustomOp *, void *kernel, OrtKernelContext *);
/* Whether the operator refuses. */
int refused_kernel(const OrtCustomOp *, const OrtKernelInfo *);
/* The text of the refusal, to be freed; NULL where there is none. */
char *refusal(const OrtCustomOp *, void *kernel, OrtKernelContext *);

#endif
