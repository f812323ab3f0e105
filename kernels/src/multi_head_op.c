/* The op MultiHead: inputs, attributes, outputs and what they mean are those of com.microsoft's MultiHeadAttention in
 * float32, with query [batch][length][heads x depth], keys and values [batch][keys][heads x depth] or
 * [batch][heads][keys][depth], a mask of lengths, keys, or keys for each query, and a bias; without a cache. */
#include "attention_op.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "arena.h"
#include "attention_run.h"
#include "linear.h"
#include "op.h"

enum { INPUT_QUERY, INPUT_KEY, INPUT_VALUE, INPUT_LINEAR_BIAS, INPUT_MASK, INPUT_BIAS, INPUTS };
enum { TOKENS_EACH = 16 };

static const float WEIGHS_NOTHING = -1e20f; /* beside any score, in powers of two */

typedef struct {
    const OrtApi *api;
    const Kernels *kernels;
    size_t heads;
    float scale, masked; /* `masked` is added to what a mask hides, in powers of two */
} Op;

typedef struct {
    Attention attention;
    const float *query;
    float *queries;
    float factor;
} Run;

static OrtStatus *create(const OrtCustomOp *custom, const OrtApi *api, const OrtKernelInfo *info, void **state)
{
    (void)custom;
    const Kernels *kernels = chosen_kernels();
    if (!kernels) return wrong(api, "EDGELLM_KERNELS names an instruction set that this processor has not");
    const int64_t heads = whole_number_or(api, info, "num_heads", 0);
    if (heads < 1 || heads > 1 << 20) return wrong(api, "MultiHead: num_heads is out of range");
    Op *op = calloc(1, sizeof *op);
    if (!op) return no_memory(api);
    const float masked = number_or(api, info, "mask_filter_value", -10000.0f) * LOG2_E;
    *op = (Op){api, kernels, (size_t)heads, number_or(api, info, "scale", 0), masked < -FLT_MAX ? -FLT_MAX : masked};
    *state = op;
    return NULL;
}

static void scale_item(void *data, size_t item)
{
    const Run *run = data;
    const Attention *a = &run->attention;
    const size_t items = (a->length + TOKENS_EACH - 1) / TOKENS_EACH, depth = a->head.depth, batch = item / items;
    const size_t first = item % items * TOKENS_EACH, last = at_most(first + TOKENS_EACH, a->length);
    for (size_t token = first; token < last; token++)
        for (size_t head = 0; head < a->kv_heads; head++) {
            const float *from = run->query + ((batch * a->length + token) * a->kv_heads + head) * depth;
            float *to = run->queries + ((batch * a->kv_heads + head) * a->length + token) * depth;
            for (size_t i = 0; i < depth; i++) to[i] = from[i] * run->factor;
        }
}

/* Where keys or values lie, [batch][keys][heads x depth] or [batch][heads][keys][depth]; false for another size. */
static int lies(const Tensor *tensor, const Attention *a, size_t *keys, size_t *depth, size_t *stride, size_t *head_step)
{
    if (!tensor->rank || (size_t)tensor->sizes[0] != a->batch) return 0;
    if (tensor->rank == 3) {
        *keys = (size_t)tensor->sizes[1];
        *stride = (size_t)tensor->sizes[2];
        *head_step = *depth = *stride / a->kv_heads;
        return *depth && *stride % a->kv_heads == 0;
    }
    if (tensor->rank != 4 || (size_t)tensor->sizes[1] != a->kv_heads) return 0;
    *keys = (size_t)tensor->sizes[2];
    *stride = *depth = (size_t)tensor->sizes[3];
    *head_step = *keys * *depth;
    return *depth != 0;
}

static OrtStatus *read_tensors(const Op *op, Run *run, const OrtKernelContext *context)
{
    Attention *a = &run->attention;
    Tensor query, key, value;
    size_t depth = 0, value_depth = 0, values = 0;
    TRY(op_input(op->api, context, INPUT_QUERY, &query));
    TRY(op_input(op->api, context, INPUT_KEY, &key));
    TRY(op_input(op->api, context, INPUT_VALUE, &value));
    if (query.rank != 3) return wrong(op->api, "MultiHead: expected a query of three dimensions");
    a->batch = (size_t)query.sizes[0];
    a->length = (size_t)query.sizes[1];
    a->kv_heads = op->heads;
    a->group = 1;
    if (!lies(&key, a, &a->keys, &depth, &a->tokens.key_stride, &a->key_head_step) ||
        !lies(&value, a, &values, &value_depth, &a->tokens.value_stride, &a->value_head_step) || values != a->keys ||
        (size_t)query.sizes[2] != op->heads * depth)
        return wrong(op->api, "MultiHead: query, key and value have other sizes than their heads");
    if (!a->keys) return wrong(op->api, "MultiHead: expected at least one key");
    a->head = head_of(depth, value_depth);
    a->key_batch_step = a->keys * op->heads * depth;
    a->value_batch_step = a->keys * op->heads * value_depth;
    a->tokens.keys = key.data;
    a->tokens.values = value.data;
    run->query = query.data;
    return NULL;
}

