#ifndef EDGELLM_ATTENTION_OP_H
#define EDGELLM_ATTENTION_OP_H

#include "ort_api.h"

extern const OrtCustomOp attention_op, attention_bfloat16_op, attention_int8_op, multi_head_op;

#endif
