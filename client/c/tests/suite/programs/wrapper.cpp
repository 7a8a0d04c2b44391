/// The C++ wrapper: exceptions with status and text, handles that move and free themselves, everything that adjoin.hpp has.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include "adjoin.hpp"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::cerr << __FILE__ << ':' << __LINE__ << ": not so: " #condition "\n";              \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

namespace {

/// What a call throws.
template <class F> adjoin::Error thrown(F call) {
    try {
        call();
    } catch (const adjoin::Error &error) {
        return error;
    }
    std::cerr << "nothing was thrown\n";
    std::exit(1);
}

bool says(const adjoin::Error &error, const char *text) {
    return std::strstr(error.what(), text) != nullptr;
}

void runs(const adjoin::Model &model) {
    adjoin::Request request = model.builder().input("a", {2, 4}).input("b", {2, 4}).output("sum").build();
    auto a = request.input<float>("a");
    CHECK(a.size() == 8 && request.input("a").shape[0] == 2);
    for (auto &value : a) value = 1;
    for (auto &value : request.input<float>("b")) value = 2;
    request.set_priority(1);
    request.set_deadline(std::chrono::seconds(30));
    request.infer(std::chrono::seconds(30));
    for (const float value : request.output<float>("sum")) CHECK(value == 3);
    CHECK(request.stats().model_version == model.version());
    CHECK(request.output("sum").dtype == ADJOIN_DTYPE_FP32);
    CHECK(request.output<std::byte>("sum").size() == 32);

    adjoin::Request moved = std::move(request);
    CHECK(request.get() == nullptr);
    CHECK(thrown([&] { request.infer(); }).status() == ADJOIN_STATUS_INVALID_ARGUMENT);
    moved.submit();
    while (!moved.is_done()) {}
    moved.wait();
    CHECK(moved.output<float>("sum")[7] == 3);
    moved.release();
    CHECK(thrown([&] { moved.output<float>("sum"); }).status() == ADJOIN_STATUS_WRONG_STATE);
    moved.submit();
    moved.cancel();
    try {
        moved.wait(std::chrono::seconds(30));
    } catch (const adjoin::Error &error) {
        CHECK(error.status() == ADJOIN_STATUS_CANCELLED);
    }
}

void watched(const adjoin::Model &model) {
    adjoin::Watch watch;
    adjoin::Request request = model.request(1);
    request.set_watch(watch);
    request.submit();
    for (watch.arm(); !request.is_done(); watch.arm()) {
        pollfd fd = {watch.fd(), POLLIN, 0};
        CHECK(poll(&fd, 1, 30000) == 1);
        watch.read();
    }
    request.wait();
}

void throws(const adjoin::Client &client, const adjoin::Model &model) {
    const adjoin::Error unknown = thrown([&] { client.model("subtract"); });
    CHECK(unknown.status() == ADJOIN_STATUS_MODEL_NOT_FOUND && says(unknown, "subtract"));
    CHECK(!unknown.is_retryable() && !unknown.may_have_run());
    const adjoin::Error shape = thrown([&] { model.builder().input("a", std::vector<std::int64_t>{1, 5}); });
    CHECK(shape.status() == ADJOIN_STATUS_SHAPE_MISMATCH && says(shape, "[1,5]"));
    adjoin::Request request = model.request(1);
    const adjoin::Error type = thrown([&] { request.input<std::int32_t>("a"); });
    CHECK(type.status() == ADJOIN_STATUS_DATA_TYPE_MISMATCH && says(type, "INT32") && says(type, "FP32"));
    CHECK(thrown([&] { model.with_version(9); }).status() == ADJOIN_STATUS_VERSION_NOT_FOUND);
    CHECK(thrown([&] { model.with_label("none"); }).status() == ADJOIN_STATUS_VERSION_NOT_FOUND);
    CHECK(thrown([] { adjoin::Client("/nowhere"); }).is_retryable());
    // A negative time is none.
    request.submit();
    try {
        request.wait(std::chrono::nanoseconds(-1));
    } catch (const adjoin::Error &error) {
        CHECK(error.status() == ADJOIN_STATUS_TIMEOUT && error.may_have_run());
    }
}

void strings(const adjoin::Client &client) {
    const adjoin::Model model = client.model("text");
    const char *const words[] = {"one", "two"};
    std::size_t byte_size;
    CHECK(adjoin_bytes_size(words, nullptr, 2, &byte_size, nullptr) == ADJOIN_STATUS_OK);
    adjoin::Builder builder = model.builder();
    adjoin::Request request =
        builder.bytes_input("a", {1, 2}, byte_size).bytes_input("b", {1, 2}, byte_size).build();
    for (const char *name : {"a", "b"}) {
        const auto input = request.input<std::byte>(name);
        CHECK(adjoin_bytes_pack(words, nullptr, 2, input.data(), input.size(), nullptr) == ADJOIN_STATUS_OK);
    }
    request.infer();
    const auto both = request.strings("both");
    CHECK(both.size() == 4 && both[0] == "one" && both[3] == "two");
}

} // namespace

int main(int count, char **arguments) {
    CHECK(count == 2);
    alarm(120);
    adjoin::Options options;
    options.request_bytes(1 << 20)
        .response_bytes(1 << 20)
        .ring_entries(16)
        .name("wrapper")
        .spin(std::chrono::microseconds(50))
        .answer_timeout(std::chrono::seconds(10))
        .reconnect_timeout(std::chrono::nanoseconds(0));
    const adjoin::Client client(arguments[1], options);
    CHECK(client.session_id() != 0 && client.reconnects() == 0);
    const adjoin::Model model = client.model("add");
    CHECK(std::strcmp(model.name(), "add") == 0 && model.version() == 1);
    CHECK(model.inputs().size() == 2 && model.outputs().size() == 1);
    CHECK(std::strcmp(model.inputs()[1].name, "b") == 0);
    runs(model);
    watched(model);
    throws(client, model);
    strings(client);
    runs(model.with_version(1));
    // Without a directory it is that of the environment.
    setenv("ADJOIN_SOCKET_DIR", arguments[1], 1);
    runs(adjoin::Client().model("add"));
    return 0;
}
