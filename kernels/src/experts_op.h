#ifndef EDGELLM_EXPERTS_OP_H
#define EDGELLM_EXPERTS_OP_H

#include "ort_api.h"

extern const OrtCustomOp experts_op;

#endif
