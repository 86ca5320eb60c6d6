// The part of ONNX Runtime's C interface that this package calls, so that
// building needs no header of the library.
//
// OrtApi is a table of functions. New versions of the library only append to the
// table. The positions, which are asserted below, are therefore valid for every
// library that supports API_VERSION: 1.21 and all later ones.

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { API_VERSION = 21 };

enum { LOG_ERRORS = 3, SEQUENTIAL = 0, DEVICE_ALLOCATOR = 0, MEMORY_DEFAULT = 0, KIND_TENSOR = 1 };

// The types of the elements of a tensor.
enum {
  ELEMENT_FLOAT = 1,
  ELEMENT_UINT8 = 2,
  ELEMENT_INT8 = 3,
  ELEMENT_INT32 = 6,
  ELEMENT_INT64 = 7,
  ELEMENT_STRING = 8,
  ELEMENT_BOOL = 9,
  ELEMENT_FLOAT16 = 10,
  ELEMENT_DOUBLE = 11,
};

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtCUDAOptions OrtCUDAOptions;
typedef struct OrtTensorRTOptions OrtTensorRTOptions;

typedef struct OrtApi {
  void *before2[2];
  const char *(*GetErrorMessage)(const OrtStatus *);
  OrtStatus *(*CreateEnv)(int log_level, const char *log_id, OrtEnv **);
  void *before7[3];
  OrtStatus *(*CreateSession)(const OrtEnv *, const char *path, const OrtSessionOptions *, OrtSession **);
  OrtStatus *(*CreateSessionFromArray)(const OrtEnv *, const void *file, size_t bytes, const OrtSessionOptions *,
                                       OrtSession **);
  OrtStatus *(*Run)(OrtSession *, const OrtRunOptions *, const char *const *input_names,
                    const OrtValue *const *inputs, size_t n_inputs, const char *const *output_names, size_t n_outputs,
                    OrtValue **outputs);
  OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **);
  void *before13[2];
  OrtStatus *(*SetSessionExecutionMode)(OrtSessionOptions *, int mode);
  void *before17[3];
  OrtStatus *(*DisableMemPattern)(OrtSessionOptions *);
  OrtStatus *(*EnableCpuMemArena)(OrtSessionOptions *);
  void *before24[5];
  OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *, int);
  OrtStatus *(*SetInterOpNumThreads)(OrtSessionOptions *, int);
  void *before30[4];
  OrtStatus *(*SessionGetInputCount)(const OrtSession *, size_t *);
  OrtStatus *(*SessionGetOutputCount)(const OrtSession *, size_t *);
  void *before33[1];
  OrtStatus *(*SessionGetInputTypeInfo)(const OrtSession *, size_t index, OrtTypeInfo **);
  OrtStatus *(*SessionGetOutputTypeInfo)(const OrtSession *, size_t index, OrtTypeInfo **);
  void *before36[1];
  OrtStatus *(*SessionGetInputName)(const OrtSession *, size_t index, OrtAllocator *, char **);
  OrtStatus *(*SessionGetOutputName)(const OrtSession *, size_t index, OrtAllocator *, char **);
  void *before49[11];
  OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *shape,
                                               size_t rank, int element, OrtValue **);
  OrtStatus *(*IsTensor)(const OrtValue *, int *);
  OrtStatus *(*GetTensorMutableData)(OrtValue *, void **);
  void *before55[3];
  OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *, const OrtTensorInfo **);
  OrtStatus *(*GetOnnxTypeFromTypeInfo)(const OrtTypeInfo *, int *kind);
  void *before60[3];
  OrtStatus *(*GetTensorElementType)(const OrtTensorInfo *, int *);
  OrtStatus *(*GetDimensionsCount)(const OrtTensorInfo *, size_t *);
  OrtStatus *(*GetDimensions)(const OrtTensorInfo *, int64_t *, size_t rank);
  void *before65[2];
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtTensorInfo **);
  void *before69[3];
  OrtStatus *(*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo **);
  void *before76[6];
  OrtStatus *(*AllocatorFree)(OrtAllocator *, void *);
  void *before78[1];
  OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **);
  void *before93[14];
  void (*ReleaseStatus)(OrtStatus *);
  void *before95[1];
  void (*ReleaseSession)(OrtSession *);
  void (*ReleaseValue)(OrtValue *);
  void *before98[1];
  void (*ReleaseTypeInfo)(OrtTypeInfo *);
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorInfo *);
  void (*ReleaseSessionOptions)(OrtSessionOptions *);
  void *before125[24];
  OrtStatus *(*GetAvailableProviders)(char ***, int *);
  OrtStatus *(*ReleaseAvailableProviders)(char **, int);
  void *before130[3];
  OrtStatus *(*AddSessionConfigEntry)(OrtSessionOptions *, const char *key, const char *value);
  void *before170[39];
  OrtStatus *(*AppendTensorRT)(OrtSessionOptions *, const OrtTensorRTOptions *);
  OrtStatus *(*CreateTensorRTOptions)(OrtTensorRTOptions **);
  OrtStatus *(*UpdateTensorRTOptions)(OrtTensorRTOptions *, const char *const *, const char *const *, size_t);
  void *before174[1];
  void (*ReleaseTensorRTOptions)(OrtTensorRTOptions *);
  void *before204[29];
  OrtStatus *(*AppendCUDA)(OrtSessionOptions *, const OrtCUDAOptions *);
  OrtStatus *(*CreateCUDAOptions)(OrtCUDAOptions **);
  OrtStatus *(*UpdateCUDAOptions)(OrtCUDAOptions *, const char *const *, const char *const *, size_t);
  void *before208[1];
  void (*ReleaseCUDAOptions)(OrtCUDAOptions *);
} OrtApi;

