/* Wrong arguments of every function: NULL, handles of another kind, numbers that are no data type, text that is no
 * UTF-8. Each is a status, and what would have been written is zero. */
#include "check.h"

/* A call that is refused because of an argument, with and without an error object. */
#define WRONG(text, call_with, ...)                                                                \
    do {                                                                                           \
        REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, text, call_with(__VA_ARGS__, error));              \
        EXPECT(ADJOIN_STATUS_INVALID_ARGUMENT, call_with(__VA_ARGS__, NULL));                      \
    } while (0)

static void errors(void) {
    CHECK(adjoin_error_status(NULL) == ADJOIN_STATUS_OK);
    CHECK(adjoin_error_message(NULL)[0] == 0);
    CHECK(!adjoin_error_is_retryable(NULL) && !adjoin_error_may_have_run(NULL));
    adjoin_error *fresh = adjoin_error_new();
    CHECK(adjoin_error_status(fresh) == ADJOIN_STATUS_OK && adjoin_error_message(fresh)[0] == 0);
    EXPECT(ADJOIN_STATUS_INVALID_ARGUMENT, adjoin_options_set_spin(NULL, 0, fresh));
    CHECK(adjoin_error_status(fresh) == ADJOIN_STATUS_INVALID_ARGUMENT);
    /* A call that succeeds leaves it as it is. */
    adjoin_options *options = adjoin_options_new();
    OK(adjoin_options_set_spin(options, 0, fresh));
    CHECK(strstr(adjoin_error_message(fresh), "options is NULL") != NULL);
    adjoin_options_free(options);
    adjoin_error_free(fresh);
    adjoin_error_free(NULL);
}

static void options(void) {
    adjoin_options *options = adjoin_options_new();
    WRONG("options is NULL", adjoin_options_set_request_bytes, NULL, 1);
    WRONG("options is NULL", adjoin_options_set_response_bytes, NULL, 1);
    WRONG("options is NULL", adjoin_options_set_ring_entries, NULL, 8);
    WRONG("options is NULL", adjoin_options_set_name, NULL, "x");
    WRONG("options is NULL", adjoin_options_set_answer_timeout, NULL, 1);
    WRONG("options is NULL", adjoin_options_set_reconnect_timeout, NULL, 1);
    WRONG("name is NULL", adjoin_options_set_name, options, NULL);
    WRONG("is not UTF-8", adjoin_options_set_name, options, "\xff\xfe");
    /* A handle of another kind. */
    WRONG("options at", adjoin_options_set_spin, (adjoin_options *)(void *)error, 0);
    adjoin_options_free((adjoin_options *)(void *)error);
    adjoin_options_free(options);
    adjoin_options_free(NULL);
}

static void clients(const char *socket_dir, const adjoin_client *client) {
    adjoin_client *none = (adjoin_client *)-1;
    WRONG("client is NULL", adjoin_client_connect, socket_dir, NULL, NULL);
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "options at",
            adjoin_client_connect(socket_dir, (const adjoin_options *)(const void *)error, &none, error));
    CHECK(none == NULL);
    none = (adjoin_client *)-1;
    REFUSED(ADJOIN_STATUS_NO_SERVER, "/nowhere", adjoin_client_connect("/nowhere", NULL, &none, error));
    CHECK(none == NULL && adjoin_error_is_retryable(error));
    CHECK(adjoin_client_session_id(NULL) == 0 && adjoin_client_reconnects(NULL) == 0);
    CHECK(adjoin_client_in_flight_max(NULL) == 0);
    char version[32];
    WRONG("client is NULL", adjoin_client_server_version, NULL, version, sizeof version);
    WRONG("no buffer", adjoin_client_server_version, client, NULL, sizeof version);
    WRONG("no buffer", adjoin_client_server_version, client, version, 0);
    OK(adjoin_client_server_version(client, version, sizeof version, error));
    CHECK(strcmp(version, adjoin_version()) == 0);
    OK(adjoin_client_server_version(client, version, 3, error));
    CHECK(strlen(version) == 2);
    adjoin_client_free(NULL);
}

