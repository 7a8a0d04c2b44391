//! The Open Inference Protocol's inference messages, both ways: from a gRPC message or an HTTP body to a [`Call`], from
//! a [`Reply`] to either. What the two transports share is decided here once: which parameters mean what, what
//! mixing contents means, how strings lie in bytes.
//!
//! A `Call` is well formed: names have a length, shapes stand for memory, bytes are as many as they should be. Whether it
//! fits a model is not looked at here.
//!
//! Nothing here reads a clock, a file or a socket, and no allocation is larger than a small multiple of the bytes that
//! came in.

mod call;
mod classification;
mod elements;
mod fault;
pub mod grpc;
pub mod http;
pub mod json;
mod parameters;

pub use call::{
    Call, CallInput, CallOutput, Content, RegionSlice, Reply, ReplyContent, ReplyOutput, Target,
    VersionChoice,
};
pub use classification::{Labels, classify};
pub use elements::string_elements;
pub use fault::{Fault, Kind};
pub use parameters::{CallParameters, Value};
