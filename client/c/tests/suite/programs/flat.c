/* Descriptors, mappings and resident memory over many requests, and over many of everything else that is made and freed.
 * The second argument says how much resident memory may grow, in KiB. */
#include <dirent.h>

#include "check.h"

#define RUNS 100000

struct footprint {
    int descriptors;
    int mappings;
    long resident_kib;
};

static struct footprint footprint(void) {
    struct footprint print = {0, 0, 0};
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    while (readdir(directory) != NULL) print.descriptors++;
    closedir(directory);
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) print.mappings++;
    fclose(file);
    file = fopen("/proc/self/status", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmRSS: %ld kB", &print.resident_kib) == 1) break;
    fclose(file);
    return print;
}

static void run(adjoin_request *request, int runs) {
    adjoin_output output;
    for (int i = 0; i < runs; i++) {
        OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
        OK(adjoin_request_output_at(request, 0, ADJOIN_DTYPE_FP32, &output, error));
    }
}

/* Everything that can be made, and what can go wrong with it. */
static void make_and_free(const char *socket_dir, const adjoin_client *client, int times) {
    for (int i = 0; i < times; i++) {
        adjoin_model *model = model_of(client, "add"), *none;
        adjoin_builder *builder;
        adjoin_request *request;
        const int64_t shape[] = {1, 4};
        OK(adjoin_builder_new(model, &builder, error));
        OK(adjoin_builder_input(builder, "b", shape, 2, error));
        OK(adjoin_builder_input(builder, "a", shape, 2, error));
        OK(adjoin_builder_output(builder, "sum", error));
        OK(adjoin_builder_prepare(builder, i % 2 == 0, error));
        OK(adjoin_builder_build(builder, &request, error));
        add_works(request, 1, 2);
        EXPECT(ADJOIN_STATUS_MODEL_NOT_FOUND, adjoin_client_model(client, "none", &none, error));
        EXPECT(ADJOIN_STATUS_MODEL_NOT_FOUND, adjoin_client_model(client, "none", &none, NULL));
        OK(adjoin_request_submit(request, error));
        adjoin_request_free(request);
        adjoin_builder_free(builder);
        adjoin_model_free(model);
        if (i % 20 == 0) adjoin_client_free(connect_to(socket_dir));
    }
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    begin();
    const long growth_max_kib = atol(arguments[2]);
    adjoin_client *client = connect_to(arguments[1]);
    adjoin_model *model = model_of(client, "add");
    adjoin_request *request = add_request(model, 1);
    memset(input_of(request, "a"), 0, 16);
    memset(input_of(request, "b"), 0, 16);
    run(request, RUNS / 10);
    make_and_free(arguments[1], client, 200);
    struct footprint before = footprint();
    run(request, RUNS);
    make_and_free(arguments[1], client, 2000);
    struct footprint after = footprint();
    if (after.descriptors != before.descriptors || after.mappings > before.mappings + 4 ||
        after.resident_kib > before.resident_kib + growth_max_kib)
        FAIL("descriptors %d, mappings %d, %ld KiB before; %d, %d, %ld KiB after", before.descriptors,
             before.mappings, before.resident_kib, after.descriptors, after.mappings, after.resident_kib);
    adjoin_request_free(request);
    adjoin_model_free(model);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
