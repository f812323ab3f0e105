#ifndef EDGELLM_ATTENTION_OP_H
#define EDGELLM_ATTENTION_OP_H

#include "ort_api.h"

extern const OrtCustomOp attention_op;

#endif
