// A Triton backend that runs ONNX models with ONNX Runtime on the memory that Triton hands out: inputs are
// read and outputs written where they lie, in a message of gRPC or in shared memory. It is the shortest way
// through Triton for the models of these benchmarks, which have one input `input` and one output `output`.
//
// A request that runs alone is not copied. Several that Triton batched are gathered and scattered once each.
//
// Environment: PEERS_ONNXRUNTIME, the library; PEERS_THREADS, threads for one operator.

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "onnxruntime.h"
#include "triton.h"

namespace {

constexpr const char *kInput = "input";
constexpr const char *kOutput = "output";

using Shape = std::vector<int64_t>;

const char *environment(const char *name) {
  const char *value = std::getenv(name);
  if (value == nullptr) {
    throw std::runtime_error(std::string(name) + " is not set");
  }
  return value;
}

void check(TRITONSERVER_Error *error) {
  if (error != nullptr) {
    std::string message = TRITONSERVER_ErrorMessage(error);
    TRITONSERVER_ErrorDelete(error);
    throw std::runtime_error("Triton: " + message);
  }
}

TRITONSERVER_Error *failure(const std::exception &problem) {
  return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, problem.what());
}

const Ort &ort() {
  static const Ort functions(environment("PEERS_ONNXRUNTIME"));
  return functions;
}

const OrtEnv *ort_environment() {
  static OrtEnv *const env = [] {
    constexpr int kWarnings = 2;
    OrtEnv *created = nullptr;
    ort().check(ort().CreateEnv(kWarnings, "triton", &created));
    return created;
  }();
  return env;
}

const OrtMemoryInfo *cpu_memory() {
  static OrtMemoryInfo *const memory = [] {
    constexpr int kArenaAllocator = 1, kDefaultMemory = 0;
    OrtMemoryInfo *created = nullptr;
    ort().check(ort().CreateCpuMemoryInfo(kArenaAllocator, kDefaultMemory, &created));
    return created;
  }();
  return memory;
}

struct ReleaseValue {
  void operator()(OrtValue *value) const { ort().ReleaseValue(value); }
};
using Value = std::unique_ptr<OrtValue, ReleaseValue>;

struct ReleaseSession {
  void operator()(OrtSession *session) const { ort().ReleaseSession(session); }
};

/// Bytes of a float32 tensor: outputs of all models are of this type.
uint64_t float_bytes(const Shape &shape) {
  return std::accumulate(
      shape.begin(), shape.end(), uint64_t{sizeof(float)},
      [](uint64_t product, int64_t dimension) { return product * static_cast<uint64_t>(dimension); });
}

OrtElementType element_type(TRITONSERVER_DataType type) {
  switch (type) {
    case TRITONSERVER_TYPE_FP32:
      return ORT_FLOAT;
    case TRITONSERVER_TYPE_UINT8:
      return ORT_UINT8;
  }
  throw std::runtime_error("inputs are FP32 or UINT8");
}

/// A value over memory that somebody else owns and keeps.
Value borrow(void *data, uint64_t byte_size, const Shape &shape, OrtElementType type) {
  OrtValue *value = nullptr;
  ort().check(ort().CreateTensorWithDataAsOrtValue(
      cpu_memory(), data, byte_size, shape.data(), shape.size(), type, &value));
  return Value(value);
}

Shape shape_of(const Value &value) {
  OrtTensorTypeAndShapeInfo *info = nullptr;
  ort().check(ort().GetTensorTypeAndShape(value.get(), &info));
  std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo *)> owner(
      info, ort().ReleaseTensorTypeAndShapeInfo);
  size_t rank = 0;
  ort().check(ort().GetDimensionsCount(info, &rank));
  Shape shape(rank);
  ort().check(ort().GetDimensions(info, shape.data(), rank));
  return shape;
}

/// An input of one request, where it lies.
struct Input {
  TRITONSERVER_DataType type;
  Shape shape;
  const void *data = nullptr;
  uint64_t byte_size = 0;

