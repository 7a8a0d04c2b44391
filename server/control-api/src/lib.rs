//! The gRPC interfaces of adjoin, generated from the files in `proto/`: [`control`] is adjoin's own
//! control plane, [`inference`] the Open Inference Protocol.

#![allow(
    clippy::all,
    clippy::pedantic,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    unnameable_types,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::unwrap_used,
    reason = "written by the code generator"
)]

mod bounds;
pub mod codec;

/// adjoin's control plane.
pub mod control {
    tonic::include_proto!("adjoin.control.v1");
}

/// The Open Inference Protocol.
pub mod inference {
    tonic::include_proto!("inference");
}

/// Largest message of the Open Inference Protocol, in bytes: what its clients expect to pass. The parts of a request take
/// no more either once it is decoded.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Socket of the control plane and of the Open Inference Protocol, in the server's socket directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Socket of the control plane's admin service, which only the server's own user may reach.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// All descriptors, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
