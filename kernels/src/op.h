/* What the operators share: errors, attributes, shapes, and work for ONNX Runtime's threads. */
#ifndef EDGELLM_OP_H
#define EDGELLM_OP_H

#include "ort_api.h"

#define TRY(call) \
    do { \
        OrtStatus *failed = (call); \
        if (failed) return failed; \
    } while (0)

enum { MOST_DIMENSIONS = 8 };

OrtStatus *wrong(const OrtApi *, const char *message);
OrtStatus *no_memory(const OrtApi *);

/* An attribute, or what it is where a node has it not. */
int64_t whole_number_or(const OrtApi *, const OrtKernelInfo *, const char *name, int64_t otherwise);
float number_or(const OrtApi *, const OrtKernelInfo *, const char *name, float otherwise);

/* A constant input; without data where a node has none. */
typedef struct {
    const void *data;
    size_t elements;
    int type;
} Constant;

OrtStatus *constant_input(const OrtApi *, const OrtKernelInfo *, size_t index, Constant *);

/* An input: of rank 0 where a node has it not, or it is a single number, whose data is there. */
typedef struct {
    const float *data;
    int64_t sizes[MOST_DIMENSIONS];
    size_t rank;
} Tensor;

OrtStatus *op_input(const OrtApi *, const OrtKernelContext *, size_t index, Tensor *);
int has_shape(const Tensor *, size_t rank, const int64_t *sizes);
#define HAS_SHAPE(tensor, ...) \
    has_shape(&(tensor), sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

OrtStatus *dimensions(const OrtApi *, const OrtValue *, int64_t sizes[MOST_DIMENSIONS], size_t *rank);

/* Calls item(data, 0) to item(data, items - 1), on several threads where there are several. */
OrtStatus *in_parallel(const OrtApi *, const OrtKernelContext *, void (*item)(void *, size_t), size_t items, void *data);

/* Answers of an OrtCustomOp that are the same for all operators. */
const char *op_provider(const OrtCustomOp *);
int op_memory(const OrtCustomOp *, size_t);
int op_required(const OrtCustomOp *, size_t);
int op_from_first(const OrtCustomOp *);
int op_to_last(const OrtCustomOp *);

#endif
