/* Experts in random shapes: the bits that BlockLinear gives for each expert's rows, on every instruction set, on several
 * threads, from several callers at a time; nothing is touched behind a buffer's end, and sizes or places that cannot be are
 * refused. A clamped gate is tried against its definition in tests/runtime/ort. */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drawing.h"
#include "runtime.h"

const char *edgellm_kernels_sets(void);

enum { ROWS, SIZES, FILE_BYTES, MORE, PLACES, COUNT };
enum { GATE, UP, DOWN, MATRICES };
enum { BITS, BLOCK_SIZE, WEIGHTS, SCALES, ZEROS, BIAS, PLACES_EACH };
enum { EXPERTS = 5, CALLERS = 3, ALIGNED = 64, MOST_BYTES = 1 << 20 };

typedef struct { int64_t hidden, size, rows, activation; int limited; } Case;

static Case any_case(void)
{
    return (Case){.hidden = 2 + 2 * below(70), .size = 1 + below(80), .rows = below(below(4) ? 30 : 500),
                  .activation = 1 + below(4), .limited = !below(3)};
}

/* What a matrix is made of, beside its places in `to`. */
typedef struct { OrtValue *parts[4]; int64_t bits, block; } Matrix;

static OrtValue *bytes(int64_t count, unsigned different)
{
    OrtValue *value = new_value(ORT_UINT8, 1, &count);
    for (size_t i = 0; i < value->elements; i++) ((uint8_t *)value->data)[i] = (uint8_t)below(different);
    return value;
}

static Matrix matrix(int64_t depth, int64_t columns, int64_t block)
{
    Matrix m = {.bits = below(2) ? 4 : 8, .block = block};
    const int64_t blocks = (depth + block - 1) / block;
    m.parts[0] = bytes(columns * blocks * block * m.bits / 8, below(2) ? 256 : 16); /* few lie in a table */
    m.parts[1] = floats(2, (int64_t[]){columns, blocks}, 0.01f);
    if (below(2)) m.parts[2] = bytes(columns * (m.bits == 8 ? blocks : (blocks + 1) / 2), 256);
    if (below(2)) m.parts[3] = floats(1, &columns, 1);
    return m;
}

/* The parts behind what lies in the two buffers so far, any part in any of them: the file's places count from 0, the
 * other's from the end of the file, which is known later, and are negative until then. */
static void store(const Matrix *m, char *buffers[2], int64_t ends[2], int64_t *places)
{
    places[BITS] = m->bits;
    places[BLOCK_SIZE] = m->block;
    for (int i = 0; i < 4; i++) {
        const int other = !below(4);
        places[WEIGHTS + i] = m->parts[i] ? other ? -2 - ends[1] : ends[0] : -1;
        if (!m->parts[i]) continue;
        memcpy(buffers[other] + ends[other], m->parts[i]->data, value_bytes(m->parts[i]));
        ends[other] += (int64_t)(value_bytes(m->parts[i]) + ALIGNED - 1) / ALIGNED * ALIGNED;
    }
}

typedef struct { Case c; Matrix matrices[EXPERTS][MATRICES]; OrtKernelInfo info; } Drawn;

static OrtValue *constant(OrtValue *value)
{
    value->constant = 1;
    return value;
}

