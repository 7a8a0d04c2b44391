/*
 * adjoin: client of an inference server on the same node. Tensors are written once, into memory
 * shared with the server, and the model runs on them where they lie.
 *
 *     adjoin_client_connect -> adjoin_client_model -> adjoin_model_request
 *         -> adjoin_request_input -> adjoin_request_infer -> adjoin_request_output
 *
 * Results. A function that can fail returns an adjoin_status, 0 for success, and takes an
 * adjoin_error last, which may be NULL and otherwise gets the full text. What it would have
 * written to the caller's places is zero then. No call ends the process or throws.
 *
 * Handles. Each is made by one function and freed by the adjoin_..._free of its kind, in any
 * order: what is made from a handle does not need it any more. NULL where the comment does not
 * allow it, text that is not UTF-8, and numbers that are no adjoin_dtype are errors. Passing a
 * handle that was freed, or an address that is none, is undefined, and mostly an error.
 *
 * Threads. Clients, models and watches may be used by any number of threads at a time; every other
 * handle by one at a time, whichever it is.
 *
 * Pointers that a call gives out are there for as long as its comment says. Those that a call takes
 * are looked at during the call only.
 *
 * Units. Times are nanoseconds, sizes bytes.
 *
 * Fork. A forked child has no session: calls there fail with ADJOIN_STATUS_FORKED, and inputs and
 * outputs read as zeros. It may free what it has, and connect with a client of its own.
 *
 * Made from client/c/src by cbindgen. Do not edit.
 */


#ifndef ADJOIN_H
#define ADJOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// No limit of time, where a call takes one in nanoseconds.
#define ADJOIN_FOREVER UINT64_MAX

/// The ABI that this header describes. It changes when a caller has to be compiled anew, and is the
/// number in the library's soname.
#define ADJOIN_ABI_VERSION 1

