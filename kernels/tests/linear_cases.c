/* BlockLinear, LayerNorm and RMSNorm in random shapes: the same bits on every instruction set, on several threads, for some rows alone, and from
 * several callers of one kernel at a time; nothing is touched behind a buffer's end. Against their definitions they are
 * tried in tests/runtime/ort. */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/matrix.h"
#include "drawing.h"
#include "runtime.h"

const char *edgellm_kernels_sets(void);

enum { X, WEIGHTS, SCALES, ZEROS, GROUPS, BIAS, RESIDUAL, SECOND_WEIGHTS, SECOND_SCALES, SECOND_ZEROS, SECOND_BIAS, COUNT };
enum { CALLERS = 3 };

static OrtValue *bytes(size_t rank, const int64_t *dims, unsigned different)
{
    OrtValue *value = new_value(ORT_UINT8, rank, dims);
    for (size_t i = 0; i < value->elements; i++) ((uint8_t *)value->data)[i] = (uint8_t)below(different);
    return value;
}

typedef struct { int64_t depth, columns, bits, block, rows; int zeros, bias, residual, second; int64_t activation; unsigned different; } Case;

static Case any_case(void)
{
    static const int64_t blocks[] = {16, 32, 64, 128, 256};
    Case c = {.depth = 2 + 2 * below(120), .columns = 1 + below(100), .bits = below(2) ? 4 : 8, .block = blocks[below(5)],
              .rows = 1 + below(below(4) ? 14 : 210), .zeros = below(2), .bias = below(2), .residual = below(2),
              .second = below(2), .activation = below(5), .different = below(2) ? 256 : 16};
    return c;
}

static void add_matrix(const Case *c, OrtKernelInfo *info, size_t weights, size_t bias)
{
    const int64_t blocks = (c->depth + c->block - 1) / c->block;
    info->inputs[weights] = bytes(3, (int64_t[]){c->columns, blocks, c->block * c->bits / 8}, c->different);
    info->inputs[weights + 1] = floats(2, (int64_t[]){c->columns, blocks}, 0.01f);
    if (c->zeros) info->inputs[weights + 2] = bytes(2, (int64_t[]){c->columns, c->bits == 8 ? blocks : (blocks + 1) / 2}, 256);
    if (c->bias) info->inputs[bias] = floats(1, &c->columns, 1);
}

static OrtKernelInfo layer(const Case *c)
{
    OrtKernelInfo info = {.input_count = c->second ? COUNT : RESIDUAL + 1, .attribute_count = 6};
    const Attribute attributes[] = {{"K", c->depth, 0, 0}, {"N", c->columns, 0, 0}, {"bits", c->bits, 0, 0},
                                    {"block_size", c->block, 0, 0}, {"activation", c->activation, 0, 0}, {"alpha", 0, 1.5f, 1}};
    memcpy(info.attributes, attributes, sizeof attributes);
    add_matrix(c, &info, WEIGHTS, BIAS);
    if (c->second) add_matrix(c, &info, SECOND_WEIGHTS, SECOND_BIAS);
    for (size_t i = 0; i < info.input_count; i++)
        if (info.inputs[i]) info.inputs[i]->constant = 1;
    return info;
}

/* The first of two outputs is what is looked at. */
static OrtKernelInfo norm(const Case *c)
{
    OrtKernelInfo info = {.input_count = 4};
    info.inputs[1] = floats(1, &c->depth, 1);
    if (c->bias) info.inputs[2] = floats(1, &c->depth, 1);
    if (c->second) info.inputs[3] = floats(1, &c->depth, 1);
    for (size_t i = 1; i < info.input_count; i++)
        if (info.inputs[i]) info.inputs[i]->constant = 1;
    return info;
}

/* Rows [first, last) of x and residual through the kernel: [rows, columns], to be freed. */
static OrtValue *rows_of(const OrtCustomOp *op, void *kernel, const OrtValue *x, const OrtValue *residual, int64_t first,
                         int64_t last, size_t inputs, int threads)
{
    OrtKernelContext context = {.input_count = inputs, .threads = threads};
    const OrtValue *whole[] = {x, residual};
    OrtValue *parts[2] = {0};
    for (int i = 0; i < 2; i++) {
        if (!whole[i]) continue;
        const int64_t size = whole[i]->dims[1];
        parts[i] = new_value(ORT_FLOAT, 2, (int64_t[]){last - first, size});
        memcpy(parts[i]->data, (float *)whole[i]->data + first * size, value_bytes(parts[i]));
    }
    context.inputs[X] = parts[0];
    context.inputs[RESIDUAL] = parts[1];
    compute(op, kernel, &context);
    free_value(parts[0]);
    free_value(parts[1]);
    free_value(context.outputs[1]);
    return context.outputs[0];
}