static void models(const adjoin_client *client, const adjoin_model *model) {
    adjoin_model *none = (adjoin_model *)-1;
    WRONG("model is NULL", adjoin_client_model, client, "add", NULL);
    WRONG("name is NULL", adjoin_client_model, client, NULL, &none);
    CHECK(none == NULL);
    WRONG("is not UTF-8", adjoin_client_model, client, "a\xc3", &none);
    WRONG("client is NULL", adjoin_client_model, NULL, "add", &none);
    WRONG("model is NULL", adjoin_model_with_version, NULL, 1, &none);
    WRONG("versioned is NULL", adjoin_model_with_version, model, 1, NULL);
    WRONG("model is NULL", adjoin_model_with_label, NULL, "stable", &none);
    WRONG("label is NULL", adjoin_model_with_label, model, NULL, &none);
    WRONG("labelled is NULL", adjoin_model_with_label, model, "stable", NULL);
    CHECK(adjoin_model_name(NULL) == NULL && adjoin_model_engine(NULL) == NULL);
    CHECK(adjoin_model_version(NULL) == 0 && adjoin_model_max_batch_size(NULL) == 0);
    CHECK(adjoin_model_input_count(NULL) == 0 && adjoin_model_output_count(NULL) == 0);
    size_t count = 7;
    CHECK(adjoin_model_ready_versions(NULL, &count) == NULL);
    CHECK(adjoin_model_ready_versions(model, NULL) == NULL);
    adjoin_spec spec;
    memset(&spec, 1, sizeof spec);
    WRONG("index 2 of 2 inputs", adjoin_model_input, model, 2, &spec);
    CHECK(spec.name == NULL && spec.rank == 0 && spec.shape == NULL && spec.dtype == ADJOIN_DTYPE_ANY);
    WRONG("index 1 of 1 outputs", adjoin_model_output, model, 1, &spec);
    WRONG("spec is NULL", adjoin_model_input, model, 0, NULL);
    WRONG("model is NULL", adjoin_model_output, NULL, 0, &spec);
    adjoin_model_free(NULL);
}

static void builders(const adjoin_model *model) {
    adjoin_builder *builder, *none = (adjoin_builder *)-1;
    adjoin_request *request = (adjoin_request *)-1;
    const int64_t shape[2] = {1, 4};
    WRONG("model is NULL", adjoin_builder_new, NULL, &none);
    CHECK(none == NULL);
    WRONG("builder is NULL", adjoin_builder_new, model, NULL);
    OK(adjoin_builder_new(model, &builder, error));
    WRONG("builder is NULL", adjoin_builder_input, NULL, "a", shape, 2);
    WRONG("name is NULL", adjoin_builder_input, builder, NULL, shape, 2);
    WRONG("shape is NULL", adjoin_builder_input, builder, "a", NULL, 2);
    WRONG("shape at", adjoin_builder_input, builder, "a", shape, SIZE_MAX);
    WRONG("builder is NULL", adjoin_builder_bytes_input, NULL, "a", shape, 2, 16);
    WRONG("builder is NULL", adjoin_builder_output, NULL, "sum");
    WRONG("name is NULL", adjoin_builder_output, builder, NULL);
    WRONG("builder is NULL", adjoin_builder_prepare, NULL, true);
    WRONG("builder is NULL", adjoin_builder_build, NULL, &request);
    CHECK(request == NULL);
    WRONG("request is NULL", adjoin_builder_build, builder, NULL);
    WRONG("model is NULL", adjoin_model_request, NULL, 1, &request);
    WRONG("request is NULL", adjoin_model_request, model, 1, NULL);
    adjoin_builder_free(builder);
    adjoin_builder_free(NULL);
}

static void watches(adjoin_request *request) {
    adjoin_watch *watch;
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "watch is NULL", adjoin_watch_new(NULL, error));
    OK(adjoin_watch_new(&watch, error));
    CHECK(adjoin_watch_fd(NULL) == -1 && adjoin_watch_fd(watch) >= 0);
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "watch is NULL", adjoin_watch_arm(NULL, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "watch is NULL", adjoin_watch_read(NULL, error));
    WRONG("request is NULL", adjoin_request_set_watch, NULL, watch);
    WRONG("watch at", adjoin_request_set_watch, request, (const adjoin_watch *)(const void *)request);
    /* One that watches nothing, and one that is freed before its request. */
    OK(adjoin_watch_arm(watch, error));
    OK(adjoin_watch_read(watch, error));
    OK(adjoin_request_set_watch(request, watch, error));
    adjoin_watch_free(watch);
    add_works(request, 1, 1);
    OK(adjoin_request_submit(request, error));
    OK(adjoin_request_set_watch(request, NULL, error));
    OK(adjoin_request_wait(request, ADJOIN_FOREVER, error));
    adjoin_watch_free(NULL);
}

