#ifndef EDGELLM_NORM_OP_H
#define EDGELLM_NORM_OP_H

#include "ort_api.h"

extern const OrtCustomOp layer_norm_op, rms_norm_op;

#endif
