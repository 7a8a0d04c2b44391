/* Requests that are wrong, come at the wrong moment, or find no room: a status and a sentence with the wrong value, and a
 * client that goes on. The server has the models add, gather, and slow with one row at a time and a queue of four. */
#include "check.h"

static adjoin_client *client;
static adjoin_model *add, *slow;

static void names_and_shapes(void) {
    adjoin_model *model;
    REFUSED(ADJOIN_STATUS_MODEL_NOT_FOUND, "subtract", adjoin_client_model(client, "subtract", &model, error));
    REFUSED(ADJOIN_STATUS_VERSION_NOT_FOUND, "7", adjoin_model_with_version(add, 7, &model, error));
    REFUSED(ADJOIN_STATUS_VERSION_NOT_FOUND, "canary", adjoin_model_with_label(add, "canary", &model, error));

    adjoin_builder *builder;
    adjoin_request *request;
    const int64_t right[] = {2, 4}, wrong[] = {2, 5}, flat[] = {8}, negative[] = {-2, 4};
    OK(adjoin_builder_new(add, &builder, error));
    REFUSED(ADJOIN_STATUS_INPUT_UNKNOWN, "\"c\"", adjoin_builder_input(builder, "c", right, 2, error));
    CHECK(strstr(adjoin_error_message(error), "\"a\", \"b\"") != NULL);
    REFUSED(ADJOIN_STATUS_SHAPE_MISMATCH, "[2,5]", adjoin_builder_input(builder, "a", wrong, 2, error));
    CHECK(strstr(adjoin_error_message(error), "[batch,4]") != NULL);
    REFUSED(ADJOIN_STATUS_SHAPE_MISMATCH, "[8]", adjoin_builder_input(builder, "a", flat, 1, error));
    REFUSED(ADJOIN_STATUS_SHAPE_MISMATCH, "[-2,4]", adjoin_builder_input(builder, "a", negative, 2, error));
    REFUSED(ADJOIN_STATUS_SHAPE_MISMATCH, "[]", adjoin_builder_input(builder, "a", NULL, 0, error));
    REFUSED(ADJOIN_STATUS_BYTE_SIZE_MISMATCH, "\"a\"", adjoin_builder_bytes_input(builder, "a", right, 2, 31, error));
    OK(adjoin_builder_input(builder, "a", right, 2, error));
    REFUSED(ADJOIN_STATUS_INPUT_REPEATED, "\"a\"", adjoin_builder_input(builder, "a", right, 2, error));
    REFUSED(ADJOIN_STATUS_INPUT_MISSING, "\"b\"", adjoin_builder_build(builder, &request, error));
    CHECK(request == NULL);
    OK(adjoin_builder_input(builder, "b", right, 2, error));
    OK(adjoin_builder_output(builder, "difference", error));
    REFUSED(ADJOIN_STATUS_OUTPUT_UNKNOWN, "\"difference\"", adjoin_builder_build(builder, &request, error));
    adjoin_builder_free(builder);
}

static void data_types(void) {
    adjoin_request *request = add_request(add, 1);
    adjoin_input input;
    adjoin_output output;
    REFUSED(ADJOIN_STATUS_DATA_TYPE_MISMATCH, "FP32",
            adjoin_request_input(request, "a", ADJOIN_DTYPE_INT64, &input, error));
    CHECK(strstr(adjoin_error_message(error), "INT64") != NULL && input.data == NULL);
    REFUSED(ADJOIN_STATUS_INPUT_UNKNOWN, "\"c\"",
            adjoin_request_input(request, "c", ADJOIN_DTYPE_FP32, &input, error));
    OK(adjoin_request_input(request, "a", ADJOIN_DTYPE_ANY, &input, error));
    CHECK(input.dtype == ADJOIN_DTYPE_FP32 && input.byte_size == 16 && input.rank == 2);
    CHECK(input.shape[0] == 1 && input.shape[1] == 4 && (uintptr_t)input.data % 64 == 0);
    add_works(request, 1, 1);
    REFUSED(ADJOIN_STATUS_DATA_TYPE_MISMATCH, "UINT8",
            adjoin_request_output(request, "sum", ADJOIN_DTYPE_UINT8, &output, error));
    REFUSED(ADJOIN_STATUS_OUTPUT_UNKNOWN, "\"difference\"",
            adjoin_request_output(request, "difference", ADJOIN_DTYPE_FP32, &output, error));
    CHECK(strstr(adjoin_error_message(error), "\"sum\"") != NULL);
    adjoin_request_free(request);
}

