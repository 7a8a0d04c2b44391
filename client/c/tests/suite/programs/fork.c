/* A forked child: it has no session, is told so, may free what it has, and may connect by itself. Its parent goes on. */
#include <poll.h>
#include <sys/wait.h>

#include "check.h"

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    adjoin_client *client = connect_to(arguments[1]);
    adjoin_model *add = model_of(client, "add"), *slow = model_of(client, "slow");
    adjoin_request *idle = add_request(add, 1), *answered = add_request(add, 1), *under_way;
    OK(adjoin_model_request(slow, 1, &under_way, error));
    memset(input_of(under_way, "x"), 0, 64 * sizeof(float));
    float *input = input_of(idle, "a");
    input[0] = 5;
    add_works(answered, 1, 2);
    const float *sum = output_of(answered, "sum");
    adjoin_watch *watch;
    OK(adjoin_watch_new(&watch, error));
    OK(adjoin_request_set_watch(under_way, watch, error));
    OK(adjoin_request_submit(under_way, error));
    OK(adjoin_watch_arm(watch, error));

    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        adjoin_client *own;
        adjoin_model *model;
        adjoin_request *request;
        adjoin_output output;
        adjoin_input place;
        bool is_done;
        /* Kept addresses are zeros of the child's own. */
        CHECK(sum[0] == 0 && input[0] == 0);
        input[0] = 9;
        REFUSED(ADJOIN_STATUS_FORKED, "forked", adjoin_client_model(client, "add", &model, error));
        REFUSED(ADJOIN_STATUS_FORKED, "forked", adjoin_model_request(add, 1, &request, error));
        REFUSED(ADJOIN_STATUS_FORKED, "forked", adjoin_request_infer(idle, ADJOIN_FOREVER, error));
        EXPECT(ADJOIN_STATUS_FORKED, adjoin_request_infer(idle, ADJOIN_FOREVER, error));
        EXPECT(ADJOIN_STATUS_FORKED, adjoin_request_output(answered, "sum", ADJOIN_DTYPE_FP32, &output, error));
        EXPECT(ADJOIN_STATUS_FORKED, adjoin_request_input(answered, "a", ADJOIN_DTYPE_FP32, &place, error));
        OK(adjoin_request_cancel(under_way, error));
        OK(adjoin_request_is_done(under_way, &is_done, error));
        CHECK(is_done);
        EXPECT(ADJOIN_STATUS_FORKED, adjoin_request_wait(under_way, ADJOIN_FOREVER, error));
        EXPECT(ADJOIN_STATUS_FORKED, adjoin_request_wait(under_way, 0, error));
        EXPECT(ADJOIN_STATUS_FORKED, adjoin_request_is_done(under_way, &is_done, error));
        CHECK(adjoin_client_session_id(client) == 0);
        REFUSED(ADJOIN_STATUS_FORKED, "forked", adjoin_watch_arm(watch, error));
        REFUSED(ADJOIN_STATUS_FORKED, "forked", adjoin_watch_read(watch, error));
        adjoin_watch_free(watch);
        own = connect_to(arguments[1]);
        model = model_of(own, "add");
        request = add_request(model, 1);
        add_works(request, 7, 8);
        adjoin_request_free(request);
        adjoin_model_free(model);
        adjoin_client_free(own);
        adjoin_request_free(idle);
        adjoin_request_free(answered);
        adjoin_request_free(under_way);
        adjoin_model_free(add);
        adjoin_model_free(slow);
        adjoin_client_free(client);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(sum[0] == 3 && input[0] == 5);
    /* The child has taken nothing out of the parent's watch. */
    struct pollfd fd = {adjoin_watch_fd(watch), POLLIN, 0};
    CHECK(poll(&fd, 1, 30000) == 1);
    OK(adjoin_watch_read(watch, error));
    OK(adjoin_request_wait(under_way, ADJOIN_FOREVER, error));
    CHECK(output_of(under_way, "y")[0] == 0);
    add_works(idle, 3, 4);
    add_works(answered, 5, 6);
    CHECK(adjoin_client_reconnects(client) == 0);
    adjoin_watch_free(watch);
    adjoin_request_free(idle);
    adjoin_request_free(answered);
    adjoin_request_free(under_way);
    adjoin_model_free(add);
    adjoin_model_free(slow);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