/// The outcome of a call. A number that was ever released keeps its meaning.
///
/// Below 1000 it is the server's answer, with the number that travels: 1xx the request is wrong,
/// 2xx there is too much load, 3xx the server or the model is starting or ending, 4xx the engine
/// failed, 5xx the session was refused or ended, 900 the server failed. Some of the 1xx are also
/// found before anything is sent. From 1000 on it is this process that says so.
enum adjoin_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// Done.
    ADJOIN_STATUS_OK = 0,
    /// No model of that name is loaded.
    ADJOIN_STATUS_MODEL_NOT_FOUND = 100,
    /// The model has no ready version of that number or label.
    ADJOIN_STATUS_VERSION_NOT_FOUND = 101,
    /// The model has no input of that name.
    ADJOIN_STATUS_INPUT_UNKNOWN = 102,
    /// An input of the model is missing.
    ADJOIN_STATUS_INPUT_MISSING = 103,
    /// An input is named twice.
    ADJOIN_STATUS_INPUT_REPEATED = 104,
    /// The data type is not the one that the tensor has.
    ADJOIN_STATUS_DATA_TYPE_MISMATCH = 105,
    /// A data type that the server does not know.
    ADJOIN_STATUS_DATA_TYPE_UNKNOWN = 106,
    /// The shape is not one that the model takes.
    ADJOIN_STATUS_SHAPE_MISMATCH = 107,
    /// The byte size is not the one that data type and shape make.
    ADJOIN_STATUS_BYTE_SIZE_MISMATCH = 108,
    /// A tensor reaches past its region.
    ADJOIN_STATUS_EXTENT_OUT_OF_REGION = 109,
    /// A tensor does not start at a multiple of 64.
    ADJOIN_STATUS_EXTENT_MISALIGNED = 110,
    /// Two tensors of one request share bytes.
    ADJOIN_STATUS_EXTENTS_OVERLAP = 111,
    /// The request takes more than 16 KiB to describe.
    ADJOIN_STATUS_DESCRIPTOR_TOO_LARGE = 112,
    /// The request breaks a limit of the protocol.
    ADJOIN_STATUS_DESCRIPTOR_INVALID = 113,
    /// More rows than the model runs at once.
    ADJOIN_STATUS_BATCH_TOO_LARGE = 114,
    /// The server does not know the prepared request. The library sends it again by itself.
    ADJOIN_STATUS_PREPARED_UNKNOWN = 115,
    /// The prepared request is in flight already.
    ADJOIN_STATUS_PREPARED_BUSY = 116,
    /// The model has no output of that name.
    ADJOIN_STATUS_OUTPUT_UNKNOWN = 117,
    /// String elements whose lengths do not add up.
    ADJOIN_STATUS_BYTES_MALFORMED = 118,
    /// The model takes no such values, such as bytes that are no image.
    ADJOIN_STATUS_VALUES_REFUSED = 119,
    /// No device region of that number is attached in this session.
    ADJOIN_STATUS_DEVICE_REGION_UNKNOWN = 120,
    /// The model does not take that tensor from a device, or give it there.
    ADJOIN_STATUS_DEVICE_REGION_NOT_TAKEN = 121,
    /// The server's device was lost, and what was mapped of the region with it.
    ADJOIN_STATUS_DEVICE_REGION_LOST = 122,
    /// An output is to go to a device, and only the run shows its size.
    ADJOIN_STATUS_OUTPUT_SIZE_UNKNOWN = 123,
    /// The room for an output on a device is smaller than the output.
    ADJOIN_STATUS_OUTPUT_ROOM_TOO_SMALL = 124,
    /// A descriptor that is no memory of the device, or of another size.
    ADJOIN_STATUS_DEVICE_MEMORY_INVALID = 125,
    /// Memory of another device than the server uses.
    ADJOIN_STATUS_DEVICE_MISMATCH = 126,
    /// The model's queue is full. Not executed.
    ADJOIN_STATUS_QUEUE_FULL = 200,
    /// The deadline passed before the request ran.
    ADJOIN_STATUS_DEADLINE_EXCEEDED = 201,
    /// The response region has no room for the outputs. Not executed.
    ADJOIN_STATUS_RESPONSE_REGION_FULL = 202,
    /// The request would have ended after its deadline. Not executed.
    ADJOIN_STATUS_DEADLINE_UNREACHABLE = 203,
    /// The session has as many device regions as it may.
    ADJOIN_STATUS_TOO_MANY_DEVICE_REGIONS = 204,
    /// The session or its user has as much device memory attached as it may.
    ADJOIN_STATUS_DEVICE_QUOTA_EXCEEDED = 205,
    /// The model is loading, or failed to load.
    ADJOIN_STATUS_MODEL_NOT_READY = 300,
    /// The request was cancelled before it ran.
    ADJOIN_STATUS_CANCELLED = 301,
    /// The server is draining and did not execute the request. Send it again: the next server takes
    /// it.
    ADJOIN_STATUS_NOT_EXECUTED = 302,
    /// The server uses no device, or its device is lost at the moment.
    ADJOIN_STATUS_DEVICE_UNAVAILABLE = 303,
    /// The engine failed.
    ADJOIN_STATUS_EXECUTION_FAILED = 400,
    /// The outputs turned out larger than what was free of the response region.
    ADJOIN_STATUS_OUTPUT_TOO_LARGE = 401,
    /// Server and library speak different protocols.
    ADJOIN_STATUS_PROTOCOL_MISMATCH = 500,
    /// The server took the first message for none.
    ADJOIN_STATUS_HANDSHAKE_INVALID = 501,
    /// A token that is not good, or not any more.
    ADJOIN_STATUS_TOKEN_INVALID = 502,
    /// A region size outside the limits.
    ADJOIN_STATUS_REGION_SIZE_INVALID = 503,
    /// A ring size outside the limits, or no power of two.
    ADJOIN_STATUS_RING_SIZE_INVALID = 504,
    /// The user's sessions hold as much memory as they may.
    ADJOIN_STATUS_MEMORY_QUOTA_EXCEEDED = 505,
    /// The server has as many sessions as it takes.
    ADJOIN_STATUS_TOO_MANY_SESSIONS = 506,
    /// The user may not open sessions with this server.
    ADJOIN_STATUS_PEER_NOT_ALLOWED = 507,
    /// The server's machine had no memory or descriptors for the session.
    ADJOIN_STATUS_SESSION_UNAVAILABLE = 508,
    /// The memory limit of the server has no room for the session.
    ADJOIN_STATUS_MEMORY_BUDGET_EXCEEDED = 509,
    /// The server ended the session for a wrong ring index.
    ADJOIN_STATUS_RING_INDEX_INVALID = 520,
    /// The server ended the session for a wrong ring entry.
    ADJOIN_STATUS_ENTRY_INVALID = 521,
    /// The server ended the session for more requests in flight than it has places.
    ADJOIN_STATUS_TOO_MANY_IN_FLIGHT = 522,
    /// The server ended the session for a wrong release.
    ADJOIN_STATUS_RELEASE_INVALID = 523,
    /// The server broke one of its own rules; its log says more.
    ADJOIN_STATUS_INTERNAL = 900,
    /// An argument is NULL that may not be, is not UTF-8, or is outside its limits.
    ADJOIN_STATUS_INVALID_ARGUMENT = 1000,
    /// The handle is not where the call needs it, such as a request that is in flight already, or
    /// that another thread is using at the moment.
    ADJOIN_STATUS_WRONG_STATE = 1001,
    /// More than the number of rows is open in a shape; name the whole shape.
    ADJOIN_STATUS_SHAPE_OPEN = 1002,
    /// The request region has too little room for the request.
    ADJOIN_STATUS_REQUEST_REGION_FULL = 1003,
    /// As many requests are in flight as the session has places. Not submitted.
    ADJOIN_STATUS_IN_FLIGHT_LIMIT = 1004,
    /// The server has not taken earlier entries from the submission ring; it seems to have stopped.
    /// Not submitted.
    ADJOIN_STATUS_SUBMISSION_RING_FULL = 1005,
    /// The time was up. A request that was submitted is still with the server.
    ADJOIN_STATUS_TIMEOUT = 1006,
    /// The server is gone. The next call opens a session with the next server.
    ADJOIN_STATUS_SERVER_GONE = 1007,
    /// The server broke the protocol; the session is over.
    ADJOIN_STATUS_PROTOCOL_VIOLATION = 1008,
    /// The inputs moved to another session since their addresses were asked for. Not submitted.
    ADJOIN_STATUS_INPUT_MOVED = 1009,
    /// An input was lost with the session of a server that shut down. Not submitted.
    ADJOIN_STATUS_INPUT_LOST = 1010,
    /// The outputs were lost with the session of a server that shut down.
    ADJOIN_STATUS_OUTPUT_LOST = 1011,
    /// This process was forked after the client connected.
    ADJOIN_STATUS_FORKED = 1012,
    /// No server listens in the socket directory.
    ADJOIN_STATUS_NO_SERVER = 1100,
    /// This user may not connect to the server's socket.
    ADJOIN_STATUS_PERMISSION_DENIED = 1101,
    /// What listens there is no adjoin server.
    ADJOIN_STATUS_NOT_A_SERVER = 1102,
    /// The connection was closed without an answer.
    ADJOIN_STATUS_CONNECTION_CLOSED = 1103,
    /// The system refused something that a session needs.
    ADJOIN_STATUS_SYSTEM = 1104,
    /// The library broke one of its own rules.
    ADJOIN_STATUS_CLIENT_INTERNAL = 1900,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adjoin_status adjoin_status;
