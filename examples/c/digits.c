/* Reads handwritten digits with a model on a running server:
 *
 *     cc -std=c11 digits.c $(pkg-config --cflags --libs adjoin) -o digits
 *     ./digits SOCKET_DIR demo/digits/test_images.npy demo/digits/test_labels.npy
 *
 * `adjoin demo` has the model; any server with demo/digits/model.onnx as digits/1/model.onnx will do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adjoin.h"

#define BATCH 8
#define PIXELS 64
#define CLASSES 10

/* What went wrong last. One object serves all calls of this thread. */
static adjoin_error *error;

static void must(adjoin_status status) {
    if (status == ADJOIN_STATUS_OK) return;
    fprintf(stderr, "digits: %s (%s)\n", adjoin_error_message(error), adjoin_status_name(status));
    exit(1);
}

/* The bytes of an .npy file of uint8, without its header; writes how many to `count`. */
static unsigned char *read_npy(const char *path, size_t *count) {
    unsigned char head[10];
    unsigned char *bytes = NULL;
    FILE *file = fopen(path, "rb");
    if (file != NULL && fread(head, 1, sizeof head, file) == sizeof head &&
        memcmp(head, "\x93NUMPY\x01", 7) == 0) {
        const long start = (long)sizeof head + head[8] + 256L * head[9];
        fseek(file, 0, SEEK_END);
        *count = (size_t)(ftell(file) - start);
        fseek(file, start, SEEK_SET);
        bytes = malloc(*count);
        if (bytes != NULL && fread(bytes, 1, *count, file) != *count) *count = 0;
    }
    if (bytes == NULL) {
        fprintf(stderr, "digits: %s is no .npy file\n", path);
        exit(1);
    }
    fclose(file);
    return bytes;
}

static unsigned char best(const float *scores) {
    unsigned char best = 0;
    for (unsigned char digit = 1; digit < CLASSES; digit++)
        if (scores[digit] > scores[best]) best = digit;
    return best;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: digits SOCKET_DIR IMAGES.npy LABELS.npy\n");
        return 2;
    }
    size_t bytes, labelled;
    unsigned char *images = read_npy(arguments[2], &bytes);
    unsigned char *labels = read_npy(arguments[3], &labelled);
    size_t right = 0, read = 0, rows = 0;

    error = adjoin_error_new();
    adjoin_client *client;
    adjoin_model *model;
    adjoin_request *request;
    must(adjoin_client_connect(arguments[1], NULL, &client, error));
    must(adjoin_client_model(client, "digits", &model, error));
    must(adjoin_model_request(model, BATCH, &request, error));

    while (read < labelled && (read + BATCH) * PIXELS <= bytes) {
        adjoin_input image;
        adjoin_output scores;
        adjoin_stats stats;
        must(adjoin_request_input(request, "image", ADJOIN_DTYPE_FP32, &image, error));
        /* The only write: the server's engine reads the pixels here. */
        float *pixels = image.data;
        for (size_t i = 0; i < BATCH * PIXELS; i++) pixels[i] = images[read * PIXELS + i];

        must(adjoin_request_infer(request, ADJOIN_FOREVER, error));
        must(adjoin_request_output(request, "scores", ADJOIN_DTYPE_FP32, &scores, error));
        for (size_t i = 0; i < BATCH; i++)
            right += best((const float *)scores.data + i * CLASSES) == labels[read + i];
        must(adjoin_request_stats(request, &stats, error));
        rows += stats.batch_size;
        read += BATCH;
    }
    printf("%zu of %zu digits read right, in batches of %zu rows\n", right, read, rows * BATCH / read);

    adjoin_request_free(request);
    adjoin_model_free(model);
    adjoin_client_free(client);
    adjoin_error_free(error);
    free(images);
    free(labels);
    return 0;
}
