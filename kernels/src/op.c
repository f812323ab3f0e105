#include "op.h"

OrtStatus *wrong(const OrtApi *api, const char *message)
{
    return ORT(api, CreateStatus)(ORT_INVALID_ARGUMENT, message);
}

OrtStatus *no_memory(const OrtApi *api)
{
    return ORT(api, CreateStatus)(ORT_FAIL, "Failed to allocate memory for edgellm's kernels");
}

static int found(const OrtApi *api, OrtStatus *status)
{
    if (status) ORT(api, ReleaseStatus)(status);
    return !status;
}

int64_t whole_number_or(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t otherwise)
{
    int64_t value = 0;
    return found(api, ORT(api, KernelInfoGetAttribute_int64)(info, name, &value)) ? value : otherwise;
}

float number_or(const OrtApi *api, const OrtKernelInfo *info, const char *name, float otherwise)
{
    float value = 0;
    return found(api, ORT(api, KernelInfoGetAttribute_float)(info, name, &value)) ? value : otherwise;
}

OrtStatus *dimensions(const OrtApi *api, const OrtValue *value, int64_t sizes[MOST_DIMENSIONS], size_t *rank)
{
    OrtTensorInfo *shape = NULL;
    TRY(ORT(api, GetTensorTypeAndShape)(value, &shape));
    OrtStatus *status = ORT(api, GetDimensionsCount)(shape, rank);
    if (!status && *rank > MOST_DIMENSIONS) status = wrong(api, "edgellm: expected at most 8 dimensions");
    if (!status && *rank) status = ORT(api, GetDimensions)(shape, sizes, *rank);
    ORT(api, ReleaseTensorTypeAndShapeInfo)(shape);
    return status;
}

OrtStatus *constant_input(const OrtApi *api, const OrtKernelInfo *info, size_t index, Constant *constant)
{
    size_t count = 0;
    int is_constant = 0;
    const OrtValue *value = NULL;
    OrtTensorInfo *shape = NULL;
    *constant = (Constant){0};
    TRY(ORT(api, KernelInfo_GetInputCount)(info, &count));
    if (index >= count) return NULL;
    TRY(ORT(api, KernelInfoGetConstantInput_tensor)(info, index, &is_constant, &value));
    if (!is_constant || !value) return NULL;
    TRY(ORT(api, GetTensorTypeAndShape)(value, &shape));
    OrtStatus *status = ORT(api, GetTensorShapeElementCount)(shape, &constant->elements);
    if (!status) status = ORT(api, GetTensorElementType)(shape, &constant->type);
    ORT(api, ReleaseTensorTypeAndShapeInfo)(shape);
    return status ? status : ORT(api, GetTensorMutableData)((OrtValue *)value, (void **)&constant->data);
}

OrtStatus *op_input(const OrtApi *api, const OrtKernelContext *context, size_t index, Tensor *tensor)
{
    size_t count = 0;
    const OrtValue *value = NULL;
    *tensor = (Tensor){0};
    TRY(ORT(api, KernelContext_GetInputCount)(context, &count));
    if (index < count) TRY(ORT(api, KernelContext_GetInput)(context, index, &value));
    if (!value) return NULL;
    TRY(dimensions(api, value, tensor->sizes, &tensor->rank));
    return ORT(api, GetTensorMutableData)((OrtValue *)value, (void **)&tensor->data);
}

int has_shape(const Tensor *tensor, size_t rank, const int64_t *sizes)
{
    if (tensor->rank != rank) return 0;
    for (size_t i = 0; i < rank; i++)
        if (tensor->sizes[i] != sizes[i]) return 0;
    return 1;
}

OrtStatus *in_parallel(const OrtApi *api, const OrtKernelContext *context, void (*item)(void *, size_t), size_t items,
                       void *data)
{
    if (items > 1) return ORT(api, KernelContext_ParallelFor)(context, item, items, 0, data);
    if (items) item(data, 0);
    return NULL;
}

const char *op_provider(const OrtCustomOp *op) { (void)op; return "CPUExecutionProvider"; }
int op_memory(const OrtCustomOp *op, size_t i) { (void)op; (void)i; return 0; }
int op_required(const OrtCustomOp *op, size_t i) { (void)op; (void)i; return ORT_REQUIRED; }
int op_from_first(const OrtCustomOp *op) { (void)op; return 1; }
int op_to_last(const OrtCustomOp *op) { (void)op; return 0x7fffffff; }