#else
typedef uint32_t adjoin_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// The type of a tensor's elements. The numbers are those that travel; they keep their meaning.
enum adjoin_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// In an argument: whatever the tensor has. Tensors themselves always have one of the others.
    ADJOIN_DTYPE_ANY = 0,
    /// One byte, 0 or 1.
    ADJOIN_DTYPE_BOOL = 1,
    /// uint8_t
    ADJOIN_DTYPE_UINT8 = 2,
    /// uint16_t
    ADJOIN_DTYPE_UINT16 = 3,
    /// uint32_t
    ADJOIN_DTYPE_UINT32 = 4,
    /// uint64_t
    ADJOIN_DTYPE_UINT64 = 5,
    /// int8_t
    ADJOIN_DTYPE_INT8 = 6,
    /// int16_t
    ADJOIN_DTYPE_INT16 = 7,
    /// int32_t
    ADJOIN_DTYPE_INT32 = 8,
    /// int64_t
    ADJOIN_DTYPE_INT64 = 9,
    /// IEEE 754 half, 2 bytes.
    ADJOIN_DTYPE_FP16 = 10,
    /// The upper half of a float, 2 bytes.
    ADJOIN_DTYPE_BF16 = 11,
    /// float
    ADJOIN_DTYPE_FP32 = 12,
    /// double
    ADJOIN_DTYPE_FP64 = 13,
    /// Strings: for each element its length as a little-endian uint32_t, then its bytes. See
    /// adjoin_bytes_pack.
    ADJOIN_DTYPE_BYTES = 14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum adjoin_dtype adjoin_dtype;