  explicit Input(TRITONBACKEND_Request *request) {
    TRITONBACKEND_Input *input = nullptr;
    check(TRITONBACKEND_RequestInput(request, kInput, &input));
    const int64_t *dimensions = nullptr;
    uint32_t rank = 0, buffer_count = 0;
    check(TRITONBACKEND_InputProperties(
        input, nullptr, &type, &dimensions, &rank, &byte_size, &buffer_count));
    shape.assign(dimensions, dimensions + rank);
    if (buffer_count != 1) {
      throw std::runtime_error("an input in several pieces is not served");
    }
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0;
    check(TRITONBACKEND_InputBuffer(input, 0, &data, &byte_size, &memory, &memory_id));
    if (memory != TRITONSERVER_MEMORY_CPU) {
      throw std::runtime_error("an input outside of the processor's memory is not served");
    }
  }
};

/// The response of one request.
class Response {
 public:
  explicit Response(TRITONBACKEND_Request *request) : request_(request) {
    check(TRITONBACKEND_ResponseNew(&response_, request));
  }

  void *output(const Shape &shape) {
    TRITONBACKEND_Output *output = nullptr;
    check(TRITONBACKEND_ResponseOutput(
        response_, &output, kOutput, TRITONSERVER_TYPE_FP32, shape.data(),
        static_cast<uint32_t>(shape.size())));
    void *buffer = nullptr;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0;
    check(TRITONBACKEND_OutputBuffer(output, &buffer, float_bytes(shape), &memory, &memory_id));
    if (memory != TRITONSERVER_MEMORY_CPU) {
      throw std::runtime_error("an output outside of the processor's memory is not served");
    }
    return buffer;
  }

  TRITONBACKEND_Request *request() const { return request_; }

