/* What the kernels use of ONNX Runtime's C API, declared here because its wheels carry no headers.
 *
 * OrtApi is a table of function pointers that only ever grows, and OrtCustomOp a struct that does: the numbers below are
 * places in the table of version 17 (ONNX Runtime 1.17), and hold in every later one. A test loads the library in the
 * oldest and the newest ONNX Runtime that edgellm supports. */
#ifndef EDGELLM_ORT_API_H
#define EDGELLM_ORT_API_H

#include <stddef.h>
#include <stdint.h>

#define ORT_VERSION 17

typedef struct OrtStatus OrtStatus;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct { void *functions[1]; } OrtApi; /* of unknown length */
typedef struct {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

enum { ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT8 = 3, ORT_UINT16 = 4, ORT_INT32 = 6, ORT_INT64 = 7 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 };
enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };

typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
    const char *(*GetName)(const OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *);
    int (*GetInputType)(const OrtCustomOp *, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp *);
    int (*GetOutputType)(const OrtCustomOp *, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *);
    void (*KernelCompute)(void *, OrtKernelContext *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **);
    OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *, void *);
    int (*GetStartVersion)(const OrtCustomOp *);
    int (*GetEndVersion)(const OrtCustomOp *);
    size_t (*GetMayInplace)(int **, int **);
    void (*ReleaseMayInplace)(int *, int *);
    size_t (*GetAliasMap)(int **, int **);
    void (*ReleaseAliasMap)(int *, int *);
};

/* `ORT(api, Name)(...)` calls the function of that name. */
#define ORT(api, name) ((Ort_##name)(api)->functions[PLACE_##name])
#define ORT_FUNCTION(name, place, result, ...) \
    typedef result (*Ort_##name)(__VA_ARGS__); \
    enum { PLACE_##name = place };

ORT_FUNCTION(CreateStatus, 0, OrtStatus *, int code, const char *message)
ORT_FUNCTION(CreateCustomOpDomain, 26, OrtStatus *, const char *name, OrtCustomOpDomain **)
ORT_FUNCTION(CustomOpDomain_Add, 27, OrtStatus *, OrtCustomOpDomain *, const OrtCustomOp *)
ORT_FUNCTION(AddCustomOpDomain, 28, OrtStatus *, OrtSessionOptions *, OrtCustomOpDomain *)
ORT_FUNCTION(GetTensorMutableData, 51, OrtStatus *, OrtValue *, void **)
ORT_FUNCTION(GetTensorElementType, 60, OrtStatus *, const OrtTensorInfo *, int *)
ORT_FUNCTION(GetDimensionsCount, 61, OrtStatus *, const OrtTensorInfo *, size_t *)
ORT_FUNCTION(GetDimensions, 62, OrtStatus *, const OrtTensorInfo *, int64_t *, size_t)
ORT_FUNCTION(GetTensorShapeElementCount, 64, OrtStatus *, const OrtTensorInfo *, size_t *)
ORT_FUNCTION(GetTensorTypeAndShape, 65, OrtStatus *, const OrtValue *, OrtTensorInfo **)
ORT_FUNCTION(KernelInfoGetAttribute_float, 85, OrtStatus *, const OrtKernelInfo *, const char *, float *)
ORT_FUNCTION(KernelInfoGetAttribute_int64, 86, OrtStatus *, const OrtKernelInfo *, const char *, int64_t *)
ORT_FUNCTION(KernelContext_GetInputCount, 88, OrtStatus *, const OrtKernelContext *, size_t *)
ORT_FUNCTION(KernelContext_GetInput, 90, OrtStatus *, const OrtKernelContext *, size_t, const OrtValue **)
ORT_FUNCTION(KernelContext_GetOutput, 91, OrtStatus *, OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **)
ORT_FUNCTION(ReleaseStatus, 93, void, OrtStatus *)
ORT_FUNCTION(ReleaseTensorTypeAndShapeInfo, 99, void, OrtTensorInfo *)
ORT_FUNCTION(KernelInfo_GetInputCount, 230, OrtStatus *, const OrtKernelInfo *, size_t *)
ORT_FUNCTION(KernelInfoGetConstantInput_tensor, 249, OrtStatus *, const OrtKernelInfo *, size_t, int *, const OrtValue **)
ORT_FUNCTION(KernelContext_ParallelFor, 274, OrtStatus *, const OrtKernelContext *, void (*)(void *, size_t), size_t total,
             size_t batches, void *)

#endif
