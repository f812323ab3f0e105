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
#include "linear.h"
#include "op.h"
#include "pages.h"

enum { INPUT_X, INPUT_WEIGHTS, INPUT_SCALES, INPUT_ZEROS, INPUT_GROUPS, INPUT_BIAS, INPUT_RESIDUAL, SECOND_WEIGHTS,
       SECOND_SCALES, SECOND_ZEROS, SECOND_BIAS, INPUTS };

typedef struct {
    const OrtApi *api;
    const Kernels *kernels;
    Matrix matrix, second; /* without weights: there is no second */
    Activation activation;
    float alpha;
} Linear;

static void destroy_matrix(Matrix *m)
{
    arena_free(m->weights);
    arena_free(m->scales);
    arena_free(m->zeros);
    arena_free(m->bias);
}

static void destroy(void *state)
{
    Linear *linear = state;
    if (!linear) return;
    destroy_matrix(&linear->matrix);
    destroy_matrix(&linear->second);
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

/* Eight levels of four bits as the kernels read them, the first four in the low halves of the bytes, from four bytes that
 * hold two each, one behind the other. */
static uint32_t in_halves(uint32_t pairs)
{
    const uint32_t first = pairs & 0xffffu, second = pairs >> 16;
    const uint32_t low = (first & 0x0f0fu) | (second & 0x0f0fu) << 4; /* levels 0 and 4, 2 and 6 */
    const uint32_t high = (first >> 4 & 0x0f0fu) | (second & 0xf0f0u); /* 1 and 5, 3 and 7 */
    return (low & 0xffu) | (high & 0xffu) << 8 | (low >> 8) << 16 | (high >> 8) << 24;
}

/* Four bytes of each column side by side; AT_ONCE of a column at a time, so that what is read and written stays near. */
static void pack_weights(Matrix *m, const uint8_t *stored)
{
    enum { AT_ONCE = 16 };
    const size_t row = m->blocks * m->block * m->bits / 8, words = row / 4;
    for (size_t tile = 0; tile < m->tiles; tile++) {
        const size_t width = at_most(m->columns - tile * TILE, TILE); /* zeros behind them */
        uint8_t *to = m->weights + tile * TILE * row;
        for (size_t first = 0; first < words; first += AT_ONCE)
            for (size_t c = 0; c < width; c++)
                for (size_t word = first; word < at_most(first + AT_ONCE, words); word++) {
                    uint32_t four;
                    memcpy(&four, stored + (tile * TILE + c) * row + word * 4, 4);
                    if (m->bits == 4) four = in_halves(four);
                    memcpy(to + (word * TILE + c) * 4, &four, 4);
                }
    }
}

static uint8_t zero_point(const Matrix *m, const uint8_t *stored, size_t column, size_t b)
{
    if (m->bits == 8) return stored[column * m->blocks + b];
    const uint8_t pair = stored[column * ((m->blocks + 1) / 2) + b / 2];
    return b % 2 ? pair >> 4 : pair & 15;
}

static void pack_blocks(Matrix *m, const float *scales, const uint8_t *zeros)
{
    for (size_t column = 0; column < m->columns; column++)
        for (size_t b = 0; b < m->blocks; b++) {
            const size_t to = ((column / TILE) * m->blocks + b) * TILE + column % TILE;
            m->scales[to] = scales[column * m->blocks + b];
            if (zeros) m->zeros[to] = zero_point(m, zeros, column, b);
        }
}

static OrtStatus *sizes_of(const OrtApi *api, const OrtKernelInfo *info, Matrix *m)
{
    size_t bits = 0;
    TRY(whole_number(api, info, "K", &m->depth));
    TRY(whole_number(api, info, "N", &m->columns));
    TRY(whole_number(api, info, "block_size", &m->block));
    TRY(whole_number(api, info, "bits", &bits));
    if ((bits != 4 && bits != 8) || m->block % 16 || m->block > LARGEST_BLOCK)
        return wrong(api, "BlockLinear: expected 4 or 8 bits and blocks of a multiple of 16, at most 256");
    m->bits = (int)bits;
    m->blocks = (m->depth + m->block - 1) / m->block;
    m->tiles = (m->columns + TILE - 1) / TILE;
    return NULL;
}

/* The matrix whose weights are the input `first`, and whose bias is the input `bias`. */
static OrtStatus *fill(Matrix *m, const OrtApi *api, const OrtKernelInfo *info, size_t first, size_t bias_input)
{
    const void *weights, *scales, *zeros, *bias;
    const size_t weight_bytes = m->columns * m->blocks * m->block * m->bits / 8, padded = m->tiles * TILE;
    const size_t zero_bytes = m->columns * (m->bits == 8 ? m->blocks : (m->blocks + 1) / 2);
    TRY(constant(api, info, first, ORT_UINT8, weight_bytes, &weights));
    TRY(constant(api, info, first + 1, ORT_FLOAT, m->columns * m->blocks, &scales));
    TRY(constant(api, info, first + 2, ORT_UINT8, zero_bytes, &zeros));
    TRY(constant(api, info, bias_input, ORT_FLOAT, m->columns, &bias));
    if (!weights || !scales) return wrong(api, "BlockLinear: weights and scales must be constants");
    m->weights = arena_take(padded * m->blocks * m->block * m->bits / 8);
    m->scales = arena_take(padded * m->blocks * sizeof *m->scales);
    m->zeros = zeros ? arena_take(padded * m->blocks) : NULL;
    m->bias = bias ? arena_take(padded * sizeof *m->bias) : NULL;
    if (!m->weights || !m->scales || (zeros && !m->zeros) || (bias && !m->bias)) return no_memory(api);
    pack_weights(m, weights);
    pack_blocks(m, scales, zeros);
    drop_file_pages(weights, weight_bytes);
    drop_file_pages(scales, m->columns * m->blocks * sizeof *m->scales);
    if (bias) memcpy(m->bias, bias, m->columns * sizeof *m->bias);
    return NULL;
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
    linear->activation = (Activation)activation;
    linear->alpha = number_or(api, info, "alpha", 1);
    TRY(sizes_of(api, info, &linear->matrix));
    const Matrix sizes = linear->matrix;
    TRY(fill(&linear->matrix, api, info, INPUT_WEIGHTS, INPUT_BIAS));
    if (!has_input(api, info, SECOND_WEIGHTS)) return NULL;
    linear->second = sizes;
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
    linear->kernels = kernels;
    OrtStatus *status = fill_all(linear, info);
    if (status) destroy(linear);
    else *state = linear;
    return status;
}

/* One run: what its items, done by ONNX Runtime's threads, share. */
enum { ROW_GROUP = 128, FEW_ROWS = 8, ITEM_BYTES = 1 << 16, ITEM_VALUES = 1 << 14 };

typedef struct {
    const Linear *linear;
    const float *x, *residual; /* NULL: there is none */
    float *out;
    size_t rows, rows_each, tiles_each, groups; /* of rows */
    Rounded rounded;
} Run;

static Rounded from_row(const Run *run, size_t row)
{
    const Matrix *m = &run->linear->matrix;
    return (Rounded){
        run->rounded.values + row * m->blocks * m->block,
        run->rounded.scales + row * m->blocks,
        run->rounded.sums + row * m->blocks,
    };
}

static void round_item(void *data, size_t item)
{
    const Run *run = data;
    const size_t first = item * run->rows_each, count = at_most(run->rows - first, run->rows_each);
    const Matrix *m = &run->linear->matrix;
    run->linear->kernels->rounds(m, run->x + first * m->depth, count, from_row(run, first));
}

static void add_residual(const Run *run, size_t column, size_t width, size_t first, size_t count)
{
    const size_t columns = run->linear->matrix.columns;
    for (size_t r = first; r < first + count; r++) {
        float *out = run->out + r * columns + column;
        const float *residual = run->residual + r * columns + column;
        for (size_t i = 0; i < width; i++) out[i] += residual[i];
    }
}

static void multiply_tile(const Run *run, size_t tile, size_t first, size_t count)
{
    const Linear *linear = run->linear;
    const Matrix *m = &linear->matrix;
    const Rounded rounded = from_row(run, first);
    const size_t width = at_most(m->columns - tile * TILE, TILE);
    float *out = run->out + first * m->columns + tile * TILE;
    float whole[ROW_GROUP * TILE], gated[ROW_GROUP * TILE];
    const int is_gated = linear->second.weights != NULL;
    float *to = width == TILE ? out : whole;
    const size_t stride = width == TILE ? m->columns : TILE;
    /* With several groups of rows the next item reads the same tile. */
    const int goes_on = tile + 1 < m->tiles && run->groups == 1;
    const uint8_t *next = goes_on ? m->weights + (tile + 1) * tile_bytes(m) : NULL;
    const uint8_t *other = is_gated ? linear->second.weights + tile * tile_bytes(m) : next;
    linear->kernels->multiplies(m, tile, rounded, count, other, to, stride);
    if (is_gated) linear->kernels->multiplies(&linear->second, tile, rounded, count, next, gated, TILE);
    if (linear->activation || is_gated)
        linear->kernels->activates(to, stride, count, linear->activation, linear->alpha, is_gated ? gated : NULL);
    for (size_t r = 0; r < count && to == whole; r++) memcpy(out + r * m->columns, whole + r * TILE, width * sizeof *out);
    if (run->residual) add_residual(run, tile * TILE, width, first, count);
}

static void multiply_item(void *data, size_t item)
{
    const Run *run = data;
    const size_t first = item % run->groups * ROW_GROUP, count = at_most(run->rows - first, ROW_GROUP);
    const size_t tile = item / run->groups * run->tiles_each;
    const size_t last = at_most(tile + run->tiles_each, run->linear->matrix.tiles);
    for (size_t t = tile; t < last; t++) multiply_tile(run, t, first, count);
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
