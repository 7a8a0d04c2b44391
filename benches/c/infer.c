/* The time of a call through the C library: one request of one row, written anew each time before its clock starts.
 *
 *     infer SOCKET_DIR MODEL SECONDS
 *
 * Prints the median and the 99th percentile in microseconds, of all calls but those of the first tenth. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "adjoin.h"

static adjoin_error *error;

static void must(adjoin_status status) {
    if (status == ADJOIN_STATUS_OK) return;
    fprintf(stderr, "infer: %s\n", adjoin_error_message(error));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int compare(const void *left, const void *right) {
    const uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: infer SOCKET_DIR MODEL SECONDS\n");
        return 2;
    }
    adjoin_client *client;
    adjoin_model *model;
    adjoin_request *request;
    adjoin_input input;
    adjoin_output output;
    error = adjoin_error_new();
    must(adjoin_client_connect(arguments[1], NULL, &client, error));
    must(adjoin_client_model(client, arguments[2], &model, error));
    must(adjoin_model_request(model, 1, &request, error));
    must(adjoin_request_input_at(request, 0, ADJOIN_DTYPE_FP32, &input, error));

    const size_t values = input.byte_size / sizeof(float), calls_max = (size_t)20 << 20;
    uint32_t *times = malloc(calls_max * sizeof *times);
    if (times == NULL) return 1;
    size_t calls = 0;
    const uint64_t end = now_ns() + strtoull(arguments[3], NULL, 10) * 1000000000;
    for (uint64_t began = 0, ended = 0; ended < end && calls < calls_max; calls++) {
        for (size_t i = 0; i < values; i++) ((float *)input.data)[i] = (float)(calls + i);
        began = now_ns();
        must(adjoin_request_infer(request, ADJOIN_FOREVER, error));
        must(adjoin_request_output_at(request, 0, ADJOIN_DTYPE_FP32, &output, error));
        ended = now_ns();
        times[calls] = (uint32_t)(ended - began);
    }
    uint32_t *warm = times + calls / 10;
    calls -= calls / 10;
    qsort(warm, calls, sizeof *warm, compare);
    printf("%.2f %.2f\n", warm[calls / 2] / 1e3, warm[calls / 100 * 99] / 1e3);

    free(times);
    adjoin_request_free(request);
    adjoin_model_free(model);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