// A function after a gap is at the position in the name of the gap.
#define AT(position, function) \
  _Static_assert(offsetof(OrtApi, function) == (position) * sizeof(void *), "OrtApi: " #function)
AT(2, GetErrorMessage);
AT(7, CreateSession);
AT(13, SetSessionExecutionMode);
AT(17, DisableMemPattern);
AT(24, SetIntraOpNumThreads);
AT(30, SessionGetInputCount);
AT(33, SessionGetInputTypeInfo);
AT(36, SessionGetInputName);
AT(49, CreateTensorWithDataAsOrtValue);
AT(55, CastTypeInfoToTensorInfo);
AT(60, GetTensorElementType);
AT(65, GetTensorTypeAndShape);
AT(69, CreateCpuMemoryInfo);
AT(76, AllocatorFree);
AT(78, GetAllocatorWithDefaultOptions);
AT(93, ReleaseStatus);
AT(95, ReleaseSession);
AT(98, ReleaseTypeInfo);
AT(125, GetAvailableProviders);
AT(130, AddSessionConfigEntry);
AT(170, AppendTensorRT);
AT(174, ReleaseTensorRTOptions);
AT(204, AppendCUDA);
AT(208, ReleaseCUDAOptions);
#undef AT

typedef struct OrtApiBase {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

// open_library loads the library at path, which stays loaded until the process ends.
// It returns the API base, or NULL with the reason in *error, which the caller frees.
static inline const OrtApiBase *open_library(const char *path, char **error) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const OrtApiBase *(*base)(void) = NULL;
  if (library != NULL) base = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  if (base != NULL) return base();
  // Copied here, because the text of dlerror belongs to the thread.
  *error = strdup(dlerror());
  return NULL;
}

// missing_driver returns why CUDA cannot work, which the caller frees, or NULL.
// Without the driver, version 1.22 of the library ended the process when it loaded CUDA.
static inline char *missing_driver(void) {
  return dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == NULL ? strdup(dlerror()) : NULL;
}

// Go cannot call a C function pointer. Each of these functions calls one.

static inline const char *base_version(const OrtApiBase *b) { return b->GetVersionString(); }
static inline const OrtApi *base_api(const OrtApiBase *b) { return b->GetApi(API_VERSION); }

static inline const char *status_message(const OrtApi *a, OrtStatus *s) { return a->GetErrorMessage(s); }
static inline void release_status(const OrtApi *a, OrtStatus *s) { a->ReleaseStatus(s); }

// When a library of a provider, such as cuDNN, cannot be loaded, ONNX Runtime only
// logs it, on standard error and at this level.
static inline OrtStatus *create_env(const OrtApi *a, const char *log_id, OrtEnv **out) {
  return a->CreateEnv(LOG_ERRORS, log_id, out);
}
static inline OrtStatus *cpu_memory(const OrtApi *a, OrtMemoryInfo **out) {
  return a->CreateCpuMemoryInfo(DEVICE_ALLOCATOR, MEMORY_DEFAULT, out);
}
static inline OrtStatus *default_allocator(const OrtApi *a, OrtAllocator **out) {
  return a->GetAllocatorWithDefaultOptions(out);
}
static inline void allocator_free(const OrtApi *a, OrtAllocator *allocator, void *p) {
  OrtStatus *s = a->AllocatorFree(allocator, p);
  if (s != NULL) a->ReleaseStatus(s);
}
static inline OrtStatus *available_providers(const OrtApi *a, char ***out, int *n) {
  return a->GetAvailableProviders(out, n);
}
static inline void release_providers(const OrtApi *a, char **providers, int n) {
  OrtStatus *s = a->ReleaseAvailableProviders(providers, n);
  if (s != NULL) a->ReleaseStatus(s);
}

// lane_options creates the options of a session that runs on one thread: more threads
// would compete with those of other lanes. Memory patterns are off, because the library
// keeps one for each input shape that it has seen. Products of 8-bit numbers are exact: by
// default, their sums overflow on processors with AVX2 or AVX-512 and without VNNI, and a
// quantized network gives wrong results there.
static inline OrtStatus *lane_options(const OrtApi *a, OrtSessionOptions **out) {
  OrtStatus *s = a->CreateSessionOptions(out);
  if (s == NULL) s = a->SetIntraOpNumThreads(*out, 1);
  if (s == NULL) s = a->SetInterOpNumThreads(*out, 1);
  if (s == NULL) s = a->SetSessionExecutionMode(*out, SEQUENTIAL);
  if (s == NULL) s = a->EnableCpuMemArena(*out);
  if (s == NULL) s = a->DisableMemPattern(*out);
  if (s == NULL) s = a->AddSessionConfigEntry(*out, "session.x64quantprecision", "1");
  return s;
}
static inline void release_options(const OrtApi *a, OrtSessionOptions *o) { a->ReleaseSessionOptions(o); }

static inline OrtStatus *append_cuda(const OrtApi *a, OrtSessionOptions *o, const char *const *keys,
                                     const char *const *values, size_t n) {
  OrtCUDAOptions *cuda = NULL;
  OrtStatus *s = a->CreateCUDAOptions(&cuda);
  if (s == NULL) s = a->UpdateCUDAOptions(cuda, keys, values, n);
  if (s == NULL) s = a->AppendCUDA(o, cuda);
  if (cuda != NULL) a->ReleaseCUDAOptions(cuda);
  return s;
}
static inline OrtStatus *append_tensorrt(const OrtApi *a, OrtSessionOptions *o, const char *const *keys,
                                         const char *const *values, size_t n) {
  OrtTensorRTOptions *tensorrt = NULL;
  OrtStatus *s = a->CreateTensorRTOptions(&tensorrt);
  if (s == NULL) s = a->UpdateTensorRTOptions(tensorrt, keys, values, n);
  if (s == NULL) s = a->AppendTensorRT(o, tensorrt);
  if (tensorrt != NULL) a->ReleaseTensorRTOptions(tensorrt);
  return s;
}

static inline OrtStatus *create_session(const OrtApi *a, const OrtEnv *e, const char *path, const OrtSessionOptions *o,
                                        OrtSession **out) {
  return a->CreateSession(e, path, o, out);
}
static inline OrtStatus *create_session_from_array(const OrtApi *a, const OrtEnv *e, const void *file, size_t bytes,
                                                   const OrtSessionOptions *o, OrtSession **out) {
  return a->CreateSessionFromArray(e, file, bytes, o, out);
}
static inline void release_session(const OrtApi *a, OrtSession *s) { a->ReleaseSession(s); }
static inline OrtStatus *input_count(const OrtApi *a, const OrtSession *s, size_t *out) {
  return a->SessionGetInputCount(s, out);
}
static inline OrtStatus *output_count(const OrtApi *a, const OrtSession *s, size_t *out) {
  return a->SessionGetOutputCount(s, out);
}
static inline OrtStatus *input_name(const OrtApi *a, const OrtSession *s, size_t i, OrtAllocator *al, char **out) {
  return a->SessionGetInputName(s, i, al, out);
}
static inline OrtStatus *output_name(const OrtApi *a, const OrtSession *s, size_t i, OrtAllocator *al, char **out) {
  return a->SessionGetOutputName(s, i, al, out);
}
static inline OrtStatus *input_type(const OrtApi *a, const OrtSession *s, size_t i, OrtTypeInfo **out) {
  return a->SessionGetInputTypeInfo(s, i, out);
}
static inline OrtStatus *output_type(const OrtApi *a, const OrtSession *s, size_t i, OrtTypeInfo **out) {
  return a->SessionGetOutputTypeInfo(s, i, out);
}
static inline void release_type(const OrtApi *a, OrtTypeInfo *t) { a->ReleaseTypeInfo(t); }

// tensor_info sets *out to NULL if t is not a tensor. *out belongs to t.
static inline OrtStatus *tensor_info(const OrtApi *a, const OrtTypeInfo *t, const OrtTensorInfo **out) {
  int kind = 0;
  OrtStatus *s = a->GetOnnxTypeFromTypeInfo(t, &kind);
  if (s == NULL && kind == KIND_TENSOR) s = a->CastTypeInfoToTensorInfo(t, out);
  return s;
}
static inline OrtStatus *element_type(const OrtApi *a, const OrtTensorInfo *t, int *out) {
  return a->GetTensorElementType(t, out);
}
static inline OrtStatus *dimension_count(const OrtApi *a, const OrtTensorInfo *t, size_t *out) {
  return a->GetDimensionsCount(t, out);
}
static inline OrtStatus *dimensions(const OrtApi *a, const OrtTensorInfo *t, int64_t *out, size_t rank) {
  return a->GetDimensions(t, out, rank);
}

static inline OrtStatus *create_tensor(const OrtApi *a, const OrtMemoryInfo *m, void *data, size_t bytes,
                                       const int64_t *shape, size_t rank, OrtValue **out) {
  return a->CreateTensorWithDataAsOrtValue(m, data, bytes, shape, rank, ELEMENT_FLOAT, out);
}
static inline OrtStatus *run(const OrtApi *a, OrtSession *s, const char *input_name, const OrtValue *input,
                             const char *const *output_names, size_t n, OrtValue **outputs) {
  return a->Run(s, NULL, &input_name, &input, 1, output_names, n, outputs);
}

// value_info sets *out to NULL if v is not a tensor. The caller owns *out.
static inline OrtStatus *value_info(const OrtApi *a, const OrtValue *v, OrtTensorInfo **out) {
  int is_tensor = 0;
  OrtStatus *s = a->IsTensor(v, &is_tensor);
  if (s == NULL && is_tensor) s = a->GetTensorTypeAndShape(v, out);
  return s;
}
static inline void release_tensor_info(const OrtApi *a, OrtTensorInfo *t) { a->ReleaseTensorTypeAndShapeInfo(t); }
static inline OrtStatus *value_data(const OrtApi *a, OrtValue *v, void **out) {
  return a->GetTensorMutableData(v, out);
}
static inline void release_value(const OrtApi *a, OrtValue *v) { a->ReleaseValue(v); }
