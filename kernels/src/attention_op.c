/* The op Attention: inputs, attributes, outputs and what they mean are those of com.microsoft's GroupQueryAttention in
 * float32: queries, keys and values apart or in one, rotary tables or none, a window, softcap, bias, sinks; the cache as
 * it is when past and present are the same memory, else copied. AttentionInt8 has a cache of int8, and what its numbers
 * are multiplied by: one number for all, or one for each channel of a head. AttentionBfloat16 has one of bfloat16, whose
 * bits are those of ONNX Runtime's uint16. Keys and values are rounded before any token looks at them. */
#include "attention_op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "attention_run.h"
#include "linear.h"
#include "op.h"

enum {
    INPUT_QUERY, INPUT_KEY, INPUT_VALUE, INPUT_PAST_KEY, INPUT_PAST_VALUE, INPUT_SEQLENS, INPUT_TOTAL, INPUT_COS,
    INPUT_SIN, INPUT_POSITIONS, INPUT_BIAS, INPUT_SINKS, INPUT_KEY_SCALE, INPUT_VALUE_SCALE, INPUTS
};
enum { OUTPUT_Y, OUTPUT_KEY, OUTPUT_VALUE, OUTPUTS };
enum { TOKENS_EACH = 16 };

typedef struct {
    const OrtApi *api;
    const Kernels *kernels;
    size_t heads, kv_heads, window;
    float scale, softcap;
    int turns, interleaved, has_zero_sink;
    Kept kept;
} Op;

/* One run. Query, key and value [batch][length][..], their tokens `row` numbers apart. */
typedef struct {
    const Op *op;
    Attention attention;
    const float *query, *key, *value;
    size_t query_row, key_row;
    float factor; /* of the queries */
    const float *cos, *sin;
    size_t half, table_rows; /* of the tables; half 0 turns nothing */
    const int64_t *positions;
    const size_t *pasts;
    size_t past_capacity, capacity;
    const char *past_key, *past_value; /* [batch][kv_heads][past_capacity][depth]; NULL where they are the present */
    char *present_key, *present_value;
    size_t number;                    /* bytes of each of those */
    const float *key_scales, *value_scales; /* [kv_heads][depth], of int8 */
    float *queries, *turned_keys; /* the latter [batch][length][kv_heads][depth], NULL for a cache of float32 */
} Run;

static void turn_halves(const float *restrict x, const float *restrict cos, const float *restrict sin, size_t half,
                        float *restrict to)
{
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = x[half + i];
        to[i] = a * cos[i] - b * sin[i];
        to[half + i] = b * cos[i] + a * sin[i];
    }
}

