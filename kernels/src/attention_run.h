/* Attention of all heads of a batch, by ONNX Runtime's threads: what the operators of attention have in common. */
#ifndef EDGELLM_ATTENTION_RUN_H
#define EDGELLM_ATTENTION_RUN_H

#include <stdint.h>

#include "attention.h"
#include "ort_api.h"

/* What is added to scores: [batch][heads][queries][keys]; along each of the first three the same where its step is 0. */
typedef struct {
    const float *numbers; /* NULL for none */
    size_t batch_step, head_step, query_step;
} Bias;

typedef struct {
    const AttentionKernels *kernels;
    Head head;
    size_t batch, kv_heads, group, length; /* `group` heads of queries share a head of keys and values */
    const float *queries;                  /* [batch][kv_heads][length][group][depth] */
    float *out;                            /* [batch][length][kv_heads][group][value_depth] */
    Tokens tokens;                         /* of the first row's first head; the steps lead to the others */
    size_t key_batch_step, key_head_step, value_batch_step, value_head_step;
    const size_t *pasts; /* [batch]: query i sees keys up to past + i; NULL where all see all `keys` */
    size_t keys, window; /* `window`: of those, the last so many, 0 for all */
    Bias bias;
    Bias masks;         /* likewise, in powers of two */
    const float *sinks; /* [kv_heads][group], in powers of two, or NULL */
    const float *value_scales; /* [kv_heads][value_depth], what comes out is multiplied by, or NULL */
} Attention;

/* What queries are multiplied by for `head`, whose softcap is set to what is given here. */
float query_factor(Head *head, float scale, float softcap);

/* The input `index`, if it is there: a bias [batch or 1][heads or 1][length][at least `keys`]. */
OrtStatus *read_bias(const OrtApi *, const OrtKernelContext *, size_t index, Attention *, size_t keys);

OrtStatus *attend(const OrtApi *, const OrtKernelContext *, const Attention *);

#endif
