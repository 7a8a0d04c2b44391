/* Checks of the test programs. The first that fails ends the program with a line on standard error. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adjoin.h"

/* A program that hangs ends by itself. */
#define LIMIT_SECONDS 120

/* Of the one thread that most programs have. */
static adjoin_error *error;

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                            \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        exit(1);                                                                                   \
    } while (0)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) FAIL("not so: %s", #condition);                                          \
    } while (0)

/* A call that ends with this status. */
#define EXPECT(wanted, call)                                                                       \
    do {                                                                                           \
        adjoin_status got = (call);                                                                \
        if (got != (wanted))                                                                       \
            FAIL("%s: %s (%u), not %s: %s", #call, adjoin_status_name(got), (unsigned)got,         \
                 adjoin_status_name(wanted), adjoin_error_message(error));                         \
    } while (0)

#define OK(call) EXPECT(ADJOIN_STATUS_OK, call)

/* A call that fails like that, and whose text says so. */
#define REFUSED(wanted, text, call)                                                                \
    do {                                                                                           \
        EXPECT(wanted, call);                                                                      \
        if (adjoin_error_status(error) != (wanted) ||                                              \
            strstr(adjoin_error_message(error), text) == NULL)                                     \
            FAIL("%s: \"%s\" does not say %s", #call, adjoin_error_message(error), text);          \
    } while (0)

static inline void begin(void) {
    alarm(LIMIT_SECONDS);
    error = adjoin_error_new();
}

/* Asks the test for something, and waits until it is so. */
static inline void ask_for(const char *what) {
    char line[16];
    puts(what);
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL) FAIL("the test is gone");
}

static inline adjoin_client *connect_to(const char *socket_dir) {
    adjoin_client *client;
    OK(adjoin_client_connect(socket_dir, NULL, &client, error));
    return client;
}

static inline adjoin_model *model_of(const adjoin_client *client, const char *name) {
    adjoin_model *model;
    OK(adjoin_client_model(client, name, &model, error));
    return model;
}

/* A request of the model `add`: inputs a and b, output sum, four columns. */
static inline adjoin_request *add_request(const adjoin_model *model, uint64_t rows) {
    adjoin_request *request;
    OK(adjoin_model_request(model, rows, &request, error));
    return request;
}

static inline float *input_of(adjoin_request *request, const char *name) {
    adjoin_input input;
    OK(adjoin_request_input(request, name, ADJOIN_DTYPE_FP32, &input, error));
    return input.data;
}

static inline const float *output_of(adjoin_request *request, const char *name) {
    adjoin_output output;
    OK(adjoin_request_output(request, name, ADJOIN_DTYPE_FP32, &output, error));
    return output.data;
}

/* Runs a request of `add` of one row and looks at the answer. */
static inline void add_works(adjoin_request *request, float a, float b) {
    float *to_a = input_of(request, "a"), *to_b = input_of(request, "b");
    for (int i = 0; i < 4; i++) {
        to_a[i] = a + (float)i;
        to_b[i] = b;
    }
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    const float *sum = output_of(request, "sum");
    for (int i = 0; i < 4; i++) CHECK(sum[i] == a + b + (float)i);
}

#endif
