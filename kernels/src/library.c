/* What ONNX Runtime calls when the library is registered: all ops, in the domain "edgellm". */
#include <stdatomic.h>

#include "attention_op.h"
#include "experts_op.h"
#include "linear_op.h"
#include "norm_op.h"

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* Becomes another number when operators, their inputs or what they mean change: edgellm uses a library with its own. */
enum { INTERFACE = 3 };

const char *edgellm_instruction_sets(void);

static const OrtCustomOp *const ops[] = {&linear_op, &experts_op, &attention_op, &attention_bfloat16_op, &attention_int8_op,
                                          &multi_head_op, &layer_norm_op, &rms_norm_op};
static _Atomic(OrtCustomOpDomain *) shared; /* for as long as the process: sessions use it */

EXPORTED const char *edgellm_kernels_sets(void) { return edgellm_instruction_sets(); }
EXPORTED int edgellm_kernels_interface(void) { return INTERFACE; }

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base)
{
    const OrtApi *api = base->GetApi(ORT_VERSION);
    OrtCustomOpDomain *domain = atomic_load(&shared);
    if (!domain) {
        OrtStatus *status = ORT(api, CreateCustomOpDomain)("edgellm", &domain);
        for (size_t i = 0; !status && i < sizeof ops / sizeof *ops; i++)
            status = ORT(api, CustomOpDomain_Add)(domain, ops[i]);
        if (status) return status;
        OrtCustomOpDomain *before = NULL;
        if (!atomic_compare_exchange_strong(&shared, &before, domain)) domain = before; /* another thread was first */
    }
    return ORT(api, AddCustomOpDomain)(options, domain);
}
