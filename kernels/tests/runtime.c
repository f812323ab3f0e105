#define _DEFAULT_SOURCE
#include "runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guarded.h"

OrtStatus *RegisterCustomOps(OrtSessionOptions *, const OrtApiBase *);

struct OrtStatus { char message[256]; };
struct OrtCustomOpDomain { const OrtCustomOp *ops[16]; size_t count; };
struct OrtSessionOptions { OrtCustomOpDomain *domain; };
struct OrtTensorInfo { const OrtValue *value; };

static OrtStatus *create_status(int code, const char *message)
{
    OrtStatus *status = calloc(1, sizeof *status);
    (void)code;
    strncpy(status->message, message, sizeof status->message - 1);
    return status;
}
static void release_status(OrtStatus *status) { free(status); }

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **domain)
{
    *domain = calloc(1, sizeof **domain);
    return strcmp(name, "edgellm") ? create_status(1, "another domain") : NULL;
}
static OrtStatus *add_op(OrtCustomOpDomain *domain, const OrtCustomOp *op)
{
    domain->ops[domain->count++] = op;
    return NULL;
}
static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain)
{
    options->domain = domain;
    return NULL;
}

static OrtStatus *mutable_data(OrtValue *value, void **data) { *data = value->data; return NULL; }
static OrtStatus *type_and_shape(const OrtValue *value, OrtTensorInfo **info)
{
    *info = malloc(sizeof **info);
    (*info)->value = value;
    return NULL;
}
static void release_info(OrtTensorInfo *info) { free(info); }
static OrtStatus *element_type(const OrtTensorInfo *info, int *type) { *type = info->value->type; return NULL; }
static OrtStatus *rank_of(const OrtTensorInfo *info, size_t *rank) { *rank = info->value->rank; return NULL; }
static OrtStatus *dims_of(const OrtTensorInfo *info, int64_t *dims, size_t rank)
{
    memcpy(dims, info->value->dims, rank * sizeof *dims);
    return NULL;
}
static OrtStatus *elements_of(const OrtTensorInfo *info, size_t *count) { *count = info->value->elements; return NULL; }

static const Attribute *attribute(const OrtKernelInfo *info, const char *name)
{
    for (size_t i = 0; i < info->attribute_count; i++)
        if (!strcmp(info->attributes[i].name, name)) return &info->attributes[i];
    return NULL;
}
static OrtStatus *whole_attribute(const OrtKernelInfo *info, const char *name, int64_t *value)
{
    const Attribute *found = attribute(info, name);
    if (!found || found->is_number) return create_status(1, "no such attribute");
    *value = found->whole;
    return NULL;
}
static OrtStatus *float_attribute(const OrtKernelInfo *info, const char *name, float *value)
{
    const Attribute *found = attribute(info, name);
    if (!found || !found->is_number) return create_status(1, "no such attribute");
    *value = found->number;
    return NULL;
}
static OrtStatus *info_input_count(const OrtKernelInfo *info, size_t *count) { *count = info->input_count; return NULL; }
static OrtStatus *constant_input(const OrtKernelInfo *info, size_t index, int *is_constant, const OrtValue **value)
{
    *value = info->inputs[index];
    *is_constant = *value && (*value)->constant;
    return NULL;
}

static OrtStatus *input_count(const OrtKernelContext *context, size_t *count)
{
    *count = context->input_count;
    return NULL;
}
static OrtStatus *input(const OrtKernelContext *context, size_t index, const OrtValue **value)
{
    *value = context->inputs[index];
    return NULL;
}
/* One that the caller bound is given back; one of another shape is an error of the operator. */
static OrtStatus *output(OrtKernelContext *context, size_t index, const int64_t *dims, size_t rank, OrtValue **value)
{
    OrtValue *bound = context->outputs[index];
    if (!bound) bound = context->outputs[index] = new_value(ORT_FLOAT, rank, dims);
    *value = bound;
    return bound->rank != rank || memcmp(bound->dims, dims, rank * sizeof *dims) ? create_status(1, "another shape") : NULL;
}

typedef struct { void (*item)(void *, size_t); void *data; size_t total; atomic_size_t next; } Work;

static void *work_off(void *data)
{
    Work *work = data;
    for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->total;) work->item(work->data, i);
    return NULL;
}

