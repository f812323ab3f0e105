/* What ONNX Runtime calls when the library is registered: all ops, in the domain "edgellm". */
#include <stdatomic.h>

#include "attention_op.h"
#include "linear_op.h"

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

const char *edgellm_instruction_sets(void);

static _Atomic(OrtCustomOpDomain *) shared; /* for as long as the process: sessions use it */

EXPORTED const char *edgellm_kernels_sets(void) { return edgellm_instruction_sets(); }

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base)
{
    const OrtApi *api = base->GetApi(ORT_VERSION);
    OrtCustomOpDomain *domain = atomic_load(&shared);
    if (!domain) {
        OrtStatus *status = ORT(api, CreateCustomOpDomain)("edgellm", &domain);
        if (!status) status = ORT(api, CustomOpDomain_Add)(domain, &linear_op);
        if (!status) status = ORT(api, CustomOpDomain_Add)(domain, &attention_op);
        if (status) return status;
        OrtCustomOpDomain *before = NULL;
        if (!atomic_compare_exchange_strong(&shared, &before, domain)) domain = before; /* another thread was first */
    }
    return ORT(api, AddCustomOpDomain)(options, domain);
}
