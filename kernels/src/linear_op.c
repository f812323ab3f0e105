/* The op BlockLinear: x [..., depth] float32 to [..., columns] float32. Inputs, attributes and what the numbers mean are
 * those of com.microsoft's MatMulNBits with accuracy_level 4, without g_idx: weights [columns, blocks, bytes] uint8 of 4 or
 * 8 bits, scales [columns, blocks] float32, zero_points uint8 or none (the middle), bias [columns] or none. Weights must be
 * constants: they are packed once, when the graph is loaded.
 *
 * Behind these, what else may be done in the same pass: `residual` of the output's shape is added last; a second matrix
 * (weights, scales, zero_points, bias) of the first one's sizes is multiplied by the same x, and what the attribute
 * `activation` (a number of Activation, with `alpha`) makes of the first product is multiplied by the second. */
#include "linear_op.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "layer.h"
#include "matrix.h"
#include "op.h"

enum { INPUT_X, INPUT_WEIGHTS, INPUT_SCALES, INPUT_ZEROS, INPUT_GROUPS, INPUT_BIAS, INPUT_RESIDUAL, SECOND_WEIGHTS,
       SECOND_SCALES, SECOND_ZEROS, SECOND_BIAS, INPUTS };

typedef struct {
    const OrtApi *api;
    Matrix matrix, second;
    Layer layer; /* of these */
} Linear;

static void destroy(void *state)
{
    Linear *linear = state;
    if (!linear) return;
    free_matrix(&linear->matrix);
    free_matrix(&linear->second);
    free(linear);
}

static OrtStatus *whole_number(const OrtApi *api, const OrtKernelInfo *info, const char *name, size_t *value)
{
    int64_t found = 0;
    TRY(ORT(api, KernelInfoGetAttribute_int64)(info, name, &found));
    if (found < 1 || found > (int64_t)1 << 30) return wrong(api, "BlockLinear: an attribute is out of range");
    *value = (size_t)found;
    return NULL;
}

/* The data of a constant input, NULL where there is none. */
static OrtStatus *constant(const OrtApi *api, const OrtKernelInfo *info, size_t index, int type, size_t expected,
                           const void **data)
{
    Constant found;
    TRY(constant_input(api, info, index, &found));
    *data = found.data;
    if (found.data && (found.elements != expected || found.type != type))
        return wrong(api, "BlockLinear: a weight has another size or type");
    return NULL;
}

static OrtStatus *sizes_of(const OrtApi *api, const OrtKernelInfo *info, Matrix *m)
{
    size_t depth = 0, columns = 0, block = 0, bits = 0;
    TRY(whole_number(api, info, "K", &depth));
    TRY(whole_number(api, info, "N", &columns));
    TRY(whole_number(api, info, "block_size", &block));
    TRY(whole_number(api, info, "bits", &bits));
    if (set_sizes(m, depth, columns, block, bits)) return NULL;
    return wrong(api, "BlockLinear: expected 4 or 8 bits and blocks of a multiple of 16, at most 256");
}

/* The matrix whose weights are the input `first`, and whose bias is the input `bias`. */
static OrtStatus *fill(Matrix *m, const OrtApi *api, const OrtKernelInfo *info, size_t first, size_t bias_input)
{
    const void *weights, *scales, *zeros, *bias;
    TRY(constant(api, info, first, ORT_UINT8, stored_weights(m), &weights));
    TRY(constant(api, info, first + 1, ORT_FLOAT, m->columns * m->blocks, &scales));
    TRY(constant(api, info, first + 2, ORT_UINT8, stored_zeros(m), &zeros));
    TRY(constant(api, info, bias_input, ORT_FLOAT, m->columns, &bias));
    if (!weights || !scales) return wrong(api, "BlockLinear: weights and scales must be constants");
    return pack_matrix(m, (Packing){weights, scales, zeros, bias}) ? NULL : no_memory(api);
}

static int has_input(const OrtApi *api, const OrtKernelInfo *info, size_t index)
{
    size_t count = 0;
    OrtStatus *status = ORT(api, KernelInfo_GetInputCount)(info, &count);
    if (status) ORT(api, ReleaseStatus)(status);
    return index < count;
}

