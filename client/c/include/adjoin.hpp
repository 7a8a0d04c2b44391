/// C++17 over adjoin.h: handles that free themselves, and exceptions in place of statuses. Everything
/// that adjoin.h says about threads, memory and forks holds here too.
///
///     adjoin::Client client("/run/adjoin");
///     adjoin::Model model = client.model("digits");
///     adjoin::Request request = model.request(4);
///     adjoin::Span<float> image = request.input<float>("image");
///     std::copy(pixels.begin(), pixels.end(), image.begin());
///     request.infer();
///     adjoin::Span<const float> scores = request.output<float>("scores");

#ifndef ADJOIN_HPP
#define ADJOIN_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "adjoin.h"

namespace adjoin {

/// A failed call.
class Error : public std::runtime_error {
public:
    explicit Error(const adjoin_error *error)
        : std::runtime_error(adjoin_error_message(error)), status_(adjoin_error_status(error)),
          is_retryable_(adjoin_error_is_retryable(error)),
          may_have_run_(adjoin_error_may_have_run(error)) {}

    adjoin_status status() const noexcept { return status_; }
    /// See adjoin_error_is_retryable.
    bool is_retryable() const noexcept { return is_retryable_; }
    /// See adjoin_error_may_have_run.
    bool may_have_run() const noexcept { return may_have_run_; }

private:
    adjoin_status status_;
    bool is_retryable_;
    bool may_have_run_;
};

/// Elements in memory that belongs to a request.
template <class T> class Span {
public:
    Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    T &operator[](std::size_t index) const noexcept { return data_[index]; }

private:
    T *data_;
    std::size_t size_;
};

namespace detail {

template <auto Free> struct Deleter {
    template <class H> void operator()(H *handle) const noexcept { Free(handle); }
};

template <class H, auto Free> using Handle = std::unique_ptr<H, Deleter<Free>>;

/// This thread's error object.
inline adjoin_error *error() {
    thread_local const Handle<adjoin_error, adjoin_error_free> object(adjoin_error_new());
    return object.get();
}

inline void check(adjoin_status status) {
    if (status != ADJOIN_STATUS_OK) throw Error(error());
}

inline std::uint64_t ns(std::chrono::nanoseconds duration) {
    return duration.count() < 0 ? 0 : static_cast<std::uint64_t>(duration.count());
}

template <class T> constexpr adjoin_dtype dtype();
template <> constexpr adjoin_dtype dtype<std::uint8_t>() { return ADJOIN_DTYPE_UINT8; }
template <> constexpr adjoin_dtype dtype<std::uint16_t>() { return ADJOIN_DTYPE_UINT16; }
template <> constexpr adjoin_dtype dtype<std::uint32_t>() { return ADJOIN_DTYPE_UINT32; }
template <> constexpr adjoin_dtype dtype<std::uint64_t>() { return ADJOIN_DTYPE_UINT64; }
template <> constexpr adjoin_dtype dtype<std::int8_t>() { return ADJOIN_DTYPE_INT8; }
template <> constexpr adjoin_dtype dtype<std::int16_t>() { return ADJOIN_DTYPE_INT16; }
template <> constexpr adjoin_dtype dtype<std::int32_t>() { return ADJOIN_DTYPE_INT32; }
template <> constexpr adjoin_dtype dtype<std::int64_t>() { return ADJOIN_DTYPE_INT64; }
template <> constexpr adjoin_dtype dtype<float>() { return ADJOIN_DTYPE_FP32; }
template <> constexpr adjoin_dtype dtype<double>() { return ADJOIN_DTYPE_FP64; }
/// Whatever the tensor has, byte by byte.
template <> constexpr adjoin_dtype dtype<std::byte>() { return ADJOIN_DTYPE_ANY; }

} // namespace detail

/// A descriptor for event loops; see adjoin_watch.
class Watch {
public:
    Watch() {
        adjoin_watch *watch;
        detail::check(adjoin_watch_new(&watch, detail::error()));
        handle_.reset(watch);
    }

    adjoin_watch *get() const noexcept { return handle_.get(); }

    int fd() const noexcept { return adjoin_watch_fd(get()); }
    void arm() { detail::check(adjoin_watch_arm(get(), detail::error())); }
    void read() { detail::check(adjoin_watch_read(get(), detail::error())); }

private:
    detail::Handle<adjoin_watch, adjoin_watch_free> handle_;
};

/// A request; see adjoin_request. Element types are those of detail::dtype, and std::byte for the bytes
/// of any other.
class Request {
public:
    explicit Request(adjoin_request *handle) noexcept : handle_(handle) {}

