//! Every maximum of the protocol, each with its reason.
//!
//! Limits that an operator may want to change (sessions, bytes per user, queue lengths) are in the
//! server's configuration; these here are the ones that both sides rely on.

/// Largest descriptor, in bytes. It is copied out of shared memory before anything looks at it, so it
/// has to be small; 64 tensors of rank 8 with names of ordinary length take less than 12 KiB.
pub const DESCRIPTOR_BYTES_MAX: u32 = 16 * 1024;

/// Most inputs or outputs of one request. Real models have a handful; exporters' key-value caches
/// reach some dozens.
pub const TENSORS_MAX: usize = 64;

/// Most dimensions of a tensor. ONNX sets no limit; numpy's and TensorRT's usable ranks end at 8.
pub const RANK_MAX: usize = 8;

/// Longest name of a tensor in bytes. Exporters write paths of modules into names.
pub const TENSOR_NAME_BYTES_MAX: usize = 256;

/// Longest name of a model in bytes: it is one path segment, and it labels metrics.
pub const MODEL_NAME_BYTES_MAX: usize = 128;

/// Longest version label in bytes (`stable`, `canary`).
pub const LABEL_BYTES_MAX: usize = 64;

/// Longest name that a client may give itself, in bytes; it is shown in `adjoin sessions`.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Every tensor, descriptor and part of a region starts at a multiple of this many bytes: a cache
/// line, and what vector instructions and copy engines ask for.
pub const ALIGNMENT: u64 = 64;

/// Fewest places in a completion ring.
pub const RING_ENTRIES_MIN: u32 = 8;

/// Most places in a completion ring: 4096 requests in flight in one session keep every engine busy,
/// and the rings of a session stay below 1 MiB.
pub const RING_ENTRIES_MAX: u32 = 4096;

/// Places in a completion ring where the client asks for none in particular.
pub const RING_ENTRIES_DEFAULT: u32 = 256;

/// Places in the submission ring for each place in the completion ring. Requests are bounded by the
/// completion ring; cancels and releases travel beside them and must never wait for a completion.
pub const SUBMISSIONS_PER_COMPLETION: u32 = 4;

/// Smallest region in bytes: both rings at their smallest and one page of payload.
pub const REGION_BYTES_MIN: u64 = 64 * 1024;

/// Largest region in bytes. Far above what one request needs, and far below where `offset + byte_size`
/// of anything valid could overflow.
pub const REGION_BYTES_MAX: u64 = 1 << 40;

/// Most prepared requests of one session; the server keeps their checked form.
pub const PREPARED_MAX: u32 = 4096;

/// Largest message on the attach socket: a model's description with 64 inputs and 64 outputs.
pub const ATTACH_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes by which a driver names a device.
pub const DEVICE_UUID_BYTES: usize = 16;

/// Bytes of an attach token and of a session secret.
pub const TOKEN_BYTES: usize = 16;

/// How long a token of `OpenSession` may be shown on the attach socket, in milliseconds. The client
/// connects at once; two seconds forgive a loaded machine.
pub const TOKEN_LIFE_MS: u64 = 2000;

/// Longest sleep of a client that waits for a completion, in milliseconds. A futex does not see that
/// the server died, so a sleeper looks at its socket this often.
pub const CLIENT_SLEEP_MS_MAX: u64 = 50;
