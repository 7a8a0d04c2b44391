/// Reads handwritten digits with a model on a running server, several requests under way at a time:
///
///     c++ -std=c++17 digits.cpp $(pkg-config --cflags --libs adjoin) -o digits
///     ./digits SOCKET_DIR demo/digits/test_images.npy demo/digits/test_labels.npy
///
/// It lives on when the server is restarted under it.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <adjoin.hpp>

namespace {

constexpr std::size_t pixels = 64;
constexpr std::size_t depth = 8;

/// The bytes of an .npy file of uint8, without its header.
std::vector<std::uint8_t> read_npy(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
    const std::string magic = "\x93NUMPY\x01";
    const bool is_npy = bytes.size() > 10 && std::equal(magic.begin(), magic.end(), bytes.begin(),
        [](char wanted, std::uint8_t got) { return static_cast<std::uint8_t>(wanted) == got; });
    if (!is_npy) throw std::runtime_error(path + " is no .npy file");
    const std::size_t start = 10 + bytes[8] + 256u * bytes[9];
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(std::min(start, bytes.size())));
    return bytes;
}

/// A request, and which image is in it.
struct Reading {
    adjoin::Request request;
    std::size_t image;
};

void run(const char *socket_dir, const char *images_path, const char *labels_path) {
    const auto images = read_npy(images_path);
    const auto labels = read_npy(labels_path);

    adjoin::Options options;
    options.name("digits.cpp").reconnect_timeout(std::chrono::seconds(30));
    const adjoin::Client client(socket_dir, options);
    const adjoin::Model model = client.model("digits");

    // Made one after another, they lie side by side: the server can run them as one batch in place.
    std::vector<adjoin::Request> idle;
    for (std::size_t i = 0; i < depth; i++) idle.push_back(model.request(1));
    std::deque<Reading> under_way;
    std::size_t next = 0, right = 0, rows = 0;
    while (next < labels.size() || !under_way.empty()) {
        while (next < labels.size() && !idle.empty()) {
            adjoin::Request request = std::move(idle.back());
            idle.pop_back();
            const auto image = request.input<float>("image");
            std::copy_n(&images.at(next * pixels), pixels, image.begin());
            request.submit();
            under_way.push_back({std::move(request), next++});
        }
        Reading &oldest = under_way.front();
        try {
            oldest.request.wait();
        } catch (const adjoin::Error &error) {
            // The request is back with its inputs, and goes to the next server.
            if (error.status() != ADJOIN_STATUS_SERVER_GONE && !error.is_retryable()) throw;
            std::cout << error.what() << '\n';
            oldest.request.submit();
            continue;
        }
        const auto scores = oldest.request.output<float>("scores");
        const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
        right += best == labels[oldest.image];
        rows += oldest.request.stats().batch_size;
        idle.push_back(std::move(oldest.request));
        under_way.pop_front();
    }
    std::cout << right << " of " << labels.size() << " digits read right, in batches of "
              << static_cast<double>(rows) / static_cast<double>(labels.size()) << " rows, "
              << client.reconnects() << " reconnects\n";
}

} // namespace

int main(int count, char **arguments) {
    if (count != 4) {
        std::cerr << "usage: digits SOCKET_DIR IMAGES.npy LABELS.npy\n";
        return 2;
    }
    try {
        run(arguments[1], arguments[2], arguments[3]);
    } catch (const std::exception &error) {
        std::cerr << "digits: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