  /// Sends the response, and gives the request back.
  void send(TRITONSERVER_Error *error) {
    forget(TRITONBACKEND_ResponseSend(response_, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
    forget(TRITONBACKEND_RequestRelease(request_, TRITONSERVER_REQUEST_RELEASE_ALL));
    if (error != nullptr) {
      TRITONSERVER_ErrorDelete(error);
    }
  }

 private:
  static void forget(TRITONSERVER_Error *error) {
    if (error != nullptr) {
      TRITONSERVER_ErrorDelete(error);
    }
  }

  TRITONBACKEND_Request *request_;
  TRITONBACKEND_Response *response_ = nullptr;
};

/// One model, loaded.
class Instance {
 public:
  Instance(const std::string &path, int threads) {
    OrtSessionOptions *options = nullptr;
    ort().check(ort().CreateSessionOptions(&options));
    std::unique_ptr<OrtSessionOptions, void (*)(OrtSessionOptions *)> owner(
        options, ort().ReleaseSessionOptions);
    ort().check(ort().SetIntraOpNumThreads(options, threads));
    ort().check(ort().AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    OrtSession *session = nullptr;
    ort().check(ort().CreateSession(ort_environment(), path.c_str(), options, &session));
    session_.reset(session);
  }

  /// Runs one request on its own memory.
  void run_alone(Response &response) {
    Input input(response.request());
    Value in = borrow(
        const_cast<void *>(input.data), input.byte_size, input.shape, element_type(input.type));
    auto known = output_shapes_.find(input.shape);
    if (known == output_shapes_.end()) {
      Value out = run(in, nullptr);
      Shape shape = shape_of(out);
      std::memcpy(response.output(shape), data(out), float_bytes(shape));
      // For these models the output's shape follows from the input's.
      output_shapes_.emplace(input.shape, std::move(shape));
      return;
    }
    const Shape &shape = known->second;
    run(in, borrow(response.output(shape), float_bytes(shape), shape, ORT_FLOAT));
  }

  /// Runs several requests at once, through a buffer.
  void run_together(std::vector<Response> &responses) {
    std::vector<Input> inputs;
    uint64_t byte_size = 0;
    int64_t rows = 0;
    for (Response &response : responses) {
      inputs.emplace_back(response.request());
      byte_size += inputs.back().byte_size;
      rows += inputs.back().shape.at(0);
    }
    gathered_.resize(byte_size);
    char *place = gathered_.data();
    for (const Input &input : inputs) {
      std::memcpy(place, input.data, input.byte_size);
      place += input.byte_size;
    }
    Shape shape = inputs.front().shape;
    shape.at(0) = rows;
    Value out =
        run(borrow(gathered_.data(), byte_size, shape, element_type(inputs.front().type)), nullptr);
    shape = shape_of(out);
    const char *from = static_cast<const char *>(data(out));
    for (size_t i = 0; i < responses.size(); ++i) {
      shape.at(0) = inputs[i].shape.at(0);
      std::memcpy(responses[i].output(shape), from, float_bytes(shape));
      from += float_bytes(shape);
    }
  }

 private:
  /// Runs the model. Without a value for the output ONNX Runtime allocates one.
  Value run(const Value &input, Value output) {
    const OrtValue *in = input.get();
    OrtValue *out = output.get();
    ort().check(ort().Run(session_.get(), nullptr, &kInput, &in, 1, &kOutput, 1, &out));
    if (output == nullptr) {
      output.reset(out);
    }
    return output;
  }

  static void *data(const Value &value) {
    void *data = nullptr;
    ort().check(ort().GetTensorMutableData(value.get(), &data));
    return data;
  }

  std::unique_ptr<OrtSession, ReleaseSession> session_;
  std::map<Shape, Shape> output_shapes_;
  std::vector<char> gathered_;
};

std::string model_path(TRITONBACKEND_ModelInstance *instance) {
  TRITONBACKEND_Model *model = nullptr;
  check(TRITONBACKEND_ModelInstanceModel(instance, &model));
  TRITONBACKEND_ArtifactType type;
  const char *directory = nullptr;
  check(TRITONBACKEND_ModelRepository(model, &type, &directory));
  uint64_t version = 0;
  check(TRITONBACKEND_ModelVersion(model, &version));
  return std::string(directory) + "/" + std::to_string(version) + "/model.onnx";
}

}  // namespace

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *) {
  uint32_t major = 0, minor = 0;
  TRITONSERVER_Error *error = TRITONBACKEND_ApiVersion(&major, &minor);
  if (error == nullptr && major != 1) {
    return TRITONSERVER_ErrorNew(
        TRITONSERVER_ERROR_UNSUPPORTED, "this backend is written for major version 1 of the interface");
  }
  return error;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance) {
  try {
    auto loaded = std::make_unique<Instance>(
        model_path(instance), std::stoi(environment("PEERS_THREADS")));
    check(TRITONBACKEND_ModelInstanceSetState(instance, loaded.get()));
    loaded.release();
    return nullptr;
  } catch (const std::exception &problem) {
    return failure(problem);
  }
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *instance) {
  void *state = nullptr;
  TRITONSERVER_Error *error = TRITONBACKEND_ModelInstanceState(instance, &state);
  delete static_cast<Instance *>(state);
  return error;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(
    TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request **requests, uint32_t count) {
  // Until every request has its response, an error leaves all of them with Triton.
  std::vector<Response> responses;
  void *state = nullptr;
  try {
    check(TRITONBACKEND_ModelInstanceState(instance, &state));
    responses.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      responses.emplace_back(requests[i]);
    }
  } catch (const std::exception &problem) {
    return failure(problem);
  }

  std::string problem;
  try {
    auto &model = *static_cast<Instance *>(state);
    if (count == 1) {
      model.run_alone(responses.front());
    } else {
      model.run_together(responses);
    }
  } catch (const std::exception &failed) {
    problem = failed.what();
  }
  for (Response &response : responses) {
    response.send(
        problem.empty() ? nullptr
                        : TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, problem.c_str()));
  }
  return nullptr;
}