static OrtStatus *fill_all(Linear *linear, const OrtKernelInfo *info)
{
    const OrtApi *api = linear->api;
    const int64_t activation = whole_number_or(api, info, "activation", PLAIN);
    if (activation < PLAIN || activation >= ACTIVATIONS) return wrong(api, "BlockLinear: an activation that is not known");
    linear->layer.activation = (Activation)activation;
    linear->layer.alpha = number_or(api, info, "alpha", 1);
    TRY(sizes_of(api, info, &linear->matrix));
    const Matrix sizes = linear->matrix;
    TRY(fill(&linear->matrix, api, info, INPUT_WEIGHTS, INPUT_BIAS));
    if (!has_input(api, info, SECOND_WEIGHTS)) return NULL;
    linear->second = sizes;
    linear->layer.second = &linear->second;
    return fill(&linear->second, api, info, SECOND_WEIGHTS, SECOND_BIAS);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **state)
{
    (void)op;
    const Kernels *kernels = chosen_kernels();
    if (!kernels) return wrong(api, "EDGELLM_KERNELS names an instruction set that this processor has not");
    Linear *linear = calloc(1, sizeof *linear);
    if (!linear) return no_memory(api);
    linear->api = api;
    linear->layer = (Layer){.kernels = kernels, .matrix = &linear->matrix};
    OrtStatus *status = fill_all(linear, info);
    if (status) destroy(linear);
    else *state = linear;
    return status;
}

/* One run: what its items, done by ONNX Runtime's threads, share. */
enum { FEW_ROWS = 8, ITEM_BYTES = 1 << 16, ITEM_VALUES = 1 << 14 };

typedef struct {
    const Linear *linear;
    const float *x, *residual; /* NULL: there is none */
    float *out;
    size_t rows, rows_each, tiles_each, groups; /* of rows */
    Rounded rounded;
} Run;

static void round_item(void *data, size_t item)
{
    const Run *run = data;
    const size_t first = item * run->rows_each, count = at_most(run->rows - first, run->rows_each);
    const Matrix *m = &run->linear->matrix;
    run->linear->layer.kernels->rounds(m, run->x + first * m->depth, count, rounded_from(run->rounded, m, first));
}

static void multiply_item(void *data, size_t item)
{
    const Run *run = data;
    const Matrix *m = &run->linear->matrix;
    const size_t first = item % run->groups * ROW_GROUP, count = at_most(run->rows - first, ROW_GROUP);
    const size_t tile = item / run->groups * run->tiles_each, last = at_most(tile + run->tiles_each, m->tiles);
    const float *residual = run->residual ? run->residual + first * m->columns : NULL;
    const Rounded rounded = rounded_from(run->rounded, m, first);
    for (size_t t = tile; t < last; t++) {
        /* With several groups of rows the next item reads the same tile. */
        const int goes_on = t + 1 < m->tiles && run->groups == 1;
        const uint8_t *next = goes_on ? m->weights + (t + 1) * tile_bytes(m) : NULL;
        multiply_tile(&run->linear->layer, t, rounded, count, next, residual, run->out + first * m->columns);
    }
}

static OrtStatus *multiply(Run *run, OrtKernelContext *context)
{
    const OrtApi *api = run->linear->api;
    const Matrix *m = &run->linear->matrix;
    const size_t stride = m->blocks * m->block, cells = run->rows * m->blocks;
    const size_t value_bytes = (run->rows * stride + 63) / 64 * 64;
    char *buffer = scratch_take(value_bytes + cells * 8);
    if (!buffer) return no_memory(api);
    run->rounded = (Rounded){(int8_t *)buffer, (float *)(buffer + value_bytes), (int32_t *)(buffer + value_bytes + cells * 4)};
    run->rows_each = ITEM_VALUES / m->depth + 1;
    OrtStatus *status = in_parallel(api, context, round_item, (run->rows + run->rows_each - 1) / run->rows_each, run);
    if (!status) {
        run->groups = (run->rows + ROW_GROUP - 1) / ROW_GROUP;
        run->tiles_each = run->rows > FEW_ROWS ? 1 : ITEM_BYTES / tile_bytes(m) + 1;
        const size_t items = (m->tiles + run->tiles_each - 1) / run->tiles_each;
        status = in_parallel(api, context, multiply_item, run->groups * items, run); /* a tile stays near for all groups */
    }
    scratch_give_back(buffer);
    return status;
}