static OrtStatus *parallel_for(const OrtKernelContext *context, void (*item)(void *, size_t), size_t total, size_t batches,
                               void *data)
{
    Work work = {item, data, total, 0};
    pthread_t threads[16];
    (void)batches;
    for (int t = 1; t < context->threads; t++) pthread_create(&threads[t], NULL, work_off, &work);
    work_off(&work);
    for (int t = 1; t < context->threads; t++) pthread_join(threads[t], NULL);
    return NULL;
}

typedef void (*Function)(void);
static Function functions[512];

#define HERE(name, function) functions[PLACE_##name] = (Function)(function)

static const OrtApi *api(uint32_t version)
{
    HERE(CreateStatus, create_status);
    HERE(ReleaseStatus, release_status);
    HERE(CreateCustomOpDomain, create_domain);
    HERE(CustomOpDomain_Add, add_op);
    HERE(AddCustomOpDomain, add_domain);
    HERE(GetTensorMutableData, mutable_data);
    HERE(GetTensorTypeAndShape, type_and_shape);
    HERE(ReleaseTensorTypeAndShapeInfo, release_info);
    HERE(GetTensorElementType, element_type);
    HERE(GetDimensionsCount, rank_of);
    HERE(GetDimensions, dims_of);
    HERE(GetTensorShapeElementCount, elements_of);
    HERE(KernelInfoGetAttribute_int64, whole_attribute);
    HERE(KernelInfoGetAttribute_float, float_attribute);
    HERE(KernelInfo_GetInputCount, info_input_count);
    HERE(KernelInfoGetConstantInput_tensor, constant_input);
    HERE(KernelContext_GetInputCount, input_count);
    HERE(KernelContext_GetInput, input);
    HERE(KernelContext_GetOutput, output);
    HERE(KernelContext_ParallelFor, parallel_for);
    return version <= ORT_VERSION ? (const OrtApi *)functions : NULL;
}
static const char *version(void) { return "1.17.0"; }

static void end_if(OrtStatus *status)
{
    if (!status) return;
    fprintf(stderr, "refused: %s\n", status->message);
    exit(1);
}

static size_t size_of(int type)
{
    return type == ORT_UINT8 || type == ORT_INT8 ? 1 : type == ORT_UINT16 ? 2 : type == ORT_INT64 ? 8 : 4;
}

OrtValue *new_value(int type, size_t rank, const int64_t *dims)
{
    OrtValue *value = calloc(1, sizeof *value);
    value->type = type;
    value->rank = rank;
    value->elements = 1;
    for (size_t i = 0; i < rank; i++) value->elements *= (size_t)(value->dims[i] = dims[i]);
    value->data = guarded(value_bytes(value), size_of(type));
    return value;
}

size_t value_bytes(const OrtValue *value) { return value->elements * size_of(value->type); }

void free_value(OrtValue *value)
{
    if (!value) return;
    not_guarded(value->data);
    free(value);
}

const OrtCustomOp *operator_of(const char *name)
{
    static const OrtApiBase base = {api, version};
    OrtSessionOptions options = {0};
    end_if(RegisterCustomOps(&options, &base));
    for (size_t i = 0; i < options.domain->count; i++)
        if (!strcmp(options.domain->ops[i]->GetName(options.domain->ops[i]), name)) return options.domain->ops[i];
    fprintf(stderr, "there is no operator %s\n", name);
    exit(1);
}

void *new_kernel(const OrtCustomOp *op, const OrtKernelInfo *info)
{
    void *kernel = NULL;
    end_if(op->CreateKernelV2(op, api(ORT_VERSION), info, &kernel));
    return kernel;
}

int refused_kernel(const OrtCustomOp *op, const OrtKernelInfo *info)
{
    void *kernel = NULL;
    OrtStatus *status = op->CreateKernelV2(op, api(ORT_VERSION), info, &kernel);
    if (!status) op->KernelDestroy(kernel);
    const int refused = status != NULL;
    free(status);
    return refused;
}

void compute(const OrtCustomOp *op, void *kernel, OrtKernelContext *context) { end_if(op->KernelComputeV2(kernel, context)); }

char *refusal(const OrtCustomOp *op, void *kernel, OrtKernelContext *context)
{
    OrtStatus *status = op->KernelComputeV2(kernel, context);
    char *message = status ? strdup(status->message) : NULL;
    free(status);
    return message;
}
