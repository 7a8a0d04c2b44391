/* What a model says about itself: add in versions 1 and 3, of which 1 is labelled stable; and digits. */
#include "check.h"

static void versions(const adjoin_client *client) {
    adjoin_model *newest = model_of(client, "add"), *first, *stable;
    size_t count;
    const uint64_t *ready = adjoin_model_ready_versions(newest, &count);
    CHECK(count == 2 && ready[0] == 1 && ready[1] == 3);
    CHECK(adjoin_model_version(newest) == 3);
    OK(adjoin_model_with_version(newest, 1, &first, error));
    OK(adjoin_model_with_label(newest, "stable", &stable, error));
    CHECK(adjoin_model_version(first) == 1 && adjoin_model_version(stable) == 1);
    const adjoin_model *models[] = {newest, first, stable};
    const uint64_t wanted[] = {3, 1, 1};
    for (int i = 0; i < 3; i++) {
        adjoin_stats stats;
        adjoin_request *request = add_request(models[i], 1);
        add_works(request, 1, 1);
        OK(adjoin_request_stats(request, &stats, error));
        CHECK(stats.model_version == wanted[i] && stats.batch_size == 1 && !stats.is_output_copied);
        adjoin_request_free(request);
    }
    adjoin_model_free(newest);
    adjoin_model_free(first);
    adjoin_model_free(stable);
}

static void tensors(const adjoin_client *client) {
    adjoin_model *model = model_of(client, "digits");
    adjoin_spec spec;
    CHECK(strcmp(adjoin_model_name(model), "digits") == 0);
    CHECK(strcmp(adjoin_model_engine(model), "onnxruntime") == 0);
    CHECK(adjoin_model_max_batch_size(model) == 32);
    CHECK(adjoin_model_input_count(model) == 1 && adjoin_model_output_count(model) == 1);
    OK(adjoin_model_input(model, 0, &spec, error));
    CHECK(strcmp(spec.name, "image") == 0 && spec.dtype == ADJOIN_DTYPE_FP32 && spec.rank == 4);
    CHECK(spec.shape[0] == -1 && spec.shape[1] == 1 && spec.shape[2] == 8 && spec.shape[3] == 8);
    CHECK(strcmp(spec.dimension_names[0], "batch") == 0 && spec.dimension_names[3][0] == 0);
    OK(adjoin_model_output(model, 0, &spec, error));
    CHECK(strcmp(spec.name, "scores") == 0 && spec.rank == 2 && spec.shape[1] == 10);

    /* Rows of a request are what its shape says. */
    adjoin_request *request;
    adjoin_input input;
    adjoin_output output;
    OK(adjoin_model_request(model, 3, &request, error));
    CHECK(adjoin_request_input_count(request) == 1);
    OK(adjoin_request_input_at(request, 0, ADJOIN_DTYPE_FP32, &input, error));
    CHECK(strcmp(input.name, "image") == 0 && input.shape[0] == 3 && input.byte_size == 3 * 64 * 4);
    memset(input.data, 0, input.byte_size);
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    OK(adjoin_request_output_at(request, 0, ADJOIN_DTYPE_ANY, &output, error));
    CHECK(strcmp(output.name, "scores") == 0 && output.rank == 2 && output.byte_size == 3 * 10 * 4);
    CHECK(output.shape[0] == 3 && output.shape[1] == 10 && (uintptr_t)output.data % 64 == 0);
    adjoin_request_free(request);
    adjoin_model_free(model);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    adjoin_client *client = connect_to(arguments[1]);
    versions(client);
    tensors(client);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
