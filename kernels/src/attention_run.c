/* Two ways to share the work, with the same numbers. Many queries: an item is a tile of a head's queries, which takes one
 * range of keys after the other. Few: an item is a range of keys, and ranges are joined at the end. */
#include "attention_run.h"

#include "arena.h"
#include "op.h"

enum { FEW_QUERIES = 32, TILE_QUERIES = 192, FEW_JOINS = 64, FEW_ITEMS = 8 };

typedef struct {
    const Attention *attention;
    const OrtApi *api;
    size_t each, tiles;    /* many: queries of a tile, without those that share keys; tiles of a head */
    size_t ranges, items;  /* few */
    float *states;         /* few: [batch][kv_heads][ranges][length x group][state_size] */
    _Atomic(int) failed;
} Work;

float query_factor(Head *head, float scale, float softcap)
{
    head->softcap = softcap * LOG2_E;
    return softcap > 0 ? scale * 2 * LOG2_E / softcap : scale * LOG2_E;
}

OrtStatus *read_bias(const OrtApi *api, const OrtKernelContext *context, size_t index, Attention *a, size_t keys)
{
    Tensor bias;
    TRY(op_input(api, context, index, &bias));
    if (!bias.rank) return NULL;
    const size_t row = bias.rank == 4 ? (size_t)bias.sizes[3] : 0, queries = row * a->length;
    const size_t heads = bias.rank == 4 ? (size_t)bias.sizes[1] : 0, batch = (size_t)bias.sizes[0];
    if (row < keys || (size_t)bias.sizes[2] != a->length || (heads != 1 && heads != a->kv_heads * a->group) ||
        (batch != 1 && batch != a->batch))
        return wrong(api, "Attention: the bias has another size");
    a->bias = (Bias){bias.data, batch == 1 ? 0 : queries * heads, heads == 1 ? 0 : queries, row};
    return NULL;
}

static Tokens tokens_of(const Attention *a, size_t batch, size_t kv_head)
{
    Tokens tokens = a->tokens;
    const size_t number = kept_size(tokens.kept);
    tokens.keys = (const char *)tokens.keys + (batch * a->key_batch_step + kv_head * a->key_head_step) * number;
    tokens.values = (const char *)tokens.values + (batch * a->value_batch_step + kv_head * a->value_head_step) * number;
    return tokens;
}

static const float *numbers_of(const Bias *bias, size_t batch, size_t head, size_t query)
{
    if (!bias->numbers) return NULL;
    return bias->numbers + batch * bias->batch_step + head * bias->head_step + query * bias->query_step;
}

static Sight sight_of(const Attention *a, size_t batch, size_t head, size_t query)
{
    Sight sight = {.last = a->pasts ? a->pasts[batch] + query + 1 : a->keys};
    sight.first = a->window ? behind(sight.last, a->window) : 0;
    sight.bias = numbers_of(&a->bias, batch, head, query);
    sight.mask = numbers_of(&a->masks, batch, head, query);
    return sight;
}

static void look(const Attention *a, size_t batch, size_t kv_head, size_t query, size_t count, Sight *sights)
{
    for (size_t q = 0; q < count; q++)
        for (size_t g = 0; g < a->group; g++) *sights++ = sight_of(a, batch, kv_head * a->group + g, query + q);
}

static const float *queries_of(const Attention *a, size_t batch, size_t kv_head, size_t query)
{
    return a->queries + ((batch * a->kv_heads + kv_head) * a->length + query) * a->group * a->head.depth;
}

static void finish(const Attention *a, size_t batch, size_t kv_head, size_t query, size_t count, const float *states)
{
    const size_t heads = a->kv_heads * a->group;
    for (size_t q = 0; q < count; q++)
        for (size_t g = 0; g < a->group; g++, states += state_size(&a->head)) {
            const size_t head = kv_head * a->group + g;
            float *out = a->out + ((batch * a->length + query + q) * heads + head) * a->head.value_depth;
            a->kernels->finishes(&a->head, states, a->sinks ? a->sinks + head : NULL, out);
            for (size_t i = 0; a->value_scales && i < a->head.value_depth; i++)
                out[i] *= a->value_scales[kv_head * a->head.value_depth + i];
        }
}

static size_t bytes_for(const Attention *a, size_t rows, size_t states)
{
    return (workspace_size(&a->head) + states * rows * state_size(&a->head)) * sizeof(float) + rows * sizeof(Sight);
}

static void many_item(void *data, size_t item)
{
    Work *work = data;
    const Attention *a = work->attention;
    const size_t heads = a->batch * a->kv_heads, place = item % heads, batch = place / a->kv_heads;
    const size_t kv_head = place % a->kv_heads;
    const size_t tile = work->tiles - 1 - item / heads; /* those that see most come first */
    const size_t query = tile * work->each, count = at_most(a->length - query, work->each), rows = count * a->group;
    float *workspace = scratch_take(bytes_for(a, rows, 2));
    if (!workspace) {
        work->failed = 1;
        return;
    }
    float *states = workspace + workspace_size(&a->head), *later = states + rows * state_size(&a->head);
    Sight *sights = (Sight *)(later + rows * state_size(&a->head));
    look(a, batch, kv_head, query, count, sights);
    const size_t first = sights[0].first / RANGE * RANGE, last = sights[rows - 1].last;
    for (size_t begin = first; begin == first || begin < last; begin += RANGE) {
        a->kernels->attends(&a->head, tokens_of(a, batch, kv_head), queries_of(a, batch, kv_head, query), sights, rows,
                            begin, begin == first ? states : later, workspace);
        if (begin != first) a->kernels->joins(&a->head, states, later, rows);
    }
    finish(a, batch, kv_head, query, count, states);
    scratch_give_back(workspace);
}

