/* Servers that are killed, end, and are started again under a client that lives on. */
#include "check.h"

static adjoin_client *client;
static adjoin_model *add, *slow;

/* Addresses that are kept from run to run, as if there were no restarts. */
static float *kept_a, *kept_b;

static void fill(float a, float b) {
    for (int i = 0; i < 4; i++) {
        kept_a[i] = a + (float)i;
        kept_b[i] = b;
    }
}

static void check_sum(adjoin_request *request, float first) {
    const float *sum = output_of(request, "sum");
    for (int i = 0; i < 4; i++) CHECK(sum[i] == first + (float)i);
}

static void killed(adjoin_request *request) {
    adjoin_request *under_way;
    adjoin_model *model;
    OK(adjoin_model_request(slow, 1, &under_way, error));
    memset(input_of(under_way, "x"), 0, 64 * sizeof(float));
    fill(1, 2);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    for (int i = 0; i < 20; i++) {
        adjoin_request *more;
        OK(adjoin_model_request(slow, 1, &more, error));
        OK(adjoin_request_submit(more, error));
        adjoin_request_free(more);
    }
    OK(adjoin_request_submit(under_way, error));
    ask_for("kill");
    EXPECT(ADJOIN_STATUS_SERVER_GONE, adjoin_request_wait(under_way, ADJOIN_FOREVER, error));
    CHECK(adjoin_error_may_have_run(error) && !adjoin_error_is_retryable(error));
    CHECK(strstr(adjoin_error_message(error), "may have run") != NULL);
    /* What was answered before is still there. */
    check_sum(request, 3);
    REFUSED(ADJOIN_STATUS_NO_SERVER, "attach.sock", adjoin_request_infer(under_way, ADJOIN_FOREVER, error));
    CHECK(!adjoin_error_may_have_run(error) && adjoin_error_is_retryable(error));
    REFUSED(ADJOIN_STATUS_NO_SERVER, "attach.sock", adjoin_client_model(client, "add", &model, error));
    CHECK(model == NULL);
    adjoin_request_free(under_way);
}

static void started_again(adjoin_request *request) {
    uint64_t session = adjoin_client_session_id(client);
    /* Written to the old memory, and sent to the new server. */
    fill(10, 20);
    ask_for("start");
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    check_sum(request, 30);
    CHECK(adjoin_client_reconnects(client) == 1);
    CHECK(adjoin_client_session_id(client) != 0 && session != 0);

    /* From now on the old addresses are no good. They are mapped, and what is written there is refused. */
    fill(100, 200);
    REFUSED(ADJOIN_STATUS_INPUT_MOVED, "\"a\"", adjoin_request_infer(request, ADJOIN_FOREVER, error));
    float *old_a = kept_a;
    kept_a = input_of(request, "a");
    CHECK(kept_a != old_a && kept_a[1] == 11);
    REFUSED(ADJOIN_STATUS_INPUT_MOVED, "\"b\"", adjoin_request_submit(request, error));
    kept_b = input_of(request, "b");
    CHECK(kept_b[0] == 20);
    fill(100, 200);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    check_sum(request, 300);
}

/* Submissions that find no server do not move the addresses: the one that moves the request does. */
static void away(adjoin_request *request) {
    fill(1, 2);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    ask_for("kill");
    /* Sent to a server that was gone already, unless the end of the connection was seen before it was sent. */
    adjoin_status gone = adjoin_request_infer(request, ADJOIN_FOREVER, error);
    CHECK(gone == ADJOIN_STATUS_SERVER_GONE || gone == ADJOIN_STATUS_NO_SERVER);
    fill(3, 4);
    EXPECT(ADJOIN_STATUS_NO_SERVER, adjoin_request_infer(request, ADJOIN_FOREVER, error));
    /* Written while there is neither a server nor a session. */
    fill(30, 40);
    EXPECT(ADJOIN_STATUS_NO_SERVER, adjoin_request_infer(request, ADJOIN_FOREVER, error));
    fill(50, 60);
    /* One address may be of later than the other. */
    kept_b = input_of(request, "b");
    CHECK(kept_b[0] == 40);
    fill(50, 70);
    ask_for("start");
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    check_sum(request, 120);
    REFUSED(ADJOIN_STATUS_INPUT_MOVED, "\"a\"", adjoin_request_infer(request, ADJOIN_FOREVER, error));
    kept_a = input_of(request, "a");
    kept_b = input_of(request, "b");
    for (int i = 0; i < 3; i++) {
        fill(5, 6);
        OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
        check_sum(request, 11);
    }
}

/* A client that is patient beyond measure, and calls that are not. */
static void in_time(const char *socket_dir) {
    adjoin_options *options = adjoin_options_new();
    OK(adjoin_options_set_reconnect_timeout(options, UINT64_C(3600000000000), error));
    adjoin_client *patient;
    OK(adjoin_client_connect(socket_dir, options, &patient, error));
    adjoin_options_free(options);
    adjoin_model *model = model_of(patient, "add");
    adjoin_request *request = add_request(model, 1);
    add_works(request, 1, 2);
    ask_for("kill");
    /* The server may be gone before the submission or after it. */
    CHECK(adjoin_request_infer(request, UINT64_C(20000000), error) != ADJOIN_STATUS_OK);
    for (int i = 0; i < 2; i++) {
        EXPECT(ADJOIN_STATUS_NO_SERVER, adjoin_request_infer(request, UINT64_C(20000000), error));
        CHECK(adjoin_error_is_retryable(error) && !adjoin_error_may_have_run(error));
    }
    OK(adjoin_request_set_deadline(request, UINT64_C(20000000), error));
    EXPECT(ADJOIN_STATUS_NO_SERVER, adjoin_request_submit(request, error));
    OK(adjoin_request_set_deadline(request, ADJOIN_FOREVER, error));
    ask_for("start");
    add_works(request, 3, 4);
    adjoin_request_free(request);
    adjoin_model_free(model);
    adjoin_client_free(patient);
}

static void ended(adjoin_request *request) {
    fill(1, 1);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    ask_for("stop");
    check_sum(request, 2);
    fill(5, 6);
    EXPECT(ADJOIN_STATUS_NO_SERVER, adjoin_request_infer(request, ADJOIN_FOREVER, error));
    ask_for("start");
    kept_a = input_of(request, "a");
    kept_b = input_of(request, "b");
    fill(7, 8);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    check_sum(request, 15);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    client = connect_to(arguments[1]);
    add = model_of(client, "add");
    slow = model_of(client, "slow");
    adjoin_request *request = add_request(add, 1);
    kept_a = input_of(request, "a");
    kept_b = input_of(request, "b");
    killed(request);
    started_again(request);
    away(request);
    ended(request);
    in_time(arguments[1]);
    adjoin_request_free(request);
    adjoin_model_free(add);
    adjoin_model_free(slow);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
