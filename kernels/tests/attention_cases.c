/* Attention, with each kind of cache, and MultiHead in random shapes: the same bits on every instruction set, on several threads,
 * for a text in one piece and in several, for rows alone, and from several callers at a time; nothing is touched behind a
 * buffer's end. Against their definition they are tried in tests/runtime/ort. */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drawing.h"
#include "runtime.h"

const char *edgellm_kernels_sets(void);

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQLENS, TOTAL, COS, SIN, POSITIONS, BIAS, SINKS, KEY_SCALE, VALUE_SCALE, COUNT };
enum { CALLERS = 3, MOST_PIECES = 4 };

typedef struct {
    int64_t batch, kv_heads, group, depth, length, capacity, half, window;
    int cache, interleaved, sinks, softcap; /* `cache`: ONNX Runtime's type */
    int64_t ends[MOST_PIECES]; /* of the pieces that the text is read in */
} Case;

static Case any_case(void)
{
    static const int64_t depths[] = {8, 16, 24, 64, 80};
    static const int caches[] = {ORT_FLOAT, ORT_UINT16, ORT_INT8};
    Case c = {.batch = 1 + below(3), .kv_heads = 1 + below(3), .group = 1 + below(3), .depth = depths[below(5)],
              .length = 1 + below(below(3) ? 70 : 300), .window = below(2) ? 0 : 1 + below(90), .cache = caches[below(3)],
              .interleaved = below(2), .sinks = below(2), .softcap = below(2)};
    c.capacity = c.length + below(9);
    c.half = below(3) ? c.depth / 2 : 0;
    for (int i = 0; i < MOST_PIECES; i++) c.ends[i] = 1 + below((unsigned)c.length);
    for (int i = 0; i < MOST_PIECES; i++)
        for (int j = i + 1; j < MOST_PIECES; j++)
            if (c.ends[j] < c.ends[i]) {
                const int64_t end = c.ends[i];
                c.ends[i] = c.ends[j];
                c.ends[j] = end;
            }
    c.ends[MOST_PIECES - 1] = c.length;
    return c;
}

/* Queries, keys and values of the whole text, and what the operator reads at each step. */
typedef struct {
    const OrtCustomOp *op;
    void *kernel;
    Case c;
    OrtValue *text, *cos, *sin, *sinks, *scale;
    const OrtValue *expected;
} Text;

static OrtValue *int32s(int64_t count, int64_t value)
{
    OrtValue *made = new_value(ORT_INT32, 1, &count);
    for (size_t i = 0; i < made->elements; i++) ((int32_t *)made->data)[i] = (int32_t)value;
    return made;
}

/* Tokens [first, last) through the kernel, in place behind what the cache holds; to their place in `out`. */
static void read_piece(const Text *t, OrtValue *keys, OrtValue *values, int64_t first, int64_t last, int threads, OrtValue *out)
{
    const Case *c = &t->c;
    const int64_t row = t->text->dims[2], width = c->kv_heads * c->group * c->depth;
    OrtKernelContext context = {.input_count = COUNT, .threads = threads};
    OrtValue *piece = new_value(ORT_FLOAT, 3, (int64_t[]){c->batch, last - first, row});
    for (int64_t b = 0; b < c->batch; b++)
        memcpy((float *)piece->data + b * (last - first) * row, (float *)t->text->data + (b * c->length + first) * row,
               (size_t)((last - first) * row) * 4);
    context.inputs[QUERY] = piece;
    context.inputs[PAST_KEY] = context.outputs[1] = keys;
    context.inputs[PAST_VALUE] = context.outputs[2] = values;
    context.inputs[SEQLENS] = int32s(c->batch, last - 1);
    context.inputs[TOTAL] = int32s(1, last);
    context.inputs[COS] = t->cos;
    context.inputs[SIN] = t->sin;
    context.inputs[SINKS] = t->sinks;
    context.inputs[KEY_SCALE] = context.inputs[VALUE_SCALE] = t->scale;
    compute(t->op, t->kernel, &context);
    for (int64_t b = 0; b < c->batch; b++)
        memcpy((float *)out->data + (b * c->length + first) * width,
               (float *)context.outputs[0]->data + b * (last - first) * width, (size_t)((last - first) * width) * 4);
    free_value(piece);
    free_value(context.inputs[SEQLENS]);
    free_value(context.inputs[TOTAL]);
    free_value(context.outputs[0]);
}

