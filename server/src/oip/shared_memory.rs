//! Shared-memory regions, in the protocol's words.

use adjoin_control_api::inference as api;
use adjoin_oip::{Fault, Kind};

use super::{Caller, Oip};

impl Oip {
    /// What the caller has registered: the region of that name, or all.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn region_status(
        &self,
        _caller: &Caller,
        _name: &str,
    ) -> Result<api::SystemSharedMemoryStatusResponse, Fault> {
        Ok(api::SystemSharedMemoryStatusResponse::default())
    }

    /// Registers a region.
    ///
    /// # Errors
    /// If it is off, or is no region.
    pub fn register_region(
        &self,
        _caller: &Caller,
        _request: &api::SystemSharedMemoryRegisterRequest,
    ) -> Result<api::SystemSharedMemoryRegisterResponse, Fault> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    /// Forgets the caller's region of that name, or all.
    pub fn unregister_region(&self, _caller: &Caller, _name: &str) {}

    /// CUDA regions: there are none.
    ///
    /// # Errors
    /// If one is named.
    pub fn cuda_region_status(name: &str) -> Result<api::CudaSharedMemoryStatusResponse, Fault> {
        if name.is_empty() {
            return Ok(api::CudaSharedMemoryStatusResponse::default());
        }
        let text = format!("Unable to find cuda shared memory region: '{name}'");
        Err(Fault::new(Kind::NotFound, text))
    }

    /// Why no CUDA region can be registered.
    #[must_use]
    pub fn no_cuda() -> Fault {
        Fault::new(
            Kind::Unsupported,
            "CUDA shared memory: this server runs models on the CPU",
        )
    }
}
