/* Strings: packed, unpacked, refused where they do not add up, and through the model text, which puts those of
 * two inputs side by side. */
#include "check.h"

static const char *const words[] = {"zero", "", "zwei\xc3\xb6", "d\0rei"};
static const size_t lengths[] = {4, 0, 6, 5};

static void packing(void) {
    size_t byte_size, found_lengths[4];
    const char *found[4];
    unsigned char data[64];
    OK(adjoin_bytes_size(words, lengths, 4, &byte_size, error));
    CHECK(byte_size == 4 * 4 + 4 + 0 + 6 + 5);
    OK(adjoin_bytes_pack(words, lengths, 4, data, byte_size, error));
    CHECK(memcmp(data, "\4\0\0\0zero\0\0\0\0\6\0\0\0", 16) == 0);
    OK(adjoin_bytes_unpack(data, byte_size, 4, found, found_lengths, error));
    for (int i = 0; i < 4; i++)
        CHECK(found_lengths[i] == lengths[i] && memcmp(found[i], words[i], lengths[i]) == 0);
    /* Without lengths a string ends at its NUL. */
    OK(adjoin_bytes_size(words, NULL, 4, &byte_size, error));
    CHECK(byte_size == 4 * 4 + 4 + 0 + 6 + 1);
    OK(adjoin_bytes_size(NULL, NULL, 0, &byte_size, error));
    CHECK(byte_size == 0);
    OK(adjoin_bytes_pack(NULL, NULL, 0, NULL, 0, error));
    OK(adjoin_bytes_unpack(NULL, 0, 0, NULL, NULL, error));
}

static void wrong(void) {
    const char *holes[] = {"a", NULL};
    const size_t huge[] = {(size_t)UINT32_MAX + 1, SIZE_MAX};
    size_t byte_size, found_lengths[2];
    const char *found[2];
    unsigned char data[] = {1, 0, 0, 0, 'a', 2, 0, 0, 0, 'b'};
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "byte_size is NULL", adjoin_bytes_size(words, lengths, 4, NULL, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "strings is NULL", adjoin_bytes_size(NULL, NULL, 1, &byte_size, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "string 1 is NULL", adjoin_bytes_size(holes, NULL, 2, &byte_size, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "string 0", adjoin_bytes_size(words, huge, 1, &byte_size, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "string 0", adjoin_bytes_size(words, huge + 1, 1, &byte_size, error));
    REFUSED(ADJOIN_STATUS_BYTE_SIZE_MISMATCH, "take 8 bytes, and there are 7",
            adjoin_bytes_pack(words, NULL, 1, data, 7, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "data is NULL", adjoin_bytes_pack(words, NULL, 1, NULL, 8, error));
    REFUSED(ADJOIN_STATUS_BYTES_MALFORMED, "string 1 of 2", adjoin_bytes_unpack(data, 10, 2, found, found_lengths, error));
    REFUSED(ADJOIN_STATUS_BYTES_MALFORMED, "string 0 of 1", adjoin_bytes_unpack(data, 3, 1, found, found_lengths, error));
    REFUSED(ADJOIN_STATUS_BYTES_MALFORMED, "5 of 10 bytes", adjoin_bytes_unpack(data, 10, 1, found, found_lengths, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "strings or lengths",
            adjoin_bytes_unpack(data, 10, 1, NULL, found_lengths, error));
    REFUSED(ADJOIN_STATUS_INVALID_ARGUMENT, "data is NULL", adjoin_bytes_unpack(NULL, 10, 1, found, found_lengths, error));
}

static void through_a_model(const adjoin_client *client) {
    adjoin_model *model = model_of(client, "text");
    adjoin_builder *builder;
    adjoin_request *request;
    adjoin_input a, b;
    adjoin_output both;
    const int64_t shape[] = {1, 2};
    size_t sizes[2], found_lengths[4];
    const char *found[4];
    OK(adjoin_bytes_size(words, lengths, 2, &sizes[0], error));
    OK(adjoin_bytes_size(words + 2, lengths + 2, 2, &sizes[1], error));
    OK(adjoin_builder_new(model, &builder, error));
    REFUSED(ADJOIN_STATUS_BYTE_SIZE_MISMATCH, "\"a\"", adjoin_builder_input(builder, "a", shape, 2, error));
    OK(adjoin_builder_bytes_input(builder, "a", shape, 2, sizes[0], error));
    OK(adjoin_builder_bytes_input(builder, "b", shape, 2, sizes[1], error));
    OK(adjoin_builder_build(builder, &request, error));
    OK(adjoin_request_input(request, "a", ADJOIN_DTYPE_BYTES, &a, error));
    OK(adjoin_request_input(request, "b", ADJOIN_DTYPE_BYTES, &b, error));
    CHECK(a.byte_size == sizes[0] && b.byte_size == sizes[1]);
    OK(adjoin_bytes_pack(words, lengths, 2, a.data, a.byte_size, error));
    OK(adjoin_bytes_pack(words + 2, lengths + 2, 2, b.data, b.byte_size, error));
    OK(adjoin_request_infer(request, ADJOIN_FOREVER, error));
    OK(adjoin_request_output(request, "both", ADJOIN_DTYPE_BYTES, &both, error));
    OK(adjoin_bytes_unpack(both.data, both.byte_size, 4, found, found_lengths, error));
    for (int i = 0; i < 4; i++)
        CHECK(found_lengths[i] == lengths[i] && memcmp(found[i], words[i], lengths[i]) == 0);
    ((unsigned char *)a.data)[0] = 200;
    CHECK(adjoin_request_infer(request, ADJOIN_FOREVER, error) != ADJOIN_STATUS_OK);
    adjoin_request_free(request);
    adjoin_builder_free(builder);
    adjoin_model_free(model);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    begin();
    adjoin_client *client = connect_to(arguments[1]);
    packing();
    wrong();
    through_a_model(client);
    adjoin_client_free(client);
    adjoin_error_free(error);
    return 0;
}