#else
typedef uint32_t adjoin_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// A request that is being put together. It is not used up: what is built from it can be built
/// again. One thread at a time.
typedef struct adjoin_builder adjoin_builder;

/// A session with a server. When the server is gone, the next call that needs one opens a session
/// with the next server.
///
/// Any number of threads at a time. The session is closed when the client and all models and
/// requests made from it are freed, in any order.
typedef struct adjoin_client adjoin_client;

/// What went wrong in the last failed call that was given this object: status, text, advice.
///
/// One for each thread is enough, for its whole life. A call that fails fills it; a call that
/// succeeds leaves it as it is. One thread at a time.
typedef struct adjoin_error adjoin_error;

/// A model as the server described it when it was asked. Any number of threads at a time.
typedef struct adjoin_model adjoin_model;

/// Sizes and habits of a client, to connect with. Sizes are fixed for the life of a client. One
/// thread at a time.
typedef struct adjoin_options adjoin_options;

/// A request of one model: its inputs in shared memory, to be written in place and run as often as
/// one likes, and the outputs of its last run.
///
/// It is idle, in flight, or answered. Submitting takes it from idle or answered to in flight;
/// waiting from there to answered, or back to idle if it failed. One thread at a time: a call that
/// meets another one on the same request fails with ADJOIN_STATUS_WRONG_STATE.
typedef struct adjoin_request adjoin_request;

/// A descriptor for poll, epoll and event loops, by which requests of any number of clients are
/// watched. Any number of threads at a time.
///
///     adjoin_request_set_watch for each request, once
///     submit
///     loop:
///         adjoin_watch_arm
///         for each request in flight: adjoin_request_is_done, and adjoin_request_wait if so
///         if there was one: submit it again or another one, and go back to the beginning
///         sleep until adjoin_watch_fd is readable
///         adjoin_watch_read
typedef struct adjoin_watch adjoin_watch;

/// What a model takes or gives. The pointers are there for as long as the model.
typedef struct {
    /// Name of the input or output.
    const char *name;
    /// Type of the elements.
    adjoin_dtype dtype;
    /// How many dimensions.
    size_t rank;
    /// Dimensions, outermost first; -1 where the request decides.
    const int64_t *shape;
    /// A name for each dimension, empty where it has none.
    const char *const *dimension_names;
} adjoin_spec;

/// An input, to be written in place.
typedef struct {
    /// Its name. It is there for as long as the request.
    const char *name;
    /// Type of the elements.
    adjoin_dtype dtype;
    /// How many dimensions.
    size_t rank;
    /// Dimensions, outermost first. They are there for as long as the request.
    const int64_t *shape;
    /// The elements, row by row, aligned to 64 bytes. May be written whenever the request is not in
    /// flight, until the request is freed or the same input is asked for again.
    void *data;
    /// Bytes of the elements.
    size_t byte_size;
} adjoin_input;

/// An output, where the server wrote it. All pointers are there until the request is submitted
/// again, its outputs are released, or it is freed.
typedef struct {
    /// Its name.
    const char *name;
    /// Type of the elements.
    adjoin_dtype dtype;
    /// How many dimensions.
    size_t rank;
    /// Dimensions, outermost first.
    const int64_t *shape;
    /// The elements, row by row, aligned to 64 bytes. The memory is mapped read-only.
    const void *data;
    /// Bytes of the elements.
    size_t byte_size;
} adjoin_output;

/// How a request ran.
typedef struct {
    /// From the server's intake to the start of the batch, in ns.
    uint64_t queue_ns;
    /// Time of the batch in the engine, in ns.
    uint64_t execute_ns;
    /// The model version that ran.
    uint64_t model_version;
    /// Rows of the batch that the request ran in.
    uint32_t batch_size;
    /// Whether the server copied the outputs once, because their size was not known before.
    bool is_output_copied;
} adjoin_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// The ABI of the library that is loaded. Compare it with ADJOIN_ABI_VERSION where the library was
/// not found by its soname, as with dlopen.
uint32_t adjoin_abi_version(void);

/// The release of the library that is loaded, such as "0.1.0".
const char *adjoin_version(void);

/// The status in a word, such as "queue_full": the name that metrics and logs use. "unknown" for a
/// number that is none. The text is there for as long as the library is.
const char *adjoin_status_name(adjoin_status status);

/// A new error object. Free it with adjoin_error_free.
adjoin_error *adjoin_error_new(void);

