/* Attention of queries to the keys and values of one head, as the kernels of all instruction sets compute it.
 *
 * Keys lie in blocks of BLOCK, blocks in ranges of RANGE, counted from the first key of the sequence: where a key's block
 * and range begin depends on nothing else. For each query:
 *
 *   score of a key   the products of its numbers with the query's, added up in their order by fused multiply-adds; then
 *                    softcap, bias and mask. In powers of two: who gives the query has multiplied it by log2(e)
 *   a block          the largest score so far is what all scores are taken from; 2^(score - largest) are the weights.
 *                    Their sums are SUMS, one for the keys with the same number modulo SUMS; values times weights are
 *                    added up key by key by fused multiply-adds. What was there is multiplied by 2^(largest before - now)
 *   a range          begins with nothing. Ranges are then joined in order, in the same way
 *
 * A key that a query does not see has the weight 0, and its value is not read. So a query's numbers are the same bits on
 * every instruction set, whatever other queries are computed beside it, and wherever keys and values lie. */
#ifndef EDGELLM_ATTENTION_H
#define EDGELLM_ATTENTION_H

#include <stddef.h>

enum { BLOCK = 64, RANGE = 256, SUMS = 16 };

/* log2(e): scores are in powers of two. */
#define LOG2_E 1.44269504f

/* Numbers of a head, `depth` in queries and keys, `value_depth` in values; `width`: the latter, rounded up to SUMS.
 * `softcap`: in powers of two, 0 for none; the queries are then in units in which tanh(x) is (1 - 2^-x) / (1 + 2^-x). */
typedef struct {
    size_t depth, value_depth, width;
    float softcap;
} Head;

/* What keys and values are kept as. bfloat16 is the upper half of a float32's bits. */
typedef enum { KEPT_FLOAT32, KEPT_BFLOAT16, KEPT_INT8 } Kept;
static inline size_t kept_size(Kept kept) { return kept == KEPT_FLOAT32 ? 4 : kept == KEPT_BFLOAT16 ? 2 : 1; }

/* Keys [tokens][depth] and values [tokens][value_depth], of which each row begins `stride` numbers behind the one before.
 * Those that are not float32 are as deep as keys. */
typedef struct {
    const void *keys, *values;
    size_t key_stride, value_stride;
    Kept kept;
    const void *next_keys, *next_values; /* what is read after these, or NULL */
} Tokens;

/* What a query sees: keys [first, last). `bias`: NULL, or a number for each key, times log2(e) added to its score;
 * `mask`: likewise, in powers of two. */
typedef struct {
    size_t first, last;
    const float *bias, *mask;
} Sight;

/* What is known of a query so far: the largest score, the sums of weights, and values times weights. */
enum { STATE_LARGEST = 0, STATE_SUMS = SUMS, STATE_VALUES = 2 * SUMS };
static inline Head head_of(size_t depth, size_t value_depth)
{
    return (Head){depth, value_depth, (value_depth + SUMS - 1) / SUMS * SUMS, 0};
}
static inline size_t state_size(const Head *head) { return STATE_VALUES + head->width; }

/* Numbers that `attends` needs for itself. */
static inline size_t workspace_size(const Head *head) { return BLOCK * (head->depth + head->width); }

static inline size_t behind(size_t place, size_t start) { return place > start ? place - start : 0; }
static inline size_t at_most(size_t number, size_t most) { return number < most ? number : most; }

typedef struct {
    /* `states` [count][state_size] of the queries [count][depth], of the keys in the range that begins at `begin`. */
    void (*attends)(const Head *, Tokens, const float *queries, const Sight *, size_t count, size_t begin, float *states,
                    float *workspace);
    /* Joins the states of a later range into `states`; those of no key come from `clears`. */
    void (*joins)(const Head *, float *states, const float *later, size_t count);
    void (*clears)(const Head *, float *states, size_t count);
    /* out [value_depth]. `sink`: NULL, or a score in powers of two whose weight has no value. */
    void (*finishes)(const Head *, const float *state, const float *sink, float *out);
} AttentionKernels;

#endif