    adjoin_request *get() const noexcept { return handle_.get(); }

    /// What an input is, and where.
    adjoin_input input(const char *name, adjoin_dtype dtype = ADJOIN_DTYPE_ANY) {
        adjoin_input input;
        detail::check(adjoin_request_input(get(), name, dtype, &input, detail::error()));
        return input;
    }

    /// The elements of an input, to be written.
    template <class T> Span<T> input(const char *name) {
        const adjoin_input found = input(name, detail::dtype<T>());
        return Span<T>(static_cast<T *>(found.data), found.byte_size / sizeof(T));
    }

    /// What an output is, and where.
    adjoin_output output(const char *name, adjoin_dtype dtype = ADJOIN_DTYPE_ANY) const {
        adjoin_output output;
        detail::check(adjoin_request_output(get(), name, dtype, &output, detail::error()));
        return output;
    }

    /// The elements of an output.
    template <class T> Span<const T> output(const char *name) const {
        const adjoin_output found = output(name, detail::dtype<T>());
        return Span<const T>(static_cast<const T *>(found.data), found.byte_size / sizeof(T));
    }

    /// The elements of an output of strings, as long as that is there.
    std::vector<std::string_view> strings(const char *name) const {
        const adjoin_output found = output(name, ADJOIN_DTYPE_BYTES);
        std::size_t count = 1;
        for (std::size_t i = 0; i < found.rank; i++) count *= static_cast<std::size_t>(found.shape[i]);
        std::vector<const char *> texts(count);
        std::vector<std::size_t> lengths(count);
        detail::check(adjoin_bytes_unpack(found.data, found.byte_size, count, texts.data(),
                                          lengths.data(), detail::error()));
        std::vector<std::string_view> strings;
        for (std::size_t i = 0; i < count; i++) strings.emplace_back(texts[i], lengths[i]);
        return strings;
    }

    void set_deadline(std::chrono::nanoseconds after) {
        detail::check(adjoin_request_set_deadline(get(), detail::ns(after), detail::error()));
    }
    void set_priority(std::uint16_t level) {
        detail::check(adjoin_request_set_priority(get(), level, detail::error()));
    }

    void set_watch(const Watch &watch) {
        detail::check(adjoin_request_set_watch(get(), watch.get(), detail::error()));
    }

    /// Submits and waits.
    void infer() { detail::check(adjoin_request_infer(get(), ADJOIN_FOREVER, detail::error())); }
    void infer(std::chrono::nanoseconds timeout) {
        detail::check(adjoin_request_infer(get(), detail::ns(timeout), detail::error()));
    }
    void submit() { detail::check(adjoin_request_submit(get(), detail::error())); }
    void wait() { detail::check(adjoin_request_wait(get(), ADJOIN_FOREVER, detail::error())); }
    void wait(std::chrono::nanoseconds timeout) {
        detail::check(adjoin_request_wait(get(), detail::ns(timeout), detail::error()));
    }
    bool is_done() {
        bool is_done;
        detail::check(adjoin_request_is_done(get(), &is_done, detail::error()));
        return is_done;
    }
    void cancel() { detail::check(adjoin_request_cancel(get(), detail::error())); }
    void release() { detail::check(adjoin_request_release(get(), detail::error())); }

    adjoin_stats stats() const {
        adjoin_stats stats;
        detail::check(adjoin_request_stats(get(), &stats, detail::error()));
        return stats;
    }

private:
    detail::Handle<adjoin_request, adjoin_request_free> handle_;
};

/// Builds requests by shapes; see adjoin_builder.
class Builder {
public:
    explicit Builder(adjoin_builder *handle) noexcept : handle_(handle) {}

    adjoin_builder *get() const noexcept { return handle_.get(); }

    Builder &input(const char *name, std::initializer_list<std::int64_t> shape) {
        return input(name, shape.begin(), shape.size());
    }
    Builder &input(const char *name, const std::vector<std::int64_t> &shape) {
        return input(name, shape.data(), shape.size());
    }
    /// An input of strings, of these dimensions, that takes `byte_size` bytes in all.
    Builder &bytes_input(const char *name, const std::vector<std::int64_t> &shape,
                         std::size_t byte_size) {
        detail::check(adjoin_builder_bytes_input(get(), name, shape.data(), shape.size(), byte_size,
                                                 detail::error()));
        return *this;
    }
    Builder &output(const char *name) {
        detail::check(adjoin_builder_output(get(), name, detail::error()));
        return *this;
    }
    Builder &prepare(bool may_prepare) {
        detail::check(adjoin_builder_prepare(get(), may_prepare, detail::error()));
        return *this;
    }
    Request build() const {
        adjoin_request *request;
        detail::check(adjoin_builder_build(get(), &request, detail::error()));
        return Request(request);
    }

private:
    Builder &input(const char *name, const std::int64_t *shape, std::size_t rank) {
        detail::check(adjoin_builder_input(get(), name, shape, rank, detail::error()));
        return *this;
    }