/// Frees an error object and its message. NULL is allowed.
void adjoin_error_free(adjoin_error *error);

/// The status of the last failed call; ADJOIN_STATUS_OK if none failed yet, or of NULL.
adjoin_status adjoin_error_status(const adjoin_error *error);

/// One sentence on what was wrong, with the value that was, and what to do; in UTF-8, never NULL.
/// It is there until a call with this object fails again, or the object is freed.
const char *adjoin_error_message(const adjoin_error *error);

/// Whether the request was not executed and nothing but time or load stands in its way, so that it
/// may succeed when it is submitted again as it is.
bool adjoin_error_is_retryable(const adjoin_error *error);

/// Whether the request may have run although there is no result, as when the server died.
bool adjoin_error_may_have_run(const adjoin_error *error);

/// The name of a data type in the Open Inference Protocol, such as "FP32"; "unknown" for a number
/// that is none, and for ADJOIN_DTYPE_ANY. The text is there for as long as the library is.
const char *adjoin_dtype_name(adjoin_dtype dtype);

/// Bytes of one element; 0 for ADJOIN_DTYPE_BYTES, whose elements differ in length, and for a
/// number that is none.
size_t adjoin_dtype_size(adjoin_dtype dtype);

/// New options, with the defaults. Free them with adjoin_options_free.
adjoin_options *adjoin_options_new(void);

/// Frees options. Clients that were connected with them stay as they are. NULL is allowed.
void adjoin_options_free(adjoin_options *options);

/// Bytes of the request region, in which inputs lie: all requests that exist at one time must fit.
/// Default 16 MiB; rounded up to whole pages.
adjoin_status adjoin_options_set_request_bytes(adjoin_options *options,
                                               uint64_t byte_size,
                                               adjoin_error *error);

/// Bytes of the response region, in which outputs lie until they are released. Default 16 MiB;
/// rounded up to whole pages.
adjoin_status adjoin_options_set_response_bytes(adjoin_options *options,
                                                uint64_t byte_size,
                                                adjoin_error *error);

/// Most requests in flight at once: a power of two from 8 to 4096. Default 256.
adjoin_status adjoin_options_set_ring_entries(adjoin_options *options,
                                              uint32_t count,
                                              adjoin_error *error);

/// What the client calls itself in `adjoin sessions`; cut after 64 bytes. Default: nothing.
adjoin_status adjoin_options_set_name(adjoin_options *options,
                                      const char *name,
                                      adjoin_error *error);

/// How long a blocking call looks at the ring before it sleeps, in ns. Default 100 us, at most 20
/// ms; 0 sleeps at once. Spinning saves the 4 to 50 us of a wake-up and costs a core meanwhile.
adjoin_status adjoin_options_set_spin(adjoin_options *options,
                                      uint64_t at_most_ns,
                                      adjoin_error *error);

/// How long the server may take for the handshake, and for a question about a model, in ns. Default
/// 5 s.
adjoin_status adjoin_options_set_answer_timeout(adjoin_options *options,
                                                uint64_t timeout_ns,
                                                adjoin_error *error);

/// How long a call that finds its session dead tries to open another one, in ns. Default 0: one
/// attempt.
adjoin_status adjoin_options_set_reconnect_timeout(adjoin_options *options,
                                                   uint64_t timeout_ns,
                                                   adjoin_error *error);

/// Opens a session with the server whose sockets are in a directory.
///
/// `socket_dir` may be NULL: then it is that of the environment variable ADJOIN_SOCKET_DIR, or
/// /run/adjoin. `options` may be NULL for the defaults. Writes a client to `client`, to be freed
/// with adjoin_client_free; NULL if the call fails.
adjoin_status adjoin_client_connect(const char *socket_dir,
                                    const adjoin_options *options,
                                    adjoin_client **client,
                                    adjoin_error *error);

/// Frees a client. Models and requests made from it go on. NULL is allowed.
void adjoin_client_free(adjoin_client *client);

/// Number of the current session, unique in the life of the server; 0 in a forked child, or of
/// NULL.
uint64_t adjoin_client_session_id(const adjoin_client *client);

/// How often a new session took the place of one that was over; 0 of NULL.
uint64_t adjoin_client_reconnects(const adjoin_client *client);

/// Most requests in flight at once; 0 in a forked child, or of NULL.
size_t adjoin_client_in_flight_max(const adjoin_client *client);