static void requests(adjoin_request *request) {
    adjoin_input input;
    adjoin_output output;
    adjoin_stats stats;
    bool is_done;
    WRONG("request is NULL", adjoin_request_input, NULL, "a", ADJOIN_DTYPE_FP32, &input);
    WRONG("name is NULL", adjoin_request_input, request, NULL, ADJOIN_DTYPE_FP32, &input);
    WRONG("input is NULL", adjoin_request_input, request, "a", ADJOIN_DTYPE_FP32, NULL);
    memset(&input, 1, sizeof input);
    WRONG("99 is no data type", adjoin_request_input, request, "a", 99, &input);
    CHECK(input.data == NULL && input.name == NULL && input.byte_size == 0);
    WRONG("index 2 of 2 inputs", adjoin_request_input_at, request, 2, ADJOIN_DTYPE_ANY, &input);
    CHECK(adjoin_request_input_count(NULL) == 0 && adjoin_request_output_count(NULL) == 0);
    WRONG("request is NULL", adjoin_request_set_deadline, NULL, 1);
    WRONG("request is NULL", adjoin_request_set_priority, NULL, 1);
    WRONG("request is NULL", adjoin_request_infer, NULL, 0);
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "request is NULL", adjoin_request_submit(NULL, error));
    WRONG("request is NULL", adjoin_request_wait, NULL, 0);
    WRONG("request is NULL", adjoin_request_is_done, NULL, &is_done);
    WRONG("is_done is NULL", adjoin_request_is_done, request, NULL);
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "request is NULL", adjoin_request_cancel(NULL, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "request is NULL", adjoin_request_release(NULL, error));
    add_works(request, 1, 2);
    WRONG("request is NULL", adjoin_request_output, NULL, "sum", ADJOIN_DTYPE_FP32, &output);
    WRONG("name is NULL", adjoin_request_output, request, NULL, ADJOIN_DTYPE_FP32, &output);
    WRONG("output is NULL", adjoin_request_output, request, "sum", ADJOIN_DTYPE_FP32, NULL);
    memset(&output, 1, sizeof output);
    WRONG("15 is no data type", adjoin_request_output, request, "sum", 15, &output);
    CHECK(output.data == NULL && output.name == NULL && output.byte_size == 0);
    WRONG("index 1", adjoin_request_output_at, request, 1, ADJOIN_DTYPE_ANY, &output);
    WRONG("stats is NULL", adjoin_request_stats, request, NULL);
    WRONG("request is NULL", adjoin_request_stats, NULL, &stats);
    adjoin_request_free(NULL);
    /* A request is no client. */
    adjoin_client_free((adjoin_client *)(void *)request);
    add_works(request, 3, 4);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    CHECK(adjoin_abi_version() == ADJOIN_ABI_VERSION);
    CHECK(strcmp(adjoin_status_name(ADJOIN_STATUS_QUEUE_FULL), "queue_full") == 0);
    CHECK(strcmp(adjoin_status_name(4711), "unknown") == 0);
    CHECK(strcmp(adjoin_dtype_name(ADJOIN_DTYPE_BF16), "BF16") == 0);
    CHECK(strcmp(adjoin_dtype_name(15), "unknown") == 0);
    CHECK(adjoin_dtype_size(ADJOIN_DTYPE_INT64) == 8 && adjoin_dtype_size(ADJOIN_DTYPE_BYTES) == 0);
    CHECK(adjoin_dtype_size(99) == 0);
    adjoin_client *client = connect_to(arguments[1]);
    adjoin_model *model = model_of(client, "add");
    adjoin_request *request = add_request(model, 1);
    errors();
    options();
    clients(arguments[1], client);
    models(client, model);
    builders(model);
    watches(request);
    requests(request);
    /* In the order in which they were made, which is as good as any. */
    adjoin_client_free(client);
    adjoin_model_free(model);
    add_works(request, 5, 6);
    adjoin_request_free(request);
    adjoin_error_free(error);
    return 0;
}