static void same(const OrtValue *whole, int64_t first, const OrtValue *part, const char *what, const Case *c)
{
    const float *at = (const float *)whole->data + first * c->columns;
    if (!memcmp(at, part->data, value_bytes(part))) return;
    fprintf(stderr, "%s: other bits (%d x %d, %d bits, blocks of %d, %d rows)\n", what, (int)c->depth, (int)c->columns,
            (int)c->bits, (int)c->block, (int)c->rows);
    exit(1);
}

typedef struct {
    const OrtCustomOp *op;
    void *kernel;
    const OrtValue *x, *residual, *expected;
    size_t inputs;
    const Case *c;
} Caller;

static void *call(void *data)
{
    const Caller *caller = data;
    OrtValue *found = rows_of(caller->op, caller->kernel, caller->x, caller->residual, 0, caller->c->rows, caller->inputs, 2);
    same(caller->expected, 0, found, "several callers", caller->c);
    free_value(found);
    return NULL;
}

/* With the instruction set that is forced: alone, in parts, on threads, from several callers. */
static OrtValue *try_set(const OrtCustomOp *op, const Case *c, const OrtKernelInfo *info, const OrtValue *x,
                         const OrtValue *residual)
{
    void *kernel = new_kernel(op, info);
    OrtValue *whole = rows_of(op, kernel, x, residual, 0, c->rows, info->input_count, 1);
    const int64_t middle = below((unsigned)c->rows);
    OrtValue *part = rows_of(op, kernel, x, residual, middle, c->rows, info->input_count, 3);
    same(whole, middle, part, "rows alone", c);
    free_value(part);
    pthread_t threads[CALLERS];
    Caller caller = {op, kernel, x, residual, whole, info->input_count, c};
    for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, call, &caller);
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    op->KernelDestroy(kernel);
    return whole;
}

static void try_case(const OrtCustomOp *op, Case c, OrtKernelInfo info)
{
    OrtValue *x = floats(2, (int64_t[]){c.rows, c.depth}, 1), *first = NULL;
    OrtValue *residual = c.residual ? floats(2, (int64_t[]){c.rows, c.columns}, 1) : NULL;
    char sets[128];
    strncpy(sets, edgellm_kernels_sets(), sizeof sets - 1);
    for (char *name = strtok(sets, ","); name; name = strtok(NULL, ",")) {
        setenv("EDGELLM_KERNELS", name, 1);
        OrtValue *found = try_set(op, &c, &info, x, residual);
        if (first) same(first, 0, found, name, &c);
        if (first) free_value(found);
        else first = found;
    }
    free_value(first);
    free_value(x);
    free_value(residual);
    for (size_t i = 0; i < info.input_count; i++) free_value(info.inputs[i]);
}

/* Weights of `different` levels, `apart` from each other: whether they become places in a table. */
static int becomes_a_table(int different, int apart, int bits, int zeros)
{
    enum { DEPTH = 64, COLUMNS = 33 };
    static uint8_t weights[DEPTH * COLUMNS], points[COLUMNS * 2];
    static float scales[COLUMNS * 2];
    Matrix m;
    for (int i = 0; i < DEPTH * COLUMNS; i++) weights[i] = (uint8_t)(i % different * apart);
    if (!set_sizes(&m, DEPTH, COLUMNS, 32, (size_t)bits)) exit(1);
    if (!pack_matrix(&m, (Packing){weights, scales, zeros ? points : NULL, NULL})) exit(1);
    free_matrix(&m);
    return m.looks_up && m.packed == 4;
}

static void try_tables(void)
{
    const int right = becomes_a_table(16, 8, 8, 0) && becomes_a_table(1, 1, 8, 0) && becomes_a_table(2, 127, 8, 0);
    const int wrong = becomes_a_table(17, 1, 8, 0) || becomes_a_table(2, 128, 8, 0) || becomes_a_table(2, 1, 4, 0) ||
                      becomes_a_table(2, 1, 8, 1);
    if (right && !wrong) return;
    fprintf(stderr, "a table where there is none, or none where there is one\n");
    exit(1);
}

int main(int count, char **arguments)
{
    const OrtCustomOp *linear = operator_of("BlockLinear"), *norms[] = {operator_of("LayerNorm"), operator_of("RMSNorm")};
    const int cases = count > 1 ? atoi(arguments[1]) : 100;
    try_tables();
    for (int i = 0; i < cases; i++) {
        state = (unsigned)i * 2654435761u + 1;
        Case c = any_case();
        try_case(linear, c, layer(&c));
        c.columns = c.depth;
        c.residual = 0;
        try_case(norms[i % 2], c, norm(&c));
    }
    printf("%d cases on %s\n", cases, edgellm_kernels_sets());
    return 0;
}
