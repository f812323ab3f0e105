#ifndef EDGELLM_LINEAR_OP_H
#define EDGELLM_LINEAR_OP_H

#include "ort_api.h"

extern const OrtCustomOp linear_op;

#endif