static float *range_states(const Work *work, size_t place, size_t range)
{
    const Attention *a = work->attention;
    return work->states + (place * work->ranges + range) * a->length * a->group * state_size(&a->head);
}

/* What is read after `tokens`: the item's keys and values. */
static void lead_to(Tokens *tokens, const Work *work, size_t item)
{
    const Attention *a = work->attention;
    const size_t place = item / work->ranges, batch = place / a->kv_heads, kv_head = place % a->kv_heads;
    const size_t range = item % work->ranges * RANGE, seen = sight_of(a, batch, kv_head, 0).first / BLOCK * BLOCK;
    const size_t key = range > seen ? range : seen, number = kept_size(tokens->kept);
    const Tokens next = tokens_of(a, batch, kv_head);
    tokens->next_keys = (const char *)next.keys + key * next.key_stride * number;
    tokens->next_values = (const char *)next.values + key * next.value_stride * number;
}

static void few_item(void *data, size_t item)
{
    Work *work = data;
    const Attention *a = work->attention;
    const size_t place = item / work->ranges, range = item % work->ranges;
    const size_t batch = place / a->kv_heads, kv_head = place % a->kv_heads, rows = a->length * a->group;
    Sight sights[FEW_QUERIES];
    look(a, batch, kv_head, 0, a->length, sights);
    float *workspace = scratch_take(bytes_for(a, 0, 0));
    if (!workspace) {
        work->failed = 1;
        return;
    }
    Tokens tokens = tokens_of(a, batch, kv_head);
    if (item + 1 < work->items) lead_to(&tokens, work, item + 1);
    float *states = range_states(work, place, range);
    a->kernels->attends(&a->head, tokens, queries_of(a, batch, kv_head, 0), sights, rows, range * RANGE, states, workspace);
    scratch_give_back(workspace);
    if (work->ranges == 1) finish(a, batch, kv_head, 0, a->length, states);
}

static void join_item(void *data, size_t place)
{
    Work *work = data;
    const Attention *a = work->attention;
    float *states = range_states(work, place, 0);
    for (size_t range = 1; range < work->ranges; range++)
        a->kernels->joins(&a->head, states, range_states(work, place, range), a->length * a->group);
    finish(a, place / a->kv_heads, place % a->kv_heads, 0, a->length, states);
}

static size_t most_keys(const Attention *a)
{
    size_t most = a->keys;
    if (!a->pasts) return most;
    most = 0;
    for (size_t b = 0; b < a->batch; b++) most = a->pasts[b] + a->length > most ? a->pasts[b] + a->length : most;
    return most;
}

static OrtStatus *attend_few(Work *work, const OrtKernelContext *context)
{
    const Attention *a = work->attention;
    const size_t heads = a->batch * a->kv_heads, rows = a->length * a->group;
    work->ranges = (most_keys(a) + RANGE - 1) / RANGE;
    work->states = scratch_take(heads * work->ranges * rows * state_size(&a->head) * sizeof(float));
    if (!work->states) return no_memory(work->api);
    work->items = heads * work->ranges;
    OrtStatus *status = in_parallel(work->api, context, few_item, work->items, work);
    const int joins = work->ranges > 1, few = heads * work->ranges * rows <= FEW_JOINS;
    if (!status && joins && !few) status = in_parallel(work->api, context, join_item, heads, work);
    for (size_t place = 0; !status && joins && few && place < heads; place++) join_item(work, place);
    scratch_give_back(work->states);
    return status;
}

/* Queries of a tile: with those that share their keys `most`, and a multiple of six, as many as kernels take, where that
 * goes. */
static size_t queries_each(size_t group, size_t most)
{
    const size_t step = group % 6 == 0 ? 1 : group % 3 == 0 ? 2 : group % 2 == 0 ? 3 : 6, count = most / group;
    return count > step ? count / step * step : 1;
}

/* Large tiles read keys and values less often, small ones keep threads busy. */
static void choose_tiles(Work *work)
{
    const Attention *a = work->attention;
    for (size_t most = TILE_QUERIES; most >= TILE_QUERIES / 2; most /= 2) {
        work->each = queries_each(a->group, most);
        work->tiles = (a->length + work->each - 1) / work->each;
        if (work->tiles * a->batch * a->kv_heads >= FEW_ITEMS) break;
    }
}

OrtStatus *attend(const OrtApi *api, const OrtKernelContext *context, const Attention *a)
{
    Work work = {.attention = a, .api = api};
    OrtStatus *status = NULL;
    choose_tiles(&work);
    if (a->length * a->group <= FEW_QUERIES) status = attend_few(&work, context);
    else status = in_parallel(api, context, many_item, work.tiles * a->batch * a->kv_heads, &work);
    return !status && work.failed ? no_memory(api) : status;
}
