//! Kernels of this crate, loaded on a device.

use std::sync::Arc;

use crate::device::Device;
use crate::driver::{DeviceBuffer, Lane, Module, Normalize};
use crate::error::CudaError;

/// The kernels on one device. Clones share them.
#[derive(Clone, Debug)]
pub struct Kernels {
    module: Arc<Module>,
}

impl Kernels {
    /// Loads them: the driver compiles them for the device, and keeps the result on disk.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn load(device: &Device) -> Result<Self, CudaError> {
        Ok(Self {
            module: Module::load(device)?,
        })
    }

    /// Enqueues in `lane` the normalisation of `images` images from the start of `from` to the start of `to`.
    ///
    /// # Errors
    /// If they do not fit the buffers, or the driver refuses.
    pub fn normalize(
        &self,
        lane: &mut Lane,
        normalize: &Normalize,
        images: u32,
        from: &DeviceBuffer,
        to: &DeviceBuffer,
    ) -> Result<(), CudaError> {
        lane.launch_normalize(&self.module, normalize, images, from, to)
    }

    /// Generation of the device's context that they were loaded in.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.module.generation()
    }

    pub(crate) fn module(&self) -> &Arc<Module> {
        &self.module
    }
}
