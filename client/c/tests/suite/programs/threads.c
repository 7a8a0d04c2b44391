/* Threads that share a client and a model, each with a request of its own; and two that get in each other's way on one
 * request, which is an error and nothing worse. */
#include <pthread.h>

#include "check.h"

#define THREADS 8
#define RUNS 2000

struct worker {
    pthread_t thread;
    const adjoin_model *model;
    int number;
};

/* `error` belongs to the main thread, so here there is another one of the same name. */
static void *work(void *argument) {
    const struct worker *self = argument;
    adjoin_error *own = adjoin_error_new();
    adjoin_request *request;
    adjoin_input a, b;
    adjoin_output sum;
    CHECK(adjoin_model_request(self->model, 1, &request, own) == ADJOIN_STATUS_OK);
    CHECK(adjoin_request_input(request, "a", ADJOIN_DTYPE_FP32, &a, own) == ADJOIN_STATUS_OK);
    CHECK(adjoin_request_input(request, "b", ADJOIN_DTYPE_FP32, &b, own) == ADJOIN_STATUS_OK);
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; i < 4; i++) {
            ((float *)a.data)[i] = (float)(run + i);
            ((float *)b.data)[i] = (float)(self->number * RUNS);
        }
        CHECK(adjoin_request_infer(request, ADJOIN_FOREVER, own) == ADJOIN_STATUS_OK);
        CHECK(adjoin_request_output(request, "sum", ADJOIN_DTYPE_FP32, &sum, own) == ADJOIN_STATUS_OK);
        for (int i = 0; i < 4; i++)
            CHECK(((const float *)sum.data)[i] == (float)(run + i + self->number * RUNS));
    }
    adjoin_request_free(request);
    adjoin_error_free(own);
    return NULL;
}

static void *wait_for(void *request) {
    adjoin_error *own = adjoin_error_new();
    adjoin_status status = adjoin_request_wait(request, ADJOIN_FOREVER, own);
    /* The other thread may have come first. */
    CHECK(status == ADJOIN_STATUS_OK || status == ADJOIN_STATUS_WRONG_STATE);
    adjoin_error_free(own);
    return NULL;
}

static void in_the_way(const adjoin_model *slow) {
    adjoin_request *request;
    OK(adjoin_model_request(slow, 1, &request, error));
    memset(input_of(request, "x"), 0, 64 * sizeof(float));
    bool was_refused = false;
    for (int attempt = 0; attempt < 1000 && !was_refused; attempt++) {
        pthread_t waiter;
        bool is_done = false;
        OK(adjoin_request_submit(request, error));
        CHECK(pthread_create(&waiter, NULL, wait_for, request) == 0);
        while (!is_done && !was_refused) {
            adjoin_status status = adjoin_request_is_done(request, &is_done, error);
            was_refused = status == ADJOIN_STATUS_WRONG_STATE;
            CHECK(status == ADJOIN_STATUS_OK || was_refused);
        }
        CHECK(pthread_join(waiter, NULL) == 0);
        OK(adjoin_request_wait(request, ADJOIN_FOREVER, error));
    }
    CHECK(was_refused && strstr(adjoin_error_message(error), "another thread") != NULL);
    adjoin_request_free(request);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    adjoin_client *client = connect_to(arguments[1]);
    adjoin_model *add = model_of(client, "add"), *slow = model_of(client, "slow");
    struct worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i].model = add;
        workers[i].number = i;
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(workers[i].thread, NULL) == 0);
    in_the_way(slow);
    adjoin_model_free(add);
    adjoin_model_free(slow);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