/* masks [batch][keys], or [batch][length][keys] for a mask of three dimensions. */
static OrtStatus *read_masks(const Op *op, Attention *a, const Tensor *mask, float *masks)
{
    const int32_t *given = (const int32_t *)mask->data;
    const int64_t batch = (int64_t)a->batch, length = (int64_t)a->length, keys = (int64_t)a->keys;
    const size_t rows = mask->rank == 3 ? a->batch * a->length : a->batch;
    if (!mask->rank) return NULL;
    if (!HAS_SHAPE(*mask, batch) && !HAS_SHAPE(*mask, batch, keys) && !HAS_SHAPE(*mask, batch, length, keys))
        return wrong(op->api, "MultiHead: expected a mask for each row, key, or query and key");
    for (size_t row = 0; row < rows; row++)
        for (size_t key = 0; key < a->keys; key++) {
            const int seen = mask->rank == 1 ? (int64_t)key < given[row] : given[row * a->keys + key] > 0;
            masks[row * a->keys + key] = seen ? 0 : op->masked;
        }
    a->masks = mask->rank == 3 ? (Bias){masks, a->length * a->keys, 0, a->keys} : (Bias){masks, a->keys, 0, 0};
    return NULL;
}

/* Leaves out the keys behind the last one that a row sees, as they weigh nothing: with `pasts` [batch] the first query
 * sees those up to it, and each further one a key more, which its mask hides. */
static void leave_out_hidden(const Op *op, Attention *a, size_t *pasts)
{
    if (!a->masks.numbers || a->masks.query_step || op->masked > WEIGHS_NOTHING) return;
    for (size_t row = 0; row < a->batch; row++) {
        const float *masks = a->masks.numbers + row * a->keys;
        size_t seen = a->keys;
        while (seen && masks[seen - 1] != 0) seen--;
        if (!seen || seen - 1 + a->length > a->keys) return; /* where all are hidden, all weigh the same */
        pasts[row] = seen - 1;
    }
    a->pasts = pasts;
}

static OrtStatus *run_with(const Op *op, Run *run, OrtKernelContext *context, const Tensor *mask, char *buffer)
{
    Attention *a = &run->attention;
    OrtValue *out = NULL;
    size_t *pasts = (size_t *)buffer;
    run->queries = (float *)(pasts + a->batch);
    TRY(read_bias(op->api, context, INPUT_BIAS, a, a->keys));
    TRY(read_masks(op, a, mask, run->queries + a->batch * a->length * op->heads * a->head.depth));
    leave_out_hidden(op, a, pasts);
    const int64_t sizes[] = {(int64_t)a->batch, (int64_t)a->length, (int64_t)(op->heads * a->head.value_depth)};
    TRY(ORT(op->api, KernelContext_GetOutput)(context, 0, sizes, 3, &out));
    TRY(ORT(op->api, GetTensorMutableData)(out, (void **)&a->out));
    run->factor = query_factor(&a->head, op->scale == 0 ? 1.0f / sqrtf((float)a->head.depth) : op->scale, 0);
    const size_t items = a->batch * ((a->length + TOKENS_EACH - 1) / TOKENS_EACH);
    TRY(in_parallel(op->api, context, scale_item, items, run));
    a->queries = run->queries;
    return items ? attend(op->api, context, a) : NULL;
}

static OrtStatus *compute(void *state, OrtKernelContext *context)
{
    const Op *op = state;
    Run run = {.attention = {.kernels = &op->kernels->attention}};
    const Attention *a = &run.attention;
    Tensor mask;
    TRY(read_tensors(op, &run, context));
    TRY(op_input(op->api, context, INPUT_MASK, &mask));
    const size_t masks = a->batch * a->keys * (mask.rank == 3 ? a->length : 1);
    const size_t numbers = a->batch * a->length * op->heads * a->head.depth + masks;
    char *buffer = scratch_take(a->batch * sizeof(size_t) + numbers * sizeof(float));
    if (!buffer) return no_memory(op->api);
    OrtStatus *status = run_with(op, &run, context, &mask, buffer);
    scratch_give_back(buffer);
    return status;
}

static const char *name(const OrtCustomOp *op) { (void)op; return "MultiHead"; }
static size_t inputs(const OrtCustomOp *op) { (void)op; return INPUTS; }
static size_t outputs(const OrtCustomOp *op) { (void)op; return 1; }
static int output_type(const OrtCustomOp *op, size_t i) { (void)op; (void)i; return ORT_FLOAT; }
static int input_type(const OrtCustomOp *op, size_t i) { (void)op; return i == INPUT_MASK ? ORT_INT32 : ORT_FLOAT; }
static int needed(const OrtCustomOp *op, size_t i) { (void)op; return i > INPUT_VALUE ? ORT_OPTIONAL : ORT_REQUIRED; }

const OrtCustomOp multi_head_op = {
    .version = ORT_VERSION,
    .GetName = name,
    .GetExecutionProviderType = op_provider,
    .GetInputType = input_type,
    .GetInputTypeCount = inputs,
    .GetOutputType = output_type,
    .GetOutputTypeCount = outputs,
    .KernelDestroy = free,
    .GetInputCharacteristic = needed,
    .GetOutputCharacteristic = op_required,
    .GetInputMemoryType = op_memory,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .GetStartVersion = op_from_first,
    .GetEndVersion = op_to_last,
};
