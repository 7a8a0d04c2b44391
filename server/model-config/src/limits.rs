//! Every maximum of a model's configuration, each with its reason. Those of tensors are the protocol's
//! ([`adjoin_schema::limits`]).

/// Most rows of a batch: more than any model gains from, and far from where sizes overflow.
pub const MAX_BATCH_SIZE_MAX: u32 = 65_536;

/// Most instances of a model; each has memory and a worker thread of its own.
pub const INSTANCES_MAX: u32 = 64;

/// Most threads of one instance for one operator.
pub const INTRA_OP_THREADS_MAX: u32 = 256;

/// Most steps of an ensemble. A pipeline has a handful.
pub const ENSEMBLE_STEPS_MAX: usize = 64;

/// Most samples of a warm-up, so that a load ends in good time.
pub const WARM_UP_SAMPLES_MAX: usize = 64;

/// Most runs of one sample of a warm-up, for the same reason.
pub const WARM_UP_COUNT_MAX: u32 = 1000;

/// Most bytes of one sample's inputs: the largest message of the Open Inference Protocol.
pub const WARM_UP_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Longest name of a file in a configuration, in bytes: what file systems take.
pub const FILE_NAME_BYTES_MAX: usize = 255;