static void moments(void) {
    adjoin_request *request;
    adjoin_input input;
    adjoin_output output;
    adjoin_stats stats;
    bool is_done;
    OK(adjoin_model_request(slow, 1, &request, error));
    memset(input_of(request, "x"), 0, 64 * sizeof(float));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "run it first",
            adjoin_request_output(request, "y", ADJOIN_DTYPE_FP32, &output, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "run it first", adjoin_request_stats(request, &stats, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "not submitted", adjoin_request_wait(request, 0, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "not submitted", adjoin_request_is_done(request, &is_done, error));
    CHECK(adjoin_request_output_count(request) == 0);
    OK(adjoin_request_cancel(request, error));
    OK(adjoin_request_release(request, error));

    OK(adjoin_request_submit(request, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "in flight", adjoin_request_submit(request, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "in flight", adjoin_request_infer(request, 1, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "in flight", adjoin_request_release(request, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "in flight",
            adjoin_request_input(request, "x", ADJOIN_DTYPE_FP32, &input, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "wait for it",
            adjoin_request_output(request, "y", ADJOIN_DTYPE_FP32, &output, error));
    REFUSED(ADJOIN_STATUS_TIMEOUT, "1ns", adjoin_request_wait(request, 1, error));
    CHECK(adjoin_error_may_have_run(error) && !adjoin_error_is_retryable(error));
    /* The time was up, and the request goes on. */
    OK(adjoin_request_wait(request, ADJOIN_FOREVER, error));
    OK(adjoin_request_wait(request, 0, error));
    OK(adjoin_request_is_done(request, &is_done, error));
    CHECK(is_done && adjoin_request_output_count(request) == 1);
    OK(adjoin_request_stats(request, &stats, error));
    CHECK(stats.batch_size == 1 && stats.model_version == 1 && stats.execute_ns > 0);

    OK(adjoin_request_release(request, error));
    REFUSED(ADJOIN_STATUS_WRONG_STATE, "run it first",
            adjoin_request_output(request, "y", ADJOIN_DTYPE_FP32, &output, error));
    /* Inputs may be asked for and written while the outputs are read. */
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    const float *y = output_of(request, "y");
    input_of(request, "x")[0] = 64;
    CHECK(y[0] == 0 && y[63] == 0);
    OK(adjoin_request_output(request, "y", ADJOIN_DTYPE_FP32, &output, error));
    CHECK(output.data == y);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    CHECK(output_of(request, "y")[0] == 62);
    adjoin_request_free(request);
}

static void overload(void) {
    adjoin_request *requests[20];
    int full = 0, cancelled = 0, done = 0;
    for (int i = 0; i < 20; i++) OK(adjoin_model_request(slow, 1, &requests[i], error));
    for (int i = 0; i < 20; i++) OK(adjoin_request_submit(requests[i], error));
    for (int i = 0; i < 20; i++) {
        adjoin_status status = adjoin_request_wait(requests[i], ADJOIN_FOREVER, error);
        if (status == ADJOIN_STATUS_OK) {
            done++;
            continue;
        }
        REFUSED(ADJOIN_STATUS_QUEUE_FULL, "4", status);
        CHECK(adjoin_error_is_retryable(error) && !adjoin_error_may_have_run(error));
        full++;
    }
    CHECK(done >= 4 && full > 0);

    for (int i = 0; i < 4; i++) OK(adjoin_request_submit(requests[i], error));
    for (int i = 1; i < 4; i++) OK(adjoin_request_cancel(requests[i], error));
    for (int i = 0; i < 4; i++) {
        adjoin_status status = adjoin_request_wait(requests[i], ADJOIN_FOREVER, error);
        CHECK(status == ADJOIN_STATUS_OK || status == ADJOIN_STATUS_CANCELLED);
        cancelled += status == ADJOIN_STATUS_CANCELLED;
    }
    CHECK(cancelled >= 2);

    OK(adjoin_request_set_deadline(requests[0], 1, error));
    /* Refused when it came, or when its turn did. */
    adjoin_status status = adjoin_request_infer(requests[0], ADJOIN_FOREVER, error);
    CHECK(status == ADJOIN_STATUS_DEADLINE_EXCEEDED || status == ADJOIN_STATUS_DEADLINE_UNREACHABLE);
    REFUSED(status, "deadline", status);
    OK(adjoin_request_set_deadline(requests[0], ADJOIN_FOREVER, error));
    OK(adjoin_request_set_priority(requests[0], 1, error));
    OK(adjoin_request_infer(requests[0], ADJOIN_FOREVER, error));

    /* Freed in flight, and made anew: nothing is lost or used twice. */
    for (int i = 0; i < 20; i++) {
        if (i < 4) OK(adjoin_request_submit(requests[i], error));
        adjoin_request_free(requests[i]);
    }
    OK(adjoin_model_request(slow, 1, &requests[0], error));
    memset(input_of(requests[0], "x"), 0, 64 * sizeof(float));
    do status = adjoin_request_infer(requests[0], ADJOIN_FOREVER, error);
    while (status == ADJOIN_STATUS_QUEUE_FULL);
    OK(status);
    adjoin_request_free(requests[0]);
}

static void room(const char *socket_dir) {
    adjoin_options *options = adjoin_options_new();
    adjoin_client *small;
    OK(adjoin_options_set_request_bytes(options, 1, error));
    REFUSED(ADJOIN_STATUS_REGION_SIZE_INVALID, "64 KiB", adjoin_client_connect(socket_dir, options, &small, error));
    OK(adjoin_options_set_request_bytes(options, 1 << 18, error));
    OK(adjoin_options_set_response_bytes(options, 1 << 16, error));
    OK(adjoin_options_set_ring_entries(options, 7, error));
    REFUSED(ADJOIN_STATUS_RING_SIZE_INVALID, "7", adjoin_client_connect(socket_dir, options, &small, error));
    OK(adjoin_options_set_ring_entries(options, 8, error));
    OK(adjoin_options_set_name(options, "small", error));
    OK(adjoin_options_set_spin(options, 0, error));
    OK(adjoin_options_set_answer_timeout(options, ADJOIN_FOREVER, error));
    OK(adjoin_options_set_reconnect_timeout(options, 0, error));
    OK(adjoin_client_connect(socket_dir, options, &small, error));
    adjoin_options_free(options);
    CHECK(adjoin_client_in_flight_max(small) == 8);

    adjoin_model *model = model_of(small, "add");
    adjoin_request *request;
    REFUSED(ADJOIN_STATUS_REQUEST_REGION_FULL, "request_bytes", adjoin_model_request(model, 100000, &request, error));
    CHECK(strstr(adjoin_error_message(error), "needs 3200000 bytes") != NULL && request == NULL);
    OK(adjoin_model_request(model, 6000, &request, error));
    REFUSED(ADJOIN_STATUS_RESPONSE_REGION_FULL, "96", adjoin_request_infer(request, ADJOIN_FOREVER, error));
    adjoin_request_free(request);
    REFUSED(ADJOIN_STATUS_BYTE_SIZE_MISMATCH, "more bytes than", adjoin_model_request(model, UINT64_MAX, &request, error));
    adjoin_model_free(model);

    model = model_of(small, "slow");
    adjoin_request *requests[9];
    for (int i = 0; i < 9; i++) OK(adjoin_model_request(model, 1, &requests[i], error));
    for (int i = 0; i < 8; i++) OK(adjoin_request_submit(requests[i], error));
    REFUSED(ADJOIN_STATUS_IN_FLIGHT_LIMIT, "8 requests", adjoin_request_submit(requests[8], error));
    CHECK(adjoin_error_is_retryable(error));
    adjoin_client_free(small);
    for (int i = 0; i < 9; i++) adjoin_request_free(requests[i]);
    OK(adjoin_model_request(model, 2, &request, error));
    /* Places come back with the answers to those that were freed. */
    adjoin_status status;
    do status = adjoin_request_infer(request, ADJOIN_FOREVER, error);
    while (status == ADJOIN_STATUS_IN_FLIGHT_LIMIT);
    REFUSED(ADJOIN_STATUS_BATCH_TOO_LARGE, "2 rows", status);
    adjoin_request_free(request);
    adjoin_model_free(model);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    client = connect_to(arguments[1]);
    add = model_of(client, "add");
    slow = model_of(client, "slow");
    names_and_shapes();
    data_types();
    moments();
    overload();
    room(arguments[1]);
    adjoin_request *request = add_request(add, 1);
    add_works(request, 2, 3);
    adjoin_request_free(request);
    adjoin_model_free(add);
    adjoin_model_free(slow);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