/// Writes the release of the server that the current session is with to `buffer`, NUL-terminated,
/// and cut if the `size` bytes there are too few. Empty in a forked child.
adjoin_status adjoin_client_server_version(const adjoin_client *client,
                                           char *buffer,
                                           size_t size,
                                           adjoin_error *error);

/// Asks the server for a model: its newest ready version. Writes a model to `model`, to be freed
/// with adjoin_model_free; NULL if the call fails.
adjoin_status adjoin_client_model(const adjoin_client *client,
                                  const char *name,
                                  adjoin_model **model,
                                  adjoin_error *error);

/// The same model with all requests for one version. Writes a model of its own to `versioned`.
adjoin_status adjoin_model_with_version(const adjoin_model *model,
                                        uint64_t version,
                                        adjoin_model **versioned,
                                        adjoin_error *error);

/// The same model with all requests for the version that the server's operator labelled so, such as
/// "stable"; the server looks the label up for every request. Writes a model of its own to
/// `labelled`.
adjoin_status adjoin_model_with_label(const adjoin_model *model,
                                      const char *label,
                                      adjoin_model **labelled,
                                      adjoin_error *error);

/// Frees a model. Requests made from it go on. NULL is allowed.
void adjoin_model_free(adjoin_model *model);

/// Name of the model; NULL of NULL. It is there for as long as the model.
const char *adjoin_model_name(const adjoin_model *model);

/// Name of the engine that runs the model; NULL of NULL. It is there for as long as the model.
const char *adjoin_model_engine(const adjoin_model *model);

/// The version that is described; 0 of NULL.
uint64_t adjoin_model_version(const adjoin_model *model);

/// Most rows of one execution; 0 if requests are never batched, or of NULL.
uint32_t adjoin_model_max_batch_size(const adjoin_model *model);

/// All versions that are ready, ascending. Writes how many to `count`, which may not be NULL. They
/// are there for as long as the model; NULL of NULL.
const uint64_t *adjoin_model_ready_versions(const adjoin_model *model, size_t *count);

/// How many inputs the model has; 0 of NULL.
size_t adjoin_model_input_count(const adjoin_model *model);

/// How many outputs the model has; 0 of NULL.
size_t adjoin_model_output_count(const adjoin_model *model);

/// Writes what an input is to `spec`, by the model's order.
adjoin_status adjoin_model_input(const adjoin_model *model,
                                 size_t index,
                                 adjoin_spec *spec,
                                 adjoin_error *error);

/// Writes what an output is to `spec`, by the model's order.
adjoin_status adjoin_model_output(const adjoin_model *model,
                                  size_t index,
                                  adjoin_spec *spec,
                                  adjoin_error *error);

/// Begins a request whose inputs have open dimensions, or of which some outputs are not wanted.
/// Writes a builder to `builder`, to be freed with adjoin_builder_free; NULL if the call fails.
adjoin_status adjoin_builder_new(const adjoin_model *model,
                                 adjoin_builder **builder,
                                 adjoin_error *error);

/// Frees a builder. Requests that were built with it go on. NULL is allowed.
void adjoin_builder_free(adjoin_builder *builder);

/// Adds an input with these `rank` dimensions, outermost first. Its data type is the model's. Every
/// input of the model has to be added, in any order.
adjoin_status adjoin_builder_input(adjoin_builder *builder,
                                   const char *name,
                                   const int64_t *shape,
                                   size_t rank,
                                   adjoin_error *error);

/// Adds an input of strings (ADJOIN_DTYPE_BYTES), whose size does not follow from its shape:
/// `byte_size` bytes in all, see adjoin_bytes_size.
adjoin_status adjoin_builder_bytes_input(adjoin_builder *builder,
                                         const char *name,
                                         const int64_t *shape,
                                         size_t rank,
                                         size_t byte_size,
                                         adjoin_error *error);

/// Wants this output, and only those that are named so; without a call, all.
adjoin_status adjoin_builder_output(adjoin_builder *builder, const char *name, adjoin_error *error);

/// Whether the server may keep the request in its checked form after the first submission, which
/// makes the later ones faster. Default true. The room for its outputs stays reserved then, for as
/// long as the request exists.
adjoin_status adjoin_builder_prepare(adjoin_builder *builder,
                                     bool may_prepare,
                                     adjoin_error *error);

