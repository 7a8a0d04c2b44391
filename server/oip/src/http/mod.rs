//! Calls as HTTP bodies: JSON, and JSON followed by raw bytes (the binary tensor extension).

mod bounded;
mod reply;
mod request;

pub use reply::{Body, body};
pub use request::call;

/// Header with the bytes of the JSON at the start of a body; what follows is raw.
pub const JSON_LENGTH_HEADER: &str = "inference-header-content-length";
