// The part of ONNX Runtime's C interface that backend.cc uses. The Python package carries the library and
// no headers. The interface is a table of functions that only ever grows at its end, so each function is
// known by its place.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

extern "C" {
struct OrtAllocator;
struct OrtEnv;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

struct OrtApiBase {
  const void *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)();
};
}

enum OrtElementType { ORT_FLOAT = 1, ORT_UINT8 = 2 };

/// The functions, from a library that is opened at run time.
struct Ort {
  OrtStatus *(*CreateEnv)(int log_level, const char *name, OrtEnv **env);
  OrtStatus *(*CreateSession)(
      const OrtEnv *env, const char *path, const OrtSessionOptions *options, OrtSession **session);
  OrtStatus *(*Run)(
      OrtSession *session, const OrtRunOptions *options, const char *const *input_names,
      const OrtValue *const *inputs, size_t input_count, const char *const *output_names,
      size_t output_count, OrtValue **outputs);
  OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **options);
  OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *options, int threads);
  OrtStatus *(*AddSessionConfigEntry)(
      OrtSessionOptions *options, const char *key, const char *value);
  OrtStatus *(*CreateCpuMemoryInfo)(int allocator_type, int memory_type, OrtMemoryInfo **info);
  OrtStatus *(*CreateTensorWithDataAsOrtValue)(
      const OrtMemoryInfo *info, void *data, size_t byte_size, const int64_t *shape, size_t rank,
      OrtElementType type, OrtValue **value);
  OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **data);
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **info);
  OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *rank);
  OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *shape, size_t rank);
  const char *(*GetErrorMessage)(const OrtStatus *status);
  void (*ReleaseStatus)(OrtStatus *status);
  void (*ReleaseSession)(OrtSession *session);
  void (*ReleaseSessionOptions)(OrtSessionOptions *options);
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info);
  void (*ReleaseValue)(OrtValue *value);

  /// Opens the library. It stays open until the process ends.
  explicit Ort(const char *library) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      throw std::runtime_error(std::string("cannot open ONNX Runtime: ") + dlerror());
    }
    auto base = reinterpret_cast<const OrtApiBase *(*)()>(dlsym(handle, "OrtGetApiBase"));
    constexpr uint32_t kVersion = 17;
    const void *table = base == nullptr ? nullptr : base()->GetApi(kVersion);
    if (table == nullptr) {
      throw std::runtime_error(std::string(library) + " is no ONNX Runtime of release 1.17 or later");
    }
    take(table, 2, GetErrorMessage);
    take(table, 3, CreateEnv);
    take(table, 7, CreateSession);
    take(table, 9, Run);
    take(table, 10, CreateSessionOptions);
    take(table, 24, SetIntraOpNumThreads);
    take(table, 49, CreateTensorWithDataAsOrtValue);
    take(table, 51, GetTensorMutableData);
    take(table, 61, GetDimensionsCount);
    take(table, 62, GetDimensions);
    take(table, 65, GetTensorTypeAndShape);
    take(table, 69, CreateCpuMemoryInfo);
    take(table, 93, ReleaseStatus);
    take(table, 95, ReleaseSession);
    take(table, 96, ReleaseValue);
    take(table, 99, ReleaseTensorTypeAndShapeInfo);
    take(table, 100, ReleaseSessionOptions);
    take(table, 130, AddSessionConfigEntry);
  }

  /// Throws what a call that failed says.
  void check(OrtStatus *status) const {
    if (status != nullptr) {
      std::string message = GetErrorMessage(status);
      ReleaseStatus(status);
      throw std::runtime_error("ONNX Runtime: " + message);
    }
  }

 private:
  template <typename Function>
  static void take(const void *table, size_t place, Function &function) {
    function = reinterpret_cast<Function>(static_cast<void *const *>(table)[place]);
  }
};
