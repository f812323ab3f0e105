/* The kernels of attention.h over a thin layer of vectors, which the including file defines:
 *
 *   LANES                          numbers in a vector: 1, 4, 8 or 16
 *   QUERIES, COLUMNS               rows and vectors of sums that are kept in registers
 *   Floats, load_floats, store_floats, no_floats, same_floats, add_floats, subtract_floats, multiply_floats,
 *   divide_floats, fma_floats      on vectors of float32
 *   greater(a, b)                  a where a > b, else b
 *   greatest_of(a)                 the largest number of a, which has no NaN
 *   power_of_two(x)                2^(x - 1.5 x 2^23), for numbers from 1.5 x 2^23 - 127 on, which gives 0
 *   load_bfloat16(p), load_int8(p)            numbers that are kept so, as float32
 *   half_of(words, i), byte_of(words, i)      the bfloat16, the int8 in part i of each lane's bits, from the lowest on
 *   transpose(rows, to, stride)    LANES numbers of LANES rows; to [LANES][stride] */
#include <float.h>

#include "plain.h"

#define LINE 64 /* bytes of a cache */

/* 2^x for x at most 0, 0 below -126.5; NaN for NaN. */
INLINE Floats ISA(exp2)(Floats x)
{
    const Floats inside = greater(same_floats(-127.0f), x), shifted = add_floats(inside, same_floats(TO_WHOLE));
    const Floats fraction = subtract_floats(inside, subtract_floats(shifted, same_floats(TO_WHOLE)));
    Floats sum = same_floats(power_factors[0]);
    for (int i = 1; i < POWERS; i++) sum = fma_floats(sum, fraction, same_floats(power_factors[i]));
    return multiply_floats(sum, power_of_two(shifted));
}

INLINE float ISA(exp2_of)(float x)
{
    float found[LANES];
    store_floats(found, ISA(exp2)(same_floats(x)));
    return found[0];
}

/* Memory that is asked for before it is read: `share` bytes with each step of a product. */
typedef struct {
    const char *at;
    size_t share;
} ISA(Ahead);

