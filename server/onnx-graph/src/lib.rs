//! What adjoin needs to know of an ONNX file before an engine loads it.
//!
//! Two things no engine tells: in which order and with which *named* dimensions the file lists its
//! inputs and outputs, and what the graph does with the values of each input. The second decides
//! whether a client's memory may be read in place ([`InputAccess`](adjoin_backend::InputAccess)) and
//! whether a request could make an engine divide integers by zero.
//!
//! The file is read once and its weights are skipped; an engine that loads the same bytes runs exactly
//! the graph that was looked at here. No file can make this crate panic: what is damaged, too deep or
//! outside the protocol's limits is a [`GraphError`].

#![warn(missing_docs)]

mod describe;
mod error;
mod file;
mod operators;
mod proto;
mod uses;

pub use describe::{OnnxModel, describe};
pub use error::GraphError;
pub use file::OnnxFile;