/* [batch, length, heads x depth], with a cache of its own. */
static OrtValue *read_text(const Text *t, int in_pieces, int threads)
{
    const Case *c = &t->c;
    const int64_t cache[] = {c->batch, c->kv_heads, c->capacity, c->depth};
    OrtValue *keys = new_value(c->cache, 4, cache), *values = new_value(c->cache, 4, cache);
    OrtValue *out = new_value(ORT_FLOAT, 3, (int64_t[]){c->batch, c->length, c->kv_heads * c->group * c->depth});
    int64_t first = 0;
    for (int i = in_pieces ? 0 : MOST_PIECES - 1; i < MOST_PIECES; first = c->ends[i++])
        if (c->ends[i] > first) read_piece(t, keys, values, first, c->ends[i], threads, out);
    free_value(keys);
    free_value(values);
    return out;
}

static void same(const OrtValue *expected, const OrtValue *found, const char *what)
{
    if (!memcmp(expected->data, found->data, value_bytes(expected))) return;
    fprintf(stderr, "%s: other bits\n", what);
    exit(1);
}

static void *call(void *data)
{
    const Text *t = data;
    OrtValue *found = read_text(t, 1, 2);
    same(t->expected, found, "several callers");
    free_value(found);
    return NULL;
}

static OrtValue *try_set(Text *t, const OrtKernelInfo *info)
{
    t->kernel = new_kernel(t->op, info);
    OrtValue *whole = read_text(t, 0, 1), *pieces = read_text(t, 1, 3);
    same(whole, pieces, "in pieces");
    free_value(pieces);
    t->expected = whole;
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, call, t);
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    t->op->KernelDestroy(t->kernel);
    return whole;
}

static void on_every_set(OrtValue *(*try)(Text *, const OrtKernelInfo *), Text *t, const OrtKernelInfo *info)
{
    OrtValue *first = NULL;
    char sets[128];
    strncpy(sets, edgellm_kernels_sets(), sizeof sets - 1);
    for (char *name = strtok(sets, ","); name; name = strtok(NULL, ",")) {
        setenv("EDGELLM_KERNELS", name, 1);
        OrtValue *found = try(t, info);
        if (first) same(first, found, name);
        if (first) free_value(found);
        else first = found;
    }
    free_value(first);
}

static void try_cached(void)
{
    Text t = {.c = any_case()};
    const Case *c = &t.c;
    const int64_t heads = c->kv_heads * c->group, tables[] = {c->capacity, c->half};
    t.op = operator_of(c->cache == ORT_INT8 ? "AttentionInt8" : c->cache == ORT_UINT16 ? "AttentionBfloat16" : "Attention");
    t.text = floats(3, (int64_t[]){c->batch, c->length, (heads + 2 * c->kv_heads) * c->depth}, 0.5f);
    t.cos = c->half ? floats(2, tables, 0.25f) : NULL;
    t.sin = c->half ? floats(2, tables, 0.25f) : NULL;
    t.sinks = c->sinks ? floats(1, &heads, 1) : NULL;
    if (c->cache == ORT_INT8) {
        t.scale = new_value(ORT_FLOAT, 1, (int64_t[]){1});
        *(float *)t.scale->data = 0.02f;
    }
    const OrtKernelInfo info = {.attribute_count = 6, .attributes = {
        {"num_heads", heads, 0, 0}, {"kv_num_heads", c->kv_heads, 0, 0}, {"do_rotary", c->half > 0, 0, 0},
        {"rotary_interleaved", c->interleaved, 0, 0}, {"local_window_size", c->window ? c->window : -1, 0, 0},
        {"softcap", 0, c->softcap ? 20 : 0, 1}}};
    on_every_set(try_set, &t, &info);
    free_value(t.text);
    free_value(t.cos);
    free_value(t.sin);
    free_value(t.sinks);
    free_value(t.scale);
}