/* The data of an input that may be left out; NULL where it is. */
static OrtStatus *optional_rows(const OrtApi *api, OrtKernelContext *context, size_t index, size_t elements, const float **rows)
{
    const OrtValue *value = NULL;
    size_t count = 0, found = 0;
    *rows = NULL;
    TRY(ORT(api, KernelContext_GetInputCount)(context, &count));
    if (index >= count) return NULL;
    TRY(ORT(api, KernelContext_GetInput)(context, index, &value));
    if (!value) return NULL;
    OrtTensorInfo *shape = NULL;
    TRY(ORT(api, GetTensorTypeAndShape)(value, &shape));
    OrtStatus *status = ORT(api, GetTensorShapeElementCount)(shape, &found);
    ORT(api, ReleaseTensorTypeAndShapeInfo)(shape);
    if (status) return status;
    if (found != elements) return wrong(api, "BlockLinear: the residual has another shape than the output");
    return ORT(api, GetTensorMutableData)((OrtValue *)value, (void **)rows);
}

static OrtStatus *compute(void *state, OrtKernelContext *context)
{
    Run run = {.linear = state, .rows = 1};
    const OrtApi *api = run.linear->api;
    const Matrix *m = &run.linear->matrix;
    const OrtValue *x = NULL;
    OrtValue *out = NULL;
    int64_t sizes[MOST_DIMENSIONS];
    size_t rank = 0;
    TRY(ORT(api, KernelContext_GetInput)(context, INPUT_X, &x));
    TRY(dimensions(api, x, sizes, &rank));
    if (!rank || (size_t)sizes[rank - 1] != m->depth) return wrong(api, "BlockLinear: the input's last dimension is not K");
    for (size_t i = 0; i + 1 < rank; i++) run.rows *= (size_t)sizes[i];
    sizes[rank - 1] = (int64_t)m->columns;
    TRY(optional_rows(api, context, INPUT_RESIDUAL, run.rows * m->columns, &run.residual));
    TRY(ORT(api, KernelContext_GetOutput)(context, 0, sizes, rank, &out));
    TRY(ORT(api, GetTensorMutableData)((OrtValue *)x, (void **)&run.x));
    TRY(ORT(api, GetTensorMutableData)(out, (void **)&run.out));
    return run.rows ? multiply(&run, context) : NULL;
}

static const char *name(const OrtCustomOp *op) { (void)op; return "BlockLinear"; }
static size_t inputs(const OrtCustomOp *op) { (void)op; return INPUTS; }
static size_t outputs(const OrtCustomOp *op) { (void)op; return 1; }
static int output_type(const OrtCustomOp *op, size_t i) { (void)op; (void)i; return ORT_FLOAT; }

static int input_type(const OrtCustomOp *op, size_t index)
{
    static const int types[INPUTS] = {ORT_FLOAT, ORT_UINT8, ORT_FLOAT, ORT_UINT8, ORT_INT32, ORT_FLOAT,
                                      ORT_FLOAT, ORT_UINT8, ORT_FLOAT, ORT_UINT8, ORT_FLOAT};
    (void)op;
    return types[index];
}

static int optional_behind_scales(const OrtCustomOp *op, size_t index)
{
    (void)op;
    return index > INPUT_SCALES ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp linear_op = {
    .version = ORT_VERSION,
    .GetName = name,
    .GetExecutionProviderType = op_provider,
    .GetInputType = input_type,
    .GetInputTypeCount = inputs,
    .GetOutputType = output_type,
    .GetOutputTypeCount = outputs,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = optional_behind_scales,
    .GetOutputCharacteristic = op_required,
    .GetInputMemoryType = op_memory,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .GetStartVersion = op_from_first,
    .GetEndVersion = op_to_last,
};
