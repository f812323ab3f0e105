/* The op Experts: rows [..., hidden] float32, sorted by expert, and sizes [experts] int64, how many of them each expert
 * gets, to [..., hidden] float32: down(activation(gate(row)) x up(row)) of each row's expert, or with the attribute `limit`
 * what layer.h says. An expert without rows takes no time, and none of its weights is read.
 *
 * Each of the three is what BlockLinear computes, to the same bits. Attributes: `hidden`; `size`, the outputs of gate and
 * up; `activation` (a number of Activation), `alpha`, `limit`.
 *
 * All weights are bytes of one constant, as they lie in a file, followed by those of another. `places` [experts, 3, 6]
 * int64, a constant, says where: of gate, up and down each bits, block size, and at which byte weights, scales, zero points
 * and bias begin, -1 for none. They are packed once, when the graph is loaded. */
#include "experts_op.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "layer.h"
#include "matrix.h"
#include "op.h"
#include "pages.h"

enum { INPUT_ROWS, INPUT_SIZES, INPUT_FILE, INPUT_MORE, INPUT_PLACES, INPUTS };
enum { GATE, UP, DOWN, MATRICES };
enum { BITS, BLOCK_SIZE, WEIGHTS, SCALES, ZEROS, BIAS, PLACES };
enum { FEW_ROWS = 8, ITEM_BYTES = 1 << 16, ITEM_VALUES = 1 << 14, LARGEST = 1 << 30 };

typedef struct { Matrix of[MATRICES]; } Expert;

typedef struct {
    const OrtApi *api;
    const Kernels *kernels;
    size_t count, hidden, size;
    size_t blocks; /* of any row, at most */
    Activation activation;
    float alpha, limit;
    Expert *experts;
} Op;

static void destroy(void *state)
{
    Op *op = state;
    if (!op) return;
    for (size_t e = 0; op->experts && e < op->count; e++)
        for (int i = 0; i < MATRICES; i++) free_matrix(&op->experts[e].of[i]);
    free(op->experts);
    free(op);
}

typedef struct { Constant file, more, places; } Weights;

/* The bytes from `place` on, NULL for none; *fits becomes 0 where so many are not there. */
static const void *bytes_at(const Weights *w, int64_t place, size_t count, int *fits)
{
    if (place < 0) return NULL;
    const int behind = (uint64_t)place >= w->file.elements;
    const Constant *from = behind ? &w->more : &w->file;
    const size_t at = (size_t)place - (behind ? w->file.elements : 0);
    if (at > from->elements || count > from->elements - at || at % sizeof(float)) *fits = 0;
    return *fits ? (const char *)from->data + at : NULL;
}

static OrtStatus *fill_matrix(const Op *op, Matrix *m, const Weights *w, const int64_t *place, size_t depth, size_t columns)
{
    const int64_t block = place[BLOCK_SIZE], bits = place[BITS];
    if (block < 0 || block > LARGEST_BLOCK || bits < 0 || bits > 8 || !set_sizes(m, depth, columns, (size_t)block, (size_t)bits))
        return wrong(op->api, "Experts: expected 4 or 8 bits and blocks of a multiple of 16, at most 256");
    int fits = 1;
    const Packing stored = {
        bytes_at(w, place[WEIGHTS], stored_weights(m), &fits), bytes_at(w, place[SCALES], stored_scales(m), &fits),
        bytes_at(w, place[ZEROS], stored_zeros(m), &fits), bytes_at(w, place[BIAS], columns * sizeof(float), &fits),
    };
    if (!fits || !stored.weights || !stored.scales) return wrong(op->api, "Experts: weights are not where they should be");
    return pack_matrix(m, stored) ? NULL : no_memory(op->api);
}

static OrtStatus *fill_expert(Op *op, Expert *expert, const Weights *w, const int64_t *places)
{
    for (int i = 0; i < MATRICES; i++) {
        const size_t depth = i == DOWN ? op->size : op->hidden, columns = i == DOWN ? op->hidden : op->size;
        TRY(fill_matrix(op, &expert->of[i], w, places + i * PLACES, depth, columns));
        op->blocks = expert->of[i].blocks > op->blocks ? expert->of[i].blocks : op->blocks;
    }
    return expert->of[GATE].block == expert->of[UP].block ? NULL : wrong(op->api, "Experts: gate and up have other blocks");
}

