/* An event loop over requests of two clients: it sleeps on one descriptor and misses nothing, neither while another thread
 * reads packets of the same session, nor when the server dies, nor after the requests went to the next one. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

#define REQUESTS 12
#define ROUNDS 40

static adjoin_client *clients[2];
static adjoin_model *models[2];
static adjoin_request *requests[REQUESTS];
static adjoin_watch *watch;
static int sleeps;

/* Requests for slow, and some for add. */
static bool is_slow(int i) { return i % 3 == 0; }

static void make_requests(void) {
    for (int i = 0; i < REQUESTS; i++) {
        adjoin_model *model = model_of(clients[i % 2], is_slow(i) ? "slow" : "add");
        adjoin_input input;
        OK(adjoin_model_request(model, 1, &requests[i], error));
        for (size_t j = 0; j < adjoin_request_input_count(requests[i]); j++) {
            OK(adjoin_request_input_at(requests[i], j, ADJOIN_DTYPE_FP32, &input, error));
            memset(input.data, 0, input.byte_size);
        }
        OK(adjoin_request_set_watch(requests[i], watch, error));
        adjoin_model_free(model);
    }
}

/* Sleeps until a request is done; which one, of those for which `under_way` says so. */
static int next_done(const bool *under_way) {
    for (;;) {
        OK(adjoin_watch_arm(watch, error));
        for (int i = 0; i < REQUESTS; i++) {
            bool is_done = false;
            if (under_way[i]) OK(adjoin_request_is_done(requests[i], &is_done, error));
            if (is_done) return i;
        }
        struct pollfd fd = {adjoin_watch_fd(watch), POLLIN, 0};
        if (poll(&fd, 1, 30000) != 1) FAIL("slept for good");
        sleeps++;
        OK(adjoin_watch_read(watch, error));
    }
}

static void run_rounds(void) {
    bool under_way[REQUESTS];
    int left[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) {
        left[i] = is_slow(i) ? 4 : ROUNDS;
        under_way[i] = true;
        OK(adjoin_request_submit(requests[i], error));
    }
    for (int all = 4 * 4 + 8 * ROUNDS; all > 0; all--) {
        int i = next_done(under_way);
        OK(adjoin_request_wait(requests[i], ADJOIN_FOREVER, error));
        under_way[i] = --left[i] > 0;
        if (under_way[i]) OK(adjoin_request_submit(requests[i], error));
    }
    CHECK(sleeps > 0);
}

/* Asks about models all the time, and so takes packets that are for the loop. */
static void *ask_all_the_time(void *stop) {
    adjoin_error *own = adjoin_error_new();
    for (int i = 0; !atomic_load((atomic_bool *)stop); i++) {
        adjoin_model *model;
        CHECK(adjoin_client_model(clients[i % 2], "add", &model, own) == ADJOIN_STATUS_OK);
        adjoin_model_free(model);
    }
    adjoin_error_free(own);
    return NULL;
}

static void with_a_thread_that_asks(void) {
    atomic_bool stop = false;
    pthread_t asker;
    CHECK(pthread_create(&asker, NULL, ask_all_the_time, &stop) == 0);
    run_rounds();
    atomic_store(&stop, true);
    CHECK(pthread_join(asker, NULL) == 0);
}

static void with_a_server_that_dies(void) {
    bool under_way[REQUESTS];
    int gone = 0;
    for (int i = 0; i < REQUESTS; i++) {
        under_way[i] = true;
        OK(adjoin_request_submit(requests[i], error));
    }
    OK(adjoin_watch_arm(watch, error));
    ask_for("kill");
    for (int left = REQUESTS; left > 0; left--) {
        int i = next_done(under_way);
        adjoin_status status = adjoin_request_wait(requests[i], ADJOIN_FOREVER, error);
        CHECK(status == ADJOIN_STATUS_OK || status == ADJOIN_STATUS_SERVER_GONE);
        gone += status == ADJOIN_STATUS_SERVER_GONE;
        under_way[i] = false;
    }
    CHECK(gone > 0);
    /* A session that is over does not keep the descriptor readable. */
    OK(adjoin_watch_read(watch, error));
    struct pollfd fd = {adjoin_watch_fd(watch), POLLIN, 0};
    CHECK(poll(&fd, 1, 0) == 0);
    ask_for("start");
    for (int i = 0; i < REQUESTS; i++) {
        adjoin_input input;
        for (size_t j = 0; j < adjoin_request_input_count(requests[i]); j++)
            OK(adjoin_request_input_at(requests[i], j, ADJOIN_DTYPE_FP32, &input, error));
        /* The first submission moves the request. */
        OK(adjoin_request_infer(requests[i], ADJOIN_FOREVER, error));
        for (size_t j = 0; j < adjoin_request_input_count(requests[i]); j++)
            OK(adjoin_request_input_at(requests[i], j, ADJOIN_DTYPE_FP32, &input, error));
    }
    run_rounds();
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    OK(adjoin_watch_new(&watch, error));
    for (int i = 0; i < 2; i++) clients[i] = connect_to(arguments[1]);
    for (int i = 0; i < 2; i++) models[i] = model_of(clients[i], "add");
    make_requests();
    run_rounds();
    with_a_thread_that_asks();
    with_a_server_that_dies();
    CHECK(adjoin_client_reconnects(clients[0]) == 1 && adjoin_client_reconnects(clients[1]) == 1);
    for (int i = 0; i < REQUESTS; i++) adjoin_request_free(requests[i]);
    for (int i = 0; i < 2; i++) adjoin_model_free(models[i]);
    for (int i = 0; i < 2; i++) adjoin_client_free(clients[i]);
    adjoin_watch_free(watch);
    adjoin_error_free(error);
    return 0;
}
