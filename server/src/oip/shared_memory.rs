//! Shared-memory regions, in the protocol's words.

use std::sync::Arc;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::system_shared_memory_status_response::RegionStatus;
use adjoin_oip::{Fault, Kind};

use super::regions::Region;
use super::{Caller, Oip};

impl Oip {
    /// What the caller has registered: the region of that name, or all.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn region_status(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<api::SystemSharedMemoryStatusResponse, Fault> {
        let found = self.regions.status(&caller.owner, name)?;
        let status = |region: Arc<Region>| {
            let status = RegionStatus {
                name: region.name().to_owned(),
                key: region.key().to_owned(),
                offset: region.offset(),
                byte_size: region.byte_size(),
            };
            (status.name.clone(), status)
        };
        let regions = found.into_iter().map(status).collect();
        Ok(api::SystemSharedMemoryStatusResponse { regions })
    }

    /// Registers a region.
    ///
    /// # Errors
    /// If it is off, or what is named is no region.
    pub fn register_region(
        &self,
        caller: &Caller,
        request: &api::SystemSharedMemoryRegisterRequest,
    ) -> Result<api::SystemSharedMemoryRegisterResponse, Fault> {
        let api::SystemSharedMemoryRegisterRequest {
            name,
            key,
            offset,
            byte_size,
        } = request;
        self.regions
            .register(&caller.owner, name, key, *offset, *byte_size)?;
        Ok(api::SystemSharedMemoryRegisterResponse {})
    }

    /// Forgets the caller's region of that name, or all of the caller's. Calls that use them go on to their end.
    pub fn unregister_region(&self, caller: &Caller, name: &str) {
        if name.is_empty() {
            self.regions.unregister_all(&caller.owner);
        } else {
            self.regions.unregister(&caller.owner, name);
        }
    }

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