INLINE void ISA(product)(const float *a, size_t a_stride, const float *b, size_t b_stride, size_t depth, float *c,
                         size_t c_stride, int rows, int vectors, int adds, ISA(Ahead) ahead)
{
    Floats sums[QUERIES][COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sums[r][v] = adds ? load_floats(c + r * c_stride + v * LANES) : no_floats();
    for (size_t k = 0; k < depth; k++, b += b_stride) {
        Floats right[COLUMNS];
        for (size_t at = 0; at < ahead.share; at += LINE) __builtin_prefetch(ahead.at + k * ahead.share + at, 0, 2);
        for (int v = 0; v < vectors; v++) right[v] = load_floats(b + v * LANES);
        for (int r = 0; r < rows; r++) {
            const Floats left = same_floats(a[r * a_stride + k]);
            for (int v = 0; v < vectors; v++) sums[r][v] = fma_floats(left, right[v], sums[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) store_floats(c + r * c_stride + v * LANES, sums[r][v]);
}

#define CASE(n) \
    case n: ISA(product)(a, a_stride, b, b_stride, depth, c, c_stride, n, vectors, adds, ahead); break;

INLINE void ISA(product_of)(const float *a, size_t a_stride, const float *b, size_t b_stride, size_t depth, float *c,
                            size_t c_stride, size_t rows, int vectors, int adds, ISA(Ahead) ahead)
{
    switch (rows) {
        CASE(1)
#if QUERIES > 1
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
#endif
    }
}

#undef CASE

/* c [rows][columns] = a [rows][depth] x b [depth][columns], or what is more than was there; products are added up in the
 * order of depth. At most QUERIES rows; columns are a multiple of SUMS. */
INLINE void ISA(products)(const float *a, size_t a_stride, const float *b, size_t b_stride, size_t depth, float *c,
                          size_t c_stride, size_t rows, size_t columns, int adds, ISA(Ahead) ahead)
{
    size_t column = 0;
    for (; column + COLUMNS * LANES <= columns; column += COLUMNS * LANES, ahead.share = 0)
        ISA(product_of)(a, a_stride, b + column, b_stride, depth, c + column, c_stride, rows, COLUMNS, adds, ahead);
#if COLUMNS > 2
    for (; column + 2 * LANES <= columns; column += 2 * LANES, ahead.share = 0)
        ISA(product_of)(a, a_stride, b + column, b_stride, depth, c + column, c_stride, rows, 2, adds, ahead);
#endif
    for (; column < columns; column += LANES, ahead.share = 0)
        ISA(product_of)(a, a_stride, b + column, b_stride, depth, c + column, c_stride, rows, 1, adds, ahead);
}

static void ISA(scores)(const float *queries, const Head *head, const float *keys, float *scores, size_t rows,
                        size_t columns, ISA(Ahead) ahead)
{
    ISA(products)(queries, head->depth, keys, BLOCK, head->depth, scores, BLOCK, rows, columns, 0, ahead);
}

static void ISA(add_values)(const float *weights, const Head *head, const float *values, size_t stride, size_t count,
                            float *states, size_t rows, ISA(Ahead) ahead)
{
    ISA(products)(weights, BLOCK, values, stride, count, states + STATE_VALUES, state_size(head), rows, head->width, 1,
                  ahead);
}

/* to [depth][BLOCK] from `count` keys; what is behind them is any number. */
static void ISA(turn)(const float *keys, size_t stride, size_t count, size_t depth, float *to)
{
    for (size_t key = 0; key < count; key += LANES) {
        const float *rows[LANES];
        size_t k = 0;
        for (size_t i = 0; i < LANES; i++) rows[i] = keys + (key + i < count ? key + i : count - 1) * stride;
        for (; k + LANES <= depth; k += LANES) {
            transpose(rows, to + k * BLOCK + key, BLOCK);
            for (size_t i = 0; i < LANES; i++) rows[i] += LANES;
        }
        for (; k < depth; k++)
            for (size_t i = 0; i < LANES; i++) memcpy(to + k * BLOCK + key + i, rows[i]++, sizeof *to);
    }
}

/* scores [BLOCK] in the units of Head become softcap x tanh(score), in powers of two. */
static void ISA(cap)(float *scores, float softcap)
{
    float heights[BLOCK];
    for (size_t i = 0; i < BLOCK; i += LANES) {
        const Floats x = load_floats(scores + i), one = same_floats(1.0f);
        const Floats away = ISA(exp2)(subtract_floats(no_floats(), greater(x, subtract_floats(no_floats(), x))));
        store_floats(heights + i, divide_floats(subtract_floats(one, away), add_floats(one, away)));
    }
    for (size_t i = 0; i < BLOCK; i++) scores[i] = copysignf(heights[i] * softcap, scores[i]);
}

/* A block's scores of keys [first, last) with softcap, bias and mask, which begin at the block's first key. */
static void ISA(adjust)(const Head *head, float *scores, size_t first, size_t last, const float *bias, const float *mask)
{
    if (head->softcap > 0) ISA(cap)(scores, head->softcap);
    if (bias)
        for (size_t i = first; i < last; i++) {
            const float more = bias[i] * LOG2_E;
            scores[i] += more < -FLT_MAX ? -FLT_MAX : more;
        }
    if (mask)
        for (size_t i = first; i < last; i++) scores[i] += mask[i];
}

INLINE float ISA(largest)(const float *scores, size_t columns, float before)
{
    Floats largest = same_floats(before);
    for (size_t i = 0; i < columns; i += LANES) largest = greater(load_floats(scores + i), largest);
    return greatest_of(largest);
}

/* Takes a state to a larger largest score. */
INLINE void ISA(lower)(float *state, float largest, size_t width)
{
    const Floats factor = same_floats(ISA(exp2_of)(state[STATE_LARGEST] - largest));
    for (size_t i = STATE_SUMS; i < STATE_VALUES + width; i += LANES)
        store_floats(state + i, multiply_floats(load_floats(state + i), factor));
    state[STATE_LARGEST] = largest;
}

/* Scores become weights, whose sums go to the state. */
INLINE void ISA(weigh)(float *scores, size_t columns, float *state)
{
    const Floats largest = same_floats(state[STATE_LARGEST]);
    Floats sums[SUMS / LANES];
    for (size_t i = 0; i < SUMS / LANES; i++) sums[i] = load_floats(state + STATE_SUMS + i * LANES);
    for (size_t key = 0; key < columns; key += SUMS)
        for (size_t i = 0; i < SUMS / LANES; i++) {
            float *at = scores + key + i * LANES;
            const Floats weight = ISA(exp2)(subtract_floats(load_floats(at), largest));
            store_floats(at, weight);
            sums[i] = add_floats(sums[i], weight);
        }
    for (size_t i = 0; i < SUMS / LANES; i++) store_floats(state + STATE_SUMS + i * LANES, sums[i]);
}

INLINE void ISA(weigh_rows)(float *scores, size_t columns, size_t rows, float *states, size_t size)
{
    float largest[QUERIES];
    for (size_t r = 0; r < rows; r++)
        largest[r] = ISA(largest)(scores + r * BLOCK, columns, states[r * size + STATE_LARGEST]);
    for (size_t r = 0; r < rows; r++)
        if (largest[r] != states[r * size + STATE_LARGEST])
            ISA(lower)(states + r * size, largest[r], size - STATE_VALUES);
    for (size_t r = 0; r < rows; r++) ISA(weigh)(scores + r * BLOCK, columns, states + r * size);
}

/* One block for a few queries: its keys are `count` from `begin` on, `turned` is what `turn` made of them. The keys and
 * values of the next one are asked for meanwhile. */
typedef struct {
    size_t begin, count;
    const float *turned, *values;
    size_t value_stride;
    ISA(Ahead) while_scoring, while_adding;
} ISA(Block);

static void ISA(attend_block)(const Head *head, const ISA(Block) *block, const float *queries, const Sight *sights,
                              size_t rows, float *states)
{
    _Alignas(64) float scores[QUERIES * BLOCK];
    size_t first[QUERIES], last[QUERIES], from = 0, to = BLOCK, most = 0;
    for (size_t r = 0; r < rows; r++) {
        first[r] = behind(sights[r].first, block->begin);
        last[r] = at_most(behind(sights[r].last, block->begin), block->count);
        if (first[r] >= last[r]) first[r] = last[r] = 0;
        from = first[r] > from ? first[r] : from;
        to = last[r] < to ? last[r] : to;
        most = last[r] > most ? last[r] : most;
    }
    if (!most) return;
    const ISA(Ahead) none = {0};
    const size_t columns = (most + SUMS - 1) / SUMS * SUMS, size = state_size(head);
    ISA(scores)(queries, head, block->turned, scores, rows, columns, block->while_scoring);
    for (size_t r = 0; r < rows; r++) {
        const Sight *sight = sights + r;
        if (head->softcap > 0 || sight->bias || sight->mask)
            ISA(adjust)(head, scores + r * BLOCK, first[r], last[r], sight->bias ? sight->bias + block->begin : NULL,
                        sight->mask ? sight->mask + block->begin : NULL);
        float *row = scores + r * BLOCK;
        for (size_t i = 0; i < first[r]; i++) row[i] = -INFINITY;
        for (size_t i = last[r]; i < columns; i++) row[i] = -INFINITY;
    }
    if (columns == BLOCK) ISA(weigh_rows)(scores, BLOCK, rows, states, size);
    else ISA(weigh_rows)(scores, columns, rows, states, size);
    /* Keys that all of these queries see are added together, in the order in which they would be one by one. */
    const int shared = from < to;
    for (size_t r = 0; r < rows; r++) {
        const size_t before = shared ? from : last[r];
        if (first[r] < before)
            ISA(add_values)(scores + r * BLOCK + first[r], head, block->values + first[r] * block->value_stride,
                            block->value_stride, before - first[r], states + r * size, 1, none);
    }
    if (!shared) return;
    ISA(add_values)(scores + from, head, block->values + from * block->value_stride, block->value_stride, to - from,
                    states, rows, block->while_adding);
    for (size_t r = 0; r < rows; r++)
        if (to < last[r])
            ISA(add_values)(scores + r * BLOCK + to, head, block->values + to * block->value_stride, block->value_stride,
                            last[r] - to, states + r * size, 1, none);
}

static void ISA(clears)(const Head *head, float *states, size_t count)
{
    const size_t size = state_size(head);
    memset(states, 0, count * size * sizeof *states);
    for (size_t r = 0; r < count; r++) states[r * size + STATE_LARGEST] = -FLT_MAX;
}

/* The values of a block as whole vectors: as they lie, or copied, zeros behind each row. */
static const float *ISA(whole_values)(const Head *head, const float *values, size_t stride, size_t count, float *to)
{
    if (stride == head->width && head->value_depth == head->width) return values;
    const size_t whole = head->value_depth / SUMS * SUMS;
    for (size_t key = 0; key < count; key++, values += stride, to += head->width) {
        for (size_t i = 0; i < whole; i += LANES) store_floats(to + i, load_floats(values + i));
        for (size_t i = whole; i < head->width; i++) to[i] = i < head->value_depth ? values[i] : 0;
    }
    return to - count * head->width;
}

/* SUMS numbers. */
INLINE void ISA(widen_step)(Kept kept, const char *from, float *to)
{
    for (size_t i = 0; i < SUMS; i += LANES)
        if (kept == KEPT_INT8) store_floats(to + i, load_int8((const int8_t *)from + i));
        else store_floats(to + i, load_bfloat16((const uint16_t *)from + i));
}

INLINE void ISA(widen_rows)(const Head *head, Kept kept, const char *rows, size_t stride, size_t count, float *to)
{
    const size_t number = kept_size(kept), whole = head->depth / SUMS * SUMS, rest = head->depth - whole;
    for (; count--; rows += stride * number, to += head->width) {
        char last[SUMS * sizeof(float)] = {0};
        for (size_t i = 0; i < whole; i += SUMS) ISA(widen_step)(kept, rows + i * number, to + i);
        if (!rest) continue;
        memcpy(last, rows + whole * number, rest * number);
        ISA(widen_step)(kept, last, to + whole);
    }
}

/* Rows of numbers that are not float32 likewise, as float32. */
static void ISA(widen)(const Head *head, Kept kept, const void *rows, size_t stride, size_t count, float *to)
{
    if (kept == KEPT_INT8) ISA(widen_rows)(head, KEPT_INT8, rows, stride, count, to);
    else ISA(widen_rows)(head, KEPT_BFLOAT16, rows, stride, count, to);
}

/* `words` of each key, in which numbers lie side by side, the first in the lowest bits; to [numbers][BLOCK]. */
INLINE void ISA(part)(Kept kept, const float *from, size_t words, size_t count, float *to)
{
    const int parts = (int)(sizeof *to / kept_size(kept));
    for (size_t word = 0; word < words; word++, from += BLOCK, to += parts * BLOCK)
        for (size_t key = 0; key < count; key += LANES) {
            const Floats four = load_floats(from + key);
            for (int part = 0; part < parts; part++)
                store_floats(to + part * BLOCK + key, kept == KEPT_INT8 ? byte_of(four, part) : half_of(four, part));
        }
}

/* What `turn` makes of keys that are not float32. Where they fill 32 bits, these are turned, and then parted. `copied`:
 * [BLOCK][width], for itself. */
static void ISA(turn_kept)(const Head *head, Kept kept, const void *keys, size_t stride, size_t count, float *copied,
                           float *turned)
{
    const size_t numbers = sizeof *turned / kept_size(kept), words = head->depth / numbers;
    if (head->depth % numbers || stride % numbers || (uintptr_t)keys % sizeof *turned) {
        ISA(widen)(head, kept, keys, stride, count, copied);
        ISA(turn)(copied, head->width, count, head->depth, turned);
        return;
    }
    ISA(turn)(keys, stride / numbers, count, words, copied);
    if (kept == KEPT_INT8) ISA(part)(KEPT_INT8, copied, words, count, turned);
    else ISA(part)(KEPT_BFLOAT16, copied, words, count, turned);
}

/* `count` rows of so many bytes, to be asked for in `steps`; none that lie apart, and of NULL none. */
static ISA(Ahead) ISA(rows_ahead)(const char *rows, size_t row, size_t bytes, size_t count, size_t steps)
{
    return (ISA(Ahead)){rows, rows && row == bytes ? (bytes * count + steps * LINE - 1) / (steps * LINE) * LINE : 0};
}

static void ISA(attends)(const Head *head, Tokens tokens, const float *queries, const Sight *sights, size_t count,
                         size_t begin, float *states, float *workspace)
{
    const size_t number = kept_size(tokens.kept);
    float *turned = workspace, *copied = workspace + BLOCK * head->depth;
    size_t first = begin + RANGE, last = begin;
    ISA(clears)(head, states, count);
    for (size_t r = 0; r < count; r++) {
        first = sights[r].first < first ? sights[r].first : first;
        last = sights[r].last > last ? sights[r].last : last;
    }
    last = at_most(last, begin + RANGE);
    for (size_t key = begin + behind(first, begin) / BLOCK * BLOCK; key < last; key += BLOCK) {
        const size_t keys = at_most(last - key, BLOCK);
        const void *key_rows = (const char *)tokens.keys + key * tokens.key_stride * number;
        const void *value_rows = (const char *)tokens.values + key * tokens.value_stride * number;
        const float *values = copied;
        if (tokens.kept == KEPT_FLOAT32) {
            ISA(turn)(key_rows, tokens.key_stride, keys, head->depth, turned);
            values = ISA(whole_values)(head, value_rows, tokens.value_stride, keys, copied);
        } else {
            ISA(turn_kept)(head, tokens.kept, key_rows, tokens.key_stride, keys, copied, turned);
            ISA(widen)(head, tokens.kept, value_rows, tokens.value_stride, keys, copied);
        }
        const size_t more = at_most(last - key - keys, BLOCK), key_row = tokens.key_stride * number;
        const size_t value_row = tokens.value_stride * number, expected = more ? more : BLOCK;
        const char *next_keys = more ? (const char *)key_rows + keys * key_row : tokens.next_keys;
        const char *next_values = more ? (const char *)value_rows + keys * value_row : tokens.next_values;
        ISA(Block) block = {
            key, keys, turned, values, head->width,
            ISA(rows_ahead)(next_keys, key_row, head->depth * number, expected, head->depth),
            ISA(rows_ahead)(next_values, value_row, head->value_depth * number, at_most(expected, keys), keys),
        };
        for (size_t r = 0; r < count; r += QUERIES) {
            ISA(attend_block)(head, &block, queries + r * head->depth, sights + r, at_most(count - r, QUERIES),
                              states + r * state_size(head));
            block.while_scoring = block.while_adding = (ISA(Ahead)){0};
        }
    }
}

/* Takes a state from its largest score to a larger one; the factor is 1 where they are the same. */
static float ISA(lowering)(float before, float largest)
{
    return before == largest ? 1.0f : ISA(exp2_of)(before - largest);
}

static void ISA(joins)(const Head *head, float *states, const float *later, size_t count)
{
    const size_t size = state_size(head);
    for (; count--; states += size, later += size) {
        const float largest = later[STATE_LARGEST] > states[STATE_LARGEST] ? later[STATE_LARGEST] : states[STATE_LARGEST];
        const Floats old = same_floats(ISA(lowering)(states[STATE_LARGEST], largest));
        const Floats new = same_floats(ISA(lowering)(later[STATE_LARGEST], largest));
        for (size_t i = STATE_SUMS; i < size; i += LANES) {
            const Floats more = multiply_floats(load_floats(later + i), new);
            store_floats(states + i, fma_floats(load_floats(states + i), old, more));
        }
        states[STATE_LARGEST] = largest;
    }
}

static void ISA(finishes)(const Head *head, const float *state, const float *sink, float *out)
{
    float sums[SUMS], factor = 1;
    memcpy(sums, state + STATE_SUMS, sizeof sums);
    for (size_t half = SUMS / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++) sums[i] += sums[i + half];
    float sum = sums[0];
    if (sink) {
        const float largest = *sink > state[STATE_LARGEST] ? *sink : state[STATE_LARGEST];
        factor = ISA(lowering)(state[STATE_LARGEST], largest);
        sum = sum * factor + ISA(lowering)(*sink, largest);
    }
    factor /= sum;
    for (size_t i = 0; i < head->value_depth; i++)
        out[i] = state[STATE_VALUES + i] * factor + 0.0f; /* no zero below zero */
}

#define ATTENTION_KERNELS {ISA(attends), ISA(joins), ISA(clears), ISA(finishes)}
