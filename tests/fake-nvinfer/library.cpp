// A TensorRT library for tests; see src/lib.rs for the format of its plans.
//
// The public classes are the headers' own. Behind each is its virtual interface (apiv::V...), which is what a caller's
// inlined functions call, and what is implemented here. What no test needs fails in the way that the headers describe.

#include <NvInferRuntime.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace
{

// The driver's functions, by their types in cuda.h.
using CUdeviceptr = unsigned long long;
struct Driver
{
    int (*init)(unsigned int){};
    int (*deviceCount)(int*){};
    int (*hostAlloc)(void**, size_t, unsigned int){};
    int (*hostFree)(void*){};
    int (*toHost)(void*, CUdeviceptr, size_t, cudaStream_t){};
    int (*toDevice)(CUdeviceptr, void const*, size_t, cudaStream_t){};
    int (*launchHost)(cudaStream_t, void (*)(void*), void*){};

    // Whether there is a driver with a device.
    bool find()
    {
        void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        library = library != nullptr ? library : dlopen("libcuda.so", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr)
        {
            return false;
        }
        load(library, "cuInit", init);
        load(library, "cuDeviceGetCount", deviceCount);
        load(library, "cuMemHostAlloc", hostAlloc);
        load(library, "cuMemFreeHost", hostFree);
        load(library, "cuMemcpyDtoHAsync_v2", toHost);
        load(library, "cuMemcpyHtoDAsync_v2", toDevice);
        load(library, "cuLaunchHostFunc", launchHost);
        int count = 0;
        return init != nullptr && init(0) == 0 && deviceCount(&count) == 0 && count > 0 && launchHost != nullptr;
    }

    template <typename F>
    static void load(void* library, char const* name, F& function)
    {
        function = reinterpret_cast<F>(dlsym(library, name));
    }
};

struct Tensor
{
    std::string name;
    bool isInput{};
    DataType type{};
    Dims shape{};
    bool isShape{};
    bool isVectorised{};
    int64_t grow{1};
};

struct Affine
{
    std::string input;
    std::string output;
    float scale{};
    float shift{};
};

// Where runs of so many rows wait for each other: none goes on before as many are under way at once.
struct Meeting
{
    int64_t rows{};
    int wanted{};
    int here{};
    uint64_t round{};
    std::mutex lock;
    std::condition_variable complete;
};

struct Plan
{
    std::shared_ptr<Meeting> meeting;
    std::vector<Tensor> tensors;
    std::vector<Affine> steps;
    // By profile and input: least, usual, most.
    std::map<std::pair<int32_t, std::string>, std::vector<Dims>> profiles;
    int32_t profileCount{};
    std::map<std::string, int> faults;

    Tensor const* find(char const* name) const
    {
        for (Tensor const& tensor : tensors)
        {
            if (tensor.name == name)
            {
                return &tensor;
            }
        }
        return nullptr;
    }
};

Dims const kUnknown{-1, {}};

bool parseDims(std::string const& text, Dims& dims)
{
    std::istringstream stream(text);
    std::string part;
    dims = Dims{};
    while (std::getline(stream, part, ','))
    {
        if (dims.nbDims == Dims::MAX_DIMS)
        {
            return false;
        }
        char* end = nullptr;
        dims.d[dims.nbDims++] = std::strtoll(part.c_str(), &end, 10);
        if (end == part.c_str())
        {
            return false;
        }
    }
    return dims.nbDims > 0;
}

bool parseType(std::string const& word, DataType& type)
{
    static std::map<std::string, DataType> const kTypes{{"FP32", DataType::kFLOAT}, {"FP16", DataType::kHALF},
        {"INT32", DataType::kINT32}, {"INT64", DataType::kINT64}, {"BOOL", DataType::kBOOL}, {"UINT8", DataType::kUINT8},
        {"FP8", DataType::kFP8}};
    auto const found = kTypes.find(word);
    if (found == kTypes.end())
    {
        return false;
    }
    type = found->second;
    return true;
}

// Empty, or why the plan is none.
std::string parse(std::string const& text, Plan& plan)
{
    std::istringstream lines(text);
    std::string line;
    if (!std::getline(lines, line) || line != "adjoin fake plan")
    {
        return "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magic tag does not match)";
    }
    while (std::getline(lines, line))
    {
        std::istringstream words(line);
        std::string word;
        std::string name;
        words >> word >> name;
        auto const wrong = "IRuntime::deserializeCudaEngine: Error Code 4: cannot read \"" + line + "\"";
        auto const tensor = [&]() -> Tensor* {
            for (Tensor& tensor : plan.tensors)
            {
                if (tensor.name == name)
                {
                    return &tensor;
                }
            }
            return nullptr;
        };
        if (word == "tensorrt")
        {
            if (std::stoi("0" + name) != FAKE_VERSION / 10000)
            {
                return "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is not "
                       "compatible with this version of TensorRT, expecting library version "
                    + std::to_string(FAKE_VERSION / 10000) + " got " + name
                    + ", please rebuild.)";
            }
        }
        else if (word == "input" || word == "output")
        {
            std::string type;
            std::string dims;
            words >> type >> dims;
            Tensor made;
            made.name = name;
            made.isInput = word == "input";
            if (!parseType(type, made.type) || !parseDims(dims, made.shape))
            {
                return wrong;
            }
            plan.tensors.push_back(made);
        }
        else if (word == "profile")
        {
            int32_t const number = std::stoi("0" + name);
            std::string input;
            std::string parts[3];
            words >> input >> parts[0] >> parts[1] >> parts[2];
            std::vector<Dims> shapes(3);
            for (int i = 0; i < 3; ++i)
            {
                if (!parseDims(parts[i], shapes[i]))
                {
                    return wrong;
                }
            }
            plan.profiles[{number, input}] = shapes;
            plan.profileCount = std::max(plan.profileCount, number + 1);
        }
        else if (word == "affine")
        {
            Affine step;
            step.input = name;
            if (!(words >> step.output >> step.scale >> step.shift))
            {
                return wrong;
            }
            plan.steps.push_back(step);
        }
        else if (word == "meet")
        {
            plan.meeting = std::make_shared<Meeting>();
            plan.meeting->rows = std::stoi("0" + name);
            words >> plan.meeting->wanted;
        }
        else if (word == "fault")
        {
            words >> plan.faults[name];
        }
        else if (Tensor* const known = tensor())
        {
            known->isShape = known->isShape || word == "shape";
            known->isVectorised = known->isVectorised || word == "vectorised";
            if (word == "grow")
            {
                words >> known->grow;
            }
        }
        else
        {
            return wrong;
        }
    }
    return plan.tensors.empty() ? "IRuntime::deserializeCudaEngine: the plan is cut short" : "";
}

// A run's work on the host, between a copy from the device and one to it.
struct Work
{
    float scale;
    float shift;
    float* values;
    size_t count;
};

void compute(void* data)
{
    auto const& work = *static_cast<Work const*>(data);
    for (size_t i = 0; i < work.count; ++i)
    {
        work.values[i] = work.values[i] * work.scale + work.shift;
    }
}

void meet(void* data)
{
    auto& meeting = *static_cast<Meeting*>(data);
    std::unique_lock<std::mutex> lock(meeting.lock);
    auto const round = meeting.round;
    if (++meeting.here == meeting.wanted)
    {
        meeting.here = 0;
        ++meeting.round;
        meeting.complete.notify_all();
        return;
    }
    if (!meeting.complete.wait_for(lock, std::chrono::seconds(25), [&] { return meeting.round != round; }))
    {
        std::fprintf(stderr, "fake TensorRT: %d of %d runs came to their meeting\n", meeting.here, meeting.wanted);
        std::abort();
    }
}

class Context final : public IExecutionContext, public apiv::VExecutionContext
{
public:
    Context(Plan const& plan, Driver const& driver, ILogger& logger, ICudaEngine const& engine)
        : mPlan(plan)
        , mDriver(driver)
        , mLogger(logger)
        , mEngine(engine)
    {
        mImpl = this;
    }

    ~Context() noexcept override
    {
        for (void* memory : mMemory)
        {
            mDriver.hostFree(memory);
        }
    }

    IExecutionContext* getPImpl() noexcept override { return this; }
    void setDebugSync(bool) noexcept override {}
    bool getDebugSync() const noexcept override { return false; }
    void setProfiler(IProfiler*) noexcept override {}
    IProfiler* getProfiler() const noexcept override { return nullptr; }
    ICudaEngine const& getEngine() const noexcept override { return mEngine; }
    void setName(char const*) noexcept override {}
    char const* getName() const noexcept override { return ""; }
    void setDeviceMemory(void*) noexcept override {}
    int32_t getOptimizationProfile() const noexcept override { return mProfile; }
    bool allInputDimensionsSpecified() const noexcept override { return true; }
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    bool executeV2(void* const*) noexcept override { return false; }
    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override
    {
        mProfile = profile;
        return profile >= 0 && profile < mPlan.profileCount;
    }
    void setEnqueueEmitsProfile(bool) noexcept override {}
    bool getEnqueueEmitsProfile() const noexcept override { return false; }
    bool reportToProfiler() const noexcept override { return false; }

    bool setInputShape(char const* name, Dims const& dims) noexcept override
    {
        auto const found = mPlan.profiles.find({mProfile, name});
        if (found == mPlan.profiles.end() || isFaulty("shape"))
        {
            return error("IExecutionContext::setInputShape: Error Code 3: no such input in the profile");
        }
        Dims const& least = found->second[0];
        Dims const& most = found->second[2];
        bool fits = dims.nbDims == least.nbDims;
        for (int32_t i = 0; fits && i < dims.nbDims; ++i)
        {
            fits = dims.d[i] >= least.d[i] && dims.d[i] <= most.d[i];
        }
        if (!fits)
        {
            return error("IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, "
                         "condition: engineDims.d[i] == dims.d[i])");
        }
        mShapes[name] = dims;
        return true;
    }

    Dims getTensorShape(char const* name) const noexcept override
    {
        auto const set = mShapes.find(name);
        if (set != mShapes.end())
        {
            return set->second;
        }
        for (Affine const& step : mPlan.steps)
        {
            if (step.output == name)
            {
                Dims dims = getTensorShape(step.input.c_str());
                if (dims.nbDims > 0)
                {
                    dims.d[0] *= mPlan.find(name)->grow;
                }
                return dims;
            }
        }
        Tensor const* const tensor = mPlan.find(name);
        return tensor == nullptr ? kUnknown : tensor->shape;
    }

    Dims getTensorStrides(char const*) const noexcept override { return kUnknown; }
    bool setTensorAddress(char const* name, void* data) noexcept override
    {
        mAddresses[name] = data;
        return mPlan.find(name) != nullptr;
    }
    void const* getTensorAddress(char const* name) const noexcept override { return getOutputTensorAddress(name); }
    bool setInputTensorAddress(char const* name, void const* data) noexcept override
    {
        return setTensorAddress(name, const_cast<void*>(data));
    }
    bool setOutputTensorAddress(char const* name, void* data) noexcept override { return setTensorAddress(name, data); }
    int32_t inferShapes(int32_t, char const**) noexcept override { return 0; }
    bool setInputConsumedEvent(cudaEvent_t) noexcept override { return false; }
    cudaEvent_t getInputConsumedEvent() const noexcept override { return nullptr; }
    void* getOutputTensorAddress(char const* name) const noexcept override
    {
        auto const found = mAddresses.find(name);
        return found == mAddresses.end() ? nullptr : found->second;
    }
    bool setOutputAllocator(char const*, IOutputAllocator*) noexcept override { return false; }
    IOutputAllocator* getOutputAllocator(char const*) noexcept override { return nullptr; }
    int64_t getMaxOutputSize(char const*) const noexcept override { return -1; }
    bool setTemporaryStorageAllocator(IGpuAllocator*) noexcept override { return false; }
    IGpuAllocator* getTemporaryStorageAllocator() const noexcept override { return nullptr; }

    bool enqueueV3(cudaStream_t stream) noexcept override
    {
        if (isFaulty("enqueue"))
        {
            return error("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (invalid argument)");
        }
        for (Affine const& step : mPlan.steps)
        {
            if (!run(step, stream))
            {
                return error("IExecutionContext::enqueueV3: Error Code 1: Cuda Driver (a call failed)");
            }
        }
        return true;
    }

    void setPersistentCacheLimit(size_t) noexcept override {}
    size_t getPersistentCacheLimit() const noexcept override { return 0; }
    bool setNvtxVerbosity(ProfilingVerbosity) noexcept override { return false; }
    ProfilingVerbosity getNvtxVerbosity() const noexcept override { return ProfilingVerbosity::kNONE; }
    void setAuxStreams(cudaStream_t*, int32_t) noexcept override {}
    bool setDebugListener(IDebugListener*) noexcept override { return false; }
    IDebugListener* getDebugListener() noexcept override { return nullptr; }
    bool setTensorDebugState(char const*, bool) noexcept override { return false; }
    bool getDebugState(char const*) const noexcept override { return false; }
    bool setAllTensorsDebugState(bool) noexcept override { return false; }
    size_t updateDeviceMemorySizeForShapes() noexcept override { return 0; }
    void setDeviceMemoryV2(void*, int64_t) noexcept override {}
    IRuntimeConfig* getRuntimeConfig() const noexcept override { return nullptr; }
    bool setUnfusedTensorsDebugState(bool) noexcept override { return false; }
    bool getUnfusedTensorsDebugState() const noexcept override { return false; }
    bool setCommunicator(void*) noexcept override { return false; }

private:
    // As TensorRT does, this allocates at the first run of a size only: a capture must not.
    bool run(Affine const& step, cudaStream_t stream)
    {
        Dims const dims = getTensorShape(step.input.c_str());
        size_t count = 1;
        for (int32_t i = 0; i < dims.nbDims; ++i)
        {
            count *= static_cast<size_t>(dims.d[i]);
        }
        auto& work = mWork[{step.output, count}];
        if (work == nullptr)
        {
            void* memory = nullptr;
            if (mDriver.hostAlloc(&memory, count * sizeof(float) + 1, 0) != 0)
            {
                return false;
            }
            mMemory.push_back(memory);
            work = std::make_unique<Work>(Work{step.scale, step.shift, static_cast<float*>(memory), count});
        }
        auto const from = reinterpret_cast<CUdeviceptr>(getOutputTensorAddress(step.input.c_str()));
        auto const to = reinterpret_cast<CUdeviceptr>(getOutputTensorAddress(step.output.c_str()));
        size_t const bytes = count * sizeof(float);
        if (mPlan.meeting && dims.nbDims > 0 && dims.d[0] == mPlan.meeting->rows
            && mDriver.launchHost(stream, meet, mPlan.meeting.get()) != 0)
        {
            return false;
        }
        return mDriver.toHost(work->values, from, bytes, stream) == 0
            && mDriver.launchHost(stream, compute, work.get()) == 0
            && mDriver.toDevice(to, work->values, bytes, stream) == 0;
    }

    bool isFaulty(char const* what)
    {
        auto const found = mPlan.faults.find(what);
        return found != mPlan.faults.end() && ++mCalls[what] >= found->second;
    }

    bool error(char const* text)
    {
        mLogger.log(ILogger::Severity::kERROR, text);
        return false;
    }

    Plan const& mPlan;
    Driver const& mDriver;
    ILogger& mLogger;
    ICudaEngine const& mEngine;
    int32_t mProfile{-1};
    std::map<std::string, Dims> mShapes;
    std::map<std::string, void*> mAddresses;
    std::map<std::pair<std::string, size_t>, std::unique_ptr<Work>> mWork;
    std::vector<void*> mMemory;
    std::map<std::string, int> mCalls;
};

class Engine final : public ICudaEngine, public apiv::VCudaEngine
{
public:
    Engine(Plan plan, Driver const& driver, ILogger& logger)
        : mPlan(std::move(plan))
        , mDriver(driver)
        , mLogger(logger)
    {
        mImpl = this;
    }

    ICudaEngine* getPImpl() noexcept override { return this; }
    int32_t getNbLayers() const noexcept override { return static_cast<int32_t>(mPlan.steps.size()); }
    IHostMemory* serialize() const noexcept override { return nullptr; }
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override
    {
        auto const found = mPlan.faults.find("context");
        if (found != mPlan.faults.end() && ++mContexts >= found->second)
        {
            mLogger.log(ILogger::Severity::kERROR,
                "ICudaEngine::createExecutionContext: Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)");
            return nullptr;
        }
        return new Context(mPlan, mDriver, mLogger, *this);
    }
    bool isRefittable() const noexcept override { return false; }
    char const* getName() const noexcept override { return "fake"; }
    int32_t getNbOptimizationProfiles() const noexcept override { return mPlan.profileCount; }
    EngineCapability getEngineCapability() const noexcept override { return EngineCapability::kSTANDARD; }
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    TacticSources getTacticSources() const noexcept override { return 0; }
    ProfilingVerbosity getProfilingVerbosity() const noexcept override { return ProfilingVerbosity::kNONE; }
    IEngineInspector* createEngineInspector() const noexcept override { return nullptr; }
    Dims getTensorShape(char const* name) const noexcept override
    {
        Tensor const* const tensor = mPlan.find(name);
        return tensor == nullptr ? kUnknown : tensor->shape;
    }
    DataType getTensorDataType(char const* name) const noexcept override
    {
        Tensor const* const tensor = mPlan.find(name);
        return tensor == nullptr ? DataType::kFLOAT : tensor->type;
    }
    TensorLocation getTensorLocation(char const* name) const noexcept override
    {
        return isShapeInferenceIO(name) ? TensorLocation::kHOST : TensorLocation::kDEVICE;
    }
    bool isShapeInferenceIO(char const* name) const noexcept override
    {
        Tensor const* const tensor = mPlan.find(name);
        return tensor != nullptr && tensor->isShape;
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override
    {
        Tensor const* const tensor = mPlan.find(name);
        return tensor == nullptr ? TensorIOMode::kNONE : tensor->isInput ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    int32_t getTensorBytesPerComponent(char const*) const noexcept override { return -1; }
    int32_t getTensorComponentsPerElement(char const*) const noexcept override { return -1; }
    TensorFormat getTensorFormat(char const* name) const noexcept override
    {
        Tensor const* const tensor = mPlan.find(name);
        return tensor != nullptr && tensor->isVectorised ? TensorFormat::kCHW32 : TensorFormat::kLINEAR;
    }
    char const* getTensorFormatDesc(char const*) const noexcept override { return ""; }
    int32_t getTensorVectorizedDim(char const*) const noexcept override { return -1; }
    Dims getProfileShape(char const* name, int32_t profile, OptProfileSelector select) const noexcept override
    {
        auto const found = mPlan.profiles.find({profile, name});
        return found == mPlan.profiles.end() ? kUnknown : found->second[static_cast<size_t>(select)];
    }
    int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(mPlan.tensors.size()); }
    char const* getIOTensorName(int32_t index) const noexcept override
    {
        return index < getNbIOTensors() ? mPlan.tensors[static_cast<size_t>(index)].name.c_str() : nullptr;
    }
    HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept override
    {
        return HardwareCompatibilityLevel{};
    }
    int32_t getNbAuxStreams() const noexcept override { return 0; }
    int32_t getTensorBytesPerComponentV2(char const*, int32_t) const noexcept override { return -1; }
    int32_t getTensorComponentsPerElementV2(char const*, int32_t) const noexcept override { return -1; }
    TensorFormat getTensorFormatV2(char const* name, int32_t) const noexcept override { return getTensorFormat(name); }
    char const* getTensorFormatDescV2(char const*, int32_t) const noexcept override { return ""; }
    int32_t getTensorVectorizedDimV2(char const*, int32_t) const noexcept override { return -1; }
    ISerializationConfig* createSerializationConfig() noexcept override { return nullptr; }
    IHostMemory* serializeWithConfig(ISerializationConfig&) const noexcept override { return nullptr; }
    IRefitter* createRefitter(ILogger&) noexcept override { return nullptr; }
    int64_t getStreamableWeightsSize() const noexcept override { return 0; }
    bool isDebugTensor(char const*) const noexcept override { return false; }
    bool setWeightStreamingBudgetV2(int64_t) noexcept override { return false; }
    int64_t getWeightStreamingBudgetV2() const noexcept override { return 0; }
    int64_t getWeightStreamingAutomaticBudget() const noexcept override { return 0; }
    int64_t getWeightStreamingScratchMemorySize() const noexcept override { return 0; }
    int64_t getDeviceMemorySizeV2() const noexcept override { return 0; }
    int64_t getDeviceMemorySizeForProfileV2(int32_t) const noexcept override { return 0; }
    int64_t const* getProfileTensorValuesV2(char const*, int32_t, OptProfileSelector) const noexcept override
    {
        return nullptr;
    }
    IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig*) noexcept override { return nullptr; }
    IRuntimeConfig* createRuntimeConfig() noexcept override { return nullptr; }
    int64_t getEngineStat(EngineStat) const noexcept override { return -1; }
    char const* getAliasedInputTensor(char const*) const noexcept override { return nullptr; }

private:
    Plan mPlan;
    Driver const& mDriver;
    ILogger& mLogger;
    int mContexts{};
};

class Runtime final : public IRuntime, public apiv::VRuntime
{
public:
    Runtime(ILogger& logger, Driver driver)
        : mLogger(logger)
        , mDriver(driver)
    {
        mImpl = this;
    }

    IRuntime* getPImpl() noexcept override { return this; }
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override
    {
        Plan plan;
        std::string const wrong = parse(std::string(static_cast<char const*>(blob), size), plan);
        if (!wrong.empty())
        {
            mLogger.log(ILogger::Severity::kERROR, wrong.c_str());
            return nullptr;
        }
        return new Engine(std::move(plan), mDriver, mLogger);
    }
    void setDLACore(int32_t) noexcept override {}
    int32_t getDLACore() const noexcept override { return -1; }
    int32_t getNbDLACores() const noexcept override { return 0; }
    void setGpuAllocator(IGpuAllocator*) noexcept override {}
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    ILogger* getLogger() const noexcept override { return &mLogger; }
    bool setMaxThreads(int32_t) noexcept override { return false; }
    int32_t getMaxThreads() const noexcept override { return 1; }
    void setTemporaryDirectory(char const*) noexcept override {}
    char const* getTemporaryDirectory() const noexcept override { return "/tmp"; }
    void setTempfileControlFlags(TempfileControlFlags) noexcept override {}
    TempfileControlFlags getTempfileControlFlags() const noexcept override { return 0; }
    IPluginRegistry& getPluginRegistry() noexcept override { __builtin_trap(); }
    void setPluginRegistryParent(IPluginRegistry*) noexcept override {}
    IRuntime* loadRuntime(char const*) noexcept override { return nullptr; }
    void setEngineHostCodeAllowed(bool allowed) noexcept override { mIsTrusted = allowed; }
    bool getEngineHostCodeAllowed() const noexcept override { return mIsTrusted; }
    ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept override { return nullptr; }
    bool setDLAWorkspaceAllocationStrategy(DLAWorkspaceAllocationStrategy) noexcept override { return false; }
    DLAWorkspaceAllocationStrategy getDLAWorkspaceAllocationStrategy() const noexcept override
    {
        return DLAWorkspaceAllocationStrategy{};
    }

private:
    ILogger& mLogger;
    Driver mDriver;
    bool mIsTrusted{};
};

} // namespace

extern "C" __attribute__((visibility("default"))) int32_t getInferLibVersion() noexcept
{
    return FAKE_VERSION;
}

extern "C" __attribute__((visibility("default"))) void* createInferRuntime_INTERNAL(
    void* logger, int32_t version) noexcept
{
    auto* const log = static_cast<ILogger*>(logger);
    Driver driver;
    if (!driver.find())
    {
        log->log(ILogger::Severity::kERROR, "CUDA initialization failure with error: 35");
        // What the lean runtime of TensorRT 10 and 11 returns then; the next call through it ends the process.
        return reinterpret_cast<void*>(0x228);
    }
    if (version / 10000 != FAKE_VERSION / 10000)
    {
        return nullptr;
    }
    return static_cast<IRuntime*>(new Runtime(*log, driver));
}
