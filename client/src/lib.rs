//! Client of adjoin: tensors are written once, into memory shared with the server, and the model runs
//! on them where they lie.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pixels = [0.0f32; 4 * 64];
//! let client = adjoin_client::Client::connect("/run/adjoin")?;
//! let model = client.model("digits")?;
//! let mut request = model
//!     .request()
//!     .input("image", &[4, 1, 8, 8])?
//!     .outputs(&["scores"])
//!     .build()?;
//! request.input_mut::<f32>("image")?.copy_from_slice(&pixels);
//! let outputs = request.infer()?;
//! let scores: &[f32] = outputs.get("scores")?;
//! println!("{scores:?} in a batch of {}", outputs.stats().batch_size);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Request`] keeps its place in shared memory and is run as often as one likes; after the first
//! run the server knows it, and neither side parses, copies or allocates anything for it any more.
//! With [`Request::submit`] several are under way at once: the [`Pending`] that it gives becomes a
//! [`Response`], and that a request again. What is with the server cannot be written, and what was
//! given back cannot be read, by type.
//!
//! # Threads, tasks, processes
//!
//! [`Client`] and [`Model`] are shared by threads, requests move between them. One session has one
//! lock for each ring, held for some tens of nanoseconds; waiting holds none. With the feature `tokio` a
//! [`Pending`] can be awaited. A forked child has no session: every operation there says `Forked`.
//!
//! # When the server goes
//!
//! Every wait notices within 100 ms, with [`InferError::ServerGone`] for what was under way. The next
//! operation connects again (see [`ClientOptions::reconnect_timeout`]), and a request moves to the new
//! session with its bytes, so a loop around [`Request::infer`] outlives its servers. A request that
//! certainly did not run is known by [`InferError::is_retryable`].

#![warn(missing_docs)]

mod answer;
#[cfg(feature = "tokio")]
mod asynchronous;
mod builder;
mod client;
mod connect;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod error;
mod exchange;
mod harvest;
mod inbox;
mod inflight;
mod lease;
mod limit;
mod model;
mod options;
mod pending;
mod placement;
mod places;
mod reclaim;
mod request;
mod response;
mod run;
mod session;
mod submission;
mod tensor;
mod wait;
mod watch;

pub use adjoin_schema::DataType;
pub use adjoin_schema::attach::{ModelInfo, TensorSpec, Token};
pub use adjoin_schema::descriptor::Rejection;
pub use adjoin_schema::status::Status;
pub use adjoin_shm::{Element, ElementError, WritablePart};

#[cfg(feature = "tokio")]
pub use asynchronous::PendingFuture;
pub use builder::RequestBuilder;
pub use client::Client;
pub use device::{DeviceRegion, ExportedMemory};
pub use error::{ConnectError, Explanation, InferError, RegionFull, RequestError, TensorError};
pub use lease::Lease;
pub use model::Model;
pub use options::{ClientOptions, SubmitOptions};
pub use pending::{FailedRequest, Pending};
pub use places::{InputPlace, OutputPlace};
pub use request::Request;
pub use response::{Outputs, Response, Stats};
pub use tensor::TensorInfo;
pub use watch::Watch;