static OrtStatus *fill(Op *op, const OrtKernelInfo *info)
{
    const OrtApi *api = op->api;
    Weights w;
    const int64_t hidden = whole_number_or(api, info, "hidden", 0), size = whole_number_or(api, info, "size", 0);
    const int64_t activation = whole_number_or(api, info, "activation", PLAIN);
    if (hidden < 1 || hidden > LARGEST || size < 1 || size > LARGEST || activation < PLAIN || activation >= ACTIVATIONS)
        return wrong(api, "Experts: an attribute is out of range");
    op->hidden = (size_t)hidden;
    op->size = (size_t)size;
    op->activation = (Activation)activation;
    op->alpha = number_or(api, info, "alpha", 1);
    op->limit = number_or(api, info, "limit", 0);
    TRY(constant_input(api, info, INPUT_FILE, &w.file));
    TRY(constant_input(api, info, INPUT_MORE, &w.more));
    TRY(constant_input(api, info, INPUT_PLACES, &w.places));
    const size_t each = MATRICES * PLACES;
    if (w.file.type != ORT_UINT8 || (w.more.data && w.more.type != ORT_UINT8) || w.places.type != ORT_INT64)
        return wrong(api, "Experts: weights are no constants of bytes");
    if (!w.places.elements || w.places.elements % each) return wrong(api, "Experts: places of another shape");
    op->experts = calloc(w.places.elements / each, sizeof *op->experts);
    if (!op->experts) return no_memory(api);
    op->count = w.places.elements / each;
    for (size_t e = 0; e < op->count; e++)
        TRY(fill_expert(op, &op->experts[e], &w, (const int64_t *)w.places.data + e * each));
    drop_file_pages(w.file.data, w.file.elements); /* those that two weights share, and what was read ahead */
    return NULL;
}

static OrtStatus *create(const OrtCustomOp *custom, const OrtApi *api, const OrtKernelInfo *info, void **state)
{
    (void)custom;
    const Kernels *kernels = chosen_kernels();
    if (!kernels) return wrong(api, "EDGELLM_KERNELS names an instruction set that this processor has not");
    Op *op = calloc(1, sizeof *op);
    if (!op) return no_memory(api);
    op->api = api;
    op->kernels = kernels;
    OrtStatus *status = fill(op, info);
    if (status) destroy(op);
    else *state = op;
    return status;
}

/* Rows of one expert that are computed together. */
typedef struct { const Expert *expert; size_t first, count; } Group;

/* One run, in two stages: gate and up of all rows, then down. */
typedef struct {
    const Op *op;
    const Group *groups;
    size_t rows, group_count, most; /* rows of a group */
    int is_down;
    const float *x;
    float *out;
    size_t depth, rows_each, tiles_each; /* of x; of an item */
    Rounded rounded; /* of each row `stride` bytes and op->blocks cells */
    size_t stride;
} Run;

static const Matrix *matrix_of(const Run *run, const Group *group) { return &group->expert->of[run->is_down ? DOWN : GATE]; }

/* Where the rounded rows of a group begin: rows of groups before it take as much as they may. */
static Rounded rounded_of(const Run *run, const Group *group)
{
    const size_t row = group->first, blocks = run->op->blocks;
    return (Rounded){run->rounded.values + row * run->stride, run->rounded.scales + row * blocks, run->rounded.sums + row * blocks};
}

static void round_item(void *data, size_t item)
{
    const Run *run = data;
    const Group *group = &run->groups[item % run->group_count];
    const size_t row = item / run->group_count * run->rows_each;
    if (row >= group->count) return;
    const Matrix *m = matrix_of(run, group);
    const Rounded to = rounded_from(rounded_of(run, group), m, row);
    const float *x = run->x + (group->first + row) * run->depth;
    run->op->kernels->rounds(m, x, at_most(group->count - row, run->rows_each), to);
}

static size_t items_of_group(const Run *run)
{
    const size_t columns = run->is_down ? run->op->hidden : run->op->size, tiles = (columns + TILE - 1) / TILE;
    return (tiles + run->tiles_each - 1) / run->tiles_each;
}

/* An expert's tiles follow each other. */
static void multiply_item(void *data, size_t item)
{
    const Run *run = data;
    const size_t items = items_of_group(run);
    const Group *group = &run->groups[item / items];
    const Matrix *m = matrix_of(run, group);
    const Op *op = run->op;
    const Layer gated = {op->kernels, m, &group->expert->of[UP], op->activation, op->alpha, op->limit};
    const Layer down = {op->kernels, m, NULL, PLAIN, 1, 0};
    const size_t tile = item % items * run->tiles_each, last = at_most(tile + run->tiles_each, m->tiles);
    const Rounded rounded = rounded_of(run, group);
    for (size_t t = tile; t < last; t++) {
        const uint8_t *next = t + 1 < m->tiles ? m->weights + (t + 1) * tile_bytes(m) : NULL;
        multiply_tile(run->is_down ? &down : &gated, t, rounded, group->count, next, NULL, run->out + group->first * m->columns);
    }
}