    detail::Handle<adjoin_builder, adjoin_builder_free> handle_;
};

/// A model; see adjoin_model.
class Model {
public:
    explicit Model(adjoin_model *handle) noexcept : handle_(handle) {}

    adjoin_model *get() const noexcept { return handle_.get(); }

    const char *name() const noexcept { return adjoin_model_name(get()); }
    std::uint64_t version() const noexcept { return adjoin_model_version(get()); }
    std::vector<adjoin_spec> inputs() const { return specs(adjoin_model_input_count(get()), adjoin_model_input); }
    std::vector<adjoin_spec> outputs() const {
        return specs(adjoin_model_output_count(get()), adjoin_model_output);
    }

    Model with_version(std::uint64_t version) const {
        adjoin_model *model;
        detail::check(adjoin_model_with_version(get(), version, &model, detail::error()));
        return Model(model);
    }
    Model with_label(const char *label) const {
        adjoin_model *model;
        detail::check(adjoin_model_with_label(get(), label, &model, detail::error()));
        return Model(model);
    }

    /// A request of so many rows; see adjoin_model_request.
    Request request(std::uint64_t rows) const {
        adjoin_request *request;
        detail::check(adjoin_model_request(get(), rows, &request, detail::error()));
        return Request(request);
    }
    Builder builder() const {
        adjoin_builder *builder;
        detail::check(adjoin_builder_new(get(), &builder, detail::error()));
        return Builder(builder);
    }

private:
    template <class F> std::vector<adjoin_spec> specs(std::size_t count, F look) const {
        std::vector<adjoin_spec> specs(count);
        for (std::size_t i = 0; i < count; i++) detail::check(look(get(), i, &specs[i], detail::error()));
        return specs;
    }

    detail::Handle<adjoin_model, adjoin_model_free> handle_;
};

/// Options of a client; see adjoin_options.
class Options {
public:
    Options() : handle_(adjoin_options_new()) {}

    adjoin_options *get() const noexcept { return handle_.get(); }

    Options &request_bytes(std::uint64_t bytes) { return set(adjoin_options_set_request_bytes, bytes); }
    Options &response_bytes(std::uint64_t bytes) { return set(adjoin_options_set_response_bytes, bytes); }
    Options &ring_entries(std::uint32_t count) { return set(adjoin_options_set_ring_entries, count); }
    Options &name(const char *name) { return set(adjoin_options_set_name, name); }
    Options &spin(std::chrono::nanoseconds at_most) {
        return set(adjoin_options_set_spin, detail::ns(at_most));
    }
    Options &answer_timeout(std::chrono::nanoseconds timeout) {
        return set(adjoin_options_set_answer_timeout, detail::ns(timeout));
    }
    Options &reconnect_timeout(std::chrono::nanoseconds timeout) {
        return set(adjoin_options_set_reconnect_timeout, detail::ns(timeout));
    }

private:
    template <class F, class T> Options &set(F setter, T value) {
        detail::check(setter(get(), value, detail::error()));
        return *this;
    }

    detail::Handle<adjoin_options, adjoin_options_free> handle_;
};

/// A client; see adjoin_client.
class Client {
public:
    /// Connects; a null `socket_dir` stands for ADJOIN_SOCKET_DIR, or /run/adjoin.
    explicit Client(const char *socket_dir = nullptr) { connect(socket_dir, nullptr); }
    Client(const char *socket_dir, const Options &options) { connect(socket_dir, options.get()); }

    adjoin_client *get() const noexcept { return handle_.get(); }

    std::uint64_t session_id() const noexcept { return adjoin_client_session_id(get()); }
    std::uint64_t reconnects() const noexcept { return adjoin_client_reconnects(get()); }

    Model model(const char *name) const {
        adjoin_model *model;
        detail::check(adjoin_client_model(get(), name, &model, detail::error()));
        return Model(model);
    }

private:
    void connect(const char *socket_dir, const adjoin_options *options) {
        adjoin_client *client;
        detail::check(adjoin_client_connect(socket_dir, options, &client, detail::error()));
        handle_.reset(client);
    }

    detail::Handle<adjoin_client, adjoin_client_free> handle_;
};

} // namespace adjoin

#endif // ADJOIN_HPP
