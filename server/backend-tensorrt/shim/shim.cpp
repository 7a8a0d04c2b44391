// See shim.h. Each function is a virtual call or two, with their failure made a sentence.

#include "shim.h"

#include <NvInferRuntime.h>

#include <cstring>
#include <dlfcn.h>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

namespace
{

// The errors that the library has logged since they were last taken: what it says beside a null pointer or `false`.
class Logger : public nvinfer1::ILogger
{
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override
    {
        if (severity > Severity::kERROR || message == nullptr)
        {
            return;
        }
        try
        {
            std::lock_guard<std::mutex> lock(mMutex);
            if (mErrors.size() > kErrorsMax)
            {
                return;
            }
            if (!mErrors.empty())
            {
                mErrors += "; ";
            }
            mErrors += message;
        }
        catch (...)
        {
            // Without memory for the sentence the failure is reported without it.
        }
    }

    std::string take()
    {
        std::lock_guard<std::mutex> lock(mMutex);
        std::string errors;
        errors.swap(mErrors);
        return errors;
    }

private:
    static constexpr size_t kErrorsMax = 1024;
    std::mutex mMutex;
    std::string mErrors;
};

void say(char* error, size_t size, char const* text)
{
    if (size > 0)
    {
        std::strncpy(error, text, size - 1);
        error[size - 1] = '\0';
    }
}

// Runs `body`; whatever it throws is written to `error`.
template <typename Body>
int32_t guarded(char* error, size_t size, Body body) noexcept
{
    try
    {
        body();
        return 0;
    }
    catch (std::exception const& thrown)
    {
        say(error, size, thrown.what());
    }
    catch (...)
    {
        say(error, size, "TensorRT threw something that is no std::exception");
    }
    return 1;
}

[[noreturn]] void fail(Logger& logger, std::string what)
{
    std::string const said = logger.take();
    throw std::runtime_error(said.empty() ? what : what + ": " + said);
}

void check(bool is_good, Logger& logger, char const* what)
{
    if (!is_good)
    {
        fail(logger, what);
    }
}

void to_shape(nvinfer1::Dims const& dims, adjoin_trt_shape& shape)
{
    shape.rank = dims.nbDims;
    if (dims.nbDims > ADJOIN_TRT_RANK_MAX)
    {
        throw std::runtime_error("a tensor has more than 8 dimensions");
    }
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        shape.sizes[i] = dims.d[i];
    }
}

nvinfer1::Dims to_dims(adjoin_trt_shape const& shape)
{
    static_assert(ADJOIN_TRT_RANK_MAX <= nvinfer1::Dims::MAX_DIMS, "a shape fits");
    if (shape.rank < 0 || shape.rank > ADJOIN_TRT_RANK_MAX)
    {
        throw std::runtime_error("a shape has 0 to 8 dimensions");
    }
    nvinfer1::Dims dims{};
    dims.nbDims = shape.rank;
    for (int32_t i = 0; i < shape.rank; ++i)
    {
        dims.d[i] = shape.sizes[i];
    }
    return dims;
}

using VersionFunction = int32_t (*)();
using RuntimeFunction = void* (*) (void*, int32_t);

// Whether a library says its release as these headers do: by 10000 since TensorRT 10, by 1000 before.
constexpr int32_t kMajorUnit = 10000;

} // namespace

struct adjoin_trt_library
{
    Logger logger;
    std::unique_ptr<nvinfer1::IRuntime> runtime;
};

struct adjoin_trt_engine
{
    Logger& logger;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
};

struct adjoin_trt_context
{
    Logger& logger;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
};

extern "C"
{

int32_t adjoin_trt_header_version(void)
{
    return NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
}

int32_t adjoin_trt_open(
    char const* path, adjoin_trt_library** library, int32_t* version, char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        *version = 0;
        // Never closed: it starts threads and registers functions that run at the end of the process.
        void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr)
        {
            char const* const reason = dlerror();
            throw std::runtime_error(reason == nullptr ? "it cannot be opened" : reason);
        }
        auto const get_version = reinterpret_cast<VersionFunction>(dlsym(handle, "getInferLibVersion"));
        auto const create = reinterpret_cast<RuntimeFunction>(dlsym(handle, "createInferRuntime_INTERNAL"));
        if (get_version == nullptr || create == nullptr)
        {
            throw std::runtime_error("it has no getInferLibVersion and createInferRuntime_INTERNAL, so it is no "
                                     "runtime of TensorRT");
        }
        *version = get_version();
        if (*version / kMajorUnit != NV_TENSORRT_MAJOR)
        {
            // Another major release has its virtual functions in other places.
            throw std::runtime_error("it is another major release than the headers that this program was built with");
        }
        auto opened = std::make_unique<adjoin_trt_library>();
        int32_t const headers = NV_TENSORRT_VERSION;
        opened->runtime.reset(static_cast<nvinfer1::IRuntime*>(create(&opened->logger, headers)));
        check(opened->runtime != nullptr, opened->logger, "it makes no runtime");
        *library = opened.release();
    });
}

