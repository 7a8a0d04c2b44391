//! The one place that calls the driver, and the only one with `unsafe`.
//!
//! | module | what it makes safe |
//! |---|---|
//! | `table` | functions of the library, found by name |
//! | `library` | starting the driver, and what it says about devices |
//! | `context` | handles that become invalid all at once |
//! | `stream` | streams and events |
//! | `memory`, `host` | memory of the device; pinned and registered memory of the host |
//! | `lane`, `copies`, `transfer` | transfers, which go on after the call that asked for them |
//! | `sharing` | memory of the device that other processes made, or get |
//! | `module`, `normalize` | kernels |
//! | `graph` | work that is captured once and launched many times |
#![allow(unsafe_code, reason = "calls the driver's C functions")]

mod context;
mod copies;
mod graph;
mod hold;
mod host;
mod lane;
mod library;
mod memory;
mod module;
mod normalize;
mod sharing;
mod stream;
#[allow(non_snake_case, reason = "the driver's own names")]
mod table;
mod transfer;

pub(crate) use self::context::Context;
pub(crate) use self::copies::CopyList;
pub use self::graph::Graph;
pub(crate) use self::hold::{Hold, Owner};
pub(crate) use self::host::{HostRange, PinnedBuffer, Registration};
pub use self::lane::Lane;
pub use self::library::{DeviceFacts, Driver};
pub use self::memory::DeviceBuffer;
pub(crate) use self::module::Module;
pub use self::normalize::{FloatType, Normalize};
pub use self::sharing::{IPC_HANDLE_BYTES, IpcHandle};
pub use self::stream::{Event, Stream};
pub(crate) use self::stream::{Waited, Waiting};
pub(crate) use self::transfer::{Direction, ROW_BYTES};