static void turn_pairs(const float *restrict x, const float *restrict cos, const float *restrict sin, size_t half,
                       float *restrict to)
{
    for (size_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        to[2 * i] = a * cos[i] - b * sin[i];
        to[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

static void turn_head(const Run *run, const float *x, size_t position, float *to)
{
    const size_t half = run->half, turned = 2 * half;
    const float *cos = run->cos + position * half, *sin = run->sin + position * half;
    if (half) (run->op->interleaved ? turn_pairs : turn_halves)(x, cos, sin, half, to);
    memcpy(to + turned, x + turned, (run->attention.head.depth - turned) * sizeof *to);
}

enum { STEP = 16 };

/* STEP numbers to whole ones of `scales`, ties to even; what is no number to the largest. */
static void round_step(const float *restrict x, const float *restrict scales, int8_t *restrict to)
{
    const float whole = 12582912.0f; /* 1.5 x 2^23: what is added to it loses its fraction */
    float levels[STEP];
    for (size_t i = 0; i < STEP; i++) levels[i] = x[i] / scales[i];
    for (size_t i = 0; i < STEP; i++) levels[i] = levels[i] < 127.0f ? levels[i] : 127.0f;
    for (size_t i = 0; i < STEP; i++) levels[i] = levels[i] > -128.0f ? levels[i] : -128.0f;
    for (size_t i = 0; i < STEP; i++) to[i] = (int8_t)(int32_t)((levels[i] + whole) - whole);
}

static void round_head(const float *x, const float *scales, size_t depth, int8_t *to)
{
    float rest[STEP] = {0}, units[STEP];
    int8_t rounded[STEP];
    size_t i = 0;
    for (; i + STEP <= depth; i += STEP) round_step(x + i, scales + i, to + i);
    if (i == depth) return;
    for (size_t k = 0; k < STEP; k++) units[k] = 1;
    memcpy(rest, x + i, (depth - i) * sizeof *rest);
    memcpy(units, scales + i, (depth - i) * sizeof *units);
    round_step(rest, units, rounded);
    memcpy(to + i, rounded, depth - i);
}

/* Ties to even; what is no number becomes the same NaN everywhere. */
static void round_to_bfloat16(const float *restrict x, size_t depth, uint16_t *restrict to)
{
    for (size_t i = 0; i < depth; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, is_nan = (bits & 0x7fffffff) > 0x7f800000;
        to[i] = (uint16_t)(is_nan ? 0x7fc0 : rounded);
    }
}

/* The numbers of a head, as the cache keeps them, at `place` of it. `scales`: of int8, [kv_heads][depth]. */
static void keep_head(const Run *run, const float *x, const float *scales, size_t head, char *cache, size_t place)
{
    const size_t depth = run->attention.head.depth;
    switch (run->op->kept) {
    case KEPT_FLOAT32: memcpy((float *)cache + place, x, depth * sizeof *x); break;
    case KEPT_BFLOAT16: round_to_bfloat16(x, depth, (uint16_t *)cache + place); break;
    case KEPT_INT8: round_head(x, scales + head * depth, depth, (int8_t *)cache + place); break;
    }
}

static void store_token(const Run *run, size_t batch, size_t token)
{
    const Attention *a = &run->attention;
    const size_t depth = a->head.depth, row = batch * a->length + token, at = run->pasts[batch] + token;
    const size_t asked = run->positions ? (size_t)run->positions[row] : at;
    const size_t position = run->half ? at_most(asked, run->table_rows - 1) : 0; /* of padding, it may be any */
    for (size_t head = 0; head < a->kv_heads * a->group; head++) {
        const size_t kv_head = head / a->group, among = head % a->group;
        float *to = run->queries + (((batch * a->kv_heads + kv_head) * a->length + token) * a->group + among) * depth;
        turn_head(run, run->query + row * run->query_row + head * depth, position, to);
        for (size_t i = 0; i < depth; i++) to[i] *= run->factor;
        for (size_t i = 0; run->key_scales && i < depth; i++) to[i] *= run->key_scales[kv_head * depth + i];
    }
    for (size_t head = 0; head < a->kv_heads; head++) {
        const size_t place = ((batch * a->kv_heads + head) * run->capacity + at) * depth;
        const size_t from = row * run->key_row + head * depth;
        float *turned = run->turned_keys ? run->turned_keys + (row * a->kv_heads + head) * depth
                                         : (float *)run->present_key + place;
        turn_head(run, run->key + from, position, turned);
        if (run->turned_keys) keep_head(run, turned, run->key_scales, head, run->present_key, place);
        keep_head(run, run->value + from, run->value_scales, head, run->present_value, place);
    }
}

static void store_item(void *data, size_t item)
{
    const Run *run = data;
    const size_t length = run->attention.length, items = (length + TOKENS_EACH - 1) / TOKENS_EACH;
    const size_t first = item % items * TOKENS_EACH, last = at_most(first + TOKENS_EACH, length);
    for (size_t token = first; token < last; token++) store_token(run, item / items, token);
}

/* The cache of one head, where it moves: what was there, and zeros behind what comes. */
static void copy_item(void *data, size_t item)
{
    const Run *run = data;
    const size_t row = run->attention.head.depth * run->number, past = run->pasts[item / run->attention.kv_heads];
    const size_t from = item * run->past_capacity * row, to = item * run->capacity * row;
    const size_t end = past + run->attention.length;
    const char *olds[] = {run->past_key, run->past_value};
    char *news[] = {run->present_key, run->present_value};
    for (int side = 0; side < 2; side++) {
        if (past) memcpy(news[side] + to, olds[side] + from, past * row);
        memset(news[side] + to + end * row, 0, (run->capacity - end) * row);
    }
}

static Kept kept_by(const OrtCustomOp *op)
{
    return op == &attention_int8_op ? KEPT_INT8 : op == &attention_bfloat16_op ? KEPT_BFLOAT16 : KEPT_FLOAT32;
}

static OrtStatus *create(const OrtCustomOp *custom, const OrtApi *api, const OrtKernelInfo *info, void **state)
{
    const Kernels *kernels = chosen_kernels();
    if (!kernels) return wrong(api, "EDGELLM_KERNELS names an instruction set that this processor has not");
    const int64_t heads = whole_number_or(api, info, "num_heads", 0);
    const int64_t kv_heads = whole_number_or(api, info, "kv_num_heads", 0);
    if (heads < 1 || kv_heads < 1 || heads > 1 << 20 || heads % kv_heads)
        return wrong(api, "Attention: num_heads must be a multiple of kv_num_heads");
    Op *op = calloc(1, sizeof *op);
    if (!op) return no_memory(api);
    const int64_t window = whole_number_or(api, info, "local_window_size", -1);
    op->api = api;
    op->kernels = kernels;
    op->heads = (size_t)heads;
    op->kv_heads = (size_t)kv_heads;
    op->window = window > 0 ? (size_t)window : 0;
    op->scale = number_or(api, info, "scale", 0);
    op->softcap = number_or(api, info, "softcap", 0);
    op->turns = whole_number_or(api, info, "do_rotary", 0) == 1;
    op->interleaved = whole_number_or(api, info, "rotary_interleaved", 0) == 1;
    op->has_zero_sink = whole_number_or(api, info, "smooth_softmax", 0) == 1;
    op->kept = kept_by(custom);
    *state = op;
    return NULL;
}

static OrtStatus *read_queries(Run *run, const OrtKernelContext *context)
{
    const Op *op = run->op;
    Attention *a = &run->attention;
    Tensor query, key, value;
    TRY(op_input(op->api, context, INPUT_QUERY, &query));
    TRY(op_input(op->api, context, INPUT_KEY, &key));
    TRY(op_input(op->api, context, INPUT_VALUE, &value));
    if (query.rank != 3 || !key.rank != !value.rank)
        return wrong(op->api, "Attention: expected a query of three dimensions, with key and value or without");
    a->batch = (size_t)query.sizes[0];
    a->length = (size_t)query.sizes[1];
    const size_t heads = key.rank ? op->heads : op->heads + 2 * op->kv_heads, row = (size_t)query.sizes[2];
    a->head = head_of(row / heads, row / heads);
    const size_t kv_row = op->kv_heads * a->head.depth;
    const int64_t apart[] = {query.sizes[0], query.sizes[1], (int64_t)kv_row};
    if (!a->head.depth || row % heads || (key.rank && !(has_shape(&key, 3, apart) && has_shape(&value, 3, apart))))
        return wrong(op->api, "Attention: query, key and value have other sizes than their heads");
    run->query = query.data;
    run->key = key.rank ? key.data : query.data + op->heads * a->head.depth;
    run->value = key.rank ? value.data : run->key + kv_row;
    run->query_row = row;
    run->key_row = key.rank ? kv_row : row;
    return NULL;
}

static OrtStatus *read_cache(Run *run, OrtKernelContext *context, size_t total)
{
    const Op *op = run->op;
    const Attention *a = &run->attention;
    Tensor key, value;
    TRY(op_input(op->api, context, INPUT_PAST_KEY, &key));
    TRY(op_input(op->api, context, INPUT_PAST_VALUE, &value));
    run->past_capacity = key.rank == 4 ? (size_t)key.sizes[2] : 0;
    int64_t sizes[] = {(int64_t)a->batch, (int64_t)op->kv_heads, (int64_t)run->past_capacity, (int64_t)a->head.depth};
    const int fits = !key.rank || (has_shape(&key, 4, sizes) && has_shape(&value, 4, sizes));
    if (!fits || !key.rank != !value.rank)
        return wrong(op->api, "Attention: past keys and values have another size");
    run->capacity = run->past_capacity > total ? run->past_capacity : total;
    sizes[2] = (int64_t)run->capacity;
    OrtValue *new_key = NULL, *new_value = NULL;
    TRY(ORT(op->api, KernelContext_GetOutput)(context, OUTPUT_KEY, sizes, 4, &new_key));
    TRY(ORT(op->api, KernelContext_GetOutput)(context, OUTPUT_VALUE, sizes, 4, &new_value));
    if (!new_key || !new_value) return wrong(op->api, "Attention: expected outputs for present keys and values");
    TRY(ORT(op->api, GetTensorMutableData)(new_key, (void **)&run->present_key));
    TRY(ORT(op->api, GetTensorMutableData)(new_value, (void **)&run->present_value));
    const char *old_key = (const char *)key.data, *old_value = (const char *)value.data;
    const int stays = old_key == run->present_key && old_value == run->present_value;
    run->past_key = stays ? NULL : old_key;
    run->past_value = stays ? NULL : old_value;
    run->number = kept_size(op->kept);
    return NULL;
}

/* Each row's tokens before these. A prompt, as long as the longest row, has none before it. */
static OrtStatus *read_lengths(Run *run, const OrtKernelContext *context, size_t *pasts, size_t *total)
{
    const Op *op = run->op;
    const Attention *a = &run->attention;
    Tensor lengths, longest;
    TRY(op_input(op->api, context, INPUT_SEQLENS, &lengths));
    TRY(op_input(op->api, context, INPUT_TOTAL, &longest));
    size_t count = lengths.rank ? 1 : 0;
    for (size_t i = 0; i < lengths.rank; i++) count *= (size_t)lengths.sizes[i];
    if (count != a->batch || !longest.data)
        return wrong(op->api, "Attention: expected a length for each row, and the longest");
    const int32_t *last = (const int32_t *)lengths.data, most = *(const int32_t *)longest.data;
    for (size_t b = 0; b < a->batch; b++) {
        const int64_t before = (size_t)most == a->length ? 0 : (int64_t)last[b] + 1 - (int64_t)a->length;
        if (last[b] < 0 || last[b] >= most || before < 0)
            return wrong(op->api, "Attention: a row is longer than the longest, or shorter than what is new of it");
        pasts[b] = (size_t)before;
    }
    *total = (size_t)most;
    return NULL;
}

static OrtStatus *read_tables(Run *run, const OrtKernelContext *context)
{
    const Op *op = run->op;
    const Attention *a = &run->attention;
    Tensor cos, sin, positions;
    if (!op->turns) return NULL;
    TRY(op_input(op->api, context, INPUT_COS, &cos));
    TRY(op_input(op->api, context, INPUT_SIN, &sin));
    TRY(op_input(op->api, context, INPUT_POSITIONS, &positions));
    if (cos.rank != 2 || cos.sizes[0] < 1 || !has_shape(&sin, 2, cos.sizes) || (size_t)cos.sizes[1] * 2 > a->head.depth)
        return wrong(op->api, "Attention: the rotary tables have another size");
    if (positions.data && !HAS_SHAPE(positions, (int64_t)a->batch, (int64_t)a->length))
        return wrong(op->api, "Attention: expected a position for each token");
    run->cos = cos.data;
    run->sin = sin.data;
    run->table_rows = (size_t)cos.sizes[0];
    run->half = (size_t)cos.sizes[1];
    run->positions = (const int64_t *)positions.data;
    return NULL;
}

static OrtStatus *check_positions(const Run *run, const OrtKernelContext *context)
{
    const Attention *a = &run->attention;
    Tensor lengths;
    TRY(op_input(run->op->api, context, INPUT_SEQLENS, &lengths));
    for (size_t b = 0; run->half && b < a->batch; b++)
        for (size_t token = 0; token < a->length; token++) {
            const size_t at = run->pasts[b] + token;
            if (at > (size_t)((const int32_t *)lengths.data)[b]) break; /* padding */
            const int64_t position = run->positions ? run->positions[b * a->length + token] : (int64_t)at;
            if (position < 0 || (size_t)position >= run->table_rows)
                return wrong(run->op->api, "Attention: a position is beyond the rotary tables");
        }
    return NULL;
}

static OrtStatus *read_sinks(Run *run, const OrtKernelContext *context, float *sinks)
{
    const Op *op = run->op;
    Tensor given;
    TRY(op_input(op->api, context, INPUT_SINKS, &given));
    if (!given.data && !op->has_zero_sink) return NULL;
    if (given.data && !HAS_SHAPE(given, (int64_t)op->heads))
        return wrong(op->api, "Attention: expected a sink for each head");
    for (size_t i = 0; i < op->heads; i++) sinks[i] = given.data ? given.data[i] * LOG2_E : 0;
    run->attention.sinks = sinks;
    return NULL;
}

/* One number for all, or one for each channel, as scales [kv_heads][depth]. */
static OrtStatus *read_scales(const Run *run, const OrtKernelContext *context, size_t index, float *scales)
{
    const size_t count = run->op->kv_heads * run->attention.head.depth;
    Tensor given;
    TRY(op_input(run->op->api, context, index, &given));
    size_t elements = given.data ? 1 : 0;
    for (size_t i = 0; i < given.rank; i++) elements *= (size_t)given.sizes[i];
    if (elements != 1 && elements != count)
        return wrong(run->op->api, "Attention: expected a scale of the cache, or one for each of its channels");
    for (size_t i = 0; i < count; i++) scales[i] = given.data[elements == 1 ? 0 : i];
    return NULL;
}

static OrtStatus *store(Run *run, const OrtKernelContext *context)
{
    const Attention *a = &run->attention;
    const size_t items = a->batch * ((a->length + TOKENS_EACH - 1) / TOKENS_EACH);
    const int stays = !run->past_key && run->past_capacity;
    if (!stays) TRY(in_parallel(run->op->api, context, copy_item, a->batch * a->kv_heads, run));
    if (a->batch * a->length > TOKENS_EACH / 2) return in_parallel(run->op->api, context, store_item, items, run);
    for (size_t item = 0; item < items; item++) store_item(run, item);
    return NULL;
}

static OrtStatus *run_with(Run *run, OrtKernelContext *context, char *buffer)
{
    const Op *op = run->op;
    Attention *a = &run->attention;
    size_t total = 0, *pasts = (size_t *)buffer;
    const size_t channels = op->kv_heads * a->head.depth;
    float *sinks = (float *)(pasts + a->batch), *key_scales = sinks + op->heads, *value_scales = key_scales + channels;
    OrtValue *out = NULL;
    run->queries = value_scales + channels;
    if (op->kept != KEPT_FLOAT32) run->turned_keys = run->queries + a->batch * a->length * op->heads * a->head.depth;
    run->pasts = a->pasts = pasts;
    TRY(read_lengths(run, context, pasts, &total));
    TRY(read_cache(run, context, total));
    TRY(read_tables(run, context));
    TRY(check_positions(run, context));
    TRY(read_bias(op->api, context, INPUT_BIAS, a, total));
    TRY(read_sinks(run, context, sinks));
    if (op->kept == KEPT_INT8) {
        TRY(read_scales(run, context, INPUT_KEY_SCALE, key_scales));
        TRY(read_scales(run, context, INPUT_VALUE_SCALE, value_scales));
        run->key_scales = key_scales;
        run->value_scales = a->value_scales = value_scales;
    }
    for (size_t b = 0; b < a->batch; b++)
        if (run->past_key && pasts[b] > run->past_capacity)
            return wrong(op->api, "Attention: a row is longer than its past");
    const int64_t sizes[] = {(int64_t)a->batch, (int64_t)a->length, (int64_t)(op->heads * a->head.depth)};
    TRY(ORT(op->api, KernelContext_GetOutput)(context, OUTPUT_Y, sizes, 3, &out));
    TRY(ORT(op->api, GetTensorMutableData)(out, (void **)&a->out));
    const float scale = op->scale == 0 ? 1.0f / sqrtf((float)a->head.depth) : op->scale;
    run->factor = query_factor(&a->head, scale, op->softcap);
    TRY(store(run, context));
    const size_t head_step = run->capacity * a->head.depth, batch_step = head_step * a->kv_heads;
    a->queries = run->queries;
    a->tokens = (Tokens){
        .keys = run->present_key, .values = run->present_value, .key_stride = a->head.depth, .value_stride = a->head.depth,
        .kept = op->kept,
    };
    a->key_head_step = a->value_head_step = head_step;
    a->key_batch_step = a->value_batch_step = batch_step;
    a->window = op->window;
    return a->batch && a->length ? attend(op->api, context, a) : NULL;
}

static OrtStatus *compute(void *state, OrtKernelContext *context)
{
    const Op *op = state;
    Run run = {.op = op};
    Attention *a = &run.attention;
    a->kernels = &op->kernels->attention;
    a->kv_heads = op->kv_heads;
    a->group = op->heads / op->kv_heads;
    TRY(read_queries(&run, context));
    const size_t keys = op->kept == KEPT_FLOAT32 ? 0 : op->kv_heads, scales = 2 * op->kv_heads * a->head.depth;
    const size_t numbers = a->batch * a->length * (op->heads + keys) * a->head.depth + op->heads + scales;
    char *buffer = scratch_take(a->batch * sizeof(size_t) + numbers * sizeof(float));
    if (!buffer) return no_memory(op->api);
    OrtStatus *status = run_with(&run, context, buffer);
    scratch_give_back(buffer);
    return status;
}

static const char *name(const OrtCustomOp *op)
{
    return (const char *[]){"Attention", "AttentionBfloat16", "AttentionInt8"}[kept_by(op)];
}
static size_t inputs(const OrtCustomOp *op) { (void)op; return INPUTS; }
static size_t outputs(const OrtCustomOp *op) { (void)op; return OUTPUTS; }
static int cache_type(const OrtCustomOp *op) { return (int[]){ORT_FLOAT, ORT_UINT16, ORT_INT8}[kept_by(op)]; }
static int output_type(const OrtCustomOp *op, size_t index) { return index == OUTPUT_Y ? ORT_FLOAT : cache_type(op); }

static int input_type(const OrtCustomOp *op, size_t index)
{
    if (index == INPUT_PAST_KEY || index == INPUT_PAST_VALUE) return cache_type(op);
    return index == INPUT_SEQLENS || index == INPUT_TOTAL ? ORT_INT32 : index == INPUT_POSITIONS ? ORT_INT64 : ORT_FLOAT;
}

static int needed(const OrtCustomOp *op, size_t index)
{
    (void)op;
    return index == INPUT_QUERY || index == INPUT_SEQLENS || index == INPUT_TOTAL ? ORT_REQUIRED : ORT_OPTIONAL;
}

#define ATTENTION_OP \
    { \
        .version = ORT_VERSION, \
        .GetName = name, \
        .GetExecutionProviderType = op_provider, \
        .GetInputType = input_type, \
        .GetInputTypeCount = inputs, \
        .GetOutputType = output_type, \
        .GetOutputTypeCount = outputs, \
        .KernelDestroy = free, \
        .GetInputCharacteristic = needed, \
        .GetOutputCharacteristic = op_required, \
        .GetInputMemoryType = op_memory, \
        .CreateKernelV2 = create, \
        .KernelComputeV2 = compute, \
        .GetStartVersion = op_from_first, \
        .GetEndVersion = op_to_last, \
    }

const OrtCustomOp attention_op = ATTENTION_OP;
const OrtCustomOp attention_bfloat16_op = ATTENTION_OP;
const OrtCustomOp attention_int8_op = ATTENTION_OP;