int32_t adjoin_trt_load(adjoin_trt_library* library, void const* plan, size_t byte_size, int32_t is_trusted,
    adjoin_trt_engine** engine, char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        library->logger.take();
        library->runtime->setEngineHostCodeAllowed(is_trusted != 0);
        std::unique_ptr<nvinfer1::ICudaEngine> loaded(library->runtime->deserializeCudaEngine(plan, byte_size));
        check(loaded != nullptr, library->logger, "the plan is refused");
        *engine = new adjoin_trt_engine{library->logger, std::move(loaded)};
    });
}

void adjoin_trt_engine_free(adjoin_trt_engine* engine)
{
    delete engine;
}

int32_t adjoin_trt_tensor_count(adjoin_trt_engine const* engine)
{
    return engine->engine->getNbIOTensors();
}

int32_t adjoin_trt_tensor_at(adjoin_trt_engine const* engine, int32_t index, int32_t profile, adjoin_trt_tensor* tensor,
    char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        nvinfer1::ICudaEngine const& own = *engine->engine;
        char const* const name = own.getIOTensorName(index);
        check(name != nullptr, engine->logger, "a tensor has no name");
        tensor->name = name;
        to_shape(own.getTensorShape(name), tensor->shape);
        tensor->dtype = static_cast<int32_t>(own.getTensorDataType(name));
        nvinfer1::TensorIOMode const mode = own.getTensorIOMode(name);
        tensor->mode = mode == nvinfer1::TensorIOMode::kINPUT ? 1 : mode == nvinfer1::TensorIOMode::kOUTPUT ? 2 : 0;
        bool const is_on_host = own.getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
        tensor->is_shape = own.isShapeInferenceIO(name) || is_on_host;
        tensor->is_linear = own.getTensorFormat(name, profile) == nvinfer1::TensorFormat::kLINEAR;
    });
}

int32_t adjoin_trt_profile_count(adjoin_trt_engine const* engine)
{
    return engine->engine->getNbOptimizationProfiles();
}

int32_t adjoin_trt_profile_shape(adjoin_trt_engine const* engine, char const* name, int32_t profile, int32_t which,
    adjoin_trt_shape* shape, char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        auto const selector = static_cast<nvinfer1::OptProfileSelector>(which);
        to_shape(engine->engine->getProfileShape(name, profile, selector), *shape);
        check(shape->rank >= 0, engine->logger, "the profile has no shape for an input");
    });
}

int32_t adjoin_trt_context_new(adjoin_trt_engine* engine, int32_t profile, void* stream, adjoin_trt_context** context,
    char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        engine->logger.take();
        std::unique_ptr<nvinfer1::IExecutionContext> made(engine->engine->createExecutionContext());
        check(made != nullptr, engine->logger, "no execution context is made; the device may be out of memory");
        bool const is_set = made->setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream));
        check(is_set, engine->logger, "the optimization profile cannot be set");
        *context = new adjoin_trt_context{engine->logger, std::move(made)};
    });
}

void adjoin_trt_context_free(adjoin_trt_context* context)
{
    delete context;
}

int32_t adjoin_trt_set_shape(adjoin_trt_context* context, char const* name, adjoin_trt_shape const* shape, char* error,
    size_t error_size)
{
    return guarded(error, error_size, [&] {
        bool const is_set = context->context->setInputShape(name, to_dims(*shape));
        check(is_set, context->logger, "the shape of an input is refused");
    });
}

int32_t adjoin_trt_shape_of(adjoin_trt_context const* context, char const* name, adjoin_trt_shape* shape, char* error,
    size_t error_size)
{
    return guarded(error, error_size, [&] {
        to_shape(context->context->getTensorShape(name), *shape);
        check(shape->rank >= 0, context->logger, "the shape of a tensor is unknown");
    });
}

int32_t adjoin_trt_set_address(
    adjoin_trt_context* context, char const* name, void* address, char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        check(context->context->setTensorAddress(name, address), context->logger, "the address of a tensor is refused");
    });
}

int32_t adjoin_trt_enqueue(adjoin_trt_context* context, void* stream, char* error, size_t error_size)
{
    return guarded(error, error_size, [&] {
        context->logger.take();
        bool const is_enqueued = context->context->enqueueV3(static_cast<cudaStream_t>(stream));
        check(is_enqueued, context->logger, "the run is refused");
    });
}

} // extern "C"