static void draw(Drawn *d)
{
    static const int64_t blocks[] = {16, 32, 64, 128, 256};
    static char space[2][MOST_BYTES];
    char *buffers[2] = {space[0], space[1]};
    int64_t ends[2] = {0, 0}, places[EXPERTS * MATRICES * PLACES_EACH];
    d->c = any_case();
    for (int e = 0; e < EXPERTS; e++) {
        const int64_t block = blocks[below(5)];
        for (int i = 0; i < MATRICES; i++) {
            const int64_t depth = i == DOWN ? d->c.size : d->c.hidden, columns = i == DOWN ? d->c.hidden : d->c.size;
            d->matrices[e][i] = matrix(depth, columns, i == DOWN ? blocks[below(5)] : block);
            store(&d->matrices[e][i], buffers, ends, places + (e * MATRICES + i) * PLACES_EACH);
        }
    }
    for (int i = 0; i < EXPERTS * MATRICES * PLACES_EACH; i++)
        if (places[i] < -1) places[i] = ends[0] - 2 - places[i];
    d->info = (OrtKernelInfo){.input_count = COUNT, .attribute_count = 5};
    const Attribute attributes[] = {{"hidden", d->c.hidden, 0, 0}, {"size", d->c.size, 0, 0},
                                    {"activation", d->c.activation, 0, 0}, {"alpha", 0, 1.5f, 1},
                                    {"limit", 0, d->c.limited ? 0.5f : 0, 1}};
    memcpy(d->info.attributes, attributes, sizeof attributes);
    for (int i = 0; i < 2; i++) {
        d->info.inputs[FILE_BYTES + i] = constant(new_value(ORT_UINT8, 1, &ends[i]));
        memcpy(d->info.inputs[FILE_BYTES + i]->data, buffers[i], (size_t)ends[i]);
    }
    d->info.inputs[PLACES] = constant(new_value(ORT_INT64, 3, (int64_t[]){EXPERTS, MATRICES, PLACES_EACH}));
    memcpy(d->info.inputs[PLACES]->data, places, sizeof places);
}

static OrtValue *any_sizes(int64_t rows)
{
    OrtValue *sizes = new_value(ORT_INT64, 1, (int64_t[]){EXPERTS});
    int64_t *each = sizes->data;
    for (int64_t r = 0; r < rows; r++) each[below(3) ? below(EXPERTS - 1) : 1]++; /* none for the last one */
    return sizes;
}

/* One layer of an expert's rows by BlockLinear; with `second`, the gate of both. To be freed. */
static OrtValue *layer(const Case *c, Matrix *m, Matrix *second, const OrtValue *x)
{
    const OrtCustomOp *op = operator_of("BlockLinear");
    OrtKernelInfo info = {.input_count = second ? 11 : 6, .attribute_count = 6};
    const int64_t depth = x->dims[1], columns = second ? c->size : c->hidden;
    const Attribute attributes[] = {{"K", depth, 0, 0}, {"N", columns, 0, 0}, {"bits", m->bits, 0, 0},
                                    {"block_size", m->block, 0, 0}, {"activation", second ? c->activation : 0, 0, 0},
                                    {"alpha", 0, 1.5f, 1}};
    memcpy(info.attributes, attributes, sizeof attributes);
    for (int i = 0; i < 3; i++) info.inputs[1 + i] = m->parts[i];
    info.inputs[5] = m->parts[3];
    for (int i = 0; second && i < 4; i++) info.inputs[7 + i] = second->parts[i];
    for (size_t i = 0; i < info.input_count; i++)
        if (info.inputs[i]) info.inputs[i]->constant = 1;
    void *kernel = new_kernel(op, &info);
    OrtKernelContext context = {.input_count = 1, .threads = 1};
    context.inputs[0] = (OrtValue *)x;
    compute(op, kernel, &context);
    op->KernelDestroy(kernel);
    return context.outputs[0];
}

static void differ(const char *what, const Case *c)
{
    fprintf(stderr, "%s: other bits (%d of %d, %d rows)\n", what, (int)c->size, (int)c->hidden, (int)c->rows);
    exit(1);
}

/* What each expert makes of its rows, layer by layer; gate and up have the same bits only where they are stored so. */
static void same_as_layers(Drawn *d, const OrtValue *x, const OrtValue *sizes, const OrtValue *found)
{
    const Case *c = &d->c;
    int64_t row = 0;
    for (int e = 0; e < EXPERTS; e++) {
        const int64_t count = ((int64_t *)sizes->data)[e];
        Matrix *m = d->matrices[e];
        const size_t size = (size_t)c->hidden * sizeof(float), at = (size_t)row * size;
        row += count;
        if (!count || m[GATE].bits != m[UP].bits) continue;
        OrtValue *part = new_value(ORT_FLOAT, 2, (int64_t[]){count, c->hidden});
        memcpy(part->data, (char *)x->data + at, (size_t)count * size);
        OrtValue *inner = layer(c, &m[GATE], &m[UP], part), *out = layer(c, &m[DOWN], NULL, inner);
        if (memcmp((char *)found->data + at, out->data, (size_t)count * size)) differ("layers", c);
        free_value(part);
        free_value(inner);
        free_value(out);
    }
}