static OrtStatus *stage(Run *run, const OrtKernelContext *context)
{
    const OrtApi *api = run->op->api;
    run->rows_each = ITEM_VALUES / run->depth + 1;
    const size_t rounds = (run->most + run->rows_each - 1) / run->rows_each * run->group_count;
    if (run->rows <= run->rows_each) /* so few that asking for threads takes longer */
        for (size_t i = 0; i < rounds; i++) round_item(run, i);
    else TRY(in_parallel(api, context, round_item, rounds, run));
    const int few = run->rows <= FEW_ROWS * run->group_count;
    run->tiles_each = few ? ITEM_BYTES / (TILE * run->depth) + 1 : 1;
    return in_parallel(api, context, multiply_item, run->group_count * items_of_group(run), run);
}

static size_t groups_of(const Op *op, const int64_t *sizes, Group *groups, size_t *most)
{
    size_t count = 0, row = 0;
    for (size_t e = 0; e < op->count; e++)
        for (size_t left = (size_t)sizes[e], each; left; left -= each, row += each) {
            each = at_most(left, ROW_GROUP);
            *most = each > *most ? each : *most;
            groups[count++] = (Group){&op->experts[e], row, each};
        }
    return count;
}

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* What two stages need: rounded rows, what gate and up make, groups. */
static OrtStatus *both_stages(Run *run, const int64_t *sizes, OrtKernelContext *context)
{
    const Op *op = run->op;
    const size_t longest = op->hidden > op->size ? op->hidden : op->size, cells = run->rows * op->blocks;
    run->stride = aligned(longest + LARGEST_BLOCK);
    const size_t values = run->rows * run->stride, floats = aligned(cells * sizeof(float));
    const size_t inner = aligned(run->rows * op->size * sizeof(float));
    char *buffer = scratch_take(values + 2 * floats + inner + (op->count + run->rows / ROW_GROUP) * sizeof(Group));
    if (!buffer) return no_memory(op->api);
    float *between = (float *)(buffer + values + 2 * floats), *out = run->out;
    Group *groups = (Group *)((char *)between + inner);
    run->rounded = (Rounded){(int8_t *)buffer, (float *)(buffer + values), (int32_t *)(buffer + values + floats)};
    run->groups = groups;
    run->group_count = groups_of(op, sizes, groups, &run->most);
    run->depth = op->hidden;
    run->out = between;
    OrtStatus *status = stage(run, context);
    run->is_down = 1;
    run->depth = op->size;
    run->x = between;
    run->out = out;
    if (!status) status = stage(run, context);
    scratch_give_back(buffer);
    return status;
}

static OrtStatus *compute(void *state, OrtKernelContext *context)
{
    const Op *op = state;
    Run run = {.op = op, .rows = 1};
    OrtValue *out = NULL;
    Tensor x, counts;
    TRY(op_input(op->api, context, INPUT_ROWS, &x));
    TRY(op_input(op->api, context, INPUT_SIZES, &counts));
    if (!x.rank || (size_t)x.sizes[x.rank - 1] != op->hidden) return wrong(op->api, "Experts: rows have another size");
    if (!HAS_SHAPE(counts, (int64_t)op->count)) return wrong(op->api, "Experts: expected a size for each expert");
    for (size_t i = 0; i + 1 < x.rank; i++) run.rows *= (size_t)x.sizes[i];
    const int64_t *sizes = (const int64_t *)(const void *)counts.data;
    int64_t left = (int64_t)run.rows;
    for (size_t e = 0; e < op->count; left -= sizes[e++])
        if (sizes[e] < 0 || sizes[e] > left) return wrong(op->api, "Experts: sizes do not add up to the rows");
    if (left) return wrong(op->api, "Experts: sizes do not add up to the rows");
    TRY(ORT(op->api, KernelContext_GetOutput)(context, 0, x.sizes, x.rank, &out));
    TRY(ORT(op->api, GetTensorMutableData)(out, (void **)&run.out));
    run.x = x.data;
    return run.rows ? both_stages(&run, sizes, context) : NULL;
}

static const char *name(const OrtCustomOp *op) { (void)op; return "Experts"; }
static size_t inputs(const OrtCustomOp *op) { (void)op; return INPUTS; }
static size_t outputs(const OrtCustomOp *op) { (void)op; return 1; }
static int output_type(const OrtCustomOp *op, size_t i) { (void)op; (void)i; return ORT_FLOAT; }

static int input_type(const OrtCustomOp *op, size_t index)
{
    static const int types[INPUTS] = {ORT_FLOAT, ORT_INT64, ORT_UINT8, ORT_UINT8, ORT_INT64};
    (void)op;
    return types[index];
}

static int needed(const OrtCustomOp *op, size_t index)
{
    (void)op;
    return index == INPUT_MORE ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp experts_op = {
    .version = ORT_VERSION,
    .GetName = name,
    .GetExecutionProviderType = op_provider,
    .GetInputType = input_type,
    .GetInputTypeCount = inputs,
    .GetOutputType = output_type,
    .GetOutputTypeCount = outputs,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = needed,
    .GetOutputCharacteristic = op_required,
    .GetInputMemoryType = op_memory,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .GetStartVersion = op_from_first,
    .GetEndVersion = op_to_last,
};
