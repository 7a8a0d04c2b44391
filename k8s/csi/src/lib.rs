//! A CSI driver of inline volumes: a pod that asks for one gets the socket directory of its node's server.
//!
//! For pods under the Pod Security standard "restricted", which may not mount directories of the host. There are no volumes to
//! make, attach or resize: a volume is one read-only bind mount, made when a pod starts ([`publish`]) and undone when it
//! ends. Clients connect through it; they can neither remove the sockets nor put others in their place.

mod driver;
pub mod publish;
mod registration;
pub mod serve;

/// Messages and services.
#[allow(
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
pub mod api {
    /// The Container Storage Interface.
    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    /// The kubelet's registration of drivers.
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
}

/// The driver's name, by which CSIDriver objects and volumes of pods call it.
pub const DRIVER: &str = "csi.adjoin";