/// Takes room for the inputs in shared memory. Writes a request to `request`, to be freed with
/// adjoin_request_free; NULL if the call fails.
adjoin_status adjoin_builder_build(const adjoin_builder *builder,
                                   adjoin_request **request,
                                   adjoin_error *error);

/// The short form for a model of which only the number of rows is open, the first dimension of its
/// inputs: all inputs with so many rows, all outputs. Writes a request to `request`, to be freed
/// with adjoin_request_free; NULL if the call fails.
adjoin_status adjoin_model_request(const adjoin_model *model,
                                   uint64_t rows,
                                   adjoin_request **request,
                                   adjoin_error *error);

/// Frees a request, its inputs and its outputs. A request in flight is cancelled, and its memory is
/// used again only after the server's answer. NULL is allowed.
void adjoin_request_free(adjoin_request *request);

/// How many inputs the request has; 0 of NULL.
size_t adjoin_request_input_count(const adjoin_request *request);

/// Writes to `input` what the input of that name is, and where.
///
/// `dtype` is the type of the elements that the caller is going to write: another one than the
/// input's is ADJOIN_STATUS_DATA_TYPE_MISMATCH; ADJOIN_DTYPE_ANY asks for no check. The input holds
/// what was last written, at first what was in that memory before.
///
/// The address can be kept from run to run. It changes when the request moves to another session,
/// because the server was restarted. The submission that moves it still succeeds, as what was
/// written before goes along, also when others failed before it for want of a server; later ones
/// fail with ADJOIN_STATUS_INPUT_MOVED until every address that was given out has been asked for
/// again. What was written through an old one meanwhile is not seen. Where a server that shut down
/// took the inputs with it, the submission that moves the request may fail so too, or with
/// ADJOIN_STATUS_INPUT_LOST.
///
/// While the request is in flight the call fails with ADJOIN_STATUS_WRONG_STATE.
adjoin_status adjoin_request_input(adjoin_request *request,
                                   const char *name,
                                   adjoin_dtype dtype,
                                   adjoin_input *input,
                                   adjoin_error *error);

/// As adjoin_request_input, by the order in which the inputs were named to the builder, or the
/// model's.
adjoin_status adjoin_request_input_at(adjoin_request *request,
                                      size_t index,
                                      adjoin_dtype dtype,
                                      adjoin_input *input,
                                      adjoin_error *error);

/// Gives the outputs back now rather than when the request is next submitted, or freed. Nothing is
/// done if there are none.
adjoin_status adjoin_request_release(adjoin_request *request, adjoin_error *error);

/// Sets how far from each later submission its deadline is, in ns; ADJOIN_FOREVER for none, which
/// is the default. The server refuses what has not begun to run by then, with
/// ADJOIN_STATUS_DEADLINE_EXCEEDED.
adjoin_status adjoin_request_set_deadline(adjoin_request *request,
                                          uint64_t after_ns,
                                          adjoin_error *error);

/// Sets the priority level of later submissions: 1 is the most urgent, 0 the model's default, which
/// is the default.
adjoin_status adjoin_request_set_priority(adjoin_request *request,
                                          uint16_t level,
                                          adjoin_error *error);

/// Submits the request and waits for its outputs, but no longer than `timeout_ns`, or without a
/// limit for ADJOIN_FOREVER. That includes the time for a connection with the next server, where the
/// session is over: ADJOIN_STATUS_NO_SERVER if there is none by then.
///
/// After ADJOIN_STATUS_TIMEOUT the request is still in flight: wait for it again, cancel it, or
/// free it. After every other error it is idle, with its inputs as they are. The outputs of the
/// last run end with this call, whatever its outcome. Signals do not end the wait.
adjoin_status adjoin_request_infer(adjoin_request *request,
                                   uint64_t timeout_ns,
                                   adjoin_error *error);

/// Submits the request and does not wait, but for a connection with the next server, where the session
/// is over: until the request's deadline, and no longer than
/// adjoin_options_set_reconnect_timeout says. Until it was waited for, its inputs belong to the server.
/// The outputs of the last run end with this call, whatever its outcome.
///
/// ADJOIN_STATUS_SYSTEM says that the request is in flight and could not be watched; see
/// adjoin_request_set_watch.
adjoin_status adjoin_request_submit(adjoin_request *request,
                                    adjoin_error *error);

/// Waits for the outputs of a submitted request, as adjoin_request_infer does. Done at once if they
/// are there already.
adjoin_status adjoin_request_wait(adjoin_request *request,
                                  uint64_t timeout_ns,
                                  adjoin_error *error);