enum { MULTI_MASK = 4, MULTI_COUNT = 6 };

/* Rows [first, last) of queries, keys, values and lengths through the kernel. */
static OrtValue *read_rows(const Text *t, OrtValue *const *given, int64_t first, int64_t last, int threads)
{
    OrtKernelContext context = {.input_count = MULTI_COUNT, .threads = threads};
    OrtValue *parts[MULTI_COUNT] = {0};
    for (int i = 0; i < MULTI_COUNT; i++) {
        if (!given[i]) continue;
        int64_t dims[MOST_RANK];
        memcpy(dims, given[i]->dims, sizeof dims);
        dims[0] = last - first;
        parts[i] = new_value(given[i]->type, given[i]->rank, dims);
        const size_t row = value_bytes(given[i]) / (size_t)given[i]->dims[0];
        memcpy(parts[i]->data, (char *)given[i]->data + (size_t)first * row, value_bytes(parts[i]));
    }
    memcpy(context.inputs, parts, sizeof parts);
    compute(t->op, t->kernel, &context);
    for (int i = 0; i < MULTI_COUNT; i++) free_value(parts[i]);
    return context.outputs[0];
}

static OrtValue *multi_inputs[MULTI_COUNT];

static OrtValue *try_rows(Text *t, const OrtKernelInfo *info)
{
    t->kernel = new_kernel(t->op, info);
    const int64_t batch = multi_inputs[0]->dims[0];
    OrtValue *whole = read_rows(t, multi_inputs, 0, batch, 3);
    for (int64_t row = 0; row < batch; row++) {
        OrtValue *alone = read_rows(t, multi_inputs, row, row + 1, 1);
        const char *beside = (const char *)whole->data + (size_t)row * value_bytes(alone);
        if (memcmp(beside, alone->data, value_bytes(alone))) {
            fprintf(stderr, "a row alone: other bits\n");
            exit(1);
        }
        free_value(alone);
    }
    t->op->KernelDestroy(t->kernel);
    return whole;
}

static void try_without_cache(void)
{
    const Case c = any_case();
    const int64_t keys = 1 + below(below(3) ? 80 : 300), heads = c.kv_heads, row = heads * c.depth;
    const int64_t apart[] = {c.batch, heads, keys, c.depth}, together[] = {c.batch, keys, row};
    Text t = {.op = operator_of("MultiHead"), .c = c};
    memset(multi_inputs, 0, sizeof multi_inputs);
    multi_inputs[0] = floats(3, (int64_t[]){c.batch, c.length, row}, 0.5f);
    const int is_apart = below(2) == 0;
    for (int i = 1; i < 3; i++) multi_inputs[i] = is_apart ? floats(4, apart, 0.5f) : floats(3, together, 0.5f);
    if (below(2)) multi_inputs[MULTI_MASK] = int32s(c.batch, 1 + below((unsigned)keys));
    const OrtKernelInfo info = {.attribute_count = 1 + below(2), /* what is hidden weighs nearly nothing, or nothing */
                                .attributes = {{"num_heads", heads, 0, 0}, {"mask_filter_value", 0, -1e30f, 1}}};
    on_every_set(try_rows, &t, &info);
    for (int i = 0; i < MULTI_COUNT; i++) free_value(multi_inputs[i]);
}

int main(int count, char **arguments)
{
    const int cases = count > 1 ? atoi(arguments[1]) : 100;
    for (int i = 0; i < cases; i++) {
        state = (unsigned)i * 2654435761u + 1;
        if (i % 3) try_cached();
        else try_without_cache();
    }
    printf("%d cases on %s\n", cases, edgellm_kernels_sets());
    return 0;
}