typedef struct { const OrtCustomOp *op; void *kernel; OrtValue *x, *sizes; const OrtValue *expected; const Case *c; int threads; } Caller;

static OrtValue *run(const Caller *caller)
{
    OrtKernelContext context = {.input_count = 2, .threads = caller->threads};
    context.inputs[ROWS] = caller->x;
    context.inputs[SIZES] = caller->sizes;
    compute(caller->op, caller->kernel, &context);
    return context.outputs[0];
}

static void *call(void *data)
{
    const Caller *caller = data;
    OrtValue *found = run(caller);
    if (memcmp(found->data, caller->expected->data, value_bytes(found))) differ("several callers", caller->c);
    free_value(found);
    return NULL;
}

/* Sizes that are not those of the rows. */
static void refused(void *kernel, OrtValue *x, int64_t first, int64_t second)
{
    OrtValue *sizes = new_value(ORT_INT64, 1, (int64_t[]){EXPERTS});
    ((int64_t *)sizes->data)[0] = first;
    ((int64_t *)sizes->data)[1] = second;
    OrtKernelContext context = {.input_count = 2, .threads = 1};
    context.inputs[ROWS] = x;
    context.inputs[SIZES] = sizes;
    char *message = refusal(operator_of("Experts"), kernel, &context);
    if (!message || strcmp(message, "Experts: sizes do not add up to the rows")) exit(1);
    free(message);
    free_value(sizes);
}

/* A weight that would end behind the constants. */
static void misplaced(Drawn *d)
{
    int64_t *place = (int64_t *)d->info.inputs[PLACES]->data + WEIGHTS, kept = *place;
    const int64_t end = (int64_t)(d->info.inputs[FILE_BYTES]->elements + d->info.inputs[MORE]->elements);
    const int64_t wrong[] = {end, end - end % 4, INT64_MAX - 3, -1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        *place = wrong[i];
        if (!refused_kernel(operator_of("Experts"), &d->info)) exit(1);
    }
    *place = kept;
}

static void try_case(Drawn *d)
{
    const OrtCustomOp *op = operator_of("Experts");
    OrtValue *x = floats(2, (int64_t[]){d->c.rows, d->c.hidden}, 1), *sizes = any_sizes(d->c.rows), *first = NULL;
    char sets[128];
    strncpy(sets, edgellm_kernels_sets(), sizeof sets - 1);
    for (char *name = strtok(sets, ","); name; name = strtok(NULL, ",")) {
        setenv("EDGELLM_KERNELS", name, 1);
        Caller caller = {op, new_kernel(op, &d->info), x, sizes, first, &d->c, 1};
        OrtValue *found = run(&caller);
        if (first && memcmp(found->data, first->data, value_bytes(found))) differ(name, &d->c);
        if (first) free_value(found);
        else first = found;
        pthread_t threads[CALLERS];
        caller.expected = first;
        caller.threads = 3;
        for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, call, &caller);
        for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
        refused(caller.kernel, x, d->c.rows + 1, -1);
        refused(caller.kernel, x, d->c.rows + 1, 0);
        refused(caller.kernel, x, d->c.rows - 1, 0);
        op->KernelDestroy(caller.kernel);
    }
    if (!d->c.limited) same_as_layers(d, x, sizes, first);
    free_value(first);
    free_value(x);
    free_value(sizes);
}

int main(int count, char **arguments)
{
    const int cases = count > 1 ? atoi(arguments[1]) : 100;
    for (int i = 0; i < cases; i++) {
        Drawn d;
        state = (unsigned)i * 2654435761u + 1;
        draw(&d);
        try_case(&d);
        misplaced(&d);
        for (size_t input = 0; input < COUNT; input++) free_value(d.info.inputs[input]);
        for (int m = 0; m < EXPERTS * MATRICES; m++)
            for (int part = 0; part < 4; part++) free_value(d.matrices[m / MATRICES][m % MATRICES].parts[part]);
    }
    printf("%d cases on %s\n", cases, edgellm_kernels_sets());
    return 0;
}