/// Writes to `is_done` whether adjoin_request_wait would return at once. Never waits.
adjoin_status adjoin_request_is_done(adjoin_request *request, bool *is_done, adjoin_error *error);

/// Asks the server to drop a request that is in flight. It has to be waited for all the same: the
/// answer is ADJOIN_STATUS_CANCELLED, or what it was if the request was running already. Nothing is
/// done for a request that is not in flight.
adjoin_status adjoin_request_cancel(adjoin_request *request, adjoin_error *error);

/// How many outputs the request has; 0 if it is not answered, or of NULL.
size_t adjoin_request_output_count(const adjoin_request *request);

/// Writes to `output` what the output of that name is, and where.
///
/// `dtype` is the type of the elements that the caller is going to read: another one than the
/// output's is ADJOIN_STATUS_DATA_TYPE_MISMATCH; ADJOIN_DTYPE_ANY asks for no check. If the request
/// is not answered, the call fails with ADJOIN_STATUS_WRONG_STATE.
adjoin_status adjoin_request_output(const adjoin_request *request,
                                    const char *name,
                                    adjoin_dtype dtype,
                                    adjoin_output *output,
                                    adjoin_error *error);

/// As adjoin_request_output, by the order in which the outputs were named to the builder, or the
/// model's.
adjoin_status adjoin_request_output_at(const adjoin_request *request,
                                       size_t index,
                                       adjoin_dtype dtype,
                                       adjoin_output *output,
                                       adjoin_error *error);

/// Writes to `stats` how the request ran.
adjoin_status adjoin_request_stats(const adjoin_request *request,
                                   adjoin_stats *stats,
                                   adjoin_error *error);

/// Writes a watch to `watch`, to be freed with adjoin_watch_free; NULL if the call fails.
adjoin_status adjoin_watch_new(adjoin_watch **watch, adjoin_error *error);

/// Frees a watch and closes its descriptor. Requests that it watches go on without it. NULL is
/// allowed.
void adjoin_watch_free(adjoin_watch *watch);

/// The descriptor, for as long as the watch; -1 of NULL. It becomes readable when a request that is
/// watched may be done. Do nothing but poll it.
int adjoin_watch_fd(const adjoin_watch *watch);

/// Has the descriptor become readable with the next answer. Call it before every sleep, and look at
/// the requests in flight once more after it: what came before is not told.
///
/// While it is armed, each answer costs the server a system call; so a loop that has other work
/// does that first.
adjoin_status adjoin_watch_arm(const adjoin_watch *watch, adjoin_error *error);

/// Makes the descriptor silent again, after it was readable.
adjoin_status adjoin_watch_read(const adjoin_watch *watch, adjoin_error *error);

/// Has all later submissions of a request by adjoin_request_submit watched; by none for NULL. The
/// request may be in flight already: then this one is watched too.
adjoin_status adjoin_request_set_watch(adjoin_request *request,
                                       const adjoin_watch *watch,
                                       adjoin_error *error);

/// Writes to `byte_size` how many bytes `count` strings take in a tensor of ADJOIN_DTYPE_BYTES.
///
/// `lengths` may be NULL if all strings are NUL-terminated; otherwise it holds the bytes of each,
/// which may be any then.
adjoin_status adjoin_bytes_size(const char *const *strings,
                                const size_t *lengths,
                                size_t count,
                                size_t *byte_size,
                                adjoin_error *error);

/// Writes `count` strings to the `byte_size` bytes at `data`, as a tensor of ADJOIN_DTYPE_BYTES
/// holds them. They have to fill them exactly, see adjoin_bytes_size.
adjoin_status adjoin_bytes_pack(const char *const *strings,
                                const size_t *lengths,
                                size_t count,
                                void *data,
                                size_t byte_size,
                                adjoin_error *error);

/// Finds the `count` strings in the `byte_size` bytes of a tensor of ADJOIN_DTYPE_BYTES. Writes the
/// address of each to `strings`, and its bytes to `lengths`: they are not NUL-terminated. They are
/// there for as long as the tensor's bytes.
adjoin_status adjoin_bytes_unpack(const void *data,
                                  size_t byte_size,
                                  size_t count,
                                  const char **strings,
                                  size_t *lengths,
                                  adjoin_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ADJOIN_H */
