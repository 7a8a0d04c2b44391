//! NVIDIA GPUs for adjoin.
//!
//! A client's region is registered with the driver once, when its session opens. From then on the copy engine reads
//! each request straight into its row of a batch on the device, and writes outputs straight into the clients' response
//! regions: no payload byte passes through a processor. This crate does that and no more. It knows tensors as payloads
//! and buffers; it knows no engine, no session and no model.
//!
//! ```text
//! Driver::find() -> Driver::device(0) -> Device           one context, rebuilt by Device::reset
//! Transfers::start(&device, settings)                     Registry, PinnedPool, Kernels, Thresholds
//! BatchSlots::new(&transfers, &spec, 2)                   device buffers, two slots for each instance
//! slots.acquire().begin() -> Run
//!     run.gather(input, &pieces)                          regions -> device
//!     run.compute(&stream, |stream, inputs, outputs| ..)  the engine enqueues its work
//!     run.scatter(output, pieces)                         device -> regions
//!     run.finish()                                        waits; lets go of all memory
//! ```
//!
//! A client may also share memory of the device itself ([`DeviceRegion`]): its pieces never leave the device.
//!
//! Where a region cannot be registered, its pieces go through pinned staging memory ([`PinnedPool`]), and where there
//! is none, through the driver; [`Counters`] has the bytes of each path.
//!
//! # What holds at any point, errors and panics included
//! * Memory that a transfer touches stays mapped until an event behind the transfer has fired: [`Lane`].
//! * A region that is retired stays registered and mapped until its last lease ends: [`Registry::retire`].
//! * A region on the device stays mapped until the last lane that copies from it or to it has settled.
//! * In a context that is lost, nobody can know whether a transfer is under way: what it may touch is kept until
//!   [`Device::reset`] has ended the context.
//! * Everything that was made in a context that is gone refuses with [`CudaError::ContextGone`]; the driver is not
//!   called.
//!
//! # Without a GPU
//! The crate builds without a CUDA toolkit, and [`Driver::find`] is a clear error where there is no driver. Its tests
//! run against `tests/fake-cuda`, a driver of ours without a device; with `ADJOIN_REAL_CUDA=1` those that ask for no
//! failure run on the machine's own.

#![warn(missing_docs)]

mod counters;
mod device;
mod driver;
mod error;
mod kernels;
mod pinned;
mod regions;
mod registry;
mod shared;
mod slot;
mod thresholds;
mod transfers;

pub use self::counters::{CopiedBytes, CopiedWithin, CopyForm, Counters, Path};
pub use self::device::Device;
pub use self::driver::{
    DeviceBuffer, DeviceFacts, Driver, Event, FloatType, Graph, IPC_HANDLE_BYTES, IpcHandle, Lane,
    Normalize, Stream,
};
pub use self::error::CudaError;
pub use self::kernels::Kernels;
pub use self::pinned::{PinnedPool, PinnedStats};
pub use self::regions::{DeviceRegion, DeviceRegions};
pub use self::registry::{Lease, Refusal, RegionKey, RegionState, Registry, RegistryStats};
pub use self::shared::SharedBuffer;
pub use self::slot::{BatchGraph, BatchSlot, BatchSlots, NormalizeInput, Run, SlotSpec};
pub use self::thresholds::Thresholds;
pub use self::transfers::{TransferSettings, Transfers};
