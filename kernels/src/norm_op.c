/* The ops LayerNorm and RMSNorm: x [..., size] float32 to the same shape. Inputs, attributes and what the numbers mean are
 * those of LayerNormalization and SimplifiedLayerNormalization over the last axis: weight [size], bias [size] or none,
 * which must be constants. Behind these, `scale` [size] makes a second output: the first, multiplied by it. */
#include "norm_op.h"

#include <stdlib.h>
#include <string.h>

#include "linear.h"
#include "op.h"

enum { INPUT_X, INPUT_WEIGHT, INPUT_BIAS, INPUT_SCALE, INPUTS };
enum { OUTPUT, OUTPUT_SCALED, OUTPUTS };
enum { ITEM_VALUES = 1 << 14 };

typedef struct {
    const OrtApi *api;
    const Kernels *kernels;
    Norm norm; /* its arrays are owned */
} Op;

typedef struct {
    const Op *op;
    const float *x;
    float *out, *scaled;
    size_t rows, rows_each;
} Run;

static const char *layer_norm_name(const OrtCustomOp *op) { (void)op; return "LayerNorm"; }
static const char *rms_norm_name(const OrtCustomOp *op) { (void)op; return "RMSNorm"; }

static void destroy(void *state)
{
    Op *op = state;
    if (!op) return;
    free((void *)op->norm.weight);
    free((void *)op->norm.bias);
    free((void *)op->norm.scale);
    free(op);
}

/* A copy of a constant input that has a number for each of a row; NULL where a node has it not. */
static OrtStatus *copy_vector(Op *op, const OrtKernelInfo *info, size_t index, const float **copy)
{
    Constant found;
    TRY(constant_input(op->api, info, index, &found));
    if (!found.data) return NULL;
    if (!op->norm.size) op->norm.size = found.elements;
    if (!found.elements || found.elements != op->norm.size || found.type != ORT_FLOAT)
        return wrong(op->api, "a norm's weights have another size or type");
    float *made = malloc(found.elements * sizeof *made);
    if (!made) return no_memory(op->api);
    *copy = memcpy(made, found.data, found.elements * sizeof *made);
    return NULL;
}

static OrtStatus *fill(Op *op, const OrtKernelInfo *info)
{
    TRY(copy_vector(op, info, INPUT_WEIGHT, &op->norm.weight));
    TRY(copy_vector(op, info, INPUT_BIAS, &op->norm.bias));
    TRY(copy_vector(op, info, INPUT_SCALE, &op->norm.scale));
    return op->norm.weight ? NULL : wrong(op->api, "a norm's weights must be constants");
}

static OrtStatus *create(const OrtCustomOp *custom, const OrtApi *api, const OrtKernelInfo *info, void **state)
{
    const Kernels *kernels = chosen_kernels();
    if (!kernels) return wrong(api, "EDGELLM_KERNELS names an instruction set that this processor has not");
    Op *op = malloc(sizeof *op);
    if (!op) return no_memory(api);
    const float epsilon = number_or(api, info, "epsilon", 1e-5f);
    *op = (Op){api, kernels, {.centers = custom->GetName == layer_norm_name, .epsilon = epsilon}};
    OrtStatus *status = fill(op, info);
    if (status) destroy(op);
    else *state = op;
    return status;
}

static void norm_item(void *data, size_t item)
{
    const Run *run = data;
    const Norm *norm = &run->op->norm;
    const size_t first = item * run->rows_each, at = first * norm->size, count = at_most(run->rows - first, run->rows_each);
    run->op->kernels->norms(norm, run->x + at, count, run->out + at, norm->scale ? run->scaled + at : NULL);
}

static OrtStatus *output(const OrtApi *api, OrtKernelContext *context, size_t index, const Tensor *x, float **data)
{
    OrtValue *out = NULL;
    TRY(ORT(api, KernelContext_GetOutput)(context, index, x->sizes, x->rank, &out));
    return ORT(api, GetTensorMutableData)(out, (void **)data);
}

static OrtStatus *compute(void *state, OrtKernelContext *context)
{
    const Op *op = state;
    Run run = {.op = op, .rows = 1, .rows_each = ITEM_VALUES / op->norm.size + 1};
    Tensor x;
    TRY(op_input(op->api, context, INPUT_X, &x));
    if (!x.rank || (size_t)x.sizes[x.rank - 1] != op->norm.size)
        return wrong(op->api, "a norm's input has rows of another size than its weights");
    for (size_t i = 0; i + 1 < x.rank; i++) run.rows *= (size_t)x.sizes[i];
    run.x = x.data;
    TRY(output(op->api, context, OUTPUT, &x, &run.out));
    if (op->norm.scale) TRY(output(op->api, context, OUTPUT_SCALED, &x, &run.scaled));
    return in_parallel(op->api, context, norm_item, (run.rows + run.rows_each - 1) / run.rows_each, &run);
}

static size_t inputs(const OrtCustomOp *op) { (void)op; return INPUTS; }
static size_t outputs(const OrtCustomOp *op) { (void)op; return OUTPUTS; }
static int type(const OrtCustomOp *op, size_t i) { (void)op; (void)i; return ORT_FLOAT; }
static int input_needed(const OrtCustomOp *op, size_t i) { (void)op; return i > INPUT_WEIGHT ? ORT_OPTIONAL : ORT_REQUIRED; }
static int output_needed(const OrtCustomOp *op, size_t i) { (void)op; return i > OUTPUT ? ORT_OPTIONAL : ORT_REQUIRED; }

#define NORM_OP(name) \
    { \
        .version = ORT_VERSION, .GetName = name, .GetExecutionProviderType = op_provider, .GetInputType = type, \
        .GetInputTypeCount = inputs, .GetOutputType = type, .GetOutputTypeCount = outputs, .KernelDestroy = destroy, \
        .GetInputCharacteristic = input_needed, .GetOutputCharacteristic = output_needed, .GetInputMemoryType = op_memory, \
        .CreateKernelV2 = create, .KernelComputeV2 = compute, .GetStartVersion = op_from_first, .GetEndVersion = op_to_last \
    }

const OrtCustomOp layer_norm_op = NORM_OP(layer_norm_name), rms_norm_op = NORM_OP(rms_norm_name);
