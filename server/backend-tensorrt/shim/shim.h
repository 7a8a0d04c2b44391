/* A C interface to the part of TensorRT's runtime that runs a plan.
 *
 * TensorRT's interfaces are C++ classes of virtual functions, whose layout is the contract between its headers and its
 * library. So this file and shim.cpp are compiled against the headers, and link nothing: the library is opened at run
 * time, and everything after its one entry point is a virtual call.
 *
 * Every function that can fail returns 0 for success and writes a sentence to `error` otherwise (zero-terminated, cut to
 * `error_size`). No C++ exception leaves a function. Nothing here may be called before a CUDA driver and a device are known
 * to be there: the lean runtime returns an object that is none without them.
 */
#ifndef ADJOIN_TENSORRT_SHIM_H
#define ADJOIN_TENSORRT_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ADJOIN_TRT_RANK_MAX 8

typedef struct adjoin_trt_library adjoin_trt_library;
typedef struct adjoin_trt_engine adjoin_trt_engine;
typedef struct adjoin_trt_context adjoin_trt_context;

/* Dimensions, -1 for open ones. A rank of -1 stands for what could not be told. */
typedef struct {
    int64_t sizes[ADJOIN_TRT_RANK_MAX];
    int32_t rank;
} adjoin_trt_shape;

typedef struct {
    /* Owned by the engine. */
    char const* name;
    adjoin_trt_shape shape;
    /* nvinfer1::DataType. */
    int32_t dtype;
    /* 1: input, 2: output, 0: neither. */
    int32_t mode;
    /* Not 0: its values are read from the host, or shapes follow from them. */
    int32_t is_shape;
    /* Not 0: elements lie one after another, in the order of the shape. */
    int32_t is_linear;
} adjoin_trt_tensor;

/* Version of the headers: major * 10000 + minor * 100 + patch. */
int32_t adjoin_trt_header_version(void);

/* Opens a library, which stays open. `version` gets its release as above, also where it is refused for it; 0 where it has
 * none. */
int32_t adjoin_trt_open(
    char const* path, adjoin_trt_library** library, int32_t* version, char* error, size_t error_size);

/* Loads a plan from memory, which may be freed afterwards. `is_trusted` not 0 lets a version-compatible plan bring code for
 * the host. The library has to outlive the engine. */
int32_t adjoin_trt_load(adjoin_trt_library* library, void const* plan, size_t byte_size, int32_t is_trusted,
    adjoin_trt_engine** engine, char* error, size_t error_size);
void adjoin_trt_engine_free(adjoin_trt_engine* engine);

int32_t adjoin_trt_tensor_count(adjoin_trt_engine const* engine);
int32_t adjoin_trt_tensor_at(adjoin_trt_engine const* engine, int32_t index, int32_t profile, adjoin_trt_tensor* tensor,
    char* error, size_t error_size);
int32_t adjoin_trt_profile_count(adjoin_trt_engine const* engine);
/* The shape of an input in a profile: 0 the least, 1 the one it was tuned for, 2 the largest. */
int32_t adjoin_trt_profile_shape(adjoin_trt_engine const* engine, char const* name, int32_t profile, int32_t which,
    adjoin_trt_shape* shape, char* error, size_t error_size);

/* A context that runs one batch at a time, with a profile; `stream` is a CUstream, which has to be synchronised before the
 * first run. The engine has to outlive it. */
int32_t adjoin_trt_context_new(adjoin_trt_engine* engine, int32_t profile, void* stream, adjoin_trt_context** context,
    char* error, size_t error_size);
void adjoin_trt_context_free(adjoin_trt_context* context);

int32_t adjoin_trt_set_shape(adjoin_trt_context* context, char const* name, adjoin_trt_shape const* shape, char* error,
    size_t error_size);
/* The shape of a tensor under the shapes that are set; open where only a run shows it. */
int32_t adjoin_trt_shape_of(adjoin_trt_context const* context, char const* name, adjoin_trt_shape* shape, char* error,
    size_t error_size);
/* `address` is memory of the device. */
int32_t adjoin_trt_set_address(
    adjoin_trt_context* context, char const* name, void* address, char* error, size_t error_size);
/* Enqueues a run in `stream`, a CUstream. */
int32_t adjoin_trt_enqueue(adjoin_trt_context* context, void* stream, char* error, size_t error_size);

#ifdef __cplusplus
}
#endif

#endif
